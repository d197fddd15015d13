// SPDX-License-Identifier: Apache-2.0
/**
 * A machine that was copied, host id and all: a and b have one id, c is a third host. Each has a
 * guest on vnet 97's bridge; a's and b's vnetifs have one MAC as well, since it is made of the id.
 */
import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { HostInfo, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { attachedHosts, quickHello, startDaemon } from "./world.js";

let lab: Lab;
let hosts: Host[];
const guests: Guest[] = [];

beforeAll(async () => {
  lab = await Lab.create();
  const [a] = (await attachedHosts(lab, ["a"], { config: quickHello })) as [Host];
  const b = await lab.host("b", { underlay: "10.66.1.2/24" });
  mkdirSync(b.stateDir, { recursive: true });
  cpSync(join(a.stateDir, "host.yaml"), join(b.stateDir, "host.yaml"));
  const c = await lab.host("c", { underlay: "10.66.1.3/24" });
  for (const host of [b, c]) {
    await startDaemon(host, { config: quickHello });
    await host.vnetd(["attach", "eth0"]);
  }
  hosts = [a, b, c];
  for (const [index, host] of hosts.entries()) {
    await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
    const address = `10.97.0.${index + 1}/24`;
    guests.push(await host.guest(`g${index}`, { bridge: "vnet97", address }));
  }
});
afterAll(() => lab.close());

const status = (host: Host): Promise<StatusInfo> => host.vnetdJson<StatusInfo>(["status"]);

it("every host names both addresses and what to do", async () => {
  for (const host of hosts) {
    const problem = await eventually(
      async () => (await status(host)).problems.find((text) => text.includes("same host id")),
      { timeoutMs: 10_000, what: `the problem at ${host.name}` },
    );
    expect(problem).toContain("10.66.1.1");
    expect(problem).toContain("10.66.1.2");
    expect(problem).toContain("host.yaml");
  }
});

it("a third host takes them for two, and drops nothing of either", async () => {
  const [, , c] = hosts as [Host, Host, Host];
  const ids = (await c.vnetdJson<HostInfo[]>(["hosts"])).map(({ hostId, paths }) => [
    hostId,
    paths.map(({ address }) => address),
  ]);
  expect(new Set(ids.map(([id]) => id)).size).toBe(1);
  expect(ids.map(([, addresses]) => addresses).sort()).toEqual([["10.66.1.1"], ["10.66.1.2"]]);

  // broadcasts of both at the same time, again and again, and unicast to both
  const [ga, gb, gc] = guests as [Guest, Guest, Guest];
  const heard = await gc.capture("eth0", "icmp[0] = 8 and dst 10.97.0.255");
  const count = 100;
  const broadcast = [
    "ping",
    "-b",
    "-q",
    "-i",
    "0.01",
    "-c",
    String(count),
    "-W",
    "0.1",
    "10.97.0.255",
  ];
  await Promise.all([ga, gb].map((guest) => guest.tryExec(broadcast)));
  await heard.stop();
  expect(heard.packets).toHaveLength(2 * count);
  for (const guest of [ga, gb]) {
    const target = guest === ga ? "10.97.0.1" : "10.97.0.2";
    const { lost, duplicates } = await gc.ping(target, { count: 20, intervalMs: 20 });
    expect({ lost, duplicates }).toEqual({ lost: 0, duplicates: 0 });
  }
  expect((await status(c)).drops.filter((drop) => drop.reason === "duplicate_path")).toEqual([]);
});

it("is over when one was given another id", async () => {
  const [a, b, c] = hosts as [Host, Host, Host];
  await b.killDaemon();
  await b.exec(["rm", join(b.stateDir, "host.yaml")]);
  await startDaemon(b, { config: quickHello });
  for (const host of [a, b, c]) {
    await eventually(
      async () => !(await status(host)).problems.some((text) => text.includes("same host id")),
      { timeoutMs: 10_000, what: `no problem at ${host.name}` },
    );
  }
  await eventually(
    async () => {
      const known = await c.vnetdJson<HostInfo[]>(["hosts"]);
      return new Set(known.map(({ hostId }) => hostId)).size === 2 && known.length === 2;
    },
    { timeoutMs: 10_000, what: "two hosts with two ids" },
  );
});
