// SPDX-License-Identifier: Apache-2.0
/** Lists in VARP messages: what is written is read, what fits is known before, and hostile bytes are refused. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeHello, encodeHello, encodeOne, varpKindOf } from "../../src/wire/hello.js";
import { decodeVarp, encodeVarp, type VarpMessage } from "../../src/wire/varp.js";
import {
  MacRoom,
  encodeMacs,
  entriesOf,
  listOf,
  vnetsThatFit,
  withVnets,
  type VnetMac,
} from "../../src/wire/varp-list.js";

const vnet = (n: number): Buffer => Buffer.alloc(16, n);
const vmac = (n: number): Buffer => Buffer.from([2, 0, 0, 0, n >> 8, n & 255]);
const entry = (of: number, n: number): VnetMac => ({ vnet: vnet(of), vmac: vmac(n) });
const address = Buffer.from("00000000000000000000ffff0a420101", "hex");
const head = { opcode: "announce", ...entry(1, 1), address } as const;
const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

function decoded(bytes: Buffer): VarpMessage {
  const read = decodeVarp(bytes);
  if (!read.ok) throw new Error(read.reason);
  return read.message;
}
/** plain bytes, whatever kind of view they are */
const plain = (list: unknown): unknown => JSON.parse(JSON.stringify(list ?? null));

const hello = {
  hostId: "ab".repeat(16),
  bootNonce: "01".repeat(8),
  capabilities: 3,
  underlayMtuBytes: 1500,
  hostName: "h".repeat(63),
  software: "vnetd",
  solicit: true,
  goodbye: false,
};

describe("a list of MACs", () => {
  it("is read as it was written, by vnet; the message in front is one like any other", () => {
    const entries = [entry(1, 2), entry(7, 3), entry(1, 4)];
    const bytes = encodeVarp(head, encodeMacs(entries));
    expect(bytes.subarray(0, 43)).toEqual(encodeVarp(head));
    expect(bytes[43 + 5]).toBe(1);
    const message = decoded(bytes);
    const list = listOf(message.trailing)!;
    expect(list.of).toBe("macs");
    expect(plain(entriesOf(list))).toEqual(plain([entry(1, 2), entry(1, 4), entry(7, 3)]));
    expect(varpKindOf("announce", message.trailing)).toBe("announce");
    expect(decodeHello(Buffer.from(message.trailing))).toEqual({ ok: false, reason: "mac_list" });
  });

  it("has room for exactly what fits into a message", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 90 }), (handles) => {
        const room = new MacRoom();
        const taken: VnetMac[] = [];
        for (const [at, handle] of handles.entries()) {
          if (!room.take(handle)) break;
          taken.push(entry(handle, at));
        }
        const bytes = encodeVarp({ ...head, ...taken[0]! }, encodeMacs(taken.slice(1)));
        // one more of a vnet that is in it would not fit
        return bytes.length <= 512 && bytes.length > 512 - 24;
      }),
    );
  });
});

describe("a hello of several vnets", () => {
  it("is read as it was written, and is a hello", () => {
    const single = encodeVarp(head, encodeHello(hello));
    const entries = range(vnetsThatFit(single)).map((n) => entry(n + 2, n));
    expect(entries.length).toBeGreaterThan(8);
    const bytes = withVnets(single, entries);
    expect(bytes.length).toBeLessThanOrEqual(512);
    expect(bytes.length).toBeGreaterThan(512 - 22);
    const { trailing } = decoded(bytes);
    expect(plain(listOf(trailing))).toEqual(plain({ of: "vnets", entries }));
    expect(decodeHello(Buffer.from(trailing))).toEqual({ ok: true, hello });
    expect(varpKindOf("announce", trailing)).toBe("hello");
  });

  it("is the same message when there is no other vnet", () => {
    const single = encodeVarp(head, encodeHello(hello));
    expect(withVnets(single, [])).toEqual(single);
    expect(listOf(decoded(single).trailing)).toBeUndefined();
  });
});

describe("hostile lists", () => {
  it.each([
    ["a vnet that is cut", 16, Buffer.alloc(21)],
    ["a group's header that is cut", 17, Buffer.alloc(17)],
    ["fewer MACs than a group says", 17, Buffer.concat([vnet(1), Buffer.from([0, 2]), vmac(1)])],
    ["a number of MACs beyond all bounds", 17, Buffer.concat([vnet(1), Buffer.from([255, 255])])],
  ])("%s is malformed", (_, type, value) => {
    expect(listOf(encodeOne(type, value))).toEqual({ of: "malformed" });
  });

  it("groups of no MACs, and empty lists, are lists of nothing", () => {
    const none = Buffer.concat([vnet(1), Buffer.from([0, 0]), vnet(2), Buffer.from([0, 0])]);
    expect(listOf(encodeOne(17, none))).toEqual({ of: "macs", groups: [] });
    expect(listOf(encodeOne(16, Buffer.alloc(0)))).toEqual({ of: "vnets", entries: [] });
  });

  it("any bytes are read without a throw, and never give more than fits", () => {
    const value = fc.uint8Array({ maxLength: 469 });
    fc.assert(
      fc.property(fc.constantFrom(16, 17), value, (type, bytes) => {
        const list = listOf(encodeOne(type, Buffer.from(bytes)));
        return list!.of === "malformed" || entriesOf(list!).length <= 80;
      }),
    );
    fc.assert(fc.property(value, (bytes) => listOf(bytes) === undefined || true));
  });
});
