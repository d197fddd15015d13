// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's log as machines read it: JSON where stderr is a pipe, with the vnet and the host as fields;
 * a reload changes level and form; what others send cannot fill it; no secret is in it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo } from "../../src/api/contract.js";
import { macToBytes } from "../../src/base/mac.js";
import { parseAddress } from "../../src/base/address.js";
import { vnetIdToBytes } from "../../src/base/vnet-id.js";
import { logEvents, logLevels } from "../../src/log-events.js";
import { encodeHello } from "../../src/wire/hello.js";
import { encodeVarp } from "../../src/wire/varp.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { python } from "../lib/wire.js";
import { longId, startDaemon } from "./world.js";

interface LogRecord {
  ts: string;
  level: string;
  event: string;
  msg: string;
  vnet?: string;
  host?: string;
  device?: string;
  reason?: string;
  held?: number;
}

let lab: Lab;
let a: Host;
/** a host without vnetd */
let stranger: Host;
let config: string;
const base =
  "defaultVnets: false\nhelloSeconds: 600\nlimits: {hostsPerVnet: 4}\nmetricsListen: off\n";

/** Every whole line that is written so far; one that is not JSON fails the test. */
function records(): LogRecord[] {
  const lines = a.daemon.stderr.split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as LogRecord);
}
const of = (event: string): LogRecord[] => records().filter((each) => each.event === event);
const first = (event: string): Promise<LogRecord> =>
  eventually(
    () => {
      const [record] = of(event);
      if (record === undefined) throw new Error(`no record of ${event}`);
      return record;
    },
    { timeoutMs: 20_000 },
  );

async function reload(text: string): Promise<void> {
  writeFileSync(config, base + text);
  await a.vnetd(["reload"]);
}

/** VARP messages with a hello, by ever new hosts at ever new addresses: (count, message, where the host's id is). */
const strangers = `
import socket, struct, sys
count, hello, at = int(sys.argv[1]), bytearray.fromhex(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for n in range(count):
    if at >= 0: hello[at:at + 4] = struct.pack(">I", n)
    source = socket.inet_aton("10.77.%d.%d" % (n >> 8, n & 255))
    udp = struct.pack(">HHHH", 1798, 1798, 8 + len(hello), 0) + hello
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source
    s.sendto(ip + socket.inet_aton("10.66.1.1") + udp, ("10.66.1.1", 0))
`;
const hello = encodeHello({
  hostId: "ab".repeat(16),
  bootNonce: "01".repeat(8),
  capabilities: 1,
  underlayMtuBytes: 1500,
  hostName: "stranger",
  software: "by hand",
  solicit: false,
  goodbye: false,
});
const announced = (trailing: Uint8Array): Buffer =>
  encodeVarp(
    {
      opcode: "announce",
      vnet: vnetIdToBytes(longId("97")),
      vmac: macToBytes("02:00:00:00:00:a3"),
      address: parseAddress("10.66.1.66"),
    },
    trailing,
  );

async function flood(count: number, message: Buffer): Promise<void> {
  const at = String(message.indexOf(Buffer.alloc(16, 0xab)));
  const argv = ["-c", strangers, String(count), message.toString("hex"), at];
  expect((await stranger.exec([...python, ...argv])).stderr).toBe("");
}

async function dropped(reason: string): Promise<number> {
  const { drops } = await a.vnetdJson<StatusInfo>(["status"]);
  return drops.filter((row) => row.reason === reason).reduce((sum, row) => sum + row.frames, 0);
}

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  stranger = await lab.host("s", { underlay: "10.66.1.66/24" });
  // neither by flag nor by environment: what is a pipe gets JSON
  await startDaemon(a, { config: base, env: { VNETD_LOG_FORMAT: "" } });
  config = (await a.vnetdJson<StatusInfo>(["status"])).configuration.file;
  await a.vnetd(["attach", "eth0"]);
  await a.vnetd(["vnet-create", "97"]);
});
afterAll(() => lab.close());

describe("as JSON", () => {
  it("each line is a record, from the one that says ready on", async () => {
    expect(a.daemon.stdout).toBe("");
    await first("vnet_made");
    expect(records().map(({ event }) => event)).toContain("ready");
    for (const { ts, level, event, msg } of records()) {
      expect(ts).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      expect(logLevels).toContain(level);
      expect(Object.keys(logEvents)).toContain(event);
      expect(msg.length).toBeGreaterThan(3);
    }
  });

  it("vnet, device and host are fields where it is about one", async () => {
    expect(await first("device_attached")).toMatchObject({ device: "eth0", level: "info" });
    expect(await first("vnet_made")).toMatchObject({ vnet: longId("97"), device: "vnif0097" });
    await a.vnetd(["peer-add", "10.66.1.200"]);
    expect(await first("peer_added")).toMatchObject({ host: "10.66.1.200" });
    await a.exec("ip link set eth0 down");
    expect(await first("device_down")).toMatchObject({ device: "eth0", level: "warn" });
    await a.exec("ip link set eth0 up");
    await eventually(
      async () => (await a.vnetdJson<StatusInfo>(["status"])).problems.length === 0,
      { timeoutMs: 20_000 },
    );
  });

  it("a reload that is refused says why", async () => {
    writeFileSync(config, "colour: red\n");
    expect((await a.tryVnetd(["reload"])).code).toBe(1);
    expect(await first("config_refused")).toMatchObject({
      level: "error",
      reason: "UNKNOWN_PARAMETER",
    });
    await reload("");
  });
});

describe("a flood from the wire", () => {
  it("of hosts that find no room is a handful of lines, which name vnet, host and reason", async () => {
    const message = announced(hello);
    const before = await dropped("refused_vnet_hosts");
    await flood(3000, message);
    await eventually(async () => (await dropped("refused_vnet_hosts")) > before);
    const record = await first("host_refused");
    expect(record).toMatchObject({ vnet: longId("97"), reason: "refused_vnet_hosts" });
    expect(record.host).toMatch(/^10\.77\./);
    expect(of("host_refused").length).toBeLessThanOrEqual(5 + 12);
  });

  it("of messages that nobody understands neither, where everything is logged", async () => {
    await reload("log: {level: debug}\n");
    await flood(3000, announced(Buffer.from(hello).fill(0xff, 10, 12)));
    expect(await first("hello_bad")).toMatchObject({ level: "debug", vnet: longId("97") });
    await eventually(async () => (await dropped("varp_bad_tlv")) >= 500);
    expect(of("hello_bad").length).toBeLessThan(1000);
    await reload("");
  });
});

describe("what is set", () => {
  it("no key is in it, nor in an error about one", async () => {
    const file = join(lab.directory, "blue.key");
    await a.vnetd(["key-gen", file]);
    const secret = /vnetd-key-1:\s*(\S{40,})/.exec(readFileSync(file, "utf8"))?.[1] ?? "none";
    const make = ["vnet-create", "98", "--security", "conf", "--key", file];
    // one that is a little wrong
    writeFileSync(file, `vnetd-key-1: ${secret.slice(0, -3)}*\n`);
    const refused = await a.tryVnetd(make);
    expect(refused.code).not.toBe(0);
    expect((await a.tryVnetd(["vnet-create", "99", "--security", "conf"])).code).not.toBe(0);
    const said = a.daemon.stderr + refused.stderr;
    expect(secret.length).toBeGreaterThan(40);
    expect(said).not.toContain(secret.slice(0, 16));
  });

  it("a reload changes level and form", async () => {
    await reload("log: {level: error}\n");
    await a.vnetd(["vnet-create", "90"]);
    await reload("log: {format: text}\n");
    const end = a.daemon.stderr.length;
    await a.vnetd(["vnet-delete", "90"]);
    await eventually(() => a.daemon.stderr.slice(end).includes("info vnet 0000"));
    expect(a.daemon.stderr).not.toMatch(/0090: made/);
    await reload("");
  });

  it("the flag goes before the file, and a form that is none is refused", async () => {
    const wrong = stranger.spawnDaemon({ args: ["--log-format", "xml"] });
    const result = await wrong.end();
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/"xml" is no format of the log/);
  });

  it("at the end it says how many were held back", async () => {
    await a.daemon.stop();
    // a few were lines, while the log was text: which depends on when there was room for them
    const all = a.daemon.stderr.split("\n");
    const json = all.filter((line) => line.startsWith("{"));
    const written = json.map((line) => JSON.parse(line) as LogRecord);
    expect(written.map(({ event }) => event)).toContain("stopped");
    const held = [
      ...written.filter(({ event }) => event === "host_refused").map(({ held = 0 }) => held),
      ...all.map((line) => Number(/^\w+ .*\b(\d+) more.*: host_refused/.exec(line)?.[1] ?? 0)),
    ];
    expect(held.reduce((sum, each) => sum + each, 0)).toBeGreaterThan(100);
  });
});
