// SPDX-License-Identifier: Apache-2.0
/**
 * Running other programs from tests: to the end (run), or beside the test (Background), and
 * waiting for something to become true (eventually). No fixed sleeps: every wait has a condition
 * and a deadline, and a missed deadline says what was last seen.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";

/** In an emulated machine (test/vm) everything takes longer; deadlines are stretched by this. */
export const timeFactor = Number(process.env["VNETD_TIME_FACTOR"] ?? "1");

/** Not what PATH has: a version manager's wrapper takes seconds where the machine is emulated. */
export const DEBIAN_PYTHON = "/usr/bin/python3";

export type Command = string | readonly string[];

export interface RunOptions {
  input?: string | Uint8Array;
  env?: Record<string, string>;
  cwd?: string;
  timeoutMs?: number;
}

export interface RunResult {
  /** exit code; 128 + signal when it was killed, as a shell says it */
  code: number;
  stdout: string;
  stderr: string;
}

export class CommandFailed extends Error {
  constructor(
    readonly argv: readonly string[],
    readonly result: RunResult,
  ) {
    super(`${argv.join(" ")}: exit ${result.code}\n${result.stderr}${result.stdout}`.trimEnd());
    this.name = "CommandFailed";
  }
}

/** A string is for the shell, an array is taken as it is. */
export function argvOf(command: Command): readonly [string, ...string[]] {
  if (typeof command === "string") return ["/bin/sh", "-c", command];
  const [program, ...args] = command;
  if (program === undefined) throw new Error("an empty command");
  return [program, ...args];
}

const signalNumbers: Record<string, number> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};
const exitCode = (code: number | null, signal: NodeJS.Signals | null): number =>
  code ?? 128 + (signalNumbers[signal ?? ""] ?? 0);

function environment(extra: Record<string, string> | undefined): NodeJS.ProcessEnv {
  return {
    ...process.env,
    PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`,
    LC_ALL: "C.UTF-8",
    NO_COLOR: "1",
    ...extra,
  };
}

/** Runs to the end and returns what happened; only a program that is not there throws. */
export async function tryRun(command: Command, options: RunOptions = {}): Promise<RunResult> {
  const [program, ...args] = argvOf(command);
  const child = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: environment(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    timeout: (options.timeoutMs ?? 60_000) * timeFactor,
    killSignal: "SIGKILL",
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
  // a program that exits without reading its input is not this function's fault
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  return {
    code: exitCode(code, signal),
    stdout: Buffer.concat(out).toString(),
    stderr: Buffer.concat(err).toString(),
  };
}

/** Runs to the end; throws CommandFailed when the exit code is not 0. */
export async function run(command: Command, options: RunOptions = {}): Promise<RunResult> {
  const result = await tryRun(command, options);
  if (result.code !== 0) throw new CommandFailed(argvOf(command), result);
  return result;
}

/** For exit handlers, where nothing can be awaited. Never throws. */
export function runSync(command: Command): string {
  const [program, ...args] = argvOf(command);
  const options = { env: environment(undefined), encoding: "utf8", timeout: 20_000 } as const;
  const { error, stdout } = spawnSync(program, args, options);
  return error === undefined ? stdout : "";
}

export interface WaitOptions {
  /** default 10,000, stretched by {@link timeFactor} */
  timeoutMs?: number;
  everyMs?: number;
  /** what is waited for, for the message */
  what?: string;
}

/**
 * Calls `condition` until it returns something truthy, and returns that. A condition that throws
 * (an assertion, say) counts as not yet; its last error is the cause of the failure.
 */
export async function eventually<T>(
  condition: () => T | Promise<T>,
  { timeoutMs = 10_000, everyMs = 25, what = "a condition" }: WaitOptions = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs * timeFactor;
  for (;;) {
    let last: unknown;
    try {
      const value = await condition();
      if (value) return value;
      last = `last value: ${String(value)}`;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) {
      const said = last instanceof Error ? last.message : String(last);
      throw new Error(`${what} did not come about in ${timeoutMs * timeFactor} ms; ${said}`, {
        cause: last,
      });
    }
    await delay(everyMs);
  }
}

const running = new Set<Background>();

/** A program beside the test. Its output is kept; it is killed at the latest when we exit. */
export class Background {
  readonly argv: readonly string[];
  readonly child: ChildProcess;
  private readonly out: Buffer[] = [];
  private readonly err: Buffer[] = [];
  private readonly closed: Promise<number>;
  private ended: number | undefined;

  constructor(command: Command, options: RunOptions = {}) {
    const [program, ...args] = argvOf(command);
    this.argv = [program, ...args];
    this.child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: environment(options.env),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.child.stdout?.on("data", (chunk: Buffer) => this.out.push(chunk));
    this.child.stderr?.on("data", (chunk: Buffer) => this.err.push(chunk));
    running.add(this);
    this.closed = new Promise((resolve) => {
      const end = (code: number): void => {
        this.ended ??= code;
        running.delete(this);
        resolve(this.ended);
      };
      this.child.once("error", (error) => {
        this.err.push(Buffer.from(`${error.message}\n`));
        end(127);
      });
      this.child.once("close", (code, signal) => end(exitCode(code, signal)));
    });
  }

  /** undefined while it runs */
  get code(): number | undefined {
    return this.ended;
  }

  get pid(): number {
    if (this.child.pid === undefined)
      throw new Error(`${this.argv.join(" ")} did not start: ${this.stderr}`);
    return this.child.pid;
  }

  get stdout(): string {
    return this.stdoutBytes.toString();
  }

  get stdoutBytes(): Buffer {
    return Buffer.concat(this.out);
  }

  get stderr(): string {
    return Buffer.concat(this.err).toString();
  }

  /** Waits until stdout or stderr matches; fails at once when the program ends without. */
  async output(pattern: RegExp, options: WaitOptions = {}): Promise<RegExpExecArray> {
    let dead = false;
    const match = await eventually(
      () => {
        dead = this.ended !== undefined;
        return (
          pattern.exec(this.stdout) ?? pattern.exec(this.stderr) ?? (dead ? "ended" : undefined)
        );
      },
      { what: `${this.argv.join(" ")} to say ${String(pattern)}`, ...options },
    ).catch((error: unknown) => {
      throw new Error(`${(error as Error).message}\n${this.stderr}${this.stdout}`, {
        cause: error,
      });
    });
    if (typeof match !== "object") {
      throw new Error(
        `${this.argv.join(" ")} ended with ${this.ended}\n${this.stderr}${this.stdout}`,
      );
    }
    return match;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.ended === undefined) this.child.kill(signal);
  }

  /** Waits for the end. */
  async end(timeoutMs = 30_000): Promise<RunResult> {
    await eventually(() => this.ended !== undefined, {
      timeoutMs,
      what: `the end of ${this.argv.join(" ")}`,
    });
    return { code: await this.closed, stdout: this.stdout, stderr: this.stderr };
  }

  /** Asks it to stop, kills it when it does not, and waits. */
  async stop(signal: NodeJS.Signals = "SIGTERM", timeoutMs = 10_000): Promise<RunResult> {
    this.signal(signal);
    try {
      return await this.end(timeoutMs);
    } catch {
      this.signal("SIGKILL");
      return await this.end();
    }
  }
}

process.once("exit", () => {
  for (const each of running) each.child.kill("SIGKILL");
});
