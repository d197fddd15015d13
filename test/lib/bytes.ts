// SPDX-License-Identifier: Apache-2.0
/**
 * Text <-> bytes for tests: addresses, vnet ids, the Internet checksum, hexdumps and byte diffs.
 *
 * Written apart from src/ on purpose: a test that encodes with the code under test proves little.
 */

/** "aa:00:00:00:04:01" -> 6 bytes */
export function macBytes(text: string): Buffer {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) throw new Error(`not a MAC: ${text}`);
  return Buffer.from(text.replaceAll(":", ""), "hex");
}

export function macText(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex").match(/../g)!.join(":");
}

/** "10.66.1.9" -> 4 bytes */
export function ipv4Bytes(text: string): Buffer {
  const parts = text.split(".").map(Number);
  if (parts.length !== 4 || parts.some((p) => !Number.isInteger(p) || p < 0 || p > 255)) {
    throw new Error(`not an IPv4 address: ${text}`);
  }
  return Buffer.from(parts);
}

export function ipv4Text(bytes: Uint8Array): string {
  return [...bytes.subarray(0, 4)].join(".");
}

/** "fd00::1" -> 16 bytes; no embedded IPv4 form, no zone */
export function ipv6Bytes(text: string): Buffer {
  const [head = "", tail] = text.split("::");
  const fields = (part: string): number[] =>
    part === "" ? [] : part.split(":").map((f) => parseInt(f, 16));
  const left = fields(head);
  const right = tail === undefined ? [] : fields(tail);
  const gap = tail === undefined ? [] : new Array<number>(8 - left.length - right.length).fill(0);
  const all = [...left, ...gap, ...right];
  if (all.length !== 8 || all.some((f) => !(f >= 0 && f <= 0xffff))) {
    throw new Error(`not an IPv6 address: ${text}`);
  }
  const out = Buffer.alloc(16);
  all.forEach((field, i) => out.writeUInt16BE(field, 2 * i));
  return out;
}

/** 16 bytes, every field in full: for comparing, not for people */
export function ipv6Text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex").match(/..../g)!.join(":");
}

/** "10.0.0.1" -> the 16 bytes of ::ffff:10.0.0.1, as addresses stand in the BPF maps */
export function mappedBytes(ipv4: string): Buffer {
  return Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), ipv4Bytes(ipv4)]);
}

/** "97" or "0:0:0:0:0:0:0:97" (always hex) -> 16 bytes; zero and 1 are allowed here */
export function vnetBytes(text: string): Buffer {
  const fields = text.split(":");
  const full = fields.length === 1 ? [...new Array<string>(7).fill("0"), fields[0]!] : fields;
  if (full.length !== 8 || full.some((f) => !/^[0-9a-f]{1,4}$/i.test(f))) {
    throw new Error(`not a vnet id: ${text}`);
  }
  return Buffer.from(full.map((f) => f.padStart(4, "0")).join(""), "hex");
}

/** canonical long form */
export function vnetText(bytes: Uint8Array): string {
  return ipv6Text(bytes);
}

/** RFC 1071: the ones' complement sum of all parts, complemented; odd parts only at the end */
export function internetChecksum(...parts: Uint8Array[]): number {
  const all = Buffer.concat(parts);
  let sum = 0;
  for (let i = 0; i + 1 < all.length; i += 2) sum += all.readUInt16BE(i);
  if (all.length % 2 === 1) sum += all[all.length - 1]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** true when the bytes, their checksum field included, sum to all ones */
export function checksumHolds(...parts: Uint8Array[]): boolean {
  return internetChecksum(...parts) === 0;
}

/** "00 02 00 00 | ab cd" -> bytes; white space and bars are for the reader */
export function hex(text: string): Buffer {
  const digits = text.replace(/[\s|:]/g, "");
  if (digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) throw new Error(`not hex: ${text}`);
  return Buffer.from(digits, "hex");
}

export function hexdump(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = Buffer.from(bytes.subarray(at, at + 16));
    lines.push(`${at.toString(16).padStart(4, "0")}  ${row.toString("hex").replace(/../g, "$& ")}`);
  }
  return lines.join("\n");
}

/** bytes that may differ: [from, to) */
export type ByteRange = readonly [from: number, to: number];

/**
 * Throws when the two differ outside of `free`, showing each row of 16 bytes that differs, with
 * the differing columns marked. Nothing is returned: use it as an assertion.
 */
export function expectBytes(
  actual: Uint8Array,
  expected: Uint8Array,
  options: { what?: string; free?: readonly ByteRange[] } = {},
): void {
  const isFree = (i: number): boolean =>
    (options.free ?? []).some(([from, to]) => i >= from && i < to);
  const length = Math.max(actual.length, expected.length);
  const rows: string[] = [];
  for (let at = 0; at < length; at += 16) {
    const columns = [...Array(Math.min(16, length - at)).keys()].map((k) => at + k);
    const differs = (i: number): boolean => actual[i] !== expected[i] && !isFree(i);
    if (!columns.some(differs)) continue;
    const show = (bytes: Uint8Array): string =>
      columns.map((i) => bytes[i]?.toString(16).padStart(2, "0") ?? "--").join(" ");
    rows.push(
      `${at.toString(16).padStart(4, "0")} expected ${show(expected)}`,
      `     got      ${show(actual)}`,
      `              ${columns.map((i) => (differs(i) ? "^^" : "  ")).join(" ")}`,
    );
  }
  if (rows.length === 0) return;
  const lengths =
    actual.length === expected.length
      ? ""
      : ` (${actual.length} bytes, expected ${expected.length})`;
  throw new Error(`${options.what ?? "bytes"} differ${lengths}\n${rows.join("\n")}`);
}
