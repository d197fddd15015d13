// SPDX-License-Identifier: Apache-2.0
/**
 * Whether the path that unicast goes by still leads anywhere, for hosts that have another.
 *
 * A LAN can die without the carrier going away, and hellos are rare. So a path that is sent to and
 * not heard is asked (a hello that wants an answer) once a tick, and given up when that was in
 * vain. An idle path is left alone, and so is one that answers.
 */
export interface PathTimes {
  /** when unicast was last sent to the host, and when this path was last heard */
  sentMs: number;
  heardMs: number;
}

export type PathVerdict = "fine" | "ask" | "dead";

const sendingMs = 2000;
const silentMs = 1000;
/** ticks of a second */
const asksBeforeDead = 2;

export class PathProbe {
  private asks = new Map<string, number>();
  private asked = new Map<string, number>();

  /** Once a tick for each path in use, by a name of the caller's. */
  look(path: string, { sentMs, heardMs }: PathTimes, nowMs: number): PathVerdict {
    if (nowMs - sentMs > sendingMs || nowMs - heardMs <= silentMs) return "fine";
    const before = this.asks.get(path) ?? 0;
    if (before >= asksBeforeDead) return "dead";
    this.asked.set(path, before + 1);
    return "ask";
  }

  /** The tick is over: who was not asked in it begins anew. */
  endTick(): void {
    this.asks = this.asked;
    this.asked = new Map();
  }
}
