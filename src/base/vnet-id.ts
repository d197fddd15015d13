// SPDX-License-Identifier: Apache-2.0
/**
 * Vnet ids: 128 bits that name a private LAN.
 *
 * Text form: eight fields of 1 to 4 hex digits between colons, or one field alone, which stands
 * for the last with the other seven zero. The digits are always hex: `97` is 0x0097. Zero is no
 * id and 1 stands for the physical network.
 *
 * Inside vnetd an id is a string in canonical form (eight fields of four lower-case digits), so
 * that equal ids are equal strings; on the wire and in BPF maps it is 16 bytes, big-endian.
 * A `0x` in front is refused rather than skipped: the format has no such prefix, and whoever
 * writes it may as well have meant a decimal id without it.
 */
import { VnetdError, type Place } from "./errors.js";

/** canonical text form */
export type VnetId = string;

export const vnetIdBytes = 16;

const fieldCount = 8;
const fieldPattern = /^[0-9a-fA-F]{1,4}$/;
const zeroId = Array<string>(fieldCount).fill("0000").join(":");
const reservedId = `${zeroId.slice(0, -4)}0001`;

const formHint =
  "An id is 8 fields of 1 to 4 hex digits between colons, or one such field alone, for example 97 or 0:0:0:0:0:0:0:97.";

/** The canonical form if the text has an id's form (be it zero or reserved), else undefined. */
function canonicalForm(text: string): VnetId | undefined {
  const fields = text.split(":", fieldCount + 1);
  if (fields.length !== 1 && fields.length !== fieldCount) return undefined;
  if (!fields.every((field) => fieldPattern.test(field))) return undefined;
  const padded = fields.map((field) => field.toLowerCase().padStart(4, "0"));
  while (padded.length < fieldCount) padded.unshift("0000");
  return padded.join(":");
}

/** Whether a text is written like an id. Zero and the reserved id are, though they are refused. */
export function isVnetIdText(text: string): boolean {
  return canonicalForm(text) !== undefined;
}

export function parseVnetId(text: string, place?: Place): VnetId {
  const where = place === undefined ? {} : { place };
  const id = canonicalForm(text);
  if (id === undefined) {
    const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
    const hint = /^0x[0-9a-f]+$/i.test(text)
      ? `Ids are always hex: write ${text.slice(2)}, without 0x.`
      : formHint;
    throw new VnetdError("BAD_VNET_ID", `"${shown}" is not a vnet id`, { hint, ...where });
  }
  if (id === zeroId) {
    throw new VnetdError("BAD_VNET_ID", "vnet id zero is not allowed", {
      hint: "Choose any id from 2 on.",
      ...where,
    });
  }
  if (id === reservedId) {
    throw new VnetdError("BAD_VNET_ID", "vnet id 1 is reserved for the physical network", {
      hint: "Choose any id from 2 on.",
      ...where,
    });
  }
  return id;
}

/** 16 bytes, big-endian. The id must be canonical. */
export function vnetIdToBytes(id: VnetId): Uint8Array {
  const bytes = new Uint8Array(vnetIdBytes);
  const fields = id.split(":");
  if (fields.length !== fieldCount) throw new VnetdError("BAD_VNET_ID", `"${id}" is not canonical`);
  const view = new DataView(bytes.buffer);
  fields.forEach((field, index) => view.setUint16(index * 2, Number.parseInt(field, 16)));
  return bytes;
}

/** Canonical text of 16 bytes, whatever they hold: what came from a wire may be zero. */
export function vnetIdFromBytes(bytes: Uint8Array): VnetId {
  if (bytes.length !== vnetIdBytes) {
    throw new VnetdError("BAD_VNET_ID", `a vnet id has 16 bytes, not ${bytes.length}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: fieldCount }, (_, index) =>
    view
      .getUint16(index * 2)
      .toString(16)
      .padStart(4, "0"),
  ).join(":");
}

/** For people: the last field alone where the others are zero, else the canonical form. */
export function shortVnetId(id: VnetId): string {
  return id.startsWith(zeroId.slice(0, -4)) ? id.slice(-4) : id;
}

/** Two long ids can share a last field, and so a default name: whoever uses it must check. */
export function defaultVnetifName(id: VnetId): string {
  return `vnif${id.slice(-4)}`;
}

export function defaultBridgeName(id: VnetId): string {
  return `vnet${id.slice(-4)}`;
}
