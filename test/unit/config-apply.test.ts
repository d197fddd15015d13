// SPDX-License-Identifier: Apache-2.0
/** What apply does to come from the vnets that there are to those of a directory, and in which order. */
import { describe, expect, it } from "vitest";
import { VnetdError } from "../../src/base/errors.js";
import {
  changesOf,
  differences,
  inOrder,
  planOf,
  type PresentVnet,
} from "../../src/config/apply-plan.js";
import { parseVnetFile, withoutPlaces, type PlacedVnet } from "../../src/config/vnet-file.js";

const vnets = (text: string): PlacedVnet[] => parseVnetFile(text, "f", { mayBeEmpty: true });
const present = (text: string, owner?: string, builtIn = false): PresentVnet[] =>
  vnets(text).map((vnet) => ({ config: withoutPlaces(vnet), builtIn, owner }));

function planned(wanted: string, now: PresentVnet[], prune = false): string[] {
  const plan = planOf(vnets(wanted), now, { directory: "/d", prune });
  return changesOf(plan).map(({ action, id }) => `${action} ${id.slice(-2)}`);
}

describe("whose a vnet is decides what becomes of it", () => {
  it.each([
    ["one that is not there", "[{id: 97}]", [], ["create 97"]],
    ["one that is as it should be", "[{id: 97}]", present("{id: 97}", "/d"), []],
    ["one by hand that is named", "[{id: 97}]", present("{id: 97}"), ["take-over 97"]],
    ["another directory's", "[{id: 97}]", present("{id: 97}", "/e"), ["take-over 97"]],
    ["its own, not named", "vnets: []", present("{id: 97}", "/d"), ["delete 97"]],
    ["one by hand, not named", "vnets: []", present("{id: 97}"), []],
    ["another directory's, not named", "vnets: []", present("{id: 97}", "/e"), []],
    ["the daemon's own", "vnets: []", present("{id: 2, bridge: none}", undefined, true), []],
    ["the daemon's own, named", "{id: 2}", present("{id: 2}", undefined, true), ["create 02"]],
    ["one that is another", "{id: 97, bridge: x}", present("{id: 97}"), ["change 97"]],
    [
      "another suite",
      "{id: 97, security: conf, suite: gcm}",
      present("{id: 97, security: conf}"),
      ["remake 97"],
    ],
    ["another level", "{id: 97, security: auth}", present("{id: 97}"), ["remake 97"]],
  ] as const)("%s", (_what, wanted, now, expected) => {
    expect(planned(wanted, [...now])).toEqual(expected);
  });

  it("all go that are not named, but the daemon's own, when they are to be pruned", () => {
    const now = [
      ...present("{id: 97}"),
      ...present("{id: 98}", "/e"),
      ...present("{id: 2}", undefined, true),
    ];
    expect(planned("vnets: []", now, true)).toEqual(["delete 97", "delete 98"]);
  });
});

describe("what is different", () => {
  const between = (before: string, after: string): string[] => {
    const [one, other] = [...vnets(before), ...vnets(after)];
    if (one === undefined || other === undefined) throw new Error("two vnets");
    return differences(one, other).map((each) => `${each.name} ${each.before} ${each.after}`);
  };

  it.each([
    ["{id: 97}", "{id: 97, bridge: vnet0097, security: none}", []],
    ["{id: 97, security: conf}", "{id: 97, security: conf, key: default.key, suite: sha1}", []],
    [
      "{id: 97, security: conf, previousKey: old}",
      "{id: 97, security: conf}",
      // the vnet changes its secret, and goes on doing so
      [],
    ],
    ["{id: 97, security: conf}", "{id: 97, security: conf, key: b}", ["key default.key b"]],
    ["{id: 97, bridge: none}", "{id: 97}", ["bridge null vnet0097"]],
    ["{id: 97, encapsulation: udp}", "{id: 97}", ["encapsulation udp null"]],
    ["{id: 97}", "{id: 97, suppress: on}", ["suppress null on"]],
    ["{id: 97, suppress: on}", "{id: 97, suppress: off}", ["suppress on null"]],
    ["{id: 97}", "{id: 97, group: 239.1.2.3}", ["group null 239.1.2.3"]],
    [
      "{id: 97, group: 239.1.2.3, group6: 'ff15::1'}",
      "{id: 97, group6: 'FF15:0::2'}",
      ["group 239.1.2.3 null", "group6 ff15::1 ff15::2"],
    ],
  ])("%s -> %s", (before, after, expected) => {
    expect(between(before, after)).toEqual(expected);
  });
});

describe("names that are given up and taken", () => {
  const order = (wanted: string, now: string): string[] =>
    inOrder(
      planOf(vnets(wanted), present(now, "/d"), { directory: "/d", prune: false }).change,
    ).map(({ wanted: { id } }) => id.slice(-2));

  it("first given up, then taken", () => {
    const now = "[{id: 97, bridge: a}, {id: 98, bridge: b}, {id: 99, bridge: c}]";
    expect(order("[{id: 97, bridge: b}, {id: 98, bridge: c}, {id: 99, bridge: d}]", now)).toEqual([
      "99",
      "98",
      "97",
    ]);
  });

  it("never in a circle", () => {
    const now = "[{id: 97, bridge: a}, {id: 98, bridge: b}]";
    expect(() => order("[{id: 97, bridge: b}, {id: 98, bridge: a}]", now)).toThrow(VnetdError);
    // one's interface is to be called as the other's bridge
    const crossed = "[{id: 97, bridge: x, vnetif: b}, {id: 98, bridge: y, vnetif: a}]";
    expect(() => order(crossed, now)).toThrow(/exchange their names/);
  });
});
