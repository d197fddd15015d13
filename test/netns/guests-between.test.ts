// SPDX-License-Identifier: Apache-2.0
/**
 * The manual's own ways to join networks: a guest with interfaces on two vnets, or on a vnet and on
 * the LAN that carries it, routes between them, or bridges between them. A machine on the LAN here
 * runs nothing of ours. One such bridge works, and floods nothing.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { DropInfo, StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { attachedHosts, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
/** on the LAN, without a daemon */
let machine: Host;
let between: Guest;

/**
 * Hosts a and b with vnets 97 and 98. On b the LAN comes to a bridge br0, as on a Xen host, with b's
 * address on it and the NIC as a port; br0 is attached.
 */
async function world(): Promise<void> {
  lab = await Lab.create();
  [a] = (await attachedHosts(lab, ["a"])) as [Host];
  b = await lab.host("b", { underlay: "10.66.1.2/24" });
  await b.exec(
    "ip link add br0 type bridge forward_delay 0 && ip addr flush dev eth0 && " +
      "ip link set eth0 master br0 && ip link set br0 up && ip addr add 10.66.1.2/24 dev br0",
  );
  await startDaemon(b);
  await b.vnetd(["attach", "br0"]);
  machine = await lab.host("machine", { underlay: "10.66.1.50/24" });
  for (const host of [a, b]) {
    for (const id of ["97", "98"]) await host.vnetd(["vnet-create", "-b", `vnet${id}`, id]);
  }
}

const drops = async (host: Host): Promise<DropInfo[]> =>
  (await host.vnetdJson<StatusInfo>(["status"])).drops;

/** packets that the underlay has carried */
async function carried(host: Host, device: string): Promise<number> {
  const [link] = await host.ip<{ stats64: Record<"rx" | "tx", { packets: number }> }[]>(
    "-s",
    "link",
    "show",
    "dev",
    device,
  );
  return (link?.stats64.rx.packets ?? 0) + (link?.stats64.tx.packets ?? 0);
}

async function reaches(from: Host | Guest, to: Host | Guest, address: string): Promise<void> {
  await eventually(async () => (await from.ping(address, { count: 1, waitMs: 300 })).lost === 0, {
    what: `${from.name} to reach ${address}`,
  });
  const ping = await from.ping(address, { count: 10, intervalMs: 20 });
  expect({ lost: ping.lost, duplicates: ping.duplicates }).toEqual({ lost: 0, duplicates: 0 });
  for (const reverse of [false, true]) {
    const { bytes } = await from.iperf3(to, { address, seconds: 1, reverse });
    expect(bytes).toBeGreaterThan(1_000_000);
  }
}

describe("a guest that routes", () => {
  beforeAll(async () => {
    await world();
    between = await b.guest("router", { bridge: "vnet97", address: "10.97.0.1/24" });
    await between.plug("eth1", { bridge: "vnet98", address: "10.98.0.1/24" });
    await between.plug("eth2", { bridge: "br0", address: "10.66.1.60/24", mtuBytes: 1500 });
    await between.sysctl("net.ipv4.ip_forward", 1);
  });
  afterAll(() => lab.close());

  it("between two vnets", async () => {
    const left = await a.guest("left", { bridge: "vnet97", address: "10.97.0.2/24" });
    const right = await a.guest("right", { bridge: "vnet98", address: "10.98.0.2/24" });
    await left.exec("ip route add default via 10.97.0.1");
    await right.exec("ip route add default via 10.98.0.1");
    await reaches(left, right, "10.98.0.2");
    // and not past the router: the vnets are apart
    await left.exec("ip route add 10.98.0.2 dev eth0");
    expect((await left.ping("10.98.0.2", { count: 1, waitMs: 200 })).received).toBe(0);
  });

  it("between a vnet and the physical network", async () => {
    const guest = await a.guest("inner", { bridge: "vnet97", address: "10.97.0.3/24" });
    await guest.exec("ip route add default via 10.97.0.1");
    await machine.exec("ip route add 10.97.0.0/24 via 10.66.1.60");
    await reaches(guest, machine, "10.66.1.50");
  });
});

describe("a guest that bridges", () => {
  beforeAll(world);
  afterAll(() => lab.close());
  afterEach(async () => {
    // both outer hosts still answer, on the LAN itself
    expect((await machine.ping("10.66.1.1", { count: 2, intervalMs: 50 })).lost).toBe(0);
    expect((await machine.ping("10.66.1.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
  });

  /** A guest of b whose eth0 and eth1 are ports of a bridge of its own. */
  async function bridgingGuest(name: string, bridges: [string, string]): Promise<Guest> {
    const guest = await b.guest(name, { bridge: bridges[0], mtuBytes: 1500 });
    await guest.plug("eth1", { bridge: bridges[1], mtuBytes: 1500 });
    await guest.exec(
      "ip link add br0 type bridge forward_delay 0 && ip link set eth0 master br0 && " +
        "ip link set eth1 master br0 && ip link set br0 up",
    );
    return guest;
  }

  it("between two vnets", async () => {
    const joined = await bridgingGuest("joined", ["vnet97", "vnet98"]);
    const left = await a.guest("left", { bridge: "vnet97", address: "10.9.0.1/24" });
    const right = await a.guest("right", { bridge: "vnet98", address: "10.9.0.2/24" });
    await reaches(left, right, "10.9.0.2");
    // where each lives, in the vnet of the other: behind the bridge, on b
    const rows = await a.vnetdJson<VarpEntry[]>(["varp"]);
    const mac = await right.mac();
    expect(rows).toContainEqual(
      expect.objectContaining({ vnet: longId("97"), vmac: mac, address: "10.66.1.2" }),
    );
    await joined.exec("ip link del br0");
    await joined.unplug();
  });

  it("between a vnet and the LAN that carries it", async () => {
    await bridgingGuest("gateway", ["vnet97", "br0"]);
    const inner = await a.guest("inner", {
      bridge: "vnet97",
      address: "10.66.1.97/24",
      mtuBytes: 1500,
    });
    await reaches(inner, machine, "10.66.1.50");

    const before = await carried(a, "eth0");
    const started = performance.now();
    expect((await inner.ping("10.66.1.50", { count: 20, intervalMs: 50 })).lost).toBe(0);
    // 20 requests and answers, in both forms, and what daemons and kernels say beside them
    const perSecond =
      (1000 * ((await carried(a, "eth0")) - before)) / (performance.now() - started);
    expect(perSecond).toBeLessThan(200);
    // what a and b sent to the group came by the guest's bridge into the vnet, and stayed there
    const ofB = (await drops(b)).filter((row) => row.vnet === longId("97"));
    expect(ofB).toContainEqual(expect.objectContaining({ reason: "carries_itself" }));
    expect(ofB.filter(({ reason }) => reason !== "carries_itself")).toEqual([]);
  });
});
