// SPDX-License-Identifier: Apache-2.0
/**
 * VARP: answers requests for MACs of this host, announces new ones, asks for unknown ones, and
 * takes in what others announce.
 *
 *   ring `control` -> onControl() -> request: answer | announce: LEARN, hello -> Hellos
 *                                 -> an announce that BPF has entered: Resolver, Ports
 *                                 -> a list (src/wire/varp-list.ts): VarpLists, as so many of them
 *                                 -> LOCAL_NEW: MacSender -> announce to the group
 *                                       an announce of a MAC that stays here -> Troubles
 *   ring `events`  -> onEvent()   -> UNKNOWN_UNICAST: resolver -> request to the group
 *
 * Plain messages of vnets that are not secure are answered and entered in BPF (bpf/lib/varp_here.h). The table is
 * the BPF maps: what is announced is entered by the control program, which keeps the
 * limits. Nothing here trusts a message: addresses are checked, work for each record is bounded,
 * and what is sent is limited in rate.
 */
import { addressToText, familyOf, isHostAddress, isMulticastAddress } from "../base/address.js";
import { isGroupMac, isZeroMac, macFromBytes, macToBytes, type Mac } from "../base/mac.js";
import { vnetIdFromBytes, vnetIdToBytes } from "../base/vnet-id.js";
import { isFresh, isLocal, localEntries, nowNs } from "../dataplane/tables.js";
import { varpEventOf } from "../dataplane/varp-event.js";
import {
  VnetdEventMac,
  VnetdEventPeer,
  decodeVnetdEventMac,
  decodeVnetdEventPeer,
  vnetdControlOp,
  vnetdEventType,
  vnetdExt,
  vnetdFdbFlags,
  vnetdVarpWay,
  type VnetdEventMac as MacEvent,
  type VnetdEventVarp as VarpEvent,
} from "../generated/layouts.js";
import type { BridgeFdbEntry } from "../native/contract.js";
import type { LocalMac } from "../varp/mac-queue.js";
import { Resolver } from "../varp/resolver.js";
import { SenderLimits } from "../varp/sender-limits.js";
import { TokenBucket } from "../varp/token-bucket.js";
import { varpKindOf } from "../wire/hello.js";
import { decodeVarp, encodeVarp, type VarpMessage, type VarpOpcode } from "../wire/varp.js";
import { encodeMacs, listOf } from "../wire/varp-list.js";
import type { Asks } from "./asks.js";
import type { Hellos } from "./hellos.js";
import { nowMs, type Context } from "./context.js";
import { MacSender, type VnetAndMac } from "./mac-sender.js";
import type { Ports } from "./ports.js";
import type { Troubles } from "./troubles.js";
import { refuse } from "./refusals.js";
import type { Peers } from "./peers.js";
import type { Underlay, Underlays } from "./underlays.js";
import type { Security } from "./security.js";
import { VarpLists } from "./varp-lists.js";
import type { RunningVnet, Vnets } from "./vnets.js";

/** A local MAC that was heard less than this ago stays, whoever announces it. */
const silentMs = 1000;
const silentNs = BigInt(silentMs) * 1_000_000n;
/** MACs that another host announced and that were heard here a moment ago, at most. */
const maxDisputes = 1024;
/** The bridges' tables are read at most this often for announces of MACs that live here. */
const bridgeFdbKeptMs = 100;
const answersPerSecond = { perSecond: 2000, burst: 2000 };

export interface VarpParts {
  vnets: Vnets;
  underlays: Underlays;
  hellos: Hellos;
  ports: Pick<Ports, "heardElsewhere" | "hasGuests" | "isAssumed">;
  /** a MAC was heard here that is new, or was elsewhere */
  localNew: (vnet: RunningVnet, mac: Mac) => void;
  troubles: Troubles;
  peers: Peers;
  security: Pick<Security, "onClear" | "onKeyMessage" | "send" | "sendToAll">;
  asks: Pick<Asks, "onAnnounce">;
}

export class VarpService {
  private readonly resolver = new Resolver();
  private readonly announces: MacSender;
  private readonly requests: MacSender;
  private readonly lists: VarpLists;
  private readonly senders = new SenderLimits();
  private readonly answers = new TokenBucket(answersPerSecond);
  /** handle and MAC -> when an announce was not believed, for later */
  private readonly disputes = new Map<string, LocalMac & { atMs: number }>();
  private bridgeFdb: { atMs: number; entries: BridgeFdbEntry[] } | undefined;

  constructor(
    private readonly context: Context,
    private readonly parts: VarpParts,
  ) {
    const { vnets, hellos, underlays } = parts;
    const sender = (opcode: VarpOpcode): MacSender =>
      new MacSender(context, {
        vnets,
        isListed: (vnet) => hellos.readers.reads(vnet),
        send: (about) => this.sendToGroup(opcode, about),
      });
    this.announces = sender("announce");
    this.requests = sender("request");
    this.lists = new VarpLists(context, {
      ...{ vnets, underlays },
      isWaitedFor: () => this.resolver.size > 0 || parts.ports.hasGuests,
      heard: (vnet, mac, isEntered) => {
        parts.ports.heardElsewhere(vnet, mac);
        if (isEntered) this.resolver.resolved(vnet.handle, mac);
      },
      livesHere: (vnet, mac) => this.livesHere(vnet, mac),
      mayAnswer: () => this.answers.take(nowMs()),
      message: (opcode, about, underlay) => this.messageOf(opcode, about, underlay),
      one: (vnet, underlay, message, from) => this.onAnnounce(vnet, underlay, message, from),
      whyNotAt: (underlay, care) => this.whyNotAt(underlay, care),
    });
  }

  /** A record of the ring `control`. */
  onControl(record: Buffer): void {
    const type = record.length >= 4 ? record.readUInt32LE(0) : 0;
    if (type === vnetdEventType.EVENT_VARP) {
      const event = varpEventOf(record);
      if (event !== undefined) this.onVarp(event);
    } else if (type === vnetdEventType.EVENT_LOCAL_NEW && record.length >= VnetdEventMac.size) {
      this.onLocalNew(decodeVnetdEventMac(record));
    }
  }

  /** No message is so long that it comes in fragments, but a question whether those arrive. */
  onFragments(underlay: Underlay, message: Buffer, source: string): void {
    const decoded = decodeVarp(message.subarray(0, vnetdExt.VARP_MAX_LEN));
    if (!decoded.ok || decoded.message.opcode !== "announce") return;
    const vnet = this.parts.vnets.get(vnetIdFromBytes(decoded.message.vnet))?.running;
    if (vnet === undefined) return;
    this.parts.asks.onAnnounce(vnet, underlay, decoded.message, { source, onGroup: false });
  }

  /** A record of the ring `events`. */
  onEvent(record: Buffer): void {
    const type = record.length >= 4 ? record.readUInt32LE(0) : 0;
    if (type === vnetdEventType.EVENT_NOT_PEER && record.length >= VnetdEventPeer.size) {
      this.parts.peers.onStranger(decodeVnetdEventPeer(record));
      return;
    }
    if (record.length < VnetdEventMac.size) return;
    const event = decodeVnetdEventMac(record);
    if (event.type !== vnetdEventType.EVENT_UNKNOWN_UNICAST) return;
    const vnet = this.vnetOf(event);
    const mac = macFromBytes(event.mac);
    if (vnet === undefined || isGroupMac(mac)) return;
    if (this.resolver.wanted(vnet.handle, mac, nowMs())) this.ask(vnet, mac);
  }

  /** Everything that lives here is announced again: an address of ours changed. */
  announceAll(): void {
    const vnets = this.parts.vnets.byHandle();
    for (const { handle, vmac } of localEntries(this.context.maps, vnets)) {
      this.announces.say(handle, vmac);
    }
  }

  /** Asks the group where a MAC lives. */
  ask(vnet: RunningVnet, mac: Mac): void {
    this.requests.say(vnet.handle, mac);
  }

  announce(handle: number, mac: Mac): void {
    this.announces.say(handle, mac);
  }

  /** Whether a MAC lives here and was heard since, or is configured to live here. */
  heardHere(vnet: RunningVnet, mac: Mac, sinceMs: number): boolean {
    const entry = this.localEntry(vnet, mac);
    if (entry === undefined) return false;
    if ((entry.flags & vnetdFdbFlags.FDB_STATIC) !== 0) return true;
    return entry.seenNs > BigInt(sinceMs) * 1_000_000n;
  }

  tick(): void {
    this.resolver.tick(nowMs());
    this.settleDisputes();
  }

  vnetGone(handle: number): void {
    this.resolver.vnetGone(handle);
    this.announces.vnetGone(handle);
    this.requests.vnetGone(handle);
  }

  /** Ports came or went: the bridges' tables are read again. */
  bridgesChanged(): void {
    this.bridgeFdb = undefined;
  }

  close(): void {
    this.announces.close();
    this.requests.close();
    this.parts.hellos.close();
  }

  // ---- local MACs

  private onLocalNew(event: MacEvent): void {
    const vnet = this.vnetOf(event);
    if (vnet === undefined) return;
    const mac = macFromBytes(event.mac);
    this.resolver.resolved(vnet.handle, mac);
    this.parts.localNew(vnet, mac);
    this.announce(vnet.handle, mac);
  }

  // ---- messages

  private onVarp(event: VarpEvent): void {
    const underlay = this.parts.underlays.at(event.ifindex, familyOf(event.source));
    const decoded = decodeVarp(Buffer.from(event.message.subarray(0, event.len)));
    // BPF counted what is malformed; it never gets here.
    if (!decoded.ok || underlay === undefined) return;
    const { message } = decoded;
    if (event.way === vnetdVarpWay.WAY_LEARNED) return this.onLearned(message);
    // an SA speaks for its own vnet alone
    const list = event.way === vnetdVarpWay.WAY_SECURE ? undefined : listOf(message.trailing);
    const source = addressToText(event.source);
    const from = { source, onGroup: isToGroup(event) };
    this.context.counts.message(varpKindOf(message.opcode, message.trailing), () => {
      if (list === undefined) this.onMessage(event, underlay, message);
      else this.lists.onList(underlay, message, list, from);
    });
  }

  /** BPF has entered it and counted it: what waits for an answer waits no longer. */
  private onLearned({ vnet: id, vmac }: VarpMessage): void {
    const vnet = this.parts.vnets.get(vnetIdFromBytes(id))?.running;
    if (vnet === undefined) return;
    const mac = macFromBytes(vmac);
    this.parts.ports.heardElsewhere(vnet, mac);
    this.resolver.resolved(vnet.handle, mac);
  }

  private onMessage(event: VarpEvent, underlay: Underlay, message: VarpMessage): void {
    const vnet = this.parts.vnets.get(vnetIdFromBytes(message.vnet))?.running;
    // BPF counted what is for no vnet; this one is being made or taken away.
    if (vnet === undefined) return this.refused({ handle: 0 }, "vnet_down", message);
    const source = addressToText(event.source);
    const from = { source, onGroup: isToGroup(event) };
    const isDirect = event.way === vnetdVarpWay.WAY_DIRECT;
    if (isDirect && this.parts.asks.onAnnounce(vnet, underlay, message, from)) return;
    if (vnet.secure !== undefined && event.way !== vnetdVarpWay.WAY_SECURE) {
      const bytes = Buffer.from(event.message.subarray(0, event.len));
      return this.parts.security.onClear(vnet, underlay, { message, bytes, ...from });
    }
    const { security } = this.parts;
    if (vnet.secure !== undefined && security.onKeyMessage(vnet, underlay, { message, source }))
      return;
    if (message.opcode === "request") this.onRequest(vnet, underlay, message, source);
    else this.onAnnounce(vnet, underlay, message, from);
  }

  /** Answered from the address announced, to the protocol's port, wherever it was asked from. */
  private onRequest(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    source: string,
  ): void {
    const mac = macFromBytes(message.vmac);
    if (!this.livesHere(vnet, mac)) return this.context.counts.judged("not_here");
    if (!this.answers.take(nowMs())) return this.refused(vnet, "varp_rate", message);
    const answer = this.messageOf("announce", [{ vnet, mac }], underlay);
    if (answer === undefined) return;
    this.context.counts.judged("answered");
    if (vnet.secure === undefined) underlay.socket?.send(answer, source);
    else this.parts.security.send(vnet, underlay.ifindex, source, answer);
  }

  private onAnnounce(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    from: { source: string; onGroup: boolean },
  ): void {
    const { source } = from;
    if (this.parts.underlays.isOwnAddress(source)) return this.refused(vnet, "own_echo", message);
    const isMember = this.parts.hellos.onAnnounce(vnet, underlay, message, from);
    const forItself = addressToText(message.address) === source;
    const mac = macFromBytes(message.vmac);
    const isTaken = this.mayTake(vnet, underlay, message, { mac, source, forItself });
    const noteHeard = isMember && isTaken && forItself;
    if (isTaken) this.learn(vnet, underlay, message, { mac, source, noteHeard });
    const place = { address: source, ifindex: underlay.ifindex };
    if (isMember && !noteHeard) this.parts.hellos.heard(vnet, place);
  }

  /** Whether what is announced is believed. What is not is counted, and said. */
  private mayTake(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    { mac, source, forItself }: { mac: Mac; source: string; forItself: boolean },
  ): boolean {
    const refused = (reason: string): false => {
      this.refused(vnet, reason, message);
      return false;
    };
    const wrong = this.whyNotTaken(vnet, underlay, mac, message.address);
    if (wrong !== undefined) return refused(wrong);
    // a member of a secure vnet speaks for itself alone
    if (vnet.secure !== undefined && !forItself) return refused("varp_bad_address");
    if (!forItself && !this.senders.allowed(source, nowMs())) return refused("varp_rate");
    this.parts.ports.heardElsewhere(vnet, mac);
    if (!this.staysHere(vnet, mac)) return true;
    this.parts.troubles.refused(vnet, mac, addressToText(message.address));
    this.dispute({ handle: vnet.handle, mac });
    return refused("varp_local");
  }

  /** noteHeard: its sender is a member that was heard now, which takes one call of the kernel together. */
  private learn(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    { mac, source, noteHeard }: { mac: Mac; source: string; noteHeard: boolean },
  ): void {
    const { CTL_LEARN, CTL_LEARN_HEARD } = vnetdControlOp;
    const reason = this.context.control.run({
      op: noteHeard ? CTL_LEARN_HEARD : CTL_LEARN,
      slot: vnet.slot,
      handle: vnet.handle,
      ifindex: underlay.ifindex,
      fdbFlags: vnetdFdbFlags.FDB_ANNOUNCED,
      mac: message.vmac,
      addr: message.address,
    });
    if (reason === "ok") return this.resolver.resolved(vnet.handle, mac);
    this.refused(vnet, reason, message);
    const fields = { vnet: vnet.id, host: source, mac, reason };
    this.context.log.say(
      "announce_refused",
      `announce of ${mac} from ${source}: ${reason}`,
      fields,
    );
  }

  /** Why an announce of this MAC at this address is not believed, whoever sends it. */
  private whyNotTaken(
    vnet: RunningVnet,
    underlay: Underlay,
    mac: Mac,
    care: Uint8Array,
  ): string | undefined {
    if (isGroupMac(mac)) return "refused_group_mac";
    if (isZeroMac(mac)) return "varp_bad_address";
    return this.whyNotAt(underlay, care) ?? (mac === vnet.vmac ? "varp_local" : undefined);
  }

  private whyNotAt(underlay: Underlay, care: Uint8Array): string | undefined {
    if (!isHostAddress(care) || this.parts.underlays.isOwnAddress(addressToText(care)))
      return "varp_bad_address";
    // Of the other family only where the device carries that as well: there is no way to it else.
    const isCarried = this.parts.underlays.at(underlay.ifindex, familyOf(care)) !== undefined;
    return isCarried ? undefined : "varp_bad_address";
  }

  private refused(vnet: { handle: number }, reason: string, message: VarpMessage): void {
    refuse(this.context, vnet, reason, message);
  }

  private livesHere(vnet: RunningVnet, mac: Mac): boolean {
    if (mac === vnet.vmac) return true;
    const entry = this.localEntry(vnet, mac);
    return entry !== undefined;
  }

  /** An announce takes a MAC from this host only if its port is gone or it has been silent. */
  private staysHere(vnet: RunningVnet, mac: Mac): boolean {
    const entry = this.localEntry(vnet, mac);
    if (entry === undefined) return false;
    if ((entry.flags & vnetdFdbFlags.FDB_STATIC) !== 0) return true;
    if (nowNs() - entry.seenNs >= silentNs) return false;
    if (this.parts.ports.isAssumed(vnet, mac, entry.seenNs)) return false;
    return vnet.vnif === undefined || vnet.vnif.master === 0 || this.isBehindPort(vnet, mac);
  }

  /** The guest may have moved a moment after it was heard here: who has it is asked when it is silent. */
  private dispute(of: LocalMac): void {
    const key = `${String(of.handle)} ${of.mac}`;
    if (this.disputes.has(key) || this.disputes.size >= maxDisputes) return;
    this.disputes.set(key, { ...of, atMs: nowMs() });
  }

  private settleDisputes(): void {
    const vnets = this.parts.vnets.byHandle();
    for (const [key, { handle, mac, atMs }] of this.disputes) {
      if (nowMs() - atMs < silentMs) continue;
      this.disputes.delete(key);
      const vnet = vnets.get(handle);
      const entry = vnet === undefined ? undefined : this.localEntry(vnet, mac);
      if (vnet === undefined || entry === undefined || this.staysHere(vnet, mac)) continue;
      if (this.resolver.wanted(handle, mac, nowMs())) this.ask(vnet, mac);
    }
  }

  private localEntry(vnet: RunningVnet, mac: Mac): ReturnType<Context["maps"]["fdbEntry"]> {
    const { maps } = this.context;
    const entry = maps.fdbEntry({ handle: vnet.handle, mac: macToBytes(mac) });
    if (entry === undefined || !isLocal(entry)) return undefined;
    const record = maps.vnet(vnet.slot);
    return record?.handle === vnet.handle && isFresh(entry, record, nowNs()) ? entry : undefined;
  }

  private isBehindPort(vnet: RunningVnet, mac: Mac): boolean {
    const now = nowMs();
    if (this.bridgeFdb === undefined || now - this.bridgeFdb.atMs > bridgeFdbKeptMs) {
      this.bridgeFdb = { atMs: now, entries: this.parts.vnets.bridgeFdb() };
    }
    return this.bridgeFdb.entries.some(
      (entry) =>
        entry.mac === mac &&
        entry.master === vnet.vnif?.master &&
        entry.ifindex !== vnet.vnif.ifindex,
    );
  }

  /** About several only what may be said in a list; of a secure vnet it is one. */
  private sendToGroup(opcode: VarpOpcode, about: readonly VnetAndMac[]): void {
    const vnet = about[0]?.vnet;
    if (vnet === undefined) return;
    for (const underlay of this.parts.underlays.speaking()) {
      const message = this.messageOf(opcode, about, underlay);
      if (message === undefined) continue;
      if (vnet.secure !== undefined) this.parts.security.sendToAll(vnet, underlay, message);
      else this.parts.peers.toAll(underlay, message, { handle: vnet.handle, isHello: false });
    }
  }

  private messageOf(
    opcode: VarpOpcode,
    about: readonly VnetAndMac[],
    underlay: Underlay,
  ): Buffer | undefined {
    const address = this.parts.hellos.careOf(underlay);
    const ids = new Map<RunningVnet, Uint8Array>();
    const [head, ...others] = about.map(({ vnet: { id }, vnet, mac }) => {
      const bytes = ids.get(vnet) ?? vnetIdToBytes(id);
      ids.set(vnet, bytes);
      return { vnet: bytes, vmac: macToBytes(mac) };
    });
    if (address === undefined || head === undefined) return undefined;
    this.context.counts.sent.add(opcode);
    const list = others.length === 0 ? undefined : encodeMacs(others);
    return encodeVarp({ opcode, ...head, address }, list);
  }

  /** An event may be older than the vnet that has the slot now. */
  private vnetOf({ handle }: MacEvent): RunningVnet | undefined {
    return this.parts.vnets.byHandle().get(handle);
  }
}

function isToGroup({ way, destination }: VarpEvent): boolean {
  return way === vnetdVarpWay.WAY_DIRECT && isMulticastAddress(destination);
}
