// SPDX-License-Identifier: GPL-2.0-only
/*
 * The daemon's hand in the tables.
 *
 * Attached nowhere: the daemon runs it with BPF_PROG_TEST_RUN and a struct vnetd_control as the
 * packet, so that limits, counts and tokens are handled by the same code as for frames, and the
 * daemon needs no copy of the table. The answer is written into the packet.
 */
#include "lib/path.h"
#include "lib/probe.h"
#include "lib/sweep.h"

/* read from the object file by the daemon, which pins the maps below layout-<this> */
const volatile __u32 vnetd_layout = VNETD_LAYOUT;

static __always_inline void nexthop_key(const struct vnetd_control *c,
					struct vnetd_nexthop_key *key)
{
	key->handle = c->handle;
	key->ifindex = c->ifindex;
	__builtin_memcpy(key->addr, c->addr, sizeof(key->addr));
}

/* The id of the other path that the request names, made if it is not there. */
static __always_inline __u32 other_of(const struct vnetd_control *c)
{
	struct vnetd_nexthop_key key = { .handle = c->handle, .ifindex = c->other_ifindex };
	__u32 reason;

	if (!c->other_ifindex)
		return 0;
	__builtin_memcpy(key.addr, c->other_addr, sizeof(key.addr));
	return nexthop_heard(&key, c->slot, &reason);
}

static __always_inline __u32 control_nexthop(struct vnetd_control *c)
{
	struct vnetd_nexthop_key key = {};
	struct vnetd_nexthop *hop;
	__u32 reason = VNETD_OK;

	nexthop_key(c, &key);
	c->nexthop = nexthop_heard(&key, c->slot, &reason);
	if (!c->nexthop)
		return reason;
	hop = nexthop_by_id(c->nexthop);
	if (!hop)
		return VNETD_REFUSED_HOSTS_FULL;
	c->gen = hop->gen;
	if (c->op == VNETD_CTL_KEYS)
		hop->spi = c->spi;
	if (c->op == VNETD_CTL_NEXTHOP) {
		__builtin_memcpy(hop->host, c->host, sizeof(hop->host));
		hop->path = c->path & (VNETD_MAX_PATHS - 1);
		hop->other = other_of(c);
		hop->flags = VNETD_NEXTHOP_USED | c->nexthop_flags;
		hop->capabilities = c->capabilities;
		/* what no IPv4 host may have is not believed */
		hop->mtu = c->mtu >= VNETD_PATH_MTU_MIN ? c->mtu : 0;
		if (c->nexthop_flags & VNETD_NEXTHOP_MEMBER)
			path_known(c->ifindex, c->addr);
	}
	return VNETD_OK;
}

/* Learning leaves the flags of a configured entry alone; who configures it changes them. */
static __always_inline void control_mark(const struct fdb_news *news)
{
	struct vnetd_fdb_entry *entry = bpf_map_lookup_elem(&fdb, &news->key);

	if (entry && entry->nexthop == news->nexthop && entry->gen == news->gen) {
		entry->flags = news->flags;
		fdb_changed();
	}
}

/* The direct port that a MAC of this host is heard at now; 0: none. */
static __always_inline __u32 control_port(const struct fdb_news *news,
					  const struct vnetd_vnet *vnet)
{
	struct vnetd_fdb_entry *entry = bpf_map_lookup_elem(&fdb, &news->key);

	return entry && entry->nexthop == VNETD_NEXTHOP_LOCAL && fdb_fresh(entry, vnet, news->now)
		       ? entry->gen
		       : 0;
}

/* What is entered lives behind the host of the request, whose record is found or made. */
static __always_inline __u32 control_behind_host(struct vnetd_control *c, struct fdb_news *news)
{
	struct vnetd_nexthop *hop;
	__u32 reason = control_nexthop(c);

	if (reason)
		return reason;
	c->nexthop = nexthop_primary(c->nexthop);
	hop = nexthop_by_id(c->nexthop);
	if (!hop)
		return VNETD_REFUSED_HOSTS_FULL;
	news->nexthop = c->nexthop;
	news->gen = hop->gen;
	return VNETD_OK;
}

static __always_inline __u32 control_learn(struct vnetd_control *c, struct vnetd_vnet *vnet)
{
	struct fdb_news news = {
		.key.handle = c->handle,
		.slot = c->slot,
		.flags = c->fdb_flags,
		.now = now_ns(),
	};
	__u32 reason;

	if (is_group_mac(c->mac))
		return VNETD_REFUSED_GROUP_MAC;
	__builtin_memcpy(news.key.mac, c->mac, VNETD_MAC_LEN);
	if (c->op == VNETD_CTL_LEARN) {
		reason = control_behind_host(c, &news);
		if (reason)
			return reason;
	} else {
		news.gen = c->gen ?: control_port(&news, vnet);
	}
	reason = fdb_learn(&news, vnet);
	if (!reason && news.flags & VNETD_FDB_STATIC)
		control_mark(&news);
	return reason;
}

/* ---- many at once ---------------------------------------------------------------------------- */

/* The calls below it leave no room for this on the stack. */
VNETD_MAP(many_news, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct fdb_news, 1, 0);

static __always_inline struct fdb_news *many_news_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&many_news, &zero);
}

struct many {
	struct __sk_buff *skb;
	__u32 taken;
	__u32 reason;
};

/* An announce of a MAC that lives here: who asks is told which, and looks at it by itself. */
static __always_inline bool many_lives_here(struct many *many, __u32 at,
					    const struct fdb_news *news)
{
	struct vnetd_fdb_entry *entry = bpf_map_lookup_elem(&fdb, &news->key);
	__u16 here = 1;

	if (!entry || entry->nexthop != VNETD_NEXTHOP_LOCAL)
		return false;
	bpf_skb_store_bytes(many->skb,
			    sizeof(struct vnetd_control) + at * sizeof(struct vnetd_control_mac) +
				    offsetof(struct vnetd_control_mac, here),
			    &here, sizeof(here), 0);
	return true;
}

/* bpf_loop's, so that the verifier looks at it once */
static long learn_next(__u32 at, struct many *many)
{
	struct fdb_news *news = many_news_get();
	struct vnetd_control_mac mac;
	struct vnetd_vnet *vnet;
	__u32 reason;

	vnet = news ? vnet_by_slot(news->slot) : NULL;
	if (!vnet || bpf_skb_load_bytes(many->skb, sizeof(struct vnetd_control) + at * sizeof(mac),
					&mac, sizeof(mac))) {
		many->reason = VNETD_DROP_TRUNCATED;
		return 1;
	}
	__builtin_memcpy(news->key.mac, mac.mac, VNETD_MAC_LEN);
	news->now = mac.seen_ns;
	if (news->nexthop != VNETD_NEXTHOP_LOCAL && news->flags & VNETD_FDB_ANNOUNCED &&
	    many_lives_here(many, at, news))
		return 0;
	reason = is_group_mac(mac.mac) ? VNETD_REFUSED_GROUP_MAC : fdb_learn(news, vnet);
	if (reason) {
		many->reason = reason;
		return 0;
	}
	if (news->flags & VNETD_FDB_STATIC)
		control_mark(news);
	many->taken += 1;
	return 0;
}

/* Whose the MACs are; by itself, since what it takes of the stack is given back then. */
SUBPROGRAM __u32 control_many_host(struct vnetd_control *c, struct fdb_news *news)
{
	if (!c || !news)
		return VNETD_DROP_TRUNCATED;
	__builtin_memset(news, 0, sizeof(*news));
	news->key.handle = c->handle;
	news->slot = c->slot;
	news->flags = c->fdb_flags;
	news->gen = c->gen;
	return c->ifindex ? control_behind_host(c, news) : VNETD_OK;
}

SUBPROGRAM __u32 control_learn_many(struct __sk_buff *skb, struct vnetd_control *c)
{
	struct many many = { .skb = skb };
	struct fdb_news *news = many_news_get();
	__u32 reason;

	if (!c || !news || c->capabilities > VNETD_CONTROL_MACS)
		return VNETD_DROP_TRUNCATED;
	reason = control_many_host(c, news);
	if (reason)
		return reason;
	bpf_loop(c->capabilities, learn_next, &many, 0);
	c->gen = many.taken;
	return many.reason;
}

static __always_inline __u32 control_forget(struct vnetd_control *c)
{
	struct vnetd_fdb_key key = { .handle = c->handle };
	struct vnetd_fdb_entry *entry;

	__builtin_memcpy(key.mac, c->mac, VNETD_MAC_LEN);
	entry = bpf_map_lookup_elem(&fdb, &key);
	if (entry && (c->op == VNETD_CTL_FORGET || entry->nexthop == VNETD_NEXTHOP_LOCAL)) {
		entry->flags = 0;
		entry->seen_ns = 0;
		fdb_changed();
	}
	return VNETD_OK;
}

static __always_inline void control_heard(const struct vnetd_control *c)
{
	struct vnetd_nexthop_key key = {};
	struct vnetd_nexthop *hop;
	__u32 *id;

	nexthop_key(c, &key);
	id = bpf_map_lookup_elem(&nexthop_ids, &key);
	hop = id ? nexthop_by_id(*id) : NULL;
	if (hop)
		hop->heard_ns = now_ns();
	if (hop && hop->flags & VNETD_NEXTHOP_MEMBER)
		path_known(c->ifindex, c->addr);
}

/* the group that probes are sent to: locally administered, "VNTP" and a byte */
#define PROBE_GROUP_MAC                                                                            \
	{                                                                                          \
		0x03, 0x56, 0x4e, 0x54, 0x50, 0x01                                                 \
	}

/*
 * Sends a probe to the group, by the hook that any frame passes; and, where the request names the
 * vnetif's device, to the bridge that it is a port of, as if it had come from the underlay.
 */
SUBPROGRAM __u32 control_probe(struct __sk_buff *skb, const struct vnetd_control *c,
			       const struct vnetd_vnet *vnet)
{
	struct {
		struct ethhdr eth;
		struct vnetd_probe probe;
	} VNETD_PACKED frame = {
		.eth.h_dest = PROBE_GROUP_MAC,
		.eth.h_proto = bpf_htons(VNETD_PROBE_ETHERTYPE),
		.probe.magic = bpf_htonl(VNETD_PROBE_MAGIC),
		.probe.version = VNETD_PROBE_VERSION,
	};
	_Static_assert(sizeof(frame) == VNETD_PROBE_FRAME_LEN, "a probe");
	__u32 vnif = c->ifindex;
	long err;

	if (!vnet || !vnet->probe_nonce)
		return VNETD_DROP_VNET_DOWN;
	__builtin_memcpy(frame.eth.h_source, vnet->vmac, ETH_ALEN);
	frame.probe.nonce = vnet->probe_nonce;
	if (bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
		return VNETD_DROP_TRUNCATED;
	skb->mark = VNETD_MARK_PROBE;
	err = bpf_clone_redirect(skb, vnet->vnif_peer, BPF_F_INGRESS);
	skb->mark = VNETD_MARK_NONE;
	if (err || !vnif)
		return err ? VNETD_DROP_NO_MEMORY : VNETD_OK;
	frame.probe.hops = 1;
	__builtin_memcpy(frame.probe.hop[0].vnet, vnet->id, VNETD_ID_LEN);
	if (bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
		return VNETD_DROP_TRUNCATED;
	return bpf_clone_redirect(skb, vnif, BPF_F_INGRESS) ? VNETD_DROP_NO_MEMORY : VNETD_OK;
}

/* What the daemon refuses is counted where everything else is. */
static __always_inline __u32 control_count(const struct vnetd_control *c)
{
	if (c->path > VNETD_DIR_DECAP || c->result == VNETD_OK || c->result >= VNETD_REASON_COUNT)
		return VNETD_DROP_UNKNOWN_MESSAGE;
	count_drop(c->handle, c->path, c->result, c->mtu);
	return VNETD_OK;
}

static __always_inline __u32 control_run(struct __sk_buff *skb, struct vnetd_control *c)
{
	struct vnetd_vnet *vnet;

	if (c->op == VNETD_CTL_START)
		return sweep_start() ? VNETD_DROP_NO_MEMORY : VNETD_OK;
	if (c->op == VNETD_CTL_COUNT)
		return control_count(c);
	vnet = vnet_by_slot(c->slot);
	if (!vnet || vnet->handle != c->handle)
		return VNETD_DROP_UNKNOWN_VNET;
	if (c->op == VNETD_CTL_HEARD || c->op == VNETD_CTL_LEARN_HEARD) {
		control_heard(c);
		if (c->op == VNETD_CTL_HEARD)
			return VNETD_OK;
		c->op = VNETD_CTL_LEARN;
	}
	switch (c->op) {
	case VNETD_CTL_LEARN:
	case VNETD_CTL_LEARN_LOCAL:
		return control_learn(c, vnet);
	case VNETD_CTL_LEARN_MANY:
		return control_learn_many(skb, c);
	case VNETD_CTL_FORGET:
	case VNETD_CTL_FORGET_LOCAL:
		return control_forget(c);
	case VNETD_CTL_FORGET_NEIGHBOUR:
		neighbour_forget(c->handle, c->addr);
		return VNETD_OK;
	case VNETD_CTL_NEXTHOP:
	case VNETD_CTL_KEYS:
		return control_nexthop(c);
	case VNETD_CTL_PROBE:
		return control_probe(skb, c, vnet);
	default:
		return VNETD_DROP_UNKNOWN_MESSAGE;
	}
}

SEC("tc")
int vnetd_control(struct __sk_buff *skb)
{
	struct vnetd_control c;

	if (bpf_skb_load_bytes(skb, 0, &c, sizeof(c)))
		return TC_ACT_SHOT;
	c.result = control_run(skb, &c);
	if (bpf_skb_store_bytes(skb, 0, &c, sizeof(c), 0))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
