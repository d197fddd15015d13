// SPDX-License-Identifier: Apache-2.0
/**
 * A vnet changes its secret over several hosts, with the controller's own parts over a kernel and a network of the
 * test's making: whatever the order of the hosts and whatever becomes of messages, what is sent can be received.
 */
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseVnetId } from "../../src/base/vnet-id.js";
import type { VnetKey } from "../../src/base/vnet-key.js";
import { keyTimesOf } from "../../src/controller/key-times.js";
import { Rotations } from "../../src/controller/security/rotations.js";
import { SecureVnet } from "../../src/controller/security/secure-vnet.js";
import { News, type NewsItem } from "../../src/controller/news.js";
import { secureSample } from "../../src/controller/metrics-view.js";
import type { SecureSample } from "../../src/metrics/snapshot.js";
import { SaWatch } from "../../src/controller/security/sa-watch.js";
import type { EspHost, EspPath, EspSa } from "../../src/host/esp.js";
import { suiteOf, type EspKeys, type Suite } from "../../src/keys/esp-keys.js";
import { SpiPool } from "../../src/keys/spi-pool.js";
import { daemonConfigDefaults } from "../../src/config/daemon-config.js";
import { logEvents, type LogEvent } from "../../src/log-events.js";
import { keyOf, keyText } from "./lib/key-hosts.js";

const times = keyTimesOf(daemonConfigDefaults().keys);
const [oldKey, newKey] = [keyOf("old"), keyOf("new")];
const stepMs = 250;
const helloMs = 1000;
const suite = suiteOf("conf", "gcm");

interface Sent {
  from: Host;
  to: string;
  message: Buffer;
}

/** What a hello tells. */
interface Said {
  from: Host;
  keyIds: string[];
}

class Host {
  readonly hostId: string;
  readonly address: string;
  readonly secure: SecureVnet;
  readonly rotations: Rotations;
  readonly sent: Sent[] = [];
  readonly watch: SaWatch;
  readonly news = new News();
  /** of the kernel: SPI -> key; address of the peer -> what is sent by; all SAs by direction and SPI */
  readonly receiving = new Map<number, string>();
  readonly sending = new Map<string, { spi: number; key: string }>();
  private readonly sas = new Map<string, EspSa>();
  /** generations that were ever sent with, and messages */
  used = 0;
  sentCount = 0;

  constructor(n: number, keys: VnetKey[]) {
    this.hostId = Buffer.alloc(16, n).toString("hex");
    this.address = `10.0.0.${n}`;
    const fake = {
      hostId: this.hostId,
      log: {
        say: (event: LogEvent, text: string) => {
          if (logEvents[event].level !== "info") fail(text);
        },
      },
      maps: {
        setSpi: () => undefined,
        deleteSpi: () => undefined,
        nexthopOf: () => undefined,
        setSecureMembers: () => undefined,
        spis: () => this.receiving,
        spi: () => undefined,
      },
      news: this.news,
      control: {
        keys: ({ addr }: { addr: Uint8Array }) => ({ reason: "ok", nexthop: addr.at(-1), gen: 1 }),
      },
      config: daemonConfigDefaults(),
    };
    const esp = this.kernel() as EspHost;
    this.watch = new SaWatch(fake as never, esp);
    this.secure = new SecureVnet(
      {
        context: fake as never,
        esp,
        spis: new SpiPool(randomBytes),
        times,
        send: ({ path }, message) => {
          this.sent.push({ from: this, to: path.ends.peer, message });
          this.sentCount += 1;
        },
        keyed: () => undefined,
        primaryOf: () => undefined,
        isHeard: () => true,
        silentMs: () => 90_000,
      },
      { slot: 1, handle: 1, id: parseVnetId("97") },
      { suite, keys },
    );
    this.rotations = new Rotations({ patienceMs: () => 3 * helloMs, isMember: () => true });
  }

  get place(): { ifindex: number; family: 4; own: string } {
    return { ifindex: 2, family: 4, own: this.address };
  }

  get keyIds(): string[] {
    return this.secure.keys.map(({ id }) => id);
  }

  private kernel(): Partial<EspHost> {
    return {
      addIn: (path: EspPath, spi: number, _suite: Suite, keys: EspKeys) => {
        this.receiving.set(spi, keyText(keys));
        this.sas.set(`in ${spi}`, saOf("in", path, spi));
      },
      addOut: (path: EspPath, spi: number, _suite: Suite, keys: EspKeys) => {
        this.sending.set(path.peer, { spi, key: keyText(keys) });
        this.sas.set(`out ${spi}`, saOf("out", path, spi));
        this.used += 1;
      },
      removeIn: (_path: EspPath, spi: number) => {
        this.receiving.delete(spi);
        this.sas.delete(`in ${spi}`);
      },
      removeOut: ({ peer }: EspPath, spi: number) => {
        if (this.sending.get(peer)?.spi === spi) this.sending.delete(peer);
        this.sas.delete(`out ${spi}`);
      },
      stats: () => [...this.sas.values()].map((sa) => ({ ...sa })),
    };
  }

  gets(spi: number): void {
    const sa = this.sas.get(`in ${spi}`);
    if (sa !== undefined) sa.packets += 1;
  }

  hears({ from, keyIds }: Said, nowMs: number): void {
    // who shares no key with the sender cannot judge its mac
    if (from === this || !keyIds.some((id) => this.keyIds.includes(id))) return;
    const { hostId: host, address } = from;
    const heard = { place: this.place, host, name: "", bootNonce: "00", address };
    this.secure.hint(heard, keyIds, nowMs);
  }
}

function saOf(direction: "in" | "out", path: EspPath, spi: number): EspSa {
  const { device, nexthop, own, peer } = path;
  const counts = { packets: 0, bytes: 0, addedSeconds: 0, usedSeconds: 0 };
  const errors = { replayErrors: 0, replayWindowErrors: 0, integrityErrors: 0 };
  return { direction, spi, device, nexthop, own, peer, ...counts, ...errors };
}

function fail(text: string): never {
  throw new Error(text);
}

class Lan {
  nowMs = 0;
  private onTheWay: Sent[] = [];

  constructor(
    readonly hosts: readonly Host[],
    /** whether a message, or a hello, arrives */
    private readonly arrives: () => boolean = () => true,
  ) {}

  hello(from: Host): void {
    for (const host of this.hosts)
      if (this.arrives()) host.hears({ from, keyIds: from.keyIds }, this.nowMs);
  }

  rotate(host: Host, keys: VnetKey[] = [newKey, oldKey]): void {
    host.secure.setKeys(keys);
    this.hello(host);
  }

  /** In each step messages that were sent in the one before arrive. */
  step(): void {
    this.nowMs += stepMs;
    const arriving = this.onTheWay.splice(0).filter(() => this.arrives());
    for (const { from, to, message } of arriving) {
      const host = this.hosts.find(({ address }) => address === to);
      host?.secure.keyMessage(host.place, from.address, Buffer.from(message), this.nowMs);
    }
    for (const host of this.hosts) {
      host.secure.tick(this.nowMs);
      host.watch.tick([host.secure], this.nowMs);
      if (host.rotations.isOver(host.secure, this.nowMs)) host.secure.setKeys([newKey]);
      if (this.nowMs % helloMs === 0) this.hello(host);
    }
    for (const host of this.hosts) this.onTheWay.push(...host.sent.splice(0));
    this.check();
  }

  run(ms: number): void {
    for (const end = this.nowMs + ms; this.nowMs < end;) this.step();
  }

  /** No packet is lost: what one sends with, the other receives with. */
  private check(): void {
    for (const from of this.hosts) {
      for (const [peer, { spi, key }] of from.sending) {
        const to = this.hosts.find(({ address }) => address === peer);
        expect(to?.receiving.get(spi)).toBe(key);
        to?.gets(spi);
      }
    }
  }

  /** All send to all. */
  get isWhole(): boolean {
    return this.hosts.every(({ sending }) => sending.size === this.hosts.length - 1);
  }

  secretsInUse(): Set<string | undefined> {
    const all = this.hosts.flatMap(({ secure }) =>
      secure.paths().map((path) => secure.currentKeys(path, this.nowMs)?.keyId),
    );
    return new Set(all);
  }
}

const hostsWith = (count: number, keys: VnetKey[]): Host[] =>
  Array.from({ length: count }, (_, n) => new Host(n + 1, keys));

describe("a vnet of several hosts changes its secret", () => {
  it("host by host: the old one is used until both of two have moved, and given up when all have", () => {
    const lan = new Lan(hostsWith(3, [oldKey]));
    const [a, b, c] = lan.hosts as [Host, Host, Host];
    lan.run(5000);
    expect(lan.isWhole).toBe(true);
    lan.rotate(a);
    lan.run(30_000);
    expect(lan.secretsInUse()).toEqual(new Set([oldKey.id]));
    expect(a.rotations.problems(a.secure, lan.nowMs)[0]).toContain("10.0.0.2, 10.0.0.3");
    lan.rotate(b);
    lan.run(30_000);
    expect(lan.secretsInUse()).toEqual(new Set([oldKey.id, newKey.id]));
    expect(a.keyIds).toEqual([newKey.id, oldKey.id]);
    expect(a.rotations.problems(a.secure, lan.nowMs)[0]).toMatch(/have not: 10\.0\.0\.3 \(/);
    lan.rotate(c);
    lan.run(30_000);
    expect(lan.secretsInUse()).toEqual(new Set([newKey.id]));
    for (const host of lan.hosts) {
      expect(host.keyIds).toEqual([newKey.id]);
      expect(host.rotations.problems(host.secure, lan.nowMs)).toEqual([]);
      expect(host.receiving.size).toBe(2);
    }
    expect(lan.isWhole).toBe(true);
  });

  it("and the metrics say so: keys with whom, how old, how often changed", () => {
    const lan = new Lan(hostsWith(3, [oldKey]));
    const [a] = lan.hosts as [Host];
    const sample = (): SecureSample => secureSample(a.secure, lan.nowMs);
    const ageSeconds = (): number => Date.now() / 1000 - (sample().oldestSeconds ?? NaN);
    expect(sample()).toMatchObject({ keyed: 0, waiting: 0, agreed: 0, oldestSeconds: undefined });
    lan.run(5000);
    expect(sample()).toMatchObject({
      ...{ keyed: 2, waiting: 0, isChanging: false, associations: { encap: 2, decap: 2 } },
      ...{ agreed: 2, renewed: 0, failed: 0 },
    });
    lan.run(30_000);
    expect(ageSeconds()).toBeGreaterThan(25);
    for (const host of lan.hosts) lan.rotate(host);
    expect(sample().isChanging).toBe(true);
    lan.run(30_000);
    const { agreed, renewed, isChanging, keyed } = sample();
    expect([isChanging, keyed]).toEqual([false, 2]);
    expect(renewed).toBeGreaterThanOrEqual(2);
    expect(agreed).toBe(renewed + 2);
    expect(ageSeconds()).toBeLessThan(31);
  });

  it("without one of them, when that is said: what was agreed on with it goes at once", () => {
    const lan = new Lan(hostsWith(3, [oldKey]));
    const [a, b, out] = lan.hosts as [Host, Host, Host];
    lan.run(5000);
    for (const host of [a, b]) lan.rotate(host);
    lan.run(30_000);
    expect(a.receiving.size).toBe(2);
    for (const host of [a, b]) {
      host.secure.setKeys([newKey]);
      host.secure.evict(lan.nowMs);
      expect([...host.sending.keys()]).toEqual([host === a ? b.address : a.address]);
      expect(host.receiving.size).toBe(1);
    }
    const rest = new Lan([a, b]);
    rest.nowMs = lan.nowMs;
    for (let hellos = 0; hellos < 10; hellos += 1) {
      for (const host of [a, b]) host.hears({ from: out, keyIds: [oldKey.id] }, rest.nowMs);
      rest.run(1000);
    }
    expect([rest.isWhole, ...rest.secretsInUse()]).toEqual([true, newKey.id]);
    expect([a.receiving.size, b.receiving.size]).toEqual([1, 1]);
  });

  it("and back, while it runs", () => {
    const lan = new Lan(hostsWith(2, [oldKey]));
    const [a] = lan.hosts as [Host, Host];
    lan.run(5000);
    lan.rotate(a);
    lan.run(5000);
    lan.rotate(a, [oldKey, newKey]);
    lan.run(20_000);
    expect(lan.secretsInUse()).toEqual(new Set([oldKey.id]));
    expect(lan.isWhole).toBe(true);
  });

  it("a host that was away, and has the old one alone, is let in when it has moved", () => {
    const lan = new Lan(hostsWith(3, [newKey]));
    const late = new Host(9, [oldKey]);
    const all = new Lan([...lan.hosts, late]);
    all.run(10_000);
    expect(late.sending.size).toBe(0);
    late.secure.setKeys([newKey, oldKey]);
    all.run(20_000);
    expect([all.isWhole, late.keyIds]).toEqual([true, [newKey.id]]);
  });

  it("whatever the order and however much is lost, no packet is, and all end with the new one", () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray([0, 1, 2], { minLength: 3, maxLength: 3 }),
        fc.array(fc.nat(12_000), { minLength: 3, maxLength: 3 }),
        fc.infiniteStream(fc.integer({ min: 0, max: 99 })),
        (order, pausesMs, chances) => {
          let lost = 40;
          const lan = new Lan(hostsWith(3, [oldKey]), () => chances.next().value >= lost);
          lan.run(60_000);
          for (const [at, n] of order.entries()) {
            lan.rotate(lan.hosts[n]!);
            lan.run(pausesMs[at] ?? 0);
          }
          lan.run(60_000);
          lost = 0;
          lan.run(60_000);
          expect(lan.hosts.map(({ keyIds }) => keyIds)).toEqual(lan.hosts.map(() => [newKey.id]));
          expect(lan.secretsInUse()).toEqual(new Set([newKey.id]));
          expect(lan.isWhole).toBe(true);
        },
      ),
      { numRuns: 8 },
    );
  });
});

it("who watches is told of new keys, as long as it watches", () => {
  const lan = new Lan(hostsWith(2, [oldKey]));
  const [a] = lan.hosts as [Host, Host];
  const told: NewsItem[] = [];
  const end = a.news.listen((item) => told.push(item));
  lan.run(5000);
  expect(told[0]).toMatchObject({ kind: "keys", handle: 1 });
  expect(told[0]!.text).toMatch(/^new keys with .*\(10\.0\.0\.2\)$/u);
  const before = told.length;
  a.secure.rekey(lan.nowMs);
  lan.run(5000);
  expect(told.length).toBeGreaterThan(before);
  end();
  const after = told.length;
  a.secure.rekey(lan.nowMs);
  lan.run(5000);
  expect(told).toHaveLength(after);
});

describe("new keys that both sides ask for at once", () => {
  it("cost no packet, whenever it is looked at the SAs meanwhile", () => {
    for (let delayMs = 0; delayMs < 5000; delayMs += stepMs) {
      const lan = new Lan(hostsWith(2, [oldKey]));
      lan.run(15_000 + delayMs);
      expect(lan.isWhole).toBe(true);
      for (const { secure } of lan.hosts) expect(secure.rekey(lan.nowMs)).toBe(1);
      lan.run(30_000);
      expect(lan.isWhole).toBe(true);
      expect(lan.hosts.map(({ used }) => used)).toEqual([2, 2]);
      expect(lan.hosts.map(({ receiving }) => receiving.size)).toEqual([1, 1]);
    }
  });
});

describe("a stranger who recorded hellos of before and after", () => {
  /** Repeats b's hellos to a: those of before for so long, then those of after for so long. */
  function repeated(
    everyMs: number,
    hellos: number,
    forMs: number,
  ): { used: number; sent: number } {
    // the change waits for a third, so both secrets are taken
    const waiting = new Host(3, [oldKey]);
    const lan = new Lan([...hostsWith(2, [newKey, oldKey]), waiting]);
    const [a, b] = lan.hosts as [Host, Host];
    lan.run(times.drainMs + 5000);
    const before = [a.used, a.sentCount] as const;
    for (const end = lan.nowMs + forMs; lan.nowMs < end;) {
      for (let count = 0; count < hellos; count += 1) {
        const isOld = (Math.floor(lan.nowMs / everyMs) + count) % 2 === 0;
        a.hears({ from: b, keyIds: isOld ? [oldKey.id] : [newKey.id, oldKey.id] }, lan.nowMs);
      }
      lan.step();
    }
    expect(a.keyIds).toEqual([newKey.id, oldKey.id]);
    const after = [a.used, a.sentCount] as const;
    lan.run(60_000);
    expect(lan.isWhole).toBe(true);
    expect(a.receiving.size).toBe(2);
    return { used: after[0] - before[0], sent: after[1] - before[1] };
  }

  it.each([
    ["slowly", 2000, 1],
    ["many at once", 250, 100],
    ["many at once, those of before first", 250, 101],
  ])(
    "makes no more than a change of keys now and then by repeating them: %s",
    (_how, everyMs, n) => {
      const forMs = 60_000;
      const { used, sent } = repeated(everyMs, n, forMs);
      expect(used).toBeLessThanOrEqual(1 + forMs / times.drainMs);
      expect(sent).toBeLessThanOrEqual(20 * (1 + forMs / times.drainMs));
    },
  );
});
