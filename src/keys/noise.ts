// SPDX-License-Identifier: Apache-2.0
/**
 * Noise_NNpsk0_25519_ChaChaPoly_SHA256 of the Noise Protocol Framework, revision 34, to the letter.
 *
 *     -> psk, e
 *     <- e, ee
 *
 * Names are those of the specification (sections 5, 7.3, 9 and 12). A message that does not decrypt leaves the
 * state as it was, so that a forged one does not end an exchange. test/unit/keys-noise.test.ts holds
 * it against a published vector.
 *
 * Pure: the private ephemeral is given by the caller, who must never give one twice.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
} from "node:crypto";

export const protocolName = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
export const dhBytes = 32;
export const tagBytes = 16;
const hashBytes = 32;
const none = Buffer.alloc(0);
const cipher = "chacha20-poly1305";

/** RFC 8410: what stands in front of the 32 bytes in DER */
const privatePrefix = Buffer.from("302e020100300506032b656e04220420", "hex");
const publicPrefix = Buffer.from("302a300506032b656e032100", "hex");

function hash(...parts: Uint8Array[]): Buffer {
  const digest = createHash("sha256");
  for (const part of parts) digest.update(part);
  return digest.digest();
}

function hmac(key: Uint8Array, ...parts: Uint8Array[]): Buffer {
  const digest = createHmac("sha256", key);
  for (const part of parts) digest.update(part);
  return digest.digest();
}

/** HKDF(chaining_key, input_key_material, num_outputs) of section 4.3 */
function hkdf(chainingKey: Uint8Array, material: Uint8Array): [Buffer, Buffer, Buffer] {
  const temporary = hmac(chainingKey, material);
  const first = hmac(temporary, Uint8Array.of(1));
  const second = hmac(temporary, first, Uint8Array.of(2));
  const third = hmac(temporary, second, Uint8Array.of(3));
  temporary.fill(0);
  return [first, second, third];
}

/** ChaChaPoly of section 12.3: 32 zero bits and the little-endian counter */
function nonceOf(n: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64LE(BigInt(n), 4);
  return nonce;
}

function encrypt(k: Uint8Array, n: number, ad: Uint8Array, plaintext: Uint8Array): Buffer {
  const sealed = createCipheriv(cipher, k, nonceOf(n), { authTagLength: tagBytes });
  sealed.setAAD(ad, { plaintextLength: plaintext.length });
  return Buffer.concat([sealed.update(plaintext), sealed.final(), sealed.getAuthTag()]);
}

/** undefined: it was not made with this key, nonce and associated data */
function decrypt(
  k: Uint8Array,
  n: number,
  ad: Uint8Array,
  ciphertext: Uint8Array,
): Buffer | undefined {
  if (ciphertext.length < tagBytes) return undefined;
  const length = ciphertext.length - tagBytes;
  const opened = createDecipheriv(cipher, k, nonceOf(n), { authTagLength: tagBytes });
  opened.setAuthTag(ciphertext.subarray(length));
  opened.setAAD(ad, { plaintextLength: length });
  try {
    return Buffer.concat([opened.update(ciphertext.subarray(0, length)), opened.final()]);
  } catch {
    return undefined;
  }
}

interface KeyPair {
  secret: KeyObject;
  /** as it is on the wire */
  public: Buffer;
}

function keyPairOf(raw: Uint8Array): KeyPair {
  const der = Buffer.concat([privatePrefix, raw]);
  try {
    const secret = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const spki = createPublicKey(secret).export({ format: "der", type: "spki" });
    return { secret, public: spki.subarray(publicPrefix.length) };
  } finally {
    der.fill(0);
  }
}

/** undefined: the other side's point is one that gives zero whatever our secret is */
function dh({ secret }: KeyPair, other: Uint8Array): Buffer | undefined {
  try {
    const key = Buffer.concat([publicPrefix, other]);
    const publicKey = createPublicKey({ key, format: "der", type: "spki" });
    return diffieHellman({ privateKey: secret, publicKey });
  } catch {
    return undefined;
  }
}

/** ck, h, k and n of a SymmetricState; replaced, never changed, so that a failure goes back. */
interface Symmetric {
  ck: Buffer;
  h: Buffer;
  k: Buffer;
  n: number;
}

function mixHash(state: Symmetric, data: Uint8Array): Symmetric {
  return { ...state, h: hash(state.h, data) };
}

function mixKey(state: Symmetric, material: Uint8Array): Symmetric {
  const [ck, k] = hkdf(state.ck, material);
  return { ...state, ck, k, n: 0 };
}

function mixKeyAndHash(state: Symmetric, material: Uint8Array): Symmetric {
  const [ck, temporary, k] = hkdf(state.ck, material);
  return mixHash({ ...state, ck, k, n: 0 }, temporary);
}

function encryptAndHash(state: Symmetric, plaintext: Uint8Array): [Symmetric, Buffer] {
  const ciphertext = encrypt(state.k, state.n, state.h, plaintext);
  return [mixHash({ ...state, n: state.n + 1 }, ciphertext), ciphertext];
}

function decryptAndHash(state: Symmetric, ciphertext: Uint8Array): [Symmetric, Buffer] | undefined {
  const plaintext = decrypt(state.k, state.n, state.h, ciphertext);
  if (plaintext === undefined) return undefined;
  return [mixHash({ ...state, n: state.n + 1 }, ciphertext), plaintext];
}

/** the token "e" of a handshake with psk: the public key goes into the key too (section 9.2) */
function mixEphemeral(state: Symmetric, publicKey: Uint8Array): Symmetric {
  return mixKey(mixHash(state, publicKey), publicKey);
}

function initial(psk: Uint8Array, prologue: Uint8Array): Symmetric {
  const h = hash(Buffer.from(protocolName, "ascii"));
  const start: Symmetric = { ck: h, h, k: none, n: 0 };
  return mixKeyAndHash(mixHash(start, prologue), psk);
}

/** A CipherState of Split(), for messages that may be lost: the nonce is explicit (section 11.4). */
export class Transport {
  constructor(private readonly k: Buffer) {}

  encrypt(n: number, plaintext: Uint8Array): Buffer {
    return encrypt(this.k, n, none, plaintext);
  }

  decrypt(n: number, ciphertext: Uint8Array): Buffer | undefined {
    return decrypt(this.k, n, none, ciphertext);
  }

  wipe(): void {
    this.k.fill(0);
  }
}

export interface Finished {
  toResponder: Transport;
  toInitiator: Transport;
  /** h: the same on both sides, and of this exchange alone */
  handshakeHash: Buffer;
  /**
   * 32 bytes from the final chaining key, for keys of the application: HKDF of RFC 5869 with salt ck, no
   * input, and an info that Split(), which is the same HKDF with none, cannot have.
   */
  exporter: Buffer;
}

const exporterInfo = Buffer.from("vnetd noise exporter 1", "ascii");

function split({ ck, h }: Symmetric): Finished {
  const [first, second] = hkdf(ck, none);
  const info = Buffer.concat([exporterInfo, h]);
  const exporter = Buffer.from(hkdfSync("sha256", none, ck, info, hashBytes));
  ck.fill(0);
  return {
    toResponder: new Transport(first),
    toInitiator: new Transport(second),
    handshakeHash: h,
    exporter,
  };
}

export interface NoiseSetup {
  psk: Uint8Array;
  prologue: Uint8Array;
  /** 32 random bytes that were never used and will never be again */
  ephemeral: Uint8Array;
}

export class Initiator {
  private readonly e: KeyPair;
  private state: Symmetric;

  constructor({ psk, prologue, ephemeral }: NoiseSetup) {
    this.e = keyPairOf(ephemeral);
    this.state = initial(psk, prologue);
  }

  /** To be called once. */
  write(payload: Uint8Array): Buffer {
    const [state, ciphertext] = encryptAndHash(mixEphemeral(this.state, this.e.public), payload);
    this.state = state;
    return Buffer.concat([this.e.public, ciphertext]);
  }

  /** undefined: it is not the answer to this message */
  read(message: Uint8Array): { payload: Buffer; finished: Finished } | undefined {
    if (message.length < dhBytes + tagBytes) return undefined;
    const re = message.subarray(0, dhBytes);
    const shared = dh(this.e, re);
    if (shared === undefined) return undefined;
    const read = decryptAndHash(
      mixKey(mixEphemeral(this.state, re), shared),
      message.subarray(dhBytes),
    );
    shared.fill(0);
    if (read === undefined) return undefined;
    return { payload: read[1], finished: split(read[0]) };
  }
}

/**
 * The responder in one step: the first message, when it is authentic, is answered at once. No Diffie-Hellman is
 * done for one that is not.
 */
export function respond(
  { psk, prologue, ephemeral }: NoiseSetup,
  message: Uint8Array,
  payloadFor: (received: Buffer) => Uint8Array | undefined,
): { message: Buffer; finished: Finished } | undefined {
  if (message.length < dhBytes + tagBytes) return undefined;
  const re = message.subarray(0, dhBytes);
  const received = decryptAndHash(
    mixEphemeral(initial(psk, prologue), re),
    message.subarray(dhBytes),
  );
  const payload = received === undefined ? undefined : payloadFor(received[1]);
  if (received === undefined || payload === undefined) return undefined;
  const e = keyPairOf(ephemeral);
  const shared = dh(e, re);
  if (shared === undefined) return undefined;
  const [state, ciphertext] = encryptAndHash(
    mixKey(mixEphemeral(received[0], e.public), shared),
    payload,
  );
  shared.fill(0);
  return { message: Buffer.concat([e.public, ciphertext]), finished: split(state) };
}
