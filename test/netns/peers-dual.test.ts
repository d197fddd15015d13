// SPDX-License-Identifier: Apache-2.0
/**
 * Both families: two subnets with two forwarders each, which are peers of one another by one name
 * that stands for all their IPv4 and IPv6 addresses; a host more on each subnet, and one that has
 * IPv6 alone. Whoever sends, each guest hears a broadcast once.
 *
 *   10.66.n.0/24 and fd66:0:0:n::/64, n = 1, 2:   fn1 (.1), fn2 (.2) forwarders, hn (.3), sn (::4 only)
 *   a guest behind each of the eight
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo, PeerInfo, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import {
  Names,
  configFor,
  routedHost,
  routedSubnets,
  startDaemon,
  timesHeard,
  underlayAddress,
} from "./world.js";

const SUBNETS = [1, 2] as const;
const FAMILIES = [4, 6] as const;
const NAME = "forwarders.example";
const forwarderAddresses = SUBNETS.flatMap((subnet) =>
  [1, 2].flatMap((number) => FAMILIES.map((family) => underlayAddress(family, subnet, number))),
);

let lab: Lab;
const hosts: Host[] = [];
const guests: Guest[] = [];
const place = (name: string): number => hosts.findIndex((each) => each.name === name);
const host = (name: string): Host => hosts[place(name)]!;
const guestAddress = (name: string): string => `10.4.0.${place(name) + 1}`;
const isForwarder = (name: string): boolean => name.startsWith("f");

async function addHost(name: string, subnet: number, number: number): Promise<void> {
  const families = name.startsWith("s") ? ([6] as const) : FAMILIES;
  const made = await routedHost(lab, name, { subnet, number, families });
  hosts.push(made);
  const names = isForwarder(name) ? new Names(lab, made) : undefined;
  await names?.set(NAME, forwarderAddresses);
  const program = names === undefined ? {} : { program: names.program };
  await startDaemon(made, { config: configFor(families), ...program });
  await made.vnetd(["attach", "eth0"]);
  await made.vnetd(["vnet-create", "-b", "br4", "4"]);
  const address = `${guestAddress(name)}/24`;
  guests.push(await made.guest(name, { bridge: "br4", address, mtuBytes: 1500 }));
}

beforeAll(async () => {
  lab = await Lab.create();
  await routedSubnets(lab, 2, FAMILIES);
  for (const subnet of SUBNETS) {
    await addHost(`f${subnet}1`, subnet, 1);
    await addHost(`f${subnet}2`, subnet, 2);
    await addHost(`h${subnet}`, subnet, 3);
    await addHost(`s${subnet}`, subnet, 4);
  }
  for (const each of hosts) if (isForwarder(each.name)) await each.vnetd(["peer-add", NAME]);
}, 240_000);
afterAll(() => lab.close());

const once = (): number[] => guests.map(() => 1);
let targets = 100;
const broadcast = (from: string): Promise<number[]> =>
  timesHeard(guests, place(from), `10.4.0.${(targets += 1)}`);

describe("forwarders by a name with A and AAAA records", () => {
  it("are peers by all addresses but their own", async () => {
    for (const name of ["f11", "f21"]) {
      await eventually(
        async () => {
          const [peer] = await host(name).vnetdJson<PeerInfo[]>(["peers"]);
          const ways = peer!.addresses.map(({ way }) => way).sort();
          return ways.join() === "multicast,multicast,vfwd,vfwd,vfwd,vfwd";
        },
        { timeoutMs: 15_000, what: `${name}'s peers` },
      );
    }
  });

  it("make all hosts known to all, each once, by both families", async () => {
    for (const each of hosts) {
      await eventually(
        async () => {
          const known = await each.vnetdJson<HostInfo[]>(["hosts"]);
          // IPv6 is all that one of the two has
          const isFull = ({ paths }: HostInfo): boolean =>
            paths.length ===
            (each.name.startsWith("s") || paths[0]?.address.endsWith("::4") ? 1 : 2);
          return known.length === hosts.length - 1 && known.every(isFull);
        },
        { timeoutMs: 20_000, what: `${each.name} to know all` },
      );
    }
  });

  it.each(["f11", "h1", "s1", "f22", "h2", "s2"])("each guest hears %s's once", async (from) => {
    expect(await broadcast(from)).toEqual(once());
  });

  it("guests reach one another, by whichever family their hosts have in common", async () => {
    for (const [from, to] of [
      ["h1", "h2"],
      ["s1", "s2"],
      ["h1", "s2"],
      ["s1", "f22"],
    ] as const) {
      const ping = await guests[place(from)]!.ping(guestAddress(to), { count: 3, intervalMs: 50 });
      expect(ping, `${from} to ${to}`).toMatchObject({ lost: 0, duplicates: 0 });
    }
    const { stdout } = await guests[place("s1")]!.exec(
      `ping -M dont -c 3 -i 0.05 -W 2 -s 1472 ${guestAddress("h2")}`,
    );
    expect(stdout).toMatch(/3 received/);
  });

  it("lack no peering, by no family", async () => {
    await eventually(
      async () => {
        for (const each of hosts) {
          const { problems } = await each.vnetdJson<StatusInfo>(["status"]);
          expect(problems, each.name).toEqual([]);
        }
        return true;
      },
      { timeoutMs: 15_000, what: "no problems" },
    );
  });

  it("forward without daemons as well, each broadcast once", async () => {
    for (const each of hosts) if (isForwarder(each.name)) await each.killDaemon("SIGKILL");
    // they say hello no more, and are one host each still
    await eventually(
      async () => (await host("h1").vnetdJson<HostInfo[]>(["hosts"])).length === hosts.length - 5,
      { timeoutMs: 20_000, what: "the forwarders to be no members any more" },
    );
    expect(await broadcast("h1")).toEqual(once());
    expect(await broadcast("s2")).toEqual(once());
    expect(await broadcast("f21")).toEqual(once());
  });
});
