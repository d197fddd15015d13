// SPDX-License-Identifier: Apache-2.0
/**
 * Originals and hosts of ours forward to one another (test/lib/original-model.mjs, which the golden
 * captures hold to what the real ones did). What an original would have refused is recorded; nothing
 * of ours may be among it.
 *
 *   10.66.1.0/24   a: ours, peer of o and p          c: ours
 *   10.66.2.0/24   o: original, peer of a (and b)    q: original     b: ours, a forwarder as well
 *   guests: 10.4.0.1 behind a, .3 behind c; .11 in o, .12 in q
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { startOriginal, type OriginalHost } from "../lib/original.js";
import { quickHello, routedHost, routedSubnets, startDaemon } from "./world.js";

const O = { vnet: "4", mac: "aa:00:00:00:04:11", ip: "10.4.0.11" };
const Q = { vnet: "4", mac: "aa:00:00:00:04:12", ip: "10.4.0.12" };
const A_MAC = "aa:00:00:00:04:01";
const C_MAC = "aa:00:00:00:04:03";

let lab: Lab;
let a: Host;
let b: Host;
let c: Host;
let o: OriginalHost;
let q: OriginalHost;
let guestA: Guest;
let guestC: Guest;

const ours = async (name: string, subnet: number, number: number): Promise<Host> => {
  const host = await routedHost(lab, name, { subnet, number });
  await startDaemon(host, { config: quickHello });
  await host.vnetd(["attach", "eth0"]);
  await host.vnetd(["vnet-create", "-b", "br4", "4"]);
  return host;
};
const original = async (
  name: string,
  number: number,
  options: { guests: (typeof O)[]; peers?: string[] },
): Promise<OriginalHost> => {
  const host = await routedHost(lab, name, { subnet: 2, number });
  return startOriginal({ netns: host.netns, address: `10.66.2.${number}`, ...options });
};

beforeAll(async () => {
  lab = await Lab.create();
  await routedSubnets(lab, 2);
  a = await ours("a", 1, 1);
  c = await ours("c", 1, 3);
  guestA = await a.guest("ga", { bridge: "br4", address: "10.4.0.1/24", mac: A_MAC });
  guestC = await c.guest("gc", { bridge: "br4", address: "10.4.0.3/24", mac: C_MAC });
  o = await original("o", 11, { guests: [O], peers: ["10.66.1.1"] });
  q = await original("q", 12, { guests: [Q] });
  await a.vnetd(["peer-add", "10.66.2.11"]);
}, 120_000);
afterAll(async () => {
  for (const host of [o, q] as (OriginalHost | undefined)[]) await host?.stop();
  await lab.close();
});

const all = { received: 5, sent: 5, resolved: true };
const placeOf = async (host: OriginalHost, mac: string): Promise<string | undefined> =>
  (await host.table()).find((entry) => entry.mac === mac)?.address;
const varpOf = async (host: Host, mac: string): Promise<string | undefined> =>
  (await host.vnetdJson<VarpEntry[]>(["varp"])).find((entry) => entry.vmac === mac)?.address;

describe("ours on one side, originals on the other", () => {
  it("a guest of ours reaches the original that is our peer, and the other way round", async () => {
    expect(await guestA.ping(O.ip, { count: 5, intervalMs: 50 })).toMatchObject({ lost: 0 });
    expect(await o.ping({ from: O.ip, to: "10.4.0.1", count: 5 })).toMatchObject(all);
  });

  it("the original on its subnet, which hears what the peer sends on", async () => {
    expect(await guestA.ping(Q.ip, { count: 5, intervalMs: 50 })).toMatchObject({ lost: 0 });
    expect(await placeOf(q, A_MAC)).toBe("10.66.1.1");
  });

  it("from the original that is no peer to a host of ours that is none", async () => {
    await q.arpProbe(Q.ip, "10.4.0.3");
    expect(await q.ping({ from: Q.ip, to: "10.4.0.3", count: 5 })).toMatchObject(all);
    expect(await placeOf(q, C_MAC)).toBe("10.66.1.3");
    expect(await varpOf(c, Q.mac)).toBe("10.66.2.12");
    expect(await guestC.ping(Q.ip, { count: 5, intervalMs: 50 })).toMatchObject({ lost: 0 });
  });

  it("a new MAC is announced to originals over there, before a frame of it has come", async () => {
    const late = await c.guest("late", {
      bridge: "br4",
      address: "10.4.0.9/24",
      mac: "aa:00:00:00:04:09",
    });
    await late.tryExec(["ping", "-c", "1", "-W", "1", "10.4.0.200"]);
    await eventually(async () => (await placeOf(q, "aa:00:00:00:04:09")) === "10.66.1.3");
  });

  it("with our daemon killed", async () => {
    await a.killDaemon("SIGKILL");
    await q.flush();
    await o.flush();
    await guestC.exec("ip neigh flush dev eth0");
    expect(await guestC.ping(Q.ip, { count: 3, intervalMs: 50 })).toMatchObject({ lost: 0 });
    expect(await o.ping({ from: O.ip, to: "10.4.0.3", count: 5 })).toMatchObject(all);
    await startDaemon(a, { config: quickHello });
  });

  it("nothing that we sent is anything that an original refuses", async () => {
    await o.expectNothingRejected();
    await q.expectNothingRejected();
    expect((await o.stats()).arrivals.vfwd).toBeGreaterThan(5);
  });
});

describe("an original and one of ours forward for one subnet", () => {
  /** packets to the group with one ARP request of c's guest, on q's device; and how often it asked */
  const copies = async (): Promise<{ group: number; sent: number }> => {
    const inVudp = "dst host 224.10.0.1 and udp[8:2] = 2 and udp[68:4] = 0x0a0400fb";
    const heard = await lab.hosts.get("q")!.capture("eth0", inVudp);
    const sent = await guestC.capture("eth0", "arp[6:2] = 1 and arp[24:4] = 0x0a0400fb");
    await guestC.tryExec(["ping", "-c", "1", "-W", "1", "10.4.0.251"]);
    await eventually(() => heard.packets.length > 0, { what: "the broadcast to arrive" });
    for (const each of [heard, sent]) await each.stop();
    return { group: heard.packets.length, sent: sent.packets.length };
  };

  it("originals see no more copies than among themselves", async () => {
    // two forwarders on either side would be: each sends on what each of the two has forwarded
    const among = 4;
    b = await ours("b", 2, 1);
    await b.vnetd(["peer-add", "10.66.1.1"]);
    await a.vnetd(["peer-add", "10.66.2.1"]);
    const guestB = await b.guest("gb", { bridge: "br4", address: "10.4.0.21/24" });
    await eventually(async () => (await guestB.ping("10.4.0.3", { count: 1 })).lost === 0, {
      timeoutMs: 10_000,
    });
    const { group, sent } = await copies();
    expect(sent).toBeGreaterThan(0);
    expect(group).toBeGreaterThanOrEqual(sent);
    expect(group).toBeLessThanOrEqual(among * sent);
    // o's two: by a's VFWD; ours sends on one
    expect(group).toBeLessThanOrEqual(2 * sent);
    await o.expectNothingRejected();
    await q.expectNothingRejected();
  });
});
