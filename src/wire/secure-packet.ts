// SPDX-License-Identifier: Apache-2.0
/**
 * A message of the daemon's that goes by an SA: the packet as it is given to the xfrm interface, between the addresses
 * that name the SA (include/vnetd/maps.h, enum vnetd_esp). Pure.
 */
import type { Family } from "../base/address.js";
import { vnetdEsp } from "../generated/layouts.js";

export interface SecurePacket {
  family: Family;
  /** ifindex of the underlay device */
  device: number;
  nexthop: number;
  port: number;
}

const ethernetBytes = 14;
const udpBytes = 8;
const ipv4Bytes = 20;
const ipv6Bytes = 40;
const udpProtocol = 17;
const hops = 64;

/** Ethernet, IP, UDP without a checksum, and the message. */
export function securePacket(to: SecurePacket, message: Uint8Array): Buffer {
  const headers = to.family === 4 ? ipv4Header(to, message) : ipv6Header(to, message);
  const ethernet = Buffer.alloc(ethernetBytes);
  ethernet.writeUInt16BE(to.family === 4 ? 0x0800 : 0x86dd, 12);
  const udp = Buffer.alloc(udpBytes);
  udp.writeUInt16BE(to.port, 0);
  udp.writeUInt16BE(to.port, 2);
  udp.writeUInt16BE(udpBytes + message.length, 4);
  return Buffer.concat([ethernet, headers, udp, message]);
}

function ipv4Header({ nexthop }: SecurePacket, message: Uint8Array): Buffer {
  const ip = Buffer.alloc(ipv4Bytes);
  ip.writeUInt8(0x45, 0);
  ip.writeUInt16BE(ipv4Bytes + udpBytes + message.length, 2);
  ip.writeUInt8(hops, 8);
  ip.writeUInt8(udpProtocol, 9);
  ip.writeUInt32BE(vnetdEsp.ESP_LOCAL4, 12);
  ip.writeUInt32BE(vnetdEsp.ESP_REMOTE4 + nexthop, 16);
  ip.writeUInt16BE(checksum(ip), 10);
  return ip;
}

function ipv6Header({ device, nexthop }: SecurePacket, message: Uint8Array): Buffer {
  const ip = Buffer.alloc(ipv6Bytes);
  ip.writeUInt8(0x60, 0);
  ip.writeUInt16BE(udpBytes + message.length, 4);
  ip.writeUInt8(udpProtocol, 6);
  ip.writeUInt8(hops, 7);
  for (const [at, last] of [
    [8, 0],
    [24, nexthop],
  ] as const) {
    ip.writeUInt32BE(vnetdEsp.ESP_PREFIX6, at);
    ip.writeUInt32BE(device, at + 8);
    ip.writeUInt32BE(last, at + 12);
  }
  return ip;
}

/** RFC 1071 */
function checksum(header: Buffer): number {
  let sum = 0;
  for (let at = 0; at < header.length; at += 2) sum += header.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
