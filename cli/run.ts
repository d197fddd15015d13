// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd run`: the one place where the command line reaches into the daemon. The daemon is loaded
 * only here and only then, so that no other command needs the addon or the kernel's features.
 */
import type { RunOptions } from "../src/base/paths.js";

/** Returns when the daemon was told to stop. */
export async function runDaemon(options: RunOptions): Promise<void> {
  const daemon = await import("../src/main.js");
  await daemon.main(options);
}
