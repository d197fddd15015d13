// SPDX-License-Identifier: Apache-2.0
/**
 * SAs, policies and xfrm interfaces as far as every kernel has them: where it has no ESP, the error
 * says which option is missing. With ESP: test/vm/xfrm.test.ts.
 */
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { XfrmPolicy, XfrmState } from "../../src/native/contract.js";
import { suites } from "../../src/keys/esp-keys.js";
import { loadNative } from "../../src/native/load.js";
import { errorOf, Namespace } from "./support.js";

const native = loadNative();
let ns: Namespace;

beforeEach(() => {
  ns = new Namespace("xfrm");
});
afterEach(async () => {
  await ns.close();
});

const ends = { source: "10.0.0.1", destination: "10.0.0.2" };
const base = {
  ...ends,
  spi: 0x1000,
  reqid: 7,
  mode: "beet",
  esn: true,
  replayWindow: 128,
} as const;
const authentication = () => ({ name: "hmac(sha1)", key: randomBytes(20), icvBits: 96 });
const states: [string, () => XfrmState][] = [
  [
    "gcm",
    () => ({ ...base, aead: { name: "rfc4106(gcm(aes))", key: randomBytes(20), icvBits: 128 } }),
  ],
  [
    "cbc",
    () => ({
      ...base,
      encryption: { name: "cbc(aes)", key: randomBytes(16) },
      authentication: authentication(),
    }),
  ],
  [
    "null over IPv6",
    () => ({
      ...{ ...base, source: "fd00::1", destination: "fd00::2" },
      encryption: { name: "ecb(cipher_null)", key: Buffer.alloc(0) },
      authentication: authentication(),
    }),
  ],
];

describe("an SA", () => {
  test.each(states)("%s: is there, or what the kernel lacks is named", async (_name, make) => {
    const state = make();
    const secret = Buffer.from((state.aead ?? state.authentication)!.key).toString("hex");
    const { keys, error } = await ns.run.xfrmAddAndShow(state);
    if (error === undefined) {
      expect(await ns.run.xfrmStateList()).toMatchObject([
        { destination: state.destination, spi: 0x1000, mode: "beet", esn: true },
      ]);
    } else {
      const family = state.source.includes(":") ? "INET6_ESP" : "INET_ESP";
      expect(error).toMatch(new RegExp(`the kernel lacks CONFIG_(CRYPTO_\\w+|${family})`));
      expect(error).not.toContain(secret.slice(0, 8));
      expect(await ns.run.xfrmStateList()).toEqual([]);
    }
    // wiped where the caller had them, whatever came
    for (const key of keys) expect(Buffer.from(key).every((byte) => byte === 0)).toBe(true);
    const id = { destination: state.destination, spi: state.spi };
    expect(await ns.run.xfrmStateDelete(id)).toBe(error === undefined);
    expect(await ns.run.xfrmStateDelete(id)).toBe(false);
    expect(await ns.run.xfrmStateGet(id)).toBeUndefined();
  });

  test("wrong arguments change nothing, and quote no key", () => {
    const key = Buffer.alloc(20, 0x61);
    const good = () => ({ ...base, aead: { name: "rfc4106(gcm(aes))", key, icvBits: 128 } });
    const wrong: [object, RegExp][] = [
      [{ spi: 255 }, /spi must be from 256/],
      [{ mode: "tunnel" }, /mode must be/],
      [{ source: "fd00::1" }, /one family/],
      [{ replayWindow: 5000 }, /replayWindow/],
      [{ replayWindow: 0 }, /replayWindow/],
      [{ aead: { name: "rfc4106(gcm(aes))", key: "aaaa", icvBits: 128 } }, /Uint8Array/],
      [{ aead: { name: "x".repeat(64), key, icvBits: 128 } }, /at most 63 bytes/],
      [{ aead: { name: "x", key: Buffer.alloc(65), icvBits: 128 } }, /more than 64/],
      [{ limits: { softPackets: -1 } }, /softPackets/],
      [{ outputMark: { value: 1 } }, /outputMark/],
    ];
    for (const [change, says] of wrong) {
      const error = errorOf(() => native.xfrmStateAdd({ ...good(), ...change }));
      expect(error.message).toMatch(says);
      expect(error.message).not.toContain("aaaa");
    }
  });
});

describe("policies", () => {
  const id = { ...ends, direction: "out", ifId: 5, mark: { value: 1, mask: 0xff } } as const;
  const template = { ...ends, reqid: 7, mode: "beet", spi: 0x1000 } as const;
  const policy: XfrmPolicy = { ...id, priority: 100, template };

  test("are added, replaced in place, listed and deleted", async () => {
    await ns.run.xfrmPolicySet(policy);
    const listed = {
      ...id,
      ...{ sourcePrefix: 32, destinationPrefix: 32, priority: 100, action: "allow" },
    };
    expect(await ns.run.xfrmPolicyList()).toEqual([{ ...listed, templates: [template] }]);
    await ns.run.xfrmPolicySet({ ...policy, template: { ...template, spi: 0x2000 } });
    const [changed, ...more] = await ns.run.xfrmPolicyList();
    expect(changed?.templates).toEqual([{ ...template, spi: 0x2000 }]);
    expect(more).toEqual([]);
    expect(await ns.run.xfrmPolicyDelete({ ...id, ifId: 6 })).toBe(false);
    expect(await ns.run.xfrmPolicyDelete({ ...id, mark: { value: 2, mask: 0xff } })).toBe(false);
    expect(await ns.run.xfrmPolicyDelete(id)).toBe(true);
    expect(await ns.run.xfrmPolicyDelete(id)).toBe(false);
    expect(await ns.run.xfrmPolicyList()).toEqual([]);
  });

  test("without a template block, as ip xfrm sees it too", async () => {
    await ns.run.xfrmPolicySet({
      ...{ direction: "in", priority: 7, source: "fd00::", sourcePrefix: 64 },
      ...{ destination: "::", destinationPrefix: 0 },
    });
    const text = ns.exec("ip", "xfrm", "policy", "list");
    expect(text).toMatch(/src fd00::\/64 dst ::\/0/);
    expect(text).toMatch(/dir in action block priority 7/);
    expect((await ns.run.xfrmPolicyList())[0]).toMatchObject({ action: "block", templates: [] });
  });
});

test("an xfrm interface is made, or what the kernel lacks is named", async () => {
  try {
    await ns.run.linkAddXfrm({ name: "xf0", ifId: 5, mtuBytes: 1400, alias: "vnetd: a test" });
  } catch (error) {
    expect(error).toMatchObject({ code: "EOPNOTSUPP", operation: "linkAddXfrm" });
    expect((error as Error).message).toContain("CONFIG_XFRM_INTERFACE (module xfrm_interface)");
    expect(await ns.run.linkGet("xf0")).toBeUndefined();
    return;
  }
  expect(await ns.run.linkGet("xf0")).toMatchObject({ kind: "xfrm", mtuBytes: 1400 });
});

describe("what secure vnets ask of a kernel", () => {
  test("can be had, or is named by option and module; nothing is left", async () => {
    const before = await ns.run.linkList();
    const problem = await ns.run.esp("problem");
    expect(await ns.run.xfrmStateList()).toEqual([]);
    expect(await ns.run.linkList()).toEqual(before);
    const sha1 = await ns.run.esp("problem", suites[1]);
    if (problem === undefined) expect(sha1).toBeUndefined();
    else expect(problem).toMatch(/it lacks CONFIG_\w+.*\(modules? \w+.*: modprobe -a \w+/);
    // what one suite lacks all lack
    for (const [option] of sha1?.matchAll(/CONFIG_\w+/g) ?? []) expect(problem).toContain(option);
  });

  test("is taken away where there was none of it", async () => {
    await ns.run.esp("removeAll", new Set());
    await ns.run.esp("removeDevice", 7);
    expect(await ns.run.esp("stats")).toEqual([]);
    expect(await ns.run.esp("policies")).toEqual([]);
  });
});

test("lists of one interface's SAs and policies leave others' out", async () => {
  const template = { ...ends, reqid: 7, mode: "beet" } as const;
  for (const ifId of [0x76000005, 0x76000006, 0x75000005, undefined]) {
    const id = { ...ends, direction: "out", ...(ifId === undefined ? {} : { ifId }) } as const;
    await ns.run.xfrmPolicySet({ ...id, priority: 1, template });
  }
  const listed = async (value: number, mask: number) =>
    (await ns.run.xfrmPolicyList({ value, mask })).map(({ ifId }) => ifId).sort();
  expect(await listed(0x76000000, 0xff000000)).toEqual([0x76000005, 0x76000006]);
  expect(await listed(0x76000006, 0xffffffff)).toEqual([0x76000006]);
  expect(await ns.run.xfrmPolicyList()).toHaveLength(4);
  expect(await ns.run.xfrmStateList({ value: 0x76000000, mask: 0xff000000 })).toEqual([]);
});

test("the monitor can be begun and ended", async () => {
  const handle = await ns.run.xfrmEvents();
  await ns.run.stop(handle);
  expect(ns.eventsOf(handle)).toEqual([]);
});
