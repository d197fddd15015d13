// SPDX-License-Identifier: Apache-2.0
/**
 * Takes the whole data plane away, as `vnetd detach --all` asks for: hooks, devices, SAs, memberships, and all
 * that is pinned. What bears our names, aliases and ids goes; of others nothing is touched. Every step is tried
 * whatever became of the one before, and finds what is there by itself, so that it ends what another run, or
 * somebody by hand, has begun.
 */
import { existsSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import path from "node:path";
import { addressToText, type Family } from "../base/address.js";
import { VnetdError } from "../base/errors.js";
import { vnetIdFromBytes, type VnetId } from "../base/vnet-id.js";
import { vnetdFamily, VnetdUnderlay } from "../generated/layouts.js";
import { removeBridge } from "../host/bridge.js";
import { errnoName, kernelError } from "../host/errno.js";
import { EspHost } from "../host/esp.js";
import { espAlias, isHelperAlias, macOf, peerNameOf, vnetOfAlias } from "../host/names.js";
import { dataPlaneMarks } from "../host/sole-daemon.js";
import type { LinkInfo, Native } from "../native/contract.js";
import { openOther, removeGeneration } from "./generation.js";
import { removeOurFilter, hookOfPin } from "./hooks.js";

export interface RemovalOptions {
  bpffs: string;
  /** of the state directory; undefined: it is not there any more */
  hostId: string | undefined;
  /** groups of the configuration, for devices whose records are gone, and of vnets */
  groups: readonly string[];
}

export type RemovedKind = "hook" | "group" | "device" | "bridge" | "security associations" | "pins";

export interface Removal {
  removed: { kind: RemovedKind; name: string }[];
  /** what is not removed on purpose, and why */
  left: string[];
  /** what could not be removed, and why */
  failed: string[];
}

interface Pinned {
  dir: string;
  records: VnetdUnderlay[];
  vnets: VnetId[];
}

const layoutPattern = /^layout-\d{1,9}$/u;
/** RT_SCOPE_HOST */
const hostScope = 254;

/** Throws ANOTHER_DAEMON, with nothing removed, where nothing of ours is pinned and what is there is another vnetd's. */
export function removeDataPlane(native: Native, options: RemovalOptions): Removal {
  return new Remover(native, options).run();
}

class Remover {
  private readonly result: Removal = { removed: [], left: [], failed: [] };
  private readonly pinned: readonly Pinned[];
  private readonly names: ReadonlyMap<number, string>;
  /** vnets of another vnetd: with them, what both would use stays */
  private readonly foreign: ReadonlySet<VnetId>;

  constructor(
    private readonly native: Native,
    private readonly options: RemovalOptions,
  ) {
    this.pinned = this.generations().map((dir) => this.read(dir));
    this.names = new Map(native.linkList().map(({ ifindex, name }) => [ifindex, name]));
    this.foreign = this.foreignVnets();
  }

  /** Hooks first: from then on nothing is received, and nothing points to what goes after. */
  run(): Removal {
    this.removeHooks();
    this.removeVnets();
    if (this.foreign.size === 0) {
      this.removeSecurity();
      this.removeHelpers();
    }
    this.leaveGroups();
    this.removePins();
    return this.result;
  }

  // ---- what is pinned

  private generations(): string[] {
    const { bpffs } = this.options;
    if (!existsSync(bpffs)) return [];
    return readdirSync(bpffs)
      .filter((name) => layoutPattern.test(name))
      .map((name) => path.join(bpffs, name));
  }

  /** As far as this release can read it. */
  private read(dir: string): Pinned {
    const found: Pinned = { dir, records: [], vnets: [] };
    this.attempt(`reading ${dir}`, () => {
      const { maps, close } = openOther(this.native, dir);
      try {
        const has = (name: string, size: number): boolean =>
          maps.has(name) && this.native.mapInfo(maps.fd(name)).valueSize === size;
        if (has("underlays", VnetdUnderlay.size)) found.records = maps.underlays();
        if (has("vnet_ids", 4))
          found.vnets = [...maps.vnetSlots().keys()].map((hex) =>
            vnetIdFromBytes(Buffer.from(hex, "hex")),
          );
      } finally {
        close();
      }
    });
    return found;
  }

  // ---- steps

  private removeHooks(): void {
    for (const { dir } of this.pinned) {
      this.attempt(`the hooks in ${dir}`, () => {
        for (const name of readdirSync(dir)) {
          const hook = hookOfPin(name);
          if (hook === undefined) continue;
          // XDP goes some time after its pin otherwise
          if (hook.direction === "xdp") this.native.xdpDetach(path.join(dir, name));
          unlinkSync(path.join(dir, name));
          this.hookGone(hook.ifindex, hook.direction);
        }
      });
    }
    for (const { ifindex, alias } of this.native.linkList()) {
      // those of our devices go with them
      if (isOurs(alias)) continue;
      for (const direction of ["ingress", "egress"] as const) {
        this.attempt(`the filter at ${this.nameOf(ifindex)}`, () => {
          if (removeOurFilter(this.native, { ifindex, direction }))
            this.hookGone(ifindex, direction);
        });
      }
    }
  }

  /** Said of devices that stay. */
  private hookGone(ifindex: number, direction: string): void {
    const link = this.native.linkAt(ifindex);
    if (link === undefined || isOurs(link.alias)) return;
    this.gone("hook", `${link.name} ${direction}`);
  }

  /** Interfaces first, so that no port of ours keeps a bridge. */
  private removeVnets(): void {
    const links = this.native.linkList().filter(({ alias }) => vnetOf(alias) !== undefined);
    for (const link of links) {
      const id = vnetOf(link.alias) as VnetId;
      if (link.kind === "bridge" || this.foreign.has(id)) continue;
      this.removeDevice(link);
    }
    for (const { kind, name, alias } of links) {
      const id = vnetOf(alias) as VnetId;
      if (kind !== "bridge" || this.foreign.has(id)) continue;
      this.attempt(name, () => {
        const why = removeBridge(this.native, name, id);
        if (why === undefined) this.gone("bridge", name);
        else this.result.left.push(why);
      });
    }
  }

  /** Vnets whose devices were made by a host with another id: by a vnetd with another state directory. */
  private foreignVnets(): Set<VnetId> {
    const { hostId, bpffs } = this.options;
    const own = new Set(this.pinned.flatMap(({ vnets }) => vnets));
    const foreign = new Map<VnetId, string>();
    for (const { name, kind, alias, mac } of this.native.linkList()) {
      const id = vnetOf(alias);
      if (hostId === undefined || id === undefined || own.has(id)) continue;
      const isPeer = kind === "veth" && name === peerNameOf(id);
      if (isPeer && mac !== macOf(hostId, id, "peer")) foreign.set(id, name);
    }
    const [first] = foreign.values();
    if (first !== undefined && this.pinned.length === 0) {
      throw new VnetdError(
        "ANOTHER_DAEMON",
        `${first} was made by a vnetd with another state directory, and nothing is pinned in ${bpffs}`,
        { hint: "Give the --state-dir and the --bpffs of that one." },
      );
    }
    for (const name of foreign.values())
      this.result.left.push(`${name} stays: a vnetd with another state directory made it`);
    return new Set(foreign.keys());
  }

  /** Policies and SAs, then the interfaces that they belong to. */
  private removeSecurity(): void {
    const devices = this.native.linkList().filter(({ alias }) => alias === espAlias);
    this.attempt("the kernel's ESP", () => {
      const esp = new EspHost(this.native);
      const count = associations(esp);
      esp.removeAll(new Set());
      if (count > 0) this.gone("security associations", String(count));
      for (const { name } of devices) this.gone("device", name);
    });
  }

  private removeHelpers(): void {
    for (const link of this.native.linkList())
      if (isHelperAlias(link.alias) && link.alias !== espAlias) this.removeDevice(link);
  }

  /** By the records; and, where those are gone, the configured groups where they look like ours. */
  private leaveGroups(): void {
    const left = new Set<string>();
    const leave = (ifindex: number, address: string, prefixLength: number): void => {
      const name = `${address} on ${this.nameOf(ifindex)}`;
      if (left.has(name)) return;
      this.attempt(`the group ${name}`, () => {
        try {
          this.native.addressDelete(ifindex, address, prefixLength);
        } catch (error) {
          if (["EADDRNOTAVAIL", "ENODEV"].includes(errnoName(error))) return;
          throw error;
        }
        left.add(name);
        this.gone("group", name);
      });
    };
    for (const { ifindex, family, group } of this.pinned.flatMap(({ records }) => records))
      leave(ifindex, addressToText(group), wholeOf(family === vnetdFamily.FAMILY_IPV6 ? 6 : 4));
    for (const {
      ifindex,
      address,
      autojoin,
      scope,
      family,
      prefixLength,
    } of this.native.addressList()) {
      const looksOurs =
        autojoin && prefixLength === wholeOf(family) && (family === 6 || scope === hostScope);
      if (looksOurs && this.foreign.size === 0 && this.options.groups.includes(address))
        leave(ifindex, address, prefixLength);
    }
  }

  private removePins(): void {
    const { bpffs } = this.options;
    if (!existsSync(bpffs)) return;
    for (const { dir } of this.pinned) {
      this.attempt(dir, () => {
        removeGeneration(dir);
        this.gone("pins", dir);
      });
    }
    this.attempt(bpffs, () => {
      for (const mark of dataPlaneMarks(bpffs)) rmdirSync(mark);
      if (readdirSync(bpffs).length > 0) this.result.left.push(`${bpffs} stays: others are in it`);
      else rmdirSync(bpffs);
    });
  }

  // ---- parts

  /** Of a pair both ends go, the first time. */
  private removeDevice({ name, ifindex }: LinkInfo): void {
    this.attempt(name, () => {
      try {
        this.native.linkDelete(ifindex);
      } catch (error) {
        if (errnoName(error) === "ENODEV") return;
        throw error;
      }
      this.gone("device", name);
    });
  }

  private nameOf(ifindex: number): string {
    return this.names.get(ifindex) ?? `device ${String(ifindex)}`;
  }

  private gone(kind: RemovedKind, name: string): void {
    this.result.removed.push({ kind, name });
  }

  private attempt(what: string, step: () => void): void {
    try {
      step();
    } catch (error) {
      this.result.failed.push(kernelError(what, error).message);
    }
  }
}

function isOurs(alias: string | undefined): boolean {
  return isHelperAlias(alias) || vnetOfAlias(alias) !== undefined;
}

/** undefined for helper devices, which bear no vnet's id */
function vnetOf(alias: string | undefined): VnetId | undefined {
  return isHelperAlias(alias) ? undefined : vnetOfAlias(alias);
}

function wholeOf(family: Family): number {
  return family === 6 ? 128 : 32;
}

function associations(esp: EspHost): number {
  try {
    return esp.stats().length;
  } catch {
    // a kernel without ESP has none
    return 0;
  }
}
