/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a long key was found last: a look-up in an array takes a fifth of one in a hash.
 *
 * A hint is a number of a record, in a place that the key is folded to, and is never believed: what it leads to
 * must be in use and name the very key, as the record that the hash leads to does. So none is ever taken back, and
 * keys that meet in one place only lose the time of a look.
 */
#ifndef VNETD_HINT_H
#define VNETD_HINT_H

#include "maps.h"

#define HINT_BITS 12

VNETD_MAP(vnet_hints, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1 << HINT_BITS, 0);
VNETD_MAP(nexthop_hints, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1 << HINT_BITS, 0);
VNETD_MAP(port_hints, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1 << HINT_BITS, 0);

static __always_inline __u32 hint_place(__u32 folded)
{
	return folded * 0x9e3779b1U >> (32 - HINT_BITS);
}

/* The vnet that is up, and its slot; or NULL: no hint leads to it. */
static __always_inline struct vnetd_vnet *vnet_by_hint(const __u32 id[VNETD_ID_LEN / 4],
						       __u32 *slot)
{
	__u32 place = hint_place(id[0] ^ id[1] ^ id[2] ^ id[3]);
	__u32 *hint = bpf_map_lookup_elem(&vnet_hints, &place);
	struct vnetd_vnet *vnet;
	const __u32 *own;

	if (!hint)
		return NULL;
	*slot = *hint;
	vnet = vnet_by_slot(*slot);
	if (!vnet || !(vnet->flags & VNETD_VNET_UP))
		return NULL;
	own = (const void *)vnet->id;
	return (own[0] ^ id[0]) | (own[1] ^ id[1]) | (own[2] ^ id[2]) | (own[3] ^ id[3]) ? NULL
											 : vnet;
}

static __always_inline void vnet_hint_set(const __u32 id[VNETD_ID_LEN / 4], __u32 slot)
{
	__u32 place = hint_place(id[0] ^ id[1] ^ id[2] ^ id[3]);
	__u32 *hint = bpf_map_lookup_elem(&vnet_hints, &place);

	if (hint)
		*hint = slot;
}

/*
 * The vnet whose frames enter by a device, up or not, and its slot; or NULL. What a hint leads to must be up and name the
 * device, as the vnets that the map `ports` leads to do.
 */
static __always_inline struct vnetd_vnet *vnet_of_device(__u32 ifindex, __u32 *slot)
{
	__u32 place = ifindex & ((1 << HINT_BITS) - 1);
	__u32 *hint = bpf_map_lookup_elem(&port_hints, &place);
	struct vnetd_port *port;
	struct vnetd_vnet *vnet;

	*slot = hint ? *hint : 0;
	vnet = vnet_by_slot(*slot);
	if (likely(vnet && vnet->flags & VNETD_VNET_UP &&
		   (vnet->vnif == ifindex || vnet->vnif_peer == ifindex)))
		return vnet;
	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port)
		return NULL;
	*slot = port->slot;
	vnet = vnet_by_slot(*slot);
	if (!vnet || vnet->handle != port->handle)
		return NULL;
	if (hint)
		*hint = *slot;
	return vnet;
}

/* The place of the hint for a host, never NULL but to the verifier. */
static __always_inline __u32 *nexthop_hint_at(const struct vnetd_nexthop_key *key)
{
	const __u32 *words = (const void *)key->addr;
	__u32 place = hint_place(words[0] ^ words[1] ^ words[2] ^ words[3] ^
				 key->handle * 0x85ebca6bU ^ key->ifindex * 0xc2b2ae35U);

	return bpf_map_lookup_elem(&nexthop_hints, &place);
}

static __always_inline bool nexthop_is(const struct vnetd_nexthop *hop,
				       const struct vnetd_nexthop_key *key)
{
	const __u32 *a = (const void *)&hop->key, *b = (const void *)key;

	return hop->flags & VNETD_NEXTHOP_USED && !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) |
						    (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

#endif
