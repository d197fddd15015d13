/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The MAC table: (vnet, MAC) -> next hop. Everything that changes it is here or in sweep.h.
 *
 * Invariants: an entry is made only together with its token in fdb_queue; the sweeper alone
 * deletes entries; vnet_counts and nexthop->entries count the entries that exist, alive or not.
 * Whether an entry is alive is decided when it is looked at, so ageing needs nobody.
 */
#ifndef VNETD_FDB_H
#define VNETD_FDB_H

#include "event.h"
#include "front.h"
#include "nexthop.h"
#include "watch.h"

static __always_inline bool is_group_mac(const __u8 *mac)
{
	return mac[0] & 1;
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	__u8 differ = 0;

	for (int i = 0; i < VNETD_MAC_LEN; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

static __always_inline bool fdb_fresh_at(__u32 flags, __u64 seen_ns, __u32 nexthop,
					 const struct vnetd_vnet *vnet, __u64 now)
{
	if (flags & VNETD_FDB_STATIC)
		return true;
	/* signed: another CPU's clock may be a tick ahead */
	if ((__s64)(now - seen_ns) >= (__s64)vnet->age_ns || !seen_ns)
		return false;
	/* a flush forgets what was heard of other hosts */
	return seen_ns >= vnet->flushed_ns || nexthop == VNETD_NEXTHOP_LOCAL;
}

/* Alive by time alone; the caller also compares the next hop's generation. */
static __always_inline bool fdb_fresh(const struct vnetd_fdb_entry *entry,
				      const struct vnetd_vnet *vnet, __u64 now)
{
	return fdb_fresh_at(entry->flags, entry->seen_ns, entry->nexthop, vnet, now);
}

static __always_inline bool fdb_found_fresh(const struct fdb_found *found,
					    const struct vnetd_vnet *vnet)
{
	return fdb_fresh_at(found->flags, found->seen_ns, found->nexthop, vnet, found->now);
}

#define HELD_TELL_NS 1000000000LL

/* "next hop" of an entry that the sweeper is deleting */
#define FDB_TOMBSTONE 0xffffffffU

/* next hop and generation are one word: read and changed together */
static __always_inline __u64 fdb_target(const struct vnetd_fdb_entry *entry)
{
	return *(const volatile __u64 *)entry;
}

/*
 * Points the entry elsewhere if it still points where the caller saw it. Only who succeeds changes
 * the counts: two CPUs that move one MAC at the same time must not both uncount the old place.
 */
static __always_inline bool fdb_point(struct vnetd_fdb_entry *entry, __u64 from, __u32 nexthop,
				      __u32 gen)
{
	if (__sync_val_compare_and_swap((__u64 *)entry, from, (__u64)gen << 32 | nexthop) != from)
		return false;
	fdb_changed();
	return true;
}

static __always_inline void fdb_uncount(__u32 slot, __u32 nexthop, __u32 gen)
{
	struct vnetd_vnet_counts *counts = bpf_map_lookup_elem(&vnet_counts, &slot);
	struct vnetd_nexthop *hop;

	if (nexthop == VNETD_NEXTHOP_LOCAL) {
		if (counts)
			__sync_fetch_and_sub(&counts->local, 1);
		return;
	}
	hop = nexthop_by_id(nexthop);
	if (hop && hop->gen == gen)
		__sync_fetch_and_sub(&hop->entries, 1);
}

/* What is to be entered. */
struct fdb_news {
	struct vnetd_fdb_key key;
	__u32 slot;
	/* VNETD_NEXTHOP_LOCAL or an id, and its generation */
	__u32 nexthop;
	__u32 gen;
	__u32 flags;
	__u32 pad;
	__u64 now;
};

/* Where the entries of this host, or of the host behind a next hop, are counted. */
static __always_inline __u32 *fdb_owner_count(const struct fdb_news *news,
					      struct vnetd_vnet_counts *counts)
{
	struct vnetd_nexthop *hop;

	if (news->nexthop == VNETD_NEXTHOP_LOCAL)
		return &counts->local;
	hop = nexthop_by_id(news->nexthop);
	if (!hop)
		return NULL;
	/* or the compiler adds the offset before the test, which the verifier refuses */
	barrier_var(hop);
	return &hop->entries;
}

struct vnetd_sweeper {
	struct bpf_timer timer;
	__u32 nexthop_cursor;
	/* in fdb_queue */
	__u32 tokens;
};

VNETD_MAP(sweeper, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_sweeper, 1, 0);

/* Tokens that came or went: by it the sweeper knows how much there is to do. */
static __always_inline void fdb_tokens(__s32 more)
{
	__u32 zero = 0;
	struct vnetd_sweeper *sweep = bpf_map_lookup_elem(&sweeper, &zero);

	if (sweep)
		__sync_fetch_and_add(&sweep->tokens, more);
}

/* A MAC that is not in the table. Returns 0 or why it was refused. */
CHECKED_ONCE int fdb_insert(const struct fdb_news *news)
{
	struct vnetd_fdb_key key;
	struct vnetd_fdb_entry entry = {};
	struct vnetd_vnet_counts *counts;
	struct vnetd_vnet *vnet;
	__u32 slot, *owned, reason;
	long err;

	if (!news)
		return VNETD_REFUSED_TABLE_FULL;
	key = news->key;
	slot = news->slot;
	vnet = vnet_by_slot(slot);
	counts = bpf_map_lookup_elem(&vnet_counts, &slot);
	if (!vnet || !counts)
		return VNETD_REFUSED_TABLE_FULL;
	owned = fdb_owner_count(news, counts);
	if (!owned)
		return VNETD_REFUSED_TABLE_FULL;

	/* a look before the atomic: a flood that is refused anyway must not fight for the line */
	reason = VNETD_REFUSED_HOST_LIMIT;
	if (*(volatile __u32 *)owned >= vnet->max_entries_per_host)
		return reason;
	if (__sync_fetch_and_add(owned, 1) >= vnet->max_entries_per_host)
		goto uncount_owner;
	reason = VNETD_REFUSED_VNET_LIMIT;
	if (__sync_fetch_and_add(&counts->entries, 1) >= vnet->max_entries)
		goto uncount_vnet;

	entry.nexthop = news->nexthop;
	entry.gen = news->gen;
	entry.slot = slot;
	entry.flags = news->flags;
	entry.seen_ns = news->now;
	reason = VNETD_REFUSED_TABLE_FULL;
	err = bpf_map_update_elem(&fdb, &key, &entry, BPF_NOEXIST);
	if (err == -17 /* EEXIST: another CPU was first */)
		reason = VNETD_OK;
	if (err)
		goto uncount_vnet;
	if (bpf_map_push_elem(&fdb_queue, &key, 0)) {
		bpf_map_delete_elem(&fdb, &key);
		goto uncount_vnet;
	}
	fdb_tokens(1);
	COUNT_TABLE(learned);
	return VNETD_OK;

uncount_vnet:
	__sync_fetch_and_sub(&counts->entries, 1);
uncount_owner:
	__sync_fetch_and_sub(owned, 1);
	return reason;
}

/* Whether two next hops are paths to one host: its primary path changed, no MAC moved. */
static __always_inline bool same_host(__u32 from, __u32 to)
{
	struct vnetd_nexthop *a = nexthop_by_id(from), *b = nexthop_by_id(to);

	return a && b && a->other && b->other && a->key.handle == b->key.handle &&
	       same_address(a->host, b->host);
}

/*
 * A MAC that moves to and fro is two guests, or a loop. It is held where it is, as long as it is heard
 * there: following it at every frame would help neither, and cost every host the work. Frames go on.
 * A guest that really moves, a few times in a row, is followed at once.
 */
static __always_inline bool fdb_held(const struct vnetd_fdb_entry *entry, __u64 now)
{
	return entry->moves >= VNETD_FLAP_MOVES &&
	       (__s64)(now - entry->window_ns) < VNETD_FLAP_HOLD_MS * NS_PER_MS &&
	       (__s64)(now - entry->seen_ns) < VNETD_FLAP_SILENT_MS * NS_PER_MS;
}

/* Tells the daemon, once a second, where a MAC that is held was seen as well. */
static __always_inline void fdb_tell_held(struct vnetd_fdb_entry *entry,
					  const struct fdb_news *news, __u32 from)
{
	if (entry->other == news->nexthop && (__s64)(news->now - entry->told_ns) < HELD_TELL_NS)
		return;
	entry->other = news->nexthop;
	entry->told_ns = news->now;
	event_moved(&news->key, VNETD_EVENT_HELD, news->slot, from, news->nexthop);
}

/* Counts a move. After a hold one move is allowed, and the next hold begins. */
static __always_inline void fdb_count_move(struct vnetd_fdb_entry *entry, __u64 now)
{
	bool was_held = entry->moves >= VNETD_FLAP_MOVES;
	__s64 window = VNETD_FLAP_WINDOW_MS * NS_PER_MS;

	if ((__s64)(now - entry->window_ns) > window) {
		entry->moves = 1;
		entry->window_ns = now;
		return;
	}
	entry->moves = was_held ? VNETD_FLAP_MOVES : entry->moves + 1;
	/* the hold counts from its beginning */
	if (entry->moves >= VNETD_FLAP_MOVES)
		entry->window_ns = now;
}

/* A MAC whose entry points elsewhere, or nowhere any more. */
CHECKED_ONCE int fdb_move(const struct fdb_news *news)
{
	struct vnetd_fdb_key key;
	struct vnetd_fdb_entry *entry;
	struct vnetd_vnet_counts *counts;
	struct vnetd_vnet *vnet;
	__u32 slot, from, *owned;
	__u64 target;
	bool alive;

	if (!news)
		return VNETD_OK;
	key = news->key;
	slot = news->slot;
	entry = bpf_map_lookup_elem(&fdb, &key);
	vnet = vnet_by_slot(slot);
	counts = bpf_map_lookup_elem(&vnet_counts, &slot);
	if (!entry || !vnet || !counts)
		return VNETD_OK;
	if (!(news->flags & VNETD_FDB_STATIC)) {
		if (entry->flags & VNETD_FDB_PINNED)
			return VNETD_REFUSED_STATIC;
		/* what somebody says takes nothing configured; a frame shows where the MAC is */
		if (entry->flags & VNETD_FDB_STATIC && news->flags & VNETD_FDB_ANNOUNCED)
			return VNETD_OK;
	}

	alive = fdb_fresh(entry, vnet, news->now);
	target = fdb_target(entry);
	from = (__u32)target;
	owned = fdb_owner_count(news, counts);
	/* the sweeper is about to delete it: the next frame enters it anew */
	if (from == FDB_TOMBSTONE)
		return VNETD_OK;
	if (unlikely(alive && fdb_held(entry, news->now) && !(news->flags & VNETD_FDB_STATIC) &&
		     !same_host(from, news->nexthop))) {
		fdb_tell_held(entry, news, from);
		return VNETD_OK;
	}
	if (!owned || !fdb_point(entry, target, news->nexthop, news->gen))
		return VNETD_OK;
	__sync_fetch_and_add(owned, 1);
	fdb_uncount(slot, from, target >> 32);
	/* what is configured to be on this host stays so when it goes to another port */
	if (from != VNETD_NEXTHOP_LOCAL || news->nexthop != VNETD_NEXTHOP_LOCAL ||
	    !(entry->flags & VNETD_FDB_STATIC))
		entry->flags = news->flags;
	entry->seen_ns = news->now;
	fdb_changed();

	if (alive && same_host(from, news->nexthop)) {
		/* where the MAC is has not changed */
	} else if (alive && from == news->nexthop) {
		/* from one port to another: of this host alone, the others need not know */
		COUNT_TABLE(moved);
		fdb_count_move(entry, news->now);
		return VNETD_OK;
	} else if (alive) {
		COUNT_TABLE(moved);
		fdb_count_move(entry, news->now);
		event_moved(&key, VNETD_EVENT_MOVED, slot, from, news->nexthop);
	} else {
		COUNT_TABLE(learned);
		watch_mac(&key, VNETD_EVENT_LEARNED, slot, news->nexthop);
	}
	if (news->nexthop == VNETD_NEXTHOP_LOCAL)
		event_local_new(&key, slot, from);
	return VNETD_OK;
}

/*
 * Enters what was seen or said. Returns VNETD_OK, or VNETD_REFUSED_* when there is no room.
 * The common case, nothing new, is one look-up and no write.
 */
static __always_inline __u32 fdb_learn(const struct fdb_news *news, const struct vnetd_vnet *vnet)
{
	struct vnetd_fdb_entry *entry = bpf_map_lookup_elem(&fdb, &news->key);
	__u32 reason;

	if (likely(entry)) {
		if (likely(entry->nexthop == news->nexthop && entry->gen == news->gen)) {
			bool local = news->nexthop == VNETD_NEXTHOP_LOCAL;
			bool back = local && !fdb_fresh(entry, vnet, news->now);

			if ((__s64)(news->now - entry->seen_ns) > (__s64)REFRESH_NS || back)
				entry->seen_ns = news->now;
			if (unlikely(entry->flags != news->flags) &&
			    !(entry->flags & VNETD_FDB_STATIC)) {
				entry->flags = news->flags;
				fdb_changed();
			}
			if (unlikely(back))
				event_local_new(&news->key, news->slot, VNETD_NEXTHOP_LOCAL);
			return VNETD_OK;
		}
		return fdb_move(news);
	}
	reason = fdb_insert(news);
	if (reason)
		return reason;
	/* told here, where the stack has room */
	watch_mac(&news->key, VNETD_EVENT_LEARNED, news->slot, news->nexthop);
	if (news->nexthop == VNETD_NEXTHOP_LOCAL)
		event_local_new(&news->key, news->slot, VNETD_NEXTHOP_LOCAL);
	return VNETD_OK;
}

/* The same for the source of a frame: news has no flags, and the clock's time. */
static __always_inline __u32 fdb_learn_again(const struct fdb_news *news,
					     const struct vnetd_vnet *vnet)
{
	struct fdb_found *found = fdb_look(&news->key, news->now);

	if (likely(found)) {
		if (likely(found->nexthop == news->nexthop && found->gen == news->gen &&
			   (!found->flags || found->flags & VNETD_FDB_STATIC) &&
			   (__s64)(news->now - found->seen_ns) <= (__s64)REFRESH_NS &&
			   (news->nexthop != VNETD_NEXTHOP_LOCAL || fdb_found_fresh(found, vnet))))
			return VNETD_OK;
		/* to be looked up again when it is entered */
		found->now = 0;
	}
	return fdb_learn(news, vnet);
}

#endif
