// SPDX-License-Identifier: Apache-2.0
/**
 * Fragments over IPv6, and what passes the pair that fragments for EtherIP: the whole way with real
 * frames, as in fragments.test.ts.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { expectBytes, internetChecksum, macText } from "../lib/bytes.js";
import { BpfLab, REASSEMBLY_PORT, type LabVnet } from "../lib/bpf-lab.js";
import {
  addressBytes,
  addressIn,
  fragmentIpv6,
  packetIn,
  reassembleIpv6,
  textIn,
  type Form,
} from "../lib/forms.js";
import {
  BROADCAST_MAC,
  ETHER_TYPE,
  VNETD_GROUP,
  VNETD_GROUP_MAC,
  packet,
  type PacketBuilder,
} from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { VIRTIO_GSO, exchange } from "../lib/wire.js";
import { GUEST_A, GUEST_B, PEER, US, expectEncapsulated, fromPeer } from "./rows.js";
import {
  FRAGMENT_HOOKS,
  PEER_MAC,
  attachHooks,
  detachHooks,
  forFragments,
  ip,
  vnetWithB,
} from "./whole-way.js";

/** of the lab's underlay: 20 more than an Ethernet's, so that the frames of the tables fit */
const MTU = 1520;

let lab: BpfLab | undefined;
let vnet: LabVnet;

function open(form: Form): void {
  lab = BpfLab.open({ form });
  const group = textIn("udp6", VNETD_GROUP);
  forFragments(lab, [PEER, textIn("udp6", PEER)], `${group}/128`);
  for (const name of ["ul0", "ul0w"]) ip("link", "set", name, "mtu", String(MTU));
  attachHooks(lab, FRAGMENT_HOOKS);
}
function close(): void {
  if (lab !== undefined) detachHooks(lab, FRAGMENT_HOOKS);
  lab?.close();
}
function begin(): void {
  vnet = vnetWithB(lab!);
}

const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });
/** IPv6's own packets (neighbour discovery) left out */
const isOurs = (bytes: Buffer): boolean =>
  bytes.readUInt16BE(12) === ETHER_TYPE.ipv6 && [17, 44, 97].includes(bytes[20]!);

describe("over IPv6", () => {
  beforeAll(() => open("udp6"));
  afterAll(close);
  beforeEach(begin);

  const send = (frame: Uint8Array): Buffer[] =>
    exchange({ device: "vn0", capture: "ul0w", frames: [{ bytes: frame }] }).filter(isOurs);

  it.each([
    ["IPv4, two fragments", toB().ipv4().udp({ dst: 9 }).payload(1472), 2],
    ["not IP", toB().payload(1500), 2],
    ["802.1Q inline", toB().vlan({ id: 5 }).ipv4().udp({ dst: 9 }).payload(1472), 2],
    ["one byte more than fits", toB().payload(1437), 2],
    ["what fits exactly is one packet, without a fragment header", toB().payload(1436), 1],
    ["a jumbo frame", toB().ipv4().udp({ dst: 9 }).payload(8900), 7],
  ] as const)("out: %s", (_what, frame, count) => {
    const fragments = send(frame.build());
    expect(fragments.length).toBe(count);
    for (const fragment of fragments) expect(fragment.length).toBeLessThanOrEqual(14 + MTU);
    const whole = count === 1 ? fragments[0]! : reassembleIpv6(fragments);
    const outer = expectEncapsulated(whole, { to: PEER, ttl: 64, frame }, "udp6");
    expect(outer.dst).toBe(PEER_MAC);
    expect(lab!.traffic(vnet)).toMatchObject({ encapFrames: 1, fragmentedOut: count > 1 ? 1 : 0 });
  });

  it("out: to the group", () => {
    const frame = packet()
      .eth({ src: GUEST_A, dst: BROADCAST_MAC })
      .ipv4({ dst: "255.255.255.255" })
      .udp({ dst: 9 })
      .payload(1472);
    const fragments = send(frame.build());
    expect(fragments.length).toBe(2);
    expectEncapsulated(reassembleIpv6(fragments), { to: VNETD_GROUP, ttl: 1, frame }, "udp6");
  });

  it("out: each packet has an id of its own", () => {
    const ids = Array.from({ length: 8 }, () => send(toB().payload(1500).build())[0]!);
    expect(new Set(ids.map((bytes) => bytes.readUInt32BE(58))).size).toBe(8);
  });

  const large = packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().udp({ dst: 9 }).payload(1472);
  const fragmentsTo = (dst: string, mtu = 1500): Buffer[] => {
    const outer = fromPeer({ dst, checksum: 0 }).vudp({ vnet: "4" }).payload(large.build());
    return fragmentIpv6(packetIn("udp6", outer.build())!, mtu);
  };
  const receive = (frames: readonly Buffer[]): Buffer[] =>
    exchange({ device: "ul0w", capture: "vn0", frames: frames.map((bytes) => ({ bytes })) });

  it.each([
    ["in order", US, (f: Buffer[]) => f],
    ["the last first", US, (f: Buffer[]) => [...f].reverse()],
    ["by the group", VNETD_GROUP, (f: Buffer[]) => f],
  ])("in: %s", (_what, dst, order) => {
    const captured = receive(order(fragmentsTo(dst, 600)));
    expect(captured.length).toBe(1);
    expectBytes(captured[0]!, large.build());
    expect(lab!.learned(vnet, GUEST_B)?.host).toBe(PEER);
    expect(lab!.traffic(vnet)).toMatchObject({
      decapFrames: 1,
      fragmentedIn: 1,
      floodedFrames: dst === US ? 0 : 1,
    });
  });

  it("in: an incomplete packet is nothing, and nothing is learned", () => {
    expect(receive(fragmentsTo(US).slice(0, 1))).toEqual([]);
    expect(lab!.traffic(vnet).decapFrames).toBe(0);
  });

  it("reassembly_forged: sent straight to the port without the secret", () => {
    const before = lab!.dropCounters();
    const forged = packet()
      .eth({ src: PEER_MAC, dst: lab!.mac("ul0") })
      .ipv6({ src: textIn("udp6", PEER), dst: textIn("udp6", US) })
      .udp({ dst: REASSEMBLY_PORT, checksum: 0 })
      .payload(Buffer.from(`0800000000${vnet.slot.toString(16).padStart(4, "0")}00`, "hex"))
      .eth({ src: "02:00:00:00:00:01", dst: "02:00:00:00:00:02", type: 0x0800 })
      .eth({ src: "02:ee:00:00:00:01", dst: GUEST_A })
      .arp();
    expect(receive([forged.build()])).toEqual([]);
    const counted = [...lab!.dropCounters()].filter(
      ([key, drop]) => drop.frames !== before.get(key)?.frames,
    );
    expect(counted.map(([, drop]) => drop.reason)).toEqual(["reassembly_forged"]);
  });
});

describe.each(["etherip4", "etherip6"] as const)("%s", (form) => {
  beforeAll(() => open(form));
  afterAll(close);
  beforeEach(begin);

  const PIECES = Math.ceil(20_000 / 1300);
  /** sends one, and gives what left: packets of EtherIP alone */
  function sendSuperFrame(dst: string, tag?: number): { whole: Buffer; packets: Buffer[] } {
    const eth = packet().eth({ src: GUEST_A, dst });
    const whole = (tag === undefined ? eth : eth.vlan({ id: tag }))
      .ipv4({ src: "192.168.4.1", dst: "192.168.4.2" })
      .tcp()
      .payload(20_000)
      .build();
    const ip = tag === undefined ? 14 : 18;
    const length = whole.length - ip - 20;
    const pseudo = Buffer.concat([
      whole.subarray(ip + 12, ip + 20),
      Buffer.from([0, 6, length >> 8, length & 0xff]),
    ]);
    const bytes = Buffer.from(whole);
    bytes.writeUInt16BE(~internetChecksum(pseudo) & 0xffff, ip + 20 + 16);
    const superFrame = {
      bytes,
      gsoType: VIRTIO_GSO.tcp4,
      gsoSize: 1300,
      headerLength: ip + 40,
      checksumStart: ip + 20,
      checksumOffset: 16,
    };
    const captured = exchange({ device: "vn0", capture: "ul0w", frames: [superFrame] });
    const protocols = captured.map((each) =>
      each.readUInt16BE(12) === ETHER_TYPE.ipv6 ? each[20] : each[23],
    );
    expect(protocols).not.toContain(17);
    return { whole, packets: captured.filter((_each, index) => protocols[index] === 97) };
  }
  function expectPieces(whole: Buffer, packets: readonly Buffer[], dst: string): void {
    expect(packets.length).toBe(PIECES);
    const inner = packets.map((each) => {
      expect(each.length).toBeLessThanOrEqual(14 + MTU);
      const outer = parseFrame(each);
      expect(outer.dst).toBe(dst);
      return parseFrame(outer.payload.subarray(18));
    });
    expectBytes(Buffer.concat(inner.map((f) => f.payload)), whole.subarray(-20_000), {
      what: "payload",
    });
  }

  it("a super-frame leaves as packets of EtherIP, each right", () => {
    const { whole, packets } = sendSuperFrame(GUEST_B);
    expectPieces(whole, packets, PEER_MAC);
    expect(lab!.traffic(vnet)).toMatchObject({ encapFrames: PIECES, floodedFrames: 0 });
  });

  it.each([
    ["for all", BROADCAST_MAC, undefined],
    ["whose place is not known", "aa:00:00:00:04:77", undefined],
    ["for all, with a VLAN tag in it", BROADCAST_MAC, 5],
  ])("so does one %s, and the vnet's budget is charged for it once", (_what, dst, tag) => {
    vnet = lab!.vnet({ floodPerSecond: 1, floodBurst: PIECES + 4 });
    const { whole, packets } = sendSuperFrame(dst, tag);
    const group = addressIn(form, addressBytes(VNETD_GROUP));
    expectPieces(
      whole,
      packets,
      form === "etherip4"
        ? VNETD_GROUP_MAC
        : macText(Buffer.concat([Buffer.from("3333", "hex"), group.subarray(12)])),
    );
    expect(lab!.traffic(vnet)).toMatchObject({
      encapFrames: PIECES,
      floodedFrames: PIECES,
      fragmentedOut: 0,
    });
  });

  it("what fits no packet goes by UDP", () => {
    const frame = toB().payload(1500);
    const captured = exchange({
      device: "vn0",
      capture: "ul0w",
      frames: [{ bytes: frame.build() }],
    });
    const protocols = captured.flatMap((each) =>
      each.readUInt16BE(12) === ETHER_TYPE.ipv6 ? [each[20]] : [each[23]],
    );
    expect(protocols.filter((protocol) => protocol === 97)).toEqual([]);
    expect(lab!.traffic(vnet)).toMatchObject({ encapFrames: 1, fragmentedOut: 1 });
  });
});
