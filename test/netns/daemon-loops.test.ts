// SPDX-License-Identifier: Apache-2.0
/**
 * Storms and loops, with real bridges: two bridges between vnets are a loop that is found at once, named,
 * and melts nothing. Every loop here is open for some seconds at most. One bridge is in
 * daemon-joined.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, timeFactor, type Host } from "../lib/lab.js";
import {
  bridgeToLan,
  broadcastFrame,
  dropped,
  join,
  noProblem,
  problem,
  problems,
  say,
  sent,
  threeHosts,
} from "./troubles.js";

let lab: Lab;
let hosts: Host[];
let a: Host;
let b: Host;
let c: Host;

async function perSecond(host: Host, seconds: number): Promise<number> {
  const before = await sent(host);
  const startedMs = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return ((await sent(host)) - before) / ((performance.now() - startedMs) / 1000);
}

/** as fast as it can, until it is stopped */
const flood = `${broadcastFrame}
n = 0
while True:
    s.send(frame)
    n += 1
    if n % 10000 == 0:
        print("sent", n, flush=True)
`;

beforeAll(async () => {
  lab = await Lab.create();
  hosts = [a, b, c] = await threeHosts(lab);
}, 60_000 * timeFactor);
afterAll(() => lab.close());

describe("a storm", () => {
  it("ends at the host that it comes from; unicast and other vnets lose nothing", async () => {
    const options = { bridge: "vnet0097", mtuBytes: 1400 };
    const flooder = await a.guest("flooder", options);
    const talker = await a.guest("ta", { ...options, address: "10.0.0.1/24" });
    await b.guest("tb", { ...options, address: "10.0.0.2/24" });
    const other = await a.guest("oa", { bridge: "vnet0099", address: "10.0.0.1/24" });
    await b.guest("ob", { bridge: "vnet0099", address: "10.0.0.2/24" });
    for (const guest of [talker, other]) await guest.ping("10.0.0.2", { intervalMs: 20 });

    const flooding = flooder.spawn(["python3", "-c", flood]);
    try {
      await flooding.output(/sent 60000/, { timeoutMs: 20_000 });
      const pings = [talker, other].map((guest) => guest.startPing("10.0.0.2", { intervalMs: 50 }));
      const rate = await perSecond(a, 1.5);
      // the burst is spent; the rate, the pings and what the daemons say
      expect(rate).toBeLessThan(12_000);
      expect(rate).toBeGreaterThan(1000);
      await problem(a, /^storm in vnet 0097: guests of this host send more than 10000 frames/);
      for (const run of pings) {
        const { sent: count, lost } = await run.stop();
        // a veth's queue may be full for a moment
        expect(lost).toBeLessThanOrEqual(Math.ceil(count * 0.05));
      }
    } finally {
      await flooding.stop("SIGKILL");
    }
    expect(await dropped(a, "storm", "97")).toBeGreaterThan(1000);
    expect(await dropped(a, "storm", "99")).toBe(0);
    // a host of ours never gets to the end of what another takes from it
    expect(await dropped(b, "storm")).toBe(0);
    await noProblem(a);
  }, 90_000);
});

describe("a loop", () => {
  /** A loop is open: named, bounded, harmless to others; then closed, and forgotten. */
  async function looped(undo: readonly (() => Promise<void>)[], names: RegExp): Promise<void> {
    const other = await a.guest(`oc${String(performance.now()).slice(0, 3)}`, {
      bridge: "vnet0099",
      address: "10.0.0.9/24",
    });
    await other.ping("10.0.0.2", { count: 2, intervalMs: 20 });
    const speaker = await c.guest(`sp${String(performance.now()).slice(0, 3)}`, {
      bridge: "vnet0097",
      address: "10.0.2.1/24",
    });
    try {
      for (let at = 0; at < 5; at++) await say(speaker);
      const texts = [await problem(a, /^loop in/), await problem(b, /^loop in/)];
      for (const text of texts) expect(text).toMatch(names);
      const pinging = other.startPing("10.0.0.2", { intervalMs: 20 });
      // the burst of the smaller budget is spent
      await new Promise((resolve) => setTimeout(resolve, 1500));
      const rates = await Promise.all([perSecond(a, 2), perSecond(b, 2)]);
      // two vnets of 100 a second each at most, fifty pings a second, probes and hellos
      for (const rate of rates) expect(rate).toBeLessThan(400);
      const { sent: count, lost } = await pinging.stop();
      expect(count).toBeGreaterThan(50);
      expect(lost).toBe(0);
      // it is no matter of duplicate addresses, for a host outside of it neither
      for (const host of hosts)
        expect((await problems(host)).filter((text) => /duplicate|storm/.test(text))).toEqual([]);
      expect((await dropped(a, "storm")) + (await dropped(b, "storm"))).toBeGreaterThan(0);
      expect((await dropped(a, "loop")) + (await dropped(b, "loop"))).toBeGreaterThan(0);
      expect(a.daemon.stderr).toMatch(/warn loop in vnet 0097/);
    } finally {
      for (const each of undo) await each();
    }
    for (const host of hosts) await noProblem(host);
    expect(a.daemon.stderr).toMatch(/info the loop in vnet 0097 is gone/);
  }

  it(
    "of two vnets that are joined on two hosts",
    async () => {
      const undo: (() => Promise<void>)[] = [];
      try {
        undo.push(await join(a), await join(b));
        await looped(
          undo,
          /^loop in vnet 009[78]: 10\.66\.1\.[12] joins vnets 0097 and 0098; this host joins vnets 0097 and 0098/,
        );
      } finally {
        for (const each of undo) await each();
      }
    },
    90_000 * timeFactor,
  );

  it(
    "of a vnet that is bridged to the LAN that carries it on two hosts",
    async () => {
      const undo: (() => Promise<void>)[] = [];
      try {
        undo.push(await bridgeToLan(a), await bridgeToLan(b));
        await looped(
          undo,
          /^loop in vnet 0097: vnet 0097 on (this host|10\.66\.1\.[12]) and vnet 0097 on (this host|10\.66\.1\.[12]) are bridged to one LAN/,
        );
      } finally {
        for (const each of undo) await each();
      }
    },
    90_000 * timeFactor,
  );
});
