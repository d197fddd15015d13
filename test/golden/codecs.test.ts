// SPDX-License-Identifier: Apache-2.0
/**
 * The control plane's codecs (src/wire) against the captures and against the tests' own parser:
 * every VARP message is read as expected, and written again byte for byte.
 */
import { describe, expect, it } from "vitest";
import { decodeHello, encodeHello } from "../../src/wire/hello.js";
import { decodeVarp, encodeVarp } from "../../src/wire/varp.js";
import { expectBytes, ipv4Text, macText, mappedBytes, vnetBytes } from "../lib/bytes.js";
import { packet } from "../lib/packet.js";
import { parseExtension, parseMessage } from "../lib/packet-parse.js";
import { CAPTURES, datagramsOf } from "./captures.js";
import { EXPECTATIONS } from "./expectations.js";

const varpDatagrams = CAPTURES.flatMap((capture) =>
  datagramsOf(capture)
    .filter((d) => d.payload.length >= 4 && d.payload.readUInt16BE(0) === 1)
    .map((d) => ({ ...d, capture, expectation: EXPECTATIONS[capture][d.index]! })),
);

describe("VARP", () => {
  it.each(varpDatagrams)("$capture $index", ({ payload, expectation }) => {
    const decoded = decodeVarp(payload);
    if (expectation.kind === "drop") {
      expect(decoded).toEqual({ ok: false, reason: expectation.reason });
      return;
    }
    if (expectation.kind !== "varp")
      throw new Error("the capture holds VARP, the expectation does not");
    if (!decoded.ok) throw new Error(`refused: ${decoded.reason}`);
    expect(decoded.message.opcode).toBe(expectation.operation);
    expect(macText(decoded.message.vmac)).toBe(expectation.vmac);
    expectBytes(decoded.message.vnet, vnetBytes(expectation.vnet));
    expect(decoded.message.trailing.length).toBe(payload.length - 43);
    if (payload[26] !== 2) return;
    // of a request the codec does not read the address, since the original does not
    const address = mappedBytes(ipv4Text(payload.subarray(27, 31)));
    if (decoded.message.opcode === "announce") expectBytes(decoded.message.address, address);
    expectBytes(encodeVarp({ ...decoded.message, address }, decoded.message.trailing), payload);
  });
});

describe("hello", () => {
  const hello = {
    hostId: "00112233445566778899aabbccddeeff",
    bootNonce: "0123456789abcdef",
    capabilities: 1,
    underlayMtuBytes: 1500,
    hostName: "host-ä",
    software: "vnetd 0.1.0",
    solicit: true,
    goodbye: false,
  };
  const tlvs = [
    { type: 1, value: Buffer.from(hello.hostId, "hex") },
    { type: 2, value: Buffer.from(hello.bootNonce, "hex") },
    { type: 3, value: Buffer.from([0, 0, 0, 1]) },
    { type: 4, value: Buffer.from([0x05, 0xdc]) },
    { type: 5, value: Buffer.from("host-ä") },
    { type: 6, value: Buffer.from("vnetd 0.1.0") },
    { type: 7, value: Buffer.alloc(0) },
  ];

  it("is written as docs/wire-format.md says", () => {
    expectBytes(encodeHello(hello), packet().extension({ tlvs }).build());
    expect(parseExtension(encodeHello(hello))).toEqual(tlvs);
  });

  it("skips TLVs of unknown types, wherever they stand", () => {
    const unknown = { type: 999, value: Buffer.from("of a later version") };
    for (let at = 0; at <= tlvs.length; at++) {
      const bytes = packet()
        .extension({ tlvs: [...tlvs.slice(0, at), unknown, ...tlvs.slice(at)] })
        .build();
      expect(decodeHello(bytes)).toEqual({ ok: true, hello });
    }
  });

  it("leaves another version, another magic and no extension at all to be a plain announce", () => {
    expect(decodeHello(packet().extension({ tlvs, version: 2 }).build())).toMatchObject({
      ok: false,
    });
    expect(decodeHello(packet().extension({ tlvs, magic: 0x12345678 }).build())).toMatchObject({
      ok: false,
    });
    expect(decodeHello(Buffer.from("12345"))).toEqual({ ok: false, reason: "absent" });
  });

  it("is an announce that an original understands: the first 43 bytes are its own", () => {
    const announce = encodeVarp(
      {
        opcode: "announce",
        vnet: vnetBytes("4"),
        vmac: Buffer.from("aa0000000401", "hex"),
        address: Buffer.from("00000000000000000000ffff0a420101", "hex"),
      },
      encodeHello(hello),
    );
    const golden = datagramsOf("lan-varp-request-announce").find((d) => d.index === 1)!;
    expectBytes(announce.subarray(0, 43), golden.payload);
    expect(parseMessage(announce)).toMatchObject({ kind: "varp", operation: 2, family: 2 });
  });
});
