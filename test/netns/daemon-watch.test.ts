// SPDX-License-Identifier: Apache-2.0
/** `vnetd monitor` and `vnetd capture` with the real daemon: what they show is what happened, and they end cleanly. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { MonitorEvent, StatusInfo } from "../../src/api/contract.js";
import { vnetBytes } from "../lib/bytes.js";
import { DEBIAN_PYTHON } from "../lib/processes.js";
import { Lab, eventually, repository, run, type Background, type Host } from "../lib/lab.js";
import { packet } from "../lib/packet.js";
import { readWithTshark, type Row } from "../lib/tshark.js";
import { addressVnet4, attachedHosts, longId, quickHello, startDaemon } from "./world.js";

const id97 = longId("97");
let lab: Lab;
let a: Host;
let b: Host;
let guests = 0;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"], { config: quickHello })) as [Host, Host];
  for (const host of [a, b]) {
    await host.vnetd(["vnet-create", "97"]);
    await host.vnetd(["vnet-create", "98"]);
  }
});
afterAll(() => lab.close());

/** A command of vnetd's beside the test. */
const start = (host: Host, ...args: string[]): Background =>
  host.spawn([join(repository, "bin/vnetd"), ...args, "--run-dir", host.runDir]);

const linesOf = (process: Background): string[] => process.stdout.split("\n").slice(0, -1);
type Line = MonitorEvent & { lost?: number };
const eventsOf = (process: Background): Line[] =>
  linesOf(process).map((line) => JSON.parse(line) as Line);

/** Until what is looked for is seen, something is done again and again: the command may not be there yet. */
function seenBy(
  process: Background,
  action: () => Promise<unknown>,
  expected: Partial<Line>,
): Promise<Line> {
  return eventually(
    async () => {
      await action();
      const found = eventsOf(process).find((event) =>
        Object.entries(expected).every(([key, value]) => event[key as keyof Line] === value),
      );
      if (found === undefined) throw new Error(`not seen in:\n${process.stdout}`);
      return found;
    },
    { timeoutMs: 30_000, everyMs: 200, what: JSON.stringify(expected) },
  );
}

const stranger = packet()
  .vudp({ vnet: "4321" })
  .payload(packet().eth({ src: "aa:00:00:00:00:01", dst: "aa:00:00:00:00:02" }).payload(46).build())
  .build();

/** Datagrams from a to b's port, as fast as it goes. */
const send = (message: Uint8Array, count = 1): Promise<unknown> =>
  a.exec([
    ...[DEBIAN_PYTHON, "-c"],
    `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
m = bytes.fromhex("${Buffer.from(message).toString("hex")}")
for _ in range(${count}):
    try: s.sendto(m, ("10.66.1.2", 1798))
    except OSError: pass`,
  ]);

describe("monitor", () => {
  it("shows MACs that appear, with where they are", async () => {
    const monitor = start(b, "monitor", "--json");
    const macs = new Set<unknown>();
    // until one is seen: the command may not be there yet, and others' MACs appear as well
    const learned = await eventually(
      async () => {
        guests += 1;
        const guest = await a.guest(`g${guests}`, {
          bridge: "vnet0097",
          address: `10.97.0.${guests}/24`,
        });
        macs.add(await guest.mac());
        await guest.tryExec("ping -c 1 -W 1 10.97.0.250");
        await guest.unplug();
        const found = eventsOf(monitor).find(
          ({ kind, mac }) => kind === "learned" && macs.has(mac),
        );
        if (found === undefined) throw new Error(`not seen in:\n${monitor.stdout}`);
        return found;
      },
      { timeoutMs: 30_000, everyMs: 200, what: "one of the guests' MACs" },
    );
    expect(learned).toMatchObject({ vnet: id97, to: "10.66.1.1" });
    const { code, stderr } = await monitor.stop("SIGINT");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("shows drops, with the reason and how the packet begins", async () => {
    const monitor = start(b, "monitor", "--json");
    const drop = await seenBy(monitor, () => send(stranger), {
      kind: "dropped",
      reason: "unknown_vnet",
    });
    expect(drop).toMatchObject({
      ...{ vnet: null, direction: "decap", device: "eth0", from: "10.66.1.1" },
      ...{ mac: "aa:00:00:00:00:01", destination: "aa:00:00:00:00:02" },
      bytes: 42 + stranger.length,
    });
    const head = Buffer.from(drop.head!, "hex");
    expect(head).toHaveLength(Math.min(128, 42 + stranger.length));
    expect(head.subarray(42)).toEqual(stranger.subarray(0, head.length - 42));
    expect(head.includes(vnetBytes("4321"))).toBe(true);
    await monitor.stop("SIGINT");
  });

  it("shows members and peers that come and go", async () => {
    const monitor = start(b, "monitor", "--json");
    await seenBy(
      monitor,
      async () => {
        await b.vnetd(["peer-add", "10.66.9.9"]);
        await b.vnetd(["peer-delete", "10.66.9.9"]);
      },
      { kind: "peer", text: "peer 10.66.9.9: deleted" },
    );
    await a.vnetd(["vnet-create", "99"]);
    await b.vnetd(["vnet-create", "99"]);
    await seenBy(monitor, () => Promise.resolve(), { kind: "member", vnet: longId("99") });
    await a.vnetd(["vnet-delete", "99"]);
    const gone = { kind: "member", vnet: longId("99"), text: "10.66.1.1 is gone" } as const;
    await seenBy(monitor, () => Promise.resolve(), gone);
    await b.vnetd(["vnet-delete", "99"]);
    await monitor.stop("SIGINT");
  });

  it("filters by vnet, MAC and reason", async () => {
    const framesOf = (vnet: string, src: string): Buffer =>
      packet()
        .vudp({ vnet, version: [0x30, 0] })
        .payload(packet().eth({ src, dst: "aa:00:00:00:00:02" }).payload(46).build())
        .build();
    // of vnet 97, so that its handle is known: a source that is refused
    const groupSource = (vnet: string): Buffer =>
      packet()
        .vudp({ vnet })
        .payload(
          packet().eth({ src: "ff:00:00:00:00:01", dst: "aa:00:00:00:00:02" }).payload(46).build(),
        )
        .build();
    const monitors = {
      vnet: start(b, "monitor", "--json", "--vnet", "97"),
      mac: start(b, "monitor", "--json", "--mac", "aa:00:00:00:00:09"),
      reason: start(b, "monitor", "--json", "--reason", "bad_version"),
    };
    const everything = async (): Promise<void> => {
      await send(stranger);
      await send(framesOf("97", "aa:00:00:00:00:09"));
      await send(groupSource("97"));
      await send(groupSource("98"));
    };
    await seenBy(monitors.vnet, everything, { kind: "refused", reason: "refused_group_mac" });
    await seenBy(monitors.mac, everything, { mac: "aa:00:00:00:00:09" });
    await seenBy(monitors.reason, everything, { reason: "bad_version" });
    const ended = await Promise.all(Object.values(monitors).map((each) => each.stop("SIGINT")));
    expect(ended.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(new Set(eventsOf(monitors.vnet).map(({ vnet }) => vnet))).toEqual(new Set([id97]));
    expect(new Set(eventsOf(monitors.mac).map(({ mac }) => mac))).toEqual(
      new Set(["aa:00:00:00:00:09"]),
    );
    const reasons = new Set(eventsOf(monitors.reason).map(({ reason }) => reason));
    expect(reasons).toEqual(new Set(["bad_version"]));
  });

  it("says for people what it says for machines, and ends after a count", async () => {
    const monitor = start(b, "monitor", "--reason", "unknown_vnet", "--count", "2");
    await eventually(
      async () => {
        await send(stranger);
        return monitor.code !== undefined;
      },
      { timeoutMs: 30_000, what: "the end" },
    );
    expect(monitor.code).toBe(0);
    const [first, ...others] = linesOf(monitor);
    expect(others).toHaveLength(1);
    expect(first).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} dropped - {4}unknown_vnet decap aa:00:00:00:00:01 > aa:00:00:00:00:02 from 10\.66\.1\.1 by eth0 124 bytes (?:[0-9a-f]{8} ){8}…$/u,
    );
  });

  it("says how much is missing when there is too much, and the daemon answers meanwhile", async () => {
    const monitor = start(b, "monitor", "--json");
    await seenBy(monitor, () => send(stranger), { reason: "unknown_vnet" });
    const flood = send(stranger, 100_000);
    const status = await b.vnetdJson<StatusInfo>(["status"]);
    expect(status.vnets).toBeGreaterThan(0);
    await flood;
    await eventually(() => eventsOf(monitor).some(({ lost = 0 }) => lost > 1000), {
      timeoutMs: 20_000,
      what: "word of what is missing",
    });
    await monitor.stop("SIGINT");
    // what was seen and what is missing is all that was dropped, or less: the monitor came later
    const drops = (await b.vnetdJson<StatusInfo>(["status"])).drops;
    const counted = drops.find(({ reason }) => reason === "unknown_vnet")!.frames;
    const lines = eventsOf(monitor);
    const missing = lines.reduce((sum, { lost = 0 }) => sum + lost, 0);
    const seen = lines.filter(({ reason }) => reason === "unknown_vnet").length;
    expect(seen + missing).toBeLessThanOrEqual(counted + lines.length - seen);
    expect(seen).toBeGreaterThan(100);
  });

  it("costs nothing when nobody looks", async () => {
    const monitor = start(b, "monitor", "--json");
    await seenBy(monitor, () => send(stranger), { reason: "unknown_vnet" });
    const flags = async (): Promise<number> => {
      const { stdout } = await run([
        ...["bpftool", "-j", "map", "dump", "pinned", join(b.bpffs, "layout-1", "watch")],
      ]);
      const [entry] = JSON.parse(stdout) as { value: string[] }[];
      return Number(entry!.value[8]);
    };
    expect(await flags()).toBe(1);
    await monitor.stop("SIGKILL");
    await eventually(async () => (await flags()) === 0, {
      what: "the map to say that nobody looks",
    });
  });

  it("refuses what is no vnet, MAC or reason", async () => {
    const cases: [string[], number, RegExp][] = [
      [["--vnet", "9999"], 1, /vnet/u],
      [["--mac", "nonsense"], 1, /nonsense/u],
      [["--reason", "nonsense"], 1, /"nonsense" is not a reason/u],
      [["--count", "0"], 2, /is no number from 1 on/u],
    ];
    for (const [args, code, says] of cases) {
      const result = await b.tryVnetd(["monitor", ...args]);
      expect(result.code).toBe(code);
      expect(result.stderr).toMatch(says);
    }
  });

  it("ends with the daemon, and says so", async () => {
    const monitor = start(a, "monitor", "--json");
    await seenBy(
      monitor,
      async () => {
        await a.vnetd(["peer-add", "10.66.9.8"]);
        await a.vnetd(["peer-delete", "10.66.9.8"]);
      },
      { kind: "peer" },
    );
    await a.killDaemon();
    const { code, stderr } = await monitor.end();
    expect(code).toBe(1);
    expect(stderr).toContain("CONNECTION_LOST");
    await startDaemon(a, { config: quickHello });
  });
});

describe("capture", () => {
  beforeAll(async () => {
    for (const [at, host] of [a, b].entries()) {
      await host.vnetd(["vnet-create", "-b", "none", "-v", "vnif96", "96"]);
      await host.exec(`ip addr add 10.96.0.${at + 1}/24 dev vnif96 && ip link set vnif96 up`);
    }
    await eventually(async () => (await a.ping("10.96.0.2", { count: 1 })).received === 1, {
      timeoutMs: 30_000,
      what: "an answer",
    });
  });
  const fields = [
    ...["frame.number", "frame.interface_name", "frame.packet_flags_direction", "frame.comment"],
    ...["icmp.type", "icmp.seq", "ip.src", "arp.opcode", "frame.len", "frame.cap_len", "eth.src"],
    ...["vlan.id", "frame.time_epoch"],
  ];
  const file = (name: string): string => join(lab.directory, name);
  const read = async (name: string): Promise<Row[]> => {
    const { rows, complaints } = await readWithTshark(readFileSync(file(name)), fields);
    expect(complaints).toBe("");
    return rows;
  };
  /** A capture that has begun: something is done until the first frame is in the file. */
  const capturing = async (
    name: string,
    action: () => Promise<unknown>,
    ...args: string[]
  ): Promise<Background> => {
    const process = start(b, "capture", "96", "-w", file(name), ...args);
    await eventually(
      async () => {
        await action();
        return existsSync(file(name)) && readFileSync(file(name)).length > 200;
      },
      { timeoutMs: 30_000, everyMs: 200, what: "the first frame" },
    );
    return process;
  };
  const ping = (): Promise<unknown> => a.tryExec("ping -c 1 -W 2 10.96.0.2");

  it("has the guests' frames, both ways, as Wireshark reads them", async () => {
    const capture = await capturing("both.pcapng", ping);
    const before = Date.now() / 1000;
    await a.exec("ping -c 3 -i 0.2 -W 5 10.96.0.2");
    await eventually(async () => (await read("both.pcapng")).length >= 6);
    const { code, stderr } = await capture.stop("SIGINT");
    expect(code).toBe(0);
    expect(stderr).toMatch(/^vnetd: \d+ frames, 0 of them .*; 0 are missing\n$/u);
    const rows = await read("both.pcapng");
    expect(new Set(rows.map((row) => row["frame.interface_name"]![0]))).toEqual(
      new Set(["vnet 0096"]),
    );
    const echoes = rows.filter((row) => row["icmp.type"]!.length > 0);
    const lastThree = echoes.slice(-6).map((row) => ({
      type: row["icmp.type"]![0],
      source: row["ip.src"]![0],
      direction: row["frame.packet_flags_direction"]![0],
      length: row["frame.len"]![0],
    }));
    const request = { type: "8", source: "10.96.0.1", direction: "0x00000001", length: "98" };
    const reply = { type: "0", source: "10.96.0.2", direction: "0x00000002", length: "98" };
    expect(lastThree).toEqual([request, reply, request, reply, request, reply]);
    expect(Number(echoes.at(-1)!["frame.time_epoch"]![0])).toBeGreaterThan(before - 1);
    expect(Number(echoes.at(-1)!["frame.time_epoch"]![0])).toBeLessThan(Date.now() / 1000 + 1);
  });

  it("has a VLAN's tag where it was", async () => {
    const capture = await capturing("vlan.pcapng", ping);
    const tagged = packet()
      .eth({ src: await b.mac("vnif96"), dst: await a.mac("vnif96") })
      .vlan({ id: 77, priority: 3 })
      .ipv4({ src: "10.96.0.2", dst: "10.96.0.1" })
      .icmpEcho({ sequence: 4077 })
      .build();
    await b.exec([
      ...[DEBIAN_PYTHON, "-c"],
      `import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("vnif96", 0))
s.send(bytes.fromhex("${tagged.toString("hex")}"))`,
    ]);
    const found = await eventually(
      async () => (await read("vlan.pcapng")).find((row) => row["icmp.seq"]!.includes("4077")),
      { what: "the tagged frame" },
    );
    expect(found!["vlan.id"]).toEqual(["77"]);
    expect(found!["frame.len"]).toEqual([String(tagged.length)]);
    expect(found!["frame.packet_flags_direction"]).toEqual(["0x00000002"]);
    await capture.stop("SIGINT");
  });

  it("says why a frame was dropped, once for each", async () => {
    const capture = await capturing("drops.pcapng", ping);
    // a guest's, to nobody: no underlay that is up
    await b.exec("ip link set eth0 down");
    await b.exec(
      "ip neigh replace 10.96.0.77 lladdr 02:00:00:00:00:77 dev vnif96 && (ping -c 1 -W 1 10.96.0.77; true)",
    );
    await b.exec("ip link set eth0 up");
    await eventually(async () => (await b.ping("10.96.0.1", { count: 1 })).received === 1, {
      timeoutMs: 30_000,
      what: "the device to be up again",
    });
    // and another host's, whose source is a group
    const group = packet()
      .vudp({ vnet: "96" })
      .payload(
        packet().eth({ src: "ff:00:00:00:00:01", dst: "02:00:00:00:00:78" }).payload(46).build(),
      )
      .build();
    await send(group);
    const commented = async (): Promise<[string, string][]> =>
      (await read("drops.pcapng"))
        .filter((row) => row["frame.comment"]!.length > 0)
        .map((row) => [row["eth.src"]![0]!, row["frame.comment"]![0]!]);
    const mac = await b.mac("vnif96");
    await eventually(async () => {
      const found = await commented();
      expect(found).toContainEqual([mac, "dropped: no_underlay"]);
      expect(found).toContainEqual(["ff:00:00:00:00:01", "source not learned: refused_group_mac"]);
      return true;
    });
    await capture.stop("SIGINT");
    const rows = await read("drops.pcapng");
    expect(rows.filter((row) => row["eth.src"]![0] === "ff:00:00:00:00:01")).toHaveLength(1);
  });

  it("cuts frames, counts them, and ends", async () => {
    const capture = await capturing("short.pcapng", ping, "-s", "40", "-c", "3", "--json");
    await eventually(
      async () => {
        await ping();
        return capture.code !== undefined;
      },
      { timeoutMs: 30_000, what: "the end" },
    );
    expect({ code: capture.code, counts: JSON.parse(capture.stdout) as unknown }).toEqual({
      code: 0,
      counts: { frames: 3, dropped: 0, lost: 0 },
    });
    const rows = await read("short.pcapng");
    expect(rows.map((row) => row["frame.cap_len"]![0])).toEqual(["40", "40", "40"]);
    expect(Number(rows[0]!["frame.len"]![0])).toBeGreaterThanOrEqual(42);
  });

  it("goes to stdout, for a program that reads it", async () => {
    const bin = join(repository, "bin/vnetd");
    const reading = b.spawn(
      `${bin} capture 96 -w - --run-dir ${b.runDir} | tshark -n -i - -c 2 -T fields -e eth.type 2>/dev/null`,
    );
    await eventually(
      async () => {
        await ping();
        return reading.code !== undefined;
      },
      { timeoutMs: 60_000, what: "tshark to have two" },
    );
    expect(reading.stdout.trim().split("\n")).toHaveLength(2);
  });

  it("has none of other vnets, and the record says that nobody looks when it is over", async () => {
    const capture = await capturing("one.pcapng", ping);
    await addressVnet4([a, b]);
    await a.ping("10.4.0.2", { count: 3 });
    await ping();
    await capture.stop("SIGKILL");
    const rows = await read("one.pcapng");
    const sources = new Set(rows.flatMap((row) => row["ip.src"]!));
    expect([...sources].filter((source) => !source.startsWith("10.96."))).toEqual([]);
    const flags = async (): Promise<number[]> => {
      const { stdout } = await run([
        ...["bpftool", "-j", "map", "dump", "pinned", join(b.bpffs, "layout-1", "vnets")],
      ]);
      const entries = JSON.parse(stdout) as { value: string[] }[];
      return entries.map(({ value }) => Number(value[20])).filter((each) => each > 1);
    };
    await eventually(async () => (await flags()).length === 0, { what: "no vnet to be captured" });
  });

  it("keeps no more than a bound for who does not read, and says how much is missing", async () => {
    const capture = await capturing("slow.pcapng", ping);
    capture.signal("SIGSTOP");
    const count = 20_000;
    await a.exec([
      ...[DEBIAN_PYTHON, "-c"],
      `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(${count}):
    try: s.sendto(b"x" * 1300, ("10.96.0.2", 9))
    except OSError: pass`,
    ]);
    const status = await b.vnetdJson<StatusInfo>(["status"]);
    expect(status.vnets).toBeGreaterThan(0);
    capture.signal("SIGCONT");
    // what comes later is there again
    await eventually(
      async () => {
        await a.exec("ping -c 1 -W 2 -s 777 10.96.0.2");
        return (await read("slow.pcapng")).some((row) => row["frame.len"]![0] === "819");
      },
      { timeoutMs: 60_000, everyMs: 500, what: "a frame of after" },
    );
    const { stderr } = await capture.stop("SIGINT", 30_000);
    const [, frames, missing] = /^vnetd: (\d+) frames, .*; (\d+) are missing\n$/u.exec(stderr)!;
    expect(Number(missing)).toBeGreaterThan(1000);
    // 4 MiB of lines with 1.8 KiB each, and what the kernel keeps for the socket
    expect(Number(frames)).toBeLessThan(count / 2);
    expect((await read("slow.pcapng")).length).toBe(Number(frames));
  }, 120_000);

  it("refuses what is no vnet, a file that cannot be written, and no file at all", async () => {
    const cases: [string[], number, RegExp][] = [
      [["9999", "-w", file("none.pcapng")], 1, /vnet/u],
      [["96", "-w", "/nowhere/none.pcapng"], 1, /cannot be written/u],
      [["96"], 2, /--write FILE is missing/u],
      [["96", "-w", file("none.pcapng"), "-s", "100000"], 1, /from 14 to 9000/u],
    ];
    for (const [args, code, says] of cases) {
      const result = await b.tryVnetd(["capture", ...args]);
      expect(result.code).toBe(code);
      expect(result.stderr).toMatch(says);
    }
  });
});
