// SPDX-License-Identifier: Apache-2.0
/** test/lib/packet-agent.py for TypeScript: packet sockets in a namespace. */
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { timeFactor } from "./processes.js";
import { python } from "./wire.js";

const PROGRAM = fileURLToPath(new URL("./packet-agent.py", import.meta.url));

export interface Captured {
  bytes: Buffer;
  mark: number;
  outgoing: boolean;
}

export interface Flood {
  device: string;
  packet: Buffer;
  mark: number;
  /** where each packet's number goes */
  at: number;
  count: number;
  gapUs: number;
}

export class PacketAgent {
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;
  private readonly reader: Interface;
  private last: Promise<unknown> = Promise.resolve();

  constructor(netns: string) {
    const [interpreter, ...flags] = python;
    const argv = [`--net=/run/netns/${netns}`, interpreter, ...flags, PROGRAM];
    this.child = spawn("nsenter", argv, { stdio: ["pipe", "pipe", "inherit"] });
    this.reader = createInterface({ input: this.child.stdout! });
    this.lines = this.reader[Symbol.asyncIterator]();
  }

  /** cooked: packets begin with their IP header */
  async listen(device: string, cooked: boolean): Promise<number> {
    return (await this.ask<{ listening: number }>({ op: "listen", device, cooked })).listening;
  }

  /** The next ones, fewer when they do not come in time. */
  async read(listening: number, count: number, timeoutMs = 10_000): Promise<Captured[]> {
    const { packets } = await this.ask<{
      packets: { hex: string; mark: number; outgoing: boolean }[];
    }>({ op: "read", listening, count, timeoutMs: timeoutMs * timeFactor });
    return packets.map(({ hex, ...rest }) => ({ ...rest, bytes: Buffer.from(hex, "hex") }));
  }

  /** The numbers of a flood's packets, until none has come for a while. */
  async count(listening: number, at: number): Promise<number[]> {
    const request = { op: "count", listening, at, quietMs: 500 * timeFactor };
    return (await this.ask<{ numbers: number[] }>(request)).numbers;
  }

  async send(device: string, mark: number, ...packets: readonly Uint8Array[]): Promise<void> {
    await this.ask({ op: "send", device, mark, packets: packets.map(hexOf) });
  }

  async frames(device: string, ...frames: readonly Uint8Array[]): Promise<void> {
    await this.ask({ op: "frames", device, frames: frames.map(hexOf) });
  }

  flood({ packet, ...flood }: Flood): Promise<{ sent: number; seconds: number }> {
    return this.ask({ op: "flood", packet: hexOf(packet), ...flood });
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.stdin?.end();
    this.child.kill();
    await ended;
  }

  /** one after another: the program answers in order */
  private ask<T>(request: object): Promise<T> {
    const answer = this.last.then(async () => {
      this.child.stdin!.write(`${JSON.stringify(request)}\n`);
      const { value, done } = (await this.lines.next()) as { value: string; done: boolean };
      if (done) throw new Error("the packet agent has ended");
      return JSON.parse(value) as T;
    });
    this.last = answer.catch(() => undefined);
    return answer;
  }
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
