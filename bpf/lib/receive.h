/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A frame that came in, once its vnet is known: learn where its source lives, take off what is in
 * front of it, hand it over. Shared by bpf/decap.bpf.c, bpf/esp.bpf.c and bpf/reassembled.bpf.c.
 */
#ifndef VNETD_RECEIVE_H
#define VNETD_RECEIVE_H

#include "dedupe.h"
#include "fdb.h"
#include "flood.h"
#include "frame.h"
#include "ports.h"
#include "probe.h"
#include "suppress.h"

/* What is known of a frame that came in. */
struct received {
	struct vnetd_underlay *underlay;
	struct vnetd_vnet *vnet;
	/* from the start of the packet to what follows the IP headers: UDP, or EtherIP */
	__u32 offset;
	/* what follows that UDP header, or EtherIP's header and the frame */
	__u32 payload;
	union address source;
	union address destination;
	__be16 source_port;
	/* as it lies in the packet */
	__u16 ip_id;
	bool is_etherip;
	bool to_group;
	bool segmented;
	/* it came inside VFWD, and bpf/relay.bpf.c has looked at it. One byte with the next: the stack is full */
	bool forwarded : 1;
	/* to another group than the device's: it is the vnet's own, or it is not for us */
	bool other_group : 1;
};

/* what is the same behind UDP and in EtherIP */
struct frame_start {
	__be16 etherip;
	__u8 vnet[VNETD_ID_LEN];
	__u8 eth[ETH_HLEN];
} VNETD_PACKED;

_Static_assert(offsetof(struct frame_start, eth) == VNETD_ETHERIP_HDR_LEN, "EtherIP");

/* A frame in its packet; its length is the verdict's. */
struct inner_frame {
	struct frame_start start;
	/* of its Ethernet header */
	__u32 offset;
};

/* The original tests the high nibble of the second byte; a big-endian host's is the first. */
static __always_inline bool version_right(__be16 etherip)
{
	return (etherip & bpf_htons(0x00f0)) == bpf_htons(VNETD_ETHERIP_VERSION) ||
	       etherip == bpf_htons(VNETD_ETHERIP_VERSION_BE_HOST);
}

/* Whether a group frame of a host with several paths was delivered already: it came by another. */
static __always_inline bool is_copy(const struct received *r, const struct vnetd_nexthop *hop,
				    const struct verdict *v)
{
	struct dedupe_key key = {
		.handle = v->handle,
		.ip_id = r->ip_id,
		.len = (__u16)v->len,
	};

	__builtin_memcpy(key.who, hop->host, sizeof(key.who));
	return dedupe_is_copy(&key, hop->path);
}

/*
 * Learns that the source MAC lives behind the sender. Returns a reason to drop the frame; why it
 * was not learned, where the frame itself is fine, goes to v->refused.
 */
static __always_inline __u32 learn_remote(struct __sk_buff *skb, const struct received *r,
					  const __u8 *mac, struct verdict *v)
{
	struct vnetd_nexthop_key hop_key = {
		.handle = v->handle,
		.ifindex = r->underlay->ifindex,
	};
	struct fdb_news news = {
		.key.handle = v->handle,
		.slot = v->slot,
		.now = now_ns(),
	};
	struct vnetd_nexthop *hop;
	__u32 reason = VNETD_OK;

	__builtin_memcpy(hop_key.addr, &r->source, sizeof(hop_key.addr));
	news.nexthop = nexthop_heard_again(&hop_key, v->slot, &reason);
	if (!news.nexthop) {
		if (reason == VNETD_DROP_OWN_ECHO)
			return reason;
		v->refused = reason;
		return r->to_group ? flood_arrives(skb, r->vnet, v->slot, 0) : VNETD_OK;
	}
	hop = nexthop_by_id(news.nexthop);
	if (!hop)
		return VNETD_OK;
	if (unlikely(r->to_group && hop->flags & VNETD_NEXTHOP_DIRECT))
		return VNETD_DROP_DUPLICATE_FORWARD;
	if ((__s64)(news.now - hop->heard_ns) > (__s64)REFRESH_NS)
		hop->heard_ns = news.now;
	if (unlikely(hop->other)) {
		if (r->to_group && is_copy(r, hop, v))
			return VNETD_DROP_DUPLICATE_PATH;
		news.nexthop = nexthop_primary(news.nexthop);
		hop = nexthop_by_id(news.nexthop);
		if (!hop)
			return VNETD_OK;
	}
	if (r->to_group) {
		reason = flood_arrives(skb, r->vnet, v->slot, news.nexthop);
		if (unlikely(reason))
			return reason;
	}
	if (unlikely(is_group_mac(mac))) {
		v->refused = VNETD_REFUSED_GROUP_MAC;
		return VNETD_OK;
	}
	__builtin_memcpy(news.key.mac, mac, VNETD_MAC_LEN);
	news.gen = hop->gen;
	v->refused = fdb_learn_again(&news, r->vnet);
	return VNETD_OK;
}

/* not on the stack, where the chain of calls has no room for it */
const struct vnetd_device_stats no_device_stats __weak = {};

static __always_inline struct vnetd_device_stats *count_device(const struct received *r,
							       struct __sk_buff *skb)
{
	__u32 ifindex = r->underlay->ifindex;
	struct vnetd_device_stats *stats = bpf_map_lookup_elem(&device_stats, &ifindex);

	if (!stats) {
		bpf_map_update_elem(&device_stats, &ifindex, &no_device_stats, BPF_NOEXIST);
		return NULL;
	}
	stats->frames += 1;
	stats->bytes += r->payload;
	if (skb->gso_size)
		stats->super_frames += 1;
	else if (r->payload * 2 > r->underlay->mtu)
		stats->large_frames += 1;
	return stats;
}

/* enum bpf_adj_room_flags, Linux 6.3 and later: what the packet is when the outer headers are off */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

/* Before Linux 6.3: the outer IPv6 header becomes an IPv4 header first, then all of it is taken off. */
SUBPROGRAM int take_off_by_proto(struct __sk_buff *skb, __u32 offset)
{
	__u32 shorter = sizeof(struct ipv6hdr) - sizeof(struct iphdr);

	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0))
		return -1;
	return bpf_skb_adjust_room(skb, -(__s32)(offset - shorter), BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO);
}

/*
 * Takes the bytes in front of the inner IP header away. The kernel keeps the outer family in mind
 * unless it is told (Linux 6.3): as much as that family's header has to stay.
 */
static __always_inline long take_off(struct __sk_buff *skb, __u32 offset, __be16 inner_type,
				     __u32 inner_len)
{
	bool is_ipv4 = inner_type == bpf_htons(ETH_P_IP);

	if (inner_type != (__be16)skb->protocol &&
	    (is_ipv4 || inner_type == bpf_htons(ETH_P_IPV6))) {
		if (bpf_skb_adjust_room(skb, -(__s32)offset, BPF_ADJ_ROOM_MAC,
					BPF_F_ADJ_ROOM_FIXED_GSO |
						(is_ipv4 ? DECAP_L3_IPV4 : DECAP_L3_IPV6)) == 0)
			return 0;
		if (is_ipv4 && inner_len < ETH_HLEN + sizeof(struct ipv6hdr))
			return take_off_by_proto(skb, offset);
	}
	return bpf_skb_adjust_room(skb, -(__s32)offset, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/*
 * Takes off what is in front of the inner frame, offset bytes; the inner Ethernet header is put
 * where the outer one was.
 */
static __always_inline __u32 strip(struct __sk_buff *skb, __u32 offset, const __u8 *inner_eth,
				   __u32 inner_len)
{
	__u32 end = offset + inner_len, least = ETH_HLEN + sizeof(struct iphdr);
	__be16 inner_type;

	__builtin_memcpy(&inner_type, inner_eth + 2 * ETH_ALEN, sizeof(inner_type));
	/* the kernel leaves at least an IP header behind the Ethernet header; a packet that was
	 * encapsulated on this machine is not padded, but IP needs no padding */
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && inner_type != bpf_htons(ETH_P_IP))
		least = ETH_HLEN + sizeof(struct ipv6hdr);
	if (unlikely(inner_len < least))
		end = offset + least;
	/* bytes behind the IP packet (an Ethernet trailer) are not the frame's */
	if (unlikely(skb->len != end) && bpf_skb_change_tail(skb, end, 0))
		return VNETD_DROP_NO_MEMORY;
	if (take_off(skb, offset, inner_type, inner_len))
		return VNETD_DROP_NO_MEMORY;
	if (bpf_skb_store_bytes(skb, 0, inner_eth, ETH_HLEN, 0))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

/* Reads a frame's beginning. offset: of EtherIP's version; len: from there on */
static __always_inline __u32 inner_read(struct __sk_buff *skb, struct inner_frame *in, __u32 offset,
					__u32 len, struct verdict *v)
{
	if (len < VNETD_ETHERIP_HDR_LEN)
		return VNETD_DROP_TRUNCATED;
	v->len = len - VNETD_ETHERIP_HDR_LEN;
	if (v->len < ETH_HLEN)
		return VNETD_DROP_SHORT_FRAME;
	in->offset = offset + VNETD_ETHERIP_HDR_LEN;
	return bpf_skb_load_bytes(skb, offset, &in->start, sizeof(in->start)) ? VNETD_DROP_TRUNCATED
									      : VNETD_OK;
}

/* What is left when a frame may come in: a probe is looked at, and what is in front is taken off. */
static __always_inline __u32 inner_take_out(struct __sk_buff *skb, const struct received *r,
					    const struct inner_frame *in, const struct verdict *v)
{
	const __u8 *eth = in->start.eth;
	__u32 reason;

	if (unlikely(eth[12] == VNETD_PROBE_ETHERTYPE >> 8 &&
		     eth[13] == (VNETD_PROBE_ETHERTYPE & 0xff))) {
		struct probe_found found = {
			.slot = v->slot,
			.direction = VNETD_DIR_DECAP,
			.offset = in->offset + ETH_HLEN,
			.source = r->source,
		};

		reason = probe_arrives(skb, &found, r->underlay);
		if (reason)
			return reason;
	}
	return strip(skb, in->offset, eth, v->len);
}

/* longer than what this host would send in the vnet: another sends with less in front of it */
static __always_inline bool is_giant(struct __sk_buff *skb, const struct received *r)
{
	return !skb->gso_size &&
	       skb->len + overhead_of(form_of(r->underlay, r->vnet->encap)) > r->underlay->mtu;
}

/*
 * Straight into the vnetif; or (merge), where packets come at wire size, out of the vnetif's veth peer, so
 * that the vnetif's GRO merges them. A veth takes no packet that is longer than the MTU of its other
 * end, so such a one goes straight all the same. A vnetif that was moved into another namespace is
 * not found here and is always reached through its peer.
 */
static __always_inline bool goes_by_peer(struct __sk_buff *skb, const struct received *r,
					 bool merge)
{
	__u32 mtu = 0;
	int fits;

	if (merge && likely(!is_giant(skb, r)))
		return true;
	fits = bpf_check_mtu(skb, r->vnet->vnif, &mtu, 0, 0);
	return fits == NO_SUCH_DEVICE || (merge && fits != BPF_MTU_CHK_RET_FRAG_NEEDED);
}

static __always_inline bool merges(const struct received *r)
{
	return r->underlay->flags & VNETD_UNDERLAY_MERGE;
}

static __always_inline int deliver(struct __sk_buff *skb, const struct received *r, bool merge)
{
	int action;

	if (unlikely(r->vnet->flags & (VNETD_VNET_WATCHED | VNETD_VNET_SUPPRESS))) {
		if (r->vnet->flags & VNETD_VNET_WATCHED)
			watch_frame(skb, r->vnet->handle, VNETD_DIR_DECAP);
		if (r->vnet->flags & VNETD_VNET_SUPPRESS)
			suppress_arrives(skb, r->vnet);
	}
	skb->mark = VNETD_MARK_NONE;
	if (unlikely(r->vnet->flags & VNETD_VNET_PORTS)) {
		action = deliver_to_ports(skb, r->vnet, merge);
		if (action != NOT_TAKEN)
			return action;
	}
	if (goes_by_peer(skb, r, merge))
		return bpf_redirect(r->vnet->vnif_peer, 0);
	return bpf_redirect(r->vnet->vnif, BPF_F_INGRESS);
}

/* Counts what became of a frame and gives the program's return value. */
static __always_inline int finish_received(struct __sk_buff *skb, const struct verdict *v,
					   __u32 reason, int action)
{
	if (unlikely(v->refused))
		drop(skb, v, VNETD_DIR_DECAP, v->refused);
	if (unlikely(reason)) {
		drop(skb, v, VNETD_DIR_DECAP, reason);
		return TC_ACT_SHOT;
	}
	count_forwarded(v, VNETD_DIR_DECAP);
	return action;
}

#endif
