// SPDX-License-Identifier: Apache-2.0
/**
 * The frames of the doctor's own test of offloads, as a packet socket gives and takes them: a struct virtio_net_hdr
 * (linux/virtio_net.h) and the frame. Pure.
 *
 * All are IPv4 behind made-up addresses, to a MAC that is nobody's. Their payload tells each byte's place.
 */

export const headerBytes = 10;
/** most that one read may give: a super-frame */
export const readBytes = 1 << 17;

const ethernetBytes = 14;
const ipBytes = 20;
const udpBytes = 8;
const tcpBytes = 20;
const needsChecksum = 1;
const gsoTcp4 = 1;
const protocols = { udp: 17, tcp: 6 } as const;
const source = "02766e657430";
const destination = "02766e657431";

export interface TestFrame {
  /** for people */
  what: string;
  protocol: keyof typeof protocols;
  payloadBytes: number;
  /** the checksum of UDP or TCP is left to the kernel (CHECKSUM_PARTIAL) */
  isPartial: boolean;
  /** of a super-frame: payload of each segment */
  segmentBytes?: number;
}

const largestPayloadBytes = 1400;
export const testFrames: readonly TestFrame[] = [
  { what: "a small frame", protocol: "udp", payloadBytes: 18, isPartial: false },
  { what: "a large frame", protocol: "udp", payloadBytes: largestPayloadBytes, isPartial: false },
  ...[18, 577, largestPayloadBytes].map((payloadBytes) => ({
    what: `a frame with ${String(payloadBytes)} bytes of UDP whose checksum is left to the device`,
    ...{ protocol: "udp" as const, payloadBytes, isPartial: true },
  })),
  {
    what: "a TCP super-frame",
    ...{ protocol: "tcp", payloadBytes: 20_000, isPartial: true, segmentBytes: 1380 },
  },
];

/** `number` tells the frames of one test apart. */
export function testFrame(spec: TestFrame, number: number): Buffer {
  const { protocol, payloadBytes, isPartial, segmentBytes } = spec;
  const transportBytes = protocol === "udp" ? udpBytes : tcpBytes;
  const frame = Buffer.alloc(ethernetBytes + ipBytes + transportBytes + payloadBytes);
  frame.write(destination + source, 0, "hex");
  frame.writeUInt16BE(0x0800, 12);
  const ip = frame.subarray(ethernetBytes, ethernetBytes + ipBytes);
  ip.writeUInt8(0x45, 0);
  ip.writeUInt16BE(frame.length - ethernetBytes, 2);
  ip.writeUInt16BE(number, 4);
  ip.writeUInt8(64, 8);
  ip.writeUInt8(protocols[protocol], 9);
  // RFC 5737
  ip.set([192, 0, 2, 1, 192, 0, 2, 2], 12);
  ip.writeUInt16BE(~sumOf(ip) & 0xffff, 10);
  const transport = frame.subarray(ethernetBytes + ipBytes);
  payloadAt(number, payloadBytes).copy(transport, transportBytes);
  transport.writeUInt16BE(5000, 0);
  transport.writeUInt16BE(5000 + number, 2);
  if (protocol === "udp") transport.writeUInt16BE(transport.length, 4);
  // TCP: ACK, and of a window; the first byte's number is 0
  else transport.set([0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff], 4);
  const at = checksumAt(protocol);
  const pseudo = pseudoSum(frame);
  const sum = isPartial ? pseudo : ~sumOf(transport, pseudo) & 0xffff || 0xffff;
  transport.writeUInt16BE(sum, at);
  const header = Buffer.alloc(headerBytes);
  if (isPartial) {
    header.writeUInt8(needsChecksum, 0);
    header.writeUInt16LE(ethernetBytes + ipBytes, 6);
    header.writeUInt16LE(at, 8);
  }
  if (segmentBytes !== undefined) {
    header.writeUInt8(gsoTcp4, 1);
    header.writeUInt16LE(ethernetBytes + ipBytes + tcpBytes, 2);
    header.writeUInt16LE(segmentBytes, 4);
  }
  return Buffer.concat([header, frame]);
}

/**
 * What came of one frame, in the order of arrival: undefined, it is right; "": not all is there yet; else what is wrong
 * with it.
 */
export function verdictOn(
  spec: TestFrame,
  number: number,
  arrived: readonly Buffer[],
): string | undefined {
  const transportBytes = spec.protocol === "udp" ? udpBytes : tcpBytes;
  const expected = payloadAt(number, spec.payloadBytes);
  const found = Buffer.alloc(spec.payloadBytes);
  let count = 0;
  for (const read of arrived) {
    const frame = completed(read);
    const wrong = headersWrong(spec, frame);
    if (wrong !== undefined) return wrong;
    const transport = transportOf(frame);
    const at = spec.protocol === "udp" ? 0 : transport.readUInt32BE(4);
    const payload = transport.subarray(transportBytes);
    if (at + payload.length > found.length) return "it came with more payload than it had";
    payload.copy(found, at);
    count += payload.length;
  }
  if (count < expected.length) return "";
  const differs = found.findIndex((byte, at) => byte !== expected[at]);
  if (count > expected.length) return "parts of it came twice";
  return differs < 0 ? undefined : `byte ${String(differs)} of its payload is another`;
}

/** Whether a read gives a frame of the test, and which. */
export function numberOf(read: Buffer): number | undefined {
  const least = headerBytes + ethernetBytes + ipBytes + udpBytes;
  if (read.length < least) return undefined;
  const frame = read.subarray(headerBytes);
  if (frame.toString("hex", 0, 12) !== destination + source) return undefined;
  // a segment has an IPv4 id of its own
  return transportOf(frame).readUInt16BE(2) - 5000;
}

function headersWrong({ protocol }: TestFrame, frame: Buffer): string | undefined {
  const ip = frame.subarray(ethernetBytes, ethernetBytes + ipBytes);
  if (frame.readUInt16BE(12) !== 0x0800 || ip.readUInt8(0) !== 0x45) return "its type is another";
  if (sumOf(ip) !== 0xffff) return "its IPv4 header's checksum is wrong";
  if (ip.readUInt8(9) !== protocols[protocol]) return "its protocol is another";
  const transport = transportOf(frame);
  if (sumOf(transport, pseudoSum(frame)) !== 0xffff) return `its ${protocol} checksum is wrong`;
  return undefined;
}

/** Without the header, and with the checksum that it says is still to be filled in. */
function completed(read: Buffer): Buffer {
  const frame = Buffer.from(read.subarray(headerBytes));
  if ((read.readUInt8(0) & needsChecksum) === 0) return frame;
  const start = read.readUInt16LE(6);
  const at = start + read.readUInt16LE(8);
  if (at + 2 > frame.length) return frame;
  const sum = ~sumOf(frame.subarray(start)) & 0xffff;
  frame.writeUInt16BE(sum === 0 ? 0xffff : sum, at);
  return frame;
}

/** What IP says that there is of it; a short frame may be padded. */
function transportOf(frame: Buffer): Buffer {
  const end = ethernetBytes + frame.readUInt16BE(ethernetBytes + 2);
  return frame.subarray(ethernetBytes + ipBytes, Math.max(end, ethernetBytes + ipBytes + udpBytes));
}

const checksumAt = (protocol: keyof typeof protocols): number => (protocol === "udp" ? 6 : 16);

/** Of the addresses, the protocol and the length, as the kernel wants it in the place of a checksum that it fills in. */
function pseudoSum(frame: Buffer): number {
  const pseudo = Buffer.alloc(12);
  frame.copy(pseudo, 0, ethernetBytes + 12, ethernetBytes + 20);
  pseudo.writeUInt8(frame.readUInt8(ethernetBytes + 9), 9);
  pseudo.writeUInt16BE(frame.readUInt16BE(ethernetBytes + 2) - ipBytes, 10);
  return sumOf(pseudo);
}

function payloadAt(number: number, bytes: number): Buffer {
  return Buffer.from(
    Array.from({ length: bytes }, (_, at) => (at + (at >> 8) + number * 7) & 0xff),
  );
}

/** RFC 1071; 0xffff of what holds its own right checksum. */
function sumOf(bytes: Buffer, start = 0): number {
  let sum = start;
  for (let at = 0; at + 1 < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  if (bytes.length % 2 === 1) sum += bytes.readUInt8(bytes.length - 1) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}
