/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A frame's flow, as one number: what its outer packet's source port is made of.
 *
 * The kernel's own hash takes longer than all look-ups of a frame together (it dissects the packet whatever it is,
 * and its hash is keyed), and only TCP of this host brings it along. So what nearly all frames are, TCP and UDP in
 * whole packets without options, is hashed here; the rest is left to the kernel. It only spreads flows: who picks ports so
 * that flows meet in one queue can send them as one as well.
 */
#ifndef VNETD_FLOW_H
#define VNETD_FLOW_H

#include "frame.h"

#define FLOW_MULTIPLIER 0x9e3779b97f4a7c15ULL

static __always_inline __u64 flow_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * FLOW_MULTIPLIER;
	return hash ^ hash >> 32;
}

/* What TCP and UDP begin with. */
static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_TCP;
}

/* The inner frame's, before anything is put in front of it. */
static __always_inline __u32 flow_hash(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u64 hash = 0;

	/* of a socket of this host; TCP changes it to get away from a path that loses */
	if (skb->hash)
		return bpf_get_hash_recalc(skb);
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = data + ETH_HLEN;
		const __be32 *ports = (const void *)(ip + 1);

		if ((const void *)(ports + 1) > data_end || ip->version != 4 || ip->ihl != 5 ||
		    ip->frag_off & bpf_htons(IPV4_MF | IPV4_OFFSET) || !has_ports(ip->protocol))
			return bpf_get_hash_recalc(skb);
		hash = flow_mix(ip->protocol, (__u64)ip->saddr << 32 | ip->daddr);
		return flow_mix(hash, *ports) >> 16;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = data + ETH_HLEN;
		const __be32 *ports = (const void *)(ip + 1), *words = (const void *)&ip->saddr;

		if ((const void *)(ports + 1) > data_end || ip->version != 6 ||
		    !has_ports(ip->nexthdr))
			return bpf_get_hash_recalc(skb);
		hash = ip->nexthdr;
#pragma unroll
		for (int i = 0; i < 8; i += 2)
			hash = flow_mix(hash, (__u64)words[i] << 32 | words[i + 1]);
		return flow_mix(hash, *ports) >> 16;
	}
	return bpf_get_hash_recalc(skb);
}

#endif
