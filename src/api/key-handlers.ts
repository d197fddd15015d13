// SPDX-License-Identifier: Apache-2.0
/** What the methods do that are about keys of secure vnets. */
import { VnetdError } from "../base/errors.js";
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import type { Controller } from "../controller.js";
import { flagField, onlyFields, optionalTextField, textField } from "./params.js";
import type { Handlers } from "./server.js";

export function keyHandlers({
  rotation,
  security,
}: Pick<Controller, "rotation" | "security">): Pick<Handlers, "keys" | "rekey" | "keyRotate"> {
  return {
    keys: (params) => security.keys(optionalVnet(params)),
    rekey: (params) => security.rekey(optionalVnet(params)),
    keyRotate: (params) => {
      onlyFields(params, ["vnet", "key", "end"]);
      const id = parseVnetId(textField(params, "vnet"));
      if (!flagField(params, "end")) return rotation.rotate(id, textField(params, "key"));
      if (optionalTextField(params, "key") === undefined) return rotation.end(id);
      throw new VnetdError("BAD_REQUEST", "a change of keys is begun with a key, or ended");
    },
  };
}

/** An unknown field may be a vnet that was misspelt: not all of them are meant then. */
function optionalVnet(params: unknown): VnetId | undefined {
  onlyFields(params, ["vnet"]);
  const text = optionalTextField(params, "vnet");
  return text === undefined ? undefined : parseVnetId(text);
}
