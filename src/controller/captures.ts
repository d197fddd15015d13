// SPDX-License-Identifier: Apache-2.0
/**
 * Frames of vnets for who captures them.
 *
 * A guest's frame is told of when it comes, and once more when it is dropped after all; a received one when it is
 * delivered, and once more when its source was refused. So each waits a moment for its second record, which is
 * known by what is in it, and becomes the first one's reason. What was dropped without having been
 * told of is a frame of its own.
 */
import type { CapturedFrame } from "../api/contract.js";
import type { VnetId } from "../base/vnet-id.js";
import { vnetdEventType } from "../generated/layouts.js";
import type { Closable } from "../native/contract.js";
import { droppedFrame, type WatchedPacket } from "./watch-packet.js";
import type { Listener } from "./watch.js";

export interface CaptureOptions {
  id: VnetId;
  snapBytes: number;
}

interface Capture extends CaptureOptions {
  listener: Listener<CapturedFrame>;
}

interface Waiting {
  id: VnetId;
  direction: "encap" | "decap";
  frame: Buffer;
  length: number;
  timeNs: bigint;
  reason: string | undefined;
  untilMs: number;
}

const waitMs = 100;
/** as many wait at most: the oldest are given away then */
const maxWaiting = 4096;
/** so many are looked at for the one that a second record is of */
const lookedBack = 256;

export class Captures {
  private readonly captures = new Set<Capture>();
  private waiting: Waiting[] = [];

  /** `epochNs`: what the kernel's clock since boot lacks of that since 1970. */
  constructor(private readonly parts: { now: () => number; epochNs: () => bigint }) {}

  get size(): number {
    return this.captures.size;
  }

  ids(): Set<VnetId> {
    return new Set([...this.captures].map(({ id }) => id));
  }

  snapBytes(): number {
    return Math.max(0, ...[...this.captures].map((each) => each.snapBytes));
  }

  add(options: CaptureOptions, listener: Listener<CapturedFrame>, gone: () => void): Closable {
    const capture = { ...options, listener };
    this.captures.add(capture);
    return {
      close: () => {
        this.captures.delete(capture);
        gone();
      },
    };
  }

  clear(): void {
    this.captures.clear();
    this.waiting = [];
  }

  onPacket(id: VnetId, packet: WatchedPacket): void {
    const { direction, timeNs } = packet;
    const untilMs = this.parts.now() + waitMs;
    if (packet.type === vnetdEventType.EVENT_FRAME) {
      const { bytes: frame, length } = packet;
      return this.hold({ id, direction, frame, length, timeNs, reason: undefined, untilMs });
    }
    const { frame, frameLength } = droppedFrame(packet);
    if (frame === undefined || frame.length === 0) return;
    const told = this.waiting
      .slice(-lookedBack)
      .reverse()
      .find(
        (each) =>
          each.id === id &&
          each.direction === direction &&
          each.reason === undefined &&
          beginAlike(each.frame, frame),
      );
    const { reason } = packet;
    if (told !== undefined) told.reason = reason;
    else this.hold({ id, direction, frame, length: frameLength, timeNs, reason, untilMs });
  }

  /** Gives away what has waited long enough. */
  tick(): void {
    const now = this.parts.now();
    const first = this.waiting.findIndex(({ untilMs }) => untilMs > now);
    for (const each of this.waiting.splice(0, first < 0 ? this.waiting.length : first))
      this.give(each);
  }

  lost(count: number): void {
    for (const { listener } of this.captures) listener.lost(count);
  }

  private hold(frame: Waiting): void {
    // the record is the ring's own memory no longer: it was copied for us
    this.waiting.push(frame);
    if (this.waiting.length > maxWaiting)
      for (const each of this.waiting.splice(0, maxWaiting / 2)) this.give(each);
  }

  private give({ id, direction, frame, length, timeNs, reason }: Waiting): void {
    for (const capture of this.captures) {
      if (capture.id !== id) continue;
      capture.listener.event({
        timeNs: String(timeNs + this.parts.epochNs()),
        direction,
        bytes: Math.max(length, frame.length),
        data: frame.subarray(0, capture.snapBytes).toString("base64"),
        ...(reason === undefined ? {} : { reason }),
      });
    }
  }
}

/** As far as both are there. */
function beginAlike(one: Buffer, other: Buffer): boolean {
  const length = Math.min(one.length, other.length);
  return one.subarray(0, length).equals(other.subarray(0, length));
}
