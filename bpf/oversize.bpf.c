// SPDX-License-Identifier: GPL-2.0-only
/*
 * Frames that are too large for the underlay, on the inner end of the fragmenting veth pair.
 *
 *   vnetd_encap --mark OVERSIZE--> pair --> oversize()
 *                                             |- answer(): IP that must not be fragmented: tell the
 *                                             |            guest the MTU (RFC 1191, RFC 8201)
 *                                             |- split(): encapsulate, one copy for each fragment
 *                                             '- of a super-frame, which EtherIP wants single:
 *                                                to_host(), or once more to vnetd_encap
 *   vnetd_encap --mark SECURE_LARGE--> pair --> oversize_secure(): answer(), or back to vnetd_encap
 *                       pair --mark FRAGMENT--> fragment_cut(): the copy becomes its fragment, and leaves
 *
 * The pair's sending end has its offloads off, so what arrives here is single frames whose checksums
 * are filled in. A copy goes through the pair's receiving end once more because that makes an IP
 * packet of it in the kernel's eyes, whatever it carries.
 */
#include "lib/fragment.h"
#include "lib/group.h"
#include "lib/forward.h"
#include "lib/ports.h"
#include "lib/secure.h"
#include "lib/send.h"

#define ANSWER_INTERVAL_NS 1000000ULL
#define ANSWER_BURST 32

/* ---- the answer: too big ------------------------------------------------------------------ */

#define ICMPV6_INFORMATIONAL 128
/* an IPv4 header with all options and 8 bytes (RFC 792) */
#define QUOTE4_MAX 68
#define QUOTE6 128

struct answer4 {
	struct iphdr ip;
	__u8 type, code;
	__be16 check, unused, mtu;
	__u8 quote[QUOTE4_MAX];
} VNETD_PACKED;

struct answer6 {
	struct ipv6hdr ip;
	__u8 type, code;
	__be16 check;
	__be32 mtu;
	__u8 quote[QUOTE6];
} VNETD_PACKED;

struct answer_pace {
	__u64 refilled_ns;
	__u64 tokens;
	/* where an answer is made: the stack has no room for it */
	union {
		struct answer4 v4;
		struct answer6 v6;
	};
};

VNETD_MAP(answer_pace, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct answer_pace, 1, 0);

static __always_inline struct answer_pace *this_cpu_pace(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&answer_pace, &zero);
}

static __always_inline bool answer_allowed(void)
{
	struct answer_pace *pace = this_cpu_pace();
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
static __always_inline int answer4(struct __sk_buff *skb, const struct iphdr *quoted, __u32 mtu)
{
	struct answer_pace *pace = this_cpu_pace();
	struct answer4 *answer;
	__u32 quote, len;

	if (!pace)
		return -1;
	quote = quoted->ihl * 4 + 8;
	answer = &pace->v4;
	__builtin_memset(answer, 0, sizeof(*answer));
	if (quote < 28 || quote > QUOTE4_MAX ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, quote))
		return -1;
	len = offsetof(struct answer4, quote) + quote;
	answer->ip.version = 4;
	answer->ip.ihl = 5;
	answer->ip.tot_len = bpf_htons(len);
	answer->ip.ttl = VNETD_TTL_UNICAST;
	answer->ip.protocol = IPPROTO_ICMP;
	answer->ip.saddr = quoted->daddr;
	answer->ip.daddr = quoted->saddr;
	answer->ip.check = ipv4_checksum(&answer->ip);
	answer->type = ICMP_UNREACHABLE;
	answer->code = ICMP_FRAG_NEEDED;
	answer->mtu = bpf_htons(mtu);
	/* what is behind the quote is 0 and does not count */
	answer->check = fold(bpf_csum_diff(NULL, 0, (void *)answer + sizeof(answer->ip),
					   sizeof(*answer) - sizeof(answer->ip), 0));
	if (shorten(skb, ETH_HLEN + len))
		return -1;
	barrier_var(len);
	if (len > sizeof(*answer) || len < sizeof(answer->ip))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, answer, len, 0);
}

/* RFC 4443 section 3.2 */
static __always_inline int answer6(struct __sk_buff *skb, const struct ipv6hdr *quoted, __u32 mtu)
{
	struct answer_pace *pace = this_cpu_pace();
	struct answer6 *answer;
	__u32 icmp = sizeof(*answer) - sizeof(answer->ip);
	__be32 pseudo[2] = { bpf_htonl(icmp), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;

	if (!pace)
		return -1;
	answer = &pace->v6;
	__builtin_memset(answer, 0, sizeof(*answer));
	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, QUOTE6))
		return -1;
	answer->ip.version = 6;
	answer->ip.payload_len = bpf_htons(icmp);
	answer->ip.nexthdr = IPPROTO_ICMPV6;
	answer->ip.hop_limit = 255;
	answer->ip.saddr = quoted->daddr;
	answer->ip.daddr = quoted->saddr;
	answer->type = ICMPV6_PACKET_TOO_BIG;
	answer->mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)answer + offsetof(struct ipv6hdr, saddr),
			    sizeof(*answer) - offsetof(struct ipv6hdr, saddr), sum);
	answer->check = fold(sum);
	if (shorten(skb, ETH_HLEN + sizeof(*answer)))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, answer, sizeof(*answer), 0);
}

/* Back to the guest: its own frame's place, whatever tag it had stays beside it. */
static __always_inline __u32 answered(struct __sk_buff *skb, struct encap *e, int *action)
{
	if (swap_macs(skb, e))
		return VNETD_DROP_TOO_BIG;
	skb->mark = VNETD_MARK_NONE;
	if (unlikely(e->vnet->flags & VNETD_VNET_PORTS)) {
		*action = deliver_to_ports(skb, e->vnet, 0);
		if (*action != NOT_TAKEN)
			return VNETD_DROP_TOO_BIG;
	}
	if (vnif_is_elsewhere(skb, e->vnet))
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

/* What became of the wish for an answer. */
enum asked {
	/* the frame is to be fragmented instead */
	ASKED_NO,
	/* none can be made, or there were too many lately */
	ASKED_IN_VAIN,
	/* it stands in the frame's place */
	ASKED_ANSWERED,
};

CHECKED_ONCE int try_answer4(struct __sk_buff *skb, __u32 mtu)
{
	__u8 icmp_type = 0;
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl < 5)
		return ASKED_NO;
	bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, &icmp_type, 1);
	if (!wants_answer4(&ip, icmp_type))
		return ASKED_NO;
	return answer_allowed() && !answer4(skb, &ip, mtu) ? ASKED_ANSWERED : ASKED_IN_VAIN;
}

CHECKED_ONCE int try_answer6(struct __sk_buff *skb, __u32 mtu)
{
	__u8 icmp_type = 0;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return ASKED_NO;
	bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &icmp_type, 1);
	if (!wants_answer6(&ip, icmp_type))
		return ASKED_NO;
	/* no link may carry less, so nobody would send less (RFC 8200 section 5) */
	if (mtu < VNETD_PATH_MTU_MIN_IPV6) {
		if (skb->len - ETH_HLEN <= VNETD_PATH_MTU_MIN_IPV6)
			return ASKED_NO;
		mtu = VNETD_PATH_MTU_MIN_IPV6;
	}
	return answer_allowed() && !answer6(skb, &ip, mtu) ? ASKED_ANSWERED : ASKED_IN_VAIN;
}

/* Returns VNETD_OK when the frame is to be fragmented instead. */
static __always_inline __u32 answer(struct __sk_buff *skb, struct encap *e, __u32 mtu, int *action)
{
	int asked = ASKED_NO;

	if (is_group_mac(e->frame.dst))
		return VNETD_OK;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		asked = try_answer4(skb, mtu);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		asked = try_answer6(skb, mtu);
	if (asked == ASKED_NO)
		return VNETD_OK;
	return asked == ASKED_ANSWERED ? answered(skb, e, action) : VNETD_DROP_TOO_BIG;
}

/* ---- fragments ---------------------------------------------------------------------------- */

/*
 * What is cut is always VUDP: behind EtherIP a receiver has no room for what makes the kernel hand a
 * reassembled packet back (bpf/lib/reassembly.h). What follows the IP header is of one length for
 * both families.
 */
#define CUT_HEADERS (sizeof(struct udphdr) + VNETD_VUDP_HDR_LEN)

/* All fragments of the packet, for one place. */
static __always_inline __u32 split(struct __sk_buff *skb, struct encap *e,
				   const struct vnetd_underlay *underlay, const union address *to,
				   __u32 mtu)
{
	__u32 payload = e->spec.inner_len + CUT_HEADERS, size = fragment_size(mtu);

	if (!fragments_fit(mtu, payload))
		return VNETD_DROP_TOO_BIG;
	if (to)
		write_outer_headers(&e->frame.outer, &e->spec, underlay, to);
	else
		write_group_headers(&e->frame.outer, &e->spec, underlay, e->vnet);
	if (underlay->family == VNETD_FAMILY_IPV6) {
		struct cut_note note = { .id = bpf_get_prandom_u32() };

		size = fragment_size6(mtu, payload);
		note.size = (__u16)size;
		__builtin_memcpy(e->frame.outer.udp6.eth.h_source, &note, sizeof(note));
	} else {
		e->frame.outer.udp4.ip.check = (__u16)size;
	}
	if (write_outer(skb, &e->frame, e->spec.form))
		return VNETD_DROP_ENCAP_FAILED;
	return fragment_copies(skb, underlay, payload, size);
}

static long split_for_device(__u32 index, void *context)
{
	struct device_walk *walk = context;
	struct vnetd_underlay *underlay = walked(walk, index);
	__u32 reason;

	if (!underlay)
		return 0;
	reason = split(walk->skb, encap_of(walk), underlay, NULL, underlay->mtu);
	if (reason) {
		walk->failed = reason;
		walk->missed |= underlay->flags;
	} else {
		walk->copied |= underlay->flags;
	}
	return 0;
}

/* Room for VUDP's headers; made is what there is in front of the frame already. */
static __always_inline __u32 make_room(struct __sk_buff *skb, struct encap *e, __u32 form,
				       __u32 made)
{
	__u32 room = room_of(form) - made;

	if (!made)
		room += e->frame.tags.count * TAG_LEN;
	e->spec.form = form;
	if (bpf_skb_change_head(skb, room, 0))
		return VNETD_DROP_NO_MEMORY;
	/* where there was room before, it is there already */
	if (!made && write_inner(skb, &e->frame, e->spec.form))
		return VNETD_DROP_ENCAP_FAILED;
	return VNETD_OK;
}

/* The packet, whole, for members and peers of a family: its room is there. */
static __always_inline bool split_for_peers(struct __sk_buff *skb, struct encap *e, __u32 place)
{
	struct vnetd_underlay *underlay = underlay_by_index(place & PLACE_INDEX);

	if (!underlay || !forward_wanted(underlay->family))
		return false;
	/* else it is there, but for what tells the size of a fragment */
	if (!(place & PLACE_SENDS)) {
		write_group_headers(&e->frame.outer, &e->spec, underlay, e->vnet);
		if (write_outer(skb, &e->frame, e->spec.form))
			return false;
	}
	forward_copy(skb, underlay->index, underlay->family);
	return true;
}

/* To the group of each family: the headers of IPv6 are the longer ones, so it is the second. */
static __always_inline __u32 split_for_group(struct __sk_buff *skb, struct encap *e,
					     const struct verdict *v)
{
	__u32 made = 0, reason;
	bool forwarded = false;

	e->walk.skb = skb;
	if (e->places.best4) {
		reason = make_room(skb, e, FORM_UDP4, 0);
		if (reason)
			return reason;
		e->walk.family = VNETD_FAMILY_IPV4;
		bpf_loop(VNETD_MAX_UNDERLAYS, split_for_device, &e->walk, 0);
		made = room_of(FORM_UDP4);
		forwarded = split_for_peers(skb, e, e->places.best4);
	}
	if (e->places.best6) {
		reason = make_room(skb, e, FORM_UDP6, made);
		if (reason)
			return reason;
		e->walk.family = VNETD_FAMILY_IPV6;
		bpf_loop(VNETD_MAX_UNDERLAYS, split_for_device, &e->walk, 0);
		if (split_for_peers(skb, e, e->places.best6))
			forwarded = true;
	}
	if (!((e->places.best4 | e->places.best6) & PLACE_SENDS))
		return forwarded ? VNETD_OK : VNETD_DROP_NO_RECEIVER;
	if (!e->walk.copied)
		return e->walk.failed;
	count_missed(&e->walk, v);
	return VNETD_OK;
}

/* The host may be an original, which takes no more than VNETD_ORIGINAL_MAX_PACKET in all. */
static __always_inline bool to_original(const struct encap *e)
{
	struct vnetd_nexthop *hop = e->to.underlay ? nexthop_by_id(e->to.nexthop) : NULL;

	return hop && path_to_original(hop);
}

static __always_inline __u32 oversize(struct __sk_buff *skb, struct encap *e, struct verdict *v,
				      int *action)
{
	__u32 slot = skb->mark & VNETD_MARK_VALUE, reason, largest, tags = skb->vlan_present;
	bool fits;

	skb->mark = VNETD_MARK_NONE;
	e->vnet = vnet_by_slot(slot);
	if (!e->vnet || !(e->vnet->flags & VNETD_VNET_UP) ||
	    e->vnet->security != VNETD_SECURITY_NONE)
		return VNETD_DROP_VNET_DOWN;
	count_begin(v, e->vnet->handle, slot);
	if (skb->gso_size || !frame_read(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;
	destination_of(e, v);
	find_places(&e->places, e->vnet->encap);
	if (!e->to.underlay && !(e->places.best4 | e->places.best6))
		return VNETD_DROP_NO_UNDERLAY;
	largest = e->to.underlay ? e->to.largest : e->places.largest;
	fits = skb->len + tags * TAG_LEN <= largest;

	if (!fits) {
		reason = answer(skb, e, largest - ETH_HLEN - tags * TAG_LEN, action);
		if (reason)
			return reason;
		/* in fragments it would arrive, and be too long */
		if (to_original(e) &&
		    skb->len + skb->vlan_present * TAG_LEN + VNETD_VUDP_IPV4_OVERHEAD >
			    VNETD_ORIGINAL_MAX_PACKET)
			return VNETD_DROP_TOO_BIG;
		if (v->traffic)
			v->traffic->fragmented[VNETD_DIR_ENCAP] += 1;
	}
	/* a piece of a super-frame that is not for a host alone: vnetd_encap counts it */
	if (fits && e->vnet->encap == VNETD_ENCAP_ETHERIP && !(e->to.underlay && is_ip(skb))) {
		v->traffic = NULL;
		skb->mark = VNETD_MARK_PIECE;
		*action = bpf_redirect(e->vnet->vnif_peer, BPF_F_INGRESS);
		return VNETD_OK;
	}
	e->spec.ip_id = next_ip_id(v);
	reason = prepare(skb, e, v);
	if (reason)
		return reason;
	/* a piece of a super-frame */
	if (fits && e->to.underlay && is_ip(skb))
		return to_host(skb, e, action);
	if (!e->to.underlay)
		return split_for_group(skb, e, v);
	reason = make_room(skb, e,
			   e->to.underlay->family == VNETD_FAMILY_IPV6 ? FORM_UDP6 : FORM_UDP4, 0);
	if (reason)
		return reason;
	e->spec.port = e->to.port;
	return split(skb, e, e->to.underlay, &e->to.host, e->to.mtu);
}

/*
 * A secure vnet's frame that is too large for the way to its host, or to one of all. Who wants to know is
 * told; else it goes back to vnetd_encap, which sends it whole: the kernel fragments what it has encrypted.
 * Nothing leaves from here.
 */
static __always_inline __u32 oversize_secure(struct __sk_buff *skb, struct encap *e,
					     struct verdict *v, int *action)
{
	__u32 slot = skb->mark & VNETD_MARK_VALUE, reason, tags = skb->vlan_present;

	skb->mark = VNETD_MARK_NONE;
	e->vnet = vnet_by_slot(slot);
	if (!e->vnet || !(e->vnet->flags & VNETD_VNET_UP) ||
	    e->vnet->security == VNETD_SECURITY_NONE)
		return VNETD_DROP_VNET_DOWN;
	count_begin(v, e->vnet->handle, slot);
	if (skb->gso_size || !frame_read(skb, &e->frame))
		return VNETD_DROP_ENCAP_FAILED;
	destination_of(e, v);
	if (!e->to.underlay)
		look_at_members(e, v->handle);
	else if (!secure_destination(e, v->handle))
		return VNETD_DROP_NO_KEYS;
	if (skb->len + tags * TAG_LEN > e->to.largest) {
		if (e->to.largest < ETH_HLEN + tags * TAG_LEN)
			return VNETD_DROP_TOO_BIG;
		reason = answer(skb, e, e->to.largest - ETH_HLEN - tags * TAG_LEN, action);
		if (reason)
			return reason;
		if (v->traffic)
			v->traffic->fragmented[VNETD_DIR_ENCAP] += 1;
	}
	/* counted when it comes back */
	v->traffic = NULL;
	skb->mark = VNETD_MARK_SECURE_WHOLE | (slot & VNETD_MARK_VALUE);
	*action = bpf_redirect(e->vnet->vnif_peer, BPF_F_INGRESS);
	return VNETD_OK;
}

static __always_inline int run(struct __sk_buff *skb, bool is_secure)
{
	struct encap e = {};
	struct verdict v = { .len = skb->len };
	int action = TC_ACT_SHOT;
	__u32 reason =
		is_secure ? oversize_secure(skb, &e, &v, &action) : oversize(skb, &e, &v, &action);

	/* an answer leaves although the frame was dropped */
	if (reason)
		drop(skb, &v, VNETD_DIR_ENCAP, reason);
	else
		count_forwarded(&v, VNETD_DIR_ENCAP);
	return action;
}

/* Functions of their own, so that the stack is not that of the program's other parts as well. */
SUBPROGRAM int run_oversize(struct __sk_buff *skb)
{
	return run(skb, false);
}

SUBPROGRAM int run_secure(struct __sk_buff *skb)
{
	return run(skb, true);
}

SUBPROGRAM int run_cut(struct __sk_buff *skb)
{
	__u32 len = skb->len, reason;
	int action = TC_ACT_SHOT;

	reason = fragment_cut(skb, &action);
	if (reason) {
		count_drop(0, VNETD_DIR_ENCAP, reason, len);
		watch_drop(skb, 0, VNETD_DIR_ENCAP, reason);
	}
	return action;
}

SEC("tc")
int vnetd_oversize(struct __sk_buff *skb)
{
	switch (skb->mark & VNETD_MARK_KIND) {
	case VNETD_MARK_FRAGMENT:
		return run_cut(skb);
	case VNETD_MARK_OVERSIZE:
		return run_oversize(skb);
	case VNETD_MARK_SECURE_LARGE:
		return run_secure(skb);
	default:
		count_drop(0, VNETD_DIR_ENCAP, VNETD_DROP_STALE_PASS, skb->len);
		watch_drop(skb, 0, VNETD_DIR_ENCAP, VNETD_DROP_STALE_PASS);
		return TC_ACT_SHOT;
	}
}

char LICENSE[] SEC("license") = "GPL";
