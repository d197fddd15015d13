/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How bpf/xdp.bpf.c hands a frame to bpf/decap.bpf.c: by metadata in front of it (struct vnetd_xdp_meta) and by a
 * mark in place of its destination MAC.
 *
 * Metadata alone would not do. The kernel keeps it beside the packet for as long as that lives, so a frame that
 * comes in again would be taken for one that has just come from XDP; and some of what may happen to a
 * packet on its way to TC loses it, after which the frame would be the host's own. With the mark it is
 * neither: the MAC is put back as soon as the frame is known, and what has the mark alone is dropped and
 * counted.
 *
 * Nothing in bpf/decap.bpf.c may write to packets directly: the kernel copies a packet that others look at
 * (tcpdump) before such a program runs, and the copy has no metadata.
 */
#ifndef VNETD_XDP_H
#define VNETD_XDP_H

#include "receive.h"

static __always_inline bool xdp_mark(__u8 *mac)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (!m)
		return false;
	mac[0] = VNETD_XDP_MARK_0;
	mac[1] = VNETD_XDP_MARK_1;
	__builtin_memcpy(mac + 2, m->reassembly_secret, 4);
	return true;
}

/* it is no frame of XDP's, or one that is to be looked at like any other */
#define NOT_FROM_XDP ((__u32)VNETD_REASON_COUNT)

/* The inner frame, whose headers XDP took off, or found. Fills in what it is counted by. */
static __always_inline __u32 xdp_take_out(struct __sk_buff *skb, const struct vnetd_xdp_meta *m,
					  struct received *r, struct verdict *v)
{
	struct vnetd_device_stats *stats;
	__u8 eth[ETH_HLEN];

	r->underlay = underlay_at(m->ifindex, m->family);
	r->vnet = vnet_by_slot(m->slot);
	if (!r->underlay)
		return VNETD_DROP_XDP_LOST;
	if (!r->vnet || r->vnet->handle != m->handle)
		return VNETD_DROP_UNKNOWN_VNET;
	v->len = skb->len - m->offset;
	r->payload = v->len + VNETD_VUDP_HDR_LEN;
	count_begin(v, m->handle, m->slot);
	/* it may have changed since */
	if (!(r->vnet->flags & VNETD_VNET_UP))
		return VNETD_DROP_VNET_DOWN;
	if (r->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_SECURITY;
	stats = count_device(r, skb);
	if (stats)
		stats->xdp_frames += skb->gso_size && skb->gso_segs ? skb->gso_segs : 1;
	if (m->offset) {
		if (bpf_skb_load_bytes(skb, m->offset, eth, sizeof(eth)))
			return VNETD_DROP_TRUNCATED;
		return strip(skb, m->offset, eth, v->len);
	}
	/* what a NIC says of a checksum is of the packet that it saw */
	if (!skb->gso_size)
		bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
	return VNETD_OK;
}

/* Of frames that GRO merged: each is counted, as it came. */
static __always_inline void xdp_count_merged(struct __sk_buff *skb, const struct verdict *v)
{
	__u32 more = skb->gso_segs - 1;

	if (!skb->gso_size || !skb->gso_segs || !v->traffic)
		return;
	v->traffic->frames[VNETD_DIR_DECAP] += more;
	v->traffic->bytes[VNETD_DIR_DECAP] +=
		(__u64)more * (ETH_HLEN + segment_headers(skb, ETH_HLEN));
}

/*
 * A frame that XDP knew: all that is left is to hand it over. The caller does that, and counts: the stack has no
 * room for it below here.
 */
SUBPROGRAM __u32 receive_from_xdp(struct __sk_buff *skb, struct received *r, struct verdict *v)
{
	struct vnetd_xdp_meta *in_front = (void *)(long)skb->data_meta, m;
	__u8 mark[VNETD_MAC_LEN], dst[VNETD_MAC_LEN];
	__u32 reason;

	if (bpf_skb_load_bytes(skb, 0, dst, sizeof(dst)) || dst[0] != VNETD_XDP_MARK_0 ||
	    dst[1] != VNETD_XDP_MARK_1 || !xdp_mark(mark) ||
	    __builtin_memcmp(mark + 2, dst + 2, sizeof(mark) - 2))
		return NOT_FROM_XDP;
	if ((void *)(in_front + 1) > (void *)(long)skb->data)
		return VNETD_DROP_XDP_LOST;
	m = *in_front;
	if (m.ifindex != skb->ifindex)
		return VNETD_DROP_XDP_LOST;
	if (bpf_skb_store_bytes(skb, 0, m.dst, sizeof(m.dst), 0))
		return VNETD_DROP_NO_MEMORY;
	/* as packets to this host are; a port in another namespace would leave those for others alone */
	bpf_skb_change_type(skb, PACKET_HOST);
	/* whether it can be taken whole is known there */
	if (m.offset && skb->gso_size)
		return NOT_FROM_XDP;
	reason = xdp_take_out(skb, &m, r, v);
	if (!reason)
		xdp_count_merged(skb, v);
	return reason;
}

#endif
