// SPDX-License-Identifier: Apache-2.0
/** Members and the paths to them, in time that the test makes. */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { Members, type HeardHello, type PathChange } from "../../src/varp/members.js";

const helloMs = 1000;
const options = { helloMs, maxHostsPerVnet: 4, maxPathsPerHost: 3, maxMembers: 10 };

function hello(change: Partial<HeardHello> = {}): HeardHello {
  return {
    handle: 1,
    hostId: "b",
    bootNonce: "n1",
    capabilities: 1,
    mtuBytes: 1500,
    name: "host b",
    software: "vnetd",
    address: "10.0.0.2",
    ifindex: 2,
    ...change,
  };
}
const lan0 = { address: "10.0.0.2", ifindex: 2 };
const lan1 = { address: "10.1.0.2", ifindex: 3 };

/** What the next hops say after the changes: "address@ifindex" -> flags. */
class NextHops {
  readonly flags = new Map<string, string>();
  readonly others = new Map<string, string>();
  readonly numbers = new Map<string, number>();
  apply(changes: readonly PathChange[]): void {
    for (const { handle, address, ifindex, member, secondary, other, path } of changes) {
      const key = `${handle}:${address}@${ifindex}`;
      this.others.delete(key);
      this.numbers.delete(key);
      if (other !== undefined) this.others.set(key, `${other.address}@${other.ifindex}`);
      if (member) this.numbers.set(key, path);
      if (member) this.flags.set(key, secondary ? "secondary" : "primary");
      else this.flags.delete(key);
    }
  }
}

describe("members", () => {
  let members: Members;
  let hops: NextHops;
  const hear = (
    change: Partial<HeardHello>,
    nowMs: number,
  ): { isNew: boolean; refused: boolean } => {
    const result = members.heard(hello(change), nowMs);
    hops.apply(result.changes);
    return result;
  };

  beforeEach(() => {
    members = new Members(options);
    hops = new NextHops();
  });

  it("are new once, and again after a reboot", () => {
    expect(hear({}, 0).isNew).toBe(true);
    expect(hear({}, 10).isNew).toBe(false);
    expect(hear({ bootNonce: "n2" }, 20).isNew).toBe(true);
    expect(members.list()).toHaveLength(1);
  });

  it("have one primary path; the first is kept though the second has a lower ifindex", () => {
    hear(lan1, 0);
    expect(hear(lan0, 1).isNew).toBe(true);
    expect(Object.fromEntries(hops.flags)).toEqual({
      "1:10.1.0.2@3": "primary",
      "1:10.0.0.2@2": "secondary",
    });
  });

  it("change to the other path when the primary falls silent", () => {
    hear(lan0, 0);
    hear(lan1, 0);
    for (const at of [1000, 2000]) hear(lan1, at);
    hops.apply(members.tick(2400));
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("primary");
    hear(lan1, 2500);
    hops.apply(members.tick(2501));
    expect(hops.flags.get("1:10.1.0.2@3")).toBe("primary");
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("secondary");
    hops.apply(members.tick(3001));
    expect(hops.flags.has("1:10.0.0.2@2")).toBe(false);
  });

  it("change path in all vnets when the primary does not answer, though hellos are rare", () => {
    for (const handle of [1, 2]) {
      hear({ ...lan0, handle }, 100);
      hear({ ...lan1, handle }, 0);
    }
    hops.apply(members.suspect(lan0, 300));
    expect(hops.flags.get("1:10.1.0.2@3")).toBe("primary");
    expect(hops.flags.get("2:10.1.0.2@3")).toBe("primary");
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("secondary");
    // heard again, it is the other path until it is needed
    hear(lan0, 400);
    expect(hops.flags.get("1:10.1.0.2@3")).toBe("primary");
    hops.apply(members.suspect(lan1, 500));
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("primary");
  });

  it("stay on their only path though it is silent, until it expires", () => {
    hear(lan0, 0);
    hops.apply(members.tick(2900));
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("primary");
    hops.apply(members.tick(3001));
    expect(members.size).toBe(0);
    expect(hops.flags.size).toBe(0);
  });

  it("that fall silent by all paths at about the same time stay known as one host", () => {
    hear(lan0, 0);
    hear({ ...lan1, capabilities: 257 }, 900);
    // one of the two alone is not taken out a moment before the other
    expect(members.tick(3500).every(({ member }) => member)).toBe(true);
    expect(members.list()[0]?.paths).toHaveLength(2);
    const changes = members.tick(3901);
    expect(members.size).toBe(0);
    expect(changes.map(({ member, secondary, hostId }) => [member, secondary, hostId])).toEqual([
      [false, true, "b"],
      [false, false, "b"],
    ]);
    expect(changes.map(({ path, other }) => [path, other?.ifindex])).toEqual([
      [0, 3],
      [1, 2],
    ]);
    // what each said by its own path
    expect(changes.map(({ capabilities }) => capabilities)).toEqual([1, 257]);
  });

  it("change path at once when our device goes down, and back by themselves", () => {
    hear(lan0, 0);
    hear(lan1, 0);
    hops.apply(members.carrierDown({ ifindex: 2, family: 4 }));
    expect(hops.flags.get("1:10.1.0.2@3")).toBe("primary");
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("secondary");
    members.carrierUp({ ifindex: 2, family: 4 });
    hear(lan0, 10);
    expect(hops.flags.get("1:10.1.0.2@3")).toBe("primary");
  });

  it("follow a new address behind the primary's device at once", () => {
    hear(lan0, 0);
    hear(lan1, 0);
    hear({ address: "10.0.0.9", ifindex: 2 }, 100);
    expect(hops.flags.get("1:10.0.0.9@2")).toBe("primary");
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("secondary");
    expect(hops.flags.get("1:10.1.0.2@3")).toBe("secondary");
  });

  it("that are heard by both families are one, and the second is a path, not a new address", () => {
    const ipv6 = { address: "fd00::2", ifindex: 2 };
    hear(lan0, 0);
    expect(hear(ipv6, 10).isNew).toBe(true);
    expect(members.list()).toHaveLength(1);
    expect(members.list()[0]?.paths).toHaveLength(2);
    expect(hops.flags.get("1:10.0.0.2@2")).toBe("primary");
    expect(hops.flags.get("1:fd00::2@2")).toBe("secondary");
    // the device loses its IPv4 address
    hops.apply(members.carrierDown({ ifindex: 2, family: 4 }));
    expect(hops.flags.get("1:fd00::2@2")).toBe("primary");
    hops.apply(members.carrierGone({ ifindex: 2, family: 4 }));
    expect(members.list()[0]?.paths).toMatchObject([ipv6]);
  });

  it("leave by goodbye, path by path", () => {
    hear(lan0, 0);
    hear(lan1, 0);
    hops.apply(members.goodbye(1, "b", lan0));
    expect(Object.fromEntries(hops.flags)).toEqual({ "1:10.1.0.2@3": "primary" });
    hops.apply(members.goodbye(1, "b", lan1));
    expect(members.size).toBe(0);
    expect(members.goodbye(1, "b", lan1)).toEqual([]);
  });

  it("lose the paths of a device that is detached", () => {
    hear(lan0, 0);
    hear(lan1, 0);
    hops.apply(members.carrierGone({ ifindex: 2, family: 4 }));
    expect(Object.fromEntries(hops.flags)).toEqual({ "1:10.1.0.2@3": "primary" });
  });

  it("name one another's paths: the primary the next best, the others the primary", () => {
    hear(lan0, 0);
    expect(hops.others.get("1:10.0.0.2@2")).toBeUndefined();
    hear(lan1, 0);
    hear({ address: "10.2.0.2", ifindex: 4 }, 0);
    expect(Object.fromEntries(hops.others)).toEqual({
      "1:10.0.0.2@2": "10.1.0.2@3",
      "1:10.1.0.2@3": "10.0.0.2@2",
      "1:10.2.0.2@4": "10.0.0.2@2",
    });
    expect([...hops.numbers.values()].sort()).toEqual([0, 1, 2]);
    hops.apply(members.goodbye(1, "b", lan1));
    expect(hops.others.get("1:10.0.0.2@2")).toBe("10.2.0.2@4");
    hops.apply(members.goodbye(1, "b", lan0));
    expect([...hops.others]).toEqual([]);
  });

  it("come over path by path when they start again", () => {
    hear(lan0, 0);
    hear(lan1, 0);
    hear({ ...lan0, bootNonce: "n2" }, 500);
    // the other path's hello is under way: until then these are two
    expect([...hops.others]).toEqual([]);
    hear({ ...lan1, bootNonce: "n2" }, 501);
    expect(hops.others.get("1:10.1.0.2@3")).toBe("10.0.0.2@2");
    expect(members.list().map((m) => [m.bootNonce, m.paths.length])).toEqual([["n2", 2]]);
    expect(members.clones(501)).toEqual([]);
  });

  describe("with one id on two machines", () => {
    const first = { bootNonce: "n1", address: "10.0.0.2" };
    const clone = { bootNonce: "n2", address: "10.0.0.3" };

    it("are two hosts from the first hello on, and named when both were heard again", () => {
      hear(first, 0);
      hear(clone, 300);
      expect(hops.flags.get("1:10.0.0.2@2")).toBe("primary");
      expect(hops.flags.get("1:10.0.0.3@2")).toBe("primary");
      expect([...hops.others]).toEqual([]);
      expect(members.clones(300)).toEqual([]);
      hear(first, 1000);
      expect(members.clones(1000)).toEqual([]);
      hear(clone, 1300);
      expect(members.clones(1300)).toEqual([{ hostId: "b", addresses: ["10.0.0.2", "10.0.0.3"] }]);
      expect(members.list()).toHaveLength(2);
    });

    it("are forgotten as clones when one was given another id", () => {
      for (const at of [0, 1000]) {
        hear(first, at);
        hear(clone, at + 300);
      }
      hear({ ...clone, hostId: "c", bootNonce: "n3" }, 1500);
      expect(members.clones(1500)).toEqual([]);
      hear(first, 2000);
      expect(members.list().map((m) => m.hostId)).toEqual(["b", "c"]);
    });

    it("are not a host that starts again at another address", () => {
      hear(first, 0);
      hear(first, 1000);
      for (const at of [1300, 2300, 3300, 4300]) hear(clone, at);
      hops.apply(members.tick(4301));
      expect(members.clones(4301)).toEqual([]);
      expect(members.list()).toHaveLength(1);
    });
  });

  it("are bounded: hosts of a vnet, paths of a host, members in all", () => {
    const host = (at: number): Partial<HeardHello> => ({
      hostId: `h${at}`,
      address: `10.0.0.${at}`,
    });
    for (let at = 0; at < 4; at++) expect(hear(host(at), 0).refused).toBe(false);
    expect(hear(host(4), 0).refused).toBe(true);
    // a host that starts again is not one more
    expect(hear({ ...host(3), bootNonce: "n2" }, 0)).toMatchObject({ refused: false, isNew: true });
    expect(members.ofVnet(1)).toHaveLength(4);
    for (let at = 0; at < 6; at++) hear({ hostId: "h0", address: `10.0.1.${at}`, ifindex: 9 }, at);
    expect(members.ofVnet(1).find((m) => m.hostId === "h0")?.paths).toHaveLength(3);
    for (let at = 0; at < 20; at++) hear({ handle: 100 + at }, 0);
    expect(members.size).toBe(10);
    members.vnetGone(1);
    expect(members.size).toBe(6);
  });

  it("have exactly one primary path each, whatever happens", () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("hear" as const),
        host: fc.nat(3),
        path: fc.nat(4),
        ms: fc.nat(900),
      }),
      fc.record({
        kind: fc.constant("down" as const),
        host: fc.nat(3),
        path: fc.nat(4),
        ms: fc.nat(900),
      }),
      fc.record({
        kind: fc.constant("up" as const),
        host: fc.nat(3),
        path: fc.nat(4),
        ms: fc.nat(900),
      }),
      fc.record({
        kind: fc.constant("bye" as const),
        host: fc.nat(3),
        path: fc.nat(4),
        ms: fc.nat(900),
      }),
      fc.record({
        kind: fc.constant("gone" as const),
        host: fc.nat(3),
        path: fc.nat(4),
        ms: fc.nat(900),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        members = new Members(options);
        const state = new NextHops();
        let now = 0;
        for (const { kind, host, path, ms } of steps) {
          now += ms;
          const ifindex = 2 + (path % 3);
          const at = { hostId: `h${host}`, address: `10.${path}.0.${host}`, ifindex };
          if (kind === "hear") state.apply(members.heard(hello(at), now).changes);
          if (kind === "down") state.apply(members.carrierDown({ ifindex, family: 4 }));
          if (kind === "up") members.carrierUp({ ifindex, family: 4 });
          if (kind === "bye") state.apply(members.goodbye(1, at.hostId, at));
          if (kind === "gone") state.apply(members.carrierGone({ ifindex, family: 4 }));
          state.apply(members.tick(now));
          check(members, state);
        }
      }),
    );
  });
});

/** The next hops are those of the members, each with one primary that the others name. */
function check(members: Members, state: NextHops): void {
  const expected = new Map<string, string>();
  for (const member of members.list()) {
    expect(member.paths).toContain(member.primary);
    for (const path of member.paths) {
      const flag = path === member.primary ? "primary" : "secondary";
      const key = `${member.handle}:${path.address}@${path.ifindex}`;
      expected.set(key, flag);
      const { address, ifindex } = member.primary;
      if (path !== member.primary) expect(state.others.get(key)).toBe(`${address}@${ifindex}`);
      else expect(state.others.has(key)).toBe(member.paths.length > 1);
    }
    const numbers = member.paths.map((p) =>
      state.numbers.get(`${member.handle}:${p.address}@${p.ifindex}`),
    );
    expect(new Set(numbers).size).toBe(member.paths.length);
  }
  expect(Object.fromEntries(state.flags)).toEqual(Object.fromEntries(expected));
}
