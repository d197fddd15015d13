// SPDX-License-Identifier: Apache-2.0
/** The captures are read whole, and the tests' own parser and builder agree with every packet. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectBytes, ipv4Text } from "../lib/bytes.js";
import { packet } from "../lib/packet.js";
import { parseFrame, parseMessage } from "../lib/packet-parse.js";
import { decodePcap, encodePcap, readPcap } from "../lib/pcap.js";
import { CAPTURES, capturePath, datagramsOf } from "./captures.js";
import { EXPECTATIONS } from "./expectations.js";

describe.each(CAPTURES)("%s", (capture) => {
  it("is a pcap file that is written again byte for byte", () => {
    expectBytes(
      encodePcap(readPcap(capturePath(capture)).packets),
      readFileSync(capturePath(capture)),
    );
  });

  it("survives the other byte order and resolution", () => {
    const { packets } = readPcap(capturePath(capture));
    const copy = decodePcap(encodePcap(packets, { byteOrder: "big", resolution: "ns" }));
    expect(copy.packets).toEqual(packets);
  });

  it("has an expectation for every datagram and no other", () => {
    const indices = datagramsOf(capture).map((d) => d.index);
    expect(Object.keys(EXPECTATIONS[capture]).map(Number)).toEqual(indices);
  });

  it("holds VUDP and VARP messages that the builder makes byte for byte", () => {
    for (const { index, bytes, payload } of datagramsOf(capture)) {
      const expectation = EXPECTATIONS[capture][index]!;
      if (expectation.kind === "drop") continue;
      const message = parseMessage(payload);
      const outer = parseFrame(bytes, { messages: "skip" });
      const ip = outer.ipv4!;
      const base = packet()
        .eth({ dst: outer.dst, src: outer.src })
        .ipv4({ ...ip, options: Buffer.alloc(0) })
        .udp({ src: outer.udp!.src, checksum: outer.udp!.checksum });
      const again =
        message.kind === "vudp"
          ? base.vudp({ ...message, vnet: message.vnet }).payload(message.frame)
          : message.kind === "varp"
            ? base.varp({ ...message }).payload(message.trailing)
            : base.payload(payload);
      expectBytes(again.build(), bytes, { what: `${capture} ${index}` });
    }
  });

  it("holds frames whose source MAC and vnet are as expected", () => {
    for (const { index, payload } of datagramsOf(capture)) {
      const expectation = EXPECTATIONS[capture][index]!;
      if (expectation.kind !== "frame") continue;
      const message = parseMessage(payload);
      if (message.kind !== "vudp") throw new Error(`${index} is ${message.kind}`);
      expect(message.vnet.replace(/^(0000:)+0*/, "")).toBe(expectation.vnet);
      expect(message.frame.subarray(6, 12).toString("hex")).toBe(
        expectation.src.replaceAll(":", ""),
      );
    }
  });
});

it("VFWD: what an original makes itself, and what it relays", () => {
  const own = parseMessage(datagramsOf("routed-peer-fwd-br1")[0]!.payload);
  const relayed = parseMessage(datagramsOf("routed-thirdparty-CtoD-br1")[1]!.payload);
  if (own.kind !== "vfwd" || relayed.kind !== "vfwd") throw new Error("not VFWD");
  const bodyOf = (m: typeof own): Buffer => Buffer.concat([m.innerIp, m.innerUdp, m.inner]);
  const build = (inner: Buffer, options: { source?: string; relayed?: boolean }): Buffer =>
    packet().vfwd(options).payload(inner).build().subarray(4);
  expectBytes(bodyOf(own), build(own.inner, {}), { what: "made itself" });
  expectBytes(bodyOf(relayed), build(relayed.inner, { source: "10.66.1.3", relayed: true }), {
    what: "relayed",
  });
  expect(ipv4Text(relayed.innerIp.subarray(12))).toBe("10.66.1.3");
});
