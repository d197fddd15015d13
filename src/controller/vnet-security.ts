// SPDX-License-Identifier: Apache-2.0
/** Vnets that are to be secure: refused as long as they cannot be, and never run in clear. */
import { VnetdError, type Place } from "../base/errors.js";
import type { VnetConfig } from "../config/vnet-file.js";
import type { Context } from "./context.js";

/** Why the vnet's key cannot be had, if it cannot. */
export function keyProblem(keys: Context["keys"], key: string | null): VnetdError | undefined {
  try {
    keys.read(key);
    return undefined;
  } catch (error) {
    if (error instanceof VnetdError) return error;
    throw error;
  }
}

export function securityUnavailable(
  { security }: VnetConfig,
  ofKey: VnetdError | undefined,
  place?: Place,
): VnetdError {
  const why = ofKey === undefined ? "" : `; besides, ${ofKey.message}`;
  const remedy = ofKey?.hint === undefined ? "" : ` As to the key: ${ofKey.hint}`;
  return new VnetdError("SECURITY_UNAVAILABLE", `security "${security}" is not built yet${why}`, {
    hint: `Only (security none) can be had; vnetd never sends in clear what was to be protected.${remedy}`,
    ...(place === undefined ? {} : { place }),
  });
}
