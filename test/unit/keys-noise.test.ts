// SPDX-License-Identifier: Apache-2.0
/** The handshake against a published vector, and what becomes of every kind of wrong message. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Initiator, protocolName, respond, tagBytes } from "../../src/keys/noise.js";

interface Vector {
  protocol_name: string;
  init_prologue: string;
  init_psks: string[];
  init_ephemeral: string;
  resp_prologue: string;
  resp_psks: string[];
  resp_ephemeral: string;
  final_handshake_hash: string;
  messages: { payload: string; ciphertext: string }[];
}

const vector = JSON.parse(
  readFileSync(new URL("vectors/noise-nnpsk0.json", import.meta.url), "utf8"),
) as Vector;
const hex = (text: string): Buffer => Buffer.from(text, "hex");

function setup(
  psk: Buffer,
  prologue: Buffer,
): { psk: Buffer; prologue: Buffer; ephemeral: Buffer } {
  return { psk, prologue, ephemeral: randomBytes(32) };
}

describe("the vector of cacophony", () => {
  const initiator = new Initiator({
    psk: hex(vector.init_psks[0] ?? ""),
    prologue: hex(vector.init_prologue),
    ephemeral: hex(vector.init_ephemeral),
  });
  const [first, second, ...transport] = vector.messages;

  it("is of this protocol", () => {
    expect(vector.protocol_name).toBe(protocolName);
    expect(transport).toHaveLength(4);
  });

  it("every byte is the same, both ways, the handshake hash and the transport messages too", () => {
    const message = initiator.write(hex(first?.payload ?? ""));
    expect(message.toString("hex")).toBe(first?.ciphertext);
    let received = "";
    const answer = respond(
      {
        psk: hex(vector.resp_psks[0] ?? ""),
        prologue: hex(vector.resp_prologue),
        ephemeral: hex(vector.resp_ephemeral),
      },
      message,
      (payload) => {
        received = payload.toString("hex");
        return hex(second?.payload ?? "");
      },
    );
    expect(received).toBe(first?.payload);
    expect(answer?.message.toString("hex")).toBe(second?.ciphertext);
    const read = initiator.read(answer!.message);
    expect(read?.payload.toString("hex")).toBe(second?.payload);
    for (const side of [answer!.finished, read!.finished]) {
      expect(side.handshakeHash.toString("hex")).toBe(vector.final_handshake_hash);
    }
    expect(read!.finished.exporter).toEqual(answer!.finished.exporter);
    transport.forEach(({ payload, ciphertext }, index) => {
      const n = index >> 1;
      const [from, to] =
        index % 2 === 0
          ? [read!.finished.toResponder, answer!.finished.toResponder]
          : [answer!.finished.toInitiator, read!.finished.toInitiator];
      expect(from.encrypt(n, hex(payload)).toString("hex")).toBe(ciphertext);
      expect(to.decrypt(n, hex(ciphertext))?.toString("hex")).toBe(payload);
      expect(to.decrypt(n + 1, hex(ciphertext))).toBeUndefined();
    });
  });
});

describe("what does not fit", () => {
  const psk = randomBytes(32);
  const prologue = randomBytes(70);
  const payload = Buffer.from("spi!");

  const exchange = (
    responderPsk: Buffer,
    responderPrologue: Buffer,
    change: (message: Buffer) => Buffer,
  ): boolean => {
    const message = change(new Initiator(setup(psk, prologue)).write(payload));
    return respond(setup(responderPsk, responderPrologue), message, () => payload) !== undefined;
  };
  const same = (message: Buffer): Buffer => message;

  it("another secret or prologue: no answer", () => {
    expect(exchange(psk, prologue, same)).toBe(true);
    expect(exchange(randomBytes(32), prologue, same)).toBe(false);
    expect(exchange(psk, randomBytes(70), same)).toBe(false);
    expect(exchange(psk, prologue.subarray(1), same)).toBe(false);
  });

  it("any changed bit or missing byte of the first message: no answer", () => {
    const length = new Initiator(setup(psk, prologue)).write(payload).length;
    for (let bit = 0; bit < length * 8; bit++) {
      const flipped = exchange(psk, prologue, (message) => {
        message[bit >> 3] = (message[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        return message;
      });
      expect({ bit, flipped }).toEqual({ bit, flipped: false });
    }
    for (let short = 0; short < length; short++) {
      expect(exchange(psk, prologue, (message) => message.subarray(0, short))).toBe(false);
    }
  });

  it("a wrong answer changes nothing: the right one is taken after it", () => {
    const initiator = new Initiator(setup(psk, prologue));
    const message = initiator.write(payload);
    const answer = respond(setup(psk, prologue), message, () => payload);
    const wrong = [
      Buffer.alloc(0),
      randomBytes(answer!.message.length),
      answer!.message.subarray(0, -1),
      respond(
        setup(psk, prologue),
        new Initiator(setup(psk, prologue)).write(payload),
        () => payload,
      )!.message,
    ];
    for (const each of wrong) expect(initiator.read(each)).toBeUndefined();
    for (let bit = 0; bit < answer!.message.length * 8; bit += 3) {
      const flipped = Buffer.from(answer!.message);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(initiator.read(flipped)).toBeUndefined();
    }
    const read = initiator.read(answer!.message);
    expect(read?.finished.exporter).toEqual(answer!.finished.exporter);
  });

  it("points of small order: no answer, and none is taken", () => {
    // RFC 7748 section 6.1: all of these give zero with any secret
    const points = [
      "00".repeat(32),
      `01${"00".repeat(31)}`,
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
      `ec${"ff".repeat(30)}7f`,
    ];
    for (const point of points) {
      const initiator = new Initiator(setup(psk, prologue));
      initiator.write(payload);
      expect(initiator.read(Buffer.concat([hex(point), randomBytes(4 + tagBytes)]))).toBe(
        undefined,
      );
      expect(respond(setup(psk, prologue), hex(point + "00".repeat(20)), () => payload)).toBe(
        undefined,
      );
    }
  });

  it("whatever bytes arrive, nothing is thrown and nothing accepted", () => {
    const initiator = new Initiator(setup(psk, prologue));
    initiator.write(payload);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
        expect(initiator.read(bytes)).toBeUndefined();
        expect(respond(setup(psk, prologue), bytes, () => payload)).toBeUndefined();
      }),
    );
  });

  it("fresh ephemerals make fresh keys, whatever else is the same", () => {
    const exporters = new Set<string>();
    for (let count = 0; count < 20; count++) {
      const initiator = new Initiator(setup(psk, prologue));
      const answer = respond(setup(psk, prologue), initiator.write(payload), () => payload);
      exporters.add(initiator.read(answer!.message)!.finished.exporter.toString("hex"));
    }
    expect(exporters.size).toBe(20);
  });
});

describe("who recorded an exchange, and learns the secret later", () => {
  const psk = randomBytes(32);
  const prologue = randomBytes(70);
  const ephemeral = randomBytes(32);
  const initiator = new Initiator({ psk, prologue, ephemeral: Buffer.from(ephemeral) });
  const first = initiator.write(Buffer.from("spi1"));
  const answer = respond(setup(psk, prologue), first, () => Buffer.from("spi2"))!;
  const real = initiator.read(answer.message)!.finished.exporter;

  it("reads what the first message holds, and not the second", () => {
    let payload = "";
    respond(setup(psk, prologue), first, (bytes) => {
      payload = bytes.toString();
      return bytes;
    });
    expect(payload).toBe("spi1");
    const stranger = new Initiator(setup(psk, prologue));
    stranger.write(Buffer.from("spi1"));
    expect(stranger.read(answer.message)).toBeUndefined();
  });

  it("gets other keys, whichever side is played again; only with an ephemeral secret the same", () => {
    const played = respond(setup(psk, prologue), first, () => Buffer.from("spi2"))!;
    expect(played.finished.exporter).not.toEqual(real);
    // the test is worth something: it is that secret which is missing
    const again = new Initiator({ psk, prologue, ephemeral });
    again.write(Buffer.from("spi1"));
    expect(again.read(answer.message)?.finished.exporter).toEqual(real);
  });
});
