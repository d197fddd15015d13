// SPDX-License-Identifier: Apache-2.0
/** What the methods do that are about keys of secure vnets. */
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import type { Controller } from "../controller.js";
import { onlyFields, optionalTextField, textField } from "./params.js";
import type { Handlers } from "./server.js";

export function keyHandlers({
  rotation,
  security,
}: Pick<Controller, "rotation" | "security">): Pick<Handlers, "keys" | "rekey" | "keyRotate"> {
  return {
    keys: (params) => security.keys(optionalVnet(params)),
    rekey: (params) => security.rekey(optionalVnet(params)),
    keyRotate: (params) => {
      onlyFields(params, ["vnet", "key"]);
      return rotation.rotate(parseVnetId(textField(params, "vnet")), textField(params, "key"));
    },
  };
}

/** An unknown field may be a vnet that was misspelt: not all of them are meant then. */
function optionalVnet(params: unknown): VnetId | undefined {
  onlyFields(params, ["vnet"]);
  const text = optionalTextField(params, "vnet");
  return text === undefined ? undefined : parseVnetId(text);
}
