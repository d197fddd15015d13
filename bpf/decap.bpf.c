// SPDX-License-Identifier: GPL-2.0-only
/*
 * From the underlay into a vnet, on the TC ingress of each underlay device.
 *
 * A packet on its way in:
 *   1. outer_read()      is it for us; everything else goes on to the stack untouched
 *   2. receive_vudp()    which vnet, may it come in, learn where its source lives
 *      probe_arrives()   of a probe: is it ours, come back (bpf/lib/probe.h)
 *      first_fragment()  of a packet in fragments: to the stack, which reassembles it
 *                        (then bpf/reassembled.bpf.c)
 *      receive_varp()    to the daemon
 *      receive_path_icmp()  a router's word on how large packets to a host may be
 *      receive_vfwd()    from a peer: to bpf/relay.bpf.c, which takes out what is inside; that
 *                        comes by the segmenting pair then
 *      heard_on_group()  what is for all: a copy to bpf/relay.bpf.c when there are peers
 *   3. strip()           take the outer headers off
 *   4. deliver()         into the vnetif, or through its GRO
 *
 * The program sits on the inner end of the segmenting veth pair too: a super-frame that cannot be
 * decapsulated whole is sent through that pair and comes back as single packets.
 */
#include "lib/path_icmp.h"
#include "lib/forward.h"
#include "lib/reassembly.h"
#include "lib/probe.h"
#include "lib/receive.h"
#include "lib/seen.h"

/* up to this much of a packet's beginning is read: Ethernet, IPv4 with options, UDP, VUDP, inner
 * Ethernet */
#define IPV4_MIN 20
#define ICMP_ECHO_REQUEST 8
#define PING_INTERVAL_NS 1000000ULL

/* verdicts beside the reasons */
#define NOT_OURS ((__u32)VNETD_REASON_COUNT)
#define PING ((__u32)VNETD_REASON_COUNT + 1)
#define FIRST_FRAGMENT ((__u32)VNETD_REASON_COUNT + 2)
#define ICMP_TO_US ((__u32)VNETD_REASON_COUNT + 3)

/* The underlay device that a packet came by, also when it came through the segmenting pair. */
static __always_inline struct vnetd_underlay *underlay_of(struct __sk_buff *skb, bool *segmented)
{
	__u32 zero = 0;
	struct vnetd_meta *m;

	if (likely((skb->mark & VNETD_MARK_KIND) != VNETD_MARK_SEGMENTED))
		return underlay_by_ifindex(skb->ifindex);
	m = bpf_map_lookup_elem(&meta, &zero);
	if (!m || skb->ifindex != m->segment_in)
		return underlay_by_ifindex(skb->ifindex);
	*segmented = true;
	return underlay_by_index(skb->mark & VNETD_MARK_INDEX);
}

/*
 * Is this packet for us? Returns NOT_OURS, PING, ICMP_TO_US, VNETD_OK with *r filled in, or a reason.
 * Cheap for what is not: most of a host's traffic passes here.
 */
static __always_inline __u32 outer_read(struct __sk_buff *skb, struct received *r)
{
	void *data, *data_end;
	struct iphdr *ip;
	struct udphdr *udp;
	__u32 ihl, total;
	__be32 group;
	bool right, fragment;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present)
		return NOT_OURS;
	data = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	if (unlikely(data + ETH_HLEN + IPV4_MIN + sizeof(*udp) > data_end)) {
		if (bpf_skb_pull_data(skb, ETH_HLEN + IPV4_MIN + sizeof(*udp)))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
		if (data + ETH_HLEN + IPV4_MIN + sizeof(*udp) > data_end)
			return NOT_OURS;
	}
	ip = data + ETH_HLEN;
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_ICMP)
		return NOT_OURS;
	if (ip->version != 4 || ip->ihl < 5)
		return NOT_OURS;
	/* later fragments go to the stack as they are */
	if (ip->frag_off & bpf_htons(IPV4_OFFSET))
		return NOT_OURS;
	fragment = ip->frag_off & bpf_htons(IPV4_MF);
	r->underlay = underlay_of(skb, &r->segmented);
	if (!r->underlay || !(r->underlay->flags & VNETD_UNDERLAY_UP))
		return NOT_OURS;
	r->forwarded = r->segmented && skb->mark & VNETD_MARK_FORWARDED;
	group = ipv4_of(r->underlay->group);
	r->source = ip->saddr;
	r->destination = ip->daddr;
	r->to_group = ip->daddr == group;
	r->ip_id = ip->id;
	if (!r->to_group && ip->daddr != ipv4_of(r->underlay->addr))
		return NOT_OURS;
	if (ip->protocol == IPPROTO_ICMP) {
		if (ip->ihl != 5 || fragment)
			return NOT_OURS;
		return r->to_group ? PING : ICMP_TO_US;
	}

	ihl = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	r->udp_offset = ETH_HLEN + ihl;
	if (likely(ihl == IPV4_MIN)) {
		udp = (void *)(ip + 1);
		right = !ipv4_checksum(ip);
	} else {
		right = ipv4_options_checksum_right(skb, ihl);
		if (bpf_skb_pull_data(skb, r->udp_offset + sizeof(*udp)))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
		udp = data + (r->udp_offset & 0x7f);
		if ((void *)(udp + 1) > data_end)
			return NOT_OURS;
	}
	if (udp->dest != r->underlay->port)
		return NOT_OURS;

	/* from here on it is ours, and whatever is wrong with it has a reason; we are in front of
	 * ip_rcv, so the header's checksum is ours to check. A UDP checksum is not checked: on a
	 * virtual device a right packet's may not be filled in yet. */
	if (!right)
		return VNETD_DROP_BAD_HEADER_CHECKSUM;
	r->source_port = udp->source;
	if (r->source == ipv4_of(r->underlay->addr))
		return VNETD_DROP_OWN_ECHO;
	if (!ipv4_is_host(r->source))
		return VNETD_DROP_BAD_SOURCE_ADDRESS;
	if (fragment)
		return FIRST_FRAGMENT;
	r->payload = bpf_ntohs(udp->len);
	if (r->payload < sizeof(*udp) || ihl + r->payload > total)
		return VNETD_DROP_BAD_UDP_LENGTH;
	if (ETH_HLEN + ihl + r->payload > skb->len)
		return VNETD_DROP_TRUNCATED;
	r->payload -= sizeof(*udp);
	if (r->payload < sizeof(struct vnetd_msg_hdr))
		return VNETD_DROP_TRUNCATED;
	return VNETD_OK;
}

/* ---- VARP: checked for its form, then the daemon's ---------------------------------------- */

SUBPROGRAM __u32 receive_varp(struct __sk_buff *skb, const struct received *r)
{
	__u32 offset = r->udp_offset + sizeof(struct udphdr);
	struct vnetd_event_varp *event;
	struct vnetd_varp varp;
	__u32 id[VNETD_ID_LEN / 4], len = r->payload;

	if (len < sizeof(varp))
		return VNETD_DROP_VARP_SHORT;
	if (bpf_skb_load_bytes(skb, offset, &varp, sizeof(varp)))
		return VNETD_DROP_TRUNCATED;
	if (varp.msg.opcode != bpf_htons(VNETD_VARP_REQUEST) &&
	    varp.msg.opcode != bpf_htons(VNETD_VARP_ANNOUNCE))
		return VNETD_DROP_VARP_BAD_OPCODE;
	/* a request's address says nothing: the answer goes to whom the packet came from */
	if (varp.msg.opcode == bpf_htons(VNETD_VARP_ANNOUNCE) && varp.family != VNETD_VARP_INET &&
	    varp.family != VNETD_VARP_INET6)
		return VNETD_DROP_VARP_BAD_FAMILY;
	__builtin_memcpy(id, varp.vnet, VNETD_ID_LEN);
	if (!bpf_map_lookup_elem(&vnet_ids, id))
		return VNETD_DROP_VARP_UNKNOWN_VNET;

	if (bpf_ringbuf_query(&control, BPF_RB_AVAIL_DATA) > VARP_RING_SHARE)
		return VNETD_DROP_VARP_QUEUE_FULL;
	event = bpf_ringbuf_reserve(&control, sizeof(*event), 0);
	if (!event)
		return VNETD_DROP_VARP_QUEUE_FULL;
	event->type = VNETD_EVENT_VARP;
	event->ifindex = r->underlay->ifindex;
	ipv4_to(event->source, r->source);
	ipv4_to(event->destination, r->destination);
	event->source_port = r->source_port;
	if (len > VNETD_VARP_MAX_LEN)
		len = VNETD_VARP_MAX_LEN;
	event->len = len;
	event->way = r->forwarded ? VNETD_WAY_FORWARDED : VNETD_WAY_DIRECT;
	if (len < sizeof(varp) || bpf_skb_load_bytes(skb, offset, event->message, len)) {
		bpf_ringbuf_discard(event, 0);
		return VNETD_DROP_TRUNCATED;
	}
	bpf_ringbuf_submit(event, 0);
	return VNETD_OK;
}

/* ---- VUDP --------------------------------------------------------------------------------- */

/*
 * A super-frame can be decapsulated whole if the kernel will segment it as the inner TCP that it
 * is: its inner IP packet fills it. Everything else (inner UDP, whose segmentation the tunnel
 * bits that stay set would break; several datagrams that a driver merged) is segmented first.
 * What leaves by the vnetif's peer is segmented there as the outer packet's protocol, which
 * skb->protocol still says: that suits IPv4 alone.
 */
static __always_inline bool superframe_is_tcp(struct __sk_buff *skb, __u32 inner, __u32 inner_len,
					      bool by_peer)
{
	__be16 type, len16;
	__u32 network;
	__u8 proto;

	if (bpf_skb_load_bytes(skb, inner + 2 * ETH_ALEN, &type, 2))
		return false;
	if (by_peer && type != bpf_htons(ETH_P_IP))
		return false;
	network = ETH_HLEN;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (bpf_skb_load_bytes(skb, inner + network + 2, &type, 2))
			return false;
		network += TAG_LEN;
	}
	if (type == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, inner + network + 2, &len16, 2) ||
		    bpf_skb_load_bytes(skb, inner + network + 9, &proto, 1))
			return false;
		return proto == IPPROTO_TCP && network + bpf_ntohs(len16) == inner_len;
	}
	if (type == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, inner + network + 4, &len16, 2) ||
		    bpf_skb_load_bytes(skb, inner + network + 6, &proto, 1))
			return false;
		return proto == IPPROTO_TCP &&
		       network + sizeof(struct ipv6hdr) + bpf_ntohs(len16) == inner_len;
	}
	return false;
}

/* Sends an outer super-frame through the pair that segments it. */
static __always_inline __u32 segment(struct __sk_buff *skb, const struct received *r, int *action)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (r->segmented || !m || !m->segment_out)
		return VNETD_DROP_BAD_SUPERFRAME;
	skb->mark = VNETD_MARK_SEGMENTED | (r->underlay->index & VNETD_MARK_INDEX);
	*action = bpf_redirect(m->segment_out, 0);
	return VNETD_OK;
}

/* ---- peers -------------------------------------------------------------------------------- */

/* Only configured peers are listened to, and they send by unicast. */
static __always_inline __u32 receive_vfwd(struct __sk_buff *skb, const struct received *r,
					  int *action)
{
	struct vnetd_meta *m;
	struct vnetd_vnet_id addr;
	__u32 zero = 0;

	ipv4_to(addr.bytes, r->source);
	if (r->to_group || !bpf_map_lookup_elem(&peer_ids, &addr)) {
		event_not_peer(addr.bytes, r->underlay->ifindex);
		return VNETD_DROP_VFWD_NOT_PEER;
	}
	m = bpf_map_lookup_elem(&meta, &zero);
	if (!m || !m->relay_out)
		return VNETD_DROP_VFWD_UNAVAILABLE;
	skb->mark = VNETD_MARK_RELAY_IN | (r->underlay->index & VNETD_MARK_INDEX);
	*action = bpf_redirect(m->relay_out, 0);
	return VNETD_OK;
}

/*
 * What was heard on the group. From a host of the subnet: forwarded to the peers, once, before it is
 * segmented. From another source: a forwarder sent it, and others may have, too.
 */
SUBPROGRAM __u32 heard_on_group(struct __sk_buff *skb, const struct received *r)
{
	struct group_message message = {
		.offset = r->udp_offset + sizeof(struct udphdr),
		.len = r->payload,
		.source = r->source,
		.ip_id = bpf_ntohs(r->ip_id),
	};

	if (on_subnet(r->source, r->underlay)) {
		if (r->underlay->flags & VNETD_UNDERLAY_RELAY && !r->segmented)
			forward_copy(skb, r->underlay->index);
		return VNETD_OK;
	}
	return seen_before(skb, &message) ? VNETD_DROP_DUPLICATE_FORWARD : VNETD_OK;
}

struct vudp_start {
	struct vnetd_vudp_hdr vudp;
	__u8 eth[ETH_HLEN];
} VNETD_PACKED;

/* Which vnet is the frame for, and may it come in? Fills in r->vnet and begins the count. */
static __always_inline __u32 admit(const struct vnetd_vudp_hdr *vudp, struct received *r,
				   struct verdict *v)
{
	__u32 id[VNETD_ID_LEN / 4], *slot;

	/* the original tests the high nibble of the second byte; a big-endian host's is the first */
	if ((vudp->etherip & bpf_htons(0x00f0)) != bpf_htons(VNETD_ETHERIP_VERSION) &&
	    vudp->etherip != bpf_htons(VNETD_ETHERIP_VERSION_BE_HOST))
		return VNETD_DROP_BAD_VERSION;
	__builtin_memcpy(id, vudp->vnet, VNETD_ID_LEN);
	if (!(id[0] | id[1] | id[2]) && (id[3] & bpf_htonl(0xfffffffe)) == 0)
		return VNETD_DROP_BAD_VNET_ID;
	slot = bpf_map_lookup_elem(&vnet_ids, id);
	if (!slot)
		return VNETD_DROP_UNKNOWN_VNET;
	r->vnet = vnet_by_slot(*slot);
	if (!r->vnet)
		return VNETD_DROP_UNKNOWN_VNET;
	count_begin(v, r->vnet->handle, *slot);
	if (!(r->vnet->flags & VNETD_VNET_UP))
		return VNETD_DROP_VNET_DOWN;
	/* a secure vnet's frames come through its security associations, never in clear */
	if (r->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_SECURITY;
	return VNETD_OK;
}

static __always_inline __u32 receive_vudp(struct __sk_buff *skb, struct received *r,
					  struct verdict *v, int *action)
{
	__u32 offset = r->udp_offset + sizeof(struct udphdr), inner_len, reason;
	struct vudp_start in;

	if (r->payload < VNETD_VUDP_HDR_LEN)
		return VNETD_DROP_TRUNCATED;
	inner_len = r->payload - VNETD_VUDP_HDR_LEN;
	v->len = inner_len;
	if (inner_len < ETH_HLEN)
		return VNETD_DROP_SHORT_FRAME;
	if (bpf_skb_load_bytes(skb, offset, &in, sizeof(in)))
		return VNETD_DROP_TRUNCATED;
	reason = admit(&in.vudp, r, v);
	if (reason)
		return reason;

	if (skb->gso_size) {
		if (r->segmented)
			return VNETD_DROP_BAD_SUPERFRAME;
		if (!superframe_is_tcp(skb, offset + VNETD_VUDP_HDR_LEN, inner_len,
				       goes_by_peer(skb, r))) {
			/* counted when it comes back */
			reason = segment(skb, r, action);
			v->traffic = NULL;
			return reason;
		}
	}
	reason = learn_remote(skb, r, in.eth + ETH_ALEN, v);
	if (reason)
		return reason;
	count_device(r, skb);
	v->flooded = r->to_group;
	if (unlikely(in.eth[12] == VNETD_PROBE_ETHERTYPE >> 8 &&
		     in.eth[13] == (VNETD_PROBE_ETHERTYPE & 0xff))) {
		struct probe_found found = {
			.vnet = r->vnet,
			.slot = v->slot,
			.direction = VNETD_DIR_DECAP,
			.offset = offset + VNETD_VUDP_HDR_LEN + ETH_HLEN,
			.source = r->source,
		};

		reason = probe_arrives(skb, &found, r->underlay);
		if (reason)
			return reason;
	}
	reason = strip(skb, offset + VNETD_VUDP_HDR_LEN, in.eth, inner_len);
	if (reason)
		return reason;
	*action = deliver(skb, r);
	return VNETD_OK;
}

/* ---- the first of several fragments ------------------------------------------------------- */

/* The same for VFWD: whether the sender is a peer is known here, the rest when it is whole. */
SUBPROGRAM __u32 first_fragment_vfwd(struct __sk_buff *skb, const struct received *r,
				     const struct vnetd_meta *m)
{
	struct reassembly_vfwd_hdr out = {};
	struct {
		struct udphdr udp;
		struct vnetd_msg_hdr msg;
		struct iphdr ip;
		struct udphdr inner_udp;
		__be16 id;
	} VNETD_PACKED in;
	struct vnetd_vnet_id addr;

	if (!m)
		return VNETD_OK;
	ipv4_to(addr.bytes, r->source);
	if (r->to_group || !bpf_map_lookup_elem(&peer_ids, &addr)) {
		event_not_peer(addr.bytes, r->underlay->ifindex);
		return VNETD_DROP_VFWD_NOT_PEER;
	}
	if (!m->relay_out)
		return VNETD_DROP_VFWD_UNAVAILABLE;
	if (bpf_skb_load_bytes(skb, r->udp_offset, &in, sizeof(in)))
		return VNETD_DROP_TRUNCATED;
	if (in.ip.protocol != IPPROTO_UDP || in.id != bpf_htons(VNETD_MSG_VUDP))
		return in.id == bpf_htons(VNETD_MSG_VFWD) ? VNETD_DROP_VFWD_NESTED
							  : VNETD_DROP_VFWD_BAD_INNER;
	if (in.ip.daddr != ipv4_of(r->underlay->group))
		return VNETD_DROP_VFWD_NOT_GROUP;
	out.hdr.udp = in.udp;
	out.hdr.udp.dest = bpf_htons(VNETD_REASSEMBLY_PORT);
	out.hdr.udp.check = 0;
	out.hdr.vxlan_flags = VXLAN_FLAG_VNI;
	out.hdr.vxlan_id =
		bpf_htonl((reassembly_id(0, r->underlay->index & 7, false) | REASSEMBLY_VFWD) << 8);
	__builtin_memcpy(out.hdr.secret, m->reassembly_secret, sizeof(out.hdr.secret));
	out.hdr.type = bpf_htons(ETH_P_IP);
	out.source = in.ip.saddr;
	out.ip_id = in.ip.id;
	out.source_port = in.inner_udp.source;
	if (bpf_skb_store_bytes(skb, r->udp_offset, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

/*
 * Sends it on to the stack in the form that brings the reassembled packet back to us
 * (bpf/lib/reassembly.h). What does not hold a frame's beginning stays as it is; the stack finds
 * nobody who wants it. Counted when it comes back.
 */
static __always_inline __u32 first_fragment(struct __sk_buff *skb, struct received *r,
					    struct verdict *v, int *action)
{
	__u32 offset = r->udp_offset + sizeof(struct udphdr), zero = 0, reason, slot;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	struct reassembly_hdr hdr = {};
	struct vudp_start in;

	*action = TC_ACT_OK;
	if (!m || !m->reassembly || bpf_skb_load_bytes(skb, offset, &in, sizeof(in)))
		return VNETD_OK;
	if (in.vudp.msg.id == bpf_htons(VNETD_MSG_VFWD)) {
		v->traffic = NULL;
		return first_fragment_vfwd(skb, r, m);
	}
	if (in.vudp.msg.id != bpf_htons(VNETD_MSG_VUDP))
		return VNETD_OK;
	reason = admit(&in.vudp, r, v);
	slot = v->slot;
	v->traffic = NULL;
	if (reason)
		return reason;
	if (bpf_skb_load_bytes(skb, r->udp_offset, &hdr.udp, sizeof(hdr.udp)))
		return VNETD_DROP_TRUNCATED;
	hdr.udp.dest = bpf_htons(VNETD_REASSEMBLY_PORT);
	hdr.udp.check = 0;
	hdr.vxlan_flags = VXLAN_FLAG_VNI;
	hdr.vxlan_id = bpf_htonl(reassembly_id(slot, r->underlay->index & 7, r->to_group) << 8);
	__builtin_memcpy(hdr.secret, m->reassembly_secret, sizeof(hdr.secret));
	hdr.ip_id = r->ip_id;
	hdr.type = bpf_htons(ETH_P_IP);
	if (bpf_skb_store_bytes(skb, r->udp_offset, &hdr, sizeof(hdr), BPF_F_RECOMPUTE_CSUM))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

/* ---- ping to the group: the manual's test of multicast coverage --------------------------- */

struct ping_pace {
	__u64 last_ns;
};

VNETD_MAP(ping_pace, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct ping_pace, 1, 0);

/* Answers whatever icmp_echo_ignore_broadcasts says, at most once a millisecond and CPU. */
SUBPROGRAM int answer_ping(struct __sk_buff *skb, const struct received *r)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct {
		__u8 type, code;
		__u16 check;
	} * icmp;
	__u32 zero = 0, sum;
	struct ping_pace *pace = bpf_map_lookup_elem(&ping_pace, &zero);
	__u64 now = bpf_ktime_get_ns();
	struct ethhdr *eth = data;
	struct iphdr *ip;

	if (data + ETH_HLEN + sizeof(*ip) + 8 > data_end)
		return TC_ACT_OK;
	ip = data + ETH_HLEN;
	icmp = (void *)(ip + 1);
	if (icmp->type != ICMP_ECHO_REQUEST || icmp->code)
		return TC_ACT_OK;
	if (!pace || now - pace->last_ns < PING_INTERVAL_NS)
		return TC_ACT_OK;
	if (r->source == ipv4_of(r->underlay->addr) || ipv4_is_multicast(r->source) || !r->source)
		return TC_ACT_OK;
	pace->last_ns = now;

	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, r->underlay->mac, ETH_ALEN);
	ip->daddr = r->source;
	ip->saddr = ipv4_of(r->underlay->addr);
	ip->ttl = VNETD_TTL_UNICAST;
	ip->check = 0;
	ip->check = ipv4_checksum(ip);
	icmp->type = 0;
	/* RFC 1624: the type's byte became 8 less, the sum's complement 8 more */
	sum = icmp->check + bpf_htons(ICMP_ECHO_REQUEST << 8);
	icmp->check = sum + (sum >> 16);
	return bpf_redirect(skb->ifindex, 0);
}

SEC("tc")
int vnetd_decap(struct __sk_buff *skb)
{
	struct received r = {};
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason;
	__be16 id;

	reason = outer_read(skb, &r);
	if (likely(reason == NOT_OURS))
		return TC_ACT_OK;
	if (reason == PING)
		return answer_ping(skb, &r);
	if (reason == ICMP_TO_US) {
		reason = receive_path_icmp(skb, &r, NOT_OURS);
		if (reason == NOT_OURS)
			return TC_ACT_OK;
		goto count;
	}
	if (unlikely(reason == FIRST_FRAGMENT)) {
		reason = first_fragment(skb, &r, &v, &action);
		goto count;
	}
	if (unlikely(reason))
		goto count;
	if (bpf_skb_load_bytes(skb, r.udp_offset + sizeof(struct udphdr), &id, sizeof(id))) {
		reason = VNETD_DROP_TRUNCATED;
		goto count;
	}
	if (unlikely(r.to_group && !r.forwarded && id != bpf_htons(VNETD_MSG_VFWD))) {
		/* a super-frame from afar comes back in the pieces in which others have it */
		if (skb->gso_size && !on_subnet(r.source, r.underlay)) {
			reason = segment(skb, &r, &action);
			goto count;
		}
		reason = heard_on_group(skb, &r);
		if (reason)
			goto count;
	}
	switch (bpf_ntohs(id)) {
	case VNETD_MSG_VUDP:
		reason = receive_vudp(skb, &r, &v, &action);
		break;
	case VNETD_MSG_VARP:
		reason = receive_varp(skb, &r);
		break;
	case VNETD_MSG_VFWD:
		reason = receive_vfwd(skb, &r, &action);
		break;
	default:
		reason = VNETD_DROP_UNKNOWN_MESSAGE;
	}
count:
	return finish_received(&v, reason, action);
}

char LICENSE[] SEC("license") = "GPL";
