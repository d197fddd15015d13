// SPDX-License-Identifier: Apache-2.0
/** Budgets of the group in time, MACs that move to and fro, and the daemon's probes. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { encodeVnetdControl, vnetdControlOp, vnetdProbeWire } from "../../src/generated/layouts.js";
import { BpfLab, type LabVnet, type Run } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, VNETD_GROUP, packet } from "../lib/packet.js";
import { timeFactor } from "../lib/processes.js";
import { FLOOD_ROWS, NONCE, OTHER_NONCE, probeFrame } from "./flood-rows.js";
import { GUEST_A, GUEST_B, PEER, THIRD, fromPeer, innerFrame, runRow } from "./rows.js";

let lab: BpfLab | undefined;
let vnet: LabVnet;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());

describe("to and from the group", () => {
  for (const row of FLOOD_ROWS) it(row.description, () => runRow(lab!, row));

  it("hosts that find no place in the table share one budget", () => {
    lab!.underlay();
    vnet = lab!.vnet({ floodPerSecond: 1, floodBurst: 3, maxHosts: 1 });
    const frame = packet().eth({ src: GUEST_B, dst: BROADCAST_MAC }).arp().build();
    const from = (host: string): Run =>
      lab!.run(
        "vnetd_decap",
        fromPeer({ src: host, dst: VNETD_GROUP }).vudp({ vnet: "4" }).payload(frame).build(),
      );
    from(PEER);
    const runs = Array.from({ length: 8 }, (_, n) => from(`10.66.1.${20 + n}`));
    const verdicts = runs.map(({ verdict }) => verdict);
    expect(verdicts).toEqual([...Array<string>(6).fill("redirect"), "drop", "drop"]);
    expect(runs[7]?.drops.map(({ reason }) => reason).sort()).toEqual([
      "refused_vnet_hosts",
      "storm",
    ]);
    expect(from(PEER).verdict).toBe("redirect");
  });

  /** Sends that often, and returns how many passed and how long it took; the rest was a storm. */
  function passed(frame: Uint8Array, count: number): { count: number; elapsedMs: number } {
    const before = lab!.traffic(vnet).floodedFrames;
    const stormed = (): number =>
      [...lab!.dropCounters().values()].find(
        ({ reason, handle }) => reason === "storm" && handle === vnet.handle,
      )?.frames ?? 0;
    const stormedBefore = stormed();
    const options = { ifindex: lab!.ifindex("vn0p") };
    const startedMs = performance.now();
    for (let n = 0; n < count; n++)
      lab!.native.progTestRun(lab!.program("vnetd_encap"), frame, options);
    const elapsedMs = performance.now() - startedMs;
    const through = lab!.traffic(vnet).floodedFrames - before;
    expect(through + stormed() - stormedBefore).toBe(count);
    return { count: through, elapsedMs };
  }
  const arp = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp().build();

  it("a vnet in a loop has a hundred frames a second, whatever it had before", () => {
    lab!.underlay();
    vnet = lab!.vnet({ probeNonce: NONCE, floodPerSecond: 1_000_000, floodBurst: 1_000_000 });
    expect(passed(arp, 1000).count).toBe(1000);
    lab!.run("vnetd_encap", probeFrame(NONCE, 1).build());
    const { count, elapsedMs } = passed(arp, 1000);
    expect(count).toBeGreaterThanOrEqual(100);
    expect(count).toBeLessThanOrEqual(102 + elapsedMs / 10);
  });

  it("and so has one without a limit, while one with a smaller limit keeps that", () => {
    lab!.underlay();
    vnet = lab!.vnet({ probeNonce: NONCE, floodPerSecond: 0 });
    lab!.run("vnetd_encap", probeFrame(NONCE, 1).build());
    expect(passed(arp, 1000).count).toBeLessThan(900);
    vnet = lab!.vnet({ probeNonce: NONCE, floodPerSecond: 10, floodBurst: 20 });
    lab!.run("vnetd_encap", probeFrame(NONCE, 1).build());
    const { count, elapsedMs } = passed(arp, 1000);
    expect(count).toBeLessThanOrEqual(22 + elapsedMs / 100);
  });

  it("others' probes have a budget of their own", () => {
    lab!.underlay();
    vnet = lab!.vnet({ probeNonce: NONCE });
    const { count, elapsedMs } = passed(probeFrame(OTHER_NONCE, 1).build(), 500);
    expect(count).toBeGreaterThanOrEqual(20);
    expect(count).toBeLessThanOrEqual(22 + elapsedMs / 50);
  });

  it("the budget comes back at its rate, and no more than the burst of it", async () => {
    lab!.underlay();
    vnet = lab!.vnet({ floodPerSecond: 100, floodBurst: 20 });
    // one in 10 ms, and the kernel's coarse clock, which moves in steps of up to 10 ms
    const most = (sinceMs: number): number => 20 + Math.ceil((sinceMs + 10) / 10) + 1;
    const startedMs = performance.now();
    const first = passed(arp, 400);
    expect(first.count).toBeGreaterThanOrEqual(20);
    expect(first.count).toBeLessThanOrEqual(most(first.elapsedMs));
    await sleep(100);
    const again = passed(arp, 400);
    expect(again.count).toBeGreaterThanOrEqual(8);
    expect(first.count + again.count).toBeLessThanOrEqual(most(performance.now() - startedMs));
    await sleep(600);
    const rested = passed(arp, 400);
    expect(rested.count).toBeGreaterThanOrEqual(20);
    expect(rested.count).toBeLessThanOrEqual(most(rested.elapsedMs));
  });
});

describe("a MAC that moves", () => {
  const from = (host: string): void =>
    void lab!.run(
      "vnetd_decap",
      fromPeer({ src: host }).vudp({ vnet: "4" }).payload(innerFrame().build()).build(),
    );
  const here = (): void =>
    void lab!.run(
      "vnetd_encap",
      packet().eth({ src: GUEST_B, dst: BROADCAST_MAC }).ipv4().udp().build(),
    );
  const place = (): string | undefined => lab!.learned(vnet, GUEST_B)?.host;
  beforeEach(() => {
    lab!.underlay();
    vnet = lab!.vnet();
  });

  it("is followed at once, three times in a row and once more", () => {
    from(PEER);
    for (const host of [THIRD, PEER, THIRD, PEER]) {
      from(host);
      expect(place()).toBe(host);
    }
  });

  it("and once more is held where it is heard, frames go on, and both places are told", async () => {
    from(PEER);
    for (const host of [THIRD, PEER, THIRD, PEER, THIRD]) from(host);
    expect(place()).toBe(THIRD);
    await lab!.takeEvents();
    const before = lab!.traffic(vnet).decapFrames;
    for (let n = 0; n < 20; n++) {
      from(PEER);
      expect(place()).toBe(THIRD);
      from(THIRD);
    }
    expect(lab!.traffic(vnet).decapFrames - before).toBe(40);
    const events = await lab!.takeEvents();
    // once a second, not with each frame
    expect(events.length).toBeLessThanOrEqual(2);
    expect(events[0]).toMatchObject({ kind: "held", handle: vnet.handle, mac: GUEST_B });
    const [event] = events;
    if (event?.kind !== "held") throw new Error("no event");
    expect(event.from).not.toBe(event.to);
    expect(lab!.counts(vnet)).toMatchObject({ entries: 1, hosts: 2 });
  });

  it("between this host and another is held as well", () => {
    here();
    for (let n = 0; n < 2; n++) {
      from(PEER);
      here();
    }
    from(PEER);
    expect(place()).toBe(PEER);
    here();
    expect(place()).toBe(PEER);
  });

  it(
    "is followed when the place where it is held falls silent",
    async () => {
      from(PEER);
      for (const host of [THIRD, PEER, THIRD, PEER, THIRD]) from(host);
      from(PEER);
      expect(place()).toBe(THIRD);
      await sleep(2200);
      from(PEER);
      expect(place()).toBe(PEER);
    },
    20_000 * timeFactor,
  );
});

describe("VNETD_CTL_PROBE", () => {
  const probe = (ifindex: number, length: number = vnetdProbeWire.PROBE_FRAME_LEN): number => {
    const request = encodeVnetdControl({
      eth: Buffer.from("03564e54500100000000000088b5", "hex"),
      op: vnetdControlOp.CTL_PROBE,
      result: 0xffff,
      slot: vnet.slot,
      handle: vnet.handle,
      ifindex,
      fdbFlags: 0,
      nexthop: 0,
      nexthopFlags: 0,
      capabilities: 0,
      mtu: 0,
      mac: Buffer.alloc(6),
      addr: Buffer.alloc(16),
      otherIfindex: 0,
      otherAddr: Buffer.alloc(16),
      host: Buffer.alloc(16),
      path: 0,
      spi: 0,
      gen: 0,
    });
    const packetBytes = Buffer.concat([request, Buffer.alloc(300)]).subarray(0, length);
    const { data } = lab!.native.progTestRun(lab!.program("vnetd_control"), packetBytes);
    return data.readUInt32LE(16);
  };

  it("sends one to the group, and one into the bridge where a port is named", () => {
    vnet = lab!.vnet({ probeNonce: NONCE });
    expect(probe(0)).toBe(0);
    expect(probe(lab!.ifindex("vn0"))).toBe(0);
    expect(probe(0x7fffff)).not.toBe(0);
  });

  it("sends none where the vnet has no nonce, or the request no room", () => {
    vnet = lab!.vnet();
    expect(probe(0)).not.toBe(0);
    vnet = lab!.vnet({ probeNonce: NONCE });
    expect(probe(0, 72)).not.toBe(0);
  });
});
