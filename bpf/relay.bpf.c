// SPDX-License-Identifier: GPL-2.0-only
/*
 * Forwarding to hosts that multicast does not reach, on the inner end of the relaying veth pair.
 *
 *   encap, oversize --copy of what goes to the group--+
 *   decap --copy of what the subnet's hosts send to it--+-- mark RELAY --> relay()
 *                            for each member that uses no multicast: plain VUDP  --+
 *                            for each peer: VFWD around it                       --+
 *   pair again  <--one copy each, mark RELAY_OUT: relay_out(): route and neighbour-+
 *
 *   decap --VFWD from a peer-- mark RELAY_IN --> relay_in(): is it right, was it here before;
 *                            take the group packet out of it, send it to the group of this subnet
 *                            with the original sender's address, and hand it to bpf/decap.bpf.c
 *
 * What went to a family's group goes to members and peers of that family, inside VFWD as it was; but for a vnet's own
 * group there stands the device's, which all forwarders know, originals included. Here it goes to the vnet's group again, if
 * this host has the vnet and others of it here are known to hear that.
 *
 * Never forwarded: what came by VFWD, what was heard from a source that is not on the subnet (another
 * forwarder sent it), and what this host sent itself. So there are no loops; copies that several
 * forwarders make are told by bpf/lib/seen.h.
 */
#include "lib/clear.h"
#include "lib/copy.h"
#include "lib/count.h"
#include "lib/forward.h"
#include "lib/forwarders.h"
#include "lib/fragment.h"
#include "lib/group.h"
#include "lib/nexthop.h"
#include "lib/seen.h"
#include "lib/vfwd.h"
#include "lib/watch.h"

/* Whether a packet is UDP behind a plain header; sets what has to go to make it so. */
static __always_inline bool is_udp(struct __sk_buff *skb, const union front *front, bool is_ipv6,
				   __u32 *surplus)
{
	*surplus = 0;
	if (is_ipv6) {
		if (front->v6.ip.version != 6)
			return false;
		if (front->v6.ip.nexthdr == IPPROTO_FRAGMENT)
			*surplus = sizeof(struct ipv6_fragment);
		return *surplus || front->v6.ip.nexthdr == IPPROTO_UDP;
	}
	if (front->v4.ip.version != 4 || front->v4.ip.ihl < 5 ||
	    front->v4.ip.protocol != IPPROTO_UDP)
		return false;
	*surplus = front->v4.ip.ihl * 4 - sizeof(struct iphdr);
	return true;
}

/*
 * Brings what was heard into the form that everything here expects: no IP options or fragment
 * header, nothing behind the UDP datagram. Reads the headers, and gives the datagram's length, or 0.
 */
static __always_inline __u32 tidy(struct __sk_buff *skb, union front *front, bool is_ipv6)
{
	__u32 behind = ETH_HLEN + ip_len(is_ipv6), surplus, len;
	struct udphdr *udp = is_ipv6 ? &front->v6.udp : &front->v4.udp;

	if (skb->gso_size || skb->protocol != bpf_htons(is_ipv6 ? ETH_P_IPV6 : ETH_P_IP) ||
	    front_load(skb, front, is_ipv6) || !is_udp(skb, front, is_ipv6, &surplus))
		return 0;
	if (unlikely(surplus)) {
		if (bpf_skb_adjust_room(skb, -(__s32)surplus, BPF_ADJ_ROOM_NET, 0) ||
		    bpf_skb_load_bytes(skb, behind, udp, sizeof(*udp)))
			return 0;
	}
	len = bpf_ntohs(udp->len);
	if (len < sizeof(*udp) || behind + len > skb->len)
		return 0;
	if (behind + len < skb->len && bpf_skb_change_tail(skb, behind + len, 0))
		return 0;
	return len;
}

/* ---- out: to members and peers ------------------------------------------------------------ */

struct out_walk {
	struct __sk_buff *skb;
	/* of the datagram to the group, and what is inside VFWD besides */
	__u32 len;
	__u32 room;
	__u32 handle;
	/* enum vnetd_family */
	__u32 family;
	/* the source port of plain copies */
	__be16 port;
	/* who sent it is this host */
	bool own;
	/* a copy could not be made */
	bool missed;
	union address source;
	union front front;
};

/* Below 0: the copy is lost. No mark stays on what other copies are made of. */
static __always_inline long leave_later(struct __sk_buff *skb,
					const struct vnetd_underlay *underlay)
{
	long err;

	skb->mark = VNETD_MARK_RELAY_OUT | (underlay->index & VNETD_MARK_INDEX);
	err = copy_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	skb->mark = VNETD_MARK_NONE;
	return err;
}

/* The place by which an address is reached; NULL: it is of the other family, or that is down. */
static __always_inline struct vnetd_underlay *way_to(struct out_walk *walk, __u32 ifindex,
						     const union address *addr)
{
	struct vnetd_underlay *underlay;

	if (address_is_ipv4(addr) != (walk->family == VNETD_FAMILY_IPV4))
		return NULL;
	underlay = underlay_at(ifindex, walk->family);
	if (underlay && underlay->flags & VNETD_UNDERLAY_UP)
		return underlay;
	walk->missed = true;
	return NULL;
}

/* A copy leaves with other headers in front of it. */
static __always_inline int copy_to(struct out_walk *walk, const struct vnetd_underlay *underlay,
				   const union address *to, __be16 sport, __be16 dport)
{
	bool is_ipv6 = walk->family == VNETD_FAMILY_IPV6;
	union address own;
	struct ip_spec spec = {
		.source = &own,
		.destination = to,
		.payload = walk->len + walk->room,
		/* DF is clear, so packets in flight should differ (RFC 6864 section 4.2); 0 means
		 * "none" to us. IPv6 wants nothing there. */
		.id = is_ipv6 ? 0 : bpf_get_prandom_u32() | 1,
		.ttl = VNETD_TTL_UNICAST,
	};

	__builtin_memcpy(&own, underlay->addr, sizeof(own));
	front_build(&walk->front, is_ipv6, &spec, underlay->mac);
	front_ports(&walk->front, is_ipv6, sport, dport ?: underlay->port);
	if (front_store(walk->skb, &walk->front, is_ipv6)) {
		walk->missed = true;
		return -1;
	}
	if (leave_later(walk->skb, underlay) < 0)
		walk->missed = true;
	return 0;
}

/* A callback of bpf_loop: the frame for one member that uses no multicast, as plain VUDP. */
static long copy_to_member(__u32 number, void *context)
{
	struct out_walk *walk = context;
	struct vnetd_member_key key = { .handle = walk->handle, .number = number };
	struct vnetd_member *member = bpf_map_lookup_elem(&unicast_members, &key);
	struct vnetd_underlay *underlay;
	union address to;

	if (!member)
		return 1;
	__builtin_memcpy(&to, member->addr, sizeof(to));
	underlay = way_to(walk, member->ifindex, &to);
	if (!underlay)
		return 0;
	return copy_to(walk, underlay, &to, walk->port, member->port) ? 1 : 0;
}

static __always_inline void count_peer(__u32 number, bool heard, __u32 len)
{
	struct vnetd_peer_stats *stats = bpf_map_lookup_elem(&peer_stats, &number);

	if (!stats)
		return;
	if (heard) {
		stats->heard_frames += 1;
		stats->heard_bytes += len;
	} else {
		stats->sent_frames += 1;
		stats->sent_bytes += len;
	}
}

/* A callback of bpf_loop: the frame for one peer, inside VFWD. */
static long copy_to_peer(__u32 number, void *context)
{
	struct out_walk *walk = context;
	struct vnetd_peer *peer = bpf_map_lookup_elem(&peers, &number);
	struct vnetd_underlay *underlay;
	union address to;

	if (!peer || !(peer->flags & VNETD_PEER_SEND))
		return 0;
	/* this host sends to it as a member */
	if (walk->own && peer->flags & VNETD_PEER_UNICAST)
		return 0;
	__builtin_memcpy(&to, peer->addr, sizeof(to));
	underlay = way_to(walk, peer->ifindex, &to);
	if (!underlay || same_words(to.words, walk->source.words))
		return 0;
	if (copy_to(walk, underlay, &to, underlay->port, peer->port))
		return 1;
	count_peer(number, false, walk->len);
	return 0;
}

/* A frame of this host's own, for the vnet's members that use no multicast. */
static __always_inline void to_members(struct __sk_buff *skb, struct out_walk *walk, bool is_ipv6)
{
	struct vnetd_vnet_id id;
	struct vnetd_vnet *vnet;
	__u32 *slot;

	if (bpf_skb_load_bytes(skb, front_len(is_ipv6) + offsetof(struct vnetd_vudp_hdr, vnet), &id,
			       sizeof(id)))
		return;
	slot = bpf_map_lookup_elem(&vnet_ids, &id);
	vnet = slot ? vnet_by_slot(*slot) : NULL;
	if (!vnet)
		return;
	walk->handle = vnet->handle;
	bpf_loop(VNETD_MAX_UNICAST_MEMBERS, copy_to_member, walk, 0);
}

/*
 * What VFWD carries in front of the message: the group packet's headers, as they were. Valid, because
 * an original can send on nothing else; the number lets others know the copies.
 */
static __always_inline void read_inside(const struct out_walk *walk,
					const struct vnetd_underlay *underlay, union vfwd *inside,
					bool is_ipv6)
{
	const union front *front = &walk->front;
	union address group, source = {};
	struct ip_spec spec = {
		.source = &source,
		.destination = &group,
		.payload = walk->len,
		.ttl = VNETD_TTL_UNICAST,
	};

	/* 0, "the address this came from": a peer may see another one than we */
	if (!walk->own)
		source = walk->source;
	__builtin_memcpy(&group, underlay->group, sizeof(group));
	if (is_ipv6) {
		spec.id = ipv6_number(&front->v6.ip);
		ipv6_build(&inside->v6.ip, &spec);
		inside->v6.udp = front->v6.udp;
	} else {
		spec.id = bpf_ntohs(front->v4.ip.id);
		ipv4_build(&inside->v4.ip, &spec);
		if (!walk->own)
			inside->v4.ip.check = ipv4_checksum(&inside->v4.ip);
		inside->v4.udp = front->v4.udp;
		if (!walk->own && forwards_itself(front->any.eth.h_source)) {
			inside->v4.ip.version = 0;
			inside->v4.ip.ihl = 0;
		}
	}
	/* of the same place in both */
	inside->v4.msg.id = bpf_htons(VNETD_MSG_VFWD);
	inside->v4.msg.opcode = 0;
}

static __always_inline int write_inside(struct __sk_buff *skb, const union vfwd *inside,
					bool is_ipv6)
{
	return is_ipv6 ? bpf_skb_store_bytes(skb, FRONT6, &inside->v6, sizeof(inside->v6), 0)
		       : bpf_skb_store_bytes(skb, FRONT4, &inside->v4, sizeof(inside->v4), 0);
}

/* Reads who sent a group packet, and what of it is needed. */
static __always_inline bool heard_packet(struct __sk_buff *skb, struct out_walk *walk,
					 const struct vnetd_underlay *underlay, bool is_ipv6)
{
	walk->len = tidy(skb, &walk->front, is_ipv6);
	if (!walk->len)
		return false;
	if (is_ipv6) {
		__builtin_memcpy(&walk->source, &walk->front.v6.ip.saddr, sizeof(walk->source));
		walk->port = walk->front.v6.udp.source;
	} else {
		ipv4_to(walk->source.bytes, walk->front.v4.ip.saddr);
		walk->port = walk->front.v4.udp.source;
	}
	walk->own = same_words(walk->source.words, (const void *)underlay->addr);
	return true;
}

static __always_inline __u32 relay(struct __sk_buff *skb, const struct vnetd_underlay *underlay,
				   bool is_ipv6)
{
	struct out_walk walk = { .skb = skb, .family = underlay->family };
	struct vnetd_meta *m = forward_wanted(underlay->family);
	union vfwd inside;

	if (!m || !heard_packet(skb, &walk, underlay, is_ipv6))
		return VNETD_DROP_STALE_PASS;
	if (carries_secure(skb, front_len(is_ipv6), vfwd_overhead(is_ipv6)))
		return VNETD_DROP_SECURITY;
	read_inside(&walk, underlay, &inside, is_ipv6);
	/* a group's address there would keep the kernel from resolving the neighbour */
	__builtin_memset(walk.front.any.eth.h_dest, 0, ETH_ALEN);
	if (m->unicast_members && walk.own)
		to_members(skb, &walk, is_ipv6);
	if (!m->peers)
		return walk.missed ? VNETD_DROP_COPY_FAILED : VNETD_OK;
	walk.room = vfwd_overhead(is_ipv6);
	if (ip_len(is_ipv6) + walk.room + walk.len > 0xffff)
		return VNETD_DROP_TOO_BIG;
	if (bpf_skb_change_head(skb, walk.room, 0) || write_inside(skb, &inside, is_ipv6))
		return VNETD_DROP_NO_MEMORY;
	bpf_loop(m->peers, copy_to_peer, &walk, 0);
	return walk.missed ? VNETD_DROP_COPY_FAILED : VNETD_OK;
}

/* The length of a packet that is whole; 0: it is none of ours. Its destination is a group's? */
static __always_inline __u32 whole_packet(struct __sk_buff *skb, bool is_ipv6, bool *to_group)
{
	union front front;

	if (skb->protocol != bpf_htons(is_ipv6 ? ETH_P_IPV6 : ETH_P_IP) ||
	    front_load(skb, &front, is_ipv6))
		return 0;
	*to_group = front.any.eth.h_dest[0] & 1;
	if (is_ipv6)
		return front.v6.ip.version == 6 && front.v6.ip.nexthdr == IPPROTO_UDP
			       ? sizeof(struct ipv6hdr) + bpf_ntohs(front.v6.ip.payload_len)
			       : 0;
	return front.v4.ip.version == 4 && front.v4.ip.ihl == 5 &&
			       front.v4.ip.protocol == IPPROTO_UDP
		       ? bpf_ntohs(front.v4.ip.tot_len)
		       : 0;
}

/* A copy, whole and with all its headers: to its device. */
SUBPROGRAM __u32 relay_out(struct __sk_buff *skb, const struct vnetd_underlay *underlay,
			   bool is_ipv6, int *action)
{
	bool to_group = false;
	__u32 len = whole_packet(skb, is_ipv6, &to_group), size;

	if (len < ip_len(is_ipv6))
		return VNETD_DROP_STALE_PASS;
	if (carries_secure(skb, front_len(is_ipv6), vfwd_overhead(is_ipv6)))
		return VNETD_DROP_SECURITY;
	if (len <= underlay->mtu) {
		/* to the group as it is; to a host by the kernel's route and neighbour */
		*action = to_group ? bpf_redirect(underlay->ifindex, 0)
				   : bpf_redirect_neigh(underlay->ifindex, NULL, 0, 0);
		return VNETD_OK;
	}
	len -= ip_len(is_ipv6);
	if (!fragments_fit(underlay->mtu, len))
		return VNETD_DROP_TOO_BIG;
	size = is_ipv6 ? fragment_size6(underlay->mtu, len) : fragment_size(underlay->mtu);
	if (note_size(skb, size, is_ipv6))
		return VNETD_DROP_NO_MEMORY;
	return fragment_copies(skb, underlay, len, size);
}

/* ---- in: from a peer ---------------------------------------------------------------------- */

struct in_walk {
	struct __sk_buff *skb;
	/* enum vnetd_family */
	__u16 family;
	/* of a frame's vnet; 0: it is not known here */
	__u16 slot;
	/* of the datagram to the group */
	__u32 len;
	__u16 number;
	__be16 port;
	/* the source is on the subnet of one of ours where multicast works */
	bool heard_anyway;
	bool own;
	/* a copy could not be made */
	bool missed;
	union address source;
	union front front;
};

/* A callback of bpf_loop: what is the source to this device? */
static long look_at_device(__u32 index, void *context)
{
	struct in_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);

	if (!underlay || underlay->family != walk->family)
		return 0;
	if (same_words(walk->source.words, (const void *)underlay->addr))
		walk->own = true;
	if (underlay->flags & VNETD_UNDERLAY_GROUP_WORKS && on_subnet(&walk->source, underlay))
		walk->heard_anyway = true;
	return 0;
}

/* The group packet as it is to be on this device. */
static __always_inline int write_group_packet(struct in_walk *walk,
					      const struct vnetd_underlay *underlay)
{
	bool is_ipv6 = walk->family == VNETD_FAMILY_IPV6;
	/* Linux 6.1 hands over no memory that was not written */
	union address group = {};
	struct ip_spec spec = {
		.source = &walk->source,
		.destination = &group,
		.payload = walk->len,
		.id = walk->number,
		/* as the original's; IPv6's group is of the link */
		.ttl = is_ipv6 ? VNETD_TTL_GROUP : VNETD_TTL_UNICAST,
	};

	group_at(&group, underlay, walk->slot);
	group_mac(walk->front.any.eth.h_dest, &group, is_ipv6);
	front_build(&walk->front, is_ipv6, &spec, underlay->mac);
	front_ports(&walk->front, is_ipv6, walk->port ?: underlay->port, underlay->port);
	return front_store(walk->skb, &walk->front, is_ipv6);
}

/*
 * A callback of bpf_loop: to the group of one device. Not where the source lives: its own packet was
 * there, and forwarders would take this one for it.
 */
static long resend(__u32 index, void *context)
{
	struct in_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);
	long err;

	if (!underlay || underlay->family != walk->family || !sends_to_group(underlay) ||
	    on_subnet(&walk->source, underlay))
		return 0;
	if (write_group_packet(walk, underlay)) {
		walk->missed = true;
		return 1;
	}
	if (ip_len(walk->family == VNETD_FAMILY_IPV6) + walk->len > underlay->mtu)
		err = leave_later(walk->skb, underlay);
	else
		err = copy_redirect(walk->skb, underlay->ifindex, 0);
	/* above 0: that device's own loss, and counted by it */
	if (err < 0)
		walk->missed = true;
	return 0;
}

/* Reads what is inside: it must be the message to a group, from an address that may be a host's. */
static __always_inline __u32 read_inner4(struct in_walk *walk, const union vfwd *inside,
					 const struct vnetd_underlay *underlay)
{
	const iphdr_at_4 *inner = &inside->v4.ip;
	/* 0: the address that the packet came from */
	__be32 source = inner->saddr ?: walk->front.v4.ip.saddr;

	/* an original that relays leaves version and length 0 */
	if (inner->protocol != IPPROTO_UDP ||
	    ((inner->version || inner->ihl) && (inner->version != 4 || inner->ihl != 5)))
		return VNETD_DROP_VFWD_BAD_INNER;
	ipv4_to(walk->source.bytes, source);
	walk->number = bpf_ntohs(inner->id);
	walk->port = inside->v4.udp.source;
	if (inner->daddr != ipv4_of(underlay->group))
		return VNETD_DROP_VFWD_NOT_GROUP;
	return ipv4_is_host(source) ? VNETD_OK : VNETD_DROP_BAD_SOURCE_ADDRESS;
}

static __always_inline __u32 read_inner6(struct in_walk *walk, const union vfwd *inside,
					 const struct vnetd_underlay *underlay)
{
	const ipv6hdr_at_4 *inner = &inside->v6.ip;

	if (inner->version != 6 || inner->nexthdr != IPPROTO_UDP)
		return VNETD_DROP_VFWD_BAD_INNER;
	__builtin_memcpy(&walk->source, &inner->saddr, sizeof(walk->source));
	if (!(walk->source.words[0] | walk->source.words[1] | walk->source.words[2] |
	      walk->source.words[3]))
		__builtin_memcpy(&walk->source, &walk->front.v6.ip.saddr, sizeof(walk->source));
	walk->number = ipv6_number(inner);
	walk->port = inside->v6.udp.source;
	if (!same_words(inner->daddr.s6_addr32, (const void *)underlay->group))
		return VNETD_DROP_VFWD_NOT_GROUP;
	/* another link's link-local address is somebody else here */
	return ipv6_names_host(&walk->source) && !is_link_local(&walk->source)
		       ? VNETD_OK
		       : VNETD_DROP_BAD_SOURCE_ADDRESS;
}

static __always_inline void peer_heard_now(const union address *source, __u32 len)
{
	__u32 *number = bpf_map_lookup_elem(&peer_ids, source);
	__u64 *heard;

	if (!number)
		return;
	heard = bpf_map_lookup_elem(&peer_heard, number);
	if (heard)
		*heard = now_ns();
	count_peer(*number, true, len);
}

static __always_inline int load_inside(struct __sk_buff *skb, union vfwd *inside, bool is_ipv6)
{
	return is_ipv6 ? bpf_skb_load_bytes(skb, FRONT6, &inside->v6, sizeof(inside->v6))
		       : bpf_skb_load_bytes(skb, FRONT4, &inside->v4, sizeof(inside->v4));
}

/* Reads a packet from a peer; message is what it forwards, and its id. */
static __always_inline __u32 read_forwarded(struct __sk_buff *skb, struct in_walk *walk,
					    const struct vnetd_underlay *underlay, bool is_ipv6,
					    struct group_message *message, __be16 *id)
{
	__u32 room = vfwd_overhead(is_ipv6), payload;
	union address peer;
	union vfwd inside;

	payload = tidy(skb, &walk->front, is_ipv6);
	if (!payload)
		return VNETD_DROP_STALE_PASS;
	payload -= sizeof(struct udphdr);
	message->offset = front_len(is_ipv6) + room;
	if (payload < room + sizeof(struct vnetd_msg_hdr) || load_inside(skb, &inside, is_ipv6) ||
	    bpf_skb_load_bytes(skb, message->offset, id, sizeof(*id)))
		return VNETD_DROP_TRUNCATED;
	message->len = payload - room;
	if (is_ipv6)
		__builtin_memcpy(&peer, &walk->front.v6.ip.saddr, sizeof(peer));
	else
		ipv4_to(peer.bytes, walk->front.v4.ip.saddr);
	peer_heard_now(&peer, message->len);
	if (*id == bpf_htons(VNETD_MSG_VFWD))
		return VNETD_DROP_VFWD_NESTED;
	if (*id != bpf_htons(VNETD_MSG_VUDP) && *id != bpf_htons(VNETD_MSG_VARP))
		return VNETD_DROP_UNKNOWN_MESSAGE;
	return is_ipv6 ? read_inner6(walk, &inside, underlay)
		       : read_inner4(walk, &inside, underlay);
}

/* The slot of a frame's vnet; 0: it is not known here. offset: of the message */
CHECKED_ONCE __u32 slot_of_frame(struct __sk_buff *skb, __u32 offset)
{
	struct vnetd_vnet_id id;
	__u32 *slot;

	if (bpf_skb_load_bytes(skb, offset + offsetof(struct vnetd_vudp_hdr, vnet), &id,
			       sizeof(id)))
		return 0;
	slot = bpf_map_lookup_elem(&vnet_ids, &id);
	return slot ? *slot : 0;
}

static __always_inline __u32 relay_in(struct __sk_buff *skb, struct vnetd_underlay *underlay,
				      bool is_ipv6, int *action)
{
	struct in_walk walk = { .skb = skb, .family = underlay->family };
	struct group_message message = {};
	__u32 zero = 0, reason;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	__be16 id = 0;

	if (!m || !m->segment_out)
		return VNETD_DROP_STALE_PASS;
	reason = read_forwarded(skb, &walk, underlay, is_ipv6, &message, &id);
	if (reason)
		return reason;
	bpf_loop(VNETD_MAX_UNDERLAYS, look_at_device, &walk, 0);
	if (walk.own)
		return VNETD_DROP_OWN_ECHO;
	if (carries_secure(skb, message.offset, 0))
		return VNETD_DROP_SECURITY;
	/* VARP says what it says, however often */
	if (walk.heard_anyway && id == bpf_htons(VNETD_MSG_VUDP))
		return VNETD_DROP_DUPLICATE_FORWARD;
	message.source = walk.source;
	message.ip_id = walk.number;
	if (seen_before(skb, &message))
		return VNETD_DROP_DUPLICATE_FORWARD;
	if (id == bpf_htons(VNETD_MSG_VUDP))
		walk.slot = slot_of_frame(skb, message.offset);

	if (bpf_skb_adjust_room(skb, -(__s32)vfwd_overhead(is_ipv6), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO))
		return VNETD_DROP_NO_MEMORY;
	walk.len = sizeof(struct udphdr) + message.len;
	bpf_loop(VNETD_MAX_UNDERLAYS, resend, &walk, 0);
	if (unlikely(walk.missed))
		count_drop(0, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED, skb->len);

	if (write_group_packet(&walk, underlay))
		return VNETD_DROP_NO_MEMORY;
	skb->mark =
		VNETD_MARK_SEGMENTED | VNETD_MARK_FORWARDED | (underlay->index & VNETD_MARK_INDEX);
	*action = bpf_redirect(m->segment_out, 0);
	return VNETD_OK;
}

/* ---- each kind for each family: lengths are constant, and the stack is each one's own ------ */

SUBPROGRAM __u32 relay4(struct __sk_buff *skb, struct vnetd_underlay *underlay)
{
	return relay(skb, underlay, false);
}

SUBPROGRAM __u32 relay6(struct __sk_buff *skb, struct vnetd_underlay *underlay)
{
	return relay(skb, underlay, true);
}

SUBPROGRAM __u32 relay_in4(struct __sk_buff *skb, struct vnetd_underlay *underlay, int *action)
{
	return relay_in(skb, underlay, false, action);
}

SUBPROGRAM __u32 relay_in6(struct __sk_buff *skb, struct vnetd_underlay *underlay, int *action)
{
	return relay_in(skb, underlay, true, action);
}

SUBPROGRAM __u32 cut(struct __sk_buff *skb, int *action)
{
	return fragment_cut(skb, action);
}

/* The mark is believed only here: what comes to this device comes from our own programs. */
static __always_inline __u32 take(struct __sk_buff *skb, __u32 kind, int *action)
{
	struct vnetd_underlay *underlay = underlay_by_index(skb->mark & VNETD_MARK_INDEX);
	bool is_ipv6 = underlay && underlay->family == VNETD_FAMILY_IPV6;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay)
		return VNETD_DROP_STALE_PASS;
	switch (kind) {
	case VNETD_MARK_RELAY:
		/* the copies have left */
		return is_ipv6 ? relay6(skb, underlay) : relay4(skb, underlay);
	case VNETD_MARK_RELAY_OUT:
		return relay_out(skb, underlay, is_ipv6, action);
	case VNETD_MARK_RELAY_IN:
		return is_ipv6 ? relay_in6(skb, underlay, action)
			       : relay_in4(skb, underlay, action);
	}
	return VNETD_DROP_STALE_PASS;
}

SEC("tc")
int vnetd_relay(struct __sk_buff *skb)
{
	__u32 kind = skb->mark & VNETD_MARK_KIND, reason, len = skb->len, direction;
	int action = TC_ACT_SHOT;

	/* the number of a fragment is in the mark as well */
	reason = kind == VNETD_MARK_FRAGMENT ? cut(skb, &action) : take(skb, kind, &action);
	if (reason) {
		direction = kind == VNETD_MARK_RELAY_IN ? VNETD_DIR_DECAP : VNETD_DIR_ENCAP;
		count_drop(0, direction, reason, len);
		watch_drop(skb, 0, direction, reason);
		return TC_ACT_SHOT;
	}
	return action;
}

char LICENSE[] SEC("license") = "GPL";
