// SPDX-License-Identifier: Apache-2.0
/**
 * How many announces for another address than its own a host may make.
 *
 * In the path: an announce whose care-of address is not its sender -> allowed() -> LEARN. Limits in
 * the tables are charged to the care-of address, so without this one host could fill a vnet's
 * hosts, or half the table, with addresses that it invents. Bounded: the sender heard longest ago
 * is forgotten when there are too many.
 */
import { TokenBucket, type RateLimit } from "./token-bucket.js";

export const senderLimitsDefaults: { perSender: RateLimit; maxSenders: number } = {
  perSender: { perSecond: 1, burst: 64 },
  maxSenders: 1024,
};

export class SenderLimits {
  private readonly senders = new Map<string, TokenBucket>();

  constructor(private readonly options = senderLimitsDefaults) {}

  allowed(sender: string, nowMs: number): boolean {
    const bucket = this.senders.get(sender) ?? new TokenBucket(this.options.perSender);
    this.senders.delete(sender);
    const oldest = this.senders.keys().next();
    if (this.senders.size >= this.options.maxSenders && oldest.done !== true) {
      this.senders.delete(oldest.value);
    }
    this.senders.set(sender, bucket);
    return bucket.take(nowMs);
  }
}
