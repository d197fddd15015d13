/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * skb->mark: every value of ours, in one place.
 *
 * A frame carries one of these only between two of our own programs, on devices that vnetd
 * made. It is cleared before the frame leaves to an underlay device, to a bridge or to a guest,
 * and a frame that comes from a guest with such a value is cleared before anything reads it.
 */
#ifndef VNETD_MARKS_H
#define VNETD_MARKS_H

enum vnetd_mark {
	VNETD_MARK_NONE = 0,
	/* the bits that say what a value of ours means; the low byte is an index into
	 * underlay_list */
	VNETD_MARK_KIND = 0xffffff00,
	VNETD_MARK_INDEX = 0x000000ff,
	/* encapsulated already; the second pass only resolves the neighbour (bpf/encap.bpf.c) */
	VNETD_MARK_SECOND_PASS = 0x764e0100,
	/* an outer packet on its way through the segmenting veth pair (bpf/decap.bpf.c) */
	VNETD_MARK_SEGMENTED = 0x764e0200,
};

#endif
