// SPDX-License-Identifier: Apache-2.0
/**
 * Underlay devices that not every kernel has, so on Debian's in QEMU alone (test/vm/files): a bond whose
 * active port fails, a VLAN device, a device in a VRF. Kinds that every kernel has are in
 * test/netns/underlay-kinds.test.ts. And a guest with VLAN devices of its own.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, run, type Guest, type Host } from "../lib/lab.js";
import { transfer } from "../lib/transfer.js";
import { addressVnet4, quickHello, startDaemon } from "../netns/world.js";

/** one pair of daemons for all: they start slowly where these tests run */
let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: { lan0: "10.66.1.1/24", lan1: "10.66.2.1/24" } });
  b = await lab.host("b");
  for (const [device, lan, address] of [
    ["eth0", "lan0", "10.66.1.98/24"],
    ["eth1", "lan0", "10.66.1.99/24"],
    ["eth2", "lan1", "10.66.2.2/24"],
  ] as const)
    await lab.connectHost(b, device, lan, address);
  for (const host of [a, b]) {
    await startDaemon(host, { config: quickHello });
  }
  await addressVnet4([a, b], { families: [4, 6] });
});
afterAll(() => lab.close());

/** ARP, ping, TCP by both families, and frames that must be fragmented. */
async function carries(): Promise<void> {
  await eventually(async () => (await a.ping("10.4.0.2", { count: 1, waitMs: 300 })).lost === 0, {
    timeoutMs: 10_000,
    what: "b to answer",
  });
  await transfer(a, b, "10.4.0.2", 500_000);
  await transfer(b, a, "fd04::1", 500_000);
  for (const host of [a, b]) await host.exec("ip link set vnif0004 mtu 1500");
  const { stdout } = await a.exec("ping -M dont -c 3 -i 0.2 -s 1472 10.4.0.2");
  expect(stdout).toMatch(/3 received/);
  for (const host of [a, b]) await host.exec("ip link set vnif0004 mtu 1400");
}

/** Attaches a device of each for as long as it takes. */
async function attached(ofA: string, ofB: string, work: () => Promise<void>): Promise<void> {
  await a.vnetd(["attach", ofA]);
  await b.vnetd(["attach", ofB]);
  try {
    await work();
    const { attached } = await b.vnetdJson<StatusInfo>(["status"]);
    expect(attached).toMatchObject([{ device: ofB, problem: "" }]);
  } finally {
    // the next test's are others, whatever became of this one
    await a.vnetd(["detach", ofA]);
    await b.vnetd(["detach", ofB]);
  }
}

describe("an underlay device that is", () => {
  it("a bond, whose active port fails", async () => {
    await b.exec(
      "ip link add bond0 type bond mode active-backup miimon 50 && " +
        "for d in eth0 eth1; do ip addr flush dev $d; ip link set $d down; ip link set $d master bond0; done && " +
        "ip link set bond0 up && ip addr add 10.66.1.2/24 dev bond0",
    );
    await attached("eth0", "bond0", async () => {
      await carries();
      await run(["ip", "-n", lab.switch, "link", "set", lab.switchPort(b, "eth0"), "down"]);
      await carries();
    });
  });

  it("a VLAN device", async () => {
    for (const [host, device, n] of [
      [a, "eth1", 1],
      [b, "eth2", 2],
    ] as const) {
      await host.exec(
        `ip link add link ${device} name vlan5 type vlan id 5 && ip link set vlan5 up && ip addr add 10.67.0.${n}/24 dev vlan5`,
      );
    }
    await attached("vlan5", "vlan5", carries);
  });

  it("in a VRF", async () => {
    await b.exec(
      "ip link add red type vrf table 10 && ip link set red up && ip link set eth2 master red",
    );
    // the main table has no way to a
    expect((await b.exec("ip route show table main 10.66.2.0/24")).stdout).toBe("");
    await b.sysctl("net.ipv4.udp_l3mdev_accept", 0);
    await attached("eth1", "eth2", async () => {
      const { problems } = await b.vnetdJson<StatusInfo>(["status"]);
      expect(problems.join()).toMatch(/eth2: it is in the VRF red: .*udp_l3mdev_accept/);
      await b.sysctl("net.ipv4.udp_l3mdev_accept", 1);
      await carries();
      expect((await b.vnetdJson<StatusInfo>(["status"])).problems.join()).not.toMatch(/VRF/);
    });
  });
});

describe("guests with VLAN devices", () => {
  it("one tag and two: TCP with offload", async () => {
    await b.exec("ip link set eth2 nomaster && ip addr replace 10.66.2.2/24 dev eth2");
    const guests: Guest[] = [];
    for (const [i, host] of [a, b].entries()) {
      await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
      const guest = await host.guest(`g${i}`, { bridge: "vnet97" });
      await guest.exec(
        `ip link add link eth0 name v5 type vlan id 5 && ip link set v5 up && ip addr add 10.5.0.${i + 1}/24 dev v5 && ` +
          `ip link add link eth0 name s100 type vlan protocol 802.1ad id 100 && ip link set s100 up && ` +
          `ip link add link s100 name c6 type vlan id 6 && ip link set c6 up && ip addr add 10.6.0.${i + 1}/24 dev c6 && ` +
          `ip addr add fd06::${i + 1}/64 dev c6 nodad`,
      );
      guests.push(guest);
    }
    await attached("eth1", "eth2", async () => {
      for (const address of ["10.5.0.2", "10.6.0.2", "fd06::2"])
        await transfer(guests[0]!, guests[1]!, address, 500_000);
    });
  });
});
