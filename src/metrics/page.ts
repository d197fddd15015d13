// SPDX-License-Identifier: Apache-2.0
/**
 * The page that is scraped. All values are of one moment; the text is made metric by metric, and other things
 * are done in between: an answer to a VARP request does not wait for a thousand vnets' lines. Who asks while a page
 * is being made gets the same one, so that asking often costs no more than asking once.
 */
import { DaemonRegistry } from "./registry.js";
import { kernelFamilies } from "./families.js";
import type { MetricsSource } from "./snapshot.js";

export const contentType = "text/plain; version=0.0.4; charset=utf-8";
const lagEveryMs = 1000;

export class MetricsPage {
  private readonly daemon: DaemonRegistry;
  private making: Promise<string> | undefined;
  private lagTimer: NodeJS.Timeout | undefined;

  constructor(private readonly source: MetricsSource) {
    this.daemon = new DaemonRegistry(source.layout);
  }

  /** Begins to measure how late the event loop is. */
  start(): void {
    let dueMs = performance.now() + lagEveryMs;
    this.lagTimer = setInterval(() => {
      const now = performance.now();
      this.daemon.late(Math.max(0, now - dueMs) / 1000);
      dueMs = now + lagEveryMs;
    }, lagEveryMs);
    this.lagTimer.unref();
  }

  stop(): void {
    clearInterval(this.lagTimer);
  }

  text(): Promise<string> {
    this.making ??= this.make().finally(() => (this.making = undefined));
    return this.making;
  }

  private async make(): Promise<string> {
    const startMs = performance.now();
    const snapshot = this.source.snapshot();
    const parts: string[] = [];
    for (const each of kernelFamilies(snapshot)) {
      parts.push(each);
      if (each.length > 0) await turn();
    }
    parts.push(await this.daemon.text(snapshot));
    this.daemon.scraped((performance.now() - startMs) / 1000);
    return parts.join("");
  }
}

/** What waits on the event loop goes first. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
