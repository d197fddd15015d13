/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A frame on its way out, once its vnet is known: where to, and the headers in front of it. Shared by
 * bpf/encap.bpf.c and bpf/oversize.bpf.c.
 */
#ifndef VNETD_SEND_H
#define VNETD_SEND_H

#include "fdb.h"
#include "flow.h"
#include "forward.h"
#include "frame.h"
#include "path.h"
#include "route.h"

/* The vnet whose frames enter by a device, and that is up; or NULL. */
static __always_inline struct vnetd_vnet *vnet_of_port(__u32 ifindex)
{
	__u32 slot;
	struct vnetd_vnet *vnet = vnet_of_device(ifindex, &slot);

	return vnet && vnet->flags & VNETD_VNET_UP ? vnet : NULL;
}

struct destination {
	/* NULL: the group */
	struct vnetd_underlay *underlay;
	/* the path to the host */
	__u32 nexthop;
	union address host;
	__be16 port;
	/* of a packet to this host; and that routers must not fragment it, as hosts of ours listen
	 * to what they say then */
	__u16 mtu;
	/* 0 or 1 */
	__u8 dont_fragment;
	/* the longest frame that fits one packet on the way there */
	__u32 largest;
};

struct encap;

/* A place that is up; one that sends to the group is better, and a later one */
#define PLACE_UP 0x200
#define PLACE_SENDS 0x100
#define PLACE_INDEX 0x7

/* Which places are up. */
struct places {
	/* of each family the place to send to last: PLACE_*; 0: none is up */
	__u32 best4;
	__u32 best6;
	/* the longest frame that fits one packet on all of them */
	__u32 largest;
	/* enum vnetd_encap */
	__u32 encap;
};

/* What a walk over the devices needs; a callback of bpf_loop, so that it is verified once. */
struct device_walk {
	struct __sk_buff *skb;
	/* the family that is being sent to, enum vnetd_family, and the last place of it */
	__u8 family;
	__u8 last;
	/* enum vnetd_reason */
	__u16 failed;
	/* whether a place got the frame, and whether one did not; no counts, as above */
	__u16 copied;
	__u16 missed;
};

/* What a walk over a secure vnet's members needs and finds (bpf/lib/secure.h). */
struct member_walk {
	struct __sk_buff *skb;
	__u32 handle;
	/* of the frame */
	__u32 length;
	/* interface that the packet as it is now is still to be given to; 0: none */
	__u32 pending;
	/* of each family a place by which one can be sent to: PLACE_SECURE and its index; 0: there is none */
	__u8 place4;
	__u8 place6;
	/* there is one; some of them, by what is in their way; headers could not be written */
	__u8 any;
	__u8 without_keys;
	__u8 too_big;
	__u8 missed;
	__u8 failed;
	__u8 pad;
};
#define PLACE_SECURE 0x80

/* The place of a frame in its journey, for the functions below. */
struct encap {
	struct vnetd_vnet *vnet;
	struct frame frame;
	struct destination to;
	union {
		struct {
			struct places places;
			struct device_walk walk;
		};
		struct member_walk members;
	};
	struct outer_spec spec;
	bool fast;
	/* the copy of a frame for the group that goes to the places of the other family */
	bool other_family;
	/* it was part of a super-frame, which the vnet's budget was charged for */
	bool piece;
	/* it is the probe of some host */
	bool probe;
	/* of a secure vnet: it is too large, and nobody wants to be told */
	bool whole;
};

static __always_inline struct encap *encap_of(struct device_walk *walk)
{
	return (void *)walk - offsetof(struct encap, walk);
}

/* verdicts beside the reasons: left to the other hook; sent through the pair that fragments */
#define FAST_NOT_MINE ((__u32)VNETD_REASON_COUNT)
#define TOO_BIG ((__u32)VNETD_REASON_COUNT + 1)

/* The source is of this host, behind a direct port (0: behind the vnetif). Refused: v->refused. */
static __always_inline void learn_local(struct encap *e, struct verdict *v, __u32 port)
{
	struct fdb_news news = {
		.key.handle = v->handle,
		.slot = v->slot,
		.nexthop = VNETD_NEXTHOP_LOCAL,
		.gen = port,
		.now = now_ns(),
	};

	if (is_group_mac(e->frame.src)) {
		v->refused = VNETD_REFUSED_GROUP_MAC;
		return;
	}
	__builtin_memcpy(news.key.mac, e->frame.src, ETH_ALEN);
	v->refused = fdb_learn_again(&news, e->vnet);
}

_Static_assert(VNETD_NEXTHOP_MEMBER == 1 << 1, "may_not_fragment");

/* A member, by a path that carries more than the least. Computed, since the verifier walks what follows once for each branch. */
static __always_inline __u32 may_not_fragment(const struct vnetd_nexthop *hop, __u32 mtu)
{
	return hop->flags >> 1 & (VNETD_PATH_MTU_MIN - mtu) >> 31;
}

/*
 * Fills in e->to. A destination that the table says is on this host goes to the group like an
 * unknown one: the bridge would have delivered it if it were, so it may have moved away unheard.
 */
static __always_inline void destination_of(struct encap *e, struct verdict *v)
{
	struct vnetd_fdb_key key = { .handle = v->handle };
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;
	struct fdb_found *entry;
	__u64 now = now_ns();
	__u32 path;

	v->flooded = true;
	if (is_group_mac(e->frame.dst))
		return;
	__builtin_memcpy(key.mac, e->frame.dst, ETH_ALEN);
	entry = fdb_look(&key, now);
	if (!entry || !fdb_found_fresh(entry, e->vnet))
		goto unknown;
	path = entry->nexthop;
	if (path == VNETD_NEXTHOP_LOCAL)
		return;
	hop = nexthop_by_id(path);
	if (!hop || hop->gen != entry->gen)
		goto unknown;
	underlay = underlay_to(&hop->key);
	if (unlikely(hop->other) && !nexthop_in_order(hop, underlay, now)) {
		path = nexthop_in_use(path);
		hop = nexthop_by_id(path);
		if (!hop)
			goto unknown;
		underlay = underlay_to(&hop->key);
	}
	__builtin_memcpy(&e->to.host, hop->key.addr, sizeof(e->to.host));
	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP))
		goto unknown;
	e->to.underlay = underlay;
	e->to.nexthop = path;
	e->to.port = hop->port;
	e->to.mtu = path_mtu(hop, underlay);
	e->to.dont_fragment = may_not_fragment(hop, e->to.mtu);
	e->to.largest = e->to.mtu - overhead_of(form_of(underlay, e->vnet->encap));
	v->flooded = false;
	return;
unknown:
	if (!e->fast)
		event_unknown_unicast(&key, v->slot);
}

/*
 * DF is clear, so packets in flight should differ (RFC 6864 section 4.2); and by this a receiver tells
 * the copies of a group frame (bpf/lib/dedupe.h).
 */
static __always_inline __u16 next_ip_id(const struct verdict *v)
{
	return (bpf_get_smp_processor_id() << 12) + (v->traffic ? v->traffic->frames[0] : 0);
}

/* Takes the tags out of the metadata, reads the type, and what else the headers are made of. */
static __always_inline __u32 prepare(struct __sk_buff *skb, struct encap *e, struct verdict *v)
{
	/* the flow's hash, of the inner frame: before anything is moved */
	e->spec.hash = flow_hash(skb);
	if (e->fast) {
		if (bpf_skb_load_bytes(skb, 2 * ETH_ALEN, e->frame.tags.words, sizeof(__be16)))
			return VNETD_DROP_ENCAP_FAILED;
		e->frame.tags.count = 0;
	} else if (frame_take_tags(skb, &e->frame.tags) || e->frame.tags.count > MAX_TAGS) {
		return VNETD_DROP_ENCAP_FAILED;
	}
	outer_end(&e->frame.outer, e->vnet);
	e->spec.inner_len = skb->len + e->frame.tags.count * TAG_LEN;
	v->len = e->spec.inner_len;
	if (e->spec.inner_len + VNETD_VUDP_IPV6_OVERHEAD > 0xffff)
		return e->fast ? FAST_NOT_MINE : VNETD_DROP_SUPERFRAME_TOO_LONG;
	return VNETD_OK;
}

/*
 * Makes room for the outer headers and the tags: the packet begins with the bytes that
 * write_headers() writes. *is_outer_ip tells whether the kernel knows that the packet is IP now.
 */
static __always_inline __u32 make_headers_room(struct __sk_buff *skb, __u32 form, __u32 tags,
					       bool ip_only, bool *is_outer_ip)
{
	__u32 room = room_of(form) + tags * TAG_LEN;
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_FIXED_GSO |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN + tags * TAG_LEN);
	long err = -1;

	flags |= form & FORM_IPV6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	if (!(form & FORM_ETHERIP))
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	/* the type stays where it is relative to the payload: remember it with the tags */
	*is_outer_ip = is_ip(skb);
	if (*is_outer_ip)
		err = bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags);
	if (err) {
		/* not IP, or encapsulated already (EALREADY) */
		if (ip_only)
			return FAST_NOT_MINE;
		if (skb->gso_size)
			return VNETD_DROP_ENCAP_FAILED;
		*is_outer_ip = false;
		if (bpf_skb_change_head(skb, room, 0))
			return VNETD_DROP_ENCAP_FAILED;
	}
	return VNETD_OK;
}

static __always_inline __u32 add_headers(struct __sk_buff *skb, struct encap *e, bool *is_outer_ip)
{
	return make_headers_room(skb, e->spec.form, e->frame.tags.count, e->fast, is_outer_ip);
}

/* Constant lengths: Linux 6.1's verifier loses the bound of a computed one. */
static __always_inline int write_outer(struct __sk_buff *skb, const struct frame *frame, __u32 form)
{
	const void *outer = (void *)&frame->outer + OUTER_PAD;

	switch (form) {
	case FORM_UDP4:
		return bpf_skb_store_bytes(skb, 0, outer + OUTER_MAX - room_of(FORM_UDP4),
					   room_of(FORM_UDP4), 0);
	case FORM_UDP6:
		return bpf_skb_store_bytes(skb, 0, outer, OUTER_MAX, 0);
	case FORM_ETHERIP4:
		return bpf_skb_store_bytes(skb, 0, outer + OUTER_MAX - room_of(FORM_ETHERIP4),
					   room_of(FORM_ETHERIP4), 0);
	default:
		return bpf_skb_store_bytes(skb, 0, outer + OUTER_MAX - room_of(FORM_ETHERIP6),
					   room_of(FORM_ETHERIP6), 0);
	}
}

/* The inner Ethernet header with its tags, behind the outer headers. */
static __always_inline int write_inner(struct __sk_buff *skb, const struct frame *frame, __u32 form)
{
	const void *inner = frame->dst;
	__u32 at = room_of(form);

	switch (frame->tags.count) {
	case 0:
		return bpf_skb_store_bytes(skb, at, inner, ETH_HLEN, 0);
	case 1:
		return bpf_skb_store_bytes(skb, at, inner, ETH_HLEN + TAG_LEN, 0);
	case 2:
		return bpf_skb_store_bytes(skb, at, inner, ETH_HLEN + 2 * TAG_LEN, 0);
	default:
		return bpf_skb_store_bytes(skb, at, inner, ETH_HLEN + MAX_TAGS * TAG_LEN, 0);
	}
}

SUBPROGRAM int write_rare_headers(struct __sk_buff *skb, const struct encap *e)
{
	if (!e)
		return -1;
	return write_outer(skb, &e->frame, e->spec.form)
		       ?: write_inner(skb, &e->frame, e->spec.form);
}

/* Both; the common forms at once. */
static __always_inline int write_headers(struct __sk_buff *skb, const struct encap *e)
{
	const void *outer = (void *)&e->frame.outer + OUTER_PAD;

	if (unlikely(e->frame.tags.count | (e->spec.form & FORM_ETHERIP)))
		return write_rare_headers(skb, e);
	if (likely(e->spec.form == FORM_UDP4))
		return bpf_skb_store_bytes(skb, 0, outer + OUTER_MAX - room_of(FORM_UDP4),
					   room_of(FORM_UDP4) + ETH_HLEN, 0);
	return bpf_skb_store_bytes(skb, 0, outer, OUTER_MAX + ETH_HLEN, 0);
}

/* To the neighbour that the kernel's route to the host names. */
static __always_inline int to_neighbour(struct __sk_buff *skb, const struct encap *e)
{
	struct bpf_redir_neigh host = {
		.nh_family = ROUTE_FAMILY_INET,
		.ipv4_nh = e->to.host.words[3],
	};

	if (likely(route_on_link(skb, e->to.nexthop, e->to.underlay)))
		return bpf_redirect_neigh(e->to.underlay->ifindex, &host, sizeof(host), 0);
	return bpf_redirect_neigh(e->to.underlay->ifindex, NULL, 0, 0);
}

/* Encapsulates a frame and sends it to the host that it is for. */
static __always_inline __u32 to_host(struct __sk_buff *skb, struct encap *e, int *action)
{
	bool is_outer_ip;
	__u32 reason;

	e->spec.form = form_of(e->to.underlay, e->vnet->encap);
	e->spec.port = e->to.port;
	e->spec.dont_fragment = e->to.dont_fragment;
	outer_write(&e->frame.outer, &e->spec, e->to.underlay, &e->to.host);
	reason = add_headers(skb, e, &is_outer_ip);
	if (reason)
		return reason;
	if (write_headers(skb, e))
		return VNETD_DROP_ENCAP_FAILED;
	skb->mark = VNETD_MARK_NONE;
	if (likely(is_outer_ip)) {
		*action = to_neighbour(skb, e);
		return VNETD_OK;
	}
	skb->mark = VNETD_MARK_SECOND_PASS | (e->to.underlay->index & VNETD_MARK_VALUE);
	*action = bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	return VNETD_OK;
}

/* ---- the places of the underlay ----------------------------------------------------------- */

static long find_device(__u32 index, void *context)
{
	struct places *places = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);
	__u32 largest, place, is_ipv6;

	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP))
		return 0;
	/* computed, or the verifier walks the loop for each of the ways */
	is_ipv6 = underlay->family >> 1 & 1;
	place = PLACE_UP | (sends_to_group(underlay) ? PLACE_SENDS : 0) | (index & PLACE_INDEX);
	if ((place & (is_ipv6 - 1)) > places->best4)
		places->best4 = place;
	if ((place & -is_ipv6) > places->best6)
		places->best6 = place;
	largest = underlay->mtu - overhead_of(form_of(underlay, places->encap));
	if (largest < places->largest)
		places->largest = largest;
	return 0;
}

/* A frame that left by some devices, but not by all. */
static __always_inline void count_missed(const struct device_walk *walk, const struct verdict *v)
{
	if (unlikely(walk->missed))
		count_drop(v->handle, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED, v->len);
}

/* Finds out which places are up, for a vnet with this encapsulation. */
CHECKED_ONCE int find_places(struct places *found, __u32 encap)
{
	struct places places = { .largest = 0xffff, .encap = encap };

	if (!found)
		return -1;
	bpf_loop(VNETD_MAX_UNDERLAYS, find_device, &places, 0);
	*found = places;
	return 0;
}

/* The place at an index if it sends to the group and is of the family that is being sent to. */
static __always_inline struct vnetd_underlay *walked(const struct device_walk *walk, __u32 index)
{
	struct vnetd_underlay *underlay = underlay_by_index(index);

	return underlay && sends_to_group(underlay) && underlay->family == walk->family ? underlay
											: NULL;
}

#endif
