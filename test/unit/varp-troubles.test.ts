// SPDX-License-Identifier: Apache-2.0
/** Loops and duplicate addresses, in time that the test makes. */
import { describe, expect, it } from "vitest";
import {
  Duplicates,
  duplicatesDefaults,
  here,
  type Duplicate,
  type Place,
} from "../../src/varp/duplicates.js";
import { Loops, joinsOf } from "../../src/varp/loops.js";
import { ProbeSchedule } from "../../src/varp/probe-schedule.js";

const id = (last: string): string => `${"0000:".repeat(7)}${last.padStart(4, "0")}`;
const B = "10.66.1.2";
const C = "10.66.1.3";

describe("what a probe that came back says", () => {
  it("two hosts join two vnets: the same from both ends, and in both directions", () => {
    const toB = { from: "", to: B, vnet: id("97") };
    const back = { from: B, to: "", vnet: id("98") };
    const fromGroup = joinsOf({ vnet: id("97"), steps: [toB, back], sender: "" });
    expect(fromGroup).toBe(`${B} joins vnets 0097 and 0098; this host joins vnets 0097 and 0098`);
    // given to our own bridge, it went out in vnet 98 and came back in 97
    const own = { from: "", to: "", vnet: id("97") };
    const other = { from: "", to: B, vnet: id("98") };
    expect(joinsOf({ vnet: id("97"), steps: [own, other], sender: B })).toBe(fromGroup);
  });

  it("one vnet on two hosts, bridged to a LAN", () => {
    const toB = { from: "", to: B, vnet: id("97") };
    const text = joinsOf({ vnet: id("97"), steps: [toB], sender: "" });
    expect(text).toBe(`vnet 0097 on this host and vnet 0097 on ${B} are bridged to one LAN`);
    const own = { from: "", to: "", vnet: id("97") };
    expect(joinsOf({ vnet: id("97"), steps: [own], sender: B })).toBe(text);
  });

  it("hosts that are not this one", () => {
    const steps = [
      { from: "", to: B, vnet: id("97") },
      { from: B, to: C, vnet: id("1:98") },
    ];
    expect(joinsOf({ vnet: id("97"), steps, sender: C })).toMatch(
      /^10\.66\.1\.2 joins .*; 10\.66\.1\.3 joins /,
    );
  });

  it("one that writes no hops, or sends what it gets back", () => {
    expect(joinsOf({ vnet: id("97"), steps: [], sender: B })).toBe(
      `${B} sends what it gets in vnet 0097 into it again`,
    );
    const toB = { from: "", to: B, vnet: id("97") };
    expect(joinsOf({ vnet: id("97"), steps: [toB], sender: B })).toBe(
      `${B} sends what it gets in vnet 0097 into it again`,
    );
  });
});

describe("the loops that are known", () => {
  it("are new once, kept while they are seen, and end together", () => {
    const loops = new Loops({ keepMs: 100, maxPerVnet: 2 });
    expect(loops.found(1, "x", 0)).toBe(true);
    expect(loops.found(1, "x", 50)).toBe(false);
    expect(loops.found(1, "y", 60)).toBe(true);
    expect(loops.tick(155)).toEqual([]);
    expect(loops.joins(1)).toEqual(["y"]);
    expect(loops.active(1)).toBe(true);
    expect(loops.tick(200)).toEqual([1]);
    expect(loops.active(1)).toBe(false);
    expect(loops.found(1, "x", 300)).toBe(true);
  });

  it("are bounded", () => {
    const loops = new Loops({ keepMs: 100, maxPerVnet: 2 });
    for (const text of ["a", "b", "c", "d"]) loops.found(1, text, 0);
    expect(loops.joins(1)).toEqual(["a", "b"]);
  });
});

describe("probes", () => {
  it("are sent now and then, at once on suspicion, and then not for a second", () => {
    const schedule = new ProbeSchedule(10_000, () => 0.5);
    schedule.appeared(1, 0);
    schedule.appeared(1, 5000);
    expect(schedule.due(8000, 10)).toEqual([]);
    expect(schedule.suspected(1, 100)).toBe(true);
    schedule.sent(1, 100);
    expect(schedule.suspected(1, 1099)).toBe(false);
    expect(schedule.suspected(1, 1100)).toBe(true);
    expect(schedule.due(10_099, 10)).toEqual([]);
    expect(schedule.due(10_100, 10)).toEqual([1]);
    schedule.vnetGone(1);
    expect(schedule.due(99_999, 10)).toEqual([]);
    expect(schedule.handles()).toEqual([]);
  });
});

describe("duplicate addresses", () => {
  const mac = "02:00:00:00:00:01";
  const b: Place = { id: B, name: B };
  const c: Place = { id: C, name: C };
  const { patienceMs, calmMs, reviewMs, defendMs } = duplicatesDefaults;
  /** what is reported when the patience is over */
  const after = (duplicates: Duplicates, atMs: number): Duplicate[] =>
    duplicates.tick(atMs + patienceMs).reported;

  it("a guest that moves, there and back and there again, is none", () => {
    const duplicates = new Duplicates();
    const journey = [here, b, here, b];
    for (const [at, place] of journey.slice(1).entries())
      duplicates.moved(1, mac, journey[at] ?? here, place, at * 1000);
    expect(after(duplicates, 3000)).toEqual([]);
    // nor one that goes from host to host
    const tour = [b, c, { id: "d", name: "d" }, { id: "e", name: "e" }, { id: "f", name: "f" }];
    for (const [at, place] of tour.slice(1).entries())
      duplicates.moved(1, "02:00:00:00:00:02", tour[at] ?? here, place, at * 1000);
    expect(after(duplicates, 6000)).toEqual([]);
  });

  it("slow talkers that alternate are reported once, and forgotten when it is calm", () => {
    const duplicates = new Duplicates();
    for (let at = 0; at < 4; at++)
      duplicates.moved(1, mac, at % 2 ? b : here, at % 2 ? here : b, at * 8000);
    expect(duplicates.tick(24_000).reported).toEqual([]);
    expect(after(duplicates, 24_000)).toEqual([{ handle: 1, mac, places: [B, "this host"] }]);
    expect(after(duplicates, 25_000)).toEqual([]);
    expect(duplicates.list()).toHaveLength(1);
    expect(duplicates.tick(24_000 + calmMs).ended).toEqual([]);
    expect(duplicates.tick(24_001 + calmMs).ended).toHaveLength(1);
    expect(duplicates.list()).toEqual([]);
    expect(duplicates.size).toBe(0);
  });

  it("so slow that it may be somebody's migration is not", () => {
    const duplicates = new Duplicates();
    for (let at = 0; at < 8; at++)
      duplicates.moved(1, mac, at % 2 ? b : here, at % 2 ? here : b, at * 31_000);
    expect(after(duplicates, 7 * 31_000)).toEqual([]);
  });

  it("one that the data plane holds is reported", () => {
    const duplicates = new Duplicates();
    duplicates.held(1, mac, b, c, 0);
    expect(after(duplicates, 0)).toEqual([{ handle: 1, mac, places: [B, C] }]);
  });

  it("addresses that turn out to be one host's until then are none, two hosts' are", () => {
    const flipped = (): Duplicates => {
      const duplicates = new Duplicates();
      for (let at = 0; at < 6; at++)
        duplicates.moved(1, mac, at % 2 ? b : c, at % 2 ? c : b, at * 10);
      return duplicates;
    };
    const one = flipped();
    expect(one.tick(50 + patienceMs, () => "host").reported).toEqual([]);
    expect(one.size).toBe(0);
    const two = flipped();
    const reported = [{ handle: 1, mac, places: [B, C] }];
    expect(two.tick(50 + patienceMs, (_, id) => `host ${id}`).reported).toEqual(reported);
  });

  it("names the places that it is at by turns, not the one that it came from", () => {
    const duplicates = new Duplicates();
    duplicates.moved(1, mac, c, here, 0);
    for (let at = 0; at < 4; at++)
      duplicates.moved(1, mac, at % 2 ? b : here, at % 2 ? here : b, 10 + at);
    expect(after(duplicates, 13)).toEqual([{ handle: 1, mac, places: [B, "this host"] }]);
  });

  it("two paths to one host are one place", () => {
    const duplicates = new Duplicates();
    const again: Place = { id: b.id, name: "10.66.2.2" };
    for (let at = 0; at < 9; at++)
      duplicates.moved(1, mac, at % 2 ? b : again, at % 2 ? again : b, at);
    duplicates.held(1, mac, b, again, 10);
    expect(after(duplicates, 10)).toEqual([]);
    expect(duplicates.size).toBe(0);
  });

  it("an announce of a MAC that is heard here after it, twice; in between it is announced from here", () => {
    const duplicates = new Duplicates();
    duplicates.refused(1, mac, b, 0);
    expect(duplicates.reviews(reviewMs - 1)).toEqual([]);
    expect(duplicates.reviews(reviewMs)).toEqual([{ handle: 1, mac, refusedMs: 0 }]);
    expect(duplicates.confirm(1, mac, true, reviewMs)).toBe(true);
    expect(duplicates.reviews(9999)).toEqual([]);
    expect(after(duplicates, reviewMs)).toEqual([]);
    duplicates.refused(1, mac, b, 6000);
    expect(duplicates.confirm(1, mac, true, 8000)).toBe(true);
    expect(after(duplicates, 8000)).toHaveLength(1);
    // from now on it is defended now and then only
    duplicates.refused(1, mac, b, 11_000);
    expect(duplicates.confirm(1, mac, true, 13_000)).toBe(false);
    duplicates.refused(1, mac, b, 14_000);
    expect(duplicates.confirm(1, mac, true, 8000 + defendMs)).toBe(true);
  });

  it("an announce of a MAC that falls silent here was a move", () => {
    const duplicates = new Duplicates();
    for (const at of [0, 5000, 10_000]) {
      duplicates.refused(1, mac, b, at);
      expect(duplicates.confirm(1, mac, false, at + 2000)).toBe(false);
    }
    expect(after(duplicates, 12_000)).toEqual([]);
  });

  it("say nothing in a vnet that has a loop", () => {
    const duplicates = new Duplicates();
    duplicates.held(1, mac, b, c, 0);
    duplicates.held(2, mac, b, c, 0);
    duplicates.forgetVnet(1);
    expect(after(duplicates, 0).map(({ handle }) => handle)).toEqual([2]);
    expect([...duplicates.handles()]).toEqual([2]);
  });

  it("are bounded: the one that was silent longest goes", () => {
    const duplicates = new Duplicates({ ...duplicatesDefaults, maxMacs: 3 });
    for (let n = 0; n < 5; n++) duplicates.held(1, `m${n}`, b, c, n);
    expect(duplicates.size).toBe(3);
    expect(after(duplicates, 5).map(({ mac: each }) => each)).toEqual(["m2", "m3", "m4"]);
    // a MAC at ever new places
    for (let n = 0; n < 100; n++)
      duplicates.moved(
        1,
        "many",
        { id: `p${n}`, name: `p${n}` },
        { id: `p${n + 1}`, name: `p${n + 1}` },
        n,
      );
    duplicates.held(1, "many", b, c, 200);
    expect(after(duplicates, 200)[0]?.places.length).toBeLessThanOrEqual(4);
  });
});
