// SPDX-License-Identifier: Apache-2.0
/**
 * Whether multicast is used on a device, and whether it is known to work there.
 *
 * "on" and "off" are what the configuration says. With "auto" multicast is used until it is found not
 * to work: hosts of ours on the same subnet are heard by other ways (they are peers, so they say
 * hello inside VFWD as well), again and again, and nothing was heard on the group for three hello
 * intervals. Hellos go to the group all the time, so that it is noticed when it works again.
 */

export type MulticastSetting = "auto" | "on" | "off";

export type MulticastState =
  /** nothing was heard yet that would tell */
  | "untested"
  /** something was heard on the group */
  | "works"
  /** it does not: everything goes by unicast */
  | "fails"
  | "off";

export interface MulticastOptions {
  setting: MulticastSetting;
  helloMs: number;
}

const silentIntervals = 3;
/** hellos come at the interval give or take a fifth */
const presentIntervals = 1.5;

export class MulticastPolicy {
  private groupMs: number | undefined;
  /** since when, and when last, hosts of the subnet were heard by other ways without a break */
  private otherSinceMs: number | undefined;
  private otherMs = 0;

  constructor(private options: MulticastOptions) {}

  /** What was heard so far is judged by these from now on. */
  configure(options: MulticastOptions): void {
    this.options = options;
  }

  /** Something came by the group. */
  heardOnGroup(nowMs: number): void {
    this.groupMs = nowMs;
    this.otherSinceMs = undefined;
  }

  /** A host of ours on the same subnet was heard, not on the group. */
  heardOtherwise(nowMs: number): void {
    const { helloMs } = this.options;
    const wasPresent = nowMs - this.otherMs < presentIntervals * helloMs;
    if (!wasPresent || this.otherSinceMs === undefined) this.otherSinceMs = nowMs;
    this.otherMs = nowMs;
  }

  state(nowMs: number): MulticastState {
    const { setting, helloMs } = this.options;
    if (setting === "off") return "off";
    const silentMs = silentIntervals * helloMs;
    if (this.groupMs !== undefined && nowMs - this.groupMs <= silentMs) return "works";
    const present = nowMs - this.otherMs < presentIntervals * helloMs;
    const long = this.otherSinceMs !== undefined && nowMs - this.otherSinceMs >= silentMs;
    if (setting === "auto" && present && long) return "fails";
    return this.groupMs === undefined ? "untested" : "works";
  }

  /** Nothing goes to the group but hellos. */
  usesUnicast(nowMs: number): boolean {
    const state = this.state(nowMs);
    return state === "fails" || state === "off";
  }
}
