/* SPDX-License-Identifier: GPL-2.0-only */
/* Events to the daemon. Nobody may be there to read: the rings are bounded and fill up. */
#ifndef VNETD_EVENT_H
#define VNETD_EVENT_H

#include "maps.h"

/* At most one event of the kind that strangers can cause at will per CPU and this long. */
#define EVENT_INTERVAL_NS 100000ULL

struct event_pace {
	__u64 last_ns;
};

VNETD_MAP(event_pace, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct event_pace, 1, 0);

static __always_inline bool event_allowed(void)
{
	__u32 zero = 0;
	struct event_pace *pace = bpf_map_lookup_elem(&event_pace, &zero);
	__u64 now = bpf_ktime_get_ns();

	if (!pace || now - pace->last_ns < EVENT_INTERVAL_NS)
		return false;
	pace->last_ns = now;
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
SUBPROGRAM int event_local_new(const struct vnetd_fdb_key *key, __u32 slot, __u32 from)
{
	struct vnetd_event_mac *event;

	if (!key)
		return 0;
	event = bpf_ringbuf_reserve(&control, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, VNETD_EVENT_LOCAL_NEW, key, slot, from, VNETD_NEXTHOP_LOCAL);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SUBPROGRAM int event_unknown_unicast(const struct vnetd_fdb_key *key, __u32 slot)
{
	struct vnetd_event_mac *event;

	if (!key || !event_allowed())
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, VNETD_EVENT_UNKNOWN_UNICAST, key, slot, 0, 0);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SUBPROGRAM int event_moved(const struct vnetd_fdb_key *key, __u32 slot, __u32 from, __u32 to)
{
	struct vnetd_event_mac *event;

	if (!key || !event_allowed())
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event_fill(event, VNETD_EVENT_MOVED, key, slot, from, to);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
