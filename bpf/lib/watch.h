/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What goes on, told to who looks: `vnetd monitor` and `vnetd capture`.
 *
 * Nothing is said unless the map `watch` says that somebody looks, and until when. Drops ask there, which
 * cost a look-up already; frames that are carried ask a bit of their vnet's record, which has been read.
 * What is said is paced, per CPU and kind, and goes to a ring that fills up: what finds no room is counted.
 */
#ifndef VNETD_WATCH_H
#define VNETD_WATCH_H

#include "count.h"

/* so many at once, and one more for each interval */
#define WATCH_BURST 512
#define WATCH_DROPS_NS 500000ULL
#define WATCH_MACS_NS 500000ULL
#define WATCH_CAPTURED_NS 25000ULL

struct watch_record {
	struct vnetd_event_packet packet;
	__u8 bytes[VNETD_WATCH_SNAP];
};

/* a record is put together here: programs of one CPU do not interrupt one another */
VNETD_MAP(watch_scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct watch_record, 1, 0);

/* What is wanted; NULL: nothing. */
static __always_inline struct vnetd_watch *watch_now(void)
{
	__u32 zero = 0;
	struct vnetd_watch *w = bpf_map_lookup_elem(&watch, &zero);

	if (!w || likely(!w->flags) || (__s64)(w->until_ns - now_ns()) < 0)
		return NULL;
	return w;
}

/* The kind's counters, if one more may be said. */
static __always_inline struct vnetd_watch_stats *watch_allowed(__u32 kind, __u64 interval_ns)
{
	struct vnetd_watch_stats *stats = bpf_map_lookup_elem(&watch_stats, &kind);
	__u64 now = bpf_ktime_get_ns(), earned;

	if (!stats)
		return NULL;
	earned = (now - stats->refilled_ns) / interval_ns;
	if (earned) {
		earned += stats->tokens;
		stats->tokens = earned > WATCH_BURST ? WATCH_BURST : earned;
		stats->refilled_ns = now;
	}
	if (!stats->tokens) {
		stats->paced += 1;
		return NULL;
	}
	stats->tokens -= 1;
	return stats;
}

/* why: enum vnetd_direction << 16 | enum vnetd_reason. keep: bytes. */
CHECKED_ONCE int watch_packet(struct __sk_buff *skb, __u32 type, __u32 handle, __u32 why,
			      __u32 keep)
{
	bool captured = keep > VNETD_WATCH_HEAD;
	__u32 zero = 0, kept = skb->len;
	struct vnetd_watch_stats *stats =
		watch_allowed(captured ? VNETD_WATCH_CAPTURED : VNETD_WATCH_DROPS,
			      captured ? WATCH_CAPTURED_NS : WATCH_DROPS_NS);
	struct watch_record *record = bpf_map_lookup_elem(&watch_scratch, &zero);

	if (!stats || !record)
		return 0;
	record->packet.type = type;
	record->packet.handle = handle;
	record->packet.direction = why >> 16;
	record->packet.reason = (__u16)why;
	record->packet.ifindex = skb->ifindex;
	record->packet.time_ns = bpf_ktime_get_ns();
	record->packet.len = kept;
	record->packet.vlan_proto = skb->vlan_present ? (__be16)skb->vlan_proto : 0;
	record->packet.vlan_tci = bpf_htons((__u16)skb->vlan_tci);
	record->packet.pad = 0;
	if (kept > keep)
		kept = keep;
	/* one less is compared, so that the verifier of Linux 6.1 knows that it is not 0 */
	kept -= 1;
	barrier_var(kept);
	if (kept >= VNETD_WATCH_SNAP)
		return 0;
	kept += 1;
	record->packet.kept = kept;
	if (bpf_skb_load_bytes(skb, 0, record->bytes, kept))
		return 0;
	if (bpf_ringbuf_output(&watched, record, sizeof(record->packet) + kept, 0))
		stats->full += 1;
	return 0;
}

/* A frame that went no further, or whose source was not learned. */
CHECKED_ONCE int watch_drop(struct __sk_buff *skb, __u32 handle, __u32 direction, __u32 reason)
{
	struct vnetd_watch *w = watch_now();
	__u32 keep = 0;

	if (likely(!w))
		return 0;
	if (w->flags & VNETD_WATCH_EVENTS && (!w->handle || w->handle == handle) &&
	    (!w->reason || w->reason == reason))
		keep = VNETD_WATCH_HEAD;
	if (w->flags & VNETD_WATCH_FRAMES && handle &&
	    (!w->frames_handle || w->frames_handle == handle))
		keep = w->snap;
	if (!keep)
		return 0;
	return watch_packet(skb, VNETD_EVENT_DROP, handle, direction << 16 | (reason & 0xffff),
			    keep);
}

/* A frame of a vnet with VNETD_VNET_WATCHED. */
CHECKED_ONCE int watch_frame(struct __sk_buff *skb, __u32 handle, __u32 direction)
{
	struct vnetd_watch *w = watch_now();

	if (!w || !(w->flags & VNETD_WATCH_FRAMES))
		return 0;
	return watch_packet(skb, VNETD_EVENT_FRAME, handle, direction << 16, w->snap);
}

/* type: VNETD_EVENT_LEARNED or VNETD_EVENT_AGED */
CHECKED_ONCE int watch_mac(const struct vnetd_fdb_key *key, __u32 type, __u32 slot, __u32 nexthop)
{
	struct vnetd_watch *w = watch_now();
	struct vnetd_watch_stats *stats;
	struct vnetd_event_mac *event;

	if (likely(!w) || !key || !(w->flags & VNETD_WATCH_EVENTS) || w->reason ||
	    (w->handle && w->handle != key->handle))
		return 0;
	stats = watch_allowed(VNETD_WATCH_MACS, WATCH_MACS_NS);
	if (!stats)
		return 0;
	event = bpf_ringbuf_reserve(&watched, sizeof(*event), 0);
	if (!event) {
		stats->full += 1;
		return 0;
	}
	event->type = type;
	event->slot = slot;
	event->handle = key->handle;
	__builtin_memcpy(event->mac, key->mac, VNETD_MAC_LEN);
	event->pad = 0;
	event->pad2 = 0;
	event->from = 0;
	event->to = nexthop;
	event->time_ns = bpf_ktime_get_ns();
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Counts a drop, and tells who looks. */
static __always_inline void drop(struct __sk_buff *skb, const struct verdict *v, __u32 direction,
				 __u32 reason)
{
	count_drop(v->handle, direction, reason, v->len);
	watch_drop(skb, v->handle, direction, reason);
}

#endif
