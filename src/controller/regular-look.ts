// SPDX-License-Identifier: Apache-2.0
/**
 * When everything is looked at, devices, vnets and all that hangs on them, though nothing asks for it.
 *
 * The kernel tells of whatever becomes of devices and addresses: when it was silent, and all is well, there is little to see.
 * A turn comes every few seconds (src/controller/looks.ts), and is of everything after news, while something is amiss, and every so
 * manieth time in any case; else of the hooks alone, of which the kernel does not tell.
 */

/** of these turns every so manieth is of everything, though the kernel has told nothing */
export const turnsWithoutNews = 6;

export class RegularLook {
  private turns = 0;
  /** the kernel told something of devices or addresses since everything was looked at; it may have before the first turn */
  private hasNews = true;

  news(): void {
    this.hasNews = true;
  }

  /** isAmiss: what may be mended without the kernel telling of what was in the way; not asked where it does not matter. */
  turn(isAmiss: () => boolean): "everything" | "hooks" {
    this.turns += 1;
    const isDue = this.turns % turnsWithoutNews === 0;
    if (!isDue && !this.hasNews && !isAmiss()) return "hooks";
    this.hasNews = false;
    return "everything";
  }
}
