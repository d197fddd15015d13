// SPDX-License-Identifier: Apache-2.0
/**
 * How many IPv4 groups one socket of this network namespace may join. The kernel joins for addresses with autojoin by a
 * single socket of its own, so a host with many vnets that have groups needs more than the 20 that there are by default.
 * Only ever raised: others may have raised it further.
 */
import { readFileSync, writeFileSync } from "node:fs";

export const membershipSetting = "net.ipv4.igmp_max_memberships";
const file = "/proc/sys/net/ipv4/igmp_max_memberships";

/** False: it cannot be had, or is large enough already. */
export function raiseMemberships(least: number): boolean {
  try {
    if (Number(readFileSync(file, "utf8")) >= least) return false;
    writeFileSync(file, String(least));
    return true;
  } catch {
    return false;
  }
}
