// SPDX-License-Identifier: GPL-2.0-only
/*
 * Frames whose outer packets came in fragments, on the TC ingress of the VXLAN device that the kernel
 * delivers them to when they are whole again. See bpf/lib/reassembly.h.
 *
 * What comes here is an Ethernet header whose addresses hold this host's secret, and the inner frame.
 * Everything else was sent to the device's port by others and is dropped.
 */
#include "lib/reassembly.h"
#include "lib/receive.h"

static __always_inline bool secret_right(const __u8 *got, const __u8 *secret)
{
	__u8 differ = 0;

#pragma unroll
	for (int i = 0; i < VNETD_SECRET_LEN; i++)
		differ |= got[i] ^ secret[i];
	return !differ;
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
	__u32 zero = 0, reason, slot;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	struct bpf_tunnel_key key = {};

	if (!m || bpf_skb_load_bytes(skb, 0, &in, sizeof(in)) ||
	    !secret_right(in.secret, m->reassembly_secret) ||
	    bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return VNETD_DROP_REASSEMBLY_FORGED;
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
	r->source = bpf_htonl(key.remote_ipv4);
	r->ip_id = in.ip_id;
	r->to_group = reassembly_to_group(key.tunnel_id);
	v->flooded = r->to_group;
	reason = learn_remote(skb, r, in.eth + ETH_ALEN, v);
	if (reason)
		return reason;
	reason = strip(skb, ETH_HLEN, in.eth, v->len);
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
