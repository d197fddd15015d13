// SPDX-License-Identifier: Apache-2.0
/** What the programs tell who watches: records of the ring `watched`, and that there are none when nobody does. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { WatchMap } from "../../src/dataplane/watch-map.js";
import { Maps } from "../../src/dataplane/maps.js";
import {
  VnetdEventPacket,
  decodeVnetdEventMac,
  decodeVnetdEventPacket,
  decodeVnetdVnet,
  encodeVnetdVnet,
  reasonNames,
  vnetdControlOp,
  vnetdDirection,
  vnetdEventType,
  vnetdLimits,
  vnetdVnetFlags,
  vnetdWatchFlags,
  type VnetdWatch,
} from "../../src/generated/layouts.js";
import { macBytes, macText } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type ProgramName } from "../lib/bpf-lab.js";
import { packet, type PacketBuilder } from "../lib/packet.js";
import { eventually } from "../lib/processes.js";
import { GUEST_A, GUEST_B, fromPeer, innerFrame } from "./rows.js";

const { WATCH_EVENTS, WATCH_FRAMES } = vnetdWatchFlags;
const { EVENT_DROP, EVENT_FRAME, EVENT_LEARNED, EVENT_AGED } = vnetdEventType;
const inOneMinute = (): bigint => process.hrtime.bigint() + 60_000_000_000n;

let lab: BpfLab;
let map: WatchMap;
let ring: { close(): void };
const records: Buffer[] = [];
let vnet: LabVnet;

beforeAll(() => {
  lab = BpfLab.open();
  map = new WatchMap(
    lab.native,
    new Maps(lab.native, { watch: lab.map("watch"), watch_stats: lab.map("watch_stats") }),
  );
  ring = lab.native.ringConsume(lab.map("watched"), (record) => records.push(Buffer.from(record)));
});
afterAll(() => {
  ring.close();
  lab.close();
});
beforeEach(async () => {
  map.clear();
  await said();
  records.length = 0;
  vnet = lab.vnet();
});

/** The event loop reads the ring when it turns. */
async function said(): Promise<Buffer[]> {
  let before = -1;
  await eventually(
    async () => {
      before = records.length;
      await new Promise((resolve) => setTimeout(resolve, 20));
      return before === records.length;
    },
    { what: "the ring to be empty" },
  );
  return records;
}

function look(watch: Partial<VnetdWatch>): void {
  const none = { flags: 0, handle: 0, reason: 0, framesHandle: 0, snap: 0 };
  map.set({ ...none, untilNs: inOneMinute(), ...watch });
}

const run = (program: ProgramName, input: PacketBuilder | Buffer): ReturnType<BpfLab["run"]> =>
  lab.run(program, Buffer.isBuffer(input) ? input : input.build());

const incoming = (frame = innerFrame(), id = "4"): Buffer =>
  fromPeer().vudp({ vnet: id }).payload(frame.build()).build();
const outgoing = (): PacketBuilder =>
  packet()
    .eth({ src: GUEST_A, dst: GUEST_B })
    .ipv4({ src: "10.4.0.1", dst: "10.4.0.2" })
    .payload(64);

const typeOf = (record: Buffer): number => record.readUInt32LE(0);
const packets = async (): Promise<{ type: number; reason: string; bytes: Buffer }[]> =>
  (await said())
    .filter((record) => typeOf(record) === EVENT_DROP || typeOf(record) === EVENT_FRAME)
    .map((record) => {
      const event = decodeVnetdEventPacket(record);
      const bytes = record.subarray(VnetdEventPacket.size);
      expect(bytes).toHaveLength(event.kept);
      return { ...event, reason: reasonNames[event.reason]!, bytes };
    });
const macs = async (): Promise<[number, string][]> =>
  (await said())
    .filter((record) => typeOf(record) === EVENT_LEARNED || typeOf(record) === EVENT_AGED)
    .map((record) => [typeOf(record), macText(decodeVnetdEventMac(record).mac)]);

function capture(on: boolean, of: LabVnet = vnet): void {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(of.slot);
  const record = decodeVnetdVnet(lab.native.mapLookup(lab.map("vnets"), key)!);
  const flags = vnetdVnetFlags.VNET_UP | (on ? vnetdVnetFlags.VNET_WATCHED : 0);
  lab.native.mapUpdate(lab.map("vnets"), key, encodeVnetdVnet({ ...record, flags }));
}

describe("drops", () => {
  const unknown = (): Buffer => incoming(innerFrame(), "4321");

  it("are not told when nobody looks, nor when the time is over", async () => {
    expect(run("vnetd_decap", unknown()).verdict).toBe("drop");
    look({ flags: WATCH_EVENTS, untilNs: process.hrtime.bigint() - 1_000_000_000n });
    expect(run("vnetd_decap", unknown()).verdict).toBe("drop");
    expect(await said()).toEqual([]);
  });

  it("are told, with the reason, the device, the length and the beginning", async () => {
    look({ flags: WATCH_EVENTS });
    const long = incoming(
      packet()
        .eth({ src: GUEST_B, dst: GUEST_A })
        .ipv4({ src: "10.4.0.2", dst: "10.4.0.1" })
        .payload(400),
      "4321",
    );
    const before = process.hrtime.bigint();
    run("vnetd_decap", long);
    const [drop, ...others] = await packets();
    expect(others).toEqual([]);
    expect(drop).toMatchObject({
      ...{ type: EVENT_DROP, reason: "unknown_vnet", direction: vnetdDirection.DIR_DECAP },
      ...{ handle: 0, ifindex: lab.ifindex("ul0"), len: long.length, vlanProto: 0 },
    });
    expect(drop!.bytes).toEqual(long.subarray(0, vnetdLimits.WATCH_HEAD));
    const { timeNs } = drop as unknown as { timeNs: bigint };
    expect(timeNs).toBeGreaterThan(before);
    expect(timeNs).toBeLessThan(process.hrtime.bigint());
  });

  it("are told of guests' frames, and a source that is refused is", async () => {
    look({ flags: WATCH_EVENTS });
    const group = packet().eth({ src: "ff:ff:ff:00:00:01", dst: GUEST_B }).payload(64);
    run("vnetd_encap", group);
    const dropped = lab.vnet({ id: "5", up: false });
    run("vnetd_encap", group);
    const found = await packets();
    expect(found).toMatchObject([
      { reason: "refused_group_mac", handle: vnet.handle, direction: vnetdDirection.DIR_ENCAP },
      { reason: "vnet_down", handle: dropped.handle },
    ]);
    expect(found[1]!.bytes).toEqual(group.build().subarray(0, vnetdLimits.WATCH_HEAD));
  });

  it("are told of one vnet, or for one reason, where that alone is wanted", async () => {
    const groupSource = innerFrame({ src: "ff:00:00:00:00:01" });
    look({ flags: WATCH_EVENTS, handle: vnet.handle });
    run("vnetd_decap", unknown());
    run("vnetd_decap", incoming(groupSource));
    look({ flags: WATCH_EVENTS, reason: reasonNames.indexOf("unknown_vnet") });
    run("vnetd_decap", unknown());
    run("vnetd_decap", incoming(groupSource));
    const reasons = (await packets()).map(({ reason }) => reason);
    expect(reasons).toEqual(["refused_group_mac", "unknown_vnet"]);
  });

  it("are left out and counted when there are too many", async () => {
    look({ flags: WATCH_EVENTS });
    const before = map.lost();
    lab.run("vnetd_decap", unknown(), { repeat: 3000 });
    const seen = (await packets()).length;
    const lost = map.lost();
    expect(lost.frames).toBe(before.frames);
    expect(seen + lost.events - before.events).toBe(3000);
    expect(seen).toBeGreaterThan(100);
    expect(lost.events - before.events).toBeGreaterThan(100);
  });
});

describe("MACs", () => {
  it("are told when they are learned, and not when they are heard again", async () => {
    look({ flags: WATCH_EVENTS });
    run("vnetd_decap", incoming());
    run("vnetd_decap", incoming());
    run("vnetd_encap", outgoing());
    expect(await macs()).toEqual([
      [EVENT_LEARNED, GUEST_B],
      [EVENT_LEARNED, GUEST_A],
    ]);
  });

  it("are told when they are forgotten", async () => {
    lab.control(vnetdControlOp.CTL_START, vnet);
    run("vnetd_encap", outgoing());
    look({ flags: WATCH_EVENTS, handle: vnet.handle });
    lab.control(vnetdControlOp.CTL_FORGET, vnet, { mac: macBytes(GUEST_A) });
    await eventually(
      async () => {
        expect(await macs()).toEqual([[EVENT_AGED, GUEST_A]]);
        return true;
      },
      { timeoutMs: 40_000, what: "the sweeper to come by" },
    );
  }, 60_000);

  it("are not told where drops for a reason are wanted", async () => {
    look({ flags: WATCH_EVENTS, reason: 3 });
    run("vnetd_decap", incoming());
    expect(await said()).toEqual([]);
  });
});

describe("frames", () => {
  it("of a vnet that is captured are told as they are in the vnet, both ways", async () => {
    look({ flags: WATCH_FRAMES, snap: vnetdLimits.WATCH_SNAP });
    capture(true);
    expect(run("vnetd_decap", incoming()).verdict).toBe("redirect");
    expect(run("vnetd_encap", outgoing()).verdict).toBe("redirect");
    expect(await packets()).toMatchObject([
      {
        ...{ type: EVENT_FRAME, direction: vnetdDirection.DIR_DECAP, handle: vnet.handle },
        bytes: innerFrame().build(),
      },
      {
        ...{ type: EVENT_FRAME, direction: vnetdDirection.DIR_ENCAP, handle: vnet.handle },
        bytes: outgoing().build(),
      },
    ]);
  });

  it("of others are not, nor of any when nobody looks or events alone are wanted", async () => {
    look({ flags: WATCH_FRAMES, snap: 512 });
    run("vnetd_decap", incoming());
    run("vnetd_encap", outgoing());
    capture(true);
    look({ flags: WATCH_EVENTS, reason: 3 });
    run("vnetd_decap", incoming());
    look({ flags: WATCH_FRAMES, snap: 512, untilNs: 1n });
    run("vnetd_encap", outgoing());
    expect(await said()).toEqual([]);
  });

  it("are cut where they are wanted short, and their length is told", async () => {
    look({ flags: WATCH_FRAMES, snap: 200 });
    capture(true);
    const frame = packet().eth({ src: GUEST_A, dst: GUEST_B }).payload(1000).build();
    run("vnetd_encap", frame);
    expect(await packets()).toMatchObject([
      { len: 1014, kept: 200, bytes: frame.subarray(0, 200) },
    ]);
  });

  it("are left to the hook that has all of them", () => {
    const learnB = (): void => {
      run("vnetd_decap", incoming());
    };
    learnB();
    expect(run("vnetd_encap_fast", outgoing()).verdict).toBe("redirect");
    capture(true);
    const { verdict, output } = run("vnetd_encap_fast", outgoing());
    expect(verdict).toBe("pass");
    expect(output).toEqual(outgoing().build());
  });

  it("that are dropped are told with the reason; of the captured vnet alone if that is wanted", async () => {
    look({ flags: WATCH_FRAMES, snap: 1024, framesHandle: vnet.handle });
    capture(true);
    run("vnetd_decap", incoming(innerFrame({ src: "ff:00:00:00:00:01" })));
    run("vnetd_decap", incoming(innerFrame(), "4321"));
    const other = lab.vnet({ id: "5", up: false });
    run("vnetd_encap", outgoing());
    expect((await packets()).map(({ type, reason }) => [type, reason])).toEqual([
      [EVENT_FRAME, "ok"],
      [EVENT_DROP, "refused_group_mac"],
    ]);
    look({ flags: WATCH_FRAMES, snap: 1024 });
    run("vnetd_encap", outgoing());
    expect((await packets()).at(-1)).toMatchObject({ reason: "vnet_down", handle: other.handle });
  });

  it("are left out and counted, apart from events, when nobody reads them", async () => {
    look({ flags: WATCH_FRAMES, snap: vnetdLimits.WATCH_SNAP });
    capture(true);
    const before = map.lost();
    const frame = packet().eth({ src: GUEST_A, dst: GUEST_B }).payload(1400).build();
    // the event loop, and so the reader of the ring, does not run between
    const count = Math.ceil(vnetdLimits.WATCH_RING_BYTES / 1400) + 100;
    for (let times = 0; times < count; times += 1) run("vnetd_encap", frame);
    const lost = map.lost();
    const missing = lost.frames - before.frames;
    expect((await packets()).length + missing).toBe(count);
    expect(missing).toBeGreaterThanOrEqual(90);
    expect(lost.events).toBe(before.events);
  });
});
