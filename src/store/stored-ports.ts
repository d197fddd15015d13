// SPDX-License-Identifier: Apache-2.0
/** The direct ports of vnets, as the state file holds them. A device is a port of one vnet at most. Pure. */
import { checkDeviceName } from "../base/ifname.js";
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import type { YamlNode } from "../config/yaml-tree.js";
import { itemsOf, recordOf, unreadable, wordOf } from "./state-nodes.js";

export interface StoredPort {
  vnet: VnetId;
  device: string;
}

const quote = (text: string): string => JSON.stringify(text);

export function printPort({ vnet, device }: StoredPort): string {
  return [`vnet: ${quote(vnet)}`, `device: ${quote(device)}`].join("\n    ");
}

export function readPorts(node: YamlNode | undefined): StoredPort[] {
  const seen = new Set<string>();
  return itemsOf(node).map((item) => {
    const fields = recordOf(item, ["vnet", "device"]);
    const device = wordOf(fields.device, (text, place) => checkDeviceName(text, "device", place));
    if (seen.has(device)) throw unreadable(`port ${device} stands here twice`, item.place);
    seen.add(device);
    return { vnet: wordOf(fields.vnet, parseVnetId), device };
  });
}
