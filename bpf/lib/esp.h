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

#endif
