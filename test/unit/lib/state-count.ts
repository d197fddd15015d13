// SPDX-License-Identifier: Apache-2.0
/** What state-writer.ts writes with a count, for the test that reads it. */
import { vnetIdFromBytes, type VnetId } from "../../../src/base/vnet-id.js";

export function idOfCount(count: number): VnetId {
  const bytes = Buffer.alloc(16, 0xa0);
  bytes.writeUInt32BE(count);
  return vnetIdFromBytes(bytes);
}
