// SPDX-License-Identifier: Apache-2.0
/**
 * The way of a frame through the programs: what one hands to the next, by a device of ours and a mark, is handed on
 * here, until it leaves this host, is delivered, or goes no further.
 */
import type { DryProgram, DryResult } from "../../dataplane/dry-run.js";
import type { Mac } from "../../base/mac.js";
import { vnetdEsp, vnetdMark, type VnetdDryCopy, type VnetdMeta } from "../../generated/layouts.js";
import { neighbourAnswer } from "../../wire/neighbour-frame.js";
import { outerHeaders, tooBigAnswer, type OuterHeaders } from "../../wire/trace-frame.js";

/** What becomes of a packet. */
export type Way =
  /** onto the underlay, or, `relayed`, out of what is for all to a peer or a member that uses no multicast */
  | { kind: "sent"; headers: OuterHeaders; fragments: number; relayed: boolean }
  /** to the ESP interface, for the SA with the host at this next hop */
  | { kind: "sealed"; nexthop: number; bytes: number }
  /** the guest is told that no packet above so many bytes fits */
  | { kind: "answered"; mtuBytes: number }
  /** the guest is told whose the address is that it asks for */
  | { kind: "resolved"; owner: Mac }
  | { kind: "delivered" }
  /** to a direct port; a copy: as to all others */
  | { kind: "port"; ifindex: number; copy: boolean }
  /** not for us: to the host's own stack */
  | { kind: "stack" };

export interface Pass {
  program: DryProgram;
  packet: Buffer;
  /** by which device it comes */
  ifindex: number;
  mark: number;
}

export interface WalkParts {
  run: (pass: Pass) => DryResult;
  meta: VnetdMeta;
  /** the end of the vnetif's pair that programs take frames from */
  vnifPeer: number;
  /** the vnet's direct ports */
  ports: ReadonlySet<number>;
  /** that which the frame's destination is behind */
  portOf: number | undefined;
}

export interface Walked {
  ways: Way[];
  /** in their order */
  programs: DryProgram[];
  /** copies that were only counted, or not followed any more */
  more: number;
}

const tcOk = 0;
const tcRedirect = 7;
/** no frame passes so many; what passes more would go round */
const maxPasses = 16;

export function walk(parts: WalkParts, start: Pass): Walked {
  const walked: Walked = { ways: [], programs: [], more: 0 };
  const waiting = [start];
  for (let pass = waiting.shift(); pass !== undefined; pass = waiting.shift()) {
    if (walked.programs.length >= maxPasses) {
      walked.more += 1;
      continue;
    }
    walked.programs.push(pass.program);
    const result = parts.run(pass);
    const { copies, copyCount } = result;
    walked.more += copyCount - copies.length;
    waiting.push(...copies.flatMap((copy) => passOf(parts, pass, { copy, result })));
    const toPorts = copies.filter(({ ifindex, ingress }) => !ingress && parts.ports.has(ifindex));
    const others = copies.filter((copy) => !toPorts.includes(copy));
    walked.ways.push(
      ...toPorts.map(({ ifindex }): Way => ({ kind: "port", ifindex, copy: true })),
      ...fragmented(others),
      ...others.flatMap(leaves),
      ...fateOf(parts, pass, result),
    );
    if (result.verdict === tcRedirect) waiting.push(...goesOn(parts, result));
  }
  return walked;
}

const kindOf = (mark: number): number => (mark & vnetdMark.MARK_KIND) >>> 0;
const isOtherFamily = (mark: number): boolean =>
  (mark & vnetdMark.MARK_OTHER_FAMILY_KIND) >>> 0 === vnetdMark.MARK_OTHER_FAMILY;

/** To which program a packet with this mark goes next. */
function nextOf(
  { meta, vnifPeer }: WalkParts,
  mark: number,
): Pick<Pass, "program" | "ifindex"> | undefined {
  if (isOtherFamily(mark)) return { program: "vnetd_encap", ifindex: vnifPeer };
  switch (kindOf(mark)) {
    case vnetdMark.MARK_OVERSIZE:
    case vnetdMark.MARK_SECURE_LARGE:
      return { program: "vnetd_oversize", ifindex: meta.oversizeIn };
    case vnetdMark.MARK_SECOND_PASS:
    case vnetdMark.MARK_SECURE_PASS:
    case vnetdMark.MARK_PIECE:
    case vnetdMark.MARK_SECURE_WHOLE:
      return { program: "vnetd_encap", ifindex: vnifPeer };
    case vnetdMark.MARK_RELAY:
      return { program: "vnetd_relay", ifindex: meta.relayIn };
    default:
      return undefined;
  }
}

function goesOn(parts: WalkParts, { mark, packet }: DryResult): Pass[] {
  const next = nextOf(parts, mark);
  return next === undefined ? [] : [{ ...next, packet, mark }];
}

/** A copy that another program takes. It is as the packet that it was made of, before or after the run. */
function passOf(
  parts: WalkParts,
  pass: Pass,
  { copy, result }: { copy: VnetdDryCopy; result: DryResult },
): Pass[] {
  const { mark } = copy;
  const next = nextOf(parts, mark);
  if (next === undefined) return [];
  if (isOtherFamily(mark)) return [{ ...next, mark, packet: pass.packet }];
  const whole = [result.packet, pass.packet].find(({ length }) => length === copy.len);
  const packet = whole === undefined ? Buffer.alloc(copy.len) : Buffer.from(whole);
  packet.set(copy.head.subarray(0, copy.len), 0);
  return [{ ...next, mark, packet }];
}

/** A copy that leaves. */
function leaves({ mark, head }: VnetdDryCopy): Way[] {
  if (mark === vnetdMark.MARK_ESP) return sealed(Buffer.from(head));
  const relayed = kindOf(mark) === vnetdMark.MARK_RELAY_OUT;
  return mark === vnetdMark.MARK_NONE || relayed ? sent(Buffer.from(head), { relayed }) : [];
}

/** One way for all the fragments of a packet. */
function fragmented(copies: readonly VnetdDryCopy[]): Way[] {
  const pieces = copies.filter(({ mark }) => kindOf(mark) === vnetdMark.MARK_FRAGMENT);
  const first = pieces.filter(({ mark }) => (mark & 0x3f) === 0);
  return first.flatMap((piece) => {
    const place = (mark: number): number => (mark >>> vnetdMark.MARK_FRAGMENT_SHIFT) & 7;
    const own = pieces.filter(({ mark }) => place(mark) === place(piece.mark));
    return sent(Buffer.from(piece.head), { fragments: own.length });
  });
}

function sent(packet: Buffer, { fragments = 1, relayed = false } = {}): Way[] {
  const headers = outerHeaders(packet);
  return headers === undefined ? [] : [{ kind: "sent", headers, fragments, relayed }];
}

function sealed(packet: Buffer): Way[] {
  const isIpv4 = packet.readUInt16BE(12) === 0x0800;
  const nexthop = isIpv4 ? packet.readUInt32BE(30) - vnetdEsp.ESP_REMOTE4 : packet.readUInt32BE(50);
  return [{ kind: "sealed", nexthop, bytes: outerHeaders(packet)?.bytes ?? 0 }];
}

function fateOf({ portOf }: WalkParts, pass: Pass, { verdict, mark, packet }: DryResult): Way[] {
  const { program } = pass;
  const isReceived = program === "vnetd_decap" || program === "vnetd_esp";
  if (verdict === tcOk) return isReceived ? [{ kind: "stack" }] : [];
  if (verdict !== tcRedirect) return [];
  if (mark === vnetdMark.MARK_ESP) return sealed(packet);
  if (mark !== vnetdMark.MARK_NONE) return [];
  const owner = program === "vnetd_encap" ? neighbourAnswer(packet, pass.packet) : undefined;
  if (owner !== undefined) return [{ kind: "resolved", owner }];
  const isAsItWas = program === "vnetd_encap" && packet.equals(pass.packet);
  if (portOf !== undefined && (isReceived || isAsItWas))
    return [{ kind: "port", ifindex: portOf, copy: false }];
  if (isReceived) return [{ kind: "delivered" }];
  const mtuBytes = tooBigAnswer(packet);
  if (program === "vnetd_oversize" && mtuBytes !== undefined)
    return [{ kind: "answered", mtuBytes }];
  return sent(packet);
}
