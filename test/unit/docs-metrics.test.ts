// SPDX-License-Identifier: Apache-2.0
/**
 * docs/metrics.md lists every metric once, with its type and labels, and no other; the dashboard and the rules
 * in monitoring/ ask for none that does not exist, nor for a label that it does not have.
 */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
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
