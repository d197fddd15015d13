// SPDX-License-Identifier: Apache-2.0
/** The tests' own packet builder, parser and pcap reader, against each other and RFC examples. */
import { describe, expect, it } from "vitest";
import { expectBytes, hex, internetChecksum, ipv6Bytes, vnetBytes } from "../lib/bytes.js";
import { ETHER_TYPE, fragmentIpv4, packet, type PacketBuilder } from "../lib/packet.js";
import { PacketError, parseFrame } from "../lib/packet-parse.js";
import { reassembleIpv4 } from "../lib/pcap.js";

const FRAMES: [string, PacketBuilder][] = [
  ["ARP", packet().eth().arp()],
  ["IPv4 UDP", packet().eth().ipv4().udp({ dst: 53 }).payload(5)],
  [
    "IPv4 with options",
    packet()
      .eth()
      .ipv4({ options: hex("94040000") })
      .udp({ dst: 53 })
      .payload("x"),
  ],
  ["IPv4 TCP", packet().eth().ipv4().tcp().payload(101)],
  ["IPv4 ICMP", packet().eth().ipv4().icmpEcho().payload(56)],
  ["IPv6 UDP", packet().eth().ipv6().udp({ dst: 53 }).payload(3)],
  ["IPv6 ICMP", packet().eth().ipv6().icmpEcho().payload(56)],
  ["802.1Q", packet().eth().vlan({ id: 5 }).ipv4().tcp()],
  ["QinQ", packet().eth().vlan({ id: 5, tpid: ETHER_TYPE.qinq }).vlan({ id: 6 }).arp()],
  ["STP", packet().eth().llc().stp()],
  ["VUDP", packet().eth().ipv4().udp().vudp({ vnet: "4" }).eth().arp()],
  ["VARP", packet().eth().ipv4().udp().varp({ vnet: "4", vmac: "aa:00:00:00:04:01" })],
  ["VFWD", packet().eth().ipv4().udp().vfwd().vudp({ vnet: "4" }).eth().arp()],
];

describe("what the builder makes, the strict parser takes", () => {
  it.each(FRAMES)("%s", (_name, builder) => {
    expect(() => parseFrame(builder.build())).not.toThrow();
  });

  it.each(FRAMES)(
    "%s: every cut throws or gives a shorter payload, and never reads beyond",
    (_name, builder) => {
      const whole = builder.build();
      for (let length = 0; length < whole.length; length++) {
        try {
          expect(parseFrame(whole.subarray(0, length)).payload.length).toBeLessThanOrEqual(
            length - 14,
          );
        } catch (error) {
          expect(error).toBeInstanceOf(PacketError);
        }
      }
    },
  );

  it("a flipped bit in a checksummed part is found", () => {
    const whole = packet().eth().ipv4().tcp().payload(10).build();
    for (let at = 14; at < whole.length; at++) {
      const flipped = Buffer.from(whole);
      flipped[at]! ^= 0x10;
      expect(() => parseFrame(flipped), `byte ${at}`).toThrow(PacketError);
    }
  });
});

it("checksum of RFC 1071 section 3", () => {
  expect(internetChecksum(hex("0001 f203 f4f5 f6f7"))).toBe(~0xddf2 & 0xffff);
});

it("addresses", () => {
  expectBytes(ipv6Bytes("fd00::1:2"), hex("fd00 0000 0000 0000 0000 0000 0001 0002"));
  expectBytes(vnetBytes("97"), hex("0000 0000 0000 0000 0000 0000 0000 0097"));
});

it("fragments are put together again, in any order, whatever lies between", () => {
  const whole = packet().eth().ipv4({ id: 7 }).udp({ dst: 9 }).payload(4000).build();
  const other = packet().eth().arp().build();
  const [a, b, c] = fragmentIpv4(whole, 1500) as [Buffer, Buffer, Buffer];
  const captured = [c, other, a, b].map((data) => ({ timeNs: 0n, wireLength: data.length, data }));
  const [first, second] = reassembleIpv4(captured);
  expectBytes(first!.data, other);
  expectBytes(second!.data, whole);
  expect(() => reassembleIpv4(captured.slice(1))).toThrow(/never became whole/);
});

it("a difference is shown where it is", () => {
  expect(() => expectBytes(hex("000102"), hex("000202"))).toThrow(/0000 expected 00 02 02/);
  expect(() => expectBytes(hex("0001"), hex("000102"))).toThrow(/2 bytes, expected 3/);
  expectBytes(hex("000102"), hex("000202"), { free: [[1, 2]] });
});
