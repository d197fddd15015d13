// SPDX-License-Identifier: GPL-2.0-only
/* Faults for offloads.test.ts: what a broken device would do to packets that are on their way in. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

/* behind Ethernet, IPv4, UDP, VUDP, Ethernet, IPv4 and TCP: of a payload */
#define PAYLOAD 120

static __always_inline int flip(struct __sk_buff *skb)
{
	__u8 byte;

	if (bpf_skb_load_bytes(skb, PAYLOAD, &byte, 1))
		return TC_ACT_UNSPEC;
	byte ^= 1;
	bpf_skb_store_bytes(skb, PAYLOAD, &byte, 1, 0);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int flip_all(struct __sk_buff *skb)
{
	return flip(skb);
}

SEC("tc")
int flip_super(struct __sk_buff *skb)
{
	return skb->gso_size ? flip(skb) : TC_ACT_UNSPEC;
}

SEC("tc")
int lose_large(struct __sk_buff *skb)
{
	return skb->len > 1000 && !skb->gso_size ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
