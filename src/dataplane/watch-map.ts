// SPDX-License-Identifier: Apache-2.0
/** The maps by which the programs know that somebody looks (struct vnetd_watch in include/vnetd/maps.h). */
import {
  VnetdWatchStats,
  decodeVnetdWatchStats,
  encodeVnetdWatch,
  vnetdWatchKind,
  type VnetdWatch,
} from "../generated/layouts.js";
import type { Native } from "../native/contract.js";
import { range, u32, type Maps } from "./maps.js";

export class WatchMap {
  constructor(
    private readonly native: Native,
    private readonly maps: Maps,
  ) {}

  set(watch: VnetdWatch): void {
    this.native.mapUpdate(this.maps.fd("watch"), u32(0), encodeVnetdWatch(watch));
  }

  /** The programs say nothing from now on. */
  clear(): void {
    this.set({ untilNs: 0n, flags: 0, handle: 0, reason: 0, framesHandle: 0, snap: 0 });
  }

  /** What was not said since the maps were made: of events, and of frames that were captured. */
  lost(): { events: number; frames: number } {
    const of = (kind: number): number => {
      const value = this.native.mapLookup(this.maps.fd("watch_stats"), u32(kind));
      const { paced, full } = decodeVnetdWatchStats(value ?? Buffer.alloc(VnetdWatchStats.size));
      return Number(paced + full);
    };
    const kinds = range(vnetdWatchKind.WATCH_KINDS);
    const frames = of(vnetdWatchKind.WATCH_CAPTURED);
    return { frames, events: kinds.reduce((sum, kind) => sum + of(kind), 0) - frames };
  }
}
