// SPDX-License-Identifier: Apache-2.0
/**
 * Three subnets, on each a forwarder of ours and an original one, all peers of those on the other
 * subnets; and once more with originals alone. Whoever sends, originals see no more copies of a
 * broadcast in the first than in the second, and guests of ours hear it once.
 *
 *   10.66.n.0/24, n = 1, 2, 3:
 *     xn (.1)   ours, forwards         in the network of originals: an original, forwards
 *     on (.11)  an original, forwards
 *     ln (.12)  an original, forwards nothing
 *     hn (.3)   ours, forwards nothing; left out in the network of originals
 *   a guest behind each: 10.4.n.(the host's number)
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, eventually, timeFactor, type Capture, type Guest, type Host } from "../lib/lab.js";
import { startOriginal, type Arrivals, type OriginalHost } from "../lib/original.js";
import { attachedDaemon, quickHello, routedHost, routedSubnets } from "./world.js";

const SUBNETS = [1, 2, 3];
const NUMBERS = { x: 1, h: 3, o: 11, l: 12 } as const;
type Kind = keyof typeof NUMBERS;
/** what comes without an id is told apart by its content for 200 ms (bpf/lib/seen.h) */
const WITHIN_MS = 120;

interface Copies {
  /** at each original's guest, by way */
  originals: Map<string, Arrivals>;
  /** at each guest of ours */
  guests: Map<string, number>;
  /** between the first and the last that hosts of ours heard */
  spreadMs: number;
}

const ipOf = (name: string): string => `10.4.${name[1]!}.${NUMBERS[name[0] as Kind]}`;
const total = ({ group, unicast, vfwd }: Arrivals): number => group + unicast + vfwd;

class World {
  readonly hosts = new Map<string, Host>();
  readonly guests = new Map<string, Guest>();
  readonly originals = new Map<string, OriginalHost>();
  private readonly heard = new Map<string, Capture>();
  private readonly arrived: Capture[] = [];
  private target = 0;

  private constructor(readonly lab: Lab) {}

  static async create(withOurs: boolean): Promise<World> {
    const world = new World(await Lab.create());
    await routedSubnets(world.lab, SUBNETS.length);
    for (const subnet of SUBNETS) {
      const kinds: Kind[] = withOurs ? ["o", "l"] : ["x", "o", "l"];
      for (const kind of kinds) await world.original(kind, subnet);
      if (withOurs) for (const kind of ["x", "h"]) await world.ours(`${kind}${subnet}`);
    }
    return world;
  }

  /** forwarders of the other subnets */
  private static peersOf(subnet: number): string[] {
    return SUBNETS.filter((other) => other !== subnet).flatMap((other) =>
      (["x", "o"] as const).map((kind) => `10.66.${other}.${NUMBERS[kind]}`),
    );
  }

  private async original(kind: Kind, subnet: number): Promise<void> {
    const name = `${kind}${subnet}`;
    const number = NUMBERS[kind];
    const { netns } = await routedHost(this.lab, name, { subnet, number });
    const mac = `aa:00:00:00:0${subnet}:${String(number).padStart(2, "0")}`;
    const started = await startOriginal({
      netns,
      address: `10.66.${subnet}.${number}`,
      guests: [{ vnet: "4", mac, ip: ipOf(name) }],
      peers: kind === "l" ? [] : World.peersOf(subnet),
    });
    this.originals.set(name, started);
  }

  private async ours(name: string): Promise<void> {
    const subnet = Number(name[1]);
    const host = await routedHost(this.lab, name, { subnet, number: NUMBERS[name[0] as Kind] });
    await attachedDaemon(host, { config: quickHello });
    await host.vnetd(["vnet-create", "-b", "br4", "4"]);
    if (name.startsWith("x"))
      for (const peer of World.peersOf(subnet)) await host.vnetd(["peer-add", peer]);
    const guest = await host.guest(name, { bridge: "br4", address: `${ipOf(name)}/16` });
    // one ARP request for a ping
    await guest.sysctl("net.ipv4.neigh.eth0.mcast_solicit", 1);
    this.hosts.set(name, host);
    this.guests.set(name, guest);
    this.heard.set(name, await guest.capture("eth0", "arp[6:2] = 1"));
    this.arrived.push(await host.capture("eth0", "udp dst port 1798"));
  }

  /** One ARP request of the guest behind `from`, for an address that nobody has. */
  async broadcast(from: string): Promise<Copies> {
    this.target += 1;
    const to = `10.4.254.${this.target}`;
    const original = this.originals.get(from);
    if (original === undefined)
      await this.guests.get(from)!.tryExec(["ping", "-c", "1", "-W", "1", to]);
    else await original.arpOnce(ipOf(from), to);
    let before = "";
    let copies: Copies | undefined;
    await eventually(
      async () => {
        copies = await this.copiesOf(to, from);
        const now = JSON.stringify([[...copies.originals], [...copies.guests]]);
        const isQuiet = now === before;
        before = now;
        return isQuiet && [...copies.guests.values()].every((count) => count > 0);
      },
      { timeoutMs: 20_000, everyMs: 300 * timeFactor, what: `all guests to hear ${from}` },
    );
    return copies!;
  }

  private async copiesOf(to: string, from: string): Promise<Copies> {
    const originals = new Map<string, Arrivals>();
    for (const [name, each] of this.originals) {
      const none = { group: 0, unicast: 0, vfwd: 0 };
      if (name !== from) originals.set(name, (await each.stats()).arpArrivals[to] ?? none);
    }
    const wanted = Buffer.from(to.split(".").map(Number));
    const of = (capture: Capture) => capture.packets.filter(({ data }) => data.includes(wanted));
    const guests = new Map([...this.heard].map(([name, each]) => [name, of(each).length]));
    const times = this.arrived.flatMap((each) =>
      of(each).map(({ timeNs }) => Number(timeNs / 1000n) / 1000),
    );
    const spreadMs = times.length === 0 ? 0 : Math.max(...times) - Math.min(...times);
    return { originals, guests, spreadMs };
  }

  /** The same, not on a machine that was too slow for copies to be told by their content. */
  async quickBroadcast(from: string): Promise<Copies> {
    let copies: Copies | undefined;
    await eventually(
      async () => {
        copies = await this.broadcast(from);
        return copies.spreadMs < WITHIN_MS;
      },
      { timeoutMs: 40_000, what: "the copies to be no further apart than told" },
    );
    return copies!;
  }

  /** Until each forwarder has brought something to its subnet: by that it is known as one. */
  async forwarding(): Promise<void> {
    const forwarders = SUBNETS.flatMap((subnet) => [`x${subnet}`, `o${subnet}`]);
    const listeners = SUBNETS.map((subnet) => `l${subnet}`);
    for (const from of forwarders) {
      const afar = listeners.filter((name) => name[1] !== from[1]);
      await eventually(
        async () => {
          const { originals } = await this.broadcast(from);
          return afar.every((name) => originals.get(name)!.group === 2);
        },
        { timeoutMs: 20_000, what: `both forwarders of each subnet to bring what ${from} sends` },
      );
    }
  }

  async close(): Promise<void> {
    for (const host of this.originals.values()) await host.stop();
    await this.lab.close();
  }
}

let mixed: World | undefined;
/** in the network of originals, by sender */
const among = new Map<string, Copies>();

beforeAll(async () => {
  const originals = await World.create(false);
  try {
    await originals.forwarding();
    for (const from of ["x1", "o1", "l1"]) among.set(from, await originals.broadcast(from));
  } finally {
    await originals.close();
  }
  mixed = await World.create(true);
  await mixed.forwarding();
}, 300_000);
afterAll(() => mixed?.close());

describe("originals alone", () => {
  it("a forwarder's broadcast comes from each forwarder of another subnet", () => {
    for (const from of ["x1", "o1"]) {
      const { originals } = among.get(from)!;
      expect(originals.get("l2")).toEqual({ group: 2, unicast: 0, vfwd: 0 });
      expect(originals.get("o2")!.group).toBe(2);
      expect(originals.get("o2")!.vfwd).toBeGreaterThanOrEqual(2);
    }
  });

  it("who forwards nothing is not heard there but by forwarders", () => {
    const { originals } = among.get("l1")!;
    expect(originals.get("l2")).toEqual({ group: 0, unicast: 0, vfwd: 0 });
    expect(originals.get("o2")).toEqual({ group: 0, unicast: 0, vfwd: 2 });
  });
});

describe("ours and originals", () => {
  const hearers = SUBNETS.flatMap((subnet) => [`o${subnet}`, `l${subnet}`]);

  it.each(["x1", "o1"])(
    "originals see no more of %s's broadcast than among themselves",
    async (from) => {
      const { originals } = await mixed!.quickBroadcast(from);
      for (const name of hearers.filter((each) => each !== from)) {
        const seen = originals.get(name)!;
        const least = among.get(from)!.originals.get(name)!;
        const detail = `${name}: ${JSON.stringify(seen)}, among themselves ${JSON.stringify(least)}`;
        expect(seen.group, detail).toBeLessThanOrEqual(least.group);
        expect(total(seen), detail).toBeLessThanOrEqual(total(least));
        expect(total(seen), detail).toBeGreaterThan(0);
      }
    },
  );

  // among themselves they lose these: measured by what they see of a forwarder's
  it.each(["l1", "h1"])(
    "nor of %s's, who forwards nothing, than of a forwarder's",
    async (from) => {
      const { originals } = await mixed!.quickBroadcast(from);
      for (const name of hearers.filter((each) => each !== from)) {
        const seen = originals.get(name)!;
        const most = among.get("x1")!.originals.get(name)!;
        const detail = `${name}: ${JSON.stringify(seen)}, of a forwarder's ${JSON.stringify(most)}`;
        expect(seen.group, detail).toBeLessThanOrEqual(most.group);
        expect(total(seen), detail).toBeLessThanOrEqual(total(most));
        expect(total(seen), detail).toBeGreaterThan(0);
      }
    },
  );

  it.each(["x1", "o1", "l1", "h1"])("guests of ours hear %s's broadcast once", async (from) => {
    const { guests } = await mixed!.quickBroadcast(from);
    expect(guests).toEqual(new Map([...mixed!.guests.keys()].map((name) => [name, 1])));
  });

  it("nothing that we sent is anything that an original refuses", async () => {
    for (const host of mixed!.originals.values()) await host.expectNothingRejected();
  });
});
