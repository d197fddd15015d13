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
import { macFromBytes, macToBytes, type Mac } from "../base/mac.js";
import { vnetIdFromBytes, vnetIdToBytes } from "../base/vnet-id.js";
import { MacBatch } from "../dataplane/control.js";
import { nowNs } from "../dataplane/tables.js";
import { vnetdFdbFlags } from "../generated/layouts.js";
import type { VarpMessage, VarpOpcode } from "../wire/varp.js";
import type { VarpList, VnetMac } from "../wire/varp-list.js";
import type { Context } from "./context.js";
import type { VnetAndMac } from "./mac-sender.js";
import { refuse } from "./refusals.js";
import type { Underlay, Underlays } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

interface From {
  source: string;
  onGroup: boolean;
}

export interface VarpListsParts {
  vnets: Pick<Vnets, "get">;
  underlays: Pick<Underlays, "list">;
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

interface Entry extends VnetMac {
  vnet: Uint8Array;
  running: RunningVnet;
}

export class VarpLists {
  private readonly batch = new MacBatch();

  constructor(
    private readonly context: Context,
    private readonly parts: VarpListsParts,
  ) {}

  onList(underlay: Underlay, message: VarpMessage, list: VarpList, from: From): void {
    const { vnet, vmac, opcode } = message;
    // what is in front is a message by itself
    const others = list.of === "malformed" ? [] : list.entries;
    const here = this.inClear([{ vnet, vmac }, ...others], message);
    if (list.of === "malformed")
      refuse(this.context, here[0]?.running ?? { handle: 0 }, "varp_bad_tlv", message);
    if (opcode === "request") return this.onRequests(here, underlay, message, from.source);
    if (list.of === "macs") return this.onMacs(here, underlay, message, from);
    for (const { running, ...entry } of here)
      this.parts.one(running, underlay, { ...message, ...entry }, from);
  }

  /** Vnets that are not here are others' matter, unless all are. */
  private inClear(entries: readonly VnetMac[], message: VarpMessage): Entry[] {
    const here: Entry[] = [];
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
    entries: readonly Entry[],
    underlay: Underlay,
    message: VarpMessage,
    from: From,
  ): void {
    const [first] = entries;
    if (first === undefined) return;
    const own = this.parts.underlays.list().some(({ state }) => state.address === from.source);
    const isForItself = addressToText(message.address) === from.source;
    const wrong = own
      ? "own_echo"
      : (this.parts.whyNotAt(underlay, message.address) ??
        (isForItself ? undefined : "varp_bad_address"));
    if (wrong !== undefined) return refuse(this.context, first.running, wrong, message);
    const byVnet = new Map<RunningVnet, Uint8Array[]>();
    const single = (vnet: RunningVnet, vmac: Uint8Array): void => {
      const one = { ...message, vnet: vnetIdToBytes(vnet.id), vmac, trailing: new Uint8Array(0) };
      this.parts.one(vnet, underlay, one, from);
    };
    for (const { running, vmac } of entries) {
      if (isDoubtful(vmac)) {
        single(running, vmac);
        continue;
      }
      const macs = byVnet.get(running) ?? [];
      byVnet.set(running, macs);
      macs.push(vmac);
    }
    for (const [vnet, macs] of byVnet)
      for (const vmac of this.enter(vnet, underlay, message, macs)) single(vnet, vmac);
  }

  /** Gives those that live here, the vnetif's own among them, which are left as they are. */
  private enter(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    macs: readonly Uint8Array[],
  ): Uint8Array[] {
    const { slot, handle } = vnet;
    const { ifindex } = underlay;
    const { FDB_ANNOUNCED: fdbFlags } = vnetdFdbFlags;
    const own = macToBytes(vnet.vmac);
    const others = macs.filter((vmac) => !vmac.every((byte, at) => byte === own[at]));
    const left = others.length < macs.length ? [own] : [];
    const now = nowNs();
    for (const vmac of others) this.batch.add(vmac, now);
    const request = { slot, handle, ifindex, fdbFlags, addr: message.address };
    const { entered, reason, here } = this.context.control.learnMany(request, this.batch);
    const isHere = new Set(here);
    const elsewhere = others.filter((_, at) => !isHere.has(at));
    left.push(...others.filter((_, at) => isHere.has(at)));
    if (this.parts.isWaitedFor(vnet))
      for (const vmac of elsewhere) this.parts.heard(vnet, macFromBytes(vmac), reason === "ok");
    this.countRefused(vnet, message, reason, elsewhere.length - entered);
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
function isDoubtful(vmac: Uint8Array): boolean {
  return ((vmac[0] ?? 0) & 1) !== 0 || vmac.every((byte) => byte === 0);
}
