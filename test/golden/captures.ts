// SPDX-License-Identifier: Apache-2.0
/**
 * The golden captures: captures/*.pcap, as datagrams to port 1798 with fragments put together.
 * What each is and what becomes of it stands in expectations.ts.
 */
import { fileURLToPath } from "node:url";
import { parseFrame } from "../lib/packet-parse.js";
import { readPcap, reassembleIpv4 } from "../lib/pcap.js";

export const CAPTURES = [
  "lan-vnet4-arp-ping",
  "lan-vnet97-arp-ping",
  "lan-vnet4-unknown-unicast-is-multicast",
  "lan-vnet4-ping1472-ipfrag",
  "lan-varp-request-announce",
  "lan-malformed-and-version-variants",
  "routed-peer-fwd-br1",
  "routed-peer-fwd-br2",
  "routed-AtoD-remulticast-br1",
  "routed-AtoD-remulticast-br2",
  "routed-thirdparty-CtoD-br1",
] as const;
export type Capture = (typeof CAPTURES)[number];

const UDP_PAYLOAD_OFFSET = 14 + 20 + 8;

export interface CapturedDatagram {
  /** place in the file after fragments were put together, from 0 */
  index: number;
  /** Ethernet, IPv4, UDP and payload */
  bytes: Buffer;
  /** source and destination of the outer IPv4 header */
  src: string;
  dst: string;
  srcPort: number;
  ttl: number;
  /** UDP payload */
  payload: Buffer;
  /** had to be put together */
  wasFragmented: boolean;
}

export function capturePath(capture: Capture): string {
  return fileURLToPath(new URL(`./captures/${capture}.pcap`, import.meta.url));
}

/** every UDP datagram to port 1798 of a capture; IGMP is left out */
export function datagramsOf(capture: Capture): CapturedDatagram[] {
  const { packets } = readPcap(capturePath(capture));
  const originals = new Set(packets.map((p) => p.data));
  return reassembleIpv4(packets).flatMap(({ data }, index) => {
    const outer = outerOf(data);
    if (outer === undefined) return [];
    const payload = data.subarray(UDP_PAYLOAD_OFFSET);
    return [{ index, bytes: data, payload, wasFragmented: !originals.has(data), ...outer }];
  });
}

function outerOf(
  data: Buffer,
): Pick<CapturedDatagram, "src" | "dst" | "srcPort" | "ttl"> | undefined {
  // malformed messages are the point of some captures
  const { ipv4, udp } = parseFrame(data, { messages: "skip" });
  if (udp?.dst !== 1798 || ipv4 === undefined) return undefined;
  return { src: ipv4.src, dst: ipv4.dst, ttl: ipv4.ttl, srcPort: udp.src };
}

/** the IPv4 fragments of a capture, as they were on the wire */
export function fragmentsOf(capture: Capture): Buffer[] {
  const { packets } = readPcap(capturePath(capture));
  return packets.map(({ data }) => data).filter((data) => (data.readUInt16BE(20) & 0x3fff) !== 0);
}
