// SPDX-License-Identifier: Apache-2.0
/** What the tests of secure vnets begin with: hosts that share a key, and what the kernel holds of theirs. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { eventually, type DaemonOptions, type Host, type Lab } from "../lib/lab.js";
import type { Method, Params, Result, StatusInfo, VnetParameters } from "../../src/api/contract.js";
import { requestOnce } from "../../src/api/client.js";
import { printKeyFile } from "../../src/base/vnet-key.js";
import { attachedHosts, startDaemon } from "../netns/world.js";

/** hellos every second, so that tests of members need not wait */
export const quick = "helloSeconds: 1\n";

export const defaultKeyOf = (host: Host): string => join(host.stateDir, "keys/default.key");

/** Hosts on one LAN whose default key is one and the same. */
export async function keyedHosts(
  lab: Lab,
  names: readonly string[],
  config: string = quick,
  options: DaemonOptions = {},
): Promise<Host[]> {
  const hosts = await attachedHosts(lab, names, { ...options, config });
  const [first, ...others] = hosts;
  await first!.vnetd(["key-gen", "--state-dir", first!.stateDir]);
  for (const other of others) copyKey(defaultKeyOf(first!), defaultKeyOf(other));
  return hosts;
}

export function copyKey(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true, mode: 0o700 });
  copyFileSync(from, to);
  execFileSync("chmod", ["600", to]);
}

/** An interface vnif98 in vnet 98 with 10.98.0.N and fd98::N on host number N. */
export async function secureVnet(
  hosts: readonly Host[],
  { id = "98", level = "conf", more = [] }: { id?: string; level?: string; more?: string[] } = {},
): Promise<void> {
  for (const [index, host] of hosts.entries()) {
    await host.vnetd(["vnet-create", "-b", "none", "-v", `vnif${id}`, "-s", level, ...more, id]);
    await host.exec(
      `ip addr add 10.${Number(id) % 256}.0.${index + 1}/24 dev vnif${id} && ` +
        `ip -6 addr add fd98:${id}::${index + 1}/64 dev vnif${id} nodad`,
    );
  }
}

/** Pings until one comes back: keys are there. */
export async function reaches(from: Host, address: string): Promise<void> {
  await eventually(
    async () => (await from.ping(address, { count: 1, waitMs: 1000 })).received === 1,
    { timeoutMs: 60_000, what: `an answer of ${address}` },
  );
}

/** By the socket: starting Node takes seconds on an emulated machine. The commands are tested with what they do. */
export async function statusOf({ runDir }: Host): Promise<StatusInfo> {
  return requestOnce({ runDir, answerTimeoutMs: 60_000 }, "status", {});
}

export async function drops(host: Host): Promise<Record<string, number>> {
  const status = await statusOf(host);
  const out: Record<string, number> = {};
  for (const { reason, frames } of status.drops) out[reason] = (out[reason] ?? 0) + frames;
  return out;
}

export async function problems(host: Host): Promise<string> {
  return (await statusOf(host)).problems.join("\n");
}

export interface Sa {
  spi: string;
  mode: string;
  direction?: string;
}

/** What `ip xfrm` shows of SAs, a line each. */
export async function stateLines(host: Host): Promise<string[]> {
  const { stdout } = await host.exec("ip xfrm state");
  return stdout.split("\n").filter((line) => line.includes("proto esp"));
}

export async function spisOf(host: Host): Promise<string[]> {
  return (await stateLines(host)).map((line) => /spi (0x[0-9a-f]+)/.exec(line)?.[1] ?? "").sort();
}

// ---- without commands: starting Node takes seconds on an emulated machine

/** One request by the socket. */
export function ask<M extends Method>(
  { runDir }: Host,
  method: M,
  params: Params<M>,
): Promise<Result<M>> {
  return requestOnce({ runDir, answerTimeoutMs: 120_000 }, method, params);
}

export function writeKey(file: string, secret: Uint8Array): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(file, printKeyFile(secret), { mode: 0o600 });
}

/** As keyedHosts(), at 10.66.1.1, .2 …, attached by their configuration. `secret` is theirs by default. */
export async function quickHosts(
  lab: Lab,
  names: readonly string[],
  { secret, config = quick }: { secret: Uint8Array; config?: string },
): Promise<Host[]> {
  const hosts: Host[] = [];
  for (const [index, name] of names.entries()) {
    const host = await lab.host(name, { underlay: `10.66.1.${index + 1}/24` });
    writeKey(defaultKeyOf(host), secret);
    hosts.push(host);
  }
  await Promise.all(
    hosts.map((host) =>
      startDaemon(host, { config: `${config}attach: [eth0]\n`, readyTimeoutMs: 60_000 }),
    ),
  );
  return hosts;
}

/** As secureVnet(): an interface in no bridge, with 10.ID.0.N on host number N. */
export async function quickVnet(
  hosts: readonly Host[],
  id: string,
  parameters: Partial<VnetParameters> = {},
): Promise<void> {
  for (const [index, host] of hosts.entries()) {
    await ask(host, "vnetCreate", {
      parameters: { id, bridge: "none", vnetif: `vnif${id}`, security: "conf", ...parameters },
    });
    await host.exec(`ip addr add 10.${id}.0.${index + 1}/24 dev vnif${id}`);
  }
}
