/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way to bpf/relay.bpf.c: copies of group packets for the peers and for members that use no
 * multicast, and what came from peers. All of it passes a veth pair of ours, whose sending end has its
 * offloads off: there it is single packets whose checksums are filled in.
 */
#ifndef VNETD_FORWARD_H
#define VNETD_FORWARD_H

#include "outer.h"

/* Where what is sent to the group must be sent besides, or NULL: nowhere. */
static __always_inline struct vnetd_meta *forward_wanted(void)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	return m && m->relay_out && (m->peers || m->unicast_members) ? m : NULL;
}

/* A copy of the outer packet, which is whole, to the group; by the device with this index. */
static __always_inline void forward_copy(struct __sk_buff *skb, __u32 index)
{
	struct vnetd_meta *m = forward_wanted();

	if (!m)
		return;
	skb->mark = VNETD_MARK_RELAY | (index & VNETD_MARK_INDEX);
	bpf_clone_redirect(skb, m->relay_out, 0);
	skb->mark = VNETD_MARK_NONE;
}

static __always_inline bool sends_to_group(const struct vnetd_underlay *underlay)
{
	return (underlay->flags & (VNETD_UNDERLAY_UP | VNETD_UNDERLAY_NO_GROUP)) ==
	       VNETD_UNDERLAY_UP;
}

#endif
