// SPDX-License-Identifier: Apache-2.0
/**
 * Every level and suite with real daemons, over IPv4 and IPv6 underlays: pings, TCP and UDP super-frames whose bytes
 * are compared, IPv6 guests, VLANs, and the largest packet to the byte.
 */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Host } from "../lib/lab.js";
import { superDatagrams, transfer } from "../lib/transfer.js";
import { attachedDaemon } from "../netns/world.js";
import { defaultKeyOf, copyKey, drops, quick, reaches } from "./secure.js";

const vnets = [
  { id: 101, level: "auth", suite: "sha1" },
  { id: 102, level: "conf", suite: "sha1" },
  { id: 103, level: "auth", suite: "gcm" },
  { id: 104, level: "conf", suite: "gcm" },
  { id: 105, level: "auth", suite: "gcm256" },
  { id: 106, level: "conf", suite: "gcm256" },
] as const;

/** docs/security.md, "Sizes": the largest guest packet on a device of 1500 bytes */
const largest: Record<4 | 6, Record<string, number>> = {
  4: { "auth sha1": 1406, "conf sha1": 1378, "auth gcm": 1394, "conf gcm": 1394 },
  6: { "auth sha1": 1394, "conf sha1": 1378, "auth gcm": 1382, "conf gcm": 1382 },
};

for (const family of [4, 6] as const) {
  describe(`over IPv${family}`, () => {
    let lab: Lab;
    let a: Host;
    let b: Host;

    beforeAll(async () => {
      execFileSync("modprobe", ["8021q"]);
      lab = await Lab.create();
      const hosts: Host[] = [];
      for (const [index, name] of ["a", "b"].entries()) {
        const underlay = family === 4 ? `10.66.1.${index + 1}/24` : `fd66::${index + 1}/64`;
        const host = await lab.host(name, { underlay });
        await attachedDaemon(host, { config: quick });
        hosts.push(host);
      }
      [a, b] = hosts as [Host, Host];
      await a.vnetd(["key-gen", "--state-dir", a.stateDir]);
      copyKey(defaultKeyOf(a), defaultKeyOf(b));
      const file = lab.file(
        "vnets.yaml",
        vnets
          .map(
            ({ id, level, suite }) =>
              `- id: ${id}\n  bridge: none\n  vnetif: vnif${id}\n  security: ${level}\n  suite: ${suite}\n`,
          )
          .join(""),
      );
      for (const [index, host] of hosts.entries()) {
        await host.vnetd(["vnet-create", file]);
        for (const { id } of vnets)
          await host.exec(
            `ip addr add 10.${id}.0.${index + 1}/24 dev vnif${id} && ` +
              `ip -6 addr add fd98:${id}::${index + 1}/64 dev vnif${id} nodad`,
          );
      }
    });
    afterAll(() => lab.close());

    for (const { id, level, suite } of vnets) {
      it(`${level} ${suite}: pings of both families, and the largest packet to the byte`, async () => {
        await reaches(a, `10.${id}.0.2`);
        const ping = { count: 3, intervalMs: 50 };
        expect((await a.ping(`fd98:${id}::2`, ping)).received).toBe(3);
        const [{ mtu }] = (await a.ip<{ mtu: number }[]>("link", "show", `vnif${id}`)) as [
          { mtu: number },
        ];
        expect(mtu).toBe(largest[family][`${level} ${suite.replace("256", "")}`]);
        const full = { count: 2, intervalMs: 50, sizeBytes: mtu - 28, dontFragment: true };
        expect((await a.ping(`10.${id}.0.2`, full)).received).toBe(2);
      });
    }

    it("TCP and UDP super-frames arrive as they were sent", async () => {
      for (const { id } of [vnets[1], vnets[3]]) {
        await transfer(a, b, `10.${id}.0.2`);
        await transfer(a, b, `fd98:${id}::2`, 500_000);
        const lengths = await superDatagrams(a, b, `10.${id}.0.2`, {
          segmentBytes: 1200,
          superBytes: 12_000,
          times: 5,
        });
        expect(lengths).toEqual(Array.from({ length: 50 }, () => "1200"));
      }
    });

    it("VLANs of guests", async () => {
      for (const [index, host] of [a, b].entries())
        await host.exec(
          "ip link add link vnif104 name tagged type vlan id 5 && ip link set tagged up && " +
            `ip addr add 10.5.0.${index + 1}/24 dev tagged`,
        );
      expect((await a.ping("10.5.0.2", { count: 3, intervalMs: 50 })).received).toBe(3);
    });

    it("nothing of it was refused by the kernel, nor by the programs behind it", async () => {
      for (const host of [a, b]) {
        const refused = Object.entries(await drops(host)).filter(
          ([reason, frames]) => reason.startsWith("esp_") && frames > 0,
        );
        expect(refused).toEqual([]);
      }
    });
  });
}
