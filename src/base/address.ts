// SPDX-License-Identifier: Apache-2.0
/**
 * IP addresses of the underlay: text, and the 16 bytes that BPF maps hold (network order, IPv4 as
 * ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2).
 *
 * The canonical text is dotted for IPv4 (mapped ones too, so that one host has one spelling) and
 * RFC 5952's for IPv6. Zone suffixes (%eth0) are refused: a device is named apart.
 */
import { VnetdError, type Place } from "./errors.js";

export const addressBytes = 16;

export type Family = 4 | 6;
/** with which IP families attached devices carry outer packets */
export type UnderlayPolicy = "auto" | "ipv4" | "ipv6" | "both";

const decimalOctet = /^(0|[1-9][0-9]{0,2})$/;
const hexGroup = /^[0-9a-f]{1,4}$/i;

/** undefined unless dotted decimal with four parts; leading zeros are refused, as inet_pton does */
function ipv4Octets(text: string): number[] | undefined {
  const parts = text.split(".", 5);
  if (parts.length !== 4 || !parts.every((part) => decimalOctet.test(part))) return undefined;
  const octets = parts.map(Number);
  return octets.every((octet) => octet <= 255) ? octets : undefined;
}

/** The 16-bit groups of one side of "::", the last of which may be dotted. */
function ipv6Groups(text: string, mayEndDotted: boolean): number[] | undefined {
  if (text === "") return [];
  const parts = text.split(":", 9);
  const groups: number[] = [];
  for (const [index, part] of parts.entries()) {
    if (hexGroup.test(part)) {
      groups.push(Number.parseInt(part, 16));
      continue;
    }
    const octets = mayEndDotted && index === parts.length - 1 ? ipv4Octets(part) : undefined;
    if (octets === undefined) return undefined;
    const [a = 0, b = 0, c = 0, d = 0] = octets;
    groups.push(a * 256 + b, c * 256 + d);
  }
  return groups;
}

function ipv6Words(text: string): number[] | undefined {
  const halves = text.split("::", 3);
  if (halves.length > 2) return undefined;
  const [head = "", tail] = halves;
  if (tail === undefined) {
    const words = ipv6Groups(head, true);
    return words?.length === 8 ? words : undefined;
  }
  const before = ipv6Groups(head, false);
  const after = ipv6Groups(tail, true);
  if (before === undefined || after === undefined) return undefined;
  const zeros = 8 - before.length - after.length;
  if (zeros < 1) return undefined;
  return [...before, ...Array<number>(zeros).fill(0), ...after];
}

/** The 16 bytes of an IPv4 or IPv6 address, or undefined when the text is neither. */
export function addressBytesFromText(text: string): Uint8Array | undefined {
  if (text.length > 45) return undefined;
  const bytes = new Uint8Array(addressBytes);
  const octets = ipv4Octets(text);
  if (octets !== undefined) {
    bytes.set([0xff, 0xff, ...octets], 10);
    return bytes;
  }
  const words = text.includes(":") ? ipv6Words(text) : undefined;
  if (words === undefined) return undefined;
  words.forEach((word, index) => bytes.set([word >> 8, word & 0xff], index * 2));
  return bytes;
}

export function parseAddress(text: string, place?: Place): Uint8Array {
  const bytes = addressBytesFromText(text);
  if (bytes === undefined) {
    const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
    throw new VnetdError("BAD_ADDRESS", `"${shown}" is not an IP address`, {
      hint: "An address is for example 192.0.2.1 or 2001:db8::1.",
      ...(place === undefined ? {} : { place }),
    });
  }
  return bytes;
}

export function isMappedIpv4(bytes: Uint8Array): boolean {
  return (
    bytes.length === addressBytes &&
    bytes.subarray(0, 10).every((byte) => byte === 0) &&
    bytes[10] === 0xff &&
    bytes[11] === 0xff
  );
}

/** The longest run of two or more zero groups, the first of equals (RFC 5952 section 4.2). */
function longestZeroRun(words: readonly number[]): { start: number; length: number } {
  let best = { start: -1, length: 1 };
  let start = 0;
  words.forEach((word, index) => {
    if (word !== 0) start = index + 1;
    else if (index + 1 - start > best.length) best = { start, length: index + 1 - start };
  });
  return best;
}

/** Canonical text of 16 bytes. */
export function addressToText(bytes: Uint8Array): string {
  if (bytes.length !== addressBytes) {
    throw new VnetdError("BAD_ADDRESS", `an address has 16 bytes, not ${bytes.length}`);
  }
  if (isMappedIpv4(bytes)) return bytes.subarray(12).join(".");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const words = Array.from({ length: 8 }, (_, index) => view.getUint16(index * 2));
  const hex = words.map((word) => word.toString(16));
  const run = longestZeroRun(words);
  if (run.start < 0) return hex.join(":");
  const head = hex.slice(0, run.start).join(":");
  const tail = hex.slice(run.start + run.length).join(":");
  return `${head}::${tail}`;
}

/** 224.0.0.0/4 or ff00::/8 */
export function isMulticastAddress(bytes: Uint8Array): boolean {
  if (isMappedIpv4(bytes)) return ((bytes[12] ?? 0) & 0xf0) === 0xe0;
  return bytes[0] === 0xff;
}

/** fe80::/10 */
export function isLinkLocalAddress(bytes: Uint8Array): boolean {
  return bytes[0] === 0xfe && ((bytes[1] ?? 0) & 0xc0) === 0x80;
}

export function familyOf(bytes: Uint8Array): Family {
  return isMappedIpv4(bytes) ? 4 : 6;
}

/** The same of an address's text, in any form that the kernel or this module writes. */
export function familyOfText(text: string): Family {
  return text.includes(":") ? 6 : 4;
}

/** Unicast that may be a host's (RFC 1122 section 3.2.1.3, RFC 4291 section 2.4). */
export function isHostAddress(bytes: Uint8Array): boolean {
  if (bytes.length !== addressBytes || isMulticastAddress(bytes)) return false;
  if (isMappedIpv4(bytes)) {
    const first = bytes[12] ?? 0;
    return first !== 0 && first !== 127 && first < 240;
  }
  // :: and ::1
  return bytes.subarray(0, 15).some((byte) => byte !== 0) || (bytes[15] ?? 0) > 1;
}
