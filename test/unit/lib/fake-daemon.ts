// SPDX-License-Identifier: Apache-2.0
/**
 * A socket that answers like a daemon with what a test tells it to. It checks the command line's
 * formatting and exit codes; the real daemon is met in test/netns.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  apiVersion,
  socketName,
  type ErrorBody,
  type Method,
  type Result,
} from "../../../src/api/contract.js";

/** method -> the result, or { error } */
export type Answers = { [M in Method]?: Result<M> | { error: ErrorBody } };

export interface Asked {
  v: number;
  id: number;
  method: string;
  params: unknown;
}

export class FakeDaemon {
  readonly asked: Asked[] = [];
  private readonly sockets = new Set<Socket>();

  private constructor(
    readonly runDir: string,
    private readonly server: Server,
  ) {}

  /** `raw` takes over what is written for each request line. */
  static async start(
    answers: Answers,
    raw?: (asked: Asked, socket: Socket) => void,
  ): Promise<FakeDaemon> {
    const runDir = mkdtempSync(join(tmpdir(), "vnetd-fake-"));
    const server = createServer();
    const daemon = new FakeDaemon(runDir, server);
    server.on("connection", (socket) => {
      daemon.sockets.add(socket);
      let text = "";
      socket.on("error", () => undefined);
      socket.on("data", (chunk) => {
        text += chunk.toString("utf8");
        for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
          const asked = JSON.parse(text.slice(0, end)) as Asked;
          text = text.slice(end + 1);
          daemon.asked.push(asked);
          if (raw === undefined) daemon.reply(asked, answers, socket);
          else raw(asked, socket);
        }
      });
    });
    await new Promise<void>((done) => server.listen(join(runDir, socketName), done));
    return daemon;
  }

  private reply({ id, method }: Asked, answers: Answers, socket: Socket): void {
    const answer = answers[method as Method];
    const failed: { error: ErrorBody } | undefined =
      answer === undefined
        ? { error: { code: "BAD_REQUEST", message: `the test has no answer for ${method}` } }
        : "error" in answer
          ? answer
          : undefined;
    socket.write(`${JSON.stringify({ v: apiVersion, id, ...(failed ?? { result: answer }) })}\n`);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((done) => this.server.close(done));
    rmSync(this.runDir, { recursive: true, force: true });
  }
}
