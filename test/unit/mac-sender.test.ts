// SPDX-License-Identifier: Apache-2.0
/** When announces and requests leave: the first at once, what follows it in lists, and nothing later than it may be. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Context } from "../../src/controller/context.js";
import { MacSender } from "../../src/controller/mac-sender.js";
import type { RunningVnet } from "../../src/controller/vnets.js";
import { macQueueDefaults } from "../../src/varp/mac-queue.js";

/** after which the first one goes at once again, and what one that follows waits when lists do not follow one another */
const gatherMs = 5;
const longestMs = 20;

/** Vnets 1 and 2 read lists, 3 does not. */
const vnets = new Map([1, 2, 3].map((handle) => [handle, { handle } as RunningVnet]));

interface Left {
  atMs: number;
  /** handle and MAC */
  about: string[];
}
let left: Left[];
let refused: string[];
let sender: MacSender;

const now = (): number => Number(process.hrtime.bigint() / 1_000_000n);
let startedMs: number;

beforeEach(() => {
  vi.useFakeTimers();
  [left, refused, startedMs] = [[], [], now()];
  const context = {
    control: { countDrop: ({ reason }: { reason: string }) => void refused.push(reason) },
    news: { tell: () => undefined },
  } as unknown as Context;
  sender = new MacSender(context, {
    vnets: { byHandle: () => vnets },
    isListed: ({ handle }) => handle !== 3,
    send: (about) =>
      void left.push({
        atMs: now() - startedMs,
        about: about.map(({ vnet, mac }) => `${String(vnet.handle)} ${mac}`),
      }),
  });
});
afterEach(() => {
  sender.close();
  vi.useRealTimers();
});

const pass = (ms: number): void => void vi.advanceTimersByTime(ms);
/** Says one each millisecond; gives when each was said. */
function sayFor(ms: number): Map<string, number> {
  const saidMs = new Map<string, number>();
  for (let at = 0; at < ms; at += 1) {
    const mac = `m${String(now() - startedMs)}`;
    saidMs.set(`1 ${mac}`, now() - startedMs);
    sender.say(1, mac);
    pass(1);
  }
  return saidMs;
}

describe("MACs that are announced", () => {
  it("leave at once, the first and each one after a pause", () => {
    sender.say(1, "a");
    expect(left).toEqual([{ atMs: 0, about: ["1 a"] }]);
    pass(gatherMs);
    sender.say(2, "b");
    expect(left.slice(1)).toEqual([{ atMs: gatherMs, about: ["2 b"] }]);
    pass(1000);
    expect(left).toHaveLength(2);
  });

  it("leave in one list when they follow the first within a few milliseconds, of several vnets", () => {
    sender.say(1, "a");
    pass(1);
    sender.say(1, "b");
    sender.say(2, "c");
    pass(2);
    sender.say(1, "d");
    sender.say(1, "b");
    expect(left).toHaveLength(1);
    pass(1000);
    expect(left.slice(1).map(({ about }) => about.sort())).toEqual([["1 b", "1 d", "2 c"]]);
    expect(left[1]!.atMs).toBe(1 + gatherMs);
  });

  it("leave one by one, and as soon, where the vnet's hosts read no lists", () => {
    sender.say(3, "a");
    sender.say(3, "b");
    sender.say(3, "c");
    pass(1000);
    expect(left).toEqual([
      { atMs: 0, about: ["3 a"] },
      { atMs: gatherMs, about: ["3 b"] },
      { atMs: gatherMs, about: ["3 c"] },
    ]);
  });

  it("are gathered for longer while lists follow one another, none for more than 20 ms", () => {
    const saidMs = sayFor(400);
    pass(1000);
    const waits = left.flatMap(({ atMs, about }) => about.map((each) => atMs - saidMs.get(each)!));
    expect(waits).toHaveLength(saidMs.size);
    expect(Math.max(...waits)).toBe(longestMs);
    // lists are full of what comes in 20 ms, but for the first few
    const sizes = left.map(({ about }) => about.length);
    expect(sizes[0]).toBe(1);
    expect(sizes.slice(5, -1).every((size) => size >= longestMs)).toBe(true);
    expect(sizes.length).toBeLessThan(400 / longestMs + 5);
  });

  it("leave at once again after a pause that follows lists, and then wait no longer than at first", () => {
    sayFor(200);
    pass(1000);
    left.length = 0;
    const beganMs = now() - startedMs;
    sender.say(1, "a");
    pass(1);
    sender.say(1, "b");
    pass(1000);
    expect(left).toEqual([
      { atMs: beganMs, about: ["1 a"] },
      { atMs: beganMs + 1 + gatherMs, about: ["1 b"] },
    ]);
  });

  it("are gathered for a short time again once what leaves are no lists", () => {
    sayFor(200);
    pass(longestMs);
    left.length = 0;
    // one at a time, each too soon after the last to leave at once
    for (const mac of ["a", "b", "c", "d"]) {
      sender.say(1, mac);
      while (!left.some(({ about }) => about.includes(`1 ${mac}`))) pass(1);
    }
    const times = left.map(({ atMs }) => atMs);
    expect(times[3]! - times[2]!).toBe(gatherMs);
  });

  it("wait when too many messages were sent, and go on by themselves", () => {
    const { burst } = macQueueDefaults.all;
    const count = burst + 20;
    for (let at = 0; at < count; at += 1) sender.say(3, `m${String(at)}`);
    pass(gatherMs);
    const first = left.length;
    expect(first).toBeLessThan(count);
    expect(first).toBeGreaterThanOrEqual(burst);
    pass(1000);
    expect(left).toHaveLength(count);
    expect(refused).toEqual([]);
  });

  it("are counted where there is no room for them", () => {
    const count = macQueueDefaults.maxQueuedPerVnet + 3;
    sender.say(3, "first");
    for (let at = 0; at < count; at += 1) sender.say(3, `m${String(at)}`);
    expect(refused).toEqual(Array(3).fill("varp_rate"));
  });

  it("do not leave once their vnet is gone, nor after the end", () => {
    sender.say(1, "a");
    sender.say(1, "b");
    sender.say(2, "c");
    sender.vnetGone(1);
    sender.say(9, "d");
    pass(gatherMs);
    expect(left.slice(1).map(({ about }) => about)).toEqual([["2 c"]]);
    sender.say(1, "e");
    sender.close();
    pass(1000);
    expect(left).toHaveLength(2);
  });
});
