// SPDX-License-Identifier: GPL-2.0-only
/*
 * From the underlay into a vnet, on the TC ingress of each underlay device.
 *
 * What bpf/xdp.bpf.c has known is handed over at once (bpf/lib/xdp.h). Any other packet on its way in:
 *   1. outer_read()      is it for us; everything else goes on to the stack untouched
 *      check_group()     what came to another group than the device's: is it the vnet's own
 *   2. receive_frame()   which vnet, may it come in, learn where its source lives
 *      probe_arrives()   of a probe: is it ours, come back (bpf/lib/probe.h)
 *      first_fragment()  of a packet in fragments: to the stack, which reassembles it
 *                        (then bpf/reassembled.bpf.c)
 *      receive_varp_any()  answered or entered here (bpf/lib/varp_here.h), or to the daemon (bpf/lib/varp.h)
 *      receive_esp()     of ESP (bpf/lib/esp_source.h): does its SA's host send it? The stack decrypts it then
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
#include "lib/esp_source.h"
#include "lib/forward.h"
#include "lib/forwarders.h"
#include "lib/group.h"
#include "lib/reassembly.h"
#include "lib/receive.h"
#include "lib/seen.h"
#include "lib/varp_here.h"
#include "lib/xdp.h"

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
#define ESP_INSIDE ((__u32)VNETD_REASON_COUNT + 4)

/* The place that a packet came by, also when it came through the segmenting pair. */
static __always_inline struct vnetd_underlay *underlay_of(struct __sk_buff *skb, __u32 family,
							  bool *segmented)
{
	struct vnetd_underlay *underlay;
	__u32 zero = 0;
	struct vnetd_meta *m;

	if (likely((skb->mark & VNETD_MARK_KIND) != VNETD_MARK_SEGMENTED))
		return underlay_at(skb->ifindex, family);
	m = bpf_map_lookup_elem(&meta, &zero);
	if (!m || skb->ifindex != m->segment_in)
		return underlay_at(skb->ifindex, family);
	*segmented = true;
	underlay = underlay_by_index(skb->mark & VNETD_MARK_INDEX);
	return underlay && underlay->family == family ? underlay : NULL;
}

/* The UDP header's own checks, and the message's length. available: what the IP packet holds from
 * the UDP header on. */
static __always_inline __u32 udp_read(struct __sk_buff *skb, struct received *r,
				      const struct udphdr *udp, __u32 available)
{
	r->payload = bpf_ntohs(udp->len);
	if (r->payload < sizeof(*udp) || r->payload > available)
		return VNETD_DROP_BAD_UDP_LENGTH;
	if (r->offset + r->payload > skb->len)
		return VNETD_DROP_TRUNCATED;
	r->payload -= sizeof(*udp);
	if (r->payload < sizeof(struct vnetd_msg_hdr))
		return VNETD_DROP_TRUNCATED;
	return VNETD_OK;
}

/* EtherIP of vnet: version and vnet id, which are read later. */
static __always_inline __u32 etherip_read(struct __sk_buff *skb, struct received *r, __be16 version,
					  __u32 available)
{
	if (version == bpf_htons(VNETD_ETHERIP_VERSION_RFC3378))
		return NOT_OURS;
	r->is_etherip = true;
	r->payload = available;
	if (available < VNETD_ETHERIP_HDR_LEN || r->offset + available > skb->len)
		return VNETD_DROP_TRUNCATED;
	return VNETD_OK;
}

/*
 * Is this packet for us? Returns NOT_OURS, PING, ICMP_TO_US, FIRST_FRAGMENT, VNETD_OK with *r filled
 * in, or a reason. Cheap for what is not: most of a host's traffic passes here.
 */
static __always_inline __u32 outer_read4(struct __sk_buff *skb, struct received *r)
{
	void *data, *data_end;
	struct iphdr *ip;
	struct udphdr *udp;
	__u32 ihl, total, reason;
	__be32 group, source;
	bool right, fragment;

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
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_ICMP &&
	    ip->protocol != VNETD_ETHERIP_PROTOCOL)
		return ip->protocol == IPPROTO_ESP ? ESP_INSIDE : NOT_OURS;
	if (ip->version != 4 || ip->ihl < 5)
		return NOT_OURS;
	/* later fragments go to the stack as they are */
	if (ip->frag_off & bpf_htons(IPV4_OFFSET))
		return NOT_OURS;
	fragment = ip->frag_off & bpf_htons(IPV4_MF);
	r->underlay = underlay_of(skb, VNETD_FAMILY_IPV4, &r->segmented);
	if (!r->underlay || !(r->underlay->flags & VNETD_UNDERLAY_UP))
		return NOT_OURS;
	r->forwarded = r->segmented && skb->mark & VNETD_MARK_FORWARDED;
	group = ipv4_of(r->underlay->group);
	source = ip->saddr;
	ipv4_to(r->source.bytes, source);
	ipv4_to(r->destination.bytes, ip->daddr);
	r->to_group = ip->daddr == group;
	r->ip_id = ip->id;
	if (!r->to_group && ip->daddr != ipv4_of(r->underlay->addr)) {
		if (!ipv4_is_multicast(ip->daddr))
			return NOT_OURS;
		r->to_group = r->other_group = true;
	}
	if (ip->protocol == IPPROTO_ICMP) {
		if (ip->ihl != 5 || fragment || r->other_group)
			return NOT_OURS;
		return r->to_group ? PING : ICMP_TO_US;
	}

	ihl = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	r->offset = ETH_HLEN + ihl;
	r->is_etherip = ip->protocol == VNETD_ETHERIP_PROTOCOL;
	if (likely(ihl == IPV4_MIN)) {
		udp = (void *)(ip + 1);
		right = !ipv4_checksum(ip);
	} else {
		right = ipv4_options_checksum_right(skb, ihl);
		if (bpf_skb_pull_data(skb, r->offset + sizeof(*udp)))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
		udp = data + (r->offset & 0x7f);
		if ((void *)(udp + 1) > data_end)
			return NOT_OURS;
	}
	if (unlikely(r->is_etherip)) {
		reason = etherip_read(skb, r, udp->source, total - ihl);
		if (reason == NOT_OURS)
			return reason;
	} else {
		if (udp->dest != r->underlay->port)
			return NOT_OURS;
		r->source_port = udp->source;
		reason = udp_read(skb, r, udp, total - ihl);
	}

	/* from here on it is ours, and whatever is wrong with it has a reason; we are in front of
	 * ip_rcv, so the header's checksum is ours to check. A UDP checksum is not checked: on a
	 * virtual device a right packet's may not be filled in yet. */
	if (!right)
		return VNETD_DROP_BAD_HEADER_CHECKSUM;
	if (source == ipv4_of(r->underlay->addr))
		return VNETD_DROP_OWN_ECHO;
	if (!ipv4_is_host(source))
		return VNETD_DROP_BAD_SOURCE_ADDRESS;
	if (fragment)
		return FIRST_FRAGMENT;
	if (total < ihl)
		return VNETD_DROP_BAD_UDP_LENGTH;
	return reason;
}

/*
 * The same for IPv6. There is no header checksum; extension headers other than the fragment header
 * are the stack's.
 */
static __always_inline __u32 outer_read6(struct __sk_buff *skb, struct received *r)
{
	void *data, *data_end;
	struct ipv6hdr *ip;
	struct udphdr *udp;
	__u32 total, reason, headers = ETH_HLEN + sizeof(*ip);
	__u8 protocol;
	bool fragment = false;

	data = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	if (unlikely(data + ETH_HLEN + sizeof(*ip) + sizeof(*udp) > data_end)) {
		if (bpf_skb_pull_data(skb, ETH_HLEN + sizeof(*ip) + sizeof(*udp)))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
		if (data + ETH_HLEN + sizeof(*ip) + sizeof(*udp) > data_end)
			return NOT_OURS;
	}
	ip = data + ETH_HLEN;
	protocol = ip->nexthdr;
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_FRAGMENT && protocol != IPPROTO_ICMPV6 &&
	    protocol != VNETD_ETHERIP_PROTOCOL)
		return esp_may_follow(protocol) ? ESP_INSIDE : NOT_OURS;
	if (ip->version != 6)
		return NOT_OURS;
	r->underlay = underlay_of(skb, VNETD_FAMILY_IPV6, &r->segmented);
	if (!r->underlay || !(r->underlay->flags & VNETD_UNDERLAY_UP))
		return NOT_OURS;
	r->forwarded = r->segmented && skb->mark & VNETD_MARK_FORWARDED;
	__builtin_memcpy(&r->source, &ip->saddr, sizeof(r->source));
	__builtin_memcpy(&r->destination, &ip->daddr, sizeof(r->destination));
	/* of the group's packets, the flow label's lower bits: what IPv4's id is there */
	__builtin_memcpy(&r->ip_id, (void *)ip + 2, sizeof(r->ip_id));
	r->to_group = same_words(r->destination.words, (void *)r->underlay->group);
	if (!r->to_group && !same_words(r->destination.words, (void *)r->underlay->addr)) {
		if (r->destination.bytes[0] != 0xff)
			return NOT_OURS;
		r->to_group = r->other_group = true;
	}
	if (protocol == IPPROTO_ICMPV6)
		return r->to_group ? NOT_OURS : ICMP_TO_US;

	total = bpf_ntohs(ip->payload_len);
	udp = (void *)(ip + 1);
	if (unlikely(protocol == IPPROTO_FRAGMENT)) {
		struct ipv6_fragment *frag;

		headers += sizeof(*frag);
		if (bpf_skb_pull_data(skb, headers + sizeof(*udp)))
			return NOT_OURS;
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
		if (data + ETH_HLEN + sizeof(*ip) + sizeof(*frag) + sizeof(*udp) > data_end)
			return NOT_OURS;
		frag = data + ETH_HLEN + sizeof(*ip);
		udp = (void *)(frag + 1);
		protocol = frag->nexthdr;
		/* later fragments go to the stack as they are */
		if (frag->offset & bpf_htons(IPV6_OFFSET))
			return NOT_OURS;
		if (protocol != IPPROTO_UDP && protocol != VNETD_ETHERIP_PROTOCOL)
			return esp_may_follow(protocol) ? ESP_INSIDE : NOT_OURS;
		if (total < sizeof(*frag))
			return NOT_OURS;
		fragment = frag->offset & bpf_htons(IPV6_MORE);
		total -= sizeof(*frag);
	}
	r->offset = headers;
	r->is_etherip = protocol == VNETD_ETHERIP_PROTOCOL;
	if (unlikely(r->is_etherip)) {
		reason = etherip_read(skb, r, udp->source, total);
		if (reason == NOT_OURS)
			return reason;
	} else {
		if (udp->dest != r->underlay->port)
			return NOT_OURS;
		r->source_port = udp->source;
		reason = udp_read(skb, r, udp, total);
	}
	/* its own from here on, as above; a checksum of 0 is taken as any other */
	if (same_words(r->source.words, (void *)r->underlay->addr))
		return VNETD_DROP_OWN_ECHO;
	if (!ipv6_names_host(&r->source))
		return VNETD_DROP_BAD_SOURCE_ADDRESS;
	return fragment ? FIRST_FRAGMENT : reason;
}

static __always_inline __u32 outer_read(struct __sk_buff *skb, struct received *r)
{
	/* the stack takes what has a priority but no VLAN */
	if (unlikely(skb->vlan_present))
		return skb->vlan_tci & VLAN_ID ? NOT_OURS : ESP_INSIDE;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return outer_read4(skb, r);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return outer_read6(skb, r);
	return NOT_OURS;
}

/*
 * A packet to a multicast group that is not the device's: VNETD_OK if it is the vnet's own. If not, and the vnet has one,
 * it is counted; all else there is somebody else's.
 */
CHECKED_ONCE __u32 check_group(struct __sk_buff *skb, const union address *to, __u32 offset,
			       __u32 is_etherip, __u32 *handle)
{
	struct vnetd_vnet *vnet;
	struct vnetd_vnet_id id;
	__be16 message;
	__u32 *slot;

	if (!to || !handle)
		return NOT_OURS;
	if (!is_etherip) {
		offset += sizeof(struct udphdr);
		if (bpf_skb_load_bytes(skb, offset, &message, sizeof(message)) ||
		    message != bpf_htons(VNETD_MSG_VUDP))
			return NOT_OURS;
		offset += VNETD_MSG_HDR_LEN;
	}
	if (bpf_skb_load_bytes(skb, offset + offsetof(struct frame_start, vnet), &id, sizeof(id)))
		return NOT_OURS;
	slot = bpf_map_lookup_elem(&vnet_ids, &id);
	vnet = slot ? vnet_by_slot(*slot) : NULL;
	if (!vnet || !has_own_group(vnet))
		return NOT_OURS;
	if (is_own_group(to, vnet))
		return VNETD_OK;
	*handle = vnet->handle;
	return VNETD_DROP_OTHER_GROUP;
}

/* Of what came to another group than the device's: what is wrong with somebody else's is not ours to count. */
static __always_inline __u32 group_reason(struct __sk_buff *skb, struct received *r, __u32 reason,
					  struct verdict *v)
{
	if (reason == NOT_OURS || reason == ESP_INSIDE)
		return reason;
	return check_group(skb, &r->destination, r->offset, r->is_etherip, &v->handle) ?: reason;
}

/* ---- VUDP --------------------------------------------------------------------------------- */

/*
 * A super-frame can be decapsulated whole if the kernel will segment it as the inner TCP that it
 * is: its inner IP packet fills it. Everything else (inner UDP, whose segmentation the tunnel
 * bits that stay set would break; several datagrams that a driver merged) is segmented first.
 * What leaves by the vnetif's peer is segmented there as the outer packet's protocol, which
 * skb->protocol may still say: that suits an inner packet of the same family alone.
 */
static __always_inline bool superframe_is_tcp(struct __sk_buff *skb, __u32 inner, __u32 inner_len,
					      bool by_peer)
{
	__be16 type, len16;
	__u32 network;
	__u8 proto;

	if (bpf_skb_load_bytes(skb, inner + 2 * ETH_ALEN, &type, 2))
		return false;
	if (by_peer && type != (__be16)skb->protocol)
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
static __always_inline __u32 vfwd_allowed(const struct received *r, const struct vnetd_meta *m)
{
	struct vnetd_vnet_id addr;

	__builtin_memcpy(&addr, &r->source, sizeof(addr));
	if (r->to_group || !bpf_map_lookup_elem(&peer_ids, &addr)) {
		event_not_peer(addr.bytes, r->underlay->ifindex);
		return VNETD_DROP_VFWD_NOT_PEER;
	}
	return m && m->relay_out ? VNETD_OK : VNETD_DROP_VFWD_UNAVAILABLE;
}

static __always_inline __u32 receive_vfwd(struct __sk_buff *skb, const struct received *r,
					  int *action)
{
	__u32 zero = 0, reason;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	reason = vfwd_allowed(r, m);
	if (reason || !m)
		return reason;
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
		.offset = r->offset + sizeof(struct udphdr),
		.len = r->payload + VNETD_MSG_HDR_LEN,
		.source = r->source,
		.ip_id = bpf_ntohs(r->ip_id),
	};

	if (is_near(&r->source, r->underlay)) {
		if (r->underlay->flags & VNETD_UNDERLAY_RELAY && !r->segmented &&
		    is_forwarded(&r->source))
			forward_copy(skb, r->underlay->index, r->underlay->family);
		return VNETD_OK;
	}
	/* originals have IPv4 alone */
	if (r->underlay->family == VNETD_FAMILY_IPV4)
		forwards_note(skb, r->underlay);
	return seen_before(skb, &message) ? VNETD_DROP_DUPLICATE_FORWARD : VNETD_OK;
}

/* Which vnet is the frame for, and may it come in? Fills in r->vnet and begins the count. */
static __always_inline __u32 admit(const struct frame_start *in, struct received *r,
				   struct verdict *v)
{
	__u32 id[VNETD_ID_LEN / 4], *slot, hinted = 0;

	if (!version_right(in->etherip))
		return VNETD_DROP_BAD_VERSION;
	__builtin_memcpy(id, in->vnet, VNETD_ID_LEN);
	if (!(id[0] | id[1] | id[2]) && (id[3] & bpf_htonl(0xfffffffe)) == 0)
		return VNETD_DROP_BAD_VNET_ID;
	r->vnet = vnet_by_hint(id, &hinted);
	if (unlikely(!r->vnet)) {
		slot = bpf_map_lookup_elem(&vnet_ids, id);
		if (!slot)
			return VNETD_DROP_UNKNOWN_VNET;
		hinted = *slot;
		r->vnet = vnet_by_slot(hinted);
		if (!r->vnet)
			return VNETD_DROP_UNKNOWN_VNET;
		vnet_hint_set(id, hinted);
	}
	count_begin(v, r->vnet->handle, hinted);
	if (!(r->vnet->flags & VNETD_VNET_UP))
		return VNETD_DROP_VNET_DOWN;
	/* a secure vnet's frames come through its security associations, never in clear */
	if (r->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_SECURITY;
	return VNETD_OK;
}

/* offset: of EtherIP's version; len: from there on */
static __always_inline __u32 receive_frame(struct __sk_buff *skb, struct received *r,
					   struct verdict *v, __u32 offset, __u32 len, int *action)
{
	struct inner_frame in;
	__u32 reason = inner_read(skb, &in, offset, len, v);

	if (reason)
		return reason;
	reason = admit(&in.start, r, v);
	if (reason)
		return reason;

	if (skb->gso_size) {
		/* the kernel cannot segment behind EtherIP */
		if (r->segmented || r->is_etherip)
			return VNETD_DROP_BAD_SUPERFRAME;
		/* a direct port may be a tap, which leaves segmenting to the kernel as well */
		if (!superframe_is_tcp(skb, in.offset, v->len,
				       r->vnet->flags & VNETD_VNET_PORTS ||
					       goes_by_peer(skb, r, merges(r)))) {
			/* counted when it comes back */
			reason = segment(skb, r, action);
			v->traffic = NULL;
			return reason;
		}
	}
	reason = learn_remote(skb, r, in.start.eth + ETH_ALEN, v);
	if (reason)
		return reason;
	count_device(r, skb);
	v->flooded = r->to_group;
	reason = inner_take_out(skb, r, &in, v);
	if (reason)
		return reason;
	*action = deliver(skb, r, merges(r));
	return VNETD_OK;
}

/* ---- the first of several fragments ------------------------------------------------------- */

/* What goes along with VFWD in its own place, in front of what the kernel reassembles. */
static __always_inline void reassembly_vfwd(struct reassembly_hdr *hdr, const struct received *r,
					    const struct vnetd_meta *m)
{
	hdr->udp.dest = bpf_htons(VNETD_REASSEMBLY_PORT);
	hdr->udp.check = 0;
	hdr->vxlan_flags = VXLAN_FLAG_VNI;
	hdr->vxlan_id =
		bpf_htonl((reassembly_id(0, r->underlay->index & 7, false) | REASSEMBLY_VFWD) << 8);
	__builtin_memcpy(hdr->secret, m->reassembly_secret, sizeof(hdr->secret));
	hdr->ip_id = 0;
	hdr->type = bpf_htons(ETH_P_IP);
}

/* VARP is never so long. */
static __always_inline __u32 fragment_message(__be16 id, bool is_udp)
{
	if (is_udp && id == bpf_htons(VNETD_MSG_VUDP))
		return VNETD_OK;
	return id == bpf_htons(VNETD_MSG_VFWD) ? VNETD_DROP_VFWD_NESTED : VNETD_DROP_VFWD_BAD_INNER;
}

SUBPROGRAM __u32 rewrite_vfwd4(struct __sk_buff *skb, const struct received *r,
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
	__u32 reason;

	if (!m || bpf_skb_load_bytes(skb, r->offset, &in, sizeof(in)))
		return VNETD_DROP_TRUNCATED;
	reason = fragment_message(in.id, in.ip.protocol == IPPROTO_UDP);
	if (reason)
		return reason;
	if (in.ip.daddr != ipv4_of(r->underlay->group))
		return VNETD_DROP_VFWD_NOT_GROUP;
	out.hdr.udp = in.udp;
	reassembly_vfwd(&out.hdr, r, m);
	out.source = in.ip.saddr;
	out.ip_id = in.ip.id;
	out.source_port = in.inner_udp.source;
	return bpf_skb_store_bytes(skb, r->offset, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM)
		       ? VNETD_DROP_NO_MEMORY
		       : VNETD_OK;
}

/* Field by field: the stack is short of room here. */
SUBPROGRAM __u32 rewrite_vfwd6(struct __sk_buff *skb, const struct received *r,
			       const struct vnetd_meta *m)
{
	const __u32 ip = r->offset + sizeof(struct udphdr) + VNETD_MSG_HDR_LEN,
		    udp = ip + sizeof(struct ipv6hdr);
	struct reassembly_vfwd6_hdr out __attribute__((aligned(8))) = {};
	union address group;
	__u32 reason;
	__u8 protocol;
	__be16 id;

	if (!m || bpf_skb_load_bytes(skb, ip + offsetof(struct ipv6hdr, nexthdr), &protocol, 1) ||
	    bpf_skb_load_bytes(skb, udp + sizeof(struct udphdr), &id, sizeof(id)) ||
	    bpf_skb_load_bytes(skb, r->offset, &out.hdr.udp, sizeof(out.hdr.udp)) ||
	    bpf_skb_load_bytes(skb, ip + 2, &out.number, sizeof(out.number)) ||
	    bpf_skb_load_bytes(skb, udp, &out.source_port, sizeof(out.source_port)) ||
	    bpf_skb_load_bytes(skb, ip + offsetof(struct ipv6hdr, daddr), &group, sizeof(group)) ||
	    bpf_skb_load_bytes(skb, ip + offsetof(struct ipv6hdr, saddr), out.source,
			       sizeof(out.source)))
		return VNETD_DROP_TRUNCATED;
	reason = fragment_message(id, protocol == IPPROTO_UDP);
	if (reason)
		return reason;
	if (!same_words(group.words, (const void *)r->underlay->group))
		return VNETD_DROP_VFWD_NOT_GROUP;
	reassembly_vfwd(&out.hdr, r, m);
	return bpf_skb_store_bytes(skb, r->offset, &out, sizeof(out), BPF_F_RECOMPUTE_CSUM)
		       ? VNETD_DROP_NO_MEMORY
		       : VNETD_OK;
}

/* The same for VFWD: whether the sender is a peer is known here, the rest when it is whole. */
SUBPROGRAM __u32 first_fragment_vfwd(struct __sk_buff *skb, const struct received *r,
				     const struct vnetd_meta *m)
{
	__u32 reason;

	if (!m)
		return VNETD_OK;
	reason = vfwd_allowed(r, m);
	if (reason)
		return reason;
	return r->underlay->family == VNETD_FAMILY_IPV6 ? rewrite_vfwd6(skb, r, m)
							: rewrite_vfwd4(skb, r, m);
}

/*
 * Sends it on to the stack in the form that brings the reassembled packet back to us
 * (bpf/lib/reassembly.h). What does not hold a frame's beginning stays as it is; the stack finds
 * nobody who wants it. Counted when it comes back.
 */
static __always_inline __u32 first_fragment(struct __sk_buff *skb, struct received *r,
					    struct verdict *v, int *action)
{
	__u32 offset = r->offset + sizeof(struct udphdr), zero = 0, reason, slot;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	struct reassembly_hdr hdr = {};
	struct {
		struct vnetd_msg_hdr msg;
		struct frame_start start;
	} VNETD_PACKED in;

	/* there is no room in its header for what brings a packet back; what sends it sets DF */
	if (r->is_etherip)
		return VNETD_DROP_ETHERIP_FRAGMENT;
	*action = TC_ACT_OK;
	if (!m || !m->reassembly || bpf_skb_load_bytes(skb, offset, &in, sizeof(in)))
		return VNETD_OK;
	if (in.msg.id == bpf_htons(VNETD_MSG_VFWD)) {
		v->traffic = NULL;
		return first_fragment_vfwd(skb, r, m);
	}
	if (in.msg.id != bpf_htons(VNETD_MSG_VUDP))
		return VNETD_OK;
	reason = admit(&in.start, r, v);
	slot = v->slot;
	v->traffic = NULL;
	if (reason)
		return reason;
	if (bpf_skb_load_bytes(skb, r->offset, &hdr.udp, sizeof(hdr.udp)))
		return VNETD_DROP_TRUNCATED;
	hdr.udp.dest = bpf_htons(VNETD_REASSEMBLY_PORT);
	hdr.udp.check = 0;
	hdr.vxlan_flags = VXLAN_FLAG_VNI;
	hdr.vxlan_id = bpf_htonl(reassembly_id(slot, r->underlay->index & 7, r->to_group) << 8);
	__builtin_memcpy(hdr.secret, m->reassembly_secret, sizeof(hdr.secret));
	hdr.ip_id = r->ip_id;
	hdr.type = bpf_htons(ETH_P_IP);
	if (bpf_skb_store_bytes(skb, r->offset, &hdr, sizeof(hdr), BPF_F_RECOMPUTE_CSUM))
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
		struct ethhdr eth;
		struct iphdr ip;
		__u8 type, code;
		__u16 check;
	} VNETD_PACKED head;
	__u32 zero = 0, sum;
	struct ping_pace *pace = bpf_map_lookup_elem(&ping_pace, &zero);
	__u64 now = bpf_ktime_get_ns();
	__be32 source;

	if (data + sizeof(head) > data_end)
		return TC_ACT_OK;
	__builtin_memcpy(&head, data, sizeof(head));
	if (head.type != ICMP_ECHO_REQUEST || head.code)
		return TC_ACT_OK;
	if (!pace || now - pace->last_ns < PING_INTERVAL_NS)
		return TC_ACT_OK;
	source = r->source.words[3];
	if (source == ipv4_of(r->underlay->addr) || ipv4_is_multicast(source) || !source)
		return TC_ACT_OK;
	pace->last_ns = now;

	__builtin_memcpy(head.eth.h_dest, head.eth.h_source, ETH_ALEN);
	__builtin_memcpy(head.eth.h_source, r->underlay->mac, ETH_ALEN);
	head.ip.daddr = source;
	head.ip.saddr = ipv4_of(r->underlay->addr);
	head.ip.ttl = VNETD_TTL_UNICAST;
	head.ip.check = 0;
	head.ip.check = ipv4_checksum(&head.ip);
	head.type = 0;
	/* RFC 1624: the type's byte became 8 less, the sum's complement 8 more */
	sum = head.check + bpf_htons(ICMP_ECHO_REQUEST << 8);
	head.check = sum + (sum >> 16);
	if (bpf_skb_store_bytes(skb, 0, &head, sizeof(head), 0))
		return TC_ACT_OK;
	return bpf_redirect(skb->ifindex, 0);
}

/* r->payload: of the whole message */
static __always_inline __u32 receive_varp_any(struct __sk_buff *skb, const struct received *r,
					      struct verdict *v, int *action)
{
	__u32 handle = 0, done = varp_here(skb, r, &handle);

	switch (done) {
	case VARP_FOR_DAEMON:
		return receive_varp(skb, r, r->forwarded ? VNETD_WAY_FORWARDED : VNETD_WAY_DIRECT);
	case VARP_ANSWERED:
		*action = bpf_redirect_neigh(r->underlay->ifindex, NULL, 0, 0);
		return VNETD_OK;
	case VARP_LEARNED:
		/* what comes to this host alone may be the answer to a question of the daemon's */
		if (!r->to_group)
			receive_varp(skb, r, VNETD_WAY_LEARNED);
		return VNETD_OK;
	case VARP_NOT_HERE:
		return VNETD_OK;
	default:
		v->handle = handle;
		return done;
	}
}

SEC("tc")
int vnetd_decap(struct __sk_buff *skb)
{
	struct received r = {};
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason, in_front = 0;
	__be16 id = bpf_htons(VNETD_MSG_VUDP);

	/* what XDP knew bears a mark in place of its MAC, which is nobody's */
	if (skb->pkt_type == PACKET_OTHERHOST) {
		reason = receive_from_xdp(skb, &r, &v);
		if (reason != NOT_FROM_XDP) {
			if (!reason)
				action = deliver(skb, &r, merges(&r));
			goto count;
		}
	}
	reason = outer_read(skb, &r);
	if (unlikely(r.other_group))
		reason = group_reason(skb, &r, reason, &v);
	if (likely(reason == NOT_OURS))
		return TC_ACT_OK;
	if (reason == PING)
		return answer_ping(skb, &r);
	if (reason == ICMP_TO_US) {
		reason = receive_path_icmp(skb, NOT_OURS);
		if (reason == NOT_OURS)
			return TC_ACT_OK;
		goto count;
	}
	if (unlikely(reason == ESP_INSIDE))
		return receive_esp(skb);
	if (unlikely(reason == FIRST_FRAGMENT)) {
		reason = first_fragment(skb, &r, &v, &action);
		goto count;
	}
	if (unlikely(reason))
		goto count;
	/* behind UDP a message header is in front of the frame's; what EtherIP carries is a frame */
	if (likely(!r.is_etherip)) {
		if (bpf_skb_load_bytes(skb, r.offset + sizeof(struct udphdr), &id, sizeof(id))) {
			reason = VNETD_DROP_TRUNCATED;
			goto count;
		}
		in_front = sizeof(struct udphdr) + VNETD_MSG_HDR_LEN;
		r.payload -= VNETD_MSG_HDR_LEN;
	}
	/* forwarders know VUDP */
	if (unlikely(r.to_group && !r.forwarded && id != bpf_htons(VNETD_MSG_VFWD) &&
		     !r.is_etherip)) {
		/* a super-frame from afar comes back in the pieces in which others have it */
		if (skb->gso_size && !is_near(&r.source, r.underlay)) {
			reason = segment(skb, &r, &action);
			goto count;
		}
		reason = heard_on_group(skb, &r);
		if (reason)
			goto count;
	}
	switch (bpf_ntohs(id)) {
	case VNETD_MSG_VUDP:
		reason = receive_frame(skb, &r, &v, r.offset + in_front, r.payload, &action);
		break;
	case VNETD_MSG_VARP:
		r.payload += VNETD_MSG_HDR_LEN;
		reason = receive_varp_any(skb, &r, &v, &action);
		break;
	case VNETD_MSG_VFWD:
		reason = receive_vfwd(skb, &r, &action);
		break;
	default:
		reason = VNETD_DROP_UNKNOWN_MESSAGE;
	}
count:
	return finish_received(skb, &v, reason, action);
}

char LICENSE[] SEC("license") = "GPL";
