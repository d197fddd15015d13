// SPDX-License-Identifier: Apache-2.0
/** Questions whether packets arrive, as they are on the wire; and how the largest that does is found. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { largestThat, spread } from "../../src/doctor/search.js";
import { askOf, encodeAsk } from "../../src/wire/ask.js";
import { decodeHello, encodeOne } from "../../src/wire/hello.js";

const token = "0123456789abcdef";

describe("a question", () => {
  it("is as the wire format says, and is read back", () => {
    const question = encodeAsk({ kind: "question", token, byGroup: true });
    expect(question.toString("hex")).toBe(
      "564e544401000018" + "00400014" + "01010000" + token + "0000000000000000",
    );
    expect(askOf(question)).toEqual({ kind: "question", token, byGroup: true });
    const plain = encodeAsk({ kind: "question", token, byGroup: false });
    expect(askOf(plain)).toEqual({ kind: "question", token, byGroup: false });
    const clockMs = Date.UTC(2026, 1, 3);
    const answer = encodeAsk({ kind: "answer", token, clockMs });
    expect(askOf(answer)).toEqual({ kind: "answer", token, clockMs });
  });

  it("may be about a MAC", () => {
    const mac = "0a:00:00:00:97:02";
    const question = encodeAsk({ kind: "question", token, byGroup: false, mac });
    expect(question.subarray(12).toString("hex")).toBe(`01020000${token}0a00000097020000`);
    expect(askOf(question)).toEqual({ kind: "question", token, byGroup: false, mac });
    for (const isHere of [true, false]) {
      const answer = encodeAsk({ kind: "answer", token, clockMs: 5, isHere });
      expect(answer[13]).toBe(isHere ? 4 : 8);
      expect(askOf(answer)).toEqual({ kind: "answer", token, clockMs: 5, isHere });
    }
  });

  it("is read whatever follows it, and is no hello", () => {
    const question = encodeAsk({ kind: "question", token, byGroup: false });
    expect(askOf(Buffer.concat([question, Buffer.alloc(400)]))?.token).toBe(token);
    expect(decodeHello(question)).toEqual({ ok: false, reason: "no_host_id" });
  });

  it("is none of another kind, length or type", () => {
    expect(askOf(encodeOne(64, Buffer.alloc(20, 3)))).toBeUndefined();
    expect(askOf(encodeOne(64, Buffer.alloc(19, 1)))).toBeUndefined();
    expect(askOf(encodeOne(65, Buffer.alloc(20, 1)))).toBeUndefined();
    expect(askOf(Buffer.alloc(0))).toBeUndefined();
  });
});

describe("the largest size that arrives", () => {
  it("is found exactly, in few rounds", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 577, max: 65_535 }), fc.nat(), async (high, seed) => {
        const limit = 576 + (seed % (high - 576));
        let rounds = 0;
        const found = await largestThat({ low: 576, high }, async (sizes) => {
          rounds += 1;
          expect(sizes.length).toBeLessThanOrEqual(33);
          return new Set(sizes.filter((size) => size <= limit));
        });
        expect(found).toBe(limit);
        expect(rounds).toBeLessThanOrEqual(4);
      }),
    );
  });

  it("spreads what it tries between the two", () => {
    expect(spread(10, 14, 32)).toEqual([11, 12, 13]);
    expect(spread(10, 11, 32)).toEqual([]);
  });
});
