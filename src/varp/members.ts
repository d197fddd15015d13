// SPDX-License-Identifier: Apache-2.0
/**
 * Who else is in a vnet, and by which paths: what the hellos said.
 *
 * In the path: a VARP announce with an extension -> heard() -> path changes, which the daemon
 * writes to the next-hop table. Per (vnet, host) exactly one path is primary and the others name
 * it: the data plane then knows that they lead to one host, so that it tells copies of group
 * frames and has another way to go when one is silent.
 *
 * A host is a host id and a boot nonce: paths whose hellos have the same id but another nonce are
 * never taken for one host. After a reboot a host's paths come over one by one. Two nonces that are
 * heard by turns are two machines with one id (a copied disk); clones() names them.
 *
 * The primary is kept while it is fresh. It changes when it was not heard for 2.5 hello
 * intervals, when it did not answer (src/varp/path-probe.ts), when our device goes down, and when
 * the host shows a new address on the primary's device and of its IP family (its address changed;
 * its frames come from the new one from now on). A host that is heard by both families is one host
 * with two paths. Among equals the lowest ifindex, then the lowest address wins. All tables are
 * bounded.
 */
import { familyOfText } from "../base/address.js";
import type { VnetGroups } from "../base/vnet-group.js";
import { vnetdLimits } from "../generated/layouts.js";

export interface MembersOptions {
  helloMs: number;
  maxHostsPerVnet: number;
  maxPathsPerHost: number;
  /** over all vnets */
  maxMembers: number;
}

export const membersDefaults: Omit<MembersOptions, "helloMs"> = {
  maxHostsPerVnet: 1024,
  maxPathsPerHost: vnetdLimits.MAX_PATHS,
  maxMembers: 65_536,
};

export interface HeardHello {
  handle: number;
  hostId: string;
  bootNonce: string;
  capabilities: number;
  mtuBytes: number;
  name: string;
  software: string;
  /** the vnet's own, of both families; left out: there is none */
  groups?: VnetGroups;
  address: string;
  /** our device that it came by */
  ifindex: number;
}

/** An address of the host and our device that it is reached by. */
export interface Place {
  address: string;
  ifindex: number;
}

/** What the next-hop record of this path must say. */
export interface PathChange extends Place {
  handle: number;
  member: boolean;
  secondary: boolean;
  mtuBytes: number;
  capabilities: number;
  hostId: string;
  /** number of the path, below maxPathsPerHost, different for each path of a host */
  path: number;
  /** of the primary path the next best, of the others the primary */
  other: Place | undefined;
}

export interface MemberPath extends Place {
  path: number;
  mtuBytes: number;
  /** what its hellos by this path say: it may use multicast by one and not by another */
  capabilities: number;
  heardMs: number;
}

export interface Member {
  handle: number;
  hostId: string;
  bootNonce: string;
  name: string;
  software: string;
  groups: VnetGroups;
  paths: MemberPath[];
  primary: MemberPath;
}

export interface HeardResult {
  /** a host, a path or a boot that was not known: answer it with a hello of ours */
  isNew: boolean;
  /** the tables are full, nothing was entered */
  refused: boolean;
  changes: PathChange[];
}

/** Machines that have one host id, each by the addresses that it is heard from. */
export interface Clones {
  hostId: string;
  addresses: string[];
}

/** What tells a reboot from a clone: how often a boot was heard again after another. */
interface Boots {
  latest: string;
  returns: number;
  returnedMs: number;
}

interface VnetMembers {
  /** by host id and boot nonce */
  members: Map<string, Member>;
  /** whose path it is, by address and device: one member's */
  owners: Map<string, Member>;
  /** by host id */
  boots: Map<string, Boots>;
}

const expiryIntervals = 3;
const staleIntervals = 2.5;
/** nonces A, B, A, B: B came back once, and A. A reboot is A, A, B, B. */
const cloneReturns = 2;

export class Members {
  private readonly vnets = new Map<number, VnetMembers>();
  /** places of the underlay that are down, by carrierKey() */
  private readonly down = new Set<string>();
  private memberCount = 0;

  constructor(private options: MembersOptions) {}

  /** Another interval of hellos: who is silent is given up by it from now on. */
  setHelloMs(helloMs: number): void {
    this.options = { ...this.options, helloMs };
  }

  get size(): number {
    return this.memberCount;
  }

  heard(hello: HeardHello, nowMs: number): HeardResult {
    const vnet = this.vnetOf(hello.handle);
    const known = vnet.members.get(memberKey(hello));
    const owner = vnet.owners.get(placeKey(hello));
    if (known !== undefined && known === owner) {
      this.noteBoot(vnet, hello, nowMs);
      return this.refresh(known, hello, nowMs);
    }
    if (known === undefined && this.isFull(vnet, owner)) {
      return { isNew: false, refused: true, changes: [] };
    }
    // Before the old boot's record may go with its last path.
    this.noteBoot(vnet, hello, nowMs);
    const path = placeKey(hello);
    const left =
      owner === undefined
        ? []
        : this.removePaths(
            owner,
            owner.paths.filter((p) => placeKey(p) === path),
          );
    const entered =
      known === undefined
        ? this.enter(vnet, hello, nowMs)
        : this.addPath(vnet, known, hello, nowMs);
    return { isNew: true, refused: false, changes: lastPerPath([...left, ...entered]) };
  }

  /** The host leaves the vnet; by this path, or altogether when it was the last. */
  goodbye(handle: number, hostId: string, place: Place): PathChange[] {
    const owner = this.vnets.get(handle)?.owners.get(placeKey(place));
    if (owner?.hostId !== hostId) return [];
    const gone = owner.paths.filter((path) => placeKey(path) === placeKey(place));
    return this.removePaths(owner, gone);
  }

  /** Asked in vain: in all vnets another path takes over, if one was heard lately. */
  suspect(place: Place, nowMs: number): PathChange[] {
    const key = placeKey(place);
    return this.forEachMember((member) => {
      const path = member.paths.find((each) => placeKey(each) === key);
      if (path === undefined) return [];
      path.heardMs = Math.min(path.heardMs, nowMs - staleIntervals * this.options.helloMs);
      return member.primary === path ? this.elect(member) : [];
    });
  }

  carrierDown(carrier: Carrier): PathChange[] {
    this.down.add(carrierKey(carrier));
    return this.forEachMember((member) =>
      isBy(member.primary, carrier) ? this.elect(member) : [],
    );
  }

  carrierUp(carrier: Carrier): void {
    this.down.delete(carrierKey(carrier));
  }

  /** The device is detached, or used with that family no more: its paths are no paths any more. */
  carrierGone(carrier: Carrier): PathChange[] {
    this.down.delete(carrierKey(carrier));
    return this.forEachMember((member) =>
      this.removePaths(
        member,
        member.paths.filter((path) => isBy(path, carrier)),
      ),
    );
  }

  vnetGone(handle: number): void {
    this.memberCount -= this.vnets.get(handle)?.members.size ?? 0;
    this.vnets.delete(handle);
  }

  tick(nowMs: number): PathChange[] {
    const { helloMs } = this.options;
    const isExpired = ({ heardMs }: MemberPath): boolean =>
      nowMs - heardMs > expiryIntervals * helloMs;
    return this.forEachMember((member) => {
      if (member.paths.every((path) => isExpired(path))) return this.lose(member);
      // One path alone: not while the others are about to go with it.
      const newestMs = Math.max(...member.paths.map(({ heardMs }) => heardMs));
      const expired = member.paths.filter(
        (path) => isExpired(path) && newestMs - path.heardMs > helloMs,
      );
      const changes = this.removePaths(member, expired);
      const stale = nowMs - member.primary.heardMs > staleIntervals * helloMs;
      return stale && member.paths.length > 0 ? [...changes, ...this.elect(member)] : changes;
    });
  }

  list(): Member[] {
    return [...this.vnets.values()].flatMap(({ members }) => [...members.values()]);
  }

  /** The host whose path this is. */
  at(handle: number, place: Place): Member | undefined {
    return this.vnets.get(handle)?.owners.get(placeKey(place));
  }

  /** What tells the host behind an address from others; the same for all its paths. */
  hostKeyOf(handle: number, address: string): string | undefined {
    for (const { hostId, bootNonce, paths } of this.ofVnet(handle))
      if (paths.some((path) => path.address === address)) return `${hostId} ${bootNonce}`;
    return undefined;
  }

  /** What the records of all paths must say. */
  records(): PathChange[] {
    return this.forEachMember((member) => this.changesOf(member));
  }

  ofVnet(handle: number): Member[] {
    return [...(this.vnets.get(handle)?.members.values() ?? [])];
  }

  /** Host ids that more than one machine has. */
  clones(nowMs: number): Clones[] {
    const addresses = new Map<string, Set<string>>();
    for (const { members, boots } of this.vnets.values()) {
      for (const { hostId, primary } of members.values()) {
        const seen = boots.get(hostId);
        if (seen === undefined || !this.isClone(seen, nowMs)) continue;
        const all = addresses.get(hostId) ?? new Set<string>();
        addresses.set(hostId, all.add(primary.address));
      }
    }
    return [...addresses]
      .filter(([, all]) => all.size > 1)
      .map(([hostId, all]) => ({ hostId, addresses: [...all].sort() }));
  }

  private isClone({ returns, returnedMs }: Boots, nowMs: number): boolean {
    return returns >= cloneReturns && nowMs - returnedMs <= expiryIntervals * this.options.helloMs;
  }

  private noteBoot(vnet: VnetMembers, hello: HeardHello, nowMs: number): void {
    const { hostId, bootNonce } = hello;
    const boots = vnet.boots.get(hostId);
    if (boots === undefined) {
      vnet.boots.set(hostId, { latest: bootNonce, returns: 0, returnedMs: nowMs });
      return;
    }
    if (boots.latest === bootNonce) return;
    boots.latest = bootNonce;
    const isReturn = vnet.members.has(memberKey(hello));
    if (!isReturn) return;
    const old = nowMs - boots.returnedMs > expiryIntervals * this.options.helloMs;
    boots.returns = old ? 1 : boots.returns + 1;
    boots.returnedMs = nowMs;
  }

  private vnetOf(handle: number): VnetMembers {
    const vnet = this.vnets.get(handle) ?? {
      members: new Map<string, Member>(),
      owners: new Map<string, Member>(),
      boots: new Map<string, Boots>(),
    };
    this.vnets.set(handle, vnet);
    return vnet;
  }

  /** No room for another; but a boot of a host whose last path moves to the next takes its place. */
  private isFull({ members }: VnetMembers, owner: Member | undefined): boolean {
    const freed = owner?.paths.length === 1 ? 1 : 0;
    return (
      members.size - freed >= this.options.maxHostsPerVnet ||
      this.memberCount - freed >= this.options.maxMembers
    );
  }

  private enter(vnet: VnetMembers, hello: HeardHello, nowMs: number): PathChange[] {
    const path = pathOf(hello, 0, nowMs);
    const { handle, hostId, bootNonce, name, software, groups = {} } = hello;
    const host = { handle, hostId, bootNonce, name, software, groups };
    const member = { ...host, paths: [path], primary: path };
    vnet.members.set(memberKey(hello), member);
    vnet.owners.set(placeKey(path), member);
    this.memberCount += 1;
    return this.changesOf(member);
  }

  private refresh(member: Member, hello: HeardHello, nowMs: number): HeardResult {
    const { capabilities, mtuBytes, name, software, groups = {} } = hello;
    const path = member.paths.find((p) => placeKey(p) === placeKey(hello));
    const changed =
      path !== undefined && (path.capabilities !== capabilities || path.mtuBytes !== mtuBytes);
    Object.assign(member, { name, software, groups });
    if (path !== undefined) Object.assign(path, { heardMs: nowMs, mtuBytes, capabilities });
    return { isNew: false, refused: false, changes: changed ? this.changesOf(member) : [] };
  }

  private addPath(
    vnet: VnetMembers,
    member: Member,
    hello: HeardHello,
    nowMs: number,
  ): PathChange[] {
    const changes: PathChange[] = [];
    let primaryLeft = false;
    if (member.paths.length >= this.options.maxPathsPerHost) {
      const oldest = member.paths.reduce((a, b) => (b.heardMs < a.heardMs ? b : a));
      member.paths = member.paths.filter((p) => p !== oldest);
      vnet.owners.delete(placeKey(oldest));
      changes.push(goneChange(member, oldest));
      primaryLeft = oldest === member.primary;
    }
    const number = freeNumber(member.paths);
    const path = pathOf(hello, number, nowMs);
    member.paths.push(path);
    vnet.owners.set(placeKey(path), member);
    const { name, software, groups = {} } = hello;
    Object.assign(member, { name, software, groups });
    // The host has a new address where the primary is: follow it.
    const primary = carrierOf(member.primary);
    const follows = primary === carrierOf(path);
    if (primaryLeft || follows || this.down.has(primary)) {
      member.primary = path;
    }
    return [...changes, ...this.changesOf(member)];
  }

  private removePaths(member: Member, gone: readonly MemberPath[]): PathChange[] {
    if (gone.length === 0) return [];
    const vnet = this.vnetOf(member.handle);
    const changes = gone.map((path) => goneChange(member, path));
    for (const path of gone) vnet.owners.delete(placeKey(path));
    member.paths = member.paths.filter((path) => !gone.includes(path));
    if (member.paths.length === 0) {
      this.removeMember(vnet, member);
      return changes;
    }
    const elected = gone.includes(member.primary) ? this.elect(member) : this.changesOf(member);
    return [...changes, ...elected];
  }

  /**
   * It says hello no more, and may forward frames all the same, with no daemon: its paths still lead
   * to one host, so that nothing of it comes twice. A path that is gone is not heard.
   */
  private lose(member: Member): PathChange[] {
    const changes = this.changesOf(member).map((change) => ({ ...change, member: false }));
    this.removePaths(member, member.paths);
    return changes;
  }

  private removeMember(vnet: VnetMembers, member: Member): void {
    vnet.members.delete(memberKey(member));
    this.memberCount -= 1;
    const { hostId } = member;
    const others = [...vnet.members.values()].some((other) => other.hostId === hostId);
    if (!others) vnet.boots.delete(hostId);
  }

  /** The freshest usable path takes over; the present primary stays when there is none better. */
  private elect(member: Member): PathChange[] {
    const best = this.best(member.paths);
    const kept = member.paths.includes(member.primary) ? member.primary : member.paths[0];
    const primary = best ?? kept;
    if (primary === undefined || primary === member.primary) return [];
    member.primary = primary;
    return this.changesOf(member);
  }

  private best(paths: readonly MemberPath[]): MemberPath | undefined {
    const usable = paths.filter((p) => !this.down.has(carrierOf(p)));
    const newestMs = Math.max(...usable.map((p) => p.heardMs));
    // Hellos leave by all devices at the same time: those of the last round are equals.
    const fresh = usable.filter((p) => newestMs - p.heardMs < this.options.helloMs / 2);
    return fresh.sort((a, b) => a.ifindex - b.ifindex || a.address.localeCompare(b.address))[0];
  }

  /** All paths of the host: each names another. */
  private changesOf(member: Member): PathChange[] {
    const { primary, paths } = member;
    const others = paths.filter((path) => path !== primary);
    const next = this.best(others) ?? others[0];
    return paths.map((path) => changeOf(member, path, path === primary ? next : primary));
  }

  private forEachMember(each: (member: Member) => PathChange[]): PathChange[] {
    return this.list().flatMap(each);
  }
}

/** What carries a path: a device of ours, with an IP family. */
export interface Carrier {
  ifindex: number;
  family: number;
}

function carrierKey({ ifindex, family }: Carrier): string {
  return `${String(ifindex)} IPv${String(family)}`;
}

function carrierOf({ ifindex, address }: Place): string {
  return carrierKey({ ifindex, family: familyOfText(address) });
}

function isBy(path: MemberPath, carrier: Carrier): boolean {
  return carrierOf(path) === carrierKey(carrier);
}

function memberKey({ hostId, bootNonce }: { hostId: string; bootNonce: string }): string {
  return `${hostId} ${bootNonce}`;
}

function placeOf({ address, ifindex }: Place): Place {
  return { address, ifindex };
}

function pathOf(hello: HeardHello, path: number, heardMs: number): MemberPath {
  const { mtuBytes, capabilities } = hello;
  return { ...placeOf(hello), path, mtuBytes, capabilities, heardMs };
}

function placeKey({ address, ifindex }: Place): string {
  return `${String(ifindex)} ${address}`;
}

function freeNumber(paths: readonly MemberPath[]): number {
  const taken = new Set(paths.map(({ path }) => path));
  let number = 0;
  while (taken.has(number)) number += 1;
  return number;
}

function changeOf(member: Member, path: MemberPath, other: MemberPath | undefined): PathChange {
  const { handle, hostId } = member;
  return {
    ...placeOf(path),
    handle,
    member: true,
    secondary: member.primary !== path,
    mtuBytes: path.mtuBytes,
    capabilities: path.capabilities,
    hostId,
    path: path.path,
    other: other === undefined ? undefined : placeOf(other),
  };
}

/** What is left of it is a host like any other, known by its frames alone. */
function goneChange(member: Member, path: MemberPath): PathChange {
  return {
    ...changeOf(member, path, undefined),
    member: false,
    secondary: false,
    hostId: "",
    path: 0,
  };
}

function lastPerPath(changes: readonly PathChange[]): PathChange[] {
  return [...new Map(changes.map((change) => [placeKey(change), change])).values()];
}
