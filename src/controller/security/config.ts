// SPDX-License-Identifier: Apache-2.0
/** What a vnet's configuration says of its security, with its keys read; refused where it cannot be had. */
import { VnetdError } from "../../base/errors.js";
import type { Suite } from "../../base/suite.js";
import type { VnetKey } from "../../base/vnet-key.js";
import { suiteOfVnet, type VnetConfig } from "../../config/vnet-file.js";
import type { Context } from "../context.js";
import type { SecureConfig } from "./secure-vnet.js";

/**
 * undefined: security is none. Throws SECURITY_UNAVAILABLE, NO_KEY or BAD_KEY; never falls back to clear. A vnet that
 * changes its secret runs by the new one alone where the old one cannot be read.
 */
export function secureConfigOf(
  { keys }: Pick<Context, "keys">,
  config: VnetConfig,
  espProblem: (suite: Suite) => string | undefined,
): SecureConfig | undefined {
  const suite = suiteOfVnet(config);
  if (suite === undefined) return undefined;
  const { key, previousKey } = config;
  // first what people can mend
  const current = keys.read(key);
  const previous = previousKey === undefined ? undefined : readPrevious(keys, previousKey);
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
  if (previous === undefined) return { suite, keys: [current] };
  if (previous instanceof VnetdError) return { suite, keys: [current], previousProblem: previous };
  return { suite, keys: [current, previous] };
}

/** For a vnet that is to be made: what is named is there. */
export function checkSecureConfig(...args: Parameters<typeof secureConfigOf>): void {
  const problem = secureConfigOf(...args)?.previousProblem;
  if (problem !== undefined) throw problem;
}

function readPrevious(keys: Context["keys"], name: string): VnetKey | VnetdError {
  try {
    return keys.read(name);
  } catch (error) {
    if (error instanceof VnetdError) return error;
    throw error;
  }
}
