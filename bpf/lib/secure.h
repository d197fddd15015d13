/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A secure vnet's frames on their way out: to which members, by which SA. Shared by bpf/encap.bpf.c and
 * bpf/oversize.bpf.c.
 *
 * What is here gives packets to xfrm interfaces alone. Without a policy or an SA the kernel sends
 * nothing; without keys, or an interface, nothing gets that far.
 */
#ifndef VNETD_SECURE_H
#define VNETD_SECURE_H

#include "esp.h"
#include "send.h"

/* instead of a path: that member has no keys, or its device is down */
#define NO_PATH 0xffffffffU

/* The place by which a next hop is sent to, if that can be by an SA, or NULL. */
static __always_inline struct vnetd_underlay *secure_way(const struct vnetd_nexthop *hop,
							 __u32 handle)
{
	struct vnetd_underlay *underlay;

	if (!(hop->flags & VNETD_NEXTHOP_USED) || hop->key.handle != handle || !hop->spi)
		return NULL;
	underlay = underlay_to(&hop->key);
	return underlay && underlay->flags & VNETD_UNDERLAY_UP && underlay->esp ? underlay : NULL;
}

/* Given the path in use: that one, or the other one where only that has keys. 0: none has. */
static __always_inline __u32 secure_path(__u32 id, __u32 handle)
{
	struct vnetd_nexthop *hop = nexthop_by_id(id), *other;

	if (!hop)
		return 0;
	if (likely(secure_way(hop, handle)))
		return id;
	other = nexthop_other(hop);
	return other && secure_way(other, handle) ? hop->other : 0;
}

CHECKED_ONCE __u32 secure_host_path(__u32 id, __u32 handle)
{
	return secure_path(id, handle);
}

/*
 * The path to a member; NO_PATH: none; 0: there is no member of that number. It calls nothing: a call more
 * is more stack than Linux 6.1 has left here.
 */
CHECKED_ONCE __u32 secure_member_path(__u32 handle, __u32 number)
{
	struct vnetd_member_key key = { .handle = handle, .number = number };
	struct vnetd_secure_member *member = bpf_map_lookup_elem(&secure_members, &key);
	struct vnetd_nexthop *hop;
	__u32 id;

	if (!member)
		return 0;
	id = member->nexthop;
	hop = nexthop_by_id(id);
	if (!hop || hop->gen != member->gen)
		return NO_PATH;
	if (unlikely(hop->other))
		id = nexthop_choose(id);
	return secure_path(id, handle) ?: NO_PATH;
}

/* The longest frame by a path. */
static __always_inline __u32 secure_largest(const struct vnetd_vnet *vnet,
					    struct vnetd_nexthop *hop,
					    const struct vnetd_underlay *underlay)
{
	return esp_largest(path_mtu(hop, underlay), esp_fixed(vnet, underlay), vnet->esp_block);
}

static __always_inline struct encap *encap_of_members(struct member_walk *walk)
{
	return (void *)walk - offsetof(struct encap, members);
}

/* A callback of bpf_loop: what is known of one member? */
static long look_at_member(__u32 number, void *context)
{
	struct member_walk *walk = context;
	__u32 id = secure_member_path(walk->handle, number), largest;
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;
	struct encap *e;

	if (!id)
		return 1;
	walk->any = 1;
	hop = nexthop_by_id(id);
	underlay = hop ? secure_way(hop, walk->handle) : NULL;
	if (!underlay) {
		walk->without_keys = 1;
		return 0;
	}
	if (underlay->family == VNETD_FAMILY_IPV6)
		walk->place6 = PLACE_SECURE | (underlay->index & PLACE_INDEX);
	else
		walk->place4 = PLACE_SECURE | (underlay->index & PLACE_INDEX);
	e = encap_of_members(walk);
	largest = secure_largest(e->vnet, hop, underlay);
	if (largest < e->to.largest)
		e->to.largest = largest;
	return 0;
}

/* Fills in what is to be known before a frame is sent to all members; e is new. */
static __always_inline void look_at_members(struct encap *e, __u32 handle)
{
	e->members.handle = handle;
	e->to.largest = 0xffff;
	bpf_loop(VNETD_MAX_VNET_MEMBERS, look_at_member, &e->members, 0);
}

/* The path to the host that a frame is for; NULL: there are no keys. */
static __always_inline struct vnetd_underlay *secure_destination(struct encap *e, __u32 handle)
{
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;

	e->to.nexthop = secure_host_path(e->to.nexthop, handle);
	hop = e->to.nexthop ? nexthop_by_id(e->to.nexthop) : NULL;
	underlay = hop ? secure_way(hop, handle) : NULL;
	if (!underlay)
		return NULL;
	e->to.port = hop->port;
	e->to.largest = secure_largest(e->vnet, hop, underlay);
	return underlay;
}

#endif
