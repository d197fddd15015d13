// SPDX-License-Identifier: Apache-2.0
/**
 * Whether frames from an underlay device go through the vnetif's receive merging (GRO).
 *
 * A device that delivers packets at wire size gains much by merging; one that delivers
 * super-frames already (veth with segmentation offload) only loses by it, and so does one that
 * carries small packets, which are not merged and pay for the attempt. The choice is made per
 * device from what was measured, never per packet, which would reorder a flow. Two samples in a
 * row must agree before it changes.
 */
import { vnetdUnderlayFlags, type VnetdUnderlay } from "../generated/layouts.js";

export interface DeviceSample {
  /** totals so far; the other two are among the frames */
  frames: number;
  largeFrames: number;
  superFrames: number;
}

const busyFrames = 2000;
const largeShare = 0.3;
const smallShare = 0.05;
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
    const interval = {
      frames: now.frames - last.frames,
      largeFrames: now.largeFrames - last.largeFrames,
      superFrames: now.superFrames - last.superFrames,
    };
    const wanted = wantedBy(interval, this.merging);
    this.votes = wanted === this.merging ? 0 : this.votes + 1;
    if (this.votes < agreeing) return false;
    this.merging = wanted;
    this.votes = 0;
    return true;
  }
}

function wantedBy({ frames, largeFrames, superFrames }: DeviceSample, present: boolean): boolean {
  const big = largeFrames + superFrames;
  if (frames > busyFrames && big / frames < smallShare) return false;
  if (big > busyFrames / 10 && superFrames / big > mergedShare) return false;
  if (
    largeFrames > busyFrames &&
    superFrames / big < wireShare &&
    largeFrames / frames > largeShare
  )
    return true;
  return present;
}

/** NICs deliver packets at wire size, virtual devices often super-frames. */
export function mergeAtStart(
  policy: "auto" | "on" | "off",
  kind: string,
  adopted: VnetdUnderlay | undefined,
): boolean {
  if (policy !== "auto") return policy === "on";
  if (adopted !== undefined) return (adopted.flags & vnetdUnderlayFlags.UNDERLAY_MERGE) !== 0;
  return kind === "";
}
