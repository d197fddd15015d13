// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's log: short lines on stderr, `LEVEL text`. The same line is written once in ten
 * seconds at most; how many were held back is said with the next one.
 */
export type LogLevel = "error" | "warn" | "info" | "debug";

export interface Log {
  error(text: string): void;
  warn(text: string): void;
  info(text: string): void;
  debug(text: string): void;
}

export interface LogOptions {
  write?: (line: string) => void;
  nowMs?: () => number;
  debug?: boolean;
}

const repeatMs = 10_000;
const maxRemembered = 256;

export function createLog(options: LogOptions = {}): Log {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const nowMs = options.nowMs ?? ((): number => Math.round(performance.now()));
  const seen = new Map<string, { atMs: number; held: number }>();
  const say = (level: LogLevel, text: string): void => {
    const line = `${level} ${text.replace(/[\r\n]+/gu, " | ")}`;
    const now = nowMs();
    const last = seen.get(line);
    if (last !== undefined && now - last.atMs < repeatMs) {
      last.held += 1;
      return;
    }
    seen.delete(line);
    if (seen.size >= maxRemembered) forgetFirst(seen);
    seen.set(line, { atMs: now, held: 0 });
    const held = last?.held ?? 0;
    write(held === 0 ? `${line}\n` : `${line} (${String(held)} more times)\n`);
  };
  return {
    error: (text) => say("error", text),
    warn: (text) => say("warn", text),
    info: (text) => say("info", text),
    debug: (text) => (options.debug === true ? say("debug", text) : undefined),
  };
}

function forgetFirst(seen: Map<string, unknown>): void {
  const first = seen.keys().next();
  if (first.done !== true) seen.delete(first.value);
}
