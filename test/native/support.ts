// SPDX-License-Identifier: Apache-2.0
/**
 * What the tests of the native addon share: BPF objects compiled on the spot, directories on a
 * bpffs, and network namespaces in which an agent runs the addon's operations.
 */
import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import type { EspHost } from "../../src/host/esp.js";
import type { EspKeys } from "../../src/keys/esp-keys.js";
import type { Native, NativeError, NetlinkEvent, XfrmState } from "../../src/native/contract.js";

export const here = dirname(fileURLToPath(import.meta.url));
export const addonPath = join(here, "../../build/addon/vnetd.node");

const bpffs = "/sys/fs/bpf";
const bpffsMagic = 0xcafe4a11;

/** Compiles test/native/NAME.bpf.c; gives the object's path in a directory of the test's own. */
export function compileBpf(directory: string, name: string, defines: string[] = []): string {
  const output = join(directory, `${name}-${String(defines.length)}.bpf.o`);
  const machine = execFileSync("cc", ["-dumpmachine"], { encoding: "utf8" }).trim();
  execFileSync(
    "clang",
    ["-O2", "-g", "-Wall", "-target", "bpf", `-I/usr/include/${machine}`]
      .concat(defines.map((define) => `-D${define}`))
      .concat(["-c", join(here, `${name}.bpf.c`), "-o", output]),
    { stdio: "inherit" },
  );
  return output;
}

export function temporaryDirectory(): string {
  return mkdtempSync(join(tmpdir(), "vnetd-native-"));
}

/** An empty directory on a bpffs, which is mounted where it is missing. */
export function pinDirectory(name: string): string {
  if (statfsSync(bpffs).type !== bpffsMagic) {
    execFileSync("mount", ["-t", "bpf", "bpf", bpffs]);
  }
  const directory = join(bpffs, `a-${name}-${String(process.pid)}`);
  removePins(directory);
  mkdirSync(directory);
  return directory;
}

export function removePins(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

export function pins(directory: string): string[] {
  return readdirSync(directory).sort();
}

/** What an operation threw, as the contract's error; fails when it threw nothing. */
export function errorOf(run: () => unknown): NativeError {
  try {
    run();
  } catch (error) {
    return error as NativeError;
  }
  throw new Error("nothing was thrown");
}

/** errorOf for what an agent rejects with */
export async function rejectionOf(promise: Promise<unknown>): Promise<NativeError> {
  try {
    await promise;
  } catch (error) {
    return error as NativeError;
  }
  throw new Error("nothing was thrown");
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until `ready` gives something other than undefined and false. */
export async function eventually<T>(ready: () => T | undefined | false, what: string): Promise<T> {
  const deadlineMs = Date.now() + 5000;
  for (;;) {
    const value = ready();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadlineMs) throw new Error(`waited in vain for ${what}`);
    await sleep(10);
  }
}

interface AgentMessage {
  type: "result" | "error" | "event";
  id: number;
  result?: unknown;
  error?: object;
  handle: number;
  event: unknown;
}

type Operations = {
  [Name in keyof Native]: (
    ...parameters: Parameters<Native[Name]>
  ) => Promise<ReturnType<Native[Name]>>;
};

/** EspHost (src/host/esp.ts); addIn and addOut give back the keys as they are afterwards */
export type EspOperation = <Name extends EspMethod>(
  method: Name,
  ...parameters: Parameters<EspHost[Name]>
) => Promise<Name extends "addIn" | "addOut" ? EspKeys : ReturnType<EspHost[Name]>>;
type EspMethod = {
  [Name in keyof EspHost]: EspHost[Name] extends (...parameters: never[]) => unknown ? Name : never;
}[keyof EspHost];

interface ExtraOperations {
  esp: EspOperation;
  monitor(): Promise<number>;
  xfrmEvents(): Promise<number>;
  xfrmAddAndShow(state: XfrmState): Promise<{ keys: Uint8Array[]; error?: string }>;
  watchTcx(ifindexes: number[], programIds: number[], periodMs: number): Promise<number>;
  ring(mapFd: number): Promise<number>;
  stop(handle: number): Promise<void>;
  block(ifindex: number): Promise<void>;
  listen(fd: number): Promise<{ handle: number; address: { address: string; port: number } }>;
  send(handle: number, text: string, port: number, address: string): Promise<void>;
}

/** A network namespace and a process in it. */
export class Namespace {
  readonly name: string;
  readonly run: Operations & ExtraOperations;
  private readonly child: ChildProcess;
  private readonly events: { handle: number; event: unknown }[] = [];
  private readonly waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: unknown) => void }
  >();
  private nextId = 1;

  constructor(suffix: string) {
    this.name = `a-${suffix}-${String(process.pid)}`;
    execFileSync("ip", ["netns", "add", this.name]);
    // not `ip netns exec`, which hides the bpffs
    this.child = fork(join(here, "agent.mjs"), [addonPath], {
      execPath: "nsenter",
      execArgv: [`--net=/run/netns/${this.name}`, process.execPath],
      serialization: "advanced",
      stdio: "inherit",
    });
    this.child.on("message", (message: AgentMessage) => {
      this.onMessage(message);
    });
    this.run = new Proxy(
      {},
      {
        get:
          (_target, method) =>
          (...parameters: unknown[]) =>
            this.call(String(method), parameters),
      },
    ) as Operations & ExtraOperations;
  }

  /** what a monitor or ring reported so far */
  eventsOf<T = NetlinkEvent>(handle: number): T[] {
    return this.events.filter((entry) => entry.handle === handle).map((entry) => entry.event as T);
  }

  /** a program in the namespace, e.g. ("ip", "link", "set", …) */
  exec(...command: string[]): string {
    return this.execWith("", ...command);
  }

  /** exec with something to read on its stdin */
  execWith(input: string, ...command: string[]): string {
    const result = spawnSync("nsenter", [`--net=/run/netns/${this.name}`, ...command], {
      encoding: "utf8",
      input,
    });
    if (result.error !== undefined) throw result.error;
    if (result.status !== 0) throw new Error(`${command.join(" ")}: ${result.stderr}`);
    return result.stdout;
  }

  /** ends the process as a crash would; the namespace stays */
  async kill(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGKILL");
    await ended;
  }

  async close(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.kill();
    execFileSync("ip", ["netns", "delete", this.name]);
  }

  private call(method: string, parameters: unknown[]): Promise<unknown> {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.child.send({ id, method, parameters });
    });
  }

  private onMessage(message: AgentMessage): void {
    if (message.type === "event") {
      this.events.push({ handle: message.handle, event: message.event });
      return;
    }
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.type === "result") waiting?.resolve(message.result);
    else waiting?.reject(Object.assign(new Error(), message.error));
  }
}
