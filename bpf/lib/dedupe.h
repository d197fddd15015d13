/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which group frames came already, by another way: a window of what was heard lately.
 *
 * A sender gives all copies of one frame the same IPv4 id. So (vnet, sender, id, length) names a
 * frame, but for a while only: ids come again. For each name it is counted how often it came by
 * each way, and a frame is new when its own way is ahead of all others with it. That is exact
 * whichever copy comes first, needs no notion of a way that is better or dead, and an id that comes
 * again is no copy, as it comes by the same way again. The window only bounds for how long a copy
 * that was lost on one way can matter.
 *
 * The table evicts what was not used for longest. Under a flood that pushes a name out before its
 * copy comes, the copy is delivered: nothing is ever lost by that.
 */
#ifndef VNETD_DEDUPE_H
#define VNETD_DEDUPE_H

#include "maps.h"

#define DEDUPE_ENTRIES 8192
/* time is kept in units of 2^20 ns, about a millisecond */
#define DEDUPE_TICK_SHIFT 20
#define DEDUPE_WINDOW_TICKS (1000000000ULL >> DEDUPE_TICK_SHIFT)
#define DEDUPE_WAYS 8
#define DEDUPE_MOST 15
#define DEDUPE_TRIES 4

struct dedupe_key {
	__u32 handle;
	/* who sent it first: a host id, or an address */
	__u8 who[16];
	__u16 ip_id;
	/* of the inner frame */
	__u16 len;
};

/* when it was last heard, in ticks, << 32 | how often by each way, 4 bits a way */
VNETD_MAP(dedupe, BPF_MAP_TYPE_LRU_HASH, struct dedupe_key, __u64, DEDUPE_ENTRIES, 0);

_Static_assert(VNETD_MAX_PATHS <= DEDUPE_WAYS, "a way for each path");

static __always_inline __u32 dedupe_most(__u32 counts)
{
	__u32 most = 0;

#pragma unroll
	for (int way = 0; way < DEDUPE_WAYS; way++) {
		__u32 count = counts >> 4 * way & DEDUPE_MOST;

		if (count > most)
			most = count;
	}
	return most;
}

/* Takes 8 off each count, so that there is room; what is 0 then is behind by more than that. */
static __always_inline __u32 dedupe_lower(__u32 counts)
{
	__u32 lowered = 0;

#pragma unroll
	for (int way = 0; way < DEDUPE_WAYS; way++) {
		__u32 count = counts >> 4 * way & DEDUPE_MOST;

		if (count > 8)
			lowered |= (count - 8) << 4 * way;
	}
	return lowered;
}

/* Enters that a frame came by a way; true if it is a copy of one that came by another. */
CHECKED_ONCE __u32 dedupe_is_copy(const struct dedupe_key *wanted, __u32 way)
{
	__u64 now = now_ns() >> DEDUPE_TICK_SHIFT, *entry, first;
	__u32 shift = 4 * (way & (DEDUPE_WAYS - 1));
	struct dedupe_key key;

	if (!wanted)
		return false;
	/* of what a caller hands over Linux 6.1 makes no map's key */
	key = *wanted;
	entry = bpf_map_lookup_elem(&dedupe, &key);
	if (!entry) {
		first = now << 32 | 1U << shift;
		if (!bpf_map_update_elem(&dedupe, &key, &first, BPF_NOEXIST))
			return false;
		/* another CPU was first */
		entry = bpf_map_lookup_elem(&dedupe, &key);
		if (!entry)
			return false;
	}
	for (int i = 0; i < DEDUPE_TRIES; i++) {
		__u64 old = *(volatile __u64 *)entry, next;
		__u32 counts = (__u32)old;
		bool copy;

		/* signed: another CPU's clock may be a tick ahead */
		if ((__s32)((__u32)now - (__u32)(old >> 32)) > (__s32)DEDUPE_WINDOW_TICKS)
			counts = 0;
		if ((counts >> shift & DEDUPE_MOST) == DEDUPE_MOST)
			counts = dedupe_lower(counts);
		copy = (counts >> shift & DEDUPE_MOST) < dedupe_most(counts);
		next = now << 32 | (counts + (1U << shift));
		if (__sync_val_compare_and_swap(entry, old, next) == old)
			return copy;
	}
	return false;
}

#endif
