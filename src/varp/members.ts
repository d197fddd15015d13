// SPDX-License-Identifier: Apache-2.0
/**
 * Who else is in a vnet, and by which paths: what the hellos said.
 *
 * In the path: a VARP announce with an extension -> heard() -> path changes, which the daemon
 * writes to the next-hop table (flags MEMBER and SECONDARY). Per (vnet, host) exactly one path is
 * primary: group frames that arrive by the others are copies and dropped, so two hosts that share
 * two LANs hear a broadcast once.
 *
 * The primary is kept while it is fresh. It changes when it was not heard for 2.5 hello
 * intervals, when our device goes down, and when the host shows a new address on the primary's
 * device (its address changed; its frames come from the new one from now on). Among equals the
 * lowest ifindex, then the lowest address wins. All tables are bounded.
 */

export interface MembersOptions {
  helloMs: number;
  maxHostsPerVnet: number;
  maxPathsPerHost: number;
  /** over all vnets */
  maxMembers: number;
}

export const membersDefaults: Omit<MembersOptions, "helloMs"> = {
  maxHostsPerVnet: 1024,
  maxPathsPerHost: 8,
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
  address: string;
  /** our device that it came by */
  ifindex: number;
}

/** What the next-hop record of this path must say. */
export interface PathChange {
  handle: number;
  address: string;
  ifindex: number;
  member: boolean;
  secondary: boolean;
  mtuBytes: number;
  capabilities: number;
}

export interface MemberPath {
  address: string;
  ifindex: number;
  mtuBytes: number;
  heardMs: number;
}

export interface Member {
  handle: number;
  hostId: string;
  bootNonce: string;
  capabilities: number;
  name: string;
  software: string;
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

const expiryIntervals = 3;
const staleIntervals = 2.5;

export class Members {
  private readonly vnets = new Map<number, Map<string, Member>>();
  private readonly downDevices = new Set<number>();
  private memberCount = 0;

  constructor(private readonly options: MembersOptions) {}

  get size(): number {
    return this.memberCount;
  }

  heard(hello: HeardHello, nowMs: number): HeardResult {
    const vnet = this.vnets.get(hello.handle) ?? new Map<string, Member>();
    const known = vnet.get(hello.hostId);
    if (known === undefined) {
      const full =
        vnet.size >= this.options.maxHostsPerVnet || this.memberCount >= this.options.maxMembers;
      if (full) return { isNew: false, refused: true, changes: [] };
      return { isNew: true, refused: false, changes: this.enter(vnet, hello, nowMs) };
    }
    return this.refresh(known, hello, nowMs);
  }

  /** The host leaves the vnet; by this path, or altogether when it was the last. */
  goodbye(
    handle: number,
    hostId: string,
    path: { address: string; ifindex: number },
  ): PathChange[] {
    const member = this.vnets.get(handle)?.get(hostId);
    const gone = member?.paths.find((p) => samePath(p, path));
    return member === undefined || gone === undefined ? [] : this.removePaths(member, [gone]);
  }

  deviceDown(ifindex: number): PathChange[] {
    this.downDevices.add(ifindex);
    return this.forEachMember((member) =>
      member.primary.ifindex === ifindex ? this.elect(member) : [],
    );
  }

  deviceUp(ifindex: number): void {
    this.downDevices.delete(ifindex);
  }

  /** The device is detached: its paths are no paths any more. */
  deviceGone(ifindex: number): PathChange[] {
    this.downDevices.delete(ifindex);
    return this.forEachMember((member) =>
      this.removePaths(
        member,
        member.paths.filter((path) => path.ifindex === ifindex),
      ),
    );
  }

  vnetGone(handle: number): void {
    this.memberCount -= this.vnets.get(handle)?.size ?? 0;
    this.vnets.delete(handle);
  }

  tick(nowMs: number): PathChange[] {
    const { helloMs } = this.options;
    return this.forEachMember((member) => {
      const expired = member.paths.filter((p) => nowMs - p.heardMs > expiryIntervals * helloMs);
      const changes = this.removePaths(member, expired);
      const stale = nowMs - member.primary.heardMs > staleIntervals * helloMs;
      return stale && member.paths.length > 0 ? [...changes, ...this.elect(member)] : changes;
    });
  }

  list(): Member[] {
    return [...this.vnets.values()].flatMap((vnet) => [...vnet.values()]);
  }

  ofVnet(handle: number): Member[] {
    return [...(this.vnets.get(handle)?.values() ?? [])];
  }

  private enter(vnet: Map<string, Member>, hello: HeardHello, nowMs: number): PathChange[] {
    const path = pathOf(hello, nowMs);
    const { handle, hostId, bootNonce, capabilities, name, software } = hello;
    const member = {
      handle,
      hostId,
      bootNonce,
      capabilities,
      name,
      software,
      paths: [path],
      primary: path,
    };
    vnet.set(hostId, member);
    this.vnets.set(handle, vnet);
    this.memberCount += 1;
    return [changeOf(member, path)];
  }

  private refresh(member: Member, hello: HeardHello, nowMs: number): HeardResult {
    const rebooted = member.bootNonce !== hello.bootNonce;
    const changed = member.capabilities !== hello.capabilities;
    const { bootNonce, capabilities, name, software } = hello;
    Object.assign(member, { bootNonce, capabilities, name, software });
    const path = member.paths.find((p) => samePath(p, hello));
    if (path === undefined) return this.addPath(member, hello, nowMs);
    const mtuChanged = path.mtuBytes !== hello.mtuBytes;
    path.heardMs = nowMs;
    path.mtuBytes = hello.mtuBytes;
    const changes = changed || mtuChanged ? [changeOf(member, path)] : [];
    return { isNew: rebooted, refused: false, changes };
  }

  private addPath(member: Member, hello: HeardHello, nowMs: number): HeardResult {
    const path = pathOf(hello, nowMs);
    const changes: PathChange[] = [];
    if (member.paths.length >= this.options.maxPathsPerHost) {
      const oldest = member.paths.reduce((a, b) => (b.heardMs < a.heardMs ? b : a));
      member.paths = member.paths.filter((p) => p !== oldest);
      changes.push(goneChange(member, oldest));
      if (oldest === member.primary) member.primary = path;
    }
    member.paths.push(path);
    // The host has a new address behind the primary's device: follow it.
    const primaryDown = this.downDevices.has(member.primary.ifindex);
    if (member.primary.ifindex === path.ifindex || primaryDown) {
      changes.push(...this.setPrimary(member, path));
    }
    changes.push(changeOf(member, path));
    return { isNew: true, refused: false, changes: lastPerPath(changes) };
  }

  private removePaths(member: Member, gone: readonly MemberPath[]): PathChange[] {
    if (gone.length === 0) return [];
    const changes = gone.map((path) => goneChange(member, path));
    member.paths = member.paths.filter((path) => !gone.includes(path));
    if (member.paths.length === 0) {
      this.vnets.get(member.handle)?.delete(member.hostId);
      this.memberCount -= 1;
      return changes;
    }
    return gone.includes(member.primary) ? [...changes, ...this.elect(member)] : changes;
  }

  /** The freshest usable path takes over; the present primary stays when there is none better. */
  private elect(member: Member): PathChange[] {
    const usable = member.paths.filter((p) => !this.downDevices.has(p.ifindex));
    const newestMs = Math.max(...usable.map((p) => p.heardMs));
    // Hellos leave by all devices at the same time: those of the last round are equals.
    const fresh = usable.filter((p) => newestMs - p.heardMs < this.options.helloMs / 2);
    const best = fresh.sort(
      (a, b) => a.ifindex - b.ifindex || a.address.localeCompare(b.address),
    )[0];
    if (best !== undefined) return this.setPrimary(member, best);
    const kept = member.paths.includes(member.primary) ? member.primary : member.paths[0];
    return kept === undefined ? [] : this.setPrimary(member, kept);
  }

  private setPrimary(member: Member, path: MemberPath): PathChange[] {
    if (member.primary === path && member.paths.includes(path)) return [];
    const before = member.primary;
    member.primary = path;
    const changes = member.paths.includes(before) ? [changeOf(member, before)] : [];
    return [...changes, changeOf(member, path)];
  }

  private forEachMember(each: (member: Member) => PathChange[]): PathChange[] {
    return this.list().flatMap(each);
  }
}

function pathOf(hello: HeardHello, nowMs: number): MemberPath {
  const { address, ifindex, mtuBytes } = hello;
  return { address, ifindex, mtuBytes, heardMs: nowMs };
}

function samePath(a: { address: string; ifindex: number }, b: typeof a): boolean {
  return a.address === b.address && a.ifindex === b.ifindex;
}

function changeOf(member: Member, path: MemberPath): PathChange {
  const { address, ifindex, mtuBytes } = path;
  const { handle, capabilities } = member;
  const secondary = member.primary !== path;
  return { handle, address, ifindex, member: true, secondary, mtuBytes, capabilities };
}

function goneChange(member: Member, { address, ifindex, mtuBytes }: MemberPath): PathChange {
  const { handle, capabilities } = member;
  return { handle, address, ifindex, member: false, secondary: false, mtuBytes, capabilities };
}

function lastPerPath(changes: readonly PathChange[]): PathChange[] {
  const last = new Map(changes.map((c) => [`${String(c.ifindex)} ${c.address}`, c]));
  return [...last.values()];
}
