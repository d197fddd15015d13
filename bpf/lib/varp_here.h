/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VARP that needs no daemon: plain messages, 43 bytes, in clear, of vnets that are not secure.
 *
 *   request               answered in its own packet when the MAC lives here
 *   announce for itself   the MAC is entered, by the limits that frames have
 *
 * All else is the daemon's, as whatever is doubtful: what it decides and refuses is decided and counted in one
 * place, bpf/lib/varp.h hands it over. So is an announce of a MAC that lives here, since bridges and ports are
 * looked at then, and one that the table refused. What is done here is counted in varp_stats.
 */
#ifndef VNETD_VARP_HERE_H
#define VNETD_VARP_HERE_H

#include "varp.h"

/* verdicts beside the reasons */
enum varp_done {
	VARP_FOR_DAEMON = VNETD_REASON_COUNT,
	VARP_LEARNED,
	VARP_ANSWERED,
	VARP_NOT_HERE,
};

/* What follows the IP header of a plain message. */
struct varp_plain {
	struct udphdr udp;
	struct vnetd_varp varp;
	/* for checksums, of which this is no part */
	__u8 zero;
} __attribute__((aligned(8)));

#define VARP_UDP_LEN (sizeof(struct udphdr) + sizeof(struct vnetd_varp))
/* of checksums: whole words */
#define VARP_SUM_LEN (VARP_UDP_LEN + 1)

_Static_assert(VARP_SUM_LEN % 4 == 0 && VARP_SUM_LEN <= sizeof(struct varp_plain), "varp_plain");

/* What does not fit on the stack of all kernels, with the frames of the callers and of learning. */
struct varp_scratch {
	struct varp_plain m;
	struct fdb_news news;
	struct vnetd_nexthop_key from;
};

VNETD_MAP(varp_scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct varp_scratch, 1, 0);
VNETD_MAP(varp_stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct vnetd_varp_stats, 1, 0);

/* Of 16 bits, never 0. */
static __always_inline __u16 sum_fold(__s64 sum)
{
	__u32 low = (__u32)sum;

	low = (low & 0xffff) + (low >> 16);
	low = (low & 0xffff) + (low >> 16);
	return (__u16)low;
}

/* Of the pseudo header; what is in front of an IPv4 address in its mapped form adds nothing. */
static __always_inline __s64 pseudo_sum(const void *source, const void *destination)
{
	__s64 sum = bpf_csum_diff(NULL, 0, (void *)source, 16,
				  bpf_htons(IPPROTO_UDP) + bpf_htons(VARP_UDP_LEN));

	return bpf_csum_diff(NULL, 0, (void *)destination, 16, (__u32)sum);
}

/* The headers in front of UDP, turned round. False: it is none that has an answer here. */
static __always_inline bool varp_turn_ip(struct __sk_buff *skb, const struct received *r)
{
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} ip;
	__u32 len;

	if (r->underlay->family == VNETD_FAMILY_IPV6) {
		len = sizeof(ip.v6);
		__builtin_memset(&ip.v6, 0, sizeof(ip.v6));
		ip.v6.version = 6;
		ip.v6.payload_len = bpf_htons(VARP_UDP_LEN);
		ip.v6.nexthdr = IPPROTO_UDP;
		ip.v6.hop_limit = VNETD_TTL_UNICAST;
		__builtin_memcpy(&ip.v6.saddr, r->underlay->addr, sizeof(ip.v6.saddr));
		__builtin_memcpy(&ip.v6.daddr, &r->source, sizeof(ip.v6.daddr));
		return !bpf_skb_store_bytes(skb, ETH_HLEN, &ip.v6, sizeof(ip.v6),
					    BPF_F_RECOMPUTE_CSUM);
	}
	__builtin_memset(&ip.v4, 0, sizeof(ip.v4));
	ip.v4.version = 4;
	ip.v4.ihl = sizeof(ip.v4) / 4;
	ip.v4.tot_len = bpf_htons(sizeof(ip.v4) + VARP_UDP_LEN);
	ip.v4.frag_off = bpf_htons(IPV4_DF);
	ip.v4.ttl = VNETD_TTL_UNICAST;
	ip.v4.protocol = IPPROTO_UDP;
	ip.v4.saddr = ipv4_of(r->underlay->addr);
	ip.v4.daddr = r->source.words[3];
	ip.v4.check = ipv4_checksum(&ip.v4);
	len = sizeof(ip.v4);
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &ip.v4, len, BPF_F_RECOMPUTE_CSUM);
}

/*
 * The request becomes its answer, which goes to whom the packet came from, to the protocol's port. What a virtual
 * device brings has a checksum that is not filled in yet, but begun, with the pseudo header's sum, and whoever
 * sends the packet on fills it in. That is told by the value; where it could be either, the daemon answers.
 */
SUBPROGRAM int varp_answer(struct __sk_buff *skb, const struct received *r, struct varp_plain *m)
{
	__s64 pseudo = pseudo_sum(&r->source, &r->destination);
	bool begun = m->udp.check == sum_fold(pseudo);
	bool is_ipv4 = r->underlay->family == VNETD_FAMILY_IPV4;
	__u8 macs[2 * ETH_ALEN];

	if (begun &&
	    sum_fold(bpf_csum_diff(NULL, 0, (void *)m, VARP_SUM_LEN, (__u32)pseudo)) == 0xffff)
		return VARP_FOR_DAEMON;
	m->udp.source = r->underlay->port;
	m->udp.dest = r->underlay->port;
	m->udp.len = bpf_htons(VARP_UDP_LEN);
	m->udp.check = 0;
	m->varp.msg.opcode = bpf_htons(VNETD_VARP_ANNOUNCE);
	m->varp.family = is_ipv4 ? VNETD_VARP_INET : VNETD_VARP_INET6;
	if (is_ipv4) {
		__builtin_memset(m->varp.addr, 0, sizeof(m->varp.addr));
		__builtin_memcpy(m->varp.addr, r->underlay->addr + 12, 4);
	} else {
		__builtin_memcpy(m->varp.addr, r->underlay->addr, sizeof(m->varp.addr));
	}
	pseudo = pseudo_sum(r->underlay->addr, &r->source);
	if (begun) {
		m->udp.check = sum_fold(pseudo);
	} else {
		m->udp.check =
			~sum_fold(bpf_csum_diff(NULL, 0, (void *)m, VARP_SUM_LEN, (__u32)pseudo));
		if (!m->udp.check)
			m->udp.check = 0xffff;
	}
	if (bpf_skb_load_bytes(skb, ETH_ALEN, macs, ETH_ALEN))
		return VARP_FOR_DAEMON;
	__builtin_memcpy(macs + ETH_ALEN, r->underlay->mac, ETH_ALEN);
	if (!varp_turn_ip(skb, r) ||
	    bpf_skb_store_bytes(skb, r->offset, m, VARP_UDP_LEN, BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return VNETD_DROP_NO_MEMORY;
	skb->mark = VNETD_MARK_NONE;
	return VARP_ANSWERED;
}

static __always_inline void varp_count(size_t offset)
{
	__u32 zero = 0;
	struct vnetd_varp_stats *stats = bpf_map_lookup_elem(&varp_stats, &zero);

	if (stats)
		*(__u64 *)((void *)stats + offset) += 1;
}

#define COUNT_VARP(field) varp_count(offsetof(struct vnetd_varp_stats, field))

static __always_inline bool varp_names_sender(const struct received *r,
					      const struct vnetd_varp *varp)
{
	union address care;

	__builtin_memcpy(&care, varp->addr, sizeof(care));
	if (r->underlay->family == VNETD_FAMILY_IPV4)
		return varp->family == VNETD_VARP_INET && care.words[0] == r->source.words[3];
	return varp->family == VNETD_VARP_INET6 && same_words(care.words, r->source.words);
}

static __always_inline bool is_zero_mac(const __u8 *mac)
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* The message, if it is plain and its vnet is one that is answered and learned for here. */
static __always_inline struct vnetd_vnet *varp_read(struct __sk_buff *skb, const struct received *r,
						    struct varp_plain *m, __u32 *slot)
{
	__u32 id[VNETD_ID_LEN / 4], *found;
	struct vnetd_vnet *vnet;

	if (bpf_skb_load_bytes(skb, r->offset, m, VARP_UDP_LEN))
		return NULL;
	__builtin_memcpy(id, m->varp.vnet, VNETD_ID_LEN);
	found = bpf_map_lookup_elem(&vnet_ids, id);
	vnet = found ? vnet_by_slot(*found) : NULL;
	if (!vnet || !(vnet->flags & VNETD_VNET_UP) || vnet->security != VNETD_SECURITY_NONE)
		return NULL;
	*slot = *found;
	return vnet;
}

static __always_inline struct varp_scratch *varp_scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&varp_scratch, &zero);
}

/* A request: *handle is said where there is a reason. */
SUBPROGRAM __u32 varp_asked(struct __sk_buff *skb, const struct received *r, __u32 *handle)
{
	struct varp_scratch *s = varp_scratch_get();
	struct vnetd_fdb_entry *entry;
	struct vnetd_vnet *vnet;
	struct vnetd_floods *f;
	__u64 now = now_ns();
	__u32 slot, done;

	vnet = s ? varp_read(skb, r, &s->m, &slot) : NULL;
	if (!vnet)
		return VARP_FOR_DAEMON;
	s->news.key.handle = vnet->handle;
	__builtin_memcpy(s->news.key.mac, s->m.varp.vmac, VNETD_MAC_LEN);
	entry = bpf_map_lookup_elem(&fdb, &s->news.key);
	if (!same_mac(s->m.varp.vmac, vnet->vmac) &&
	    !(entry && entry->nexthop == VNETD_NEXTHOP_LOCAL && fdb_fresh(entry, vnet, now))) {
		COUNT_VARP(not_here);
		return VARP_NOT_HERE;
	}
	f = floods_of(slot);
	if (!f || !budget_take(&f->answers_ns, now, VNETD_ANSWERS_PER_SECOND,
			       VNETD_ANSWERS_PER_SECOND, 1)) {
		COUNT_VARP(limited);
		*handle = vnet->handle;
		return VNETD_DROP_VARP_RATE;
	}
	done = varp_answer(skb, r, &s->m);
	if (done == VARP_ANSWERED)
		COUNT_VARP(answered);
	return done;
}

/* An announce: enters what a host says of itself. */
SUBPROGRAM __u32 varp_announced(struct __sk_buff *skb, const struct received *r)
{
	struct varp_scratch *s = varp_scratch_get();
	struct vnetd_fdb_entry *entry;
	struct vnetd_nexthop *hop;
	struct vnetd_vnet *vnet;
	__u32 reason = VNETD_OK, slot, id;
	const __u8 *mac;

	vnet = s ? varp_read(skb, r, &s->m, &slot) : NULL;
	if (!vnet)
		return VARP_FOR_DAEMON;
	mac = s->m.varp.vmac;
	if (is_group_mac(mac) || is_zero_mac(mac) || same_mac(mac, vnet->vmac) ||
	    !varp_names_sender(r, &s->m.varp))
		return VARP_FOR_DAEMON;
	s->news.key.handle = vnet->handle;
	__builtin_memcpy(s->news.key.mac, mac, VNETD_MAC_LEN);
	entry = bpf_map_lookup_elem(&fdb, &s->news.key);
	if (entry && entry->nexthop == VNETD_NEXTHOP_LOCAL)
		return VARP_FOR_DAEMON;
	s->from.handle = vnet->handle;
	s->from.ifindex = r->underlay->ifindex;
	__builtin_memcpy(s->from.addr, &r->source, sizeof(s->from.addr));
	id = nexthop_heard(&s->from, slot, &reason);
	if (id)
		id = nexthop_primary(id);
	hop = id ? nexthop_by_id(id) : NULL;
	if (!hop)
		return VARP_FOR_DAEMON;
	s->news.slot = slot;
	s->news.nexthop = id;
	s->news.gen = hop->gen;
	s->news.flags = VNETD_FDB_ANNOUNCED;
	s->news.now = now_ns();
	if (fdb_learn(&s->news, vnet))
		return VARP_FOR_DAEMON;
	COUNT_VARP(taken);
	return VARP_LEARNED;
}

/* Gives a reason, or enum varp_done. */
static __always_inline __u32 varp_here(struct __sk_buff *skb, const struct received *r,
				       __u32 *handle)
{
	__u32 ip_len = r->underlay->family == VNETD_FAMILY_IPV6 ? sizeof(struct ipv6hdr)
								: sizeof(struct iphdr);
	__be16 opcode;

	/* one plain message, and nothing in front of it or behind it that is not usual */
	if (r->payload != VNETD_VARP_LEN || r->offset != ETH_HLEN + ip_len || r->segmented ||
	    skb->len != r->offset + VARP_UDP_LEN || skb->gso_size)
		return VARP_FOR_DAEMON;
	if (bpf_skb_load_bytes(
		    skb, r->offset + sizeof(struct udphdr) + offsetof(struct vnetd_msg_hdr, opcode),
		    &opcode, sizeof(opcode)))
		return VARP_FOR_DAEMON;
	if (opcode == bpf_htons(VNETD_VARP_REQUEST))
		return varp_asked(skb, r, handle);
	return opcode == bpf_htons(VNETD_VARP_ANNOUNCE) ? varp_announced(skb, r) : VARP_FOR_DAEMON;
}

#endif
