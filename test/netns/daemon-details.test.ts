// SPDX-License-Identifier: Apache-2.0
/**
 * Small things that a person meets: what is said once and in order, what a changed configuration
 * does to maps and groups that are there, a taken port, link-local frames on a bridge of ours.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DropInfo, StatusInfo, VnetInfo, VnifInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Background, type Guest, type Host } from "../lib/lab.js";
import { longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;

const status = (): Promise<StatusInfo> => a.vnetdJson<StatusInfo>(["status"]);
const count = (text: string, part: string): number => text.split(part).length - 1;
const python = (script: string): string[] => ["/usr/bin/python3", "-I", "-S", "-c", script];

async function restart(config: string): Promise<void> {
  await a.killDaemon();
  await startDaemon(a, { config });
}

async function addressesOf(device: string): Promise<string[]> {
  const [link] = await a.ip<{ addr_info: { local: string }[] }[]>("address", "show", "dev", device);
  return (link?.addr_info ?? []).map(({ local }) => local);
}

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  await startDaemon(a);
});
afterAll(() => lab.close());

describe("attach", () => {
  it("names who has the port when it is taken, and what to do", async () => {
    const squatter = a.spawn(
      python(
        'import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(("10.66.1.1",1798)); print("here",flush=True); time.sleep(60)',
      ),
    );
    await squatter.output(/here/);
    const result = await a.tryVnetd(["attach", "eth0"]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/another program has UDP 10\.66\.1\.1:1798 .*ss -Hlunp.*end it/);
    await squatter.stop("SIGKILL");
    await a.vnetd(["attach", "eth0"]);
  });
});

describe("status", () => {
  it("says a device's problem once", async () => {
    await a.exec("ip link set eth0 down");
    await eventually(async () => (await status()).problems.length > 0);
    const { stderr } = await a.vnetd(["status"]);
    expect(count(stderr, "eth0: the device is down")).toBe(1);
    await a.exec("ip link set eth0 up");
    await eventually(async () => (await status()).problems.length === 0);
  });

  it("lists drops in one order", async () => {
    await a.exec("ip addr add 10.4.0.1/24 dev vnif0004; ip addr add 10.3.0.1/24 dev vnif0003");
    const key = ({ vnet, direction, reason }: DropInfo): string => `${vnet} ${direction} ${reason}`;
    await a.exec("ip link set eth0 down");
    await a.tryExec("ping -c1 -W1 10.4.0.9; ping -c1 -W1 10.3.0.9");
    const { drops } = await status();
    expect(new Set(drops.map(({ vnet }) => vnet)).size).toBeGreaterThan(1);
    expect(drops.map(key)).toEqual(drops.map(key).sort());
    await a.exec("ip link set eth0 up");
  });
});

describe("lists", () => {
  it("vnifs shows the MTU that a device has", async () => {
    await a.vnetd(["vnet-create", "98"]);
    const vnifs = await a.vnetdJson<VnifInfo[]>(["vnifs"]);
    for (const { vnetif, mtu } of vnifs) {
      const [link] = await a.ip<{ mtu: number }[]>("link", "show", "dev", vnetif);
      expect(mtu, vnetif).toBe(link?.mtu);
    }
    expect(new Set(vnifs.map(({ mtu }) => mtu))).toEqual(new Set([1436, 1500]));
  });

  it("vnet-list shows a vnet once that is asked for twice", async () => {
    const ids = (await a.vnetdJson<VnetInfo[]>(["vnet-list", "98", "0098", "4", "98"])).map(
      ({ id }) => id,
    );
    expect(ids).toEqual([longId("98"), longId("4")]);
  });

  it("completion names the devices of its own namespace", async () => {
    const { stdout } = await a.vnetd(["__complete", "vnetd attach "]);
    expect(stdout.split("\n")).toEqual(expect.arrayContaining(["eth0", "vnif0004"]));
    expect(stdout.split("\n")).not.toContain("lo");
  });
});

describe("vnet-create", () => {
  it("says which addresses do not answer any more on a bridge", async () => {
    const { stderr } = await a.vnetd(["vnet-create", "4"]);
    expect(stderr).toMatch(
      /vnif0004 is a port of vnet0004 now.*give 10\.4\.0\.1\/24 to the bridge/,
    );
    expect((await a.vnetd(["vnet-create", "99"])).stderr).toBe("");
  });

  it("makes a bridge that forwards LLDP, as a cable does", async () => {
    const guests: Guest[] = [];
    for (const name of ["g1", "g2"]) guests.push(await a.guest(name, { bridge: "vnet0098" }));
    const [from, to] = guests as [Guest, Guest];
    const capture = await to.capture("eth0", "ether proto 0x88cc");
    await from.exec(
      python(
        `import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
s.send(bytes.fromhex("0180c200000e" "02000000aa01" "88cc") + bytes(46))`,
      ),
    );
    await eventually(() => capture.packets.length > 0, { what: "the LLDP frame" });
    await capture.stop();
  });
});

describe("a configuration that was changed", () => {
  it("leaves the old group when the group is another", async () => {
    expect(await addressesOf("eth0")).toContain("224.10.0.1");
    await restart("group: 224.10.0.77\n");
    expect(await addressesOf("eth0")).toContain("224.10.0.77");
    expect(await addressesOf("eth0")).not.toContain("224.10.0.1");
    await a.vnetd(["detach", "eth0"]);
    expect((await addressesOf("eth0")).filter((each) => each.startsWith("224."))).toEqual([]);
  });

  it("says that pinned maps keep their size, and how to have new ones", async () => {
    const before = (await status()).table.limit;
    await restart("limits:\n  entries: 2048\n  hosts: 512\n");
    const { problems, table, bpffs } = await status();
    expect(table.limit).toBe(before);
    expect(problems.join("\n")).toMatch(new RegExp(`limits.entries is 2048.*with ${before}`));
    expect(problems.join("\n")).toMatch(/limits.hosts is 512.*with 16384/);
    expect(a.daemon.stderr).toMatch(/limits.entries is 2048/);
    const remedy = /rm -r \S+layout-\d+/.exec(problems.join("\n"))?.[0] ?? "";
    expect(remedy).toContain(bpffs);
    await a.killDaemon();
    await lab.execInSwitch(remedy);
    await startDaemon(a, { config: "limits:\n  entries: 2048\n  hosts: 512\n" });
    expect((await status()).table.limit).toBe(2048);
    expect((await status()).problems.join()).not.toMatch(/limits/);
  });
});

describe("systemd", () => {
  /** Prints what it hears, each with what is there at that moment: vnet 4's device, and metrics. */
  async function listenerOn(host: Host, notify: string): Promise<Background> {
    const listener = host.spawn(
      python(
        `import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("${notify}")
print("listening", flush=True)
while True:
  said = [s.recv(4096).decode()]
  if "vnif0004" in [name for _, name in socket.if_nameindex()]: said.append("vnif0004")
  try:
    socket.create_connection(("127.0.0.1", 11798), 10).close()
    said.append("metrics")
  except OSError: pass
  print(*said, flush=True)`,
      ),
    );
    await listener.output(/listening/);
    return listener;
  }

  it("hears READY=1 once, when all is there, and never from a daemon that does not start", async () => {
    const host = await lab.host("notifying", { underlay: "10.66.1.9/24" });
    const notify = `${lab.directory}/notify-ready`;
    const listener = await listenerOn(host, notify);
    await host.startDaemon({ env: { NOTIFY_SOCKET: notify } });
    await listener.output(/READY=1/);
    // the first has its directories
    const refused = await host.spawnDaemon({ env: { NOTIFY_SOCKET: notify } }).end();
    expect(refused.code).toBe(1);
    await host.killDaemon();
    await listener.output(/STOPPING=1/);
    const heard = listener.stdout.trimEnd().split("\n").slice(1);
    expect(heard[0]).toBe("READY=1 vnif0004 metrics");
    expect(heard.map((line) => line.split(" ")[0])).toEqual(["READY=1", "STOPPING=1"]);
    await listener.stop("SIGKILL");
  });

  it("hears STOPPING=1 also from a daemon that is stopped before it is ready", async () => {
    await a.killDaemon();
    const notify = `${lab.directory}/notify`;
    const listener = await listenerOn(a, notify);
    const daemon = a.spawnDaemon({
      args: ["--metrics-listen", "off"],
      env: { NOTIFY_SOCKET: notify },
    });
    // the API's socket is bound early; the rest of the start takes a while
    await eventually(() => existsSync(join(a.runDir, "vnetd.sock")), { everyMs: 1 });
    daemon.signal("SIGTERM");
    expect((await daemon.end()).code).toBe(0);
    await listener.output(/STOPPING=1/);
    await listener.stop("SIGKILL");
  });
});
