// SPDX-License-Identifier: Apache-2.0
/**
 * Which form the log has where the configuration leaves it to us (`auto`): lines on a terminal, in the
 * journal and in the file of a detached daemon, where people read them; JSON where a pipe or a file takes
 * them, as a container's runtime does.
 */
import { fstatSync } from "node:fs";
import type { LogFormat } from "./config/daemon-config.js";
import type { LogForm } from "./log.js";

export interface LogTarget {
  isTerminal: boolean;
  /** systemd's JOURNAL_STREAM names this descriptor */
  isJournal: boolean;
  /** `vnetd attach` opened it for us */
  isOwnFile: boolean;
}

export function logFormOf(format: LogFormat, target: LogTarget): LogForm {
  if (format === "json") return "json";
  if (target.isJournal) return "journal";
  if (target.isOwnFile) return "file";
  return format === "text" || target.isTerminal ? "text" : "json";
}

export function logTarget(
  fd: number,
  { journalStream, ownFile }: { journalStream: string | undefined; ownFile: string | undefined },
): LogTarget {
  return {
    isTerminal: process.stderr.isTTY,
    isJournal: journalStream !== undefined && journalStream === deviceAndInode(fd),
    isOwnFile: ownFile !== undefined,
  };
}

/** As systemd writes it. */
function deviceAndInode(fd: number): string {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${String(dev)}:${String(ino)}`;
  } catch {
    return "";
  }
}
