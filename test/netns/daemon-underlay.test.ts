// SPDX-License-Identifier: Apache-2.0
/**
 * Attached devices: what they go through, and the daemon carries on by itself. Two LANs between
 * two hosts are two paths to one host. Group membership outlives the daemon.
 */
import { mkdirSync, rmSync, rmdirSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { AttachedDevice, HostInfo, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, run, type Host } from "../lib/lab.js";
import {
  addressVnet4,
  attachedHosts,
  callApi,
  longId,
  quickHello,
  startDaemon,
  withAddon,
} from "./world.js";

let lab: Lab;
const status = async (host: Host): Promise<StatusInfo> => {
  const answer = await callApi(host, '{"v":1,"id":1,"method":"status","params":{}}\n');
  return answer?.["result"] as StatusInfo;
};
const device = async (host: Host, name = "eth0"): Promise<AttachedDevice | undefined> =>
  (await status(host)).attached.find((each) => each.device === name);

describe("a device that changes", () => {
  let a: Host;
  let b: Host;

  beforeAll(async () => {
    lab = await Lab.create();
    [a, b] = (await attachedHosts(lab, ["a", "b"], { config: quickHello })) as [Host, Host];
    await addressVnet4([a, b]);
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
  });
  afterAll(() => lab.close());
  afterEach(async () => {
    await eventually(
      async () => (await a.ping("10.4.0.2", { count: 1, waitMs: 200 })).received === 1,
      {
        timeoutMs: 10_000,
        what: "the vnet to carry traffic again",
      },
    );
  });

  it("gets another address: the others reach this host there", async () => {
    await b.exec("ip addr add 10.66.1.77/24 dev eth0 && ip addr del 10.66.1.2/24 dev eth0");
    // the kernel makes a second address of a subnet the first when the first goes, or drops it
    await b.exec("ip addr replace 10.66.1.77/24 dev eth0");
    await eventually(async () => (await device(b))?.address === "10.66.1.77", {
      what: "the new address",
    });
    expect(
      (await a.ping("10.4.0.2", { count: 3, intervalMs: 100, waitMs: 500 })).received,
    ).toBeGreaterThan(1);
    const hosts = await a.vnetdJson<HostInfo[]>(["hosts"]);
    expect(hosts[0]?.paths.find(({ primary }) => primary)?.address).toBe("10.66.1.77");
  });

  it("goes down and comes up", async () => {
    await a.exec("ip link set eth0 down");
    await eventually(async () => /down/.test((await device(a))?.problem ?? ""), {
      what: "the problem",
    });
    expect((await status(a)).problems.join()).toMatch(/eth0/);
    await a.exec("ip link set eth0 up");
    await eventually(async () => (await device(a))?.problem === "", { what: "no problem" });
  });

  it("loses its address and gets one again", async () => {
    await a.exec("ip addr flush dev eth0");
    await eventually(async () => /no IPv4/.test((await device(a))?.problem ?? ""), {
      what: "the problem",
    });
    await a.exec("ip addr add 10.66.1.1/24 dev eth0");
    await eventually(async () => (await device(a))?.problem === "", { what: "no problem" });
    const { stdout } = await a.exec("ip -4 -o addr show dev eth0");
    expect(stdout).toMatch(/inet 224\.10\.0\.1\/32.*autojoin/);
    // the group's address is never what packets leave from
    expect((await a.exec("ip route get 10.66.1.2")).stdout).toMatch(/src 10\.66\.1\.1/);
  });

  it("is left alone when nothing changes", async () => {
    const monitor = a.spawn(["ip", "monitor", "address", "link", "route"]);
    await a.exec("ip link set lo down && ip link set lo up");
    await eventually(() => /lo/.test(monitor.stdout), { what: "the monitor to see lo" });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await monitor.stop()).stdout).not.toMatch(/eth0|vnif|224\.10/);
  });

  it("disappears and comes back under its name", async () => {
    await a.exec("ip link del eth0");
    await eventually(async () => /not there/.test((await device(a))?.problem ?? ""), {
      what: "the problem",
    });
    await lab.connectHost(a, "eth0", "lan0", "10.66.1.1/24");
    await eventually(async () => (await device(a))?.up === true, {
      what: "the device to carry traffic",
    });
  });

  it("gets another MTU: the vnetifs follow, and so do the bridges that vnetd made", async () => {
    await a.vnetd(["vnet-create", "97"]);
    await a.exec("ip link set eth0 mtu 1400");
    const mtu = async (name: string): Promise<number | undefined> =>
      (await a.ip<{ mtu: number }[]>("link", "show", name))[0]?.mtu;
    await eventually(async () => (await mtu("vnif0004")) === 1336, { what: "vnif0004's MTU" });
    await eventually(async () => (await mtu("vnet0097")) === 1336, { what: "vnet0097's MTU" });
    await a.exec("ip link set eth0 mtu 1500");
    await eventually(async () => (await mtu("vnif0004")) === 1436, { what: "vnif0004's MTU" });
  });

  it("gets one MTU upon the other: the vnetifs have the last", async () => {
    const until = (bytes: number): string =>
      `until ip link show vnif0004 | grep -q 'mtu ${bytes} '; do :; done`;
    // the second before the daemon has seen what it made of the first
    for (let round = 0; round < 5; round += 1) {
      await a.exec(`ip link set eth0 mtu 1400; ${until(1336)}; ip link set eth0 mtu 1500`);
      await a.exec(until(1436), { timeoutMs: 5000 });
    }
  });

  it("gets an MTU that leaves vnets none that the kernel takes: a problem for as long", async () => {
    await a.vnetd(["vnet-create", "98"]);
    // below 68 bytes the kernel takes none: what is left of 120 is 56
    await a.exec("ip link set eth0 mtu 120");
    const refused = async (): Promise<string[]> =>
      (await status(a)).problems.filter((text) => text.includes("instead of 56"));
    const named = async (): Promise<string[]> =>
      (await refused()).flatMap((text) => /MTU of (\w+): EINVAL/.exec(text)?.[1] ?? []);
    const all = ["vnet0097", "vnet0098", "vnif0002", "vnif0003", "vnif0004"];
    await eventually(async () => (await named()).sort().join() === all.join(), {
      what: "the problems",
    });
    expect((await refused()).find((text) => text.includes("vnif0004"))).toBe(
      `vnet ${longId("4")}: MTU of vnif0004: EINVAL: mtu less than device minimum, so it stays at 1436 instead of 56`,
    );
    await a.vnetd(["vnet-delete", "98"]);
    expect((await named()).sort()).toEqual(all.filter((name) => name !== "vnet0098"));
    await a.exec("ip link set eth0 mtu 1500");
    await eventually(async () => (await refused()).length === 0, { what: "no such problems" });
    await eventually(async () => (await status(a)).problems.length === 0, { what: "no problems" });
  });

  it("carries a vnet beside whose interface there is a port that is larger than the kernel lets that be", async () => {
    const mtu = async (): Promise<number | undefined> =>
      (await a.ip<{ mtu: number }[]>("link", "show", "vnif0097"))[0]?.mtu;
    const refused = async (): Promise<string[]> =>
      (await status(a)).problems.filter((text) => text.includes("instead of 9000"));
    // an XDP program that takes no packets in several buffers, at the veth's other end
    const other = `${a.bpffs}-other`;
    mkdirSync(other);
    const object = JSON.stringify(resolve("build/bpf/vnetd.bpf.o"));
    const [vnif] = await a.ip<{ link: string }[]>("link", "show", "vnif0097");
    await withAddon(
      a,
      `const { programs } = native.objectLoad(${object}, { programs: { vnetd_xdp_generic: true } });
       const { ifindex } = native.linkGet(${JSON.stringify(vnif?.link)});
       native.xdpAttach(programs.vnetd_xdp_generic, ifindex, "native", "${other}/link")`,
    );
    const guest = await a.guest("jumbo", { bridge: "vnet0097", mtuBytes: 9000 });
    await eventually(async () => (await refused()).length > 0, { what: "the problem" });
    expect(await refused()).toEqual([
      `vnet ${longId("97")}: MTU of vnif0097: EINVAL: mtu greater than device maximum, so it stays at 1500 instead of 9000`,
    ]);
    expect(await mtu()).toBe(1500);
    rmSync(`${other}/link`);
    rmdirSync(other);
    await eventually(async () => (await mtu()) === 9000, {
      what: "the larger MTU",
      timeoutMs: 20_000,
    });
    await eventually(async () => (await status(a)).problems.length === 0, { what: "no problems" });
    await a.exec(["ip", "link", "del", guest.port]);
  });

  it("is attached once, is what it must be, and is detached whole", async () => {
    const refused = async (...args: string[]): Promise<string> => {
      const result = await a.tryVnetd(args);
      expect(result.code).toBe(1);
      return result.stderr;
    };
    expect(await refused("attach", "eth0")).toMatch(/already/);
    expect(await refused("attach", "eth9")).toMatch(/eth9/);
    expect(await refused("attach", "lo")).toMatch(/loopback/);
    expect(await refused("attach", "vnif0004")).toMatch(/vnet/);
    await a.vnetd(["detach", "eth0"]);
    expect(await refused("detach", "eth0")).toMatch(/not attached/);
    expect((await a.exec("ip addr show dev eth0")).stdout).not.toMatch(/224\.10\.0\.1/);
    expect((await a.ping("10.4.0.2", { count: 1, waitMs: 100 })).received).toBe(0);
    await eventually(async () => (await b.vnetdJson<HostInfo[]>(["hosts"])).length === 0, {
      what: "a's goodbye",
    });
    await a.vnetd(["attach", "eth0"]);
  });
});

describe.each([4, 6] as const)("a jumbo underlay, over IPv%d", (family) => {
  const [mtuBytes, headersBytes] = [9000 - (family === 4 ? 64 : 84), 28];
  let a: Host;
  let b: Host;

  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { mtuBytes: 9000 });
    const prefix = family === 4 ? "10.66.1." : "2001:db8:66::";
    [a, b] = await Promise.all(
      ["a", "b"].map((name, index) =>
        lab.host(name, { underlay: `${prefix}${index + 1}/${family === 4 ? 24 : 64}` }),
      ) as [Promise<Host>, Promise<Host>],
    );
    for (const host of [a, b]) {
      await startDaemon(host, { config: quickHello });
      await host.vnetd(["attach", "eth0"]);
    }
    await addressVnet4([a, b]);
  });
  afterAll(() => lab.close());

  it("carries frames as large, in one packet each", async () => {
    const [link] = await a.ip<{ mtu: number }[]>("link", "show", "vnif0004");
    expect(link?.mtu).toBe(mtuBytes);
    const outer = await b.capture("eth0", "greater 8990");
    const ping = await a.ping("10.4.0.2", {
      count: 3,
      intervalMs: 50,
      sizeBytes: mtuBytes - headersBytes,
      dontFragment: true,
    });
    expect(ping.lost).toBe(0);
    await eventually(() => outer.packets.length >= 6, { what: "packets of 9000 bytes both ways" });
    await outer.stop();
    expect(new Set(outer.packets.map(({ data }) => data.length))).toEqual(new Set([9014]));
  });

  it("carries TCP, and frames that are larger still", async () => {
    expect((await a.iperf3(b, { address: "10.4.0.2", seconds: 1 })).bitsPerSecond).toBeGreaterThan(
      50e6,
    );
    const larger = { count: 2, intervalMs: 50, sizeBytes: mtuBytes + 100 };
    expect((await a.ping("10.4.0.2", larger)).lost).toBe(0);
  });
});

describe("hosts that share two LANs", () => {
  let a: Host;
  let b: Host;

  beforeAll(async () => {
    lab = await Lab.create();
    a = await lab.host("a", { underlay: { lan0: "10.66.1.1/24", lan1: "10.66.2.1/24" } });
    b = await lab.host("b", { underlay: { lan0: "10.66.1.2/24", lan1: "10.66.2.2/24" } });
    for (const host of [a, b]) {
      await startDaemon(host, { config: `${quickHello}attach: [eth0, eth1]\n` });
    }
    await addressVnet4([a, b]);
  });
  afterAll(() => lab.close());

  const paths = async (host: Host): Promise<HostInfo["paths"]> =>
    (await host.vnetdJson<HostInfo[]>(["hosts"]))[0]?.paths ?? [];

  const duplicates = async (host: Host): Promise<number> =>
    (await status(host)).drops.find(
      (row) => row.vnet === longId("4") && row.reason === "duplicate_path",
    )?.frames ?? 0;

  it("are one host reached by two paths, one of them primary", async () => {
    const found = await eventually(async () => {
      const now = await paths(a);
      return now.length === 2 ? now : undefined;
    });
    expect(found?.filter(({ primary }) => primary)).toHaveLength(1);
    expect(await a.vnetdJson<HostInfo[]>(["hosts"])).toHaveLength(1);
  });

  it("hear a broadcast once", async () => {
    await eventually(async () => (await paths(b)).length === 2);
    const before = await duplicates(b);
    const sent = await a.capture("vnif0004", "arp[6:2] = 1");
    const heard = await b.capture("vnif0004", "arp[6:2] = 1");
    await a.tryExec("ping -c 3 -i 0.3 -W 1 10.4.0.222");
    await eventually(() => sent.packets.length >= 3);
    await sent.stop();
    await heard.stop();
    expect(heard.packets).toHaveLength(sent.packets.length);
    expect(await duplicates(b)).toBeGreaterThanOrEqual(before + sent.packets.length);
  });

  it("go on by the other LAN when one is cut", async () => {
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).duplicates).toBe(0);
    await run(["ip", "-n", lab.switch, "link", "set", lab.switchPort(b, "eth0"), "down"]);
    await eventually(
      async () =>
        (await a.ping("10.4.0.2", { count: 2, intervalMs: 50, waitMs: 200 })).received > 0,
      {
        timeoutMs: 10_000,
        what: "traffic by the other LAN",
      },
    );
    await run(["ip", "-n", lab.switch, "link", "set", lab.switchPort(b, "eth0"), "up"]);
  });
});

describe("group membership", () => {
  it("outlives the daemon behind a bridge that snoops", async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { snooping: true });
    const [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
    await addressVnet4([a, b]);
    await b.killDaemon("SIGKILL");
    // longer than the membership interval of the snooping bridge
    await new Promise((resolve) => setTimeout(resolve, 6000));
    await a.exec("ip neigh flush dev vnif0004");
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 100 })).lost).toBe(0);
    await lab.close();
  });
});
