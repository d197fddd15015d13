// SPDX-License-Identifier: Apache-2.0
/** Devices and records that bear a vnet's mark and belong to none of ours: left over, or another vnetd's. */
import type { VnetId } from "../base/vnet-id.js";
import type { VnetSlot } from "../dataplane/vnet-table.js";
import { removeBridge } from "../host/bridge.js";
import { isHelperAlias, macOf, peerNameOf, vnetOfAlias } from "../host/names.js";
import type { LinkInfo } from "../native/contract.js";
import type { Context } from "./context.js";

/**
 * Devices of a vnet that our maps do not know, made by a host with another id: of a vnetd that was
 * started with other directories. It may be stopped, and its data plane at work.
 */
export function isForeign({ native, hostId }: Context, id: VnetId): boolean {
  const peer = native.linkGet(peerNameOf(id));
  return vnetOfAlias(peer?.alias) === id && peer?.mac !== macOf(hostId, id, "peer");
}

/** At start: what a crash, or a change of the state by hand, left behind. */
export function removeOrphans(
  context: Context,
  wanted: ReadonlySet<VnetId>,
  entered: ReadonlyMap<VnetId, VnetSlot>,
): void {
  const { native, table, log } = context;
  for (const [id, slot] of entered) {
    if (!wanted.has(id)) table.remove(id, slot);
  }
  for (const link of native.linkList()) {
    const id = isHelperAlias(link.alias) ? undefined : vnetOfAlias(link.alias);
    if (id === undefined || wanted.has(id)) continue;
    if (!entered.has(id) && isForeign(context, id)) {
      const text = `${link.name} is left alone: a vnetd with another state directory made it`;
      log.say("vnet_foreign", text, { vnet: id, device: link.name });
      continue;
    }
    try {
      removeOrphan(context, link, id);
    } catch (error) {
      log.say("cleanup_failed", String(error), { vnet: id, device: link.name });
    }
    const text = `removed ${link.name}, left over from vnet ${id}`;
    log.say("vnet_left_over", text, { vnet: id, device: link.name });
  }
}

function removeOrphan({ native }: Context, link: LinkInfo, id: VnetId): void {
  if (link.kind === "bridge") removeBridge(native, link.name, id);
  else if (native.linkGet(link.name)?.ifindex === link.ifindex) native.linkDelete(link.ifindex);
}
