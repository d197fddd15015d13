// SPDX-License-Identifier: Apache-2.0
/**
 * EtherIP: a vnet whose frames are sent in IP protocol 97, over IPv4 and over IPv6. Both kinds are
 * received whatever the vnet sends by, so hosts need not agree.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VnetInfo, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { longId, quickHello, startDaemon } from "./world.js";

const families = [
  { family: 4, net: "10.66.1.", prefix: 24, filter: "ip proto 97", overhead: 52 },
  { family: 6, net: "fd66::", prefix: 64, filter: "ip6 proto 97", overhead: 72 },
] as const;

describe.each(families)("over IPv$family", ({ net, prefix, filter, overhead }) => {
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
      await lab.connectHost(host, "eth0", "lan0", `${net}${index + 1}/${prefix}`);
      await startDaemon(host, { config: `${quickHello}defaultVnets: false\n` });
      await host.vnetd(["attach", "eth0"]);
    }
    await a.vnetd(["vnet-create", "-e", "etherip", "97"]);
    const file = lab.file("97.sxp", "(vnet (id 97) (encapsulation etherip))");
    await b.vnetd(["vnet-create", file]);
    g1 = await a.guest("g1", { bridge: "vnet0097", address: "10.97.0.1/24", mtuBytes: 1500 });
    g2 = await b.guest("g2", { bridge: "vnet0097", address: "10.97.0.2/24", mtuBytes: 1500 });
  });
  afterAll(() => lab.close());

  it("frames go in protocol 97, to the group and to the host", async () => {
    const wire = await b.capture("eth0", filter);
    const udp = await b.capture("eth0", "udp port 1798 and greater 120");
    expect((await g1.ping("10.97.0.2", { count: 3, intervalMs: 50, sizeBytes: 300 })).lost).toBe(0);
    // ARP to the group and back, echoes both ways
    await eventually(() => wire.packets.length >= 8, { what: "EtherIP on the wire" });
    await wire.stop();
    await udp.stop();
    expect(udp.packets.filter(({ wireLength }) => wireLength > 300)).toEqual([]);
  });

  it("the MTU is larger, and shown", async () => {
    const [vnet] = await a.vnetdJson<VnetState[]>(["vnets"]);
    expect(vnet).toMatchObject({
      id: longId("97"),
      encapsulation: "etherip",
      mtu: 1500 - overhead,
    });
    const { stdout } = await g1.tryExec("ping -M do -c 1 -W 1 -s 1472 10.97.0.2");
    expect(stdout).toMatch(new RegExp(`mtu.?=.?${1500 - overhead}`, "i"));
  });

  it("super-frames are segmented before: TCP both ways, nothing above the MTU", async () => {
    const wire = await b.capture("eth0", `${filter} and greater 1515`);
    const one = { address: "10.97.0.2", seconds: 1 };
    expect((await g1.iperf3(g2, one)).bytes).toBeGreaterThan(1e6);
    expect((await g1.iperf3(g2, { ...one, reverse: true })).bytes).toBeGreaterThan(1e6);
    expect((await wire.stop()).length).toBeLessThanOrEqual(24);
  });

  it("so are those for all: nothing goes by UDP, and all of it arrives", async () => {
    const wire = await b.capture("eth0", `${filter} and greater 1300`);
    const udp = await b.capture("eth0", "udp port 1798 and greater 1000");
    const arrived = await g2.capture("eth0", "udp dst port 9");
    // ten datagrams of 1300 bytes, which the guest's device takes as one
    const send =
      "import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n" +
      "s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1); s.setsockopt(17,103,1300)\n" +
      "s.sendto(b'x'*13000,('10.97.0.255',9))";
    await g1.exec(["python3", "-c", send]);
    await eventually(
      () => arrived.packets.length >= 10 || arrived.packets.some((p) => p.wireLength > 13_000),
      { what: "ten datagrams at the other guest" },
    );
    await eventually(() => wire.packets.length >= 10, { what: "EtherIP on the wire" });
    await Promise.all([wire, udp, arrived].map((capture) => capture.stop()));
    expect(udp.packets).toEqual([]);
    for (const { wireLength } of wire.packets) expect(wireLength).toBeLessThanOrEqual(1514);
  });

  it("what fits no packet goes in fragments, by UDP", async () => {
    const { stdout } = await g1.exec("ping -M dont -c 3 -i 0.05 -W 1 -s 1472 10.97.0.2");
    expect(stdout).toMatch(/3 received/);
  });

  it("goes on when the daemons are killed", async () => {
    await a.killDaemon("SIGKILL");
    await b.killDaemon("SIGKILL");
    await g1.exec("ip neigh flush dev eth0");
    expect((await g1.ping("10.97.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    for (const host of [a, b]) {
      await startDaemon(host, { config: `${quickHello}defaultVnets: false\n` });
    }
    const [vnet] = await a.vnetdJson<VnetState[]>(["vnets"]);
    expect(vnet?.encapsulation).toBe("etherip");
  });

  it("a host that has the vnet with UDP is understood, and understands", async () => {
    await b.vnetd(["vnet-delete", "97"]);
    await b.vnetd(["vnet-create", "97"]);
    await b.exec(`ip link set ${g2.port} master vnet0097`);
    await g2.exec("ip neigh flush dev eth0");
    const wire = await b.capture("eth0", filter);
    expect((await g2.ping("10.97.0.1", { count: 3, intervalMs: 50 })).lost).toBe(0);
    await eventually(() => wire.packets.length >= 3, { what: "a's answers by EtherIP" });
    await wire.stop();
    const { drops } = await b.vnetdJson<StatusInfo>(["status"]);
    const allowed = [
      "too_big",
      "unknown_vnet",
      "varp_unknown_vnet",
      "own_echo",
      "no_underlay",
      "vnet_down",
    ];
    expect(drops.filter(({ reason }) => !allowed.includes(reason))).toEqual([]);
  });
});

describe("as a host's default", () => {
  let lab: Lab;
  let a: Host;
  let b: Host;
  const quick = `${quickHello}defaultVnets: false\n`;
  const etherip = `${quick}encapsulation: etherip\n`;
  /** of vnets 97, whose encapsulation nobody named, and 98, which is sent by UDP */
  const guests: Record<"97" | "98", Guest[]> = { "97": [], "98": [] };

  const vnets = async (host: Host): Promise<Record<string, [string, number]>> =>
    Object.fromEntries(
      (await host.vnetdJson<VnetState[]>(["vnets"])).map(({ id, encapsulation, mtu }) => [
        id.slice(-2),
        [encapsulation, mtu],
      ]),
    );
  const mtuOf = async (host: Host, device: string): Promise<number> => {
    const { stdout } = await host.exec(`ip -j link show ${device}`);
    return (JSON.parse(stdout) as [{ mtu: number }])[0].mtu;
  };
  /** Packets with frames of guests that pass between the hosts while they ping, by who sent them how. */
  async function ways(vnet: "97" | "98"): Promise<string[]> {
    const frames = "(ip proto 97 or (udp port 1798 and greater 300))";
    const wire = await b.capture("eth0", `${frames} and not multicast`);
    const [one, two] = guests[vnet];
    await one!.exec("ip neigh flush dev eth0");
    const pings = { count: 3, intervalMs: 50, sizeBytes: 400 };
    expect((await one!.ping(`10.${vnet}.0.2`, pings)).lost).toBe(0);
    expect(two).toBeDefined();
    await eventually(() => wire.packets.filter(({ wireLength }) => wireLength > 400).length >= 6, {
      what: "six packets on the wire",
    });
    await wire.stop();
    const large = wire.packets.filter(({ wireLength }) => wireLength > 400);
    return [...new Set(large.map(({ data }) => `10.66.1.${data[29]}: ${data[23]}`))].sort();
  }

  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { wire: true });
    a = await lab.host("a", { underlay: "10.66.1.1/24" });
    b = await lab.host("b", { underlay: "10.66.1.2/24" });
    await startDaemon(a, { config: etherip });
    await startDaemon(b, { config: `${quick}merge: "on"\n` });
    for (const host of [a, b]) await host.vnetd(["attach", "eth0"]);
    await a.vnetd(["vnet-create", "97"]);
    await a.vnetd(["vnet-create", "-e", "udp", "98"]);
    for (const [index, host] of [a, b].entries()) {
      await host.vnetd(["vnet-create", "-b", "none", "99"]);
      await host.exec(`ip addr add 10.99.0.${index + 1}/24 dev vnif0099`);
      await host.exec("ip link set vnif0099 up");
    }
    await b.vnetd(["vnet-create", "97"]);
    await b.vnetd(["vnet-create", "-e", "etherip", "98"]);
    for (const vnet of ["97", "98"] as const) {
      for (const [index, host] of [a, b].entries()) {
        guests[vnet].push(
          await host.guest(`${host.name}${vnet}`, {
            bridge: `vnet00${vnet}`,
            address: `10.${vnet}.0.${index + 1}/24`,
            mtuBytes: 1500,
          }),
        );
      }
    }
  });
  afterAll(() => lab.close());

  it("is that of the vnets that name none, with their MTU", async () => {
    expect((await a.vnetdJson<StatusInfo>(["status"])).encapsulation).toBe("etherip");
    expect((await a.vnetd(["status"])).stdout).toMatch(/by etherip/);
    expect(await vnets(a)).toEqual({
      "97": ["etherip", 1448],
      "98": ["udp", 1436],
      "99": ["etherip", 1448],
    });
    expect(await mtuOf(a, "vnet0097")).toBe(1448);
    expect(await mtuOf(a, "vnet0098")).toBe(1436);
    expect(await mtuOf(a, "vnif0099")).toBe(1448);
    const listed = await a.vnetdJson<VnetInfo[]>(["vnet-list"]);
    expect(listed.map(({ encapsulation }) => encapsulation)).toEqual(["etherip", "udp", "etherip"]);
    expect((await b.vnetdJson<StatusInfo>(["status"])).encapsulation).toBe("udp");
    expect(await vnets(b)).toEqual({
      "97": ["udp", 1436],
      "98": ["etherip", 1448],
      "99": ["udp", 1436],
    });
  });

  it("is what packets on the wire have, and what the other host sends is taken", async () => {
    expect(await ways("97")).toEqual(["10.66.1.1: 97", "10.66.1.2: 17"]);
    expect(await ways("98")).toEqual(["10.66.1.1: 17", "10.66.1.2: 97"]);
  });

  it("lets a host send more than the other's interface says, and nothing of it is lost", async () => {
    // 1448 bytes, which b answers in fragments
    const large = { count: 5, intervalMs: 50, sizeBytes: 1420, dontFragment: true };
    expect((await a.ping("10.99.0.2", large)).lost).toBe(0);
  });

  it("is for multicast: where there are peers, the vnets are named that do not reach them", async () => {
    const said = async (): Promise<string[]> =>
      (await a.vnetdJson<StatusInfo>(["status"])).problems.filter((p) => p.includes("EtherIP"));
    expect(await said()).toEqual([]);
    await a.vnetd(["peer-add", "10.66.1.2"]);
    expect(await said()).toEqual([
      expect.stringMatching(/^vnets sent by EtherIP \(0097, 0099\): /),
    ]);
    await a.vnetd(["peer-delete", "10.66.1.2"]);
    expect(await said()).toEqual([]);
  });

  it("is followed when the daemon is started with another, by what names none", async () => {
    await a.killDaemon("SIGTERM");
    await startDaemon(a, { config: quick });
    expect(await vnets(a)).toEqual({
      "97": ["udp", 1436],
      "98": ["udp", 1436],
      "99": ["udp", 1436],
    });
    expect(await mtuOf(a, "vnet0097")).toBe(1436);
    expect(await mtuOf(a, "vnif0099")).toBe(1436);
    expect(await ways("97")).toEqual(["10.66.1.1: 17", "10.66.1.2: 17"]);
    await b.killDaemon("SIGTERM");
    await startDaemon(b, { config: etherip });
    expect(await vnets(b)).toEqual({
      "97": ["etherip", 1448],
      "98": ["etherip", 1448],
      "99": ["etherip", 1448],
    });
    expect(await mtuOf(b, "vnet0097")).toBe(1448);
    expect(await ways("97")).toEqual(["10.66.1.1: 17", "10.66.1.2: 97"]);
  });

  it("is one of two, or the daemon says what is wrong, and where", async () => {
    await a.killDaemon("SIGTERM");
    await expect(startDaemon(a, { config: `${quick}encapsulation: gre\n` })).rejects.toThrow(
      /"encapsulation" cannot be "gre".*It is udp or etherip/s,
    );
  });
});
