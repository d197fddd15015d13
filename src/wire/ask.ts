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
import { macFromBytes, macToBytes, type Mac } from "../base/mac.js";
import { encodeOne, tlvOf } from "./hello.js";

export const askTokenBytes = 8;

export type Ask =
  /** mac: whether that lives on the host that is asked */
  | { kind: "question"; token: string; byGroup: boolean; mac?: Mac }
  /** isHere: of a question about a MAC, where that may be said */
  | { kind: "answer"; token: string; clockMs: number; isHere?: boolean };

/** `token` is of 16 hex digits. */
export function encodeAsk(ask: Ask): Buffer {
  const isAnswer = ask.kind === "answer";
  const value = encodeVnetdAsk({
    kind: isAnswer ? vnetdAskKind.ASK_ANSWER : vnetdAskKind.ASK_QUESTION,
    flags: flagsOf(ask),
    token: Buffer.from(ask.token, "hex"),
    clock: isAnswer ? BigInt(ask.clockMs) : macBits(ask.mac),
  });
  return encodeOne(vnetdTlvType.TLV_ASK, value);
}

/** undefined: none, or one of a later version. */
export function askOf(trailing: Buffer): Ask | undefined {
  const value = tlvOf(trailing, vnetdTlvType.TLV_ASK);
  if (value === undefined) return undefined;
  const { kind, flags, token: bytes, clock } = decodeVnetdAsk(value);
  const token = Buffer.from(bytes).toString("hex");
  if (kind === vnetdAskKind.ASK_QUESTION) {
    const byGroup = (flags & vnetdAskFlags.ASK_BY_GROUP) !== 0;
    if ((flags & vnetdAskFlags.ASK_MAC) === 0) return { kind: "question", token, byGroup };
    return { kind: "question", token, byGroup, mac: macOf(clock) };
  }
  if (kind !== vnetdAskKind.ASK_ANSWER) return undefined;
  const said = (flags & (vnetdAskFlags.ASK_HERE | vnetdAskFlags.ASK_NOT_HERE)) !== 0;
  const isHere = (flags & vnetdAskFlags.ASK_HERE) !== 0;
  return { kind: "answer", token, clockMs: Number(clock), ...(said ? { isHere } : {}) };
}

function flagsOf(ask: Ask): number {
  const { ASK_BY_GROUP, ASK_MAC, ASK_HERE, ASK_NOT_HERE } = vnetdAskFlags;
  if (ask.kind === "question")
    return (ask.byGroup ? ASK_BY_GROUP : 0) | (ask.mac === undefined ? 0 : ASK_MAC);
  if (ask.isHere === undefined) return 0;
  return ask.isHere ? ASK_HERE : ASK_NOT_HERE;
}

/** In the clock's place: the MAC first. */
function macBits(mac: Mac | undefined): bigint {
  if (mac === undefined) return 0n;
  return BigInt(`0x${Buffer.from(macToBytes(mac)).toString("hex")}`) << 16n;
}

function macOf(bits: bigint): Mac {
  return macFromBytes(Buffer.from((bits >> 16n).toString(16).padStart(12, "0"), "hex"));
}
