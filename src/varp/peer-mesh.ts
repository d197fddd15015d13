// SPDX-License-Identifier: Apache-2.0
/**
 * Which peerings are missing. What came by VFWD is never forwarded again, so hosts on different
 * subnets that forward must all be peers of one another; each says in its hello who its peers are.
 */
import { addressBytesFromText } from "../base/address.js";

/** A host of ours that forwards, as its hello says. */
export interface ForwardingHost {
  /** for people */
  name: string;
  /** that it was heard from */
  addresses: readonly string[];
  /** of its subnet */
  prefixLength: number;
  peers: readonly string[];
}

export interface MissingPeering {
  /** the host that lacks it, and where it was heard */
  at: ForwardingHost;
  /** an address of the other */
  lacks: string;
}

function bitsOf(address: string): string {
  const bytes = addressBytesFromText(address) ?? new Uint8Array(16);
  return [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
}

/** IPv4 lies in the last 32 of an address's 128 bits. */
export function sameSubnet(a: string, b: string, prefixLength: number): boolean {
  const isIpv4 = a.includes(".") && b.includes(".");
  if (!isIpv4 && (a.includes(".") || b.includes("."))) return false;
  const length = isIpv4 ? 96 + prefixLength : prefixLength;
  return bitsOf(a).slice(0, length) === bitsOf(b).slice(0, length);
}

function neighbours(a: ForwardingHost, b: ForwardingHost): boolean {
  return a.addresses.some((x) => b.addresses.some((y) => sameSubnet(x, y, a.prefixLength)));
}

function lacking(at: ForwardingHost, other: ForwardingHost): MissingPeering[] {
  const [first] = other.addresses;
  const knows = other.addresses.some((address) => at.peers.includes(address));
  return knows || first === undefined ? [] : [{ at, lacks: first }];
}

/** Both directions of each pair of forwarders on different subnets. */
export function missingPeerings(hosts: readonly ForwardingHost[]): MissingPeering[] {
  return hosts.flatMap((a, index) =>
    hosts
      .slice(index + 1)
      .flatMap((b) => (neighbours(a, b) ? [] : [...lacking(a, b), ...lacking(b, a)])),
  );
}
