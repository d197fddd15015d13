// SPDX-License-Identifier: Apache-2.0
/** A key on the command line: a file, or the name of a key of the daemon's host. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Invocation } from "./command.js";

/** A path is the daemon's to open, which has another working directory. */
export function keyArgument(invocation: Invocation, text: string): string {
  if (text.includes("/")) return resolve(text);
  if (existsSync(text)) {
    invocation.output.note(
      `${text} is taken for the name of a key of this host; write ./${text} for the file`,
    );
  }
  return text;
}
