// SPDX-License-Identifier: Apache-2.0
/**
 * Where a guest is, before it says so and after it went: ports of a vnet's bridge that come and go,
 * guests that move, and guests that are on two hosts while they move.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VarpEntry, VifInfo } from "../../src/api/contract.js";
import { parseAddress } from "../../src/base/address.js";
import { macFromBytes, macToBytes } from "../../src/base/mac.js";
import { vnetIdToBytes } from "../../src/base/vnet-id.js";
import { decodeVarp, encodeVarp } from "../../src/wire/varp.js";
import { Lab, eventually, timeFactor, type Capture, type Guest, type Host } from "../lib/lab.js";
import { python } from "../lib/wire.js";
import { attachedHosts, callApi, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let c: Host;
/** a host without vnetd */
let stranger: Host;
let gc: Guest;
const id97 = longId("97");
const config = { config: "defaultVnets: false\n" };
const addressOf = { a: "10.66.1.1", b: "10.66.1.2", c: "10.66.1.3" } as const;

beforeAll(async () => {
  lab = await Lab.create();
  const hosts = await attachedHosts(lab, ["a", "b", "c"], config);
  [a, b, c] = hosts as [Host, Host, Host];
  stranger = await lab.host("s", { underlay: "10.66.1.66/24" });
  for (const host of hosts) await host.vnetd(["vnet-create", "97"]);
  gc = await c.guest("gc", {
    bridge: "vnet0097",
    address: "10.0.0.3/24",
    mac: "02:00:00:00:00:c0",
  });
});
afterAll(() => lab.close());

const isVif = async (host: Host, mac: string): Promise<boolean> =>
  (await host.vnetdJson<VifInfo[]>(["vifs"])).some((v) => v.vnet === id97 && v.vmac === mac);
const hostOf = async (host: Host, mac: string): Promise<string | undefined> =>
  (await host.vnetdJson<VarpEntry[]>(["varp"])).find(
    (v) => v.vnet === id97 && v.vmac === mac && v.state !== "aged",
  )?.address;

interface Seen {
  timeNs: bigint;
  source: string;
  destination: string;
  /** a frame: the inner MACs; a message: what it says */
  frame?: { from: string; to: string };
  varp?: { opcode: string; vmac: string };
}

/** The vnet packets of a capture, in order. */
function seenIn(capture: Capture): Seen[] {
  return capture.packets.flatMap(({ data, timeNs }): Seen[] => {
    const bytes = Buffer.from(data);
    const address = (at: number): string => bytes.subarray(at, at + 4).join(".");
    const common = { timeNs, source: address(26), destination: address(30) };
    const mac = (at: number): string => macFromBytes(bytes.subarray(at, at + 6));
    if (bytes.readUInt16BE(42) === 2) return [{ ...common, frame: { to: mac(64), from: mac(70) } }];
    const varp = decodeVarp(bytes.subarray(42, 14 + bytes.readUInt16BE(16)));
    if (!varp.ok) return [];
    const { opcode, vmac } = varp.message;
    return [{ ...common, varp: { opcode, vmac: macFromBytes(vmac) } }];
  });
}

/** A guest that says nothing of its own accord: its port is on no bridge until it is silent. */
async function silentGuest(host: Host, name: string, mac: string): Promise<Guest> {
  const guest = await host.guest(name, { mac });
  await guest.sysctl("net.ipv6.conf.all.disable_ipv6", 1);
  return guest;
}

const plug = (guest: Guest): Promise<unknown> =>
  guest.host.exec(`ip link set ${guest.port} master vnet0097 up`);
const unplug = (guest: Guest): Promise<unknown> =>
  guest.host.exec(`ip link set ${guest.port} nomaster`);

async function nowOf(host: Host): Promise<bigint> {
  return BigInt((await host.exec("date +%s%N")).stdout.trim());
}

/**
 * How long after `step` host announces the MAC, milliseconds, the best of three: the machine may be
 * busy with others. Nothing else may come from the MAC meanwhile.
 */
async function announcedWithin(
  host: Host,
  mac: string,
  step: () => Promise<unknown>,
  undo: () => Promise<unknown>,
): Promise<number> {
  const times: number[] = [];
  for (let at = 0; at < 3; at++) {
    const capture = await c.capture(
      "eth0",
      `udp port 1798 and src host ${addressOf[host.name as "a"]}`,
    );
    const before = await nowOf(host);
    await step();
    const announce = (): Seen | undefined =>
      seenIn(capture).find(({ varp }) => varp?.opcode === "announce" && varp.vmac === mac);
    await eventually(announce, { what: `the announce of ${mac}` });
    await capture.stop();
    expect(seenIn(capture).filter(({ frame }) => frame?.from === mac)).toEqual([]);
    times.push(Number((announce()?.timeNs ?? 0n) - before) / 1e6);
    await eventually(async () => (await hostOf(c, mac)) === addressOf[host.name as "a"]);
    await undo();
    await eventually(async () => !(await isVif(host, mac)));
  }
  return Math.min(...times);
}

describe("a guest that says nothing is announced within 100 ms", () => {
  it("behind a veth whose other end is in another namespace", async () => {
    const mac = "02:00:00:00:01:01";
    const quiet = await silentGuest(a, "q1", mac);
    const ms = await announcedWithin(
      a,
      mac,
      () => plug(quiet),
      () => unplug(quiet),
    );
    expect(ms).toBeLessThan(100 * timeFactor);
    await plug(quiet);
    await eventually(() => isVif(a, mac));
    const [vif] = (await a.vnetdJson<VifInfo[]>(["vifs"])).filter(({ vmac }) => vmac === mac);
    expect(vif).toMatchObject({ state: "learned", device: quiet.port });
    // the way to it is known: no flooding
    const capture = await a.capture("eth0", "udp port 1798 and src host 10.66.1.3");
    await gc.exec(`ip neigh replace 10.0.0.101 lladdr ${mac} dev eth0`);
    await eventually(async () => (await hostOf(c, mac)) === addressOf.a);
    await gc.tryExec("ping -c 1 -W 0.1 10.0.0.101");
    await eventually(() => seenIn(capture).some(({ frame }) => frame?.to === mac));
    await capture.stop();
    const sent = seenIn(capture).filter(({ frame }) => frame?.to === mac);
    expect(new Set(sent.map(({ destination }) => destination))).toEqual(new Set([addressOf.a]));
  });

  it("behind a veth whose other end is an interface of the same host", async () => {
    await a.exec("ip link add here type veth peer name there address 02:00:00:00:01:02");
    await a.sysctl("net.ipv6.conf.there.disable_ipv6", 1);
    await a.exec("ip link set there up; ip link set here master vnet0097 up");
    await eventually(async () => (await hostOf(c, "02:00:00:00:01:02")) === addressOf.a);
    await a.exec("ip link del here");
    await eventually(async () => !(await isVif(a, "02:00:00:00:01:02")));
  });

  it("behind a tap of libvirt's, and not where the tap's MAC does not tell", async () => {
    const mac = "52:54:00:12:34:56";
    const open = (name: string): Promise<unknown> =>
      a
        .spawn([
          ...python,
          "-c",
          `import fcntl, struct, time
f = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(f, 0x400454ca, struct.pack("16sH22x", b"${name}", 0x1002))
print("open", flush=True)
time.sleep(600)`,
        ])
        .output(/open/);
    for (const [name, address] of [
      ["tap1", "fe:ff:ff:ff:ff:ff"],
      ["tap2", "fe:16:3e:00:00:02"],
      ["tap3", "02:54:00:00:00:03"],
      ["tap0", "fe:54:00:12:34:56"],
    ] as const) {
      await open(name);
      await a.sysctl(`net.ipv6.conf.${name}.disable_ipv6`, 1);
      await a.exec(`ip link set ${name} address ${address}`);
      if (name !== "tap0") await a.exec(`ip link set ${name} master vnet0097 up`);
    }
    const ms = await announcedWithin(
      a,
      mac,
      () => a.exec("ip link set tap0 master vnet0097 up"),
      () => a.exec("ip link set tap0 nomaster"),
    );
    expect(ms).toBeLessThan(100 * timeFactor);
    const vifs = await a.vnetdJson<VifInfo[]>(["vifs"]);
    expect(vifs.filter(({ vmac }) => /:(00:03|00:02|ff:ff)$/.test(vmac))).toEqual([]);
  });

  it("when it is entered by hand", async () => {
    const mac = "02:00:00:00:01:03";
    // without the command, which takes its time to start
    const api = (method: string): Promise<unknown> =>
      callApi(a, `${JSON.stringify({ v: 1, id: 1, method, params: { vnet: "97", vmac: mac } })}\n`);
    const ms = await announcedWithin(
      a,
      mac,
      () => api("vifAdd"),
      () => api("vifDelete"),
    );
    expect(ms).toBeLessThan(100 * timeFactor);
  });

  it("and stays known while its port is there, longer than a MAC lives", async () => {
    const mac = "02:00:00:00:01:04";
    await a.killDaemon();
    await startDaemon(a, { config: "defaultVnets: false\nageingSeconds: 2\n" });
    const quiet = await silentGuest(a, "q4", mac);
    await plug(quiet);
    await eventually(() => isVif(a, mac));
    const ages: number[] = [];
    for (const until = Date.now() + 5000; Date.now() < until;) {
      const vif = (await a.vnetdJson<VifInfo[]>(["vifs"])).find(({ vmac }) => vmac === mac);
      ages.push(vif?.ageSeconds ?? Infinity);
    }
    expect(Math.max(...ages)).toBeLessThan(2.1);
    await unplug(quiet);
    await eventually(async () => !(await isVif(a, mac)));
    await a.killDaemon();
    await startDaemon(a, config);
  });
});

describe("a host whose port is gone", () => {
  /** Which of these MACs the host answers for, asked in this order. */
  async function answered(host: Host, macs: readonly string[]): Promise<string[]> {
    const to = addressOf[host.name as "a"];
    const capture = await stranger.capture("eth0", `udp port 1798 and src host ${to}`);
    // the vnetif's own MAC is always answered for, and comes last
    const last = await host.mac("vnif0097");
    const messages = [...macs, last].map((vmac) =>
      encodeVarp({
        opcode: "request",
        vnet: vnetIdToBytes(id97),
        vmac: macToBytes(vmac),
        address: parseAddress("10.66.1.66"),
      }).toString("hex"),
    );
    await stranger.exec([
      ...python,
      "-c",
      `import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for m in sys.argv[1:]: s.sendto(bytes.fromhex(m), ("${to}", 1798))`,
      ...messages,
    ]);
    const answers = (): string[] =>
      seenIn(capture).flatMap(({ varp, destination }) =>
        varp?.opcode === "announce" && destination === "10.66.1.66" ? [varp.vmac] : [],
      );
    await eventually(() => answers().includes(last), { what: "the answer that always comes" });
    await capture.stop();
    return answers().filter((vmac) => vmac !== last);
  }

  const mac = "02:00:00:00:02:01";
  let guest: Guest;
  /** talks, so that its MAC is learned from its frames */
  const talk = async (): Promise<void> => {
    await guest.tryExec("ping -c 1 -W 0.1 10.0.0.3");
    await eventually(() => isVif(a, mac));
  };

  it.each([
    ["leaves the bridge", (port: string) => `ip link set ${port} nomaster`],
    ["goes down", (port: string) => `ip link set ${port} down`],
    ["is deleted", (port: string) => `ip link del ${port}`],
  ])("answers for its guest no more when it %s; a configured vif stays", async (what, command) => {
    const configured = "02:00:00:00:02:02";
    if (what === "leaves the bridge") {
      guest = await a.guest("p1", { bridge: "vnet0097", address: "10.0.0.21/24", mac });
      await a.vnetd(["vif-add", "97", configured]);
    }
    await plug(guest);
    await talk();
    expect(await answered(a, [mac, configured])).toEqual([mac, configured]);
    await a.exec(command(guest.port));
    await eventually(async () => !(await isVif(a, mac)));
    expect(await answered(a, [mac, configured])).toEqual([configured]);
    if (what === "is deleted") await a.vnetd(["vif-delete", "97", configured]);
  });

  it("forgets at start what went while no daemon ran", async () => {
    guest = await a.guest("p2", { bridge: "vnet0097", address: "10.0.0.22/24", mac });
    const other = await a.guest("p3", { bridge: "vnet0097", address: "10.0.0.23/24" });
    const otherMac = await other.mac();
    await talk();
    await other.tryExec("ping -c 1 -W 0.1 10.0.0.3");
    await a.killDaemon("SIGKILL");
    await a.exec(`ip link del ${guest.port}`);
    await startDaemon(a, config);
    expect(await answered(a, [mac, otherMac])).toEqual([otherMac]);
    await other.unplug();
  });
});

describe("after the first frame of a guest that moved", () => {
  const mac = "02:00:00:00:03:01";

  /** c's stream to the guest while `move` runs, and what of it went where after the first frame from b */
  async function streamWhile(
    move: () => Promise<unknown>,
  ): Promise<{ before: Seen[]; after: Seen[] }> {
    const capture = await c.capture("eth0", "udp port 1798");
    await gc.exec(`ip neigh replace 10.0.0.30 lladdr ${mac} dev eth0`);
    const stream = gc.spawn(["ping", "-i", "0.002", "-W", "0.1", "10.0.0.30"]);
    const toGuest = (): Seen[] =>
      seenIn(capture).filter(({ frame, source }) => frame?.to === mac && source === addressOf.c);
    await eventually(() => toGuest().filter((s) => s.destination === addressOf.a).length > 20);
    await move();
    await eventually(() => toGuest().filter((s) => s.destination === addressOf.b).length > 200);
    await stream.stop("SIGINT");
    await capture.stop();
    const first = seenIn(capture).find(
      ({ frame, source }) => frame?.from === mac && source === addressOf.b,
    );
    const firstNs = first?.timeNs ?? 0n;
    expect(firstNs).not.toBe(0n);
    // what was on its way through c's stack when the frame was on its way in
    const after = toGuest().filter(({ timeNs }) => timeNs > firstNs + 3_000_000n);
    return { before: toGuest().filter(({ timeNs }) => timeNs <= firstNs), after };
  }

  it("nothing more is sent to the old place", async () => {
    const guest = await a.guest("m1", { bridge: "vnet0097", address: "10.0.0.30/24", mac });
    await guest.ping("10.0.0.3", { count: 1 });
    const { before, after } = await streamWhile(async () => {
      await guest.moveTo(b, "vnet0097");
      await guest.tryExec("ping -c 1 -W 0.2 10.0.0.3");
    });
    expect(before.some(({ destination }) => destination === addressOf.a)).toBe(true);
    expect(new Set(after.map(({ destination }) => destination))).toEqual(new Set([addressOf.b]));
    await guest.unplug();
  });

  it("nor while its old port is still there, as in a migration; and the new port claims nothing before", async () => {
    // the old place: still plugged in, but silent
    const old = await silentGuest(a, "m2", mac);
    await plug(old);
    await eventually(async () => (await hostOf(c, mac)) === addressOf.a);
    const fresh = await silentGuest(b, "m3", mac);
    const { before, after } = await streamWhile(async () => {
      const capture = await c.capture("eth0", `udp port 1798 and src host ${addressOf.b}`);
      await plug(fresh);
      await eventually(() =>
        seenIn(capture).some(({ varp }) => varp?.opcode === "request" && varp.vmac === mac),
      );
      // longer than it takes to claim a MAC that nobody has
      await capture.stop(500);
      expect(
        seenIn(capture)
          .filter(({ varp }) => varp?.vmac === mac)
          .map(({ varp }) => varp?.opcode),
      ).toEqual(["request"]);
      expect(await isVif(b, mac)).toBe(false);
      // the guest runs on the new host from now on
      await fresh.exec("ip addr add 10.0.0.30/24 dev eth0");
      await fresh.tryExec("ping -c 1 -W 0.2 10.0.0.3");
    });
    expect(before.some(({ destination }) => destination === addressOf.a)).toBe(true);
    expect(new Set(after.map(({ destination }) => destination))).toEqual(new Set([addressOf.b]));
    expect(await hostOf(a, mac)).toBe(addressOf.b);
    // the old port is still there some seconds later
    await new Promise((resolve) => setTimeout(resolve, 2500));
    expect([await isVif(a, mac), await isVif(b, mac)]).toEqual([false, true]);
    expect(await hostOf(c, mac)).toBe(addressOf.b);
    await unplug(old);
    await unplug(fresh);
  });

  it("the old host follows, though it heard the guest a moment ago and hears no frame from its new place", async () => {
    const vmac = "02:00:00:00:03:02";
    const macC = await gc.mac();
    const neighbour = `ip neigh replace 10.0.0.3 lladdr ${macC} dev eth0`;
    const old = await silentGuest(a, "m4", vmac);
    const fresh = await silentGuest(b, "m5", vmac);
    for (const guest of [old, fresh]) {
      await guest.exec(`ip addr add 10.0.0.33/24 dev eth0 && ${neighbour}`);
      await plug(guest);
    }
    await gc.exec(`ip neigh replace 10.0.0.33 lladdr ${vmac} dev eth0`);
    // b knows c's guest, so that the guest's frames from there go to c alone
    await old.ping("10.0.0.3", { count: 3 });
    await gc.tryExec("ping -c 1 -W 0.1 -b 10.0.0.255");
    await eventually(async () => (await hostOf(b, macC)) === addressOf.c);
    const capture = await a.capture("eth0", `udp port 1798 and src host ${addressOf.b}`);
    await old.ping("10.0.0.3", { count: 2, intervalMs: 10 });
    await fresh.ping("10.0.0.3", { count: 1 });
    await eventually(async () => (await hostOf(c, vmac)) === addressOf.b);
    await eventually(async () => (await hostOf(a, vmac)) === addressOf.b, {
      what: "a to ask when the guest is silent, and to believe the answer",
    });
    await capture.stop();
    expect(seenIn(capture).filter(({ frame }) => frame?.from === vmac)).toEqual([]);
    await unplug(old);
    await unplug(fresh);
  });
});
