// SPDX-License-Identifier: Apache-2.0
/** Underlay devices of secure vnets that are detached, or get another address. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { keyedHosts, reaches, secureVnet, stateLines } from "./secure.js";

let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await keyedHosts(lab, ["a", "b"])) as [Host, Host];
});
afterAll(() => lab.close());

describe("an underlay device", () => {
  beforeAll(async () => {
    await secureVnet([a, b]);
    await reaches(a, "10.98.0.2");
  });

  it("that is detached leaves nothing behind, and its host is none to the others", async () => {
    await b.vnetd(["detach", "eth0"]);
    expect(await stateLines(b)).toEqual([]);
    expect((await b.exec("ip xfrm policy")).stdout).toBe("");
    expect(await b.ip("link", "show", "type", "xfrm")).toEqual([]);
    await eventually(async () => (await stateLines(a)).length === 0, {
      timeoutMs: 30_000,
      what: "the SAs with it to go",
    });
    await b.vnetd(["attach", "eth0"]);
    await reaches(a, "10.98.0.2");
  });

  it("may get another address", async () => {
    // by itself: with the first address of a network its others go
    await b.exec("ip addr del 10.66.1.2/24 dev eth0 && ip addr add 10.66.1.22/24 dev eth0");
    await reaches(a, "10.98.0.2");
    const lines = (await a.exec("ip xfrm state")).stdout;
    expect(lines).toContain("dst 10.66.1.22");
    await eventually(async () => !(await a.exec("ip xfrm state")).stdout.includes("10.66.1.2\n"), {
      timeoutMs: 60_000,
      what: "the SAs with the old address to go",
    });
  });
});
