// SPDX-License-Identifier: Apache-2.0
/**
 * Reads files that hold secrets.
 *
 * One that anybody but root or the daemon's user could read or change is refused: what is opened is what
 * is checked, so nothing can be swapped in between. Links are followed, and the file behind them is judged; the
 * directories that the path and the file stand in must not be writable by others, who could put another file
 * there. Errors name files and remedies, never what a file holds.
 */
import * as fs from "node:fs";
import { dirname } from "node:path";
import { VnetdError, type ErrorCode } from "../base/errors.js";
import { errnoName } from "./atomic-file.js";

/** What a file is, for the errors. */
export interface SecretKind {
  code: ErrorCode;
  /** "key": the key file PATH cannot be used, it is too large for a key */
  word: string;
  maxBytes: number;
  /** how another one is made */
  remake: string;
}

const othersMask = 0o077;
const writableMask = 0o022;
const stickyBit = 0o1000;

/** The daemon's own user, on a system that has users. */
const ownUid = (): number => process.geteuid?.() ?? 0;

type Refused = (why: string, hint: string) => VnetdError;

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === ownUid();
}

function checkDirectory(refused: Refused, directory: string, word: string): void {
  const { mode, uid } = fs.statSync(directory);
  const othersMayWrite = (mode & writableMask) !== 0 && (mode & stickyBit) === 0;
  if (!othersMayWrite && isTrusted(uid)) return;
  throw refused(
    `others may put files into ${directory}`,
    `Move the ${word}, or take the right away: chown root ${directory}; chmod go-w ${directory}`,
  );
}

function checkFile(
  refused: Refused,
  path: string,
  { mode, uid }: fs.Stats,
  { word, remake }: SecretKind,
): void {
  const octal = (mode & 0o7777).toString(8).padStart(4, "0");
  if (!isTrusted(uid)) {
    throw refused(
      `it belongs to user ${uid}`,
      `Whoever could read it knows the ${word}: make a new one, or chown root ${path}`,
    );
  }
  if ((mode & othersMask) === 0) return;
  throw refused(
    `others may read or write it (mode ${octal})`,
    `If nobody has read it: chmod 600 ${path}. Else ${remake}.`,
  );
}

/** The bytes of a regular file that fits; undefined: it is not there. The caller wipes them. */
export function readSecretFile(path: string, kind: SecretKind): Buffer | undefined {
  const { word, code, maxBytes, remake } = kind;
  const refused: Refused = (why, hint) =>
    new VnetdError(code, `the ${word} file ${path} cannot be used: ${why}`, {
      hint,
      place: { source: path },
    });
  let fd: number;
  try {
    // not blocking: a FIFO would wait for a writer
    fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY);
  } catch (error) {
    const name = errnoName(error);
    if (name === "ENOENT") return undefined;
    throw refused(`it cannot be read (${name})`, "Check the path and its directories.");
  }
  try {
    const stats = fs.fstatSync(fd);
    if (!stats.isFile()) throw refused("it is no regular file", `Name a ${word} file.`);
    checkFile(refused, path, stats, kind);
    for (const directory of new Set([dirname(path), dirname(fs.realpathSync(path))]))
      checkDirectory(refused, directory, word);
    if (stats.size > maxBytes)
      throw refused(
        `it is too large for a ${word}`,
        `${remake.charAt(0).toUpperCase()}${remake.slice(1)}.`,
      );
    const buffer = Buffer.alloc(maxBytes);
    const length = fs.readSync(fd, buffer, 0, buffer.length, 0);
    return buffer.subarray(0, length);
  } catch (error) {
    if (error instanceof VnetdError) throw error;
    throw refused(`it cannot be read (${errnoName(error)})`, "Check its file system.");
  } finally {
    fs.closeSync(fd);
  }
}
