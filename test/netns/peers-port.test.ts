// SPDX-License-Identifier: Apache-2.0
/**
 * Another UDP port than 1798: two hosts whose daemons have it, on two subnets with a router between them
 * that forwards no multicast.
 *
 *   10.66.1.1   a (10.4.0.1)          10.66.2.1   b (10.4.0.2)
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { PeerInfo, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { addressVnet4, quickHello, routedHost, routedSubnets, startDaemon } from "./world.js";

const config = `${quickHello}port: 1799\n`;
let lab: Lab;
let a: Host;
let b: Host;
/** each host and the address of the other */
let ends: [Host, string][];

beforeAll(async () => {
  lab = await Lab.create();
  await routedSubnets(lab, 2);
  a = await routedHost(lab, "a", { subnet: 1, number: 1 });
  b = await routedHost(lab, "b", { subnet: 2, number: 1 });
  ends = [
    [a, "10.66.2.1"],
    [b, "10.66.1.1"],
  ];
  for (const [host] of ends) {
    await startDaemon(host, { config });
    await host.vnetd(["attach", "eth0"]);
  }
  await addressVnet4(ends.map(([host]) => host));
}, 120_000);
afterAll(() => lab.close());

it("the daemons have it", async () => {
  for (const [host] of ends) {
    const { attached } = await host.vnetdJson<StatusInfo>(["status"]);
    expect(attached).toMatchObject([{ device: "eth0", group: "224.10.0.1", port: 1799 }]);
  }
});

it("a peer is sent to on the port that it was added with, over a restart too", async () => {
  await a.vnetd(["peer-add", "-p", "1800", "10.66.2.1"]);
  for (const restarted of [false, true]) {
    if (restarted) {
      await a.killDaemon();
      await startDaemon(a, { config });
    }
    expect(await a.vnetdJson<PeerInfo[]>(["peers"])).toMatchObject([
      { peer: "10.66.2.1", port: 1800 },
    ]);
    const toPeer = await b.capture("eth0", "udp dst port 1800 and src 10.66.1.1");
    const toOwn = await b.capture("eth0", "udp dst port 1799 and src 10.66.1.1");
    // ARP, which goes to the group and to peers
    await a.tryExec("ping -c 1 -W 1 10.4.0.2");
    await eventually(() => toPeer.packets.length > 0, { what: "packets to port 1800" });
    for (const capture of [toPeer, toOwn]) await capture.stop();
    expect(toOwn.packets).toEqual([]);
  }
  await a.vnetd(["peer-delete", "10.66.2.1"]);
});

it("hosts that are peers on that port reach one another by it", async () => {
  for (const [host, other] of ends) await host.vnetd(["peer-add", "-p", "1799", other]);
  const byUsual = await b.capture("eth0", "udp port 1798");
  const byOwn = await b.capture("eth0", "udp dst port 1799 and src 10.66.1.1");
  await eventually(
    async () => (await a.ping("10.4.0.2", { count: 1, waitMs: 500 })).received === 1,
    { what: "an answer", timeoutMs: 20_000 },
  );
  expect(await b.ping("10.4.0.1", { count: 5, intervalMs: 50 })).toMatchObject({ lost: 0 });
  for (const capture of [byUsual, byOwn]) await capture.stop();
  expect(byOwn.packets.length).toBeGreaterThan(0);
  expect(byUsual.packets).toEqual([]);
  for (const [host, other] of ends) {
    await eventually(async () => {
      const [peer] = await host.vnetdJson<PeerInfo[]>(["peers"]);
      expect(peer).toMatchObject({ peer: other, port: 1799, problem: "" });
      expect(peer!.addresses[0]!.heardSeconds).not.toBeNull();
      return true;
    });
  }
});
