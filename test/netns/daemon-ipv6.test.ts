// SPDX-License-Identifier: Apache-2.0
/**
 * The underlay over IPv6: hosts that have nothing else, hosts that have both families, and link-local
 * addresses alone. Real daemons, commands and frames.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AttachedDevice, HostInfo, StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { addAddress, addressVnet4, quickHello, startDaemon } from "./world.js";

/** 1500 bytes that may be fragmented */
const pingLarge = "ping -M dont -c 3 -i 0.05 -W 1 -s 1472";
const group6 = "ff12::8000:706";
const attached = async (host: Host): Promise<AttachedDevice[]> =>
  (await host.vnetdJson<StatusInfo>(["status"])).attached;
const hosts = (host: Host): Promise<HostInfo[]> => host.vnetdJson<HostInfo[]>(["hosts"]);
const dropped = async (host: Host): Promise<string[]> =>
  (await host.vnetdJson<StatusInfo>(["status"])).drops.map(({ reason }) => reason);

describe("hosts with IPv6 only", () => {
  let lab: Lab;
  let a: Host;
  let b: Host;
  let g1: Guest;
  let g2: Guest;

  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { wire: true });
    a = await lab.host("a");
    b = await lab.host("b");
    for (const [index, host] of [a, b].entries()) {
      await lab.connectHost(host, "eth0", "lan0", `fd66::${index + 1}/64`);
      await startDaemon(host, { config: quickHello });
      // nothing but `attach` is needed
      await host.vnetd(["attach", "eth0"]);
      await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
    }
    await addressVnet4([a, b], { families: [4, 6] });
    g1 = await a.guest("g1", { bridge: "vnet97", address: "10.97.0.1/24", mtuBytes: 1500 });
    g2 = await b.guest("g2", { bridge: "vnet97", address: "10.97.0.2/24", mtuBytes: 1500 });
  });
  afterAll(() => lab.close());

  it("attach as any, and are shown by their addresses", async () => {
    expect(await attached(a)).toMatchObject([
      { device: "eth0", address: "fd66::1", group: group6, up: true, problem: "" },
    ]);
    const found = await eventually(async () => {
      const [host] = await hosts(a);
      return host?.paths.length === 1 ? host : undefined;
    });
    expect(found?.paths).toMatchObject([{ address: "fd66::2", device: "eth0", primary: true }]);
    const { stdout } = await a.exec("ip -6 -o addr show dev eth0");
    expect(stdout).toMatch(/inet6 ff12::8000:706\/128.*autojoin/);
    // the group's address is never what packets leave from
    expect((await a.exec("ip -6 route get fd66::2")).stdout).toMatch(/src fd66::1 /);
  });

  it("reach one another: ARP, IPv4, IPv6, and TCP", async () => {
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    expect((await a.ping("fd04::2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    const varp = await a.vnetdJson<VarpEntry[]>(["varp"]);
    expect(varp.filter(({ address }) => address === "fd66::2").length).toBeGreaterThan(0);
    expect((await a.iperf3(b, { address: "10.4.0.2", seconds: 1 })).bytes).toBeGreaterThan(1e6);
    expect((await a.iperf3(b, { address: "fd04::2", seconds: 1 })).bytes).toBeGreaterThan(1e6);
    const udp = { address: "10.4.0.2", seconds: 1, udp: true, bitrate: "2M", lengthBytes: 1200 };
    expect((await a.iperf3(b, udp)).packets).toBeGreaterThan(100);
    // shorter than an IPv6 header behind the Ethernet header
    for (const sizeBytes of [0, 1, 11, 12]) {
      expect((await a.ping("10.4.0.2", { count: 1, sizeBytes })).received).toBe(1);
    }
  });

  it("have the MTU that fits", async () => {
    const [link] = await a.ip<{ mtu: number }[]>("link", "show", "vnif0004");
    expect(link?.mtu).toBe(1500 - 84);
  });

  it("carry what is too large in fragments, both ways, and tell who forbids it", async () => {
    const seen = await b.capture("eth0", "ip6[6] = 44");
    expect((await g1.exec(`${pingLarge} 10.97.0.2`)).stdout).toMatch(/3 received/);
    expect((await g2.exec(`${pingLarge} 10.97.0.1`)).stdout).toMatch(/3 received/);
    await eventually(() => seen.packets.length >= 6, { what: "fragments on the wire" });
    for (const { wireLength } of seen.packets) expect(wireLength).toBeLessThanOrEqual(1514);
    await seen.stop();
    const { stdout } = await g1.tryExec("ping -M do -c 1 -W 1 -s 1472 10.97.0.2");
    expect(stdout).toMatch(/mtu.?=.?1416/i);
    expect((await g1.iperf3(g2, { address: "10.97.0.2", seconds: 1 })).bytes).toBeGreaterThan(1e6);
  });

  it("hear a large broadcast, in fragments to the group", async () => {
    const heard = await g2.capture("eth0", "icmp and ether broadcast");
    await g1.tryExec("ping -b -c 2 -i 0.2 -W 1 -s 1472 10.97.0.255");
    await eventually(() => heard.packets.length >= 2, { what: "the broadcast" });
    await heard.stop();
  });

  it("go on when the daemons are killed", async () => {
    await a.killDaemon("SIGKILL");
    await b.killDaemon("SIGKILL");
    await a.exec("ip neigh flush dev vnif0004");
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    expect((await a.iperf3(b, { address: "10.4.0.2", seconds: 1 })).bytes).toBeGreaterThan(1e6);
    expect((await g1.exec(`${pingLarge} 10.97.0.2`)).stdout).toMatch(/3 received/);
    for (const host of [a, b]) await startDaemon(host, { config: quickHello });
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
  });

  it("follow an address that changes", async () => {
    await b.exec("ip addr add fd66::77/64 dev eth0 nodad && ip addr del fd66::2/64 dev eth0");
    await eventually(async () => (await attached(b))[0]?.address === "fd66::77", {
      what: "the new address",
    });
    await eventually(
      async () =>
        (await hosts(a))[0]?.paths.some(
          ({ address, primary }) => address === "fd66::77" && primary,
        ),
      { what: "the new path" },
    );
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 100 })).received).toBeGreaterThan(1);
  });

  it("drop nothing for a reason that should not be", async () => {
    const allowed = ["too_big", "unknown_vnet", "varp_unknown_vnet", "own_echo", "no_underlay"];
    for (const host of [a, b]) {
      expect((await dropped(host)).filter((reason) => !allowed.includes(reason))).toEqual([]);
    }
  });
});

describe("hosts with link-local addresses alone", () => {
  it("are a LAN as any", async () => {
    const lab = await Lab.create();
    await lab.lan("lan0");
    const a = await lab.host("a");
    const b = await lab.host("b");
    for (const host of [a, b]) {
      await lab.connectHost(host, "eth0", "lan0");
      await startDaemon(host, { config: quickHello });
      await host.vnetd(["attach", "eth0"]);
    }
    for (const host of [a, b]) {
      // the kernel looks for duplicates of it first
      await eventually(async () => (await attached(host))[0]?.up === true, {
        timeoutMs: 10_000,
        what: "the link-local address",
      });
      expect((await attached(host))[0]?.address).toMatch(/^fe80:/);
    }
    await addressVnet4([a, b], { families: [4, 6] });
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    expect((await a.iperf3(b, { address: "10.4.0.2", seconds: 1 })).bytes).toBeGreaterThan(1e6);
    await eventually(async () => (await hosts(a)).length === 1, { what: "b's hello" });
    expect((await hosts(a))[0]?.paths[0]?.address).toMatch(/^fe80:/);
    await lab.close();
  });
});

describe("a host with both families", () => {
  const sentHellos = async (host: Host): Promise<number> => {
    const get =
      'fetch("http://127.0.0.1:11798/metrics").then((r) => r.text()).then((t) => process.stdout.write(t))';
    const { stdout } = await host.exec([process.execPath, "-e", get]);
    const rows = stdout.matchAll(
      /^vnetd_varp_sent_messages_total\{kind="(?:hello|goodbye)"\} (\d+)/gm,
    );
    return [...rows].reduce((sum, [, count]) => sum + Number(count), 0);
  };

  it("says nothing by IPv6 before it leaves: all hellos are on the wire", async () => {
    const lab = await Lab.create();
    const a = await lab.host("a", { underlay: "10.66.1.1/24" });
    const listener = await lab.host("listener", { underlay: "10.66.1.2/24" });
    await addAddress(a, "fd66::1/64");
    await a.startDaemon({ config: "underlay: both\n" });
    // longer than announces without an extension, and not from a flow's port
    const hellos = "udp src port 1798 and greater 130";
    const onWire = await listener.capture("eth0", hellos);
    const byIpv6 = (): number =>
      onWire.packets.filter(({ data }) => data.readUInt16BE(12) === 0x86dd).length;
    for (const round of [1, 2, 3, 4]) {
      const before = byIpv6();
      await a.vnetd(["attach", "eth0"]);
      await eventually(
        async () => byIpv6() > before && onWire.packets.length === (await sentHellos(a)),
        { what: `all hellos of round ${round}` },
      );
      await a.vnetd(["detach", "eth0"]);
    }
    await onWire.stop();
    await lab.close();
  });
});

describe("hosts with a group of their own", () => {
  const ownGroup = "ff15::97:1";

  it("use that, and not the usual one", async () => {
    const lab = await Lab.create();
    await lab.lan("lan0");
    const a = await lab.host("a");
    const b = await lab.host("b");
    for (const [index, host] of [a, b].entries()) {
      await lab.connectHost(host, "eth0", "lan0", `fd66::${index + 1}/64`);
      await startDaemon(host, { config: `${quickHello}group6: FF15:0::97:1\n` });
      await host.vnetd(["attach", "eth0"]);
    }
    await addressVnet4([a, b], { families: [4, 6] });
    expect(await attached(a)).toMatchObject([{ address: "fd66::1", group: ownGroup, up: true }]);
    const { stdout } = await b.exec("ip -6 -o addr show dev eth0");
    expect(stdout).toMatch(/inet6 ff15::97:1\/128.*autojoin/);
    expect(stdout).not.toContain(group6);
    const toOwn = await b.capture("eth0", `udp port 1798 and src fd66::1 and dst ${ownGroup}`);
    const toUsual = await b.capture("eth0", `udp and dst ${group6}`);
    // ARP, by the group, and hellos
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    await eventually(() => toOwn.packets.length > 0, { what: "packets to the group" });
    await eventually(async () => (await hosts(a)).length === 1, { what: "b's hello" });
    for (const capture of [toOwn, toUsual]) await capture.stop();
    expect(toUsual.packets).toEqual([]);
    await lab.close();
  });
});

describe("hosts with both families", () => {
  let lab: Lab;
  let a: Host;
  let b: Host;
  const both = `${quickHello}underlay: both\n`;

  beforeAll(async () => {
    lab = await Lab.create();
    a = await lab.host("a", { underlay: "10.66.1.1/24" });
    b = await lab.host("b", { underlay: "10.66.1.2/24" });
    for (const [index, host] of [a, b].entries()) {
      await addAddress(host, `fd66::${index + 1}/64`);
      await startDaemon(host, { config: both });
      await host.vnetd(["attach", "eth0"]);
    }
    await addressVnet4([a, b], { families: [4, 6] });
  });
  afterAll(() => lab.close());

  it("are one host by two paths, and the device is shown with each", async () => {
    expect(await attached(a)).toMatchObject([
      { device: "eth0", address: "10.66.1.1", group: "224.10.0.1", up: true },
      { device: "eth0", address: "fd66::1", group: group6, up: true },
    ]);
    const found = await eventually(async () => {
      const [host] = await hosts(a);
      return host?.paths.length === 2 ? host : undefined;
    });
    expect(await hosts(a)).toHaveLength(1);
    expect(found?.paths.map(({ address }) => address).sort()).toEqual(["10.66.1.2", "fd66::2"]);
    expect(found?.paths.filter(({ primary }) => primary)).toHaveLength(1);
  });

  it("hear each broadcast once, whichever family is first", async () => {
    await eventually(async () => (await hosts(b))[0]?.paths.length === 2);
    const on4 = await b.capture("eth0", "udp port 1798 and dst 224.10.0.1 and greater 90");
    const on6 = await b.capture("eth0", `udp port 1798 and dst ${group6} and greater 90`);
    const heard = await b.capture("vnif0004", "arp[6:2] = 1");
    const sent = await a.capture("vnif0004", "arp[6:2] = 1");
    await a.tryExec("ping -c 4 -i 0.2 -W 1 10.4.0.222");
    await eventually(() => sent.packets.length >= 3);
    await eventually(() => heard.packets.length >= sent.packets.length);
    for (const capture of [sent, heard, on4, on6]) await capture.stop();
    expect(heard.packets).toHaveLength(sent.packets.length);
    expect(on4.packets.length).toBeGreaterThanOrEqual(sent.packets.length);
    expect(on6.packets.length).toBeGreaterThanOrEqual(sent.packets.length);
  });

  it("carry TCP without flapping between the two", async () => {
    expect((await a.ping("10.4.0.2", { count: 5, intervalMs: 50 })).duplicates).toBe(0);
    expect((await a.iperf3(b, { address: "10.4.0.2", seconds: 1 })).bytes).toBeGreaterThan(1e6);
  });

  it("go on by the other when one loses its address", async () => {
    await b.exec("ip addr flush dev eth0 scope global; ip -4 addr flush dev eth0");
    await addAddress(b, "fd66::2/64");
    await eventually(
      async () => (await a.ping("10.4.0.2", { count: 1, waitMs: 200 })).received === 1,
      { timeoutMs: 15_000, what: "traffic by IPv6" },
    );
    const [ipv4, ipv6] = await attached(b);
    expect(ipv4?.problem).toMatch(/no IPv4 address/);
    expect(ipv6).toMatchObject({ address: "fd66::2", problem: "" });
  });

  it("are reached by hosts of either family alone", async () => {
    const c = await lab.host("c", { underlay: "10.66.1.3/24" });
    const d = await lab.host("d");
    await lab.connectHost(d, "eth0", "lan0", "fd66::4/64");
    const alone = [
      [c, "10.66.1.3", "10.4.0.3", "10.66.1.1"],
      [d, "fd66::4", "10.4.0.4", "fd66::1"],
    ] as const;
    for (const [host, address, inVnet, ofA] of alone) {
      await startDaemon(host, { config: quickHello });
      await host.vnetd(["attach", "eth0"]);
      await host.exec(`ip addr add ${inVnet}/24 dev vnif0004 && ip link set vnif0004 up`);
      expect((await attached(host)).map((place) => place.address)).toEqual([address]);
      await eventually(
        async () => (await host.ping("10.4.0.1", { count: 1, waitMs: 200 })).received === 1,
        { what: `${address} to reach a` },
      );
      const vmac = await a.mac("vnif0004");
      const entries = await host.vnetdJson<VarpEntry[]>(["varp"]);
      expect(entries.find((entry) => entry.vmac === vmac)?.address).toBe(ofA);
    }
    // each is one host to a, by the one path that it has
    await eventually(
      async () => {
        const found = await hosts(a);
        return alone.every(([, address]) =>
          found.some(({ paths }) => paths.length === 1 && paths[0]?.address === address),
        );
      },
      { what: "c and d among a's hosts" },
    );
  });
});
