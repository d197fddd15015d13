/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Keys and values of the pinned BPF maps: the state that forwards with no daemon.
 *
 * The BPF programs own all learned state (fdb, nexthops); the daemon changes it only by running
 * bpf/control.bpf.c, so limits and counts are kept in one place. The daemon writes the records
 * that are configuration (vnets, underlays, settings).
 *
 * Layout rules: explicit padding, size asserts at the end, host byte order unless the type is
 * __be*. Any change here that is not an append to reserved bytes increments VNETD_LAYOUT; maps
 * are pinned below <bpffs>/layout-<VNETD_LAYOUT>/ so that two generations can stand side by side.
 * Records of rings are between the programs and the daemon that loaded them, and concern no layout.
 *
 * Time: nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_coarse_ns).
 * Addresses: 16 bytes, network order, IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
 */
#ifndef VNETD_MAPS_H
#define VNETD_MAPS_H

#include <linux/types.h>
#include "wire.h"

enum vnetd_limits {
#ifdef VNETD_LAYOUT_OVERRIDE /* only the upgrade test builds this */
	VNETD_LAYOUT = VNETD_LAYOUT_OVERRIDE,
#else
	VNETD_LAYOUT = 1,
#endif
	/* vnets of one host; slot 0 is never used */
	VNETD_MAX_VNETS = 4096,
	/* places of the underlay: attached devices, each once for each IP family that it carries;
	 * a program loops over them for the group */
	VNETD_MAX_UNDERLAYS = 8,
	/* paths to one host */
	VNETD_MAX_PATHS = 8,
	/* defaults, changeable at load time by the daemon's configuration */
	VNETD_DEFAULT_FDB_ENTRIES = 65536,
	VNETD_DEFAULT_NEXTHOPS = 16384,
	VNETD_DEFAULT_FDB_PER_VNET = 16384,
	VNETD_DEFAULT_FDB_PER_HOST = 4096,
	VNETD_DEFAULT_HOSTS_PER_VNET = 1024,
	VNETD_DEFAULT_FLOOD_PER_SECOND = 10000,
	VNETD_DEFAULT_FLOOD_BURST = 10000,
	VNETD_DEFAULT_NEIGHBOURS = 16384,
	VNETD_DEFAULT_NEIGHBOURS_PER_VNET = 4096,
	VNETD_SECRET_LEN = 10,
	/* UDP port of the device `reassembly` */
	VNETD_REASSEMBLY_PORT = 4790,
	VNETD_MAX_HOST_PATHS = 4096,
	VNETD_MAX_DROP_KEYS = 65536,
	/* addresses of peers; number 0 is never used */
	VNETD_MAX_PEERS = 256,
	/* members of all vnets that are sent group frames by unicast */
	VNETD_MAX_UNICAST_MEMBERS = 16384,
	/* off-subnet group frames that are remembered, to know their copies */
	VNETD_MAX_SEEN = 16384,
	/* hosts of the subnets that are known to forward */
	VNETD_MAX_FORWARDERS = 256,
	/* security associations by which this host receives */
	VNETD_MAX_SPIS = 65536,
	/* members of all secure vnets, and of one */
	VNETD_MAX_SECURE_MEMBERS = 65536,
	VNETD_MAX_VNET_MEMBERS = 16384,
	/* direct ports of all vnets, and of one; a program loops over the latter for the group */
	VNETD_MAX_DIRECT_PORTS = 16384,
	VNETD_MAX_VNET_PORTS = 256,
	VNETD_RING_BYTES = 1 << 20,
	/* up to this length a VARP message takes less of the ring `control` (vnetd_event_varp) */
	VNETD_VARP_SHORT_LEN = 256,
	/* the ring `watched`, and as much of a frame as one record has at most, and of one that is only reported */
	VNETD_WATCH_RING_BYTES = 1 << 21,
	VNETD_WATCH_SNAP = 9216,
	VNETD_WATCH_HEAD = 128,
};

/* ---- the whole ------------------------------------------------------------------------ */

/* map meta: ARRAY of one. Written by the daemon. */
struct vnetd_meta {
	__u32 layout;
	/* the next vnet's handle, never 0 */
	__u32 next_handle;
	/* a veth pair of ours: super-frames that cannot be decapsulated whole are sent out of the
	 * first, whose segmentation offloads are off, and come in by the second as single packets.
	 * bpf/decap.bpf.c is attached to the second. The other way round TCP for direct ports passes it and is
	 * merged; vnetd_merged (bpf/port.bpf.c) is attached to the first. 0: there is none. */
	__u32 segment_out;
	__u32 segment_in;
	/* another: frames that are too large for the underlay pass it, single and with their
	 * checksums filled in; bpf/oversize.bpf.c is attached to the second */
	__u32 oversize_out;
	__u32 oversize_in;
	/* a VXLAN device without a remote: the kernel delivers reassembled packets to it;
	 * bpf/reassembled.bpf.c is attached to it */
	__u32 reassembly;
	/* random: tells packets that bpf/decap.bpf.c let through from what others send there */
	__u8 reassembly_secret[VNETD_SECRET_LEN];
	__u16 pad;
	/* a veth pair like `oversize`: what is forwarded to peers, and what comes from them, passes it;
	 * bpf/relay.bpf.c is attached to the second */
	__u32 relay_out;
	__u32 relay_in;
	/* numbers of peers below this may be in use; 0: nothing is forwarded to peers */
	__u32 peers;
	/* entries of unicast_members; 0: nobody wants group frames by unicast */
	__u32 unicast_members;
	/* enum vnetd_forward: by which families peers or members are sent to */
	__u32 forward;
};

/* ---- vnets ---------------------------------------------------------------------------- */

/* map vnet_ids: HASH, id -> slot */
struct vnetd_vnet_id {
	__u8 bytes[VNETD_ID_LEN];
};

enum vnetd_security {
	VNETD_SECURITY_NONE = 0,
	VNETD_SECURITY_AUTH = 1,
	VNETD_SECURITY_CONF = 2,
};

/* how a vnet's frames are sent; all are received */
enum vnetd_encap {
	VNETD_ENCAP_UDP = 0,
	/* IP protocol 97, DF set */
	VNETD_ENCAP_ETHERIP = 1,
};

enum vnetd_vnet_flags {
	/* the record is complete and may be used */
	VNETD_VNET_UP = 1 << 0,
	/* its frames are captured (struct vnetd_watch) */
	VNETD_VNET_WATCHED = 1 << 1,
	/* it has direct ports (struct vnetd_direct_port) */
	VNETD_VNET_PORTS = 1 << 2,
	/* what guests ask all for of neighbours is answered here where it can be (struct vnetd_neighbour) */
	VNETD_VNET_SUPPRESS = 1 << 3,
	/* what is for all goes to the vnet's own group of that family, and not to the device's. Clear where somebody
	 * is in the vnet who may not hear that group: what comes by it is taken all the same */
	VNETD_VNET_GROUP = 1 << 4,
	VNETD_VNET_GROUP6 = 1 << 5,
};

/* map vnets: ARRAY, slot -> this. Written by the daemon. */
struct vnetd_vnet {
	__u8 id[VNETD_ID_LEN];
	/* never reused while the maps live: what an old entry points to is known to be stale */
	__u32 handle;
	__u32 flags;
	__u32 security;
	/* the vnetif, and the other end of its veth pair, which is ours alone */
	__u32 vnif;
	__u32 vnif_peer;
	__u32 max_entries;
	__u32 max_entries_per_host;
	__u32 max_hosts;
	/* an entry is alive while now - seen < age */
	__u64 age_ns;
	/* entries of other hosts seen before this are dead: varp-flush in O(1) */
	__u64 flushed_ns;
	__u8 vmac[VNETD_MAC_LEN];
	__u16 pad;
	/* what marks the probes of this host in this vnet; 0: it sends none */
	__u64 probe_nonce;
	/* frames to the group: so many a second, and at once; 0: no limit */
	__u32 flood_per_second;
	__u32 flood_burst;
	/* enum vnetd_encap */
	__u32 encap;
	/* of a secure vnet: what ESP adds to a packet, for bpf/lib/esp.h, esp_largest(): bytes of IP header, ESP
	 * header, IV, BEET's reserve and ICV by family of the place, and the block that the rest is
	 * padded to */
	__u16 esp_fixed4;
	__u16 esp_fixed6;
	__u16 esp_block;
	__u16 pad2;
	__u32 max_neighbours;
	/* a neighbour is answered for while now - heard < this */
	__u64 neighbour_age_ns;
	/* groups of its own, IPv4 as ever in the form of IPv6; 0: there is none of that family */
	__u8 group[16];
	__u8 group6[16];
};

enum vnetd_flood {
	/* frames to the group while a loop is there, a second and at once; probes likewise */
	VNETD_LOOP_PER_SECOND = 100,
	VNETD_PROBES_PER_SECOND = 20,
	/* a vnet counts as looped for so long after a probe came back */
	VNETD_LOOP_HOLD_MS = 10000,
	/* a host may send us this many times of what we may send */
	VNETD_FLOOD_RECEIVE_FACTOR = 2,
	/* of a secure vnet, messages that nobody has authenticated yet: all of them from hosts that are
	 * known, all from others, a second and at once; and from one that is known */
	VNETD_CLEAR_VARP_PER_SECOND = 500,
	VNETD_CLEAR_VARP_PER_HOST = 20,
	VNETD_CLEAR_VARP_HOST_BURST = 60,
	/* of a vnet that is not secure, requests that are answered with no daemon, a second and at once */
	VNETD_ANSWERS_PER_SECOND = 200000,
};

/*
 * map floods: ARRAY, slot -> this. Changed by the BPF programs alone. The budgets are kept as the
 * time at which they would be empty again if nothing more came (bpf/lib/flood.h).
 */
struct vnetd_floods {
	__u64 sent_ns;
	__u64 looped_ns;
	__u64 probes_ns;
	/* from hosts that have no next hop */
	__u64 strangers_ns;
	/* when a probe of ours came back last; 0: never */
	__u64 loop_seen_ns;
	/* by enum vnetd_direction: when the daemon was told of a storm last */
	__u64 told_ns[2];
	/* budget of the events that say a probe came back */
	__u64 events_ns;
	/* of a secure vnet: VARP in clear from hosts that are known, and from others */
	__u64 varp_known_ns;
	__u64 varp_strangers_ns;
	/* of any other: answers to requests */
	__u64 answers_ns;
};

/* map vnet_counts: ARRAY, slot -> this. Changed atomically by the BPF programs alone; apart
 * from the record above so that the daemon can replace that one whole. */
struct vnetd_vnet_counts {
	/* all entries, and those of them that are local */
	__u32 entries;
	__u32 local;
	__u32 hosts;
	__u32 neighbours;
};

/* map ports: HASH, ifindex (u32) -> this: whose frames enter by this device */
struct vnetd_port {
	__u32 slot;
	__u32 handle;
};

enum vnetd_direct_flags {
	/* a veth whose other end is in another namespace: frames go there without its queue */
	VNETD_DIRECT_PEER = 1 << 0,
};

/* map direct_ports: HASH, ifindex (u32) -> this: a guest's device that is attached to a vnet without a bridge
 * (bpf/port.bpf.c). Written by the daemon. */
struct vnetd_direct_port {
	__u32 slot;
	__u32 handle;
	__u32 flags;
	__u32 reserved;
};

/* map direct_list: HASH, vnetd_member_key -> ifindex (u32). A vnet's direct ports, numbered from 0 on without a
 * gap. Written by the daemon. */

/* ---- underlay ------------------------------------------------------------------------- */

enum vnetd_underlay_flags {
	VNETD_UNDERLAY_UP = 1 << 0,
	/* hand frames over through the vnetif's receive merging (GRO): for devices that deliver
	 * packets at wire size. Per device, never per packet: that would reorder a flow. */
	VNETD_UNDERLAY_MERGE = 1 << 1,
	/* what is heard on the group from hosts of the subnet is forwarded to the peers */
	VNETD_UNDERLAY_RELAY = 1 << 8,
	/* multicast is not used: nothing is sent to the group */
	VNETD_UNDERLAY_NO_GROUP = 1 << 9,
	/* multicast is known to work here: a host of the subnet was heard on the group */
	VNETD_UNDERLAY_GROUP_WORKS = 1 << 10,
	/* XDP takes the headers off: its driver runs the program, before there is a packet of the kernel's.
	 * Else the program only says what it found, and TC takes them off: generic XDP sees super-frames
	 * without knowing, and those cannot be cut from there */
	VNETD_UNDERLAY_XDP_STRIPS = 1 << 11,
};

/*
 * What bpf/xdp.bpf.c puts in front of a frame that it knows, for bpf/decap.bpf.c. The same for all frames of
 * a flow, or GRO would not merge them. The frame's destination MAC, which is kept here, is a mark then: 'v',
 * 'n', and 4 bytes of vnetd_meta's secret. So nothing that comes from elsewhere is taken for it, and where
 * this is lost the frame is nobody's.
 */
struct vnetd_xdp_meta {
	__u32 ifindex;
	__u32 handle;
	__u16 slot;
	/* of the place */
	__u8 family;
	/* where the inner frame begins; 0: its headers are off */
	__u8 offset;
	__u8 dst[VNETD_MAC_LEN];
	__u16 pad;
};

enum vnetd_xdp_mark {
	VNETD_XDP_MARK_0 = 0x76,
	VNETD_XDP_MARK_1 = 0x6e,
};

enum vnetd_family {
	VNETD_FAMILY_IPV4 = 4,
	VNETD_FAMILY_IPV6 = 6,
};

/* A place of the underlay: a device, and a family that it carries outer packets of. What an
 * address belongs to is said by its form. */
struct vnetd_place {
	__u32 ifindex;
	__u32 family;
};

/* maps underlays (HASH, place -> this) and underlay_list (ARRAY, 0..7 -> place or 0) */
struct vnetd_underlay {
	__u32 ifindex;
	__u32 flags;
	/* our address there, and the multicast group: of the place's family */
	__u8 addr[16];
	__u8 group[16];
	__u8 mac[VNETD_MAC_LEN];
	__u16 mtu;
	__be16 port;
	/* of the subnet that addr is in; 0: not known */
	__u8 prefix_len;
	/* enum vnetd_family */
	__u8 family;
	/* where it stands in underlay_list */
	__u32 index;
	/* the device's xfrm interface, which secure vnets leave and arrive by; 0: there is none */
	__u32 esp;
	__u32 reserved[2];
};

/* ---- security associations ---------------------------------------------------------------- */

/*
 * What is sent by an SA is given to the xfrm interface between two addresses that name the SA: the
 * kernel finds its policy by their hash, however many there are between two hosts, and BEET puts the real ones in
 * their place. IPv4: from ESP_LOCAL4 to ESP_REMOTE4 + next hop. IPv6: of the words ESP_PREFIX6, 0,
 * ifindex of the underlay device, and 0 or the next hop (RFC 6666: 100::/64 goes nowhere).
 */
enum vnetd_esp {
	VNETD_ESP_LOCAL4 = 0xf0000001,
	VNETD_ESP_REMOTE4 = 0xf1000000,
	VNETD_ESP_PREFIX6 = 0x01000000,
	/* identifier of the xfrm interface: this and the underlay device's ifindex; an SA's reqid: this and
	 * the next hop */
	VNETD_ESP_ID = 0x76000000,
	VNETD_ESP_ID_MASK = 0xff000000,
};

/*
 * map spis: HASH, the SPI (u32) of an SA by which this host receives -> this. The SA's output mark is its SPI: on
 * the xfrm interface the mark says by which SA a packet came. Written by the daemon.
 */
struct vnetd_spi {
	/* from whom alone its packets are taken */
	__u8 source[16];
	/* by which underlay device */
	__u32 ifindex;
	/* of which vnet */
	__u32 handle;
	__u32 slot;
	/* who sends by it; believed only while that record's generation is this */
	__u32 nexthop;
	__u32 gen;
	/* enum vnetd_security: what it was made for */
	__u32 security;
	/* for the daemon alone, which may have been started since with another configuration: the suite, and the
	 * id of the vnet's secret */
	__u32 suite;
	__u8 key_id[8];
};

/* map secure_members: HASH, vnetd_member_key -> this. A secure vnet's members, which group frames go to one
 * by one, numbered from 0 on without a gap. Written by the daemon. */
struct vnetd_secure_member {
	/* the host's primary path */
	__u32 nexthop;
	__u32 gen;
};

/* ---- peers: hosts that multicast does not reach ------------------------------------------ */

enum vnetd_forward {
	VNETD_FORWARD_IPV4 = 1 << 0,
	VNETD_FORWARD_IPV6 = 1 << 1,
};

enum vnetd_peer_flags {
	/* VFWD from it is taken */
	VNETD_PEER_USED = 1 << 0,
	/* what goes to the group is forwarded to it */
	VNETD_PEER_SEND = 1 << 1,
	/* a host of ours that uses no multicast: what this host sends itself goes to it as to a
	 * member, and not inside VFWD */
	VNETD_PEER_UNICAST = 1 << 2,
};

/* maps peers (ARRAY, number -> this) and peer_ids (HASH, address -> number, u32) */
struct vnetd_peer {
	__u8 addr[16];
	/* the underlay device by which it is reached; 0: none */
	__u32 ifindex;
	__u32 flags;
	__be16 port;
	__u16 pad;
	__u32 reserved[5];
};

/* map peer_stats: PERCPU_ARRAY, a peer's number -> this */
struct vnetd_peer_stats {
	__u64 sent_frames;
	__u64 sent_bytes;
	__u64 heard_frames;
	__u64 heard_bytes;
};

/* map peer_heard: ARRAY, a peer's number -> u64, when VFWD came from it last */

/* map unicast_members: HASH. A vnet's members that are sent group frames by unicast, numbered
 * from 0 on without a gap. Written by the daemon. */
struct vnetd_member_key {
	__u32 handle;
	__u32 number;
};

struct vnetd_member {
	__u8 addr[16];
	__u32 ifindex;
	__be16 port;
	__u16 pad;
};

/* map seen: LRU_HASH, private to bpf/lib/seen.h: group frames whose source is not on the subnet */
struct vnetd_seen_key {
	/* of who sent the frame first */
	__u8 source[16];
	/* of the message */
	__u64 hash;
	/* IPv4 id of the group packet, or 0 where a copy does not tell it */
	__u16 ip_id;
	__u16 len;
	__u32 pad;
};

struct vnetd_seen {
	__u64 time_ns;
	/* with ip_id 0: the copy came without an id */
	__u32 without_id;
	__u32 pad;
};

/* map forwarders: LRU_HASH, private to bpf/lib/forwarders.h: this -> u64, when it forwarded last */
struct vnetd_forwarder_key {
	__u8 mac[VNETD_MAC_LEN];
	__u16 pad;
};

/* ---- hosts: next hops ----------------------------------------------------------------- */

/* map nexthop_ids: HASH, this -> nexthop id (u32, index into nexthops, never 0) */
struct vnetd_nexthop_key {
	__u32 handle;
	__u32 ifindex;
	__u8 addr[16];
};

enum vnetd_nexthop_flags {
	VNETD_NEXTHOP_USED = 1 << 0,
	/* known by hello: kept by the daemon, not swept */
	VNETD_NEXTHOP_MEMBER = 1 << 1,
	/* the same host is reached by a better path, which `other` names */
	VNETD_NEXTHOP_SECONDARY = 1 << 2,
	/* it sends to us by unicast what goes to the group: what comes by the group or by a peer is
	 * a copy */
	VNETD_NEXTHOP_DIRECT = 1 << 3,
};

/* map nexthops: ARRAY, id -> this. One per (vnet, host address, underlay device). */
struct vnetd_nexthop {
	struct vnetd_nexthop_key key;
	/* generation: an fdb entry whose gen differs points to a host that is gone */
	__u32 gen;
	__u32 slot;
	__u32 flags;
	/* the vnet's says how frames are sent; this is for hosts that differ (0 for now) */
	__u32 encap;
	/* fdb entries that point here */
	__u32 entries;
	__u32 capabilities;
	/* of the host's own device, as its hello says; 0: not known */
	__u16 mtu;
	__be16 port;
	/* of the SA that a secure vnet's frames to it go by; 0: there is none, and they are dropped */
	__u32 spi;
	__u64 heard_ns;
	/* the host that this is a path to, as its hello says */
	__u8 host[16];
	/* another path to the same host: of its primary path the next best, of the others the
	 * primary. 0: there is none. Believed only if that record names the same host. */
	__u32 other;
	/* which of the host's paths this is, below VNETD_MAX_PATHS */
	__u8 path;
	__u8 pad;
	/* what host_paths said of it when path_news was this: MTU (0: nothing), and until when */
	__u16 path_mtu;
	__u64 path_mtu_until_ns;
	/* when unicast was sent by it; kept only where there is another path */
	__u64 sent_ns;
	/* its budget of group frames, as in struct vnetd_floods */
	__u64 flood_ns;
	__u32 path_news;
	/* what its route said last, and when (bpf/lib/route.h) */
	__u32 route;
	/* of a secure vnet: its budget of VARP in clear */
	__u64 varp_ns;
};

/* map host_paths: LRU_HASH, this -> vnetd_host_path: the way to each host that said hello, or that
 * routers told of, for all vnets, since a router need not say of which vnet a packet was.
 * map path_news: ARRAY of one u32, changed whenever a record there was. */
struct vnetd_host_path_key {
	__u32 ifindex;
	__u8 addr[16];
};

struct vnetd_host_path {
	/* 0: no router has said anything */
	__u16 mtu;
	__u16 pad[3];
	__u64 mtu_until_ns;
};

/* ---- the MAC table -------------------------------------------------------------------- */

/* map fdb: HASH. Also the element of the queue fdb_queue: one token per entry. */
struct vnetd_fdb_key {
	__u32 handle;
	__u8 mac[VNETD_MAC_LEN];
	__u16 pad;
};

enum vnetd_fdb_flags {
	/* configured: does not age, and no announce takes it elsewhere */
	VNETD_FDB_STATIC = 1 << 0,
	/* set by a VARP announce and not yet confirmed by a frame */
	VNETD_FDB_ANNOUNCED = 1 << 1,
	/* with STATIC: no frame takes it elsewhere either */
	VNETD_FDB_PINNED = 1 << 2,
};

enum vnetd_nexthop_special {
	/* "nexthop" of a MAC that lives on this host */
	VNETD_NEXTHOP_LOCAL = 0,
};

struct vnetd_fdb_entry {
	__u32 nexthop;
	/* the next hop's; of a MAC of this host, the ifindex of the direct port that it is behind, 0: the vnetif */
	__u32 gen;
	__u32 slot;
	__u32 flags;
	__u64 seen_ns;
	/* how often it moved since window_ns; from VNETD_FLAP_MOVES on it is held where it is */
	__u32 moves;
	/* where it was seen while it was held, and when the daemon was told so */
	__u32 other;
	__u64 window_ns;
	__u64 told_ns;
};

enum vnetd_flap {
	/* a MAC that moved so often within so long is held for a while, if it is heard where it is */
	VNETD_FLAP_MOVES = 5,
	VNETD_FLAP_WINDOW_MS = 10000,
	VNETD_FLAP_HOLD_MS = 5000,
	VNETD_FLAP_SILENT_MS = 2000,
};

/* ---- neighbours: which IP address a MAC has ------------------------------------------------ */

/* map neighbours: HASH. Also the element of the queue neighbour_queue: one token per entry. */
struct vnetd_neighbour_key {
	__u32 handle;
	__u8 addr[16];
};

enum vnetd_neighbour_flags {
	/* it was heard on this host last */
	VNETD_NEIGHBOUR_LOCAL = 1 << 0,
	/* IPv6: an advertisement said so; and that one said whether it is */
	VNETD_NEIGHBOUR_ROUTER = 1 << 1,
	VNETD_NEIGHBOUR_ADVERTISED = 1 << 2,
};

/* Changed by the BPF programs alone (bpf/lib/suppress.h). */
struct vnetd_neighbour {
	/* MAC and flags are one word: read and changed together */
	__u8 mac[VNETD_MAC_LEN];
	__u16 flags;
	__u32 slot;
	__u32 pad;
	/* when its owner last said that it has the address; 0: forgotten */
	__u64 heard_ns;
};

/* map neighbour_stats: PERCPU_ARRAY, slot -> this */
struct vnetd_neighbour_stats {
	/* requests that were answered here */
	__u64 answered;
	__u64 learned;
	/* an address went to another MAC while the one before was fresh */
	__u64 changed;
	/* not learned: the vnet's limit, or no room */
	__u64 refused;
};

/* ---- counters ------------------------------------------------------------------------- */

/* map traffic: PERCPU_ARRAY, slot -> this */
struct vnetd_traffic {
	/* indexed by enum vnetd_direction */
	__u64 frames[2];
	__u64 bytes[2];
	/* of the frames above: sent to the group */
	__u64 flooded_frames;
	__u64 flooded_bytes;
	/* of the frames above, by direction: whose outer packet was, or came, in fragments */
	__u64 fragmented[2];
};

/* map drops: PERCPU_HASH, this -> vnetd_drop_count. handle 0: before the vnet was known */
struct vnetd_drop_key {
	__u32 handle;
	__u16 direction;
	__u16 reason;
};

struct vnetd_drop_count {
	__u64 frames;
	__u64 bytes;
};

/* map table_stats: PERCPU_ARRAY of one */
struct vnetd_table_stats {
	__u64 learned;
	__u64 moved;
	__u64 aged;
	__u64 drop_keys_full;
};

/* map varp_stats: PERCPU_ARRAY of one: plain VARP that needed no daemon (bpf/lib/varp_here.h) */
struct vnetd_varp_stats {
	/* requests that were answered; for a MAC that is not here; beyond the budget of answers */
	__u64 answered;
	__u64 not_here;
	__u64 limited;
	/* announces that were entered */
	__u64 taken;
};

/* map device_stats: PERCPU_HASH, ifindex (u32) -> this; what decides merging */
struct vnetd_device_stats {
	__u64 frames;
	__u64 bytes;
	/* large frames (over half the MTU) that came one by one, and super-frames */
	__u64 large_frames;
	__u64 super_frames;
	/* of the frames of all vnets, each of those that GRO merged: XDP knew them */
	__u64 xdp_frames;
#ifdef VNETD_LAYOUT_OVERRIDE /* another layout differs in the size of a value */
	__u64 another_layouts;
#endif
};

/* ---- events to the daemon ------------------------------------------------------------- */

/* rings `control` (must be acted on) and `events` (may be lost) carry these, type first */
enum vnetd_event_type {
	VNETD_EVENT_VARP = 1,
	VNETD_EVENT_LOCAL_NEW = 2,
	VNETD_EVENT_UNKNOWN_UNICAST = 3,
	VNETD_EVENT_MOVED = 4,
	/* as MOVED, of a MAC that stays at `from` although it was seen at `to` */
	VNETD_EVENT_HELD = 5,
	/* a vnet's frames exceed the budget: from this host, or from the host at next hop `from` */
	VNETD_EVENT_STORM = 6,
	VNETD_EVENT_LOOP = 7,
	/* events: VFWD from a host that is no peer */
	VNETD_EVENT_NOT_PEER = 8,
	/* watched (struct vnetd_watch): a MAC that was not known, at next hop `to`; one that is forgotten, which was
	 * there; a frame that was dropped, or whose source was refused; one of a vnet that is captured */
	VNETD_EVENT_LEARNED = 9,
	VNETD_EVENT_AGED = 10,
	VNETD_EVENT_DROP = 11,
	VNETD_EVENT_FRAME = 12,
};

enum vnetd_varp_way {
	VNETD_WAY_DIRECT = 0,
	/* inside VFWD, from a peer */
	VNETD_WAY_FORWARDED = 1,
	/* by an SA of the vnet: source is the address of the SA's host */
	VNETD_WAY_SECURE = 2,
	/* an announce that is entered and counted: a word to the daemon, which may be lost */
	VNETD_WAY_LEARNED = 3,
};

/*
 * control: a VARP message as it arrived, at most VNETD_VARP_MAX_LEN bytes of it. Of one that is no longer than
 * VNETD_VARP_SHORT_LEN the record ends after so many.
 */
struct vnetd_event_varp {
	__u32 type;
	__u32 ifindex;
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__u16 len;
	/* enum vnetd_varp_way; source is the original sender's in either case */
	__u32 way;
	__u8 message[VNETD_VARP_MAX_LEN];
};

/* control: a MAC was seen for the first time, or again after it was elsewhere, on this host;
 * events: LOCAL_NEW has its own ring so that UNKNOWN_UNICAST and MOVED cannot push it out */
struct vnetd_event_mac {
	__u32 type;
	__u32 slot;
	__u32 handle;
	__u8 mac[VNETD_MAC_LEN];
	__u16 pad;
	/* MOVED: nexthop ids before and after, VNETD_NEXTHOP_LOCAL is this host */
	__u32 from;
	__u32 to;
	__u32 pad2;
	__u64 time_ns;
};

/* control: a probe of this host came back, from the vnetif or from the underlay */
struct vnetd_event_loop {
	__u32 type;
	__u32 slot;
	__u32 handle;
	/* enum vnetd_direction: where it was seen */
	__u32 direction;
	/* DECAP: whose packet it was */
	__u8 source[16];
	struct vnetd_probe probe;
};

struct vnetd_event_peer {
	__u32 type;
	__u32 ifindex;
	__u8 addr[16];
};

/* ---- what is watched ------------------------------------------------------------------ */

enum vnetd_watch_flags {
	/* drops and the MAC table's events are wanted */
	VNETD_WATCH_EVENTS = 1 << 0,
	/* frames of vnets with VNETD_VNET_WATCHED are, and drops of vnets */
	VNETD_WATCH_FRAMES = 1 << 1,
};

/* map watch: ARRAY of one. What somebody looks at just now; written by the daemon, again and again
 * while there is somebody. */
struct vnetd_watch {
	/* nothing is said after this, whatever became of the daemon */
	__u64 until_ns;
	__u32 flags;
	/* of EVENTS: of this vnet and for this reason alone; 0: all */
	__u32 handle;
	__u32 reason;
	/* of FRAMES: drops of this vnet alone; 0: of all vnets; and how much of each frame */
	__u32 frames_handle;
	__u32 snap;
	__u32 pad;
};

/* what is paced and counted apart */
enum vnetd_watch_kind {
	VNETD_WATCH_DROPS = 0,
	VNETD_WATCH_MACS = 1,
	VNETD_WATCH_CAPTURED = 2,
	VNETD_WATCH_KINDS = 3,
};

/* map watch_stats: PERCPU_ARRAY, enum vnetd_watch_kind -> this */
struct vnetd_watch_stats {
	__u64 refilled_ns;
	__u64 tokens;
	/* what was not said: too much at once; the ring was full */
	__u64 paced;
	__u64 full;
};

/* watched: the beginning of a packet; the record ends behind `kept` bytes */
struct vnetd_event_packet {
	__u32 type;
	__u32 handle;
	__u16 direction;
	/* enum vnetd_reason */
	__u16 reason;
	/* by which device the program ran */
	__u32 ifindex;
	__u64 time_ns;
	__u32 len;
	__u32 kept;
	/* a tag that the kernel keeps beside the packet: its type, 0 where there is none, and its content, as
	 * they would lie there */
	__be16 vlan_proto;
	__be16 vlan_tci;
	__u32 pad;
	/* kept bytes follow, at most VNETD_WATCH_SNAP */
};

/* ---- dry runs (bpf/lib/copy.h) --------------------------------------------------------- */

enum vnetd_dry {
	/* copies that are noted, the rest are counted; and as much of each */
	VNETD_DRY_COPIES = 64,
	VNETD_DRY_HEAD = 64,
};

/* A copy that would have left: by which device, out of it or into it, and how it begins; a packet that is shorter
 * than VNETD_DRY_HEAD has no head. */
struct vnetd_dry_copy {
	__u32 ifindex;
	__u32 ingress;
	__u32 mark;
	__u32 len;
	__u8 head[VNETD_DRY_HEAD];
};

/* map dry_copies: ARRAY of one */
struct vnetd_dry_copies {
	__u32 count;
	struct vnetd_dry_copy copy[VNETD_DRY_COPIES];
};

/* ---- control program ------------------------------------------------------------------ */

enum vnetd_control_op {
	/* start the sweeper's timer, if it does not run */
	VNETD_CTL_START = 1,
	/* enter (vnet, mac) -> (addr, ifindex), as an announce or a static entry says */
	VNETD_CTL_LEARN = 2,
	/* enter (vnet, mac) as local; gen: the direct port that it is behind, 0: where it is heard now, or the
	 * vnetif */
	VNETD_CTL_LEARN_LOCAL = 3,
	/* let (vnet, mac) die now */
	VNETD_CTL_FORGET = 4,
	/* find or make the next hop (vnet, addr, ifindex) and set its flags, mtu, capabilities, and
	 * host, path and other path */
	VNETD_CTL_NEXTHOP = 5,
	/* let (vnet, mac) die now if it lives on this host */
	VNETD_CTL_FORGET_LOCAL = 6,
	/* the next hop (vnet, addr, ifindex) was heard, if there is one */
	VNETD_CTL_HEARD = 7,
	/* send a probe in the vnet; the "packet" is at least VNETD_PROBE_FRAME_LEN bytes */
	VNETD_CTL_PROBE = 8,
	/* count a message of `mtu` bytes that the daemon did not take, or did not send: by handle (0:
	 * no vnet), for the reason `result`, in the direction `path` */
	VNETD_CTL_COUNT = 9,
	/* find or make the next hop (vnet, addr, ifindex) and set the SPI that is sent by (0: none);
	 * says its number and generation */
	VNETD_CTL_KEYS = 10,
	/* LEARN or, with ifindex 0, LEARN_LOCAL of many MACs: so many of struct vnetd_control_mac as
	 * `capabilities` says follow the request. Answers how many were taken in `gen`, and in `result` why
	 * the last that was not. Announced ones that live here are left, and marked */
	VNETD_CTL_LEARN_MANY = 11,
	/* let the neighbour (vnet, addr) be forgotten now */
	VNETD_CTL_FORGET_NEIGHBOUR = 12,
	/* HEARD, then LEARN: a host said hello and announced its own MAC */
	VNETD_CTL_LEARN_HEARD = 13,
};

enum vnetd_control_many {
	/* what a test run's packet has room for, which is less than a page */
	VNETD_CONTROL_MACS = 200,
};

/* and when it was heard */
struct vnetd_control_mac {
	__u8 mac[VNETD_MAC_LEN];
	/* of the answer: it was announced, and lives here */
	__u16 here;
	__u64 seen_ns;
};

/*
 * The "packet" that the daemon hands to bpf/control.bpf.c through BPF_PROG_TEST_RUN: an
 * Ethernet header (ignored, a test run wants one) and the request. The answer comes back in
 * place: result is 0 or a vnetd_reason.
 */
struct vnetd_control {
	__u8 eth[14];
	__u16 op;
	__u32 result;
	__u32 slot;
	__u32 handle;
	__u32 ifindex;
	__u32 fdb_flags;
	__u32 nexthop;
	__u32 nexthop_flags;
	__u32 capabilities;
	__u16 mtu;
	__u8 mac[VNETD_MAC_LEN];
	__u8 addr[16];
	/* the other path is (other_addr, other_ifindex); 0: there is none */
	__u32 other_ifindex;
	__u8 other_addr[16];
	__u8 host[16];
	__u8 path;
	__u8 pad[3];
	__u32 spi;
	/* answered by NEXTHOP, KEYS and LEARN, as nexthop is */
	__u32 gen;
};

/* map sweeper: ARRAY of one, private to bpf/lib/sweep.h (it holds a bpf_timer).
 * queue nexthop_free: ids of unused next hops; the daemon fills it once, when it makes the map.
 * queues fdb_queue and neighbour_queue: keys of all entries, in the order in which the sweeper looks at them. */

#ifndef __cplusplus
#define VNETD_SIZE(type, n) _Static_assert(sizeof(struct type) == (n), #type)
VNETD_SIZE(vnetd_vudp_hdr, VNETD_VUDP_HDR_LEN);
VNETD_SIZE(vnetd_varp, VNETD_VARP_LEN);
VNETD_SIZE(vnetd_vfwd_hdr, VNETD_VFWD_HDR_LEN);
VNETD_SIZE(vnetd_vfwd_ipv6_hdr, VNETD_VFWD_IPV6_HDR_LEN);
VNETD_SIZE(vnetd_meta, 60);
VNETD_SIZE(vnetd_vnet, 144);
VNETD_SIZE(vnetd_vnet_counts, 16);
VNETD_SIZE(vnetd_direct_port, 16);
VNETD_SIZE(vnetd_floods, 88);
VNETD_SIZE(vnetd_varp_stats, 32);
VNETD_SIZE(vnetd_probe, 208);
VNETD_SIZE(vnetd_event_loop, 240);
VNETD_SIZE(vnetd_place, 8);
VNETD_SIZE(vnetd_underlay, 68);
VNETD_SIZE(vnetd_xdp_meta, 20);
VNETD_SIZE(vnetd_nexthop_key, 24);
VNETD_SIZE(vnetd_nexthop, 128);
VNETD_SIZE(vnetd_host_path_key, 20);
VNETD_SIZE(vnetd_host_path, 16);
VNETD_SIZE(vnetd_fdb_key, 12);
VNETD_SIZE(vnetd_fdb_entry, 48);
VNETD_SIZE(vnetd_neighbour_key, 20);
VNETD_SIZE(vnetd_neighbour, 24);
VNETD_SIZE(vnetd_neighbour_stats, 32);
VNETD_SIZE(vnetd_event_varp, 48 + VNETD_VARP_MAX_LEN);
VNETD_SIZE(vnetd_event_mac, 40);
VNETD_SIZE(vnetd_control, 120);
VNETD_SIZE(vnetd_control_mac, 16);
VNETD_SIZE(vnetd_spi, 52);
VNETD_SIZE(vnetd_secure_member, 8);
VNETD_SIZE(vnetd_event_peer, 24);
VNETD_SIZE(vnetd_watch, 32);
VNETD_SIZE(vnetd_watch_stats, 32);
VNETD_SIZE(vnetd_event_packet, 40);
VNETD_SIZE(vnetd_dry_copy, 80);
VNETD_SIZE(vnetd_peer, 48);
VNETD_SIZE(vnetd_member, 24);
VNETD_SIZE(vnetd_seen_key, 32);
VNETD_SIZE(vnetd_seen, 16);
#endif

#endif
