// SPDX-License-Identifier: Apache-2.0
/** The command line as a process of its own: exit codes, closed pipes, completions in a real bash. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { VarpEntry } from "../../src/api/contract.js";
import { FakeDaemon } from "./lib/fake-daemon.js";
import { makeOutputDirectory, transpile } from "./lib/transpile.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const longId = "0001:0000:0000:0000:0000:0000:0000:00ab";
const entries: VarpEntry[] = Array.from({ length: 20_000 }, (_, index) => ({
  vnet: longId,
  vmac: `02:00:00:00:${(index >> 8).toString(16).padStart(2, "0")}:${(index & 255).toString(16).padStart(2, "0")}`,
  address: "192.0.2.2",
  device: "eth0",
  state: "learned",
  ageSeconds: 1,
  mtu: 1500,
}));

// each of these starts Node, on machines that do other things meanwhile
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let output: string;
let daemon: FakeDaemon;
let environment: NodeJS.ProcessEnv;

beforeAll(async () => {
  output = makeOutputDirectory();
  // the tree as it is after a build: bin/ beside dist/
  transpile("cli/main.ts", join(output, "dist"));
  // main imports it only for what it cannot read by itself
  transpile("cli/program.ts", join(output, "dist"));
  execFileSync(process.execPath, [join(root, "scripts/bundle.mjs"), join(output, "dist")]);
  cpSync(join(root, "bin"), join(output, "bin"), { recursive: true });
  daemon = await FakeDaemon.start({
    varp: entries,
    vnetList: ["0000:0000:0000:0000:0000:0000:0000:0097", longId].map((id) => ({
      id,
      bridge: null,
      vnetif: "v",
      security: "none",
      key: null,
      suite: null,
      encapsulation: "udp",
      suppress: false,
      group: null,
      group6: null,
    })),
    version: { version: "1", api: 1, layout: 1 },
  });
  environment = {
    ...process.env,
    VNETD_RUN_DIR: daemon.runDir,
    PATH: `${join(output, "bin")}:${process.env["PATH"]}`,
  };
});
afterAll(async () => {
  await daemon.stop();
  rmSync(output, { recursive: true, force: true });
});

/** Asynchronous, because the fake daemon answers in this process. */
async function run(
  command: string,
  args: readonly string[],
  variables = environment,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(command, args, { env: variables, stdio: ["ignore", "pipe", "pipe"] });
  const written = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk: Buffer) => (written.stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (written.stderr += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, ...written };
}

describe("bin/vnetd and bin/vn", () => {
  it("exit with the documented codes, under either name and through a link", async () => {
    const link = join(output, "linked");
    symlinkSync(join(output, "bin/vn"), link);
    expect((await run("vnetd", ["vnet-list", "--json"])).code).toBe(0);
    expect((await run("vn", ["vnet-list"])).stdout).toContain(longId);
    expect((await run(link, ["vnet-list"])).code).toBe(0);
    expect((await run("vnetd", ["vnet-delete", "97"])).code).toBe(1);
    expect((await run("vnetd", ["colour"])).code).toBe(2);
    const alone = await run("vn", ["vnets"], { ...environment, VNETD_RUN_DIR: "/nonexistent" });
    expect(alone).toMatchObject({ code: 3, stdout: "" });
    expect(alone.stderr).toMatch(/^vn: no daemon/);
  });

  it("load one file for a command that only asks the daemon", async () => {
    const lone = join(output, "lone");
    cpSync(join(root, "bin"), join(lone, "bin"), { recursive: true });
    mkdirSync(join(lone, "dist/cli"), { recursive: true });
    cpSync(join(output, "dist/cli/vnetd.cjs"), join(lone, "dist/cli/vnetd.cjs"));
    const listed = await run(join(lone, "bin/vnetd"), ["vnet-list"]);
    expect(listed).toMatchObject({ code: 0, stderr: "" });
    expect(listed.stdout).toContain(longId);
  });

  it("say that a checkout is not built", async () => {
    const bare = join(output, "bare");
    mkdirSync(bare);
    cpSync(join(root, "bin"), join(bare, "bin"), { recursive: true });
    for (const name of ["vnetd", "vn"]) {
      const result = await run(join(bare, "bin", name), ["vnets"]);
      expect(result).toMatchObject({ code: 1, stdout: "" });
      expect(result.stderr).toContain("make");
    }
  });

  it("write a long table whole into a pipe", async () => {
    const { code, stdout } = await run("vnetd", ["varp"]);
    expect(code).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(entries.length + 1);
  });

  it("end silently when the reader goes away", async () => {
    for (const args of ["varp", "varp --json"]) {
      const result = await run("bash", [
        "-c",
        `set -o pipefail; vnetd ${args} | head -n 1 >/dev/null; echo "\${PIPESTATUS[0]}"`,
      ]);
      expect(result).toEqual({ code: 0, stdout: "0\n", stderr: "" });
    }
  });

  it("take an id from a shell as the text that was written", async () => {
    const before = daemon.asked.length;
    await run("vnetd", ["vnet-list", "0097", "1e3", "0x61", "00"]);
    expect(daemon.asked[before]?.params).toEqual({ ids: ["0097", "1e3", "0x61", "00"] });
  });
});

describe("completion", () => {
  const inBash = async (line: string, extra = ""): Promise<string[]> => {
    const words = line.split(" ");
    const script = `
      eval "$(vnetd completion bash)"
      ${extra}
      COMP_LINE=${JSON.stringify(line)} COMP_POINT=\${#COMP_LINE}
      "$(complete -p ${words[0]} | sed 's/.*-F \\([^ ]*\\).*/\\1/')" ${words[0]} "" ""
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const result = await run("bash", ["--norc", "-c", script], environment);
    return result.stdout.split("\n").filter((text) => text !== "");
  };

  it("completes in bash: commands, ids with colons, options' values, files", async () => {
    expect((await inBash("vn vnet-")).sort()).toEqual(["vnet-create", "vnet-delete", "vnet-list"]);
    // bash has split the word at its colons, and wants what follows the last one
    expect(await inBash("vnetd vnet-delete 0001:0000:00")).toEqual([
      "0000:0000:0000:0000:0000:00ab",
    ]);
    const directory = mkdtempSync(join(tmpdir(), "vnetd-complete-"));
    try {
      writeFileSync(join(directory, "a file.sxp"), "");
      writeFileSync(join(directory, "other"), "");
      expect(await inBash("vnetd vnet-create a", `cd ${directory}`)).toEqual(["a file.sxp"]);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it("has a function for zsh, whose syntax zsh accepts where it is", async () => {
    const { stdout } = await run("vnetd", ["completion"], {
      ...environment,
      SHELL: "/usr/bin/zsh",
    });
    expect(stdout).toMatch(/^#compdef vnetd vn\n/);
    const file = join(output, "_vnetd");
    writeFileSync(file, stdout);
    chmodSync(file, 0o644);
    const zsh = spawnSync("zsh", ["-n", file], { encoding: "utf8" });
    if (zsh.error === undefined) expect(zsh).toMatchObject({ status: 0, stderr: "" });
  });
});
