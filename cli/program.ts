// SPDX-License-Identifier: Apache-2.0
/**
 * Makes a yargs program of the table of commands. Everything that is typed stays text: yargs
 * would make numbers of ids (0097, 1e3).
 */
import yargs, { type Argv } from "yargs";
import { VnetdError } from "../src/base/errors.js";
import { version } from "../src/base/version.js";
import type { CommandSpec, OptionSpec, PositionalSpec } from "./command.js";
import { globalOptions } from "./complete.js";
import { stdinArgument } from "./read-text.js";

/**
 * Marks what is no option while yargs parses: a lone "-", which yargs takes for an empty one, and
 * all that follows "--", which yargs does not count among a command's positionals.
 */
const plainMark = "\u0000";
/** yargs takes "a|b" in a positional's name for an alias; this is as wide and means nothing. */
const orStandIn = "\u01c0";

export interface ParsedCommand {
  command: CommandSpec;
  values: ReadonlyMap<string, unknown>;
}

export type Parsed = { help: string } | ParsedCommand;

function positionalText({ name, optional, many }: PositionalSpec): string {
  const key = `${name.replace("|", orStandIn)}${many === true ? ".." : ""}`;
  return optional === true ? `[${key}]` : `<${key}>`;
}

function usageOf(command: CommandSpec): string {
  return [command.name, ...(command.positionals ?? []).map(positionalText)].join(" ");
}

function addOption(builder: Argv, option: OptionSpec): Argv {
  return builder.option(option.name, {
    ...(option.short === undefined ? {} : { alias: option.short }),
    describe: option.value === undefined ? option.describe : `${option.value}: ${option.describe}`,
    ...(option.flag === true
      ? { type: "boolean" as const }
      : { type: "string" as const, requiresArg: true }),
  });
}

function addPositional(builder: Argv, { name, describe, many }: PositionalSpec): Argv {
  return builder.positional(name.replace("|", orStandIn), {
    describe,
    type: "string",
    ...(many === true ? { array: true } : {}),
  });
}

function textOf(value: unknown): unknown {
  return typeof value === "string" && value.startsWith(plainMark) ? value.slice(1) : value;
}

function valuesOf(command: CommandSpec, argv: Record<string, unknown>): Map<string, unknown> {
  const values = new Map<string, unknown>();
  for (const { name, many } of command.positionals ?? []) {
    const value = argv[name.replace("|", orStandIn)];
    values.set(name, many === true && Array.isArray(value) ? value.map(textOf) : textOf(value));
  }
  for (const { name, completes } of [...(command.options ?? []), ...globalOptions]) {
    const value = argv[name];
    if (Array.isArray(value)) {
      throw new VnetdError("USAGE", `--${name} is given more than once`, {
        hint: "Keep one of them.",
      });
    }
    // "" is the working directory to whoever opens it, and a variable that is not set to a script
    if (value === "" && (completes === "directory" || completes === "file")) {
      throw new VnetdError("USAGE", `--${name} is given an empty path`, {
        hint: "Leave it out for the default.",
      });
    }
    values.set(name, textOf(value));
  }
  return values;
}

function addCommand(
  program: Argv,
  command: CommandSpec,
  taken: (parsed: ParsedCommand) => void,
): Argv {
  return program.command({
    command: usageOf(command),
    describe: command.hidden === true ? false : command.describe,
    builder: (builder: Argv) => {
      for (const positional of command.positionals ?? []) addPositional(builder, positional);
      for (const option of command.options ?? []) addOption(builder, option);
      return command.epilogue === undefined ? builder : builder.epilogue(command.epilogue);
    },
    handler: (argv) => taken({ command, values: valuesOf(command, argv) }),
  });
}

function markPlain(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  const options = end < 0 ? args : args.slice(0, end);
  const plain = end < 0 ? [] : args.slice(end + 1);
  return [
    ...options.map((arg) => (arg === stdinArgument ? plainMark + arg : arg)),
    ...plain.map((arg) => plainMark + arg),
  ];
}

/** Throws USAGE. Runs nothing. */
export async function parseArguments(
  program: string,
  args: readonly string[],
  commands: readonly CommandSpec[],
  widthColumns: number,
): Promise<Parsed> {
  let parsed: ParsedCommand | undefined;
  let help = "";
  let parser = yargs()
    .scriptName(program)
    .locale("en")
    .usage(
      "$0 COMMAND [OPTIONS]\n\nPrivate Ethernet LANs for virtual machines and containers, over UDP.",
    )
    .parserConfiguration({
      "parse-numbers": false,
      "parse-positional-numbers": false,
      "camel-case-expansion": false,
      "dot-notation": false,
      "boolean-negation": false,
      "greedy-arrays": false,
    })
    .exitProcess(false)
    .strict()
    .wrap(widthColumns)
    .version(version)
    .help()
    .fail((message, error) => {
      if (error instanceof VnetdError) throw error;
      throw usageError(program, message || error.message, args, commands);
    });
  for (const option of globalOptions.filter(({ name }) => name === "run-dir" || name === "json")) {
    parser = addOption(parser, option);
  }
  for (const command of commands) parser = addCommand(parser, command, (taken) => (parsed = taken));
  await parser.parseAsync(
    markPlain(args),
    {},
    (_error: unknown, _argv: unknown, output: string) => {
      help = output;
    },
  );
  if (help !== "") return { help: `${help.replaceAll(orStandIn, "|")}\n` };
  if (parsed !== undefined) return parsed;
  throw new VnetdError("USAGE", "no command is given", {
    hint: `${program} help lists the commands.`,
  });
}

function usageText(message: string, command: CommandSpec | undefined): string {
  if (command !== undefined && message.startsWith("Not enough non-option arguments")) {
    return `usage: ${usageOf(command).replaceAll(orStandIn, "|")}`;
  }
  return message.replaceAll(orStandIn, "|").replaceAll(plainMark, "");
}

function usageError(
  program: string,
  message: string,
  args: readonly string[],
  commands: readonly CommandSpec[],
): VnetdError {
  const command = commands.find(({ name, hidden }) => hidden !== true && args.includes(name));
  return new VnetdError("USAGE", usageText(message, command), {
    hint:
      command === undefined
        ? `${program} help lists the commands.`
        : `See ${program} help ${command.name}.`,
  });
}
