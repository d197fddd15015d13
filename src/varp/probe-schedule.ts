// SPDX-License-Identifier: Apache-2.0
/**
 * When to send a probe: now and then in every vnet, and at once, but no more often than once a second,
 * in one that looks as if it had a loop (a storm, MACs that move to and fro) or has one.
 */
import { HelloSchedule } from "./hello-schedule.js";

const betweenMs = 1000;

export class ProbeSchedule {
  private readonly sentMs = new Map<number, number>();
  private readonly regular: HelloSchedule;

  constructor(everyMs: number, random: () => number = Math.random) {
    this.regular = new HelloSchedule(everyMs, random);
  }

  setInterval(everyMs: number, nowMs: number): void {
    this.regular.setInterval(everyMs, nowMs);
  }

  /** Nothing is sent in a vnet that just appeared. */
  appeared(handle: number, nowMs: number): void {
    if (!this.sentMs.has(handle)) this.sent(handle, nowMs - betweenMs);
  }

  /** True when a probe is to be sent now. */
  suspected(handle: number, nowMs: number): boolean {
    const last = this.sentMs.get(handle);
    return last === undefined || nowMs - last >= betweenMs;
  }

  sent(handle: number, nowMs: number): void {
    this.sentMs.set(handle, nowMs);
    this.regular.said(handle, nowMs);
  }

  due(nowMs: number, max: number): number[] {
    return this.regular.due(nowMs, max);
  }

  handles(): number[] {
    return [...this.sentMs.keys()];
  }

  vnetGone(handle: number): void {
    this.sentMs.delete(handle);
    this.regular.vnetGone(handle);
  }
}
