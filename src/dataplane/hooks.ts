// SPDX-License-Identifier: Apache-2.0
/**
 * Where the BPF programs hang: pinned TCX links (Linux 6.6), else clsact filters.
 *
 * Both live without a process. A hook that is there already is changed in place, so traffic never
 * passes a device without a program. A link whose device is gone is defunct (the kernel says
 * ifindex 0) and is removed.
 *
 * On egress, where vnetifs have their shortcut, a clsact filter is used on every kernel: it is lost
 * when somebody moves the device to another network namespace. A TCX link would stay (seen on
 * 6.18), and its program send frames to devices of that namespace that have the numbers of ours.
 *
 * To hook a TCX program takes the kernel a grace period of RCU, some 10 ms in which nothing else about devices is done; a
 * filter takes none. Where many devices are hooked at once they have a filter at first (ensureSoon), which moveToTcx() replaces
 * one by one.
 *
 * A device may have a program on its XDP hook as well (xdp-hooks.ts), on every kernel by a pinned link.
 */
import { existsSync, readdirSync, unlinkSync } from "node:fs";
import path from "node:path";
import type { Direction, FilterInfo, Native } from "../native/contract.js";
import { errnoName } from "../host/errno.js";
import { XdpHooks } from "./xdp-hooks.js";

export type HookMode = "tcx" | "clsact";

/** How our clsact filters are told from those of others. */
const filterPriority = 1798;
const filterHandle = 0x764e;
const pinPattern = /^link-(\d+)-(ingress|egress|xdp)$/u;
/** no such device, or no such qdisc */
const goneErrors = new Set(["ENODEV", "ENOENT", "EINVAL"]);
const noTcx = new Set(["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

export interface Hook {
  ifindex: number;
  direction: Direction | "xdp";
}

/** One of TC. */
export interface TcHook extends Hook {
  direction: Direction;
}

/** The hook of a pin's name; undefined: it is another pin. */
export function hookOfPin(name: string): Hook | undefined {
  const match = pinPattern.exec(name);
  if (match === null) return undefined;
  return { ifindex: Number(match[1]), direction: match[2] as Hook["direction"] };
}

/** Whether our filter was there. The qdisc stays: others may have filters in it. */
export function removeOurFilter(native: Native, { ifindex, direction }: TcHook): boolean {
  const isOurs = ({ priority, handle }: FilterInfo): boolean =>
    priority === filterPriority && handle === filterHandle;
  if (!native.clsactFilters(ifindex, direction).some(isOurs)) return false;
  native.clsactDetach(ifindex, direction, filterPriority, filterHandle);
  return true;
}

export class Hooks {
  readonly xdp: XdpHooks;
  private knownMode: HookMode | undefined;
  /** device -> descriptor of the program: those that have a filter still, and are to have a link */
  private readonly waiting = new Map<number, number>();
  /** told after hooks were made or taken away, whoever did it */
  onChange = (): void => undefined;

  /** Without `mode` the kernel decides: TCX where it has it. */
  constructor(
    private readonly native: Native,
    private readonly linkDir: string,
    mode?: HookMode,
  ) {
    this.knownMode = mode;
    this.xdp = new XdpHooks(native, linkDir, () => this.onChange());
  }

  /** How hooks are made on this kernel; known once one was made. */
  get mode(): HookMode {
    return this.knownMode ?? "tcx";
  }

  /** Makes the hook run the program, whatever was there of ours before. */
  ensure({ ifindex, direction }: TcHook, programFd: number): void {
    this.onChange();
    if (direction === "ingress") this.waiting.delete(ifindex);
    if (
      this.mayBeTcx({ ifindex, direction }) &&
      this.ensureTcx({ ifindex, direction }, programFd)
    ) {
      this.knownMode = "tcx";
      return;
    }
    this.attachFilter({ ifindex, direction }, programFd);
    if (direction === "ingress") this.knownMode = "clsact";
    const pin = this.pinPath({ ifindex, direction });
    if (existsSync(pin)) unlinkSync(pin);
  }

  /** The same for one of many new devices: it has a filter until moveToTcx() came to it. */
  ensureSoon(ifindex: number, programFd: number): void {
    const hook = { ifindex, direction: "ingress" } as const;
    if (this.knownMode !== "tcx" || existsSync(this.pinPath(hook)))
      return this.ensure(hook, programFd);
    this.attachFilter(hook, programFd);
    this.waiting.set(ifindex, programFd);
    this.onChange();
  }

  /** Whether there are any that wait for their link. */
  get areMoving(): boolean {
    return this.waiting.size > 0;
  }

  /** The next of those that wait gets its link; frames pass a program all the time. */
  moveToTcx(): void {
    for (const [ifindex, programFd] of this.waiting) {
      try {
        return this.ensure({ ifindex, direction: "ingress" }, programFd);
      } catch (error) {
        // with its device; whatever else it is, who watches the hooks finds it lacking
        if (!goneErrors.has(errnoName(error))) throw error;
      }
    }
  }

  remove({ ifindex, direction }: Hook): void {
    if (direction === "xdp") {
      this.xdp.remove(ifindex);
      return;
    }
    this.onChange();
    const isTcx = this.mayBeTcx({ ifindex, direction });
    if (direction === "ingress") this.waiting.delete(ifindex);
    const pin = this.pinPath({ ifindex, direction });
    if (existsSync(pin)) unlinkSync(pin);
    if (isTcx) return;
    try {
      this.native.clsactDetach(ifindex, direction, filterPriority, filterHandle);
    } catch (error) {
      // The device took its filters with it, or never had any.
      if (!["ENODEV", "ENOENT", "EINVAL"].includes(errnoName(error))) throw error;
    }
  }

  /** Pinned links that are there, defunct ones included. */
  pinned(): Hook[] {
    return readdirSync(this.linkDir).flatMap((name) => hookOfPin(name) ?? []);
  }

  /** Whether the hook is there: its link holds on to the device, or its filter is not removed. */
  present(hook: Hook): boolean {
    if (hook.direction === "xdp") return this.xdp.present(hook.ifindex);
    if (this.mayBeTcx(hook)) return existsSync(this.pinPath(hook)) && this.alive(hook);
    return this.hasFilter(hook);
  }

  /** Whether this very program hangs there; false as well where the device is gone. */
  runs(hook: Hook, programId: number): boolean {
    const { ifindex, direction } = hook;
    try {
      if (direction === "xdp") return this.xdp.runs(ifindex, programId);
      if (this.mayBeTcx(hook))
        return this.native.tcxPrograms(ifindex, direction).includes(programId);
      return (
        this.native.clsactQuery(ifindex, direction, filterPriority, filterHandle) === programId
      );
    } catch (error) {
      if (!goneErrors.has(errnoName(error))) throw error;
      return false;
    }
  }

  /** Of many hooks with the program of each: those where it does not hang. All TCX hooks are one call of the addon. */
  lacking<H extends Hook>(hooks: readonly H[], programIdOf: (hook: H) => number): H[] {
    const asked = hooks.filter((hook) => this.mayBeTcx(hook));
    const others = hooks.filter((hook) => !this.mayBeTcx(hook));
    return [
      ...this.lackingTcx(asked, asked.map(programIdOf)),
      ...others.filter((hook) => !this.runs(hook, programIdOf(hook))),
    ];
  }

  private lackingTcx<H extends Hook>(hooks: readonly H[], programIds: readonly number[]): H[] {
    const ifindexes = hooks.map(({ ifindex }) => ifindex);
    return this.native.tcxLacking(ifindexes, programIds).flatMap((at) => hooks[at] ?? []);
  }

  /** Whether it is a TCX program, whose removal the kernel does not tell; of filters it does. */
  mayBeTcx({ ifindex, direction }: Hook): boolean {
    return direction === "ingress" && this.knownMode !== "clsact" && !this.waiting.has(ifindex);
  }

  /** Whether a pinned link still holds on to its device. */
  alive(hook: Hook): boolean {
    return this.native.tcxInfo(this.pinPath(hook)).ifindex === hook.ifindex;
  }

  /** Programs and filters of others at the hook, for people. */
  others(hook: TcHook): string[] {
    const own = this.mayBeTcx(hook) && existsSync(this.pinPath(hook));
    const ownId = own ? this.native.tcxInfo(this.pinPath(hook)).programId : 0;
    const { ifindex, direction } = hook;
    const programs = this.native.tcxPrograms(ifindex, direction).filter((id) => id !== ownId);
    const filters = this.native
      .clsactFilters(ifindex, direction)
      .filter(({ priority, handle }) => priority !== filterPriority || handle !== filterHandle);
    return [
      ...programs.map((id) => `TCX program ${String(id)}`),
      ...filters.map(({ kind, priority }) => `${kind} filter with priority ${String(priority)}`),
    ];
  }

  pinPath({ ifindex, direction }: Hook): string {
    return path.join(this.linkDir, `link-${String(ifindex)}-${direction}`);
  }

  private attachFilter({ ifindex, direction }: TcHook, programFd: number): void {
    this.native.clsactAttach(programFd, ifindex, direction, filterPriority, filterHandle);
  }

  private hasFilter({ ifindex, direction }: Hook): boolean {
    if (direction === "xdp") return false;
    try {
      return this.native.clsactQuery(ifindex, direction, filterPriority, filterHandle) !== 0;
    } catch {
      // No such qdisc, or no such device: no filter.
      return false;
    }
  }

  private ensureTcx(hook: TcHook, programFd: number): boolean {
    const pin = this.pinPath(hook);
    if (existsSync(pin)) {
      if (this.alive(hook)) {
        this.native.tcxUpdate(pin, programFd);
        return true;
      }
      unlinkSync(pin);
    }
    try {
      this.native.tcxAttach(programFd, hook.ifindex, hook.direction, pin);
      if (this.hasFilter(hook)) {
        this.native.clsactDetach(hook.ifindex, hook.direction, filterPriority, filterHandle);
      }
      return true;
    } catch (error) {
      if (this.knownMode === undefined && noTcx.has(errnoName(error))) return false;
      throw error;
    }
  }
}
