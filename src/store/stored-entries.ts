// SPDX-License-Identifier: Apache-2.0
/**
 * The entries of the MAC table that are configured, as the state file holds them: MACs of this
 * host (vif-add) and of others (varp-add). Pure.
 */
import { addressToText, parseAddress } from "../base/address.js";
import type { Place } from "../base/errors.js";
import { checkDeviceName } from "../base/ifname.js";
import { parseMac, type Mac } from "../base/mac.js";
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import type { YamlNode } from "../config/yaml-tree.js";
import { flagOf, itemsOf, orNull, recordOf, unreadable, wordOf } from "./state-nodes.js";

/** A MAC of this host. */
export interface StoredVif {
  vnet: VnetId;
  vmac: Mac;
  /** a frame from elsewhere does not take it there */
  static: boolean;
}

/** A MAC of another host; it stays there whatever is heard. */
export interface StoredRemote {
  vnet: VnetId;
  vmac: Mac;
  /** underlay address of the host */
  address: string;
  /** underlay device; null: the one that leads to the address */
  device: string | null;
}

const quote = (text: string): string => JSON.stringify(text);

export function printVif({ vnet, vmac, static: isStatic }: StoredVif): string {
  return [`vnet: ${quote(vnet)}`, `vmac: ${quote(vmac)}`, `static: ${String(isStatic)}`].join(
    "\n    ",
  );
}

export function printRemote({ vnet, vmac, address, device }: StoredRemote): string {
  return [
    `vnet: ${quote(vnet)}`,
    `vmac: ${quote(vmac)}`,
    `address: ${quote(address)}`,
    `device: ${device === null ? "null" : quote(device)}`,
  ].join("\n    ");
}

export function readVifs(node: YamlNode | undefined): StoredVif[] {
  return once(node, (item) => {
    const fields = recordOf(item, ["vnet", "vmac", "static"]);
    return { ...nameOf(fields), static: flagOf(fields.static) };
  });
}

export function readRemotes(node: YamlNode | undefined): StoredRemote[] {
  return once(node, (item) => {
    const fields = recordOf(item, ["vnet", "vmac", "address", "device"]);
    const device = orNull(fields.device, (value) =>
      wordOf(value, (text, place) => checkDeviceName(text, "device", place)),
    );
    return { ...nameOf(fields), address: wordOf(fields.address, canonicalAddress), device };
  });
}

function nameOf(fields: Record<"vnet" | "vmac", YamlNode>): { vnet: VnetId; vmac: Mac } {
  return { vnet: wordOf(fields.vnet, parseVnetId), vmac: wordOf(fields.vmac, parseMac) };
}

function canonicalAddress(text: string, place: Place): string {
  return addressToText(parseAddress(text, place));
}

/** Each (vnet, MAC) may stand in a list once. */
function once<T extends { vnet: VnetId; vmac: Mac }>(
  node: YamlNode | undefined,
  read: (item: YamlNode) => T,
): T[] {
  const seen = new Set<string>();
  return itemsOf(node).map((item) => {
    const entry = read(item);
    const name = `${entry.vnet} ${entry.vmac}`;
    if (seen.has(name)) throw unreadable(`${entry.vmac} stands here twice`, item.place);
    seen.add(name);
    return entry;
  });
}
