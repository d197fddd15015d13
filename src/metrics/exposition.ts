// SPDX-License-Identifier: Apache-2.0
/**
 * Prometheus' text format for what is read anew at each scrape: twenty thousand lines of counters that the kernel
 * keeps, for which the counters of a library would be filled and emptied each time.
 */
import type { MetricInfo } from "./catalogue.js";

/** Adds a line; values of labels in the catalogue's order. */
export type Add = (value: number, ...labels: string[]) => void;

/** One metric with all of its lines; "" without any. */
export function family(
  name: string,
  { type, help, labels }: MetricInfo,
  fill: (add: Add) => void,
): string {
  const lines: string[] = [];
  fill((value, ...values) => {
    let text = "";
    for (let at = 0; at < labels.length; at += 1)
      text += `${at === 0 ? "{" : ","}${labels[at] ?? ""}="${escaped(values[at] ?? "")}"`;
    lines.push(`${name}${text}${text === "" ? "" : "}"} ${String(value)}\n`);
  });
  if (lines.length === 0) return "";
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

const special = /[\\"\n]/u;
const all = /[\\"\n]/gu;

function escaped(text: string): string {
  return special.test(text)
    ? text.replace(all, (found) => (found === "\n" ? "\\n" : `\\${found}`))
    : text;
}
