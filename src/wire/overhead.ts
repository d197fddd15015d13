// SPDX-License-Identifier: Apache-2.0
/**
 * What an outer packet holds beside a guest's packet, by family and encapsulation, and with ESP: the one place of the
 * control plane that knows (bpf/lib/outer.h, overhead_of(), and bpf/lib/esp.h are those of the data plane).
 *
 * With ESP it is the kernel's own sum for mode BEET, xfrm_state_mtu(), byte for byte: what it lets through is let
 * through here. Over IPv4 it keeps 8 bytes free for BEET's pseudo header, which is there only for a packet with IP options
 * and so never in ours; over IPv6 it keeps none where the inner packet is IPv6.
 */
import type { Family } from "../base/address.js";
import type { Suite } from "../base/suite.js";
import { vnetdWire } from "../generated/layouts.js";

export type Encapsulation = "udp" | "etherip";

const ethernetHeaderBytes = 14;
const udpHeaderBytes = 8;
const ipHeaderBytes: Readonly<Record<Family, number>> = { 4: 20, 6: 40 };
/** SPI and sequence number */
const espHeaderBytes = 8;
/** behind what is padded, and within it: length of the padding, next header */
const espTrailerBytes = 2;
/** what the kernel keeps free in mode BEET, by the family of both packets */
const beetReserveBytes: Readonly<Record<Family, number>> = { 4: 8, 6: 0 };
/** what IP's length can say */
export const largestPacketBytes = 65_535;

/** What VFWD puts in front of a group packet (bpf/lib/vfwd.h, vfwd_overhead(), in the data plane). */
export function vfwdOverheadBytes(family: Family): number {
  return family === 4 ? vnetdWire.VFWD_HDR_LEN : vnetdWire.VFWD_IPV6_HDR_LEN;
}

/** Outer IP header up to the inner Ethernet header, that one included. */
export function overheadBytes(family: Family, encapsulation: Encapsulation): number {
  const { VUDP_IPV4_OVERHEAD, VUDP_IPV6_OVERHEAD } = vnetdWire;
  const { ETHERIP_IPV4_OVERHEAD, ETHERIP_IPV6_OVERHEAD } = vnetdWire;
  const [ipv4, ipv6] =
    encapsulation === "udp"
      ? [VUDP_IPV4_OVERHEAD, VUDP_IPV6_OVERHEAD]
      : [ETHERIP_IPV4_OVERHEAD, ETHERIP_IPV6_OVERHEAD];
  return ethernetHeaderBytes + (family === 4 ? ipv4 : ipv6);
}

/** Bytes of a packet in front of and behind what ESP pads, by family, and the block that it is padded to. */
export interface EspRoom {
  fixed4: number;
  fixed6: number;
  block: number;
}

export function espRoom({ ivBytes, icvBytes, blockBytes }: Suite): EspRoom {
  const fixed = (family: Family): number =>
    ipHeaderBytes[family] + espHeaderBytes + ivBytes + beetReserveBytes[family] + icvBytes;
  return { fixed4: fixed(4), fixed6: fixed(6), block: blockBytes };
}

/** The largest guest's packet that leaves in one ESP packet of this size. */
function espGuestBytes(family: Family, packetBytes: number, suite: Suite): number {
  const { fixed4, fixed6, block } = espRoom(suite);
  const padded = Math.floor((packetBytes - (family === 4 ? fixed4 : fixed6)) / block) * block;
  const frameBytes = padded - espTrailerBytes - udpHeaderBytes - vnetdWire.VUDP_HDR_LEN;
  return frameBytes - ethernetHeaderBytes;
}

/**
 * What a guest's packet may be to fit one outer packet at every place, of which there is one at least. With a suite it is
 * VUDP within ESP, whatever the encapsulation of others.
 */
export function guestMtuBytes(
  places: readonly { family: Family; mtuBytes: number }[],
  encapsulation: Encapsulation,
  suite?: Suite,
): number {
  const fits = places.map(({ family, mtuBytes }) => {
    const packetBytes = Math.min(mtuBytes, largestPacketBytes);
    return suite === undefined
      ? packetBytes - overheadBytes(family, encapsulation)
      : espGuestBytes(family, packetBytes, suite);
  });
  return Math.min(...fits);
}
