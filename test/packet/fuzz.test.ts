// SPDX-License-Identifier: Apache-2.0
/**
 * Random and mutated packets. Whatever comes, each packet has exactly one fate: it is passed on
 * untouched, forwarded and counted, handed to the daemon, or dropped with one counted reason.
 * A failure prints fast-check's seed and the smallest packet that shows it.
 */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vnetdControlOp, vnetdMark } from "../../src/generated/layouts.js";
import { internetChecksum, macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type ProgramName, type Run } from "../lib/bpf-lab.js";
import { FORMS, packetIn } from "../lib/forms.js";
import { BROADCAST_MAC, VNETD_GROUP, packet } from "../lib/packet.js";
import { timeFactor } from "../lib/processes.js";
import { CAPTURES, datagramsOf } from "../golden/captures.js";
import { ENCAP_KINDS } from "./encap-rows.js";
import { pathError } from "./path-mtu-rows.js";
import { GUEST_A, GUEST_B, PEER, US, expectEncapsulated, fromPeer, innerFrame } from "./rows.js";

/** fewer on an emulated machine */
const RUNS = Math.round(3000 / timeFactor);
const TIMEOUT_MS = 60_000 * timeFactor;

let lab: BpfLab | undefined;
let vnet: LabVnet;
beforeAll(() => {
  lab = BpfLab.open();
  lab.underlay({ family: 6 });
  freshVnet(lab);
});

/** A table in which GUEST_B is at PEER, and nothing else is known. */
function freshVnet(of: BpfLab): void {
  vnet = of.vnet({ maxEntries: 50, maxEntriesPerHost: 20, maxHosts: 10 });
  of.control(vnetdControlOp.CTL_LEARN, vnet, { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) });
}
afterAll(() => lab?.close());

// ---- packets

type Mutation = (bytes: Buffer) => Buffer;
const position = fc.nat(0xffff);

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(position, fc.integer({ min: 1, max: 255 })).map(([at, bits]): Mutation => (bytes) => {
    const out = Buffer.from(bytes);
    if (out.length > 0) out[at % out.length]! ^= bits;
    return out;
  }),
  fc
    .tuple(position, fc.constantFrom(0, 1, 4, 0x40, 0x7f, 0x80, 0xff))
    .map(([at, value]): Mutation => (bytes) => {
      const out = Buffer.from(bytes);
      if (out.length > 0) out[at % out.length] = value;
      return out;
    }),
  position.map(
    (at): Mutation =>
      (bytes) =>
        bytes.subarray(0, at % (bytes.length + 1)),
  ),
  fc.uint8Array({ maxLength: 80 }).map(
    (tail): Mutation =>
      (bytes) =>
        Buffer.concat([bytes, tail]),
  ),
  fc.tuple(position, fc.uint8Array({ maxLength: 24 })).map(([at, more]): Mutation => (bytes) => {
    const cut = at % (bytes.length + 1);
    return Buffer.concat([bytes.subarray(0, cut), more, bytes.subarray(cut)]);
  }),
  fc.tuple(position, fc.nat(40)).map(([at, count]): Mutation => (bytes) => {
    const cut = at % (bytes.length + 1);
    return Buffer.concat([bytes.subarray(0, cut), bytes.subarray(cut + count)]);
  }),
);

/** else most mutations of the header would end at its checksum */
function mendHeaderChecksum(bytes: Buffer): Buffer {
  const end = 14 + (bytes[14]! & 0x0f) * 4;
  if (bytes.length < end || end < 34) return bytes;
  const out = Buffer.from(bytes);
  out.writeUInt16BE(0, 24);
  out.writeUInt16BE(internetChecksum(out.subarray(14, end)), 24);
  return out;
}

const mutated = (bases: readonly Buffer[], most: number): fc.Arbitrary<Buffer> =>
  fc
    .tuple(fc.constantFrom(...bases), fc.array(mutation, { maxLength: most }), fc.nat(3))
    .map(([base, mutations, mend]) => {
      const bytes = mutations.reduce((b, mutate) => mutate(b), base);
      return mend > 0 ? mendHeaderChecksum(bytes) : bytes;
    });

/** the captures' packets, sent to us */
const golden = CAPTURES.flatMap((capture) =>
  datagramsOf(capture).map((d) => fromPeer().payload(d.payload).build()),
);
const OUTER_BASES = [
  ...golden.filter((bytes) => bytes.length < 1500),
  fromPeer({ dst: VNETD_GROUP })
    .vudp({ vnet: "4" })
    .payload(innerFrame({ dst: BROADCAST_MAC }).build())
    .build(),
  fromPeer()
    .varp({ vnet: "4", vmac: GUEST_B })
    .extension({ tlvs: [{ type: 1, value: Buffer.alloc(16) }] })
    .build(),
  fromPeer().vfwd().vudp({ vnet: "4" }).payload(innerFrame().build()).build(),
  packet().eth().ipv4({ src: PEER, dst: VNETD_GROUP }).icmpEcho().payload(8).build(),
  ...FORMS.map((form) => pathError(form)),
  pathError("udp6", { fragment: {} }),
  packet()
    .eth()
    .ipv4({ src: PEER, dst: US, options: Buffer.alloc(40, 1) })
    .udp()
    .vudp({ vnet: "4" })
    .payload(innerFrame().build())
    .build(),
];
/** the same over IPv6 and by EtherIP, as far as they have such a form */
const FORM_BASES = OUTER_BASES.flatMap((bytes) =>
  FORMS.flatMap((form) => (form === "udp4" ? [] : [packetIn(form, bytes) ?? []].flat())),
);
const FRAME_BASES = Object.values(ENCAP_KINDS).map(({ frame }) => frame.build());

// ---- running

interface Fate {
  run: Run;
  dropped: number;
  refused: number;
  forwarded: number;
}

/** undefined: the kernel takes no such packet for a test run (IP that is shorter than its header) */
function fateOf(
  program: ProgramName,
  bytes: Buffer,
  options: { mark?: number } = {},
): Fate | undefined {
  const countForwarded = (): number => {
    const { encapFrames, decapFrames } = lab!.traffic(vnet);
    return encapFrames + decapFrames;
  };
  const before = countForwarded();
  let run: Run;
  try {
    run = lab!.run(program, bytes, options);
  } catch (error) {
    const tooShort = bytes.length < 54;
    if (tooShort && (error as { code?: string }).code === "EINVAL") return undefined;
    throw error;
  }
  const sum = (drops: Run["drops"]): number =>
    drops.reduce((total, { frames }) => total + frames, 0);
  return {
    run,
    dropped: sum(run.drops.filter(({ reason }) => !reason.startsWith("refused_"))),
    refused: sum(run.drops.filter(({ reason }) => reason.startsWith("refused_"))),
    forwarded: countForwarded() - before,
  };
}

const isVarp = (bytes: Buffer): boolean => {
  const isIpv6 = bytes.readUInt16BE(12) === 0x86dd;
  const behindIpv6 = 14 + 40 + (bytes[20] === 44 ? 8 : 0);
  const header = (isIpv6 ? behindIpv6 : 14 + (bytes[14]! & 0x0f) * 4) + 8;
  return bytes.length >= header + 43 && bytes.readUInt16BE(header) === 1;
};
const isIcmp = (bytes: Buffer): boolean =>
  bytes.readUInt16BE(12) === 0x86dd ? bytes[20] === 58 : bytes[23] === 1;
const isGroupPing = (bytes: Buffer): boolean => bytes[23] === 1 && bytes[30] === 224;

function expectOneFate(bytes: Buffer, { run, dropped, refused, forwarded }: Fate): void {
  expect(refused).toBeLessThanOrEqual(1);
  switch (run.verdict) {
    case "pass":
      expect({ dropped, refused, forwarded }).toEqual({ dropped: 0, refused: 0, forwarded: 0 });
      expect(run.output.equals(bytes)).toBe(true);
      break;
    case "redirect":
      expect(dropped).toBe(0);
      expect(forwarded).toBe(isGroupPing(bytes) ? 0 : 1);
      break;
    case "drop":
      expect(forwarded).toBe(0);
      // a VARP message went to the daemon, and ends there; a router's error is taken in
      expect(dropped).toBe(dropped === 0 && (isVarp(bytes) || isIcmp(bytes)) ? 0 : 1);
  }
}

function expectBoundedTables(): void {
  const { entries, hosts } = lab!.counts(vnet);
  expect(entries).toBeLessThanOrEqual(50);
  expect(hosts).toBeLessThanOrEqual(10);
}

const verdicts = (): Record<string, number> => ({ pass: 0, drop: 0, redirect: 0 });

describe("vnetd_decap", () => {
  it.each([
    ["packets of the captures with up to 4 mutations", mutated(OUTER_BASES, 4)],
    ["the same over IPv6 and by EtherIP", mutated(FORM_BASES, 4)],
    [
      "random bytes behind a right outer header",
      fc.uint8Array({ maxLength: 300 }).map((b) => fromPeer().payload(b).build()),
    ],
    ["random bytes", fc.uint8Array({ minLength: 14, maxLength: 400 }).map((b) => Buffer.from(b))],
  ])(
    "%s",
    (_what, arbitrary) => {
      const seen = verdicts();
      fc.assert(
        fc.property(arbitrary, (bytes) => {
          if (bytes.length < 14) return;
          const fate = fateOf("vnetd_decap", bytes);
          if (fate === undefined) return;
          seen[fate.run.verdict]! += 1;
          expectOneFate(bytes, fate);
        }),
        { numRuns: RUNS },
      );
      expectBoundedTables();
      // the generator reaches what it is meant to reach
      expect(Object.values(seen).reduce((a, b) => a + b, 0)).toBeGreaterThan(RUNS / 2);
    },
    TIMEOUT_MS,
  );

  it("drops with a reason, most of the time", () => {
    const all = [...lab!.dropCounters().values()].filter((d) => d.direction === "decap");
    expect(new Set(all.map((d) => d.reason)).size).toBeGreaterThan(10);
  });
});

describe("vnetd_encap", () => {
  // what the other programs learned from random packets would be found here as well
  beforeAll(() => {
    lab!.detach("ul0", 6);
    freshVnet(lab!);
  });

  const frames = fc.oneof(
    mutated(FRAME_BASES, 4),
    fc.uint8Array({ minLength: 14, maxLength: 1600 }).map((b) => Buffer.from(b)),
  );
  const mark = fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    fc.nat(0xff).map((index) => vnetdMark.MARK_SECOND_PASS | index),
    fc.nat(0xffffffff),
  );

  it.each(["vnetd_encap", "vnetd_encap_fast"] as const)(
    "%s: what is forwarded is a right packet with the frame in it",
    (program) => {
      fc.assert(
        fc.property(frames, mark, (bytes, given) => {
          if (bytes.length < 14) return;
          const fate = fateOf(program, bytes, { mark: given });
          if (fate === undefined) return;
          const isSecondPass = (given & vnetdMark.MARK_KIND) === vnetdMark.MARK_SECOND_PASS;
          if (isSecondPass && program === "vnetd_encap") {
            // none of these frames is one that was encapsulated here
            expect(fate).toMatchObject({ dropped: 1, forwarded: 0, run: { verdict: "drop" } });
            return;
          }
          if (fate.run.verdict === "pass") {
            expect(fate).toMatchObject({ dropped: 0, forwarded: 0 });
            expect(fate.run.output.equals(bytes)).toBe(true);
            return;
          }
          expectOneFate(bytes, fate);
          if (fate.run.verdict !== "redirect") return;
          const toGroup = fate.run.output.subarray(30, 34).equals(Buffer.from([224, 10, 0, 1]));
          expectEncapsulated(fate.run.output, {
            to: toGroup ? VNETD_GROUP : PEER,
            ttl: toGroup ? 1 : 64,
            frame: bytes,
          });
        }),
        { numRuns: RUNS },
      );
      expectBoundedTables();
    },
    TIMEOUT_MS,
  );
});

it("after all that, a pair that talks still does", () => {
  const run = lab!.run(
    "vnetd_encap",
    packet().eth({ src: GUEST_A, dst: GUEST_B }).ipv4().udp().build(),
  );
  expect(run.verdict).toBe("redirect");
  const back = lab!.run(
    "vnetd_decap",
    fromPeer().vudp({ vnet: "4" }).payload(innerFrame().build()).build(),
  );
  expect(back.verdict).toBe("redirect");
});
