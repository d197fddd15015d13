// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets: devices, keys and messages (docs/security.md).
 *
 *   sync()        the xfrm interfaces are there while there is a secure vnet, and only then
 *   onClear()     what came for a secure vnet outside of its SAs: hellos and key messages; all else is refused
 *   onKeyMessage()  by an SA or in clear
 *   send…()       what leaves for a secure vnet: by its SAs, and signed hellos in clear
 *   tick()        exchanges; every few seconds what the kernel counts of its SAs
 *   problems()    which hosts differ in level, suite or key, and with whom there are no keys
 */
import { randomBytes } from "node:crypto";
import type { SecureVnetInfo, StatusInfo } from "../api/contract.js";
import { addressToText, familyOfText, parseAddress, type Family } from "../base/address.js";
import { VnetdError } from "../base/errors.js";
import { macToBytes } from "../base/mac.js";
import { vnetIdToBytes, type VnetId } from "../base/vnet-id.js";
import { EspHost } from "../host/esp.js";
import { signHello, verifyHello } from "../keys/hello-auth.js";
import { suites, type Suite } from "../keys/esp-keys.js";
import { SpiPool } from "../keys/spi-pool.js";
import { TokenBucket } from "../varp/token-bucket.js";
import { decodeHello, encodeKeyMessage, keyMessageOf, type Hello } from "../wire/hello.js";
import { securePacket } from "../wire/secure-packet.js";
import { encodeVarp, type VarpMessage } from "../wire/varp.js";
import type { DaemonConfig } from "../config/daemon-config.js";
import type { KeyTimes } from "../keys/session.js";
import { keyTimesOf, silentMsOf } from "./key-times.js";
import { placeOf, slotOf } from "./security/places.js";
import { nowMs, type Context } from "./context.js";
import type { Member, Place } from "../varp/members.js";
import { onSubnetOf } from "./peer-places.js";
import type { Peers } from "./peers.js";
import { notSent, refuse } from "./refusals.js";
import { Differences } from "./security/differences.js";
import { EspDevices } from "./security/esp-devices.js";
import { secureVnetInfo } from "./security/key-views.js";
import { Rotations } from "./security/rotations.js";
import { takeLeftovers, type Leftover } from "./security/leftovers.js";
import { keyReasons } from "./security/key-reasons.js";
import { named } from "./security/named.js";
import type { PathEnds } from "./security/path.js";
import { SaWatch } from "./security/sa-watch.js";
import { SecureVnet, type KeyedPath } from "./security/secure-vnet.js";
import type { Underlay, Underlays } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export interface SecurityParts {
  vnets: Vnets;
  underlays: Underlays;
  peers: Peers;
  /** a hello of this host, unsigned; undefined: the place has no address */
  hello: (vnet: RunningVnet, kind: "plain" | "solicit", underlay: Underlay) => Buffer | undefined;
  membersOf: (handle: number) => readonly Member[];
  /** a hello that names this host's id */
  ownId: (hello: Hello, underlay: Underlay, source: string) => void;
  /** all hosts have moved to the new key of the vnet */
  rotated: (id: VnetId) => void;
}

export interface KeyMessageFrom {
  message: VarpMessage;
  source: string;
}

/** A message for a secure vnet that did not come by an SA. */
export interface ClearMessage extends KeyMessageFrom {
  /** all of it, as it came */
  bytes: Buffer;
  onGroup: boolean;
}

const busyTickMs = 100;
const idleTickMs = 1000;
/** how long no keys with a host is no trouble yet */
const patienceMs = 10_000;
const answersPerSecond = { perSecond: 50, burst: 100 };
/** who has sent a key message of a member, from an address that is not known: perhaps a repeated one */
const strangersPerSecond = { perSecond: 5, burst: 10 };

export class Security {
  private readonly esp: EspHost;
  private readonly spis = new SpiPool(randomBytes);
  private readonly vnets = new Map<number, SecureVnet>();
  private readonly devices: EspDevices;
  private readonly differences: Differences;
  private readonly rotations: Rotations;
  private readonly answers = new TokenBucket(answersPerSecond);
  private readonly strangers = new TokenBucket(strangersPerSecond);
  private timer: NodeJS.Timeout | undefined;
  private dueMs = 0;
  private readonly watch: SaWatch;
  /** all exchanges have this one: it changes with the configuration */
  private readonly times: KeyTimes;

  constructor(
    private readonly context: Context,
    private readonly parts: SecurityParts,
  ) {
    this.esp = new EspHost(context.native);
    this.devices = new EspDevices(context, this.esp);
    this.watch = new SaWatch(context, this.esp);
    this.times = keyTimesOf(context.config.keys);
    this.differences = new Differences(silentMsOf(context.config));
    const isMember = (handle: number, host: string): boolean =>
      parts.membersOf(handle).some(({ hostId }) => hostId === host);
    this.rotations = new Rotations({
      patienceMs: () => silentMsOf(context.config),
      isMember,
    });
  }

  /** The configuration has other times. A new hard limit is for new keys, so all are changed. */
  configChanged(before: DaemonConfig): void {
    const { config } = this.context;
    this.differences.keptMs = silentMsOf(config);
    Object.assign(this.times, keyTimesOf(config.keys));
    const anew = config.keys.hardLimitSeconds !== before.keys.hardLimitSeconds;
    for (const each of this.vnets.values()) each.timesChanged(nowMs(), anew);
    this.schedule();
  }

  /** Why this host cannot have secure vnets, or undefined. */
  unavailable(suite: Suite): string | undefined {
    return this.esp.problem(suite);
  }

  // ---- start, devices, stop

  /** After vnets and devices are there: takes over what an earlier daemon left, and removes what nobody needs. */
  start(): void {
    const { maps, log } = this.context;
    const secure = new Map(this.secureVnets().map((vnet) => [vnet.handle, slotOf(vnet)]));
    // a host that never had a secure vnet is not asked for its SAs: the kernel may have none
    if (this.devices.areThere() || maps.spis().size > 0 || secure.size > 0) {
      try {
        for (const leftover of takeLeftovers(this.context, this.esp, secure)) this.adopt(leftover);
        for (const spi of maps.spis().keys()) this.spis.reserve(spi);
        this.esp.removeAll(this.wantedDevices());
      } catch (error) {
        log.say("sas_unread", `SAs of an earlier daemon: ${String(error)}`);
      }
    }
    this.sync();
    this.schedule();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  /** The interfaces are what vnets and devices want. */
  sync(): void {
    if (this.devices.become(this.wantedDevices())) this.parts.underlays.rewriteRecords();
  }

  /** ifindex of the interface that secure vnets leave by at this place; 0: there is none */
  espOf({ ifindex }: { ifindex: number }): number {
    return this.devices.at(ifindex);
  }

  /** Whose hooks are to stay. */
  hooked(): { ifindex: number; device: string }[] {
    return this.devices.hooked();
  }

  vnetGone({ handle }: RunningVnet): void {
    const secure = this.vnets.get(handle);
    if (secure !== undefined) this.forget(handle, secure);
  }

  all(): SecureVnet[] {
    return [...this.vnets.values()];
  }

  private forget(handle: number, secure: SecureVnet): void {
    this.vnets.delete(handle);
    this.rotations.vnetGone(handle);
    this.differences.vnetGone(handle);
    secure.close();
  }

  placeUsable(underlay: Underlay): void {
    this.sync();
    // one with another address: what was agreed on was for the one before
    for (const each of this.vnets.values()) {
      const stale = each
        .paths()
        .some(
          ({ path: { ends } }) =>
            ends.device === underlay.ifindex &&
            familyOfText(ends.own) === underlay.family &&
            ends.own !== underlay.state.address,
        );
      if (stale) each.closePlace(underlay);
    }
  }

  placeGone(place: { ifindex: number; family: number }): void {
    const gone = { ifindex: place.ifindex, family: place.family as Family };
    for (const each of this.vnets.values()) each.closePlace(gone);
  }

  /** The host by that address has left the vnet, as it says by its SA. */
  left(vnet: RunningVnet, { ifindex }: { ifindex: number }, address: string): void {
    const secure = this.vnets.get(vnet.handle);
    const path = secure?.pathTo(ifindex, address);
    if (path !== undefined) secure?.closeOne(path);
  }

  /** A peer is none any more: what was agreed on with it goes, unless it is a neighbour as well. */
  peerGone(address: string): void {
    if (this.parts.underlays.usable().some((each) => onSubnetOf(each, address))) return;
    for (const secure of this.vnets.values()) {
      for (const each of secure.paths()) if (each.path.ends.peer === address) secure.closeOne(each);
    }
  }

  /** Hellos changed who is a host's first path, in these vnets. */
  membersChanged(handles: ReadonlySet<number>): void {
    for (const handle of handles) this.vnets.get(handle)?.writeMembers();
  }

  // ---- what leaves

  /** A hello that goes in clear, or undefined where there is nothing to sign it with. */
  signed(vnet: RunningVnet, message: Buffer): Buffer {
    const secure = this.of(vnet);
    return secure === undefined ? message : signHello(message, secure.secrets, secure.suite.id);
  }

  /** By the SA of one path. False: there is none, and it was counted. */
  send(vnet: RunningVnet, ifindex: number, address: string, message: Buffer): boolean {
    const path = this.of(vnet)?.pathTo(ifindex, address);
    if (path === undefined || path.path.spiOut === 0) {
      notSent(this.context, vnet, "no_keys", message.length);
      return false;
    }
    this.sendBy(path, message);
    return true;
  }

  /** By the SAs of all hosts that are reached by this place. */
  sendToAll(vnet: RunningVnet, underlay: Underlay, message: Buffer): void {
    for (const each of this.of(vnet)?.keyed() ?? []) {
      const { device, peer } = each.path.ends;
      if (device === underlay.ifindex && familyOfText(peer) === underlay.family)
        this.sendBy(each, message);
    }
  }

  /** False: it was not taken. */
  private sendBy({ path }: KeyedPath, message: Buffer): boolean {
    const { device, peer } = path.ends;
    const family = familyOfText(peer);
    const { nexthop } = path.nexthop;
    const { port } = this.context.config;
    const esp = this.espOf({ ifindex: device });
    if (esp === 0) return false;
    const packet = securePacket({ family, device, nexthop, port }, message);
    return this.context.control.sendSecure(esp, packet);
  }

  // ---- what comes in clear

  /** By an SA or in clear: whether it is about keys; what it says is authentic by itself or not taken. */
  onKeyMessage(vnet: RunningVnet, underlay: Underlay, from: KeyMessageFrom): boolean {
    const { message, source } = from;
    const bytes = keyMessageOf(Buffer.from(message.trailing));
    if (message.opcode !== "announce" || bytes === undefined) return false;
    const secure = this.of(vnet);
    const place = placeOf(underlay);
    if (secure === undefined || place === undefined) {
      refuse(this.context, vnet, "keys_unknown_key", message);
      return true;
    }
    const result = secure.keyMessage(place, source, bytes, nowMs());
    this.schedule();
    if (result.stranger && this.strangers.take(nowMs()))
      this.sayHello(vnet, "solicit", underlay, source);
    if (result.notTaken === undefined) return true;
    refuse(this.context, vnet, keyReasons[result.notTaken], message);
    if (result.notTaken === "other_suite" && result.suiteId !== undefined)
      this.otherSuite(vnet, result.host, source, result.suiteId);
    return true;
  }

  onClear(vnet: RunningVnet, underlay: Underlay, clear: ClearMessage): void {
    if (this.onKeyMessage(vnet, underlay, clear)) return;
    const decoded = decodeHello(Buffer.from(clear.message.trailing));
    if (clear.message.opcode !== "announce" || !decoded.ok)
      return this.unauthenticated(vnet, clear);
    this.onHint(vnet, underlay, clear, decoded.hello);
  }

  /** A hello of a secure vnet came for one that is not: neither takes the other's frames. */
  onSecureHello(vnet: RunningVnet, hello: Hello, source: string): void {
    const level = suites.find(({ id }) => id === hello.auth?.[0]?.suiteId)?.level ?? "secure";
    this.differ(
      vnet,
      hello.hostId,
      `${named(hello.hostName, source)} has this vnet with security ${level}, this host with none`,
    );
  }

  private onHint(vnet: RunningVnet, underlay: Underlay, clear: ClearMessage, hello: Hello): void {
    const secure = this.of(vnet);
    if (secure === undefined) return this.unauthenticated(vnet, clear);
    const { source, message } = clear;
    const who = named(hello.hostName, source);
    const verdict = verifyHello(clear.bytes, secure.secrets);
    if (!verdict.ok) {
      if (verdict.reason === "absent")
        this.differ(
          vnet,
          hello.hostId,
          `${who} has this vnet without security, this host with ${secure.suite.level}`,
        );
      if (verdict.reason === "unknown_key")
        this.differ(
          vnet,
          hello.hostId,
          `${who} uses key id ${verdict.keyIds.join(" or ")}, ` +
            `this host uses ${secure.keys.map(({ id }) => id).join(" or ")}`,
        );
      return this.unauthenticated(vnet, clear);
    }
    if (hello.hostId === this.context.hostId) return this.parts.ownId(hello, underlay, source);
    // a hello that somebody else repeats from elsewhere
    if (addressToText(message.address) !== source) return this.unauthenticated(vnet, clear);
    if (verdict.suiteId !== secure.suite.id) {
      this.otherSuite(vnet, hello.hostId, who, verdict.suiteId);
      return refuse(this.context, vnet, "keys_other_suite", message);
    }
    this.differences.settled(vnet.handle, hello.hostId);
    this.parts.peers.heardHello(underlay, source, clear.onGroup);
    const place = placeOf(underlay);
    if (place === undefined) return;
    const { hostId: host, hostName: name, bootNonce } = hello;
    this.guarded(vnet, () =>
      secure.hint({ place, host, name, bootNonce, address: source }, verdict.keyIds, nowMs()),
    );
    this.schedule();
    if (!hello.solicit) return;
    if (this.answers.take(nowMs())) this.sayHello(vnet, "plain", underlay, source);
    else refuse(this.context, vnet, "varp_rate", message);
  }

  private sayHello(
    vnet: RunningVnet,
    kind: "plain" | "solicit",
    underlay: Underlay,
    to: string,
  ): void {
    const message = this.parts.hello(vnet, kind, underlay);
    if (message !== undefined) underlay.socket?.send(this.signed(vnet, message), to);
  }

  private unauthenticated(vnet: RunningVnet, { message }: ClearMessage): void {
    refuse(this.context, vnet, "varp_unauthenticated", message);
  }

  private otherSuite(vnet: RunningVnet, host: string, who: string, suiteId: number): void {
    const suite = suites.find(({ id }) => id === suiteId);
    const ours = this.of(vnet)?.suite;
    const of = (each: typeof suite): string =>
      each === undefined ? `suite ${String(suiteId)}` : `${each.level} ${each.name}`;
    this.differ(vnet, host, `${who} uses ${of(suite)}, this host uses ${of(ours)}`);
  }

  private differ({ handle, id }: RunningVnet, host: string, text: string): void {
    if (this.differences.note({ handle, host, text }, nowMs()))
      this.context.log.say("keys_differ", `vnet ${id}: ${text}`, { vnet: id, host, reason: text });
  }

  // ---- keys

  /** Of one secure vnet, or of all. */
  keys(id?: VnetId): SecureVnetInfo[] {
    const wanted = id === undefined ? this.secureVnets() : [this.secureVnet(id)];
    const devices = this.parts.underlays.list();
    const deviceOf = (ifindex: number): string =>
      devices.find((each) => each.ifindex === ifindex)?.device ?? "";
    return wanted.flatMap((vnet) => {
      const secure = this.of(vnet);
      return secure === undefined ? [] : [secureVnetInfo(secure, deviceOf, nowMs())];
    });
  }

  /** In numbers. */
  summary(): StatusInfo["secure"] {
    const all = this.all();
    const sum = (of: (each: SecureVnet) => number): number =>
      all.reduce((total, each) => total + of(each), 0);
    return {
      vnets: this.secureVnets().length,
      paths: sum((each) => each.paths().length),
      keyed: sum((each) => each.keyed().length),
      changing: all.filter(({ keys }) => keys.length > 1).length,
    };
  }

  /** New keys now. Says with how many hosts, by vnet. */
  rekey(id?: VnetId): { vnet: VnetId; hosts: number }[] {
    const wanted = id === undefined ? this.secureVnets() : [this.secureVnet(id)];
    const result = wanted.map((vnet) => ({
      vnet: vnet.id,
      hosts: this.of(vnet)?.rekey(nowMs()) ?? 0,
    }));
    this.schedule();
    return result;
  }

  /** The vnet's keys are other ones: said at once, so that those who have them move. */
  keysChanged(vnet: RunningVnet): void {
    const keys = vnet.secure?.keys;
    if (keys !== undefined) this.of(vnet)?.setKeys(keys);
  }

  /** After keysChanged(): who has not moved to the vnet's keys is cut off now. */
  evict(vnet: RunningVnet): void {
    this.of(vnet)?.evict(nowMs());
  }

  private secureVnet(id: VnetId): RunningVnet {
    const { config, running, problem } = this.parts.vnets.find(id);
    if (config.security === "none")
      throw new VnetdError("NOT_SECURE", `vnet ${id} has no keys: its security is none`, {
        hint: "`vnetd vnet-list` shows which vnets are secure.",
      });
    if (running?.secure !== undefined) return running;
    throw new VnetdError("KERNEL", `vnet ${id} is not up: ${problem}`);
  }

  // ---- time

  /** Soon while exchanges run. What is due is not put off by what comes in between, however much it is. */
  private schedule(): void {
    const busy = [...this.vnets.values()].some((each) => each.isBusy);
    const dueMs = nowMs() + (busy ? busyTickMs : idleTickMs);
    if (this.timer !== undefined) {
      if (dueMs >= this.dueMs) return;
      clearTimeout(this.timer);
    }
    this.dueMs = dueMs;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.tick();
      this.schedule();
    }, dueMs - nowMs());
  }

  private tick(): void {
    const now = nowMs();
    for (const [handle, each] of this.vnets) {
      const vnet = this.parts.vnets.byHandle().get(handle);
      if (vnet === undefined) this.forget(handle, each);
      else {
        this.guarded(vnet, () => each.tick(now));
        if (this.rotations.isOver(each, now)) this.guarded(vnet, () => this.parts.rotated(vnet.id));
      }
    }
    if (this.vnets.size > 0) this.watch.tick([...this.vnets.values()], now);
  }

  // ---- for people

  problems(): string[] {
    const now = nowMs();
    const vnets = this.parts.vnets.byHandle();
    const differ = this.differences
      .list(now)
      .flatMap(({ handle, text }) =>
        vnets.has(handle) ? [`vnet ${vnets.get(handle)?.id ?? ""}: ${text}`] : [],
      );
    const previous = this.secureVnets().flatMap(({ id, secure }) =>
      secure?.previousProblem === undefined
        ? []
        : [`vnet ${id}: the key before is not taken: ${secure.previousProblem.message}`],
    );
    return [
      ...differ,
      ...previous,
      ...[...this.vnets.values()].flatMap((each) => [
        ...this.rotations.problems(each, now),
        ...this.problemsOf(each, now),
      ]),
    ];
  }

  private problemsOf(secure: SecureVnet, now: number): string[] {
    const prefix = `vnet ${secure.vnet.id}:`;
    return secure.paths().flatMap((each) => {
      const who = named(each.name, each.path.ends.peer);
      const waitsMs = now - each.waitingSinceMs;
      if (each.path.spiOut === 0 && waitsMs > patienceMs)
        return [
          `${prefix} no keys with ${who} for ${String(Math.round(waitsMs / 1000))} s: it said hello, and does not answer key messages (1798/udp)`,
        ];
      const silent =
        each.path.spiOut !== 0 && each.keyedAtMs !== 0 && now - each.keyedAtMs > patienceMs;
      if (!silent || this.isHeard(secure.vnet.handle, each.host, each.path.ends)) return [];
      return [
        `${prefix} keys are agreed on with ${who}, and no ESP packet of it arrives: does a firewall in between drop protocol 50?`,
      ];
    });
  }

  /** Whether a host says hello by the SAs of a path. */
  private isHeard(handle: number, host: string, ends: PathEnds): boolean {
    return this.parts
      .membersOf(handle)
      .some(
        ({ hostId, paths }) =>
          hostId === host &&
          paths.some(({ address, ifindex }) => address === ends.peer && ifindex === ends.device),
      );
  }

  // ---- inside

  private of(vnet: RunningVnet): SecureVnet | undefined {
    const known = this.vnets.get(vnet.handle);
    if (known !== undefined || vnet.secure === undefined) return known;
    const { context, esp, spis } = this;
    const made = new SecureVnet(
      {
        ...{ context, esp, spis, times: this.times },
        send: (each, message, way) => this.sendKeys(vnet.handle, each, message, way),
        keyed: (path) => this.keyed(vnet.handle, path),
        primaryOf: (handle, host) => this.primaryOf(handle, host),
        isHeard: (handle, host, ends) => this.isHeard(handle, host, ends),
        silentMs: () => silentMsOf(context.config),
      },
      { slot: vnet.slot, handle: vnet.handle, id: vnet.id },
      vnet.secure,
    );
    this.vnets.set(vnet.handle, made);
    this.schedule();
    return made;
  }

  /** Underlay devices that have an xfrm interface. */
  private wantedDevices(): Set<number> {
    if (this.secureVnets().length === 0) return new Set();
    const all = this.parts.underlays.list().map(({ ifindex }) => ifindex);
    return new Set(all.filter((ifindex) => ifindex !== 0));
  }

  private adopt(leftover: Leftover): void {
    const vnet = this.parts.vnets.byHandle().get(leftover.handle);
    if (vnet !== undefined) this.of(vnet)?.adopt(leftover);
  }

  private sendKeys(handle: number, each: KeyedPath, message: Buffer, way: "sa" | "clear"): void {
    const { ends } = each.path;
    const vnet = this.parts.vnets.byHandle().get(handle);
    const underlay = this.parts.underlays.at(ends.device, familyOfText(ends.peer));
    if (vnet === undefined || underlay?.state.address === null || underlay === undefined) return;
    const announce = encodeVarp(
      {
        opcode: "announce",
        vnet: vnetIdToBytes(vnet.id),
        vmac: macToBytes(vnet.vmac),
        address: parseAddress(underlay.state.address),
      },
      encodeKeyMessage(message),
    );
    this.context.counts.sent.add("keys");
    if (way === "sa" && this.sendBy(each, announce)) return;
    underlay.socket?.send(announce, ends.peer);
  }

  /** The host is told by the new SA who is there, and asked the same: so each becomes the other's member. */
  private keyed(handle: number, each: KeyedPath): void {
    const { device, peer } = each.path.ends;
    const vnet = this.parts.vnets.byHandle().get(handle);
    const underlay = this.parts.underlays.at(device, familyOfText(peer));
    if (vnet === undefined || underlay === undefined) return;
    const message = this.parts.hello(vnet, "solicit", underlay);
    if (message !== undefined) this.sendBy(each, message);
  }

  private primaryOf(handle: number, host: string): Place | undefined {
    return this.parts.membersOf(handle).find(({ hostId }) => hostId === host)?.primary;
  }

  private secureVnets(): RunningVnet[] {
    return this.parts.vnets.running().filter(({ secure }) => secure !== undefined);
  }

  private guarded(vnet: RunningVnet, step: () => void): void {
    try {
      step();
    } catch (error) {
      this.context.log.say("keys_failed", `vnet ${vnet.id}: keys: ${String(error)}`, {
        vnet: vnet.id,
      });
    }
  }
}
