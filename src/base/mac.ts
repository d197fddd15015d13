// SPDX-License-Identifier: Apache-2.0
/**
 * Ethernet MAC addresses. Inside vnetd a MAC is a string in canonical form (lower case, colons),
 * in maps and on the wire 6 bytes.
 */
import { VnetdError, type Place } from "./errors.js";

/** canonical text form, e.g. "aa:00:00:01:02:03" */
export type Mac = string;

export const macBytes = 6;

/** The spellings in use: colons or dashes (single digits allowed), Cisco's dots, bare digits. */
const spellings = [
  /^([0-9a-f]{1,2})(?::([0-9a-f]{1,2})){5}$/i,
  /^([0-9a-f]{1,2})(?:-([0-9a-f]{1,2})){5}$/i,
  /^[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}$/i,
  /^[0-9a-f]{12}$/i,
];

/** undefined when the text is not a MAC */
export function macFromText(text: string): Mac | undefined {
  if (!spellings.some((spelling) => spelling.test(text))) return undefined;
  const parts = /[:-]/.test(text)
    ? text.split(/[:-]/).map((part) => part.padStart(2, "0"))
    : (text.replaceAll(".", "").match(/../g) ?? []);
  return parts.join(":").toLowerCase();
}

export function parseMac(text: string, place?: Place): Mac {
  const mac = macFromText(text);
  if (mac === undefined) {
    const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
    throw new VnetdError("BAD_MAC", `"${shown}" is not a MAC address`, {
      hint: "A MAC address is six bytes in hex, of one or two digits each, for example aa:00:00:01:02:03.",
      ...(place === undefined ? {} : { place }),
    });
  }
  return mac;
}

/** of each byte, with a colon behind it */
const hexOf = Array.from({ length: 256 }, (_, byte) => `${byte.toString(16).padStart(2, "0")}:`);

/** The MAC must be canonical. */
export function macToBytes(mac: Mac): Uint8Array {
  const bytes = new Uint8Array(macBytes);
  for (let at = 0; at < macBytes; at += 1)
    bytes[at] = (digitOf(mac.charCodeAt(at * 3)) << 4) | digitOf(mac.charCodeAt(at * 3 + 1));
  return bytes;
}

export function macFromBytes(bytes: Uint8Array): Mac {
  if (bytes.length !== macBytes) {
    throw new VnetdError("BAD_MAC", `a MAC address has 6 bytes, not ${bytes.length}`);
  }
  let text = "";
  for (const byte of bytes) text += hexOf[byte] ?? "";
  return text.slice(0, -1);
}

/** Of an ASCII hex digit: those of letters are 9 above their lowest four bits. */
function digitOf(code: number): number {
  return (code & 15) + (code >> 6) * 9;
}

/** Multicast or broadcast: the lowest bit of the first byte (IEEE 802, the I/G bit). */
export function isGroupMac(mac: Mac): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) !== 0;
}

/** All zero: no station has it. */
export function isZeroMac(mac: Mac): boolean {
  return mac === "00:00:00:00:00:00";
}
