// SPDX-License-Identifier: Apache-2.0
/**
 * Reads and writes classic pcap files (both byte orders, micro- and nanoseconds) and puts IPv4
 * fragments together. Strict: a file that ends inside a record throws.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { internetChecksum } from "./bytes.js";
import { ETHER_TYPE } from "./packet.js";

export const LINK_TYPE_ETHERNET = 1;

export interface CapturedPacket {
  timeNs: bigint;
  /** bytes on the wire; more than data.length when the capture cut it */
  wireLength: number;
  data: Buffer;
}

export interface PcapFormat {
  byteOrder?: "little" | "big";
  resolution?: "us" | "ns";
  linkType?: number;
}

export interface Pcap {
  linkType: number;
  packets: CapturedPacket[];
}

const MAGIC = { us: 0xa1b2c3d4, ns: 0xa1b23c4d } as const;

export function decodePcap(file: Uint8Array): Pcap {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  if (bytes.length < 24) throw new Error("pcap: no file header");
  const known = Object.values(MAGIC) as number[];
  const little = known.includes(bytes.readUInt32LE(0));
  if (!little && !known.includes(bytes.readUInt32BE(0))) throw new Error("pcap: bad magic");
  const u32 = (at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const fractionNs = u32(0) === MAGIC.ns ? 1n : 1000n;
  const packets: CapturedPacket[] = [];
  for (let at = 24; at < bytes.length;) {
    if (at + 16 > bytes.length) throw new Error(`pcap: record header cut at ${at}`);
    const length = u32(at + 8);
    if (at + 16 + length > bytes.length) throw new Error(`pcap: record cut at ${at}`);
    packets.push({
      timeNs: BigInt(u32(at)) * 1_000_000_000n + BigInt(u32(at + 4)) * fractionNs,
      wireLength: u32(at + 12),
      data: Buffer.from(bytes.subarray(at + 16, at + 16 + length)),
    });
    at += 16 + length;
  }
  return { linkType: u32(20), packets };
}

export function encodePcap(packets: readonly CapturedPacket[], format: PcapFormat = {}): Buffer {
  const { byteOrder = "little", resolution = "us", linkType = LINK_TYPE_ETHERNET } = format;
  const u32s = (...values: number[]): Buffer => {
    const out = Buffer.alloc(4 * values.length);
    values.forEach((v, i) =>
      byteOrder === "little" ? out.writeUInt32LE(v, 4 * i) : out.writeUInt32BE(v, 4 * i),
    );
    return out;
  };
  const version = byteOrder === "little" ? (4 << 16) | 2 : (2 << 16) | 4;
  const parts = [u32s(MAGIC[resolution], version, 0, 0, 262144, linkType)];
  const unit = resolution === "ns" ? 1n : 1000n;
  for (const { timeNs, wireLength, data } of packets) {
    const fraction = Number((timeNs % 1_000_000_000n) / unit);
    parts.push(u32s(Number(timeNs / 1_000_000_000n), fraction, data.length, wireLength), data);
  }
  return Buffer.concat(parts);
}

export function readPcap(path: string): Pcap {
  return decodePcap(readFileSync(path));
}

export function writePcap(
  path: string,
  packets: readonly CapturedPacket[],
  format?: PcapFormat,
): void {
  writeFileSync(path, encodePcap(packets, format));
}

interface Reassembly {
  first?: Buffer;
  parts: Map<number, Buffer>;
  totalLength?: number;
}

/**
 * Replaces the fragments of each IPv4 datagram by the whole datagram, at the place of the fragment
 * that completed it. Datagrams that never become whole, and overlaps, throw.
 */
export function reassembleIpv4(packets: readonly CapturedPacket[]): CapturedPacket[] {
  const pending = new Map<string, Reassembly>();
  const out: CapturedPacket[] = [];
  for (const captured of packets) {
    const { data } = captured;
    const isIpv4 = data.length >= 34 && data.readUInt16BE(12) === ETHER_TYPE.ipv4;
    const flags = isIpv4 ? data.readUInt16BE(20) : 0;
    if (!isIpv4 || (flags & 0x3fff) === 0) {
      out.push(captured);
      continue;
    }
    // RFC 791: source, destination, protocol and id say which datagram it is
    const parts = [data.subarray(26, 34), data.subarray(18, 20), data.subarray(23, 24)];
    const key = Buffer.concat(parts).toString("hex");
    const entry: Reassembly = pending.get(key) ?? { parts: new Map() };
    pending.set(key, entry);
    const whole = addFragment(entry, data);
    if (whole !== undefined) {
      pending.delete(key);
      out.push({ timeNs: captured.timeNs, wireLength: whole.length, data: whole });
    }
  }
  if (pending.size > 0) throw new Error(`${pending.size} IPv4 datagrams never became whole`);
  return out;
}

function addFragment(entry: Reassembly, data: Buffer): Buffer | undefined {
  const headerLength = (data[14]! & 0x0f) * 4;
  const flags = data.readUInt16BE(20);
  const offset = (flags & 0x1fff) * 8;
  const body = data.subarray(14 + headerLength, 14 + data.readUInt16BE(16));
  if (entry.parts.has(offset)) throw new Error(`IPv4 fragment at ${offset} came twice`);
  entry.parts.set(offset, body);
  if (offset === 0) entry.first = data.subarray(0, 14 + headerLength);
  if ((flags & 0x2000) === 0) entry.totalLength = offset + body.length;
  if (entry.first === undefined || entry.totalLength === undefined) return undefined;
  let at = 0;
  const ordered: Buffer[] = [];
  for (let part = entry.parts.get(at); part !== undefined; part = entry.parts.get(at)) {
    ordered.push(part);
    at += part.length;
    if (at >= entry.totalLength || part.length === 0) break;
  }
  if (at < entry.totalLength) return undefined;
  const header = Buffer.from(entry.first);
  header.writeUInt16BE(header.length - 14 + at, 16);
  header.writeUInt16BE(0, 20);
  header.writeUInt16BE(0, 24);
  header.writeUInt16BE(internetChecksum(header.subarray(14)), 24);
  return Buffer.concat([header, ...ordered]);
}
