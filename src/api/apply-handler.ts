// SPDX-License-Identifier: Apache-2.0
/** The method `apply`: reads its parameters and the files in them. A file that cannot be used is met before anything is changed. */
import { VnetdError } from "../base/errors.js";
import { parseVnetFile } from "../config/vnet-file.js";
import type { Controller } from "../controller.js";
import { apply } from "../controller/apply.js";
import type { ApplyInfo } from "./contract.js";
import { fieldsOf, flagField, onlyFields, textField } from "./params.js";

export function applyHandler(controller: Controller, params: unknown): ApplyInfo {
  onlyFields(params, ["directory", "files", "dryRun", "prune"]);
  const directory = textField(params, "directory");
  if (!directory.startsWith("/") || directory.length > 4096)
    throw new VnetdError("BAD_REQUEST", '"directory" must be an absolute path');
  const { files } = fieldsOf(params);
  if (!Array.isArray(files)) throw new VnetdError("BAD_REQUEST", '"files" must be a list');
  if (files.length === 0) {
    throw new VnetdError("MISSING_PARAMETER", `there is no file of vnets in ${directory}`, {
      hint: "To have none of them any more, leave one file there with `vnets: []`.",
    });
  }
  const wanted = files.flatMap((file: unknown) =>
    parseVnetFile(textField(file, "text"), textField(file, "source"), { mayBeEmpty: true }),
  );
  return apply(controller, wanted, {
    directory,
    dryRun: flagField(params, "dryRun"),
    prune: flagField(params, "prune"),
  });
}
