// SPDX-License-Identifier: Apache-2.0
/** What src/controller/peers.ts decides by: peers, members and hosts as they are placed, and by family. */
import {
  addressBytesFromText,
  familyOfText,
  isLinkLocalAddress,
  parseAddress,
  type Family,
} from "../base/address.js";
import type { PeerWay } from "../api/contract.js";
import { vnetdForward } from "../generated/layouts.js";
import { sameSubnet, type ForwardingHost } from "../varp/peer-mesh.js";
import type { PeerAddress } from "../varp/peer-table.js";
import type { HelloPeers } from "../wire/hello.js";
import type { Underlay } from "./underlays.js";

/** A host of ours that was heard, as far as it matters here. */
export interface HeardHost {
  name: string;
  addresses: string[];
  /** of these, where it says that it uses no multicast */
  unicast: Set<string>;
  /** by family; left out: it has none of that */
  peers: ReadonlyMap<Family, HelloPeers>;
}

/** A member of a vnet that is sent group traffic by unicast. */
export interface UnicastMember {
  handle: number;
  address: string;
  ifindex: number;
}

export interface Placed extends PeerAddress {
  ifindex: number;
  way: PeerWay;
  problem: string;
}

export function onSubnetOf({ state }: Underlay, address: string): boolean {
  if (state.address === null || addressBytesFromText(address) === undefined) return false;
  return sameSubnet(state.address, address, state.prefixLength);
}

/** Hosts that forward what goes to a family's group. */
export function forwardingBy(hosts: readonly HeardHost[], family: Family): ForwardingHost[] {
  return hosts.flatMap(({ name, addresses, peers }) => {
    const said = peers.get(family);
    if (said === undefined || said.more) return [];
    const own = addresses.filter((address) => familyOfText(address) === family);
    const { prefixLength, addresses: theirs } = said;
    return own.length === 0 ? [] : [{ name, addresses: own, prefixLength, peers: theirs }];
  });
}

export function isForwardedTo({ way }: { way: PeerWay }): boolean {
  return way === "vfwd" || way === "unicast";
}

/** bits of enum vnetd_forward */
export function familiesOf(places: readonly { address: string }[]): number {
  const { FORWARD_IPV4, FORWARD_IPV6 } = vnetdForward;
  return places
    .map(({ address }) => (familyOfText(address) === 4 ? FORWARD_IPV4 : FORWARD_IPV6))
    .reduce((families: number, bit) => families | bit, 0);
}

export function notCarried(family: Family): string {
  return `no attached device carries IPv${String(family)}`;
}

/** `peers`: the addresses of each. A name may stand for some of a family that this host does not have, beside others. */
export function unreachable(
  placed: readonly Placed[],
  peers: readonly (readonly string[])[],
): string[] {
  const reached = new Set(
    placed.filter(({ ifindex }) => ifindex !== 0).map(({ address }) => address),
  );
  const needless = new Set(
    peers.filter((addresses) => addresses.some((each) => reached.has(each))).flat(),
  );
  return placed
    .filter(({ problem }) => problem !== "")
    .filter(
      ({ address, problem }) =>
        problem !== notCarried(familyOfText(address)) || !needless.has(address),
    )
    .map(({ address, problem }) => `peer ${address}: ${problem}`);
}

export function isLinkLocal({ state }: Underlay): boolean {
  return state.address !== null && isLinkLocalAddress(parseAddress(state.address));
}

export function byAddress(hosts: readonly HeardHost[]): Map<string, HeardHost> {
  return new Map(hosts.flatMap((host) => host.addresses.map((address) => [address, host])));
}

/** Members of each vnet get numbers from 0 on. */
export function numbered(
  members: readonly UnicastMember[],
): { handle: number; number: number; address: string; ifindex: number }[] {
  const next = new Map<number, number>();
  return members.map((member) => {
    const number = next.get(member.handle) ?? 0;
    next.set(member.handle, number + 1);
    return { ...member, number };
  });
}

export function isAnyUnknown(placed: readonly Placed[], heardHosts: () => HeardHost[]): boolean {
  const forwarded = placed.filter(({ way }) => way === "vfwd");
  if (forwarded.length === 0) return false;
  const known = byAddress(heardHosts());
  return forwarded.some(({ address }) => !known.has(address));
}
