// SPDX-License-Identifier: Apache-2.0
/**
 * A multicast group of a vnet's own: where frames for all go, what is taken that comes by a group, and how
 * peers have it. In each form of the outer packet; then fragments and peers, the whole way with real frames.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { expectBytes, macText } from "../lib/bytes.js";
import { BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import { FORMS, endsOf, isIpv6, packetIn, textIn } from "../lib/forms.js";
import { BROADCAST_MAC, VNETD_GROUP, fragmentIpv4, packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { reassembleIpv4 } from "../lib/pcap.js";
import { exchange } from "../lib/wire.js";
import { GROUP_ROWS, OWN, OWN_MAC, fromAll, ownMac, toAll } from "./group-rows.js";
import { FAR, FAR_MAC, FAR_PEER, vfwd } from "./peer-rows.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  expectEncapsulated,
  fromPeer,
  groupMac,
  rowsFor,
  runRow,
} from "./rows.js";
import { FRAGMENT_HOOKS, attachHooks, detachHooks, forFragments, ip } from "./whole-way.js";

describe.each(FORMS)("%s", (form) => {
  let lab: BpfLab | undefined;
  beforeAll(() => {
    lab = BpfLab.open({ form });
  });
  afterAll(() => lab?.close());
  for (const row of rowsFor(form, GROUP_ROWS)) it(row.description, () => runRow(lab!, row));
});

describe("large frames, in fragments", () => {
  let lab: BpfLab;
  let vnet: LabVnet;
  beforeAll(() => {
    lab = BpfLab.open();
    forFragments(lab, [PEER], `${VNETD_GROUP}/32`);
    ip("address", "add", `${OWN}/32`, "dev", "ul0", "autojoin");
    attachHooks(lab, FRAGMENT_HOOKS);
  });
  afterAll(() => {
    detachHooks(lab, FRAGMENT_HOOKS);
    lab.close();
  });
  beforeEach(() => {
    lab.underlay();
    vnet = lab.vnet({ group: OWN });
  });
  const isUdp = (bytes: Buffer): boolean => bytes.readUInt16BE(12) === 0x0800 && bytes[23] === 17;

  it("go to the vnet's group", () => {
    const frame = toAll().payload(1500);
    const frames = [{ bytes: frame.build() }];
    const sent = exchange({ device: "vn0", capture: "ul0w", frames }).filter(isUdp);
    expect(sent).toHaveLength(2);
    for (const each of sent) expect(macText(each.subarray(0, 6))).toBe(OWN_MAC);
    const pieces = sent.map((data) => ({ timeNs: 0n, wireLength: data.length, data }));
    const [whole] = reassembleIpv4(pieces);
    expectEncapsulated(whole!.data, { to: OWN, ttl: 1, frame });
  });

  it("are put together by the kernel, which joined it", () => {
    const frame = fromAll().payload(1500);
    const outer = fromPeer({ dst: OWN }).vudp({ vnet: "4" }).payload(frame.build());
    const frames = fragmentIpv4(outer.build(), 1500).map((bytes) => ({ bytes }));
    const out = exchange({ device: "ul0w", capture: "vn0", frames });
    expect(out).toHaveLength(1);
    expectBytes(out[0]!, frame.build());
    expect(lab.traffic(vnet)).toMatchObject({ decapFrames: 1, floodedFrames: 1, fragmentedIn: 1 });
  });
});

describe.each(["udp4", "udp6"] as const)("peers, %s", (form) => {
  let lab: BpfLab;
  const hooks = [
    ["vnetd_encap", "vn0p"],
    ["vnetd_relay", "rl1"],
    ["vnetd_decap", "ul0"],
    ["vnetd_decap", "sg1"],
  ] as const;
  beforeAll(() => {
    lab = BpfLab.open({ form });
    lab.forwarding(true);
    const [subnet, bits] = isIpv6(form) ? [120, 128] : [24, 32];
    const text = (address: string): string => textIn(form, address);
    ip("neighbour", "replace", text(PEER), "lladdr", "02:00:0a:42:01:09", "dev", "ul0");
    const far = `${text("10.66.9.0")}/${subnet}`;
    ip(isIpv6(form) ? "-6" : "-4", "route", "replace", far, "via", text(PEER), "dev", "ul0");
    for (const group of [VNETD_GROUP, OWN])
      ip("address", "add", `${text(group)}/${bits}`, "dev", "ul0", "autojoin");
    attachHooks(lab, hooks);
  });
  afterAll(() => {
    detachHooks(lab, hooks);
    lab.close();
  });
  beforeEach(() => {
    lab.underlay({ relay: true });
    lab.peers([{ address: FAR_PEER }]);
  });
  const inForm = (bytes: Uint8Array): Buffer => packetIn(form, Buffer.from(bytes))!;
  const isOurs = (bytes: Buffer): boolean =>
    isIpv6(form)
      ? bytes.readUInt16BE(12) === 0x86dd && bytes[20] === 17
      : bytes.readUInt16BE(12) === 0x0800 && bytes[23] === 17;
  const on = (capture: string, device: string, ...frames: Buffer[]): Buffer[] =>
    exchange({ device, capture, frames: frames.map((bytes) => ({ bytes })) }).filter(isOurs);
  let number = 0;
  const fresh = (src: string): Buffer =>
    packet()
      .eth({ src, dst: BROADCAST_MAC })
      .payload(Buffer.alloc(100, (number += 1)))
      .build();
  /** the destination inside VFWD, as the tables have it */
  const groupInside = (bytes: Buffer): string => {
    const { message } = parseFrame(bytes);
    if (message?.kind !== "vfwd") throw new Error("not VFWD");
    const to = message.innerIp.subarray(isIpv6(form) ? 36 : 16);
    return [...to].join(".");
  };

  it.each([
    ["what this host sends", "vn0", () => fresh(GUEST_A)],
    [
      "what it hears there from the subnet",
      "ul0w",
      () => fromPeer({ dst: OWN }).vudp({ vnet: "4" }).payload(fresh(GUEST_B)).build(),
    ],
  ])("%s goes to peers as if it had gone to the group that all have", (_what, device, make) => {
    lab.vnet({ group: OWN });
    const all = on("ul0w", device, inForm(make()));
    const forwarded = all.filter((bytes) => endsOf(parseFrame(bytes)).dst === FAR_PEER);
    expect(forwarded.map(groupInside)).toEqual([VNETD_GROUP]);
    const rest = all.filter((bytes) => !forwarded.includes(bytes));
    expect(rest.map((bytes) => endsOf(parseFrame(bytes)).dst)).toEqual(
      device === "vn0" ? [OWN] : [],
    );
  });

  it.each([
    ["to the vnet's group", { group: OWN }, OWN],
    [
      "to the group that all have, while not all here hear the vnet's",
      { group: OWN, sendsToGroup: false },
      VNETD_GROUP,
    ],
    ["to the group that all have, where the vnet is not here", { id: "5" }, VNETD_GROUP],
  ])("what comes from a peer is sent on %s", (_what, options, group) => {
    const vnet = lab.vnet(options);
    const frame = fresh(FAR_MAC);
    const message = packet().vudp({ vnet: "4" }).payload(frame).build();
    const bytes = vfwd({ source: FAR, ipId: 7 }).payload(message).build();
    // from a port as hosts of ours have it: what originals send has a number that means nothing
    bytes.writeUInt16BE(50_000, 14 + 20 + 8 + 4 + 20);
    // and a copy that another forwarder sends to the vnet's group is known, at once: copies are for a second
    const copy = inForm(
      fromPeer({ dst: OWN, src: FAR, id: 7, sport: 50_000, checksum: 0 }).payload(message).build(),
    );
    // what IPv4's id is there
    if (isIpv6(form)) copy.writeUInt16BE(7, 16);
    const all = on("ul0w", "ul0w", inForm(bytes), ...(group === OWN ? [copy] : []));
    const sent = all.filter((each) => endsOf(parseFrame(each)).src === FAR);
    expect(sent.map((each) => endsOf(parseFrame(each)).dst)).toEqual([group]);
    expect(parseFrame(sent[0]!).dst).toBe(group === OWN ? ownMac(form) : groupMac(form));
    expect(lab.traffic(vnet).decapFrames).toBe(vnet.id === "4" ? 1 : 0);
    expect(sent[0]!.subarray(-frame.length).equals(frame)).toBe(true);
  });
});
