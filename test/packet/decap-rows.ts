// SPDX-License-Identifier: Apache-2.0
/** From the underlay into a vnet: rows for vnetd_decap. */
import { hex, macBytes, mappedBytes } from "../lib/bytes.js";
import { ETHER_TYPE, VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import {
  vnetdControlOp,
  vnetdFdbFlags,
  vnetdMark,
  vnetdSecurity,
} from "../../src/generated/layouts.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  US,
  XDP_MARK,
  fromPeer,
  innerFrame,
  type Row,
} from "./rows.js";

const vudp = (options: Parameters<typeof fromPeer>[0] = {}): PacketBuilder =>
  fromPeer(options).vudp({ vnet: "4" });
const learnedFromPeer = { [GUEST_B]: PEER };
const IPV4_FORMS = ["udp4", "etherip4"] as const;
const nothingLearned = { [GUEST_B]: undefined };

/** every kind of inner frame, from 14 bytes up */
export const INNER_FRAMES: Record<string, PacketBuilder> = {
  "IPv4 UDP": innerFrame(),
  "IPv4 TCP": packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().tcp().payload(700),
  "IPv4 with options": packet()
    .eth({ src: GUEST_B, dst: GUEST_A })
    .ipv4({ options: hex("94040000") })
    .udp({ dst: 9 }),
  "IPv4 fragment": packet()
    .eth({ src: GUEST_B, dst: GUEST_A })
    .ipv4({ moreFragments: true, fragmentOffset: 800 })
    .payload(64),
  "IPv6 ICMP": packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv6().icmpEcho().payload(56),
  "IPv6 without payload": packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv6(),
  "ARP, not padded": packet().eth({ src: GUEST_B, dst: GUEST_A }).arp(),
  "ARP, padded to 60 bytes": packet().eth({ src: GUEST_B, dst: GUEST_A }).arp().payload(18),
  "802.1Q and IPv4": packet()
    .eth({ src: GUEST_B, dst: GUEST_A })
    .vlan({ id: 7, priority: 5 })
    .ipv4()
    .tcp()
    .payload(9),
  "QinQ and ARP": packet()
    .eth({ src: GUEST_B, dst: GUEST_A })
    .vlan({ id: 7, tpid: ETHER_TYPE.qinq })
    .vlan({ id: 8 })
    .arp(),
  LLC: packet().eth({ src: GUEST_B, dst: GUEST_A }).llc(0xaa).payload(40),
  "unknown EtherType": packet().eth({ src: GUEST_B, dst: GUEST_A, type: 0x9999 }).payload(100),
  "1436-byte IPv4": packet()
    .eth({ src: GUEST_B, dst: GUEST_A })
    .ipv4()
    .udp({ dst: 9 })
    .payload(1408),
};

const innerRows: Row[] = Object.entries(INNER_FRAMES).map(([kind, frame]) => ({
  description: `inner frame: ${kind}`,
  program: "vnetd_decap",
  input: vudp().payload(frame.build()),
  verdict: "redirect",
  decapsulated: frame,
  learned: learnedFromPeer,
}));

const tinyRows: Row[] = [14, 15, 20, 33, 34, 35, 60].map((length) => {
  const frame = packet()
    .eth({ src: GUEST_B, dst: GUEST_A, type: 0x9999 })
    .payload(length - 14)
    .build();
  return {
    description: `inner frame of ${length} bytes`,
    program: "vnetd_decap",
    input: vudp().payload(frame),
    verdict: "redirect",
    decapsulated: frame,
    learned: learnedFromPeer,
  };
});

const group: Row[] = [
  {
    description: "a broadcast that came by the group",
    program: "vnetd_decap",
    input: vudp({ dst: VNETD_GROUP }).eth({ src: GUEST_B, dst: "ff:ff:ff:ff:ff:ff" }).arp(),
    verdict: "redirect",
    decapsulated: packet().eth({ src: GUEST_B, dst: "ff:ff:ff:ff:ff:ff" }).arp(),
    learned: learnedFromPeer,
    flooded: 1,
  },
  {
    description: "STP, to the bridges' group",
    program: "vnetd_decap",
    input: vudp({ dst: VNETD_GROUP })
      .eth({ src: GUEST_B, dst: "01:80:c2:00:00:00" })
      .llc()
      .stp(GUEST_B),
    verdict: "redirect",
    decapsulated: packet().eth({ src: GUEST_B, dst: "01:80:c2:00:00:00" }).llc().stp(GUEST_B),
    learned: learnedFromPeer,
    flooded: 1,
  },
];

const outerVariants: Row[] = [
  ["any source port", fromPeer({ sport: 40000 })],
  ["UDP checksum 0", fromPeer({ checksum: 0 })],
  [
    "outer IPv4 options",
    packet()
      .eth()
      .ipv4({ src: PEER, dst: US, options: hex("94040000 01010101") })
      .udp(),
  ],
  ["any TTL and TOS", packet().eth().ipv4({ src: PEER, dst: US, ttl: 3, tos: 0xb8 }).udp()],
].map(([description, outer]) => ({
  description: `outer header: ${description as string}`,
  program: "vnetd_decap" as const,
  input: (outer as PacketBuilder).vudp({ vnet: "4" }).payload(innerFrame().build()),
  verdict: "redirect" as const,
  decapsulated: innerFrame(),
  learned: learnedFromPeer,
}));

outerVariants.push({
  description: "outer header: Ethernet padding behind the datagram is not the frame's",
  program: "vnetd_decap",
  input: Buffer.concat([vudp().payload(innerFrame().build()).build(), Buffer.alloc(7, 0xee)]),
  verdict: "redirect",
  decapsulated: innerFrame(),
  learned: learnedFromPeer,
});

const versions: Row[] = (
  [
    [[0x00, 0x40], true],
    [[0x40, 0x00], true],
    [[0xff, 0x4f], true],
    [[0x40, 0x40], true],
    [[0x30, 0x00], false],
    [[0x00, 0x30], false],
    [[0x00, 0x50], false],
    [[0x00, 0x00], false],
    [[0x41, 0x00], false],
  ] as const
).map(([version, taken]) => ({
  description: `EtherIP version ${Buffer.from(version).toString("hex")} is ${taken ? "taken" : "dropped"}`,
  program: "vnetd_decap",
  input: fromPeer().vudp({ vnet: "4", version }).payload(innerFrame().build()),
  verdict: taken ? "redirect" : "drop",
  reasons: taken ? [] : ["bad_version"],
  reasonsKnowVnet: false,
  learned: taken ? learnedFromPeer : nothingLearned,
  ...(taken ? { decapsulated: innerFrame() } : {}),
  // in EtherIP's own protocol, 3000 is somebody else's
  ...(version[0] === 0x30 ? { forms: ["udp4", "udp6"] as const } : {}),
}));

const notOurs: Row[] = (
  [
    ["IPv6", packet().eth().ipv6().udp().payload(40)],
    ["ARP", packet().eth().arp()],
    ["TCP to our port number", packet().eth().ipv4({ src: PEER, dst: US }).tcp({ dst: 1798 })],
    [
      "UDP to another port",
      packet().eth().ipv4({ src: PEER, dst: US }).udp({ dst: 53 }).payload(40),
    ],
    [
      "UDP 1798 to another host",
      fromPeer({ dst: THIRD }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    ],
    [
      "UDP 1798 to another group",
      fromPeer({ dst: "224.10.0.2" }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    ],
    [
      "a first fragment",
      packet().eth().ipv4({ src: PEER, dst: US, moreFragments: true, protocol: 17 }).payload(200),
    ],
    [
      "a later fragment",
      packet().eth().ipv4({ src: PEER, dst: US, fragmentOffset: 1480 }).payload(200),
    ],
    [
      "an 802.1Q frame of the underlay",
      packet().eth().vlan({ id: 5 }).ipv4({ src: PEER, dst: US }).udp().payload(80),
    ],
    [
      "EtherIP as RFC 3378 has it",
      packet().eth().ipv4({ src: PEER, dst: US, protocol: 97 }).payload(hex("3000")).payload(60),
    ],
    ["ICMP echo to us", packet().eth().ipv4({ src: PEER, dst: US }).icmpEcho().payload(56)],
    // (a test run refuses IPv4 that is shorter than its header)
    ["an Ethernet header alone", packet().eth({ type: 0x9999 })],
    [
      "IPv4 cut behind its header",
      packet().eth().ipv4({ src: PEER, dst: US, protocol: 17, totalLength: 40 }),
    ],
    [
      "IPv4 with IHL 4",
      packet().eth().ipv4({ src: PEER, dst: US, headerWords: 4 }).udp().payload(80),
    ],
    ["IP version 5", packet().eth().ipv4({ src: PEER, dst: US, version: 5 }).udp().payload(80)],
  ] as [string, PacketBuilder][]
).map(([description, input]) => ({
  description: `not ours: ${description}`,
  program: "vnetd_decap",
  input,
  verdict: "pass",
  learned: nothingLearned,
  check: ({ input: sent, output }) => {
    if (!output.equals(sent)) throw new Error("a packet that is not ours was changed");
  },
}));

const drops: Row[] = (
  [
    ["truncated", "UDP without payload", fromPeer()],
    ["truncated", "3 bytes", fromPeer().payload(hex("000200"))],
    ["truncated", "VUDP header of 21 bytes", fromPeer().payload(hex("00020000 0040")).payload(15)],
    [
      "truncated",
      "the packet ends before the UDP length does",
      vudp().payload(innerFrame().build()).build().subarray(0, 100),
    ],
    [
      "bad_header_checksum",
      "the outer IPv4 header was changed on its way",
      packet()
        .eth()
        .ipv4({ src: PEER, dst: US, checksum: 0x1234 })
        .udp()
        .vudp({ vnet: "4" })
        .payload(innerFrame().build()),
    ],
    [
      "bad_header_checksum",
      "zero",
      packet()
        .eth()
        .ipv4({ src: PEER, dst: US, checksum: 0 })
        .udp()
        .vudp({ vnet: "4" })
        .payload(innerFrame().build()),
    ],
    ["unknown_message", "id 0", fromPeer().payload(hex("00000000")).payload(40)],
    ["unknown_message", "id 4", fromPeer().payload(hex("00040000")).payload(40)],
    ["unknown_message", "id 0x0200", fromPeer().payload(hex("02000000")).payload(40)],
    [
      "bad_udp_length",
      "beyond the IP packet",
      packet().eth().ipv4({ src: PEER, dst: US }).udp({ length: 400 }).payload(100),
    ],
    [
      "bad_udp_length",
      "below 8",
      packet().eth().ipv4({ src: PEER, dst: US }).udp({ length: 7 }).payload(100),
    ],
    [
      "bad_udp_length",
      "zero",
      packet().eth().ipv4({ src: PEER, dst: US }).udp({ length: 0 }).payload(100),
    ],
    [
      "own_echo",
      "from our own address",
      vudp({ src: US, dst: VNETD_GROUP }).payload(innerFrame().build()),
    ],
    ...[
      "0.0.0.0",
      "0.1.2.3",
      "127.0.0.1",
      "224.10.0.1",
      "239.1.1.1",
      "240.0.0.1",
      "255.255.255.255",
    ].map((src) => [
      "bad_source_address",
      `from ${src}`,
      vudp({ src }).payload(innerFrame().build()),
    ]),
    ["bad_vnet_id", "0", fromPeer().vudp({ vnet: "0" }).payload(innerFrame().build())],
    [
      "bad_vnet_id",
      "1, the physical network",
      fromPeer().vudp({ vnet: "1" }).payload(innerFrame().build()),
    ],
    ["unknown_vnet", "1235", fromPeer().vudp({ vnet: "1235" }).payload(innerFrame().build())],
    [
      "unknown_vnet",
      "a long id with the same last field",
      fromPeer().vudp({ vnet: "1:0:0:0:0:0:0:4" }).payload(innerFrame().build()),
    ],
    ["short_frame", "no frame", vudp()],
    ["short_frame", "13 bytes", vudp().payload(13)],
    [
      "varp_short",
      "42 bytes",
      fromPeer().varp({ vnet: "4", vmac: GUEST_B }).build().subarray(0, 84),
    ],
    ["varp_short", "4 bytes", fromPeer().payload(hex("00010002"))],
    ["varp_bad_opcode", "0", fromPeer().varp({ vnet: "4", vmac: GUEST_B, operation: 0 })],
    ["varp_bad_opcode", "3", fromPeer().varp({ vnet: "4", vmac: GUEST_B, operation: 3 })],
    [
      "varp_bad_family",
      "announce of family 0",
      fromPeer().varp({ vnet: "4", vmac: GUEST_B, family: 0 }),
    ],
    [
      "varp_bad_family",
      "announce of family 255",
      fromPeer().varp({ vnet: "4", vmac: GUEST_B, family: 255 }),
    ],
    [
      "varp_unknown_vnet",
      "a request",
      fromPeer().varp({ vnet: "1235", vmac: GUEST_B, operation: 1 }),
    ],
    [
      "varp_unknown_vnet",
      "an announce",
      fromPeer().varp({ vnet: "1:0:0:0:0:0:0:4", vmac: GUEST_B }),
    ],
    [
      "vfwd_not_peer",
      "there are no peers",
      fromPeer().vfwd().vudp({ vnet: "4" }).payload(innerFrame().build()),
    ],
    ["vfwd_not_peer", "4 bytes", fromPeer().payload(hex("00030000"))],
    [
      "vfwd_not_peer",
      "a VFWD inside a VFWD",
      fromPeer().vfwd().vfwd().vudp({ vnet: "4" }).payload(innerFrame().build()),
    ],
  ] as [string, string, PacketBuilder | Buffer][]
).map(([reason, description, input]) => ({
  description: `${reason}: ${description}`,
  program: "vnetd_decap",
  input: reason === "varp_short" && input instanceof Buffer ? shortenDatagram(input) : input,
  verdict: "drop",
  reasons: [reason],
  reasonsKnowVnet: false,
  // the daemon names who is no peer
  ...(reason === "vfwd_not_peer" ? { events: () => [{ kind: "not-peer", address: PEER }] } : {}),
  learned: nothingLearned,
  ...(reason === "bad_source_address" ? { forms: IPV4_FORMS } : {}),
}));

/** makes IP and UDP lengths agree with a datagram that was cut */
function shortenDatagram(cut: Buffer): Buffer {
  return fromPeer().payload(cut.subarray(42)).build();
}

const vnetDrops: Row[] = [
  {
    description: "vnet_down",
    program: "vnetd_decap",
    vnet: { up: false },
    input: vudp().payload(innerFrame().build()),
    verdict: "drop",
    reasons: ["vnet_down"],
    learned: nothingLearned,
  },
  ...[vnetdSecurity.SECURITY_AUTH, vnetdSecurity.SECURITY_CONF].map((security): Row => ({
    description: `security: a clear frame for a vnet of level ${security}`,
    program: "vnetd_decap",
    vnet: { security },
    input: vudp().payload(innerFrame().build()),
    verdict: "drop",
    reasons: ["security"],
    learned: nothingLearned,
  })),
  {
    description: "own_echo: from the address of another attached device of ours",
    program: "vnetd_decap",
    setup: ({ lab }) => lab.underlay({ device: "ul1", address: "10.66.1.77" }),
    input: vudp({ src: "10.66.1.77", dst: VNETD_GROUP }).payload(innerFrame().build()),
    verdict: "drop",
    reasons: ["own_echo"],
    learned: nothingLearned,
    check: ({ lab }) => lab.detach("ul1"),
  },
  {
    description: "bad_superframe: a UDP super-frame, and no pair to segment it",
    program: "vnetd_decap",
    input: vudp().payload(
      packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().udp({ dst: 9 }).payload(2000).build(),
    ),
    gsoSize: 1000,
    gsoSegs: 2,
    verdict: "drop",
    reasons: ["bad_superframe"],
    learned: nothingLearned,
  },
  {
    description: "an underlay device that is down is not ours",
    program: "vnetd_decap",
    underlay: { up: false },
    input: vudp().payload(innerFrame().build()),
    verdict: "pass",
    learned: nothingLearned,
  },
  {
    description: "another port and group, as configured",
    program: "vnetd_decap",
    underlay: { port: 4000, group: "239.1.2.3" },
    input: packet()
      .eth()
      .ipv4({ src: PEER, dst: "239.1.2.3" })
      .udp({ dst: 4000 })
      .vudp({ vnet: "4" })
      .payload(innerFrame().build()),
    verdict: "redirect",
    decapsulated: innerFrame(),
    learned: learnedFromPeer,
    flooded: 1,
  },
  {
    // a test run's super-frame has no GSO type, which the kernel refuses to shorten; TCP super-frames
    // of real devices are in real.test.ts
    description: "no_memory: the kernel does not let go of the outer headers",
    forms: ["udp4", "udp6"],
    program: "vnetd_decap",
    input: vudp().payload(
      packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().tcp().payload(2800).build(),
    ),
    gsoSize: 1396,
    gsoSegs: 3,
    verdict: "drop",
    reasons: ["no_memory"],
    learned: learnedFromPeer,
  },
  {
    description: "marks are gone when a frame is delivered",
    program: "vnetd_decap",
    input: vudp().payload(innerFrame().build()),
    mark: vnetdMark.MARK_SECOND_PASS,
    verdict: "redirect",
    decapsulated: innerFrame(),
    learned: learnedFromPeer,
    check: ({ mark }) => {
      if (mark !== 0) throw new Error(`mark ${mark.toString(16)}`);
    },
  },
];

const varpEvent = (
  operation: 1 | 2,
  more: { dst?: string; sport?: number; trailing?: Buffer } = {},
): Row => {
  const message = packet()
    .varp({ vnet: "4", vmac: GUEST_B, operation, address: PEER })
    .payload(more.trailing ?? Buffer.alloc(0))
    .build();
  const { trailing: _ignored, ...outer } = more;
  return {
    description: `VARP ${operation === 1 ? "request" : "announce"} ${JSON.stringify(outer)} with ${more.trailing?.length ?? 0} trailing bytes goes to the daemon`,
    program: "vnetd_decap",
    input: fromPeer(outer).payload(message),
    verdict: "drop",
    // what is behind a message is the daemon's to read: the program enters nothing (varp-rows.ts has the rest)
    learned: nothingLearned,
    events: ({ lab }) => [
      {
        kind: "varp",
        ifindex: lab.ifindex("ul0"),
        source: PEER,
        destination: outer.dst ?? US,
        sourcePort: outer.sport ?? 1798,
        message: message.subarray(0, 512),
      },
    ],
  };
};

const varp: Row[] = [
  varpEvent(1, { trailing: Buffer.from("12345") }),
  varpEvent(1, { trailing: Buffer.from("12345"), dst: VNETD_GROUP }),
  varpEvent(1, { trailing: Buffer.from("12345"), sport: 40000 }),
  varpEvent(2, { trailing: Buffer.from("12345") }),
  varpEvent(2, { trailing: Buffer.alloc(469, 1) }),
  varpEvent(2, { trailing: Buffer.alloc(900, 1) }),
  {
    description: "varp_queue_full: the daemon does not read and the ring is full",
    program: "vnetd_decap",
    justBefore: ({ lab }) => {
      const input = fromPeer().varp({ vnet: "4", vmac: GUEST_B }).payload(9).build();
      lab.run("vnetd_decap", input, { repeat: 3000 });
    },
    input: fromPeer().varp({ vnet: "4", vmac: GUEST_B }).payload(9),
    verdict: "drop",
    reasons: ["varp_queue_full"],
    reasonsKnowVnet: false,
    anyEvents: true,
  },
];

const moves: Row[] = [
  {
    description: "a data frame moves an entry to the host it came from, and says so",
    program: "vnetd_decap",
    setup: ({ lab }) =>
      void lab.run("vnetd_decap", vudp({ src: THIRD }).payload(innerFrame().build()).build()),
    input: vudp().payload(innerFrame().build()),
    verdict: "redirect",
    learned: learnedFromPeer,
    events: ({ vnet }) => [{ kind: "moved", handle: vnet.handle, mac: GUEST_B }],
  },
  {
    description: "a data frame takes a MAC from this host: it moved away",
    program: "vnetd_decap",
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(GUEST_B) }),
    input: vudp().payload(innerFrame().build()),
    verdict: "redirect",
    learned: learnedFromPeer,
    events: ({ vnet }) => [{ kind: "moved", handle: vnet.handle, mac: GUEST_B, from: 0 }],
  },
  {
    description: "a data frame moves a static entry as well",
    program: "vnetd_decap",
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
        mac: macBytes(GUEST_B),
        addr: mappedBytes(THIRD),
        fdbFlags: vnetdFdbFlags.FDB_STATIC,
      }),
    input: vudp().payload(innerFrame().build()),
    verdict: "redirect",
    learned: learnedFromPeer,
    events: ({ vnet }) => [{ kind: "moved", handle: vnet.handle, mac: GUEST_B }],
  },
  {
    description: "refused_static: delivered, but a pinned MAC stays where it was put",
    program: "vnetd_decap",
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
        mac: macBytes(GUEST_B),
        addr: mappedBytes(THIRD),
        fdbFlags: vnetdFdbFlags.FDB_STATIC | vnetdFdbFlags.FDB_PINNED,
      }),
    input: vudp().payload(innerFrame().build()),
    verdict: "redirect",
    reasons: ["refused_static"],
    learned: { [GUEST_B]: THIRD },
  },
  {
    description: "refused_group_mac: delivered, but a group address is nobody's home",
    program: "vnetd_decap",
    input: vudp().payload(innerFrame({ src: "ff:ff:ff:ff:ff:8b" }).build()),
    verdict: "redirect",
    reasons: ["refused_group_mac"],
    decapsulated: innerFrame({ src: "ff:ff:ff:ff:ff:8b" }),
    learned: { "ff:ff:ff:ff:ff:8b": undefined },
  },
];

const fromXdp: Row[] = [
  {
    description: "xdp_lost: a frame with XDP's mark that says nothing of itself",
    program: "vnetd_decap",
    forms: ["udp4"],
    input: innerFrame({ dst: XDP_MARK }),
    verdict: "drop",
    reasons: ["xdp_lost"],
    reasonsKnowVnet: false,
  },
  {
    description: "a frame to a MAC that only begins like the mark is somebody's",
    program: "vnetd_decap",
    forms: ["udp4"],
    input: innerFrame({ dst: "76:6e:00:00:00:01" }),
    verdict: "pass",
  },
];

export const DECAP_ROWS: Row[] = [
  ...innerRows,
  ...tinyRows,
  ...group,
  ...outerVariants,
  ...versions,
  ...notOurs,
  ...drops,
  ...vnetDrops,
  ...varp,
  ...moves,
  ...fromXdp,
];
