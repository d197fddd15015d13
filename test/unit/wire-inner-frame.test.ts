// SPDX-License-Identifier: Apache-2.0
/** Finding the guest's frame in an outer packet, of which as little may be there as there is. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { readOuter } from "../../src/wire/inner-frame.js";
import { packet } from "../lib/packet.js";

const frame = packet()
  .eth({ src: "aa:00:00:00:00:01", dst: "aa:00:00:00:00:02" })
  .payload(46)
  .build();
const vudp = (): Buffer => packet().vudp({ vnet: "97" }).payload(frame).build();
const v4 = (protocol?: number): ReturnType<typeof packet> =>
  packet()
    .eth()
    .ipv4({ src: "10.66.1.9", dst: "10.66.1.1", ...(protocol === undefined ? {} : { protocol }) });
const v6 = (): ReturnType<typeof packet> => packet().eth().ipv6({ src: "fd66::9", dst: "fd66::1" });

it.each([
  ["VUDP over IPv4", v4().udp().payload(vudp()).build(), "10.66.1.9", true],
  ["VUDP over IPv6", v6().udp().payload(vudp()).build(), "fd66::9", true],
  [
    "EtherIP",
    v4(97)
      .payload(Buffer.concat([Buffer.alloc(18), frame]))
      .build(),
    "10.66.1.9",
    true,
  ],
  [
    "VARP",
    v4()
      .udp()
      .payload(Buffer.from([0, 1, 0, 1]))
      .build(),
    "10.66.1.9",
    false,
  ],
  ["ICMP", v4(1).payload(frame).build(), "10.66.1.9", false],
])("%s", (_, bytes, source, holdsFrame) => {
  const outer = readOuter(bytes);
  expect(outer?.source).toBe(source);
  expect(outer?.frameAt).toBe(holdsFrame ? bytes.length - frame.length : undefined);
  // what is cut before the frame's own header is over holds none
  if (holdsFrame) expect(readOuter(bytes.subarray(0, bytes.length - 47))?.frameAt).toBeUndefined();
});

it("what is no IP packet is none", () => {
  expect(readOuter(packet().eth().arp().build())).toBeUndefined();
  expect(readOuter(Buffer.alloc(0))).toBeUndefined();
});

it("nothing throws, and what is said to be the frame is there", () => {
  const seed = v4().udp().payload(vudp()).build();
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 6 }),
      fc.nat(seed.length),
      (changes, length) => {
        const bytes = Buffer.from(seed);
        for (const [at, value] of changes) bytes[at] = value;
        const cut = bytes.subarray(0, length);
        const at = readOuter(cut)?.frameAt;
        if (at !== undefined) expect(cut.length).toBeGreaterThanOrEqual(at + 14);
      },
    ),
  );
});
