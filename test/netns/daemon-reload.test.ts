// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd reload` and SIGHUP: what is different in the file is changed while frames flow, and nothing else; a file that
 * cannot be used changes nothing at all.
 */
import { writeFileSync } from "node:fs";
import os from "node:os";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type {
  HostInfo,
  PeerInfo,
  ReloadInfo,
  StatusInfo,
  VnetState,
} from "../../src/api/contract.js";
import { decodeVnetdVnet } from "../../src/generated/layouts.js";
import { Lab, eventually, type Guest, type Host, type PingRun } from "../lib/lab.js";
import { startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let ga: Guest;
let gb: Guest;
let file = "";

const base = "attach: [eth0]\nhelloSeconds: 2\ndefaultVnets: false\n";

async function reload(text: string): Promise<ReloadInfo> {
  writeFileSync(file, text);
  return a.vnetdJson<ReloadInfo>(["reload"]);
}

/** In the vnet's record. */
async function ageingSecondsOf(id: string): Promise<number> {
  const pin = `${a.bpffs}/layout-1/vnets`;
  const shown = await a.exec(["bpftool", "-j", "map", "dump", "pinned", pin], {
    timeoutMs: 30_000,
  });
  const rows = JSON.parse(shown.stdout) as { value: string[] }[];
  const records = rows.map(({ value }) => decodeVnetdVnet(Buffer.from(value.map(Number))));
  const suffix = id.padStart(32, "0");
  const found = records.find((record) => Buffer.from(record.id).toString("hex") === suffix);
  return Number(found?.ageNs) / 1e9;
}

const keysOf = ({ changes }: ReloadInfo): string[] => changes.map(({ key }) => key);
const statusOf = (host: Host): Promise<StatusInfo> => host.vnetdJson<StatusInfo>(["status"]);

/** Runs while a ping goes both ways, of which nothing is lost. */
async function underTraffic(step: () => Promise<void>): Promise<void> {
  const runs: PingRun[] = [
    ga.startPing("10.97.0.2", { intervalMs: 10 }),
    gb.startPing("10.97.0.1", { intervalMs: 10 }),
  ];
  await eventually(() => runs.every(({ answers }) => answers > 3));
  await step();
  const marks = runs.map(({ answers }) => answers);
  await eventually(() => runs.every(({ answers }, at) => answers > (marks[at] ?? 0) + 20));
  for (const run of runs) {
    const { lost } = await run.stop();
    expect(lost).toBeLessThanOrEqual(1); // the one that was under way when ping was stopped
  }
}

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: { lan0: "10.66.1.1/24", lan1: "10.66.2.1/24" } });
  b = await lab.host("b", { underlay: { lan0: "10.66.1.2/24", lan1: "10.66.2.2/24" } });
  for (const host of [a, b]) {
    await startDaemon(host, { config: base });
    await host.vnetd(["vnet-create", "97"]);
  }
  file = (await statusOf(a)).configuration.file;
  ga = await a.guest("a1", { bridge: "vnet0097", address: "10.97.0.1/24" });
  gb = await b.guest("b1", { bridge: "vnet0097", address: "10.97.0.2/24" });
  await eventually(async () => (await ga.ping("10.97.0.2", { count: 1 })).received === 1);
}, 120_000);
afterAll(() => lab.close());
afterEach(async () => void (await reload(base)));

describe("what a reload changes, under traffic", () => {
  it("nothing, where nothing is different", async () => {
    await underTraffic(async () => {
      expect(keysOf(await reload(base))).toEqual([]);
      expect((await a.vnetd(["reload"])).stdout).toMatch(/was read: nothing is different/);
    });
  });

  it("limits, times and rates: they are in the vnets' records at once", async () => {
    const text = `${base}ageingSeconds: 33\nlimits: {entriesPerVnet: 500, entriesPerHost: 2, floodPerSecond: 7000, floodBurst: 8000}\n`;
    await underTraffic(async () => {
      expect(keysOf(await reload(text)).sort()).toEqual(
        ["ageingSeconds", "limits.entriesPerHost", "limits.entriesPerVnet"].concat([
          "limits.floodBurst",
          "limits.floodPerSecond",
        ]),
      );
    });
    // two MACs of host b fit, and no third: the new limit is at work
    const before = await refusedOfHost();
    for (const n of [1, 2, 3, 4]) {
      await gb.exec(`ip link add link eth0 name m${String(n)} type macvlan`);
      await gb.exec(`ip link set m${String(n)} up`);
      await gb.exec(`ip addr add 10.97.0.1${String(n)}/24 dev m${String(n)}`);
    }
    await eventually(async () => {
      for (const n of [1, 2, 3, 4])
        await gb.ping("10.97.0.1", { count: 1, from: `m${String(n)}`, waitMs: 100 });
      return (await refusedOfHost()) > before;
    });
    for (const n of [1, 2, 3, 4]) await gb.exec(`ip link del m${String(n)}`);
  });

  it("how many MACs a bridge of ours learns (Linux 6.7)", async () => {
    const [major = 0, minor = 0] = os.release().split(".").map(Number);
    const isLearned = async (device: string): Promise<boolean> => {
      await ga.exec(`ip link add link eth0 name ${device} type macvlan`);
      await ga.exec(`ip link set ${device} up`);
      await ga.exec(`ip addr add 10.97.0.9/24 dev ${device}`);
      const mac = await ga.mac(device);
      const ping = { count: 1, from: device, waitMs: 200 };
      await eventually(async () => (await ga.ping("10.97.0.2", ping)).received === 1);
      const { stdout } = await a.exec("bridge fdb show br vnet0097");
      await ga.exec(`ip link del ${device}`);
      return stdout.includes(mac);
    };
    expect(await isLearned("q1")).toBe(true);
    await reload(`${base}limits: {entriesPerVnet: 1}\n`);
    expect(await isLearned("q2")).toBe(major < 6 || (major === 6 && minor < 7));
    await reload(base);
    expect(await isLearned("q3")).toBe(true);
  });

  it("how often hello is said, and the host's name", async () => {
    await underTraffic(async () => {
      const changed = await reload(`${base.replace("Seconds: 2", "Seconds: 1")}hostName: other\n`);
      expect(changed.changes).toEqual([
        { key: "helloSeconds", before: "2", after: "1", needs: null },
        { key: "hostName", before: "not set", after: "other", needs: null },
      ]);
      await eventually(async () => {
        const hosts = await b.vnetdJson<HostInfo[]>(["hosts"]);
        return hosts.some(({ name }) => name === "other");
      });
    });
  });

  it("devices: another one is attached and detached again, those attached by command stay", async () => {
    const devices = async (): Promise<string[]> =>
      (await statusOf(a)).attached.map(({ device }) => device).sort();
    await underTraffic(async () => {
      await reload(base.replace("[eth0]", "[eth0, eth1]"));
      expect(await devices()).toEqual(["eth0", "eth1"]);
      await reload(base);
      expect(await devices()).toEqual(["eth0"]);
      await a.vnetd(["attach", "eth1"]);
      await reload(base.replace("[eth0]", "[eth0, eth1]"));
      await reload(base);
      expect(await devices()).toEqual(["eth0", "eth1"]);
      await a.vnetd(["detach", "eth1"]);
    });
  });

  it("peers: those of the file come and go, and are deleted there alone", async () => {
    const peers = async (): Promise<[string, number][]> =>
      (await a.vnetdJson<PeerInfo[]>(["peers"])).map(({ peer, port }) => [peer, port]);
    await underTraffic(async () => {
      await reload(`${base}peers: [10.66.9.9, {peer: 10.66.9.8, port: 1999}]\n`);
      expect(await peers()).toEqual([
        ["10.66.9.9", 1798],
        ["10.66.9.8", 1999],
      ]);
      const refused = await a.tryVnetd(["peer-delete", "10.66.9.9"]);
      expect(refused.stderr).toMatch(/stands in the daemon's configuration/);
      await reload(`${base}peers: [10.66.9.8]\n`);
      expect(await peers()).toEqual([["10.66.9.8", 1798]]);
      await reload(base);
      expect(await peers()).toEqual([]);
    });
  });

  it("the vnets that the daemon makes by itself", async () => {
    const ids = async (): Promise<string[]> =>
      (await a.vnetdJson<VnetState[]>(["vnets"])).map(({ vnetif }) => vnetif);
    await underTraffic(async () => {
      await reload(base.replace("defaultVnets: false", "defaultVnets: true"));
      expect(await ids()).toEqual(["vnif0002", "vnif0003", "vnif0004", "vnif0097"]);
      await reload(base);
      expect(await ids()).toEqual(["vnif0097"]);
    });
  });

  it("the log's level", async () => {
    await reload(`${base}log: {level: error}\n`);
    await a.vnetd(["vnet-create", "98"]);
    await reload(base);
    await a.vnetd(["vnet-delete", "98"]);
    await eventually(() => /vnet 0000\S*0098: deleted/.test(a.daemon.stderr));
    expect(a.daemon.stderr).not.toMatch(/vnet 0000\S*0098: made/);
  });

  it("the group and the port, of all hosts: traffic goes on by the new ones", async () => {
    const text = `${base}group: 224.10.0.9\nport: 1800\n`;
    const fileOfB = (await statusOf(b)).configuration.file;
    for (const each of [text, base]) {
      writeFileSync(fileOfB, each);
      await b.vnetd(["reload"]);
      await reload(each);
      const groups = await a.ip<{ maddr: { address?: string }[] }[]>("maddress", "show", "eth0");
      const joined = JSON.stringify(groups);
      expect([joined.includes("224.10.0.9"), joined.includes("224.10.0.1")]).toEqual(
        each === text ? [true, false] : [false, true],
      );
      // broadcasts as well
      await ga.exec("ip neigh flush dev eth0");
      await eventually(async () => (await ga.ping("10.97.0.2", { count: 1 })).received === 1);
    }
  });
});

describe("a configuration that cannot be used", () => {
  async function refuses(text: string, code: string): Promise<void> {
    const before = await statusOf(a);
    await underTraffic(async () => {
      writeFileSync(file, text);
      const result = await a.tryVnetd(["reload", "--json"]);
      expect(result.code).toBe(1);
      expect(JSON.parse(result.stderr)).toMatchObject({ code, place: { source: file } });
    });
    const after = await statusOf(a);
    expect(after.attached).toEqual(before.attached);
    expect(after.configuration.failure).toMatchObject({ code });
    expect(after.configuration.refused).toBe(before.configuration.refused + 1);
    expect(after.problems.join("\n")).toMatch(/was not taken, the configuration before is in use/);
    expect((await a.vnetd(["status"])).stdout).toMatch(/^config .*; not taken \S+ ago$/m);
  }

  it("is named with line and hint, and the one before stays", async () => {
    await refuses(`${base}colour: red\n`, "UNKNOWN_PARAMETER");
    await refuses(`${base}hostName: x\nport: 0\n`, "CONFIG");
    await refuses("attach: [", "SYNTAX");
    const { failure } = (await statusOf(a)).configuration;
    expect(failure?.place?.line).toBe(1);
  });

  it("changes nothing when only a part of it cannot be had", async () => {
    // the bridge of a vnet; a port that is taken; an address that is not there
    await refuses(
      `${base.replace("[eth0]", "[eth0, vnet0097]")}hostName: x\n`,
      "DEVICE_UNSUITABLE",
    );
    const squatter = a.spawn([
      "python3",
      ...[
        "-c",
        "import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('10.66.1.1',1801)); print('bound',flush=True); time.sleep(600)",
      ],
    ]);
    await squatter.output(/bound/, { what: "a program on the port" });
    await refuses(`${base}hostName: x\nport: 1801\n`, "CONFIG");
    await squatter.stop("SIGKILL", 10_000);
    await refuses(`${base}peers: [10.66.1.1]\nhostName: x\n`, "BAD_PEER");
    const hosts = await b.vnetdJson<HostInfo[]>(["hosts"]);
    expect(hosts.some(({ name }) => name === "x")).toBe(false);
  });

  it("changes nothing when the kernel refuses a step in the middle", async () => {
    const two = base.replace("[eth0]", "[eth0, eth1]");
    await reload(two);
    const device = async (name: string): Promise<string> =>
      (await a.exec(`ip -4 -br address show dev ${name}`)).stdout;
    const seen = async (): Promise<unknown> => ({
      devices: [await device("eth0"), await device("eth1")],
      records: (
        await a.exec(["bpftool", "-j", "map", "dump", "pinned", `${a.bpffs}/layout-1/underlays`])
      ).stdout,
      ageing: await ageingSecondsOf("97"),
    });
    const before = await seen();
    const another = "group: 239.7.7.7\nageingSeconds: 44\nhostName: x\n";
    // the vnets' times are changed, then eth0 joins the other group, and eth1 finds no room for it
    await a.sysctl("net.ipv4.igmp_max_memberships", 3);
    await refuses(`${two}${another}`, "KERNEL");
    expect((await statusOf(a)).configuration.failure?.message).toMatch(/^eth1: .*ENOBUFS/u);
    expect(await seen()).toEqual(before);
    expect(a.daemon.stderr).not.toContain("going back to the configuration before");
    // it was nothing but the room that was missing
    await a.sysctl("net.ipv4.igmp_max_memberships", 20);
    expect(keysOf(await reload(`${two}${another}`)).sort()).toEqual([
      "ageingSeconds",
      "group",
      "hostName",
    ]);
    expect(await ageingSecondsOf("97")).toBe(44);
    expect(await device("eth1")).toMatch(/239\.7\.7\.7/u);
    expect(await device("eth0")).not.toMatch(/224\.10\.0\.1/u);
  });

  it("is forgotten when it was mended", async () => {
    writeFileSync(file, "port: x\n");
    expect((await a.tryVnetd(["reload"])).code).toBe(1);
    await reload(base);
    const { configuration, problems } = await statusOf(a);
    expect(configuration.failure).toBeNull();
    expect(problems.join()).not.toMatch(/not taken/);
  });
});

describe("SIGHUP", () => {
  it("does the same", async () => {
    await underTraffic(async () => {
      const { configuration } = await statusOf(a);
      writeFileSync(file, `${base}resolveSeconds: 5\n`);
      a.daemon.signal("SIGHUP");
      await eventually(async () => {
        const now = (await statusOf(a)).configuration;
        return now.reloads === configuration.reloads + 1;
      });
      expect(a.daemon.stderr).toMatch(/resolveSeconds 60 -> 5/);
      writeFileSync(file, "resolveSeconds: 0\n");
      a.daemon.signal("SIGHUP");
      await eventually(async () => (await statusOf(a)).configuration.failure !== null);
    });
  });
});

describe("what the maps keep", () => {
  it("is said with the reload, and in the status", async () => {
    const { changes } = await reload(`${base}limits: {entries: 4096}\n`);
    expect(changes).toHaveLength(1);
    expect(changes[0]?.needs).toMatch(/maps were made with 65536, which they keep/);
    expect((await statusOf(a)).problems.join()).toMatch(/limits\.entries is 4096/);
    await reload(base);
    expect((await statusOf(a)).problems.join()).not.toMatch(/limits\.entries/);
  });
});

/** prints what an address answers; fails where nobody does, or with an error */
const fetching =
  "fetch(process.argv[1], { signal: AbortSignal.timeout(20_000) })" +
  ".then(async (r) => (r.ok ? console.log(await r.text()) : process.exit(1)))" +
  ".catch(() => process.exit(1))";

describe("metricsListen", () => {
  it("moves, and stays where it was when the new address cannot be had", async () => {
    const c = await lab.host("c", { underlay: "10.66.1.3/24" });
    await c.startDaemon({ config: "metricsListen: 127.0.0.1:11798\n" });
    const path = (await statusOf(c)).configuration.file;
    const answers = async (at: string): Promise<boolean> =>
      (await c.tryExec([process.execPath, "-e", fetching, `http://${at}/healthz`])).code === 0;
    expect(await answers("127.0.0.1:11798")).toBe(true);
    const page = async (at: string): Promise<string> =>
      (await c.exec([process.execPath, "-e", fetching, `http://${at}/metrics`])).stdout;
    writeFileSync(path, "metricsListen: 127.0.0.1:11799\n");
    await c.vnetd(["reload"]);
    expect([await answers("127.0.0.1:11798"), await answers("127.0.0.1:11799")]).toEqual([
      false,
      true,
    ]);
    // the same port for all addresses: the two cannot be had at once
    writeFileSync(path, "metricsListen: 0.0.0.0:11799\n");
    await c.vnetd(["reload"]);
    expect(await answers("10.66.1.3:11799")).toBe(true);
    writeFileSync(path, "metricsListen: 192.0.2.1:11799\n");
    expect((await c.tryVnetd(["reload"])).code).toBe(1);
    expect(await page("10.66.1.3:11799")).toMatch(
      /vnetd_config_reloads_total\{verdict="ok"\} 2\n[^]*verdict="refused"\} 1\n/,
    );
    writeFileSync(path, "metricsListen: off\n");
    await c.vnetd(["reload"]);
    expect(await answers("10.66.1.3:11799")).toBe(false);
  });
});

async function refusedOfHost(): Promise<number> {
  const { drops } = await statusOf(a);
  return drops
    .filter(({ reason }) => reason === "refused_host_limit")
    .reduce((sum, { frames }) => sum + frames, 0);
}
