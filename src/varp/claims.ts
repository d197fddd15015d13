// SPDX-License-Identifier: Apache-2.0
/**
 * MACs that should live on this host by what the kernel says (a tap's name for its guest, a veth's
 * other end), though they have said nothing yet.
 *
 * In the path: a port came -> wanted() -> VARP request -> nobody answers for waitMs -> due() -> the
 * MAC is entered and announced. Asking first matters: where a running guest is migrated, its port
 * is made on the new host long before it leaves the old one, and to announce it then would cut it off.
 * Who is contradicted, in time or too late, asks again later, since the guest may have moved in the
 * meantime, and then waits longer: the other host may be far away.
 */
import type { LocalMac } from "./mac-queue.js";
import { TokenBucket, type RateLimit } from "./token-bucket.js";

export interface ClaimsOptions {
  /** how long another host has to say that the MAC lives there */
  waitMs: number;
  /** when a MAC that lives elsewhere is asked for again, and how long is waited then */
  againMs: number;
  againWaitMs: number;
  maxPending: number;
  rate: RateLimit;
}

export const claimsDefaults: ClaimsOptions = {
  waitMs: 40,
  againMs: 10_000,
  againWaitMs: 1000,
  maxPending: 4096,
  rate: { perSecond: 200, burst: 200 },
};

export interface DueClaim extends LocalMac {
  askedMs: number;
}

interface Claim extends DueClaim {
  dueMs: number;
  contradicted: boolean;
}

export class Claims {
  private readonly claims = new Map<string, Claim>();
  private readonly bucket: TokenBucket;

  constructor(private readonly options: ClaimsOptions = claimsDefaults) {
    this.bucket = new TokenBucket(options.rate);
  }

  /** True when the MAC is to be asked for now. */
  wanted(of: LocalMac, nowMs: number): boolean {
    const { waitMs, againMs, againWaitMs, maxPending } = this.options;
    const claim = this.claims.get(keyOf(of));
    const isDue =
      claim === undefined
        ? this.claims.size < maxPending
        : claim.contradicted && nowMs >= claim.askedMs + againMs;
    if (!isDue || !this.bucket.take(nowMs)) return false;
    const dueMs = nowMs + (claim === undefined ? waitMs : againWaitMs);
    this.set({ ...of, askedMs: nowMs, dueMs, contradicted: false });
    return true;
  }

  /** Another host says that the MAC lives there. */
  contradicted(of: LocalMac, nowMs: number): void {
    const claim = this.claims.get(keyOf(of));
    if (claim === undefined && this.claims.size >= this.options.maxPending) return;
    const askedMs = claim?.askedMs ?? nowMs;
    this.set({ ...of, askedMs, dueMs: askedMs, contradicted: true });
  }

  /** Its port is gone, or it was heard here. */
  settled(macOfHost: LocalMac): void {
    this.claims.delete(keyOf(macOfHost));
  }

  /** What was asked for and nobody has. */
  due(nowMs: number): DueClaim[] {
    const due = [...this.claims.values()].filter(
      ({ dueMs, contradicted }) => !contradicted && dueMs <= nowMs,
    );
    for (const claim of due) this.settled(claim);
    return due.map(({ handle, mac, askedMs }) => ({ handle, mac, askedMs }));
  }

  /** How long until due() gives something; undefined: nothing is waited for. */
  waitMs(nowMs: number): number | undefined {
    let first: number | undefined;
    for (const { dueMs, contradicted } of this.claims.values())
      if (!contradicted && (first === undefined || dueMs < first)) first = dueMs;
    return first === undefined ? undefined : Math.max(0, first - nowMs);
  }

  private set({ handle, mac, askedMs, dueMs, contradicted }: Claim): void {
    this.claims.set(keyOf({ handle, mac }), { handle, mac, askedMs, dueMs, contradicted });
  }
}

function keyOf({ handle, mac }: LocalMac): string {
  return `${String(handle)} ${mac}`;
}
