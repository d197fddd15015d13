// SPDX-License-Identifier: Apache-2.0
/**
 * What may stand at the end of a half-typed command line. The shells' functions
 * (commands/completion.ts) hand the line over as it is and filter nothing.
 */
import type { CommandSpec, Completion, OptionSpec } from "./command.js";

export const globalOptions: readonly OptionSpec[] = [
  { name: "run-dir", value: "DIR", describe: "the daemon's run directory", completes: "directory" },
  { name: "json", flag: true, describe: "print JSON" },
  { name: "help", flag: true, describe: "show help" },
  { name: "version", flag: true, describe: "show the release of this command" },
];

/** What only the machine and the daemon know. */
export interface CompletionSources {
  devices: () => string[];
  vnets: () => Promise<string[]>;
}

/** Stands for "the shell's own completion of file names". */
export const filesMark = ":files";

function optionCandidates(options: readonly OptionSpec[]): string[] {
  return options.flatMap(({ name, short }) =>
    short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`],
  );
}

function optionOf(options: readonly OptionSpec[], word: string): OptionSpec | undefined {
  return options.find(
    ({ name, short }) => word === `--${name}` || (short !== undefined && word === `-${short}`),
  );
}

interface Position {
  command: CommandSpec | undefined;
  options: readonly OptionSpec[];
  /** the option whose value comes now */
  valueOf: OptionSpec | undefined;
  /** positionals before the word */
  positionals: number;
  /** a word stands where a command must, and is none */
  lost: boolean;
}

function positionAfter(words: readonly string[], commands: readonly CommandSpec[]): Position {
  const position: Position = {
    command: undefined,
    options: globalOptions,
    valueOf: undefined,
    positionals: 0,
    lost: false,
  };
  for (const word of words) {
    if (position.valueOf !== undefined) {
      position.valueOf = undefined;
    } else if (word.startsWith("-") && word !== "-") {
      const option = optionOf(position.options, word);
      position.valueOf = option?.flag === true ? undefined : option;
    } else if (position.command === undefined) {
      position.command = commands.find(({ name }) => name === word);
      if (position.command === undefined) return { ...position, lost: true };
      position.options = [...(position.command.options ?? []), ...globalOptions];
    } else {
      position.positionals++;
    }
  }
  return position;
}

async function candidatesOf(
  kind: Completion,
  commands: readonly CommandSpec[],
  sources: CompletionSources,
): Promise<string[]> {
  switch (kind) {
    case "command":
      return commands.filter(({ hidden }) => hidden !== true).map(({ name }) => name);
    case "device":
      return sources.devices();
    case "vnet":
      return sources.vnets();
    case "file":
    case "directory":
      return [filesMark];
    case "shell":
      return ["bash", "zsh"];
    case "security":
      return ["none", "auth", "conf"];
    case "suite":
      return ["sha1", "gcm", "gcm256"];
    case "encapsulation":
      return ["udp", "etherip"];
    case "switch":
      return ["on", "off"];
    case "none":
      return [];
  }
}

/** `line` is the command line up to the cursor, its first word the program. */
export async function complete(
  line: string,
  commands: readonly CommandSpec[],
  sources: CompletionSources,
): Promise<string[]> {
  const words = line.trimStart().split(/\s+/);
  const current = words.at(-1) ?? "";
  if (words.length < 2) return [];
  const { command, options, valueOf, positionals, lost } = positionAfter(
    words.slice(1, -1),
    commands,
  );
  if (lost) return [];
  let candidates: string[];
  if (valueOf !== undefined) {
    candidates = await candidatesOf(valueOf.completes ?? "none", commands, sources);
  } else if (current.startsWith("-")) {
    candidates = optionCandidates(options);
  } else if (command === undefined) {
    candidates = await candidatesOf("command", commands, sources);
  } else {
    const specs = command.positionals ?? [];
    const last = specs.at(-1);
    const spec = specs[positionals] ?? (last?.many === true ? last : undefined);
    candidates = spec === undefined ? [] : await candidatesOf(spec.completes, commands, sources);
  }
  return candidates.filter((candidate) => candidate === filesMark || candidate.startsWith(current));
}
