// SPDX-License-Identifier: Apache-2.0
/**
 * Writes a new key file: whole or not at all, readable for its owner alone from its first instant,
 * and never over a file that is there.
 */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { dirname } from "node:path";
import { VnetdError } from "../src/base/errors.js";

const ownerOnly = 0o600;
const directoryMode = 0o700;

function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

function exists(path: string): VnetdError {
  return new VnetdError("KEY_EXISTS", `${path} is there already, and is not overwritten`, {
    hint: "A key that is lost cannot be had again. Give another FILE, or move this one away first.",
    place: { source: path },
  });
}

function unwritable(path: string, error: unknown): VnetdError {
  return new VnetdError("FILE_UNWRITABLE", `${path} cannot be written (${errnoOf(error)})`, {
    hint: "Check its directory, and who may write there. No key was made.",
    place: { source: path },
    cause: error,
  });
}

function writeNew(path: string, text: Buffer): void {
  const { O_WRONLY, O_CREAT, O_EXCL } = fs.constants;
  const fd = fs.openSync(path, O_WRONLY | O_CREAT | O_EXCL, ownerOnly);
  try {
    // whatever the umask took away
    fs.fchmodSync(fd, ownerOnly);
    for (let written = 0; written < text.length;)
      written += fs.writeSync(fd, text, written, text.length - written);
    fs.fsyncSync(fd);
  } catch (error) {
    fs.rmSync(path, { force: true });
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(dirname(path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    fs.fsyncSync(fd);
  } catch (error) {
    // some file systems (9p, FUSE) know no fsync of a directory
    if (errnoOf(error) !== "EINVAL") throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** Gives the file its name only once it is whole: link(2) never replaces a file. */
function linkNew(path: string, text: Buffer): void {
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  writeNew(temporary, text);
  try {
    fs.linkSync(temporary, path);
  } catch (error) {
    // file systems without hard links: made in place, which only a crash can see half done
    if (!["EPERM", "EOPNOTSUPP", "EMLINK", "ENOSYS"].includes(errnoOf(error))) throw error;
    writeNew(path, text);
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

/** makeDirectory: the file's own directory is made where it is missing, for its owner alone. */
export function writeKeyFile(path: string, text: Buffer, makeDirectory: boolean): void {
  try {
    if (makeDirectory) fs.mkdirSync(dirname(path), { recursive: true, mode: directoryMode });
    linkNew(path, text);
    syncDirectory(path);
  } catch (error) {
    throw errnoOf(error) === "EEXIST" ? exists(path) : unwritable(path, error);
  }
}
