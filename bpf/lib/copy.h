/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies that leave by another device: all of them are made here.
 *
 * `vnetd trace` loads these programs once more, with maps of its own for all that they write, and runs them with
 * BPF_PROG_TEST_RUN. What they return is not acted on there, but a clone would leave: so where dry_run
 * is set it is noted instead. The verifier knows the constant and takes the other branch out, and
 * what goes to one host alone, which most frames do, never gets here.
 */
#ifndef VNETD_COPY_H
#define VNETD_COPY_H

#include "maps.h"

const volatile __u32 dry_run __weak = 0;
/* keys in constants, not on the stack: Linux 6.1 has no room for more there */
const volatile __u32 dry_copies_key __weak = 0;

/* Written by dry runs alone; the one that is pinned stays empty. */
VNETD_MAP(dry_copies, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_dry_copies, 1, 0);

static __always_inline long note_copy(struct __sk_buff *skb, __u32 ifindex, __u64 flags)
{
	struct vnetd_dry_copies *copies =
		bpf_map_lookup_elem(&dry_copies, (const void *)&dry_copies_key);
	struct vnetd_dry_copy *copy;
	__u32 at;

	if (!copies)
		return 0;
	at = copies->count;
	copies->count = at + 1;
	if (at >= VNETD_DRY_COPIES)
		return 0;
	copy = &copies->copy[at];
	copy->ifindex = ifindex;
	copy->ingress = flags & BPF_F_INGRESS;
	copy->mark = skb->mark;
	copy->len = skb->len;
	bpf_skb_load_bytes(skb, 0, copy->head, sizeof(copy->head));
	return 0;
}

/* bpf_clone_redirect(), or a note of it. */
static __always_inline long copy_redirect(struct __sk_buff *skb, __u32 ifindex, __u64 flags)
{
	if (unlikely(dry_run))
		return note_copy(skb, ifindex, flags);
	return bpf_clone_redirect(skb, ifindex, flags);
}

#endif
