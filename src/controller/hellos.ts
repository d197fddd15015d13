// SPDX-License-Identifier: Apache-2.0
/**
 * Hello: the hosts of ours in each vnet know one another and the paths between them.
 *
 * Out: an announce of the vnetif's own MAC with the extension (src/wire/hello.ts), to the group on
 * every usable device when a vnet, a device or the daemon appears and every interval after, and
 * by unicast to a host that was not known or asked. In: members (src/varp/members.ts); what
 * changes there is written to the next hops, so that the data plane knows which paths lead to
 * one host.
 */
import { familyOfText, parseAddress, type Family } from "../base/address.js";
import { version } from "../base/version.js";
import { macToBytes } from "../base/mac.js";
import type { VnetGroups } from "../base/vnet-group.js";
import { vnetIdToBytes } from "../base/vnet-id.js";
import { vnetdCapability, vnetdControlOp, vnetdNexthopFlags } from "../generated/layouts.js";
import { nexthopRequest } from "../dataplane/control.js";
import { asksAgain, HelloSchedule } from "../varp/hello-schedule.js";
import {
  Members,
  membersDefaults,
  type Carrier,
  type Member,
  type PathChange,
  type Place,
} from "../varp/members.js";
import { PathProbe } from "../varp/path-probe.js";
import { TokenBucket } from "../varp/token-bucket.js";
import {
  decodeHello,
  encodeHello,
  type Hello,
  type HelloDecoded,
  type HelloReason,
} from "../wire/hello.js";
import { encodeVarp, type VarpMessage } from "../wire/varp.js";
import { nowMs, type Context } from "./context.js";
import { HelloLists } from "./hello-lists.js";
import { ListReaders } from "./list-readers.js";
import { refuse } from "./refusals.js";
import type { HeardHost, UnicastMember } from "./peer-places.js";
import type { Peers } from "./peers.js";
import type { Underlay, Underlays } from "./underlays.js";
import type { Security } from "./security.js";
import type { RunningVnet, Vnets } from "./vnets.js";

const repliesPerSecond = { perSecond: 500, burst: 1000 };
const hellosPerTick = 200;
const probesPerTick = 500;
const vnetsPerAsk = 8;
/** how long a duplicate host id is held against its owner, in hello intervals */
const duplicateIntervals = 3;

export interface HelloParts {
  vnets: Vnets;
  underlays: Underlays;
  peers: Peers;
  /** of secure vnets: hellos in clear are signed, all else goes by SAs */
  security: Pick<
    Security,
    "signed" | "send" | "sendToAll" | "membersChanged" | "onSecureHello" | "left"
  >;
  /** a host said hello in a vnet, maybe with other groups than before */
  memberSaid: (vnet: RunningVnet, groups: VnetGroups) => void;
}

/** Of a later version, or no hello at all, is nobody's mistake. */
const malformed: ReadonlySet<HelloReason> = new Set([
  "truncated",
  "bad_tlv_length",
  "no_host_id",
  "auth_not_last",
]);

export type HelloKind = "plain" | "solicit" | "goodbye";

export class Hellos {
  private readonly members: Members;
  private readonly schedule: HelloSchedule;
  private readonly replies = new TokenBucket(repliesPerSecond);
  private readonly lists: HelloLists;
  /** to whom lists may be sent */
  readonly readers: ListReaders;
  private duplicate: { own: string; address: string; atMs: number } | undefined;
  private readonly probe = new PathProbe();
  private helloMs: number;
  private askedVnets = 0;
  private decoded: { trailing: Uint8Array; decoded: HelloDecoded } | undefined;
  /** by host id: what a host said of its peers, by the family that it said it by */
  private readonly peersOf = new Map<string, Map<Family, NonNullable<Hello["peers"]>>>();

  constructor(
    private readonly context: Context,
    private readonly parts: HelloParts,
  ) {
    this.helloMs = context.config.helloSeconds * 1000;
    this.members = new Members({ ...membersDefaults, helloMs: this.helloMs });
    this.schedule = new HelloSchedule(this.helloMs);
    const { vnets, underlays, peers } = parts;
    this.lists = new HelloLists({
      ...{ vnets, peers },
      groupsOf: (vnet) => this.groupsOf(vnet),
      hello: (vnet, kind, underlay) => this.helloOf(vnet, kind, underlay),
    });
    this.readers = new ListReaders(context, {
      ...{ vnets, underlays, peers },
      members: () => this.list(),
      membersOf: (handle) => this.membersOf(handle),
    });
  }

  /**
   * Members that a daemon before this one knew are members no more, at start: who is there says so
   * at once, being asked. Which paths lead to one host stays until then, so that nothing comes
   * twice; a path that is gone meanwhile does no harm, since it is not heard.
   */
  forgetMembers(): void {
    const { control, maps } = this.context;
    const nexthops = maps.nexthops();
    for (const nexthop of nexthops.values()) {
      const { NEXTHOP_MEMBER, NEXTHOP_USED, NEXTHOP_DIRECT } = vnetdNexthopFlags;
      if ((nexthop.flags & NEXTHOP_MEMBER) === 0) continue;
      control.run({
        ...nexthopRequest(nexthop, nexthops),
        nexthopFlags: nexthop.flags & ~(NEXTHOP_USED | NEXTHOP_MEMBER | NEXTHOP_DIRECT),
      });
    }
  }

  list(): Member[] {
    return this.members.list();
  }

  membersOf(handle: number): Member[] {
    return this.members.ofVnet(handle);
  }

  hostsOf(handle: number): number {
    return this.members.ofVnet(handle).length;
  }

  /** The host behind an underlay address, if it says hello in the vnet. */
  hostKeyOf(handle: number, address: string): string | undefined {
    return this.members.hostKeyOf(handle, address);
  }

  /** Two machines with one host id: each names the other, and third hosts name both. */
  problems(): string[] {
    const others = this.members.clones(nowMs()).map(({ addresses }) => addresses);
    const { duplicate } = this;
    const own =
      duplicate === undefined ? [] : [[`${duplicate.own} (this host)`, duplicate.address]];
    return [...own, ...others].map(
      (addresses) =>
        `${listed(addresses)} say hello with the same host id, as a copied machine does: on all ` +
        "but one of them stop vnetd, remove host.yaml from its state directory " +
        "(/var/lib/vnetd), and start it again",
    );
  }

  // ---- what happens here

  /** The configuration has another interval. */
  intervalChanged(): void {
    this.helloMs = this.context.config.helloSeconds * 1000;
    this.members.setHelloMs(this.helloMs);
    this.schedule.setInterval(this.helloMs, nowMs());
  }

  /** A vnet appeared: say so, and ask who else is there. */
  vnetAppeared(vnet: RunningVnet): void {
    this.sayToGroup(vnet, "solicit", this.parts.underlays.speaking());
    this.schedule.appeared(vnet.handle, nowMs());
  }

  vnetLeaves(vnet: RunningVnet): void {
    this.sayToGroup(vnet, "goodbye", this.parts.underlays.speaking());
    this.members.vnetGone(vnet.handle);
    this.schedule.vnetGone(vnet.handle);
  }

  deviceUsable(underlay: Underlay): void {
    this.members.carrierUp(underlay);
    for (const vnet of this.parts.vnets.running()) {
      this.sayToGroup(vnet, "solicit", [underlay]);
      this.schedule.appeared(vnet.handle, nowMs());
    }
  }

  deviceLeaves(underlay: Underlay): void {
    for (const vnet of this.parts.vnets.running()) this.sayToGroup(vnet, "goodbye", [underlay]);
  }

  carrierDown(carrier: Carrier): void {
    this.apply(this.members.carrierDown(carrier));
  }

  carrierGone(carrier: Carrier): void {
    this.apply(this.members.carrierGone(carrier));
  }

  close(): void {
    this.lists.close();
  }

  tick(): void {
    const now = nowMs();
    this.apply(this.members.tick(now));
    const vnets = this.parts.vnets.byHandle();
    const share = this.schedule.share();
    for (const handle of this.handlesDue(now)) {
      const lists = this.isListed(handle);
      const asks =
        this.schedule.isEarly(handle) &&
        asksAgain({ hosts: this.hostsOf(handle), vnets: vnets.size, lists });
      if (lists) this.schedule.said(handle, now, share);
      else this.schedule.said(handle, now);
      const vnet = vnets.get(handle);
      if (vnet === undefined) this.schedule.vnetGone(handle);
      else this.sayToGroup(vnet, asks ? "solicit" : "plain", this.parts.underlays.speaking());
    }
    this.probePaths(now);
    const { duplicate } = this;
    const forgiven =
      duplicate !== undefined && now - duplicate.atMs > duplicateIntervals * this.helloMs;
    if (forgiven) this.duplicate = undefined;
  }

  /** With those that are due, the others that go into the same messages. */
  private handlesDue(now: number): number[] {
    const due = this.schedule.due(now, hellosPerTick);
    const isRegular = (handle: number): boolean =>
      !this.schedule.isEarly(handle) && this.isListed(handle);
    if (!due.some(isRegular)) return due;
    const along = this.schedule.along(now, hellosPerTick - due.length);
    return [...due, ...along.filter((handle) => this.isListed(handle))];
  }

  private isListed(handle: number): boolean {
    const vnet = this.parts.vnets.byHandle().get(handle);
    return vnet !== undefined && this.readers.reads(vnet);
  }

  // ---- what others say

  /** An announce that is no hello is none of ours. True: its sender is a member, and is to be noted as heard(). */
  onAnnounce(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    { source, onGroup }: { source: string; onGroup: boolean },
  ): boolean {
    const decoded = this.decode(message.trailing);
    if (!decoded.ok) {
      if (malformed.has(decoded.reason)) refuse(this.context, vnet, "varp_bad_tlv", message);
      const { reason } = decoded;
      const fields = { vnet: vnet.id, host: source, reason };
      if (reason !== "absent" && reason !== "mac_list")
        this.context.log.say("hello_bad", `hello from ${source}: ${reason}`, fields);
      return false;
    }
    const { hello } = decoded;
    if (hello.hostId === this.context.hostId) {
      this.onOwnId(hello, underlay, source);
      return false;
    }
    // of a secure vnet, but here it is none
    if (vnet.secure === undefined && hello.auth !== undefined) {
      this.parts.security.onSecureHello(vnet, hello, source);
      return false;
    }
    this.parts.peers.heardHello(underlay, source, onGroup);
    const path = { address: source, ifindex: underlay.ifindex };
    if (hello.goodbye) {
      this.apply(this.members.goodbye(vnet.handle, hello.hostId, path));
      this.parts.security.left(vnet, underlay, source);
      return false;
    }
    const result = this.members.heard(
      {
        handle: vnet.handle,
        hostId: hello.hostId,
        bootNonce: hello.bootNonce,
        capabilities: hello.capabilities,
        mtuBytes: hello.underlayMtuBytes,
        name: hello.hostName,
        software: hello.software,
        ...(hello.groups === undefined ? {} : { groups: hello.groups }),
        ...path,
      },
      nowMs(),
    );
    if (!result.refused) this.notePeers(hello, underlay.family);
    this.apply(result.changes);
    this.parts.memberSaid(vnet, hello.groups ?? {});
    if (result.refused) {
      refuse(this.context, vnet, "refused_vnet_hosts", message);
      const text = `vnet ${vnet.id}: too many hosts, ${source} is left out`;
      const reason = "refused_vnet_hosts";
      this.context.log.say("host_refused", text, { vnet: vnet.id, host: source, reason });
    }
    if (result.isNew) {
      const text = `${hello.hostName} (${source}) came`;
      this.context.news.tell(() => ({ kind: "member", handle: vnet.handle, text }));
    }
    const isAnswered = result.isNew || hello.solicit;
    if (isAnswered && !this.reply(vnet, hello, underlay, source))
      refuse(this.context, vnet, "varp_rate", message);
    return true;
  }

  /** In a list the same is said of each vnet. */
  private decode(trailing: Uint8Array): HelloDecoded {
    if (this.decoded?.trailing !== trailing)
      this.decoded = { trailing, decoded: decodeHello(Buffer.from(trailing)) };
    return this.decoded.decoded;
  }

  /** Who reads lists is answered for all vnets at once that it asks about within a moment: one message of the rate. */
  private reply(vnet: RunningVnet, hello: Hello, underlay: Underlay, to: string): boolean {
    const readsLists = (hello.capabilities & vnetdCapability.CAP_LISTS) !== 0;
    const isListed = readsLists && vnet.secure === undefined && !this.lists.isFull;
    const saying = { kind: "plain", underlay, to } as const;
    const waits = isListed && this.lists.has(saying, vnet);
    if (!waits && !this.replies.take(nowMs())) return false;
    if (isListed) this.lists.add(saying, vnet);
    else this.say(vnet, "plain", underlay, to);
    return true;
  }

  /** The address in the maps' form, from which a message leaves by this device. */
  careOf({ state }: Underlay): Uint8Array | undefined {
    return state.address === null ? undefined : parseAddress(state.address);
  }

  onOwnId(hello: Hello, { state }: Underlay, source: string): void {
    if (hello.bootNonce === this.context.bootNonce) return;
    if (this.duplicate === undefined)
      this.context.log.say("host_id_twice", `${source} says hello with this host's id`, {
        host: source,
      });
    this.duplicate = { own: state.address ?? "", address: source, atMs: nowMs() };
  }

  private apply(changes: readonly PathChange[]): void {
    const vnets = this.parts.vnets.byHandle();
    for (const change of changes) {
      const vnet = vnets.get(change.handle);
      if (vnet === undefined) continue;
      if (!change.member) {
        const text = `${change.address} is gone`;
        this.context.news.tell(() => ({ kind: "member", handle: change.handle, text }));
      }
      const reason = this.context.control.run({
        op: vnetdControlOp.CTL_NEXTHOP,
        slot: vnet.slot,
        handle: vnet.handle,
        ifindex: change.ifindex,
        nexthopFlags: flagsOf(change) | this.directFlag(change),
        capabilities: change.capabilities,
        mtu: change.mtuBytes,
        addr: parseAddress(change.address),
        host: Buffer.from(change.hostId.padStart(32, "0"), "hex"),
        path: change.path,
        ...(change.other === undefined
          ? {}
          : {
              otherIfindex: change.other.ifindex,
              otherAddr: parseAddress(change.other.address),
            }),
      });
      if (reason === "ok") continue;
      const fields = { vnet: vnet.id, host: change.address, reason };
      this.context.log.say("hop_refused", `next hop ${change.address}: ${reason}`, fields);
    }
    if (changes.length === 0) return;
    this.readers.membersChanged();
    this.parts.peers.membersChanged();
    this.parts.security.membersChanged(new Set(changes.map(({ handle }) => handle)));
  }

  // ---- peers, and hosts that use no multicast

  /** Who is a host of ours, for those who place peers. */
  heardHosts(): HeardHost[] {
    const hosts = new Map<string, HeardHost>();
    for (const { hostId, name, paths } of this.members.list()) {
      const peers = this.peersOf.get(hostId) ?? new Map<Family, never>();
      const host = hosts.get(hostId) ?? { name, addresses: [], unicast: new Set(), peers };
      hosts.set(hostId, host);
      for (const { address, capabilities } of paths) {
        if (!host.addresses.includes(address)) host.addresses.push(address);
        if (wantsUnicast(capabilities)) host.unicast.add(address);
      }
    }
    for (const hostId of this.peersOf.keys()) if (!hosts.has(hostId)) this.peersOf.delete(hostId);
    return [...hosts.values()];
  }

  /** Members that this host sends group traffic to by unicast: they use no multicast, or we. */
  unicastMembers(): UnicastMember[] {
    return this.members.list().flatMap((member) => {
      const { address, ifindex } = member.primary;
      return this.isDirect(member) ? [{ handle: member.handle, address, ifindex }] : [];
    });
  }

  /** Multicast is used no longer, or again: said at once, and the next hops are put right. */
  waysChanged(): void {
    this.readers.membersChanged();
    this.apply(this.members.records());
    this.sayAll();
  }

  /** What hellos say is another: all are told. */
  sayAll(): void {
    for (const vnet of this.parts.vnets.running())
      this.sayToGroup(vnet, "plain", this.parts.underlays.speaking());
  }

  /** The same of one vnet. */
  sayVnet(vnet: RunningVnet): void {
    this.sayToGroup(vnet, "plain", this.parts.underlays.usable());
  }

  /** They are peers from now on: who is there is asked. */
  peersAppeared(addresses: readonly string[]): void {
    for (const vnet of this.parts.vnets.running()) {
      for (const address of addresses) {
        this.parts.peers.sayTo(address, (underlay, send) => {
          const message = this.clearHello(vnet, "solicit", underlay);
          if (message !== undefined) send(message);
        });
      }
    }
  }

  /** Plain, by unicast, for a few vnets at a time: the other may not have all of them. */
  ask(underlay: Underlay, { address, port }: { address: string; port: number }): void {
    const vnets = this.parts.vnets.running();
    const asked = this.askedVnets;
    for (let at = 0; at < Math.min(vnetsPerAsk, vnets.length); at += 1) {
      const vnet = vnets[(asked + at) % vnets.length];
      const message = vnet === undefined ? undefined : this.clearHello(vnet, "solicit", underlay);
      if (message !== undefined) underlay.socket?.send(message, address, port);
    }
    this.askedVnets = asked + vnetsPerAsk;
  }

  private notePeers({ hostId, peers }: Hello, family: Family): void {
    const known = this.peersOf.get(hostId) ?? new Map<Family, NonNullable<Hello["peers"]>>();
    this.peersOf.set(hostId, known);
    if (peers === undefined) known.delete(family);
    else known.set(family, peers);
  }

  /** By all of its paths: by one that has multicast it hears what goes to the group. */
  isDirect({ paths }: Member): boolean {
    return paths.every(({ ifindex, address, capabilities }) => {
      if (wantsUnicast(capabilities)) return true;
      const underlay = this.parts.underlays.at(ifindex, familyOfText(address));
      return underlay !== undefined && this.parts.peers.usesUnicast(underlay);
    });
  }

  private directFlag(change: PathChange): number {
    const vnet = this.parts.vnets.byHandle().get(change.handle);
    // by an SA each frame comes once
    if (vnet?.secure !== undefined) return 0;
    const member = change.member ? this.members.at(change.handle, change) : undefined;
    return member !== undefined && this.isDirect(member) ? vnetdNexthopFlags.NEXTHOP_DIRECT : 0;
  }

  /** The data plane knows that a path of a member is used. */
  heard(vnet: RunningVnet, { address, ifindex }: Place): void {
    this.context.control.run({
      op: vnetdControlOp.CTL_HEARD,
      slot: vnet.slot,
      handle: vnet.handle,
      ifindex,
      addr: parseAddress(address),
    });
  }

  /** Paths that are sent to and silent, of hosts that have another. */
  private probePaths(now: number): void {
    const { maps, log } = this.context;
    const several = this.members.list().filter(({ paths }) => paths.length > 1);
    for (const member of several.slice(0, probesPerTick)) {
      const { handle, primary: path } = member;
      const { address, ifindex } = path;
      const vnet = this.parts.vnets.byHandle().get(handle);
      const underlay = this.parts.underlays.at(ifindex, familyOfText(address));
      const hop = maps.nexthopOf({ handle, ifindex, addr: parseAddress(address) });
      if (vnet === undefined || underlay === undefined || hop === undefined) continue;
      const times = {
        sentMs: Number(hop.sentNs / 1_000_000n),
        heardMs: Number(hop.heardNs / 1_000_000n),
      };
      const name = `${String(handle)} ${String(ifindex)} ${address}`;
      const verdict = this.probe.look(name, times, now);
      if (verdict === "ask") this.say(vnet, "solicit", underlay, address);
      if (verdict !== "dead") continue;
      log.say(
        "host_unheard",
        `${member.name}: no answer by ${underlay.device} from ${address}, trying another path`,
        { vnet: vnet.id, host: member.name, device: underlay.device },
      );
      this.apply(this.members.suspect(path, now));
    }
    this.probe.endTick();
  }

  private sayToGroup(vnet: RunningVnet, kind: HelloKind, underlays: readonly Underlay[]): void {
    // nothing that waits may come behind it
    if (kind === "goodbye") this.lists.flush();
    else if (this.readers.reads(vnet)) {
      for (const underlay of underlays) this.lists.add({ kind, underlay }, vnet);
      return;
    }
    for (const underlay of underlays) {
      const message = this.helloOf(vnet, kind, underlay);
      if (message === undefined) continue;
      const { security, peers } = this.parts;
      if (vnet.secure !== undefined) security.sendToAll(vnet, underlay, message);
      // who leaves is believed by an SA alone
      if (vnet.secure !== undefined && kind === "goodbye") continue;
      const clear = security.signed(vnet, message);
      peers.toAll(underlay, clear, { handle: vnet.handle, isHello: true });
    }
  }

  private say(vnet: RunningVnet, kind: HelloKind, underlay: Underlay, to: string): void {
    const message = this.helloOf(vnet, kind, underlay);
    if (message === undefined) return;
    if (vnet.secure === undefined) underlay.socket?.send(message, to);
    else this.parts.security.send(vnet, underlay.ifindex, to, message);
  }

  private clearHello(vnet: RunningVnet, kind: HelloKind, underlay: Underlay): Buffer | undefined {
    const message = this.helloOf(vnet, kind, underlay);
    return message === undefined ? undefined : this.parts.security.signed(vnet, message);
  }

  /** Those that this host hears. */
  private groupsOf({ id }: RunningVnet): VnetGroups {
    const { group, group6 } = this.parts.vnets.get(id)?.config ?? {};
    const hears = (each: string | undefined): each is string =>
      each !== undefined && !this.parts.underlays.membership.isDeafTo(each);
    return { ...(hears(group) ? { group } : {}), ...(hears(group6) ? { group6 } : {}) };
  }

  /** Unsigned. */
  helloOf(vnet: RunningVnet, kind: HelloKind, underlay: Underlay): Buffer | undefined {
    const address = this.careOf(underlay);
    if (address === undefined) return undefined;
    this.context.counts.sent.add(kind === "goodbye" ? "goodbye" : "hello");
    const unicast = this.parts.peers.usesUnicast(underlay) ? vnetdCapability.CAP_UNICAST : 0;
    const peers = this.parts.peers.helloPeers(underlay);
    const { hostId, bootNonce, hostName } = this.context;
    const extension = encodeHello({
      hostId,
      bootNonce,
      capabilities: vnetdCapability.CAP_HELLO | vnetdCapability.CAP_LISTS | unicast,
      underlayMtuBytes: underlay.state.mtuBytes,
      hostName,
      software: `vnetd ${version}`,
      solicit: kind === "solicit",
      goodbye: kind === "goodbye",
      ...(peers === undefined ? {} : { peers }),
      groups: this.groupsOf(vnet),
    });
    const vmac = macToBytes(vnet.vmac);
    return encodeVarp(
      { opcode: "announce", vnet: vnetIdToBytes(vnet.id), vmac, address },
      extension,
    );
  }
}

function wantsUnicast(capabilities: number): boolean {
  return (capabilities & vnetdCapability.CAP_UNICAST) !== 0;
}

function listed(addresses: readonly string[]): string {
  return `${addresses.slice(0, -1).join(", ")} and ${addresses.at(-1) ?? ""}`;
}

function flagsOf({ member, secondary }: PathChange): number {
  const { NEXTHOP_MEMBER, NEXTHOP_SECONDARY } = vnetdNexthopFlags;
  return (member ? NEXTHOP_MEMBER : 0) | (secondary ? NEXTHOP_SECONDARY : 0);
}
