// SPDX-License-Identifier: Apache-2.0
/**
 * Bounds of the tables: the frame is always forwarded, its source is not learned, and that is
 * counted. Those who are in the table already are not disturbed.
 */
import { expect } from "vitest";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import { macBytes } from "../lib/bytes.js";
import { packet } from "../lib/packet.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  fromPeer,
  innerFrame,
  type Row,
  type RowContext,
} from "./rows.js";

const macNumber = (n: number): string =>
  `02:bb:00:${[n >> 16, n >> 8, n].map((b) => (b & 0xff).toString(16).padStart(2, "0")).join(":")}`;

const frameFrom = (host: string, mac: string): Buffer =>
  fromPeer({ src: host })
    .vudp({ vnet: "4" })
    .payload(innerFrame({ src: mac }).build())
    .build();

/** frames of that many MACs, from a host */
const flood =
  (host: string, count: number, first = 0) =>
  ({ lab }: RowContext): void => {
    for (let n = first; n < first + count; n++)
      lab.run("vnetd_decap", frameFrom(host, macNumber(n)));
  };

export const LIMIT_ROWS: Row[] = [
  {
    description: "refused_host_limit: one host fills its own share only",
    program: "vnetd_decap",
    vnet: { maxEntriesPerHost: 3 },
    setup: flood(PEER, 3),
    input: frameFrom(PEER, GUEST_B),
    verdict: "redirect",
    reasons: ["refused_host_limit"],
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: undefined, [macNumber(0)]: PEER, [macNumber(2)]: PEER },
    check: ({ lab, vnet }) => {
      // another host learns as ever
      const run = lab.run("vnetd_decap", frameFrom(THIRD, GUEST_A));
      expect(run.drops).toEqual([]);
      expect(lab.learned(vnet, GUEST_A)?.host).toBe(THIRD);
    },
  },
  {
    description: "refused_vnet_limit: the vnet is full, by several hosts",
    program: "vnetd_decap",
    vnet: { maxEntries: 4 },
    setup: (context) => {
      flood(PEER, 2)(context);
      flood(THIRD, 2, 100)(context);
    },
    input: frameFrom("10.66.1.11", GUEST_B),
    verdict: "redirect",
    reasons: ["refused_vnet_limit"],
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: undefined, [macNumber(0)]: PEER, [macNumber(101)]: THIRD },
    check: ({ lab, vnet }) => expect(lab.counts(vnet).entries).toBe(4),
  },
  {
    description: "a full vnet still moves entries that are in it",
    program: "vnetd_decap",
    vnet: { maxEntries: 2 },
    setup: flood(PEER, 2),
    input: frameFrom(THIRD, macNumber(0)),
    verdict: "redirect",
    learned: { [macNumber(0)]: THIRD },
    events: ({ vnet }) => [{ kind: "moved", handle: vnet.handle, mac: macNumber(0) }],
    check: ({ lab, vnet }) => expect(lab.counts(vnet).entries).toBe(2),
  },
  {
    description: "refused_vnet_hosts: more hosts than the vnet may have",
    program: "vnetd_decap",
    vnet: { maxHosts: 1 },
    setup: flood(PEER, 1),
    input: frameFrom(THIRD, GUEST_B),
    verdict: "redirect",
    reasons: ["refused_vnet_hosts"],
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: undefined },
    check: ({ lab, vnet }) => expect(lab.counts(vnet)).toMatchObject({ hosts: 1, entries: 1 }),
  },
  {
    description: "refused_host_limit: local guests have a bound too",
    program: "vnetd_encap",
    vnet: { maxEntriesPerHost: 2 },
    setup: ({ lab, vnet }) => {
      for (const n of [0, 1]) {
        lab.control(vnetdControlOp.CTL_LEARN_LOCAL, vnet, { mac: macBytes(macNumber(n)) });
      }
    },
    input: packet().eth({ src: GUEST_A, dst: "ff:ff:ff:ff:ff:ff" }).arp(),
    verdict: "redirect",
    reasons: ["refused_host_limit"],
    learned: { [GUEST_A]: undefined },
    flooded: 1,
  },
];

/** in a lab whose maps are this small */
export const SMALL_TABLES = { maxEntries: { fdb: 64, fdb_queue: 64 }, nexthops: 3 } as const;

export const SMALL_TABLE_ROWS: Row[] = [
  {
    description: "refused_table_full: all vnets together",
    program: "vnetd_decap",
    setup: flood(PEER, 64),
    input: frameFrom(PEER, GUEST_B),
    verdict: "redirect",
    reasons: ["refused_table_full"],
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: undefined },
    anyEvents: true,
  },
  {
    description: "refused_hosts_full: no next hop is left",
    program: "vnetd_decap",
    setup: (context) => {
      for (const host of ["10.66.1.21", "10.66.1.22", "10.66.1.23"]) flood(host, 1)(context);
    },
    input: frameFrom("10.66.1.24", GUEST_B),
    verdict: "redirect",
    reasons: ["refused_hosts_full"],
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: undefined },
    anyEvents: true,
  },
];
