// SPDX-License-Identifier: Apache-2.0
/**
 * Command lines of the benches. What is wrong with one is a line that says what there is, and exit code 2; before anything
 * is measured.
 */
import { parseArgs } from "node:util";

/** A command line that cannot be followed. */
export class WrongOption extends Error {}

/**
 * parseArgs() whose errors are WrongOption; `allowPositionals` as there. --help is known everywhere.
 */
export function parsed(known, allowPositionals = false) {
  try {
    const options = { ...known, help: { type: "boolean", default: false } };
    return parseArgs({ allowPositionals, options });
  } catch (error) {
    if (!error.code?.startsWith("ERR_PARSE_ARGS")) throw error;
    throw new WrongOption(error.message.split(/\. To specify|\n/)[0]);
  }
}

/** A whole number of an option. */
export function number(text, name, least = 1) {
  const n = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(n) || n < least)
    throw new WrongOption(`--${name} ${text}: a whole number from ${least} is wanted`);
  return n;
}

/** The parts of a list with commas, each of which there is; what: how it is called in an error. */
export function list(text, what, known) {
  const chosen = text.split(",");
  for (const each of chosen) {
    if (!known.includes(each))
      throw new WrongOption(`${what} ${each || '""'}: there are ${known.join(", ")}`);
  }
  return [...new Set(chosen)];
}

/**
 * What make() makes of the command line. Prints the usage and ends where --help is asked for, which make() has in
 * `help`; ends with one line where something is wrong.
 */
export function fromCommandLine(usage, make) {
  try {
    const options = make();
    if (!options.help) return options;
    process.stdout.write(usage);
    process.exit(0);
  } catch (error) {
    if (!(error instanceof WrongOption)) throw error;
    process.stderr.write(`bench: ${error.message} (--help says more)\n`);
    process.exit(2);
  }
}
