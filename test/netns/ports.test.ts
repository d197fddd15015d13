// SPDX-License-Identifier: Apache-2.0
/**
 * Direct ports: guests' veths and a VM's tap that belong to a vnet without a bridge, beside guests on the vnet's bridge,
 * on two hosts. Every pair talks, whatever it says, and goes on when the daemon is killed.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  PortInfo,
  StatusInfo,
  TraceReport,
  VarpEntry,
  VifInfo,
} from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { packet } from "../lib/packet.js";
import { offloaded, runTaps, taken } from "../lib/tap.js";
import { attachedHosts, callApi, longId, startDaemon, timesHeard } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
/** p1, p2 are behind ports of a, p3, p4 of b; c1 and c2 on their bridges */
let p1: Guest, p2: Guest, p3: Guest, p4: Guest, c1: Guest, c2: Guest;
let guests: Guest[];
/** a command takes seconds on a machine that is busy */
const patient = { timeoutMs: 30_000 };
const addressOf = (guest: Guest): string => `10.97.0.${guests.indexOf(guest) + 1}`;

/** The message of what is refused. By the socket: starting a command takes its time. */
async function ask(
  host: Host,
  method: string,
  params: Record<string, string>,
): Promise<string | undefined> {
  const answer = await callApi(host, `${JSON.stringify({ v: 1, id: 1, method, params })}\n`);
  return (answer?.["error"] as { message: string } | undefined)?.message;
}

async function addPort(host: Host, device: string): Promise<void> {
  expect(await ask(host, "portAdd", { vnet: "97", device })).toBeUndefined();
}

async function portGuest(host: Host, name: string, number: number): Promise<Guest> {
  const guest = await host.guest(name, {
    address: [`10.97.0.${number}/24`, `fd97::${number}/64`],
    mtuBytes: 1500,
  });
  await addPort(host, guest.port);
  return guest;
}

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  for (const host of [a, b]) await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
  p1 = await portGuest(a, "p1", 1);
  p2 = await portGuest(a, "p2", 2);
  p3 = await portGuest(b, "p3", 3);
  p4 = await portGuest(b, "p4", 4);
  const onBridge = (host: Host, name: string, number: number): Promise<Guest> =>
    host.guest(name, {
      bridge: "vnet97",
      address: [`10.97.0.${number}/24`, `fd97::${number}/64`],
      mtuBytes: 1500,
    });
  c1 = await onBridge(a, "c1", 5);
  c2 = await onBridge(b, "c2", 6);
  guests = [p1, p2, p3, p4, c1, c2];
});
afterAll(() => lab.close());

const ports = (host: Host): Promise<PortInfo[]> => host.vnetdJson<PortInfo[]>(["port-list"]);
const reasons = async (host: Host): Promise<string[]> =>
  (await host.vnetdJson<StatusInfo>(["status"])).drops.map(({ reason }) => reason);

async function reaches(from: Guest, to: Guest, address = addressOf(to)): Promise<void> {
  await eventually(async () => (await from.ping(address, { count: 1, waitMs: 1000 })).lost === 0, {
    ...patient,
    what: `${from.name} to reach ${to.name}`,
  });
}

describe("guests behind ports and bridges", () => {
  it("reach one another, by IPv4 and IPv6", async () => {
    for (const from of guests) {
      for (const to of guests) {
        if (from === to) continue;
        await reaches(from, to);
      }
    }
    await reaches(p1, p3, "fd97::3");
    await reaches(p3, c1, "fd97::5");
    await reaches(c2, p2, "fd97::2");
    await reaches(p1, p2, "fd97::2");
    expect(await ports(a)).toEqual(
      [p1, p2].map(({ port: device }) => ({
        ...{ vnet: longId("97"), device, state: "up", direct: true, macs: 1, problem: "" },
      })),
    );
    const vifs = await a.vnetdJson<VifInfo[]>(["vifs"]);
    expect(vifs).toContainEqual(
      expect.objectContaining({ vmac: await p1.mac(), device: p1.port, state: "learned" }),
    );
    const far = await b.vnetdJson<VarpEntry[]>(["varp"]);
    expect(far).toContainEqual(
      expect.objectContaining({ vmac: await p1.mac(), address: "10.66.1.1" }),
    );
  });

  it("hear a broadcast once each", async () => {
    expect(await timesHeard(guests, 0, "10.97.0.77")).toEqual(guests.map(() => 1));
    expect(await timesHeard(guests, 4, "10.97.0.78")).toEqual(guests.map(() => 1));
  });

  it("send bulk, and packets of any size", async () => {
    for (const [from, to, reverse] of [
      [p1, p3, false],
      [p1, p3, true],
      [p1, p2, false],
      [c1, p1, false],
    ] as const) {
      const { bytes } = await from.iperf3(to, { address: addressOf(to), seconds: 1, reverse });
      expect(bytes, `${from.name} and ${to.name}`).toBeGreaterThan(1_000_000);
    }
    // whole, too large for the underlay, in the guest's own fragments
    for (const sizeBytes of [0, 1372, 1472, 8000]) {
      for (const to of [p2, p3, c1, c2]) {
        // the first may be answered with what fits
        const size = { count: 1, sizeBytes, waitMs: 1000 };
        await eventually(async () => (await p1.ping(addressOf(to), size)).lost === 0, {
          ...patient,
          what: `${sizeBytes} bytes to reach ${to.name}`,
        });
      }
    }
  });

  it("are told what fits when they forbid fragments", async () => {
    // 1,436 bytes are left of 1,500
    const ping = await p1.tryExec([
      ...["ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", addressOf(p3)],
    ]);
    expect(ping.stdout + ping.stderr).toMatch(/mtu ?= ?1436/i);
  });

  it("go on, learn and reach all while the daemon is dead", async () => {
    const running = p1.startPing(addressOf(p3), { count: 100_000, intervalMs: 20 });
    await eventually(() => running.answers > 5, { ...patient, what: "answers" });
    await a.killDaemon("SIGKILL");
    // a guest that nobody knows: what is for it goes to all
    await p2.exec("ip link set eth0 address 02:97:00:00:00:22");
    await reaches(p2, p4);
    await reaches(c1, p2);
    expect(await timesHeard(guests, 1, "10.97.0.79")).toEqual(guests.map(() => 1));
    await startDaemon(a);
    const answers = running.answers;
    await eventually(() => running.answers > answers + 20, { ...patient, what: "more answers" });
    // the last may be on its way
    expect((await running.stop()).lost).toBeLessThanOrEqual(1);
    expect((await ports(a)).map(({ device, state }) => [device, state])).toEqual([
      [p1.port, "up"],
      [p2.port, "up"],
    ]);
  });

  it("move to another host, and their port with them", async () => {
    await reaches(p3, p2);
    await a.exec(["ip", "link", "set", p2.port, "netns", b.netns]);
    p2.host = b;
    await eventually(
      async () => (await ports(a)).find(({ device }) => device === p2.port)?.state === "absent",
      { ...patient, what: "the port to be missed" },
    );
    expect((await a.vnetdJson<VifInfo[]>(["vifs"])).map(({ vmac }) => vmac)).not.toContain(
      await p2.mac(),
    );
    await b.vnetd(["port-add", "97", p2.port]);
    for (const other of [p3, p1, c1, c2]) {
      await reaches(p2, other);
      await reaches(other, p2);
    }
    // and back, where it is still configured
    await b.vnetd(["port-delete", "97", p2.port]);
    await b.exec(["ip", "link", "set", p2.port, "netns", a.netns]);
    p2.host = a;
    await eventually(
      async () => (await ports(a)).find(({ device }) => device === p2.port)?.state === "up",
      { ...patient, what: "the port to be one again" },
    );
    for (const other of [p3, p1, c1]) await reaches(other, p2);
  });
});

describe("VMs' taps", () => {
  const [vmA, vmB, vmC] = ["52:54:00:00:97:0a", "52:54:00:00:97:0b", "52:54:00:00:97:0c"] as const;
  const taps = (): { netns: string; device: string }[] => [
    { netns: a.netns, device: "tapa" },
    { netns: a.netns, device: "tapb" },
    { netns: b.netns, device: "tapc" },
  ];

  it("carry frames of every kind, on one host and to another", async () => {
    for (const { netns, device } of taps()) {
      const host = netns === a.netns ? a : b;
      await host.exec(`ip tuntap add mode tap name ${device} vnet_hdr`);
      await addPort(host, device);
    }
    const from = (dst: string) => packet().eth({ src: vmA, dst });
    const hello = (tap: number, src: string) => ({
      tap,
      bytes: packet().eth({ src, dst: "ff:ff:ff:ff:ff:ff" }).arp().build(),
      awaited: true,
    });
    const kinds = (dst: string): Buffer[] => [
      from(dst).arp({ operation: 2 }).build(),
      from(dst).vlan({ id: 5 }).ipv4().udp({ dst: 9 }).payload(300).build(),
      from(dst).vlan({ id: 5 }).vlan({ id: 6 }).arp().build(),
      from(dst).llc(0x42).payload(35).build(),
      from(dst).ipv4().udp({ dst: 9 }).payload(20).build(),
      from(dst).ipv6().udp({ dst: 9 }).payload(1300).build(),
      from(dst).ipv4().tcp().payload(10).build(),
    ];
    // the second is longer than a packet can be with all that stands in front of it
    const lengths = [20_000, 65_495] as const;
    const cut = (dst: string): ReturnType<typeof offloaded>[] =>
      lengths.map((length) => offloaded(from(dst).ipv4().tcp().payload(length).build(), 1300));
    const { taps: got } = await runTaps({
      taps: taps(),
      frames: [
        hello(1, vmB),
        hello(2, vmC),
        hello(0, vmA),
        ...[vmB, vmC].flatMap((dst) => [
          ...kinds(dst).map((bytes) => ({ tap: 0, bytes, awaited: true })),
          ...cut(dst).map((frame) => ({ tap: 0, ...frame, awaited: true })),
        ]),
      ],
      quietMs: 500,
    });
    for (const [at, mac] of [
      [1, vmB],
      [2, vmC],
    ] as const) {
      const mine = got[at]!.frames.filter(
        ({ bytes }) =>
          bytes.subarray(6, 12).equals(Buffer.from(vmA.replaceAll(":", ""), "hex")) &&
          bytes.subarray(0, 6).equals(Buffer.from(mac.replaceAll(":", ""), "hex")),
      );
      const hexes = new Set(mine.map(({ bytes }) => bytes.toString("hex")));
      for (const bytes of kinds(mac)) {
        const found = [...hexes].some((hex) => hex.startsWith(bytes.toString("hex")));
        expect(found, `${mac}: ${bytes.subarray(12, 24).toString("hex")}`).toBe(true);
      }
      const bulk = mine.map(taken).filter(({ frame }) => frame.tcp !== undefined);
      const length = bulk
        .filter(({ frame }) => frame.payload.length > 100)
        .reduce((sum, { frame }) => sum + frame.payload.length, 0);
      expect(length).toBe(lengths[0] + lengths[1]);
    }
    // nobody else has what is for one
    const others = got[1]!.frames.filter(({ bytes }) =>
      bytes.subarray(0, 6).equals(Buffer.from(vmC.replaceAll(":", ""), "hex")),
    );
    expect(others).toEqual([]);
    // a VM that sends to a MAC of its own side
    await runTaps({
      taps: taps(),
      frames: [{ tap: 0, bytes: from(vmA).payload(50).build() }],
    });
    expect(await reasons(a)).toContain("hairpin");
  });
});

describe("commands", () => {
  it("refuse what cannot be a port", async () => {
    await a.exec("ip link add other0 type veth peer name other1");
    for (const [method, params, text] of [
      ["portAdd", { vnet: "98", device: "other0" }, /there is no vnet/],
      ["portAdd", { vnet: "97", device: "nothere" }, /there is no device nothere/],
      ["portAdd", { vnet: "97", device: "lo" }, /loopback/],
      ["portAdd", { vnet: "97", device: "eth0" }, /it is attached/],
      ["portAdd", { vnet: "97", device: c1.port }, /port of a bridge/],
      ["portAdd", { vnet: "97", device: "vnet97" }, /vnetd's own/],
      ["portAdd", { vnet: "97", device: "a/b" }, /device/],
      ["portDelete", { vnet: "97", device: "other0" }, /is no port/],
      ["attach", { device: p1.port }, /is a port of vnet/],
    ] as const)
      expect(await ask(a, method, params), `${method} ${params.device}`).toMatch(text);
    await a.vnetd(["vnet-create", "-b", "vnet98", "98"]);
    const other = await a.tryVnetd(["port-add", "98", p1.port]);
    expect(other.stderr).toMatch(/is a port of vnet .*97/);
    await a.vnetd(["port-add", "98", "other0"]);
    await a.vnetd(["vnet-delete", "98"]);
    expect((await ports(a)).map(({ device }) => device)).not.toContain("other0");
    await a.vnetd(["port-add", "97", "other0"]);
    await a.vnetd(["port-delete", "97", "other0"]);
  });

  it("tell by what port a frame would go", async () => {
    await reaches(p1, c1);
    const mac = await p1.mac();
    const { outcome, steps } = await a.vnetdJson<TraceReport>(["trace", "97", mac]);
    expect(outcome).toBe("delivered");
    expect(steps).toContainEqual(
      expect.objectContaining({ step: "delivers", text: `to port ${p1.port}` }),
    );
    const from = await a.vnetdJson<TraceReport>(["trace", "97", mac, "--from", "10.66.1.2"]);
    expect(from.steps).toContainEqual(
      expect.objectContaining({ step: "delivers", text: `to port ${p1.port}` }),
    );
  });

  it("hook a port again that somebody has unhooked, and leave nothing behind", async () => {
    const [link] = await a.ip<{ ifindex: number }[]>("link", "show", "dev", p1.port);
    await a.exec(["rm", `${a.bpffs}/layout-1/link-${String(link?.ifindex)}-ingress`]);
    await eventually(
      async () =>
        (await a.vnetdJson<StatusInfo>(["status"])).problems.some((each) => each.includes(p1.port)),
      { ...patient, what: "the removal to be told" },
    );
    await reaches(p1, p3);
    await a.vnetd(["detach", "--all"]);
    await b.vnetd(["vnet-delete", "97"]);
    expect(await ports(b)).toEqual([]);
    const { stdout } = await a.exec(["tc", "filter", "show", "dev", p1.port, "ingress"]);
    expect(stdout).toBe("");
  });
});
