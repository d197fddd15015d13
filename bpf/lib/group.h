/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Groups of a vnet's own. What is for all in such a vnet goes to a multicast group that only its hosts join,
 * where the record has the flag for the family; else it goes to the group of the device, which all join. VARP
 * and what peers are sent are always the device's group's, so that hosts find one another whatever is configured.
 * Taken is what comes by either.
 */
#ifndef VNETD_GROUP_H
#define VNETD_GROUP_H

#include "outer.h"

_Static_assert(VNETD_VNET_GROUP << 1 == VNETD_VNET_GROUP6, "sends_to_own_group");

static __always_inline bool sends_to_own_group(const struct vnetd_vnet *vnet, __u32 family)
{
	return vnet->flags & VNETD_VNET_GROUP << (family >> 1 & 1);
}

static __always_inline void to_group4(struct ethhdr *eth, struct iphdr *ip,
				      const struct vnetd_vnet *vnet)
{
	ip->daddr = ipv4_of(vnet->group);
	ipv4_group_mac(eth->h_dest, ip->daddr);
	ip->check = 0;
	ip->check = ipv4_checksum(ip);
}

static __always_inline void to_group6(struct ethhdr *eth, struct ipv6hdr *ip,
				      const struct vnetd_vnet *vnet)
{
	__builtin_memcpy(&ip->daddr, vnet->group6, sizeof(ip->daddr));
	ipv6_group_mac(eth->h_dest, vnet->group6);
}

/* What is in front of a frame for all, with the device's group as destination, is made to be for the vnet's. */
CHECKED_ONCE int to_own_group(struct outer *out, __u32 form, const struct vnetd_vnet *vnet)
{
	if (!out || !vnet)
		return -1;
	switch (form) {
	case FORM_UDP4:
		to_group4(&out->udp4.eth, &out->udp4.ip, vnet);
		break;
	case FORM_UDP6:
		to_group6(&out->udp6.eth, &out->udp6.ip, vnet);
		break;
	case FORM_ETHERIP4:
		to_group4(&out->etherip4.eth, &out->etherip4.ip, vnet);
		break;
	default:
		to_group6(&out->etherip6.eth, &out->etherip6.ip, vnet);
	}
	return 0;
}

/*
 * All that is in front of a frame for all, at one place. Two functions one after the other, and not one in the
 * other: Linux 6.1 has 512 bytes of stack for a chain of calls.
 */
static __always_inline void write_group_headers(struct outer *out, const struct outer_spec *s,
						const struct vnetd_underlay *underlay,
						const struct vnetd_vnet *vnet)
{
	write_outer_headers(out, s, underlay, NULL);
	if (unlikely(sends_to_own_group(vnet, underlay->family)))
		to_own_group(out, s->form, vnet);
}

/* Where what is for all in a vnet goes at a place; slot 0: the vnet is not known here. */
CHECKED_ONCE int group_at(union address *group, const struct vnetd_underlay *underlay, __u32 slot)
{
	struct vnetd_vnet *vnet = slot ? vnet_by_slot(slot) : NULL;

	if (!group || !underlay)
		return -1;
	__builtin_memcpy(group, underlay->group, sizeof(*group));
	if (!vnet || !sends_to_own_group(vnet, underlay->family))
		return 0;
	if (underlay->family == VNETD_FAMILY_IPV6)
		__builtin_memcpy(group, vnet->group6, sizeof(*group));
	else
		__builtin_memcpy(group, vnet->group, sizeof(*group));
	return 0;
}

/* Whether an address is one of the vnet's groups. */
static __always_inline bool is_own_group(const union address *to, const struct vnetd_vnet *vnet)
{
	return same_words(to->words, (const void *)vnet->group) ||
	       same_words(to->words, (const void *)vnet->group6);
}

static __always_inline bool has_own_group(const struct vnetd_vnet *vnet)
{
	const __u32 *group = (const void *)vnet->group, *group6 = (const void *)vnet->group6;

	return group[3] | group6[0];
}

#endif
