// SPDX-License-Identifier: Apache-2.0
/**
 * What a host's way to the others may be: a macvlan, a bridge with the NIC as its port, a route that a
 * policy chooses; and addresses that change while traffic flows. (Bond, VLAN device and VRF are in
 * test/vm/underlay-devices.test.ts: not every kernel has them.)
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, run, type Host } from "../lib/lab.js";
import { transfer } from "../lib/transfer.js";
import { addressVnet4, attachedHosts, quickHello, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
const families = [4, 6] as const;

/** Frames of all kinds between a and another host: ARP, ping, TCP by both families, and what must be fragmented. */
async function carries(host: Host, n: number): Promise<void> {
  const address = `10.4.0.${n}`;
  await eventually(async () => (await a.ping(address, { count: 1, waitMs: 300 })).lost === 0, {
    what: `${host.name} to answer`,
  });
  await transfer(a, host, address);
  await transfer(host, a, "fd04::1");
  for (const place of [a, host]) await place.exec("ip link set vnif0004 mtu 1500");
  const { stdout } = await a.exec(`ping -M dont -c 3 -i 0.05 -s 1472 ${address}`);
  expect(stdout).toMatch(/3 received/);
}

async function attached(host: Host): Promise<StatusInfo["attached"]> {
  return (await host.vnetdJson<StatusInfo>(["status"])).attached;
}

describe("a device that is not a NIC", () => {
  beforeAll(async () => {
    lab = await Lab.create();
    [a] = (await attachedHosts(lab, ["a"], { config: quickHello })) as [Host];
    await addressVnet4([a], { families });
  });
  afterAll(() => lab.close());

  it("a macvlan", async () => {
    const host = await lab.host("m", { underlay: "10.66.1.20/24" });
    // the address moves from the parent: with two on one LAN the kernel answers ARP for both by either
    await host.exec(
      "ip addr flush dev eth0 && ip link add mv0 link eth0 type macvlan mode bridge && ip link set mv0 up && ip addr add 10.66.1.21/24 dev mv0",
    );
    await startDaemon(host, { config: quickHello });
    await host.vnetd(["attach", "mv0"]);
    expect(await attached(host)).toMatchObject([{ device: "mv0", address: "10.66.1.21" }]);
    await addressVnet4([host], { first: 2, families });
    await carries(host, 2);
    await host.vnetd(["detach", "mv0"]);
  });

  it("a bridge that the NIC is a port of", async () => {
    const host = await lab.host("br", { underlay: "10.66.1.30/24" });
    await host.exec(
      "ip link add br0 type bridge forward_delay 0 && ip addr flush dev eth0 && ip link set eth0 master br0 && " +
        "ip link set br0 up && ip addr add 10.66.1.30/24 dev br0",
    );
    await startDaemon(host, { config: quickHello });
    await host.vnetd(["attach", "br0"]);
    await addressVnet4([host], { first: 3, families });
    await carries(host, 3);
    // a bridge that goes and comes, with the same name
    await host.exec("ip link del br0");
    await eventually(async () => /not there/.test((await attached(host))[0]?.problem ?? ""));
    await host.exec(
      "ip link add br0 type bridge forward_delay 0 && ip link set eth0 master br0 && " +
        "ip link set br0 up && ip addr add 10.66.1.30/24 dev br0",
    );
    await carries(host, 3);
  });
});

describe("policy routing", () => {
  let b: Host;
  let routers: [Host, Host];

  beforeAll(async () => {
    lab = await Lab.create();
    [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
    routers = [
      await lab.host("r1", { underlay: "10.66.1.251/24" }),
      await lab.host("r2", { underlay: "10.66.1.252/24" }),
    ];
    for (const router of routers) {
      await router.sysctl("net.ipv4.ip_forward", 1);
      for (const each of ["all", "eth0"])
        await router.sysctl(`net.ipv4.conf.${each}.send_redirects`, 0);
    }
    await addressVnet4([a, b], { families });
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
    // the main table says one thing, a rule about the source another
    await a.exec(
      "ip route add 10.66.1.2 via 10.66.1.251 && ip route add 10.66.1.2 via 10.66.1.252 dev eth0 table 100",
    );
  });
  afterAll(() => lab.close());

  /** which of the routers a's packets to b go by */
  async function way(): Promise<string[]> {
    const filter = "udp port 1798 and src 10.66.1.1 and dst 10.66.1.2 or icmp";
    const captures = await Promise.all(routers.map((router) => router.capture("eth0", filter)));
    expect((await a.ping("10.4.0.2", { count: 5, intervalMs: 20 })).lost).toBe(0);
    // what is not IP takes a way of its own through the programs, and fragments another
    await a.exec("ip neigh flush dev vnif0004");
    await carries(b, 2);
    await Promise.all(captures.map((capture) => capture.stop()));
    return routers.filter((_, i) => captures[i]!.packets.length > 0).map(({ name }) => name);
  }

  it("the main table's next hop, without a rule", async () => {
    expect(await way()).toEqual(["r1"]);
  });

  it("the next hop of the table that a rule names", async () => {
    await a.exec("ip rule add from 10.66.1.1 lookup 100");
    expect(await way()).toEqual(["r2"]);
    await a.exec("ip rule del from 10.66.1.1 lookup 100");
    expect(await way()).toEqual(["r1"]);
  });

  /** what a's programs remember of its hosts' routes while frames go there (bpf/lib/route.h) */
  async function onLink(): Promise<boolean> {
    expect((await a.ping("10.4.0.2", { count: 40, intervalMs: 5 })).lost).toBe(0);
    const nexthops = `bpftool -j map dump pinned ${a.bpffs}/layout-1/nexthops`;
    const entries = JSON.parse((await run(nexthops)).stdout) as {
      formatted: { value: { route: number } };
    }[];
    return entries.some(({ formatted }) => formatted.value.route % 2 === 1);
  }

  it("the host itself where no router is named, and a router again at once", async () => {
    expect(await onLink()).toBe(false);
    await a.exec("ip route del 10.66.1.2 via 10.66.1.251");
    await eventually(onLink);
    expect(await way()).toEqual([]);
    await a.exec("ip route add 10.66.1.2 via 10.66.1.251");
    expect(await way()).toEqual(["r1"]);
    expect(await onLink()).toBe(false);
  });
});

describe("an address that changes while traffic flows", () => {
  let b: Host;
  const addressOfB = async (): Promise<string | undefined> =>
    (await a.vnetdJson<HostInfo[]>(["hosts"]))[0]?.paths.find(({ primary }) => primary)?.address;

  beforeAll(async () => {
    lab = await Lab.create();
    [a, b] = (await attachedHosts(lab, ["a", "b"], { config: quickHello })) as [Host, Host];
    await b.sysctl("net.ipv4.conf.eth0.promote_secondaries", 1);
    await addressVnet4([a, b], { families });
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
  });
  afterAll(() => lab.close());

  it("one that is added takes nothing away", async () => {
    const pinging = a.startPing("10.4.0.2", { intervalMs: 20 });
    await eventually(() => pinging.answers > 10);
    await b.exec("ip addr add 10.66.1.77/24 dev eth0 && ip addr add 10.77.0.1/24 dev eth0");
    const before = pinging.answers;
    await eventually(() => pinging.answers > before + 25);
    expect((await pinging.stop()).lost).toBeLessThanOrEqual(1);
    expect(await addressOfB()).toBe("10.66.1.2");
    await b.exec("ip addr del 10.77.0.1/24 dev eth0");
  });

  it("renumbered: the others follow at once, in both directions", async () => {
    const pings = [
      a.startPing("10.4.0.2", { intervalMs: 20 }),
      b.startPing("10.4.0.1", { intervalMs: 20 }),
    ];
    await eventually(() => pings.every(({ answers }) => answers > 10));
    await b.exec("ip addr del 10.66.1.2/24 dev eth0");
    await eventually(async () => (await addressOfB()) === "10.66.1.77", {
      what: "the new address",
    });
    const before = pings.map(({ answers }) => answers);
    await eventually(() => pings.every(({ answers }, i) => answers > before[i]! + 25));
    // a frame of the guest or the announce, whichever is first, moves the entry: some 100 ms
    for (const ping of pings) expect((await ping.stop()).lost).toBeLessThan(15);
  });
});
