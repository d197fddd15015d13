// SPDX-License-Identifier: Apache-2.0
/**
 * Typed access to the pinned maps. The maps are the only table: nothing is cached here.
 *
 * The layouts are generated from include/vnetd/maps.h. The order of writes that makes a crash at
 * any instant safe is kept in vnet-table.ts.
 */
import { parseAddress } from "../base/address.js";
import type { VnetdNexthop } from "../generated/layouts.js";
import {
  decodeVnetdDeviceStats,
  decodeVnetdDropCount,
  decodeVnetdDropKey,
  decodeVnetdFdbEntry,
  decodeVnetdFdbKey,
  decodeVnetdHostPath,
  decodeVnetdNeighbour,
  decodeVnetdNeighbourKey,
  decodeVnetdNeighbourStats,
  decodeVnetdNexthop,
  decodeVnetdPeer,
  decodeVnetdPeerStats,
  decodeVnetdTableStats,
  decodeVnetdTraffic,
  decodeVnetdPlace,
  decodeVnetdSecureMember,
  decodeVnetdSpi,
  decodeVnetdUnderlay,
  decodeVnetdVarpStats,
  decodeVnetdVnet,
  decodeVnetdVnetCounts,
  encodeVnetdFdbKey,
  encodeVnetdHostPathKey,
  encodeVnetdNeighbour,
  encodeVnetdNeighbourKey,
  encodeVnetdNexthopKey,
  encodeVnetdMember,
  encodeVnetdMemberKey,
  encodeVnetdPeer,
  encodeVnetdPort,
  encodeVnetdPlace,
  encodeVnetdSecureMember,
  encodeVnetdSpi,
  encodeVnetdUnderlay,
  encodeVnetdVnet,
  VnetdDropCount,
  VnetdDropKey,
  VnetdFdbEntry,
  VnetdFdbKey,
  VnetdFloods,
  VnetdMember,
  VnetdMemberKey,
  VnetdNeighbour,
  VnetdNeighbourKey,
  VnetdNeighbourStats,
  VnetdPeer as VnetdPeerLayout,
  VnetdSpi as VnetdSpiLayout,
  VnetdTraffic,
  VnetdVarpStats as VnetdVarpStatsLayout,
  VnetdVnetCounts,
  vnetdLimits,
  type VnetdDeviceStats,
  type VnetdHostPath,
  type VnetdHostPathKey,
  type VnetdNexthopKey,
  type VnetdPeer,
  type VnetdPeerStats,
  type VnetdPort,
  type VnetdSecureMember,
  type VnetdSpi,
  type VnetdTableStats,
  type VnetdPlace,
  type VnetdUnderlay,
  type VnetdVarpStats,
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

  /** atMost: of an array, the first so many */
  dump(name: string, atMost?: number): MapDump {
    return this.native.mapDump(this.fd(name), atMost);
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

  clearNeighbourStats(slot: number): void {
    const none = Buffer.alloc(VnetdNeighbourStats.size);
    this.native.mapUpdate(this.fd("neighbour_stats"), u32(slot), none);
  }

  neighbourStats(slot: number): VnetdNeighbourStats {
    const value = this.native.mapLookup(this.fd("neighbour_stats"), u32(slot));
    return decodeVnetdNeighbourStats(value ?? Buffer.alloc(VnetdNeighbourStats.size));
  }

  neighbour(key: VnetdNeighbourKey): VnetdNeighbour | undefined {
    const value = this.native.mapLookup(this.fd("neighbours"), encodeVnetdNeighbourKey(key));
    return value === undefined ? undefined : decodeVnetdNeighbour(value);
  }

  neighbours(): { key: VnetdNeighbourKey; entry: VnetdNeighbour }[] {
    const { count, keys, values } = this.dump("neighbours");
    return range(count).map((at) => ({
      key: decodeVnetdNeighbourKey(keys, at * VnetdNeighbourKey.size),
      entry: decodeVnetdNeighbour(values, at * VnetdNeighbour.size),
    }));
  }

  /** With its token; the vnet's count is the caller's. */
  enterNeighbour(key: VnetdNeighbourKey, entry: VnetdNeighbour): void {
    const bytes = encodeVnetdNeighbourKey(key);
    this.native.mapUpdate(this.fd("neighbours"), bytes, encodeVnetdNeighbour(entry));
    this.native.mapUpdate(this.fd("neighbour_queue"), new Uint8Array(0), bytes);
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

  port(ifindex: number): VnetdPort | undefined {
    const value = this.native.mapLookup(this.fd("ports"), u32(ifindex));
    return value && { slot: value.readUInt32LE(0), handle: value.readUInt32LE(4) };
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
    const key = encodeVnetdPlace(record);
    this.native.mapUpdate(this.fd("underlays"), key, encodeVnetdUnderlay(record));
  }

  deleteUnderlay(place: VnetdPlace): void {
    this.native.mapDelete(this.fd("underlays"), encodeVnetdPlace(place));
  }

  /** The list that a program walks for the group; ifindex 0 ends nothing, it is an empty place. */
  underlayList(): VnetdPlace[] {
    return range(vnetdLimits.MAX_UNDERLAYS).map((at) => {
      const value = this.native.mapLookup(this.fd("underlay_list"), u32(at));
      return value === undefined ? noPlace : decodeVnetdPlace(value);
    });
  }

  setUnderlayListed(at: number, place: VnetdPlace): void {
    this.native.mapUpdate(this.fd("underlay_list"), u32(at), encodeVnetdPlace(place));
  }

  deviceStats(ifindex: number): VnetdDeviceStats | undefined {
    const value = this.native.mapLookup(this.fd("device_stats"), u32(ifindex));
    return value === undefined ? undefined : decodeVnetdDeviceStats(value);
  }

  deleteDeviceStats(ifindex: number): void {
    this.native.mapDelete(this.fd("device_stats"), u32(ifindex));
  }

  // ---- peers
  /** Those in use, by number. */
  peers(): Map<number, VnetdPeer> {
    const { count, keys, values } = this.dump("peers");
    return new Map(
      range(count).flatMap((at) => {
        const record = decodeVnetdPeer(values, at * VnetdPeerLayout.size);
        return record.flags === 0 ? [] : [[keys.readUInt32LE(at * 4), record] as const];
      }),
    );
  }

  /** The record first: who finds the address finds it complete. */
  setPeer(number: number, record: VnetdPeer): void {
    const bytes = encodeVnetdPeer(record);
    const old = this.native.mapLookup(this.fd("peers"), u32(number));
    if (old === undefined || !old.equals(bytes)) {
      this.native.mapUpdate(this.fd("peers"), u32(number), bytes);
    }
    this.native.mapUpdate(this.fd("peer_ids"), record.addr, u32(number));
  }

  deletePeer(number: number, addr: Uint8Array): void {
    const empty = (name: string): Buffer =>
      Buffer.alloc(this.native.mapInfo(this.fd(name)).valueSize);
    this.native.mapDelete(this.fd("peer_ids"), addr);
    this.native.mapUpdate(this.fd("peers"), u32(number), empty("peers"));
    this.native.mapUpdate(this.fd("peer_stats"), u32(number), empty("peer_stats"));
    this.native.mapUpdate(this.fd("peer_heard"), u32(number), empty("peer_heard"));
  }

  peerStats(number: number): VnetdPeerStats {
    const value = this.native.mapLookup(this.fd("peer_stats"), u32(number));
    return decodeVnetdPeerStats(value ?? Buffer.alloc(32));
  }

  /** 0: never */
  peerHeardNs(number: number): bigint {
    return this.native.mapLookup(this.fd("peer_heard"), u32(number))?.readBigUInt64LE(0) ?? 0n;
  }

  /** Exactly these. A vnet's are numbered from 0 on; what is new is written before old is deleted. */
  setUnicastMembers(
    members: readonly { handle: number; number: number; address: string; ifindex: number }[],
  ): void {
    const { count, keys, values } = this.dump("unicast_members");
    const old = new Map(
      range(count).map((at) => [
        keys.subarray(at * VnetdMemberKey.size, (at + 1) * VnetdMemberKey.size).toString("hex"),
        values.subarray(at * VnetdMember.size, (at + 1) * VnetdMember.size),
      ]),
    );
    for (const { handle, number, address, ifindex } of members) {
      const key = encodeVnetdMemberKey({ handle, number });
      const value = encodeVnetdMember({ addr: parseAddress(address), ifindex, port: 0 });
      const before = old.get(key.toString("hex"));
      old.delete(key.toString("hex"));
      if (before?.equals(value) !== true) {
        this.native.mapUpdate(this.fd("unicast_members"), key, value);
      }
    }
    for (const key of old.keys()) {
      this.native.mapDelete(this.fd("unicast_members"), Buffer.from(key, "hex"));
    }
  }

  // ---- security associations
  spi(spi: number): VnetdSpi | undefined {
    const value = this.native.mapLookup(this.fd("spis"), u32(spi));
    return value === undefined ? undefined : decodeVnetdSpi(value);
  }

  setSpi(spi: number, record: VnetdSpi): void {
    this.native.mapUpdate(this.fd("spis"), u32(spi), encodeVnetdSpi(record));
  }

  deleteSpi(spi: number): void {
    this.native.mapDelete(this.fd("spis"), u32(spi));
  }

  spis(): Map<number, VnetdSpi> {
    const { count, keys, values } = this.dump("spis");
    return new Map(
      range(count).map((at) => [
        keys.readUInt32LE(at * 4),
        decodeVnetdSpi(values, at * VnetdSpiLayout.size),
      ]),
    );
  }

  /** A secure vnet's, in the order of their numbers. */
  secureMembers(handle: number): VnetdSecureMember[] {
    const members: VnetdSecureMember[] = [];
    for (let number = 0; number < vnetdLimits.MAX_VNET_MEMBERS; number += 1) {
      const key = encodeVnetdMemberKey({ handle, number });
      const value = this.native.mapLookup(this.fd("secure_members"), key);
      if (value === undefined) break;
      members.push(decodeVnetdSecureMember(value));
    }
    return members;
  }

  /**
   * Exactly these. A program walks them from 0 on to the first that is missing, so what is new is written in that
   * order before what is left over is deleted from the end.
   */
  setSecureMembers(handle: number, members: readonly VnetdSecureMember[]): void {
    const before = this.secureMembers(handle);
    members.forEach((member, number) => {
      const old = before[number];
      if (old?.nexthop === member.nexthop && old.gen === member.gen) return;
      const key = encodeVnetdMemberKey({ handle, number });
      this.native.mapUpdate(this.fd("secure_members"), key, encodeVnetdSecureMember(member));
    });
    for (let number = before.length - 1; number >= members.length; number -= 1) {
      const key = encodeVnetdMemberKey({ handle, number });
      this.native.mapDelete(this.fd("secure_members"), key);
    }
  }

  // ---- the MAC table
  fdbEntry(key: VnetdFdbKey): VnetdFdbEntry | undefined {
    const value = this.native.mapLookup(this.fd("fdb"), encodeVnetdFdbKey(key));
    return value === undefined ? undefined : decodeVnetdFdbEntry(value);
  }

  /** One after another: a table may have a million. */
  *eachEntry(): Generator<{ key: VnetdFdbKey; entry: VnetdFdbEntry }> {
    const { count, keys, values } = this.dump("fdb");
    for (let at = 0; at < count; at += 1) {
      yield {
        key: decodeVnetdFdbKey(keys, at * VnetdFdbKey.size),
        entry: decodeVnetdFdbEntry(values, at * VnetdFdbEntry.size),
      };
    }
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

  /** Plain VARP that the daemon did not see. */
  varpStats(): VnetdVarpStats {
    const value = this.native.mapLookup(this.fd("varp_stats"), u32(0));
    return decodeVnetdVarpStats(value ?? Buffer.alloc(VnetdVarpStatsLayout.size));
  }
}

export const noPlace: VnetdPlace = { ifindex: 0, family: 0 };

export function samePlace(a: VnetdPlace, b: VnetdPlace): boolean {
  return a.ifindex === b.ifindex && a.family === b.family;
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
