// SPDX-License-Identifier: Apache-2.0
/** A peer as it is configured: the address of a host, or a name that stands for hosts. */
import {
  addressBytesFromText,
  addressToText,
  isLinkLocalAddress,
  isMulticastAddress,
} from "./address.js";
import { VnetdError, type Place } from "./errors.js";

export interface PeerConfig {
  /** canonical address, or a name in lower case */
  peer: string;
  /** null: the daemon's own */
  port: number | null;
  /** of a name: the last answer */
  addresses: string[];
  /** it stands in the daemon's configuration; left out, it was added by command */
  fromFile?: true;
}

const namePattern =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?$/;

/** The canonical form of what a person typed. Throws BAD_PEER. */
export function parsePeer(text: string, place?: Place): string {
  const bytes = addressBytesFromText(text);
  if (bytes !== undefined) {
    const address = addressToText(bytes);
    if (isLinkLocalAddress(bytes)) {
      throw new VnetdError("BAD_PEER", `${address} names a host on one link only`, {
        hint: "A peer needs an address of wider scope.",
        ...(place === undefined ? {} : { place }),
      });
    }
    if (!isHostAddress(bytes)) {
      throw new VnetdError("BAD_PEER", `${address} is not the address of a host`, {
        hint: "A peer is one host: give its own unicast address.",
        ...(place === undefined ? {} : { place }),
      });
    }
    return address;
  }
  const name = text.toLowerCase();
  if (!namePattern.test(name) || /^[0-9.]+$/.test(name)) {
    throw new VnetdError("BAD_PEER", `"${text.slice(0, 80)}" is neither an address nor a name`, {
      hint: "For example 192.0.2.1 or vnet.example.org.",
      ...(place === undefined ? {} : { place }),
    });
  }
  return name.replace(/\.$/, "");
}

/** Unicast, and not of a kind that only means the host itself, or a host of the link. */
export function isHostAddress(bytes: Uint8Array): boolean {
  if (isMulticastAddress(bytes) || isLinkLocalAddress(bytes)) return false;
  const isIpv4 = bytes.subarray(0, 12).every((byte, at) => byte === (at < 10 ? 0 : 0xff));
  const first = bytes[12] ?? 0;
  if (isIpv4) return first !== 0 && first !== 127 && first < 240;
  return bytes.subarray(0, 15).some((byte) => byte !== 0);
}

export function isName(peer: string): boolean {
  return addressBytesFromText(peer) === undefined;
}
