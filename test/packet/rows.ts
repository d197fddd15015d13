// SPDX-License-Identifier: Apache-2.0
/**
 * The form of the packet tables' rows, and how one is run and judged.
 *
 * A row says what a packet is and everything that may come of it: verdict, bytes, counters, what
 * was learned, events. What a row does not mention must not happen: no drop counted, nothing
 * learned, no event.
 */
import { expect } from "vitest";
import { expectBytes } from "../lib/bytes.js";
import type {
  BpfLab,
  LabEvent,
  LabVnet,
  ProgramName,
  UnderlayOptions,
  Verdict,
  VnetOptions,
} from "../lib/bpf-lab.js";
import { VNETD_GROUP, VNETD_GROUP_MAC, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";

/** the host under test */
export const US = "10.66.1.1";
/** another host on the LAN, and one more */
export const PEER = "10.66.1.9";
export const THIRD = "10.66.1.10";
export const GUEST_A = "aa:00:00:00:04:01";
export const GUEST_B = "aa:00:00:00:04:02";

export interface RowContext {
  lab: BpfLab;
  vnet: LabVnet;
}

export interface Row {
  description: string;
  program: ProgramName;
  vnet?: VnetOptions;
  underlay?: UnderlayOptions;
  /** before the packet: to fill tables, change records */
  setup?: (context: RowContext) => void;
  /** at once before the packet: the event loop, and so the reader of the rings, does not run between */
  justBefore?: (context: RowContext) => void;
  input: Uint8Array | PacketBuilder | ((context: RowContext) => Uint8Array | PacketBuilder);
  gsoSize?: number;
  gsoSegs?: number;
  mark?: number | ((context: RowContext) => number);
  verdict: Verdict;
  /** names of the reasons that are counted once each; [] when absent */
  reasons?: readonly string[];
  /** which way the reasons are counted; default: the program's */
  direction?: "encap" | "decap";
  /** the counted reasons carry the vnet's handle; default true */
  reasonsKnowVnet?: boolean;
  /** the inner frame that comes out of decapsulation */
  decapsulated?: Uint8Array | PacketBuilder;
  /** what comes out of encapsulation */
  encapsulated?: Encapsulated;
  /** MAC -> host's address or "local"; undefined: must not be in the table */
  learned?: Record<string, string | undefined>;
  /** events, in order of the rings' kinds; [] when absent */
  events?: (context: RowContext) => readonly Partial<LabEvent>[];
  /** events are not looked at: the rings or the table are full */
  anyEvents?: boolean;
  /** frames counted as forwarded; default 1 for a redirect */
  forwarded?: number;
  /** of these, as sent to or received from the group; default 0 */
  flooded?: number;
  /** anything else */
  check?: (context: RowContext & { output: Buffer; mark: number }) => void;
}

export interface Encapsulated {
  to: string;
  ttl: number;
  vnet?: string;
  frame: Uint8Array | PacketBuilder;
}

const isInbound = ({ program }: Row): boolean =>
  program === "vnetd_decap" || program === "vnetd_reassembled";
const bytesOf = (given: Uint8Array | PacketBuilder): Uint8Array =>
  given instanceof Uint8Array ? given : given.build();

/** an outer packet from another host, up to and with UDP */
export function fromPeer(
  options: { src?: string; dst?: string; sport?: number; checksum?: number; id?: number } = {},
): PacketBuilder {
  const dst = options.dst ?? US;
  const udp = { src: options.sport ?? 1798, dst: 1798 };
  return packet()
    .eth({
      dst: dst === VNETD_GROUP ? VNETD_GROUP_MAC : "02:00:0a:42:01:01",
      src: "02:00:0a:42:01:09",
    })
    .ipv4({
      src: options.src ?? PEER,
      dst,
      ttl: dst === VNETD_GROUP ? 1 : 64,
      dontFragment: true,
      ...(options.id === undefined ? {} : { id: options.id }),
    })
    .udp(options.checksum === undefined ? udp : { ...udp, checksum: options.checksum });
}

/** an inner frame from a guest on the other host */
export function innerFrame(options: { src?: string; dst?: string } = {}): PacketBuilder {
  return packet()
    .eth({ src: options.src ?? GUEST_B, dst: options.dst ?? GUEST_A })
    .ipv4({ src: "192.168.4.2", dst: "192.168.4.1" })
    .udp({ src: 5000, dst: 5001 })
    .payload(32);
}

export async function runRow(lab: BpfLab, row: Row): Promise<void> {
  lab.underlay(row.underlay);
  const vnet = lab.vnet(row.vnet);
  const context = { lab, vnet };
  row.setup?.(context);
  if (row.anyEvents !== true) await lab.takeEvents();
  const countedBefore = lab.traffic(vnet);
  const input = bytesOf(typeof row.input === "function" ? row.input(context) : row.input);
  const { gsoSize, gsoSegs } = row;
  const mark = typeof row.mark === "function" ? row.mark(context) : row.mark;
  row.justBefore?.(context);
  const run = lab.run(row.program, input, {
    ...(gsoSize === undefined ? {} : { gsoSize }),
    ...(gsoSegs === undefined ? {} : { gsoSegs }),
    ...(mark === undefined ? {} : { mark }),
  });

  // the reasons first: they say most about what went wrong
  const direction = row.direction ?? (isInbound(row) ? "decap" : "encap");
  const handle = (row.reasonsKnowVnet ?? true) ? vnet.handle : 0;
  const expected = (row.reasons ?? []).map((reason) => ({ reason, direction, handle, frames: 1 }));
  expect(run.drops).toEqual(expected);
  expect(run.verdict).toBe(row.verdict);

  if (row.decapsulated !== undefined) {
    expectBytes(run.output, bytesOf(row.decapsulated), { what: "inner frame" });
  }
  if (row.encapsulated !== undefined) expectEncapsulated(run.output, row.encapsulated);
  for (const [mac, host] of Object.entries(row.learned ?? {})) {
    expect(lab.learned(vnet, mac)?.host, `where ${mac} lives`).toBe(host);
  }
  expectTraffic(context, row, countedBefore);
  if (row.anyEvents !== true) {
    // toMatchObject compares lengths of arrays too
    expect(await lab.takeEvents()).toMatchObject(row.events?.(context) ?? []);
  }
  row.check?.({ ...context, output: run.output, mark: run.mark });
}

function expectTraffic(
  { lab, vnet }: RowContext,
  row: Row,
  before: ReturnType<BpfLab["traffic"]>,
): void {
  const after = lab.traffic(vnet);
  const forwarded = row.forwarded ?? (row.verdict === "redirect" ? 1 : 0);
  const isDecap = isInbound(row);
  expect({
    encap: after.encapFrames - before.encapFrames,
    decap: after.decapFrames - before.decapFrames,
    flooded: after.floodedFrames - before.floodedFrames,
  }).toEqual({
    encap: isDecap ? 0 : forwarded,
    decap: isDecap ? forwarded : 0,
    flooded: row.flooded ?? 0,
  });
}

/**
 * An encapsulated packet: right in every field (the strict parser has verified lengths and the
 * IPv4 checksum). Free are only the IPv4 id, the source port within its range, and, before the
 * neighbour is resolved, the outer destination MAC of unicast.
 */
export function expectEncapsulated(output: Buffer, expected: Encapsulated): ParsedFrame {
  const outer = parseFrame(output);
  expect(outer.ipv4).toMatchObject({
    src: US,
    dst: expected.to,
    ttl: expected.ttl,
    tos: 0,
    dontFragment: false,
    moreFragments: false,
    fragmentOffset: 0,
    protocol: 17,
  });
  expect(outer.src).toBe("02:00:0a:42:01:01");
  if (expected.to === VNETD_GROUP) expect(outer.dst).toBe(VNETD_GROUP_MAC);
  expect(outer.udp).toMatchObject({ dst: 1798, checksum: 0 });
  expect(outer.udp!.src).toBeGreaterThanOrEqual(49152);
  expect(outer.padding.length).toBe(0);
  if (outer.message?.kind !== "vudp") throw new Error("not VUDP");
  expect(outer.message.opcode).toBe(0);
  expect(outer.message.version).toEqual([0x00, 0x40]);
  const vnet = `0000:0000:0000:0000:0000:0000:0000:${(expected.vnet ?? "4").padStart(4, "0")}`;
  expect(outer.message.vnet).toBe(vnet);
  expectBytes(outer.message.frame, bytesOf(expected.frame), { what: "inner frame" });
  return outer;
}
