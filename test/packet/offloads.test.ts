// SPDX-License-Identifier: Apache-2.0
/**
 * The doctor's own test of offloads: it says that all is well, and it does not when something on the way changes or
 * loses what it sends. It needs the network namespace of the packet tests, for devices of its own names.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { runChecks, type Examination } from "../../src/doctor/check.js";
import { OffloadPath } from "../../src/doctor/offload-path.js";
import { offloadsCheck } from "../../src/doctor/offloads.js";
import type { LoadedObject } from "../../src/native/contract.js";
import { loadNative } from "../../src/native/load.js";
import { BPF_OBJECT } from "../lib/bpf-lab.js";
import { timeFactor } from "../lib/processes.js";

// programs are loaded and checked for each
vi.setConfig({ testTimeout: 60_000 * timeFactor });

const native = loadNative();
const source = fileURLToPath(new URL("fault.bpf.c", import.meta.url));
const ours = ["vn-test0", "vn-test1", "vn-test2", "vn-test3"];
const allOn = {
  "tx-checksum-ip-generic": true,
  "tx-tcp-segmentation": true,
  "tx-udp_tnl-segmentation": true,
};
let work: string;
let faults: LoadedObject;

beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "vnetd-offloads-"));
  const object = join(work, "fault.bpf.o");
  const machine = execFileSync("gcc", ["-dumpmachine"], { encoding: "utf8" }).trim();
  const flags = ["-O2", "-g", "-target", "bpf", `-I/usr/include/${machine}`];
  execFileSync("clang", [...flags, "-c", source, "-o", object]);
  faults = native.objectLoad(object, {});
  // what stands for the device that is attached
  execFileSync("ip", "link add at0 type veth peer name at1".split(" "));
});
afterAll(() => {
  execFileSync("ip", ["link", "delete", "at0"]);
  for (const fd of [...Object.values(faults.programs), ...Object.values(faults.maps)])
    native.close(fd);
  rmSync(work, { recursive: true });
});
beforeEach(() => native.featuresSet("at0", allOn));

/** The check, with a fault where packets arrive. */
function examine(fault?: string): Promise<Examination> {
  const devices = (): string[] => ["at0"];
  const ready = ({ receives }: { receives: number }): void => {
    // in front of the program's own filter
    if (fault !== undefined)
      native.clsactAttach(faults.programs[fault]!, receives, "ingress", 1, 1);
  };
  return runChecks([offloadsCheck({ native, objectPath: BPF_OBJECT, devices, ready })]);
}

it("finds nothing where all is well, and leaves nothing behind", async () => {
  const { findings, checks } = await examine();
  expect(findings).toEqual([]);
  expect(checks).toMatchObject([{ check: "offloads", result: "ok" }]);
  expect(ours.map((name) => native.linkGet(name))).toEqual(ours.map(() => undefined));
});

it("names the feature with which super-frames break", async () => {
  const { findings } = await examine("flip_super");
  expect(findings).toMatchObject([
    {
      level: "problem",
      what: expect.stringMatching(/^at0: frames of vnets break with tx-/u) as string,
      seen: expect.stringContaining("a TCP super-frame: ") as string,
      fix: expect.stringMatching(/^ethtool -K at0 tx-[\w-]+ off$/u) as string,
    },
  ]);
  // what it says to type is what helps
  execFileSync("sh", ["-c", findings[0]!.fix]);
  expect((await examine("flip_super")).findings).toEqual([]);
});

it.each([
  ["changes a byte", "flip_all", "payload is another|checksum is wrong"],
  ["loses what is large", "lose_large", "it is lost"],
])("something that %s whatever the offloads is told from them", async (_what, fault, wrong) => {
  const { findings } = await examine(fault);
  expect(findings).toMatchObject([
    {
      level: "problem",
      what: "frames do not come through the encapsulation and back as they went in",
      seen: expect.stringMatching(wrong) as string,
    },
  ]);
});

it("takes away what a daemon that was killed has left, and nobody else's device", async () => {
  const left = new OffloadPath({ native, objectPath: BPF_OBJECT });
  left.open();
  expect((await examine()).checks).toMatchObject([{ result: "ok" }]);
  execFileSync("ip", "link add vn-test0 type veth peer name at2".split(" "));
  try {
    expect((await examine()).checks).toMatchObject([{ result: "failed" }]);
    expect(native.linkGet("vn-test0")).toBeDefined();
  } finally {
    execFileSync("ip", ["link", "delete", "vn-test0"]);
    left.close();
  }
});
