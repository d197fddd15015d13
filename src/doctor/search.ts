// SPDX-License-Identifier: Apache-2.0
/** Sizes to be tried at once, so that the largest that arrives is found in a few rounds. */

/** At most `count` sizes between the two, neither included, evenly spread. */
export function spread(low: number, high: number, count: number): number[] {
  const step = Math.max(1, (high - low) / (count + 1));
  const sizes: number[] = [];
  for (let size = low + step; size < high; size += step) sizes.push(Math.floor(size));
  return sizes;
}

/**
 * The largest size that arrives, between one that does and one that does not. `arriving` says which of
 * several do.
 */
export async function largestThat(
  { low, high }: { low: number; high: number },
  arriving: (sizes: readonly number[]) => Promise<ReadonlySet<number>>,
): Promise<number> {
  const atOnce = 32;
  const maxRounds = 4;
  let [works, fails] = [low, high];
  for (let round = 0; round < maxRounds && fails - works > 1; round += 1) {
    const sizes = spread(works, fails, atOnce);
    const arrived = await arriving(sizes);
    works = Math.max(works, ...arrived);
    fails = Math.min(fails, ...sizes.filter((size) => size > works));
  }
  return works;
}
