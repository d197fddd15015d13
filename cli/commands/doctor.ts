// SPDX-License-Identifier: Apache-2.0
/** doctor: what is wrong on this host, how that was seen, and what to type. */
import type { DoctorReport, Finding } from "../../src/api/contract.js";
import { errorParts } from "../../src/base/errors.js";
import type { CommandSpec, Invocation } from "../command.js";
import { daemonOptions, daemonPaths } from "../daemon-options.js";
import { diagnoseAlone, withOffloads } from "../run.js";

/** nothing is wrong; something is; something could not be looked at, and the rest is well */
const doctorExit = { healthy: 0, findings: 1, unchecked: 2 } as const;

async function ask(invocation: Invocation): Promise<{ daemon: boolean; report: DoctorReport }> {
  try {
    return { daemon: true, report: await invocation.request("doctor", {}) };
  } catch (error) {
    const { code, message } = errorParts(error);
    if (code !== "NO_DAEMON" && code !== "TIMEOUT" && code !== "CONNECTION_LOST") throw error;
    return { daemon: false, report: await diagnoseAlone(daemonPaths(invocation), message) };
  }
}

async function examine(invocation: Invocation): Promise<{ daemon: boolean; report: DoctorReport }> {
  const { daemon, report } = await ask(invocation);
  return { daemon, report: report.devices.length === 0 ? report : await withOffloads(report) };
}

function linesOf({ level, check, what, seen, fix }: Finding): string[] {
  const lines = [`${level.padEnd(7)}  ${check}: ${what}`, `         seen: ${seen}`];
  return fix === "" ? lines : [...lines, `         do:   ${fix}`];
}

const counted = (count: number, noun: string): string =>
  `${count} ${noun}${count === 1 ? "" : "s"}`;

function summaryOf({ findings, checks }: DoctorReport): string {
  const count = (level: string): number => findings.filter((each) => each.level === level).length;
  const skipped = checks.filter(({ result }) => result === "skipped").length;
  const rest = skipped === 0 ? "" : `, ${skipped} of them with nothing to check`;
  const found = `${counted(count("problem"), "problem")}, ${counted(count("warning"), "warning")}`;
  return `${found}, ${counted(count("note"), "note")}; ${counted(checks.length, "check")}${rest}`;
}

export function exitOf({ findings, checks }: DoctorReport): number {
  if (findings.some(({ level }) => level !== "note")) return doctorExit.findings;
  const failed = checks.some(({ result }) => result === "failed");
  return failed ? doctorExit.unchecked : doctorExit.healthy;
}

function show(invocation: Invocation, report: DoctorReport): void {
  const { output } = invocation;
  for (const finding of report.findings) for (const line of linesOf(finding)) output.line(line);
  output.line(summaryOf(report));
  const failed = report.checks.filter(({ result }) => result === "failed");
  for (const { check, why } of failed) {
    output.note(`${check} could not be checked: ${why}`);
  }
}

async function doctor(invocation: Invocation): Promise<number> {
  const { daemon, report } = await examine(invocation);
  const healthy = exitOf(report) === doctorExit.healthy;
  if (invocation.output.json) invocation.output.value({ daemon, healthy, ...report });
  else show(invocation, report);
  return exitOf(report);
}

export const doctorCommands: readonly CommandSpec[] = [
  {
    name: "doctor",
    describe: "look this host over: what is wrong, how it was seen, what to type",
    options: daemonOptions
      .filter(({ name }) => name === "state-dir" || name === "bpffs")
      .map((option) => ({ ...option, describe: `where no daemon runs: ${option.describe}` })),
    epilogue:
      "Exits with 0 if all is well (notes do not count), 1 if there are problems or warnings, 2 if something could not be checked and nothing else is wrong.",
    run: doctor,
  },
];
