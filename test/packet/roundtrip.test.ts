// SPDX-License-Identifier: Apache-2.0
/** What encapsulation on one host makes, decapsulation on another gives back, byte for byte. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import { expectBytes, macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, VNETD_GROUP, packet } from "../lib/packet.js";
import { ENCAP_KINDS } from "./encap-rows.js";
import { GUEST_A, GUEST_B, PEER, US } from "./rows.js";

let lab: BpfLab | undefined;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());

/** from host US to host PEER; the lab plays one after the other */
function carry(frame: Buffer, options: { toGroup: boolean; vnet: string }): Buffer {
  lab!.underlay({ address: US });
  const sender = lab!.vnet({ id: options.vnet });
  if (!options.toGroup) {
    lab!.control(vnetdControlOp.CTL_LEARN, sender, {
      mac: macBytes(GUEST_B),
      addr: mappedBytes(PEER),
    });
  }
  const sent = lab!.run("vnetd_encap", frame);
  expect(sent).toMatchObject({ verdict: "redirect", drops: [] });
  lab!.underlay({ address: PEER });
  const receiver = lab!.vnet({ id: options.vnet });
  const received = lab!.run("vnetd_decap", sent.output);
  expect(received).toMatchObject({ verdict: "redirect", drops: [], mark: 0 });
  expect(lab!.learned(receiver, GUEST_A)?.host).toBe(US);
  expect(lab!.traffic(receiver)).toMatchObject({
    decapFrames: 1,
    decapBytes: frame.length,
    floodedFrames: options.toGroup ? 1 : 0,
  });
  return received.output;
}

describe.each(["4", "97", "1234:5678:9abc:def0:1111:2222:3333:4444"])("vnet %s", (vnet) => {
  it.each(Object.entries(ENCAP_KINDS))("%s", (_kind, { frame }) => {
    expectBytes(carry(frame.build(), { toGroup: false, vnet }), frame.build());
  });

  it.each(Object.entries(ENCAP_KINDS))("%s, flooded", (_kind, { frame }) => {
    expectBytes(carry(frame.build(), { toGroup: true, vnet }), frame.build());
  });
});

it("every length from 14 to 1450 bytes; below 34 padded with zeros", () => {
  for (let length = 14; length <= 1450; length += length < 80 ? 1 : 37) {
    const frame = packet()
      .eth({ src: GUEST_A, dst: BROADCAST_MAC })
      .payload(length - 14)
      .build();
    const padded = Buffer.concat([frame, Buffer.alloc(Math.max(0, 34 - length))]);
    expectBytes(carry(frame, { toGroup: true, vnet: "4" }), padded, { what: `${length} bytes` });
  }
});

it("the group's packet is the unicast packet but for TTL and destination", () => {
  const { frame } = ENCAP_KINDS["IPv4 UDP"]!;
  lab!.underlay({ address: US });
  const vnet = lab!.vnet();
  const flooded = lab!.run("vnetd_encap", frame.build()).output;
  lab!.control(vnetdControlOp.CTL_LEARN, vnet, { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) });
  const unicast = lab!.run("vnetd_encap", frame.build()).output;
  // outer destination MAC, IPv4 id, TTL, header checksum, destination
  const free = [
    [0, 6],
    [18, 20],
    [22, 23],
    [24, 26],
    [30, 34],
  ] as const;
  expectBytes(flooded, unicast, { free });
  expect(flooded.subarray(30, 34)).toEqual(Buffer.from(VNETD_GROUP.split(".").map(Number)));
});
