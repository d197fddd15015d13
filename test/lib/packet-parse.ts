// SPDX-License-Identifier: Apache-2.0
/**
 * A strict packet parser for tests: what it returns is right in every length, type and checksum;
 * anything else throws a PacketError that names the offset. Independent of src/wire.
 *
 * Outer packets end in `message` when they go to UDP port 1798; an inner frame is left as bytes,
 * for parseFrame again.
 */
import { checksumHolds, hexdump, ipv4Text, ipv6Text, macText, vnetText } from "./bytes.js";
import { ETHER_TYPE, IP_PROTOCOL, VNETD_PORT } from "./packet.js";

export class PacketError extends Error {
  readonly offset: number;

  constructor(what: string, offset: number, bytes: Uint8Array) {
    super(`offset ${offset}: ${what}\n${hexdump(bytes)}`);
    this.name = "PacketError";
    this.offset = offset;
  }
}

export interface ParsedVlan {
  tpid: number;
  id: number;
  priority: number;
}
export interface ParsedArp {
  operation: number;
  senderMac: string;
  senderIp: string;
  targetMac: string;
  targetIp: string;
}
export interface ParsedIpv4 {
  src: string;
  dst: string;
  ttl: number;
  tos: number;
  id: number;
  dontFragment: boolean;
  moreFragments: boolean;
  fragmentOffset: number;
  protocol: number;
  options: Buffer;
}
export interface ParsedIpv6 {
  src: string;
  dst: string;
  hopLimit: number;
  nextHeader: number;
}
export interface ParsedUdp {
  src: number;
  dst: number;
  checksum: number;
}
export interface ParsedTcp {
  src: number;
  dst: number;
  sequence: number;
  flags: number;
}
export interface ParsedIcmpEcho {
  reply: boolean;
  id: number;
  sequence: number;
}
export interface ParsedTlv {
  type: number;
  value: Buffer;
}
export type ParsedMessage =
  | { kind: "vudp"; opcode: number; version: [number, number]; vnet: string; frame: Buffer }
  | {
      kind: "varp";
      operation: number;
      vnet: string;
      vmac: string;
      family: number;
      address: Buffer;
      trailing: Buffer;
    }
  | { kind: "vfwd"; opcode: number; innerIp: Buffer; innerUdp: Buffer; inner: Buffer };

export interface ParsedFrame {
  dst: string;
  src: string;
  vlans: ParsedVlan[];
  /** EtherType, or the length of an LLC frame */
  type: number;
  arp?: ParsedArp;
  ipv4?: ParsedIpv4;
  ipv6?: ParsedIpv6;
  udp?: ParsedUdp;
  tcp?: ParsedTcp;
  icmpEcho?: ParsedIcmpEcho;
  message?: ParsedMessage;
  /** of the innermost layer that was understood */
  payload: Buffer;
  /** Ethernet padding behind an IP packet */
  padding: Buffer;
}

export interface ParseOptions {
  /** "skip" for captures of a sender with checksum offload */
  transportChecksums?: "verify" | "skip";
  /** "skip": leave what goes to port 1798 as payload, for packets whose message is malformed */
  messages?: "parse" | "skip";
}

/** A position in the bytes, so that each error can say where. */
class Cursor {
  readonly bytes: Buffer;
  offset: number;
  end: number;

  constructor(bytes: Uint8Array, offset = 0) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.offset = offset;
    this.end = bytes.byteLength;
  }

  fail(what: string, offset = this.offset): never {
    throw new PacketError(what, offset, this.bytes);
  }

  take(length: number, what: string): Buffer {
    if (this.offset + length > this.end) {
      this.fail(`${what} wants ${length} bytes, ${this.end - this.offset} are left`);
    }
    const part = this.bytes.subarray(this.offset, this.offset + length);
    this.offset += length;
    return part;
  }

  rest(): Buffer {
    return this.bytes.subarray(this.offset, this.end);
  }
}

export function parseFrame(bytes: Uint8Array, options: ParseOptions = {}): ParsedFrame {
  const cursor = new Cursor(bytes);
  const header = cursor.take(14, "Ethernet header");
  const frame: ParsedFrame = {
    dst: macText(header.subarray(0, 6)),
    src: macText(header.subarray(6, 12)),
    vlans: [],
    type: header.readUInt16BE(12),
    payload: Buffer.alloc(0),
    padding: Buffer.alloc(0),
  };
  while (frame.type === ETHER_TYPE.vlan || frame.type === ETHER_TYPE.qinq) {
    const tag = cursor.take(4, "VLAN tag");
    const control = tag.readUInt16BE(0);
    frame.vlans.push({ tpid: frame.type, id: control & 0xfff, priority: control >> 13 });
    frame.type = tag.readUInt16BE(2);
  }
  if (frame.type < 0x600) {
    if (cursor.offset + frame.type > cursor.end) cursor.fail("802.3 length is beyond the frame");
  } else if (frame.type === ETHER_TYPE.arp) {
    frame.arp = parseArp(cursor);
  } else if (frame.type === ETHER_TYPE.ipv4) {
    parseIpv4(cursor, frame, options);
  } else if (frame.type === ETHER_TYPE.ipv6) {
    parseIpv6(cursor, frame, options);
  }
  frame.payload = Buffer.from(cursor.rest());
  return frame;
}

function parseArp(cursor: Cursor): ParsedArp {
  const arp = cursor.take(28, "ARP");
  if (arp.readUInt16BE(0) !== 1 || arp.readUInt16BE(2) !== ETHER_TYPE.ipv4) {
    cursor.fail("ARP is not for IPv4 over Ethernet");
  }
  return {
    operation: arp.readUInt16BE(6),
    senderMac: macText(arp.subarray(8, 14)),
    senderIp: ipv4Text(arp.subarray(14, 18)),
    targetMac: macText(arp.subarray(18, 24)),
    targetIp: ipv4Text(arp.subarray(24, 28)),
  };
}

function parseIpv4(cursor: Cursor, frame: ParsedFrame, options: ParseOptions): void {
  const start = cursor.offset;
  const fixed = cursor.take(20, "IPv4 header");
  const headerLength = (fixed[0]! & 0x0f) * 4;
  if (fixed[0]! >> 4 !== 4) cursor.fail("IPv4 version is not 4", start);
  if (headerLength < 20) cursor.fail("IPv4 header length below 20", start);
  const extra = cursor.take(headerLength - 20, "IPv4 options");
  const header = cursor.bytes.subarray(start, start + headerLength);
  if (!checksumHolds(header)) cursor.fail("IPv4 header checksum", start + 10);
  const totalLength = fixed.readUInt16BE(2);
  if (totalLength < headerLength || start + totalLength > cursor.end) {
    cursor.fail(`IPv4 total length ${totalLength}`, start + 2);
  }
  frame.padding = Buffer.from(cursor.bytes.subarray(start + totalLength, cursor.end));
  cursor.end = start + totalLength;
  const flags = fixed.readUInt16BE(6);
  if (flags & 0x8000) cursor.fail("IPv4 reserved flag is set", start + 6);
  frame.ipv4 = {
    src: ipv4Text(fixed.subarray(12, 16)),
    dst: ipv4Text(fixed.subarray(16, 20)),
    ttl: fixed[8]!,
    tos: fixed[1]!,
    id: fixed.readUInt16BE(4),
    dontFragment: (flags & 0x4000) !== 0,
    moreFragments: (flags & 0x2000) !== 0,
    fragmentOffset: (flags & 0x1fff) * 8,
    protocol: fixed[9]!,
    options: Buffer.from(extra),
  };
  if (frame.ipv4.moreFragments || frame.ipv4.fragmentOffset > 0) return;
  const length = cursor.end - cursor.offset;
  const pseudo = Buffer.concat([
    fixed.subarray(12, 20),
    Buffer.from([0, fixed[9]!, length >> 8, length & 0xff]),
  ]);
  parseTransport(cursor, frame, { protocol: fixed[9]!, pseudo, ...options });
}

function parseIpv6(cursor: Cursor, frame: ParsedFrame, options: ParseOptions): void {
  const start = cursor.offset;
  const header = cursor.take(40, "IPv6 header");
  if (header[0]! >> 4 !== 6) cursor.fail("IPv6 version is not 6", start);
  const length = header.readUInt16BE(4);
  if (cursor.offset + length > cursor.end) cursor.fail(`IPv6 payload length ${length}`, start + 4);
  frame.padding = Buffer.from(cursor.bytes.subarray(cursor.offset + length, cursor.end));
  cursor.end = cursor.offset + length;
  frame.ipv6 = {
    src: ipv6Text(header.subarray(8, 24)),
    dst: ipv6Text(header.subarray(24, 40)),
    hopLimit: header[7]!,
    nextHeader: header[6]!,
  };
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(length, 0);
  tail[7] = header[6]!;
  const pseudo = Buffer.concat([header.subarray(8, 40), tail]);
  parseTransport(cursor, frame, { protocol: header[6]!, pseudo, ...options });
}

function parseTransport(
  cursor: Cursor,
  frame: ParsedFrame,
  context: ParseOptions & { protocol: number; pseudo: Buffer },
): void {
  const start = cursor.offset;
  const segment = cursor.rest();
  const verify = (what: string, ...parts: Buffer[]): void => {
    if (context.transportChecksums !== "skip" && !checksumHolds(...parts)) {
      cursor.fail(`${what} checksum`, start);
    }
  };
  if (context.protocol === IP_PROTOCOL.udp) {
    const header = cursor.take(8, "UDP header");
    const length = header.readUInt16BE(4);
    if (length !== segment.length) cursor.fail(`UDP length ${length}, IP has ${segment.length}`);
    frame.udp = {
      src: header.readUInt16BE(0),
      dst: header.readUInt16BE(2),
      checksum: header.readUInt16BE(6),
    };
    if (frame.udp.checksum !== 0) verify("UDP", context.pseudo, segment);
    const isMessage = frame.udp.dst === VNETD_PORT && context.messages !== "skip";
    if (isMessage) frame.message = parseMessageAt(cursor);
  } else if (context.protocol === IP_PROTOCOL.tcp) {
    const header = cursor.take(20, "TCP header");
    verify("TCP", context.pseudo, segment);
    frame.tcp = {
      src: header.readUInt16BE(0),
      dst: header.readUInt16BE(2),
      sequence: header.readUInt32BE(4),
      flags: header[13]!,
    };
    const optionBytes = (header[12]! >> 4) * 4 - 20;
    if (optionBytes < 0) cursor.fail("TCP data offset below 5", start + 12);
    cursor.take(optionBytes, "TCP options");
  } else if (context.protocol === IP_PROTOCOL.icmp || context.protocol === IP_PROTOCOL.icmp6) {
    const isV6 = context.protocol === IP_PROTOCOL.icmp6;
    const types: readonly number[] = isV6 ? [128, 129] : [8, 0];
    verify("ICMP", ...(isV6 ? [context.pseudo] : []), segment);
    if (!types.includes(segment[0] ?? -1)) return;
    const header = cursor.take(8, "ICMP echo");
    frame.icmpEcho = {
      reply: header[0] === types[1],
      id: header.readUInt16BE(4),
      sequence: header.readUInt16BE(6),
    };
  }
}

/** the payload of a UDP datagram to port 1798 */
export function parseMessage(bytes: Uint8Array): ParsedMessage {
  return parseMessageAt(new Cursor(bytes));
}

function parseMessageAt(cursor: Cursor): ParsedMessage {
  const start = cursor.offset;
  const head = cursor.take(4, "message header");
  const id = head.readUInt16BE(0);
  const opcode = head.readUInt16BE(2);
  if (id === 2) {
    const header = cursor.take(18, "VUDP header");
    const frame = Buffer.from(cursor.rest());
    if (frame.length < 14) cursor.fail(`inner frame has ${frame.length} bytes`);
    const version: [number, number] = [header[0]!, header[1]!];
    return { kind: "vudp", opcode, version, vnet: vnetText(header.subarray(2)), frame };
  }
  if (id === 1) {
    if (opcode !== 1 && opcode !== 2) cursor.fail(`VARP opcode ${opcode}`, start + 2);
    const body = cursor.take(39, "VARP");
    return {
      kind: "varp",
      operation: opcode,
      vnet: vnetText(body.subarray(0, 16)),
      vmac: macText(body.subarray(16, 22)),
      family: body[22]!,
      address: Buffer.from(body.subarray(23)),
      trailing: Buffer.from(cursor.rest()),
    };
  }
  if (id === 3) {
    // an original that relays leaves the version 0
    const isIpv6 = (cursor.bytes[cursor.offset] ?? 0) >> 4 === 6;
    const innerIp = Buffer.from(cursor.take(isIpv6 ? 40 : 20, "VFWD inner IP header"));
    const innerUdp = Buffer.from(cursor.take(8, "VFWD inner UDP header"));
    return { kind: "vfwd", opcode, innerIp, innerUdp, inner: Buffer.from(cursor.rest()) };
  }
  return cursor.fail(`message id ${id}`, start);
}

/** the TLVs of a hello extension; undefined when there is none that version 1 understands */
export function parseExtension(trailing: Uint8Array): ParsedTlv[] | undefined {
  const cursor = new Cursor(trailing);
  if (trailing.length < 8) return undefined;
  const header = cursor.take(8, "extension header");
  if (header.readUInt32BE(0) !== 0x564e5444 || header[4] !== 1) return undefined;
  cursor.end = cursor.offset;
  const length = header.readUInt16BE(6);
  if (8 + length > trailing.length) cursor.fail(`extension length ${length}`, 6);
  cursor.end = 8 + length;
  const tlvs: ParsedTlv[] = [];
  while (cursor.offset < cursor.end) {
    const head = cursor.take(4, "TLV header");
    const value = cursor.take(head.readUInt16BE(2), "TLV value");
    tlvs.push({ type: head.readUInt16BE(0), value: Buffer.from(value) });
  }
  return tlvs;
}
