// SPDX-License-Identifier: Apache-2.0
/** When a path that unicast goes by is asked, and when it is given up. */
import { beforeEach, describe, expect, it } from "vitest";
import { PathProbe, type PathVerdict } from "../../src/varp/path-probe.js";

describe("a path", () => {
  let probe: PathProbe;
  beforeEach(() => {
    probe = new PathProbe();
  });
  const tick = (nowMs: number, sentMs: number, heardMs: number): PathVerdict => {
    const verdict = probe.look("a", { sentMs, heardMs }, nowMs);
    probe.endTick();
    return verdict;
  };

  it("that nothing is sent to is left alone", () => {
    for (const now of [10_000, 20_000, 30_000]) expect(tick(now, 5000, 0)).toBe("fine");
  });

  it("that is heard is left alone", () => {
    for (const now of [1000, 2000, 3000]) expect(tick(now, now, now - 900)).toBe("fine");
  });

  it("that is sent to and silent is asked twice, and then dead", () => {
    const verdicts = [10_000, 11_000, 12_000].map((now) => tick(now, now, 5000));
    expect(verdicts).toEqual(["ask", "ask", "dead"]);
  });

  it("that answers begins anew", () => {
    expect(tick(10_000, 10_000, 5000)).toBe("ask");
    expect(tick(11_000, 11_000, 10_100)).toBe("fine");
    expect(tick(12_000, 12_000, 10_100)).toBe("ask");
    expect(tick(13_000, 13_000, 10_100)).toBe("ask");
    expect(tick(14_000, 14_000, 13_500)).toBe("fine");
  });

  it("that is given up and taken again is asked first", () => {
    for (const now of [10_000, 11_000, 12_000]) tick(now, now, 5000);
    expect(tick(13_000, 13_000, 5000)).toBe("ask");
  });
});
