// SPDX-License-Identifier: Apache-2.0
/**
 * VFWD as this host's daemon sends it: a message of its own for the group, to a peer that multicast
 * does not reach. What comes in is taken apart by bpf/relay.bpf.c.
 *
 * Wire: include/vnetd/wire.h, docs/wire-format.md. The source inside is 0, "the address that this
 * came from", since the peer may see another one than we; the checksums are 0, as the original's.
 */
import { VnetdVfwdHdr, vnetdMsg, vnetdWire, writeVnetdVfwdHdr } from "../generated/layouts.js";

const ipv4HeaderBytes = 20;
const udpHeaderBytes = 8;
const protocolUdp = 17;

export interface VfwdTarget {
  /** 4 bytes */
  group: Uint8Array;
  port: number;
}

export function encodeVfwd(message: Buffer, { group, port }: VfwdTarget): Buffer {
  const total = ipv4HeaderBytes + udpHeaderBytes + message.length;
  if (VnetdVfwdHdr.size + udpHeaderBytes + ipv4HeaderBytes + message.length > 0xffff) {
    throw new RangeError(`a message of ${String(message.length)} bytes does not fit into VFWD`);
  }
  const ip = Buffer.alloc(ipv4HeaderBytes);
  ip[0] = 0x45;
  ip.writeUInt16BE(total, 2);
  ip[8] = vnetdWire.TTL_UNICAST;
  ip[9] = protocolUdp;
  ip.set(group, 16);
  const udp = Buffer.alloc(udpHeaderBytes);
  udp.writeUInt16BE(port, 0);
  udp.writeUInt16BE(port, 2);
  udp.writeUInt16BE(udpHeaderBytes + message.length, 4);
  const header = Buffer.alloc(VnetdVfwdHdr.size);
  writeVnetdVfwdHdr(header, {
    msg: { id: vnetdMsg.MSG_VFWD, opcode: 0 },
    innerIp: ip,
    innerUdp: udp,
  });
  return Buffer.concat([header, message]);
}
