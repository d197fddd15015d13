// SPDX-License-Identifier: Apache-2.0
/**
 * Vnets, hosts and MACs that are found where they were found last (bpf/lib/hint.h, bpf/lib/front.h), and that are not there
 * any more.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  decodeVnetdNexthop,
  encodeVnetdNexthop,
  encodeVnetdNexthopKey,
  vnetdControlOp,
} from "../../src/generated/layouts.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type Run } from "../lib/bpf-lab.js";
import { VNETD_GROUP, packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { GUEST_A, GUEST_B, PEER, THIRD, fromPeer, innerFrame } from "./rows.js";

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

const send = (): Run =>
  lab.run(
    "vnetd_encap",
    packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().payload(20).build(),
  );
const sentTo = (): string => parseFrame(send().output).ipv4!.dst;
/** so often that the last ones are within one tick of the clock */
const often = (): string[] => Array.from({ length: 20 }, sentTo);

it("what comes by a vnetif whose vnet is down, and then gone, goes nowhere", () => {
  const vnet = lab.vnet();
  receive();
  expect(new Set(often())).toEqual(new Set([PEER]));
  lab.setVnet(vnet, { up: false });
  expect(send().drops).toMatchObject([{ reason: "vnet_down", handle: vnet.handle }]);
  const ifindex = Buffer.alloc(4);
  ifindex.writeUInt32LE(lab.ifindex("vn0p"));
  lab.native.mapDelete(lab.map("ports"), ifindex);
  expect(send().drops).toMatchObject([{ reason: "vnet_down", handle: 0 }]);
});

it("a MAC that is forgotten, moves, or comes back is found as it is from the next frame on", () => {
  for (let i = 0; i < 10; i++) {
    // another each time: a MAC that moves too often is held
    const vnet = lab.vnet();
    receive();
    expect(sentTo()).toBe(PEER);
    receive(THIRD);
    expect(sentTo()).toBe(THIRD);
    lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(GUEST_B) });
    expect(sentTo()).toBe(VNETD_GROUP);
    receive();
    expect(sentTo()).toBe(PEER);
    lab.control(vnetdControlOp.CTL_FORGET, vnet, { mac: macBytes(GUEST_B) });
    expect(sentTo()).toBe(VNETD_GROUP);
    lab.control(vnetdControlOp.CTL_FORGET, vnet, { mac: macBytes(GUEST_A) });
    expect(lab.learned(vnet, GUEST_A)!.seenNs).toBe(0n);
    send();
    expect(lab.learned(vnet, GUEST_A)!.seenNs).not.toBe(0n);
  }
});

it("a flush is heeded within the tick", () => {
  const vnet = lab.vnet();
  receive();
  expect(new Set(often())).toEqual(new Set([PEER]));
  lab.setVnet(vnet, { flushedNs: 1n << 62n });
  expect(sentTo()).toBe(VNETD_GROUP);
});
