// SPDX-License-Identifier: Apache-2.0
/**
 * Forwarding to peers and from them: rows for a lab in which forwarding() is on, of UDP over IPv4 or
 * IPv6. What leaves by clones is in peers.test.ts, with real frames.
 */
import { expect } from "vitest";
import { vnetdControlOp, vnetdMark, vnetdNexthopFlags } from "../../src/generated/layouts.js";
import { expectBytes, hex, ipv6Bytes, macBytes, mappedBytes } from "../lib/bytes.js";
import { REASSEMBLY_PORT, REASSEMBLY_SECRET } from "../lib/bpf-lab.js";
import {
  BROADCAST_MAC,
  VNETD_GROUP,
  VNETD_GROUP_MAC,
  fragmentIpv4,
  packet,
  type PacketBuilder,
} from "../lib/packet.js";
import { endsOf, fragmentIpv6, isIpv6, packetIn, type Form } from "../lib/forms.js";
import { parseFrame } from "../lib/packet-parse.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  US,
  fromPeer,
  groupMac,
  innerFrame,
  type Row,
  type RowContext,
} from "./rows.js";

/** a host of another subnet, and the peer there */
export const FAR = "10.66.9.3";
export const FAR_PEER = "10.66.9.1";
export const FAR_MAC = "aa:00:00:00:04:09";

/** of what is sent to the group here: the original's, and no more than the link where IPv6 says so */
export const groupTtl = (form: Form): number => (isIpv6(form) ? 1 : 64);

/** different in each row, so that no row's frame is a copy of another's */
let frames = 0;
const fresh = (): PacketBuilder =>
  packet()
    .eth({ src: FAR_MAC, dst: BROADCAST_MAC })
    .arp({ targetIp: `10.9.${(frames += 1) >> 8}.${frames & 255}` });

export interface Forwarded {
  source?: string;
  group?: string;
  from?: string;
  relayed?: boolean;
  ipId?: number;
}

export const vfwd = ({ from = FAR_PEER, ...rest }: Forwarded = {}): PacketBuilder =>
  fromPeer({ src: from }).vfwd(rest);
const far = (options: Forwarded = {}): PacketBuilder =>
  vfwd({ source: FAR, ...options }).vudp({ vnet: "4" });

const setPeers: NonNullable<Row["setup"]> = ({ lab }) => lab.peers([{ address: FAR_PEER }]);
/** as it comes from bpf/relay.bpf.c through the segmenting pair */
const takenOut = (source = FAR): PacketBuilder =>
  packet()
    .eth({ dst: VNETD_GROUP_MAC, src: "02:00:0a:42:01:01" })
    .ipv4({ src: source, dst: VNETD_GROUP, ttl: 64 })
    .udp({ checksum: 0 });
const FORWARDED = vnetdMark.MARK_SEGMENTED | vnetdMark.MARK_FORWARDED;
/** a mark of the lab's own place */
const marked =
  (mark: number) =>
  ({ lab }: RowContext): number =>
    mark | lab.place();

const relayIn: Omit<Row, "description" | "input" | "verdict"> = {
  program: "vnetd_relay",
  setup: setPeers,
  mark: marked(vnetdMark.MARK_RELAY_IN),
  direction: "decap",
  reasonsKnowVnet: false,
  forwarded: 0,
};

const heard: Row[] = [
  {
    description: "VFWD from a peer goes to the relaying pair",
    program: "vnetd_decap",
    setup: setPeers,
    input: far().payload(fresh().build()),
    verdict: "redirect",
    forwarded: 0,
    check: ({ lab, mark }) => expect(mark).toBe(vnetdMark.MARK_RELAY_IN | lab.place()),
  },
  {
    description: "vfwd_not_peer: a peer's neighbour",
    program: "vnetd_decap",
    setup: setPeers,
    input: far({ from: "10.66.9.2" }).payload(fresh().build()),
    verdict: "drop",
    reasons: ["vfwd_not_peer"],
    reasonsKnowVnet: false,
    events: () => [{ kind: "not-peer", address: "10.66.9.2" }],
  },
  {
    description: "vfwd_not_peer: to the group",
    program: "vnetd_decap",
    setup: setPeers,
    input: fromPeer({ src: FAR_PEER, dst: VNETD_GROUP })
      .vfwd({ source: FAR })
      .vudp({ vnet: "4" })
      .payload(fresh().build()),
    verdict: "drop",
    reasons: ["vfwd_not_peer"],
    reasonsKnowVnet: false,
    events: () => [{ kind: "not-peer", address: FAR_PEER }],
  },
  {
    description: "vfwd_unavailable: there is no relaying pair",
    program: "vnetd_decap",
    setup: (context) => {
      setPeers(context);
      context.lab.forwarding(false);
    },
    input: far().payload(fresh().build()),
    verdict: "drop",
    reasons: ["vfwd_unavailable"],
    reasonsKnowVnet: false,
    check: ({ lab }) => lab.forwarding(true),
  },
];

const inside: Row[] = [
  ...(
    [
      ["with its original's address", { source: FAR }, FAR],
      ["source 0 is who sent it", {}, FAR_PEER],
      ["an original's, whose header is mostly 0", { source: FAR, relayed: true }, FAR],
    ] as const
  ).map(([description, options, source]): Row => {
    const frame = fresh();
    return {
      ...relayIn,
      ...("relayed" in options ? { forms: ["udp4"] } : {}),
      description: `what is inside is taken out: ${description}`,
      input: vfwd(options).vudp({ vnet: "4" }).payload(frame.build()),
      verdict: "redirect",
      check: ({ output, mark, lab }) => {
        expect(mark).toBe(FORWARDED | lab.place());
        const out = parseFrame(output);
        expect(out).toMatchObject({ dst: groupMac(lab.form), src: "02:00:0a:42:01:01" });
        expect(endsOf(out)).toEqual({ src: source, dst: VNETD_GROUP, ttl: groupTtl(lab.form) });
        expect(out.udp).toMatchObject({ src: 1798, dst: 1798, checksum: 0 });
        if (out.message?.kind !== "vudp") throw new Error("not VUDP");
        expectBytes(out.message.frame, frame.build());
        expect(Number(lab.peerStats(1).heardFrames)).toBe(1);
      },
    };
  }),
  {
    ...relayIn,
    description: "with a trailer, and IP options outside",
    input: Buffer.concat([
      packet()
        .eth({ dst: "02:00:0a:42:01:01" })
        .ipv4({ src: FAR_PEER, dst: US, options: hex("94040000") })
        .udp()
        .vfwd({ source: FAR })
        .vudp({ vnet: "4" })
        .payload(fresh().build())
        .build(),
      Buffer.alloc(7),
    ]),
    verdict: "redirect",
    check: ({ output }) => expect(parseFrame(output).padding).toHaveLength(0),
  },
  ...(
    [
      ["vfwd_bad_inner", "ICMP", vfwd().payload(0), 23 + 32, 1],
      ["vfwd_bad_inner", "IP options", vfwd().payload(0), 14 + 32, 0x46],
      ["vfwd_bad_inner", "IPv6", vfwd().payload(0), 14 + 32, 0x65],
    ] as const
  ).map(([reason, description, outer, at, value]): Row => {
    const input = outer.payload(Buffer.concat([hex("00020000 0040"), Buffer.alloc(60)])).build();
    input[at] = value;
    return {
      ...relayIn,
      forms: ["udp4"],
      description: `${reason}: ${description}`,
      input,
      verdict: "drop",
      reasons: [reason],
    };
  }),
  ...(
    [
      ["vfwd_nested", "VFWD", far().payload(0)],
      ["unknown_message", "message 9", vfwd().payload(hex("0009 0000 00000000"))],
      ["truncated", "less than a message", vfwd().payload(hex("0002"))],
      ["vfwd_not_group", "another group", vfwd({ group: "224.10.0.2" }).vudp({ vnet: "4" })],
      ["vfwd_not_group", "a host", vfwd({ group: PEER }).vudp({ vnet: "4" })],
      ["bad_source_address", "multicast", vfwd({ source: "224.1.2.3" }).vudp({ vnet: "4" })],
      ["bad_source_address", "loopback", vfwd({ source: "127.0.0.1" }).vudp({ vnet: "4" }), "udp4"],
      ["bad_source_address", "0/8", vfwd({ source: "0.1.2.3" }).vudp({ vnet: "4" }), "udp4"],
      ["own_echo", "this host's own", vfwd({ source: US }).vudp({ vnet: "4" })],
    ] as const
  ).map(([reason, description, outer, form]): Row => ({
    ...relayIn,
    ...(form === undefined ? {} : { forms: [form] }),
    description: `${reason}: inside VFWD, ${description}`,
    input:
      reason === "vfwd_nested"
        ? vfwd().vfwd().vudp({ vnet: "4" }).payload(fresh().build())
        : reason === "truncated" || reason === "unknown_message"
          ? outer
          : outer.payload(fresh().build()),
    verdict: "drop",
    reasons: [reason],
  })),
];

interface CopyOptions extends Omit<Forwarded, "from"> {
  /** default: one of ours, from a port of its flow */
  sender?: "ours" | "original";
}

/** the same message once more, and what becomes of those before the last */
const again = (
  before: readonly (CopyOptions & { drop?: boolean })[],
  last: CopyOptions,
): Pick<Row, "setup" | "justBefore" | "input" | "forms"> => {
  const frame = fresh().build();
  const build = ({ sender = "ours", ...rest }: CopyOptions): Buffer => {
    const bytes = vfwd({ source: FAR, ...rest })
      .vudp({ vnet: "4" })
      .payload(frame)
      .build();
    if (sender === "ours") bytes.writeUInt16BE(50_001, 14 + 32 + 20);
    return bytes;
  };
  return {
    ...([...before, last].some(({ relayed }) => relayed) ? { forms: ["udp4"] } : {}),
    setup: (context) => {
      setPeers(context);
      const mark = marked(vnetdMark.MARK_RELAY_IN)(context);
      for (const { drop = false, ...each } of before) {
        const run = context.lab.run("vnetd_relay", build(each), { mark });
        context.lab.seenNow();
        expect(run.verdict).toBe(drop ? "drop" : "redirect");
      }
    },
    justBefore: ({ lab }) => lab.seenNow(),
    input: build(last),
  };
};

const copies: Row[] = [
  ...(
    [
      ["both with the id of the packet", [{ ipId: 7 }], { ipId: 7 }],
      ["none with an id, as originals relay", [{ relayed: true }], { relayed: true }],
      ["the second without an id", [{ ipId: 7 }], { relayed: true }],
      ["the first without an id", [{ relayed: true }], { ipId: 7 }],
      // an original's kernel gives each packet that it sends on an id of its own
      [
        "an original's, as it came and as ours heard it",
        [{ sender: "original" }],
        { ipId: 7, sender: "original" },
      ],
      [
        "an original's, with the ids of two hosts",
        [{ ipId: 7, sender: "original" }],
        { ipId: 8, sender: "original" },
      ],
      [
        "an original's, with two ids and one without between",
        [
          { ipId: 7, sender: "original" },
          { relayed: true, sender: "original", drop: true },
        ],
        { ipId: 8, sender: "original" },
      ],
    ] as const
  ).map(([description, before, last]): Row => ({
    ...relayIn,
    ...again(before, last),
    description: `duplicate_forward: a copy, ${description}`,
    verdict: "drop",
    reasons: ["duplicate_forward"],
  })),
  ...(
    [
      ["another id", { ipId: 7 }, { ipId: 8 }],
      ["another source", { ipId: 7 }, { ipId: 7, source: "10.66.9.4" }],
    ] as const
  ).map(([description, first, last]): Row => ({
    ...relayIn,
    ...again([first], last),
    description: `the same frame is no copy: ${description}`,
    verdict: "redirect",
  })),
  {
    ...relayIn,
    description: "duplicate_forward: a frame from this subnet, where multicast works",
    underlay: { groupWorks: true },
    input: vfwd({ source: THIRD }).vudp({ vnet: "4" }).payload(fresh().build()),
    verdict: "drop",
    reasons: ["duplicate_forward"],
  },
  {
    ...relayIn,
    description: "from this subnet, where multicast is not known to work",
    input: vfwd({ source: THIRD }).vudp({ vnet: "4" }).payload(fresh().build()),
    verdict: "redirect",
  },
  {
    ...relayIn,
    description: "VARP from this subnet, also where multicast works",
    underlay: { groupWorks: true },
    input: vfwd({ source: THIRD }).varp({ vnet: "4", vmac: "aa:00:00:00:04:5a", address: THIRD }),
    verdict: "redirect",
  },
];

const delivered: Row[] = [
  {
    description: "what was inside is delivered, and its sender learned",
    program: "vnetd_decap",
    justBefore: ({ lab }) => lab.underlay({}),
    // the test run is on ul0: the pair's own device is what the mark is believed on
    input: takenOut()
      .vudp({ vnet: "4" })
      .payload(innerFrame({ dst: BROADCAST_MAC }).build()),
    verdict: "redirect",
    decapsulated: innerFrame({ dst: BROADCAST_MAC }),
    learned: { [GUEST_B]: FAR },
    flooded: 1,
  },
  (() => {
    const frame = fresh().build();
    const copy = takenOut().vudp({ vnet: "4" }).payload(frame).build();
    return {
      description: "duplicate_forward: heard on the group what came before from afar",
      program: "vnetd_decap",
      setup: (context) => {
        expect(context.lab.run("vnetd_decap", copy).verdict).toBe("redirect");
      },
      input: copy,
      verdict: "drop",
      reasons: ["duplicate_forward"],
      reasonsKnowVnet: false,
      learned: { [FAR_MAC]: FAR },
    } satisfies Row;
  })(),
  (() => {
    const frame = fresh().build();
    const near = fromPeer({ dst: VNETD_GROUP }).vudp({ vnet: "4" }).payload(frame).build();
    return {
      description: "the same frame twice from a host of the subnet is two frames",
      program: "vnetd_decap",
      setup: (context) => {
        expect(context.lab.run("vnetd_decap", near).verdict).toBe("redirect");
      },
      input: near,
      verdict: "redirect",
      flooded: 1,
      decapsulated: frame,
    } satisfies Row;
  })(),
  {
    description: "duplicate_forward: by the group from who sends to this host by unicast",
    program: "vnetd_decap",
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_NEXTHOP, vnet, {
        addr: mappedBytes(PEER),
        nexthopFlags: vnetdNexthopFlags.NEXTHOP_MEMBER | vnetdNexthopFlags.NEXTHOP_DIRECT,
      }),
    input: fromPeer({ dst: VNETD_GROUP }).vudp({ vnet: "4" }).payload(fresh().build()),
    verdict: "drop",
    reasons: ["duplicate_forward"],
  },
  {
    description: "by unicast from the same",
    program: "vnetd_decap",
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_NEXTHOP, vnet, {
        addr: mappedBytes(PEER),
        nexthopFlags: vnetdNexthopFlags.NEXTHOP_MEMBER | vnetdNexthopFlags.NEXTHOP_DIRECT,
      }),
    input: fromPeer().vudp({ vnet: "4" }).payload(fresh().build()),
    verdict: "redirect",
  },
];

const broadcast = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).payload(100);
const sent: Row[] = [
  {
    description: "no_receiver: multicast is not used, and nobody is known",
    program: "vnetd_encap",
    underlay: { noGroup: true },
    setup: ({ lab }) => lab.peers([]),
    input: broadcast,
    verdict: "drop",
    reasons: ["no_receiver"],
    learned: { [GUEST_A]: "local" },
    events: ({ vnet }) => [{ kind: "local-new", handle: vnet.handle, mac: GUEST_A }],
  },
  {
    description: "multicast is not used: the packet goes to the relaying pair whole",
    program: "vnetd_encap",
    underlay: { noGroup: true },
    setup: setPeers,
    input: broadcast,
    verdict: "redirect",
    flooded: 1,
    encapsulated: { to: VNETD_GROUP, ttl: 1, frame: broadcast },
    learned: { [GUEST_A]: "local" },
    events: ({ vnet }) => [{ kind: "local-new", handle: vnet.handle, mac: GUEST_A }],
    check: ({ lab, mark }) => expect(mark).toBe(vnetdMark.MARK_RELAY | lab.place()),
  },
  {
    description: "with peers the group gets the packet all the same",
    program: "vnetd_encap",
    setup: setPeers,
    input: broadcast,
    verdict: "redirect",
    flooded: 1,
    encapsulated: { to: VNETD_GROUP, ttl: 1, frame: broadcast },
    learned: { [GUEST_A]: "local" },
    events: ({ vnet }) => [{ kind: "local-new", handle: vnet.handle, mac: GUEST_A }],
    check: ({ mark }) => expect(mark).toBe(0),
  },
  {
    description: "no_receiver: a frame that is too large as well",
    program: "vnetd_oversize",
    underlay: { noGroup: true },
    setup: ({ lab }) => lab.peers([]),
    mark: ({ vnet }) => vnetdMark.MARK_OVERSIZE | vnet.slot,
    input: packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).payload(1500),
    verdict: "drop",
    reasons: ["no_receiver"],
  },
];

const stale: Row[] = (
  [
    ["no mark", packet().eth().arp(), 0],
    ["another mark", packet().eth().arp(), vnetdMark.MARK_OVERSIZE],
    ["what is not IP", packet().eth().arp(), vnetdMark.MARK_RELAY_OUT],
    ["what is not IP, to peers", packet().eth().arp(), vnetdMark.MARK_RELAY],
    ["no device", packet().eth().ipv4().udp(), vnetdMark.MARK_RELAY_OUT | 5],
    ["not UDP", packet().eth().ipv4().tcp(), vnetdMark.MARK_RELAY_OUT],
    ["no device, to peers", packet().eth().ipv4().udp(), vnetdMark.MARK_RELAY | 5],
  ] as const
).map(([description, input, mark]) => ({
  description: `stale_pass: on the relaying pair, ${description}`,
  program: "vnetd_relay",
  setup: setPeers,
  input,
  mark: mark === 0 ? 0 : marked(mark),
  verdict: "drop",
  reasons: ["stale_pass"],
  reasonsKnowVnet: false,
}));

const whole: Row[] = [
  {
    description: "a whole packet leaves by its device",
    program: "vnetd_relay",
    input: packet().eth().ipv4({ src: US, dst: PEER }).udp().payload(100),
    mark: marked(vnetdMark.MARK_RELAY_OUT),
    verdict: "redirect",
    forwarded: 0,
    check: ({ mark }) => expect(mark).toBe(0),
  },
  {
    description: "one that does not fit leaves in clones, a fragment each",
    program: "vnetd_relay",
    input: packet().eth().ipv4({ src: US, dst: PEER }).udp().payload(1600),
    mark: marked(vnetdMark.MARK_RELAY_OUT),
    verdict: "drop",
  },
];

const largeFrame = packet().eth({ src: FAR_MAC, dst: BROADCAST_MAC }).payload(1440);
const firstOf = (outer: PacketBuilder): Buffer => fragmentIpv4(outer.build(), 1500)[0]!;
const fragments: Row[] = [
  {
    description: "a first fragment of VFWD goes to the stack in a form that brings it back",
    program: "vnetd_decap",
    setup: setPeers,
    input: firstOf(far().payload(largeFrame.build())),
    verdict: "pass",
    check: ({ output }) => {
      const input = firstOf(far().payload(largeFrame.build()));
      const header = Buffer.concat([
        input.subarray(34, 36),
        Buffer.from([REASSEMBLY_PORT >> 8, REASSEMBLY_PORT & 0xff]),
        input.subarray(38, 40),
        hex("0000 08000000 010000 00"),
        REASSEMBLY_SECRET,
        hex("0000 0800"),
        // the original source, the id, the source port, and what is left
        hex("0a420903 0000 0706 0000"),
      ]);
      expectBytes(output, Buffer.concat([input.subarray(0, 34), header, input.subarray(34 + 40)]));
    },
  },
  ...(
    [
      ["vfwd_not_peer", far({ from: "10.66.9.2" })],
      ["vfwd_not_group", far({ group: "224.10.0.2" })],
      ["vfwd_nested", vfwd().vfwd().vudp({ vnet: "4" })],
      ["vfwd_bad_inner", vfwd().varp({ vnet: "4", vmac: FAR_MAC })],
    ] as const
  ).map(([reason, outer]): Row => ({
    description: `a first fragment of VFWD is refused as a whole packet would be: ${reason}`,
    program: "vnetd_decap",
    setup: setPeers,
    input: firstOf(outer.payload(largeFrame.build())),
    verdict: "drop",
    reasons: [reason],
    reasonsKnowVnet: false,
    events: () => (reason === "vfwd_not_peer" ? [{ kind: "not-peer", address: "10.66.9.2" }] : []),
  })),
];

/** the lab's family is IPv6: what differs there */
const inner6 = (description: string, reason: string, change: (inner: Buffer) => void): Row => {
  const input = packetIn("udp6", far().payload(fresh().build()).build())!;
  change(input.subarray(14 + 40 + 8 + 4));
  return { ...relayIn, forms: ["udp6"], description, input, verdict: "drop", reasons: [reason] };
};
const source6 = (text: string) => (inner: Buffer) => void ipv6Bytes(text).copy(inner, 8);
const first6 = (outer: PacketBuilder): Buffer =>
  fragmentIpv6(packetIn("udp6", outer.payload(largeFrame.build()).build())!, 1500)[0]!;
const atomic6 = (outer: PacketBuilder): Buffer => {
  const [whole] = fragmentIpv6(packetIn("udp6", outer.build())!, 9000);
  return whole!;
};

const overIpv6: Row[] = [
  inner6("vfwd_bad_inner: IPv4 inside", "vfwd_bad_inner", (inner) => (inner[0] = 0x45)),
  inner6("vfwd_bad_inner: version 0 inside", "vfwd_bad_inner", (inner) => (inner[0] = 0)),
  inner6("vfwd_bad_inner: extension headers inside", "vfwd_bad_inner", (inner) => (inner[6] = 0)),
  inner6("bad_source_address: ::1 inside", "bad_source_address", source6("::1")),
  inner6("bad_source_address: IPv4 inside", "bad_source_address", source6("::ffff:a42:903")),
  inner6(
    "bad_source_address: link-local, of another link",
    "bad_source_address",
    source6("fe80::1"),
  ),
  {
    ...relayIn,
    forms: ["udp6"],
    description: "what is inside is taken out: with a fragment header, and whole",
    input: atomic6(far().payload(fresh().build())),
    verdict: "redirect",
    check: ({ output, lab }) => {
      const out = parseFrame(output);
      expect(endsOf(out)).toEqual({ src: FAR, dst: VNETD_GROUP, ttl: 1 });
      expect(out.ipv6?.nextHeader).toBe(17);
      expect(Number(lab.peerStats(1).heardFrames)).toBe(1);
    },
  },
  {
    description:
      "a first fragment of VFWD over IPv6 goes to the stack in a form that brings it back",
    forms: ["udp6"],
    program: "vnetd_decap",
    setup: setPeers,
    input: first6(far({ ipId: 0x1234 })),
    verdict: "pass",
    check: ({ output, input }) => {
      // Ethernet, IPv6, the fragment header
      const front = 14 + 40 + 8;
      const header = Buffer.concat([
        input.subarray(front, front + 2),
        Buffer.from([REASSEMBLY_PORT >> 8, REASSEMBLY_PORT & 0xff]),
        input.subarray(front + 4, front + 6),
        // of the place with number 2
        hex("0000 08000000 012000 00"),
        REASSEMBLY_SECRET,
        hex("0000 0800"),
        // the original source, the number, the source port, and what is left
        ipv6Bytes("fd66::a42:903"),
        hex("1234 0706 00000000000000000000"),
      ]);
      expectBytes(
        output,
        Buffer.concat([input.subarray(0, front), header, input.subarray(front + 60)]),
      );
    },
  },
  ...(
    [
      ["vfwd_not_peer", far({ from: "10.66.9.2" })],
      ["vfwd_not_group", far({ group: "224.10.0.2" })],
      ["vfwd_nested", vfwd().vfwd().vudp({ vnet: "4" })],
      ["vfwd_bad_inner", vfwd().varp({ vnet: "4", vmac: FAR_MAC })],
    ] as const
  ).map(([reason, outer]): Row => ({
    description: `a first fragment of VFWD over IPv6 is refused as a whole packet would be: ${reason}`,
    forms: ["udp6"],
    program: "vnetd_decap",
    setup: setPeers,
    input: first6(outer),
    verdict: "drop",
    reasons: [reason],
    reasonsKnowVnet: false,
    events: () => (reason === "vfwd_not_peer" ? [{ kind: "not-peer", address: "10.66.9.2" }] : []),
  })),
];

/** EtherIP is relayed by nobody, and says so where nobody hears it */
const etherip: Row[] = [
  {
    description: "no_receiver: a vnet that uses EtherIP, although there are peers",
    program: "vnetd_encap",
    vnet: { etherip: true },
    underlay: { noGroup: true },
    setup: setPeers,
    input: broadcast,
    verdict: "drop",
    reasons: ["no_receiver"],
    learned: { [GUEST_A]: "local" },
    events: ({ vnet }) => [{ kind: "local-new", handle: vnet.handle, mac: GUEST_A }],
  },
];

export const PEER_ROWS: Row[] = [
  ...heard,
  ...inside,
  ...copies,
  ...delivered,
  ...sent,
  ...stale,
  ...whole,
  ...fragments,
  ...overIpv6,
  ...etherip,
];
export { broadcast, macBytes };
