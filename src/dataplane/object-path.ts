// SPDX-License-Identifier: Apache-2.0
/** Where the BPF object is: below the package, unless the environment names another. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export function objectPathOf(): string {
  return process.env["VNETD_BPF_OBJECT"] ?? path.join(packageRoot(), "build/bpf/vnetd.bpf.o");
}

/** The nearest directory upwards that holds package.json: the checkout, or where it is installed. */
function packageRoot(): string {
  const start = path.dirname(fileURLToPath(import.meta.url));
  for (
    let directory = start;
    directory !== path.dirname(directory);
    directory = path.dirname(directory)
  ) {
    if (existsSync(path.join(directory, "package.json"))) return directory;
  }
  return start;
}
