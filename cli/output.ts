// SPDX-License-Identifier: Apache-2.0
/**
 * Where the commands write: data on stdout, everything else on stderr. With --json the data is
 * one JSON value and an error one JSON object, which holds the remarks that were made until then: each
 * stream can be parsed as a whole. A reader that goes away (`vnetd varp | head`) ends
 * the writing silently.
 */
import type { Writable } from "node:stream";
import { errorParts, formatPlace } from "../src/base/errors.js";
import { printable, printableJson, printableJsonLine } from "./printable.js";
import { formatTable, type Column } from "./table.js";

export interface OutputStreams {
  stdout: Writable & { isTTY?: boolean };
  stderr: Writable & { isTTY?: boolean };
}

export class Output {
  private readonly colours: boolean;
  /** lines for stderr that wait for how the command ends */
  private held: string[] = [];

  constructor(
    private readonly program: string,
    private readonly streams: OutputStreams,
    readonly json: boolean,
    environment: NodeJS.ProcessEnv,
  ) {
    const refused = (environment["NO_COLOR"] ?? "") !== "" || environment["TERM"] === "dumb";
    this.colours = streams.stdout.isTTY === true && !refused;
  }

  /** Data for people, as it stands: the caller has made it printable. */
  text(text: string): void {
    this.streams.stdout.write(text);
  }

  /** Data of a stream. False: the reader is slow; `drained` is called when there is room again. */
  flow(data: string | Uint8Array, drained: () => void): boolean {
    const { stdout } = this.streams;
    if (stdout.write(data)) return true;
    stdout.once("drain", drained);
    return false;
  }

  /** The reader of stdout went away: nobody wants what follows. */
  onReaderGone(stop: () => void): void {
    this.streams.stdout.once("error", stop);
    this.streams.stdout.once("close", stop);
  }

  line(text: string): void {
    this.text(`${printable(text)}\n`);
  }

  value(value: unknown): void {
    this.text(`${printableJson(value)}\n`);
  }

  /** A value of a stream in one line. */
  flowValue(value: unknown, drained: () => void): boolean {
    return this.flow(`${printableJsonLine(value)}\n`, drained);
  }

  /** The rows as a table, or as they are with --json; `none` says on stderr that there are none. */
  rows<Row>(rows: readonly Row[], columns: readonly Column<Row>[], none: string): void {
    if (this.json) this.value(rows);
    else if (rows.length === 0) this.note(none);
    else this.table(rows, columns);
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    this.text(formatTable(rows, columns, this.colours));
  }

  /** What is not data: progress, remarks. */
  note(text: string): void {
    this.remark([`${this.program}: ${printable(text)}`]);
  }

  /** A remark with quoted lines below it, which the caller has made printable. */
  noteLines(text: string, lines: string): void {
    this.remark([
      `${this.program}: ${printable(text)}`,
      ...lines.split("\n").map((line) => `  | ${line}`),
    ]);
  }

  private remark(lines: readonly string[]): void {
    if (this.json) this.held.push(...lines);
    else this.streams.stderr.write(`${lines.join("\n")}\n`);
  }

  /** The command ends without an error. */
  end(): void {
    if (this.held.length > 0) this.streams.stderr.write(`${this.held.join("\n")}\n`);
    this.held = [];
  }

  error(error: unknown): void {
    const parts = errorParts(error);
    if (this.json) {
      const notes = this.held.length === 0 ? {} : { notes: this.held };
      this.held = [];
      this.streams.stderr.write(`${printableJson({ ...parts, ...notes })}\n`);
      return;
    }
    const lines = [`${this.program}: ${printable(parts.message)}`];
    if (parts.place !== undefined) lines.push(`  at ${printable(formatPlace(parts.place))}`);
    if (parts.hint !== undefined) lines.push(`  hint: ${printable(parts.hint)}`);
    this.streams.stderr.write(`${lines.join("\n")}\n`);
    if (parts.code === "INTERNAL" && error instanceof Error && error.stack !== undefined) {
      this.streams.stderr.write(`${printable(error.stack).replaceAll("\\x0a", "\n")}\n`);
    }
  }
}

/** A closed pipe is the reader's way to say "enough". Any other failure to write is one. */
export function endQuietlyOnClosedPipe(stream: Writable, onFailure: (error: Error) => void): void {
  stream.on("error", (error: Error & { code?: string }) => {
    if (error.code !== "EPIPE") onFailure(error);
  });
}
