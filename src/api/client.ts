// SPDX-License-Identifier: Apache-2.0
/**
 * The client's end of RUN_DIR/vnetd.sock: connects, sends a request a line, and gives back the
 * answer or the error in it.
 *
 * What comes from the socket is not trusted to be a daemon's: lines are bounded, the version is
 * checked, and every failure is a VnetdError that says what to do. One client serves one caller;
 * requests may overlap, answers are told apart by id.
 */
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { errorTable, VnetdError, type ErrorCode, type Place } from "../base/errors.js";
import { defaultPaths } from "../base/paths.js";
import {
  apiVersion,
  maxAnswerBytes,
  maxLineBytes,
  socketName,
  type Method,
  type Params,
  type Result,
  type StreamEvent,
  type StreamMethod,
  type StreamParams,
} from "./contract.js";

export interface ClientOptions {
  runDir: string;
  /** for connecting */
  connectTimeoutMs?: number;
  /** for each answer; attaching a device on a slow machine takes seconds */
  answerTimeoutMs?: number;
}

/** false: no more for now */
export interface StreamReader<Event> {
  event: (event: Event) => boolean;
  lost: (count: number) => boolean;
}

interface Streaming {
  id: number;
  reader: StreamReader<unknown>;
  resolve: () => void;
  reject: (error: Error) => void;
}

const defaultConnectTimeoutMs = 5_000;
const defaultAnswerTimeoutMs = 60_000;
/** sizeof(sun_path) less the final zero (unix(7)) */
const maxSocketPathBytes = 107;

export function socketPathOf(runDir: string): string {
  const path = join(runDir, socketName);
  if (Buffer.byteLength(path) > maxSocketPathBytes) {
    throw new VnetdError("USAGE", `the run directory's path is too long for a socket: ${path}`, {
      hint: `Choose a run directory so that its path with /${socketName} has at most ${maxSocketPathBytes} bytes.`,
    });
  }
  return path;
}

function startHint(runDir: string): string {
  return runDir === defaultPaths.runDir
    ? "Start one: vnetd attach DEV (for example eth0), or systemctl start vnetd."
    : `Start one: vnetd attach --run-dir ${runDir} DEV. Is this the run directory it was started with?`;
}

function connectError(error: Error, path: string, runDir: string): VnetdError {
  const errno = "code" in error ? String(error.code) : "";
  switch (errno) {
    case "ENOENT":
    case "ENOTDIR":
    case "ECONNREFUSED":
      return new VnetdError("NO_DAEMON", `no daemon answers on ${path}`, {
        hint: startHint(runDir),
        cause: error,
      });
    case "EACCES":
    case "EPERM":
      return new VnetdError("PERMISSION", `you may not talk to the daemon on ${path}`, {
        hint: "Run the command as root, for example with sudo.",
        cause: error,
      });
    case "EPROTOTYPE":
    case "ENOTSOCK":
      return new VnetdError("NO_DAEMON", `${path} is not the socket of a daemon`, {
        hint: startHint(runDir),
        cause: error,
      });
    default:
      return new VnetdError("NO_DAEMON", `cannot connect to ${path}: ${error.message}`, {
        hint: startHint(runDir),
        cause: error,
      });
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function badAnswer(what: string): VnetdError {
  return new VnetdError("BAD_ANSWER", `the daemon's answer cannot be understood: ${what}`, {
    hint: "Are the command and the daemon of the same release? Compare vnetd version.",
  });
}

function placeOf(value: unknown): Place | undefined {
  if (!isRecord(value) || typeof value["source"] !== "string") return undefined;
  const { source, line, column } = value;
  return {
    source,
    ...(typeof line === "number" ? { line } : {}),
    ...(typeof column === "number" ? { column } : {}),
  };
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}

function errorOf(body: unknown): VnetdError {
  if (!isRecord(body) || typeof body["code"] !== "string" || typeof body["message"] !== "string") {
    return badAnswer("its error has no code or message");
  }
  const { code, message, hint } = body;
  const place = placeOf(body["place"]);
  return new VnetdError(isErrorCode(code) ? code : "INTERNAL", message, {
    ...(typeof hint === "string" ? { hint } : {}),
    ...(place === undefined ? {} : { place }),
  });
}

/** Splits what arrives into lines of bounded length. */
class LineSplitter {
  private chunks: Buffer[] = [];
  private bytes = 0;

  constructor(private readonly limitBytes: number) {}

  /** The lines that this chunk completes; undefined when one is too long. */
  push(chunk: Buffer): string[] | undefined {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      this.keep(chunk.subarray(start, end));
      if (this.bytes > this.limitBytes) return undefined;
      lines.push(Buffer.concat(this.chunks).toString("utf8"));
      this.chunks = [];
      this.bytes = 0;
      start = end + 1;
    }
    this.keep(chunk.subarray(start));
    return this.bytes > this.limitBytes ? undefined : lines;
  }

  private keep(part: Buffer): void {
    if (part.length === 0) return;
    this.chunks.push(part);
    this.bytes += part.length;
  }
}

interface Pending {
  resolve: (result: unknown) => void;
  reject: (error: VnetdError) => void;
  timer: NodeJS.Timeout;
}

export class ApiClient {
  private readonly pending = new Map<number, Pending>();
  private readonly splitter: LineSplitter;
  private nextId = 1;
  private ended: VnetdError | undefined;
  private streaming: Streaming | undefined;

  private constructor(
    private readonly socket: Socket,
    private readonly answerTimeoutMs: number,
    limitBytes: number,
  ) {
    this.splitter = new LineSplitter(limitBytes);
    socket.on("data", (chunk: Buffer) => this.receive(chunk));
    socket.on("error", () => this.end(this.lost()));
    socket.on("close", () => this.end(this.lost()));
  }

  /** Throws NO_DAEMON, PERMISSION, TIMEOUT or USAGE. */
  static connect(options: ClientOptions, limitBytes = maxAnswerBytes): Promise<ApiClient> {
    const {
      runDir,
      connectTimeoutMs = defaultConnectTimeoutMs,
      answerTimeoutMs = defaultAnswerTimeoutMs,
    } = options;
    const path = socketPathOf(runDir);
    return new Promise((resolve, reject) => {
      const socket = createConnection({ path });
      const timer = setTimeout(() => {
        socket.destroy();
        reject(
          new VnetdError("TIMEOUT", `the daemon on ${path} takes no connections`, {
            hint: "See its log.",
          }),
        );
      }, connectTimeoutMs);
      const onError = (error: Error): void => {
        clearTimeout(timer);
        reject(connectError(error, path, runDir));
      };
      socket.once("error", onError);
      socket.once("connect", () => {
        clearTimeout(timer);
        socket.off("error", onError);
        resolve(new ApiClient(socket, answerTimeoutMs, limitBytes));
      });
    });
  }

  request<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    return this.ask(method, params) as Promise<Result<M>>;
  }

  private ask(method: string, params: unknown): Promise<unknown> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    const id = this.nextId++;
    const line = `${JSON.stringify({ v: apiVersion, id, method, params })}\n`;
    if (Buffer.byteLength(line) > maxLineBytes) {
      return Promise.reject(
        new VnetdError("TOO_LARGE", `the request has more than ${maxLineBytes} bytes`, {
          hint: "Split the file.",
        }),
      );
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(
          new VnetdError(
            "TIMEOUT",
            `the daemon did not answer within ${this.answerTimeoutMs / 1000} s`,
            {
              hint: "See its log; what was asked may still be done.",
            },
          ),
        );
      }, this.answerTimeoutMs);
      // the answer's form is the daemon's word, as far as a type can say it
      this.pending.set(id, { resolve, reject, timer });
      this.socket.write(line);
    });
  }

  /**
   * Resolves when close() was called, and rejects when the daemon ends it or refuses. A reader that says false
   * is given nothing more until resume(); then the daemon leaves out what it cannot keep.
   */
  async stream<M extends StreamMethod>(
    method: M,
    params: StreamParams<M>,
    reader: StreamReader<StreamEvent<M>>,
  ): Promise<void> {
    const id = this.nextId;
    const ended = new Promise<void>((resolve, reject) => {
      this.streaming = { id, reader: reader as StreamReader<unknown>, resolve, reject };
    });
    // whoever waits for the answer is told first
    ended.catch(() => undefined);
    await this.ask(method, params);
    await ended;
  }

  resume(): void {
    this.socket.resume();
  }

  close(): void {
    this.streaming?.resolve();
    this.end(new VnetdError("CONNECTION_LOST", "the connection was closed"));
  }

  private onStream(answer: Record<string, unknown>): void {
    const { reader } = this.streaming ?? {};
    const goesOn =
      typeof answer["lost"] === "number"
        ? reader?.lost(answer["lost"])
        : reader?.event(answer["event"]);
    if (goesOn === false) this.socket.pause();
  }

  private lost(): VnetdError {
    return new VnetdError(
      "CONNECTION_LOST",
      "the daemon closed the connection before it answered",
      {
        hint: "See its log (journalctl -u vnetd, or its log file).",
      },
    );
  }

  private end(error: VnetdError): void {
    this.ended ??= error;
    this.socket.destroy();
    this.streaming?.reject(error);
    for (const { reject, timer } of this.pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.pending.clear();
  }

  private receive(chunk: Buffer): void {
    const lines = this.splitter.push(chunk);
    if (lines === undefined) return this.end(badAnswer("it is too long"));
    for (const line of lines) this.answer(line);
  }

  private answer(line: string): void {
    let answer: unknown;
    try {
      answer = JSON.parse(line);
    } catch {
      return this.end(badAnswer("it is not JSON"));
    }
    if (!isRecord(answer)) return this.end(badAnswer("it is not an object"));
    if (answer["v"] !== apiVersion) {
      return this.end(
        new VnetdError(
          "API_VERSION",
          `the daemon speaks version ${JSON.stringify(answer["v"])} of the API, this command ${apiVersion}`,
          {
            hint: "Restart the daemon after an upgrade: systemctl restart vnetd. Forwarding goes on meanwhile.",
          },
        ),
      );
    }
    const id = answer["id"];
    if (id === this.streaming?.id && !("result" in answer) && !("error" in answer))
      return this.onStream(answer);
    const pending = typeof id === "number" ? this.pending.get(id) : undefined;
    if (pending === undefined || typeof id !== "number") {
      // an error that belongs to no request is about the connection
      return this.end(
        "error" in answer ? errorOf(answer["error"]) : badAnswer("it belongs to no request"),
      );
    }
    this.pending.delete(id);
    clearTimeout(pending.timer);
    if ("error" in answer) pending.reject(errorOf(answer["error"]));
    else pending.resolve(answer["result"]);
  }
}

/** Connects and follows a stream, until the reader closes the client. */
export async function followStream<M extends StreamMethod>(
  options: ClientOptions,
  method: M,
  params: StreamParams<M>,
  reader: (client: ApiClient) => StreamReader<StreamEvent<M>>,
): Promise<void> {
  const client = await ApiClient.connect(options);
  try {
    await client.stream(method, params, reader(client));
  } finally {
    client.close();
  }
}

/** Connects, asks once and closes. */
export async function requestOnce<M extends Method>(
  options: ClientOptions,
  method: M,
  params: Params<M>,
): Promise<Result<M>> {
  const client = await ApiClient.connect(options);
  try {
    return await client.request(method, params);
  } finally {
    client.close();
  }
}
