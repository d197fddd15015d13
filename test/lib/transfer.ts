// SPDX-License-Identifier: Apache-2.0
/** test/lib/transfer.py for TypeScript: short transfers between two places, every byte of which is compared. */
import { fileURLToPath } from "node:url";
import { CommandFailed, DEBIAN_PYTHON, type Background, type RunResult } from "./processes.js";
import type { Place } from "./traffic.js";

const PROGRAM = fileURLToPath(new URL("./transfer.py", import.meta.url));
const argv = (...args: (string | number)[]): string[] => [
  DEBIAN_PYTHON,
  PROGRAM,
  ...args.map(String),
];

/** Sends by TCP, and throws if anything else arrives. */
export async function transfer(
  from: Place,
  to: Place,
  address: string,
  bytes = 3_000_000,
): Promise<void> {
  const { stdout } = await exchange(
    from,
    { to, receive: argv("receive") },
    argv("send", address, bytes),
  );
  if (!stdout.includes(`bytes ${bytes}\n`)) throw new Error(`of ${bytes} bytes: ${stdout}`);
}

export interface SuperDatagrams {
  segmentBytes: number;
  superBytes: number;
  times: number;
}

/** Sends UDP super-frames; returns the lengths of the datagrams in order. */
export async function superDatagrams(
  from: Place,
  to: Place,
  address: string,
  { segmentBytes, superBytes, times }: SuperDatagrams,
): Promise<string[]> {
  const count = times * Math.ceil(superBytes / segmentBytes);
  const { stdout } = await exchange(
    from,
    { to, receive: argv("receive-datagrams", count) },
    argv("send-datagrams", address, segmentBytes, superBytes, times),
  );
  return stdout.split("\n").slice(1).filter(Boolean);
}

async function exchange(
  from: Place,
  { to, receive }: { to: Place; receive: string[] },
  send: readonly string[],
): Promise<RunResult> {
  const receiver: Background = to.spawn(receive);
  await receiver.output(/ready/);
  const sent = await from.tryExec(send);
  const received = await receiver.end();
  if (sent.code !== 0) throw new CommandFailed(send, sent);
  return received;
}
