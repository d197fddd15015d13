// SPDX-License-Identifier: Apache-2.0
/**
 * One bridge between two vnets, or between a vnet and the LAN that carries it: it joins them, as the
 * manual of the original says, and nobody is alarmed. Two are in daemon-loops.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, eventually, timeFactor, type Host } from "../lib/lab.js";
import { bridgeToLan, dropped, join, problems, say, sent, threeHosts } from "./troubles.js";

let lab: Lab;
let hosts: Host[];
let a: Host;
let b: Host;
let c: Host;

beforeAll(async () => {
  lab = await Lab.create();
  hosts = [a, b, c] = await threeHosts(lab, "probeSeconds: 1\n");
}, 60_000 * timeFactor);
afterAll(() => lab.close());

describe("one bridge", () => {
  it("between two vnets joins them, and nobody is alarmed", async () => {
    const undo = await join(a);
    try {
      const in97 = await b.guest("x97", { bridge: "vnet0097", address: "10.0.1.1/24" });
      const in98 = await c.guest("x98", { bridge: "vnet0098", address: "10.0.1.2/24" });
      expect((await in97.ping("10.0.1.2", { count: 5, intervalMs: 50 })).lost).toBe(0);
      for (let at = 0; at < 3; at++) for (const guest of [in97, in98]) await say(guest);
      // all three have sent probes by then
      await probed(hosts);
      for (const host of hosts) expect(await problems(host)).toEqual([]);
    } finally {
      await undo();
    }
  }, 60_000);

  it("between a vnet and the LAN that carries it joins them, and nobody is alarmed", async () => {
    const undo = await bridgeToLan(a);
    const onLan = await lab.host("s", { underlay: "10.66.1.66/24" });
    try {
      const inVnet = await b.guest("lan", { bridge: "vnet0097", address: "10.66.1.99/24" });
      expect((await inVnet.ping("10.66.1.66", { count: 5, intervalMs: 50 })).lost).toBe(0);
      expect((await onLan.ping("10.66.1.99", { count: 5, intervalMs: 50 })).lost).toBe(0);
      const before = await sent(a);
      await say(inVnet);
      await probed(hosts);
      for (const host of hosts) expect(await problems(host)).toEqual([]);
      // its own packets, which come in by the bridge, are not carried in themselves
      expect(await dropped(a, "carries_itself", "97")).toBeGreaterThan(0);
      expect((await sent(a)) - before).toBeLessThan(500);
    } finally {
      await undo();
      await onLan.tryExec("ip link delete eth0");
    }
  }, 60_000);
});

/** Waits until each host has sent probes in its vnets, as it does every second here. */
async function probed(of: readonly Host[]): Promise<void> {
  const captures = await Promise.all(
    of.map((host) => host.capture("eth0", "udp port 1798 and src host " + addressOf(host))),
  );
  await eventually(
    () =>
      captures.every(({ packets }) =>
        packets.some(({ data }) => Buffer.from(data).includes("VNTP", 0, "latin1")),
      ),
    { what: "probes", timeoutMs: 60_000 },
  );
  for (const capture of captures) await capture.stop();
}
const addressOf = (host: Host): string => `10.66.1.${hosts.indexOf(host) + 1}`;
