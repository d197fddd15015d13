/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A whole IP packet becomes fragments: one copy of it for each goes to the device on which it is,
 * once more, with a mark that says which fragment the copy is to be; there fragment_cut() makes it so.
 * For programs on the inner end of a helper veth pair. Shared by bpf/oversize.bpf.c and
 * bpf/relay.bpf.c.
 */
#ifndef VNETD_FRAGMENT_H
#define VNETD_FRAGMENT_H

#include "clear.h"
#include "copy.h"
#include "outer.h"

/* as many as a mark can number */
#define MAX_FRAGMENTS (1 << VNETD_MARK_FRAGMENT_SHIFT)
/* what one call of bpf_skb_adjust_room may take away */
#define MAX_SHRINK 4088

/* A fragment of a packet whose tail cannot be cut: as much as a device's MTU may be. */
struct piece {
	__u8 bytes[16384];
};

VNETD_MAP(piece, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct piece, 1, 0);

/* Takes bytes away behind an IP header without options. */
CHECKED_ONCE int shrink(struct __sk_buff *skb, __u32 bytes)
{
	for (int i = 0; i < 0xffff / MAX_SHRINK + 1; i++) {
		__u32 now = bytes > MAX_SHRINK ? MAX_SHRINK : bytes;

		if (!now)
			break;
		if (bpf_skb_adjust_room(skb, -(__s32)now, BPF_ADJ_ROOM_NET, 0))
			return -1;
		bytes -= now;
	}
	return 0;
}

/*
 * Shortens an IP packet that is to be written anew. The kernel does not cut the tail of one that it
 * knows to be encapsulated (a VXLAN packet of a guest, the packet of a vnet on top of this one).
 */
static __always_inline long shorten(struct __sk_buff *skb, __u32 len)
{
	if (likely(!bpf_skb_change_tail(skb, len, 0)))
		return 0;
	return skb->len > len ? shrink(skb, skb->len - len) : -1;
}

/* Leaves `len` bytes from `start` on of what is behind the headers, as shorten() would. */
CHECKED_ONCE int keep_piece(struct __sk_buff *skb, __u32 headers, __u32 start, __u32 len)
{
	__u32 zero = 0, offset = headers + start, last = (len - 1) & (sizeof(struct piece) - 1);
	struct piece *room = bpf_map_lookup_elem(&piece, &zero);

	if (!room || offset > 0xffff || last + 1 != len || skb->len < headers + len)
		return -1;
	/* a mask, which no verifier loses sight of */
	barrier_var(last);
	last &= sizeof(struct piece) - 1;
	if (bpf_skb_load_bytes(skb, offset, room->bytes, last + 1) ||
	    shrink(skb, skb->len - headers - last - 1))
		return -1;
	barrier_var(last);
	last &= sizeof(struct piece) - 1;
	return bpf_skb_store_bytes(skb, headers, room->bytes, last + 1, 0);
}

/* Payload bytes of a fragment that is not the last (RFC 791 section 3.2). */
static __always_inline __u32 fragment_size(__u32 mtu)
{
	return (mtu - sizeof(struct iphdr)) & ~7U;
}

/* Over IPv6 there is a fragment header as well, but not in a packet that fits. */
static __always_inline __u32 fragment_size6(__u32 mtu, __u32 payload)
{
	if (payload + sizeof(struct ipv6hdr) <= mtu)
		return payload;
	return (mtu - sizeof(struct ipv6hdr) - sizeof(struct ipv6_fragment)) & ~7U;
}

/* Whether an IP payload of so many bytes can leave in fragments of at most mtu. */
static __always_inline bool fragments_fit(__u32 mtu, __u32 payload)
{
	return mtu >= 68 && payload <= fragment_size(mtu) * MAX_FRAGMENTS;
}

struct split_walk {
	struct __sk_buff *skb;
	__u32 payload;
	__u32 size;
	__u32 index;
	__u32 sent;
};

/* A callback of bpf_loop: a copy that knows which fragment it is to be. */
static long copy_fragment(__u32 number, void *context)
{
	struct split_walk *walk = context;

	if (number * walk->size >= walk->payload)
		return 1;
	walk->skb->mark = VNETD_MARK_FRAGMENT | (number & (MAX_FRAGMENTS - 1)) |
			  (walk->index & 7) << VNETD_MARK_FRAGMENT_SHIFT;
	if (copy_redirect(walk->skb, walk->skb->ifindex, BPF_F_INGRESS) == 0)
		walk->sent += 1;
	return 0;
}

/*
 * A copy for each fragment of the packet, whose IP payload is so long. Each copy is told the size of a
 * fragment in place of the IPv4 header's checksum, where the caller has written it; that is made anew
 * for each; or in a note (below).
 */
static __always_inline __u32 fragment_copies(struct __sk_buff *skb,
					     const struct vnetd_underlay *underlay, __u32 payload,
					     __u32 size)
{
	struct split_walk walk = {
		.skb = skb,
		.payload = payload,
		.size = size,
		.index = underlay->index,
	};

	bpf_loop(MAX_FRAGMENTS, copy_fragment, &walk, 0);
	/* the receiver can do nothing with some of them */
	return walk.sent * walk.size >= walk.payload ? VNETD_OK : VNETD_DROP_NO_MEMORY;
}

/* What goes to fragment_cut() in the place of IPv6's source MAC: there is no id in its header, nor a checksum. */
struct cut_note {
	__be32 id;
	__u16 size;
} VNETD_PACKED;

_Static_assert(sizeof(struct cut_note) == ETH_ALEN, "a MAC");

/* Tells the copies of a packet the size of a fragment, where its headers are written already. */
static __always_inline int note_size(struct __sk_buff *skb, __u16 size, bool is_ipv6)
{
	struct cut_note note = { .id = bpf_get_prandom_u32(), .size = size };

	return is_ipv6 ? bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), &note,
					     sizeof(note), 0)
		       : bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, check), &size,
					     sizeof(size), 0);
}

/* Which bytes behind the IP header a copy keeps. */
struct cut_range {
	__u32 start;
	__u32 end;
	__u32 payload;
};

/* False where no such fragment can be, of a packet of ours. */
static __always_inline bool cut_range(struct cut_range *range, __u32 number, __u32 size,
				      __u32 payload)
{
	range->payload = payload;
	range->start = number * size;
	range->end = range->start + size;
	if (range->end > payload)
		range->end = payload;
	return size >= 8 && range->start < payload;
}

/* Leaves the range alone behind an IP header. */
static __always_inline __u32 cut_out(struct __sk_buff *skb, __u32 ip_len,
				     const struct cut_range *range)
{
	long failed;

	if (range->end == range->payload ||
	    likely(!bpf_skb_change_tail(skb, ETH_HLEN + ip_len + range->end, 0)))
		failed = shrink(skb, range->start);
	else
		failed =
			keep_piece(skb, ETH_HLEN + ip_len, range->start, range->end - range->start);
	return failed ? VNETD_DROP_NO_MEMORY : VNETD_OK;
}

static __always_inline __u32 cut4(struct __sk_buff *skb, __u32 number,
				  struct vnetd_underlay *underlay)
{
	struct cut_range range;
	struct iphdr ip;
	__u32 size;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.ihl != 5)
		return VNETD_DROP_STALE_PASS;
	size = ip.check;
	if (size & 7 || size > fragment_size(underlay->mtu) ||
	    !cut_range(&range, number, size, bpf_ntohs(ip.tot_len) - sizeof(ip)))
		return VNETD_DROP_STALE_PASS;
	ip.frag_off = bpf_htons(range.start / 8);
	if (range.end < range.payload)
		ip.frag_off |= bpf_htons(IPV4_MF);
	if (cut_out(skb, sizeof(ip), &range))
		return VNETD_DROP_NO_MEMORY;
	ip.tot_len = bpf_htons(sizeof(ip) + range.end - range.start);
	ip.check = 0;
	ip.check = ipv4_checksum(&ip);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

SUBPROGRAM int cut6(struct __sk_buff *skb, __u32 number, struct vnetd_underlay *underlay)
{
	struct {
		struct ethhdr eth;
		struct ipv6hdr ip;
		struct ipv6_fragment fragment;
	} VNETD_PACKED head = {};
	struct cut_range range;
	struct cut_note note;

	if (!underlay)
		return VNETD_DROP_STALE_PASS;
	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(skb, 0, &head, ETH_HLEN + sizeof(head.ip)))
		return VNETD_DROP_STALE_PASS;
	__builtin_memcpy(&note, head.eth.h_source, sizeof(note));
	if (!cut_range(&range, number, note.size, bpf_ntohs(head.ip.payload_len)))
		return VNETD_DROP_STALE_PASS;
	__builtin_memcpy(head.eth.h_source, underlay->mac, ETH_ALEN);
	/* a packet that fits is no fragment (RFC 8021) */
	if (!range.start && range.end == range.payload)
		return bpf_skb_store_bytes(skb, 0, &head, ETH_HLEN, 0) ? VNETD_DROP_NO_MEMORY
								       : VNETD_OK;
	if (note.size & 7)
		return VNETD_DROP_STALE_PASS;
	head.fragment.id = note.id;
	head.fragment.offset = bpf_htons(range.start);
	if (range.end < range.payload)
		head.fragment.offset |= bpf_htons(IPV6_MORE);
	if (cut_out(skb, sizeof(head.ip), &range) ||
	    bpf_skb_adjust_room(skb, sizeof(head.fragment), BPF_ADJ_ROOM_NET, 0))
		return VNETD_DROP_NO_MEMORY;
	head.fragment.nexthdr = head.ip.nexthdr;
	head.ip.nexthdr = IPPROTO_FRAGMENT;
	head.ip.payload_len = bpf_htons(sizeof(head.fragment) + range.end - range.start);
	if (bpf_skb_store_bytes(skb, 0, &head, sizeof(head), 0))
		return VNETD_DROP_NO_MEMORY;
	return VNETD_OK;
}

/* The copy of a whole packet becomes one fragment of it, and leaves. */
static __always_inline __u32 fragment_cut(struct __sk_buff *skb, int *action)
{
	__u32 number = skb->mark & (MAX_FRAGMENTS - 1), reason;
	struct vnetd_underlay *underlay =
		underlay_by_index(skb->mark >> VNETD_MARK_FRAGMENT_SHIFT & 7);
	__u32 ifindex, ip_len, inside;
	__u8 first;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay)
		return VNETD_DROP_STALE_PASS;
	ifindex = underlay->ifindex;
	ip_len = underlay->family == VNETD_FAMILY_IPV6 ? sizeof(struct ipv6hdr)
						       : sizeof(struct iphdr);
	inside = underlay->family == VNETD_FAMILY_IPV6 ? VNETD_VFWD_IPV6_HDR_LEN
						       : VNETD_VFWD_HDR_LEN;
	if (carries_secure(skb, ETH_HLEN + ip_len + sizeof(struct udphdr), inside))
		return VNETD_DROP_SECURITY;
	if (underlay->family == VNETD_FAMILY_IPV6)
		reason = cut6(skb, number, underlay);
	else
		reason = cut4(skb, number, underlay);
	if (reason)
		return reason;
	if (bpf_skb_load_bytes(skb, 0, &first, 1))
		return VNETD_DROP_NO_MEMORY;
	/* the group's MAC is written; a host's is found by its address */
	*action = first & 1 ? bpf_redirect(ifindex, 0) : bpf_redirect_neigh(ifindex, NULL, 0, 0);
	return VNETD_OK;
}

#endif
