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
#define ICMPV6_PACKET_TOO_BIG 2

/* RFC 8200 section 4.5 */
struct ipv6_fragment {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* the fields of its offset, host byte order */
#define IPV6_OFFSET 0xfff8
#define IPV6_MORE 0x0001

/* in skb->vlan_tci */
#define VLAN_ID 0x0fff
/* up to this many VLAN tags are written in front of a frame's own type */
#define MAX_TAGS 3
#define TAG_LEN 4

/*
 * The forms of what stands in front of an inner frame. They end alike, with EtherIP's version and the
 * vnet id, so they lie right-aligned in one buffer: what follows is in the same place for all.
 */
enum outer_form {
	FORM_UDP4 = 0,
	FORM_UDP6 = 1,
	FORM_ETHERIP4 = 2,
	FORM_ETHERIP6 = 3,
};
#define OUTER_PAD 2
#define FORM_IPV6 1
#define FORM_ETHERIP 2

/* as it lies in the packet; the IP headers are where their words are aligned */
struct outer {
	union {
		struct {
			__u8 unused[OUTER_PAD];
			struct ethhdr eth;
			struct ipv6hdr ip;
			struct udphdr udp;
			struct vnetd_msg_hdr msg;
		} VNETD_PACKED udp6;
		struct {
			__u8 unused[OUTER_PAD + 20];
			struct ethhdr eth;
			struct iphdr ip;
			struct udphdr udp;
			struct vnetd_msg_hdr msg;
		} VNETD_PACKED udp4;
		struct {
			__u8 unused[OUTER_PAD + 12];
			struct ethhdr eth;
			struct ipv6hdr ip;
		} VNETD_PACKED etherip6;
		struct {
			__u8 unused[OUTER_PAD + 32];
			struct ethhdr eth;
			struct iphdr ip;
		} VNETD_PACKED etherip4;
	};
	__be16 etherip;
	__u8 vnet[VNETD_ID_LEN];
} VNETD_PACKED;

/* the longest form, without what aligns it */
#define OUTER_MAX (sizeof(struct outer) - OUTER_PAD)
_Static_assert(OUTER_MAX == ETH_HLEN + VNETD_VUDP_IPV6_OVERHEAD, "outer");

/*
 * The bytes from the outer IP header on up to the inner frame: the one place that knows them. Computed,
 * here and in form_of(), because the verifier walks all that follows once for each branch.
 */
static __always_inline __u32 overhead_of(__u32 form)
{
	return VNETD_VUDP_IPV4_OVERHEAD +
	       (form & FORM_IPV6) * (VNETD_VUDP_IPV6_OVERHEAD - VNETD_VUDP_IPV4_OVERHEAD) -
	       (form >> 1 & 1) * (VNETD_VUDP_IPV4_OVERHEAD - VNETD_ETHERIP_IPV4_OVERHEAD);
}

_Static_assert(VNETD_VUDP_IPV6_OVERHEAD - VNETD_VUDP_IPV4_OVERHEAD ==
		       VNETD_ETHERIP_IPV6_OVERHEAD - VNETD_ETHERIP_IPV4_OVERHEAD,
	       "the families differ by the same");
_Static_assert(VNETD_ENCAP_ETHERIP << 1 == FORM_ETHERIP, "form_of");
_Static_assert(VNETD_FAMILY_IPV4 == 4 && VNETD_FAMILY_IPV6 == 6, "form_of");

/* The same and the outer Ethernet header: what is made room for. */
static __always_inline __u32 room_of(__u32 form)
{
	return ETH_HLEN + overhead_of(form);
}

static __always_inline __u32 form_of(const struct vnetd_underlay *underlay, __u32 encap)
{
	return (underlay->family >> 1 & FORM_IPV6) | (encap & VNETD_ENCAP_ETHERIP) << 1;
}

static __always_inline bool same_words(const __be32 *a, const __be32 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

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

/* May the address be a host's? ::ffff:0:0/96 would be taken for IPv4, ::/127 and multicast are
 * nobody's (RFC 4291 section 2.7). */
static __always_inline bool ipv6_names_host(const union address *addr)
{
	if (addr->bytes[0] == 0xff || address_is_ipv4(addr))
		return false;
	return addr->words[0] | addr->words[1] | addr->words[2] |
	       (addr->words[3] & bpf_htonl(0xfffffffe));
}

/* fe80::/10: on the link, whatever the prefix of the address that is used there */
static __always_inline bool is_link_local(const union address *addr)
{
	return (addr->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* False as well where the subnet is not known. */
CHECKED_ONCE int on_subnet(const union address *addr, const struct vnetd_underlay *underlay)
{
	const __be32 *own;
	__u32 differ = 0;
	__s32 bits;

	if (!addr || !underlay || !underlay->prefix_len)
		return false;
	own = (const void *)underlay->addr;
	bits = underlay->prefix_len + (underlay->family == VNETD_FAMILY_IPV4 ? 96 : 0);
#pragma unroll
	for (int i = 0; i < 4; i++, bits -= 32) {
		__s32 here = bits < 0 ? 0 : bits > 32 ? 32 : bits;

		differ |=
			bpf_ntohl(addr->words[i] ^ own[i]) & (__u32)(0xffffffff00000000ULL >> here);
	}
	return !differ;
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

/* RFC 2464 section 7 */
static __always_inline void ipv6_group_mac(__u8 *mac, const __u8 *group)
{
	mac[0] = 0x33;
	mac[1] = 0x33;
	__builtin_memcpy(mac + 2, group + 12, 4);
}

/* What the outer headers are made of, beside the place and the destination. */
struct outer_spec {
	__u32 inner_len;
	/* of the inner flow: the UDP source port, and IPv6's flow label (RFC 6438) */
	__u32 hash;
	/* changes from frame to frame, and is one for all copies of a group frame: IPv4's id, and
	 * the flow label of what goes to IPv6's group */
	__u16 ip_id;
	/* 0: the underlay's */
	__be16 port;
	/* enum outer_form */
	__u8 form;
	/* UDP over IPv4: hosts of ours listen to what routers say then */
	/* 0 or 1 */
	__u8 dont_fragment;
	/* what is not IP is left to the other hook */
	bool ip_only;
};

/*
 * DF is clear over UDP as the original sends it, but to hosts of ours, and set over EtherIP as the
 * original's module did.
 * ECN is not carried over (RFC 6040's compatibility mode). to is NULL for the group.
 */
static __always_inline void outer_ipv4(struct ethhdr *eth, struct iphdr *ip,
				       const struct outer_spec *s,
				       const struct vnetd_underlay *underlay,
				       const union address *to)
{
	__builtin_memcpy(eth->h_source, underlay->mac, ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_IP);
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons(s->inner_len + overhead_of(s->form));
	ip->id = bpf_htons(s->ip_id);
	ip->saddr = ipv4_of(underlay->addr);
	if (to) {
		ip->ttl = VNETD_TTL_UNICAST;
		ip->daddr = to->words[3];
	} else {
		ip->ttl = VNETD_TTL_GROUP;
		ip->daddr = ipv4_of(underlay->group);
		ipv4_group_mac(eth->h_dest, ip->daddr);
	}
	ip->check = 0;
	ip->check = ipv4_checksum(ip);
}

static __always_inline void outer_ipv6(struct ethhdr *eth, struct ipv6hdr *ip,
				       const struct outer_spec *s,
				       const struct vnetd_underlay *underlay,
				       const union address *to)
{
	__builtin_memcpy(eth->h_source, underlay->mac, ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	*(__be32 *)ip = bpf_htonl(6U << 28 | (to ? s->hash & 0xfffff : s->ip_id));
	ip->payload_len = bpf_htons(s->inner_len + overhead_of(s->form) - sizeof(*ip));
	__builtin_memcpy(&ip->saddr, underlay->addr, sizeof(ip->saddr));
	if (to) {
		ip->hop_limit = VNETD_TTL_UNICAST;
		__builtin_memcpy(&ip->daddr, to, sizeof(ip->daddr));
	} else {
		ip->hop_limit = VNETD_TTL_GROUP;
		__builtin_memcpy(&ip->daddr, underlay->group, sizeof(ip->daddr));
		ipv6_group_mac(eth->h_dest, underlay->group);
	}
}

/*
 * The checksum is 0, which RFC 768 allows over IPv4 and RFC 6935 and 6936 for tunnels over IPv6: the
 * inner frame has its own, the vnet id is checked by what it finds, and nobody would fill it in for
 * the segments of a super-frame.
 */
static __always_inline void outer_udp(struct udphdr *udp, struct vnetd_msg_hdr *msg,
				      const struct outer_spec *s,
				      const struct vnetd_underlay *underlay)
{
	__u32 port = VNETD_SPORT_BASE + ((s->hash ^ (s->hash >> 16)) & (VNETD_SPORT_SPAN - 1));

	udp->source = bpf_htons(port);
	udp->dest = s->port ?: underlay->port;
	udp->len = bpf_htons(s->inner_len + sizeof(*udp) + VNETD_VUDP_HDR_LEN);
	msg->id = bpf_htons(VNETD_MSG_VUDP);
}

CHECKED_ONCE int outer_etherip(struct outer *out, const struct outer_spec *s,
			       const struct vnetd_underlay *underlay, const union address *to)
{
	if (!out || !s || !underlay)
		return -1;
	if (s->form == FORM_ETHERIP4) {
		out->etherip4.ip.protocol = VNETD_ETHERIP_PROTOCOL;
		out->etherip4.ip.frag_off = bpf_htons(IPV4_DF);
		outer_ipv4(&out->etherip4.eth, &out->etherip4.ip, s, underlay, to);
	} else {
		out->etherip6.ip.nexthdr = VNETD_ETHERIP_PROTOCOL;
		outer_ipv6(&out->etherip6.eth, &out->etherip6.ip, s, underlay, to);
	}
	return 0;
}

/* What all forms end with. */
static __always_inline void outer_end(struct outer *out, const struct vnetd_vnet *vnet)
{
	out->etherip = bpf_htons(VNETD_ETHERIP_VERSION);
	__builtin_memcpy(out->vnet, vnet->id, VNETD_ID_LEN);
}

/* All that is in front of that, to a host or, where to is NULL, to the underlay's group. */
static __always_inline void outer_write(struct outer *out, const struct outer_spec *s,
					const struct vnetd_underlay *underlay,
					const union address *to)
{
	if (likely(s->form == FORM_UDP4)) {
		out->udp4.ip.protocol = IPPROTO_UDP;
		out->udp4.ip.frag_off = s->dont_fragment * bpf_htons(IPV4_DF);
		outer_ipv4(&out->udp4.eth, &out->udp4.ip, s, underlay, to);
		outer_udp(&out->udp4.udp, &out->udp4.msg, s, underlay);
	} else if (likely(s->form == FORM_UDP6)) {
		out->udp6.ip.nexthdr = IPPROTO_UDP;
		outer_ipv6(&out->udp6.eth, &out->udp6.ip, s, underlay, to);
		outer_udp(&out->udp6.udp, &out->udp6.msg, s, underlay);
	} else {
		outer_etherip(out, s, underlay, to);
	}
}

/* The same where it is not known frames to one host that wait for it. */
CHECKED_ONCE int write_outer_headers(struct outer *out, const struct outer_spec *s,
				     const struct vnetd_underlay *underlay, const union address *to)
{
	if (!out || !s || !underlay)
		return -1;
	outer_write(out, s, underlay, to);
	return 0;
}

#endif
