// SPDX-License-Identifier: Apache-2.0
/**
 * The MAC table as people see it, read from the maps at the moment it is asked for.
 *
 * Whether an entry is alive is decided here exactly as in bpf/lib/fdb.h: heard less than the
 * vnet's age ago, after the last flush if it lives elsewhere, and its next hop is still of the same
 * generation.
 */
import { addressToText, familyOfText } from "../base/address.js";
import { macFromBytes, type Mac } from "../base/mac.js";
import type { VnetId } from "../base/vnet-id.js";
import {
  directionNames,
  reasonNames,
  vnetdFdbFlags,
  vnetdNeighbourFlags,
  vnetdNexthopSpecial,
  vnetdVnetFlags,
  vnetdWire,
  type VnetdFdbEntry,
  type VnetdNeighbour,
  type VnetdFdbKey,
  type VnetdNexthop,
  type VnetdVnet,
} from "../generated/layouts.js";
import type { Maps } from "./maps.js";
import type { VnetSlot } from "./vnet-table.js";

export interface LocalEntry {
  vnet: VnetId;
  handle: number;
  vmac: Mac;
  state: "learned" | "added" | "static";
  ageMs: number;
  /** ifindex of the direct port that it is behind; 0: the vnetif */
  port: number;
}

export interface RemoteEntry {
  vnet: VnetId;
  handle: number;
  vmac: Mac;
  address: string;
  ifindex: number;
  state: "learned" | "announced" | "static" | "aged";
  ageMs: number;
  /** of the path to the host; undefined: its device is not attached */
  mtuBytes: number | undefined;
}

/** The vnets whose entries are wanted, by handle. */
export type VnetsByHandle = ReadonlyMap<number, VnetSlot & { id: VnetId }>;

export function nowNs(): bigint {
  return process.hrtime.bigint();
}

/** Alive by time alone. */
export function isFresh(entry: VnetdFdbEntry, vnet: VnetdVnet, now: bigint): boolean {
  if ((entry.flags & vnetdFdbFlags.FDB_STATIC) !== 0) return true;
  if (entry.seenNs === 0n || now - entry.seenNs >= vnet.ageNs) return false;
  return entry.seenNs >= vnet.flushedNs || isLocal(entry);
}

export function isLocal(entry: VnetdFdbEntry): boolean {
  return entry.nexthop === vnetdNexthopSpecial.NEXTHOP_LOCAL;
}

/** MACs that live on this host; aged ones are left out. */
export function localEntries(maps: Maps, vnets: VnetsByHandle): LocalEntry[] {
  const now = nowNs();
  const records = recordsOf(maps, vnets);
  return maps.fdb().flatMap(({ key, entry }) => {
    const record = records.get(key.handle);
    const vnet = vnets.get(key.handle);
    if (record === undefined || vnet === undefined) return [];
    if (!isLocal(entry) || !isFresh(entry, record, now)) return [];
    const common = { vnet: vnet.id, handle: key.handle, vmac: macFromBytes(key.mac) };
    const { flags, seenNs, gen: port } = entry;
    return [{ ...common, state: localState(flags), ageMs: ageMs(now, seenNs), port }];
  });
}

/** MACs that live elsewhere, those that aged and are not swept yet as well. */
export function remoteEntries(maps: Maps, vnets: VnetsByHandle): RemoteEntry[] {
  const now = nowNs();
  const records = recordsOf(maps, vnets);
  const nexthops = new Map<number, VnetdNexthop | undefined>();
  const mtus = new Map<number, number>();
  const devices = new Map(maps.underlays().map(({ ifindex, mtu }) => [ifindex, mtu]));
  return maps.fdb().flatMap(({ key, entry }) => {
    const record = records.get(key.handle);
    const vnet = vnets.get(key.handle);
    if (record === undefined || vnet === undefined || isLocal(entry)) return [];
    if (!nexthops.has(entry.nexthop)) {
      const found = maps.nexthop(entry.nexthop);
      nexthops.set(entry.nexthop, found);
      const device = devices.get(found?.key.ifindex ?? 0);
      if (found !== undefined && device !== undefined) {
        const mtuBytes = pathMtuBytes(maps, device, { ...found.key, mtuBytes: found.mtu });
        mtus.set(entry.nexthop, mtuBytes);
      }
    }
    const nexthop = nexthops.get(entry.nexthop);
    if (nexthop === undefined || nexthop.gen !== entry.gen) return [];
    const fresh = isFresh(entry, record, now);
    return [
      {
        vnet: vnet.id,
        handle: key.handle,
        vmac: macFromBytes(key.mac),
        address: addressToText(nexthop.key.addr),
        ifindex: nexthop.key.ifindex,
        state: stateOf(entry.flags, fresh),
        ageMs: ageMs(now, entry.seenNs),
        mtuBytes: mtus.get(entry.nexthop),
      },
    ];
  });
}

export interface NeighbourRow {
  handle: number;
  /** 16 bytes */
  addr: Uint8Array;
  mac: Uint8Array;
  /** where it was heard last */
  isLocal: boolean;
  isRouter: boolean;
  /** a question for it would be answered on this host */
  isAnswered: boolean;
  ageMs: number;
}

/** As in bpf/lib/neighbour.h and answer_of() of bpf/lib/suppress.h; those that were forgotten are left out. */
export function neighbourRows(maps: Maps, vnets: VnetsByHandle): NeighbourRow[] {
  const now = nowNs();
  const records = recordsOf(maps, vnets);
  return maps.neighbours().flatMap(({ key, entry }) => {
    const record = records.get(key.handle);
    if (record === undefined || entry.heardNs === 0n) return [];
    const isIpv4 = familyOfText(addressToText(key.addr)) === 4;
    return [
      {
        handle: key.handle,
        addr: key.addr,
        mac: entry.mac,
        isLocal: hasFlag(entry, vnetdNeighbourFlags.NEIGHBOUR_LOCAL),
        isRouter: hasFlag(entry, vnetdNeighbourFlags.NEIGHBOUR_ROUTER),
        isAnswered:
          (record.flags & vnetdVnetFlags.VNET_SUPPRESS) !== 0 &&
          entry.heardNs >= record.flushedNs &&
          now - entry.heardNs < record.neighbourAgeNs &&
          (isIpv4 || hasFlag(entry, vnetdNeighbourFlags.NEIGHBOUR_ADVERTISED)) &&
          isElsewhere(maps, record, { handle: key.handle, mac: entry.mac }),
        ageMs: ageMs(now, entry.heardNs),
      },
    ];
  });
}

function hasFlag({ flags }: VnetdNeighbour, flag: number): boolean {
  return (flags & flag) !== 0;
}

/** Behind another host that is known. */
function isElsewhere(maps: Maps, record: VnetdVnet, key: VnetdFdbKey): boolean {
  const entry = maps.fdbEntry(key);
  if (entry === undefined || isLocal(entry) || !isFresh(entry, record, nowNs())) return false;
  return maps.nexthop(entry.nexthop)?.gen === entry.gen;
}

export interface HostPlace {
  ifindex: number;
  addr: Uint8Array;
}

/**
 * The longest packet to a host, exactly as in bpf/lib/path.h: the device's MTU, the host's own
 * (0: not known), and what routers said.
 */
export function pathMtuBytes(
  maps: Maps,
  deviceMtuBytes: number,
  host: HostPlace & { mtuBytes: number },
): number {
  const said = maps.hostPath({ ifindex: host.ifindex, addr: host.addr });
  const fresh = said !== undefined && said.mtu > 0 && said.mtuUntilNs > nowNs();
  const known = host.mtuBytes >= vnetdWire.PATH_MTU_MIN ? [host.mtuBytes] : [];
  return Math.min(deviceMtuBytes, ...known, ...(fresh ? [said.mtu] : []));
}

export interface DropRow {
  handle: number;
  direction: "encap" | "decap";
  reason: string;
  frames: number;
  bytes: number;
}

/** The drop counters; those of vnets that are gone are counted under handle 0's label. */
export function dropRows(maps: Maps): DropRow[] {
  return maps.drops().map(({ key, count }) => ({
    handle: key.handle,
    direction: directionNames[key.direction] === "encap" ? "encap" : "decap",
    reason: reasonNames[key.reason] ?? `reason_${String(key.reason)}`,
    frames: Number(count.frames),
    bytes: Number(count.bytes),
  }));
}

function localState(flags: number): LocalEntry["state"] {
  if ((flags & vnetdFdbFlags.FDB_PINNED) !== 0) return "static";
  return (flags & vnetdFdbFlags.FDB_STATIC) !== 0 ? "added" : "learned";
}

function stateOf(flags: number, fresh: boolean): RemoteEntry["state"] {
  if (!fresh) return "aged";
  if ((flags & vnetdFdbFlags.FDB_STATIC) !== 0) return "static";
  return (flags & vnetdFdbFlags.FDB_ANNOUNCED) !== 0 ? "announced" : "learned";
}

function recordsOf(maps: Maps, vnets: VnetsByHandle): Map<number, VnetdVnet> {
  const records = new Map<number, VnetdVnet>();
  for (const [handle, { slot }] of vnets) {
    const record = maps.vnet(slot);
    if (record?.handle === handle) records.set(handle, record);
  }
  return records;
}

function ageMs(now: bigint, seenNs: bigint): number {
  return Math.max(0, Number(now - seenNs) / 1e6);
}
