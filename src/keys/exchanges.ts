// SPDX-License-Identifier: Apache-2.0
/**
 * All key exchanges of this host in one vnet: decides what is looked at, before anything is remembered.
 *
 *   form -> addressed to us -> a key that we accept -> mac -> suite -> fresh -> the session
 *
 * A stranger gets no further than the mac, which costs one hash and no memory, and no answer. Who repeats a
 * member's first message gets no further than the challenge: it is a function of a secret that
 * changes every two minutes, the sender, and how many of his exchanges were taken, so it fits once, and nothing is kept
 * to check it. What is answered is never longer than what asked. Pure: time and randomness are parameters.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { TokenBucket, type RateLimit } from "../varp/token-bucket.js";
import {
  challengeBytes,
  decodeMessage,
  encodeMessage,
  isAuthentic,
  refusals,
  secretsOf,
  type Header,
  type Message,
  type MessageType,
  type VnetSecrets,
} from "./messages.js";
import { Session, type KeyAction, type KeyContext } from "./session.js";
import type { VnetKey } from "../base/vnet-key.js";

/** why a message was not taken; each is counted by the caller */
export type NotTaken =
  | "malformed"
  | "not_for_us"
  | "unknown_key"
  | "bad_mac"
  | "other_suite"
  | "not_fresh"
  | "no_exchange"
  | "too_many";

export interface Outcome {
  actions: KeyAction[];
  /** host id of the peer, 32 hex digits; not authentic where `notTaken` is unknown_key or before it */
  peer: string;
  notTaken?: NotTaken;
  /** for unknown_key: what the sender says it uses */
  keyId?: string;
  /** for other_suite: what the sender uses */
  suiteId?: number;
}

type Taken = Omit<Outcome, "peer">;

export interface ExchangeLimits {
  sessions: number;
  halfOpen: number;
  /** answers that are no part of an exchange: retry, refuse */
  replies: RateLimit;
}

export const defaultLimits: ExchangeLimits = {
  sessions: 1024,
  halfOpen: 64,
  replies: { perSecond: 200, burst: 100 },
};

/** The one before is accepted too. */
const epochMs = 120_000;

interface Peer {
  session: Session;
  /** that exchanges with it begin with; undefined, or one that is no longer accepted: the first */
  keyId: string | undefined;
  /** exchanges of the peer that were taken: each makes the challenges before it void */
  taken: number;
  lastTakenMs: number;
}

export class KeyExchanges {
  private readonly peers = new Map<string, Peer>();
  private readonly replies: TokenBucket;
  private secrets: VnetSecrets[] = [];
  private challengeSecrets: { epoch: number; current: Buffer; previous: Buffer } | undefined;

  constructor(
    private readonly context: KeyContext,
    keys: readonly VnetKey[],
    private readonly limits: ExchangeLimits = defaultLimits,
  ) {
    this.replies = new TokenBucket(limits.replies);
    this.setKeys(keys);
  }

  /**
   * All are accepted, and exchanges with those who prefer none begin with the first. Traffic keys that came of one
   * that is accepted no more stay until newKeys().
   */
  setKeys(keys: readonly VnetKey[]): void {
    if (keys.length === 0) throw new Error("a secure vnet has a key");
    this.secrets = keys.map(({ id, secret }) => secretsOf(id, secret, this.context.vnet));
    const accepted = new Set(keys.map(({ id }) => id));
    for (const { session } of this.peers.values()) session.keysChanged(accepted);
  }

  /** What hellos of the vnet are marked and judged with (hello-auth.ts). */
  get accepted(): readonly VnetSecrets[] {
    return this.secrets;
  }

  /** An exchange runs: tick() has more to do than to look at the clock. */
  get isBusy(): boolean {
    return [...this.peers.values()].some(({ session }) => session.isBusy);
  }

  get size(): number {
    return this.peers.size;
  }

  /** undefined: there is none. For looking, not for changing. */
  sessionOf(peer: string): Session | undefined {
    return this.peers.get(peer)?.session;
  }

  /**
   * Begins an exchange with a host that is known to be a member, unless one runs: for first keys, and for new ones.
   * `keyId`: as in preferKey().
   */
  start(peer: Buffer, nowMs: number, keyId?: string): Outcome {
    const name = peer.toString("hex");
    const found = this.peers.get(name) ?? this.newPeer(peer);
    if (found === undefined) return { peer: name, actions: [], notTaken: "too_many" };
    if (keyId !== undefined) found.keyId = keyId;
    return { peer: name, actions: found.session.start(nowMs, this.keyFor(found)) };
  }

  /**
   * The key that exchanges with this peer begin with from now on, when it has a session: the one that it takes.
   * One that does not wait for its confirmation yet begins anew with it, at the next tick or start.
   */
  preferKey(peer: string, keyId: string): void {
    const found = this.peers.get(peer);
    if (found !== undefined) found.keyId = keyId;
  }

  /** The times of the context are others. */
  timesChanged(nowMs: number): void {
    for (const { session } of this.peers.values()) session.timesChanged(nowMs);
  }

  /**
   * New traffic keys with every peer that there are some with, as soon as those that are being made are made: these
   * are new enough unless they were made before `madeSinceMs`.
   */
  newKeys(nowMs: number, madeSinceMs?: number): { peer: string; actions: KeyAction[] }[] {
    return this.each((peer) => peer.session.renew(nowMs, this.keyFor(peer), madeSinceMs));
  }

  /** With one peer: it has sent, or was sent, so much. */
  renew(peer: string, nowMs: number): KeyAction[] {
    const found = this.peers.get(peer);
    return found === undefined ? [] : found.session.renew(nowMs, this.keyFor(found));
  }

  receive(bytes: Buffer, nowMs: number): Outcome {
    const message = decodeMessage(bytes);
    if (message === undefined) return { peer: "", actions: [], notTaken: "malformed" };
    const peer = message.sender.toString("hex");
    const refused = (notTaken: NotTaken): Outcome => ({ peer, actions: [], notTaken });
    const { own } = this.context;
    if (!message.receiver.equals(own) || message.sender.equals(own)) return refused("not_for_us");
    const secrets = this.secrets.find(({ keyId }) => keyId === message.keyId);
    if (secrets === undefined) return { ...refused("unknown_key"), keyId: message.keyId };
    if (!isAuthentic(message, secrets.macKey)) return refused("bad_mac");
    return { peer, ...this.receiveAuthentic(message, secrets, nowMs) };
  }

  trafficSeen(peer: string, spiIn: number, nowMs: number): KeyAction[] {
    return this.peers.get(peer)?.session.trafficSeen(spiIn, nowMs) ?? [];
  }

  tick(nowMs: number): { peer: string; actions: KeyAction[] }[] {
    const due = this.each((peer) => peer.session.tick(nowMs, this.keyFor(peer)));
    for (const [name, { session, lastTakenMs }] of this.peers) {
      // not before its challenges are void, or what it has sent would be fresh again
      if (session.isIdle && nowMs - lastTakenMs > 2 * epochMs) this.peers.delete(name);
    }
    return due;
  }

  /** The peer is a member no longer, or all of the vnet goes. */
  close(peer: string): KeyAction[] {
    return this.peers.get(peer)?.session.close() ?? [];
  }

  peerNames(): string[] {
    return [...this.peers.keys()];
  }

  // ---- from members alone

  private receiveAuthentic(message: Message, secrets: VnetSecrets, nowMs: number): Taken {
    const known = this.peers.get(message.sender.toString("hex"));
    if (message.type === "init") return this.receiveInit(message, secrets, known, nowMs);
    // a refusal for the suite comes with the other suite
    if (message.suiteId !== this.context.suite.id && message.type !== "refuse")
      return { actions: [], notTaken: "other_suite", suiteId: message.suiteId };
    const actions = known?.session.receive(message, secrets, nowMs);
    if (actions !== undefined) return { actions };
    const notTaken = "no_exchange";
    if (message.type !== "confirm") return { actions: [], notTaken };
    const body = Buffer.of(refusals.unknownExchange);
    return { actions: this.reply("refuse", message, secrets, body, nowMs), notTaken };
  }

  private receiveInit(
    message: Message,
    secrets: VnetSecrets,
    known: Peer | undefined,
    nowMs: number,
  ): Taken {
    const { suiteId } = message;
    if (suiteId !== this.context.suite.id) {
      const body = Buffer.of(refusals.suite);
      const actions = this.reply("refuse", message, secrets, body, nowMs);
      return { notTaken: "other_suite", suiteId, actions };
    }
    if (known?.session.knows(message) === true)
      return { actions: known.session.receive(message, secrets, nowMs) ?? [] };
    if (!this.isFresh(message, known, nowMs)) {
      const challenge = this.challengeFor(message.sender, known, nowMs)[0];
      const actions = this.reply("retry", message, secrets, challenge, nowMs);
      return { notTaken: "not_fresh", actions };
    }
    if (known?.session.isHalfOpen !== true && this.halfOpen() >= this.limits.halfOpen)
      return { actions: [], notTaken: "too_many" };
    const peer = known ?? this.newPeer(Buffer.from(message.sender));
    if (peer === undefined) return { actions: [], notTaken: "too_many" };
    peer.taken += 1;
    peer.lastTakenMs = nowMs;
    return { actions: peer.session.receive(message, secrets, nowMs) ?? [] };
  }

  private reply(
    type: MessageType,
    { sender, receiver, exchangeId }: Message,
    secrets: VnetSecrets,
    body: Buffer,
    nowMs: number,
  ): KeyAction[] {
    if (!this.replies.take(nowMs)) return [];
    const { keyId, macKey } = secrets;
    const ends = { sender: receiver, receiver: sender };
    const header: Header = { type, suiteId: this.context.suite.id, keyId, ...ends, exchangeId };
    return [{ kind: "send", message: encodeMessage(header, body, macKey) }];
  }

  private keyFor({ keyId }: Peer): VnetSecrets {
    const found = this.secrets.find((each) => each.keyId === keyId) ?? this.secrets[0];
    if (found === undefined) throw new Error("a secure vnet has a key");
    return found;
  }

  /** What is to be done for each peer, for which anything is. */
  private each(step: (peer: Peer) => KeyAction[]): { peer: string; actions: KeyAction[] }[] {
    return [...this.peers].flatMap(([name, peer]) => {
      const actions = step(peer);
      return actions.length === 0 ? [] : [{ peer: name, actions }];
    });
  }

  private newPeer(peer: Buffer): Peer | undefined {
    if (this.peers.size >= this.limits.sessions) this.forgetOne();
    if (this.peers.size >= this.limits.sessions) return undefined;
    const session = new Session(this.context, peer);
    const made = { session, keyId: undefined, taken: 0, lastTakenMs: -Infinity };
    this.peers.set(peer.toString("hex"), made);
    return made;
  }

  private forgetOne(): void {
    for (const [name, { session, lastTakenMs }] of this.peers) {
      if (!session.isIdle || lastTakenMs !== -Infinity) continue;
      this.peers.delete(name);
      return;
    }
  }

  private halfOpen(): number {
    let count = 0;
    for (const { session } of this.peers.values()) if (session.isHalfOpen) count += 1;
    return count;
  }

  // ---- freshness

  private isFresh({ sender, body }: Message, known: Peer | undefined, nowMs: number): boolean {
    const given = body.subarray(0, challengeBytes);
    return this.challengeFor(sender, known, nowMs).some((each) => timingSafeEqual(each, given));
  }

  /** The current one, and the one that was until the last change of the secret. */
  private challengeFor(sender: Buffer, known: Peer | undefined, nowMs: number): [Buffer, Buffer] {
    const { current, previous } = this.secretsOfEpoch(Math.floor(nowMs / epochMs));
    const taken = Buffer.alloc(4);
    taken.writeUInt32BE((known?.taken ?? 0) >>> 0, 0);
    const of = (secret: Buffer): Buffer =>
      createHmac("sha256", secret)
        .update(sender)
        .update(taken)
        .digest()
        .subarray(0, challengeBytes);
    return [of(current), of(previous)];
  }

  private secretsOfEpoch(epoch: number): { current: Buffer; previous: Buffer } {
    const { random } = this.context;
    const before = this.challengeSecrets;
    if (before?.epoch === epoch) return before;
    const previous = before?.epoch === epoch - 1 ? before.current : random(32);
    this.challengeSecrets = { epoch, current: random(32), previous };
    return this.challengeSecrets;
  }
}
