// SPDX-License-Identifier: Apache-2.0
/**
 * Loops: what a probe that came back says, and which loops are there now.
 *
 * In the path: LOOP event -> joinsOf() -> Loops.found(). A probe names each step from the underlay
 * into a vnet that it took; between two steps, and after the last, something joined what it came out
 * of with what it went into. Those joins are the loop, whichever host's probe went round it and in
 * whichever direction, so all sightings of a loop read the same. A loop that no probe came back from
 * for a while is gone. All tables are bounded.
 */
import { shortVnetId, type VnetId } from "../base/vnet-id.js";

/** A vnet on a host, by its underlay address; "": this host. */
export interface Station {
  host: string;
  vnet: VnetId;
}

export interface ProbeStep {
  from: string;
  to: string;
  vnet: VnetId;
}

export interface ProbeReturn {
  /** the vnet that the probe belongs to */
  vnet: VnetId;
  steps: readonly ProbeStep[];
  /** who sent it into the vnet again: "" when it came from a device of this host */
  sender: string;
}

export interface LoopsOptions {
  keepMs: number;
  maxPerVnet: number;
}

export const loopsDefaults: LoopsOptions = { keepMs: 10_000, maxPerVnet: 4 };

/** What joins what, one sentence each, in an order of their own. */
export function joinsOf({ vnet, steps, sender }: ProbeReturn): string {
  const entries: Station[] = [...steps.map((step) => ({ host: step.from, vnet: step.vnet }))];
  entries.push({ host: sender, vnet });
  if (steps.length === 0)
    return `${nameOf(sender)} sends what it gets in vnet ${shortVnetId(vnet)} into it again`;
  const joins = steps.map((step, at) =>
    joinOf({ host: step.to, vnet: step.vnet }, entries[at + 1] ?? { host: sender, vnet }),
  );
  return [...new Set(joins)].sort().join("; ");
}

function joinOf(out: Station, into: Station): string {
  const [first, second] = [out, into].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)) as [
    Station,
    Station,
  ];
  const vnets = [shortVnetId(first.vnet), shortVnetId(second.vnet)].sort();
  if (first.host !== second.host) {
    return (
      `vnet ${shortVnetId(first.vnet)} on ${nameOf(first.host)} and vnet ` +
      `${shortVnetId(second.vnet)} on ${nameOf(second.host)} are bridged to one LAN`
    );
  }
  if (vnets[0] === vnets[1])
    return `${nameOf(first.host)} sends what it gets in vnet ${String(vnets[0])} into it again`;
  return `${nameOf(first.host)} joins vnets ${vnets.join(" and ")}`;
}

function keyOf({ host, vnet }: Station): string {
  return `${vnet} ${host}`;
}

function nameOf(host: string): string {
  return host === "" ? "this host" : host;
}

export class Loops {
  /** by vnet's handle: what joins what, and when it was seen last */
  private readonly vnets = new Map<number, Map<string, number>>();

  constructor(private readonly options: LoopsOptions = loopsDefaults) {}

  /** True for one that was not known. */
  found(handle: number, joins: string, nowMs: number): boolean {
    const loops = this.vnets.get(handle) ?? new Map<string, number>();
    const isNew = !loops.has(joins);
    if (isNew && loops.size >= this.options.maxPerVnet) return false;
    loops.set(joins, nowMs);
    this.vnets.set(handle, loops);
    return isNew;
  }

  active(handle: number): boolean {
    return this.vnets.has(handle);
  }

  handles(): number[] {
    return [...this.vnets.keys()];
  }

  joins(handle: number): string[] {
    return [...(this.vnets.get(handle)?.keys() ?? [])];
  }

  /** Forgets what was not seen for a while; the vnets that have no loop any more. */
  tick(nowMs: number): number[] {
    const ended: number[] = [];
    for (const [handle, loops] of this.vnets) {
      for (const [joins, seenMs] of loops)
        if (nowMs - seenMs > this.options.keepMs) loops.delete(joins);
      if (loops.size > 0) continue;
      this.vnets.delete(handle);
      ended.push(handle);
    }
    return ended;
  }

  vnetGone(handle: number): void {
    this.vnets.delete(handle);
  }
}
