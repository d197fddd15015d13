// SPDX-License-Identifier: Apache-2.0
/**
 * Every kind of frame, from a VM on one host to a VM on another (test/lib/tap.ts): {TCP and UDP
 * super-frames, single frames} x {untagged, one VLAN tag, two} x {IPv4, IPv6}, and what is not IP. What
 * arrives is looked at at the far tap, and on the LAN between: lengths, checksums, nothing above the MTU.
 */
import { release } from "node:os";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { BROADCAST_MAC, ETHER_TYPE, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import { datagrams, offloaded, stream, type Taken } from "../lib/tap.js";
import type { WireFrame } from "../lib/wire.js";
import {
  GSO_BYTES,
  MTU_BYTES,
  VM_A,
  VM_B,
  VmPair,
  WAYS,
  XDP_WAYS,
  crossed,
  fromA,
  pattern,
} from "./vm-pair.js";
import { longId } from "./world.js";

const SUPER_BYTES = 20_000;

const tagged = {
  untagged: (eth: PacketBuilder) => eth,
  "one VLAN tag": (eth: PacketBuilder) => eth.vlan({ id: 5, priority: 3 }),
  QinQ: (eth: PacketBuilder) => eth.vlan({ id: 100, tpid: ETHER_TYPE.qinq }).vlan({ id: 5 }),
  "two tags of 802.1Q": (eth: PacketBuilder) => eth.vlan({ id: 100 }).vlan({ id: 5, priority: 7 }),
};
const families = {
  IPv4: (eth: PacketBuilder) => eth.ipv4({ id: 1 }),
  IPv6: (eth: PacketBuilder) => eth.ipv6(),
};
const kinds: Record<string, (ip: PacketBuilder, port: number) => WireFrame> = {
  "TCP super-frame": (ip, src) =>
    offloaded(ip.tcp({ src, flags: 0x18 }).payload(pattern(SUPER_BYTES)).build(), GSO_BYTES),
  "UDP super-frame": (ip, src) =>
    offloaded(ip.udp({ src, dst: 7001 }).payload(pattern(SUPER_BYTES)).build(), GSO_BYTES),
  "TCP, checksum left to the device": (ip, src) =>
    offloaded(ip.tcp({ src, flags: 0x18 }).payload(pattern(333)).build()),
  "UDP, checksum left to the device": (ip, src) =>
    offloaded(ip.udp({ src, dst: 7001 }).payload(pattern(333)).build()),
  "UDP, whole": (ip, src) => ({ bytes: ip.udp({ src, dst: 7001 }).payload(pattern(1000)).build() }),
};

/** Before Linux 6.2 a tap takes no UDP super-frames (TUN_F_USO4), and no VM has them. */
const [major = 0, minor = 0] = release().split(".").map(Number);
if (major < 6 || (major === 6 && minor < 2)) delete kinds["UDP super-frame"];

/** One of the matrix; its port tells its frames from all others'. */
interface Case {
  name: string;
  port: number;
  sent: WireFrame;
}
const matrix: Case[] = Object.entries(tagged).flatMap(([tags, tag], t) =>
  Object.entries(families).flatMap(([family, ip], f) =>
    Object.entries(kinds).map(([kind, make], k) => {
      const port = 20_000 + 100 * t + 10 * f + k;
      const eth = packet().eth({ src: VM_A, dst: VM_B });
      return { name: `${kind}, ${family}, ${tags}`, port, sent: make(ip(tag(eth)), port) };
    }),
  ),
);

const notIp: Record<string, Buffer> = {
  "ARP broadcast": packet().eth({ src: VM_A, dst: BROADCAST_MAC }).arp({ senderMac: VM_A }).build(),
  "ARP answer": packet().eth({ src: VM_A, dst: VM_B }).arp({ operation: 2 }).build(),
  "ARP with a VLAN tag": packet().eth({ src: VM_A, dst: VM_B }).vlan({ id: 7 }).arp().build(),
  "STP BPDU": packet().eth({ src: VM_A, dst: "01:80:c2:00:00:00" }).llc().stp(VM_A).build(),
  LLDP: packet()
    .eth({ src: VM_A, dst: "01:80:c2:00:00:0e", type: 0x88cc })
    .payload("\x02\x07\x04VM_A")
    .build(),
  "14 bytes": packet().eth({ src: VM_A, dst: VM_B, type: 0x88b5 }).build(),
  "15 bytes": packet().eth({ src: VM_A, dst: VM_B, type: 0x88b6 }).payload("x").build(),
  "as long as fits": packet()
    .eth({ src: VM_A, dst: VM_B, type: 0x88b7 })
    .payload(MTU_BYTES - 64)
    .build(),
  // their packets are fragmented
  "1500 bytes, which no packet of the LAN holds": packet()
    .eth({ src: VM_A, dst: VM_B, type: 0x88b8 })
    .payload(pattern(MTU_BYTES))
    .build(),
  "1500 bytes for all": packet()
    .eth({ src: VM_A, dst: BROADCAST_MAC, type: 0x88b9 })
    .payload(pattern(MTU_BYTES))
    .build(),
  "IPv6 neighbour discovery's form": packet()
    .eth({ src: VM_A, dst: "33:33:ff:00:00:02" })
    .ipv6({ src: "fe80::1", dst: "ff02::1:ff00:2" })
    .icmpEcho()
    .build(),
};

describe.each([...WAYS, ...XDP_WAYS])("$name", ({ name: _name, ...way }) => {
  const { wire } = way;
  let pair: VmPair;
  let arrived: Taken[];
  let raw: Buffer[];
  let onTheLan: ParsedFrame[];
  let drops: StatusInfo["drops"];

  beforeAll(async () => {
    pair = await VmPair.create(way);
    const hosts = [pair.a, pair.b];
    // a bridge keeps LLDP to itself unless it is told otherwise
    for (const host of hosts)
      await host.exec("ip link set vnet97 type bridge group_fwd_mask 0x4000 mcast_snooping 0");
    const result = await pair.send([
      ...matrix.map(({ sent }) => sent),
      ...Object.values(notIp).map((bytes) => ({ bytes })),
    ]);
    raw = result.taps[1]!.frames.map(({ bytes }) => bytes);
    arrived = fromA(result);
    onTheLan = wire ? crossed(result) : [];
    drops = [];
    for (const host of hosts) drops.push(...(await host.vnetdJson<StatusInfo>(["status"])).drops);
  });
  afterAll(() => pair.close());

  it.each(matrix)("$name", ({ port, sent }) => {
    const whole = parseFrame(sent.bytes, { transportChecksums: "skip" });
    const isOurs = (f: ParsedFrame): boolean => (f.tcp ?? f.udp)?.src === port;
    const check = (got: Taken[]): void => {
      for (const { frame } of got) {
        expect(frame.vlans).toEqual(whole.vlans);
        expect(frame).toMatchObject({ src: VM_A, dst: VM_B, type: whole.type });
      }
      if (whole.tcp) {
        expect(stream(got.map(({ frame }) => frame)).equals(whole.payload)).toBe(true);
      } else {
        const size = sent.gsoSize ?? whole.payload.length;
        const pieces = datagrams(got);
        expect(pieces.map((each) => each.length)).toEqual(
          Array.from({ length: Math.ceil(whole.payload.length / size) }, (_, i) =>
            Math.min(size, whole.payload.length - i * size),
          ),
        );
        expect(Buffer.concat(pieces).equals(whole.payload)).toBe(true);
      }
    };
    check(arrived.filter(({ frame }) => isOurs(frame)));
    if (wire) check(onTheLan.filter(isOurs).map((frame) => ({ frame, gsoSize: 0 })));
  });

  it.each(Object.entries(notIp))("%s", (_name, bytes) => {
    // the shortest ones are padded, as Ethernet does
    const found = raw.filter(
      (got) =>
        got.subarray(0, bytes.length).equals(bytes) &&
        got.length <= Math.max(bytes.length, 60) &&
        got.subarray(bytes.length).every((byte) => byte === 0),
    );
    expect(found).toHaveLength(1);
  });

  it("and nothing of it was dropped", () => {
    expect(drops.filter(({ vnet }) => vnet === longId("97"))).toEqual([]);
  });
});
