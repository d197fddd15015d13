// SPDX-License-Identifier: Apache-2.0
/**
 * VFWD as this host's daemon sends it: a message of its own for the group, to a peer that multicast
 * does not reach. What comes in is taken apart by bpf/relay.bpf.c.
 *
 * Wire: include/vnetd/wire.h, docs/wire-format.md. The source inside is 0, "the address that this
 * came from", since the peer may see another one than we; the checksums are 0, as the original's.
 */
import { familyOf, type Family } from "../base/address.js";
import {
  VnetdVfwdHdr,
  VnetdVfwdIpv6Hdr,
  vnetdMsg,
  vnetdWire,
  writeVnetdVfwdHdr,
  writeVnetdVfwdIpv6Hdr,
} from "../generated/layouts.js";
import { vfwdOverheadBytes } from "./overhead.js";

const ipv4HeaderBytes = 20;
const ipv6HeaderBytes = 40;
const udpHeaderBytes = 8;
const protocolUdp = 17;

export interface VfwdTarget {
  /** 16 bytes, in the maps' form */
  group: Uint8Array;
  port: number;
}

export function encodeVfwd(message: Buffer, { group, port }: VfwdTarget): Buffer {
  const family = familyOf(group);
  const datagramBytes = udpHeaderBytes + message.length;
  const payloadBytes = udpHeaderBytes + vfwdOverheadBytes(family) + message.length;
  if (payloadBytes + (family === 4 ? ipv4HeaderBytes : 0) > 0xffff) {
    throw new RangeError(`a message of ${String(message.length)} bytes does not fit into VFWD`);
  }
  const udp = Buffer.alloc(udpHeaderBytes);
  udp.writeUInt16BE(port, 0);
  udp.writeUInt16BE(port, 2);
  udp.writeUInt16BE(datagramBytes, 4);
  return Buffer.concat([headerOf(family, group, udp), message]);
}

function headerOf(family: Family, group: Uint8Array, innerUdp: Buffer): Buffer {
  const msg = { id: vnetdMsg.MSG_VFWD, opcode: 0 };
  const datagramBytes = innerUdp.readUInt16BE(4);
  if (family === 4) {
    const header = Buffer.alloc(VnetdVfwdHdr.size);
    writeVnetdVfwdHdr(header, { msg, innerIp: ipv4Header(group, datagramBytes), innerUdp });
    return header;
  }
  const header = Buffer.alloc(VnetdVfwdIpv6Hdr.size);
  writeVnetdVfwdIpv6Hdr(header, { msg, innerIp: ipv6Header(group, datagramBytes), innerUdp });
  return header;
}

function ipv4Header(group: Uint8Array, payloadBytes: number): Buffer {
  const ip = Buffer.alloc(ipv4HeaderBytes);
  ip[0] = 0x45;
  ip.writeUInt16BE(ipv4HeaderBytes + payloadBytes, 2);
  ip[8] = vnetdWire.TTL_UNICAST;
  ip[9] = protocolUdp;
  ip.set(group.subarray(12), 16);
  return ip;
}

function ipv6Header(group: Uint8Array, payloadBytes: number): Buffer {
  const ip = Buffer.alloc(ipv6HeaderBytes);
  ip[0] = 0x60;
  ip.writeUInt16BE(payloadBytes, 4);
  ip[6] = protocolUdp;
  ip[7] = vnetdWire.TTL_UNICAST;
  ip.set(group, 24);
  return ip;
}
