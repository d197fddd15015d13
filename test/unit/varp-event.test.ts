// SPDX-License-Identifier: Apache-2.0
/** Records of the ring `control` with VARP messages: short ones end early. */
import { describe, expect, it } from "vitest";
import { varpEventOf } from "../../src/dataplane/varp-event.js";

const record = (bytes: number): Buffer =>
  Buffer.from(Array.from({ length: bytes }, (_, at) => (at * 7) & 255));

describe("varpEventOf", () => {
  it.each([304, 305, 559, 560, 600])("reads a record of %i bytes", (bytes) => {
    const event = varpEventOf(record(bytes))!;
    expect(event.message.length).toBe(512);
    expect(event.len).toBe(record(bytes).readUInt16LE(42));
    const there = Math.min(bytes, 560) - 48;
    expect(Buffer.from(event.message).subarray(0, there)).toEqual(
      record(bytes).subarray(48, 48 + there),
    );
    expect(event.message.subarray(there).every((byte) => byte === 0)).toBe(true);
  });

  it.each([0, 4, 303])("knows that %i bytes are none", (bytes) => {
    expect(varpEventOf(record(bytes))).toBeUndefined();
  });
});
