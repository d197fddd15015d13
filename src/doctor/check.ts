// SPDX-License-Identifier: Apache-2.0
/**
 * The form of a check of `vnetd doctor`, and what runs them: each is bounded in time, and one that fails
 * does not end the others. A check looks and says what it found; it changes nothing that others see.
 */
import { performance } from "node:perf_hooks";
import type { CheckInfo, DoctorReport, Finding } from "../api/contract.js";

export type Found = Omit<Finding, "check">;
export type Examination = Pick<DoctorReport, "findings" | "checks">;

export interface Check {
  name: string;
  run: () => readonly Found[] | Promise<readonly Found[]>;
}

/** There is nothing to check here, and why. */
export class Skipped extends Error {}

const timeoutMs = 25_000;

/** One after the other: what one sends is not what another counts. */
export async function runChecks(
  checks: readonly Check[],
  limitMs: number = timeoutMs,
): Promise<Examination> {
  const report: Examination = { findings: [], checks: [] };
  for (const check of checks) {
    const startMs = performance.now();
    const { result, why, found } = await runOne(check, limitMs);
    const ms = Math.round(performance.now() - startMs);
    report.checks.push({ check: check.name, result, why, ms });
    report.findings.push(...found.map((each) => ({ check: check.name, ...each })));
  }
  sortFindings(report.findings);
  return report;
}

/** Worst first. */
export function sortFindings(findings: Finding[]): void {
  const order = ["problem", "warning", "note"];
  findings.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
}

interface Outcome extends Pick<CheckInfo, "result" | "why"> {
  found: readonly Found[];
}

async function runOne({ run }: Check, limitMs: number): Promise<Outcome> {
  try {
    const found = await within(limitMs, async () => run());
    return { result: found.length === 0 ? "ok" : "found", why: "", found };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { result: error instanceof Skipped ? "skipped" : "failed", why, found: [] };
  }
}

async function within<T>(limitMs: number, step: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`it took more than ${String(limitMs / 1000)} s`));
    }, limitMs);
  });
  try {
    return await Promise.race([step(), late]);
  } finally {
    clearTimeout(timer);
  }
}
