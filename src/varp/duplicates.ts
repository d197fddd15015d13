// SPDX-License-Identifier: Apache-2.0
/**
 * Duplicate addresses: one MAC at two places of a vnet.
 *
 * In the path: MOVED and HELD events, and announces that were refused because the MAC lives here ->
 * evidence -> a report, some seconds later (by then a loop, which looks the same, is known to be one).
 * Evidence is:
 *   - a MAC comes back to a place that it had left, three times within a minute. A guest that is
 *     moved there and back and there again does so twice.
 *   - the data plane holds a MAC (bpf/lib/fdb.h)
 *   - another host announces a MAC, and it is heard here after that, twice. To find out, the MAC is
 *     announced from here in turn: a host that has it no longer lets it go, one that has it says so
 *     again (as hosts defend an address in RFC 5227).
 * What shows nothing for a while is forgotten. All tables are bounded.
 */
export interface Place {
  /** what tells places apart: a host's key where it says hello, else its address; "" is this host */
  id: string;
  /** for people */
  name: string;
}

export const here: Place = { id: "", name: "this host" };

export interface DuplicatesOptions {
  windowMs: number;
  /** without evidence for so long a MAC is forgotten */
  calmMs: number;
  /** between the evidence and the report */
  patienceMs: number;
  returns: number;
  conflicts: number;
  /** how long after an announce the MAC must have been heard here */
  reviewMs: number;
  /** once it is reported, a MAC is announced from here in turn this often at most */
  defendMs: number;
  maxMacs: number;
  maxReviews: number;
}

export const duplicatesDefaults: DuplicatesOptions = {
  windowMs: 60_000,
  calmMs: 30_000,
  patienceMs: 3000,
  returns: 3,
  conflicts: 2,
  reviewMs: 1500,
  defendMs: 10_000,
  maxMacs: 4096,
  maxReviews: 64,
};

export interface Duplicate {
  handle: number;
  mac: string;
  places: string[];
}

interface Suspect {
  handle: number;
  mac: string;
  /** the places that it was at: when it left each, and how often it was seen there; the last is last */
  places: Map<string, { name: string; leftMs: number | undefined; times: number }>;
  returnsMs: number[];
  conflictsMs: number[];
  held: boolean;
  evidentMs: number | undefined;
  reported: boolean;
  lastMs: number;
  defendedMs: number;
  /** an announce that was refused, and is to be looked at again */
  refusedMs: number | undefined;
}

const maxPlaces = 4;

export class Duplicates {
  private readonly suspects = new Map<string, Suspect>();

  constructor(private readonly options: DuplicatesOptions = duplicatesDefaults) {}

  get size(): number {
    return this.suspects.size;
  }

  moved(handle: number, mac: string, from: Place, to: Place, nowMs: number): void {
    if (from.id === to.id) return;
    const suspect = this.suspect(handle, mac, nowMs);
    const { windowMs } = this.options;
    const target = suspect.places.get(to.id);
    this.enter(suspect, from, nowMs);
    this.enter(suspect, to, undefined);
    const came = target?.leftMs !== undefined && nowMs - target.leftMs <= windowMs;
    if (came) suspect.returnsMs.push(nowMs);
    this.weigh(suspect, nowMs);
  }

  /** The data plane does not follow it any more: it stays at one place and is seen at another. */
  held(handle: number, mac: string, at: Place, also: Place, nowMs: number): void {
    if (at.id === also.id) return;
    const suspect = this.suspect(handle, mac, nowMs);
    this.enter(suspect, at, nowMs);
    this.enter(suspect, also, nowMs);
    suspect.held = true;
    this.weigh(suspect, nowMs);
  }

  /** `by` announced a MAC that lives here. */
  refused(handle: number, mac: string, by: Place, nowMs: number): void {
    if (by.id === here.id) return;
    const suspect = this.suspect(handle, mac, nowMs);
    this.enter(suspect, here, nowMs);
    this.enter(suspect, by, nowMs);
    suspect.refusedMs ??= nowMs;
  }

  /**
   * MACs whose refused announce is to be looked at now. The caller answers each with confirm(), and
   * announces it from here when that says so.
   */
  reviews(nowMs: number): { handle: number; mac: string; refusedMs: number }[] {
    const out: { handle: number; mac: string; refusedMs: number }[] = [];
    for (const { handle, mac, refusedMs } of this.suspects.values()) {
      if (refusedMs === undefined || nowMs - refusedMs < this.options.reviewMs) continue;
      out.push({ handle, mac, refusedMs });
      if (out.length >= this.options.maxReviews) break;
    }
    return out;
  }

  /** Whether the MAC was heard here after the announce. True: announce it from here. */
  confirm(handle: number, mac: string, heardHere: boolean, nowMs: number): boolean {
    const suspect = this.suspects.get(keyOf(handle, mac));
    if (suspect === undefined) return false;
    suspect.refusedMs = undefined;
    if (!heardHere) return false;
    suspect.conflictsMs.push(nowMs);
    suspect.lastMs = nowMs;
    this.weigh(suspect, nowMs);
    if (suspect.reported && nowMs - suspect.defendedMs < this.options.defendMs) return false;
    suspect.defendedMs = nowMs;
    return true;
  }

  /**
   * What is reported from now on, and what is not any more. idNow: what tells the place apart by now, since who was an
   * address may have said hello by then. Paths to one host are one place, and what was seen there is forgotten.
   */
  tick(
    nowMs: number,
    idNow: (handle: number, id: string) => string = (_handle, id) => id,
  ): { reported: Duplicate[]; ended: Duplicate[] } {
    const { calmMs, patienceMs } = this.options;
    const reported: Duplicate[] = [];
    const ended: Duplicate[] = [];
    for (const [key, suspect] of this.suspects) {
      if (nowMs - suspect.lastMs > calmMs) {
        this.suspects.delete(key);
        if (suspect.reported) ended.push(duplicateOf(suspect));
        continue;
      }
      const { evidentMs } = suspect;
      if (suspect.reported || evidentMs === undefined || nowMs - evidentMs < patienceMs) continue;
      if (isOnePlace(suspect, idNow)) {
        this.suspects.delete(key);
        continue;
      }
      suspect.reported = true;
      reported.push(duplicateOf(suspect));
    }
    return { reported, ended };
  }

  list(): Duplicate[] {
    return [...this.suspects.values()].filter(({ reported }) => reported).map(duplicateOf);
  }

  /** A loop makes every MAC look like a duplicate: what was gathered in the vnet says nothing. */
  forgetVnet(handle: number): void {
    for (const [key, suspect] of this.suspects)
      if (suspect.handle === handle) this.suspects.delete(key);
  }

  handles(): Set<number> {
    return new Set([...this.suspects.values()].map(({ handle }) => handle));
  }

  private suspect(handle: number, mac: string, nowMs: number): Suspect {
    const key = keyOf(handle, mac);
    const known = this.suspects.get(key);
    // the longest silent is the first, and goes when there are too many
    this.suspects.delete(key);
    if (this.suspects.size >= this.options.maxMacs) this.forgetFirst();
    const suspect = known ?? {
      handle,
      mac,
      places: new Map(),
      returnsMs: [],
      conflictsMs: [],
      held: false,
      evidentMs: undefined,
      reported: false,
      lastMs: nowMs,
      defendedMs: -Infinity,
      refusedMs: undefined,
    };
    suspect.lastMs = nowMs;
    this.suspects.set(key, suspect);
    return suspect;
  }

  private enter(suspect: Suspect, place: Place, leftMs: number | undefined): void {
    const known = suspect.places.get(place.id);
    suspect.places.delete(place.id);
    if (suspect.places.size >= maxPlaces) {
      const first = suspect.places.keys().next();
      if (first.done !== true) suspect.places.delete(first.value);
    }
    const times = (known?.times ?? 0) + 1;
    suspect.places.set(place.id, { name: place.name, leftMs: leftMs ?? known?.leftMs, times });
  }

  private weigh(suspect: Suspect, nowMs: number): void {
    const { windowMs, returns, conflicts } = this.options;
    const recent = (times: number[]): number[] =>
      times.filter((at) => nowMs - at <= windowMs).slice(-Math.max(returns, conflicts));
    suspect.returnsMs = recent(suspect.returnsMs);
    suspect.conflictsMs = recent(suspect.conflictsMs);
    const evident =
      suspect.held ||
      suspect.returnsMs.length >= returns ||
      suspect.conflictsMs.length >= conflicts ||
      suspect.returnsMs.length + suspect.conflictsMs.length >= returns;
    if (evident) suspect.evidentMs ??= nowMs;
  }

  private forgetFirst(): void {
    const first = this.suspects.keys().next();
    if (first.done !== true) this.suspects.delete(first.value);
  }
}

function keyOf(handle: number, mac: string): string {
  return `${String(handle)} ${mac}`;
}

function isOnePlace(
  { handle, places }: Suspect,
  idNow: (handle: number, id: string) => string,
): boolean {
  return places.size > 1 && new Set([...places.keys()].map((id) => idNow(handle, id))).size === 1;
}

function duplicateOf({ handle, mac, places }: Suspect): Duplicate {
  // where it was once it may have come from, before
  const often = [...places.values()].filter(({ times }) => times > 1);
  const named = often.length > 1 ? often : [...places.values()];
  return { handle, mac, places: named.map(({ name }) => name).sort() };
}
