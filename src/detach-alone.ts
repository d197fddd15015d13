// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd detach --all` where no daemon answers. It takes the locks that a daemon takes, so that it does nothing to
 * one that runs, and refuses what forwards for another state directory or network namespace.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import type { DetachAllInfo } from "./api/contract.js";
import { errorParts, VnetdError } from "./base/errors.js";
import type { RunOptions } from "./base/paths.js";
import {
  daemonConfigDefaults,
  loadDaemonConfig,
  type DaemonConfig,
} from "./config/daemon-config.js";
import { removeDataPlane } from "./dataplane/removal.js";
import { BpfDirectory, lockNamespace } from "./host/sole-daemon.js";
import { createLog } from "./log.js";
import { loadNative } from "./native/load.js";
import { StateDirectory } from "./store/state-directory.js";
import { groupsOf } from "./base/vnet-group.js";

export function detachAlone(run: RunOptions): DetachAllInfo {
  const native = loadNative();
  const notes: string[] = [];
  const config = configOf(run, notes);
  const closables: (() => void)[] = [];
  try {
    const lock = lockNamespace(native, createLog({ debug: false }));
    closables.push(() => lock.close());
    if (existsSync(run.bpffs)) {
      const bpf = BpfDirectory.open(native, run.bpffs);
      closables.push(() => bpf.close(false));
      bpf.check(run.stateDir);
    }
    const state = stateOf(run, notes, (fd) => native.fileLock(fd));
    if (state !== undefined) closables.push(() => state.close());
    const forgotten = [...(state?.state.attached ?? [])];
    state?.update((draft) => Object.assign(draft, { attached: [], xdp: [] }));
    const groups = [config.group, config.group6, ...groupsOf(state?.state.vnets ?? [])];
    const removal = removeDataPlane(native, { bpffs: run.bpffs, hostId: state?.hostId, groups });
    removal.left.push(...notes);
    return { ...removal, daemon: null, forgotten, stillConfigured: [...config.attach] };
  } finally {
    for (const close of closables.reverse()) close();
  }
}

/** Only the groups are taken from it: a mistake in it does not stand in the way. */
function configOf(run: RunOptions, notes: string[]): DaemonConfig {
  try {
    return loadDaemonConfig(run.config, (name) => readFileSync(name, "utf8"));
  } catch (error) {
    notes.push(`the configuration is not used: ${errorParts(error).message}`);
    return daemonConfigDefaults();
  }
}

/** undefined: there is none, or it cannot be read. One that another process uses throws. */
function stateOf(
  { stateDir }: RunOptions,
  notes: string[],
  fileLock: (fd: number) => boolean,
): StateDirectory | undefined {
  const isThere = ["host.yaml", "state.yaml"].some((name) => existsSync(path.join(stateDir, name)));
  if (!isThere) return undefined;
  try {
    return StateDirectory.open(stateDir, fileLock);
  } catch (error) {
    if (error instanceof VnetdError && error.code === "STATE_LOCKED") throw error;
    notes.push(`the state is left as it is: ${errorParts(error).message}`);
    return undefined;
  }
}
