// SPDX-License-Identifier: Apache-2.0
/** The known word that somebody who mistyped one most likely meant. */

/** Longer words are no typing mistakes of anything here, and would cost time. */
const maxChars = 64;

/** undefined: none is near enough */
export function similarWord(word: string, known: Iterable<string>): string | undefined {
  if (word.length === 0 || word.length > maxChars) return undefined;
  const lower = word.toLowerCase();
  let best: { word: string; distance: number } | undefined;
  for (const candidate of known) {
    const distance = editDistance(lower, candidate.toLowerCase());
    if (distance > farthest(candidate)) continue;
    if (best === undefined || distance < best.distance) best = { word: candidate, distance };
  }
  return best?.word;
}

/** The beginning of a hint, or "". */
export function didYouMean(word: string, known: Iterable<string>): string {
  const meant = similarWord(word, known);
  return meant === undefined ? "" : `Did you mean "${meant}"? `;
}

/** One mistake in a short word, three at most in a long one. */
function farthest({ length }: string): number {
  return Math.min(3, Math.max(1, Math.floor(length / 3)));
}

/** Insertions, deletions, replacements and swaps of neighbours. */
function editDistance(from: string, to: string): number {
  let older: number[] = [];
  let old = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const same = from[row - 1] === to[column - 1] ? 0 : 1;
      const plain = Math.min(
        (old[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (old[column - 1] ?? 0) + same,
      );
      const swapped =
        row > 1 &&
        column > 1 &&
        from[row - 1] === to[column - 2] &&
        from[row - 2] === to[column - 1];
      current.push(swapped ? Math.min(plain, (older[column - 2] ?? 0) + 1) : plain);
    }
    older = old;
    old = current;
  }
  return old[to.length] ?? 0;
}
