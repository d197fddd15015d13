// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's hand in the tables (vnetd_control), ageing and the sweeper, which work with no
 * daemon, and the answer to `ping 224.10.0.1`.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Control, MacBatch } from "../../src/dataplane/control.js";
import {
  decodeVnetdNexthop,
  encodeVnetdHostPathKey,
  reasonNames,
  vnetdControlOp,
  vnetdDirection,
  vnetdFdbFlags,
  vnetdNexthopFlags,
} from "../../src/generated/layouts.js";
import { expectBytes, macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type VnetOptions } from "../lib/bpf-lab.js";
import { eventually, timeFactor } from "../lib/processes.js";
import { VNETD_GROUP, VNETD_GROUP_MAC, packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { GUEST_A, GUEST_B, PEER, THIRD, US, fromPeer, innerFrame } from "./rows.js";

let lab: BpfLab | undefined;
let vnet: LabVnet;
const make = (options?: VnetOptions): LabVnet => (vnet = lab!.vnet(options));
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());
beforeEach(() => {
  lab!.underlay();
  make();
});

/** the answer's reason, by name */
function control(op: number, request: Parameters<BpfLab["control"]>[2] = {}): string {
  const { result } = lab!.control(op, vnet, request);
  return reasonNames[result] ?? `number ${result}`;
}
const learn = (mac: string, host: string, fdbFlags = 0): string =>
  control(vnetdControlOp.CTL_LEARN, { mac: macBytes(mac), addr: mappedBytes(host), fdbFlags });
const hear = (mac: string, host: string): void =>
  void lab!.run(
    "vnetd_decap",
    fromPeer({ src: host })
      .vudp({ vnet: "4" })
      .payload(innerFrame({ src: mac }).build())
      .build(),
  );

describe("vnetd_control", () => {
  it("enters what an announce says; a frame from there confirms it", () => {
    expect(learn(GUEST_B, PEER, vnetdFdbFlags.FDB_ANNOUNCED)).toBe("ok");
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({
      host: PEER,
      flags: vnetdFdbFlags.FDB_ANNOUNCED,
    });
    hear(GUEST_B, PEER);
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({ host: PEER, flags: 0 });
  });

  it("enters what a member announces of itself, and that it was heard, in one call", async () => {
    const { CTL_LEARN, CTL_LEARN_HEARD, CTL_NEXTHOP } = vnetdControlOp;
    const host = { addr: mappedBytes(PEER), mac: macBytes(GUEST_B) };
    // times are of the last tick of the clock, at least 100 a second
    const tick = (): Promise<void> => sleep(30);
    const heard = (): { ns: bigint; path: boolean } => {
      const { native } = lab!;
      const { nexthop } = lab!.control(CTL_LEARN, vnet, host);
      const id = Buffer.alloc(4);
      id.writeUInt32LE(nexthop);
      const { heardNs: ns } = decodeVnetdNexthop(native.mapLookup(lab!.map("nexthops"), id)!);
      const key = encodeVnetdHostPathKey({ addr: host.addr, ifindex: lab!.ifindex("ul0") });
      return { ns, path: native.mapLookup(lab!.map("host_paths"), key) !== undefined };
    };
    // who is no member says nothing of the path
    const before = heard();
    expect(before.path).toBe(false);
    await tick();
    expect(control(CTL_LEARN_HEARD, host)).toBe("ok");
    const after = heard();
    expect(after.ns).toBeGreaterThan(before.ns);
    expect(after.path).toBe(false);
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({ host: PEER });
    await tick();
    const member = { nexthopFlags: vnetdNexthopFlags.NEXTHOP_MEMBER, mtu: 1500 };
    expect(control(CTL_NEXTHOP, { ...host, ...member })).toBe("ok");
    expect(control(CTL_LEARN_HEARD, host)).toBe("ok");
    const last = heard();
    expect(last.ns).toBeGreaterThan(after.ns);
    expect(last.path).toBe(true);
    // it was heard, whether its MAC is taken or not
    await tick();
    const group = { ...host, mac: macBytes("03:00:00:00:00:01") };
    expect(control(CTL_LEARN_HEARD, group)).toBe("refused_group_mac");
    expect(heard().ns).toBeGreaterThan(last.ns);
  });

  it("moves an entry, and counts keep step", () => {
    learn(GUEST_B, PEER);
    learn(GUEST_B, THIRD);
    expect(control(vnetdControlOp.CTL_LEARN_LOCAL, { mac: macBytes(GUEST_B) })).toBe("ok");
    expect(lab!.learned(vnet, GUEST_B)?.host).toBe("local");
    expect(lab!.counts(vnet)).toMatchObject({ entries: 1, hosts: 2, local: 1 });
    learn(GUEST_B, PEER);
    expect(lab!.counts(vnet)).toMatchObject({ entries: 1, hosts: 2, local: 0 });
  });

  it("enters many announced MACs at once, leaves those that live here, and says which", () => {
    const control = new Control(lab!.native, lab!.program("vnetd_control"), -1);
    expect(
      lab!.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(GUEST_A) }).result,
    ).toBe(0);
    const ifindex = lab!.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac: macBytes("02:00:00:00:00:77"),
      addr: mappedBytes(PEER),
    }).ifindex;
    const batch = new MacBatch();
    const now = process.hrtime.bigint();
    for (const mac of [GUEST_B, GUEST_A, "03:00:00:00:00:01"]) batch.add(macBytes(mac), now);
    const { slot, handle } = vnet;
    const host = { slot, handle, ifindex, addr: mappedBytes(PEER) };
    const request = { ...host, fdbFlags: vnetdFdbFlags.FDB_ANNOUNCED };
    expect(control.learnMany(request, batch)).toEqual({
      ...{ entered: 1, reason: "refused_group_mac", here: [1] },
    });
    expect(lab!.learned(vnet, GUEST_A)?.host).toBe("local");
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({
      host: PEER,
      flags: vnetdFdbFlags.FDB_ANNOUNCED,
    });
    // as when a table is taken over: what it says is so
    batch.add(macBytes(GUEST_A), now);
    expect(control.learnMany({ ...host, fdbFlags: 0 }, batch)).toMatchObject({
      entered: 1,
      here: [],
    });
    expect(lab!.learned(vnet, GUEST_A)?.host).toBe(PEER);
  });

  it("a static entry is taken by a frame, not by what somebody says; a pinned one by neither", () => {
    const { FDB_STATIC, FDB_PINNED, FDB_ANNOUNCED } = vnetdFdbFlags;
    const here = (fdbFlags: number): string =>
      control(vnetdControlOp.CTL_LEARN_LOCAL, { mac: macBytes(GUEST_B), fdbFlags });
    expect(here(FDB_STATIC)).toBe("ok");
    expect(learn(GUEST_B, PEER, FDB_ANNOUNCED)).toBe("ok");
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({ host: "local", flags: FDB_STATIC });
    hear(GUEST_B, PEER);
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({ host: PEER, flags: 0 });
    // who configures it takes it back, changes its kind, and lets it go
    expect(here(FDB_STATIC)).toBe("ok");
    expect(here(FDB_STATIC | FDB_PINNED)).toBe("ok");
    expect(learn(GUEST_B, PEER, FDB_ANNOUNCED)).toBe("refused_static");
    hear(GUEST_B, PEER);
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({
      host: "local",
      flags: FDB_STATIC | FDB_PINNED,
    });
    expect(here(FDB_STATIC)).toBe("ok");
    hear(GUEST_B, PEER);
    expect(lab!.learned(vnet, GUEST_B)?.host).toBe(PEER);
    expect(lab!.counts(vnet)).toMatchObject({ entries: 1, local: 0 });
  });

  it("forgets what lives here without touching what has moved away", () => {
    const forget = (): string =>
      control(vnetdControlOp.CTL_FORGET_LOCAL, { mac: macBytes(GUEST_B) });
    control(vnetdControlOp.CTL_LEARN_LOCAL, { mac: macBytes(GUEST_B) });
    expect(forget()).toBe("ok");
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({ host: "local", seenNs: 0n });
    hear(GUEST_B, PEER);
    const { seenNs } = lab!.learned(vnet, GUEST_B)!;
    expect(forget()).toBe("ok");
    expect(lab!.learned(vnet, GUEST_B)).toMatchObject({ host: PEER, seenNs });
  });

  it("a flush forgets what was heard of other hosts, not what lives here", async () => {
    const frame = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().build();
    const sent = (): string => parseFrame(lab!.run("vnetd_encap", frame).output).ipv4!.dst;
    hear(GUEST_B, PEER);
    expect(sent()).toBe(PEER);
    await lab!.takeEvents();
    lab!.setVnet(vnet, { flushedNs: 1n << 62n });
    expect(sent()).toBe(VNETD_GROUP);
    // were A forgotten too, its frame would make it new here
    expect((await lab!.takeEvents()).map(({ kind }) => kind)).toEqual(["unknown-unicast"]);
  });

  it.each([
    ["refused_group_mac", () => learn("01:00:5e:00:00:01", PEER)],
    ["own_echo", () => learn(GUEST_B, US)],
    [
      "unknown_vnet",
      () => reasonNames[lab!.control(vnetdControlOp.CTL_LEARN, { ...vnet, handle: 7 }).result],
    ],
    [
      "unknown_vnet",
      () => reasonNames[lab!.control(vnetdControlOp.CTL_LEARN, { ...vnet, slot: 4095 }).result],
    ],
    [
      "unknown_vnet",
      () => reasonNames[lab!.control(vnetdControlOp.CTL_LEARN, { ...vnet, slot: 1 << 30 }).result],
    ],
    ["unknown_message", () => control(99)],
  ])("answers %s and changes nothing", (reason, request) => {
    expect(request()).toBe(reason);
    expect(lab!.counts(vnet)).toMatchObject({ entries: 0, hosts: 0, local: 0 });
  });

  it("counts what the daemon refuses by vnet, direction and reason, and nothing else", () => {
    const { CTL_COUNT } = vnetdControlOp;
    const { DIR_ENCAP, DIR_DECAP } = vnetdDirection;
    const number = reasonNames.indexOf("varp_bad_tlv");
    const count = (change: Parameters<typeof control>[1]): string =>
      control(CTL_COUNT, { result: number, mtu: 60, path: DIR_DECAP, ...change });
    expect([count({}), count({}), count({ path: DIR_ENCAP, handle: 0 })]).toEqual([
      "ok",
      "ok",
      "ok",
    ]);
    for (const change of [{ result: 0 }, { result: reasonNames.length }, { path: 2 }])
      expect(count(change)).toBe("unknown_message");
    const counted = [...lab!.dropCounters().values()].filter((d) => d.reason === "varp_bad_tlv");
    expect(counted.sort((x, y) => x.handle - y.handle)).toMatchObject([
      { handle: 0, direction: "encap", frames: 1 },
      { handle: vnet.handle, direction: "decap", frames: 2 },
    ]);
  });

  it("is bound by the vnet's limits as frames are", () => {
    make({ maxEntries: 1 });
    expect(learn(GUEST_A, PEER)).toBe("ok");
    expect(learn(GUEST_B, PEER)).toBe("refused_vnet_limit");
  });
});

describe("with no daemon", () => {
  it("an entry dies at its age, decided when it is looked up", async () => {
    make({ ageMs: 150 });
    const toB = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().build();
    const destination = (): string => parseFrame(lab!.run("vnetd_encap", toB).output).ipv4!.dst;
    hear(GUEST_B, PEER);
    expect(destination()).toBe(PEER);
    await sleep(250);
    expect(destination()).toBe(VNETD_GROUP);
    hear(GUEST_B, PEER);
    expect(destination()).toBe(PEER);
  });

  it("sending does not keep an entry alive", async () => {
    make({ ageMs: 300 });
    const toB = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().build();
    hear(GUEST_B, PEER);
    for (let i = 0; i < 5; i++) {
      await sleep(100);
      lab!.run("vnetd_encap", toB);
    }
    expect(parseFrame(lab!.run("vnetd_encap", toB).output).ipv4!.dst).toBe(VNETD_GROUP);
  });

  /** struct vnetd_sweeper: a timer, a cursor, and this */
  const tokens = (): number =>
    lab!.native.mapLookup(lab!.map("sweeper"), Buffer.alloc(4))!.readUInt32LE(20);

  it(
    "the sweeper gives back what died, static entries stay",
    async () => {
      make({ ageMs: 100 });
      for (let n = 0; n < 50; n++) hear(`02:dd:00:00:00:${n.toString(16).padStart(2, "0")}`, PEER);
      learn(GUEST_A, THIRD, vnetdFdbFlags.FDB_STATIC);
      expect(lab!.counts(vnet)).toMatchObject({ entries: 51, hosts: 2 });
      expect(control(vnetdControlOp.CTL_START)).toBe("ok");
      await eventually(() => lab!.counts(vnet).entries === 1, { what: "the sweep of entries" });
      // by this count the sweeper knows how much there is to look at
      await eventually(() => tokens() === lab!.native.mapDump(lab!.map("fdb")).count);
      expect(tokens()).toBeGreaterThan(0);
      // the host that has nothing left is forgotten too; all are looked at once in 15 s
      await eventually(() => lab!.counts(vnet).hosts === 1, { timeoutMs: 25_000, everyMs: 200 });
      expect(lab!.learned(vnet, GUEST_A)?.host).toBe(THIRD);
      // what was given back can be had again
      hear(GUEST_B, PEER);
      expect(lab!.learned(vnet, GUEST_B)?.host).toBe(PEER);
      expect(lab!.counts(vnet).hosts).toBe(2);
    },
    40_000 * timeFactor,
  );
});

describe("ping to the group", () => {
  const ping = (options: { src?: string; dst?: string; type?: "reply" } = {}): Buffer =>
    packet()
      .eth({ src: "02:00:0a:42:01:09", dst: VNETD_GROUP_MAC })
      .ipv4({ src: options.src ?? PEER, dst: options.dst ?? VNETD_GROUP, ttl: 1, id: 77 })
      .icmpEcho({ id: 5, sequence: 6, reply: options.type === "reply" })
      .payload(56)
      .build();

  it("is answered from our own address", async () => {
    await sleep(5);
    const run = lab!.run("vnetd_decap", ping());
    expect(run).toMatchObject({ verdict: "redirect", drops: [] });
    const expected = packet()
      .eth({ src: lab!.mac("ul0"), dst: "02:00:0a:42:01:09" })
      .ipv4({ src: US, dst: PEER, ttl: 64, id: 77 })
      .icmpEcho({ id: 5, sequence: 6, reply: true })
      .payload(56);
    expectBytes(run.output, expected.build());
  });

  it.each([
    ["to our own address", ping({ dst: US })],
    ["to another group", ping({ dst: "224.0.0.1" })],
    ["an echo reply", ping({ type: "reply" })],
    ["from ourselves", ping({ src: US })],
    ["from a group", ping({ src: "224.1.1.1" })],
    ["from 0.0.0.0", ping({ src: "0.0.0.0" })],
  ])("%s is left to the stack", async (_what, bytes) => {
    await sleep(5);
    const run = lab!.run("vnetd_decap", bytes);
    expect(run).toMatchObject({ verdict: "pass", drops: [] });
    expectBytes(run.output, bytes);
  });

  it("a flood of them is left to the stack but for one in a millisecond", () => {
    const started = performance.now();
    const verdicts = Array.from({ length: 200 }, () => {
      const fd = lab!.program("vnetd_decap");
      return lab!.native.progTestRun(fd, ping(), { ifindex: lab!.ifindex("ul0") }).retval;
    });
    const elapsedMs = performance.now() - started;
    const answered = verdicts.filter((v) => v !== 0).length;
    // the kernel's coarse clock moves on in ticks, of up to 10 ms: never more than one a millisecond
    expect(answered).toBeGreaterThan(0);
    expect(answered).toBeLessThanOrEqual(Math.ceil(elapsedMs) + 1);
  });
});
