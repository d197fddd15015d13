/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How much may go to the group, and come from it: broadcast, multicast, unknown unicast.
 *
 * A budget is one number, the time at which it would be whole again if nothing more came (GCRA, the
 * "virtual scheduling" form of ITU-T I.371). It is exact over all CPUs, needs no timer, and a frame
 * that is refused writes nothing, so a storm does not fight for the line. Known unicast never gets
 * here.
 */
#ifndef VNETD_FLOOD_H
#define VNETD_FLOOD_H

#include "event.h"
#include "nexthop.h"

#define STORM_TELL_NS 1000000000LL
/* how often the other CPUs may be quicker before the frame is charged without a look */
#define BUDGET_TRIES 4

/* Takes so many frames of per_second, at most burst at once. */
static __always_inline bool budget_take(__u64 *whole_ns, __u64 now, __u32 per_second, __u64 burst,
					__u64 frames)
{
	__u64 interval = NS_PER_S / per_second, cost;

	/* a super-frame that is longer than the burst must be able to pass, too */
	cost = interval * (frames > burst ? burst : frames);
	for (int i = 0; i < BUDGET_TRIES; i++) {
		__u64 old = *(volatile __u64 *)whole_ns;
		__u64 from = (__s64)(old - now) > 0 ? old : now;

		if (from + cost - now > interval * burst)
			return false;
		if (__sync_val_compare_and_swap(whole_ns, old, from + cost) == old)
			return true;
	}
	__sync_fetch_and_add(whole_ns, cost);
	return true;
}

static __always_inline __u32 flood_frames(const struct __sk_buff *skb)
{
	return skb->gso_size ? skb->len / skb->gso_size + 1 : 1;
}

static __always_inline struct vnetd_floods *floods_of(__u32 slot)
{
	return bpf_map_lookup_elem(&floods, &slot);
}

/* A probe came back a short while ago. */
static __always_inline bool flood_looped(const struct vnetd_floods *f, __u64 now)
{
	return f->loop_seen_ns && (__s64)(now - f->loop_seen_ns) < VNETD_LOOP_HOLD_MS * NS_PER_MS;
}

/* Tells the daemon once a second that frames are being dropped. from: a next hop, or this host */
static __always_inline __u32 storm(struct vnetd_floods *f, __u32 direction, __u32 slot,
				   __u32 handle, __u32 from, __u64 now)
{
	struct vnetd_fdb_key key = { .handle = handle };

	if (direction < 2 && (__s64)(now - f->told_ns[direction]) > STORM_TELL_NS) {
		f->told_ns[direction] = now;
		event_moved(&key, VNETD_EVENT_STORM, slot, from, direction);
	}
	return VNETD_DROP_STORM;
}

/* May a frame go to the group? Charged once a frame, however many devices it leaves by. */
CHECKED_ONCE __u32 flood_leaves(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot)
{
	struct vnetd_floods *f = floods_of(slot);
	__u32 rate, frames = flood_frames(skb);
	__u64 now = now_ns();
	bool within;

	if (!f || !vnet)
		return VNETD_OK;
	rate = vnet->flood_per_second;
	if (unlikely(flood_looped(f, now)) && (!rate || rate > VNETD_LOOP_PER_SECOND))
		within = budget_take(&f->looped_ns, now, VNETD_LOOP_PER_SECOND,
				     VNETD_LOOP_PER_SECOND, frames);
	else if (rate)
		within = budget_take(&f->sent_ns, now, rate, vnet->flood_burst, frames);
	else
		within = true;
	if (likely(within))
		return VNETD_OK;
	return storm(f, VNETD_DIR_ENCAP, slot, vnet->handle, VNETD_NEXTHOP_LOCAL, now);
}

/*
 * May a frame from the group come in? Each host has a budget of its own, so that one that floods
 * takes nothing from the others; a host of ours, which limits itself, never gets to the end of it.
 * Hosts that have no record (nexthop is 0) share one.
 */
CHECKED_ONCE __u32 flood_arrives(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot,
				 __u32 nexthop)
{
	struct vnetd_nexthop *hop = nexthop ? nexthop_by_id(nexthop) : NULL;
	struct vnetd_floods *f = floods_of(slot);
	__u32 rate, frames = flood_frames(skb);
	__u64 now = now_ns(), burst;
	bool within;

	if (!f || !vnet || !vnet->flood_per_second)
		return VNETD_OK;
	rate = vnet->flood_per_second * VNETD_FLOOD_RECEIVE_FACTOR;
	burst = (__u64)vnet->flood_burst * VNETD_FLOOD_RECEIVE_FACTOR;
	if (!rate)
		return VNETD_OK;
	if (hop)
		within = budget_take(&hop->flood_ns, now, rate, burst, frames);
	else
		within = budget_take(&f->strangers_ns, now, rate, burst, frames);
	if (likely(within))
		return VNETD_OK;
	return storm(f, VNETD_DIR_DECAP, slot, vnet->handle, nexthop, now);
}

#endif
