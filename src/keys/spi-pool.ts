// SPDX-License-Identifier: Apache-2.0
/** The SPIs by which this host receives: random, so that nobody guesses one, and each used once at a time. */
import { leastSpi } from "./esp-keys.js";

export class SpiPool {
  private readonly used = new Set<number>();

  /** `random` gives so many random bytes. */
  constructor(private readonly random: (bytes: number) => Buffer) {}

  take(): number {
    for (;;) {
      const spi = this.random(4).readUInt32BE(0);
      if (spi < leastSpi || this.used.has(spi)) continue;
      this.used.add(spi);
      return spi;
    }
  }

  /** One that is in use already, as of a daemon before this one. */
  reserve(spi: number): void {
    this.used.add(spi);
  }

  release(spi: number): void {
    this.used.delete(spi);
  }

  get size(): number {
    return this.used.size;
  }
}
