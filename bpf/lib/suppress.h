/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Suppression, in vnets that have it: what guests say of their addresses by ARP and neighbour discovery is remembered,
 * and what one asks all for is answered here, if the owner of the address is behind another host and was heard of
 * lately. So the question does not go to all hosts.
 *
 *   suppress_leaves()   a frame from a guest of this host: remembered, perhaps answered
 *   suppress_arrives()  a frame from another host: remembered
 *
 * Never answered, so flooded as ever: what is for one MAC (a guest that looks whether another is still there must
 * find out); probes and duplicate address detection (RFC 5227, RFC 4862), which ask whether anybody has an address;
 * what says that the sender itself has an address; tagged frames; what is not known, not heard for
 * vnet->neighbour_age_ns, or behind no other host that is known.
 * Checksums of ICMPv6 are not looked at: guests do, and a frame whose checksum is wrong says nothing that another
 * could not.
 */
#ifndef VNETD_SUPPRESS_H
#define VNETD_SUPPRESS_H

#include "frame.h"
#include "neighbour.h"
#include "ports.h"

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_HOP_LIMIT 255
/* of an advertisement: router, solicited, override */
#define ND_ROUTER 0x80
#define ND_SOLICITED 0x40
#define ND_OVERRIDE 0x20
#define ND_SOURCE_OPTION 1
#define ND_TARGET_OPTION 2
/* options that are looked at, and the length of a link-layer address's, in units of 8 bytes */
#define ND_MAX_OPTIONS 4
#define ND_MAC_UNITS 1

struct arp_frame {
	struct ethhdr eth;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} VNETD_PACKED;

/* A solicitation or an advertisement. */
struct nd_message {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__u8 flags;
	__u8 reserved[3];
	union address target;
} VNETD_PACKED;

struct nd_option {
	__u8 type;
	/* in units of 8 bytes */
	__u8 units;
	__u8 mac[ETH_ALEN];
} VNETD_PACKED;

/* pad: so that what is summed up is aligned */
struct nd_frame {
	__u16 pad;
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct nd_message nd;
	struct nd_option option;
} VNETD_PACKED __attribute__((aligned(8)));

#define ND_FRAME_LEN (sizeof(struct nd_frame) - sizeof(__u16))
#define ND_PAYLOAD_LEN (sizeof(struct nd_message) + sizeof(struct nd_option))

/* What a frame says of neighbours. */
struct neighbour_talk {
	struct neighbour_news news;
	/* of whom it asks all, if is_question */
	struct vnetd_neighbour_key target;
	/* news says something */
	__u8 is_news;
	__u8 is_question;
	__u8 is_ipv6;
	__u8 pad;
};

static __always_inline bool is_host_mac(const __u8 *mac)
{
	return !is_group_mac(mac) && (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

static __always_inline bool is_broadcast_mac(const __u8 *mac)
{
	return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

/* An address that a guest can have: not 0/8, loopback, multicast or beyond. */
static __always_inline bool ipv4_is_guests(__be32 addr)
{
	__u8 first = bpf_ntohl(addr) >> 24;

	return first && first != 127 && first < 224;
}

/* Not unspecified, loopback, multicast, or an IPv4 address in IPv6's form, which is the table's for ARP. */
static __always_inline bool ipv6_is_guests(const union address *addr)
{
	if (addr->bytes[0] == 0xff || address_is_ipv4(addr))
		return false;
	return addr->words[0] | addr->words[1] | addr->words[2] |
	       (addr->words[3] & bpf_htonl(0xfffffffe));
}

/* Whether it is the group of the target's (RFC 4291 section 2.7.1). */
static __always_inline bool is_solicited_node(const __be32 *group, const union address *target)
{
	return group[0] == bpf_htonl(0xff020000) && !group[1] && group[2] == bpf_htonl(1) &&
	       group[3] == (target->words[3] | bpf_htonl(0xff000000));
}

static __always_inline void read_arp(struct __sk_buff *skb, struct neighbour_talk *talk)
{
	struct arp_frame arp;

	if (bpf_skb_load_bytes(skb, 0, &arp, sizeof(arp)))
		return;
	if (arp.hardware != bpf_htons(ARP_ETHERNET) || arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.hardware_len != ETH_ALEN || arp.protocol_len != sizeof(arp.sender))
		return;
	if (arp.operation != bpf_htons(ARP_REQUEST) && arp.operation != bpf_htons(ARP_REPLY))
		return;
	/* a probe has no sender */
	if (!same_mac(arp.sender_mac, arp.eth.h_source) || !is_host_mac(arp.sender_mac) ||
	    !ipv4_is_guests(arp.sender))
		return;
	ipv4_to(talk->news.key.addr, arp.sender);
	__builtin_memcpy(talk->news.mac, arp.sender_mac, ETH_ALEN);
	talk->is_news = true;
	if (arp.operation != bpf_htons(ARP_REQUEST) || !is_broadcast_mac(arp.eth.h_dest) ||
	    arp.target == arp.sender || !ipv4_is_guests(arp.target))
		return;
	ipv4_to(talk->target.addr, arp.target);
	talk->is_question = true;
}

/* The option with a MAC among the first few. False: the message is not valid. */
static __always_inline bool nd_option_find(struct __sk_buff *skb, __u32 end, __u8 type,
					   struct nd_option *found)
{
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct nd_message);
	struct nd_option option;

	found->units = 0;
	for (int i = 0; i < ND_MAX_OPTIONS && at + sizeof(option) <= end; i++) {
		if (bpf_skb_load_bytes(skb, at, &option, sizeof(option)) || !option.units)
			return false;
		if (option.type == type && option.units == ND_MAC_UNITS && !found->units)
			*found = option;
		at += option.units * 8;
	}
	return true;
}

static __always_inline void read_solicitation(struct __sk_buff *skb, const struct nd_frame *in,
					      struct neighbour_talk *talk)
{
	union address source;

	__builtin_memcpy(&source, &in->ip.saddr, sizeof(source));
	/* duplicate address detection has no source */
	if (!ipv6_is_guests(&source) || in->option.units != ND_MAC_UNITS)
		return;
	__builtin_memcpy(talk->news.key.addr, &source, sizeof(source));
	talk->is_news = true;
	/* to the target's own group; to one MAC it is a question whether the neighbour is still there */
	if (!is_group_mac(in->eth.h_dest) ||
	    !is_solicited_node((void *)&in->ip.daddr, &in->nd.target) ||
	    same_words(source.words, (void *)&in->nd.target))
		return;
	__builtin_memcpy(talk->target.addr, &in->nd.target, sizeof(in->nd.target));
	talk->is_question = true;
}

static __always_inline void read_advertisement(const struct nd_frame *in,
					       struct neighbour_talk *talk)
{
	__u8 flags = in->nd.flags;

	if (in->ip.daddr.s6_addr[0] == 0xff && flags & ND_SOLICITED)
		return;
	/* somebody's who has it beside others, or for another: whom to answer with is not for us to say */
	if (in->option.units && !(flags & ND_OVERRIDE))
		return;
	__builtin_memcpy(talk->news.key.addr, &in->nd.target, sizeof(in->nd.target));
	talk->news.flags = VNETD_NEIGHBOUR_ADVERTISED;
	if (flags & ND_ROUTER)
		talk->news.flags |= VNETD_NEIGHBOUR_ROUTER;
	/* what is answered to one host alone need not repeat the MAC */
	talk->news.confirms = !in->option.units;
	talk->is_news = true;
}

/* What of RFC 4861, sections 7.1.1 and 7.1.2, is for others than the receiver to look at. */
static __always_inline void read_nd(struct __sk_buff *skb, struct neighbour_talk *talk)
{
	struct nd_frame in;
	__u32 payload;
	__u8 type;

	if (bpf_skb_load_bytes(skb, 0, &in.eth, ND_FRAME_LEN - sizeof(in.option)))
		return;
	payload = bpf_ntohs(in.ip.payload_len);
	type = in.nd.type;
	if (in.ip.version != 6 || in.ip.nexthdr != IPPROTO_ICMPV6 ||
	    in.ip.hop_limit != ND_HOP_LIMIT || in.nd.code || payload < sizeof(in.nd))
		return;
	if (type != ND_SOLICITATION && type != ND_ADVERTISEMENT)
		return;
	if (!ipv6_is_guests(&in.nd.target) || !is_host_mac(in.eth.h_source))
		return;
	if (!nd_option_find(skb, ETH_HLEN + sizeof(in.ip) + payload,
			    type == ND_SOLICITATION ? ND_SOURCE_OPTION : ND_TARGET_OPTION,
			    &in.option))
		return;
	if (in.option.units && !same_mac(in.option.mac, in.eth.h_source))
		return;
	__builtin_memcpy(talk->news.mac, in.eth.h_source, ETH_ALEN);
	talk->is_ipv6 = true;
	if (type == ND_SOLICITATION)
		read_solicitation(skb, &in, talk);
	else
		read_advertisement(&in, talk);
}

/* A frame that may be of neighbours; the rest goes no further than here. */
static __always_inline bool may_talk(struct __sk_buff *skb)
{
	__be16 type;
	__u8 next;

	if (skb->vlan_present || bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &type, sizeof(type)))
		return false;
	if (type != bpf_htons(ETH_P_IPV6))
		return type == bpf_htons(ETH_P_ARP);
	return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &next, 1) &&
	       next == IPPROTO_ICMPV6;
}

/* Of a frame that may talk. A function of its own: its stack is given back before anything is entered. */
CHECKED_ONCE int talk_read(struct __sk_buff *skb, struct neighbour_talk *talk)
{
	__be16 type;

	if (!talk || bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &type, sizeof(type)))
		return 0;
	if (type == bpf_htons(ETH_P_ARP))
		read_arp(skb, talk);
	else
		read_nd(skb, talk);
	return 0;
}

/* Reads what a frame says, and enters it. flags: LOCAL or 0 */
static __always_inline void talk_hear(struct __sk_buff *skb, const struct vnetd_vnet *vnet,
				      __u32 slot, __u16 flags, struct neighbour_talk *talk)
{
	talk_read(skb, talk);
	if (!talk->is_news)
		return;
	talk->news.key.handle = vnet->handle;
	talk->target.handle = vnet->handle;
	talk->news.slot = slot;
	talk->news.flags |= flags;
	neighbour_learn(&talk->news, vnet);
}

/* What to answer with: the entry of the address that is asked for, as one word; 0: it is flooded. */
static __always_inline __u64 answer_of(const struct neighbour_talk *talk,
				       const struct vnetd_vnet *vnet)
{
	struct vnetd_neighbour *entry = bpf_map_lookup_elem(&neighbours, &talk->target), known;
	struct vnetd_fdb_key key = { .handle = vnet->handle };
	struct vnetd_fdb_entry *where;
	struct vnetd_nexthop *hop;
	__u64 now = now_ns(), target;

	if (!entry || !neighbour_fresh(entry, vnet, now))
		return 0;
	*(__u64 *)&known = neighbour_word(entry);
	/* whoever is said to be no router is taken out of the guest's list of routers (RFC 4861 section 7.2.5) */
	if (talk->is_ipv6 && !(known.flags & VNETD_NEIGHBOUR_ADVERTISED))
		return 0;
	__builtin_memcpy(key.mac, known.mac, VNETD_MAC_LEN);
	where = bpf_map_lookup_elem(&fdb, &key);
	if (!where || !fdb_fresh(where, vnet, now))
		return 0;
	target = fdb_target(where);
	/* one on this host hears the question by the bridge */
	if ((__u32)target == VNETD_NEXTHOP_LOCAL)
		return 0;
	hop = nexthop_by_id((__u32)target);
	return hop && hop->gen == target >> 32 ? *(__u64 *)&known : 0;
}

static __always_inline int write_arp_answer(struct __sk_buff *skb, const __u8 *mac)
{
	struct arp_frame arp;
	__be32 target;

	if (bpf_skb_load_bytes(skb, 0, &arp, sizeof(arp)))
		return -1;
	target = arp.target;
	__builtin_memcpy(arp.eth.h_dest, arp.sender_mac, ETH_ALEN);
	__builtin_memcpy(arp.eth.h_source, mac, ETH_ALEN);
	arp.operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
	arp.target = arp.sender;
	__builtin_memcpy(arp.sender_mac, mac, ETH_ALEN);
	arp.sender = target;
	return bpf_skb_store_bytes(skb, 0, &arp, sizeof(arp), 0);
}

/* Of what is written into a frame that answers. */
static __always_inline __be16 nd_checksum(const struct nd_frame *out)
{
	__be32 pseudo[2] = { bpf_htonl(ND_PAYLOAD_LEN), bpf_htonl(IPPROTO_ICMPV6) };
	__u64 sum;

	sum = bpf_csum_diff(NULL, 0, (void *)pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)&out->ip.saddr, 2 * sizeof(out->ip.saddr), sum);
	sum = bpf_csum_diff(NULL, 0, (void *)&out->nd, ND_PAYLOAD_LEN, sum);
	sum = (__u32)sum;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int write_nd_answer(struct __sk_buff *skb, const __u8 *mac, __u16 known)
{
	struct nd_frame out;
	struct in6_addr asker;

	if (bpf_skb_change_tail(skb, ND_FRAME_LEN, 0) ||
	    bpf_skb_load_bytes(skb, 0, &out.eth, ND_FRAME_LEN))
		return -1;
	asker = out.ip.saddr;
	__builtin_memcpy(out.eth.h_dest, out.eth.h_source, ETH_ALEN);
	__builtin_memcpy(out.eth.h_source, mac, ETH_ALEN);
	*(__be32 *)&out.ip = bpf_htonl(0x60000000);
	out.ip.payload_len = bpf_htons(ND_PAYLOAD_LEN);
	__builtin_memcpy(&out.ip.saddr, &out.nd.target, sizeof(out.ip.saddr));
	out.ip.daddr = asker;
	out.nd.type = ND_ADVERTISEMENT;
	out.nd.checksum = 0;
	/* no override: what the owner says itself counts for more */
	out.nd.flags = ND_SOLICITED | (known & VNETD_NEIGHBOUR_ROUTER ? ND_ROUTER : 0);
	__builtin_memset(out.nd.reserved, 0, sizeof(out.nd.reserved));
	out.option.type = ND_TARGET_OPTION;
	out.option.units = ND_MAC_UNITS;
	__builtin_memcpy(out.option.mac, mac, ETH_ALEN);
	out.nd.checksum = nd_checksum(&out);
	return bpf_skb_store_bytes(skb, 0, &out.eth, ETH_HLEN, 0)
		       ?: bpf_skb_store_bytes(skb, ETH_HLEN, &out.ip, ND_FRAME_LEN - ETH_HLEN,
					      BPF_F_RECOMPUTE_CSUM);
}

/* Makes the answer of the question. */
CHECKED_ONCE int write_answer(struct __sk_buff *skb, __u64 answer, __u32 is_ipv6)
{
	struct vnetd_neighbour known;

	*(__u64 *)&known = answer;
	return is_ipv6 ? write_nd_answer(skb, known.mac, known.flags)
		       : write_arp_answer(skb, known.mac);
}

/* What ends here never gets to where sources are learned. Why it is refused is said there. */
CHECKED_ONCE int asker_learn(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot,
			     __u32 port)
{
	struct fdb_news news = { .slot = slot, .nexthop = VNETD_NEXTHOP_LOCAL, .gen = port };

	if (!vnet)
		return VNETD_REFUSED_TABLE_FULL;
	news.key.handle = vnet->handle;
	news.now = now_ns();
	if (bpf_skb_load_bytes(skb, ETH_ALEN, news.key.mac, VNETD_MAC_LEN))
		return VNETD_REFUSED_TABLE_FULL;
	return fdb_learn(&news, vnet);
}

/* See suppress_leaves(). */
CHECKED_ONCE int talk_leaves(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot,
			     __u32 port)
{
	struct neighbour_talk talk = {};
	__u64 answer;

	if (!vnet)
		return NOT_TAKEN;
	talk_hear(skb, vnet, slot, VNETD_NEIGHBOUR_LOCAL, &talk);
	if (!talk.is_question)
		return NOT_TAKEN;
	answer = answer_of(&talk, vnet);
	if (!answer || asker_learn(skb, vnet, slot, port))
		return NOT_TAKEN;
	if (write_answer(skb, answer, talk.is_ipv6))
		return TC_ACT_SHOT;
	COUNT_NEIGHBOUR(slot, answered);
	skb->mark = VNETD_MARK_NONE;
	return bpf_redirect(skb->ifindex, 0);
}

/*
 * A frame from a guest, on the device that it came by. port: its ifindex if it is a direct port, or 0. Gives the program's
 * return value, or NOT_TAKEN: it goes on its way.
 */
static __always_inline int suppress_leaves(struct __sk_buff *skb, const struct vnetd_vnet *vnet,
					   __u32 slot, __u32 port)
{
	return may_talk(skb) ? talk_leaves(skb, vnet, slot, port) : NOT_TAKEN;
}

CHECKED_ONCE int talk_arrives(struct __sk_buff *skb, const struct vnetd_vnet *vnet)
{
	struct neighbour_talk talk = {};
	struct vnetd_port *entry;
	__u32 peer;

	if (!vnet)
		return 0;
	peer = vnet->vnif_peer;
	entry = bpf_map_lookup_elem(&ports, &peer);
	if (entry && entry->handle == vnet->handle)
		talk_hear(skb, vnet, entry->slot, 0, &talk);
	return 0;
}

/* A frame from another host, as its guests will have it. */
static __always_inline void suppress_arrives(struct __sk_buff *skb, const struct vnetd_vnet *vnet)
{
	if (may_talk(skb))
		talk_arrives(skb, vnet);
}

#endif
