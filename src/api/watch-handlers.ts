// SPDX-License-Identifier: Apache-2.0
/** What the streams do: reads and checks their parameters, and hands on to the service that watches. */
import { VnetdError } from "../base/errors.js";
import { parseMac } from "../base/mac.js";
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import type { Controller } from "../controller.js";
import { reasonNames } from "../generated/layouts.js";
import { onlyFields, optionalIntegerField, optionalTextField, textField } from "./params.js";
import { maxSnapBytes } from "./contract.js";
import type { StreamHandlers } from "./server.js";

const ethernetBytes = 14;

type Parts = Pick<Controller, "vnets" | "watch">;

export function streamHandlers({ vnets, watch }: Parts): StreamHandlers {
  /** One that is not there would be looked at for ever. */
  const vnetOf = (text: string | undefined): VnetId | undefined =>
    text === undefined ? undefined : vnets.find(parseVnetId(text)).config.id;
  return {
    monitor: (params, listener) => {
      onlyFields(params, ["vnet", "mac", "reason"]);
      const mac = optionalTextField(params, "mac");
      const filter = {
        vnet: vnetOf(optionalTextField(params, "vnet")),
        mac: mac === undefined ? undefined : parseMac(mac),
        reason: reasonOf(optionalTextField(params, "reason")),
      };
      return watch.monitor(filter, listener);
    },
    capture: (params, listener) => {
      onlyFields(params, ["vnet", "snapBytes"]);
      const id = vnets.find(parseVnetId(textField(params, "vnet"))).config.id;
      const bounds = { smallest: ethernetBytes, largest: maxSnapBytes };
      const snapBytes = optionalIntegerField(params, "snapBytes", bounds) ?? maxSnapBytes;
      return watch.capture({ id, snapBytes }, listener);
    },
  };
}

function reasonOf(text: string | undefined): string | undefined {
  if (text === undefined || reasonNames.indexOf(text) > 0) return text;
  throw new VnetdError("BAD_VALUE", `"${text.slice(0, 80)}" is not a reason`, {
    hint: "docs/drop-reasons.md lists them; vnetd status shows those that were counted.",
  });
}
