// SPDX-License-Identifier: Apache-2.0
/**
 * When devices, vnets and all that hangs on them are looked at: a moment after the kernel told something of devices or addresses,
 * and regularly, of as much as src/controller/regular-look.ts says. What a look is, is the controller's (src/controller.ts).
 */
import type { NetlinkEvent } from "../native/contract.js";
import { RegularLook } from "./regular-look.js";

/** changes of devices come in bursts: they are looked at together */
const settleMs = 20;
const turnEveryTicks = 10;

export interface LooksParts {
  /** a look at everything; isRegular: not because of news */
  everything: (isRegular: boolean) => void;
  hooks: () => void;
  /** what is looked at in each turn besides */
  staticEntries: () => void;
  /** whether something may be mended without the kernel telling of it */
  isAmiss: () => boolean;
  /** a fault in one step must not keep the others from their turn */
  guarded: (what: string, step: () => void) => void;
}

export class Looks {
  private readonly regular = new RegularLook();
  private settleTimer: NodeJS.Timeout | undefined;
  private ticks = 0;

  constructor(private readonly parts: LooksParts) {}

  /** The kernel told something. */
  told({ type }: NetlinkEvent): void {
    // filters are the hooks' watch's, and what a bridge forgets the ports'
    if (type === "tc" || type === "bridge-fdb-deleted") return;
    this.regular.news();
    this.settleTimer ??= setTimeout(() => {
      this.settleTimer = undefined;
      this.parts.guarded("following the devices", () => this.parts.everything(false));
    }, settleMs);
  }

  /** A second went by. */
  tick(): void {
    this.ticks += 1;
    if (this.ticks % turnEveryTicks !== 0) return;
    const { guarded } = this.parts;
    guarded("repairing", () => this.turn());
    guarded("static entries", () => this.parts.staticEntries());
  }

  close(): void {
    clearTimeout(this.settleTimer);
  }

  private turn(): void {
    if (this.regular.turn(this.parts.isAmiss) === "hooks") this.parts.hooks();
    else this.parts.everything(true);
  }
}
