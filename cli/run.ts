// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd run`: the one place where the command line reaches into the daemon. The daemon is loaded
 * only here and only then, so that no other command needs the addon or the kernel's features.
 */
import type { RunOptions } from "../src/base/paths.js";

interface DaemonModule {
  /** returns when the daemon has stopped, with an exit code if it was not for a good end */
  main: (options: RunOptions) => Promise<number | void>;
}

export async function runDaemon(options: RunOptions): Promise<number> {
  const url = new URL("../src/main.js", import.meta.url).href;
  const daemon = (await import(url)) as DaemonModule;
  return (await daemon.main(options)) ?? 0;
}
