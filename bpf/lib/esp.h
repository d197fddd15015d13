/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A secure vnet's packets: between which addresses they are given to the xfrm interface, and how long
 * they may be.
 *
 * The headers are those of VUDP, but the addresses name the SA (enum vnetd_esp); the kernel's ESP, in
 * mode BEET, puts the real ones in their place. Should such a packet ever leave by another device than
 * the interface, those addresses are nobody's.
 */
#ifndef VNETD_ESP_H
#define VNETD_ESP_H

#include "outer.h"

/*
 * The longest frame whose packet is at most mtu bytes long when it is encrypted; 0: none is. ESP's
 * payload is padded to whole blocks, and two bytes of its trailer are part of that.
 */
static __always_inline __u32 esp_largest(__u32 mtu, __u32 fixed, __u32 block)
{
	const __u32 trailer = 2, headers = sizeof(struct udphdr) + VNETD_VUDP_HDR_LEN;
	__u32 padded;

	if (mtu < fixed || !block)
		return 0;
	padded = (mtu - fixed) & ~(block - 1);
	return padded < trailer + headers ? 0 : padded - trailer - headers;
}

static __always_inline __u32 esp_fixed(const struct vnetd_vnet *vnet,
				       const struct vnetd_underlay *underlay)
{
	return underlay->family == VNETD_FAMILY_IPV6 ? vnet->esp_fixed6 : vnet->esp_fixed4;
}

/* The addresses that name the SA of a next hop, in headers that are written but for them. */
static __always_inline void esp_name(struct outer *out, __u32 form, __u32 ifindex, __u32 nexthop)
{
	if (form & FORM_IPV6) {
		__be32 *source = out->udp6.ip.saddr.s6_addr32,
		       *destination = out->udp6.ip.daddr.s6_addr32;

		source[0] = bpf_htonl(VNETD_ESP_PREFIX6);
		source[1] = 0;
		source[2] = bpf_htonl(ifindex);
		source[3] = 0;
		destination[0] = bpf_htonl(VNETD_ESP_PREFIX6);
		destination[1] = 0;
		destination[2] = bpf_htonl(ifindex);
		destination[3] = bpf_htonl(nexthop);
		return;
	}
	out->udp4.ip.saddr = bpf_htonl(VNETD_ESP_LOCAL4);
	out->udp4.ip.daddr = bpf_htonl(VNETD_ESP_REMOTE4 + nexthop);
	out->udp4.ip.check = 0;
	out->udp4.ip.check = ipv4_checksum(&out->udp4.ip);
}

#endif
