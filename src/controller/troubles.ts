// SPDX-License-Identifier: Apache-2.0
/**
 * Storms, loops and duplicate addresses: what the data plane limits by itself is found out, named in
 * `vnetd status` and in the log, and forgotten when it is over.
 *
 *   ring `events`  -> MOVED, HELD -> Duplicates; HELD, STORM -> a probe in that vnet
 *   ring `control` -> LOOP -> Loops
 *   every second   -> probes where there is a loop, or none was sent for long; reports
 */
import { addressToText } from "../base/address.js";
import type { DaemonConfig } from "../config/daemon-config.js";
import { macFromBytes, type Mac } from "../base/mac.js";
import { shortVnetId, vnetIdFromBytes } from "../base/vnet-id.js";
import {
  VnetdEventLoop,
  VnetdEventMac,
  decodeVnetdEventLoop,
  decodeVnetdEventMac,
  vnetdDirection,
  vnetdEventType,
  vnetdFlood,
  vnetdNexthopSpecial,
  vnetdProbeWire,
  type VnetdEventLoop as LoopEvent,
  type VnetdEventMac as MacEvent,
} from "../generated/layouts.js";
import { Duplicates, here, type Duplicate, type Place } from "../varp/duplicates.js";
import { Loops, joinsOf, type ProbeStep } from "../varp/loops.js";
import { ProbeSchedule } from "../varp/probe-schedule.js";
import { nowMs, type Context } from "./context.js";
import type { Hellos } from "./hellos.js";
import type { Underlays } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

const leastProbeSeconds = 10;
const probesPerTick = 100;
/** a storm is over when nothing was dropped for so long */
const stormKeptMs = 5000;
const maxStorms = 1024;
/** MACs that are named one by one */
const maxNamed = 8;

export interface TroubleParts {
  vnets: Vnets;
  underlays: Underlays;
  hellos: Hellos;
  /** whether a MAC lives on this host, and was heard after that time (of nowMs) */
  heardHere: (vnet: RunningVnet, mac: Mac, sinceMs: number) => boolean;
  announce: (handle: number, mac: Mac) => void;
}

interface Storm {
  handle: number;
  from: Place;
  seenMs: number;
}

export class Troubles {
  private readonly loops = new Loops();
  private readonly duplicates = new Duplicates();
  private readonly storms = new Map<string, Storm>();
  private readonly probes: ProbeSchedule;

  constructor(
    private readonly context: Context,
    private readonly parts: TroubleParts,
  ) {
    this.probes = new ProbeSchedule(probeMs(context.config));
  }

  /** The configuration has another interval of probes, or of hellos. */
  intervalChanged(): void {
    this.probes.setInterval(probeMs(this.context.config), nowMs());
  }

  /** A record of either ring; false: none of those that are handled here. */
  onRecord(record: Buffer): boolean {
    const type = record.length >= 4 ? record.readUInt32LE(0) : 0;
    const { EVENT_MOVED, EVENT_HELD, EVENT_STORM, EVENT_LOOP } = vnetdEventType;
    if (type === EVENT_LOOP && record.length >= VnetdEventLoop.size) {
      this.onLoop(decodeVnetdEventLoop(record));
      return true;
    }
    const isMac = type === EVENT_MOVED || type === EVENT_HELD || type === EVENT_STORM;
    if (!isMac || record.length < VnetdEventMac.size) return false;
    const event = decodeVnetdEventMac(record);
    const vnet = this.parts.vnets.byHandle().get(event.handle);
    if (vnet === undefined) return true;
    if (type === EVENT_STORM) this.onStorm(vnet, event);
    else this.onMac(vnet, event, type === EVENT_HELD);
    return true;
  }

  /** An announce named a MAC that lives here and stays. */
  refused(vnet: RunningVnet, mac: Mac, address: string): void {
    if (this.loops.active(vnet.handle)) return;
    this.duplicates.refused(vnet.handle, mac, this.placeOf(vnet, address), nowMs());
  }

  tick(): void {
    const now = nowMs();
    const vnets = this.parts.vnets.byHandle();
    this.forgetVnets(vnets);
    for (const { handle } of vnets.values()) this.probes.appeared(handle, now);
    for (const handle of new Set([...this.loops.handles(), ...this.probes.due(now, probesPerTick)]))
      this.probe(vnets.get(handle), now);
    this.endLoops(now);
    for (const [key, { seenMs }] of this.storms)
      if (now - seenMs > stormKeptMs) this.storms.delete(key);
    this.review(vnets, now);
    this.report(now);
  }

  problems(): string[] {
    const vnets = this.parts.vnets.byHandle();
    const loops = this.loops.handles().flatMap((handle) => {
      const vnet = vnets.get(handle);
      return vnet === undefined ? [] : [this.loopText(vnet)];
    });
    const storms = [...this.storms.values()].flatMap((storm) => {
      const vnet = vnets.get(storm.handle);
      return vnet === undefined || this.loops.active(storm.handle)
        ? []
        : [this.stormText(vnet, storm)];
    });
    return [...loops, ...storms, ...this.duplicateTexts(this.duplicates.list())];
  }

  /** Vnets with a loop, MACs that are at two places, and sources of storms. */
  counts(): { loops: number; duplicates: number; storms: number } {
    return {
      loops: this.loops.handles().length,
      duplicates: this.duplicates.list().length,
      storms: this.storms.size,
    };
  }

  // ---- what is seen

  private onMac(vnet: RunningVnet, event: MacEvent, held: boolean): void {
    if (held) this.suspect(vnet);
    if (this.loops.active(vnet.handle)) return;
    const mac = macFromBytes(event.mac);
    const from = this.placeOfNexthop(vnet, event.from);
    const to = this.placeOfNexthop(vnet, event.to);
    if (from === undefined || to === undefined) return;
    if (held) this.duplicates.held(vnet.handle, mac, from, to, nowMs());
    else this.duplicates.moved(vnet.handle, mac, from, to, nowMs());
  }

  private onStorm(vnet: RunningVnet, event: MacEvent): void {
    this.suspect(vnet);
    const from: Place | undefined =
      event.to === vnetdDirection.DIR_ENCAP
        ? here
        : event.from === vnetdNexthopSpecial.NEXTHOP_LOCAL
          ? { id: "*", name: "hosts that are not in the table" }
          : this.placeOfNexthop(vnet, event.from);
    if (from === undefined) return;
    const key = `${String(vnet.handle)} ${from.id}`;
    const isNew = !this.storms.has(key);
    if (isNew && this.storms.size >= maxStorms) return;
    const storm = { handle: vnet.handle, from, seenMs: nowMs() };
    this.storms.set(key, storm);
    if (isNew && !this.loops.active(vnet.handle))
      this.context.log.say("storm", this.stormText(vnet, storm), {
        vnet: vnet.id,
        host: from.name,
      });
  }

  private onLoop({ handle, direction, source, probe }: LoopEvent): void {
    const vnet = this.parts.vnets.byHandle().get(handle);
    if (vnet === undefined) return;
    const steps: ProbeStep[] = probe.hop
      .slice(0, Math.min(probe.hops, vnetdProbeWire.PROBE_HOPS))
      .map((hop) => ({
        from: this.hostName(hop.from),
        to: this.hostName(hop.to),
        vnet: vnetIdFromBytes(hop.vnet),
      }));
    const sender = direction === vnetdDirection.DIR_ENCAP ? "" : this.hostName(source);
    const joins = joinsOf({ vnet: vnet.id, steps, sender });
    const isNew = this.loops.found(handle, joins, nowMs());
    this.duplicates.forgetVnet(handle);
    if (isNew) this.context.log.say("loop", this.loopText(vnet), { vnet: vnet.id });
  }

  // ---- probes

  private suspect(vnet: RunningVnet): void {
    const now = nowMs();
    if (this.probes.suspected(vnet.handle, now)) this.probe(vnet, now);
  }

  /** To the group; and into the bridge that the vnetif is a port of. */
  private probe(vnet: RunningVnet | undefined, now: number): void {
    if (vnet === undefined) return;
    this.probes.sent(vnet.handle, now);
    if (this.parts.underlays.usable().length === 0) return;
    const { vnif, slot, handle } = vnet;
    const port = vnif !== undefined && vnif.master !== 0 ? vnif.ifindex : 0;
    const reason = this.context.control.probe(slot, handle, port);
    if (reason === "ok") return;
    const fields = { vnet: vnet.id, reason };
    this.context.log.say("probe_failed", `probing vnet ${vnet.id}: ${reason}`, fields);
  }

  // ---- once a second

  private forgetVnets(vnets: ReadonlyMap<number, RunningVnet>): void {
    for (const handle of [...this.probes.handles(), ...this.loops.handles()]) {
      if (vnets.has(handle)) continue;
      this.probes.vnetGone(handle);
      this.loops.vnetGone(handle);
    }
    for (const handle of this.duplicates.handles())
      if (!vnets.has(handle)) this.duplicates.forgetVnet(handle);
    for (const [key, { handle }] of this.storms) if (!vnets.has(handle)) this.storms.delete(key);
  }

  private endLoops(now: number): void {
    for (const handle of this.loops.tick(now)) {
      // what the loop left in the tables says nothing either
      this.duplicates.forgetVnet(handle);
      const vnet = this.parts.vnets.byHandle().get(handle);
      if (vnet === undefined) continue;
      const text = `the loop in ${nameOf(vnet)} is gone`;
      this.context.log.say("loop_gone", text, { vnet: vnet.id });
    }
  }

  private review(vnets: ReadonlyMap<number, RunningVnet>, now: number): void {
    for (const { handle, mac, refusedMs } of this.duplicates.reviews(now)) {
      const vnet = vnets.get(handle);
      const heard = vnet !== undefined && this.parts.heardHere(vnet, mac, refusedMs);
      if (this.duplicates.confirm(handle, mac, heard, now)) this.parts.announce(handle, mac);
    }
  }

  private report(now: number): void {
    const { log } = this.context;
    const { hellos } = this.parts;
    const { reported, ended } = this.duplicates.tick(
      now,
      (handle, id) => hellos.hostKeyOf(handle, id) ?? id,
    );
    const vnets = this.parts.vnets.byHandle();
    for (const { handle, mac, places } of reported) {
      const vnet = vnets.get(handle);
      if (vnet === undefined) continue;
      const fields = { vnet: vnet.id, mac, host: places.find((name) => name !== here.name) };
      log.say("mac_twice", duplicateText(vnet, mac, places), fields);
    }
    for (const { handle, mac } of ended) {
      const vnet = vnets.get(handle)?.id;
      log.say("mac_twice_gone", `duplicate address ${mac}: no more`, { vnet, mac });
    }
  }

  // ---- words

  private loopText(vnet: RunningVnet): string {
    const joins = this.loops.joins(vnet.handle).join("; ");
    return (
      `loop in ${nameOf(vnet)}: ${joins}. Take one of these bridges away; until then this host sends ` +
      `at most ${String(vnetdFlood.LOOP_PER_SECOND)} frames a second to the vnet's group`
    );
  }

  private stormText(vnet: RunningVnet, { from }: Storm): string {
    const { floodPerSecond } = this.context.config.limits;
    const factor = from === here ? 1 : vnetdFlood.FLOOD_RECEIVE_FACTOR;
    const who = from === here ? "guests of this host send" : `${from.name} sent`;
    return (
      `storm in ${nameOf(vnet)}: ${who} more than ${String(floodPerSecond * factor)} frames a second ` +
      "to the group; the rest is dropped (limits.floodPerSecond)"
    );
  }

  private duplicateTexts(duplicates: readonly Duplicate[]): string[] {
    const vnets = this.parts.vnets.byHandle();
    const texts = duplicates.slice(0, maxNamed).flatMap(({ handle, mac, places }) => {
      const vnet = vnets.get(handle);
      return vnet === undefined ? [] : [duplicateText(vnet, mac, places)];
    });
    const more = duplicates.length - maxNamed;
    return more > 0 ? [...texts, `${String(more)} more duplicate addresses`] : texts;
  }

  // ---- who is where

  private hostName(address: Uint8Array): string {
    if (address.every((byte) => byte === 0)) return "";
    const text = addressToText(address);
    return this.isOwn(text) ? "" : text;
  }

  private placeOfNexthop(vnet: RunningVnet, id: number): Place | undefined {
    if (id === vnetdNexthopSpecial.NEXTHOP_LOCAL) return here;
    const nexthop = this.context.maps.nexthop(id);
    if (nexthop?.key.handle !== vnet.handle) return undefined;
    return this.placeOf(vnet, addressToText(nexthop.key.addr));
  }

  /** Two paths to one host are one place. */
  private placeOf(vnet: RunningVnet, address: string): Place {
    if (this.isOwn(address)) return here;
    const hostKey = this.parts.hellos.hostKeyOf(vnet.handle, address);
    return { id: hostKey ?? address, name: address };
  }

  private isOwn(address: string): boolean {
    return this.parts.underlays.list().some(({ state }) => state.address === address);
  }
}

function probeMs({ probeSeconds, helloSeconds }: DaemonConfig): number {
  return (probeSeconds ?? Math.max(leastProbeSeconds, helloSeconds)) * 1000;
}

function duplicateText(vnet: RunningVnet, mac: Mac, places: readonly string[]): string {
  const seen = [...places].sort((a, b) => Number(b === here.name) - Number(a === here.name));
  return `duplicate address ${mac} in ${nameOf(vnet)}: seen on ${seen.join(" and on ")}`;
}

function nameOf({ id }: RunningVnet): string {
  return `vnet ${shortVnetId(id)}`;
}
