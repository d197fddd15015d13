// SPDX-License-Identifier: Apache-2.0
/** What was measured, as Markdown. Pure but for the functions at the end. */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join, resolve } from "node:path";

const docs = join(resolve(import.meta.dirname, ".."), "docs");

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * vnetd's value over another's, round by round: two that were taken seconds apart saw the same
 * machine, the medians of two series may not have.
 */
export function ratios(ours, theirs) {
  const each = ours.map((value, i) => value / theirs[i]).filter(Number.isFinite);
  return each.length === 0
    ? undefined
    : { median: median(each), min: Math.min(...each), max: Math.max(...each) };
}

const digits = (value) => (value >= 100 ? 0 : value >= 10 ? 1 : 2);
export const absolute = (values) => {
  const there = (values ?? []).filter(Number.isFinite);
  return there.length === 0 ? "–" : median(there).toFixed(digits(median(there)));
};
export const ratioText = (ratio) =>
  ratio === undefined
    ? "–"
    : `**${ratio.median.toFixed(2)}** (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`;

export function verdict(ratio, target) {
  if (target === undefined) return "";
  const text = `${target.atLeast === undefined ? "≤" : "≥"} ${(target.atLeast ?? target.atMost).toFixed(2)}`;
  if (ratio === undefined) return `${text}: not measured`;
  const met =
    target.atLeast === undefined ? ratio.median <= target.atMost : ratio.median >= target.atLeast;
  return `${text}: ${met ? "met" : "**not met**"}`;
}

const of = (values, ours, theirs) =>
  values[ours] === undefined || values[theirs] === undefined
    ? undefined
    : ratios(values[ours], values[theirs]);

/** rows: [{name, unit, targets, merge, values: {bare?, vxlan, vnetd, port?, ovs?, ...: number[]}}] */
export function table(rows) {
  const direct = rows.some(({ values }) => values.port !== undefined);
  const lines = [
    `| | bare veth | VXLAN | vnetd |${direct ? " direct ports |" : ""} merging | vnetd / VXLAN, median (least–most) |`,
    `|---|---:|---:|---:|${direct ? "---:|" : ""}---|---:|`,
  ];
  for (const { name, unit, merge, values } of rows) {
    const cells = [
      absolute(values.bare),
      absolute(values.vxlan),
      absolute(values.vnetd),
      ...(direct ? [absolute(values.port)] : []),
      merge,
      ratioText(of(values, "vnetd", "vxlan")),
    ];
    lines.push(`| ${name}, ${unit} | ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}

/** vnetd beside what user space carries. others: {way: name}; missing: {way: why} */
export function othersTable(rows, others, missing) {
  const there = Object.entries(others);
  const shown = rows.filter(({ values }) => there.some(([way]) => values[way] !== undefined));
  const lines = [
    `| | vnetd | ${there.map(([, name]) => `${name} | vnetd / ${name}`).join(" | ")} |`,
    `|---|---:|${there.map(() => "---:|---:|").join("")}`,
  ];
  for (const { name, unit, values } of shown) {
    const cells = there.flatMap(([way]) => [
      absolute(values[way]),
      ratioText(of(values, "vnetd", way)),
    ]);
    lines.push(`| ${name}, ${unit} | ${absolute(values.vnetd)} | ${cells.join(" | ")} |`);
  }
  const why = Object.entries(missing).map(
    ([way, text]) => `- ${others[way] ?? way} is not measured: ${text}`,
  );
  return [...(shown.length === 0 ? [] : [lines.join("\n")]), ...why].join("\n\n");
}

/** Each target once for each row that it is said of; those that nothing was measured for too. */
export function targetsTable(rows, targets, missing) {
  const lines = ["| target | row | median (least–most) | |", "|---|---|---:|---|"];
  for (const target of targets) {
    const said = rows.filter((row) => row.targets.includes(target));
    const measured = said.filter(({ values }) => values[target.ours] !== undefined);
    for (const { name, unit, values } of measured) {
      const ratio = of(values, target.ours, target.theirs);
      const row = unit.startsWith("Mpps")
        ? `${name}: ${absolute(values[target.ours])} ${unit}`
        : name;
      lines.push(`| ${target.text} | ${row} | ${ratioText(ratio)} | ${verdict(ratio, target)} |`);
    }
    if (measured.length === 0) {
      const why = missing[target.ours] ?? "left out";
      lines.push(`| ${target.text} | – | – | ${verdict(undefined, target)} (${why}) |`);
    }
  }
  return lines.join("\n");
}

/** programs: [{name, what, ns, instructions, bytes, verified}]; notRun: {name: why} */
export function programsTable(programs, notRun) {
  const lines = [
    "| program | a packet | ns | size, instructions | size, bytes of machine code | instructions that the verifier walked |",
    "|---|---|---:|---:|---:|---:|",
  ];
  for (const { name, what, ns, instructions, bytes, verified } of programs)
    lines.push(`| \`${name}\` | ${what} | ${ns} | ${instructions} | ${bytes} | ${verified} |`);
  const why = Object.entries(notRun).map(
    ([name, text]) => `- \`${name}\` is not run by itself: ${text}`,
  );
  return [...lines, "", ...why].join("\n");
}

/** Whether the kernel takes the time of each run of each program: two readings of the clock, which vnetd has most of. */
export function takesProgramTimes() {
  try {
    return readFileSync("/proc/sys/kernel/bpf_stats_enabled", "utf8").trim() !== "0";
  } catch {
    return false;
  }
}

export function cpuModel() {
  const all = cpus();
  return `${all.length} × ${all[0]?.model.trim() ?? "unknown"}`;
}

/** facts: [[name, text]]; parts: tables and what stands over each */
export function report(facts, parts, remarks) {
  const head = facts.map(([name, text]) => `- ${name}: ${text}`).join("\n");
  const tail = remarks.length === 0 ? "" : `\n\n${remarks.map((text) => `- ${text}`).join("\n")}`;
  return `${[head, ...parts.filter((text) => text !== "")].join("\n\n")}${tail}`;
}

export const kernel = () => release();

/** Puts the text between a table's markers in a page of docs/. */
export function write(text, table = "bench", name = "performance.md") {
  const page = join(docs, name);
  const [begin, end] = [`<!-- ${table}:begin -->`, `<!-- ${table}:end -->`];
  const old = readFileSync(page, "utf8");
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${page}: the lines ${begin} and ${end} are missing`);
  writeFileSync(page, `${old.slice(0, from + begin.length)}\n${text}\n${old.slice(to)}`);
  return page;
}
