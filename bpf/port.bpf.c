// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a guest whose device is a port of a vnet by itself, without a bridge: on the TC ingress of the host's end of
 * its veth, or of its tap.
 *
 *   guest ══veth══ port: vnetd_port ──► another host      known, IP, one packet: at once
 *                       │        └────► another port      by its MAC
 *                       ├─────────────► the vnetif        what is behind a bridge, or the host's own
 *                       └─────────────► vnetd_encap       everything else, with the mark PIECE
 *
 * It learns the source behind the port, as vnetd_encap learns behind the vnetif. What is for all, or for a
 * MAC that nobody knows, pays from the vnet's budget here, goes to the other ports and the vnetif, and from
 * there on is vnetd_encap's, as are frames that are not IP, carry tags, or are too large.
 * A secure vnet's frames leave by secure() alone, here as there.
 *
 * And vnetd_merged, on the first end of the segmenting veth pair: TCP from other hosts that GRO has merged there on its
 * way to a port (bpf/lib/ports.h).
 */
#include "lib/flood.h"
#include "lib/ports.h"
#include "lib/probe.h"
#include "lib/recursion.h"
#include "lib/secure_send.h"
#include "lib/send.h"
#include "lib/suppress.h"

/* What is longer cannot be a packet with all that stands in front. A guest's own segmentation allows a little more. */
#define PORT_LONGEST (0xffff - VNETD_VUDP_IPV6_OVERHEAD - MAX_TAGS * TAG_LEN)

/* The port that a frame came by, and its vnet. */
struct port_of {
	__u32 slot;
	__u32 ifindex;
};

/* To vnetd_encap: nothing of the frame was changed. One that is too long for it is cut by the fragmenting pair first. */
SUBPROGRAM int hand_over(struct __sk_buff *skb, const struct vnetd_vnet *vnet, __u32 slot)
{
	__u32 zero = 0, mark;
	struct vnetd_meta *m;

	if (!vnet)
		return TC_ACT_SHOT;
	if (unlikely(skb->gso_size && skb->len > PORT_LONGEST)) {
		m = bpf_map_lookup_elem(&meta, &zero);
		if (m && m->oversize_out) {
			mark = vnet->security == VNETD_SECURITY_NONE ? VNETD_MARK_OVERSIZE
								     : VNETD_MARK_SECURE_LARGE;
			skb->mark = mark | (slot & VNETD_MARK_VALUE);
			return bpf_redirect(m->oversize_out, 0);
		}
	}
	skb->mark = VNETD_MARK_PIECE;
	return bpf_redirect(vnet->vnif_peer, BPF_F_INGRESS);
}

/* To the vnetif; where it was moved into another namespace, through its peer. */
static __always_inline int to_vnetif(struct __sk_buff *skb, const struct vnetd_vnet *vnet)
{
	skb->mark = VNETD_MARK_NONE;
	if (unlikely(vnif_is_elsewhere(skb, vnet)))
		return bpf_redirect(vnet->vnif_peer, 0);
	return bpf_redirect(vnet->vnif, BPF_F_INGRESS);
}

static __always_inline void copy_to_vnetif(struct __sk_buff *skb, const struct vnetd_vnet *vnet)
{
	long err;

	skb->mark = VNETD_MARK_NONE;
	if (unlikely(vnif_is_elsewhere(skb, vnet)))
		err = copy_redirect(skb, vnet->vnif_peer, 0);
	else
		err = copy_redirect(skb, vnet->vnif, BPF_F_INGRESS);
	if (unlikely(err < 0))
		count_drop(vnet->handle, VNETD_DIR_ENCAP, VNETD_DROP_COPY_FAILED, skb->len);
}

static __always_inline int dropped(struct __sk_buff *skb, const struct vnetd_vnet *vnet,
				   __u32 reason)
{
	count_drop(vnet->handle, VNETD_DIR_ENCAP, reason, skb->len);
	watch_drop(skb, vnet->handle, VNETD_DIR_ENCAP, reason);
	return TC_ACT_SHOT;
}

/* To all: a probe has a budget of its own, and what would carry the vnet in itself stays on this host. */
SUBPROGRAM int to_all(struct __sk_buff *skb, const struct vnetd_vnet *vnet,
		      const struct port_of *from)
{
	__u32 reason = VNETD_OK;

	if (!vnet || !from)
		return TC_ACT_SHOT;
	if (unlikely(skb->protocol == bpf_htons(VNETD_PROBE_ETHERTYPE))) {
		reason = probe_leaves(skb, vnet, from->slot);
		if (reason && reason < VNETD_REASON_COUNT)
			return dropped(skb, vnet, reason);
	}
	if (likely(!reason)) {
		reason = flood_leaves(skb, vnet, from->slot);
		if (reason)
			return dropped(skb, vnet, reason);
	}
	copy_to_ports(skb, vnet->handle, from->ifindex, VNETD_DIR_ENCAP);
	copy_to_vnetif(skb, vnet);
	if (is_ip(skb) && carries_itself(skb, vnet))
		return dropped(skb, vnet, VNETD_DROP_CARRIES_ITSELF);
	return hand_over(skb, vnet, from->slot);
}

/* A frame that is not for a host that is known. */
SUBPROGRAM int stays_here(struct __sk_buff *skb, const struct vnetd_vnet *vnet,
			  const struct port_of *from)
{
	struct here_found found = {};
	struct vnetd_fdb_key key = {};

	if (!vnet || !from)
		return TC_ACT_SHOT;
	key.handle = vnet->handle;
	if (read_destination(skb, &key))
		find_here(&key, vnet, &found);
	switch (found.where) {
	case HERE_PORT:
		if (unlikely(found.ifindex == from->ifindex))
			return dropped(skb, vnet, VNETD_DROP_HAIRPIN);
		return give_to_port(skb, found.ifindex, found.flags);
	case HERE_SOMEWHERE:
		copy_to_ports(skb, key.handle, from->ifindex, VNETD_DIR_ENCAP);
		return to_vnetif(skb, vnet);
	case HERE_VNETIF:
		return to_vnetif(skb, vnet);
	default:
		return to_all(skb, vnet, from);
	}
}

/* In clear, in one packet, to a host that is known; FAST_NOT_MINE: nothing of it was changed. */
static __always_inline __u32 send_clear(struct __sk_buff *skb, struct encap *e, struct verdict *v,
					int *action)
{
	__u32 reason;

	if (unlikely(e->vnet->encap == VNETD_ENCAP_ETHERIP && skb->gso_size))
		return FAST_NOT_MINE;
	if (longest_frame(skb, 0) > e->to.largest)
		return FAST_NOT_MINE;
	reason = prepare(skb, e, v);
	return reason ?: to_host(skb, e, action);
}

/* By an SA; the verifier walks secure() once for all that is known by now, as in bpf/encap.bpf.c. */
static __always_inline __u32 send_secure(struct __sk_buff *skb, struct encap *e, struct verdict *v,
					 int *action)
{
	__u32 nexthop = any_value(e->to.nexthop), reason;

	__builtin_memset(&e->to, 0, sizeof(e->to));
	e->to.nexthop = nexthop;
	e->spec.ip_id = any_value(e->spec.ip_id);
	v->flooded = false;
	reason = secure(skb, e, v, action);
	return reason == TOO_BIG ? FAST_NOT_MINE : reason;
}

/* Learns where the frame is from, and finds out whether it is for a host that is known. */
static __always_inline __u32 look(struct __sk_buff *skb, struct encap *e, struct verdict *v,
				  __u32 ifindex)
{
	if (!frame_read(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;
	e->spec.ip_id = next_ip_id(v);
	learn_local(e, v, ifindex);
	destination_of(e, v);
	return VNETD_OK;
}

/* A function of its own: its stack is not that of what comes after. */
SUBPROGRAM __u32 look_secure(struct __sk_buff *skb, struct encap *e, struct verdict *v,
			     __u32 ifindex)
{
	return look(skb, e, v, ifindex);
}

/* NOT_TAKEN: it is not for a host that is known; what becomes of it wants a stack without all this. */
static __always_inline int run(struct __sk_buff *skb, struct vnetd_vnet *vnet,
			       const struct port_of *from, bool is_secure)
{
	struct encap e = { .vnet = vnet, .fast = true };
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason;

	count_begin(&v, vnet->handle, from->slot);
	reason = is_secure ? look_secure(skb, &e, &v, from->ifindex)
			   : look(skb, &e, &v, from->ifindex);
	if (unlikely(v.refused))
		drop(skb, &v, VNETD_DIR_ENCAP, v.refused);
	if (!reason && !e.to.underlay)
		return NOT_TAKEN;
	if (!reason && unlikely(!is_ip(skb) || skb->vlan_present))
		reason = FAST_NOT_MINE;
	if (likely(!reason))
		reason = is_secure ? send_secure(skb, &e, &v, &action)
				   : send_clear(skb, &e, &v, &action);
	if (unlikely(reason == FAST_NOT_MINE))
		return hand_over(skb, vnet, from->slot);
	if (unlikely(reason)) {
		drop(skb, &v, VNETD_DIR_ENCAP, reason);
		return TC_ACT_SHOT;
	}
	count_forwarded(&v, VNETD_DIR_ENCAP);
	return action;
}

SUBPROGRAM int run_port_clear(struct __sk_buff *skb, struct vnetd_vnet *vnet,
			      const struct port_of *from)
{
	return run(skb, vnet, from, false);
}

SUBPROGRAM int run_port_secure(struct __sk_buff *skb, struct vnetd_vnet *vnet,
			       const struct port_of *from)
{
	return run(skb, vnet, from, true);
}

SEC("tc")
int vnetd_port(struct __sk_buff *skb)
{
	struct port_of from = { .ifindex = skb->ifindex };
	struct vnetd_direct_port *port;
	struct vnetd_vnet *vnet;
	__u32 handle;
	int action;

	/* a guest's frames have no mark of ours */
	skb->mark = VNETD_MARK_NONE;
	port = bpf_map_lookup_elem(&direct_ports, &from.ifindex);
	vnet = port ? vnet_by_slot(port->slot) : NULL;
	if (unlikely(!vnet || vnet->handle != port->handle || !(vnet->flags & VNETD_VNET_UP))) {
		handle = vnet && vnet->handle == port->handle ? vnet->handle : 0;
		count_drop(handle, VNETD_DIR_ENCAP, VNETD_DROP_VNET_DOWN, skb->len);
		watch_drop(skb, handle, VNETD_DIR_ENCAP, VNETD_DROP_VNET_DOWN);
		return TC_ACT_SHOT;
	}
	from.slot = port->slot;
	if (unlikely(vnet->flags & (VNETD_VNET_WATCHED | VNETD_VNET_SUPPRESS))) {
		if (vnet->flags & VNETD_VNET_WATCHED)
			watch_frame(skb, vnet->handle, VNETD_DIR_ENCAP);
		if (vnet->flags & VNETD_VNET_SUPPRESS) {
			action = suppress_leaves(skb, vnet, from.slot, from.ifindex);
			if (action != NOT_TAKEN)
				return action;
		}
	}
	if (unlikely(vnet->security != VNETD_SECURITY_NONE))
		action = run_port_secure(skb, vnet, &from);
	else
		action = run_port_clear(skb, vnet, &from);
	return action == NOT_TAKEN ? stays_here(skb, vnet, &from) : action;
}

/* What is not as merge_to_port() made it is no frame of a vnet: another port has the number by now, or none. */
SEC("tc")
int vnetd_merged(struct __sk_buff *skb)
{
	__u32 ifindex = skb->mark, slot = skb->vlan_tci & VLAN_ID;
	struct vnetd_direct_port *port = bpf_map_lookup_elem(&direct_ports, &ifindex);

	if (unlikely(!skb->vlan_present || !port || port->slot != slot || bpf_skb_vlan_pop(skb))) {
		count_drop(0, VNETD_DIR_DECAP, VNETD_DROP_STALE_PASS, skb->len);
		watch_drop(skb, 0, VNETD_DIR_DECAP, VNETD_DROP_STALE_PASS);
		return TC_ACT_SHOT;
	}
	return give_to_port(skb, ifindex, port->flags);
}

char LICENSE[] SEC("license") = "GPL";
