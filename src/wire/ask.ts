// SPDX-License-Identifier: Apache-2.0
/**
 * The question whether a packet arrives, and its answer: an extension of VARP as the hello is
 * (include/vnetd/wire.h, docs/wire-format.md). `vnetd doctor` asks; any host of ours answers.
 */
import {
  decodeVnetdAsk,
  encodeVnetdAsk,
  vnetdAskFlags,
  vnetdAskKind,
  vnetdTlvType,
} from "../generated/layouts.js";
import { encodeOne, tlvOf } from "./hello.js";

export const askTokenBytes = 8;

export type Ask =
  | { kind: "question"; token: string; byGroup: boolean }
  | { kind: "answer"; token: string; clockMs: number };

/** `token` is of 16 hex digits. */
export function encodeAsk(ask: Ask): Buffer {
  const isAnswer = ask.kind === "answer";
  const value = encodeVnetdAsk({
    kind: isAnswer ? vnetdAskKind.ASK_ANSWER : vnetdAskKind.ASK_QUESTION,
    flags: !isAnswer && ask.byGroup ? vnetdAskFlags.ASK_BY_GROUP : 0,
    token: Buffer.from(ask.token, "hex"),
    clock: isAnswer ? BigInt(ask.clockMs) : 0n,
  });
  return encodeOne(vnetdTlvType.TLV_ASK, value);
}

/** undefined: none, or one of a later version. */
export function askOf(trailing: Buffer): Ask | undefined {
  const value = tlvOf(trailing, vnetdTlvType.TLV_ASK);
  if (value === undefined) return undefined;
  const { kind, flags, token: bytes, clock } = decodeVnetdAsk(value);
  const token = Buffer.from(bytes).toString("hex");
  if (kind === vnetdAskKind.ASK_QUESTION)
    return { kind: "question", token, byGroup: (flags & vnetdAskFlags.ASK_BY_GROUP) !== 0 };
  if (kind === vnetdAskKind.ASK_ANSWER) return { kind: "answer", token, clockMs: Number(clock) };
  return undefined;
}
