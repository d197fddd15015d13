// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd apply --follow`: a directory is applied when the daemon answers, and again whenever what stands in it has changed,
 * until SIGTERM or SIGINT. Kubernetes changes mounted ConfigMaps while they are read, so what is read must be the same twice before
 * it is used: half of an old and half of a new set of files would delete what is only being moved. Errors end it, and with them
 * comes an exit code that whoever runs the command sees.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { errorParts } from "../src/base/errors.js";

export interface Followed<Directory> {
  read: () => Promise<Directory>;
  apply: (directory: Directory) => Promise<void>;
  note: (text: string) => void;
}

/** How often the files are read; a ConfigMap takes a minute to arrive, so this adds little. */
const readMs = 2_000;
const settleMs = 100;
const daemonMs = 500;

export async function followDirectory<Directory>(followed: Followed<Directory>): Promise<void> {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    await follow(followed, stopping.signal);
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

async function follow<Directory>(
  { read, apply, note }: Followed<Directory>,
  signal: AbortSignal,
): Promise<void> {
  const wait = (ms: number): Promise<void> => sleep(ms, undefined, { signal });
  let applied = "";
  let isWaiting = false;
  while (!signal.aborted) {
    const directory = await read();
    const text = JSON.stringify(directory);
    if (text === applied) {
      await wait(readMs);
      continue;
    }
    await wait(settleMs);
    if (JSON.stringify(await read()) !== text) continue;
    try {
      await apply(directory);
      applied = text;
      isWaiting = false;
    } catch (error) {
      if (errorParts(error).code !== "NO_DAEMON") throw error;
      if (!isWaiting) note("no daemon answers yet: waiting for one");
      isWaiting = true;
      await wait(daemonMs);
    }
  }
}
