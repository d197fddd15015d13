// SPDX-License-Identifier: Apache-2.0
/**
 * A VM's tap on a vnet's bridge, as a hypervisor opens it: super-frames of TCP and UDP, checksums
 * left to the device, small frames, from a VM on one host to a VM on another. At the far tap every
 * byte must be there and every checksum right; on the LAN between, where packets cross at MTU size
 * and with their checksums filled in, every packet is looked at.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Host } from "../lib/lab.js";
import { packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import {
  ALL_OFFLOADS,
  datagrams,
  offloaded,
  runTaps,
  stream,
  taken,
  type Offload,
  type TapFrame,
  type TapResult,
} from "../lib/tap.js";
import type { WireFrame } from "../lib/wire.js";
import { attachedHosts } from "./world.js";

const VM_A = "52:54:00:00:00:0a";
const VM_B = "52:54:00:00:00:0b";
const GSO_BYTES = 1300;
/** of a whole IP packet, as large as there is one */
const LARGEST = 65_535;

const toB = (): PacketBuilder => packet().eth({ src: VM_A, dst: VM_B });
const families = {
  IPv4: { ip: () => toB().ipv4({ id: 1 }), headers: 20 },
  IPv6: { ip: () => toB().ipv6(), headers: 40 },
};
const pattern = (length: number, seed: number): Buffer =>
  Buffer.from(new Uint8Array(length).map((_, i) => (i * 7) ^ (i >> 8) ^ seed));
/** Too long for a matcher's picture of the difference. */
function expectSame(got: Buffer, sent: Buffer): void {
  expect(got.length).toBe(sent.length);
  const differs = got.findIndex((byte, i) => byte !== sent[i]);
  expect(differs, "the first byte that differs").toBe(-1);
}

let lab: Lab;
let a: Host;
let b: Host;

async function world(merge: "on" | "off", wire: boolean): Promise<void> {
  lab = await Lab.create();
  await lab.lan("lan0", { wire });
  [a, b] = (await attachedHosts(lab, ["a", "b"], { config: `merge: ${merge}\n` })) as [Host, Host];
  for (const host of [a, b]) {
    // as on a NIC that offers nothing: what is captured is what would be on a wire
    if (wire) await host.exec("ethtool -K eth0 tx off");
    await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
  }
}

/** Sends from a's VM to b's, once b's is known to a; what each hears of the other's first frame is left out. */
async function send(
  frames: readonly WireFrame[],
  offload: readonly Offload[] = ALL_OFFLOADS,
): Promise<TapResult> {
  const hello = packet().eth({ src: VM_B, dst: VM_A }).payload("hello").build();
  const all: TapFrame[] = [
    { tap: 1, bytes: hello, awaited: true },
    ...frames.map((frame) => ({ ...frame, tap: 0 })),
  ];
  const result = await runTaps({
    taps: [
      { netns: a.netns, bridge: "vnet97" },
      { netns: b.netns, bridge: "vnet97", offload },
    ],
    watch: [{ netns: b.netns, device: "eth0" }],
    frames: all,
  });
  return result;
}

const fromA = (result: TapResult): ReturnType<typeof taken>[] =>
  result.taps[1]!.frames.map(taken).filter(({ frame }) => frame.src === VM_A);

/** The frames that crossed the LAN, each right in itself, in packets that fit it. */
function crossed(result: TapResult): ParsedFrame[] {
  return result.watched[0]!.flatMap((bytes) => {
    const outer = parseFrame(bytes);
    if (outer.message?.kind !== "vudp") return [];
    expect(bytes.length).toBeLessThanOrEqual(14 + 1500);
    const inner = parseFrame(outer.message.frame);
    return inner.src === VM_A ? [inner] : [];
  });
}

describe.each([
  { name: "packets at MTU size, merged on receipt", merge: "on", wire: true },
  { name: "packets at MTU size, as they come", merge: "off", wire: true },
  { name: "super-frames on the LAN", merge: "off", wire: false },
  { name: "super-frames on the LAN, merged on receipt", merge: "on", wire: false },
] as const)("$name", ({ merge, wire }) => {
  beforeAll(() => world(merge, wire));
  afterAll(() => lab.close());

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
      const result = await send(frames);
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
      const result = await send(frames);
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
      const result = await send([
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
      const result = await send(frames, []);
      expect(result.taps[1]!.offload).toEqual([]);
      expect(result.taps[1]!.frames.every((f) => f.gsoType === 0 && !f.needsChecksum)).toBe(true);
      const got = fromA(result);
      expectSame(stream(got.map((t) => t.frame).filter((f) => f.tcp)), tcp);
      expectSame(Buffer.concat(datagrams(got.filter((t) => t.frame.udp))), udp);
    });
  });
});
