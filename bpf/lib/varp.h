/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VARP: checked for its form, then the daemon's, by the ring `control`. Shared by bpf/decap.bpf.c, where it comes
 * in clear, and bpf/esp.bpf.c, where it comes by an SA.
 *
 * Of a secure vnet, what comes in clear is from nobody knows whom: the daemon has to look whether a member made it,
 * which costs time. So there are budgets: one for hosts that are known, of which each has its own, and one for
 * all others. Who makes up addresses takes nothing from those that are known; who takes a known
 * one's address takes that one's share alone. What comes by an SA has no budget, and all of the ring.
 */
#ifndef VNETD_VARP_H
#define VNETD_VARP_H

#include "receive.h"

#define VARP_SHORT_EVENT (offsetof(struct vnetd_event_varp, message) + VNETD_VARP_SHORT_LEN)

/* Whether the daemon is to have a message for a secure vnet that came in clear. */
CHECKED_ONCE int clear_varp_within(__u32 slot, const struct vnetd_nexthop_key *from)
{
	struct vnetd_floods *f = floods_of(slot);
	struct vnetd_nexthop_key key;
	struct vnetd_nexthop *hop;
	__u64 now = now_ns();
	__u32 *id;

	if (!f || !from)
		return false;
	key = *from;
	id = bpf_map_lookup_elem(&nexthop_ids, &key);
	hop = id ? nexthop_by_id(*id) : NULL;
	if (!hop)
		return budget_take(&f->varp_strangers_ns, now, VNETD_CLEAR_VARP_PER_SECOND,
				   VNETD_CLEAR_VARP_PER_SECOND, 1);
	/* or the compiler adds the offset before the test, which the verifier refuses */
	barrier_var(hop);
	return budget_take(&hop->varp_ns, now, VNETD_CLEAR_VARP_PER_HOST,
			   VNETD_CLEAR_VARP_HOST_BURST, 1) &&
	       budget_take(&f->varp_known_ns, now, VNETD_CLEAR_VARP_PER_SECOND,
			   VNETD_CLEAR_VARP_PER_SECOND, 1);
}

/* May it be taken as it came, of a vnet that is here? */
static __always_inline __u32 varp_admit(const struct received *r, __u32 slot, __u32 way)
{
	struct vnetd_vnet *vnet = vnet_by_slot(slot);
	struct vnetd_nexthop_key from = { .ifindex = r->underlay->ifindex };

	if (way == VNETD_WAY_SECURE)
		return VNETD_OK;
	if (way == VNETD_WAY_LEARNED)
		return bpf_ringbuf_query(&control, BPF_RB_AVAIL_DATA) > VARP_WORD_SHARE
			       ? VNETD_DROP_VARP_QUEUE_FULL
			       : VNETD_OK;
	if (vnet && unlikely(vnet->security != VNETD_SECURITY_NONE)) {
		from.handle = vnet->handle;
		__builtin_memcpy(from.addr, &r->source, sizeof(from.addr));
		if (!clear_varp_within(slot, &from))
			return VNETD_DROP_VARP_RATE;
	}
	return bpf_ringbuf_query(&control, BPF_RB_AVAIL_DATA) > VARP_RING_SHARE
		       ? VNETD_DROP_VARP_QUEUE_FULL
		       : VNETD_OK;
}

/* A list may be about vnets that are here, though the one in front is not (docs/wire-format.md#lists). */
static __always_inline bool varp_is_list(struct __sk_buff *skb, __u32 offset, __u32 len)
{
	struct vnetd_ext_hdr ext;

	return len >= VNETD_VARP_LEN + sizeof(ext) &&
	       !bpf_skb_load_bytes(skb, offset + VNETD_VARP_LEN, &ext, sizeof(ext)) &&
	       ext.magic == bpf_htonl(VNETD_EXT_MAGIC) && ext.version == VNETD_EXT_VERSION &&
	       ext.flags & VNETD_EXT_LIST;
}

/* Room in the ring. Most messages are short, and a thousand hosts that appear at once are to find room. */
static __always_inline struct vnetd_event_varp *varp_event(__u32 len)
{
	if (len <= VNETD_VARP_SHORT_LEN)
		return bpf_ringbuf_reserve(&control, VARP_SHORT_EVENT, 0);
	/* or one call with either size is made of the two, which the verifier refuses */
	barrier();
	return bpf_ringbuf_reserve(&control, sizeof(struct vnetd_event_varp), 0);
}

/* r->payload: of the whole message */
SUBPROGRAM __u32 receive_varp(struct __sk_buff *skb, const struct received *r, __u32 way)
{
	__u32 offset = r->offset + sizeof(struct udphdr);
	struct vnetd_event_varp *event;
	struct vnetd_varp varp;
	__u32 id[VNETD_ID_LEN / 4], len = r->payload, *slot, reason;

	if (len < sizeof(varp))
		return VNETD_DROP_VARP_SHORT;
	if (bpf_skb_load_bytes(skb, offset, &varp, sizeof(varp)))
		return VNETD_DROP_TRUNCATED;
	if (varp.msg.opcode != bpf_htons(VNETD_VARP_REQUEST) &&
	    varp.msg.opcode != bpf_htons(VNETD_VARP_ANNOUNCE))
		return VNETD_DROP_VARP_BAD_OPCODE;
	/* a request's address says nothing: the answer goes to whom the packet came from */
	if (varp.msg.opcode == bpf_htons(VNETD_VARP_ANNOUNCE) && varp.family != VNETD_VARP_INET &&
	    varp.family != VNETD_VARP_INET6)
		return VNETD_DROP_VARP_BAD_FAMILY;
	__builtin_memcpy(id, varp.vnet, VNETD_ID_LEN);
	slot = bpf_map_lookup_elem(&vnet_ids, id);
	if (slot)
		reason = varp_admit(r, *slot, way);
	else if (way != VNETD_WAY_SECURE && varp_is_list(skb, offset, len))
		/* of the room that words have */
		reason = varp_admit(r, 0, VNETD_WAY_LEARNED);
	else
		return VNETD_DROP_VARP_UNKNOWN_VNET;
	if (reason)
		return reason;
	event = varp_event(len);
	if (!event)
		return VNETD_DROP_VARP_QUEUE_FULL;
	event->type = VNETD_EVENT_VARP;
	event->ifindex = r->underlay->ifindex;
	__builtin_memcpy(event->source, &r->source, sizeof(event->source));
	__builtin_memcpy(event->destination, &r->destination, sizeof(event->destination));
	event->source_port = r->source_port;
	if (len > VNETD_VARP_MAX_LEN)
		len = VNETD_VARP_MAX_LEN;
	event->len = len;
	event->way = way;
	if (len < sizeof(varp) || bpf_skb_load_bytes(skb, offset, event->message, len)) {
		bpf_ringbuf_discard(event, 0);
		return VNETD_DROP_TRUNCATED;
	}
	bpf_ringbuf_submit(event, 0);
	return VNETD_OK;
}

#endif
