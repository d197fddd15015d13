// SPDX-License-Identifier: Apache-2.0
/**
 * Keeps the log file of a detached daemon bounded: what has grown beyond the limit becomes FILE.1,
 * in place of the one before. Only the file that `vnetd attach` opened for this daemon's stderr
 * is touched, never what a person redirected stderr to.
 */
import { copyFileSync, fstatSync, ftruncateSync, statSync } from "node:fs";

export const maxLogFileBytes = 1 << 20;

export interface LogFile {
  path: string;
  /** open for appending; the daemon's stderr */
  fd: number;
  maxBytes?: number;
}

/** Called after each line. A disk that is full or a file that is gone loses the log, no more. */
export function boundLogFile({ path, fd, maxBytes = maxLogFileBytes }: LogFile): void {
  try {
    const open = fstatSync(fd);
    if (!open.isFile() || open.size <= maxBytes) return;
    const named = statSync(path);
    if (named.ino !== open.ino || named.dev !== open.dev) return;
    try {
      copyFileSync(path, `${path}.1`);
    } finally {
      ftruncateSync(fd, 0);
    }
  } catch {
    // There is nowhere left to say so.
  }
}
