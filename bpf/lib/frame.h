/* SPDX-License-Identifier: GPL-2.0-only */
/* The inner frame: what of it must be known to carry it. */
#ifndef VNETD_FRAME_H
#define VNETD_FRAME_H

#include "outer.h"

/* The tags that the kernel keeps beside a packet, outermost first, and then its type. */
struct frame_tags {
	__be16 words[2 * MAX_TAGS + 1];
	/* not part of the packet */
	__u8 count;
} VNETD_PACKED __attribute__((aligned(2)));

/*
 * What is written in front of a frame's payload, as it lies in the packet: the outer headers and
 * then the inner Ethernet header, with the tags that the kernel keeps beside the packet in it.
 */
struct frame {
	struct outer outer;
	__u8 dst[ETH_ALEN];
	__u8 src[ETH_ALEN];
	struct frame_tags tags;
} VNETD_PACKED __attribute__((aligned(8)));

_Static_assert(offsetof(struct frame, tags.count) ==
		       OUTER_PAD + OUTER_MAX + ETH_HLEN + MAX_TAGS * TAG_LEN,
	       "as it lies in the packet");

static __always_inline bool is_ip(const struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

/* Reads the addresses. Returns false for less than an Ethernet header. */
static __always_inline bool frame_read(struct __sk_buff *skb, struct frame *frame)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;

	if (likely(data + ETH_HLEN <= data_end)) {
		__builtin_memcpy(frame->dst, data, 2 * ETH_ALEN);
		return true;
	}
	return bpf_skb_load_bytes(skb, 0, frame->dst, 2 * ETH_ALEN) == 0 && skb->len >= ETH_HLEN;
}

/*
 * The bytes of headers in front of a segment's payload in a super-frame, from the network header
 * on; an upper bound where the transport header cannot be read.
 */
CHECKED_ONCE __u32 segment_headers(struct __sk_buff *skb, __u32 network_offset)
{
	__u32 transport;
	__u8 first, proto, doff;

	if (bpf_skb_load_bytes(skb, network_offset, &first, 1))
		return 120;
	if (first >> 4 == 4) {
		transport = (first & 0xf) * 4;
		if (bpf_skb_load_bytes(skb, network_offset + 9, &proto, 1))
			return 120;
	} else {
		transport = sizeof(struct ipv6hdr);
		if (bpf_skb_load_bytes(skb, network_offset + 6, &proto, 1))
			return 120;
	}
	if (proto == IPPROTO_UDP)
		return transport + sizeof(struct udphdr);
	if (proto != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, network_offset + transport + 12, &doff, 1))
		return 120;
	return transport + (doff >> 4) * 4;
}

/* Length of the longest frame that this one, which may be a super-frame, becomes. */
static __always_inline __u32 longest_frame(struct __sk_buff *skb, __u32 tags)
{
	if (skb->gso_size)
		return ETH_HLEN + tags * TAG_LEN + skb->gso_size + segment_headers(skb, ETH_HLEN);
	return skb->len + tags * TAG_LEN;
}

/*
 * Takes the tags out of the metadata so that they can be written into the packet, and reads the
 * type.
 */
CHECKED_ONCE int frame_take_tags(struct __sk_buff *skb, struct frame_tags *tags)
{
	if (!tags)
		return -1;
#pragma unroll
	for (__u32 i = 0; i <= MAX_TAGS; i++) {
		if (!skb->vlan_present) {
			tags->count = i;
			return bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &tags->words[2 * i],
						  sizeof(__be16));
		}
		if (i == MAX_TAGS)
			break;
		tags->words[2 * i] = (__be16)skb->vlan_proto;
		tags->words[2 * i + 1] = bpf_htons(skb->vlan_tci);
		if (bpf_skb_vlan_pop(skb))
			break;
	}
	return -1;
}

#endif
