// SPDX-License-Identifier: Apache-2.0
/** What strangers, members of other vnets and those who repeat what they heard can do: nothing that is kept. */
import { createHmac, randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { suiteOf } from "../../src/keys/esp-keys.js";
import { decodeMessage, macBytes, secretsOf } from "../../src/keys/messages.js";
import { KeyHost, keyOf, settle, vnet } from "./lib/key-hosts.js";

const pair = (): [KeyHost, KeyHost] => [new KeyHost("a", 0x0a), new KeyHost("b", 0x0b)];

/** All messages of a whole exchange, as somebody on the LAN hears them. */
function recorded(a: KeyHost, b: KeyHost, nowMs = 0): Buffer[] {
  a.start(b, nowMs);
  return settle([a, b], nowMs);
}

/** What a host keeps that could grow. */
const kept = (host: KeyHost): number[] => [
  host.exchanges.size,
  host.receiving.size,
  host.spis.size,
  host.sentWith.length,
];

describe("a stranger", () => {
  it("makes no state and gets no answer, with whatever it sends", () => {
    const [a, b] = pair();
    const wire = recorded(a, b);
    const before = kept(b);
    fc.assert(
      fc.property(
        fc.nat(wire.length - 1),
        fc.nat(200),
        fc.integer({ min: 1, max: 255 }),
        (index, at, change) => {
          const message = Buffer.from(wire[index]!);
          const position = at % message.length;
          message[position] = (message[position] ?? 0) ^ change;
          const { actions, notTaken } = b.exchanges.receive(message, 0);
          expect(actions).toEqual([]);
          expect(["malformed", "not_for_us", "unknown_key", "bad_mac"]).toContain(notTaken);
        },
      ),
    );
    for (const message of wire) {
      for (let length = 0; length < message.length; length++) {
        const outcome = b.exchanges.receive(message.subarray(0, length), 0);
        expect(outcome).toMatchObject({ actions: [], notTaken: "malformed" });
      }
      const longer = Buffer.concat([message, Buffer.alloc(1)]);
      expect(b.exchanges.receive(longer, 0).notTaken).toBe("malformed");
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(b.exchanges.receive(Buffer.from(bytes), 0).actions).toEqual([]);
      }),
    );
    expect(kept(b)).toEqual(before);
  });

  it("a flood of first messages that look right costs a hash each, and nothing is kept", () => {
    const [a, b] = pair();
    a.start(b, 0);
    const init = a.outbox[0]!;
    for (let count = 0; count < 10_000; count++) {
      const message = Buffer.from(init);
      message.writeUInt32BE(count, 12); // another sender each time
      message.set(randomBytes(macBytes), message.length - macBytes);
      expect(b.exchanges.receive(message, 0)).toMatchObject({ actions: [], notTaken: "bad_mac" });
    }
    expect(kept(b)).toEqual([0, 0, 0, 0]);
  });
});

describe("who repeats what it heard", () => {
  it("an exchange that is over: no key, no change of keys, and answers no longer than what asked", () => {
    const [a, b] = pair();
    const wire = recorded(a, b);
    for (const host of [a, b]) {
      const [sending, before] = [host.sending, kept(host)];
      for (const message of [...wire, ...wire, ...[...wire].reverse()]) {
        host.receive(Buffer.from(message), 1000);
        for (const answer of host.outbox.splice(0))
          expect(answer.length).toBeLessThanOrEqual(message.length);
      }
      expect(host.sending).toEqual(sending);
      expect(kept(host)).toEqual(before);
    }
  });

  it("a first message of an earlier life of the sender, or to an earlier life of the receiver", () => {
    const [a, b] = pair();
    const wire = recorded(a, b);
    b.boot();
    for (const message of wire) b.receive(Buffer.from(message), 1000);
    expect(kept(b).slice(0, 2)).toEqual([0, 0]);
    expect(b.receivedWith).toHaveLength(1);
  });

  it("after the receiver has forgotten the sender, within and after the life of a challenge", () => {
    const [a, b] = pair();
    const wire = recorded(a, b);
    b.close(a);
    for (let now = 1000; now < 1_000_000; now += 10_000) {
      for (const message of wire) b.receive(Buffer.from(message), now);
      b.tick(now);
      expect(b.receiving.size).toBe(0);
    }
    expect(b.exchanges.size).toBe(0);
    expect(b.receivedWith).toHaveLength(1);
  });

  it("requests to prove freshness that were heard before do not end or prolong an exchange", () => {
    const [a, b] = pair();
    a.start(b, 0);
    const [init] = a.outbox.splice(0);
    b.receive(init!, 0);
    const [retry] = b.outbox.splice(0);
    a.receive(retry!, 0);
    expect(a.outbox).toHaveLength(1);
    for (let count = 0; count < 100; count++) a.receive(Buffer.from(retry!), 0);
    expect(a.outbox).toHaveLength(1);
    settle([a, b], 0);
    expect(b.receiving.get(a.sending!.spi)).toBe(a.sending!.key);
  });

  it("its answers are limited in rate", () => {
    const [a, b] = pair();
    a.start(b, 0);
    const [init] = a.outbox.splice(0);
    for (let count = 0; count < 10_000; count++) b.receive(Buffer.from(init!), 0);
    expect(b.outbox.length).toBeLessThanOrEqual(100);
    expect(kept(b)).toEqual([0, 0, 0, 0]);
  });
});

describe("what does not belong together", () => {
  it("another key: both ends learn which the other says it uses", () => {
    const a = new KeyHost("a", 0x0a);
    const b = new KeyHost("b", 0x0b, { keys: [keyOf("another key")] });
    a.start(b, 0);
    settle([a, b], 0);
    expect(b.notTaken).toMatchObject([
      { peer: a.hostId, notTaken: "unknown_key", keyId: keyOf("the key").id },
    ]);
    expect(kept(b)).toEqual([0, 0, 0, 0]);
  });

  it("a key that lies about its id gets no further", () => {
    const { secret } = keyOf("another key");
    const liar = new KeyHost("a", 0x0a, { keys: [{ id: keyOf("the key").id, secret }] });
    const b = new KeyHost("b", 0x0b);
    liar.start(b, 0);
    settle([liar, b], 0);
    expect(b.notTaken).toMatchObject([{ notTaken: "bad_mac" }]);
  });

  it("another suite or level: both ends learn it, authentically, and there are no keys", () => {
    const a = new KeyHost("a", 0x0a, { suite: suiteOf("conf", "gcm") });
    const b = new KeyHost("b", 0x0b, { suite: suiteOf("auth", "sha1") });
    a.start(b, 0);
    settle([a, b], 0);
    expect(b.notTaken).toMatchObject([{ notTaken: "other_suite", suiteId: a.options.suite!.id }]);
    expect(a.others).toEqual([{ kind: "otherSuite", suiteId: b.options.suite!.id }]);
    expect([...kept(a).slice(1), ...kept(b)]).toEqual([0, 0, 0, 0, 0, 0, 0]);
  });

  it("another vnet with the same key: its messages are nothing here", () => {
    const a = new KeyHost("a", 0x0a, { vnet: Buffer.alloc(16, 0x98) });
    const b = new KeyHost("b", 0x0b);
    a.start(b, 0);
    settle([a, b], 0);
    expect(b.notTaken).toMatchObject([{ notTaken: "bad_mac" }]);
    expect(kept(b)).toEqual([0, 0, 0, 0]);
  });

  it("messages to others, and one's own that come back", () => {
    const [a, b] = pair();
    const c = new KeyHost("c", 0x0c);
    for (const message of recorded(a, b)) {
      expect(c.receive(Buffer.from(message), 0).notTaken).toBe("not_for_us");
      const own = decodeMessage(message)!.sender.equals(a.id) ? a : b;
      expect(own.receive(Buffer.from(message), 0).notTaken).toBe("not_for_us");
    }
  });

  it("a first message whose outside a member has made and whose inside is not right: no keys", () => {
    const [a, b] = pair();
    a.start(b, 0);
    b.receive(a.outbox.splice(0)[0]!, 0);
    a.receive(b.outbox.splice(0)[0]!, 0);
    const init = a.outbox.splice(0)[0]!;
    const { secret, id } = keyOf("the key");
    const { macKey } = secretsOf(id, secret, vnet);
    for (const at of [68, 99, 100, 119]) {
      const message = Buffer.from(init);
      message[at] = (message[at] ?? 0) ^ 1;
      const front = message.subarray(0, -macBytes);
      const mac = createHmac("sha256", macKey).update(front).digest().subarray(0, macBytes);
      message.set(mac, front.length);
      // each needs a challenge of its own: one that was taken is void
      const { notTaken, actions } = b.receive(message, 0);
      expect(actions.filter(({ kind }) => kind === "receiveWith")).toEqual([]);
      expect(notTaken === undefined || notTaken === "not_fresh").toBe(true);
    }
    expect([b.receiving.size, b.spis.size]).toEqual([0, 0]);
  });
});

describe("changing the vnet's secret", () => {
  it("old and new are accepted, in any order of the hosts, and the new one is used where it is first", () => {
    const [oldKey, newKey] = [keyOf("old"), keyOf("new")];
    const a = new KeyHost("a", 0x0a, { keys: [oldKey] });
    const b = new KeyHost("b", 0x0b, { keys: [oldKey] });
    a.start(b, 0);
    settle([a, b], 0);
    const agreed = (now: number): void => {
      settle([a, b], now);
      expect(b.receiving.get(a.sending!.spi)).toBe(a.sending!.key);
      expect(a.receiving.get(b.sending!.spi)).toBe(b.sending!.key);
    };
    const steps: [KeyHost, ReturnType<typeof keyOf>[]][] = [
      [a, [oldKey, newKey]],
      [b, [newKey, oldKey]],
      [a, [newKey, oldKey]],
      [b, [newKey]],
      [a, [newKey]],
    ];
    let now = 0;
    for (const [host, keys] of steps) {
      host.exchanges.setKeys(keys);
      for (const [from, to] of [[a, b] as const, [b, a] as const]) {
        const before = from.sending!.key;
        from.start(to, (now += 60_000));
        agreed(now);
        expect(from.sending!.key).not.toBe(before);
      }
    }
  });
});

describe("who uses which secret, while a vnet changes it", () => {
  const [oldKey, newKey] = [keyOf("old"), keyOf("new")];
  const usedBy = ({ exchanges }: KeyHost, peer: KeyHost, now = 0): string | undefined =>
    exchanges.sessionOf(peer.hostId)?.currentKeys(now)?.keyId;

  it("an exchange begins with the key that the peer takes, and so do those that follow", () => {
    const a = new KeyHost("a", 0x0a, { keys: [newKey, oldKey] });
    const b = new KeyHost("b", 0x0b, { keys: [oldKey] });
    a.take(a.exchanges.start(b.id, 0, oldKey.id).actions);
    settle([a, b], 0);
    expect([usedBy(a, b), usedBy(b, a)]).toEqual([oldKey.id, oldKey.id]);
    a.start(b, 60_000);
    settle([a, b], 60_000);
    expect(a.sentWith).toHaveLength(2);
    // rekeying by time too
    for (let now = 60_000; now < 60_000 + 1.2 * 3_600_000; now += 1000) {
      a.tick(now);
      settle([a, b], now);
    }
    expect([a.sentWith.length, usedBy(a, b), b.notTaken.length]).toEqual([
      3,
      oldKey.id,
      b.notTaken.filter(({ notTaken }) => notTaken === "not_fresh").length,
    ]);
    b.exchanges.setKeys([newKey, oldKey]);
    a.exchanges.preferKey(b.hostId, newKey.id);
    a.start(b, 9_000_000);
    settle([a, b], 9_000_000);
    expect([usedBy(a, b), usedBy(b, a)]).toEqual([newKey.id, newKey.id]);
  });

  it("one that is preferred and not accepted is as none", () => {
    const [a, b] = [new KeyHost("a", 0x0a), new KeyHost("b", 0x0b)];
    a.take(a.exchanges.start(b.id, 0, newKey.id).actions);
    settle([a, b], 0);
    expect(usedBy(a, b)).toBe(keyOf("the key").id);
    a.exchanges.preferKey("ff".repeat(16), newKey.id);
    expect(a.exchanges.size).toBe(1);
  });

  it("a first message by a key that the peer does not take gives way to one by its own, at once", () => {
    const a = new KeyHost("a", 0x0a, { keys: [newKey, oldKey] });
    const b = new KeyHost("b", 0x0b, { keys: [oldKey] });
    a.start(b, 0);
    settle([a, b], 0);
    expect(b.notTaken).toMatchObject([{ notTaken: "unknown_key", keyId: newKey.id }]);
    a.exchanges.preferKey(b.hostId, oldKey.id);
    a.tick(1);
    settle([a, b], 1);
    expect([usedBy(a, b), usedBy(b, a), a.spis.size]).toEqual([oldKey.id, oldKey.id, 1]);
  });

  it("a key that is accepted no more ends exchanges that need it, and takes no traffic keys away", () => {
    const keys = [oldKey, newKey];
    const [a, b] = [new KeyHost("a", 0x0a, { keys }), new KeyHost("b", 0x0b, { keys })];
    a.start(b, 0);
    settle([a, b], 0);
    // once more, up to where a waits for b's acknowledgement, which does not come
    a.start(b, 1000);
    for (let round = 0; round < 3; round++) {
      for (const message of a.outbox.splice(0)) b.receive(message, 1000);
      for (const message of b.outbox.splice(0)) if (message[1] !== 4) a.receive(message, 1000);
    }
    expect([a.sentWith.length, b.sentWith.length]).toEqual([1, 2]);
    for (const host of [a, b]) host.exchanges.setKeys([newKey]);
    // b sends with keys of the exchange that a has given up: they are received with all the same
    expect(a.receiving.get(b.sending!.spi)).toBe(b.sending!.key);
    expect(b.receiving.get(a.sending!.spi)).toBe(a.sending!.key);
    for (const { actions } of a.exchanges.newKeys(2000)) a.take(actions);
    settle([a, b], 2000);
    expect([usedBy(a, b), usedBy(b, a)]).toEqual([newKey.id, newKey.id]);
    for (const host of [a, b]) host.tick(20_000);
    expect([a.receiving.size, b.receiving.size]).toEqual([1, 1]);
    expect(a.receiving.get(b.sending!.spi)).toBe(b.sending!.key);
  });
});

describe("new keys, asked for", () => {
  it("with all that there are keys with, and with one alone", () => {
    const a = new KeyHost("a", 0x0a);
    const others = [1, 2, 3].map((n) => new KeyHost(`p${n}`, n));
    for (const peer of others) a.start(peer, 0);
    settle([a, ...others], 0);
    const unknown = new KeyHost("nobody", 0x0e);
    a.start(unknown, 0);
    a.outbox.length = 0;
    const asked = a.exchanges.newKeys(1000);
    expect(asked.map(({ peer }) => peer)).toEqual(others.map(({ hostId }) => hostId));
    for (const { actions } of asked) a.take(actions);
    settle([a, ...others], 1000);
    for (const peer of others) {
      expect(peer.sentWith).toHaveLength(2);
      expect(a.exchanges.sessionOf(peer.hostId)?.currentKeys(2000)?.ageMs).toBe(1000);
    }
    a.take(a.exchanges.renew(others[0]!.hostId, 3000));
    settle([a, ...others], 3000);
    expect(others.map(({ sentWith }) => sentWith.length)).toEqual([3, 2, 2]);
    expect(a.exchanges.renew("ff".repeat(16), 3000)).toEqual([]);
  });

  it("are tried until they come, though the first message and all that repeat it are lost", () => {
    const [a, b] = pair();
    a.start(b, 0);
    settle([a, b], 0);
    for (const { actions } of a.exchanges.newKeys(1000)) a.take(actions);
    for (let now = 1000; now < 300_000; now += 500) {
      a.tick(now);
      a.outbox.length = 0;
    }
    expect(a.others).toContainEqual({ kind: "gaveUp" });
    for (let now = 300_000; now < 400_000; now += 500) {
      a.tick(now);
      settle([a, b], now);
    }
    expect([a.sentWith.length, b.sentWith.length]).toEqual([2, 2]);
  });

  it("are made once, though another secret is preferred before they come", () => {
    const keys = [keyOf("old"), keyOf("new")];
    const [a, b] = [new KeyHost("a", 0x0a, { keys }), new KeyHost("b", 0x0b, { keys })];
    a.start(b, 0);
    settle([a, b], 0);
    a.exchanges.preferKey(b.hostId, keys[1]!.id);
    for (const { actions } of a.exchanges.newKeys(1000)) a.take(actions);
    a.exchanges.preferKey(b.hostId, keys[0]!.id);
    for (let now = 1000; now < 100_000; now += 1000) {
      a.tick(now);
      b.tick(now);
      settle([a, b], now);
    }
    expect([a.sentWith.length, b.sentWith.length]).toEqual([2, 2]);
    expect(a.exchanges.sessionOf(b.hostId)?.currentKeys(0)?.keyId).toBe(keys[0]!.id);
  });

  it.each([
    ["has answered with", "b"],
    ["waits for the acknowledgement of", "a"],
  ])("are made after they were asked for, where that matters, though it %s others", (_, begins) => {
    const count = (madeSinceMs?: number): number => {
      const [a, b] = pair();
      a.start(b, 0);
      settle([a, b], 0);
      if (begins === "a") a.start(b, 1000);
      else b.start(a, 1000);
      // until a has made keys that nobody uses yet
      let [first, second] = begins === "a" ? [b, a] : [a, b];
      while (a.receiving.size === 1) {
        for (const message of second.outbox.splice(0)) first.receive(message, 1000);
        [first, second] = [second, first];
      }
      for (const { actions } of a.exchanges.newKeys(2000, madeSinceMs)) a.take(actions);
      for (let now = 2000; now < 100_000; now += 1000) {
        settle([a, b], now);
        a.tick(now);
        b.tick(now);
      }
      expect(b.receiving.get(a.sending!.spi)).toBe(a.sending!.key);
      expect(b.sentWith.length).toBe(a.sentWith.length);
      return a.sentWith.length;
    };
    expect([count(), count(2000)]).toEqual([2, 3]);
  });

  it("are made after they were asked for, the first ones too", () => {
    const [a, b] = pair();
    a.start(b, 0);
    while (a.receiving.size === 0) {
      for (const message of a.outbox.splice(0)) b.receive(message, 0);
      for (const message of b.outbox.splice(0)) a.receive(message, 0);
    }
    const made = [...a.receiving.values()];
    a.outbox.length = 0;
    expect(a.exchanges.newKeys(1000)).toEqual([]);
    for (const { actions } of a.exchanges.newKeys(1000, 1000)) a.take(actions);
    for (let now = 1000; now < 100_000; now += 1000) {
      a.tick(now);
      b.tick(now);
      settle([a, b], now);
    }
    expect(made).not.toContain(b.sending!.key);
    expect(a.receiving.get(b.sending!.spi)).toBe(b.sending!.key);
  });

  it("come of the secret that was asked for, though an exchange by another ran", () => {
    const keys = [keyOf("old"), keyOf("new")];
    const [a, b] = [new KeyHost("a", 0x0a, { keys }), new KeyHost("b", 0x0b, { keys })];
    a.start(b, 0);
    settle([a, b], 0);
    b.start(a, 1000); // by the old one
    for (let round = 0; round < 2; round++) {
      for (const message of b.outbox.splice(0)) a.receive(message, 1000);
      if (round === 0) for (const message of a.outbox.splice(0)) b.receive(message, 1000);
    }
    // a has answered, and is asked for keys of the new one
    a.exchanges.setKeys([...keys].reverse());
    a.exchanges.preferKey(b.hostId, keys[1]!.id);
    for (const { actions } of a.exchanges.newKeys(1000)) a.take(actions);
    settle([a, b], 1000);
    a.tick(2000);
    settle([a, b], 2000);
    const used = [a.exchanges.sessionOf(b.hostId), b.exchanges.sessionOf(a.hostId)].map(
      (session) => session?.currentKeys(2000)?.keyId,
    );
    expect(used).toEqual([keys[1]!.id, keys[1]!.id]);
    // and with that it is done
    const count = a.sentWith.length;
    for (let now = 2000; now < 100_000; now += 1000) {
      a.tick(now);
      b.tick(now);
      settle([a, b], now);
    }
    expect(a.sentWith).toHaveLength(count);
  });
});

describe("bounds", () => {
  it("no more peers, and no more half-open exchanges, than the limits say; a member that fits goes on", () => {
    const b = new KeyHost("b", 0xfe, { limits: { sessions: 8, halfOpen: 4 } });
    const members = Array.from({ length: 20 }, (_, n) => new KeyHost(`m${n}`, n + 1));
    for (const member of members) {
      member.start(b, 0);
      b.receive(member.outbox.splice(0)[0]!, 0);
      member.receive(b.outbox.splice(0)[0]!, 0);
      b.receive(member.outbox.splice(0)[0]!, 0);
      b.outbox.length = 0; // answered, and never confirmed
    }
    expect(b.exchanges.size).toBe(4);
    expect(b.receiving.size).toBe(4);
    const [, ...more] = b.notTaken.filter(({ notTaken }) => notTaken === "too_many");
    expect(more).toHaveLength(15);
    for (let now = 0; now <= 30_000; now += 1000) b.tick(now);
    b.outbox.length = 0;
    expect([b.receiving.size, b.spis.size]).toEqual([0, 0]);
    const late = members[19]!;
    const fresh = new KeyHost("late", 20);
    expect(fresh.id).toEqual(late.id);
    fresh.start(b, 31_000);
    settle([fresh, b], 31_000);
    expect(b.receiving.get(fresh.sending!.spi)).toBe(fresh.sending!.key);
  });

  it("peers that are gone are forgotten", () => {
    const b = new KeyHost("b", 0xfe);
    for (let n = 1; n <= 50; n++) {
      const member = new KeyHost(`m${n}`, n);
      member.start(b, 0);
      settle([member, b], 0);
      b.close(member);
    }
    expect(b.exchanges.size).toBe(50);
    b.tick(100_000);
    expect(b.exchanges.size).toBe(50);
    b.tick(300_000);
    expect([b.exchanges.size, b.receiving.size, b.spis.size]).toEqual([0, 0, 0]);
  });
});
