// SPDX-License-Identifier: Apache-2.0
/**
 * Three subnets with two forwarders each, all peers of those on the other subnets, and one host
 * more on each subnet that forwards nothing: whoever sends, each guest hears a broadcast once.
 *
 *   10.66.n.0/24, n = 1, 2, 3:   fn1 (.1), fn2 (.2) forwarders, hn (.3)
 *   a guest behind each of the nine
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Capture, type Guest, type Host } from "../lib/lab.js";
import { quickHello, routedHost, routedSubnets, startDaemon } from "./world.js";

const SUBNETS = [1, 2, 3];
const forwarderAddresses = SUBNETS.flatMap((n) => [`10.66.${n}.1`, `10.66.${n}.2`]);

let lab: Lab;
const hosts = new Map<string, Host>();
const guests = new Map<string, Guest>();
const host = (name: string): Host => hosts.get(name)!;
const guest = (name: string): Guest => guests.get(name)!;

beforeAll(async () => {
  lab = await Lab.create();
  await routedSubnets(lab, 3);
  for (const subnet of SUBNETS) {
    for (const [name, number] of [
      [`f${subnet}1`, 1],
      [`f${subnet}2`, 2],
      [`h${subnet}`, 3],
    ] as const) {
      const made = await routedHost(lab, name, { subnet, number });
      await startDaemon(made, { config: quickHello });
      await made.vnetd(["attach", "eth0"]);
      await made.vnetd(["vnet-create", "-b", "br4", "4"]);
      hosts.set(name, made);
      const address = `10.4.${subnet}.${number}/16`;
      guests.set(name, await made.guest(name, { bridge: "br4", address }));
    }
  }
  for (const subnet of SUBNETS) {
    for (const name of [`f${subnet}1`, `f${subnet}2`]) {
      for (const address of forwarderAddresses) {
        if (!address.startsWith(`10.66.${subnet}.`)) await host(name).vnetd(["peer-add", address]);
      }
    }
  }
}, 240_000);
afterAll(() => lab.close());

let target = 0;

/** How many ARP requests each guest heard for each that `from` sent. */
async function broadcast(from: string): Promise<Map<string, number>> {
  target += 1;
  const filter = `arp[6:2] = 1 and arp[24:4] = 0x0a04fe${target.toString(16).padStart(2, "0")}`;
  const captures = new Map<string, Capture>();
  for (const [name, each] of guests) captures.set(name, await each.capture("eth0", filter));
  await guest(from).tryExec(["ping", "-c", "1", "-W", "1", `10.4.254.${target}`]);
  const all = [...captures.values()];
  await eventually(() => all.every(({ packets }) => packets.length > 0), {
    what: `every guest to hear ${from}`,
  });
  await Promise.all(all.map((each) => each.stop()));
  const sent = captures.get(from)!.packets.length;
  return new Map([...captures].map(([name, { packets }]) => [name, packets.length / sent]));
}
const once = (): Map<string, number> => new Map([...guests.keys()].map((name) => [name, 1]));

describe("a full mesh of two forwarders to a subnet", () => {
  it.each(["f11", "h2", "f32"])("every guest hears %s's broadcast once", async (from) => {
    expect(await broadcast(from)).toEqual(once());
  });

  it("guests of all subnets reach one another", async () => {
    for (const to of ["f12", "h1", "f21", "h3"]) {
      const subnet = to[1]!;
      const number = to.startsWith("h") ? 3 : Number(to[2]);
      const ping = await guest("h2").ping(`10.4.${subnet}.${number}`, { count: 3, intervalMs: 50 });
      expect(ping, to).toMatchObject({ lost: 0, duplicates: 0 });
    }
  });

  it("the copies are counted", async () => {
    const reasons = (await host("f21").vnetdJson<StatusInfo>(["status"])).drops;
    expect(reasons.find(({ reason }) => reason === "duplicate_forward")?.frames).toBeGreaterThan(0);
  });

  it("nothing is missing", async () => {
    await eventually(async () => {
      for (const each of hosts.values()) {
        const { problems } = await each.vnetdJson<StatusInfo>(["status"]);
        if (problems.length > 0) return false;
      }
      return true;
    });
  });
});

describe("one forwarder of a subnet goes", () => {
  it("the other carries on: every guest hears each broadcast once", async () => {
    await host("f11").exec("ip link set eth0 down");
    try {
      const here = new Map([...once()].filter(([name]) => name !== "f11"));
      guests.delete("f11");
      expect(await broadcast("h1")).toEqual(here);
      expect(await broadcast("h3")).toEqual(here);
    } finally {
      await host("f11").exec("ip link set eth0 up && ip route replace default via 10.66.1.254");
    }
  });
});

describe("a peering that is missing", () => {
  it("is named where it is seen, and everywhere else that knows of it", async () => {
    await host("f21").vnetd(["peer-delete", "10.66.3.1"]);
    const problemsOf = async (name: string): Promise<string> =>
      (await host(name).vnetdJson<StatusInfo>(["status"])).problems.join("\n");
    await eventually(async () =>
      /10\.66\.2\.1 .*does not have this host as a peer: vnetd peer-add 10\.66\.3\.1/.test(
        await problemsOf("f31"),
      ),
    );
    await eventually(async () =>
      /10\.66\.2\.1 \(.*\) does not have 10\.66\.3\.1 as a peer/.test(await problemsOf("f12")),
    );
    await host("f21").vnetd(["peer-add", "10.66.3.1"]);
    await eventually(async () => (await problemsOf("f12")) === "");
  });
});
