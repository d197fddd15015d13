// SPDX-License-Identifier: Apache-2.0
/**
 * Enters vnets into the maps and takes them out.
 *
 * The order is what makes a crash at any instant harmless: the record, then the ports that lead
 * to it, then the id that packets name; the other way round for deletion, but that its record is no longer up first. Handles are never used
 * twice while the maps live, so table entries of a vnet that is gone point to nothing. A slot is
 * used again, and not before its old entries were swept where there is another.
 */
import { VnetdError } from "../base/errors.js";
import { vnetIdFromBytes, vnetIdToBytes, type VnetId } from "../base/vnet-id.js";
import {
  vnetdLimits,
  vnetdSecurity,
  vnetdVnetFlags,
  type VnetdVnet,
} from "../generated/layouts.js";
import type { Native } from "../native/contract.js";
import { readMeta, writeMeta } from "./generation.js";
import type { Maps } from "./maps.js";

/** What a record has for each level. */
export const securityNumbers = {
  none: vnetdSecurity.SECURITY_NONE,
  auth: vnetdSecurity.SECURITY_AUTH,
  conf: vnetdSecurity.SECURITY_CONF,
} as const;

export interface VnetSlot {
  slot: number;
  handle: number;
}

export interface VnetSettings {
  security: number;
  /** 0: it was moved into another namespace */
  vnif: number;
  vnifPeer: number;
  vmac: Uint8Array;
  maxEntries: number;
  maxEntriesPerHost: number;
  maxHosts: number;
  ageMs: number;
  floodPerSecond: number;
  floodBurst: number;
  probeNonce: bigint;
  /** enum vnetd_encap */
  encap: number;
  /** of a secure vnet: what ESP adds (src/wire/overhead.ts, espRoom()) */
  esp?: EspRoom;
  /** ARP and neighbour discovery are answered here where they can be; undefined: all are flooded */
  suppress?: SuppressSettings;
  /** 16 bytes each; undefined: it has none of that family */
  group?: Uint8Array;
  group6?: Uint8Array;
}

export interface SuppressSettings {
  maxNeighbours: number;
  /** for so long after its owner was heard an address is answered for */
  neighbourAgeMs: number;
}

/** Bytes in front of and behind what ESP pads, by family, and the block that it is padded to. */
export interface EspRoom {
  fixed4: number;
  fixed6: number;
  block: number;
}

export class VnetTable {
  private lastSlot = 0;
  /** whose frames are captured: nobody's when the daemon starts */
  private readonly watched = new Set<VnetId>();

  constructor(
    private readonly native: Native,
    private readonly maps: Maps,
  ) {}

  /** What the maps hold: vnets with an id, and with a complete record. */
  entered(): Map<VnetId, VnetSlot> {
    const out = new Map<VnetId, VnetSlot>();
    for (const [hex, slot] of this.maps.vnetSlots()) {
      const record = this.maps.vnet(slot);
      if (record === undefined || record.handle === 0) continue;
      if (Buffer.from(record.id).toString("hex") !== hex) continue;
      out.set(vnetIdFromBytes(record.id), { slot, handle: record.handle });
    }
    return out;
  }

  /** A place for a new vnet. Nothing is written but the number of the next handle. */
  allocate(used: ReadonlySet<number>): VnetSlot {
    const slot = this.freeSlot(used);
    const meta = readMeta(this.native, this.maps);
    const handle = meta.nextHandle;
    // 0 is no handle; after 2^32 vnets the first come again.
    writeMeta(this.native, this.maps, { ...meta, nextHandle: (handle + 1) >>> 0 || 1 });
    this.lastSlot = slot;
    this.maps.clearTraffic(slot);
    this.maps.clearFloods(slot);
    this.maps.clearNeighbourStats(slot);
    this.native.mapUpdate(this.maps.fd("vnet_counts"), slotKey(slot), this.emptyCounts());
    return { slot, handle };
  }

  /** Enters a vnet, or replaces its record; idempotent. */
  write(id: VnetId, { slot, handle }: VnetSlot, settings: VnetSettings): void {
    const before = this.maps.vnet(slot);
    if (before?.handle === handle) this.leavePorts(before, settings);
    const idBytes = vnetIdToBytes(id);
    const groups = {
      group: settings.group ?? new Uint8Array(16),
      group6: settings.group6 ?? new Uint8Array(16),
    };
    const record: VnetdVnet = {
      id: idBytes,
      handle,
      flags:
        this.flagsOf(id) |
        portsOf(before, handle) |
        suppressFlag(settings) |
        groupFlagsOf(before, handle, groups),
      security: settings.security,
      vnif: settings.vnif,
      vnifPeer: settings.vnifPeer,
      maxEntries: settings.maxEntries,
      maxEntriesPerHost: settings.maxEntriesPerHost,
      maxHosts: settings.maxHosts,
      ageNs: BigInt(Math.round(settings.ageMs)) * 1_000_000n,
      flushedNs: before?.handle === handle ? before.flushedNs : 0n,
      vmac: settings.vmac,
      floodPerSecond: settings.floodPerSecond,
      floodBurst: settings.floodBurst,
      probeNonce: settings.probeNonce,
      encap: settings.encap,
      espFixed4: settings.esp?.fixed4 ?? 0,
      espFixed6: settings.esp?.fixed6 ?? 0,
      espBlock: settings.esp?.block ?? 0,
      maxNeighbours: settings.suppress?.maxNeighbours ?? 0,
      neighbourAgeNs: BigInt(Math.round(settings.suppress?.neighbourAgeMs ?? 0)) * 1_000_000n,
      ...groups,
    };
    this.maps.setVnet(slot, record);
    for (const ifindex of [settings.vnif, settings.vnifPeer]) {
      if (ifindex !== 0) this.maps.setPort(ifindex, { slot, handle });
    }
    this.maps.setVnetId(idBytes, slot);
  }

  /** Its frames are captured, or no longer; `place` is where it is just now. */
  setWatched(id: VnetId, place: VnetSlot | undefined, isWatched: boolean): void {
    if (isWatched) this.watched.add(id);
    else this.watched.delete(id);
    if (place === undefined) return;
    const record = this.maps.vnet(place.slot);
    if (record?.handle === place.handle)
      this.maps.setVnet(place.slot, {
        ...record,
        flags: this.flagsOf(id) | (record.flags & keptFlags),
      });
  }

  /** It has direct ports, or none. */
  setPorts({ slot, handle }: VnetSlot, has: boolean): void {
    const record = this.maps.vnet(slot);
    if (record?.handle !== handle || (portsOf(record, handle) !== 0) === has) return;
    const { VNET_PORTS } = vnetdVnetFlags;
    const flags = has ? record.flags | VNET_PORTS : record.flags & ~VNET_PORTS;
    this.maps.setVnet(slot, { ...record, flags });
  }

  /** By which families what is for all goes to its own groups: enum vnetd_vnet_flags. True: that is another now. */
  setGroupFlags({ slot, handle }: VnetSlot, wanted: number): boolean {
    const record = this.maps.vnet(slot);
    if (record?.handle !== handle || (record.flags & groupFlags) === wanted) return false;
    this.maps.setVnet(slot, { ...record, flags: (record.flags & ~groupFlags) | wanted });
    return true;
  }

  /** Of all records: groups that a daemon before this one may have joined. */
  groups(): Uint8Array[] {
    return [...this.entered().values()].flatMap(({ slot }) => {
      const record = this.maps.vnet(slot);
      const groups = record === undefined ? [] : [record.group, record.group6];
      return groups.filter((group) => group.some((byte) => byte !== 0));
    });
  }

  /** From the next frame on; nothing else of the record changes. */
  setSecurity({ slot, handle }: VnetSlot, security: number): void {
    const record = this.maps.vnet(slot);
    if (record?.handle === handle) this.maps.setVnet(slot, { ...record, security });
  }

  remove(id: VnetId, { slot, handle }: VnetSlot): void {
    const record = this.maps.vnet(slot);
    // the programs remember where it was (bpf/lib/hint.h), and believe it of a record that is up
    if (record?.handle === handle) this.maps.setVnet(slot, { ...record, flags: 0 });
    this.maps.deleteVnetId(vnetIdToBytes(id));
    for (const [ifindex, port] of this.maps.ports()) {
      if (port.slot === slot && port.handle === handle) this.maps.deletePort(ifindex);
    }
    if (record?.handle === handle) this.maps.clearVnet(slot);
  }

  /** What was heard of other hosts' MACs in the vnet is forgotten, in one write. */
  flush({ slot, handle }: VnetSlot): void {
    const record = this.maps.vnet(slot);
    if (record?.handle !== handle) return;
    this.maps.setVnet(slot, { ...record, flushedNs: process.hrtime.bigint() });
  }

  private flagsOf(id: VnetId): number {
    return vnetdVnetFlags.VNET_UP | (this.watched.has(id) ? vnetdVnetFlags.VNET_WATCHED : 0);
  }

  /** Devices that it had, and has no longer. */
  private leavePorts(before: VnetdVnet, { vnif, vnifPeer }: VnetSettings): void {
    for (const ifindex of [before.vnif, before.vnifPeer]) {
      if (ifindex === vnif || ifindex === vnifPeer) continue;
      if (this.maps.port(ifindex)?.handle === before.handle) this.maps.deletePort(ifindex);
    }
  }

  private freeSlot(used: ReadonlySet<number>): number {
    const limit = this.maps.maxEntries("vnets");
    let busy: number | undefined;
    for (let at = 0; at < limit - 1; at += 1) {
      const slot = ((this.lastSlot + at) % (limit - 1)) + 1;
      if (used.has(slot)) continue;
      if (this.maps.vnetCounts(slot).entries === 0) return slot;
      busy ??= slot;
    }
    if (busy !== undefined) return busy;
    throw new VnetdError(
      "VNET_LIMIT",
      `this host has ${String(limit - 1)} vnets, which is all that fit`,
      {
        hint: "Delete one that is not used.",
      },
    );
  }

  private emptyCounts(): Buffer {
    return Buffer.alloc(this.native.mapInfo(this.maps.fd("vnet_counts")).valueSize);
  }
}

const groupFlags = vnetdVnetFlags.VNET_GROUP | vnetdVnetFlags.VNET_GROUP6;
/** what has nothing to do with whether a vnet is captured */
const keptFlags = vnetdVnetFlags.VNET_PORTS | vnetdVnetFlags.VNET_SUPPRESS | groupFlags;

function suppressFlag({ suppress }: VnetSettings): number {
  return suppress === undefined ? 0 : vnetdVnetFlags.VNET_SUPPRESS;
}

/** Direct ports stay while the vnet's record is written anew. */
function portsOf(record: VnetdVnet | undefined, handle: number): number {
  return record?.handle === handle ? record.flags & vnetdVnetFlags.VNET_PORTS : 0;
}

/** Who is known to hear a group is known still, while it is the same. */
function groupFlagsOf(
  before: VnetdVnet | undefined,
  handle: number,
  { group, group6 }: Pick<VnetdVnet, "group" | "group6">,
): number {
  if (before?.handle !== handle) return 0;
  const { VNET_GROUP, VNET_GROUP6 } = vnetdVnetFlags;
  const kept =
    (Buffer.from(before.group).equals(group) ? VNET_GROUP : 0) |
    (Buffer.from(before.group6).equals(group6) ? VNET_GROUP6 : 0);
  return before.flags & kept;
}

function slotKey(slot: number): Buffer {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(slot);
  return key;
}

export const maxVnets = vnetdLimits.MAX_VNETS - 1;
