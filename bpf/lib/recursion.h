/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vnet never carries the packets that carry it.
 *
 * Where a vnet is bridged to the LAN that carries it, what its hosts send to the group comes back into
 * the vnet by that bridge. Encapsulated again it would go to the group, come back, and so on: each
 * frame without end. So what looks like a packet of vnet hosts, from the subnet of an attached
 * device, goes no further. Nor does what a forwarder sends to the group of that subnet for a host
 * elsewhere, which is told from others by what is known of its source: it said hello, or this vnet has
 * heard of it. A vnet on top of a vnet has hosts with other addresses, which nobody here knows as hosts,
 * and is not meant, though its group and port may be the same.
 */
#ifndef VNETD_RECURSION_H
#define VNETD_RECURSION_H

#include "frame.h"
#include "group.h"

struct recursion_walk {
	union address source;
	union address destination;
	/* 0: a later fragment, which has none */
	__be16 port;
	/* EtherIP of vnet, or ESP, which have none either */
	bool portless;
	/* to a group of the vnet's own */
	bool own_group;
	bool found;
	/* of the vnet that it is in */
	__u32 handle;
};

_Static_assert(offsetof(struct vnetd_nexthop_key, addr) -
			       offsetof(struct vnetd_nexthop_key, ifindex) ==
		       offsetof(struct vnetd_host_path_key, addr),
	       "a next hop's key ends as a path's");

static __always_inline bool is_host(const struct recursion_walk *walk, __u32 ifindex)
{
	struct vnetd_nexthop_key key = { .handle = walk->handle, .ifindex = ifindex };

	__builtin_memcpy(key.addr, &walk->source, sizeof(key.addr));
	/* behind the handle it is a vnetd_host_path_key: the stack has no room for both */
	return bpf_map_lookup_elem(&nexthop_ids, &key) ||
	       bpf_map_lookup_elem(&host_paths, &key.ifindex);
}

static long is_packet_of(__u32 index, void *context)
{
	struct recursion_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);
	bool to_group;

	if (!underlay)
		return 0;
	to_group = walk->own_group ||
		   same_words(walk->destination.words, (const void *)underlay->group);
	if (!on_subnet(&walk->source, underlay) &&
	    !(underlay->family == VNETD_FAMILY_IPV6 && is_link_local(&walk->source)) &&
	    !(to_group && is_host(walk, underlay->ifindex)))
		return 0;
	if (walk->portless)
		walk->found = true;
	else if (walk->port)
		walk->found = walk->port == underlay->port;
	else
		walk->found = to_group;
	return walk->found;
}

/*
 * Fills in the addresses; returns the protocol behind the IP headers and where that begins, or 0. No
 * header is kept whole: the stack is short of room here.
 */
static __always_inline __u32 recursion_headers(struct __sk_buff *skb, struct recursion_walk *walk,
					       __u32 *offset, bool *later)
{
	__u8 protocol = 0, first = 0;
	__be16 fragment = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 ends[2];

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &first, 1) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment,
				       sizeof(fragment)) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &protocol,
				       1) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), ends,
				       sizeof(ends)))
			return 0;
		ipv4_to(walk->source.bytes, ends[0]);
		ipv4_to(walk->destination.bytes, ends[1]);
		*offset = ETH_HLEN + (first & 0xf) * 4;
		*later = fragment & bpf_htons(IPV4_OFFSET);
		return protocol;
	}
	*offset = ETH_HLEN + sizeof(struct ipv6hdr);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol, 1) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &walk->source,
			       sizeof(walk->source)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &walk->destination,
			       sizeof(walk->destination)))
		return 0;
	if (protocol != IPPROTO_FRAGMENT)
		return protocol;
	if (bpf_skb_load_bytes(skb, *offset, &protocol, 1) ||
	    bpf_skb_load_bytes(skb, *offset + offsetof(struct ipv6_fragment, offset), &fragment,
			       sizeof(fragment)))
		return 0;
	*offset += sizeof(struct ipv6_fragment);
	*later = fragment & bpf_htons(IPV6_OFFSET);
	return protocol;
}

/*
 * Only for IP frames that go to the group: a host's MAC that is known lives elsewhere. ESP is what carries
 * a secure vnet; in others it is a guest's.
 */
CHECKED_ONCE int carries_itself(struct __sk_buff *skb, const struct vnetd_vnet *vnet)
{
	struct recursion_walk walk = {};
	__u32 offset = 0, protocol;
	bool later = false;
	__be16 word = 0;

	if (!vnet)
		return false;
	walk.handle = vnet->handle;
	protocol = recursion_headers(skb, &walk, &offset, &later);
	if (protocol != IPPROTO_UDP && protocol != VNETD_ETHERIP_PROTOCOL &&
	    !(vnet->security && protocol == IPPROTO_ESP))
		return false;
	walk.own_group = is_own_group(&walk.destination, vnet);
	walk.portless = protocol == IPPROTO_ESP || (protocol == VNETD_ETHERIP_PROTOCOL && !later);
	if (!later && protocol != IPPROTO_ESP) {
		/* the destination port, or EtherIP's version */
		if (bpf_skb_load_bytes(skb, offset + (walk.portless ? 0 : 2), &word, sizeof(word)))
			return false;
		if (walk.portless && word == bpf_htons(VNETD_ETHERIP_VERSION_RFC3378))
			return false;
		walk.port = word;
	}
	bpf_loop(VNETD_MAX_UNDERLAYS, is_packet_of, &walk, 0);
	return walk.found;
}

#endif
