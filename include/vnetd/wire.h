/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The wire format, whole: every message that crosses the underlay, as structs and enums.
 *
 * Included by the BPF programs; the TypeScript constants and offsets are generated from this
 * header's BTF (scripts/gen-layouts.mjs -> src/generated/layouts.ts), so nothing here is ever
 * written a second time. Constants are enums because a #define leaves no BTF.
 *
 * All multi-byte fields are big-endian. docs/wire-format.md says the same in words.
 */
#ifndef VNETD_WIRE_H
#define VNETD_WIRE_H

#include <linux/types.h>

#define VNETD_PACKED __attribute__((packed))

enum vnetd_wire {
	VNETD_UDP_PORT = 1798,
	/* 224.10.0.1, host byte order */
	VNETD_GROUP_IPV4 = 0xe00a0001,
	VNETD_ID_LEN = 16,
	VNETD_MAC_LEN = 6,
	/* message id and opcode */
	VNETD_MSG_HDR_LEN = 4,
	/* message header, EtherIP version, vnet id */
	VNETD_VUDP_HDR_LEN = 22,
	VNETD_VARP_LEN = 43,
	/* message header, inner IPv4, inner UDP */
	VNETD_VFWD_HDR_LEN = 32,
	/* the same with an inner IPv6 header */
	VNETD_VFWD_IPV6_HDR_LEN = 52,
	/* what stands in front of a frame in the outer packet: IP + UDP + VUDP */
	VNETD_VUDP_IPV4_OVERHEAD = 50,
	VNETD_VUDP_IPV6_OVERHEAD = 70,
	/* EtherIP in IP protocol 97, without UDP: version and vnet id alone */
	VNETD_ETHERIP_PROTOCOL = 97,
	VNETD_ETHERIP_HDR_LEN = 18,
	/* IP + EtherIP */
	VNETD_ETHERIP_IPV4_OVERHEAD = 38,
	VNETD_ETHERIP_IPV6_OVERHEAD = 58,
	/* the version bytes `00 40` as x86 hosts send them; big-endian hosts sent `40 00` */
	VNETD_ETHERIP_VERSION = 0x0040,
	VNETD_ETHERIP_VERSION_BE_HOST = 0x4000,
	/* EtherIP as RFC 3378 has it: somebody else's */
	VNETD_ETHERIP_VERSION_RFC3378 = 0x3000,
	VNETD_TTL_GROUP = 1,
	VNETD_TTL_UNICAST = 64,
	/* a path's MTU is never believed to be smaller (RFC 791 section 3.1: every host takes
	 * that), and at that nothing carries DF */
	VNETD_PATH_MTU_MIN = 576,
	/* over IPv6: what every link carries (RFC 8200 section 5) */
	VNETD_PATH_MTU_MIN_IPV6 = 1280,
	/* an original takes no longer packet: 1662 bytes of UDP payload */
	VNETD_ORIGINAL_MAX_PACKET = 1690,
	/* source ports that carry the inner flow's hash: [base, base + span) */
	VNETD_SPORT_BASE = 49152,
	VNETD_SPORT_SPAN = 16384,
};

enum vnetd_msg {
	VNETD_MSG_VARP = 1,
	VNETD_MSG_VUDP = 2,
	VNETD_MSG_VFWD = 3,
};

enum vnetd_varp_op {
	VNETD_VARP_REQUEST = 1,
	VNETD_VARP_ANNOUNCE = 2,
};

/* Linux values of the address family, as the original sent them */
enum vnetd_varp_family {
	VNETD_VARP_INET = 2,
	VNETD_VARP_INET6 = 10,
};

struct vnetd_msg_hdr {
	__be16 id;
	__be16 opcode;
} VNETD_PACKED;

struct vnetd_vudp_hdr {
	struct vnetd_msg_hdr msg;
	__be16 etherip;
	__u8 vnet[VNETD_ID_LEN];
	/* the Ethernet frame follows, no FCS */
} VNETD_PACKED;

struct vnetd_varp {
	struct vnetd_msg_hdr msg;
	__u8 vnet[VNETD_ID_LEN];
	__u8 vmac[VNETD_MAC_LEN];
	__u8 family;
	/* IPv4 in the first 4 bytes, the rest zero */
	__u8 addr[16];
	/* the hello extension may follow; an original ignores it */
} VNETD_PACKED;

/* A message to the group, for a host that multicast does not reach; the inner message follows. */
struct vnetd_vfwd_hdr {
	struct vnetd_msg_hdr msg;
	/* IPv4: an original that relays sets protocol and addresses alone; source 0 is the address
	 * that the outer packet came from */
	__u8 inner_ip[20];
	__u8 inner_udp[8];
} VNETD_PACKED;

/* The same over IPv6, between hosts of ours: what went to the IPv6 group. */
struct vnetd_vfwd_ipv6_hdr {
	struct vnetd_msg_hdr msg;
	/* source 0 as above */
	__u8 inner_ip[40];
	__u8 inner_udp[8];
} VNETD_PACKED;

/*
 * The hello extension: bytes behind the 43 of a VARP message. A receiver that does not know
 * the magic or the version ignores all of it; a TLV of an unknown type is skipped.
 */
enum vnetd_ext {
	/* "VNTD" */
	VNETD_EXT_MAGIC = 0x564e5444,
	VNETD_EXT_VERSION = 1,
	VNETD_EXT_HDR_LEN = 8,
	VNETD_TLV_HDR_LEN = 4,
	/* the whole VARP message with its extension never exceeds this */
	VNETD_VARP_MAX_LEN = 512,
	/* of the header's flags: the message is about other vnets too than the one in front */
	VNETD_EXT_LIST = 1 << 0,
};

struct vnetd_ext_hdr {
	__be32 magic;
	__u8 version;
	/* of enum vnetd_ext; those that are not known are not read */
	__u8 flags;
	/* bytes of TLVs that follow this header */
	__be16 len;
} VNETD_PACKED;

struct vnetd_tlv_hdr {
	__be16 type;
	/* bytes of the value, without this header */
	__be16 len;
} VNETD_PACKED;

enum vnetd_tlv_type {
	/* 16 bytes: stable identity of the host, survives reboots */
	VNETD_TLV_HOST_ID = 1,
	/* 8 bytes: random, new at each start of the daemon */
	VNETD_TLV_BOOT_NONCE = 2,
	/* 4 bytes: bits of enum vnetd_capability */
	VNETD_TLV_CAPABILITIES = 3,
	/* 2 bytes: MTU of the underlay device the message left by */
	VNETD_TLV_UNDERLAY_MTU = 4,
	/* 1..63 bytes UTF-8: the host's name, for people; never used as a key */
	VNETD_TLV_HOST_NAME = 5,
	/* 1..31 bytes ASCII: software version, for people */
	VNETD_TLV_SOFTWARE = 6,
	/* 0 bytes: "who else is in this vnet": answer with a unicast hello */
	VNETD_TLV_SOLICIT = 7,
	/* 0 bytes: the sender leaves this vnet (deleted or detached) */
	VNETD_TLV_GOODBYE = 8,
	/* 22 n bytes, of a hello in clear: it is said of these vnets too. Each is a vnet id and the vnetif's MAC there.
	 * For hosts with VNETD_CAP_LISTS */
	VNETD_TLV_VNETS = 16,
	/* of an announce or a request in clear: it is about these MACs too. Groups of a vnet id (16), a number n (2) and n
	 * MACs. Nothing else is read of the extension then. For hosts with VNETD_CAP_LISTS */
	VNETD_TLV_MACS = 17,
	/* 20 bytes: IPv4 and IPv6 multicast group of the vnets that the hello is of, which the sender joined and sends to;
	 * 0: it has none of that family. Absent: none */
	VNETD_TLV_GROUP = 18,
	/* 2 + 16 n bytes: length of the subnet's prefix, n, and the addresses of the sender's peers
	 * (IPv4 as ::ffff:a.b.c.d); n is 255 and there are none when they do not fit. Absent: no
	 * peers */
	VNETD_TLV_PEERS = 32,
	/* a message by which two hosts of a secure vnet agree on keys (docs/security.md); nothing else is read of
	 * the extension then */
	VNETD_TLV_KEYS = 48,
	/* 28 bytes, of a secure vnet's hello, the last TLV or TLVs: suite (1), 3 of zero, key id (8), and HMAC-SHA256
	 * cut to 16 bytes of the whole VARP message up to the end of the extension, with the last 16 bytes
	 * of each of these TLVs zero. One for each key that the sender takes, the one that it begins
	 * with first */
	VNETD_TLV_AUTH = 49,
	/* 20 bytes: asks whether a packet arrives, or says that it did (struct vnetd_ask); nothing else is read of
	 * the extension then. What follows the extension is there to make the packet large */
	VNETD_TLV_ASK = 64,
};

enum vnetd_ask_kind {
	VNETD_ASK_QUESTION = 1,
	VNETD_ASK_ANSWER = 2,
};

enum vnetd_ask_flags {
	/* the answer is to go to the group */
	VNETD_ASK_BY_GROUP = 1,
	/* of a question: in the clock's place is a MAC, and 2 bytes of zero: does it live on the host that is asked? */
	VNETD_ASK_MAC = 2,
	/* of the answer: it does, it does not; neither: that is not said, as of secure vnets */
	VNETD_ASK_HERE = 4,
	VNETD_ASK_NOT_HERE = 8,
};

/* Of TLV_ASK. Anybody may ask, and nothing is believed of an answer but that it came. */
struct vnetd_ask {
	__u8 kind;
	__u8 flags;
	__be16 reserved;
	/* made up by who asks, and sent back */
	__u8 token[8];
	/* of an answer: the answering host's clock, milliseconds since 1970 */
	__be64 clock;
} VNETD_PACKED;

/*
 * The probe: an Ethernet frame that a host sends into a vnet to see whether it comes back another way.
 * Carried like any frame; each host of ours that takes one off the underlay writes a hop into it.
 * Guests and originals see a small frame of an experimental type to a group address.
 */
enum vnetd_probe_wire {
	/* IEEE 802, local experimental EtherType 1 */
	VNETD_PROBE_ETHERTYPE = 0x88b5,
	/* "VNTP" */
	VNETD_PROBE_MAGIC = 0x564e5450,
	VNETD_PROBE_VERSION = 1,
	VNETD_PROBE_HOPS = 4,
	/* with its Ethernet header */
	VNETD_PROBE_FRAME_LEN = 222,
};

/* from one host's vnet into another's */
struct vnetd_probe_hop {
	__u8 vnet[VNETD_ID_LEN];
	/* underlay addresses, in the maps' form; from is 0 where a host gave it to its own bridge */
	__u8 from[16];
	__u8 to[16];
} VNETD_PACKED;

struct vnetd_probe {
	__be32 magic;
	__u8 version;
	/* how many of the hops are filled in */
	__u8 hops;
	__be16 reserved;
	/* random, known only to who sent it: one for each vnet and start of a daemon */
	__u64 nonce;
	struct vnetd_probe_hop hop[VNETD_PROBE_HOPS];
} VNETD_PACKED;

enum vnetd_capability {
	VNETD_CAP_HELLO = 1 << 0,
	/* "I read VNETD_TLV_VNETS and VNETD_TLV_MACS" */
	VNETD_CAP_LISTS = 1 << 1,
	/* "I use no multicast: send me by unicast what goes to the group of vnets I am in" */
	VNETD_CAP_UNICAST = 1 << 8,
};

#endif
