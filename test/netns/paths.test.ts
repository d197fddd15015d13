// SPDX-License-Identifier: Apache-2.0
/**
 * Two hosts that share two LANs, one of which dies without the carrier going away: the switch's
 * port of host b leaves its bridge. Hellos are as rare as they are by default (30 s), so nothing
 * here waits for one.
 *
 *   a: 10.66.1.1 (lan0), 10.66.2.1 (lan1)      b: 10.66.1.2, 10.66.2.2      vnet 4: 10.4.0.1, .2
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo, StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, run, type Capture, type Host } from "../lib/lab.js";
import { longId, startDaemon } from "./world.js";

const BROADCAST = "10.4.0.255";
const LANS = ["lan0", "lan1"] as const;
let lab: Lab;
let a: Host;
let b: Host;

const setUp = async (config: string): Promise<void> => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: { lan0: "10.66.1.1/24", lan1: "10.66.2.1/24" } });
  b = await lab.host("b", { underlay: { lan0: "10.66.1.2/24", lan1: "10.66.2.2/24" } });
  for (const [index, host] of [a, b].entries()) {
    await startDaemon(host, { config: `${config}attach: [eth0, eth1]\n` });
    await host.exec(`ip addr add 10.4.0.${index + 1}/24 brd + dev vnif0004`);
    await host.exec("ip link set vnif0004 up");
  }
  for (const host of [a, b]) await eventually(async () => (await paths(host)).length === 2);
};

const paths = async (host: Host): Promise<HostInfo["paths"]> =>
  (await host.vnetdJson<HostInfo[]>(["hosts"]))[0]?.paths ?? [];
const deviceOf = (lan: string): string => `eth${LANS.indexOf(lan as "lan0")}`;
const cut = (lan: string): Promise<unknown> =>
  run(["ip", "-n", lab.switch, "link", "set", lab.switchPort(b, deviceOf(lan)), "nomaster"]);
const mend = (lan: string): Promise<unknown> =>
  run(["ip", "-n", lab.switch, "link", "set", lab.switchPort(b, deviceOf(lan)), "master", lan]);
/** the LAN by which the host sends unicast to the other */
const lanInUse = async (host: Host): Promise<string> => {
  let primary: HostInfo["paths"][number] | undefined;
  // there is none for a moment while the other host is not known
  await eventually(async () => {
    primary = (await paths(host)).find((path) => path.primary);
    return primary !== undefined;
  });
  return primary?.device === "eth1" ? "lan1" : "lan0";
};

/** sequence numbers of the broadcast pings that arrived, in order */
const sequences = (capture: Capture): number[] =>
  capture.packets.map(({ data }) => data.readUInt16BE(14 + 20 + 6));

/**
 * Broadcasts from a every 10 ms while `during` runs, which can wait for so many more of them; what
 * b's vnetif received.
 */
async function broadcastsHeard(
  during: (more: (count: number) => Promise<unknown>) => Promise<void>,
): Promise<{ sent: number[]; heard: number[] }> {
  const filter = `icmp[0] = 8 and dst ${BROADCAST}`;
  const sent = await a.capture("vnif0004", filter);
  const heard = await b.capture("vnif0004", filter);
  const pings = a.spawn(["ping", "-b", "-q", "-i", "0.01", BROADCAST]);
  await eventually(() => heard.packets.length > 10, { what: "broadcasts to arrive" });
  await during((count) => {
    const before = sent.packets.length;
    return eventually(() => sent.packets.length >= before + count, { what: "more broadcasts" });
  });
  await pings.stop("SIGINT");
  await sent.stop();
  await heard.stop();
  return { sent: sequences(sent), heard: sequences(heard) };
}

const duplicates = async (host: Host): Promise<number> =>
  (await host.vnetdJson<StatusInfo>(["status"])).drops.find(
    ({ vnet, reason }) => vnet === longId("4") && reason === "duplicate_path",
  )?.frames ?? 0;

describe("a LAN that dies silently", () => {
  beforeAll(() => setUp(""));
  afterAll(() => lab.close());

  it("is not noticed by broadcasts: each arrives once, before, meanwhile and after", async () => {
    const before = await duplicates(b);
    for (const lan of LANS) {
      const { sent, heard } = await broadcastsHeard(async (more) => {
        await more(30);
        await cut(lan);
        await more(150);
        await mend(lan);
        await more(60);
      });
      expect(sent.length).toBeGreaterThan(240);
      expect(heard).toEqual(sent);
    }
    // and both copies did arrive while both LANs worked
    expect((await duplicates(b)) - before).toBeGreaterThan(100);
  });

  it("is left by unicast that nobody answers by it", async () => {
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    const lan = await lanInUse(a);
    const pinging = a.startPing("10.4.0.2", { intervalMs: 50, waitMs: 300 });
    await eventually(() => pinging.answers > 10);
    await cut(lan);
    await eventually(async () => (await lanInUse(a)) !== lan, {
      timeoutMs: 10_000,
      what: "the other path",
    });
    const then = pinging.answers;
    await eventually(() => pinging.answers > then + 20, {
      timeoutMs: 15_000,
      what: "answers by the other LAN",
    }).finally(() => mend(lan));
    const { sent, received, duplicates: twice } = await pinging.stop();
    expect(twice).toBe(0);
    expect(sent - received).toBeLessThan(20_000 / 50);
  });

  it("is left by unicast with no daemon, once a broadcast came by the other LAN alone", async () => {
    const lan = await lanInUse(a);
    for (const host of [a, b]) await host.killDaemon("SIGKILL");
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    const chatter = [
      a.spawn(["ping", "-b", "-q", "-i", "0.3", BROADCAST]),
      b.spawn(["ping", "-b", "-q", "-i", "0.3", BROADCAST]),
    ];
    await cut(lan);
    await eventually(
      async () => (await a.ping("10.4.0.2", { count: 1, waitMs: 200 })).received === 1,
      { timeoutMs: 15_000, what: "an answer by the other LAN" },
    );
    expect((await a.ping("10.4.0.2", { count: 20, intervalMs: 20 })).lost).toBe(0);
    await mend(lan);
    expect((await a.ping("10.4.0.2", { count: 20, intervalMs: 20 })).lost).toBe(0);
    for (const each of chatter) await each.stop("SIGINT");
  });
});

describe("hellos by both LANs", () => {
  beforeAll(() => setUp("helloSeconds: 1\n"));
  afterAll(() => lab.close());

  it("move no MAC from path to path", async () => {
    expect((await a.ping("10.4.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
    const moved = async (): Promise<number> =>
      (await a.vnetdJson<StatusInfo>(["status"])).table.moved;
    const place = async (): Promise<string | undefined> =>
      (await a.vnetdJson<VarpEntry[]>(["varp"])).find((entry) => entry.state !== "aged")?.address;
    const [movedBefore, placeBefore] = [await moved(), await place()];
    expect(placeBefore).toMatch(/^10\.66\.[12]\.2$/);
    const hellos = await a.capture("any", "udp dst port 1798 and src net 10.66.0.0/16 and inbound");
    await eventually(() => hellos.packets.length >= 8, { what: "hellos of b" });
    await hellos.stop();
    expect(await place()).toBe(placeBefore);
    expect(await moved()).toBe(movedBefore);
  });
});
