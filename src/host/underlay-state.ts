// SPDX-License-Identifier: Apache-2.0
/**
 * What an attached device is like now, as the kernel's lists of links and addresses say. Pure, so
 * that the daemon follows changes by looking again and comparing, whatever happened in between.
 */
import {
  addressBytesFromText,
  isHostAddress,
  isLinkLocalAddress,
  type Family,
  type UnderlayPolicy,
} from "../base/address.js";
import type { AddressInfo, LinkInfo } from "../native/contract.js";

/** A place of the underlay: a device, and a family that it carries outer packets of. */
export interface PlaceSpec {
  device: string;
  family: Family;
  group: string;
  /** the address in use, which is kept while it is as good as any */
  current: string | null;
}

export interface UnderlayState {
  device: string;
  family: Family;
  /** 0: the device is not there */
  ifindex: number;
  address: string | null;
  /** of the address's subnet; 0 without an address */
  prefixLength: number;
  mac: string;
  mtuBytes: number;
  kind: string;
  /** the VRF device that it is a port of, or "" */
  vrf: string;
  up: boolean;
  /** why it carries no traffic now, or "" */
  problem: string;
  /** the group's address is there, and the kernel joins for it */
  groupJoined: boolean;
  /** all addresses there for which the kernel joins */
  joined: string[];
}

const smallestMtuBytes = 576;

export function underlayState(
  spec: PlaceSpec,
  links: readonly LinkInfo[],
  addresses: readonly AddressInfo[],
): UnderlayState {
  const { device, family, group } = spec;
  const link = links.find((candidate) => candidate.name === device);
  if (link === undefined) return absent(spec);
  const own = addresses.filter(
    (entry) => entry.ifindex === link.ifindex && entry.family === family,
  );
  const chosen = choose(spec, own);
  const { ifindex, mac, mtuBytes, kind } = link;
  const up = link.up && link.carrier;
  const problem = problemOf(link, family, chosen !== undefined);
  const master = links.find(({ ifindex }) => ifindex === link.master);
  const vrf = master?.kind === "vrf" ? master.name : "";
  const joined = own.flatMap(({ address, autojoin }) => (autojoin ? [address] : []));
  const groupJoined = joined.includes(group);
  return {
    device,
    family,
    ifindex,
    address: chosen?.address ?? null,
    prefixLength: chosen?.prefixLength ?? 0,
    mac,
    mtuBytes,
    kind,
    vrf,
    up,
    problem,
    groupJoined,
    joined,
  };
}

/**
 * Which families a device is used with. "auto" is IPv4 on a device that has, or had while it was
 * attached, an IPv4 address, so that a host whose address is away for a moment is not found on
 * IPv6, where nobody listens; else it is IPv6.
 */
export function familiesOf(
  policy: UnderlayPolicy,
  device: string,
  hadIpv4: boolean,
  links: readonly LinkInfo[],
  addresses: readonly AddressInfo[],
): Family[] {
  if (policy === "both") return [4, 6];
  if (policy !== "auto") return policy === "ipv4" ? [4] : [6];
  const usable = (family: Family): boolean => {
    const spec = { device, family, group: "", current: null };
    return underlayState(spec, links, addresses).address !== null;
  };
  return !hadIpv4 && !usable(4) && usable(6) ? [6] : [4];
}

function absent({ device, family }: PlaceSpec): UnderlayState {
  const problem = "the device is not there";
  return {
    device,
    family,
    ifindex: 0,
    address: null,
    prefixLength: 0,
    mac: "",
    mtuBytes: 0,
    kind: "",
    vrf: "",
    up: false,
    problem,
    groupJoined: false,
    joined: [],
  };
}

function problemOf(link: LinkInfo, family: Family, hasAddress: boolean): string {
  if (link.mac === "") return "it is no Ethernet device";
  if (!hasAddress) return `the device has no IPv${String(family)} address`;
  if (!link.up) return "the device is down";
  if (!link.carrier) return "the device has no carrier";
  if (link.mtuBytes < smallestMtuBytes) return `its MTU of ${String(link.mtuBytes)} is too small`;
  return "";
}

/**
 * IPv4: the kernel lists a device's addresses in the order in which it prefers them. IPv6: one that
 * others can reach from elsewhere before a link-local one, and the one in use before one that was
 * added later.
 */
function choose(
  { family, current }: PlaceSpec,
  own: readonly AddressInfo[],
): AddressInfo | undefined {
  const usable = own.filter(isUsable);
  if (family === 4) return usable[0];
  const wide = usable.filter(({ address }) => !isLinkLocal(address));
  const choice = wide.length > 0 ? wide : usable;
  return choice.find(({ address }) => address === current) ?? choice[0];
}

function isLinkLocal(address: string): boolean {
  const bytes = addressBytesFromText(address);
  return bytes !== undefined && isLinkLocalAddress(bytes);
}

/** IPv6's temporary addresses are flagged secondary. */
function isUsable(entry: AddressInfo): boolean {
  const bytes = addressBytesFromText(entry.address);
  if (bytes === undefined || !isHostAddress(bytes)) return false;
  return !entry.secondary && !entry.tentative && !entry.deprecated;
}

/** Why a device can never carry vnets, or undefined. */
export function unsuitable(link: LinkInfo): string | undefined {
  if (link.loopback) return "it is the loopback device";
  if (link.mac === "") return "it is no Ethernet device";
  if (link.alias?.startsWith("vnetd ") === true) return "it belongs to a vnet";
  if (link.mtuBytes < smallestMtuBytes) {
    return `its MTU of ${String(link.mtuBytes)} bytes is below ${String(smallestMtuBytes)}`;
  }
  return undefined;
}
