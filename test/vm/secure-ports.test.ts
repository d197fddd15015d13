// SPDX-License-Identifier: Apache-2.0
/** Guests on direct ports of a secure vnet: they reach one another on one host and on two, and by ESP alone. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { ask, drops, quickHosts, quickVnet } from "./secure.js";

let lab: Lab;
let a: Host;
let b: Host;
let p1: Guest, p2: Guest, p3: Guest;

async function portGuest(host: Host, name: string, number: number): Promise<Guest> {
  const guest = await host.guest(name, { address: `10.98.0.${number}/24`, mtuBytes: 1300 });
  await ask(host, "portAdd", { vnet: "98", device: guest.port });
  return guest;
}

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await quickHosts(lab, ["a", "b"], { secret: new Uint8Array(32).fill(7) })) as [
    Host,
    Host,
  ];
  await quickVnet([a, b], "98");
  p1 = await portGuest(a, "p1", 11);
  p2 = await portGuest(a, "p2", 12);
  p3 = await portGuest(b, "p3", 13);
});
afterAll(() => lab.close());

async function reaches(from: Guest | Host, address: string): Promise<void> {
  await eventually(
    async () => (await from.ping(address, { count: 1, waitMs: 1000 })).received === 1,
    { timeoutMs: 60_000, what: `${from.name} to reach ${address}` },
  );
}

it("reach one another, and the hosts' own interfaces, by ESP alone", async () => {
  const capture = await a.capture("eth0", "not arp");
  await reaches(p1, "10.98.0.13");
  await reaches(p3, "10.98.0.12");
  await reaches(p1, "10.98.0.12");
  await reaches(p3, "10.98.0.1");
  await reaches(b, "10.98.0.11");
  await p1.exec("ping -n -c 3 -i 0.2 -p 6e6f626f647972656164 -s 64 10.98.0.13");
  await eventually(() => capture.packets.filter(({ data }) => data[23] === 50).length >= 6);
  await capture.stop();
  expect(capture.packets.filter(({ data }) => data.includes("nobodyread"))).toEqual([]);
});

it("carry TCP, and what is as large as they may send", async () => {
  const tcp = await p1.iperf3(p3, { address: "10.98.0.13", seconds: 2 });
  expect(tcp.bitsPerSecond).toBeGreaterThan(1e6);
  const largest = { count: 2, intervalMs: 100, sizeBytes: 1272 };
  expect((await p2.ping("10.98.0.13", largest)).received).toBe(2);
  const counted = await drops(b);
  expect([counted["esp_integrity"] ?? 0, counted["security"] ?? 0]).toEqual([0, 0]);
});
