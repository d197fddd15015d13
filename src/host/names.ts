// SPDX-License-Identifier: Apache-2.0
/**
 * Names, aliases and MACs of the devices that vnetd makes. All follow from the host's and the
 * vnet's id, so a daemon that lost everything else still finds what is its own.
 */
import { createHash } from "node:crypto";
import { macFromBytes, type Mac } from "../base/mac.js";
import { vnetIdToBytes, type VnetId } from "../base/vnet-id.js";

const aliasPrefix = "vnetd ";
const peerNameDigits = 11;

/** The alias of all devices of a vnet: how they are recognised as ours. */
export function aliasOf(id: VnetId): string {
  return `${aliasPrefix}${id}`;
}

/** The vnet of a device that bears our alias. */
export function vnetOfAlias(alias: string | undefined): VnetId | undefined {
  return alias?.startsWith(aliasPrefix) === true ? alias.slice(aliasPrefix.length) : undefined;
}

/** Veth pairs that belong to no vnet: frames pass them on their way between two programs. */
export const helperPairs = {
  segment: { alias: `${aliasPrefix}segment`, out: "vn-segment0", in: "vn-segment1" },
  oversize: { alias: `${aliasPrefix}oversize`, out: "vn-oversize0", in: "vn-oversize1" },
  relay: { alias: `${aliasPrefix}relay`, out: "vn-relay0", in: "vn-relay1" },
} as const;

/** The device to which the kernel delivers reassembled packets. */
export const reassemblyDevice = {
  name: "vn-reassembly",
  alias: `${aliasPrefix}reassembly`,
} as const;

/** The alias of the xfrm interfaces, of which each underlay device has one (src/host/esp.ts). */
export const espAlias = `${aliasPrefix}esp`;

export function espNameOf(underlayIfindex: number): string {
  return `vn-esp${String(underlayIfindex)}`;
}

/** The pairs of `vnetd doctor`'s own test, which are there for a moment (src/doctor/offload-path.ts). */
export const testPairs = {
  guest: { alias: `${aliasPrefix}test`, out: "vn-test0", in: "vn-test1" },
  wire: { alias: `${aliasPrefix}test`, out: "vn-test2", in: "vn-test3" },
} as const;

export function isHelperAlias(alias: string | undefined): boolean {
  const pairs = [...Object.values(helperPairs), ...Object.values(testPairs)];
  const devices = [...pairs, reassemblyDevice, { alias: espAlias }];
  return devices.some((each) => each.alias === alias);
}

/** The other end of the vnetif's veth pair: 14 characters, told apart by 44 bits of a hash. */
export function peerNameOf(id: VnetId): string {
  const hash = createHash("sha256").update(vnetIdToBytes(id)).digest("hex");
  return `vn-${hash.slice(0, peerNameDigits)}`;
}

/**
 * A MAC that stays the same for as long as the host has its id. Given explicitly, because systemd
 * gives new links without one another.
 */
export function macOf(hostId: string, id: VnetId, end: "vnetif" | "peer" | "bridge"): Mac {
  const hash = createHash("sha256").update(`${end} ${hostId} ${id}`).digest();
  const bytes = hash.subarray(0, 6);
  // locally administered, not a group address
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return macFromBytes(bytes);
}
