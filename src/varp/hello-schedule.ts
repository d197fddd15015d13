// SPDX-License-Identifier: Apache-2.0
/** after a vnet appeared, one after the other */
export const earlyMs: readonly number[] = [1000, 3000];
/** an early one asks while no more messages than that would come: some fewer than the daemon's ring of messages has room for */
const mostAnswers = 2048;
/** so many vnets are in one answer where they are said in lists; there is room for more unless the host's name is long */
const vnetsInAnswer = 8;

/** Whether an early hello asks again: all hosts answer what a host asks about all its vnets, in lists or vnet by vnet. */
export function asksAgain(of: { hosts: number; vnets: number; lists: boolean }): boolean {
  const each = of.lists ? Math.ceil(of.vnets / vnetsInAnswer) : of.vnets;
  return of.hosts * each <= mostAnswers;
}

/**
 * Vnets that are due wait for others so long, in parts of an interval, and are said together with them: most of what it
 * takes to say a few is to begin. The wait is part of the fifth by which intervals differ.
 */
const gatherShare = 0.1;
/** shorter intervals are for who wants to know soon */
const gatherAboveMs = 10_000;

/**
 * When each vnet's next hello is due: every interval, give or take a fifth, so that the hosts of
 * a LAN do not all speak at the same time and one host's vnets are spread out as well. A vnet that has just
 * appeared says hello twice more before that: what was lost is made good in seconds, and not after an interval.
 * Vnets whose hellos go in one message are said together, from the first time on.
 */
export class HelloSchedule {
  private readonly dueMs = new Map<number, number>();
  /** how many of the early ones have been said */
  private readonly early = new Map<number, number>();

  constructor(
    private helloMs: number,
    private readonly random: () => number = Math.random,
  ) {}

  /** Another interval from now on: nobody waits longer than it. */
  setInterval(helloMs: number, nowMs: number): void {
    this.helloMs = helloMs;
    for (const [handle, dueMs] of this.dueMs) {
      this.plan(handle, nowMs);
      this.dueMs.set(handle, Math.min(dueMs, this.dueMs.get(handle) ?? dueMs));
    }
  }

  /** The vnet says hello for the first time now, or by another device. */
  appeared(handle: number, nowMs: number): void {
    this.early.set(handle, 0);
    this.plan(handle, nowMs);
  }

  /** The vnet said hello now: the next one is an interval away. `share`: the same for those that were said together. */
  said(handle: number, nowMs: number, share = this.random()): void {
    const early = this.early.get(handle);
    if (early !== undefined) this.early.set(handle, early + 1);
    this.plan(handle, nowMs, share);
  }

  /** Who shares it is due at the same time again. */
  share(): number {
    return this.random();
  }

  /** Vnets that may as well be said now, at most `max`: their regular hello is due within half an interval. */
  along(nowMs: number, max: number): number[] {
    const within = ([handle, at]: [number, number]): boolean =>
      at > nowMs && at - nowMs <= this.helloMs / 2 && !this.early.has(handle);
    return [...this.dueMs]
      .filter(within)
      .slice(0, max)
      .map(([handle]) => handle);
  }

  /** One of the early ones is next. */
  isEarly(handle: number): boolean {
    return this.early.has(handle);
  }

  vnetGone(handle: number): void {
    this.dueMs.delete(handle);
    this.early.delete(handle);
  }

  private plan(handle: number, nowMs: number, share = this.random()): void {
    const early = earlyMs[this.early.get(handle) ?? earlyMs.length];
    if (early === undefined || early >= this.helloMs) this.early.delete(handle);
    const isEarly = this.early.has(handle);
    const delayMs = isEarly ? (early ?? this.helloMs) : this.helloMs;
    const spread = isEarly ? 0.4 : 0.4 - this.gatherMs / this.helloMs;
    this.dueMs.set(handle, nowMs + Math.round(delayMs * (0.8 + spread * share)));
  }

  private get gatherMs(): number {
    return this.helloMs > gatherAboveMs ? this.helloMs * gatherShare : 0;
  }

  /** The vnets that are to be said, at most `max`, the longest waiting first; none while they wait for others. */
  due(nowMs: number, max: number): number[] {
    const due = [...this.dueMs].filter(([, at]) => at <= nowMs).sort(([, a], [, b]) => a - b);
    const waits = nowMs - (due[0]?.[1] ?? nowMs) < this.gatherMs;
    if (waits && !due.some(([handle]) => this.early.has(handle))) return [];
    return due.slice(0, max).map(([handle]) => handle);
  }
}
