// SPDX-License-Identifier: GPL-2.0-only
/* A program that no verifier accepts: it reads the packet without a bound. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} refused_map SEC(".maps");

SEC("tc")
int refused(struct __sk_buff *skb)
{
	__u32 key = 0;

	bpf_map_lookup_elem(&refused_map, &key);
	return *(__u32 *)(long)skb->data;
}

char LICENSE[] SEC("license") = "GPL";
