// SPDX-License-Identifier: Apache-2.0
/**
 * Membership in the underlay's groups, the default one and those of vnets: an address with autojoin, which belongs to the device and
 * not to a socket, so it is there while no daemon runs, and the kernel answers queriers (IGMP, MLD) for it.
 *
 * A device that cannot join the default group is of no use. One that cannot join a vnet's carries the others: it is said, and
 * tried again.
 */
import { addressToText, familyOfText, type Family } from "../base/address.js";
import { vnetdFamily, type VnetdPlace, type VnetdUnderlay } from "../generated/layouts.js";
import { errnoName, kernel, kernelError } from "../host/errno.js";
import { membershipSetting, raiseMemberships } from "../host/group-limit.js";
import type { UnderlayState } from "../host/underlay-state.js";
import type { Context } from "./context.js";

/** beyond those that are wanted: of other devices, and of vnets to come */
const spareMemberships = 64;
const maxNamed = 3;

export class GroupMembership {
  /** groups that vnets have or had: an address with autojoin that is none of these is somebody else's */
  private readonly ours: Set<string>;
  /** by device and group: joined without an address, so there is no local route either */
  private readonly outliving = new Set<string>();
  /** by device and group: why it is not joined */
  private readonly failures = new Map<string, string>();

  constructor(
    private readonly context: Context,
    private readonly ofVnets: () => readonly string[],
  ) {
    this.ours = new Set(context.table.groups().map(addressToText));
  }

  groupOf(family: Family): string {
    const { group, group6 } = this.context.config;
    return family === 4 ? group : group6;
  }

  /**
   * Joins all that are wanted, and leaves what no vnet has any more. Returns whether what the host sends to the
   * default group leaves it now, which it did not before: of IPv6 the kernel makes the local route a moment after
   * the address, and tells of the address then.
   */
  join(state: UnderlayState): boolean {
    const { ifindex, family, groupJoined } = state;
    const { native } = this.context;
    const group = this.groupOf(family);
    if (!groupJoined) {
      this.leave({ ifindex, family });
      const bits = prefixOf(family);
      kernel("joining the group", () => this.add(ifindex, group, bits));
    }
    // With it the host would keep to itself what it sends to the group.
    const reaches = native.routeDeleteLocal(ifindex, group);
    this.joinVnets(state, group);
    return reaches;
  }

  /** The default group, or another. */
  leave(place: VnetdPlace, group = this.groupOf(familyOfPlace(place))): void {
    try {
      this.context.native.addressDelete(place.ifindex, group, prefixOf(familyOfPlace(place)));
    } catch (error) {
      if (!["EADDRNOTAVAIL", "ENODEV"].includes(errnoName(error))) throw error;
    }
  }

  /** Those of vnets. */
  leaveVnets(place: VnetdPlace): void {
    const wanted = familyOfPlace(place);
    this.forget(place, () => true);
    if (this.ours.size === 0) return;
    for (const { ifindex, family, address, autojoin } of this.context.native.addressList()) {
      const isOurs = autojoin && address !== this.groupOf(family) && this.ours.has(address);
      if (isOurs && ifindex === place.ifindex && family === wanted) this.leave(place, address);
    }
  }

  /** The group that was joined when the record was written, if the configuration had another. */
  leaveOld(record: VnetdUnderlay | undefined): void {
    if (record === undefined) return;
    const group = addressToText(record.group);
    if (group !== this.groupOf(familyOfPlace(record))) this.leave(record, group);
  }

  /** The default group's address was taken away with the link, and the membership was not. */
  outlives(place: VnetdPlace): boolean {
    return this.outliving.has(keyOf(place, this.groupOf(familyOfPlace(place))));
  }

  /** Whether a device cannot join it: others are told that this host does not hear it. */
  isDeafTo(group: string): boolean {
    return [...this.failures.keys()].some((key) => key.endsWith(` ${group}`));
  }

  problems(): string[] {
    const all = [...this.failures.values()];
    const rest = all.length - maxNamed;
    return rest <= 0
      ? all
      : [...all.slice(0, maxNamed), `and ${String(rest)} more groups of vnets are not joined`];
  }

  private joinVnets({ ifindex, family, device, joined }: UnderlayState, group: string): void {
    const wanted = new Set(this.ofVnets().filter((each) => familyOfText(each) === family));
    for (const each of wanted) this.ours.add(each);
    const there = new Set(joined);
    const place = {
      ifindex,
      family: family === 6 ? vnetdFamily.FAMILY_IPV6 : vnetdFamily.FAMILY_IPV4,
    };
    for (const each of there)
      if (each !== group && !wanted.has(each) && this.ours.has(each)) this.leave(place, each);
    this.forget(place, (each) => !wanted.has(each));
    for (const each of wanted) {
      if (there.has(each) || each === group) continue;
      this.joinOne(place, each, device);
    }
  }

  private joinOne(place: VnetdPlace, group: string, device: string): void {
    const key = keyOf(place, group);
    try {
      // there without autojoin: somebody's own, which does not join
      this.leave(place, group);
      this.add(place.ifindex, group, prefixOf(familyOfPlace(place)));
      this.context.native.routeDeleteLocal(place.ifindex, group);
      this.failures.delete(key);
    } catch (error) {
      const text = `${device}: the group ${group} of a vnet cannot be joined: ${kernelError("joining it", error).message}${hintFor(error)}`;
      if (this.failures.get(key) === text) return;
      this.failures.set(key, text);
      this.context.log.say("group_failed", text, { device, reason: errnoName(error) });
    }
  }

  private add(ifindex: number, group: string, bits: number): void {
    const { native } = this.context;
    try {
      native.addressAdd(ifindex, group, bits, true);
    } catch (error) {
      // the kernel takes an IPv6 address away with the link, and not the membership, which then cannot be asked for again
      if (errnoName(error) === "EADDRINUSE" && familyOfText(group) === 6) {
        this.outliving.add(keyOf({ ifindex, family: vnetdFamily.FAMILY_IPV6 }, group));
        return;
      }
      const isFull = errnoName(error) === "ENOBUFS" && familyOfText(group) === 4;
      // raised for vnets' groups alone: without them the limit is as somebody wants it
      if (!isFull || this.ofVnets().length === 0 || !this.raise()) throw error;
      native.addressAdd(ifindex, group, bits, true);
    }
  }

  /** The kernel's socket for autojoin has as many as it may have. */
  private raise(): boolean {
    const { native, log } = this.context;
    const joined = native.addressList().filter(({ autojoin }) => autojoin).length;
    const least = joined + this.ofVnets().length + spareMemberships;
    if (!raiseMemberships(least)) return false;
    log.say("group_limit", `${membershipSetting} is ${String(least)} now, for the groups of vnets`);
    return true;
  }

  private forget({ ifindex }: VnetdPlace, isGone: (group: string) => boolean): void {
    for (const key of this.failures.keys()) {
      const [index, group = ""] = key.split(" ");
      if (Number(index) === ifindex && isGone(group)) this.failures.delete(key);
    }
  }
}

function keyOf({ ifindex }: VnetdPlace, group: string): string {
  return `${String(ifindex)} ${group}`;
}

function hintFor(error: unknown): string {
  return ["ENOBUFS", "ENOMEM"].includes(errnoName(error))
    ? ` (${membershipSetting} and net.core.optmem_max say how many a host may join)`
    : "";
}

function familyOfPlace({ family }: VnetdPlace): Family {
  return family === vnetdFamily.FAMILY_IPV6 ? 6 : 4;
}

function prefixOf(family: Family): number {
  return family === 4 ? 32 : 128;
}
