// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets with real daemons, commands and the kernel's ESP: hosts agree on keys by themselves, nothing of a
 * frame is on the wire in clear, and nothing is left when the vnet is deleted.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, eventually, type Host } from "../lib/lab.js";
import {
  drops,
  keyedHosts,
  problems,
  quick,
  reaches,
  secureVnet,
  spisOf,
  stateLines,
} from "./secure.js";

/** a short stream of TCP is more than that, whatever else is sent is less */
const rekeyPackets = 1000;
const config = `${quick}keys:\n  rekeyPackets: ${rekeyPackets}\n`;

let lab: Lab;
let a: Host;
let b: Host;
let c: Host;

beforeAll(async () => {
  lab = await Lab.create();
  // what the unit and the DaemonSet leave a daemon is enough for the kernel's ESP
  const capabilities = ["NET_ADMIN", "BPF", "PERFMON"];
  const hosts = await keyedHosts(lab, ["a", "b", "c"], config, { capabilities });
  [a, b, c] = hosts as [Host, Host, Host];
});
afterAll(() => lab.close());

for (const level of ["conf", "auth"] as const) {
  describe(`a vnet with security ${level} on three hosts`, () => {
    beforeAll(() => secureVnet([a, b, c], { level }));

    it("carries pings between all of them", async () => {
      await reaches(a, "10.98.0.2");
      await reaches(a, "10.98.0.3");
      await reaches(c, "10.98.0.2");
      const result = await a.ping("10.98.0.2", { count: 5, intervalMs: 50 });
      expect(result).toMatchObject({ received: 5, duplicates: 0 });
      expect(await a.ping("fd98:98::3", { count: 3, intervalMs: 50 })).toMatchObject({
        received: 3,
      });
      expect(await problems(a)).not.toContain("vnet");
    });

    it("by ESP alone: no VUDP and no byte of the payload is on the wire", async () => {
      const capture = await a.capture("eth0", "not arp");
      await a.exec("ping -n -c 3 -i 0.2 -p 6e6f626f647972656164 -s 64 10.98.0.2");
      await eventually(() => capture.packets.filter(({ data }) => data[23] === 50).length >= 6);
      await capture.stop();
      // the vnet's id is behind the header of 6 bytes; vnets 2, 3 and 4 have probes of their own
      const isVudp = (data: Buffer): boolean =>
        data[23] === 17 && data.readUInt16BE(42) === 2 && data.readUInt16BE(62) === 0x98;
      expect(capture.packets.filter(({ data }) => isVudp(data)).length).toBe(0);
      const clear = capture.packets.filter(({ data }) => data.includes("nobodyread"));
      expect(clear.length > 0).toBe(level === "auth");
    });

    it("by packets without a mark, as a firewall of the host sees them", async () => {
      const chain = (name: string, hook: string): string =>
        `  chain ${name} {\n    type filter hook ${hook} priority 0;\n` +
        "    meta l4proto esp meta mark != 0 counter;\n    meta l4proto esp counter;\n  }\n";
      const chains = chain("sent", "postrouting") + chain("heard", "prerouting");
      await a.exec(["nft", `table inet seen {\n${chains}}`]);
      await a.ping("10.98.0.2", { count: 5, intervalMs: 50 });
      const { stdout } = await a.exec("nft list table inet seen");
      const counted = [...stdout.matchAll(/counter packets (\d+)/g)].map(([, n]) => Number(n));
      expect(counted.length).toBe(4);
      const [markedOut, out, markedIn, incoming] = counted as [number, number, number, number];
      expect([markedOut, markedIn]).toEqual([0, 0]);
      expect(Math.min(out, incoming)).toBeGreaterThanOrEqual(5);
      await a.exec("nft delete table inet seen");
    });

    it("carries TCP at speed, by new keys after so many packets; and frames as large as the MTU", async () => {
      const before = await spisOf(a);
      const tcp = await a.iperf3(b, { address: "10.98.0.2", seconds: 4 });
      expect(tcp.bitsPerSecond).toBeGreaterThan(1e6);
      await eventually(async () => !(await spisOf(a)).every((spi) => before.includes(spi)), {
        timeoutMs: 30_000,
        what: "new keys after so many packets",
      });
      const [{ mtu }] = (await a.ip<{ mtu: number }[]>("link", "show", "vnif98")) as [
        { mtu: number },
      ];
      const size = mtu - 28;
      const largest = { count: 2, intervalMs: 100, sizeBytes: size, dontFragment: true };
      expect((await a.ping("10.98.0.2", largest)).received).toBe(2);
    });

    it("leaves nothing behind when it is deleted", async () => {
      for (const host of [a, b, c]) await host.vnetd(["vnet-delete", "98"]);
      for (const host of [a, b, c]) {
        expect(await stateLines(host)).toEqual([]);
        expect((await host.exec("ip xfrm policy")).stdout).toBe("");
        expect(await host.ip("link", "show", "type", "xfrm")).toEqual([]);
      }
      expect((await drops(a))["esp_integrity"] ?? 0).toBe(0);
    });
  });
}
