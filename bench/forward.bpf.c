// SPDX-License-Identifier: GPL-2.0-only
/*
 * What makes and counts the frames of bench/forward.c, so that no socket is in the way of what is measured.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} way_out SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

/* A test run with live frames makes packets of these; they are received as if from the device. Also what a test run of XDP takes by itself. */
SEC("xdp")
int inject(struct xdp_md *frame)
{
	return XDP_PASS;
}

/* Out of the device that way_out names. */
SEC("tc")
int pass_on(struct __sk_buff *skb)
{
	__u32 zero = 0, *ifindex = bpf_map_lookup_elem(&way_out, &zero);

	return ifindex ? bpf_redirect(*ifindex, 0) : TC_ACT_SHOT;
}

SEC("tc")
int count(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *frames = bpf_map_lookup_elem(&arrived, &zero);

	if (frames)
		*frames += 1;
	return TC_ACT_SHOT;
}

/* What a test run takes by itself. */
SEC("tc")
int nothing(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
