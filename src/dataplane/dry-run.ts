// SPDX-License-Identifier: Apache-2.0
/**
 * The programs once more, to see what they would do with a frame: nothing of it happens.
 *
 * They are loaded with the running generation's maps where they only read, and with maps of their own for all that
 * they write: the records of one vnet that decide a frame's way are copied into those, and what the run has changed
 * is read from them. So nothing is learned, counted or told. They are attached to nothing, and what they return is
 * acted on by nobody; copies, which would leave in a test run as well, are noted instead (bpf/lib/copy.h).
 */
import { VnetdError } from "../base/errors.js";
import {
  decodeVnetdDryCopies,
  decodeVnetdNexthopKey,
  encodeVnetdFdbKey,
  encodeVnetdHostPathKey,
  encodeVnetdNeighbourKey,
  VnetdDryCopies,
  VnetdNexthopKey,
  VnetdVnetCounts,
  vnetdLimits,
  type VnetdDryCopy,
  type VnetdFdbEntry,
} from "../generated/layouts.js";
import { kernel } from "../host/errno.js";
import type { LoadedObject, Native, TestRunOptions } from "../native/contract.js";
import { layoutOf, type Generation } from "./generation.js";
import { Maps, range, u32 } from "./maps.js";
import { dropRows, type DropRow } from "./tables.js";
import type { VnetSlot } from "./vnet-table.js";

/** what the programs only read; a test holds the list against what they write */
export const sharedMaps = [
  ...["meta", "vnet_ids", "vnets", "ports", "underlays", "underlay_list"],
  ...["direct_ports", "direct_list"],
  ...["peers", "peer_ids", "unicast_members", "secure_members", "spis"],
] as const;

export type DryProgram =
  "vnetd_encap" | "vnetd_oversize" | "vnetd_relay" | "vnetd_decap" | "vnetd_esp";

/** nothing is swept */
const dryConstants = {
  dry_run: u32(1),
  fdb_capacity: u32(1),
  nexthop_capacity: u32(1),
  neighbour_capacity: u32(1),
};
/** rings are of whole pages, whatever their size here; nobody reads these */
const ringBytes = 65_536;
/** for hosts and MACs that a run enters */
const spare = 4;
const lruEntries = 1024;

export interface DryVnet extends VnetSlot {
  /** whose entries decide: source and destination */
  macs: readonly Uint8Array[];
  /** whose entry among the neighbours decides as well */
  neighbour?: Uint8Array | undefined;
}

export interface DryResult {
  /** TC_ACT_* */
  verdict: number;
  packet: Buffer;
  mark: number;
  /** those that were noted, and how many there were */
  copies: VnetdDryCopy[];
  copyCount: number;
}

export class DryRun {
  private readonly maps: Maps;
  /** the others are loaded when a frame gets to them: the kernel takes its time to check one */
  private readonly loads: LoadedObject[];

  private constructor(
    private readonly native: Native,
    private readonly objectPath: string,
    private readonly first: LoadedObject,
    private readonly vnet: DryVnet,
  ) {
    this.loads = [first];
    this.maps = new Maps(native, first.maps);
  }

  /** To be closed. */
  static open(native: Native, generation: Generation, program: DryProgram, vnet: DryVnet): DryRun {
    const { maps, objectPath, layout } = generation;
    if (layoutOf(objectPath) !== layout)
      throw new VnetdError("KERNEL", `${objectPath} is another version's`, {
        hint: "Restart the daemon, which then runs that version.",
      });
    const full = isTableFull(maps);
    const hops = hopsOf(maps, vnet.handle);
    const entries = vnet.macs.filter((mac) => entryOf(maps, vnet, mac) !== undefined);
    const nexthops = maps.maxEntries("nexthops");
    const loaded = kernel(`loading ${objectPath}`, () =>
      native.objectLoad(objectPath, {
        shared: Object.fromEntries(sharedMaps.map((name) => [name, maps.fd(name)])),
        programs: { [program]: true },
        rodata: dryConstants,
        maxEntries: {
          fdb: full ? Math.max(1, entries.length) : entries.length + spare,
          fdb_queue: entries.length + spare,
          nexthops,
          nexthop_ids: hops.length + spare,
          nexthop_free: spare,
          ...{ neighbours: spare, neighbour_queue: spare },
          ...{ control: ringBytes, events: ringBytes, watched: ringBytes },
          ...{ seen: lruEntries, dedupe: lruEntries, host_paths: lruEntries },
        },
      }),
    );
    const run = new DryRun(native, objectPath, loaded, vnet);
    try {
      run.copyRecords(maps, { entries, hops, full });
      return run;
    } catch (error) {
      run.close();
      throw error;
    }
  }

  run(program: DryProgram, packet: Uint8Array, options: TestRunOptions): DryResult {
    const { native, maps } = this;
    const fd = this.programFd(program);
    native.mapUpdate(maps.fd("dry_copies"), u32(0), Buffer.alloc(VnetdDryCopies.size));
    const { retval, data, mark } = native.progTestRun(fd, packet, options);
    const noted = native.mapLookup(maps.fd("dry_copies"), u32(0));
    const { count, copy } = decodeVnetdDryCopies(noted ?? Buffer.alloc(VnetdDryCopies.size));
    return { verdict: retval, packet: data, mark, copies: copy.slice(0, count), copyCount: count };
  }

  /** As it is in the run's own table now. */
  entry(mac: Uint8Array): VnetdFdbEntry | undefined {
    return entryOf(this.maps, this.vnet, mac);
  }

  /** What would have been counted. */
  drops(): DropRow[] {
    return dropRows(this.maps);
  }

  traffic(): ReturnType<Maps["traffic"]> {
    return this.maps.traffic(this.vnet.slot);
  }

  close(): void {
    for (const { programs, maps } of this.loads)
      for (const fd of [...Object.values(programs), ...Object.values(maps)]) this.native.close(fd);
  }

  private programFd(program: DryProgram): number {
    const { native, objectPath, first, loads } = this;
    for (const { programs } of loads) {
      const fd = programs[program];
      if (fd !== undefined) return fd;
    }
    const load = kernel(`loading ${objectPath}`, () =>
      native.objectLoad(objectPath, {
        shared: first.maps,
        programs: { [program]: true },
        rodata: dryConstants,
      }),
    );
    loads.push(load);
    return this.programFd(program);
  }

  private copyRecords(
    from: Maps,
    { entries, hops, full }: { entries: Uint8Array[]; hops: Hop[]; full: boolean },
  ): void {
    const { native, maps, vnet } = this;
    const none = new Uint8Array(0);
    const copy = (name: string, key: Uint8Array): void => {
      const value = native.mapLookup(from.fd(name), key);
      if (value !== undefined) native.mapUpdate(maps.fd(name), key, value);
    };
    for (const name of ["vnet_counts", "floods"]) copy(name, u32(vnet.slot));
    copy("path_news", u32(0));
    for (const { key, id } of hops) {
      copy("nexthop_ids", key);
      copy("nexthops", u32(id));
      const { ifindex, addr } = decodeVnetdNexthopKey(Buffer.from(key));
      copy("host_paths", encodeVnetdHostPathKey({ ifindex, addr }));
    }
    for (const mac of entries) copy("fdb", fdbKey(vnet, mac));
    if (vnet.neighbour !== undefined)
      copy("neighbours", encodeVnetdNeighbourKey({ handle: vnet.handle, addr: vnet.neighbour }));
    // the table of the run is as full as the real one
    if (full && entries.length === 0) {
      const other = encodeVnetdFdbKey({ handle: 0, mac: new Uint8Array(6) });
      native.mapUpdate(
        maps.fd("fdb"),
        other,
        Buffer.alloc(native.mapInfo(maps.fd("fdb")).valueSize),
      );
    }
    const free = freeHop(from);
    if (free !== undefined) native.mapUpdate(maps.fd("nexthop_free"), none, u32(free));
  }
}

interface Hop {
  /** as it is in the map */
  key: Buffer;
  id: number;
}

function fdbKey({ handle }: DryVnet, mac: Uint8Array): Buffer {
  return encodeVnetdFdbKey({ handle, mac });
}

function entryOf(maps: Maps, { handle }: DryVnet, mac: Uint8Array): VnetdFdbEntry | undefined {
  return maps.fdbEntry({ handle, mac });
}

function hopsOf(maps: Maps, handle: number): Hop[] {
  const { count, keys, values } = maps.dump("nexthop_ids");
  return range(count).flatMap((at) => {
    const key = keys.subarray(at * VnetdNexthopKey.size, (at + 1) * VnetdNexthopKey.size);
    const isOurs = decodeVnetdNexthopKey(key).handle === handle;
    return isOurs ? [{ key, id: values.readUInt32LE(at * 4) }] : [];
  });
}

/** The counts are those of the programs: entries of vnets that are gone are in them until they are swept. */
function isTableFull(maps: Maps): boolean {
  const { count, values } = maps.dump("vnet_counts", vnetdLimits.MAX_VNETS);
  const entries = range(count).map((at) => values.readUInt32LE(at * VnetdVnetCounts.size));
  return entries.reduce((sum, each) => sum + each, 0) >= maps.maxEntries("fdb");
}

/** A number that no host has; undefined: there is none. */
function freeHop(maps: Maps): number | undefined {
  const { count, values } = maps.dump("nexthop_ids");
  const used = new Set(range(count).map((at) => values.readUInt32LE(at * 4)));
  const size = maps.maxEntries("nexthops");
  return range(size).find((id) => id > 0 && !used.has(id));
}
