// SPDX-License-Identifier: Apache-2.0
/**
 * Starts a daemon for `attach` where none runs: the systemd unit where it is installed and would
 * run the daemon that was asked for, else a detached process with a log file. Waits until the
 * daemon answers; when it does not come up, shows the end of its log. What was started can be stopped
 * again, for an `attach` that fails leaves nothing behind.
 *
 * The unit is not used when a directory or file other than the default was asked for, nor from
 * within another network namespace than systemd's: its daemon would attach a device there.
 */
import { spawn, type ChildProcess } from "node:child_process";
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  readSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { ApiClient } from "../src/api/client.js";
import { errorParts, VnetdError } from "../src/base/errors.js";
import { defaultPaths, logFileVariable } from "../src/base/paths.js";
import type { Invocation } from "./command.js";
import { givenDaemonArguments } from "./daemon-options.js";
import { printableLines } from "./printable.js";

const startTimeoutMs = 60_000;
/** another `attach` may have started the daemon that made ours give up */
const graceAfterExitMs = 3_000;
const pollMs = 100;
const logTailBytes = 4096;
const logTailLines = 15;

const stopTimeoutMs = 15_000;

const unitName = "vnetd.service";

/** A daemon that runs because of this command. */
export interface StartedDaemon {
  /** Ends it and says so. Does nothing when it has ended, or when another's daemon answers. */
  stop: () => Promise<void>;
}

/** What decides whether the unit is used. A test has its own. */
export interface SystemdHost {
  /** the run directory of the unit's daemon */
  runDir: string;
  unitDirectories: readonly string[];
  /** the machine was booted with systemd */
  isBooted: () => boolean;
  /** this process is in the network namespace of systemd's services */
  sharesNetwork: () => boolean;
}

const thisHost: SystemdHost = {
  runDir: defaultPaths.runDir,
  unitDirectories: [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
  ],
  // sd_booted(3)
  isBooted: () => existsSync("/run/systemd/system"),
  sharesNetwork: () => {
    try {
      return readlinkSync("/proc/self/ns/net") === readlinkSync("/proc/1/ns/net");
    } catch {
      // without the right to look, the unit could not be started either
      return false;
    }
  },
};

function systemctlPath(variables: NodeJS.ProcessEnv): string | undefined {
  const directories = (variables["PATH"] ?? "/usr/bin:/bin").split(":");
  return directories
    .map((directory) => join(directory, "systemctl"))
    .find((path) => existsSync(path));
}

/** The path of systemctl if the installed unit is the daemon that is wanted. */
function usableSystemctl(invocation: Invocation, host: SystemdHost): string | undefined {
  const custom =
    resolve(invocation.runDir) !== host.runDir || givenDaemonArguments(invocation).length > 0;
  const installed = host.unitDirectories.some((directory) => existsSync(join(directory, unitName)));
  if (custom || !installed || !host.isBooted() || !host.sharesNetwork()) return undefined;
  return systemctlPath(invocation.environment.variables);
}

/** Its exit code. What it says is a remark of ours. */
async function runSystemctl(
  systemctl: string,
  verb: "start" | "stop" | "enable",
  invocation: Invocation,
): Promise<number | null> {
  // of links that it makes nobody needs to hear
  const quiet = verb === "enable" ? ["--quiet"] : [];
  const child = spawn(systemctl, [...quiet, verb, unitName], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  const code = await new Promise<number | null>((done, failed) => {
    child.once("error", failed);
    child.once("close", done);
  });
  if (said !== "") invocation.output.noteLines("systemctl:", printableLines(said.trimEnd()));
  return code;
}

async function startUnit(systemctl: string, invocation: Invocation): Promise<StartedDaemon> {
  const { output } = invocation;
  output.note(`no daemon was running; starting ${unitName}`);
  if ((await runSystemctl(systemctl, "start", invocation)) !== 0) {
    throw new VnetdError("START_FAILED", `${unitName} did not start`, {
      hint: "See why: systemctl status vnetd; journalctl -u vnetd",
    });
  }
  await waitForAnswer(invocation, () => false);
  return {
    stop: async () => {
      const code = await runSystemctl(systemctl, "stop", invocation);
      output.note(code === 0 ? `${unitName} was stopped again` : `${unitName} was not stopped`);
    },
  };
}

/** How the machine's own daemon comes at every boot. */
export interface BootUnit {
  enable: () => Promise<void>;
}

/**
 * The unit, for `attach --persist`. Throws where nothing would start at boot what was asked for; nothing has
 * been done then.
 */
export function bootUnit(invocation: Invocation, host: SystemdHost = thisHost): BootUnit {
  const systemctl = usableSystemctl(invocation, host);
  if (systemctl === undefined) {
    throw new VnetdError("USAGE", `--persist: ${unitName} does not start such a daemon here`, {
      hint:
        `It wants systemd, the installed ${unitName}, this machine's own network namespace and the default directories. ` +
        "Without --persist the device is attached again by the next daemon that uses the same state directory, however that is started.",
    });
  }
  return {
    enable: async () => {
      if ((await runSystemctl(systemctl, "enable", invocation)) !== 0) {
        throw new VnetdError("START_FAILED", `${unitName} was not enabled for the next boot`, {
          hint: "The device is attached. See why: systemctl enable vnetd",
        });
      }
    },
  };
}

interface Log {
  path: string;
  fd: number;
  /** where this daemon's part begins */
  startBytes: number;
}

function logPaths(runDir: string): string[] {
  const inRunDir = join(runDir, "vnetd.log");
  return runDir === defaultPaths.runDir ? ["/var/log/vnetd.log", inRunDir] : [inRunDir];
}

function openLog(runDir: string): Log {
  let refused: unknown;
  try {
    mkdirSync(runDir, { recursive: true, mode: 0o755 });
  } catch (error) {
    refused = error;
  }
  for (const path of logPaths(runDir)) {
    try {
      const fd = openSync(path, "a+", 0o640);
      return { path, fd, startBytes: fstatSync(fd).size };
    } catch (error) {
      // the first says why: without the directory there can be no file in it
      refused ??= error;
    }
  }
  const why = refused instanceof Error ? refused.message : String(refused);
  throw new VnetdError("START_FAILED", `no daemon runs, and none can be started: ${why}`, {
    hint: "Run the command as root, for example with sudo.",
    cause: refused,
  });
}

/** The last lines that this daemon wrote. */
function logTail({ fd, startBytes }: Log): string {
  const size = fstatSync(fd).size;
  // smaller than it was: the daemon has moved what was old to another file
  const from = Math.max(size < startBytes ? 0 : startBytes, size - logTailBytes);
  const buffer = Buffer.alloc(Math.max(0, size - from));
  const bytes = readSync(fd, buffer, 0, buffer.length, from);
  const lines = buffer.toString("utf8", 0, bytes).trimEnd().split("\n");
  return printableLines(lines.slice(-logTailLines).join("\n"));
}

async function answers(runDir: string): Promise<boolean> {
  try {
    const client = await ApiClient.connect({
      runDir,
      connectTimeoutMs: 1000,
      answerTimeoutMs: 5000,
    });
    try {
      await client.request("version", {});
      return true;
    } finally {
      client.close();
    }
  } catch (error) {
    const { code } = errorParts(error);
    if (code === "NO_DAEMON" || code === "CONNECTION_LOST" || code === "TIMEOUT") return false;
    throw error;
  }
}

/** Throws START_FAILED when the daemon is gone for good or the time is over. */
async function waitForAnswer(invocation: Invocation, isGone: () => boolean): Promise<void> {
  let deadline = performance.now() + startTimeoutMs;
  let gone = false;
  while (!(await answers(invocation.runDir))) {
    if (!gone && isGone()) {
      gone = true;
      deadline = performance.now() + graceAfterExitMs;
    }
    if (performance.now() > deadline) {
      throw new VnetdError(
        "START_FAILED",
        gone ? "the daemon ended at once" : "the daemon does not answer",
        {
          hint: "See its log; vnetd run starts it in the foreground.",
        },
      );
    }
    await new Promise((done) => setTimeout(done, pollMs));
  }
}

function spawnDaemon(invocation: Invocation, log: Log): ChildProcess {
  const { binary, variables } = invocation.environment;
  const given = givenDaemonArguments(invocation).flatMap(({ flag, value }) => [flag, value]);
  // nobody waits for this daemon's word but us, by its socket
  const env: NodeJS.ProcessEnv = { ...variables, [logFileVariable]: log.path };
  delete env["NOTIFY_SOCKET"];
  const child = spawn(
    process.execPath,
    [binary, "run", "--run-dir", resolve(invocation.runDir), ...given],
    {
      cwd: "/",
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
      env,
    },
  );
  child.unref();
  return child;
}

async function endProcess(child: ChildProcess, invocation: Invocation): Promise<void> {
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
  if (hasEnded()) return;
  const pid = String(child.pid);
  child.kill("SIGTERM");
  const deadline = performance.now() + stopTimeoutMs;
  while (!hasEnded() && performance.now() < deadline)
    await new Promise((done) => setTimeout(done, pollMs));
  invocation.output.note(
    hasEnded()
      ? `the daemon (pid ${pid}) was stopped again`
      : `the daemon (pid ${pid}) does not end`,
  );
}

async function startDetached(invocation: Invocation): Promise<StartedDaemon> {
  const log = openLog(resolve(invocation.runDir));
  try {
    const child = spawnDaemon(invocation, log);
    const failed: { error?: Error } = {};
    child.once("error", (error) => (failed.error = error));
    invocation.output.note(
      `no daemon was running; starting one (pid ${child.pid ?? "?"}, log ${log.path})`,
    );
    try {
      await waitForAnswer(
        invocation,
        () => failed.error !== undefined || child.exitCode !== null || child.signalCode !== null,
      );
    } catch (error) {
      if (failed.error !== undefined) invocation.output.note(failed.error.message);
      const tail = logTail(log);
      if (tail !== "") invocation.output.noteLines(`the end of ${log.path}:`, tail);
      await endProcess(child, invocation);
      throw error;
    }
    return { stop: () => endProcess(child, invocation) };
  } finally {
    closeSync(log.fd);
  }
}

export async function startDaemon(
  invocation: Invocation,
  host: SystemdHost = thisHost,
): Promise<StartedDaemon> {
  const systemctl = usableSystemctl(invocation, host);
  return systemctl === undefined ? startDetached(invocation) : startUnit(systemctl, invocation);
}
