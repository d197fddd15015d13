// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd apply DIR`: a host's vnets become what the files of a directory say, and those that stay as they are lose no
 * frame by it.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { ApplyInfo, VnetState } from "../../src/api/contract.js";
import {
  Lab,
  eventually,
  repository,
  type Background,
  type Guest,
  type Host,
  type RunResult,
} from "../lib/lab.js";
import { attachedHosts, longId } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let ga: Guest;
let directory = "";

/** The directory has these files, and no others. */
function files(texts: Record<string, string>): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory);
  for (const [name, text] of Object.entries(texts)) writeFileSync(join(directory, name), text);
}

const apply = (...more: string[]): Promise<RunResult> => a.vnetd(["apply", directory, ...more]);
const applied = (...more: string[]): Promise<ApplyInfo> =>
  a.vnetdJson<ApplyInfo>(["apply", directory, ...more]);
const done = ({ changes }: ApplyInfo): string[] =>
  changes.map(({ action, id }) => `${action} ${id.slice(-4)}`);

async function vnets(): Promise<Map<string, VnetState>> {
  const list = await a.vnetdJson<VnetState[]>(["vnets"]);
  return new Map(list.map((each) => [each.id.slice(-4), each]));
}

/** Everything that an apply could change. */
async function everything(): Promise<unknown> {
  const links = await a.ip<{ ifname: string; ifindex: number; master?: string }[]>("link", "show");
  return {
    links: links.map(({ ifname, ifindex, master }) => [ifname, ifindex, master]),
    vnets: [...(await vnets())].map(([id, { handle, bridge, vnetif }]) => [
      id,
      handle,
      bridge,
      vnetif,
    ]),
    state: readFileSync(join(a.stateDir, "state.yaml"), "utf8"),
  };
}

/** Runs while guests of vnet 97 ping one another, and none of it is lost. */
async function underTraffic(step: () => Promise<void>): Promise<void> {
  const run = ga.startPing("10.97.0.2", { intervalMs: 10 });
  await eventually(() => run.answers > 3);
  await step();
  const mark = run.answers;
  await eventually(() => run.answers > mark + 20);
  const { lost } = await run.stop();
  expect(lost).toBeLessThanOrEqual(1); // the one that was under way when ping was stopped
}

const own = "(vnet (id 97) (bridge blue))\n";

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"], { config: "defaultVnets: false\n" })) as [
    Host,
    Host,
  ];
  directory = join(lab.directory, "vnets");
  files({ "a.sxp": own });
  await apply();
  await b.vnetd(["vnet-create", "97"]);
  ga = await a.guest("a1", { bridge: "blue", address: "10.97.0.1/24" });
  await b.guest("b1", { bridge: "vnet0097", address: "10.97.0.2/24" });
  await eventually(async () => (await ga.ping("10.97.0.2", { count: 1 })).received === 1);
}, 120_000);
afterAll(() => lab.close());
beforeEach(async () => {
  files({ "a.sxp": own });
  await apply("--prune");
});

describe("vnets are made, changed and deleted", () => {
  it("from s-expressions, YAML and JSON, shown before and done after", async () => {
    files({
      "a.sxp": own,
      "b.yaml": "vnets:\n  - {id: 98, encapsulation: etherip}\n  - id: 99\n    bridge: none\n",
      "c.json": '{"id": "9a", "vnetif": "red"}',
      ".hidden.yaml": "not: read",
    });
    await underTraffic(async () => {
      const before = await everything();
      const shown = await apply("--dry-run");
      expect(shown.stdout.split("\n").slice(0, 6)).toEqual([
        `+ vnet 0098: bridge vnet0098, vnetif vnif0098, security none, encapsulation etherip  (${directory}/b.yaml:2)`,
        `+ vnet 0099: vnetif vnif0099, security none  (${directory}/b.yaml:3)`,
        `+ vnet 009a: bridge vnet009a, vnetif red, security none  (${directory}/c.json:1)`,
        "  1 as it is",
        "nothing was changed (--dry-run)",
        "",
      ]);
      expect(await everything()).toEqual(before);
      expect((await apply()).stdout).toMatch(/^\+ vnet 0098[^]*\ndone: 3 of 4 vnets changed\n$/);
      expect([...(await vnets()).keys()]).toEqual(["0097", "0098", "0099", "009a"]);
      expect((await apply()).stdout).toBe("  4 as they are\nnothing is to be changed\n");
    });
    files({ "a.sxp": own, "b.yaml": "vnets: [{id: 98, bridge: green}]\n" });
    await underTraffic(async () => {
      const { handle, vmac } = (await vnets()).get("0098") as VnetState;
      const result = await applied();
      expect(done(result)).toEqual(["delete 0099", "delete 009a", "change 0098"]);
      expect(result.changes[2]?.parameters).toEqual([
        { name: "bridge", before: "vnet0098", after: "green" },
        { name: "encapsulation", before: "etherip", after: null },
      ]);
      const now = (await vnets()).get("0098");
      expect(now).toMatchObject({ handle, vmac, bridge: "green", encapsulation: "udp" });
      const names = (await a.ip<{ ifname: string }[]>("link", "show")).map(({ ifname }) => ifname);
      expect(names).toContain("green");
      for (const gone of ["vnet0098", "vnet009a", "red", "vnif0099"])
        expect(names).not.toContain(gone);
      expect(a.daemon.stderr).not.toMatch(/0098: \S+ was not on its bridge/);
    });
  });

  it("a vnet in use is changed in place: encapsulation and the interface's name", async () => {
    const before = (await vnets()).get("0097");
    await underTraffic(async () => {
      files({ "a.sxp": "(vnet (id 97) (bridge blue) (encapsulation etherip))" });
      expect(done(await applied())).toEqual(["change 0097"]);
      files({ "a.sxp": own });
      expect(done(await applied())).toEqual(["change 0097"]);
    });
    files({ "a.sxp": "(vnet (id 97) (bridge blue) (vnetif blau))" });
    expect(done(await applied())).toEqual(["change 0097"]);
    await eventually(async () => (await ga.ping("10.97.0.2", { count: 1 })).received === 1);
    const now = (await vnets()).get("0097");
    expect(now).toMatchObject({ vnetif: "blau", handle: before?.handle, vmac: before?.vmac });
  });

  it("off its bridge and on one again", async () => {
    files({ "a.sxp": own, "b.yaml": "{id: 98, bridge: green}\n" });
    await apply();
    files({ "a.sxp": own, "b.yaml": "{id: 98, bridge: none}\n" });
    expect(done(await applied())).toEqual(["change 0098"]);
    const links = await a.ip<{ ifname: string; master?: string }[]>("link", "show");
    expect(links.find(({ ifname }) => ifname === "vnif0098")?.master).toBeUndefined();
    expect(links.some(({ ifname }) => ifname === "green")).toBe(false);
    files({ "a.sxp": own, "b.yaml": "{id: 98, bridge: green}\n" });
    await apply();
    const again = await a.ip<{ ifname: string; master?: string }[]>("link", "show");
    expect(again.find(({ ifname }) => ifname === "vnif0098")?.master).toBe("green");
  });

  it("names that one gives up are another's: also a vnet that has another id now", async () => {
    files({ "a.sxp": own, "b.yaml": "[{id: 98, bridge: green}, {id: 99, bridge: red}]\n" });
    await apply();
    files({ "a.sxp": own, "b.yaml": "[{id: 9b, bridge: green}, {id: 99, bridge: red}]\n" });
    await underTraffic(async () => {
      expect(done(await applied())).toEqual(["delete 0098", "create 009b"]);
    });
    expect((await vnets()).get("009b")).toMatchObject({ bridge: "green", up: true });
    files({ "a.sxp": own, "b.yaml": "[{id: 9b, bridge: red}, {id: 99, bridge: green}]\n" });
    const swapped = await a.tryVnetd(["apply", directory, "--json"]);
    expect(JSON.parse(swapped.stderr)).toMatchObject({ code: "NAME_IN_USE" });
    files({ "a.sxp": own, "b.yaml": "[{id: 99, bridge: rot}, {id: 9b, bridge: red}]\n" });
    expect(done(await applied()).sort()).toEqual(["change 0099", "change 009b"]);
    expect((await vnets()).get("009b")).toMatchObject({ bridge: "red", up: true });
  });

  it("comes back with the daemon, and is owned still", async () => {
    files({ "a.sxp": own, "b.yaml": "{id: 98}\n" });
    await apply();
    await a.killDaemon("SIGKILL");
    await a.startDaemon({ args: ["--metrics-listen", "off"], config: "defaultVnets: false\n" });
    expect(done(await applied())).toEqual([]);
    files({ "a.sxp": own });
    expect(done(await applied())).toEqual(["delete 0098"]);
  });
});

describe("whose a vnet is", () => {
  it("what was made otherwise is left alone without --prune, and taken over when it is named", async () => {
    await a.vnetd(["vnet-create", "98"]);
    await a.vnetd(["vnet-create", "99"]);
    const { stdout, stderr } = await apply();
    expect(stdout).toBe("  1 as it is\nnothing is to be changed\n");
    expect(stderr).toMatch(/left alone \(--prune deletes them\): 0098, 0099/);
    files({ "a.sxp": own, "b.yaml": "id: 98\n" });
    expect(done(await applied())).toEqual(["take-over 0098"]);
    files({ "a.sxp": own });
    expect(done(await applied())).toEqual(["delete 0098"]);
    expect([...(await vnets()).keys()]).toEqual(["0097", "0099"]);
    expect(done(await applied("--prune"))).toEqual(["delete 0099"]);
  });

  it("directories do not take from one another what they do not name", async () => {
    const other = join(lab.directory, "other");
    mkdirSync(other);
    writeFileSync(join(other, "x.yaml"), "id: 98\n");
    const there = await a.vnetdJson<ApplyInfo>(["apply", other]);
    expect([done(there), there.others]).toEqual([["create 0098"], [longId("97")]]);
    expect(await applied()).toMatchObject({ changes: [], others: [longId("98")] });
    // one that somebody deleted is made again, and is nobody's meanwhile
    await a.vnetd(["vnet-delete", "98"]);
    expect(readFileSync(join(a.stateDir, "state.yaml"), "utf8")).not.toContain(other);
    expect(done(await a.vnetdJson<ApplyInfo>(["apply", other]))).toEqual(["create 0098"]);
    writeFileSync(join(other, "x.yaml"), "vnets: []\n");
    expect(done(await a.vnetdJson<ApplyInfo>(["apply", other]))).toEqual(["delete 0098"]);
  });
});

describe("what cannot be had changes nothing at all", () => {
  async function refuses(code: string, place?: object): Promise<void> {
    const before = await everything();
    for (const more of [["--dry-run"], []]) {
      const result = await a.tryVnetd(["apply", directory, "--json", ...more]);
      expect(result.code).not.toBe(0);
      expect(JSON.parse(result.stderr)).toMatchObject({
        code,
        ...(place === undefined ? {} : { place }),
      });
    }
    expect(await everything()).toEqual(before);
  }

  it("a file with a mistake, by file and line", async () => {
    await underTraffic(async () => {
      files({ "b.yaml": "id: 98\n", "c.yaml": "id: 99\nbrigde: x\n" });
      await refuses("UNKNOWN_PARAMETER", { source: join(directory, "c.yaml"), line: 2 });
      files({ "b.yaml": "id: 98\n", "c.sxp": "(vnet (id 98))\n" });
      await refuses("DUPLICATE_VNET", { source: join(directory, "c.sxp"), line: 1 });
      files({ "b.yaml": "id: 98\nbridge: eth0\n" });
      await refuses("NOT_A_BRIDGE", { source: join(directory, "b.yaml"), line: 2 });
      files({ "b.yaml": "id: 98\nsecurity: conf\n" });
      await refuses("NO_KEY");
    });
  });

  it("a directory without files: nothing is deleted by mistake", async () => {
    files({ README: "nothing" });
    await refuses("MISSING_PARAMETER");
    rmSync(directory, { recursive: true });
    await refuses("FILE_UNREADABLE");
    writeFileSync(directory, own);
    await refuses("FILE_UNREADABLE");
    rmSync(directory);
  });

  it("a name of a vnet that stays", async () => {
    await a.vnetd(["vnet-create", "98"]);
    files({ "a.sxp": own, "b.yaml": "{id: 99, bridge: vnet0098}\n" });
    await refuses("NAME_IN_USE", { source: join(directory, "b.yaml"), line: 1 });
  });

  it("a state that cannot be written: all is taken back", async () => {
    files({ "a.sxp": own, "b.yaml": "[{id: 98, bridge: green}, {id: 99}]\n" });
    await apply();
    files({
      "a.sxp": "(vnet (id 97) (bridge blue) (encapsulation etherip))",
      "b.yaml": "[{id: 98, bridge: red, vnetif: rot}, {id: 9c}]\n",
    });
    const inTheWay = join(a.stateDir, "state.yaml.tmp");
    mkdirSync(inTheWay);
    try {
      await underTraffic(async () => {
        const before = (await vnets()).get("0098");
        const result = await a.tryVnetd(["apply", directory]);
        expect(result.code).toBe(1);
        expect([...(await vnets()).keys()]).toEqual(["0097", "0098", "0099"]);
        expect((await vnets()).get("0098")).toEqual(before);
        const names = (await a.ip<{ ifname: string }[]>("link", "show")).map((each) => each.ifname);
        for (const made of ["red", "rot", "vnif009c"]) expect(names).not.toContain(made);
      });
    } finally {
      rmSync(inTheWay, { recursive: true });
    }
    expect(done(await applied())).toEqual([
      "delete 0099",
      "change 0097",
      "change 0098",
      "create 009c",
    ]);
  });
});

describe("--follow", () => {
  const follow = (): Background =>
    a.spawn([
      ...[join(repository, "bin", "vnetd"), "apply", "--follow", directory],
      ...["--run-dir", a.runDir],
    ]);

  it("waits for the daemon, and applies each change while frames flow", async () => {
    await a.killDaemon();
    const following = follow();
    await following.output(/no daemon answers yet/, { timeoutMs: 20_000 });
    files({ "a.sxp": own, "b.yaml": "{id: 98, bridge: green}\n" });
    await a.startDaemon({ config: "defaultVnets: false\n" });
    await eventually(async () => (await vnets()).has("0098"));
    await underTraffic(async () => {
      files({ "a.sxp": own, "c.yaml": "{id: 99, bridge: green}\n" });
      await eventually(async () => [...(await vnets()).keys()].join() === "0097,0099");
    });
    const { code } = await following.stop("SIGTERM", 10_000);
    expect(code).toBe(0);
  });

  it("ends by a mistake, and what is there stays", async () => {
    files({ "a.sxp": own });
    const following = follow();
    await eventually(async () => [...(await vnets()).keys()].join() === "0097");
    files({ "a.sxp": own, "b.yaml": "{id: 98, brigde: green}\n" });
    await eventually(() => following.code !== undefined, { timeoutMs: 20_000 });
    expect(following.code).not.toBe(0);
    expect(following.stderr).toContain("brigde");
    expect([...(await vnets()).keys()]).toEqual(["0097"]);
  });

  it("has no --json and no --dry-run", async () => {
    for (const flag of ["--json", "--dry-run"])
      expect((await a.tryVnetd(["apply", "--follow", flag, directory])).stderr).toContain(flag);
  });
});
