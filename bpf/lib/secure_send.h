/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A secure vnet's frame on its way out: the headers in front of it, and by an SA to the host that it is for, or to
 * each member by its own. Part of bpf/encap.bpf.c.
 *
 *   secure()            make room, tags inline, headers between the addresses that name the SA
 *   copy_to_members()   what is for all
 *   secure_pass()       what is not IP comes once more: the xfrm interface goes by the packet's protocol,
 *                       which is right only when it is received anew
 */
#ifndef VNETD_SECURE_SEND_H
#define VNETD_SECURE_SEND_H

#include "copy.h"
#include "secure.h"
#include "send.h"

/* The IP header alone: what differs between the packets to two members. */
static __always_inline int write_ip(struct __sk_buff *skb, const struct encap *e)
{
	if (e->spec.form == FORM_UDP6)
		return bpf_skb_store_bytes(skb, ETH_HLEN, &e->frame.outer.udp6.ip,
					   sizeof(e->frame.outer.udp6.ip), 0);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &e->frame.outer.udp4.ip,
				   sizeof(e->frame.outer.udp4.ip), 0);
}

/*
 * A callback of bpf_loop: makes the packet the one for the next member of the family. The one before
 * leaves as a clone then; the last is left to the caller.
 */
static long copy_to_secure_member(__u32 number, void *context)
{
	struct member_walk *walk = context;
	struct encap *e = encap_of_members(walk);
	__u32 id = secure_member_path(walk->handle, number), ifindex;
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;

	if (!id)
		return 1;
	hop = nexthop_by_id(id);
	underlay = hop ? secure_way(hop, walk->handle) : NULL;
	if (!underlay || form_of(underlay, VNETD_ENCAP_UDP) != e->spec.form)
		return 0;
	/* the kernel fragments over IPv4 alone */
	if (e->spec.form == FORM_UDP6 && walk->length > secure_largest(e->vnet, hop, underlay)) {
		walk->too_big = 1;
		return 0;
	}
	ifindex = underlay->esp;
	esp_name(&e->frame.outer, e->spec.form, underlay->ifindex, id);
	if (walk->pending && copy_redirect(walk->skb, walk->pending, 0) < 0)
		walk->missed = 1;
	walk->pending = 0;
	if (write_ip(walk->skb, e)) {
		walk->failed = 1;
		return 1;
	}
	walk->pending = ifindex;
	return 0;
}

/* An IP packet whose headers are there but for the addresses: a copy to each member by its SA. */
static __always_inline __u32 copy_to_members(struct __sk_buff *skb, struct encap *e, int *action)
{
	struct member_walk *walk = &e->members;

	walk->skb = skb;
	walk->pending = any_value(0);
	walk->missed = (__u8)any_value(0);
	walk->too_big = (__u8)any_value(0);
	walk->failed = (__u8)any_value(0);
	skb->mark = VNETD_MARK_ESP;
	bpf_loop(VNETD_MAX_VNET_MEMBERS, copy_to_secure_member, walk, 0);
	if (walk->missed)
		count_drop(walk->handle, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED, skb->len);
	if (walk->failed)
		return VNETD_DROP_ENCAP_FAILED;
	if (!walk->pending)
		return walk->too_big ? VNETD_DROP_TOO_BIG : VNETD_DROP_NO_KEYS;
	if (walk->too_big)
		count_drop(walk->handle, VNETD_DIR_ENCAP, VNETD_DROP_TOO_BIG, skb->len);
	*action = bpf_redirect(walk->pending, 0);
	return VNETD_OK;
}

/*
 * As choose_family(): IPv4 is first, and a copy of the frame comes here once more for IPv6. Gives the index of
 * a place of the family, or a reason, below 0.
 */
CHECKED_ONCE int choose_members(struct __sk_buff *skb, const struct member_walk *walk, __u32 ip_id,
				__u32 other_family)
{
	if (!walk)
		return -VNETD_DROP_NO_RECEIVER;
	if (other_family)
		return walk->place6 ? walk->place6 & PLACE_INDEX : -VNETD_DROP_STALE_PASS;
	if (!(walk->place4 | walk->place6))
		return walk->any ? -VNETD_DROP_NO_KEYS : -VNETD_DROP_NO_RECEIVER;
	if (unlikely(walk->without_keys))
		count_drop(walk->handle, VNETD_DIR_ENCAP, VNETD_DROP_NO_KEYS, skb->len);
	if (walk->place4 && walk->place6) {
		skb->mark = VNETD_MARK_OTHER_FAMILY | (ip_id & 0xffff);
		if (copy_redirect(skb, skb->ifindex, BPF_F_INGRESS))
			count_drop(walk->handle, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED, skb->len);
		skb->mark = VNETD_MARK_NONE;
	}
	return (walk->place4 ?: walk->place6) & PLACE_INDEX;
}

enum made {
	MADE_IP,
	/* the kernel does not know yet that it is IP */
	MADE_OTHER,
	MADE_NOTHING,
	/* and the frame is as it was */
	LEFT_ALONE,
};

/* Makes the packet for the SA of a next hop. */
CHECKED_ONCE int make_secure(struct __sk_buff *skb, struct frame *frame,
			     const struct outer_spec *spec, const struct vnetd_underlay *underlay,
			     __u32 nexthop)
{
	union address any = {};
	bool is_outer_ip;
	__u32 tags;

	if (!frame || !spec || !underlay)
		return MADE_NOTHING;
	outer_write(&frame->outer, spec, underlay, &any);
	esp_name(&frame->outer, spec->form, underlay->ifindex, nexthop);
	tags = frame->tags.count;
	if (tags > MAX_TAGS)
		return MADE_NOTHING;
	switch (make_headers_room(skb, spec->form, tags, spec->ip_only, &is_outer_ip)) {
	case VNETD_OK:
		break;
	case FAST_NOT_MINE:
		return LEFT_ALONE;
	default:
		return MADE_NOTHING;
	}
	if (write_outer(skb, frame, spec->form) || write_inner(skb, frame, spec->form))
		return MADE_NOTHING;
	return is_outer_ip ? MADE_IP : MADE_OTHER;
}

CHECKED_ONCE int frame_length(struct __sk_buff *skb)
{
	return longest_frame(skb, skb->vlan_present ? 1 : 0);
}

/*
 * Encapsulates a secure vnet's frame and sends it by SAs: to the host that it is for, or to each member.
 * What is not IP comes here once more, to secure_pass().
 */
SUBPROGRAM __u32 secure(struct __sk_buff *skb, struct encap *e, struct verdict *v, int *action)
{
	__u32 length = frame_length(skb), reason;
	bool to_all = !e->fast && !e->to.nexthop;
	struct vnetd_underlay *underlay;
	int place, made;

	if (to_all) {
		look_at_members(e, v->handle);
		e->members.length = length;
		if (unlikely(length > e->to.largest) && !e->whole && !e->other_family)
			return TOO_BIG;
		place = choose_members(skb, &e->members, e->spec.ip_id, e->other_family);
		if (place < 0)
			return -place;
		underlay = underlay_by_index(place & PLACE_INDEX);
		e->to.port = 0;
	} else {
		underlay = secure_destination(e, v->handle);
		/* the kernel fragments over IPv4 alone */
		if (underlay && unlikely(length > e->to.largest) &&
		    (!e->whole || underlay->family == VNETD_FAMILY_IPV6))
			return e->whole ? VNETD_DROP_TOO_BIG : TOO_BIG;
	}
	if (!underlay)
		return VNETD_DROP_NO_KEYS;
	reason = prepare(skb, e, v);
	if (reason)
		return reason;
	e->spec.form = form_of(underlay, VNETD_ENCAP_UDP);
	e->spec.port = e->to.port;
	e->spec.dont_fragment = 0;
	e->spec.ip_only = e->fast;
	made = make_secure(skb, &e->frame, &e->spec, underlay, e->to.nexthop);
	if (e->fast && made == LEFT_ALONE)
		return FAST_NOT_MINE;
	skb->mark = VNETD_MARK_NONE;
	if (made == MADE_OTHER) {
		skb->mark = VNETD_MARK_SECURE_PASS | (to_all ? VNETD_MARK_TO_ALL : 0);
		*action = bpf_redirect(skb->ifindex, BPF_F_INGRESS);
		return VNETD_OK;
	}
	if (made != MADE_IP)
		return VNETD_DROP_ENCAP_FAILED;
	if (to_all)
		return copy_to_members(skb, e, action);
	skb->mark = VNETD_MARK_ESP;
	*action = bpf_redirect(underlay->esp, 0);
	return VNETD_OK;
}

/* Reads the headers of a packet that secure() made; false: it is none. */
static __always_inline bool read_secure_packet(struct __sk_buff *skb, struct encap *e)
{
	struct outer *out = &e->frame.outer;
	void *bytes = (void *)out + OUTER_PAD;

	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		e->spec.form = FORM_UDP6;
		return !bpf_skb_load_bytes(skb, 0, bytes, OUTER_MAX) &&
		       out->udp6.ip.saddr.s6_addr32[0] == bpf_htonl(VNETD_ESP_PREFIX6) &&
		       out->udp6.ip.nexthdr == IPPROTO_UDP;
	}
	e->spec.form = FORM_UDP4;
	return skb->protocol == bpf_htons(ETH_P_IP) &&
	       !bpf_skb_load_bytes(skb, 0, bytes + OUTER_MAX - room_of(FORM_UDP4),
				   room_of(FORM_UDP4)) &&
	       out->udp4.ip.saddr == bpf_htonl(VNETD_ESP_LOCAL4) &&
	       out->udp4.ip.protocol == IPPROTO_UDP;
}

/*
 * A packet of a secure vnet, that is IP in the kernel's eyes now. All that was true in the first pass may have
 * changed: the vnet, its keys, the host.
 */
static __always_inline __u32 secure_pass(struct __sk_buff *skb, struct encap *e, int *action)
{
	bool to_all = skb->mark & VNETD_MARK_TO_ALL;
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;
	union address vnet;
	__u32 id;

	skb->mark = VNETD_MARK_NONE;
	e->vnet = vnet_of_port(skb->ifindex);
	if (!e->vnet || e->vnet->security == VNETD_SECURITY_NONE || !read_secure_packet(skb, e) ||
	    e->frame.outer.udp4.msg.id != bpf_htons(VNETD_MSG_VUDP))
		return VNETD_DROP_STALE_PASS;
	__builtin_memcpy(&vnet, e->frame.outer.vnet, sizeof(vnet));
	if (!same_words(vnet.words, (const void *)e->vnet->id))
		return VNETD_DROP_STALE_PASS;
	if (to_all) {
		e->members.handle = e->vnet->handle;
		e->members.length = skb->len - room_of(e->spec.form);
		return copy_to_members(skb, e, action);
	}
	if (e->spec.form == FORM_UDP6)
		id = bpf_ntohl(e->frame.outer.udp6.ip.daddr.s6_addr32[3]);
	else
		id = bpf_ntohl(e->frame.outer.udp4.ip.daddr) - VNETD_ESP_REMOTE4;
	hop = nexthop_by_id(id);
	underlay = hop ? secure_way(hop, e->vnet->handle) : NULL;
	if (!underlay || form_of(underlay, VNETD_ENCAP_UDP) != e->spec.form)
		return VNETD_DROP_NO_KEYS;
	skb->mark = VNETD_MARK_ESP;
	*action = bpf_redirect(underlay->esp, 0);
	return VNETD_OK;
}

#endif
