// SPDX-License-Identifier: Apache-2.0
/** Bounds of the tables, and what a flood of spoofed MACs does to those who talk. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab } from "../lib/bpf-lab.js";
import { packet } from "../lib/packet.js";
import { LIMIT_ROWS, SMALL_TABLES, SMALL_TABLE_ROWS } from "./limit-rows.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  expectEncapsulated,
  fromPeer,
  innerFrame,
  runRow,
} from "./rows.js";

let lab: BpfLab | undefined;
afterAll(() => lab?.close());

describe("limits of a vnet and of a host", () => {
  beforeAll(() => {
    lab = BpfLab.open();
  });
  for (const row of LIMIT_ROWS) it(row.description, () => runRow(lab!, row));

  it("a flood of spoofed MACs takes nothing from a pair that talks, nor from other vnets", () => {
    const flooded = lab!.vnet({ id: "4", maxEntries: 500, maxEntriesPerHost: 200 });
    const say = { mac: macBytes(GUEST_B), addr: mappedBytes(THIRD) };
    lab!.control(vnetdControlOp.CTL_LEARN, flooded, say);
    for (let n = 0; n < 5000; n++) {
      const mac = Buffer.from([0x02, 0xcc, 0, n >> 8, n & 0xff, 1])
        .toString("hex")
        .match(/../g)!
        .join(":");
      const frame = fromPeer()
        .vudp({ vnet: "4" })
        .payload(innerFrame({ src: mac }).build())
        .build();
      lab!.native.progTestRun(lab!.program("vnetd_decap"), frame, { ifindex: lab!.ifindex("ul0") });
    }
    expect(lab!.counts(flooded)).toMatchObject({ entries: 201, hosts: 2 });
    const refused = [...lab!.dropCounters().values()].filter((d) => d.handle === flooded.handle);
    expect(refused).toEqual([
      { reason: "refused_host_limit", direction: "decap", handle: flooded.handle, frames: 4800 },
    ]);
    expect(lab!.traffic(flooded).decapFrames).toBe(5000);

    // the pair still talks by unicast
    const toB = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().payload(8);
    expectEncapsulated(lab!.run("vnetd_encap", toB.build()).output, {
      to: THIRD,
      ttl: 64,
      frame: toB,
    });
    // and another vnet learns from the very host that floods
    const other = lab!.vnet({ id: "97" });
    lab!.run("vnetd_decap", fromPeer().vudp({ vnet: "97" }).payload(innerFrame().build()).build());
    expect(lab!.learned(other, GUEST_B)?.host).toBe(PEER);
  });
});

describe("limits of the whole table", () => {
  beforeAll(() => {
    lab?.close();
    lab = BpfLab.open(SMALL_TABLES);
  });
  for (const row of SMALL_TABLE_ROWS) it(row.description, () => runRow(lab!, row));
});
