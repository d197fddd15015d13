// SPDX-License-Identifier: Apache-2.0
/** A packet as the programs tell of it (struct vnetd_event_packet), and what of it is a guest's frame. */
import {
  VnetdEventPacket,
  decodeVnetdEventPacket,
  directionNames,
  reasonNames,
} from "../generated/layouts.js";
import { readOuter } from "../wire/inner-frame.js";

export interface WatchedPacket {
  type: number;
  handle: number;
  direction: "encap" | "decap";
  /** a name of reasons.h; "ok": it was carried */
  reason: string;
  ifindex: number;
  timeNs: bigint;
  /** of the whole packet, which may be cut */
  length: number;
  /** as it would lie on a wire: with the tag that the kernel keeps beside it */
  bytes: Buffer;
}

const tagBytes = 4;
const macsBytes = 12;

export function watchedPacket(record: Buffer): WatchedPacket | undefined {
  if (record.length < VnetdEventPacket.size) return undefined;
  const { direction, reason, len, kept, vlanProto, vlanTci, ...packet } =
    decodeVnetdEventPacket(record);
  const bytes = record.subarray(VnetdEventPacket.size, VnetdEventPacket.size + kept);
  const isTagged = vlanProto !== 0 && bytes.length >= macsBytes;
  return {
    ...packet,
    direction: directionNames[direction] === "decap" ? "decap" : "encap",
    reason: reasonNames[reason] ?? String(reason),
    length: isTagged ? len + tagBytes : len,
    bytes: isTagged ? withTag(bytes, vlanProto, vlanTci) : bytes,
  };
}

function withTag(bytes: Buffer, proto: number, tci: number): Buffer {
  const tag = Buffer.alloc(tagBytes);
  tag.writeUInt16BE(proto, 0);
  tag.writeUInt16BE(tci, 2);
  return Buffer.concat([bytes.subarray(0, macsBytes), tag, bytes.subarray(macsBytes)]);
}

/** The frame went on, its source was not learned. */
export function isRefused(reason: string): boolean {
  return reason.startsWith("refused_");
}

/** What was dropped: the host that sent it, and the guest's frame, where they can be told. */
export function droppedFrame({ direction, reason, bytes, length }: WatchedPacket): {
  source?: string;
  frame?: Buffer;
  frameLength: number;
} {
  const whole = { frameLength: length, ...(bytes.length >= macsBytes ? { frame: bytes } : {}) };
  if (direction === "encap") return whole;
  const outer = readOuter(bytes);
  // what is delivered has lost its outer headers already
  if (isRefused(reason) && outer?.frameAt === undefined) return whole;
  if (outer === undefined) return { frameLength: length };
  const { source, frameAt } = outer;
  if (frameAt === undefined) return { source, frameLength: length };
  return { source, frame: bytes.subarray(frameAt), frameLength: length - frameAt };
}
