// SPDX-License-Identifier: Apache-2.0
/**
 * What the daemon counts of its own work, for the metrics (docs/metrics.md): VARP messages by kind and
 * verdict, and how its configuration was taken. Words are of fixed sets, so that the tables are bounded. What
 * the data plane counts is in the maps.
 */
import type { VarpKind } from "../wire/hello.js";

/** Numbers by words; words have no space in them. */
export class Tally {
  private readonly numbers = new Map<string, number>();

  add(...words: string[]): void {
    const key = words.join(" ");
    this.numbers.set(key, (this.numbers.get(key) ?? 0) + 1);
  }

  rows(): { words: string[]; count: number }[] {
    return [...this.numbers].map(([key, count]) => ({ words: key.split(" "), count }));
  }
}

export class Counts {
  /** kind, verdict */
  readonly received = new Tally();
  /** kind */
  readonly sent = new Tally();
  /** verdict */
  readonly reloads = new Tally();
  /** what the device is (HookOwner) */
  readonly hooksRemoved = new Tally();
  /** how the configuration was taken the last time, and when it was taken well, in seconds since 1970 */
  config = { ok: true, takenSeconds: Math.floor(Date.now() / 1000) };
  /** of the message that is looked at: none, or one */
  private verdicts: string[] = [];

  /** One message that came in: what is said of it while it is looked at counts, the first word of all. */
  message(kind: VarpKind, look: () => void): void {
    this.verdicts = [];
    try {
      look();
      this.judged("taken");
    } finally {
      this.received.add(kind, this.verdicts[0] ?? "error");
    }
  }

  judged(verdict: string): void {
    if (this.verdicts.length === 0) this.verdicts.push(verdict);
  }

  /** The configuration was read again: `ok`, or it was refused and the one before is kept. */
  reloaded(ok: boolean): void {
    this.reloads.add(ok ? "ok" : "refused");
    const takenSeconds = ok ? Math.floor(Date.now() / 1000) : this.config.takenSeconds;
    this.config = { ok, takenSeconds };
  }
}
