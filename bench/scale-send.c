// SPDX-License-Identifier: Apache-2.0
/*
 * What bench/scale.mjs sends, where Node would be what is measured:
 *
 *   scale-send frames DEVICE COUNT FIRST     a broadcast frame of each of so many MACs, from number FIRST on
 *   scale-send varp OWN TO PORT VNET OPCODE FIRST COUNT RATE
 *                                            plain VARP, so many messages a second: requests for the MAC of number
 *                                            FIRST (OPCODE 1), or announces of each of COUNT (2)
 *   scale-send replay DEVICE RATE              Ethernet frames from stdin, so many a second: 2 bytes, big endian, say how
 *                                            long each is
 *
 * Prints one line of JSON: how many, and in how many seconds. Exit code 1: a system call failed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>

#include "batch.h"

enum {
	FRAME_BYTES = 60,
	VARP_BYTES = 43,
	/* an EtherType for experiments (IEEE 802) */
	ETHERTYPE = 0x88b5,
};

/* a small number is that of a MAC which nobody else has */
static void write_mac(uint8_t *mac, uint64_t number)
{
	if (!(number >> 40))
		number |= 2ULL << 40;
	for (int i = 5; i >= 0; i--, number >>= 8)
		mac[i] = (uint8_t)number;
}

/* All of a batch go to the same address. */
static void batch_to(struct mmsghdr messages[BATCH], void *to, socklen_t to_len)
{
	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_name = to;
		messages[i].msg_hdr.msg_namelen = to_len;
	}
}

static void said(uint64_t count, uint64_t start)
{
	printf("{\"count\":%llu,\"seconds\":%.3f}\n", (unsigned long long)count,
	       (double)(now_ns() - start) / 1e9);
}

static int frames(char **argv)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = 6 };
	uint64_t count = strtoull(argv[1], NULL, 0), first = strtoull(argv[2], NULL, 0);
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	uint64_t start;

	to.sll_ifindex = (int)if_nametoindex(argv[0]);
	if (fd < 0 || !to.sll_ifindex)
		fail(argv[0]);
	batch(messages, parts, FRAME_BYTES);
	batch_to(messages, &to, sizeof(to));
	start = now_ns();
	for (uint64_t at = 0; at < count; at += BATCH) {
		unsigned n = count - at < BATCH ? (unsigned)(count - at) : BATCH;

		for (unsigned i = 0; i < n; i++) {
			uint8_t *frame = parts[i].iov_base;

			memset(frame, 0xff, 6);
			write_mac(frame + 6, first + at + i);
			frame[12] = ETHERTYPE >> 8;
			frame[13] = ETHERTYPE & 0xff;
		}
		send_all(fd, messages, n);
	}
	said(count, start);
	return 0;
}

/* OWN TO PORT VNET OPCODE FIRST COUNT RATE */
static int varp(char **argv)
{
	struct sockaddr_in own = { .sin_family = AF_INET }, to = own;
	uint64_t first = strtoull(argv[5], NULL, 0), count = strtoull(argv[6], NULL, 0);
	uint8_t opcode = (uint8_t)atoi(argv[4]), message[VARP_BYTES] = { 0, 1, 0, opcode };
	uint64_t start, rate = strtoull(argv[7], NULL, 0);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];

	if (inet_pton(AF_INET, argv[0], &own.sin_addr) != 1 ||
	    inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		fail("address");
	to.sin_port = htons((uint16_t)atoi(argv[2]));
	errno = EINVAL;
	if (!rate)
		fail("RATE");
	if (fd < 0 || bind(fd, (void *)&own, sizeof(own)) ||
	    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &own.sin_addr, sizeof(own.sin_addr)))
		fail("socket");
	for (int i = 0; i < 16; i++)
		sscanf(argv[3] + i * 2, "%2hhx", &message[4 + i]);
	message[26] = AF_INET;
	memcpy(message + 27, &own.sin_addr, 4);
	batch(messages, parts, VARP_BYTES);
	batch_to(messages, &to, sizeof(to));
	start = now_ns();
	for (uint64_t at = 0; at < count; at += BATCH) {
		unsigned n = count - at < BATCH ? (unsigned)(count - at) : BATCH;

		for (unsigned i = 0; i < n; i++) {
			memcpy(parts[i].iov_base, message, VARP_BYTES);
			write_mac((uint8_t *)parts[i].iov_base + 20,
				  opcode == 1 ? first : first + at + i);
		}
		pace(start, at, rate);
		send_all(fd, messages, n);
	}
	said(count, start);
	return 0;
}

/* The next frame, or no bytes at the end. */
static size_t next_frame(uint8_t *frame)
{
	uint8_t head[2];
	size_t len;

	if (fread(head, sizeof(head), 1, stdin) != 1)
		return 0;
	len = (size_t)head[0] << 8 | head[1];
	errno = EMSGSIZE;
	if (len > MAX_BYTES || fread(frame, len, 1, stdin) != 1)
		fail("stdin");
	return len;
}

/* DEVICE RATE */
static int replay(char **argv)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = 6 };
	uint64_t start, sent = 0, rate = strtoull(argv[1], NULL, 0);
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	unsigned n = BATCH;

	to.sll_ifindex = (int)if_nametoindex(argv[0]);
	if (fd < 0 || !to.sll_ifindex)
		fail(argv[0]);
	errno = EINVAL;
	if (!rate)
		fail("RATE");
	batch(messages, parts, MAX_BYTES);
	batch_to(messages, &to, sizeof(to));
	start = now_ns();
	while (n == BATCH) {
		for (n = 0; n < BATCH; n++) {
			parts[n].iov_len = next_frame(parts[n].iov_base);
			if (!parts[n].iov_len)
				break;
		}
		pace(start, sent, rate);
		send_all(fd, messages, n);
		sent += n;
	}
	said(sent, start);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "frames"))
		return frames(argv + 2);
	if (argc == 10 && !strcmp(argv[1], "varp"))
		return varp(argv + 2);
	if (argc == 4 && !strcmp(argv[1], "replay"))
		return replay(argv + 2);
	fprintf(stderr, "usage: scale-send frames DEVICE COUNT FIRST | "
			"varp OWN TO PORT VNET OPCODE FIRST COUNT RATE | replay DEVICE RATE\n");
	return 2;
}
