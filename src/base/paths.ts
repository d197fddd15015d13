// SPDX-License-Identifier: Apache-2.0
/**
 * Where the daemon's files are, unless the command line says otherwise, and what `vnetd run`
 * hands to the daemon. Shared by the command line and the daemon.
 */
export const defaultPaths = {
  runDir: "/run/vnetd",
  stateDir: "/var/lib/vnetd",
  bpffs: "/sys/fs/bpf/vnetd",
  config: "/etc/vnetd/vnetd.yaml",
} as const;

/** How `attach` names the log file to a daemon that it starts (src/log-file.ts). */
export const logFileVariable = "VNETD_LOG_FILE";

/** The argument of src/main.ts's `main`. */
export interface RunOptions {
  runDir: string;
  stateDir: string;
  bpffs: string;
  /** undefined: the default file, which need not be there */
  config?: string;
  /** as typed, ADDR:PORT or "off"; undefined: what the configuration says */
  metricsListen?: string;
  /** as typed, auto, text or json; undefined: what the configuration says */
  logFormat?: string;
}
