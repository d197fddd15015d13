// SPDX-License-Identifier: Apache-2.0
/** Groups of vnets' own: where frames for all go, and what is taken that comes by a group. In each form. */
import { expect } from "vitest";
import { vnetdControlOp, vnetdSecurity } from "../../src/generated/layouts.js";
import { ipv6Bytes, macBytes, macText, mappedBytes } from "../lib/bytes.js";
import { isIpv6, packetIn, textIn, type Form } from "../lib/forms.js";
import {
  BROADCAST_MAC,
  VNETD_GROUP,
  fragmentIpv4,
  packet,
  type PacketBuilder,
} from "../lib/packet.js";
import { parseFrame } from "../lib/packet-parse.js";
import {
  GUEST_A,
  GUEST_B,
  PEER,
  THIRD,
  US,
  fromPeer,
  groupMac,
  innerFrame,
  type Row,
} from "./rows.js";

export const OWN = "239.66.4.1";
export const OWN_MAC = "01:00:5e:42:04:01";
const OTHER = "239.66.4.2";

export const toAll = (): PacketBuilder => innerFrame({ src: GUEST_A, dst: BROADCAST_MAC });
export const fromAll = (): PacketBuilder => innerFrame({ dst: BROADCAST_MAC });
export const ownMac = (form: Form): string =>
  isIpv6(form) ? `33:33:${macText(ipv6Bytes(textIn(form, OWN)).subarray(12))}` : OWN_MAC;
/** a frame for all of vnet 4 from the peer, by a group */
const byGroup = (dst: string, src = PEER): PacketBuilder =>
  fromPeer({ dst, src }).vudp({ vnet: "4" }).payload(fromAll().build());

const sent: Row[] = (
  [
    ["broadcast", toAll()],
    ["multicast", innerFrame({ src: GUEST_A, dst: "01:00:5e:00:00:fb" })],
    ["unknown unicast", innerFrame({ src: GUEST_A, dst: "aa:00:00:00:04:77" })],
    ["what is not IP", packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).arp()],
    ["with a VLAN tag", packet().eth({ src: GUEST_A, dst: BROADCAST_MAC }).vlan({ id: 9 }).arp()],
  ] as const
).flatMap(([what, frame]): Row[] => [
  {
    description: `to the vnet's group: ${what}`,
    program: "vnetd_encap",
    vnet: { group: OWN },
    input: frame,
    verdict: "redirect",
    flooded: 1,
    anyEvents: true,
    encapsulated: { to: OWN, ttl: 1, frame },
    check: ({ lab, output }) => expect(parseFrame(output).dst).toBe(ownMac(lab.form)),
  },
  {
    description: `to the device's group while somebody may not hear the vnet's: ${what}`,
    program: "vnetd_encap",
    vnet: { group: OWN, sendsToGroup: false },
    input: frame,
    verdict: "redirect",
    flooded: 1,
    anyEvents: true,
    encapsulated: { to: VNETD_GROUP, ttl: 1, frame },
    check: ({ lab, output }) => expect(parseFrame(output).dst).toBe(groupMac(lab.form)),
  },
]);

const toHost: Row = {
  description: "to a host that is known: by unicast, whatever groups there are",
  program: "vnetd_encap",
  vnet: { group: OWN },
  setup: ({ lab, vnet }) =>
    void lab.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac: macBytes(GUEST_B),
      addr: mappedBytes(PEER),
    }),
  input: innerFrame({ src: GUEST_A, dst: GUEST_B }),
  verdict: "redirect",
  anyEvents: true,
  encapsulated: { to: PEER, ttl: 64, frame: innerFrame({ src: GUEST_A, dst: GUEST_B }) },
};

const taken: Row[] = (
  [
    ["the vnet's group", OWN, {}],
    ["the vnet's group, which this host does not send to just now", OWN, { sendsToGroup: false }],
    ["the device's group", VNETD_GROUP, {}],
  ] as const
).map(([what, dst, vnet]): Row => ({
  description: `taken by ${what}`,
  program: "vnetd_decap",
  vnet: { group: OWN, ...vnet },
  input: byGroup(dst),
  verdict: "redirect",
  flooded: 1,
  decapsulated: fromAll(),
  learned: { [GUEST_B]: PEER },
}));

const refused: Row[] = [
  {
    description: "other_group: by a group that is not the vnet's, though another vnet here has it",
    program: "vnetd_decap",
    vnet: { group: OWN },
    setup: ({ lab }) => void lab.vnet({ id: "5", group: OTHER }),
    input: byGroup(OTHER),
    verdict: "drop",
    reasons: ["other_group"],
  },
  {
    description: "own_echo: of this host, by the vnet's group",
    program: "vnetd_decap",
    vnet: { group: OWN },
    input: byGroup(OWN, US),
    verdict: "drop",
    reasons: ["own_echo"],
    reasonsKnowVnet: false,
  },
  {
    description: "security: a secure vnet's frames come by no group",
    program: "vnetd_decap",
    vnet: { group: OWN, security: vnetdSecurity.SECURITY_CONF },
    input: byGroup(OWN),
    verdict: "drop",
    reasons: ["security"],
  },
  {
    description: "storm: the budget of a host is the same by either group",
    program: "vnetd_decap",
    vnet: { group: OWN, floodPerSecond: 1, floodBurst: 1 },
    setup: ({ lab }) => {
      for (const dst of [OWN, VNETD_GROUP])
        lab.run("vnetd_decap", packetIn(lab.form, byGroup(dst).build())!);
    },
    input: byGroup(OWN),
    verdict: "drop",
    reasons: ["storm"],
    anyEvents: true,
  },
];

const notOurs: Row[] = (
  [
    ["of a vnet that is not here", fromPeer({ dst: OWN }).vudp({ vnet: "6" })],
    ["of an unknown message", fromPeer({ dst: OWN }).payload(Buffer.from([0, 9, 0, 0]))],
    ["VARP, which never goes there", fromPeer({ dst: OWN }).varp({ vnet: "4", vmac: GUEST_B })],
    [
      "VFWD, which never goes there",
      fromPeer({ dst: OWN }).vfwd({ source: PEER }).vudp({ vnet: "4" }),
    ],
    ["of this host, of another vnet", fromPeer({ dst: OWN, src: US }).vudp({ vnet: "6" })],
    [
      "too short for a vnet's id",
      fromPeer({ dst: OWN }).payload(Buffer.from([0, 2, 0, 0, 0, 0x40])),
    ],
  ] as const
).map(([what, outer]): Row => {
  const input = outer.payload(what.startsWith("too short") ? 0 : 60);
  return {
    description: `not ours, to another group: ${what}`,
    program: "vnetd_decap",
    vnet: { group: OWN },
    input,
    verdict: "pass",
  };
});

const withoutGroup: Row = {
  description: "not ours: a group of others, where the vnet has none",
  program: "vnetd_decap",
  input: byGroup(OWN),
  verdict: "pass",
};

/** as it comes back by a bridge to the LAN that carries the vnet: the same packet, inside */
const carriesItself: Row = {
  description: "carries_itself: a later fragment to the vnet's group, from a host of the subnet",
  program: "vnetd_encap",
  forms: ["udp4"],
  vnet: { group: OWN },
  input: fragmentIpv4(
    fromPeer({ dst: OWN, src: THIRD }).vudp({ vnet: "4" }).payload(2000).build(),
    1500,
  )[1]!,
  verdict: "drop",
  reasons: ["carries_itself"],
  anyEvents: true,
};

export const GROUP_ROWS: readonly Row[] = [
  ...sent,
  toHost,
  ...taken,
  ...refused,
  ...notOurs,
  withoutGroup,
  carriesItself,
];
