// SPDX-License-Identifier: Apache-2.0
/**
 * Typed access to the pinned maps. The maps are the only table: nothing is cached here.
 *
 * The layouts are generated from include/vnetd/maps.h. The order of writes that makes a crash at
 * any instant safe is kept in vnet-table.ts.
 */
import type { VnetdNexthop } from "../generated/layouts.js";
import {
  decodeVnetdDeviceStats,
  decodeVnetdDropCount,
  decodeVnetdDropKey,
  decodeVnetdFdbEntry,
  decodeVnetdFdbKey,
  decodeVnetdHostPath,
  decodeVnetdNexthop,
  decodeVnetdTableStats,
  decodeVnetdTraffic,
  decodeVnetdUnderlay,
  decodeVnetdVnet,
  decodeVnetdVnetCounts,
  encodeVnetdFdbEntry,
  encodeVnetdFdbKey,
  encodeVnetdHostPathKey,
  encodeVnetdNexthopKey,
  encodeVnetdPort,
  encodeVnetdUnderlay,
  encodeVnetdVnet,
  VnetdDropCount,
  VnetdDropKey,
  VnetdFdbEntry,
  VnetdFdbKey,
  VnetdFloods,
  VnetdTraffic,
  VnetdVnetCounts,
  vnetdLimits,
  type VnetdDeviceStats,
  type VnetdHostPath,
  type VnetdHostPathKey,
  type VnetdNexthopKey,
  type VnetdPort,
  type VnetdTableStats,
  type VnetdUnderlay,
  type VnetdVnet,
} from "../generated/layouts.js";
import type { MapDump, Native } from "../native/contract.js";

export class Maps {
  constructor(
    private readonly native: Native,
    private readonly fds: Record<string, number>,
  ) {}

  fd(name: string): number {
    const fd = this.fds[name];
    if (fd === undefined) throw new Error(`the BPF object has no map "${name}"`);
    return fd;
  }

  has(name: string): boolean {
    return this.fds[name] !== undefined;
  }

  maxEntries(name: string): number {
    return this.native.mapInfo(this.fd(name)).maxEntries;
  }

  dump(name: string): MapDump {
    return this.native.mapDump(this.fd(name));
  }

  // ---- vnets
  vnet(slot: number): VnetdVnet | undefined {
    const value = this.native.mapLookup(this.fd("vnets"), u32(slot));
    return value === undefined ? undefined : decodeVnetdVnet(value);
  }

  setVnet(slot: number, record: VnetdVnet): void {
    this.native.mapUpdate(this.fd("vnets"), u32(slot), encodeVnetdVnet(record));
  }

  clearVnet(slot: number): void {
    const empty = Buffer.alloc(this.native.mapInfo(this.fd("vnets")).valueSize);
    this.native.mapUpdate(this.fd("vnets"), u32(slot), empty);
  }

  vnetSlots(): Map<string, number> {
    const { count, keys, values } = this.dump("vnet_ids");
    return new Map(
      range(count).map((at) => [
        keys.subarray(at * 16, at * 16 + 16).toString("hex"),
        values.readUInt32LE(at * 4),
      ]),
    );
  }

  setVnetId(id: Uint8Array, slot: number): void {
    this.native.mapUpdate(this.fd("vnet_ids"), id, u32(slot));
  }

  deleteVnetId(id: Uint8Array): void {
    this.native.mapDelete(this.fd("vnet_ids"), id);
  }

  vnetCounts(slot: number): VnetdVnetCounts {
    const value = this.native.mapLookup(this.fd("vnet_counts"), u32(slot));
    return decodeVnetdVnetCounts(value ?? Buffer.alloc(VnetdVnetCounts.size));
  }

  traffic(slot: number): VnetdTraffic {
    const value = this.native.mapLookup(this.fd("traffic"), u32(slot));
    return decodeVnetdTraffic(value ?? Buffer.alloc(VnetdTraffic.size));
  }

  clearTraffic(slot: number): void {
    this.native.mapUpdate(this.fd("traffic"), u32(slot), Buffer.alloc(VnetdTraffic.size));
  }

  /** What a vnet has used up of its budgets, and what is known of loops in it. */
  clearFloods(slot: number): void {
    this.native.mapUpdate(this.fd("floods"), u32(slot), Buffer.alloc(VnetdFloods.size));
  }

  // ---- ports
  ports(): Map<number, VnetdPort> {
    const { count, keys, values } = this.dump("ports");
    return new Map(
      range(count).map((at) => [
        keys.readUInt32LE(at * 4),
        { slot: values.readUInt32LE(at * 8), handle: values.readUInt32LE(at * 8 + 4) },
      ]),
    );
  }

  setPort(ifindex: number, port: VnetdPort): void {
    this.native.mapUpdate(this.fd("ports"), u32(ifindex), encodeVnetdPort(port));
  }

  deletePort(ifindex: number): void {
    this.native.mapDelete(this.fd("ports"), u32(ifindex));
  }

  // ---- underlays
  underlays(): VnetdUnderlay[] {
    const { count, values } = this.dump("underlays");
    const size = this.native.mapInfo(this.fd("underlays")).valueSize;
    return range(count).map((at) => decodeVnetdUnderlay(values, at * size));
  }

  setUnderlay(record: VnetdUnderlay): void {
    this.native.mapUpdate(this.fd("underlays"), u32(record.ifindex), encodeVnetdUnderlay(record));
  }

  deleteUnderlay(ifindex: number): void {
    this.native.mapDelete(this.fd("underlays"), u32(ifindex));
  }

  /** The list that a program walks for the group; 0 ends nothing, it is an empty place. */
  underlayList(): number[] {
    return range(vnetdLimits.MAX_UNDERLAYS).map(
      (at) => this.native.mapLookup(this.fd("underlay_list"), u32(at))?.readUInt32LE(0) ?? 0,
    );
  }

  setUnderlayListed(at: number, ifindex: number): void {
    this.native.mapUpdate(this.fd("underlay_list"), u32(at), u32(ifindex));
  }

  deviceStats(ifindex: number): VnetdDeviceStats | undefined {
    const value = this.native.mapLookup(this.fd("device_stats"), u32(ifindex));
    return value === undefined ? undefined : decodeVnetdDeviceStats(value);
  }

  deleteDeviceStats(ifindex: number): void {
    this.native.mapDelete(this.fd("device_stats"), u32(ifindex));
  }

  // ---- the MAC table
  fdbEntry(key: VnetdFdbKey): VnetdFdbEntry | undefined {
    const value = this.native.mapLookup(this.fd("fdb"), encodeVnetdFdbKey(key));
    return value === undefined ? undefined : decodeVnetdFdbEntry(value);
  }

  /** Only for entries that the control program entered. */
  setFdbEntry(key: VnetdFdbKey, entry: VnetdFdbEntry): void {
    this.native.mapUpdate(this.fd("fdb"), encodeVnetdFdbKey(key), encodeVnetdFdbEntry(entry), 2);
  }

  fdb(): { key: VnetdFdbKey; entry: VnetdFdbEntry }[] {
    const { count, keys, values } = this.dump("fdb");
    return range(count).map((at) => ({
      key: decodeVnetdFdbKey(keys, at * VnetdFdbKey.size),
      entry: decodeVnetdFdbEntry(values, at * VnetdFdbEntry.size),
    }));
  }

  nexthop(id: number): VnetdNexthop | undefined {
    const value = this.native.mapLookup(this.fd("nexthops"), u32(id));
    return value === undefined ? undefined : decodeVnetdNexthop(value);
  }

  nexthopOf(key: VnetdNexthopKey): VnetdNexthop | undefined {
    const id = this.native.mapLookup(this.fd("nexthop_ids"), encodeVnetdNexthopKey(key));
    return id === undefined ? undefined : this.nexthop(id.readUInt32LE(0));
  }

  /** What routers said of the way to a host. */
  hostPath(key: VnetdHostPathKey): VnetdHostPath | undefined {
    const value = this.native.mapLookup(this.fd("host_paths"), encodeVnetdHostPathKey(key));
    return value === undefined ? undefined : decodeVnetdHostPath(value);
  }

  /** Next hops in use, by id. */
  nexthops(): Map<number, VnetdNexthop> {
    const ids = this.dump("nexthop_ids");
    return new Map(
      range(ids.count).flatMap((at) => {
        const id = ids.values.readUInt32LE(at * 4);
        const record = this.nexthop(id);
        return record === undefined ? [] : [[id, record] as const];
      }),
    );
  }

  // ---- counters
  drops(): { key: VnetdDropKey; count: VnetdDropCount }[] {
    const { count, keys, values } = this.dump("drops");
    return range(count).map((at) => ({
      key: decodeVnetdDropKey(keys, at * VnetdDropKey.size),
      count: decodeVnetdDropCount(values, at * VnetdDropCount.size),
    }));
  }

  tableStats(): VnetdTableStats {
    const value = this.native.mapLookup(this.fd("table_stats"), u32(0));
    return decodeVnetdTableStats(value ?? Buffer.alloc(32));
  }
}

export function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value >>> 0);
  return out;
}

export function range(count: number): number[] {
  return Array.from({ length: count }, (_, at) => at);
}

export type { VnetdNexthop };
