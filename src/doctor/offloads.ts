// SPDX-License-Identifier: Apache-2.0
/**
 * Offloads: real frames through the encapsulation and back (offload-path.ts), whole, with a checksum to be filled in,
 * and as a super-frame, with the offloads that each attached device has on, and with none. What the device's own
 * hardware does with them is not seen by that: what comes of the kernel, the programs and the driver's promises is.
 */
import { errnoName } from "../host/errno.js";
import type { Native } from "../native/contract.js";
import { Skipped, type Check, type Found } from "./check.js";
import { OffloadPath, type PathFinding, type PathOptions } from "./offload-path.js";

export interface OffloadFacts extends PathOptions {
  /** attached devices that are usable */
  devices: () => string[];
}

/** of the device that packets leave by: what the kernel leaves to it; what costs least to be without first */
const tested = [
  "tx-udp_tnl-segmentation",
  "tx-udp_tnl-csum-segmentation",
  "tx-gso-partial",
  "tx-tcp-mangleid-segmentation",
  "tx-tcp-segmentation",
  "tx-checksum-ip-generic",
] as const;
type Features = Record<(typeof tested)[number], boolean>;
/** any of them is the last of the above */
const checksums = ["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"];
const maxDevices = 8;
/** what takes so long is lost; and where it is known that something is, all trials together end in time */
const waitMs = 5000;
const trialMs = 1500;
/** its devices have names: one test at a time in a network namespace */
const lockName = "vnetd-doctor-offloads";
const noneOf = Object.fromEntries(tested.map((name) => [name, false])) as Features;

export function offloadsCheck(facts: OffloadFacts): Check {
  return { name: "offloads", run: () => look(facts) };
}

async function look(facts: OffloadFacts): Promise<Found[]> {
  const { native } = facts;
  const devices = facts.devices().slice(0, maxDevices);
  if (devices.length === 0) throw new Skipped("no device is usable");
  let lock: number | undefined;
  try {
    lock = native.abstractListen(lockName);
    return await test(facts, devices);
  } catch (error) {
    const why = reasons[errnoName(error)];
    throw why === undefined ? error : new Skipped(why, { cause: error });
  } finally {
    if (lock !== undefined) native.close(lock);
  }
}

/** Why the test cannot be made here, which is no finding about offloads. */
const reasons: Partial<Record<string, string>> = {
  EADDRINUSE: "another vnetd doctor is testing",
  EPERM: "it wants CAP_NET_RAW and the rights of the daemon, as root of the host has",
  EACCES: "it wants CAP_NET_RAW and the rights of the daemon, as root of the host has",
  EAFNOSUPPORT: "there are no packet sockets here",
  ENODEV: "the attached devices are in another network namespace",
};

async function test(facts: OffloadFacts, devices: readonly string[]): Promise<Found[]> {
  const { native } = facts;
  const merging = devices.flatMap((device) => mergesForGood(native, device));
  const path = new OffloadPath(facts);
  try {
    path.open();
    const plain = await path.run(noneOf, waitMs);
    if (plain.length > 0) return [...merging, broken(plain)];
    const found: Found[] = [];
    for (const device of devices) found.push(...(await deviceFound(native, path, device)));
    return [...merging, ...found];
  } finally {
    path.close();
  }
}

async function deviceFound(native: Native, path: OffloadPath, device: string): Promise<Found[]> {
  const features = featuresOf(native, device);
  const wrong = await path.run(features, waitMs);
  const [first] = wrong;
  if (first === undefined) return [];
  const on = tested.filter((name) => features[name]);
  const names = await culprit(path, features, on);
  return [
    {
      level: "problem",
      what: `${device}: frames of vnets break with ${names.join(", ")}`,
      seen: `${seenOf(wrong)}; without it they come through`,
      fix: `ethtool -K ${device} ${names.map((name) => `${name} off`).join(" ")}`,
    },
  ];
}

/** The one without which all is well; all of them where there is no such one. */
async function culprit(
  path: OffloadPath,
  features: Features,
  on: (typeof tested)[number][],
): Promise<string[]> {
  for (const name of on)
    if ((await path.run({ ...features, [name]: false }, trialMs)).length === 0) return [name];
  return on;
}

function broken(wrong: readonly PathFinding[]): Found {
  return {
    level: "problem",
    what: "frames do not come through the encapsulation and back as they went in",
    seen: `${seenOf(wrong)}; with all offloads off`,
    fix: "bpftool net show, and tc filter show: programs or filters for all devices may be in the way; else report it, with uname -a",
  };
}

function seenOf([first, ...more]: readonly PathFinding[]): string {
  if (first === undefined) return "";
  const rest = more.length === 0 ? "" : `, and ${String(more.length)} more`;
  return `the test sent ${first.what}: ${first.wrong}${rest}`;
}

function featuresOf(native: Native, device: string): Features {
  const has = native.featuresGet(device);
  const features = Object.fromEntries(tested.map((name) => [name, has[name] ?? false])) as Features;
  return { ...features, "tx-checksum-ip-generic": checksums.some((name) => has[name] ?? false) };
}

/** Packets that LRO has put together cannot be taken apart again, as what goes into a vnet may have to be. */
function mergesForGood(native: Native, device: string): Found[] {
  if (native.featuresGet(device)["rx-lro"] !== true) return [];
  return [
    {
      level: "warning",
      what: `${device}: it puts packets together that cannot be taken apart again (LRO)`,
      seen: "its feature rx-lro is on",
      fix: `ethtool -K ${device} rx-lro off`,
    },
  ];
}
