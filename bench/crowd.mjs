// SPDX-License-Identifier: Apache-2.0
/**
 * Hellos of more hosts than fit on a machine, as Ethernet frames for `scale-send replay`: the real encoder's messages, from
 * hosts that there are not. Each host has an address in 198.18.0.0/15 (RFC 2544: for benchmarks) and the same vnets.
 */
import { parseAddress } from "../dist/src/base/address.js";
import { version } from "../dist/src/base/version.js";
import { parseVnetId, vnetIdToBytes } from "../dist/src/base/vnet-id.js";
import { daemonConfigDefaults } from "../dist/src/config/daemon-config.js";
import { vnetdCapability } from "../dist/src/generated/layouts.js";
import { encodeHello } from "../dist/src/wire/hello.js";
import { encodeVarp } from "../dist/src/wire/varp.js";
import { vnetsThatFit, withVnets } from "../dist/src/wire/varp-list.js";
import { udpFrame } from "./frames.mjs";

const { port, group } = daemonConfigDefaults();
// RFC 1112 section 6.4
const groupMac = "01:00:5e:0a:00:01";

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

/** To the group, as `scale-send replay` reads it. */
function frame(n, payload) {
  const ends = { fromMac: macOf(n), toMac: groupMac, from: addressOf(n), to: group };
  const out = Buffer.from(udpFrame({ ...ends, payload, port, sourcePort: port }), "hex");
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
