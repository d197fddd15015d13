// SPDX-License-Identifier: Apache-2.0
/**
 * vnetd_xdp and vnetd_xdp_generic, packet by packet: what they know is taken out, or only marked, and said by
 * metadata; all else is left as it is, byte for byte. Then with vnetd_decap behind them, by real frames.
 */
import { rmSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  decodeVnetdDeviceStats,
  decodeVnetdXdpMeta,
  vnetdControlOp,
  vnetdFdbFlags,
  vnetdNeighbourFlags,
  vnetdSecurity,
  VnetdXdpMeta,
} from "../../src/generated/layouts.js";
import { expectBytes, hex, ipv6Bytes, macBytes, macText, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type ProgramName } from "../lib/bpf-lab.js";
import { packetIn } from "../lib/forms.js";
import { VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { exchange } from "../lib/wire.js";
import { GUEST_A, GUEST_B, PEER, THIRD, US, XDP_MARK, fromPeer, innerFrame } from "./rows.js";
import { attachHooks, detachHooks } from "./whole-way.js";

const HEADERS = { udp4: 14 + 50, udp6: 14 + 70 } as const;
const HOOKS = [["vnetd_decap", "ul0"]] as const;
type XdpProgram = Extract<ProgramName, `vnetd_xdp${string}`>;

let lab: BpfLab;
let vnet: LabVnet;

beforeAll(() => {
  lab = BpfLab.open();
  // a veth runs a program in a test only while one is hooked; this is the one of the real frames below
  const pin = path.join(lab.pinDir, "link-xdp");
  lab.native.xdpAttach(lab.program("vnetd_xdp"), lab.ifindex("ul0"), "native", pin);
});
afterAll(() => {
  const pin = path.join(lab.pinDir, "link-xdp");
  lab.native.xdpDetach(pin);
  rmSync(pin);
  lab.close();
});
beforeEach(() => {
  lab.underlay({ xdpStrips: true });
  lab.underlay({ family: 6, xdpStrips: true });
  vnet = lab.vnet();
  known(vnet);
});

/** Guest B is learned behind the peer, by both families, and A may be anywhere. */
function known(in_: LabVnet, mac = GUEST_B): void {
  lab.control(vnetdControlOp.CTL_LEARN, in_, { mac: macBytes(mac), addr: mappedBytes(PEER) });
  lab.run("vnetd_decap", vudp(innerFrame({ src: mac })));
}

const vudp = (frame: PacketBuilder, outer = fromPeer()): Buffer =>
  outer.vudp({ vnet: "4" }).payload(frame.build()).build();

interface XdpRun {
  passed: boolean;
  metadata: Buffer;
  packet: Buffer;
}
function run(program: XdpProgram, input: Uint8Array): XdpRun {
  const { retval, data, metadataBytes } = lab.native.progTestRun(lab.program(program), input, {
    xdpIfindex: lab.ifindex("ul0"),
  });
  return {
    passed: retval === 2,
    metadata: data.subarray(0, metadataBytes),
    packet: data.subarray(metadataBytes),
  };
}

function expectMeta(bytes: Buffer, wanted: { dst: string; offset: number; family: number }): void {
  expect(bytes).toHaveLength(VnetdXdpMeta.size);
  const { dst, ...meta } = decodeVnetdXdpMeta(bytes);
  const { slot, handle } = vnet;
  expect({ ...meta, dst: macText(dst) }).toEqual({
    ifindex: lab.ifindex("ul0"),
    slot,
    handle,
    ...wanted,
  });
}

const guest = (): PacketBuilder => packet().eth({ src: GUEST_B, dst: GUEST_A });
const plain: Record<string, PacketBuilder> = {
  "UDP over IPv4": innerFrame(),
  "TCP over IPv4": guest().ipv4().tcp({ flags: 0x10 }).payload(1000),
  "ICMP over IPv4": guest().ipv4().icmpEcho().payload(56),
  "a fragment of UDP over IPv4": guest()
    .ipv4({ protocol: 17, moreFragments: true, fragmentOffset: 800 })
    .payload(64),
  "UDP over IPv6": guest().ipv6().udp({ dst: 9 }).payload(100),
  "TCP over IPv6": guest().ipv6().tcp().payload(700),
  ICMPv6: guest().ipv6().icmpEcho().payload(8),
};
const outers: [string, PacketBuilder][] = [
  ["as hosts of ours send it", fromPeer()],
  ["from any port, with any checksum", fromPeer({ sport: 40_000, checksum: 0 })],
  ["of any TTL and TOS", packet().eth().ipv4({ src: PEER, dst: US, ttl: 3, tos: 0xb8 }).udp()],
];

describe.each(["udp4", "udp6"] as const)("what is plain, by %s", (form) => {
  it.each(Object.entries(plain))("%s: the headers are taken off", (_kind, frame) => {
    known6(form);
    const input = packetIn(form, vudp(frame))!;
    const { passed, metadata, packet: output } = run("vnetd_xdp", input);
    expect(passed).toBe(true);
    const wanted = frame.build();
    macBytes(XDP_MARK).forEach((byte, at) => (wanted[at] = byte));
    expectBytes(output, wanted, { what: "inner frame" });
    expectMeta(metadata, { dst: GUEST_A, offset: 0, family: form === "udp6" ? 6 : 4 });
  });

  it.each(["vnetd_xdp", "vnetd_xdp_generic"] as const)(
    "%s only marks where they have to stay",
    (program) => {
      if (program === "vnetd_xdp") {
        lab.underlay();
        lab.underlay({ family: 6 });
      }
      known6(form);
      const input = packetIn(form, vudp(innerFrame()))!;
      const { passed, metadata, packet: output } = run(program, input);
      expect(passed).toBe(true);
      const outerMac = macText(input.subarray(0, 6));
      macBytes(XDP_MARK).forEach((byte, at) => (input[at] = byte));
      expectBytes(output, input, { what: "packet" });
      const family = form === "udp6" ? 6 : 4;
      expectMeta(metadata, { dst: outerMac, offset: HEADERS[form], family });
    },
  );
});

/** The same host, by the address that it has in the form. */
function known6(form: keyof typeof HEADERS): void {
  if (form !== "udp6") return;
  const input = packetIn("udp6", vudp(innerFrame()))!;
  lab.native.progTestRun(lab.program("vnetd_decap"), input, { ifindex: lab.ifindex("ul0") });
}

it.each(outers)("an outer packet %s", (_name, outer) => {
  expect(run("vnetd_xdp", vudp(innerFrame(), outer)).metadata).toHaveLength(VnetdXdpMeta.size);
});

describe("everything else is left untouched", () => {
  const changed = (frame: Buffer, at: number, byte: number): Buffer => {
    frame[at]! ^= byte;
    return frame;
  };
  const rows: [string, () => Uint8Array, (() => void)?][] = [
    ["a packet of the host's own", () => packet().eth().ipv4({ dst: US }).udp({ dst: 53 }).build()],
    ["ARP", () => packet().eth().arp().build()],
    ["14 bytes", () => packet().eth().build()],
    ["another address", () => vudp(innerFrame(), to("10.66.1.77"))],
    ["the group", () => vudp(innerFrame(), fromPeer({ dst: VNETD_GROUP }))],
    ["our own address as source", () => vudp(innerFrame(), fromPeer({ src: US }))],
    ["outer options", () => vudp(innerFrame(), ipOptions())],
    ["a first fragment", () => vudp(innerFrame(), fragment({ moreFragments: true }))],
    ["a later fragment", () => vudp(innerFrame(), fragment({ fragmentOffset: 800 }))],
    ["a header checksum that is wrong", () => changed(vudp(innerFrame()), 24, 1)],
    ["a UDP length that does not fit", () => changed(vudp(innerFrame()), 39, 1)],
    ["bytes behind the packet", () => Buffer.concat([vudp(innerFrame()), Buffer.alloc(3)])],
    ["another version", () => changed(vudp(innerFrame()), 47, 0x10)],
    ["VARP", () => fromPeer().varp({ vnet: "4", vmac: GUEST_B, address: PEER }).build()],
    ["VFWD", () => fromPeer().vfwd().payload(60).build()],
    ["EtherIP", () => packetIn("etherip4", vudp(innerFrame()))!],
    [
      "a vnet that is not here",
      () => fromPeer().vudp({ vnet: "5" }).payload(innerFrame().build()).build(),
    ],
    ["a vnet that is down", () => vudp(innerFrame()), () => lab.setVnet(vnet, { up: false })],
    [
      "a vnet that is captured",
      () => vudp(innerFrame()),
      () => lab.setVnet(vnet, { watched: true }),
    ],
    [
      "a secure vnet",
      () => vudp(innerFrame()),
      () => lab.setVnet(vnet, { security: vnetdSecurity.SECURITY_CONF }),
    ],
    ["a device that is down", () => vudp(innerFrame()), () => lab.underlay({ up: false })],
    ["a source that is not known", () => vudp(innerFrame({ src: "aa:00:00:00:04:99" }))],
    ["a host that is not known", () => vudp(innerFrame(), fromPeer({ src: THIRD }))],
    [
      "a source that lives elsewhere",
      () => vudp(innerFrame()),
      () =>
        lab.control(vnetdControlOp.CTL_LEARN, vnet, {
          mac: macBytes(GUEST_B),
          addr: mappedBytes(THIRD),
          fdbFlags: vnetdFdbFlags.FDB_STATIC,
        }),
    ],
    [
      "a source that was only announced",
      () => vudp(innerFrame({ src: "aa:00:00:00:04:98" })),
      () =>
        lab.control(vnetdControlOp.CTL_LEARN, vnet, {
          mac: macBytes("aa:00:00:00:04:98"),
          addr: mappedBytes(PEER),
          fdbFlags: vnetdFdbFlags.FDB_ANNOUNCED,
        }),
    ],
    ["a frame for all", () => vudp(innerFrame({ dst: "ff:ff:ff:ff:ff:ff" }))],
    ["inner ARP", () => vudp(guest().arp())],
    ["an inner VLAN tag", () => vudp(guest().vlan({ id: 7 }).ipv4().tcp())],
    [
      "an inner protocol that GRO may take for the host's",
      () => vudp(guest().ipv4({ protocol: 50 }).payload(64)),
    ],
    ["an unknown inner type", () => vudp(guest().payload(64))],
    [
      "an inner frame of 20 bytes",
      () => vudp(packet().eth({ src: GUEST_B, dst: GUEST_A, type: 0x800 }).payload(6)),
    ],
  ];
  const to = (dst: string): PacketBuilder => packet().eth().ipv4({ src: PEER, dst }).udp();
  const ipOptions = (): PacketBuilder =>
    packet()
      .eth()
      .ipv4({ src: PEER, dst: US, options: hex("94040000") })
      .udp();
  const fragment = (options: { moreFragments?: boolean; fragmentOffset?: number }): PacketBuilder =>
    packet()
      .eth()
      .ipv4({ src: PEER, dst: US, ...options })
      .udp();

  it.each(rows)("%s", (_name, make, setup) => {
    setup?.();
    const input = make();
    for (const program of ["vnetd_xdp", "vnetd_xdp_generic"] as const) {
      const { passed, metadata, packet: output } = run(program, input);
      expect(passed).toBe(true);
      expect(metadata).toHaveLength(0);
      expectBytes(output, Buffer.from(input), { what: program });
    }
  });
});

it("what a source says keeps it alive", () => {
  const before = lab.learned(vnet, GUEST_B)!;
  lab.control(vnetdControlOp.CTL_FORGET, vnet, { mac: macBytes(GUEST_B) });
  const forgotten = lab.learned(vnet, GUEST_B)!;
  expect(forgotten.seenNs).toBeLessThan(before.seenNs);
  run("vnetd_xdp", vudp(innerFrame()));
  expect(lab.learned(vnet, GUEST_B)!.seenNs).toBeGreaterThanOrEqual(before.seenNs);
});

describe("with vnetd_decap behind it, of real frames", () => {
  beforeAll(() => attachHooks(lab, HOOKS));
  afterAll(() => detachHooks(lab, HOOKS));

  it.each(Object.entries(plain))("%s", (_kind, frame) => {
    const before = lab.traffic(vnet);
    const drops = lab.dropCounters();
    const byXdp = xdpFrames();
    const got = exchange({
      device: "ul0w",
      capture: "vn0",
      frames: [{ bytes: toUs(vudp(frame)) }],
    });
    expect(got.filter((bytes) => bytes.equals(frame.build()))).toHaveLength(1);
    expect(lab.traffic(vnet)).toMatchObject({
      decapFrames: before.decapFrames + 1,
      decapBytes: before.decapBytes + frame.build().length,
    });
    expect([...lab.dropCounters()]).toEqual([...drops]);
    expect(xdpFrames()).toBe(byXdp + 1);
  });

  it("a vnet that suppresses hears whose the addresses are, with headers and without", () => {
    vnet = lab.vnet({ suppress: true });
    known(vnet);
    const [b6, b4] = ["fd00::4:2", "192.168.4.2"];
    const advertisement = packet()
      .eth({ src: GUEST_B, dst: GUEST_A })
      .ipv6({ src: b6, dst: "fe80::a", hopLimit: 255 })
      .neighbour({
        ...{ type: 136, target: b6, flags: 0x60 },
        options: [{ type: 2, bytes: macBytes(GUEST_B) }],
      });
    const reply = guest().arp({
      ...{ operation: 2, senderMac: GUEST_B, senderIp: b4, targetIp: "192.168.4.1" },
    });
    const byXdp = xdpFrames();
    const frames = [advertisement, reply].map((frame) => ({ bytes: toUs(vudp(frame)) }));
    const got = exchange({ device: "ul0w", capture: "vn0", frames });
    for (const frame of [advertisement, reply])
      expect(got.filter((bytes) => bytes.equals(frame.build()))).toHaveLength(1);
    // ARP is not plain
    expect(xdpFrames()).toBe(byXdp + 1);
    const { NEIGHBOUR_ADVERTISED } = vnetdNeighbourFlags;
    for (const [address, flags] of [
      [ipv6Bytes(b6), NEIGHBOUR_ADVERTISED],
      [mappedBytes(b4), 0],
    ] as const) {
      const entry = lab.neighbour(vnet, address)!;
      expect({ mac: macText(entry.mac), flags: entry.flags }).toEqual({ mac: GUEST_B, flags });
    }
    expect(lab.neighbourStats(vnet)).toMatchObject({ learned: 2, refused: 0 });
  });

  it("what is not plain takes the way that it always took", () => {
    const frames = [guest().arp(), guest().vlan({ id: 7 }).ipv4().tcp().payload(9)];
    const got = exchange({
      device: "ul0w",
      capture: "vn0",
      frames: frames.map((frame) => ({ bytes: toUs(vudp(frame)) })),
    });
    expect(got.some((bytes) => bytes.equals(frames[0]!.build()))).toBe(true);
    expect(lab.traffic(vnet).decapFrames).toBeGreaterThanOrEqual(3);
  });
});

function xdpFrames(): number {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(lab.ifindex("ul0"));
  const value = lab.native.mapLookup(lab.map("device_stats"), key);
  return value === undefined ? 0 : Number(decodeVnetdDeviceStats(value).xdpFrames);
}

/** with the MAC of ul0 as its destination */
function toUs(frame: Buffer): Buffer {
  macBytes(lab.mac("ul0")).forEach((byte, at) => (frame[at] = byte));
  return frame;
}
