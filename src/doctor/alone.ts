// SPDX-License-Identifier: Apache-2.0
/**
 * What `vnetd doctor` looks at by itself. Where no daemon answers: what the kernel, the mounts and the pinned maps
 * show. And with or without one the test of offloads, for which a daemon under systemd has not the rights (packet
 * sockets).
 */
import { existsSync } from "node:fs";
import path from "node:path";
import type { DoctorReport } from "../api/contract.js";
import { addressToText, isMulticastAddress, type Family } from "../base/address.js";
import type { RunOptions } from "../base/paths.js";
import { openOther } from "../dataplane/generation.js";
import { Hooks } from "../dataplane/hooks.js";
import type { Maps } from "../dataplane/maps.js";
import { objectPathOf } from "../dataplane/object-path.js";
import { vnetdFamily, vnetdLimits, vnetdUnderlayFlags } from "../generated/layouts.js";
import { underlayState } from "../host/underlay-state.js";
import type { Native } from "../native/contract.js";
import { loadNative } from "../native/load.js";
import { runChecks, Skipped, sortFindings, type Check } from "./check.js";
import { bpffsCheck, espCheck, programsCheck } from "./host.js";
import { kernelChecks } from "./kernel.js";
import { kernelLimitChecks } from "./kernel-limits.js";
import { offloadsCheck } from "./offloads.js";
import { underlayChecks, type PlaceView } from "./underlay.js";

const root = "/";

export async function diagnoseAlone(run: RunOptions, why: string): Promise<DoctorReport> {
  const native = loadNative();
  const pinned = openPinned(native, run.bpffs);
  const secure = pinned === undefined ? undefined : pinned.maps.spis().size > 0;
  const host = { native, bpffs: run.bpffs, secure };
  const report = await runChecks([
    daemonCheck(run, why),
    ...kernelChecks({ root }),
    ...kernelLimitChecks({ root }),
    bpffsCheck(host),
    programsCheck(host, objectPathOf()),
    espCheck(host),
    ...(pinned === undefined ? [nothingPinned(run.bpffs)] : pinnedChecks(native, pinned)),
  ]);
  const usable = (pinned === undefined ? [] : placesOf(native, pinned.maps))
    .filter(({ state }) => state.problem === "")
    .map(({ device }) => device);
  return { ...report, devices: [...new Set(usable)] };
}

/** With the check that a daemon has not the rights for. */
export async function withOffloads(report: DoctorReport): Promise<DoctorReport> {
  const { devices } = report;
  if (devices.length === 0) return report;
  const facts = { native: loadNative(), objectPath: objectPathOf(), devices: () => devices };
  const { findings, checks } = await runChecks([offloadsCheck(facts)]);
  const all = [...report.findings, ...findings];
  sortFindings(all);
  return { findings: all, checks: [...report.checks, ...checks], devices };
}

function daemonCheck({ runDir, stateDir }: RunOptions, why: string): Check {
  return {
    name: "daemon",
    run: () => [
      {
        level: "problem",
        what: "no daemon runs: what is attached forwards on, but nobody asks or answers where MACs live",
        seen: why,
        fix: existsSync(path.join(stateDir, "state.yaml"))
          ? `systemctl start vnetd; without systemd: vnetd run --run-dir ${runDir} --state-dir ${stateDir}`
          : "vnetd attach DEVICE, with the device by which this host reaches the others",
      },
    ],
  };
}

function nothingPinned(bpffs: string): Check {
  const run = (): never => {
    throw new Skipped(`nothing is pinned in ${bpffs}`);
  };
  return { name: "underlay", run };
}

interface Pinned {
  maps: Maps;
  dir: string;
}

function openPinned(native: Native, bpffs: string): Pinned | undefined {
  const dir = path.join(bpffs, `layout-${String(vnetdLimits.LAYOUT)}`);
  if (!existsSync(path.join(dir, "underlays"))) return undefined;
  return { maps: openOther(native, dir).maps, dir };
}

function pinnedChecks(native: Native, { maps, dir }: Pinned): Check[] {
  const [first] = maps.underlays();
  // where there is TCX the hook has a pin
  const tcx = first === undefined || hasPin(dir, first.ifindex);
  const hooks = new Hooks(native, dir, tcx ? "tcx" : "clsact");
  const places = (): PlaceView[] => placesOf(native, maps);
  return underlayChecks({ root, native, maps, hooks, places, daemonRuns: false });
}

function hasPin(dir: string, ifindex: number): boolean {
  return existsSync(path.join(dir, `link-${String(ifindex)}-ingress`));
}

/** As they were when the last daemon wrote them down, looked at now. */
function placesOf(native: Native, maps: Maps): PlaceView[] {
  const links = native.linkList();
  const addresses = native.addressList();
  return maps.underlays().map((record) => {
    const family: Family = record.family === vnetdFamily.FAMILY_IPV6 ? 6 : 4;
    const group = addressToText(record.group);
    const device = links.find(({ ifindex }) => ifindex === record.ifindex)?.name;
    const spec = { device: device ?? `ifindex ${String(record.ifindex)}`, family, group };
    const current = addressToText(record.addr);
    const state = underlayState({ ...spec, current }, links, addresses);
    const joins =
      isMulticastAddress(record.group) &&
      (record.flags & vnetdUnderlayFlags.UNDERLAY_NO_GROUP) === 0;
    return { ...spec, joins, state, failure: "" };
  });
}
