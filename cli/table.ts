// SPDX-License-Identifier: Apache-2.0
/** Tables for people: a heading, columns aligned by their widest cell, colour where it is wanted. */
import { printable } from "./printable.js";

export type Colour = "none" | "good" | "bad" | "faint";

export interface Column<Row> {
  title: string;
  text: (row: Row) => string;
  /** numbers stand to the right */
  right?: boolean;
  colour?: (row: Row) => Colour;
}

const codes: Readonly<Record<Colour | "heading", string>> = {
  none: "",
  good: "32",
  bad: "31",
  faint: "2",
  heading: "1",
};

function coloured(text: string, colour: Colour | "heading", colours: boolean): string {
  const code = codes[colour];
  return colours && code !== "" ? `\u001b[${code}m${text}\u001b[0m` : text;
}

const widthOf = (text: string): number => Array.from(text).length;

/** Every line ends in a line break. An empty cell shows as "-". */
export function formatTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  colours: boolean,
): string {
  const cells = rows.map((row) => columns.map(({ text }) => printable(text(row)) || "-"));
  const widths = columns.map(({ title }, index) =>
    cells.reduce((width, line) => Math.max(width, widthOf(line[index] ?? "")), widthOf(title)),
  );
  const line = (
    texts: readonly string[],
    colourOf: (index: number) => Colour | "heading",
  ): string => {
    const padded = texts.map((text, index) => {
      const padding = " ".repeat((widths[index] ?? 0) - widthOf(text));
      const shown = coloured(text, colourOf(index), colours);
      if (columns[index]?.right === true) return padding + shown;
      return index === texts.length - 1 ? shown : shown + padding;
    });
    return `${padded.join("  ")}\n`;
  };
  const heading = line(
    columns.map(({ title }) => title),
    () => "heading",
  );
  const body = rows.map((row, index) =>
    line(cells[index] ?? [], (column) => columns[column]?.colour?.(row) ?? "none"),
  );
  return heading + body.join("");
}
