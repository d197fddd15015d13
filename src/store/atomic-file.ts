// SPDX-License-Identifier: Apache-2.0
/**
 * Replacing a file so that whoever reads it, after a crash at any instant or a full disk, finds
 * the old text or the new one, whole.
 *
 * The new text goes to a temporary file beside it, which is synced before it is renamed over the
 * old one; the directory is synced after. The text before stays as NAME.previous where the file
 * system has hard links. One writer at a time: the state directory's lock sees to that.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { VnetdError } from "../base/errors.js";

/** What is used of node:fs, so that a test can make any step fail. */
export type Files = Pick<
  typeof fs,
  | "openSync"
  | "writeSync"
  | "fsyncSync"
  | "closeSync"
  | "renameSync"
  | "linkSync"
  | "unlinkSync"
  | "readFileSync"
  | "readdirSync"
  | "mkdirSync"
  | "fstatSync"
  | "ftruncateSync"
>;

export const nodeFiles: Files = fs;

const temporarySuffix = ".tmp";
const previousSuffix = ".previous";

export function errnoName(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}

const writeHints: Readonly<Record<string, string>> = {
  ENOSPC: "Free some space on its file system. Nothing was changed.",
  EDQUOT: "Its owner's quota is used up. Nothing was changed.",
  EIO: "Its disk fails: see the kernel's log. Nothing was changed.",
  EROFS: "Its file system is read-only. Nothing was changed.",
  EACCES: "Run the daemon as a user who may write it. Nothing was changed.",
  EPERM: "Run the daemon as a user who may write it. Nothing was changed.",
};

export function unwritable(path: string, error: unknown): VnetdError {
  const name = errnoName(error);
  return new VnetdError("STATE_UNWRITABLE", `${path} cannot be written (${name})`, {
    hint: writeHints[name] ?? "Nothing was changed.",
    place: { source: path },
    cause: error,
  });
}

function tryTo(action: () => void): void {
  try {
    action();
  } catch {
    // what is tried is a courtesy: nothing depends on it
  }
}

type Kept = "kept" | "there was none" | "not kept";

/** Keeps the text before as a second name of the same file. */
function keepPrevious(files: Files, path: string, previous: string): Kept {
  tryTo(() => files.unlinkSync(previous));
  try {
    files.linkSync(path, previous);
    return "kept";
  } catch (error) {
    return errnoName(error) === "ENOENT" ? "there was none" : "not kept";
  }
}

function writeAndSync(files: Files, path: string, text: string): void {
  const fd = files.openSync(
    path,
    fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_TRUNC,
    0o600,
  );
  try {
    const bytes = Buffer.from(text, "utf8");
    for (let written = 0; written < bytes.length;) {
      written += files.writeSync(fd, bytes, written, bytes.length - written);
    }
    files.fsyncSync(fd);
  } finally {
    files.closeSync(fd);
  }
}

export function syncDirectory(files: Files, directory: string): void {
  const fd = files.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    files.fsyncSync(fd);
  } catch (error) {
    // some file systems (9p, FUSE) know no fsync of a directory; their rename is all there is
    if (errnoName(error) !== "EINVAL") throw error;
  } finally {
    files.closeSync(fd);
  }
}

/**
 * Throws STATE_UNWRITABLE, and then the file is what it was (but for one case: the directory's
 * sync failed on a file system without hard links, where the new text stays).
 */
export function replaceFile(files: Files, directory: string, name: string, text: string): void {
  const path = join(directory, name);
  const temporary = path + temporarySuffix;
  const previous = path + previousSuffix;
  let renamed = false;
  let kept: Kept = "not kept";
  try {
    writeAndSync(files, temporary, text);
    kept = keepPrevious(files, path, previous);
    files.renameSync(temporary, path);
    renamed = true;
    syncDirectory(files, directory);
  } catch (error) {
    if (!renamed) tryTo(() => files.unlinkSync(temporary));
    else if (kept === "kept") tryTo(() => files.renameSync(previous, path));
    else if (kept === "there was none") tryTo(() => files.unlinkSync(path));
    throw unwritable(path, error);
  }
}

/** Removes what a crash left half-written. */
export function removeTemporaries(files: Files, directory: string): void {
  for (const name of files.readdirSync(directory)) {
    if (name.endsWith(temporarySuffix)) tryTo(() => files.unlinkSync(join(directory, name)));
  }
}
