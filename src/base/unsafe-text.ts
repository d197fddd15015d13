// SPDX-License-Identifier: Apache-2.0
/**
 * What of a text that may have come from the wire a terminal obeys, or nobody sees: control
 * characters (escape sequences among them), direction overrides and line separators.
 */
export const unsafeText = /[\p{Cc}\p{Cs}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;

/** "\x1b", "\u202e" */
export function escapedChar(char: string): string {
  const code = char.charCodeAt(0);
  return code < 256
    ? `\\x${code.toString(16).padStart(2, "0")}`
    : `\\u${code.toString(16).padStart(4, "0")}`;
}
