/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A whole IPv4 packet becomes fragments: one copy of it for each goes to the device on which it is,
 * once more, with a mark that says which fragment the copy is to be; there fragment_cut() makes it so.
 * For programs on the inner end of a helper veth pair. Shared by bpf/oversize.bpf.c and
 * bpf/relay.bpf.c.
 */
#ifndef VNETD_FRAGMENT_H
#define VNETD_FRAGMENT_H

#include "outer.h"

#define ETH_IP4_MIN (ETH_HLEN + sizeof(struct iphdr))
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
static __always_inline long shrink(struct __sk_buff *skb, __u32 bytes)
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

/* Leaves `len` bytes from `start` on of what is behind the IP header, as shorten() would. */
SUBPROGRAM long keep_piece(struct __sk_buff *skb, __u32 start, __u32 len)
{
	__u32 zero = 0, offset = ETH_IP4_MIN + start, last = (len - 1) & (sizeof(struct piece) - 1);
	struct piece *room = bpf_map_lookup_elem(&piece, &zero);

	if (!room || offset > 0xffff || last + 1 != len || skb->len < ETH_IP4_MIN + len)
		return -1;
	/* a mask, which no verifier loses sight of */
	barrier_var(last);
	last &= sizeof(struct piece) - 1;
	if (bpf_skb_load_bytes(skb, offset, room->bytes, last + 1) ||
	    shrink(skb, skb->len - ETH_IP4_MIN - last - 1))
		return -1;
	barrier_var(last);
	last &= sizeof(struct piece) - 1;
	return bpf_skb_store_bytes(skb, ETH_IP4_MIN, room->bytes, last + 1, 0);
}

/* Payload bytes of a fragment that is not the last (RFC 791 section 3.2). */
static __always_inline __u32 fragment_size(__u32 mtu)
{
	return (mtu - sizeof(struct iphdr)) & ~7U;
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
	if (bpf_clone_redirect(walk->skb, walk->skb->ifindex, BPF_F_INGRESS) == 0)
		walk->sent += 1;
	return 0;
}

/*
 * A copy for each fragment of the packet, whose IP payload is so long. Each copy is told the size of a
 * fragment in place of the header's checksum, where the caller has written it; that is made anew for
 * each.
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

/* To the group as it is; to a host by the kernel's route and neighbour. */
static __always_inline int leave(const struct vnetd_underlay *underlay, __be32 destination)
{
	if (ipv4_is_multicast(destination))
		return bpf_redirect(underlay->ifindex, 0);
	return bpf_redirect_neigh(underlay->ifindex, NULL, 0, 0);
}

/* The copy of a whole packet becomes one fragment of it. */
static __always_inline __u32 fragment_cut(struct __sk_buff *skb, int *action)
{
	__u32 number = skb->mark & (MAX_FRAGMENTS - 1), size, start, end, payload;
	struct vnetd_underlay *underlay =
		underlay_by_index(skb->mark >> VNETD_MARK_FRAGMENT_SHIFT & 7);
	struct iphdr ip;
	long failed;

	skb->mark = VNETD_MARK_NONE;
	if (!underlay || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return VNETD_DROP_STALE_PASS;
	payload = bpf_ntohs(ip.tot_len) - sizeof(ip);
	size = ip.check;
	if (size < 8 || size & 7 || size > fragment_size(underlay->mtu))
		return VNETD_DROP_STALE_PASS;
	start = number * size;
	end = start + size;
	if (start >= payload || ip.ihl != 5)
		return VNETD_DROP_STALE_PASS;
	if (end >= payload) {
		end = payload;
		ip.frag_off = bpf_htons(start / 8);
		failed = shrink(skb, start);
	} else {
		ip.frag_off = bpf_htons(IPV4_MF | start / 8);
		if (likely(!bpf_skb_change_tail(skb, ETH_IP4_MIN + end, 0)))
			failed = shrink(skb, start);
		else
			failed = keep_piece(skb, start, size);
	}
	if (failed)
		return VNETD_DROP_NO_MEMORY;
	ip.tot_len = bpf_htons(sizeof(ip) + end - start);
	ip.check = 0;
	ip.check = ipv4_checksum(&ip);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0))
		return VNETD_DROP_NO_MEMORY;
	*action = leave(underlay, ip.daddr);
	return VNETD_OK;
}

#endif
