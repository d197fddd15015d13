// SPDX-License-Identifier: Apache-2.0
/**
 * Whether frames from an underlay device go through the vnetif's receive merging (GRO).
 *
 * A device that delivers packets at wire size gains much by merging; one that delivers
 * super-frames already (veth with segmentation offload) only loses by it. The choice is made per
 * device from what was measured, never per packet, which would reorder a flow. Two samples in a
 * row must agree before it changes.
 */
export interface DeviceSample {
  /** totals so far */
  largeFrames: number;
  superFrames: number;
}

const busyLargeFrames = 2000;
const wireShare = 0.1;
const mergedShare = 0.5;
const agreeing = 2;

export class MergePolicy {
  private last: DeviceSample | undefined;
  private votes = 0;

  constructor(private merging: boolean) {}

  get merge(): boolean {
    return this.merging;
  }

  /** One sample an interval; true when the choice changed. */
  sample(now: DeviceSample): boolean {
    const last = this.last;
    this.last = now;
    if (last === undefined) return false;
    const large = now.largeFrames - last.largeFrames;
    const merged = now.superFrames - last.superFrames;
    const wanted = wantedBy(large, merged, this.merging);
    this.votes = wanted === this.merging ? 0 : this.votes + 1;
    if (this.votes < agreeing) return false;
    this.merging = wanted;
    this.votes = 0;
    return true;
  }
}

function wantedBy(large: number, merged: number, present: boolean): boolean {
  const total = large + merged;
  if (total <= 0) return present;
  if (large > busyLargeFrames && merged / total < wireShare) return true;
  if (total > busyLargeFrames / 10 && merged / total > mergedShare) return false;
  return present;
}
