// SPDX-License-Identifier: Apache-2.0
/**
 * Plain VARP that needs no daemon (bpf/lib/varp_here.h): requests for MACs that live here, and announces of hosts
 * for themselves; and what looks like it and is the daemon's. Over IPv4 and IPv6.
 */
import { expect } from "vitest";
import {
  vnetdControlOp,
  vnetdFdbFlags,
  vnetdSecurity,
  VnetdFloods,
} from "../../src/generated/layouts.js";
import { internetChecksum, macBytes, mappedBytes } from "../lib/bytes.js";
import { addressIn, isIpv6, textIn, type Form } from "../lib/forms.js";
import { VNETD_GROUP, packet } from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import { GUEST_B, PEER, THIRD, US, fromPeer, type Row, type RowContext } from "./rows.js";

type Outer = Parameters<typeof fromPeer>[0];
interface Message {
  vnet?: string;
  vmac?: string;
  /** care-of address */
  care?: string;
  family?: number;
  trailing?: Uint8Array;
}

/** A message as a host of the form's family sends it. */
function message(form: Form, operation: 1 | 2, options: Message = {}): Buffer {
  const address = addressIn(form, mappedBytes(options.care ?? PEER));
  return packet()
    .varp({
      vnet: options.vnet ?? "4",
      vmac: options.vmac ?? GUEST_B,
      operation,
      family: options.family ?? (isIpv6(form) ? 10 : 2),
      address: isIpv6(form) ? address : address.subarray(12),
    })
    .payload(options.trailing ?? Buffer.alloc(0))
    .build();
}

const from =
  (operation: 1 | 2, options: Message = {}, outer: Outer = {}) =>
  ({ lab }: RowContext): Buffer =>
    fromPeer(outer)
      .payload(message(lab.form, operation, options))
      .build();

const livesHere = ({ lab, vnet }: RowContext): void =>
  void lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(GUEST_B) });
const announced =
  (host: string) =>
  ({ lab }: RowContext): void =>
    void lab.run("vnetd_decap", from(2, { care: host }, { src: host })({ lab } as RowContext));

/** strict: lengths and checksums are verified */
function expectAnswer({ lab, output }: RowContext & { output: Buffer }, vmac = GUEST_B): void {
  const { form } = lab;
  const answer = parseFrame(output, { messages: "skip" });
  const ends = { src: textIn(form, US), dst: textIn(form, PEER) };
  if (isIpv6(form)) expect(answer.ipv6).toMatchObject({ ...ends, hopLimit: 64 });
  else expect(answer.ipv4).toMatchObject({ ...ends, ttl: 64 });
  expect(answer.udp).toMatchObject({ src: 1798, dst: 1798 });
  expect(answer.udp?.checksum).not.toBe(0);
  expect(answer.src).toBe(lab.mac("ul0"));
  expect(answer.payload).toEqual(message(form, 2, { vmac, care: US }));
}

const answered: Partial<Row> & Pick<Row, "program" | "verdict"> = {
  program: "vnetd_decap",
  verdict: "redirect",
  // no frame of the vnet's
  forwarded: 0,
};

const requests: Row[] = [
  ...([{}, { dst: VNETD_GROUP }, { sport: 40000 }] as Outer[]).map((outer) => ({
    ...answered,
    description: `a request ${JSON.stringify(outer)} for a MAC that lives here is answered`,
    setup: livesHere,
    input: from(1, {}, outer),
    check: expectAnswer,
  })),
  {
    ...answered,
    description: "a request whose family and address are zero is answered, as the original does",
    setup: livesHere,
    input: from(1, { family: 0, care: "0.0.0.0" }),
    check: (context) => expectAnswer(context),
  },
  {
    ...answered,
    description: "a request for the vnetif's own MAC is answered",
    input: (context) => from(1, { vmac: vmacOf(context) })(context),
    check: (context) => expectAnswer(context, vmacOf(context)),
  },
  {
    ...answered,
    description: "a request without a UDP checksum is answered with one",
    forms: ["udp4"],
    setup: livesHere,
    input: from(1, {}, { checksum: 0 }),
    check: (context) => expectAnswer(context),
  },
  {
    ...answered,
    description: "a checksum that a virtual device has only begun is begun in the answer",
    setup: livesHere,
    input: ({ lab }) => withChecksumBegun(from(1)({ lab } as RowContext)),
    forms: ["udp4"],
    check: ({ output }) => {
      const begun = withChecksumBegun(output);
      expect(output.readUInt16BE(40)).toBe(begun.readUInt16BE(40));
    },
  },
  {
    description: "a request for a MAC that is not here is not answered",
    program: "vnetd_decap",
    input: from(1),
    verdict: "drop",
    check: ({ lab }) => expect(lab.varpStats().notHere).toBeGreaterThan(0),
  },
  {
    description: "nor is one for a MAC that lives behind another host",
    program: "vnetd_decap",
    setup: announced(THIRD),
    input: from(1),
    verdict: "drop",
    learned: { [GUEST_B]: THIRD },
  },
  {
    description: "varp_rate: more is asked than a vnet answers",
    program: "vnetd_decap",
    setup: livesHere,
    justBefore: ({ lab, vnet }) => {
      const floods = Buffer.alloc(VnetdFloods.size);
      floods.writeBigUInt64LE(process.hrtime.bigint() + 10_000_000_000n, VnetdFloods.size - 8);
      const slot = Buffer.alloc(4);
      slot.writeUInt32LE(vnet.slot);
      lab.native.mapUpdate(lab.map("floods"), slot, floods);
    },
    input: from(1),
    verdict: "drop",
    reasons: ["varp_rate"],
  },
];

const announces: Row[] = [
  {
    description: "an announce to the group is entered, and the daemon need not know",
    program: "vnetd_decap",
    input: from(2, {}, { dst: VNETD_GROUP }),
    verdict: "drop",
    learned: { [GUEST_B]: PEER },
    check: ({ lab, vnet }) => {
      expect(lab.learned(vnet, GUEST_B)?.flags).toBe(vnetdFdbFlags.FDB_ANNOUNCED);
      expect(lab.counts(vnet)).toMatchObject({ entries: 1, hosts: 1, local: 0 });
    },
  },
  {
    description:
      "an announce to this host is entered, and the daemon is told so: it may have asked",
    program: "vnetd_decap",
    input: from(2),
    verdict: "drop",
    learned: { [GUEST_B]: PEER },
    events: () => [{ kind: "varp", source: PEER, learned: true }],
  },
  {
    description: "an announce takes a MAC from another host",
    program: "vnetd_decap",
    setup: announced(THIRD),
    input: from(2, {}, { dst: VNETD_GROUP }),
    verdict: "drop",
    learned: { [GUEST_B]: PEER },
    events: () => [{ kind: "moved", mac: GUEST_B }],
  },
];

const forDaemon = (description: string, input: Row["input"], more: Partial<Row> = {}): Row => ({
  description: `the daemon's: an announce ${description}`,
  program: "vnetd_decap",
  input,
  verdict: "drop",
  learned: { [GUEST_B]: undefined },
  events: () => [{ kind: "varp", source: PEER, learned: false }],
  ...more,
});

const doubtful: Row[] = [
  forDaemon("of a MAC that lives here", from(2), {
    setup: livesHere,
    learned: { [GUEST_B]: "local" },
  }),
  forDaemon("for another host", from(2, { care: THIRD })),
  forDaemon("of a group MAC", from(2, { vmac: "03:00:00:00:00:01" })),
  forDaemon("of no MAC", from(2, { vmac: "00:00:00:00:00:00" })),
  forDaemon("of the vnetif's MAC", (context) => from(2, { vmac: vmacOf(context) })(context)),
  forDaemon("with bytes behind it", from(2, { trailing: Buffer.from("12345") })),
  forDaemon("in a vnet that is down", from(2), { vnet: { up: false } }),
  forDaemon("in a secure vnet", from(2), { vnet: { security: vnetdSecurity.SECURITY_CONF } }),
  forDaemon("beyond the host's share of the table", from(2), { vnet: { maxEntriesPerHost: 0 } }),
  forDaemon("of a host for which there is no room", from(2), { vnet: { maxHosts: 0 } }),
  forDaemon("of a pinned MAC", from(2), {
    setup: ({ lab, vnet }) =>
      void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
        mac: macBytes(GUEST_B),
        addr: mappedBytes(THIRD),
        fdbFlags: vnetdFdbFlags.FDB_STATIC | vnetdFdbFlags.FDB_PINNED,
      }),
    learned: { [GUEST_B]: THIRD },
  }),
  {
    description: "the daemon's: a request with bytes behind it",
    program: "vnetd_decap",
    setup: livesHere,
    input: from(1, { trailing: Buffer.from("12345") }),
    verdict: "drop",
    events: () => [{ kind: "varp", source: PEER, learned: false }],
  },
];

/** Of bytes that differ, so that what is cut or moved shows. */
const bytesBehind = (count: number): Buffer =>
  Buffer.from(Array.from({ length: count }, (_, at) => at & 255));

/** Records of the ring are of two lengths; what is longer than the longest message is cut. */
const lengths: Row[] = [44, 255, 256, 257, 511, 512, 513].map((bytes) => ({
  description: `the daemon's: all of a message of ${String(bytes)} bytes, up to 512`,
  program: "vnetd_decap",
  input: from(2, { trailing: bytesBehind(bytes - 43) }),
  verdict: "drop",
  events: ({ lab }) => {
    const whole = message(lab.form, 2, { trailing: bytesBehind(bytes - 43) });
    return [{ kind: "varp", source: PEER, message: whole.subarray(0, 512) }];
  },
}));

/** An extension of one empty TLV, with these bytes in front of its length. */
const extension = (magic: string, version: number, flags: number): Buffer =>
  Buffer.concat([Buffer.from(magic), Buffer.from([version, flags, 0, 4, 0, 17, 0, 0])]);

/** Whose vnet in front is none that is here. */
const lists: Row[] = [
  {
    description: "the daemon's: a list, since others of its vnets may be here",
    program: "vnetd_decap",
    input: from(2, { vnet: "1235", trailing: extension("VNTD", 1, 1) }),
    verdict: "drop",
    events: () => [{ kind: "varp", source: PEER, learned: false }],
  },
  ...(
    [
      ["no list", extension("VNTD", 1, 0)],
      ["no list, though other flags are set", extension("VNTD", 1, 0xfe)],
      ["a list of another version", extension("VNTD", 2, 1)],
      ["a list of somebody else's", extension("VNTE", 1, 1)],
      ["a list that is cut", extension("VNTD", 1, 1).subarray(0, 7)],
    ] as const
  ).map(([what, trailing]) => ({
    description: `varp_unknown_vnet: ${what}`,
    program: "vnetd_decap" as const,
    input: from(2, { vnet: "1235", trailing }),
    verdict: "drop" as const,
    reasons: ["varp_unknown_vnet"],
    reasonsKnowVnet: false,
    events: () => [],
  })),
];

/** The sum of the pseudo header in the checksum's place, as a device without offload is handed it. */
function withChecksumBegun(frame: Buffer): Buffer {
  const out = Buffer.from(frame);
  const pseudo = Buffer.concat([out.subarray(26, 34), Buffer.from([0, 17]), out.subarray(38, 40)]);
  out.writeUInt16BE(~internetChecksum(pseudo) & 0xffff, 40);
  return out;
}

function vmacOf({ lab }: RowContext): string {
  return lab.mac("vn0");
}

export const VARP_ROWS: Row[] = [...requests, ...announces, ...doubtful, ...lists, ...lengths];
