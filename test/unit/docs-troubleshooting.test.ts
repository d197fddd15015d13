// SPDX-License-Identifier: Apache-2.0
/**
 * docs/troubleshooting.md names what there is: reasons of drops, checks and findings of the doctor as the code writes them,
 * commands and their options, and places in other pages.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { commands } from "../../cli/commands.js";
import { reasonNames } from "../../src/generated/layouts.js";

const root = new URL("../../", import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), "utf8");
const docs = read("docs/troubleshooting.md");

/** What the daemon and the doctor can say; texts that are written in two pieces are one. */
const said = readdirSync(new URL("src/", root), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => read(`src/${path}`))
  .join("\n")
  .replace(/[`"] \+\s+[`"]/g, "");

const slugOf = (title: string): string =>
  title
    .toLowerCase()
    .replace(/[^\w\- ]/g, "")
    .replace(/ /g, "-");
const slugs = (text: string): string[] =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) => slugOf(title!));

describe("docs/troubleshooting.md", () => {
  it("names reasons that there are", () => {
    const named = [...docs.matchAll(/drops? `(\w+)`/gi)].map(([, name]) => name!);
    expect(named.length).toBeGreaterThan(6);
    for (const name of named) expect(reasonNames, name).toContain(name);
  });

  it("names checks of the doctor that there are", () => {
    const checks = [...docs.matchAll(/doctor `([\w-]+)`/g)].map(([, name]) => name!);
    expect(checks.length).toBeGreaterThan(15);
    for (const name of checks) expect(said, name).toMatch(new RegExp(`(name: |\\[)"${name}"`));
  });

  it("quotes what is said", () => {
    const quoted = [...docs.matchAll(/“([^”]+)”/g)].flatMap(([, text]) => text!.split("…"));
    const pieces = quoted.map((text) => text.trim()).filter((text) => text !== "");
    expect(pieces.length).toBeGreaterThan(25);
    for (const text of pieces) expect(said.includes(text), text).toBe(true);
  });

  it("tells to type commands that there are, with options that they have", () => {
    const typed = [...docs.matchAll(/(?:`|^ {4}|;)vnetd ([a-z][^`\n;#|]*)/gm)].map(([, line]) =>
      line!.trim(),
    );
    expect(typed.length).toBeGreaterThan(30);
    for (const line of typed) {
      const [name, ...words] = line.replace(/\\$/, "").trim().split(/\s+/);
      const command = commands.find((each) => each.name === name);
      expect(command, line).toBeDefined();
      for (const word of words.filter((each) => each.startsWith("--")))
        expect(
          command?.options?.map((each) => `--${each.name}`),
          line,
        ).toContain(word);
    }
  });

  it("leads to places that there are", () => {
    const links = [...docs.matchAll(/\]\(([\w.-]*)(?:#([\w-]+))?\)/g)];
    expect(links.length).toBeGreaterThan(10);
    for (const [, page, place] of links) {
      if (page !== "") expect(existsSync(new URL(`docs/${page!}`, root)), page).toBe(true);
      const text = page === "" ? docs : read(`docs/${page!}`);
      if (place !== undefined) expect(slugs(text), place).toContain(place);
    }
  });

  it("is what README.md leads to", () => {
    expect(read("README.md")).toContain("(docs/troubleshooting.md)");
  });
});
