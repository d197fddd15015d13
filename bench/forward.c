// SPDX-License-Identifier: Apache-2.0
/*
 * The benchmark's frames that no socket sends or receives, and single programs:
 *
 *   forward frames OBJECT DEVICE WAY-OUT FAR-NETNS FAR-DEVICE FRAME SECONDS
 *       frames (hex) as if DEVICE had received them, made by BPF_PROG_TEST_RUN with live frames, all on the core
 *       that this runs on; what comes in by FAR-DEVICE of the other namespace is counted, and dropped. WAY-OUT: they
 *       are sent out of this device (-: what DEVICE is a port of has them)
 *   forward flood OBJECT DEVICE FRAME SECONDS
 *       the same frames, of less than 128 bytes, that may be changed on their way; nothing is counted: how many there were
 *   forward program OBJECT PIN DEVICE FRAME COUNT MARK
 *       so many runs of the program that is pinned there, TC or XDP, one packet each, with this mark; the median, less that of a
 *       program that does nothing; what the last returned, and how many changed the packet
 *   forward size PIN
 *       of the program that is pinned there
 *
 * OBJECT is bench/forward.bpf.c, compiled. Each prints one line of JSON. Exit code 1: something failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

enum {
	MAX_FRAME = 2048,
	/* a run ends at so many, and the clock is looked at */
	REPEAT = 16384,
	/* as many are received at once: a NIC's usual budget */
	BATCH = 64,
	WARM_UP_MS = 200,
	/* as in bench/forward.bpf.c */
	MAX_WRITTEN = 128,
};

static void fail(const char *format, ...)
{
	va_list arguments;

	fputs("forward: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint32_t frame_of(const char *hex, uint8_t frame[MAX_FRAME])
{
	size_t length = strlen(hex) / 2;

	if (length < 14 || length > MAX_FRAME) {
		errno = EINVAL;
		fail("a frame of %zu bytes", length);
	}
	for (size_t i = 0; i < length; i++) {
		unsigned int byte;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			fail("not hex: %s", hex + 2 * i);
		frame[i] = (uint8_t)byte;
	}
	return (uint32_t)length;
}

static int device(const char *name)
{
	int index = (int)if_nametoindex(name);

	if (!index)
		fail("%s", name);
	return index;
}

static struct bpf_object *load(const char *path)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);

	if (!object || bpf_object__load(object))
		fail("%s", path);
	return object;
}

static int program_of(struct bpf_object *object, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(object, name));
}

/* That a clsact is there already is no news. */
static int silent(enum libbpf_print_level level, const char *format, va_list arguments)
{
	(void)level;
	(void)format;
	(void)arguments;
	return 0;
}

/* Until it is detached; a clsact that is there already keeps its filters. */
static struct bpf_tc_hook attach(int ifindex, int fd, struct bpf_tc_opts *opts)
{
	struct bpf_tc_hook hook = { .sz = sizeof(hook),
				    .ifindex = ifindex,
				    .attach_point = BPF_TC_INGRESS };
	libbpf_print_fn_t print = libbpf_set_print(silent);
	int err = bpf_tc_hook_create(&hook);

	libbpf_set_print(print);
	if (err && err != -EEXIST)
		fail("clsact of device %d", ifindex);
	*opts = (struct bpf_tc_opts){
		.sz = sizeof(*opts), .prog_fd = fd, .handle = 1, .priority = 1
	};
	if (bpf_tc_attach(&hook, opts))
		fail("filter of device %d", ifindex);
	opts->prog_fd = 0;
	opts->prog_id = 0;
	opts->flags = 0;
	return hook;
}

static void enter(int netns)
{
	if (setns(netns, CLONE_NEWNET))
		fail("setns");
}

static uint64_t arrived(int map)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t *each = calloc((size_t)cpus, sizeof(*each)), sum = 0;
	uint32_t zero = 0;

	if (!each || bpf_map_lookup_elem(map, &zero, each))
		fail("count");
	for (int i = 0; i < cpus; i++)
		sum += each[i];
	free(each);
	return sum;
}

/* How many were injected. */
static uint64_t inject(int fd, int ifindex, const uint8_t *frame, uint32_t length, uint64_t ms)
{
	uint64_t end = now_ns() + ms * 1000000, sent = 0;
	struct xdp_md context = { .data_end = length, .ingress_ifindex = (uint32_t)ifindex };

	while (now_ns() < end) {
		LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = length,
			    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = REPEAT,
			    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);

		if (bpf_prog_test_run_opts(fd, &opts))
			fail("test run with live frames");
		sent += REPEAT;
	}
	return sent;
}

/* What the kernel has accounted to this core, in ns, idle and stolen time left out; by the tick. */
static uint64_t busy_ns(void)
{
	unsigned long long user, nice, system, idle, wait, irq, softirq;
	char name[32], line[256];
	FILE *stat = fopen("/proc/stat", "r");

	snprintf(name, sizeof(name), "cpu%d ", sched_getcpu());
	while (stat && fgets(line, sizeof(line), stat)) {
		if (strncmp(line, name, strlen(name)))
			continue;
		if (sscanf(line + strlen(name), "%llu %llu %llu %llu %llu %llu %llu", &user, &nice,
			   &system, &idle, &wait, &irq, &softirq) != 7)
			break;
		fclose(stat);
		return (user + nice + system + irq + softirq) *
		       (1000000000ULL / (uint64_t)sysconf(_SC_CLK_TCK));
	}
	fail("/proc/stat");
	return 0;
}

static int frames(char **argv)
{
	struct bpf_object *object = load(argv[0]);
	int near = open("/proc/self/ns/net", O_RDONLY), far, from = device(argv[1]);
	int counter = bpf_object__find_map_fd_by_name(object, "arrived");
	int way_out = bpf_object__find_map_fd_by_name(object, "way_out");
	bool by_other = strcmp(argv[2], "-") != 0;
	struct bpf_tc_opts near_opts, far_opts;
	struct bpf_tc_hook near_hook, far_hook;
	uint64_t start, end, before, after, sent, busy;
	uint8_t frame[MAX_FRAME];
	uint32_t length = frame_of(argv[5], frame), zero = 0;
	char path[256];

	snprintf(path, sizeof(path), "/run/netns/%s", argv[3]);
	far = open(path, O_RDONLY);
	if (near < 0 || far < 0)
		fail("%s", path);
	enter(far);
	far_hook = attach(device(argv[4]), program_of(object, "count"), &far_opts);
	enter(near);
	if (by_other) {
		int to = device(argv[2]);

		if (bpf_map_update_elem(way_out, &zero, &to, BPF_ANY))
			fail("way_out");
		near_hook = attach(from, program_of(object, "pass_on"), &near_opts);
	}
	inject(program_of(object, "inject"), from, frame, length, WARM_UP_MS);
	before = arrived(counter);
	busy = busy_ns();
	start = now_ns();
	sent = inject(program_of(object, "inject"), from, frame, length,
		      (uint64_t)(strtod(argv[6], NULL) * 1000));
	end = now_ns();
	busy = busy_ns() - busy;
	after = arrived(counter);
	if (by_other)
		bpf_tc_detach(&near_hook, &near_opts);
	enter(far);
	bpf_tc_detach(&far_hook, &far_opts);
	printf("{\"sent\":%llu,\"arrived\":%llu,\"busyNs\":%llu,\"perSecond\":%.0f}\n",
	       (unsigned long long)sent, (unsigned long long)(after - before),
	       (unsigned long long)busy, (double)(after - before) * 1e9 / (double)(end - start));
	return after > before ? 0 : 1;
}

static int flood(char **argv)
{
	struct bpf_object *object = load(argv[0]);
	uint8_t frame[MAX_FRAME];
	uint32_t length = frame_of(argv[2], frame);
	uint64_t start = now_ns(), ms = (uint64_t)(strtod(argv[3], NULL) * 1000), sent;
	struct {
		uint32_t length;
		uint8_t bytes[MAX_WRITTEN];
	} written = { .length = length };
	uint32_t zero = 0;

	errno = EMSGSIZE;
	if (length >= sizeof(written.bytes))
		fail("a frame of %u bytes", length);
	memcpy(written.bytes, frame, length);
	if (bpf_map_update_elem(bpf_object__find_map_fd_by_name(object, "written"), &zero, &written,
				BPF_ANY))
		fail("written");
	sent = inject(program_of(object, "inject_written"), device(argv[1]), frame, length, ms);
	printf("{\"sent\":%llu,\"seconds\":%.3f}\n", (unsigned long long)sent,
	       (double)(now_ns() - start) / 1e9);
	return 0;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

struct runs {
	int fd;
	bool is_xdp;
	int ifindex;
	uint32_t mark;
	const uint8_t *frame;
	uint32_t length;
	size_t count;
	/* of the last */
	uint32_t verdict;
	/* how many changed the packet */
	size_t changed;
};

/* Gives how long it took, in ns. */
static uint32_t run_once(struct runs *r)
{
	/* headers may be put in front */
	static uint8_t out[2 * MAX_FRAME];
	struct __sk_buff skb = { .ifindex = (uint32_t)r->ifindex, .mark = r->mark };
	struct xdp_md xdp = { .data_end = r->length, .ingress_ifindex = (uint32_t)r->ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = r->frame, .data_size_in = r->length,
		    .data_out = out, .data_size_out = sizeof(out));

	opts.ctx_in = r->is_xdp ? (void *)&xdp : (void *)&skb;
	opts.ctx_size_in = r->is_xdp ? sizeof(xdp) : sizeof(skb);
	if (bpf_prog_test_run_opts(r->fd, &opts))
		fail("test run");
	r->verdict = opts.retval;
	r->changed += opts.data_size_out != r->length || memcmp(out, r->frame, r->length);
	return opts.duration;
}

/* One packet each: a program may change the packet, so none is used twice. */
static uint32_t median_ns(struct runs *r)
{
	uint32_t *times = calloc(r->count, sizeof(*times)), median;

	if (!times)
		fail("memory");
	for (size_t i = 0; i < r->count; i++)
		times[i] = run_once(r);
	qsort(times, r->count, sizeof(*times), ascending);
	median = times[r->count / 2];
	free(times);
	return median;
}

static int pinned(const char *path, struct bpf_prog_info *info)
{
	uint32_t size = sizeof(*info);
	int fd = bpf_obj_get(path);

	memset(info, 0, sizeof(*info));
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, info, &size))
		fail("%s", path);
	return fd;
}

static void print_size(const struct bpf_prog_info *info)
{
	printf("\"instructions\":%u,\"bytes\":%u,\"verified\":%u}\n", info->xlated_prog_len / 8,
	       info->jited_prog_len, info->verified_insns);
}

static int size(char **argv)
{
	struct bpf_prog_info info;

	pinned(argv[0], &info);
	printf("{");
	print_size(&info);
	return 0;
}

static int program(char **argv)
{
	struct bpf_object *object = load(argv[0]);
	struct bpf_prog_info info;
	uint8_t frame[MAX_FRAME];
	uint32_t length = frame_of(argv[3], frame), none, ns;
	struct runs runs = { .ifindex = device(argv[2]), .frame = frame, .length = length };
	int fd = pinned(argv[1], &info);

	runs.count = strtoul(argv[4], NULL, 10);
	runs.mark = (uint32_t)strtoul(argv[5], NULL, 10);
	runs.is_xdp = info.type == BPF_PROG_TYPE_XDP;
	errno = EINVAL;
	if (!runs.count)
		fail("COUNT");
	runs.fd = program_of(object, runs.is_xdp ? "inject" : "nothing");
	none = median_ns(&runs);
	runs.fd = fd;
	runs.changed = 0;
	ns = median_ns(&runs);
	printf("{\"ns\":%u,\"verdict\":%u,\"changed\":%zu,", ns > none ? ns - none : 0,
	       runs.verdict, runs.changed);
	print_size(&info);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 9 && !strcmp(argv[1], "frames"))
		return frames(argv + 2);
	if (argc == 6 && !strcmp(argv[1], "flood"))
		return flood(argv + 2);
	if (argc == 8 && !strcmp(argv[1], "program"))
		return program(argv + 2);
	if (argc == 3 && !strcmp(argv[1], "size"))
		return size(argv + 2);
	fputs("usage: forward frames OBJECT DEVICE WAY-OUT FAR-NETNS FAR-DEVICE FRAME SECONDS\n"
	      "       forward flood OBJECT DEVICE FRAME SECONDS\n"
	      "       forward program OBJECT PIN DEVICE FRAME COUNT MARK\n"
	      "       forward size PIN\n",
	      stderr);
	return 2;
}
