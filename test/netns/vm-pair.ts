// SPDX-License-Identifier: Apache-2.0
/**
 * Two hosts with a bridge of vnet 97 each and a VM's tap on it (test/lib/tap.ts), for tests that look
 * at frames byte by byte: at the far tap, and on the LAN between.
 */
import { expect } from "vitest";
import { Lab, type Host } from "../lib/lab.js";
import { packet } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import {
  ALL_OFFLOADS,
  runTaps,
  taken,
  type Offload,
  type Taken,
  type TapFrame,
  type TapResult,
} from "../lib/tap.js";
import type { WireFrame } from "../lib/wire.js";
import { attachedHosts } from "./world.js";

export const VM_A = "52:54:00:00:00:0a";
export const VM_B = "52:54:00:00:00:0b";
/** of a segment in the VMs' super-frames */
export const GSO_BYTES = 1300;
/** of the LAN */
export const MTU_BYTES = 1500;

/** how packets cross the LAN, and whether the receiver merges them */
export const WAYS = [
  { name: "packets at MTU size, merged on receipt", merge: "on", wire: true },
  { name: "packets at MTU size, as they come", merge: "off", wire: true },
  { name: "super-frames on the LAN", merge: "off", wire: false },
  { name: "super-frames on the LAN, merged on receipt", merge: "on", wire: false },
] as const;

/** differs with each seed */
export const pattern = (length: number, seed = 0): Buffer =>
  Buffer.from(new Uint8Array(length).map((_, i) => (i * 7) ^ (i >> 8) ^ seed));

export class VmPair {
  private constructor(
    readonly lab: Lab,
    readonly a: Host,
    readonly b: Host,
  ) {}

  static async create({ merge, wire }: { merge: "on" | "off"; wire: boolean }): Promise<VmPair> {
    const lab = await Lab.create();
    await lab.lan("lan0", { wire });
    const config = `merge: ${merge}\n`;
    const [a, b] = (await attachedHosts(lab, ["a", "b"], { config })) as [Host, Host];
    for (const host of [a, b]) {
      // as on a NIC that offers nothing: what is captured is what would be on a wire
      if (wire) await host.exec("ethtool -K eth0 tx off");
      await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
    }
    return new VmPair(lab, a, b);
  }

  /** Sends from a's VM to b's, once b's is known to a. */
  send(
    frames: readonly WireFrame[],
    offload: readonly Offload[] = ALL_OFFLOADS,
  ): Promise<TapResult> {
    const { a, b } = this;
    const hello = packet().eth({ src: VM_B, dst: VM_A }).payload("hello").build();
    const all: TapFrame[] = [
      { tap: 1, bytes: hello, awaited: true },
      ...frames.map((frame) => ({ ...frame, tap: 0 })),
    ];
    return runTaps({
      taps: [
        { netns: a.netns, bridge: "vnet97" },
        { netns: b.netns, bridge: "vnet97", offload },
      ],
      watch: [{ netns: b.netns, device: "eth0" }],
      frames: all,
    });
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}

/** What b's VM has of a's. */
export const fromA = (result: TapResult): Taken[] =>
  result.taps[1]!.frames.map(taken).filter(({ frame }) => frame.src === VM_A);

/** The frames of a's VM that crossed the LAN, each right in itself, in packets that fit it. */
export function crossed(result: TapResult): ParsedFrame[] {
  return result.watched[0]!.flatMap((bytes) => {
    const outer = parseFrame(bytes);
    expect(bytes.length).toBeLessThanOrEqual(14 + MTU_BYTES);
    if (outer.message?.kind !== "vudp") return [];
    const inner = parseFrame(outer.message.frame);
    return inner.src === VM_A ? [inner] : [];
  });
}
