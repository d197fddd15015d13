// SPDX-License-Identifier: Apache-2.0
/**
 * The VARP codec: 43 bytes that ask who hosts a MAC, or say so.
 *
 * Wire: include/vnetd/wire.h, docs/wire-format.md. Bytes behind the 43 are handed on as they are
 * (src/wire/hello.ts reads them); an original ignores them. What comes from the wire is hostile:
 * decoding returns a reason and never throws.
 */
import {
  VnetdVarp,
  decodeVnetdVarp,
  vnetdExt,
  vnetdMsg,
  vnetdVarpFamily,
  vnetdVarpOp,
  writeVnetdVarp,
} from "../generated/layouts.js";

export type VarpOpcode = "request" | "announce";

export interface VarpMessage {
  opcode: VarpOpcode;
  /** 16 bytes */
  vnet: Uint8Array;
  /** 6 bytes */
  vmac: Uint8Array;
  /** the care-of address in the maps' form: 16 bytes, IPv4 as ::ffff:a.b.c.d; zero in a request
   * that was decoded */
  address: Uint8Array;
  /** what follows the 43 bytes */
  trailing: Uint8Array;
}

/** names of the drop reasons in include/vnetd/reasons.h */
export type VarpReason = "varp_short" | "unknown_message" | "varp_bad_opcode" | "varp_bad_family";

export type VarpDecoded = { ok: true; message: VarpMessage } | { ok: false; reason: VarpReason };

const mappedPrefix = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

export function encodeVarp(message: Omit<VarpMessage, "trailing">, trailing?: Uint8Array): Buffer {
  const extra = trailing ?? new Uint8Array(0);
  const total = VnetdVarp.size + extra.length;
  if (total > vnetdExt.VARP_MAX_LEN) {
    throw new RangeError(
      `a VARP message of ${String(total)} bytes is longer than the format allows`,
    );
  }
  const out = Buffer.alloc(total);
  const mapped = isMapped(message.address);
  const care = Buffer.alloc(16);
  care.set(mapped ? message.address.subarray(12) : message.address);
  writeVnetdVarp(out, {
    msg: { id: vnetdMsg.MSG_VARP, opcode: opcodeNumber(message.opcode) },
    vnet: message.vnet,
    vmac: message.vmac,
    family: mapped ? vnetdVarpFamily.VARP_INET : vnetdVarpFamily.VARP_INET6,
    addr: care,
  });
  out.set(extra, VnetdVarp.size);
  return out;
}

export function decodeVarp(bytes: Buffer): VarpDecoded {
  if (bytes.length < VnetdVarp.size) return { ok: false, reason: "varp_short" };
  const wire = decodeVnetdVarp(bytes);
  if (wire.msg.id !== vnetdMsg.MSG_VARP) return { ok: false, reason: "unknown_message" };
  const opcode = opcodeOf(wire.msg.opcode);
  if (opcode === undefined) return { ok: false, reason: "varp_bad_opcode" };
  // A request says nothing of an address: whatever stands there is not looked at.
  const address = opcode === "request" ? new Uint8Array(16) : addressOf(wire.family, wire.addr);
  if (address === undefined) return { ok: false, reason: "varp_bad_family" };
  const trailing = Buffer.from(bytes.subarray(VnetdVarp.size));
  return { ok: true, message: { opcode, vnet: wire.vnet, vmac: wire.vmac, address, trailing } };
}

function opcodeNumber(opcode: VarpOpcode): number {
  return opcode === "request" ? vnetdVarpOp.VARP_REQUEST : vnetdVarpOp.VARP_ANNOUNCE;
}

function opcodeOf(value: number): VarpOpcode | undefined {
  if (value === vnetdVarpOp.VARP_REQUEST) return "request";
  if (value === vnetdVarpOp.VARP_ANNOUNCE) return "announce";
  return undefined;
}

function addressOf(family: number, wire: Uint8Array): Uint8Array | undefined {
  if (family === vnetdVarpFamily.VARP_INET) {
    return Buffer.concat([mappedPrefix, wire.subarray(0, 4)]);
  }
  // one host has one spelling: IPv4 comes as family 2
  return family === vnetdVarpFamily.VARP_INET6 && !isMapped(wire) ? wire : undefined;
}

function isMapped(address: Uint8Array): boolean {
  return mappedPrefix.every((byte, at) => address[at] === byte);
}
