/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweeper: gives back the memory of what has died, in the kernel, so that limits keep their
 * meaning while no daemon runs. A timer in a pinned map takes a few entries at each tick from the
 * queue of tokens and puts those that live back; all entries pass once in about SWEEP_CYCLE_NS, or sooner
 * when they are few. How many there are is counted, so that a large table with little in it costs little.
 * Neighbours have a queue of their own, and next hops are walked by number in the same way.
 */
#ifndef VNETD_SWEEP_H
#define VNETD_SWEEP_H

#include "neighbour.h"

#define SWEEP_TICK_NS 100000000ULL
#define SWEEP_CYCLE_NS 15000000000ULL
#define SWEEP_TICKS (SWEEP_CYCLE_NS / SWEEP_TICK_NS)
/* looked at in each tick, beside the part that makes a cycle: what is few passes at every tick */
#define SWEEP_MORE 64
/* a host without entries is forgotten when it was silent for so many ageing times */
#define NEXTHOP_IDLE_AGES 3
#define CLOCK_MONOTONIC_ID 1

/* the real sizes, which the daemon may have changed at load time */
const volatile __u32 fdb_capacity = VNETD_DEFAULT_FDB_ENTRIES;
const volatile __u32 nexthop_capacity = VNETD_DEFAULT_NEXTHOPS;
const volatile __u32 neighbour_capacity = VNETD_DEFAULT_NEIGHBOURS;

SUBPROGRAM bool fdb_dead(const struct vnetd_fdb_key *key, const struct vnetd_fdb_entry *entry,
			 __u64 now)
{
	struct vnetd_vnet *vnet = vnet_by_slot(entry->slot);
	struct vnetd_nexthop *hop;

	if (!vnet || vnet->handle != key->handle)
		return true;
	if (!fdb_fresh(entry, vnet, now))
		return true;
	if (entry->nexthop == VNETD_NEXTHOP_LOCAL)
		return false;
	hop = nexthop_by_id(entry->nexthop);
	return !hop || hop->gen != entry->gen;
}

/* False: it was moved meanwhile, and lives. */
static __always_inline bool fdb_remove(struct vnetd_fdb_key *key, struct vnetd_fdb_entry *entry)
{
	struct vnetd_vnet *vnet = vnet_by_slot(entry->slot);
	__u64 target = fdb_target(entry);
	__u32 slot = entry->slot, nexthop = (__u32)target;

	if (!fdb_point(entry, target, FDB_TOMBSTONE, 0))
		return false;
	bpf_map_delete_elem(&fdb, key);
	fdb_changed();
	COUNT_TABLE(aged);
	watch_mac(key, VNETD_EVENT_AGED, slot, nexthop);
	if (vnet && vnet->handle == key->handle) {
		struct vnetd_vnet_counts *counts = bpf_map_lookup_elem(&vnet_counts, &slot);

		if (counts)
			__sync_fetch_and_sub(&counts->entries, 1);
		fdb_uncount(slot, nexthop, target >> 32);
	} else if (nexthop != VNETD_NEXTHOP_LOCAL) {
		fdb_uncount(slot, nexthop, target >> 32);
	}
	return true;
}

static long sweep_entry(__u32 index, void *context)
{
	struct vnetd_fdb_entry *entry;
	struct vnetd_fdb_key key = {};

	if (bpf_map_pop_elem(&fdb_queue, &key))
		return 1;
	entry = bpf_map_lookup_elem(&fdb, &key);
	if (!entry)
		goto gone;
	if (fdb_dead(&key, entry, now_ns()) && fdb_remove(&key, entry))
		goto gone;
	if (!bpf_map_push_elem(&fdb_queue, &key, 0))
		return 0;
	/* without a token nobody would ever look at it again */
	fdb_remove(&key, entry);
gone:
	fdb_tokens(-1);
	return 0;
}

/* A count that is too high, or below 0, is no harm: the table's size is the limit. */
static __always_inline __u32 sweep_share(__u32 tokens)
{
	__u32 share;

	if (tokens > fdb_capacity)
		tokens = fdb_capacity;
	share = tokens / SWEEP_TICKS + SWEEP_MORE;
	return share < tokens ? share : tokens + 1;
}

static long sweep_nexthop(__u32 index, void *context)
{
	__u32 zero = 0, id;
	struct vnetd_sweeper *sweep = bpf_map_lookup_elem(&sweeper, &zero);
	struct vnetd_nexthop *hop;
	struct vnetd_vnet *vnet;
	__u64 idle;

	if (!sweep)
		return 1;
	id = sweep->nexthop_cursor + 1;
	if (id >= nexthop_capacity)
		id = 1;
	sweep->nexthop_cursor = id;
	hop = nexthop_by_id(id);
	if (!hop || !(hop->flags & VNETD_NEXTHOP_USED))
		return 0;
	vnet = vnet_by_slot(hop->slot);
	if (!vnet || vnet->handle != hop->key.handle) {
		nexthop_release(id, hop);
		return 0;
	}
	idle = now_ns() - hop->heard_ns;
	/* SAs are named by the record's number: who made them takes them away first */
	if (!(hop->flags & VNETD_NEXTHOP_MEMBER) && !hop->spi && !hop->entries && (__s64)idle > 0 &&
	    idle > NEXTHOP_IDLE_AGES * vnet->age_ns)
		nexthop_release(id, hop);
	return 0;
}

static long sweep_neighbour(__u32 index, void *context)
{
	struct vnetd_neighbour_key key = {};
	struct vnetd_neighbour *entry;

	if (bpf_map_pop_elem(&neighbour_queue, &key))
		return 1;
	entry = bpf_map_lookup_elem(&neighbours, &key);
	if (!entry)
		return 0;
	if (neighbour_dead(&key, entry, now_ns()) || bpf_map_push_elem(&neighbour_queue, &key, 0))
		neighbour_remove(&key, entry->slot);
	return 0;
}

static int sweep_tick(void *map, __u32 *key, struct vnetd_sweeper *sweep)
{
	bpf_loop(sweep_share(sweep->tokens), sweep_entry, NULL, 0);
	bpf_loop(nexthop_capacity / SWEEP_TICKS + 1, sweep_nexthop, NULL, 0);
	bpf_loop(neighbour_capacity / SWEEP_TICKS + 1, sweep_neighbour, NULL, 0);
	bpf_timer_start(&sweep->timer, SWEEP_TICK_NS, 0);
	return 0;
}

/* Starts the timer, or gives a running one to this generation of the program. */
static __always_inline long sweep_start(void)
{
	__u32 zero = 0;
	struct vnetd_sweeper *sweep = bpf_map_lookup_elem(&sweeper, &zero);
	long err;

	if (!sweep)
		return -1;
	/* EBUSY: it was initialised before, by whoever made the map */
	bpf_timer_init(&sweep->timer, &sweeper, CLOCK_MONOTONIC_ID);
	err = bpf_timer_set_callback(&sweep->timer, sweep_tick);
	if (err)
		return err;
	return bpf_timer_start(&sweep->timer, SWEEP_TICK_NS, 0);
}

#endif
