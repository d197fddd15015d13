// SPDX-License-Identifier: Apache-2.0
/**
 * Forwarding to peers and from them: the table, and the whole way with real frames.
 *
 *   out: frames -> vn0 ==veth== vn0p [encap] -> ul0 -> captured, the group's
 *                                  '-> rl0 ==veth== rl1 [relay] -> rl1 [relay] -> ul0 -> captured, the peers'
 *   in:  frames -> ul0w ==veth== ul0 [decap] -> rl0 ==veth== rl1 [relay] -> ul0, ul1 -> captured
 *                                  '-> sg0 ==veth== sg1 [decap] -> vn0 -> captured
 */
import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { datagramsOf } from "../golden/captures.js";
import { expectBytes, ipv6Bytes, macBytes, mappedBytes } from "../lib/bytes.js";
import { isHostAddress, isLinkLocalAddress } from "../../src/base/address.js";
import { vnetdControlOp, vnetdMark } from "../../src/generated/layouts.js";
import { vfwdOverheadBytes } from "../../src/wire/overhead.js";
import { BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import {
  BROADCAST_MAC,
  VNETD_GROUP,
  VNETD_GROUP_MAC,
  fragmentIpv4,
  packet,
} from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import {
  addressBytes,
  addressText,
  endsOf,
  fragmentIpv6,
  isIpv6,
  packetIn,
  reassembleIpv6,
  textIn,
  type Form,
} from "../lib/forms.js";
import { reassembleIpv4 } from "../lib/pcap.js";
import { timeFactor } from "../lib/processes.js";
import { exchange } from "../lib/wire.js";
import { FAR, FAR_MAC, FAR_PEER, PEER_ROWS, groupTtl, vfwd } from "./peer-rows.js";
import { GUEST_A, GUEST_B, PEER, THIRD, US, fromPeer, groupMac, rowsFor, runRow } from "./rows.js";

const PRIORITY = 1;
const HANDLE = 1;
const FAR_PEER_2 = "10.66.9.2";
const HOOKS = [
  ["vnetd_encap", "vn0p"],
  ["vnetd_oversize", "os1"],
  ["vnetd_relay", "rl1"],
  ["vnetd_decap", "ul0"],
  ["vnetd_decap", "sg1"],
  ["vnetd_reassembled", "vx0"],
] as const;

/** IPv6's headers are longer by as much, and the lab's MTU */
const LONGER = 20;
const FORMS = ["udp4", "udp6"] as const;

describe.each(FORMS)("%s", (form: Form) => {
  // a test that is left out would count as skipped, which CI takes for a failure
  const onlyUdp4 = form === "udp4" ? it : undefined;
  const describeUdp4 = form === "udp4" ? describe : undefined;
  const mtuBytes = isIpv6(form) ? 1500 + LONGER : 1500;
  /** of an outer IP header */
  const ipBytes = isIpv6(form) ? 40 : 20;
  /** an outer packet of the tables, in the form */
  const inForm = (bytes: Uint8Array): Buffer => packetIn(form, Buffer.from(bytes))!;
  const cut = (outer: Buffer): Buffer[] =>
    isIpv6(form) ? fragmentIpv6(inForm(outer), mtuBytes) : fragmentIpv4(outer, mtuBytes);
  /** UDP of the form, and its fragments; IPv6's own packets (neighbour discovery) left out */
  const isOurs = (bytes: Buffer): boolean =>
    isIpv6(form)
      ? bytes.readUInt16BE(12) === 0x86dd && [17, 44].includes(bytes[20]!)
      : bytes.readUInt16BE(12) === 0x0800 && bytes[23] === 17;
  /** packets that came in fragments are whole in what this gives */
  function wholeOf(all: readonly Buffer[]): Buffer[] {
    if (!isIpv6(form))
      return reassembleIpv4(all.map((data) => ({ timeNs: 0n, wireLength: data.length, data }))).map(
        ({ data }) => data,
      );
    const byId = new Map<string, Buffer[]>();
    for (const bytes of all.filter((each) => each[20] === 44)) {
      const key = bytes.subarray(22, 54).toString("hex") + bytes.subarray(58, 62).toString("hex");
      byId.set(key, [...(byId.get(key) ?? []), bytes]);
    }
    return [
      ...all.filter((each) => each[20] !== 44),
      ...[...byId.values()].map((fragments) => reassembleIpv6(fragments)),
    ];
  }

  let lab: BpfLab | undefined;
  let vnet: LabVnet;
  beforeAll(() => {
    lab = BpfLab.open({ form });
    lab.forwarding(true);
    lab.fragments(true);
    const off = {
      "tx-checksum-ip-generic": false,
      "tx-tcp-segmentation": false,
      "tx-tcp6-segmentation": false,
      "tx-udp-segmentation": false,
      "tx-udp_tnl-segmentation": false,
      "tx-udp_tnl-csum-segmentation": false,
    };
    for (const device of ["os0", "rl0"]) lab.native.featuresSet(device, off);
    const ip = (...args: string[]): unknown => execFileSync("ip", args);
    const text = (address: string): string => textIn(form, address);
    for (const host of [PEER, THIRD])
      ip("neighbour", "replace", text(host), "lladdr", "02:00:0a:42:01:09", "dev", "ul0");
    // peers are behind a router
    const [subnet, bits] = isIpv6(form) ? [120, 128] : [24, 32];
    const far = `${text("10.66.9.0")}/${subnet}`;
    ip(isIpv6(form) ? "-6" : "-4", "route", "replace", far, "via", text(PEER), "dev", "ul0");
    ip("address", "add", `${text(VNETD_GROUP)}/${bits}`, "dev", "ul0", "autojoin");
    for (const name of ["ul0", "ul0w"]) ip("link", "set", name, "mtu", String(mtuBytes));
    for (const name of ["vn0", "vn0p"]) ip("link", "set", name, "mtu", "9000");
  });
  afterAll(() => lab?.close());

  describe("one packet", () => {
    for (const row of rowsFor(form, PEER_ROWS)) it(row.description, () => runRow(lab!, row));
  });

  describe("random input", () => {
    const { MARK_RELAY, MARK_RELAY_IN, MARK_RELAY_OUT } = vnetdMark;
    const inner = packet().vudp({ vnet: "4" }).payload(80).build();
    const bases = [
      vfwd({ source: FAR }).payload(inner).build(),
      vfwd({ source: FAR, relayed: !isIpv6(form) })
        .payload(inner)
        .build(),
      vfwd().varp({ vnet: "4", vmac: FAR_MAC }).build(),
      fromPeer({ dst: VNETD_GROUP }).payload(inner).build(),
    ];
    const mutated = fc
      .tuple(
        fc.constantFrom(...bases),
        fc.array(fc.tuple(fc.nat(0xffff), fc.nat(255)), { maxLength: 4 }),
        fc.option(fc.nat(0xffff)),
      )
      .map(([base, changes, cut]) => {
        const bytes = inForm(base);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        return cut === null ? bytes : bytes.subarray(0, 54 + (cut % (bytes.length - 53)));
      });

    it.each([
      ["from a peer", MARK_RELAY_IN],
      ["to peers", MARK_RELAY],
      ["out", MARK_RELAY_OUT],
    ])(
      "%s: one fate, with a reason where it is dropped",
      (_what, mark) => {
        lab!.underlay({ relay: true });
        lab!.vnet();
        lab!.peers([{ address: FAR_PEER }]);
        const seen = { redirect: 0, drop: 0, pass: 0 };
        fc.assert(
          fc.property(mutated, (bytes) => {
            const run = lab!.run("vnetd_relay", bytes, { mark: mark | lab!.place() });
            seen[run.verdict] += 1;
            expect(run.verdict).not.toBe("pass");
            expect(run.drops.length).toBeLessThanOrEqual(1);
            if (run.verdict === "redirect") expect(run.drops).toEqual([]);
            if (run.verdict === "drop" && mark === MARK_RELAY_IN) expect(run.drops).toHaveLength(1);
            if (run.verdict !== "redirect" || mark !== MARK_RELAY_IN) return;
            // what is sent on is right in every field, goes to the group, and names a host
            const out = parseFrame(run.output, { messages: "skip" });
            const { src, dst, ttl } = endsOf(out);
            expect({ dst, ttl }).toEqual({ dst: VNETD_GROUP, ttl: groupTtl(form) });
            expect(src).not.toBe(US);
            const source = addressBytes(isIpv6(form) ? out.ipv6!.src : src);
            expect(isHostAddress(source) && !isLinkLocalAddress(source)).toBe(true);
          }),
          { numRuns: Math.round(2000 / timeFactor) },
        );
        expect(seen.redirect + seen.drop).toBeGreaterThan(0);
        if (mark !== MARK_RELAY) expect(seen.redirect).toBeGreaterThan(10);
      },
      60_000 * timeFactor,
    );
  });

  describe("the whole way", () => {
    beforeAll(() => {
      for (const [program, device] of HOOKS) {
        const { native } = lab!;
        const ifindex = lab!.ifindex(device);
        native.clsactAttach(lab!.program(program), ifindex, "ingress", PRIORITY, HANDLE);
      }
    });
    afterAll(() => {
      for (const [, device] of HOOKS)
        lab!.native.clsactDetach(lab!.ifindex(device), "ingress", PRIORITY, HANDLE);
    });
    beforeEach(() => {
      lab!.underlay({ relay: true });
      vnet = lab!.vnet();
      lab!.peers([{ address: FAR_PEER }, { address: FAR_PEER_2, port: 1799 }]);
    });
    afterEach(() => lab!.unicastMembers(vnet, []));

    let sequence = 0;
    const fresh = (src = GUEST_A, bytes = 100): Buffer =>
      packet()
        .eth({ src, dst: BROADCAST_MAC })
        .payload(Buffer.concat([Buffer.from([(sequence += 1)]), Buffer.alloc(bytes - 1, 0x77)]))
        .build();
    const leaving = (device: string, bytes: Uint8Array): Buffer[] =>
      exchange({ device, capture: "ul0w", frames: [{ bytes: inForm(bytes) }] }).filter(isOurs);
    const to = (all: readonly Buffer[], address: string): ParsedFrame[] =>
      all.map((bytes) => parseFrame(bytes)).filter((frame) => endsOf(frame).dst === address);

    function expectVfwd(
      out: ParsedFrame,
      expected: { source: string; message: Uint8Array; port?: number },
    ): void {
      expect(out.dst).toBe("02:00:0a:42:01:09");
      expect(endsOf(out)).toMatchObject({ src: US, ttl: 64 });
      expect(out.ipv4?.dontFragment ?? false).toBe(false);
      expect(out.udp).toMatchObject({ src: 1798, dst: expected.port ?? 1798, checksum: 0 });
      if (out.message?.kind !== "vfwd") throw new Error("not VFWD");
      const { innerIp, innerUdp, inner } = out.message;
      expectInnerIp(innerIp, expected.source, 8 + inner.length);
      expect(innerUdp.readUInt16BE(2)).toBe(1798);
      expect(innerUdp.readUInt16BE(4)).toBe(8 + inner.length);
      expectBytes(inner, expected.message, { what: "the message inside" });
    }
    function expectInnerIp(ip: Buffer, source: string, payloadBytes: number): void {
      if (isIpv6(form)) {
        expect(ip).toHaveLength(40);
        expect(ip.readUInt32BE(0) >>> 20).toBe(0x600);
        expect(ip.readUInt16BE(4)).toBe(payloadBytes);
        expect(ip[6]).toBe(17);
        expectBytes(ip.subarray(8, 24), source === "0.0.0.0" ? Buffer.alloc(16) : in6(source));
        expect(addressText(ip.subarray(24))).toBe(VNETD_GROUP);
        return;
      }
      expect(ip[0]).toBe(0x45);
      expect(ip.readUInt16BE(2)).toBe(20 + payloadBytes);
      expect([...ip.subarray(12, 16)].join(".")).toBe(source);
      expect([...ip.subarray(16)].join(".")).toBe(VNETD_GROUP);
      expect(ip[9]).toBe(17);
    }
    const in6 = (address: string): Buffer => ipv6Bytes(textIn("udp6", address));
    /** behind the outer headers of a group packet */
    const messageOf = (bytes: Buffer): Buffer => bytes.subarray(14 + ipBytes + 8);
    const vudp = (frame: Uint8Array): Buffer => packet().vudp({ vnet: "4" }).payload(frame).build();

    describe("out", () => {
      it("what goes to the group goes to each peer", () => {
        const frame = fresh();
        const all = leaving("vn0", frame);
        expect(all).toHaveLength(3);
        expect(to(all, VNETD_GROUP)).toHaveLength(1);
        expectVfwd(to(all, FAR_PEER)[0]!, { source: "0.0.0.0", message: vudp(frame) });
        const second = to(all, FAR_PEER_2)[0]!;
        expect(second.udp).toMatchObject({ src: 1798, dst: 1799 });
        expectBytes(second.payload.subarray(vfwdOverheadBytes(isIpv6(form) ? 6 : 4)), vudp(frame));
        expect(Number(lab!.peerStats(1).sentFrames)).toBe(1);
      });

      it("known unicast goes to its host alone", () => {
        const { CTL_LEARN } = vnetdControlOp;
        lab!.control(CTL_LEARN, vnet, { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) });
        const frame = packet()
          .eth({ src: GUEST_A, dst: GUEST_B })
          .ipv4()
          .udp({ dst: 9 })
          .payload(9);
        const all = leaving("vn0", frame.build());
        expect(all.map((bytes) => endsOf(parseFrame(bytes)).dst)).toEqual([PEER]);
      });

      it.each([
        ["that does not fit with 32 bytes more", 1436, 1],
        ["that does not fit at all", 1500, 2],
      ])("a frame %s: fragments", (_what, bytes, groupPackets) => {
        const frame = fresh(GUEST_A, bytes);
        const all = leaving("vn0", frame);
        for (const each of all) expect(each.length).toBeLessThanOrEqual(14 + mtuBytes);
        expect(all.filter((each) => (each[0]! & 1) === 1)).toHaveLength(groupPackets);
        const whole = wholeOf(all);
        expectVfwd(to(whole, FAR_PEER)[0]!, { source: "0.0.0.0", message: vudp(frame) });
      });

      it("what a host of the subnet sends to the group, also of a vnet that is not here", () => {
        for (const id of ["4", "1234"]) {
          const message = packet().vudp({ vnet: id }).payload(fresh(GUEST_B)).build();
          const all = leaving("ul0w", fromPeer({ dst: VNETD_GROUP }).payload(message).build());
          expect(all).toHaveLength(2);
          expectVfwd(to(all, FAR_PEER)[0]!, { source: PEER, message });
        }
      });

      it("what a host of the subnet says by VARP to the group", () => {
        const message = packet().varp({ vnet: "4", vmac: GUEST_B, address: PEER }).build();
        const all = leaving("ul0w", fromPeer({ dst: VNETD_GROUP }).payload(message).build());
        expectVfwd(to(all, FAR_PEER)[0]!, { source: PEER, message });
      });

      onlyUdp4?.(
        "an original's packet gives what the original forwarder made of it, with a valid header",
        () => {
          const [heard, forwarded] = datagramsOf("routed-thirdparty-CtoD-br1");
          // 10.66.1.3 sent it, and 10.66.1.1 forwarded it
          const all = leaving("ul0w", heard!.bytes);
          const out = to(all, FAR_PEER)[0]!;
          expectVfwd(out, { source: "10.66.1.3", message: heard!.payload });
          const theirs = forwarded!.payload;
          const ours = out.message;
          if (ours?.kind !== "vfwd") throw new Error("not VFWD");
          expectBytes(ours.inner, theirs.subarray(32));
          expectBytes(ours.innerIp.subarray(12), theirs.subarray(4 + 12, 4 + 20));
        },
      );

      onlyUdp4?.("what a host sends that forwards itself: originals cannot send it on", () => {
        const ownMac = "02:00:00:00:00:77";
        const heard = (src: string, frame: Buffer): Buffer =>
          packet()
            .eth({ src: ownMac, dst: VNETD_GROUP_MAC })
            .ipv4({ src, dst: VNETD_GROUP, id: 7 })
            .udp({ src: 50_001, checksum: 0 })
            .vudp({ vnet: "4" })
            .payload(frame)
            .build();
        const innerOf = (all: readonly Buffer[]): Buffer => {
          const message = to(all, FAR_PEER)[0]?.message;
          if (message?.kind !== "vfwd") throw new Error("not VFWD");
          return message.innerIp;
        };
        expect(innerOf(leaving("ul0w", heard(PEER, fresh(GUEST_B))))[0]).toBe(0x45);
        expect(leaving("ul0w", heard(FAR, fresh(FAR_MAC)))).toEqual([]);
        const inner = innerOf(leaving("ul0w", heard(PEER, fresh(GUEST_B))));
        expect(inner[0]).toBe(0);
        // hosts of ours know the copy by it
        expect(inner.readUInt16BE(4)).toBe(7);
        expect([...inner.subarray(12, 16)].join(".")).toBe(PEER);
        // what the host itself sends has a whole header
        expect(innerOf(leaving("vn0", fresh()))[0]).toBe(0x45);
      });

      it.each([
        ["by unicast", US, PEER],
        ["from another subnet: a forwarder sent it", VNETD_GROUP, FAR],
      ])("not what was heard %s", (_what, dst, src) => {
        const bytes = fromPeer({ dst, src }).vudp({ vnet: "4" }).payload(fresh(GUEST_B)).build();
        expect(leaving("ul0w", bytes)).toEqual([]);
      });

      it("not to the peer that sent it", () => {
        lab!.peers([{ address: PEER }, { address: FAR_PEER }]);
        const bytes = fromPeer({ dst: VNETD_GROUP }).vudp({ vnet: "4" }).payload(fresh(GUEST_B));
        const all = leaving("ul0w", bytes.build());
        expect(all.map((each) => endsOf(parseFrame(each)).dst)).toEqual([FAR_PEER]);
      });

      it("not to a peer that multicast reaches", () => {
        lab!.peers([{ address: PEER, send: false }, { address: FAR_PEER }]);
        const all = leaving("vn0", fresh());
        expect(to(all, PEER)).toEqual([]);
        expect(all).toHaveLength(2);
      });
    });

    describe("without multicast", () => {
      it("plain VUDP to each member, VFWD to the other peers, nothing to the group", () => {
        lab!.underlay({ noGroup: true, relay: true });
        lab!.peers([{ address: PEER, unicast: true }, { address: FAR_PEER }]);
        lab!.unicastMembers(vnet, [PEER, THIRD]);
        const frame = fresh();
        const all = leaving("vn0", frame);
        expect(all).toHaveLength(3);
        for (const member of [PEER, THIRD]) {
          const [out] = to(all, member);
          expect(endsOf(out!)).toMatchObject({ src: US, ttl: 64 });
          if (out!.message?.kind !== "vudp") throw new Error("not VUDP");
          expectBytes(out!.message.frame, frame);
        }
        expectVfwd(to(all, FAR_PEER)[0]!, { source: "0.0.0.0", message: vudp(frame) });
      });

      it("members of other vnets get nothing", () => {
        lab!.underlay({ noGroup: true });
        lab!.unicastMembers(vnet, [PEER]);
        lab!.vnet({ id: "5" });
        lab!.peers([]);
        expect(leaving("vn0", fresh())).toEqual([]);
      });

      it("members that use no multicast get it beside the group", () => {
        lab!.peers([]);
        lab!.unicastMembers(vnet, [FAR]);
        const all = leaving("vn0", fresh());
        expect(to(all, VNETD_GROUP)).toHaveLength(1);
        expect(to(all, FAR)[0]?.message?.kind).toBe("vudp");
      });

      it("a frame that is too large goes to members in fragments", () => {
        lab!.underlay({ noGroup: true });
        lab!.peers([]);
        lab!.unicastMembers(vnet, [PEER]);
        const all = leaving("vn0", fresh(GUEST_A, 1500));
        expect(all).toHaveLength(2);
        for (const each of all) expect(each.length).toBeLessThanOrEqual(14 + mtuBytes);
      });
    });

    describeUdp4?.("a device with both families", () => {
      const near6 = "fd66::a42:109";
      beforeEach(() => {
        const neighbour = ["replace", near6, "lladdr", "02:00:0a:42:01:09", "dev", "ul0"];
        execFileSync("ip", ["neighbour", ...neighbour]);
        lab!.peers([{ address: near6 }]);
      });
      afterEach(() => lab!.detach("ul0", 6));
      const both = (frame: Buffer): Buffer[] =>
        exchange({ device: "vn0", capture: "ul0w", frames: [{ bytes: frame }] }).filter(
          (bytes) => bytes.readUInt16BE(12) === 0x0800 || [17, 44].includes(bytes[20]!),
        );

      it.each([100, 1500])(
        "a peer by IPv6 has a frame of %d bytes although nothing goes to the IPv6 group",
        (bytes) => {
          lab!.underlay({ family: 6, noGroup: true });
          const frame = fresh(GUEST_A, bytes);
          const all = both(frame);
          const [group, peer] = [0x0800, 0x86dd].map((type) =>
            all.filter((each) => each.readUInt16BE(12) === type),
          );
          expect(group!.every((each) => (each[0]! & 1) === 1)).toBe(true);
          expect(group).toHaveLength(bytes > 1436 ? 2 : 1);
          const whole = peer!.length > 1 ? reassembleIpv6(peer!) : peer![0]!;
          const out = parseFrame(whole);
          expect(endsOf(out)).toEqual({ src: US, dst: PEER, ttl: 64 });
          if (out.message?.kind !== "vfwd") throw new Error("not VFWD");
          expectBytes(out.message.inner, vudp(frame));
        },
      );

      it("where only that is heard, IPv4 is left alone, and nothing counts as lost", () => {
        lab!.underlay({ noGroup: true });
        lab!.underlay({ family: 6, noGroup: true });
        const before = lab!.dropCounters();
        expect(both(fresh()).map((bytes) => bytes.readUInt16BE(12))).toEqual([0x86dd]);
        expect(lab!.dropCounters()).toEqual(before);
        expect(lab!.traffic(vnet).encapFrames).toBe(1);
      });
    });

    describe("in", () => {
      const guestHears = (bytes: readonly Uint8Array[]): Buffer[] =>
        exchange({
          device: "ul0w",
          capture: "vn0",
          frames: bytes.map((each) => ({ bytes: inForm(each) })),
        });
      const guestHearsFragments = (fragments: readonly Buffer[]): Buffer[] =>
        exchange({
          device: "ul0w",
          capture: "vn0",
          frames: fragments.map((bytes) => ({ bytes })),
        });

      it("a frame is delivered, and its sender learned", () => {
        const frame = fresh(FAR_MAC);
        expect(
          guestHears([vfwd({ source: FAR }).vudp({ vnet: "4" }).payload(frame).build()]),
        ).toEqual([frame]);
        expect(lab!.learned(vnet, FAR_MAC)?.host).toBe(FAR);
        expect(lab!.traffic(vnet)).toMatchObject({ decapFrames: 1, floodedFrames: 1 });
      });

      it("and sent to the group here, with the original sender's address", () => {
        const message = packet().vudp({ vnet: "4" }).payload(fresh(FAR_MAC)).build();
        const all = leaving("ul0w", vfwd({ source: FAR }).payload(message).build());
        expect(all).toHaveLength(1);
        const out = parseFrame(all[0]!);
        expect(out).toMatchObject({ dst: groupMac(form), src: "02:00:0a:42:01:01" });
        expect(endsOf(out)).toEqual({ src: FAR, dst: VNETD_GROUP, ttl: groupTtl(form) });
        expect(out.ipv4?.dontFragment ?? false).toBe(false);
        expect(out.udp).toMatchObject({ src: 1798, dst: 1798, checksum: 0 });
        expectBytes(messageOf(all[0]!), message);
      });

      onlyUdp4?.("as the original sent on what its peer forwarded", () => {
        lab!.peers([{ address: "10.66.1.9" }]);
        const [forwarded, theirs] = datagramsOf("routed-AtoD-remulticast-br2");
        const bytes = Buffer.from(
          packet()
            .eth({ dst: "02:00:0a:42:01:01", src: "02:00:0a:42:01:09" })
            .ipv4({ src: "10.66.1.9", dst: US })
            .udp({ checksum: 0 })
            .payload(forwarded!.payload)
            .build(),
        );
        // the capture's sender is this lab's own address: it gets another
        bytes.set([10, 66, 9, 3], 14 + 28 + 4 + 12);
        const all = leaving("ul0w", bytes);
        expect(all).toHaveLength(1);
        expect(parseFrame(all[0]!).ipv4).toMatchObject({
          src: FAR,
          dst: VNETD_GROUP,
          ttl: theirs!.ttl,
        });
        expectBytes(all[0]!.subarray(42), theirs!.payload);
      });

      it("not where the sender lives: its own packet was there", () => {
        lab!.underlay({ relay: true });
        const frame = fresh(GUEST_B);
        expect(
          leaving("ul0w", vfwd({ source: THIRD }).vudp({ vnet: "4" }).payload(frame).build()),
        ).toEqual([]);
      });

      it("a message of a vnet that is not here is sent on as well", () => {
        const message = packet().vudp({ vnet: "1234" }).payload(fresh(FAR_MAC)).build();
        expect(leaving("ul0w", vfwd({ source: FAR }).payload(message).build())).toHaveLength(1);
      });

      it("nothing that came from a peer goes to a peer", () => {
        const bytes = vfwd({ source: FAR }).vudp({ vnet: "4" }).payload(fresh(FAR_MAC)).build();
        const all = leaving("ul0w", bytes);
        expect([...to(all, FAR_PEER), ...to(all, FAR_PEER_2)]).toEqual([]);
      });

      it("copies by two forwarders, and by their sending on: the guest hears one", () => {
        const frame = fresh(FAR_MAC);
        const message = packet().vudp({ vnet: "4" }).payload(frame).build();
        const copy = (from: string): Buffer =>
          vfwd({ source: FAR, from, ipId: 77 }).payload(message).build();
        const sentOn = packet()
          .eth({ dst: VNETD_GROUP_MAC, src: "02:00:0a:42:01:0b" })
          .ipv4({ src: FAR, dst: VNETD_GROUP, ttl: 64, id: 77 })
          .udp({ checksum: 0 })
          .payload(message)
          .build();
        expect(guestHears([copy(FAR_PEER), copy(FAR_PEER_2), sentOn])).toEqual([frame]);
      });

      it("what came in fragments", () => {
        const frame = fresh(FAR_MAC, 1440);
        const outer = vfwd({ source: FAR }).vudp({ vnet: "4" }).payload(frame).build();
        expect(guestHearsFragments(cut(outer))).toEqual([frame]);
        expect(lab!.learned(vnet, FAR_MAC)?.host).toBe(FAR);
      });

      it("what came in fragments is sent on in fragments where it does not fit", () => {
        const message = packet().vudp({ vnet: "4" }).payload(fresh(FAR_MAC, 1500)).build();
        const outer = vfwd({ source: FAR }).payload(message).build();
        const all = exchange({
          device: "ul0w",
          capture: "ul0w",
          frames: cut(outer).map((bytes) => ({ bytes })),
        }).filter(isOurs);
        expect(all).toHaveLength(2);
        for (const each of all) expect(each.length).toBeLessThanOrEqual(14 + mtuBytes);
        const [whole] = wholeOf(all);
        expect(endsOf(parseFrame(whole!))).toMatchObject({ src: FAR, dst: VNETD_GROUP });
        expectBytes(messageOf(whole!), message);
      });

      it("what was heard on the group in fragments goes to the peers", () => {
        const message = packet().vudp({ vnet: "4" }).payload(fresh(GUEST_B, 1500)).build();
        const outer = fromPeer({ dst: VNETD_GROUP }).payload(message).build();
        const all = exchange({
          device: "ul0w",
          capture: "ul0w",
          frames: cut(outer).map((bytes) => ({ bytes })),
        }).filter(isOurs);
        const whole = wholeOf(all);
        expectVfwd(to(whole, FAR_PEER)[0]!, { source: PEER, message });
      });

      it("and to the guest, as it was: from this subnet, and from afar once", () => {
        for (const src of [PEER, FAR]) {
          lab!.underlay({ relay: true });
          vnet = lab!.vnet();
          const frame = fresh(FAR_MAC, 1500);
          const outer = fromPeer({ dst: VNETD_GROUP, src, id: 5 })
            .vudp({ vnet: "4" })
            .payload(frame);
          const fragments = cut(outer.build());
          const copies = src === FAR ? [...fragments, ...fragments] : fragments;
          expect(guestHearsFragments(copies)).toEqual([frame]);
          expect(lab!.learned(vnet, FAR_MAC)?.host).toBe(src);
          expect(lab!.traffic(vnet)).toMatchObject({ decapFrames: 1, floodedFrames: 1 });
          expect(lab!.traffic(vnet).fragmentedIn).toBe(1);
        }
      });
    });
  });
});
