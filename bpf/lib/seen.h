/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies of one group message, where several forwarders bring it to a subnet: the first counts.
 *
 * Only what comes from sources that are not on the subnet is looked at, so an ordinary LAN pays
 * nothing. A message is known by its source, a hash of all of it, and the IPv4 id of the group packet
 * that it was, or what its IPv6 flow label holds: two equal frames that a guest sends one after the
 * other have different ids and both pass. Hosts of ours hand the id on. Originals do not always: what they hear they forward with an
 * empty inner header, and what they send themselves goes to peers without an id and is given one by the
 * kernel of each original that sends it on. So the ids of what an original sent mean nothing, and a
 * copy of that, or one without an id, is compared by source and hash alone, for a time that is as
 * short as copies are apart. An original is known by the port that it sends from.
 */
#ifndef VNETD_SEEN_H
#define VNETD_SEEN_H

#include "outer.h"

#define SEEN_NS 1000000000ULL
#define SEEN_WITHOUT_ID_NS 200000000ULL
/* shorter than the shortest message: 22 bytes and an Ethernet header */
#define HASH_CHUNK 32
#define HASH_MULTIPLIER 0x9e3779b97f4a7c15ULL

VNETD_MAP(seen, BPF_MAP_TYPE_LRU_HASH, struct vnetd_seen_key, struct vnetd_seen, VNETD_MAX_SEEN, 0);

struct hash_walk {
	struct __sk_buff *skb;
	__u32 offset;
	__u32 len;
	__u64 hash;
};

/* A callback of bpf_loop. The last chunk overlaps the one before it: all are of the same length. */
static long hash_chunk(__u32 number, void *context)
{
	struct hash_walk *walk = context;
	__u32 at = number * HASH_CHUNK;
	__u64 words[HASH_CHUNK / 8];

	if (at >= walk->len)
		return 1;
	if (at + HASH_CHUNK > walk->len)
		at = walk->len - HASH_CHUNK;
	if (bpf_skb_load_bytes(walk->skb, walk->offset + at, words, sizeof(words)))
		return 1;
#pragma unroll
	for (int i = 0; i < HASH_CHUNK / 8; i++) {
		walk->hash = (walk->hash ^ words[i]) * HASH_MULTIPLIER;
		walk->hash ^= walk->hash >> 32;
	}
	return 0;
}

/*
 * Enters the key unless it is there and no older than the window. Of two CPUs that have a copy each,
 * one wins. Returns whether it was entered.
 */
static __always_inline bool seen_claim(const struct vnetd_seen_key *key,
				       const struct vnetd_seen *entry, __u64 window_ns)
{
	struct vnetd_seen *old = bpf_map_lookup_elem(&seen, key);
	__u64 time;

	if (!old)
		return bpf_map_update_elem(&seen, key, entry, BPF_NOEXIST) == 0;
	time = old->time_ns;
	if ((__s64)(entry->time_ns - time) < (__s64)window_ns)
		return false;
	if (__sync_val_compare_and_swap(&old->time_ns, time, entry->time_ns) != time)
		return false;
	old->without_id = entry->without_id;
	return true;
}

/* The message that begins at an offset of the packet, and the packet's number or 0: it has none. */
struct group_message {
	__u32 offset;
	__u32 len;
	union address source;
	__u16 ip_id;
};

/*
 * Whether an original sent the message, or a daemon: from the port that it sends to. Frames of ours
 * come from others (outer_end()). The UDP header is right in front of the message.
 */
static __always_inline bool from_the_port(struct __sk_buff *skb, __u32 offset)
{
	struct {
		__be16 source;
		__be16 dest;
	} ports;

	return !bpf_skb_load_bytes(skb, offset - sizeof(struct udphdr), &ports, sizeof(ports)) &&
	       ports.source == ports.dest;
}

/* Whether a copy of the message came before this one. */
SUBPROGRAM bool seen_before(struct __sk_buff *skb, const struct group_message *message)
{
	struct hash_walk walk = { .skb = skb, .offset = message->offset, .len = message->len };
	struct vnetd_seen_key key = { .len = message->len };
	/* exact: the coarse clock's steps are as long as copies are apart */
	struct vnetd_seen entry = { .time_ns = bpf_ktime_get_ns() }, *any;
	bool is_new, recent;

	if (message->len < HASH_CHUNK)
		return false;
	bpf_loop(0x10000 / HASH_CHUNK, hash_chunk, &walk, 0);
	__builtin_memcpy(key.source, &message->source, sizeof(key.source));
	key.hash = walk.hash;
	if (!message->ip_id || from_the_port(skb, message->offset)) {
		entry.without_id = 1;
		return !seen_claim(&key, &entry, SEEN_WITHOUT_ID_NS);
	}
	key.ip_id = message->ip_id;
	is_new = seen_claim(&key, &entry, SEEN_NS);
	key.ip_id = 0;
	any = bpf_map_lookup_elem(&seen, &key);
	recent = any && (__s64)(entry.time_ns - any->time_ns) < (__s64)SEEN_WITHOUT_ID_NS;
	if (!is_new || (recent && any->without_id))
		return true;
	/* for copies without an id that come after */
	bpf_map_update_elem(&seen, &key, &entry, BPF_ANY);
	return false;
}

#endif
