// SPDX-License-Identifier: Apache-2.0
/** The VARP codec: bytes that are fixed, what is refused and why, and anything at all as input. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseAddress } from "../../src/base/address.js";
import { decodeVarp, encodeVarp } from "../../src/wire/varp.js";

const vnet = Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x97]);
const vmac = Uint8Array.from([0xaa, 0, 0, 1, 2, 3]);
const address = parseAddress("10.0.0.7");
const announceHex =
  "00010002" +
  "00000000000000000000000000000097" +
  "aa0000010203" +
  "02" +
  "0a000007" +
  "00".repeat(12);

describe("a VARP message", () => {
  it("is, as an announce, these 43 bytes", () => {
    const message = encodeVarp({ opcode: "announce", vnet, vmac, address });
    expect(message.toString("hex")).toBe(announceHex);
    expect(message).toHaveLength(43);
  });

  it("is read back, with what follows it", () => {
    const bytes = Buffer.concat([Buffer.from(announceHex, "hex"), Buffer.from("more")]);
    const decoded = decodeVarp(bytes);
    expect(decoded).toMatchObject({ ok: true, message: { opcode: "announce" } });
    if (!decoded.ok) throw new Error(decoded.reason);
    expect(Buffer.from(decoded.message.address)).toEqual(Buffer.from(address));
    expect(Buffer.from(decoded.message.trailing).toString()).toBe("more");
  });

  it("carries an IPv6 address whole", () => {
    const v6 = parseAddress("2001:db8::1");
    const decoded = decodeVarp(encodeVarp({ opcode: "announce", vnet, vmac, address: v6 }));
    if (!decoded.ok) throw new Error(decoded.reason);
    expect(Buffer.from(decoded.message.address)).toEqual(Buffer.from(v6));
  });

  it("may as a request have any family", () => {
    const bytes = Buffer.from(announceHex, "hex");
    bytes[3] = 1;
    bytes[26] = 0;
    expect(decodeVarp(bytes)).toMatchObject({ ok: true, message: { opcode: "request" } });
  });

  it.each([
    ["varp_short", (b: Buffer) => b.subarray(0, 42)],
    ["varp_short", () => Buffer.alloc(0)],
    ["unknown_message", (b: Buffer) => patched(b, 1, 2)],
    ["varp_bad_opcode", (b: Buffer) => patched(b, 3, 3)],
    ["varp_bad_opcode", (b: Buffer) => patched(b, 3, 0)],
    ["varp_bad_family", (b: Buffer) => patched(b, 26, 7)],
  ])("is refused: %s", (reason, change) => {
    expect(decodeVarp(change(Buffer.from(announceHex, "hex")))).toEqual({ ok: false, reason });
  });

  it("is never longer than the format allows", () => {
    const encode = (): Buffer =>
      encodeVarp({ opcode: "announce", vnet, vmac, address }, Buffer.alloc(512 - 43 + 1));
    expect(encode).toThrow(RangeError);
  });

  it("survives any bytes, and what decodes is encoded to the same bytes again", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 600 }),
      fc
        .uint8Array({ minLength: 39, maxLength: 400 })
        .map((rest) => Uint8Array.from([0, 1, 0, 2, ...rest])),
    );
    fc.assert(
      fc.property(bytes, (input) => {
        const decoded = decodeVarp(Buffer.from(input));
        if (!decoded.ok) return typeof decoded.reason === "string";
        if (decoded.message.opcode === "request" || input[26] !== 10 || input.length > 512)
          return true;
        const { opcode, vnet: id, vmac: mac, address: care, trailing } = decoded.message;
        const again = encodeVarp({ opcode, vnet: id, vmac: mac, address: care }, trailing);
        // an IPv4-mapped address that came as IPv6 is written as IPv4
        return again[26] === 2 || again.equals(Buffer.from(input));
      }),
    );
  });
});

function patched(bytes: Buffer, at: number, value: number): Buffer {
  bytes[at] = value;
  return bytes;
}
