// SPDX-License-Identifier: Apache-2.0
/**
 * The forms of what stands in front of a frame: UDP or EtherIP, over IPv4 or IPv6.
 *
 * The packet tables are written for UDP over IPv4, and a lab of another form (BpfLab.open({ form }))
 * reads them in that form: every address stands for one of the other family, outer packets are
 * rewritten, and the underlay's MTU is larger by what the headers are longer, so that the same frames
 * fit to the byte.
 */
import { internetChecksum, ipv4Bytes, ipv4Text, ipv6Bytes, mappedBytes } from "./bytes.js";
import type { ParsedFrame } from "./packet-parse.js";
import { VNETD_PORT } from "./packet.js";

export const FORMS = ["udp4", "udp6", "etherip4", "etherip6"] as const;
export type Form = (typeof FORMS)[number];

/** from the outer IP header on up to the inner frame */
export const OVERHEAD: Record<Form, number> = { udp4: 50, udp6: 70, etherip4: 38, etherip6: 58 };
export const ETHERIP = 97;
const UDP = 17;
const MAPPED = mappedBytes("0.0.0.0").subarray(0, 12);

export const isIpv6 = (form: Form): boolean => form.endsWith("6");
export const isEtherip = (form: Form): boolean => form.startsWith("etherip");

/** 16 bytes of an address of either family */
export function addressBytes(text: string): Buffer {
  return text.includes(":") ? ipv6Bytes(text) : mappedBytes(text);
}

/** a.b.c.d is fd66::aabb:ccdd, and a group ff12::aabb:ccdd */
export function ipv6For(ipv4: Buffer): Buffer {
  const prefix = ipv6Bytes(ipv4[0]! >> 4 === 14 ? "ff12::" : "fd66::");
  return Buffer.concat([prefix.subarray(0, 12), ipv4]);
}

/** 16 bytes of the maps' form, of IPv4, in another form */
export function addressIn(form: Form, bytes: Uint8Array): Buffer {
  const address = Buffer.from(bytes);
  const isMapped = address.subarray(0, 12).equals(MAPPED);
  return isIpv6(form) && isMapped ? ipv6For(address.subarray(12)) : address;
}

/** As the tables have it: the IPv4 address that these 16 bytes stand for. */
export function addressText(bytes: Uint8Array): string {
  const address = Buffer.from(bytes);
  const known = [MAPPED, ipv6Bytes("fd66::"), ipv6Bytes("ff12::")].some((prefix) =>
    address.subarray(0, 12).equals(prefix.subarray(0, 12)),
  );
  return known ? ipv4Text(address.subarray(12)) : address.toString("hex");
}

/** between the hosts of a lab, and not between guests */
function isOuter(packet: Buffer): boolean {
  if (packet.length < 34 || packet.readUInt16BE(12) !== 0x0800) return false;
  const ends = [packet.subarray(26, 30), packet.subarray(30, 34)];
  return ends.some((address) => address.readUInt16BE(0) === 0x0a42);
}

/**
 * An outer packet in another form; inner frames stay as they are. undefined: it has none, because its
 * IPv4 header is what matters in it, or its UDP header where there is none.
 */
export function packetIn(form: Form, packet: Buffer): Buffer | undefined {
  if (form === "udp4" || !isOuter(packet)) return packet;
  if (packet[14] !== 0x45 || (packet.readUInt16BE(20) & 0x3fff) !== 0) return undefined;
  if (internetChecksum(packet.subarray(14, 34)) !== 0) return undefined;
  let protocol = packet[23]!;
  let rest = packet.subarray(34);
  let length = packet.readUInt16BE(16) - 20;
  if (isEtherip(form)) {
    const isVudp =
      protocol === UDP &&
      rest.length >= 12 &&
      rest.readUInt16BE(2) === VNETD_PORT &&
      rest.readUInt16BE(4) === length &&
      rest.readUInt16BE(8) === 2;
    if (!isVudp) return undefined;
    protocol = ETHERIP;
    rest = rest.subarray(12);
    length -= 12;
  }
  if (isIpv6(form) && protocol === UDP) {
    const forwarded = vfwdIn(rest);
    length += forwarded.length - rest.length;
    rest = forwarded;
  }
  const header = isIpv6(form)
    ? ipv6Header(packet, { protocol, length })
    : ipv4Header(packet, { protocol, length });
  return Buffer.concat([packet.subarray(0, 12), header, rest]);
}

interface Header {
  protocol: number;
  length: number;
}

function ipv6Header(packet: Buffer, { protocol, length }: Header): Buffer {
  const out = Buffer.alloc(42);
  out.writeUInt16BE(0x86dd, 0);
  out[2] = 0x60;
  out.writeUInt16BE(length, 6);
  out[8] = protocol;
  out[9] = packet[22]!;
  ipv6For(packet.subarray(26, 30)).copy(out, 10);
  ipv6For(packet.subarray(30, 34)).copy(out, 26);
  return out;
}

function ipv4Header(packet: Buffer, { protocol, length }: Header): Buffer {
  const out = Buffer.from(packet.subarray(12, 34));
  out.writeUInt16BE(length + 20, 4);
  out[11] = protocol;
  out.writeUInt16BE(0, 12);
  out.writeUInt16BE(internetChecksum(out.subarray(2)), 12);
  return out;
}

/** What VFWD forwards was a group packet of the same family: its inner header is rewritten as well. */
function vfwdIn(datagram: Buffer): Buffer {
  const isVfwd =
    datagram.length >= 8 + 32 && datagram.readUInt16BE(2) === VNETD_PORT && datagram[9] === 3;
  if (!isVfwd) return datagram;
  const header = datagram.subarray(12, 32);
  const ip = Buffer.alloc(40);
  ip[0] = 0x60;
  header.copy(ip, 2, 4, 6);
  ip.writeUInt16BE(Math.max(0, header.readUInt16BE(2) - 20), 4);
  ip[6] = header[9]!;
  ip[7] = header[8]!;
  const source = header.subarray(12, 16);
  if (source.some((byte) => byte !== 0)) ipv6For(source).copy(ip, 8);
  ipv6For(header.subarray(16)).copy(ip, 24);
  const out = Buffer.concat([datagram.subarray(0, 12), ip, datagram.subarray(32)]);
  out.writeUInt16BE(datagram.readUInt16BE(4) + 20, 4);
  return out;
}

/** Source and destination of an outer packet as the tables have them, and its TTL or hop limit. */
export function endsOf({ ipv4, ipv6 }: ParsedFrame): { src: string; dst: string; ttl: number } {
  if (ipv4 !== undefined) return { src: ipv4.src, dst: ipv4.dst, ttl: ipv4.ttl };
  if (ipv6 === undefined) throw new Error("not IP");
  const { src, dst, hopLimit: ttl } = ipv6;
  return { src: addressText(ipv6Bytes(src)), dst: addressText(ipv6Bytes(dst)), ttl };
}

/** text of the table's IPv4 address, in the form */
export function textIn(form: Form, ipv4: string): string {
  return isIpv6(form) ? ipv6For(ipv4Bytes(ipv4)).toString("hex").match(/..../g)!.join(":") : ipv4;
}

const FRAGMENT_HEADER = 44;

/** Cuts an Ethernet/IPv6 packet into fragments of at most mtuBytes (RFC 8200 section 4.5). */
export function fragmentIpv6(frame: Uint8Array, mtuBytes: number, id = 0x12345678): Buffer[] {
  const bytes = Buffer.from(frame);
  const payload = bytes.subarray(54);
  const size = (mtuBytes - 48) & ~7;
  return Array.from({ length: Math.ceil(payload.length / size) }, (_, index) => {
    const part = payload.subarray(index * size, (index + 1) * size);
    const isLast = (index + 1) * size >= payload.length;
    const head = Buffer.alloc(62);
    bytes.copy(head, 0, 0, 54);
    head.writeUInt16BE(8 + part.length, 18);
    head[20] = FRAGMENT_HEADER;
    head[54] = bytes[20]!;
    head.writeUInt16BE(index * size + (isLast ? 0 : 1), 56);
    head.writeUInt32BE(id, 58);
    return Buffer.concat([head, part]);
  });
}

/** The packet whose fragments these are, all of them and in any order. Throws for any other. */
export function reassembleIpv6(fragments: readonly Buffer[]): Buffer {
  const sorted = [...fragments].sort((a, b) => a.readUInt16BE(56) - b.readUInt16BE(56));
  const [first] = sorted;
  if (first === undefined) throw new Error("no fragments");
  let next = 0;
  const parts = sorted.map((fragment, index) => {
    if (fragment[20] !== FRAGMENT_HEADER) throw new Error("not a fragment");
    if (!fragment.subarray(58, 62).equals(first.subarray(58, 62))) throw new Error("another id");
    const offset = fragment.readUInt16BE(56);
    const isLast = index === sorted.length - 1;
    if ((offset & 0xfff8) !== next || (offset & 1) !== (isLast ? 0 : 1)) {
      throw new Error(`fragment ${index} has offset ${offset}, expected ${next}`);
    }
    const part = fragment.subarray(62, 54 + fragment.readUInt16BE(18));
    next += part.length;
    return part;
  });
  const head = Buffer.from(first.subarray(0, 54));
  head[20] = first[54]!;
  head.writeUInt16BE(next, 18);
  return Buffer.concat([head, ...parts]);
}
