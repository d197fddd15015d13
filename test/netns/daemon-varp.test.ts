// SPDX-License-Identifier: Apache-2.0
/**
 * VARP on the wire: requests are answered, new MACs are announced at once, unknown ones asked for
 * within limits, announces believed within the rules; entries age without a daemon.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VarpEntry, VifInfo } from "../../src/api/contract.js";
import { macToBytes } from "../../src/base/mac.js";
import { parseAddress } from "../../src/base/address.js";
import { vnetIdToBytes } from "../../src/base/vnet-id.js";
import { decodeHello, encodeHello } from "../../src/wire/hello.js";
import { decodeVarp, encodeVarp, type VarpMessage } from "../../src/wire/varp.js";
import { Lab, eventually, type Capture, type Guest, type Host } from "../lib/lab.js";
import { python } from "../lib/wire.js";
import { callApi, longId } from "./world.js";

let lab: Lab;
let a: Host;
/** a host without vnetd: speaks VARP by hand */
let stranger: Host;
let guest: Guest;
const vnet = vnetIdToBytes(longId("97"));

async function api<T>(method: string, params: object = {}): Promise<T> {
  const answer = await callApi(a, `${JSON.stringify({ v: 1, id: 1, method, params })}\n`);
  if (answer?.["error"] !== undefined) throw new Error(JSON.stringify(answer["error"]));
  return answer?.["result"] as T;
}
const varpOf = async (vmac: string): Promise<VarpEntry | undefined> =>
  (await api<VarpEntry[]>("varp")).find((entry) => entry.vmac === vmac);

/** Sends a UDP datagram from the stranger's port 4000. */
const send = (message: Uint8Array, to?: string): Promise<void> => sendAll([message], to);
async function sendAll(messages: readonly Uint8Array[], to = "10.66.1.1"): Promise<void> {
  const hex = JSON.stringify(messages.map((each) => Buffer.from(each).toString("hex")));
  const program = `
    const s = require("node:dgram").createSocket("udp4");
    s.bind(4000, "10.66.1.66", () => {
      s.setMulticastInterface("10.66.1.66");
      let left = 0;
      for (const hex of ${hex}) {
        left += 1;
        s.send(Buffer.from(hex, "hex"), 1798, "${to}", () => --left === 0 && s.close());
      }
    });`;
  await stranger.exec([process.execPath, "-e", program]);
}
const request = (vmac: string): Buffer =>
  encodeVarp({
    opcode: "request",
    vnet,
    vmac: macToBytes(vmac),
    address: parseAddress("10.66.1.66"),
  });
const announce = (
  vmac: string,
  care = "10.66.1.66",
  trailing: Uint8Array = new Uint8Array(),
): Buffer =>
  encodeVarp(
    { opcode: "announce", vnet, vmac: macToBytes(vmac), address: parseAddress(care) },
    trailing,
  );

/** the guest's MAC, and one that nobody has */
const present = "02:00:00:00:00:01";
const absent = "02:00:00:00:00:99";

const hex2 = (n: number): string => n.toString(16).padStart(2, "0");
/** messages counted with this reason, in vnet 97 or in none */
async function dropped(reason: string, id: string | null = longId("97")): Promise<number> {
  const { drops } = await api<StatusInfo>("status");
  const rows = drops.filter((row) => row.reason === reason && row.vnet === id);
  return rows.reduce((sum, { frames }) => sum + frames, 0);
}

interface Heard extends VarpMessage {
  ttl: number;
  destination: string;
  destinationPort: number;
  sourcePort: number;
}

/** The VARP messages that a sent, in a capture of Ethernet frames. */
function varpIn(capture: Capture): Heard[] {
  return capture.packets.flatMap(({ data }) => {
    const frame = Buffer.from(data);
    const decoded = decodeVarp(frame.subarray(42, 14 + frame.readUInt16BE(16)));
    if (!decoded.ok) return [];
    return [
      {
        ...decoded.message,
        ttl: frame[22] ?? 0,
        destination: frame.subarray(30, 34).join("."),
        sourcePort: frame.readUInt16BE(34),
        destinationPort: frame.readUInt16BE(36),
      },
    ];
  });
}

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  stranger = await lab.host("s", { underlay: "10.66.1.66/24" });
  await a.startDaemon({
    config:
      "defaultVnets: false\nageingSeconds: 4\nhelloSeconds: 600\nlimits:\n  entriesPerHost: 16\n",
    args: ["--metrics-listen", "127.0.0.1:11798"],
  });
  await a.vnetd(["attach", "eth0"]);
  await a.vnetd(["vnet-create", "97"]);
  guest = await a.guest("g", {
    bridge: "vnet0097",
    address: "10.0.0.1/24",
    mac: "02:00:00:00:00:01",
  });
});
afterAll(() => lab.close());

const fromA = "udp port 1798 and src host 10.66.1.1";

describe("requests", () => {
  it("for a local MAC are answered by unicast to port 1798, wherever they came from", async () => {
    await guest.tryExec("ping -c 1 -W 0.1 10.0.0.200");
    const capture = await stranger.capture("eth0", fromA);
    await send(request("02:00:00:00:00:01"));
    // the guest may be announced to the group meanwhile
    const answer = await eventually(() =>
      varpIn(capture).find(({ destination }) => destination === "10.66.1.66"),
    );
    await capture.stop();
    expect(answer).toMatchObject({
      opcode: "announce",
      destination: "10.66.1.66",
      destinationPort: 1798,
      sourcePort: 1798,
      ttl: 64,
    });
    expect(Buffer.from(answer?.address ?? []).toString("hex")).toBe(
      Buffer.from(parseAddress("10.66.1.1")).toString("hex"),
    );
    expect(answer?.trailing).toHaveLength(0);
  });

  it("to the group are answered too, also for the vnetif's own MAC", async () => {
    const vmac = await a.mac("vnif0097");
    const capture = await stranger.capture("eth0", fromA);
    await send(request(vmac), "224.10.0.1");
    await eventually(() =>
      varpIn(capture).some((m) => m.opcode === "announce" && m.destination === "10.66.1.66"),
    );
    await capture.stop();
  });

  it("for a MAC that is not here are not answered", async () => {
    const capture = await stranger.capture("eth0", fromA);
    await send(request("02:00:00:00:00:99"));
    await send(request("02:00:00:00:00:01"));
    // the host announces its bridge's own MAC to the group when it comes up
    const answers = (): Heard[] =>
      varpIn(capture).filter(({ destination }) => destination === "10.66.1.66");
    await eventually(() => answers().length > 0);
    await capture.stop();
    expect(answers().map(({ vmac }) => vmac[5])).toEqual([1]);
  });
});

describe("announces", () => {
  it("leave at once to the group when a MAC appears here, TTL 1", async () => {
    const capture = await stranger.capture("eth0", fromA);
    const fresh = await a.guest("fresh", {
      bridge: "vnet0097",
      address: "10.0.0.5/24",
      mac: "02:00:00:00:00:05",
    });
    await fresh.tryExec("ping -c 1 -W 0.1 10.0.0.200");
    // whether its port or its frame comes first: the port's MAC is asked for before it is announced
    const ofFresh = (): Heard | undefined =>
      varpIn(capture).find(({ opcode, vmac }) => opcode === "announce" && vmac[5] === 5);
    await eventually(ofFresh);
    await capture.stop();
    const found = ofFresh();
    expect(found).toMatchObject({
      opcode: "announce",
      destination: "224.10.0.1",
      destinationPort: 1798,
      ttl: 1,
    });
  });

  it("enter a MAC, which traffic then goes to directly", async () => {
    await send(announce("02:00:00:00:00:42"));
    expect(await eventually(() => varpOf("02:00:00:00:00:42"))).toMatchObject({
      address: "10.66.1.66",
      state: "announced",
    });
    const capture = await stranger.capture("eth0", "udp port 1798 and dst host 10.66.1.66");
    await guest.exec("ip neigh replace 10.0.0.42 lladdr 02:00:00:00:00:42 dev eth0");
    await guest.tryExec("ping -c 1 -W 0.1 10.0.0.42");
    await eventually(() => capture.packets.length > 0);
    await capture.stop();
  });

  it("may name another host than their sender, and have bytes behind them", async () => {
    await send(announce("02:00:00:00:00:43", "10.66.1.67", Buffer.from("something else")));
    expect(await eventually(() => varpOf("02:00:00:00:00:43"))).toMatchObject({
      address: "10.66.1.67",
    });
  });

  it.each([
    ["a group MAC", "refused_group_mac", announce("03:00:00:00:00:50")],
    ["no MAC", "varp_bad_address", announce("00:00:00:00:00:00")],
    ["a group's address", "varp_bad_address", announce("02:00:00:00:00:50", "224.10.0.1")],
    ["loopback", "varp_bad_address", announce("02:00:00:00:00:50", "127.0.0.1")],
    ["our own address", "varp_bad_address", announce("02:00:00:00:00:50", "10.66.1.1")],
    ["an IPv6 address", "varp_bad_address", announce("02:00:00:00:00:50", "2001:db8::1")],
  ])("that name %s are not believed, and counted as %s", async (_, reason, message) => {
    const counted = await dropped(reason);
    const before = (await api<VarpEntry[]>("varp")).map(({ vmac }) => vmac).sort();
    await send(message);
    await send(announce("02:00:00:00:00:60"));
    await eventually(() => varpOf("02:00:00:00:00:60"));
    const after = (await api<VarpEntry[]>("varp")).map(({ vmac }) => vmac);
    expect(
      after.filter((vmac) => vmac !== "02:00:00:00:00:60").every((vmac) => before.includes(vmac)),
    ).toBe(true);
    expect(await dropped(reason)).toBe(counted + 1);
    await api("varpFlush");
  });

  it("of the vnetif's own MAC are not believed, and counted", async () => {
    const counted = await dropped("varp_local");
    await send(announce(await a.mac("vnif0097")));
    await eventually(async () => (await dropped("varp_local")) === counted + 1);
  });

  it("for other hosts are limited, and what is too much is counted", async () => {
    const macs = Array.from({ length: 80 }, (_, n) => `02:00:00:00:01:${hex2(n)}`);
    await sendAll(macs.map((mac) => announce(mac, "10.66.1.68")));
    // a burst of 64, some of which is used; what else is too much is so for the host announced
    await eventually(async () => {
      const tooMany = await dropped("refused_host_limit");
      return tooMany + (await dropped("varp_rate")) === 80 - 16;
    });
    expect(await dropped("varp_rate")).toBeGreaterThan(8);
    await api("varpFlush");
  });

  it("beyond a host's limit of MACs are counted as frames are", async () => {
    const counted = await dropped("refused_host_limit");
    const macs = Array.from({ length: 24 }, (_, n) => `02:00:00:00:02:${hex2(n)}`);
    await sendAll(macs.map((mac) => announce(mac)));
    await eventually(async () => (await dropped("refused_host_limit")) === counted + 8);
    await api("varpFlush");
  });

  it("for a vnet that is not here are counted without one", async () => {
    const message = announce("02:00:00:00:00:50");
    message.writeUInt16BE(0x1235, 18);
    await send(message);
    await eventually(async () => (await dropped("varp_unknown_vnet", null)) === 1);
  });

  it("take no MAC from a port of this host that is heard, and take it when the port is gone or silent", async () => {
    const vmac = "02:00:00:00:00:01";
    const local = async (): Promise<boolean> =>
      (await api<VifInfo[]>("vifs")).some((vif) => vif.vmac === vmac);
    const pinging = guest.startPing("10.0.0.200", { intervalMs: 100 });
    await eventually(local);
    for (let at = 0; at < 3; at++) await send(announce(vmac));
    expect(await local()).toBe(true);
    expect(await varpOf(vmac)).toBeUndefined();
    // the port goes: believed at once
    await guest.unplug();
    await send(announce(vmac));
    await eventually(() => varpOf(vmac), { what: "the announce to be believed" });
    await a.exec(`ip link set ${guest.port} master vnet0097 up`);
    await eventually(local, { what: "a frame to move it back" });
    await pinging.stop();
    // the guest may still ask for a neighbour now and then, which is no silence
    await eventually(
      async () => {
        await send(announce(vmac));
        return varpOf(vmac);
      },
      { what: "the announce to be believed after silence", timeoutMs: 8000 },
    );
  });
});

describe("requests of ours", () => {
  it("go out for unknown MACs that traffic goes to, backing off", async () => {
    const capture = await stranger.capture("eth0", fromA);
    await guest.exec("ip neigh replace 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth0");
    await guest.tryExec("ping -c 40 -i 0.05 -W 0.1 10.0.0.77");
    await capture.stop();
    const asked = varpIn(capture).filter(
      ({ opcode, vmac }) => opcode === "request" && vmac[5] === 0x77,
    );
    expect(asked.length).toBeGreaterThanOrEqual(2);
    expect(asked.length).toBeLessThanOrEqual(4);
    expect(asked[0]).toMatchObject({ destination: "224.10.0.1", ttl: 1 });
  });
});

const said = (change: object = {}): Buffer =>
  encodeHello({
    hostId: "ab".repeat(16),
    bootNonce: "01".repeat(8),
    capabilities: 1,
    underlayMtuBytes: 1500,
    hostName: "stranger",
    software: "by hand",
    solicit: false,
    goodbye: false,
    ...change,
  });

describe("hello", () => {
  const names = async (): Promise<string[]> =>
    (await api<{ name: string }[]>("hosts")).map(({ name }) => name);

  it("of an unknown host is answered by unicast with ours, once", async () => {
    const capture = await stranger.capture("eth0", `${fromA} and dst host 10.66.1.66`);
    await send(announce("02:00:00:00:00:a1", "10.66.1.66", said()), "224.10.0.1");
    await eventually(async () => (await names()).includes("stranger"));
    await send(announce("02:00:00:00:00:a1", "10.66.1.66", said()), "224.10.0.1");
    await send(request("02:00:00:00:00:01"));
    await capture.stop(200);
    const hellos = varpIn(capture).map((m) => decodeHello(Buffer.from(m.trailing)));
    const ours = hellos.filter((decoded) => decoded.ok);
    expect(ours).toHaveLength(1);
    expect(ours[0]).toMatchObject({
      hello: { underlayMtuBytes: 1500, goodbye: false, solicit: false },
    });
  });

  it.each([
    ["cut", said().subarray(0, 30)],
    ["of a wrong length", Buffer.from(said()).fill(0xff, 10, 12)],
  ])("that is %s is counted, its announce is taken", async (_, extension) => {
    const counted = await dropped("varp_bad_tlv");
    await send(announce("02:00:00:00:00:a5", "10.66.1.66", extension));
    await eventually(async () => (await dropped("varp_bad_tlv")) === counted + 1);
    expect(await varpOf("02:00:00:00:00:a5")).toMatchObject({ address: "10.66.1.66" });
    await api("varpFlush");
  });

  it("is answered when it asks, and a goodbye is believed", async () => {
    const capture = await stranger.capture("eth0", `${fromA} and dst host 10.66.1.66`);
    await send(announce("02:00:00:00:00:a1", "10.66.1.66", said({ solicit: true })));
    await eventually(() => varpIn(capture).length > 0);
    await capture.stop();
    await send(announce("02:00:00:00:00:a1", "10.66.1.66", said({ goodbye: true })));
    await eventually(async () => (await names()).length === 0);
  });

  it("with our own id from elsewhere is a problem that status tells", async () => {
    const { hostId } = await api<{ hostId: string }>("status");
    await send(announce("02:00:00:00:00:a2", "10.66.1.66", said({ hostId })));
    await eventually(async () =>
      (await api<{ problems: string[] }>("status")).problems.some((text) =>
        text.includes("10.66.1.66"),
      ),
    );
  });
});

describe("a flood of hellos", () => {
  /** Hosts that are not there, each with an id and an address of its own: (count, template, where the id is). */
  const strangers = `
import socket, struct, sys
count, hello, at = int(sys.argv[1]), bytearray.fromhex(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for n in range(count):
    hello[at:at + 4] = struct.pack(">I", n)
    source = socket.inet_aton("10.77.%d.%d" % (n >> 8, n & 255))
    udp = struct.pack(">HHHH", 1798, 1798, 8 + len(hello), 0) + hello
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source
    s.sendto(ip + socket.inet_aton("10.66.1.1") + udp, ("10.66.1.1", 0))
`;

  it("from ever new addresses fills tables to their limits and not the log", async () => {
    const message = announce("02:00:00:00:00:a3", "10.66.1.66", said());
    const at = message.indexOf(Buffer.alloc(16, 0xab));
    const before = a.daemon.stderr.length;
    const argv = ["-c", strangers, "6000", message.toString("hex"), String(at)];
    const result = await stranger.exec([...python, ...argv]);
    expect(result.stderr).toBe("");
    await eventually(() => a.daemon.stderr.includes("too many hosts"));
    expect((await api<unknown[]>("hosts")).length).toBeLessThanOrEqual(1024);
    expect(await dropped("refused_vnet_hosts")).toBeGreaterThan(0);
    const lines = a.daemon.stderr.slice(before).split("\n");
    expect(lines.length).toBeLessThan(40);
  });
});

describe("many at once", () => {
  it("are answered and entered, all of them, and counted", async () => {
    const metrics = async (kind: string, verdict: string): Promise<number> => {
      const fetching =
        'fetch("http://127.0.0.1:11798/metrics").then(async (r) => console.log(await r.text()))';
      const { stdout } = await a.exec([process.execPath, "-e", fetching]);
      const labels = `{kind="${kind}",verdict="${verdict}"}`;
      const line = stdout
        .split("\n")
        .find((text) => text.includes(`received_messages_total${labels}`));
      return Number(line?.split(" ").at(-1) ?? 0);
    };
    const counted = async (): Promise<number[]> => [
      await metrics("request", "answered"),
      await metrics("request", "not_here"),
      await metrics("announce", "taken"),
    ];
    await guest.tryExec("ping -c 1 -W 0.1 10.0.0.200");
    const before = await counted();
    const lost = await dropped("varp_queue_full", null);
    // more than the daemon answers in a second
    const messages = Array.from({ length: 3000 }, (_, n) =>
      n % 3 === 2 ? announce("02:00:00:00:00:42") : request(n % 3 === 1 ? absent : present),
    );
    for (let at = 0; at < messages.length; at += 500) await sendAll(messages.slice(at, at + 500));
    await eventually(
      async () => {
        const after = await counted();
        return after.every((count, at) => count - (before[at] ?? 0) === 1000);
      },
      { what: "1000 of each kind" },
    );
    expect(await dropped("varp_queue_full", null)).toBe(lost);
  });
});

describe("with no daemon", () => {
  it("entries age: traffic goes to the group again", async () => {
    await send(announce("02:00:00:00:00:42"));
    await eventually(() => varpOf("02:00:00:00:00:42"));
    await a.killDaemon("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 4200));
    const capture = await stranger.capture("eth0", fromA);
    await guest.exec("ip neigh replace 10.0.0.42 lladdr 02:00:00:00:00:42 dev eth0");
    await guest.tryExec("ping -c 1 -W 0.1 10.0.0.42");
    await eventually(() => capture.packets.length > 0);
    await capture.stop();
    const group = capture.packets.map(({ data }) => Buffer.from(data).subarray(30, 34).join("."));
    expect(group).toContain("224.10.0.1");
    expect(group).not.toContain("10.66.1.66");
  });

  it("requests are answered, and announces entered", async () => {
    await guest.tryExec("ping -c 1 -W 0.1 10.0.0.200");
    const answers = await stranger.capture("eth0", fromA);
    await send(request(present));
    await eventually(() => varpIn(answers).some(({ opcode }) => opcode === "announce"));
    await answers.stop();
    await send(announce("02:00:00:00:00:42"));
    const frames = await stranger.capture("eth0", "udp port 1798 and dst host 10.66.1.66");
    await eventually(async () => {
      await guest.tryExec("ping -c 1 -W 0.1 10.0.0.42");
      return frames.packets.length > 0;
    });
    await frames.stop();
  });
});
