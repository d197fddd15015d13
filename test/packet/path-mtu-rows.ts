// SPDX-License-Identifier: Apache-2.0
/** Path MTU: DF towards hosts of ours, and what routers say about it. Rows for vnetd_decap and vnetd_encap. */
import { expect } from "vitest";
import { encodeVnetdHostPathKey, decodeVnetdHostPath } from "../../src/generated/layouts.js";
import { hex, mappedBytes } from "../lib/bytes.js";
import { VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { internetChecksum } from "../lib/bytes.js";
import { setPaths } from "./path-rows.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  US,
  innerFrame,
  type Row,
  type RowContext,
} from "./rows.js";

const ROUTER = "10.66.1.254";
const member = (context: RowContext): void => setPaths(context, [{ address: PEER }]);

export interface Quoted {
  from?: string;
  src?: string;
  dst?: string;
  sport?: number;
  dport?: number;
  dontFragment?: boolean;
  fragmentOffset?: number;
  mtu?: number;
  vnet?: string;
  /** payload of the packet that was too large */
  payload?: number;
  udpLength?: number;
  totalLength?: number;
  protocol?: number;
  ttl?: number;
  /** bytes of the quote; default: all that routers may send */
  quote?: number;
  checksum?: number;
  type?: number;
  code?: number;
}

/** "fragmentation needed" from a router, about a packet that this host sent to PEER */
export function fragmentationNeeded(options: Quoted = {}): Buffer {
  const { from = ROUTER, mtu = 1400, quote = 548 } = options;
  const udp = { src: options.sport ?? 50_000, dst: options.dport ?? 1798, checksum: 0 };
  const quoted = packet()
    .eth()
    .ipv4({
      src: options.src ?? US,
      dst: options.dst ?? PEER,
      dontFragment: options.dontFragment ?? true,
      ttl: options.ttl ?? 63,
      ...(options.fragmentOffset === undefined ? {} : { fragmentOffset: options.fragmentOffset }),
      ...(options.totalLength === undefined ? {} : { totalLength: options.totalLength }),
      ...(options.protocol === undefined ? {} : { protocol: options.protocol }),
    })
    .udp(options.udpLength === undefined ? udp : { ...udp, length: options.udpLength })
    .vudp({ vnet: options.vnet ?? "4" })
    .payload(
      innerFrame()
        .payload(options.payload ?? 1370)
        .build(),
    )
    .build()
    .subarray(14, 14 + quote);
  const icmp = Buffer.concat([Buffer.alloc(8), quoted]);
  icmp[0] = options.type ?? 3;
  icmp[1] = options.code ?? 4;
  icmp.writeUInt16BE(mtu, 6);
  icmp.writeUInt16BE(options.checksum ?? internetChecksum(icmp), 2);
  return packet().eth().ipv4({ src: from, dst: US, protocol: 1 }).payload(icmp).build();
}

/** what is known of the way to PEER */
export function saidMtu({ lab }: Pick<RowContext, "lab">, address = PEER): number | undefined {
  const key = { ifindex: lab.ifindex("ul0"), addr: mappedBytes(address) };
  const value = lab.native.mapLookup(lab.map("host_paths"), encodeVnetdHostPathKey(key));
  return value === undefined ? undefined : decodeVnetdHostPath(value).mtu;
}

/** The table is by host, not by vnet: each row begins with nothing known. */
export const forgetPath = ({ lab }: Pick<RowContext, "lab">, address = PEER): void => {
  const key = { ifindex: lab.ifindex("ul0"), addr: mappedBytes(address) };
  if (saidMtu({ lab }, address) !== undefined)
    lab.native.mapDelete(lab.map("host_paths"), encodeVnetdHostPathKey(key));
};
const fresh = (context: RowContext): void => {
  forgetPath(context);
  member(context);
};

const taken: Row[] = (
  [
    ["1400", {}, 1400],
    ["with the least that a router may quote", { quote: 28 }, 1400],
    ["with a quote of the 50 bytes of our headers", { quote: 50 }, 1400],
    ["with a quote that ends within them", { quote: 41 }, 1400],
    ["a quote of an odd length", { quote: 77 }, 1400],
    ["less than the lower bound", { mtu: 68 }, 576],
    ["0, from a router of before RFC 1191", { mtu: 0 }, 576],
    ["from the host itself", { from: PEER }, 1400],
    ["about a super-frame, on virtual devices", { payload: 30_000 }, 1400],
  ] as const
).map(([description, options, mtu]) => ({
  description: `taken: MTU ${description}`,
  program: "vnetd_decap",
  setup: fresh,
  input: fragmentationNeeded(options),
  // it ends here: no socket of the stack sent that packet
  verdict: "drop",
  check: (context) => expect(saidMtu(context)).toBe(mtu),
}));

const again: Row[] = (
  [
    ["a smaller one later", { mtu: 1300 }, 1300],
    ["a larger one, about a packet that left before", { mtu: 1450 }, 1400],
    ["the same", {}, 1400],
  ] as const
).map(([description, options, mtu]) => ({
  description: `after MTU 1400: ${description}`,
  program: "vnetd_decap",
  setup: (context) => {
    fresh(context);
    context.lab.run("vnetd_decap", fragmentationNeeded());
  },
  input: fragmentationNeeded(options),
  verdict: "drop",
  check: (context) => expect(saidMtu(context)).toBe(mtu),
}));

const refused: Row[] = (
  [
    ["icmp_forged", "to a host that never said hello", { dst: THIRD }],
    ["icmp_forged", "from another address than ours", { src: THIRD }],
    ["icmp_forged", "without DF", { dontFragment: false }],
    ["icmp_forged", "a fragment", { fragmentOffset: 8 }],
    ["icmp_forged", "no longer than the MTU that it claims", { mtu: 1496 }],
    ["icmp_forged", "an IPv4 length that is not the UDP length's", { totalLength: 1490 }],
    ["icmp_forged", "a UDP length that is not the IPv4 length's", { udpLength: 100 }],
    ["icmp_forged", "a TTL that we do not send", { ttl: 65 }],
    ["icmp_forged", "of a vnet that is not here", { vnet: "1235" }],
    ["icmp_checksum", "a wrong checksum", { checksum: 0x1234 }],
    ["icmp_checksum", "checksum 0", { checksum: 0 }],
    ["bad_source_address", "from 127.0.0.1", { from: "127.0.0.1" }],
    ["bad_source_address", "from the group", { from: VNETD_GROUP }],
  ] as const
).map(([reason, description, options]) => ({
  description: `${reason}: ${description}`,
  program: "vnetd_decap",
  setup: fresh,
  input: fragmentationNeeded(options),
  verdict: "drop",
  reasons: [reason],
  reasonsKnowVnet: false,
  check: (context) => expect(saidMtu(context)).toBe(0),
}));
const cut = fragmentationNeeded();
refused.push(
  {
    description: "truncated: the packet ends before its length does",
    program: "vnetd_decap",
    setup: fresh,
    input: cut.subarray(0, 100),
    verdict: "drop",
    reasons: ["truncated"],
    reasonsKnowVnet: false,
    check: (context) => expect(saidMtu(context)).toBe(0),
  },
  {
    description: "bad_header_checksum: of the ICMP packet",
    program: "vnetd_decap",
    setup: fresh,
    input: Buffer.concat([cut.subarray(0, 24), hex("1234"), cut.subarray(26)]),
    verdict: "drop",
    reasons: ["bad_header_checksum"],
    reasonsKnowVnet: false,
    check: (context) => expect(saidMtu(context)).toBe(0),
  },
  {
    description: "icmp_checksum: longer than routers send",
    program: "vnetd_decap",
    setup: fresh,
    input: fragmentationNeeded({ quote: 1496 }),
    verdict: "drop",
    reasons: ["icmp_checksum"],
    reasonsKnowVnet: false,
  },
);

/** the stack's: about packets that its sockets sent, or other messages */
const passed: Row[] = (
  [
    ["about another port", fragmentationNeeded({ dport: 53 })],
    ["about a message of the daemon's socket", fragmentationNeeded({ sport: 1798 })],
    ["about TCP", fragmentationNeeded({ protocol: 6 })],
    ["port unreachable", fragmentationNeeded({ code: 3 })],
    ["an echo reply", fragmentationNeeded({ type: 0, code: 0 })],
    ["a quote of less than 28 bytes", fragmentationNeeded({ quote: 27 })],
    ["an ICMP header alone", fragmentationNeeded({ quote: 0 })],
  ] as const
).map(([description, input]) => ({
  description: `left to the stack: ${description}`,
  program: "vnetd_decap",
  setup: fresh,
  input,
  verdict: "pass",
  check: (context) => {
    expect(context.output).toEqual(input);
    expect(saidMtu(context)).toBe(0);
  },
}));

export const PATH_MTU_ROWS: Row[] = [...taken, ...again, ...refused, ...passed];

/** guest A's frame to guest B, which becomes an outer packet of so many bytes */
export const frameOfOuter = (bytes: number): PacketBuilder =>
  packet()
    .eth({ src: GUEST_A, dst: GUEST_B })
    .ipv4()
    .udp({ dst: 9 })
    .payload(bytes - 50 - 14 - 28);

export const outerOf = (output: Buffer): NonNullable<ReturnType<typeof parseFrame>["ipv4"]> =>
  parseFrame(output).ipv4!;
