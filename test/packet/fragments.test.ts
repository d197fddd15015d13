// SPDX-License-Identifier: Apache-2.0
/**
 * Frames that are too large for the underlay, and packets in fragments: the table, and the whole
 * way with real frames.
 *
 *   out: frames -> vn0 ==veth== vn0p [encap] -> os0 ==veth== os1 [oversize] -> ul0 ==veth== ul0w -> captured
 *   in:  frames -> ul0w ==veth== ul0 [decap] -> the stack's reassembly -> vx0 [reassembled] -> vn0 -> captured
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { vnetdCapability, vnetdControlOp, vnetdMark } from "../../src/generated/layouts.js";
import { datagramsOf, fragmentsOf } from "../golden/captures.js";
import { expectBytes, macBytes, macText, mappedBytes } from "../lib/bytes.js";
import { BpfLab, REASSEMBLY_PORT, type LabVnet } from "../lib/bpf-lab.js";
import {
  BROADCAST_MAC,
  VNETD_GROUP,
  fragmentIpv4,
  packet,
  type PacketBuilder,
} from "../lib/packet.js";
import { parseMessage } from "../lib/packet-parse.js";
import { reassembleIpv4 } from "../lib/pcap.js";
import { exchange } from "../lib/wire.js";
import { FRAGMENT_ROWS } from "./fragment-rows.js";
import { setPaths } from "./path-rows.js";
import { GUEST_A, GUEST_B, PEER, THIRD, US, expectEncapsulated, fromPeer, runRow } from "./rows.js";
import { FRAGMENT_HOOKS, attachHooks, detachHooks, forFragments, vnetWithB } from "./whole-way.js";

let lab: BpfLab | undefined;
let vnet: LabVnet;
beforeAll(() => {
  lab = BpfLab.open();
  forFragments(lab, [PEER], `${VNETD_GROUP}/32`);
});
afterAll(() => lab?.close());

describe("one packet", () => {
  for (const row of FRAGMENT_ROWS) it(row.description, () => runRow(lab!, row));
});

describe("the whole way", () => {
  beforeAll(() => attachHooks(lab!, FRAGMENT_HOOKS));
  afterAll(() => detachHooks(lab!, FRAGMENT_HOOKS));
  beforeEach(() => {
    vnet = vnetWithB(lab!);
  });

  const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });

  /** what crossed the underlay, each at most its MTU */
  function send(frame: Uint8Array): Buffer[] {
    const captured = exchange({ device: "vn0", capture: "ul0w", frames: [{ bytes: frame }] });
    return captured.filter((bytes) => bytes.readUInt16BE(12) === 0x0800 && bytes[23] === 17);
  }
  function whole(fragments: readonly Buffer[]): Buffer {
    for (const fragment of fragments) expect(fragment.length).toBeLessThanOrEqual(14 + 1500);
    const [packetBytes] = reassembleIpv4(
      fragments.map((data) => ({ timeNs: 0n, wireLength: data.length, data })),
    );
    return packetBytes!.data;
  }

  describe("out", () => {
    it.each([
      ["IPv4, two fragments", toB().ipv4().udp({ dst: 9 }).payload(1472), 2],
      ["not IP", toB().payload(1500), 2],
      ["ARP with padding", toB().arp().payload(1480), 2],
      ["802.1Q inline", toB().vlan({ id: 5 }).ipv4().udp({ dst: 9 }).payload(1472), 2],
      ["one byte more than fits", toB().payload(1437), 2],
      ["what fits exactly is one packet", toB().payload(1436), 1],
    ] as const)("%s", (_what, frame, count) => {
      const fragments = send(frame.build());
      expect(fragments.length).toBe(count);
      const outer = expectEncapsulated(whole(fragments), { to: PEER, ttl: 64, frame });
      expect(outer.dst).toBe("02:00:0a:42:01:09");
      expect(lab!.traffic(vnet)).toMatchObject({
        encapFrames: 1,
        fragmentedOut: count > 1 ? 1 : 0,
      });
    });

    const saidHello = (): void =>
      void lab!.control(vnetdControlOp.CTL_NEXTHOP, vnet, {
        addr: mappedBytes(PEER),
        capabilities: vnetdCapability.CAP_HELLO,
      });

    it("a jumbo frame to a host of ours", () => {
      saidHello();
      const frame = toB().ipv4().udp({ dst: 9 }).payload(8900);
      const fragments = send(frame.build());
      expect(fragments.length).toBe(7);
      expectEncapsulated(whole(fragments), { to: PEER, ttl: 64, frame });
    });

    it("what an original takes at most, and not a byte more: that is counted", () => {
      const dropped = (): number =>
        [...lab!.dropCounters().values()]
          .filter(({ reason, handle }) => reason === "too_big" && handle === vnet.handle)
          .reduce((sum, { frames }) => sum + frames, 0);
      const frame = toB().payload(1640 - 14);
      expectEncapsulated(whole(send(frame.build())), { to: PEER, ttl: 64, frame });
      expect(dropped()).toBe(0);
      expect(
        send(
          toB()
            .payload(1641 - 14)
            .build(),
        ),
      ).toEqual([]);
      expect(dropped()).toBe(1);
      // also where the device would take it in one piece
      lab!.underlay({ mtuBytes: 9000 });
      expect(
        send(
          toB()
            .payload(1641 - 14)
            .build(),
        ),
      ).toEqual([]);
      expect(dropped()).toBe(2);
      saidHello();
      const run = lab!.run(
        "vnetd_encap",
        toB()
          .payload(1641 - 14)
          .build(),
      );
      expect(run).toMatchObject({ verdict: "redirect", drops: [] });
      expect((run.mark & vnetdMark.MARK_KIND) >>> 0).not.toBe(vnetdMark.MARK_OVERSIZE);
    });

    it("a guest that forbids fragments is told what an original takes", () => {
      lab!.underlay({ mtuBytes: 9000 });
      const frame = toB().ipv4({ dontFragment: true }).udp({ dst: 9 }).payload(1700);
      const run = lab!.run("vnetd_oversize", frame.build(), {
        mark: (vnetdMark.MARK_OVERSIZE | vnet.slot) >>> 0,
      });
      expect(run.drops).toMatchObject([{ reason: "too_big", handle: vnet.handle }]);
      // in an ICMP message behind the Ethernet and IP headers
      expect(run.output.subarray(34, 36)).toEqual(Buffer.from([3, 4]));
      expect(run.output.readUInt16BE(40)).toBe(1690 - 64);
    });

    it("to the group", () => {
      const frame = packet()
        .eth({ src: GUEST_A, dst: BROADCAST_MAC })
        .ipv4({ dst: "255.255.255.255" });
      const large = frame.udp({ dst: 9 }).payload(1472);
      const fragments = send(large.build());
      expect(fragments.length).toBe(2);
      expectEncapsulated(whole(fragments), { to: VNETD_GROUP, ttl: 1, frame: large });
    });

    it("the original's own frame gives the original's own fragments, but for what is free", () => {
      const [request] = datagramsOf("lan-vnet4-ping1472-ipfrag");
      const message = parseMessage(request!.payload);
      if (message.kind !== "vudp") throw new Error("not VUDP");
      // the guest set DF: it would be told the MTU, so it is cleared, and its checksum mended
      const frame = Buffer.from(message.frame);
      frame[20] = 0;
      frame.writeUInt16BE(frame.readUInt16BE(24) + 0x4000, 24);
      lab!.control(vnetdControlOp.CTL_LEARN, vnet, {
        mac: frame.subarray(0, 6),
        addr: mappedBytes(PEER),
      });
      const ours = send(frame);
      const theirs = fragmentsOf("lan-vnet4-ping1472-ipfrag").slice(0, 2);
      expect(ours.map((f) => f.length)).toEqual(theirs.map((f) => f.length));
      ours.forEach((fragment, i) => {
        // MACs, IPv4 id, header checksum, destination; in the first the UDP port and checksum, and the inner DF
        const first = [
          [34, 36],
          [40, 42],
          [84, 85],
          [88, 90],
        ] as const;
        expectBytes(fragment, theirs[i]!, {
          what: `fragment ${i}`,
          free: [[0, 12], [18, 20], [24, 26], [30, 34], ...(i === 0 ? first : [])],
        });
      });
    });
  });

  describe("in", () => {
    const large = packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().udp({ dst: 9 }).payload(1472);
    const receive = (frames: readonly Buffer[]): Buffer[] =>
      exchange({ device: "ul0w", capture: "vn0", frames: frames.map((bytes) => ({ bytes })) });
    const fragmentsTo = (dst: string, mtu = 1500): Buffer[] =>
      fragmentIpv4(
        fromPeer({ dst, checksum: 0 }).vudp({ vnet: "4" }).payload(large.build()).build(),
        mtu,
      );

    it.each([
      ["in order", (f: Buffer[]) => f],
      ["the last first", (f: Buffer[]) => [...f].reverse()],
    ])("%s", (_what, order) => {
      const captured = receive(order(fragmentsTo(US, 600)));
      expect(captured.length).toBe(1);
      expectBytes(captured[0]!, large.build());
      expect(lab!.learned(vnet, GUEST_B)?.host).toBe(PEER);
      expect(lab!.traffic(vnet)).toMatchObject({
        decapFrames: 1,
        fragmentedIn: 1,
        floodedFrames: 0,
      });
    });

    it("by the group", () => {
      const captured = receive(fragmentsTo(VNETD_GROUP));
      expect(captured.length).toBe(1);
      expectBytes(captured[0]!, large.build());
      expect(lab!.traffic(vnet)).toMatchObject({
        decapFrames: 1,
        fragmentedIn: 1,
        floodedFrames: 1,
      });
    });

    it("a vnet that suppresses hears whose an address is", () => {
      vnet = lab!.vnet({ suppress: true });
      const sender = { senderMac: GUEST_B, senderIp: "192.168.4.2" };
      const reply = packet()
        .eth({ src: GUEST_B, dst: GUEST_A })
        .arp({ operation: 2, ...sender, targetIp: "192.168.4.1" })
        .payload(60);
      const whole = fromPeer({ checksum: 0 }).vudp({ vnet: "4" }).payload(reply.build()).build();
      const captured = receive(fragmentIpv4(whole, 100));
      expect(captured.length).toBe(1);
      expectBytes(captured[0]!, reply.build());
      expect(lab!.traffic(vnet)).toMatchObject({ decapFrames: 1, fragmentedIn: 1 });
      const entry = lab!.neighbour(vnet, mappedBytes("192.168.4.2"))!;
      expect(macText(entry.mac)).toBe(GUEST_B);
      expect(lab!.neighbourStats(vnet)).toMatchObject({ learned: 1, refused: 0 });
    });

    it("by the group on both paths to one host: once, whichever is whole first", () => {
      setPaths({ lab: lab!, vnet }, [{ address: PEER }, { address: THIRD }]);
      const frame = packet()
        .eth({ src: GUEST_B, dst: GUEST_A })
        .ipv4()
        .udp({ dst: 9 })
        .payload(900);
      const by = (src: string, id: number): Buffer =>
        fromPeer({ src, dst: VNETD_GROUP, checksum: 0, id })
          .vudp({ vnet: "4" })
          .payload(frame.build())
          .build();
      const cut = (bytes: Buffer): Buffer[] => fragmentIpv4(bytes, 600);
      const two = [...cut(by(PEER, 7)), ...cut(by(THIRD, 7)), ...cut(by(THIRD, 8))];
      expect(receive([...two, ...cut(by(PEER, 8))]).length).toBe(2);
      // one LAN carries whole what the other does not
      expect(receive([...cut(by(THIRD, 9)), by(PEER, 9)]).length).toBe(1);
      expect(receive([by(PEER, 10), ...cut(by(THIRD, 10))]).length).toBe(1);
    });

    it("an original's: the capture's reply arrives as it was", () => {
      const fragments = fragmentsOf("lan-vnet4-ping1472-ipfrag")
        .slice(2)
        .map((bytes) => {
          const toUs = Buffer.from(bytes);
          macBytes(lab!.mac("ul0")).copy(toUs);
          return toUs;
        });
      const reply = parseMessage(datagramsOf("lan-vnet4-ping1472-ipfrag")[1]!.payload);
      if (reply.kind !== "vudp") throw new Error("not VUDP");
      const captured = receive(fragments);
      expect(captured.length).toBe(1);
      expectBytes(captured[0]!, reply.frame);
      expect(lab!.learned(vnet, "aa:00:00:00:04:02")?.host).toBe("10.66.1.2");
    });

    it("an incomplete packet is nothing, and nothing is learned", () => {
      expect(receive(fragmentsTo(US).slice(0, 1))).toEqual([]);
      expect(lab!.traffic(vnet).decapFrames).toBe(0);
    });

    it("reassembly_forged: sent straight to the port without the secret", () => {
      const before = lab!.dropCounters();
      const forged = packet()
        .eth({ src: "02:00:0a:42:01:09", dst: lab!.mac("ul0") })
        .ipv4({ src: PEER, dst: US })
        .udp({ dst: REASSEMBLY_PORT })
        .payload(Buffer.from(`0800000000${vnet.slot.toString(16).padStart(4, "0")}00`, "hex"))
        .eth({ src: "02:00:00:00:00:01", dst: "02:00:00:00:00:02", type: 0x0800 })
        .eth({ src: "02:ee:00:00:00:01", dst: GUEST_A })
        .arp();
      expect(receive([forged.build()])).toEqual([]);
      const counted = [...lab!.dropCounters()].filter(
        ([key, drop]) => drop.frames !== before.get(key)?.frames,
      );
      expect(counted.map(([, drop]) => drop.reason)).toEqual(["reassembly_forged"]);
      expect(lab!.learned(vnet, "02:ee:00:00:00:01")).toBeUndefined();
      expect(lab!.traffic(vnet).decapFrames).toBe(0);
    });
  });
});
