// SPDX-License-Identifier: Apache-2.0
/**
 * Maps of one layout taken over into those of another, with what secure vnets hold in them: SAs are named by
 * the numbers of next hops, and outlive the maps, so the numbers must stay.
 */
import { mkdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseVnetId } from "../../src/base/vnet-id.js";
import { carryOver } from "../../src/dataplane/carry-over.js";
import { Control, MacBatch, nexthopRequest } from "../../src/dataplane/control.js";
import { DirectMaps } from "../../src/dataplane/direct-maps.js";
import {
  finishGeneration,
  openGeneration,
  type Generation,
} from "../../src/dataplane/generation.js";
import { VnetTable, type VnetSettings, type VnetSlot } from "../../src/dataplane/vnet-table.js";
import {
  vnetdControlOp,
  vnetdFdbFlags,
  vnetdNexthopFlags,
  vnetdSecurity,
} from "../../src/generated/layouts.js";
import { createLog } from "../../src/log.js";
import { loadNative } from "../../src/native/load.js";
import { mappedBytes } from "../lib/bytes.js";

const object = (path: string): string =>
  fileURLToPath(new URL(`../../build/bpf/${path}`, import.meta.url));
const bpffs = `/sys/fs/bpf/vnetd-carry-${process.pid}`;
/** the kernel checks all programs once for each table: on a busy machine that takes its time */
const patienceMs = 60_000;
const native = loadNative();
const generations: Generation[] = [];

beforeAll(() => mkdirSync(bpffs, { mode: 0o700 }));
afterAll(() => {
  for (const { programs } of generations)
    for (const fd of Object.values(programs)) native.close(fd);
  rmSync(bpffs, { recursive: true, force: true });
});

function open(path: string): { generation: Generation; control: Control } {
  const options = { bpffs, objectPath: object(path), fdbEntries: 1000, nexthops: 50 };
  const generation = openGeneration(native, options);
  generations.push(generation);
  const { vnetd_control: run, vnetd_send: send } = generation.programs;
  return { generation, control: new Control(native, run!, send!) };
}

const settings: VnetSettings = {
  ...{ security: vnetdSecurity.SECURITY_CONF, vnif: 0, vnifPeer: 0, vmac: Buffer.alloc(6) },
  ...{ maxEntries: 100, maxEntriesPerHost: 100, maxHosts: 100, ageMs: 1000 },
  ...{ floodPerSecond: 0, floodBurst: 0, probeNonce: 0n, encap: 0 },
  suppress: { maxNeighbours: 10, neighbourAgeMs: 1000 },
};
const host = (number: number): Uint8Array => mappedBytes(`10.1.0.${number}`);

it(
  "hosts keep their numbers and keys, SAs and members what they name",
  () => {
    const { generation: old, control } = open("vnetd.bpf.o");
    const table = new VnetTable(native, old.maps);
    const vnet: VnetSlot = { slot: 1, handle: 11 };
    const gone: VnetSlot = { slot: 2, handle: 12 };
    table.write(parseVnetId("98"), vnet, settings);
    table.write(parseVnetId("99"), gone, settings);
    const ifindex = 3;
    // 1 to 6; those with even numbers are of a vnet that is deleted then, 5 has another path, which is 3
    const made = [1, 2, 3, 4, 5, 6, 7].map((number) =>
      control.keys({
        ...(number % 2 === 0 ? gone : vnet),
        ifindex,
        addr: host(number),
        spi: 100 + number,
      }),
    );
    expect(made.map(({ nexthop }) => nexthop)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    control.keys({ ...vnet, ifindex, addr: host(1), spi: 0 });
    const five = old.maps.nexthop(5)!;
    const request = nexthopRequest({ ...five, other: 3, host: host(5) }, old.maps.nexthops());
    control.run({ ...request, nexthopFlags: vnetdNexthopFlags.NEXTHOP_MEMBER });
    for (const number of [3, 5, 6, 7]) {
      const { nexthop, gen } = made[number - 1]!;
      // of 7 the record was given to another host since
      const record = { nexthop, gen: number === 7 ? gen + 1 : gen, source: host(number), ifindex };
      old.maps.setSpi(0x1000 + number, {
        ...record,
        ...vnet,
        security: 2,
        suite: 2,
        keyId: Buffer.alloc(8, 7),
      });
    }
    old.maps.setSecureMembers(vnet.handle, [
      { nexthop: 5, gen: made[4]!.gen },
      { nexthop: 7, gen: made[6]!.gen + 1 },
      { nexthop: 3, gen: made[2]!.gen },
    ]);
    // two direct ports, and a MAC behind the second, which does not age
    const ports = new DirectMaps(native, old.maps);
    for (const port of [21, 22]) ports.setPort(port, { ...vnet, flags: port & 1 });
    ports.setList(vnet.handle, [22, 21]);
    table.setPorts(vnet, true);
    const mac = Buffer.from("020000000022", "hex");
    const op = vnetdControlOp.CTL_LEARN_LOCAL;
    const fdbFlags = vnetdFdbFlags.FDB_STATIC;
    expect(control.run({ ...vnet, op, mac, gen: 22, fdbFlags })).toBe("ok");
    // two neighbours, one of them forgotten, and one of the vnet that is deleted
    const neighbour = { mac, flags: 1, slot: vnet.slot, heardNs: 77n };
    old.maps.enterNeighbour({ handle: vnet.handle, addr: host(1) }, neighbour);
    old.maps.enterNeighbour({ handle: vnet.handle, addr: host(2) }, { ...neighbour, heardNs: 0n });
    old.maps.enterNeighbour(
      { handle: gone.handle, addr: host(1) },
      { ...neighbour, slot: gone.slot },
    );
    table.remove(parseVnetId("99"), gone);
    finishGeneration(native, old, 13);

    const { generation, control: next } = open("next/vnetd.bpf.o");
    expect(generation.fresh).toBe(true);
    const warnings: string[] = [];
    const log = createLog({ write: (line) => void warnings.push(line) });
    expect(carryOver(native, { generation, control: next, log })).toBe(13);

    expect(warnings.join("")).toMatch(/carried over 1 vnets/);
    const hops = generation.maps.nexthops();
    const seen = [...hops].map(([id, { key, spi, other }]) => [id, key.addr[15], spi, other]);
    expect(seen.sort(([x], [y]) => x! - y!)).toEqual([
      [1, 1, 0, 0],
      [3, 3, 103, 0],
      [5, 5, 105, 3],
      [7, 7, 107, 0],
    ]);
    const gens = new Map([...hops].map(([id, { gen }]) => [id, gen]));
    const spis = [...generation.maps.spis()].map(([spi, { nexthop, gen }]) => [spi, nexthop, gen]);
    expect(spis.sort()).toEqual([
      [0x1003, 3, gens.get(3)],
      [0x1005, 5, gens.get(5)],
    ]);
    expect(generation.maps.secureMembers(vnet.handle)).toEqual([
      { nexthop: 5, gen: gens.get(5) },
      { nexthop: 3, gen: gens.get(3) },
    ]);
    const carried = new DirectMaps(native, generation.maps);
    expect(carried.ports()).toEqual(ports.ports());
    expect(carried.list(vnet.handle)).toEqual([22, 21]);
    expect(generation.maps.vnet(vnet.slot)?.flags).toBe(old.maps.vnet(vnet.slot)?.flags);
    expect(generation.maps.fdbEntry({ handle: vnet.handle, mac })).toMatchObject({
      ...{ nexthop: 0, gen: 22 },
    });
    expect(generation.maps.neighbours()).toMatchObject([
      {
        key: { handle: vnet.handle, addr: Buffer.from(host(1)) },
        entry: { heardNs: 77n, flags: 1 },
      },
    ]);
    expect(generation.maps.vnetCounts(vnet.slot).neighbours).toBe(1);
    // numbers that were not used come after those that were
    const { nexthop } = next.keys({ ...vnet, ifindex, addr: host(9), spi: 1 });
    expect(nexthop).toBe(2);
  },
  patienceMs,
);

it(
  "a list of members is never short of one while it changes",
  () => {
    const { generation } = open("vnetd.bpf.o");
    const { maps } = generation;
    const members = (...ids: number[]) => ids.map((nexthop) => ({ nexthop, gen: 1 }));
    for (const ids of [[1, 2, 3], [2, 3], [], [4], [4, 5, 6, 7], [7]]) {
      maps.setSecureMembers(500, members(...ids));
      expect(maps.secureMembers(500)).toEqual(members(...ids));
    }
    expect(maps.secureMembers(501)).toEqual([]);
  },
  patienceMs,
);

describe("a table", () => {
  const many = 20_000;
  const settingsOf = { ...settings, security: 0, ageMs: 600_000 };
  const macOf = (n: number): Buffer => Buffer.from([2, 0, 0, n >> 16, (n >> 8) & 255, n & 255]);
  const vnet: VnetSlot = { slot: 3, handle: 21 };
  const seenNs = process.hrtime.bigint();

  /** with room for so many, in a directory of its own: maps that are there keep their sizes */
  function openWith(
    path: string,
    fdbEntries: number,
  ): { generation: Generation; control: Control } {
    const dir = `${bpffs}/many`;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const generation = openGeneration(native, {
      ...{ bpffs: dir, objectPath: object(path), fdbEntries, nexthops: 50 },
    });
    generations.push(generation);
    const { vnetd_control: run, vnetd_send: send } = generation.programs;
    return { generation, control: new Control(native, run!, send!) };
  }

  it(
    "of many MACs is loaded in batches, with the counts and limits of single ones",
    () => {
      const { generation, control } = openWith("vnetd.bpf.o", many + 1000);
      const limits = { maxEntries: many + 2, maxEntriesPerHost: many };
      new VnetTable(native, generation.maps).write(parseVnetId("97"), vnet, {
        ...settingsOf,
        ...limits,
      });
      const behind = { ...vnet, ifindex: 3, addr: host(1), fdbFlags: 0 };
      const batch = new MacBatch();
      for (let n = 0; n < many; n += 1) {
        batch.add(macOf(n), seenNs - BigInt(n % 1000) * 1_000_000n);
        if (batch.isFull || n === many - 1) {
          const { count } = batch;
          expect(control.learnMany(behind, batch)).toMatchObject({ entered: count, reason: "ok" });
        }
      }
      expect(generation.maps.vnetCounts(vnet.slot)).toMatchObject({ entries: many, hosts: 1 });
      // one more is too much for its host, and the vnet has room for two
      for (const n of [0, many]) batch.add(macOf(n), seenNs);
      const refused = { entered: 1, reason: "refused_host_limit" };
      expect(control.learnMany(behind, batch)).toMatchObject(refused);
      for (const n of [1, 2, 3]) batch.add(macOf(many + n), seenNs);
      batch.add(Buffer.from("030000000001", "hex"), seenNs);
      const local = { ...vnet, ifindex: 0, fdbFlags: vnetdFdbFlags.FDB_STATIC };
      expect(control.learnMany(local, batch).entered).toBe(2);
      expect(generation.maps.vnetCounts(vnet.slot)).toMatchObject({ entries: many + 2, local: 2 });
      finishGeneration(native, generation, 22);
    },
    patienceMs,
  );

  it(
    "is carried over whole, with when each MAC was heard",
    () => {
      const before = generations.at(-1)!;
      const { generation, control } = openWith("next/vnetd.bpf.o", many + 1000);
      const log = createLog({ write: () => undefined });
      expect(carryOver(native, { generation, control, log })).toBe(22);
      expect(generation.maps.vnetCounts(vnet.slot)).toMatchObject({ entries: many + 2, local: 2 });
      for (const n of [0, 1, 999, many - 1, many + 1]) {
        const key = { handle: vnet.handle, mac: macOf(n) };
        const [old, now] = [before.maps.fdbEntry(key)!, generation.maps.fdbEntry(key)!];
        expect([now.slot, now.flags]).toEqual([old.slot, old.flags]);
        // in milliseconds, by two clocks
        const apartMs = Math.abs(Number(now.seenNs - old.seenNs)) / 1e6;
        expect(apartMs).toBeLessThan(1000);
        expect(generation.maps.nexthop(now.nexthop)?.key.addr[15]).toBe(n < many ? 1 : 0);
      }
    },
    patienceMs,
  );
});
