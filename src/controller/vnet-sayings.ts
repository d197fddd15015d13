// SPDX-License-Identifier: Apache-2.0
/** What the log says of a vnet's devices, each with the vnet and the device as fields. */
import type { VnetId } from "../base/vnet-id.js";
import type { Log } from "../log.js";

export function sayNotUp(log: Log, vnet: VnetId, reason: string): void {
  log.say("vnet_not_up", `vnet ${vnet} is not up: ${reason}`, { vnet, reason });
}

export function sayMadeAgain(log: Log, vnet: VnetId, device: string): void {
  log.say(
    "vnet_bridge_remade",
    `vnet ${vnet}: the bridge ${device} was gone and is made again; what else was on it must be put on it anew`,
    { vnet, device },
  );
}

export function sayPutBack(log: Log, vnet: VnetId, device: string): void {
  const text = `vnet ${vnet}: ${device} was not on its bridge and is put back`;
  log.say("vnet_port_restored", text, { vnet, device });
}
