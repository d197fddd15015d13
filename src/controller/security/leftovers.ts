// SPDX-License-Identifier: Apache-2.0
/**
 * What a daemon before this one left of SAs: those that traffic goes by are kept until new ones take their place; the
 * rest, and records that name SAs that are gone, are removed. SAs of others are never looked at.
 */
import { addressToText } from "../../base/address.js";
import type { Suite } from "../../base/suite.js";
import type { Context } from "../context.js";
import type { EspHost, EspSa } from "../../host/esp.js";
import type { VnetSlot } from "../../dataplane/vnet-table.js";
import type { VnetdSpi } from "../../generated/layouts.js";
import { securityOf, type PathEnds } from "./path.js";

/** A path that frames go by, of which no session is known. */
export interface Leftover {
  handle: number;
  ends: PathEnds;
  nexthop: number;
  gen: number;
  spiOut: number;
  spisIn: number[];
}

export function pathKey({ peer, device }: { peer: string; device: number }): string {
  return `${String(device)} ${peer}`;
}

/** A secure vnet that runs, and what its SAs must have been made for to be kept. */
export interface SecureSlot extends VnetSlot {
  suite: Suite;
  /** all that are accepted */
  keyIds: readonly string[];
}

/** `secure`: by handle. */
export function takeLeftovers(
  context: Context,
  esp: EspHost,
  secure: ReadonlyMap<number, SecureSlot>,
): Leftover[] {
  const { maps } = context;
  const found = new Map<string, Leftover>();
  const sas = esp.stats();
  for (const sa of sas) {
    const owner = ownerOf(context, sa, secure);
    if (owner === undefined) {
      remove(context, esp, sa);
      continue;
    }
    const key = `${String(owner.handle)} ${pathKey({ peer: sa.peer, device: sa.device })}`;
    const ends = { own: sa.own, peer: sa.peer, device: sa.device };
    const leftover = found.get(key) ?? { ...owner, ends, spiOut: 0, spisIn: [] };
    found.set(key, leftover);
    if (sa.direction === "in") leftover.spisIn.push(sa.spi);
    else leftover.spiOut = sa.spi;
  }
  dropUnsuited(context, esp, found, secure);
  const inward = new Set(sas.filter(({ direction }) => direction === "in").map(({ spi }) => spi));
  for (const spi of maps.spis().keys()) if (!inward.has(spi)) maps.deleteSpi(spi);
  forgetLost(context, new Set([...found.values()].map(({ spiOut }) => spiOut)));
  // of SAs whose time ran out while nobody looked
  for (const policy of esp.policies())
    if (maps.nexthop(policy.nexthop)?.spi !== policy.spi) esp.removeOut(policy, policy.spi, true);
  return [...found.values()];
}

/**
 * Both ways go together: SAs of another level, suite or secret than the vnet has now. An SA out has no record, but
 * was made with one in.
 */
function dropUnsuited(
  context: Context,
  esp: EspHost,
  found: Map<string, Leftover>,
  secure: ReadonlyMap<number, SecureSlot>,
): void {
  for (const [key, { handle, ends, nexthop, spiOut, spisIn }] of found) {
    const vnet = secure.get(handle);
    const suits = spisIn.length > 0 && spisIn.every((spi) => isSuited(context.maps.spi(spi), vnet));
    if (suits) continue;
    found.delete(key);
    const path = { ...ends, nexthop };
    if (spiOut !== 0) esp.removeOut(path, spiOut, true);
    for (const spi of spisIn) {
      esp.removeIn(path, spi);
      context.maps.deleteSpi(spi);
    }
  }
}

function isSuited(record: VnetdSpi | undefined, vnet: SecureSlot | undefined): boolean {
  if (record === undefined || vnet === undefined) return false;
  const keyId = Buffer.from(record.keyId).toString("hex");
  return (
    record.security === securityOf(vnet.suite) &&
    record.suite === vnet.suite.id &&
    vnet.keyIds.includes(keyId)
  );
}

/** Next hops that say they are sent to by an SA that is not there. */
function forgetLost({ maps, control }: Context, spisOut: ReadonlySet<number>): void {
  for (const { key, slot, spi } of maps.nexthops().values()) {
    if (spi === 0 || spisOut.has(spi)) continue;
    const { handle, ifindex, addr } = key;
    control.keys({ slot, handle, ifindex, addr, spi: 0 });
  }
}

function ownerOf(
  { maps }: Context,
  sa: EspSa,
  secure: ReadonlyMap<number, SecureSlot>,
): { handle: number; nexthop: number; gen: number } | undefined {
  const hop = maps.nexthop(sa.nexthop);
  if (hop === undefined || !secure.has(hop.key.handle)) return undefined;
  if (addressToText(hop.key.addr) !== sa.peer || hop.key.ifindex !== sa.device) return undefined;
  const owner = { handle: hop.key.handle, nexthop: sa.nexthop, gen: hop.gen };
  if (sa.direction === "out") return hop.spi === sa.spi ? owner : undefined;
  const record = maps.spi(sa.spi);
  if (record?.handle !== owner.handle || record.nexthop !== sa.nexthop) return undefined;
  return record.gen === hop.gen ? owner : undefined;
}

function remove({ maps }: Context, esp: EspHost, sa: EspSa): void {
  const path = { own: sa.own, peer: sa.peer, device: sa.device, nexthop: sa.nexthop };
  if (sa.direction === "in") {
    esp.removeIn(path, sa.spi);
    maps.deleteSpi(sa.spi);
    return;
  }
  // its policy goes too, unless it sends by another SA by now
  const current = maps.nexthop(sa.nexthop)?.spi ?? 0;
  esp.removeOut(path, sa.spi, current === 0 || current === sa.spi);
}
