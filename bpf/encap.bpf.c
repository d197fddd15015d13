// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a vnet onto the underlay.
 *
 *   guest - bridge - vnetif ==veth== peer        underlay device
 *                      |              |                 ^
 *            vnetd_encap_fast    vnetd_encap -----------+
 *                      +--------------------------------+
 *
 * vnetd_encap sits on the TC ingress of the vnetif's veth peer, which is ours alone: it stays
 * there when somebody moves the vnetif into another namespace, it sees every frame and handles
 * every kind. vnetd_encap_fast sits on the TC egress of the vnetif and takes the common case, an
 * untagged IP frame to a host that is known, one pass through the stack earlier; whatever it does
 * not take goes through the veth to the other. Where it is lost, nothing but speed is.
 *
 * A frame on its way out:
 *   1. encap()           whose frame is it, learn its source
 *   2. destination_of()  which next hop, or the group
 *      flood_leaves()    to the group: within the vnet's budget (bpf/lib/flood.h)
 *   3. add_headers()     make room, tags inline
 *   4. to_host() / to_group(), the group of each family that the underlay has
 *   5. second_pass()     only for frames that are not IP: the kernel resolves the neighbour by the
 *                        packet's protocol, which is right only when it is received once more
 *
 * A secure vnet's frame takes the same way up to 2. and then secure() (bpf/lib/secure_send.h); secure_pass() is
 * what second_pass() is. Nothing of it is ever given to the underlay.
 */
#include "lib/copy.h"
#include "lib/group.h"
#include "lib/ports.h"
#include "lib/probe.h"
#include "lib/recursion.h"
#include "lib/secure_send.h"
#include "lib/send.h"
#include "lib/suppress.h"

/*
 * The packet that a frame becomes must fit the device that it leaves by, or all of them. The kernel
 * cannot segment behind EtherIP, so a super-frame is too big for it as well.
 */
static __always_inline bool frame_too_big(struct __sk_buff *skb, struct encap *e)
{
	__u32 length = longest_frame(skb, skb->vlan_present ? 1 : 0);

	if (unlikely(e->vnet->encap == VNETD_ENCAP_ETHERIP && skb->gso_size))
		return true;
	if (e->to.underlay)
		return length > e->to.largest;
	find_places(&e->places, e->vnet->encap);
	return length > e->places.largest;
}

/* A callback of bpf_loop: one copy to a place that is not the last. */
static long copy_to_device(__u32 index, void *context)
{
	struct device_walk *walk = context;
	struct vnetd_underlay *underlay = walked(walk, index);
	struct encap *e = encap_of(walk);

	if (index >= walk->last)
		return 1;
	if (!underlay)
		return 0;
	write_group_headers(&e->frame.outer, &e->spec, underlay, e->vnet);
	if (write_outer(walk->skb, &e->frame, e->spec.form)) {
		walk->failed = 1;
		return 1;
	}
	/* below 0: no memory, or the device is gone. Above: a full queue there is that device's
	 * loss, and counted by it. */
	if (copy_redirect(walk->skb, underlay->ifindex, 0) < 0)
		walk->missed |= underlay->flags;
	return 0;
}

/* No device sends to the family's group: members and peers have the frame by unicast. */
static __always_inline __u32 to_relay(struct __sk_buff *skb, const struct device_walk *walk,
				      int *action)
{
	struct vnetd_meta *m = forward_wanted(walk->family);

	if (!m)
		return VNETD_DROP_NO_RECEIVER;
	skb->mark = VNETD_MARK_RELAY | (walk->last & VNETD_MARK_INDEX);
	*action = bpf_redirect(m->relay_out, 0);
	return VNETD_OK;
}

/*
 * Sends to the group at every place of one family: clones to all but the last. A copy goes to
 * bpf/relay.bpf.c when there are peers; they know VUDP.
 */
static __always_inline __u32 to_group(struct __sk_buff *skb, struct encap *e,
				      const struct verdict *v, int *action)
{
	struct vnetd_underlay *underlay = underlay_by_index(e->walk.last);
	__u32 reason, sends;
	bool is_outer_ip;

	if (!underlay)
		return VNETD_DROP_NO_UNDERLAY;
	e->spec.form = form_of(underlay, e->vnet->encap);
	reason = add_headers(skb, e, &is_outer_ip);
	if (reason)
		return reason;
	skb->mark = VNETD_MARK_NONE;
	if (write_inner(skb, &e->frame, e->spec.form))
		return VNETD_DROP_ENCAP_FAILED;
	e->walk.skb = skb;
	bpf_loop(VNETD_MAX_UNDERLAYS, copy_to_device, &e->walk, 0);
	if (e->walk.failed)
		return VNETD_DROP_ENCAP_FAILED;
	count_missed(&e->walk, v);
	write_group_headers(&e->frame.outer, &e->spec, underlay, e->vnet);
	if (write_outer(skb, &e->frame, e->spec.form))
		return VNETD_DROP_ENCAP_FAILED;
	sends = (e->walk.family == VNETD_FAMILY_IPV6 ? e->places.best6 : e->places.best4) &
		PLACE_SENDS;
	if (unlikely(e->spec.form & FORM_ETHERIP)) {
		if (!sends)
			return VNETD_DROP_NO_RECEIVER;
	} else if (unlikely(!sends)) {
		return to_relay(skb, &e->walk, action);
	} else {
		forward_copy(skb, e->walk.last, e->walk.family);
	}
	*action = bpf_redirect(underlay->ifindex, 0);
	return VNETD_OK;
}

/* By which families somebody would have the frame, by a group or by unicast: enum vnetd_forward. */
CHECKED_ONCE __u32 families_heard(const struct places *places)
{
	__u32 forward, heard = 0;

	if (!places)
		return 0;
	forward = places->encap == VNETD_ENCAP_ETHERIP ? 0 : forward_families();
	if (places->best4)
		heard |= places->best4 & PLACE_SENDS ? VNETD_FORWARD_IPV4
						     : forward & VNETD_FORWARD_IPV4;
	if (places->best6)
		heard |= places->best6 & PLACE_SENDS ? VNETD_FORWARD_IPV6
						     : forward & VNETD_FORWARD_IPV6;
	return heard;
}

/*
 * Which family the frame goes to the group of. Where somebody would have it by both, IPv4 is first,
 * and a copy of the frame as it is comes here once more for IPv6: headers of both lengths cannot be
 * put in front of one packet after another.
 */
static __always_inline __u32 choose_family(struct __sk_buff *skb, struct encap *e)
{
	const struct places *places = &e->places;
	struct device_walk *walk = &e->walk;
	__u32 heard;

	if (!(places->best4 | places->best6))
		return VNETD_DROP_NO_UNDERLAY;
	if (e->other_family && !places->best6)
		return VNETD_DROP_STALE_PASS;
	heard = families_heard(places);
	if (places->best4 && heard != VNETD_FORWARD_IPV6 && !e->other_family) {
		walk->family = VNETD_FAMILY_IPV4;
		walk->last = places->best4 & PLACE_INDEX;
		if (unlikely(heard & VNETD_FORWARD_IPV6)) {
			skb->mark = VNETD_MARK_OTHER_FAMILY | e->spec.ip_id;
			if (copy_redirect(skb, skb->ifindex, BPF_F_INGRESS))
				count_drop(e->vnet->handle, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED,
					   skb->len);
		}
		return VNETD_OK;
	}
	walk->family = VNETD_FAMILY_IPV6;
	walk->last = places->best6 & PLACE_INDEX;
	return VNETD_OK;
}

/* Single, with its checksums filled in, and then to bpf/oversize.bpf.c, which counts it. */
static __always_inline __u32 to_oversize(struct __sk_buff *skb, struct verdict *v, __u32 mark,
					 int *action)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);

	if (!m || !m->oversize_out)
		return VNETD_DROP_TOO_BIG;
	v->traffic = NULL;
	skb->mark = mark | (v->slot & VNETD_MARK_VALUE);
	*action = bpf_redirect(m->oversize_out, 0);
	return VNETD_OK;
}

/* the shortest packet: a frame of 14 bytes behind EtherIP over IPv4; and as far as is looked */
#define PASS_MIN (ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct udphdr) + VNETD_MSG_HDR_LEN)

/*
 * Resolves the neighbour of a packet that was encapsulated in the first pass. The mark is
 * believed only on our own device, and only for what looks like ours.
 */
static __always_inline __u32 second_pass(struct __sk_buff *skb, int *action)
{
	struct vnetd_underlay *underlay = underlay_by_index(skb->mark & VNETD_MARK_VALUE);
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct vnetd_vnet *vnet = vnet_of_port(skb->ifindex);
	__u32 offset;
	__u8 protocol;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay || data + PASS_MIN > data_end)
		return VNETD_DROP_STALE_PASS;
	/* it may have become secure since the first pass */
	if (!vnet || vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_STALE_PASS;
	if (underlay->family == VNETD_FAMILY_IPV6) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
		    !same_words(ip->saddr.s6_addr32, (void *)underlay->addr))
			return VNETD_DROP_STALE_PASS;
		protocol = ip->nexthdr;
		offset = ETH_HLEN + sizeof(*ip);
	} else {
		struct iphdr *ip = data + ETH_HLEN;

		if (skb->protocol != bpf_htons(ETH_P_IP) || ip->saddr != ipv4_of(underlay->addr))
			return VNETD_DROP_STALE_PASS;
		protocol = ip->protocol;
		offset = ETH_HLEN + sizeof(*ip);
	}
	if (protocol == IPPROTO_UDP) {
		struct vnetd_msg_hdr *msg = data + offset + sizeof(struct udphdr);

		if (msg->id != bpf_htons(VNETD_MSG_VUDP))
			return VNETD_DROP_STALE_PASS;
	} else if (protocol != VNETD_ETHERIP_PROTOCOL) {
		return VNETD_DROP_STALE_PASS;
	}
	*action = bpf_redirect_neigh(underlay->ifindex, NULL, 0, 0);
	return VNETD_OK;
}

/* Learns where the frame is from, and finds out where to. */
static __always_inline __u32 look_at(struct __sk_buff *skb, struct encap *e, struct verdict *v)
{
	__u32 probe = VNETD_OK;

	if (!frame_read(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;

	/* the copy for the other family was looked at, learned and counted when it was sent to the first */
	if (unlikely(e->other_family)) {
		v->traffic = NULL;
		return VNETD_OK;
	}
	e->spec.ip_id = next_ip_id(v);
	/* so was a piece, but that it may go to a host of its own */
	if (unlikely(e->piece)) {
		destination_of(e, v);
		return VNETD_OK;
	}
	if (unlikely(!e->fast && skb->protocol == bpf_htons(VNETD_PROBE_ETHERTYPE))) {
		probe = probe_leaves(skb, e->vnet, v->slot);
		if (probe && probe < VNETD_REASON_COUNT)
			return probe;
		e->probe = probe;
	}
	if (likely(probe != PROBE_SENT))
		learn_local(e, v, 0);
	destination_of(e, v);
	return e->fast && !e->to.underlay ? FAST_NOT_MINE : VNETD_OK;
}

/* What is for all: may it go there? */
static __always_inline __u32 may_leave(struct __sk_buff *skb, struct encap *e, struct verdict *v)
{
	if (likely(e->to.underlay) || e->fast || e->other_family || e->piece)
		return VNETD_OK;
	if (is_ip(skb) && carries_itself(skb, e->vnet))
		return VNETD_DROP_CARRIES_ITSELF;
	return e->probe ? VNETD_OK : flood_leaves(skb, e->vnet, v->slot);
}

/*
 * What the verifier knows of a frame differs with each way through what is above, and it walks secure() once
 * for each difference. Here it forgets; it does not know what a global function returns.
 */
static __always_inline void forget(struct encap *e, struct verdict *v)
{
	__u32 nexthop = any_value(e->to.underlay ? e->to.nexthop : 0);
	struct destination to = {};

	e->to = to;
	e->to.nexthop = nexthop;
	e->spec.ip_id = any_value(e->spec.ip_id);
	v->refused = any_value(v->refused);
	v->flooded = any_value(v->flooded) & 1;
}

SUBPROGRAM __u32 look_at_secure(struct __sk_buff *skb, struct encap *e, struct verdict *v)
{
	return look_at(skb, e, v);
}

/* Sends it in clear. */
static __always_inline __u32 clear(struct __sk_buff *skb, struct encap *e, struct verdict *v,
				   int *action)
{
	__u32 reason;

	/* it was a secure vnet's when it went away to be looked at */
	if (unlikely(e->whole))
		return VNETD_DROP_STALE_PASS;
	if (frame_too_big(skb, e))
		return TOO_BIG;
	/* the fast hook has sent away what goes to the group */
	if (e->fast || e->to.underlay) {
		reason = prepare(skb, e, v);
		if (reason)
			return reason;
		return e->to.underlay ? to_host(skb, e, action) : FAST_NOT_MINE;
	}
	reason = choose_family(skb, e) ?: prepare(skb, e, v);
	if (reason)
		return reason;
	return to_group(skb, e, v, action);
}

static __always_inline int finish(struct __sk_buff *skb, struct verdict *v, __u32 reason,
				  int action)
{
	if (unlikely(v->refused))
		drop(skb, v, VNETD_DIR_ENCAP, v->refused);
	if (unlikely(reason)) {
		drop(skb, v, VNETD_DIR_ENCAP, reason);
		return TC_ACT_SHOT;
	}
	count_forwarded(v, VNETD_DIR_ENCAP);
	return action;
}

/* Frames that have been here, or in the fragmenting pair, before. */
static __always_inline void read_mark(struct __sk_buff *skb, struct encap *e)
{
	__u32 mark = skb->mark;

	if (likely(!mark) || (mark & VNETD_MARK_OURS_MASK) != VNETD_MARK_OURS)
		return;
	if ((mark & VNETD_MARK_OTHER_FAMILY_KIND) == VNETD_MARK_OTHER_FAMILY) {
		e->spec.ip_id = (__u16)mark;
		e->other_family = true;
	} else if (mark == VNETD_MARK_PIECE) {
		e->piece = true;
	} else if ((mark & VNETD_MARK_KIND) == VNETD_MARK_SECURE_WHOLE) {
		e->piece = true;
		e->whole = true;
	} else {
		return;
	}
	skb->mark = VNETD_MARK_NONE;
}

/*
 * A frame of a vnet that is up. Whether in clear is decided once, by who calls this, and the functions
 * below are what the compiler makes of it: neither contains the other's way out, nor needs its stack.
 */
static __always_inline int run(struct __sk_buff *skb, struct vnetd_vnet *vnet, __u32 slot,
			       bool is_secure)
{
	struct encap e = { .vnet = vnet };
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason;

	count_begin(&v, vnet->handle, slot);
	read_mark(skb, &e);
	reason = is_secure ? look_at_secure(skb, &e, &v) : look_at(skb, &e, &v);
	if (likely(!reason))
		reason = may_leave(skb, &e, &v);
	if (is_secure)
		forget(&e, &v);
	if (likely(!reason))
		reason = is_secure ? secure(skb, &e, &v, &action) : clear(skb, &e, &v, &action);
	if (unlikely(reason == TOO_BIG))
		reason = to_oversize(skb, &v,
				     is_secure ? VNETD_MARK_SECURE_LARGE : VNETD_MARK_OVERSIZE,
				     &action);
	return finish(skb, &v, reason, action);
}

SUBPROGRAM int run_clear(struct __sk_buff *skb, struct vnetd_vnet *vnet, __u32 slot)
{
	return run(skb, vnet, slot, false);
}

SUBPROGRAM int run_secure(struct __sk_buff *skb, struct vnetd_vnet *vnet, __u32 slot)
{
	return run(skb, vnet, slot, true);
}

SUBPROGRAM int run_second_pass(struct __sk_buff *skb)
{
	struct encap e = {};
	__u32 len = skb->len, reason;
	int action = TC_ACT_SHOT;

	if ((skb->mark & VNETD_MARK_KIND) == VNETD_MARK_SECURE_PASS)
		reason = secure_pass(skb, &e, &action);
	else
		reason = second_pass(skb, &action);
	if (reason) {
		count_drop(e.vnet ? e.vnet->handle : 0, VNETD_DIR_ENCAP, reason, len);
		watch_drop(skb, e.vnet ? e.vnet->handle : 0, VNETD_DIR_ENCAP, reason);
	}
	return action;
}

/* bits of a vnet's flags that decide at once what becomes of its frames */
#define VNET_SEEN (VNETD_VNET_UP | VNETD_VNET_WATCHED)
#define VNET_UNUSUAL (VNET_SEEN | VNETD_VNET_PORTS | VNETD_VNET_SUPPRESS)

/*
 * A frame of no vnet that is up, of one whose frames are captured, or of one with suppression or direct ports.
 * Gives the program's return value, or NOT_TAKEN: it goes on.
 */
static __always_inline int unusual(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot)
{
	__u32 handle = vnet ? vnet->handle : 0;
	int action;

	if (!handle || !(vnet->flags & VNETD_VNET_UP)) {
		count_drop(handle, VNETD_DIR_ENCAP, VNETD_DROP_VNET_DOWN, skb->len);
		watch_drop(skb, handle, VNETD_DIR_ENCAP, VNETD_DROP_VNET_DOWN);
		return TC_ACT_SHOT;
	}
	/* what has a mark has been here before, or came from a port; but probes, which ports have as well */
	if ((skb->mark & VNETD_MARK_OURS_MASK) != VNETD_MARK_OURS) {
		if (vnet->flags & VNETD_VNET_WATCHED)
			watch_frame(skb, handle, VNETD_DIR_ENCAP);
	} else if ((skb->mark & VNETD_MARK_KIND) != VNETD_MARK_PROBE) {
		return NOT_TAKEN;
	}
	if (vnet->flags & VNETD_VNET_SUPPRESS) {
		action = suppress_leaves(skb, vnet, slot, 0);
		if (action != NOT_TAKEN)
			return action;
	}
	return vnet->flags & VNETD_VNET_PORTS ? bridge_to_ports(skb, vnet, slot) : NOT_TAKEN;
}

SEC("tc")
int vnetd_encap(struct __sk_buff *skb)
{
	struct vnetd_vnet *vnet;
	__u32 slot;
	int action;

	if ((skb->mark & VNETD_MARK_KIND) == VNETD_MARK_SECOND_PASS ||
	    (skb->mark & VNETD_MARK_KIND) == VNETD_MARK_SECURE_PASS)
		return run_second_pass(skb);
	vnet = vnet_of_device(skb->ifindex, &slot);
	if (unlikely(!vnet || (vnet->flags & VNET_UNUSUAL) != VNETD_VNET_UP)) {
		action = unusual(skb, vnet, slot);
		if (action != NOT_TAKEN || !vnet)
			return action;
	}
	if (unlikely(vnet->security != VNETD_SECURITY_NONE))
		return run_secure(skb, vnet, slot);
	return run_clear(skb, vnet, slot);
}

static __always_inline int run_fast(struct __sk_buff *skb, struct vnetd_vnet *vnet, __u32 slot,
				    bool is_secure)
{
	struct encap e = { .vnet = vnet, .fast = true };
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_OK;
	__u32 reason;

	count_begin(&v, vnet->handle, slot);
	reason = is_secure ? look_at_secure(skb, &e, &v) : look_at(skb, &e, &v);
	if (is_secure)
		forget(&e, &v);
	if (likely(!reason))
		reason = is_secure ? secure(skb, &e, &v, &action) : clear(skb, &e, &v, &action);
	/* what cannot be forwarded from here is left to the other hook, which counts it */
	if (reason)
		return TC_ACT_OK;
	/* a source that is refused is counted once: here, if the frame ends here */
	return finish(skb, &v, reason, action);
}

SUBPROGRAM int run_fast_clear(struct __sk_buff *skb, struct vnetd_vnet *vnet, __u32 slot)
{
	return run_fast(skb, vnet, slot, false);
}

SUBPROGRAM int run_fast_secure(struct __sk_buff *skb, struct vnetd_vnet *vnet, __u32 slot)
{
	return run_fast(skb, vnet, slot, true);
}

SEC("tc")
int vnetd_encap_fast(struct __sk_buff *skb)
{
	struct vnetd_vnet *vnet;
	__u32 slot;

	/* a mark of ours that comes from elsewhere must not look like a pass of ours, or a probe */
	if (unlikely(skb->mark) && (skb->mark & VNETD_MARK_OURS_MASK) == VNETD_MARK_OURS)
		skb->mark = VNETD_MARK_NONE;
	if (!is_ip(skb) || skb->vlan_present)
		return TC_ACT_OK;
	vnet = vnet_of_device(skb->ifindex, &slot);
	/* what is captured is so by the other hook, which has all frames */
	if (!vnet)
		return TC_ACT_OK;
	/* so is what the other hook has to hear of neighbours */
	if (unlikely((vnet->flags & (VNET_SEEN | VNETD_VNET_SUPPRESS)) != VNETD_VNET_UP) &&
	    ((vnet->flags & VNET_SEEN) != VNETD_VNET_UP ||
	     (skb->protocol == bpf_htons(ETH_P_IPV6) && may_talk(skb))))
		return TC_ACT_OK;
	/*
	 * Behind the veth a packet has no route any more. Here one of the host's own has, which it keeps where the
	 * outer family is the inner one; the xfrm interface would hold the packet against that route's MTU, the
	 * vnetif's, and over IPv6 drop what is longer.
	 */
	if (unlikely(vnet->security != VNETD_SECURITY_NONE))
		return skb->protocol == bpf_htons(ETH_P_IPV6) ? TC_ACT_OK
							      : run_fast_secure(skb, vnet, slot);
	return run_fast_clear(skb, vnet, slot);
}

char LICENSE[] SEC("license") = "GPL";
