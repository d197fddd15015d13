// SPDX-License-Identifier: Apache-2.0
/*
 * The benchmark's own traffic, where the usual tools are too slow or too coarse to tell two data
 * planes apart:
 *
 *   packets send ADDRESS PORT BYTES SECONDS [RATE]  UDP datagrams as fast as one core makes them, or so many a second
 *   packets receive PORT SECONDS              counts them
 *   packets burst ADDRESS PORT BYTES COUNT AT so many datagrams, from that time on (CLOCK_MONOTONIC, ns)
 *   packets echo ADDRESS COUNT                ICMP echo, one after another, in nanoseconds
 *   packets nexthops DEVICE COUNT SECONDS     to so many next hops in turn, by an xfrm interface and between the
 *                                             addresses of enum vnetd_esp
 *   packets marks DEVICE COUNT SECONDS FROM TO  the same between two addresses, marked 1 to COUNT instead
 *
 * `send` and `receive` hand 64 datagrams to the kernel at once (sendmmsg, recvmmsg), so that the
 * path and not the system calls is what is measured. `receive` says "ready" when its socket
 * is bound, and counts between the first and the last datagram, so that its partner may start late.
 * `echo` is ping without its resolution of a microsecond, in which a round trip of 5 cannot be
 * compared. Each prints one line of JSON. Exit code 1: nothing came, or a system call failed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <limits.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <unistd.h>

#include "batch.h"

enum {
	RECEIVE_BUFFER = 8 << 20,
	/* of a burst, all of which may be held back on its way */
	BURST_BUFFER = 128 << 20,
	/* receive ends when it was quiet for so long */
	QUIET_MS = 300,
	/* ... or when nothing came at all for so long */
	FIRST_S = 5,
	ECHO_PAYLOAD = 56,
	ECHO_TIMEOUT_MS = 1000,
	ECHO_WARM_UP = 200,
	ESP_PAYLOAD = 64,
	ESP_LOCAL4 = 0xf0000001,
	ESP_REMOTE4 = 0xf1000000,
	MARK_ESP = 0x764e0001,
	ETHERTYPE_IPV4 = 0x0800,
};

static long number(const char *text, long least, long most)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || n < least || n > most) {
		fprintf(stderr, "packets: %s: a number from %ld to %ld is wanted\n", text, least,
			most);
		exit(2);
	}
	return n;
}

static struct sockaddr_in address(const char *text, long port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	if (inet_pton(AF_INET, text, &a.sin_addr) != 1) {
		fprintf(stderr, "packets: %s: an IPv4 address is wanted\n", text);
		exit(2);
	}
	return a;
}

static void receive_timeout(int s, int ms)
{
	struct timeval t = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)))
		fail("SO_RCVTIMEO");
}

/* rate: 0 for as fast as it goes */
static int udp_send(const char *to, long port, long bytes, long seconds, long rate)
{
	struct sockaddr_in a = address(to, port);
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	uint64_t start, end, sent = 0, errors = 0;
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	if (s < 0 || connect(s, (void *)&a, sizeof(a)))
		fail("socket");
	batch(messages, parts, (size_t)bytes);
	start = now_ns();
	end = start + (uint64_t)seconds * 1000000000;
	while (now_ns() < end) {
		int n = sendmmsg(s, messages, BATCH, 0);

		/* a full queue, or a receiver that has ended: what arrives is counted over there */
		if (n < 0)
			errors++;
		else
			sent += (uint64_t)n;
		if (rate)
			pace(start, sent, (uint64_t)rate);
	}
	printf("{\"sent\":%llu,\"errors\":%llu,\"perSecond\":%.0f}\n", (unsigned long long)sent,
	       (unsigned long long)errors, (double)sent * 1e9 / (double)(now_ns() - start));
	return sent ? 0 : 1;
}

static int udp_receive(long port, long seconds)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	uint64_t first = 0, last = 0, received = 0, end;
	int buffer = RECEIVE_BUFFER;
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)))
		fail("socket");
	if (bind(s, (void *)&a, sizeof(a)))
		fail("bind");
	receive_timeout(s, QUIET_MS);
	batch(messages, parts, MAX_BYTES);
	puts("ready");
	fflush(stdout);
	end = now_ns() + (uint64_t)(seconds + FIRST_S) * 1000000000;
	while (now_ns() < end) {
		int n = recvmmsg(s, messages, BATCH, MSG_WAITFORONE, NULL);

		if (n > 0) {
			last = now_ns();
			if (!first)
				first = last;
			else
				received += (uint64_t)n;
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			fail("recvmmsg");
		} else if (first) {
			break;
		}
	}
	printf("{\"received\":%llu,\"perSecond\":%.0f,\"firstNs\":%llu,\"lastNs\":%llu}\n",
	       (unsigned long long)received,
	       last > first ? (double)received * 1e9 / (double)(last - first) : 0.0,
	       (unsigned long long)first, (unsigned long long)last);
	return received ? 0 : 1;
}

/* What several of these print is of the same time: they begin together. */
static int udp_burst(const struct sockaddr_in *to, long bytes, long count, uint64_t at)
{
	struct timespec t = { .tv_sec = (time_t)(at / 1000000000),
			      .tv_nsec = (long)(at % 1000000000) };
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	int buffer = BURST_BUFFER;
	uint64_t start, end;
	long sent = 0;
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer)) ||
	    connect(s, (const void *)to, sizeof(*to)))
		fail("socket");
	batch(messages, parts, (size_t)bytes);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	start = now_ns();
	while (sent < count) {
		long want = count - sent < BATCH ? count - sent : BATCH;

		send_all(s, messages, (unsigned int)want);
		sent += want;
	}
	end = now_ns();
	printf("{\"sent\":%ld,\"startNs\":%llu,\"endNs\":%llu}\n", sent, (unsigned long long)start,
	       (unsigned long long)end);
	return 0;
}

static uint16_t checksum(const void *data, size_t bytes)
{
	const uint16_t *word = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < bytes / 2; i++)
		sum += word[i];
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t) ~(sum + (sum >> 16));
}

struct esp_packet {
	struct iphdr ip;
	uint8_t udp[8];
	uint8_t payload[ESP_PAYLOAD];
};

struct esp_message {
	struct esp_packet packet;
	union {
		char bytes[CMSG_SPACE(sizeof(uint32_t))];
		struct cmsghdr align;
	} mark;
};

/* What is sent in turn: `to` + 1 to `count`, or one address, with marks from 1 to count. */
struct esp_targets {
	uint32_t from, to, count;
	int by_mark;
};

static void esp_message(struct msghdr *header, struct esp_message *m,
			const struct esp_targets *targets, uint32_t number)
{
	struct iphdr *ip = &m->packet.ip;

	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.ttl = 64,
		.protocol = IPPROTO_UDP,
		.tot_len = htons(sizeof(m->packet)),
		.saddr = htonl(targets->from),
		.daddr = htonl(targets->by_mark ? targets->to : targets->to + number),
	};
	ip->check = checksum(ip, sizeof(*ip));
	if (!targets->by_mark)
		number = MARK_ESP;
	header->msg_control = m->mark.bytes;
	header->msg_controllen = sizeof(m->mark.bytes);
	*CMSG_FIRSTHDR(header) = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SO_MARK,
		.cmsg_len = CMSG_LEN(sizeof(number)),
	};
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(header)), &number, sizeof(number));
}

static int esp_send(const char *device, const struct esp_targets *targets, long seconds)
{
	static struct esp_message bodies[BATCH];
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE_IPV4) };
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	uint64_t start, end, sent = 0;
	uint32_t next = 0;
	int s = socket(AF_PACKET, SOCK_DGRAM, 0);

	to.sll_ifindex = (int)if_nametoindex(device);
	if (s < 0 || !to.sll_ifindex)
		fail(device);
	batch(messages, parts, sizeof(bodies[0].packet));
	start = now_ns();
	end = start + (uint64_t)seconds * 1000000000;
	while (now_ns() < end) {
		int n;

		for (int i = 0; i < BATCH; i++) {
			parts[i].iov_base = &bodies[i].packet;
			messages[i].msg_hdr.msg_name = &to;
			messages[i].msg_hdr.msg_namelen = sizeof(to);
			esp_message(&messages[i].msg_hdr, &bodies[i], targets,
				    next++ % targets->count + 1);
		}
		n = sendmmsg(s, messages, BATCH, 0);
		if (n > 0)
			sent += (uint64_t)n;
		else if (errno != ENOBUFS)
			fail("sendmmsg");
	}
	printf("{\"sent\":%llu,\"perSecond\":%.0f}\n", (unsigned long long)sent,
	       (double)sent * 1e9 / (double)(now_ns() - start));
	return sent ? 0 : 1;
}

struct echo {
	struct icmphdr header;
	uint8_t payload[ECHO_PAYLOAD];
};

/* One round trip; 0: no answer in time. */
static uint64_t echo_once(int s, uint16_t id, uint16_t sequence)
{
	struct echo request = { .header = { .type = ICMP_ECHO } };
	uint8_t answer[MAX_BYTES];
	uint64_t start;

	request.header.un.echo.id = htons(id);
	request.header.un.echo.sequence = htons(sequence);
	request.header.checksum = checksum(&request, sizeof(request));
	start = now_ns();
	if (send(s, &request, sizeof(request), 0) != sizeof(request))
		fail("send");
	for (;;) {
		ssize_t n = recv(s, answer, sizeof(answer), 0);
		uint64_t end = now_ns();
		size_t header = (size_t)(answer[0] & 15) * 4;
		struct icmphdr icmp;

		if (n < 0 && errno != EINTR)
			return 0;
		if (n < (ssize_t)(header + sizeof(icmp)))
			continue;
		memcpy(&icmp, answer + header, sizeof(icmp));
		if (icmp.type == ICMP_ECHOREPLY && icmp.un.echo.id == htons(id) &&
		    icmp.un.echo.sequence == htons(sequence))
			return end - start;
		if (end - start > (uint64_t)ECHO_TIMEOUT_MS * 1000000)
			return 0;
	}
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int icmp_echo(const char *to, long count)
{
	struct sockaddr_in a = address(to, 0);
	uint64_t *times = calloc((size_t)count, sizeof(*times)), sum = 0;
	uint16_t id = (uint16_t)getpid();
	long got = 0, lost = 0;
	int s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);

	if (!times || s < 0 || connect(s, (void *)&a, sizeof(a)))
		fail("socket");
	receive_timeout(s, ECHO_TIMEOUT_MS);
	for (long i = -ECHO_WARM_UP; i < count; i++) {
		uint64_t t = echo_once(s, id, (uint16_t)i);

		if (i < 0)
			continue;
		if (t)
			times[got++] = t;
		/* a path that carries nothing would take COUNT seconds to say so */
		else if (++lost > 5)
			break;
	}
	if (!got)
		return fprintf(stderr, "packets: no answer from %s\n", to), 1;
	qsort(times, (size_t)got, sizeof(*times), ascending);
	for (long i = 0; i < got; i++)
		sum += times[i];
	printf("{\"answers\":%ld,\"lost\":%ld,\"medianNs\":%llu,\"meanNs\":%llu,\"p99Ns\":%llu,"
	       "\"p999Ns\":%llu}\n",
	       got, lost, (unsigned long long)times[got / 2],
	       (unsigned long long)(sum / (uint64_t)got), (unsigned long long)times[got * 99 / 100],
	       (unsigned long long)times[got * 999 / 1000]);
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (!strcmp(mode, "send") && (argc == 6 || argc == 7))
		return udp_send(argv[2], number(argv[3], 1, 65535), number(argv[4], 1, MAX_BYTES),
				number(argv[5], 1, 3600),
				argc == 7 ? number(argv[6], 1, 100000000) : 0);
	if (!strcmp(mode, "receive") && argc == 4)
		return udp_receive(number(argv[2], 1, 65535), number(argv[3], 1, 3600));
	if (!strcmp(mode, "burst") && argc == 7) {
		struct sockaddr_in to = address(argv[2], number(argv[3], 1, 65535));

		return udp_burst(&to, number(argv[4], 1, MAX_BYTES), number(argv[5], 1, 10000000),
				 (uint64_t)number(argv[6], 0, LONG_MAX));
	}
	if (!strcmp(mode, "echo") && argc == 4)
		return icmp_echo(argv[2], number(argv[3], 1, 10000000));
	if (!strcmp(mode, "nexthops") && argc == 5) {
		struct esp_targets targets = { .from = ESP_LOCAL4, .to = ESP_REMOTE4 };

		targets.count = (uint32_t)number(argv[3], 1, 1 << 20);
		return esp_send(argv[2], &targets, number(argv[4], 1, 3600));
	}
	if (!strcmp(mode, "marks") && argc == 7) {
		struct esp_targets targets = { .by_mark = 1 };

		targets.count = (uint32_t)number(argv[3], 1, 1 << 20);
		targets.from = ntohl(address(argv[5], 0).sin_addr.s_addr);
		targets.to = ntohl(address(argv[6], 0).sin_addr.s_addr);
		return esp_send(argv[2], &targets, number(argv[4], 1, 3600));
	}
	fputs("usage: packets send ADDRESS PORT BYTES SECONDS [RATE]\n"
	      "       packets receive PORT SECONDS\n"
	      "       packets burst ADDRESS PORT BYTES COUNT AT\n"
	      "       packets echo ADDRESS COUNT\n"
	      "       packets nexthops DEVICE COUNT SECONDS\n"
	      "       packets marks DEVICE COUNT SECONDS FROM TO\n",
	      stderr);
	return 2;
}
