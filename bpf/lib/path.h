/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How large a packet to a host may be.
 *
 * The device's MTU, the host's own as its hello says, what an original takes, and what routers on the way have said
 * (bpf/lib/path_icmp.h). The last is kept by address in host_paths; next hops take it over when
 * path_news has changed, so that a frame costs no look-up there. It ends by itself.
 */
#ifndef VNETD_PATH_H
#define VNETD_PATH_H

#include "nexthop.h"

/* as the kernel's own (net.ipv4.route.mtu_expires) */
#define PATH_MTU_LIFETIME_NS 600000000000ULL

static __always_inline struct vnetd_host_path_key path_key(__u32 ifindex, const __u8 *addr)
{
	struct vnetd_host_path_key key = { .ifindex = ifindex };

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return key;
}

/* A host said hello: routers may tell of the path to it. */
static __always_inline void path_known(__u32 ifindex, const __u8 *addr)
{
	struct vnetd_host_path_key key = path_key(ifindex, addr);
	struct vnetd_host_path none = {};

	if (!bpf_map_lookup_elem(&host_paths, &key))
		bpf_map_update_elem(&host_paths, &key, &none, BPF_NOEXIST);
}

static __always_inline void path_take_over(struct vnetd_nexthop *hop, __u32 news)
{
	struct vnetd_host_path_key key = path_key(hop->key.ifindex, hop->key.addr);
	struct vnetd_host_path *path = bpf_map_lookup_elem(&host_paths, &key);

	hop->path_mtu = path ? path->mtu : 0;
	hop->path_mtu_until_ns = path ? path->mtu_until_ns : 0;
	hop->path_news = news;
}

/*
 * A host that has never said hello may be an original. What has been said stays with the next hop
 * when the host's daemon, or ours, is stopped.
 */
static __always_inline bool path_to_original(const struct vnetd_nexthop *hop)
{
	union address addr;

	/* they have no IPv6 */
	__builtin_memcpy(&addr, hop->key.addr, sizeof(addr));
	return !(hop->capabilities & VNETD_CAP_HELLO) && address_is_ipv4(&addr);
}

/* Where the way is not what its device is, or routers had news. mtu: the device's */
CHECKED_ONCE __u32 path_mtu_of(struct vnetd_nexthop *hop, __u32 mtu, __u32 news)
{
	if (!hop)
		return mtu;
	if (hop->mtu && hop->mtu < mtu)
		mtu = hop->mtu;
	if (mtu > VNETD_ORIGINAL_MAX_PACKET && path_to_original(hop))
		mtu = VNETD_ORIGINAL_MAX_PACKET;
	if (news != hop->path_news)
		path_take_over(hop, news);
	if (hop->path_mtu && hop->path_mtu < mtu && (__s64)(hop->path_mtu_until_ns - now_ns()) > 0)
		mtu = hop->path_mtu;
	return mtu;
}

/* The longest outer IP packet to this host. */
static __always_inline __u32 path_mtu(struct vnetd_nexthop *hop,
				      const struct vnetd_underlay *underlay)
{
	__u32 mtu = underlay->mtu, zero = 0;
	__u32 *news = bpf_map_lookup_elem(&path_news, &zero);

	if (!news)
		return mtu;
	if (unlikely((hop->mtu && hop->mtu < mtu) || *news != hop->path_news || hop->path_mtu ||
		     (mtu > VNETD_ORIGINAL_MAX_PACKET && path_to_original(hop))))
		return path_mtu_of(hop, mtu, *news);
	return mtu;
}

#endif
