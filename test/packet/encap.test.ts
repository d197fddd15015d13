// SPDX-License-Identifier: Apache-2.0
/** From a vnet onto the underlay: vnetd_encap and vnetd_encap_fast against their table. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdControlOp, vnetdMark } from "../../src/generated/layouts.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, fragmentIpv4, packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { ENCAP_ROWS } from "./encap-rows.js";
import { GUEST_A, GUEST_B, PEER, runRow } from "./rows.js";

let lab: BpfLab | undefined;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());

describe("vnetd_encap", () => {
  for (const row of ENCAP_ROWS) it(row.description, () => runRow(lab!, row));
});

describe("what differs from packet to packet", () => {
  const encapsulate = (port: number): ReturnType<typeof parseFrame> => {
    const frame = packet()
      .eth({ src: GUEST_A, dst: GUEST_B })
      .ipv4()
      .udp({ src: port, dst: 53 })
      .payload(20);
    return parseFrame(lab!.run("vnetd_encap", frame.build()).output);
  };

  it("the source port is a flow's own: the same for its packets, many for many flows", () => {
    lab!.underlay();
    const vnet = lab!.vnet();
    lab!.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac: macBytes(GUEST_B),
      addr: mappedBytes(PEER),
    });
    const ports = Array.from({ length: 64 }, (_, i) => encapsulate(10_000 + i).udp!.src);
    const again = Array.from({ length: 64 }, (_, i) => encapsulate(10_000 + i).udp!.src);
    expect(again).toEqual(ports);
    expect(new Set(ports).size).toBeGreaterThan(55);
    expect(Math.min(...ports)).toBeGreaterThanOrEqual(49152);
  });

  it.each([
    [
      "TCP",
      (port: number) =>
        packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().tcp({ src: port, dst: 80 }),
    ],
    [
      "IPv6",
      (port: number) =>
        packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv6().udp({ src: port, dst: 53 }),
    ],
    // what the kernel is asked for
    [
      "a header with options",
      (port: number) =>
        packet()
          .eth({ src: GUEST_A, dst: GUEST_B })
          .ipv4({ options: Buffer.alloc(4, 1) })
          .udp({ src: port, dst: 53 }),
    ],
  ])("so it is of %s", (_kind, flow) => {
    lab!.underlay();
    const say = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
    lab!.control(vnetdControlOp.CTL_LEARN, lab!.vnet(), say);
    const port = (n: number): number =>
      parseFrame(lab!.run("vnetd_encap", flow(n).payload(20).build()).output).udp!.src;
    const ports = Array.from({ length: 32 }, (_, i) => port(10_000 + i));
    expect(Array.from({ length: 32 }, (_, i) => port(10_000 + i))).toEqual(ports);
    expect(new Set(ports).size).toBeGreaterThan(25);
  });

  it("fragments of one packet have one", () => {
    lab!.underlay();
    const say = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
    lab!.control(vnetdControlOp.CTL_LEARN, lab!.vnet(), say);
    const whole = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp({ src: 7, dst: 53 });
    const ports = fragmentIpv4(whole.payload(2500).build(), 1000).map(
      (piece) => parseFrame(lab!.run("vnetd_encap", piece).output).udp!.src,
    );
    expect(ports.length).toBeGreaterThan(2);
    expect(new Set(ports).size).toBe(1);
  });

  it("the IPv4 id changes, since the packets may be fragmented on their way", () => {
    lab!.underlay();
    const vnet = lab!.vnet();
    lab!.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac: macBytes(GUEST_B),
      addr: mappedBytes(PEER),
    });
    const ids = Array.from({ length: 100 }, () => encapsulate(10_000).ipv4!.id);
    expect(new Set(ids).size).toBe(100);
  });
});

describe("two underlay devices", () => {
  it("a group frame goes out of both and is counted once", async () => {
    const vnet = lab!.vnet();
    lab!.underlay();
    lab!.underlay({ device: "ul1" });
    const sentBefore = lab!.received("ul0w");
    const frame = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp();
    const run = lab!.run("vnetd_encap", frame.build());
    const outer = parseFrame(run.output);
    // the last device's packet is redirected, which a test run does not do; clones really leave
    // (and arrive when the other end's softirq has run)
    await expect.poll(() => lab!.received("ul0w") - sentBefore, { timeout: 5000 }).toBe(1);
    expect(outer.ipv4).toMatchObject({ src: "10.66.2.1", dst: "224.10.0.1", ttl: 1 });
    expect(lab!.traffic(vnet)).toMatchObject({ encapFrames: 1, floodedFrames: 1 });
    lab!.detach("ul1");
  });

  it("one that is down is left out", () => {
    lab!.vnet();
    lab!.underlay();
    lab!.underlay({ device: "ul1", up: false });
    const frame = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp();
    const run = lab!.run("vnetd_encap", frame.build());
    expect(run).toMatchObject({ verdict: "redirect", drops: [] });
    expect(parseFrame(run.output).ipv4!.src).toBe("10.66.1.1");
    lab!.detach("ul1");
  });

  it("what is too large for one of them is fragmented for all, or dropped where that is off", () => {
    const vnet = lab!.vnet();
    lab!.underlay();
    lab!.underlay({ device: "ul1", mtuBytes: 90 });
    const frame = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp();
    const dropped = lab!.run("vnetd_encap", frame.build());
    expect(dropped).toMatchObject({ verdict: "drop", drops: [{ reason: "too_big" }] });
    lab!.fragments(true);
    const run = lab!.run("vnetd_encap", frame.build());
    expect(run).toMatchObject({ verdict: "redirect", drops: [] });
    expect(run.mark).toBe(vnetdMark.MARK_OVERSIZE | vnet.slot);
    lab!.fragments(false);
    lab!.detach("ul1");
  });
});
