/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP "fragmentation needed" (RFC 1191) about a packet of ours: unicast to hosts of ours carries DF.
 *
 * Anyone can send one, so it must quote what we could have sent: our address, ports and lengths,
 * DF, to a host that said hello, longer than the MTU that it claims; and of a vnet of ours, if it
 * quotes that much. What it can do at worst is packets of VNETD_PATH_MTU_MIN bytes for a while.
 */
#ifndef VNETD_PATH_ICMP_H
#define VNETD_PATH_ICMP_H

#include "path.h"
#include "receive.h"

#define ICMP_CHUNK 64
/* longer ones are nobody's: routers quote at most 576 bytes (RFC 1812 section 4.3.2.3) */
#define ICMP_MAX_LEN 1472
#define ICMP_IPV4_LEN 20

struct path_icmp {
	__u8 type, code;
	__be16 check, unused, mtu;
	struct iphdr ip;
	struct udphdr udp;
} VNETD_PACKED;

struct icmp_sum {
	struct __sk_buff *skb;
	__u32 offset;
	__u32 left;
	__s64 sum;
	bool failed;
};

static long icmp_sum_chunk(__u32 index, void *context)
{
	struct icmp_sum *walk = context;
	__be32 chunk[ICMP_CHUNK / 4] = {};
	__u32 last = (walk->left > ICMP_CHUNK ? ICMP_CHUNK : walk->left) - 1;

	if (!walk->left)
		return 1;
	/* a mask, which no verifier loses sight of */
	barrier_var(last);
	last &= ICMP_CHUNK - 1;
	if (bpf_skb_load_bytes(walk->skb, walk->offset, chunk, last + 1)) {
		walk->failed = true;
		return 1;
	}
	walk->sum = bpf_csum_diff(NULL, 0, chunk, sizeof(chunk), (__u32)walk->sum);
	walk->offset += last + 1;
	walk->left -= last + 1;
	return 0;
}

/* Of the ICMP message at an offset. */
static __always_inline bool icmp_checksum_right(struct __sk_buff *skb, __u32 offset, __u32 len)
{
	struct icmp_sum walk = { .skb = skb, .offset = offset, .left = len };
	__u32 sum;

	bpf_loop(ICMP_MAX_LEN / ICMP_CHUNK, icmp_sum_chunk, &walk, 0);
	if (walk.failed || walk.left)
		return false;
	sum = (__u32)walk.sum;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* Whether we could have sent what it quotes. */
static __always_inline bool quotes_ours(struct __sk_buff *skb, const struct received *r,
					const struct path_icmp *icmp, __u32 len)
{
	__u32 total = bpf_ntohs(icmp->ip.tot_len);
	struct vnetd_vudp_hdr vudp;

	if (icmp->ip.saddr != ipv4_of(r->underlay->addr) ||
	    icmp->ip.frag_off != bpf_htons(IPV4_DF) || icmp->ip.ttl > VNETD_TTL_UNICAST)
		return false;
	/* a virtual device may have carried a super-frame to the router whole */
	if (total <= bpf_ntohs(icmp->mtu) || bpf_ntohs(icmp->udp.len) + sizeof(icmp->ip) != total)
		return false;
	if (len < sizeof(*icmp) + sizeof(vudp))
		return true;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + ICMP_IPV4_LEN + sizeof(*icmp), &vudp, sizeof(vudp)))
		return false;
	return vudp.msg.id == bpf_htons(VNETD_MSG_VUDP) &&
	       bpf_map_lookup_elem(&vnet_ids, vudp.vnet);
}

/* Takes the MTU over; a larger one than we know was said of a packet that left before. */
static __always_inline void path_mtu_said(struct vnetd_host_path *path, __u32 mtu)
{
	__u64 now = now_ns(), until = now + PATH_MTU_LIFETIME_NS;
	bool fresh = path->mtu && (__s64)(path->mtu_until_ns - now) > 0;
	__u32 zero = 0, *news;

	if (fresh &&
	    (mtu > path->mtu || (mtu == path->mtu && until - path->mtu_until_ns < REFRESH_NS)))
		return;
	path->mtu = mtu;
	path->mtu_until_ns = until;
	news = bpf_map_lookup_elem(&path_news, &zero);
	if (news)
		__sync_fetch_and_add(news, 1);
}

/* An ICMP message to our address, behind an IPv4 header without options. */
SUBPROGRAM __u32 receive_path_icmp(struct __sk_buff *skb, const struct received *r, __u32 not_ours)
{
	__u32 offset = ETH_HLEN + ICMP_IPV4_LEN, len, mtu;
	struct vnetd_host_path_key key = {};
	struct vnetd_host_path *path;
	struct path_icmp icmp;
	struct iphdr ip;

	if (!r || !r->underlay || bpf_skb_load_bytes(skb, offset, &icmp, sizeof(icmp)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return not_ours;
	if (icmp.type != ICMP_UNREACHABLE || icmp.code != ICMP_FRAG_NEEDED ||
	    icmp.ip.version != 4 || icmp.ip.ihl != 5 || icmp.ip.protocol != IPPROTO_UDP ||
	    icmp.udp.dest != r->underlay->port || bpf_ntohs(icmp.udp.source) < VNETD_SPORT_BASE)
		return not_ours;

	/* no other socket's business from here on */
	len = bpf_ntohs(ip.tot_len);
	if (len < sizeof(ip) + sizeof(icmp) || ETH_HLEN + len > skb->len)
		return VNETD_DROP_TRUNCATED;
	len -= sizeof(ip);
	if (ipv4_checksum(&ip))
		return VNETD_DROP_BAD_HEADER_CHECKSUM;
	if (!ipv4_is_host(r->source.words[3]))
		return VNETD_DROP_BAD_SOURCE_ADDRESS;
	if (!icmp_checksum_right(skb, offset, len))
		return VNETD_DROP_ICMP_CHECKSUM;
	if (!quotes_ours(skb, r, &icmp, len))
		return VNETD_DROP_ICMP_FORGED;
	key.ifindex = r->underlay->ifindex;
	ipv4_to(key.addr, icmp.ip.daddr);
	path = bpf_map_lookup_elem(&host_paths, &key);
	if (!path)
		return VNETD_DROP_ICMP_FORGED;
	/* 0: a router from before RFC 1191 does not say how small */
	mtu = bpf_ntohs(icmp.mtu);
	path_mtu_said(path, mtu < VNETD_PATH_MTU_MIN ? VNETD_PATH_MTU_MIN : mtu);
	return VNETD_OK;
}

#endif
