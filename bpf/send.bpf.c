// SPDX-License-Identifier: GPL-2.0-only
/*
 * The daemon's own messages through a security association.
 *
 * Attached nowhere: the daemon runs it with BPF_PROG_TEST_RUN, on the xfrm interface, with a packet
 * between the addresses that name the SA. A socket would have to find its way there by a route, which
 * another route could take away from it, and the message would leave in clear.
 */
#include "lib/bpf.h"

SEC("tc")
int vnetd_send(struct __sk_buff *skb)
{
	skb->mark = VNETD_MARK_ESP;
	/* above 0: a full queue there, which is that device's loss */
	return bpf_clone_redirect(skb, skb->ifindex, 0) < 0 ? TC_ACT_SHOT : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
