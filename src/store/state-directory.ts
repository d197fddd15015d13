// SPDX-License-Identifier: Apache-2.0
/**
 * The state directory: what must outlive the daemon and is not in the kernel.
 *
 *   lock         locked for as long as a daemon uses the directory; holds its pid
 *   host.yaml    the host's id, made once
 *   state.yaml   vnets, deleted built-in vnets, attached devices, configured
 *                entries of the MAC table
 *
 * All of the changing state is in one file, so that a configuration of several vnets is taken
 * whole or not at all. It is replaced atomically; `update` throws and changes nothing, in memory
 * or on disk, when that fails. Writes are synchronous: they are rare (a person configures) and
 * an answer must not be given before they are on disk.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { join } from "node:path";
import { VnetdError } from "../base/errors.js";
import {
  errnoName,
  nodeFiles,
  removeTemporaries,
  replaceFile,
  unwritable,
  type Files,
} from "./atomic-file.js";
import {
  emptyState,
  parseHost,
  parseState,
  printHost,
  printState,
  type DaemonState,
} from "./state-file.js";

export type { DaemonState } from "./state-file.js";

/** Native.fileLock: false when another process holds the lock. */
export type FileLock = (fd: number) => boolean;

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;

const lockName = "lock";
const hostName = "host.yaml";
const stateName = "state.yaml";
/** 4096 vnets need about half a megabyte */
const maxFileBytes = 8 << 20;

function makeDirectory(files: Files, path: string): void {
  try {
    files.mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw unwritable(path, error);
  }
}

function lockHolder(files: Files, path: string): string {
  try {
    const pid = /^\d+$/.exec(files.readFileSync(path, "utf8").trim())?.[0];
    return pid === undefined ? "" : ` (pid ${pid})`;
  } catch {
    return "";
  }
}

function takeLock(files: Files, directory: string, fileLock: FileLock): number {
  const path = join(directory, lockName);
  let fd: number;
  try {
    fd = files.openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  } catch (error) {
    throw unwritable(path, error);
  }
  try {
    if (!fileLock(fd)) {
      throw new VnetdError(
        "STATE_LOCKED",
        `another daemon${lockHolder(files, path)} uses ${directory}`,
        {
          hint: "Stop it, or give this one another --state-dir (and --run-dir and --bpffs).",
          place: { source: path },
        },
      );
    }
    files.ftruncateSync(fd, 0);
    files.writeSync(fd, `${process.pid}\n`);
    return fd;
  } catch (error) {
    files.closeSync(fd);
    throw error instanceof VnetdError ? error : unwritable(path, error);
  }
}

/** undefined when the file is not there */
function readText(files: Files, path: string): string | undefined {
  let fd: number;
  try {
    fd = files.openSync(path, constants.O_RDONLY);
  } catch (error) {
    if (errnoName(error) === "ENOENT") return undefined;
    throw unreadable(path, errnoName(error), error);
  }
  try {
    if (files.fstatSync(fd).size > maxFileBytes) throw unreadable(path, "it is too large");
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      files.readFileSync(fd),
    );
  } catch (error) {
    if (error instanceof VnetdError) throw error;
    throw unreadable(
      path,
      error instanceof TypeError ? "it is not UTF-8 text" : errnoName(error),
      error,
    );
  } finally {
    files.closeSync(fd);
  }
}

function remedyFor(path: string): string {
  return path.endsWith(stateName)
    ? `Mend it, or copy ${path}.previous, the state before the last change, over it; without it the daemon starts with no vnets configured.`
    : `Mend it, or move it away: the daemon then makes a new one.`;
}

function unreadable(path: string, why: string, cause?: unknown): VnetdError {
  return new VnetdError("STATE_UNREADABLE", `${path} cannot be used: ${why}`, {
    hint: remedyFor(path),
    place: { source: path },
    cause,
  });
}

/** Adds the remedy to what the parser found. */
function parsed<T>(path: string, text: string, parse: (text: string, source: string) => T): T {
  try {
    return parse(text, path);
  } catch (error) {
    if (!(error instanceof VnetdError)) throw error;
    const hint =
      error.code === "STATE_VERSION"
        ? "Install the vnetd that wrote it, or a newer one."
        : remedyFor(path);
    throw new VnetdError(error.code, `${path} cannot be used: ${error.message}`, {
      hint,
      ...(error.place === undefined ? {} : { place: error.place }),
      cause: error,
    });
  }
}

export class StateDirectory {
  private constructor(
    readonly path: string,
    /** 32 hex digits; the same for as long as the directory lives */
    readonly hostId: string,
    private current: DaemonState,
    private lockFd: number | undefined,
    private readonly files: Files,
  ) {}

  /** Makes the directory where it is missing, locks it and reads it. */
  static open(path: string, fileLock: FileLock, files: Files = nodeFiles): StateDirectory {
    makeDirectory(files, path);
    const lockFd = takeLock(files, path, fileLock);
    try {
      removeTemporaries(files, path);
      const statePath = join(path, stateName);
      const text = readText(files, statePath);
      const state = text === undefined ? emptyState() : parsed(statePath, text, parseState);
      return new StateDirectory(path, StateDirectory.readHostId(path, files), state, lockFd, files);
    } catch (error) {
      files.closeSync(lockFd);
      throw error instanceof VnetdError ? error : unwritable(path, error);
    }
  }

  private static readHostId(directory: string, files: Files): string {
    const path = join(directory, hostName);
    const text = readText(files, path);
    if (text !== undefined) return parsed(path, text, parseHost);
    const hostId = randomBytes(16).toString("hex");
    replaceFile(files, directory, hostName, printHost(hostId));
    return hostId;
  }

  get state(): DeepReadonly<DaemonState> {
    return this.current;
  }

  /**
   * Changes a copy of the state and writes it; only then is it the state. Throws what `change`
   * throws, or STATE_UNWRITABLE, with nothing changed.
   */
  update(change: (draft: DaemonState) => void): void {
    if (this.lockFd === undefined) throw new VnetdError("INTERNAL", `${this.path} is closed`);
    const draft = structuredClone(this.current);
    change(draft);
    const text = printState(draft);
    if (text === printState(this.current)) return;
    replaceFile(this.files, this.path, stateName, text);
    this.current = draft;
  }

  /** Gives the lock back. What was written stays. */
  close(): void {
    if (this.lockFd === undefined) return;
    this.files.closeSync(this.lockFd);
    this.lockFd = undefined;
  }
}
