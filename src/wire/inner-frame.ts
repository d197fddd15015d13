// SPDX-License-Identifier: Apache-2.0
/**
 * The Ethernet frame inside an outer packet of which only the beginning may be there: what was dropped is shown
 * as the packet that it was. Pure; what is read is hostile, and nothing throws for it.
 */
import { addressToText } from "../base/address.js";
import { vnetdMsg, vnetdWire } from "../generated/layouts.js";

export interface OuterPacket {
  /** canonical text */
  source: string;
  /** where the inner frame begins, if the packet holds one and so much of it is there */
  frameAt: number | undefined;
}

const ethernetBytes = 14;
const udpBytes = 8;
const protocolUdp = 17;
const typeIpv4 = 0x0800;
const typeIpv6 = 0x86dd;

interface Ip {
  source: string;
  protocol: number;
  /** of what follows */
  at: number;
}

/** undefined: it is no IP packet. */
export function readOuter(packet: Buffer): OuterPacket | undefined {
  const ip = ipOf(packet);
  return ip === undefined ? undefined : { source: ip.source, frameAt: frameAt(packet, ip) };
}

function ipOf(packet: Buffer): Ip | undefined {
  if (packet.length < ethernetBytes + 20) return undefined;
  const type = packet.readUInt16BE(12);
  if (type === typeIpv4) {
    const source = Buffer.concat([Buffer.alloc(10), Buffer.of(255, 255), packet.subarray(26, 30)]);
    const headerBytes = (packet.readUInt8(ethernetBytes) & 0x0f) * 4;
    const at = ethernetBytes + headerBytes;
    return { source: addressToText(source), protocol: packet.readUInt8(23), at };
  }
  if (type !== typeIpv6 || packet.length < ethernetBytes + 40) return undefined;
  const source = addressToText(packet.subarray(22, 38));
  return { source, protocol: packet.readUInt8(20), at: ethernetBytes + 40 };
}

function frameAt(packet: Buffer, { protocol, at }: Ip): number | undefined {
  if (protocol === vnetdWire.ETHERIP_PROTOCOL) return whole(packet, at + vnetdWire.ETHERIP_HDR_LEN);
  const message = at + udpBytes;
  if (protocol !== protocolUdp || packet.length < message + 2) return undefined;
  if (packet.readUInt16BE(message) !== vnetdMsg.MSG_VUDP) return undefined;
  return whole(packet, message + vnetdWire.VUDP_HDR_LEN);
}

function whole(packet: Buffer, frame: number): number | undefined {
  return packet.length >= frame + ethernetBytes ? frame : undefined;
}
