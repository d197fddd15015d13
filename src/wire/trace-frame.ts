// SPDX-License-Identifier: Apache-2.0
/**
 * The frames that `vnetd trace` asks the programs about, the packets that bring one from another host, and what is
 * read of the packets that the programs make. Pure.
 *
 * What is inside a frame does not matter but for its lengths and DF: zeros behind addresses of documentation
 * (RFC 5737, RFC 3849).
 */
import { addressToText, familyOf, isMappedIpv4, type Family } from "../base/address.js";
import { macToBytes, type Mac } from "../base/mac.js";
import { vnetdMsg, vnetdWire } from "../generated/layouts.js";

export const frameTypes = { ipv4: 0x0800, ipv6: 0x86dd, arp: 0x0806 } as const;
export const ethernetBytes = 14;

const ipv4Bytes = 20;
const ipv6Bytes = 40;
const udpBytes = 8;
const udp = 17;
const messageBytes = 4;
const dontFragmentFlag = 0x4000;

export interface FrameSpec {
  destination: Mac;
  source: Mac;
  etherType: number;
  /** of the whole frame */
  bytes: number;
  /** of IPv4 */
  dontFragment: boolean;
}

export function traceFrame({
  destination,
  source,
  etherType,
  bytes,
  dontFragment,
}: FrameSpec): Buffer {
  const frame = Buffer.alloc(bytes);
  frame.set(macToBytes(destination), 0);
  frame.set(macToBytes(source), 6);
  frame.writeUInt16BE(etherType, 12);
  const packet = frame.subarray(ethernetBytes);
  if (etherType === frameTypes.ipv4 && packet.length >= ipv4Bytes + udpBytes) {
    const flags = dontFragment ? dontFragmentFlag : 0;
    ipv4Header([192, 0, 2, 1], [192, 0, 2, 2], { total: packet.length, flags }).copy(packet);
    packet.writeUInt16BE(packet.length - ipv4Bytes, ipv4Bytes + 4);
  }
  if (etherType === frameTypes.ipv6 && packet.length >= ipv6Bytes + udpBytes) {
    const doc = (last: number): Buffer =>
      Buffer.from(`20010db8${"00".repeat(11)}0${String(last)}`, "hex");
    ipv6Header(doc(1), doc(2), packet.length - ipv6Bytes).copy(packet);
    packet.writeUInt16BE(packet.length - ipv6Bytes, ipv6Bytes + 4);
  }
  return frame;
}

export interface ArrivalSpec {
  /** in the maps' form; both of one family */
  from: Uint8Array;
  to: Uint8Array;
  port: number;
  vnet: Uint8Array;
}

/** A frame as it comes from another host: Ethernet, IP, UDP and VUDP in front. */
export function arrival({ from, to, port, vnet }: ArrivalSpec, frame: Buffer): Buffer {
  const message = Buffer.alloc(vnetdWire.VUDP_HDR_LEN);
  message.writeUInt16BE(vnetdMsg.MSG_VUDP, 0);
  message.writeUInt16BE(vnetdWire.ETHERIP_VERSION, messageBytes);
  message.set(vnet, messageBytes + 2);
  const datagramBytes = udpBytes + message.length + frame.length;
  const datagram = Buffer.alloc(udpBytes);
  datagram.writeUInt16BE(vnetdWire.SPORT_BASE, 0);
  datagram.writeUInt16BE(port, 2);
  datagram.writeUInt16BE(datagramBytes, 4);
  const isIpv4 = isMappedIpv4(to);
  const ethernet = Buffer.alloc(ethernetBytes);
  ethernet.writeUInt16BE(isIpv4 ? frameTypes.ipv4 : frameTypes.ipv6, 12);
  const total = ipv4Bytes + datagramBytes;
  const ip = isIpv4
    ? ipv4Header(from.subarray(12), to.subarray(12), { total, flags: 0 })
    : ipv6Header(from, to, datagramBytes);
  return Buffer.concat([ethernet, ip, datagram, message, frame]);
}

/** The outer headers of a packet. */
export interface OuterHeaders {
  family: Family;
  source: string;
  destination: string;
  etherip: boolean;
  /** null: EtherIP has none */
  sourcePort: number | null;
  port: number | null;
  ttl: number;
  dontFragment: boolean;
  /** of the IP packet */
  bytes: number;
  /** undefined: it is no message of vnet */
  message: "vudp" | "vfwd" | "varp" | undefined;
}

/** undefined: it is no IP packet, or not so much of it is there. */
export function outerHeaders(packet: Buffer): OuterHeaders | undefined {
  if (packet.length < ethernetBytes + ipv4Bytes) return undefined;
  const type = packet.readUInt16BE(12);
  if (type === frameTypes.ipv4) {
    const mapped = (at: number): Buffer =>
      Buffer.concat([Buffer.alloc(10), Buffer.of(255, 255), packet.subarray(at, at + 4)]);
    return {
      ...addresses(mapped(26), mapped(30)),
      ...behind(packet, packet.readUInt8(23), ethernetBytes + ipv4Bytes),
      ttl: packet.readUInt8(22),
      dontFragment: (packet.readUInt16BE(20) & dontFragmentFlag) !== 0,
      bytes: packet.readUInt16BE(16),
    };
  }
  if (type !== frameTypes.ipv6 || packet.length < ethernetBytes + ipv6Bytes) return undefined;
  return {
    ...addresses(packet.subarray(22, 38), packet.subarray(38, 54)),
    ...behind(packet, packet.readUInt8(20), ethernetBytes + ipv6Bytes),
    ttl: packet.readUInt8(21),
    dontFragment: true,
    bytes: packet.readUInt16BE(18) + ipv6Bytes,
  };
}

function addresses(
  source: Uint8Array,
  destination: Uint8Array,
): Pick<OuterHeaders, "family" | "source" | "destination"> {
  return {
    family: familyOf(destination),
    source: addressToText(source),
    destination: addressToText(destination),
  };
}

function behind(
  packet: Buffer,
  protocol: number,
  at: number,
): Pick<OuterHeaders, "etherip" | "sourcePort" | "port" | "message"> {
  const etherip = protocol === vnetdWire.ETHERIP_PROTOCOL;
  if (protocol !== udp || packet.length < at + udpBytes + 2)
    return { etherip, sourcePort: null, port: null, message: etherip ? "vudp" : undefined };
  const { MSG_VUDP, MSG_VFWD, MSG_VARP } = vnetdMsg;
  const names = new Map<number, OuterHeaders["message"]>([
    [MSG_VUDP, "vudp"],
    [MSG_VFWD, "vfwd"],
    [MSG_VARP, "varp"],
  ]);
  return {
    etherip,
    sourcePort: packet.readUInt16BE(at),
    port: packet.readUInt16BE(at + 2),
    message: names.get(packet.readUInt16BE(at + udpBytes)),
  };
}

/** Whether it tells a guest that its packet was too big, and what fits: an ICMP or ICMPv6 answer in a frame. */
export function tooBigAnswer(frame: Buffer): number | undefined {
  if (frame.length < ethernetBytes + ipv6Bytes + 8) return undefined;
  const type = frame.readUInt16BE(12);
  if (type === frameTypes.ipv4) {
    const at = ethernetBytes + ipv4Bytes;
    const isIt = frame.readUInt8(23) === 1 && frame.readUInt16BE(at) === 0x0304;
    return isIt ? frame.readUInt16BE(at + 6) : undefined;
  }
  const at = ethernetBytes + ipv6Bytes;
  const isIt =
    type === frameTypes.ipv6 && frame.readUInt8(20) === 58 && frame.readUInt16BE(at) === 0x0200;
  return isIt ? frame.readUInt32BE(at + 4) : undefined;
}

function ipv4Header(
  from: Iterable<number>,
  to: Iterable<number>,
  { total, flags }: { total: number; flags: number },
): Buffer {
  const ip = Buffer.alloc(ipv4Bytes);
  ip.writeUInt8(0x45, 0);
  ip.writeUInt16BE(total, 2);
  ip.writeUInt16BE(flags, 6);
  ip.writeUInt8(vnetdWire.TTL_UNICAST, 8);
  ip.writeUInt8(udp, 9);
  ip.set([...from], 12);
  ip.set([...to], 16);
  let sum = 0;
  for (let at = 0; at < ipv4Bytes; at += 2) sum += ip.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  ip.writeUInt16BE(~sum & 0xffff, 10);
  return ip;
}

function ipv6Header(from: Uint8Array, to: Uint8Array, payloadBytes: number): Buffer {
  const ip = Buffer.alloc(ipv6Bytes);
  ip.writeUInt8(0x60, 0);
  ip.writeUInt16BE(payloadBytes, 4);
  ip.writeUInt8(udp, 6);
  ip.writeUInt8(vnetdWire.TTL_UNICAST, 7);
  ip.set(from, 8);
  ip.set(to, 24);
  return ip;
}
