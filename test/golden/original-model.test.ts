// SPDX-License-Identifier: Apache-2.0
/**
 * The model of an original host (test/lib/original-model.mjs) is held against the captures: it is
 * given what the real one was given and must send what the real one sent, byte for byte.
 */
import { describe, expect, it } from "vitest";
import { expectBytes } from "../lib/bytes.js";
import { OriginalModel } from "../lib/original-model.mjs";
import { packet } from "../lib/packet.js";
import { type Capture, datagramsOf } from "./captures.js";
import { EXPECTATIONS } from "./expectations.js";

interface Sent {
  to: string;
  payload: Buffer;
}

/** 10.66.1.1, as it stood in the captures */
function original(): { host: OriginalModel; sent: Sent[] } {
  const sent: Sent[] = [];
  const host = new OriginalModel({
    address: "10.66.1.1",
    vnets: ["97"],
    guests: [
      { vnet: "4", mac: "aa:00:00:00:04:01", ip: "192.168.4.1" },
      { vnet: "97", mac: "aa:00:00:00:97:01", ip: "192.168.97.1" },
    ],
    send: (to: string, payload: Buffer) => void sent.push({ to, payload }),
  });
  return { host, sent };
}

/** The same with a peer; `address` is another host's where a capture was taken from its side. */
function forwarder(
  address: string,
  peer: string,
  guests: { vnet: string; mac: string; ip: string }[] = [],
): { host: OriginalModel; sent: Sent[]; sentAs: { to: string; packet: Buffer }[] } {
  const sent: Sent[] = [];
  const sentAs: { to: string; packet: Buffer }[] = [];
  const host = new OriginalModel({
    address,
    peers: [peer],
    guests,
    send: (to: string, payload: Buffer) => void sent.push({ to, payload }),
    sendAs: (to: string, sentPacket: Buffer) => void sentAs.push({ to, packet: sentPacket }),
  });
  return { host, sent, sentAs };
}

/** Replays what others sent; at each message of the host itself the model must have sent the same. */
function replay(capture: Capture): OriginalModel {
  const { host, sent } = original();
  for (const { index, src, dst, payload } of datagramsOf(capture)) {
    if (src !== host.address) {
      expect(sent, `before ${index}`).toEqual([]);
      host.receive(payload, src, index);
      continue;
    }
    const own = sent.shift();
    expect(own?.to, `destination of ${index}`).toBe(dst);
    expectBytes(own!.payload, payload, { what: `${capture} ${index}` });
  }
  expect(sent).toEqual([]);
  return host;
}

describe("answers as the real original did", () => {
  it("VARP", () => {
    const host = replay("lan-varp-request-announce");
    expect(host.rejectedCounts).toEqual({ "varp-short": 1, "varp-opcode": 2, "varp-family": 1 });
    expect(host.ignored).toEqual({ "request-not-here": 2, "unknown-vnet": 1 });
    expect([...host.table.values()]).toEqual([
      {
        vnet: "0000:0000:0000:0000:0000:0000:0000:0004",
        mac: "aa:00:00:00:04:55",
        address: "10.66.1.77",
        heardMs: 15,
      },
    ]);
  });

  it("malformed messages and version variants", () => {
    const host = replay("lan-malformed-and-version-variants");
    expect(host.rejectedCounts).toEqual({
      "short-message": 3,
      "vudp-short": 4,
      "frame-short": 2,
      "unknown-message": 3,
      "vudp-version": 4,
      "vfwd-not-a-peer": 2,
      "too-big": 1,
      // the frame of 14 bytes is delivered, but it says IPv4 and holds none
      "inner-ip-length": 1,
    });
    expect(host.ignored).toEqual({ "unknown-vnet": 2 });
  });

  it("what the original left unanswered is dropped by us as well, but for what we take on purpose", () => {
    const { host, sent } = original();
    const differs: number[] = [];
    for (const { index, src, payload } of datagramsOf("lan-malformed-and-version-variants")) {
      if (src === host.address) continue;
      const before = host.delivered;
      host.receive(payload, src, 0);
      const taken = host.delivered > before;
      const ours = EXPECTATIONS["lan-malformed-and-version-variants"][index]!.kind === "frame";
      if (taken !== ours) differs.push(index);
    }
    sent.length = 0;
    // version 40 00 of big-endian hosts, and a datagram that is larger than the original's buffer
    expect(differs).toEqual([17, 37]);
  });
});

describe("tables and answers", () => {
  it("entries go when they were not heard for 60 s; sending does not refresh", () => {
    const { host, sent } = original();
    const [first] = datagramsOf("lan-vnet4-arp-ping").filter((d) => d.src === "10.66.1.2");
    host.receive(first!.payload, "10.66.1.2", 0);
    const frame = packet()
      .eth({ src: "aa:00:00:00:04:01", dst: "aa:00:00:00:04:02" })
      .payload(46)
      .build();
    const { vnet } = host.guests[0]!;
    host.transmit(vnet, frame, 59_000);
    host.sweep(59_999);
    host.transmit(vnet, frame, 59_999);
    host.sweep(60_000);
    host.transmit(vnet, frame, 60_001);
    expect(sent.map((s) => s.to)).toEqual(["10.66.1.2", "10.66.1.2", "224.10.0.1"]);
  });

  it("bad inner checksums that reach a guest are recorded", () => {
    const { host } = original();
    const to = packet()
      .vudp({ vnet: "4" })
      .eth({ src: "aa:00:00:00:04:02", dst: "aa:00:00:00:04:01" });
    const ips = { src: "192.168.4.2", dst: "192.168.4.1" };
    host.receive(
      to
        .ipv4({ ...ips, checksum: 1 })
        .udp()
        .build(),
      "10.66.1.2",
      0,
    );
    host.receive(to.ipv4(ips).udp({ dst: 9, checksum: 1 }).payload("x").build(), "10.66.1.2", 0);
    host.receive(to.ipv4(ips).tcp({ checksum: 1 }).build(), "10.66.1.2", 0);
    host.receive(to.ipv4(ips).tcp().payload("odd").build(), "10.66.1.2", 0);
    expect(host.rejectedCounts).toEqual({ "inner-ip-checksum": 1, "inner-transport-checksum": 2 });
  });
});

describe("forwards as the real original did", () => {
  it("what it sends itself: to the peer, and to the group", () => {
    const guests = [{ vnet: "4", mac: "aa:00:00:00:04:01", ip: "192.168.4.1" }];
    const { host, sent } = forwarder("10.66.1.1", "10.66.2.2", guests);
    const [toPeer, toGroup] = datagramsOf("routed-peer-fwd-br1");
    host.transmit(
      "0000:0000:0000:0000:0000:0000:0000:0004",
      Buffer.from(toGroup!.payload.subarray(22)),
      0,
    );
    expect(sent.map(({ to }) => to)).toEqual([toPeer!.dst, toGroup!.dst]);
    expectBytes(sent[0]!.payload, toPeer!.payload);
    expectBytes(sent[1]!.payload, toGroup!.payload);
  });

  it("what it hears on the group from its subnet, with a header that is mostly 0", () => {
    const { host, sent } = forwarder("10.66.1.1", "10.66.2.2");
    const [heard, forwarded] = datagramsOf("routed-thirdparty-CtoD-br1");
    host.receive(heard!.payload, heard!.src, 0, true);
    expect(sent.map(({ to }) => to)).toEqual([forwarded!.dst]);
    expectBytes(sent[0]!.payload, forwarded!.payload);
    // from afar as well, only not to the peer that it is from
    host.receive(heard!.payload, "10.66.9.9", 0, true);
    host.receive(heard!.payload, "10.66.2.2", 0, true);
    expect(sent).toHaveLength(2);
    host.receive(heard!.payload, "10.66.1.3", 0, true, 50_000);
    expect(sent[2]!.payload.readUInt16BE(24)).toBe(50_000);
  });

  it("what comes from a peer: to its group, with the original sender's address", () => {
    const { host, sentAs } = forwarder("10.66.2.2", "10.66.1.1");
    const [forwarded, sentOn] = datagramsOf("routed-AtoD-remulticast-br2");
    host.receive(forwarded!.payload, forwarded!.src, 0);
    expect(sentAs).toHaveLength(1);
    expect(sentAs[0]!.to).toBe(sentOn!.dst);
    // the kernel has filled in id and checksum
    const wanted = Buffer.from(sentOn!.bytes.subarray(14));
    wanted.writeUInt16BE(0, 4);
    wanted.writeUInt16BE(0, 10);
    expectBytes(sentAs[0]!.packet, wanted);
    expect(host.rejectedCounts).toEqual({});
  });

  it("refuses what would harm it", () => {
    const { host, sentAs } = forwarder("10.66.2.2", "10.66.1.1");
    const frame = packet().vudp({ vnet: "4" }).payload(60).build();
    const from = "10.66.1.1";
    host.receive(packet().vfwd().payload(frame).build(), "10.66.1.9", 0);
    host.receive(packet().vfwd().vfwd().payload(frame).build(), from, 0);
    host.receive(packet().vfwd({ group: "10.66.2.9" }).payload(frame).build(), from, 0);
    host.receive(packet().vfwd().payload(0).build(), from, 0);
    expect(host.rejectedCounts).toEqual({
      "vfwd-not-a-peer": 1,
      "vfwd-in-vfwd": 1,
      "vfwd-not-the-group": 1,
      "vfwd-short": 1,
    });
    expect(sentAs).toEqual([]);
  });
});
