// SPDX-License-Identifier: Apache-2.0
/**
 * Frames through real ESP, in QEMU alone (test/vm/files): three hosts with the programs on their hooks, xfrm
 * interfaces and SAs (secure-end.ts), no daemon. What a test run cannot show is here: that the kernel
 * takes what bpf/encap.bpf.c gives to the interface, and that bpf/esp.bpf.c takes what comes out of it.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { suiteOf, type Suite } from "../../src/keys/esp-keys.js";
import { Background, eventually, timeFactor } from "../lib/processes.js";
import { parsePing, type PingResult, Capture } from "../lib/traffic.js";
import { superDatagrams, transfer } from "../lib/transfer.js";
import { Namespace } from "../native/support.js";
import { SecureEnd, mtuOf, type Family } from "./secure-end.js";

const ends = ["a", "b", "c"].map((name, at) => new SecureEnd(name, at + 1));
const [a, b, c] = ends as [SecureEnd, SecureEnd, SecureEnd];
const lan = new Namespace("lan");
let capture: Capture;

beforeAll(async () => {
  lan.exec("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0");
  lan.exec("ip", "link", "set", "br0", "up");
  for (const end of ends) {
    await end.start(lan.name);
    lan.exec("ip", "link", "set", "dev", end.name, "master", "br0", "up");
  }
  const place = {
    tryExec: () => Promise.reject(new Error("not used")),
    spawn: (command: readonly string[]) =>
      new Background(["nsenter", `--net=/run/netns/${lan.name}`, ...command]),
  };
  capture = await Capture.start(place, "br0");
}, 120_000 * timeFactor);
afterAll(async () => {
  for (const end of ends) await end.close();
  await lan.close();
});

const plaintext = "766e657464"; // "vnetd"
interface Ping {
  size?: number;
  /** path MTU discovery: do or dont */
  df?: "do" | "dont";
  count?: number;
  /** none of them is to arrive */
  lost?: boolean;
}

async function ping(from: SecureEnd, to: string, options: Ping = {}): Promise<PingResult> {
  const { size = 56, df = "dont", lost = false, count = lost ? 2 : 3 } = options;
  const argv = [
    "ping",
    "-n",
    "-c",
    String(count),
    "-i",
    "0.2",
    "-W",
    String(lost ? 2 : 2 * timeFactor),
  ];
  argv.push("-p", plaintext, "-s", String(size), "-M", df, to);
  const { stdout } = await from.tryExec(argv);
  return parsePing(stdout);
}

/** On the wire: packets that hold the text that pings carry, and VUDP outside of ESP. */
function seen(): { plaintext: number; vudp: number; esp: number } {
  const packets = capture.packets.map(({ data }) => data);
  const text = Buffer.from(plaintext.repeat(4), "hex");
  const isIpv4 = (data: Buffer): boolean => data.readUInt16BE(12) === 0x0800;
  const protocol = (data: Buffer): number => data[isIpv4(data) ? 23 : 20]!;
  const portOf = (data: Buffer): number =>
    protocol(data) === 17 ? data.readUInt16BE(isIpv4(data) ? 36 : 56) : 0;
  return {
    plaintext: packets.filter((data) => data.includes(text)).length,
    vudp: packets.filter((data) => data.length > 58 && portOf(data) === 1798).length,
    esp: packets.filter((data) => protocol(data) === 50).length,
  };
}

const configurations: [family: Family, level: Suite["level"], name: Suite["name"]][] = [
  [4, "conf", "sha1"],
  [4, "auth", "gcm"],
  [6, "conf", "gcm256"],
];
let nextSpi = 0x80001000;

describe.each(configurations)("over IPv%i, %s %s", (family, level, name) => {
  const suite = suiteOf(level, name);
  let before: ReturnType<typeof seen>;
  beforeAll(async () => {
    before = seen();
    for (const end of ends) await end.setVnet(suite);
    for (const from of ends) {
      for (const to of ends.filter((other) => other !== from)) {
        const way = { family, suite, spi: (nextSpi += 1) };
        await to.addIn(from, way);
        await from.addOut(to, way);
      }
    }
  }, 60_000 * timeFactor);
  afterAll(async () => {
    for (const end of ends) await end.forget();
  });

  it("unicast and what goes to all", async () => {
    const heard = (await c.traffic()).frames[1]!;
    for (const of of [4, 6] as const) {
      const result = await ping(a, b.guest(of));
      expect(result, result.text).toMatchObject({ received: 3, duplicates: 0 });
      expect(await ping(b, c.guest(of))).toMatchObject({ received: 3, duplicates: 0 });
    }
    // ARP and neighbour solicitations of a and b
    await eventually(async () => (await c.traffic()).frames[1]! > heard + 6n);
  });

  it("TCP, and UDP by super-frames", async () => {
    await transfer(a, b, b.guest(4), 500_000);
    await transfer(b, a, a.guest(6), 200_000);
    const lengths = await superDatagrams(a, b, b.guest(4), {
      ...{ segmentBytes: 1200, superBytes: 30_000, times: 3 },
    });
    expect(lengths.length).toBe(75);
    expect(new Set(lengths)).toEqual(new Set(["1200"]));
  });

  it("a VLAN's frames", async () => {
    for (const end of [a, b]) {
      end.ns.exec("ip", "link", "add", "vn0.5", "link", "vn0", "type", "vlan", "id", "5");
      end.ns.exec("ip", "addr", "add", `192.168.5.${end.number}/24`, "dev", "vn0.5");
      end.ns.exec("ip", "link", "set", "vn0.5", "mtu", String(mtuOf(suite, family) - 4), "up");
    }
    try {
      const result = await ping(a, "192.168.5.2", {
        size: mtuOf(suite, family) - 4 - 28,
        df: "do",
      });
      expect(result, result.text).toMatchObject({ received: 3 });
      await transfer(a, b, "192.168.5.2", 100_000);
    } finally {
      for (const end of [a, b]) end.ns.exec("ip", "link", "del", "vn0.5");
    }
  });

  it("the largest packet is exact to the byte, and the guest is told", async () => {
    const mtu = mtuOf(suite, family);
    for (const end of [a, b]) end.vnetifMtu(9000);
    const exact = await ping(a, b.guest(4), { size: mtu - 28, df: "do" });
    expect(exact, exact.text).toMatchObject({ received: 3 });
    const result = await a.tryExec([
      ...["ping", "-n", "-c", "1", "-W", "1", "-s", String(mtu - 28 + 1), "-M", "do"],
      b.guest(4),
    ]);
    // by the answer to this packet, or by one to an earlier test's
    expect(result.stdout + result.stderr).toMatch(new RegExp(`mtu ?= ?${String(mtu)}\\b`));
    a.ns.exec("ip", "route", "flush", "cache");
  });

  it(`what is too large and may be fragmented ${family === 4 ? "arrives" : "is counted"}`, async () => {
    const large = await ping(a, b.guest(4), { size: 5000, lost: family === 6 });
    expect(large, large.text).toMatchObject({ received: family === 4 ? 3 : 0 });
    const { too_big: tooBig = 0 } = await a.drops();
    expect(tooBig).toBeGreaterThan(family === 4 ? 0 : 1);
    for (const end of ends) end.vnetifMtu(mtuOf(suite, family));
  });

  it("without an SA nothing leaves, and without an interface either", async () => {
    const path = await a.path(b, family);
    const spi = 0x9000 + family;
    await a.ns.run.esp("removeOut", path, spi, true);
    // the map says that there are keys: the kernel knows better
    await a.sendBy(b, family, spi);
    expect(await ping(a, b.guest(4), { lost: true })).toMatchObject({ received: 0 });
    await a.sendBy(b, family, 0);
    const before = (await a.drops())["no_keys"] ?? 0;
    expect(await ping(a, b.guest(4), { lost: true })).toMatchObject({ received: 0 });
    expect((await a.drops())["no_keys"] ?? 0).toBeGreaterThan(before);
  });

  it("the wire had ESP alone, and of conf no byte of what was sent", async () => {
    await eventually(() => seen().esp > before.esp + 100);
    const now = seen();
    expect(now.vudp - before.vudp).toBe(0);
    if (suite.level === "conf") expect(now.plaintext - before.plaintext).toBe(0);
    // or the text would not be found in what it is looked for in
    else expect(now.plaintext - before.plaintext).toBeGreaterThan(3);
    for (const end of ends) {
      const drops = await end.drops();
      for (const reason of [
        "esp_unknown",
        "esp_source",
        "esp_other_vnet",
        "stale_pass",
        "security",
      ])
        expect(drops[reason] ?? 0, `${end.name}: ${reason}`).toBe(0);
      for (const sa of await end.ns.run.esp("stats"))
        expect(sa).toMatchObject({ replayErrors: 0, replayWindowErrors: 0, integrityErrors: 0 });
    }
  });
});
