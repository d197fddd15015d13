// SPDX-License-Identifier: Apache-2.0
/**
 * Dry runs: the programs say what they would do, and do nothing of it. What they make is compared with a run that
 * counts; every map of the running programs, and every device's counter, with what it was.
 */
import { readdirSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { walk, type Walked } from "../../src/controller/trace/walk.js";
import { DryRun, type DryProgram, type DryVnet } from "../../src/dataplane/dry-run.js";
import { readMeta, type Generation } from "../../src/dataplane/generation.js";
import { Maps, u32 } from "../../src/dataplane/maps.js";
import { VnetdFloods, vnetdControlOp, vnetdSecurity } from "../../src/generated/layouts.js";
import { BPF_OBJECT, BpfLab, SPI_IN, type LabVnet, type VnetOptions } from "../lib/bpf-lab.js";
import { expectBytes, macBytes, mappedBytes } from "../lib/bytes.js";
import { BROADCAST_MAC, packet } from "../lib/packet.js";
import { timeFactor } from "../lib/processes.js";
import { ENCAP_KINDS } from "./encap-rows.js";
import { GUEST_A, GUEST_B, PEER, THIRD, fromPeer, innerFrame } from "./rows.js";

// programs are loaded and checked for each
vi.setConfig({ testTimeout: 60_000 * timeFactor });

/** of what leaves, what a run on another CPU makes otherwise: IPv4 id and checksum */
const free = [
  [18, 20],
  [24, 26],
] as const;
const QUEUE = 22;
const RING = 27;
const DEVICES = ["ul0w", "ul1w", "vn0", "vn0p", "rl1", "os1", "xf0w", "sg1"] as const;
const SECURE = { security: vnetdSecurity.SECURITY_CONF } as const;

let lab: BpfLab;
let open: DryRun | undefined;
beforeAll(() => {
  lab = BpfLab.open({ quiet: true });
  lab.fragments(true);
  lab.forwarding(true);
});
beforeEach(() => {
  lab.underlay({ esp: "xf0" });
  lab.peers([]);
});
afterEach(() => {
  open?.close();
  open = undefined;
  lab.detach("ul1");
});
afterAll(() => lab.close());

function generation(): Generation {
  const fds = Object.fromEntries(readdirSync(lab.pinDir).map((name) => [name, lab.map(name)]));
  const maps = new Maps(lab.native, fds);
  return {
    ...{ layout: 1, objectPath: BPF_OBJECT, dir: lab.pinDir, maps },
    ...{ programs: {}, fresh: false, others: [] },
  };
}

/** All that is in maps, and what the devices have received. */
function everything(): Map<string, unknown> {
  const out = new Map<string, unknown>();
  for (const name of readdirSync(lab.pinDir)) {
    if ([QUEUE, RING].includes(lab.native.mapInfo(lab.map(name)).type)) continue;
    const { keys, values } = lab.native.mapDump(lab.map(name));
    // the order of a hash map does not change while nothing is written
    out.set(name, Buffer.concat([keys, values]).toString("base64"));
  }
  for (const device of DEVICES) out.set(device, lab.received(device));
  return out;
}

function dryRun(vnet: LabVnet, program: DryProgram = "vnetd_encap"): DryRun {
  const asked: DryVnet = { ...vnet, macs: [GUEST_A, GUEST_B].map(macBytes) };
  open = DryRun.open(lab.native, generation(), program, asked);
  return open;
}

function walked(
  vnet: LabVnet,
  frame: Buffer,
  { program = "vnetd_encap", mark = 0 }: { program?: DryProgram; mark?: number } = {},
): Walked {
  const dry = dryRun(vnet, program);
  const device = ({ vnetd_decap: "ul0", vnetd_esp: "xf0" } as const)[program as string] ?? "vn0p";
  return walk(
    {
      run: (pass) => dry.run(pass.program, pass.packet, { ifindex: pass.ifindex, mark: pass.mark }),
      meta: readMeta(lab.native, generation().maps),
      vnifPeer: lab.ifindex("vn0p"),
      ports: new Set(),
      portOf: undefined,
    },
    { program, packet: frame, ifindex: lab.ifindex(device), mark },
  );
}

const learnB = (vnet: LabVnet): void => {
  lab.control(vnetdControlOp.CTL_LEARN, vnet, { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) });
};
/** Runs it, and asserts that nothing is as it was not before. */
function untouched<T>(run: () => T): T {
  const before = everything();
  const result = run();
  const after = everything();
  for (const [name, value] of before)
    expect({ [name]: after.get(name) }).toEqual({ [name]: value });
  return result;
}

describe.each(["IPv4 UDP", "ARP"])("%s", (name) => {
  it.each(["to a host that is known", "to all"])("%s", (kind) => {
    const { frame } = ENCAP_KINDS[name]!;
    const vnet = lab.vnet();
    if (kind !== "to all") learnB(vnet);
    const dry = untouched(() =>
      dryRun(vnet).run("vnetd_encap", frame.build(), { ifindex: lab.ifindex("vn0p") }),
    );
    expect(open!.entry(macBytes(GUEST_A))).toMatchObject({ nexthop: 0 });
    expect(Number(open!.traffic().frames[0])).toBe(1);
    const real = lab.run("vnetd_encap", frame.build());
    expect(real.verdict).toBe("redirect");
    expect(dry).toMatchObject({ verdict: 7, mark: real.mark, copyCount: 0 });
    expectBytes(dry.packet, real.output, { free });
  });
});

const broadcast = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).ipv4().udp({ dst: 9 });
const toB = (bytes: number): Buffer =>
  packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp({ dst: 9 }).payload(bytes).build();

describe("copies are noted, and none leaves", () => {
  it("to the group of each device", () => {
    lab.underlay({ device: "ul1" });
    const vnet = lab.vnet();
    const { ways } = untouched(() => walked(vnet, broadcast.build()));
    const sources = ways.map((way) => (way.kind === "sent" ? way.headers.source : way.kind));
    expect(sources.sort()).toEqual(["10.66.1.1", "10.66.2.1"]);
    // a real one does leave: else the counters would show nothing
    const before = lab.received("ul0w") + lab.received("ul1w");
    lab.run("vnetd_encap", broadcast.build());
    expect(lab.received("ul0w") + lab.received("ul1w")).toBe(before + 1);
  });

  it("to peers, inside VFWD", () => {
    lab.peers([{ address: "10.66.1.77" }, { address: "10.66.1.78" }]);
    const vnet = lab.vnet();
    const { ways, programs } = untouched(() => walked(vnet, broadcast.build()));
    expect(programs).toEqual(["vnetd_encap", "vnetd_relay"]);
    const seen = ways.flatMap((way) =>
      way.kind === "sent" ? [[way.headers.destination, way.relayed, way.headers.message]] : [],
    );
    expect(seen).toEqual([
      ["224.10.0.1", false, "vudp"],
      ["10.66.1.77", true, "vfwd"],
      ["10.66.1.78", true, "vfwd"],
    ]);
  });

  it("in fragments", () => {
    const vnet = lab.vnet();
    learnB(vnet);
    const { ways, programs } = untouched(() => walked(vnet, toB(1550)));
    expect(programs).toEqual(["vnetd_encap", "vnetd_oversize"]);
    expect(ways).toMatchObject([{ kind: "sent", fragments: 2, headers: { destination: PEER } }]);
  });

  it("to each member of a secure vnet, by its SA", () => {
    const vnet = lab.vnet(SECURE);
    const members = [PEER, THIRD].map((host) => lab.keys(vnet, host));
    lab.secureMembers(vnet, members);
    const { ways } = untouched(() => walked(vnet, broadcast.build()));
    expect(ways).toMatchObject(members.map(({ nexthop }) => ({ kind: "sealed", nexthop })));
  });
});

describe("what else becomes of it", () => {
  it("a secure vnet's frame goes by the SA of its host; without keys nowhere", () => {
    const vnet = lab.vnet(SECURE);
    learnB(vnet);
    expect(untouched(() => walked(vnet, toB(40))).ways).toEqual([]);
    expect(open!.drops()).toMatchObject([{ reason: "no_keys", direction: "encap", frames: 1 }]);
    open!.close();
    const { nexthop } = lab.keys(vnet, PEER);
    expect(walked(vnet, toB(40)).ways).toMatchObject([{ kind: "sealed", nexthop }]);
  });

  it("a guest that forbids fragments is told", () => {
    const vnet = lab.vnet();
    learnB(vnet);
    const frame = toB(2500);
    // DF, and the header's checksum less as much
    frame.writeUInt16BE(0x4000, 20);
    const { ways } = untouched(() => walked(vnet, frame));
    expect(ways).toEqual([{ kind: "answered", mtuBytes: 1436 }]);
    expect(open!.drops()).toMatchObject([{ reason: "too_big" }]);
  });

  it("from another host: delivered, learned, or refused", () => {
    const vnet = lab.vnet();
    const arrives = fromPeer().vudp({ vnet: "4" }).payload(innerFrame().build()).build();
    const { ways } = untouched(() => walked(vnet, arrives, { program: "vnetd_decap" }));
    expect(ways).toEqual([{ kind: "delivered" }]);
    open!.close();
    lab.setVnet(vnet, SECURE);
    expect(walked(vnet, arrives, { program: "vnetd_decap" }).ways).toEqual([]);
    expect(open!.drops()).toMatchObject([{ reason: "security", direction: "decap" }]);
  });

  it("by an SA: delivered, or from no member", () => {
    const vnet = lab.vnet(SECURE);
    lab.receiveBy(vnet, PEER);
    const inside = fromPeer().vudp({ vnet: "4" }).payload(innerFrame().build()).build();
    const by = { program: "vnetd_esp", mark: SPI_IN } as const;
    expect(untouched(() => walked(vnet, inside, by)).ways).toEqual([{ kind: "delivered" }]);
    open!.close();
    expect(walked(vnet, inside, { ...by, mark: SPI_IN + 1 }).ways).toEqual([]);
    expect(open!.drops()).toMatchObject([{ reason: "esp_unknown" }]);
  });

  it.each<[string, VnetOptions, string]>([
    ["this host's share is used up", { maxEntriesPerHost: 1 }, "refused_host_limit"],
    ["the vnet is full", { maxEntries: 1 }, "refused_vnet_limit"],
  ])("%s: the source would not be learned", (_name, options, reason) => {
    const vnet = lab.vnet(options);
    lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes("aa:00:00:00:00:77") });
    const { ways } = untouched(() => walked(vnet, broadcast.build()));
    expect(ways).toHaveLength(1);
    expect(open!.drops()).toMatchObject([{ reason }]);
    expect(open!.entry(macBytes(GUEST_A))).toBeUndefined();
  });

  it("the vnet's budget is used up", () => {
    const vnet = lab.vnet({ floodPerSecond: 1, floodBurst: 1 });
    const anHour = 3600n * 1_000_000_000n;
    const budget = lab.native.mapLookup(lab.map("floods"), u32(vnet.slot))!;
    budget.writeBigUInt64LE(process.hrtime.bigint() + anHour, VnetdFloods.fields.sentNs.offset);
    lab.native.mapUpdate(lab.map("floods"), u32(vnet.slot), budget);
    expect(untouched(() => walked(vnet, broadcast.build())).ways).toEqual([]);
    expect(open!.drops()).toMatchObject([{ reason: "storm" }]);
  });
});

it("the whole table is full", () => {
  lab.close();
  lab = BpfLab.open({ quiet: true, maxEntries: { fdb: 2, fdb_queue: 2 } });
  const vnet = lab.vnet();
  for (const mac of ["aa:00:00:00:00:77", "aa:00:00:00:00:78"])
    lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(mac) });
  untouched(() => walked(vnet, broadcast.build()));
  expect(open!.drops()).toMatchObject([{ reason: "refused_table_full" }]);
});
