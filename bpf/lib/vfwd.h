/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The headers of a packet that holds one message, and of a group packet that is inside VFWD, for
 * either family: read and built here, for bpf/relay.bpf.c and bpf/reassembled.bpf.c.
 */
#ifndef VNETD_BPF_VFWD_H
#define VNETD_BPF_VFWD_H

#include "outer.h"

/*
 * What stands in front of a message, as it lies in the packet behind two bytes that align it. Where
 * `is_ipv6` is a parameter below it need not be constant, but lengths and offsets are: Linux 6.1's
 * verifier loses the bound of a computed one.
 */
#define FRONT_PAD 2
union front {
	struct {
		__u8 unused[FRONT_PAD];
		struct ethhdr eth;
	} VNETD_PACKED any;
	struct {
		__u8 unused[FRONT_PAD];
		struct ethhdr eth;
		struct iphdr ip;
		struct udphdr udp;
	} VNETD_PACKED v4;
	struct {
		__u8 unused[FRONT_PAD];
		struct ethhdr eth;
		struct ipv6hdr ip;
		struct udphdr udp;
	} VNETD_PACKED v6;
} __attribute__((aligned(8)));

#define FRONT4 (sizeof(((union front *)0)->v4) - FRONT_PAD)
#define FRONT6 (sizeof(((union front *)0)->v6) - FRONT_PAD)

/* What VFWD puts between that and the message that is forwarded. */
union vfwd {
	struct {
		struct vnetd_msg_hdr msg;
		struct iphdr ip;
		struct udphdr udp;
	} VNETD_PACKED v4;
	struct {
		struct vnetd_msg_hdr msg;
		struct ipv6hdr ip;
		struct udphdr udp;
	} VNETD_PACKED v6;
} __attribute__((aligned(8)));

_Static_assert(sizeof(((union vfwd *)0)->v4) == VNETD_VFWD_HDR_LEN, "VFWD");
_Static_assert(sizeof(((union vfwd *)0)->v6) == VNETD_VFWD_IPV6_HDR_LEN, "VFWD");

/* The bytes that VFWD adds to a group packet: beside overhead_of() the one place that knows. */
static __always_inline __u32 vfwd_overhead(bool is_ipv6)
{
	return is_ipv6 ? VNETD_VFWD_IPV6_HDR_LEN : VNETD_VFWD_HDR_LEN;
}

static __always_inline __u32 front_len(bool is_ipv6)
{
	return is_ipv6 ? FRONT6 : FRONT4;
}

static __always_inline __u32 ip_len(bool is_ipv6)
{
	return is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

static __always_inline int front_load(struct __sk_buff *skb, union front *front, bool is_ipv6)
{
	return is_ipv6 ? bpf_skb_load_bytes(skb, 0, &front->v6.eth, FRONT6)
		       : bpf_skb_load_bytes(skb, 0, &front->v4.eth, FRONT4);
}

static __always_inline int front_store(struct __sk_buff *skb, const union front *front,
				       bool is_ipv6)
{
	return is_ipv6 ? bpf_skb_store_bytes(skb, 0, &front->v6.eth, FRONT6, 0)
		       : bpf_skb_store_bytes(skb, 0, &front->v4.eth, FRONT4, 0);
}

/* behind an Ethernet header, as it lies in the unions above */
typedef struct iphdr iphdr_at_4 __attribute__((aligned(4)));
typedef struct ipv6hdr ipv6hdr_at_4 __attribute__((aligned(4)));

struct ip_spec {
	/* 16 bytes each, in the maps' form */
	const union address *source, *destination;
	/* of what is behind the header */
	__u32 payload;
	/* IPv4's id, or the flow label */
	__u16 id;
	__u8 ttl;
};

/* The checksum is left 0. */
static __always_inline void ipv4_build(iphdr_at_4 *ip, const struct ip_spec *spec)
{
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = 0;
	ip->tot_len = bpf_htons(sizeof(*ip) + spec->payload);
	ip->id = bpf_htons(spec->id);
	ip->frag_off = 0;
	ip->ttl = spec->ttl;
	ip->protocol = IPPROTO_UDP;
	ip->check = 0;
	ip->saddr = spec->source->words[3];
	ip->daddr = spec->destination->words[3];
}

static __always_inline void ipv6_build(ipv6hdr_at_4 *ip, const struct ip_spec *spec)
{
	*(__be32 *)ip = bpf_htonl(6U << 28 | spec->id);
	ip->payload_len = bpf_htons(spec->payload);
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = spec->ttl;
	__builtin_memcpy(&ip->saddr, spec->source, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, spec->destination, sizeof(ip->daddr));
}

/* The number by which copies of a group packet are told: IPv4's id, or what the flow label holds. */
static __always_inline __u16 ipv6_number(const ipv6hdr_at_4 *ip)
{
	return bpf_ntohl(*(const __be32 *)ip);
}

/* Everything but the destination's MAC, for a UDP packet without a checksum. */
static __always_inline void front_build(union front *front, bool is_ipv6,
					const struct ip_spec *spec, const __u8 *mac)
{
	__builtin_memcpy(front->any.eth.h_source, mac, ETH_ALEN);
	if (is_ipv6) {
		front->any.eth.h_proto = bpf_htons(ETH_P_IPV6);
		ipv6_build(&front->v6.ip, spec);
		front->v6.udp.len = bpf_htons(spec->payload);
		front->v6.udp.check = 0;
	} else {
		front->any.eth.h_proto = bpf_htons(ETH_P_IP);
		ipv4_build(&front->v4.ip, spec);
		front->v4.ip.check = ipv4_checksum(&front->v4.ip);
		front->v4.udp.len = bpf_htons(spec->payload);
		front->v4.udp.check = 0;
	}
}

static __always_inline void front_ports(union front *front, bool is_ipv6, __be16 source,
					__be16 destination)
{
	if (is_ipv6) {
		front->v6.udp.source = source;
		front->v6.udp.dest = destination;
	} else {
		front->v4.udp.source = source;
		front->v4.udp.dest = destination;
	}
}

static __always_inline void group_mac(__u8 *mac, const union address *group, bool is_ipv6)
{
	if (is_ipv6)
		ipv6_group_mac(mac, group->bytes);
	else
		ipv4_group_mac(mac, group->words[3]);
}

#endif
