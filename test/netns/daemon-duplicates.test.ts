// SPDX-License-Identifier: Apache-2.0
/** Duplicate addresses: MACs at two places are reported, moved guests followed. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAddress } from "../../src/base/address.js";
import { macFromBytes, macToBytes } from "../../src/base/mac.js";
import { vnetIdToBytes } from "../../src/base/vnet-id.js";
import { decodeVarp, encodeVarp } from "../../src/wire/varp.js";
import { Lab, eventually, timeFactor, type Host } from "../lib/lab.js";
import { broadcastFrame, noProblem, problem, problems, say, threeHosts } from "./troubles.js";
import { longId } from "./world.js";

let lab: Lab;
let hosts: Host[];
let a: Host;
let b: Host;
let c: Host;

/** One broadcast frame. */
const once = `${broadcastFrame}s.send(frame)\n`;

beforeAll(async () => {
  lab = await Lab.create();
  hosts = [a, b, c] = await threeHosts(lab);
}, 60_000 * timeFactor);
afterAll(() => lab.close());

describe("duplicate addresses", () => {
  const duplicate = (mac: string): RegExp =>
    new RegExp(`^duplicate address ${mac} in vnet 0098: seen on `);

  it("of two guests that talk are reported by both hosts, and by a third", async () => {
    const mac = "02:00:00:00:77:01";
    await c.guest("d3", { bridge: "vnet0098", address: "10.0.3.3/24" });
    const one = await a.guest("d1", { bridge: "vnet0098", address: "10.0.3.1/24", mac });
    const two = await b.guest("d2", { bridge: "vnet0098", address: "10.0.3.2/24", mac });
    const runs = [one, two].map((guest) => guest.startPing("10.0.3.3", { intervalMs: 100 }));
    expect(await problem(a, duplicate(mac), 20_000)).toMatch(
      /seen on this host and on 10\.66\.1\.2$/,
    );
    expect(await problem(b, duplicate(mac), 20_000)).toMatch(
      /seen on this host and on 10\.66\.1\.1$/,
    );
    expect(await problem(c, duplicate(mac), 20_000)).toMatch(
      /seen on 10\.66\.1\.1 and on 10\.66\.1\.2$/,
    );
    expect(a.daemon.stderr).toMatch(/warn duplicate address 02:00:00:00:77:01 in vnet 0098/);
    for (const run of runs) await run.stop();
    for (const guest of [one, two]) await guest.unplug();
  }, 120_000);

  it("of two guests that speak now and then are reported as well", async () => {
    const mac = "02:00:00:00:77:02";
    const one = await a.guest("e1", { bridge: "vnet0098", address: "10.0.3.1/24", mac });
    const two = await b.guest("e2", { bridge: "vnet0098", address: "10.0.3.2/24", mac });
    // nothing but what the test has them say
    for (const guest of [one, two]) await guest.sysctl("net.ipv6.conf.all.disable_ipv6", 1);
    const talking = { on: true };
    const talk = (async () => {
      while (talking.on) {
        for (const guest of [one, two]) {
          await guest.exec(["python3", "-c", once]);
          await new Promise((resolve) => setTimeout(resolve, 3000));
        }
      }
    })();
    try {
      await problem(a, duplicate(mac), 40_000);
      await problem(b, duplicate(mac), 40_000);
    } finally {
      talking.on = false;
      await talk;
    }
    for (const guest of [one, two]) await guest.unplug();
  }, 150_000);

  it(
    "that announces alone show are reported, after this host has asked by an announce of its own",
    async () => {
      const mac = "02:00:00:00:77:03";
      const guest = await a.guest("f1", { bridge: "vnet0098", address: "10.0.5.1/24", mac });
      // speaks VARP by hand: its guest's frames never come here
      const stranger = await lab.host("v", { underlay: "10.66.1.77/24" });
      const announce = async (): Promise<void> => {
        const message = encodeVarp({
          opcode: "announce",
          vnet: vnetIdToBytes(longId("98")),
          vmac: macToBytes(mac),
          address: parseAddress("10.66.1.77"),
        });
        const program = `
          const s = require("node:dgram").createSocket("udp4");
          s.send(Buffer.from("${message.toString("hex")}", "hex"), 1798, "10.66.1.1", () => s.close());`;
        await stranger.exec([process.execPath, "-e", program]);
      };
      const pinging = guest.startPing("10.0.5.200", { intervalMs: 100 });
      try {
        await eventually(
          async () =>
            (await a.vnetdJson<{ vmac: string }[]>(["vifs"])).some((vif) => vif.vmac === mac),
          { what: "the guest to speak" },
        );
        const capture = await stranger.capture("eth0", "udp port 1798 and src host 10.66.1.1");
        const defended = (): boolean =>
          capture.packets.some(({ data }) => {
            const decoded = decodeVarp(Buffer.from(data).subarray(42));
            return (
              decoded.ok &&
              decoded.message.opcode === "announce" &&
              macFromBytes(decoded.message.vmac) === mac
            );
          });
        await announce();
        await eventually(defended, { what: "an announce in turn", timeoutMs: 8000 });
        expect((await problems(a)).filter((each) => duplicate(mac).test(each))).toEqual([]);
        await announce();
        expect(await problem(a, duplicate(mac), 15_000)).toMatch(
          /seen on this host and on 10\.66\.1\.77$/,
        );
        await capture.stop();
      } finally {
        await pinging.stop();
        await guest.unplug();
        await stranger.tryExec("ip link delete eth0");
      }
    },
    120_000 * timeFactor,
  );

  it("are not what a guest has that is moved there and back and there again", async () => {
    const moved = await a.guest("m", { bridge: "vnet0099", address: "10.0.4.1/24" });
    const still = await c.guest("n", { bridge: "vnet0099", address: "10.0.4.2/24" });
    await still.ping("10.0.4.1", { count: 2, intervalMs: 50 });
    const pinging = still.startPing("10.0.4.1", { intervalMs: 20 });
    for (const to of [b, a, b]) {
      await moved.moveTo(to, "vnet0099");
      const since = pinging.answers;
      await say(moved);
      await eventually(() => pinging.answers > since + 5, {
        what: `answers from ${to.name}`,
        timeoutMs: 3000,
      });
    }
    await pinging.stop();
    await new Promise((resolve) => setTimeout(resolve, 4000));
    const mac = await moved.mac();
    for (const host of hosts)
      expect((await problems(host)).filter((each) => each.includes(mac))).toEqual([]);
  }, 60_000);

  it("are forgotten when they are none any more", async () => {
    for (const host of hosts) await noProblem(host, 60_000);
  }, 120_000);
});
