// SPDX-License-Identifier: Apache-2.0
/**
 * The xfrm interface beside an underlay device, by which packets of secure vnets go to the kernel's
 * ESP and come from it. One for both families and all vnets.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { VnetdError } from "../base/errors.js";
import type { LinkInfo, Native } from "../native/contract.js";
import { errnoName, kernel } from "./errno.js";
import { ifIdOf, prefix6Of } from "./esp-form.js";
import { espAlias, espNameOf } from "./names.js";
import { mustGet, peerMtuBytes, quiet, setFeatures } from "./vnetif.js";

/**
 * What arrives is VUDP, of which GRO merges nothing: looking for what to merge it with would cost each packet. Tunnelled
 * super-frames are segmented on their way in; into packets in one piece, ESP encrypts those in place.
 */
const features = {
  "rx-gro": false,
  "tx-scatter-gather": false,
};

/**
 * To be called when the underlay's MTU has changed as well: IPv6 keeps the largest packet of each
 * destination for ten minutes once it had to refuse one, also when larger ones fit again.
 */
export function ensureEspDevice(native: Native, underlay: LinkInfo): LinkInfo {
  const name = espNameOf(underlay.ifindex);
  let existing = native.linkGet(name);
  if (existing !== undefined && existing.alias !== espAlias) {
    throw new VnetdError("NAME_IN_USE", `${name} is a device that vnetd did not make`, {
      hint: "Remove or rename it.",
    });
  }
  if (existing !== undefined && !fits(existing, underlay)) {
    removeEspDevice(native, existing);
    existing = undefined;
  }
  if (existing === undefined) create(native, underlay);
  return kernel(`setting up ${name}`, () => {
    quiet(native, mustGet(native, name), espAlias);
    setFeatures(native, name, features);
    if (hasIpv6()) routeIpv6(native, mustGet(native, name), underlay);
    return mustGet(native, name);
  });
}

export function removeEspDevice(native: Native, link: LinkInfo): void {
  try {
    kernel(`removing ${link.name}`, () => native.linkDelete(link.ifindex));
  } catch (error) {
    if (native.linkAt(link.ifindex) !== undefined) throw error;
  }
}

/** Whether the kernel has IPv6, in use or not. */
export function hasIpv6(): boolean {
  return existsSync("/proc/net/if_inet6");
}

function fits(link: LinkInfo, underlay: LinkInfo): boolean {
  return link.xfrmIfId === ifIdOf(underlay.ifindex) && link.link === underlay.ifindex;
}

function create(native: Native, { ifindex }: LinkInfo): void {
  const name = espNameOf(ifindex);
  const ifId = ifIdOf(ifindex);
  // packets are as large as the underlay takes, which its route tells
  const options = { name, ifId, lower: ifindex, mtuBytes: peerMtuBytes, alias: espAlias };
  kernel(`making ${name}`, () => {
    try {
      native.linkAddXfrm(options);
    } catch (error) {
      if (errnoName(error) !== "EEXIST") throw error;
      const id = `0x${ifId.toString(16)}`;
      throw new VnetdError("NAME_IN_USE", `another xfrm interface has the if_id ${id}`, {
        ...{ hint: "Remove it: vnetd needs that one.", cause: error },
      });
    }
  });
}

/** IPv4 sends without a route, as the device is given; IPv6 must have one. */
function routeIpv6(native: Native, link: LinkInfo, underlay: LinkInfo): void {
  const file = (device: string): string => `/proc/sys/net/ipv6/conf/${device}/disable_ipv6`;
  // where new devices have none, as in many containers; no address is made by it
  if (readSetting(file(link.name)) === "1" && readSetting(file(underlay.name)) === "0")
    kernel(`IPv6 on ${link.name}`, () => writeFileSync(file(link.name), "0"));
  if (readSetting(file(link.name)) === "1") return;
  const { address, prefixLength } = prefix6Of(underlay.ifindex);
  native.routeSet(link.ifindex, address, prefixLength);
}

function readSetting(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}
