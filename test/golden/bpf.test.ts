// SPDX-License-Identifier: Apache-2.0
/**
 * The captures against the BPF programs, both ways.
 *
 * In: each datagram, sent to us, has the fate that expectations.ts says; frames come out byte for
 * byte. Out: the same inner frame, encapsulated by us, equals the captured packet but for the
 * fields that are free, which are listed here with their reasons.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import {
  expectBytes,
  ipv4Text,
  macBytes,
  macText,
  mappedBytes,
  type ByteRange,
} from "../lib/bytes.js";
import { BpfLab, type LabEvent, type LabVnet } from "../lib/bpf-lab.js";
import { parseFrame, parseMessage } from "../lib/packet-parse.js";
import { readPcap } from "../lib/pcap.js";
import { CAPTURES, capturePath, datagramsOf, type CapturedDatagram } from "./captures.js";
import { EXPECTATIONS, type Expectation } from "./expectations.js";

const GROUP = "224.10.0.1";
/** ours, where a datagram went to the group */
const NEUTRAL = "10.66.1.200";

let lab: BpfLab | undefined;
let vnet4: LabVnet;
let vnet97: LabVnet;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());

const all = CAPTURES.flatMap((capture) =>
  datagramsOf(capture).map((datagram) => ({
    ...datagram,
    capture,
    expectation: EXPECTATIONS[capture][datagram.index]!,
  })),
);

function receive(datagram: CapturedDatagram): ReturnType<BpfLab["run"]> {
  lab!.underlay({ address: datagram.dst === GROUP ? NEUTRAL : datagram.dst });
  // the others are asked for and announced in the captures
  for (const id of ["61", "1234"]) lab!.vnet({ id });
  vnet97 = lab!.vnet({ id: "97" });
  vnet4 = lab!.vnet({ id: "4" });
  return lab!.run("vnetd_decap", datagram.bytes);
}

function expectFrame(datagram: CapturedDatagram, expected: Expectation & { kind: "frame" }): void {
  const run = receive(datagram);
  const vnet = expected.vnet === "4" ? vnet4 : vnet97;
  const message = parseMessage(datagram.payload);
  if (message.kind !== "vudp") throw new Error(`the capture holds ${message.kind}`);
  expect(run.verdict).toBe("redirect");
  expect(run.drops.map((d) => d.reason)).toEqual(expected.learned ? [] : ["refused_group_mac"]);
  // below 34 bytes the frame comes out padded with zeros (docs/wire-format.md)
  const padding = Buffer.alloc(Math.max(0, 34 - message.frame.length));
  expectBytes(run.output, Buffer.concat([message.frame, padding]), { what: "inner frame" });
  expect(lab!.learned(vnet, expected.src)?.host).toBe(expected.learned ? datagram.src : undefined);
  expect(lab!.traffic(vnet).decapFrames).toBe(1);
}

/** Plain and for its sender: entered, and told to the daemon only where it may be an answer. */
function expectLearned(datagram: CapturedDatagram, events: readonly LabEvent[]): void {
  const { src, dst, payload } = datagram;
  expect(lab!.learned(vnet4, macText(payload.subarray(20, 26)))?.host).toBe(src);
  expect(events).toMatchObject(dst === GROUP ? [] : [{ kind: "varp", learned: true }]);
}

const PLAIN_BYTES = 43;
const isForSender = ({ payload, src }: CapturedDatagram): boolean =>
  payload[26] === 2 && ipv4Text(payload.subarray(27, 31)) === src;

describe("in", () => {
  it.each(all)("$capture $index: $expectation.kind $expectation.reason", async (datagram) => {
    const { expectation } = datagram;
    if (expectation.kind === "frame") return expectFrame(datagram, expectation);
    await lab!.takeEvents();
    const run = receive(datagram);
    const events = await lab!.takeEvents();
    expect(run.verdict).toBe("drop");
    if (expectation.kind === "varp" && datagram.payload.length === PLAIN_BYTES) {
      expect(run.drops).toEqual([]);
      // the MACs are of the other host
      if (expectation.operation === "request") return expect(events).toEqual([]);
      if (expectation.vnet === "4" && isForSender(datagram)) return expectLearned(datagram, events);
    }
    expect([
      lab!.learned(vnet4, "aa:00:00:00:04:01"),
      lab!.learned(vnet97, "aa:00:00:00:97:01"),
    ]).toEqual([undefined, undefined]);
    if (expectation.kind === "drop") {
      expect(run.drops.map((d) => d.reason)).toEqual([expectation.reason]);
      // who forwards without being a peer is told to the daemon, which names the peering that is missing
      const told = expectation.reason === "vfwd_not_peer" ? [{ kind: "not-peer" }] : [];
      expect(events).toMatchObject(told);
      expect(events).toHaveLength(told.length);
      return;
    }
    expect(run.drops).toEqual([]);
    expect(events).toMatchObject([
      {
        kind: "varp",
        source: datagram.src,
        destination: datagram.dst,
        sourcePort: datagram.srcPort,
      },
    ]);
    const [event] = events;
    if (event?.kind === "varp") expectBytes(event.message, datagram.payload);
  });

  it("a request is answered as the original answered it", () => {
    const [asked, answered] = datagramsOf("lan-varp-request-announce");
    lab!.underlay({ address: asked!.dst });
    const vnet = lab!.vnet({ id: "4" });
    const mac = macBytes("aa:00:00:00:04:01");
    expect(lab!.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac }).result).toBe(0);
    const run = lab!.run("vnetd_decap", asked!.bytes);
    expect(run.verdict).toBe("redirect");
    const { ipv4, udp } = parseFrame(run.output);
    expect(ipv4).toMatchObject({ src: answered!.src, dst: answered!.dst, ttl: 64 });
    expect(udp).toMatchObject({ src: answered!.srcPort, dst: 1798 });
    expectBytes(run.output.subarray(42), answered!.payload);
  });

  it("IP fragments are left to the stack, which puts them together", () => {
    const fragments = readPcap(capturePath("lan-vnet4-ping1472-ipfrag")).packets;
    expect(fragments.length).toBe(4);
    lab!.underlay({ address: "10.66.1.2" });
    lab!.vnet();
    for (const { data } of fragments) {
      const run = lab!.run("vnetd_decap", data);
      expect(run).toMatchObject({ verdict: "pass", drops: [] });
      expectBytes(run.output, data);
    }
  });
});

/**
 * What may differ between our packet and the original's:
 *   IPv4 id              any value is right
 *   DF                   the original's stack sets it (path MTU discovery); we clear it, as the
 *                        kernel module did
 *   header checksum      follows from these two; the strict parser verifies it
 *   UDP source port      carries the flow's hash, ignored on receipt
 *   UDP checksum         0; the original's stack fills it in
 * and in the Ethernet header of a unicast packet the destination, which the neighbour gives later.
 */
const FREE: readonly ByteRange[] = [
  [18, 20],
  [20, 21],
  [24, 26],
  [34, 36],
  [40, 42],
];

describe("out", () => {
  // as an original host sends them itself: not the variants that a test program made, nor what a router passed on
  const own = all.filter(
    ({ expectation, wasFragmented, payload, src, ttl, dst }) =>
      expectation.kind === "frame" &&
      !wasFragmented &&
      src !== "10.66.1.9" &&
      payload.subarray(0, 6).equals(Buffer.from([0, 2, 0, 0, 0, 0x40])) &&
      ttl === (dst === GROUP ? 1 : 64),
  );

  it("are 29 packets of the captures", () => expect(own.length).toBe(29));

  it.each(own)("$capture $index: $src to $dst", ({ bytes, payload, src, dst, expectation }) => {
    if (expectation.kind !== "frame") throw new Error("filtered above");
    const message = parseMessage(payload);
    if (message.kind !== "vudp") throw new Error(`the capture holds ${message.kind}`);
    const captured = parseFrame(bytes);
    lab!.underlay({ address: src, mac: captured.src });
    const vnet = lab!.vnet({ id: expectation.vnet });
    if (dst !== GROUP) {
      const mac = message.frame.subarray(0, 6);
      lab!.control(vnetdControlOp.CTL_LEARN, vnet, {
        mac: Buffer.from(mac),
        addr: mappedBytes(dst),
      });
    }
    const run = lab!.run("vnetd_encap", message.frame);
    expect(run).toMatchObject({ verdict: "redirect", drops: [] });
    const ours = parseFrame(run.output);
    expect(ours.udp).toMatchObject({ dst: 1798, checksum: 0 });
    expect(ours.ipv4!.dontFragment).toBe(false);
    const neighbour: ByteRange[] = dst === GROUP ? [] : [[0, 6]];
    expectBytes(run.output, bytes, { free: [...FREE, ...neighbour] });
    expect(macBytes(ours.dst)[0]! & 1).toBe(dst === GROUP ? 1 : 0);
  });
});
