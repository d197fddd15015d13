// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets and their configuration: `vnetd apply` gives a vnet another key without loss, and another level of
 * security anew; `vnetd reload` changes the times of traffic keys that are in use.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ApplyInfo, SecureVnetInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { ask, copyKey, keyedHosts, quick, reaches, statusOf } from "./secure.js";

let lab: Lab;
let a: Host;
let b: Host;

const slow = { timeoutMs: 120_000 };

/** The one vnet of both hosts, applied from a directory of each. */
async function apply(host: Host, parameters: string): Promise<string[]> {
  const directory = join(lab.directory, `vnets-${host.name}`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "v.yaml"), `{id: 98, bridge: none, ${parameters}}\n`);
  const { changes } = await host.vnetdJson<ApplyInfo>(["apply", directory]);
  return changes.map(({ action, note }) => `${action}${note === null ? "" : ` ${note}`}`);
}

async function keysOf(host: Host): Promise<SecureVnetInfo> {
  const [vnet] = await ask(host, "keys", {});
  if (vnet === undefined) throw new Error("no secure vnet");
  return vnet;
}

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await keyedHosts(lab, ["a", "b"])) as [Host, Host];
  const second = join(a.stateDir, "keys/second.key");
  await a.vnetd(["key-gen", second]);
  copyKey(second, join(b.stateDir, "keys/second.key"));
  for (const [host, n] of [
    [a, 1],
    [b, 2],
  ] as const) {
    expect(await apply(host, "security: conf")).toEqual(["create"]);
    await host.exec(`ip addr add 10.98.0.${n}/24 dev vnif0098`);
  }
  await reaches(a, "10.98.0.2");
});
afterAll(() => lab.close());

describe("apply", () => {
  it("gives a vnet another key, host by host, and nothing is lost", async () => {
    const before = await keysOf(a);
    const ping = a.startPing("10.98.0.2", { intervalMs: 100 });
    await eventually(() => ping.answers > 3, slow);
    expect(await apply(a, "security: conf, key: second.key")).toEqual(["change"]);
    expect((await keysOf(a)).previousKeyId).toBe(before.keyId);
    // the same again: the rotation goes on
    expect(await apply(a, "security: conf, key: second.key")).toEqual([]);
    expect(await apply(b, "security: conf, key: second.key")).toEqual(["change"]);
    await eventually(async () => (await keysOf(a)).previousKeyId === null, slow);
    await eventually(async () => (await keysOf(b)).previousKeyId === null, slow);
    const { lost } = await ping.stop();
    expect(lost).toBeLessThanOrEqual(1); // the one that was under way when ping was stopped
    expect((await keysOf(a)).keyId).not.toBe(before.keyId);
    expect(await apply(a, "security: conf, key: second.key")).toEqual([]);
  });

  it("another level begins the vnet anew, with the interface and its address, and never in clear", async () => {
    const capture = await a.capture("eth0", "udp port 1798");
    expect(await apply(a, "security: auth")).toEqual(["remake"]);
    const ping = { count: 3, intervalMs: 100, waitMs: 500 };
    expect((await a.ping("10.98.0.2", ping)).received).toBe(0);
    expect(await apply(b, "security: auth")).toEqual(["remake"]);
    await reaches(a, "10.98.0.2");
    await capture.stop();
    // frames of the vnet; what is announced in clear has another number in front (VARP is 1)
    const isVudp = (data: Buffer): boolean =>
      data[23] === 17 && data.readUInt16BE(42) === 2 && data.readUInt16BE(62) === 0x98;
    expect(capture.packets.filter(({ data }) => isVudp(data))).toHaveLength(0);
    expect((await statusOf(a)).secure).toMatchObject({ vnets: 1, keyed: 1 });
  });
});

describe("reload", () => {
  it("changes traffic keys that are older than the new time, and those of another hard limit", async () => {
    const file = (await statusOf(a)).configuration.file;
    const spis = async (): Promise<string> => (await a.exec("ip xfrm state")).stdout;
    const ping = a.startPing("10.98.0.2", { intervalMs: 100 });
    for (const keys of [
      "{rekeySeconds: 5, drainSeconds: 5}",
      "{rekeySeconds: 3600, hardLimitSeconds: 7200}",
    ]) {
      const before = new Set([...(await spis()).matchAll(/spi (\S+)/g)].map(([, spi]) => spi));
      writeFileSync(file, `${quick}keys: ${keys}\n`);
      await a.vnetd(["reload"]);
      await eventually(async () => {
        const now = [...(await spis()).matchAll(/spi (\S+)/g)].map(([, spi]) => spi);
        return now.length > 0 && now.every((spi) => !before.has(spi));
      }, slow);
    }
    // without -s the times are not shown
    const lifetimes = async (): Promise<string> => (await a.exec("ip -s xfrm state")).stdout;
    await eventually(async () => /hard 7200\(sec\)/.test(await lifetimes()), slow);
    const { lost } = await ping.stop();
    expect(lost).toBeLessThanOrEqual(1);
  });
});
