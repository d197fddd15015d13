/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP "fragmentation needed" (RFC 1191) and ICMPv6 "packet too big" (RFC 8201) about a packet of ours:
 * what goes to a host of ours over IPv4 carries DF, EtherIP always does, and IPv6 has no other way.
 *
 * Anyone can send one, so it must quote what we could have sent: our address, ports and lengths,
 * DF, to a host that is known, longer than the MTU that it claims; and of a vnet of ours, if it
 * quotes that much. What it can do at worst is packets of VNETD_PATH_MTU_MIN bytes for a while, or
 * of VNETD_PATH_MTU_MIN_IPV6.
 */
#ifndef VNETD_PATH_ICMP_H
#define VNETD_PATH_ICMP_H

#include "outer.h"
#include "path.h"

#define ICMP_CHUNK 64
/* longer ones are nobody's: routers quote at most 576 bytes (RFC 1812 section 4.3.2.3), and 1280 in
 * all over IPv6 (RFC 4443 section 3.2) */
#define ICMP_MAX_LEN 1472

/* what every router quotes of that which is behind the IP headers */
union quoted_start {
	struct udphdr udp;
	__be16 etherip;
};

struct path_icmp4 {
	__u8 type, code;
	__be16 check, unused, mtu;
	struct iphdr ip;
	union quoted_start start;
};

struct path_icmp6 {
	__u8 type, code;
	__be16 check;
	__be32 mtu;
	struct ipv6hdr ip;
	union quoted_start start;
};

_Static_assert(sizeof(struct path_icmp4) == 36 && sizeof(struct path_icmp6) == 56,
	       "as on the wire");

/* A router's error, whichever the family. In a map, since the stack has no room for it. */
struct path_error {
	/* where the ICMP message stands, and how long it is */
	__u32 offset;
	__u32 len;
	/* of the pseudo header, which ICMPv6 has */
	__u32 seed;
	__u32 mtu;
	/* of the packet that was too large: its whole length, what it was sent to, and how far into the
	 * message what is behind its IP headers begins, as much as the router quoted */
	__u32 total;
	__u32 quoted;
	union address host;
	union quoted_start start;
	__u8 protocol;
	/* whether its IP headers are such as we write */
	bool could_be_ours;
	/* of the packet that brings it, and what that holds */
	union {
		struct {
			struct iphdr ip;
			struct path_icmp4 icmp;
		} v4;
		struct {
			struct ipv6hdr ip;
			struct path_icmp6 icmp;
		} v6;
	};
};

_Static_assert(sizeof(((struct path_error *)0)->v4) == 56 &&
		       sizeof(((struct path_error *)0)->v6) == 96,
	       "as on the wire");

VNETD_MAP(path_error, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct path_error, 1, 0);

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

CHECKED_ONCE int icmp_checksum_right(struct __sk_buff *skb, const struct path_error *error)
{
	struct icmp_sum walk = { .skb = skb };
	__u32 sum;

	if (!error)
		return false;
	walk.offset = error->offset;
	walk.left = error->len;
	walk.sum = error->seed;
	bpf_loop(ICMP_MAX_LEN / ICMP_CHUNK, icmp_sum_chunk, &walk, 0);
	if (walk.failed || walk.left)
		return false;
	sum = (__u32)walk.sum;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/*
 * Reads an error. Below 0: it is none, or of a packet that cannot be ours. Above: what is wrong with the
 * packet that brings it, if it is. IPv4: without options.
 */
CHECKED_ONCE int path_error4(struct __sk_buff *skb, struct path_error *error)
{
	struct vnetd_underlay *underlay = underlay_at(skb->ifindex, VNETD_FAMILY_IPV4);
	struct path_icmp4 *icmp;
	struct iphdr *ip;

	if (!error || !underlay || bpf_skb_load_bytes(skb, ETH_HLEN, &error->v4, sizeof(error->v4)))
		return -1;
	ip = &error->v4.ip;
	icmp = &error->v4.icmp;
	if (icmp->type != ICMP_UNREACHABLE || icmp->code != ICMP_FRAG_NEEDED ||
	    icmp->ip.version != 4 || icmp->ip.ihl != 5)
		return -1;
	error->offset = ETH_HLEN + sizeof(*ip);
	error->len = bpf_ntohs(ip->tot_len) - sizeof(*ip);
	error->seed = 0;
	/* 0: a router from before RFC 1191 does not say how small */
	error->mtu = bpf_ntohs(icmp->mtu);
	error->total = bpf_ntohs(icmp->ip.tot_len);
	error->quoted = offsetof(struct path_icmp4, start);
	ipv4_to(error->host.bytes, icmp->ip.daddr);
	error->start = icmp->start;
	error->protocol = icmp->ip.protocol;
	error->could_be_ours = icmp->ip.saddr == ipv4_of(underlay->addr) &&
			       icmp->ip.frag_off == bpf_htons(IPV4_DF) &&
			       icmp->ip.ttl <= VNETD_TTL_UNICAST;
	if (error->protocol == IPPROTO_UDP &&
	    bpf_ntohs(icmp->start.udp.len) + sizeof(icmp->ip) != error->total)
		error->could_be_ours = false;
	if (ipv4_checksum(ip))
		return VNETD_DROP_BAD_HEADER_CHECKSUM;
	return ipv4_is_host(ip->saddr) ? VNETD_OK : VNETD_DROP_BAD_SOURCE_ADDRESS;
}

/* Behind the quoted fragment header of a packet that left in fragments: the first of them. */
static __always_inline int quoted_fragment(struct __sk_buff *skb, struct path_error *error)
{
	struct {
		struct ipv6_fragment fragment;
		union quoted_start start;
	} quote;

	if (bpf_skb_load_bytes(skb, error->offset + error->quoted, &quote, sizeof(quote)))
		return -1;
	if (quote.fragment.offset & bpf_htons(IPV6_OFFSET))
		return -1;
	error->quoted += sizeof(quote.fragment);
	error->start = quote.start;
	error->protocol = quote.fragment.nexthdr;
	/* EtherIP does not go in fragments */
	if (!(quote.fragment.offset & bpf_htons(IPV6_MORE)) || error->protocol != IPPROTO_UDP ||
	    bpf_ntohs(quote.start.udp.len) <=
		    error->total - sizeof(struct ipv6hdr) - sizeof(quote.fragment))
		error->could_be_ours = false;
	return 0;
}

/* The same for IPv6, without extension headers; but the quoted packet may be a fragment. */
CHECKED_ONCE int path_error6(struct __sk_buff *skb, struct path_error *error)
{
	struct vnetd_underlay *underlay = underlay_at(skb->ifindex, VNETD_FAMILY_IPV6);
	__be32 pseudo[2] = { 0, bpf_htonl(IPPROTO_ICMPV6) };
	struct path_icmp6 *icmp;
	struct ipv6hdr *ip;

	if (!error || !underlay || bpf_skb_load_bytes(skb, ETH_HLEN, &error->v6, sizeof(error->v6)))
		return -1;
	ip = &error->v6.ip;
	icmp = &error->v6.icmp;
	if (icmp->type != ICMPV6_PACKET_TOO_BIG || icmp->ip.version != 6)
		return -1;
	error->offset = ETH_HLEN + sizeof(*ip);
	error->len = bpf_ntohs(ip->payload_len);
	pseudo[0] = bpf_htonl(error->len);
	error->seed = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	error->seed =
		bpf_csum_diff(NULL, 0, (void *)&ip->saddr, 2 * sizeof(ip->saddr), error->seed);
	error->mtu = bpf_ntohl(icmp->mtu);
	error->total = bpf_ntohs(icmp->ip.payload_len) + sizeof(icmp->ip);
	error->quoted = offsetof(struct path_icmp6, start);
	__builtin_memcpy(&error->host, &icmp->ip.daddr, sizeof(error->host));
	error->start = icmp->start;
	error->protocol = icmp->ip.nexthdr;
	/* what a link must carry is never too big (RFC 8201 section 4); and we send no jumbograms */
	error->could_be_ours = same_words(icmp->ip.saddr.s6_addr32, (void *)underlay->addr) &&
			       icmp->ip.hop_limit <= VNETD_TTL_UNICAST &&
			       error->mtu >= VNETD_PATH_MTU_MIN_IPV6 && error->total <= 0xffff;
	if (error->protocol == IPPROTO_FRAGMENT) {
		if (quoted_fragment(skb, error))
			return -1;
	} else if (error->protocol == IPPROTO_UDP && icmp->start.udp.len != icmp->ip.payload_len) {
		error->could_be_ours = false;
	}
	return ipv6_names_host((void *)&ip->saddr) ? VNETD_OK : VNETD_DROP_BAD_SOURCE_ADDRESS;
}

/* Others are about packets of the stack's own sockets, which wait for them. */
static __always_inline bool about_frames(const struct path_error *error, __be16 port)
{
	if (error->protocol == VNETD_ETHERIP_PROTOCOL)
		return error->start.etherip == bpf_htons(VNETD_ETHERIP_VERSION);
	return error->protocol == IPPROTO_UDP && error->start.udp.dest == port &&
	       bpf_ntohs(error->start.udp.source) >= VNETD_SPORT_BASE;
}

/*
 * The record of the host that the packet was sent to, or NULL. Known is who said hello; and, where the
 * vnet is quoted, whoever this vnet has frames from or for. NULL too if the quote is of no vnet here.
 */
static __always_inline struct vnetd_host_path *path_of(struct __sk_buff *skb,
						       const struct path_error *error)
{
	struct vnetd_host_path_key key = path_key(skb->ifindex, error->host.bytes);
	struct vnetd_nexthop_key hop = { .ifindex = skb->ifindex };
	__u32 offset = error->quoted, *slot;
	struct vnetd_host_path *path = bpf_map_lookup_elem(&host_paths, &key);
	struct vnetd_vnet *vnet;
	__u32 id[VNETD_ID_LEN / 4];
	__be16 message;

	if (error->protocol == IPPROTO_UDP) {
		offset += sizeof(struct udphdr) + VNETD_MSG_HDR_LEN;
		if (offset <= error->len &&
		    (bpf_skb_load_bytes(skb, error->offset + offset - VNETD_MSG_HDR_LEN, &message,
					sizeof(message)) ||
		     message != bpf_htons(VNETD_MSG_VUDP)))
			return NULL;
	}
	if (offset + VNETD_ETHERIP_HDR_LEN > error->len)
		return path;
	if (bpf_skb_load_bytes(skb, error->offset + offset + sizeof(__be16), id, sizeof(id)))
		return NULL;
	slot = bpf_map_lookup_elem(&vnet_ids, id);
	vnet = slot ? vnet_by_slot(*slot) : NULL;
	if (!vnet || path)
		return vnet ? path : NULL;
	hop.handle = vnet->handle;
	__builtin_memcpy(hop.addr, key.addr, sizeof(hop.addr));
	if (!bpf_map_lookup_elem(&nexthop_ids, &hop))
		return NULL;
	path_known(key.ifindex, key.addr);
	return bpf_map_lookup_elem(&host_paths, &key);
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

/* An ICMP message to our address. Gives not_ours for what the stack is to have. */
CHECKED_ONCE int receive_path_icmp(struct __sk_buff *skb, __u32 not_ours)
{
	bool is_ipv6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct vnetd_underlay *underlay =
		underlay_at(skb->ifindex, is_ipv6 ? VNETD_FAMILY_IPV6 : VNETD_FAMILY_IPV4);
	__u32 zero = 0;
	struct path_error *error = bpf_map_lookup_elem(&path_error, &zero);
	struct vnetd_host_path *path;
	int reason;

	if (!underlay || !error)
		return not_ours;
	reason = is_ipv6 ? path_error6(skb, error) : path_error4(skb, error);
	if (reason < 0 || !about_frames(error, underlay->port))
		return not_ours;

	/* no other socket's business from here on */
	if (error->len < error->quoted + sizeof(error->start) || error->len > 0xffff ||
	    error->offset + error->len > skb->len)
		return VNETD_DROP_TRUNCATED;
	if (reason)
		return reason;
	if (!icmp_checksum_right(skb, error))
		return VNETD_DROP_ICMP_CHECKSUM;
	/* a virtual device may have carried a super-frame to the router whole */
	if (!error->could_be_ours || error->total <= error->mtu)
		return VNETD_DROP_ICMP_FORGED;
	path = path_of(skb, error);
	if (!path)
		return VNETD_DROP_ICMP_FORGED;
	path_mtu_said(path, error->mtu < VNETD_PATH_MTU_MIN ? VNETD_PATH_MTU_MIN : error->mtu);
	return VNETD_OK;
}

#endif
