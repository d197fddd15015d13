// SPDX-License-Identifier: Apache-2.0
/**
 * What happens in the daemon itself, told to who watches (src/controller/watch.ts): keys, members, peers, and
 * messages that it did not take. Nobody is usually there; then telling costs a look at an empty set.
 */
export interface NewsItem {
  kind: "keys" | "member" | "peer" | "dropped";
  /** of a vnet, or of none */
  handle?: number;
  text: string;
  /** of `dropped` */
  reason?: string;
  direction?: "encap" | "decap";
  /** the message's beginning, and its whole length */
  message?: Uint8Array;
  bytes?: number;
}

export class News {
  private readonly listeners = new Set<(item: NewsItem) => void>();

  /** The item is made only if somebody listens. */
  tell(item: () => NewsItem): void {
    if (this.listeners.size === 0) return;
    const made = item();
    for (const listener of this.listeners) listener(made);
  }

  /** Returns what ends it. */
  listen(listener: (item: NewsItem) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
