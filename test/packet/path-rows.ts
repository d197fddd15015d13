// SPDX-License-Identifier: Apache-2.0
/** Hosts that are reached by several paths: rows for vnetd_decap, vnetd_encap and vnetd_encap_fast. */
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BROADCAST_MAC, VNETD_GROUP, packet, type PacketBuilder } from "../lib/packet.js";
import { vnetdControlOp, vnetdFdbFlags, vnetdNexthopFlags } from "../../src/generated/layouts.js";
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

const { NEXTHOP_MEMBER, NEXTHOP_SECONDARY } = vnetdNexthopFlags;
export const HOST = Buffer.from("00112233445566778899aabbccddeeff", "hex");

export interface PathSpec {
  address: string;
  device?: "ul0" | "ul1";
}

/** Says, as the daemon does from hellos, that the paths lead to one host; the first is primary. */
export function setPaths({ lab, vnet }: RowContext, paths: readonly PathSpec[], host = HOST): void {
  const place = ({ address, device = "ul0" }: PathSpec): { ifindex: number; addr: Buffer } => ({
    ifindex: lab.ifindex(device),
    addr: mappedBytes(address),
  });
  paths.forEach((path, number) => {
    const other = paths[number === 0 ? 1 : 0];
    const { result } = lab.control(vnetdControlOp.CTL_NEXTHOP, vnet, {
      ...place(path),
      nexthopFlags: NEXTHOP_MEMBER | (number === 0 ? 0 : NEXTHOP_SECONDARY),
      host,
      path: number,
      ...(other === undefined
        ? {}
        : { otherIfindex: place(other).ifindex, otherAddr: place(other).addr }),
    });
    if (result !== 0) throw new Error(`CTL_NEXTHOP: ${result}`);
  });
}

const PRIMARY = PEER;
const SECONDARY = THIRD;
const twoPaths = (context: RowContext): void =>
  setPaths(context, [{ address: PRIMARY }, { address: SECONDARY }]);

/** a broadcast by one of the paths; the copies of one frame have one id */
export const broadcast = (src: string, id: number, bytes = 18): PacketBuilder =>
  fromPeer({ src, dst: VNETD_GROUP, id })
    .vudp({ vnet: "4" })
    .eth({ src: GUEST_B, dst: BROADCAST_MAC })
    .arp()
    .payload(bytes);
const inner = packet().eth({ src: GUEST_B, dst: BROADCAST_MAC }).arp().payload(18);
const after =
  (setup: (context: RowContext) => void, ...packets: readonly PacketBuilder[]) =>
  (context: RowContext): void => {
    setup(context);
    for (const each of packets) context.lab.run("vnetd_decap", each.build());
  };

const delivered = {
  program: "vnetd_decap",
  verdict: "redirect",
  decapsulated: inner,
  learned: { [GUEST_B]: PRIMARY },
  flooded: 1,
} as const;
const dropped = {
  program: "vnetd_decap",
  verdict: "drop",
  reasons: ["duplicate_path"],
  learned: { [GUEST_B]: PRIMARY },
} as const;

const copies: Row[] = [
  {
    ...dropped,
    description: "duplicate_path: a group frame that came by the primary path already",
    setup: after(twoPaths, broadcast(PRIMARY, 7)),
    input: broadcast(SECONDARY, 7),
  },
  {
    ...dropped,
    description: "duplicate_path: whichever path it came by first",
    setup: after(twoPaths, broadcast(SECONDARY, 7)),
    input: broadcast(PRIMARY, 7),
  },
  {
    ...dropped,
    description: "duplicate_path: the third of three paths",
    setup: after(
      (context) =>
        setPaths(context, [
          { address: PRIMARY },
          { address: SECONDARY },
          { address: "10.66.1.12" },
        ]),
      broadcast(PRIMARY, 7),
      broadcast(SECONDARY, 7),
    ),
    input: broadcast("10.66.1.12", 7),
  },
  {
    ...dropped,
    description: "duplicate_path: a copy of the second of two frames with one id",
    setup: after(twoPaths, broadcast(PRIMARY, 7), broadcast(PRIMARY, 7), broadcast(SECONDARY, 7)),
    input: broadcast(SECONDARY, 7),
  },
  {
    ...delivered,
    description: "an id that comes again by the same path is another frame",
    setup: after(twoPaths, broadcast(PRIMARY, 7)),
    input: broadcast(PRIMARY, 7),
  },
  {
    ...delivered,
    description: "and so is the same id once its copies have come",
    setup: after(twoPaths, broadcast(PRIMARY, 7), broadcast(SECONDARY, 7)),
    input: broadcast(SECONDARY, 7),
  },
  {
    ...delivered,
    description: "an id that came twenty times by one path alone is behind by no more on the other",
    setup: after(
      twoPaths,
      ...Array.from({ length: 20 }, () => broadcast(PRIMARY, 7)),
      ...Array.from({ length: 15 }, () => broadcast(SECONDARY, 7)),
    ),
    input: broadcast(SECONDARY, 7),
  },
  {
    ...delivered,
    description: "a group frame that came by the secondary path alone is delivered",
    setup: twoPaths,
    input: broadcast(SECONDARY, 7),
  },
  ...(
    [
      ["another id", broadcast(PRIMARY, 8)],
      ["another length", broadcast(PRIMARY, 7, 19)],
    ] as const
  ).map(([what, first]): Row => ({
    ...delivered,
    description: `no copy: ${what} by the other path`,
    setup: after(twoPaths, first),
    input: broadcast(SECONDARY, 7),
  })),
  {
    ...delivered,
    description: "no copy: another host's",
    setup: after(
      (context) => {
        setPaths(
          context,
          [{ address: "10.66.1.20" }, { address: "10.66.1.21" }],
          Buffer.alloc(16, 1),
        );
        twoPaths(context);
      },
      broadcast("10.66.1.20", 7),
    ),
    input: broadcast(SECONDARY, 7),
    anyEvents: true,
  },
  {
    ...delivered,
    description: "no copy: of two hosts with one path each, which have one id (a cloned machine)",
    setup: after(
      (context) => {
        setPaths(context, [{ address: PRIMARY }]);
        setPaths(context, [{ address: SECONDARY }]);
      },
      broadcast(PRIMARY, 7),
    ),
    input: broadcast(SECONDARY, 7),
    learned: { [GUEST_B]: SECONDARY },
    anyEvents: true,
  },
];

const learning: Row[] = [
  {
    description:
      "unicast by the secondary path is delivered, and learned as the host's primary path",
    program: "vnetd_decap",
    setup: twoPaths,
    input: fromPeer({ src: SECONDARY }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    verdict: "redirect",
    decapsulated: innerFrame(),
    learned: { [GUEST_B]: PRIMARY },
  },
  {
    description: "a MAC that is reached by the primary path does not move to the secondary",
    program: "vnetd_decap",
    setup: after(
      twoPaths,
      fromPeer({ src: PRIMARY }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    ),
    input: fromPeer({ src: SECONDARY }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    verdict: "redirect",
    learned: { [GUEST_B]: PRIMARY },
    events: () => [],
  },
  {
    description: "an announce by the secondary path does not move a MAC either",
    program: "vnetd_decap",
    setup: (context) => {
      twoPaths(context);
      for (const address of [PRIMARY, SECONDARY])
        context.lab.control(vnetdControlOp.CTL_LEARN, context.vnet, {
          mac: macBytes(GUEST_B),
          addr: mappedBytes(address),
          fdbFlags: vnetdFdbFlags.FDB_ANNOUNCED,
        });
    },
    input: packet().eth().arp(),
    verdict: "pass",
    learned: { [GUEST_B]: PRIMARY },
  },
  {
    description: "a record that names another host's path is not believed",
    program: "vnetd_decap",
    setup: (context) => {
      twoPaths(context);
      setPaths(context, [{ address: PRIMARY }], Buffer.alloc(16, 1));
    },
    input: fromPeer({ src: SECONDARY }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    verdict: "redirect",
    learned: { [GUEST_B]: SECONDARY },
  },
  {
    description: "when the other path becomes the primary one, entries follow without a move",
    program: "vnetd_decap",
    setup: (context) => {
      after(
        twoPaths,
        fromPeer({ src: PRIMARY }).vudp({ vnet: "4" }).payload(innerFrame().build()),
      )(context);
      setPaths(context, [{ address: SECONDARY }, { address: PRIMARY }]);
    },
    input: fromPeer({ src: PRIMARY }).vudp({ vnet: "4" }).payload(innerFrame().build()),
    verdict: "redirect",
    learned: { [GUEST_B]: SECONDARY },
    events: () => [],
  },
];

export const PATH_ROWS: Row[] = [...copies, ...learning];

/** guest A's frame to guest B */
export const toB = (): PacketBuilder => packet().eth({ src: GUEST_A, dst: GUEST_B });
