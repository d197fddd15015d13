/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A frame on its way out, once its vnet is known: where to, and the headers in front of it. Shared by
 * bpf/encap.bpf.c and bpf/oversize.bpf.c.
 */
#ifndef VNETD_SEND_H
#define VNETD_SEND_H

#include "fdb.h"
#include "forward.h"
#include "frame.h"
#include "path.h"

struct destination {
	/* NULL: the group */
	struct vnetd_underlay *underlay;
	__be32 host;
	__be16 port;
	/* of a packet to this host; and that routers must not fragment it, as hosts of ours listen
	 * to what they say then */
	__u16 mtu;
	bool dont_fragment;
	/* it may be an original, which takes no more than VNETD_ORIGINAL_MAX_PACKET in all */
	bool original;
};

struct encap;

/* What a walk over the devices needs; a callback of bpf_loop, so that it is verified once. */
struct device_walk {
	struct __sk_buff *skb;
	struct encap *e;
	/* devices that are up, those of them that send to the group, and the last of these; where
	 * there is none, the last that is up */
	__u32 up;
	__u32 sending;
	__u32 last;
	__u32 min_mtu;
	__u32 failed;
	/* devices that got the frame, and those that did not */
	__u32 copied;
	__u32 missed;
};

/* The place of a frame in its journey, for the functions below. */
struct encap {
	struct vnetd_vnet *vnet;
	struct frame frame;
	struct destination to;
	struct device_walk walk;
	__u32 hash;
	__u32 inner_len;
	__u16 ip_id;
	bool fast;
};

/* verdicts beside the reasons: left to the other hook; sent through the pair that fragments */
#define FAST_NOT_MINE ((__u32)VNETD_REASON_COUNT)
#define TOO_BIG ((__u32)VNETD_REASON_COUNT + 1)

/*
 * Fills in e->to. A destination that the table says is on this host goes to the group like an
 * unknown one: the bridge would have delivered it if it were, so it may have moved away unheard.
 */
static __always_inline void destination_of(struct encap *e, struct verdict *v)
{
	struct vnetd_fdb_key key = { .handle = v->handle };
	struct vnetd_fdb_entry *entry;
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;
	__u64 nexthop, now = now_ns();

	v->flooded = true;
	if (is_group_mac(e->frame.dst))
		return;
	__builtin_memcpy(key.mac, e->frame.dst, ETH_ALEN);
	entry = bpf_map_lookup_elem(&fdb, &key);
	if (!entry || !fdb_fresh(entry, e->vnet, now))
		goto unknown;
	nexthop = fdb_target(entry);
	if ((__u32)nexthop == VNETD_NEXTHOP_LOCAL)
		return;
	hop = nexthop_by_id((__u32)nexthop);
	if (!hop || hop->gen != nexthop >> 32)
		goto unknown;
	underlay = underlay_by_ifindex(hop->key.ifindex);
	if (unlikely(hop->other) && !nexthop_in_order(hop, underlay, now)) {
		hop = nexthop_by_id(nexthop_in_use((__u32)nexthop));
		if (!hop)
			goto unknown;
		underlay = underlay_by_ifindex(hop->key.ifindex);
	}
	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP))
		goto unknown;
	e->to.underlay = underlay;
	e->to.host = ipv4_of(hop->key.addr);
	e->to.port = hop->port;
	e->to.mtu = path_mtu(hop, underlay);
	e->to.dont_fragment = hop->flags & VNETD_NEXTHOP_MEMBER && e->to.mtu > VNETD_PATH_MTU_MIN;
	e->to.original = path_to_original(hop);
	v->flooded = false;
	return;
unknown:
	if (!e->fast)
		event_unknown_unicast(&key, v->slot);
}

/* Takes the tags out of the metadata, reads the type, and what else the headers are made of. */
static __always_inline __u32 prepare(struct __sk_buff *skb, struct encap *e, struct verdict *v)
{
	__be16 ethertype;

	/* the flow's hash, of the inner frame: before anything is moved */
	e->hash = bpf_get_hash_recalc(skb);
	if (e->fast)
		e->frame.tags = 0;
	else if (frame_pop_tags(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;
	if (bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &ethertype, 2))
		return VNETD_DROP_ENCAP_FAILED;
	switch (e->frame.tags) {
	case 0:
		e->frame.words[0] = ethertype;
		break;
	case 1:
		e->frame.words[2] = ethertype;
		break;
	case 2:
		e->frame.words[4] = ethertype;
		break;
	default:
		e->frame.words[6] = ethertype;
	}
	e->inner_len = skb->len + e->frame.tags * TAG_LEN;
	v->len = e->inner_len;
	if (e->inner_len + VNETD_VUDP_IPV4_OVERHEAD > 0xffff)
		return e->fast ? FAST_NOT_MINE : VNETD_DROP_SUPERFRAME_TOO_LONG;
	/* DF is clear, so packets in flight should differ (RFC 6864 section 4.2) */
	e->ip_id = (bpf_get_smp_processor_id() << 12) + (v->traffic ? v->traffic->frames[0] : 0);
	return VNETD_OK;
}

/*
 * Makes room for the outer headers and the tags and writes all but the addresses' parts.
 * On return e->frame's header lies behind the outer headers, the packet begins with sizeof(outer)
 * bytes to be written. *is_outer_ip tells whether the kernel knows that the packet is IP now.
 */
static __always_inline __u32 add_headers(struct __sk_buff *skb, struct encap *e, bool *is_outer_ip)
{
	__u32 tags = e->frame.tags, room = sizeof(struct outer) + tags * TAG_LEN;
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_FIXED_GSO |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN + tags * TAG_LEN);
	long err = -1;

	/* the type stays where it is relative to the payload: remember it with the tags */
	*is_outer_ip = is_ip(skb);
	if (*is_outer_ip)
		err = bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags);
	if (err) {
		/* not IP, or encapsulated already (EALREADY) */
		if (e->fast)
			return FAST_NOT_MINE;
		if (skb->gso_size)
			return VNETD_DROP_ENCAP_FAILED;
		*is_outer_ip = false;
		if (bpf_skb_change_head(skb, room, 0))
			return VNETD_DROP_ENCAP_FAILED;
	}
	return VNETD_OK;
}

/* Writes the outer headers and the inner Ethernet header with its tags. */
static __always_inline int write_headers(struct __sk_buff *skb, const struct encap *e)
{
	const void *headers = &e->frame;

	/* constant lengths: Linux 6.1's verifier loses the bound of a computed one */
	switch (e->frame.tags) {
	case 0:
		return bpf_skb_store_bytes(skb, 0, headers, FRAME_HEADERS, 0);
	case 1:
		return bpf_skb_store_bytes(skb, 0, headers, FRAME_HEADERS + TAG_LEN, 0);
	case 2:
		return bpf_skb_store_bytes(skb, 0, headers, FRAME_HEADERS + 2 * TAG_LEN, 0);
	default:
		return bpf_skb_store_bytes(skb, 0, headers, FRAME_HEADERS_MAX, 0);
	}
}

/* ---- the attached devices ----------------------------------------------------------------- */

static long find_device(__u32 index, void *context)
{
	struct device_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);

	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP))
		return 0;
	walk->up += 1;
	if (likely(sends_to_group(underlay))) {
		walk->sending += 1;
		walk->last = index;
	} else if (!walk->sending) {
		walk->last = index;
	}
	if (underlay->mtu < walk->min_mtu)
		walk->min_mtu = underlay->mtu;
	return 0;
}

/* A frame that left by some devices, but not by all. */
static __always_inline void count_missed(const struct device_walk *walk, const struct verdict *v)
{
	if (unlikely(walk->missed))
		count_drop(v->handle, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED, v->len);
}

/* Finds out which devices are up. */
static __always_inline void walk_devices(struct device_walk *walk)
{
	walk->min_mtu = 0xffff;
	bpf_loop(VNETD_MAX_UNDERLAYS, find_device, walk, 0);
}

#endif
