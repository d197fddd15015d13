// SPDX-License-Identifier: Apache-2.0
/**
 * Lists on the wire (src/wire/varp-list.ts): hosts that know one another say all of their vnets in one hello and many MACs in
 * one announce, ask for and answer many in one message, judge each entry like a message of its own, and go back to single ones as
 * soon as an original is heard.
 *
 *   a, b: vnets 10, 20, 30    c: vnets 20, 30, so that the vnet in front of a list is often one that it does not have
 *   s: speaks VARP by hand    o: an original in vnet 20
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiClient } from "../../src/api/client.js";
import type { HostInfo, StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { parseAddress } from "../../src/base/address.js";
import { macFromBytes, macToBytes } from "../../src/base/mac.js";
import { vnetIdFromBytes, vnetIdToBytes } from "../../src/base/vnet-id.js";
import { decodeHello, encodeOne } from "../../src/wire/hello.js";
import { encodeMacs, entriesOf, listOf, type VnetMac } from "../../src/wire/varp-list.js";
import { decodeVarp, encodeVarp, type VarpMessage } from "../../src/wire/varp.js";
import { Lab, eventually, type Capture, type Host } from "../lib/lab.js";
import { startOriginal, type OriginalHost } from "../lib/original.js";
import { attachedHosts, longId } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let c: Host;
let s: Host;
let original: OriginalHost | undefined;
const clients = new Map<Host, ApiClient>();

const call = async <T>(host: Host, method: string, params: object = {}): Promise<T> =>
  (await clients.get(host)!.request(method as "varp", params as never)) as T;
const long = { timeoutMs: 30_000 };
const fromA = "udp port 1798 and src host 10.66.1.1";
const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);
const macOf = (series: number, n: number): string =>
  `02:00:00:${[series, n >> 8, n & 255].map((byte) => byte.toString(16).padStart(2, "0")).join(":")}`;
const entry = (vnet: string, vmac: string): VnetMac => ({
  vnet: vnetIdToBytes(longId(vnet)),
  vmac: macToBytes(vmac),
});

interface Heard extends VarpMessage {
  destination: string;
  /** with the one in front; of a message that is no list that alone */
  about: { vnet: string; mac: string }[];
  hello: boolean;
  bytes: number;
}

function heard(capture: Capture): Heard[] {
  return capture.packets.flatMap(({ data }) => {
    const frame = Buffer.from(data);
    const bytes = frame.subarray(42, 14 + frame.readUInt16BE(16));
    const decoded = decodeVarp(bytes);
    if (!decoded.ok) return [];
    const { message } = decoded;
    const list = listOf(message.trailing);
    const others = list === undefined ? [] : entriesOf(list);
    const about = [message, ...others].map(({ vnet, vmac }) => ({
      vnet: vnetIdFromBytes(vnet),
      mac: macFromBytes(vmac),
    }));
    const hello = decodeHello(Buffer.from(message.trailing)).ok;
    const destination = frame.subarray(30, 34).join(".");
    return [{ ...message, about, hello, destination, bytes: bytes.length }];
  });
}

async function sendByHand(message: Uint8Array, to = "10.66.1.1"): Promise<void> {
  const program = `
    const socket = require("node:dgram").createSocket("udp4");
    socket.bind(1798, "10.66.1.66", () =>
      socket.send(Buffer.from("${Buffer.from(message).toString("hex")}", "hex"), 1798, "${to}", () => socket.close()));`;
  await s.exec([process.execPath, "-e", program]);
}
const byHand = (
  entries: readonly VnetMac[],
  { opcode = "announce", care = "10.66.1.66", trailing }: ByHand = {},
): Buffer => {
  const [head, ...others] = entries;
  const address = parseAddress(care);
  return encodeVarp({ opcode, ...head!, address }, trailing ?? encodeMacs(others));
};
interface ByHand {
  opcode?: "announce" | "request";
  care?: string;
  trailing?: Buffer;
}

async function dropped(host: Host, reason: string): Promise<number> {
  const { drops } = await call<StatusInfo>(host, "status");
  return drops.filter((row) => row.reason === reason).reduce((sum, { frames }) => sum + frames, 0);
}
/** the MACs of a series that a host has at an address, by vnet */
async function known(host: Host, series: number, address: string): Promise<string[]> {
  const start = macOf(series, 0).slice(0, 11);
  const table = await call<VarpEntry[]>(host, "varp");
  return table
    .filter((each) => each.vmac.startsWith(start) && each.address === address)
    .map(({ vnet, vmac }) => `${vnet} ${vmac}`)
    .sort();
}
/**
 * So many MACs are heard on `a` at the same moment, in two vnets by turns, by frames for a MAC that lives on `b`: whoever else knows
 * them has it from announces.
 */
async function appear(series: number, count: number): Promise<string[]> {
  const id = (n: number): string => (n % 2 === 0 ? "20" : "30");
  const target = macOf(8, 8);
  const program = `
import socket
ways = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW) for _ in range(2)]
for way, name in zip(ways, ("vnif0020", "vnif0030")):
    way.bind((name, 0))
for n in range(${count}):
    source = bytes([2, 0, 0, ${series}, n >> 8, n & 255])
    ways[n % 2].send(bytes.fromhex("${target.replaceAll(":", "")}") + source + b"\\x88\\xb6" + bytes(46))
`;
  await a.exec(["python3", "-c", program]);
  return range(count)
    .map((n) => `${longId(id(n))} ${macOf(series, n)}`)
    .sort();
}

beforeAll(async () => {
  lab = await Lab.create();
  const config = "defaultVnets: false\nhelloSeconds: 2\nlimits: {entriesPerHost: 512}\n";
  [a, b, c] = (await attachedHosts(lab, ["a", "b", "c"], { config })) as [Host, Host, Host];
  s = await lab.host("s", { underlay: "10.66.1.66/24" });
  for (const host of [a, b, c]) {
    clients.set(host, await ApiClient.connect({ runDir: host.runDir, answerTimeoutMs: 60_000 }));
    const ids = host === c ? ["20", "30"] : ["10", "20", "30"];
    const vnets = ids.map((id) => `- {id: "${id}", bridge: none}`).join("\n");
    await call(host, "vnetCreate", { text: `vnets:\n${vnets}\n`, source: "test" });
  }
});
beforeAll(async () => {
  for (const id of ["20", "30"]) {
    await a.exec(["ip", "link", "set", `vnif00${id}`, "up"]);
    await call(b, "vifAdd", { vnet: longId(id), vmac: macOf(8, 8) });
  }
  await eventually(async () => (await known(a, 8, "10.66.1.2")).length === 2, long);
});
afterAll(async () => {
  for (const client of clients.values()) client.close();
  await original?.stop();
  await lab.close();
});

describe("hosts of ours alone", () => {
  it("say all of their vnets in one hello, which is enough to stay known", async () => {
    const capture = await c.capture("eth0", `${fromA} and dst host 224.10.0.1`);
    const isList = ({ hello, about }: Heard): boolean => hello && about.length === 3;
    // longer than the three intervals after which a silent host is forgotten, and no other hello between them
    const last = (): Heard[] =>
      heard(capture)
        .filter(({ hello }) => hello)
        .slice(-4);
    await eventually(() => last().length === 4 && last().every(isList), {
      timeoutMs: 60_000,
      what: "four hellos that are lists",
    });
    await capture.stop();
    const about = last()[0]!.about.map(({ vnet }) => vnet);
    expect(about.sort()).toEqual(["10", "20", "30"].map(longId));
    const seen = await call<HostInfo[]>(c, "hosts");
    const ofA = seen.find(({ paths }) => paths.some(({ address }) => address === "10.66.1.1"));
    expect([...ofA!.vnets].map((id) => longId(id.slice(-2))).sort()).toEqual(
      ["20", "30"].map(longId),
    );
  });

  it("announce the first MAC by itself and many others in few messages, and all is known everywhere", async () => {
    const capture = await c.capture("eth0", `${fromA} and dst host 224.10.0.1`);
    const wanted = await appear(1, 300);
    for (const host of [b, c])
      await eventually(
        async () => (await known(host, 1, "10.66.1.1")).join() === wanted.join(),
        long,
      );
    const announces = (): Heard[] =>
      heard(capture).filter(({ opcode, hello }) => opcode === "announce" && !hello);
    await eventually(() => announces().flatMap(({ about }) => about).length >= 300, long);
    await capture.stop();
    expect(announces()[0]!.about).toHaveLength(1);
    // five or six of 73, and what a slow machine tears apart
    expect(announces().length).toBeLessThan(100);
    expect(Math.max(...announces().map(({ bytes }) => bytes))).toBeLessThanOrEqual(512);
    const largest = announces().reduce((x, y) => (y.about.length > x.about.length ? y : x));
    expect(new Set(largest.about.map(({ vnet }) => vnet)).size).toBe(2);
  });
});

describe("a list by hand", () => {
  it("that asks for many is answered in one message with those that are here", async () => {
    const capture = await s.capture("eth0", `${fromA} and dst host 10.66.1.66`);
    const asked = [entry("20", macOf(9, 9)), entry("20", macOf(1, 0)), entry("30", macOf(1, 1))];
    await sendByHand(byHand([entry("77", macOf(9, 9)), ...asked], { opcode: "request" }));
    await eventually(() => heard(capture).length > 0, long);
    await capture.stop();
    expect(heard(capture)[0]).toMatchObject({
      opcode: "announce",
      about: [
        { vnet: longId("20"), mac: macOf(1, 0) },
        { vnet: longId("30"), mac: macOf(1, 1) },
      ],
    });
  });

  it("of which nothing is here is counted, and of which a part is here is taken for that", async () => {
    const before = await dropped(a, "varp_unknown_vnet");
    await sendByHand(byHand([entry("77", macOf(2, 1)), entry("78", macOf(2, 2))]));
    await eventually(async () => (await dropped(a, "varp_unknown_vnet")) === before + 1, long);
    await sendByHand(byHand([entry("77", macOf(2, 1)), entry("20", macOf(2, 2))]));
    await eventually(async () => (await known(a, 2, "10.66.1.66")).length === 1, long);
    expect(await dropped(a, "varp_unknown_vnet")).toBe(before + 1);
  });

  it("has each entry judged: group MACs, none, and those that live here are refused, the rest is entered", async () => {
    const reasons = ["refused_group_mac", "varp_bad_address", "varp_local"] as const;
    const before = await Promise.all(reasons.map((reason) => dropped(a, reason)));
    const wrong = ["03:00:00:00:00:01", "00:00:00:00:00:00", await a.mac("vnif0020")];
    const right = [macOf(3, 1), macOf(3, 2)];
    await sendByHand(byHand([right[0]!, ...wrong, right[1]!].map((mac) => entry("20", mac))));
    await eventually(async () => (await known(a, 3, "10.66.1.66")).length === 2, long);
    const after = await Promise.all(reasons.map((reason) => dropped(a, reason)));
    expect(after).toEqual(before.map((count) => count + 1));
  });

  it("of MACs of another host is not believed, though a single announce might be", async () => {
    const before = await dropped(a, "varp_bad_address");
    const entries = [entry("20", macOf(4, 1)), entry("20", macOf(4, 2))];
    await sendByHand(byHand(entries, { care: "10.66.1.67" }));
    await eventually(async () => (await dropped(a, "varp_bad_address")) === before + 1, long);
    expect(await known(a, 4, "10.66.1.67")).toEqual([]);
  });

  it("whose lengths are wrong is counted, and what is in front of it is taken alone", async () => {
    const before = await dropped(a, "varp_bad_tlv");
    const cut = encodeOne(17, Buffer.concat([vnetIdToBytes(longId("20")), Buffer.from([0, 9])]));
    await sendByHand(byHand([entry("20", macOf(5, 1))], { trailing: cut }));
    await eventually(async () => (await known(a, 5, "10.66.1.66")).length === 1, long);
    expect(await dropped(a, "varp_bad_tlv")).toBe(before + 1);
  });

  it("has the limits of frames: what a host has too many of is refused and counted, one by one", async () => {
    const before = await dropped(a, "refused_host_limit");
    const series = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
    for (const at of series)
      await sendByHand(byHand(range(70).map((n) => entry("20", macOf(at, n)))));
    const entered = async (): Promise<number> => {
      const all = await Promise.all(series.map((at) => known(a, at, "10.66.1.66")));
      return all.flat().length;
    };
    await eventually(async () => {
      const refused = (await dropped(a, "refused_host_limit")) - before;
      return refused > 100 && refused + (await entered()) === 700;
    }, long);
  });
});

it("an original that is heard gets single announces of all", async () => {
  const place = await lab.host("o", { underlay: "10.66.1.11/24" });
  const guest = { vnet: "20", mac: "aa:00:00:00:04:11", ip: "192.168.4.11" };
  original = await startOriginal({
    netns: place.netns,
    address: "10.66.1.11",
    vnets: ["30"],
    guests: [guest],
  });
  // nobody answers, and it has been heard
  await original.ping({ from: guest.ip, to: "192.168.4.1", count: 1 });
  await eventually(
    async () =>
      (await call<VarpEntry[]>(a, "varp")).some(({ vmac }) => vmac === guest.mac) || undefined,
    long,
  );
  const capture = await c.capture("eth0", `${fromA} and dst host 224.10.0.1`);
  // who is there is looked at every two seconds
  const single = ({ hello, about }: Heard): boolean => hello && about.length === 1;
  await eventually(() => heard(capture).filter(single).length > 2, long);
  const wanted = await appear(6, 50);
  await eventually(async () => {
    const table = await original!.table();
    return (
      table.filter(({ mac, address }) => mac.startsWith("02:00:00:06") && address === "10.66.1.1")
        .length === wanted.length
    );
  }, long);
  await capture.stop();
  await original.expectNothingRejected();
});
