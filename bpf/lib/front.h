/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * In front of the MAC table: what this CPU found there within the present tick of the coarse clock.
 *
 * A look-up in a hash takes many times as long as one in an array, and each frame on its way out wants two. An entry here is
 * a copy of what a look-up gave. It is believed while the clock has not moved on (1 to 10 ms) and fdb_epoch is what it was:
 * whoever changes an entry of the table, other than to say that it was heard again, or deletes it, counts that up
 * (fdb_changed()). So nothing is sent where the table did not say; another CPU's change of that very moment may be seen a
 * frame later.
 *
 * Whether an entry is alive is decided when it is looked at, here as there.
 */
#ifndef VNETD_FRONT_H
#define VNETD_FRONT_H

#include "maps.h"

#define FRONT_BITS 8

/* 64 bytes: one line of the cache */
struct fdb_found {
	struct vnetd_fdb_key key;
	__u32 epoch;
	/* the tick in which it was looked up; 0: nothing is here */
	__u64 now;
	/* next hop and its generation, as in struct vnetd_fdb_entry */
	__u32 nexthop;
	__u32 gen;
	__u32 flags;
	__u32 pad;
	__u64 seen_ns;
	__u64 reserved[2];
};

_Static_assert(sizeof(struct fdb_found) == 64, "one line of the cache");

struct fdb_fronts {
	struct fdb_found at[1 << FRONT_BITS];
};

VNETD_MAP(fdb_front, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct fdb_fronts, 1, 0);
VNETD_MAP(fdb_epoch, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);

static __always_inline void fdb_changed(void)
{
	__u32 zero = 0, *epoch = bpf_map_lookup_elem(&fdb_epoch, &zero);

	if (epoch)
		__sync_fetch_and_add(epoch, 1);
}

/* What the table has of a MAC is copied to its place. Returns 0: it has nothing. */
CHECKED_ONCE int fdb_copy(struct fdb_found *found, const struct vnetd_fdb_key *key, __u64 now,
			  __u32 epoch)
{
	struct vnetd_fdb_entry *entry;
	struct vnetd_fdb_key own;
	__u64 target;

	if (!found || !key)
		return 0;
	/* Linux 6.1 wants a map's key on this function's stack, or in a map */
	own = *key;
	entry = bpf_map_lookup_elem(&fdb, &own);
	if (!entry)
		return 0;
	target = *(volatile __u64 *)entry;
	found->key = own;
	found->epoch = epoch;
	found->now = now;
	found->nexthop = (__u32)target;
	found->gen = target >> 32;
	found->flags = entry->flags;
	found->seen_ns = entry->seen_ns;
	return 1;
}

/* What the table has of a MAC, alive or not; NULL: nothing. now: the clock's, not another time. */
static __always_inline struct fdb_found *fdb_look(const struct vnetd_fdb_key *key, __u64 now)
{
	const __u32 *words = (const void *)key;
	__u32 zero = 0, place, *epoch = bpf_map_lookup_elem(&fdb_epoch, &zero);
	struct fdb_fronts *fronts = bpf_map_lookup_elem(&fdb_front, &zero);
	struct fdb_found *found;
	const __u32 *own;
	__u32 before;

	if (!epoch || !fronts)
		return NULL;
	before = *(volatile __u32 *)epoch;
	place = (words[0] * 0x85ebca6bU ^ words[1] ^ words[2] * 0xc2b2ae35U) * 0x9e3779b1U;
	found = &fronts->at[place >> (32 - FRONT_BITS)];
	own = (const void *)&found->key;
	if (likely(!((found->now ^ now) | (found->epoch ^ before) | (own[0] ^ words[0]) |
		     (own[1] ^ words[1]) | (own[2] ^ words[2]))))
		return found;
	return fdb_copy(found, key, now, before) ? found : NULL;
}

#endif
