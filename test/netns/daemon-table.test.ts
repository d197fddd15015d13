// SPDX-License-Identifier: Apache-2.0
/**
 * The MAC table in real life: what is flushed, configured by hand, moved, silent or gone; and the
 * bridge and vnetif that somebody meddles with.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VarpEntry, VifInfo } from "../../src/api/contract.js";
import { macToBytes } from "../../src/base/mac.js";
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
const config = { config: "defaultVnets: false\n" };

const vifsOf = async (host: Host): Promise<VifInfo[]> =>
  (await host.vnetdJson<VifInfo[]>(["vifs"])).filter(({ vnet }) => vnet === id97);
const vifOf = async (host: Host, mac: string): Promise<VifInfo | undefined> =>
  (await vifsOf(host)).find(({ vmac }) => vmac === mac);
const varpOf = async (host: Host, mac: string): Promise<VarpEntry | undefined> =>
  (await host.vnetdJson<VarpEntry[]>(["varp"])).find(
    ({ vnet, vmac }) => vnet === id97 && vmac === mac,
  );
/** The daemon is killed, and everything of it in the kernel is gone. */
async function reboot(host: Host): Promise<void> {
  await host.killDaemon("SIGKILL");
  for (const { ifname } of await host.ip<{ ifname: string }[]>("link", "show"))
    if (/^vn/.test(ifname)) await host.tryExec(["ip", "link", "del", ifname]);
  await lab.execInSwitch(`rm -rf ${host.bpffs}`);
  await startDaemon(host, config);
}

async function refused(args: readonly string[], code: string): Promise<void> {
  const { stderr, ...result } = await a.tryVnetd([...args, "--json"]);
  expect({ ...result, error: JSON.parse(stderr) as unknown }).toMatchObject({
    code: 1,
    stdout: "",
    error: { code, hint: expect.stringMatching(/./) as unknown },
  });
}

const masterOf = async (host: Host, device: string): Promise<string | undefined> =>
  (await host.ip<{ master?: string }[]>("link", "show", "dev", device))[0]?.master;

beforeAll(async () => {
  lab = await Lab.create();
  const hosts = await attachedHosts(lab, ["a", "b"], config);
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
    await startDaemon(a, config);
    expect(await masterOf(a, "vnif0097")).toBe("vnet0097");
    expect(a.daemon.stderr).toMatch(/vnif0097 was not on its bridge and is put back/);
    await a.killDaemon("SIGKILL");
    await a.exec("ip link del vnet0097");
    await startDaemon(a, config);
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

describe("vif-add", () => {
  const vmac = "02:00:00:00:00:31";

  it("enters a MAC that has not spoken: announced at once, and kept over a reboot", async () => {
    expect(await a.vnetdJson(["vif-add", "97", vmac])).toMatchObject({
      vnet: id97,
      vmac,
      state: "added",
      ageSeconds: null,
    });
    await eventually(async () => (await varpOf(b, vmac))?.address === "10.66.1.1");
    await reboot(a);
    expect(await vifOf(a, vmac)).toMatchObject({ state: "added", ageSeconds: null });
    await a.exec(`ip link set ${ga.port} master vnet0097`);
  });

  it("lets the MAC go with a guest that is heard elsewhere, and has it back with the guest", async () => {
    const moving = await b.guest("gm", { bridge: "vnet0097", address: "10.0.0.31/24", mac: vmac });
    await moving.ping("10.0.0.10", { count: 1 });
    await eventually(async () => (await varpOf(a, vmac))?.address === "10.66.1.2");
    expect(await vifOf(a, vmac)).toBeUndefined();
    // a restart does not claim it
    await a.killDaemon();
    await startDaemon(a, config);
    expect((await varpOf(a, vmac))?.address).toBe("10.66.1.2");
    await moving.moveTo(a, "vnet0097");
    await moving.ping("10.0.0.11", { count: 1 });
    await eventually(async () => (await vifOf(a, vmac))?.state === "added");
    await moving.unplug();
    await a.vnetd(["vif-delete", "97", vmac]);
    expect(await vifOf(a, vmac)).toBeUndefined();
    await a.killDaemon();
    await startDaemon(a, config);
    expect(await vifOf(a, vmac)).toBeUndefined();
    await refused(["vif-delete", "97", vmac], "VIF_NOT_FOUND");
  });

  it("--static keeps it, whoever is heard with it", async () => {
    await a.vnetd(["vif-add", "97", "--static", vmac]);
    const other = await b.guest("gs", { bridge: "vnet0097", address: "10.0.0.32/24", mac: vmac });
    // its frames arrive all the same
    expect((await other.ping("10.0.0.10", { count: 2 })).received).toBeGreaterThan(0);
    expect(await vifOf(a, vmac)).toMatchObject({ state: "static" });
    const { drops } = await a.vnetdJson<StatusInfo>(["status"]);
    expect(drops).toContainEqual(
      expect.objectContaining({ vnet: id97, direction: "decap", reason: "refused_static" }),
    );
    await reboot(a);
    expect(await vifOf(a, vmac)).toMatchObject({ state: "static" });
    await a.exec(`ip link set ${ga.port} master vnet0097`);
    await refused(["varp-add", "97", vmac, "10.66.1.2"], "MAC_IN_USE");
    await a.vnetd(["vif-delete", "97", vmac]);
    await other.unplug();
  });
});

describe("varp-add", () => {
  const vmac = "02:00:00:00:00:41";
  const entry = { vnet: id97, vmac, address: "10.66.1.2", device: "eth0", state: "static" };

  /** where a's frame to the MAC goes */
  async function destination(): Promise<string[]> {
    const capture = await a.capture("eth0", "udp dst port 1798 and src host 10.66.1.1");
    await ga.exec(`ip neigh replace 10.0.0.41 lladdr ${vmac} dev eth0`);
    await ga.tryExec("ping -c 1 -W 0.1 10.0.0.41");
    const isVudp = (data: Buffer): boolean => data.readUInt16BE(42) === 2;
    const found = (): Buffer[] =>
      capture.packets
        .map(({ data }) => Buffer.from(data))
        .filter((data) => isVudp(data) && data.subarray(64, 70).equals(macToBytes(vmac)));
    await eventually(() => found().length > 0);
    await capture.stop();
    return found().map((data) => data.subarray(30, 34).join("."));
  }

  it("sends to the host that is named, also after a flush and a reboot", async () => {
    expect(await a.vnetdJson(["varp-add", "97", vmac, "10.66.1.2"])).toMatchObject(entry);
    expect(await varpOf(a, vmac)).toMatchObject(entry);
    expect(await destination()).toEqual(["10.66.1.2"]);
    await a.vnetd(["varp-flush"]);
    expect(await varpOf(a, vmac)).toMatchObject(entry);
    await reboot(a);
    await a.exec(`ip link set ${ga.port} master vnet0097`);
    expect(await varpOf(a, vmac)).toMatchObject(entry);
    expect(await destination()).toEqual(["10.66.1.2"]);
  });

  it("is used again when its device is detached and attached", async () => {
    await a.vnetd(["detach", "eth0"]);
    await a.vnetd(["attach", "eth0"]);
    expect(await varpOf(a, vmac)).toMatchObject(entry);
    expect(await destination()).toEqual(["10.66.1.2"]);
    // a daemon that finds no way to the host says so
    await a.vnetd(["detach", "eth0"]);
    await a.killDaemon();
    await startDaemon(a, config);
    const problem = new RegExp(`${vmac}.*no attached device leads to 10\\.66\\.1\\.2`);
    expect((await a.vnetdJson<StatusInfo>(["status"])).problems.join("\n")).toMatch(problem);
    await a.vnetd(["attach", "eth0"]);
    await eventually(async () => (await varpOf(a, vmac))?.state === "static");
    expect((await a.vnetdJson<StatusInfo>(["status"])).problems.join("\n")).not.toMatch(problem);
  });

  it("follows the route to a host that is not on a LAN of this one", async () => {
    const far = "02:00:00:00:00:44";
    await lab.lan("lan1");
    await lab.connectHost(a, "eth1", "lan1", "10.66.2.1/24");
    await a.vnetd(["attach", "eth1"]);
    await refused(["varp-add", "97", far, "10.77.0.1"], "NO_PATH");
    await a.exec("ip route add 10.77.0.0/16 via 10.66.1.2");
    await a.vnetd(["varp-add", "97", far, "10.77.0.1"]);
    expect(await varpOf(a, far)).toMatchObject({ address: "10.77.0.1", device: "eth0" });
    await a.exec("ip route replace 10.77.0.0/16 via 10.66.2.2");
    await eventually(async () => (await varpOf(a, far))?.device === "eth1", {
      what: "the entry to follow the route",
      timeoutMs: 20_000,
    });
    await a.vnetd(["varp-delete", "97", far]);
    await a.vnetd(["detach", "eth1"]);
  });

  it("is not moved by a guest of this host that has the MAC", async () => {
    const thief = await a.guest("gt", { bridge: "vnet0097", address: "10.0.0.42/24", mac: vmac });
    await thief.tryExec("ping -c 1 -W 0.2 10.0.0.11");
    expect(await varpOf(a, vmac)).toMatchObject(entry);
    await thief.unplug();
  });

  it("is deleted for good by varp-delete, and by an edit of the state while no daemon runs", async () => {
    expect(await a.vnetdJson(["varp-delete", "97", vmac])).toEqual({ vnet: id97, vmac });
    expect((await varpOf(a, vmac))?.state ?? "swept").toMatch(/aged|swept/);
    expect(await destination()).toEqual(["224.10.0.1"]);
    await refused(["varp-delete", "97", vmac], "ENTRY_NOT_FOUND");
    await a.vnetd(["varp-add", "97", vmac, "10.66.1.2", "--device", "eth0"]);
    await a.killDaemon();
    const file = join(a.stateDir, "state.yaml");
    const text = readFileSync(file, "utf8");
    expect(text).toContain(vmac);
    writeFileSync(file, text.replace(/^remotes:\n(?: .*\n)+/mu, "remotes: []\n"));
    await startDaemon(a, config);
    expect((await varpOf(a, vmac))?.state ?? "swept").toMatch(/aged|swept/);
  });

  it("goes with its vnet", async () => {
    await a.vnetd(["vnet-create", "99"]);
    await a.vnetd(["varp-add", "99", vmac, "10.66.1.2"]);
    await a.vnetd(["vif-add", "99", "02:00:00:00:00:51"]);
    await a.vnetd(["vnet-delete", "99"]);
    await a.vnetd(["vnet-create", "99"]);
    expect(readFileSync(join(a.stateDir, "state.yaml"), "utf8")).not.toContain(vmac);
    expect((await a.vnetdJson<VarpEntry[]>(["varp"])).map(({ vnet }) => vnet)).not.toContain(
      longId("99"),
    );
    await a.vnetd(["vnet-delete", "99"]);
  });

  it.each([
    [["97", "01:00:5e:00:00:01", "10.66.1.2"], "BAD_MAC"],
    [["97", "00:00:00:00:00:00", "10.66.1.2"], "BAD_MAC"],
    [["97", vmac, "10.66.1.1"], "BAD_ADDRESS"],
    [["97", vmac, "224.10.0.1"], "BAD_ADDRESS"],
    [["97", vmac, "127.0.0.1"], "BAD_ADDRESS"],
    [["97", vmac, "ten"], "BAD_ADDRESS"],
    [["97", vmac, "192.0.2.1"], "NO_PATH"],
    [["97", vmac, "10.66.1.2", "--device", "vnif0097"], "NOT_ATTACHED"],
    [["777", vmac, "10.66.1.2"], "VNET_NOT_FOUND"],
    [["97", macA, "10.66.1.2"], "MAC_IN_USE"],
  ])("refuses %j: %s", async (args, code) => {
    await ga.tryExec("ping -c 1 -W 0.1 10.0.0.11");
    const before = readFileSync(join(a.stateDir, "state.yaml"), "utf8");
    await refused(["varp-add", ...args], code);
    expect(readFileSync(join(a.stateDir, "state.yaml"), "utf8")).toBe(before);
  });

  it("refuses the vnetif's own MAC, and vif-add one that is configured elsewhere", async () => {
    await refused(["varp-add", "97", await a.mac("vnif0097"), "10.66.1.2"], "MAC_IN_USE");
    await a.vnetd(["varp-add", "97", vmac, "10.66.1.2"]);
    await refused(["vif-add", "97", vmac], "MAC_IN_USE");
    await a.vnetd(["varp-delete", "97", vmac]);
  });
});
