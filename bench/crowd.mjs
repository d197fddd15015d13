// SPDX-License-Identifier: Apache-2.0
/**
 * Hellos of more hosts than fit on a machine, as Ethernet frames for `scale-send replay`: the real encoder's messages, from
 * hosts that there are not. Each host has an address in 198.18.0.0/15 (RFC 2544: for benchmarks) and the same vnets.
 */
import { parseAddress } from "../dist/src/base/address.js";
import { version } from "../dist/src/base/version.js";
import { parseVnetId, vnetIdToBytes } from "../dist/src/base/vnet-id.js";
import { vnetdCapability } from "../dist/src/generated/layouts.js";
import { encodeHello } from "../dist/src/wire/hello.js";
import { encodeVarp } from "../dist/src/wire/varp.js";
import { vnetsThatFit, withVnets } from "../dist/src/wire/varp-list.js";

const port = 1798;
const groupMac = Buffer.from("01005e0a0001", "hex");
const group = Buffer.from([224, 10, 0, 1]);

export const addressOf = (n) => `198.18.${n >> 8}.${n & 255}`;
export const macOf = (n) => `02:c0:00:00:${hex(n >> 8)}:${hex(n)}`;

const hex = (byte) => (byte & 255).toString(16).padStart(2, "0");
const idOf = (n) => `${"0".repeat(24)}${n.toString(16).padStart(8, "0")}`;

/** What host `n` says of each of `vnets`; as a question one message a vnet, else a list. */
function messagesOf(n, vnets, solicit) {
  const hello = encodeHello({
    ...{ hostId: idOf(n).replace(/^0{4}/, "c0de"), bootNonce: "c0de000000000001" },
    capabilities: vnetdCapability.CAP_HELLO | vnetdCapability.CAP_LISTS,
    underlayMtuBytes: 1500,
    ...{ hostName: `crowd-${n}`, software: `vnetd ${version}`, solicit, goodbye: false },
  });
  const entries = vnets.map((vnet, at) => ({
    vnet: vnetIdToBytes(parseVnetId(vnet)),
    vmac: Buffer.from([0x02, 0xc1, at & 255, 0, n >> 8, n & 255]),
  }));
  const address = parseAddress(addressOf(n));
  const one = (entry) => encodeVarp({ opcode: "announce", address, ...entry }, hello);
  if (solicit) return entries.map(one);
  const [first, ...others] = entries;
  const head = one(first);
  if (others.length > vnetsThatFit(head)) throw new Error("the vnets do not fit into a list");
  return [withVnets(head, others)];
}

/** IPv4 and UDP without a checksum of UDP's own (RFC 768), to the group. */
function frame(n, message) {
  const out = Buffer.alloc(14 + 20 + 8 + message.length);
  groupMac.copy(out);
  Buffer.from(macOf(n).replaceAll(":", ""), "hex").copy(out, 6);
  out.writeUInt16BE(0x0800, 12);
  const ip = out.subarray(14, 34);
  ip.writeUInt16BE(0x4500);
  ip.writeUInt16BE(20 + 8 + message.length, 2);
  ip.writeUInt16BE(0x4000, 6);
  ip.writeUInt16BE((1 << 8) | 17, 8);
  Buffer.from(parseAddress(addressOf(n)).subarray(12)).copy(ip, 12);
  group.copy(ip, 16);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += ip.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  ip.writeUInt16BE(~sum & 0xffff, 10);
  out.writeUInt16BE(port, 34);
  out.writeUInt16BE(port, 36);
  out.writeUInt16BE(8 + message.length, 38);
  Buffer.from(message).copy(out, 42);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(out.length);
  return Buffer.concat([length, out]);
}

/** Of so many hosts, one after the other, each of all vnets; `rounds` times. */
export function crowd({ hosts, vnets, solicit, rounds = 1 }) {
  const one = [];
  for (let n = 0; n < hosts; n += 1)
    for (const message of messagesOf(n, vnets, solicit)) one.push(frame(n, message));
  return { count: one.length * rounds, bytes: Buffer.concat(Array(rounds).fill(one).flat()) };
}
