// SPDX-License-Identifier: Apache-2.0
/**
 * What a host of ours makes of each datagram of the golden captures, when it is attached with the
 * address that the datagram was sent to (group: with an address of its own), has vnets 4 and 97,
 * and no peers. `original` is what the original did in the same place, where the capture shows it.
 */
import type { Capture } from "./captures.js";

export type Expectation =
  /** VUDP that is delivered; `learned` is false for a source MAC that is a group */
  | { kind: "frame"; vnet: "4" | "97"; src: string; learned: boolean; original?: string }
  /** VARP that goes to the daemon as it came */
  | {
      kind: "varp";
      operation: "request" | "announce";
      vnet: string;
      vmac: string;
      original?: string;
    }
  /** dropped; the lower-case name of the reason */
  | { kind: "drop"; reason: string; original?: string };

const frame = (vnet: "4" | "97", src: string, original?: string): Expectation => ({
  kind: "frame",
  vnet,
  src: `aa:00:00:00:${src}`,
  learned: true,
  ...(original === undefined ? {} : { original }),
});
const varp = (
  operation: "request" | "announce",
  vmac: string,
  options: { vnet?: string; original?: string } = {},
): Expectation => ({
  kind: "varp",
  operation,
  vnet: options.vnet ?? "4",
  vmac: `aa:00:00:00:${vmac}`,
  ...(options.original === undefined ? {} : { original: options.original }),
});
const drop = (reason: string, original?: string): Expectation => ({
  kind: "drop",
  reason,
  ...(original === undefined ? {} : { original }),
});

const arpPing = (vnet: "4" | "97", prefix: string): Record<number, Expectation> => ({
  0: frame(vnet, `${prefix}:01`),
  1: frame(vnet, `${prefix}:02`),
  2: frame(vnet, `${prefix}:01`),
  3: frame(vnet, `${prefix}:02`),
});

/** by the datagram's index in the reassembled capture; every datagram has its line */
export const EXPECTATIONS: Record<Capture, Record<number, Expectation>> = {
  "lan-vnet4-arp-ping": arpPing("4", "04"),
  "lan-vnet97-arp-ping": arpPing("97", "97"),
  "lan-vnet4-unknown-unicast-is-multicast": {
    0: frame("4", "04:01"),
    1: frame("97", "97:02"),
    2: frame("97", "97:01"),
  },
  "lan-vnet4-ping1472-ipfrag": {
    0: frame("4", "04:01"),
    1: frame("4", "04:02"),
  },
  "lan-varp-request-announce": {
    0: varp("request", "04:01", { original: "answered" }),
    1: varp("announce", "04:01"),
    3: varp("request", "04:01", { original: "answered, it came by the group" }),
    4: varp("announce", "04:01"),
    5: varp("request", "04:01", { original: "answered to port 1798, it came from 40000" }),
    6: varp("announce", "04:01"),
    8: varp("request", "04:99", { original: "silent: no such vif" }),
    9: varp("request", "04:01", { vnet: "61", original: "silent: no such vif on vnet 0x61" }),
    10: varp("request", "04:01", { original: "answered: family 0, five trailing bytes" }),
    11: varp("announce", "04:01"),
    12: drop("varp_short", "silent: 42 bytes"),
    13: drop("varp_bad_opcode", "silent: opcode 3"),
    14: drop("varp_bad_opcode", "silent: opcode 0"),
    15: varp("announce", "04:55", { original: "taken: announces another host's address" }),
    16: varp("announce", "04:56", { vnet: "1234" }),
    // an IPv6 care-of address is well formed; what to do with it on an IPv4 underlay is the daemon's
    17: varp("announce", "04:57", { original: "not shown: family 10" }),
  },
  "lan-malformed-and-version-variants": {
    0: drop("truncated", "silent: no payload"),
    3: drop("truncated", "silent: 1 byte"),
    4: drop("truncated", "silent: 3 bytes"),
    5: drop("truncated", "silent: 4 bytes, VUDP without the rest"),
    6: drop("truncated", "silent: 5 bytes"),
    7: drop("truncated", "silent: 6 bytes"),
    8: drop("truncated", "silent: 21 bytes"),
    9: drop("short_frame", "silent: no frame"),
    10: drop("short_frame", "silent: 13 bytes of frame"),
    11: frame("4", "04:7e", "14 bytes of frame"),
    12: drop("unknown_message", "silent: id 0"),
    13: drop("unknown_message", "silent: id 4"),
    14: drop("unknown_message", "silent: id 0x0200, the wrong way round"),
    15: frame("4", "04:80", "answered: version 00 40"),
    16: frame("4", "04:01"),
    17: frame("4", "04:81", "silent: version 40 00; big-endian hosts sent it, so we take it"),
    18: drop("bad_version", "silent: version 30 00"),
    19: drop("bad_version", "silent: version 00 30"),
    20: frame("4", "04:84", "answered: version ff 4f"),
    21: frame("4", "04:01"),
    22: frame("4", "04:85", "answered: version 40 40"),
    23: frame("4", "04:01"),
    24: drop("bad_version", "silent: version 00 50"),
    25: frame("4", "04:87", "answered: opcode 0xffff"),
    26: frame("4", "04:01"),
    27: drop("unknown_vnet", "silent: vnet 1235"),
    28: drop("bad_vnet_id", "silent: vnet 1, the physical network"),
    29: frame("4", "04:8a", "answered to port 1798, it came from 40000"),
    30: frame("4", "04:01"),
    31: {
      kind: "frame",
      vnet: "4",
      src: "ff:ff:ff:ff:ff:8b",
      learned: false,
      original: "answered to the group: the source MAC is a group, so not learned",
    },
    32: frame("4", "04:01"),
    33: frame("4", "04:8c", "answered: it came by the group"),
    34: frame("4", "04:01"),
    35: drop("vfwd_not_peer", "silent: VFWD from who is no peer"),
    36: drop("vfwd_not_peer", "silent: VFWD of 4 bytes"),
    37: frame("4", "04:91", "silent: 2036 bytes are more than its buffer takes"),
  },
  "routed-peer-fwd-br1": routedPeer(),
  "routed-peer-fwd-br2": routedPeer(),
  "routed-AtoD-remulticast-br1": routedRemulticast(),
  "routed-AtoD-remulticast-br2": routedRemulticast(),
  "routed-thirdparty-CtoD-br1": {
    0: frame("4", "04:03"),
    1: drop("vfwd_not_peer"),
    2: frame("4", "04:03"),
    3: drop("vfwd_not_peer"),
  },
};

function routedPeer(): Record<number, Expectation> {
  return {
    0: drop("vfwd_not_peer"),
    1: frame("4", "04:01"),
    2: frame("4", "04:02"),
    3: frame("4", "04:02"),
    4: frame("4", "04:01"),
    5: frame("4", "04:02"),
  };
}

function routedRemulticast(): Record<number, Expectation> {
  return {
    0: drop("vfwd_not_peer"),
    1: frame("4", "04:01"),
    2: frame("4", "04:04"),
    3: frame("4", "04:01"),
    4: frame("4", "04:04"),
  };
}
