// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets: the table, over both families, and what a test run cannot show, with real frames:
 *
 *   out: frames -> vn0 ==veth== vn0p [vnetd_encap] -> xf0 ==veth== xf0w -> captured
 *   in:  frames -> ul0w ==veth== ul0 [vnetd_decap] -> counters
 *
 * xf0 stands in for the xfrm interface. Whatever is missing, nothing of it may be seen on ul0w.
 */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { vnetdControlOp, vnetdSecurity } from "../../src/generated/layouts.js";
import { BpfLab, SPI_IN, type LabVnet } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { VIRTIO_GSO, exchange } from "../lib/wire.js";
import { addressBytes, addressIn } from "../lib/forms.js";
import { GUEST_A, PEER, THIRD, rowsFor, runRow } from "./rows.js";
import { SECURE_FORMS, SECURE_ROWS, expectSecure, learnB, synthetic, toB } from "./secure-rows.js";
import { attachHooks, detachHooks, ip } from "./whole-way.js";

describe.each(SECURE_FORMS)("%s", (form) => {
  let lab: BpfLab | undefined;
  beforeAll(() => {
    lab = BpfLab.open({ form });
  });
  afterAll(() => lab?.close());
  for (const row of rowsFor(form, SECURE_ROWS)) it(row.description, () => runRow(lab!, row));
});

const SECURE = { security: vnetdSecurity.SECURITY_CONF } as const;
const OUT = [
  ["vnetd_encap", "vn0p"],
  ["vnetd_oversize", "os1"],
  ["vnetd_decap", "ul0"],
] as const;
const FOURTH = "10.66.1.11";
const broadcast = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC });

describe.each(SECURE_FORMS)("the whole way, %s", (form) => {
  let lab: BpfLab;
  let vnet: LabVnet;
  beforeAll(async () => {
    lab = BpfLab.open({ form });
    // no address of the group: nothing is seen on ul0w but what a test sends there
    lab.fragments(true);
    lab.native.featuresSet("os0", {
      "tx-checksum-ip-generic": false,
      "tx-tcp-segmentation": false,
      "tx-tcp6-segmentation": false,
      "tx-udp-segmentation": false,
    });
    for (const name of ["vn0", "vn0p"]) ip("link", "set", name, "mtu", "9000");
    // no router is asked for, which would be more packets there
    for (const device of ["ul0", "ul1"])
      writeFileSync(`/proc/sys/net/ipv6/conf/${device}/router_solicitations`, "0");
    attachHooks(lab, OUT);
    await quiet();
  });
  afterAll(() => {
    detachHooks(lab, OUT);
    lab.close();
  });
  beforeEach(() => {
    lab.underlay({ esp: "xf0" });
    lab.detach("ul1");
    vnet = lab.vnet(SECURE);
  });

  /** The kernel's own reports of groups have passed on the underlay. */
  async function quiet(): Promise<void> {
    for (let seen = -1; seen !== lab.received("ul0w");) {
      seen = lab.received("ul0w");
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }

  /** what was given to the xfrm interface; the underlay never has any of it */
  function send(frames: readonly PacketBuilder[]): Buffer[] {
    const before = lab.received("ul0w");
    const captured = exchange({
      device: "vn0",
      capture: "xf0w",
      frames: frames.map((frame) => ({ bytes: frame.build() })),
    });
    expect(lab.received("ul0w")).toBe(before);
    return captured;
  }
  const dropped = (): Record<string, number> =>
    Object.fromEntries(
      [...lab.dropCounters().values()]
        .filter(({ handle }) => handle === vnet.handle)
        .map(({ reason, frames }) => [reason, frames]),
    );

  it.each([
    ["ARP, which passes twice", broadcast.arp()],
    ["IPv4", broadcast.ipv4().udp({ dst: 9 }).payload(40)],
    ["802.1Q, beside the packet", broadcast.vlan({ id: 5 }).ipv4().udp({ dst: 9 })],
    ["IPv6", broadcast.ipv6().udp({ dst: 9 }).payload(7)],
    ["unknown unicast", toB().ipv4().udp({ dst: 9 })],
  ] as const)("to all: each member has a copy of its own: %s", (_what, frame) => {
    const members = [PEER, THIRD, FOURTH].map((host) => lab.keys(vnet, host));
    lab.secureMembers(vnet, members);
    const packets = send([frame]);
    expect(packets.length).toBe(3);
    const named = new Map(
      packets.map((bytes) => {
        const outer = parseFrame(bytes);
        return [outer.ipv4?.dst ?? outer.ipv6!.dst, bytes];
      }),
    );
    for (const { nexthop } of members) {
      const bytes = named.get(synthetic(lab, nexthop).dst);
      expectSecure(lab, bytes!, { nexthop, frame });
    }
    expect(dropped()).toEqual({});
    expect(lab.traffic(vnet)).toMatchObject({ encapFrames: 1, floodedFrames: 1 });
  });

  it("a member whose keys went is left out, and the others have theirs", () => {
    const members = [PEER, THIRD, FOURTH].map((host) => lab.keys(vnet, host));
    lab.secureMembers(vnet, members);
    lab.keys(vnet, THIRD, 0);
    expect(send([broadcast.arp(), broadcast.ipv4().udp({ dst: 9 })]).length).toBe(4);
    expect(dropped()).toEqual({ no_keys: 2 });
  });

  it("a frame that is too large comes whole, over IPv4, or not at all", () => {
    learnB({ lab, vnet });
    const { nexthop } = lab.keys(vnet, PEER);
    lab.secureMembers(vnet, [{ nexthop, gen: lab.keys(vnet, PEER).gen }]);
    const known = toB().ipv4().udp({ dst: 9 }).payload(3000);
    const all = broadcast.payload(3000);
    const packets = send([known, all]);
    if (form === "udp6") {
      expect(packets).toEqual([]);
      expect(dropped()).toEqual({ too_big: 2 });
      return;
    }
    expect(packets.length).toBe(2);
    expectSecure(lab, packets[0]!, { nexthop, frame: known });
    expectSecure(lab, packets[1]!, { nexthop, frame: all });
    expect(lab.traffic(vnet)).toMatchObject({ encapFrames: 2, fragmentedOut: 2 });
  });

  it("a TCP super-frame comes whole, and the kernel segments it", () => {
    learnB({ lab, vnet });
    const { nexthop } = lab.keys(vnet, PEER);
    const frame = toB().ipv4().tcp({ flags: 0x10 }).payload(9000);
    const captured = exchange({
      device: "vn0",
      capture: "xf0w",
      frames: [
        {
          bytes: frame.build(),
          gsoType: VIRTIO_GSO.tcp4,
          gsoSize: 1300,
          headerLength: 54,
          checksumStart: 34,
          checksumOffset: 16,
        },
      ],
    });
    const bytes = Buffer.concat(
      captured.map((data) => {
        const outer = parseFrame(data, { transportChecksums: "skip" });
        expect(outer.ipv4?.dst ?? outer.ipv6!.dst).toBe(synthetic(lab, nexthop).dst);
        if (outer.message?.kind !== "vudp") throw new Error("not VUDP");
        return outer.message.frame.subarray(54);
      }),
    );
    expect(bytes.length).toBe(9000);
  });

  it("without the interface nothing leaves at all", () => {
    learnB({ lab, vnet });
    lab.secureMembers(vnet, [lab.keys(vnet, PEER)]);
    const kinds = [toB().ipv4().udp({ dst: 9 }), toB().arp(), broadcast.arp()];
    lab.underlay({});
    expect(send(kinds)).toEqual([]);
    expect(dropped()).toEqual({ no_keys: 3 });
    // its record names one that is not there
    lab.underlay({ espIfindex: 9999 });
    expect(send(kinds)).toEqual([]);
  });

  if (form === "udp4") {
    it("members of both families have one copy each", () => {
      const family = 6;
      lab.underlay({ esp: "xf0", family });
      const other = addressIn("udp6", addressBytes(THIRD));
      const { nexthop, gen } = lab.control(vnetdControlOp.CTL_KEYS, vnet, { addr: other, spi: 7 });
      lab.secureMembers(vnet, [lab.keys(vnet, PEER), { nexthop, gen }]);
      const kinds = [broadcast.arp(), broadcast.ipv4().udp({ dst: 9 })];
      const families = send(kinds).map((bytes) => bytes.readUInt16BE(12));
      expect(families.sort()).toEqual([0x0800, 0x0800, 0x86dd, 0x86dd]);
      expect(dropped()).toEqual({});
      expect(lab.traffic(vnet)).toMatchObject({ encapFrames: 2, floodedFrames: 2 });
      lab.detach("ul0", family);
    });

    it.each([1, 2, 9, 12])("esp_source: behind %i priority tags", (tags) => {
      lab.receiveBy(vnet, PEER);
      const eth = packet().eth({ src: "02:00:0a:42:01:09", dst: "02:00:0a:42:01:01" });
      const spi = Buffer.alloc(40);
      spi.writeUInt32BE(SPI_IN);
      const esp = (src: string, id: number): { bytes: Buffer } => {
        let tagged = eth;
        for (let tag = 0; tag < tags; tag += 1) tagged = tagged.vlan({ id });
        const ipv4 = tagged.ipv4({ src, dst: "10.66.1.1", protocol: 50 });
        return { bytes: ipv4.payload(spi).build() };
      };
      const before = sources();
      exchange({
        device: "ul0w",
        capture: "ul0w",
        frames: [esp(THIRD, 0), esp(THIRD, 9), esp(PEER, 0)],
      });
      // of more tags than anything sends even the right source is not looked for
      expect(sources() - before).toBe(tags > 10 ? 2 : 1);
    });
  }
  const sources = (): number =>
    [...lab.dropCounters().values()]
      .filter(({ reason }) => reason === "esp_source")
      .reduce((sum, { frames }) => sum + frames, 0);
});
