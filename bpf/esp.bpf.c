// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel has decrypted, on the TC ingress of an underlay device's xfrm interface.
 *
 *   underlay device: vnetd_decap: does the SA's host send it? -> stack, ESP -> xfrm interface: vnetd_esp
 *
 * The mark is the SPI of the SA that a packet came by, which the kernel sets, and by it all is known of
 * who sent it: the host, the device, the vnet, the level. What is inside must agree; a member of one vnet
 * can say nothing about another. What came may be a frame or VARP, and nothing else.
 *
 * ESP's packets come one by one, so TCP goes through the vnetif's GRO. What is not merged there (UDP, unless a socket
 * asks for it) takes the short way.
 */
#include "lib/flood.h"
#include "lib/receive.h"
#include "lib/varp.h"

/*
 * Brings the packet into the form that all else expects, with an Ethernet header in front; the kernel leaves the
 * underlay's there, if that has one. Gives the IP packet's length and its family; 0: it is none.
 */
static __always_inline __u32 with_mac_header(struct __sk_buff *skb, __u32 *family)
{
	__u32 len, front;
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} ip = {};

	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		*family = VNETD_FAMILY_IPV6;
		if (bpf_skb_load_bytes_relative(skb, 0, &ip.v6, sizeof(ip.v6), BPF_HDR_START_NET))
			return 0;
		len = bpf_ntohs(ip.v6.payload_len) + sizeof(ip.v6);
	} else {
		*family = VNETD_FAMILY_IPV4;
		if (skb->protocol != bpf_htons(ETH_P_IP) ||
		    bpf_skb_load_bytes_relative(skb, 0, &ip.v4, sizeof(ip.v4), BPF_HDR_START_NET))
			return 0;
		len = bpf_ntohs(ip.v4.tot_len);
	}
	front = skb->len - len;
	if (front == ETH_HLEN)
		return len;
	return !front && !bpf_skb_change_head(skb, ETH_HLEN, 0) ? len : 0;
}

/* What must be so of the headers, whoever sent them: it is UDP for us. Fills in the rest of *r. */
static __always_inline __u32 read_inside(struct __sk_buff *skb, struct received *r,
					 const struct vnetd_spi *sa, __u32 len)
{
	__u32 ip_len = r->underlay->family == VNETD_FAMILY_IPV6 ? sizeof(struct ipv6hdr)
								: sizeof(struct iphdr);
	struct udphdr udp;
	__u8 protocol;

	if (ip_len == sizeof(struct ipv6hdr)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return VNETD_DROP_TRUNCATED;
		__builtin_memcpy(&r->source, &ip.saddr, sizeof(r->source));
		__builtin_memcpy(&r->destination, &ip.daddr, sizeof(r->destination));
		protocol = ip.version == 6 ? ip.nexthdr : 0;
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return VNETD_DROP_TRUNCATED;
		ipv4_to(r->source.bytes, ip.saddr);
		ipv4_to(r->destination.bytes, ip.daddr);
		protocol = ip.version == 4 && ip.ihl == 5 ? ip.protocol : 0;
	}
	if (!same_words(r->source.words, (const void *)sa->source) ||
	    !same_words(r->destination.words, (const void *)r->underlay->addr))
		return VNETD_DROP_ESP_SOURCE;
	r->offset = ETH_HLEN + ip_len;
	if (protocol != IPPROTO_UDP)
		return VNETD_DROP_UNKNOWN_MESSAGE;
	if (bpf_skb_load_bytes(skb, r->offset, &udp, sizeof(udp)))
		return VNETD_DROP_TRUNCATED;
	if (udp.dest != r->underlay->port)
		return VNETD_DROP_UNKNOWN_MESSAGE;
	r->source_port = udp.source;
	r->payload = bpf_ntohs(udp.len);
	if (r->payload < sizeof(udp) || r->payload + ip_len > len)
		return VNETD_DROP_BAD_UDP_LENGTH;
	r->payload -= sizeof(udp);
	return r->payload < sizeof(struct vnetd_msg_hdr) ? VNETD_DROP_TRUNCATED : VNETD_OK;
}

/* Whether a MAC that may live at one place alone lives at another path of this host. */
static __always_inline bool is_pinned_to(const struct fdb_news *news)
{
	struct vnetd_fdb_entry *entry = bpf_map_lookup_elem(&fdb, &news->key);

	return entry && same_host(entry->nexthop, news->nexthop);
}

/*
 * Learns that the source MAC lives behind the SA's host, at its primary path. Unlike in clear, a host
 * that uses the MAC of another, where it is configured, is not heard at all: nobody but that host can have sent this.
 */
static __always_inline __u32 learn(struct __sk_buff *skb, const struct received *r, __u32 nexthop,
				   const __u8 *mac, struct verdict *v)
{
	struct vnetd_nexthop *hop = nexthop_by_id(nexthop);
	struct fdb_news news = {
		.key.handle = v->handle,
		.slot = v->slot,
		.now = now_ns(),
	};
	__u32 reason;

	if (!hop)
		return VNETD_DROP_ESP_UNKNOWN;
	if (unlikely(hop->other)) {
		nexthop = nexthop_primary(nexthop);
		hop = nexthop_by_id(nexthop);
		if (!hop)
			return VNETD_DROP_ESP_UNKNOWN;
	}
	if (r->to_group) {
		reason = flood_arrives(skb, r->vnet, v->slot, nexthop);
		if (unlikely(reason))
			return reason;
	}
	if (unlikely(is_group_mac(mac))) {
		v->refused = VNETD_REFUSED_GROUP_MAC;
		return VNETD_OK;
	}
	__builtin_memcpy(news.key.mac, mac, VNETD_MAC_LEN);
	news.nexthop = nexthop;
	news.gen = hop->gen;
	reason = fdb_learn(&news, r->vnet);
	if (unlikely(reason == VNETD_REFUSED_STATIC))
		return is_pinned_to(&news) ? VNETD_OK : VNETD_DROP_ESP_INNER_SOURCE;
	v->refused = reason;
	return VNETD_OK;
}

/*
 * Whether it may pay to merge the frame with others of its flow. By protocols alone, so that two frames of one flow
 * never take two ways. What is neither IPv4 nor IPv6 is rare, or has a tag in front of what it is.
 */
static __always_inline bool may_merge(struct __sk_buff *skb, const __u8 *eth)
{
	__be16 type;
	__u8 protocol;

	__builtin_memcpy(&type, eth + 2 * ETH_ALEN, sizeof(type));
	if (type == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &protocol,
				       sizeof(protocol)))
			return true;
	} else if (type != bpf_htons(ETH_P_IPV6) ||
		   bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol,
				      sizeof(protocol))) {
		return true;
	}
	return protocol != IPPROTO_UDP && protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6;
}

static __always_inline __u32 receive_frame(struct __sk_buff *skb, struct received *r,
					   struct verdict *v, __u32 nexthop, int *action)
{
	const __u32 in_front = sizeof(struct udphdr) + VNETD_MSG_HDR_LEN;
	struct inner_frame in;
	union address id;
	__u32 reason =
		inner_read(skb, &in, r->offset + in_front, r->payload - VNETD_MSG_HDR_LEN, v);

	if (reason)
		return reason;
	if (!version_right(in.start.etherip))
		return VNETD_DROP_BAD_VERSION;
	__builtin_memcpy(&id, in.start.vnet, sizeof(id));
	if (!same_words(id.words, (const void *)r->vnet->id))
		return VNETD_DROP_ESP_OTHER_VNET;
	r->to_group = is_group_mac(in.start.eth);
	v->flooded = r->to_group;
	reason = learn(skb, r, nexthop, in.start.eth + ETH_ALEN, v);
	if (reason)
		return reason;
	reason = inner_take_out(skb, r, &in, v);
	if (reason)
		return reason;
	*action = deliver(skb, r, may_merge(skb, in.start.eth));
	return VNETD_OK;
}

static __always_inline __u32 receive_message(struct __sk_buff *skb, struct received *r,
					     struct verdict *v, __u32 nexthop, int *action)
{
	__u32 offset = r->offset + sizeof(struct udphdr);
	struct vnetd_varp varp;
	union address id;
	__be16 message;

	if (bpf_skb_load_bytes(skb, offset, &message, sizeof(message)))
		return VNETD_DROP_TRUNCATED;
	if (likely(message == bpf_htons(VNETD_MSG_VUDP)))
		return receive_frame(skb, r, v, nexthop, action);
	if (message != bpf_htons(VNETD_MSG_VARP))
		return VNETD_DROP_UNKNOWN_MESSAGE;
	/* the daemon's, and no frame */
	v->traffic = NULL;
	if (r->payload < sizeof(varp))
		return VNETD_DROP_VARP_SHORT;
	if (bpf_skb_load_bytes(skb, offset, &varp, sizeof(varp)))
		return VNETD_DROP_TRUNCATED;
	__builtin_memcpy(&id, varp.vnet, sizeof(id));
	if (!same_words(id.words, (const void *)r->vnet->id))
		return VNETD_DROP_ESP_OTHER_VNET;
	return receive_varp(skb, r, VNETD_WAY_SECURE);
}

static __always_inline __u32 receive(struct __sk_buff *skb, struct received *r, struct verdict *v,
				     int *action)
{
	__u32 spi = skb->mark, family, len, reason, nexthop;
	struct vnetd_spi *sa = bpf_map_lookup_elem(&spis, &spi);
	__u64 now = now_ns();
	struct vnetd_nexthop *hop;

	skb->mark = VNETD_MARK_NONE;
	if (!sa)
		return VNETD_DROP_ESP_UNKNOWN;
	r->vnet = vnet_by_slot(sa->slot);
	if (!r->vnet || r->vnet->handle != sa->handle)
		return VNETD_DROP_ESP_UNKNOWN;
	count_begin(v, r->vnet->handle, sa->slot);
	if (!(r->vnet->flags & VNETD_VNET_UP))
		return VNETD_DROP_VNET_DOWN;
	if (r->vnet->security != sa->security || sa->security == VNETD_SECURITY_NONE)
		return VNETD_DROP_ESP_OTHER_LEVEL;
	nexthop = sa->nexthop;
	hop = nexthop_by_id(nexthop);
	if (!hop || hop->gen != sa->gen || !(hop->flags & VNETD_NEXTHOP_USED) ||
	    hop->key.handle != sa->handle)
		return VNETD_DROP_ESP_UNKNOWN;
	/* the kernel has segmented, and puts nothing together here unless somebody tells it to */
	if (skb->gso_size)
		return VNETD_DROP_BAD_SUPERFRAME;
	len = with_mac_header(skb, &family);
	if (!len)
		return VNETD_DROP_TRUNCATED;
	r->underlay = underlay_at(sa->ifindex, family);
	if (!r->underlay || !(r->underlay->flags & VNETD_UNDERLAY_UP) ||
	    r->underlay->esp != skb->ifindex)
		return VNETD_DROP_ESP_UNKNOWN;
	reason = read_inside(skb, r, sa, len);
	if (reason)
		return reason;
	if ((__s64)(now - hop->heard_ns) > (__s64)REFRESH_NS)
		hop->heard_ns = now;
	return receive_message(skb, r, v, nexthop, action);
}

SEC("tc")
int vnetd_esp(struct __sk_buff *skb)
{
	struct verdict v = { .len = skb->len };
	struct received r = {};
	int action = TC_ACT_SHOT;
	__u32 reason;

	reason = receive(skb, &r, &v, &action);
	return finish_received(skb, &v, reason, action);
}

char LICENSE[] SEC("license") = "GPL";
