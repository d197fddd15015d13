/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The last look at what leaves in clear and was not sent at once: on its way through one of our veth
 * pairs, as a fragment or a copy. The vnet whose frame it is may have become secure meanwhile; then it goes no
 * further. Nor does this host, as a forwarder, carry such a vnet's frames for others.
 */
#ifndef VNETD_CLEAR_H
#define VNETD_CLEAR_H

#include "maps.h"

/*
 * Whether the message at an offset is a frame of a vnet that is secure here; inside: the bytes of VFWD, which
 * may be in front of it.
 */
CHECKED_ONCE int carries_secure(struct __sk_buff *skb, __u32 offset, __u32 inside)
{
	__u32 id[VNETD_ID_LEN / 4], *slot;
	struct vnetd_vnet *vnet;
	__be16 message;

	if (bpf_skb_load_bytes(skb, offset, &message, sizeof(message)))
		return false;
	if (message == bpf_htons(VNETD_MSG_VFWD)) {
		offset += inside;
		if (bpf_skb_load_bytes(skb, offset, &message, sizeof(message)))
			return false;
	}
	if (message != bpf_htons(VNETD_MSG_VUDP) ||
	    bpf_skb_load_bytes(skb, offset + offsetof(struct vnetd_vudp_hdr, vnet), id, sizeof(id)))
		return false;
	slot = bpf_map_lookup_elem(&vnet_ids, id);
	vnet = slot ? vnet_by_slot(*slot) : NULL;
	return vnet && vnet->security != VNETD_SECURITY_NONE;
}

#endif
