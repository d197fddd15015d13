// SPDX-License-Identifier: Apache-2.0
/**
 * A VM's tap on a vnet's bridge, as a hypervisor opens it: super-frames of TCP and UDP, checksums
 * left to the device, small frames, from a VM on one host to a VM on another. At the far tap every
 * byte must be there and every checksum right; on the LAN between, where packets cross at MTU size
 * and with their checksums filled in, every packet is looked at.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import { datagrams, offloaded, stream } from "../lib/tap.js";
import { GSO_BYTES, VM_A, VM_B, VmPair, WAYS, crossed, fromA, pattern } from "./vm-pair.js";

/** of a whole IP packet, as large as there is one */
const LARGEST = 65_535;

const toB = (): PacketBuilder => packet().eth({ src: VM_A, dst: VM_B });
const families = {
  IPv4: { ip: () => toB().ipv4({ id: 1 }), headers: 20 },
  IPv6: { ip: () => toB().ipv6(), headers: 40 },
};
/** Too long for a matcher's picture of the difference. */
function expectSame(got: Buffer, sent: Buffer): void {
  expect(got.length).toBe(sent.length);
  const differs = got.findIndex((byte, i) => byte !== sent[i]);
  expect(differs, "the first byte that differs").toBe(-1);
}

describe.each(WAYS)("$name", ({ merge, wire }) => {
  let pair: VmPair;
  beforeAll(async () => {
    pair = await VmPair.create({ merge, wire });
  });
  afterAll(() => pair.close());

  describe.each(Object.entries(families))("%s", (_family, { ip, headers }) => {
    it("TCP super-frames", async () => {
      const lengths = [20_000, 64_000, LARGEST - headers - 20, 2 * GSO_BYTES];
      const parts = lengths.map((length, i) => pattern(length, i));
      let sequence = 1;
      const frames = parts.map((part) => {
        const frame = ip().tcp({ sequence, flags: 0x18 }).payload(part).build();
        sequence += part.length;
        return offloaded(frame, GSO_BYTES);
      });
      const result = await pair.send(frames);
      const got = fromA(result).map(({ frame }) => frame);
      expectSame(stream(got), Buffer.concat(parts));
      if (!wire) return;
      const packets = crossed(result);
      expectSame(stream(packets), Buffer.concat(parts));
      expect(packets.length).toBe(lengths.reduce((n, each) => n + Math.ceil(each / GSO_BYTES), 0));
      // merged, they reach the VM as super-frames again
      if (merge === "on") expect(got.length).toBeLessThan(packets.length / 2);
    });

    it("UDP super-frames", async () => {
      const parts = [20_000, 60_000, 2 * GSO_BYTES].map(pattern);
      const frames = parts.map((part) =>
        offloaded(ip().udp({ src: 7000, dst: 7001 }).payload(part).build(), GSO_BYTES),
      );
      const result = await pair.send(frames);
      const sent = parts.flatMap((part) =>
        Array.from({ length: Math.ceil(part.length / GSO_BYTES) }, (_, i) =>
          part.subarray(i * GSO_BYTES, (i + 1) * GSO_BYTES),
        ),
      );
      const got = datagrams(fromA(result));
      expect(got.map((each) => each.length)).toEqual(sent.map((each) => each.length));
      expectSame(Buffer.concat(got), Buffer.concat(sent));
      if (wire) expect(crossed(result).map(({ payload }) => payload)).toEqual(sent);
    });

    it("checksums that are left to the device, and small frames", async () => {
      const payloads = [0, 1, 2, 3, 17, 100, 1301].map((length) => pattern(length, length));
      const sent = payloads.flatMap((payload) => [
        ip().udp({ src: 7000, dst: 7001 }).payload(payload).build(),
        ip().tcp({ flags: 0x18 }).payload(payload).build(),
      ]);
      const result = await pair.send([
        ...sent.map((frame) => offloaded(frame)),
        ...sent.map((bytes) => ({ bytes })),
      ]);
      const twice = [...sent, ...sent].map((bytes) => parseFrame(bytes).payload.toString("hex"));
      // merging may hand TCP over in other pieces, or in another order than UDP
      const got = fromA(result).map(({ frame }) => frame);
      const udp = (frames: ParsedFrame[]): string[] =>
        frames.filter((f) => f.udp).map(({ payload }) => payload.toString("hex"));
      expect(udp(got)).toEqual(twice.filter((_, i) => i % 2 === 0));
      expect(got.filter((f) => f.tcp)).toHaveLength(sent.length);
      if (wire) expect(crossed(result)).toHaveLength(2 * sent.length);
    });

    it("to a VM that takes nothing but whole packets", async () => {
      const tcp = pattern(30_000, 1);
      const udp = pattern(30_000, 2);
      const frames = [
        offloaded(ip().tcp({ flags: 0x18 }).payload(tcp).build(), GSO_BYTES),
        offloaded(ip().udp({ src: 7000, dst: 7001 }).payload(udp).build(), GSO_BYTES),
      ];
      const result = await pair.send(frames, []);
      expect(result.taps[1]!.offload).toEqual([]);
      expect(result.taps[1]!.frames.every((f) => f.gsoType === 0 && !f.needsChecksum)).toBe(true);
      const got = fromA(result);
      expectSame(stream(got.map((t) => t.frame).filter((f) => f.tcp)), tcp);
      expectSame(Buffer.concat(datagrams(got.filter((t) => t.frame.udp))), udp);
    });
  });
});
