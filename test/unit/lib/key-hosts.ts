// SPDX-License-Identifier: Apache-2.0
/**
 * Hosts that agree on keys over a network of the test's making, with a model of what their kernels
 * do with the actions: SAs to receive by, one to send by. Keys are kept as text, to compare and count.
 */
import { createHash } from "node:crypto";
import { vnetKeyOf, type VnetKey } from "../../../src/base/vnet-key.js";
import { suiteOf, type EspKeys, type Suite } from "../../../src/keys/esp-keys.js";
import {
  KeyExchanges,
  defaultLimits,
  type ExchangeLimits,
  type Outcome,
} from "../../../src/keys/exchanges.js";
import { defaultTimes, type KeyAction, type KeyTimes } from "../../../src/keys/session.js";
import { SpiPool } from "../../../src/keys/spi-pool.js";

export const vnet = Buffer.from("00000000000000000000000000000097", "hex");

/** Bytes that follow from a seed, never the same twice. */
export function seededRandom(seed: string): (bytes: number) => Buffer {
  let count = 0;
  return (bytes) => {
    const blocks: Buffer[] = [];
    while (blocks.length * 32 < bytes)
      blocks.push(
        createHash("sha256")
          .update(`${seed} ${(count += 1)}`)
          .digest(),
      );
    return Buffer.concat(blocks).subarray(0, bytes);
  };
}

export function keyOf(seed: string): VnetKey {
  return vnetKeyOf(createHash("sha256").update(seed).digest());
}

export function keyText({ cipher, salt, auth }: EspKeys): string {
  return Buffer.concat([cipher, salt, auth]).toString("hex");
}

export interface HostOptions {
  keys?: VnetKey[];
  suite?: Suite;
  times?: Partial<KeyTimes>;
  limits?: Partial<ExchangeLimits>;
  vnet?: Buffer;
}

export class KeyHost {
  readonly id: Buffer;
  exchanges: KeyExchanges;
  /** of this kernel: SPI -> key */
  readonly receiving = new Map<number, string>();
  sending: { spi: number; key: string } | undefined;
  /** every key that was ever sent with, and received by */
  readonly sentWith: string[] = [];
  readonly receivedWith: string[] = [];
  readonly outbox: Buffer[] = [];
  readonly others: KeyAction[] = [];
  readonly notTaken: Outcome[] = [];
  private starts = 0;
  spis!: SpiPool;
  /** of the exchanges now, to be changed as a reload does */
  times: KeyTimes = defaultTimes;

  constructor(
    readonly name: string,
    idByte: number,
    readonly options: HostOptions = {},
  ) {
    this.id = Buffer.alloc(16, idByte);
    this.exchanges = this.boot();
  }

  get hostId(): string {
    return this.id.toString("hex");
  }

  /** A daemon that remembers nothing. Its kernel keeps what it has, if it is let. */
  boot(keepKernel = false): KeyExchanges {
    const { keys, suite, times, limits } = this.options;
    const random = seededRandom(`${this.name} ${(this.starts += 1)}`);
    this.spis = new SpiPool(random);
    this.exchanges = new KeyExchanges(
      {
        vnet: this.options.vnet ?? vnet,
        own: this.id,
        suite: suite ?? suiteOf("conf", "gcm"),
        times: (this.times = { ...defaultTimes, ...times }),
        spis: this.spis,
        random,
      },
      keys ?? [keyOf("the key")],
      { ...defaultLimits, ...limits },
    );
    if (!keepKernel) {
      this.receiving.clear();
      this.sending = undefined;
    }
    return this.exchanges;
  }

  start(peer: KeyHost, nowMs: number): void {
    this.take(this.exchanges.start(peer.id, nowMs).actions);
  }

  receive(message: Buffer, nowMs: number): Outcome {
    const outcome = this.exchanges.receive(message, nowMs);
    if (outcome.notTaken !== undefined) this.notTaken.push(outcome);
    this.take(outcome.actions);
    return outcome;
  }

  tick(nowMs: number): void {
    for (const { actions } of this.exchanges.tick(nowMs)) this.take(actions);
  }

  trafficSeen(peer: KeyHost, spi: number, nowMs: number): void {
    this.take(this.exchanges.trafficSeen(peer.hostId, spi, nowMs));
  }

  close(peer: KeyHost): void {
    this.take(this.exchanges.close(peer.hostId));
  }

  take(actions: readonly KeyAction[]): void {
    for (const action of actions) this.do(action);
  }

  private do(action: KeyAction): void {
    switch (action.kind) {
      case "send":
        this.outbox.push(action.message);
        return;
      case "receiveWith":
        if (this.receiving.has(action.spi)) throw new Error("an SPI is used twice");
        this.receiving.set(action.spi, keyText(action.keys));
        this.receivedWith.push(keyText(action.keys));
        return;
      case "sendWith":
        this.sending = { spi: action.spi, key: keyText(action.keys) };
        this.sentWith.push(keyText(action.keys));
        return;
      case "stopReceiving":
        if (!this.receiving.delete(action.spi)) throw new Error("there is no such SA");
        return;
      case "stopSending":
        // in order: the new one is used before the old one goes
        if (this.sending?.spi === action.spi) this.sending = undefined;
        return;
      case "gaveUp":
      case "otherSuite":
        this.others.push(action);
        return;
    }
  }
}

/** Delivers everything at once, in order, until nobody says any more. */
export function settle(hosts: readonly KeyHost[], nowMs: number): Buffer[] {
  const all: Buffer[] = [];
  for (;;) {
    const sent = hosts.flatMap((host) =>
      host.outbox.splice(0).map((message) => ({ host, message })),
    );
    if (sent.length === 0) return all;
    for (const { host, message } of sent) {
      all.push(message);
      for (const other of hosts) if (other !== host) other.receive(Buffer.from(message), nowMs);
    }
  }
}
