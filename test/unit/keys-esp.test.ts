// SPDX-License-Identifier: Apache-2.0
/** Keys for ESP and for messages: sizes, values that another implementation computed, and what they are bound to. */
import { createSecretKey } from "node:crypto";
import { describe, expect, it } from "vitest";
import { deriveEspKeys, suiteOf, suites, type EspContext } from "../../src/keys/esp-keys.js";
import { secretsOf } from "../../src/keys/messages.js";
import { SpiPool } from "../../src/keys/spi-pool.js";
import { keyText, seededRandom, vnet } from "./lib/key-hosts.js";

const counting = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
const context = (id: number): EspContext => ({
  vnet,
  sender: Buffer.alloc(16, 0xaa),
  receiver: Buffer.alloc(16, 0xbb),
  spi: 0x01020304,
  suite: suites.find((each) => each.id === id)!,
});

describe("ESP keys", () => {
  // HKDF of RFC 5869 written down with Python's hmac and hashlib
  it.each([
    [1, "394c85d31bf4a0117de668e246df70243471e801"],
    [2, "0fd73cdd8f6005544df01fd628d625d4e053caab1414b88a2ae4e92cc30bdfd88c210132"],
    [3, "56d54b550a3c991ce9802ad493ed054ba56bc716"],
    [4, "73018839428a9ba9389f8cb354085ca76b9504e6"],
    [5, "6100a72f0a177a08e28b467643712394f1826d436d55094f1bfd1b8543d40f5815995634"],
    [6, "87dc0bec74da18e59cd9574df5e9686dd03d1bb488bf7f8eabe4a361958b3ea884bf8f4e"],
  ])("of suite %i", (id, expected) => {
    expect(keyText(deriveEspKeys(counting, context(id)))).toBe(expected);
  });

  it.each([
    ["auth", "sha1", 0, 0, 20],
    ["conf", "sha1", 16, 0, 20],
    ["auth", "gcm", 16, 4, 0],
    ["conf", "gcm", 16, 4, 0],
    ["auth", "gcm256", 32, 4, 0],
    ["conf", "gcm256", 32, 4, 0],
  ] as const)("%s %s has the sizes of its algorithms", (level, name, cipher, salt, auth) => {
    const keys = deriveEspKeys(counting, { ...context(1), suite: suiteOf(level, name) });
    expect([keys.cipher.length, keys.salt.length, keys.auth.length]).toEqual([cipher, salt, auth]);
  });

  it("differ with everything that they are for", () => {
    const base = context(2);
    const other = Buffer.alloc(16, 0xcc);
    const variants: EspContext[] = [
      base,
      { ...base, vnet: Buffer.alloc(16, 1) },
      { ...base, sender: other },
      { ...base, receiver: other },
      { ...base, sender: base.receiver, receiver: base.sender },
      { ...base, spi: base.spi + 1 },
      ...suites.filter(({ id }) => id !== 2).map((suite) => ({ ...base, suite })),
    ];
    const starts = variants.map((each) => keyText(deriveEspKeys(counting, each)).slice(0, 24));
    starts.push(keyText(deriveEspKeys(Buffer.alloc(32), base)).slice(0, 24));
    expect(new Set(starts).size).toBe(starts.length);
  });
});

describe("what members have from a secret", () => {
  const key = createSecretKey(counting);

  it("as another implementation has it", () => {
    const { psk, macKey } = secretsOf("00", key, vnet);
    expect(psk.toString("hex")).toBe(
      "84ed9a3b77a0415379d8c86e4ee5a796e7891467b8e08655ac0852977036420c",
    );
    expect(macKey.toString("hex")).toBe(
      "911b917c5484fcd674089f4e821d8a94efacaa4e5fc63cc4a4262f784f889516",
    );
  });

  it("is of one vnet, though the key file is the same", () => {
    const [one, two] = [secretsOf("00", key, vnet), secretsOf("00", key, Buffer.alloc(16, 2))];
    expect(one.psk.equals(two.psk)).toBe(false);
    expect(one.macKey.equals(two.macKey)).toBe(false);
  });
});

describe("SPIs", () => {
  it("are never reserved ones, and none is given twice", () => {
    const numbers = [0, 255, 256, 256, 256, 7, 0xffffffff];
    const pool = new SpiPool(() => {
      const spi = Buffer.alloc(4);
      spi.writeUInt32BE(numbers.shift() ?? 0);
      return spi;
    });
    expect(pool.take()).toBe(256);
    expect(pool.take()).toBe(0xffffffff);
    pool.release(256);
    expect(pool.size).toBe(1);
    const many = new SpiPool(seededRandom("spis"));
    const taken = Array.from({ length: 1000 }, () => many.take());
    expect(new Set(taken).size).toBe(1000);
  });
});
