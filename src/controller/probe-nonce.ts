// SPDX-License-Identifier: Apache-2.0
/** By what a host knows the probes of each of its vnets. */
import { createHash } from "node:crypto";
import type { VnetId } from "../base/vnet-id.js";

/** One for each vnet: a probe that is found in another vnet than its own is no loop. */
export function probeNonceOf(secret: Buffer, id: VnetId): bigint {
  return createHash("sha256").update(secret).update(id).digest().readBigUInt64LE() | 1n;
}
