// SPDX-License-Identifier: Apache-2.0
/**
 * The suites of secure vnets: with which algorithms ESP protects a level. Pure.
 */
export type SecureLevel = "auth" | "conf";
export type SuiteName = "sha1" | "gcm" | "gcm256";

export const suiteNames: readonly SuiteName[] = ["sha1", "gcm", "gcm256"];
/** Of a secure vnet that names none: what the levels are documented to be. */
export const defaultSuiteName: SuiteName = "sha1";

export interface Suite {
  /** on the wire; 0 is none */
  id: number;
  level: SecureLevel;
  name: SuiteName;
  /** bytes of each: cipher, its salt (RFC 4106, RFC 4543), authenticator */
  cipherBytes: number;
  saltBytes: number;
  authBytes: number;
  /** in a packet: what begins its payload, what ends it, and what the rest is padded to a multiple of */
  ivBytes: number;
  icvBytes: number;
  blockBytes: number;
}

type Bytes = readonly [number, number, number];

function suite(
  id: number,
  [level, name]: readonly [SecureLevel, SuiteName],
  [cipherBytes, saltBytes, authBytes]: Bytes,
  [ivBytes, icvBytes, blockBytes]: Bytes,
): Suite {
  const keys = { cipherBytes, saltBytes, authBytes };
  return { id, level, name, ...keys, ivBytes, icvBytes, blockBytes };
}

/** In the numbers of the wire. Ids are never given to another suite. */
export const suites: readonly Suite[] = [
  suite(1, ["auth", "sha1"], [0, 0, 20], [0, 12, 4]), // null, HMAC-SHA1-96
  suite(2, ["conf", "sha1"], [16, 0, 20], [16, 12, 16]), // AES-128-CBC, HMAC-SHA1-96
  suite(3, ["auth", "gcm"], [16, 4, 0], [8, 16, 4]), // AES-128-GMAC
  suite(4, ["conf", "gcm"], [16, 4, 0], [8, 16, 4]), // AES-128-GCM, ICV of 16 bytes
  suite(5, ["auth", "gcm256"], [32, 4, 0], [8, 16, 4]),
  suite(6, ["conf", "gcm256"], [32, 4, 0], [8, 16, 4]),
];

export function suiteOf(level: SecureLevel, name: SuiteName): Suite {
  const found = suites.find((each) => each.level === level && each.name === name);
  if (found === undefined) throw new Error(`there is no suite ${level} ${name}`);
  return found;
}

/** undefined: there is none with this number, as far as this release knows. */
export function suiteById(id: number): Suite | undefined {
  return suites.find((each) => each.id === id);
}
