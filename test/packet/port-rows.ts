// SPDX-License-Identifier: Apache-2.0
/** From a direct port: rows for vnetd_port. Guest A is behind dp0, guest B on another host, others as a row says. */
import { expect } from "vitest";
import { vnetdControlOp, vnetdFdbFlags, vnetdMark } from "../../src/generated/layouts.js";
import { expectBytes, macBytes, mappedBytes } from "../lib/bytes.js";
import type { LabEvent } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { ENCAP_KINDS } from "./encap-rows.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  US,
  expectEncapsulated,
  type Row,
  type RowContext,
} from "./rows.js";

export const GUEST_C = "aa:00:00:00:04:03";
const PIECE = vnetdMark.MARK_PIECE;

export const from = (dst: string): PacketBuilder => packet().eth({ src: GUEST_A, dst });
export const udp = (dst: string, bytes = 32): PacketBuilder =>
  from(dst).ipv4().udp({ src: 5000, dst: 5001 }).payload(bytes);

export function enterB({ lab, vnet }: RowContext): void {
  const say = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
  const { result } = lab.control(vnetdControlOp.CTL_LEARN, vnet, say);
  if (result !== 0) throw new Error(`CTL_LEARN: ${result}`);
}

/** behind a port, or (0) the vnetif */
export function enterLocal({ lab, vnet }: RowContext, mac: string, gen: number, flags = 0): void {
  const request = { mac: macBytes(mac), gen, fdbFlags: flags };
  const { result } = lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, request);
  if (result !== 0) throw new Error(`CTL_LEARN_LOCAL: ${result}`);
}

export const both = ({ lab, vnet }: RowContext): void => lab.directPorts(vnet, ["dp0", "dp1"]);
const withB = (context: RowContext): void => {
  both(context);
  enterB(context);
};
const localNew = ({ vnet }: RowContext): Partial<LabEvent>[] => [
  { kind: "local-new", handle: vnet.handle, mac: GUEST_A },
];
const learnedAtPort = ({ lab, vnet }: RowContext): void =>
  expect(lab.learned(vnet, GUEST_A)).toMatchObject({ host: "local", port: lab.ifindex("dp0") });
const common = {
  program: "vnetd_port",
  learned: { [GUEST_A]: "local" },
  events: localNew,
} as const;

/** what vnetd_encap makes of what it was handed */
function handedOver(context: RowContext & { input: Buffer; output: Buffer; mark: number }): Buffer {
  const { lab, vnet, input, output, mark } = context;
  expect(mark).toBe(PIECE);
  expectBytes(output, input, { what: "the frame as it was" });
  learnedAtPort(context);
  const run = lab.run("vnetd_encap", output, { mark });
  expect(run).toMatchObject({ verdict: "redirect", drops: [] });
  // learned where it came from, and nowhere else
  learnedAtPort(context);
  expect(lab.traffic(vnet).encapFrames).toBe(1);
  return run.output;
}

const remote: Row[] = Object.entries(ENCAP_KINDS).map(([kind, { frame, secondPass }]): Row => {
  const row = { ...common, setup: withB, input: frame, verdict: "redirect" } as const;
  const description = `${kind} to a host that is known`;
  const encapsulated = { to: PEER, ttl: 64, frame };
  if (!secondPass) return { ...row, description, encapsulated, check: learnedAtPort };
  return {
    ...row,
    description: `${description}: by vnetd_encap`,
    forwarded: 0,
    check: (context) => {
      expectEncapsulated(handedOver(context), encapsulated, context.lab.form);
    },
  };
});

const asItWas = (context: RowContext & { input: Buffer; output: Buffer; mark: number }): void => {
  expect(context.mark).toBe(0);
  expectBytes(context.output, context.input, { what: "the frame as it was" });
};

/** within this host: not counted as forwarded to others */
const local = { ...common, verdict: "redirect", forwarded: 0, check: asItWas } as const;

export const PORT_ROWS: readonly Row[] = [
  ...remote,
  {
    ...common,
    description: "a frame that is too large goes to vnetd_encap",
    setup: withB,
    input: udp(GUEST_B, 1460),
    verdict: "redirect",
    forwarded: 0,
    check: ({ mark }) => {
      expect(mark).toBe(PIECE);
    },
  },
  {
    ...local,
    description: "to a MAC behind another port",
    setup: (context) => {
      both(context);
      enterLocal(context, GUEST_C, context.lab.ifindex("dp1"));
    },
    input: udp(GUEST_C),
    events: (context) => [{ kind: "local-new", mac: GUEST_A, handle: context.vnet.handle }],
  },
  {
    ...local,
    description: "to a MAC behind the vnetif",
    setup: (context) => {
      both(context);
      enterLocal(context, GUEST_C, 0);
    },
    input: from(GUEST_C).arp(),
  },
  {
    ...common,
    description: "hairpin: to a MAC behind the same port",
    setup: (context) => {
      both(context);
      enterLocal(context, GUEST_C, context.lab.ifindex("dp0"));
    },
    input: udp(GUEST_C),
    verdict: "drop",
    reasons: ["hairpin"],
  },
  {
    ...common,
    description: "to a MAC behind a port that is gone: to all",
    setup: (context) => {
      both(context);
      enterLocal(context, GUEST_C, 4711);
    },
    input: udp(GUEST_C),
    verdict: "redirect",
    forwarded: 0,
    check: ({ mark }) => {
      expect(mark).toBe(PIECE);
    },
  },
  ...["aa:00:00:00:04:77", BROADCAST_MAC, "01:00:5e:00:00:01"].map((dst): Row => ({
    ...common,
    description: `to ${dst}: to all`,
    setup: both,
    input: udp(dst),
    verdict: "redirect",
    forwarded: 0,
    check: (context) => {
      const outer = handedOver(context);
      const encapsulated = { to: VNETD_GROUP, ttl: 1, frame: udp(dst) };
      expectEncapsulated(outer, encapsulated, context.lab.form);
    },
  })),
  {
    ...common,
    description: "storm: to all, above the vnet's budget",
    vnet: { floodPerSecond: 1, floodBurst: 1 },
    setup: (context) => {
      both(context);
      const { lab } = context;
      expect(lab.run("vnetd_port", udp(BROADCAST_MAC).build()).verdict).toBe("redirect");
    },
    input: udp(BROADCAST_MAC),
    verdict: "drop",
    reasons: ["storm"],
    anyEvents: true,
  },
  {
    ...common,
    description: "carries_itself: a packet of vnet hosts, for all",
    forms: ["udp4"],
    setup: both,
    input: from(BROADCAST_MAC).ipv4({ src: US, dst: VNETD_GROUP }).udp({ dst: 1798 }).payload(30),
    verdict: "drop",
    reasons: ["carries_itself"],
  },
  {
    ...common,
    description: "refused_group_mac: from a group's MAC",
    setup: withB,
    input: packet().eth({ src: "03:00:00:00:00:01", dst: GUEST_B }).ipv4().udp().payload(8),
    verdict: "redirect",
    reasons: ["refused_group_mac"],
    learned: {},
    events: () => [],
  },
  {
    ...common,
    description: "refused_static: from a MAC that is configured to be elsewhere",
    setup: (context) => {
      withB(context);
      const { lab, vnet } = context;
      const fdbFlags = vnetdFdbFlags.FDB_STATIC | vnetdFdbFlags.FDB_PINNED;
      const say = { mac: macBytes(GUEST_A), addr: mappedBytes(PEER), fdbFlags };
      lab.control(vnetdControlOp.CTL_LEARN, vnet, say);
    },
    input: udp(GUEST_B),
    verdict: "redirect",
    reasons: ["refused_static"],
    learned: { [GUEST_A]: PEER },
    events: () => [],
  },
  {
    ...common,
    description:
      "refused_static: from a MAC that is configured to be here, and heard at another port",
    setup: (context) => {
      withB(context);
      const { FDB_STATIC, FDB_PINNED } = vnetdFdbFlags;
      enterLocal(context, GUEST_A, context.lab.ifindex("dp1"), FDB_STATIC | FDB_PINNED);
    },
    input: udp(GUEST_B),
    verdict: "redirect",
    reasons: ["refused_static"],
    events: () => [],
    check: ({ lab, vnet }) => {
      expect(lab.learned(vnet, GUEST_A)?.port).toBe(lab.ifindex("dp1"));
    },
  },
  {
    ...common,
    description: "vnet_down: the port's vnet is not up",
    setup: ({ lab, vnet }) => {
      lab.setVnet(vnet, { up: false });
      lab.directPorts(vnet, ["dp0"]);
    },
    input: udp(GUEST_B),
    verdict: "drop",
    reasons: ["vnet_down"],
    learned: { [GUEST_A]: undefined },
    events: () => [],
  },
  {
    ...common,
    description: "vnet_down: a device that is no port",
    setup: ({ lab, vnet }) => {
      lab.directPorts(vnet, ["dp1"]);
    },
    input: udp(GUEST_B),
    verdict: "drop",
    reasons: ["vnet_down"],
    reasonsKnowVnet: false,
    learned: { [GUEST_A]: undefined },
    events: () => [],
  },
  ...[vnetdMark.MARK_SECOND_PASS, vnetdMark.MARK_PIECE, vnetdMark.MARK_PROBE].map((mark): Row => ({
    ...common,
    description: `a guest's mark 0x${mark.toString(16)} means nothing`,
    setup: withB,
    mark,
    input: udp(GUEST_B),
    verdict: "redirect",
    encapsulated: { to: PEER, ttl: 64, frame: udp(GUEST_B) },
    check: learnedAtPort,
  })),
];
