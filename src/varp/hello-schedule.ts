// SPDX-License-Identifier: Apache-2.0
/**
 * When each vnet's next hello is due: every interval, give or take a fifth, so that the hosts of
 * a LAN do not all speak at the same time and one host's vnets are spread out as well.
 */
export class HelloSchedule {
  private readonly dueMs = new Map<number, number>();

  constructor(
    private helloMs: number,
    private readonly random: () => number = Math.random,
  ) {}

  /** Another interval from now on: nobody waits longer than it. */
  setInterval(helloMs: number, nowMs: number): void {
    this.helloMs = helloMs;
    for (const [handle, dueMs] of this.dueMs) {
      this.said(handle, nowMs);
      this.dueMs.set(handle, Math.min(dueMs, this.dueMs.get(handle) ?? dueMs));
    }
  }

  /** The vnet said hello now (or appeared): the next one is an interval away. */
  said(handle: number, nowMs: number): void {
    this.dueMs.set(handle, nowMs + Math.round(this.helloMs * (0.8 + 0.4 * this.random())));
  }

  vnetGone(handle: number): void {
    this.dueMs.delete(handle);
  }

  /** The vnets that are due, at most `max`, the longest waiting first. */
  due(nowMs: number, max: number): number[] {
    return [...this.dueMs]
      .filter(([, at]) => at <= nowMs)
      .sort(([, a], [, b]) => a - b)
      .slice(0, max)
      .map(([handle]) => handle);
  }
}
