// SPDX-License-Identifier: Apache-2.0
/**
 * The API's socket: RUN_DIR/vnetd.sock, one JSON object a line (src/api/contract.ts).
 *
 * Whatever a client sends, the daemon goes on: a line that is no request is answered with an
 * error, a line that is too long closes the connection, connections and waiting bytes are
 * bounded. Requests of one connection are answered in order; a stream takes its connection for itself. Only root and the daemon's own user
 * may speak (the socket's mode, and the peer's credentials where they can be had).
 */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { VnetdError } from "../base/errors.js";
import { errnoName, kernelError } from "../host/errno.js";
import type { Log } from "../log.js";
import {
  apiVersion,
  maxLineBytes,
  socketName,
  type ErrorBody,
  type Method,
  type Methods,
  type StreamMethod,
  type Streams,
} from "./contract.js";
import { StreamWriter, type StreamListener } from "./stream-writer.js";

export type Handlers = {
  [M in Method]: (params: Methods[M][0]) => Methods[M][1] | Promise<Methods[M][1]>;
};

/** What begins a stream: it goes to the listener until it is closed. */
export type StreamHandlers = {
  [M in StreamMethod]: (
    params: Streams[M][0],
    listener: StreamListener<Streams[M][1]>,
  ) => { close(): void };
};

export interface ApiServerOptions {
  runDir: string;
  streams?: () => StreamHandlers;
  /** asked for with each request, so that the socket can be taken before there are any */
  handlers: () => Handlers;
  log: Log;
  /** the uid of the process at the other end, where it can be found out */
  peerUid?: (socket: net.Socket) => number | undefined;
}

const maxConnections = 64;
const maxStreamRequest = 4096;
/** answers that the client does not read stop the reading of its requests */
const idleTimeoutMs = 600_000;
const dismissTimeoutMs = 2_000;

export class ApiServer {
  private readonly server: net.Server;
  private readonly sockets = new Set<net.Socket>();
  readonly socketPath: string;

  constructor(private readonly options: ApiServerOptions) {
    this.socketPath = path.join(options.runDir, socketName);
    this.server = net.createServer((socket) => this.accept(socket));
    this.server.maxConnections = maxConnections;
  }

  /** A socket that is there and does not answer is a dead daemon's. */
  async listen(): Promise<void> {
    const { runDir, log } = this.options;
    mkdirSync(runDir, { recursive: true, mode: 0o755 });
    await this.replaceStale();
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        this.server.once("error", reject);
        this.server.listen(this.socketPath, resolve);
      });
    } catch (error) {
      throw new VnetdError("KERNEL", `listening on ${this.socketPath}: ${errnoName(error)}`, {
        hint: "Check the run directory, or give another one with --run-dir.",
        cause: error,
      });
    } finally {
      process.umask(mask);
    }
    chmodSync(this.socketPath, 0o600);
    this.server.on("error", ({ message: reason }) =>
      log.say("api_failed", `API socket: ${reason}`, { reason }),
    );
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    for (const socket of this.sockets) {
      // what was answered is to arrive
      socket.destroySoon();
      socket.setTimeout(dismissTimeoutMs, () => socket.destroy());
    }
    await closed;
  }

  private async replaceStale(): Promise<void> {
    try {
      if (!lstatSync(this.socketPath).isSocket()) {
        throw new VnetdError("KERNEL", `${this.socketPath} is there and is no socket`, {
          hint: "Remove it, or give another --run-dir.",
        });
      }
    } catch (error) {
      if (errnoName(error) === "ENOENT") return;
      throw error;
    }
    if (await this.answers()) {
      throw new VnetdError("ANOTHER_DAEMON", `another daemon answers on ${this.socketPath}`, {
        hint: "Stop it, or give this one another --run-dir.",
      });
    }
    unlinkSync(this.socketPath);
  }

  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const probe = net.connect(this.socketPath);
      const done = (answer: boolean): void => {
        probe.destroy();
        resolve(answer);
      };
      probe.once("connect", () => done(true));
      probe.once("error", () => done(false));
      probe.setTimeout(1000, () => done(true));
    });
  }

  private accept(socket: net.Socket): void {
    this.sockets.add(socket);
    socket.setTimeout(idleTimeoutMs, () => socket.destroy());
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    const uid = this.options.peerUid?.(socket);
    if (uid !== undefined && uid !== 0 && uid !== process.geteuid?.()) {
      const error = { code: "PERMISSION" as const, message: "only root may talk to the daemon" };
      dismiss(socket, line({ v: apiVersion, id: 0, error }));
      return;
    }
    void this.serve(socket);
  }

  /** Reads a line, answers it, reads the next: order and back-pressure come by themselves. */
  private async serve(socket: net.Socket): Promise<void> {
    let stream: StreamWriter | undefined;
    try {
      for await (const request of linesOf(socket)) {
        if (stream !== undefined)
          throw new VnetdError("BAD_REQUEST", "a stream has this connection for itself");
        const opened = this.openStream(socket, request);
        stream = opened?.stream;
        if (opened !== undefined) continue;
        const answer = line(await this.answer(request));
        if (!socket.write(answer)) await drained(socket);
        if (socket.destroyed) return;
      }
      socket.end();
    } catch (error) {
      if (!socket.destroyed)
        dismiss(socket, line({ v: apiVersion, id: 0, error: errorBody(error) }));
    } finally {
      stream?.close();
    }
  }

  /** undefined: what is asked for is no stream. */
  private openStream(
    socket: net.Socket,
    text: string,
  ): { stream: StreamWriter | undefined } | undefined {
    const request = streamRequest(text);
    const handlers = this.options.streams?.();
    if (request === undefined || handlers === undefined) return undefined;
    const { id, v, params } = request;
    if (!Object.hasOwn(handlers, request.method)) return undefined;
    const method = request.method as StreamMethod;
    const writer = new StreamWriter(socket, id);
    try {
      if (v !== apiVersion) throw versionError(v);
      // As with methods, the handler checks its parameters itself.
      writer.begin(handlers[method](params as never, writer));
      socket.setTimeout(0);
      return { stream: writer };
    } catch (error) {
      const body = errorBody(error);
      if (body.code === "INTERNAL") this.options.log.say("internal_error", stackOf(error));
      writer.refuse(body);
      return { stream: undefined };
    }
  }

  private async answer(text: string): Promise<unknown> {
    let id = 0;
    try {
      const request = parseRequest(text);
      id = request.id;
      if (request.v !== apiVersion) throw versionError(request.v);
      return { v: apiVersion, id, result: await this.call(request.method, request.params) };
    } catch (error) {
      const body = errorBody(error);
      if (body.code === "INTERNAL") this.options.log.say("internal_error", stackOf(error));
      return { v: apiVersion, id, error: body };
    }
  }

  private call(method: string, params: Record<string, unknown>): unknown {
    const handlers = this.options.handlers();
    if (!Object.hasOwn(handlers, method)) {
      throw new VnetdError("BAD_REQUEST", `there is no method "${method.slice(0, 80)}"`);
    }
    // Each handler checks the fields of its parameters itself: see src/api/params.ts.
    return handlers[method as Method](params as never);
  }
}

interface ParsedRequest {
  v: number;
  id: number;
  method: string;
  params: Record<string, unknown>;
}

function parseRequest(text: string): ParsedRequest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new VnetdError("BAD_REQUEST", "the line is not JSON");
  }
  if (!isObject(value)) throw new VnetdError("BAD_REQUEST", "the line is not a JSON object");
  const { v, id, method } = value;
  const params = value["params"] ?? {};
  const known = typeof v === "number" && Number.isFinite(id) && typeof method === "string";
  if (!known || !isObject(params)) {
    throw new VnetdError("BAD_REQUEST", 'a request is {"v":1,"id":N,"method":"…","params":{…}}');
  }
  return { v, id: Number(id), method, params };
}

/** undefined: it cannot be one for a stream, whose parameters are few; what is wrong with it is for others to say */
function streamRequest(text: string): ParsedRequest | undefined {
  if (text.length > maxStreamRequest) return undefined;
  try {
    return parseRequest(text);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function versionError(v: number): VnetdError {
  return new VnetdError(
    "API_VERSION",
    `the daemon speaks version ${String(apiVersion)}, not ${String(v)}`,
    {
      hint: "Use the command and the daemon of the same release; restart the daemon after an upgrade.",
    },
  );
}

export function errorBody(error: unknown): ErrorBody {
  if (error instanceof VnetdError) {
    const { code, message, hint, place } = error;
    return {
      code,
      message,
      ...(hint === undefined ? {} : { hint }),
      ...(place === undefined ? {} : { place }),
    };
  }
  if (error instanceof Error && "operation" in error) {
    return errorBody(kernelError(String(error.operation), error));
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: "INTERNAL", message, hint: "The daemon's log has more." };
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Says a last word, and reads no more than what arrives until it was taken. */
function dismiss(socket: net.Socket, lastWord: string): void {
  socket.end(lastWord, () => socket.destroy());
  socket.setTimeout(dismissTimeoutMs);
  socket.resume();
}

function line(answer: unknown): string {
  return `${JSON.stringify(answer)}\n`;
}

function drained(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off("drain", done);
      socket.off("close", done);
      resolve();
    };
    socket.on("drain", done);
    socket.on("close", done);
  });
}

/** The lines that arrive; throws BAD_REQUEST when one is too long. */
async function* linesOf(socket: net.Socket): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let length = 0;
  const chunks = socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  for await (const chunk of chunks) {
    let rest = chunk;
    for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10)) {
      length += at;
      if (length > maxLineBytes) throw tooLong();
      const text = Buffer.concat([...parts, rest.subarray(0, at)])
        .toString("utf8")
        .trim();
      parts = [];
      length = 0;
      rest = rest.subarray(at + 1);
      if (text !== "") yield text;
    }
    length += rest.length;
    if (length > maxLineBytes) throw tooLong();
    if (rest.length > 0) parts.push(rest);
  }
}

function tooLong(): VnetdError {
  return new VnetdError("BAD_REQUEST", `a line has at most ${String(maxLineBytes)} bytes`);
}
