// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's end of a stream (src/api/contract.ts, Streams). What a client does not read in time waits in memory up to
 * a bound; from there on it is left out, counted, and the client is told how much is missing, where it is.
 */
import type net from "node:net";
import { apiVersion, type ErrorBody } from "./contract.js";

export interface StreamListener<Event> {
  event: (event: Event) => void;
  lost: (count: number) => void;
}

/** of lines that wait for the client */
export const maxWaitingBytes = 4 << 20;

export class StreamWriter implements StreamListener<unknown> {
  private source: { close(): void } | undefined;
  private missing = 0;
  private closed = false;

  constructor(
    private readonly socket: Pick<net.Socket, "write" | "writableLength" | "on" | "off">,
    private readonly id: number,
  ) {}

  readonly event = (event: unknown): void => {
    if (this.closed) return;
    if (this.socket.writableLength > maxWaitingBytes) this.missing += 1;
    else {
      this.tellMissing();
      this.write({ event });
    }
  };

  readonly lost = (count: number): void => {
    this.missing += count;
    if (!this.closed && this.socket.writableLength <= maxWaitingBytes) this.tellMissing();
  };

  begin(source: { close(): void }): void {
    this.source = source;
    this.write({ result: {} });
    this.socket.on("drain", this.tellMissing);
  }

  refuse(error: ErrorBody): void {
    this.write({ error });
  }

  close(): void {
    this.closed = true;
    this.socket.off("drain", this.tellMissing);
    this.source?.close();
  }

  private readonly tellMissing = (): void => {
    if (this.missing === 0 || this.closed) return;
    this.write({ lost: this.missing });
    this.missing = 0;
  };

  private write(answer: object): void {
    this.socket.write(`${JSON.stringify({ v: apiVersion, id: this.id, ...answer })}\n`);
  }
}
