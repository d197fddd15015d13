// SPDX-License-Identifier: Apache-2.0
/**
 * Looks at the kernel's SAs every few seconds: what it refused is counted as drops, what has carried so much is
 * renewed, what has begun to carry ends what it replaces, and what is gone is agreed on anew.
 */
import type { EspHost, EspSa } from "../../host/esp.js";
import { vnetdDirection } from "../../generated/layouts.js";
import type { Context } from "../context.js";
import { isWornOut } from "../key-times.js";
import { named } from "./named.js";
import type { KeyedPath, SecureVnet } from "./secure-vnet.js";

const pollMs = 5000;
const maxCountedAtOnce = 1000;

interface Sas {
  /** by SPI */
  inward: ReadonlyMap<number, EspSa>;
  /** by next hop and SPI: two hosts may have chosen the same */
  outward: ReadonlyMap<string, EspSa>;
}

export class SaWatch {
  private polledMs = 0;
  /** by SPI: what was counted of its errors so far */
  private readonly counted = new Map<number, { replays: number; broken: number }>();

  constructor(
    private readonly context: Context,
    private readonly esp: EspHost,
  ) {}

  tick(vnets: readonly SecureVnet[], nowMs: number): void {
    if (nowMs - this.polledMs < pollMs) return;
    this.polledMs = nowMs;
    try {
      this.poll(vnets, nowMs);
    } catch (error) {
      this.context.log.say("sas_unread", `looking at the SAs: ${String(error)}`);
    }
  }

  private poll(vnets: readonly SecureVnet[], nowMs: number): void {
    const all = this.esp.stats();
    const sas: Sas = {
      inward: new Map(of(all, "in").map((sa) => [sa.spi, sa])),
      outward: new Map(of(all, "out").map((sa) => [outKey(sa.nexthop, sa.spi), sa])),
    };
    for (const sa of sas.inward.values()) this.countErrors(sa);
    for (const spi of this.counted.keys()) if (!sas.inward.has(spi)) this.counted.delete(spi);
    const { maps } = this.context;
    for (const spi of maps.spis().keys()) if (!sas.inward.has(spi)) maps.deleteSpi(spi);
    const present = new Set(all.map(({ spi }) => spi));
    for (const secure of vnets) {
      secure.pruneLeftovers(present);
      for (const each of secure.paths()) this.lookAt(secure, each, sas, nowMs);
    }
  }

  private lookAt(secure: SecureVnet, each: KeyedPath, sas: Sas, nowMs: number): void {
    const { path } = each;
    const { spiOut } = path;
    for (const spi of path.spisIn)
      if ((sas.inward.get(spi)?.packets ?? 0) > 0) secure.trafficSeen(each, spi, nowMs);
    // what is sent by since a moment ago was not there yet when the kernel was asked
    if (path.spiOut === 0 || path.spiOut !== spiOut) return;
    const out = sas.outward.get(outKey(path.nexthop.nexthop, path.spiOut));
    if (out === undefined) {
      const who = named(each.name, path.ends.peer);
      const text = `vnet ${secure.vnet.id}: the SA to ${who} is gone, agreeing anew`;
      this.context.log.say("sa_gone", text, { vnet: secure.vnet.id, host: path.ends.peer });
      secure.restart(each, nowMs);
      return;
    }
    const spiIn = secure.currentKeys(each, nowMs)?.spiIn;
    const isLost = spiIn !== undefined && !sas.inward.has(spiIn);
    if (isLost || isWornOut(this.context.config.keys, out)) secure.renew(each, nowMs);
  }

  private countErrors({ spi, replayErrors, replayWindowErrors, integrityErrors }: EspSa): void {
    const record = this.context.maps.spi(spi);
    if (record === undefined) return;
    const before = this.counted.get(spi) ?? { replays: 0, broken: 0 };
    const replays = replayErrors + replayWindowErrors;
    const { handle } = record;
    this.counted.set(spi, {
      replays: before.replays + this.count(handle, "esp_replay", replays - before.replays),
      broken: before.broken + this.count(handle, "esp_integrity", integrityErrors - before.broken),
    });
  }

  /** As many as there is time for; the rest at the next look. Says how many. */
  private count(handle: number, reason: string, times: number): number {
    const direction = vnetdDirection.DIR_DECAP;
    const now = Math.min(times, maxCountedAtOnce);
    for (let at = 0; at < now; at += 1)
      this.context.control.countDrop({ handle, direction, reason, bytes: 0 });
    this.context.news.tell(() => ({
      ...{ kind: "dropped" as const, handle, reason, direction: "decap" as const },
      text: "ESP, refused by the kernel",
    }));
    return now;
  }
}

function of(sas: readonly EspSa[], direction: EspSa["direction"]): EspSa[] {
  return sas.filter((sa) => sa.direction === direction);
}

function outKey(nexthop: number, spi: number): string {
  return `${String(nexthop)} ${String(spi)}`;
}
