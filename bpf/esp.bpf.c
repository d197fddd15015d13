// SPDX-License-Identifier: GPL-2.0-only
/* What the kernel has decrypted, on the TC ingress of an underlay device's xfrm interface. */
#include "lib/count.h"

SEC("tc")
int vnetd_esp(struct __sk_buff *skb)
{
	count_drop(0, VNETD_DIR_DECAP, VNETD_DROP_ESP_UNKNOWN, skb->len);
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
