// SPDX-License-Identifier: Apache-2.0
/** Claims of MACs that have said nothing, and where such a MAC can be known. */
import { describe, expect, it } from "vitest";
import { guestMacOf, type ReadLink } from "../../src/host/guest-mac.js";
import type { LinkInfo } from "../../src/native/contract.js";
import { Claims, claimsDefaults } from "../../src/varp/claims.js";

const of = (n: number): { handle: number; mac: string } => ({
  handle: 1,
  mac: `02:00:00:00:00:${n.toString(16).padStart(2, "0")}`,
});

describe("a claim", () => {
  it("is asked for once, and due when nobody has answered", () => {
    const claims = new Claims();
    expect(claims.wanted(of(1), 100)).toBe(true);
    expect(claims.wanted(of(1), 110)).toBe(false);
    expect(claims.waitMs(110)).toBe(claimsDefaults.waitMs - 10);
    expect(claims.due(100 + claimsDefaults.waitMs - 1)).toEqual([]);
    expect(claims.due(100 + claimsDefaults.waitMs)).toEqual([{ ...of(1), askedMs: 100 }]);
    expect(claims.due(10_000)).toEqual([]);
    expect(claims.waitMs(10_000)).toBeUndefined();
  });

  it("that is contradicted is never due, and asked for again later, with more patience", () => {
    const { againMs, againWaitMs, waitMs } = claimsDefaults;
    const claims = new Claims();
    claims.wanted(of(1), 0);
    claims.wanted(of(2), 5);
    claims.contradicted(of(1), 8);
    expect(claims.waitMs(10)).toBe(waitMs - 5);
    expect(claims.due(1000)).toEqual([{ ...of(2), askedMs: 5 }]);
    expect(claims.wanted(of(1), againMs - 1)).toBe(false);
    expect(claims.wanted(of(1), againMs)).toBe(true);
    expect(claims.due(againMs + waitMs)).toEqual([]);
    expect(claims.waitMs(againMs + waitMs)).toBe(againWaitMs - waitMs);
    expect(claims.due(againMs + againWaitMs)).toEqual([{ ...of(1), askedMs: againMs }]);
  });

  it("that is contradicted too late is not made again at once", () => {
    const claims = new Claims();
    claims.wanted(of(1), 0);
    expect(claims.due(50)).toHaveLength(1);
    claims.contradicted(of(1), 80);
    expect(claims.wanted(of(1), 1000)).toBe(false);
    expect(claims.wanted(of(1), 80 + claimsDefaults.againMs)).toBe(true);
  });

  it("ends with its port", () => {
    const claims = new Claims();
    claims.wanted(of(1), 0);
    claims.settled(of(1));
    expect(claims.due(1000)).toEqual([]);
    expect(claims.wanted(of(1), 1000)).toBe(true);
  });

  it("is limited in number and rate; a vnet's is not another's", () => {
    const claims = new Claims({ ...claimsDefaults, maxPending: 2 });
    expect([1, 2, 3].map((n) => claims.wanted(of(n), 0))).toEqual([true, true, false]);
    const slow = new Claims({ ...claimsDefaults, rate: { perSecond: 10, burst: 2 } });
    expect([1, 2, 3].map((n) => slow.wanted(of(n), 0))).toEqual([true, true, false]);
    expect(slow.wanted(of(3), 100)).toBe(true);
    const both = new Claims();
    both.wanted(of(1), 0);
    expect(both.wanted({ ...of(1), handle: 2 }, 0)).toBe(true);
  });
});

describe("the MAC of a port's guest", () => {
  const link = (change: Partial<LinkInfo>): LinkInfo => ({
    ifindex: 5,
    name: "port",
    kind: "veth",
    mtuBytes: 1500,
    mac: "02:00:00:00:00:01",
    up: true,
    carrier: true,
    loopback: false,
    master: 9,
    link: 6,
    ...change,
  });
  const other = link({ ifindex: 6, name: "eth0", mac: "02:00:00:00:00:02", master: 0, link: 5 });
  const reads =
    (change: Partial<LinkInfo> = {}): ReadLink =>
    () => ({ ...other, ...change });
  const nothing: ReadLink = () => undefined;

  it.each([
    ["a tap of libvirt's with QEMU's prefix", "fe:54:00:12:34:56", "52:54:00:12:34:56"],
    ["one with a prefix of several owners", "fe:16:3e:12:34:56", undefined],
    ["Xen's", "fe:ff:ff:ff:ff:ff", undefined],
    ["a tap of somebody else's", "02:54:00:12:34:56", undefined],
    ["a tap without a MAC", "", undefined],
  ])("is known from %s only if it is certain", (_what, mac, expected) => {
    expect(guestMacOf(link({ kind: "tun", link: 0, mac }), nothing)).toBe(expected);
    expect(guestMacOf(link({ kind: "", link: 0, mac }), nothing)).toBeUndefined();
  });

  it.each([
    ["in another namespace", link({ linkNetnsId: 3 }), reads(), other.mac],
    ["there, on a bridge", link({ linkNetnsId: 3 }), reads({ master: 8 }), other.mac],
    ["of this host", link({}), reads(), other.mac],
    ["of this host, on a bridge", link({}), reads({ master: 8 }), undefined],
    ["that is gone", link({}), nothing, undefined],
    ["without a MAC", link({}), reads({ mac: "" }), undefined],
    ["with none that a guest has", link({}), reads({ mac: "00:00:00:00:00:00" }), undefined],
    ["of vnetd's", link({}), reads({ alias: "vnetd 0000:0:0:0:0:0:0:97" }), undefined],
    ["of a port of vnetd's", link({ alias: "vnetd segment" }), reads(), undefined],
  ])("is that of a veth's other end %s", (_what, port, read, expected) => {
    expect(guestMacOf(port, read)).toBe(expected);
  });
});
