// SPDX-License-Identifier: Apache-2.0
/**
 * Frames that are too large for the underlay, and packets in fragments: rows for a lab in which
 * fragments() is on. What a test run cannot show, the whole way of a fragment, is in
 * fragments.test.ts with real frames.
 */
import { expect } from "vitest";
import { vnetdControlOp, vnetdMark, vnetdSecurity } from "../../src/generated/layouts.js";
import { expectBytes, hex, macBytes, mappedBytes } from "../lib/bytes.js";
import { REASSEMBLY_PORT, REASSEMBLY_SECRET } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, fragmentIpv4, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  US,
  fromPeer,
  innerFrame,
  type Row,
  type RowContext,
} from "./rows.js";

const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });
const learnB = ({ lab, vnet }: RowContext): void =>
  void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
    mac: macBytes(GUEST_B),
    addr: mappedBytes(PEER),
  });
const largeFrame = innerFrame().payload(1500);
const firstFragment = (outer: PacketBuilder): Buffer =>
  fragmentIpv4(outer.payload(largeFrame.build()).build(), 1500)[0]!;

/** 36 bytes of VUDP and inner Ethernet header are what a first fragment must hold */
const firstFragments: Row[] = [
  {
    description: "the first fragment goes to the stack in a form that brings the packet back",
    program: "vnetd_decap",
    input: firstFragment(fromPeer().vudp({ vnet: "4" })),
    verdict: "pass",
    check: ({ vnet, output }) => {
      const input = firstFragment(fromPeer().vudp({ vnet: "4" }));
      const header = Buffer.concat([
        input.subarray(34, 36),
        Buffer.from([REASSEMBLY_PORT >> 8, REASSEMBLY_PORT & 0xff]),
        input.subarray(38, 40),
        // no checksum, VXLAN with an id, the id (slot, device 0, not to the group)
        hex("0000 08000000"),
        Buffer.from([0, vnet.slot >> 8, vnet.slot & 0xff, 0]),
        REASSEMBLY_SECRET,
        // the packet's own IPv4 id
        input.subarray(18, 20),
        hex("0800"),
      ]);
      expectBytes(output, Buffer.concat([input.subarray(0, 34), header, input.subarray(64)]));
    },
  },
  ...(
    [
      ["bad_version", fromPeer().vudp({ vnet: "4", version: [0, 0x30] })],
      ["bad_vnet_id", fromPeer().vudp({ vnet: "1" })],
      ["unknown_vnet", fromPeer().vudp({ vnet: "1235" })],
      ["own_echo", fromPeer({ src: US }).vudp({ vnet: "4" })],
      ["bad_source_address", fromPeer({ src: "240.1.2.3" }).vudp({ vnet: "4" })],
    ] as const
  ).map(([reason, outer]): Row => ({
    description: `a first fragment is refused as a whole packet would be: ${reason}`,
    program: "vnetd_decap",
    input: firstFragment(outer),
    verdict: "drop",
    reasons: [reason],
    reasonsKnowVnet: false,
  })),
  ...(
    [
      ["vnet_down", { up: false }],
      ["security", { security: vnetdSecurity.SECURITY_AUTH }],
    ] as const
  ).map(([reason, vnet]): Row => ({
    description: `a first fragment is refused as a whole packet would be: ${reason}`,
    program: "vnetd_decap",
    vnet,
    input: firstFragment(fromPeer().vudp({ vnet: "4" })),
    verdict: "drop",
    reasons: [reason],
  })),
  ...(
    [
      [
        "later fragments",
        fragmentIpv4(fromPeer().vudp({ vnet: "4" }).payload(largeFrame.build()).build(), 1500)[1]!,
      ],
      ["VARP", firstFragment(fromPeer().varp({ vnet: "4", vmac: GUEST_B }))],
      ["another message", firstFragment(fromPeer().payload(hex("00090000")))],
      [
        "one too short for a frame's header",
        fragmentIpv4(fromPeer().vudp({ vnet: "4" }).payload(400).build(), 60)[0]!,
      ],
    ] as const
  ).map(([what, input]): Row => ({
    description: `${what}: passed on untouched`,
    program: "vnetd_decap",
    input,
    verdict: "pass",
    check: ({ output }) => expectBytes(output, input),
  })),
];

/** straight to the reassembly device's port, by who does not know the secret */
const forged: Row[] = (
  [
    ["nothing but a header", packet().eth({ type: 0x0800 }).ipv4().udp()],
    [
      "another secret",
      packet()
        .eth({ dst: "02:c0:ff:ee:00:02", src: "02:c0:ff:ee:00:01", type: 0x0801 })
        .payload(innerFrame().build()),
    ],
    // a test run gives a packet no tunnel key, so this did not come through the VXLAN device
    [
      "the secret, not from the VXLAN device",
      packet()
        .eth({ dst: "02:c0:ff:ee:00:01", src: "02:c0:ff:ee:00:02", type: 0x0801 })
        .payload(innerFrame().build()),
    ],
  ] as const
).map(([description, input]) => ({
  description: `reassembly_forged: ${description}`,
  program: "vnetd_reassembled",
  input,
  verdict: "drop",
  reasons: ["reassembly_forged"],
  reasonsKnowVnet: false,
}));

const tooLarge: Row[] = (
  [
    ["to a host", toB().payload(1437), learnB],
    ["to the group", packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).payload(1437), undefined],
  ] as const
).map(([description, input, setup]) => ({
  description: `a frame one byte too large goes to the pair that fragments: ${description}`,
  program: "vnetd_encap",
  ...(setup === undefined ? {} : { setup }),
  input,
  verdict: "redirect",
  // counted when it leaves
  forwarded: 0,
  learned: { [GUEST_A]: "local" },
  events: ({ vnet }) => [{ kind: "local-new", handle: vnet.handle, mac: GUEST_A }],
  check: ({ vnet, output, mark }) => {
    expect(mark).toBe(vnetdMark.MARK_OVERSIZE | vnet.slot);
    expectBytes(output, input.build());
  },
}));

const GUEST_MTU = 1500 - 50 - 14;
/** runs vnetd_oversize on the frame, as it comes through the pair */
const answered = (row: Pick<Row, "description" | "input"> & Partial<Row>): Row => ({
  program: "vnetd_oversize",
  setup: learnB,
  mark: ({ vnet }) => vnetdMark.MARK_OVERSIZE | vnet.slot,
  verdict: "redirect",
  reasons: ["too_big"],
  forwarded: 0,
  ...row,
});

const df = { src: "192.168.4.1", dst: "192.168.4.2", dontFragment: true };
const tooBig4 = toB().ipv4(df).tcp().payload(1420).build();
const tooBig6 = toB().ipv6().tcp().payload(1420).build();
const answers: Row[] = [
  answered({
    description: "too_big: IPv4 with DF: the guest is told the MTU (RFC 1191)",
    input: tooBig4,
    check: ({ output, mark }) => {
      expect(mark).toBe(0);
      const answer = parseFrame(output);
      expect(answer).toMatchObject({ src: GUEST_B, dst: GUEST_A });
      expect(answer.ipv4).toMatchObject({
        src: df.dst,
        dst: df.src,
        protocol: 1,
        moreFragments: false,
      });
      // ICMP type 3 code 4, the MTU, and the beginning of what was too big
      expect([...answer.payload.subarray(0, 2)]).toEqual([3, 4]);
      expect(answer.payload.readUInt16BE(6)).toBe(GUEST_MTU);
      expectBytes(answer.payload.subarray(8), tooBig4.subarray(14, 14 + 28), { what: "quote" });
    },
  }),
  answered({
    description: "too_big: IPv6: the guest is told the MTU (RFC 8201)",
    input: tooBig6,
    check: ({ output, mark }) => {
      expect(mark).toBe(0);
      const answer = parseFrame(output);
      expect(answer).toMatchObject({ src: GUEST_B, dst: GUEST_A });
      expect(answer.ipv6).toMatchObject({ nextHeader: 58 });
      expect([...answer.payload.subarray(0, 2)]).toEqual([2, 0]);
      expect(answer.payload.readUInt32BE(4)).toBe(GUEST_MTU);
      const quote = answer.payload.subarray(8);
      expectBytes(quote, tooBig6.subarray(14, 14 + quote.length), { what: "quote" });
    },
  }),
];

/** what must be answered by nobody is fragmented: a clone leaves for each fragment */
const split: Row[] = (
  [
    ["IPv4 without DF", toB().ipv4().tcp().payload(1420)],
    ["not IP", toB().payload(1500)],
    [
      "an ICMP error with DF",
      toB()
        .ipv4({ ...df, protocol: 1 })
        .payload(hex("0301"))
        .payload(1450),
    ],
    [
      "a later fragment with DF",
      toB()
        .ipv4({ ...df, fragmentOffset: 8 })
        .payload(1450),
    ],
  ] as const
).map(([description, input]) => ({
  description: `fragmented, not answered: ${description}`,
  program: "vnetd_oversize",
  setup: learnB,
  mark: ({ vnet }) => vnetdMark.MARK_OVERSIZE | vnet.slot,
  input,
  // the clones have left
  verdict: "drop",
  forwarded: 1,
  check: ({ lab, vnet }) => expect(lab.traffic(vnet).fragmentedOut).toBe(1),
}));

split.push({
  description: "copy_failed: fragments leave by one device, and no fragment fits the other's MTU",
  program: "vnetd_oversize",
  setup: ({ lab }) => lab.underlay({ device: "ul1", mtuBytes: 60 }),
  mark: ({ vnet }) => vnetdMark.MARK_OVERSIZE | vnet.slot,
  input: packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).payload(1500),
  verdict: "drop",
  reasons: ["copy_failed"],
  forwarded: 1,
  flooded: 1,
  check: ({ lab }) => lab.detach("ul1"),
});

const stale: Row[] = (
  [
    ["no mark", toB().arp(), 0],
    ["another mark", toB().arp(), vnetdMark.MARK_SECOND_PASS],
    ["a fragment's mark on what is not IP", toB().arp(), vnetdMark.MARK_FRAGMENT],
    [
      "a fragment that does not exist",
      packet().eth().ipv4({ src: US, dst: PEER }).udp().payload(100),
      vnetdMark.MARK_FRAGMENT | 3,
    ],
    [
      "a device that does not exist",
      packet().eth().ipv4({ src: US, dst: PEER }).udp().payload(2000),
      vnetdMark.MARK_FRAGMENT | (5 << vnetdMark.MARK_FRAGMENT_SHIFT),
    ],
  ] as const
).map(([description, input, mark]) => ({
  description: `stale_pass: on the fragmenting pair, ${description}`,
  program: "vnetd_oversize",
  input,
  mark,
  verdict: "drop",
  reasons: ["stale_pass"],
  reasonsKnowVnet: false,
}));

export const FRAGMENT_ROWS: Row[] = [
  ...firstFragments,
  ...forged,
  ...tooLarge,
  ...answers,
  ...split,
  ...stale,
];
