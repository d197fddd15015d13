/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Next hops: one record for each (vnet, host address, underlay device) that was heard.
 *
 * Ids come from the queue nexthop_free. A record that is given back gets a new generation, so
 * that table entries that still point to it are known to be stale.
 */
#ifndef VNETD_NEXTHOP_H
#define VNETD_NEXTHOP_H

#include "count.h"
#include "hint.h"

/* how exact heard_ns and seen_ns are: written at most this often, to keep their cache line quiet */
#define REFRESH_NS 100000000ULL
/* a path that was silent for so long while another of the same host was not is not used */
#define PATH_SILENT_NS 1000000000ULL

static __always_inline bool same_address(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]));
}

static __always_inline bool is_own_address(const __u8 *addr)
{
	bool own = false;

	for (__u32 i = 0; i < VNETD_MAX_UNDERLAYS; i++) {
		struct vnetd_underlay *underlay = underlay_by_index(i);

		if (underlay && same_address(underlay->addr, addr))
			own = true;
	}
	return own;
}

struct nexthop_made {
	/* 0: refused, for this reason */
	__u32 id;
	__u32 reason;
};

/* Makes a record for a key that has none. The slot's vnet must be the key's. */
CHECKED_ONCE int nexthop_make(const struct vnetd_nexthop_key *wanted, __u32 slot,
			      struct nexthop_made *made)
{
	struct vnetd_vnet_counts *counts;
	struct vnetd_nexthop *nexthop;
	struct vnetd_vnet *vnet;
	struct vnetd_nexthop_key key;
	__u32 id = 0, *other;

	if (!wanted || !made)
		return 0;
	/* of what a caller hands over Linux 6.1 makes no map's key */
	key = *wanted;
	made->id = 0;
	made->reason = VNETD_DROP_OWN_ECHO;
	if (is_own_address(key.addr))
		return 0;

	vnet = vnet_by_slot(slot);
	counts = bpf_map_lookup_elem(&vnet_counts, &slot);
	made->reason = VNETD_REFUSED_VNET_HOSTS;
	if (!vnet || !counts)
		return 0;
	if (__sync_fetch_and_add(&counts->hosts, 1) >= vnet->max_hosts)
		goto refuse;

	made->reason = VNETD_REFUSED_HOSTS_FULL;
	if (bpf_map_pop_elem(&nexthop_free, &id))
		goto refuse;
	nexthop = nexthop_by_id(id);
	if (!nexthop)
		goto refuse;

	nexthop->key = key;
	nexthop->slot = slot;
	nexthop->encap = 0;
	nexthop->entries = 0;
	nexthop->capabilities = 0;
	nexthop->mtu = 0;
	nexthop->port = 0;
	nexthop->spi = 0;
	nexthop->flood_ns = 0;
	nexthop->varp_ns = 0;
	nexthop->heard_ns = now_ns();
	__builtin_memset(nexthop->host, 0, sizeof(nexthop->host));
	nexthop->other = 0;
	nexthop->path = 0;
	nexthop->sent_ns = 0;
	nexthop->path_mtu = 0;
	nexthop->path_news = 0;
	nexthop->route = 0;
	/* last: by a hint it may be found from here on */
	nexthop->flags = VNETD_NEXTHOP_USED;
	if (bpf_map_update_elem(&nexthop_ids, &key, &id, BPF_NOEXIST) == 0) {
		made->id = id;
		made->reason = VNETD_OK;
		return 0;
	}

	/* another CPU was first, or the map is full; an entry that found it meanwhile is stale */
	nexthop->flags = 0;
	nexthop->gen += 1;
	bpf_map_push_elem(&nexthop_free, &id, 0);
	other = bpf_map_lookup_elem(&nexthop_ids, &key);
	if (other) {
		made->id = *other;
		made->reason = VNETD_OK;
	}
refuse:
	__sync_fetch_and_sub(&counts->hosts, 1);
	return 0;
}

/*
 * Finds or makes the record of a host that was heard. Returns its id, or 0 with *reason set:
 * VNETD_DROP_OWN_ECHO, or why there is no room.
 */
static __always_inline __u32 nexthop_heard(const struct vnetd_nexthop_key *key, __u32 slot,
					   __u32 *reason)
{
	__u32 *found = bpf_map_lookup_elem(&nexthop_ids, key);
	struct nexthop_made made = {};

	if (likely(found))
		return *found;
	nexthop_make(key, slot, &made);
	*reason = made.reason;
	return made.id;
}

/* Of a host that was heard its id, or 0: for what is done with every frame. */
static __always_inline __u32 nexthop_known(const struct vnetd_nexthop_key *key)
{
	__u32 *hint = nexthop_hint_at(key), id = hint ? *hint : 0, *found;
	struct vnetd_nexthop *hop = nexthop_by_id(id);

	if (likely(hop && nexthop_is(hop, key)))
		return id;
	found = bpf_map_lookup_elem(&nexthop_ids, key);
	if (!found)
		return 0;
	if (hint)
		*hint = *found;
	return *found;
}

/* nexthop_heard() for what comes with every frame. */
static __always_inline __u32 nexthop_heard_again(const struct vnetd_nexthop_key *key, __u32 slot,
						 __u32 *reason)
{
	struct nexthop_made made = {};
	__u32 id = nexthop_known(key);

	if (likely(id))
		return id;
	nexthop_make(key, slot, &made);
	*reason = made.reason;
	return made.id;
}

/* ---- several paths to one host ------------------------------------------------------------ */

/* The other path that a record names, if it is one to the same host; or NULL. */
static __always_inline struct vnetd_nexthop *nexthop_other(const struct vnetd_nexthop *hop)
{
	struct vnetd_nexthop *other = nexthop_by_id(hop->other);

	if (!other || !(other->flags & VNETD_NEXTHOP_USED) ||
	    other->key.handle != hop->key.handle || !same_address(other->host, hop->host))
		return NULL;
	return other;
}

/*
 * The record that MACs behind this host point to, whichever path they were heard by: its primary
 * path's. So what comes by one path and then by another moves nothing.
 */
CHECKED_ONCE __u32 nexthop_primary(__u32 id)
{
	struct vnetd_nexthop *hop = nexthop_by_id(id), *other;

	if (!hop || !hop->other || !(hop->flags & VNETD_NEXTHOP_SECONDARY))
		return id;
	other = nexthop_other(hop);
	return other && !(other->flags & VNETD_NEXTHOP_SECONDARY) ? hop->other : id;
}

static __always_inline bool nexthop_device_up(const struct vnetd_nexthop *hop)
{
	struct vnetd_underlay *underlay = underlay_to(&hop->key);

	return underlay && underlay->flags & VNETD_UNDERLAY_UP;
}

/* The primary path, up and heard lately, and that it is sent by was noted: nothing to be done. */
static __always_inline bool nexthop_in_order(const struct vnetd_nexthop *hop,
					     const struct vnetd_underlay *underlay, __u64 now)
{
	return !(hop->flags & VNETD_NEXTHOP_SECONDARY) && underlay &&
	       underlay->flags & VNETD_UNDERLAY_UP &&
	       (__s64)(now - hop->heard_ns) < (__s64)PATH_SILENT_NS &&
	       (__s64)(now - hop->sent_ns) < (__s64)REFRESH_NS;
}

/*
 * The path to send by, given the host's primary path: that one, unless its device is down, or the
 * other was heard for PATH_SILENT_NS after it was last heard. Group frames come by all paths that
 * work, so a path that works is never that far behind one that brings them; where only frames to
 * one host come, they come by a path that works.
 */
static __always_inline __u32 nexthop_choose(__u32 id)
{
	struct vnetd_nexthop *hop = nexthop_by_id(id), *other;
	__u64 now = now_ns();
	bool up;

	if (!hop)
		return id;
	/* the daemon asks who is sent to and not heard whether it is there */
	if ((__s64)(now - hop->sent_ns) > (__s64)REFRESH_NS)
		hop->sent_ns = now;
	other = nexthop_other(hop);
	if (!other)
		return id;
	up = nexthop_device_up(hop);
	if (up != nexthop_device_up(other))
		return up ? id : hop->other;
	/* an entry that is older than the choice of the primary path */
	if (hop->flags & VNETD_NEXTHOP_SECONDARY)
		return (__s64)(hop->heard_ns - other->heard_ns) > (__s64)PATH_SILENT_NS
			       ? id
			       : hop->other;
	return (__s64)(other->heard_ns - hop->heard_ns) > (__s64)PATH_SILENT_NS ? hop->other : id;
}

CHECKED_ONCE __u32 nexthop_in_use(__u32 id)
{
	return nexthop_choose(id);
}

/* Gives a record back. Only the sweeper and the control program call this. */
static __always_inline void nexthop_release(__u32 id, struct vnetd_nexthop *nexthop)
{
	struct vnetd_vnet *vnet = vnet_by_slot(nexthop->slot);

	bpf_map_delete_elem(&nexthop_ids, &nexthop->key);
	if (vnet && vnet->handle == nexthop->key.handle) {
		__u32 slot = nexthop->slot;
		struct vnetd_vnet_counts *counts = bpf_map_lookup_elem(&vnet_counts, &slot);

		if (counts)
			__sync_fetch_and_sub(&counts->hosts, 1);
	}
	nexthop->gen += 1;
	nexthop->flags = 0;
	nexthop->spi = 0;
	nexthop->entries = 0;
	nexthop->other = 0;
	bpf_map_push_elem(&nexthop_free, &id, 0);
}

#endif
