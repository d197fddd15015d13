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
 * Never forwarded: what came by VFWD, what was heard from a source that is not on the subnet (another
 * forwarder sent it), and what this host sent itself. So there are no loops; copies that several
 * forwarders make are told by bpf/lib/seen.h.
 */
#include "lib/count.h"
#include "lib/forward.h"
#include "lib/forwarders.h"
#include "lib/fragment.h"
#include "lib/nexthop.h"
#include "lib/seen.h"

/* a group packet's headers, and those of one that is inside VFWD, as they lie in the packet */
struct group_headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} VNETD_PACKED;

struct vfwd_headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vnetd_msg_hdr msg;
	struct iphdr inner_ip;
	struct udphdr inner_udp;
} VNETD_PACKED;

/* what VFWD puts in front of a group packet: IPv4, UDP, the message's header */
#define VFWD_ROOM (sizeof(struct vfwd_headers) - sizeof(struct group_headers))

_Static_assert(VFWD_ROOM == VNETD_VFWD_HDR_LEN, "of the same length as the header inside");

/* behind an Ethernet header, as it lies in the structs above */
typedef struct iphdr iphdr_at_2 __attribute__((aligned(2)));

static __always_inline void ip_build(iphdr_at_2 *ip, __u32 len, __u16 id)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons(len);
	ip->id = bpf_htons(id);
	ip->ttl = VNETD_TTL_UNICAST;
	ip->protocol = IPPROTO_UDP;
}

/* The header's checksum; the caller's headers are 2-byte aligned. */
#define ip_sum(headers, field)                                                                     \
	do {                                                                                       \
		(headers)->field.check = 0;                                                        \
		(headers)->field.check = ipv4_checksum(&(headers)->field);                         \
	} while (0)

/* DF is clear, so packets in flight should differ (RFC 6864 section 4.2); 0 means "none" to us. */
static __always_inline __u16 new_ip_id(void)
{
	return bpf_get_prandom_u32() | 1;
}

/*
 * Brings what was heard into the form that everything here expects: no IP options, nothing behind
 * the UDP datagram. Reads the headers, and gives the datagram's length, or 0.
 */
static __always_inline __u32 tidy(struct __sk_buff *skb, struct group_headers *headers)
{
	__u32 options, len;

	if (skb->gso_size || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, 0, headers, sizeof(*headers)))
		return 0;
	if (headers->ip.version != 4 || headers->ip.ihl < 5 || headers->ip.protocol != IPPROTO_UDP)
		return 0;
	options = headers->ip.ihl * 4 - sizeof(struct iphdr);
	if (unlikely(options)) {
		if (bpf_skb_adjust_room(skb, -(__s32)options, BPF_ADJ_ROOM_NET, 0) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &headers->udp,
				       sizeof(headers->udp)))
			return 0;
	}
	len = bpf_ntohs(headers->udp.len);
	if (len < sizeof(struct udphdr) || ETH_HLEN + sizeof(struct iphdr) + len > skb->len)
		return 0;
	if (ETH_HLEN + sizeof(struct iphdr) + len < skb->len &&
	    bpf_skb_change_tail(skb, ETH_HLEN + sizeof(struct iphdr) + len, 0))
		return 0;
	return len;
}

/* ---- out: to members and peers ------------------------------------------------------------ */

struct out_walk {
	struct __sk_buff *skb;
	/* of the datagram to the group */
	__u32 len;
	__u32 handle;
	/* who sent it, and whether that is this host */
	__be32 source;
	bool own;
	union {
		struct group_headers plain;
		struct vfwd_headers vfwd;
	} __attribute__((aligned(8)));
};

static __always_inline void leave_later(struct __sk_buff *skb,
					const struct vnetd_underlay *underlay)
{
	skb->mark = VNETD_MARK_RELAY_OUT | (underlay->index & VNETD_MARK_INDEX);
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
}

/* A callback of bpf_loop: the frame for one member that uses no multicast, as plain VUDP. */
static long copy_to_member(__u32 number, void *context)
{
	struct out_walk *walk = context;
	struct vnetd_member_key key = { .handle = walk->handle, .number = number };
	struct vnetd_member *member = bpf_map_lookup_elem(&unicast_members, &key);
	struct vnetd_underlay *underlay;

	if (!member)
		return 1;
	underlay = underlay_at(member->ifindex, VNETD_FAMILY_IPV4);
	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP))
		return 0;
	ip_build(&walk->plain.ip, sizeof(struct iphdr) + walk->len, new_ip_id());
	walk->plain.ip.saddr = ipv4_of(underlay->addr);
	walk->plain.ip.daddr = ipv4_of(member->addr);
	ip_sum(&walk->plain, ip);
	walk->plain.udp.dest = member->port ?: underlay->port;
	__builtin_memcpy(walk->plain.eth.h_source, underlay->mac, ETH_ALEN);
	if (bpf_skb_store_bytes(walk->skb, 0, &walk->plain, sizeof(walk->plain), 0))
		return 1;
	leave_later(walk->skb, underlay);
	return 0;
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
	__u32 len = sizeof(struct iphdr) + VFWD_ROOM + walk->len;

	if (!peer || !(peer->flags & VNETD_PEER_SEND))
		return 0;
	/* this host sends to it as a member */
	if (walk->own && peer->flags & VNETD_PEER_UNICAST)
		return 0;
	underlay = underlay_at(peer->ifindex, VNETD_FAMILY_IPV4);
	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP) ||
	    ipv4_of(peer->addr) == walk->source)
		return 0;
	ip_build(&walk->vfwd.ip, len, new_ip_id());
	walk->vfwd.ip.saddr = ipv4_of(underlay->addr);
	walk->vfwd.ip.daddr = ipv4_of(peer->addr);
	ip_sum(&walk->vfwd, ip);
	walk->vfwd.udp.source = underlay->port;
	walk->vfwd.udp.dest = peer->port ?: underlay->port;
	walk->vfwd.udp.len = bpf_htons(len - sizeof(struct iphdr));
	__builtin_memcpy(walk->vfwd.eth.h_source, underlay->mac, ETH_ALEN);
	if (bpf_skb_store_bytes(walk->skb, 0, &walk->vfwd, sizeof(walk->vfwd), 0))
		return 1;
	count_peer(number, false, walk->len);
	leave_later(walk->skb, underlay);
	return 0;
}

/* A frame of this host's own, for the vnet's members that use no multicast. */
static __always_inline void to_members(struct __sk_buff *skb, struct out_walk *walk)
{
	struct vnetd_vnet_id id;
	struct vnetd_vnet *vnet;
	__u32 *slot;

	if (bpf_skb_load_bytes(skb,
			       sizeof(struct group_headers) + offsetof(struct vnetd_vudp_hdr, vnet),
			       &id, sizeof(id)))
		return;
	slot = bpf_map_lookup_elem(&vnet_ids, &id);
	vnet = slot ? vnet_by_slot(*slot) : NULL;
	if (!vnet)
		return;
	walk->handle = vnet->handle;
	bpf_loop(VNETD_MAX_UNICAST_MEMBERS, copy_to_member, walk, 0);
}

static __always_inline __u32 relay(struct __sk_buff *skb)
{
	struct vnetd_underlay *underlay = underlay_by_index(skb->mark & VNETD_MARK_INDEX);
	struct vnetd_meta *m = forward_wanted();
	struct group_headers headers __attribute__((aligned(8)));
	struct out_walk walk = { .skb = skb };
	__u16 id;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay || !m)
		return VNETD_DROP_STALE_PASS;
	walk.len = tidy(skb, &headers);
	if (!walk.len)
		return VNETD_DROP_STALE_PASS;
	id = bpf_ntohs(headers.ip.id);
	walk.source = headers.ip.saddr;
	walk.own = walk.source == ipv4_of(underlay->addr);
	if (m->unicast_members && walk.own) {
		walk.plain = headers;
		/* a group's address there would keep the kernel from resolving the neighbour */
		__builtin_memset(walk.plain.eth.h_dest, 0, ETH_ALEN);
		to_members(skb, &walk);
	}
	if (!m->peers || sizeof(struct iphdr) + VFWD_ROOM + walk.len > 0xffff)
		return VNETD_OK;
	if (bpf_skb_change_head(skb, VFWD_ROOM, 0))
		return VNETD_DROP_NO_MEMORY;

	__builtin_memset(&walk.vfwd, 0, sizeof(walk.vfwd));
	walk.vfwd.eth.h_proto = bpf_htons(ETH_P_IP);
	walk.vfwd.msg.id = bpf_htons(VNETD_MSG_VFWD);
	/* valid, because an original can send on nothing else; the id lets others know the copies */
	ip_build(&walk.vfwd.inner_ip, sizeof(struct iphdr) + walk.len, id);
	/* "the address this came from": a peer may see another one than we */
	walk.vfwd.inner_ip.saddr = walk.own ? 0 : walk.source;
	walk.vfwd.inner_ip.daddr = headers.ip.daddr;
	if (!walk.own)
		ip_sum(&walk.vfwd, inner_ip);
	walk.vfwd.inner_udp = headers.udp;
	if (!walk.own && forwards_itself(headers.eth.h_source)) {
		walk.vfwd.inner_ip.version = 0;
		walk.vfwd.inner_ip.ihl = 0;
	}
	bpf_loop(m->peers, copy_to_peer, &walk, 0);
	return VNETD_OK;
}

/* A copy, whole and with all its headers: to its device. */
static __always_inline __u32 relay_out(struct __sk_buff *skb, int *action)
{
	struct vnetd_underlay *underlay = underlay_by_index(skb->mark & VNETD_MARK_INDEX);
	struct iphdr ip;
	__u32 len;
	__u16 size;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return VNETD_DROP_STALE_PASS;
	len = bpf_ntohs(ip.tot_len);
	if (ip.version != 4 || ip.ihl != 5 || ip.protocol != IPPROTO_UDP || len < sizeof(ip))
		return VNETD_DROP_STALE_PASS;
	if (len <= underlay->mtu) {
		*action = leave(underlay, ip.daddr);
		return VNETD_OK;
	}
	size = fragment_size(underlay->mtu);
	if (!fragments_fit(underlay->mtu, len - sizeof(ip)))
		return VNETD_DROP_TOO_BIG;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, check), &size, sizeof(size),
				0))
		return VNETD_DROP_NO_MEMORY;
	return fragment_copies(skb, underlay, len - sizeof(ip), size);
}

/* ---- in: from a peer ---------------------------------------------------------------------- */

struct in_walk {
	struct __sk_buff *skb;
	__be32 source;
	/* of the group packet */
	__u32 len;
	__u16 ip_id;
	/* the source is on the subnet of one of ours where multicast works */
	bool heard_anyway;
	bool own;
	struct group_headers headers __attribute__((aligned(8)));
};

/* A callback of bpf_loop: what is the source to this device? */
static long look_at_device(__u32 index, void *context)
{
	struct in_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);

	if (!underlay || underlay->family != VNETD_FAMILY_IPV4)
		return 0;
	if (ipv4_of(underlay->addr) == walk->source)
		walk->own = true;
	if (underlay->flags & VNETD_UNDERLAY_GROUP_WORKS && on_subnet(walk->source, underlay))
		walk->heard_anyway = true;
	return 0;
}

/* The group packet as it is to be on this device. */
static __always_inline void group_headers_for(struct in_walk *walk,
					      const struct vnetd_underlay *underlay)
{
	__be32 group = ipv4_of(underlay->group);

	ipv4_group_mac(walk->headers.eth.h_dest, group);
	__builtin_memcpy(walk->headers.eth.h_source, underlay->mac, ETH_ALEN);
	walk->headers.eth.h_proto = bpf_htons(ETH_P_IP);
	ip_build(&walk->headers.ip, walk->len, walk->ip_id);
	walk->headers.ip.saddr = walk->source;
	walk->headers.ip.daddr = group;
	ip_sum(&walk->headers, ip);
	walk->headers.udp.dest = underlay->port;
}

/*
 * A callback of bpf_loop: to the group of one device. Not where the source lives: its own packet was
 * there, and forwarders would take this one for it.
 */
static long resend(__u32 index, void *context)
{
	struct in_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);

	if (!underlay || underlay->family != VNETD_FAMILY_IPV4 || !sends_to_group(underlay) ||
	    on_subnet(walk->source, underlay))
		return 0;
	group_headers_for(walk, underlay);
	if (bpf_skb_store_bytes(walk->skb, 0, &walk->headers, sizeof(walk->headers), 0))
		return 1;
	if (walk->len > underlay->mtu)
		leave_later(walk->skb, underlay);
	else
		bpf_clone_redirect(walk->skb, underlay->ifindex, 0);
	return 0;
}

/* What is inside: the message to a group, from an address that may be a host's. */
static __always_inline __u32 check_inner(const struct vfwd_headers *headers,
					 const struct vnetd_underlay *underlay, __be16 message)
{
	const iphdr_at_2 *inner = &headers->inner_ip;
	/* 0: the address that the packet came from */
	__be32 source = inner->saddr ?: headers->ip.saddr;

	/* an original that relays leaves version and length 0 */
	if (inner->protocol != IPPROTO_UDP ||
	    ((inner->version || inner->ihl) && (inner->version != 4 || inner->ihl != 5)))
		return VNETD_DROP_VFWD_BAD_INNER;
	if (message == bpf_htons(VNETD_MSG_VFWD))
		return VNETD_DROP_VFWD_NESTED;
	if (message != bpf_htons(VNETD_MSG_VUDP) && message != bpf_htons(VNETD_MSG_VARP))
		return VNETD_DROP_UNKNOWN_MESSAGE;
	if (inner->daddr != ipv4_of(underlay->group))
		return VNETD_DROP_VFWD_NOT_GROUP;
	if (!ipv4_is_host(source))
		return VNETD_DROP_BAD_SOURCE_ADDRESS;
	return VNETD_OK;
}

static __always_inline void peer_heard_now(__be32 source, __u32 len)
{
	struct vnetd_vnet_id addr;
	__u32 *number;
	__u64 *heard;

	ipv4_to(addr.bytes, source);
	number = bpf_map_lookup_elem(&peer_ids, &addr);
	if (!number)
		return;
	heard = bpf_map_lookup_elem(&peer_heard, number);
	if (heard)
		*heard = now_ns();
	count_peer(*number, true, len);
}

static __always_inline __u32 relay_in(struct __sk_buff *skb, int *action)
{
	__u32 index = skb->mark & VNETD_MARK_INDEX, zero = 0, reason, payload;
	struct vnetd_underlay *underlay = underlay_by_index(index);
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	struct in_walk walk = { .skb = skb };
	struct group_message message = { .offset = sizeof(struct vfwd_headers) };
	struct vfwd_headers headers __attribute__((aligned(8)));
	__be16 id;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay || !m || !m->segment_out)
		return VNETD_DROP_STALE_PASS;
	payload = tidy(skb, &walk.headers);
	if (!payload)
		return VNETD_DROP_STALE_PASS;
	payload -= sizeof(struct udphdr);
	if (payload < VNETD_VFWD_HDR_LEN + sizeof(struct vnetd_msg_hdr) ||
	    bpf_skb_load_bytes(skb, 0, &headers, sizeof(headers)) ||
	    bpf_skb_load_bytes(skb, sizeof(headers), &id, sizeof(id)))
		return VNETD_DROP_TRUNCATED;
	message.len = payload - VNETD_VFWD_HDR_LEN;
	peer_heard_now(headers.ip.saddr, message.len);
	reason = check_inner(&headers, underlay, id);
	if (reason)
		return reason;
	walk.source = headers.inner_ip.saddr ?: headers.ip.saddr;
	bpf_loop(VNETD_MAX_UNDERLAYS, look_at_device, &walk, 0);
	if (walk.own)
		return VNETD_DROP_OWN_ECHO;
	/* VARP says what it says, however often */
	if (walk.heard_anyway && id == bpf_htons(VNETD_MSG_VUDP))
		return VNETD_DROP_DUPLICATE_FORWARD;
	message.source = walk.source;
	message.ip_id = bpf_ntohs(headers.inner_ip.id);
	if (seen_before(skb, &message))
		return VNETD_DROP_DUPLICATE_FORWARD;

	if (bpf_skb_adjust_room(skb, -(__s32)VFWD_ROOM, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return VNETD_DROP_NO_MEMORY;
	walk.len = sizeof(struct iphdr) + sizeof(struct udphdr) + message.len;
	walk.ip_id = message.ip_id;
	walk.headers.udp.source = headers.inner_udp.source ?: underlay->port;
	walk.headers.udp.len = bpf_htons(sizeof(struct udphdr) + message.len);
	walk.headers.udp.check = 0;
	bpf_loop(VNETD_MAX_UNDERLAYS, resend, &walk, 0);

	group_headers_for(&walk, underlay);
	if (bpf_skb_store_bytes(skb, 0, &walk.headers, sizeof(walk.headers), 0))
		return VNETD_DROP_NO_MEMORY;
	skb->mark = VNETD_MARK_SEGMENTED | VNETD_MARK_FORWARDED | index;
	*action = bpf_redirect(m->segment_out, 0);
	return VNETD_OK;
}

SEC("tc")
int vnetd_relay(struct __sk_buff *skb)
{
	__u32 kind = skb->mark & VNETD_MARK_KIND, reason = VNETD_DROP_STALE_PASS, len = skb->len;
	int action = TC_ACT_SHOT;

	switch (kind) {
	case VNETD_MARK_RELAY:
		/* the copies have left */
		reason = relay(skb);
		break;
	case VNETD_MARK_RELAY_OUT:
		reason = relay_out(skb, &action);
		break;
	case VNETD_MARK_FRAGMENT:
		reason = fragment_cut(skb, &action);
		break;
	case VNETD_MARK_RELAY_IN:
		reason = relay_in(skb, &action);
		break;
	}
	if (reason) {
		count_drop(0, kind == VNETD_MARK_RELAY_IN ? VNETD_DIR_DECAP : VNETD_DIR_ENCAP,
			   reason, len);
		return TC_ACT_SHOT;
	}
	return action;
}

char LICENSE[] SEC("license") = "GPL";
