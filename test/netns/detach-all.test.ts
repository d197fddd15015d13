// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd detach --all`: with a daemon, without one, where half of it is gone already, and a second time. What
 * others made stays, and what forwards for another state directory is not touched.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DetachAllInfo, StatusInfo, VnetInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Host, type RunResult } from "../lib/lab.js";
import { addressVnet4, attachedHosts, callApi, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
/** all of a's devices before vnetd came, with addresses */
let before: unknown;

const directories = (): string[] => ["--state-dir", a.stateDir, "--bpffs", a.bpffs];
const tryDetachAll = (...args: string[]): Promise<RunResult> =>
  a.tryVnetd(["detach", "--all", ...directories(), ...args]);
const detachAll = async (): Promise<DetachAllInfo> => {
  const result = await tryDetachAll("--json");
  expect(result, result.stderr).toMatchObject({ code: 0 });
  return JSON.parse(result.stdout) as DetachAllInfo;
};
const names = (info: DetachAllInfo, kind: string): string[] =>
  info.removed.filter((each) => each.kind === kind).map(({ name }) => name);

/** Names, aliases and addresses of devices, qdiscs, and ESP: where vnetd would leave traces. */
async function traces(): Promise<unknown> {
  const links = await a.ip<{ ifname: string; addr_info: { local: string }[] }[]>("address", "show");
  const xfrm = await a.exec("ip xfrm state; ip xfrm policy");
  return {
    links: links.map(({ ifname, addr_info }) => [ifname, addr_info.map(({ local }) => local)]),
    xfrm: xfrm.stdout,
    filters: (await a.exec("tc filter show dev eth0 ingress")).stdout,
  };
}

const nothingLeft = async (): Promise<void> => {
  expect(existsSync(a.bpffs)).toBe(false);
  expect(await traces()).toEqual(before);
};

/** Attached anew, as a person would. */
async function attach(host: Host): Promise<void> {
  await startDaemon(host);
  await host.vnetd(["attach", "eth0"]);
  await addressVnet4([host]);
  await eventually(answers, { what: "the vnet to carry again" });
}
const answers = async (): Promise<boolean> =>
  (await a.ping("10.4.0.2", { count: 1, waitMs: 500 })).received === 1;

beforeAll(async () => {
  lab = await Lab.create();
  [b] = (await attachedHosts(lab, ["b"])) as [Host];
  await addressVnet4([b], { first: 2 });
  a = await lab.host("a", { underlay: "10.66.1.9/24" });
  before = await traces();
  await attach(a);
  await a.vnetd(["vnet-create", "-b", "br77", "77"]);
});
afterAll(() => lab.close());

describe("without --all or a device", () => {
  it("is a mistake, and so is both; a request that does not say that all is meant does nothing", async () => {
    expect(await a.tryVnetd(["detach"])).toMatchObject({ code: 2 });
    expect(await a.tryVnetd(["detach", "--all", "eth0"])).toMatchObject({ code: 2 });
    const answer = await callApi(a, '{"v":1,"id":1,"method":"detachAll","params":{}}\n');
    expect(answer?.["error"]).toMatchObject({ code: "BAD_REQUEST" });
    expect(await answers()).toBe(true);
  });
});

describe("with a daemon", () => {
  it("removes all that it made, says what, and the daemon ends", async () => {
    const info = await detachAll();
    expect(info).toMatchObject({ left: [], failed: [], forgotten: ["eth0"], stillConfigured: [] });
    expect(names(info, "hook")).toEqual(["eth0 ingress"]);
    expect(names(info, "group")).toEqual(["224.10.0.1 on eth0"]);
    expect(names(info, "bridge")).toEqual(["br77"]);
    expect(names(info, "device").length).toBeGreaterThanOrEqual(4);
    expect(names(info, "pins")).toEqual([join(a.bpffs, "layout-1")]);
    const ended = await a.daemon.end();
    expect(ended.code, ended.stderr).toBe(0);
    expect(info.daemon).toBeGreaterThan(1);
    await nothingLeft();
  });

  it("once more finds nothing", async () => {
    const again = await tryDetachAll();
    expect(again).toMatchObject({ code: 0, stdout: "nothing of vnetd is there\n" });
  });

  it("and the next daemon has the vnets, attached to nothing until it is told", async () => {
    await startDaemon(a);
    expect((await a.vnetdJson<StatusInfo>(["status"])).attached).toEqual([]);
    const vnets = await a.vnetdJson<VnetInfo[]>(["vnet-list"]);
    expect(vnets.map(({ bridge }) => bridge)).toContain("br77");
    await a.killDaemon();
    expect((await detachAll()).forgotten).toEqual([]);
    await nothingLeft();
  });
});

describe("without a daemon", () => {
  it("does the same, after the daemon was killed", async () => {
    await attach(a);
    await a.killDaemon("SIGKILL");
    expect(await answers()).toBe(true);
    const info = await detachAll();
    expect(info).toMatchObject({ daemon: null, left: [], failed: [], forgotten: ["eth0"] });
    expect(names(info, "hook")).toEqual(["eth0 ingress"]);
    await nothingLeft();
  });

  it("says that the configuration attaches a device again", async () => {
    const config = lab.file("vnetd.yaml", "attach: [eth0]\n");
    const result = await tryDetachAll("--config", config);
    expect(result.stderr).toContain("attaches eth0 again: the configuration says so");
  });

  it("ends what somebody has begun by hand", async () => {
    await attach(a);
    await a.killDaemon();
    rmSync(a.bpffs, { recursive: true });
    await a.exec("ip link del vn-relay0");
    rmSync(join(a.stateDir, "state.yaml"));
    const info = await detachAll();
    expect(info).toMatchObject({ left: [], failed: [] });
    // the record that named it is gone; by the group's address and form it is known still
    expect(names(info, "group")).toEqual(["224.10.0.1 on eth0"]);
    await nothingLeft();
  });

  it("needs neither the state directory nor a configuration without mistakes", async () => {
    await attach(a);
    await a.killDaemon();
    rmSync(a.stateDir, { recursive: true });
    const config = lab.file("broken.yaml", "attach: [\n");
    const result = await tryDetachAll("--config", config);
    expect(result, result.stderr).toMatchObject({ code: 0 });
    expect(result.stderr).toContain("the configuration is not used");
    await nothingLeft();
  });

  it("leaves a bridge that others are on, and what others made", async () => {
    await attach(a);
    await a.vnetd(["vnet-create", "-b", "br77", "77"]);
    await a.exec("ip link add other0 type veth peer name other1 && ip link set other0 master br77");
    await a.exec("ip addr add 224.10.0.9/32 dev eth0 autojoin");
    await a.killDaemon();
    mkdirSync(join(a.bpffs, "somebody"));
    const info = await detachAll();
    expect(info.failed).toEqual([]);
    expect(info.left.join()).toMatch(/bridge br77 stays.*other0.*stays: others are in it/u);
    expect(readdirSync(a.bpffs)).toEqual(["somebody"]);
    expect((await a.exec("ip -br link show")).stdout).toMatch(/other0.*\n[^]*br77|br77[^]*other0/u);
    expect((await a.exec("ip addr show dev eth0")).stdout).toContain("224.10.0.9/32");
    rmSync(join(a.bpffs, "somebody"), { recursive: true });
    await a.exec("ip addr del 224.10.0.9/32 dev eth0; ip link del other0");
    expect(names(await detachAll(), "bridge")).toEqual(["br77"]);
    await nothingLeft();
  });
});

describe("what is another's", () => {
  it("is refused while it runs, and while it forwards for another state directory", async () => {
    await attach(a);
    const elsewhere = ["--run-dir", join(lab.directory, "elsewhere")];
    const other = (...args: string[]): Promise<RunResult> =>
      a.tryExec(["bin/vnetd", "detach", "--all", ...args, ...elsewhere]);
    const running = await other(...directories());
    expect(running).toMatchObject({ code: 1 });
    expect(running.stderr).toMatch(/another daemon \(pid \d+\) runs in this network namespace/u);
    await a.killDaemon();
    const state = join(lab.directory, "other-state");
    cpSync(a.stateDir, state, { recursive: true });
    const stopped = await other("--state-dir", state, "--bpffs", a.bpffs);
    expect(stopped).toMatchObject({ code: 1 });
    expect(stopped.stderr).toContain(`forwards for the state directory ${a.stateDir}`);
    expect(await answers()).toBe(true);
    expect(readFileSync(join(state, "state.yaml"), "utf8")).toContain("eth0");
  });

  it("stays as well where it can be told by its devices alone", async () => {
    // with a BPF directory that is not its own, and so nothing that names another
    const state = join(lab.directory, "third-state");
    mkdirSync(state);
    cpSync(join(a.stateDir, "state.yaml"), join(state, "state.yaml"));
    const result = await a.tryExec([
      ...["bin/vnetd", "detach", "--all", "--state-dir", state],
      ...["--bpffs", `${a.bpffs}-none`, "--run-dir", join(lab.directory, "third")],
    ]);
    expect(result).toMatchObject({ code: 1 });
    expect(result.stderr).toContain("was made by a vnetd with another state directory");
    expect(await answers()).toBe(true);
  });
});
