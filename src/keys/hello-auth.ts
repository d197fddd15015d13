// SPDX-License-Identifier: Apache-2.0
/**
 * What vouches for a secure vnet's hello: for each key that the sender takes a TLV with its suite, the key's id and a
 * mac by the key, the last ones of the extension (docs/security.md, "Hellos of a secure vnet").
 *
 * Each mac is over the whole message up to the end of the extension, with all of these TLVs' macs zero: so over the
 * vnet, the MAC, the address that it announces, everything that it says, and which keys it names and in which order. A
 * recorded hello can be repeated by anybody: it is a hint, and what it starts proves itself. Pure;
 * what comes from the wire is hostile: nothing here throws for it.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { VnetdVarp, vnetdExt } from "../generated/layouts.js";
import {
  authTlvBytes,
  decodeHello,
  encodeAuth,
  extendedBy,
  extensionEnd,
  helloMacBytes,
  type HelloAuth,
} from "../wire/hello.js";
import type { VnetSecrets } from "./messages.js";

interface Named {
  /** that the sender takes, the one that it begins exchanges with first */
  keyIds: string[];
  /** of the sender; 0: it says none */
  suiteId: number;
}

export type HelloVerdict =
  /** `by`: the first of its keys that this host has */
  | ({ ok: true; by: string } & Named)
  /** nothing of it is authentic but, for people, worth a look */
  | ({ ok: false; reason: "absent" | "unknown_key" | "bad_mac" } & Named);

/** `varpMessage` is whole, with a hello that bears no mark yet; `keys` as in Named.keyIds. */
export function signHello(
  varpMessage: Buffer,
  keys: readonly VnetSecrets[],
  suiteId: number,
): Buffer {
  const marks = keys.map(({ keyId }) => encodeAuth(suiteId, keyId));
  const front = varpMessage.subarray(0, VnetdVarp.size);
  const extension = extendedBy(varpMessage.subarray(VnetdVarp.size), marks);
  const message = Buffer.concat([front, extension]);
  if (message.length > vnetdExt.VARP_MAX_LEN)
    throw new RangeError(`a hello of ${String(message.length)} bytes is too long`);
  const macs = keys.map(({ macKey }) => macOf(macKey, message));
  for (const [at, mac] of macs.entries()) message.set(mac, macAt(message, keys.length, at));
  return message;
}

/** `message` is a whole VARP message as it came, `secrets` are those of its vnet. */
export function verifyHello(message: Buffer, secrets: readonly VnetSecrets[]): HelloVerdict {
  const trailing = message.subarray(VnetdVarp.size);
  const decoded = decodeHello(trailing);
  const auth = decoded.ok ? (decoded.hello.auth ?? []) : [];
  const named = {
    keyIds: [...new Set(auth.map(({ keyId }) => keyId))],
    suiteId: auth[0]?.suiteId ?? 0,
  };
  if (auth.length === 0) return { ok: false, reason: "absent", ...named };
  const known = knownOf(auth, named.keyIds, secrets);
  const [first] = known;
  if (first === undefined) return { ok: false, reason: "unknown_key", ...named };
  const covered = coveredBytes(message, auth.length);
  const isRight = ({ mark, secret }: Known): boolean =>
    timingSafeEqual(macOf(secret.macKey, covered), mark.mac);
  // an honest sender has all of them right
  if (!known.every(isRight)) return { ok: false, reason: "bad_mac", ...named };
  return { ok: true, by: first.secret.keyId, ...named, suiteId: first.mark.suiteId };
}

interface Known {
  mark: HelloAuth;
  secret: VnetSecrets;
}

/** One for each of our keys at most, however often it is named: what a stranger makes us compute is bounded. */
function knownOf(
  auth: readonly HelloAuth[],
  keyIds: readonly string[],
  secrets: readonly VnetSecrets[],
): Known[] {
  return keyIds.flatMap((id) => {
    const mark = auth.find(({ keyId }) => keyId === id);
    const secret = secrets.find(({ keyId }) => keyId === id);
    return mark === undefined || secret === undefined ? [] : [{ mark, secret }];
  });
}

/** The message as it was before its macs were put in. */
function coveredBytes(message: Buffer, marks: number): Buffer {
  const end = VnetdVarp.size + extensionEnd(message.subarray(VnetdVarp.size));
  const covered = Buffer.from(message.subarray(0, end));
  for (let at = 0; at < marks; at += 1) {
    const from = macAt(covered, marks, at);
    covered.fill(0, from, from + helloMacBytes);
  }
  return covered;
}

/** Where the mac of one of `marks` TLVs stands, which end where the message does. */
function macAt(message: Buffer, marks: number, at: number): number {
  return message.length - (marks - at) * authTlvBytes + authTlvBytes - helloMacBytes;
}

function macOf(macKey: Uint8Array, covered: Uint8Array): Buffer {
  return createHmac("sha256", macKey).update(covered).digest().subarray(0, helloMacBytes);
}
