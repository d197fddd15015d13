// SPDX-License-Identifier: Apache-2.0
/**
 * What an outer packet holds beside a guest's packet, by family and encapsulation: the one place of the
 * control plane that knows (bpf/lib/outer.h, overhead_of(), is that of the data plane).
 */
import type { Family } from "../base/address.js";
import { vnetdWire } from "../generated/layouts.js";

export type Encapsulation = "udp" | "etherip";

const ethernetHeaderBytes = 14;
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

/** What a guest's packet may be to fit one outer packet at every place, of which there is one at least. */
export function guestMtuBytes(
  places: readonly { family: Family; mtuBytes: number }[],
  encapsulation: Encapsulation,
): number {
  const fits = places.map(
    ({ family, mtuBytes }) =>
      Math.min(mtuBytes, largestPacketBytes) - overheadBytes(family, encapsulation),
  );
  return Math.min(...fits);
}
