// SPDX-License-Identifier: Apache-2.0
/**
 * Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian: one section, one interface of Ethernet frames,
 * times in nanoseconds.
 */
const blocks = { section: 0x0a0d0d0a, interface: 1, statistics: 5, packet: 6 } as const;
const byteOrder = 0x1a2b3c4d;
const linkTypeEthernet = 1;
const options = { end: 0, comment: 1, name: 2, flags: 2, application: 4, resolution: 9 } as const;
const statistics = { received: 4, lost: 7 } as const;
const nanoseconds = 9;
const directions = { in: 1, out: 2 } as const;

export interface InterfaceName {
  name: string;
  snapBytes: number;
  /** that writes the file */
  application: string;
}

export interface PacketBlock {
  timeNs: bigint;
  data: Uint8Array;
  /** before it was cut */
  length: number;
  direction: keyof typeof directions;
  comment?: string;
}

/** What a file begins with. */
export function pcapngStart({ name, snapBytes, application }: InterfaceName): Buffer {
  const section = Buffer.alloc(16);
  section.writeUInt32LE(byteOrder, 0);
  section.writeUInt16LE(1, 4);
  // of a length that is not known
  section.fill(0xff, 8);
  const device = Buffer.alloc(8);
  device.writeUInt16LE(linkTypeEthernet, 0);
  device.writeUInt32LE(snapBytes, 4);
  return Buffer.concat([
    block(blocks.section, [section, option(options.application, Buffer.from(application)), end]),
    block(blocks.interface, [
      device,
      option(options.name, Buffer.from(name)),
      option(options.resolution, Buffer.of(nanoseconds)),
      end,
    ]),
  ]);
}

export function pcapngPacket({ timeNs, data, length, direction, comment }: PacketBlock): Buffer {
  const head = Buffer.alloc(20);
  writeTime(head, 4, timeNs);
  head.writeUInt32LE(data.length, 12);
  head.writeUInt32LE(length, 16);
  const flags = Buffer.alloc(4);
  flags.writeUInt32LE(directions[direction]);
  return block(blocks.packet, [
    head,
    padded(data),
    ...(comment === undefined ? [] : [option(options.comment, Buffer.from(comment))]),
    option(options.flags, flags),
    end,
  ]);
}

/** What it ends with: how many frames there were, and how many were lost before they were in the file. */
export function pcapngEnd(timeNs: bigint, counts: { received: number; lost: number }): Buffer {
  const head = Buffer.alloc(12);
  writeTime(head, 4, timeNs);
  return block(blocks.statistics, [
    head,
    option(statistics.received, u64(counts.received)),
    option(statistics.lost, u64(counts.lost)),
    end,
  ]);
}

function writeTime(head: Buffer, at: number, timeNs: bigint): void {
  head.writeUInt32LE(Number(timeNs >> 32n), at);
  head.writeUInt32LE(Number(timeNs & 0xffffffffn), at + 4);
}

const end = Buffer.alloc(4);

function option(code: number, value: Uint8Array): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

function block(type: number, parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(12 + body.length);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(type);
  return Buffer.concat([head, length, body, length]);
}

function padded(value: Uint8Array): Buffer {
  return Buffer.concat([value, Buffer.alloc((4 - (value.length % 4)) % 4)]);
}

function u64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}
