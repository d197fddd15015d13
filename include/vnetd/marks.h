/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * skb->mark: every value of ours, in one place.
 *
 * A frame carries one of these only between two of our own programs, on devices that vnetd
 * made. It is cleared before the frame leaves to an underlay device (by the SA, where it goes by
 * one), to a bridge or to a guest, and a frame that comes from a guest with such a value is cleared
 * before anything reads it.
 *
 * On an xfrm interface the mark of what the kernel has decrypted is the SPI of its SA (struct
 * vnetd_spi), which is any number; it is cleared there in the same way.
 */
#ifndef VNETD_MARKS_H
#define VNETD_MARKS_H

enum vnetd_mark {
	VNETD_MARK_NONE = 0,
	/* the bits that say what a value of ours means, and those that say of what */
	VNETD_MARK_KIND = 0xfffff000,
	VNETD_MARK_VALUE = 0x00000fff,
	/* encapsulated already; the second pass only resolves the neighbour (bpf/encap.bpf.c).
	 * Value: index into underlay_list */
	VNETD_MARK_SECOND_PASS = 0x764e1000,
	/* an outer packet on its way through the segmenting veth pair (bpf/decap.bpf.c).
	 * Value: index into underlay_list */
	VNETD_MARK_SEGMENTED = 0x764e2000,
	/* an inner frame too large for the underlay, on its way through the fragmenting veth pair
	 * (bpf/oversize.bpf.c). Value: the vnet's slot */
	VNETD_MARK_OVERSIZE = 0x764e3000,
	/* a copy of an outer packet that is to become one fragment (bpf/oversize.bpf.c).
	 * Value: number of the fragment, index into underlay_list << VNETD_MARK_FRAGMENT_SHIFT */
	VNETD_MARK_FRAGMENT = 0x764e4000,
	VNETD_MARK_FRAGMENT_SHIFT = 6,
	/* a probe that the daemon sends just now (bpf/lib/probe.h): it did not come back */
	VNETD_MARK_PROBE = 0x764e5000,
	/* a frame that came out of a super-frame in the fragmenting pair, or from a direct port, and is to be sent as
	 * any other (bpf/encap.bpf.c), but that its source was learned, the vnet's budget charged for it, and this
	 * host's ports have it already */
	VNETD_MARK_PIECE = 0x764e6000,
	/* a packet between the addresses that name an SA, of a frame that is not IP; the second pass
	 * looks at it again and gives it to the xfrm interface (bpf/encap.bpf.c). Value: 0, or
	 * VNETD_MARK_TO_ALL */
	VNETD_MARK_SECURE_PASS = 0x764e7000,
	VNETD_MARK_TO_ALL = 1,
	/* a secure vnet's frame that is too large, on its way through the fragmenting pair, and back: nobody
	 * wants to be told, so the kernel is to fragment it behind ESP. Value: the vnet's slot */
	VNETD_MARK_SECURE_LARGE = 0x764eb000,
	VNETD_MARK_SECURE_WHOLE = 0x764ec000,
	/* a packet that goes to an xfrm interface. The policies there take no other: what the stack is made to
	 * forward to the addresses that name an SA, or a process sends to them, goes nowhere. The SA
	 * clears it. Bits that kube-proxy looks at (0x4000, 0x8000) are not set. */
	VNETD_MARK_ESP = 0x764e0001,
	/* with VNETD_MARK_SEGMENTED: a group packet that came inside VFWD, which is taken out */
	VNETD_MARK_FORWARDED = 0x00000800,
	VNETD_MARK_INDEX = 0x00000007,
	/* on their way through the relaying veth pair (bpf/relay.bpf.c). Value: index into
	 * underlay_list. A copy of a group packet that goes to the peers … */
	VNETD_MARK_RELAY = 0x764e8000,
	/* … a packet with VFWD from a peer … */
	VNETD_MARK_RELAY_IN = 0x764e9000,
	/* … a whole packet that leaves by that device, in fragments if need be */
	VNETD_MARK_RELAY_OUT = 0x764ea000,
	/* a copy of a frame for the group, to be sent to the places of the other IP family
	 * (bpf/encap.bpf.c). Kind and value have 16 bits each. Value: what tells copies, as in the
	 * IPv4 id of the first */
	VNETD_MARK_OTHER_FAMILY = 0x764f0000,
	VNETD_MARK_OTHER_FAMILY_KIND = 0xffff0000,
	/* all of the above begin with this */
	VNETD_MARK_OURS = 0x764e0000,
	VNETD_MARK_OURS_MASK = 0xfffe0000,
};

#endif
