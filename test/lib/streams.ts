// SPDX-License-Identifier: Apache-2.0
/** test/lib/streams.py for TypeScript: numbered datagrams and a TCP connection, of which every loss shows. */
import { fileURLToPath } from "node:url";
import { DEBIAN_PYTHON, eventually, type Background } from "./processes.js";
import type { Place } from "./traffic.js";

const PROGRAM = fileURLToPath(new URL("./streams.py", import.meta.url));

export interface Received {
  /** number of the last datagram, -1: none came */
  highest: number;
  lost: number;
  bytes: number;
  /** the longest time in which TCP brought nothing */
  stallSeconds: number;
}

export interface Sent {
  /** datagrams */
  sent: number;
  /** segments that TCP sent again, and how many of them had come */
  again: number;
  needless: number;
}

export class Streams {
  private constructor(
    private readonly sender: Background,
    private readonly receiver: Background,
  ) {}

  static async start(from: Place, to: Place, address: string, everyMs: number): Promise<Streams> {
    const receiver = to.spawn([DEBIAN_PYTHON, PROGRAM, "receive"]);
    await receiver.output(/ready/);
    const sender = from.spawn([DEBIAN_PYTHON, PROGRAM, "send", address, String(everyMs)]);
    await sender.output(/ready/);
    return new Streams(sender, receiver);
  }

  get sent(): Sent {
    return reportOf(this.sender) as Sent;
  }

  get received(): Received {
    return reportOf(this.receiver) as Received;
  }

  /** Waits until all that was sent by now and some more has arrived, or was overtaken. */
  async arrived(): Promise<Received> {
    const { sent } = await eventually(() => this.sent);
    const { bytes } = this.received;
    await eventually(() => this.received.highest > sent + 100 && this.received.bytes > bytes, {
      what: `datagram ${sent} to arrive, and TCP to go on`,
      timeoutMs: 30_000,
    });
    return this.received;
  }

  async stop(): Promise<void> {
    await this.sender.stop("SIGKILL");
    await this.receiver.stop("SIGKILL");
  }
}

/** The last whole line. */
function reportOf(process: Background): unknown {
  const line = process.stdout.split("\n").slice(0, -1).pop();
  if (line === undefined || line === "ready") throw new Error(`no report yet; ${process.stderr}`);
  return JSON.parse(line);
}
