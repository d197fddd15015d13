// SPDX-License-Identifier: Apache-2.0
/**
 * What the manual promises, with the real daemon and commands: addresses on vnif0004, guests on
 * bridges, isolation of vnets, the group's ping; and that the data plane needs no daemon.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VarpEntry, VifInfo, HostInfo } from "../../src/api/contract.js";
import { Lab, eventually, run, type Guest, type Host } from "../lib/lab.js";
import { parseFrame } from "../lib/packet-parse.js";
import { timeFactor } from "../lib/processes.js";
import { addressVnet4, attachedHosts, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
});
afterAll(() => lab.close());

describe("vnet 4, which the daemon makes by itself", () => {
  beforeAll(async () => {
    await addressVnet4([a, b]);
  });

  it("carries pings between hosts", async () => {
    const result = await a.ping("10.4.0.2", { count: 5, intervalMs: 50 });
    expect(result).toMatchObject({ received: 5, duplicates: 0 });
  });

  it("shows its packets on the underlay, both ways", async () => {
    // IPv4 and ICMP in the frame, which is behind 8 and 22 bytes: no hello of either host
    const echoes = "udp port 1798 and udp[42:2] = 0x0800 and udp[53] = 1";
    const capture = await a.capture("eth0", echoes);
    await a.ping("10.4.0.2", { count: 1 });
    const ways = (): string[] =>
      capture.packets.map(({ data }) => {
        const { src, dst } = parseFrame(data, { transportChecksums: "skip" }).ipv4!;
        return `${src} > ${dst}`;
      });
    await eventually(() => ways().length >= 2, { what: "the echo and its answer" });
    await capture.stop();
    expect(ways()).toEqual(["10.66.1.1 > 10.66.1.2", "10.66.1.2 > 10.66.1.1"]);
  });

  it("carries TCP and UDP at speed", async () => {
    const tcp = await a.iperf3(b, { address: "10.4.0.2", seconds: 1 });
    expect(tcp.bitsPerSecond).toBeGreaterThan(50e6);
    const udp = await a.iperf3(b, {
      address: "10.4.0.2",
      seconds: 1,
      udp: true,
      bitrate: "20M",
      lengthBytes: 1000,
    });
    // a receiver that does not get the processor in time loses some in its own socket
    expect(udp.lostPackets).toBeLessThan(udp.packets * 0.1);
  });

  it("carries IPv6 and frames as large as the MTU", async () => {
    await addressVnet4([a, b], { families: [6] });
    expect((await a.ping("fd04::2", { count: 2, intervalMs: 50 })).lost).toBe(0);
    expect(
      (await a.ping("10.4.0.2", { count: 2, intervalMs: 50, sizeBytes: 1408, dontFragment: true }))
        .lost,
    ).toBe(0);
  });

  it("is known to both by hello", async () => {
    const hosts = await eventually(async () => {
      const found = await a.vnetdJson<HostInfo[]>(["hosts"]);
      return found.length === 1 ? found : undefined;
    });
    expect(hosts?.[0]?.vnets).toEqual(["2", "3", "4"].map(longId));
    expect(hosts?.[0]?.paths).toMatchObject([
      { address: "10.66.1.2", device: "eth0", mtu: 1500, primary: true },
    ]);
  });

  it("shows the other's MAC in varp and its own in vifs", async () => {
    const [macA, macB] = [await a.mac("vnif0004"), await b.mac("vnif0004")];
    // a hello that comes between says the same of it, and is the state until its next frame
    await eventually(async () => {
      await a.ping("10.4.0.2", { count: 1 });
      expect(await a.vnetdJson<VarpEntry[]>(["varp"])).toContainEqual(
        expect.objectContaining({
          vnet: longId("4"),
          vmac: macB,
          address: "10.66.1.2",
          state: "learned",
        }),
      );
      return true;
    });
    const vifs = await a.vnetdJson<VifInfo[]>(["vifs"]);
    expect(vifs).toContainEqual(expect.objectContaining({ vnet: longId("4"), vmac: macA }));
  });
});

describe("the group's address", () => {
  it("is answered by every attached host, whatever icmp_echo_ignore_broadcasts says", async () => {
    const outsider = await lab.host("outsider", { underlay: "10.66.1.99/24" });
    await a.sysctl("net.ipv4.icmp_echo_ignore_broadcasts", 1);
    const result = await outsider.ping("224.10.0.1", { count: 3, from: "eth0" });
    expect(result.responders).toEqual(["10.66.1.1", "10.66.1.2"]);
  });

  it("is answered to an attached host by the others", async () => {
    const result = await a.ping("224.10.0.1", { count: 2, from: "eth0" });
    expect(result.responders).toEqual(["10.66.1.2"]);
  });
});

describe("guests on bridges", () => {
  let ga: Guest;
  let gb: Guest;
  let other: Guest;

  beforeAll(async () => {
    for (const host of [a, b]) {
      await host.vnetd([
        "vnet-create",
        lab.file(
          `${host.name}-97.sxp`,
          "# a vnet\n(vnet (id 97) (bridge vnet97) (vnetif vnif97) (security none))\n",
        ),
      ]);
      await host.vnetd(["vnet-create", "98"]);
    }
    ga = await a.guest("ga", { bridge: "vnet97", address: "10.0.0.1/24" });
    gb = await b.guest("gb", { bridge: "vnet97", address: "10.0.0.2/24" });
    other = await b.guest("go", { bridge: "vnet0098", address: "10.0.0.2/24" });
  });

  it("reach one another, and vnets with the same addresses stay apart", async () => {
    expect(await ga.ping("10.0.0.2", { count: 5, intervalMs: 50 })).toMatchObject({
      received: 5,
      duplicates: 0,
    });
    const same = await a.guest("gx", { bridge: "vnet0098", address: "10.0.0.1/24" });
    const capture = await other.capture("eth0", "icmp");
    expect((await same.ping("10.0.0.2", { count: 2 })).lost).toBe(0);
    await eventually(() => capture.packets.length === 4, { what: "two echoes and their answers" });
    await capture.stop();
  });

  it("are shown by vifs with their port, and stand on the bridge", async () => {
    const mac = await ga.mac();
    const vifs = await a.vnetdJson<VifInfo[]>(["vifs"]);
    expect(vifs).toContainEqual(
      expect.objectContaining({ vnet: longId("97"), vmac: mac, device: ga.port }),
    );
    const ports = await a.ip<{ ifname: string; master?: string }[]>(
      "link",
      "show",
      "master",
      "vnet97",
    );
    expect(ports.map((port) => port.ifname).sort()).toEqual([ga.port, "vnif97"].sort());
  });

  it("are shown by the bridge tools, beside the vnetif", async () => {
    const links = (await a.exec("bridge link")).stdout.split("\n");
    for (const port of ["vnif97", ga.port]) {
      const line = links.find((each) => each.includes(` ${port}`));
      expect(line, port).toMatch(/ master vnet97 state forwarding /);
    }
    // brctl may look into /sys, which must be that of the namespace
    const { stdout } = await run(["ip", "netns", "exec", a.netns, "brctl", "show", "vnet97"]);
    const [, first, ...more] = stdout.trimEnd().split("\n");
    expect(first).toMatch(/^vnet97\s/);
    const ports = [first ?? "", ...more].map((line) => line.trim().split(/\s+/).at(-1));
    expect(ports.sort()).toEqual([ga.port, "vnif97"].sort());
  });

  it("may be set to 1500: what is too large is answered, or goes in fragments", async () => {
    const large = await a.guest("la", { bridge: "vnet97", address: "10.0.1.1/24", mtuBytes: 1500 });
    await b.guest("lb", { bridge: "vnet97", address: "10.0.1.2/24", mtuBytes: 1500 });
    const ping = (discovery: string): string => `ping -c 4 -i 0.1 -s 1472 -M ${discovery} 10.0.1.2`;
    const fragments = await b.capture("eth0", "ip[6:2] & 0x3fff != 0");
    expect((await large.exec(ping("dont"))).stdout).toMatch(/ 4 received/);
    expect(fragments.packets.length).toBeGreaterThan(4);
    await fragments.stop();
    const answered = await large.tryExec(ping("do"));
    expect(answered.stdout).toMatch(/mtu ?= ?1436/);
    expect((await large.exec("ping -c 2 -i 0.1 -s 1408 -M do 10.0.1.2")).stdout).toMatch(
      / 2 received/,
    );
  });

  it("may have jumbo frames: the vnetif takes what the largest port of its bridge does", async () => {
    const jumbo = await a.guest("ja", { bridge: "vnet97", address: "10.0.2.1/24", mtuBytes: 9000 });
    await b.guest("jb", { bridge: "vnet97", address: "10.0.2.2/24", mtuBytes: 9000 });
    for (const host of [a, b]) {
      await eventually(async () => {
        const [link] = await host.ip<{ mtu: number }[]>("link", "show", "vnif97");
        return link?.mtu === 9000;
      });
    }
    const ping = (discovery: string): string => `ping -c 4 -i 0.1 -s 4000 -M ${discovery} 10.0.2.2`;
    expect((await jumbo.exec(ping("dont"))).stdout).toMatch(/ 4 received/);
    expect((await jumbo.tryExec(ping("do"))).stdout).toMatch(/mtu ?= ?1436/);
  });

  it("lose nothing when the daemon is killed hard, nor when it comes back", async () => {
    const pinging = ga.startPing("10.0.0.2", { intervalMs: 5 });
    await eventually(() => pinging.answers > 20);
    await a.killDaemon("SIGKILL");
    await b.killDaemon("SIGKILL");
    const before = pinging.answers;
    await eventually(() => pinging.answers > before + 60, { what: "answers without a daemon" });
    await startDaemon(a);
    await startDaemon(b);
    const after = pinging.answers;
    await eventually(() => pinging.answers > after + 60);
    const result = await pinging.stop();
    expect(result.lost).toBeLessThanOrEqual(1); // the last may still be under way
    expect(result.duplicates).toBe(0);
    const status = await a.vnetdJson<StatusInfo>(["status"]);
    expect(status).toMatchObject({
      vnets: 5,
      problems: [],
      attached: [{ device: "eth0", address: "10.66.1.1", up: true }],
    });
  });

  it("can be new while no daemon runs", async () => {
    await a.killDaemon("SIGKILL");
    const late = await a.guest("late", { bridge: "vnet97", address: "10.0.0.9/24" });
    expect((await late.ping("10.0.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    expect((await gb.ping("10.0.0.9", { count: 3, intervalMs: 50 })).lost).toBe(0);
    await startDaemon(a);
  });

  it("are found where they are after a move, at once", async () => {
    await gb.ping("10.0.0.1", { count: 2, intervalMs: 20 });
    for (const to of [a, b]) {
      const pinging = ga.startPing("10.0.0.2", { intervalMs: 10 });
      await eventually(() => pinging.answers > 10);
      await gb.moveTo(to, "vnet97");
      await eventually(() => pinging.answers > 100, { what: "answers at the new place" });
      // it was unplugged for some milliseconds, and was announced as soon as the daemon saw it: 2 or 3 on a quiet machine
      expect((await pinging.stop()).lost).toBeLessThan(30 * timeFactor);
    }
  });
});
