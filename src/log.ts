// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's log: records on stderr, each an event of src/log-events.ts with a sentence for people and
 * the vnet, host and reason as fields. Written as lines (`LEVEL text`), or as JSON for machines.
 *
 * Nobody can fill a disk: the same sentence is written once in ten seconds, and of each event so many
 * records are written and then one now and then; few of those that strangers can cause. How many were held
 * back is said with the next one, or by flush() when none comes.
 */
import { escapedChar, unsafeText } from "./base/unsafe-text.js";
import { eventSpec, logLevels, type LogEvent, type LogLevel } from "./log-events.js";
import { TokenBucket, type RateLimit } from "./varp/token-bucket.js";

export type { LogEvent, LogLevel } from "./log-events.js";

/** Each is there where the event concerns one. */
export interface LogFields {
  vnet?: string | undefined;
  /** another host, by name or address */
  host?: string | undefined;
  /** of this host */
  device?: string | undefined;
  mac?: string | undefined;
  /** why: a drop reason, an errno, or words */
  reason?: string | undefined;
}

export interface Log {
  say(event: LogEvent, text: string, fields?: LogFields): void;
}

/**
 * text: `LEVEL text`; journal: the same behind the priority's number, which journald takes off; file: behind
 * the time.
 */
export type LogForm = "text" | "journal" | "file" | "json";

/** The process's own, which may be told to say more or less, or otherwise. */
export interface AdjustableLog extends Log {
  set(settings: { level: LogLevel; form: LogForm }): void;
  readonly form: LogForm;
  /** Says what was held back and can be said by now; `all` at the end. */
  flush(all?: boolean): void;
}

export interface LogOptions {
  form?: LogForm;
  write?: (line: string) => void;
  nowMs?: () => number;
  /** the time of day */
  date?: () => Date;
  /** everything is logged, whatever level is set */
  debug?: boolean;
}

const repeatMs = 10_000;
const maxRemembered = 256;
const maxTextChars = 2000;
/** What strangers can cause; the same where it is asked for by level debug; and what they cannot. */
const limits = {
  wire: { perSecond: 0.1, burst: 5 },
  debug: { perSecond: 10, burst: 100 },
  own: { perSecond: 1, burst: 2000 },
} as const satisfies Record<string, RateLimit>;
/** syslog's numbers */
const priorities: Record<LogLevel, number> = { error: 3, warn: 4, info: 6, debug: 7 };

interface LogRecord {
  event: LogEvent;
  text: string;
  fields: LogFields;
  /** how many of its event were not written before it */
  held: number;
  /** what lines say of them */
  more: string;
}

interface EventState {
  bucket: TokenBucket;
  held: number;
}

export function createLog(options: LogOptions = {}): AdjustableLog {
  return new RecordLog(options);
}

class RecordLog implements AdjustableLog {
  form: LogForm;
  private least: LogLevel;
  private readonly seen = new Map<string, { atMs: number; held: number }>();
  private readonly events = new Map<LogEvent, EventState>();
  private readonly write: (line: string) => void;
  private readonly nowMs: () => number;
  private readonly date: () => Date;

  constructor(private readonly options: LogOptions) {
    this.form = options.form ?? "text";
    this.least = options.debug === true ? "debug" : "info";
    this.write = options.write ?? ((line: string) => void process.stderr.write(line));
    this.nowMs = options.nowMs ?? ((): number => Math.round(performance.now()));
    this.date = options.date ?? ((): Date => new Date());
  }

  set({ level, form }: { level: LogLevel; form: LogForm }): void {
    this.form = form;
    if (this.options.debug !== true) this.least = level;
  }

  say(event: LogEvent, text: string, fields: LogFields = {}): void {
    const { level, wire } = eventSpec(event);
    if (logLevels.indexOf(level) > logLevels.indexOf(this.least)) return;
    const now = this.nowMs();
    // what strangers cause has as many texts as they like: to remember those would help nobody
    const repeated = wire === true ? 0 : this.repeated(text, now);
    if (repeated === undefined) return;
    const state = this.stateOf(event);
    if (!state.bucket.take(now)) {
      state.held += 1 + repeated;
      return;
    }
    const held = state.held + repeated;
    state.held = 0;
    const more = held === 0 ? "" : ` (and ${String(held)} more: ${event})`;
    this.put({ event, text, fields, held, more });
  }

  flush(all = false): void {
    const now = this.nowMs();
    for (const [event, state] of this.events) {
      if (state.held === 0 || !(state.bucket.take(now) || all)) continue;
      const { held } = state;
      state.held = 0;
      const text = `${String(held)} more were not written: ${event}`;
      this.put({ event, text, fields: {}, held, more: "" });
    }
  }

  /** How often it was said in between; undefined: it was said just now. */
  private repeated(text: string, now: number): number | undefined {
    const last = this.seen.get(text);
    if (last !== undefined && now - last.atMs < repeatMs) {
      last.held += 1;
      return undefined;
    }
    this.seen.delete(text);
    const [first] = this.seen.keys();
    if (this.seen.size >= maxRemembered && first !== undefined) this.seen.delete(first);
    this.seen.set(text, { atMs: now, held: 0 });
    return last?.held ?? 0;
  }

  private stateOf(event: LogEvent): EventState {
    const known = this.events.get(event);
    if (known !== undefined) return known;
    const { wire, level } = eventSpec(event);
    const limit = wire !== true ? limits.own : level === "debug" ? limits.debug : limits.wire;
    const made = { bucket: new TokenBucket(limit), held: 0 };
    this.events.set(event, made);
    return made;
  }

  private put(record: LogRecord): void {
    this.write(this.form === "json" ? this.jsonOf(record) : this.lineOf(this.form, record));
  }

  private jsonOf({ event, text, fields, held }: LogRecord): string {
    const { level } = eventSpec(event);
    const safe = Object.entries(fields as Record<string, string | undefined>).flatMap(
      ([name, value]) => (value === undefined ? [] : [[name, readable(value)]]),
    );
    const record = {
      ...{ ts: this.date().toISOString(), level, event, msg: readable(text) },
      ...(Object.fromEntries(safe) as LogFields),
      ...(held === 0 ? {} : { held }),
    };
    return `${JSON.stringify(record)}\n`;
  }

  private lineOf(form: LogForm, { event, text, more }: LogRecord): string {
    const { level } = eventSpec(event);
    const before = { text: "", json: "", journal: `<${String(priorities[level])}>`, file: "" };
    if (form === "file") before.file = `${this.date().toISOString()} `;
    return `${before[form]}${level} ${readable(text)}${more}\n`;
  }
}

/** In one line, and nothing that a terminal obeys. */
function readable(text: string): string {
  const cut = text.length > maxTextChars ? `${text.slice(0, maxTextChars)} …` : text;
  return cut.replace(/[\r\n]+/gu, " | ").replace(unsafeText, escapedChar);
}
