// SPDX-License-Identifier: Apache-2.0
/**
 * What systemd, or whoever else set NOTIFY_SOCKET, is told by sd_notify(3): ready, reloading,
 * stopping, and, where WATCHDOG_USEC asks for it, that the daemon is alive. The pings come from a timer of the
 * event loop, which does everything else too: a loop that hangs pings no more, and systemd starts the
 * daemon anew. Without NOTIFY_SOCKET nothing is said.
 */
import type { Log } from "./log.js";
import type { Native } from "./native/contract.js";

/** systemd advises half of the time; a third lets one ping be late */
const pingsPerTimeout = 3;
/** setInterval takes no more */
const maxIntervalMs = 0x7fffffff;

export interface ServiceManagerParts {
  native: Pick<Native, "sdNotify">;
  variables: NodeJS.ProcessEnv;
  log: Log;
}

export class ServiceManager {
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly parts: ServiceManagerParts) {}

  /** Throws when it cannot be said: a daemon that is not known to be ready would be killed later. */
  ready(): void {
    this.parts.native.sdNotify("READY=1");
    const intervalMs = pingIntervalMs(this.parts.variables, process.pid);
    if (intervalMs !== undefined)
      this.timer ??= setInterval(() => this.say("WATCHDOG=1"), intervalMs);
  }

  /** Runs a reload between the two words that systemd wants around it, whatever comes of it. */
  async reloading<T>(reload: () => Promise<T>): Promise<T> {
    const nowUs = process.hrtime.bigint() / 1000n;
    this.say(`RELOADING=1\nMONOTONIC_USEC=${String(nowUs)}`);
    try {
      return await reload();
    } finally {
      this.say("READY=1");
    }
  }

  stopping(): void {
    this.say("STOPPING=1");
  }

  /** The last ping. */
  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
  }

  /** A service manager that went away is no reason to end. */
  private say(state: string): void {
    try {
      this.parts.native.sdNotify(state);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.parts.log.say("manager_untold", `the service manager was not told: ${why}`, {
        reason: why,
      });
    }
  }
}

/** undefined where no pings are wanted, or another process's are. */
export function pingIntervalMs(variables: NodeJS.ProcessEnv, pid: number): number | undefined {
  const timeoutUs = variables["WATCHDOG_USEC"] ?? "";
  const ofPid = variables["WATCHDOG_PID"];
  if (!/^[1-9][0-9]{0,18}$/.test(timeoutUs)) return undefined;
  if (ofPid !== undefined && ofPid !== String(pid)) return undefined;
  const intervalMs = Math.floor(Number(timeoutUs) / 1000 / pingsPerTimeout);
  return Math.min(maxIntervalMs, Math.max(1, intervalMs));
}
