// SPDX-License-Identifier: Apache-2.0
/**
 * What a test run cannot make: super-frames, frames with partial checksums and VLAN tags beside
 * the packet, as they come from a VM's tap or a guest's stack. The programs are hooked, frames
 * enter at the vnetif, and what arrives at the other end of the underlay is looked at. The
 * underlay's offloads are off, so that what arrives is what would be on a wire.
 *
 *   out: frames -> vn0 ==veth== vn0p [vnetd_encap] -> ul0 ==veth== ul0w -> captured
 *   in:  frames -> ul0w ==veth== ul0 [vnetd_decap] -> vn0 -> captured
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { expectBytes, internetChecksum, ipv4Bytes, ipv6Bytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import { ETHER_TYPE, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import { VIRTIO_GSO, exchange, type WireFrame } from "../lib/wire.js";
import { INNER_FRAMES } from "./decap-rows.js";
import { GUEST_A, GUEST_B, PEER, expectEncapsulated, fromPeer } from "./rows.js";
import { PEER_MAC, attachHooks, detachHooks, ip, vnetWithB } from "./whole-way.js";

const HOOKS = [
  ["vnetd_encap", "vn0p"],
  ["vnetd_decap", "ul0"],
] as const;
const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });
const ip4 = { src: "192.168.4.1", dst: "192.168.4.2" };
const ip6 = { src: "fd00::1", dst: "fd00::2" };

let lab: BpfLab | undefined;
let vnet: LabVnet;

beforeAll(() => {
  lab = BpfLab.open();
  const offloads = {
    "tx-tcp-segmentation": false,
    "tx-udp-segmentation": false,
    "tx-generic-segmentation": false,
  };
  lab.native.featuresSet("ul0", { ...offloads, "tx-checksum-ip-generic": false });
  ip("neighbour", "replace", PEER, "lladdr", PEER_MAC, "dev", "ul0");
  attachHooks(lab, HOOKS);
});
afterAll(() => {
  if (lab !== undefined) detachHooks(lab, HOOKS);
  lab?.close();
});
beforeEach(() => {
  vnet = vnetWithB(lab!);
});

/** sends one frame out of the vnetif; returns the vnetd packets that crossed the underlay */
function send(frame: WireFrame): Buffer[] {
  const captured = exchange({ device: "vn0", capture: "ul0w", frames: [frame] });
  return captured.filter((bytes) => {
    const outer = parseFrame(bytes, { messages: "skip", transportChecksums: "skip" });
    return outer.udp?.dst === 1798;
  });
}

/** puts the sum of the pseudo-header where the checksum belongs, as a stack does that leaves the rest to the device */
function partial(
  frame: Buffer,
  options: { start: number; offset: number; pseudo: Buffer },
): Buffer {
  const out = Buffer.from(frame);
  out.writeUInt16BE(~internetChecksum(options.pseudo) & 0xffff, options.start + options.offset);
  return out;
}
const pseudo4 = (protocol: number, length: number): Buffer =>
  Buffer.concat([
    ipv4Bytes(ip4.src),
    ipv4Bytes(ip4.dst),
    Buffer.from([0, protocol, length >> 8, length & 0xff]),
  ]);
const pseudo6 = (protocol: number, length: number): Buffer =>
  Buffer.concat([
    ipv6Bytes(ip6.src),
    ipv6Bytes(ip6.dst),
    Buffer.from([0, 0, length >> 8, length & 0xff, 0, 0, 0, protocol]),
  ]);

/** inner frames, each right in itself (the strict parser verifies lengths and checksums) */
function innerFrames(packets: readonly Buffer[]): ParsedFrame[] {
  return packets.map((bytes) => {
    expect(bytes.length, "Ethernet and at most the underlay's MTU").toBeLessThanOrEqual(14 + 1500);
    const outer = parseFrame(bytes);
    if (outer.message?.kind !== "vudp") throw new Error("not VUDP");
    return parseFrame(outer.message.frame);
  });
}

describe("super-frames become packets of the underlay's size, each right", () => {
  const PAYLOAD = 20_000;

  it.each([
    { kind: "TCP over IPv4 (TSO)", gsoType: VIRTIO_GSO.tcp4, ip: toB().ipv4(ip4), start: 34 },
    { kind: "TCP over IPv6 (TSO)", gsoType: VIRTIO_GSO.tcp6, ip: toB().ipv6(ip6), start: 54 },
    { kind: "UDP over IPv4 (USO)", gsoType: VIRTIO_GSO.udpL4, ip: toB().ipv4(ip4), start: 34 },
    { kind: "UDP over IPv6 (USO)", gsoType: VIRTIO_GSO.udpL4, ip: toB().ipv6(ip6), start: 54 },
  ])("$kind", ({ gsoType, ip, start }) => {
    const isUdp = gsoType === VIRTIO_GSO.udpL4;
    const builder = isUdp ? ip.udp({ dst: 9 }) : ip.tcp({ flags: 0x18 });
    const { protocol, offset, headerLength } = isUdp
      ? { protocol: 17, offset: 6, headerLength: start + 8 }
      : { protocol: 6, offset: 16, headerLength: start + 20 };
    const gsoSize = 1300;
    const whole = builder.payload(PAYLOAD).build();
    const length = whole.length - start;
    const pseudo = start === 34 ? pseudo4(protocol, length) : pseudo6(protocol, length);
    const bytes = partial(whole, { start, offset, pseudo });
    const packets = send({
      bytes,
      gsoType,
      gsoSize,
      headerLength,
      checksumStart: start,
      checksumOffset: offset,
    });
    const frames = innerFrames(packets);
    expect(frames.length).toBe(Math.ceil(PAYLOAD / gsoSize));
    expectBytes(Buffer.concat(frames.map((f) => f.payload)), whole.subarray(headerLength), {
      what: "payload",
    });
    for (const frame of frames) expect(frame).toMatchObject({ src: GUEST_A, dst: GUEST_B });
    expect(lab!.traffic(vnet).encapFrames).toBe(1);
  });

  it("superframe_too_long: what would not fit an IPv4 length is dropped and counted, not mangled", () => {
    const whole = toB()
      .ipv4(ip4)
      .tcp()
      .payload(65_500 - 54)
      .build();
    const bytes = partial(whole, { start: 34, offset: 16, pseudo: pseudo4(6, whole.length - 34) });
    const header = {
      gsoType: VIRTIO_GSO.tcp4,
      gsoSize: 1300,
      headerLength: 54,
      checksumStart: 34,
      checksumOffset: 16,
    };
    const before = new Map(lab!.dropCounters());
    expect(send({ bytes, ...header })).toEqual([]);
    const counted = [...lab!.dropCounters()]
      .filter(([key]) => !before.has(key))
      .map(([, drop]) => drop);
    expect(counted).toEqual([
      { reason: "superframe_too_long", direction: "encap", handle: vnet.handle, frames: 1 },
    ]);
  });

  it("too_big: segments are measured, not the super-frame", () => {
    const whole = toB().ipv4(ip4).tcp().payload(4000).build();
    const bytes = partial(whole, { start: 34, offset: 16, pseudo: pseudo4(6, whole.length - 34) });
    const header = {
      gsoType: VIRTIO_GSO.tcp4,
      headerLength: 54,
      checksumStart: 34,
      checksumOffset: 16,
    };
    // 1500 - 50 - 14 - 40 is what fits
    expect(innerFrames(send({ bytes, ...header, gsoSize: 1396 })).length).toBe(3);
    expect(send({ bytes, ...header, gsoSize: 1397 })).toEqual([]);
    const counted = [...lab!.dropCounters().values()].filter((d) => d.handle === vnet.handle);
    expect(counted).toEqual([
      { reason: "too_big", direction: "encap", handle: vnet.handle, frames: 1 },
    ]);
  });
});

describe("checksums that were left to the device are made", () => {
  it.each([
    ["TCP", toB().ipv4(ip4).tcp().payload(101), 6, 16],
    ["UDP", toB().ipv4(ip4).udp({ dst: 9 }).payload(3), 17, 6],
  ] as const)("%s", (_kind, builder, protocol, offset) => {
    const whole = builder.build();
    const bytes = partial(whole, {
      start: 34,
      offset,
      pseudo: pseudo4(protocol, whole.length - 34),
    });
    const packets = send({ bytes, checksumStart: 34, checksumOffset: offset });
    expect(packets.length).toBe(1);
    expectEncapsulated(packets[0]!, { to: PEER, ttl: 64, frame: whole });
  });
});

describe("VLAN tags that the kernel keeps beside the packet are written into it", () => {
  it.each([
    ["802.1Q", toB().vlan({ id: 5, priority: 3 }).ipv4(ip4).udp({ dst: 9 }).payload(30)],
    ["802.1Q and ARP", toB().vlan({ id: 5 }).arp()],
    [
      "QinQ",
      toB()
        .vlan({ id: 5, tpid: ETHER_TYPE.qinq })
        .vlan({ id: 6 })
        .ipv4(ip4)
        .udp({ dst: 9 })
        .payload(30),
    ],
    [
      "three tags",
      toB().vlan({ id: 5 }).vlan({ id: 6 }).vlan({ id: 7 }).ipv4(ip4).udp({ dst: 9 }).payload(30),
    ],
    ["priority tag", toB().vlan({ id: 0, priority: 6 }).ipv4(ip4).udp({ dst: 9 }).payload(30)],
  ] as const)("%s", (_kind, builder) => {
    const packets = send({ bytes: builder.build() });
    expect(packets.length).toBe(1);
    expectEncapsulated(packets[0]!, { to: PEER, ttl: 64, frame: builder });
  });
});

describe("frames that are not IP find the neighbour by a second pass", () => {
  it.each([
    ["ARP", toB().arp({ operation: 2 })],
    ["14 bytes", toB()],
    ["LLC", toB().llc(0xaa).payload(40)],
  ] as const)("%s", (_kind, builder) => {
    const packets = send({ bytes: builder.build() });
    expect(packets.length).toBe(1);
    const outer = expectEncapsulated(packets[0]!, { to: PEER, ttl: 64, frame: builder });
    expect(outer.dst).toBe("02:00:0a:42:01:09");
    expect(lab!.traffic(vnet).encapFrames).toBe(1);
  });
});

describe.each([
  ["straight into the vnetif", { merge: false }],
  ["through its peer, where merging happens", { merge: true }],
])("in: %s", (_how, underlay) => {
  it("frames of every kind arrive as they are", () => {
    lab!.underlay(underlay);
    const frames = Object.values(INNER_FRAMES).map((frame) => frame.build());
    const captured = exchange({
      device: "ul0w",
      capture: "vn0",
      frames: frames.map((frame) => ({
        bytes: fromPeer().vudp({ vnet: "4" }).payload(frame).build(),
      })),
    });
    expect(captured.length).toBe(frames.length);
    // a tag is beside the packet on arrival, and the capture shows the packet
    frames.forEach((frame, i) => expectBytes(captured[i]!, withoutTag(frame)));
    expect(lab!.traffic(vnet).decapFrames).toBe(frames.length);
    expect(lab!.learned(vnet, GUEST_B)?.host).toBe(PEER);
  });
});

/** the outermost VLAN tag taken out */
function withoutTag(frame: Buffer): Buffer {
  const type = frame.readUInt16BE(12);
  const isTagged = type === ETHER_TYPE.vlan || type === ETHER_TYPE.qinq;
  return isTagged ? Buffer.concat([frame.subarray(0, 12), frame.subarray(16)]) : frame;
}
