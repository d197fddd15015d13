// SPDX-License-Identifier: Apache-2.0
/** What a vnet's configuration says of its security, with its keys read; refused where it cannot be had. */
import { VnetdError } from "../../base/errors.js";
import type { Suite } from "../../base/suite.js";
import { suiteOfVnet, type VnetConfig } from "../../config/vnet-file.js";
import type { Context } from "../context.js";
import type { SecureConfig } from "./secure-vnet.js";

/** undefined: security is none. Throws SECURITY_UNAVAILABLE, NO_KEY or BAD_KEY; never falls back to clear. */
export function secureConfigOf(
  { keys }: Context,
  config: VnetConfig,
  espProblem: (suite: Suite) => string | undefined,
): SecureConfig | undefined {
  const suite = suiteOfVnet(config);
  if (suite === undefined) return undefined;
  const { key, previousKey } = config;
  // first what people can mend
  const all = [keys.read(key), ...(previousKey === undefined ? [] : [keys.read(previousKey)])];
  const problem = espProblem(suite);
  if (problem !== undefined) {
    throw new VnetdError(
      "SECURITY_UNAVAILABLE",
      `security ${suite.level} cannot be had on this host: ${problem}`,
      {
        hint: "A vnet that was to be secure is never run in clear. See docs/security.md for what the kernel must have.",
      },
    );
  }
  return { suite, keys: all };
}
