// SPDX-License-Identifier: Apache-2.0
/**
 * The ESP keys of one direction of one generation, as long as the suite has them.
 *
 * Each key is HKDF-SHA256 (RFC 5869) over an exchange's exporter, with an info that names all that the key is
 * for: vnet, both hosts, direction (sender first), the receiver's SPI and the suite. So two SAs have
 * different keys even if everything else of them were equal. Pure.
 */
import { hkdfSync } from "node:crypto";
import type { Suite } from "../base/suite.js";

export { suiteById, suiteOf, suites } from "../base/suite.js";
export type { SecureLevel, Suite, SuiteName } from "../base/suite.js";

/** The first is reserved (RFC 4303), 1 to 255 are IANA's. */
export const leastSpi = 256;

/** Wipe them when they are with the kernel. */
export interface EspKeys {
  cipher: Buffer;
  salt: Buffer;
  auth: Buffer;
}

export interface EspContext {
  /** 16 bytes each */
  vnet: Uint8Array;
  sender: Uint8Array;
  receiver: Uint8Array;
  /** as the receiver chose it */
  spi: number;
  suite: Suite;
}

const label = Buffer.from("vnetd esp 1", "ascii");

export function deriveEspKeys(exporter: Uint8Array, context: EspContext): EspKeys {
  const { vnet, sender, receiver, spi, suite: chosen } = context;
  const numbers = Buffer.alloc(5);
  numbers.writeUInt32BE(spi, 0);
  numbers.writeUInt8(chosen.id, 4);
  // every part has a fixed length: no two contexts make the same info
  const info = Buffer.concat([label, vnet, sender, receiver, numbers]);
  const { cipherBytes, saltBytes, authBytes } = chosen;
  const length = cipherBytes + saltBytes + authBytes;
  const all = Buffer.from(hkdfSync("sha256", exporter, Buffer.alloc(0), info, length));
  try {
    return {
      cipher: Buffer.from(all.subarray(0, cipherBytes)),
      salt: Buffer.from(all.subarray(cipherBytes, cipherBytes + saltBytes)),
      auth: Buffer.from(all.subarray(cipherBytes + saltBytes)),
    };
  } finally {
    all.fill(0);
  }
}

export function wipeEspKeys({ cipher, salt, auth }: EspKeys): void {
  for (const part of [cipher, salt, auth]) part.fill(0);
}
