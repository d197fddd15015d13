// SPDX-License-Identifier: Apache-2.0
/** Reads a configuration that the daemon is to parse: bounded, and UTF-8 or nothing. */
import { open } from "node:fs/promises";
import type { Readable } from "node:stream";
import { maxLineBytes } from "../src/api/contract.js";
import { VnetdError } from "../src/base/errors.js";

/** What names standard input in place of a file. */
export const stdinArgument = "-";

/** It goes to the daemon in one line of JSON, where a line break takes two bytes. */
const maxTextBytes = maxLineBytes / 2;

const idHint =
  "If an id was meant: it is 8 fields of 1 to 4 hex digits between colons, or one such field alone.";

function tooLarge(source: string): VnetdError {
  return new VnetdError("TOO_LARGE", `${source} has more than ${maxTextBytes} bytes`, {
    hint: "Split it.",
    place: { source },
  });
}

async function readBounded(
  chunks: AsyncIterable<Buffer | string>,
  source: string,
): Promise<Buffer> {
  const read: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    const buffer = Buffer.from(chunk);
    bytes += buffer.length;
    if (bytes > maxTextBytes) throw tooLarge(source);
    read.push(buffer);
  }
  return Buffer.concat(read);
}

async function readFile(path: string): Promise<Buffer> {
  const handle = await open(path, "r");
  // the stream closes the handle, at its end or when it is left
  return readBounded(handle.createReadStream({ highWaterMark: 64 << 10 }), path);
}

export async function readConfigurationText(
  path: string,
  stdin: Readable,
): Promise<{ text: string; source: string }> {
  const source = path === stdinArgument ? "standard input" : path;
  let bytes: Buffer;
  try {
    bytes = path === stdinArgument ? await readBounded(stdin, source) : await readFile(path);
  } catch (error) {
    if (error instanceof VnetdError) throw error;
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new VnetdError("FILE_UNREADABLE", `${source} cannot be read (${code})`, {
      hint:
        code === "ENOENT"
          ? `Is the path right? ${idHint}`
          : "Check what it is and who may read it.",
      place: { source },
      cause: error,
    });
  }
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), source };
  } catch (error) {
    throw new VnetdError("FILE_UNREADABLE", `${source} is not UTF-8 text`, {
      hint: "Save it as UTF-8.",
      place: { source },
      cause: error,
    });
  }
}
