// SPDX-License-Identifier: Apache-2.0
/** Path MTU: the table, and what follows from it for frames on their way out. */
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
import { packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import {
  PATH_MTU_ROWS,
  forgetPath,
  fragmentationNeeded,
  frameOfOuter,
  outerOf,
  saidMtu,
} from "./path-mtu-rows.js";
import { setPaths } from "./path-rows.js";
import { GUEST_A, GUEST_B, PEER, runRow } from "./rows.js";

let lab: BpfLab | undefined;
let vnet: LabVnet;
beforeAll(() => {
  lab = BpfLab.open();
  lab.fragments(true);
});
afterAll(() => lab?.close());

describe("one packet", () => {
  for (const row of PATH_MTU_ROWS) it(row.description, () => runRow(lab!, row));
});

describe("on the way out", () => {
  const learn = (): void => {
    const request = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
    lab!.control(vnetdControlOp.CTL_LEARN, vnet, request);
  };
  beforeEach(() => {
    lab!.underlay();
    forgetPath({ lab: lab! });
    vnet = lab!.vnet();
    setPaths({ lab: lab!, vnet }, [{ address: PEER }]);
    learn();
  });
  const router = (options: Parameters<typeof fragmentationNeeded>[0] = {}): void => {
    lab!.run("vnetd_decap", fragmentationNeeded(options));
  };
  /** whether it goes to the pair that answers and fragments */
  const isTooBig = (bytes: number): boolean => {
    const { verdict, mark } = lab!.run("vnetd_encap", frameOfOuter(bytes).build());
    expect(verdict).toBe("redirect");
    return (mark & vnetdMark.MARK_KIND) >>> 0 === vnetdMark.MARK_OVERSIZE;
  };

  it.each(["vnetd_encap", "vnetd_encap_fast"] as const)(
    "%s: unicast to a host that says hello carries DF, to others it does not",
    (program) => {
      const { output } = lab!.run(program, frameOfOuter(1000).build());
      expect(outerOf(output)).toMatchObject({ dst: PEER, dontFragment: true });
      vnet = lab!.vnet();
      learn();
      const other = lab!.run(program, frameOfOuter(1000).build());
      expect(outerOf(other.output)).toMatchObject({ dst: PEER, dontFragment: false });
    },
  );

  it("what goes to the group never does, nor what is not IP any less", () => {
    const group = lab!.run("vnetd_encap", packet().eth({ src: GUEST_A }).arp().build());
    expect(outerOf(group.output).dontFragment).toBe(false);
    const arp = packet().eth({ src: GUEST_A, dst: GUEST_B }).arp().build();
    expect(outerOf(lab!.run("vnetd_encap", arp).output).dontFragment).toBe(true);
  });

  it("a router's MTU is kept to, in all vnets, and by the fast hook as well", () => {
    expect([isTooBig(1400), isTooBig(1401), isTooBig(1500)]).toEqual([false, false, false]);
    router();
    expect([isTooBig(1400), isTooBig(1401)]).toEqual([false, true]);
    expect(lab!.run("vnetd_encap_fast", frameOfOuter(1401).build()).verdict).toBe("pass");
    expect(lab!.run("vnetd_encap_fast", frameOfOuter(1400).build()).verdict).toBe("redirect");
    vnet = lab!.vnet();
    setPaths({ lab: lab!, vnet }, [{ address: PEER }]);
    learn();
    expect([isTooBig(1400), isTooBig(1401)]).toEqual([false, true]);
  });

  it("the guest is told it, and what may be fragmented is, to that size", () => {
    router();
    const mark = vnetdMark.MARK_OVERSIZE | vnet.slot;
    const tcp = packet()
      .eth({ src: GUEST_A, dst: GUEST_B })
      .ipv4({ dontFragment: true })
      .tcp()
      .payload(1380);
    const { output, drops } = lab!.run("vnetd_oversize", tcp.build(), { mark });
    expect(drops.map(({ reason }) => reason)).toEqual(["too_big"]);
    expect(parseFrame(output).payload.readUInt16BE(6)).toBe(1400 - 64);

    const whole = lab!.received("os1");
    const sent = lab!.run("vnetd_oversize", frameOfOuter(1500).build(), { mark });
    expect(sent.drops).toEqual([]);
    expect(lab!.received("os1")).toBe(whole);
  });

  it("IPv6 is never told less than 1280, and is fragmented below that", () => {
    router({ mtu: 600 });
    const mark = vnetdMark.MARK_OVERSIZE | vnet.slot;
    const toB = packet().eth({ src: GUEST_A, dst: GUEST_B });
    const large = toB.ipv6().tcp().payload(1300).build();
    const answer = lab!.run("vnetd_oversize", large, { mark });
    expect(answer.verdict).toBe("redirect");
    expect(parseFrame(answer.output).payload.readUInt32BE(4)).toBe(1280);
    const fits = toB.ipv6().tcp().payload(1220).build();
    expect(lab!.run("vnetd_oversize", fits, { mark })).toMatchObject({
      verdict: "drop",
      drops: [],
    });
    expect(lab!.traffic(vnet).fragmentedOut).toBe(1);
  });

  it("at the lower bound nothing carries DF", () => {
    router({ mtu: 68 });
    const { output } = lab!.run("vnetd_encap", frameOfOuter(576).build());
    expect(outerOf(output).dontFragment).toBe(false);
    expect([isTooBig(576), isTooBig(577)]).toEqual([false, true]);
  });

  it("it ends", () => {
    router();
    expect(isTooBig(1401)).toBe(true);
    // as if ten minutes had passed
    const key = { ifindex: lab!.ifindex("ul0"), addr: mappedBytes(PEER) };
    const said = encodeVnetdHostPath({
      mtu: 1400,
      mtuUntilNs: process.hrtime.bigint() - 1_000_000_000n,
    });
    lab!.native.mapUpdate(lab!.map("host_paths"), encodeVnetdHostPathKey(key), said);
    vnet = lab!.vnet();
    setPaths({ lab: lab!, vnet }, [{ address: PEER }]);
    learn();
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
    expect(isTooBig(1500)).toBe(false);
    // no IPv4 host has that: not believed
    say(100);
    expect(isTooBig(1500)).toBe(false);
  });
});
