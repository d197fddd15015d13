// SPDX-License-Identifier: Apache-2.0
/** Peers: what they stand for, which peerings are missing, whether multicast works, and VFWD. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseAddress } from "../../src/base/address.js";
import { parsePeer } from "../../src/base/peer.js";
import { MulticastPolicy } from "../../src/varp/multicast-policy.js";
import { missingPeerings, sameSubnet, type ForwardingHost } from "../../src/varp/peer-mesh.js";
import { PeerTable } from "../../src/varp/peer-table.js";
import { encodeVfwd } from "../../src/wire/vfwd.js";
import { datagramsOf } from "../golden/captures.js";
import { expectBytes } from "../lib/bytes.js";

describe("a peer's text", () => {
  it.each([
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["2001:DB8:0::1", "2001:db8::1"],
    ["Host.Example.ORG", "host.example.org"],
    ["host.example.org.", "host.example.org"],
    ["vnetd-peers", "vnetd-peers"],
    ["_vnet.example", "_vnet.example"],
  ])("%s is %s", (text, peer) => expect(parsePeer(text)).toBe(peer));

  it.each([
    "",
    "224.10.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "127.0.0.1",
    "::",
    "::1",
    "ff02::1",
    "fe80::1",
    "300.1.1.1",
    "1.2.3",
    "a b",
    "-a",
    "a..b",
    `${"x".repeat(64)}.org`,
    "x.".repeat(130),
    "a/b",
    "\u001b[2J",
  ])("%j is none", (text) => {
    expect(() => parsePeer(text)).toThrow(expect.objectContaining({ code: "BAD_PEER" }));
  });
});

describe("the table of peers", () => {
  const none = new Set<string>();
  const table = (): PeerTable => new PeerTable(60_000, 4);
  const stored = (peer: string, port: number | null = null, addresses: string[] = []) => ({
    peer,
    port,
    addresses,
  });
  const numbers = (peers: PeerTable, own = none): [string, number][] =>
    peers.addresses(own).map(({ address, number }) => [address, number]);

  it("an address keeps its number for as long as it is there", () => {
    const peers = table();
    for (const address of ["10.0.0.1", "10.0.0.2", "10.0.0.3"]) peers.add(stored(address));
    expect(numbers(peers)).toEqual([
      ["10.0.0.1", 1],
      ["10.0.0.2", 2],
      ["10.0.0.3", 3],
    ]);
    peers.delete("10.0.0.1");
    expect(numbers(peers)).toEqual([
      ["10.0.0.2", 2],
      ["10.0.0.3", 3],
    ]);
    peers.add(stored("10.0.0.4"));
    expect(numbers(peers)).toContainEqual(["10.0.0.4", 1]);
  });

  it("what does not fit is left out", () => {
    const peers = table();
    for (let last = 1; last < 9; last++) peers.add(stored(`10.0.0.${last}`));
    expect(peers.addresses(none)).toHaveLength(4);
    expect(peers.leftOut).toBe(4);
  });

  it("a name's addresses come and go, our own is ignored, equal ones are one", () => {
    const peers = table();
    peers.add(stored("10.0.0.2", 1799));
    peers.add(stored("all.example"));
    expect(peers.due(0)).toEqual(["all.example"]);
    expect(peers.due(0)).toEqual([]);
    expect(peers.resolved("all.example", ["10.0.0.3", "10.0.0.2", "10.0.0.1"], 5)).toBe(true);
    const own = new Set(["10.0.0.1"]);
    expect(peers.addresses(own)).toEqual([
      { address: "10.0.0.2", port: 1799, number: 1 },
      { address: "10.0.0.3", port: null, number: 2 },
    ]);
    expect(peers.due(60_004)).toEqual([]);
    expect(peers.due(60_005)).toEqual(["all.example"]);
    expect(peers.resolved("all.example", ["10.0.0.4"], 60_006)).toBe(true);
    expect(numbers(peers, own)).toEqual([
      ["10.0.0.2", 1],
      ["10.0.0.4", 2],
    ]);
  });

  it("the same answer in another order is no change", () => {
    const peers = table();
    peers.add(stored("x.example"));
    peers.due(0);
    expect(peers.resolved("x.example", ["10.0.0.2", "fd00::1"], 0)).toBe(true);
    peers.due(60_000);
    expect(peers.resolved("x.example", ["fd00::1", "10.0.0.2"], 60_000)).toBe(false);
  });

  it("a failing resolver, an empty answer and nonsense keep the last answer", () => {
    const peers = table();
    peers.add(stored("x.example", null, ["10.0.0.9"]));
    expect(numbers(peers)).toEqual([["10.0.0.9", 1]]);
    peers.due(0);
    peers.unresolved("x.example", "EAI_AGAIN", 0);
    expect(peers.problemOf("x.example")).toBe("EAI_AGAIN");
    expect(numbers(peers)).toEqual([["10.0.0.9", 1]]);
    expect(peers.due(59_999)).toEqual([]);
    peers.due(60_000);
    expect(peers.resolved("x.example", [], 60_000)).toBe(false);
    expect(peers.problemOf("x.example")).toMatch(/no address/);
    peers.due(120_000);
    expect(peers.resolved("x.example", ["224.0.0.1", "x", "127.0.0.1"], 120_000)).toBe(false);
    expect(numbers(peers)).toEqual([["10.0.0.9", 1]]);
    peers.due(180_000);
    expect(peers.resolved("x.example", ["10.0.0.9"], 180_000)).toBe(false);
    expect(peers.problemOf("x.example")).toBe("");
  });

  it("an answer for a name that is no peer any more is nobody's", () => {
    const peers = table();
    peers.add(stored("x.example"));
    peers.due(0);
    peers.delete("x.example");
    expect(peers.resolved("x.example", ["10.0.0.1"], 0)).toBe(false);
    peers.unresolved("x.example", "EAI_AGAIN", 0);
    expect(peers.addresses(none)).toEqual([]);
  });
});

describe("peerings that are missing", () => {
  const host = (name: string, address: string, peers: string[]): ForwardingHost => ({
    name,
    addresses: [address],
    prefixLength: 24,
    peers,
  });

  it("none in a full mesh; hosts of one subnet need none", () => {
    expect(
      missingPeerings([
        host("a", "10.0.1.1", ["10.0.2.1", "10.0.2.2"]),
        host("b", "10.0.2.1", ["10.0.1.1"]),
        host("c", "10.0.2.2", ["10.0.1.1"]),
      ]),
    ).toEqual([]);
  });

  it("names each direction", () => {
    const a = host("a", "10.0.1.1", ["10.0.2.1"]);
    const b = host("b", "10.0.2.1", ["10.0.1.1", "10.0.3.1"]);
    const c = host("c", "10.0.3.1", ["10.0.2.1"]);
    expect(missingPeerings([a, b, c])).toEqual([
      { at: a, lacks: "10.0.3.1" },
      { at: c, lacks: "10.0.1.1" },
    ]);
    expect(missingPeerings([a, { ...b, peers: ["10.0.3.1"] }])).toEqual([
      { at: { ...b, peers: ["10.0.3.1"] }, lacks: "10.0.1.1" },
    ]);
  });

  it.each([
    ["10.0.1.1", "10.0.1.254", 24, true],
    ["10.0.1.1", "10.0.2.1", 24, false],
    ["10.0.1.1", "10.0.2.1", 16, true],
    ["10.0.1.1", "10.0.1.2", 31, false],
    ["10.0.1.2", "10.0.1.3", 31, true],
    ["10.0.1.1", "10.0.1.1", 32, true],
    ["2001:db8::1", "2001:db8::2", 64, true],
    ["2001:db8::1", "2001:db8:0:1::2", 64, false],
    ["10.0.1.1", "2001:db8::2", 0, false],
  ])("%s and %s with /%d: %s", (a, b, length, same) => {
    expect(sameSubnet(a, b, length)).toBe(same);
    expect(sameSubnet(b, a, length)).toBe(same);
  });
});

describe("whether multicast works", () => {
  const policy = (setting: "auto" | "on" | "off" = "auto"): MulticastPolicy =>
    new MulticastPolicy({ setting, helloMs: 1000 });

  it("is not known at first, and is used", () => {
    expect(policy().state(0)).toBe("untested");
    expect(policy().usesUnicast(1e9)).toBe(false);
  });

  it("works when something came by it, also in silence after", () => {
    const auto = policy();
    auto.heardOnGroup(10);
    expect(auto.state(20)).toBe("works");
    expect(auto.state(1e9)).toBe("works");
  });

  it("fails when hosts are there and nothing comes by it for three intervals; and works again", () => {
    const auto = policy();
    for (let at = 0; at < 3000; at += 1000) {
      auto.heardOtherwise(at);
      expect(auto.state(at)).toBe("untested");
    }
    auto.heardOtherwise(3000);
    expect(auto.state(3000)).toBe("fails");
    expect(auto.usesUnicast(3000)).toBe(true);
    auto.heardOnGroup(3500);
    expect(auto.state(3500)).toBe("works");
    for (let at = 4000; at <= 6500; at += 500) auto.heardOtherwise(at);
    expect(auto.state(6500)).toBe("works");
    for (let at = 7000; at <= 9000; at += 500) auto.heardOtherwise(at);
    expect(auto.state(9000)).toBe("fails");
  });

  it("nobody there says nothing about it", () => {
    const auto = policy();
    auto.heardOtherwise(0);
    auto.heardOtherwise(1000);
    expect(auto.state(60_000)).toBe("untested");
    auto.heardOtherwise(60_000);
    expect(auto.state(60_000)).toBe("untested");
  });

  it("is what the configuration says", () => {
    const on = policy("on");
    for (let at = 0; at < 9000; at += 1000) on.heardOtherwise(at);
    expect(on.usesUnicast(8000)).toBe(false);
    const off = policy("off");
    off.heardOnGroup(1);
    expect(off.state(1)).toBe("off");
    expect(off.usesUnicast(1)).toBe(true);
  });
});

describe("VFWD", () => {
  it("is what an original sends for a message of its own", () => {
    const [forwarded, toGroup] = datagramsOf("routed-peer-fwd-br1");
    const target = { group: parseAddress("224.10.0.1"), port: 1798 };
    expectBytes(encodeVfwd(toGroup!.payload, target), forwarded!.payload);
  });

  it("over IPv6 has an IPv6 packet inside", () => {
    const message = Buffer.from("01020304", "hex");
    const out = encodeVfwd(message, { group: parseAddress("ff12::8000:706"), port: 1798 });
    const expected =
      "00030000" +
      // version, payload length, UDP, hop limit; from nobody to the group
      "60000000000c1140" +
      "00000000000000000000000000000000ff120000000000000000000080000706" +
      "07060706000c0000" +
      "01020304";
    expectBytes(out, Buffer.from(expected, "hex"));
  });

  it.each([
    { group: "224.10.0.1", header: 32, lengthAt: 6, length: 28, udpAt: 28, most: 65_475 },
    { group: "ff12::8000:706", header: 52, lengthAt: 8, length: 8, udpAt: 48, most: 65_475 },
  ])("of any length that fits, to $group", ({ header, lengthAt, length, udpAt, ...rest }) => {
    const target = { group: parseAddress(rest.group), port: 1798 };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), (message) => {
        const out = encodeVfwd(Buffer.from(message), target);
        expect(out.length).toBe(header + message.length);
        expect(out.readUInt16BE(lengthAt)).toBe(length + message.length);
        expect(out.readUInt16BE(udpAt)).toBe(8 + message.length);
      }),
    );
    expect(encodeVfwd(Buffer.alloc(rest.most), target).length).toBe(header + rest.most);
    expect(() => encodeVfwd(Buffer.alloc(rest.most + 1), target)).toThrow(RangeError);
  });
});
