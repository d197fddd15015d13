// SPDX-License-Identifier: Apache-2.0
/**
 * The state machine between two hosts: that they come to the same keys or to none, that no packet is
 * lost by a change of keys whatever happens to the messages, and that no key comes twice.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { suites } from "../../src/keys/esp-keys.js";
import { defaultTimes } from "../../src/keys/session.js";
import { KeyHost, keyOf, settle, type HostOptions } from "./lib/key-hosts.js";

function pair(options: HostOptions = {}): [KeyHost, KeyHost] {
  return [new KeyHost("a", 0x0a, options), new KeyHost("b", 0x0b, options)];
}

/** Both send with a key that the other receives by, each direction with its own. */
function expectAgreed(a: KeyHost, b: KeyHost): void {
  expect(a.sending).toBeDefined();
  expect(b.sending).toBeDefined();
  expect(b.receiving.get(a.sending!.spi)).toBe(a.sending!.key);
  expect(a.receiving.get(b.sending!.spi)).toBe(b.sending!.key);
  expect(a.sending!.key).not.toBe(b.sending!.key);
}

function expectNoKeyTwice(...hosts: KeyHost[]): void {
  const sent = hosts.flatMap(({ sentWith }) => sentWith);
  const received = hosts.flatMap(({ receivedWith }) => receivedWith);
  expect(new Set(sent).size).toBe(sent.length);
  expect(new Set(received).size).toBe(received.length);
}

describe("an exchange", () => {
  it.each(suites.map((suite) => [suite.level, suite.name, suite] as const))(
    "makes keys for %s %s",
    (_level, _name, suite) => {
      const [a, b] = pair({ suite });
      a.start(b, 0);
      const messages = settle([a, b], 0);
      expectAgreed(a, b);
      // the first has no challenge and is asked for one
      expect(messages.map((message) => message[1])).toEqual([1, 6, 1, 2, 3, 4, 5]);
      expect(messages.map(({ length }) => length)).toEqual([136, 84, 136, 120, 84, 84, 84]);
      expect([a.receiving.size, b.receiving.size, a.spis.size, b.spis.size]).toEqual([1, 1, 1, 1]);
      expectNoKeyTwice(a, b);
    },
  );

  it("neither secrets nor traffic keys are in its messages", () => {
    const [a, b] = pair();
    a.start(b, 0);
    const wire = Buffer.concat(settle([a, b], 0)).toString("hex");
    for (const key of [...a.sentWith, ...b.sentWith]) expect(wire).not.toContain(key.slice(0, 16));
    expect(wire).not.toContain(keyOf("the key").secret.export().toString("hex").slice(0, 16));
  });

  it("receives before it answers, and sends only after the peer has proved that it receives", () => {
    const [a, b] = pair();
    a.start(b, 0);
    const deliver = (from: KeyHost, to: KeyHost): void => {
      for (const message of from.outbox.splice(0)) to.receive(message, 0);
    };
    deliver(a, b); // init
    deliver(b, a); // retry
    deliver(a, b); // init
    expect([b.receiving.size, b.sending]).toEqual([1, undefined]);
    deliver(b, a); // response
    expect([a.receiving.size, a.sending]).toEqual([1, undefined]);
    deliver(a, b); // confirm
    expect(b.sending).toBeDefined();
    expect(a.sending).toBeUndefined();
    deliver(b, a); // ack
    expectAgreed(a, b);
  });

  it("both at once: one exchange remains, that of the lower host id", () => {
    const [a, b] = pair();
    a.start(b, 0);
    b.start(a, 0);
    settle([a, b], 0);
    for (let now = 0; now < 5000; now += 250) {
      a.tick(now);
      b.tick(now);
      settle([a, b], now);
    }
    expectAgreed(a, b);
    expect([a.sentWith.length, b.sentWith.length]).toEqual([1, 1]);
    expect([a.receiving.size, b.receiving.size, a.spis.size, b.spis.size]).toEqual([1, 1, 1, 1]);
  });

  it("without an answer it is given up, and can be begun again", () => {
    const [a, b] = pair();
    a.start(b, 0);
    for (let now = 0; now < 300_000; now += 100) a.tick(now);
    expect(a.outbox).toHaveLength(defaultTimes.initTries);
    expect(a.others).toEqual([{ kind: "gaveUp" }]);
    expect(a.spis.size).toBe(0);
    a.outbox.length = 0;
    a.start(b, 300_000);
    settle([a, b], 300_000);
    expectAgreed(a, b);
  });

  it("an answer that nobody confirms leaves nothing", () => {
    const [a, b] = pair();
    a.start(b, 0);
    for (const message of a.outbox.splice(0)) b.receive(message, 0);
    for (const message of b.outbox.splice(0)) a.receive(message, 0);
    for (const message of a.outbox.splice(0)) b.receive(message, 0);
    expect(b.receiving.size).toBe(1);
    for (let now = 0; now <= defaultTimes.answerMs; now += 1000) b.tick(now);
    expect([b.receiving.size, b.spis.size]).toEqual([0, 0]);
    // the confirmation comes too late, and its sender is told so: it drops what it had and begins anew
    for (const message of b.outbox.splice(0)) a.receive(message, 40_000);
    settle([a, b], 40_000);
    for (let now = 40_000; now < 60_000; now += 500) a.tick(now);
    expect(a.receiving.size).toBe(0);
    a.start(b, 60_000);
    settle([a, b], 60_000);
    expectAgreed(a, b);
    expectNoKeyTwice(a, b);
  });
});

describe("new keys", () => {
  const established = (options: HostOptions = {}): [KeyHost, KeyHost] => {
    const [a, b] = pair(options);
    a.start(b, 0);
    settle([a, b], 0);
    return [a, b];
  };

  it("come by other times when those of the configuration change, and no later", () => {
    const [a, b] = established();
    const first = a.sending!.key;
    a.times.rekeyMs = 60_000;
    a.exchanges.timesChanged(10_000);
    const runTo = (nowMs: number): void => {
      a.tick(nowMs);
      settle([a, b], nowMs);
    };
    runTo(59_000);
    expect(a.sending!.key).toBe(first);
    runTo(60_000);
    const second = a.sending!.key;
    expect(second).not.toBe(first);
    expectAgreed(a, b);
    // longer times are for the keys that come: these are changed when it was meant
    a.times.rekeyMs = 600_000;
    a.exchanges.timesChanged(61_000);
    runTo(60_000 + 1.1 * 60_000);
    expect(a.sending!.key).not.toBe(second);
    // keys that are older than the new time: at once
    const third = a.sending!.key;
    a.times.rekeyMs = 1000;
    a.exchanges.timesChanged(300_000);
    runTo(300_000);
    expect(a.sending!.key).not.toBe(third);
    expectAgreed(a, b);
    expectNoKeyTwice(a, b);
  });

  it("come by time, jittered, and the old ones go when packets on the way have arrived", () => {
    const [a, b] = established();
    const first = a.sending!.key;
    let changedMs = 0;
    for (let now = 0; changedMs === 0 && now < 2 * defaultTimes.rekeyMs; now += 1000) {
      a.tick(now);
      b.tick(now);
      settle([a, b], now);
      if (a.sending!.key !== first) changedMs = now;
    }
    expect(changedMs).toBeGreaterThanOrEqual(0.9 * defaultTimes.rekeyMs);
    expect(changedMs).toBeLessThanOrEqual(1.1 * defaultTimes.rekeyMs);
    expectAgreed(a, b);
    expect([a.receiving.size, b.receiving.size]).toEqual([2, 2]);
    a.tick(changedMs + defaultTimes.drainMs);
    b.tick(changedMs + defaultTimes.drainMs);
    expect([a.receiving.size, b.receiving.size]).toEqual([1, 1]);
    expectAgreed(a, b);
    expectNoKeyTwice(a, b);
  });

  it("the last message lost: the old ones stay until the peer is seen to send with the new", () => {
    const [a, b] = established();
    a.start(b, 1000);
    for (;;) {
      for (const message of a.outbox.splice(0)) if (message[1] !== 5) b.receive(message, 1000);
      const answers = b.outbox.splice(0);
      if (answers.length === 0) break;
      for (const message of answers) a.receive(message, 1000);
    }
    expectAgreed(a, b);
    b.tick(1_000_000);
    expect(b.receiving.size).toBe(2);
    b.trafficSeen(a, a.sending!.spi, 1_000_000);
    b.tick(1_000_000 + defaultTimes.drainMs);
    expect(b.receiving.size).toBe(1);
    expectAgreed(a, b);
  });

  it("the acknowledgement lost for ever: the peer's traffic stands for it", () => {
    const [a, b] = established();
    a.start(b, 1000);
    for (let round = 0; round < 6; round++) {
      for (const message of a.outbox.splice(0)) b.receive(message, 1000);
      for (const message of b.outbox.splice(0)) if (message[1] !== 4) a.receive(message, 1000);
    }
    expect(a.sentWith).toHaveLength(1);
    expect(b.sentWith).toHaveLength(2);
    // each direction works all the same, one with new keys, one with old
    expectAgreed(a, b);
    a.trafficSeen(b, b.sending!.spi, 2000);
    expect(a.sentWith).toHaveLength(2);
    expectAgreed(a, b);
  });

  it("without any the old ones end at their hard limit, and nothing is sent then", () => {
    const [a, b] = established();
    a.outbox.length = 0;
    for (let now = 0; now <= defaultTimes.hardMs; now += 10_000) a.tick(now);
    expect(a.sending).toBeUndefined();
    expect(a.receiving.size).toBe(0);
    expect(b.receiving.size).toBe(1);
  });

  it("an end leaves nothing", () => {
    const [a, b] = established();
    a.start(b, 1000);
    for (const message of a.outbox.splice(0)) b.receive(message, 1000);
    a.close(b);
    b.close(a);
    for (const host of [a, b])
      expect([host.receiving.size, host.sending, host.spis.size]).toEqual([0, undefined, 0]);
  });
});

/** mulberry32: a small generator, so that one number is a whole network's behaviour */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface Chaos {
  seed: number;
  loss: number;
  duplicate: number;
  tamper: number;
  maxDelayMs: number;
  restarts: boolean;
  looksAtTraffic: boolean;
}

const chaos: fc.Arbitrary<Chaos> = fc.record({
  seed: fc.nat(),
  loss: fc.constantFrom(0, 0.1, 0.3, 0.6),
  duplicate: fc.constantFrom(0, 0.2, 0.5),
  tamper: fc.constantFrom(0, 0.1, 0.3),
  maxDelayMs: fc.constantFrom(1, 100, 2000, 20_000),
  restarts: fc.boolean(),
  looksAtTraffic: fc.boolean(),
});

const stepMs = 100;
const rekeyMs = 20_000;
const times = { rekeyMs, hardMs: 10_000_000, drainMs: 3000, answerMs: 8000, lastRetryMs: 2000 };

interface InFlight {
  atMs: number;
  to: KeyHost;
  message: Buffer;
}
interface Packet {
  atMs: number;
  from: KeyHost;
  to: KeyHost;
  spi: number;
  key: string;
}

/** A network that does to messages what it likes, and to packets no more than to hold them a while. */
class Network {
  private flying: InFlight[] = [];
  private packets: Packet[] = [];
  private readonly heard: Buffer[] = [];
  lost = 0;
  delivered = 0;
  restarted = new Set<KeyHost>();

  constructor(
    private readonly hosts: readonly [KeyHost, KeyHost],
    private readonly options: Chaos,
    private readonly roll: () => number,
  ) {}

  step(nowMs: number, calm: boolean): void {
    for (const host of this.hosts) {
      host.tick(nowMs);
      this.carry(host, nowMs, calm);
      this.sendPacket(host, nowMs);
    }
    this.replay(nowMs, calm);
    for (const { to, message } of due(this.flying, nowMs)) {
      to.receive(message, nowMs);
      this.carry(to, nowMs, calm);
    }
    for (const packet of due(this.packets, nowMs)) this.deliver(packet, nowMs);
  }

  private other(host: KeyHost): KeyHost {
    return host === this.hosts[0] ? this.hosts[1] : this.hosts[0];
  }

  private carry(host: KeyHost, nowMs: number, calm: boolean): void {
    const { loss, duplicate, tamper, maxDelayMs } = this.options;
    for (const message of host.outbox.splice(0)) {
      this.heard.push(message);
      const copies = calm ? 1 : this.roll() < duplicate ? 2 : 1;
      for (let copy = 0; copy < copies; copy++) {
        if (!calm && this.roll() < loss) continue;
        const sent = Buffer.from(message);
        if (!calm && this.roll() < tamper) this.spoil(sent);
        const delayMs = calm ? 1 : Math.floor(this.roll() * maxDelayMs);
        this.flying.push({ atMs: nowMs + delayMs, to: this.other(host), message: sent });
      }
    }
  }

  private spoil(message: Buffer): void {
    const at = Math.floor(this.roll() * message.length);
    message[at] = (message[at] ?? 0) ^ (1 + Math.floor(this.roll() * 255));
  }

  /** What was ever heard, to whom ever, at any later time: what an attacker on the LAN can do. */
  private replay(nowMs: number, calm: boolean): void {
    if (calm || this.heard.length === 0 || this.roll() > 0.3) return;
    const message = this.heard[Math.floor(this.roll() * this.heard.length)]!;
    const to = this.hosts[this.roll() < 0.5 ? 0 : 1];
    this.flying.push({ atMs: nowMs, to, message: Buffer.from(message) });
  }

  private sendPacket(from: KeyHost, nowMs: number): void {
    if (from.sending === undefined) return;
    const atMs = nowMs + Math.floor(this.roll() * (times.drainMs - 2 * stepMs));
    this.packets.push({ atMs, from, to: this.other(from), ...from.sending });
  }

  private deliver({ from, to, spi, key }: Packet, nowMs: number): void {
    if (to.receiving.get(spi) === key) {
      this.delivered += 1;
      if (this.options.looksAtTraffic && this.roll() < 0.2) to.trafficSeen(from, spi, nowMs);
    } else if (to.receiving.has(spi)) {
      throw new Error("the two ends of an SA have different keys");
    } else this.lost += 1;
  }
}

function due<T extends { atMs: number }>(list: T[], nowMs: number): T[] {
  const now = list.filter(({ atMs }) => atMs <= nowMs).sort((a, b) => a.atMs - b.atMs);
  list.splice(0, list.length, ...list.filter(({ atMs }) => atMs > nowMs));
  return now;
}

describe("whatever the network does", () => {
  it("the same keys or none, never one twice, and no packet is lost by a change", () => {
    let delivered = 0;
    let rekeys = 0;
    fc.assert(
      fc.property(chaos, (options) => {
        const hosts = pair({ times });
        const [a, b] = hosts;
        const roll = dice(options.seed);
        const network = new Network(hosts, options, roll);
        const begin = (now: number): void => {
          if (!a.sending && roll() < 0.2) a.start(b, now);
          if (!b.sending && roll() < 0.2) b.start(a, now);
        };
        let now = 0;
        for (; now < 100_000; now += stepMs) {
          begin(now);
          if (roll() < 0.005) (roll() < 0.5 ? a : b).start(roll() < 0.5 ? b : a, now);
          if (options.restarts && roll() < 0.002) {
            const host = roll() < 0.5 ? a : b;
            host.boot();
            network.restarted.add(host);
          }
          network.step(now, false);
        }
        if (network.restarted.size === 0) expect(network.lost).toBe(0);
        // then all messages arrive: whatever state they are in, they find together again
        for (const until = now + 100_000; now < until; now += stepMs) {
          begin(now);
          network.step(now, true);
        }
        if (network.restarted.size === 0) expect(network.lost).toBe(0);
        expectAgreed(a, b);
        expectNoKeyTwice(a, b);
        expect(Math.max(a.receiving.size, b.receiving.size)).toBeLessThanOrEqual(4);
        delivered += network.delivered;
        rekeys += a.sentWith.length;
      }),
      { numRuns: 100 },
    );
    expect(delivered).toBeGreaterThan(10_000);
    expect(rekeys).toBeGreaterThan(100);
  }, 120_000);
});
