/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ESP before the kernel decrypts it: who sends it?
 *
 * Mode BEET puts the SA's source in the place of the packet's, whatever that was, so it must be compared
 * before. An SPI is looked for wherever the stack would find it: behind IPv4 options, IPv6 extension headers and
 * priority tags, and in the first fragment of several.
 */
#ifndef VNETD_ESP_SOURCE_H
#define VNETD_ESP_SOURCE_H

#include "count.h"
#include "outer.h"
#include "watch.h"

/* more than anything sends (RFC 8200 section 4.1); more tags than that, likewise */
#define ESP_MAX_HEADERS 10

/* Whether ESP may be what an IPv6 header with this next header brings. */
static __always_inline bool esp_may_follow(__u8 nexthdr)
{
	return nexthdr == IPPROTO_ESP || nexthdr == IPPROTO_HOPOPTS || nexthdr == IPPROTO_ROUTING ||
	       nexthdr == IPPROTO_DSTOPTS || nexthdr == IPPROTO_FRAGMENT;
}

struct esp_found {
	union address source;
	union address destination;
	/* of the SPI, from the start of the packet */
	__u32 offset;
	/* it may be for another address than the header says */
	bool routed;
	/* there are more headers than are looked at */
	bool endless;
};

static __always_inline bool esp_find4(struct __sk_buff *skb, __u32 offset, struct esp_found *found)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 ||
	    ip.protocol != IPPROTO_ESP || ip.frag_off & bpf_htons(IPV4_OFFSET))
		return false;
	ipv4_to(found->source.bytes, ip.saddr);
	ipv4_to(found->destination.bytes, ip.daddr);
	found->routed = ip.ihl > 5;
	found->offset = offset + ip.ihl * 4;
	return true;
}

static __always_inline bool esp_find6(struct __sk_buff *skb, __u32 offset, struct esp_found *found)
{
	struct {
		__u8 nexthdr;
		__u8 len;
		__be16 offset;
	} header;
	struct ipv6hdr ip;
	__u8 nexthdr;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(&found->source, &ip.saddr, sizeof(found->source));
	__builtin_memcpy(&found->destination, &ip.daddr, sizeof(found->destination));
	nexthdr = ip.nexthdr;
	offset += sizeof(ip);
	for (int i = 0; i < ESP_MAX_HEADERS; i++) {
		found->offset = offset;
		if (nexthdr == IPPROTO_ESP)
			return true;
		if (!esp_may_follow(nexthdr) ||
		    bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return false;
		if (nexthdr == IPPROTO_FRAGMENT) {
			if (header.offset & bpf_htons(IPV6_OFFSET))
				return false;
			offset += sizeof(struct ipv6_fragment);
		} else {
			if (nexthdr == IPPROTO_ROUTING)
				found->routed = true;
			offset += (header.len + 1) * 8;
		}
		nexthdr = header.nexthdr;
	}
	found->endless = true;
	return true;
}

static __always_inline bool is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* Behind the tags: where the IP header is, and its type. */
static __always_inline __u32 esp_untag(struct __sk_buff *skb, __be16 *type)
{
	__u32 offset = ETH_HLEN;
	__be16 tag[2];

	*type = skb->protocol;
	for (int i = 0; i < ESP_MAX_HEADERS; i++) {
		if (!is_tag(*type))
			return offset;
		if (bpf_skb_load_bytes(skb, offset, tag, sizeof(tag)))
			return 0;
		/* a VLAN's, and so another device's */
		if (tag[0] & bpf_htons(VLAN_ID))
			return 0;
		*type = tag[1];
		offset += TAG_LEN;
	}
	return offset;
}

/* Gives a reason to drop the packet, and whose SA it is for; VNETD_OK leaves it to the stack. */
static __always_inline __u32 esp_source(struct __sk_buff *skb, __u32 *handle)
{
	struct esp_found found = {};
	struct vnetd_underlay *underlay;
	struct vnetd_spi *sa;
	__be16 type;
	__u32 offset = esp_untag(skb, &type), family = VNETD_FAMILY_IPV4, spi;

	if (!offset)
		return VNETD_OK;
	if (type == bpf_htons(ETH_P_IPV6)) {
		family = VNETD_FAMILY_IPV6;
		if (!esp_find6(skb, offset, &found))
			return VNETD_OK;
	} else if (type == bpf_htons(ETH_P_IP)) {
		if (!esp_find4(skb, offset, &found))
			return VNETD_OK;
	} else {
		return is_tag(type) ? VNETD_DROP_ESP_SOURCE : VNETD_OK;
	}
	/* not ours: it passes through */
	underlay = underlay_at(skb->ifindex, family);
	if (!found.routed &&
	    (!underlay || !same_words(found.destination.words, (const void *)underlay->addr)))
		return VNETD_OK;
	if (found.endless)
		return VNETD_DROP_ESP_SOURCE;
	if (bpf_skb_load_bytes(skb, found.offset, &spi, sizeof(spi)))
		return VNETD_OK;
	spi = bpf_ntohl(spi);
	sa = bpf_map_lookup_elem(&spis, &spi);
	if (!sa || (sa->ifindex == skb->ifindex &&
		    same_words(found.source.words, (const void *)sa->source)))
		return VNETD_OK;
	*handle = sa->handle;
	return VNETD_DROP_ESP_SOURCE;
}

/* A packet that may be ESP, whole. */
CHECKED_ONCE int receive_esp(struct __sk_buff *skb)
{
	__u32 handle = 0, reason = esp_source(skb, &handle);

	if (likely(!reason))
		return TC_ACT_OK;
	count_drop(handle, VNETD_DIR_DECAP, reason, skb->len);
	watch_drop(skb, handle, VNETD_DIR_DECAP, reason);
	return TC_ACT_SHOT;
}

#endif
