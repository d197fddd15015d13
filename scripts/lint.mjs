#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * `make lint`: what can be said about the sources without running them. Each check is one line of
 * the report; the output of those that fail follows theirs.
 *
 *   lint.mjs [--json FILE] [CHECK...]    FILE gets {passed, failed}, for scripts/run-tests.mjs;
 *                                        CHECK is a name as it is printed, e.g. prettier
 */
import { execFile, execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
process.chdir(root);
process.env.PATH += ":/usr/sbin:/sbin";

const tool = (name) => join("node_modules", ".bin", name);

/** What git has, and what it would take up: a file that was forgotten is checked as well. */
const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
  .toString()
  .split("\0")
  .filter((name) => name !== "");
const text = new Map();
for (const name of files) {
  try {
    const bytes = readFileSync(name);
    if (!bytes.includes(0)) text.set(name, bytes.toString());
  } catch {
    // deleted and not yet committed
  }
}

function command(program, ...args) {
  return () =>
    new Promise((resolve) => {
      execFile(program, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
        resolve(error ? (stdout + stderr).trim() || error.message : ""),
      );
    });
}

function quiet(program, ...args) {
  try {
    return execFileSync(program, args, { stdio: ["ignore", "pipe", "ignore"] }).toString();
  } catch {
    return "";
  }
}

/** "file:line: why" for each line of the tree that `offends` */
function offences(offends, why) {
  const found = [];
  for (const [name, content] of text) {
    content.split("\n").forEach((line, i) => {
      if (offends(line, name)) found.push(`${name}:${i + 1}: ${why}: ${line.trim().slice(0, 100)}`);
    });
  }
  return found;
}

/**
 * The tree must not say where it was made: no path of this machine, none of the hosts that npm and
 * apt are set up to use here. They are found out, not listed, so this holds on any machine.
 */
function noTraces() {
  const host = (address) => /^[a-z+]+:\/\/(?:[^/@]*@)?([^/:]+)/.exec(address)?.[1];
  const apt = quiet("apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)");
  const hosts = [quiet("npm", "config", "get", "registry"), ...apt.split("\n")].map(host);
  // a path like "/src" is no trace of anything
  const paths = [root, homedir()]
    .filter((path) => path.split("/").length > 2)
    .map((path) => `${path}/`);
  const traces = new Set([...hosts, ...paths].filter((trace) => trace && trace !== "localhost"));
  return [...traces].flatMap((trace) =>
    offences(
      (line) => line.includes(trace),
      `names ${trace.includes("/") ? "a path of" : "a host that is set up on"} this machine`,
    ),
  );
}

function lockFile() {
  return offences(
    (line, name) => name === "package-lock.json" && /"resolved":\s*"https?:/.test(line),
    'a registry\'s address (see .npmrc: "npm install" leaves it out)',
  );
}

/** Every source file says its licence in its first lines: GPL-2.0-only for bpf/, both for include/. */
function licences() {
  const expected = (name) => {
    if (name.startsWith("bpf/")) return "GPL-2.0-only";
    if (name.startsWith("include/")) return "GPL-2.0-only OR Apache-2.0";
    return name.endsWith(".bpf.c") ? "GPL-2.0-only" : "Apache-2.0";
  };
  const source =
    /\.(ts|mts|mjs|js|c|h|cc|lua)$|^Makefile$|^(bin|scripts|bench)\/[\w-]+$|^test\/vm\/[\w-]+$|^\.ci\/run$/;
  const found = [];
  for (const [name, content] of text) {
    if (!source.test(name)) continue;
    const id = /SPDX-License-Identifier: ([^*\n]+)/
      .exec(content.split("\n", 3).join("\n"))?.[1]
      .trim();
    if (id !== expected(name))
      found.push(`${name}:1: SPDX-License-Identifier is ${id ?? "missing"}, not ${expected(name)}`);
  }
  return found;
}

function shellSyntax() {
  return (
    [...text]
      // bin/vnetd and bin/vn are JavaScript behind their second line
      .filter(([name, content]) => /^#!.*\b(ba)?sh\b/.test(content) && !name.startsWith("bin/"))
      .flatMap(([name, content]) => {
        const shell = /^#!.*\bbash\b/.test(content) ? "bash" : "sh";
        try {
          execFileSync(shell, ["-n", name], { stdio: ["ignore", "ignore", "pipe"] });
          return [];
        } catch (error) {
          return [error.stderr.toString().trim()];
        }
      })
  );
}

const inTree = (check) => async () => check().join("\n");
const cFiles = files.filter(
  (name) => /^(bpf|include|addon)\/.*\.(c|h|cc)$/.test(name) && text.has(name),
);

const checks = [
  ["types", command(tool("tsc"), "-p", "tsconfig.test.json")],
  ["eslint", command(tool("eslint"), "--max-warnings", "0", ".")],
  ["prettier", command(tool("prettier"), "--check", "--log-level", "warn", ".")],
  ["clang-format", command("clang-format", "--dry-run", "-Werror", ...cFiles)],
  ["generated layouts", command(process.execPath, "scripts/gen-layouts.mjs", "--check")],
  ["generated reasons", command(process.execPath, "scripts/gen-reasons.mjs", "--check")],
  ["licences", inTree(licences)],
  ["lock file", inTree(lockFile)],
  ["no traces of the machine", inTree(noTraces)],
  ["shell syntax", inTree(shellSyntax)],
];

const wanted = process.argv.slice(2);
const jsonAt = wanted.indexOf("--json");
const [, jsonFile] = jsonAt < 0 ? [] : wanted.splice(jsonAt, 2);
const chosen = checks.filter(([name]) => wanted.length === 0 || wanted.includes(name));

let passed = 0;
for (const [name, check] of chosen) {
  const start = performance.now();
  const output = await check();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`  ${output === "" ? "ok  " : "FAIL"} ${name} (${seconds} s)`);
  if (output === "") passed += 1;
  else console.log(output.replace(/^/gm, "       "));
}
const failed = chosen.length - passed;
if (jsonFile !== undefined) writeFileSync(jsonFile, JSON.stringify({ passed, failed }));
// a check that does not exist has not passed
process.exitCode = failed === 0 && chosen.length > 0 ? 0 : 1;
