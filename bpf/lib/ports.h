/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Direct ports: guests' devices that are attached to a vnet without a bridge. What is for a MAC behind one is given to
 * it; what is for all is copied to each.
 *
 * Whose port a device is stands in direct_ports, which of a vnet's there are in direct_list. Behind which port a MAC of
 * this host is stands in its entry's `gen`, so it moves from port to port as it moves from host to host. An
 * entry whose port is gone points to nothing: the MAC is looked for at all ports.
 *
 * TCP that comes at wire size is merged on its way to a port (where the underlay device merges, as for the vnetif): it passes the
 * segmenting veth pair the other way round, in by its second end and out by its first, which has GRO. There is one
 * pair for all vnets, and two of them may have the same flow. GRO keeps apart what has different VLAN tags, so meanwhile
 * a frame bears its vnet's slot as one; the mark says which port it is for (vnetd_merged in bpf/port.bpf.c).
 */
#ifndef VNETD_PORTS_H
#define VNETD_PORTS_H

#include "copy.h"
#include "fdb.h"
#include "frame.h"

/* instead of an action: the frame goes on its way */
#define NOT_TAKEN (-1)

/* Where a MAC is, as a host sees it. */
enum here {
	/* nobody knows: at all ports, the vnetif, another host */
	HERE_UNKNOWN,
	/* on this host, as is configured, and not heard yet: at all ports, or the vnetif */
	HERE_SOMEWHERE,
	/* behind the vnetif */
	HERE_VNETIF,
	HERE_PORT,
	/* on another host */
	HERE_NOT,
};

struct here_found {
	/* enum here */
	__u32 where;
	/* HERE_PORT: which, enum vnetd_direct_flags, and its vnet */
	__u32 ifindex;
	__u32 flags;
	__u32 slot;
};

/* A port of the vnet, or NULL. */
static __always_inline struct vnetd_direct_port *direct_port(__u32 ifindex, __u32 handle)
{
	struct vnetd_direct_port *port = bpf_map_lookup_elem(&direct_ports, &ifindex);

	return port && port->handle == handle ? port : NULL;
}

/* Where a MAC is that is not a group's. */
static __always_inline void find_here(const struct vnetd_fdb_key *key,
				      const struct vnetd_vnet *vnet, struct here_found *found)
{
	struct fdb_found *entry = fdb_look(key, now_ns());
	struct vnetd_direct_port *port;

	found->where = HERE_UNKNOWN;
	if (!entry || !fdb_found_fresh(entry, vnet))
		return;
	if (entry->nexthop != VNETD_NEXTHOP_LOCAL) {
		found->where = HERE_NOT;
		return;
	}
	found->ifindex = entry->gen;
	if (!found->ifindex) {
		found->where = entry->flags & VNETD_FDB_STATIC ? HERE_SOMEWHERE : HERE_VNETIF;
		return;
	}
	port = direct_port(found->ifindex, key->handle);
	if (!port)
		return;
	found->where = HERE_PORT;
	found->flags = port->flags;
	found->slot = port->slot;
}

/* what bpf_check_mtu() gives (ENODEV) for a device that is not in this namespace */
#define NO_SUCH_DEVICE (-19)

/* Was the vnetif moved into another namespace? Then it is reached through its peer alone. */
static __always_inline bool vnif_is_elsewhere(struct __sk_buff *skb, const struct vnetd_vnet *vnet)
{
	__u32 mtu = 0;

	return bpf_check_mtu(skb, vnet->vnif, &mtu, 0, 0) == NO_SUCH_DEVICE;
}

/*
 * The frame to a port. Into another namespace it goes without a queue between; there the kernel does not look
 * again at what it is and whose, so that is right only for what is known to be IP.
 */
static __always_inline int give_to_port(struct __sk_buff *skb, __u32 ifindex, __u32 flags)
{
	__be16 type;

	skb->mark = VNETD_MARK_NONE;
	if (likely(flags & VNETD_DIRECT_PEER) && is_ip(skb) && !skb->vlan_present &&
	    !bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &type, sizeof(type)) &&
	    type == (__be16)skb->protocol) {
		/* on the port it was somebody else's */
		bpf_skb_change_type(skb, PACKET_HOST);
		return bpf_redirect_peer(ifindex, 0);
	}
	return bpf_redirect(ifindex, 0);
}

/* Of a flow all go one way: what is asked for is the same for each of its frames. */
static __always_inline bool is_tcp(struct __sk_buff *skb)
{
	__be16 type;
	__u8 protocol;

	if (skb->vlan_present || bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &type, sizeof(type)))
		return false;
	if (type == bpf_htons(ETH_P_IP))
		return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol),
					   &protocol, sizeof(protocol)) &&
		       protocol == IPPROTO_TCP;
	return type == bpf_htons(ETH_P_IPV6) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol,
				   sizeof(protocol)) &&
	       protocol == IPPROTO_TCP;
}

_Static_assert(VNETD_MAX_VNETS <= VLAN_ID + 1, "a slot goes as a VLAN id");

/* A frame from another host to a port, by way of GRO if it may be merged. */
static __always_inline int merge_to_port(struct __sk_buff *skb, const struct here_found *found)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (m && m->segment_in && is_tcp(skb) &&
	    !bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), found->slot & VLAN_ID)) {
		skb->mark = found->ifindex;
		return bpf_redirect(m->segment_in, 0);
	}
	return give_to_port(skb, found->ifindex, found->flags);
}

struct port_walk {
	struct __sk_buff *skb;
	__u32 handle;
	/* the port that it came from; 0: none */
	__u32 except;
	__u32 missed;
};

/* A callback of bpf_loop. */
static long copy_to_port(__u32 number, void *context)
{
	struct port_walk *walk = context;
	struct vnetd_member_key key = { .handle = walk->handle, .number = number };
	__u32 *ifindex = bpf_map_lookup_elem(&direct_list, &key);

	if (!ifindex)
		return 1;
	/* above 0: a full queue there is that guest's loss */
	if (*ifindex != walk->except && copy_redirect(walk->skb, *ifindex, 0) < 0)
		walk->missed = 1;
	return 0;
}

/* A copy to each port of the vnet but one. The mark stays. */
CHECKED_ONCE int copy_to_ports(struct __sk_buff *skb, __u32 handle, __u32 except, __u32 direction)
{
	struct port_walk walk = { .skb = skb, .handle = handle, .except = except };
	__u32 mark = skb->mark;

	skb->mark = VNETD_MARK_NONE;
	bpf_loop(VNETD_MAX_VNET_PORTS, copy_to_port, &walk, 0);
	skb->mark = mark;
	if (unlikely(walk.missed))
		count_drop(handle, direction, VNETD_DROP_COPY_FAILED, skb->len);
	return 0;
}

/* Reads where a frame goes to; false: to all. */
static __always_inline bool read_destination(struct __sk_buff *skb, struct vnetd_fdb_key *key)
{
	return !bpf_skb_load_bytes(skb, 0, key->mac, VNETD_MAC_LEN) && !is_group_mac(key->mac);
}

/*
 * A frame that came to a vnet with ports from another host, as its guests have it. merge: the device that it came by
 * delivers at wire size. Gives the program's return value, or NOT_TAKEN: the vnetif is to have it, and nobody
 * else or all ports had a copy.
 */
CHECKED_ONCE int deliver_to_ports(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 merge)
{
	struct here_found found = {};
	struct vnetd_fdb_key key = {};

	if (!vnet)
		return NOT_TAKEN;
	key.handle = vnet->handle;
	if (read_destination(skb, &key)) {
		find_here(&key, vnet, &found);
		if (likely(found.where == HERE_PORT))
			return merge ? merge_to_port(skb, &found)
				     : give_to_port(skb, found.ifindex, found.flags);
		if (found.where == HERE_VNETIF || found.where == HERE_NOT)
			return NOT_TAKEN;
	}
	copy_to_ports(skb, key.handle, 0, VNETD_DIR_DECAP);
	return NOT_TAKEN;
}

/*
 * A frame from the vnetif of a vnet with ports. What is for a MAC behind one ends here, so its source is
 * learned here. Gives the program's return value, or NOT_TAKEN: it goes on to other hosts.
 */
CHECKED_ONCE int bridge_to_ports(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot)
{
	struct here_found found = {};
	struct fdb_news news = { .nexthop = VNETD_NEXTHOP_LOCAL, .slot = slot };
	__u32 refused = VNETD_REFUSED_GROUP_MAC;

	if (!vnet)
		return NOT_TAKEN;
	news.key.handle = vnet->handle;
	if (read_destination(skb, &news.key)) {
		find_here(&news.key, vnet, &found);
		if (found.where == HERE_VNETIF || found.where == HERE_NOT)
			return NOT_TAKEN;
	}
	if (found.where != HERE_PORT) {
		copy_to_ports(skb, vnet->handle, 0, VNETD_DIR_ENCAP);
		return NOT_TAKEN;
	}
	if (bpf_skb_load_bytes(skb, ETH_ALEN, news.key.mac, VNETD_MAC_LEN))
		return NOT_TAKEN;
	news.now = now_ns();
	if (likely(!is_group_mac(news.key.mac)))
		refused = fdb_learn(&news, vnet);
	if (unlikely(refused)) {
		count_drop(vnet->handle, VNETD_DIR_ENCAP, refused, skb->len);
		watch_drop(skb, vnet->handle, VNETD_DIR_ENCAP, refused);
	}
	return give_to_port(skb, found.ifindex, found.flags);
}

#endif
