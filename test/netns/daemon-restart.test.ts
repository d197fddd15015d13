// SPDX-License-Identifier: Apache-2.0
/**
 * A daemon that starts again takes the programs that its predecessor had the kernel check, and nothing passes a
 * device without one meanwhile; one that is of another object, or finds them not whole, loads its own.
 */
import { appendFileSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { loadNative } from "../../src/native/load.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { addressVnet4, attachedHosts, startDaemon } from "./world.js";

const native = loadNative();
const object = resolve(import.meta.dirname, "../../build/bpf/vnetd.bpf.o");
const work = mkdtempSync(join(tmpdir(), "vnetd-restart-"));
let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  await addressVnet4([a, b]);
  await eventually(answers);
});
afterAll(async () => {
  await lab.close();
  rmSync(work, { recursive: true });
});

const answers = async (): Promise<boolean> =>
  (await a.ping("10.4.0.2", { count: 1, waitMs: 500 })).received === 1;

const layout = (): string => join(a.bpffs, "layout-1");
const pinnedDirs = (): string[] =>
  readdirSync(layout()).filter((name) => name.startsWith("programs-"));

function idOf(pin: string): number {
  const fd = native.objectGet(pin);
  try {
    return native.programId(fd);
  } finally {
    native.close(fd);
  }
}

/** By name; and that there is one set of them, with no rest of another. */
function pinned(): Record<string, number> {
  const dirs = pinnedDirs();
  expect(dirs).toHaveLength(1);
  const dir = join(layout(), dirs[0]!);
  return Object.fromEntries(readdirSync(dir).map((name) => [name, idOf(join(dir, name))]));
}

/** What hangs at the devices: pinned links, and filters, of which the older bpftool knows alone. */
async function hooked(): Promise<Set<number>> {
  const shown = await a.exec(["bpftool", "-j", "net", "show"]);
  const [{ tc }] = JSON.parse(shown.stdout) as [{ tc: { prog_id?: number; id?: number }[] }];
  const filters = tc.map(({ prog_id: link, id: filter }) => link ?? filter ?? 0);
  const links = readdirSync(layout()).filter((name) => name.startsWith("link-"));
  return new Set([
    ...filters,
    ...links.map((name) => native.tcxInfo(join(layout(), name)).programId),
  ]);
}

/** Frames flow while the daemon is killed and started again; and it is well then. */
async function restart(env: Record<string, string> = {}): Promise<void> {
  const pinging = a.startPing("10.4.0.2", { intervalMs: 5 });
  await eventually(() => pinging.answers > 20);
  await a.killDaemon("SIGKILL");
  await startDaemon(a, { env });
  const after = pinging.answers;
  await eventually(() => pinging.answers > after + 20);
  expect((await pinging.stop()).lost).toBe(0);
  expect((await a.vnetdJson<StatusInfo>(["status"])).problems).toEqual([]);
  const ids = Object.values(pinned());
  const used = await hooked();
  // of the underlay, helper devices, and both ends of the vnets'
  expect(used.size).toBeGreaterThanOrEqual(6);
  for (const id of used) expect(ids).toContain(id);
}

it("takes the programs that are there, and does all with them", async () => {
  const before = pinned();
  expect(Object.keys(before).length).toBeGreaterThan(10);
  await restart();
  expect(pinned()).toEqual(before);
  // what the daemon has its programs for: requests of the control program, new hooks, dry runs
  await a.vnetd(["vnet-create", "-b", "none", "77"]);
  expect(await hooked()).toContain(before["vnetd_encap_fast"]);
  const traced = await a.vnetd(["trace", "4", await a.mac("vnif0004"), await b.mac("vnif0004")]);
  expect(traced.stdout).toContain("10.66.1.2");
  await a.vnetd(["vnet-delete", "77"]);
});

it("loads those of another object, and keeps these then", async () => {
  const before = pinned();
  const other = join(work, "vnetd.bpf.o");
  copyFileSync(object, other);
  // behind all that is read of it
  appendFileSync(other, "x");
  await restart({ VNETD_BPF_OBJECT: other });
  const loaded = pinned();
  for (const [name, id] of Object.entries(before)) expect(loaded[name]).not.toBe(id);
  await restart({ VNETD_BPF_OBJECT: other });
  expect(pinned()).toEqual(loaded);
  await restart();
  expect(pinned()).not.toEqual(loaded);
});

it("loads them where they are not whole", async () => {
  const before = pinned();
  mkdirSync(join(layout(), "programs-unfinished"));
  rmSync(join(layout(), pinnedDirs()[0]!, "vnetd_decap"));
  await restart();
  const again = pinned();
  expect(Object.keys(again).sort()).toEqual(Object.keys(before).sort());
  expect(again["vnetd_decap"]).not.toBe(before["vnetd_decap"]);
});

it("loads them where they use another map than is pinned", async () => {
  const before = pinned();
  rmSync(join(layout(), "path_news"));
  await restart();
  expect(pinned()["vnetd_encap"]).not.toBe(before["vnetd_encap"]);
});
