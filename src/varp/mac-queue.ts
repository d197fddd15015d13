// SPDX-License-Identifier: Apache-2.0
/**
 * The queue of MACs that are to be announced, or asked for.
 *
 * In the path: LOCAL_NEW event -> push() -> drain() -> messages to the group on every underlay, each about one
 * MAC, or about many where all that must hear it read lists (src/wire/varp-list.ts). A guest that invents MACs
 * keeps no other vnet's waiting: vnets are served in turn, within a message too, so another vnet's moved guest is announced as
 * quickly as ever. Each vnet has room of its own, and those whose messages are lists share more. What does not fit is
 * dropped, and counted by who queues it; the data frames themselves move the entries anyway.
 */
import { MacRoom } from "../wire/varp-list.js";
import { TokenBucket, type RateLimit } from "./token-bucket.js";

export interface MacQueueOptions {
  maxQueuedPerVnet: number;
  /** beyond what each vnet may have, of all vnets whose messages are lists */
  maxShared: number;
  /** messages */
  all: RateLimit;
}

export const macQueueDefaults: MacQueueOptions = {
  maxQueuedPerVnet: 1024,
  maxShared: 65_536,
  all: { perSecond: 1000, burst: 1000 },
};

export interface LocalMac {
  handle: number;
  mac: string;
}

export class MacQueue {
  /** per vnet, in the order in which they are served next; none is empty */
  private readonly queues = new Map<number, Set<string>>();
  private readonly bucket: TokenBucket;
  private total = 0;

  constructor(private readonly options: MacQueueOptions = macQueueDefaults) {
    this.bucket = new TokenBucket(options.all);
  }

  get queued(): number {
    return this.total;
  }

  /** false: the vnet's queue is full, nothing is said of it */
  push({ handle, mac }: LocalMac, isListed = false): boolean {
    const queue = this.queues.get(handle) ?? new Set<string>();
    if (queue.has(mac)) return true;
    const { maxQueuedPerVnet, maxShared } = this.options;
    const shares = isListed && this.total < maxShared;
    if (queue.size >= maxQueuedPerVnet && !shares) return false;
    this.queues.set(handle, queue.add(mac));
    this.total += 1;
    return true;
  }

  /** The messages that may be sent now, each by what it is about: of a vnet that is not listed one MAC. */
  drain(nowMs: number, isListed: (handle: number) => boolean = () => false): LocalMac[][] {
    const out: LocalMac[][] = [];
    while (this.queues.size > 0 && this.bucket.take(nowMs)) out.push(this.next(isListed));
    return out;
  }

  vnetGone(handle: number): void {
    this.total -= this.queues.get(handle)?.size ?? 0;
    this.queues.delete(handle);
  }

  private next(isListed: (handle: number) => boolean): LocalMac[] {
    const message: LocalMac[] = [];
    const room = new MacRoom();
    // a queue that is served comes up again behind all others
    for (const [handle, queue] of this.queues) {
      const listed = isListed(handle);
      if (message.length > 0 && !listed) continue;
      if (!room.take(handle)) break;
      message.push(this.serve(handle, queue));
      if (!listed) break;
    }
    return message;
  }

  private serve(handle: number, queue: Set<string>): LocalMac {
    const mac = first(queue);
    queue.delete(mac);
    this.total -= 1;
    this.queues.delete(handle);
    if (queue.size > 0) this.queues.set(handle, queue);
    return { handle, mac };
  }
}

function first(queue: Set<string>): string {
  for (const mac of queue) return mac;
  throw new Error("an empty queue was kept");
}
