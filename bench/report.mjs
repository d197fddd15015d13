// SPDX-License-Identifier: Apache-2.0
/** What was measured, as Markdown. Pure but for the two functions at the end. */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join, resolve } from "node:path";

const page = join(resolve(import.meta.dirname, ".."), "docs", "performance.md");

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

/** rows: [{name, unit, target?, merge, values: {bare?, vxlan, vnetd}: number[]}] */
export function table(rows) {
  const lines = [
    "| | bare veth | VXLAN | vnetd | merging | vnetd / VXLAN, median (least–most) | target |",
    "|---|---:|---:|---:|---|---:|---|",
  ];
  for (const { name, unit, target, merge, values } of rows) {
    const ratio = ratios(values.vnetd, values.vxlan);
    const cells = [
      absolute(values.bare),
      absolute(values.vxlan),
      absolute(values.vnetd),
      merge,
      ratioText(ratio),
      verdict(ratio, target),
    ];
    lines.push(`| ${name}, ${unit} | ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}

export function cpuModel() {
  const all = cpus();
  return `${all.length} × ${all[0]?.model.trim() ?? "unknown"}`;
}

/** facts: [[name, text]] */
export function report(facts, rows, remarks) {
  const head = facts.map(([name, text]) => `- ${name}: ${text}`).join("\n");
  const tail = remarks.length === 0 ? "" : `\n\n${remarks.map((text) => `- ${text}`).join("\n")}`;
  return `${head}\n\n${table(rows)}${tail}`;
}

export const kernel = () => release();

/** Puts the text between a table's markers in docs/performance.md. */
export function write(text, table = "bench") {
  const [begin, end] = [`<!-- ${table}:begin -->`, `<!-- ${table}:end -->`];
  const old = readFileSync(page, "utf8");
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${page}: the lines ${begin} and ${end} are missing`);
  writeFileSync(page, `${old.slice(0, from + begin.length)}\n${text}\n${old.slice(to)}`);
  return page;
}
