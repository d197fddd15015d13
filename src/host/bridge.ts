// SPDX-License-Identifier: Apache-2.0
/**
 * The vnet's bridge: made if it is not there, used if it is. A bridge that vnetd made bears the
 * vnet's alias; only such a one is removed with the vnet, and only when no port of others is left
 * on it.
 */
import { VnetdError } from "../base/errors.js";
import type { VnetId } from "../base/vnet-id.js";
import type { LinkInfo, Native } from "../native/contract.js";
import { kernel } from "./errno.js";
import { aliasOf, macOf } from "./names.js";
import { describe } from "./vnetif.js";

export interface BridgeSpec {
  id: VnetId;
  name: string;
  hostId: string;
  mtuBytes: number;
  /** MACs that the vnet may have; its bridge learns no more, whoever makes them up */
  maxLearned: number;
}

export interface Bridge {
  link: LinkInfo;
  created: boolean;
}

/** Throws NOT_A_BRIDGE when the name is a device of another kind. */
export function checkBridgeName(native: Native, name: string): LinkInfo | undefined {
  const link = native.linkGet(name);
  if (link === undefined || link.kind === "bridge") return link;
  throw new VnetdError("NOT_A_BRIDGE", `${name} is ${describe(link)}, not a bridge`, {
    hint: "Name a bridge, or a name that is free: then vnetd makes one.",
  });
}

export function ensureBridge(native: Native, spec: BridgeSpec): Bridge {
  const existing = checkBridgeName(native, spec.name);
  if (existing !== undefined) {
    if (isOurs(existing, spec.id)) repair(native, existing, spec.mtuBytes);
    return { link: existing, created: false };
  }
  const mac = macOf(spec.hostId, spec.id, "bridge");
  const { name, mtuBytes, id, maxLearned } = spec;
  // A bridge follows the MTU of its ports until its own is changed; to be made with one is no change.
  kernel(`making the bridge ${name}`, () =>
    native.linkAddBridge({ name, mac, mtuBytes: mtuBytes - 1, maxLearned, alias: aliasOf(id) }),
  );
  const link = native.linkGet(name);
  if (link === undefined) throw new VnetdError("KERNEL", `${name} vanished while it was made`);
  kernel(`setting ${name} up`, () => {
    // The host itself is on the vnet only if somebody gives the bridge an address.
    native.linkSet(link.ifindex, { noIpv6LinkLocal: true, alias: aliasOf(id), mtuBytes });
    native.linkSet(link.ifindex, { up: true });
  });
  return { link, created: true };
}

export function isOurs(link: LinkInfo, id: VnetId): boolean {
  return link.kind === "bridge" && link.alias === aliasOf(id);
}

/** How many MACs it learns, if vnetd made it. */
export function setMaxLearned(native: Native, name: string, id: VnetId, maxLearned: number): void {
  const link = native.linkGet(name);
  if (link === undefined || !isOurs(link, id)) return;
  kernel(`setting up ${name}`, () => native.linkSet(link.ifindex, { maxLearned }));
}

/** Removes the bridge if vnetd made it and nobody else uses it; says why it stays otherwise. */
export function removeBridge(native: Native, name: string, id: VnetId): string | undefined {
  const link = native.linkGet(name);
  if (link === undefined || !isOurs(link, id)) return undefined;
  const ports = portsOf(native, link.ifindex).filter((port) => port.alias !== aliasOf(id));
  if (ports.length > 0) {
    return `bridge ${name} stays: it still has ${ports.map((port) => port.name).join(", ")}`;
  }
  kernel(`removing the bridge ${name}`, () => native.linkDelete(link.ifindex));
  return undefined;
}

export function portsOf(native: Native, bridge: number): LinkInfo[] {
  return native.linkList().filter((link) => link.master === bridge);
}

/** Its MTU was changed after it was made, so it does not follow its ports by itself. */
function repair(native: Native, link: LinkInfo, mtuBytes: number): void {
  const change = {
    ...(link.up ? {} : { up: true }),
    ...(link.mtuBytes === mtuBytes ? {} : { mtuBytes }),
  };
  if (Object.keys(change).length > 0) {
    kernel(`setting up ${link.name}`, () => native.linkSet(link.ifindex, change));
  }
}
