// SPDX-License-Identifier: Apache-2.0
/**
 * S-expressions as the original's configuration files are written: nested lists of atoms, white
 * space of any kind between them, `#` starts a comment that ends with the line, strings stand in
 * double or single quotes with C's escapes.
 *
 * In the path of `vnet-create FILE`, before vnet-file.ts gives the lists a meaning. Each node knows its
 * place, for the errors of those who read it. Depth and number of nodes are bounded, the reader
 * does not recurse, and it throws nothing but VnetdError.
 */
import { VnetdError, type Place } from "../base/errors.js";

export interface SxpAtom {
  kind: "atom";
  text: string;
  place: Place;
}

export interface SxpList {
  kind: "list";
  items: SxpNode[];
  place: Place;
}

export type SxpNode = SxpAtom | SxpList;

export const maxSxpDepth = 32;
export const maxSxpNodes = 1 << 17;

const simpleEscapes: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  "'": "'",
  '"': '"',
};

class SxpReader {
  private position = 0;
  private line = 1;
  private lineStart = 0;
  private nodes = 0;

  constructor(
    private readonly text: string,
    private readonly source: string,
  ) {}

  read(): SxpNode[] {
    const top: SxpNode[] = [];
    const open: SxpList[] = [];
    for (;;) {
      this.skipBlank();
      const char = this.text[this.position];
      if (char === undefined) break;
      const place = this.place();
      if (char === ")") {
        if (open.pop() === undefined) {
          throw this.error(
            '")" closes nothing',
            'Remove it, or add the "(" that is missing.',
            place,
          );
        }
        this.position++;
        continue;
      }
      const items = open.at(-1)?.items ?? top;
      this.countNode(place);
      if (char === "(") {
        if (open.length >= maxSxpDepth) {
          throw this.error(`lists are nested deeper than ${maxSxpDepth}`, undefined, place);
        }
        const list: SxpList = { kind: "list", items: [], place };
        this.position++;
        items.push(list);
        open.push(list);
      } else {
        const text = char === '"' || char === "'" ? this.quoted(char, place) : this.atom();
        items.push({ kind: "atom", text, place });
      }
    }
    const unclosed = open.at(-1);
    if (unclosed !== undefined) {
      throw this.error('this "(" is not closed', 'Add the ")" that is missing.', unclosed.place);
    }
    return top;
  }

  private place(): Place {
    return { source: this.source, line: this.line, column: this.position - this.lineStart + 1 };
  }

  private error(message: string, hint: string | undefined, place: Place): VnetdError {
    return new VnetdError("SYNTAX", message, { place, ...(hint === undefined ? {} : { hint }) });
  }

  private countNode(place: Place): void {
    if (++this.nodes > maxSxpNodes) {
      throw new VnetdError("TOO_LARGE", `more than ${maxSxpNodes} lists and atoms`, { place });
    }
  }

  private newLine(): void {
    this.line++;
    this.lineStart = this.position;
  }

  private skipBlank(): void {
    for (;;) {
      const char = this.text[this.position];
      if (char === "\n") {
        this.position++;
        this.newLine();
      } else if (char === "#") {
        while (this.position < this.text.length && this.text[this.position] !== "\n")
          this.position++;
      } else if (char !== undefined && /\s/.test(char)) {
        this.position++;
      } else {
        return;
      }
    }
  }

  private atom(): string {
    const start = this.position;
    while (this.position < this.text.length) {
      const char = this.text[this.position] ?? "";
      if (/[\s()#"']/.test(char)) break;
      if (/\p{Cc}/u.test(char)) {
        throw this.error(
          "a control character stands in the text",
          "Is this a text file?",
          this.place(),
        );
      }
      this.position++;
    }
    return this.text.slice(start, this.position);
  }

  private quoted(quote: string, start: Place): string {
    let value = "";
    this.position++;
    for (;;) {
      const char = this.text[this.position];
      if (char === undefined) {
        throw this.error("this string is not closed", `Add the ${quote} that is missing.`, start);
      }
      if (char === quote) {
        this.position++;
        return value;
      }
      if (char === "\\") {
        value += this.escape();
        continue;
      }
      this.position++;
      if (char === "\n") this.newLine();
      value += char;
    }
  }

  /** \n and the like, \xHH, or one to three octal digits, as in C */
  private escape(): string {
    const place = this.place();
    const rest = this.text.slice(this.position + 1, this.position + 4);
    const coded = /^x([0-9a-fA-F]{2})/.exec(rest) ?? /^([0-7]{1,3})/.exec(rest);
    if (coded !== null) {
      const digits = coded[1] ?? "";
      const code = Number.parseInt(digits, rest.startsWith("x") ? 16 : 8);
      this.position += 1 + coded[0].length;
      return String.fromCharCode(code & 0xff);
    }
    const simple = Object.hasOwn(simpleEscapes, rest[0] ?? "")
      ? simpleEscapes[rest[0] ?? ""]
      : undefined;
    if (simple === undefined) {
      throw this.error(
        "the string holds an unknown escape",
        "A backslash itself is written \\\\.",
        place,
      );
    }
    this.position += 2;
    return simple;
  }
}

export function parseSxp(text: string, source: string): SxpNode[] {
  return new SxpReader(text, source).read();
}
