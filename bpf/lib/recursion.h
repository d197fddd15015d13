/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vnet never carries the packets that carry it.
 *
 * Where a vnet is bridged to the LAN that carries it, what its hosts send to the group comes back into
 * the vnet by that bridge. Encapsulated again it would go to the group, come back, and so on: each
 * frame without end. So what looks like a packet of vnet hosts, from the subnet of an attached
 * device, goes no further. A vnet on top of a vnet has hosts with other addresses and is not meant.
 */
#ifndef VNETD_RECURSION_H
#define VNETD_RECURSION_H

#include "frame.h"

struct recursion_walk {
	__be32 source;
	__be32 destination;
	/* 0: a later fragment, which has none */
	__be16 port;
	bool found;
};

static long is_packet_of(__u32 index, void *context)
{
	struct recursion_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);

	if (!underlay || !on_subnet(walk->source, underlay))
		return 0;
	if (walk->port ? walk->port != underlay->port
		       : walk->destination != ipv4_of(underlay->group))
		return 0;
	walk->found = true;
	return 1;
}

/* Only for frames that go to the group: a host's MAC that is known lives elsewhere. */
SUBPROGRAM bool carries_itself(struct __sk_buff *skb)
{
	struct recursion_walk walk = {};
	__u32 udp_offset;
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP)
		return false;
	walk.source = ip.saddr;
	walk.destination = ip.daddr;
	udp_offset = ETH_HLEN + ip.ihl * 4;
	if (!(ip.frag_off & bpf_htons(IPV4_OFFSET)) &&
	    bpf_skb_load_bytes(skb, udp_offset + 2, &walk.port, sizeof(walk.port)))
		return false;
	bpf_loop(VNETD_MAX_UNDERLAYS, is_packet_of, &walk, 0);
	return walk.found;
}

#endif
