/* SPDX-License-Identifier: GPL-2.0-only */
/* The outer headers: built here, and read here. */
#ifndef VNETD_OUTER_H
#define VNETD_OUTER_H

#include "maps.h"

/* the fields of frag_off, host byte order (RFC 791 section 3.1) */
#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff

#define ICMP_UNREACHABLE 3
#define ICMP_FRAG_NEEDED 4

#define IPV4_MAPPED_WORD bpf_htonl(0x0000ffff)

/* up to this many VLAN tags are written in front of a frame's own type */
#define MAX_TAGS 3
#define TAG_LEN 4

/* everything in front of an inner frame's payload, as it lies in the packet */
struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vnetd_vudp_hdr vudp;
} VNETD_PACKED;

_Static_assert(sizeof(struct outer) == ETH_HLEN + VNETD_VUDP_IPV4_OVERHEAD, "outer");

static __always_inline __be32 ipv4_of(const __u8 *addr16)
{
	__be32 addr;

	__builtin_memcpy(&addr, addr16 + 12, 4);
	return addr;
}

static __always_inline void ipv4_to(__u8 *addr16, __be32 addr)
{
	__u32 *words = (__u32 *)addr16;

	words[0] = 0;
	words[1] = 0;
	words[2] = IPV4_MAPPED_WORD;
	words[3] = addr;
}

static __always_inline bool ipv4_is_multicast(__be32 addr)
{
	return (addr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000);
}

/* 0/8, 127/8, multicast, class E and broadcast name no host (RFC 1122 section 3.2.1.3) */
static __always_inline bool ipv4_is_host(__be32 addr)
{
	return addr & bpf_htonl(0xff000000) &&
	       (addr & bpf_htonl(0xff000000)) != bpf_htonl(0x7f000000) &&
	       (addr & bpf_htonl(0xe0000000)) != bpf_htonl(0xe0000000);
}

/* False as well where the subnet is not known. */
static __always_inline bool on_subnet(__be32 addr, const struct vnetd_underlay *underlay)
{
	__u32 bits = underlay->prefix_len;

	if (!bits || bits > 32)
		return false;
	return !((bpf_ntohl(addr ^ ipv4_of(underlay->addr))) >> (32 - bits));
}

/* RFC 1112 section 6.4 */
static __always_inline void ipv4_group_mac(__u8 *mac, __be32 group)
{
	__u32 g = bpf_ntohl(group);

	mac[0] = 0x01;
	mac[1] = 0x00;
	mac[2] = 0x5e;
	mac[3] = (g >> 16) & 0x7f;
	mac[4] = (g >> 8) & 0xff;
	mac[5] = g & 0xff;
}

/*
 * RFC 1071, of a header of 20 bytes, 2-byte aligned. Gives the field's value if it is 0 now, and 0
 * for a header whose field is right.
 */
static __always_inline __be16 ipv4_checksum(const void *ip)
{
	const __u16 *words = ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The same for a header with options, len bytes from the start of the network header on. */
SUBPROGRAM bool ipv4_options_checksum_right(struct __sk_buff *skb, __u32 len)
{
	__be32 header[15] = {};
	__s64 sum;

	if (len < 20 || len > sizeof(header) || bpf_skb_load_bytes(skb, ETH_HLEN, header, len))
		return false;
	sum = bpf_csum_diff(NULL, 0, header, sizeof(header), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/*
 * DF is clear as the original sends it; ECN is not carried over (RFC 6040's compatibility mode);
 * the UDP checksum is 0 (RFC 768): the inner frame has its own.
 */
static __always_inline void outer_build(struct outer *out, const struct vnetd_underlay *underlay,
					const struct vnetd_vnet *vnet, __u32 inner_len, __u32 hash)
{
	__u32 port = VNETD_SPORT_BASE + ((hash ^ (hash >> 16)) & (VNETD_SPORT_SPAN - 1));

	out->eth.h_proto = bpf_htons(ETH_P_IP);
	__builtin_memcpy(out->eth.h_source, underlay->mac, ETH_ALEN);

	out->ip.version = 4;
	out->ip.ihl = 5;
	out->ip.tot_len = bpf_htons(inner_len + VNETD_VUDP_IPV4_OVERHEAD);
	out->ip.protocol = IPPROTO_UDP;
	out->ip.saddr = ipv4_of(underlay->addr);

	out->udp.source = bpf_htons(port);
	out->udp.dest = underlay->port;
	out->udp.len = bpf_htons(inner_len + sizeof(struct udphdr) + VNETD_VUDP_HDR_LEN);

	out->vudp.msg.id = bpf_htons(VNETD_MSG_VUDP);
	out->vudp.etherip = bpf_htons(VNETD_ETHERIP_VERSION);
	__builtin_memcpy(out->vudp.vnet, vnet->id, VNETD_ID_LEN);
}

static __always_inline void outer_to_host(struct outer *out, __be32 host, __u16 ip_id)
{
	out->ip.id = bpf_htons(ip_id);
	out->ip.ttl = VNETD_TTL_UNICAST;
	out->ip.daddr = host;
	out->ip.check = 0;
	out->ip.check = ipv4_checksum((void *)out + ETH_HLEN);
}

static __always_inline void outer_to_group(struct outer *out, const struct vnetd_underlay *underlay,
					   __u16 ip_id)
{
	__be32 group = ipv4_of(underlay->group);

	ipv4_group_mac(out->eth.h_dest, group);
	__builtin_memcpy(out->eth.h_source, underlay->mac, ETH_ALEN);
	out->udp.dest = underlay->port;
	out->ip.id = bpf_htons(ip_id);
	out->ip.ttl = VNETD_TTL_GROUP;
	out->ip.saddr = ipv4_of(underlay->addr);
	out->ip.daddr = group;
	out->ip.check = 0;
	out->ip.check = ipv4_checksum((void *)out + ETH_HLEN);
}

#endif
