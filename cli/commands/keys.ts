// SPDX-License-Identifier: Apache-2.0
/** key-gen: the secrets of vnets. No daemon is asked: a key never crosses its socket. */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import {
  defaultKeyName,
  keyIdOf,
  keyPathIn,
  printKeyFile,
  secretBytes,
} from "../../src/base/vnet-key.js";
import type { CommandSpec, Invocation } from "../command.js";
import { daemonOptions, daemonPaths } from "../daemon-options.js";
import { writeKeyFile } from "../key-file.js";

function generateKey(invocation: Invocation): void {
  const named = invocation.option("FILE");
  const path =
    named === undefined
      ? keyPathIn(daemonPaths(invocation).stateDir, defaultKeyName)
      : resolve(named);
  const secret = randomBytes(secretBytes);
  const text = Buffer.from(printKeyFile(secret));
  const keyId = keyIdOf(secret);
  try {
    writeKeyFile(path, text, named === undefined);
  } finally {
    secret.fill(0);
    text.fill(0);
  }
  if (invocation.output.json) return invocation.output.value({ file: path, keyId });
  invocation.output.line(`made ${path}, key id ${keyId}`);
}

export const keyCommands: readonly CommandSpec[] = [
  {
    name: "key-gen",
    describe: "make a new secret for vnets; without FILE the default key of this host",
    positionals: [
      { name: "FILE", describe: "a file that is not there yet", completes: "file", optional: true },
    ],
    options: daemonOptions
      .filter(({ name }) => name === "state-dir")
      .map((option) => ({ ...option, describe: `of the daemon: ${option.describe}` })),
    epilogue:
      "Every host of a vnet needs a copy of one file, with mode 0600. Whoever has it can read and write the vnet.",
    run: generateKey,
  },
];
