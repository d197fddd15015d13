// SPDX-License-Identifier: Apache-2.0
/**
 * The command line: `vnetd`, and under the original tool's name `vn`.
 *
 * The path of a command: bin/ -> main -> parse (plain-arguments.ts, or program.ts) -> the command's `run`
 * (commands/) -> one request on the daemon's socket -> output. Nothing here knows the daemon but
 * by src/api; `run` alone loads it. Exit codes: 0 done, 1 failed, 2 usage, 3 no daemon.
 */
import { errorParts, exitCodes, VnetdError } from "../src/base/errors.js";
import { defaultPaths } from "../src/base/paths.js";
import { Invocation, type CommandSpec, type Environment } from "./command.js";
import { commands as builtCommands } from "./commands.js";
import { endQuietlyOnClosedPipe, Output, type OutputStreams } from "./output.js";
import { plainArguments } from "./plain-arguments.js";
import type { Parsed } from "./program.js";

export interface Process extends Environment {
  args: readonly string[];
  streams: OutputStreams;
}

function exitCodeOf(error: unknown): number {
  switch (errorParts(error).code) {
    case "USAGE":
      return exitCodes.usage;
    case "NO_DAEMON":
      return exitCodes.noDaemon;
    default:
      return exitCodes.failed;
  }
}

const helpCommand: CommandSpec = {
  name: "help",
  describe: "show the commands, or how one is used",
  positionals: [{ name: "COMMAND", describe: "a command", completes: "command", optional: true }],
  // main answers it before anything is run
  run: () => undefined,
};

const commands: readonly CommandSpec[] = [...builtCommands, helpCommand];

/** `help X` is `X --help`. */
function withoutHelpCommand(args: readonly string[]): readonly string[] {
  const [first, second] = args;
  if (first !== helpCommand.name) return args;
  if (second === undefined || second.startsWith("-")) return ["--help"];
  if (!commands.some(({ name }) => name === second)) {
    throw new VnetdError("USAGE", `there is no command "${second}"`, {
      hint: "help lists the commands.",
    });
  }
  return [second, "--help"];
}

function widthOf({ stdout }: OutputStreams): number {
  const columns = "columns" in stdout && typeof stdout.columns === "number" ? stdout.columns : 100;
  return Math.max(60, Math.min(columns, 100));
}

/** Whether errors are wanted as JSON, known even when the arguments cannot be parsed. */
function wantsJson(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? args.length : end).includes("--json");
}

async function parse({ args, program, streams }: Process): Promise<Parsed> {
  const plain = plainArguments(args, builtCommands);
  if (plain !== undefined) return plain;
  const { parseArguments } = await import("./program.js");
  return parseArguments(program, withoutHelpCommand(args), commands, widthOf(streams));
}

export async function main(process: Process): Promise<number> {
  const { args, streams, program, variables } = process;
  const output = new Output(program, streams, wantsJson(args), variables);
  try {
    const parsed = await parse(process);
    if ("help" in parsed) {
      output.text(parsed.help);
      return exitCodes.done;
    }
    const typedRunDir = parsed.values.get("run-dir");
    const runDir =
      typeof typedRunDir === "string"
        ? typedRunDir
        : variables["VNETD_RUN_DIR"] || defaultPaths.runDir;
    const invocation = new Invocation(process, output, runDir, parsed.values, commands);
    const code = (await parsed.command.run(invocation)) ?? exitCodes.done;
    output.end();
    return code;
  } catch (error) {
    output.error(error);
    return exitCodeOf(error);
  }
}

/** What bin/vnetd and bin/vn call: main for this process. */
export async function mainOfProcess(program: string, binary: string): Promise<void> {
  const { stdin, stdout, stderr, env, argv } = globalThis.process;
  for (const stream of [stdout, stderr]) {
    endQuietlyOnClosedPipe(stream, () => {
      globalThis.process.exitCode = exitCodes.failed;
    });
  }
  const code = await main({
    program,
    binary,
    variables: env,
    stdin,
    args: argv.slice(2),
    streams: { stdout, stderr },
  });
  globalThis.process.exitCode ??= code;
}
