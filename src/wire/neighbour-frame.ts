// SPDX-License-Identifier: Apache-2.0
/**
 * The question of a guest who has an IP address, as `vnetd trace --asks` has it asked: an ARP request, or a neighbour
 * solicitation; and the answer that the programs make of one. Pure.
 *
 * The asker has an address of documentation (RFC 5737, RFC 3849). The checksum of a solicitation is left out: the
 * programs do not look at it.
 */
import { isMappedIpv4 } from "../base/address.js";
import { macFromBytes, macToBytes, type Mac } from "../base/mac.js";
import { ethernetBytes, frameTypes } from "./trace-frame.js";

const arpBytes = 60;
const ipv6Bytes = 40;
const solicitationBytes = 32;
const icmpv6 = 58;
const ndHopLimit = 255;
const [ndSolicitation, ndAdvertisement] = [135, 136];
const [arpRequest, arpReply] = [1, 2];
const everybody = "ff:ff:ff:ff:ff:ff";

export interface QuestionSpec {
  /** to all: the broadcast address, which becomes the target's own group over IPv6 */
  destination: Mac;
  source: Mac;
  /** who has it; in the maps' form */
  target: Uint8Array;
}

export function questionFrame({ destination, source, target }: QuestionSpec): Buffer {
  return isMappedIpv4(target)
    ? arpQuestion(destination, source, target.subarray(12))
    : solicitation(questionMac(destination, target), source, target);
}

/** Where the question for it goes. */
export function questionMac(destination: Mac, target: Uint8Array): Mac {
  return destination === everybody && !isMappedIpv4(target)
    ? macFromBytes(Uint8Array.of(0x33, 0x33, 0xff, ...target.subarray(13)))
    : destination;
}

/** An address of documentation that is not the one that is asked for. */
function asker(own: string, other: string, target: Uint8Array): Buffer {
  const bytes = Buffer.from(own, "hex");
  return bytes.equals(target) ? Buffer.from(other, "hex") : bytes;
}

function arpQuestion(destination: Mac, source: Mac, target: Uint8Array): Buffer {
  const frame = Buffer.alloc(arpBytes);
  frame.set(macToBytes(destination), 0);
  frame.set(macToBytes(source), 6);
  frame.writeUInt16BE(frameTypes.arp, 12);
  frame.set([0, 1, 8, 0, 6, 4, 0, arpRequest], ethernetBytes);
  frame.set(macToBytes(source), 22);
  frame.set(asker("c0000201", "c0000202", target), 28);
  frame.set(target, 38);
  return frame;
}

function solicitation(destination: Mac, source: Mac, target: Uint8Array): Buffer {
  const frame = Buffer.alloc(ethernetBytes + ipv6Bytes + solicitationBytes);
  frame.set(macToBytes(destination), 0);
  frame.set(macToBytes(source), 6);
  frame.writeUInt16BE(frameTypes.ipv6, 12);
  const ip = frame.subarray(ethernetBytes);
  ip.writeUInt8(0x60, 0);
  ip.writeUInt16BE(solicitationBytes, 4);
  ip.set([icmpv6, ndHopLimit], 6);
  const prefix = `20010db8${"00".repeat(11)}`;
  ip.set(asker(`${prefix}01`, `${prefix}02`, target), 8);
  ip.set(Buffer.from(`ff02${"00".repeat(9)}01ff`, "hex"), 24);
  ip.set(target.subarray(13), 37);
  const nd = ip.subarray(ipv6Bytes);
  nd.writeUInt8(ndSolicitation, 0);
  nd.set(target, 8);
  nd.set([1, 1], 24);
  nd.set(macToBytes(source), 26);
  return frame;
}

/** Of an answer to the asker of the question: whose MAC it says. undefined: it is none. */
export function neighbourAnswer(frame: Buffer, question: Buffer): Mac | undefined {
  const toAsker = question.subarray(6, 12).equals(frame.subarray(0, 6));
  if (!toAsker || frame.length < ethernetBytes + 28) return undefined;
  const owner = macFromBytes(frame.subarray(6, 12));
  const type = frame.readUInt16BE(12);
  if (type === frameTypes.arp) return frame.readUInt16BE(20) === arpReply ? owner : undefined;
  const isAdvertisement =
    type === frameTypes.ipv6 &&
    frame.length > ethernetBytes + ipv6Bytes &&
    frame.readUInt8(ethernetBytes + 6) === icmpv6 &&
    frame.readUInt8(ethernetBytes + ipv6Bytes) === ndAdvertisement;
  return isAdvertisement ? owner : undefined;
}
