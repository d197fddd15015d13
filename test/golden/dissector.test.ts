// SPDX-License-Identifier: Apache-2.0
/**
 * wireshark/vnetd.lua by tshark: on the golden captures, on each message that our codecs make, and on what is
 * malformed, cut or random, where it may say so and must not fail.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createSecretKey, randomBytes } from "node:crypto";
import { signHello } from "../../src/keys/hello-auth.js";
import {
  challengeBytes,
  encodeMessage,
  messageTypes,
  secretsOf,
  type MessageType,
} from "../../src/keys/messages.js";
import { encodeHello, encodeKeyMessage, type Hello } from "../../src/wire/hello.js";
import { encodeMacs, withVnets } from "../../src/wire/varp-list.js";
import { encodeVarp } from "../../src/wire/varp.js";
import { encodeVfwd } from "../../src/wire/vfwd.js";
import { parseAddress } from "../../src/base/address.js";
import { ipv4Bytes, macBytes, vnetBytes } from "../lib/bytes.js";
import { packet, type Tlv } from "../lib/packet.js";
import { parseMessage } from "../lib/packet-parse.js";
import { encodePcap } from "../lib/pcap.js";
import { readWithTshark, tsharkOf, type Row } from "../lib/tshark.js";
import { CAPTURES, capturePath, datagramsOf } from "./captures.js";
import { EXPECTATIONS } from "./expectations.js";

const vmac = "aa:00:00:00:04:01";
const shortId = (vnet: string): string => vnet.replace(/^(0000:)+/u, "").padStart(4, "0");

const outer = (): ReturnType<typeof packet> =>
  packet().eth().ipv4({ src: "10.66.1.1", dst: "10.66.1.2" }).udp();
const datagram = (message: Uint8Array): Buffer => outer().payload(message).build();
const malformedOf = async (frames: readonly Buffer[]): Promise<(string | undefined)[]> => {
  const { rows, complaints } = await tsharkOf(frames, ["vnetd.malformed"]);
  expect(complaints).toBe("");
  return rows.map((row) => row["vnetd.malformed"]![0]);
};

describe.each(CAPTURES)("%s", (capture) => {
  /** of what our receiver refuses: what a reader of packets, who knows no configuration, can tell */
  const ofForm = new Set([
    ...["truncated", "short_frame", "unknown_message", "bad_version", "bad_vnet_id"],
    ...["varp_short", "varp_bad_opcode"],
  ]);
  const fields = [
    ...["vudp.vnet", "eth.src", "varp.op", "varp.vnet", "varp.vmac", "varp.family"],
    ...["varp.address", "vfwd.src", "vfwd.dst", "vfwd.protocol", "vnetd.malformed"],
  ];

  it("has the right fields, and what our receiver refuses is marked with its reason", async () => {
    const file = readFileSync(capturePath(capture));
    const read = { filter: "udp.dstport == 1798 && !(ip.flags.mf == 1 && !udp.length)" };
    const { rows, complaints } = await readWithTshark(file, fields, read);
    expect(complaints).toBe("");
    const datagrams = datagramsOf(capture);
    expect(rows).toHaveLength(datagrams.length);
    for (const [at, { index, payload }] of datagrams.entries()) {
      const row = rows[at]!;
      const where = `${capture} ${String(index)}`;
      const expectation = EXPECTATIONS[capture][index]!;
      if (expectation.kind === "drop" && payload.length > 0 && ofForm.has(expectation.reason)) {
        expect(row["vnetd.malformed"], where).toEqual([expectation.reason]);
        continue;
      }
      if (expectation.kind === "drop" && payload.length <= 4) continue;
      expect(row["vnetd.malformed"], where).toEqual([]);
      expectFields(row, parseMessage(payload), where);
    }
  });
});

function expectFields(row: Row, message: ReturnType<typeof parseMessage>, where: string): void {
  if (message.kind === "vfwd") {
    const ip = message.innerIp;
    expect(row["vfwd.src"], where).toEqual([ip.subarray(12, 16).join(".")]);
    expect(row["vfwd.dst"], where).toEqual(["224.10.0.1"]);
    expect(row["vfwd.protocol"], where).toEqual(["17"]);
    return expectFields(row, parseMessage(message.inner), where);
  }
  if (message.kind === "vudp") {
    expect(row["vudp.vnet"], where).toEqual([shortId(message.vnet)]);
    const source = message.frame.subarray(6, 12);
    expect(row["eth.src"]!.at(-1), where).toBe(source.toString("hex").match(/../gu)!.join(":"));
    return;
  }
  expect(row["varp.op"], where).toEqual([String(message.operation)]);
  expect(row["varp.vnet"], where).toEqual([shortId(message.vnet)]);
  expect(row["varp.vmac"], where).toEqual([message.vmac]);
  expect(row["varp.family"], where).toEqual([String(message.family)]);
}

describe("VARP", () => {
  const front = (trailing?: Buffer, address = "10.66.1.1"): Buffer =>
    encodeVarp(
      {
        opcode: "announce",
        vnet: vnetBytes("97"),
        vmac: macBytes(vmac),
        address: parseAddress(address),
      },
      trailing,
    );
  const hello: Hello = {
    hostId: "00112233445566778899aabbccddeeff",
    bootNonce: "0102030405060708",
    capabilities: 0x101,
    underlayMtuBytes: 1500,
    hostName: "zürich",
    software: "vnetd 1.0",
    solicit: true,
    goodbye: false,
    peers: { prefixLength: 24, more: false, addresses: ["10.66.2.2", "fd66::9"] },
    groups: { group: "239.66.4.1", group6: "ff15::4:1" },
  };
  const secrets = secretsOf("a1b2c3d4e5f60718", createSecretKey(randomBytes(32)), vnetBytes("97"));

  it("an announce, over IPv4 and IPv6", async () => {
    const names = ["varp.op", "varp.vnet", "varp.vmac", "varp.address", "varp.address6"];
    const long = Buffer.from(front());
    long.set(vnetBytes("1:2:3:4:5:6:7:97"), 4);
    const { rows } = await tsharkOf([front(), front(undefined, "fd66::1"), long].map(datagram), [
      ...names,
      "varp.ext",
    ]);
    const none: string[] = [];
    const common = { "varp.op": ["2"], "varp.vmac": [vmac], "varp.ext": none };
    const v4 = { "varp.address": ["10.66.1.1"], "varp.address6": none };
    expect(rows).toEqual([
      { ...common, ...v4, "varp.vnet": ["0097"] },
      { ...common, "varp.address": none, "varp.address6": ["fd66::1"], "varp.vnet": ["0097"] },
      { ...common, ...v4, "varp.vnet": ["0001:0002:0003:0004:0005:0006:0007:0097"] },
    ]);
  });

  it("a hello, with all that it can say", async () => {
    const message = signHello(front(encodeHello(hello)), [secrets], 2);
    const expected = {
      "varp.hello.host_id": [hello.hostId],
      "varp.hello.boot_nonce": [hello.bootNonce],
      "varp.hello.capabilities": ["0x00000101"],
      "varp.hello.capabilities.unicast": ["1"],
      "varp.hello.mtu": ["1500"],
      "varp.hello.name": ["zürich"],
      "varp.hello.software": ["vnetd 1.0"],
      "varp.hello.group": ["239.66.4.1"],
      "varp.hello.group6": ["ff15::4:1"],
      "varp.hello.peers.prefix": ["24"],
      "varp.hello.peers.count": ["2"],
      "varp.hello.peers.address": ["::ffff:10.66.2.2", "fd66::9"],
      "varp.hello.auth.suite": ["2"],
      "varp.hello.auth.key_id": ["a1b2c3d4e5f60718"],
      "varp.hello.auth.mac": [message.subarray(-16).toString("hex")],
      "varp.tlv.type": ["1", "2", "3", "4", "5", "6", "7", "32", "18", "49"],
      "vnetd.malformed": [],
    };
    const { rows, complaints } = await tsharkOf([datagram(message)], Object.keys(expected));
    expect(complaints).toBe("");
    expect(rows).toEqual([expected]);
    const solicits = await tsharkOf(
      [hello, { ...hello, solicit: false, goodbye: true }].map((each) =>
        datagram(front(encodeHello(each))),
      ),
      ["frame.number"],
      { filter: "varp.hello.solicit" },
    );
    expect(solicits.rows).toEqual([{ "frame.number": ["1"] }]);
  });

  it("lists, of vnets behind a hello and of MACs behind an announce", async () => {
    const entries = [1, 2, 3].map((n) => ({
      vnet: vnetBytes(n === 3 ? "98" : "97"),
      vmac: macBytes(`02:00:00:00:00:0${n}`),
    }));
    const says = { ...hello, capabilities: 3 };
    const messages = [withVnets(front(encodeHello(says)), entries), front(encodeMacs(entries))];
    const macs = [1, 2, 3].map((n) => `02:00:00:00:00:0${n}`);
    const names = ["varp.hello.capabilities.lists", "varp.list.vnet", "varp.list.count"];
    const { rows, complaints } = await tsharkOf(messages.map(datagram), [
      ...[...names, "varp.list.mac", "varp.hello.name", "vnetd.malformed"],
    ]);
    expect(complaints).toBe("");
    const common = { "varp.list.mac": macs, "vnetd.malformed": [] };
    expect(rows).toEqual([
      {
        ...common,
        "varp.hello.capabilities.lists": ["1"],
        "varp.list.vnet": ["0097", "0097", "0098"],
        "varp.list.count": [],
        "varp.hello.name": ["zürich"],
      },
      {
        ...common,
        "varp.hello.capabilities.lists": [],
        "varp.list.vnet": ["0097", "0098"],
        "varp.list.count": ["2", "1"],
        "varp.hello.name": [],
      },
    ]);
  });

  const bodies: Record<MessageType, number> = {
    ...{ init: challengeBytes + 52, response: 52, confirm: 16, ack: 16, done: 16 },
    ...{ retry: challengeBytes, refuse: 1 },
  };
  const keyMessage = (type: MessageType, body = bodies[type]): Buffer =>
    encodeMessage(
      {
        type,
        suiteId: 4,
        keyId: secrets.keyId,
        sender: Buffer.alloc(16, 0x11),
        receiver: Buffer.alloc(16, 0x22),
        exchangeId: Buffer.alloc(8, 0x33),
      },
      Buffer.alloc(body, 1),
      secrets.macKey,
    );

  it("messages about keys, of every type", async () => {
    const types = Object.keys(messageTypes) as MessageType[];
    const expected = types.map((type) => ({
      "varp.keys.type": [String(messageTypes[type])],
      "varp.keys.suite": ["4"],
      "varp.keys.key_id": [secrets.keyId],
      "varp.keys.sender": ["11".repeat(16)],
      "varp.keys.receiver": ["22".repeat(16)],
      "varp.keys.exchange": ["33".repeat(8)],
      "varp.keys.challenge": ["init", "retry"].includes(type) ? ["01".repeat(16)] : [],
      "varp.keys.noise": {
        ...{ init: ["01".repeat(52)], response: ["01".repeat(52)], retry: [], refuse: [] },
        ...{ confirm: ["01".repeat(16)], ack: ["01".repeat(16)], done: ["01".repeat(16)] },
      }[type],
      "varp.keys.refusal": type === "refuse" ? ["1"] : [],
      "varp.keys.mac": [keyMessage(type).subarray(-16).toString("hex")],
      "vnetd.malformed": [],
    }));
    const frames = types.map((type) => datagram(front(encodeKeyMessage(keyMessage(type)))));
    const { rows, complaints } = await tsharkOf(frames, Object.keys(expected[0]!));
    expect(complaints).toBe("");
    expect(rows).toEqual(expected);
  });

  it("what is malformed is marked, and named as our receiver names it", async () => {
    const ext = (tlvs: Tlv[], more: { length?: number; version?: number } = {}): Buffer =>
      Buffer.concat([
        front(),
        packet()
          .extension({ tlvs, ...more })
          .build(),
      ]);
    const id = { type: 1, value: Buffer.alloc(16, 1) };
    const nonce = { type: 2, value: Buffer.alloc(8, 1) };
    const auth = { type: 49, value: Buffer.alloc(28) };
    const other = Buffer.from(front());
    other[26] = 7;
    const wrongType = keyMessage("ack");
    wrongType[1] = 9;
    const wrongVersion = keyMessage("ack");
    wrongVersion[0] = 2;
    const cases: [Buffer, string | undefined][] = [
      [ext([id, nonce]), undefined],
      [ext([id, nonce, { type: 99, value: Buffer.alloc(3) }]), undefined],
      [ext([id, nonce], { version: 2 }), undefined],
      [Buffer.concat([front(), Buffer.from("other")]), undefined],
      [other, "varp_bad_family"],
      [ext([id]), "varp_bad_tlv: no host id or boot nonce"],
      [ext([]), "varp_bad_tlv: no host id or boot nonce"],
      [ext([id, nonce], { length: 200 }), "varp_bad_tlv: the extension is cut"],
      [ext([id, nonce], { length: 28 }), "varp_bad_tlv: it ends behind the extension"],
      [ext([id, nonce], { length: 22 }), "varp_bad_tlv: a header that is cut"],
      [ext([id, nonce, { type: 4, value: Buffer.alloc(3) }]), "varp_bad_tlv: its length"],
      [ext([id, { ...nonce, length: 90 }]), "varp_bad_tlv: it ends behind the extension"],
      [
        ext([id, nonce, auth, { type: 7, value: Buffer.alloc(0) }]),
        "varp_bad_tlv: something stands behind what vouches for the hello",
      ],
      [ext([{ type: 17, value: Buffer.alloc(0) }]), undefined],
      [ext([id, nonce, { type: 16, value: Buffer.alloc(23) }]), "varp_bad_tlv: a list's length"],
      [ext([{ type: 17, value: Buffer.alloc(17) }]), "varp_bad_tlv: a list's length"],
      [ext([{ type: 17, value: Buffer.alloc(18, 1) }]), "varp_bad_tlv: a list's length"],
      [ext([{ type: 48, value: Buffer.alloc(40) }]), "keys_malformed: its length"],
      [ext([{ type: 48, value: keyMessage("ack", 17) }]), "keys_malformed: its length"],
      [ext([{ type: 48, value: wrongType }]), "keys_malformed: its type"],
      [ext([{ type: 48, value: wrongVersion }]), "keys_malformed: its version"],
    ];
    const found = await malformedOf(cases.map(([message]) => datagram(message)));
    expect(found).toEqual(cases.map(([, reason]) => reason));
  });
});

describe("frames", () => {
  const inner = (): Buffer =>
    packet()
      .eth({ src: vmac })
      .ipv4({ src: "10.97.0.1", dst: "10.97.0.2" })
      .icmpEcho({ sequence: 7 })
      .build();
  const vudp = (vnet = "97"): Buffer => packet().vudp({ vnet }).payload(inner()).build();
  const names = ["vudp.vnet", "icmp.seq", "vfwd.src", "vfwd.src6", "vfwd.dst6", "vnetd.malformed"];
  const expected = { "vudp.vnet": ["0097"], "icmp.seq": ["7"], "vnetd.malformed": [] };

  it("in VFWD, over IPv4 and IPv6", async () => {
    const forms = [
      encodeVfwd(vudp(), { group: parseAddress("224.10.0.1"), port: 1798 }),
      encodeVfwd(vudp(), { group: parseAddress("ff12::8000:706"), port: 1798 }),
    ];
    const { rows, complaints } = await tsharkOf(forms.map(datagram), names);
    expect(complaints).toBe("");
    expect(rows).toMatchObject([
      { ...expected, "vfwd.src": ["0.0.0.0"], "vfwd.dst6": [] },
      { ...expected, "vfwd.src6": ["::"], "vfwd.dst6": ["ff12::8000:706"] },
    ]);
  });

  it("in EtherIP; as RFC 3378 has it, it is Wireshark's own", async () => {
    const body = Buffer.concat([Buffer.of(0, 0x40), vnetBytes("97"), inner()]);
    const rfc = Buffer.concat([Buffer.of(0x30, 0), inner()]);
    const frames = [body, rfc].map((content) =>
      packet()
        .eth()
        .ipv4({ src: "10.66.1.1", dst: "10.66.1.2", protocol: 97 })
        .payload(content)
        .build(),
    );
    const { rows, complaints } = await tsharkOf(frames, [...names, "etherip.ver"]);
    expect(complaints).toBe("");
    expect(rows).toMatchObject([
      { ...expected, "etherip.ver": [] },
      { "vudp.vnet": [], "icmp.seq": ["7"], "etherip.ver": ["3"] },
    ]);
  });

  it("malformed ones are marked", async () => {
    const forward = (content: Uint8Array): Buffer => packet().vfwd().payload(content).build();
    const tcp = forward(vudp());
    tcp[13] = 6;
    expect(
      await malformedOf(
        [
          forward(vudp()),
          tcp,
          forward(forward(vudp())),
          forward(Buffer.alloc(2)),
          vudp("1"),
          vudp("0"),
          packet()
            .vudp({ vnet: "97", version: [0x30, 0] })
            .payload(inner())
            .build(),
        ].map(datagram),
      ),
    ).toEqual([
      ...[undefined, "vfwd_bad_inner", "vfwd_nested", "vfwd_bad_inner"],
      ...["bad_vnet_id", "bad_vnet_id", "bad_version"],
    ]);
  });

  it("the port is a preference", async () => {
    const moved = packet()
      .eth()
      .ipv4({ src: "10.66.1.1", dst: "10.66.1.2" })
      .udp({ src: 50000, dst: 1799 })
      .payload(vudp())
      .build();
    const args = ["-o", "vnetd.port:1799"];
    expect((await tsharkOf([moved], names)).rows).toMatchObject([{ "vudp.vnet": [] }]);
    expect((await tsharkOf([moved], names, { args })).rows).toMatchObject([expected]);
  });

  it("what a capture has cut is not called malformed", async () => {
    const whole = [vudp(), packet().vfwd().payload(vudp()).build()].map(datagram);
    const packets = whole.flatMap((data) =>
      Array.from({ length: 30 }, (_, at) => ({
        timeNs: 0n,
        wireLength: data.length,
        data: data.subarray(0, 43 + at),
      })),
    );
    const { rows, complaints } = await readWithTshark(encodePcap(packets), ["vnetd.malformed"], {
      filter: "vnetd.cut",
    });
    expect(complaints).toBe("");
    expect(rows).toEqual(packets.map(() => ({ "vnetd.malformed": [] })));
  });
});

it("nothing that a wire can hold is an error of the script", async () => {
  // a fixed sequence: what fails once fails again
  let state = 1;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
  const tlvs: Tlv[] = [
    { type: 1, value: Buffer.alloc(16, 1) },
    { type: 2, value: Buffer.alloc(8, 1) },
    { type: 3, value: Buffer.alloc(4) },
    { type: 4, value: Buffer.alloc(2) },
    { type: 5, value: Buffer.from("ab") },
    { type: 6, value: Buffer.from("ab") },
    { type: 7, value: Buffer.alloc(0) },
    { type: 49, value: Buffer.alloc(28) },
    { type: 48, value: Buffer.concat([Buffer.of(1, 7), Buffer.alloc(67, 1)]) },
    { type: 32, value: Buffer.concat([Buffer.of(24, 1), Buffer.alloc(16, 9)]) },
  ];
  // each with one TLV at its end, where it is easily read beyond
  const hellos = tlvs.map((tlv) =>
    packet()
      .varp({ vnet: "97", vmac, address: ipv4Bytes("10.66.1.1") })
      .extension({ tlvs: [tlv] })
      .build(),
  );
  const captured = CAPTURES.flatMap((capture) =>
    datagramsOf(capture).map(({ payload }) => payload),
  ).filter((payload) => payload.length > 0);
  const mutant = (from: readonly Buffer[], at: number): Buffer => {
    const bytes = Buffer.from(from[at % from.length]!);
    // most of it where a message's own fields are
    const end = Math.min(bytes.length, 100);
    for (let times = random(4); times > 0; times -= 1)
      bytes[end - 1 - random(Math.min(end, 60))] = random(256);
    return random(8) === 0 ? packet().vfwd().payload(bytes).build() : bytes;
  };
  const packets = Array.from({ length: 10_000 }, (_, at) => {
    const bytes = mutant(at % 2 === 0 ? hellos : captured, at >> 1);
    for (let times = random(4); times > 0; times -= 1)
      bytes[random(Math.min(bytes.length, 120))] = random(256);
    const data = datagram(
      bytes.subarray(0, random(3) === 0 ? 1 + random(bytes.length) : undefined),
    );
    const kept = random(3) === 0 ? 42 + random(data.length - 41) : data.length;
    return { timeNs: 0n, wireLength: data.length, data: data.subarray(0, kept) };
  });
  const fields = ["vnetd.malformed", "_ws.lua.error"];
  const { rows, complaints } = await readWithTshark(encodePcap(packets), fields);
  expect(complaints).toBe("");
  expect(rows).toHaveLength(packets.length);
  expect(rows.filter((row) => row["_ws.lua.error"]!.length > 0)).toEqual([]);
  const reasons = new Set(rows.flatMap((row) => row["vnetd.malformed"]!));
  expect(reasons.size).toBeGreaterThan(8);
});
