// SPDX-License-Identifier: Apache-2.0
/** When devices are looked at: after each kind of notification, and regularly; which turns are of everything is regular-look's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Looks } from "../../src/controller/looks.js";
import { turnsWithoutNews } from "../../src/controller/regular-look.js";
import type { NetlinkEvent } from "../../src/native/contract.js";

const turnSeconds = 10;
const settleMs = 20;

let seen: string[];
let amiss: boolean;
let broken: Set<string>;
let failed: string[];
let looks: Looks;

const step = (name: string): void => {
  seen.push(name);
  if (broken.has(name)) throw new Error(name);
};

beforeEach(() => {
  vi.useFakeTimers();
  [seen, amiss, broken, failed] = [[], false, new Set(), []];
  looks = new Looks({
    everything: (isRegular) => step(isRegular ? "everything" : "news"),
    hooks: () => step("hooks"),
    staticEntries: () => step("entries"),
    isAmiss: () => amiss,
    guarded: (what, each) => {
      try {
        each();
      } catch {
        failed.push(what);
      }
    },
  });
});
afterEach(() => {
  looks.close();
  vi.useRealTimers();
});

/** Seconds go by; gives what was looked at, by second. */
function seconds(count: number): [number, string][] {
  return Array.from({ length: count }, (_, at) => at + 1).flatMap((at) => {
    seen.length = 0;
    looks.tick();
    vi.advanceTimersByTime(1000);
    return seen.filter((name) => name !== "entries").map((name): [number, string] => [at, name]);
  });
}
const told = (type: NetlinkEvent["type"]): void => looks.told({ type } as NetlinkEvent);

describe("what the kernel tells", () => {
  const kinds: Record<NetlinkEvent["type"], boolean> = {
    link: true,
    "link-deleted": true,
    address: true,
    "address-deleted": true,
    overrun: true,
    // these have others that look
    "bridge-fdb-deleted": false,
    tc: false,
  };

  it.each(Object.entries(kinds))("%s is followed by a look: %s", (type, isLookedAt) => {
    // the one after the start
    seconds(turnSeconds);
    seen.length = 0;
    told(type as NetlinkEvent["type"]);
    expect(seen).toEqual([]);
    vi.advanceTimersByTime(settleMs);
    expect(seen).toEqual(isLookedAt ? ["news"] : []);
    vi.advanceTimersByTime(10 * settleMs);
    // and by one at everything when it is its turn
    expect(seconds(turnSeconds)).toEqual([[turnSeconds, isLookedAt ? "everything" : "hooks"]]);
  });

  it("in a burst is looked at together, and not put off while it goes on", () => {
    for (let at = 0; at < 10 * settleMs; at += 1) {
      told("link");
      vi.advanceTimersByTime(1);
    }
    vi.advanceTimersByTime(settleMs);
    expect(seen).toEqual(Array(10).fill("news"));
  });

  it("is looked at though the look before failed", () => {
    broken.add("news");
    for (let round = 0; round < 2; round += 1) {
      told("link");
      vi.advanceTimersByTime(settleMs);
    }
    expect(seen).toEqual(["news", "news"]);
    expect(failed).toEqual(Array(2).fill("following the devices"));
  });

  it("is not looked at after the end", () => {
    told("link");
    looks.close();
    vi.advanceTimersByTime(1000);
    expect(seen).toEqual([]);
  });
});

describe("a regular look", () => {
  it("comes every ten seconds, at everything each minute though the kernel tells nothing", () => {
    const turns = 2 * turnsWithoutNews;
    const isFull = (turn: number): boolean => turn === 1 || turn % turnsWithoutNews === 0;
    expect(seconds(turns * turnSeconds)).toEqual(
      Array.from({ length: turns }, (_, at) => at + 1).map((turn) => [
        turn * turnSeconds,
        isFull(turn) ? "everything" : "hooks",
      ]),
    );
    expect(turnsWithoutNews * turnSeconds).toBe(60);
  });

  it("is at everything each time while something is amiss", () => {
    seconds(turnSeconds);
    amiss = true;
    expect(seconds(2 * turnSeconds).map(([, name]) => name)).toEqual(["everything", "everything"]);
  });

  it("is at the configured entries too, whatever became of the rest", () => {
    broken.add("everything");
    for (let second = 0; second < 3 * turnSeconds; second += 1) looks.tick();
    expect(seen).toEqual(["everything", "entries", "hooks", "entries", "hooks", "entries"]);
    expect(failed).toEqual(["repairing"]);
  });
});
