// SPDX-License-Identifier: Apache-2.0
/**
 * The hello extension: what hosts of ours say about themselves behind the 43 bytes of a VARP
 * announce of their vnetif's own MAC.
 *
 * Wire: include/vnetd/wire.h, docs/wire-format.md. Rules of reading, so that later versions can
 * say more: an unknown magic or version means "no hello here", a TLV of an unknown type is skipped,
 * of a TLV that comes twice the first counts, and a TLV whose length does not fit makes the whole
 * extension malformed. Decoding returns a reason and never throws.
 *
 * The same extension carries the messages by which two hosts of a secure vnet agree on keys (keyMessageOf);
 * and a secure vnet's hello ends with marks of who shares its key, which src/keys/hello-auth.ts makes and judges.
 */
import { addressToText, parseAddress } from "../base/address.js";
import {
  VnetdAsk,
  VnetdExtHdr,
  decodeVnetdExtHdr,
  decodeVnetdTlvHdr,
  encodeVnetdTlvHdr,
  vnetdExt,
  vnetdTlvType,
  writeVnetdExtHdr,
} from "../generated/layouts.js";
import { vnetGroupOf, type VnetGroups } from "../base/vnet-group.js";
import type { VarpOpcode } from "./varp.js";

export interface Hello {
  /** 32 hex digits */
  hostId: string;
  /** 16 hex digits */
  bootNonce: string;
  capabilities: number;
  /** of the device that the message left by; 0: not said */
  underlayMtuBytes: number;
  hostName: string;
  software: string;
  solicit: boolean;
  goodbye: boolean;
  /** of the sender; left out when it has none */
  peers?: HelloPeers;
  /** of all vnets that it is of; left out when they have none */
  groups?: VnetGroups;
  /** of a secure vnet, one for each key that the sender takes, the one that it begins with first;
   * not written by encodeHello (signHello does), and nothing of it is authentic yet */
  auth?: HelloAuth[];
}

export interface HelloAuth {
  suiteId: number;
  /** 16 hex digits */
  keyId: string;
  /** 16 bytes */
  mac: Buffer;
}

export interface HelloPeers {
  /** of the sender's subnet */
  prefixLength: number;
  /** it has more peers than can be said, and names none */
  more: boolean;
  /** canonical texts */
  addresses: string[];
}

export type HelloReason =
  | "absent"
  | "other_magic"
  | "other_version"
  | "truncated"
  | "bad_tlv_length"
  | "no_host_id"
  /** something stands behind what vouches for the hello */
  | "auth_not_last"
  /** not a hello: keyMessageOf() reads it */
  | "key_message"
  /** not a hello: src/wire/varp-list.ts reads it */
  | "mac_list";

export type HelloDecoded = { ok: true; hello: Hello } | { ok: false; reason: HelloReason };

/** What a VARP message is for. */
export const varpKinds = ["request", "announce", "hello", "goodbye", "keys"] as const;
export type VarpKind = (typeof varpKinds)[number];

/** as many as always fit into VNETD_VARP_MAX_LEN */
export const maxHelloPeers = 12;
const addressBytes = 16;
/** of IPv4, and both */
const ipv4Bytes = 4;
const groupBytes = ipv4Bytes + addressBytes;
/** in the place of their number: too many to be said */
const morePeers = 0xff;
const maxNameBytes = 63;
const maxSoftwareBytes = 31;
const keyIdBytes = 8;
export const helloMacBytes = 16;
/** of TLV_AUTH: suite, three of zero, key id, mac */
const authMacAt = 4 + keyIdBytes;
export const authTlvBytes = vnetdExt.TLV_HDR_LEN + authMacAt + helloMacBytes;
/** of a message about keys; the longest that there is has 136 */
const keyMessageBytes: [number, number] = [1, 256];
type Tlvs = Map<number, Buffer>;

interface Tlv {
  type: number;
  value: Buffer;
}

/** type -> the lengths that its value may have */
const lengths = new Map<number, [number, number]>([
  [vnetdTlvType.TLV_HOST_ID, [16, 16]],
  [vnetdTlvType.TLV_BOOT_NONCE, [8, 8]],
  [vnetdTlvType.TLV_CAPABILITIES, [4, 4]],
  [vnetdTlvType.TLV_UNDERLAY_MTU, [2, 2]],
  [vnetdTlvType.TLV_HOST_NAME, [1, maxNameBytes]],
  [vnetdTlvType.TLV_SOFTWARE, [1, maxSoftwareBytes]],
  [vnetdTlvType.TLV_SOLICIT, [0, 0]],
  [vnetdTlvType.TLV_GOODBYE, [0, 0]],
  [vnetdTlvType.TLV_VNETS, [0, vnetdExt.VARP_MAX_LEN]],
  [vnetdTlvType.TLV_MACS, [0, vnetdExt.VARP_MAX_LEN]],
  [vnetdTlvType.TLV_GROUP, [groupBytes, groupBytes]],
  [vnetdTlvType.TLV_PEERS, [2, 2 + maxHelloPeers * addressBytes]],
  [vnetdTlvType.TLV_KEYS, keyMessageBytes],
  [vnetdTlvType.TLV_AUTH, [authMacAt + helloMacBytes, authMacAt + helloMacBytes]],
  [vnetdTlvType.TLV_ASK, [VnetdAsk.size, VnetdAsk.size]],
]);

export function encodeHello(hello: Hello): Buffer {
  const tlvs = [
    encodeTlv(vnetdTlvType.TLV_HOST_ID, Buffer.from(hello.hostId, "hex")),
    encodeTlv(vnetdTlvType.TLV_BOOT_NONCE, Buffer.from(hello.bootNonce, "hex")),
    encodeTlv(vnetdTlvType.TLV_CAPABILITIES, u32(hello.capabilities)),
  ];
  if (hello.underlayMtuBytes > 0) {
    tlvs.push(encodeTlv(vnetdTlvType.TLV_UNDERLAY_MTU, u16(hello.underlayMtuBytes)));
  }
  const name = cutUtf8(hello.hostName, maxNameBytes);
  if (name.length > 0) tlvs.push(encodeTlv(vnetdTlvType.TLV_HOST_NAME, name));
  const software = Buffer.from(asciiOnly(hello.software)).subarray(0, maxSoftwareBytes);
  if (software.length > 0) tlvs.push(encodeTlv(vnetdTlvType.TLV_SOFTWARE, software));
  if (hello.solicit) tlvs.push(encodeTlv(vnetdTlvType.TLV_SOLICIT, Buffer.alloc(0)));
  if (hello.goodbye) tlvs.push(encodeTlv(vnetdTlvType.TLV_GOODBYE, Buffer.alloc(0)));
  if (hello.peers !== undefined)
    tlvs.push(encodeTlv(vnetdTlvType.TLV_PEERS, encodePeers(hello.peers)));
  const { groups } = hello;
  if (groups?.group !== undefined || groups?.group6 !== undefined)
    tlvs.push(encodeTlv(vnetdTlvType.TLV_GROUP, encodeGroups(groups)));
  return extensionOf(Buffer.concat(tlvs));
}

/** The extension around a message about keys, which goes to one host and is no hello. */
export function encodeKeyMessage(message: Buffer): Buffer {
  return encodeOne(vnetdTlvType.TLV_KEYS, message);
}

/** Longer by `tlvs`, which go behind its last one. */
export function extendedBy(trailing: Buffer, tlvs: readonly Buffer[]): Buffer {
  const body = trailing.subarray(VnetdExtHdr.size);
  return extensionOf(Buffer.concat([body, ...tlvs]));
}

/** With a mac of zero, which is put in when all of the message is known. */
export function encodeAuth(suiteId: number, keyId: string): Buffer {
  const value = Buffer.alloc(authMacAt + helloMacBytes);
  value.writeUInt8(suiteId, 0);
  value.write(keyId, 4, "hex");
  return encodeTlv(vnetdTlvType.TLV_AUTH, value);
}

function extensionOf(body: Buffer): Buffer {
  const header = Buffer.alloc(VnetdExtHdr.size);
  writeVnetdExtHdr(header, {
    magic: vnetdExt.EXT_MAGIC,
    version: vnetdExt.EXT_VERSION,
    flags: 0,
    len: body.length,
  });
  return Buffer.concat([header, body]);
}

/** Where the extension ends: behind it stands nothing that is read. */
export function extensionEnd(trailing: Buffer): number {
  return VnetdExtHdr.size + decodeVnetdExtHdr(trailing).len;
}

export function decodeHello(trailing: Buffer): HelloDecoded {
  const read = readExtension(trailing);
  if (typeof read === "string") return { ok: false, reason: read };
  const tlvs = firstOfEach(read);
  if (tlvs.has(vnetdTlvType.TLV_KEYS)) return { ok: false, reason: "key_message" };
  if (tlvs.has(vnetdTlvType.TLV_MACS)) return { ok: false, reason: "mac_list" };
  const hostId = tlvs.get(vnetdTlvType.TLV_HOST_ID);
  const bootNonce = tlvs.get(vnetdTlvType.TLV_BOOT_NONCE);
  if (hostId === undefined || bootNonce === undefined) return { ok: false, reason: "no_host_id" };
  const auth = authOf(read);
  if (auth === undefined) return { ok: false, reason: "auth_not_last" };
  const hello = helloOf(hostId, bootNonce, tlvs);
  return { ok: true, hello: auth.length === 0 ? hello : { ...hello, auth } };
}

/** By opcode and what follows the 43 bytes; a malformed extension of ours is a hello's. */
export function varpKindOf(opcode: VarpOpcode, trailing: Uint8Array): VarpKind {
  if (opcode === "request" || trailing.length === 0) return opcode;
  const decoded = decodeHello(Buffer.from(trailing));
  if (decoded.ok) return decoded.hello.goodbye ? "goodbye" : "hello";
  if (decoded.reason === "key_message") return "keys";
  const others: readonly HelloReason[] = ["absent", "other_magic", "mac_list"];
  return others.includes(decoded.reason) ? "announce" : "hello";
}

/** The message about keys that the extension carries; undefined: it carries none, or is malformed. */
export function keyMessageOf(trailing: Buffer): Buffer | undefined {
  return tlvOf(trailing, vnetdTlvType.TLV_KEYS);
}

/** The value of the first TLV of a type; undefined: there is none, or the extension is malformed. */
export function tlvOf(trailing: Buffer, wanted: number): Buffer | undefined {
  const read = readExtension(trailing);
  if (typeof read === "string") return undefined;
  return read.find(({ type }) => type === wanted)?.value;
}

/** An extension of one TLV. */
export function encodeOne(type: number, value: Buffer): Buffer {
  return extensionOf(encodeTlv(type, value));
}

function readExtension(trailing: Buffer): Tlv[] | HelloReason {
  if (trailing.length < VnetdExtHdr.size) return "absent";
  const header = decodeVnetdExtHdr(trailing);
  if (header.magic !== vnetdExt.EXT_MAGIC) return "other_magic";
  if (header.version !== vnetdExt.EXT_VERSION) return "other_version";
  const body = trailing.subarray(VnetdExtHdr.size);
  if (body.length < header.len) return "truncated";
  return readTlvs(body.subarray(0, header.len)) ?? "bad_tlv_length";
}

function firstOfEach(tlvs: readonly Tlv[]): Tlvs {
  const found: Tlvs = new Map();
  for (const { type, value } of tlvs) if (!found.has(type)) found.set(type, value);
  return found;
}

/** undefined: one of another type stands behind the first, where no mac would cover it. */
function authOf(tlvs: readonly Tlv[]): HelloAuth[] | undefined {
  const isAuth = ({ type }: Tlv): boolean => type === vnetdTlvType.TLV_AUTH;
  const first = tlvs.findIndex(isAuth);
  if (first < 0) return [];
  const last = tlvs.slice(first);
  if (!last.every(isAuth)) return undefined;
  return last.map(({ value }) => ({
    suiteId: value.readUInt8(0),
    keyId: value.toString("hex", 4, authMacAt),
    mac: Buffer.from(value.subarray(authMacAt)),
  }));
}

function helloOf(hostId: Buffer, bootNonce: Buffer, tlvs: Tlvs): Hello {
  const name = tlvs.get(vnetdTlvType.TLV_HOST_NAME);
  const software = tlvs.get(vnetdTlvType.TLV_SOFTWARE);
  const peers = decodePeers(tlvs.get(vnetdTlvType.TLV_PEERS));
  const groups = decodeGroups(tlvs.get(vnetdTlvType.TLV_GROUP));
  return {
    ...(groups === undefined ? {} : { groups }),
    ...(peers === undefined ? {} : { peers }),
    hostId: hostId.toString("hex"),
    bootNonce: bootNonce.toString("hex"),
    capabilities: tlvs.get(vnetdTlvType.TLV_CAPABILITIES)?.readUInt32BE(0) ?? 0,
    underlayMtuBytes: tlvs.get(vnetdTlvType.TLV_UNDERLAY_MTU)?.readUInt16BE(0) ?? 0,
    hostName: printable(name?.toString("utf8") ?? ""),
    software: printable(software?.toString("latin1") ?? ""),
    solicit: tlvs.has(vnetdTlvType.TLV_SOLICIT),
    goodbye: tlvs.has(vnetdTlvType.TLV_GOODBYE),
  };
}

function encodePeers({ prefixLength, more, addresses }: HelloPeers): Buffer {
  if (more || addresses.length > maxHelloPeers) return Buffer.of(prefixLength, morePeers);
  const bytes = addresses.map((address) => parseAddress(address));
  return Buffer.concat([Uint8Array.of(prefixLength, addresses.length), ...bytes]);
}

/** A list that is not as long as it says is none. */
function decodePeers(value: Buffer | undefined): HelloPeers | undefined {
  if (value === undefined) return undefined;
  const [prefixLength = 0, count = 0] = value;
  if (count === morePeers) return { prefixLength, more: true, addresses: [] };
  if (value.length !== 2 + count * addressBytes || prefixLength > 128) return undefined;
  const addresses = Array.from({ length: count }, (_, at) =>
    addressToText(value.subarray(2 + at * addressBytes, 2 + (at + 1) * addressBytes)),
  );
  return { prefixLength, more: false, addresses };
}

function encodeGroups({ group, group6 }: VnetGroups): Buffer {
  const ipv4 = group === undefined ? Buffer.alloc(ipv4Bytes) : parseAddress(group).subarray(12);
  return Buffer.concat([ipv4, group6 === undefined ? Buffer.alloc(16) : parseAddress(group6)]);
}

/** What is no vnet's group is none. */
function decodeGroups(value: Buffer | undefined): VnetGroups | undefined {
  if (value === undefined) return undefined;
  const group = vnetGroupOf(value.subarray(0, ipv4Bytes).join("."), "group");
  const group6 = vnetGroupOf(addressToText(value.subarray(ipv4Bytes)), "group6");
  const groups = {
    ...("group" in group ? { group: group.group } : {}),
    ...("group" in group6 ? { group6: group6.group } : {}),
  };
  return Object.keys(groups).length === 0 ? undefined : groups;
}

function readTlvs(body: Buffer): Tlv[] | undefined {
  const tlvs: Tlv[] = [];
  let at = 0;
  while (at < body.length) {
    if (body.length - at < vnetdExt.TLV_HDR_LEN) return undefined;
    const { type, len } = decodeVnetdTlvHdr(body, at);
    at += vnetdExt.TLV_HDR_LEN;
    if (body.length - at < len) return undefined;
    const bounds = lengths.get(type);
    if (bounds !== undefined && (len < bounds[0] || len > bounds[1])) return undefined;
    tlvs.push({ type, value: body.subarray(at, at + len) });
    at += len;
  }
  return tlvs;
}

export function encodeTlv(type: number, value: Buffer): Buffer {
  return Buffer.concat([encodeVnetdTlvHdr({ type, len: value.length }), value]);
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value >>> 0);
  return out;
}

function u16(value: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(Math.min(value, 0xffff));
  return out;
}

/** At most `maxBytes` of the text, never half a character. */
function cutUtf8(text: string, maxBytes: number): Buffer {
  let out = Buffer.alloc(0);
  for (const character of text) {
    const next = Buffer.concat([out, Buffer.from(character, "utf8")]);
    if (next.length > maxBytes) break;
    out = next;
  }
  return out;
}

function asciiOnly(text: string): string {
  return text.replace(/[^\x20-\x7e]/gu, "?");
}

/** For people's terminals: control and format characters of a stranger are not passed on. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\ufffd]/gu, "?");
}
