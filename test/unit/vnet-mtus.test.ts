// SPDX-License-Identifier: Apache-2.0
/** Which vnets' devices lack their MTU: shown while it lasts, and said once. */
import { beforeEach, describe, expect, it } from "vitest";
import { VnetMtus } from "../../src/controller/vnet-mtus.js";
import type { Log } from "../../src/log.js";
import type { LinkInfo, Native } from "../../src/native/contract.js";

/** devices whose MTU the kernel refuses to change */
let stuck: Set<string>;
/** and those that are gone */
let gone: Set<string>;
let said: string[];
let mtus: VnetMtus;

beforeEach(() => {
  [stuck, gone, said] = [new Set(), new Set(), []];
  const native = {
    linkSet: (ifindex: number) => {
      const name = `eth${String(ifindex)}`;
      const code = gone.has(name) ? "ENODEV" : stuck.has(name) ? "EINVAL" : undefined;
      if (code !== undefined) throw Object.assign(new Error(`linkSet: ${code}`), { code });
    },
  } as unknown as Native;
  const log = { say: (_event: string, text: string) => void said.push(text) } as unknown as Log;
  mtus = new VnetMtus({ native, log });
});

const link = (ifindex: number): LinkInfo =>
  ({ ifindex, name: `eth${String(ifindex)}`, mtuBytes: 1500 }) as LinkInfo;
/** All devices of a vnet. */
const setAll = (id: string, ...ifindexes: number[]): void =>
  mtus.setAll(id, (set) => {
    for (const ifindex of ifindexes) set(link(ifindex), 9000);
  });
const refused = (ifindex: number): string =>
  `MTU of eth${String(ifindex)}: EINVAL, so it stays at 1500 instead of 9000`;

describe("an MTU that cannot be set", () => {
  it("is a problem until it could be set, and is said once", () => {
    stuck.add("eth1");
    for (let round = 0; round < 3; round += 1) setAll("a", 1, 2);
    expect(mtus.problems()).toEqual([`vnet a: ${refused(1)}`]);
    expect([mtus.areAllSet, mtus.hasFailed("a"), mtus.hasFailed("b")]).toEqual([
      false,
      true,
      false,
    ]);
    stuck.clear();
    setAll("a", 1, 2);
    expect(mtus.problems()).toEqual([]);
    expect(mtus.areAllSet).toBe(true);
    stuck.add("eth1");
    setAll("a", 1, 2);
    expect(said).toEqual([`vnet a: ${refused(1)}`, `vnet a: ${refused(1)}`]);
  });

  it("is none of a device that went away meanwhile", () => {
    gone.add("eth1");
    setAll("a", 1, 2);
    expect(mtus.problems()).toEqual([]);
    expect(said).toEqual([]);
  });

  it("does not keep the vnet's other device from its own", () => {
    stuck.add("eth1").add("eth2");
    setAll("a", 1, 2);
    expect(mtus.problems()).toEqual([`vnet a: ${refused(1)}; ${refused(2)}`]);
    stuck.delete("eth1");
    setAll("a", 1, 2);
    expect(mtus.problems()).toEqual([`vnet a: ${refused(2)}`]);
    expect(said).toHaveLength(2);
  });

  it("of a device alone stands beside what else the vnet lacks", () => {
    stuck.add("eth1").add("eth2");
    setAll("a", 1);
    for (let round = 0; round < 2; round += 1) mtus.set("a", link(2), 9000);
    expect(mtus.problems()).toEqual([`vnet a: ${refused(1)}; ${refused(2)}`]);
    expect(said).toHaveLength(2);
  });

  it("is a problem too where the devices could not be asked for", () => {
    mtus.setAll("a", () => {
      throw Object.assign(new Error("linkGet: ENOBUFS"), { code: "ENOBUFS" });
    });
    expect(mtus.problems()).toEqual(["vnet a: MTU: ENOBUFS"]);
  });

  it("is forgotten with the vnet", () => {
    stuck.add("eth1");
    setAll("a", 1);
    mtus.forget("a");
    expect(mtus.problems()).toEqual([]);
  });

  it("of many vnets fills a few lines", () => {
    for (let each = 1; each <= 100; each += 1) {
      stuck.add(`eth${String(each)}`);
      setAll(`v${String(each)}`, each);
    }
    expect(mtus.problems()).toHaveLength(6);
    expect(mtus.problems()[5]).toBe("MTUs of 95 more vnets could not be set");
  });
});
