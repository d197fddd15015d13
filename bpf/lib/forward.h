/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way to bpf/relay.bpf.c: copies of group packets for the peers and for members that use no
 * multicast, and what came from peers. All of it passes a veth pair of ours, whose sending end has its
 * offloads off: there it is single packets whose checksums are filled in.
 */
#ifndef VNETD_FORWARD_H
#define VNETD_FORWARD_H

#include "copy.h"
#include "outer.h"

static __always_inline __u32 forward_bit(__u32 family)
{
	return VNETD_FORWARD_IPV4 << (family >> 1 & 1);
}

_Static_assert(VNETD_FORWARD_IPV4 << 1 == VNETD_FORWARD_IPV6, "forward_bit");

/* By which families what is sent to the group is sent besides: enum vnetd_forward. */
static __always_inline __u32 forward_families(void)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	return m && m->relay_out ? m->forward : 0;
}

/* Where what is sent to a family's group must be sent besides, or NULL: nowhere. */
static __always_inline struct vnetd_meta *forward_wanted(__u32 family)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	return m && m->relay_out && m->forward & forward_bit(family) ? m : NULL;
}

/* A copy of the outer packet, which is whole, to the group; by the device with this index. */
static __always_inline void forward_copy(struct __sk_buff *skb, __u32 index, __u32 family)
{
	struct vnetd_meta *m = forward_wanted(family);

	if (!m)
		return;
	skb->mark = VNETD_MARK_RELAY | (index & VNETD_MARK_INDEX);
	copy_redirect(skb, m->relay_out, 0);
	skb->mark = VNETD_MARK_NONE;
}

/* Whether a host of the link sent a group packet itself; another's came by a forwarder. */
static __always_inline bool is_near(const union address *source,
				    const struct vnetd_underlay *underlay)
{
	return is_link_local(source) || on_subnet(source, underlay);
}

/* Whether that is forwarded: elsewhere a link-local address would name another host. */
static __always_inline bool is_forwarded(const union address *source)
{
	return !is_link_local(source);
}

static __always_inline bool sends_to_group(const struct vnetd_underlay *underlay)
{
	return (underlay->flags & (VNETD_UNDERLAY_UP | VNETD_UNDERLAY_NO_GROUP)) ==
	       VNETD_UNDERLAY_UP;
}

#endif
