// SPDX-License-Identifier: Apache-2.0
/** The configured times of keys in the form that the exchanges take, and the volume that ends keys. */
import type { DaemonConfig, KeySettings } from "../config/daemon-config.js";
import { defaultTimes, type KeyTimes } from "../keys/session.js";

export function keyTimesOf({
  rekeySeconds,
  hardLimitSeconds,
  drainSeconds,
}: KeySettings): KeyTimes {
  return {
    ...defaultTimes,
    rekeyMs: rekeySeconds * 1000,
    hardMs: hardLimitSeconds * 1000,
    drainMs: drainSeconds * 1000,
  };
}

/** Whether so much went by one SA that it is time for new keys. */
export function isWornOut(
  { rekeyMegabytes, rekeyPackets }: KeySettings,
  { packets, bytes }: { packets: number | bigint; bytes: number | bigint },
): boolean {
  return Number(bytes) >= rekeyMegabytes * (1 << 20) || Number(packets) >= rekeyPackets;
}

/** After so long a host that says no hello is not there. */
export function silentMsOf({ helloSeconds }: Pick<DaemonConfig, "helloSeconds">): number {
  return 3 * helloSeconds * 1000;
}
