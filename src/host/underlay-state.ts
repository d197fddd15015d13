// SPDX-License-Identifier: Apache-2.0
/**
 * What an attached device is like now, as the kernel's lists of links and addresses say. Pure, so
 * that the daemon follows changes by looking again and comparing, whatever happened in between.
 */
import { addressBytesFromText, isMulticastAddress } from "../base/address.js";
import type { AddressInfo, LinkInfo } from "../native/contract.js";

export interface UnderlayState {
  device: string;
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
}

const smallestMtuBytes = 576;

export function underlayState(
  device: string,
  group: string,
  links: readonly LinkInfo[],
  addresses: readonly AddressInfo[],
): UnderlayState {
  const link = links.find((candidate) => candidate.name === device);
  if (link === undefined) return absent(device);
  const own = addresses.filter((entry) => entry.ifindex === link.ifindex && entry.family === 4);
  const usable = own.find(isUsable);
  const address = usable?.address ?? null;
  const prefixLength = usable?.prefixLength ?? 0;
  const { ifindex, mac, mtuBytes, kind } = link;
  const up = link.up && link.carrier;
  const problem = problemOf(link, address);
  const master = links.find(({ ifindex }) => ifindex === link.master);
  const vrf = master?.kind === "vrf" ? master.name : "";
  const groupJoined = own.some((entry) => entry.address === group && entry.autojoin);
  return {
    device,
    ifindex,
    address,
    prefixLength,
    mac,
    mtuBytes,
    kind,
    vrf,
    up,
    problem,
    groupJoined,
  };
}

function absent(device: string): UnderlayState {
  const problem = "the device is not there";
  return {
    device,
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
  };
}

function problemOf(link: LinkInfo, address: string | null): string {
  if (link.mac === "") return "it is no Ethernet device";
  if (address === null) return "the device has no IPv4 address";
  if (!link.up) return "the device is down";
  if (!link.carrier) return "the device has no carrier";
  if (link.mtuBytes < smallestMtuBytes) return `its MTU of ${String(link.mtuBytes)} is too small`;
  return "";
}

/** The kernel lists a device's addresses in the order in which it prefers them. */
function isUsable(entry: AddressInfo): boolean {
  const bytes = addressBytesFromText(entry.address);
  if (bytes === undefined || isMulticastAddress(bytes)) return false;
  return !entry.secondary && bytes[12] !== 127;
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
