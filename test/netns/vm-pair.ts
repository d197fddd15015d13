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
import { attachedDaemon } from "./world.js";

export const VM_A = "52:54:00:00:00:0a";
export const VM_B = "52:54:00:00:00:0b";
/** of a segment in the VMs' super-frames */
export const GSO_BYTES = 1300;
/** of the LAN */
export const MTU_BYTES = 1500;

export interface Way {
  merge: "on" | "off";
  wire: boolean;
  /** the hosts are attached with mode xdp, to a device whose driver runs the program or to one whose does not */
  xdp?: "native" | "generic";
}

/** how packets cross the LAN, and whether the receiver merges them */
export const WAYS: readonly (Way & { name: string })[] = [
  { name: "packets at MTU size, merged on receipt", merge: "on", wire: true },
  { name: "packets at MTU size, as they come", merge: "off", wire: true },
  { name: "super-frames on the LAN", merge: "off", wire: false },
  { name: "super-frames on the LAN, merged on receipt", merge: "on", wire: false },
];

/** the same by XDP, which segments what is sent to a veth whose driver runs it */
export const XDP_WAYS: typeof WAYS = [
  { name: "native XDP, and GRO behind it", merge: "off", wire: true, xdp: "native" },
  { name: "native XDP, merged on receipt", merge: "on", wire: true, xdp: "native" },
  { name: "generic XDP, super-frames on the LAN", merge: "off", wire: false, xdp: "generic" },
  { name: "generic XDP, packets at MTU size", merge: "on", wire: true, xdp: "generic" },
];

/** differs with each seed */
export const pattern = (length: number, seed = 0): Buffer =>
  Buffer.from(new Uint8Array(length).map((_, i) => (i * 7) ^ (i >> 8) ^ seed));

/** Puts a macvlan in front of eth0, under its name: a driver that runs no XDP programs. */
export async function withoutNativeXdp(host: Host): Promise<void> {
  const [{ address, prefixlen }] = (
    await host.ip<{ addr_info: { local: string; prefixlen: number }[] }[]>(
      "-4",
      "address",
      "show",
      "eth0",
    )
  )[0]!.addr_info.map(({ local, prefixlen }) => ({ address: local, prefixlen })) as [
    { address: string; prefixlen: number },
  ];
  for (const command of [
    "ip address flush dev eth0",
    "ip link set eth0 down",
    "ip link set eth0 name below",
    // it would answer for the macvlan, with its own MAC
    "sysctl -qw net.ipv4.conf.below.arp_ignore=1",
    "ip link set below up",
    "ip link add link below name eth0 type macvlan mode bridge",
    `ip address add ${address}/${prefixlen} dev eth0`,
    "ip link set eth0 up",
  ])
    await host.exec(command);
}

export class VmPair {
  private constructor(
    readonly lab: Lab,
    readonly a: Host,
    readonly b: Host,
  ) {}

  static async create({ merge, wire, xdp }: Way): Promise<VmPair> {
    const lab = await Lab.create();
    await lab.lan("lan0", { wire });
    const config = `merge: ${merge}\n${xdp === undefined ? "" : "xdp: [eth0]\n"}`;
    const hosts: Host[] = [];
    for (const [at, name] of ["a", "b"].entries()) {
      const host = await lab.host(name, { underlay: `10.66.1.${at + 1}/24` });
      if (xdp === "generic") await withoutNativeXdp(host);
      await attachedDaemon(host, { config });
      if (xdp === "native") await host.exec("ethtool -K eth0 gro on");
      hosts.push(host);
    }
    const [a, b] = hosts as [Host, Host];
    for (const host of hosts) {
      // as on a NIC that offers nothing: what is captured is what would be on a wire
      for (const device of wire ? (xdp === "generic" ? ["eth0", "below"] : ["eth0"]) : [])
        await host.exec(`ethtool -K ${device} tx off`);
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
      // on b's device it would be seen without its headers, where XDP takes them off
      watch: [{ netns: this.lab.switch, device: this.lab.switchPort(a) }],
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
