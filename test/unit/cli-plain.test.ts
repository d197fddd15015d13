// SPDX-License-Identifier: Apache-2.0
/** What is read without yargs is read as yargs reads it, and the rest is left to it. */
import { describe, expect, it } from "vitest";
import { commands } from "../../cli/commands.js";
import type { CommandSpec } from "../../cli/command.js";
import { plainArguments } from "../../cli/plain-arguments.js";
import { parseArguments } from "../../cli/program.js";

/** absent is undefined to one and not there to the other */
const defined = (values: ReadonlyMap<string, unknown>): Record<string, unknown> =>
  Object.fromEntries([...values].filter(([, value]) => value !== undefined && !isEmptyList(value)));
const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0;

/** Lines that leave nothing to be asked: least and most positionals, each option alone, all together. */
function linesOf({ name, positionals = [], options = [] }: CommandSpec): string[][] {
  const words = positionals.map((_, at) => `0${String(at)}7`);
  const needed = words.filter((_, at) => positionals[at]?.optional !== true);
  const many = positionals.at(-1)?.many === true ? ["1e3", "x=y"] : [];
  const each = options.map(({ name: long, flag }) =>
    flag === true ? [`--${long}`] : [`--${long}`, "0012"],
  );
  const short = options.flatMap(({ short: letter, flag }) => {
    if (letter === undefined) return [];
    return [flag === true ? [`-${letter}`] : [`-${letter}`, "v"]];
  });
  return [
    [name, ...needed],
    [name, ...words, ...many],
    ["--json", name, ...needed],
    ["--run-dir", "/x", name, ...needed, "--json"],
    ...[...each, ...short].map((option) => [name, ...option, ...needed]),
    [name, ...needed, ...each.flat(), "--run-dir", "7"],
  ];
}

describe("a plain command line", () => {
  it.each(commands.map((command) => [command.name, command] as const))(
    "of %s is read as yargs reads it",
    async (_, command) => {
      for (const line of linesOf(command)) {
        const plain = plainArguments(line, commands);
        const parsed = await parseArguments("vnetd", line, commands, 80);
        if ("help" in parsed) throw new Error(line.join(" "));
        expect(plain?.command.name, line.join(" ")).toBe(command.name);
        expect(defined(plain?.values ?? new Map()), line.join(" ")).toEqual(defined(parsed.values));
      }
    },
  );
});

describe("to yargs is left", () => {
  it.each([
    [[]],
    [["--help"]],
    [["vnets", "--help"]],
    [["help", "vnets"]],
    [["nonsense"]],
    [["vnets", "too", "many"]],
    [["vnet-delete"]],
    [["vnets", "--colour"]],
    [["vnets", "--json", "--json"]],
    [["vnets", "--run-dir"]],
    [["vnets", "--run-dir", ""]],
    [["vnets", "--run-dir=/x"]],
    [["vnets", "--json", "true"]],
    [["vnet-delete", "--", "97"]],
    [["vnet-create", "-"]],
    [["--run-dir", "vnets"]],
    [[""]],
  ])("%j", (line) => expect(plainArguments(line, commands)).toBeUndefined());
});
