// SPDX-License-Identifier: Apache-2.0
/** The smaller state machines of the control plane, in time that the test makes. */
import { describe, expect, it } from "vitest";
import { MacQueue } from "../../src/varp/mac-queue.js";
import { HelloSchedule, asksAgain } from "../../src/varp/hello-schedule.js";
import { SenderLimits } from "../../src/varp/sender-limits.js";
import { MergePolicy } from "../../src/varp/merge-policy.js";
import { Resolver, resolverDefaults } from "../../src/varp/resolver.js";
import { TokenBucket } from "../../src/varp/token-bucket.js";

const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

describe("a token bucket", () => {
  it("gives its burst, then its rate", () => {
    const bucket = new TokenBucket({ perSecond: 10, burst: 3 });
    expect([1, 2, 3, 4].map(() => bucket.take(0))).toEqual([true, true, true, false]);
    expect(bucket.take(99)).toBe(false);
    expect(bucket.take(200)).toBe(true);
  });

  it("gives nothing for a clock that steps back", () => {
    const bucket = new TokenBucket({ perSecond: 1000, burst: 1 });
    expect(bucket.take(1000)).toBe(true);
    expect(bucket.take(500)).toBe(false);
    expect(bucket.take(500)).toBe(false);
  });
});

describe("the resolver", () => {
  it("asks at once, then backs off twice as long each time, up to a minute", () => {
    const resolver = new Resolver();
    const asked: number[] = [];
    for (let now = 0; now < 400_000; now += 100) if (resolver.wanted(1, "m", now)) asked.push(now);
    const gaps = asked.slice(1).map((at, index) => at - (asked[index] ?? 0));
    expect(gaps.slice(0, 4)).toEqual([500, 1000, 2000, 4000]);
    expect(Math.max(...gaps)).toBe(60_000);
  });

  it("asks at once again for a MAC that was found and lost", () => {
    const resolver = new Resolver();
    expect(resolver.wanted(1, "m", 0)).toBe(true);
    expect(resolver.wanted(1, "m", 10)).toBe(false);
    resolver.resolved(1, "m");
    expect(resolver.wanted(1, "m", 20)).toBe(true);
  });

  it("limits one vnet so that another still has its share, and all of them together", () => {
    const limits = { all: { perSecond: 0, burst: 30 }, perVnet: { perSecond: 0, burst: 20 } };
    const resolver = new Resolver({ ...resolverDefaults, ...limits });
    const ask = (handle: number): number =>
      Array.from({ length: 100 }, (_, at) => resolver.wanted(handle, `m${at}`, 0)).filter(Boolean)
        .length;
    expect([ask(1), ask(2), ask(3)]).toEqual([20, 10, 0]);
  });

  it("is bounded and forgets what nobody asks for", () => {
    const many = { perSecond: 0, burst: 1e6 };
    const resolver = new Resolver({
      ...resolverDefaults,
      maxPending: 100,
      all: many,
      perVnet: many,
    });
    for (let at = 0; at < 1000; at++) resolver.wanted(at % 7, `m${at}`, 0);
    expect(resolver.size).toBe(100);
    resolver.tick(1001);
    expect(resolver.size).toBe(0);
    resolver.wanted(5, "m", 2000);
    resolver.vnetGone(5);
    expect(resolver.size).toBe(0);
  });
});

describe("the queue of MACs", () => {
  const m = (at: number): string => `m${at}`;

  it("has a message for each, at once, and each once", () => {
    const queue = new MacQueue();
    queue.push({ handle: 1, mac: "a" });
    queue.push({ handle: 1, mac: "a" });
    expect(queue.drain(0)).toEqual([[{ handle: 1, mac: "a" }]]);
    expect(queue.drain(1)).toEqual([]);
  });

  const few = { maxQueuedPerVnet: 10, maxShared: 0, all: { perSecond: 1000, burst: 4 } };

  it("serves vnets in turn, so one that invents MACs keeps no other waiting", () => {
    const queue = new MacQueue(few);
    const queued = range(50).map((at) => queue.push({ handle: 1, mac: m(at) }));
    queue.push({ handle: 2, mac: "moved guest" });
    expect(queued.filter((isQueued) => !isQueued)).toHaveLength(40);
    expect(queue.push({ handle: 1, mac: "m9" })).toBe(true);
    expect(queue.drain(0)).toContainEqual([{ handle: 2, mac: "moved guest" }]);
    expect(queue.queued).toBe(7);
    expect(queue.drain(3)).toHaveLength(3);
    queue.vnetGone(1);
    expect(queue.queued).toBe(0);
  });

  it("puts as many into a message as it has room for, of vnets in turn, where they are lists", () => {
    const queue = new MacQueue({ ...few, maxShared: 1000, all: { perSecond: 1, burst: 2 } });
    for (const at of range(300)) expect(queue.push({ handle: 1, mac: m(at) }, true)).toBe(true);
    queue.push({ handle: 2, mac: "moved guest" }, true);
    queue.push({ handle: 3, mac: "by itself" });
    const [first, second, ...none] = queue.drain(0, (handle) => handle !== 3);
    expect(none).toEqual([]);
    expect(first).toContainEqual({ handle: 2, mac: "moved guest" });
    expect(second).toEqual([{ handle: 3, mac: "by itself" }]);
    // one in front, one group of each of two vnets
    expect(first).toHaveLength(1 + Math.floor((512 - 43 - 8 - 4 - 2 * 18) / 6));
    expect(queue.queued).toBe(302 - first!.length - 1);
  });

  it("keeps room of its own for each vnet, whatever others that share have queued", () => {
    const queue = new MacQueue({ ...few, maxShared: 20 });
    const taken = range(50).map((at) => queue.push({ handle: 1, mac: m(at) }, true));
    expect(taken.filter(Boolean)).toHaveLength(20);
    expect(range(50).filter((at) => queue.push({ handle: 2, mac: m(at) }, true))).toHaveLength(10);
    queue.vnetGone(1);
    expect(queue.queued).toBe(10);
    expect(queue.push({ handle: 2, mac: "one more" }, true)).toBe(true);
  });
});

describe("the hello schedule", () => {
  it("is due after an interval, give or take a fifth", () => {
    for (const [random, earliest] of [
      [0, 800],
      [0.5, 1000],
      [1, 1200],
    ] as const) {
      const schedule = new HelloSchedule(1000, () => random);
      schedule.said(1, 0);
      expect(schedule.due(earliest - 1, 10)).toEqual([]);
      expect(schedule.due(earliest, 10)).toEqual([1]);
    }
  });

  it("says hello twice more, soon, of a vnet that has just appeared", () => {
    const schedule = new HelloSchedule(30_000, () => 0.5);
    const saidAt: [number, boolean][] = [];
    schedule.appeared(1, 0);
    for (let ms = 0; ms <= 70_000; ms += 100)
      for (const handle of schedule.due(ms, 10)) {
        saidAt.push([ms, schedule.isEarly(handle)]);
        schedule.said(handle, ms);
      }
    expect(saidAt).toEqual([
      [1000, true],
      [4000, true],
      [35_500, false],
      [67_000, false],
    ]);
  });

  it("lets those that are due wait for others a tenth of an interval, never longer than a fifth beyond it", () => {
    let share = 0;
    const schedule = new HelloSchedule(30_000, () => share);
    schedule.said(1, 0);
    share = 0.2;
    schedule.said(2, 0);
    expect(schedule.due(24_000, 10)).toEqual([]);
    expect(schedule.due(26_999, 10)).toEqual([]);
    expect(schedule.due(27_000, 10)).toEqual([1, 2]);
    // what asks does not wait, and takes the others along
    schedule.appeared(3, 25_000);
    expect(schedule.due(26_000, 10)).toEqual([1, 2, 3]);
    share = 1;
    for (const handle of [1, 2]) schedule.said(handle, 0);
    schedule.vnetGone(3);
    expect(schedule.due(35_999, 10)).toEqual([]);
    expect(schedule.due(36_000, 10)).toEqual([1, 2]);
  });

  it("asks again while no more answers would come than a daemon can take at once", () => {
    for (const [hosts, vnets, lists, asks] of [
      [0, 4, false, true],
      [512, 4, false, true],
      [513, 4, false, false],
      [1000, 4, true, true],
      [2048, 8, true, true],
      [2049, 8, true, false],
      [2048, 9, true, false],
      [1024, 9, true, true],
    ] as const)
      expect([hosts, vnets, lists, asksAgain({ hosts, vnets, lists })]).toEqual([
        hosts,
        vnets,
        lists,
        asks,
      ]);
  });

  it("has no early ones where the interval is no longer than they are", () => {
    const schedule = new HelloSchedule(1000, () => 0.5);
    schedule.appeared(1, 0);
    expect(schedule.due(1000, 10)).toEqual([1]);
    expect(schedule.isEarly(1)).toBe(false);
    schedule.appeared(2, 0);
    schedule.setInterval(500, 0);
    expect(schedule.due(500, 10).sort()).toEqual([1, 2]);
  });

  it("says vnets together that are due within half an interval, from then on at the same time", () => {
    const shares = [0.1, 0.4, 0.9, 0.5];
    const schedule = new HelloSchedule(1000, () => shares.shift() ?? 0.5);
    for (const handle of [1, 2, 3]) schedule.said(handle, handle * 100);
    expect(schedule.due(940, 10)).toEqual([1]);
    expect(schedule.along(940, 10)).toEqual([2]);
    expect(schedule.along(1000, 10)).toEqual([2, 3]);
    expect(schedule.along(1000, 1)).toEqual([2]);
    const share = schedule.share();
    for (const handle of [1, 2]) schedule.said(handle, 940, share);
    expect(schedule.due(1939, 10).filter((handle) => handle < 3)).toEqual([]);
    expect(schedule.due(1940, 10).filter((handle) => handle < 3)).toEqual([1, 2]);
  });

  it("leaves alone the early ones, which ask", () => {
    const schedule = new HelloSchedule(30_000, () => 0.5);
    schedule.appeared(1, 0);
    expect(schedule.along(500, 10)).toEqual([]);
  });

  it("gives the longest waiting first, and no more than asked for", () => {
    const schedule = new HelloSchedule(1000, () => 0.5);
    for (const handle of [3, 1, 2]) schedule.said(handle, handle);
    expect(schedule.due(5000, 2)).toEqual([1, 2]);
    schedule.vnetGone(1);
    expect(schedule.due(5000, 9)).toEqual([2, 3]);
  });
});

describe("the limits of a sender", () => {
  it("let a burst through, then a few, and each sender has its own", () => {
    const limits = new SenderLimits({ perSender: { perSecond: 1, burst: 2 }, maxSenders: 2 });
    const allowed = (sender: string, ms: number): boolean => limits.allowed(sender, ms);
    expect([allowed("a", 0), allowed("a", 0), allowed("a", 0)]).toEqual([true, true, false]);
    expect(allowed("b", 0)).toBe(true);
    expect([allowed("a", 1000), allowed("a", 1000)]).toEqual([true, false]);
  });
});

describe("the merge policy", () => {
  const run = (
    start: boolean,
    intervals: [large: number, merged: number, small?: number][],
  ): boolean[] => {
    const policy = new MergePolicy(start);
    const total = { frames: 0, largeFrames: 0, superFrames: 0 };
    policy.sample({ ...total });
    return intervals.map(([large, merged, small = 0]) => {
      total.frames += large + merged + small;
      total.largeFrames += large;
      total.superFrames += merged;
      policy.sample({ ...total });
      return policy.merge;
    });
  };

  it("turns on when two samples in a row are busy with single large frames", () => {
    expect(
      run(false, [
        [3000, 0],
        [3000, 0],
      ]),
    ).toEqual([false, true]);
    expect(
      run(false, [
        [3000, 0],
        [0, 0],
        [3000, 0],
      ]),
    ).toEqual([false, false, false]);
  });

  it("turns off when super-frames are most of it", () => {
    expect(
      run(true, [
        [100, 900],
        [100, 900],
      ]),
    ).toEqual([true, false]);
  });

  it("turns off for small packets, and not on for a few large ones among them", () => {
    expect(
      run(true, [
        [10, 0, 5000],
        [10, 0, 5000],
      ]),
    ).toEqual([true, false]);
    expect(
      run(false, [
        [3000, 0, 9000],
        [3000, 0, 9000],
      ]),
    ).toEqual([false, false]);
  });

  it("stays as it is for little traffic, or a mixture", () => {
    expect(
      run(false, [
        [1000, 0],
        [1000, 0],
        [1000, 0],
      ]),
    ).toEqual([false, false, false]);
    expect(
      run(true, [
        [0, 5],
        [0, 5],
        [0, 5],
      ]),
    ).toEqual([true, true, true]);
    expect(
      run(true, [
        [7000, 3000],
        [7000, 3000],
      ]),
    ).toEqual([true, true]);
    expect(
      run(false, [
        [7000, 3000],
        [7000, 3000],
      ]),
    ).toEqual([false, false]);
    expect(
      run(true, [
        [1000, 0, 9000],
        [1000, 0, 9000],
      ]),
    ).toEqual([true, true]);
  });
});
