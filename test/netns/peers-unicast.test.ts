// SPDX-License-Identifier: Apache-2.0
/**
 * No multicast at all: a LAN that loses what goes to the group, as clouds do; hosts that are told so,
 * and hosts that find it out. And peers that are names.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { addressToText, type Family } from "../../src/base/address.js";
import type { AttachedDevice, HostInfo, PeerInfo, StatusInfo } from "../../src/api/contract.js";
import { vnetdLimits } from "../../src/generated/layouts.js";
import { Lab, eventually, type Capture, type Guest, type Host } from "../lib/lab.js";
import {
  addressVnet4,
  configFor,
  Names,
  quickHello,
  routedHost,
  routedSubnets,
  startDaemon,
  underlayAddress,
} from "./world.js";

const status = (host: Host): Promise<StatusInfo> => host.vnetdJson<StatusInfo>(["status"]);
const device = async (host: Host): Promise<AttachedDevice> => (await status(host)).attached[0]!;
const ways = async (host: Host): Promise<string[]> =>
  (await host.vnetdJson<PeerInfo[]>(["peers"])).flatMap(({ addresses }) =>
    addresses.map(({ way }) => way),
  );
const knows = async (host: Host, count: number): Promise<boolean> =>
  (await host.vnetdJson<HostInfo[]>(["hosts"])).length === count;

const destinations = ({ packets }: Capture): string[] =>
  packets.map(({ data }) =>
    data.readUInt16BE(12) === 0x86dd
      ? addressToText(data.subarray(38, 54))
      : [...data.subarray(30, 34)].join("."),
  );

/** Whether the bridge of the LAN carries what goes to a multicast address. */
async function carryMulticast(lab: Lab, hosts: readonly Host[], on: boolean): Promise<void> {
  for (const host of hosts)
    await lab.execInSwitch(
      `bridge link set dev ${lab.switchPort(host)} mcast_flood ${on ? "on" : "off"}`,
    );
}

/** An address that nobody has, another for each broadcast: ARP asks three times, a second apart. */
let nobody = 100;

async function broadcastOnce(guests: readonly Guest[], from: number): Promise<void> {
  nobody += 1;
  const filter = `arp[6:2] = 1 and arp[24:4] = ${String(0x0a040000 + nobody)}`;
  const captures = await Promise.all(guests.map((guest) => guest.capture("eth0", filter)));
  await guests[from]!.tryExec(["ping", "-c", "1", "-W", "1", `10.4.0.${String(nobody)}`]);
  await eventually(() => captures.every(({ packets }) => packets.length > 0), {
    what: "every guest to hear the broadcast",
  });
  await Promise.all(captures.map((each) => each.stop()));
  const sent = captures[from]!.packets.length;
  expect(captures.map(({ packets }) => packets.length)).toEqual(guests.map(() => sent));
}

/** Clouds answer neighbour discovery in the network's place, where no multicast passes. */
async function knowNeighbours(hosts: readonly Host[]): Promise<void> {
  for (const [at, other] of hosts.entries()) {
    const mac = await other.mac("eth0");
    const address = underlayAddress(6, 1, at + 1);
    for (const host of hosts.filter((each) => each !== other))
      await host.exec(`ip -6 neigh replace ${address} lladdr ${mac} nud permanent dev eth0`);
  }
}

interface Site {
  hosts: Host[];
  guests: Guest[];
}

/** Three hosts on a LAN without multicast, each with a guest in vnet 4, all peers of one another. */
async function siteWithoutMulticast(
  lab: Lab,
  families: readonly Family[],
  config: string,
): Promise<Site> {
  const hosts: Host[] = [];
  const guests: Guest[] = [];
  await routedSubnets(lab, 1, families);
  for (const [at, name] of ["a", "b", "c"].entries()) {
    const host = await routedHost(lab, name, { subnet: 1, number: at + 1, families });
    hosts.push(host);
    await startDaemon(host, { config });
    await host.vnetd(["vnet-create", "-b", "br4", "4"]);
    const address = `10.4.0.${at + 1}/24`;
    guests.push(await host.guest(`g${name}`, { bridge: "br4", address, mtuBytes: 1500 }));
  }
  if (families.includes(6)) await knowNeighbours(hosts);
  await carryMulticast(lab, hosts, false);
  for (const host of hosts) await host.vnetd(["attach", "eth0"]);
  for (const host of hosts) {
    for (const [at, other] of hosts.entries()) {
      if (other === host) continue;
      for (const family of families)
        await host.vnetd(["peer-add", underlayAddress(family, 1, at + 1)]);
    }
  }
  return { hosts, guests };
}

const SITES: [string, readonly Family[]][] = [
  ["IPv4", [4]],
  ["IPv6", [6]],
  ["both families", [4, 6]],
];
/** what `peers` shows of the two others */
const allWays = (families: readonly Family[], way: string): string =>
  [...families, ...families].map(() => way).join();

describe.each(SITES)("multicast: off, and all others are peers, by %s", (_what, families) => {
  let lab: Lab;
  let hosts: Host[];
  let guests: Guest[];

  beforeAll(async () => {
    lab = await Lab.create();
    const config = `${configFor(families)}multicast: off\n`;
    ({ hosts, guests } = await siteWithoutMulticast(lab, families, config));
  });
  afterAll(() => lab.close());

  it("the hosts find one another", async () => {
    for (const host of hosts) await eventually(() => knows(host, 2), { timeoutMs: 10_000 });
    for (const host of hosts)
      await eventually(async () => (await ways(host)).join() === allWays(families, "unicast"), {
        timeoutMs: 10_000,
      });
  });

  it("guests reach one another; each hears a broadcast once", async () => {
    for (const to of [2, 3])
      expect(await guests[0]!.ping(`10.4.0.${to}`, { count: 3, intervalMs: 50 })).toMatchObject({
        lost: 0,
        duplicates: 0,
      });
    await broadcastOnce(guests, 0);
    await broadcastOnce(guests, 2);
  });

  it("TCP, and frames of 1500 bytes", async () => {
    const { stdout } = await guests[0]!.exec("ping -M dont -c 3 -i 0.05 -W 2 -s 1472 10.4.0.2");
    expect(stdout).toMatch(/3 received/);
    const { bytes } = await guests[0]!.iperf3(guests[2]!, { address: "10.4.0.3", seconds: 1 });
    expect(bytes).toBeGreaterThan(1e6);
    const heard = await guests[1]!.capture("eth0", "icmp and ether broadcast");
    await guests[0]!.tryExec("ping -b -c 2 -i 0.2 -W 1 -s 1472 10.4.0.255");
    await eventually(() => heard.packets.length >= 2, { what: "large broadcasts" });
    await heard.stop();
    expect(heard.packets).toHaveLength(2);
  });

  it("as plain VUDP, to the members of the vnet only, and nothing to the group", async () => {
    await hosts[1]!.vnetd(["vnet-delete", "4"]);
    await eventually(async () => {
      const known = await hosts[0]!.vnetdJson<HostInfo[]>(["hosts"]);
      return known.some((each) => !each.vnets.some((id) => id.endsWith(":0004")));
    });
    const captures: Capture[] = [];
    for (const family of families) {
      const vudp =
        family === 4
          ? "udp[8:2] = 2 and udp[28:2] = 4"
          : "ip6[6] = 17 and ip6[48:2] = 2 and ip6[68:2] = 4";
      const filter = `src ${underlayAddress(family, 1, 1)} and udp port 1798 and ${vudp}`;
      captures.push(await hosts[0]!.capture("eth0", filter));
    }
    await broadcastOnce([guests[0]!, guests[2]!], 0);
    for (const capture of captures) await capture.stop();
    // by one of the member's paths, if there are two
    const all = new Set(captures.flatMap(destinations));
    expect(all.size).toBe(1);
    expect(families.map((family) => underlayAddress(family, 1, 3))).toContain([...all][0]);
    await hosts[1]!.vnetd(["vnet-create", "-b", "br4", "4"]);
    await eventually(async () => (await guests[0]!.ping("10.4.0.2", { count: 1 })).lost === 0, {
      timeoutMs: 10_000,
    });
  });

  it("`status` says so, and why; the group is not joined", async () => {
    expect(await device(hosts[0]!)).toMatchObject({ groupWay: "unicast" });
    expect((await device(hosts[0]!)).groupWhy).toMatch(/configuration/);
    expect((await hosts[0]!.vnetd(["status"])).stdout).toMatch(/eth0 .*unicast +the configuration/);
    const { stdout } = await hosts[0]!.exec("ip addr show dev eth0");
    for (const group of ["224.10.0.1", "ff12::8000:706"]) expect(stdout).not.toContain(group);
  });

  it("without daemons as well", async () => {
    for (const host of hosts) await host.killDaemon("SIGKILL");
    for (const guest of guests) await guest.exec("ip neigh flush dev eth0");
    expect(await guests[1]!.ping("10.4.0.3", { count: 3, intervalMs: 50 })).toMatchObject({
      lost: 0,
    });
    await broadcastOnce(guests, 1);
  });
});

describe.each(SITES.slice(0, 2))("multicast is found not to work, by %s", (_what, families) => {
  let lab: Lab;
  let hosts: Host[];
  let guests: Guest[];

  beforeAll(async () => {
    lab = await Lab.create();
    ({ hosts, guests } = await siteWithoutMulticast(lab, families, configFor(families)));
  });
  afterAll(() => lab.close());

  it("everything goes by unicast after three hello intervals", async () => {
    for (const host of hosts)
      await eventually(async () => (await device(host)).groupWay === "unicast", {
        timeoutMs: 15_000,
      });
    expect((await device(hosts[0]!)).groupWhy).toMatch(/never on the group/);
    for (const host of hosts)
      await eventually(async () => (await ways(host)).join() === "unicast,unicast");
    expect(await guests[0]!.ping("10.4.0.3", { count: 3, intervalMs: 50 })).toMatchObject({
      lost: 0,
      duplicates: 0,
    });
    await broadcastOnce(guests, 1);
  });

  it("and by multicast when it works again: on the subnet nothing is sent twice", async () => {
    await carryMulticast(lab, hosts, true);
    for (const host of hosts)
      await eventually(async () => (await device(host)).groupWay === "multicast", {
        timeoutMs: 15_000,
      });
    for (const host of hosts)
      await eventually(async () => (await ways(host)).join() === "multicast,multicast");
    await broadcastOnce(guests, 1);
    await broadcastOnce(guests, 2);
  });
});

describe("a host without multicast, and a subnet with it", () => {
  let lab: Lab;
  const hosts: Host[] = [];
  const guests: Guest[] = [];

  beforeAll(async () => {
    lab = await Lab.create();
    await routedSubnets(lab, 2);
    const places = [
      ["u", 1, 1, `${quickHello}multicast: off\n`],
      ["f", 2, 1, quickHello],
      ["h", 2, 2, quickHello],
    ] as const;
    for (const [at, [name, subnet, number, config]] of places.entries()) {
      const host = await routedHost(lab, name, { subnet, number });
      hosts.push(host);
      await startDaemon(host, { config });
      await host.vnetd(["attach", "eth0"]);
      await host.vnetd(["vnet-create", "-b", "br4", "4"]);
      const address = `10.4.0.${at + 1}/24`;
      guests.push(await host.guest(`g${name}`, { bridge: "br4", address }));
    }
    await hosts[0]!.vnetd(["peer-add", "10.66.2.1"]);
    await hosts[1]!.vnetd(["peer-add", "10.66.1.1"]);
  });
  afterAll(() => lab.close());

  it("each guest hears each broadcast once, both ways", async () => {
    for (const host of hosts) await eventually(() => knows(host, 2), { timeoutMs: 10_000 });
    await eventually(async () => (await ways(hosts[1]!)).join() === "unicast");
    for (const from of [0, 1, 2]) await broadcastOnce(guests, from);
    expect(await guests[2]!.ping("10.4.0.1", { count: 3, intervalMs: 50 })).toMatchObject({
      lost: 0,
      duplicates: 0,
    });
  });
});

describe("a host without peers, and one without multicast that has it as a peer", () => {
  let lab: Lab;
  let alone: Host;
  let other: Host;
  const guests: Guest[] = [];
  const members = async (): Promise<string[]> => {
    const map = join(alone.bpffs, `layout-${vnetdLimits.LAYOUT}`, "unicast_members");
    const { stdout } = await alone.exec(["bpftool", "--json", "map", "dump", "pinned", map]);
    return (JSON.parse(stdout) as { formatted?: unknown }[]).map((entry) => JSON.stringify(entry));
  };

  beforeAll(async () => {
    lab = await Lab.create();
    await routedSubnets(lab, 2);
    alone = await routedHost(lab, "a", { subnet: 1, number: 1 });
    other = await routedHost(lab, "b", { subnet: 2, number: 1 });
    for (const [at, host] of [alone, other].entries()) {
      await startDaemon(host, {
        config: `${quickHello}${host === other ? "multicast: off\n" : ""}`,
      });
      await host.vnetd(["attach", "eth0"]);
      await host.vnetd(["vnet-create", "-b", "br4", "4"]);
      const address = `10.4.0.${at + 1}/24`;
      guests.push(await host.guest(`g${host.name}`, { bridge: "br4", address }));
    }
  });
  afterAll(() => lab.close());

  it("gets its first member: guests hear one another's broadcasts, once", async () => {
    expect(await members()).toEqual([]);
    await other.vnetd(["peer-add", "10.66.1.1"]);
    await eventually(() => knows(alone, 1), { timeoutMs: 10_000 });
    await eventually(async () => (await members()).length > 0, { what: "the first member" });
    expect(await alone.vnetdJson<PeerInfo[]>(["peers"])).toEqual([]);
    for (const from of [0, 1]) await broadcastOnce(guests, from);
    expect(await guests[0]!.ping("10.4.0.2", { count: 3, intervalMs: 50 })).toMatchObject({
      lost: 0,
      duplicates: 0,
    });
  });

  it("loses it, and sends to nobody", async () => {
    await other.vnetd(["detach", "eth0"]);
    await eventually(async () => (await members()).length === 0, { what: "no member" });
  });
});

describe("a peer that is a name", () => {
  let lab: Lab;
  let a: Host;
  let names: Names;

  const nameMeans = (...addresses: string[]): Promise<void> =>
    names.set("peers.example", addresses);
  const addresses = async (): Promise<string[]> =>
    (await a.vnetdJson<PeerInfo[]>(["peers"])).flatMap((peer) =>
      peer.addresses.map(({ address }) => address),
    );

  beforeAll(async () => {
    lab = await Lab.create();
    await routedSubnets(lab, 2);
    a = await routedHost(lab, "a", { subnet: 1, number: 1 });
    names = new Names(lab, a);
    await nameMeans("10.66.2.1", "10.66.2.2", "10.66.1.1", "2001:db8::7");
    const { program } = names;
    await startDaemon(a, { config: `${quickHello}resolveSeconds: 1\n`, program });
    await a.vnetd(["attach", "eth0"]);
    await a.vnetd(["peer-add", "Peers.Example"]);
  });
  afterAll(() => lab.close());

  it("is all its addresses, but our own", async () => {
    await eventually(async () => (await addresses()).length === 3);
    expect((await addresses()).sort()).toEqual(["10.66.2.1", "10.66.2.2", "2001:db8::7"]);
    const [peer] = await a.vnetdJson<PeerInfo[]>(["peers"]);
    expect(peer).toMatchObject({ peer: "peers.example", problem: "" });
    expect(peer!.addresses.filter(({ way }) => way === "vfwd")).toHaveLength(2);
    // which this host does not have, and need not
    expect(peer!.addresses.find(({ address }) => address.includes(":"))?.problem).toMatch(/IPv6/);
    expect((await status(a)).problems).toEqual([]);
  });

  it("addresses that come and go are followed", async () => {
    await nameMeans("10.66.2.2", "10.66.2.9");
    await eventually(async () => (await addresses()).sort().join() === "10.66.2.2,10.66.2.9");
    const sent = await a.capture("eth0", "udp port 1798 and udp[8:2] = 3");
    await addressVnet4([a]);
    await a.tryExec(["ping", "-c", "1", "-W", "1", "10.4.0.9"]);
    await eventually(() =>
      ["10.66.2.2", "10.66.2.9"].every((address) => destinations(sent).includes(address)),
    );
    await sent.stop();
    expect(destinations(sent)).not.toContain("10.66.2.1");
  });

  it("a resolver that fails keeps the last answer, also over a restart", async () => {
    await nameMeans();
    await eventually(
      async () => {
        const [peer] = await a.vnetdJson<PeerInfo[]>(["peers"]);
        return peer?.problem !== "";
      },
      { timeoutMs: 20_000 },
    );
    expect((await addresses()).sort()).toEqual(["10.66.2.2", "10.66.2.9"]);
    expect((await status(a)).problems.join()).toMatch(/peers\.example: not resolved/);
    await a.killDaemon();
    await startDaemon(a, { config: quickHello });
    expect((await addresses()).sort()).toEqual(["10.66.2.2", "10.66.2.9"]);
  });
});

describe("what peer-add refuses", () => {
  let lab: Lab;
  let a: Host;
  beforeAll(async () => {
    lab = await Lab.create();
    a = await lab.host("a", { underlay: "10.66.1.1/24" });
    await startDaemon(a);
    await a.vnetd(["attach", "eth0"]);
  });
  afterAll(() => lab.close());

  it.each([
    ["224.10.0.1", "BAD_PEER"],
    ["10.66.1.1", "BAD_PEER"],
    ["a b", "BAD_PEER"],
    ["127.0.0.1", "BAD_PEER"],
    ["fe80::1", "BAD_PEER"],
  ])("%s: %s", async (peer, code) => {
    const { code: exit, stderr } = await a.tryVnetd(["peer-add", peer, "--json"]);
    expect(exit).toBe(1);
    expect((JSON.parse(stderr) as { code: string }).code).toBe(code);
  });

  it("one that is there, and deleting one that is not", async () => {
    await a.vnetd(["peer-add", "10.66.1.9", "-p", "1799"]);
    expect((await a.tryVnetd(["peer-add", "10.66.1.9"])).stderr).toMatch(/peer already/);
    expect((await a.tryVnetd(["peer-delete", "10.66.1.8"])).stderr).toMatch(/no peer/);
    const [peer] = await a.vnetdJson<PeerInfo[]>(["peers"]);
    expect(peer).toMatchObject({ peer: "10.66.1.9", port: 1799 });
    await a.vnetd(["peer-add", "192.0.2.77"]);
    expect((await status(a)).problems.join()).toMatch(/192\.0\.2\.77: there is no route/);
    await a.vnetd(["peer-delete", "10.66.1.9"]);
    await a.vnetd(["peer-delete", "192.0.2.77"]);
    expect(await a.vnetdJson<PeerInfo[]>(["peers"])).toEqual([]);
  });
});
