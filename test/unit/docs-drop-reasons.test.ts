// SPDX-License-Identifier: Apache-2.0
/** docs/drop-reasons.md explains every reason of include/vnetd/reasons.h once, and no other. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { reasonNames } from "../../src/generated/layouts.js";

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const rows = read("docs/drop-reasons.md")
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => line.split("|").map((cell) => cell.trim()));

it("lists the reasons of the header, each once", () => {
  const listed = rows.map(([, name]) => name).sort();
  expect(listed).toEqual(
    reasonNames
      .slice(1)
      .map((name) => `\`${name}\``)
      .sort(),
  );
});

it("says for each its direction, what it means and what to do", () => {
  for (const [, name, direction, meaning, remedy] of rows) {
    expect(direction, name).toMatch(/^(encap|decap|both)$/);
    expect(meaning!.length, name).toBeGreaterThan(15);
    expect(remedy!.length, name).toBeGreaterThan(5);
  }
});

it("the generated names are the header's", () => {
  const header = [
    ...read("include/vnetd/reasons.h").matchAll(/^\tVNETD_(?:DROP_)?([A-Z_]+)(?: = 0)?,$/gm),
  ];
  const names = header.map(([, name]) => name!.toLowerCase());
  const start = names.indexOf("ok");
  expect(names.slice(start, names.indexOf("reason_count"))).toEqual([...reasonNames]);
});
