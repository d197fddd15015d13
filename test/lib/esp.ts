// SPDX-License-Identifier: Apache-2.0
/**
 * ESP by hand, with the keys of `ip xfrm state`: a second implementation of RFC 4303 with extended sequence numbers
 * (HMAC-SHA1-96 with null or AES-CBC, AES-GCM by RFC 4106, AES-GMAC by RFC 4543), to read what is on the
 * wire and to make packets that a host of ours would not send. As long as the upper half of sequence numbers is zero.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import type { RunResult } from "./lab.js";

interface Algorithm {
  /** as the kernel names it */
  name: string;
  key: Buffer;
}

/** An SA as root sees it. */
export interface Sa {
  source: string;
  destination: string;
  spi: number;
  mode: string;
  encryption?: Algorithm;
  authentication?: Algorithm & { icvBits: number };
  aead?: Algorithm & { icvBits: number };
  esn: boolean;
  /** of the last packet that was sent with it */
  sent: number;
}

export interface Opened {
  spi: number;
  sequence: number;
  payload: Buffer;
  padding: Buffer;
  nextHeader: number;
  /** the integrity check value is right */
  isGood: boolean;
}

const headerBytes = 8;
const upperHalf = Buffer.alloc(4);
const gcmIvBytes = 8;

/** Those of one namespace. */
export async function sasOf(host: {
  exec: (command: string) => Promise<RunResult>;
}): Promise<Sa[]> {
  return parseSas((await host.exec("ip xfrm state")).stdout);
}

/** The output of `ip xfrm state`, run by root. */
export function parseSas(text: string): Sa[] {
  return text
    .split(/^(?=src )/m)
    .filter((block) => block.includes("proto esp"))
    .map((block) => {
      const [, source = "", destination = ""] = /^src (\S+) dst (\S+)/.exec(block) ?? [];
      const number = (pattern: RegExp): number => Number(pattern.exec(block)?.[1] ?? 0);
      const { encryption, authentication, aead } = algorithmsIn(block);
      return {
        ...{ source, destination },
        spi: number(/ spi (0x[0-9a-f]+)/),
        mode: / mode (\w+)/.exec(block)?.[1] ?? "",
        ...(encryption === undefined ? {} : { encryption }),
        ...(authentication === undefined ? {} : { authentication }),
        ...(aead === undefined ? {} : { aead }),
        esn: /\besn\b/.test(block),
        sent: number(/oseq (0x[0-9a-f]+)/),
      };
    });
}

function algorithmsIn(block: string): Pick<Sa, "encryption" | "authentication" | "aead"> {
  const find = (kind: string): (Algorithm & { icvBits: number }) | undefined => {
    const found = new RegExp(`^\\s${kind} (\\S+) ?(?:0x([0-9a-f]*))? ?(\\d+)?`, "m").exec(block);
    if (found === null) return undefined;
    const [, name = "", key = "", icvBits = "0"] = found;
    return { name, key: Buffer.from(key, "hex"), icvBits: Number(icvBits) };
  };
  const [encryption, authentication, aead] = [find("enc"), find("auth-trunc"), find("aead")];
  return {
    ...(encryption === undefined ? {} : { encryption }),
    ...(authentication === undefined ? {} : { authentication }),
    ...(aead === undefined ? {} : { aead }),
  };
}

/** From the SPI on. Padding is 1, 2, 3 …, as long as the suite wants it. */
export function seal(
  sa: Sa,
  sequence: number,
  payload: Uint8Array,
  { nextHeader = 17 }: { nextHeader?: number } = {},
): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32BE(sa.spi, 0);
  header.writeUInt32BE(sequence, 4);
  const block = sa.encryption?.name === "cbc(aes)" ? 16 : 4;
  const padding = (block - ((payload.length + 2) % block)) % block;
  const trailer = Buffer.from([
    ...Array.from({ length: padding }, (_, at) => at + 1),
    padding,
    nextHeader,
  ]);
  const plain = Buffer.concat([payload, trailer]);
  if (sa.aead !== undefined) return Buffer.concat([header, ...sealAead(sa.aead, header, plain)]);
  const body = sa.encryption?.name === "cbc(aes)" ? sealCbc(sa.encryption.key, plain) : plain;
  return Buffer.concat([header, body, hmacOf(sa, header, body)]);
}

/** `esp` is from the SPI on. Says what is in it, whether its ICV is right or not. */
export function open(sa: Sa, esp: Buffer): Opened {
  const header = esp.subarray(0, headerBytes);
  const { plain, isGood } =
    sa.aead === undefined ? openHmac(sa, header, esp) : openAead(sa.aead, header, esp);
  const paddingBytes = plain.at(-2) ?? 0;
  const payloadBytes = Math.max(0, plain.length - 2 - paddingBytes);
  return {
    spi: header.readUInt32BE(0),
    sequence: header.readUInt32BE(4),
    payload: plain.subarray(0, payloadBytes),
    padding: plain.subarray(payloadBytes, plain.length - 2),
    nextHeader: plain.at(-1) ?? 0,
    isGood,
  };
}

// ---- null or CBC, with HMAC-SHA1-96

function hmacOf({ authentication }: Sa, header: Buffer, body: Uint8Array): Buffer {
  if (authentication?.name !== "hmac(sha1)") throw new Error("this SA has no HMAC-SHA1");
  const mac = createHmac("sha1", authentication.key).update(header).update(body).update(upperHalf);
  return mac.digest().subarray(0, authentication.icvBits / 8);
}

function sealCbc(key: Buffer, plain: Buffer): Buffer {
  const iv = randomBytes(16);
  const cipher = createCipheriv("aes-128-cbc", key, iv).setAutoPadding(false);
  return Buffer.concat([iv, cipher.update(plain), cipher.final()]);
}

function openHmac(sa: Sa, header: Buffer, esp: Buffer): { plain: Buffer; isGood: boolean } {
  const icvBytes = (sa.authentication?.icvBits ?? 0) / 8;
  const body = esp.subarray(headerBytes, esp.length - icvBytes);
  const isGood = timingSafeEqual(hmacOf(sa, header, body), esp.subarray(esp.length - icvBytes));
  if (sa.encryption?.name !== "cbc(aes)") return { plain: body, isGood };
  const decipher = createDecipheriv("aes-128-cbc", sa.encryption.key, body.subarray(0, 16));
  decipher.setAutoPadding(false);
  return { plain: Buffer.concat([decipher.update(body.subarray(16)), decipher.final()]), isGood };
}

// ---- GCM and GMAC

interface Aead {
  cipher: "aes-128-gcm" | "aes-256-gcm";
  key: Buffer;
  nonce: (iv: Buffer) => Buffer;
  isMac: boolean;
}

/** The key is followed by four bytes of salt, with which each nonce begins. */
function aeadOf({ name, key }: Algorithm): Aead {
  const secret = key.subarray(0, -4);
  return {
    cipher: secret.length === 32 ? "aes-256-gcm" : "aes-128-gcm",
    key: secret,
    nonce: (iv) => Buffer.concat([key.subarray(-4), iv]),
    isMac: name.includes("4543"),
  };
}

/** What stands in front of the IV, with all of the sequence number. */
const aadOf = (header: Buffer): Buffer =>
  Buffer.concat([header.subarray(0, 4), upperHalf, header.subarray(4)]);

function sealAead(algorithm: Algorithm, header: Buffer, plain: Buffer): Buffer[] {
  const { cipher: name, key, nonce, isMac } = aeadOf(algorithm);
  const iv = randomBytes(gcmIvBytes);
  const cipher = createCipheriv(name, key, nonce(iv));
  cipher.setAAD(isMac ? Buffer.concat([aadOf(header), iv, plain]) : aadOf(header));
  const body = isMac ? plain : cipher.update(plain);
  cipher.final();
  return [iv, body, cipher.getAuthTag()];
}

function openAead(
  algorithm: Algorithm & { icvBits: number },
  header: Buffer,
  esp: Buffer,
): { plain: Buffer; isGood: boolean } {
  const { cipher: name, key, nonce, isMac } = aeadOf(algorithm);
  const end = esp.length - algorithm.icvBits / 8;
  const iv = esp.subarray(headerBytes, headerBytes + gcmIvBytes);
  const body = esp.subarray(headerBytes + gcmIvBytes, end);
  const decipher = createDecipheriv(name, key, nonce(iv));
  decipher.setAuthTag(esp.subarray(end));
  decipher.setAAD(isMac ? Buffer.concat([aadOf(header), iv, body]) : aadOf(header));
  const plain = isMac ? body : decipher.update(body);
  try {
    decipher.final();
    return { plain, isGood: true };
  } catch {
    return { plain, isGood: false };
  }
}
