// SPDX-License-Identifier: Apache-2.0
/** The hello extension: round trips, rules for what is unknown, and hostile input. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decodeHello,
  encodeHello,
  encodeKeyMessage,
  keyMessageOf,
  varpKindOf,
  type Hello,
} from "../../src/wire/hello.js";

const hello: Hello = {
  hostId: "000102030405060708090a0b0c0d0e0f",
  bootNonce: "1122334455667788",
  capabilities: 1,
  underlayMtuBytes: 1500,
  hostName: "häst",
  software: "vnetd 0.1.0",
  solicit: true,
  goodbye: false,
};
const plain = encodeHello(hello);

function tlv(type: number, value: Buffer): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt16BE(type);
  header.writeUInt16BE(value.length, 2);
  return Buffer.concat([header, value]);
}

/** The extension with these bytes as its TLVs. */
function extension(
  body: Buffer,
  change: { magic?: number; version?: number; len?: number } = {},
): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(change.magic ?? 0x564e5444);
  header.writeUInt8(change.version ?? 1, 4);
  header.writeUInt16BE(change.len ?? body.length, 6);
  return Buffer.concat([header, body]);
}

const identity = Buffer.concat([tlv(1, Buffer.alloc(16, 7)), tlv(2, Buffer.alloc(8, 9))]);

describe("a hello", () => {
  it("begins with the magic, the version and its length", () => {
    expect(plain.subarray(0, 4).toString()).toBe("VNTD");
    expect(plain[4]).toBe(1);
    expect(plain.readUInt16BE(6)).toBe(plain.length - 8);
  });

  it("is read back as it was", () => {
    expect(decodeHello(plain)).toEqual({ ok: true, hello });
    const bare = {
      ...hello,
      hostName: "",
      software: "",
      underlayMtuBytes: 0,
      solicit: false,
      goodbye: true,
    };
    expect(decodeHello(encodeHello(bare))).toEqual({ ok: true, hello: bare });
  });

  it("names the groups of its vnets, and no others", () => {
    const both = { group: "239.1.2.3", group6: "ff15::3" };
    for (const groups of [both, { group: both.group }, { group6: both.group6 }])
      expect(decodeHello(encodeHello({ ...hello, groups }))).toMatchObject({ hello: { groups } });
    expect(encodeHello({ ...hello, groups: {} })).toEqual(plain);
    const said = (value: string): unknown => {
      const body = Buffer.concat([identity, tlv(18, Buffer.from(value, "hex"))]);
      const decoded = decodeHello(extension(body));
      return decoded.ok ? decoded.hello.groups : decoded.reason;
    };
    expect(said(`0a010203${"fd66".padEnd(32, "0")}`)).toBeUndefined();
    expect(said(`e00000fb${"ff02".padEnd(31, "0")}1`)).toBeUndefined();
    expect(said(`ef010203${"ff02".padEnd(31, "0")}1`)).toEqual({ group: "239.1.2.3" });
    expect(said("ef010203")).toBe("bad_tlv_length");
  });

  it("names the sender's peers, or says that there are too many", () => {
    const few = { prefixLength: 24, more: false, addresses: ["10.66.2.1", "2001:db8::1"] };
    expect(decodeHello(encodeHello({ ...hello, peers: few }))).toMatchObject({
      hello: { peers: few },
    });
    const addresses = Array.from({ length: 13 }, (_, at) => `10.66.2.${at}`);
    const many = decodeHello(
      encodeHello({ ...hello, peers: { prefixLength: 24, more: false, addresses } }),
    );
    expect(many).toMatchObject({
      hello: { peers: { prefixLength: 24, more: true, addresses: [] } },
    });
    // with the longest of everything a message still fits
    const most = { prefixLength: 24, more: false, addresses: addresses.slice(0, 12) };
    const longest = {
      ...hello,
      hostName: "n".repeat(63),
      software: "s".repeat(31),
      underlayMtuBytes: 1500,
      solicit: true,
      goodbye: true,
    };
    expect(43 + encodeHello({ ...longest, peers: most }).length).toBeLessThanOrEqual(512);
  });

  it.each([
    ["a number that the length does not fit", [24, 2, ...Buffer.alloc(16)]],
    ["a prefix that is none", [129, 0]],
  ])("peers with %s are none", (_what, value) => {
    const body = Buffer.concat([identity, tlv(32, Buffer.from(value))]);
    const decoded = decodeHello(extension(body));
    expect(decoded.ok && decoded.hello.peers).toBe(undefined);
  });

  it("skips TLVs of unknown types, and bytes behind the extension", () => {
    const body = Buffer.concat([tlv(999, Buffer.alloc(30)), identity, tlv(0, Buffer.alloc(0))]);
    const decoded = decodeHello(Buffer.concat([extension(body), Buffer.from("signature")]));
    expect(decoded).toMatchObject({
      ok: true,
      hello: { hostId: "07".repeat(16), bootNonce: "09".repeat(8) },
    });
  });

  it("takes the first of a TLV that comes twice", () => {
    const body = Buffer.concat([identity, tlv(1, Buffer.alloc(16, 1))]);
    expect(decodeHello(extension(body))).toMatchObject({
      ok: true,
      hello: { hostId: "07".repeat(16) },
    });
  });

  it.each([
    ["absent", Buffer.alloc(0)],
    ["absent", Buffer.alloc(7)],
    ["other_magic", extension(identity, { magic: 0x564e5445 })],
    ["other_version", extension(identity, { version: 2 })],
    ["truncated", extension(identity, { len: identity.length + 1 })],
    ["bad_tlv_length", extension(identity.subarray(0, identity.length - 1))],
    ["bad_tlv_length", extension(Buffer.concat([identity, Buffer.from([0, 3, 0])]))],
    ["bad_tlv_length", extension(tlv(1, Buffer.alloc(15)))],
    ["bad_tlv_length", extension(Buffer.concat([identity, tlv(5, Buffer.alloc(64))]))],
    ["bad_tlv_length", extension(Buffer.concat([identity, tlv(7, Buffer.alloc(1))]))],
    ["no_host_id", extension(Buffer.alloc(0))],
    ["no_host_id", extension(tlv(1, Buffer.alloc(16)))],
  ])("is refused: %s", (reason, bytes) => {
    expect(decodeHello(bytes)).toEqual({ ok: false, reason });
  });

  it("cuts a long host name between characters", () => {
    const decoded = decodeHello(encodeHello({ ...hello, hostName: "ä".repeat(40) }));
    expect(decoded).toMatchObject({ ok: true, hello: { hostName: "ä".repeat(31) } });
  });

  it("passes no control characters of a stranger on", () => {
    const body = Buffer.concat([
      identity,
      tlv(5, Buffer.from("a\x1b[2Jb\n")),
      tlv(6, Buffer.from([0x76, 0x9b])),
    ]);
    expect(decodeHello(extension(body))).toMatchObject({
      ok: true,
      hello: { hostName: "a?[2Jb?", software: "v?" },
    });
  });

  it("survives any bytes", () => {
    const bodies = fc.oneof(
      fc.uint8Array({ maxLength: 500 }),
      fc.uint8Array({ maxLength: 460 }).map((body) => extension(Buffer.from(body))),
      fc
        .array(fc.tuple(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 70 })), {
          maxLength: 8,
        })
        .map((tlvs) =>
          extension(Buffer.concat([identity, ...tlvs.map(([t, v]) => tlv(t, Buffer.from(v)))])),
        ),
    );
    fc.assert(
      fc.property(bodies, (body) => {
        const decoded = decodeHello(Buffer.from(body));
        return decoded.ok ? decoded.hello.hostId.length === 32 : decoded.reason.length > 0;
      }),
    );
  });

  it("survives any mutation of a good one", () => {
    const mutations = fc.array(fc.tuple(fc.nat(plain.length - 1), fc.nat(255)), { maxLength: 6 });
    fc.assert(
      fc.property(mutations, fc.nat(plain.length), (changes, length) => {
        const bytes = Buffer.from(plain);
        for (const [at, value] of changes) bytes[at] = value;
        return typeof decodeHello(bytes.subarray(0, length)).ok === "boolean";
      }),
    );
  });

  it("fits behind the 43 bytes, whatever the names", () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 300, unit: "grapheme" }),
        fc.string({ maxLength: 100 }),
        (hostName, software) => {
          const bytes = encodeHello({ ...hello, hostName, software });
          return bytes.length <= 512 - 43 && decodeHello(bytes).ok;
        },
      ),
    );
  });
});

describe("what a secure vnet adds", () => {
  const mark = (first: number): Buffer =>
    tlv(
      49,
      Buffer.concat([Buffer.of(first, 0, 0, 0), Buffer.alloc(8, first), Buffer.alloc(16, 3)]),
    );

  it("marks by which a hello is judged, in their order, are read and are not written", () => {
    const decoded = decodeHello(extension(Buffer.concat([identity, mark(4), mark(6)])));
    const auth = [4, 6].map((suiteId) => ({
      suiteId,
      keyId: Buffer.alloc(8, suiteId).toString("hex"),
      mac: Buffer.alloc(16, 3),
    }));
    expect(decoded).toMatchObject({ ok: true, hello: { auth } });
    expect(decoded.ok && encodeHello(decoded.hello).includes(Buffer.alloc(16, 3))).toBe(false);
  });

  it.each([
    ["bad_tlv_length", Buffer.concat([identity, tlv(49, Buffer.alloc(27))])],
    ["bad_tlv_length", Buffer.concat([identity, tlv(49, Buffer.alloc(29))])],
    ["auth_not_last", Buffer.concat([identity, mark(1), tlv(7, Buffer.alloc(0))])],
    ["auth_not_last", Buffer.concat([identity, mark(1), tlv(999, Buffer.alloc(0)), mark(1)])],
    ["auth_not_last", Buffer.concat([mark(1), identity])],
    ["bad_tlv_length", Buffer.concat([identity, tlv(48, Buffer.alloc(0))])],
    ["bad_tlv_length", Buffer.concat([identity, tlv(48, Buffer.alloc(257))])],
  ])("is refused: %s", (reason, body) => {
    expect(decodeHello(extension(body))).toEqual({ ok: false, reason });
  });

  it("a message about keys is no hello, and a hello holds none", () => {
    const message = Buffer.from("a message about keys");
    const bytes = encodeKeyMessage(message);
    expect(keyMessageOf(bytes)).toEqual(message);
    expect(keyMessageOf(Buffer.concat([bytes, Buffer.from("behind")]))).toEqual(message);
    expect(decodeHello(bytes)).toEqual({ ok: false, reason: "key_message" });
    const both = extension(Buffer.concat([identity, tlv(48, message)]));
    expect([keyMessageOf(both), decodeHello(both)]).toEqual([
      message,
      { ok: false, reason: "key_message" },
    ]);
    expect(keyMessageOf(plain)).toBe(undefined);
    for (let length = 0; length < bytes.length; length++)
      expect(keyMessageOf(bytes.subarray(0, length))).toBe(undefined);
    expect(43 + encodeKeyMessage(Buffer.alloc(136)).length).toBeLessThanOrEqual(512);
  });

  it("survives any bytes", () => {
    const tlvs = fc.array(
      fc.tuple(fc.constantFrom(1, 2, 48, 49, 50), fc.uint8Array({ maxLength: 40 })),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(tlvs, (all) => {
        const body = Buffer.concat(all.map(([type, value]) => tlv(type, Buffer.from(value))));
        decodeHello(extension(body));
        keyMessageOf(extension(body));
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        keyMessageOf(Buffer.from(bytes));
      }),
    );
  });
});

describe("what a VARP message is for", () => {
  const short = extension(tlv(1, Buffer.alloc(3)));
  it.each<[string, "request" | "announce", Buffer, string]>([
    ["a request", "request", Buffer.alloc(0), "request"],
    ["a request, whatever follows it", "request", plain, "request"],
    ["an original's announce", "announce", Buffer.alloc(0), "announce"],
    ["an announce with bytes of somebody else's", "announce", Buffer.alloc(60, 7), "announce"],
    ["a hello", "announce", plain, "hello"],
    ["a hello that is malformed", "announce", short, "hello"],
    ["a hello of a later version", "announce", extension(identity, { version: 2 }), "hello"],
    ["a goodbye", "announce", encodeHello({ ...hello, goodbye: true }), "goodbye"],
    ["a message about keys", "announce", encodeKeyMessage(Buffer.alloc(40, 1)), "keys"],
  ])("%s", (_, opcode, trailing, kind) => {
    expect(varpKindOf(opcode, trailing)).toBe(kind);
  });
});
