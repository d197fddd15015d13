/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of neighbours: (vnet, IP address) -> MAC. Everything that changes it is here or in sweep.h, and it is
 * kept as the MAC table is (fdb.h): an entry is made only together with its token in neighbour_queue, the sweeper
 * alone deletes entries, and vnet_counts counts those that exist.
 */
#ifndef VNETD_NEIGHBOUR_H
#define VNETD_NEIGHBOUR_H

#include "fdb.h"

/* Something that a guest said of an address of its own. */
struct neighbour_news {
	struct vnetd_neighbour_key key;
	__u32 slot;
	__u8 mac[VNETD_MAC_LEN];
	/* enum vnetd_neighbour_flags */
	__u16 flags;
	/* it says that this MAC still has the address, and nothing where another has it */
	__u32 confirms;
};

static __always_inline void count_neighbour(__u32 slot, size_t offset)
{
	struct vnetd_neighbour_stats *stats = bpf_map_lookup_elem(&neighbour_stats, &slot);

	if (stats)
		*(__u64 *)((void *)stats + offset) += 1;
}

#define COUNT_NEIGHBOUR(slot, field)                                                               \
	count_neighbour(slot, offsetof(struct vnetd_neighbour_stats, field))

static __always_inline __u64 neighbour_word(const struct vnetd_neighbour *entry)
{
	return *(const volatile __u64 *)entry;
}

/* Heard so lately that it is answered for. */
static __always_inline bool neighbour_fresh(const struct vnetd_neighbour *entry,
					    const struct vnetd_vnet *vnet, __u64 now)
{
	__u64 heard = *(const volatile __u64 *)&entry->heard_ns;

	/* signed: another CPU's clock may be a tick ahead */
	return heard && heard >= vnet->flushed_ns &&
	       (__s64)(now - heard) < (__s64)vnet->neighbour_age_ns;
}

SUBPROGRAM int neighbour_insert(const struct neighbour_news *news, const struct vnetd_vnet *vnet,
				__u64 now)
{
	struct vnetd_neighbour_key key = news->key;
	struct vnetd_neighbour entry = { .flags = news->flags, .heard_ns = now };
	struct vnetd_vnet_counts *counts;
	__u32 slot = news->slot;

	entry.slot = slot;
	__builtin_memcpy(entry.mac, news->mac, VNETD_MAC_LEN);
	counts = bpf_map_lookup_elem(&vnet_counts, &slot);
	if (!counts)
		return 0;
	/* a look before the atomic, as in fdb_insert() */
	if (*(volatile __u32 *)&counts->neighbours >= vnet->max_neighbours)
		goto refused;
	if (__sync_fetch_and_add(&counts->neighbours, 1) >= vnet->max_neighbours)
		goto uncount;
	if (bpf_map_update_elem(&neighbours, &key, &entry, BPF_NOEXIST))
		goto uncount;
	if (bpf_map_push_elem(&neighbour_queue, &key, 0)) {
		bpf_map_delete_elem(&neighbours, &key);
		goto uncount;
	}
	COUNT_NEIGHBOUR(slot, learned);
	return 0;
uncount:
	__sync_fetch_and_sub(&counts->neighbours, 1);
refused:
	COUNT_NEIGHBOUR(slot, refused);
	return 0;
}

/* what an advertisement said stays true when a solicitation is heard */
#define NEIGHBOUR_SAID (VNETD_NEIGHBOUR_ROUTER | VNETD_NEIGHBOUR_ADVERTISED)

/* Enters what was said. The common case, nothing new, is one look-up. */
CHECKED_ONCE int neighbour_learn(const struct neighbour_news *news, const struct vnetd_vnet *vnet)
{
	struct vnetd_neighbour *entry, wanted = {};
	__u64 now = now_ns(), before, after;
	struct vnetd_neighbour_key key;
	bool same;

	if (!news || !vnet)
		return 0;
	key = news->key;
	entry = bpf_map_lookup_elem(&neighbours, &key);
	if (!entry)
		return news->confirms ? 0 : neighbour_insert(news, vnet, now);
	before = neighbour_word(entry);
	__builtin_memcpy(wanted.mac, news->mac, VNETD_MAC_LEN);
	after = *(__u64 *)&wanted;
	/* the flags are the word's last two bytes */
	same = !(bpf_cpu_to_be64(before ^ after) >> 16);
	if (!same && news->confirms)
		return 0;
	wanted.flags = news->flags;
	if (same && !(news->flags & VNETD_NEIGHBOUR_ADVERTISED))
		wanted.flags |= entry->flags & NEIGHBOUR_SAID;
	after = *(__u64 *)&wanted;
	if (unlikely(before != after)) {
		if (__sync_val_compare_and_swap((__u64 *)entry, before, after) != before)
			return 0;
		if (!same && neighbour_fresh(entry, vnet, now))
			COUNT_NEIGHBOUR(news->slot, changed);
	}
	if (!same || (__s64)(now - entry->heard_ns) > (__s64)REFRESH_NS)
		entry->heard_ns = now;
	return 0;
}

/* The sweeper's question. An entry that is too old to be answered for is kept, to be seen, as long as a MAC is. */
static __always_inline bool neighbour_dead(const struct vnetd_neighbour_key *key,
					   const struct vnetd_neighbour *entry, __u64 now)
{
	struct vnetd_vnet *vnet = vnet_by_slot(entry->slot);
	__u64 age;

	if (!vnet || vnet->handle != key->handle || !entry->heard_ns)
		return true;
	age = vnet->age_ns > vnet->neighbour_age_ns ? vnet->age_ns : vnet->neighbour_age_ns;
	return (__s64)(now - entry->heard_ns) >= (__s64)age;
}

static __always_inline void neighbour_remove(struct vnetd_neighbour_key *key, __u32 slot)
{
	struct vnetd_vnet *vnet = vnet_by_slot(slot);
	struct vnetd_vnet_counts *counts = bpf_map_lookup_elem(&vnet_counts, &slot);

	if (bpf_map_delete_elem(&neighbours, key))
		return;
	if (counts && vnet && vnet->handle == key->handle)
		__sync_fetch_and_sub(&counts->neighbours, 1);
}

static __always_inline void neighbour_forget(__u32 handle, const __u8 *addr)
{
	struct vnetd_neighbour_key key = { .handle = handle };
	struct vnetd_neighbour *entry;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	entry = bpf_map_lookup_elem(&neighbours, &key);
	if (entry)
		entry->heard_ns = 0;
}

#endif
