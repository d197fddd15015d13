// SPDX-License-Identifier: Apache-2.0
/** From a vnet onto the underlay: rows for vnetd_encap and vnetd_encap_fast. */
import { expect } from "vitest";
import {
  encodeVnetdHostPath,
  encodeVnetdHostPathKey,
  vnetdControlOp,
  vnetdFdbFlags,
  vnetdMark,
  vnetdSecurity,
} from "../../src/generated/layouts.js";
import { hex, macBytes, mappedBytes } from "../lib/bytes.js";
import { addressIn } from "../lib/forms.js";
import {
  BROADCAST_MAC,
  ETHER_TYPE,
  VNETD_GROUP,
  packet,
  type Ipv4Options,
  type PacketBuilder,
} from "../lib/packet.js";
import { forgetPath } from "./path-mtu-rows.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  US,
  expectEncapsulated,
  type Row,
  type RowContext,
} from "./rows.js";

/** guest A's frame to guest B, who lives on PEER */
const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });
const udpToB = (bytes = 32): PacketBuilder =>
  toB().ipv4().udp({ src: 5000, dst: 5001 }).payload(bytes);
const learned = { [GUEST_A]: "local" };

const learnB =
  (fdbFlags = 0) =>
  ({ lab, vnet }: RowContext): void => {
    const mac = macBytes(GUEST_B);
    const { result } = lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac,
      addr: mappedBytes(PEER),
      fdbFlags,
    });
    if (result !== 0) throw new Error(`CTL_LEARN: ${result}`);
  };
const localNew = ({ vnet }: RowContext): { kind: "local-new"; handle: number; mac: string }[] => [
  { kind: "local-new", handle: vnet.handle, mac: GUEST_A },
];
const localNewAndUnknown =
  (mac: string) =>
  (
    context: RowContext,
  ): { kind: "local-new" | "unknown-unicast"; handle: number; mac: string }[] => [
    ...localNew(context),
    { kind: "unknown-unicast", handle: context.vnet.handle, mac },
  ];

/** IP: encapsulated in one pass. Not IP: with the mark of the second pass, which is run as well. */
interface Kind {
  frame: PacketBuilder;
  secondPass: boolean;
}
export const ENCAP_KINDS: Record<string, Kind> = {
  "IPv4 UDP": { frame: udpToB(), secondPass: false },
  "IPv4 TCP": { frame: toB().ipv4().tcp().payload(1000), secondPass: false },
  "IPv4 ICMP": { frame: toB().ipv4().icmpEcho().payload(56), secondPass: false },
  "IPv4 with options": {
    frame: toB()
      .ipv4({ options: hex("94040000") })
      .udp()
      .payload(9),
    secondPass: false,
  },
  "IPv4 fragment": { frame: toB().ipv4({ fragmentOffset: 1480 }).payload(8), secondPass: false },
  "IPv4, its header alone": { frame: toB().ipv4({ protocol: 59 }), secondPass: false },
  "IPv6 UDP": { frame: toB().ipv6().udp({ dst: 9 }).payload(1), secondPass: false },
  "IPv6 ICMP": { frame: toB().ipv6().icmpEcho().payload(56), secondPass: false },
  "IPv4 with DF and ECN": {
    frame: toB().ipv4({ dontFragment: true, tos: 3 }).udp({ dst: 9 }),
    secondPass: false,
  },
  "IPv4 with wrong checksums": {
    frame: toB().ipv4({ checksum: 1 }).tcp({ checksum: 2 }),
    secondPass: false,
  },
  ARP: { frame: toB().arp({ operation: 2 }), secondPass: true },
  "802.1Q inline": {
    frame: toB().vlan({ id: 5 }).ipv4().udp({ dst: 9 }).payload(20),
    secondPass: true,
  },
  "QinQ inline": {
    frame: toB().vlan({ id: 5, tpid: ETHER_TYPE.qinq }).vlan({ id: 6 }).arp(),
    secondPass: true,
  },
  LLC: { frame: toB().llc(0xaa).payload(30), secondPass: true },
  "unknown EtherType": { frame: toB().payload(777), secondPass: true },
};

const kinds: Row[] = Object.entries(ENCAP_KINDS).map(([kind, { frame, secondPass }]) => ({
  description: `${kind} to a host that is known`,
  program: "vnetd_encap",
  setup: learnB(),
  input: frame,
  verdict: "redirect",
  encapsulated: { to: PEER, ttl: 64, frame },
  learned,
  events: localNew,
  check: ({ lab, output, mark }) => {
    expect(mark & 0xfffff000).toBe(secondPass ? vnetdMark.MARK_SECOND_PASS : 0);
    if (!secondPass) return;
    const second = lab.run("vnetd_encap", output, { mark });
    expect(second).toMatchObject({ verdict: "redirect", mark: 0, drops: [] });
    expectEncapsulated(second.output, { to: PEER, ttl: 64, frame }, lab.form);
  },
}));

const lengths: Row[] = [14, 15, 33, 34, 59, 60, 1449, 1450].map((length) => {
  const frame = toB().payload(length - 14);
  return {
    description: `a frame of ${length} bytes`,
    program: "vnetd_encap",
    setup: learnB(),
    input: frame,
    verdict: "redirect",
    encapsulated: { to: PEER, ttl: 64, frame },
    learned,
    events: localNew,
  };
});

/** A host's packets, in the vnet: a bridge between the vnet and the LAN that carries it. */
const outerPackets: Record<string, { frame: PacketBuilder; dropped: boolean }> = {
  "our own, to the group": { frame: lanPacket(US).udp({ dst: 1798 }), dropped: true },
  "another host's, to the group": {
    frame: lanPacket("10.66.1.9").udp({ dst: 1798 }),
    dropped: true,
  },
  "a host's to a host": {
    frame: lanPacket(PEER, US).udp({ dst: 1798 }).payload(30),
    dropped: true,
  },
  "the second fragment of one": {
    frame: lanPacket(US, VNETD_GROUP, { fragmentOffset: 1480, protocol: 17 }).payload(30),
    dropped: true,
  },
  "a host's, to another port": { frame: lanPacket(US).udp({ dst: 1799 }), dropped: false },
  "a fragment to somebody": {
    frame: lanPacket(US, "10.66.1.77", { fragmentOffset: 1480, protocol: 17 }).payload(30),
    dropped: false,
  },
  "of a vnet on top of this one": {
    frame: lanPacket("10.66.2.2").udp({ dst: 1798 }),
    dropped: false,
  },
  "not UDP": { frame: lanPacket(US).tcp({ dst: 1798 }), dropped: false },
};

function lanPacket(src: string, dst = VNETD_GROUP, more: Ipv4Options = {}): PacketBuilder {
  return packet()
    .eth({ src: GUEST_A, dst: BROADCAST_MAC })
    .ipv4({ src, dst, ...more });
}

const carriesItself: Row[] = Object.entries(outerPackets).map(([kind, { frame, dropped }]) => ({
  description: `${dropped ? "carries_itself" : "carried"}: a packet of the underlay, ${kind}`,
  program: "vnetd_encap",
  input: frame,
  ...(dropped
    ? { verdict: "drop", reasons: ["carries_itself"] }
    : { verdict: "redirect", encapsulated: { to: VNETD_GROUP, ttl: 1, frame }, flooded: 1 }),
  learned,
  events: localNew,
}));

/** What a forwarder sent to the group for a host elsewhere, and the LAN's bridge brought into the vnet. */
const ELSEWHERE = "10.66.7.7";
const elsewhere = {
  "to the group": lanPacket(ELSEWHERE).udp({ dst: 1798 }),
  "the second fragment of one": lanPacket(ELSEWHERE, VNETD_GROUP, {
    fragmentOffset: 1480,
    protocol: 17,
  }).payload(30),
};
const knownElsewhere: Record<string, (context: RowContext) => void> = {
  "whose frames this vnet has": ({ lab, vnet }) =>
    void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac: macBytes(GUEST_B),
      addr: mappedBytes(ELSEWHERE),
    }),
  "that said hello": ({ lab }) => {
    const addr = addressIn(lab.form, mappedBytes(ELSEWHERE));
    const key = encodeVnetdHostPathKey({ ifindex: lab.ifindex("ul0"), addr });
    const nothing = encodeVnetdHostPath({ mtu: 0, mtuUntilNs: 0n });
    lab.native.mapUpdate(lab.map("host_paths"), key, nothing);
  },
};
const resent: Row[] = [
  ...Object.entries(elsewhere).map(([kind, frame]): Row => ({
    description: `carried: a packet of nobody that is known, ${kind}`,
    program: "vnetd_encap",
    setup: (context) => forgetPath(context, ELSEWHERE),
    input: frame,
    verdict: "redirect",
    encapsulated: { to: VNETD_GROUP, ttl: 1, frame },
    flooded: 1,
    learned,
    events: localNew,
  })),
  ...Object.entries(knownElsewhere).flatMap(([who, setup]) =>
    Object.entries(elsewhere).map(([kind, input]): Row => ({
      description: `carries_itself: a packet of a host elsewhere ${who}, ${kind}`,
      program: "vnetd_encap",
      setup: (context) => {
        forgetPath(context, ELSEWHERE);
        setup(context);
      },
      input,
      verdict: "drop",
      reasons: ["carries_itself"],
      learned,
      events: localNew,
    })),
  ),
];

const groupFrames: Record<string, PacketBuilder> = {
  "ARP broadcast": packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp(),
  "IPv4 multicast": packet()
    .eth({ src: GUEST_A, dst: "01:00:5e:00:00:fb" })
    .ipv4({ dst: "224.0.0.251" })
    .udp(),
  "IPv6 multicast": packet()
    .eth({ src: GUEST_A, dst: "33:33:00:00:00:01" })
    .ipv6({ dst: "ff02::1" })
    .icmpEcho(),
  STP: packet().eth({ src: GUEST_A, dst: "01:80:c2:00:00:00" }).llc().stp(GUEST_A),
  "14 bytes": packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }),
  "802.1Q broadcast": packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).vlan({ id: 9 }).arp(),
};

const group: Row[] = Object.entries(groupFrames).map(([kind, frame]) => ({
  description: `${kind} goes to the group`,
  program: "vnetd_encap",
  input: frame,
  verdict: "redirect",
  encapsulated: { to: VNETD_GROUP, ttl: 1, frame },
  learned,
  events: localNew,
  flooded: 1,
  check: ({ mark }) => expect(mark).toBe(0),
}));

const toGroup = (row: Pick<Row, "description"> & Partial<Row>): Row => ({
  program: "vnetd_encap",
  input: udpToB(),
  verdict: "redirect",
  encapsulated: { to: VNETD_GROUP, ttl: 1, frame: udpToB() },
  learned,
  events: localNewAndUnknown(GUEST_B),
  flooded: 1,
  ...row,
});

const unknown: Row[] = [
  toGroup({ description: "unknown unicast goes to the group, and the daemon is told" }),
  toGroup({
    description: "an entry that was flushed is unknown",
    setup: (context) => {
      learnB()(context);
      context.lab.setVnet(context.vnet, { flushedNs: 1n << 62n });
    },
  }),
  toGroup({
    description: "an entry that was forgotten is unknown",
    setup: (context) => {
      learnB()(context);
      context.lab.control(vnetdControlOp.CTL_FORGET, context.vnet, { mac: macBytes(GUEST_B) });
    },
  }),
  toGroup({
    description: "an entry behind a device that is detached is unknown",
    setup: (context) => {
      context.lab.underlay({ device: "ul1" });
      const request = {
        mac: macBytes(GUEST_B),
        addr: mappedBytes("10.66.2.9"),
        ifindex: context.lab.ifindex("ul1"),
      };
      context.lab.control(vnetdControlOp.CTL_LEARN, context.vnet, request);
      context.lab.detach("ul1");
    },
  }),
  toGroup({
    description: "a MAC that is here, but that the bridge did not deliver to, goes to the group",
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(GUEST_B) }),
    events: localNew,
  }),
  {
    description: "a static entry does not die by age",
    program: "vnetd_encap",
    vnet: { ageMs: 0 },
    setup: learnB(vnetdFdbFlags.FDB_STATIC),
    input: udpToB(),
    verdict: "redirect",
    encapsulated: { to: PEER, ttl: 64, frame: udpToB() },
    events: localNew,
  },
  toGroup({
    description: "an entry that is too old is unknown",
    vnet: { ageMs: 0 },
    setup: learnB(),
  }),
];

const frameOf = (length: number): PacketBuilder => toB().payload(length - 14);
const drops: Row[] = [
  ...(
    [
      ["too_big", "to a host", frameOf(1451), learnB()],
      ["too_big", "to a host, IP", udpToB(1500 - 50 - 14 - 28 + 1), learnB()],
      [
        "too_big",
        "to the group",
        packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).payload(1437),
        undefined,
      ],
    ] as const
  ).map(([reason, description, input, setup]): Row => ({
    description: `${reason}: one byte more than the underlay takes, ${description}`,
    program: "vnetd_encap",
    ...(setup === undefined ? {} : { setup }),
    input,
    verdict: "drop",
    reasons: [reason],
    learned,
    events: localNew,
  })),
  {
    description: "too_big: measured against the underlay's own MTU",
    program: "vnetd_encap",
    underlay: { mtuBytes: 600 },
    setup: learnB(),
    input: frameOf(551),
    verdict: "drop",
    reasons: ["too_big"],
    events: localNew,
  },
  ...carriesItself,
  ...resent,
  {
    description: "copy_failed: one of two devices is gone, the other gets the frame",
    program: "vnetd_encap",
    setup: ({ lab }) => lab.ghostUnderlay(true),
    input: packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp(),
    verdict: "redirect",
    reasons: ["copy_failed"],
    encapsulated: {
      to: VNETD_GROUP,
      ttl: 1,
      frame: packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp(),
    },
    learned,
    events: localNew,
    flooded: 1,
    check: ({ lab }) => lab.ghostUnderlay(false),
  },
  {
    description: "no_underlay: nothing is attached",
    program: "vnetd_encap",
    setup: ({ lab }) => lab.detach("ul0"),
    input: packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp(),
    verdict: "drop",
    reasons: ["no_underlay"],
    learned,
    events: localNew,
  },
  {
    description: "no_underlay: all are down",
    program: "vnetd_encap",
    underlay: { up: false },
    setup: learnB(),
    input: udpToB(),
    verdict: "drop",
    reasons: ["no_underlay"],
    learned,
    events: localNewAndUnknown(GUEST_B),
  },
  {
    description: "vnet_down",
    program: "vnetd_encap",
    vnet: { up: false },
    input: udpToB(),
    verdict: "drop",
    reasons: ["vnet_down"],
    learned: { [GUEST_A]: undefined },
  },
  {
    description: "vnet_down: the device belongs to no vnet",
    program: "vnetd_encap",
    setup: ({ lab }) => lab.portDelete("vn0p"),
    input: udpToB(),
    verdict: "drop",
    reasons: ["vnet_down"],
    reasonsKnowVnet: false,
  },
  {
    description: "vnet_down: the slot has been given to another vnet",
    program: "vnetd_encap",
    setup: ({ lab, vnet }) => lab.setVnet({ ...vnet, handle: vnet.handle + 500_000 }, {}),
    input: udpToB(),
    verdict: "drop",
    reasons: ["vnet_down"],
    reasonsKnowVnet: false,
  },
  ...[vnetdSecurity.SECURITY_AUTH, vnetdSecurity.SECURITY_CONF].map((security): Row => ({
    description: `no_keys: a vnet of level ${security} is never sent in clear`,
    program: "vnetd_encap",
    vnet: { security },
    setup: learnB(),
    input: udpToB(),
    verdict: "drop",
    reasons: ["no_keys"],
    learned,
    events: localNew,
  })),
  {
    description: "encap_failed: a super-frame that is not IP",
    forms: ["udp4", "udp6"],
    program: "vnetd_encap",
    setup: learnB(),
    input: frameOf(1400),
    gsoSize: 700,
    gsoSegs: 2,
    verdict: "drop",
    reasons: ["encap_failed"],
    learned,
    events: localNew,
  },
  ...(
    [
      ["not IP", toB().payload(100)],
      ["another source address", outer({ src: PEER })],
      ["not UDP", packet().eth().ipv4({ src: US, dst: PEER }).tcp().payload(60)],
      [
        "not VUDP",
        packet().eth().ipv4({ src: US, dst: PEER }).udp().payload(hex("0001")).payload(60),
      ],
      ["too short", packet().eth().ipv4({ src: US, dst: PEER }).udp()],
    ] as const
  ).map(([description, input]): Row => ({
    description: `stale_pass: a mark of the second pass on what is ${description}`,
    program: "vnetd_encap",
    input,
    mark: vnetdMark.MARK_SECOND_PASS,
    verdict: "drop",
    reasons: ["stale_pass"],
    reasonsKnowVnet: false,
  })),
  {
    description: "stale_pass: the device is not attached any more",
    program: "vnetd_encap",
    input: outer(),
    mark: vnetdMark.MARK_SECOND_PASS | 5,
    verdict: "drop",
    reasons: ["stale_pass"],
    reasonsKnowVnet: false,
  },
  {
    description:
      "refused_static: sent, but a MAC that is pinned to another host is not one of ours",
    program: "vnetd_encap",
    setup: (context) => {
      learnB()(context);
      context.lab.control(vnetdControlOp.CTL_LEARN, context.vnet, {
        mac: macBytes(GUEST_A),
        addr: mappedBytes(PEER),
        fdbFlags: vnetdFdbFlags.FDB_STATIC | vnetdFdbFlags.FDB_PINNED,
      });
    },
    input: udpToB(),
    verdict: "redirect",
    reasons: ["refused_static"],
    encapsulated: { to: PEER, ttl: 64, frame: udpToB() },
    learned: { [GUEST_A]: PEER },
  },
  {
    description: "refused_group_mac: sent, but a group address is no guest",
    program: "vnetd_encap",
    setup: learnB(),
    input: packet().eth({ src: "03:00:00:00:00:01", dst: GUEST_B }).ipv4().udp(),
    verdict: "redirect",
    reasons: ["refused_group_mac"],
    encapsulated: {
      to: PEER,
      ttl: 64,
      frame: packet().eth({ src: "03:00:00:00:00:01", dst: GUEST_B }).ipv4().udp(),
    },
    learned: { "03:00:00:00:00:01": undefined },
  },
];

function outer(options: { src?: string } = {}): PacketBuilder {
  return packet()
    .eth()
    .ipv4({ src: options.src ?? US, dst: PEER })
    .udp()
    .vudp({ vnet: "4" })
    .payload(udpToB().build());
}

const marks: Row[] = [vnetdMark.MARK_SEGMENTED, vnetdMark.MARK_OVERSIZE, 0x1234].map((mark) => ({
  description: `mark ${mark.toString(16)} of a guest's frame is gone when it leaves`,
  program: "vnetd_encap",
  setup: learnB(),
  input: udpToB(),
  mark,
  verdict: "redirect",
  encapsulated: { to: PEER, ttl: 64, frame: udpToB() },
  events: localNew,
  check: (result) => expect(result.mark).toBe(0),
}));

/** the fast hook takes IP to a host that is known, and leaves all else as it is to the other */
const fast: Row[] = [
  ...Object.entries(ENCAP_KINDS)
    .filter(([, { secondPass }]) => !secondPass)
    .map(([kind, { frame }]): Row => ({
      description: `fast: ${kind} to a host that is known`,
      program: "vnetd_encap_fast",
      setup: learnB(),
      input: frame,
      verdict: "redirect",
      encapsulated: { to: PEER, ttl: 64, frame },
      learned,
      events: localNew,
      check: ({ mark }) => expect(mark).toBe(0),
    })),
  ...(
    [
      ["ARP", toB().arp({ operation: 2 }), learnB()],
      ["802.1Q inline", toB().vlan({ id: 5 }).ipv4().udp({ dst: 9 }), learnB()],
      ["unknown unicast", udpToB(), undefined],
      [
        "a broadcast",
        packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).ipv4().udp({ dst: 9 }),
        undefined,
      ],
      ["what is too big", udpToB(1409), learnB()],
    ] as const
  ).map(([description, input, setup]): Row => ({
    description: `fast: ${description} is left, unchanged, to vnetd_encap`,
    program: "vnetd_encap_fast",
    ...(setup === undefined ? {} : { setup }),
    input,
    verdict: "pass",
    // whether the source is learned here or by the other hook is no matter
    anyEvents: true,
    check: ({ output }) => expect(output.equals(input.build())).toBe(true),
  })),
  ...(
    [
      ["a vnet that is down", { up: false }, []],
      ["a secure vnet without keys", { security: vnetdSecurity.SECURITY_CONF }, ["local-new"]],
    ] as const
  ).map(([description, vnet, kinds]): Row => ({
    description: `fast: ${description} is left to vnetd_encap, which drops and counts`,
    program: "vnetd_encap_fast",
    vnet,
    setup: learnB(),
    input: udpToB(),
    verdict: "pass",
    events: () => kinds.map((kind) => ({ kind })),
    check: ({ output }) => expect(output.equals(udpToB().build())).toBe(true),
  })),
  ...(
    [
      ["the second pass", vnetdMark.MARK_SECOND_PASS],
      ["the copy for the other family", vnetdMark.MARK_OTHER_FAMILY | 7],
      ["a piece of a super-frame that has paid", vnetdMark.MARK_PIECE],
      ["a probe", vnetdMark.MARK_PROBE],
      ["the second pass of a secure vnet", vnetdMark.MARK_SECURE_PASS],
      ["a large frame of a secure vnet", vnetdMark.MARK_SECURE_WHOLE],
    ] as const
  ).map(([what, mark]): Row => ({
    description: `fast: a guest's mark cannot pass for ${what}`,
    program: "vnetd_encap_fast",
    input: toB().arp(),
    mark,
    verdict: "pass",
    check: (result) => expect(result.mark).toBe(0),
  })),
];

export const ENCAP_ROWS: Row[] = [
  ...kinds,
  ...lengths,
  ...group,
  ...unknown,
  ...drops,
  ...marks,
  ...fast,
];
