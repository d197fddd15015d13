/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a packet in fragments gets through the kernel's reassembly and back to us.
 *
 * TC sees fragments, the stack reassembles them; what comes out must reach a program again, with no
 * daemon. A VXLAN device does that: the first fragment's UDP and VUDP headers are overwritten by a
 * UDP header to the device's port, a VXLAN header and an Ethernet header of no meaning, which are
 * together just as long. What was in the VUDP header is checked before, and goes along as the
 * VXLAN's id; the addresses of that Ethernet header are a secret of this host, since anyone can send
 * to the port, and the packet's IPv4 id, by which a copy is told (bpf/lib/dedupe.h). Later fragments
 * pass as they are.
 */
#ifndef VNETD_REASSEMBLY_H
#define VNETD_REASSEMBLY_H

#include "maps.h"

#define VXLAN_FLAG_VNI bpf_htonl(0x08000000)

/* Lies where UDP and VUDP headers were. */
struct reassembly_hdr {
	struct udphdr udp;
	__be32 vxlan_flags;
	/* the id is in the upper 24 bits */
	__be32 vxlan_id;
	__u8 secret[VNETD_SECRET_LEN];
	__u16 ip_id;
	__be16 type;
} VNETD_PACKED;

_Static_assert(sizeof(struct reassembly_hdr) == sizeof(struct udphdr) + VNETD_VUDP_HDR_LEN,
	       "in the place of the headers that it replaces");
_Static_assert(VNETD_SECRET_LEN + 2 == 2 * ETH_ALEN, "two MACs");
_Static_assert(VNETD_MAX_VNETS <= 1 << 12 && VNETD_MAX_UNDERLAYS <= 1 << 3, "fits an id");

/*
 * Of VFWD the header is longer, and what is overwritten of it goes along behind: in the place of the
 * rest of the inner IPv4 header and of the inner UDP header.
 */
struct reassembly_vfwd_hdr {
	struct reassembly_hdr hdr;
	__be32 source;
	__be16 ip_id;
	__be16 source_port;
	__u16 pad;
} VNETD_PACKED;

_Static_assert(sizeof(struct reassembly_vfwd_hdr) == sizeof(struct udphdr) + VNETD_VFWD_HDR_LEN,
	       "in the place of the headers that it replaces");

/* The same over IPv6. */
struct reassembly_vfwd6_hdr {
	struct reassembly_hdr hdr;
	__u8 source[16];
	/* as it lies in the flow label */
	__be16 number;
	__be16 source_port;
	__u8 pad[10];
} VNETD_PACKED;

_Static_assert(sizeof(struct reassembly_vfwd6_hdr) ==
		       sizeof(struct udphdr) + VNETD_VFWD_IPV6_HDR_LEN,
	       "in the place of the headers that it replaces");

#define REASSEMBLY_VFWD (1 << 16)

/* What goes along as the VXLAN's id: the slot, where the packet came in, and whether to all. */
static __always_inline __u32 reassembly_id(__u32 slot, __u32 underlay_index, bool to_group)
{
	return slot | underlay_index << 12 | (__u32)to_group << 15;
}

static __always_inline __u32 reassembly_slot(__u32 id)
{
	return id & 0xfff;
}

static __always_inline __u32 reassembly_underlay(__u32 id)
{
	return id >> 12 & 0x7;
}

static __always_inline bool reassembly_to_group(__u32 id)
{
	return id >> 15 & 1;
}

/* A first fragment of VFWD; the slot is 0 then, the message inside is looked at when it is whole. */
static __always_inline bool reassembly_is_vfwd(__u32 id)
{
	return id & REASSEMBLY_VFWD;
}

#endif
