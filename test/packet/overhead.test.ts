// SPDX-License-Identifier: Apache-2.0
/**
 * What the programs put in front of a guest's packet is what the control plane subtracts from the
 * underlay's MTU: neither has a figure of its own.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdCapability, vnetdControlOp, vnetdMark } from "../../src/generated/layouts.js";
import { overheadBytes } from "../../src/wire/overhead.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import { FORMS, OVERHEAD, isEtherip, isIpv6 } from "../lib/forms.js";
import { BROADCAST_MAC, packet } from "../lib/packet.js";
import { GUEST_A, GUEST_B, PEER } from "./rows.js";

const ETHERNET = 14;
/** a guest's packet of so many bytes, IP or not, in its frame */
const frames = {
  "IP to a host": (bytes: number) =>
    packet()
      .eth({ src: GUEST_A, dst: GUEST_B })
      .ipv4()
      .udp({ dst: 9 })
      .payload(bytes - 28),
  "not IP to a host": (bytes: number) =>
    packet().eth({ src: GUEST_A, dst: GUEST_B }).payload(bytes),
  "IP to the group": (bytes: number) =>
    packet()
      .eth({ src: GUEST_A, dst: BROADCAST_MAC })
      .ipv4()
      .udp({ dst: 9 })
      .payload(bytes - 28),
};

describe.each(FORMS)("%s", (form) => {
  let lab: BpfLab | undefined;
  let vnet: LabVnet;
  beforeAll(() => {
    lab = BpfLab.open({ form });
    lab.fragments(true);
    vnet = lab.vnet();
    const addr = mappedBytes(PEER);
    lab.control(vnetdControlOp.CTL_LEARN, vnet, { mac: macBytes(GUEST_B), addr });
    // an original takes less
    const capabilities = vnetdCapability.CAP_HELLO;
    lab.control(vnetdControlOp.CTL_NEXTHOP, vnet, { addr, capabilities });
  });
  afterAll(() => lab?.close());
  const overhead = overheadBytes(isIpv6(form) ? 6 : 4, isEtherip(form) ? "etherip" : "udp");

  describe.each(Object.entries(frames))("%s", (_what, frame) => {
    it("is longer by the overhead", () => {
      const { output } = lab!.run("vnetd_encap", frame(500).build());
      expect(output.length).toBe(ETHERNET + 500 + overhead);
    });

    it.each([600, 1500, 9000])(
      "of the MTU that vnetifs get at %d fits, of one byte more not",
      (mtuBytes) => {
        lab!.underlay({ mtuBytes });
        const kind = (bytes: number): number =>
          (lab!.run("vnetd_encap", frame(bytes).build()).mark & vnetdMark.MARK_KIND) >>> 0;
        // a test run takes no longer ones
        const underlay = mtuBytes + OVERHEAD[form] - OVERHEAD.udp4;
        const largest = Math.min(underlay, 3500) - overhead;
        expect(kind(largest)).not.toBe(vnetdMark.MARK_OVERSIZE);
        if (mtuBytes <= 3500) expect(kind(largest + 1)).toBe(vnetdMark.MARK_OVERSIZE);
        lab!.underlay();
      },
    );
  });
});
