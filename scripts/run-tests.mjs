#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * `make test`: all parts one after another, and one count of them all at the end.
 *
 *   run-tests.mjs [PART...]     build lint unit native packet golden netns flood clsact image vm-6.1 vm-6.12
 *   run-tests.mjs more-6.1 more-6.12      what takes too long on other kernels for each change (test/vm/more-files)
 *
 * A part that cannot run here (no root) is left out and said so; where CI is set that is a failure,
 * and so is every test that was skipped. A part without a single test is a failure anywhere.
 * What each part found goes to build/test/.
 *
 * Tests with real daemons, namespaces and clocks share the machine with one another. A file of them
 * that failed is run once more, alone; what passes then is no failure, but the summary names it, since
 * it is either too impatient or a race of ours. A defect fails both times.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { createInterface } from "node:readline";

const root = join(import.meta.dirname, "..");
process.chdir(root);
const inCi = Boolean(process.env.CI) && process.env.CI !== "false";
const isRoot = process.getuid() === 0;
const results = join("build", "test");
const mostShown = 300;
const escapes = /\u001b\[[0-9;]*m/g;

/** What runs on another kernel; a name that is not there any more must not go unnoticed. */
function vmFiles(list, kernel) {
  const lines = readFileSync(list, "utf8").split("\n");
  const entries = lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(/\s+/));
  const gone = entries.filter(([name]) => !existsSync(name));
  if (gone.length > 0) throw new Error(`${list} names what is not there: ${gone.join(" ")}`);
  return entries.filter(([, only]) => only === undefined || only === kernel).map(([name]) => name);
}

const vitest = (json, ...args) => [
  process.execPath,
  join("node_modules", "vitest", "vitest.mjs"),
  "run",
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${json}`,
  ...args,
];

const kernels = ["6.1", "6.12"];

/** A network namespace of their own: a test run of a BPF program looks devices and routes up. */
const alone = ["unshare", "--net", "--"];

/** How many failed files may be run again; more are no accident. */
const mostFilesAgain = 5;

const project = (name, { needsRoot = true, wrapper = [], again = false } = {}) => {
  const json = (suffix = "") => join(results, `${name}${suffix}.json`);
  const argv = (file, ...args) => [...wrapper, ...vitest(file, "--project", name, ...args)];
  return {
    name,
    root: needsRoot,
    minutes: 25,
    argv: argv(json()),
    count: () => countVitest(json()),
    ...(again && {
      again: (files) => ({
        argv: argv(json("-again"), ...files),
        env: { VNETD_TEST_WORKERS: "1" },
        count: () => countVitest(json("-again")),
      }),
    }),
  };
};

const machine = (kernel, { name, list, onRequest = false }) => {
  const run = (suffix, files) => ({
    argv: ["test/vm/run", kernel, ...alone, ...vitest("/run/vm/out/results.json", ...files)],
    env: {
      VNETD_VM_OUT: join(root, results, `${name}${suffix}`),
      VNETD_VM_TIMEOUT: "4000",
    },
    count: () => countVitest(join(results, `${name}${suffix}`, "results.json")),
  });
  return {
    name,
    onRequest,
    root: true,
    // an emulated machine keeps one core busy: the two run side by side
    beside: "vm",
    // several times what a quiet machine takes: how fast an emulated machine is depends on its
    // neighbours, and a test that hangs has its own deadline
    minutes: 68,
    ...run("", vmFiles(list, kernel)),
    again: (files) => run("-again", files),
  };
};

/**
 * [{name, root, beside, minutes, onRequest, argv, env, count, again}]: count() reads what the part left, once it has
 * ended; again() gives argv, env and count of a second run of some of its files.
 */
const parts = [
  { name: "build", minutes: 10, argv: ["make", "--no-print-directory", "build"], count: undefined },
  {
    name: "lint",
    minutes: 6,
    argv: [process.execPath, "scripts/lint.mjs", "--json", join(results, "lint.json")],
    count: () => ({ passed: 0, failed: 0, skipped: [], ...readJson(join(results, "lint.json")) }),
  },
  project("unit", { needsRoot: false }),
  project("native", { wrapper: alone }),
  project("packet", { wrapper: alone }),
  project("golden", { wrapper: alone }),
  project("netns", { again: true }),
  project("flood", { again: true }),
  project("clsact", { again: true }),
  project("image", { again: true }),
  ...kernels.map((kernel) => machine(kernel, { name: `vm-${kernel}`, list: "test/vm/files" })),
  ...kernels.map((kernel) =>
    machine(kernel, { name: `more-${kernel}`, list: "test/vm/more-files", onRequest: true }),
  ),
];

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

function countVitest(path) {
  const report = readJson(path);
  const counts = { passed: 0, failed: 0, skipped: [], failures: [] };
  for (const file of report?.testResults ?? []) {
    const name = relative(root, file.name);
    const failures = file.assertionResults.filter((test) => test.status === "failed");
    for (const { fullName, failureMessages } of failures)
      counts.failures.push({ file: name, test: fullName, why: firstLine(failureMessages) });
    // a file that could not be loaded, or whose hooks failed, fails without a failed test
    if (file.status === "failed" && failures.length === 0)
      counts.failures.push({
        file: name,
        test: "(the file itself, or a hook)",
        why: firstLine([file.message]),
      });
    for (const test of file.assertionResults) {
      if (test.status === "passed") counts.passed += 1;
      else if (test.status !== "failed") counts.skipped.push(test.fullName);
    }
  }
  counts.failed = counts.failures.length;
  return counts;
}

/** What a failure says, short enough for the summary: of a long log often nothing else is kept. */
function firstLine(messages) {
  const [line = ""] = (messages?.[0] ?? "").replaceAll(escapes, "").trim().split("\n", 1);
  return line.length > mostShown ? `${line.slice(0, mostShown)}…` : line;
}

const children = new Set();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    for (const child of children) child.kill(signal);
    process.exitCode = 130;
    interrupted = true;
  });
}
let interrupted = false;

/** Runs a part to its end, its output going where ours goes; returns its exit code. */
function execute({ name, argv, env, minutes, beside }) {
  return new Promise((resolve) => {
    const [program, ...args] = argv;
    const output = beside === undefined ? "inherit" : "pipe";
    const child = spawn(program, args, {
      stdio: ["ignore", output, output],
      env: { ...process.env, ...env },
    });
    children.add(child);
    // of parts side by side each line says whose it is
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface(stream).on("line", (line) => console.log(`${name} | ${line}`));
    }
    const timer = setTimeout(() => {
      console.log(`\n*** ${name}: no end after ${minutes} minutes: killed`);
      child.kill("SIGTERM");
    }, minutes * 60_000);
    const end = (code) => {
      clearTimeout(timer);
      children.delete(child);
      resolve(code);
    };
    child.on("error", () => end(127));
    child.on("close", (code, signal) => end(code ?? `killed by ${signal}`));
  });
}

async function runPart(part) {
  console.log(`\n=== ${part.name}`);
  if (part.root && !isRoot) {
    const why = "needs root (namespaces, BPF)";
    console.log(`not run: ${why}`);
    return { passed: 0, failed: inCi ? 1 : 0, notes: [`not run: ${why}`], seconds: 0 };
  }
  const start = performance.now();
  let code = await execute(part);
  let counted = part.count?.() ?? {
    passed: code === 0 ? 1 : 0,
    failed: code === 0 ? 0 : 1,
    skipped: [],
  };
  const notes = [];
  const files = [...new Set((counted.failures ?? []).map(({ file }) => file))];
  if (part.again !== undefined && files.length > 0 && files.length <= mostFilesAgain) {
    const again = part.again(files);
    console.log(`\n=== ${part.name}, once more and alone: ${files.join(" ")}`);
    code = await execute({ ...part, ...again });
    const second = again.count();
    const passedNow = counted.failures.filter(
      ({ file, test }) => !second.failures.some((f) => f.file === file && f.test === test),
    );
    notes.push(
      ...passedNow.map(
        ({ file, test, why }) => `passed when run again: ${file}: ${test}\n      ${why}`,
      ),
    );
    counted = {
      ...counted,
      passed: counted.passed + passedNow.length,
      failures: second.failures,
      failed: second.failed,
    };
  }
  const seconds = Math.round((performance.now() - start) / 1000);
  const { passed, failed, skipped } = counted;
  const outcome = { passed, failed, failures: counted.failures ?? [], notes, seconds };
  if (code !== 0 && failed === 0) {
    outcome.failed += 1;
    outcome.notes.push(`ended with ${code}`);
  }
  if (passed + failed === 0 && outcome.failed === 0) {
    outcome.failed += 1;
    outcome.notes.push("no tests at all");
  }
  if (skipped.length > 0) {
    if (inCi) outcome.failed += skipped.length;
    outcome.notes.push(
      `${skipped.length} skipped: ${skipped.slice(0, 3).join("; ")}${skipped.length > 3 ? "; …" : ""}`,
    );
  }
  return outcome;
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !parts.some((part) => part.name === name));
if (unknown.length > 0) {
  console.error(
    `unknown: ${unknown.join(" ")}; parts: ${parts.map((part) => part.name).join(" ")}`,
  );
  process.exit(2);
}
rmSync(results, { recursive: true, force: true });
mkdirSync(results, { recursive: true });

const table = [];
const chosen = parts.filter(({ name, onRequest }) =>
  wanted.length === 0 ? !onRequest : wanted.includes(name),
);
while (chosen.length > 0 && !interrupted) {
  const next = chosen.shift();
  const together = [next];
  while (next.beside !== undefined && chosen[0]?.beside === next.beside)
    together.push(chosen.shift());
  const outcomes = await Promise.all(together.map(runPart));
  together.forEach((part, i) => table.push([part.name, outcomes[i]]));
  // nothing that follows would tell anything
  if (next.name === "build" && outcomes[0].failed > 0) break;
}

console.log("\n=== summary");
const mostNamed = 10;
for (const [name, { passed, failed, failures = [], notes, seconds }] of table) {
  const columns = [
    name.padEnd(8),
    `${passed} passed`.padStart(12),
    `${failed} failed`.padStart(10),
    `${seconds} s`.padStart(7),
  ];
  console.log(`  ${columns.join("")}`);
  for (const note of notes) console.log(`    ${note}`);
  for (const { file, test, why } of failures.slice(0, mostNamed))
    console.log(`    failed: ${file}: ${test}\n      ${why}`);
  if (failures.length > mostNamed) console.log(`    and ${failures.length - mostNamed} more`);
}
const sum = (key) => table.reduce((total, [, outcome]) => total + outcome[key], 0);
const failed = sum("failed");
console.log(`\n${sum("passed")} passed, ${failed} failed`);
process.exitCode ||= failed === 0 ? 0 : 1;
