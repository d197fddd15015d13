// SPDX-License-Identifier: Apache-2.0
/**
 * ESP between two daemons, read by others: by tshark with the kernel's own keys, and by test/lib/esp.ts. What is on the
 * wire is what RFC 4303 says; without the keys there is nothing of what was sent on a wire of `conf`.
 *
 * tshark 4.0 knows neither GMAC nor extended sequence numbers: what is of GMAC, and every integrity check value
 * is read by test/lib/esp.ts alone; all else by both.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, run, type Host } from "../lib/lab.js";
import { macBytes, vnetBytes } from "../lib/bytes.js";
import { open, sasOf, type Opened, type Sa } from "../lib/esp.js";
import { decodePcap } from "../lib/pcap.js";
import { quick, quickHosts, quickVnet, reaches } from "./secure.js";

const vnets = [
  { id: "81", security: "conf", suite: "sha1", tshark: "AES-CBC [RFC3602]" },
  { id: "82", security: "auth", suite: "sha1", tshark: "NULL" },
  { id: "83", security: "conf", suite: "gcm", tshark: "AES-GCM with 16 octet ICV [RFC4106]" },
  { id: "84", security: "auth", suite: "gcm", tshark: undefined },
] as const;
type Vnet = (typeof vnets)[number];

const known = "nobodyread";
const espProtocol = 50;
const etherBytes = 14;
const ipBytes = 20;
const udpBytes = 8;
const vudpBytes = 22;

/** A packet on a's wire. */
interface Wire {
  source: string;
  destination: string;
  esp: Buffer;
}

/** What tshark says of one. */
interface Row {
  spi: number;
  sequence: number;
  padding: string;
  paddingBytes: number;
  nextHeader: number;
  port: number;
  /** of UDP */
  payload: string;
}

let lab: Lab;
let hosts: [Host, Host];
let pcap: Buffer;
let wire: Wire[];
const macs = new Map<string, Buffer>();
/** by SPI; of each vnet those that the vnet brought */
const sas = new Map<number, Sa>();
const spisOf = new Map<string, Set<number>>();

beforeAll(async () => {
  lab = await Lab.create();
  // those that an exchange replaces stay, so that all that was captured can be read
  const config = `${quick}keys:\n  drainSeconds: 300\n`;
  hosts = (await quickHosts(lab, ["a", "b"], { secret: randomBytes(32), config })) as [Host, Host];
  const [a, b] = hosts;
  const capture = await a.capture("eth0", "not arp");
  for (const { id, security, suite } of vnets) {
    await quickVnet(hosts, id, { security, suite });
    await reaches(a, `10.${id}.0.2`);
    // of different lengths, for different padding
    for (const size of ["64", "67", "70"])
      await a.exec(
        `ping -n -c 1 -W 20 -p ${Buffer.from(known).toString("hex")} -s ${size} 10.${id}.0.2`,
      );
    macs.set(`10.66.1.1 ${id}`, macBytes(await a.mac(`vnif${id}`)));
    macs.set(`10.66.1.2 ${id}`, macBytes(await b.mac(`vnif${id}`)));
    const found = (await sasOf(a)).filter(({ spi }) => !sas.has(spi));
    for (const sa of found) sas.set(sa.spi, sa);
    spisOf.set(id, new Set(found.map(({ spi }) => spi)));
  }
  pcap = await capture.stop();
  wire = decodePcap(pcap).packets.flatMap(({ data }) => {
    if (data.readUInt16BE(12) !== 0x0800 || data[23] !== espProtocol) return [];
    const address = (at: number): string => data.subarray(at, at + 4).join(".");
    const esp = data.subarray(etherBytes + ipBytes, etherBytes + data.readUInt16BE(16));
    return [{ source: address(26), destination: address(30), esp }];
  });
});
afterAll(() => lab.close());

const spiOf = ({ esp }: Wire): number => esp.readUInt32BE(0);
const wireOf = ({ id }: Vnet): Wire[] => wire.filter((each) => spisOf.get(id)?.has(spiOf(each)));
const opened = (packet: Wire): Opened => open(sas.get(spiOf(packet))!, packet.esp);
const quoted = (parts: readonly string[]): string => parts.map((part) => `"${part}"`).join(",");

/** A line for each SA as Wireshark's file `esp_sa` has it, made of `ip xfrm state`. */
function saLines(readable: readonly Vnet[]): string[] {
  return readable.flatMap(({ id, tshark = "" }) =>
    [...spisOf.get(id)!].map((spi) => {
      const { source, destination, encryption, authentication, aead } = sas.get(spi)!;
      const key = (bytes?: Buffer): string =>
        bytes === undefined || bytes.length === 0 ? "" : `0x${bytes.toString("hex")}`;
      const mac = authentication === undefined ? "NULL" : "HMAC-SHA-1-96 [RFC2404]";
      const ends = ["IPv4", source, destination, `0x${spi.toString(16)}`];
      const keys = [tshark, key(aead?.key ?? encryption?.key), mac, key(authentication?.key)];
      return quoted([...ends, ...keys]);
    }),
  );
}

async function readByTshark(readable: readonly Vnet[]): Promise<Row[]> {
  const file = join(lab.directory, "wire.pcap");
  writeFileSync(file, pcap);
  const settings = join(lab.directory, "wireshark");
  mkdirSync(settings, { recursive: true });
  writeFileSync(join(settings, "esp_sa"), `${saLines(readable).join("\n")}\n`);
  const fields = ["esp.spi", "esp.sequence", "esp.pad", "esp.pad_len", "esp.protocol"];
  fields.push("udp.dstport", "udp.payload");
  const { stdout } = await run(
    [
      ...["tshark", "-n", "-r", file, "-Y", "esp", "-T", "fields"],
      ...["-o", "esp.enable_encryption_decode:TRUE"],
      ...fields.flatMap((field) => ["-e", field]),
    ],
    { env: { WIRESHARK_CONFIG_DIR: settings } },
  );
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [spi = "", sequence, padding = "", paddingBytes, nextHeader, port, payload = ""] =
        line.split("\t");
      return {
        ...{ spi: Number(spi), sequence: Number(sequence), padding, payload },
        ...{ paddingBytes: Number(paddingBytes), nextHeader: Number(nextHeader) },
        port: Number(port),
      };
    });
}

const counting = (count: number): string =>
  Buffer.from(Array.from({ length: count }, (_, at) => at + 1)).toString("hex");

describe("the SAs", () => {
  it("are one each way for a vnet, in mode BEET with extended numbers, and no key is there twice", () => {
    for (const { id } of vnets) {
      const of = [...spisOf.get(id)!].map((spi) => sas.get(spi)!);
      expect(new Set(of.map(({ source }) => source))).toEqual(new Set(["10.66.1.1", "10.66.1.2"]));
      expect(of.every(({ mode, esn }) => mode === "beet" && esn)).toBe(true);
    }
    const keys = [...sas.values()].map(({ authentication, aead }) =>
      (authentication ?? aead)!.key.toString("hex"),
    );
    expect(new Set(keys).size).toBe(sas.size);
  });

  it("are all that there is on the wire, and numbers are 1, 2, 3 …", () => {
    expect(wire.length).toBeGreaterThan(0);
    for (const spi of sas.keys()) {
      const sequences = wire
        .filter((each) => spiOf(each) === spi)
        .map(({ esp }) => esp.readUInt32BE(4))
        .sort((one, other) => one - other);
      expect(sequences).toEqual(sequences.map((_, at) => at + 1));
    }
    expect(wire.filter((each) => !sas.has(spiOf(each)))).toEqual([]);
    for (const vnet of vnets) expect(wireOf(vnet).length).toBeGreaterThanOrEqual(8);
  });
});

describe.each(vnets)("$security $suite", (vnet) => {
  const frames = (): { from: string; payload: Buffer }[] =>
    wireOf(vnet).map((packet) => ({
      from: packet.source,
      payload: opened(packet).payload.subarray(udpBytes),
    }));

  it("each packet is right by its integrity check value, and holds a datagram to 1798", () => {
    for (const packet of wireOf(vnet)) {
      const { isGood, padding, nextHeader, payload } = opened(packet);
      expect(isGood).toBe(true);
      expect(nextHeader).toBe(17);
      expect(padding.toString("hex")).toBe(counting(padding.length));
      expect(payload.readUInt16BE(2)).toBe(1798);
      expect(payload.readUInt16BE(4)).toBe(payload.length);
    }
  });

  it("in which is VUDP of this vnet, and in that the frame that was sent", () => {
    const vudp = frames().filter(({ payload }) => payload.readUInt16BE(0) === 2);
    const id = vnetBytes(vnet.id);
    for (const { from, payload } of vudp) {
      expect(payload.subarray(6, vudpBytes)).toEqual(id);
      const frame = payload.subarray(vudpBytes);
      expect(frame.subarray(6, 12)).toEqual(macs.get(`${from} ${vnet.id}`));
    }
    const pings = vudp.filter(({ payload }) => payload.includes(known));
    // three, and their answers
    expect(pings).toHaveLength(6);
    // and VARP, of this vnet
    for (const { payload } of frames()) expect(payload.includes(id)).toBe(true);
  });

  const isSecret = vnet.security === "conf";
  it(`${isSecret ? "hides" : "does not hide"} what was sent from who has no key`, () => {
    // five bytes of it in a row, wherever they begin
    const pieces = Array.from(known, (_, at) => known.repeat(2).slice(at, at + 5));
    const seen = wireOf(vnet).filter(({ esp }) => pieces.some((piece) => esp.includes(piece)));
    expect(seen).toHaveLength(isSecret ? 0 : 6);
  });
});

it("nothing of a secure vnet is on the wire but ESP, hellos and key messages", () => {
  const vudp = decodePcap(pcap).packets.filter(
    ({ data }) =>
      data.length > 44 &&
      data.readUInt16BE(12) === 0x0800 &&
      data[23] === 17 &&
      data.readUInt16BE(36) === 1798 &&
      data.readUInt16BE(42) === 2,
  );
  const ids = vnets.map(({ id }) => vnetBytes(id));
  expect(vudp.filter(({ data }) => ids.some((id) => data.includes(id)))).toEqual([]);
});

it("tshark reads the same with the kernel's keys", async () => {
  const readable = vnets.filter(({ tshark }) => tshark !== undefined);
  const rows = await readByTshark(readable);
  for (const vnet of readable) {
    const ours = wireOf(vnet);
    const theirs = rows.filter(({ spi }) => spisOf.get(vnet.id)!.has(spi));
    const expected = ours.map((packet): Row => {
      const { spi, sequence, padding, payload } = opened(packet);
      return {
        ...{ spi, sequence, padding: padding.toString("hex"), paddingBytes: padding.length },
        ...{ nextHeader: 17, port: 1798, payload: payload.subarray(udpBytes).toString("hex") },
      };
    });
    expect(theirs).toEqual(expected);
    const pings = theirs.filter(({ payload }) =>
      payload.includes(Buffer.from(known).toString("hex")),
    );
    expect(pings).toHaveLength(6);
    const lengths = new Set(theirs.map(({ paddingBytes }) => paddingBytes));
    expect(lengths.size).toBeGreaterThan(1);
    for (const { padding, paddingBytes } of theirs) expect(padding).toBe(counting(paddingBytes));
  }
});

it("without keys tshark reads none of conf", async () => {
  const rows = await readByTshark([]);
  const conf = vnets.filter(({ security }) => security === "conf");
  const theirs = rows.filter(({ spi }) => conf.some(({ id }) => spisOf.get(id)!.has(spi)));
  expect(theirs.length).toBeGreaterThan(0);
  for (const { payload } of theirs) expect(payload).toBe("");
});
