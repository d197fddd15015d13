// SPDX-License-Identifier: Apache-2.0
/**
 * docs/metrics.md lists every metric once, with its type and labels, and no other; the dashboard and the rules
 * in monitoring/ ask for none that does not exist, nor for a label that it does not have.
 */
import { readFileSync } from "node:fs";
import { load } from "js-yaml";
import { expect, it } from "vitest";
import { reasonNames } from "../../src/generated/layouts.js";
import { catalogue } from "../../src/metrics/catalogue.js";

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const docs = read("docs/metrics.md");
const cells = (line: string): string[] => line.split("|").map((cell) => cell.trim());
const rows = docs
  .split("\n")
  .filter((line) => /^\| `\w+`/.test(line))
  .map(cells);

it("lists the metrics, each once, with type and labels", () => {
  const listed = rows
    .filter((row) => row.length === 6)
    .map(([, name, type, labels]) => `${name!} ${type!} ${labels!}`);
  expect(listed.sort()).toEqual(
    [...catalogue]
      .map(([name, { type, labels }]) => `\`${name}\` ${type} ${labels.join(", ")}`)
      .sort(),
  );
});

it("says of each what it is, and of each label which values it has", () => {
  for (const [, name, , , what] of rows.filter((row) => row.length === 6))
    expect(what!.length, name).toBeGreaterThan(5);
  const explained = rows.filter((row) => row.length === 4).map(([, name]) => name);
  const used = new Set([...catalogue].flatMap(([, { labels }]) => labels));
  for (const own of ["version", "layout", "node"]) used.delete(own);
  expect(explained.sort()).toEqual([...used].map((label) => `\`${label}\``).sort());
});

it("names keep to the conventions: counters end with _total, and nothing else does; units are whole", () => {
  for (const [name, { type, help }] of catalogue) {
    expect(name.endsWith("_total"), name).toBe(type === "counter");
    expect(name, name).toMatch(/^(vnetd|process)(_[a-z]+)+$/);
    expect(name, name).not.toMatch(/_(ms|milliseconds|minutes|kb|kilobytes|bits|percent)(_|$)/);
    expect(help, name).toMatch(/\.$/);
  }
});

/** PromQL of rules and dashboard, by where it stands. */
function expressions(): [string, string][] {
  const rules = read("monitoring/vnetd.rules.yml");
  const found: [string, string][] = [];
  const parsed = load(rules) as { groups: { rules: { alert: string; expr: string }[] }[] };
  for (const { alert, expr } of parsed.groups.flatMap((group) => group.rules))
    found.push([alert, expr]);
  const dashboard = JSON.parse(read("monitoring/grafana-dashboard.json")) as {
    panels: { title: string; targets?: { expr: string }[] }[];
    templating: { list: { name: string; definition?: string }[] };
  };
  for (const { title, targets = [] } of dashboard.panels)
    for (const { expr } of targets) found.push([title, expr]);
  for (const { name, definition } of dashboard.templating.list)
    if (definition !== undefined) found.push([name, definition]);
  return found;
}

/** Labels that Prometheus itself adds, and a histogram's. */
const added = ["instance", "job", "le", "alertname", "alertstate"];

it("dashboard and rules ask for metrics that exist, by labels that they have", () => {
  const all = expressions();
  expect(all.length).toBeGreaterThan(50);
  for (const [where, expr] of all) {
    const names = expr.match(/\b(?:vnetd|process)_\w+/g) ?? [];
    const infos = names.map((name) => {
      const base = name.replace(/_(bucket|sum|count)$/, "");
      const info = catalogue.get(name) ?? catalogue.get(base);
      expect(info, `${where}: ${name}`).toBeDefined();
      expect(info!.type === "histogram", `${where}: ${name}`).toBe(name !== base);
      return info!;
    });
    const known = new Set([...added, ...infos.flatMap(({ labels }) => labels)]);
    const selected = [...expr.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"/g)].map(([, label]) => label!);
    const grouped = [...expr.matchAll(/\b(?:by|on)\s*\(([\w\s,]+)\)/g)].flatMap(([, list]) =>
      list!.split(",").map((label) => label.trim()),
    );
    for (const label of [...selected, ...grouped])
      expect(known.has(label), `${where}: ${label}`).toBe(true);
  }
});

it("reasons that rules ask for are those of the data plane", () => {
  const known = new Set<string>(reasonNames);
  for (const [where, expr] of expressions()) {
    for (const [, words] of expr.matchAll(/\breason\s*!?=~?\s*"([^"]*)"/g)) {
      for (const word of words!.split("|")) {
        const matches = [...known].filter((name) => new RegExp(`^(?:${word})$`).test(name));
        expect(matches.length, `${where}: ${word}`).toBeGreaterThan(0);
      }
    }
  }
});

it("every alert has a severity and says what to do", () => {
  const parsed = load(read("monitoring/vnetd.rules.yml")) as {
    groups: {
      rules: {
        alert: string;
        labels: { severity: string };
        annotations: { summary: string; description: string };
      }[];
    }[];
  };
  const rules = parsed.groups.flatMap((group) => group.rules);
  const tests = read("monitoring/vnetd.rules.test.yml");
  for (const { alert, labels, annotations } of rules) {
    expect(labels.severity, alert).toMatch(/^(critical|warning)$/);
    expect(annotations.summary, alert).toMatch(/^\{\{ \$labels\.instance \}\}: /);
    expect(annotations.description.length, alert).toBeGreaterThan(40);
    // its test sees it fire
    expect(tests, alert).toMatch(new RegExp(`alertname="?${alert}"`));
  }
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
});
