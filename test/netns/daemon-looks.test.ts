// SPDX-License-Identifier: Apache-2.0
/**
 * When the daemon looks at devices: at once when the kernel tells of them, and regularly at what it does not tell of. When
 * exactly is test/unit/looks.test.ts's; here it is whether the daemon does.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { startDaemon } from "./world.js";

let lab: Lab;
let a: Host;

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  // the port of the device that packets in fragments are received by
  const squatter = a.spawn([
    process.execPath,
    "-e",
    'require("dgram").createSocket("udp4").bind(4790, () => console.log("here"))',
  ]);
  await squatter.output(/here/);
  stopSquatter = () => squatter.stop("SIGKILL");
  await startDaemon(a);
  await a.vnetd(["attach", "eth0"]);
});
afterAll(() => lab.close());

let stopSquatter: () => Promise<unknown>;
const problems = async (): Promise<string> =>
  (await a.vnetdJson<StatusInfo>(["status"])).problems.join();

describe("the daemon looks at its devices", () => {
  it("at once, each time the kernel tells of a device or an address", async () => {
    // regular looks are ten seconds apart: too seldom for eight changes that wait for five at most (where time is not stretched;
    // that each news is followed by a look is in unit/looks.test.ts too)
    const changes = [
      ["ip link set eth0 down", /eth0: the device is down/],
      ["ip link set eth0 up", undefined],
      ["ip addr flush dev eth0 scope global", /eth0: the device has no IPv4 address/],
      ["ip addr add 10.66.1.1/24 dev eth0", undefined],
    ] as const;
    for (const [command, problem] of [...changes, ...changes]) {
      await a.exec(command);
      await eventually(
        async () => {
          const now = await problems();
          return problem?.test(now) ?? !now.includes("eth0");
        },
        { timeoutMs: 5000, what: `a look after ${command}` },
      );
    }
  });

  it("regularly, and mends what the kernel tells nothing of", async () => {
    const missing = /packets that come in fragments are not received: .*EADDRINUSE/;
    expect(await problems()).toMatch(missing);
    await stopSquatter();
    await eventually(async () => !missing.test(await problems()), {
      timeoutMs: 15_000,
      what: "a regular look",
    });
    expect((await a.exec("ip -d link show vn-reassembly")).stdout).toMatch(/dstport 4790/);
  });
});
