// SPDX-License-Identifier: Apache-2.0
/**
 * Loops, storms and duplicate addresses, with real bridges: one bridge between vnets works, two are a
 * loop that is named and melts nothing; MACs at two places are reported, moved guests followed.
 * Every loop here is open for some seconds at most.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { parseAddress } from "../../src/base/address.js";
import { macFromBytes, macToBytes } from "../../src/base/mac.js";
import { vnetIdToBytes } from "../../src/base/vnet-id.js";
import { decodeVarp, encodeVarp } from "../../src/wire/varp.js";
import { Lab, eventually, timeFactor, type Guest, type Host } from "../lib/lab.js";
import { attachedHosts, callApi, longId } from "./world.js";

let lab: Lab;
let hosts: Host[];
let a: Host;
let b: Host;
let c: Host;

const config = "defaultVnets: false\n";
const vnets = ["97", "98", "99"];

async function status(host: Host): Promise<StatusInfo> {
  const answer = await callApi(host, '{"v":1,"id":1,"method":"status","params":{}}\n');
  return answer?.["result"] as StatusInfo;
}
const problems = async (host: Host): Promise<string[]> => (await status(host)).problems;
const problem = (host: Host, pattern: RegExp, timeoutMs = 10_000): Promise<string> =>
  eventually(async () => (await problems(host)).find((text) => pattern.test(text)), {
    what: `${host.name} to report ${String(pattern)}`,
    timeoutMs,
  }) as Promise<string>;
const noProblem = (host: Host, timeoutMs = 30_000): Promise<unknown> =>
  eventually(
    async () => {
      const found = await problems(host);
      if (found.length > 0) throw new Error(found.join("\n"));
      return true;
    },
    { what: `${host.name} to report nothing`, timeoutMs },
  );
const dropped = async (host: Host, reason: string, vnet?: string): Promise<number> =>
  (await status(host)).drops
    .filter((row) => row.reason === reason && (vnet === undefined || row.vnet === longId(vnet)))
    .reduce((sum, { frames }) => sum + frames, 0);

/** packets that a host has sent to the underlay */
async function sent(host: Host): Promise<number> {
  const [link] = await host.ip<{ stats64: { tx: { packets: number } } }[]>(
    "-s",
    "link",
    "show",
    "dev",
    "eth0",
  );
  return link?.stats64.tx.packets ?? 0;
}

async function perSecond(host: Host, seconds: number): Promise<number> {
  const before = await sent(host);
  const startedMs = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return ((await sent(host)) - before) / ((performance.now() - startedMs) / 1000);
}

/** A cable between the bridges of two vnets of a host. */
async function join(host: Host): Promise<() => Promise<void>> {
  await host.exec("ip link add j97 type veth peer name j98");
  await host.exec("ip link set j97 master vnet0097 up");
  await host.exec("ip link set j98 master vnet0098 up");
  return async () => void (await host.tryExec("ip link delete j97"));
}

/** A second device of a host on the LAN, as a port of vnet 97's bridge. */
async function bridgeToLan(host: Host): Promise<() => Promise<void>> {
  await lab.connectHost(host, "eth1", "lan0", "169.254.9.9/32");
  await host.exec("ip address flush dev eth1");
  await host.exec("ip link set eth1 master vnet0097");
  return async () => void (await host.tryExec("ip link delete eth1"));
}

const say = (guest: Guest): Promise<unknown> => guest.tryExec("ping -c 1 -W 0.1 10.0.0.200");

/** Broadcast frames, as fast as it can, until it is stopped. */
const flood = `
import fcntl, socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
# SIOCGIFHWADDR: /sys is that of another namespace
mac = fcntl.ioctl(s, 0x8927, struct.pack("256s", b"eth0"))[18:24]
frame = b"\\xff" * 6 + mac + b"\\x88\\xb6" + b"x" * 46
n = 0
while True:
    s.send(frame)
    n += 1
    if n % 10000 == 0:
        print("sent", n, flush=True)
`;

/** One broadcast frame. */
const once = flood.slice(0, flood.indexOf("n = 0")) + "s.send(frame)\n";

beforeAll(async () => {
  lab = await Lab.create();
  hosts = await attachedHosts(lab, ["a", "b", "c"], { config });
  [a, b, c] = hosts as [Host, Host, Host];
  for (const host of hosts) for (const id of vnets) await host.vnetd(["vnet-create", id]);
}, 60_000 * timeFactor);
afterAll(() => lab.close());

describe("a storm", () => {
  it("ends at the host that it comes from; unicast and other vnets lose nothing", async () => {
    const options = { bridge: "vnet0097", mtuBytes: 1400 };
    const flooder = await a.guest("flooder", options);
    const talker = await a.guest("ta", { ...options, address: "10.0.0.1/24" });
    await b.guest("tb", { ...options, address: "10.0.0.2/24" });
    const other = await a.guest("oa", { bridge: "vnet0099", address: "10.0.0.1/24" });
    await b.guest("ob", { bridge: "vnet0099", address: "10.0.0.2/24" });
    for (const guest of [talker, other]) await guest.ping("10.0.0.2", { intervalMs: 20 });

    const flooding = flooder.spawn(["python3", "-c", flood]);
    try {
      await flooding.output(/sent 60000/, { timeoutMs: 20_000 });
      const pings = [talker, other].map((guest) => guest.startPing("10.0.0.2", { intervalMs: 50 }));
      const rate = await perSecond(a, 1.5);
      // the burst is spent; the rate, the pings and what the daemons say
      expect(rate).toBeLessThan(12_000);
      expect(rate).toBeGreaterThan(1000);
      await problem(a, /^storm in vnet 0097: guests of this host send more than 10000 frames/);
      for (const run of pings) {
        const { sent: count, lost } = await run.stop();
        // a veth's queue may be full for a moment
        expect(lost).toBeLessThanOrEqual(Math.ceil(count * 0.05));
      }
    } finally {
      await flooding.stop("SIGKILL");
    }
    expect(await dropped(a, "storm", "97")).toBeGreaterThan(1000);
    expect(await dropped(a, "storm", "99")).toBe(0);
    // a host of ours never gets to the end of what another takes from it
    expect(await dropped(b, "storm")).toBe(0);
    await noProblem(a);
  }, 90_000);
});

describe("one bridge", () => {
  it("between two vnets joins them, and nobody is alarmed", async () => {
    const undo = await join(a);
    try {
      const in97 = await b.guest("x97", { bridge: "vnet0097", address: "10.0.1.1/24" });
      const in98 = await c.guest("x98", { bridge: "vnet0098", address: "10.0.1.2/24" });
      expect((await in97.ping("10.0.1.2", { count: 5, intervalMs: 50 })).lost).toBe(0);
      for (let at = 0; at < 3; at++) for (const guest of [in97, in98]) await say(guest);
      // all three have sent probes by then
      await probed(hosts);
      for (const host of hosts) expect(await problems(host)).toEqual([]);
    } finally {
      await undo();
    }
  }, 60_000);

  it("between a vnet and the LAN that carries it joins them, and nobody is alarmed", async () => {
    const undo = await bridgeToLan(a);
    const onLan = await lab.host("s", { underlay: "10.66.1.66/24" });
    try {
      const inVnet = await b.guest("lan", { bridge: "vnet0097", address: "10.66.1.99/24" });
      expect((await inVnet.ping("10.66.1.66", { count: 5, intervalMs: 50 })).lost).toBe(0);
      expect((await onLan.ping("10.66.1.99", { count: 5, intervalMs: 50 })).lost).toBe(0);
      const before = await sent(a);
      await say(inVnet);
      await probed(hosts);
      for (const host of hosts) expect(await problems(host)).toEqual([]);
      // its own packets, which come in by the bridge, are not carried in themselves
      expect(await dropped(a, "carries_itself", "97")).toBeGreaterThan(0);
      expect((await sent(a)) - before).toBeLessThan(500);
    } finally {
      await undo();
      await onLan.tryExec("ip link delete eth0");
    }
  }, 60_000);
});

/** Waits until each host has sent probes in its vnets, as it does every ten seconds here. */
async function probed(of: readonly Host[]): Promise<void> {
  const captures = await Promise.all(
    of.map((host) => host.capture("eth0", "udp port 1798 and src host " + addressOf(host))),
  );
  await eventually(
    () =>
      captures.every(({ packets }) =>
        packets.some(({ data }) => Buffer.from(data).includes("VNTP", 0, "latin1")),
      ),
    { what: "probes", timeoutMs: 60_000 },
  );
  for (const capture of captures) await capture.stop();
}
const addressOf = (host: Host): string => `10.66.1.${hosts.indexOf(host) + 1}`;

describe("a loop", () => {
  /** A loop is open: named, bounded, harmless to others; then closed, and forgotten. */
  async function looped(undo: readonly (() => Promise<void>)[], names: RegExp): Promise<void> {
    const other = await a.guest(`oc${String(performance.now()).slice(0, 3)}`, {
      bridge: "vnet0099",
      address: "10.0.0.9/24",
    });
    await other.ping("10.0.0.2", { count: 2, intervalMs: 20 });
    const speaker = await c.guest(`sp${String(performance.now()).slice(0, 3)}`, {
      bridge: "vnet0097",
      address: "10.0.2.1/24",
    });
    try {
      for (let at = 0; at < 5; at++) await say(speaker);
      const texts = [await problem(a, /^loop in/), await problem(b, /^loop in/)];
      for (const text of texts) expect(text).toMatch(names);
      const pinging = other.startPing("10.0.0.2", { intervalMs: 20 });
      // the burst of the smaller budget is spent
      await new Promise((resolve) => setTimeout(resolve, 1500));
      const rates = await Promise.all([perSecond(a, 2), perSecond(b, 2)]);
      // two vnets of 100 a second each at most, fifty pings a second, probes and hellos
      for (const rate of rates) expect(rate).toBeLessThan(400);
      const { sent: count, lost } = await pinging.stop();
      expect(count).toBeGreaterThan(50);
      expect(lost).toBe(0);
      // it is no matter of duplicate addresses, for a host outside of it neither
      for (const host of hosts)
        expect((await problems(host)).filter((text) => /duplicate|storm/.test(text))).toEqual([]);
      expect((await dropped(a, "storm")) + (await dropped(b, "storm"))).toBeGreaterThan(0);
      expect((await dropped(a, "loop")) + (await dropped(b, "loop"))).toBeGreaterThan(0);
      expect(a.daemon.stderr).toMatch(/warn loop in vnet 0097/);
    } finally {
      for (const each of undo) await each();
    }
    for (const host of hosts) await noProblem(host);
    expect(a.daemon.stderr).toMatch(/info the loop in vnet 0097 is gone/);
  }

  it(
    "of two vnets that are joined on two hosts",
    async () => {
      const undo: (() => Promise<void>)[] = [];
      try {
        undo.push(await join(a), await join(b));
        await looped(
          undo,
          /^loop in vnet 009[78]: 10\.66\.1\.[12] joins vnets 0097 and 0098; this host joins vnets 0097 and 0098/,
        );
      } finally {
        for (const each of undo) await each();
      }
    },
    90_000 * timeFactor,
  );

  it(
    "of a vnet that is bridged to the LAN that carries it on two hosts",
    async () => {
      const undo: (() => Promise<void>)[] = [];
      try {
        undo.push(await bridgeToLan(a), await bridgeToLan(b));
        await looped(
          undo,
          /^loop in vnet 0097: vnet 0097 on (this host|10\.66\.1\.[12]) and vnet 0097 on (this host|10\.66\.1\.[12]) are bridged to one LAN/,
        );
      } finally {
        for (const each of undo) await each();
      }
    },
    90_000 * timeFactor,
  );
});

describe("duplicate addresses", () => {
  const duplicate = (mac: string): RegExp =>
    new RegExp(`^duplicate address ${mac} in vnet 0098: seen on `);

  it("of two guests that talk are reported by both hosts, and by a third", async () => {
    const mac = "02:00:00:00:77:01";
    await c.guest("d3", { bridge: "vnet0098", address: "10.0.3.3/24" });
    const one = await a.guest("d1", { bridge: "vnet0098", address: "10.0.3.1/24", mac });
    const two = await b.guest("d2", { bridge: "vnet0098", address: "10.0.3.2/24", mac });
    const runs = [one, two].map((guest) => guest.startPing("10.0.3.3", { intervalMs: 100 }));
    expect(await problem(a, duplicate(mac), 20_000)).toMatch(
      /seen on this host and on 10\.66\.1\.2$/,
    );
    expect(await problem(b, duplicate(mac), 20_000)).toMatch(
      /seen on this host and on 10\.66\.1\.1$/,
    );
    expect(await problem(c, duplicate(mac), 20_000)).toMatch(
      /seen on 10\.66\.1\.1 and on 10\.66\.1\.2$/,
    );
    expect(a.daemon.stderr).toMatch(/warn duplicate address 02:00:00:00:77:01 in vnet 0098/);
    for (const run of runs) await run.stop();
    for (const guest of [one, two]) await guest.unplug();
    for (const host of hosts) await noProblem(host, 60_000);
  }, 120_000);

  it("of two guests that speak now and then are reported as well", async () => {
    const mac = "02:00:00:00:77:02";
    const one = await a.guest("e1", { bridge: "vnet0098", address: "10.0.3.1/24", mac });
    const two = await b.guest("e2", { bridge: "vnet0098", address: "10.0.3.2/24", mac });
    // nothing but what the test has them say
    for (const guest of [one, two]) await guest.sysctl("net.ipv6.conf.all.disable_ipv6", 1);
    const talking = { on: true };
    const talk = (async () => {
      while (talking.on) {
        for (const guest of [one, two]) {
          await guest.exec(["python3", "-c", once]);
          await new Promise((resolve) => setTimeout(resolve, 3000));
        }
      }
    })();
    try {
      await problem(a, duplicate(mac), 40_000);
      await problem(b, duplicate(mac), 40_000);
    } finally {
      talking.on = false;
      await talk;
    }
    for (const guest of [one, two]) await guest.unplug();
  }, 150_000);

  it(
    "that announces alone show are reported, after this host has asked by an announce of its own",
    async () => {
      const mac = "02:00:00:00:77:03";
      const guest = await a.guest("f1", { bridge: "vnet0098", address: "10.0.5.1/24", mac });
      // speaks VARP by hand: its guest's frames never come here
      const stranger = await lab.host("v", { underlay: "10.66.1.77/24" });
      const announce = async (): Promise<void> => {
        const message = encodeVarp({
          opcode: "announce",
          vnet: vnetIdToBytes(longId("98")),
          vmac: macToBytes(mac),
          address: parseAddress("10.66.1.77"),
        });
        const program = `
          const s = require("node:dgram").createSocket("udp4");
          s.send(Buffer.from("${message.toString("hex")}", "hex"), 1798, "10.66.1.1", () => s.close());`;
        await stranger.exec([process.execPath, "-e", program]);
      };
      const pinging = guest.startPing("10.0.5.200", { intervalMs: 100 });
      try {
        await eventually(
          async () =>
            (await a.vnetdJson<{ vmac: string }[]>(["vifs"])).some((vif) => vif.vmac === mac),
          { what: "the guest to speak" },
        );
        const capture = await stranger.capture("eth0", "udp port 1798 and src host 10.66.1.1");
        const defended = (): boolean =>
          capture.packets.some(({ data }) => {
            const decoded = decodeVarp(Buffer.from(data).subarray(42));
            return (
              decoded.ok &&
              decoded.message.opcode === "announce" &&
              macFromBytes(decoded.message.vmac) === mac
            );
          });
        await announce();
        await eventually(defended, { what: "an announce in turn", timeoutMs: 8000 });
        expect((await problems(a)).filter((each) => duplicate(mac).test(each))).toEqual([]);
        await announce();
        expect(await problem(a, duplicate(mac), 15_000)).toMatch(
          /seen on this host and on 10\.66\.1\.77$/,
        );
        await capture.stop();
      } finally {
        await pinging.stop();
        await guest.unplug();
        await stranger.tryExec("ip link delete eth0");
      }
    },
    120_000 * timeFactor,
  );

  it("are not what a guest has that is moved there and back and there again", async () => {
    const moved = await a.guest("m", { bridge: "vnet0099", address: "10.0.4.1/24" });
    const still = await c.guest("n", { bridge: "vnet0099", address: "10.0.4.2/24" });
    await still.ping("10.0.4.1", { count: 2, intervalMs: 50 });
    const pinging = still.startPing("10.0.4.1", { intervalMs: 20 });
    for (const to of [b, a, b]) {
      await moved.moveTo(to, "vnet0099");
      const since = pinging.answers;
      await say(moved);
      await eventually(() => pinging.answers > since + 5, {
        what: `answers from ${to.name}`,
        timeoutMs: 3000,
      });
    }
    await pinging.stop();
    await new Promise((resolve) => setTimeout(resolve, 4000));
    const mac = await moved.mac();
    for (const host of hosts)
      expect((await problems(host)).filter((each) => each.includes(mac))).toEqual([]);
  }, 60_000);
});
