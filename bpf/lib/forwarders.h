/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who on the subnet forwards, known by its MAC: whoever sends to the group what is from afar.
 *
 * What such a host sends itself reaches the peers without this one. It is forwarded all the same, for
 * any forwarder may fail, but as an original forwards what it hears: with an inner header by which
 * hosts of ours tell copies as ever, and which an original cannot send on to its group. Else each
 * original over there would send it on once for each forwarder here, which among originals it does not.
 */
#ifndef VNETD_FORWARDERS_H
#define VNETD_FORWARDERS_H

#include "maps.h"

/* four of our hellos, which forwarders bring like all that is for the group */
#define FORWARDS_NS 120000000000ULL
/* so often is it noted at most */
#define FORWARDS_NOTE_NS 1000000000ULL

/* Ethernet address -> when it was heard to forward, ns */
VNETD_MAP(forwarders, BPF_MAP_TYPE_LRU_HASH, struct vnetd_forwarder_key, __u64,
	  VNETD_MAX_FORWARDERS, 0);

static __always_inline __u64 mac_bits(const struct vnetd_forwarder_key *key)
{
	__u64 all;

	__builtin_memcpy(&all, key, sizeof(all));
	return all;
}

/* Its group packet is from a source that is not on the subnet. Not this host: what was in fragments
 * has its MAC here. */
static __always_inline void forwards_note(struct __sk_buff *skb,
					  const struct vnetd_underlay *underlay)
{
	struct vnetd_forwarder_key key = {}, own = {};
	__u64 now = now_ns(), *noted;

	__builtin_memcpy(own.mac, underlay->mac, ETH_ALEN);
	if (bpf_skb_load_bytes(skb, ETH_ALEN, key.mac, ETH_ALEN) ||
	    mac_bits(&key) == mac_bits(&own))
		return;
	noted = bpf_map_lookup_elem(&forwarders, &key);
	if (!noted || now - *noted > FORWARDS_NOTE_NS)
		bpf_map_update_elem(&forwarders, &key, &now, BPF_ANY);
}

static __always_inline bool forwards_itself(const __u8 *mac)
{
	struct vnetd_forwarder_key key = {};
	__u64 *noted;

	__builtin_memcpy(key.mac, mac, ETH_ALEN);
	noted = bpf_map_lookup_elem(&forwarders, &key);
	return noted && (__s64)(now_ns() - *noted) < (__s64)FORWARDS_NS;
}

#endif
