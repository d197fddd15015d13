// SPDX-License-Identifier: Apache-2.0
/**
 * The queue of announces for MACs that appeared on this host.
 *
 * In the path: LOCAL_NEW event -> push() -> drain() -> announce to the group on every underlay.
 * The first announce leaves at once. A guest that invents MACs fills no more than its own vnet's
 * queue: vnets are served in turn, so another vnet's moved guest is announced as quickly as ever.
 * What does not fit is dropped, and counted by who queues it; the data frames themselves move the entries anyway.
 */
import { TokenBucket, type RateLimit } from "./token-bucket.js";

export interface AnnouncerOptions {
  maxQueuedPerVnet: number;
  all: RateLimit;
}

export const announcerDefaults: AnnouncerOptions = {
  maxQueuedPerVnet: 1024,
  all: { perSecond: 1000, burst: 1000 },
};

export interface LocalMac {
  handle: number;
  mac: string;
}

export class Announcer {
  /** per vnet, in the order in which they are served next */
  private readonly queues = new Map<number, Set<string>>();
  private readonly bucket: TokenBucket;

  constructor(private readonly options: AnnouncerOptions = announcerDefaults) {
    this.bucket = new TokenBucket(options.all);
  }

  get queued(): number {
    let total = 0;
    for (const queue of this.queues.values()) total += queue.size;
    return total;
  }

  /** false: the vnet's queue is full, it is not announced */
  push({ handle, mac }: LocalMac): boolean {
    let queue = this.queues.get(handle);
    if (queue === undefined) {
      queue = new Set();
      this.queues.set(handle, queue);
    }
    if (queue.size >= this.options.maxQueuedPerVnet) return queue.has(mac);
    queue.add(mac);
    return true;
  }

  /** What may be announced now, one of each vnet in turn. */
  drain(nowMs: number): LocalMac[] {
    const out: LocalMac[] = [];
    for (let next = this.queues.entries().next(); next.done !== true;) {
      const [handle, queue] = next.value;
      if (!this.bucket.take(nowMs)) break;
      const mac = first(queue);
      queue.delete(mac);
      this.queues.delete(handle);
      if (queue.size > 0) this.queues.set(handle, queue);
      out.push({ handle, mac });
      next = this.queues.entries().next();
    }
    return out;
  }

  vnetGone(handle: number): void {
    this.queues.delete(handle);
  }
}

/** Queues in the map are never empty. */
function first(queue: Set<string>): string {
  for (const mac of queue) return mac;
  throw new Error("an empty queue was kept");
}
