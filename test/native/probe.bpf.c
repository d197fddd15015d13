// SPDX-License-Identifier: GPL-2.0-only
/* Programs and maps of every kind that the tests of the native addon load. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#ifndef TABLE_VALUE_BYTES
#define TABLE_VALUE_BYTES 16
#endif

struct wide_key {
	__u8 bytes[22];
};

struct table_value {
	__u8 bytes[TABLE_VALUE_BYTES];
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct prefix_key {
	__u32 length;
	__u8 bytes[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct wide_key);
	__type(value, struct table_value);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct counter);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 20000);
	__type(key, __u32);
	__type(value, __u32);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, __u32);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u32);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__type(value, __u32);
} work SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

const volatile __u32 verdict = 7;
const volatile __u64 magic = 1;
__u64 calls;

/* counts, adds one to the mark, stores the magic, returns the verdict */
SEC("tc")
int probe_count(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct counter *counter = bpf_map_lookup_elem(&counters, &key);
	struct table_value value = {};
	struct wide_key wide = {};
	__u64 number = magic;

	if (counter) {
		counter->packets++;
		counter->bytes += skb->len;
	}
	__builtin_memcpy(value.bytes, &number, 8);
	bpf_map_update_elem(&table, &wide, &value, BPF_ANY);
	calls++;
	skb->mark++;
	return verdict;
}

/* the beginning of the packet into the ring, with a sequence number before it */
SEC("tc")
int probe_record(struct __sk_buff *skb)
{
	struct {
		__u64 sequence;
		__u8 packet[40];
	} record = {};

	record.sequence = calls++;
	bpf_skb_load_bytes(skb, 0, record.packet, sizeof(record.packet));
	bpf_ringbuf_output(&events, &record, sizeof(record), 0);
	return TC_ACT_OK;
}

/* 100 bytes longer */
SEC("tc")
int probe_grow(struct __sk_buff *skb)
{
	bpf_skb_change_tail(skb, skb->len + 100, 0);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int probe_drop(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
