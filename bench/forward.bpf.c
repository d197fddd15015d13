// SPDX-License-Identifier: GPL-2.0-only
/*
 * What makes and counts the frames of bench/forward.c, so that no socket is in the way of what is measured.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

/* a frame that is changed on its way is shorter; a power of two */
#define MAX_WRITTEN 128

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

/* What the kernel has made of a frame's memory it keeps for the next: what is to be the same is written each time. */
struct whole_frame {
	__u32 length;
	__u8 bytes[MAX_WRITTEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct whole_frame);
} written SEC(".maps");

SEC("xdp")
int inject_written(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 length;
	struct whole_frame *frame = bpf_map_lookup_elem(&written, &zero);

	if (!frame)
		return XDP_DROP;
	/* the verifier sees that it fits */
	length = frame->length & (MAX_WRITTEN - 1);
	asm volatile("" : "+r"(length));
	if (!length || bpf_xdp_store_bytes(ctx, 0, frame->bytes, length))
		return XDP_DROP;
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
