/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps. All are pinned by name (the daemon gives the directory) and weak, since the programs'
 * object files that include this are linked into one.
 */
#ifndef VNETD_BPF_MAPS_H
#define VNETD_BPF_MAPS_H

#include "bpf.h"

#define VNETD_MAP(name, map_type, key_type, value_type, entries, map_flag_bits)                    \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, map_flag_bits);                                                  \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
	} name SEC(".maps") __weak

#define VNETD_QUEUE(name, value_type, entries)                                                     \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_QUEUE);                                                  \
		__uint(max_entries, entries);                                                      \
		__type(value, value_type);                                                         \
	} name SEC(".maps") __weak

#define VNETD_RING(name, bytes)                                                                    \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                \
		__uint(max_entries, bytes);                                                        \
	} name SEC(".maps") __weak

VNETD_MAP(meta, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_meta, 1, 0);

VNETD_MAP(vnet_ids, BPF_MAP_TYPE_HASH, struct vnetd_vnet_id, __u32, VNETD_MAX_VNETS, 0);
VNETD_MAP(vnets, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_vnet, VNETD_MAX_VNETS, 0);
VNETD_MAP(vnet_counts, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_vnet_counts, VNETD_MAX_VNETS, 0);
VNETD_MAP(floods, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_floods, VNETD_MAX_VNETS, 0);
VNETD_MAP(ports, BPF_MAP_TYPE_HASH, __u32, struct vnetd_port, 2 * VNETD_MAX_VNETS, 0);

VNETD_MAP(direct_ports, BPF_MAP_TYPE_HASH, __u32, struct vnetd_direct_port, VNETD_MAX_DIRECT_PORTS,
	  BPF_F_NO_PREALLOC);
VNETD_MAP(direct_list, BPF_MAP_TYPE_HASH, struct vnetd_member_key, __u32, VNETD_MAX_DIRECT_PORTS,
	  BPF_F_NO_PREALLOC);

VNETD_MAP(underlays, BPF_MAP_TYPE_HASH, struct vnetd_place, struct vnetd_underlay,
	  VNETD_MAX_UNDERLAYS, 0);
VNETD_MAP(underlay_list, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_place, VNETD_MAX_UNDERLAYS, 0);

VNETD_MAP(nexthop_ids, BPF_MAP_TYPE_HASH, struct vnetd_nexthop_key, __u32, VNETD_DEFAULT_NEXTHOPS,
	  0);
VNETD_MAP(nexthops, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_nexthop, VNETD_DEFAULT_NEXTHOPS, 0);
VNETD_QUEUE(nexthop_free, __u32, VNETD_DEFAULT_NEXTHOPS);

VNETD_MAP(host_paths, BPF_MAP_TYPE_LRU_HASH, struct vnetd_host_path_key, struct vnetd_host_path,
	  VNETD_MAX_HOST_PATHS, 0);
VNETD_MAP(path_news, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);

VNETD_MAP(fdb, BPF_MAP_TYPE_HASH, struct vnetd_fdb_key, struct vnetd_fdb_entry,
	  VNETD_DEFAULT_FDB_ENTRIES, 0);
VNETD_QUEUE(fdb_queue, struct vnetd_fdb_key, VNETD_DEFAULT_FDB_ENTRIES);

VNETD_MAP(neighbours, BPF_MAP_TYPE_HASH, struct vnetd_neighbour_key, struct vnetd_neighbour,
	  VNETD_DEFAULT_NEIGHBOURS, 0);
VNETD_QUEUE(neighbour_queue, struct vnetd_neighbour_key, VNETD_DEFAULT_NEIGHBOURS);
VNETD_MAP(neighbour_stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct vnetd_neighbour_stats,
	  VNETD_MAX_VNETS, 0);

VNETD_MAP(traffic, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct vnetd_traffic, VNETD_MAX_VNETS, 0);
VNETD_MAP(drops, BPF_MAP_TYPE_PERCPU_HASH, struct vnetd_drop_key, struct vnetd_drop_count,
	  VNETD_MAX_DROP_KEYS, BPF_F_NO_PREALLOC);
VNETD_MAP(table_stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct vnetd_table_stats, 1, 0);
VNETD_MAP(device_stats, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct vnetd_device_stats,
	  VNETD_MAX_UNDERLAYS, 0);

VNETD_MAP(peers, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_peer, VNETD_MAX_PEERS, 0);
VNETD_MAP(peer_ids, BPF_MAP_TYPE_HASH, struct vnetd_vnet_id, __u32, VNETD_MAX_PEERS, 0);
VNETD_MAP(peer_stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct vnetd_peer_stats, VNETD_MAX_PEERS,
	  0);
VNETD_MAP(peer_heard, BPF_MAP_TYPE_ARRAY, __u32, __u64, VNETD_MAX_PEERS, 0);
VNETD_MAP(unicast_members, BPF_MAP_TYPE_HASH, struct vnetd_member_key, struct vnetd_member,
	  VNETD_MAX_UNICAST_MEMBERS, BPF_F_NO_PREALLOC);
VNETD_MAP(spis, BPF_MAP_TYPE_HASH, __u32, struct vnetd_spi, VNETD_MAX_SPIS, BPF_F_NO_PREALLOC);
VNETD_MAP(secure_members, BPF_MAP_TYPE_HASH, struct vnetd_member_key, struct vnetd_secure_member,
	  VNETD_MAX_SECURE_MEMBERS, BPF_F_NO_PREALLOC);

VNETD_RING(control, VNETD_RING_BYTES);
VNETD_RING(events, VNETD_RING_BYTES);

VNETD_MAP(watch, BPF_MAP_TYPE_ARRAY, __u32, struct vnetd_watch, 1, 0);
VNETD_MAP(watch_stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct vnetd_watch_stats,
	  VNETD_WATCH_KINDS, 0);
VNETD_RING(watched, VNETD_WATCH_RING_BYTES);

static __always_inline struct vnetd_vnet *vnet_by_slot(__u32 slot)
{
	return bpf_map_lookup_elem(&vnets, &slot);
}

static __always_inline struct vnetd_nexthop *nexthop_by_id(__u32 id)
{
	return bpf_map_lookup_elem(&nexthops, &id);
}

static __always_inline struct vnetd_underlay *underlay_at(__u32 ifindex, __u32 family)
{
	struct vnetd_place place = { .ifindex = ifindex, .family = family };

	return bpf_map_lookup_elem(&underlays, &place);
}

#define IPV4_MAPPED_WORD bpf_htonl(0x0000ffff)

/* An address in the maps' form. */
union address {
	__u8 bytes[16];
	__be32 words[4];
};

static __always_inline bool address_is_ipv4(const union address *addr)
{
	return !(addr->words[0] | addr->words[1] | (addr->words[2] ^ IPV4_MAPPED_WORD));
}

/* The place by which a next hop is reached. */
static __always_inline struct vnetd_underlay *underlay_to(const struct vnetd_nexthop_key *key)
{
	union address addr;

	__builtin_memcpy(&addr, key->addr, sizeof(addr));
	return underlay_at(key->ifindex,
			   address_is_ipv4(&addr) ? VNETD_FAMILY_IPV4 : VNETD_FAMILY_IPV6);
}

/* The underlay at an index of underlay_list, or NULL. */
static __always_inline struct vnetd_underlay *underlay_by_index(__u32 index)
{
	struct vnetd_place *place = bpf_map_lookup_elem(&underlay_list, &index);

	return place && place->ifindex ? underlay_at(place->ifindex, place->family) : NULL;
}

#endif
