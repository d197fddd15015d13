// SPDX-License-Identifier: Apache-2.0
/** What stands against a vnet that is to be made: keys, names and devices, as they are on this host now. */
import { VnetdError, atPlace as at, type Place } from "../base/errors.js";
import type { PlacedVnet, VnetConfig } from "../config/vnet-file.js";
import { checkBridgeName } from "../host/bridge.js";
import { peerNameOf } from "../host/names.js";
import { checkVnetifName } from "../host/vnetif.js";
import type { Context } from "./context.js";
import { checkSecureConfig } from "./security/config.js";
import type { VnetParts } from "./vnets.js";

interface PresentVnet {
  config: VnetConfig;
  builtIn: boolean;
}

/** Throws for the first thing; changes nothing. */
export function checkVnet(
  context: Context,
  parts: VnetParts,
  vnet: PlacedVnet,
  present: readonly PresentVnet[],
): void {
  const { id, places } = vnet;
  const same = present.find(({ config }) => config.id === id);
  at(places.security, () => checkSecureConfig(context, vnet, parts.espProblem));
  if (same !== undefined && !same.builtIn) {
    throw new VnetdError("VNET_EXISTS", `there is a vnet ${id} already`, {
      hint: `Delete it first: vnetd vnet-delete ${id}`,
      place: places.id,
    });
  }
  checkNames(vnet, present);
  checkDevices(context, parts, vnet);
}

/** That its devices can be made, or are there and will do. */
export function checkDevices({ native }: Context, parts: VnetParts, vnet: PlacedVnet): void {
  const { id, places, bridge } = vnet;
  at(places.vnetif, () => checkVnetifName(native, id, vnet.vnetif));
  if (bridge !== null) at(places.bridge, () => checkBridgeName(native, bridge));
  if (bridge !== null && parts.isUnderlay(bridge)) {
    throw new VnetdError(
      "DEVICE_UNSUITABLE",
      `${bridge} is attached: it carries vnets, it cannot be in one`,
      {
        hint: "Choose another bridge, or detach it first.",
        place: places.bridge,
      },
    );
  }
}

/** A name may belong to one vnet only, also when its device is away just now. */
export function checkNames(
  { id, bridge, vnetif, places }: PlacedVnet,
  present: readonly { config: VnetConfig }[],
): void {
  for (const { config } of present) {
    if (config.id === id) continue;
    const names = [config.vnetif, config.bridge, peerNameOf(config.id)];
    const taken: [string | null, Place][] = [
      [vnetif, places.vnetif],
      [bridge, places.bridge],
    ];
    for (const [name, place] of taken) {
      if (name === null || !names.includes(name)) continue;
      throw new VnetdError("NAME_IN_USE", `${name} belongs to vnet ${config.id}`, {
        hint: "Give the vnet names of its own.",
        place,
      });
    }
  }
}
