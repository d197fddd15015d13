// SPDX-License-Identifier: Apache-2.0
/** The state directory: what is kept, what fails, and what is left after a failure or a kill. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addressToText } from "../../src/base/address.js";
import { macFromBytes } from "../../src/base/mac.js";
import { VnetdError } from "../../src/base/errors.js";
import { deviceNameProblem } from "../../src/base/ifname.js";
import { vnetIdFromBytes } from "../../src/base/vnet-id.js";
import type { VnetConfig } from "../../src/config/vnet-file.js";
import { nodeFiles, type Files } from "../../src/store/atomic-file.js";
import { StateDirectory } from "../../src/store/state-directory.js";
import { idOfCount } from "./lib/state-count.js";
import {
  emptyState,
  parseHost,
  parseState,
  printHost,
  printState,
  type DaemonState,
} from "../../src/store/state-file.js";
import { makeOutputDirectory, transpile } from "./lib/transpile.js";

const free = (): boolean => true;
const vnet97: VnetConfig = {
  id: "0000:0000:0000:0000:0000:0000:0000:0097",
  bridge: null,
  vnetif: "vnif97",
  security: "none",
  key: null,
  suite: null,
  encapsulation: null,
};

const vif = { vnet: vnet97.id, vmac: "02:00:00:00:00:01", static: true };
const remote = {
  vnet: vnet97.id,
  vmac: "02:00:00:00:00:02",
  address: "192.0.2.1",
  device: null,
};

let directory: string;
beforeEach(() => {
  directory = fs.mkdtempSync(join(tmpdir(), "vnetd-store-"));
});
afterEach(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

function errorOf(action: () => unknown): VnetdError {
  try {
    action();
  } catch (error) {
    if (error instanceof VnetdError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const names = fc.uniqueArray(
  fc
    .string({ unit: "binary", minLength: 1, maxLength: 15 })
    .filter((name) => deviceNameProblem(name) === undefined && name !== "none"),
  { maxLength: 5 },
);
const ids = fc.uniqueArray(
  fc
    .uint8Array({ minLength: 16, maxLength: 16 })
    .map(vnetIdFromBytes)
    .filter((id) => !/^[0:]*[01]$/.test(id)),
  { maxLength: 5 },
);
const macs = fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => macFromBytes(bytes));
const addresses = fc
  .uint8Array({ minLength: 16, maxLength: 16 })
  .map((bytes) => addressToText(bytes));
const states: fc.Arbitrary<DaemonState> = fc.record({
  vnets: fc.tuple(ids, names, names).map(([vnetIds, vnetifs, bridges]) =>
    vnetIds.map((id, index): VnetConfig => ({
      id,
      vnetif: vnetifs[index] ?? `v${index}`,
      bridge: bridges[index] ?? null,
      security: "conf",
      key: index % 2 === 0 ? null : `/keys/${vnetifs[index] ?? "v"}.key`,
      suite: index % 2 === 0 ? "gcm" : null,
      ...(index % 3 === 0 ? { previousKey: "before.key" } : {}),
      encapsulation: index % 2 === 0 ? "udp" : null,
    })),
  ),
  deletedBuiltIns: ids,
  attached: names,
  xdp: names,
  vifs: fc
    .tuple(ids, macs, fc.boolean())
    .map(([vnetIds, vmac, isStatic]) => vnetIds.map((vnet) => ({ vnet, vmac, static: isStatic }))),
  remotes: fc
    .tuple(ids, macs, addresses, names)
    .map(([vnetIds, vmac, address, devices]) =>
      vnetIds.map((vnet, index) => ({ vnet, vmac, address, device: devices[index] ?? null })),
    ),
  peers: fc
    .uniqueArray(fc.tuple(fc.ipV4(), fc.option(fc.integer({ min: 1, max: 65535 }))), {
      selector: ([address]) => address,
      maxLength: 4,
    })
    .map((all): DaemonState["peers"] =>
      all.flatMap(([address, port], at) => [
        { peer: `name${at}.example.org`, port, addresses: [address] },
        { peer: `10.0.0.${at + 1}`, port, addresses: [], ...(at > 1 ? { fromFile: true } : {}) },
      ]),
    ),
  ports: fc
    .tuple(ids, names)
    .map(([vnetIds, devices]) =>
      devices.map((device, at) => ({ vnet: vnetIds[at] ?? vnet97.id, device })),
    ),
  applied: ids.map((vnets) =>
    vnets.length === 0 ? [] : [{ directory: "/etc/vnetd/a b", vnets: [...vnets] }],
  ),
});

describe("the files' text", () => {
  it("reads back as it was printed", () => {
    fc.assert(
      fc.property(states, (state) => {
        expect(parseState(printState(state), "f")).toEqual(state);
      }),
    );
    expect(parseHost(printHost("0".repeat(32)), "f")).toBe("0".repeat(32));
  });

  it("can be read by a person", () => {
    const state = {
      ...emptyState(),
      vnets: [vnet97],
      attached: ["eth0"],
      xdp: ["eth0"],
      vifs: [vif],
      remotes: [remote],
      peers: [
        { peer: "10.0.0.1", port: null, addresses: [] },
        { peer: "x.example", port: 1799, addresses: ["10.0.0.2"], fromFile: true as const },
      ],
      ports: [{ vnet: vnet97.id, device: "tap0" }],
      applied: [{ directory: "/etc/vnetd/vnets", vnets: [vnet97.id] }],
    };
    expect(printState(state)).toBe(
      [
        "# Written by vnetd, whole at every change. Edit it only while the daemon is stopped.",
        "version: 1",
        "vnets:",
        '  - id: "0000:0000:0000:0000:0000:0000:0000:0097"',
        "    bridge: null",
        '    vnetif: "vnif97"',
        "    security: none",
        "deletedBuiltIns: []",
        "attached:",
        '  - "eth0"',
        "xdp:",
        '  - "eth0"',
        "vifs:",
        '  - vnet: "0000:0000:0000:0000:0000:0000:0000:0097"',
        '    vmac: "02:00:00:00:00:01"',
        "    static: true",
        "remotes:",
        '  - vnet: "0000:0000:0000:0000:0000:0000:0000:0097"',
        '    vmac: "02:00:00:00:00:02"',
        '    address: "192.0.2.1"',
        "    device: null",
        "peers:",
        '  - peer: "10.0.0.1"',
        "    port: null",
        "    addresses: []",
        '  - peer: "x.example"',
        "    port: 1799",
        '    addresses: ["10.0.0.2"]',
        "    fromFile: true",
        "ports:",
        '  - vnet: "0000:0000:0000:0000:0000:0000:0000:0097"',
        '    device: "tap0"',
        "applied:",
        '  - directory: "/etc/vnetd/vnets"',
        '    vnets: ["0000:0000:0000:0000:0000:0000:0000:0097"]',
        "",
      ].join("\n"),
    );
  });

  const valid = printState({
    ...emptyState(),
    vnets: [vnet97],
    attached: ["eth0"],
    deletedBuiltIns: [vnet97.id],
    vifs: [vif],
    remotes: [remote],
    peers: [{ peer: "x.example", port: 1799, addresses: ["10.0.0.2"] }],
    applied: [{ directory: "/etc/vnetd/vnets", vnets: [vnet97.id] }],
  });
  const storedPeer = '  - peer: "x.example"\n    port: 1799\n    addresses: ["10.0.0.2"]\n';
  it.each([
    ["nothing", "", "STATE_UNREADABLE"],
    ["comments", "# x\n", "STATE_UNREADABLE"],
    ["zeros", "\0".repeat(100), "STATE_UNREADABLE"],
    ["a part of it", valid.slice(0, valid.length / 4), "STATE_UNREADABLE"],
    ["no version", valid.replace("version: 1\n", ""), "STATE_UNREADABLE"],
    ["an odd version", valid.replace("version: 1", "version: one"), "STATE_UNREADABLE"],
    [
      "a newer version",
      valid.replace("version: 1", "version: 2").replace("vnets:", "newThings:"),
      "STATE_VERSION",
    ],
    ["an unknown key", `${valid}colour: red\n`, "STATE_UNREADABLE"],
    ["a key twice", `${valid}attached: []\n`, "STATE_UNREADABLE"],
    [
      "a vnet twice",
      valid.replace("deletedBuiltIns:", `  - id: 97\ndeletedBuiltIns:`),
      "STATE_UNREADABLE",
    ],
    ["a bad id", valid.replace(/id: "[^"]*"/, "id: 0"), "STATE_UNREADABLE"],
    ["a bad name", valid.replace("vnif97", "vnif/97"), "STATE_UNREADABLE"],
    [
      "a list that is none",
      valid.replace('attached:\n  - "eth0"', "attached: eth0"),
      "STATE_UNREADABLE",
    ],
    ["a peer twice", valid.replace(storedPeer, storedPeer + storedPeer), "STATE_UNREADABLE"],
    ["a directory that is none", valid.replace('"/etc/vnetd', '"etc/vnetd'), "STATE_UNREADABLE"],
    [
      "a vnet of two directories",
      `${valid}  - directory: "/b"\n    vnets: ["97"]\n`,
      "STATE_UNREADABLE",
    ],
    ["a bad peer", valid.replace("x.example", "224.0.0.1"), "STATE_UNREADABLE"],
    ["a bad port", valid.replace("port: 1799", "port: 70000"), "STATE_UNREADABLE"],
    ["a peer's bad address", valid.replace("10.0.0.2", "10.0.0.256"), "STATE_UNREADABLE"],
    ["a peer's odd key", valid.replace("- peer:", "- colour: red\n    peer:"), "STATE_UNREADABLE"],
    ["a peer that is none", valid.replace(storedPeer, "  - x\n"), "STATE_UNREADABLE"],
    ["a key missing", valid.replace('attached:\n  - "eth0"\n', ""), "STATE_UNREADABLE"],
    ["a vif that is none", valid.replace("static: true", "static: yes"), "STATE_UNREADABLE"],
    [
      "a vif with more",
      valid.replace("static: true", "static: true\n    x: y"),
      "STATE_UNREADABLE",
    ],
    ["a vif with less", valid.replace("    static: true\n", ""), "STATE_UNREADABLE"],
    ["a MAC that is none", valid.replace("02:00:00:00:00:02", "02:00"), "STATE_UNREADABLE"],
    ["an address that is none", valid.replace("192.0.2.1", "192.0.2"), "STATE_UNREADABLE"],
    [
      "a vif twice",
      valid.replace("remotes:", "  - {vnet: 97, vmac: 02-00-00-00-00-01, static: false}\nremotes:"),
      "STATE_UNREADABLE",
    ],
    ["a name twice", valid.replace('  - "eth0"\n', '  - "eth0"\n  - "eth0"\n'), "STATE_UNREADABLE"],
  ])("%s is not taken for a state", (_name, text, code) => {
    fs.writeFileSync(join(directory, "state.yaml"), text);
    const error = errorOf(() => StateDirectory.open(directory, free));
    expect(error.code).toBe(code);
    expect(error.message).toContain(join(directory, "state.yaml"));
    expect(error.place?.source).toBe(join(directory, "state.yaml"));
    expect(error.hint).toBeTruthy();
    expect(fs.readFileSync(join(directory, "state.yaml"), "utf8")).toBe(text);
  });

  it("without configured entries, as an older one is, is read", () => {
    const older = printState(emptyState()).replace(/^(vifs|remotes|peers): \[\]\n/gm, "");
    expect(older).not.toContain("vifs");
    expect(parseState(older, "f")).toEqual(emptyState());
  });

  it("random changes of it yield a state or an error that names the file", () => {
    const changed = fc
      .tuple(fc.nat(valid.length), fc.nat(10), fc.string({ unit: "binary", maxLength: 4 }))
      .map(([at, remove, insert]) => valid.slice(0, at) + insert + valid.slice(at + remove));
    fc.assert(
      fc.property(changed, (text) => {
        try {
          expect(parseState(printState(parseState(text, "f")), "f")).toBeDefined();
        } catch (error) {
          if (!(error instanceof VnetdError)) throw error;
          expect(["STATE_UNREADABLE", "STATE_VERSION"]).toContain(error.code);
          expect(error.place?.source).toBe("f");
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe("the directory", () => {
  it("keeps what was updated, and its host id, over openings", () => {
    const path = join(directory, "a/b");
    const first = StateDirectory.open(path, free);
    expect(first.state).toEqual(emptyState());
    expect(first.hostId).toMatch(/^[0-9a-f]{32}$/);
    first.update((draft) => draft.vnets.push(vnet97));
    first.update((draft) => draft.attached.push("eth0"));
    first.close();
    first.close();
    expect(errorOf(() => first.update(() => undefined)).code).toBe("INTERNAL");
    const second = StateDirectory.open(path, free);
    expect(second.state).toEqual({ ...emptyState(), vnets: [vnet97], attached: ["eth0"] });
    expect(second.hostId).toBe(first.hostId);
    expect(
      parseState(fs.readFileSync(join(path, "state.yaml.previous"), "utf8"), "f").attached,
    ).toEqual([]);
    expect(fs.statSync(path).mode & 0o777).toBe(0o700);
    expect(fs.statSync(join(path, "state.yaml")).mode & 0o777).toBe(0o600);
    second.close();
    const other = StateDirectory.open(join(directory, "c"), free);
    expect(other.hostId).not.toBe(first.hostId);
    other.close();
  });

  it("is one daemon's alone, and says whose", () => {
    const holder = StateDirectory.open(directory, free);
    const error = errorOf(() => StateDirectory.open(directory, () => false));
    expect(error.code).toBe("STATE_LOCKED");
    expect(error.message).toContain(`pid ${process.pid}`);
    expect(error.message).toContain(directory);
    holder.update((draft) => draft.attached.push("eth0"));
    expect(fs.readFileSync(join(directory, "lock"), "utf8")).toBe(`${process.pid}\n`);
    holder.close();
  });

  it("leaves the state alone when a change throws half-way", () => {
    const store = StateDirectory.open(directory, free);
    store.update((draft) => draft.attached.push("eth0"));
    expect(() =>
      store.update((draft) => {
        draft.attached.push("eth1");
        throw new VnetdError("NAME_IN_USE", "x");
      }),
    ).toThrow("x");
    expect(store.state.attached).toEqual(["eth0"]);
    store.close();
  });

  it("removes what a crash left half-written", () => {
    fs.writeFileSync(join(directory, "state.yaml.tmp"), "version: 1\nvne");
    const store = StateDirectory.open(directory, free);
    expect(store.state).toEqual(emptyState());
    expect(fs.readdirSync(directory).sort()).toEqual(["host.yaml", "lock"]);
    store.close();
  });

  it("refuses a file that is no text, and one that is too large", () => {
    fs.writeFileSync(join(directory, "state.yaml"), Buffer.from([0xff, 0xfe, 0x00]));
    expect(errorOf(() => StateDirectory.open(directory, free))).toMatchObject({
      code: "STATE_UNREADABLE",
    });
    fs.truncateSync(join(directory, "state.yaml"), 16 << 20);
    expect(errorOf(() => StateDirectory.open(directory, free)).message).toContain("too large");
    fs.rmSync(join(directory, "state.yaml"));
    fs.writeFileSync(join(directory, "host.yaml"), "version: 1\nhostId: 5\n");
    expect(errorOf(() => StateDirectory.open(directory, free)).message).toContain("host.yaml");
  });

  it("says so when the directory cannot be made or opened", () => {
    fs.writeFileSync(join(directory, "file"), "");
    expect(errorOf(() => StateDirectory.open(join(directory, "file"), free)).code).toBe(
      "STATE_UNWRITABLE",
    );
    expect(errorOf(() => StateDirectory.open(join(directory, "file/x"), free)).code).toBe(
      "STATE_UNWRITABLE",
    );
  });
});

describe("when a step of a write fails", () => {
  type Step = "openSync" | "writeSync" | "fsyncSync" | "renameSync";
  /** Node's files, but the n-th call of one step fails, after a short write where it writes. */
  function failing(step: Step, code: string, nth: number): Files & { armed: boolean } {
    let calls = 0;
    const fail = (): void => {
      if (files.armed && ++calls === nth) throw Object.assign(new Error(code), { code });
    };
    const files = {
      ...nodeFiles,
      armed: false,
      [step]: (...args: unknown[]): unknown => {
        fail();
        return (nodeFiles[step] as (...all: unknown[]) => unknown)(...args);
      },
    };
    if (step === "writeSync") {
      files.writeSync = ((fd: number, bytes: Buffer, offset: number): number => {
        fail();
        return nodeFiles.writeSync(fd, bytes, offset, 1);
      }) as typeof fs.writeSync;
    }
    return files;
  }

  it.each([
    ["openSync", "ENOSPC", 1],
    ["openSync", "EROFS", 1],
    ["writeSync", "ENOSPC", 1],
    ["writeSync", "ENOSPC", 40],
    ["writeSync", "EIO", 2],
    ["fsyncSync", "EIO", 1],
    ["renameSync", "EIO", 1],
    ["fsyncSync", "EIO", 2],
  ] as const)(
    "%s with %s (call %i): the old state stays, in memory and on disk",
    (step, code, nth) => {
      const files = failing(step, code, nth);
      const store = StateDirectory.open(directory, free, files);
      store.update((draft) => draft.attached.push("eth0"));
      const before = fs.readFileSync(join(directory, "state.yaml"), "utf8");
      files.armed = true;
      const error = errorOf(() => store.update((draft) => draft.attached.push("eth1")));
      expect(error).toMatchObject({
        code: "STATE_UNWRITABLE",
        place: { source: join(directory, "state.yaml") },
      });
      expect(error.message).toContain(code);
      expect(error.hint).toContain("Nothing was changed.");
      expect(store.state.attached).toEqual(["eth0"]);
      expect(fs.readFileSync(join(directory, "state.yaml"), "utf8")).toBe(before);
      expect(fs.readdirSync(directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);
      store.update((draft) => draft.attached.push("eth2"));
      store.close();
      const again = StateDirectory.open(directory, free);
      expect(again.state.attached).toEqual(["eth0", "eth2"]);
      again.close();
    },
  );
});

describe("when the writer is killed", () => {
  it("the last whole state is there, whatever the instant", async () => {
    const output = makeOutputDirectory();
    try {
      const writer = transpile("test/unit/lib/state-writer.ts", output);
      let reached = 0;
      for (let round = 0; round < 8; round++) {
        const child = spawn(process.execPath, [writer, directory], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        await once(child.stdout, "data");
        await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 60));
        child.kill("SIGKILL");
        await once(child, "exit");
        const store = StateDirectory.open(directory, free);
        const { attached, deletedBuiltIns } = store.state;
        if (attached.length > 0) {
          expect(attached).toHaveLength(200);
          const count = Number(attached[0]?.slice(1));
          expect(deletedBuiltIns).toEqual([idOfCount(count)]);
          expect(count).toBeGreaterThanOrEqual(reached);
          reached = count;
        }
        expect(fs.readdirSync(directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);
        store.close();
      }
      expect(reached).toBeGreaterThan(0);
    } finally {
      fs.rmSync(output, { recursive: true, force: true });
    }
  }, 60_000);
});
