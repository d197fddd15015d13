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
#include "lib/vfwd.h"

static __always_inline bool secret_right(const __u8 *got, const __u8 *secret)
{
	__u8 differ = 0;

#pragma unroll
	for (int i = 0; i < VNETD_SECRET_LEN; i++)
		differ |= got[i] ^ secret[i];
	return !differ;
}

/* What is here in the place of what VFWD has in front of the message inside. */
struct vfwd_rest {
	struct ethhdr eth;
	__be32 source;
	__be16 ip_id;
	__be16 source_port;
	__u16 pad;
} VNETD_PACKED;

struct vfwd6_rest {
	struct ethhdr eth;
	__u8 source[16];
	__be16 number;
	__be16 source_port;
	__u8 pad[10];
} VNETD_PACKED;

struct vfwd_made {
	/* both as on the wire */
	union front front;
	union vfwd inside;
};

/*
 * The headers from the outer one on up to the message, and how long they are with what is inside.
 * Returns whether that is as long as a packet can be.
 */
static __always_inline bool make_vfwd(struct vfwd_made *made, const union address *sender,
				      const struct vnetd_underlay *underlay, __u32 message_len,
				      bool is_ipv6)
{
	__u32 inside = sizeof(struct udphdr) + message_len;
	union address own, group, nobody = {};
	struct ip_spec spec = {
		.source = sender,
		.destination = &own,
		.payload = inside + vfwd_overhead(is_ipv6),
	};

	if (ip_len(is_ipv6) + spec.payload > 0xffff)
		return false;
	__builtin_memcpy(&own, underlay->addr, sizeof(own));
	__builtin_memcpy(&group, underlay->group, sizeof(group));
	front_build(&made->front, is_ipv6, &spec, underlay->mac);
	spec.source = &nobody;
	spec.destination = &group;
	spec.payload = inside;
	if (is_ipv6)
		ipv6_build(&made->inside.v6.ip, &spec);
	else
		ipv4_build(&made->inside.v4.ip, &spec);
	made->inside.v4.msg.id = bpf_htons(VNETD_MSG_VFWD);
	return true;
}

/* From a peer: made whole again, and on to bpf/relay.bpf.c. */
SUBPROGRAM __u32 reassembled_vfwd4(struct __sk_buff *skb, const union address *sender,
				   const struct vnetd_underlay *underlay)
{
	struct vfwd_made made = {};
	struct vfwd_rest rest;
	const __u32 more = FRONT4 + sizeof(made.inside.v4) - sizeof(rest);

	if (!sender || !underlay || bpf_skb_load_bytes(skb, 0, &rest, sizeof(rest)))
		return VNETD_DROP_TRUNCATED;
	if (!make_vfwd(&made, sender, underlay, skb->len - sizeof(rest), false))
		return VNETD_DROP_VFWD_BAD_INNER;
	made.inside.v4.ip.id = rest.ip_id;
	made.inside.v4.ip.saddr = rest.source;
	made.inside.v4.udp.source = rest.source_port;
	if (bpf_skb_change_head(skb, more, 0) ||
	    bpf_skb_store_bytes(skb, 0, &made.front.v4.eth, FRONT4, 0) ||
	    bpf_skb_store_bytes(skb, FRONT4, &made.inside.v4, sizeof(made.inside.v4), 0))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

SUBPROGRAM __u32 reassembled_vfwd6(struct __sk_buff *skb, const union address *sender,
				   const struct vnetd_underlay *underlay)
{
	struct vfwd_made made = {};
	struct vfwd6_rest rest;
	const __u32 more = FRONT6 + sizeof(made.inside.v6) - sizeof(rest);

	if (!sender || !underlay || bpf_skb_load_bytes(skb, 0, &rest, sizeof(rest)))
		return VNETD_DROP_TRUNCATED;
	if (!make_vfwd(&made, sender, underlay, skb->len - sizeof(rest), true))
		return VNETD_DROP_VFWD_BAD_INNER;
	__builtin_memcpy((void *)&made.inside.v6.ip + 2, &rest.number, sizeof(rest.number));
	__builtin_memcpy(&made.inside.v6.ip.saddr, rest.source, sizeof(rest.source));
	made.inside.v6.udp.source = rest.source_port;
	if (bpf_skb_change_head(skb, more, 0) ||
	    bpf_skb_store_bytes(skb, 0, &made.front.v6.eth, FRONT6, 0) ||
	    bpf_skb_store_bytes(skb, FRONT6, &made.inside.v6, sizeof(made.inside.v6), 0))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

static __always_inline __u32 reassembled_vfwd(struct __sk_buff *skb, const union address *sender,
					      __u32 index, int *action)
{
	struct vnetd_underlay *underlay = underlay_by_index(index);
	__u32 zero = 0, reason;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (!underlay || !m || !m->relay_out)
		return VNETD_DROP_VFWD_UNAVAILABLE;
	reason = underlay->family == VNETD_FAMILY_IPV6 ? reassembled_vfwd6(skb, sender, underlay)
						       : reassembled_vfwd4(skb, sender, underlay);
	if (reason)
		return reason;
	skb->mark = VNETD_MARK_RELAY_IN | (index & VNETD_MARK_INDEX);
	*action = bpf_redirect(m->relay_out, 0);
	return VNETD_OK;
}

/*
 * A frame for all that came in fragments, with its outer packet in front of it once more: to be
 * forwarded to the peers, or to be known again.
 */
SUBPROGRAM __u32 reassembled_group(struct __sk_buff *skb, const struct received *r)
{
	struct outer out __attribute__((aligned(8))) = {};
	struct outer_spec spec = { .ip_id = bpf_ntohs(r->ip_id) };
	__u32 room;

	if (!r->underlay || !r->vnet)
		return VNETD_DROP_VNET_DOWN;
	spec.form = form_of(r->underlay, VNETD_ENCAP_UDP);
	room = room_of(spec.form);
	if (bpf_skb_change_head(skb, room - ETH_HLEN, 0))
		return VNETD_DROP_NO_MEMORY;
	spec.inner_len = skb->len - room;
	outer_write(&out, &spec, r->underlay, NULL);
	outer_end(&out, r->vnet);
	if (spec.form == FORM_UDP6) {
		__builtin_memcpy(&out.udp6.ip.saddr, &r->source, sizeof(out.udp6.ip.saddr));
		return bpf_skb_store_bytes(skb, 0, (void *)&out + OUTER_PAD, OUTER_MAX, 0)
			       ? VNETD_DROP_NO_MEMORY
			       : VNETD_OK;
	}
	out.udp4.ip.saddr = r->source.words[3];
	out.udp4.ip.check = 0;
	out.udp4.ip.check = ipv4_checksum(&out.udp4.ip);
	return bpf_skb_store_bytes(skb, 0, (void *)&out.udp4.eth, room_of(FORM_UDP4), 0)
		       ? VNETD_DROP_NO_MEMORY
		       : VNETD_OK;
}

/* With it: forwarded, or looked for among what came before. */
SUBPROGRAM __u32 reassembled_heard(struct __sk_buff *skb, const struct received *r)
{
	struct group_message message = {
		.source = r->source,
		.ip_id = bpf_ntohs(r->ip_id),
	};

	if (!r->underlay)
		return VNETD_DROP_VNET_DOWN;
	if (is_near(&r->source, r->underlay)) {
		if (is_forwarded(&r->source))
			forward_copy(skb, r->underlay->index, r->underlay->family);
		return VNETD_OK;
	}
	message.offset = room_of(form_of(r->underlay, VNETD_ENCAP_UDP)) - VNETD_VUDP_HDR_LEN;
	message.len = skb->len - message.offset;
	return seen_before(skb, &message) ? VNETD_DROP_DUPLICATE_FORWARD : VNETD_OK;
}

/*
 * The rest is bpf/decap.bpf.c's, by the segmenting pair: headers that were put in front of a packet
 * are taken for its Ethernet header, and cannot be taken off, until it is received anew.
 */
static __always_inline __u32 as_group_packet(struct __sk_buff *skb, const struct received *r,
					     int *action)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (!m || !m->segment_out)
		return VNETD_DROP_BAD_SUPERFRAME;
	skb->mark = VNETD_MARK_SEGMENTED | VNETD_MARK_FORWARDED |
		    (r->underlay->index & VNETD_MARK_INDEX);
	*action = bpf_redirect(m->segment_out, 0);
	return VNETD_OK;
}

/*
 * The address that the packet came from, and the id of what it came for. Negative where it did not come through the
 * VXLAN device. By itself, so that the key takes no stack from what follows: with Linux 6.1 a chain of calls has 512 bytes.
 */
SUBPROGRAM __s64 sender_of(struct __sk_buff *skb, union address *sender)
{
	struct bpf_tunnel_key key = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) == 0) {
		ipv4_to(sender->bytes, bpf_htonl(key.remote_ipv4));
		return key.tunnel_id;
	}
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
		return -1;
	__builtin_memcpy(sender, key.remote_ipv6, sizeof(*sender));
	return key.tunnel_id;
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
	__u32 zero = 0, reason, slot, id;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	__s64 sender;

	if (!m || bpf_skb_load_bytes(skb, 0, &in, sizeof(in)) ||
	    !secret_right(in.secret, m->reassembly_secret))
		return VNETD_DROP_REASSEMBLY_FORGED;
	sender = sender_of(skb, &r->source);
	if (sender < 0)
		return VNETD_DROP_REASSEMBLY_FORGED;
	id = (__u32)sender;
	if (unlikely(reassembly_is_vfwd(id)))
		return reassembled_vfwd(skb, &r->source, reassembly_underlay(id), action);
	v->len = skb->len - ETH_HLEN;
	slot = reassembly_slot(id);
	r->vnet = vnet_by_slot(slot);
	r->underlay = underlay_by_index(reassembly_underlay(id));
	if (!r->vnet || !(r->vnet->flags & VNETD_VNET_UP) || !r->underlay)
		return VNETD_DROP_VNET_DOWN;
	count_begin(v, r->vnet->handle, slot);
	/* may have changed since the first fragment */
	if (r->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_SECURITY;
	r->ip_id = in.ip_id;
	r->to_group = reassembly_to_group(id);
	v->flooded = r->to_group;
	if (r->to_group &&
	    (r->underlay->flags & VNETD_UNDERLAY_RELAY || !is_near(&r->source, r->underlay))) {
		reason = reassembled_group(skb, r) ?: reassembled_heard(skb, r);
		if (reason)
			return reason;
		if (v->traffic)
			v->traffic->fragmented[VNETD_DIR_DECAP] += 1;
		/* counted when it comes back */
		v->traffic = NULL;
		return as_group_packet(skb, r, action);
	}
	reason = learn_remote(skb, r, in.eth + ETH_ALEN, v);
	if (reason)
		return reason;
	reason = strip(skb, ETH_HLEN, in.eth, v->len);
	if (reason)
		return reason;
	if (v->traffic)
		v->traffic->fragmented[VNETD_DIR_DECAP] += 1;
	*action = deliver(skb, r, merges(r));
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
	return finish_received(skb, &v, reason, action);
}

char LICENSE[] SEC("license") = "GPL";
