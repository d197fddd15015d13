/* SPDX-License-Identifier: GPL-2.0-only */
/* Counting: called once a frame, by the entry points, with the verdict that the rest returned. */
#ifndef VNETD_COUNT_H
#define VNETD_COUNT_H

#include "maps.h"

/* What a frame turned out to be, filled in on its way so that it can be counted at the end. */
struct verdict {
	/* 0 until the vnet is known */
	__u32 handle;
	__u32 slot;
	/* length of the inner frame, or of the outer one before it is known */
	__u32 len;
	/* enum vnetd_reason: why the source was not learned, if it was not */
	__u32 refused;
	bool flooded;
	/* the vnet's counters on this CPU */
	struct vnetd_traffic *traffic;
};

static __always_inline void count_table(size_t offset)
{
	__u32 zero = 0;
	struct vnetd_table_stats *stats = bpf_map_lookup_elem(&table_stats, &zero);

	if (stats)
		*(__u64 *)((void *)stats + offset) += 1;
}

#define COUNT_TABLE(field) count_table(offsetof(struct vnetd_table_stats, field))

CHECKED_ONCE int count_drop(__u32 handle, __u32 direction, __u32 reason, __u32 len)
{
	struct vnetd_drop_key key = {
		.handle = handle,
		.direction = (__u16)direction,
		.reason = (__u16)reason,
	};
	struct vnetd_drop_count *count = bpf_map_lookup_elem(&drops, &key);

	if (!count) {
		struct vnetd_drop_count none = {};

		bpf_map_update_elem(&drops, &key, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&drops, &key);
	}
	if (!count) {
		/* no room for the vnet's own key: the frame is still counted, without its vnet */
		COUNT_TABLE(drop_keys_full);
		key.handle = 0;
		count = bpf_map_lookup_elem(&drops, &key);
	}
	if (count) {
		count->frames += 1;
		count->bytes += len;
	}
	return 0;
}

/* Once the vnet is known. */
static __always_inline void count_begin(struct verdict *v, __u32 handle, __u32 slot)
{
	v->handle = handle;
	v->slot = slot;
	v->traffic = bpf_map_lookup_elem(&traffic, &slot);
}

static __always_inline void count_forwarded(const struct verdict *v, __u32 direction)
{
	struct vnetd_traffic *t = v->traffic;

	if (!t)
		return;
	t->frames[direction] += 1;
	t->bytes[direction] += v->len;
	if (v->flooded) {
		t->flooded_frames += 1;
		t->flooded_bytes += v->len;
	}
}

#endif
