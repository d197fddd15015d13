// SPDX-License-Identifier: Apache-2.0
/**
 * A fluent packet builder for tests.
 *
 *     packet().eth({ dst, src }).ipv4({ src: A, dst: B }).udp({ dst: 1798 })
 *       .vudp({ vnet: "97" }).eth({ … }).arp({ … }).build()
 *
 * Builders are immutable: a prefix can be kept and continued many times. Lengths, types, protocols
 * and checksums are filled in from what follows; each can be overridden to make a wrong packet.
 * The wire constants are written out here a second time on purpose (see bytes.ts).
 */
import { internetChecksum, ipv4Bytes, ipv6Bytes, macBytes, vnetBytes } from "./bytes.js";

export const ETHER_TYPE = {
  ipv4: 0x0800,
  arp: 0x0806,
  vlan: 0x8100,
  ipv6: 0x86dd,
  qinq: 0x88a8,
  /** IEEE local experimental: what a frame without a known payload gets */
  experimental: 0x88b5,
} as const;
export const IP_PROTOCOL = { icmp: 1, igmp: 2, tcp: 6, udp: 17, icmp6: 58, etherip: 97 } as const;
export const VNETD_PORT = 1798;
export const VNETD_GROUP = "224.10.0.1";
export const VNETD_GROUP_MAC = "01:00:5e:0a:00:01";
export const BROADCAST_MAC = "ff:ff:ff:ff:ff:ff";

export interface EthOptions {
  dst?: string;
  src?: string;
  /** EtherType, or the length of an LLC frame */
  type?: number;
}
export interface VlanOptions {
  id: number;
  priority?: number;
  /** the tag's own type: 0x8100 or 0x88a8 */
  tpid?: number;
  /** the type of what follows */
  type?: number;
}
export interface ArpOptions {
  operation?: number;
  senderMac?: string;
  senderIp?: string;
  targetMac?: string;
  targetIp?: string;
}
export interface Ipv4Options {
  src?: string;
  dst?: string;
  ttl?: number;
  tos?: number;
  id?: number;
  dontFragment?: boolean;
  moreFragments?: boolean;
  /** in bytes, a multiple of 8 */
  fragmentOffset?: number;
  protocol?: number;
  /** a multiple of 4 bytes, at most 40 */
  options?: Uint8Array;
  version?: number;
  /** in 32-bit words */
  headerWords?: number;
  totalLength?: number;
  checksum?: number;
}
export interface Ipv6Options {
  src?: string;
  dst?: string;
  hopLimit?: number;
  nextHeader?: number;
  payloadLength?: number;
}
export interface UdpOptions {
  src?: number;
  dst?: number;
  length?: number;
  /** a number as it stands in the header; 0 means none */
  checksum?: number;
}
export interface TcpOptions {
  src?: number;
  dst?: number;
  sequence?: number;
  acknowledgement?: number;
  flags?: number;
  window?: number;
  checksum?: number;
}
export interface IcmpEchoOptions {
  reply?: boolean;
  id?: number;
  sequence?: number;
  checksum?: number;
}
export interface NeighbourOptions {
  /** 135 solicitation, 136 advertisement */
  type: number;
  code?: number;
  /** of an advertisement: 0x80 router, 0x40 solicited, 0x20 override */
  flags?: number;
  target: string;
  /** in order; `bytes` follow type and length, which is in units of 8 bytes */
  options?: readonly { type: number; bytes: Uint8Array; units?: number }[];
  checksum?: number;
}
export interface VudpOptions {
  vnet: string | Uint8Array;
  opcode?: number;
  /** the two version bytes as they stand on the wire */
  version?: readonly [number, number];
}
export interface VarpOptions {
  vnet: string | Uint8Array;
  vmac: string;
  operation?: number;
  family?: number;
  /** an IPv4 address, or 16 raw bytes */
  address?: string | Uint8Array;
}
export interface VfwdOptions {
  opcode?: number;
  /** address the message is said to come from; 0.0.0.0: "the address of this VFWD's outer header" */
  source?: string;
  group?: string;
  /** as an original relays: version, lengths and TTL of the inner header are zero */
  relayed?: boolean;
  /** of the group packet; 0: none */
  ipId?: number;
}
export interface Tlv {
  type: number;
  value: Uint8Array;
  /** a wrong length, to test with */
  length?: number;
}
export interface ExtensionOptions {
  magic?: number;
  version?: number;
  length?: number;
  tlvs?: readonly Tlv[];
}

interface Layer {
  /** EtherType under which Ethernet carries this layer; "length" for LLC */
  etherType?: number | "length";
  /** IP protocol number of this layer */
  protocol?: number;
  /** the pseudo-header that a checksum of the next layer covers */
  pseudoHeader?(protocol: number, length: number): Buffer;
  encode(body: Buffer, outer: Layer | undefined, inner: Layer | undefined): Buffer;
}

function transportChecksum(
  given: number | undefined,
  outer: Layer | undefined,
  protocol: number,
  segment: Buffer,
): number {
  if (given !== undefined) return given;
  const pseudo = outer?.pseudoHeader?.(protocol, segment.length) ?? Buffer.alloc(0);
  return internetChecksum(pseudo, segment);
}

function typeFor(given: number | undefined, inner: Layer | undefined, body: Buffer): number {
  if (given !== undefined) return given;
  if (inner?.etherType === "length") return body.length;
  return inner?.etherType ?? ETHER_TYPE.experimental;
}

function vnetOf(vnet: string | Uint8Array): Buffer {
  return typeof vnet === "string" ? vnetBytes(vnet) : Buffer.from(vnet);
}

export class PacketBuilder {
  private readonly layers: readonly Layer[];

  constructor(layers: readonly Layer[] = []) {
    this.layers = layers;
  }

  private with(layer: Layer): PacketBuilder {
    return new PacketBuilder([...this.layers, layer]);
  }

  eth(options: EthOptions = {}): PacketBuilder {
    return this.with({
      encode(body, _outer, inner) {
        const header = Buffer.alloc(14);
        macBytes(options.dst ?? "02:00:00:00:00:02").copy(header, 0);
        macBytes(options.src ?? "02:00:00:00:00:01").copy(header, 6);
        header.writeUInt16BE(typeFor(options.type, inner, body), 12);
        return Buffer.concat([header, body]);
      },
    });
  }

  /** 802.1Q; give tpid 0x88a8 for the outer tag of QinQ */
  vlan(options: VlanOptions): PacketBuilder {
    return this.with({
      etherType: options.tpid ?? ETHER_TYPE.vlan,
      encode(body, _outer, inner) {
        const tag = Buffer.alloc(4);
        tag.writeUInt16BE(((options.priority ?? 0) << 13) | options.id, 0);
        tag.writeUInt16BE(typeFor(options.type, inner, body), 2);
        return Buffer.concat([tag, body]);
      },
    });
  }

  /** 802.2 LLC, UI frame */
  llc(sap = 0x42): PacketBuilder {
    return this.with({
      etherType: "length",
      encode: (body) => Buffer.concat([Buffer.from([sap, sap, 0x03]), body]),
    });
  }

  /** an 802.1D configuration BPDU, to follow llc(0x42) */
  stp(bridgeMac = "02:00:00:00:00:01"): PacketBuilder {
    return this.with({
      encode(body) {
        const bpdu = Buffer.alloc(35);
        macBytes(bridgeMac).copy(bpdu, 7);
        bpdu.writeUInt16BE(0x8000, 5);
        bpdu.writeUInt16BE(0x8000, 17);
        macBytes(bridgeMac).copy(bpdu, 19);
        bpdu.writeUInt16BE(0x8001, 25);
        bpdu.writeUInt16BE(20 << 8, 29);
        bpdu.writeUInt16BE(2 << 8, 31);
        bpdu.writeUInt16BE(15 << 8, 33);
        return Buffer.concat([bpdu, body]);
      },
    });
  }

  arp(options: ArpOptions = {}): PacketBuilder {
    return this.with({
      etherType: ETHER_TYPE.arp,
      encode(body) {
        const arp = Buffer.alloc(28);
        arp.writeUInt16BE(1, 0);
        arp.writeUInt16BE(ETHER_TYPE.ipv4, 2);
        arp[4] = 6;
        arp[5] = 4;
        arp.writeUInt16BE(options.operation ?? 1, 6);
        macBytes(options.senderMac ?? "02:00:00:00:00:01").copy(arp, 8);
        ipv4Bytes(options.senderIp ?? "192.168.4.1").copy(arp, 14);
        macBytes(options.targetMac ?? "00:00:00:00:00:00").copy(arp, 18);
        ipv4Bytes(options.targetIp ?? "192.168.4.2").copy(arp, 24);
        return Buffer.concat([arp, body]);
      },
    });
  }

  ipv4(options: Ipv4Options = {}): PacketBuilder {
    const src = ipv4Bytes(options.src ?? "192.168.4.1");
    const dst = ipv4Bytes(options.dst ?? "192.168.4.2");
    return this.with({
      etherType: ETHER_TYPE.ipv4,
      pseudoHeader(protocol, length) {
        return Buffer.concat([src, dst, Buffer.from([0, protocol, length >> 8, length & 0xff])]);
      },
      encode(body, _outer, inner) {
        const extra = Buffer.from(options.options ?? []);
        const header = Buffer.concat([Buffer.alloc(20), extra]);
        const words = options.headerWords ?? header.length / 4;
        header[0] = ((options.version ?? 4) << 4) | words;
        header[1] = options.tos ?? 0;
        header.writeUInt16BE(options.totalLength ?? header.length + body.length, 2);
        header.writeUInt16BE(options.id ?? 0, 4);
        header.writeUInt16BE(
          (options.dontFragment ? 0x4000 : 0) |
            (options.moreFragments ? 0x2000 : 0) |
            ((options.fragmentOffset ?? 0) / 8),
          6,
        );
        header[8] = options.ttl ?? 64;
        header[9] = options.protocol ?? inner?.protocol ?? 253;
        src.copy(header, 12);
        dst.copy(header, 16);
        header.writeUInt16BE(options.checksum ?? internetChecksum(header), 10);
        return Buffer.concat([header, body]);
      },
    });
  }

  ipv6(options: Ipv6Options = {}): PacketBuilder {
    const src = ipv6Bytes(options.src ?? "fd00::1");
    const dst = ipv6Bytes(options.dst ?? "fd00::2");
    return this.with({
      etherType: ETHER_TYPE.ipv6,
      pseudoHeader(protocol, length) {
        const tail = Buffer.alloc(8);
        tail.writeUInt32BE(length, 0);
        tail[7] = protocol;
        return Buffer.concat([src, dst, tail]);
      },
      encode(body, _outer, inner) {
        const header = Buffer.alloc(40);
        header[0] = 0x60;
        header.writeUInt16BE(options.payloadLength ?? body.length, 4);
        const protocol = inner?.protocol === IP_PROTOCOL.icmp ? IP_PROTOCOL.icmp6 : inner?.protocol;
        header[6] = options.nextHeader ?? protocol ?? 59;
        header[7] = options.hopLimit ?? 64;
        src.copy(header, 8);
        dst.copy(header, 24);
        return Buffer.concat([header, body]);
      },
    });
  }

  udp(options: UdpOptions = {}): PacketBuilder {
    return this.with({
      protocol: IP_PROTOCOL.udp,
      encode(body, outer) {
        const segment = Buffer.concat([Buffer.alloc(8), body]);
        segment.writeUInt16BE(options.src ?? VNETD_PORT, 0);
        segment.writeUInt16BE(options.dst ?? VNETD_PORT, 2);
        segment.writeUInt16BE(options.length ?? segment.length, 4);
        const sum = transportChecksum(options.checksum, outer, IP_PROTOCOL.udp, segment);
        // RFC 768: a sum of zero is sent as all ones; zero means none
        segment.writeUInt16BE(options.checksum === undefined && sum === 0 ? 0xffff : sum, 6);
        return segment;
      },
    });
  }

  tcp(options: TcpOptions = {}): PacketBuilder {
    return this.with({
      protocol: IP_PROTOCOL.tcp,
      encode(body, outer) {
        const segment = Buffer.concat([Buffer.alloc(20), body]);
        segment.writeUInt16BE(options.src ?? 40000, 0);
        segment.writeUInt16BE(options.dst ?? 5001, 2);
        segment.writeUInt32BE(options.sequence ?? 1, 4);
        segment.writeUInt32BE(options.acknowledgement ?? 0, 8);
        segment[12] = 5 << 4;
        segment[13] = options.flags ?? 0x10;
        segment.writeUInt16BE(options.window ?? 65535, 14);
        const sum = transportChecksum(options.checksum, outer, IP_PROTOCOL.tcp, segment);
        segment.writeUInt16BE(sum, 16);
        return segment;
      },
    });
  }

  /** ICMP echo after ipv4(), ICMPv6 echo after ipv6() */
  icmpEcho(options: IcmpEchoOptions = {}): PacketBuilder {
    return this.with({
      protocol: IP_PROTOCOL.icmp,
      encode(body, outer) {
        const isV6 = outer?.etherType === ETHER_TYPE.ipv6;
        const segment = Buffer.concat([Buffer.alloc(8), body]);
        segment[0] = isV6 ? (options.reply ? 129 : 128) : options.reply ? 0 : 8;
        segment.writeUInt16BE(options.id ?? 1, 4);
        segment.writeUInt16BE(options.sequence ?? 1, 6);
        const sum = isV6
          ? transportChecksum(options.checksum, outer, IP_PROTOCOL.icmp6, segment)
          : (options.checksum ?? internetChecksum(segment));
        segment.writeUInt16BE(sum, 2);
        return segment;
      },
    });
  }

  /** neighbour discovery, after ipv6() */
  neighbour(options: NeighbourOptions): PacketBuilder {
    return this.with({
      protocol: IP_PROTOCOL.icmp6,
      encode(body, outer) {
        const head = Buffer.alloc(8);
        head[0] = options.type;
        head[1] = options.code ?? 0;
        head[4] = options.flags ?? 0;
        const extra = (options.options ?? []).map(({ type, bytes, units }) =>
          Buffer.concat([Buffer.from([type, units ?? (bytes.length + 2) / 8]), bytes]),
        );
        const message = Buffer.concat([head, ipv6Bytes(options.target), ...extra, body]);
        const sum = transportChecksum(options.checksum, outer, IP_PROTOCOL.icmp6, message);
        message.writeUInt16BE(sum, 2);
        return message;
      },
    });
  }

  vudp(options: VudpOptions): PacketBuilder {
    return this.with({
      encode(body) {
        const header = Buffer.alloc(6);
        header.writeUInt16BE(2, 0);
        header.writeUInt16BE(options.opcode ?? 0, 2);
        header.set(options.version ?? [0x00, 0x40], 4);
        return Buffer.concat([header, vnetOf(options.vnet), body]);
      },
    });
  }

  /** operation 1 request, 2 announce (the default) */
  varp(options: VarpOptions): PacketBuilder {
    return this.with({
      encode(body) {
        const head = Buffer.alloc(4);
        head.writeUInt16BE(1, 0);
        head.writeUInt16BE(options.operation ?? 2, 2);
        const { address = "0.0.0.0" } = options;
        const raw = typeof address === "string" ? ipv4Bytes(address) : Buffer.from(address);
        const careOf = Buffer.concat([raw, Buffer.alloc(16)], 16);
        const family = Buffer.from([options.family ?? 2]);
        return Buffer.concat([
          head,
          vnetOf(options.vnet),
          macBytes(options.vmac),
          family,
          careOf,
          body,
        ]);
      },
    });
  }

  /** the hello extension, to follow varp() */
  extension(options: ExtensionOptions = {}): PacketBuilder {
    return this.with({
      encode(body) {
        const tlvs = (options.tlvs ?? []).map((tlv) => {
          const header = Buffer.alloc(4);
          header.writeUInt16BE(tlv.type, 0);
          header.writeUInt16BE(tlv.length ?? tlv.value.length, 2);
          return Buffer.concat([header, tlv.value]);
        });
        const value = Buffer.concat(tlvs);
        const header = Buffer.alloc(8);
        header.writeUInt32BE(options.magic ?? 0x564e5444, 0);
        header[4] = options.version ?? 1;
        header.writeUInt16BE(options.length ?? value.length, 6);
        return Buffer.concat([header, value, body]);
      },
    });
  }

  /** the message header, and the inner IPv4 and UDP headers as an original writes them */
  vfwd(options: VfwdOptions = {}): PacketBuilder {
    const { opcode = 0, source = "0.0.0.0", group = VNETD_GROUP, relayed = false } = options;
    const { ipId: id = 0 } = options;
    const zeroed = relayed ? { version: 0, headerWords: 0, totalLength: 0, ttl: 0 } : {};
    return this.with({
      encode: (body) => Buffer.concat([Buffer.from([0, 3, opcode >> 8, opcode & 0xff]), body]),
    })
      .ipv4({ src: source, dst: group, checksum: 0, id, ...zeroed })
      .udp({ checksum: 0, ...(relayed ? { length: 0 } : {}) });
  }

  /** raw bytes, text, or that many bytes counting up from 0 */
  payload(content: Uint8Array | string | number): PacketBuilder {
    const bytes =
      typeof content === "number"
        ? Buffer.from(Array.from({ length: content }, (_, i) => i & 0xff))
        : Buffer.from(content as Uint8Array);
    return this.with({ encode: (body) => Buffer.concat([bytes, body]) });
  }

  build(): Buffer {
    let body: Buffer = Buffer.alloc(0);
    for (let i = this.layers.length - 1; i >= 0; i--) {
      body = this.layers[i]!.encode(body, this.layers[i - 1], this.layers[i + 1]);
    }
    return body;
  }
}

export function packet(): PacketBuilder {
  return new PacketBuilder();
}

/** Cuts an Ethernet/IPv4 packet into fragments of at most mtuBytes, as a router would. */
export function fragmentIpv4(frame: Uint8Array, mtuBytes: number): Buffer[] {
  const bytes = Buffer.from(frame);
  const headerLength = (bytes[14]! & 0x0f) * 4;
  const ethernet = bytes.subarray(0, 14);
  const header = bytes.subarray(14, 14 + headerLength);
  const body = bytes.subarray(14 + headerLength, 14 + bytes.readUInt16BE(16));
  const step = Math.floor((mtuBytes - headerLength) / 8) * 8;
  const fragments: Buffer[] = [];
  for (let at = 0; at < body.length; at += step) {
    const part = body.subarray(at, at + step);
    const cut = Buffer.from(header);
    cut.writeUInt16BE(headerLength + part.length, 2);
    cut.writeUInt16BE((at + part.length < body.length ? 0x2000 : 0) | (at / 8), 6);
    cut.writeUInt16BE(0, 10);
    cut.writeUInt16BE(internetChecksum(cut), 10);
    fragments.push(Buffer.concat([ethernet, cut, part]));
  }
  return fragments;
}
