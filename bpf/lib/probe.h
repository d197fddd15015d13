/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Probes: does what this host sends into a vnet come back to it another way?
 *
 * The daemon has bpf/control.bpf.c send one to the group, and one to the vnetif's bridge. Every host
 * of ours that takes a probe off the underlay writes into it from whom, to whom and in which vnet, and
 * lets it go on like any frame. A probe with the nonce of the vnet that it is found in is this host's
 * own: there is a loop, and the hops name it. It ends there; and a probe with all hops used ends, too.
 */
#ifndef VNETD_PROBE_H
#define VNETD_PROBE_H

#include "flood.h"
#include "outer.h"

#define LOOP_EVENTS_PER_SECOND 50

/* verdict beside the reasons: this host's own, on its way out */
#define PROBE_SENT ((__u32)VNETD_REASON_COUNT + 8)
/* another's */
#define PROBE_PASSES ((__u32)VNETD_REASON_COUNT + 9)

struct probe_start {
	__be32 magic;
	__u8 version, hops;
	__be16 reserved;
	__u64 nonce;
};

_Static_assert(sizeof(struct probe_start) == offsetof(struct vnetd_probe, hop), "a probe's start");

static __always_inline bool probe_read(struct __sk_buff *skb, __u32 offset,
				       struct probe_start *start)
{
	return bpf_skb_load_bytes(skb, offset, start, sizeof(*start)) == 0 &&
	       start->magic == bpf_htonl(VNETD_PROBE_MAGIC) &&
	       start->version == VNETD_PROBE_VERSION;
}

struct probe_found {
	__u32 slot;
	__u32 direction;
	/* of the probe in the packet */
	__u32 offset;
	/* DECAP */
	union address source;
};

/* A probe came back: the vnet's budget shrinks, and the daemon is told. */
static __always_inline __u32 probe_back(struct __sk_buff *skb, const struct probe_found *found,
					__u32 handle)
{
	struct vnetd_floods *f = floods_of(found->slot);
	struct vnetd_event_loop *event;
	__u64 now = now_ns();

	if (!f)
		return VNETD_DROP_LOOP;
	f->loop_seen_ns = now;
	if (!budget_take(&f->events_ns, now, LOOP_EVENTS_PER_SECOND, LOOP_EVENTS_PER_SECOND, 1))
		return VNETD_DROP_LOOP;
	event = bpf_ringbuf_reserve(&control, sizeof(*event), 0);
	if (!event)
		return VNETD_DROP_LOOP;
	event->type = VNETD_EVENT_LOOP;
	event->slot = found->slot;
	event->handle = handle;
	event->direction = found->direction;
	__builtin_memcpy(event->source, &found->source, sizeof(event->source));
	if (bpf_skb_load_bytes(skb, found->offset, &event->probe, sizeof(event->probe)))
		bpf_ringbuf_discard(event, 0);
	else
		bpf_ringbuf_submit(event, 0);
	return VNETD_DROP_LOOP;
}

/*
 * A frame with the probes' EtherType from the vnetif. Returns VNETD_OK for what is no probe,
 * PROBE_SENT, PROBE_PASSES, or a reason to drop it.
 */
CHECKED_ONCE __u32 probe_leaves(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot)
{
	struct probe_found found = {
		.slot = slot,
		.direction = VNETD_DIR_ENCAP,
		.offset = ETH_HLEN,
	};
	bool sent = (skb->mark & VNETD_MARK_KIND) == VNETD_MARK_PROBE;
	struct vnetd_floods *f = floods_of(slot);
	struct probe_start start;
	__u64 now = now_ns();

	if (!vnet || !f || !probe_read(skb, ETH_HLEN, &start))
		return VNETD_OK;
	if (start.nonce == vnet->probe_nonce && start.nonce)
		return sent ? PROBE_SENT : probe_back(skb, &found, vnet->handle);
	if (!budget_take(&f->probes_ns, now, VNETD_PROBES_PER_SECOND, VNETD_PROBES_PER_SECOND, 1))
		return VNETD_DROP_STORM;
	return PROBE_PASSES;
}

/* The same for a frame from the underlay; VNETD_OK lets it in. */
CHECKED_ONCE __u32 probe_arrives(struct __sk_buff *skb, const struct probe_found *found,
				 const struct vnetd_underlay *underlay)
{
	struct vnetd_vnet *vnet = found ? vnet_by_slot(found->slot) : NULL;
	struct vnetd_probe_hop hop;
	struct probe_start start;
	__u8 hops;
	__u32 at;

	if (!vnet || !underlay || !probe_read(skb, found->offset, &start))
		return VNETD_OK;
	if (start.nonce == vnet->probe_nonce && start.nonce)
		return probe_back(skb, found, vnet->handle);
	if (start.hops >= VNETD_PROBE_HOPS)
		return VNETD_DROP_LOOP;
	__builtin_memcpy(hop.vnet, vnet->id, VNETD_ID_LEN);
	__builtin_memcpy(hop.from, &found->source, sizeof(hop.from));
	__builtin_memcpy(hop.to, underlay->addr, sizeof(hop.to));
	at = found->offset + offsetof(struct vnetd_probe, hop) + start.hops * sizeof(hop);
	/* a probe that is too short for its hops goes on as it is */
	if (bpf_skb_store_bytes(skb, at, &hop, sizeof(hop), BPF_F_RECOMPUTE_CSUM))
		return VNETD_OK;
	hops = start.hops + 1;
	bpf_skb_store_bytes(skb, found->offset + offsetof(struct vnetd_probe, hops), &hops,
			    sizeof(hops), BPF_F_RECOMPUTE_CSUM);
	return VNETD_OK;
}

#endif
