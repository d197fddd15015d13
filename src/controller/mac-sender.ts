// SPDX-License-Identifier: Apache-2.0
/**
 * When announces, or requests, leave: the first at once, so that a guest that moves is announced as soon as it is heard, and what
 * comes within a few milliseconds of it together, in lists where those may be sent. While more comes all the time it is gathered
 * for longer, so that lists are full: each is a message that all hosts have to read.
 */
import type { Mac } from "../base/mac.js";
import { MacQueue } from "../varp/mac-queue.js";
import { nowMs, type Context } from "./context.js";
import { gatherMs } from "./hello-lists.js";
import { notSent } from "./refusals.js";
import type { RunningVnet, Vnets } from "./vnets.js";

/** while lists follow one another */
const longestGatherMs = 20;
/** of messages that wait because too many were sent */
const refilledMs = 20;

export interface VnetAndMac {
  vnet: RunningVnet;
  mac: Mac;
}

export interface MacSenderParts {
  vnets: Pick<Vnets, "byHandle">;
  /** whether the vnet's messages may be lists */
  isListed: (vnet: RunningVnet) => boolean;
  /** one message about all of them */
  send: (about: readonly VnetAndMac[]) => void;
}

export class MacSender {
  private readonly queue = new MacQueue();
  private timer: NodeJS.Timeout | undefined;
  private sentMs = -Infinity;
  private waitMs = gatherMs;

  constructor(
    private readonly context: Context,
    private readonly parts: MacSenderParts,
  ) {}

  say(handle: number, mac: Mac): void {
    const vnet = this.parts.vnets.byHandle().get(handle);
    if (vnet === undefined) return;
    if (!this.queue.push({ handle, mac }, this.parts.isListed(vnet)))
      notSent(this.context, { handle }, "varp_rate");
    if (nowMs() - this.sentMs < this.waitMs) return this.plan(this.waitMs);
    this.waitMs = gatherMs;
    this.drain();
  }

  vnetGone(handle: number): void {
    this.queue.vnetGone(handle);
  }

  close(): void {
    clearTimeout(this.timer);
  }

  /** Gives whether there was a list among it. */
  private drain(): boolean {
    const vnets = this.parts.vnets.byHandle();
    const isListed = (handle: number): boolean => {
      const vnet = vnets.get(handle);
      return vnet !== undefined && this.parts.isListed(vnet);
    };
    let hadList = false;
    for (const message of this.queue.drain(nowMs(), isListed)) {
      hadList ||= message.length > 1;
      const about = message.flatMap(({ handle, mac }) => {
        const vnet = vnets.get(handle);
        return vnet === undefined ? [] : [{ vnet, mac }];
      });
      if (about.length > 0) this.parts.send(about);
    }
    this.sentMs = nowMs();
    if (this.queue.queued > 0) this.plan(refilledMs);
    return hadList;
  }

  private plan(afterMs: number): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      const hadList = this.drain();
      this.waitMs = hadList ? Math.min(2 * this.waitMs, longestGatherMs) : gatherMs;
    }, afterMs);
  }
}
