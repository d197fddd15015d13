// SPDX-License-Identifier: Apache-2.0
/** Hostile and careless arguments: an error of JavaScript's kind, never a crash or a wild read. */
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Native } from "../../src/native/contract.js";
import { loadFrom, loadNative } from "../../src/native/load.js";
import {
  compileBpf,
  errorOf,
  here,
  pinDirectory,
  removePins,
  temporaryDirectory,
} from "./support.js";

const native = loadNative();
const anything = native as unknown as Record<string, (...parameters: unknown[]) => unknown>;
const work = temporaryDirectory();
let pinDir: string;
let tableFd: number;
let programFd: number;
let fileFd: number;

beforeAll(() => {
  fileFd = openSync("/dev/null", "r");
  pinDir = pinDirectory("arguments");
  const object = native.objectLoad(compileBpf(work, "probe"), { pinDir });
  tableFd = object.maps["table"] ?? -1;
  programFd = object.programs["probe_drop"] ?? -1;
});
afterAll(() => {
  closeSync(fileFd);
  removePins(pinDir);
  rmSync(work, { recursive: true });
});

function call(name: string, ...parameters: unknown[]): unknown {
  const operation = anything[name];
  if (operation === undefined) throw new Error(`no operation ${name}`);
  return operation(...parameters);
}

test("the addon has exactly the contract's operations", () => {
  const contract = readFileSync(`${here}/../../src/native/contract.ts`, "utf8");
  const body = contract.slice(contract.indexOf("export interface Native {"));
  const names = [...body.matchAll(/^ {2}(\w+)\(/gm)].map((match) => match[1]);
  expect(names.length).toBeGreaterThan(30);
  expect(Object.keys(native).sort()).toEqual(names.sort());
});

test("every operation refuses nothing at all, null, and objects in place of everything", () => {
  const withoutArguments = [
    "linkList",
    "addressList",
    "bridgeFdbList",
    "xfrmStateList",
    "xfrmPolicyList",
    "memoryHide",
  ];
  const mayHaveNone = ["netnsIdentity"];
  const takesFunction = ["netlinkMonitor", "xfrmMonitor"];
  const takesLists = ["tcxLacking"];
  const odd = [null, {}, [], "", Number.NaN, -1, 1.5, 2 ** 53, Symbol("x"), () => undefined, 10n];
  for (const name of Object.keys(native).filter((name) => !withoutArguments.includes(name))) {
    if (!mayHaveNone.includes(name)) expect(() => call(name), name).toThrow(TypeError);
    for (const value of odd) {
      if (takesFunction.includes(name) && typeof value === "function") continue;
      if (takesLists.includes(name) && Array.isArray(value)) continue;
      const error = errorOf(() => call(name, value, value, value, value, value));
      expect(
        error instanceof TypeError || error instanceof RangeError,
        `${name} ${error.message}`,
      ).toBe(true);
      expect(error.message.startsWith(`${name}: `)).toBe(true);
    }
  }
});

describe("keys and values", () => {
  const key = new Uint8Array(22);
  const value = new Uint8Array(16);

  test.each([
    ["mapLookup", [new Uint8Array(21)]],
    ["mapLookup", [new Uint8Array(23)]],
    ["mapDelete", [new Uint8Array(0)]],
    ["mapUpdate", [key, new Uint8Array(15)]],
    ["mapUpdate", [new Uint8Array(1), value]],
    ["mapUpdate", [key, value, 4]],
    ["mapUpdate", [key, value, -1]],
  ])("%s of a wrong size or flag (%#)", (name, parameters) => {
    expect(() => call(name, tableFd, ...parameters)).toThrow(RangeError);
  });

  test.each([
    [new Uint16Array(11)],
    [new DataView(new ArrayBuffer(22))],
    ["a".repeat(22)],
    [[1, 2]],
  ])("a key that is no Uint8Array (%#)", (notBytes) => {
    expect(() => call("mapLookup", tableFd, notBytes)).toThrow(TypeError);
  });

  test("bytes whose memory was taken away are empty", () => {
    const moved = new Uint8Array(22);
    structuredClone(moved.buffer, { transfer: [moved.buffer] });
    expect(() => call("mapLookup", tableFd, moved)).toThrow(/must be 22 bytes long, not 0/);
  });

  test("a getter that takes the packet's memory away does no harm", () => {
    const data = new Uint8Array(60);
    const result = native.progTestRun(programFd, data, {
      get mark(): number {
        structuredClone(data.buffer, { transfer: [data.buffer] });
        return 5;
      },
    });
    expect(result.mark).toBe(5);
    expect(result.data.length).toBe(60);
  });

  test("a view into the middle of memory", () => {
    const memory = new Uint8Array(64).fill(9);
    const view = memory.subarray(10, 32);
    native.mapUpdate(tableFd, view, value);
    expect(native.mapLookup(tableFd, new Uint8Array(22).fill(9))).toEqual(Buffer.from(value));
  });

  test("what a getter throws comes through", () => {
    expect(() =>
      native.objectLoad("/x", {
        get pinDir(): string {
          throw new Error("from the getter");
        },
      }),
    ).toThrow("from the getter");
  });
});

describe("descriptors that are something else", () => {
  test.each<[keyof Native, unknown[]]>([
    ["mapInfo", []],
    ["mapLookup", [new Uint8Array(22)]],
    ["mapDump", []],
    ["programId", []],
    ["progTestRun", [new Uint8Array(60)]],
    ["tcxAttach", [1, "ingress", "/sys/fs/bpf/a-none"]],
    ["clsactAttach", [1, "egress", 1, 1]],
    ["objectPin", ["/sys/fs/bpf/a-none"]],
    ["ringConsume", [() => undefined]],
    ["peerCredentials", []],
  ])("%s", (name, rest) => {
    for (const fd of [fileFd, 1_000_000]) {
      const error = errorOf(() => call(name, fd, ...rest));
      expect(["EINVAL", "EBADF", "ENOTSOCK", "EAFNOSUPPORT"]).toContain(error.code);
      expect(error.operation).toBe(name);
    }
  });

  test("a map where a program should be, and the other way round", () => {
    expect(errorOf(() => call("progTestRun", tableFd, new Uint8Array(60))).code).toBe("EINVAL");
    expect(errorOf(() => call("mapDump", programFd)).code).toBe("EINVAL");
    expect(errorOf(() => call("tcxAttach", tableFd, 1, "ingress", `${pinDir}/x`)).code).toBe(
      "EINVAL",
    );
  });
});

describe("texts", () => {
  test.each([
    ["linkGet", ["a/b"]],
    ["linkGet", ["a b"]],
    ["linkGet", [".."]],
    ["linkGet", ["veth%d"]],
    ["linkGet", ["sixteen-letters-"]],
    ["linkGet", ["nul\0byte"]],
    ["linkAddBridge", [{ name: "ok", alias: "x".repeat(256) }]],
    ["linkAddBridge", [{ name: "ok", mac: "02:00:00:00:00" }]],
    ["linkAddBridge", [{ name: "ok", mac: "02-00-00-00-00-01" }]],
    ["linkAddBridge", [{ name: "ok", mac: "02:00:00:00:00:0g" }]],
    ["linkSet", [1, { mtuBytes: 0 }]],
    ["linkSet", [0, { up: true }]],
    ["addressAdd", [1, "10.0.0", 8, false]],
    ["addressAdd", [1, "10.0.0.1", 33, false]],
    ["addressAdd", [1, "fe80::1", 129, false]],
    ["addressAdd", [1, "fe80::1%lo", 64, false]],
    ["clsactAttach", [1, 1, "sideways", 1, 1]],
    ["clsactQuery", [1, "ingress", 0, 1]],
    ["clsactQuery", [1, "ingress", 65536, 1]],
    ["objectGet", ["x".repeat(4096)]],
    ["objectLoad", ["/x", { pinDir: "relative" }]],
    ["objectLoad", ["/x", { pinDir: "/x", maxEntries: { table: 0 } }]],
    ["udpSocket", [{ device: "lo", address: "127.0.0.1", port: 65536, multicastTtl: 1 }]],
    ["udpSocket", [{ device: "lo", address: "127.0.0.1", port: 1, multicastTtl: 256 }]],
    ["progTestRun", [0, new Uint8Array(60), { repeat: 0 }]],
    ["progTestRun", [0, new Uint8Array(60), { outSize: 2 ** 30 }]],
    ["sdNotify", ["x".repeat(5000)]],
  ])("%s (%#)", (name, parameters) => {
    expect(() => call(name, ...parameters)).toThrow(RangeError);
  });

  test.each([
    ["linkSet", [1, { up: 1 }]],
    ["linkSet", [1, "up"]],
    ["featuresSet", ["lo", { "rx-gro": "on" }]],
    ["addressAdd", [1, "10.0.0.1", 8]],
    ["objectLoad", ["/x", { pinDir: "/x", rodata: { a: [1] } }]],
    [
      "udpSocket",
      [{ device: "lo", address: "127.0.0.1", port: 1, multicastTtl: 1, dontFragment: 1 }],
    ],
    ["netlinkMonitor", [{}]],
  ])("%s of a wrong type (%#)", (name, parameters) => {
    expect(() => call(name, ...parameters)).toThrow(TypeError);
  });
});

test("load errors say what to do", () => {
  const missing = errorOf(() => loadFrom("/nowhere/vnetd.node")) as unknown as { hint: string };
  expect(missing.hint).toContain("make all");
  const broken = errorOf(() => loadFrom(`${here}/probe.bpf.c`)) as unknown as { message: string };
  expect(broken.message).toContain("cannot be loaded");
});
