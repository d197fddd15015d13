// SPDX-License-Identifier: Apache-2.0
/**
 * Suppression: what is learned of ARP and neighbour discovery, what is answered here and how, and what is flooded.
 * Guest A is on this host; B and the others that rows name are behind other hosts, unless a row says otherwise.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  vnetdControlOp,
  vnetdNeighbourFlags,
  vnetdSecurity,
  vnetdVnetFlags,
} from "../../src/generated/layouts.js";
import { BpfLab, SPI_IN, type LabVnet, type Run, type VnetOptions } from "../lib/bpf-lab.js";
import {
  checksumHolds,
  expectBytes,
  ipv6Bytes,
  macBytes,
  macText,
  mappedBytes,
} from "../lib/bytes.js";
import { BROADCAST_MAC, VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { eventually, timeFactor } from "../lib/processes.js";
import { GUEST_A, GUEST_B, PEER, THIRD, fromPeer } from "./rows.js";

const A4 = "192.168.4.1";
const B4 = "192.168.4.2";
const A6 = "fe80::a";
const B6 = "fd00::4:2";
const OTHER = "aa:00:00:00:04:09";
const SOLICIT = 135;
const ADVERTISE = 136;
const { NEIGHBOUR_LOCAL, NEIGHBOUR_ROUTER, NEIGHBOUR_ADVERTISED } = vnetdNeighbourFlags;

let lab: BpfLab;
let vnet: LabVnet;

const addressOf = (ip: string): Buffer => (ip.includes(":") ? ipv6Bytes(ip) : mappedBytes(ip));
const groupOf = (ip: string): { ip: string; mac: string } => {
  const tail = ipv6Bytes(ip).subarray(13).toString("hex");
  const mac = `33:33:ff:${tail.match(/../g)!.join(":")}`;
  return { ip: `ff02::1:ff${tail.slice(0, 2)}:${tail.slice(2)}`, mac };
};

// ---- frames
interface ArpParts {
  src?: string;
  dst?: string;
  senderMac?: string;
  operation?: number;
}
const arp = (sender: string, target: string, parts: ArpParts = {}): PacketBuilder => {
  const { src = GUEST_A, dst = BROADCAST_MAC, senderMac = src, operation = 1 } = parts;
  return packet()
    .eth({ src, dst })
    .arp({ operation, senderMac, senderIp: sender, targetIp: target });
};
const reply = (sender: string, mac: string): PacketBuilder =>
  arp(sender, A4, { src: mac, dst: GUEST_A, operation: 2 });

interface NdParts {
  src?: string;
  dst?: string;
  ipDst?: string;
  hopLimit?: number;
  code?: number;
  flags?: number;
  /** null: there is no option with a MAC */
  optionMac?: string | null;
  /** in front of that option */
  before?: { type: number; bytes: Uint8Array; units?: number }[];
  checksum?: number;
}
const macOption = (type: number, mac: string): { type: number; bytes: Uint8Array } => ({
  type,
  bytes: macBytes(mac),
});
const solicit = (source: string, target: string, parts: NdParts = {}): PacketBuilder => {
  const group = groupOf(target);
  const { src = GUEST_A, optionMac = src, before = [] } = parts;
  return packet()
    .eth({ src, dst: parts.dst ?? group.mac })
    .ipv6({ src: source, dst: parts.ipDst ?? group.ip, hopLimit: parts.hopLimit ?? 255 })
    .neighbour({
      ...{ type: SOLICIT, target, code: parts.code ?? 0 },
      options: [...before, ...(optionMac === null ? [] : [macOption(1, optionMac)])],
      ...(parts.checksum === undefined ? {} : { checksum: parts.checksum }),
    });
};
const advertise = (target: string, mac: string, parts: NdParts = {}): PacketBuilder => {
  const { optionMac = mac, flags = 0x60, before = [] } = parts;
  return packet()
    .eth({ src: mac, dst: parts.dst ?? GUEST_A })
    .ipv6({ src: target, dst: parts.ipDst ?? A6, hopLimit: parts.hopLimit ?? 255 })
    .neighbour({
      ...{ type: ADVERTISE, target, flags, code: parts.code ?? 0 },
      options: [...before, ...(optionMac === null ? [] : [macOption(2, optionMac)])],
    });
};
const unsolicited = (target: string, mac: string, parts: NdParts = {}): PacketBuilder =>
  advertise(target, mac, { dst: "33:33:00:00:00:01", ipDst: "ff02::1", flags: 0x20, ...parts });

// ---- what is done with them
type Frame = PacketBuilder | Buffer;
const bytesOf = (frame: Frame): Buffer => (Buffer.isBuffer(frame) ? frame : frame.build());

/** a guest of this host sends it */
const leaves = (frame: Frame, program: "vnetd_encap" | "vnetd_port" = "vnetd_encap"): Run => {
  const run = lab.run(program, bytesOf(frame));
  expect(run).toMatchObject({ verdict: "redirect", drops: [] });
  return run;
};

/** a guest of another host */
const arrives = (frame: Frame, host = PEER): void => {
  const inner = bytesOf(frame);
  const isGroup = (inner[0]! & 1) === 1;
  const outer = fromPeer({ src: host, ...(isGroup ? { dst: VNETD_GROUP } : {}) })
    .vudp({ vnet: vnet.id })
    .payload(inner);
  expect(lab.run("vnetd_decap", outer.build())).toMatchObject({ verdict: "redirect", drops: [] });
};

const known = (ip: string): { mac: string; flags: number } | undefined => {
  const entry = lab.neighbour(vnet, addressOf(ip));
  return entry === undefined ? undefined : { mac: macText(entry.mac), flags: entry.flags };
};
const open = (options: VnetOptions = {}): void => {
  vnet = lab.vnet({ suppress: true, ...options });
};

function isAnswered(run: Run): boolean {
  const { answered } = lab.neighbourStats(vnet);
  expect(answered === 0 || answered === 1).toBe(true);
  // to the group, it has outer headers in front
  expect(macText(run.output.subarray(0, 6)) === GUEST_A).toBe(answered === 1);
  return answered === 1;
}
const expectFlooded = (frame: Frame): void => {
  const before = bytesOf(frame);
  const run = leaves(frame);
  expect(isAnswered(run)).toBe(false);
  expectBytes(run.output.subarray(run.output.length - before.length), before, {
    what: "the frame behind its outer headers",
  });
};
const expectAnswered = (frame: Frame): Buffer => {
  const run = leaves(frame);
  expect(isAnswered(run)).toBe(true);
  expect(run.mark).toBe(0);
  return run.output;
};

for (const form of ["udp4", "udp6", "etherip4"] as const) {
  describe(`suppression, ${form}`, () => {
    beforeAll(() => {
      lab = BpfLab.open({ form, quiet: true });
    });
    afterAll(() => lab.close());
    beforeEach(() => open());

    it("ARP is answered as the owner would", () => {
      arrives(reply(B4, GUEST_B));
      expect(known(B4)).toEqual({ mac: GUEST_B, flags: 0 });
      const answer = expectAnswered(arp(A4, B4));
      const wanted = packet()
        .eth({ src: GUEST_B, dst: GUEST_A })
        .arp({
          ...{ operation: 2, senderMac: GUEST_B, senderIp: B4 },
          ...{ targetMac: GUEST_A, targetIp: A4 },
        });
      expectBytes(answer, wanted.build(), { what: "the answer" });
      // the sender is known by what it asked, and its source MAC was learned although nothing left
      expect(known(A4)).toEqual({ mac: GUEST_A, flags: NEIGHBOUR_LOCAL });
      expect(lab.learned(vnet, GUEST_A)).toMatchObject({ host: "local", port: 0 });
      expect(lab.traffic(vnet)).toMatchObject({ encapFrames: 0, floodedFrames: 0 });
    });

    it("a solicitation is answered as the owner would", () => {
      arrives(advertise(B6, GUEST_B));
      expect(known(B6)).toEqual({ mac: GUEST_B, flags: NEIGHBOUR_ADVERTISED });
      const answer = expectAnswered(solicit(A6, B6));
      const wanted = packet()
        .eth({ src: GUEST_B, dst: GUEST_A })
        .ipv6({ src: B6, dst: A6, hopLimit: 255 })
        .neighbour({
          ...{ type: ADVERTISE, target: B6, flags: 0x40 },
          options: [macOption(2, GUEST_B)],
        });
      expectBytes(answer, wanted.build(), { what: "the answer" });
      const pseudo = Buffer.concat([
        answer.subarray(22, 54),
        Buffer.from([0, 0, 0, 32, 0, 0, 0, 58]),
      ]);
      expect(checksumHolds(pseudo, answer.subarray(54))).toBe(true);
    });

    it("a router stays one", () => {
      arrives(advertise(B6, GUEST_B, { flags: 0xe0 }));
      const answer = expectAnswered(solicit(A6, B6));
      expect(answer[58]).toBe(0xc0);
    });
  });
}

describe("suppression", () => {
  beforeAll(() => {
    lab = BpfLab.open({ quiet: true });
  });
  afterAll(() => lab.close());
  beforeEach(() => open());

  describe("is flooded", () => {
    const withB = (): void => {
      arrives(reply(B4, GUEST_B));
      arrives(advertise(B6, GUEST_B));
    };
    it.each<[string, Frame]>([
      ["a request to one MAC, which asks whether it is still there", arp(A4, B4, { dst: GUEST_B })],
      ["a request to a group that is not all", arp(A4, B4, { dst: "01:00:5e:00:00:01" })],
      ["a probe (RFC 5227)", arp("0.0.0.0", B4)],
      ["gratuitous ARP", arp(B4, B4)],
      ["a request in another's name", arp(A4, B4, { senderMac: OTHER })],
      ["a request of a group", arp("224.0.0.1", B4)],
      ["a request of all", arp("255.255.255.255", B4)],
      ["a request of the loopback's", arp("127.0.0.1", B4)],
      ["a request for who nobody has said to be", arp(A4, "192.168.4.77")],
      ["a request for a group", arp(A4, "224.0.0.1")],
      ["ARP with a tag", packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).vlan({ id: 5 }).arp()],
      ["an answer", arp(A4, B4, { operation: 2 })],
      ["what is neither (RARP)", arp(A4, B4, { operation: 3 })],
      [
        "a broadcast that is something else",
        packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).ipv4().udp(),
      ],
      ["half of a request", arp(A4, B4).build().subarray(0, 30)],
      ["duplicate address detection", solicit("::", B6, { optionMac: null })],
      ["a solicitation for the sender itself", solicit(B6, B6)],
      ["a solicitation to one MAC", solicit(A6, B6, { dst: GUEST_B, ipDst: B6 })],
      ["a solicitation to another's group", solicit(A6, B6, { ipDst: "ff02::1:ff04:3" })],
      ["a solicitation without the sender's MAC", solicit(A6, B6, { optionMac: null })],
      ["a solicitation with another's MAC", solicit(A6, B6, { optionMac: OTHER })],
      ["a solicitation that was routed", solicit(A6, B6, { hopLimit: 254 })],
      ["a solicitation with a code", solicit(A6, B6, { code: 1 })],
      [
        "a solicitation with an option of no length",
        solicit(A6, B6, { before: [{ type: 14, bytes: Buffer.alloc(6), units: 0 }] }),
      ],
      [
        "a solicitation for a group",
        solicit(A6, "ff02::4:2", { dst: groupOf(B6).mac, ipDst: groupOf(B6).ip }),
      ],
      ["half of a solicitation", solicit(A6, B6).build().subarray(0, 70)],
      [
        "a router solicitation",
        packet()
          .eth({ src: GUEST_A, dst: "33:33:00:00:00:02" })
          .ipv6({ hopLimit: 255 })
          .neighbour({ type: 133, target: B6 }),
      ],
      ["an advertisement", unsolicited(B6, GUEST_A)],
    ])("%s", (_what, frame) => {
      withB();
      expectFlooded(frame);
    });
  });

  describe("is not learned", () => {
    it.each<[string, string, Frame]>([
      ["who speaks with another's MAC", B4, arp(B4, A4, { src: GUEST_B, senderMac: OTHER })],
      ["a probe's target", B4, arp("0.0.0.0", B4, { src: GUEST_B })],
      ["nobody", "0.0.0.0", arp("0.0.0.0", B4, { src: GUEST_B })],
      ["this network", "0.0.0.9", arp("0.0.0.9", A4, { src: GUEST_B })],
      ["the loopback's", "127.0.0.2", arp("127.0.0.2", A4, { src: GUEST_B })],
      ["a group", "239.1.1.1", arp("239.1.1.1", A4, { src: GUEST_B })],
      ["all", "255.255.255.255", arp("255.255.255.255", A4, { src: GUEST_B })],
      [
        "with a tag",
        B4,
        packet()
          .eth({ src: GUEST_B, dst: BROADCAST_MAC })
          .vlan({ id: 5 })
          .arp({ senderMac: GUEST_B, senderIp: B4 }),
      ],
      [
        "duplicate address detection's target",
        B6,
        solicit("::", B6, { src: GUEST_B, optionMac: null }),
      ],
      ["an advertisement with another's MAC", B6, advertise(B6, GUEST_B, { optionMac: OTHER })],
      ["one that was routed", B6, advertise(B6, GUEST_B, { hopLimit: 64 })],
      ["one with a code", B6, advertise(B6, GUEST_B, { code: 7 })],
      ["one to all that says that it was asked for", B6, unsolicited(B6, GUEST_B, { flags: 0x60 })],
      ["an address that several have: no override", B6, advertise(B6, GUEST_B, { flags: 0x40 })],
      ["one without a MAC, of who is not known", B6, advertise(B6, GUEST_B, { optionMac: null })],
      [
        "one with an option of no length",
        B6,
        advertise(B6, GUEST_B, { before: [{ type: 14, bytes: Buffer.alloc(6), units: 0 }] }),
      ],
      ["a group's", "ff02::1", unsolicited("ff02::1", GUEST_B)],
      ["the loopback's, IPv6", "::1", unsolicited("::1", GUEST_B)],
      ["an IPv4 address by IPv6", B4, unsolicited("::ffff:c0a8:402", GUEST_B)],
      [
        "a solicitation's sender without its MAC",
        B6,
        solicit(B6, A6, { src: GUEST_B, optionMac: null }),
      ],
    ])("%s", (_what, ip, frame) => {
      arrives(frame);
      expect(known(ip)).toBeUndefined();
      expect(lab.counts(vnet).neighbours).toBe(0);
    });

    it("anything in a vnet without", () => {
      open({ suppress: false });
      arrives(reply(B4, GUEST_B));
      expect(known(B4)).toBeUndefined();
      expectFlooded(arp(A4, B4));
      expect(known(A4)).toBeUndefined();
    });
  });

  describe("is learned", () => {
    it.each<[string, string, number, Frame]>([
      ["by a request to all", B4, 0, arp(B4, A4, { src: GUEST_B })],
      ["by gratuitous ARP", B4, 0, arp(B4, B4, { src: GUEST_B })],
      ["by an answer", B4, 0, reply(B4, GUEST_B)],
      ["by an advertisement to all", B6, NEIGHBOUR_ADVERTISED, unsolicited(B6, GUEST_B)],
      ["by a solicitation, router or not being unknown", B6, 0, solicit(B6, A6, { src: GUEST_B })],
      [
        "behind other options",
        B6,
        0,
        solicit(B6, A6, { src: GUEST_B, before: [{ type: 14, bytes: Buffer.alloc(6) }] }),
      ],
      [
        "of a router",
        B6,
        NEIGHBOUR_ADVERTISED | NEIGHBOUR_ROUTER,
        unsolicited(B6, GUEST_B, { flags: 0xa0 }),
      ],
    ])("%s", (_what, ip, flags, frame) => {
      arrives(frame);
      expect(known(ip)).toEqual({ mac: GUEST_B, flags });
      expect(lab.neighbourStats(vnet)).toMatchObject({ learned: 1, changed: 0, refused: 0 });
    });

    it.each<[string, string, number, Frame]>([
      ["ARP", A4, 0, arp(A4, B4)],
      [
        "an advertisement to one host",
        A6,
        NEIGHBOUR_ADVERTISED,
        advertise(A6, GUEST_A, { dst: GUEST_B }),
      ],
    ])("of guests here: %s", (_what, ip, flags, frame) => {
      leaves(frame);
      expect(known(ip)).toEqual({ mac: GUEST_A, flags: flags | NEIGHBOUR_LOCAL });
    });
  });

  it("the vnetif's own hook leaves neighbour discovery to the other", () => {
    const toB = solicit(A6, B6, { dst: GUEST_B, ipDst: B6 });
    const other = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv6().udp().payload(32);
    lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      ...{ mac: macBytes(GUEST_B), addr: mappedBytes(PEER) },
    });
    expect(lab.run("vnetd_encap_fast", toB.build()).verdict).toBe("pass");
    expect(lab.run("vnetd_encap_fast", other.build()).verdict).toBe("redirect");
    open({ suppress: false });
    lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      ...{ mac: macBytes(GUEST_B), addr: mappedBytes(PEER) },
    });
    expect(lab.run("vnetd_encap_fast", toB.build()).verdict).toBe("redirect");
  });

  it("of an IPv6 neighbour only who advertised is answered for: it may be a router", () => {
    arrives(solicit(B6, A6, { src: GUEST_B }));
    expectFlooded(solicit(A6, B6));
    arrives(advertise(B6, GUEST_B, { flags: 0xe0 }));
    // what it was said to be stays when it asks again
    arrives(solicit(B6, A6, { src: GUEST_B }));
    expect(known(B6)?.flags).toBe(NEIGHBOUR_ADVERTISED | NEIGHBOUR_ROUTER);
    expectAnswered(solicit(A6, B6));
  });

  it("more options than are looked at, and a wrong checksum, change nothing", () => {
    arrives(advertise(B6, GUEST_B));
    const nonce = { type: 14, bytes: Buffer.alloc(14) };
    const answer = expectAnswered(solicit(A6, B6, { before: [nonce], checksum: 0x1234 }));
    expect(answer.length).toBe(86);
    open();
    arrives(advertise(B6, GUEST_B));
    expectFlooded(solicit(A6, B6, { before: [nonce, nonce, nonce, nonce] }));
  });

  it("bytes behind ARP, as an Ethernet pads it, stay", () => {
    arrives(reply(B4, GUEST_B));
    const padded = Buffer.concat([arp(A4, B4).build(), Buffer.alloc(18, 0xee)]);
    const answer = expectAnswered(padded);
    expect(answer.subarray(42)).toEqual(Buffer.alloc(18, 0xee));
  });

  it("only who is behind another host is answered for", () => {
    // on this host: the bridge brings the question there
    leaves(arp(B4, A4, { src: GUEST_B }));
    expectFlooded(arp(A4, B4));
    // it went to another host
    arrives(arp(B4, B4, { src: GUEST_B }));
    expectAnswered(arp(A4, B4));
  });

  it("a MAC that nobody knows any more is not answered with", () => {
    arrives(reply(B4, GUEST_B));
    lab.control(vnetdControlOp.CTL_FORGET, vnet, { mac: macBytes(GUEST_B) });
    expectFlooded(arp(A4, B4));
  });

  it("nor one behind a host that is gone", () => {
    arrives(reply(B4, GUEST_B));
    open({ ageMs: 0 });
    arrives(reply(B4, GUEST_B));
    expectFlooded(arp(A4, B4));
  });

  it("what an owner has not said for long is asked for again, however often it was answered", () => {
    arrives(reply(B4, GUEST_B));
    lab.neighbourHeard(vnet, addressOf(B4), 29_000);
    const heardNs = lab.neighbour(vnet, addressOf(B4))?.heardNs;
    expectAnswered(arp(A4, B4));
    expect(lab.neighbour(vnet, addressOf(B4))?.heardNs).toBe(heardNs);
    open();
    arrives(reply(B4, GUEST_B));
    lab.neighbourHeard(vnet, addressOf(B4), 31_000);
    expectFlooded(arp(A4, B4));
    // it answers, and is answered for again
    arrives(reply(B4, GUEST_B));
    expectAnswered(arp(A4, B4));
  });

  it("an advertisement without a MAC, the answer to one host, keeps it", () => {
    arrives(advertise(B6, GUEST_B));
    lab.neighbourHeard(vnet, addressOf(B6), 31_000);
    arrives(advertise(B6, GUEST_B, { optionMac: null, flags: 0x40 }));
    expectAnswered(solicit(A6, B6));
    // another's says nothing of it
    lab.neighbourHeard(vnet, addressOf(B6), 31_000);
    arrives(advertise(B6, OTHER, { optionMac: null, flags: 0x40 }));
    expect(known(B6)?.mac).toBe(GUEST_B);
    expect(lab.neighbourStats(vnet).changed).toBe(0);
  });

  it("an address that another MAC takes goes to it, and that is counted", () => {
    arrives(reply(B4, GUEST_B));
    arrives(arp(B4, B4, { src: OTHER }), THIRD);
    expect(known(B4)).toEqual({ mac: OTHER, flags: 0 });
    expect(lab.neighbourStats(vnet)).toMatchObject({ learned: 1, changed: 1 });
    const answer = expectAnswered(arp(A4, B4));
    expect(macText(answer.subarray(22, 28))).toBe(OTHER);
    // and to a guest here
    leaves(arp(B4, B4));
    expect(known(B4)).toEqual({ mac: GUEST_A, flags: NEIGHBOUR_LOCAL });
    expect(lab.neighbourStats(vnet).changed).toBe(2);
  });

  it("an address that was silent for long may go to another without a word", () => {
    arrives(reply(B4, GUEST_B));
    lab.neighbourHeard(vnet, addressOf(B4), 31_000);
    arrives(arp(B4, B4, { src: OTHER }));
    expect(lab.neighbourStats(vnet)).toMatchObject({ learned: 1, changed: 0 });
    // its age is the new one's
    expectAnswered(arp(A4, B4));
  });

  it("a flush forgets, as it does MACs", () => {
    arrives(reply(B4, GUEST_B));
    lab.neighbourHeard(vnet, addressOf(B4), 1000);
    const now = process.hrtime.bigint();
    lab.setVnet(vnet, { suppress: true, flushedNs: now - 500_000_000n });
    expectFlooded(arp(A4, B4));
  });

  it("one is forgotten by name", () => {
    arrives(reply(B4, GUEST_B));
    arrives(reply("192.168.4.3", OTHER));
    lab.control(vnetdControlOp.CTL_FORGET_NEIGHBOUR, vnet, { addr: addressOf(B4) });
    expectFlooded(arp(A4, B4));
    expectAnswered(arp(A4, "192.168.4.3"));
  });

  it("a vnet has so many and no more; what has no room is flooded, and counted", () => {
    open({ maxNeighbours: 2 });
    for (const [at, mac] of [GUEST_B, OTHER, "aa:00:00:00:04:0a"].entries())
      arrives(reply(`192.168.4.${2 + at}`, mac));
    expect(lab.counts(vnet).neighbours).toBe(2);
    expect(lab.neighbourStats(vnet)).toMatchObject({ learned: 2, refused: 1 });
    expect(known("192.168.4.4")).toBeUndefined();
    // the asker has no room, and is answered all the same
    expectAnswered(arp(A4, B4));
    expectFloodedAfter("192.168.4.4");
  });

  it("another vnet's are none of its business", () => {
    arrives(reply(B4, GUEST_B));
    open({ id: "5" });
    lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      ...{ mac: macBytes(GUEST_B), addr: mappedBytes(PEER) },
    });
    expectFlooded(arp(A4, B4));
  });

  it("who may not be here is not answered", () => {
    arrives(reply(B4, GUEST_B));
    const { FDB_STATIC, FDB_PINNED } = { FDB_STATIC: 1, FDB_PINNED: 4 };
    lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      ...{ mac: macBytes(GUEST_A), addr: mappedBytes(PEER), fdbFlags: FDB_STATIC | FDB_PINNED },
    });
    const run = lab.run("vnetd_encap", arp(A4, B4).build());
    expect(run.drops).toMatchObject([{ reason: "refused_static", frames: 1 }]);
    expect(lab.neighbourStats(vnet).answered).toBe(0);
  });

  it("a guest at a direct port is answered there, and known to be behind it", () => {
    lab.directPorts(vnet, ["dp0", "dp1"]);
    arrives(reply(B4, GUEST_B));
    const run = leaves(arp(A4, B4), "vnetd_port");
    expect(isAnswered(run)).toBe(true);
    expect(lab.learned(vnet, GUEST_A)).toMatchObject({ host: "local", port: lab.ifindex("dp0") });
    expect(known(A4)).toEqual({ mac: GUEST_A, flags: NEIGHBOUR_LOCAL });
    // and what its neighbour at the other port says is for all
    expect(leaves(arp(A4, "192.168.4.9"), "vnetd_port").mark).not.toBe(0);
  });

  it("frames that come by a port are not looked at twice", () => {
    lab.directPorts(vnet, ["dp0", "dp1"]);
    const run = leaves(arp(A4, B4), "vnetd_port");
    arrives(reply(B4, GUEST_B));
    // as vnetd_port handed it over, before B was known
    const handed = lab.run("vnetd_encap", run.output, { mark: run.mark });
    expect(handed.verdict).toBe("redirect");
    expect(lab.neighbourStats(vnet).answered).toBe(0);
  });

  it("in a secure vnet what comes by an SA is learned, and nothing leaves that is answered", () => {
    open({ security: vnetdSecurity.SECURITY_CONF });
    lab.underlay({ esp: "xf0" });
    lab.receiveBy(vnet, PEER);
    const inner = reply(B4, GUEST_B).build();
    const decrypted = fromPeer().vudp({ vnet: vnet.id }).payload(inner).build();
    expect(lab.run("vnetd_esp", decrypted, { mark: SPI_IN })).toMatchObject({
      ...{ verdict: "redirect", drops: [] },
    });
    expect(known(B4)).toEqual({ mac: GUEST_B, flags: 0 });
    expectAnswered(arp(A4, B4));
    // the same in clear is refused, and says nothing of anybody
    const forged = fromPeer().vudp({ vnet: vnet.id }).payload(reply(B4, OTHER).build()).build();
    expect(lab.run("vnetd_decap", forged).verdict).toBe("drop");
    expect(known(B4)?.mac).toBe(GUEST_B);
    lab.underlay();
  });

  it("a vnet that is captured and has ports is answered as any", () => {
    open({ watched: true });
    lab.directPorts(vnet, ["dp0"]);
    arrives(reply(B4, GUEST_B));
    expectAnswered(arp(A4, B4));
    expect(vnetdVnetFlags.VNET_SUPPRESS).toBe(8);
  });

  // the last: the sweeper's timer does not stop again
  it(
    "who is silent for long is swept, and makes room",
    async () => {
      open({ id: "6" });
      arrives(reply(B4, GUEST_B));
      const lasting = vnet;
      open({ ageMs: 100, neighbourAgeMs: 100, maxNeighbours: 20 });
      for (let n = 0; n < 20; n += 1) arrives(reply(`192.168.5.${n + 1}`, GUEST_B));
      arrives(reply("192.168.5.99", GUEST_B));
      expect(lab.counts(vnet).neighbours).toBe(20);
      expect(lab.neighbourStats(vnet).refused).toBe(1);
      expect(lab.control(vnetdControlOp.CTL_START, vnet).result).toBe(0);
      await eventually(() => lab.counts(vnet).neighbours === 0, {
        ...{ timeoutMs: 40_000, what: "the sweep" },
      });
      expect(known("192.168.5.1")).toBeUndefined();
      expect(lab.neighbour(lasting, addressOf(B4))).toBeDefined();
      expect(lab.counts(lasting).neighbours).toBe(1);
      arrives(reply("192.168.5.99", GUEST_B));
      expect(lab.neighbourStats(vnet)).toMatchObject({ learned: 21, refused: 1 });
    },
    60_000 * timeFactor,
  );

  const expectFloodedAfter = (target: string): void => {
    leaves(arp(A4, target));
    expect(lab.neighbourStats(vnet).answered).toBe(1);
  };
});
