// SPDX-License-Identifier: Apache-2.0
/**
 * What is particular to a form of the outer packet: IPv6's addresses and fragment header, EtherIP's
 * limits, and both families on one device. What all have in common is in the other tables.
 */
import { expect } from "vitest";
import { vnetdControlOp, vnetdMark } from "../../src/generated/layouts.js";
import { hex, macBytes, mappedBytes } from "../lib/bytes.js";
import { packetIn, textIn } from "../lib/forms.js";
import { BROADCAST_MAC, ETHER_TYPE, VNETD_GROUP, packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  US,
  expectEncapsulated,
  fromPeer,
  innerFrame,
  type Row,
  type RowContext,
} from "./rows.js";

const US6 = textIn("udp6", US);
const PEER6 = textIn("udp6", PEER);
const IPV6_FORMS = ["udp6", "etherip6"] as const;
const ETHERIP_FORMS = ["etherip4", "etherip6"] as const;
const FRAGMENT = 44;

const vudp = (): Buffer => fromPeer().vudp({ vnet: "4" }).payload(innerFrame().build()).build();
/** what follows the IP header in a packet of a form */
const behindIp = (form: "udp6" | "etherip6"): Buffer => packetIn(form, vudp())!.subarray(54);

const from6 = (src: string, body: Buffer = behindIp("udp6"), nextHeader = 17): Buffer =>
  packet()
    .eth({ dst: "02:00:0a:42:01:01", type: ETHER_TYPE.ipv6 })
    .ipv6({ src, dst: US6, nextHeader })
    .payload(body)
    .build();
/** RFC 8200 section 4.5 */
const fragmentHeader = (nextHeader: number, offset: number, more: boolean): Buffer => {
  const out = Buffer.alloc(8);
  out[0] = nextHeader;
  out.writeUInt16BE(offset | (more ? 1 : 0), 2);
  out.writeUInt32BE(0x1234, 4);
  return out;
};
const fragment6 = (nextHeader: number, offset: number, more: boolean): Buffer => {
  const body = behindIp(nextHeader === 97 ? "etherip6" : "udp6");
  return from6(PEER6, Buffer.concat([fragmentHeader(nextHeader, offset, more), body]), FRAGMENT);
};

const addresses: Row[] = (
  [
    ["a group", "ff12::a42:109"],
    ["all nodes", "ff02::1"],
    ["::", "::"],
    ["::1", "::1"],
    ["an IPv4 address in IPv6's form", "::ffff:a42:109"],
  ] as const
).map(([what, src]) => ({
  description: `bad_source_address: from ${what}`,
  program: "vnetd_decap",
  forms: ["udp6"],
  input: from6(src),
  verdict: "drop",
  reasons: ["bad_source_address"],
  reasonsKnowVnet: false,
}));

const linkLocal: Row = {
  description: "a link-local source is a host as any",
  program: "vnetd_decap",
  forms: ["udp6"],
  input: from6("fe80::1:2"),
  verdict: "redirect",
  decapsulated: innerFrame(),
};

const passed: Row[] = (
  [
    ["a later fragment", fragment6(17, 1480, true)],
    ["the last fragment", fragment6(17, 1480, false)],
    ["a fragment of something else", fragment6(6, 0, true)],
    ["a fragment header alone", from6(PEER6, fragmentHeader(17, 0, false), FRAGMENT)],
    [
      "a fragment header in a packet too short for it",
      packet()
        .eth({ type: ETHER_TYPE.ipv6 })
        .ipv6({ src: PEER6, dst: US6, nextHeader: FRAGMENT, payloadLength: 4 })
        .payload(fragmentHeader(17, 0, false))
        .payload(behindIp("udp6"))
        .build(),
    ],
    [
      "an extension header",
      from6(PEER6, Buffer.concat([hex("11 00 010400000000"), behindIp("udp6")]), 0),
    ],
    ["ICMPv6", from6(PEER6, hex("8000000000010001"), 58)],
    ["EtherIP as RFC 3378 has it", from6(PEER6, hex(`3000${"00".repeat(60)}`), 97)],
  ] as const
).map(([what, input]) => ({
  description: `not ours: ${what}`,
  program: "vnetd_decap",
  forms: ["udp6"],
  input,
  verdict: "pass",
  check: ({ output }) => expect(output.equals(input)).toBe(true),
}));

const wholeInFragmentHeader: Row = {
  description: "a packet that is whole, behind a fragment header, is taken",
  program: "vnetd_decap",
  forms: ["udp6"],
  input: fragment6(17, 0, false),
  verdict: "redirect",
  decapsulated: innerFrame(),
  learned: { [GUEST_B]: PEER },
};

const etheripFragments: Row[] = [
  {
    description: "etherip_fragment: the first fragment, IPv4",
    forms: ["udp4", "etherip4"],
    input: packet()
      .eth()
      .ipv4({ src: PEER, dst: US, protocol: 97, moreFragments: true })
      .payload(behindIp("etherip6"))
      .build(),
  },
  {
    description: "etherip_fragment: the first fragment, IPv6",
    forms: IPV6_FORMS,
    input: fragment6(97, 0, true),
  },
].map((row): Row => ({
  ...(row as Pick<Row, "description" | "forms" | "input">),
  program: "vnetd_decap",
  verdict: "drop",
  reasons: ["etherip_fragment"],
  reasonsKnowVnet: false,
}));

const etherip: Row[] = [
  {
    description: "what is sent by the other encapsulation is received as well",
    program: "vnetd_decap",
    forms: ["udp4", "udp6", "etherip6"],
    input: ({ lab }) =>
      packetIn(
        ({ udp4: "etherip4", udp6: "etherip6", etherip4: "udp4", etherip6: "udp6" } as const)[
          lab.form
        ],
        vudp(),
      )!,
    verdict: "redirect",
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: PEER },
  },
  {
    description: "truncated: EtherIP's header is not whole",
    program: "vnetd_decap",
    forms: IPV6_FORMS,
    input: from6(PEER6, hex(`0040${"00".repeat(15)}`), 97),
    verdict: "drop",
    reasons: ["truncated"],
    reasonsKnowVnet: false,
  },
  {
    description: "truncated: the packet ends before its IP length does",
    program: "vnetd_decap",
    forms: IPV6_FORMS,
    input: from6(PEER6, behindIp("etherip6"), 97).subarray(0, 100),
    verdict: "drop",
    reasons: ["truncated"],
    reasonsKnowVnet: false,
  },
  {
    description: "bad_superframe: the kernel cannot segment behind EtherIP",
    program: "vnetd_decap",
    forms: ETHERIP_FORMS,
    input: fromPeer()
      .vudp({ vnet: "4" })
      .payload(packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().tcp().payload(2000).build()),
    gsoSize: 1000,
    gsoSegs: 2,
    verdict: "drop",
    reasons: ["bad_superframe"],
  },
];

const learnB = ({ lab, vnet }: RowContext): void =>
  void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
    mac: macBytes(GUEST_B),
    addr: mappedBytes(PEER),
  });
const localNew: NonNullable<Row["events"]> = ({ vnet }) => [
  { kind: "local-new", handle: vnet.handle, mac: GUEST_A },
];
const superFrame = packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().tcp().payload(2000);

const etheripOut: Row[] = [
  {
    description: "a super-frame goes through the pair that segments, before EtherIP",
    program: "vnetd_encap",
    forms: ETHERIP_FORMS,
    setup: (context) => {
      learnB(context);
      context.lab.fragments(true);
    },
    input: superFrame,
    gsoSize: 1000,
    gsoSegs: 2,
    verdict: "redirect",
    forwarded: 0,
    events: localNew,
    check: ({ lab, vnet, mark }) => {
      expect(mark).toBe(vnetdMark.MARK_OVERSIZE | vnet.slot);
      lab.fragments(false);
    },
  },
  {
    description: "fast: a super-frame is left to the other hook",
    program: "vnetd_encap_fast",
    forms: ETHERIP_FORMS,
    setup: learnB,
    input: superFrame,
    gsoSize: 1000,
    gsoSegs: 2,
    verdict: "pass",
    anyEvents: true,
  },
];

const arp = packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp();
/** the device carries IPv4 and IPv6 */
const both: Row[] = [
  {
    description: "both families: a group frame leaves by IPv4, and comes once more for IPv6",
    program: "vnetd_encap",
    forms: ["udp4", "etherip4"],
    setup: ({ lab }) => {
      lab.underlay({ family: 6 });
    },
    input: arp,
    verdict: "redirect",
    encapsulated: { to: VNETD_GROUP, ttl: 1, frame: arp },
    flooded: 1,
    events: localNew,
    check: ({ lab, vnet }) => {
      const again = lab.run("vnetd_encap", arp.build(), { mark: vnetdMark.MARK_OTHER_FAMILY });
      expect(again).toMatchObject({ verdict: "redirect", mark: 0, drops: [] });
      const form = lab.form === "udp4" ? "udp6" : "etherip6";
      expectEncapsulated(again.output, { to: VNETD_GROUP, ttl: 1, frame: arp }, form);
      // it was counted the first time
      expect(lab.traffic(vnet).encapFrames).toBe(1);
      lab.detach("ul0", 6);
    },
  },
  {
    description: "both families: known unicast goes to the host's address, of either",
    program: "vnetd_encap",
    forms: ["udp4"],
    setup: (context) => {
      context.lab.underlay({ family: 6 });
      const addr = parse6(PEER6);
      context.lab.control(vnetdControlOp.CTL_LEARN, context.vnet, { mac: macBytes(GUEST_B), addr });
    },
    input: packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp(),
    verdict: "redirect",
    events: localNew,
    check: ({ lab, output }) => {
      expect(parseFrame(output).ipv6).toMatchObject({ src: US6, dst: PEER6 });
      lab.detach("ul0", 6);
    },
  },
  {
    description: "stale_pass: a copy for the other family, and there is none",
    program: "vnetd_encap",
    forms: ["udp4"],
    input: arp,
    mark: vnetdMark.MARK_OTHER_FAMILY,
    verdict: "drop",
    reasons: ["stale_pass"],
  },
  {
    description: "fast: a guest's mark cannot pass for a copy for the other family",
    program: "vnetd_encap_fast",
    input: arp,
    mark: vnetdMark.MARK_OTHER_FAMILY,
    verdict: "pass",
    check: ({ mark }) => expect(mark).toBe(0),
  },
];

function parse6(text: string): Buffer {
  return Buffer.from(text.replaceAll(":", ""), "hex");
}

/** the LAN's packets in a vnet that is bridged to it, by what hosts of another form send */
const lan6 = (src: string, body: Buffer, nextHeader: number): Buffer =>
  Buffer.concat([
    Buffer.from("ffffffffffff", "hex"),
    macBytes(GUEST_A),
    from6(src, body, nextHeader).subarray(12),
  ]);
const carriesItself: Row[] = (
  [
    ["another host's EtherIP", lan6(PEER6, behindIp("etherip6"), 97), true],
    ["a link-local host's", lan6("fe80::1:2", behindIp("udp6"), 17), true],
    [
      "the first fragment of one",
      lan6(PEER6, Buffer.concat([fragmentHeader(17, 0, true), behindIp("udp6")]), FRAGMENT),
      true,
    ],
    ["EtherIP of an IPv6 host elsewhere", lan6("fd77::1", behindIp("etherip6"), 97), false],
    ["EtherIP as RFC 3378 has it", lan6(PEER6, hex(`3000${"00".repeat(60)}`), 97), false],
  ] as const
).map(([what, input, dropped]) => ({
  description: `${dropped ? "carries_itself" : "carried"}: a packet of the underlay, ${what}`,
  program: "vnetd_encap",
  forms: ["udp6"],
  input,
  events: localNew,
  ...(dropped
    ? { verdict: "drop", reasons: ["carries_itself"] }
    : {
        verdict: "redirect",
        encapsulated: { to: VNETD_GROUP, ttl: 1, frame: input },
        flooded: 1,
      }),
}));

export const FORM_ROWS: Row[] = [
  ...carriesItself,
  ...addresses,
  linkLocal,
  ...passed,
  wholeInFragmentHeader,
  ...etheripFragments,
  ...etherip,
  ...etheripOut,
  ...both,
];
