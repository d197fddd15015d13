// SPDX-License-Identifier: Apache-2.0
/** What vouches for a secure vnet's hello: what it covers, and what strangers can do to it. */
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { signHello, verifyHello } from "../../src/keys/hello-auth.js";
import { decodeMessage, secretsOf, type VnetSecrets } from "../../src/keys/messages.js";
import { decodeHello, encodeHello, encodeKeyMessage, type Hello } from "../../src/wire/hello.js";
import { encodeVarp } from "../../src/wire/varp.js";
import { keyOf, vnet } from "./lib/key-hosts.js";

const secretsFor = (seed: string, id: Buffer = vnet): VnetSecrets => {
  const key = keyOf(seed);
  return secretsOf(key.id, key.secret, id);
};
const [older, newer, other] = [secretsFor("old"), secretsFor("new"), secretsFor("other")];

const hello: Hello = {
  hostId: "0a".repeat(16),
  bootNonce: "1122334455667788",
  capabilities: 1,
  underlayMtuBytes: 1500,
  hostName: "a",
  software: "vnetd 0.1.0",
  solicit: true,
  goodbye: false,
};

function announce(extension: Buffer, id: Buffer = vnet): Buffer {
  const vmac = Buffer.from("02aabbccddee", "hex");
  const address = Buffer.from("00000000000000000000ffff0a000001", "hex");
  return encodeVarp({ opcode: "announce", vnet: id, vmac, address }, extension);
}

const plain = announce(encodeHello(hello));
const suiteId = 4;
const named = ({ keyId }: VnetSecrets): string => keyId;

describe("a marked hello", () => {
  it("is known by who has the key, says which suite and keys, and is the same hello", () => {
    const message = signHello(plain, [older], suiteId);
    expect(message).toHaveLength(plain.length + 32);
    expect(verifyHello(message, [older])).toEqual({
      ok: true,
      by: older.keyId,
      keyIds: [older.keyId],
      suiteId,
    });
    const decoded = decodeHello(message.subarray(43));
    expect(decoded).toMatchObject({ ok: true, hello });
    // the mac of the documents: over everything, with the mac itself zero
    const covered = Buffer.from(message);
    covered.fill(0, covered.length - 16);
    const mac = createHmac("sha256", older.macKey).update(covered).digest().subarray(0, 16);
    expect(message.subarray(-16)).toEqual(mac);
  });

  it("is not changed where it was made, and has the same bytes each time", () => {
    const before = Buffer.from(plain);
    expect(signHello(plain, [older], suiteId)).toEqual(signHello(plain, [older], suiteId));
    expect(plain).toEqual(before);
  });

  it("while a vnet changes its secret it is known by the one and by the other", () => {
    const message = signHello(plain, [newer, older], suiteId);
    const keyIds = [newer, older].map(named);
    expect(verifyHello(message, [older])).toEqual({ ok: true, by: older.keyId, keyIds, suiteId });
    expect(verifyHello(message, [newer])).toEqual({ ok: true, by: newer.keyId, keyIds, suiteId });
    // by what the sender would rather use, whatever the receiver has first
    expect(verifyHello(message, [older, newer])).toMatchObject({ ok: true, by: newer.keyId });
  });

  it("the longest there is fits with two keys", () => {
    const addresses = Array.from({ length: 12 }, (_, at) => `10.66.2.${at}`);
    const peers = { prefixLength: 24, more: false, addresses };
    const names = { hostName: "n".repeat(63), software: "s".repeat(31), goodbye: true };
    const longest = announce(encodeHello({ ...hello, ...names, peers }));
    const message = signHello(longest, [newer, older], suiteId);
    expect(message.length).toBeLessThanOrEqual(512);
    expect(verifyHello(message, [older]).ok).toBe(true);
  });
});

describe("a stranger's hello", () => {
  it("without a mark: absent", () => {
    const absent = { ok: false, reason: "absent", keyIds: [], suiteId: 0 };
    expect(verifyHello(plain, [older])).toEqual(absent);
    expect(verifyHello(announce(encodeKeyMessage(Buffer.alloc(84))), [older])).toEqual(absent);
    for (let length = 0; length <= 60; length++)
      expect(verifyHello(plain.subarray(0, length), [older])).toEqual(absent);
  });

  it("by another key: says which, for people to compare", () => {
    const message = signHello(plain, [other], suiteId);
    const unknown = { ok: false, reason: "unknown_key", keyIds: [other.keyId], suiteId };
    expect(verifyHello(message, [newer, older])).toEqual(unknown);
  });

  it("that lies about its key, or that was made for another vnet with the same key", () => {
    const liar = { ...other, keyId: older.keyId };
    const bad = { ok: false, reason: "bad_mac", keyIds: [older.keyId], suiteId };
    expect(verifyHello(signHello(plain, [liar], suiteId), [older])).toEqual(bad);
    const id = Buffer.alloc(16, 0x98);
    const elsewhere = signHello(announce(encodeHello(hello), id), [secretsFor("old", id)], suiteId);
    expect(verifyHello(elsewhere, [older])).toEqual(bad);
  });

  it("with any bit changed, up to the end of the extension", () => {
    const message = signHello(plain, [newer, older], suiteId);
    for (let bit = 0; bit < message.length * 8; bit++) {
      const changed = Buffer.from(message);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const verdict = verifyHello(changed, [newer, older]);
      expect([bit, verdict.ok]).toEqual([bit, false]);
    }
    const behind = Buffer.concat([message, Buffer.from("not read")]);
    expect(verifyHello(behind, [older]).ok).toBe(true);
  });

  it("with marks left out, put elsewhere or put in", () => {
    const message = signHello(plain, [newer, older], suiteId);
    const [front, first, last] = [
      message.subarray(0, -64),
      message.subarray(-64, -32),
      message.subarray(-32),
    ];
    const strange = signHello(plain, [other], suiteId).subarray(-32);
    for (const marks of [[first], [last], [last, first], [strange, last], [first, last, strange]]) {
      const changed = Buffer.concat([front, ...marks]);
      changed.writeUInt16BE(changed.length - 51, 49);
      expect(verifyHello(changed, [newer, older])).toMatchObject({ ok: false, reason: "bad_mac" });
      expect(verifyHello(changed, [older]).ok).toBe(false);
    }
  });

  it("that names one key often costs no more than one that names it once", () => {
    const mark = signHello(plain, [{ ...other, keyId: older.keyId }], suiteId).subarray(-32);
    const changed = Buffer.concat([plain, ...Array.from({ length: 10 }, () => mark)]);
    changed.writeUInt16BE(changed.length - 51, 49);
    expect(verifyHello(changed, [older])).toMatchObject({
      reason: "bad_mac",
      keyIds: [older.keyId],
    });
  });

  it("is no message about keys, and no message about keys is a hello", () => {
    // one mac key serves both: the first byte tells them apart
    const message = signHello(plain, [older], suiteId);
    expect(message[0]).toBe(0);
    expect(decodeMessage(message)).toBe(undefined);
  });

  it("survives any bytes", () => {
    const message = signHello(plain, [newer, older], suiteId);
    const changes = fc.array(fc.tuple(fc.nat(message.length - 1), fc.nat(255)), { maxLength: 8 });
    fc.assert(
      fc.property(changes, fc.nat(message.length), (all, length) => {
        const bytes = Buffer.from(message);
        for (const [at, value] of all) bytes[at] = value;
        const verdict = verifyHello(bytes.subarray(0, length), [newer, older]);
        return typeof verdict.ok === "boolean";
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
        return !verifyHello(Buffer.from(bytes), [older]).ok;
      }),
    );
  });
});
