// SPDX-License-Identifier: Apache-2.0
/**
 * TCP for direct ports, where the underlay delivers at MTU size and merges on receipt: VMs' taps as ports of two vnets on
 * two hosts. What comes in pieces reaches the VM as super-frames; two vnets' flows stay apart, were they the same flow.
 */
import { cpus } from "node:os";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DropInfo, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { packet, type PacketBuilder } from "../lib/packet.js";
import { datagrams, offloaded, runTaps, stream, taken, type TapFrame } from "../lib/tap.js";
import { GSO_BYTES, VM_A, VM_B, pattern } from "./vm-pair.js";
import { attachedHosts } from "./world.js";

const vnets = ["97", "98"] as const;
let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  await lab.lan("lan0", { wire: true });
  [a, b] = (await attachedHosts(lab, ["a", "b"], { config: 'merge: "on"\n' })) as [Host, Host];
  for (const host of [a, b]) {
    for (const vnet of vnets) {
      await host.vnetd(["vnet-create", "-b", "none", vnet]);
      await host.exec(`ip tuntap add mode tap name tap${vnet} vnet_hdr`);
      await host.vnetd(["port-add", vnet, `tap${vnet}`]);
    }
  }
  // GRO keeps a frame until the next ones come, however slowly they are sent
  const timeout = "/sys/class/net/vn-segment0/gro_flush_timeout";
  await b.exec([
    ...["unshare", "--mount", "sh", "-c"],
    `mount -t sysfs sysfs /sys && echo 50000000 > ${timeout}`,
  ]);
});
afterAll(() => lab.close());

const toB = (): PacketBuilder => packet().eth({ src: VM_A, dst: VM_B });
const families = { IPv4: () => toB().ipv4({ id: 1 }), IPv6: () => toB().ipv6() };

/** Taps 0 and 1 are a's, of vnets 97 and 98, 2 and 3 b's; what b's have of a's VMs. */
async function send(frames: readonly TapFrame[]): Promise<ReturnType<typeof taken>[][]> {
  const hello = packet().eth({ src: VM_B, dst: VM_A }).payload("hello").build();
  const { taps } = await runTaps({
    taps: [a, b].flatMap(({ netns }) =>
      vnets.map((vnet) => ({ netns, device: `tap${vnet}`, mtuBytes: 1400 })),
    ),
    frames: [
      { tap: 2, bytes: hello, awaited: true },
      { tap: 3, bytes: hello, awaited: true },
      ...frames,
    ],
    quietMs: 500,
  });
  return taps
    .slice(2)
    .map(({ frames: got }) => got.map(taken).filter(({ frame }) => frame.src === VM_A));
}

describe.each(Object.entries(families))("%s", (_family, ip) => {
  it("TCP comes merged, UDP as it was", async () => {
    const tcp = [20_000, 64_000].map(pattern);
    const udp = pattern(20_000, 7);
    const [got = []] = await send([
      ...tcp.map((part, i) => ({
        tap: 0,
        ...offloaded(
          ip()
            .tcp({ sequence: 1 + (i > 0 ? tcp[0]!.length : 0), flags: 0x18 })
            .payload(part)
            .build(),
          GSO_BYTES,
        ),
      })),
      { tap: 0, ...offloaded(ip().udp({ src: 7, dst: 8 }).payload(udp).build(), GSO_BYTES) },
    ]);
    const ofTcp = got.map(({ frame }) => frame).filter((frame) => frame.tcp !== undefined);
    expect(stream(ofTcp).equals(Buffer.concat(tcp))).toBe(true);
    expect(ofTcp.length).toBeLessThan(84_000 / GSO_BYTES / 2);
    const ofUdp = datagrams(got.filter(({ frame }) => frame.udp !== undefined));
    expect(Buffer.concat(ofUdp).equals(udp)).toBe(true);
    expect(ofUdp).toHaveLength(Math.ceil(udp.length / GSO_BYTES));
  });

  it("one flow in two vnets, each with every other segment, is two", async () => {
    const parts = Array.from({ length: 60 }, (_, i) => pattern(1000, i));
    const frames = parts.map((part, i) => ({
      tap: i % 2,
      bytes: ip()
        .tcp({ sequence: 1 + i * 1000, flags: 0x10 })
        .payload(part)
        .build(),
    }));
    const got = await send(frames);
    for (const vnet of [0, 1]) {
      const bytes = got[vnet]!.map(({ frame }) => frame.payload);
      const sent = parts.filter((_, i) => i % 2 === vnet);
      expect(bytes.map((each) => each.length)).toEqual(sent.map(() => 1000));
      expect(Buffer.concat(bytes).equals(Buffer.concat(sent))).toBe(true);
    }
  });
});

describe("the merging end of the pair", () => {
  const stale = async (): Promise<number> =>
    (await b.vnetdJson<StatusInfo>(["status"])).drops
      .filter(({ reason }: DropInfo) => reason === "stale_pass")
      .reduce((sum, { frames }) => sum + frames, 0);

  it("has a queue for each CPU", async () => {
    const { stdout } = await b.exec("ethtool -l vn-segment0");
    const [, now] = stdout.split("Current hardware settings:");
    expect(now).toMatch(new RegExp(`RX:\\s+${String(Math.min(cpus().length, 64))}\\n`));
  });

  it("takes nothing for a port that the programs did not send there", async () => {
    const before = await stale();
    await b.exec([
      ...["python3", "-c"],
      "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('vn-segment1', 0)); " +
        `s.send(bytes.fromhex('${toB().ipv4().tcp().payload(10).build().toString("hex")}'))`,
    ]);
    await eventually(async () => (await stale()) > before, {
      timeoutMs: 30_000,
      what: "the frame to be counted",
    });
  });
});
