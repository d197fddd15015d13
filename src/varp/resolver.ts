// SPDX-License-Identifier: Apache-2.0
/**
 * Decides when a VARP request goes out for a MAC that traffic goes to and that nobody has
 * been heard from.
 *
 * In the path: UNKNOWN_UNICAST event -> wanted() -> request to the group. The frame itself was
 * flooded by the data plane already, so a request that is held back delays nothing but the
 * direct path. Each (vnet, MAC) backs off exponentially; one bucket limits a vnet and one all of
 * them, so that a guest that scans cannot make this host flood the underlay, nor use up another
 * vnet's share. The table is bounded: when it is full the MAC asked for longest ago is forgotten,
 * which costs no more than its back-off.
 */
import { TokenBucket, type RateLimit } from "./token-bucket.js";

export interface ResolverOptions {
  maxPending: number;
  firstDelayMs: number;
  maxDelayMs: number;
  all: RateLimit;
  perVnet: RateLimit;
}

export const resolverDefaults: ResolverOptions = {
  maxPending: 8192,
  firstDelayMs: 500,
  maxDelayMs: 60_000,
  all: { perSecond: 200, burst: 200 },
  perVnet: { perSecond: 50, burst: 50 },
};

interface Pending {
  delayMs: number;
  nextMs: number;
}

export class Resolver {
  private readonly pending = new Map<string, Pending>();
  private readonly vnetBuckets = new Map<number, TokenBucket>();
  private readonly bucket: TokenBucket;

  constructor(private readonly options: ResolverOptions = resolverDefaults) {
    this.bucket = new TokenBucket(options.all);
  }

  get size(): number {
    return this.pending.size;
  }

  /** Traffic goes to a MAC that is not known: true when a request is to be sent now. */
  wanted(handle: number, mac: string, nowMs: number): boolean {
    const key = `${String(handle)} ${mac}`;
    const known = this.pending.get(key);
    if (known !== undefined && nowMs < known.nextMs) return false;
    if (!this.vnetBucket(handle).take(nowMs) || !this.bucket.take(nowMs)) return false;
    const { firstDelayMs, maxDelayMs, maxPending } = this.options;
    const delayMs = known === undefined ? firstDelayMs : Math.min(known.delayMs * 2, maxDelayMs);
    this.pending.delete(key);
    if (this.pending.size >= maxPending) this.forgetOldest();
    this.pending.set(key, { delayMs, nextMs: nowMs + delayMs });
    return true;
  }

  /** The MAC was announced: the next time it is lost it is asked for at once. */
  resolved(handle: number, mac: string): void {
    if (this.pending.size === 0) return;
    this.pending.delete(`${String(handle)} ${mac}`);
  }

  vnetGone(handle: number): void {
    this.vnetBuckets.delete(handle);
    const prefix = `${String(handle)} `;
    for (const key of this.pending.keys()) if (key.startsWith(prefix)) this.pending.delete(key);
  }

  /** Forgets MACs that nobody has asked for since twice their delay. */
  tick(nowMs: number): void {
    for (const [key, { nextMs, delayMs }] of this.pending) {
      if (nowMs > nextMs + delayMs) this.pending.delete(key);
    }
  }

  private forgetOldest(): void {
    const oldest = this.pending.keys().next();
    if (oldest.done !== true) this.pending.delete(oldest.value);
  }

  private vnetBucket(handle: number): TokenBucket {
    let bucket = this.vnetBuckets.get(handle);
    if (bucket === undefined) {
      bucket = new TokenBucket(this.options.perVnet);
      this.vnetBuckets.set(handle, bucket);
    }
    return bucket;
  }
}
