// SPDX-License-Identifier: Apache-2.0
/**
 * Hosts that have a vnet with another level, suite or key than this host, for people: what each of them says, until it
 * says something else or nothing any more. Anyone can say such things, so the table is bounded, names are what the decoder made
 * printable, and nothing but a line for people follows from it. Pure: time is a parameter.
 */
export interface Difference {
  handle: number;
  /** host id, 32 hex digits */
  host: string;
  text: string;
}

const maxDifferences = 1024;
const maxOfVnet = 32;

export class Differences {
  private readonly seen = new Map<string, Difference & { atMs: number }>();

  constructor(public keptMs: number) {}

  /** True: it was not known, or it was another. */
  note(difference: Difference, nowMs: number): boolean {
    const key = keyOf(difference);
    const known = this.seen.get(key);
    if (known === undefined && !this.makeRoom(difference.handle)) return false;
    this.seen.set(key, { ...difference, atMs: nowMs });
    return known?.text !== difference.text;
  }

  /** A vnet has room of its own; what was said longest ago goes first. */
  private makeRoom(handle: number): boolean {
    const own = [...this.seen].filter(([, each]) => each.handle === handle);
    const [oldest] = own.sort(([, one], [, other]) => one.atMs - other.atMs);
    if (own.length >= maxOfVnet && oldest !== undefined) this.seen.delete(oldest[0]);
    return this.seen.size < maxDifferences;
  }

  settled(handle: number, host: string): void {
    this.seen.delete(keyOf({ handle, host }));
  }

  vnetGone(handle: number): void {
    for (const [key, each] of this.seen) if (each.handle === handle) this.seen.delete(key);
  }

  list(nowMs: number): Difference[] {
    for (const [key, { atMs }] of this.seen) if (nowMs - atMs > this.keptMs) this.seen.delete(key);
    return [...this.seen.values()];
  }

  ofVnet(handle: number, nowMs: number): Difference[] {
    return this.list(nowMs).filter((each) => each.handle === handle);
  }
}

const keyOf = ({ handle, host }: { handle: number; host: string }): string =>
  `${String(handle)} ${host}`;
