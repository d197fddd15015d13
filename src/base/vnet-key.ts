// SPDX-License-Identifier: Apache-2.0
/**
 * The secret of a vnet: its text in a key file, its id, and how it is kept in memory.
 *
 * A secret is 32 random bytes. In memory it is a KeyObject, which neither JSON, nor a log, nor an
 * error can print; what it was read from is wiped. Its id is derived one-way and may be shown: people
 * compare it, and hosts name by it the key that they use. No error of this file quotes a key file.
 *
 * Pure: files are read by src/store/key-store.ts and written by cli/key-file.ts.
 */
import { createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import { join } from "node:path";
import { VnetdError, type Place } from "./errors.js";

export const secretBytes = 32;
export const keyIdBytes = 8;
/** Longer files are not read. */
export const maxKeyFileBytes = 4096;
/** Of the vnets that name no key. */
export const defaultKeyName = "default.key";

/** So that scanners for leaked secrets know it, and another kind of file is never taken for a key. */
const prefix = "vnetd-key-1:";
const keyIdInfo = "vnetd key id 1";

export interface VnetKey {
  /** 16 hex digits; may be shown */
  readonly id: string;
  readonly secret: KeyObject;
}

export function keyIdOf(secret: Uint8Array | KeyObject): string {
  const id = hkdfSync("sha256", secret, Buffer.alloc(0), keyIdInfo, keyIdBytes);
  return Buffer.from(id).toString("hex");
}

/** Wipes `secret`. */
export function vnetKeyOf(secret: Uint8Array): VnetKey {
  if (secret.length !== secretBytes) throw new Error(`a secret has ${secretBytes} bytes`);
  try {
    return { id: keyIdOf(secret), secret: createSecretKey(secret) };
  } finally {
    secret.fill(0);
  }
}

export function printKeyFile(secret: Uint8Array): string {
  return (
    `# The secret of a vnet, key id ${keyIdOf(secret)}. Whoever reads it can read and write the vnet.\n` +
    `${prefix}${Buffer.from(secret).toString("base64")}\n`
  );
}

const formHint = "`vnetd key-gen FILE` makes a new one; hosts of one vnet need copies of one file.";

function badKey(place: Place, why: string): VnetdError {
  return new VnetdError("BAD_KEY", `the key file cannot be used: ${why}`, {
    hint: formHint,
    place,
  });
}

/** `text` is the whole file; it is the caller's to wipe. Throws BAD_KEY. */
export function parseKeyFile(text: Buffer, source: string): VnetKey {
  // latin1: every byte a character, and nothing of it is ever shown
  const lines = text.toString("latin1").split(/\r?\n/);
  const found = lines.flatMap((line, index) => {
    const content = line.trim();
    return content === "" || content.startsWith("#") ? [] : [{ content, line: index + 1 }];
  });
  const [key, second] = found;
  if (key === undefined) throw badKey({ source }, "it holds no key");
  if (second !== undefined) throw badKey({ source, line: second.line }, "it holds more than a key");
  const place = { source, line: key.line };
  if (!key.content.startsWith(prefix)) throw badKey(place, `its line does not begin "${prefix}"`);
  const encoded = key.content.slice(prefix.length);
  const secret = Buffer.from(encoded, "base64");
  try {
    // Buffer skips what is not base64 and forgives missing padding: only the canonical text is a key
    if (secret.toString("base64") !== encoded || secret.length !== secretBytes)
      throw badKey(place, `behind "${prefix}" it has not ${secretBytes} bytes in base64`);
    if (secret.every((byte) => byte === 0)) throw badKey(place, "the key is zero");
    return vnetKeyOf(secret);
  } finally {
    secret.fill(0);
  }
}

/**
 * What a vnet's `key` names: an absolute path, or, without a slash, a key of this host, which is
 * looked for among systemd's credentials and then in the state directory. Says what is wrong, or
 * undefined.
 */
export function keyNameProblem(text: string): string | undefined {
  if (text.length > 4095) return "it is too long";
  if (/[\0-\x1f\x7f]/.test(text)) return "it has characters that cannot be printed";
  if (text === "" || text.endsWith("/")) return "it names no file";
  if (text.startsWith("/")) return undefined;
  if (text.includes("/")) return "a path must begin with a slash";
  if (text.length > 255) return "it is too long";
  return text === "." || text === ".." ? "it names no file" : undefined;
}

/** Where key-gen puts a key of this host, and where the daemon looks for one. */
export function keyPathIn(stateDir: string, name: string): string {
  return join(stateDir, "keys", name);
}
