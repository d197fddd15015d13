// SPDX-License-Identifier: Apache-2.0
/**
 * Membership in the underlay's group: an address with autojoin, which belongs to the device and not to a
 * socket, so it is there while no daemon runs, and the kernel answers queriers (IGMP, MLD) for it.
 */
import { addressToText, type Family } from "../base/address.js";
import { vnetdFamily, type VnetdPlace, type VnetdUnderlay } from "../generated/layouts.js";
import { errnoName, kernel } from "../host/errno.js";
import type { UnderlayState } from "../host/underlay-state.js";
import type { Context } from "./context.js";

export class GroupMembership {
  constructor(private readonly context: Context) {}

  groupOf(family: Family): string {
    const { group, group6 } = this.context.config;
    return family === 4 ? group : group6;
  }

  /**
   * Made to fit. Returns whether what the host sends to the group leaves it now, which it did not before: of
   * IPv6 the kernel makes the local route a moment after the address, and tells of the address then.
   */
  join({ ifindex, family, groupJoined }: UnderlayState): boolean {
    const { native } = this.context;
    const group = this.groupOf(family);
    if (!groupJoined) {
      this.leave({ ifindex, family });
      const bits = prefixOf(family);
      kernel("joining the group", () => native.addressAdd(ifindex, group, bits, true));
    }
    // With it the host would keep to itself what it sends to the group.
    return native.routeDeleteLocal(ifindex, group);
  }

  leave(place: VnetdPlace, group = this.groupOf(familyOf(place))): void {
    try {
      this.context.native.addressDelete(place.ifindex, group, prefixOf(familyOf(place)));
    } catch (error) {
      if (!["EADDRNOTAVAIL", "ENODEV"].includes(errnoName(error))) throw error;
    }
  }

  /** The group that was joined when the record was written, if the configuration had another. */
  leaveOld(record: VnetdUnderlay | undefined): void {
    if (record === undefined) return;
    const group = addressToText(record.group);
    if (group !== this.groupOf(familyOf(record))) this.leave(record, group);
  }
}

function familyOf({ family }: VnetdPlace): Family {
  return family === vnetdFamily.FAMILY_IPV6 ? 6 : 4;
}

function prefixOf(family: Family): number {
  return family === 4 ? 32 : 128;
}
