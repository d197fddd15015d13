// SPDX-License-Identifier: Apache-2.0
/**
 * The form of the packet tables' rows, and how one is run and judged.
 *
 * A row says what a packet is and everything that may come of it: verdict, bytes, counters, what
 * was learned, events. What a row does not mention must not happen: no drop counted, nothing
 * learned, no event.
 */
import { expect } from "vitest";
import { expectBytes, ipv6Bytes, macText } from "../lib/bytes.js";
import { REASSEMBLY_SECRET } from "../lib/bpf-lab.js";
import type {
  BpfLab,
  LabEvent,
  LabVnet,
  ProgramName,
  UnderlayOptions,
  Verdict,
  VnetOptions,
} from "../lib/bpf-lab.js";
import { isEtherip, isIpv6, packetIn, textIn, ETHERIP, type Form } from "../lib/forms.js";
import {
  ETHER_TYPE,
  VNETD_GROUP,
  VNETD_GROUP_MAC,
  packet,
  type PacketBuilder,
} from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";

/** the host under test */
export const US = "10.66.1.1";
/** another host on the LAN, and one more */
export const PEER = "10.66.1.9";
export const THIRD = "10.66.1.10";
/** in place of the MAC of a frame that XDP hands over (struct vnetd_xdp_meta) */
export const XDP_MARK = `76:6e:${macText(REASSEMBLY_SECRET.subarray(0, 6)).slice(0, 11)}`;
export const GUEST_A = "aa:00:00:00:04:01";
export const GUEST_B = "aa:00:00:00:04:02";

export interface RowContext {
  lab: BpfLab;
  vnet: LabVnet;
}

export interface Row {
  description: string;
  program: ProgramName;
  /** the only forms in which it makes sense; default all, but where the input has no such form */
  forms?: readonly Form[];
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
  check?: (context: RowContext & { input: Buffer; output: Buffer; mark: number }) => void;
}

export interface Encapsulated {
  to: string;
  ttl: number;
  vnet?: string;
  frame: Uint8Array | PacketBuilder;
}

const isInbound = ({ program }: Row): boolean =>
  program === "vnetd_decap" || program === "vnetd_reassembled" || program === "vnetd_esp";
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

/** the kernel leaves as much as an IP header behind the Ethernet header, of the outer family unless it is IPv4's */
export function paddedFor(form: Form, frame: Buffer): Buffer {
  const isIpv4 = frame.readUInt16BE(12) === ETHER_TYPE.ipv4;
  const shortest = 14 + (isIpv6(form) && !isIpv4 ? 40 : 20);
  return Buffer.concat([frame, Buffer.alloc(Math.max(0, shortest - frame.length))]);
}

/** the rows that a lab of that form can be given */
export function rowsFor(form: Form, rows: readonly Row[]): readonly Row[] {
  return rows.filter((row) => {
    if (row.forms !== undefined) return row.forms.includes(form);
    return typeof row.input === "function" || packetIn(form, Buffer.from(bytesOf(row.input)));
  });
}

export async function runRow(lab: BpfLab, row: Row): Promise<void> {
  lab.underlay(row.underlay);
  const vnet = lab.vnet(row.vnet);
  const context = { lab, vnet };
  row.setup?.(context);
  if (row.anyEvents !== true) await lab.takeEvents();
  const countedBefore = lab.traffic(vnet);
  const given = bytesOf(typeof row.input === "function" ? row.input(context) : row.input);
  const input = packetIn(lab.form, Buffer.from(given)) ?? Buffer.from(given);
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
    const frame = Buffer.from(bytesOf(row.decapsulated));
    expectBytes(run.output, paddedFor(lab.form, frame), { what: "inner frame" });
  }
  if (row.encapsulated !== undefined) {
    // an inner frame that looks like an outer packet was in the lab's form when it was sent
    const frame = Buffer.from(bytesOf(row.encapsulated.frame));
    const expected = { ...row.encapsulated, frame: packetIn(lab.form, frame) ?? frame };
    expectEncapsulated(run.output, expected, lab.form);
  }
  for (const [mac, host] of Object.entries(row.learned ?? {})) {
    expect(lab.learned(vnet, mac)?.host, `where ${mac} lives`).toBe(host);
  }
  expectTraffic(context, row, countedBefore);
  if (row.anyEvents !== true) {
    // toMatchObject compares lengths of arrays too
    expect(await lab.takeEvents()).toMatchObject(row.events?.(context) ?? []);
  }
  row.check?.({ ...context, input, output: run.output, mark: run.mark });
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
export function expectEncapsulated(
  output: Buffer,
  expected: Encapsulated,
  form: Form = "udp4",
): ParsedFrame {
  const outer = parseFrame(output);
  const protocol = isEtherip(form) ? ETHERIP : 17;
  const ends = { src: textIn(form, US), dst: textIn(form, expected.to) };
  if (isIpv6(form)) {
    expect(outer.ipv6).toMatchObject({ ...ends, hopLimit: expected.ttl, nextHeader: protocol });
  } else {
    expect(outer.ipv4).toMatchObject({
      ...ends,
      ttl: expected.ttl,
      tos: 0,
      dontFragment: isEtherip(form),
      moreFragments: false,
      fragmentOffset: 0,
      protocol,
    });
  }
  expect(outer.src).toBe("02:00:0a:42:01:01");
  if (expected.to === VNETD_GROUP) expect(outer.dst).toBe(groupMac(form));
  if (isEtherip(form)) {
    expect(outer.padding.length).toBe(0);
    expectEtherip(outer.payload, expected);
    return outer;
  }
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

export function groupMac(form: Form): string {
  if (!isIpv6(form)) return VNETD_GROUP_MAC;
  return `33:33:${macText(ipv6Bytes(textIn(form, VNETD_GROUP)).subarray(12))}`;
}

/** version, vnet id, frame */
function expectEtherip(payload: Buffer, expected: Encapsulated): void {
  const vnet = Buffer.alloc(18);
  vnet[1] = 0x40;
  vnet.writeUInt16BE(parseInt(expected.vnet ?? "4", 16), 16);
  expectBytes(payload.subarray(0, 18), vnet, { what: "EtherIP header" });
  expectBytes(payload.subarray(18), bytesOf(expected.frame), { what: "inner frame" });
}
