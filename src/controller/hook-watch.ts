// SPDX-License-Identifier: Apache-2.0
/**
 * Watches that our programs stay where they are hooked. One that somebody takes away (`tc qdisc del`,
 * `bpftool net detach`, a link that is detached by force) is noticed, said, counted and hooked again
 * within a second.
 *
 *   clsact filters   the kernel tells of filters and qdiscs that go
 *   TCX programs     it does not: the addon asks whether they hang there, twice a second at the devices that all vnets need and
 *                    every 0.9 s at each vnet's, and only when one does not is anything done here: an answer of the kernel's
 *                    takes 3 µs, and to wake up JavaScript a hundred
 *   XDP programs     nor of these: asked twice a second from here, where a device has one
 *
 * Every ten seconds the hooks that all vnets need are looked at, and those of a sixth of the vnets, of both kinds; when news
 * of the kernel were lost, all.
 */
import type { Hook } from "../dataplane/hooks.js";
import { kernelError } from "../host/errno.js";
import type { Closable, LinkInfo } from "../native/contract.js";
import type { DirectPorts } from "./direct-ports.js";
import { nowMs, programOf, type Context } from "./context.js";
import type { Helpers } from "./helpers.js";
import type { Security } from "./security.js";
import type { Underlays } from "./underlays.js";
import type { Vnets } from "./vnets.js";

export type HookOwner = "underlay" | "vnet" | "helper";

/** A hook that must be there. */
export interface WantedHook extends Hook {
  program: string;
  device: string;
  owner: HookOwner;
}

export interface HookWatchParts {
  vnets: Vnets;
  directPorts: DirectPorts;
  underlays: Underlays;
  security: Security;
  helpers: Helpers;
}

const turnMs = 500;
/** "within a second", with some of it left for what is to be done */
const vnetsMs = 900;
/** devices that get a link in place of a filter in one turn; each costs some 10 ms (hooks.ts) */
const movedPerTurn = 2;
/** in how many of the regular looks all vnets' hooks are asked for, news or not: a filter is a question each */
const lookParts = 6;
/** what somebody did is shown so long after it */
const shownMs = 600_000;
const maxKept = 1024;
/** removals that are named one by one in `vnetd status` */
const maxNamed = 8;
/** changes of filters come in bursts */
const settleMs = 20;

interface Removal {
  hook: WantedHook;
  times: number;
  lastMs: number;
  /** why it cannot be hooked again, or "" */
  failure: string;
}

export class HookWatch {
  private readonly removals = new Map<string, Removal>();
  private readonly programIds = new Map<string, number>();
  private readonly touched = new Set<number>();
  private turnTimer: NodeJS.Timeout | undefined;
  private settleTimer: NodeJS.Timeout | undefined;
  private followTimer: NodeJS.Timeout | undefined;
  /** what the addon asks the kernel for, at which hooks: at those that all vnets need, and at theirs */
  private readonly asking: Record<"common" | "vnets", { hooks: string; watch?: Closable }> = {
    common: { hooks: "" },
    vnets: { hooks: "" },
  };
  private looks = 0;

  constructor(
    private readonly context: Context,
    private readonly parts: HookWatchParts,
  ) {}

  start(): void {
    this.context.hooks.onChange = (): void => {
      this.followTimer ??= setTimeout(() => {
        this.followTimer = undefined;
        this.guarded(() => this.follow());
      }, settleMs);
    };
    this.guarded(() => this.follow());
  }

  close(): void {
    this.context.hooks.onChange = (): void => undefined;
    for (const { watch } of Object.values(this.asking)) watch?.close();
    clearTimeout(this.turnTimer);
    clearTimeout(this.followTimer);
    clearTimeout(this.settleTimer);
  }

  /** The kernel tells of filters at a device that came or went. */
  changed(ifindex: number): void {
    this.touched.add(ifindex);
    this.settleTimer ??= setTimeout(() => {
      this.settleTimer = undefined;
      const touched = new Set(this.touched);
      this.touched.clear();
      this.guarded(() => this.look(this.wanted().filter((hook) => touched.has(hook.ifindex))));
    }, settleMs);
  }

  /** Those of the devices that all vnets need. To be called before others mend them without a word. */
  check(): void {
    this.look(this.common());
  }

  /** These, and a part of the vnets'. */
  checkRegularly(): void {
    this.looks += 1;
    const part = this.looks % lookParts;
    this.look([...this.common(), ...this.ofVnets().filter((_, at) => at % lookParts === part)]);
    this.follow();
  }

  checkAll(): void {
    this.look(this.wanted());
  }

  problems(): string[] {
    const now = nowMs();
    for (const [key, { lastMs, failure }] of this.removals)
      if (failure === "" && now - lastMs > shownMs) this.removals.delete(key);
    const texts = [...this.removals.values()].map(textOf);
    const more = texts.length - maxNamed;
    return more > 0
      ? [...texts.slice(0, maxNamed), `programs were removed from ${String(more)} more devices`]
      : texts;
  }

  /** Pinned links of devices that are gone, or no longer ours to hook. */
  sweep(): void {
    const { hooks, log } = this.context;
    const wanted = this.wanted().filter(({ direction }) => direction !== "egress");
    const lacking = new Set(this.lacking(wanted).map(keyOf));
    const own = new Set(wanted.map(keyOf));
    for (const hook of hooks.pinned()) {
      if (hooks.mode !== "tcx" && hook.direction !== "xdp") continue;
      const key = keyOf(hook);
      if (own.has(key) && (!lacking.has(key) || hooks.alive(hook))) continue;
      hooks.remove(hook);
      log.say("hook_removed", `removed the hook ${keyOf(hook)}`);
    }
  }

  // ---- what must be there

  private common(): WantedHook[] {
    const { underlays, security, helpers } = this.parts;
    const devices = new Map(underlays.list().map(({ ifindex, device }) => [ifindex, device]));
    devices.delete(0);
    const at = { direction: "ingress" } as const;
    return [
      ...[...devices].map(([ifindex, device]): WantedHook => {
        return { ...at, ifindex, device, program: "vnetd_decap", owner: "underlay" };
      }),
      ...underlays.xdp
        .devices()
        .map((hook): WantedHook => ({ ...hook, direction: "xdp", owner: "underlay" })),
      ...helpers.hooked().map((hook): WantedHook => ({ ...at, ...hook, owner: "helper" })),
      ...security.hooked().map(({ ifindex, device }): WantedHook => {
        return { ...at, ifindex, device, program: "vnetd_esp", owner: "underlay" };
      }),
    ];
  }

  private ofVnets(): WantedHook[] {
    const owner = "vnet" as const;
    const wanted: WantedHook[] = this.ofPorts();
    for (const { peer, vnif } of this.parts.vnets.byHandle().values()) {
      wanted.push(inwardHook(peer));
      if (vnif === undefined) continue;
      const outward = { ifindex: vnif.ifindex, device: vnif.name, direction: "egress" as const };
      wanted.push({ ...outward, program: "vnetd_encap_fast", owner });
    }
    return wanted;
  }

  /** What is asked of the vnets in each turn: of their filters at egress the kernel tells. */
  private inward(): WantedHook[] {
    const vnets = [...this.parts.vnets.byHandle().values()];
    return [...vnets.map(({ peer }) => inwardHook(peer)), ...this.ofPorts()];
  }

  private ofPorts(): WantedHook[] {
    return this.parts.directPorts.hooked().map((hook) => ({ ...hook, owner: "vnet" }));
  }

  private wanted(): WantedHook[] {
    return [...this.common(), ...this.ofVnets()];
  }

  // ---- looking

  /** Hooks are others: the addon asks for those that are there now. */
  private follow(): void {
    this.ask("common", this.common(), turnMs);
    this.ask("vnets", this.inward(), vnetsMs);
    this.planTurn();
  }

  private ask(which: "common" | "vnets", wanted: readonly WantedHook[], periodMs: number): void {
    const { native, hooks } = this.context;
    const asked = wanted.filter((hook) => hooks.mayBeTcx(hook));
    const ifindexes = asked.map(({ ifindex }) => ifindex);
    const programIds = asked.map(({ program }) => this.programId(program));
    const text = `${ifindexes.join()} ${programIds.join()}`;
    const before = this.asking[which];
    if (before.hooks === text) return;
    before.watch?.close();
    this.asking[which] = { hooks: text };
    if (asked.length === 0) return;
    const onLacking = (): void => this.guarded(() => this.turn());
    const watch = native.tcxWatch(ifindexes, programIds, periodMs, onLacking);
    this.asking[which] = { hooks: text, watch };
    // the period begins anew
    this.look(asked);
  }

  /** For what neither the kernel tells nor the addon asks: XDP, what could not be hooked, filters that become links. */
  private planTurn(): void {
    const { hooks } = this.context;
    const isNeeded =
      hooks.areMoving ||
      this.failed().length > 0 ||
      this.common().some(({ direction }) => direction === "xdp");
    if (!isNeeded) return;
    this.turnTimer ??= setTimeout(() => {
      this.turnTimer = undefined;
      this.guarded(() => this.turn());
      this.guarded(() => this.planTurn());
    }, turnMs);
  }

  private turn(): void {
    const { hooks } = this.context;
    for (let n = 0; n < movedPerTurn; n += 1) hooks.moveToTcx();
    const failed = this.failed();
    if (failed.length > 0) this.look(failed.map(({ hook }) => hook).filter(this.isWanted()));
    this.look(
      [...this.common(), ...this.inward()].filter(
        (hook) => hook.direction === "xdp" || hooks.mayBeTcx(hook),
      ),
    );
    this.planTurn();
  }

  private failed(): Removal[] {
    return [...this.removals.values()].filter(({ failure }) => failure !== "");
  }

  private isWanted(): (hook: WantedHook) => boolean {
    const wanted = new Set(this.wanted().map(keyOf));
    for (const [key, { hook }] of this.removals)
      if (!wanted.has(keyOf(hook))) this.removals.delete(key);
    return (hook) => wanted.has(keyOf(hook));
  }

  private look(wanted: readonly WantedHook[]): void {
    for (const hook of this.lacking(wanted)) this.repair(hook);
  }

  private lacking(wanted: readonly WantedHook[]): WantedHook[] {
    return this.context.hooks.lacking(wanted, ({ program }) => this.programId(program));
  }

  private repair(hook: WantedHook): void {
    const { native, hooks, counts, log } = this.context;
    // with its device, or into another namespace: nobody has taken it
    if (native.linkAt(hook.ifindex) === undefined) return;
    const before = this.removals.get(keyOf(hook));
    const isNew = before === undefined || before.failure === "";
    const times = (before?.times ?? 0) + (isNew ? 1 : 0);
    const removal: Removal = { hook, times, lastMs: nowMs(), failure: "" };
    if (isNew) counts.hooksRemoved.add(hook.owner);
    try {
      const { ifindex, direction } = hook;
      if (direction === "xdp") this.parts.underlays.rehookXdp(ifindex);
      else hooks.ensure({ ifindex, direction }, programOf(this.context, hook.program));
      log.say("hook_lost", textOf(removal), { device: hook.device });
    } catch (error) {
      removal.failure = kernelError("hooking it", error).message;
      if (removal.failure !== before?.failure)
        log.say("hook_not_restored", textOf(removal), { device: hook.device });
    }
    if (before !== undefined || this.removals.size < maxKept)
      this.removals.set(keyOf(hook), removal);
  }

  private programId(name: string): number {
    const known = this.programIds.get(name);
    if (known !== undefined) return known;
    const id = this.context.native.programId(programOf(this.context, name));
    this.programIds.set(name, id);
    return id;
  }

  private guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.context.log.say("step_failed", kernelError("watching the hooks", error).message);
    }
  }
}

/** At the other end of a vnet's interface. */
function inwardHook({ ifindex, name: device }: LinkInfo): WantedHook {
  return { ifindex, direction: "ingress", program: "vnetd_encap", device, owner: "vnet" };
}

function keyOf({ ifindex, direction }: Hook): string {
  return `${String(ifindex)} ${direction}`;
}

function textOf({ hook, times, failure }: Removal): string {
  const { device, direction } = hook;
  const what = `${device}: somebody removed our program from its ${direction === "xdp" ? "XDP hook" : direction}`;
  if (failure !== "") return `${what}, and it cannot be hooked again: ${failure}`;
  return `${what}, and it was hooked again${times > 1 ? ` (${String(times)} times by now)` : ""}`;
}
