// SPDX-License-Identifier: Apache-2.0
/**
 * Reads command lines that leave nothing to be asked, which nearly all do, without yargs: to load it takes longer than
 * all that a command like vnet-list does. Whatever is missing, unknown, said twice or written in another way (`--name=value`,
 * `-`, `--`, help) gives undefined, and yargs decides (program.ts), so that errors and help have one place.
 */
import type { CommandSpec, OptionSpec } from "./command.js";
import { globalOptions } from "./complete.js";

export interface PlainArguments {
  command: CommandSpec;
  values: ReadonlyMap<string, unknown>;
}

interface Words {
  positionals: string[];
  options: Map<string, string | true>;
}

function optionOf(options: readonly OptionSpec[], word: string): OptionSpec | undefined {
  return options.find(
    ({ name, short }) => word === `--${name}` || (short !== undefined && word === `-${short}`),
  );
}

function split(words: readonly string[], known: readonly OptionSpec[]): Words | undefined {
  const positionals: string[] = [];
  const options = new Map<string, string | true>();
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (word === "") return undefined;
    if (!word.startsWith("-")) {
      positionals.push(word);
      continue;
    }
    const option = optionOf(known, word);
    if (option === undefined || options.has(option.name)) return undefined;
    if (option.flag === true) {
      // yargs takes this word behind a flag for the flag's value
      if (words[at + 1] === "true" || words[at + 1] === "false") return undefined;
      options.set(option.name, true);
      continue;
    }
    at += 1;
    const value = words[at] ?? "";
    if (value === "" || value.startsWith("-")) return undefined;
    options.set(option.name, value);
  }
  return { positionals, options };
}

/** The command stands first, or behind options of all commands. */
export function plainArguments(
  args: readonly string[],
  commands: readonly CommandSpec[],
): PlainArguments | undefined {
  const everywhere = globalOptions.filter(({ name }) => name === "run-dir" || name === "json");
  const name = args.find(
    (arg, at) =>
      !arg.startsWith("-") && optionOf(everywhere, args[at - 1] ?? "")?.value === undefined,
  );
  const command = commands.find((each) => each.name === name);
  if (command === undefined) return undefined;
  const words = split(args, [...(command.options ?? []), ...everywhere]);
  if (words === undefined || words.positionals[0] !== command.name) return undefined;
  const given = words.positionals.slice(1);
  const places = command.positionals ?? [];
  const needed = places.filter(({ optional }) => optional !== true).length;
  const isMany = places.at(-1)?.many === true;
  if (given.length < needed || (!isMany && given.length > places.length)) return undefined;
  const values = new Map<string, unknown>(words.options);
  places.forEach((place, at) => {
    values.set(place.name, place.many === true ? given.slice(at) : given[at]);
  });
  return { command, values };
}
