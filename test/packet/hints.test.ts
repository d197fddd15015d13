// SPDX-License-Identifier: Apache-2.0
/** Vnets and hosts that are found where they were found last (bpf/lib/hint.h), and that are not there any more. */
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  decodeVnetdNexthop,
  encodeVnetdNexthop,
  encodeVnetdNexthopKey,
} from "../../src/generated/layouts.js";
import { mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type Run } from "../lib/bpf-lab.js";
import { GUEST_B, PEER, THIRD, fromPeer, innerFrame } from "./rows.js";

let lab: BpfLab;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab.close());

const receive = (src = PEER): Run =>
  lab.run(
    "vnetd_decap",
    fromPeer({ src }).vudp({ vnet: "4" }).payload(innerFrame().build()).build(),
  );
const frames = (vnet: LabVnet): number => lab.traffic(vnet).decapFrames;

it("a vnet that is entered anew has the frames", () => {
  const first = lab.vnet();
  for (let i = 0; i < 3; i++) expect(receive()).toMatchObject({ verdict: "redirect", drops: [] });
  const second = lab.vnet();
  for (let i = 0; i < 3; i++) expect(receive()).toMatchObject({ verdict: "redirect", drops: [] });
  expect([frames(first), frames(second)]).toEqual([3, 3]);
});

it("one that is down, and then gone, has none", () => {
  const vnet = lab.vnet();
  expect(receive()).toMatchObject({ verdict: "redirect" });
  lab.setVnet(vnet, { up: false });
  expect(receive()).toMatchObject({ verdict: "drop", drops: [{ reason: "vnet_down" }] });
  const id = Buffer.alloc(16);
  id.writeUInt16BE(4, 14);
  lab.native.mapDelete(lab.map("vnet_ids"), id);
  expect(receive()).toMatchObject({ verdict: "drop", drops: [{ reason: "unknown_vnet" }] });
});

it("a host whose record was given back and is another's gets one of its own", () => {
  const vnet = lab.vnet();
  receive();
  receive();
  const key = encodeVnetdNexthopKey({
    handle: vnet.handle,
    ifindex: lab.ifindex("ul0"),
    addr: mappedBytes(PEER),
  });
  const number = (): Buffer | undefined => lab.native.mapLookup(lab.map("nexthop_ids"), key);
  const before = number()!;
  // as nexthop_release() does it
  const record = decodeVnetdNexthop(lab.native.mapLookup(lab.map("nexthops"), before)!);
  lab.native.mapDelete(lab.map("nexthop_ids"), key);
  const released = { ...record, flags: 0, gen: record.gen + 1 };
  lab.native.mapUpdate(lab.map("nexthops"), before, encodeVnetdNexthop(released));
  receive();
  expect(lab.learned(vnet, GUEST_B)!.host).toBe(PEER);
  expect(number()).not.toEqual(before);
  receive(THIRD);
  expect(lab.learned(vnet, GUEST_B)!.host).toBe(THIRD);
  receive();
  expect(lab.learned(vnet, GUEST_B)!.host).toBe(PEER);
});
