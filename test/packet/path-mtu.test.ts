// SPDX-License-Identifier: Apache-2.0
/** Path MTU, in each form of the outer packet: the table, and what follows from it for frames on their way out. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  encodeVnetdHostPath,
  encodeVnetdHostPathKey,
  vnetdControlOp,
  vnetdMark,
  vnetdNexthopFlags,
} from "../../src/generated/layouts.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import { FORMS, OVERHEAD, addressIn, isEtherip, isIpv6, type Form } from "../lib/forms.js";
import { packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { timeFactor } from "../lib/processes.js";
import {
  forgetPath,
  frameOfOuter,
  outerOf,
  pathError,
  pathMtuRows,
  saidMtu,
  type Quoted,
} from "./path-mtu-rows.js";
import { setPaths } from "./path-rows.js";
import { GUEST_A, GUEST_B, PEER, runRow } from "./rows.js";

/** To load the programs takes long in emulation: there, each family and encapsulation once. */
const forms: readonly Form[] = timeFactor === 1 ? FORMS : ["udp4", "etherip6"];

describe.each(forms)("%s", (form) => {
  let lab: BpfLab | undefined;
  let vnet: LabVnet;
  /** of the lab's underlay: the same frames fit in all forms */
  const deviceMtu = 1500 + OVERHEAD[form] - OVERHEAD.udp4;
  const is4 = !isIpv6(form);
  beforeAll(() => {
    lab = BpfLab.open({ form });
    lab.fragments(true);
  });
  afterAll(() => lab?.close());

  describe("one packet", () => {
    for (const row of pathMtuRows(form)) it(row.description, () => runRow(lab!, row));
  });

  describe("on the way out", () => {
    const learn = (): void => {
      const request = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
      lab!.control(vnetdControlOp.CTL_LEARN, vnet, request);
    };
    const anotherVnet = (): void => {
      vnet = lab!.vnet();
      setPaths({ lab: lab!, vnet }, [{ address: PEER }]);
      learn();
    };
    beforeEach(() => {
      lab!.underlay();
      forgetPath({ lab: lab! });
      anotherVnet();
    });
    const router = (options: Quoted = {}): void => {
      lab!.run("vnetd_decap", pathError(form, options));
    };
    const frame = (bytes: number): Buffer => frameOfOuter(form, bytes).build();
    /** whether it goes to the pair that answers and fragments */
    const isTooBig = (bytes: number): boolean => {
      const { verdict, mark } = lab!.run("vnetd_encap", frame(bytes));
      expect(verdict).toBe("redirect");
      return (mark & vnetdMark.MARK_KIND) >>> 0 === vnetdMark.MARK_OVERSIZE;
    };
    const oversize = (bytes: Buffer): ReturnType<BpfLab["run"]> =>
      lab!.run("vnetd_oversize", bytes, { mark: vnetdMark.MARK_OVERSIZE | vnet.slot });
    const toB = packet().eth({ src: GUEST_A, dst: GUEST_B });

    const onlyUdp4 = form === "udp4" ? it : undefined;
    onlyUdp4?.each(["vnetd_encap", "vnetd_encap_fast"] as const)(
      "%s: unicast to a host that says hello carries DF, to others it does not",
      (program) => {
        const { output } = lab!.run(program, frame(1000));
        expect(outerOf(output)).toMatchObject({ dst: PEER, dontFragment: true });
        vnet = lab!.vnet();
        learn();
        const other = lab!.run(program, frame(1000));
        expect(outerOf(other.output)).toMatchObject({ dst: PEER, dontFragment: false });
      },
    );

    onlyUdp4?.("what goes to the group never does, nor what is not IP any less", () => {
      const group = lab!.run("vnetd_encap", packet().eth({ src: GUEST_A }).arp().build());
      expect(outerOf(group.output).dontFragment).toBe(false);
      const arp = packet().eth({ src: GUEST_A, dst: GUEST_B }).arp().build();
      expect(outerOf(lab!.run("vnetd_encap", arp).output).dontFragment).toBe(true);
    });

    it("a router's MTU is kept to, in all vnets, and by the fast hook as well", () => {
      expect([1400, 1401, deviceMtu].map(isTooBig)).toEqual([false, false, false]);
      router();
      expect([isTooBig(1400), isTooBig(1401)]).toEqual([false, true]);
      expect(lab!.run("vnetd_encap_fast", frame(1401)).verdict).toBe("pass");
      expect(lab!.run("vnetd_encap_fast", frame(1400)).verdict).toBe("redirect");
      anotherVnet();
      expect([isTooBig(1400), isTooBig(1401)]).toEqual([false, true]);
    });

    it("and towards a host that never said hello, where nothing else helps", () => {
      forgetPath({ lab: lab! });
      vnet = lab!.vnet();
      learn();
      expect(isTooBig(1401)).toBe(false);
      router();
      expect([isTooBig(1400), isTooBig(1401)]).toEqual([false, true]);
    });

    it("the guest is told it, and what may be fragmented is, to that size", () => {
      router();
      const tcp = toB.ipv4({ dontFragment: true }).tcp().payload(1380);
      const { output, drops } = oversize(tcp.build());
      expect(drops.map(({ reason }) => reason)).toEqual(["too_big"]);
      expect(parseFrame(output).payload.readUInt16BE(6)).toBe(1400 - OVERHEAD[form] - 14);

      expect(oversize(frame(deviceMtu)).drops).toEqual([]);
      expect(lab!.traffic(vnet).fragmentedOut).toBe(1);
    });

    it("IPv6 is never told less than 1280, and is fragmented below that", () => {
      const smallest = is4 ? 600 : 1280;
      router({ mtu: smallest });
      const large = toB.ipv6().tcp().payload(1300).build();
      const answer = oversize(large);
      expect(answer.verdict).toBe("redirect");
      expect(parseFrame(answer.output).payload.readUInt32BE(4)).toBe(1280);
      const fits = toB.ipv6().tcp().payload(1220).build();
      expect(oversize(fits)).toMatchObject({ verdict: "drop", drops: [] });
      expect(lab!.traffic(vnet).fragmentedOut).toBe(1);
    });

    (is4 ? it : undefined)?.("at the lower bound UDP carries no DF", () => {
      router({ mtu: 68 });
      const { output } = lab!.run("vnetd_encap", frame(576));
      expect(outerOf(output).dontFragment).toBe(isEtherip(form));
      expect([isTooBig(576), isTooBig(577)]).toEqual([false, true]);
    });

    it("it ends", () => {
      router();
      expect(isTooBig(1401)).toBe(true);
      // as if ten minutes had passed
      const addr = addressIn(form, mappedBytes(PEER));
      const key = encodeVnetdHostPathKey({ ifindex: lab!.ifindex("ul0"), addr });
      const said = encodeVnetdHostPath({
        mtu: 1400,
        mtuUntilNs: process.hrtime.bigint() - 1_000_000_000n,
      });
      lab!.native.mapUpdate(lab!.map("host_paths"), key, said);
      anotherVnet();
      expect(isTooBig(1401)).toBe(false);
      // and may be said anew, larger
      router({ mtu: 1450 });
      expect(saidMtu({ lab: lab! })).toBe(1450);
      expect([isTooBig(1450), isTooBig(1451)]).toEqual([false, true]);
    });

    it("a host whose own device has a smaller MTU gets no more than that", () => {
      const say = (mtu: number): void => {
        lab!.control(vnetdControlOp.CTL_NEXTHOP, vnet, {
          addr: mappedBytes(PEER),
          nexthopFlags: vnetdNexthopFlags.NEXTHOP_MEMBER,
          mtu,
        });
      };
      say(1450);
      expect([isTooBig(1450), isTooBig(1451)]).toEqual([false, true]);
      say(9000);
      expect(isTooBig(deviceMtu)).toBe(false);
      // no IPv4 host has that: not believed
      say(100);
      expect(isTooBig(deviceMtu)).toBe(false);
    });
  });
});
