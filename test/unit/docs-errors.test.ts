// SPDX-License-Identifier: Apache-2.0
/** docs/errors.md lists the codes of the error table, each once, no other, with the same words. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { errorTable, exitCodes } from "../../src/base/errors.js";
import { daemonConfigDefaults, parseDaemonConfig } from "../../src/config/daemon-config.js";
import { parseVnetFile } from "../../src/config/vnet-file.js";

const read = (name: string): string =>
  readFileSync(new URL(`../../docs/${name}`, import.meta.url), "utf8");

/** The rows of all tables whose first cell is code: [code, second cell]. */
function codeRows(text: string): [string, string][] {
  return [...text.matchAll(/^\| `(\w+)` \| (.*?) \|/gm)].map(([, code = "", meaning = ""]) => [
    code,
    meaning,
  ]);
}

describe("docs/errors.md", () => {
  const rows = codeRows(read("errors.md"));

  it("lists every code once, and no other", () => {
    expect(rows.map(([code]) => code).sort()).toEqual(Object.keys(errorTable).sort());
  });

  it("says of each what the table says", () => {
    expect(Object.fromEntries(rows)).toEqual(errorTable);
  });

  it("lists the exit codes", () => {
    const codes = [...read("errors.md").matchAll(/^\| (\d) \|/gm)].map(([, code]) => Number(code));
    expect(codes).toEqual(Object.values(exitCodes));
  });
});

describe("docs/vnet-file.md", () => {
  const text = read("vnet-file.md");
  const blocks = (language: string): string[] =>
    [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
      .filter(([, name]) => name === language)
      .map(([, , body = ""]) => body);

  it("has examples that are taken", () => {
    const vnets = [
      ...blocks(""),
      ...blocks("json"),
      ...blocks("yaml").filter((body) => body.includes("id:")),
    ];
    expect(vnets).toHaveLength(4);
    for (const body of vnets) expect(parseVnetFile(body, "docs").length).toBeGreaterThan(0);
    const configurations = blocks("yaml").filter((body) => !body.includes("id:"));
    expect(configurations).toHaveLength(1);
    for (const body of configurations)
      expect(parseDaemonConfig(body, "docs").attach).toEqual(["eth0"]);
  });

  it("lists the keys of the daemon's configuration, and no other", () => {
    const documented = codeRows(text.slice(text.indexOf("## The daemon's configuration"))).map(
      ([key]) => key,
    );
    const { limits, keys, log, ...others } = daemonConfigDefaults();
    const known = [
      ...[...Object.keys(others), "limits", "keys", "log"],
      ...[limits, keys, log].flatMap((each) => Object.keys(each)),
    ];
    expect(documented.filter((key) => key !== "lock").sort()).toEqual(known.sort());
  });
});
