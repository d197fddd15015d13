// SPDX-License-Identifier: Apache-2.0
/** Which of the regular turns look at everything, and which at the hooks alone. */
import { beforeEach, describe, expect, it } from "vitest";
import { RegularLook, turnsWithoutNews } from "../../src/controller/regular-look.js";

const isWell = (): boolean => false;
const isAmiss = (): boolean => true;

let look: RegularLook;
const turns = (count: number, amiss = isWell): string[] =>
  Array.from({ length: count }, () => look.turn(amiss));

describe("a regular look", () => {
  beforeEach(() => {
    look = new RegularLook();
  });

  it("is at everything after the start, then at the hooks alone, but for every so manieth", () => {
    const round = (first: string): string[] => [
      first,
      ...Array<string>(turnsWithoutNews - 2).fill("hooks"),
      "everything",
    ];
    expect(turns(3 * turnsWithoutNews)).toEqual([
      ...round("everything"),
      ...round("hooks"),
      ...round("hooks"),
    ]);
  });

  it("is at everything at the turn after news, once", () => {
    turns(1);
    look.news();
    look.news();
    expect(turns(3)).toEqual(["everything", "hooks", "hooks"]);
    look.news();
    expect(turns(1)).toEqual(["everything"]);
  });

  it("with news that come with the turn that is due is not made twice", () => {
    turns(turnsWithoutNews - 1);
    look.news();
    expect(turns(2)).toEqual(["everything", "hooks"]);
  });

  it("is at everything each time while something is amiss, and no longer", () => {
    turns(1);
    expect(turns(3, isAmiss)).toEqual(["everything", "everything", "everything"]);
    expect(turns(1)).toEqual(["hooks"]);
  });
});
