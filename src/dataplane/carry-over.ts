// SPDX-License-Identifier: Apache-2.0
/**
 * Takes what another generation of maps holds over into a fresh one: vnets with their handles,
 * hosts with their keys, learned MACs, neighbours, and counters. What the fresh generation cannot read (a value of another
 * size) is left out and said in the log; it is learned and counted anew.
 *
 * Until the daemon moves the hooks, the old programs go on with the old maps; what they learn in
 * between is learned again by the next frame.
 */
import { encodeVnetdVnetCounts, type VnetdNexthop, type VnetdVnet } from "../generated/layouts.js";
import type { Log } from "../log.js";
import type { Native } from "../native/contract.js";
import { MacBatch, nexthopRequest, type Control, type ManyRequest } from "./control.js";
import { nexthopsInUse, openOther, type Generation } from "./generation.js";
import { DirectMaps } from "./direct-maps.js";
import { isFresh, isLocal, nowNs } from "./tables.js";
import { range, u32, type Maps } from "./maps.js";

export interface CarryOverParts {
  generation: Generation;
  control: Control;
  log: Log;
}

interface Transfer extends CarryOverParts {
  native: Native;
  from: Maps;
  to: Maps;
}

/** The first handle that was never used. */
export function carryOver(native: Native, parts: CarryOverParts): number {
  const [newest] = parts.generation.others;
  if (newest === undefined) return 1;
  const { log } = parts;
  const { maps: from, close } = openOther(native, newest.dir);
  try {
    const transfer: Transfer = { ...parts, native, from, to: parts.generation.maps };
    const nextHandle = nextHandleOf(transfer);
    if (nextHandle === 0 || !same(transfer, "vnets")) {
      log.say(
        "not_carried_over",
        `layout ${String(newest.layout)} cannot be read: tables and counters start afresh`,
      );
      return 1;
    }
    const vnets = carryVnets(transfer);
    carryPorts(transfer);
    const underlays = carryConfiguration(transfer);
    const macs = carryTable(transfer);
    carryNeighbours(transfer);
    carryCounters(transfer);
    const counted = [
      `${String(vnets)} vnets`,
      `${String(underlays)} devices`,
      `${String(macs)} MACs`,
    ];
    log.say("carried_over", `layout ${String(newest.layout)}: carried over ${counted.join(", ")}`);
    return nextHandle;
  } finally {
    close();
  }
}

/** The beginning of `meta` (layout, next handle) is the same in every layout. */
function nextHandleOf({ native, from }: Transfer): number {
  const meta = from.has("meta") ? native.mapLookup(from.fd("meta"), u32(0)) : undefined;
  return meta === undefined || meta.length < 8 ? 0 : meta.readUInt32LE(4);
}

/** Both have the map, with keys and values of the same sizes. */
function same({ native, from, to, log }: Transfer, name: string): boolean {
  if (!from.has(name) || !to.has(name)) return false;
  const a = native.mapInfo(from.fd(name));
  const b = native.mapInfo(to.fd(name));
  if (a.keySize === b.keySize && a.valueSize === b.valueSize) return true;
  log.say("not_carried_over", `the map ${name} has another form: what it held is not carried over`);
  return false;
}

function carryVnets({ from, to }: Transfer): number {
  let count = 0;
  for (const [hex, slot] of from.vnetSlots()) {
    const record = from.vnet(slot);
    if (record === undefined || Buffer.from(record.id).toString("hex") !== hex) continue;
    to.setVnet(slot, record);
    to.setVnetId(record.id, slot);
    count += 1;
  }
  for (const [ifindex, port] of from.ports()) to.setPort(ifindex, port);
  return count;
}

/** Devices are the same, and so are the vnets' handles. */
function carryPorts(transfer: Transfer): void {
  const { native, from, to } = transfer;
  if (!same(transfer, "direct_ports") || !same(transfer, "direct_list")) return;
  const [before, now] = [new DirectMaps(native, from), new DirectMaps(native, to)];
  const ports = before.ports();
  for (const [ifindex, port] of ports) now.setPort(ifindex, port);
  for (const handle of new Set([...ports.values()].map(({ handle: each }) => each)))
    now.setList(handle, before.list(handle));
}

function carryConfiguration(transfer: Transfer): number {
  const { from, to } = transfer;
  if (!same(transfer, "underlays") || !same(transfer, "underlay_list")) return 0;
  const records = from.underlays();
  for (const record of records) to.setUnderlay(record);
  from.underlayList().forEach((place, at) => to.setUnderlayListed(at, place));
  return records.length;
}

/** Through the control program, so that counts and the sweeper's tokens come out right. */
function carryTable(transfer: Transfer): number {
  const { from, control } = transfer;
  if (!same(transfer, "fdb") || !same(transfer, "nexthops") || !same(transfer, "nexthop_ids"))
    return 0;
  const nexthops = carryNexthops(transfer);
  const vnets = vnetsBySlot(from);
  const now = nowNs();
  const loader = new TableLoader(control);
  for (const { key, entry } of from.eachEntry()) {
    const vnet = vnets.get(entry.slot);
    const nexthop = nexthops.get(entry.nexthop);
    const alive = vnet?.handle === key.handle && isFresh(entry, vnet, now);
    if (!alive || (!isLocal(entry) && nexthop?.gen !== entry.gen)) continue;
    const at = { slot: entry.slot, handle: key.handle, fdbFlags: entry.flags };
    const isHere = isLocal(entry) || nexthop === undefined;
    loader.add(
      isHere ? { ...at, ifindex: 0, gen: entry.gen } : { ...at, ...pathOf(nexthop) },
      entry.nexthop,
      key.mac,
      entry.seenNs,
    );
  }
  return loader.end();
}

/** Enters MACs in batches: those of one vnet, host and kind together. */
class TableLoader {
  private readonly batches = new Map<string, { request: ManyRequest; batch: MacBatch }>();
  private entered = 0;

  constructor(private readonly control: Control) {}

  add(request: ManyRequest, nexthop: number, mac: Uint8Array, seenNs: bigint): void {
    const { handle, fdbFlags, gen = 0 } = request;
    const key = [handle, nexthop, fdbFlags, gen].map(String).join(" ");
    let waiting = this.batches.get(key);
    if (waiting === undefined) {
      waiting = { request, batch: new MacBatch() };
      this.batches.set(key, waiting);
    }
    waiting.batch.add(mac, seenNs);
    if (waiting.batch.isFull) this.enter(waiting);
  }

  /** How many were entered. */
  end(): number {
    for (const waiting of this.batches.values()) if (waiting.batch.count > 0) this.enter(waiting);
    return this.entered;
  }

  private enter({ request, batch }: { request: ManyRequest; batch: MacBatch }): void {
    this.entered += this.control.learnMany(request, batch).entered;
  }
}

/** Nothing is hooked to the fresh maps yet: entries, tokens and counts are written as the programs would. */
function carryNeighbours(transfer: Transfer): void {
  const { native, from, to } = transfer;
  if (!same(transfer, "neighbours") || !same(transfer, "vnet_counts")) return;
  const vnets = vnetsBySlot(to);
  const counts = new Map<number, number>();
  const room = to.maxEntries("neighbours");
  let entered = 0;
  for (const { key, entry } of from.neighbours()) {
    const vnet = vnets.get(entry.slot);
    const count = counts.get(entry.slot) ?? 0;
    if (vnet?.handle !== key.handle || entry.heardNs === 0n) continue;
    if (entered >= room || count >= vnet.maxNeighbours) continue;
    to.enterNeighbour(key, entry);
    entered += 1;
    counts.set(entry.slot, count + 1);
  }
  for (const [slot, neighbours] of counts) {
    const record = { ...to.vnetCounts(slot), neighbours };
    native.mapUpdate(to.fd("vnet_counts"), u32(slot), encodeVnetdVnetCounts(record));
  }
}

function vnetsBySlot(maps: Maps): Map<number, VnetdVnet> {
  const slots = [...maps.vnetSlots().values()];
  return new Map(
    slots.flatMap((slot) => {
      const record = maps.vnet(slot);
      return record === undefined ? [] : [[slot, record] as const];
    }),
  );
}

/** With their keys, where they have the same numbers again: what the SAs are named by. */
function carryNexthops(transfer: Transfer): Map<number, VnetdNexthop> {
  const { native, from, control, log } = transfer;
  const nexthops = new Map(nexthopsInUse(native, from));
  const generations = new Map<number, number>();
  for (const [id, hop] of nexthops) {
    const place = { slot: hop.slot, handle: hop.key.handle, ...pathOf(hop) };
    const made = control.keys({ ...place, spi: 0 });
    if (made.reason === "ok" && made.nexthop === id) {
      control.keys({ ...place, spi: hop.spi });
      generations.set(id, made.gen);
    } else if (hop.spi !== 0) {
      log.say(
        "not_carried_over",
        "a host of a secure vnet could not be carried over: new keys are agreed with it",
      );
    }
  }
  for (const nexthop of nexthops.values()) control.run(nexthopRequest(nexthop, nexthops));
  carrySecurity(transfer, nexthops, generations);
  return nexthops;
}

/** SAs by which is received, and members; what named a host that is gone stays behind. */
function carrySecurity(
  transfer: Transfer,
  nexthops: ReadonlyMap<number, VnetdNexthop>,
  generations: ReadonlyMap<number, number>,
): void {
  const { from, to } = transfer;
  const now = <T extends { nexthop: number; gen: number }>(named: T): T | undefined => {
    const gen = generations.get(named.nexthop);
    const isSame = gen !== undefined && nexthops.get(named.nexthop)?.gen === named.gen;
    return isSame ? { ...named, gen } : undefined;
  };
  if (same(transfer, "spis")) {
    for (const [spi, record] of from.spis()) {
      const carried = now(record);
      if (carried !== undefined) to.setSpi(spi, carried);
    }
  }
  if (!same(transfer, "secure_members")) return;
  for (const slot of from.vnetSlots().values()) {
    const handle = from.vnet(slot)?.handle ?? 0;
    const members = from.secureMembers(handle).flatMap((member) => now(member) ?? []);
    to.setSecureMembers(handle, members);
  }
}

function pathOf({ key }: VnetdNexthop): { ifindex: number; addr: Uint8Array } {
  return { ifindex: key.ifindex, addr: key.addr };
}

function carryCounters(transfer: Transfer): void {
  const { native, from, to } = transfer;
  for (const name of ["drops", "device_stats", "table_stats"]) {
    if (!same(transfer, name)) continue;
    const { keySize, valueSize } = native.mapInfo(from.fd(name));
    const { count, keys, values } = from.dump(name);
    for (const at of range(count)) {
      const key = keys.subarray(at * keySize, (at + 1) * keySize);
      native.mapUpdate(to.fd(name), key, values.subarray(at * valueSize, (at + 1) * valueSize));
    }
  }
  for (const name of ["traffic", "neighbour_stats"]) {
    if (!same(transfer, name)) continue;
    for (const slot of from.vnetSlots().values()) {
      const value = native.mapLookup(from.fd(name), u32(slot));
      if (value !== undefined) native.mapUpdate(to.fd(name), u32(slot), value);
    }
  }
}
