// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets: rows for vnetd_encap, vnetd_oversize, vnetd_relay, vnetd_decap and vnetd_esp, of UDP over IPv4 or
 * IPv6. Instead of the xfrm interface there is a veth pair (xf0): what would be encrypted is looked at, and
 * what was decrypted is made up. Copies to several members are in secure.test.ts, with real frames.
 */
import { expect } from "vitest";
import {
  decodeVnetdNexthop,
  encodeVnetdFloods,
  encodeVnetdNexthop,
  vnetdControlOp,
  vnetdFdbFlags,
  vnetdMark,
  vnetdSecurity,
} from "../../src/generated/layouts.js";
import { expectBytes, hex, ipv6Bytes, ipv6Text, macBytes, mappedBytes } from "../lib/bytes.js";
import { SPI_IN, type BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import { isIpv6, packetIn, type Form } from "../lib/forms.js";
import { BROADCAST_MAC, VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import { ENCAP_KINDS } from "./encap-rows.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  fromPeer,
  innerFrame,
  type Row,
  type RowContext,
} from "./rows.js";

const CONF = { security: vnetdSecurity.SECURITY_CONF } as const;
export const SECURE_FORMS = ["udp4", "udp6"] as const;
/** what it takes for a vnet to be sent and received by SAs */
const secure = {
  vnet: CONF,
  underlay: { esp: "xf0" },
  forms: SECURE_FORMS,
} as const;

export const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });
const udpToB = (bytes = 32): PacketBuilder =>
  toB().ipv4().udp({ src: 5000, dst: 5001 }).payload(bytes);
const broadcast = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).ipv4().udp({ dst: 9 });
const learned = { [GUEST_A]: "local" };
const localNew = ({ vnet }: RowContext): { kind: "local-new"; handle: number; mac: string }[] => [
  { kind: "local-new", handle: vnet.handle, mac: GUEST_A },
];

export function learnB({ lab, vnet }: RowContext): void {
  const where = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
  lab.control(vnetdControlOp.CTL_LEARN, vnet, where);
}

/** B lives at the peer, and there are keys with it */
function withKeys(context: RowContext): { nexthop: number; gen: number } {
  learnB(context);
  return context.lab.keys(context.vnet, PEER);
}

/** the addresses that name the SA of a next hop */
export function synthetic(lab: BpfLab, nexthop: number): { src: string; dst: string } {
  if (!isIpv6(lab.form)) return { src: "240.0.0.1", dst: `241.0.${nexthop >> 8}.${nexthop & 255}` };
  const at = (number: number): string => {
    const bytes = ipv6Bytes("100::");
    bytes.writeUInt32BE(lab.ifindex("ul0"), 8);
    bytes.writeUInt32BE(number, 12);
    return ipv6Text(bytes);
  };
  return { src: at(0), dst: at(nexthop) };
}

/** A packet for the xfrm interface, right in every field. */
export function expectSecure(
  lab: BpfLab,
  output: Buffer,
  expected: { nexthop: number; frame: PacketBuilder },
): ParsedFrame {
  const outer = parseFrame(output);
  const ends = synthetic(lab, expected.nexthop);
  if (isIpv6(lab.form)) {
    expect(outer.ipv6).toMatchObject({ ...ends, hopLimit: 64, nextHeader: 17 });
  } else {
    const fields = { ttl: 64, tos: 0, dontFragment: false, moreFragments: false, protocol: 17 };
    expect(outer.ipv4).toMatchObject({ ...ends, ...fields, fragmentOffset: 0 });
  }
  expect(outer.udp).toMatchObject({ dst: 1798, checksum: 0 });
  expect(outer.padding.length).toBe(0);
  if (outer.message?.kind !== "vudp") throw new Error("not VUDP");
  expect(outer.message.vnet).toBe("0000:0000:0000:0000:0000:0000:0000:0004");
  expectBytes(outer.message.frame, expected.frame.build(), { what: "inner frame" });
  return outer;
}

/** the number of the peer's next hop */
const hopOf = ({ lab, vnet }: RowContext): number => lab.keys(vnet, PEER).nexthop;

// ---- out ---------------------------------------------------------------------------------------

const kinds: Row[] = Object.entries(ENCAP_KINDS).map(([kind, { frame, secondPass }]) => ({
  ...secure,
  description: `${kind} goes to the SA of its host`,
  program: "vnetd_encap",
  setup: withKeys,
  input: frame,
  verdict: "redirect",
  learned,
  events: localNew,
  check: (context) => {
    const { lab, output, mark } = context;
    const expected = { nexthop: hopOf(context), frame };
    expectSecure(lab, output, expected);
    expect(mark).toBe(secondPass ? vnetdMark.MARK_SECURE_PASS : vnetdMark.MARK_ESP);
    if (!secondPass) return;
    const second = lab.run("vnetd_encap", output, { mark });
    expect(second).toMatchObject({ verdict: "redirect", mark: vnetdMark.MARK_ESP, drops: [] });
    expectSecure(lab, second.output, expected);
  },
}));

const fast: Row[] = [
  {
    ...secure,
    description: "fast: IP to a host with keys goes to its SA",
    program: "vnetd_encap_fast",
    setup: withKeys,
    input: udpToB(),
    verdict: "redirect",
    learned,
    events: localNew,
    check: (context) => {
      const expected = { nexthop: hopOf(context), frame: udpToB() };
      expectSecure(context.lab, context.output, expected);
    },
  },
  ...(
    [
      ["a broadcast", broadcast, []],
      ["what is not IP", toB().arp(), []],
      ["what is too large", udpToB(1500), ["local-new"]],
    ] as const
  ).map(([description, input, events]): Row => ({
    ...secure,
    description: `fast: ${description} is left, unchanged, to vnetd_encap`,
    program: "vnetd_encap_fast",
    setup: (context) => {
      const member = withKeys(context);
      context.lab.secureMembers(context.vnet, [member]);
    },
    input,
    verdict: "pass",
    ...(description === "a broadcast" ? { anyEvents: true } : {}),
    events: () => events.map((kind) => ({ kind })),
    check: ({ output, input: given, mark }) => {
      expectBytes(output, given);
      expect(mark).toBe(0);
    },
  })),
];

/** what keeps a frame from leaving by an SA never lets it leave another way */
const withoutKeys: Row[] = (
  [
    ["there are none", learnB, undefined],
    [
      "they are gone",
      (context) => {
        withKeys(context);
        context.lab.keys(context.vnet, PEER, 0);
      },
      undefined,
    ],
    ["the device has no xfrm interface", withKeys, {}],
  ] as [string, (context: RowContext) => void, object | undefined][]
).map(([why, setup, underlay]): Row => ({
  ...secure,
  description: `no_keys: to a host that is known, ${why}`,
  program: "vnetd_encap",
  setup,
  ...(underlay === undefined ? {} : { underlay }),
  input: udpToB(),
  verdict: "drop",
  reasons: ["no_keys"],
  learned,
  events: localNew,
}));

const toAll: Row[] = [
  {
    ...secure,
    description: "no_receiver: a broadcast where there are no members",
    program: "vnetd_encap",
    input: broadcast,
    verdict: "drop",
    reasons: ["no_receiver"],
    learned,
    events: localNew,
  },
  {
    ...secure,
    description: "no_keys: a broadcast where members have none",
    program: "vnetd_encap",
    setup: ({ lab, vnet }) => lab.secureMembers(vnet, [lab.keys(vnet, PEER, 0)]),
    input: broadcast,
    verdict: "drop",
    reasons: ["no_keys"],
    learned,
    events: localNew,
  },
  {
    ...secure,
    description: "no_keys: the member's next hop is another host's by now",
    program: "vnetd_encap",
    setup: ({ lab, vnet }) => {
      const { nexthop, gen } = lab.keys(vnet, PEER);
      lab.secureMembers(vnet, [{ nexthop, gen: gen + 1 }]);
    },
    input: broadcast,
    verdict: "drop",
    reasons: ["no_keys"],
    learned,
    events: localNew,
  },
  {
    ...secure,
    description: "no_keys: the member's next hop is of another vnet by now",
    program: "vnetd_encap",
    setup: ({ lab, vnet }) => {
      const other = lab.vnet({ ...CONF, id: "99" });
      const member = lab.keys(other, PEER);
      lab.port(vnet);
      lab.secureMembers(vnet, [member]);
    },
    input: broadcast,
    verdict: "drop",
    reasons: ["no_keys"],
    learned,
    events: localNew,
  },
  ...(
    [
      ["a broadcast", broadcast, []],
      [
        "unknown unicast",
        packet().eth({ src: GUEST_A, dst: "aa:00:00:00:04:77" }).ipv4().udp(),
        [1],
      ],
    ] as const
  ).map(([what, frame, unknown]): Row => ({
    ...secure,
    description: `${what} goes to the one member with keys, and that another has none is counted`,
    program: "vnetd_encap",
    setup: ({ lab, vnet }) =>
      lab.secureMembers(vnet, [lab.keys(vnet, THIRD, 0), lab.keys(vnet, PEER)]),
    input: frame,
    verdict: "redirect",
    reasons: ["no_keys"],
    learned,
    flooded: 1,
    events: (context) => [
      ...localNew(context),
      ...unknown.map(() => ({ kind: "unknown-unicast" as const })),
    ],
    check: (context) => {
      const expected = { nexthop: hopOf(context), frame };
      expectSecure(context.lab, context.output, expected);
      expect(context.mark).toBe(vnetdMark.MARK_ESP);
    },
  })),
  {
    ...secure,
    description: "ARP to all passes once more, and is looked at again",
    program: "vnetd_encap",
    setup: ({ lab, vnet }) => lab.secureMembers(vnet, [lab.keys(vnet, PEER)]),
    input: packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp(),
    verdict: "redirect",
    learned,
    flooded: 1,
    events: localNew,
    check: (context) => {
      const { lab, vnet, output, mark } = context;
      const frame = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp();
      expect(mark).toBe(vnetdMark.MARK_SECURE_PASS | vnetdMark.MARK_TO_ALL);
      const second = lab.run("vnetd_encap", output, { mark });
      expect(second).toMatchObject({ verdict: "redirect", mark: vnetdMark.MARK_ESP, drops: [] });
      expectSecure(lab, second.output, { nexthop: hopOf(context), frame });
      lab.keys(vnet, PEER, 0);
      const third = lab.run("vnetd_encap", output, { mark });
      expect(third).toMatchObject({ verdict: "drop", drops: [{ reason: "no_keys" }] });
    },
  },
  ...([true, false] as const).map((isSecure): Row => ({
    ...secure,
    description: `${isSecure ? "carries_itself" : "in clear, a guest's"}: ESP of a host of the underlay`,
    forms: ["udp4"],
    program: "vnetd_encap",
    vnet: isSecure ? CONF : {},
    setup: ({ lab, vnet }) => lab.secureMembers(vnet, [lab.keys(vnet, PEER)]),
    input: packet()
      .eth({ src: GUEST_A, dst: "02:00:0a:42:01:0a" })
      .ipv4({ src: PEER, dst: THIRD, protocol: 50 })
      .payload(60),
    ...(isSecure
      ? { verdict: "drop", reasons: ["carries_itself"] }
      : { verdict: "redirect", flooded: 1 }),
    learned,
    anyEvents: true,
  })),
  {
    ...secure,
    description: "storm: what goes to all members has the vnet's budget",
    program: "vnetd_encap",
    vnet: { ...CONF, floodPerSecond: 1, floodBurst: 1 },
    setup: ({ lab, vnet }) => {
      lab.secureMembers(vnet, [lab.keys(vnet, PEER)]);
      lab.run("vnetd_encap", broadcast.build());
    },
    input: broadcast,
    verdict: "drop",
    reasons: ["storm"],
    anyEvents: true,
  },
];

/** a packet that the first pass has made, for the next hop that a row says */
export function firstPass(
  lab: BpfLab,
  { nexthop, vnet = "4", change }: { nexthop: number; vnet?: string; change?: { dst?: string } },
): Buffer {
  const ends = { ...synthetic(lab, nexthop), ...change };
  const eth = packet().eth({ src: "02:00:0a:42:01:01", dst: "00:00:00:00:00:00" });
  const ip = isIpv6(lab.form) ? eth.ipv6(ends) : eth.ipv4(ends);
  return ip
    .udp({ src: 50000, dst: 1798, checksum: 0 })
    .vudp({ vnet })
    .payload(toB().arp().build())
    .build();
}

const { MARK_SECURE_PASS, MARK_SECOND_PASS, MARK_SECURE_WHOLE, MARK_TO_ALL } = vnetdMark;

/** between the passes things change, and marks may be made up */
const passes: Row[] = [
  {
    ...secure,
    description: "stale_pass: a clear packet, whose vnet became secure between the passes",
    program: "vnetd_encap",
    setup: learnB,
    input: packet()
      .eth()
      .ipv4({ src: "10.66.1.1", dst: PEER })
      .udp()
      .vudp({ vnet: "4" })
      .payload(toB().arp().build()),
    mark: ({ lab }) => MARK_SECOND_PASS | lab.place(),
    verdict: "drop",
    reasons: ["stale_pass"],
    reasonsKnowVnet: false,
  },
  ...(
    [
      ["a vnet that is in clear", { security: vnetdSecurity.SECURITY_NONE }, {}],
      ["another vnet's id", CONF, { vnet: "5" }],
    ] as const
  ).map(([what, vnet, change]): Row => ({
    ...secure,
    vnet,
    description: `stale_pass: a secure vnet's pass, of ${what}`,
    program: "vnetd_encap",
    setup: withKeys,
    input: (context) => firstPass(context.lab, { nexthop: hopOf(context), ...change }),
    mark: MARK_SECURE_PASS,
    verdict: "drop",
    reasons: ["stale_pass"],
  })),
  {
    ...secure,
    description: "stale_pass: a secure vnet's pass, of a packet from the host's own address",
    program: "vnetd_encap",
    setup: withKeys,
    input: fromPeer({ src: "10.66.1.1", dst: PEER })
      .vudp({ vnet: "4" })
      .payload(toB().arp().build()),
    mark: MARK_SECURE_PASS,
    verdict: "drop",
    reasons: ["stale_pass"],
  },
  {
    ...secure,
    description: "stale_pass: a secure vnet's pass, of what is too short",
    program: "vnetd_encap",
    setup: withKeys,
    input: toB().arp(),
    mark: MARK_SECURE_PASS,
    verdict: "drop",
    reasons: ["stale_pass"],
  },
  ...(
    [
      [
        "keys went between the passes",
        (context: RowContext) => context.lab.keys(context.vnet, PEER, 0),
      ],
      ["the xfrm interface went", (context: RowContext) => context.lab.underlay({})],
      [
        "the device went down",
        (context: RowContext) => context.lab.underlay({ esp: "xf0", up: false }),
      ],
    ] as const
  ).map(([why, change]): Row => ({
    ...secure,
    description: `no_keys: ${why}`,
    program: "vnetd_encap",
    setup: withKeys,
    input: (context) => {
      const bytes = firstPass(context.lab, { nexthop: hopOf(context) });
      change(context);
      return bytes;
    },
    mark: MARK_SECURE_PASS,
    verdict: "drop",
    reasons: ["no_keys"],
  })),
  {
    ...secure,
    description: "no_keys: the next hop is another vnet's by now",
    program: "vnetd_encap",
    input: ({ lab, vnet }) => {
      const other = lab.vnet({ ...CONF, id: "99" });
      const { nexthop } = lab.keys(other, PEER);
      lab.port(vnet);
      return firstPass(lab, { nexthop });
    },
    mark: MARK_SECURE_PASS,
    verdict: "drop",
    reasons: ["no_keys"],
  },
  {
    ...secure,
    description: "stale_pass: a large frame comes back to a vnet that is in clear by now",
    vnet: { security: vnetdSecurity.SECURITY_NONE },
    program: "vnetd_encap",
    setup: learnB,
    input: udpToB(),
    mark: MARK_SECURE_WHOLE,
    verdict: "drop",
    reasons: ["stale_pass"],
  },
  {
    ...secure,
    description: "stale_pass: the copy for the other family, which no member has",
    program: "vnetd_encap",
    forms: ["udp4"],
    setup: ({ lab, vnet }) => lab.secureMembers(vnet, [lab.keys(vnet, PEER)]),
    input: broadcast,
    mark: vnetdMark.MARK_OTHER_FAMILY | 7,
    verdict: "drop",
    reasons: ["stale_pass"],
  },
  {
    ...secure,
    description: "stale_pass: another port's pass to all",
    program: "vnetd_encap",
    vnet: { ...CONF, up: false },
    input: ({ lab }) => firstPass(lab, { nexthop: 0 }),
    mark: MARK_SECURE_PASS | MARK_TO_ALL,
    verdict: "drop",
    reasons: ["stale_pass"],
    reasonsKnowVnet: false,
  },
];

// ---- large -------------------------------------------------------------------------------------

/** of the lab's MTU with CBC: 1436 bytes to be padded, less the trailer and the headers; IPv6's is as large */
export const LARGEST = ((1500 - 64) & ~15) - 2 - 30;
const sized = (bytes: number, dontFragment: boolean): PacketBuilder =>
  toB()
    .ipv4({ dontFragment })
    .udp({ dst: 9 })
    .payload(bytes - 42);

const large: Row[] = [
  {
    ...secure,
    description: `a frame of ${LARGEST} bytes is the largest that fits`,
    program: "vnetd_encap",
    setup: withKeys,
    input: sized(LARGEST, true),
    verdict: "redirect",
    learned,
    events: localNew,
    check: (context) => {
      const frame = sized(LARGEST, true);
      expectSecure(context.lab, context.output, { nexthop: hopOf(context), frame });
    },
  },
  ...[true, false].map((isKnown): Row => ({
    ...secure,
    description: `one byte more goes to the fragmenting pair, ${isKnown ? "to a host" : "to all"}`,
    program: "vnetd_encap",
    setup: (context) => {
      context.lab.fragments(true);
      if (isKnown) withKeys(context);
      else context.lab.secureMembers(context.vnet, [context.lab.keys(context.vnet, PEER)]);
    },
    input: sized(LARGEST + 1, true),
    verdict: "redirect",
    forwarded: 0,
    learned,
    anyEvents: true,
    check: ({ lab, vnet, mark, output, input }) => {
      lab.fragments(false);
      expect(mark).toBe(vnetdMark.MARK_SECURE_LARGE | vnet.slot);
      expectBytes(output, input);
    },
  })),
  {
    ...secure,
    description: "too_big: where there is no such pair",
    program: "vnetd_encap",
    setup: withKeys,
    input: sized(LARGEST + 1, false),
    verdict: "drop",
    reasons: ["too_big"],
    learned,
    events: localNew,
  },
  {
    ...secure,
    description: "what nobody wants to know of comes back, and is sent whole over IPv4",
    forms: ["udp4"],
    program: "vnetd_encap",
    setup: withKeys,
    input: sized(LARGEST + 1, false),
    mark: MARK_SECURE_WHOLE,
    verdict: "redirect",
    check: (context) => {
      const frame = sized(LARGEST + 1, false);
      expectSecure(context.lab, context.output, { nexthop: hopOf(context), frame });
    },
  },
  ...[true, false].map((isKnown): Row => ({
    ...secure,
    description: `too_big: over IPv6 the kernel would not take it, ${isKnown ? "to a host" : "to all"}`,
    forms: ["udp6"],
    program: "vnetd_encap",
    setup: (context) => {
      if (isKnown) withKeys(context);
      else context.lab.secureMembers(context.vnet, [context.lab.keys(context.vnet, PEER)]);
    },
    input: sized(LARGEST + 1, false),
    mark: MARK_SECURE_WHOLE,
    verdict: "drop",
    reasons: ["too_big"],
    anyEvents: true,
  })),
  {
    ...secure,
    description: "the guest is told the MTU, and nothing leaves (counted as too_big)",
    program: "vnetd_oversize",
    setup: withKeys,
    input: sized(LARGEST + 1, true),
    mark: ({ vnet }) => vnetdMark.MARK_SECURE_LARGE | vnet.slot,
    verdict: "redirect",
    forwarded: 0,
    reasons: ["too_big"],
    check: ({ output, mark }) => {
      expect(mark).toBe(0);
      expect(parseFrame(output)).toMatchObject({ dst: GUEST_A, ipv4: { protocol: 1 } });
      // type, code, and the MTU behind the checksum
      expect(output.readUInt16BE(34)).toBe(0x0304);
      expect(output.readUInt16BE(40)).toBe(LARGEST - 14);
    },
  },
  {
    ...secure,
    description: "what has no DF goes back to vnetd_encap",
    program: "vnetd_oversize",
    setup: withKeys,
    input: sized(LARGEST + 1, false),
    mark: ({ vnet }) => vnetdMark.MARK_SECURE_LARGE | vnet.slot,
    verdict: "redirect",
    forwarded: 0,
    check: ({ lab, vnet, output, input, mark }) => {
      expect(mark).toBe(MARK_SECURE_WHOLE | vnet.slot);
      expectBytes(output, input);
      expect(lab.traffic(vnet).fragmentedOut).toBe(1);
    },
  },
  {
    ...secure,
    description: "no_keys: they went while a large frame was away",
    program: "vnetd_oversize",
    setup: learnB,
    input: sized(LARGEST + 1, false),
    mark: ({ vnet }) => vnetdMark.MARK_SECURE_LARGE | vnet.slot,
    verdict: "drop",
    reasons: ["no_keys"],
  },
  {
    ...secure,
    description: "vnet_down: a clear frame in the fragmenting pair, whose vnet became secure",
    program: "vnetd_oversize",
    setup: withKeys,
    input: sized(LARGEST + 1, false),
    mark: ({ vnet }) => vnetdMark.MARK_OVERSIZE | vnet.slot,
    verdict: "drop",
    reasons: ["vnet_down"],
    reasonsKnowVnet: false,
  },
  {
    ...secure,
    description:
      "vnet_down: a secure vnet's frame in the fragmenting pair, which is in clear by now",
    vnet: { security: vnetdSecurity.SECURITY_NONE },
    program: "vnetd_oversize",
    setup: withKeys,
    input: sized(LARGEST + 1, false),
    mark: ({ vnet }) => vnetdMark.MARK_SECURE_LARGE | vnet.slot,
    verdict: "drop",
    reasons: ["vnet_down"],
    reasonsKnowVnet: false,
  },
];

/** clear packets on their way through our pairs, whose vnet became secure */
const inThePairs: Row[] = [
  {
    ...secure,
    description: "security: one that is to become a fragment",
    program: "vnetd_oversize",
    input: fromPeer({ src: "10.66.1.1", dst: PEER })
      .vudp({ vnet: "4" })
      .payload(udpToB(2000).build()),
    mark: ({ lab }) => vnetdMark.MARK_FRAGMENT | (lab.place() << vnetdMark.MARK_FRAGMENT_SHIFT),
    verdict: "drop",
    reasons: ["security"],
    reasonsKnowVnet: false,
  },
  {
    ...secure,
    description: "security: a copy for the peers",
    program: "vnetd_relay",
    setup: ({ lab }) => {
      lab.forwarding(true);
      lab.peers([{ address: "10.66.9.1" }]);
    },
    input: fromPeer({ src: "10.66.1.1", dst: VNETD_GROUP })
      .vudp({ vnet: "4" })
      .payload(udpToB().build()),
    mark: ({ lab }) => vnetdMark.MARK_RELAY | lab.place(),
    verdict: "drop",
    reasons: ["security"],
    reasonsKnowVnet: false,
    check: ({ lab }) => lab.forwarding(false),
  },
  ...(
    [
      ["a copy that is about to leave", fromPeer({ src: "10.66.1.1", dst: PEER })],
      ["the same inside VFWD", fromPeer({ src: "10.66.1.1", dst: PEER }).vfwd()],
    ] as const
  ).map(([what, outer]): Row => ({
    ...secure,
    description: `security: ${what}`,
    program: "vnetd_relay",
    input: outer.vudp({ vnet: "4" }).payload(udpToB().build()),
    mark: ({ lab }) => vnetdMark.MARK_RELAY_OUT | lab.place(),
    verdict: "drop",
    reasons: ["security"],
    reasonsKnowVnet: false,
  })),
  {
    ...secure,
    description: "security: another host's frame that a peer forwards",
    program: "vnetd_relay",
    setup: ({ lab }) => {
      lab.forwarding(true);
      lab.peers([{ address: "10.66.9.1" }]);
    },
    input: fromPeer({ src: "10.66.9.1" })
      .vfwd({ source: "10.66.9.3" })
      .vudp({ vnet: "4" })
      .payload(udpToB().build()),
    mark: ({ lab }) => vnetdMark.MARK_RELAY_IN | lab.place(),
    verdict: "drop",
    reasons: ["security"],
    reasonsKnowVnet: false,
    direction: "decap",
    check: ({ lab }) => lab.forwarding(false),
  },
];

// ---- in, before the kernel decrypts --------------------------------------------------------------

const ESP = 50;
const spiBytes = (spi: number): Buffer => {
  const bytes = Buffer.alloc(40);
  bytes.writeUInt32BE(spi);
  return bytes;
};
const esp4 = (src = PEER, more: object = {}): PacketBuilder =>
  packet()
    .eth({ src: "02:00:0a:42:01:09", dst: "02:00:0a:42:01:01" })
    .ipv4({ src, dst: "10.66.1.1", protocol: ESP, ...more });
/** IPv6 of the lab's addresses, with what stands between the header and ESP */
const esp6 = (
  src: string,
  nextHeader: number,
  between: string,
  spi = SPI_IN,
  dst = "fd66::a42:101",
): Buffer =>
  packet()
    .eth({ src: "02:00:0a:42:01:09", dst: "02:00:0a:42:01:01" })
    .ipv6({ src, dst, nextHeader })
    .payload(Buffer.concat([hex(between), spiBytes(spi)]))
    .build();
const PEER6 = "fd66::a42:109";
const OTHER6 = "fd66::a42:10a";

type Esp = [description: string, form: Form, input: Uint8Array, dropped: boolean];
const espPackets: Esp[] = [
  ["from the SA's host", "udp4", esp4().payload(spiBytes(SPI_IN)).build(), false],
  ["from another", "udp4", esp4(THIRD).payload(spiBytes(SPI_IN)).build(), true],
  [
    "of an SA that is not ours, from anywhere",
    "udp4",
    esp4(THIRD).payload(spiBytes(77)).build(),
    false,
  ],
  [
    "behind IPv4 options, from another",
    "udp4",
    esp4(THIRD, { options: hex("94040000") })
      .payload(spiBytes(SPI_IN))
      .build(),
    true,
  ],
  [
    "in a first fragment, from another",
    "udp4",
    esp4(THIRD, { moreFragments: true }).payload(spiBytes(SPI_IN)).build(),
    true,
  ],
  [
    "in a later fragment, where there is no SPI",
    "udp4",
    esp4(THIRD, { fragmentOffset: 1480 }).payload(spiBytes(SPI_IN)).build(),
    false,
  ],
  [
    "to another host, which this one forwards",
    "udp4",
    esp4(THIRD, { dst: "10.66.1.77" }).payload(spiBytes(SPI_IN)).build(),
    false,
  ],
  ["cut off", "udp4", esp4(THIRD).payload(3).build(), false],
  ["from the SA's host", "udp6", esp6(PEER6, ESP, ""), false],
  ["from another", "udp6", esp6(OTHER6, ESP, ""), true],
  ["from another, behind destination options", "udp6", esp6(OTHER6, 60, "3200010400000000"), true],
  ["from the SA's host, behind those", "udp6", esp6(PEER6, 60, "3200010400000000"), false],
  ["from another, behind hop-by-hop options", "udp6", esp6(OTHER6, 0, "3200010400000000"), true],
  [
    "from another, behind a routing header and options",
    "udp6",
    esp6(OTHER6, 43, "3c02020000000000 00000000000000000000000000000000 3200010400000000"),
    true,
  ],
  [
    "from another, by way of this host, with a routing header",
    "udp6",
    esp6(OTHER6, 43, "3202020000000000 00000000000000000000000000000000", SPI_IN, "fd66::a42:177"),
    true,
  ],
  [
    "from another to another, which this one forwards",
    "udp6",
    esp6(OTHER6, ESP, "", SPI_IN, "fd66::a42:177"),
    false,
  ],
  ["from another, in a first fragment", "udp6", esp6(OTHER6, 44, "3200000112345678"), true],
  [
    "from another, in a first fragment behind options",
    "udp6",
    esp6(OTHER6, 44, "3c00000112345678 3200010400000000"),
    true,
  ],
  ["in a later fragment", "udp6", esp6(OTHER6, 44, "3200010012345678"), false],
  [
    "behind more headers than anything sends",
    "udp6",
    esp6(PEER6, 60, "3c00010400000000".repeat(10)),
    true,
  ],
  ["TCP behind options", "udp6", esp6(OTHER6, 60, "0600010400000000"), false],
];

const beforeEsp: Row[] = [
  ...espPackets.map(([what, form, input, dropped]): Row => ({
    ...secure,
    description: `${dropped ? "esp_source" : "left to the stack"}: ESP ${what}`,
    forms: [form],
    program: "vnetd_decap",
    setup: ({ lab, vnet }) => void lab.receiveBy(vnet, PEER),
    input,
    verdict: dropped ? "drop" : "pass",
    reasons: dropped ? ["esp_source"] : [],
    reasonsKnowVnet: !what.startsWith("behind more"),
    check: ({ output, input: given }) => expectBytes(output, given),
  })),
  {
    ...secure,
    description: "esp_source: by another device than the SA's",
    forms: ["udp4"],
    program: "vnetd_decap",
    setup: ({ lab, vnet }) => void lab.receiveBy(vnet, PEER, { ifindex: lab.ifindex("ul1") }),
    input: esp4().payload(spiBytes(SPI_IN)),
    verdict: "drop",
    reasons: ["esp_source"],
  },
];

/** budgets that are used up for a long time */
const spent =
  (fields: { known?: bigint; strangers?: bigint }) =>
  ({ lab, vnet }: RowContext): void => {
    const key = Buffer.alloc(4);
    key.writeUInt32LE(vnet.slot);
    const floods = {
      sentNs: 0n,
      loopedNs: 0n,
      probesNs: 0n,
      strangersNs: 0n,
      loopSeenNs: 0n,
      toldNs: [0n, 0n],
      eventsNs: 0n,
      varpKnownNs: fields.known ?? 0n,
      varpStrangersNs: fields.strangers ?? 0n,
      answersNs: 0n,
    };
    lab.native.mapUpdate(lab.map("floods"), key, encodeVnetdFloods(floods));
  };
const later = process.hrtime.bigint() + 3_600_000_000_000n;
const announce = (src = PEER): PacketBuilder =>
  fromPeer({ src }).varp({ vnet: "4", vmac: GUEST_B, operation: 2, address: src });

const clearVarp: Row[] = [
  {
    ...secure,
    description: "VARP in clear for a secure vnet is the daemon's to judge",
    program: "vnetd_decap",
    input: announce(),
    verdict: "drop",
    events: () => [{ kind: "varp", source: PEER, secure: false, forwarded: false }],
  },
  {
    ...secure,
    description: "varp_rate: from hosts that nobody knows there were too many",
    program: "vnetd_decap",
    setup: spent({ strangers: later }),
    input: announce(),
    verdict: "drop",
    reasons: ["varp_rate"],
    reasonsKnowVnet: false,
  },
  {
    ...secure,
    description: "which takes nothing from a host that is known",
    program: "vnetd_decap",
    setup: (context) => {
      spent({ strangers: later })(context);
      context.lab.keys(context.vnet, PEER);
    },
    input: announce(),
    verdict: "drop",
    events: () => [{ kind: "varp", source: PEER }],
  },
  {
    ...secure,
    description: "varp_rate: from all that are known there were too many",
    program: "vnetd_decap",
    setup: (context) => {
      spent({ known: later })(context);
      context.lab.keys(context.vnet, PEER);
    },
    input: announce(),
    verdict: "drop",
    reasons: ["varp_rate"],
    reasonsKnowVnet: false,
  },
  {
    ...secure,
    description: "varp_rate: from one that is known there were too many, and another is heard",
    program: "vnetd_decap",
    setup: ({ lab, vnet }) => {
      lab.keys(vnet, THIRD);
      const id = Buffer.alloc(4);
      id.writeUInt32LE(lab.keys(vnet, PEER).nexthop);
      const record = decodeVnetdNexthop(lab.native.mapLookup(lab.map("nexthops"), id)!);
      lab.native.mapUpdate(
        lab.map("nexthops"),
        id,
        encodeVnetdNexthop({ ...record, varpNs: later }),
      );
    },
    input: announce(),
    verdict: "drop",
    reasons: ["varp_rate"],
    reasonsKnowVnet: false,
    anyEvents: true,
    check: ({ lab }) => expect(lab.run("vnetd_decap", announce(THIRD).build()).drops).toEqual([]),
  },
  {
    ...secure,
    description: "a vnet in clear has no such budget",
    vnet: { security: vnetdSecurity.SECURITY_NONE },
    program: "vnetd_decap",
    setup: spent({ strangers: later, known: later }),
    input: announce(),
    verdict: "drop",
    events: () => [{ kind: "varp", source: PEER }],
  },
];

// ---- in, decrypted -------------------------------------------------------------------------------

const inside = (options: Parameters<typeof fromPeer>[0] = {}): PacketBuilder => fromPeer(options);
const framed = (frame = innerFrame(), vnet = "4"): PacketBuilder =>
  inside().vudp({ vnet }).payload(frame.build());
const bySa = {
  ...secure,
  program: "vnetd_esp",
  mark: SPI_IN,
  setup: ({ lab, vnet }: RowContext) => void lab.receiveBy(vnet, PEER),
} as const;
const nothingLearned = { [GUEST_B]: undefined };
const withRecord =
  (change: (context: RowContext) => Parameters<BpfLab["receiveBy"]>[2]) =>
  (context: RowContext): void =>
    void context.lab.receiveBy(context.vnet, PEER, change(context));

const decrypted: Row[] = [
  ...(
    [
      ["IPv4", innerFrame(), 0],
      ["ARP", packet().eth({ src: GUEST_B, dst: BROADCAST_MAC }).arp(), 1],
      ["IPv6", packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv6().udp({ dst: 9 }).payload(9), 0],
      ["a VLAN's", packet().eth({ src: GUEST_B, dst: GUEST_A }).vlan({ id: 7 }).ipv4().udp(), 0],
    ] as const
  ).map(([what, frame, flooded]): Row => ({
    ...bySa,
    description: `a frame arrives by its SA: ${what}`,
    input: framed(frame),
    verdict: "redirect",
    decapsulated: frame,
    learned: { [GUEST_B]: PEER },
    flooded,
    check: ({ mark }) => expect(mark).toBe(0),
  })),
  {
    ...bySa,
    description: "VARP by an SA is the daemon's, whatever the ring's budgets are",
    setup: (context) => {
      spent({ strangers: later, known: later })(context);
      context.lab.receiveBy(context.vnet, PEER);
    },
    input: inside().varp({ vnet: "4", vmac: GUEST_B, operation: 2, address: PEER }),
    verdict: "drop",
    events: () => [{ kind: "varp", source: PEER, secure: true, forwarded: false }],
  },
  {
    ...bySa,
    description: "a MAC that is pinned to the sender is the sender's",
    setup: (context) => {
      bySa.setup(context);
      pin(context, PEER);
    },
    input: framed(),
    verdict: "redirect",
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: PEER },
  },
  ...(
    [
      ["no SA has this mark", SPI_IN + 1, framed()],
      ["there is no mark", 0, framed()],
    ] as const
  ).map(([what, mark, input]): Row => ({
    ...bySa,
    description: `esp_unknown: ${what}`,
    mark,
    input,
    verdict: "drop",
    reasons: ["esp_unknown"],
    reasonsKnowVnet: false,
    learned: nothingLearned,
  })),
  ...(
    [
      [
        "esp_unknown",
        "the next hop is another host's by now",
        ({ lab, vnet }: RowContext) => ({
          gen: lab.keys(vnet, PEER).gen + 1,
        }),
      ],
      [
        "esp_unknown",
        "the device is not attached any more",
        ({ lab }: RowContext) => ({
          ifindex: lab.ifindex("ul1"),
        }),
      ],
      [
        "esp_other_level",
        "it was made for auth",
        () => ({ security: vnetdSecurity.SECURITY_AUTH }),
      ],
      [
        "esp_other_level",
        "it was made for nothing",
        () => ({ security: vnetdSecurity.SECURITY_NONE }),
      ],
    ] as const
  ).map(([reason, what, change]): Row => ({
    ...bySa,
    description: `${reason}: ${what}`,
    setup: withRecord(change),
    input: framed(),
    verdict: "drop",
    reasons: [reason],
    learned: nothingLearned,
  })),
  {
    ...bySa,
    description: "esp_unknown: the vnet in that place is another",
    setup: withRecord(({ vnet }) => ({ handle: vnet.handle + 500 })),
    input: framed(),
    verdict: "drop",
    reasons: ["esp_unknown"],
    reasonsKnowVnet: false,
    learned: nothingLearned,
  },
  {
    ...bySa,
    description: "esp_unknown: the device's xfrm interface is another",
    underlay: { esp: "xf0w" },
    input: framed(),
    verdict: "drop",
    reasons: ["esp_unknown"],
    learned: nothingLearned,
  },
  {
    ...bySa,
    description: "vnet_down: as for any frame",
    setup: (context) => {
      bySa.setup(context);
      context.lab.setVnet(context.vnet, { ...CONF, up: false });
    },
    input: framed(),
    verdict: "drop",
    reasons: ["vnet_down"],
    learned: nothingLearned,
  },
  {
    ...bySa,
    description: "esp_other_level: the vnet is in clear by now",
    setup: (context) => {
      bySa.setup(context);
      context.lab.setVnet(context.vnet, { security: vnetdSecurity.SECURITY_NONE });
    },
    input: framed(),
    verdict: "drop",
    reasons: ["esp_other_level"],
    learned: nothingLearned,
  },
  ...(
    [
      ["a frame", framed(innerFrame(), "99")],
      ["VARP", inside().varp({ vnet: "99", vmac: GUEST_B, operation: 2, address: PEER })],
    ] as const
  ).map(([what, input]): Row => ({
    ...bySa,
    description: `esp_other_vnet: ${what} for another vnet than the SA's`,
    setup: (context) => {
      bySa.setup(context);
      context.lab.vnet({ ...CONF, id: "99" });
    },
    input,
    verdict: "drop",
    reasons: ["esp_other_vnet"],
    learned: nothingLearned,
  })),
  {
    ...bySa,
    description: "esp_inner_source: the source MAC is configured to live elsewhere",
    setup: (context) => {
      bySa.setup(context);
      pin(context, THIRD);
    },
    input: framed(),
    verdict: "drop",
    reasons: ["esp_inner_source"],
    learned: { [GUEST_B]: THIRD },
  },
  {
    ...bySa,
    description: "esp_source: the kernel gives it another address than the SA's",
    input: inside({ src: THIRD }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    verdict: "drop",
    reasons: ["esp_source"],
    learned: nothingLearned,
  },
  {
    ...bySa,
    description: "refused_group_mac: as in clear",
    input: framed(innerFrame({ src: "03:00:00:00:00:01" })),
    verdict: "redirect",
    reasons: ["refused_group_mac"],
    decapsulated: innerFrame({ src: "03:00:00:00:00:01" }),
  },
  {
    ...bySa,
    description: "storm: one host's group frames have its budget",
    vnet: { ...CONF, floodPerSecond: 1, floodBurst: 1 },
    setup: (context) => {
      bySa.setup(context);
      const input = framed(innerFrame({ dst: BROADCAST_MAC })).build();
      for (let count = 0; count < 2; count += 1)
        context.lab.run("vnetd_esp", packetIn(context.lab.form, input)!, { mark: SPI_IN });
    },
    input: framed(innerFrame({ dst: BROADCAST_MAC })),
    verdict: "drop",
    reasons: ["storm"],
    anyEvents: true,
  },
  ...(
    [
      [
        "unknown_message",
        "VFWD",
        inside().vfwd().vudp({ vnet: "4" }).payload(innerFrame().build()),
      ],
      ["unknown_message", "message 9", inside().payload(hex("00090000")).payload(60)],
      ["truncated", "no message", inside().payload(3)],
      ["truncated", "less than VUDP's header", inside().payload(hex("00020000")).payload(17)],
      ["short_frame", "no whole Ethernet header", inside().vudp({ vnet: "4" }).payload(13)],
      [
        "bad_version",
        "a version of nobody's",
        inside()
          .vudp({ vnet: "4", version: [0, 0x30] })
          .payload(60),
      ],
      ["varp_short", "less than VARP's 43 bytes", inside().payload(hex("00010002")).payload(38)],
    ] as const
  ).map(([reason, what, input]): Row => ({
    ...bySa,
    description: `${reason}: ${what} by an SA`,
    input,
    verdict: "drop",
    reasons: [reason],
    learned: nothingLearned,
  })),
  ...(
    [
      [
        "unknown_message",
        "TCP",
        packet().eth().ipv4({ src: PEER, dst: "10.66.1.1" }).tcp().payload(60),
      ],
      [
        "unknown_message",
        "another port",
        packet()
          .eth()
          .ipv4({ src: PEER, dst: "10.66.1.1" })
          .udp({ dst: 1799 })
          .vudp({ vnet: "4" })
          .payload(60),
      ],
      [
        "bad_udp_length",
        "a datagram that is longer than its packet",
        packet()
          .eth()
          .ipv4({ src: PEER, dst: "10.66.1.1" })
          .udp({ dst: 1798, length: 200 })
          .vudp({ vnet: "4" })
          .payload(60),
      ],
      ["truncated", "not IP", packet().eth({ type: 0x88b5 }).payload(60)],
    ] as const
  ).map(([reason, what, input]): Row => ({
    ...bySa,
    description: `${reason}: ${what} by an SA`,
    forms: ["udp4"],
    input,
    verdict: "drop",
    reasons: [reason],
    learned: nothingLearned,
  })),
  {
    ...bySa,
    description: "bad_superframe: something puts packets together that came by SAs",
    input: framed(packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().tcp().payload(1000)),
    gsoSize: 300,
    gsoSegs: 4,
    verdict: "drop",
    reasons: ["bad_superframe"],
    learned: nothingLearned,
  },
];

function pin({ lab, vnet }: { lab: BpfLab; vnet: LabVnet }, host: string): void {
  lab.control(vnetdControlOp.CTL_LEARN, vnet, {
    mac: macBytes(GUEST_B),
    addr: mappedBytes(host),
    fdbFlags: vnetdFdbFlags.FDB_STATIC | vnetdFdbFlags.FDB_PINNED,
  });
}

export const SECURE_ROWS: readonly Row[] = [
  ...kinds,
  ...fast,
  ...withoutKeys,
  ...toAll,
  ...passes,
  ...large,
  ...inThePairs,
  ...beforeEsp,
  ...clearVarp,
  ...decrypted,
];
