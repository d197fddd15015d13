// SPDX-License-Identifier: Apache-2.0
/**
 * What goes to the group and comes from it: budgets, probes, and the underlay's own packets in a
 * vnet. Rows for vnetd_encap and vnetd_decap; flood.test.ts has what takes more than a packet.
 */
import { expect } from "vitest";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import { macBytes, mappedBytes, vnetBytes } from "../lib/bytes.js";
import { BROADCAST_MAC, ETHER_TYPE, VNETD_GROUP, packet } from "../lib/packet.js";
import type { PacketBuilder } from "../lib/packet.js";
import { GUEST_A, GUEST_B, PEER, THIRD, US, fromPeer, type Row, type RowContext } from "./rows.js";

export const PROBE_MAC = "03:56:4e:54:50:01";
export const NONCE = 0x1122334455667788n;
export const OTHER_NONCE = 0x99n;
const HOPS_AT = 16;
const HOP_BYTES = 48;
const MAX_HOPS = 4;

/** the bytes of struct vnetd_probe */
export function probeBytes(nonce: bigint, hops = 0): Buffer {
  const out = Buffer.alloc(HOPS_AT + MAX_HOPS * HOP_BYTES);
  out.write("VNTP", 0, "latin1");
  out[4] = 1;
  out[5] = hops;
  out.writeBigUInt64LE(nonce, 8);
  return out;
}

export function probeFrame(nonce: bigint, hops = 0): PacketBuilder {
  return packet()
    .eth({ src: GUEST_B, dst: PROBE_MAC, type: ETHER_TYPE.experimental })
    .payload(probeBytes(nonce, hops));
}

const broadcast = (src = GUEST_A): PacketBuilder => packet().eth({ src, dst: BROADCAST_MAC }).arp();
const known =
  (mac: string, host: string) =>
  ({ lab, vnet }: RowContext): void => {
    lab.control(vnetdControlOp.CTL_LEARN, vnet, { mac: macBytes(mac), addr: mappedBytes(host) });
  };
const live = ({ lab, vnet }: RowContext): void => {
  lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(GUEST_A) });
};
const spend =
  (count: number, program: "vnetd_encap" | "vnetd_decap", frame: PacketBuilder) =>
  (context: RowContext): void => {
    live(context);
    for (let n = 0; n < count; n++) context.lab.run(program, frame.build());
  };
/** all of the budget at once, and hardly any of it back within a test */
const tight = { floodPerSecond: 1, floodBurst: 3 };
const group = (src = PEER): PacketBuilder =>
  fromPeer({ src, dst: VNETD_GROUP }).vudp({ vnet: "4" });

export const FLOOD_ROWS: Row[] = [
  {
    description: "storm: what goes to the group beyond the vnet's budget",
    program: "vnetd_encap",
    vnet: tight,
    setup: spend(3, "vnetd_encap", broadcast()),
    input: broadcast(),
    verdict: "drop",
    reasons: ["storm"],
    events: ({ vnet }) => [{ kind: "storm", handle: vnet.handle, from: 0, to: 0 }],
  },
  {
    description: "within the budget nothing is dropped",
    program: "vnetd_encap",
    vnet: tight,
    setup: spend(2, "vnetd_encap", broadcast()),
    input: broadcast(),
    verdict: "redirect",
    flooded: 1,
  },
  {
    description: "known unicast pays nothing",
    program: "vnetd_encap",
    vnet: tight,
    setup: (context) => {
      spend(3, "vnetd_encap", broadcast())(context);
      known(GUEST_B, PEER)(context);
    },
    input: packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().payload(20),
    verdict: "redirect",
  },
  {
    description: "storm: unknown unicast is flooded, and pays",
    program: "vnetd_encap",
    vnet: tight,
    setup: spend(3, "vnetd_encap", broadcast()),
    input: packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().payload(20),
    verdict: "drop",
    reasons: ["storm"],
    anyEvents: true,
  },
  {
    description: "storm: a super-frame pays for its segments",
    program: "vnetd_encap",
    vnet: { floodPerSecond: 1, floodBurst: 30 },
    setup: spend(10, "vnetd_encap", broadcast()),
    input: packet()
      .eth({ src: GUEST_A, dst: "01:00:5e:01:01:01" })
      .ipv4({ src: "10.0.0.1", dst: "224.1.1.1" })
      .udp()
      .payload(2200),
    gsoSize: 100,
    gsoSegs: 22,
    verdict: "drop",
    reasons: ["storm"],
    anyEvents: true,
  },
  {
    description: "storm: another vnet has a budget of its own",
    program: "vnetd_encap",
    vnet: { ...tight, id: "97" },
    setup: (context) => {
      const other = context.lab.vnet({ ...tight, id: "98" });
      spend(5, "vnetd_encap", broadcast())({ ...context, vnet: other });
      // the devices are the first vnet's again
      context.lab.port(context.vnet);
      live(context);
    },
    input: broadcast(),
    verdict: "redirect",
    flooded: 1,
  },
  {
    description: "storm: a host sends us more group frames than twice the budget",
    program: "vnetd_decap",
    vnet: tight,
    setup: spend(6, "vnetd_decap", group().payload(broadcast(GUEST_B).build())),
    input: group().payload(broadcast(GUEST_B).build()),
    verdict: "drop",
    reasons: ["storm"],
    events: ({ vnet }) => [{ kind: "storm", handle: vnet.handle, to: 1 }],
  },
  {
    description: "one that floods takes nothing from another host",
    program: "vnetd_decap",
    vnet: tight,
    setup: (context) => {
      spend(8, "vnetd_decap", group().payload(broadcast(GUEST_B).build()))(context);
      known("02:00:00:00:00:77", THIRD)(context);
    },
    input: group(THIRD).payload(broadcast("02:00:00:00:00:77").build()),
    verdict: "redirect",
    flooded: 1,
  },
  {
    description: "nor from its own unicast",
    program: "vnetd_decap",
    vnet: tight,
    setup: spend(8, "vnetd_decap", group().payload(broadcast(GUEST_B).build())),
    input: fromPeer()
      .vudp({ vnet: "4" })
      .payload(packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().udp().payload(20).build()),
    verdict: "redirect",
  },
  {
    description: "loop: a probe of this host comes back from the vnetif",
    program: "vnetd_encap",
    vnet: { probeNonce: NONCE },
    input: probeFrame(NONCE, 2),
    verdict: "drop",
    reasons: ["loop"],
    learned: { [GUEST_B]: undefined },
    events: ({ vnet }) => [{ kind: "loop", handle: vnet.handle, direction: 0, hops: 2 }],
  },
  {
    description: "loop: a probe of this host comes back from the underlay, and its sender is named",
    program: "vnetd_decap",
    vnet: { probeNonce: NONCE },
    setup: known(GUEST_B, PEER),
    input: group().payload(probeFrame(NONCE, 1).build()),
    verdict: "drop",
    reasons: ["loop"],
    events: ({ vnet }) => [
      { kind: "loop", handle: vnet.handle, direction: 1, source: PEER, hops: 1 },
    ],
  },
  {
    description: "a probe that is just being sent goes out, teaches nothing, pays nothing",
    program: "vnetd_encap",
    vnet: { ...tight, probeNonce: NONCE },
    setup: spend(3, "vnetd_encap", broadcast()),
    input: probeFrame(NONCE),
    mark: 0x764e5000,
    verdict: "redirect",
    learned: { [GUEST_B]: undefined },
    flooded: 1,
    check: ({ mark }) => expect(mark & 0xf000).not.toBe(0x5000),
  },
  {
    description: "another's probe goes on, whatever the storm",
    program: "vnetd_encap",
    vnet: { ...tight, probeNonce: NONCE },
    setup: (context) => {
      spend(3, "vnetd_encap", broadcast())(context);
      context.lab.control(vnetdControlOp.CTL_LEARN_LOCAL, context.vnet, {
        mac: macBytes(GUEST_B),
      });
    },
    input: probeFrame(OTHER_NONCE, 1),
    verdict: "redirect",
    flooded: 1,
  },
  {
    description: "another's probe that arrives is told from whom, to whom and in which vnet",
    program: "vnetd_decap",
    vnet: { probeNonce: NONCE },
    setup: known(GUEST_B, PEER),
    input: group().payload(probeFrame(OTHER_NONCE, 1).build()),
    verdict: "redirect",
    flooded: 1,
    check: ({ output }) => {
      const probe = output.subarray(14);
      expect(probe[5]).toBe(2);
      const hop = probe.subarray(HOPS_AT + HOP_BYTES, HOPS_AT + 2 * HOP_BYTES);
      expect(hop.toString("hex")).toBe(
        Buffer.concat([vnetBytes("4"), mappedBytes(PEER), mappedBytes(US)]).toString("hex"),
      );
      expect(probe.subarray(HOPS_AT, HOPS_AT + HOP_BYTES).every((byte) => byte === 0)).toBe(true);
    },
  },
  {
    description: "loop: a probe that was through as many hosts as it can name ends",
    program: "vnetd_decap",
    vnet: { probeNonce: NONCE },
    setup: known(GUEST_B, PEER),
    input: group().payload(probeFrame(OTHER_NONCE, MAX_HOPS).build()),
    verdict: "drop",
    reasons: ["loop"],
  },
  {
    description: "a frame of the probes' type that is none is carried as it is",
    program: "vnetd_decap",
    vnet: { probeNonce: NONCE },
    setup: known(GUEST_B, PEER),
    input: group().payload(
      packet().eth({ src: GUEST_B, dst: PROBE_MAC }).payload(Buffer.alloc(50, 7)).build(),
    ),
    verdict: "redirect",
    flooded: 1,
    decapsulated: packet().eth({ src: GUEST_B, dst: PROBE_MAC }).payload(Buffer.alloc(50, 7)),
  },
];
