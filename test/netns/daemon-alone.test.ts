// SPDX-License-Identifier: Apache-2.0
/**
 * A daemon that was started by mistake, with some of another one's directories or in its network
 * namespace, ends with an error that says which, and does no harm: neither to one that runs nor to
 * what one that was stopped has left at work. A ping runs through every mistake.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, type Host, type RunResult } from "../lib/lab.js";
import { attachedHosts, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let elsewhere: Host;
let count = 0;

interface Directories {
  runDir?: string;
  stateDir?: string;
  bpffs?: string;
}

/** `vnetd run` in the host's namespace; what is left out is a new directory of its own. */
async function runWith(host: Host, given: Directories): Promise<RunResult & { own: string }> {
  const own = join(lab.directory, `mistake-${(count += 1)}`);
  const ownBpffs = `${a.bpffs}-mistake-${count}`;
  const argv = [resolve("bin/vnetd"), "run", "--metrics-listen", "off"];
  argv.push(
    "--run-dir",
    given.runDir ?? `${own}/run`,
    "--state-dir",
    given.stateDir ?? `${own}/state`,
  );
  argv.push("--bpffs", given.bpffs ?? ownBpffs);
  const daemon = host.spawn(argv);
  const ended = daemon.end().then((result) => result.code);
  const code = await Promise.race([
    ended,
    // its end is seen by both, in either order
    daemon.output(/\bready\b/, { timeoutMs: 20_000 }).then(
      () => "ready",
      () => ended,
    ),
  ]);
  const result = await daemon.stop("SIGTERM");
  expect(existsSync(ownBpffs)).toBe(false);
  expect(code, result.stderr).toBe(1);
  return { ...result, own };
}

/** The mistake ends with an error that says this, and everything of a goes on. */
/** Devices and addresses; whether IPv6 has found out yet that one is nobody else's is left out. */
const addresses = async (host: Host): Promise<unknown> =>
  JSON.parse(
    JSON.stringify(await host.ip("address", "show"), (k, v: unknown) =>
      k === "tentative" ? undefined : v,
    ),
  );

async function harmless(host: Host, given: Directories, says: RegExp): Promise<void> {
  const links = await addresses(a);
  const pinging = a.startPing("10.97.0.2", { intervalMs: 10 });
  await eventually(() => pinging.answers > 5);
  const result = await runWith(host, given);
  expect(result.stderr).toMatch(says);
  const answers = pinging.answers;
  await eventually(() => pinging.answers > answers + 20);
  expect((await pinging.stop()).lost).toBeLessThanOrEqual(1); // the one under way at the end
  expect(await addresses(a)).toEqual(links);
}

const inodeOf = (netns: string): string =>
  String(statSync(`/run/netns/${netns}`, { throwIfNoEntry: false })?.ino);

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  elsewhere = await lab.host("c", { underlay: "10.66.1.3/24" });
  for (const [host, n] of [
    [a, 1],
    [b, 2],
  ] as const) {
    await host.vnetd(["vnet-create", "-b", "none", "-v", "vnif97", "97"]);
    await host.exec(`ip addr add 10.97.0.${n}/24 dev vnif97`);
  }
  await eventually(async () => (await a.ping("10.97.0.2", { count: 1 })).received === 1);
});
afterAll(() => lab.close());

describe("beside a daemon that runs", () => {
  const running = /another daemon \(pid \d+\) runs in this network namespace/;

  it("one with other directories in the same namespace", async () => {
    const result = await runWith(a, { runDir: a.runDir });
    expect(existsSync(join(result.own, "state"))).toBe(false);
    await harmless(a, { runDir: a.runDir }, running);
    await harmless(a, {}, running);
  });

  it("one with another state directory alone", async () => {
    await harmless(a, { runDir: a.runDir, bpffs: a.bpffs }, running);
  });

  it("one in another namespace with the same BPF directory", async () => {
    await harmless(elsewhere, { bpffs: a.bpffs }, /another daemon uses .*--bpffs/s);
  });

  it("one in another namespace with the same run directory", async () => {
    await harmless(elsewhere, { runDir: a.runDir }, /another daemon answers on .*--run-dir/s);
  });
});

describe("beside what a daemon that was stopped has left at work", () => {
  beforeAll(() => a.killDaemon("SIGKILL"));

  it("one with another state directory", async () => {
    await harmless(a, { bpffs: a.bpffs }, new RegExp(`state directory ${a.stateDir}`));
  });

  it("one in another namespace", async () => {
    await harmless(
      elsewhere,
      { bpffs: a.bpffs, stateDir: a.stateDir },
      /another network namespace, net:\[\d+\]/,
    );
  });

  it("one with all directories of its own leaves the other's devices alone", async () => {
    const other = join(lab.directory, "other");
    mkdirSync(other);
    const pinging = a.startPing("10.97.0.2", { intervalMs: 10 });
    await eventually(() => pinging.answers > 5);
    const links = await addresses(a);
    const daemon = a.spawn([
      ...[resolve("bin/vnetd"), "run", "--metrics-listen", "off", "--run-dir", `${other}/run`],
      ...["--state-dir", `${other}/state`, "--bpffs", `${a.bpffs}-other`],
    ]);
    await daemon.output(/\bready\b/, { timeoutMs: 20_000 });
    const argv = [resolve("bin/vnetd"), "--run-dir", `${other}/run`, "--json"];
    const { problems } = JSON.parse((await a.exec([...argv, "status"])).stdout) as StatusInfo;
    expect(problems.join()).toMatch(/vnet .*0004: vn-\w+ was made by a vnetd with another state/);
    await a.exec([...argv, "vnet-delete", "4"]);
    expect((await a.tryExec([...argv, "vnet-create", "97"])).stderr).toMatch(/NAME_IN_USE/);
    await daemon.stop("SIGTERM");
    const answers = pinging.answers;
    await eventually(() => pinging.answers > answers + 20);
    expect((await pinging.stop()).lost).toBeLessThanOrEqual(1);
    expect(await addresses(a)).toEqual(links);
  });
});

describe("the daemon itself", () => {
  it("comes back with its own directories, and finds everything", async () => {
    await startDaemon(a);
    const vnets = await a.vnetdJson<VnetState[]>(["vnets"]);
    expect(vnets.find(({ id }) => id === longId("97"))).toMatchObject({ up: true, problem: "" });
    expect((await a.ping("10.97.0.2", { count: 3, intervalMs: 50 })).lost).toBe(0);
  });

  it("takes over a directory whose namespace is gone", async () => {
    const box = await lab.host("box");
    await startDaemon(box);
    await box.killDaemon();
    const inode = inodeOf(box.netns);
    await lab.execInSwitch(["ip", "netns", "delete", box.netns]);
    // the kernel gives the inode again, to the namespace of somebody else: of this test, or of one that runs beside it
    let heirs = 0;
    await eventually(async () => {
      await lab.namespace(`heir${(heirs += 1)}`);
      return readdirSync("/run/netns").some((name) => inodeOf(name) === inode);
    });
    await lab.execInSwitch(["ip", "netns", "add", box.netns]);
    expect(inodeOf(box.netns)).not.toBe(inode);
    await startDaemon(box);
    expect((await box.vnetdJson<VnetState[]>(["vnets"])).every(({ up }) => up)).toBe(true);
  });

  it("takes over a directory of its own inode whose namespace is gone", async () => {
    const box = await lab.host("box2");
    await startDaemon(box);
    await box.killDaemon();
    const marks = readdirSync(box.bpffs).filter((name) => name.startsWith("cookie-"));
    expect(marks).toHaveLength(1);
    const other = `cookie-${inodeOf(box.netns)}-1`;
    renameSync(join(box.bpffs, marks[0] as string), join(box.bpffs, other));
    await startDaemon(box);
    expect(readdirSync(box.bpffs).filter((name) => name.startsWith("cookie-"))).toEqual(marks);
  });

  it("is not stopped by a user who takes its lock", async () => {
    await a.killDaemon();
    const squatter = a.spawn([
      ...["setpriv", "--reuid", "12345", "--clear-groups", process.execPath, "-e"],
      `require(${JSON.stringify(resolve("build/addon/vnetd.node"))}).abstractListen("vnetd");
       console.log("taken"); setInterval(() => {}, 1000);`,
    ]);
    await squatter.output(/taken/);
    await startDaemon(a);
    expect(a.daemon.stderr).toMatch(/of user 12345 has taken the lock/);
    await squatter.stop("SIGKILL");
  });

  it("refuses a BPF directory that somebody else made", async () => {
    const dir = `${a.bpffs}-foreign`;
    await lab.execInSwitch(`mkdir ${dir} && chown 12345 ${dir}`);
    const result = await a.tryExec([
      ...[resolve("bin/vnetd"), "run", "--run-dir", `${lab.directory}/f`],
      ...["--state-dir", `${lab.directory}/f`, "--bpffs", dir],
    ]);
    expect(result).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/not the daemon's own/) as string,
    });
  });
});
