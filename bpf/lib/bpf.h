/* SPDX-License-Identifier: GPL-2.0-only */
/* What every program includes first: the kernel's types, libbpf's helpers, our headers. */
#ifndef VNETD_BPF_H
#define VNETD_BPF_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "vnetd/maps.h"
#include "vnetd/marks.h"
#include "vnetd/reasons.h"
#include "vnetd/wire.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* verified once and called, where inlining would grow a program for a rare case */
#define SUBPROGRAM static __noinline __attribute__((unused))

/*
 * A global function: the verifier looks at it once, whatever its callers know, and what it returns is
 * unknown to them. So what follows a call is walked once, and not once for each result. Structs that it
 * is handed hold no pointers, and the pointers to them are tested for NULL.
 */
#define CHECKED_ONCE __weak __noinline

/* The same value, of which the verifier knows nothing: it walks what follows once, and not once for each constant. */
CHECKED_ONCE __u32 any_value(__u32 value)
{
	return value;
}

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000ULL

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* The kernel's time for everything that ages: cheap, a few milliseconds coarse. */
static __always_inline __u64 now_ns(void)
{
	return bpf_ktime_get_coarse_ns();
}

#endif
