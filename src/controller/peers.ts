// SPDX-License-Identifier: Apache-2.0
/**
 * Peers: hosts that multicast does not reach, and the ways that group traffic takes.
 *
 * Level-triggered like the devices: sync() looks at what is configured, what names stand for, where
 * routes lead and what was heard, and makes the maps fit. The data plane forwards by the maps alone
 * (bpf/relay.bpf.c); the daemon's own messages for all are sent by toAll() on the same ways.
 *
 *   way of a peer's address   "vfwd"       group traffic goes to it inside VFWD
 *                             "unicast"    it is ours and uses no multicast: plain VUDP to it as a member
 *                             "multicast"  it is on the subnet and heard on the group: nothing is sent
 *                             "none"       it cannot be reached; the problem says why
 */
import { lookup } from "node:dns/promises";
import { addressToText, familyOfText, parseAddress } from "../base/address.js";
import { VnetdError } from "../base/errors.js";
import { isName, parsePeer, type PeerConfig } from "../base/peer.js";
import type { ConfiguredPeer } from "../config/daemon-config.js";
import type { PeerAddressInfo, PeerInfo, PeerWay } from "../api/contract.js";
import {
  vnetdLimits,
  vnetdPeerFlags,
  vnetdUnderlayFlags,
  type VnetdEventPeer,
} from "../generated/layouts.js";
import { readMeta, writeMeta } from "../dataplane/generation.js";
import { nowNs } from "../dataplane/tables.js";
import { errnoName } from "../host/errno.js";
import { MulticastPolicy, type MulticastState } from "../varp/multicast-policy.js";
import { missingPeerings } from "../varp/peer-mesh.js";
import { PeerTable, type PeerAddress } from "../varp/peer-table.js";
import { maxHelloPeers, type HelloPeers } from "../wire/hello.js";
import { encodeVfwd } from "../wire/vfwd.js";
import { nowMs, type Context } from "./context.js";
import { checkFilePeers, followFilePeers, withFilePeers } from "./file-peers.js";
import {
  byAddress,
  familiesOf,
  forwardingBy,
  isAnyUnknown,
  isForwardedTo,
  isLinkLocal,
  notCarried,
  numbered,
  onSubnetOf,
  unreachable,
  type HeardHost,
  type Placed,
  type UnicastMember,
} from "./peer-places.js";
import { StrangerPeers } from "./stranger-peers.js";
import type { Underlay, Underlays } from "./underlays.js";

export interface PeerParts {
  underlays: Underlays;
  /** hosts of ours that are known by their hellos */
  heardHosts: () => HeardHost[];
  unicastMembers: () => UnicastMember[];
  /** asks a peer, not inside VFWD, who it is: whether this host is one of its peers */
  ask: (underlay: Underlay, peer: { address: string; port: number }) => void;
  /** they are peers from now on */
  appeared: (addresses: readonly string[]) => void;
  /** it is no peer any more */
  gone: (address: string) => void;
  /** the ways changed: who says hello says something else now */
  waysChanged: () => void;
  /** the last answer of a resolver, to be kept */
  persist: (peers: PeerConfig[]) => void;
}

const routesEveryTicks = 5;
const strangerIntervals = 3;

export class Peers {
  private readonly table: PeerTable;
  private placed: Placed[] = [];
  private members: UnicastMember[] = [];
  private readonly routes = new Map<string, number>();
  private ticks = 0;
  /** addresses of this host, as of when devices last changed */
  private own: ReadonlySet<string> | undefined;
  private syncSoon: NodeJS.Immediate | undefined;
  private readonly policies = new Map<string, MulticastPolicy>();
  private readonly strangers = new StrangerPeers();
  private lastFlags = "";
  private lastMeta = "";

  constructor(
    private readonly context: Context,
    private readonly parts: PeerParts,
  ) {
    this.table = new PeerTable(context.config.resolveSeconds * 1000, vnetdLimits.MAX_PEERS - 1);
  }

  /**
   * At start, before devices are attached: what was added by command, and what the configuration has, names with
   * their last answers.
   */
  load(stored: readonly PeerConfig[]): void {
    for (const config of withFilePeers(stored, this.context.config.peers)) this.table.add(config);
  }

  /** The configuration has other peers, or another interval, port or way of multicast. */
  configChanged(): void {
    const { multicast, helloSeconds, resolveSeconds, peers } = this.context.config;
    for (const policy of this.policies.values())
      policy.configure({ setting: multicast, helloMs: helloSeconds * 1000 });
    this.table.setResolveMs(resolveSeconds * 1000, nowMs());
    const before = this.placed.map(({ address }) => address);
    followFilePeers(this.table, peers);
    this.sync();
    const left = new Set(this.placed.map(({ address }) => address));
    for (const address of before) if (!left.has(address)) this.parts.gone(address);
    this.resolveDue();
    this.parts.persist(this.table.list());
  }

  /** Throws for what of these could not be a peer of this host. */
  checkFile(wanted: readonly ConfiguredPeer[]): void {
    checkFilePeers(this.table.list(), wanted, this.ownAddresses());
  }

  get addressCount(): number {
    return this.placed.length;
  }

  configs(): PeerConfig[] {
    return this.table.list();
  }

  // ---- commands

  add(text: string, port: number | null): PeerConfig {
    const peer = parsePeer(text);
    if (this.table.has(peer)) {
      throw new VnetdError("PEER_EXISTS", `${peer} is a peer already`, {
        hint: "`vnetd peer-delete` it first to give it another port.",
      });
    }
    if (!isName(peer) && this.ownAddresses().has(peer)) {
      throw new VnetdError("BAD_PEER", `${peer} is an address of this host`, {
        hint: "A peer is another host.",
      });
    }
    if (this.table.list().length >= vnetdLimits.MAX_PEERS - 1) {
      throw new VnetdError(
        "PEER_LIMIT",
        `this host has ${String(vnetdLimits.MAX_PEERS - 1)} peers`,
        {
          hint: "A subnet needs one forwarder; a name counts as one peer.",
        },
      );
    }
    const config = { peer, port, addresses: [] };
    this.table.add(config);
    this.sync();
    this.resolveDue();
    return config;
  }

  /** Its canonical form. Throws PEER_NOT_FOUND. */
  find(text: string): string {
    const peer = parsePeer(text);
    if (this.table.has(peer)) return peer;
    throw new VnetdError("PEER_NOT_FOUND", `${peer} is no peer of this host`, {
      hint: "`vnetd peers` lists them.",
    });
  }

  delete(peer: string): void {
    const before = this.placed.map(({ address }) => address);
    this.table.delete(peer);
    this.sync();
    const left = new Set(this.placed.map(({ address }) => address));
    for (const address of before) if (!left.has(address)) this.parts.gone(address);
  }

  // ---- following what changes

  tick(): void {
    this.ticks += 1;
    if (this.ticks % routesEveryTicks === 0) this.routes.clear();
    this.resolveDue();
    // without peers time alone changes only whether multicast works
    if (this.isAlone) return this.writeFlags();
    this.sync();
    if (this.ticks % this.context.config.helloSeconds === 0) this.askSilent();
  }

  /**
   * A peer of ours does not hear VFWD from who is no peer of it. Asked by a plain hello it answers,
   * and says who its peers are.
   */
  private askSilent(): void {
    const lacking = new Set(this.peersThatLackUs().map(({ address }) => address));
    const known = byAddress(this.parts.heardHosts());
    for (const peer of this.placed) {
      const { address, way, port } = peer;
      if (way !== "vfwd" || (known.has(address) && !lacking.has(address))) continue;
      const underlay = this.underlayTo(peer);
      const at = { address, port: port ?? this.context.config.port };
      if (underlay !== undefined) this.parts.ask(underlay, at);
    }
  }

  /** Devices, addresses or routes changed. */
  devicesChanged(): void {
    this.routes.clear();
    this.own = undefined;
    this.sync();
  }

  /** Members came, went or said something new: many do so at the same time. */
  membersChanged(): void {
    this.syncSoon ??= setImmediate(() => {
      this.syncSoon = undefined;
      // hellos of a thousand hosts would have the maps read a thousand times
      if (this.isAlone && this.parts.unicastMembers().length === 0) this.writeFlags();
      else this.sync();
    });
  }

  /** There are neither peers nor members that are sent to one by one: nothing in the maps is of them. */
  private get isAlone(): boolean {
    return this.table.list().length + this.placed.length + this.members.length === 0;
  }

  close(): void {
    clearImmediate(this.syncSoon);
  }

  /** Makes the maps fit. */
  sync(): void {
    const before = new Set(this.sendsTo());
    // asking the kernel takes tens of milliseconds where there are many devices
    if (this.table.list().length > 0) this.own ??= this.ownAddresses();
    const wanted = this.table.addresses(this.own ?? new Set());
    const hosts =
      wanted.length === 0 ? new Map<string, HeardHost>() : byAddress(this.parts.heardHosts());
    this.placed = wanted.map((each) => this.place(each, hosts));
    this.members = this.parts.unicastMembers().slice(0, vnetdLimits.MAX_UNICAST_MEMBERS);
    this.writePeers();
    this.writeMembers();
    this.writeFlags();
    const fresh = this.sendsTo().filter((address) => !before.has(address));
    if (fresh.length > 0) this.parts.appeared(fresh);
  }

  private sendsTo(): string[] {
    return this.placed.filter(({ ifindex }) => ifindex !== 0).map(({ address }) => address);
  }

  private resolveDue(): void {
    for (const name of this.table.due(nowMs())) {
      lookup(name, { all: true })
        .then((found) =>
          this.answered(
            name,
            found.map(({ address }) => address),
          ),
        )
        .catch((error: unknown) => this.table.unresolved(name, errnoName(error), nowMs()))
        .catch((error: unknown) =>
          this.context.log.say("peer_failed", `peer ${name}: ${String(error)}`, { host: name }),
        );
    }
  }

  private answered(name: string, addresses: readonly string[]): void {
    const { log } = this.context;
    if (!this.table.resolved(name, addresses, nowMs())) return;
    const config = this.table.list().find(({ peer }) => peer === name);
    const text = `peer ${name}: ${config?.addresses.join(", ") ?? ""}`;
    log.say("peer_resolved", text, { host: name });
    this.context.news.tell(() => ({ kind: "peer", text }));
    this.sync();
    this.parts.persist(this.table.list());
  }

  /** Where an address is reached, and how group traffic gets there. */
  private place(peer: PeerAddress, hosts: ReadonlyMap<string, HeardHost>): Placed {
    const none = (problem: string): Placed => ({ ...peer, ifindex: 0, way: "none", problem });
    const { native } = this.context;
    const family = familyOfText(peer.address);
    const all = this.parts.underlays.usable();
    const usable = all.filter((each) => each.family === family);
    if (all.length > 0 && usable.length === 0) return none(notCarried(family));
    const routed = this.routeTo(peer.address);
    // A neighbour's device may have routes of its own (a VRF).
    const underlay =
      usable.find((each) => each.ifindex === routed) ??
      usable.find((each) => onSubnetOf(each, peer.address));
    if (underlay === undefined) {
      const name = native.linkList().find((link) => link.ifindex === routed)?.name;
      return none(
        routed === 0
          ? "there is no route to it"
          : `it is reached by ${name ?? "another device"}, which is not attached or not usable`,
      );
    }
    if (isLinkLocal(underlay)) return none(`${underlay.device} has a link-local address alone`);
    const { ifindex } = underlay;
    return { ...peer, ifindex, way: this.wayOf(peer.address, underlay, hosts), problem: "" };
  }

  private underlayTo({
    address,
    ifindex,
  }: {
    address: string;
    ifindex: number;
  }): Underlay | undefined {
    const family = familyOfText(address);
    return this.parts.underlays
      .usable()
      .find((each) => each.ifindex === ifindex && each.family === family);
  }

  private routeTo(address: string): number {
    const known = this.routes.get(address);
    if (known !== undefined) return known;
    const ifindex = this.context.native.routeGet(address);
    this.routes.set(address, ifindex);
    return ifindex;
  }

  private wayOf(
    address: string,
    underlay: Underlay,
    hosts: ReadonlyMap<string, HeardHost>,
  ): PeerWay {
    if (hosts.get(address)?.unicast.has(address) === true) return "unicast";
    const isNear = onSubnetOf(underlay, address);
    return isNear && this.multicastState(underlay) === "works" ? "multicast" : "vfwd";
  }

  // ---- the maps

  private writePeers(): void {
    const { maps } = this.context;
    const { PEER_USED, PEER_SEND, PEER_UNICAST } = vnetdPeerFlags;
    const wanted = new Map(this.placed.map((each) => [each.number, each]));
    for (const [number, record] of maps.peers()) {
      const place = wanted.get(number);
      const stays = place !== undefined && addressToText(record.addr) === place.address;
      if (!stays) maps.deletePeer(number, record.addr);
    }
    for (const { number, address, port, ifindex, way } of this.placed) {
      const send = way === "vfwd" || way === "unicast" ? PEER_SEND : 0;
      maps.setPeer(number, {
        addr: parseAddress(address),
        ifindex,
        flags: PEER_USED | send | (way === "unicast" ? PEER_UNICAST : 0),
        port: port ?? this.context.config.port,
      });
    }
  }

  private writeMembers(): void {
    const { maps, native, generation } = this.context;
    const records = numbered(this.members);
    maps.setUnicastMembers(records);
    const highest = Math.max(0, ...this.placed.map(({ number }) => number));
    const peers = this.placed.length === 0 ? 0 : highest + 1;
    const forward = familiesOf([...this.placed.filter(isForwardedTo), ...this.members]);
    const meta = `${String(peers)} ${String(records.length)} ${String(forward)}`;
    if (meta === this.lastMeta) return;
    this.lastMeta = meta;
    const now = readMeta(native, generation.maps);
    writeMeta(native, generation.maps, { ...now, peers, unicastMembers: records.length, forward });
  }

  private writeFlags(): void {
    const flags = this.parts.underlays
      .list()
      .map((each) => `${each.device} ${String(each.family)} ${String(this.flagsOf(each))}`)
      .join();
    if (flags === this.lastFlags) return;
    const first = this.lastFlags === "";
    this.lastFlags = flags;
    this.parts.underlays.rewriteRecords();
    if (!first) this.parts.waysChanged();
  }

  /** Flags of a device's record that follow from all this. */
  flagsOf(underlay: Underlay): number {
    const { UNDERLAY_RELAY, UNDERLAY_NO_GROUP, UNDERLAY_GROUP_WORKS } = vnetdUnderlayFlags;
    const state = this.multicastState(underlay);
    const relays = this.placed.some(
      (peer) => isForwardedTo(peer) && familyOfText(peer.address) === underlay.family,
    );
    return (
      (relays ? UNDERLAY_RELAY : 0) |
      (this.usesUnicast(underlay) ? UNDERLAY_NO_GROUP : 0) |
      (state === "works" ? UNDERLAY_GROUP_WORKS : 0)
    );
  }

  // ---- multicast

  private policyOf({ device, family }: Underlay): MulticastPolicy {
    const place = `${device} ${String(family)}`;
    const known = this.policies.get(place);
    if (known !== undefined) return known;
    const { multicast, helloSeconds } = this.context.config;
    const policy = new MulticastPolicy({ setting: multicast, helloMs: helloSeconds * 1000 });
    this.policies.set(place, policy);
    return policy;
  }

  multicastState(underlay: Underlay): MulticastState {
    return this.policyOf(underlay).state(nowMs());
  }

  usesUnicast(underlay: Underlay): boolean {
    return this.policyOf(underlay).usesUnicast(nowMs());
  }

  /** A host of ours said hello. */
  heardHello(underlay: Underlay, source: string, onGroup: boolean): void {
    const policy = this.policyOf(underlay);
    if (onGroup) policy.heardOnGroup(nowMs());
    else if (onSubnetOf(underlay, source)) policy.heardOtherwise(nowMs());
    else return;
    this.writeFlags();
  }

  /** What `status` says of a device: which way group traffic takes, and why. */
  describe(underlay: Underlay): { way: "multicast" | "unicast"; why: string } {
    const state = this.multicastState(underlay);
    const why: Record<MulticastState, string> = {
      works: "hosts of the subnet were heard on the group",
      untested: "no host of the subnet was heard on the group yet",
      fails: "hosts of the subnet are heard, but never on the group",
      off: "the configuration says multicast: off",
    };
    return { way: this.usesUnicast(underlay) ? "unicast" : "multicast", why: why[state] };
  }

  // ---- the daemon's own messages

  /**
   * To all whom a group packet by this device would reach: the group, the members that use no
   * multicast, the peers. Hellos go to the group even where it does not seem to work.
   */
  toAll(underlay: Underlay, message: Buffer, options: { handle: number; isHello: boolean }): void {
    const { config } = this.context;
    const isBy = ({ address, ifindex }: { address: string; ifindex: number }): boolean =>
      ifindex === underlay.ifindex && familyOfText(address) === underlay.family;
    const silent = this.usesUnicast(underlay) && !(options.isHello && config.multicast === "auto");
    if (!silent) underlay.socket?.sendToGroup(message);
    const plain = new Set(
      this.members
        .filter((member) => member.handle === options.handle && isBy(member))
        .map(({ address }) => address),
    );
    for (const address of plain) underlay.socket?.send(message, address);
    for (const peer of this.placed) {
      if (!isBy(peer)) continue;
      if (peer.way === "unicast" && plain.has(peer.address)) continue;
      this.toPeer(underlay, peer, message, options.isHello);
    }
  }

  /** One peer's address, by the way that it is reached. */
  sayTo(address: string, say: (underlay: Underlay, send: (message: Buffer) => void) => void): void {
    const peer = this.placed.find((each) => each.address === address);
    const underlay = peer === undefined ? undefined : this.underlayTo(peer);
    if (peer === undefined || underlay === undefined) return;
    say(underlay, (message) => this.toPeer(underlay, peer, message, true));
  }

  private toPeer(underlay: Underlay, peer: Placed, message: Buffer, isHello: boolean): void {
    // Where multicast works the peer has the message; a hello tells that it is a peer.
    if (peer.way === "multicast" && !isHello) return;
    const { group, group6, port } = this.context.config;
    const target = { group: parseAddress(underlay.family === 4 ? group : group6), port };
    const packet = peer.way === "unicast" ? message : encodeVfwd(message, target);
    underlay.socket?.send(packet, peer.address, peer.port ?? port);
  }

  /** A peer that group traffic is forwarded to never said hello: it may be an original. */
  hasUnknown(): boolean {
    return isAnyUnknown(this.placed, this.parts.heardHosts);
  }

  /** What a hello by this device and family says of this host's peers: those of that family. */
  helloPeers({ state, family }: Underlay): HelloPeers | undefined {
    const all = this.placed
      .filter(({ way, address }) => way !== "none" && familyOfText(address) === family)
      .map(({ address }) => address);
    if (all.length === 0) return undefined;
    const more = all.length > maxHelloPeers;
    return { prefixLength: state.prefixLength, more, addresses: more ? [] : all };
  }

  // ---- what people see

  list(): PeerInfo[] {
    const { maps } = this.context;
    const now = nowNs();
    return this.table.list().map((config) => {
      const addresses = this.table.addressesOf(config).flatMap((address): PeerAddressInfo[] => {
        const place = this.placed.find((each) => each.address === address);
        if (place === undefined) return [];
        const { number, ifindex, way, problem } = place;
        const heardNs = maps.peerHeardNs(number);
        const { sentFrames, heardFrames, sentBytes, heardBytes } = maps.peerStats(number);
        return [
          {
            address,
            device: this.parts.underlays.at(ifindex, familyOfText(address))?.device ?? null,
            way,
            heardSeconds:
              heardNs === 0n ? null : Math.max(0, Number((now - heardNs) / 100_000_000n) / 10),
            sentFrames: Number(sentFrames),
            heardFrames: Number(heardFrames),
            sentBytes: Number(sentBytes),
            heardBytes: Number(heardBytes),
            problem,
          },
        ];
      });
      const { peer, port } = config;
      return {
        peer,
        port: port ?? this.context.config.port,
        addresses,
        problem: this.table.problemOf(peer),
      };
    });
  }

  problems(): string[] {
    const names = this.table.list().flatMap(({ peer }) => {
      const problem = this.table.problemOf(peer);
      return problem === ""
        ? []
        : [`peer ${peer}: not resolved (${problem}), the last answer is kept`];
    });
    const { leftOut } = this.table;
    const peers = this.table.list().map((config) => this.table.addressesOf(config));
    const tooMany =
      leftOut === 0
        ? []
        : [
            `${String(leftOut)} addresses of peers are left out: ${String(vnetdLimits.MAX_PEERS - 1)} fit`,
          ];
    return [
      ...names,
      ...tooMany,
      ...unreachable(this.placed, peers),
      ...this.strangerProblems(),
      ...this.meshProblems(),
    ];
  }

  // ---- peerings that are missing

  /** VFWD came from a host that is no peer; it was dropped. */
  onStranger(event: VnetdEventPeer): void {
    this.strangers.heard(addressToText(event.addr), nowMs());
  }

  private strangerProblems(): string[] {
    const keptMs = strangerIntervals * this.context.config.helloSeconds * 1000;
    const known = new Set(this.placed.map(({ address }) => address));
    return this.strangers.problems(known, keptMs, nowMs());
  }

  private peersThatLackUs(): { address: string; name: string }[] {
    const hosts = byAddress(this.parts.heardHosts());
    const own = this.ownAddresses();
    return this.placed.flatMap(({ address, way }) => {
      const host = hosts.get(address);
      if (host === undefined || way === "none" || way === "multicast") return [];
      const peers = host.peers.get(familyOfText(address));
      const knowsUs = peers?.addresses.some((each) => own.has(each)) === true;
      return knowsUs || peers?.more === true ? [] : [{ address, name: host.name }];
    });
  }

  private meshProblems(): string[] {
    if (this.placed.length === 0) return [];
    const hosts = this.parts.heardHosts();
    const lacksUs = this.peersThatLackUs().map(({ address, name }) => {
      const ifindex = this.placed.find((each) => each.address === address)?.ifindex ?? 0;
      const ours =
        this.parts.underlays.at(ifindex, familyOfText(address))?.state.address ?? "ADDRESS";
      return `${address} (${name}) does not have this host as a peer: vnetd peer-add ${ours} there`;
    });
    const others = ([4, 6] as const)
      .flatMap((family) => missingPeerings(forwardingBy(hosts, family)))
      .map(
        ({ at, lacks }) =>
          `${at.addresses[0] ?? at.name} (${at.name}) does not have ${lacks} as a peer`,
      );
    return [...lacksUs, ...others];
  }

  private ownAddresses(): Set<string> {
    const attached = this.parts.underlays.list().flatMap(({ state }) => state.address ?? []);
    const all = this.context.native.addressList().map(({ address }) => address);
    return new Set([...attached, ...all]);
  }
}
