// SPDX-License-Identifier: Apache-2.0
/** Which vnets `vnetd apply` made, as the state file holds them: by directory. A vnet is in one at most. Pure. */
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import type { YamlNode } from "../config/yaml-tree.js";
import { itemsOf, recordOf, unreadable, wordOf } from "./state-nodes.js";

export interface AppliedDirectory {
  /** absolute, without links */
  directory: string;
  vnets: VnetId[];
}

const quote = (text: string): string => JSON.stringify(text);

export function printApplied({ directory, vnets }: AppliedDirectory): string {
  return [`directory: ${quote(directory)}`, `vnets: [${vnets.map(quote).join(", ")}]`].join(
    "\n    ",
  );
}

export function readApplied(node: YamlNode | undefined): AppliedDirectory[] {
  const seen = new Set<string>();
  const once = (text: string, item: YamlNode): void => {
    if (seen.has(text)) throw unreadable(`${text} stands here twice`, item.place);
    seen.add(text);
  };
  return itemsOf(node).map((item) => {
    const fields = recordOf(item, ["directory", "vnets"]);
    const directory = wordOf(fields.directory, (text, place) => {
      if (!text.startsWith("/")) throw unreadable(`"${text.slice(0, 80)}" is no path`, place);
      return text;
    });
    once(directory, fields.directory);
    const vnets = itemsOf(fields.vnets).map((each) => {
      const id = wordOf(each, parseVnetId);
      once(`vnet ${id}`, each);
      return id;
    });
    return { directory, vnets };
  });
}

/** The directory that owns a vnet; undefined: it was made by hand, or is the daemon's own. */
export function ownerOf(
  applied: readonly { readonly directory: string; readonly vnets: readonly VnetId[] }[],
  id: VnetId,
): string | undefined {
  return applied.find(({ vnets }) => vnets.includes(id))?.directory;
}

/** These vnets are nobody's any more. */
export function disowned(
  applied: readonly AppliedDirectory[],
  ids: ReadonlySet<VnetId>,
): AppliedDirectory[] {
  return applied
    .map(({ directory, vnets }) => ({ directory, vnets: vnets.filter((id) => !ids.has(id)) }))
    .filter(({ vnets }) => vnets.length > 0);
}
