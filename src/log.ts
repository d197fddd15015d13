// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's log: short lines on stderr, `LEVEL text`. The same line is written once in ten
 * seconds at most; how many were held back is said with the next one.
 *
 * A line that strangers can cause, with addresses or names of their choice in it, is given a
 * kind: of each kind a few lines are written, then one in ten seconds, so nobody can fill a log.
 */
import { TokenBucket } from "./varp/token-bucket.js";

export const logLevels = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];
/** What others cause. */
export type LogKind = "too many hosts" | "duplicate host id" | "path" | "send" | "keys";

export interface Log {
  error(text: string): void;
  warn(text: string, kind?: LogKind): void;
  info(text: string, kind?: LogKind): void;
  debug(text: string): void;
}

/** The process's own, which may be told to say more or less. */
export interface AdjustableLog extends Log {
  setLevel(level: LogLevel): void;
}

export interface LogOptions {
  write?: (line: string) => void;
  nowMs?: () => number;
  /** everything is logged, whatever level is set */
  debug?: boolean;
}

const repeatMs = 10_000;
const maxRemembered = 256;
const kindLimit = { perSecond: 0.1, burst: 5 };

export function createLog(options: LogOptions = {}): AdjustableLog {
  let least: LogLevel = options.debug === true ? "debug" : "info";
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const nowMs = options.nowMs ?? ((): number => Math.round(performance.now()));
  const seen = new Map<string, { atMs: number; held: number }>();
  const kinds = new Map<LogKind, { bucket: TokenBucket; held: number }>();
  const sayKind = (level: LogLevel, text: string, kind: LogKind): void => {
    const state = kinds.get(kind) ?? { bucket: new TokenBucket(kindLimit), held: 0 };
    kinds.set(kind, state);
    if (!state.bucket.take(nowMs())) {
      state.held += 1;
      return;
    }
    const more = state.held === 0 ? "" : ` (and ${String(state.held)} more about: ${kind})`;
    state.held = 0;
    write(`${lineOf(level, text)}${more}\n`);
  };
  const say = (level: LogLevel, text: string, kind?: LogKind): void => {
    if (logLevels.indexOf(level) > logLevels.indexOf(least)) return;
    if (kind !== undefined) return sayKind(level, text, kind);
    const line = lineOf(level, text);
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
    warn: (text, kind) => say("warn", text, kind),
    info: (text, kind) => say("info", text, kind),
    debug: (text) => say("debug", text),
    setLevel: (level) => {
      if (options.debug !== true) least = level;
    },
  };
}

function lineOf(level: LogLevel, text: string): string {
  return `${level} ${text.replace(/[\r\n]+/gu, " | ")}`;
}

function forgetFirst(seen: Map<string, unknown>): void {
  const first = seen.keys().next();
  if (first.done !== true) seen.delete(first.value);
}
