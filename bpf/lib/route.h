/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a host is on the link, by the kernel's routes.
 *
 * bpf_redirect_neigh() looks up a route for each packet, a tenth of all that a small packet costs. Where the host is on
 * the link, its neighbour is the host itself and need only be named. So while frames go to a host, its route is asked
 * for once in a tick of the coarse clock (1 to 10 ms), and the answer holds for the frames of that tick: a route that
 * changes is followed within one. What comes alone pays for no question.
 *
 * bpf_fib_lookup() answers as for a packet that came by a device for which the kernel forwards; that is one of ours on
 * which nothing ever comes (vn-segment0). Where it says anything but "on the link, by this device" (a router, another
 * device, no route, Linux before 6.3), the route is looked up for each packet as ever.
 */
#ifndef VNETD_ROUTE_H
#define VNETD_ROUTE_H

#include "outer.h"

/* hop->route: the time in units of 2^20 ns, about a millisecond, << 1 | whether the host is on the link */
#define ROUTE_TICK_SHIFT 20
#define ROUTE_ON_LINK 1U
/* nobody sent for so long: the next frame may be alone */
#define ROUTE_QUIET_TICKS 64
/* of AF_INET; the kernel's header is not one for BPF programs */
#define ROUTE_FAMILY_INET 2
/* Linux 6.3 */
#define ROUTE_SKIP_NEIGH (1U << 3)

/* Of IPv4. */
SUBPROGRAM bool route_ask(struct __sk_buff *skb, const struct vnetd_nexthop *hop,
			  const struct vnetd_underlay *underlay)
{
	__u32 zero = 0;
	struct vnetd_meta *m = bpf_map_lookup_elem(&meta, &zero);
	struct bpf_fib_lookup fib = {
		.family = ROUTE_FAMILY_INET,
		.l4_protocol = IPPROTO_UDP,
		/* or the packet is held against the device's MTU */
		.tot_len = 1,
	};

	if (!m || !m->segment_out || !hop || !underlay)
		return false;
	fib.ifindex = m->segment_out;
	fib.ipv4_src = ipv4_of(underlay->addr);
	fib.ipv4_dst = ipv4_of(hop->key.addr);
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), ROUTE_SKIP_NEIGH))
		return false;
	return fib.ifindex == underlay->ifindex && fib.ipv4_dst == ipv4_of(hop->key.addr);
}

/* Whether packets to the host are given to the host itself. */
static __always_inline bool route_on_link(struct __sk_buff *skb, __u32 nexthop,
					  const struct vnetd_underlay *underlay)
{
	struct vnetd_nexthop *hop = nexthop_by_id(nexthop);
	__u32 tick, last;

	if (!hop || underlay->family != VNETD_FAMILY_IPV4)
		return false;
	tick = (__u32)(now_ns() >> ROUTE_TICK_SHIFT) << 1;
	last = hop->route;
	if (likely((last & ~ROUTE_ON_LINK) == tick))
		return last & ROUTE_ON_LINK;
	if (tick - last <= ROUTE_QUIET_TICKS << 1 && route_ask(skb, hop, underlay))
		tick |= ROUTE_ON_LINK;
	hop->route = tick;
	return tick & ROUTE_ON_LINK;
}

#endif
