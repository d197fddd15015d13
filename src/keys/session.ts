// SPDX-License-Identifier: Apache-2.0
/**
 * What this host has agreed on with one other host for one vnet: the exchange that runs, and the
 * generations of keys that came of exchanges (docs/security.md, "The state machine").
 *
 * A generation is an SA each way. It is received with from the moment its keys are known, sent with once the
 * peer has proved that it receives with it, and received with until the peer has proved that it sends with a later
 * one. So no packet is lost whatever message is lost, late, doubled or reordered. Every exchange has fresh
 * ephemerals on both sides, so no restart brings a key back.
 *
 * Messages come in when src/keys/exchanges.ts has found them authentic and fresh. Pure: time and
 * randomness are parameters; what is to be done is returned, in the order in which it must be done.
 */
import { deriveEspKeys, leastSpi, wipeEspKeys, type EspKeys, type Suite } from "./esp-keys.js";
import {
  challengeBytes,
  encodeMessage,
  exchangeIdBytes,
  prologueOf,
  refusals,
  spiPayload,
  type Header,
  type Message,
  type MessageType,
  type VnetSecrets,
} from "./messages.js";
import { Initiator, respond, type Finished, type Transport } from "./noise.js";
import type { SpiPool } from "./spi-pool.js";

export type KeyAction =
  | { kind: "send"; message: Buffer }
  /** add an SA for what the peer sends; the keys are the taker's to wipe, here and below */
  | { kind: "receiveWith"; spi: number; keys: EspKeys }
  /** add an SA for what is sent to the peer, and use it in place of the one before */
  | { kind: "sendWith"; spi: number; keys: EspKeys }
  | { kind: "stopReceiving"; spi: number }
  | { kind: "stopSending"; spi: number }
  /** the peer did not answer; start() tries again */
  | { kind: "gaveUp" }
  /** the peer, who shares the key, uses another suite */
  | { kind: "otherSuite"; suiteId: number };

export interface KeyTimes {
  /** a new generation is made so long after one was taken into use, give or take `jitter` */
  rekeyMs: number;
  /** a part of rekeyMs, 0 to 1 */
  jitter: number;
  /** a generation is used no longer than this after it was made, daemon or not */
  hardMs: number;
  /** for packets on the way, when the peer has changed to other keys */
  drainMs: number;
  /** between two transmissions of a message: from, doubling, to */
  firstRetryMs: number;
  lastRetryMs: number;
  /** transmissions of a first message that is not answered */
  initTries: number;
  /** how long an answer waits for its confirmation */
  answerMs: number;
}

export const defaultTimes: KeyTimes = {
  rekeyMs: 3_600_000,
  jitter: 0.1,
  hardMs: 3 * 3_600_000,
  drainMs: 10_000,
  firstRetryMs: 250,
  lastRetryMs: 30_000,
  initTries: 10,
  answerMs: 30_000,
};

export interface KeyContext {
  vnet: Buffer;
  own: Buffer;
  suite: Suite;
  times: KeyTimes;
  spis: SpiPool;
  /** so many bytes that nobody can predict and that never come again */
  random: (bytes: number) => Buffer;
}

/** challenges that are taken for one exchange: who answers changes his every minutes */
const maxRetries = 4;
const maxResends = 32;
const rememberedAnswers = 2;
/** nonces of Noise's transport messages: each is one message, always the same */
const nonces = { confirm: 0, done: 1, ack: 0 } as const;
const nothing = Buffer.alloc(0);

interface Generation {
  spiIn: number;
  spiOut: number;
  /** until it is sent with */
  outKeys: EspKeys | undefined;
  sending: boolean;
  removeAtMs: number;
  /** of the vnet's secret that it came of */
  keyId: string;
  madeMs: number;
}

/** What is sent with just now, for people. */
export interface CurrentKeys {
  spiIn: number;
  spiOut: number;
  keyId: string;
  ageMs: number;
  /** until they are changed by time, and until they are gone if they are not */
  rekeyInMs: number;
  hardInMs: number;
}

interface Repeated {
  message: Buffer;
  tries: number;
  nextMs: number;
}

/** An exchange that this host began. */
interface Exchange extends Repeated {
  phase: "init" | "confirm";
  header: Header;
  secrets: VnetSecrets;
  noise: Initiator;
  spiIn: number;
  challenge: Buffer;
  retries: number;
  finished: { toResponder: Transport; toInitiator: Transport } | undefined;
  generation: Generation | undefined;
}

/** An exchange that the peer began. */
interface Answer extends Repeated {
  header: Header;
  secrets: VnetSecrets;
  /** the first message, to know it again */
  init: Buffer;
  toResponder: Transport;
  toInitiator: Transport;
  generation: Generation;
  deadlineMs: number;
}

interface Answered {
  exchangeId: Buffer;
  generation: Generation;
  toResponder: Transport;
  ack: Buffer;
  resends: number;
}

export class Session {
  /** newest last; at most one is sent with */
  private readonly generations: Generation[] = [];
  private exchange: Exchange | undefined;
  private answer: Answer | undefined;
  private answered: Answered[] = [];
  private challenge: Buffer = Buffer.alloc(challengeBytes);
  private rekeyAtMs = Infinity;
  /** new keys were asked for, of the secret with this id and made no earlier than this, and have not come yet */
  private renewal: { keyId: string; madeSinceMs: number } | undefined;

  constructor(
    private readonly context: KeyContext,
    readonly peer: Buffer,
  ) {}

  /** Whether there are keys to send with. */
  get established(): boolean {
    return this.current() !== undefined;
  }

  get isHalfOpen(): boolean {
    return this.answer !== undefined;
  }

  get isBusy(): boolean {
    return this.exchange !== undefined || this.answer !== undefined;
  }

  /** Nothing is left, and nothing runs. */
  get isIdle(): boolean {
    return this.generations.length === 0 && !this.exchange && !this.answer;
  }

  /** undefined: there are none. */
  currentKeys(nowMs: number): CurrentKeys | undefined {
    const current = this.current();
    if (current === undefined) return undefined;
    const { spiIn, spiOut, keyId, madeMs, removeAtMs } = current;
    const rekeyInMs = Math.max(0, this.rekeyAtMs - nowMs);
    const hardInMs = Math.max(0, removeAtMs - nowMs);
    return { spiIn, spiOut, keyId, ageMs: nowMs - madeMs, rekeyInMs, hardInMs };
  }

  /** Begins an exchange, unless one runs: for first keys, and for new ones. */
  start(nowMs: number, secrets: VnetSecrets): KeyAction[] {
    if (this.hasOtherKey(secrets)) this.dropExchange();
    // what is waited for is what is wanted now, not what was when it was asked for
    if (this.renewal !== undefined) this.renewal.keyId = secrets.keyId;
    if (this.exchange !== undefined || this.answer !== undefined) return [];
    this.exchange = this.newExchange(nowMs, secrets);
    return [{ kind: "send", message: this.exchange.message }];
  }

  /**
   * Keys in place of those that there are, tried until they have come. What an exchange makes that runs already is new
   * enough, if it is by the same secret and its keys were not made before `madeSinceMs`.
   */
  renew(nowMs: number, secrets: VnetSecrets, madeSinceMs = -Infinity): KeyAction[] {
    // first keys that are being agreed on may have been made before as well
    const isDue = this.current() !== undefined || (this.isBusy && madeSinceMs > -Infinity);
    if (!isDue) return [];
    this.renewal = { keyId: secrets.keyId, madeSinceMs };
    this.rekeyAtMs = nowMs + this.context.times.lastRetryMs;
    return this.start(nowMs, secrets);
  }

  /** The times are others: keys in use are changed by these, soon if they are older. */
  timesChanged(nowMs: number): void {
    const current = this.current();
    if (current === undefined) return;
    const { rekeyMs } = this.context.times;
    this.rekeyAtMs = Math.min(this.rekeyAtMs, Math.max(nowMs, current.madeMs + rekeyMs));
  }

  /**
   * Others are accepted from now on: messages of an exchange that runs with one that is not would not be taken. What
   * the peer may be sending with already is still received with.
   */
  keysChanged(accepted: ReadonlySet<string>): void {
    const { exchange } = this;
    if (exchange !== undefined && !accepted.has(exchange.secrets.keyId)) this.dropExchange();
  }

  /** An init that is authentic. Whether its exchange is known already decides if it must be fresh. */
  knows({ exchangeId }: Message): boolean {
    const ids = [this.answer?.header.exchangeId, ...this.answered.map((each) => each.exchangeId)];
    return ids.some((id) => id?.equals(exchangeId) === true);
  }

  /** undefined: it is of no exchange that is known. */
  receive(message: Message, secrets: VnetSecrets, nowMs: number): KeyAction[] | undefined {
    switch (message.type) {
      case "init":
        return this.onInit(message, secrets, nowMs);
      case "response":
        return this.onResponse(message, nowMs);
      case "confirm":
        return this.onConfirm(message, nowMs);
      case "ack":
        return this.onAck(message, nowMs);
      case "done":
        return this.onDone(message, nowMs);
      case "retry":
        return this.onRetry(message, nowMs);
      case "refuse":
        return this.onRefuse(message, nowMs);
    }
  }

  /** A packet came by the SA of this SPI: the peer sends with that generation, and will not go back. */
  trafficSeen(spiIn: number, nowMs: number): KeyAction[] {
    const generation = this.generations.find((each) => each.spiIn === spiIn);
    if (generation === undefined) return [];
    if (this.exchange?.generation === generation) return this.finishExchange(this.exchange, nowMs);
    if (generation.outKeys === undefined) this.drainBefore(generation, nowMs);
    return [];
  }

  /** To be called again and again: what is due at this time. */
  tick(nowMs: number, secrets: VnetSecrets): KeyAction[] {
    const isOther = this.hasOtherKey(secrets);
    const actions = this.expire(nowMs);
    actions.push(...(isOther ? this.start(nowMs, secrets) : this.repeat(nowMs)));
    if (this.current() === undefined || nowMs < this.rekeyAtMs) return actions;
    this.rekeyAtMs = nowMs + this.context.times.lastRetryMs;
    return [...actions, ...this.start(nowMs, secrets)];
  }

  /** The end, for a vnet or a peer that is gone. */
  close(): KeyAction[] {
    this.dropExchange();
    this.dropAnswer();
    this.answered = [];
    return this.generations.splice(0).flatMap((each) => this.remove(each));
  }

  // ---- the one who begins

  private newExchange(nowMs: number, secrets: VnetSecrets): Exchange {
    const { random, spis } = this.context;
    const header = this.headerOf(random(exchangeIdBytes), secrets);
    return { ...this.newInit(header, secrets, spis.take(), nowMs), retries: 0 };
  }

  /** With a fresh ephemeral each time: one key never seals two different messages. */
  private newInit(
    header: Header,
    secrets: VnetSecrets,
    spiIn: number,
    nowMs: number,
  ): Omit<Exchange, "retries"> {
    const { vnet, random, times } = this.context;
    const { challenge } = this;
    const prologue = prologueOf(vnet, header, challenge);
    const ephemeral = random(32);
    const noise = new Initiator({ psk: secrets.psk, prologue, ephemeral });
    ephemeral.fill(0);
    const body = Buffer.concat([challenge, noise.write(spiPayload(spiIn))]);
    const message = encodeMessage(header, body, secrets.macKey);
    const nextMs = nowMs + times.firstRetryMs;
    const empty = { finished: undefined, generation: undefined };
    return {
      ...empty,
      ...{ phase: "init", header, secrets, noise, spiIn, challenge, message, tries: 1, nextMs },
    };
  }

  private onRetry({ exchangeId, body }: Message, nowMs: number): KeyAction[] | undefined {
    const exchange = this.running("init", exchangeId);
    if (exchange === undefined) return undefined;
    // one that is repeated, by whom ever, brings nothing new
    if (body.equals(exchange.challenge) || exchange.retries >= maxRetries) return [];
    this.challenge = Buffer.from(body);
    const { header, secrets, spiIn, retries } = exchange;
    this.exchange = { ...this.newInit(header, secrets, spiIn, nowMs), retries: retries + 1 };
    return [{ kind: "send", message: this.exchange.message }];
  }

  private onResponse({ exchangeId, body }: Message, nowMs: number): KeyAction[] | undefined {
    const waiting = this.running("confirm", exchangeId);
    if (waiting !== undefined) return this.resend(waiting);
    const exchange = this.running("init", exchangeId);
    if (exchange === undefined) return undefined;
    const read = exchange.noise.read(body);
    const spiOut = read?.payload.length === 4 ? read.payload.readUInt32BE(0) : 0;
    if (read === undefined || spiOut < leastSpi) return undefined;
    const { finished } = read;
    const spis = { spiIn: exchange.spiIn, spiOut };
    const made = this.newGeneration(finished, { ...spis, keyId: exchange.secrets.keyId }, nowMs);
    const confirm = finished.toResponder.encrypt(nonces.confirm, nothing);
    Object.assign(exchange, {
      phase: "confirm",
      finished,
      generation: made.generation,
      message: this.encode("confirm", exchange, confirm),
      tries: 1,
      nextMs: nowMs + this.context.times.firstRetryMs,
    });
    return [made.action, { kind: "send", message: exchange.message }];
  }

  private onAck({ exchangeId, body }: Message, nowMs: number): KeyAction[] | undefined {
    const exchange = this.running("confirm", exchangeId);
    if (exchange?.finished?.toInitiator.decrypt(nonces.ack, body) === undefined) return undefined;
    return this.finishExchange(exchange, nowMs);
  }

  /** The peer receives and sends with the new generation: this host may send with it. */
  private finishExchange(exchange: Exchange, nowMs: number): KeyAction[] {
    const { generation, finished } = exchange;
    if (generation === undefined || finished === undefined) return [];
    const done = finished.toResponder.encrypt(nonces.done, nothing);
    const actions: KeyAction[] = [
      ...this.sendWith(generation, nowMs),
      { kind: "send", message: this.encode("done", exchange, done) },
    ];
    this.drainBefore(generation, nowMs);
    this.dropExchange();
    return actions;
  }

  private onRefuse({ exchangeId, body, suiteId }: Message, nowMs: number): KeyAction[] | undefined {
    const exchange = this.exchange;
    if (exchange?.header.exchangeId.equals(exchangeId) !== true) return undefined;
    if (body[0] === refusals.suite && exchange.phase === "init") {
      this.dropExchange();
      return [{ kind: "otherSuite", suiteId }];
    }
    if (body[0] !== refusals.unknownExchange || exchange.phase !== "confirm") return undefined;
    // the peer has forgotten it, so it will never send with these keys
    if (exchange.generation !== undefined)
      exchange.generation.removeAtMs = nowMs + this.context.times.drainMs;
    this.dropExchange();
    return [];
  }

  // ---- the one who answers

  private onInit(message: Message, secrets: VnetSecrets, nowMs: number): KeyAction[] {
    const { answer, exchange } = this;
    if (this.knows(message)) {
      return answer?.init.equals(message.bytes) === true ? this.resend(answer) : [];
    }
    if (exchange?.phase === "init") {
      // both have begun: the exchange of the lower host id goes on, on both sides
      if (Buffer.compare(this.context.own, this.peer) < 0) return this.resend(exchange);
      this.dropExchange();
    }
    const answered = this.newAnswer(message, secrets, nowMs);
    if (answered === undefined) return [];
    const dropped = this.dropAnswer();
    this.answer = answered.answer;
    return [...dropped, answered.action, { kind: "send", message: answered.answer.message }];
  }

  private newAnswer(
    message: Message,
    secrets: VnetSecrets,
    nowMs: number,
  ): { answer: Answer; action: KeyAction } | undefined {
    const { vnet, random, spis, times } = this.context;
    const challenge = message.body.subarray(0, challengeBytes);
    const prologue = prologueOf(vnet, message, challenge);
    const spiIn = spis.take();
    let spiOut = 0;
    const ephemeral = random(32);
    const noise = respond(
      { psk: secrets.psk, prologue, ephemeral },
      message.body.subarray(challengeBytes),
      (payload) => {
        spiOut = payload.length === 4 ? payload.readUInt32BE(0) : 0;
        return spiOut < leastSpi ? undefined : spiPayload(spiIn);
      },
    );
    ephemeral.fill(0);
    if (noise === undefined) {
      spis.release(spiIn);
      return undefined;
    }
    const { toResponder, toInitiator } = noise.finished;
    const made = { spiIn, spiOut, keyId: secrets.keyId };
    const { generation, action } = this.newGeneration(noise.finished, made, nowMs);
    const header = this.headerOf(Buffer.from(message.exchangeId), secrets);
    const answer: Answer = {
      ...{ header, secrets, init: Buffer.from(message.bytes), toResponder, toInitiator },
      ...{ generation, message: this.encode("response", { header, secrets }, noise.message) },
      ...{ tries: 1, nextMs: nowMs + times.firstRetryMs, deadlineMs: nowMs + times.answerMs },
    };
    return { answer, action };
  }

  private onConfirm({ exchangeId, body }: Message, nowMs: number): KeyAction[] | undefined {
    const before = this.answered.find((each) => each.exchangeId.equals(exchangeId));
    if (before !== undefined) {
      before.resends += 1;
      return before.resends > maxResends ? [] : [{ kind: "send", message: before.ack }];
    }
    const { answer } = this;
    if (answer?.header.exchangeId.equals(exchangeId) !== true) return undefined;
    if (answer.toResponder.decrypt(nonces.confirm, body) === undefined) return undefined;
    const { generation, toResponder, toInitiator } = answer;
    const ack = this.encode("ack", answer, toInitiator.encrypt(nonces.ack, nothing));
    const done: Answered = {
      ...{ exchangeId: Buffer.from(exchangeId), generation, toResponder, ack, resends: 0 },
    };
    toInitiator.wipe();
    this.answered.push(done);
    while (this.answered.length > rememberedAnswers) this.answered.shift()?.toResponder.wipe();
    this.answer = undefined;
    // an older exchange of ours that was never acknowledged is of no use any more
    if (this.exchange?.phase === "confirm") this.dropExchange();
    return [...this.sendWith(generation, nowMs), { kind: "send", message: ack }];
  }

  private onDone({ exchangeId, body }: Message, nowMs: number): KeyAction[] | undefined {
    const answered = this.answered.find((each) => each.exchangeId.equals(exchangeId));
    if (answered?.toResponder.decrypt(nonces.done, body) === undefined) return undefined;
    this.drainBefore(answered.generation, nowMs);
    return [];
  }

  // ---- generations

  private newGeneration(
    { exporter }: Finished,
    { spiIn, spiOut, keyId }: { spiIn: number; spiOut: number; keyId: string },
    nowMs: number,
  ): { generation: Generation; action: KeyAction } {
    const { vnet, own, suite, times } = this.context;
    const inward = { vnet, suite, sender: this.peer, receiver: own, spi: spiIn };
    const outward = { vnet, suite, sender: own, receiver: this.peer, spi: spiOut };
    const keys = deriveEspKeys(exporter, inward);
    const outKeys = deriveEspKeys(exporter, outward);
    exporter.fill(0);
    const removeAtMs = nowMs + times.hardMs;
    const made = { keyId, madeMs: nowMs, removeAtMs };
    const generation = { spiIn, spiOut, outKeys, sending: false, ...made };
    this.generations.push(generation);
    return { generation, action: { kind: "receiveWith", spi: spiIn, keys } };
  }

  private current(): Generation | undefined {
    return this.generations.find(({ sending }) => sending);
  }

  private sendWith(generation: Generation, nowMs: number): KeyAction[] {
    const { outKeys, spiOut } = generation;
    if (outKeys === undefined) return [];
    const before = this.current();
    const actions: KeyAction[] = [{ kind: "sendWith", spi: spiOut, keys: outKeys }];
    if (before !== undefined) {
      before.sending = false;
      actions.push({ kind: "stopSending", spi: before.spiOut });
    }
    generation.outKeys = undefined;
    generation.sending = true;
    const { rekeyMs, jitter } = this.context.times;
    const random = this.context.random(4).readUInt32BE(0) / 0x1_0000_0000;
    this.rekeyAtMs = nowMs + rekeyMs * (1 + jitter * (2 * random - 1));
    // they came of an exchange that ran when others were asked for
    const { renewal } = this;
    const isAnother =
      renewal !== undefined &&
      (renewal.keyId !== generation.keyId || generation.madeMs < renewal.madeSinceMs);
    if (isAnother) this.rekeyAtMs = nowMs;
    else this.renewal = undefined;
    return actions;
  }

  /** The peer sends with this generation: earlier ones are needed for packets on the way alone. */
  private drainBefore(generation: Generation, nowMs: number): void {
    const untilMs = nowMs + this.context.times.drainMs;
    // one that is gone already says nothing about those that came after it
    const earlier = Math.max(0, this.generations.indexOf(generation));
    for (const each of this.generations.slice(0, earlier)) {
      if (each !== this.exchange?.generation && each !== this.answer?.generation && !each.sending)
        each.removeAtMs = Math.min(each.removeAtMs, untilMs);
    }
  }

  private remove(generation: Generation): KeyAction[] {
    const { spiIn, spiOut, sending, outKeys } = generation;
    if (outKeys !== undefined) wipeEspKeys(outKeys);
    this.context.spis.release(spiIn);
    const stop: KeyAction[] = sending ? [{ kind: "stopSending", spi: spiOut }] : [];
    return [...stop, { kind: "stopReceiving", spi: spiIn }];
  }

  private expire(nowMs: number): KeyAction[] {
    const actions: KeyAction[] = [];
    if (this.answer !== undefined && nowMs >= this.answer.deadlineMs)
      actions.push(...this.dropAnswer());
    for (const generation of this.generations.filter(({ removeAtMs }) => removeAtMs <= nowMs)) {
      this.generations.splice(this.generations.indexOf(generation), 1);
      if (this.exchange?.generation === generation) this.dropExchange();
      if (this.answer?.generation === generation) this.answer = undefined;
      actions.push(...this.remove(generation));
    }
    return actions;
  }

  // ---- messages

  private headerOf(exchangeId: Buffer, { keyId }: VnetSecrets): Header {
    const { own, suite } = this.context;
    const ends = { sender: own, receiver: this.peer };
    return { type: "init", suiteId: suite.id, keyId, ...ends, exchangeId };
  }

  private encode(
    type: MessageType,
    { header, secrets }: { header: Header; secrets: VnetSecrets },
    body: Buffer,
  ): Buffer {
    return encodeMessage({ ...header, type }, body, secrets.macKey);
  }

  private running(phase: Exchange["phase"], exchangeId: Buffer): Exchange | undefined {
    const { exchange } = this;
    const isIt = exchange?.phase === phase && exchange.header.exchangeId.equals(exchangeId);
    return isIt ? exchange : undefined;
  }

  /** Because the peer asks for it: bounded, and besides the times of its own. */
  private resend(repeated: Repeated): KeyAction[] {
    repeated.tries += 1;
    return repeated.tries > maxResends ? [] : [{ kind: "send", message: repeated.message }];
  }

  private repeat(nowMs: number): KeyAction[] {
    const actions: KeyAction[] = [];
    for (const repeated of [this.exchange, this.answer]) {
      if (repeated === undefined || nowMs < repeated.nextMs) continue;
      if (repeated === this.exchange && this.hasGivenUp(this.exchange)) {
        this.dropExchange();
        actions.push({ kind: "gaveUp" });
        continue;
      }
      const { firstRetryMs, lastRetryMs } = this.context.times;
      const waitMs = Math.min(lastRetryMs, firstRetryMs * 2 ** Math.min(repeated.tries, 20));
      repeated.tries += 1;
      repeated.nextMs = nowMs + waitMs;
      actions.push({ kind: "send", message: repeated.message });
    }
    return actions;
  }

  /** Only while nothing depends on it: a confirmation is repeated for as long as its keys live. */
  private hasGivenUp({ phase, tries }: Exchange): boolean {
    return phase === "init" && tries >= this.context.times.initTries;
  }

  /** An exchange that the peer has not answered, by another key than is to be used now. */
  private hasOtherKey({ keyId }: VnetSecrets): boolean {
    return this.exchange?.phase === "init" && this.exchange.secrets.keyId !== keyId;
  }

  private dropExchange(): void {
    const { exchange } = this;
    if (exchange === undefined) return;
    if (exchange.generation === undefined) this.context.spis.release(exchange.spiIn);
    exchange.finished?.toResponder.wipe();
    exchange.finished?.toInitiator.wipe();
    this.exchange = undefined;
  }

  /** An answer that was not confirmed: nobody sends with its keys. */
  private dropAnswer(): KeyAction[] {
    const { answer } = this;
    if (answer === undefined) return [];
    this.answer = undefined;
    answer.toResponder.wipe();
    answer.toInitiator.wipe();
    this.generations.splice(this.generations.indexOf(answer.generation), 1);
    return this.remove(answer.generation);
  }
}
