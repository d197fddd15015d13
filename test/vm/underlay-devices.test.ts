// SPDX-License-Identifier: Apache-2.0
/**
 * Underlay devices that not every kernel has, so on Debian's in QEMU alone (test/vm/files): a bond whose
 * active port fails, a VLAN device, a device in a VRF. Kinds that every kernel has are in
 * test/netns/underlay-kinds.test.ts. And a guest with VLAN devices of its own.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, run, type Host } from "../lib/lab.js";
import { transfer } from "../lib/transfer.js";
import { attachedHosts, quickHello, startDaemon } from "../netns/world.js";

let lab: Lab;
let a: Host;

async function addressVnet4(host: Host, n: number): Promise<void> {
  await host.exec(
    `ip link set vnif0004 mtu 1400 up && ip addr add 10.4.0.${n}/24 dev vnif0004 && ip addr add fd04::${n}/64 dev vnif0004 nodad`,
  );
}

async function answers(n: number): Promise<void> {
  await eventually(
    async () => (await a.ping(`10.4.0.${n}`, { count: 1, waitMs: 300 })).lost === 0,
    {
      timeoutMs: 10_000,
      what: `10.4.0.${n} to answer`,
    },
  );
}

/** ARP, ping, TCP by both families, and frames that must be fragmented. */
async function carries(host: Host, n: number): Promise<void> {
  await answers(n);
  await transfer(a, host, `10.4.0.${n}`, 500_000);
  await transfer(host, a, "fd04::1", 500_000);
  for (const place of [a, host]) await place.exec("ip link set vnif0004 mtu 1500");
  const { stdout } = await a.exec(`ping -M dont -c 3 -i 0.2 -s 1472 10.4.0.${n}`);
  expect(stdout).toMatch(/3 received/);
  for (const place of [a, host]) await place.exec("ip link set vnif0004 mtu 1400");
}

const attached = async (host: Host): Promise<StatusInfo["attached"]> =>
  (await host.vnetdJson<StatusInfo>(["status"])).attached;

describe("an underlay device that is", () => {
  beforeAll(async () => {
    lab = await Lab.create();
    [a] = (await attachedHosts(lab, ["a"], { config: quickHello })) as [Host];
    await addressVnet4(a, 1);
  });
  afterAll(() => lab.close());

  it("a bond, whose active port fails", async () => {
    const host = await lab.host("bond");
    await lab.connectHost(host, "eth0", "lan0", "10.66.1.99/24");
    await lab.connectHost(host, "eth1", "lan0", "10.66.1.98/24");
    await host.exec(
      "ip link add bond0 type bond mode active-backup miimon 50 && " +
        "for d in eth0 eth1; do ip addr flush dev $d; ip link set $d down; ip link set $d master bond0; done && " +
        "ip link set bond0 up && ip addr add 10.66.1.20/24 dev bond0",
    );
    await startDaemon(host, { config: quickHello });
    await host.vnetd(["attach", "bond0"]);
    await addressVnet4(host, 2);
    await carries(host, 2);
    await run(["ip", "-n", lab.switch, "link", "set", lab.switchPort(host, "eth0"), "down"]);
    await carries(host, 2);
    expect(await attached(host)).toMatchObject([{ device: "bond0", problem: "" }]);
  });

  it("a VLAN device", async () => {
    const host = await lab.host("vlan", { underlay: "10.66.1.30/24" });
    for (const [place, n] of [
      [a, 1],
      [host, 2],
    ] as const) {
      await place.exec(
        `ip link add link eth0 name eth0.5 type vlan id 5 && ip link set eth0.5 up && ip addr add 10.67.0.${n}/24 dev eth0.5`,
      );
    }
    await startDaemon(host, { config: quickHello });
    for (const place of [a, host]) await place.vnetd(["attach", "eth0.5"]);
    await addressVnet4(host, 3);
    await carries(host, 3);
    await a.vnetd(["detach", "eth0.5"]);
  });

  it("in a VRF", async () => {
    const host = await lab.host("vrf", { underlay: "10.66.1.40/24" });
    await host.exec(
      "ip link add red type vrf table 10 && ip link set red up && ip link set eth0 master red",
    );
    // the main table has no way to the others
    expect((await host.exec("ip route show table main")).stdout).toBe("");
    await startDaemon(host, { config: quickHello });
    await host.vnetd(["attach", "eth0"]);
    await addressVnet4(host, 4);
    await carries(host, 4);
  });
});

describe("guests with VLAN devices", () => {
  beforeAll(async () => {
    lab = await Lab.create();
  });
  afterAll(() => lab.close());

  it("one tag and two: TCP with offload", async () => {
    const hosts = await attachedHosts(lab, ["a", "b"]);
    const guests = [];
    for (const [i, host] of hosts.entries()) {
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
    const [g, h] = guests as [(typeof guests)[0], (typeof guests)[0]];
    for (const address of ["10.5.0.2", "10.6.0.2", "fd06::2"])
      await transfer(g!, h!, address, 500_000);
  });
});
