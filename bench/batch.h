/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark's senders share: the clock, and batches of packets that are handed to the kernel at once (sendmmsg),
 * so that the path and not the system calls is what is measured. To be included once, with _GNU_SOURCE.
 */
#pragma once

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
	BATCH = 64,
	MAX_BYTES = 2048,
};

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

/* All of them have the same buffers: there is one batch in a program. */
static inline void batch(struct mmsghdr messages[BATCH], struct iovec parts[BATCH], size_t bytes)
{
	static char buffers[BATCH][MAX_BYTES];

	memset(messages, 0, sizeof(*messages) * BATCH);
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ .iov_base = buffers[i], .iov_len = bytes };
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
}

/* The first `count` of a batch, all of them. */
static inline void send_all(int s, struct mmsghdr messages[BATCH], unsigned int count)
{
	unsigned int sent = 0;

	while (sent < count) {
		int n = sendmmsg(s, messages + sent, count - sent, 0);

		if (n < 0)
			fail("sendmmsg");
		sent += (unsigned int)n;
	}
}

/* Sleeps until so many may have been sent since start. */
static inline void pace(uint64_t start, uint64_t sent, uint64_t rate)
{
	uint64_t due = start + sent * 1000000000 / rate;
	struct timespec t = { .tv_sec = (time_t)(due / 1000000000),
			      .tv_nsec = (long)(due % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}
