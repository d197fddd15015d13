// SPDX-License-Identifier: Apache-2.0
/**
 * The MAC table in real life: what is flushed, configured by hand, moved, silent or gone; and the
 * bridge and vnetif that somebody meddles with.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VarpEntry, VifInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { attachedHosts, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let ga: Guest;
let gb: Guest;
const macA = "02:00:00:00:00:0a";
const macB = "02:00:00:00:00:0b";
const id97 = longId("97");

const vifsOf = async (host: Host): Promise<VifInfo[]> =>
  (await host.vnetdJson<VifInfo[]>(["vifs"])).filter(({ vnet }) => vnet === id97);
const varpOf = async (host: Host, mac: string): Promise<VarpEntry | undefined> =>
  (await host.vnetdJson<VarpEntry[]>(["varp"])).find(
    ({ vnet, vmac }) => vnet === id97 && vmac === mac,
  );
const masterOf = async (host: Host, device: string): Promise<string | undefined> =>
  (await host.ip<{ master?: string }[]>("link", "show", "dev", device))[0]?.master;

beforeAll(async () => {
  lab = await Lab.create();
  const hosts = await attachedHosts(lab, ["a", "b"], { config: "defaultVnets: false\n" });
  [a, b] = hosts as [Host, Host];
  for (const host of hosts) await host.vnetd(["vnet-create", "97"]);
  ga = await a.guest("ga", { bridge: "vnet0097", address: "10.0.0.10/24", mac: macA });
  gb = await b.guest("gb", { bridge: "vnet0097", address: "10.0.0.11/24", mac: macB });
});
afterAll(() => lab.close());

describe("varp-flush", () => {
  it("forgets the MACs of other hosts and keeps those of this one", async () => {
    expect((await ga.ping("10.0.0.11", { count: 2 })).received).toBeGreaterThan(0);
    await eventually(async () => (await varpOf(a, macB))?.state === "learned");
    await a.vnetd(["vif-add", "97", "02:00:00:00:00:f1"]);
    // or its guest says something between the flush and the look
    await gb.exec("ip link set eth0 down");
    expect(await a.vnetdJson(["varp-flush", "97"])).toEqual({ vnets: 1 });
    expect((await varpOf(a, macB))?.state ?? "swept").toMatch(/aged|swept/);
    expect((await vifsOf(a)).map(({ vmac }) => vmac)).toEqual(
      expect.arrayContaining([macA, "02:00:00:00:00:f1"]),
    );
    await a.vnetd(["vif-delete", "97", "02:00:00:00:00:f1"]);
    await gb.exec("ip link set eth0 up");
    expect((await ga.ping("10.0.0.11", { count: 2 })).received).toBeGreaterThan(0);
  });
});

describe("the vnet's bridge", () => {
  it("gets its vnetif back when somebody takes it off", async () => {
    for (const command of ["nomaster", "master other"]) {
      await a.tryExec("ip link add other type bridge");
      await a.exec(`ip link set vnif0097 ${command}`);
      await eventually(async () => (await masterOf(a, "vnif0097")) === "vnet0097", {
        what: `the vnetif to be put back after ${command}`,
        timeoutMs: 15_000,
      });
    }
    expect(a.daemon.stderr).toMatch(/vnif0097 was not on its bridge and is put back/);
    await a.exec("ip link del other");
    expect((await ga.ping("10.0.0.11", { count: 2 })).received).toBeGreaterThan(0);
  });

  it("is made again when it was deleted", async () => {
    await a.exec("ip link del vnet0097");
    await eventually(async () => (await masterOf(a, "vnif0097")) === "vnet0097", {
      what: "the bridge to come back",
    });
    expect(a.daemon.stderr).toMatch(/bridge vnet0097 was gone and is made again/);
    await a.exec(`ip link set ${ga.port} master vnet0097`);
    expect((await ga.ping("10.0.0.11", { count: 2 })).received).toBeGreaterThan(0);
  });

  it("is put right by a daemon that was not there meanwhile", async () => {
    await a.killDaemon("SIGKILL");
    await a.exec("ip link set vnif0097 nomaster");
    await startDaemon(a, { config: "defaultVnets: false\n" });
    expect(await masterOf(a, "vnif0097")).toBe("vnet0097");
    expect(a.daemon.stderr).toMatch(/vnif0097 was not on its bridge and is put back/);
    await a.killDaemon("SIGKILL");
    await a.exec("ip link del vnet0097");
    await startDaemon(a, { config: "defaultVnets: false\n" });
    expect(await masterOf(a, "vnif0097")).toBe("vnet0097");
    expect(a.daemon.stderr).toMatch(/bridge vnet0097 was gone and is made again/);
    await a.exec(`ip link set ${ga.port} master vnet0097`);
    expect((await ga.ping("10.0.0.11", { count: 2 })).received).toBeGreaterThan(0);
  });

  it("that others use stays when its vnet is deleted, and the command says so", async () => {
    for (const args of [[], ["--json"]]) {
      await a.vnetd(["vnet-create", "98"]);
      await a.exec("ip link add foreign type veth peer name foreign2");
      await a.exec("ip link set foreign master vnet0098");
      const { stdout, stderr } = await a.vnetd(["vnet-delete", "98", ...args]);
      const said = args.length === 0 ? stderr : (JSON.parse(stdout) as { note: string }).note;
      expect(said).toMatch(/bridge vnet0098 stays.*foreign/);
      await a.exec("ip link del foreign; ip link del vnet0098");
    }
    await a.vnetd(["vnet-create", "98"]);
    expect(await a.vnetdJson(["vnet-delete", "98"])).toMatchObject({ note: null });
  });
});
