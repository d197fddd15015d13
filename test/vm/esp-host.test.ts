// SPDX-License-Identifier: Apache-2.0
/**
 * EspHost (src/host/esp.ts) against kernels that have ESP, in QEMU alone (test/vm/files): two hosts and a
 * wire. Packets are put on the interfaces as the programs put them, between synthetic addresses, by packet
 * sockets; what arrives is looked at where the programs will look.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { EspPath } from "../../src/host/esp.js";
import { type EspKeys, type Suite, suites } from "../../src/keys/esp-keys.js";
import type { LinkInfo } from "../../src/native/contract.js";
import { espRoom } from "../../src/wire/overhead.js";
import { ipv6Bytes, ipv6Text } from "../lib/bytes.js";
import { eventually } from "../lib/lab.js";
import { PacketAgent, type Captured } from "../lib/packet-agent.js";
import { packet } from "../lib/packet.js";
import { Namespace, rejectionOf } from "../native/support.js";

const espId = 0x76000000;
/** of what our programs give to the interface */
const mark = 0x764e0001;
const real = {
  4: { a: "10.9.0.1", b: "10.9.0.2" },
  6: { a: "fd09::1", b: "fd09::2" },
} as const;
type Family = 4 | 6;
const families = [4, 6] as const;
const conf = suites[1]!;
const gcm = suites[3]!;

interface Side {
  ns: Namespace;
  packets: PacketAgent;
  underlay: LinkInfo;
  esp: LinkInfo;
}
let a: Side;
let b: Side;

beforeAll(async () => {
  const [na, nb] = [new Namespace("ea"), new Namespace("eb")];
  // the devices of the two have other numbers
  nb.exec("ip", "link", "add", "spare", "type", "dummy");
  na.exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", nb.name);
  for (const [ns, end] of [
    [na, "a"],
    [nb, "b"],
  ] as const) {
    ns.exec("ip", "link", "set", "eth0", "up");
    ns.exec("ip", "link", "set", "lo", "up");
    ns.exec("ip", "addr", "add", `${real[4][end]}/24`, "dev", "eth0");
    ns.exec("ip", "addr", "add", `${real[6][end]}/64`, "dev", "eth0", "nodad");
  }
  a = await sideOf(na);
  b = await sideOf(nb);
});
afterAll(async () => {
  for (const { ns, packets } of [a, b]) {
    await packets.close();
    await ns.close();
  }
});
afterEach(async () => {
  for (const { ns } of [a, b]) {
    await ns.run.esp("removeAll", new Set());
    expect(await ns.run.xfrmStateList()).toEqual([]);
    expect(await ns.run.xfrmPolicyList()).toEqual([]);
    expect(await linksOf(ns)).toEqual([]);
  }
});

async function sideOf(ns: Namespace): Promise<Side> {
  const underlay = (await ns.run.linkGet("eth0"))!;
  return { ns, packets: new PacketAgent(ns.name), underlay, esp: underlay };
}

async function linksOf(ns: Namespace): Promise<LinkInfo[]> {
  return (await ns.run.linkList()).filter(({ kind }) => kind === "xfrm");
}

const keysOf = ({ cipherBytes, saltBytes, authBytes }: Suite, fill: number): EspKeys => ({
  cipher: Buffer.alloc(cipherBytes, fill),
  salt: Buffer.alloc(saltBytes, fill),
  auth: Buffer.alloc(authBytes, fill),
});

/** The path from one side to the other. */
function pathOf(from: Side, family: Family, nexthop: number): EspPath {
  const [own, peer] = from === a ? (["a", "b"] as const) : (["b", "a"] as const);
  const device = from.underlay.ifindex;
  return { own: real[family][own], peer: real[family][peer], device, nexthop };
}

async function devices(): Promise<void> {
  for (const side of [a, b]) side.esp = await side.ns.run.esp("ensureDevice", side.underlay);
}

interface Pair {
  family?: Family;
  nexthop?: number;
  spi: number;
  suite?: Suite;
  hardSeconds?: number;
}

/** SAs from one side to the other: the receiver's first. */
async function oneWay(from: Side, to: Side, pair: Pair): Promise<void> {
  const { family = 4, nexthop = 7, spi, suite = gcm, hardSeconds = 3600 } = pair;
  const key = spi & 0xff;
  const left = await to.ns.run.esp(
    ...(["addIn", pathOf(to, family, nexthop), spi, suite] as const),
    ...([keysOf(suite, key), hardSeconds] as const),
  );
  const alsoLeft = await from.ns.run.esp(
    ...(["addOut", pathOf(from, family, nexthop), spi, suite] as const),
    ...([keysOf(suite, key), hardSeconds] as const),
  );
  for (const keys of [left, alsoLeft])
    for (const part of [keys.cipher, keys.salt, keys.auth])
      expect(Buffer.from(part).every((byte) => byte === 0)).toBe(true);
}

const hex4 = (n: number): string => (n >>> 16).toString(16) + ":" + (n & 0xffff).toString(16);

/** What a program gives to the interface for a next hop: so many bytes of UDP. */
function toNexthop(from: Side, family: Family, nexthop: number, udpBytes: number, df = true) {
  const body = Buffer.alloc(udpBytes - 8, "known plaintext ");
  const { ifindex } = from.underlay;
  const ip =
    family === 4
      ? packet().ipv4({
          ...{ src: "240.0.0.1", dst: `241.0.${nexthop >> 8}.${nexthop & 0xff}` },
          dontFragment: df,
        })
      : packet().ipv6({
          src: `100:0:0:0:${hex4(ifindex)}:0:0`,
          dst: `100:0:0:0:${hex4(ifindex)}:${hex4(nexthop)}`,
        });
  return ip.udp({ src: 1798, dst: 1798, checksum: 0 }).payload(body).build();
}

const incoming = (all: readonly Captured[]): Captured[] => all.filter(({ outgoing }) => !outgoing);

function isEsp(frame: Buffer): boolean {
  return frame[frame.readUInt16BE(12) === 0x0800 ? 23 : 20] === 50;
}

/** The next one that is ESP: neighbours talk as well. */
async function espFrame(side: Side, listening: number): Promise<Buffer> {
  for (;;) {
    const [got] = await side.packets.read(listening, 1);
    if (got === undefined) throw new Error("no ESP on the wire");
    if (!got.outgoing && isEsp(got.bytes)) return got.bytes;
  }
}

function realEnds(from: Side, family: Family): [string, string] {
  const { own, peer } = pathOf(from, family, 7);
  return family === 4 ? [own, peer] : [ipv6Text(ipv6Bytes(own)), ipv6Text(ipv6Bytes(peer))];
}

function endsOf(ip: Buffer): [string, string] {
  if (ip[0]! >> 4 === 4) {
    const text = (at: number) => [...ip.subarray(at, at + 4)].join(".");
    return [text(12), text(16)];
  }
  return [ipv6Text(ip.subarray(8, 24)), ipv6Text(ip.subarray(24, 40))];
}

describe("what the kernel lacks", () => {
  const modules = ["esp4", "esp6", "xfrm_interface"];
  const loaded = (): string[] =>
    modules.filter((name) => readFileSync("/proc/modules", "utf8").includes(`${name} `));

  it("is loaded by asking for it, or named; nothing is left", async () => {
    // without it nobody could be asked for ESP at all
    execFileSync("modprobe", ["xfrm_user"]);
    const setting = "/proc/sys/kernel/modprobe";
    const before = readFileSync(setting, "utf8");
    // SAs and devices of tests before are taken apart later
    await eventually(
      () => {
        if (loaded().length > 0) execFileSync("modprobe", ["-r", ...loaded()], { stdio: "ignore" });
        return loaded().length === 0;
      },
      { timeoutMs: 30_000, what: `${modules.join(", ")} to go` },
    );
    writeFileSync(setting, "/bin/false");
    try {
      const problem = (await a.ns.run.esp("problem"))!;
      for (const text of ["CONFIG_XFRM_INTERFACE", "CONFIG_INET_ESP", "CONFIG_INET6_ESP"])
        expect(problem).toContain(text);
      expect(problem).toMatch(/modprobe -a xfrm_interface.* esp4.* esp6/);
    } finally {
      writeFileSync(setting, before.trim());
    }
    expect(await a.ns.run.esp("problem", conf)).toBeUndefined();
    expect(await a.ns.run.esp("problem")).toBeUndefined();
    expect(loaded()).toEqual(modules);
  });
});

describe("the interface beside an underlay device", () => {
  const disableIpv6 = "net.ipv6.conf.default.disable_ipv6";

  it("is made once, adopted, and set right", async () => {
    const { ns, underlay } = a;
    const esp = await ns.run.esp("ensureDevice", underlay);
    const name = `vn-esp${underlay.ifindex}`;
    const wanted = {
      ...{ name, kind: "xfrm", up: true, mtuBytes: 65_535, link: underlay.ifindex },
      ...{ alias: "vnetd esp", xfrmIfId: espId + underlay.ifindex },
    };
    expect(esp).toMatchObject(wanted);
    const prefix = `100::${underlay.ifindex.toString(16)}:0:0/96`;
    const routes = () => ns.exec("ip", "-6", "route", "show", "dev", name);
    const features = { "rx-gro": false, "tx-scatter-gather": false };
    expect(routes()).toContain(prefix);
    expect(await ns.run.featuresGet(name)).toMatchObject(features);
    expect(ns.exec("ip", "-6", "addr", "show", "dev", name)).toBe("");
    expect(await ns.run.esp("ensureDevice", underlay)).toEqual(esp);

    ns.exec("ip", "-6", "route", "del", prefix, "dev", name);
    ns.exec("ip", "link", "set", name, "mtu", "1400", "down");
    await ns.run.featuresSet(name, { "rx-gro": true, "tx-scatter-gather": true });
    expect(await ns.run.esp("ensureDevice", underlay)).toEqual(esp);
    expect(routes()).toContain(prefix);
    expect(await ns.run.featuresGet(name)).toMatchObject(features);
    expect(ns.exec("ip", "-6", "addr", "show", "dev", name)).toBe("");

    // ours by its mark, but tied to nothing of ours
    ns.exec("ip", "link", "del", name);
    ns.exec("ip", "link", "add", name, "type", "xfrm", "dev", "eth0", "if_id", "9");
    ns.exec("ip", "link", "set", name, "alias", "vnetd esp");
    expect(await ns.run.esp("ensureDevice", underlay)).toMatchObject(wanted);
    await ns.run.esp("removeDevice", underlay.ifindex);
    expect(await linksOf(ns)).toEqual([]);
  });

  it("is not taken from others, by name or by id", async () => {
    const { ns, underlay } = a;
    const name = `vn-esp${underlay.ifindex}`;
    const ids = { [name]: "9", xf1: String(espId + underlay.ifindex) };
    for (const [device, id] of Object.entries(ids)) {
      ns.exec("ip", "link", "add", device, "type", "xfrm", "dev", "eth0", "if_id", id);
      const error = await rejectionOf(ns.run.esp("ensureDevice", underlay));
      expect(error).toMatchObject({ code: "NAME_IN_USE" });
      expect(error.message).toContain(device === name ? name : "if_id 0x76");
      await ns.run.esp("removeAll", new Set());
      expect(await linksOf(ns)).toHaveLength(1);
      ns.exec("ip", "link", "del", device);
    }
  });

  it("has IPv6 where new devices have none", async () => {
    const { ns, underlay } = a;
    ns.exec("sysctl", "-qw", `${disableIpv6}=1`);
    try {
      const { name } = await ns.run.esp("ensureDevice", underlay);
      expect(ns.exec("ip", "-6", "route", "show", "dev", name)).toContain("/96");
    } finally {
      ns.exec("sysctl", "-qw", `${disableIpv6}=0`);
    }
  });
});

describe("packets", () => {
  for (const family of families) {
    for (const suite of suites) {
      it(`IPv${family}, ${suite.level} ${suite.name}: go by the next hop's SA, and tell by which they came`, async () => {
        await devices();
        for (const [from, to, spi] of [
          [a, b, 0x8a000001],
          [b, a, 0x0b000001],
        ] as const) {
          await oneWay(from, to, { family, spi, suite });
          const wire = await to.packets.listen("eth0", false);
          const leaving = await from.packets.listen("eth0", false);
          const inside = await to.packets.listen(to.esp.name, true);
          const sent = toNexthop(from, family, 7, 500);
          await from.packets.send(from.esp.name, mark, sent);
          const [got] = incoming(await to.packets.read(inside, 1));
          expect(got?.mark).toBe(spi);
          const headerBytes = family === 4 ? 20 : 40;
          expect(got!.bytes.subarray(headerBytes)).toEqual(sent.subarray(headerBytes));
          const ends = realEnds(from, family);
          expect(endsOf(got!.bytes)).toEqual(ends);
          const outer = (await espFrame(to, wire)).subarray(14);
          expect(endsOf(outer)).toEqual(ends);
          expect(outer[family === 4 ? 9 : 6]).toBe(50);
          expect(outer.readUInt32BE(headerBytes)).toBe(spi);
          expect(outer.includes("known plaintext")).toBe(suite.level === "auth");
          const left = (await from.packets.read(leaving, 9, 100)).filter(({ bytes }) =>
            isEsp(bytes),
          );
          expect(left.map((each) => [each.outgoing, each.mark])).toEqual([[true, 0]]);
          const numbers = { spi, packets: 1, integrityErrors: 0, replayErrors: 0 };
          expect(await to.ns.run.esp("stats")).toContainEqual(
            expect.objectContaining({ direction: "in", ...pathOf(to, family, 7), ...numbers }),
          );
          expect(await from.ns.run.esp("one", "out", pathOf(from, family, 7), spi)).toMatchObject({
            ...{ direction: "out", ...pathOf(from, family, 7), ...numbers },
          });
        }
        expect(await a.ns.run.esp("one", "out", pathOf(a, family, 7), 0x0b000001)).toBeUndefined();
        expect(await a.ns.run.esp("policies")).toEqual([
          { ...pathOf(a, family, 7), spi: 0x8a000001 },
        ]);
      });
    }
  }

  it("that no program of ours gave to the interface go nowhere, forwarded or sent by a process", async () => {
    await devices();
    for (const family of families) await oneWay(a, b, { family, spi: 0x1f00 + family });
    const inside = await b.packets.listen(b.esp.name, true);
    const forged = families.map((family) => toNexthop(a, family, 7, 100));
    await a.packets.send(a.esp.name, 0, ...forged);
    // by the stack of a host that is a router, from anybody beside it
    a.ns.exec("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1");
    const macs = [a.underlay.mac, b.underlay.mac] as const;
    const frames = forged.map((bytes, index) =>
      packet()
        .eth({ dst: macs[0], src: macs[1], type: index === 0 ? 0x0800 : 0x86dd })
        .payload(bytes)
        .build(),
    );
    await b.packets.frames("eth0", ...frames);
    await eventually(
      () => a.ns.exec("cat", "/proc/net/snmp6").match(/Ip6OutForwDatagrams\s+([1-9])/) !== null,
      { timeoutMs: 10_000, what: "the IPv6 packet to be forwarded" },
    );
    await a.packets.send(a.esp.name, mark, ...forged);
    const got = incoming(await b.packets.read(inside, 3, 500));
    expect(got.map((each) => each.mark)).toEqual([0x1f04, 0x1f06]);
    a.ns.exec("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv4.ip_forward=0");
  });

  it("of several next hops each go by their own SA, and without one nowhere", async () => {
    await devices();
    for (const nexthop of [1, 300, 16_000])
      await oneWay(a, b, { nexthop, spi: 0x1000 + nexthop, family: 4 });
    const inside = await b.packets.listen(b.esp.name, true);
    const wire = await b.packets.listen("eth0", false);
    for (const nexthop of [300, 2, 16_000, 1])
      await a.packets.send(a.esp.name, mark, toNexthop(a, 4, nexthop, 100));
    const got = incoming(await b.packets.read(inside, 3));
    expect(got.map((each) => each.mark - 0x1000)).toEqual([300, 16_000, 1]);
    // nothing else has left, and nothing in clear
    const frames = incoming(await b.packets.read(wire, 4, 200)).map(({ bytes }) => bytes);
    expect(frames.filter(isEsp)).toHaveLength(3);
    for (const frame of frames) expect(frame.includes("known plaintext")).toBe(false);
  });
});

describe("the largest packet", () => {
  /** What IPv6 learned of packets that did not fit is forgotten by the second step. */
  async function setMtu(mtuBytes: number): Promise<void> {
    a.ns.exec("ip", "link", "set", "eth0", "mtu", String(mtuBytes));
    await a.ns.run.esp("ensureDevice", a.underlay);
  }

  for (const family of families) {
    it(`over IPv${family} is as large as computed, for every suite and to the byte`, async () => {
      await devices();
      const inside = await b.packets.listen(b.esp.name, true);
      let spi = 0x2000;
      for (const suite of suites) {
        await oneWay(a, b, { family, spi: ++spi, suite });
        for (const mtuBytes of [1500, 1493, 1486]) {
          await setMtu(mtuBytes);
          const { fixed4, fixed6, block } = espRoom(suite);
          const fixed = family === 4 ? fixed4 : fixed6;
          const largest = Math.floor((mtuBytes - fixed) / block) * block - 2;
          const [fits, not, last] = [largest, largest + 1, 50].map((bytes) =>
            toNexthop(a, family, 7, bytes),
          );
          await a.packets.send(a.esp.name, mark, fits!, not!, last!);
          const got = incoming(await b.packets.read(inside, 2)).map(({ bytes }) => bytes.length);
          expect(got, `${suite.level} ${suite.name} ${mtuBytes}`).toEqual([
            fits!.length,
            last!.length,
          ]);
        }
        await a.ns.run.esp("removeOut", pathOf(a, family, 7), spi, true);
        await b.ns.run.esp("removeIn", pathOf(b, family, 7), spi);
      }
      await setMtu(1500);
    });
  }

  it("over IPv4 without DF goes in fragments, of ESP", async () => {
    await devices();
    await oneWay(a, b, { spi: 0x3000 });
    const inside = await b.packets.listen(b.esp.name, true);
    const sent = toNexthop(a, 4, 7, 3000, false);
    await a.packets.send(a.esp.name, mark, sent);
    const [got] = incoming(await b.packets.read(inside, 1));
    expect(got?.bytes.subarray(20)).toEqual(sent.subarray(20));
    expect(got?.mark).toBe(0x3000);
  });
});

describe("new keys", () => {
  for (const family of families) {
    it(`IPv${family}: no packet of a flood is lost, none comes twice`, async () => {
      await devices();
      const flooder = new PacketAgent(a.ns.name);
      const counter = new PacketAgent(b.ns.name);
      try {
        let spi = 0x4000;
        await oneWay(a, b, { family, spi });
        const inside = await counter.listen(b.esp.name, true);
        const at = (family === 4 ? 20 : 40) + 8;
        const count = 6000;
        const packetOf = toNexthop(a, family, 7, 64);
        const flood = flooder.flood({
          ...{ device: a.esp.name, packet: packetOf, mark, at, count, gapUs: 500 },
        });
        const progress = { over: false };
        void flood.then(() => (progress.over = true));
        let changes = 0;
        while (!progress.over) {
          const before = spi++;
          await oneWay(a, b, { family, spi, suite: changes % 2 === 0 ? conf : gcm });
          await eventually(
            async () =>
              progress.over ||
              ((await b.ns.run.esp("one", "in", pathOf(b, family, 7), spi))?.packets ?? 0) > 0,
            { timeoutMs: 10_000, what: "the new SA to be used" },
          );
          await a.ns.run.esp("removeOut", pathOf(a, family, 7), before, false);
          await b.ns.run.esp("removeIn", pathOf(b, family, 7), before);
          changes++;
        }
        expect(await flood).toMatchObject({ sent: count });
        const numbers = await counter.count(inside, at);
        expect(new Set(numbers).size).toBe(count);
        expect(numbers).toHaveLength(count);
        expect(changes).toBeGreaterThan(4);
      } finally {
        await flooder.close();
        await counter.close();
      }
    });
  }

  it("the kernel alone ends an SA at its hard limit; nothing leaves after that", async () => {
    await devices();
    await oneWay(a, b, { spi: 0x5000 });
    await oneWay(a, b, { spi: 0x5001, nexthop: 8, hardSeconds: 1 });
    await eventually(
      async () => (await a.ns.run.esp("stats")).length + (await b.ns.run.esp("stats")).length === 2,
      { timeoutMs: 20_000, what: "the kernel to delete the SAs" },
    );
    const inside = await b.packets.listen(b.esp.name, true);
    const [dead, alive] = [8, 7].map((nexthop) => toNexthop(a, 4, nexthop, 100));
    await a.packets.send(a.esp.name, mark, dead!, alive!);
    expect(incoming(await b.packets.read(inside, 1)).map((each) => each.mark)).toEqual([0x5000]);
    // the policy is there still, and to be found
    expect((await a.ns.run.esp("policies")).map(({ spi }) => spi).sort()).toEqual([0x5000, 0x5001]);
    await a.ns.run.esp("removeOut", pathOf(a, 4, 8), 0x5001, true);
    expect(await a.ns.run.esp("policies")).toHaveLength(1);
    await b.ns.run.esp("removeIn", pathOf(b, 4, 8), 0x5001);
  });
});

describe("hostile packets", () => {
  it("replays and wrong ICVs are counted by the SA and go nowhere", async () => {
    await devices();
    for (const family of families) {
      const spi = 0x6000 + family;
      await oneWay(a, b, { family, spi });
      const wire = await b.packets.listen("eth0", false);
      const inside = await b.packets.listen(b.esp.name, true);
      await a.packets.send(a.esp.name, mark, toNexthop(a, family, 7, 100));
      const frame = await espFrame(b, wire);
      const tampered = Buffer.from(frame);
      tampered[tampered.length - 1]! ^= 1;
      // a number of its own: one that was seen is a replay, whatever its ICV
      tampered.writeUInt32BE(77, 14 + (family === 4 ? 20 : 40) + 4);
      await a.packets.frames("eth0", frame, tampered, frame);
      await eventually(
        async () => {
          const sa = (await b.ns.run.esp("one", "in", pathOf(b, family, 7), spi))!;
          return sa.replayErrors === 2 && sa.integrityErrors === 1 && sa.packets === 1;
        },
        { timeoutMs: 10_000, what: "the SA's counters" },
      );
      expect(incoming(await b.packets.read(inside, 2, 200))).toHaveLength(1);
    }
  });
});

describe("what others made", () => {
  it("is never touched, whatever is removed of ours", async () => {
    await devices();
    await oneWay(a, b, { spi: 0x7000 });
    await oneWay(a, b, { family: 6, spi: 0x7001, nexthop: 9 });
    const sa = (spi: number, ...more: string[]) =>
      a.ns.exec(
        ...["ip", "xfrm", "state", "add", "src", real[4].a, "dst", real[4].b, "proto", "esp"],
        ...["spi", String(spi), "reqid", "7", "mode", "beet", "aead", "rfc4106(gcm(aes))"],
        ...[`0x${randomBytes(20).toString("hex")}`, "128", ...more],
      );
    sa(0x7100);
    sa(0x7101, "if_id", "5");
    a.ns.exec(
      ...["ip", "xfrm", "policy", "add", "src", "240.0.0.1", "dst", "241.0.0.7", "dir", "out"],
      ...["tmpl", "src", real[4].a, "dst", real[4].b, "proto", "esp", "reqid", "7", "mode", "beet"],
    );
    a.ns.exec("ip", "link", "add", "xf5", "type", "xfrm", "dev", "eth0", "if_id", "5");
    const others = async () => [
      (await a.ns.run.xfrmStateList()).map(({ spi }) => spi).filter((spi) => spi >= 0x7100),
      (await a.ns.run.xfrmPolicyList()).filter(({ ifId }) => ifId === undefined).length,
      (await linksOf(a.ns)).filter(({ name }) => name === "xf5").length,
    ];
    const there = await others();
    expect(there).toMatchObject([expect.arrayContaining([0x7100, 0x7101]), 1, 1]);

    const path = pathOf(a, 4, 7);
    // an SPI that another has already
    const keys = keysOf(gcm, 1);
    const error = await rejectionOf(a.ns.run.esp("addOut", path, 0x7100, gcm, keys, 60));
    expect(error).toMatchObject({ code: "KERNEL" });
    expect(error.message).toContain("EEXIST");
    for (const spi of [0x7100, 0x7101]) {
      await a.ns.run.esp("removeOut", path, spi, false);
      await a.ns.run.esp("removeIn", { ...path, own: path.peer }, spi);
      expect(await a.ns.run.esp("one", "out", path, spi)).toBeUndefined();
    }
    expect(await others()).toEqual(there);
    expect((await a.ns.run.esp("stats")).map(({ spi }) => spi).sort()).toEqual([0x7000, 0x7001]);

    await a.ns.run.esp("removeAll", new Set([a.underlay.ifindex]));
    expect(await a.ns.run.esp("stats")).toHaveLength(2);
    expect(await a.ns.run.esp("policies")).toHaveLength(2);
    await a.ns.run.esp("removeDevice", a.underlay.ifindex + 1);
    expect(await a.ns.run.esp("stats")).toHaveLength(2);
    await a.ns.run.esp("removeAll", new Set([a.underlay.ifindex + 1]));
    expect(await a.ns.run.esp("stats")).toEqual([]);
    expect(await a.ns.run.esp("policies")).toEqual([]);
    expect(await others()).toEqual(there);
    a.ns.exec("ip", "xfrm", "state", "flush");
    a.ns.exec("ip", "xfrm", "policy", "flush");
    a.ns.exec("ip", "link", "del", "xf5");
  });
});
