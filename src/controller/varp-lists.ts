// SPDX-License-Identifier: Apache-2.0
/**
 * Lists that others send (src/wire/varp-list.ts): each entry is judged like a single message, with the same limits and
 * reasons. What is doubtful, as a MAC that lives here, takes the way of single messages; the rest is entered many at a time.
 * A list is of the sender's own MACs, and of vnets in clear: of a secure one nothing in it is vouched for.
 *
 *   onList() -> hello:    its vnets, one by one
 *            -> announce: LEARN_MANY, a vnet at a time
 *            -> request:  one announce of all that live here, to who asked
 */
import { addressToText } from "../base/address.js";
import { macBytes, macFromBytes, macToBytes, type Mac } from "../base/mac.js";
import { vnetIdFromBytes, vnetIdToBytes } from "../base/vnet-id.js";
import { MacBatch } from "../dataplane/control.js";
import { nowNs } from "../dataplane/tables.js";
import { vnetdFdbFlags } from "../generated/layouts.js";
import type { VarpMessage, VarpOpcode } from "../wire/varp.js";
import { entriesOf, type VarpList, type VnetMac, type VnetMacs } from "../wire/varp-list.js";
import type { Context } from "./context.js";
import type { VnetAndMac } from "./mac-sender.js";
import { refuse } from "./refusals.js";
import type { Underlay, Underlays } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

const noMac = new Uint8Array(macBytes);

interface From {
  source: string;
  onGroup: boolean;
}

export interface VarpListsParts {
  vnets: Pick<Vnets, "get">;
  underlays: Pick<Underlays, "isOwnAddress">;
  /** whether it matters at all which MACs others have */
  isWaitedFor: (vnet: RunningVnet) => boolean;
  /** another host has it, and it was entered */
  heard: (vnet: RunningVnet, mac: Mac, isEntered: boolean) => void;
  livesHere: (vnet: RunningVnet, mac: Mac) => boolean;
  mayAnswer: () => boolean;
  message: (
    opcode: VarpOpcode,
    about: readonly VnetAndMac[],
    underlay: Underlay,
  ) => Buffer | undefined;
  /** an announce like any single one */
  one: (vnet: RunningVnet, underlay: Underlay, message: VarpMessage, from: From) => void;
  /** the reason for which nobody is believed to be at this address */
  whyNotAt: (underlay: Underlay, care: Uint8Array) => string | undefined;
}

type Entry = VnetMac & { running: RunningVnet };

export class VarpLists {
  private readonly batch = new MacBatch();

  constructor(
    private readonly context: Context,
    private readonly parts: VarpListsParts,
  ) {}

  onList(underlay: Underlay, message: VarpMessage, list: VarpList, from: From): void {
    const { vnet, vmac, opcode } = message;
    // what is in front is a message by itself
    if (list.of === "macs" && opcode === "announce")
      return this.onMacs([{ vnet, macs: vmac }, ...list.groups], underlay, message, from);
    const here = this.inClear([{ vnet, vmac }, ...entriesOf(list)], message);
    if (list.of === "malformed")
      refuse(this.context, here[0]?.running ?? { handle: 0 }, "varp_bad_tlv", message);
    if (opcode === "request") return this.onRequests(here, underlay, message, from.source);
    for (const { running, ...entry } of here)
      this.parts.one(running, underlay, { ...message, ...entry }, from);
  }

  /** Vnets that are not here are others' matter, unless all are. */
  private inClear<T extends { vnet: Uint8Array }>(
    entries: readonly T[],
    message: VarpMessage,
  ): (T & { running: RunningVnet })[] {
    const here: (T & { running: RunningVnet })[] = [];
    const secure = new Set<RunningVnet>();
    let last: { vnet: Uint8Array; running: RunningVnet | undefined } | undefined;
    for (const entry of entries) {
      if (last?.vnet !== entry.vnet) {
        const { vnet } = entry;
        last = { vnet, running: this.parts.vnets.get(vnetIdFromBytes(vnet))?.running };
      }
      const { running } = last;
      if (running?.secure !== undefined) secure.add(running);
      else if (running !== undefined) here.push({ ...entry, running });
    }
    for (const vnet of secure) refuse(this.context, vnet, "varp_unauthenticated", message);
    if (here.length === 0 && secure.size === 0)
      refuse(this.context, { handle: 0 }, "varp_unknown_vnet", message);
    return here;
  }

  private onMacs(
    groups: readonly VnetMacs[],
    underlay: Underlay,
    message: VarpMessage,
    from: From,
  ): void {
    const here = this.inClear(groups, message);
    const [first] = here;
    if (first === undefined) return;
    const own = this.parts.underlays.isOwnAddress(from.source);
    const isForItself = addressToText(message.address) === from.source;
    const wrong = own
      ? "own_echo"
      : (this.parts.whyNotAt(underlay, message.address) ??
        (isForItself ? undefined : "varp_bad_address"));
    if (wrong !== undefined) return refuse(this.context, first.running, wrong, message);
    const byVnet = new Map<RunningVnet, Uint8Array[]>();
    for (const { running, macs } of here)
      byVnet.set(running, [...(byVnet.get(running) ?? []), macs]);
    for (const [vnet, parts] of byVnet) {
      for (const vmac of this.enter(vnet, underlay, message, parts)) {
        const one = { ...message, vnet: vnetIdToBytes(vnet.id), vmac, trailing: new Uint8Array(0) };
        this.parts.one(vnet, underlay, one, from);
      }
    }
  }

  /** Gives those that are to be looked at one by one: doubtful ones, and what lives here, the vnetif's own MAC among it. */
  private enter(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    parts: readonly Uint8Array[],
  ): Uint8Array[] {
    const { slot, handle } = vnet;
    const { ifindex } = underlay;
    const { FDB_ANNOUNCED: fdbFlags } = vnetdFdbFlags;
    const { batch } = this;
    const left = this.fill(vnet, parts);
    const { count } = batch;
    const request = { slot, handle, ifindex, fdbFlags, addr: message.address };
    const { entered, reason, here } = this.context.control.learnMany(request, batch);
    if (this.parts.isWaitedFor(vnet)) {
      const isHere = new Set(here);
      for (let at = 0; at < count; at += 1)
        if (!isHere.has(at)) this.parts.heard(vnet, macFromBytes(batch.macAt(at)), reason === "ok");
    }
    left.push(...here.map((at) => batch.macAt(at)));
    this.countRefused(vnet, message, reason, count - here.length - entered);
    return left;
  }

  /** Puts into the batch what may be entered many at a time, and gives the rest. */
  private fill(vnet: RunningVnet, parts: readonly Uint8Array[]): Uint8Array[] {
    const own = macToBytes(vnet.vmac);
    const now = nowNs();
    const left: Uint8Array[] = [];
    let hasOwn = false;
    // where the kernel refused the last one they are still there
    this.batch.count = 0;
    for (const macs of parts) {
      for (let at = 0; at < macs.length; at += macBytes) {
        if (isDoubtful(macs, at)) left.push(macs.slice(at, at + macBytes));
        else if (isSame(macs, at, own)) hasOwn = true;
        else this.batch.add(macs, now, at);
      }
    }
    if (hasOwn) left.push(own);
    return left;
  }

  private countRefused(
    vnet: RunningVnet,
    message: VarpMessage,
    reason: string,
    count: number,
  ): void {
    if (reason === "ok") return;
    for (let at = 0; at < count; at += 1) refuse(this.context, vnet, reason, message);
    const host = addressToText(message.address);
    this.context.log.say(
      "announce_refused",
      `announces of ${String(count)} MACs from ${host}: ${reason}`,
      { vnet: vnet.id, host, reason },
    );
  }

  /** What lives here, in one answer: it is no longer than the question. */
  private onRequests(
    entries: readonly Entry[],
    underlay: Underlay,
    message: VarpMessage,
    source: string,
  ): void {
    const { counts } = this.context;
    const here = entries
      .map(({ running, vmac }) => ({ vnet: running, mac: macFromBytes(vmac) }))
      .filter(({ vnet, mac }) => this.parts.livesHere(vnet, mac));
    const [first] = here;
    if (first === undefined) return counts.judged("not_here");
    if (!this.parts.mayAnswer()) return refuse(this.context, first.vnet, "varp_rate", message);
    const answer = this.parts.message("announce", here, underlay);
    if (answer === undefined) return;
    counts.judged("answered");
    underlay.socket?.send(answer, source);
  }
}

/** A group's, or none. */
function isDoubtful(macs: Uint8Array, at: number): boolean {
  return ((macs[at] ?? 0) & 1) !== 0 || isSame(macs, at, noMac);
}

function isSame(macs: Uint8Array, at: number, mac: Uint8Array): boolean {
  for (let n = 0; n < macBytes; n += 1) if (macs[at + n] !== mac[n]) return false;
  return true;
}
