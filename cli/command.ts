// SPDX-License-Identifier: Apache-2.0
/**
 * The form of a command. One table of these (commands.ts) makes the yargs program, the help and
 * the completions, so that the three cannot disagree.
 */
import type { Readable } from "node:stream";
import type {
  Method,
  Params,
  Result,
  StreamEvent,
  StreamMethod,
  StreamParams,
} from "../src/api/contract.js";
import { followStream, requestOnce, type ApiClient, type StreamReader } from "../src/api/client.js";
import { VnetdError } from "../src/base/errors.js";
import type { Output } from "./output.js";
import type { SystemdHost } from "./start-daemon.js";

/** What a shell may complete in this place. */
export type Completion =
  | "device"
  | "vnet"
  | "file"
  | "directory"
  | "command"
  | "shell"
  | "security"
  | "suite"
  | "encapsulation"
  | "switch"
  | "none";

export interface PositionalSpec {
  name: string;
  describe: string;
  completes: Completion;
  optional?: boolean;
  /** takes all that follow; only the last may */
  many?: boolean;
}

export interface OptionSpec {
  name: string;
  short?: string;
  describe: string;
  /** a flag has no value */
  flag?: boolean;
  /** the value's name in the help */
  value?: string;
  completes?: Completion;
}

export interface CommandSpec {
  name: string;
  describe: string;
  positionals?: readonly PositionalSpec[];
  options?: readonly OptionSpec[];
  /** a paragraph below the command's help */
  epilogue?: string;
  hidden?: boolean;
  /** the exit code, 0 when none is given */
  run: (invocation: Invocation) => Promise<number | void> | number | void;
}

/** What runs the program: the process's own, or a test's. */
export interface Environment {
  /** "vnetd" or "vn" */
  program: string;
  /** the file that runs vnetd, to start a daemon with */
  binary: string;
  variables: NodeJS.ProcessEnv;
  stdin: Readable;
  /** only a test gives another one than this machine */
  systemd?: SystemdHost;
}

/** One command as it was typed. */
export class Invocation {
  constructor(
    readonly environment: Environment,
    readonly output: Output,
    readonly runDir: string,
    private readonly values: ReadonlyMap<string, unknown>,
    /** all commands, for those that speak about commands */
    readonly commands: readonly CommandSpec[],
  ) {}

  /** A positional that must be there, which yargs has checked. */
  positional(name: string): string {
    const value = this.values.get(name);
    if (typeof value !== "string") throw new VnetdError("USAGE", `${name} is missing`);
    return value;
  }

  list(name: string): string[] {
    const value = this.values.get(name);
    return Array.isArray(value) ? value.map(String) : [];
  }

  /** An option with a value, or an optional positional. */
  option(name: string): string | undefined {
    const value = this.values.get(name);
    return typeof value === "string" ? value : undefined;
  }

  flag(name: string): boolean {
    return this.values.get(name) === true;
  }

  /** Until the reader closes the client, or Ctrl-C. */
  async follow<M extends StreamMethod>(
    method: M,
    params: StreamParams<M>,
    reader: (client: ApiClient) => StreamReader<StreamEvent<M>>,
  ): Promise<void> {
    let stop = (): void => undefined;
    const onSignal = (): void => stop();
    process.on("SIGINT", onSignal);
    process.on("SIGTERM", onSignal);
    this.output.onReaderGone(onSignal);
    try {
      await followStream({ runDir: this.runDir }, method, params, (client) => {
        stop = () => client.close();
        return reader(client);
      });
    } finally {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    }
  }

  /** answerTimeoutMs: for what may take longer than other requests */
  request<M extends Method>(
    method: M,
    params: Params<M>,
    answerTimeoutMs?: number,
  ): Promise<Result<M>> {
    const options = answerTimeoutMs === undefined ? {} : { answerTimeoutMs };
    return requestOnce({ runDir: this.runDir, ...options }, method, params);
  }
}
