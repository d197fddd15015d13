// SPDX-License-Identifier: Apache-2.0
/**
 * vnetd doctor's check `neighbours` where the machine's first network namespace is ours: the kernel's table is filled for real,
 * what the finding says to type makes room.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { DoctorReport, Finding } from "../../src/api/contract.js";
import { repository } from "../lib/lab.js";
import { eventually } from "../lib/processes.js";

const patience = { timeoutMs: 25_000, everyMs: 100 };
const inFirst = (...words: string[]): string[] => ["--target", "1", "--net", ...words];
const first = (text: string): string =>
  execFileSync("nsenter", inFirst("sh", "-c", text), { encoding: "utf8" });

/** The check alone: the others of `vnetd doctor` take these machines half a minute. */
function neighboursFound(): Finding | undefined {
  const script =
    `const { kernelLimitChecks } = await import("${repository}/dist/src/doctor/kernel-limits.js");` +
    `const { runChecks } = await import("${repository}/dist/src/doctor/check.js");` +
    'const checks = kernelLimitChecks({ root: "/", watchMs: 3000 });' +
    "console.log(JSON.stringify(await runChecks(checks.slice(0, 1))));";
  const words = inFirst(process.execPath, "--input-type=module", "-e", script);
  const report = JSON.parse(execFileSync("nsenter", words, { encoding: "utf8" })) as Pick<
    DoctorReport,
    "findings" | "checks"
  >;
  expect(report.checks.map(({ check }) => check)).toEqual(["neighbours"]);
  expect(report.checks[0]?.result).not.toBe("skipped");
  return report.findings[0];
}

const isFull = (): Promise<Finding> =>
  eventually(() => {
    const found = neighboursFound();
    if (found?.level !== "problem") throw new Error(JSON.stringify(found));
    return found;
  }, patience);

it("a table of neighbours that is full is found, and what to type makes room", async () => {
  const directory = mkdtempSync(join(tmpdir(), "vnetd-neighbours-"));
  const paths = [1, 2, 3].map((n) => `/proc/sys/net/ipv4/neigh/default/gc_thresh${String(n)}`);
  const before = first(`cat ${paths.join(" ")}`)
    .trim()
    .split("\n");
  const set = (values: readonly string[]): string =>
    first(paths.map((path, at) => `echo ${values[at] ?? ""} >${path}`).join("; "));
  // reachable ones that are younger than 5 s are not thrown out; what finds no room fails
  const neighbours = Array.from(
    { length: 60 },
    (_, n) =>
      `neighbour replace 192.0.2.${String(n + 2)} lladdr 02:00:00:00:00:02 dev full0 nud reachable\n`,
  );
  const batch = join(directory, "neighbours");
  writeFileSync(batch, neighbours.join(""));
  first("ip link add full0 type veth peer name full1 && ip link set full0 up");
  const again = `while :; do ip -batch ${batch} 2>/dev/null; done`;
  const fill = spawn("nsenter", inFirst("sh", "-c", again), { stdio: "ignore" });
  try {
    set(["8", "16", "32"]);
    const full = await isFull();
    expect(full.what).toMatch(/table of IPv4 neighbours is full/);
    expect(full.seen).toMatch(/^\d+ entries .*, \S+gc_thresh3 is 32; \d+ times no room just now$/);
    first(/^(sysctl -w [\w.= ]+), and/.exec(full.fix)?.[1] ?? "false");
    await eventually(() => neighboursFound() === undefined, patience);
  } finally {
    set(before);
    fill.kill();
    first("ip link del full0");
    rmSync(directory, { recursive: true });
  }
});
