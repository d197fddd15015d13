// SPDX-License-Identifier: GPL-2.0-only
/*
 * Frames whose outer packets came in fragments, on the TC ingress of the VXLAN device that the kernel
 * delivers them to when they are whole again. See bpf/lib/reassembly.h.
 *
 * What comes here is an Ethernet header whose addresses hold this host's secret, and the inner frame.
 * Everything else was sent to the device's port by others and is dropped.
 */
#include "lib/forward.h"
#include "lib/reassembly.h"
#include "lib/receive.h"
#include "lib/seen.h"

static __always_inline bool secret_right(const __u8 *got, const __u8 *secret)
{
	__u8 differ = 0;

#pragma unroll
	for (int i = 0; i < VNETD_SECRET_LEN; i++)
		differ |= got[i] ^ secret[i];
	return !differ;
}

/* What VFWD has in front of the message inside, and what is here in its place. */
struct vfwd_front {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vnetd_msg_hdr msg;
	struct iphdr inner_ip;
	struct udphdr inner_udp;
} VNETD_PACKED;

struct vfwd_rest {
	struct ethhdr eth;
	__be32 source;
	__be16 ip_id;
	__be16 source_port;
	__u16 pad;
} VNETD_PACKED;

/* From a peer: made whole again, and on to bpf/relay.bpf.c. */
SUBPROGRAM __u32 reassembled_vfwd(struct __sk_buff *skb, __be32 sender, __u32 index)
{
	struct vnetd_underlay *underlay = underlay_by_index(index);
	struct vfwd_front front = {};
	struct vfwd_rest rest;
	__u32 zero = 0, len;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (!underlay || !m || !m->relay_out)
		return VNETD_DROP_VFWD_UNAVAILABLE;
	if (bpf_skb_load_bytes(skb, 0, &rest, sizeof(rest)))
		return VNETD_DROP_TRUNCATED;
	len = skb->len + sizeof(front) - sizeof(rest) - ETH_HLEN;
	if (len > 0xffff)
		return VNETD_DROP_VFWD_BAD_INNER;
	if (bpf_skb_change_head(skb, sizeof(front) - sizeof(rest), 0))
		return VNETD_DROP_NO_MEMORY;
	front.eth.h_proto = bpf_htons(ETH_P_IP);
	front.ip.version = 4;
	front.ip.ihl = 5;
	front.ip.tot_len = bpf_htons(len);
	front.ip.protocol = IPPROTO_UDP;
	front.ip.saddr = sender;
	front.ip.daddr = ipv4_of(underlay->addr);
	front.udp.len = bpf_htons(len - sizeof(struct iphdr));
	front.msg.id = bpf_htons(VNETD_MSG_VFWD);
	front.inner_ip.version = 4;
	front.inner_ip.ihl = 5;
	front.inner_ip.id = rest.ip_id;
	front.inner_ip.protocol = IPPROTO_UDP;
	front.inner_ip.saddr = rest.source;
	front.inner_ip.daddr = ipv4_of(underlay->group);
	front.inner_udp.source = rest.source_port;
	if (bpf_skb_store_bytes(skb, 0, &front, sizeof(front), 0))
		return VNETD_DROP_NO_MEMORY;
	skb->mark = VNETD_MARK_RELAY_IN | (index & VNETD_MARK_INDEX);
	return VNETD_OK;
}

/*
 * A frame for all that came in fragments, with its outer packet in front of it once more: to be
 * forwarded to the peers, or to be known again.
 */
SUBPROGRAM __u32 reassembled_group(struct __sk_buff *skb, const struct received *r)
{
	struct outer out __attribute__((aligned(8))) = {};
	const __u32 room = room_of(FORM_UDP4);
	struct outer_spec spec = {
		.form = FORM_UDP4,
		.ip_id = bpf_ntohs(r->ip_id),
	};

	if (!r->underlay || !r->vnet || bpf_skb_change_head(skb, room - ETH_HLEN, 0))
		return VNETD_DROP_NO_MEMORY;
	spec.inner_len = skb->len - room;
	outer_write(&out, &spec, r->underlay, NULL);
	outer_end(&out, r->vnet);
	out.udp4.ip.saddr = r->source.words[3];
	out.udp4.ip.check = 0;
	out.udp4.ip.check = ipv4_checksum(&out.udp4.ip);
	if (bpf_skb_store_bytes(skb, 0, (void *)&out + OUTER_PAD + OUTER_MAX - room, room, 0))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

/* With it: forwarded, or looked for among what came before. */
SUBPROGRAM __u32 reassembled_heard(struct __sk_buff *skb, const struct received *r)
{
	struct group_message message = {
		.offset = room_of(FORM_UDP4) - VNETD_VUDP_HDR_LEN,
		.source = r->source.words[3],
		.ip_id = bpf_ntohs(r->ip_id),
	};

	if (!r->underlay)
		return VNETD_DROP_VNET_DOWN;
	if (on_subnet(r->source.words[3], r->underlay)) {
		forward_copy(skb, r->underlay->index);
		return VNETD_OK;
	}
	message.len = skb->len - message.offset;
	return seen_before(skb, &message) ? VNETD_DROP_DUPLICATE_FORWARD : VNETD_OK;
}

/* The address that the packet came from. False where it did not come through the VXLAN device. */
static __always_inline bool sender_of(struct __sk_buff *skb, struct bpf_tunnel_key *key,
				      union address *sender)
{
	if (bpf_skb_get_tunnel_key(skb, key, sizeof(*key), 0) == 0) {
		ipv4_to(sender->bytes, bpf_htonl(key->remote_ipv4));
		return true;
	}
	if (bpf_skb_get_tunnel_key(skb, key, sizeof(*key), BPF_F_TUNINFO_IPV6))
		return false;
	__builtin_memcpy(sender, key->remote_ipv6, sizeof(*sender));
	return true;
}

static __always_inline __u32 receive_reassembled(struct __sk_buff *skb, struct received *r,
						 struct verdict *v, int *action)
{
	struct {
		__u8 secret[VNETD_SECRET_LEN];
		__u16 ip_id;
		__be16 type;
		__u8 eth[ETH_HLEN];
	} VNETD_PACKED in;
	__u32 zero = 0, reason, slot, front = ETH_HLEN;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	struct bpf_tunnel_key key = {};

	if (!m || bpf_skb_load_bytes(skb, 0, &in, sizeof(in)) ||
	    !secret_right(in.secret, m->reassembly_secret) || !sender_of(skb, &key, &r->source))
		return VNETD_DROP_REASSEMBLY_FORGED;
	if (unlikely(reassembly_is_vfwd(key.tunnel_id))) {
		reason = reassembled_vfwd(skb, bpf_htonl(key.remote_ipv4),
					  reassembly_underlay(key.tunnel_id));
		*action = bpf_redirect(m->relay_out, 0);
		return reason;
	}
	v->len = skb->len - ETH_HLEN;
	slot = reassembly_slot(key.tunnel_id);
	r->vnet = vnet_by_slot(slot);
	r->underlay = underlay_by_index(reassembly_underlay(key.tunnel_id));
	if (!r->vnet || !(r->vnet->flags & VNETD_VNET_UP) || !r->underlay)
		return VNETD_DROP_VNET_DOWN;
	count_begin(v, r->vnet->handle, slot);
	/* may have changed since the first fragment */
	if (r->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_SECURITY;
	r->ip_id = in.ip_id;
	r->to_group = reassembly_to_group(key.tunnel_id);
	v->flooded = r->to_group;
	if (r->to_group && r->underlay->family == VNETD_FAMILY_IPV4 &&
	    (r->underlay->flags & VNETD_UNDERLAY_RELAY ||
	     !on_subnet(r->source.words[3], r->underlay))) {
		reason = reassembled_group(skb, r) ?: reassembled_heard(skb, r);
		if (reason)
			return reason;
		front = room_of(FORM_UDP4);
	}
	reason = learn_remote(skb, r, in.eth + ETH_ALEN, v);
	if (reason)
		return reason;
	reason = strip(skb, front, in.eth, v->len);
	if (reason)
		return reason;
	if (v->traffic)
		v->traffic->fragmented[VNETD_DIR_DECAP] += 1;
	*action = deliver(skb, r);
	return VNETD_OK;
}

SEC("tc")
int vnetd_reassembled(struct __sk_buff *skb)
{
	struct verdict v = { .len = skb->len };
	struct received r = {};
	int action = TC_ACT_SHOT;
	__u32 reason;

	reason = receive_reassembled(skb, &r, &v, &action);
	return finish_received(&v, reason, action);
}

char LICENSE[] SEC("license") = "GPL";
