// SPDX-License-Identifier: Apache-2.0
/**
 * Path MTU: what routers say of packets that are too large for them, in each form of the outer packet,
 * and DF towards hosts of ours. Rows for vnetd_decap.
 */
import { expect } from "vitest";
import {
  decodeVnetdHostPath,
  encodeVnetdHostPathKey,
  vnetdControlOp,
} from "../../src/generated/layouts.js";
import { hex, internetChecksum, ipv6Bytes, macBytes, mappedBytes } from "../lib/bytes.js";
import {
  ETHERIP,
  FORMS,
  OVERHEAD,
  addressIn,
  isEtherip,
  isIpv6,
  textIn,
  type Form,
} from "../lib/forms.js";
import { ETHER_TYPE, VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
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
const FRAGMENT = 44;
/** of the inner frame of a packet that was too large, beside the payload */
const INNER_BYTES = innerFrame().build().length;
const member = (context: RowContext): void => setPaths(context, [{ address: PEER }]);

/** Addresses are of the form's family, or IPv4 addresses of the tables, which stand for one of it. */
export interface Quoted {
  from?: string;
  to?: string;
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
  /** in the IP header: of the packet over IPv4, of what is behind the header over IPv6 */
  ipLength?: number;
  protocol?: number;
  ttl?: number;
  /** instead of VUDP's message id */
  message?: number;
  /** instead of EtherIP's two bytes */
  version?: number;
  /** over IPv6: it was a fragment, of so many bytes of what the whole packet held */
  fragment?: { offset?: number; more?: boolean; bytes?: number };
  /** bytes of the quote; default: all that routers may send */
  quote?: number;
  checksum?: number;
  type?: number;
  code?: number;
}

/** the packet that was too large, from its IP header on */
function tooLarge(form: Form, options: Quoted): Buffer {
  const udp = { src: options.sport ?? 50_000, dst: options.dport ?? 1798, checksum: 0 };
  const whole = packet()
    .eth()
    .ipv4()
    .udp(options.udpLength === undefined ? udp : { ...udp, length: options.udpLength })
    .vudp({ vnet: options.vnet ?? "4" })
    .payload(
      innerFrame()
        .payload(options.payload ?? 1370)
        .build(),
    )
    .build();
  if (options.message !== undefined) whole.writeUInt16BE(options.message, 42);
  if (options.version !== undefined) whole.writeUInt16BE(options.version, 46);
  let behind = whole.subarray(isEtherip(form) ? 46 : 34);
  let protocol = options.protocol ?? (isEtherip(form) ? ETHERIP : 17);
  const ends = {
    src: textOf(form, options.src ?? US),
    dst: textOf(form, options.dst ?? PEER),
  };
  if (!isIpv6(form)) {
    return packet()
      .ipv4({
        ...ends,
        protocol,
        dontFragment: options.dontFragment ?? true,
        ttl: options.ttl ?? 63,
        ...(options.fragmentOffset === undefined ? {} : { fragmentOffset: options.fragmentOffset }),
        ...(options.ipLength === undefined ? {} : { totalLength: options.ipLength }),
      })
      .payload(behind)
      .build();
  }
  if (options.fragment !== undefined) {
    const { offset = 0, more = true, bytes = 1448 } = options.fragment;
    const header = Buffer.alloc(8);
    header[0] = protocol;
    header.writeUInt16BE(offset | (more ? 1 : 0), 2);
    behind = Buffer.concat([header, behind.subarray(0, bytes)]);
    protocol = FRAGMENT;
  }
  const length = options.ipLength ?? behind.length;
  return packet()
    .ipv6({ ...ends, nextHeader: protocol, hopLimit: options.ttl ?? 63, payloadLength: length })
    .payload(behind)
    .build();
}

const textOf = (form: Form, address: string): string =>
  address.includes(":") ? address : textIn(form, address);

/** "fragmentation needed" or "packet too big" from a router, about a packet that this host sent to PEER */
export function pathError(form: Form, options: Quoted = {}): Buffer {
  const mtu = options.mtu ?? 1400;
  const [from, to] = [textOf(form, options.from ?? ROUTER), textOf(form, options.to ?? US)];
  // RFC 1812 section 4.3.2.3, RFC 4443 section 3.2
  const quote = options.quote ?? (isIpv6(form) ? 1232 : 548);
  const quoted = tooLarge(form, options).subarray(0, quote);
  const icmp = Buffer.concat([Buffer.alloc(8), quoted]);
  if (isIpv6(form)) {
    icmp[0] = options.type ?? 2;
    icmp[1] = options.code ?? 0;
    icmp.writeUInt32BE(mtu, 4);
    const pseudo = Buffer.concat([ipv6Bytes(from), ipv6Bytes(to), Buffer.alloc(8)]);
    pseudo.writeUInt32BE(icmp.length, 32);
    pseudo[39] = 58;
    const sum = internetChecksum(Buffer.concat([pseudo, icmp]));
    icmp.writeUInt16BE(options.checksum ?? sum, 2);
    return packet()
      .eth({ type: ETHER_TYPE.ipv6 })
      .ipv6({ src: from, dst: to, nextHeader: 58 })
      .payload(icmp)
      .build();
  }
  icmp[0] = options.type ?? 3;
  icmp[1] = options.code ?? 4;
  icmp.writeUInt16BE(mtu, 6);
  icmp.writeUInt16BE(options.checksum ?? internetChecksum(icmp), 2);
  return packet().eth().ipv4({ src: from, dst: to, protocol: 1 }).payload(icmp).build();
}

/** what is known of the way to PEER */
export function saidMtu({ lab }: Pick<RowContext, "lab">, address = PEER): number | undefined {
  const addr = addressIn(lab.form, mappedBytes(address));
  const key = encodeVnetdHostPathKey({ ifindex: lab.ifindex("ul0"), addr });
  const value = lab.native.mapLookup(lab.map("host_paths"), key);
  return value === undefined ? undefined : decodeVnetdHostPath(value).mtu;
}

/** The table is by host, not by vnet: each row begins with nothing known. */
export const forgetPath = ({ lab }: Pick<RowContext, "lab">, address = PEER): void => {
  const addr = addressIn(lab.form, mappedBytes(address));
  const key = encodeVnetdHostPathKey({ ifindex: lab.ifindex("ul0"), addr });
  if (saidMtu({ lab }, address) !== undefined) lab.native.mapDelete(lab.map("host_paths"), key);
};
const fresh = (context: RowContext): void => {
  forgetPath(context);
  member(context);
};
/** known by an entry for one of its guests alone, as a configured one */
const withoutHello = (context: RowContext): void => {
  forgetPath(context);
  const request = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
  context.lab.control(vnetdControlOp.CTL_LEARN, context.vnet, request);
};

type Case = readonly [description: string, options: Quoted];

function takenRows(form: Form): Row[] {
  const overhead = OVERHEAD[form];
  const cases: (readonly [...Case, mtu: number])[] = [
    ["1400", {}, 1400],
    ["with the least that a router may quote", { quote: isIpv6(form) ? 48 : 28 }, 1400],
    ["with a quote of our headers", { quote: overhead }, 1400],
    ["with a quote that ends within them", { quote: overhead - 9 }, 1400],
    ["a quote of an odd length", { quote: 77 }, 1400],
    ["from the host itself", { from: PEER }, 1400],
    ["about a super-frame, on virtual devices", { payload: 30_000 }, 1400],
    [
      "of one byte less than the packet",
      { mtu: overhead + INNER_BYTES + 1369 },
      overhead + INNER_BYTES + 1369,
    ],
  ];
  if (isIpv6(form)) {
    cases.push(
      ["1280, the lower bound", { mtu: 1280 }, 1280],
      ["from a link-local address", { from: "fe80::1" }, 1400],
    );
  } else {
    cases.push(
      ["less than the lower bound", { mtu: 68 }, 576],
      ["0, from a router of before RFC 1191", { mtu: 0 }, 576],
    );
  }
  if (form === "udp6") {
    cases.push(["about the first of several fragments", { fragment: {} }, 1400]);
    cases.push(["with the least of it", { fragment: {}, quote: 56 }, 1400]);
  }
  const row = ([description, options, mtu]: (typeof cases)[number]): Row => ({
    description: `taken: MTU ${description}`,
    program: "vnetd_decap",
    setup: fresh,
    input: pathError(form, options),
    // it ends here: no socket of the stack sent that packet
    verdict: "drop",
    check: (context) => expect(saidMtu(context)).toBe(mtu),
  });
  return [
    ...cases.map(row),
    {
      ...row(["of a host that never said hello, and whose guests the quoted vnet knows", {}, 1400]),
      setup: withoutHello,
    },
  ];
}

const againRows = (form: Form): Row[] =>
  (
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
      context.lab.run("vnetd_decap", pathError(form));
    },
    input: pathError(form, options),
    verdict: "drop",
    check: (context) => expect(saidMtu(context)).toBe(mtu),
  }));

function forgedCases(form: Form): Case[] {
  const total = OVERHEAD[form] + INNER_BYTES + 1370;
  const cases: Case[] = [
    ["to a host that is not known", { dst: THIRD }],
    [
      "to a host that is not known, of no vnet that it says",
      { dst: THIRD, quote: OVERHEAD[form] - 9 },
    ],
    ["from another address than ours", { src: THIRD }],
    ["no longer than the MTU that it claims", { mtu: total }],
    ["a TTL that we do not send", { ttl: 65 }],
    ["of a vnet that is not here", { vnet: "1235" }],
  ];
  if (!isEtherip(form)) {
    cases.push(
      ["an IP length that is not the UDP length's", { ipLength: 1490 }],
      ["a UDP length that is not the IP length's", { udpLength: 100 }],
      ["another message than a frame", { message: 1 }],
    );
  }
  if (isIpv6(form)) {
    cases.push(
      ["less than every link carries", { mtu: 1279 }],
      ["0", { mtu: 0 }],
      ["a packet longer than we make", { mtu: 65_560, ipLength: 65_535, udpLength: 65_535 }],
    );
  } else {
    cases.push(["without DF", { dontFragment: false }], ["a fragment", { fragmentOffset: 8 }]);
  }
  if (form === "udp6") {
    cases.push(
      ["a fragment that is all of the packet", { fragment: { more: false } }],
      ["a fragment of a packet that ends within it", { fragment: {}, udpLength: 1448 }],
      ["a fragment, to a host that is not known", { fragment: {}, dst: THIRD }],
      ["a fragment no longer than the MTU that it claims", { fragment: {}, mtu: 1496 }],
    );
  }
  if (form === "etherip6") cases.push(["a fragment, which EtherIP never is", { fragment: {} }]);
  return cases;
}

function refusedRows(form: Form): Row[] {
  const sources: Case[] = isIpv6(form)
    ? [
        ["from ::1", { from: "::1" }],
        ["from the group", { from: VNETD_GROUP }],
        ["from an IPv4 address in IPv6's form", { from: "::ffff:a42:1fe" }],
      ]
    : [
        ["from 127.0.0.1", { from: "127.0.0.1" }],
        ["from the group", { from: VNETD_GROUP }],
      ];
  const checksums: Case[] = [
    ["a wrong checksum", { checksum: 0x1234 }],
    ["checksum 0", { checksum: 0 }],
    ["longer than routers send", { quote: 1496, payload: 2000 }],
  ];
  const named = (reason: string, cases: readonly Case[]): (readonly [string, ...Case])[] =>
    cases.map(([description, options]) => [reason, description, options] as const);
  const row = (reason: string, description: string, input: Buffer): Row => ({
    description: `${reason}: ${description}`,
    program: "vnetd_decap",
    setup: fresh,
    input,
    verdict: "drop",
    reasons: [reason],
    reasonsKnowVnet: false,
    check: (context) => expect(saidMtu(context)).toBe(0),
  });
  const cut = pathError(form);
  const rows = [
    ...named("icmp_forged", forgedCases(form)),
    ...named("bad_source_address", sources),
    ...named("icmp_checksum", checksums),
  ].map(([reason, description, options]) => row(reason, description, pathError(form, options)));
  rows.push(row("truncated", "the packet ends before its length does", cut.subarray(0, 120)), {
    ...row(
      "icmp_forged",
      "of a host that never said hello, and of no vnet",
      pathError(form, { quote: OVERHEAD[form] - 9 }),
    ),
    setup: withoutHello,
    check: (context) => expect(saidMtu(context)).toBe(undefined),
  });
  if (isIpv6(form)) return rows;
  const broken = Buffer.concat([cut.subarray(0, 24), hex("1234"), cut.subarray(26)]);
  return [...rows, row("bad_header_checksum", "of the ICMP packet", broken)];
}

/** the stack's: about packets that its sockets sent, or other messages */
function passedRows(form: Form): Row[] {
  const cases: Case[] = [
    ["about TCP", { protocol: 6 }],
    ["unreachable", { type: isIpv6(form) ? 1 : 3, code: 3 }],
    ["an echo reply", { type: isIpv6(form) ? 129 : 0, code: 0 }],
    ["a quote of less than 8 bytes behind the IP header", { quote: isIpv6(form) ? 47 : 27 }],
    ["an ICMP header alone", { quote: 0 }],
    ["to the group", { to: VNETD_GROUP }],
  ];
  if (isEtherip(form)) cases.push(["about EtherIP as RFC 3378 has it", { version: 0x3000 }]);
  else {
    cases.push(
      ["about another port", { dport: 53 }],
      ["about a message of the daemon's socket", { sport: 1798 }],
    );
  }
  if (isIpv6(form)) {
    cases.push(
      ["about a packet with another extension header", { protocol: 0 }],
      ["about a later fragment", { fragment: { offset: 1448 } }],
      ["about a fragment, and a quote that ends in its header", { fragment: {}, quote: 47 }],
      ["about a fragment of TCP", { fragment: {}, protocol: 6 }],
    );
  }
  return cases.map(([description, options]) => {
    const input = pathError(form, options);
    return {
      description: `left to the stack: ${description}`,
      program: "vnetd_decap",
      setup: fresh,
      input,
      verdict: "pass",
      check: (context) => {
        expect(context.output).toEqual(input);
        expect(saidMtu(context)).toBe(0);
      },
    };
  });
}

export const pathMtuRows = (form: Form): Row[] =>
  [takenRows, againRows, refusedRows, passedRows].flatMap((rows) => rows(form));

export const PATH_MTU_ROWS: Row[] = FORMS.flatMap(pathMtuRows);

/** guest A's frame to guest B, which becomes an outer packet of so many bytes */
export const frameOfOuter = (form: Form, bytes: number): PacketBuilder =>
  packet()
    .eth({ src: GUEST_A, dst: GUEST_B })
    .ipv4()
    .udp({ dst: 9 })
    .payload(bytes - OVERHEAD[form] - 14 - 28);

export const outerOf = (output: Buffer): NonNullable<ReturnType<typeof parseFrame>["ipv4"]> =>
  parseFrame(output).ipv4!;
