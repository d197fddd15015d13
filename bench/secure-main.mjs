// SPDX-License-Identifier: Apache-2.0
/**
 * What bench/secure.mjs and bench/secure-flows.mjs have in common: their options, and what becomes of a table. bench/run-secure
 * starts them twice, in the machine that is measured on with --table, and with --write where docs/performance.md can be written.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { write } from "./report.mjs";

export const say = (text) => process.stderr.write(text);

/** name: of the table in docs/performance.md; measure: its text, given the options; flags: more options, that are on or off */
export async function main(name, measure, flags = []) {
  try {
    const o = options(flags);
    if (o.write !== undefined)
      say(`bench: written to ${write(readFileSync(o.write, "utf8"), name)}\n`);
    else if (o.table !== undefined) writeFileSync(o.table, await measure(o));
    process.exit(0);
  } catch (error) {
    say(`bench: ${error.stack}\n`);
    process.exit(1);
  }
}

function options(flags) {
  const { values } = parseArgs({
    options: {
      table: { type: "string" },
      write: { type: "string" },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "3" },
      ...Object.fromEntries(flags.map((flag) => [flag, { type: "boolean", default: false }])),
    },
  });
  return { ...values, rounds: Number(values.rounds), seconds: Number(values.seconds) };
}
