// SPDX-License-Identifier: Apache-2.0
/**
 * MACs that should live on this host by what the kernel says (a tap's name for its guest, a veth's
 * other end), though they have said nothing yet.
 *
 * In the path: a port came -> wanted() -> VARP request -> nobody answers for waitMs -> due() -> the
 * MAC is entered and announced. Asking first matters: where a running guest is migrated, its port
 * is made on the new host long before it leaves the old one, and to announce it then would cut it off.
 * Who is contradicted asks again later, since the guest may have moved in the meantime.
 */
import type { LocalMac } from "./announcer.js";
import { TokenBucket, type RateLimit } from "./token-bucket.js";

export interface ClaimsOptions {
  /** how long another host has to say that the MAC lives there */
  waitMs: number;
  /** when a MAC that lives elsewhere is asked for again */
  againMs: number;
  maxPending: number;
  rate: RateLimit;
}

export const claimsDefaults: ClaimsOptions = {
  waitMs: 40,
  againMs: 10_000,
  maxPending: 4096,
  rate: { perSecond: 200, burst: 200 },
};

export interface DueClaim extends LocalMac {
  askedMs: number;
}

interface Claim extends DueClaim {
  contradicted: boolean;
}

export class Claims {
  /** in the order in which they were asked for */
  private readonly claims = new Map<string, Claim>();
  private readonly bucket: TokenBucket;

  constructor(private readonly options: ClaimsOptions = claimsDefaults) {
    this.bucket = new TokenBucket(options.rate);
  }

  /** True when the MAC is to be asked for now. */
  wanted({ handle, mac }: LocalMac, nowMs: number): boolean {
    const key = keyOf({ handle, mac });
    const claim = this.claims.get(key);
    if (claim !== undefined) {
      if (!claim.contradicted || nowMs < claim.askedMs + this.options.againMs) return false;
    } else if (this.claims.size >= this.options.maxPending) {
      return false;
    }
    if (!this.bucket.take(nowMs)) return false;
    this.claims.delete(key);
    this.claims.set(key, { handle, mac, askedMs: nowMs, contradicted: false });
    return true;
  }

  /** Another host says that the MAC lives there. */
  contradicted(macOfHost: LocalMac): void {
    const claim = this.claims.get(keyOf(macOfHost));
    if (claim !== undefined) claim.contradicted = true;
  }

  /** Its port is gone, or it was heard here. */
  settled(macOfHost: LocalMac): void {
    this.claims.delete(keyOf(macOfHost));
  }

  /** What was asked for and nobody has. */
  due(nowMs: number): DueClaim[] {
    const due: DueClaim[] = [];
    for (const [key, { handle, mac, askedMs, contradicted }] of this.claims) {
      if (contradicted) continue;
      if (nowMs < askedMs + this.options.waitMs) break;
      this.claims.delete(key);
      due.push({ handle, mac, askedMs });
    }
    return due;
  }

  /** How long until due() may give something; undefined: nothing is waited for. */
  waitMs(nowMs: number): number | undefined {
    for (const { askedMs, contradicted } of this.claims.values())
      if (!contradicted) return Math.max(0, askedMs + this.options.waitMs - nowMs);
    return undefined;
  }
}

function keyOf({ handle, mac }: LocalMac): string {
  return `${String(handle)} ${mac}`;
}
