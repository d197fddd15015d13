// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd trace` with the real daemon: it says what happens then, and does nothing of it. Each kind of copy, and
 * secure vnets, are in test/packet/dry-run.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  StatusInfo,
  TraceReport,
  VarpEntry,
  VifInfo,
  VnetState,
} from "../../src/api/contract.js";
import { macBytes } from "../lib/bytes.js";
import { Lab, eventually, type Capture, type Guest, type Host } from "../lib/lab.js";
import { parseFrame } from "../lib/packet-parse.js";
import { attachedHosts, longId, quickHello } from "./world.js";

const guestOnA = "aa:00:00:00:97:01";
const guestOnB = "aa:00:00:00:97:02";
/** of nobody; looked for on the wire */
const stranger = "aa:00:00:de:ad:01";
const other = "aa:00:00:de:ad:02";
const everybody = "ff:ff:ff:ff:ff:ff";
let lab: Lab;
let a: Host;
let b: Host;
let guest: Guest;

const trace = (...args: string[]): Promise<TraceReport> =>
  a.vnetdJson<TraceReport>(["trace", ...args]);
const textOf = ({ steps }: TraceReport, step: string): string =>
  steps
    .filter((each) => each.step === step)
    .map(({ text }) => text)
    .join("\n");

/** What the daemon knows of what is traced in the vnet that nobody is in. */
async function known(): Promise<unknown> {
  const id = longId("98");
  const macs = [stranger, other];
  const { drops } = await a.vnetdJson<StatusInfo>(["status"]);
  const vnets = await a.vnetdJson<VnetState[]>(["vnets"]);
  const rows = [
    ...(await a.vnetdJson<VifInfo[]>(["vifs"])),
    ...(await a.vnetdJson<VarpEntry[]>(["varp"])),
  ];
  return {
    drops: drops.filter(({ vnet }) => vnet === id),
    hosts: vnets.find((vnet) => vnet.id === id)!.hosts,
    entries: rows.filter(({ vmac }) => macs.includes(vmac)),
  };
}

const holds = ({ packets }: Capture, mac: string): boolean =>
  packets.some(({ data }) => Buffer.from(data).includes(macBytes(mac)));

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"], { config: quickHello })) as [Host, Host];
  for (const host of [a, b]) await host.vnetd(["vnet-create", "97"]);
  await a.vnetd(["vnet-create", "98"]);
  const on = (address: string, mac: string) => ({ bridge: "vnet0097", address, mac });
  guest = await a.guest("ga", on("10.97.0.1/24", guestOnA));
  await b.guest("gb", on("10.97.0.2/24", guestOnB));
  await eventually(async () => (await guest.ping("10.97.0.2", { count: 1 })).received === 1, {
    timeoutMs: 30_000,
    what: "the guests to reach each other",
  });
});
afterAll(() => lab.close());

describe("from a guest", () => {
  it("to a MAC that is known: as the packet that really leaves", async () => {
    const capture = await a.capture("eth0", "udp port 1798 and udp[42:2] = 0x0800");
    const report = await eventually(
      async () => {
        await guest.ping("10.97.0.2", { count: 1 });
        const found = await trace("97", guestOnB, guestOnA);
        if (found.toAll || capture.packets.length < 2) throw new Error("not known now");
        return found;
      },
      { timeoutMs: 30_000, what: "the guest to be known" },
    );
    await capture.stop();
    expect(report).toMatchObject({ outcome: "sent", toAll: false, reason: null, bytes: 98 });
    expect(textOf(report, "source")).toContain(`${guestOnA} is known at this host`);
    expect(textOf(report, "destination")).toContain(`${guestOnB} is known at 10.66.1.2`);
    expect(textOf(report, "counted")).toBe("encap 1 frame of 98 bytes");
    const outer = report.steps.flatMap((step) => step.outer ?? []);
    const real = capture.packets
      .map(({ data }) => parseFrame(data, { transportChecksums: "skip" }).ipv4!)
      .find(({ src }) => src === "10.66.1.1")!;
    expect(outer).toMatchObject([
      {
        source: real.src,
        destination: real.dst,
        ttl: real.ttl,
        dontFragment: true,
        // an echo request of a guest is as long as what was asked about
        bytes: 98 + 50,
        port: 1798,
      },
    ]);
  });

  it("that is too large: in fragments, or the guest is told", async () => {
    const large = ["97", guestOnB, guestOnA, "--length", "1600"];
    const split = await trace(...large);
    expect(split).toMatchObject({ outcome: "sent", toAll: false });
    expect(textOf(split, "sends")).toContain("in 2 fragments");
    expect(textOf(split, "counted")).toContain("in fragments");
    const told = await trace(...large, "--dont-fragment");
    expect(told).toMatchObject({ outcome: "answered", reason: "too_big" });
    expect(textOf(told, "answers")).toContain("1436 bytes");
  });

  it("prints a line for each step", async () => {
    const { stdout } = await a.vnetd(["trace", "97", everybody, guestOnA, "--type", "arp"]);
    const words = stdout.split("\n").map((line) => line.split(" ")[0]);
    expect(words).toEqual(["vnet", "source", "destination", "sends", "counted", "outcome", ""]);
    expect(stdout).toContain("to the group 224.10.0.1, by eth0, IPv4 from 10.66.1.1");
    expect(stdout).toContain("outcome      sent, to all");
  });
});

it("does nothing: no packet, no entry, no count", async () => {
  const capture = await b.capture("eth0", "udp port 1798");
  const nothing = { drops: [], hosts: 0, entries: [] };
  expect(await known()).toEqual(nothing);
  const unknown = await trace("98", stranger, other);
  expect(unknown).toMatchObject({ outcome: "sent", toAll: true });
  expect(textOf(unknown, "source")).toContain("would be learned");
  expect(textOf(unknown, "destination")).toContain("asked for it by VARP");
  const refused = await trace("98", everybody, "01:00:5e:00:00:01");
  expect(refused.steps).toContainEqual(expect.objectContaining({ reason: "refused_group_mac" }));
  await trace("98", stranger, other, "--from", "10.66.1.2");
  expect(await known()).toEqual(nothing);
  // what is sent is seen: a real frame with that source, from the vnetif
  await a.exec(["ip", "link", "set", "vnif0098", "up"]);
  const real = Buffer.concat([macBytes(everybody), macBytes(stranger), Buffer.alloc(50)]);
  real.writeUInt16BE(0x88b6, 12);
  const python = `import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("vnif0098", 0))
s.send(bytes.fromhex("${real.toString("hex")}"))`;
  await eventually(
    async () => {
      await a.exec(["/usr/bin/python3", "-c", python]);
      return holds(capture, stranger);
    },
    { timeoutMs: 20_000, everyMs: 200, what: "a real frame on the wire" },
  );
  await capture.stop();
  expect(holds(capture, other)).toBe(false);
});

describe("--send", () => {
  it("asks the far host, which has the MAC, and is heard as large", async () => {
    const report = await eventually(
      async () => {
        await guest.ping("10.97.0.2", { count: 1 });
        const found = await trace("97", guestOnB, guestOnA, "--length", "1450", "--send");
        if (!textOf(found, "probe").includes("arrives")) throw new Error(textOf(found, "probe"));
        return found;
      },
      { timeoutMs: 30_000, what: "the far host's answers" },
    );
    expect(textOf(report, "probe")).toMatch(
      new RegExp(`^10\\.66\\.1\\.2 answers in [\\d.]+ ms, and has ${guestOnB}\n`, "u"),
    );
    expect(textOf(report, "probe")).toContain("a packet of 1500 bytes");
  });

  it("says that the far host does not have it, or nobody is there to ask", async () => {
    await a.vnetd(["varp-add", "97", stranger, "10.66.1.2"]);
    const wrong = await trace("97", stranger, guestOnA, "--send");
    expect(textOf(wrong, "probe")).toContain(`and does not have ${stranger}`);
    await a.vnetd(["varp-delete", "97", stranger]);
    await a.vnetd(["varp-add", "97", stranger, "10.66.1.77"]);
    const silent = await trace("97", stranger, guestOnA, "--send");
    expect(textOf(silent, "probe")).toContain("10.66.1.77 does not answer");
    await a.vnetd(["varp-delete", "97", stranger]);
    expect(textOf(await trace("97", other, guestOnA, "--send"), "probe")).toContain("not known");
    const { code, stderr } = await a.tryVnetd([
      "trace",
      "97",
      guestOnA,
      "--from",
      "10.66.1.2",
      "--send",
      "--json",
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain("Leave out --from");
  });
});

describe("from another host", () => {
  it("is delivered, by the bridge's port", async () => {
    const report = await trace("97", guestOnA, guestOnB, "--from", "10.66.1.2");
    expect(report).toMatchObject({ direction: "decap", outcome: "delivered", reason: null });
    expect(textOf(report, "source")).toContain(`${guestOnB} is known at 10.66.1.2`);
    expect(textOf(report, "delivers")).toContain("to vnif0097");
  });

  it("moves a MAC, makes a host known, or is refused", async () => {
    const moves = await trace("97", everybody, guestOnB, "--from", "10.66.1.9");
    expect(textOf(moves, "source")).toContain(`${guestOnB} would move from 10.66.1.2`);
    expect(moves).toMatchObject({ outcome: "delivered", toAll: true });
    const own = await trace("97", guestOnA, guestOnB, "--from", "10.66.1.1");
    expect(own).toMatchObject({ outcome: "dropped", reason: "own_echo" });
    expect(textOf(own, "dropped")).toMatch(/^own_echo, decap: The source address is one of/);
  });
});

describe("says what is wrong with", () => {
  const failing: [string, string[], string, string][] = [
    ["a vnet that is not there", ["4321", everybody], "VNET_NOT_FOUND", "vnet-list"],
    ["a vnet id", ["0x97", everybody], "BAD_VNET_ID", ""],
    ["a MAC", ["97", "aa:bb"], "BAD_MAC", ""],
    ["nobody's MAC", ["97", "00:00:00:00:00:00"], "BAD_MAC", "nobody"],
    ["a type", ["97", everybody, "--type", "0x05dc"], "BAD_VALUE", "EtherType"],
    ["a length", ["97", everybody, "--length", "13"], "BAD_REQUEST", "14 to 3000"],
    ["an address", ["97", everybody, "--from", "there"], "BAD_ADDRESS", ""],
    ["a family that is not used", ["97", everybody, "--from", "fd00::1"], "NO_PATH", "status"],
  ];
  it.each(failing)("%s", async (_what, args, code, text) => {
    const { code: exitCode, stderr } = await a.tryVnetd(["trace", ...args, "--json"]);
    expect(exitCode).toBe(1);
    expect(JSON.parse(stderr)).toMatchObject({ code });
    expect(stderr).toContain(text);
  });

  it("a host without a daemon", async () => {
    const lonely = await lab.host("lonely");
    const { code: exitCode, stderr } = await lonely.tryVnetd(["trace", "97", everybody, "--json"]);
    expect(exitCode).toBe(3);
    expect(JSON.parse(stderr)).toMatchObject({ code: "NO_DAEMON" });
  });
});
