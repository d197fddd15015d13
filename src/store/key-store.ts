// SPDX-License-Identifier: Apache-2.0
/**
 * Reads the keys of vnets: by an absolute path, or by a name, which is looked for in the
 * directory of systemd's credentials ($CREDENTIALS_DIRECTORY) and then in STATE_DIR/keys.
 *
 * A file that anybody but root or the daemon's user could read or change is refused: what is
 * opened is what is checked, so nothing can be swapped in between. Links are followed, and the file
 * behind them is judged; the directories that the path and the file stand in must not be writable
 * by others, who could put another file there. Errors name files and remedies, never what a file holds.
 */
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import { VnetdError } from "../base/errors.js";
import {
  defaultKeyName,
  keyPathIn,
  maxKeyFileBytes,
  parseKeyFile,
  type VnetKey,
} from "../base/vnet-key.js";
import { errnoName } from "./atomic-file.js";

export interface KeyPlaces {
  stateDir: string;
  /** $CREDENTIALS_DIRECTORY, where systemd has set it */
  credentialsDir?: string | undefined;
}

const othersMask = 0o077;
const writableMask = 0o022;
const stickyBit = 0o1000;

/** The daemon's own user, on a system that has users. */
const ownUid = (): number => process.geteuid?.() ?? 0;

function refused(path: string, why: string, hint: string): VnetdError {
  return new VnetdError("BAD_KEY", `the key file ${path} cannot be used: ${why}`, {
    hint,
    place: { source: path },
  });
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === ownUid();
}

function checkDirectory(path: string, directory: string): void {
  const { mode, uid } = fs.statSync(directory);
  const othersMayWrite = (mode & writableMask) !== 0 && (mode & stickyBit) === 0;
  if (!othersMayWrite && isTrusted(uid)) return;
  throw refused(
    path,
    `others may put files into ${directory}`,
    `Move the key, or take the right away: chown root ${directory}; chmod go-w ${directory}`,
  );
}

function checkFile(path: string, { mode, uid }: fs.Stats): void {
  const octal = (mode & 0o7777).toString(8).padStart(4, "0");
  if (!isTrusted(uid)) {
    throw refused(
      path,
      `it belongs to user ${uid}`,
      `Whoever could read it knows the key: make a new one, or chown root ${path}`,
    );
  }
  if ((mode & othersMask) === 0) return;
  throw refused(
    path,
    `others may read or write it (mode ${octal})`,
    `If nobody has read it: chmod 600 ${path}. Else make a new one with vnetd key-gen.`,
  );
}

/** The bytes of a regular file that fits; undefined: it is not there. The caller wipes them. */
function readChecked(path: string): Buffer | undefined {
  let fd: number;
  try {
    // not blocking: a FIFO would wait for a writer
    fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY);
  } catch (error) {
    const name = errnoName(error);
    if (name === "ENOENT") return undefined;
    throw refused(path, `it cannot be read (${name})`, "Check the path and its directories.");
  }
  try {
    const stats = fs.fstatSync(fd);
    if (!stats.isFile()) throw refused(path, "it is no regular file", "Name a key file.");
    checkFile(path, stats);
    for (const directory of new Set([dirname(path), dirname(fs.realpathSync(path))]))
      checkDirectory(path, directory);
    if (stats.size > maxKeyFileBytes)
      throw refused(path, "it is too large for a key", "`vnetd key-gen FILE` makes a key.");
    const buffer = Buffer.alloc(maxKeyFileBytes);
    const length = fs.readSync(fd, buffer, 0, buffer.length, 0);
    return buffer.subarray(0, length);
  } catch (error) {
    if (error instanceof VnetdError) throw error;
    throw refused(path, `it cannot be read (${errnoName(error)})`, "Check its file system.");
  } finally {
    fs.closeSync(fd);
  }
}

export class KeyStore {
  constructor(private readonly places: KeyPlaces) {}

  /** Where the key of a vnet is looked for, in this order; null: the host's default key. */
  pathsOf(key: string | null): string[] {
    if (key?.startsWith("/") === true) return [key];
    const name = key ?? defaultKeyName;
    const { credentialsDir, stateDir } = this.places;
    const own = keyPathIn(stateDir, name);
    return credentialsDir === undefined ? [own] : [join(credentialsDir, name), own];
  }

  /** Reads it anew each time, so that a key that was replaced is seen. Throws NO_KEY or BAD_KEY. */
  read(key: string | null): VnetKey {
    const paths = this.pathsOf(key);
    for (const path of paths) {
      const bytes = readChecked(path);
      if (bytes === undefined) continue;
      try {
        return parseKeyFile(bytes, path);
      } finally {
        bytes.fill(0);
      }
    }
    throw this.missing(key, paths);
  }

  private missing(key: string | null, paths: readonly string[]): VnetdError {
    const wanted = paths.at(-1) ?? "";
    const what = key === null ? "this host has no default key" : "the vnet's key is not there";
    return new VnetdError("NO_KEY", `${what}: no file ${paths.join(", nor ")}`, {
      hint:
        `On the first host of the vnet: vnetd key-gen ${wanted}` +
        `; on all others: copy that file to the same place, mode 0600.`,
      place: { source: wanted },
    });
  }
}
