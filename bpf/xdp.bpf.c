// SPDX-License-Identifier: GPL-2.0-only
/*
 * The short way in, on the XDP hook of underlay devices that are attached with `--mode xdp`.
 *
 * It knows one case, the one that nearly all packets are: VUDP by unicast, in one packet without options, of a vnet that
 * is up and clear, from a host by its only path, with inner TCP, UDP or ICMP between MACs that are known. The headers are
 * taken off before the kernel makes a packet of it, so that the device's GRO merges what guests sent, and
 * what was found is said to vnetd_decap on TC (bpf/lib/xdp.h), which hands the frame over. Where the device's driver does
 * not run the program (generic XDP) the headers stay on until then.
 *
 * Everything else is passed on untouched: vnetd_decap has all the rules, and nothing is dropped here. What is
 * refreshed here is what learn_remote() would: or a flow would change its way ten times a second, and be
 * reordered by GRO.
 */
#include "lib/xdp.h"

/* a packet that may be for us, and what is the same for both families */
struct xdp_packet {
	struct vnetd_underlay *underlay;
	union address source;
	/* of the message header */
	__u32 offset;
};

static __always_inline bool xdp_underlay(struct xdp_md *ctx, struct xdp_packet *p, __u32 family)
{
	p->underlay = underlay_at(ctx->ingress_ifindex, family);
	return p->underlay && p->underlay->flags & VNETD_UNDERLAY_UP;
}

/* length: of the UDP datagram by its IP header */
static __always_inline bool xdp_udp(const struct xdp_packet *p, const struct udphdr *udp,
				    __u32 length, __u32 packet_length)
{
	return udp->dest == p->underlay->port && bpf_ntohs(udp->len) == length &&
	       p->offset - sizeof(*udp) + length == packet_length;
}

static __always_inline bool xdp_read4(struct xdp_md *ctx, struct xdp_packet *p)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);
	__u32 length;

	if ((void *)(udp + 1) > data_end)
		return false;
	if (ip->protocol != IPPROTO_UDP || ip->version != 4 || ip->ihl != 5 ||
	    ip->frag_off & bpf_htons(IPV4_MF | IPV4_OFFSET) ||
	    !xdp_underlay(ctx, p, VNETD_FAMILY_IPV4))
		return false;
	p->offset = ETH_HLEN + sizeof(*ip) + sizeof(*udp);
	length = bpf_ntohs(ip->tot_len) - sizeof(*ip);
	ipv4_to(p->source.bytes, ip->saddr);
	return ip->daddr == ipv4_of(p->underlay->addr) && ip->saddr != ipv4_of(p->underlay->addr) &&
	       !ipv4_checksum(ip) && xdp_udp(p, udp, length, bpf_xdp_get_buff_len(ctx));
}

static __always_inline bool xdp_read6(struct xdp_md *ctx, struct xdp_packet *p)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > data_end)
		return false;
	if (ip->nexthdr != IPPROTO_UDP || ip->version != 6 ||
	    !xdp_underlay(ctx, p, VNETD_FAMILY_IPV6))
		return false;
	p->offset = ETH_HLEN + sizeof(*ip) + sizeof(*udp);
	__builtin_memcpy(&p->source, &ip->saddr, sizeof(p->source));
	return same_words((const void *)&ip->daddr, (const void *)p->underlay->addr) &&
	       !same_words(p->source.words, (const void *)p->underlay->addr) &&
	       xdp_udp(p, udp, bpf_ntohs(ip->payload_len), bpf_xdp_get_buff_len(ctx));
}

/* TCP, UDP or ICMP between two guests. The rest may be anything: the host's own ESP is looked for by GRO. */
static __always_inline bool xdp_inner_plain(const __u8 *eth, void *data_end)
{
	const struct ipv6hdr *ip6 = (const void *)(eth + ETH_HLEN);
	const struct iphdr *ip4 = (const void *)ip6;
	__u8 protocol;

	if ((void *)(ip6 + 1) > data_end || is_group_mac(eth))
		return false;
	if (eth[12] == ETH_P_IP >> 8 && eth[13] == (ETH_P_IP & 0xff))
		protocol = ip4->protocol;
	else if (eth[12] == ETH_P_IPV6 >> 8 && eth[13] == (ETH_P_IPV6 & 0xff))
		protocol = ip6->nexthdr;
	else
		return false;
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP ||
	       protocol == IPPROTO_ICMPV6;
}

/* What learn_remote() does when there is nothing to learn; false: there may be. */
static __always_inline bool xdp_source_known(const struct xdp_packet *p, __u32 handle,
					     const __u8 *mac)
{
	struct vnetd_nexthop_key hop_key = { .handle = handle, .ifindex = p->underlay->ifindex };
	struct vnetd_fdb_key key = { .handle = handle };
	struct vnetd_fdb_entry *entry;
	struct vnetd_nexthop *hop;
	struct fdb_found *found;
	__u64 now = now_ns();
	__u32 id;

	__builtin_memcpy(hop_key.addr, &p->source, sizeof(hop_key.addr));
	__builtin_memcpy(key.mac, mac, sizeof(key.mac));
	id = nexthop_known(&hop_key);
	found = fdb_look(&key, now);
	if (!id || !found || found->nexthop != id || found->flags & VNETD_FDB_ANNOUNCED)
		return false;
	hop = nexthop_by_id(id);
	if (!hop || found->gen != hop->gen || hop->other)
		return false;
	if ((__s64)(now - hop->heard_ns) > (__s64)REFRESH_NS)
		hop->heard_ns = now;
	if ((__s64)(now - found->seen_ns) > (__s64)REFRESH_NS) {
		entry = bpf_map_lookup_elem(&fdb, &key);
		if (!entry)
			return false;
		entry->seen_ns = now;
		found->seen_ns = now;
	}
	return true;
}

/* Is it the plain case? Fills in *m, the offset as it is now. */
static __always_inline bool xdp_knows(struct xdp_md *ctx, struct xdp_packet *p,
				      struct vnetd_xdp_meta *m)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	const __u32 begin = p->offset;
	struct vnetd_msg_hdr *msg = data + begin;
	struct frame_start *start = (void *)(msg + 1);
	__u32 id[VNETD_ID_LEN / 4], slot = 0, *known;
	struct vnetd_vnet *vnet;

	if ((void *)(start + 1) > data_end || msg->id != bpf_htons(VNETD_MSG_VUDP) ||
	    !version_right(start->etherip) || !xdp_inner_plain(start->eth, data_end))
		return false;
	__builtin_memcpy(id, start->vnet, sizeof(id));
	vnet = vnet_by_hint(id, &slot);
	if (unlikely(!vnet)) {
		known = bpf_map_lookup_elem(&vnet_ids, id);
		slot = known ? *known : 0;
		vnet = known ? vnet_by_slot(slot) : NULL;
	}
	if (!vnet || vnet->security != VNETD_SECURITY_NONE ||
	    (vnet->flags & (VNETD_VNET_UP | VNETD_VNET_WATCHED)) != VNETD_VNET_UP ||
	    !xdp_source_known(p, vnet->handle, start->eth + ETH_ALEN))
		return false;
	m->ifindex = p->underlay->ifindex;
	m->handle = vnet->handle;
	m->slot = slot;
	m->family = p->underlay->family;
	m->offset = begin + VNETD_VUDP_HDR_LEN;
	__builtin_memcpy(m->dst, start->eth, sizeof(m->dst));
	return true;
}

/* Takes the headers off, if this device's driver runs us, and says what was found. */
static __always_inline void xdp_hand_over(struct xdp_md *ctx, struct vnetd_xdp_meta *m, bool strips)
{
	void *data, *data_end;
	struct vnetd_xdp_meta *out;
	__u8 mark[VNETD_MAC_LEN];
	__u32 offset = m->offset;

	/* not every driver has metadata */
	if (!xdp_mark(mark) || bpf_xdp_adjust_meta(ctx, -(int)sizeof(*out)))
		return;
	if (strips) {
		if (bpf_xdp_adjust_head(ctx, offset)) {
			bpf_xdp_adjust_meta(ctx, sizeof(*out));
			return;
		}
		m->offset = 0;
	}
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	out = (void *)(long)ctx->data_meta;
	/* for the verifier: both are there, or xdp_knows() and bpf_xdp_adjust_meta() had said no */
	if ((void *)(out + 1) > data || data + ETH_HLEN > data_end)
		return;
	if (!strips)
		__builtin_memcpy(m->dst, data, sizeof(m->dst));
	__builtin_memcpy(out, m, sizeof(*out));
	__builtin_memcpy(data, mark, sizeof(mark));
}

static __always_inline int xdp_receive(struct xdp_md *ctx, bool native)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct vnetd_xdp_meta m = {};
	struct ethhdr *eth = data;
	struct xdp_packet p;

	if ((void *)(eth + 1) > data_end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (!xdp_read4(ctx, &p) || !xdp_knows(ctx, &p, &m))
			return XDP_PASS;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!xdp_read6(ctx, &p) || !xdp_knows(ctx, &p, &m))
			return XDP_PASS;
	} else {
		return XDP_PASS;
	}
	xdp_hand_over(ctx, &m, native && p.underlay->flags & VNETD_UNDERLAY_XDP_STRIPS);
	return XDP_PASS;
}

SEC("xdp.frags")
int vnetd_xdp(struct xdp_md *ctx)
{
	return xdp_receive(ctx, true);
}

/*
 * The same for generic XDP. Not for packets in several buffers: where a program takes those, the kernel (seen on
 * 6.18) copies packets and forgets how long their Ethernet header is, and TC reads them from the wrong place.
 */
SEC("xdp")
int vnetd_xdp_generic(struct xdp_md *ctx)
{
	return xdp_receive(ctx, false);
}

char LICENSE[] SEC("license") = "GPL";
