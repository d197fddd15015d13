// SPDX-License-Identifier: Apache-2.0
/**
 * The messages by which two hosts of a vnet agree on keys, byte by byte (docs/security.md). Pure.
 *
 *     0        1      2       3          4        12       28         44            52       -16
 *     | version | type | suite | reserved | key id | sender | receiver | exchange id | body … | mac |
 *
 * All but the bodies of Noise is in clear and authenticated: the mac, HMAC-SHA256 by a key that only members of the
 * vnet can have, is over everything in front of it. It is checked first, costs one hash, and needs no state.
 */
import { createHmac, hkdfSync, timingSafeEqual, type KeyObject } from "node:crypto";
import { keyIdBytes } from "../base/vnet-key.js";
import { dhBytes, tagBytes } from "./noise.js";

export const messageVersion = 1;
export const hostIdBytes = 16;
export const vnetIdBytes = 16;
export const challengeBytes = 16;
export const exchangeIdBytes = 8;
export const headerBytes = 52;
export const macBytes = 16;
const spiBytes = 4;

export const messageTypes = {
  init: 1,
  response: 2,
  confirm: 3,
  ack: 4,
  done: 5,
  retry: 6,
  refuse: 7,
} as const;
export type MessageType = keyof typeof messageTypes;

/** why a message is refused, to those who share the key */
export const refusals = { suite: 1, unknownExchange: 2 } as const;

const noiseBytes = dhBytes + spiBytes + tagBytes;
const bodyBytes: Readonly<Record<MessageType, number>> = {
  init: challengeBytes + noiseBytes,
  response: noiseBytes,
  confirm: tagBytes,
  ack: tagBytes,
  done: tagBytes,
  retry: challengeBytes,
  refuse: 1,
};

export interface Header {
  type: MessageType;
  suiteId: number;
  /** 16 hex digits */
  keyId: string;
  sender: Buffer;
  receiver: Buffer;
  exchangeId: Buffer;
}

export interface Message extends Header {
  body: Buffer;
  /** all of it, the mac included */
  bytes: Buffer;
}

/** What members of one vnet have from its secret. */
export interface VnetSecrets {
  keyId: string;
  psk: Buffer;
  macKey: Buffer;
}

const pskLabel = "vnetd noise psk 1";
const macLabel = "vnetd message mac 1";

/** Bound to the vnet: two vnets with one key file have different ones. */
export function secretsOf(keyId: string, secret: KeyObject, vnet: Uint8Array): VnetSecrets {
  const derive = (text: string): Buffer => {
    const info = Buffer.concat([Buffer.from(text, "ascii"), vnet]);
    return Buffer.from(hkdfSync("sha256", secret, Buffer.alloc(0), info, 32));
  };
  return { keyId, psk: derive(pskLabel), macKey: derive(macLabel) };
}

function macOf(macKey: Uint8Array, bytes: Uint8Array): Buffer {
  return createHmac("sha256", macKey).update(bytes).digest().subarray(0, macBytes);
}

export function headerOf(header: Header): Buffer {
  const bytes = Buffer.alloc(headerBytes);
  bytes.writeUInt8(messageVersion, 0);
  bytes.writeUInt8(messageTypes[header.type], 1);
  bytes.writeUInt8(header.suiteId, 2);
  bytes.write(header.keyId, 4, "hex");
  bytes.set(header.sender, 12);
  bytes.set(header.receiver, 28);
  bytes.set(header.exchangeId, 44);
  return bytes;
}

export function encodeMessage(header: Header, body: Uint8Array, macKey: Uint8Array): Buffer {
  const front = Buffer.concat([headerOf(header), body]);
  return Buffer.concat([front, macOf(macKey, front)]);
}

/** undefined: it has not the form of one. Nothing of it is authentic yet. */
export function decodeMessage(bytes: Buffer): Message | undefined {
  if (bytes.length < headerBytes + macBytes || bytes[0] !== messageVersion) return undefined;
  const found = Object.entries(messageTypes).find(([, number]) => number === bytes[1]);
  if (found === undefined) return undefined;
  const type = found[0] as MessageType;
  if (bytes.length !== headerBytes + bodyBytes[type] + macBytes) return undefined;
  return {
    type,
    suiteId: bytes.readUInt8(2),
    keyId: bytes.toString("hex", 4, 4 + keyIdBytes),
    sender: bytes.subarray(12, 28),
    receiver: bytes.subarray(28, 44),
    exchangeId: bytes.subarray(44, headerBytes),
    body: bytes.subarray(headerBytes, bytes.length - macBytes),
    bytes,
  };
}

export function isAuthentic({ bytes }: Message, macKey: Uint8Array): boolean {
  const end = bytes.length - macBytes;
  return timingSafeEqual(macOf(macKey, bytes.subarray(0, end)), bytes.subarray(end));
}

/** What both sides put into Noise's prologue: all that stands in front of its first message. */
export function prologueOf(vnet: Uint8Array, init: Header, challenge: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from("vnetd keys 1", "ascii"), vnet, headerOf(init), challenge]);
}

export function spiPayload(spi: number): Buffer {
  const payload = Buffer.alloc(spiBytes);
  payload.writeUInt32BE(spi, 0);
  return payload;
}
