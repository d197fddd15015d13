// SPDX-License-Identifier: Apache-2.0
/**
 * The contract of the commands that other tools rely on, with the real daemon: names under both
 * programs, exit codes, fields of --json, and what goes to which stream.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { attachedHosts, longId, quickHello } from "./world.js";

const bin = resolve(import.meta.dirname, "..", "..", "bin");
const id97 = longId("97");
let lab: Lab;
let a: Host;
let ga: Guest;

beforeAll(async () => {
  lab = await Lab.create();
  const [first, b] = (await attachedHosts(lab, ["a", "b"], { config: quickHello })) as [Host, Host];
  a = first;
  for (const host of [a, b]) await host.vnetd(["vnet-create", "97"]);
  ga = await a.guest("ga", { bridge: "vnet0097", address: "10.0.0.1/24" });
  await b.guest("gb", { bridge: "vnet0097", address: "10.0.0.2/24" });
  await ga.ping("10.0.0.2", { count: 2 });
});
afterAll(() => lab.close());

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}
const run = (program: "vnetd" | "vn", args: readonly string[], runDir = a.runDir): Promise<Ran> =>
  a.tryExec([join(bin, program), ...args], { env: { VNETD_RUN_DIR: runDir } });

/** what each command that only looks gives with --json: the fields that must be there */
const lists: [string, Record<string, unknown>][] = [
  ["vnet-list", { id: "string", bridge: "string", vnetif: "string", security: "string" }],
  ["vnets", { id: "string", bridge: "string", vnetif: "string", up: "boolean" }],
  ["vnifs", { vnet: "string", vnetif: "string", vmac: "string", bridge: "string", up: "boolean" }],
  [
    "vifs",
    { vnet: "string", vmac: "string", state: "string", ageSeconds: "number", device: "string" },
  ],
  [
    "varp",
    { vnet: "string", vmac: "string", address: "string", state: "string", ageSeconds: "number" },
  ],
  ["bridges", { bridge: "string", vnet: "string", ports: "object", owned: "boolean" }],
  ["hosts", { hostId: "string", name: "string", vnets: "object", paths: "object" }],
];

describe("commands that look", () => {
  it.each(lists)(
    "%s: fields of --json under both names, a table for people",
    async (name, fields) => {
      const of97 = (rows: Record<string, unknown>[]): Record<string, unknown> | undefined =>
        rows.find((row) => name === "hosts" || row["vnet"] === id97 || row["id"] === id97);
      const row = await eventually(async () => {
        const { code, stdout, stderr } = await run("vnetd", [name, "--json"]);
        expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
        return of97(JSON.parse(stdout) as Record<string, unknown>[]);
      });
      const types = Object.fromEntries(
        Object.keys(fields).map((field) => [field, typeof row?.[field]]),
      );
      expect(types).toEqual(fields);
      const people = await run("vn", [name]);
      expect(people).toMatchObject({ code: 0, stderr: "" });
      expect(people.stdout).toMatch(/^[A-Z]+ /);
      // no terminal, no colour
      expect(people.stdout).not.toContain("\u001b");
    },
  );

  it("status --json names the attached devices", async () => {
    const { stdout } = await run("vn", ["status", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({
      attached: [
        {
          device: "eth0",
          address: "10.66.1.1",
          mode: expect.stringMatching(/tcx|clsact/) as unknown,
          mtu: 1500,
        },
      ],
    });
  });

  it("vnet-list takes ids, vnets -a and -l, version and completion need no argument", async () => {
    const two = await run("vnetd", ["vnet-list", "--json", "97", "0004"]);
    expect((JSON.parse(two.stdout) as { id: string }[]).map(({ id }) => id)).toEqual([
      id97,
      longId("4"),
    ]);
    expect((await run("vnetd", ["vnet-list", "777"])).code).toBe(1);
    const long = await run("vn", ["vnets", "-a", "-l"]);
    expect(long.stdout).toContain(id97);
    expect(long.stdout).toMatch(/SENT/);
    const version = await run("vn", ["version", "--json"]);
    expect(JSON.parse(version.stdout)).toMatchObject({ daemon: { api: 1, layout: 1 } });
    expect((await run("vn", ["completion", "bash"])).stdout).toContain("complete -F");
  });

  it("insmod and network-vnet explain what replaced them", async () => {
    for (const args of [["insmod"], ["network-vnet", "start"]]) {
      const { code, stdout, stderr } = await run("vn", args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toContain("vnetd attach eth0");
    }
  });
});

describe("commands that change", () => {
  it("do so under the name vn, and say it as JSON when asked", async () => {
    const json = async (...args: string[]): Promise<unknown> => {
      const { code, stdout, stderr } = await run("vn", [...args, "--json"]);
      expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: "" });
      return JSON.parse(stdout);
    };
    const created = {
      id: longId("600"),
      bridge: "b600",
      vnetif: "v600",
      security: "none",
      key: null,
      suite: null,
      encapsulation: "udp",
      suppress: false,
      group: null,
      group6: null,
    };
    expect(await json("vnet-create", "-s", "none", "-b", "b600", "-v", "v600", "600")).toEqual([
      created,
    ]);
    const mac = "aa:00:00:01:02:03";
    const own = await a.mac("v600");
    expect(await json("vif-add", "600", mac)).toMatchObject({ vnet: created.id, vmac: mac });
    expect(await json("vif-add", "-i", "600", "v600")).toMatchObject({ vmac: own });
    expect(await json("vif-delete", "600", mac)).toEqual({ vnet: created.id, vmac: mac });
    expect(await json("varp-add", "600", mac, "10.66.1.2")).toMatchObject({ state: "static" });
    expect(await json("varp-flush", "600")).toEqual({ vnets: 1 });
    expect(await json("varp-delete", "600", mac)).toEqual({ vnet: created.id, vmac: mac });
    expect(await json("vnet-delete", "600")).toEqual({ ...created, note: null });
    expect(await json("detach", "eth0")).toEqual({ device: "eth0" });
    expect(await json("attach", "eth0")).toMatchObject({ device: "eth0", mtu: 1500 });
  });

  it("refuse with exit code 1, an error with code and hint on stderr, and nothing on stdout", async () => {
    for (const [args, code] of [
      [["vnet-delete", "777"], "VNET_NOT_FOUND"],
      [["vnet-create", "-s", "conf", "601"], "NO_KEY"],
      [["vif-delete", "97", "02:00:00:00:00:99"], "VIF_NOT_FOUND"],
      [["vif-add", "-i", "97", "nodev"], "BAD_MAC"],
      [["varp-flush", "777"], "VNET_NOT_FOUND"],
      [["attach", "eth9"], "DEVICE_NOT_FOUND"],
      [["detach", "eth9"], "NOT_ATTACHED"],
    ] as const) {
      const { stderr, ...ran } = await run("vnetd", [...args, "--json"]);
      expect({ args, ...ran }).toEqual({ args, code: 1, stdout: "" });
      expect(JSON.parse(stderr)).toMatchObject({ code, message: expect.any(String) as unknown });
    }
  });
});

describe("attach where no daemon runs", () => {
  it("of a device that is not there leaves none, and the next starts one", async () => {
    const c = await lab.host("c", { underlay: "10.66.1.3/24" });
    const own = ["--state-dir", c.stateDir, "--bpffs", c.bpffs, "--metrics-listen", "off"];
    const failed = await c.tryVnetd(["attach", "nosuch", ...own]);
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    const [, pid] = /starting one \(pid (\d+),/.exec(failed.stderr) ?? [];
    expect(failed.stderr).toContain(`the daemon (pid ${pid}) was stopped again\n`);
    expect(failed.stderr).toMatch(/there is no .*nosuch/);
    expect((await c.tryVnetd(["status"])).code).toBe(3);
    expect(existsSync(`/proc/${pid}`)).toBe(false);

    const started = await c.vnetd(["attach", "eth0", ...own]);
    const [, second] = /starting one \(pid (\d+),/.exec(started.stderr) ?? [];
    // a daemon that was there stays
    expect((await c.tryVnetd(["attach", "nosuch"])).code).toBe(1);
    expect(await c.vnetdJson(["status"])).toMatchObject({ pid: Number(second) });
    process.kill(Number(second), "SIGTERM");
    await eventually(() => !existsSync(`/proc/${second}`), { timeoutMs: 20_000 });
  });
});

describe("exit codes", () => {
  it("2 for what is no command line, 3 where no daemon is", async () => {
    for (const args of [["vifs", "x"], ["vif-add", "97"], ["varp", "--colour"], ["nonsense"]]) {
      const ran = await run("vn", args);
      expect({ args, code: ran.code, stdout: ran.stdout }).toEqual({ args, code: 2, stdout: "" });
      expect(ran.stderr).toMatch(/^vn: /);
    }
    for (const [name] of lists) {
      const ran = await run("vnetd", [name], join(lab.directory, "nobody"));
      expect({ name, code: ran.code, stdout: ran.stdout }).toEqual({ name, code: 3, stdout: "" });
      expect(ran.stderr).toMatch(/^vnetd: no daemon answers[^]*hint: /);
    }
  });
});
