// SPDX-License-Identifier: Apache-2.0
/** What `make install` and `make dist` lay out works from where it was put, without the checkout. */
import { existsSync, lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, run, tryRun, type Host } from "../lib/lab.js";

const scripts = join(import.meta.dirname, "..", "..", "scripts");

let lab: Lab;
let host: Host;
let tree: string;
let prefix: string;

beforeAll(async () => {
  lab = await Lab.create();
  host = await lab.host("a", { underlay: "10.66.1.1/24" });
  tree = join(lab.directory, "tree");
  prefix = join(lab.directory, "usr");
  await run([process.execPath, join(scripts, "copy-tree.mjs"), tree, "--with-node"]);
  await run(["cp", join(scripts, "vnetd.service.in"), tree]);
  await run([join(scripts, "install-tree"), "--from", tree, "--prefix", prefix]);
}, 60_000);
afterAll(() => lab.close());

describe("an installation", () => {
  it("has commands that do not look into the checkout", async () => {
    expect(lstatSync(join(prefix, "bin", "vnetd")).isSymbolicLink()).toBe(true);
    const { version } = JSON.parse(
      readFileSync(join(prefix, "lib/vnetd/package.json"), "utf8"),
    ) as {
      version: string;
    };
    for (const name of ["vnetd", "vn"]) {
      const { stdout } = await run([join(prefix, "bin", name), "version"], { cwd: "/" });
      expect(stdout).toContain(version);
    }
    const unit = readFileSync(join(prefix, "lib/systemd/system/vnetd.service"), "utf8");
    expect(unit).toContain(`ExecStart=${prefix}/bin/vnetd run\n`);
  });

  it("has the unit that the README says it has", () => {
    const readme = readFileSync(join(scripts, "..", "README.md"), "utf8");
    expect(readme).toContain("systemctl enable --now vnetd");
    expect(readme).not.toMatch(/\[Service\]/);
    const unit = readFileSync(join(prefix, "lib/systemd/system/vnetd.service"), "utf8");
    expect(unit).toMatch(/^WantedBy=/m);
  });

  it("has no development packages", () => {
    expect(existsSync(join(prefix, "lib/vnetd/node_modules/yargs"))).toBe(true);
    expect(existsSync(join(prefix, "lib/vnetd/node_modules/vitest"))).toBe(false);
    expect(existsSync(join(prefix, "lib/vnetd/node_modules/typescript"))).toBe(false);
  });

  it("runs a daemon that carries a vnet", async () => {
    await host.startDaemon({ program: join(prefix, "bin", "vnetd") });
    await host.exec([join(prefix, "bin", "vn"), "attach", "eth0", "--run-dir", host.runDir]);
    const vnets = await host.vnetdJson<{ vnetif: string }[]>(["vnet-list"]);
    expect(vnets.map(({ vnetif }) => vnetif)).toContain("vnif0004");
    await host.killDaemon();
  });

  it("is replaced by the next", async () => {
    await run([join(scripts, "install-tree"), "--from", tree, "--prefix", prefix]);
    const { stdout } = await run(["ls", "-A", join(prefix, "lib")]);
    expect(stdout.split("\n").filter(Boolean)).toEqual(["systemd", "vnetd"]);
  });
});

describe("install.sh refuses", () => {
  it("a prefix that is not absolute", async () => {
    const result = await tryRun([join(scripts, "install-tree"), "--from", tree, "--prefix", "usr"]);
    expect(result).toMatchObject({ code: 2 });
    expect(result.stderr).toContain("not an absolute path");
  });

  it("a directory that is no tree", async () => {
    const result = await tryRun([
      join(scripts, "install-tree"),
      "--from",
      "/nowhere",
      "--prefix",
      prefix,
    ]);
    expect(result).toMatchObject({ code: 1 });
    expect(result.stderr).toContain("no vnetd tree in /nowhere");
  });
});
