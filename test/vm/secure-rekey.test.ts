// SPDX-License-Identifier: Apache-2.0
/**
 * Traffic keys change without loss: by time, by command, on both sides at once, while control messages are lost,
 * late, doubled and reordered, and while daemons are killed and started; and end at their hard limit when there is
 * no daemon.
 */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, eventually, type Host } from "../lib/lab.js";
import type { PingRun } from "../lib/traffic.js";
import { startDaemon } from "../netns/world.js";
import {
  ask,
  copyKey,
  drops,
  keyedHosts,
  problems,
  quick,
  reaches,
  secureVnet,
  spisOf,
  stateLines,
  writeKey,
} from "./secure.js";

const rekeySeconds = 8;
const configOf = (hardLimitSeconds: number): string =>
  `${quick}keys:\n  rekeySeconds: ${rekeySeconds}\n  drainSeconds: 2\n  hardLimitSeconds: ${hardLimitSeconds}\n`;
/** long: an emulated machine may take most of a minute to start a daemon */
const config = configOf(600);
const shortLimitSeconds = 40;

let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await keyedHosts(lab, ["a", "b"], config)) as [Host, Host];
  await secureVnet([a, b]);
  await reaches(a, "10.98.0.2");
});
afterAll(() => lab.close());

/** The numbers of the answers that did not come; what is still on the way at the end is none of them. */
async function missing(flood: PingRun): Promise<number[]> {
  const { sequences, duplicates } = await flood.stop();
  expect(duplicates).toBe(0);
  const seen = new Set(sequences);
  expect(seen.size).toBeGreaterThan(100);
  return Array.from({ length: Math.max(...sequences) }, (_, at) => at + 1).filter(
    (sequence) => !seen.has(sequence),
  );
}

/** Of the SPIs that were there, none is left, and there is one SA each way. */
async function changed(before: readonly string[]): Promise<void> {
  await eventually(
    async () => {
      const now = await spisOf(a);
      return now.length === 2 && now.every((spi) => !before.includes(spi));
    },
    { timeoutMs: 60_000, what: "other SAs" },
  );
}

describe("under a flood of small packets", () => {
  it("keys change by time, and no packet is lost", async () => {
    const before = await spisOf(a);
    const flood = a.startPing("10.98.0.2", { intervalMs: 5 });
    await changed(before);
    expect(await missing(flood)).toEqual([]);
  });

  it("by command on both sides at once", async () => {
    const before = await spisOf(a);
    const flood = a.startPing("10.98.0.2", { intervalMs: 5 });
    const [said] = await Promise.all([a.vnetd(["rekey", "98"]), b.vnetd(["rekey"])]);
    expect(said.stdout).toMatch(/98/);
    await changed(before);
    expect(await missing(flood)).toEqual([]);
  });
});

/** Frames that the kernel's ESP or the programs refused; both only grow. Key messages that come twice are none. */
async function refused(host: Host): Promise<Record<string, number>> {
  const { stdout } = await host.exec("cat /proc/net/xfrm_stat");
  const lines = [...stdout.matchAll(/^(\w+)\s+(\d+)$/gm)];
  expect(lines.length).toBeGreaterThan(10);
  const kernel: Record<string, number> = {};
  for (const [, name = "", count] of lines) kernel[name] = Number(count);
  const programs = Object.entries(await drops(host)).filter(([name]) => !name.startsWith("keys_"));
  return { ...kernel, ...Object.fromEntries(programs) };
}

describe("under TCP", () => {
  it("keys change, and nothing of the stream is refused anywhere", async () => {
    const before = await spisOf(a);
    const counted = await Promise.all([a, b].map(refused));
    const [tcp] = await Promise.all([
      a.iperf3(b, { address: "10.98.0.2", seconds: 20 }),
      changed(before),
    ]);
    expect(tcp.bytes).toBeGreaterThan(1_000_000);
    expect(await Promise.all([a, b].map(refused))).toEqual(counted);
  });
});

describe("control messages that are lost, late, doubled and out of order", () => {
  const shape = async (host: Host, what: "add" | "del"): Promise<void> => {
    if (what === "del") return void (await host.exec("tc qdisc del dev eth0 root"));
    const netem = "netem loss 30% delay 200ms 150ms duplicate 30% reorder 30%";
    await host.exec(
      "tc qdisc add dev eth0 root handle 1: prio bands 4 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 && " +
        `tc qdisc add dev eth0 parent 1:4 handle 40: ${netem} && ` +
        "tc filter add dev eth0 parent 1: protocol ip u32 match ip protocol 17 0xff match ip dport 1798 0xffff flowid 1:4",
    );
  };

  it("cost no packet of the vnet", async () => {
    for (const host of [a, b]) await shape(host, "add");
    const before = await spisOf(a);
    const flood = a.startPing("10.98.0.2", { intervalMs: 5 });
    await changed(before);
    expect(await missing(flood)).toEqual([]);
    const [{ packets }] = JSON.parse(
      (await a.exec("tc -s -j qdisc show dev eth0 handle 40:")).stdout,
    ) as [{ packets: number }];
    expect(packets).toBeGreaterThan(3);
    for (const host of [a, b]) await shape(host, "del");
  });
});

describe("a daemon", () => {
  it("that is killed and started again replaces its SAs without a lost packet or a key used again", async () => {
    const before = await spisOf(a);
    const flood = a.startPing("10.98.0.2", { intervalMs: 5 });
    await a.killDaemon("SIGKILL");
    expect(await spisOf(a)).toEqual(before);
    await startDaemon(a, { config });
    await changed(before);
    expect(await missing(flood)).toEqual([]);
    expect(await problems(a)).toBe("");
  });

  it("finds that somebody deleted its SAs, and agrees anew", async () => {
    const before = await spisOf(a);
    await a.exec("ip xfrm state flush");
    await reaches(a, "10.98.0.2");
    expect((await spisOf(a)).filter((spi) => before.includes(spi))).toEqual([]);
  });
});

describe("another secret", () => {
  it("is taken over host by host without a lost packet, and the old one is taken no more", async () => {
    const file = lab.file("new.key", "");
    await a.exec(["rm", file]);
    await a.vnetd(["key-gen", file]);
    const flood = a.startPing("10.98.0.2", { intervalMs: 10 });
    const before = await spisOf(a);
    await a.vnetd(["key-rotate", "98", file]);
    await reaches(b, "10.98.0.1");
    const other = `${file}.b`;
    copyKey(file, other);
    await b.vnetd(["key-rotate", "98", other]);
    await changed(before);
    await eventually(
      async () => {
        const lists = await Promise.all(
          [a, b].map((host) => host.exec("cat " + `${host.stateDir}/state.yaml`)),
        );
        return lists.every(({ stdout }) => !stdout.includes("previousKey"));
      },
      { timeoutMs: 120_000, what: "the old key to be gone" },
    );
    expect(await missing(flood)).toEqual([]);
  });
});

describe("a change of secrets that is ended before all have moved", () => {
  it("cuts off who has not, in clear least of all, until it has", async () => {
    const file = `${lab.file("third", "")}.key`;
    writeKey(file, randomBytes(32));
    await ask(a, "keyRotate", { vnet: "98", key: file });
    await reaches(a, "10.98.0.2");
    await ask(a, "keyRotate", { vnet: "98", end: true });
    expect(await stateLines(a)).toEqual([]);
    const capture = await a.capture("eth0", "udp port 1798 or esp");
    const ping = { count: 3, intervalMs: 100, waitMs: 500, sizeBytes: 500 };
    expect((await a.ping("10.98.0.2", ping)).received).toBe(0);
    await capture.stop();
    // hellos and nothing as long as a ping
    expect(capture.packets.filter(({ data }) => data.length > 500)).toEqual([]);
    await ask(b, "keyRotate", { vnet: "98", key: file });
    await reaches(a, "10.98.0.2");
  });
});

describe("without a daemon", () => {
  it("frames go on to the hard limit, and nothing goes then, in clear least of all", async () => {
    const before = await spisOf(a);
    for (const host of [a, b]) {
      await host.killDaemon("SIGKILL");
      await startDaemon(host, { config: configOf(shortLimitSeconds) });
    }
    await changed(before);
    // the limit of what the first daemon agreed on may be near by now
    const first = await spisOf(a);
    await a.vnetd(["rekey", "98"]);
    await changed([...before, ...first]);
    for (const host of [a, b]) await host.killDaemon("SIGKILL");
    expect((await a.ping("10.98.0.2", { count: 3, intervalMs: 100 })).received).toBe(3);
    await eventually(async () => (await stateLines(a)).length === 0, {
      timeoutMs: (shortLimitSeconds + 30) * 1000,
      what: "the SAs' end",
    });
    const capture = await a.capture("eth0", "udp port 1798 or esp");
    expect((await a.ping("10.98.0.2", { count: 5, intervalMs: 100, waitMs: 500 })).received).toBe(
      0,
    );
    await capture.stop();
    // vnets 2, 3 and 4 are in clear, and their interfaces look for routers: the vnet's id is behind the header of 6 bytes
    const isOfVnet = (data: Buffer): boolean =>
      data[23] === 50 || data.length < 64 || data.readUInt16BE(62) === 0x98;
    expect(capture.packets.filter(({ data }) => isOfVnet(data))).toEqual([]);
    // and again with daemons
    for (const host of [a, b]) await startDaemon(host, { config });
    await reaches(a, "10.98.0.2");
    expect((await drops(a))["esp_integrity"] ?? 0).toBe(0);
  });
});
