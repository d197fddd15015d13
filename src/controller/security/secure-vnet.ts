// SPDX-License-Identifier: Apache-2.0
/**
 * The keys of one secure vnet: an exchange with each host by each place of the underlay, and what comes of it in the
 * kernel (docs/security.md).
 *
 *   a hello that shows the vnet's secret   hint()        -> an exchange begins, unless there are keys
 *   a key message                          keyMessage()  -> the exchange goes on: SAs, or an answer
 *   time                                   tick()        -> repeated, renewed, given up
 *
 * A hello is a hint alone: it may be an old one, repeated by a stranger. Who is a member is shown by the SAs.
 */
import { randomBytes } from "node:crypto";
import type { Family } from "../../base/address.js";
import type { VnetdError } from "../../base/errors.js";
import { vnetIdToBytes, type VnetId } from "../../base/vnet-id.js";
import type { VnetKey } from "../../base/vnet-key.js";
import type { VnetSlot } from "../../dataplane/vnet-table.js";
import type { EspHost } from "../../host/esp.js";
import { wipeEspKeys, type Suite } from "../../keys/esp-keys.js";
import { KeyExchanges, type NotTaken, type Outcome } from "../../keys/exchanges.js";
import { decodeMessage, isAuthentic, secretsOf, type VnetSecrets } from "../../keys/messages.js";
import type { CurrentKeys, KeyAction, KeyTimes } from "../../keys/session.js";
import type { SpiPool } from "../../keys/spi-pool.js";
import type { Place } from "../../varp/members.js";
import type { Context } from "../context.js";
import { pathKey, type Leftover } from "./leftovers.js";
import { SecurePath, type PathEnds } from "./path.js";

/** of both sides' exchanges, which may run at once */
const messagesKnown = 8;
/** so long the first address that a host says hello from is tried, before another one is */
const triedMs = 10_000;

export interface SecureConfig {
  suite: Suite;
  /** the one that the host would rather use first; more than one while a vnet changes its secret */
  keys: readonly VnetKey[];
  /** why the second is not there, where there should be one */
  previousProblem?: VnetdError;
}

/** Where a host was heard. */
export interface Heard {
  place: PlaceOfVnet;
  /** 32 hex digits */
  host: string;
  name: string;
  bootNonce: string;
  address: string;
}

/** A place of the underlay, as an exchange needs it. */
export interface PlaceOfVnet {
  ifindex: number;
  family: Family;
  /** our address there */
  own: string;
}

export interface SecureVnetParts {
  context: Context;
  esp: EspHost;
  spis: SpiPool;
  times: KeyTimes;
  /** a key message leaves: by the SA that there is, or in clear */
  send: (each: KeyedPath, message: Buffer, way: "sa" | "clear") => void;
  /** there are new keys to send with */
  keyed: (path: KeyedPath) => void;
  /** the path of a host that its hellos make the first */
  primaryOf: (handle: number, host: string) => Place | undefined;
  /** whether the host says hello by the SAs of this path */
  isHeard: (handle: number, host: string, ends: PathEnds) => boolean;
  /** for so long a host that says nothing is still there */
  silentMs: () => number;
}

/** A host of the vnet, by one place. */
export interface KeyedPath {
  host: string;
  name: string;
  bootNonce: string;
  path: SecurePath;
  /** what the host took when it was heard last */
  keyIds: readonly string[];
  /** the id of that which exchanges with it begin with */
  wanted: { id: string; sinceMs: number } | undefined;
  keyedAtMs: number;
  /** SAs of a daemon before this one, to be removed when the new ones are in use */
  old: number[];
  oldUntilMs: number | undefined;
  /** since when there are no keys */
  waitingSinceMs: number;
  /** when it said hello last, in clear */
  heardMs: number;
  /** the key messages that were sent last, and how; newest first */
  sent: readonly { message: Buffer; way: "sa" | "clear" }[];
}

interface PlaceKeys extends PlaceOfVnet {
  exchanges: KeyExchanges;
  paths: Map<string, KeyedPath>;
}

export interface KeyMessageResult {
  notTaken: NotTaken | undefined;
  host: string;
  keyId?: string;
  suiteId?: number;
  /** the sender has the secret and is not known here: who asks it to say hello? */
  stranger: boolean;
}

export class SecureVnet {
  private readonly places = new Map<string, PlaceKeys>();
  private secretList: VnetSecrets[];
  private readonly leftovers = new Map<string, Leftover>();
  /** agreements on keys; renewed: of these, those that replaced keys */
  readonly counts = { agreed: 0, renewed: 0, failed: 0 };
  private membersText = "";

  constructor(
    private readonly parts: SecureVnetParts,
    readonly vnet: VnetSlot & { id: VnetId },
    private config: SecureConfig,
  ) {
    this.secretList = this.derive();
  }

  /** At start, before anything is heard: frames go by it until there are new keys. */
  adopt(leftover: Leftover): void {
    this.leftovers.set(pathKey(leftover.ends), leftover);
  }

  get suite(): Suite {
    return this.config.suite;
  }

  get keys(): readonly VnetKey[] {
    return this.config.keys;
  }

  get secrets(): readonly VnetSecrets[] {
    return this.secretList;
  }

  get isBusy(): boolean {
    return [...this.places.values()].some(({ exchanges }) => exchanges.isBusy);
  }

  setKeys(keys: readonly VnetKey[]): void {
    this.config = { ...this.config, keys };
    this.secretList = this.derive();
    for (const { exchanges } of this.places.values()) exchanges.setKeys(keys);
  }

  paths(): KeyedPath[] {
    return [...this.places.values()].flatMap(({ paths }) => [...paths.values()]);
  }

  /** Paths that can be sent by. */
  keyed(): KeyedPath[] {
    return this.paths().filter(({ path }) => path.spiOut !== 0);
  }

  pathTo(ifindex: number, address: string): KeyedPath | undefined {
    return this.paths().find(
      ({ path: { ends } }) => ends.device === ifindex && ends.peer === address,
    );
  }

  // ---- what comes

  /** A host that has the vnet's secret said, now or once, that it is there. */
  hint(heard: Heard, keyIds: readonly string[], nowMs: number): void {
    const place = this.placeOf(heard.place);
    const known = this.entry(place, heard, nowMs);
    if (known === undefined) return;
    const { name, bootNonce } = heard;
    Object.assign(known, { name, bootNonce, keyIds, heardMs: nowMs });
    const wanted = this.wantedKey(known, nowMs);
    if (wanted === undefined) return;
    const current = place.exchanges.sessionOf(heard.host)?.currentKeys(nowMs);
    if (current === undefined) return this.begin(place, heard.host, nowMs, wanted);
    place.exchanges.preferKey(heard.host, wanted);
    // who repeats hellos of before and after by turns must not make SAs faster than they go
    const isOld = current.ageMs >= this.parts.times.drainMs;
    if (current.keyId !== wanted && isOld) this.renew(known, nowMs);
  }

  /** Of the keys that the host named last, the first of ours; not another one so soon after the last change. */
  private wantedKey(known: KeyedPath, nowMs: number): string | undefined {
    const { wanted } = known;
    const id = this.keys.find((each) => known.keyIds.includes(each.id))?.id;
    const isTaken = this.keys.some((each) => each.id === wanted?.id);
    if (wanted !== undefined && isTaken && nowMs - wanted.sinceMs < this.parts.times.drainMs)
      return wanted.id;
    if (id !== undefined && id !== wanted?.id) known.wanted = { id, sinceMs: nowMs };
    return id;
  }

  keyMessage(ofPlace: PlaceOfVnet, source: string, bytes: Buffer, nowMs: number): KeyMessageResult {
    const place = this.placeOf(ofPlace);
    const message = decodeMessage(bytes);
    const host = message?.sender.toString("hex") ?? "";
    if (message !== undefined && place.paths.get(host)?.path.ends.peer !== source) {
      const secrets = this.secrets.find(({ keyId }) => keyId === message.keyId);
      const ours = message.receiver.toString("hex") === this.parts.context.hostId;
      if (secrets !== undefined && ours && isAuthentic(message, secrets.macKey))
        return { notTaken: "no_exchange", host, stranger: true };
    }
    const outcome = place.exchanges.receive(bytes, nowMs);
    this.carryOut(place, outcome, nowMs);
    const { notTaken, keyId, suiteId } = outcome;
    const more = {
      ...(keyId === undefined ? {} : { keyId }),
      ...(suiteId === undefined ? {} : { suiteId }),
    };
    return { notTaken, host, stranger: false, ...more };
  }

  tick(nowMs: number): void {
    for (const place of this.places.values()) {
      for (const { peer, actions } of place.exchanges.tick(nowMs))
        this.carryOut(place, { peer, actions }, nowMs);
      for (const each of [...place.paths.values()]) {
        this.dropOld(each, nowMs);
        if (this.isForgotten(place, each, nowMs)) this.closePath(place, each.host);
      }
    }
  }

  /** There are no keys with it, nor are any being made, and it has long said nothing. */
  private isForgotten(place: PlaceKeys, each: KeyedPath, nowMs: number): boolean {
    const isIdle = place.exchanges.sessionOf(each.host)?.isIdle !== false;
    return each.path.spiOut === 0 && isIdle && nowMs - each.heardMs > this.parts.silentMs();
  }

  /** The configured times are others. anew: there must be keys by them at once */
  timesChanged(nowMs: number, anew: boolean): void {
    for (const { exchanges } of this.places.values()) exchanges.timesChanged(nowMs);
    if (anew) this.rekey(nowMs, nowMs);
  }

  /** New keys with all hosts, made no earlier than `madeSinceMs` if that is given. Says with how many. */
  rekey(nowMs: number, madeSinceMs?: number): number {
    for (const place of this.places.values()) {
      for (const { peer, actions } of place.exchanges.newKeys(nowMs, madeSinceMs))
        this.carryOut(place, { peer, actions }, nowMs);
    }
    return this.keyed().length;
  }

  /** A packet came by an SA that is new. */
  trafficSeen(each: KeyedPath, spi: number, nowMs: number): void {
    const place = this.placeWith(each);
    if (place === undefined) return;
    const actions = place.exchanges.trafficSeen(each.host, spi, nowMs);
    this.carryOut(place, { peer: each.host, actions }, nowMs);
    if (each.old.length === 0 || each.old.includes(spi) || each.oldUntilMs !== undefined) return;
    each.oldUntilMs = nowMs + this.parts.times.drainMs;
  }

  /** So much has gone by the SA that is sent with, or it is lost: new keys. */
  renew(each: KeyedPath, nowMs: number): void {
    const place = this.placeWith(each);
    if (place === undefined) return;
    const actions = place.exchanges.renew(each.host, nowMs);
    this.carryOut(place, { peer: each.host, actions }, nowMs);
  }

  /** Of the generation that is sent with; undefined: there is none. */
  currentKeys(each: KeyedPath, nowMs: number): CurrentKeys | undefined {
    return this.placeWith(each)?.exchanges.sessionOf(each.host)?.currentKeys(nowMs);
  }

  // ---- what goes

  /** The place has another address, or is gone. */
  closePlace({ ifindex, family }: { ifindex: number; family: Family }): void {
    const key = placeKey({ ifindex, family });
    const place = this.places.get(key);
    if (place === undefined) return;
    for (const host of place.paths.keys()) this.closePath(place, host);
    this.places.delete(key);
    this.writeMembers();
  }

  closeOne(each: KeyedPath): void {
    const place = this.placeWith(each);
    if (place === undefined) return;
    this.closePath(place, each.host);
    this.writeMembers();
  }

  /** The kernel has lost what the path was made of, or somebody took it away. */
  restart(each: KeyedPath, nowMs: number): void {
    const place = this.placeWith(each);
    if (place === undefined) return;
    const { host, name, bootNonce, keyIds } = each;
    const { ifindex, family, own } = place;
    const address = each.path.ends.peer;
    this.closePath(place, host);
    this.writeMembers();
    this.hint({ place: { ifindex, family, own }, host, name, bootNonce, address }, keyIds, nowMs);
  }

  close(): void {
    for (const place of [...this.places.values()]) this.closePlace(place);
    for (const leftover of this.leftovers.values()) this.dropLeftover(leftover);
    this.leftovers.clear();
    this.parts.context.maps.setSecureMembers(this.vnet.handle, []);
  }

  /** SAs of a daemon before this one that are gone by themselves. */
  pruneLeftovers(spis: ReadonlySet<number>): void {
    let changed = false;
    for (const [key, leftover] of this.leftovers) {
      leftover.spisIn = leftover.spisIn.filter((spi) => spis.has(spi));
      if (spis.has(leftover.spiOut)) continue;
      this.dropLeftover(leftover);
      this.leftovers.delete(key);
      changed = true;
    }
    if (changed) this.writeMembers();
  }

  /** Whatever was not agreed on by a key that is accepted goes at once, in use or not. */
  evict(nowMs: number): void {
    const accepted = new Set(this.keys.map(({ id }) => id));
    for (const each of this.paths()) {
      const keyId = this.currentKeys(each, nowMs)?.keyId;
      if (keyId === undefined || !accepted.has(keyId)) this.closeOne(each);
    }
    for (const leftover of this.leftovers.values()) this.dropLeftover(leftover);
    this.leftovers.clear();
    this.writeMembers();
  }

  // ---- members, for group frames

  /** By hosts: the path that hellos prefer, or else any with keys. */
  writeMembers(): void {
    const byHost = new Map<string, KeyedPath>();
    for (const each of this.keyed()) {
      const wanted = this.parts.primaryOf(this.vnet.handle, each.host);
      const { ends } = each.path;
      const isWanted = wanted?.address === ends.peer && wanted.ifindex === ends.device;
      if (isWanted || !byHost.has(each.host)) byHost.set(each.host, each);
    }
    const records = [...byHost.values()].map(({ path }) => path.nexthop);
    for (const { nexthop, gen, spiOut } of this.leftovers.values())
      if (spiOut !== 0) records.push({ nexthop, gen });
    const text = JSON.stringify(records);
    if (text === this.membersText) return;
    this.membersText = text;
    this.parts.context.maps.setSecureMembers(this.vnet.handle, records);
  }

  // ---- inside

  private begin(place: PlaceKeys, host: string, nowMs: number, keyId: string): void {
    const outcome = place.exchanges.start(Buffer.from(host, "hex"), nowMs, keyId);
    this.carryOut(place, outcome, nowMs);
  }

  private entry(place: PlaceKeys, heard: Heard, nowMs: number): KeyedPath | undefined {
    const { host, address } = heard;
    const known = place.paths.get(host);
    if (known?.path.ends.peer === address) return known;
    if (known !== undefined) {
      if (this.isKept(known, nowMs)) return undefined;
      this.closePath(place, host);
    }
    const ends = { own: place.own, peer: address, device: place.ifindex };
    const leftover = this.leftovers.get(pathKey(ends));
    const old =
      leftover?.ends.own === place.own
        ? { spiOut: leftover.spiOut, spisIn: leftover.spisIn }
        : { spiOut: 0, spisIn: [] };
    const { context, esp } = this.parts;
    const made: KeyedPath = {
      host,
      name: heard.name,
      bootNonce: heard.bootNonce,
      path: new SecurePath({ context, esp }, this.vnet, this.suite, ends, old),
      ...{ keyIds: [], wanted: undefined },
      keyedAtMs: 0,
      old: old.spisIn,
      oldUntilMs: undefined,
      waitingSinceMs: nowMs,
      heardMs: nowMs,
      sent: [],
    };
    if (leftover !== undefined && leftover.ends.own !== place.own) this.dropLeftover(leftover);
    this.leftovers.delete(pathKey(ends));
    place.paths.set(host, made);
    return made;
  }

  /**
   * A host is known by one address for each place. Another one is taken when there were no keys by the first for a
   * while, or it has not been heard by them for long: it has another address now. A hello that somebody repeats, of
   * where the host once was, must end nothing that works or has just begun.
   */
  private isKept({ path, host, keyedAtMs, waitingSinceMs }: KeyedPath, nowMs: number): boolean {
    if (path.spiOut === 0) return nowMs - waitingSinceMs < triedMs;
    const { isHeard, silentMs } = this.parts;
    // one whose SAs are those of a daemon before this one counts from when it was heard first
    const sinceMs = Math.max(keyedAtMs, waitingSinceMs);
    return isHeard(this.vnet.handle, host, path.ends) || nowMs - sinceMs < silentMs();
  }

  private placeOf({ ifindex, family, own }: PlaceOfVnet): PlaceKeys {
    const key = placeKey({ ifindex, family });
    const known = this.places.get(key);
    if (known?.own === own) return known;
    if (known !== undefined) this.closePlace(known);
    const { context, spis, times } = this.parts;
    const place: PlaceKeys = {
      ...{ ifindex, family, own },
      exchanges: new KeyExchanges(
        {
          vnet: Buffer.from(vnetIdToBytes(this.vnet.id)),
          own: Buffer.from(context.hostId, "hex"),
          suite: this.suite,
          ...{ times, spis, random: randomBytes },
        },
        this.keys,
      ),
      paths: new Map(),
    };
    this.places.set(key, place);
    return place;
  }

  private placeWith(each: KeyedPath): PlaceKeys | undefined {
    return [...this.places.values()].find(({ paths }) => paths.get(each.host) === each);
  }

  /** In order. What the kernel refuses ends the session: it begins anew with the next hello. */
  private carryOut(
    place: PlaceKeys,
    { peer, actions }: Pick<Outcome, "peer" | "actions">,
    nowMs: number,
  ): void {
    const each = place.paths.get(peer);
    let failure: Error | undefined;
    for (const action of actions) {
      if (each === undefined || failure !== undefined) {
        wipe(action);
        continue;
      }
      try {
        this.act(each, action, nowMs);
        if (action.kind === "sendWith") this.takeOver(place, each);
      } catch (error) {
        failure = error instanceof Error ? error : new Error(String(error));
        wipe(action);
      }
    }
    if (failure === undefined) return;
    this.parts.context.log.say(
      "keys_failed",
      `vnet ${this.vnet.id}: keys with ${each?.name ?? peer}: ${failure.message}`,
      { vnet: this.vnet.id, host: peer, reason: failure.message },
    );
    this.closePath(place, peer);
    this.writeMembers();
  }

  private act(each: KeyedPath, action: KeyAction, nowMs: number): void {
    const { path } = each;
    const hardSeconds = Math.ceil(this.parts.times.hardMs / 1000);
    switch (action.kind) {
      case "send":
        this.sendBy(each, action.message);
        return;
      case "receiveWith":
        path.receiveWith(action.spi, action.keys, hardSeconds, this.keys[0]?.id ?? "");
        return;
      case "sendWith": {
        const before = path.spiOut;
        path.sendWith(action.spi, action.keys, hardSeconds);
        this.counts.agreed += 1;
        if (before !== 0) this.counts.renewed += 1;
        if (each.old.length > 0 && before !== 0 && each.keyedAtMs === 0) path.stopSending(before);
        each.keyedAtMs = nowMs;
        this.tell(each, "new keys with");
        return;
      }
      case "stopReceiving":
        path.stopReceiving(action.spi);
        return;
      case "stopSending":
        path.stopSending(action.spi);
        if (path.spiOut !== 0) return;
        each.waitingSinceMs = nowMs;
        this.writeMembers();
        this.tell(each, "no keys any more with");
        return;
      // the next hello begins anew; the other suite is told with the message that said it
      case "gaveUp":
        this.counts.failed += 1;
        return this.tell(each, "no answer about keys from");
      case "otherSuite":
        this.counts.failed += 1;
        return this.tell(each, "another suite than that of");
    }
  }

  private tell({ name, path }: KeyedPath, what: string): void {
    const { handle } = this.vnet;
    this.parts.context.news.tell(() => {
      return { kind: "keys", handle, text: `${what} ${name} (${path.ends.peer})` };
    });
  }

  private sendBy(each: KeyedPath, message: Buffer): void {
    const way = wayOf(each, message);
    const others = each.sent.filter((other) => !other.message.equals(message));
    each.sent = [{ message, way }, ...others].slice(0, messagesKnown);
    this.parts.send(each, message, way);
  }

  /** A host with another id has the address now: it was installed anew. Its keys have taken the old ones' place. */
  private takeOver(place: PlaceKeys, each: KeyedPath): void {
    for (const other of [...place.paths.values()]) {
      if (other === each || other.path.ends.peer !== each.path.ends.peer) continue;
      other.path.handOver();
      this.closePath(place, other.host);
    }
    this.writeMembers();
    this.parts.keyed(each);
  }

  private dropOld(each: KeyedPath, nowMs: number): void {
    if (each.oldUntilMs === undefined || nowMs < each.oldUntilMs) return;
    for (const spi of each.old.splice(0)) each.path.stopReceiving(spi);
    each.oldUntilMs = undefined;
  }

  private closePath(place: PlaceKeys, host: string): void {
    const each = place.paths.get(host);
    const actions = place.exchanges.close(host);
    place.paths.delete(host);
    if (each === undefined) return;
    const quietly = (step: () => void): void => {
      try {
        step();
      } catch (error) {
        this.parts.context.log.say("cleanup_failed", String(error), { vnet: this.vnet.id });
      }
    };
    for (const action of actions) {
      if (action.kind === "stopSending") quietly(() => each.path.stopSending(action.spi));
      if (action.kind === "stopReceiving") quietly(() => each.path.stopReceiving(action.spi));
    }
    if (each.path.spiOut !== 0) quietly(() => each.path.stopSending(each.path.spiOut));
    for (const spi of [...each.path.spisIn]) quietly(() => each.path.stopReceiving(spi));
  }

  private dropLeftover({ ends, nexthop, spiOut, spisIn }: Leftover): void {
    const { esp, context } = this.parts;
    const path = { ...ends, nexthop };
    const { slot, handle } = this.vnet;
    const record = context.maps.nexthop(nexthop);
    if (record?.spi === spiOut && spiOut !== 0)
      context.control.keys({ slot, handle, ifindex: ends.device, addr: record.key.addr, spi: 0 });
    if (spiOut !== 0) esp.removeOut(path, spiOut, true);
    for (const spi of spisIn) {
      esp.removeIn(path, spi);
      context.maps.deleteSpi(spi);
    }
  }

  private derive(): VnetSecrets[] {
    const id = vnetIdToBytes(this.vnet.id);
    return this.keys.map((key) => secretsOf(key.id, key.secret, id));
  }
}

/**
 * New keys are agreed on by the SAs that there are, where nobody can stand in the way by sending more in clear than
 * is looked at. What is repeated goes the other way by turns: a peer that has lost its SAs hears the clear one.
 */
function wayOf({ path, sent }: KeyedPath, message: Buffer): "sa" | "clear" {
  if (path.spiOut === 0) return "clear";
  const before = sent.find((each) => each.message.equals(message));
  return before?.way === "sa" ? "clear" : "sa";
}

function wipe(action: KeyAction): void {
  if (action.kind === "receiveWith" || action.kind === "sendWith") wipeEspKeys(action.keys);
}

function placeKey({ ifindex, family }: { ifindex: number; family: Family }): string {
  return `${String(ifindex)} ${String(family)}`;
}
