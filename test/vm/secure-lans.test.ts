// SPDX-License-Identifier: Apache-2.0
/**
 * Two hosts of a secure vnet that share two LANs of jumbo frames, with both families: keys by every path,
 * each broadcast once, and one LAN that dies without its carrier going away.
 *
 *   a: 10.66.1.1, fd66::1 (lan0), 10.66.2.1, fe80::… (lan1)      b: the same with .2      vnet 98: 10.98.0.1, .2
 */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab, eventually, run, type Host } from "../lib/lab.js";
import { addAddress, startDaemon } from "../netns/world.js";
import { ask, defaultKeyOf, quick, quickVnet, reaches, stateLines, writeKey } from "./secure.js";

let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  for (const lan of ["lan0", "lan1"]) await lab.lan(lan, { mtuBytes: 9000 });
  [a, b] = (await Promise.all(
    ["a", "b"].map(async (name, at) => {
      const underlay = { lan0: `10.66.1.${at + 1}/24`, lan1: `10.66.2.${at + 1}/24` };
      const host = await lab.host(name, { underlay });
      await addAddress(host, `fd66::${at + 1}/64`);
      return host;
    }),
  )) as [Host, Host];
  const secret = randomBytes(32);
  for (const host of [a, b]) writeKey(defaultKeyOf(host), secret);
  const config = `${quick}underlay: both\nattach: [eth0, eth1]\n`;
  await Promise.all([a, b].map((host) => startDaemon(host, { config, readyTimeoutMs: 60_000 })));
  await quickVnet([a, b], "98");
  await reaches(a, "10.98.0.2");
});
afterAll(() => lab.close());

it("have keys by each path: both families of both LANs, of the second by link-local addresses", async () => {
  for (const host of [a, b]) {
    await eventually(
      async () => {
        const [vnet] = await ask(host, "keys", { vnet: "98" });
        const keyed = vnet?.hosts.filter(({ keyId }) => keyId !== null) ?? [];
        return new Set(keyed.map(({ device, address }) => `${device} ${address}`)).size === 4;
      },
      { timeoutMs: 60_000, what: "keys by four paths" },
    );
    await eventually(async () => (await stateLines(host)).length === 8, {
      timeoutMs: 60_000,
      what: "one SA each way by each of them",
    });
  }
});

it("carry jumbo frames whole, exact to the byte, and broadcasts once", async () => {
  const [{ mtu }] = (await a.ip<{ mtu: number }[]>("link", "show", "vnif98")) as [{ mtu: number }];
  expect(mtu).toBeGreaterThan(8850);
  const whole = { count: 3, intervalMs: 50, sizeBytes: mtu - 28, dontFragment: true };
  expect(await a.ping("10.98.0.2", whole)).toMatchObject({ received: 3, duplicates: 0 });
  const heard = await b.capture("vnif98", "icmp[0] = 8 and dst 10.98.0.255");
  await a.exec("ping -n -b -c 20 -i 0.05 10.98.0.255 || true");
  await eventually(() => heard.packets.length >= 20, { what: "broadcasts" });
  await heard.stop();
  const sequences = heard.packets.map(({ data }) => data.readUInt16BE(14 + 20 + 6));
  expect(sequences).toEqual(Array.from({ length: 20 }, (_, at) => at + 1));
});

it("go on by the other LAN when the one in use dies, by ESP as before", async () => {
  const hosts = await ask(a, "hosts", {});
  const device = hosts[0]?.paths.find(({ primary }) => primary)?.device ?? "eth0";
  const port = lab.switchPort(b, device);
  const wire = await a.capture(device === "eth0" ? "eth1" : "eth0", "ip proto 50");
  await run(["ip", "-n", lab.switch, "link", "set", port, "nomaster"]);
  await reaches(a, "10.98.0.2");
  expect((await a.ping("10.98.0.2", { count: 5, intervalMs: 100 })).received).toBe(5);
  await wire.stop();
  expect(wire.packets.length).toBeGreaterThan(5);
  await run(["ip", "-n", lab.switch, "link", "set", port, "master", `lan${device.slice(3)}`]);
  await reaches(a, "10.98.0.2");
});
