// SPDX-License-Identifier: Apache-2.0
/**
 * Generated from include/vnetd/*.h by scripts/gen-layouts.mjs. Do not edit: change the header and
 * run `make layouts`. `make lint` fails when this file is stale.
 *
 * Every enum is a constant object, every struct an interface with its sizes and offsets and a
 * write / encode / decode function. Fields are camelCase. u64 is a bigint; byte arrays are copied
 * on decode; __be fields are big-endian and appear as numbers in host order. Padding and reserved
 * fields are written as zero and not read. Other fields are in the machine's own order, and only
 * little-endian machines are supported (checked below).
 */

if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error("vnetd's map layouts are read as little-endian; this machine is big-endian");
}

function atLeast(buf: Buffer, offset: number, size: number, what: string): void {
  if (buf.length - offset < size) {
    throw new RangeError(`${what} is ${size} bytes, there are ${buf.length - offset}`);
  }
}

function elements<T>(value: readonly T[], count: number, what: string): readonly T[] {
  if (value.length !== count) throw new RangeError(`${what} has ${count} elements, not ${value.length}`);
  return value;
}

function putBytes(out: Buffer, value: Uint8Array, offset: number, count: number, what: string): void {
  if (value.length !== count) throw new RangeError(`${what} is ${count} bytes, not ${value.length}`);
  out.set(value, offset);
}

/** enum vnetd_limits; VNETD_ left out of the names */
export const vnetdLimits = {
  LAYOUT: 1,
  MAX_VNETS: 4096,
  MAX_UNDERLAYS: 8,
  MAX_PATHS: 8,
  DEFAULT_FDB_ENTRIES: 65536,
  DEFAULT_NEXTHOPS: 16384,
  DEFAULT_FDB_PER_VNET: 16384,
  DEFAULT_FDB_PER_HOST: 4096,
  DEFAULT_HOSTS_PER_VNET: 1024,
  DEFAULT_FLOOD_PER_SECOND: 10000,
  DEFAULT_FLOOD_BURST: 10000,
  DEFAULT_NEIGHBOURS: 16384,
  DEFAULT_NEIGHBOURS_PER_VNET: 4096,
  SECRET_LEN: 10,
  REASSEMBLY_PORT: 4790,
  MAX_HOST_PATHS: 4096,
  MAX_DROP_KEYS: 65536,
  MAX_PEERS: 256,
  MAX_UNICAST_MEMBERS: 16384,
  MAX_SEEN: 16384,
  MAX_FORWARDERS: 256,
  MAX_SPIS: 65536,
  MAX_SECURE_MEMBERS: 65536,
  MAX_VNET_MEMBERS: 16384,
  MAX_DIRECT_PORTS: 16384,
  MAX_VNET_PORTS: 256,
  RING_BYTES: 1048576,
  VARP_SHORT_LEN: 256,
  WATCH_RING_BYTES: 2097152,
  WATCH_SNAP: 9216,
  WATCH_HEAD: 128,
} as const;
export type VnetdLimits = (typeof vnetdLimits)[keyof typeof vnetdLimits];

/** enum vnetd_security; VNETD_ left out of the names */
export const vnetdSecurity = {
  SECURITY_NONE: 0,
  SECURITY_AUTH: 1,
  SECURITY_CONF: 2,
} as const;
export type VnetdSecurity = (typeof vnetdSecurity)[keyof typeof vnetdSecurity];

/** enum vnetd_encap; VNETD_ left out of the names */
export const vnetdEncap = {
  ENCAP_UDP: 0,
  ENCAP_ETHERIP: 1,
} as const;
export type VnetdEncap = (typeof vnetdEncap)[keyof typeof vnetdEncap];

/** enum vnetd_vnet_flags; VNETD_ left out of the names */
export const vnetdVnetFlags = {
  VNET_UP: 1,
  VNET_WATCHED: 2,
  VNET_PORTS: 4,
  VNET_SUPPRESS: 8,
  VNET_GROUP: 16,
  VNET_GROUP6: 32,
} as const;
export type VnetdVnetFlags = (typeof vnetdVnetFlags)[keyof typeof vnetdVnetFlags];

/** enum vnetd_flood; VNETD_ left out of the names */
export const vnetdFlood = {
  LOOP_PER_SECOND: 100,
  PROBES_PER_SECOND: 20,
  LOOP_HOLD_MS: 10000,
  FLOOD_RECEIVE_FACTOR: 2,
  CLEAR_VARP_PER_SECOND: 500,
  CLEAR_VARP_PER_HOST: 20,
  CLEAR_VARP_HOST_BURST: 60,
  ANSWERS_PER_SECOND: 200000,
} as const;
export type VnetdFlood = (typeof vnetdFlood)[keyof typeof vnetdFlood];

/** enum vnetd_direct_flags; VNETD_ left out of the names */
export const vnetdDirectFlags = {
  DIRECT_PEER: 1,
} as const;
export type VnetdDirectFlags = (typeof vnetdDirectFlags)[keyof typeof vnetdDirectFlags];

/** enum vnetd_underlay_flags; VNETD_ left out of the names */
export const vnetdUnderlayFlags = {
  UNDERLAY_UP: 1,
  UNDERLAY_MERGE: 2,
  UNDERLAY_RELAY: 256,
  UNDERLAY_NO_GROUP: 512,
  UNDERLAY_GROUP_WORKS: 1024,
  UNDERLAY_XDP_STRIPS: 2048,
} as const;
export type VnetdUnderlayFlags = (typeof vnetdUnderlayFlags)[keyof typeof vnetdUnderlayFlags];

/** enum vnetd_xdp_mark; VNETD_ left out of the names */
export const vnetdXdpMark = {
  XDP_MARK_0: 118,
  XDP_MARK_1: 110,
} as const;
export type VnetdXdpMark = (typeof vnetdXdpMark)[keyof typeof vnetdXdpMark];

/** enum vnetd_family; VNETD_ left out of the names */
export const vnetdFamily = {
  FAMILY_IPV4: 4,
  FAMILY_IPV6: 6,
} as const;
export type VnetdFamily = (typeof vnetdFamily)[keyof typeof vnetdFamily];

/** enum vnetd_esp; VNETD_ left out of the names */
export const vnetdEsp = {
  ESP_LOCAL4: 4026531841,
  ESP_REMOTE4: 4043309056,
  ESP_PREFIX6: 16777216,
  ESP_ID: 1979711488,
  ESP_ID_MASK: 4278190080,
} as const;
export type VnetdEsp = (typeof vnetdEsp)[keyof typeof vnetdEsp];

/** enum vnetd_forward; VNETD_ left out of the names */
export const vnetdForward = {
  FORWARD_IPV4: 1,
  FORWARD_IPV6: 2,
} as const;
export type VnetdForward = (typeof vnetdForward)[keyof typeof vnetdForward];

/** enum vnetd_peer_flags; VNETD_ left out of the names */
export const vnetdPeerFlags = {
  PEER_USED: 1,
  PEER_SEND: 2,
  PEER_UNICAST: 4,
} as const;
export type VnetdPeerFlags = (typeof vnetdPeerFlags)[keyof typeof vnetdPeerFlags];

/** enum vnetd_nexthop_flags; VNETD_ left out of the names */
export const vnetdNexthopFlags = {
  NEXTHOP_USED: 1,
  NEXTHOP_MEMBER: 2,
  NEXTHOP_SECONDARY: 4,
  NEXTHOP_DIRECT: 8,
} as const;
export type VnetdNexthopFlags = (typeof vnetdNexthopFlags)[keyof typeof vnetdNexthopFlags];

/** enum vnetd_fdb_flags; VNETD_ left out of the names */
export const vnetdFdbFlags = {
  FDB_STATIC: 1,
  FDB_ANNOUNCED: 2,
  FDB_PINNED: 4,
} as const;
export type VnetdFdbFlags = (typeof vnetdFdbFlags)[keyof typeof vnetdFdbFlags];

/** enum vnetd_nexthop_special; VNETD_ left out of the names */
export const vnetdNexthopSpecial = {
  NEXTHOP_LOCAL: 0,
} as const;
export type VnetdNexthopSpecial = (typeof vnetdNexthopSpecial)[keyof typeof vnetdNexthopSpecial];

/** enum vnetd_flap; VNETD_ left out of the names */
export const vnetdFlap = {
  FLAP_MOVES: 5,
  FLAP_WINDOW_MS: 10000,
  FLAP_HOLD_MS: 5000,
  FLAP_SILENT_MS: 2000,
} as const;
export type VnetdFlap = (typeof vnetdFlap)[keyof typeof vnetdFlap];

/** enum vnetd_neighbour_flags; VNETD_ left out of the names */
export const vnetdNeighbourFlags = {
  NEIGHBOUR_LOCAL: 1,
  NEIGHBOUR_ROUTER: 2,
  NEIGHBOUR_ADVERTISED: 4,
} as const;
export type VnetdNeighbourFlags = (typeof vnetdNeighbourFlags)[keyof typeof vnetdNeighbourFlags];

/** enum vnetd_event_type; VNETD_ left out of the names */
export const vnetdEventType = {
  EVENT_VARP: 1,
  EVENT_LOCAL_NEW: 2,
  EVENT_UNKNOWN_UNICAST: 3,
  EVENT_MOVED: 4,
  EVENT_HELD: 5,
  EVENT_STORM: 6,
  EVENT_LOOP: 7,
  EVENT_NOT_PEER: 8,
  EVENT_LEARNED: 9,
  EVENT_AGED: 10,
  EVENT_DROP: 11,
  EVENT_FRAME: 12,
} as const;
export type VnetdEventType = (typeof vnetdEventType)[keyof typeof vnetdEventType];

/** enum vnetd_varp_way; VNETD_ left out of the names */
export const vnetdVarpWay = {
  WAY_DIRECT: 0,
  WAY_FORWARDED: 1,
  WAY_SECURE: 2,
  WAY_LEARNED: 3,
} as const;
export type VnetdVarpWay = (typeof vnetdVarpWay)[keyof typeof vnetdVarpWay];

/** enum vnetd_watch_flags; VNETD_ left out of the names */
export const vnetdWatchFlags = {
  WATCH_EVENTS: 1,
  WATCH_FRAMES: 2,
} as const;
export type VnetdWatchFlags = (typeof vnetdWatchFlags)[keyof typeof vnetdWatchFlags];

/** enum vnetd_watch_kind; VNETD_ left out of the names */
export const vnetdWatchKind = {
  WATCH_DROPS: 0,
  WATCH_MACS: 1,
  WATCH_CAPTURED: 2,
  WATCH_KINDS: 3,
} as const;
export type VnetdWatchKind = (typeof vnetdWatchKind)[keyof typeof vnetdWatchKind];

/** enum vnetd_dry; VNETD_ left out of the names */
export const vnetdDry = {
  DRY_COPIES: 64,
  DRY_HEAD: 64,
} as const;
export type VnetdDry = (typeof vnetdDry)[keyof typeof vnetdDry];

/** enum vnetd_control_op; VNETD_ left out of the names */
export const vnetdControlOp = {
  CTL_START: 1,
  CTL_LEARN: 2,
  CTL_LEARN_LOCAL: 3,
  CTL_FORGET: 4,
  CTL_NEXTHOP: 5,
  CTL_FORGET_LOCAL: 6,
  CTL_HEARD: 7,
  CTL_PROBE: 8,
  CTL_COUNT: 9,
  CTL_KEYS: 10,
  CTL_LEARN_MANY: 11,
  CTL_FORGET_NEIGHBOUR: 12,
  CTL_LEARN_HEARD: 13,
} as const;
export type VnetdControlOp = (typeof vnetdControlOp)[keyof typeof vnetdControlOp];

/** enum vnetd_control_many; VNETD_ left out of the names */
export const vnetdControlMany = {
  CONTROL_MACS: 200,
} as const;
export type VnetdControlMany = (typeof vnetdControlMany)[keyof typeof vnetdControlMany];

/** enum vnetd_mark; VNETD_ left out of the names */
export const vnetdMark = {
  MARK_NONE: 0,
  MARK_KIND: 4294963200,
  MARK_VALUE: 4095,
  MARK_SECOND_PASS: 1984827392,
  MARK_SEGMENTED: 1984831488,
  MARK_OVERSIZE: 1984835584,
  MARK_FRAGMENT: 1984839680,
  MARK_FRAGMENT_SHIFT: 6,
  MARK_PROBE: 1984843776,
  MARK_PIECE: 1984847872,
  MARK_SECURE_PASS: 1984851968,
  MARK_TO_ALL: 1,
  MARK_SECURE_LARGE: 1984868352,
  MARK_SECURE_WHOLE: 1984872448,
  MARK_ESP: 1984823297,
  MARK_FORWARDED: 2048,
  MARK_INDEX: 7,
  MARK_RELAY: 1984856064,
  MARK_RELAY_IN: 1984860160,
  MARK_RELAY_OUT: 1984864256,
  MARK_OTHER_FAMILY: 1984888832,
  MARK_OTHER_FAMILY_KIND: 4294901760,
  MARK_OURS: 1984823296,
  MARK_OURS_MASK: 4294836224,
} as const;
export type VnetdMark = (typeof vnetdMark)[keyof typeof vnetdMark];

/** enum vnetd_direction; VNETD_ left out of the names */
export const vnetdDirection = {
  DIR_ENCAP: 0,
  DIR_DECAP: 1,
} as const;
export type VnetdDirection = (typeof vnetdDirection)[keyof typeof vnetdDirection];

/** enum vnetd_reason; VNETD_ left out of the names */
export const vnetdReason = {
  OK: 0,
  DROP_TRUNCATED: 1,
  DROP_UNKNOWN_MESSAGE: 2,
  DROP_BAD_HEADER_CHECKSUM: 3,
  DROP_BAD_UDP_LENGTH: 4,
  DROP_OWN_ECHO: 5,
  DROP_BAD_SOURCE_ADDRESS: 6,
  DROP_BAD_VERSION: 7,
  DROP_BAD_VNET_ID: 8,
  DROP_UNKNOWN_VNET: 9,
  DROP_VNET_DOWN: 10,
  DROP_SHORT_FRAME: 11,
  DROP_DUPLICATE_PATH: 12,
  DROP_SECURITY: 13,
  DROP_BAD_SUPERFRAME: 14,
  DROP_VARP_SHORT: 15,
  DROP_VARP_BAD_OPCODE: 16,
  DROP_VARP_BAD_FAMILY: 17,
  DROP_VARP_QUEUE_FULL: 18,
  DROP_REASSEMBLY_FORGED: 19,
  DROP_VFWD_NOT_PEER: 20,
  DROP_NO_UNDERLAY: 21,
  DROP_TOO_BIG: 22,
  DROP_SUPERFRAME_TOO_LONG: 23,
  DROP_ENCAP_FAILED: 24,
  DROP_STALE_PASS: 25,
  DROP_NO_MEMORY: 26,
  REFUSED_GROUP_MAC: 27,
  REFUSED_HOST_LIMIT: 28,
  REFUSED_VNET_LIMIT: 29,
  REFUSED_TABLE_FULL: 30,
  REFUSED_VNET_HOSTS: 31,
  REFUSED_HOSTS_FULL: 32,
  REFUSED_STATIC: 33,
  DROP_CARRIES_ITSELF: 34,
  DROP_VFWD_BAD_INNER: 35,
  DROP_VFWD_NESTED: 36,
  DROP_VFWD_NOT_GROUP: 37,
  DROP_VFWD_UNAVAILABLE: 38,
  DROP_DUPLICATE_FORWARD: 39,
  DROP_NO_RECEIVER: 40,
  DROP_COPY_FAILED: 41,
  DROP_STORM: 42,
  DROP_LOOP: 43,
  DROP_ICMP_CHECKSUM: 44,
  DROP_ICMP_FORGED: 45,
  DROP_VARP_UNKNOWN_VNET: 46,
  DROP_VARP_BAD_ADDRESS: 47,
  DROP_VARP_BAD_TLV: 48,
  DROP_VARP_LOCAL: 49,
  DROP_VARP_RATE: 50,
  DROP_ETHERIP_FRAGMENT: 51,
  DROP_NO_KEYS: 52,
  DROP_ESP_SOURCE: 53,
  DROP_ESP_UNKNOWN: 54,
  DROP_ESP_OTHER_VNET: 55,
  DROP_ESP_OTHER_LEVEL: 56,
  DROP_ESP_INNER_SOURCE: 57,
  DROP_ESP_REPLAY: 58,
  DROP_ESP_INTEGRITY: 59,
  DROP_VARP_UNAUTHENTICATED: 60,
  DROP_KEYS_MALFORMED: 61,
  DROP_KEYS_NOT_FOR_US: 62,
  DROP_KEYS_UNKNOWN_KEY: 63,
  DROP_KEYS_BAD_MAC: 64,
  DROP_KEYS_OTHER_SUITE: 65,
  DROP_KEYS_NOT_FRESH: 66,
  DROP_KEYS_NO_EXCHANGE: 67,
  DROP_KEYS_TOO_MANY: 68,
  DROP_HAIRPIN: 69,
  DROP_XDP_LOST: 70,
  DROP_OTHER_GROUP: 71,
  REASON_COUNT: 72,
} as const;
export type VnetdReason = (typeof vnetdReason)[keyof typeof vnetdReason];

/** enum vnetd_wire; VNETD_ left out of the names */
export const vnetdWire = {
  UDP_PORT: 1798,
  GROUP_IPV4: 3758751745,
  ID_LEN: 16,
  MAC_LEN: 6,
  MSG_HDR_LEN: 4,
  VUDP_HDR_LEN: 22,
  VARP_LEN: 43,
  VFWD_HDR_LEN: 32,
  VFWD_IPV6_HDR_LEN: 52,
  VUDP_IPV4_OVERHEAD: 50,
  VUDP_IPV6_OVERHEAD: 70,
  ETHERIP_PROTOCOL: 97,
  ETHERIP_HDR_LEN: 18,
  ETHERIP_IPV4_OVERHEAD: 38,
  ETHERIP_IPV6_OVERHEAD: 58,
  ETHERIP_VERSION: 64,
  ETHERIP_VERSION_BE_HOST: 16384,
  ETHERIP_VERSION_RFC3378: 12288,
  TTL_GROUP: 1,
  TTL_UNICAST: 64,
  PATH_MTU_MIN: 576,
  PATH_MTU_MIN_IPV6: 1280,
  ORIGINAL_MAX_PACKET: 1690,
  SPORT_BASE: 49152,
  SPORT_SPAN: 16384,
} as const;
export type VnetdWire = (typeof vnetdWire)[keyof typeof vnetdWire];

/** enum vnetd_msg; VNETD_ left out of the names */
export const vnetdMsg = {
  MSG_VARP: 1,
  MSG_VUDP: 2,
  MSG_VFWD: 3,
} as const;
export type VnetdMsg = (typeof vnetdMsg)[keyof typeof vnetdMsg];

/** enum vnetd_varp_op; VNETD_ left out of the names */
export const vnetdVarpOp = {
  VARP_REQUEST: 1,
  VARP_ANNOUNCE: 2,
} as const;
export type VnetdVarpOp = (typeof vnetdVarpOp)[keyof typeof vnetdVarpOp];

/** enum vnetd_varp_family; VNETD_ left out of the names */
export const vnetdVarpFamily = {
  VARP_INET: 2,
  VARP_INET6: 10,
} as const;
export type VnetdVarpFamily = (typeof vnetdVarpFamily)[keyof typeof vnetdVarpFamily];

/** enum vnetd_ext; VNETD_ left out of the names */
export const vnetdExt = {
  EXT_MAGIC: 1447973956,
  EXT_VERSION: 1,
  EXT_HDR_LEN: 8,
  TLV_HDR_LEN: 4,
  VARP_MAX_LEN: 512,
  EXT_LIST: 1,
} as const;
export type VnetdExt = (typeof vnetdExt)[keyof typeof vnetdExt];

/** enum vnetd_tlv_type; VNETD_ left out of the names */
export const vnetdTlvType = {
  TLV_HOST_ID: 1,
  TLV_BOOT_NONCE: 2,
  TLV_CAPABILITIES: 3,
  TLV_UNDERLAY_MTU: 4,
  TLV_HOST_NAME: 5,
  TLV_SOFTWARE: 6,
  TLV_SOLICIT: 7,
  TLV_GOODBYE: 8,
  TLV_VNETS: 16,
  TLV_MACS: 17,
  TLV_GROUP: 18,
  TLV_PEERS: 32,
  TLV_KEYS: 48,
  TLV_AUTH: 49,
  TLV_ASK: 64,
} as const;
export type VnetdTlvType = (typeof vnetdTlvType)[keyof typeof vnetdTlvType];

/** enum vnetd_ask_kind; VNETD_ left out of the names */
export const vnetdAskKind = {
  ASK_QUESTION: 1,
  ASK_ANSWER: 2,
} as const;
export type VnetdAskKind = (typeof vnetdAskKind)[keyof typeof vnetdAskKind];

/** enum vnetd_ask_flags; VNETD_ left out of the names */
export const vnetdAskFlags = {
  ASK_BY_GROUP: 1,
  ASK_MAC: 2,
  ASK_HERE: 4,
  ASK_NOT_HERE: 8,
} as const;
export type VnetdAskFlags = (typeof vnetdAskFlags)[keyof typeof vnetdAskFlags];

/** enum vnetd_probe_wire; VNETD_ left out of the names */
export const vnetdProbeWire = {
  PROBE_ETHERTYPE: 34997,
  PROBE_MAGIC: 1447973968,
  PROBE_VERSION: 1,
  PROBE_HOPS: 4,
  PROBE_FRAME_LEN: 222,
} as const;
export type VnetdProbeWire = (typeof vnetdProbeWire)[keyof typeof vnetdProbeWire];

/** enum vnetd_capability; VNETD_ left out of the names */
export const vnetdCapability = {
  CAP_HELLO: 1,
  CAP_LISTS: 2,
  CAP_UNICAST: 256,
} as const;
export type VnetdCapability = (typeof vnetdCapability)[keyof typeof vnetdCapability];

/** enum vnetd_reason -> label: "unknown_vnet", "refused_host_limit" */
export const reasonNames: readonly string[] = [
  "ok",
  "truncated",
  "unknown_message",
  "bad_header_checksum",
  "bad_udp_length",
  "own_echo",
  "bad_source_address",
  "bad_version",
  "bad_vnet_id",
  "unknown_vnet",
  "vnet_down",
  "short_frame",
  "duplicate_path",
  "security",
  "bad_superframe",
  "varp_short",
  "varp_bad_opcode",
  "varp_bad_family",
  "varp_queue_full",
  "reassembly_forged",
  "vfwd_not_peer",
  "no_underlay",
  "too_big",
  "superframe_too_long",
  "encap_failed",
  "stale_pass",
  "no_memory",
  "refused_group_mac",
  "refused_host_limit",
  "refused_vnet_limit",
  "refused_table_full",
  "refused_vnet_hosts",
  "refused_hosts_full",
  "refused_static",
  "carries_itself",
  "vfwd_bad_inner",
  "vfwd_nested",
  "vfwd_not_group",
  "vfwd_unavailable",
  "duplicate_forward",
  "no_receiver",
  "copy_failed",
  "storm",
  "loop",
  "icmp_checksum",
  "icmp_forged",
  "varp_unknown_vnet",
  "varp_bad_address",
  "varp_bad_tlv",
  "varp_local",
  "varp_rate",
  "etherip_fragment",
  "no_keys",
  "esp_source",
  "esp_unknown",
  "esp_other_vnet",
  "esp_other_level",
  "esp_inner_source",
  "esp_replay",
  "esp_integrity",
  "varp_unauthenticated",
  "keys_malformed",
  "keys_not_for_us",
  "keys_unknown_key",
  "keys_bad_mac",
  "keys_other_suite",
  "keys_not_fresh",
  "keys_no_exchange",
  "keys_too_many",
  "hairpin",
  "xdp_lost",
  "other_group",
];

/** enum vnetd_direction -> label */
export const directionNames: readonly string[] = [
  "encap",
  "decap",
];

/** struct vnetd_meta */
export interface VnetdMeta {
  layout: number;
  nextHandle: number;
  segmentOut: number;
  segmentIn: number;
  oversizeOut: number;
  oversizeIn: number;
  reassembly: number;
  reassemblySecret: Uint8Array;
  relayOut: number;
  relayIn: number;
  peers: number;
  unicastMembers: number;
  forward: number;
}

export const VnetdMeta = {
  size: 60,
  fields: {
    layout: { offset: 0, size: 4, type: "u32" },
    nextHandle: { offset: 4, size: 4, type: "u32" },
    segmentOut: { offset: 8, size: 4, type: "u32" },
    segmentIn: { offset: 12, size: 4, type: "u32" },
    oversizeOut: { offset: 16, size: 4, type: "u32" },
    oversizeIn: { offset: 20, size: 4, type: "u32" },
    reassembly: { offset: 24, size: 4, type: "u32" },
    reassemblySecret: { offset: 28, size: 10, type: "u8", count: 10 },
    pad: { offset: 38, size: 2, type: "u16" },
    relayOut: { offset: 40, size: 4, type: "u32" },
    relayIn: { offset: 44, size: 4, type: "u32" },
    peers: { offset: 48, size: 4, type: "u32" },
    unicastMembers: { offset: 52, size: 4, type: "u32" },
    forward: { offset: 56, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdMeta(out: Buffer, value: VnetdMeta, offset = 0): void {
  out.writeUInt32LE(value.layout, offset);
  out.writeUInt32LE(value.nextHandle, offset + 4);
  out.writeUInt32LE(value.segmentOut, offset + 8);
  out.writeUInt32LE(value.segmentIn, offset + 12);
  out.writeUInt32LE(value.oversizeOut, offset + 16);
  out.writeUInt32LE(value.oversizeIn, offset + 20);
  out.writeUInt32LE(value.reassembly, offset + 24);
  putBytes(out, value.reassemblySecret, offset + 28, 10, "reassemblySecret");
  out.writeUInt32LE(value.relayOut, offset + 40);
  out.writeUInt32LE(value.relayIn, offset + 44);
  out.writeUInt32LE(value.peers, offset + 48);
  out.writeUInt32LE(value.unicastMembers, offset + 52);
  out.writeUInt32LE(value.forward, offset + 56);
}

export function encodeVnetdMeta(value: VnetdMeta): Buffer {
  const out = Buffer.alloc(60);
  writeVnetdMeta(out, value);
  return out;
}

export function decodeVnetdMeta(buf: Buffer, offset = 0): VnetdMeta {
  atLeast(buf, offset, 60, "vnetd_meta");
  return {
    layout: buf.readUInt32LE(offset),
    nextHandle: buf.readUInt32LE(offset + 4),
    segmentOut: buf.readUInt32LE(offset + 8),
    segmentIn: buf.readUInt32LE(offset + 12),
    oversizeOut: buf.readUInt32LE(offset + 16),
    oversizeIn: buf.readUInt32LE(offset + 20),
    reassembly: buf.readUInt32LE(offset + 24),
    reassemblySecret: Buffer.from(buf.subarray(offset + 28, offset + 38)),
    relayOut: buf.readUInt32LE(offset + 40),
    relayIn: buf.readUInt32LE(offset + 44),
    peers: buf.readUInt32LE(offset + 48),
    unicastMembers: buf.readUInt32LE(offset + 52),
    forward: buf.readUInt32LE(offset + 56),
  };
}

/** struct vnetd_vnet_id */
export interface VnetdVnetId {
  bytes: Uint8Array;
}

export const VnetdVnetId = {
  size: 16,
  fields: {
    bytes: { offset: 0, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdVnetId(out: Buffer, value: VnetdVnetId, offset = 0): void {
  putBytes(out, value.bytes, offset, 16, "bytes");
}

export function encodeVnetdVnetId(value: VnetdVnetId): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdVnetId(out, value);
  return out;
}

export function decodeVnetdVnetId(buf: Buffer, offset = 0): VnetdVnetId {
  atLeast(buf, offset, 16, "vnetd_vnet_id");
  return {
    bytes: Buffer.from(buf.subarray(offset, offset + 16)),
  };
}

/** struct vnetd_vnet */
export interface VnetdVnet {
  id: Uint8Array;
  handle: number;
  flags: number;
  security: number;
  vnif: number;
  vnifPeer: number;
  maxEntries: number;
  maxEntriesPerHost: number;
  maxHosts: number;
  ageNs: bigint;
  flushedNs: bigint;
  vmac: Uint8Array;
  probeNonce: bigint;
  floodPerSecond: number;
  floodBurst: number;
  encap: number;
  espFixed4: number;
  espFixed6: number;
  espBlock: number;
  maxNeighbours: number;
  neighbourAgeNs: bigint;
  group: Uint8Array;
  group6: Uint8Array;
}

export const VnetdVnet = {
  size: 144,
  fields: {
    id: { offset: 0, size: 16, type: "u8", count: 16 },
    handle: { offset: 16, size: 4, type: "u32" },
    flags: { offset: 20, size: 4, type: "u32" },
    security: { offset: 24, size: 4, type: "u32" },
    vnif: { offset: 28, size: 4, type: "u32" },
    vnifPeer: { offset: 32, size: 4, type: "u32" },
    maxEntries: { offset: 36, size: 4, type: "u32" },
    maxEntriesPerHost: { offset: 40, size: 4, type: "u32" },
    maxHosts: { offset: 44, size: 4, type: "u32" },
    ageNs: { offset: 48, size: 8, type: "u64" },
    flushedNs: { offset: 56, size: 8, type: "u64" },
    vmac: { offset: 64, size: 6, type: "u8", count: 6 },
    pad: { offset: 70, size: 2, type: "u16" },
    probeNonce: { offset: 72, size: 8, type: "u64" },
    floodPerSecond: { offset: 80, size: 4, type: "u32" },
    floodBurst: { offset: 84, size: 4, type: "u32" },
    encap: { offset: 88, size: 4, type: "u32" },
    espFixed4: { offset: 92, size: 2, type: "u16" },
    espFixed6: { offset: 94, size: 2, type: "u16" },
    espBlock: { offset: 96, size: 2, type: "u16" },
    pad2: { offset: 98, size: 2, type: "u16" },
    maxNeighbours: { offset: 100, size: 4, type: "u32" },
    neighbourAgeNs: { offset: 104, size: 8, type: "u64" },
    group: { offset: 112, size: 16, type: "u8", count: 16 },
    group6: { offset: 128, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdVnet(out: Buffer, value: VnetdVnet, offset = 0): void {
  putBytes(out, value.id, offset, 16, "id");
  out.writeUInt32LE(value.handle, offset + 16);
  out.writeUInt32LE(value.flags, offset + 20);
  out.writeUInt32LE(value.security, offset + 24);
  out.writeUInt32LE(value.vnif, offset + 28);
  out.writeUInt32LE(value.vnifPeer, offset + 32);
  out.writeUInt32LE(value.maxEntries, offset + 36);
  out.writeUInt32LE(value.maxEntriesPerHost, offset + 40);
  out.writeUInt32LE(value.maxHosts, offset + 44);
  out.writeBigUInt64LE(value.ageNs, offset + 48);
  out.writeBigUInt64LE(value.flushedNs, offset + 56);
  putBytes(out, value.vmac, offset + 64, 6, "vmac");
  out.writeBigUInt64LE(value.probeNonce, offset + 72);
  out.writeUInt32LE(value.floodPerSecond, offset + 80);
  out.writeUInt32LE(value.floodBurst, offset + 84);
  out.writeUInt32LE(value.encap, offset + 88);
  out.writeUInt16LE(value.espFixed4, offset + 92);
  out.writeUInt16LE(value.espFixed6, offset + 94);
  out.writeUInt16LE(value.espBlock, offset + 96);
  out.writeUInt32LE(value.maxNeighbours, offset + 100);
  out.writeBigUInt64LE(value.neighbourAgeNs, offset + 104);
  putBytes(out, value.group, offset + 112, 16, "group");
  putBytes(out, value.group6, offset + 128, 16, "group6");
}

export function encodeVnetdVnet(value: VnetdVnet): Buffer {
  const out = Buffer.alloc(144);
  writeVnetdVnet(out, value);
  return out;
}

export function decodeVnetdVnet(buf: Buffer, offset = 0): VnetdVnet {
  atLeast(buf, offset, 144, "vnetd_vnet");
  return {
    id: Buffer.from(buf.subarray(offset, offset + 16)),
    handle: buf.readUInt32LE(offset + 16),
    flags: buf.readUInt32LE(offset + 20),
    security: buf.readUInt32LE(offset + 24),
    vnif: buf.readUInt32LE(offset + 28),
    vnifPeer: buf.readUInt32LE(offset + 32),
    maxEntries: buf.readUInt32LE(offset + 36),
    maxEntriesPerHost: buf.readUInt32LE(offset + 40),
    maxHosts: buf.readUInt32LE(offset + 44),
    ageNs: buf.readBigUInt64LE(offset + 48),
    flushedNs: buf.readBigUInt64LE(offset + 56),
    vmac: Buffer.from(buf.subarray(offset + 64, offset + 70)),
    probeNonce: buf.readBigUInt64LE(offset + 72),
    floodPerSecond: buf.readUInt32LE(offset + 80),
    floodBurst: buf.readUInt32LE(offset + 84),
    encap: buf.readUInt32LE(offset + 88),
    espFixed4: buf.readUInt16LE(offset + 92),
    espFixed6: buf.readUInt16LE(offset + 94),
    espBlock: buf.readUInt16LE(offset + 96),
    maxNeighbours: buf.readUInt32LE(offset + 100),
    neighbourAgeNs: buf.readBigUInt64LE(offset + 104),
    group: Buffer.from(buf.subarray(offset + 112, offset + 128)),
    group6: Buffer.from(buf.subarray(offset + 128, offset + 144)),
  };
}

/** struct vnetd_floods */
export interface VnetdFloods {
  sentNs: bigint;
  loopedNs: bigint;
  probesNs: bigint;
  strangersNs: bigint;
  loopSeenNs: bigint;
  toldNs: bigint[];
  eventsNs: bigint;
  varpKnownNs: bigint;
  varpStrangersNs: bigint;
  answersNs: bigint;
}

export const VnetdFloods = {
  size: 88,
  fields: {
    sentNs: { offset: 0, size: 8, type: "u64" },
    loopedNs: { offset: 8, size: 8, type: "u64" },
    probesNs: { offset: 16, size: 8, type: "u64" },
    strangersNs: { offset: 24, size: 8, type: "u64" },
    loopSeenNs: { offset: 32, size: 8, type: "u64" },
    toldNs: { offset: 40, size: 16, type: "u64", count: 2 },
    eventsNs: { offset: 56, size: 8, type: "u64" },
    varpKnownNs: { offset: 64, size: 8, type: "u64" },
    varpStrangersNs: { offset: 72, size: 8, type: "u64" },
    answersNs: { offset: 80, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdFloods(out: Buffer, value: VnetdFloods, offset = 0): void {
  out.writeBigUInt64LE(value.sentNs, offset);
  out.writeBigUInt64LE(value.loopedNs, offset + 8);
  out.writeBigUInt64LE(value.probesNs, offset + 16);
  out.writeBigUInt64LE(value.strangersNs, offset + 24);
  out.writeBigUInt64LE(value.loopSeenNs, offset + 32);
  elements(value.toldNs, 2, "toldNs").forEach((element, i) => out.writeBigUInt64LE(element, offset + 40 + i * 8));
  out.writeBigUInt64LE(value.eventsNs, offset + 56);
  out.writeBigUInt64LE(value.varpKnownNs, offset + 64);
  out.writeBigUInt64LE(value.varpStrangersNs, offset + 72);
  out.writeBigUInt64LE(value.answersNs, offset + 80);
}

export function encodeVnetdFloods(value: VnetdFloods): Buffer {
  const out = Buffer.alloc(88);
  writeVnetdFloods(out, value);
  return out;
}

export function decodeVnetdFloods(buf: Buffer, offset = 0): VnetdFloods {
  atLeast(buf, offset, 88, "vnetd_floods");
  return {
    sentNs: buf.readBigUInt64LE(offset),
    loopedNs: buf.readBigUInt64LE(offset + 8),
    probesNs: buf.readBigUInt64LE(offset + 16),
    strangersNs: buf.readBigUInt64LE(offset + 24),
    loopSeenNs: buf.readBigUInt64LE(offset + 32),
    toldNs: Array.from({ length: 2 }, (_, i) => buf.readBigUInt64LE(offset + 40 + i * 8)),
    eventsNs: buf.readBigUInt64LE(offset + 56),
    varpKnownNs: buf.readBigUInt64LE(offset + 64),
    varpStrangersNs: buf.readBigUInt64LE(offset + 72),
    answersNs: buf.readBigUInt64LE(offset + 80),
  };
}

/** struct vnetd_vnet_counts */
export interface VnetdVnetCounts {
  entries: number;
  local: number;
  hosts: number;
  neighbours: number;
}

export const VnetdVnetCounts = {
  size: 16,
  fields: {
    entries: { offset: 0, size: 4, type: "u32" },
    local: { offset: 4, size: 4, type: "u32" },
    hosts: { offset: 8, size: 4, type: "u32" },
    neighbours: { offset: 12, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdVnetCounts(out: Buffer, value: VnetdVnetCounts, offset = 0): void {
  out.writeUInt32LE(value.entries, offset);
  out.writeUInt32LE(value.local, offset + 4);
  out.writeUInt32LE(value.hosts, offset + 8);
  out.writeUInt32LE(value.neighbours, offset + 12);
}

export function encodeVnetdVnetCounts(value: VnetdVnetCounts): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdVnetCounts(out, value);
  return out;
}

export function decodeVnetdVnetCounts(buf: Buffer, offset = 0): VnetdVnetCounts {
  atLeast(buf, offset, 16, "vnetd_vnet_counts");
  return {
    entries: buf.readUInt32LE(offset),
    local: buf.readUInt32LE(offset + 4),
    hosts: buf.readUInt32LE(offset + 8),
    neighbours: buf.readUInt32LE(offset + 12),
  };
}

/** struct vnetd_port */
export interface VnetdPort {
  slot: number;
  handle: number;
}

export const VnetdPort = {
  size: 8,
  fields: {
    slot: { offset: 0, size: 4, type: "u32" },
    handle: { offset: 4, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdPort(out: Buffer, value: VnetdPort, offset = 0): void {
  out.writeUInt32LE(value.slot, offset);
  out.writeUInt32LE(value.handle, offset + 4);
}

export function encodeVnetdPort(value: VnetdPort): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdPort(out, value);
  return out;
}

export function decodeVnetdPort(buf: Buffer, offset = 0): VnetdPort {
  atLeast(buf, offset, 8, "vnetd_port");
  return {
    slot: buf.readUInt32LE(offset),
    handle: buf.readUInt32LE(offset + 4),
  };
}

/** struct vnetd_direct_port */
export interface VnetdDirectPort {
  slot: number;
  handle: number;
  flags: number;
}

export const VnetdDirectPort = {
  size: 16,
  fields: {
    slot: { offset: 0, size: 4, type: "u32" },
    handle: { offset: 4, size: 4, type: "u32" },
    flags: { offset: 8, size: 4, type: "u32" },
    reserved: { offset: 12, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdDirectPort(out: Buffer, value: VnetdDirectPort, offset = 0): void {
  out.writeUInt32LE(value.slot, offset);
  out.writeUInt32LE(value.handle, offset + 4);
  out.writeUInt32LE(value.flags, offset + 8);
}

export function encodeVnetdDirectPort(value: VnetdDirectPort): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdDirectPort(out, value);
  return out;
}

export function decodeVnetdDirectPort(buf: Buffer, offset = 0): VnetdDirectPort {
  atLeast(buf, offset, 16, "vnetd_direct_port");
  return {
    slot: buf.readUInt32LE(offset),
    handle: buf.readUInt32LE(offset + 4),
    flags: buf.readUInt32LE(offset + 8),
  };
}

/** struct vnetd_xdp_meta */
export interface VnetdXdpMeta {
  ifindex: number;
  handle: number;
  slot: number;
  family: number;
  offset: number;
  dst: Uint8Array;
}

export const VnetdXdpMeta = {
  size: 20,
  fields: {
    ifindex: { offset: 0, size: 4, type: "u32" },
    handle: { offset: 4, size: 4, type: "u32" },
    slot: { offset: 8, size: 2, type: "u16" },
    family: { offset: 10, size: 1, type: "u8" },
    offset: { offset: 11, size: 1, type: "u8" },
    dst: { offset: 12, size: 6, type: "u8", count: 6 },
    pad: { offset: 18, size: 2, type: "u16" },
  },
} as const;

export function writeVnetdXdpMeta(out: Buffer, value: VnetdXdpMeta, offset = 0): void {
  out.writeUInt32LE(value.ifindex, offset);
  out.writeUInt32LE(value.handle, offset + 4);
  out.writeUInt16LE(value.slot, offset + 8);
  out.writeUInt8(value.family, offset + 10);
  out.writeUInt8(value.offset, offset + 11);
  putBytes(out, value.dst, offset + 12, 6, "dst");
}

export function encodeVnetdXdpMeta(value: VnetdXdpMeta): Buffer {
  const out = Buffer.alloc(20);
  writeVnetdXdpMeta(out, value);
  return out;
}

export function decodeVnetdXdpMeta(buf: Buffer, offset = 0): VnetdXdpMeta {
  atLeast(buf, offset, 20, "vnetd_xdp_meta");
  return {
    ifindex: buf.readUInt32LE(offset),
    handle: buf.readUInt32LE(offset + 4),
    slot: buf.readUInt16LE(offset + 8),
    family: buf.readUInt8(offset + 10),
    offset: buf.readUInt8(offset + 11),
    dst: Buffer.from(buf.subarray(offset + 12, offset + 18)),
  };
}

/** struct vnetd_place */
export interface VnetdPlace {
  ifindex: number;
  family: number;
}

export const VnetdPlace = {
  size: 8,
  fields: {
    ifindex: { offset: 0, size: 4, type: "u32" },
    family: { offset: 4, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdPlace(out: Buffer, value: VnetdPlace, offset = 0): void {
  out.writeUInt32LE(value.ifindex, offset);
  out.writeUInt32LE(value.family, offset + 4);
}

export function encodeVnetdPlace(value: VnetdPlace): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdPlace(out, value);
  return out;
}

export function decodeVnetdPlace(buf: Buffer, offset = 0): VnetdPlace {
  atLeast(buf, offset, 8, "vnetd_place");
  return {
    ifindex: buf.readUInt32LE(offset),
    family: buf.readUInt32LE(offset + 4),
  };
}

/** struct vnetd_underlay */
export interface VnetdUnderlay {
  ifindex: number;
  flags: number;
  addr: Uint8Array;
  group: Uint8Array;
  mac: Uint8Array;
  mtu: number;
  port: number;
  prefixLen: number;
  family: number;
  index: number;
  esp: number;
}

export const VnetdUnderlay = {
  size: 68,
  fields: {
    ifindex: { offset: 0, size: 4, type: "u32" },
    flags: { offset: 4, size: 4, type: "u32" },
    addr: { offset: 8, size: 16, type: "u8", count: 16 },
    group: { offset: 24, size: 16, type: "u8", count: 16 },
    mac: { offset: 40, size: 6, type: "u8", count: 6 },
    mtu: { offset: 46, size: 2, type: "u16" },
    port: { offset: 48, size: 2, type: "u16", endian: "be" },
    prefixLen: { offset: 50, size: 1, type: "u8" },
    family: { offset: 51, size: 1, type: "u8" },
    index: { offset: 52, size: 4, type: "u32" },
    esp: { offset: 56, size: 4, type: "u32" },
    reserved: { offset: 60, size: 8, type: "u32", count: 2 },
  },
} as const;

export function writeVnetdUnderlay(out: Buffer, value: VnetdUnderlay, offset = 0): void {
  out.writeUInt32LE(value.ifindex, offset);
  out.writeUInt32LE(value.flags, offset + 4);
  putBytes(out, value.addr, offset + 8, 16, "addr");
  putBytes(out, value.group, offset + 24, 16, "group");
  putBytes(out, value.mac, offset + 40, 6, "mac");
  out.writeUInt16LE(value.mtu, offset + 46);
  out.writeUInt16BE(value.port, offset + 48);
  out.writeUInt8(value.prefixLen, offset + 50);
  out.writeUInt8(value.family, offset + 51);
  out.writeUInt32LE(value.index, offset + 52);
  out.writeUInt32LE(value.esp, offset + 56);
}

export function encodeVnetdUnderlay(value: VnetdUnderlay): Buffer {
  const out = Buffer.alloc(68);
  writeVnetdUnderlay(out, value);
  return out;
}

export function decodeVnetdUnderlay(buf: Buffer, offset = 0): VnetdUnderlay {
  atLeast(buf, offset, 68, "vnetd_underlay");
  return {
    ifindex: buf.readUInt32LE(offset),
    flags: buf.readUInt32LE(offset + 4),
    addr: Buffer.from(buf.subarray(offset + 8, offset + 24)),
    group: Buffer.from(buf.subarray(offset + 24, offset + 40)),
    mac: Buffer.from(buf.subarray(offset + 40, offset + 46)),
    mtu: buf.readUInt16LE(offset + 46),
    port: buf.readUInt16BE(offset + 48),
    prefixLen: buf.readUInt8(offset + 50),
    family: buf.readUInt8(offset + 51),
    index: buf.readUInt32LE(offset + 52),
    esp: buf.readUInt32LE(offset + 56),
  };
}

/** struct vnetd_spi */
export interface VnetdSpi {
  source: Uint8Array;
  ifindex: number;
  handle: number;
  slot: number;
  nexthop: number;
  gen: number;
  security: number;
  suite: number;
  keyId: Uint8Array;
}

export const VnetdSpi = {
  size: 52,
  fields: {
    source: { offset: 0, size: 16, type: "u8", count: 16 },
    ifindex: { offset: 16, size: 4, type: "u32" },
    handle: { offset: 20, size: 4, type: "u32" },
    slot: { offset: 24, size: 4, type: "u32" },
    nexthop: { offset: 28, size: 4, type: "u32" },
    gen: { offset: 32, size: 4, type: "u32" },
    security: { offset: 36, size: 4, type: "u32" },
    suite: { offset: 40, size: 4, type: "u32" },
    keyId: { offset: 44, size: 8, type: "u8", count: 8 },
  },
} as const;

export function writeVnetdSpi(out: Buffer, value: VnetdSpi, offset = 0): void {
  putBytes(out, value.source, offset, 16, "source");
  out.writeUInt32LE(value.ifindex, offset + 16);
  out.writeUInt32LE(value.handle, offset + 20);
  out.writeUInt32LE(value.slot, offset + 24);
  out.writeUInt32LE(value.nexthop, offset + 28);
  out.writeUInt32LE(value.gen, offset + 32);
  out.writeUInt32LE(value.security, offset + 36);
  out.writeUInt32LE(value.suite, offset + 40);
  putBytes(out, value.keyId, offset + 44, 8, "keyId");
}

export function encodeVnetdSpi(value: VnetdSpi): Buffer {
  const out = Buffer.alloc(52);
  writeVnetdSpi(out, value);
  return out;
}

export function decodeVnetdSpi(buf: Buffer, offset = 0): VnetdSpi {
  atLeast(buf, offset, 52, "vnetd_spi");
  return {
    source: Buffer.from(buf.subarray(offset, offset + 16)),
    ifindex: buf.readUInt32LE(offset + 16),
    handle: buf.readUInt32LE(offset + 20),
    slot: buf.readUInt32LE(offset + 24),
    nexthop: buf.readUInt32LE(offset + 28),
    gen: buf.readUInt32LE(offset + 32),
    security: buf.readUInt32LE(offset + 36),
    suite: buf.readUInt32LE(offset + 40),
    keyId: Buffer.from(buf.subarray(offset + 44, offset + 52)),
  };
}

/** struct vnetd_secure_member */
export interface VnetdSecureMember {
  nexthop: number;
  gen: number;
}

export const VnetdSecureMember = {
  size: 8,
  fields: {
    nexthop: { offset: 0, size: 4, type: "u32" },
    gen: { offset: 4, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdSecureMember(out: Buffer, value: VnetdSecureMember, offset = 0): void {
  out.writeUInt32LE(value.nexthop, offset);
  out.writeUInt32LE(value.gen, offset + 4);
}

export function encodeVnetdSecureMember(value: VnetdSecureMember): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdSecureMember(out, value);
  return out;
}

export function decodeVnetdSecureMember(buf: Buffer, offset = 0): VnetdSecureMember {
  atLeast(buf, offset, 8, "vnetd_secure_member");
  return {
    nexthop: buf.readUInt32LE(offset),
    gen: buf.readUInt32LE(offset + 4),
  };
}

/** struct vnetd_peer */
export interface VnetdPeer {
  addr: Uint8Array;
  ifindex: number;
  flags: number;
  port: number;
}

export const VnetdPeer = {
  size: 48,
  fields: {
    addr: { offset: 0, size: 16, type: "u8", count: 16 },
    ifindex: { offset: 16, size: 4, type: "u32" },
    flags: { offset: 20, size: 4, type: "u32" },
    port: { offset: 24, size: 2, type: "u16", endian: "be" },
    pad: { offset: 26, size: 2, type: "u16" },
    reserved: { offset: 28, size: 20, type: "u32", count: 5 },
  },
} as const;

export function writeVnetdPeer(out: Buffer, value: VnetdPeer, offset = 0): void {
  putBytes(out, value.addr, offset, 16, "addr");
  out.writeUInt32LE(value.ifindex, offset + 16);
  out.writeUInt32LE(value.flags, offset + 20);
  out.writeUInt16BE(value.port, offset + 24);
}

export function encodeVnetdPeer(value: VnetdPeer): Buffer {
  const out = Buffer.alloc(48);
  writeVnetdPeer(out, value);
  return out;
}

export function decodeVnetdPeer(buf: Buffer, offset = 0): VnetdPeer {
  atLeast(buf, offset, 48, "vnetd_peer");
  return {
    addr: Buffer.from(buf.subarray(offset, offset + 16)),
    ifindex: buf.readUInt32LE(offset + 16),
    flags: buf.readUInt32LE(offset + 20),
    port: buf.readUInt16BE(offset + 24),
  };
}

/** struct vnetd_peer_stats */
export interface VnetdPeerStats {
  sentFrames: bigint;
  sentBytes: bigint;
  heardFrames: bigint;
  heardBytes: bigint;
}

export const VnetdPeerStats = {
  size: 32,
  fields: {
    sentFrames: { offset: 0, size: 8, type: "u64" },
    sentBytes: { offset: 8, size: 8, type: "u64" },
    heardFrames: { offset: 16, size: 8, type: "u64" },
    heardBytes: { offset: 24, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdPeerStats(out: Buffer, value: VnetdPeerStats, offset = 0): void {
  out.writeBigUInt64LE(value.sentFrames, offset);
  out.writeBigUInt64LE(value.sentBytes, offset + 8);
  out.writeBigUInt64LE(value.heardFrames, offset + 16);
  out.writeBigUInt64LE(value.heardBytes, offset + 24);
}

export function encodeVnetdPeerStats(value: VnetdPeerStats): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdPeerStats(out, value);
  return out;
}

export function decodeVnetdPeerStats(buf: Buffer, offset = 0): VnetdPeerStats {
  atLeast(buf, offset, 32, "vnetd_peer_stats");
  return {
    sentFrames: buf.readBigUInt64LE(offset),
    sentBytes: buf.readBigUInt64LE(offset + 8),
    heardFrames: buf.readBigUInt64LE(offset + 16),
    heardBytes: buf.readBigUInt64LE(offset + 24),
  };
}

/** struct vnetd_member_key */
export interface VnetdMemberKey {
  handle: number;
  number: number;
}

export const VnetdMemberKey = {
  size: 8,
  fields: {
    handle: { offset: 0, size: 4, type: "u32" },
    number: { offset: 4, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdMemberKey(out: Buffer, value: VnetdMemberKey, offset = 0): void {
  out.writeUInt32LE(value.handle, offset);
  out.writeUInt32LE(value.number, offset + 4);
}

export function encodeVnetdMemberKey(value: VnetdMemberKey): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdMemberKey(out, value);
  return out;
}

export function decodeVnetdMemberKey(buf: Buffer, offset = 0): VnetdMemberKey {
  atLeast(buf, offset, 8, "vnetd_member_key");
  return {
    handle: buf.readUInt32LE(offset),
    number: buf.readUInt32LE(offset + 4),
  };
}

/** struct vnetd_member */
export interface VnetdMember {
  addr: Uint8Array;
  ifindex: number;
  port: number;
}

export const VnetdMember = {
  size: 24,
  fields: {
    addr: { offset: 0, size: 16, type: "u8", count: 16 },
    ifindex: { offset: 16, size: 4, type: "u32" },
    port: { offset: 20, size: 2, type: "u16", endian: "be" },
    pad: { offset: 22, size: 2, type: "u16" },
  },
} as const;

export function writeVnetdMember(out: Buffer, value: VnetdMember, offset = 0): void {
  putBytes(out, value.addr, offset, 16, "addr");
  out.writeUInt32LE(value.ifindex, offset + 16);
  out.writeUInt16BE(value.port, offset + 20);
}

export function encodeVnetdMember(value: VnetdMember): Buffer {
  const out = Buffer.alloc(24);
  writeVnetdMember(out, value);
  return out;
}

export function decodeVnetdMember(buf: Buffer, offset = 0): VnetdMember {
  atLeast(buf, offset, 24, "vnetd_member");
  return {
    addr: Buffer.from(buf.subarray(offset, offset + 16)),
    ifindex: buf.readUInt32LE(offset + 16),
    port: buf.readUInt16BE(offset + 20),
  };
}

/** struct vnetd_seen_key */
export interface VnetdSeenKey {
  source: Uint8Array;
  hash: bigint;
  ipId: number;
  len: number;
}

export const VnetdSeenKey = {
  size: 32,
  fields: {
    source: { offset: 0, size: 16, type: "u8", count: 16 },
    hash: { offset: 16, size: 8, type: "u64" },
    ipId: { offset: 24, size: 2, type: "u16" },
    len: { offset: 26, size: 2, type: "u16" },
    pad: { offset: 28, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdSeenKey(out: Buffer, value: VnetdSeenKey, offset = 0): void {
  putBytes(out, value.source, offset, 16, "source");
  out.writeBigUInt64LE(value.hash, offset + 16);
  out.writeUInt16LE(value.ipId, offset + 24);
  out.writeUInt16LE(value.len, offset + 26);
}

export function encodeVnetdSeenKey(value: VnetdSeenKey): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdSeenKey(out, value);
  return out;
}

export function decodeVnetdSeenKey(buf: Buffer, offset = 0): VnetdSeenKey {
  atLeast(buf, offset, 32, "vnetd_seen_key");
  return {
    source: Buffer.from(buf.subarray(offset, offset + 16)),
    hash: buf.readBigUInt64LE(offset + 16),
    ipId: buf.readUInt16LE(offset + 24),
    len: buf.readUInt16LE(offset + 26),
  };
}

/** struct vnetd_seen */
export interface VnetdSeen {
  timeNs: bigint;
  withoutId: number;
}

export const VnetdSeen = {
  size: 16,
  fields: {
    timeNs: { offset: 0, size: 8, type: "u64" },
    withoutId: { offset: 8, size: 4, type: "u32" },
    pad: { offset: 12, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdSeen(out: Buffer, value: VnetdSeen, offset = 0): void {
  out.writeBigUInt64LE(value.timeNs, offset);
  out.writeUInt32LE(value.withoutId, offset + 8);
}

export function encodeVnetdSeen(value: VnetdSeen): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdSeen(out, value);
  return out;
}

export function decodeVnetdSeen(buf: Buffer, offset = 0): VnetdSeen {
  atLeast(buf, offset, 16, "vnetd_seen");
  return {
    timeNs: buf.readBigUInt64LE(offset),
    withoutId: buf.readUInt32LE(offset + 8),
  };
}

/** struct vnetd_forwarder_key */
export interface VnetdForwarderKey {
  mac: Uint8Array;
}

export const VnetdForwarderKey = {
  size: 8,
  fields: {
    mac: { offset: 0, size: 6, type: "u8", count: 6 },
    pad: { offset: 6, size: 2, type: "u16" },
  },
} as const;

export function writeVnetdForwarderKey(out: Buffer, value: VnetdForwarderKey, offset = 0): void {
  putBytes(out, value.mac, offset, 6, "mac");
}

export function encodeVnetdForwarderKey(value: VnetdForwarderKey): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdForwarderKey(out, value);
  return out;
}

export function decodeVnetdForwarderKey(buf: Buffer, offset = 0): VnetdForwarderKey {
  atLeast(buf, offset, 8, "vnetd_forwarder_key");
  return {
    mac: Buffer.from(buf.subarray(offset, offset + 6)),
  };
}

/** struct vnetd_nexthop_key */
export interface VnetdNexthopKey {
  handle: number;
  ifindex: number;
  addr: Uint8Array;
}

export const VnetdNexthopKey = {
  size: 24,
  fields: {
    handle: { offset: 0, size: 4, type: "u32" },
    ifindex: { offset: 4, size: 4, type: "u32" },
    addr: { offset: 8, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdNexthopKey(out: Buffer, value: VnetdNexthopKey, offset = 0): void {
  out.writeUInt32LE(value.handle, offset);
  out.writeUInt32LE(value.ifindex, offset + 4);
  putBytes(out, value.addr, offset + 8, 16, "addr");
}

export function encodeVnetdNexthopKey(value: VnetdNexthopKey): Buffer {
  const out = Buffer.alloc(24);
  writeVnetdNexthopKey(out, value);
  return out;
}

export function decodeVnetdNexthopKey(buf: Buffer, offset = 0): VnetdNexthopKey {
  atLeast(buf, offset, 24, "vnetd_nexthop_key");
  return {
    handle: buf.readUInt32LE(offset),
    ifindex: buf.readUInt32LE(offset + 4),
    addr: Buffer.from(buf.subarray(offset + 8, offset + 24)),
  };
}

/** struct vnetd_nexthop */
export interface VnetdNexthop {
  key: VnetdNexthopKey;
  gen: number;
  slot: number;
  flags: number;
  encap: number;
  entries: number;
  capabilities: number;
  mtu: number;
  port: number;
  spi: number;
  heardNs: bigint;
  host: Uint8Array;
  other: number;
  path: number;
  pathMtu: number;
  pathMtuUntilNs: bigint;
  sentNs: bigint;
  floodNs: bigint;
  pathNews: number;
  route: number;
  varpNs: bigint;
}

export const VnetdNexthop = {
  size: 128,
  fields: {
    key: { offset: 0, size: 24, type: "vnetd_nexthop_key" },
    gen: { offset: 24, size: 4, type: "u32" },
    slot: { offset: 28, size: 4, type: "u32" },
    flags: { offset: 32, size: 4, type: "u32" },
    encap: { offset: 36, size: 4, type: "u32" },
    entries: { offset: 40, size: 4, type: "u32" },
    capabilities: { offset: 44, size: 4, type: "u32" },
    mtu: { offset: 48, size: 2, type: "u16" },
    port: { offset: 50, size: 2, type: "u16", endian: "be" },
    spi: { offset: 52, size: 4, type: "u32" },
    heardNs: { offset: 56, size: 8, type: "u64" },
    host: { offset: 64, size: 16, type: "u8", count: 16 },
    other: { offset: 80, size: 4, type: "u32" },
    path: { offset: 84, size: 1, type: "u8" },
    pad: { offset: 85, size: 1, type: "u8" },
    pathMtu: { offset: 86, size: 2, type: "u16" },
    pathMtuUntilNs: { offset: 88, size: 8, type: "u64" },
    sentNs: { offset: 96, size: 8, type: "u64" },
    floodNs: { offset: 104, size: 8, type: "u64" },
    pathNews: { offset: 112, size: 4, type: "u32" },
    route: { offset: 116, size: 4, type: "u32" },
    varpNs: { offset: 120, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdNexthop(out: Buffer, value: VnetdNexthop, offset = 0): void {
  writeVnetdNexthopKey(out, value.key, offset);
  out.writeUInt32LE(value.gen, offset + 24);
  out.writeUInt32LE(value.slot, offset + 28);
  out.writeUInt32LE(value.flags, offset + 32);
  out.writeUInt32LE(value.encap, offset + 36);
  out.writeUInt32LE(value.entries, offset + 40);
  out.writeUInt32LE(value.capabilities, offset + 44);
  out.writeUInt16LE(value.mtu, offset + 48);
  out.writeUInt16BE(value.port, offset + 50);
  out.writeUInt32LE(value.spi, offset + 52);
  out.writeBigUInt64LE(value.heardNs, offset + 56);
  putBytes(out, value.host, offset + 64, 16, "host");
  out.writeUInt32LE(value.other, offset + 80);
  out.writeUInt8(value.path, offset + 84);
  out.writeUInt16LE(value.pathMtu, offset + 86);
  out.writeBigUInt64LE(value.pathMtuUntilNs, offset + 88);
  out.writeBigUInt64LE(value.sentNs, offset + 96);
  out.writeBigUInt64LE(value.floodNs, offset + 104);
  out.writeUInt32LE(value.pathNews, offset + 112);
  out.writeUInt32LE(value.route, offset + 116);
  out.writeBigUInt64LE(value.varpNs, offset + 120);
}

export function encodeVnetdNexthop(value: VnetdNexthop): Buffer {
  const out = Buffer.alloc(128);
  writeVnetdNexthop(out, value);
  return out;
}

export function decodeVnetdNexthop(buf: Buffer, offset = 0): VnetdNexthop {
  atLeast(buf, offset, 128, "vnetd_nexthop");
  return {
    key: decodeVnetdNexthopKey(buf, offset),
    gen: buf.readUInt32LE(offset + 24),
    slot: buf.readUInt32LE(offset + 28),
    flags: buf.readUInt32LE(offset + 32),
    encap: buf.readUInt32LE(offset + 36),
    entries: buf.readUInt32LE(offset + 40),
    capabilities: buf.readUInt32LE(offset + 44),
    mtu: buf.readUInt16LE(offset + 48),
    port: buf.readUInt16BE(offset + 50),
    spi: buf.readUInt32LE(offset + 52),
    heardNs: buf.readBigUInt64LE(offset + 56),
    host: Buffer.from(buf.subarray(offset + 64, offset + 80)),
    other: buf.readUInt32LE(offset + 80),
    path: buf.readUInt8(offset + 84),
    pathMtu: buf.readUInt16LE(offset + 86),
    pathMtuUntilNs: buf.readBigUInt64LE(offset + 88),
    sentNs: buf.readBigUInt64LE(offset + 96),
    floodNs: buf.readBigUInt64LE(offset + 104),
    pathNews: buf.readUInt32LE(offset + 112),
    route: buf.readUInt32LE(offset + 116),
    varpNs: buf.readBigUInt64LE(offset + 120),
  };
}

/** struct vnetd_host_path_key */
export interface VnetdHostPathKey {
  ifindex: number;
  addr: Uint8Array;
}

export const VnetdHostPathKey = {
  size: 20,
  fields: {
    ifindex: { offset: 0, size: 4, type: "u32" },
    addr: { offset: 4, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdHostPathKey(out: Buffer, value: VnetdHostPathKey, offset = 0): void {
  out.writeUInt32LE(value.ifindex, offset);
  putBytes(out, value.addr, offset + 4, 16, "addr");
}

export function encodeVnetdHostPathKey(value: VnetdHostPathKey): Buffer {
  const out = Buffer.alloc(20);
  writeVnetdHostPathKey(out, value);
  return out;
}

export function decodeVnetdHostPathKey(buf: Buffer, offset = 0): VnetdHostPathKey {
  atLeast(buf, offset, 20, "vnetd_host_path_key");
  return {
    ifindex: buf.readUInt32LE(offset),
    addr: Buffer.from(buf.subarray(offset + 4, offset + 20)),
  };
}

/** struct vnetd_host_path */
export interface VnetdHostPath {
  mtu: number;
  mtuUntilNs: bigint;
}

export const VnetdHostPath = {
  size: 16,
  fields: {
    mtu: { offset: 0, size: 2, type: "u16" },
    pad: { offset: 2, size: 6, type: "u16", count: 3 },
    mtuUntilNs: { offset: 8, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdHostPath(out: Buffer, value: VnetdHostPath, offset = 0): void {
  out.writeUInt16LE(value.mtu, offset);
  out.writeBigUInt64LE(value.mtuUntilNs, offset + 8);
}

export function encodeVnetdHostPath(value: VnetdHostPath): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdHostPath(out, value);
  return out;
}

export function decodeVnetdHostPath(buf: Buffer, offset = 0): VnetdHostPath {
  atLeast(buf, offset, 16, "vnetd_host_path");
  return {
    mtu: buf.readUInt16LE(offset),
    mtuUntilNs: buf.readBigUInt64LE(offset + 8),
  };
}

/** struct vnetd_fdb_key */
export interface VnetdFdbKey {
  handle: number;
  mac: Uint8Array;
}

export const VnetdFdbKey = {
  size: 12,
  fields: {
    handle: { offset: 0, size: 4, type: "u32" },
    mac: { offset: 4, size: 6, type: "u8", count: 6 },
    pad: { offset: 10, size: 2, type: "u16" },
  },
} as const;

export function writeVnetdFdbKey(out: Buffer, value: VnetdFdbKey, offset = 0): void {
  out.writeUInt32LE(value.handle, offset);
  putBytes(out, value.mac, offset + 4, 6, "mac");
}

export function encodeVnetdFdbKey(value: VnetdFdbKey): Buffer {
  const out = Buffer.alloc(12);
  writeVnetdFdbKey(out, value);
  return out;
}

export function decodeVnetdFdbKey(buf: Buffer, offset = 0): VnetdFdbKey {
  atLeast(buf, offset, 12, "vnetd_fdb_key");
  return {
    handle: buf.readUInt32LE(offset),
    mac: Buffer.from(buf.subarray(offset + 4, offset + 10)),
  };
}

/** struct vnetd_fdb_entry */
export interface VnetdFdbEntry {
  nexthop: number;
  gen: number;
  slot: number;
  flags: number;
  seenNs: bigint;
  moves: number;
  other: number;
  windowNs: bigint;
  toldNs: bigint;
}

export const VnetdFdbEntry = {
  size: 48,
  fields: {
    nexthop: { offset: 0, size: 4, type: "u32" },
    gen: { offset: 4, size: 4, type: "u32" },
    slot: { offset: 8, size: 4, type: "u32" },
    flags: { offset: 12, size: 4, type: "u32" },
    seenNs: { offset: 16, size: 8, type: "u64" },
    moves: { offset: 24, size: 4, type: "u32" },
    other: { offset: 28, size: 4, type: "u32" },
    windowNs: { offset: 32, size: 8, type: "u64" },
    toldNs: { offset: 40, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdFdbEntry(out: Buffer, value: VnetdFdbEntry, offset = 0): void {
  out.writeUInt32LE(value.nexthop, offset);
  out.writeUInt32LE(value.gen, offset + 4);
  out.writeUInt32LE(value.slot, offset + 8);
  out.writeUInt32LE(value.flags, offset + 12);
  out.writeBigUInt64LE(value.seenNs, offset + 16);
  out.writeUInt32LE(value.moves, offset + 24);
  out.writeUInt32LE(value.other, offset + 28);
  out.writeBigUInt64LE(value.windowNs, offset + 32);
  out.writeBigUInt64LE(value.toldNs, offset + 40);
}

export function encodeVnetdFdbEntry(value: VnetdFdbEntry): Buffer {
  const out = Buffer.alloc(48);
  writeVnetdFdbEntry(out, value);
  return out;
}

export function decodeVnetdFdbEntry(buf: Buffer, offset = 0): VnetdFdbEntry {
  atLeast(buf, offset, 48, "vnetd_fdb_entry");
  return {
    nexthop: buf.readUInt32LE(offset),
    gen: buf.readUInt32LE(offset + 4),
    slot: buf.readUInt32LE(offset + 8),
    flags: buf.readUInt32LE(offset + 12),
    seenNs: buf.readBigUInt64LE(offset + 16),
    moves: buf.readUInt32LE(offset + 24),
    other: buf.readUInt32LE(offset + 28),
    windowNs: buf.readBigUInt64LE(offset + 32),
    toldNs: buf.readBigUInt64LE(offset + 40),
  };
}

/** struct vnetd_neighbour_key */
export interface VnetdNeighbourKey {
  handle: number;
  addr: Uint8Array;
}

export const VnetdNeighbourKey = {
  size: 20,
  fields: {
    handle: { offset: 0, size: 4, type: "u32" },
    addr: { offset: 4, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdNeighbourKey(out: Buffer, value: VnetdNeighbourKey, offset = 0): void {
  out.writeUInt32LE(value.handle, offset);
  putBytes(out, value.addr, offset + 4, 16, "addr");
}

export function encodeVnetdNeighbourKey(value: VnetdNeighbourKey): Buffer {
  const out = Buffer.alloc(20);
  writeVnetdNeighbourKey(out, value);
  return out;
}

export function decodeVnetdNeighbourKey(buf: Buffer, offset = 0): VnetdNeighbourKey {
  atLeast(buf, offset, 20, "vnetd_neighbour_key");
  return {
    handle: buf.readUInt32LE(offset),
    addr: Buffer.from(buf.subarray(offset + 4, offset + 20)),
  };
}

/** struct vnetd_neighbour */
export interface VnetdNeighbour {
  mac: Uint8Array;
  flags: number;
  slot: number;
  heardNs: bigint;
}

export const VnetdNeighbour = {
  size: 24,
  fields: {
    mac: { offset: 0, size: 6, type: "u8", count: 6 },
    flags: { offset: 6, size: 2, type: "u16" },
    slot: { offset: 8, size: 4, type: "u32" },
    pad: { offset: 12, size: 4, type: "u32" },
    heardNs: { offset: 16, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdNeighbour(out: Buffer, value: VnetdNeighbour, offset = 0): void {
  putBytes(out, value.mac, offset, 6, "mac");
  out.writeUInt16LE(value.flags, offset + 6);
  out.writeUInt32LE(value.slot, offset + 8);
  out.writeBigUInt64LE(value.heardNs, offset + 16);
}

export function encodeVnetdNeighbour(value: VnetdNeighbour): Buffer {
  const out = Buffer.alloc(24);
  writeVnetdNeighbour(out, value);
  return out;
}

export function decodeVnetdNeighbour(buf: Buffer, offset = 0): VnetdNeighbour {
  atLeast(buf, offset, 24, "vnetd_neighbour");
  return {
    mac: Buffer.from(buf.subarray(offset, offset + 6)),
    flags: buf.readUInt16LE(offset + 6),
    slot: buf.readUInt32LE(offset + 8),
    heardNs: buf.readBigUInt64LE(offset + 16),
  };
}

/** struct vnetd_neighbour_stats */
export interface VnetdNeighbourStats {
  answered: bigint;
  learned: bigint;
  changed: bigint;
  refused: bigint;
}

export const VnetdNeighbourStats = {
  size: 32,
  fields: {
    answered: { offset: 0, size: 8, type: "u64" },
    learned: { offset: 8, size: 8, type: "u64" },
    changed: { offset: 16, size: 8, type: "u64" },
    refused: { offset: 24, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdNeighbourStats(out: Buffer, value: VnetdNeighbourStats, offset = 0): void {
  out.writeBigUInt64LE(value.answered, offset);
  out.writeBigUInt64LE(value.learned, offset + 8);
  out.writeBigUInt64LE(value.changed, offset + 16);
  out.writeBigUInt64LE(value.refused, offset + 24);
}

export function encodeVnetdNeighbourStats(value: VnetdNeighbourStats): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdNeighbourStats(out, value);
  return out;
}

export function decodeVnetdNeighbourStats(buf: Buffer, offset = 0): VnetdNeighbourStats {
  atLeast(buf, offset, 32, "vnetd_neighbour_stats");
  return {
    answered: buf.readBigUInt64LE(offset),
    learned: buf.readBigUInt64LE(offset + 8),
    changed: buf.readBigUInt64LE(offset + 16),
    refused: buf.readBigUInt64LE(offset + 24),
  };
}

/** struct vnetd_traffic */
export interface VnetdTraffic {
  frames: bigint[];
  bytes: bigint[];
  floodedFrames: bigint;
  floodedBytes: bigint;
  fragmented: bigint[];
}

export const VnetdTraffic = {
  size: 64,
  fields: {
    frames: { offset: 0, size: 16, type: "u64", count: 2 },
    bytes: { offset: 16, size: 16, type: "u64", count: 2 },
    floodedFrames: { offset: 32, size: 8, type: "u64" },
    floodedBytes: { offset: 40, size: 8, type: "u64" },
    fragmented: { offset: 48, size: 16, type: "u64", count: 2 },
  },
} as const;

export function writeVnetdTraffic(out: Buffer, value: VnetdTraffic, offset = 0): void {
  elements(value.frames, 2, "frames").forEach((element, i) => out.writeBigUInt64LE(element, offset + i * 8));
  elements(value.bytes, 2, "bytes").forEach((element, i) => out.writeBigUInt64LE(element, offset + 16 + i * 8));
  out.writeBigUInt64LE(value.floodedFrames, offset + 32);
  out.writeBigUInt64LE(value.floodedBytes, offset + 40);
  elements(value.fragmented, 2, "fragmented").forEach((element, i) => out.writeBigUInt64LE(element, offset + 48 + i * 8));
}

export function encodeVnetdTraffic(value: VnetdTraffic): Buffer {
  const out = Buffer.alloc(64);
  writeVnetdTraffic(out, value);
  return out;
}

export function decodeVnetdTraffic(buf: Buffer, offset = 0): VnetdTraffic {
  atLeast(buf, offset, 64, "vnetd_traffic");
  return {
    frames: Array.from({ length: 2 }, (_, i) => buf.readBigUInt64LE(offset + i * 8)),
    bytes: Array.from({ length: 2 }, (_, i) => buf.readBigUInt64LE(offset + 16 + i * 8)),
    floodedFrames: buf.readBigUInt64LE(offset + 32),
    floodedBytes: buf.readBigUInt64LE(offset + 40),
    fragmented: Array.from({ length: 2 }, (_, i) => buf.readBigUInt64LE(offset + 48 + i * 8)),
  };
}

/** struct vnetd_drop_key */
export interface VnetdDropKey {
  handle: number;
  direction: number;
  reason: number;
}

export const VnetdDropKey = {
  size: 8,
  fields: {
    handle: { offset: 0, size: 4, type: "u32" },
    direction: { offset: 4, size: 2, type: "u16" },
    reason: { offset: 6, size: 2, type: "u16" },
  },
} as const;

export function writeVnetdDropKey(out: Buffer, value: VnetdDropKey, offset = 0): void {
  out.writeUInt32LE(value.handle, offset);
  out.writeUInt16LE(value.direction, offset + 4);
  out.writeUInt16LE(value.reason, offset + 6);
}

export function encodeVnetdDropKey(value: VnetdDropKey): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdDropKey(out, value);
  return out;
}

export function decodeVnetdDropKey(buf: Buffer, offset = 0): VnetdDropKey {
  atLeast(buf, offset, 8, "vnetd_drop_key");
  return {
    handle: buf.readUInt32LE(offset),
    direction: buf.readUInt16LE(offset + 4),
    reason: buf.readUInt16LE(offset + 6),
  };
}

/** struct vnetd_drop_count */
export interface VnetdDropCount {
  frames: bigint;
  bytes: bigint;
}

export const VnetdDropCount = {
  size: 16,
  fields: {
    frames: { offset: 0, size: 8, type: "u64" },
    bytes: { offset: 8, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdDropCount(out: Buffer, value: VnetdDropCount, offset = 0): void {
  out.writeBigUInt64LE(value.frames, offset);
  out.writeBigUInt64LE(value.bytes, offset + 8);
}

export function encodeVnetdDropCount(value: VnetdDropCount): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdDropCount(out, value);
  return out;
}

export function decodeVnetdDropCount(buf: Buffer, offset = 0): VnetdDropCount {
  atLeast(buf, offset, 16, "vnetd_drop_count");
  return {
    frames: buf.readBigUInt64LE(offset),
    bytes: buf.readBigUInt64LE(offset + 8),
  };
}

/** struct vnetd_table_stats */
export interface VnetdTableStats {
  learned: bigint;
  moved: bigint;
  aged: bigint;
  dropKeysFull: bigint;
}

export const VnetdTableStats = {
  size: 32,
  fields: {
    learned: { offset: 0, size: 8, type: "u64" },
    moved: { offset: 8, size: 8, type: "u64" },
    aged: { offset: 16, size: 8, type: "u64" },
    dropKeysFull: { offset: 24, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdTableStats(out: Buffer, value: VnetdTableStats, offset = 0): void {
  out.writeBigUInt64LE(value.learned, offset);
  out.writeBigUInt64LE(value.moved, offset + 8);
  out.writeBigUInt64LE(value.aged, offset + 16);
  out.writeBigUInt64LE(value.dropKeysFull, offset + 24);
}

export function encodeVnetdTableStats(value: VnetdTableStats): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdTableStats(out, value);
  return out;
}

export function decodeVnetdTableStats(buf: Buffer, offset = 0): VnetdTableStats {
  atLeast(buf, offset, 32, "vnetd_table_stats");
  return {
    learned: buf.readBigUInt64LE(offset),
    moved: buf.readBigUInt64LE(offset + 8),
    aged: buf.readBigUInt64LE(offset + 16),
    dropKeysFull: buf.readBigUInt64LE(offset + 24),
  };
}

/** struct vnetd_varp_stats */
export interface VnetdVarpStats {
  answered: bigint;
  notHere: bigint;
  limited: bigint;
  taken: bigint;
}

export const VnetdVarpStats = {
  size: 32,
  fields: {
    answered: { offset: 0, size: 8, type: "u64" },
    notHere: { offset: 8, size: 8, type: "u64" },
    limited: { offset: 16, size: 8, type: "u64" },
    taken: { offset: 24, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdVarpStats(out: Buffer, value: VnetdVarpStats, offset = 0): void {
  out.writeBigUInt64LE(value.answered, offset);
  out.writeBigUInt64LE(value.notHere, offset + 8);
  out.writeBigUInt64LE(value.limited, offset + 16);
  out.writeBigUInt64LE(value.taken, offset + 24);
}

export function encodeVnetdVarpStats(value: VnetdVarpStats): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdVarpStats(out, value);
  return out;
}

export function decodeVnetdVarpStats(buf: Buffer, offset = 0): VnetdVarpStats {
  atLeast(buf, offset, 32, "vnetd_varp_stats");
  return {
    answered: buf.readBigUInt64LE(offset),
    notHere: buf.readBigUInt64LE(offset + 8),
    limited: buf.readBigUInt64LE(offset + 16),
    taken: buf.readBigUInt64LE(offset + 24),
  };
}

/** struct vnetd_device_stats */
export interface VnetdDeviceStats {
  frames: bigint;
  bytes: bigint;
  largeFrames: bigint;
  superFrames: bigint;
  xdpFrames: bigint;
}

export const VnetdDeviceStats = {
  size: 40,
  fields: {
    frames: { offset: 0, size: 8, type: "u64" },
    bytes: { offset: 8, size: 8, type: "u64" },
    largeFrames: { offset: 16, size: 8, type: "u64" },
    superFrames: { offset: 24, size: 8, type: "u64" },
    xdpFrames: { offset: 32, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdDeviceStats(out: Buffer, value: VnetdDeviceStats, offset = 0): void {
  out.writeBigUInt64LE(value.frames, offset);
  out.writeBigUInt64LE(value.bytes, offset + 8);
  out.writeBigUInt64LE(value.largeFrames, offset + 16);
  out.writeBigUInt64LE(value.superFrames, offset + 24);
  out.writeBigUInt64LE(value.xdpFrames, offset + 32);
}

export function encodeVnetdDeviceStats(value: VnetdDeviceStats): Buffer {
  const out = Buffer.alloc(40);
  writeVnetdDeviceStats(out, value);
  return out;
}

export function decodeVnetdDeviceStats(buf: Buffer, offset = 0): VnetdDeviceStats {
  atLeast(buf, offset, 40, "vnetd_device_stats");
  return {
    frames: buf.readBigUInt64LE(offset),
    bytes: buf.readBigUInt64LE(offset + 8),
    largeFrames: buf.readBigUInt64LE(offset + 16),
    superFrames: buf.readBigUInt64LE(offset + 24),
    xdpFrames: buf.readBigUInt64LE(offset + 32),
  };
}

/** struct vnetd_event_varp */
export interface VnetdEventVarp {
  type: number;
  ifindex: number;
  source: Uint8Array;
  destination: Uint8Array;
  sourcePort: number;
  len: number;
  way: number;
  message: Uint8Array;
}

export const VnetdEventVarp = {
  size: 560,
  fields: {
    type: { offset: 0, size: 4, type: "u32" },
    ifindex: { offset: 4, size: 4, type: "u32" },
    source: { offset: 8, size: 16, type: "u8", count: 16 },
    destination: { offset: 24, size: 16, type: "u8", count: 16 },
    sourcePort: { offset: 40, size: 2, type: "u16", endian: "be" },
    len: { offset: 42, size: 2, type: "u16" },
    way: { offset: 44, size: 4, type: "u32" },
    message: { offset: 48, size: 512, type: "u8", count: 512 },
  },
} as const;

export function writeVnetdEventVarp(out: Buffer, value: VnetdEventVarp, offset = 0): void {
  out.writeUInt32LE(value.type, offset);
  out.writeUInt32LE(value.ifindex, offset + 4);
  putBytes(out, value.source, offset + 8, 16, "source");
  putBytes(out, value.destination, offset + 24, 16, "destination");
  out.writeUInt16BE(value.sourcePort, offset + 40);
  out.writeUInt16LE(value.len, offset + 42);
  out.writeUInt32LE(value.way, offset + 44);
  putBytes(out, value.message, offset + 48, 512, "message");
}

export function encodeVnetdEventVarp(value: VnetdEventVarp): Buffer {
  const out = Buffer.alloc(560);
  writeVnetdEventVarp(out, value);
  return out;
}

export function decodeVnetdEventVarp(buf: Buffer, offset = 0): VnetdEventVarp {
  atLeast(buf, offset, 560, "vnetd_event_varp");
  return {
    type: buf.readUInt32LE(offset),
    ifindex: buf.readUInt32LE(offset + 4),
    source: Buffer.from(buf.subarray(offset + 8, offset + 24)),
    destination: Buffer.from(buf.subarray(offset + 24, offset + 40)),
    sourcePort: buf.readUInt16BE(offset + 40),
    len: buf.readUInt16LE(offset + 42),
    way: buf.readUInt32LE(offset + 44),
    message: Buffer.from(buf.subarray(offset + 48, offset + 560)),
  };
}

/** struct vnetd_event_mac */
export interface VnetdEventMac {
  type: number;
  slot: number;
  handle: number;
  mac: Uint8Array;
  from: number;
  to: number;
  timeNs: bigint;
}

export const VnetdEventMac = {
  size: 40,
  fields: {
    type: { offset: 0, size: 4, type: "u32" },
    slot: { offset: 4, size: 4, type: "u32" },
    handle: { offset: 8, size: 4, type: "u32" },
    mac: { offset: 12, size: 6, type: "u8", count: 6 },
    pad: { offset: 18, size: 2, type: "u16" },
    from: { offset: 20, size: 4, type: "u32" },
    to: { offset: 24, size: 4, type: "u32" },
    pad2: { offset: 28, size: 4, type: "u32" },
    timeNs: { offset: 32, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdEventMac(out: Buffer, value: VnetdEventMac, offset = 0): void {
  out.writeUInt32LE(value.type, offset);
  out.writeUInt32LE(value.slot, offset + 4);
  out.writeUInt32LE(value.handle, offset + 8);
  putBytes(out, value.mac, offset + 12, 6, "mac");
  out.writeUInt32LE(value.from, offset + 20);
  out.writeUInt32LE(value.to, offset + 24);
  out.writeBigUInt64LE(value.timeNs, offset + 32);
}

export function encodeVnetdEventMac(value: VnetdEventMac): Buffer {
  const out = Buffer.alloc(40);
  writeVnetdEventMac(out, value);
  return out;
}

export function decodeVnetdEventMac(buf: Buffer, offset = 0): VnetdEventMac {
  atLeast(buf, offset, 40, "vnetd_event_mac");
  return {
    type: buf.readUInt32LE(offset),
    slot: buf.readUInt32LE(offset + 4),
    handle: buf.readUInt32LE(offset + 8),
    mac: Buffer.from(buf.subarray(offset + 12, offset + 18)),
    from: buf.readUInt32LE(offset + 20),
    to: buf.readUInt32LE(offset + 24),
    timeNs: buf.readBigUInt64LE(offset + 32),
  };
}

/** struct vnetd_event_loop */
export interface VnetdEventLoop {
  type: number;
  slot: number;
  handle: number;
  direction: number;
  source: Uint8Array;
  probe: VnetdProbe;
}

export const VnetdEventLoop = {
  size: 240,
  fields: {
    type: { offset: 0, size: 4, type: "u32" },
    slot: { offset: 4, size: 4, type: "u32" },
    handle: { offset: 8, size: 4, type: "u32" },
    direction: { offset: 12, size: 4, type: "u32" },
    source: { offset: 16, size: 16, type: "u8", count: 16 },
    probe: { offset: 32, size: 208, type: "vnetd_probe" },
  },
} as const;

export function writeVnetdEventLoop(out: Buffer, value: VnetdEventLoop, offset = 0): void {
  out.writeUInt32LE(value.type, offset);
  out.writeUInt32LE(value.slot, offset + 4);
  out.writeUInt32LE(value.handle, offset + 8);
  out.writeUInt32LE(value.direction, offset + 12);
  putBytes(out, value.source, offset + 16, 16, "source");
  writeVnetdProbe(out, value.probe, offset + 32);
}

export function encodeVnetdEventLoop(value: VnetdEventLoop): Buffer {
  const out = Buffer.alloc(240);
  writeVnetdEventLoop(out, value);
  return out;
}

export function decodeVnetdEventLoop(buf: Buffer, offset = 0): VnetdEventLoop {
  atLeast(buf, offset, 240, "vnetd_event_loop");
  return {
    type: buf.readUInt32LE(offset),
    slot: buf.readUInt32LE(offset + 4),
    handle: buf.readUInt32LE(offset + 8),
    direction: buf.readUInt32LE(offset + 12),
    source: Buffer.from(buf.subarray(offset + 16, offset + 32)),
    probe: decodeVnetdProbe(buf, offset + 32),
  };
}

/** struct vnetd_event_peer */
export interface VnetdEventPeer {
  type: number;
  ifindex: number;
  addr: Uint8Array;
}

export const VnetdEventPeer = {
  size: 24,
  fields: {
    type: { offset: 0, size: 4, type: "u32" },
    ifindex: { offset: 4, size: 4, type: "u32" },
    addr: { offset: 8, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdEventPeer(out: Buffer, value: VnetdEventPeer, offset = 0): void {
  out.writeUInt32LE(value.type, offset);
  out.writeUInt32LE(value.ifindex, offset + 4);
  putBytes(out, value.addr, offset + 8, 16, "addr");
}

export function encodeVnetdEventPeer(value: VnetdEventPeer): Buffer {
  const out = Buffer.alloc(24);
  writeVnetdEventPeer(out, value);
  return out;
}

export function decodeVnetdEventPeer(buf: Buffer, offset = 0): VnetdEventPeer {
  atLeast(buf, offset, 24, "vnetd_event_peer");
  return {
    type: buf.readUInt32LE(offset),
    ifindex: buf.readUInt32LE(offset + 4),
    addr: Buffer.from(buf.subarray(offset + 8, offset + 24)),
  };
}

/** struct vnetd_watch */
export interface VnetdWatch {
  untilNs: bigint;
  flags: number;
  handle: number;
  reason: number;
  framesHandle: number;
  snap: number;
}

export const VnetdWatch = {
  size: 32,
  fields: {
    untilNs: { offset: 0, size: 8, type: "u64" },
    flags: { offset: 8, size: 4, type: "u32" },
    handle: { offset: 12, size: 4, type: "u32" },
    reason: { offset: 16, size: 4, type: "u32" },
    framesHandle: { offset: 20, size: 4, type: "u32" },
    snap: { offset: 24, size: 4, type: "u32" },
    pad: { offset: 28, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdWatch(out: Buffer, value: VnetdWatch, offset = 0): void {
  out.writeBigUInt64LE(value.untilNs, offset);
  out.writeUInt32LE(value.flags, offset + 8);
  out.writeUInt32LE(value.handle, offset + 12);
  out.writeUInt32LE(value.reason, offset + 16);
  out.writeUInt32LE(value.framesHandle, offset + 20);
  out.writeUInt32LE(value.snap, offset + 24);
}

export function encodeVnetdWatch(value: VnetdWatch): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdWatch(out, value);
  return out;
}

export function decodeVnetdWatch(buf: Buffer, offset = 0): VnetdWatch {
  atLeast(buf, offset, 32, "vnetd_watch");
  return {
    untilNs: buf.readBigUInt64LE(offset),
    flags: buf.readUInt32LE(offset + 8),
    handle: buf.readUInt32LE(offset + 12),
    reason: buf.readUInt32LE(offset + 16),
    framesHandle: buf.readUInt32LE(offset + 20),
    snap: buf.readUInt32LE(offset + 24),
  };
}

/** struct vnetd_watch_stats */
export interface VnetdWatchStats {
  refilledNs: bigint;
  tokens: bigint;
  paced: bigint;
  full: bigint;
}

export const VnetdWatchStats = {
  size: 32,
  fields: {
    refilledNs: { offset: 0, size: 8, type: "u64" },
    tokens: { offset: 8, size: 8, type: "u64" },
    paced: { offset: 16, size: 8, type: "u64" },
    full: { offset: 24, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdWatchStats(out: Buffer, value: VnetdWatchStats, offset = 0): void {
  out.writeBigUInt64LE(value.refilledNs, offset);
  out.writeBigUInt64LE(value.tokens, offset + 8);
  out.writeBigUInt64LE(value.paced, offset + 16);
  out.writeBigUInt64LE(value.full, offset + 24);
}

export function encodeVnetdWatchStats(value: VnetdWatchStats): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdWatchStats(out, value);
  return out;
}

export function decodeVnetdWatchStats(buf: Buffer, offset = 0): VnetdWatchStats {
  atLeast(buf, offset, 32, "vnetd_watch_stats");
  return {
    refilledNs: buf.readBigUInt64LE(offset),
    tokens: buf.readBigUInt64LE(offset + 8),
    paced: buf.readBigUInt64LE(offset + 16),
    full: buf.readBigUInt64LE(offset + 24),
  };
}

/** struct vnetd_event_packet */
export interface VnetdEventPacket {
  type: number;
  handle: number;
  direction: number;
  reason: number;
  ifindex: number;
  timeNs: bigint;
  len: number;
  kept: number;
  vlanProto: number;
  vlanTci: number;
}

export const VnetdEventPacket = {
  size: 40,
  fields: {
    type: { offset: 0, size: 4, type: "u32" },
    handle: { offset: 4, size: 4, type: "u32" },
    direction: { offset: 8, size: 2, type: "u16" },
    reason: { offset: 10, size: 2, type: "u16" },
    ifindex: { offset: 12, size: 4, type: "u32" },
    timeNs: { offset: 16, size: 8, type: "u64" },
    len: { offset: 24, size: 4, type: "u32" },
    kept: { offset: 28, size: 4, type: "u32" },
    vlanProto: { offset: 32, size: 2, type: "u16", endian: "be" },
    vlanTci: { offset: 34, size: 2, type: "u16", endian: "be" },
    pad: { offset: 36, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdEventPacket(out: Buffer, value: VnetdEventPacket, offset = 0): void {
  out.writeUInt32LE(value.type, offset);
  out.writeUInt32LE(value.handle, offset + 4);
  out.writeUInt16LE(value.direction, offset + 8);
  out.writeUInt16LE(value.reason, offset + 10);
  out.writeUInt32LE(value.ifindex, offset + 12);
  out.writeBigUInt64LE(value.timeNs, offset + 16);
  out.writeUInt32LE(value.len, offset + 24);
  out.writeUInt32LE(value.kept, offset + 28);
  out.writeUInt16BE(value.vlanProto, offset + 32);
  out.writeUInt16BE(value.vlanTci, offset + 34);
}

export function encodeVnetdEventPacket(value: VnetdEventPacket): Buffer {
  const out = Buffer.alloc(40);
  writeVnetdEventPacket(out, value);
  return out;
}

export function decodeVnetdEventPacket(buf: Buffer, offset = 0): VnetdEventPacket {
  atLeast(buf, offset, 40, "vnetd_event_packet");
  return {
    type: buf.readUInt32LE(offset),
    handle: buf.readUInt32LE(offset + 4),
    direction: buf.readUInt16LE(offset + 8),
    reason: buf.readUInt16LE(offset + 10),
    ifindex: buf.readUInt32LE(offset + 12),
    timeNs: buf.readBigUInt64LE(offset + 16),
    len: buf.readUInt32LE(offset + 24),
    kept: buf.readUInt32LE(offset + 28),
    vlanProto: buf.readUInt16BE(offset + 32),
    vlanTci: buf.readUInt16BE(offset + 34),
  };
}

/** struct vnetd_dry_copy */
export interface VnetdDryCopy {
  ifindex: number;
  ingress: number;
  mark: number;
  len: number;
  head: Uint8Array;
}

export const VnetdDryCopy = {
  size: 80,
  fields: {
    ifindex: { offset: 0, size: 4, type: "u32" },
    ingress: { offset: 4, size: 4, type: "u32" },
    mark: { offset: 8, size: 4, type: "u32" },
    len: { offset: 12, size: 4, type: "u32" },
    head: { offset: 16, size: 64, type: "u8", count: 64 },
  },
} as const;

export function writeVnetdDryCopy(out: Buffer, value: VnetdDryCopy, offset = 0): void {
  out.writeUInt32LE(value.ifindex, offset);
  out.writeUInt32LE(value.ingress, offset + 4);
  out.writeUInt32LE(value.mark, offset + 8);
  out.writeUInt32LE(value.len, offset + 12);
  putBytes(out, value.head, offset + 16, 64, "head");
}

export function encodeVnetdDryCopy(value: VnetdDryCopy): Buffer {
  const out = Buffer.alloc(80);
  writeVnetdDryCopy(out, value);
  return out;
}

export function decodeVnetdDryCopy(buf: Buffer, offset = 0): VnetdDryCopy {
  atLeast(buf, offset, 80, "vnetd_dry_copy");
  return {
    ifindex: buf.readUInt32LE(offset),
    ingress: buf.readUInt32LE(offset + 4),
    mark: buf.readUInt32LE(offset + 8),
    len: buf.readUInt32LE(offset + 12),
    head: Buffer.from(buf.subarray(offset + 16, offset + 80)),
  };
}

/** struct vnetd_dry_copies */
export interface VnetdDryCopies {
  count: number;
  copy: VnetdDryCopy[];
}

export const VnetdDryCopies = {
  size: 5124,
  fields: {
    count: { offset: 0, size: 4, type: "u32" },
    copy: { offset: 4, size: 5120, type: "vnetd_dry_copy", count: 64 },
  },
} as const;

export function writeVnetdDryCopies(out: Buffer, value: VnetdDryCopies, offset = 0): void {
  out.writeUInt32LE(value.count, offset);
  elements(value.copy, 64, "copy").forEach((element, i) => writeVnetdDryCopy(out, element, offset + 4 + i * 80));
}

export function encodeVnetdDryCopies(value: VnetdDryCopies): Buffer {
  const out = Buffer.alloc(5124);
  writeVnetdDryCopies(out, value);
  return out;
}

export function decodeVnetdDryCopies(buf: Buffer, offset = 0): VnetdDryCopies {
  atLeast(buf, offset, 5124, "vnetd_dry_copies");
  return {
    count: buf.readUInt32LE(offset),
    copy: Array.from({ length: 64 }, (_, i) => decodeVnetdDryCopy(buf, offset + 4 + i * 80)),
  };
}

/** struct vnetd_control_mac */
export interface VnetdControlMac {
  mac: Uint8Array;
  here: number;
  seenNs: bigint;
}

export const VnetdControlMac = {
  size: 16,
  fields: {
    mac: { offset: 0, size: 6, type: "u8", count: 6 },
    here: { offset: 6, size: 2, type: "u16" },
    seenNs: { offset: 8, size: 8, type: "u64" },
  },
} as const;

export function writeVnetdControlMac(out: Buffer, value: VnetdControlMac, offset = 0): void {
  putBytes(out, value.mac, offset, 6, "mac");
  out.writeUInt16LE(value.here, offset + 6);
  out.writeBigUInt64LE(value.seenNs, offset + 8);
}

export function encodeVnetdControlMac(value: VnetdControlMac): Buffer {
  const out = Buffer.alloc(16);
  writeVnetdControlMac(out, value);
  return out;
}

export function decodeVnetdControlMac(buf: Buffer, offset = 0): VnetdControlMac {
  atLeast(buf, offset, 16, "vnetd_control_mac");
  return {
    mac: Buffer.from(buf.subarray(offset, offset + 6)),
    here: buf.readUInt16LE(offset + 6),
    seenNs: buf.readBigUInt64LE(offset + 8),
  };
}

/** struct vnetd_control */
export interface VnetdControl {
  eth: Uint8Array;
  op: number;
  result: number;
  slot: number;
  handle: number;
  ifindex: number;
  fdbFlags: number;
  nexthop: number;
  nexthopFlags: number;
  capabilities: number;
  mtu: number;
  mac: Uint8Array;
  addr: Uint8Array;
  otherIfindex: number;
  otherAddr: Uint8Array;
  host: Uint8Array;
  path: number;
  spi: number;
  gen: number;
}

export const VnetdControl = {
  size: 120,
  fields: {
    eth: { offset: 0, size: 14, type: "u8", count: 14 },
    op: { offset: 14, size: 2, type: "u16" },
    result: { offset: 16, size: 4, type: "u32" },
    slot: { offset: 20, size: 4, type: "u32" },
    handle: { offset: 24, size: 4, type: "u32" },
    ifindex: { offset: 28, size: 4, type: "u32" },
    fdbFlags: { offset: 32, size: 4, type: "u32" },
    nexthop: { offset: 36, size: 4, type: "u32" },
    nexthopFlags: { offset: 40, size: 4, type: "u32" },
    capabilities: { offset: 44, size: 4, type: "u32" },
    mtu: { offset: 48, size: 2, type: "u16" },
    mac: { offset: 50, size: 6, type: "u8", count: 6 },
    addr: { offset: 56, size: 16, type: "u8", count: 16 },
    otherIfindex: { offset: 72, size: 4, type: "u32" },
    otherAddr: { offset: 76, size: 16, type: "u8", count: 16 },
    host: { offset: 92, size: 16, type: "u8", count: 16 },
    path: { offset: 108, size: 1, type: "u8" },
    pad: { offset: 109, size: 3, type: "u8", count: 3 },
    spi: { offset: 112, size: 4, type: "u32" },
    gen: { offset: 116, size: 4, type: "u32" },
  },
} as const;

export function writeVnetdControl(out: Buffer, value: VnetdControl, offset = 0): void {
  putBytes(out, value.eth, offset, 14, "eth");
  out.writeUInt16LE(value.op, offset + 14);
  out.writeUInt32LE(value.result, offset + 16);
  out.writeUInt32LE(value.slot, offset + 20);
  out.writeUInt32LE(value.handle, offset + 24);
  out.writeUInt32LE(value.ifindex, offset + 28);
  out.writeUInt32LE(value.fdbFlags, offset + 32);
  out.writeUInt32LE(value.nexthop, offset + 36);
  out.writeUInt32LE(value.nexthopFlags, offset + 40);
  out.writeUInt32LE(value.capabilities, offset + 44);
  out.writeUInt16LE(value.mtu, offset + 48);
  putBytes(out, value.mac, offset + 50, 6, "mac");
  putBytes(out, value.addr, offset + 56, 16, "addr");
  out.writeUInt32LE(value.otherIfindex, offset + 72);
  putBytes(out, value.otherAddr, offset + 76, 16, "otherAddr");
  putBytes(out, value.host, offset + 92, 16, "host");
  out.writeUInt8(value.path, offset + 108);
  out.writeUInt32LE(value.spi, offset + 112);
  out.writeUInt32LE(value.gen, offset + 116);
}

export function encodeVnetdControl(value: VnetdControl): Buffer {
  const out = Buffer.alloc(120);
  writeVnetdControl(out, value);
  return out;
}

export function decodeVnetdControl(buf: Buffer, offset = 0): VnetdControl {
  atLeast(buf, offset, 120, "vnetd_control");
  return {
    eth: Buffer.from(buf.subarray(offset, offset + 14)),
    op: buf.readUInt16LE(offset + 14),
    result: buf.readUInt32LE(offset + 16),
    slot: buf.readUInt32LE(offset + 20),
    handle: buf.readUInt32LE(offset + 24),
    ifindex: buf.readUInt32LE(offset + 28),
    fdbFlags: buf.readUInt32LE(offset + 32),
    nexthop: buf.readUInt32LE(offset + 36),
    nexthopFlags: buf.readUInt32LE(offset + 40),
    capabilities: buf.readUInt32LE(offset + 44),
    mtu: buf.readUInt16LE(offset + 48),
    mac: Buffer.from(buf.subarray(offset + 50, offset + 56)),
    addr: Buffer.from(buf.subarray(offset + 56, offset + 72)),
    otherIfindex: buf.readUInt32LE(offset + 72),
    otherAddr: Buffer.from(buf.subarray(offset + 76, offset + 92)),
    host: Buffer.from(buf.subarray(offset + 92, offset + 108)),
    path: buf.readUInt8(offset + 108),
    spi: buf.readUInt32LE(offset + 112),
    gen: buf.readUInt32LE(offset + 116),
  };
}

/** struct vnetd_msg_hdr */
export interface VnetdMsgHdr {
  id: number;
  opcode: number;
}

export const VnetdMsgHdr = {
  size: 4,
  fields: {
    id: { offset: 0, size: 2, type: "u16", endian: "be" },
    opcode: { offset: 2, size: 2, type: "u16", endian: "be" },
  },
} as const;

export function writeVnetdMsgHdr(out: Buffer, value: VnetdMsgHdr, offset = 0): void {
  out.writeUInt16BE(value.id, offset);
  out.writeUInt16BE(value.opcode, offset + 2);
}

export function encodeVnetdMsgHdr(value: VnetdMsgHdr): Buffer {
  const out = Buffer.alloc(4);
  writeVnetdMsgHdr(out, value);
  return out;
}

export function decodeVnetdMsgHdr(buf: Buffer, offset = 0): VnetdMsgHdr {
  atLeast(buf, offset, 4, "vnetd_msg_hdr");
  return {
    id: buf.readUInt16BE(offset),
    opcode: buf.readUInt16BE(offset + 2),
  };
}

/** struct vnetd_vudp_hdr */
export interface VnetdVudpHdr {
  msg: VnetdMsgHdr;
  etherip: number;
  vnet: Uint8Array;
}

export const VnetdVudpHdr = {
  size: 22,
  fields: {
    msg: { offset: 0, size: 4, type: "vnetd_msg_hdr" },
    etherip: { offset: 4, size: 2, type: "u16", endian: "be" },
    vnet: { offset: 6, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdVudpHdr(out: Buffer, value: VnetdVudpHdr, offset = 0): void {
  writeVnetdMsgHdr(out, value.msg, offset);
  out.writeUInt16BE(value.etherip, offset + 4);
  putBytes(out, value.vnet, offset + 6, 16, "vnet");
}

export function encodeVnetdVudpHdr(value: VnetdVudpHdr): Buffer {
  const out = Buffer.alloc(22);
  writeVnetdVudpHdr(out, value);
  return out;
}

export function decodeVnetdVudpHdr(buf: Buffer, offset = 0): VnetdVudpHdr {
  atLeast(buf, offset, 22, "vnetd_vudp_hdr");
  return {
    msg: decodeVnetdMsgHdr(buf, offset),
    etherip: buf.readUInt16BE(offset + 4),
    vnet: Buffer.from(buf.subarray(offset + 6, offset + 22)),
  };
}

/** struct vnetd_varp */
export interface VnetdVarp {
  msg: VnetdMsgHdr;
  vnet: Uint8Array;
  vmac: Uint8Array;
  family: number;
  addr: Uint8Array;
}

export const VnetdVarp = {
  size: 43,
  fields: {
    msg: { offset: 0, size: 4, type: "vnetd_msg_hdr" },
    vnet: { offset: 4, size: 16, type: "u8", count: 16 },
    vmac: { offset: 20, size: 6, type: "u8", count: 6 },
    family: { offset: 26, size: 1, type: "u8" },
    addr: { offset: 27, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdVarp(out: Buffer, value: VnetdVarp, offset = 0): void {
  writeVnetdMsgHdr(out, value.msg, offset);
  putBytes(out, value.vnet, offset + 4, 16, "vnet");
  putBytes(out, value.vmac, offset + 20, 6, "vmac");
  out.writeUInt8(value.family, offset + 26);
  putBytes(out, value.addr, offset + 27, 16, "addr");
}

export function encodeVnetdVarp(value: VnetdVarp): Buffer {
  const out = Buffer.alloc(43);
  writeVnetdVarp(out, value);
  return out;
}

export function decodeVnetdVarp(buf: Buffer, offset = 0): VnetdVarp {
  atLeast(buf, offset, 43, "vnetd_varp");
  return {
    msg: decodeVnetdMsgHdr(buf, offset),
    vnet: Buffer.from(buf.subarray(offset + 4, offset + 20)),
    vmac: Buffer.from(buf.subarray(offset + 20, offset + 26)),
    family: buf.readUInt8(offset + 26),
    addr: Buffer.from(buf.subarray(offset + 27, offset + 43)),
  };
}

/** struct vnetd_vfwd_hdr */
export interface VnetdVfwdHdr {
  msg: VnetdMsgHdr;
  innerIp: Uint8Array;
  innerUdp: Uint8Array;
}

export const VnetdVfwdHdr = {
  size: 32,
  fields: {
    msg: { offset: 0, size: 4, type: "vnetd_msg_hdr" },
    innerIp: { offset: 4, size: 20, type: "u8", count: 20 },
    innerUdp: { offset: 24, size: 8, type: "u8", count: 8 },
  },
} as const;

export function writeVnetdVfwdHdr(out: Buffer, value: VnetdVfwdHdr, offset = 0): void {
  writeVnetdMsgHdr(out, value.msg, offset);
  putBytes(out, value.innerIp, offset + 4, 20, "innerIp");
  putBytes(out, value.innerUdp, offset + 24, 8, "innerUdp");
}

export function encodeVnetdVfwdHdr(value: VnetdVfwdHdr): Buffer {
  const out = Buffer.alloc(32);
  writeVnetdVfwdHdr(out, value);
  return out;
}

export function decodeVnetdVfwdHdr(buf: Buffer, offset = 0): VnetdVfwdHdr {
  atLeast(buf, offset, 32, "vnetd_vfwd_hdr");
  return {
    msg: decodeVnetdMsgHdr(buf, offset),
    innerIp: Buffer.from(buf.subarray(offset + 4, offset + 24)),
    innerUdp: Buffer.from(buf.subarray(offset + 24, offset + 32)),
  };
}

/** struct vnetd_vfwd_ipv6_hdr */
export interface VnetdVfwdIpv6Hdr {
  msg: VnetdMsgHdr;
  innerIp: Uint8Array;
  innerUdp: Uint8Array;
}

export const VnetdVfwdIpv6Hdr = {
  size: 52,
  fields: {
    msg: { offset: 0, size: 4, type: "vnetd_msg_hdr" },
    innerIp: { offset: 4, size: 40, type: "u8", count: 40 },
    innerUdp: { offset: 44, size: 8, type: "u8", count: 8 },
  },
} as const;

export function writeVnetdVfwdIpv6Hdr(out: Buffer, value: VnetdVfwdIpv6Hdr, offset = 0): void {
  writeVnetdMsgHdr(out, value.msg, offset);
  putBytes(out, value.innerIp, offset + 4, 40, "innerIp");
  putBytes(out, value.innerUdp, offset + 44, 8, "innerUdp");
}

export function encodeVnetdVfwdIpv6Hdr(value: VnetdVfwdIpv6Hdr): Buffer {
  const out = Buffer.alloc(52);
  writeVnetdVfwdIpv6Hdr(out, value);
  return out;
}

export function decodeVnetdVfwdIpv6Hdr(buf: Buffer, offset = 0): VnetdVfwdIpv6Hdr {
  atLeast(buf, offset, 52, "vnetd_vfwd_ipv6_hdr");
  return {
    msg: decodeVnetdMsgHdr(buf, offset),
    innerIp: Buffer.from(buf.subarray(offset + 4, offset + 44)),
    innerUdp: Buffer.from(buf.subarray(offset + 44, offset + 52)),
  };
}

/** struct vnetd_ext_hdr */
export interface VnetdExtHdr {
  magic: number;
  version: number;
  flags: number;
  len: number;
}

export const VnetdExtHdr = {
  size: 8,
  fields: {
    magic: { offset: 0, size: 4, type: "u32", endian: "be" },
    version: { offset: 4, size: 1, type: "u8" },
    flags: { offset: 5, size: 1, type: "u8" },
    len: { offset: 6, size: 2, type: "u16", endian: "be" },
  },
} as const;

export function writeVnetdExtHdr(out: Buffer, value: VnetdExtHdr, offset = 0): void {
  out.writeUInt32BE(value.magic, offset);
  out.writeUInt8(value.version, offset + 4);
  out.writeUInt8(value.flags, offset + 5);
  out.writeUInt16BE(value.len, offset + 6);
}

export function encodeVnetdExtHdr(value: VnetdExtHdr): Buffer {
  const out = Buffer.alloc(8);
  writeVnetdExtHdr(out, value);
  return out;
}

export function decodeVnetdExtHdr(buf: Buffer, offset = 0): VnetdExtHdr {
  atLeast(buf, offset, 8, "vnetd_ext_hdr");
  return {
    magic: buf.readUInt32BE(offset),
    version: buf.readUInt8(offset + 4),
    flags: buf.readUInt8(offset + 5),
    len: buf.readUInt16BE(offset + 6),
  };
}

/** struct vnetd_tlv_hdr */
export interface VnetdTlvHdr {
  type: number;
  len: number;
}

export const VnetdTlvHdr = {
  size: 4,
  fields: {
    type: { offset: 0, size: 2, type: "u16", endian: "be" },
    len: { offset: 2, size: 2, type: "u16", endian: "be" },
  },
} as const;

export function writeVnetdTlvHdr(out: Buffer, value: VnetdTlvHdr, offset = 0): void {
  out.writeUInt16BE(value.type, offset);
  out.writeUInt16BE(value.len, offset + 2);
}

export function encodeVnetdTlvHdr(value: VnetdTlvHdr): Buffer {
  const out = Buffer.alloc(4);
  writeVnetdTlvHdr(out, value);
  return out;
}

export function decodeVnetdTlvHdr(buf: Buffer, offset = 0): VnetdTlvHdr {
  atLeast(buf, offset, 4, "vnetd_tlv_hdr");
  return {
    type: buf.readUInt16BE(offset),
    len: buf.readUInt16BE(offset + 2),
  };
}

/** struct vnetd_ask */
export interface VnetdAsk {
  kind: number;
  flags: number;
  token: Uint8Array;
  clock: bigint;
}

export const VnetdAsk = {
  size: 20,
  fields: {
    kind: { offset: 0, size: 1, type: "u8" },
    flags: { offset: 1, size: 1, type: "u8" },
    reserved: { offset: 2, size: 2, type: "u16", endian: "be" },
    token: { offset: 4, size: 8, type: "u8", count: 8 },
    clock: { offset: 12, size: 8, type: "u64", endian: "be" },
  },
} as const;

export function writeVnetdAsk(out: Buffer, value: VnetdAsk, offset = 0): void {
  out.writeUInt8(value.kind, offset);
  out.writeUInt8(value.flags, offset + 1);
  putBytes(out, value.token, offset + 4, 8, "token");
  out.writeBigUInt64BE(value.clock, offset + 12);
}

export function encodeVnetdAsk(value: VnetdAsk): Buffer {
  const out = Buffer.alloc(20);
  writeVnetdAsk(out, value);
  return out;
}

export function decodeVnetdAsk(buf: Buffer, offset = 0): VnetdAsk {
  atLeast(buf, offset, 20, "vnetd_ask");
  return {
    kind: buf.readUInt8(offset),
    flags: buf.readUInt8(offset + 1),
    token: Buffer.from(buf.subarray(offset + 4, offset + 12)),
    clock: buf.readBigUInt64BE(offset + 12),
  };
}

/** struct vnetd_probe_hop */
export interface VnetdProbeHop {
  vnet: Uint8Array;
  from: Uint8Array;
  to: Uint8Array;
}

export const VnetdProbeHop = {
  size: 48,
  fields: {
    vnet: { offset: 0, size: 16, type: "u8", count: 16 },
    from: { offset: 16, size: 16, type: "u8", count: 16 },
    to: { offset: 32, size: 16, type: "u8", count: 16 },
  },
} as const;

export function writeVnetdProbeHop(out: Buffer, value: VnetdProbeHop, offset = 0): void {
  putBytes(out, value.vnet, offset, 16, "vnet");
  putBytes(out, value.from, offset + 16, 16, "from");
  putBytes(out, value.to, offset + 32, 16, "to");
}

export function encodeVnetdProbeHop(value: VnetdProbeHop): Buffer {
  const out = Buffer.alloc(48);
  writeVnetdProbeHop(out, value);
  return out;
}

export function decodeVnetdProbeHop(buf: Buffer, offset = 0): VnetdProbeHop {
  atLeast(buf, offset, 48, "vnetd_probe_hop");
  return {
    vnet: Buffer.from(buf.subarray(offset, offset + 16)),
    from: Buffer.from(buf.subarray(offset + 16, offset + 32)),
    to: Buffer.from(buf.subarray(offset + 32, offset + 48)),
  };
}

/** struct vnetd_probe */
export interface VnetdProbe {
  magic: number;
  version: number;
  hops: number;
  nonce: bigint;
  hop: VnetdProbeHop[];
}

export const VnetdProbe = {
  size: 208,
  fields: {
    magic: { offset: 0, size: 4, type: "u32", endian: "be" },
    version: { offset: 4, size: 1, type: "u8" },
    hops: { offset: 5, size: 1, type: "u8" },
    reserved: { offset: 6, size: 2, type: "u16", endian: "be" },
    nonce: { offset: 8, size: 8, type: "u64" },
    hop: { offset: 16, size: 192, type: "vnetd_probe_hop", count: 4 },
  },
} as const;

export function writeVnetdProbe(out: Buffer, value: VnetdProbe, offset = 0): void {
  out.writeUInt32BE(value.magic, offset);
  out.writeUInt8(value.version, offset + 4);
  out.writeUInt8(value.hops, offset + 5);
  out.writeBigUInt64LE(value.nonce, offset + 8);
  elements(value.hop, 4, "hop").forEach((element, i) => writeVnetdProbeHop(out, element, offset + 16 + i * 48));
}

export function encodeVnetdProbe(value: VnetdProbe): Buffer {
  const out = Buffer.alloc(208);
  writeVnetdProbe(out, value);
  return out;
}

export function decodeVnetdProbe(buf: Buffer, offset = 0): VnetdProbe {
  atLeast(buf, offset, 208, "vnetd_probe");
  return {
    magic: buf.readUInt32BE(offset),
    version: buf.readUInt8(offset + 4),
    hops: buf.readUInt8(offset + 5),
    nonce: buf.readBigUInt64LE(offset + 8),
    hop: Array.from({ length: 4 }, (_, i) => decodeVnetdProbeHop(buf, offset + 16 + i * 48)),
  };
}
