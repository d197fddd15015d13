// SPDX-License-Identifier: Apache-2.0
/** The options of `run`, which `attach` hands on to a daemon that it starts. */
import { resolve } from "node:path";
import { defaultPaths, type RunOptions } from "../src/base/paths.js";
import type { Invocation, OptionSpec } from "./command.js";

interface DaemonOption extends OptionSpec {
  /** the environment variable that gives it too */
  variable: string;
}

export const daemonOptions: readonly DaemonOption[] = [
  {
    name: "state-dir",
    value: "DIR",
    describe: `what is kept over restarts (${defaultPaths.stateDir})`,
    variable: "VNETD_STATE_DIR",
    completes: "directory",
  },
  {
    name: "bpffs",
    value: "DIR",
    describe: `where maps and programs are pinned (${defaultPaths.bpffs})`,
    variable: "VNETD_BPFFS",
    completes: "directory",
  },
  {
    name: "config",
    value: "FILE",
    describe: `the daemon's configuration (${defaultPaths.config})`,
    variable: "VNETD_CONFIG",
    completes: "file",
  },
  {
    name: "metrics-listen",
    value: "ADDR:PORT|off",
    describe: "where metrics are served (127.0.0.1:11798)",
    variable: "VNETD_METRICS_LISTEN",
    completes: "none",
  },
  {
    name: "log-format",
    value: "auto|text|json",
    describe: "how the log is written (auto)",
    variable: "VNETD_LOG_FORMAT",
    completes: "none",
  },
];

const isPath = (name: string): boolean => !["metrics-listen", "log-format"].includes(name);

export interface GivenArgument {
  /** "--state-dir" */
  flag: string;
  /** how it was given: the flag, or the environment variable */
  by: string;
  value: string;
}

/** What was given by option or by environment, paths absolute. */
export function givenDaemonArguments(invocation: Invocation): GivenArgument[] {
  return daemonOptions.flatMap(({ name, variable }) => {
    const option = invocation.option(name);
    const value = option ?? (invocation.environment.variables[variable] || undefined);
    if (value === undefined) return [];
    const flag = `--${name}`;
    const by = option === undefined ? variable : flag;
    return [{ flag, by, value: isPath(name) ? resolve(value) : value }];
  });
}

export function daemonPaths(invocation: Invocation): RunOptions {
  const given = new Map(givenDaemonArguments(invocation).map(({ flag, value }) => [flag, value]));
  const config = given.get("--config");
  const metricsListen = given.get("--metrics-listen");
  const logFormat = given.get("--log-format");
  return {
    runDir: resolve(invocation.runDir),
    stateDir: given.get("--state-dir") ?? defaultPaths.stateDir,
    bpffs: given.get("--bpffs") ?? defaultPaths.bpffs,
    ...(config === undefined ? {} : { config }),
    ...(metricsListen === undefined ? {} : { metricsListen }),
    ...(logFormat === undefined ? {} : { logFormat }),
  };
}
