/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loses one packet in a hundred, at random: what netem would do where the kernel has none. bench/fleet.mjs puts it on the
 * ports of the switch that joins its hosts.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int lose(struct __sk_buff *skb)
{
	return bpf_get_prandom_u32() < 0xffffffffu / 100 ? TC_ACT_SHOT : TC_ACT_OK;
}

char _license[] SEC("license") = "GPL";
