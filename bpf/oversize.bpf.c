// SPDX-License-Identifier: GPL-2.0-only
/*
 * Frames that are too large for the underlay, on the inner end of the fragmenting veth pair.
 *
 *   vnetd_encap --mark OVERSIZE--> pair --> oversize()
 *                                             |- answer(): IP that must not be fragmented: tell the
 *                                             |            guest the MTU (RFC 1191, RFC 8201)
 *                                             '- split(): encapsulate, one copy for each fragment
 *                       pair --mark FRAGMENT--> fragment_cut(): the copy becomes its fragment, and leaves
 *
 * The pair's sending end has its offloads off, so what arrives here is single frames whose checksums
 * are filled in. A copy goes through the pair's receiving end once more because that makes an IP
 * packet of it in the kernel's eyes, whatever it carries.
 */
#include "lib/fragment.h"
#include "lib/forward.h"
#include "lib/send.h"

#define ANSWER_INTERVAL_NS 1000000ULL
#define ANSWER_BURST 32

/* ---- the answer: too big ------------------------------------------------------------------ */

#define ICMPV6_PACKET_TOO_BIG 2
#define ICMPV6_INFORMATIONAL 128
#define IPV6_MIN_MTU 1280
/* an IPv4 header with all options and 8 bytes (RFC 792) */
#define QUOTE4_MAX 68
#define QUOTE6 128

struct answer_pace {
	__u64 refilled_ns;
	__u64 tokens;
};

VNETD_MAP(answer_pace, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct answer_pace, 1, 0);

static __always_inline bool answer_allowed(void)
{
	__u32 zero = 0;
	struct answer_pace *pace = bpf_map_lookup_elem(&answer_pace, &zero);
	__u64 now = bpf_ktime_get_ns(), earned;

	if (!pace)
		return false;
	earned = (now - pace->refilled_ns) / ANSWER_INTERVAL_NS;
	if (earned) {
		earned += pace->tokens;
		pace->tokens = earned > ANSWER_BURST ? ANSWER_BURST : earned;
		pace->refilled_ns = now;
	}
	if (!pace->tokens)
		return false;
	pace->tokens -= 1;
	return true;
}

static __always_inline __be16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int swap_macs(struct __sk_buff *skb, const struct encap *e)
{
	__u8 macs[2 * ETH_ALEN];

	__builtin_memcpy(macs, e->frame.src, ETH_ALEN);
	__builtin_memcpy(macs + ETH_ALEN, e->frame.dst, ETH_ALEN);
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
}

/* RFC 1191 section 4: from the destination, as a router on the way would send it. */
SUBPROGRAM int answer4(struct __sk_buff *skb, const struct iphdr *quoted, __u32 mtu)
{
	struct {
		struct iphdr ip;
		__u8 type, code;
		__be16 check, unused, mtu;
		__u8 quote[QUOTE4_MAX];
	} VNETD_PACKED answer = {};
	__u32 quote = quoted->ihl * 4 + 8, len;

	if (quote < 28 || quote > QUOTE4_MAX ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, answer.quote, quote))
		return -1;
	len = offsetof(typeof(answer), quote) + quote;
	answer.ip.version = 4;
	answer.ip.ihl = 5;
	answer.ip.tot_len = bpf_htons(len);
	answer.ip.ttl = VNETD_TTL_UNICAST;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.saddr = quoted->daddr;
	answer.ip.daddr = quoted->saddr;
	answer.ip.check = ipv4_checksum(&answer.ip);
	answer.type = ICMP_UNREACHABLE;
	answer.code = ICMP_FRAG_NEEDED;
	answer.mtu = bpf_htons(mtu);
	/* what is behind the quote is 0 and does not count */
	answer.check = fold(bpf_csum_diff(NULL, 0, (void *)&answer + sizeof(answer.ip),
					  sizeof(answer) - sizeof(answer.ip), 0));
	if (shorten(skb, ETH_HLEN + len))
		return -1;
	barrier_var(len);
	if (len > sizeof(answer) || len < sizeof(answer.ip))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, &answer, len, 0);
}

/* RFC 4443 section 3.2 */
SUBPROGRAM int answer6(struct __sk_buff *skb, const struct ipv6hdr *quoted, __u32 mtu)
{
	struct {
		struct ipv6hdr ip;
		__u8 type, code;
		__be16 check;
		__be32 mtu;
		__u8 quote[QUOTE6];
	} VNETD_PACKED answer = {};
	__u32 icmp = sizeof(answer) - sizeof(answer.ip);
	__be32 pseudo[2] = { bpf_htonl(icmp), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer.quote, QUOTE6))
		return -1;
	answer.ip.version = 6;
	answer.ip.payload_len = bpf_htons(icmp);
	answer.ip.nexthdr = IPPROTO_ICMPV6;
	answer.ip.hop_limit = 255;
	answer.ip.saddr = quoted->daddr;
	answer.ip.daddr = quoted->saddr;
	answer.type = ICMPV6_PACKET_TOO_BIG;
	answer.mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)&answer + offsetof(struct ipv6hdr, saddr),
			    sizeof(answer) - offsetof(struct ipv6hdr, saddr), sum);
	answer.check = fold(sum);
	if (shorten(skb, ETH_HLEN + sizeof(answer)))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0);
}

/* Back to the guest: its own frame's place, whatever tag it had stays beside it. */
static __always_inline __u32 answered(struct __sk_buff *skb, struct encap *e, int *action)
{
	__u32 mtu = 0;

	if (swap_macs(skb, e))
		return VNETD_DROP_TOO_BIG;
	skb->mark = VNETD_MARK_NONE;
	if (bpf_check_mtu(skb, e->vnet->vnif, &mtu, 0, 0) == -19 /* ENODEV: moved elsewhere */)
		*action = bpf_redirect(e->vnet->vnif_peer, 0);
	else
		*action = bpf_redirect(e->vnet->vnif, BPF_F_INGRESS);
	return VNETD_DROP_TOO_BIG;
}

/*
 * Whether the sender wants to know rather than have its packet fragmented, and may be told:
 * never about a group's packet, a fragment or an error (RFC 1122 section 3.2.2).
 */
static __always_inline bool wants_answer4(const struct iphdr *ip, __u8 icmp_type)
{
	if (!(ip->frag_off & bpf_htons(IPV4_DF)) || ip->frag_off & bpf_htons(IPV4_OFFSET))
		return false;
	if (ipv4_is_multicast(ip->daddr) || ip->daddr == 0xffffffff || !ip->saddr ||
	    ipv4_is_multicast(ip->saddr))
		return false;
	return ip->protocol != IPPROTO_ICMP || icmp_type == 0 || icmp_type == 8;
}

static __always_inline bool wants_answer6(const struct ipv6hdr *ip, __u8 icmp_type)
{
	if (ip->saddr.s6_addr[0] == 0xff || ip->daddr.s6_addr[0] == 0xff)
		return false;
	return ip->nexthdr != IPPROTO_ICMPV6 || icmp_type >= ICMPV6_INFORMATIONAL;
}

/* Returns VNETD_OK when the frame is to be fragmented instead. */
static __always_inline __u32 answer(struct __sk_buff *skb, struct encap *e, __u32 mtu, int *action)
{
	__u8 icmp_type = 0;

	if (is_group_mac(e->frame.dst))
		return VNETD_OK;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl < 5)
			return VNETD_OK;
		bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, &icmp_type, 1);
		if (!wants_answer4(&ip, icmp_type))
			return VNETD_OK;
		if (!answer_allowed() || answer4(skb, &ip, mtu))
			return VNETD_DROP_TOO_BIG;
		return answered(skb, e, action);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return VNETD_OK;
		bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &icmp_type, 1);
		if (!wants_answer6(&ip, icmp_type))
			return VNETD_OK;
		/* no link may carry less, so nobody would send less (RFC 8200 section 5) */
		if (mtu < IPV6_MIN_MTU) {
			if (skb->len - ETH_HLEN <= IPV6_MIN_MTU)
				return VNETD_OK;
			mtu = IPV6_MIN_MTU;
		}
		if (!answer_allowed() || answer6(skb, &ip, mtu))
			return VNETD_DROP_TOO_BIG;
		return answered(skb, e, action);
	}
	return VNETD_OK;
}

/* ---- fragments ---------------------------------------------------------------------------- */

/* All fragments of the packet, for one device. */
static __always_inline __u32 split(struct __sk_buff *skb, struct encap *e,
				   const struct vnetd_underlay *underlay, __u32 mtu)
{
	__u32 payload = e->inner_len + VNETD_VUDP_IPV4_OVERHEAD - sizeof(struct iphdr);

	if (!fragments_fit(mtu, payload))
		return VNETD_DROP_TOO_BIG;
	e->frame.outer.ip.check = (__u16)fragment_size(mtu);
	if (write_headers(skb, e))
		return VNETD_DROP_ENCAP_FAILED;
	return fragment_copies(skb, underlay, payload, fragment_size(mtu));
}

static long split_for_device(__u32 index, void *context)
{
	struct device_walk *walk = context;
	struct vnetd_underlay *underlay = underlay_by_index(index);
	__u32 reason;

	if (!underlay || !sends_to_group(underlay))
		return 0;
	outer_to_group(&walk->e->frame.outer, underlay, walk->e->ip_id);
	reason = split(walk->skb, walk->e, underlay, underlay->mtu);
	if (reason) {
		walk->failed = reason;
		walk->missed += 1;
	} else {
		walk->copied += 1;
	}
	return 0;
}

static __always_inline __u32 oversize(struct __sk_buff *skb, struct encap *e, struct verdict *v,
				      int *action)
{
	__u32 slot = skb->mark & VNETD_MARK_VALUE, reason, outer_mtu, tags = skb->vlan_present;
	struct vnetd_underlay *underlay;

	skb->mark = VNETD_MARK_NONE;
	e->vnet = vnet_by_slot(slot);
	if (!e->vnet || !(e->vnet->flags & VNETD_VNET_UP) ||
	    e->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_VNET_DOWN;
	count_begin(v, e->vnet->handle, slot);
	if (skb->gso_size || !frame_read(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;
	destination_of(e, v);
	walk_devices(&e->walk);
	underlay = e->to.underlay ?: underlay_by_index(e->walk.last);
	if (!underlay || !e->walk.up)
		return VNETD_DROP_NO_UNDERLAY;
	outer_mtu = e->to.underlay ? e->to.mtu : e->walk.min_mtu;

	if (skb->len + tags * TAG_LEN + VNETD_VUDP_IPV4_OVERHEAD > outer_mtu) {
		reason = answer(skb, e,
				outer_mtu - VNETD_VUDP_IPV4_OVERHEAD - ETH_HLEN - tags * TAG_LEN,
				action);
		if (reason)
			return reason;
		/* in fragments it would arrive, and be too long */
		if (e->to.original &&
		    skb->len + skb->vlan_present * TAG_LEN + VNETD_VUDP_IPV4_OVERHEAD >
			    VNETD_ORIGINAL_MAX_PACKET)
			return VNETD_DROP_TOO_BIG;
		if (v->traffic)
			v->traffic->fragmented[VNETD_DIR_ENCAP] += 1;
	}
	reason = prepare(skb, e, v);
	if (reason)
		return reason;
	if (bpf_skb_change_head(skb, sizeof(struct outer) + e->frame.tags * TAG_LEN, 0))
		return VNETD_DROP_NO_MEMORY;
	outer_build(&e->frame.outer, underlay, e->vnet, e->inner_len, e->hash);
	if (e->to.underlay) {
		if (e->to.port)
			e->frame.outer.udp.dest = e->to.port;
		outer_to_host(&e->frame.outer, e->to.host, e->ip_id);
		return split(skb, e, underlay, outer_mtu);
	}
	e->walk.skb = skb;
	e->walk.e = e;
	bpf_loop(VNETD_MAX_UNDERLAYS, split_for_device, &e->walk, 0);
	if (unlikely(forward_wanted())) {
		if (!e->walk.sending) {
			outer_to_group(&e->frame.outer, underlay, e->ip_id);
			if (write_headers(skb, e))
				return VNETD_DROP_ENCAP_FAILED;
		}
		forward_copy(skb, underlay->index);
	} else if (unlikely(!e->walk.sending)) {
		return VNETD_DROP_NO_RECEIVER;
	}
	if (!e->walk.copied)
		return e->walk.failed;
	count_missed(&e->walk, v);
	return VNETD_OK;
}

SEC("tc")
int vnetd_oversize(struct __sk_buff *skb)
{
	struct encap e = {};
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason;

	switch (skb->mark & VNETD_MARK_KIND) {
	case VNETD_MARK_FRAGMENT:
		reason = fragment_cut(skb, &action);
		if (reason)
			count_drop(0, VNETD_DIR_ENCAP, reason, v.len);
		return action;
	case VNETD_MARK_OVERSIZE:
		reason = oversize(skb, &e, &v, &action);
		break;
	default:
		reason = VNETD_DROP_STALE_PASS;
	}
	/* an answer leaves although the frame was dropped */
	if (reason)
		count_drop(v.handle, VNETD_DIR_ENCAP, reason, v.len);
	else
		count_forwarded(&v, VNETD_DIR_ENCAP);
	return action;
}

char LICENSE[] SEC("license") = "GPL";
