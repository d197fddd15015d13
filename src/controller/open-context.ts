// SPDX-License-Identifier: Apache-2.0
/** Opens the data plane, and makes of it and the options what all parts of the controller share. */
import { randomBytes } from "node:crypto";
import os from "node:os";
import type { DaemonConfig } from "../config/daemon-config.js";
import { carryOver } from "../dataplane/carry-over.js";
import { Control } from "../dataplane/control.js";
import { finishGeneration, openGeneration } from "../dataplane/generation.js";
import { Hooks, type HookMode } from "../dataplane/hooks.js";
import { VnetTable } from "../dataplane/vnet-table.js";
import type { Log } from "../log.js";
import type { Native } from "../native/contract.js";
import { KeyStore } from "../store/key-store.js";
import type { StateDirectory } from "../store/state-directory.js";
import type { Context } from "./context.js";
import { Counts } from "./counts.js";
import { News } from "./news.js";

export interface ControllerOptions {
  native: Native;
  log: Log;
  config: DaemonConfig;
  state: StateDirectory;
  bpffs: string;
  objectPath: string;
  /** left out: what the kernel has */
  hookMode?: HookMode;
}

export function openContext(options: ControllerOptions): Context {
  const { native, log, config, state, bpffs, objectPath, hookMode } = options;
  const { entries, hosts, neighbours } = config.limits;
  const generation = openGeneration(native, {
    bpffs,
    objectPath,
    fdbEntries: entries,
    nexthops: hosts,
    neighbours,
  });
  const { maps } = generation;
  const { vnetd_control: controlProgram, vnetd_send: sendProgram } = generation.programs;
  if (controlProgram === undefined || sendProgram === undefined)
    throw new Error("the BPF object has no program vnetd_control, or no vnetd_send");
  const control = new Control(native, controlProgram, sendProgram);
  if (generation.fresh) {
    const nextHandle = carryOver(native, { generation, control, log });
    finishGeneration(native, generation, nextHandle);
  }
  return {
    native,
    log,
    config,
    hostId: state.hostId,
    bootNonce: randomBytes(8).toString("hex"),
    probeSecret: randomBytes(16),
    hostName: config.hostName ?? os.hostname(),
    generation,
    maps,
    keys: new KeyStore({
      stateDir: state.path,
      credentialsDir: process.env["CREDENTIALS_DIRECTORY"],
    }),
    hooks: new Hooks(native, generation.dir, hookMode),
    control,
    table: new VnetTable(native, maps),
    counts: new Counts(),
    news: new News(),
  };
}
