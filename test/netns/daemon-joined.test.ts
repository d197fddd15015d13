// SPDX-License-Identifier: Apache-2.0
/**
 * One bridge between two vnets, or between a vnet and the LAN that carries it: it joins them, as the
 * manual of the original says, and nobody is alarmed. Two are in daemon-loops.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo } from "../../src/api/contract.js";
import { Lab, eventually, timeFactor, type Host } from "../lib/lab.js";
import { bridgeToLan, dropped, join, problems, say, sent, threeHosts } from "./troubles.js";
import { attachedDaemon, quickHello, routedHost, routedSubnets } from "./world.js";

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

describe("one bridge on a subnet with a forwarder", () => {
  let routed: Lab;
  afterAll(() => routed.close());

  it("what that sends to the group for a host elsewhere is not carried once more", async () => {
    routed = await Lab.create();
    await routedSubnets(routed, 2);
    const forwarder = await routedHost(routed, "f", { subnet: 1, number: 1 });
    const joined = await routedHost(routed, "j", { subnet: 1, number: 2 });
    const elsewhere = await routedHost(routed, "e", { subnet: 2, number: 1 });
    for (const host of [forwarder, joined, elsewhere]) {
      await attachedDaemon(host, { config: `${quickHello}defaultVnets: false\n` });
      await host.vnetd(["vnet-create", "97"]);
    }
    await forwarder.vnetd(["peer-add", "10.66.2.1"]);
    await elsewhere.vnetd(["peer-add", "10.66.1.1"]);
    const far = await elsewhere.guest("far", { bridge: "vnet0097", address: "10.0.0.1/24" });
    const near = await joined.guest("near", { bridge: "vnet0097", address: "10.0.0.2/24" });
    const knows = async (): Promise<boolean> =>
      (await joined.vnetdJson<HostInfo[]>(["hosts"])).some(({ paths }) =>
        paths.some(({ address }) => address === "10.66.2.1"),
      );
    await eventually(knows, { what: "the host elsewhere to be known", timeoutMs: 30_000 });
    await bridgeToLan(joined);

    const onPort = await joined.capture("eth1", "udp port 1798 and src 10.66.2.1 and greater 90");
    // a frame in VUDP begins at udp[30], an IP packet's source in it is at udp[56]
    const fromJoined = "udp port 1798 and src 10.66.1.2";
    const again = await forwarder.capture("eth0", `${fromJoined} and udp[56:4] = 0x0a420201`);
    await eventually(
      async () => {
        await say(far);
        return onPort.packets.length >= 5;
      },
      { what: "the forwarder's packets at the bridge", timeoutMs: 30_000 },
    );
    const marker = await forwarder.capture("eth0", `${fromJoined} and udp[42:2] = 0x0806`);
    await eventually(
      async () => {
        await say(near);
        return marker.packets.length > 0;
      },
      { what: "a frame behind them", timeoutMs: 30_000 },
    );
    for (const capture of [onPort, again, marker]) await capture.stop();
    expect(again.packets).toEqual([]);
    expect(await dropped(joined, "carries_itself", "97")).toBeGreaterThanOrEqual(5);
  }, 120_000);
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
