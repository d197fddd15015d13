// SPDX-License-Identifier: Apache-2.0
/**
 * Loads the native addon, the only module that does.
 *
 * The binary is build/addon/vnetd.node below the package's root, which is the nearest directory
 * upwards that holds a package.json: so it is found from src/native/load.ts (tests) and from
 * dist/src/native/load.js (installed) alike. Loading is put off until the first use, so that
 * importing a module that may need it costs nothing and works where it is not built.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { VnetdError } from "../base/errors.js";
import type { Native } from "./contract.js";

const relativePath = "build/addon/vnetd.node";
const require = createRequire(import.meta.url);

let loaded: Native | undefined;

/** The addon; the same object every time. Throws a VnetdError that says what to do. */
export function loadNative(): Native {
  loaded ??= loadFrom(join(packageRoot(), relativePath));
  return loaded;
}

/** Exported for the tests of its errors. */
export function loadFrom(path: string): Native {
  if (!existsSync(path)) {
    throw new VnetdError("INTERNAL", `the native addon is missing: ${path}`, {
      hint: "Build it with `make all`.",
    });
  }
  try {
    return require(path) as Native;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new VnetdError("INTERNAL", `the native addon cannot be loaded: ${reason}`, {
      hint:
        "It needs the libraries libbpf.so.1 and libmnl.so.0 (Debian: libbpf1 and libmnl0); " +
        "when they are there build it again with `make clean all`.",
      cause: error,
    });
  }
}

function packageRoot(): string {
  const start = dirname(fileURLToPath(import.meta.url));
  for (let directory = start; ; directory = dirname(directory)) {
    if (existsSync(join(directory, "package.json"))) return directory;
    if (directory === dirname(directory)) return start;
  }
}
