// SPDX-License-Identifier: Apache-2.0
/**
 * What all parts of the controller share: the kernel's ports, the opened data plane, and who this
 * host is. Made once at start, by src/controller.ts.
 */
import type { DaemonConfig } from "../config/daemon-config.js";
import type { Control } from "../dataplane/control.js";
import type { Generation } from "../dataplane/generation.js";
import type { Hooks } from "../dataplane/hooks.js";
import type { Maps } from "../dataplane/maps.js";
import type { VnetTable } from "../dataplane/vnet-table.js";
import type { Log } from "../log.js";
import type { Native } from "../native/contract.js";
import type { News } from "./news.js";
import type { KeyStore } from "../store/key-store.js";
import type { Counts } from "./counts.js";

export interface Context {
  native: Native;
  log: Log;
  config: DaemonConfig;
  /** 32 hex digits, stable */
  hostId: string;
  /** 16 hex digits, new at each start */
  bootNonce: string;
  hostName: string;
  /** what the nonces of probes are made of; new at each start */
  probeSecret: Buffer;
  generation: Generation;
  maps: Maps;
  /** where the keys of secure vnets are read */
  keys: KeyStore;
  hooks: Hooks;
  control: Control;
  table: VnetTable;
  counts: Counts;
  /** for who watches */
  news: News;
}

export function programOf({ generation }: Context, name: string): number {
  const fd = generation.programs[name];
  if (fd === undefined) throw new Error(`the BPF object has no program "${name}"`);
  return fd;
}

/** Milliseconds that never step back. */
export function nowMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}
