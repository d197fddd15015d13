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
 *   3. add_headers()     make room, tags inline
 *   4. to_host() / to_group()
 *   5. second_pass()     only for frames that are not IP: the kernel resolves the neighbour by the
 *                        packet's protocol, which is right only when it is received once more
 */
#include "lib/fdb.h"
#include "lib/frame.h"

struct destination {
	/* NULL: the group */
	struct vnetd_underlay *underlay;
	__be32 host;
	__be16 port;
};

/* The place of a frame in its journey, for the functions below. */
struct encap {
	struct vnetd_vnet *vnet;
	struct frame frame;
	struct destination to;
	__u32 hash;
	__u32 inner_len;
	__u16 ip_id;
	bool fast;
};

#define FAST_NOT_MINE ((__u32)VNETD_REASON_COUNT)

static __always_inline void learn_local(struct encap *e, struct verdict *v)
{
	struct fdb_news news = {
		.key.handle = v->handle,
		.slot = v->slot,
		.nexthop = VNETD_NEXTHOP_LOCAL,
		.now = now_ns(),
	};

	if (is_group_mac(e->frame.src)) {
		v->refused = VNETD_REFUSED_GROUP_MAC;
		return;
	}
	__builtin_memcpy(news.key.mac, e->frame.src, ETH_ALEN);
	v->refused = fdb_learn(&news, e->vnet);
}

/*
 * Fills in e->to. A destination that the table says is on this host goes to the group like an
 * unknown one: the bridge would have delivered it if it were, so it may have moved away unheard.
 */
static __always_inline void destination_of(struct encap *e, struct verdict *v)
{
	struct vnetd_fdb_key key = { .handle = v->handle };
	struct vnetd_fdb_entry *entry;
	struct vnetd_underlay *underlay;
	struct vnetd_nexthop *hop;
	__u64 nexthop;

	v->flooded = true;
	if (is_group_mac(e->frame.dst))
		return;
	__builtin_memcpy(key.mac, e->frame.dst, ETH_ALEN);
	entry = bpf_map_lookup_elem(&fdb, &key);
	if (!entry || !fdb_fresh(entry, e->vnet, now_ns()))
		goto unknown;
	nexthop = *(volatile __u64 *)entry;
	if ((__u32)nexthop == VNETD_NEXTHOP_LOCAL)
		return;
	hop = nexthop_by_id((__u32)nexthop);
	if (!hop || hop->gen != nexthop >> 32)
		goto unknown;
	underlay = underlay_by_ifindex(hop->key.ifindex);
	if (!underlay || !(underlay->flags & VNETD_UNDERLAY_UP))
		goto unknown;
	e->to.underlay = underlay;
	e->to.host = ipv4_of(hop->key.addr);
	e->to.port = hop->port;
	v->flooded = false;
	return;
unknown:
	if (!e->fast)
		event_unknown_unicast(&key, v->slot);
}

/*
 * Makes room for the outer headers and the tags and writes all but the addresses' parts.
 * On return e->frame's header lies behind the outer headers, the packet begins with sizeof(outer)
 * bytes to be written. *is_outer_ip tells whether the kernel knows that the packet is IP now.
 */
static __always_inline __u32 add_headers(struct __sk_buff *skb, struct encap *e, bool *is_outer_ip)
{
	__u32 tags = e->frame.tags, room = sizeof(struct outer) + tags * TAG_LEN;
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_FIXED_GSO |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN + tags * TAG_LEN);
	long err = -1;

	/* the type stays where it is relative to the payload: remember it with the tags */
	*is_outer_ip = is_ip(skb);
	if (*is_outer_ip)
		err = bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags);
	if (err) {
		/* not IP, or encapsulated already (EALREADY) */
		if (e->fast)
			return FAST_NOT_MINE;
		if (skb->gso_size)
			return VNETD_DROP_ENCAP_FAILED;
		*is_outer_ip = false;
		if (bpf_skb_change_head(skb, room, 0))
			return VNETD_DROP_ENCAP_FAILED;
	}
	return VNETD_OK;
}

/* Writes the outer headers and the inner Ethernet header with its tags. */
static __always_inline int write_headers(struct __sk_buff *skb, const struct outer *out,
					 const struct encap *e)
{
	struct {
		struct outer outer;
		__u8 macs[2 * ETH_ALEN];
		__be16 words[2 * MAX_TAGS + 1];
	} VNETD_PACKED all;
	__u32 len = sizeof(struct outer) + ETH_HLEN + e->frame.tags * TAG_LEN;

	all.outer = *out;
	__builtin_memcpy(all.macs, e->frame.dst, 2 * ETH_ALEN);
	__builtin_memcpy(all.words, e->frame.words, sizeof(all.words));
	if (len > sizeof(all))
		return -1;
	if (likely(e->frame.tags == 0))
		return bpf_skb_store_bytes(skb, 0, &all, sizeof(struct outer) + ETH_HLEN, 0);
	return bpf_skb_store_bytes(skb, 0, &all, len, 0);
}

static __always_inline int underlay_index(__u32 ifindex)
{
	for (__u32 i = 0; i < VNETD_MAX_UNDERLAYS; i++) {
		__u32 key = i, *found = bpf_map_lookup_elem(&underlay_list, &key);

		if (found && *found == ifindex)
			return i;
	}
	return -1;
}

static __always_inline __u32 to_host(struct __sk_buff *skb, struct encap *e, struct outer *out,
				     int *action)
{
	bool is_outer_ip;
	__u32 reason;
	int index;

	if (outer_length(skb, e->frame.tags) > e->to.underlay->mtu)
		return e->fast ? FAST_NOT_MINE : VNETD_DROP_TOO_BIG;
	outer_build(out, e->to.underlay, e->vnet, e->inner_len, e->hash);
	if (e->to.port)
		out->udp.dest = e->to.port;
	outer_to_host(out, e->to.host, e->ip_id);
	reason = add_headers(skb, e, &is_outer_ip);
	if (reason)
		return reason;
	if (write_headers(skb, out, e))
		return VNETD_DROP_ENCAP_FAILED;
	skb->mark = VNETD_MARK_NONE;
	if (likely(is_outer_ip)) {
		*action = bpf_redirect_neigh(e->to.underlay->ifindex, NULL, 0, 0);
		return VNETD_OK;
	}
	index = underlay_index(e->to.underlay->ifindex);
	if (index < 0)
		return VNETD_DROP_NO_UNDERLAY;
	skb->mark = VNETD_MARK_SECOND_PASS | index;
	*action = bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	return VNETD_OK;
}

/* Whether this frame fits a device; counts it when not. */
static __always_inline bool group_device_fits(const struct vnetd_underlay *underlay, __u32 length)
{
	return underlay && underlay->flags & VNETD_UNDERLAY_UP && length <= underlay->mtu;
}

/* Sends to the group on every attached device: clones to all but the last. */
static __always_inline __u32 to_group(struct __sk_buff *skb, struct encap *e, struct outer *out,
				      int *action)
{
	__u32 length = outer_length(skb, e->frame.tags), last = 0, reason;
	bool is_outer_ip, found = false, any = false;
	struct vnetd_underlay *underlay;

	for (__u32 i = 0; i < VNETD_MAX_UNDERLAYS; i++) {
		underlay = underlay_by_index(i);
		if (underlay && underlay->flags & VNETD_UNDERLAY_UP)
			any = true;
		if (group_device_fits(underlay, length)) {
			last = i;
			found = true;
		}
	}
	if (!found)
		return any ? VNETD_DROP_TOO_BIG : VNETD_DROP_NO_UNDERLAY;

	underlay = underlay_by_index(last);
	if (!underlay)
		return VNETD_DROP_NO_UNDERLAY;
	outer_build(out, underlay, e->vnet, e->inner_len, e->hash);
	outer_to_group(out, underlay, e->ip_id);
	reason = add_headers(skb, e, &is_outer_ip);
	if (reason)
		return reason;
	skb->mark = VNETD_MARK_NONE;
	for (__u32 i = 0; i < VNETD_MAX_UNDERLAYS; i++) {
		if (i >= last)
			break;
		underlay = underlay_by_index(i);
		if (!group_device_fits(underlay, length))
			continue;
		outer_to_group(out, underlay, e->ip_id);
		if (write_headers(skb, out, e))
			return VNETD_DROP_ENCAP_FAILED;
		/* a full queue there is that device's loss, and counted by it */
		bpf_clone_redirect(skb, underlay->ifindex, 0);
	}
	underlay = underlay_by_index(last);
	if (!underlay)
		return VNETD_DROP_NO_UNDERLAY;
	outer_to_group(out, underlay, e->ip_id);
	if (write_headers(skb, out, e))
		return VNETD_DROP_ENCAP_FAILED;
	*action = bpf_redirect(underlay->ifindex, 0);
	return VNETD_OK;
}

/*
 * Resolves the neighbour of a packet that was encapsulated in the first pass. The mark is
 * believed only on our own device, and only for what looks like ours.
 */
static __always_inline __u32 second_pass(struct __sk_buff *skb, int *action)
{
	struct vnetd_underlay *underlay = underlay_by_index(skb->mark & VNETD_MARK_INDEX);
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct outer *out = data;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay || data + sizeof(*out) > data_end)
		return VNETD_DROP_STALE_PASS;
	if (skb->protocol != bpf_htons(ETH_P_IP) || out->ip.protocol != IPPROTO_UDP ||
	    out->ip.saddr != ipv4_of(underlay->addr) ||
	    out->vudp.msg.id != bpf_htons(VNETD_MSG_VUDP))
		return VNETD_DROP_STALE_PASS;
	*action = bpf_redirect_neigh(underlay->ifindex, NULL, 0, 0);
	return VNETD_OK;
}

static __always_inline __u32 encap(struct __sk_buff *skb, struct encap *e, struct verdict *v,
				   int *action)
{
	__u32 ifindex = skb->ifindex;
	struct vnetd_port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct outer out = {};
	__u16 ethertype;

	if (!port)
		return VNETD_DROP_VNET_DOWN;
	e->vnet = vnet_by_slot(port->slot);
	if (!e->vnet || e->vnet->handle != port->handle)
		return VNETD_DROP_VNET_DOWN;
	count_begin(v, port->handle, port->slot);
	if (!(e->vnet->flags & VNETD_VNET_UP))
		return VNETD_DROP_VNET_DOWN;
	/* until keys exist there is no way out for a secure vnet */
	if (e->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_SECURITY;
	if (!frame_read(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;

	learn_local(e, v);
	destination_of(e, v);
	if (e->fast && !e->to.underlay)
		return FAST_NOT_MINE;

	/* the flow's hash, of the inner frame: before anything is moved */
	e->hash = bpf_get_hash_recalc(skb);
	if (e->fast)
		e->frame.tags = 0;
	else if (frame_pop_tags(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;
	if (bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &ethertype, 2))
		return VNETD_DROP_ENCAP_FAILED;
	switch (e->frame.tags) {
	case 0:
		e->frame.words[0] = ethertype;
		break;
	case 1:
		e->frame.words[2] = ethertype;
		break;
	case 2:
		e->frame.words[4] = ethertype;
		break;
	default:
		e->frame.words[6] = ethertype;
	}
	e->inner_len = skb->len + e->frame.tags * TAG_LEN;
	v->len = e->inner_len;
	if (e->inner_len + VNETD_VUDP_IPV4_OVERHEAD > 0xffff)
		return e->fast ? FAST_NOT_MINE : VNETD_DROP_SUPERFRAME_TOO_LONG;
	/* DF is clear, so packets in flight should differ (RFC 6864 section 4.2) */
	e->ip_id = (bpf_get_smp_processor_id() << 12) + (v->traffic ? v->traffic->frames[0] : 0);
	if (e->to.underlay)
		return to_host(skb, e, &out, action);
	return to_group(skb, e, &out, action);
}

static __always_inline int finish(struct verdict *v, __u32 reason, int action)
{
	if (unlikely(v->refused))
		count_drop(v->handle, VNETD_DIR_ENCAP, v->refused, v->len);
	if (unlikely(reason)) {
		count_drop(v->handle, VNETD_DIR_ENCAP, reason, v->len);
		return TC_ACT_SHOT;
	}
	count_forwarded(v, VNETD_DIR_ENCAP);
	return action;
}

SEC("tc")
int vnetd_encap(struct __sk_buff *skb)
{
	struct encap e = {};
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason;

	if ((skb->mark & VNETD_MARK_KIND) == VNETD_MARK_SECOND_PASS) {
		reason = second_pass(skb, &action);
		if (reason)
			count_drop(0, VNETD_DIR_ENCAP, reason, v.len);
		return action;
	}
	reason = encap(skb, &e, &v, &action);
	return finish(&v, reason, action);
}

SEC("tc")
int vnetd_encap_fast(struct __sk_buff *skb)
{
	struct encap e = { .fast = true };
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_OK;
	__u32 reason;

	/* a mark of ours that comes from elsewhere must not look like a second pass */
	if (unlikely((skb->mark & VNETD_MARK_KIND) == VNETD_MARK_SECOND_PASS))
		skb->mark = VNETD_MARK_NONE;
	if (!is_ip(skb) || skb->vlan_present)
		return TC_ACT_OK;
	reason = encap(skb, &e, &v, &action);
	/* what cannot be forwarded from here is left to the other hook, which counts it */
	if (reason)
		return TC_ACT_OK;
	/* a source that is refused is counted once: here, if the frame ends here */
	return finish(&v, reason, action);
}

char LICENSE[] SEC("license") = "GPL";
