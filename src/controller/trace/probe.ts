// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd trace --send`: asks the host that a frame would go to, by questions that any host of ours answers
 * (src/controller/asks.ts): whether it is there, how long that takes, whether it has the MAC, and whether a packet as
 * large as the frame's arrives.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { TraceStep } from "../../api/contract.js";
import { addressToText, familyOfText } from "../../base/address.js";
import { isGroupMac, macToBytes, type Mac } from "../../base/mac.js";
import { isFresh, isLocal, nowNs, pathMtuBytes } from "../../dataplane/tables.js";
import type { AskAnswer, Asks, Question } from "../asks.js";
import type { Context } from "../context.js";
import type { Underlay, Underlays } from "../underlays.js";
import type { RunningVnet } from "../vnets.js";

export interface ProbeParts {
  underlays: Underlays;
  asks: Asks;
}

const tries = 3;
const waitMs = 1000;
const lookMs = 5;
/** a question is no smaller */
const smallestBytes = 200;

interface Target {
  underlay: Underlay;
  address: string;
  mtuBytes: number;
}

export async function probe(
  context: Context,
  parts: ProbeParts,
  { vnet, destination, packetBytes }: { vnet: RunningVnet; destination: Mac; packetBytes: number },
): Promise<TraceStep[]> {
  const target = targetOf(context, parts, { vnet, destination });
  if (typeof target === "string") return [told(`nobody is asked: ${target}`)];
  const { underlay, address: to, mtuBytes } = target;
  const question = { underlay, vnet, to, mac: destination };
  const first = await answered(parts.asks, (onAnswer) => parts.asks.ask({ ...question, onAnswer }));
  if (first === undefined) {
    const text = `${to} does not answer (${String(tries)} questions): it is down, something in between drops UDP, or it is an original`;
    return [told(text)];
  }
  const has =
    first.isHere === undefined
      ? vnet.secure === undefined
        ? "and does not say whether it has the MAC"
        : "of a secure vnet nobody says in clear who is in it"
      : first.isHere
        ? `and has ${destination}`
        : `and does not have ${destination}`;
  const steps = [told(`${to} answers in ${first.ms.toFixed(1)} ms, ${has}`)];
  const bytes = Math.min(mtuBytes, Math.max(smallestBytes, packetBytes));
  steps.push(await large(parts.asks, { ...question, packetBytes: bytes }));
  return steps;
}

function told(text: string): TraceStep {
  return { step: "probe", text };
}

/** A packet that must not be fragmented. */
async function large(
  asks: Asks,
  question: Omit<Question, "onAnswer"> & { to: string; packetBytes: number },
): Promise<TraceStep> {
  const { underlay, to, packetBytes } = question;
  const socket = asks.wholeSocket(underlay, to);
  try {
    const answer = await answered(asks, (onAnswer) => socket.ask({ ...question, onAnswer }));
    const packet = `a packet of ${String(packetBytes)} bytes that must not be fragmented`;
    if (answer !== undefined) return told(`${packet} arrives, ${answer.ms.toFixed(1)} ms`);
    const why = socket.error() === "" ? "and nothing on the way says why" : socket.error();
    return told(`${packet} does not arrive, ${why}: see vnetd doctor, path-mtu`);
  } finally {
    socket.close();
  }
}

/** Asked again until there is an answer; undefined: there is none. */
async function answered(
  asks: Asks,
  ask: (onAnswer: (answer: AskAnswer) => void) => string,
): Promise<(AskAnswer & { ms: number }) | undefined> {
  const tokens: string[] = [];
  const answers: (AskAnswer & { ms: number })[] = [];
  const isWaiting = (): boolean => answers.length === 0;
  for (let at = 0; at < tries && isWaiting(); at += 1) {
    const startMs = performance.now();
    tokens.push(ask((answer) => answers.push({ ...answer, ms: performance.now() - startMs })));
    const untilMs = startMs + waitMs;
    while (isWaiting() && performance.now() < untilMs) await sleep(lookMs);
  }
  for (const token of tokens) asks.forget(token);
  return answers[0];
}

/** The host behind which the MAC is known, or why there is none to ask. */
function targetOf(
  { maps }: Context,
  { underlays }: ProbeParts,
  { vnet, destination }: { vnet: RunningVnet; destination: Mac },
): Target | string {
  if (isGroupMac(destination)) return "the frame is for all; vnetd doctor asks each host";
  const entry = maps.fdbEntry({ handle: vnet.handle, mac: macToBytes(destination) });
  const record = maps.vnet(vnet.slot);
  if (entry === undefined || record === undefined || !isFresh(entry, record, nowNs()))
    return "where the MAC lives is not known";
  if (isLocal(entry)) return "the MAC lives on this host";
  const hop = maps.nexthop(entry.nexthop);
  if (hop === undefined || hop.gen !== entry.gen) return "the host is gone";
  const address = addressToText(hop.key.addr);
  const underlay = underlays.at(hop.key.ifindex, familyOfText(address));
  if (underlay?.socket === undefined) return "the device to it is not usable";
  const host = { ...hop.key, mtuBytes: hop.mtu };
  return { underlay, address, mtuBytes: pathMtuBytes(maps, underlay.state.mtuBytes, host) };
}
