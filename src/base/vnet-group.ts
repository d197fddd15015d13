// SPDX-License-Identifier: Apache-2.0
/**
 * Which multicast groups a vnet may have for its own. Refused is what switches send everywhere, what never leaves
 * the host, and what is assigned to others.
 */
import {
  addressBytesFromText,
  addressToText,
  isMappedIpv4,
  isMulticastAddress,
  parseAddress,
} from "./address.js";

/** What frames for all of a vnet go to in place of the default group; left out: that. */
export interface VnetGroups {
  /** IPv4 */
  group?: string;
  group6?: string;
}

/** The canonical text, or why it can be no vnet's group. */
export function vnetGroupOf(
  text: string,
  name: keyof VnetGroups,
): { group: string } | { problem: string } {
  const bytes = addressBytesFromText(text);
  const isIpv4 = bytes !== undefined && isMappedIpv4(bytes);
  if (bytes === undefined || isIpv4 !== (name === "group") || !isMulticastAddress(bytes))
    return { problem: `it is no IPv${name === "group" ? "4" : "6"} multicast address` };
  const problem = isIpv4 ? problemOfIpv4(bytes) : problemOfIpv6(bytes);
  return problem === undefined ? { group: addressToText(bytes) } : { problem };
}

/** RFC 5771 section 4: the local network control block; RFC 4541: switches send it to all ports. */
function problemOfIpv4(bytes: Uint8Array): string | undefined {
  const isControl = bytes[12] === 224 && bytes[13] === 0 && bytes[14] === 0;
  return isControl ? "224.0.0.x is for control, and switches send it to all ports" : undefined;
}

/** RFC 4291 section 2.7 */
function problemOfIpv6(bytes: Uint8Array): string | undefined {
  const second = bytes[1] ?? 0;
  if ((second & 0x0f) < 2) return "a group of this scope never leaves the host";
  return second < 0x10 ? "ff00::/12 is assigned to protocols" : undefined;
}

/** Of a vnet's configuration; what is left out is left out here. */
export function onlyGroups({ group, group6 }: VnetGroups): VnetGroups {
  return {
    ...(group === undefined ? {} : { group }),
    ...(group6 === undefined ? {} : { group6 }),
  };
}

export function sameGroups(a: VnetGroups, b: VnetGroups): boolean {
  return a.group === b.group && a.group6 === b.group6;
}

/** For people: "239.1.2.3", both with "and", or "none". */
export function groupsText({ group, group6 }: VnetGroups): string {
  const groups = [group, group6].filter((each) => each !== undefined);
  return groups.length === 0 ? "none" : groups.join(" and ");
}

/** Those of several vnets, for who joins or leaves them. */
export function groupsOf(vnets: readonly VnetGroups[]): string[] {
  return vnets.flatMap(({ group, group6 }) => [group ?? [], group6 ?? []].flat());
}

/** As maps have them. */
export function groupBytesOf({ group, group6 }: VnetGroups): {
  group?: Uint8Array;
  group6?: Uint8Array;
} {
  return {
    ...(group === undefined ? {} : { group: parseAddress(group) }),
    ...(group6 === undefined ? {} : { group6: parseAddress(group6) }),
  };
}

/** As the socket's API has them. */
export function shownGroups({ group, group6 }: VnetGroups): {
  group: string | null;
  group6: string | null;
} {
  return { group: group ?? null, group6: group6 ?? null };
}
