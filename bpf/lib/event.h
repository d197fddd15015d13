/* SPDX-License-Identifier: GPL-2.0-only */
/* Events to the daemon. Nobody may be there to read: the rings are bounded and fill up. */
#ifndef VNETD_EVENT_H
#define VNETD_EVENT_H

#include "maps.h"

/*
 * What a guest or a stranger can cause at will is paced, per CPU and kind: so many at once, and one
 * more for each interval.
 */
#define EVENT_INTERVAL_NS 100000ULL
#define EVENT_BURST 512
/* VARP messages leave this part of the ring `control` to what happens on this host */
#define VARP_RING_SHARE (VNETD_RING_BYTES / 4 * 3)
/* and what need not be told at all uses no more than this */
#define VARP_WORD_SHARE (VNETD_RING_BYTES / 4)

enum event_pacer {
	PACE_LOCAL = 0,
	PACE_OTHER = 1,
	PACE_COUNT,
};

struct event_pace {
	__u64 refilled_ns;
	__u64 tokens;
};

VNETD_MAP(event_pace, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct event_pace, PACE_COUNT, 0);

static __always_inline bool event_allowed(__u32 pacer)
{
	struct event_pace *pace = bpf_map_lookup_elem(&event_pace, &pacer);
	__u64 now = bpf_ktime_get_ns(), earned;

	if (!pace)
		return false;
	earned = (now - pace->refilled_ns) / EVENT_INTERVAL_NS;
	if (earned) {
		earned += pace->tokens;
		pace->tokens = earned > EVENT_BURST ? EVENT_BURST : earned;
		pace->refilled_ns = now;
	}
	if (!pace->tokens)
		return false;
	pace->tokens -= 1;
	return true;
}

static __always_inline void event_fill(struct vnetd_event_mac *event, __u32 type,
				       const struct vnetd_fdb_key *key, __u32 slot, __u32 from,
				       __u32 to)
{
	event->type = type;
	event->slot = slot;
	event->handle = key->handle;
	__builtin_memcpy(event->mac, key->mac, VNETD_MAC_LEN);
	event->pad = 0;
	event->pad2 = 0;
	event->from = from;
	event->to = to;
	event->time_ns = bpf_ktime_get_ns();
}

/* A MAC appeared on this host: the daemon announces it. */
CHECKED_ONCE int event_local_new(const struct vnetd_fdb_key *key, __u32 slot, __u32 from)
{
	struct vnetd_event_mac *event;

	if (!key || !event_allowed(PACE_LOCAL))
		return 0;
	event = bpf_ringbuf_reserve(&control, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, VNETD_EVENT_LOCAL_NEW, key, slot, from, VNETD_NEXTHOP_LOCAL);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

CHECKED_ONCE int event_unknown_unicast(const struct vnetd_fdb_key *key, __u32 slot)
{
	struct vnetd_event_mac *event;

	if (!key || !event_allowed(PACE_OTHER))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, VNETD_EVENT_UNKNOWN_UNICAST, key, slot, 0, 0);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* VNETD_EVENT_MOVED or VNETD_EVENT_HELD */
CHECKED_ONCE int event_moved(const struct vnetd_fdb_key *key, __u32 type, __u32 slot, __u32 from,
			     __u32 to)
{
	struct vnetd_event_mac *event;

	if (!key || !event_allowed(PACE_OTHER))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, type, key, slot, from, to);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Somebody forwards to us whom nobody named: the daemon says so to who looks for what is missing. */
SUBPROGRAM int event_not_peer(const __u8 *addr, __u32 ifindex)
{
	struct vnetd_event_peer *event;

	if (!addr || !event_allowed(PACE_OTHER))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->type = VNETD_EVENT_NOT_PEER;
	event->ifindex = ifindex;
	__builtin_memcpy(event->addr, addr, sizeof(event->addr));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
