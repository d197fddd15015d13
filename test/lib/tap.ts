// SPDX-License-Identifier: Apache-2.0
/**
 * test/lib/tap.py for TypeScript: VMs' taps on the bridges of the lab's hosts, frames as a virtio-net
 * driver gives them to its device, and what arrived as such a driver takes it.
 */
import { fileURLToPath } from "node:url";
import { internetChecksum } from "./bytes.js";
import { DEBIAN_PYTHON, run, timeFactor } from "./processes.js";
import { parseFrame, type ParsedFrame } from "./packet-parse.js";
import { VIRTIO_GSO, type WireFrame } from "./wire.js";

const PROGRAM = fileURLToPath(new URL("./tap.py", import.meta.url));

/** what a Linux guest's driver takes as a rule */
export const ALL_OFFLOADS = ["csum", "tso4", "tso6", "ecn", "uso4", "uso6"] as const;
export type Offload = (typeof ALL_OFFLOADS)[number];

export interface TapSpec {
  /** name of a network namespace of the lab */
  netns: string;
  /** left out: the tap is an interface of its own */
  bridge?: string;
  device?: string;
  offload?: readonly Offload[];
  mtuBytes?: number;
}

export interface TapFrame extends WireFrame {
  /** which of the taps sends it */
  tap: number;
  /** nothing more is sent until a frame has come at another tap */
  awaited?: boolean;
}

export interface Received {
  bytes: Buffer;
  needsChecksum: boolean;
  gsoType: number;
  gsoSize: number;
  headerLength: number;
  checksumStart: number;
  checksumOffset: number;
}

export interface TapRun {
  taps: readonly TapSpec[];
  frames: readonly TapFrame[];
  /** devices whose received packets are wanted */
  watch?: readonly { netns: string; device: string }[];
  /** how long nothing must come before it is over */
  quietMs?: number;
}

export interface TapResult {
  taps: { offload: Offload[]; frames: Received[] }[];
  watched: Buffer[][];
}

export async function runTaps({
  taps,
  frames,
  watch = [],
  quietMs = 150,
}: TapRun): Promise<TapResult> {
  const path = (netns: string): string => `/run/netns/${netns}`;
  const request = {
    taps: taps.map(({ offload = ALL_OFFLOADS, device = "tap0", ...tap }) => ({
      ...tap,
      netns: path(tap.netns),
      device,
      offload,
    })),
    watch: watch.map(({ netns, device }) => ({ netns: path(netns), device })),
    quietMs: quietMs * timeFactor,
    frames: frames.map(({ bytes, ...header }) => ({
      ...header,
      hex: Buffer.from(bytes).toString("hex"),
    })),
  };
  const { stdout } = await run([DEBIAN_PYTHON, PROGRAM], { input: JSON.stringify(request) });
  const answer = JSON.parse(stdout) as {
    taps: { offload: Offload[]; frames: (Omit<Received, "bytes"> & { hex: string })[] }[];
    watched: string[][];
  };
  return {
    taps: answer.taps.map((tap) => ({
      offload: tap.offload,
      frames: tap.frames.map(({ hex, ...header }) => ({
        ...header,
        bytes: Buffer.from(hex, "hex"),
      })),
    })),
    watched: answer.watched.map((packets) => packets.map((text) => Buffer.from(text, "hex"))),
  };
}

// ---- frames as a driver gives them to its device ----------------------------------------------

interface Transport {
  isIpv6: boolean;
  isTcp: boolean;
  /** of the IP header, and of the transport's */
  network: number;
  transport: number;
  /** in front of the payload */
  headers: number;
  checksumOffset: number;
}

/** Where the headers of a TCP or UDP frame begin. Throws for others. */
export function transportOf(bytes: Buffer): Transport {
  let network = 14;
  while ([0x8100, 0x88a8].includes(bytes.readUInt16BE(network - 2))) network += 4;
  const isIpv6 = bytes.readUInt16BE(network - 2) === 0x86dd;
  const transport = network + (isIpv6 ? 40 : (bytes[network]! & 0xf) * 4);
  const protocol = isIpv6 ? bytes[network + 6] : bytes[network + 9];
  if (protocol !== 6 && protocol !== 17) throw new Error(`IP protocol ${String(protocol)}`);
  const isTcp = protocol === 6;
  const headers = transport + (isTcp ? (bytes[transport + 12]! >> 4) * 4 : 8);
  return { isIpv6, isTcp, network, transport, headers, checksumOffset: isTcp ? 16 : 6 };
}

/** The sum of the pseudo-header, not complemented: what a checksum field holds that is to be completed. */
function pseudoSum(bytes: Buffer, of: Transport): number {
  const addresses = of.isIpv6
    ? bytes.subarray(of.network + 8, of.network + 40)
    : bytes.subarray(of.network + 12, of.network + 20);
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(bytes.length - of.transport, 0);
  tail[7] = of.isTcp ? 6 : 17;
  return ~internetChecksum(addresses, tail) & 0xffff;
}

/** The frame with its checksum left to the device, and cut by it if a size is given. */
export function offloaded(frame: Buffer, gsoSize?: number): WireFrame {
  const of = transportOf(frame);
  const bytes = Buffer.from(frame);
  bytes.writeUInt16BE(pseudoSum(bytes, of), of.transport + of.checksumOffset);
  const gsoType = of.isTcp ? (of.isIpv6 ? VIRTIO_GSO.tcp6 : VIRTIO_GSO.tcp4) : VIRTIO_GSO.udpL4;
  return {
    bytes,
    checksumStart: of.transport,
    checksumOffset: of.checksumOffset,
    headerLength: of.headers,
    ...(gsoSize === undefined ? {} : { gsoType, gsoSize }),
  };
}

// ---- what arrived, as a driver takes it --------------------------------------------------------

export interface Taken {
  frame: ParsedFrame;
  /** payload bytes of its segments; 0: it is single */
  gsoSize: number;
}

/**
 * Completes a checksum that was left to the receiver, as its stack does, which holds only if the sum
 * of the pseudo-header is there; then every length and checksum must be right.
 */
export function taken(received: Received): Taken {
  const bytes = Buffer.from(received.bytes);
  if (received.needsChecksum) {
    const of = transportOf(bytes);
    const at = received.checksumStart + received.checksumOffset;
    if (received.checksumStart !== of.transport || received.checksumOffset !== of.checksumOffset)
      throw new Error(`the checksum is said to be at ${at}`);
    if (bytes.readUInt16BE(at) !== pseudoSum(bytes, of))
      throw new Error(`the sum at ${at} is not the pseudo-header's`);
    const sum = internetChecksum(bytes.subarray(of.transport));
    bytes.writeUInt16BE(sum === 0 && !of.isTcp ? 0xffff : sum, at);
  }
  return { frame: parseFrame(bytes), gsoSize: received.gsoSize };
}

/** TCP: the payload of a flow put together by sequence numbers, which must leave no hole. */
export function stream(frames: readonly ParsedFrame[]): Buffer {
  const parts = [...frames].sort((x, y) => x.tcp!.sequence - y.tcp!.sequence);
  let next = parts[0]?.tcp?.sequence ?? 0;
  for (const { tcp, payload } of parts) {
    if (tcp!.sequence !== next) throw new Error(`hole: ${next} to ${tcp!.sequence}`);
    next += payload.length;
  }
  return Buffer.concat(parts.map(({ payload }) => payload));
}

/** UDP: the datagrams that a driver hands to its stack, super-frames cut again. */
export function datagrams(taken: readonly Taken[]): Buffer[] {
  return taken.flatMap(({ frame: { payload }, gsoSize }) => {
    if (gsoSize === 0) return [payload];
    const parts: Buffer[] = [];
    for (let at = 0; at < payload.length; at += gsoSize)
      parts.push(payload.subarray(at, at + gsoSize));
    return parts;
  });
}
