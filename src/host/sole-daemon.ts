// SPDX-License-Identifier: Apache-2.0
/**
 * What one daemon alone may have, taken before anything is touched: two that make one kernel fit
 * two configurations take away what the other made.
 *
 *   the network namespace   a local socket with an abstract name, of which a namespace has one
 *   the BPF directory       a lock on it; and marks in it, which outlive the daemon as the maps do:
 *                           `state-<path of the state directory>`, and of the namespace
 *                           `netns-<inode>`, by which it is looked for and which the kernel gives
 *                           again, and `cookie-<inode>-<cookie>`, which it gives but once
 *
 * The state directory and the run directory are locked where they are opened.
 */
import { closeSync, mkdirSync, openSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { realpathSync, rmdirSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { VnetdError } from "../base/errors.js";
import type { Log } from "../log.js";
import type { Closable, Native, NetnsIdentity } from "../native/contract.js";
import { errnoName, kernelError } from "./errno.js";

const lockName = "vnetd";
const netnsMark = "netns-";
/** a release that knows it not leaves it alone, and goes by the inode */
const cookieMark = "cookie-";
const stateMark = "state-";
/** of a name on a bpffs, in which no dot may be */
const maxMarkLength = 200;

/** Throws ANOTHER_DAEMON; the lock is gone with the process. */
export function lockNamespace(native: Native, log: Log): Closable {
  let fd: number;
  try {
    fd = native.abstractListen(lockName);
  } catch (error) {
    if (errnoName(error) !== "EADDRINUSE") throw kernelError("locking the namespace", error);
    const holder = lockHolder(native);
    // anybody may take the name: who cannot be a daemon does not stop one
    if (holder !== undefined && ![0, process.geteuid?.()].includes(holder.uid)) {
      const { pid, uid } = holder;
      log.say(
        "lock_taken",
        `pid ${String(pid)} of user ${String(uid)} has taken the lock @${lockName}`,
      );
      return { close: () => undefined };
    }
    const who = holder === undefined ? "" : ` (pid ${String(holder.pid)})`;
    throw new VnetdError("ANOTHER_DAEMON", `another daemon${who} runs in this network namespace`, {
      hint: "Stop it, or use it: `vnetd status` with its --run-dir.",
    });
  }
  const server = net.createServer((socket) => socket.destroy());
  server.on("error", ({ message }) => log.say("lock_failed", `the lock @${lockName}: ${message}`));
  server.listen({ fd });
  return { close: () => void server.close() };
}

function lockHolder(native: Native): { pid: number; uid: number } | undefined {
  try {
    const fd = native.abstractConnect(lockName);
    try {
      return native.peerCredentials(fd);
    } finally {
      native.close(fd);
    }
  } catch {
    return undefined;
  }
}

/** The BPF directory, locked, and marked as the state directory's and the namespace's. */
export class BpfDirectory {
  private constructor(
    private readonly native: Native,
    private readonly dir: string,
    private readonly fd: number,
    /** directories that were made for it, the innermost first */
    private readonly made: readonly string[],
  ) {}

  static open(native: Native, dir: string): BpfDirectory {
    const made = makeDirectories(path.resolve(dir));
    let fd: number | undefined;
    try {
      fd = openSync(dir, "r");
      if (!native.fileLock(fd)) {
        throw new VnetdError("ANOTHER_DAEMON", `another daemon uses ${dir}`, {
          hint: "Stop it, or give this one another --bpffs (and --state-dir and --run-dir).",
        });
      }
      return new BpfDirectory(native, dir, fd, made);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      removeEmpty(made);
      throw kernelError(`opening ${dir}`, error);
    }
  }

  /** Throws ANOTHER_DAEMON where what is pinned is of another state directory or namespace. */
  claim(stateDir: string): void {
    const own = this.check(stateDir);
    const marks = readdirSync(this.dir);
    for (const mark of own) if (!marks.includes(mark)) mkdirSync(path.join(this.dir, mark));
  }

  /** The same, and leaves no mark; the state directory need not be there any more. Returns the marks of it. */
  check(stateDir: string): string[] {
    const state = stateMark + encoded(realPath(stateDir));
    const own = this.native.netnsIdentity();
    const marks = readdirSync(this.dir);
    for (const mark of marks) {
      if (mark.startsWith(stateMark) && mark !== state) throw this.ofOtherState(mark);
    }
    for (const inode of marksOf(marks, netnsMark)) this.checkNamespace(inode, marks, own);
    const netns = `${netnsMark}${String(own.inode)}`;
    const cookie = cookieMarkOf(own);
    // what another release, which did not know of it, has left behind
    for (const mark of readdirSync(this.dir)) {
      if (mark.startsWith(cookieMark) && mark !== cookie) rmdirSync(path.join(this.dir, mark));
    }
    return [state, netns, cookie];
  }

  /** Gives the lock back; of a start that failed nothing stays that was not there before. */
  close(failed: boolean): void {
    if (failed && this.made.length > 0) {
      const marks = readdirSync(this.dir);
      const isMark = (name: string): boolean => /^(?:state|netns|cookie|layout)-/u.test(name);
      if (marks.every(isMark)) removeEmpty(marks.map((mark) => path.join(this.dir, mark)));
      removeEmpty(this.made);
    }
    closeSync(this.fd);
  }

  private ofOtherState(mark: string): VnetdError {
    const owner = Buffer.from(mark.slice(stateMark.length), "base64url").toString("utf8");
    return new VnetdError(
      "ANOTHER_DAEMON",
      `what is pinned in ${this.dir} forwards for the state directory ${owner}`,
      {
        hint:
          `Start the daemon with --state-dir ${owner}, or give this one another --bpffs. ` +
          `When that state is given up: rm -r ${this.dir}`,
      },
    );
  }

  /** The mark of a namespace: it may be another's, which is in use, or a container that is no more has left it. */
  private checkNamespace(inode: string, marks: readonly string[], own: NetnsIdentity): void {
    // none: a release that knew no cookies has made the marks
    const cookie = marksOf(marks, `${cookieMark}${inode}-`)[0];
    if (inode === String(own.inode) && (cookie ?? String(own.cookie)) === String(own.cookie))
      return;
    if (!this.namespaceLives({ inode, cookie }, own)) {
      return rmdirSync(path.join(this.dir, `${netnsMark}${inode}`));
    }
    throw new VnetdError(
      "ANOTHER_DAEMON",
      `what is pinned in ${this.dir} forwards in another network namespace, net:[${inode}]`,
      {
        hint:
          "Give the daemons of several namespaces a --bpffs each (and --state-dir and --run-dir). " +
          `When that namespace has no vnets any more: rm -r ${this.dir}`,
      },
    );
  }

  /**
   * As far as it can be seen from here: one of that inode has a process in it, or a name, and is the one of that
   * cookie, or cannot be asked for it (it takes CAP_SYS_ADMIN, which the service has not).
   */
  private namespaceLives(of: { inode: string; cookie: string | undefined }, own: NetnsIdentity) {
    // of those that live each has an inode of its own, and this is ours
    if (of.inode === String(own.inode)) return false;
    for (const where of namespacePaths(of.inode)) {
      if (where === undefined || of.cookie === undefined) return true;
      try {
        const found = this.native.netnsIdentity(where);
        if (String(found.inode) === of.inode) return String(found.cookie) === of.cookie;
      } catch (error) {
        // the process has ended, or the name is gone, since
        if (!["ENOENT", "ESRCH"].includes(errnoName(error))) return true;
      }
    }
    return false;
  }
}

/** The marks in a BPF directory, as paths. */
export function dataPlaneMarks(dir: string): string[] {
  return readdirSync(dir)
    .filter((name) => [stateMark, netnsMark, cookieMark].some((mark) => name.startsWith(mark)))
    .map((name) => path.join(dir, name));
}

function realPath(directory: string): string {
  try {
    return realpathSync(directory);
  } catch {
    return path.resolve(directory);
  }
}

function encoded(stateDir: string): string {
  return Buffer.from(stateDir).toString("base64url").slice(0, maxMarkLength);
}

/** What stands behind the mark's name. */
function marksOf(names: readonly string[], mark: string): string[] {
  return names.filter((name) => name.startsWith(mark)).map((name) => name.slice(mark.length));
}

function cookieMarkOf({ inode, cookie }: NetnsIdentity): string {
  return `${cookieMark}${String(inode)}-${String(cookie)}`;
}

/**
 * Where a namespace of that inode is, one after the other: the mounts that name it, and processes in it. undefined is
 * a place that cannot be seen: without CAP_SYS_PTRACE, as under systemd, processes with more rights than ours do not
 * show where they are.
 */
function* namespacePaths(inode: string): Generator<string | undefined> {
  const name = `net:[${inode}]`;
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [, , , root, mountPoint] = line.split(" ");
    if (root === name && mountPoint !== undefined) yield unescapedMount(mountPoint);
  }
  const hidden = seesOthers() ? [] : ["EACCES", "EPERM"];
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/u.test(pid)) continue;
    const link = `/proc/${pid}/ns/net`;
    try {
      if (readlinkSync(link) === name) yield link;
    } catch (error) {
      if (hidden.includes(errnoName(error))) yield undefined;
    }
  }
}

/** Blanks and backslashes are octal numbers in mountinfo. */
function unescapedMount(text: string): string {
  return text.replace(/\\([0-7]{3})/gu, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

const capSysPtrace = 19n;

function seesOthers(): boolean {
  const status = readFileSync("/proc/self/status", "utf8");
  const effective = /^CapEff:\s*([0-9a-f]+)$/mu.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> capSysPtrace) & 1n) === 1n;
}

function makeDirectories(dir: string): string[] {
  const first = mkdirSync(dir, { recursive: true, mode: 0o700 });
  const made: string[] = [];
  for (let at = dir; first !== undefined && at.startsWith(first); at = path.dirname(at))
    made.push(at);
  return made;
}

function removeEmpty(directories: readonly string[]): void {
  for (const each of directories) {
    try {
      rmdirSync(each);
    } catch {
      // something is in it
    }
  }
}
