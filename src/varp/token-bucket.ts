// SPDX-License-Identifier: Apache-2.0
/**
 * A token bucket: so many actions a second, with a burst. Time is a parameter.
 */
export interface RateLimit {
  perSecond: number;
  burst: number;
}

export class TokenBucket {
  private tokens: number;
  private atMs: number | undefined;

  constructor(private readonly limit: RateLimit) {
    this.tokens = limit.burst;
  }

  /** Takes one token; false when there is none. A clock that steps back gives nothing. */
  take(nowMs: number): boolean {
    if (this.atMs !== undefined && nowMs > this.atMs) {
      const gained = ((nowMs - this.atMs) / 1000) * this.limit.perSecond;
      this.tokens = Math.min(this.limit.burst, this.tokens + gained);
    }
    this.atMs = nowMs;
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }
}
