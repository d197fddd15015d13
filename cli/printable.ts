// SPDX-License-Identifier: Apache-2.0
/**
 * Text that may have come from the wire, made safe for a terminal: control characters (escape
 * sequences among them), direction overrides and line separators are shown, not obeyed.
 */
import { escapedChar as escaped, unsafeText as unsafe } from "../src/base/unsafe-text.js";

/** One line's worth of text: line breaks and tabs are shown as well. */
export function printable(text: string): string {
  return text.replace(unsafe, escaped);
}

/** Text of several lines, such as a log: line breaks and tabs stay. */
export function printableLines(text: string): string {
  return text.replace(unsafe, (char) => (char === "\n" || char === "\t" ? char : escaped(char)));
}

/** JSON of a value, indented; what JSON leaves as it is and a terminal obeys is escaped too. */
export function printableJson(value: unknown): string {
  return escapedJson(JSON.stringify(value, null, 2));
}

/** The same in one line. */
export function printableJsonLine(value: unknown): string {
  return escapedJson(JSON.stringify(value));
}

function escapedJson(json: string): string {
  return json.replace(unsafe, (char) =>
    char === "\n" ? char : `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** "12s", "3m05s", "2h10m", "4d03h" */
export function durationText(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${two(Math.floor(whole / 60) % 60)}m`;
  return `${Math.floor(whole / 86_400)}d${two(Math.floor(whole / 3600) % 24)}h`;
}
