// SPDX-License-Identifier: Apache-2.0
/** Loading objects, maps of every kind, test runs. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import type { LoadedObject, LoadOptions } from "../../src/native/contract.js";
import { loadNative } from "../../src/native/load.js";
import {
  addonPath,
  compileBpf,
  errorOf,
  pinDirectory,
  pins,
  removePins,
  temporaryDirectory,
} from "./support.js";

const native = loadNative();
const work = temporaryDirectory();
let probe: string;
let pinDir: string;
let fds: number[] = [];

beforeAll(() => {
  probe = compileBpf(work, "probe");
});
afterAll(() => {
  rmSync(work, { recursive: true });
});
beforeEach(() => {
  pinDir = pinDirectory("bpf");
});
afterEach(() => {
  for (const fd of fds) native.close(fd);
  fds = [];
  removePins(pinDir);
});

function load(options: Partial<LoadOptions> = {}, path = probe): LoadedObject {
  const object = native.objectLoad(path, { pinDir, ...options });
  fds.push(...Object.values(object.programs), ...Object.values(object.maps));
  return object;
}

function fdOf(table: Record<string, number>, name: string): number {
  const fd = table[name];
  if (fd === undefined) throw new Error(`no ${name}`);
  return fd;
}

function u32(...values: number[]): Buffer {
  const buffer = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => buffer.writeUInt32LE(value, index * 4));
  return buffer;
}

function u64(...values: number[]): Buffer {
  const buffer = Buffer.alloc(values.length * 8);
  values.forEach((value, index) => buffer.writeBigUInt64LE(BigInt(value), index * 8));
  return buffer;
}

const packet = Buffer.concat([Buffer.alloc(12, 0x02), Buffer.from([0x88, 0xb5]), Buffer.alloc(46)]);
const mapNames = ["counters", "events", "flows", "prefixes", "recent", "settings", "table", "work"];

describe("objectLoad", () => {
  test("makes and pins every map and leaves internal ones out", () => {
    const object = load();
    expect(Object.keys(object.maps).sort()).toEqual(mapNames);
    expect(pins(pinDir)).toEqual(mapNames);
    expect(Object.keys(object.programs).sort()).toEqual([
      "probe_count",
      "probe_drop",
      "probe_grow",
      "probe_record",
    ]);
    expect(Object.values(object.reused)).toEqual(mapNames.map(() => false));
  });

  test("gives close-on-exec descriptors", () => {
    const object = load();
    for (const fd of [fdOf(object.maps, "table"), fdOf(object.programs, "probe_drop")]) {
      const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${String(fd)}`, "utf8"));
      expect(parseInt(flags?.[1] ?? "0", 8) & 0o2000000).not.toBe(0);
    }
  });

  test("leaks no descriptor, neither when it loads nor when it fails", () => {
    const target = (fd: string) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ""; // the descriptor of the listing itself
      }
    };
    const ours = /bpf|btf|probe/;
    const count = () => readdirSync("/proc/self/fd").filter((fd) => ours.test(target(fd))).length;
    load();
    const before = count();
    for (let i = 0; i < 5; i++) {
      load();
      for (const fd of fds.splice(-12)) native.close(fd);
      errorOf(() => native.objectLoad(probe, { pinDir, rodata: { magic: u32(1) } }));
    }
    expect(count()).toBe(before);
  });

  test("loads what is asked for, with another object's maps, and pins nothing", () => {
    const first = load();
    const table = fdOf(first.maps, "table");
    for (const pin of pins(pinDir)) rmSync(join(pinDir, pin));
    const object = native.objectLoad(probe, { shared: { table }, programs: { probe_count: true } });
    fds.push(...Object.values(object.programs), ...Object.values(object.maps));
    expect(Object.keys(object.programs)).toEqual(["probe_count"]);
    expect(pins(pinDir)).toEqual([]);
    const idOf = (loaded: LoadedObject, name: string) => native.mapInfo(fdOf(loaded.maps, name)).id;
    expect(idOf(object, "table")).toBe(idOf(first, "table"));
    expect(idOf(object, "counters")).not.toBe(idOf(first, "counters"));
    expect(object.reused).toMatchObject({ table: true, counters: false });
  });

  test("says which shared map or program does not fit", () => {
    const first = load();
    const other = fdOf(first.maps, "events");
    const failing = (options: LoadOptions) => errorOf(() => native.objectLoad(probe, options));
    expect(failing({ shared: { table: other } }).message).toContain("map table");
    expect(failing({ shared: { no_map: other } }).message).toContain('no map named "no_map"');
    expect(failing({ programs: { none: true } }).message).toContain('no program named "none"');
    const program = fdOf(first.programs, "probe_drop");
    expect(failing({ shared: { table: program } }).message).toContain("not a map");
  });

  test("takes pinned maps with what is in them, whatever maxEntries says", () => {
    const key = Buffer.alloc(22, 5);
    const first = load({ maxEntries: { table: 100 } });
    native.mapUpdate(fdOf(first.maps, "table"), key, Buffer.alloc(16, 9));
    const second = load({ maxEntries: { table: 200, recent: 50 } });
    expect(second.reused["table"]).toBe(true);
    expect(native.mapInfo(fdOf(second.maps, "table"))).toMatchObject({
      name: "table",
      maxEntries: 100,
      keySize: 22,
      valueSize: 16,
      id: native.mapInfo(fdOf(first.maps, "table")).id,
    });
    expect(native.mapInfo(fdOf(second.maps, "recent")).maxEntries).toBe(20000);
    expect(native.mapLookup(fdOf(second.maps, "table"), key)).toEqual(Buffer.alloc(16, 9));
  });

  test("names the map that is pinned with another shape, and pins nothing else", () => {
    load();
    for (const name of mapNames.filter((name) => name !== "table")) rmSync(join(pinDir, name));
    const other = compileBpf(work, "probe", ["TABLE_VALUE_BYTES=24"]);
    const error = errorOf(() => load({}, other));
    expect(error).toMatchObject({ code: "EINVAL", errno: 22, operation: "objectLoad" });
    expect(error.message).toContain(`map table at ${pinDir}/table`);
    expect(error.detail).toBe(
      "the pinned map does not fit: its value size is 16, the object's is 24",
    );
    expect(pins(pinDir)).toEqual(["table"]);
  });

  test("does not take a program's pin for a map", () => {
    const object = load();
    rmSync(join(pinDir, "table"));
    native.objectPin(fdOf(object.programs, "probe_drop"), join(pinDir, "table"));
    expect(errorOf(() => load())).toMatchObject({
      code: "EINVAL",
      detail: "the pin is not a map's",
    });
  });

  test("sets constants by name, and only those that are there and fit", () => {
    const object = load({ rodata: { verdict: u32(3), magic: u64(0xabcdef) } });
    const run = native.progTestRun(fdOf(object.programs, "probe_count"), packet);
    expect(run.retval).toBe(3);
    const stored = native.mapLookup(fdOf(object.maps, "table"), Buffer.alloc(22));
    expect(stored?.readBigUInt64LE()).toBe(0xabcdefn);
    expect(() => load({ rodata: { nothing: u32(1) } })).toThrow(RangeError);
    expect(() => load({ rodata: { magic: u32(1) } })).toThrow(/must be 8 bytes long, not 4/);
  });

  test("lets a second thread check some of the programs, on the same maps", () => {
    const object = load({
      apart: { probe_count: true, probe_drop: true },
      rodata: { verdict: u32(2) },
      maxEntries: { table: 12 },
    });
    expect(Object.keys(object.programs).sort()).toEqual(Object.keys(load().programs).sort());
    expect(pins(pinDir)).toEqual(mapNames);
    const table = native.mapInfo(fdOf(object.maps, "table"));
    expect(table.maxEntries).toBe(12);
    const { mapIds } = native.programInfo(fdOf(object.programs, "probe_count"));
    expect(mapIds).toContain(table.id);
    // each part has the constants that were asked for
    expect(native.progTestRun(fdOf(object.programs, "probe_count"), packet).retval).toBe(2);
  });

  test.each(["", ", apart: { refused: true }"])(
    "gives the verifier's words, prints nothing and takes its pins away%s",
    (apart) => {
      const refused = compileBpf(work, "refused");
      const script = `
      const native = require(${JSON.stringify(addonPath)});
      try { native.objectLoad(${JSON.stringify(refused)}, { pinDir: ${JSON.stringify(pinDir)}${apart} }); }
      catch (error) { console.log(JSON.stringify({ ...error, message: error.message })); }`;
      const output = execFileSync(process.execPath, ["-e", script], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      });
      const error = JSON.parse(output) as { code: string; detail: string; message: string };
      expect(error.code).toBe("EACCES");
      expect(error.detail).toContain("invalid access to packet");
      expect(error.detail).toContain("failed to load");
      expect(error.detail.length).toBeLessThanOrEqual(4096);
      expect(error.message).not.toContain("\n");
      expect(pins(pinDir)).toEqual([]);
      const silent = execFileSync("sh", [
        "-c",
        `"$0" -e "$1" 2>&1 >/dev/null`,
        process.execPath,
        script,
      ]);
      expect(silent.toString()).toBe("");
    },
  );

  test("tells a file that is missing, is no object, and a pinDir that is no bpffs", () => {
    expect(errorOf(() => load({}, join(work, "none"))).code).toBe("ENOENT");
    const text = join(work, "text.o");
    writeFileSync(text, "no object at all".repeat(10));
    expect(errorOf(() => load({}, text)).code).toBe("ENOEXEC");
    const error = errorOf(() => load({ pinDir: join(work, "no-bpffs") }));
    expect(error.code).toBe("EINVAL");
    expect(error.detail).toContain("is not on BPF FS");
  });

  test("refuses names of maps that are not there", () => {
    expect(() => load({ maxEntries: { tables: 5 } })).toThrow(/no map named "tables"/);
    expect(pins(pinDir)).toEqual([]);
  });
});

describe("pins", () => {
  test("are opened and made, for maps and programs", () => {
    const object = load();
    const drop = fdOf(object.programs, "probe_drop");
    native.objectPin(drop, join(pinDir, "drop"));
    const again = native.objectGet(join(pinDir, "drop"));
    fds.push(again);
    expect(native.programId(again)).toBe(native.programId(drop));
    expect(native.programId(again)).toBeGreaterThan(0);
    expect(errorOf(() => native.objectPin(drop, join(pinDir, "drop"))).code).toBe("EEXIST");
    expect(errorOf(() => native.objectGet(join(pinDir, "nothing"))).code).toBe("ENOENT");
    expect(errorOf(() => native.mapInfo(again)).detail).toBe("not a BPF map");
    expect(errorOf(() => native.programId(fdOf(object.maps, "table"))).code).toBe("EINVAL");
  });

  test("of programs tell their names, and the maps that they use", () => {
    const { maps, programs } = load();
    const { id, name, mapIds, jited } = native.programInfo(fdOf(programs, "probe_count"));
    expect({ id, name, jited }).toEqual({
      id: native.programId(fdOf(programs, "probe_count")),
      name: "probe_count",
      jited: true,
    });
    expect(mapIds).toContain(native.mapInfo(fdOf(maps, "table")).id);
    expect(native.programInfo(fdOf(programs, "probe_drop")).mapIds).not.toContain(
      native.mapInfo(fdOf(maps, "table")).id,
    );
    expect(errorOf(() => native.programInfo(fdOf(maps, "table"))).code).toBe("EINVAL");
  });
});

describe("maps", () => {
  test("hash: update with flags, lookup, delete", () => {
    const table = fdOf(load().maps, "table");
    const key = Buffer.alloc(22, 1);
    const value = Buffer.alloc(16, 2);
    expect(native.mapLookup(table, key)).toBeUndefined();
    expect(errorOf(() => native.mapUpdate(table, key, value, 2)).code).toBe("ENOENT");
    native.mapUpdate(table, key, value, 1);
    expect(errorOf(() => native.mapUpdate(table, key, value, 1)).code).toBe("EEXIST");
    expect(native.mapLookup(table, key)).toEqual(value);
    expect(native.mapDelete(table, key)).toBe(true);
    expect(native.mapDelete(table, key)).toBe(false);
  });

  test("hash: a full one says so", () => {
    const table = fdOf(load({ maxEntries: { table: 2 } }).maps, "table");
    const add = (i: number) => {
      native.mapUpdate(table, Buffer.alloc(22, i), Buffer.alloc(16));
    };
    add(1);
    add(2);
    expect(
      errorOf(() => {
        add(3);
      }),
    ).toMatchObject({ code: "E2BIG", errno: 7 });
  });

  test("dump: every entry of a large hash once, in a few batches", () => {
    const recent = fdOf(load({ maxEntries: { recent: 60000 } }).maps, "recent");
    const size = 20000;
    for (let i = 0; i < size; i++) native.mapUpdate(recent, u32(i), u32(i * 3));
    const dump = native.mapDump(recent);
    expect(dump.count).toBe(size);
    expect(dump.keys.length).toBe(size * 4);
    const seen = new Map<number, number>();
    for (let i = 0; i < dump.count; i++) {
      seen.set(dump.keys.readUInt32LE(i * 4), dump.values.readUInt32LE(i * 4));
    }
    expect(seen.size).toBe(size);
    expect([...seen].every(([key, value]) => value === key * 3)).toBe(true);
  });

  test("dump: arrays, tries, an empty map; queues have no keys", () => {
    const { maps } = load();
    native.mapUpdate(fdOf(maps, "settings"), u32(1), u32(11));
    expect(native.mapDump(fdOf(maps, "settings"))).toEqual({
      count: 3,
      keys: u32(0, 1, 2),
      values: u32(0, 11, 0),
    });
    expect(native.mapDump(fdOf(maps, "settings"), 2)).toEqual({
      count: 2,
      keys: u32(0, 1),
      values: u32(0, 11),
    });
    expect(native.mapDump(fdOf(maps, "settings"), 0).count).toBe(0);
    expect(errorOf(() => native.mapDump(fdOf(maps, "settings"), -1))).toBeInstanceOf(RangeError);
    const trie = fdOf(maps, "prefixes");
    native.mapUpdate(trie, Buffer.from([8, 0, 0, 0, 10, 0, 0, 0]), u32(1));
    native.mapUpdate(trie, Buffer.from([16, 0, 0, 0, 10, 1, 0, 0]), u32(2));
    const dump = native.mapDump(trie);
    expect(dump.count).toBe(2);
    expect([dump.values.readUInt32LE(0), dump.values.readUInt32LE(4)].sort()).toEqual([1, 2]);
    expect(native.mapDump(trie, 1).count).toBe(1);
    expect(native.mapDump(fdOf(maps, "table")).count).toBe(0);
    expect(errorOf(() => native.mapDump(fdOf(maps, "work"))).code).toBe("EOPNOTSUPP");
  });

  test("per-CPU maps are summed over CPUs, word by word", () => {
    const { maps, programs } = load();
    const counters = fdOf(maps, "counters");
    native.mapUpdate(counters, u32(0), u64(1000, 5));
    native.progTestRun(fdOf(programs, "probe_count"), packet, { repeat: 10 });
    // test runs may happen on any CPU; the sum is what counts. __sk_buff's len is the whole frame
    expect(native.mapLookup(counters, u32(0))).toEqual(u64(1010, 5 + 10 * packet.length));
    const dump = native.mapDump(counters);
    expect(dump.count).toBe(8);
    expect(dump.values.subarray(0, 16)).toEqual(u64(1010, 5 + 10 * packet.length));
    const flows = fdOf(maps, "flows");
    for (let i = 0; i < 1000; i++) native.mapUpdate(flows, u32(i), u64(i, 2 * i));
    const all = native.mapDump(flows);
    expect(all.count).toBe(1000);
    for (let i = 0; i < all.count; i++) {
      const key = all.keys.readUInt32LE(i * 4);
      expect(all.values.subarray(i * 16, i * 16 + 16)).toEqual(u64(key, 2 * key));
    }
  });

  test("a per-CPU value is on CPU 0 only", () => {
    const counters = fdOf(load().maps, "counters");
    native.mapUpdate(counters, u32(2), u64(7, 8));
    native.mapUpdate(counters, u32(2), u64(9, 10));
    expect(native.mapLookup(counters, u32(2))).toEqual(u64(9, 10));
  });

  test("queues are pushed with an empty key", () => {
    const queue = fdOf(load().maps, "work");
    const none = new Uint8Array(0);
    expect(native.mapLookup(queue, none)).toBeUndefined();
    native.mapUpdate(queue, none, u32(21));
    native.mapUpdate(queue, none, u32(22));
    expect(native.mapLookup(queue, none)).toEqual(u32(21));
    native.mapUpdate(queue, none, u32(23));
    native.mapUpdate(queue, none, u32(24));
    expect(errorOf(() => native.mapUpdate(queue, none, u32(25))).code).toBe("E2BIG");
  });
});

describe("progTestRun", () => {
  test("gives verdict, mark, packet and time", () => {
    const { programs } = load({ rodata: { verdict: u32(2) } });
    const count = fdOf(programs, "probe_count");
    const plain = native.progTestRun(count, packet);
    expect(plain).toMatchObject({ retval: 2, mark: 1, data: packet });
    expect(plain.durationNs).toBeGreaterThan(0);
    expect(native.progTestRun(count, packet, { mark: 41, repeat: 1 }).mark).toBe(42);
  });

  test("a packet may grow, by default within 256 bytes", () => {
    const grow = fdOf(load().programs, "probe_grow");
    const run = native.progTestRun(grow, packet);
    expect(run.retval).toBe(-1);
    expect(run.data.length).toBe(packet.length + 100);
    expect(run.data.subarray(0, packet.length)).toEqual(packet);
    expect(native.progTestRun(grow, packet, { outSize: packet.length + 100 }).data.length).toBe(
      160,
    );
    expect(errorOf(() => native.progTestRun(grow, packet, { outSize: 100 })).code).toBe("ENOSPC");
  });

  test("passes fields of __sk_buff on, and what the kernel says to them", () => {
    const count = fdOf(load().programs, "probe_count");
    expect(native.progTestRun(count, packet, { ifindex: 1, gsoSize: 20, gsoSegs: 2 }).retval).toBe(
      7,
    );
    expect(errorOf(() => native.progTestRun(count, packet, { ifindex: 99999 })).code).toBe(
      "ENODEV",
    );
    expect(errorOf(() => native.progTestRun(count, packet.subarray(0, 5))).code).toBe("EINVAL");
    expect(errorOf(() => native.progTestRun(count, packet, { gsoSegs: 1e6 })).code).toBe("EINVAL");
  });
});
