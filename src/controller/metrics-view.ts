// SPDX-License-Identifier: Apache-2.0
/**
 * What a scrape shows, put together at one moment. Counters are read map by map, in batches that the addon sums
 * over CPUs; nothing is asked of the kernel for each vnet.
 */
import type { PeerInfo } from "../api/contract.js";
import {
  decodeVnetdNeighbourStats,
  decodeVnetdTraffic,
  decodeVnetdVnetCounts,
  vnetdDirection,
  vnetdLimits,
  VnetdNeighbourStats,
  VnetdTraffic,
  VnetdVnetCounts,
  type VnetdTraffic as Traffic,
  type VnetdVarpStats,
} from "../generated/layouts.js";
import { dropRows } from "../dataplane/tables.js";
import { maxVnets } from "../dataplane/vnet-table.js";
import { xfrmErrors } from "../host/xfrm-stat.js";
import type { StateDirectory } from "../store/state-directory.js";
import type {
  ByDirection,
  DropSample,
  NeighbourCounts,
  PeerSample,
  SecureSample,
  Snapshot,
  UnderlaySample,
  VnetCounts,
  VnetSample,
} from "../metrics/snapshot.js";
import { nowMs, type Context } from "./context.js";
import type { Counts } from "./counts.js";
import type { DirectPorts } from "./direct-ports.js";
import type { Hellos } from "./hellos.js";
import type { Peers } from "./peers.js";
import type { Security } from "./security.js";
import type { SecureVnet } from "./security/secure-vnet.js";
import type { Troubles } from "./troubles.js";
import { isUsable, type Underlays } from "./underlays.js";
import type { Views } from "./views.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export interface MetricsViewParts {
  context: Context;
  state: StateDirectory;
  vnets: Vnets;
  directPorts: Pick<DirectPorts, "countOf">;
  underlays: Underlays;
  hellos: Hellos;
  peers: Peers;
  security: Security;
  troubles: Troubles;
  views: Views;
}

const xdpNumbers = { native: 2, generic: 1, none: 0 } as const;

export class MetricsView {
  constructor(private readonly parts: MetricsViewParts) {}

  get layout(): number {
    return this.parts.context.generation.layout;
  }

  snapshot(): Snapshot {
    const { context, hellos, troubles, views } = this.parts;
    const { counts } = context;
    const vnets = this.vnets();
    const drops = this.drops();
    const stats = context.maps.tableStats();
    const { vifs, remotes } = this.parts.state.state;
    const secure = this.secure();
    return {
      vnets,
      drops: drops.samples,
      table: {
        learned: Number(stats.learned),
        moved: Number(stats.moved),
        aged: Number(stats.aged),
        static: vifs.length + remotes.length,
        countersFull: Number(stats.dropKeysFull),
      },
      maps: this.maps(vnets, drops.keys),
      underlays: this.underlays(),
      peers: this.peers(),
      secure,
      xfrmErrors:
        secure.length === 0
          ? []
          : xfrmErrors().map(({ name, count }) => ({ words: [name], count })),
      hosts: new Set(hellos.list().map(({ hostId }) => hostId)).size,
      problems: views.problems().length,
      troubles: troubles.counts(),
      varp: withoutDaemon(counts, context.maps.varpStats()),
      hooksRemoved: counts.hooksRemoved.rows(),
      config: { ...counts.config, reloads: counts.reloads.rows() },
    };
  }

  // ---- vnets

  private vnets(): VnetSample[] {
    const { vnets, directPorts } = this.parts;
    const countsOf = this.countsBySlot(vnets.running());
    const neighboursOf = this.neighboursBySlot(vnets.running());
    return vnets.list().map(({ config, running, problem }) => ({
      id: config.id,
      isUp: running !== undefined && problem === "",
      mtuBytes: vnets.mtuOf(config),
      ports: running === undefined ? 0 : directPorts.countOf(running.handle),
      counts: running === undefined ? undefined : countsOf(running.slot),
      neighbours:
        running === undefined || config.suppress !== true ? undefined : neighboursOf(running.slot),
    }));
  }

  /** Both are arrays; slots are given from the first on, so what is behind the last is not read. */
  private countsBySlot(running: readonly RunningVnet[]): (slot: number) => VnetCounts {
    const { maps } = this.parts.context;
    const slots = slotsOf(running);
    const traffic = maps.dump("traffic", slots).values;
    const table = maps.dump("vnet_counts", slots).values;
    return (slot) => ({
      ...trafficOf(decodeVnetdTraffic(traffic, slot * VnetdTraffic.size)),
      ...tableOf(table, slot),
    });
  }

  private neighboursBySlot(running: readonly RunningVnet[]): (slot: number) => NeighbourCounts {
    const { maps } = this.parts.context;
    let read: { stats: Buffer; table: Buffer } | undefined;
    return (slot) => {
      // most hosts have no vnet that suppresses
      read ??= {
        stats: maps.dump("neighbour_stats", slotsOf(running)).values,
        table: maps.dump("vnet_counts", slotsOf(running)).values,
      };
      const stats = decodeVnetdNeighbourStats(read.stats, slot * VnetdNeighbourStats.size);
      const { neighbours } = decodeVnetdVnetCounts(read.table, slot * VnetdVnetCounts.size);
      return {
        known: neighbours,
        answered: Number(stats.answered),
        changed: Number(stats.changed),
        refused: Number(stats.refused),
      };
    };
  }

  private drops(): { samples: DropSample[]; keys: number } {
    const vnets = this.parts.vnets.byHandle();
    const gone = new Map<string, DropSample>();
    const samples: DropSample[] = [];
    const rows = dropRows(this.parts.context.maps);
    for (const { handle, direction, reason, frames } of rows) {
      if (frames === 0) continue;
      const vnet = vnets.get(handle)?.id;
      if (vnet !== undefined) {
        samples.push({ vnet, direction, reason, frames });
        continue;
      }
      const key = `${direction} ${reason}`;
      const before = gone.get(key)?.frames ?? 0;
      gone.set(key, { vnet: "", direction, reason, frames: before + frames });
    }
    return { samples: [...gone.values(), ...samples], keys: rows.length };
  }

  private maps(vnets: readonly VnetSample[], dropKeys: number): Snapshot["maps"] {
    const { context, security, peers } = this.parts;
    const { maps } = context;
    const sum = (of: (counts: VnetCounts) => number): number =>
      vnets.reduce((total, { counts }) => (counts === undefined ? total : total + of(counts)), 0);
    // without secure vnets they are empty, and large
    const hasSecure = security.all().length > 0;
    const counted = (map: string): number => (hasSecure ? maps.dump(map).count : 0);
    const entries: [string, number][] = [
      ["fdb", sum(({ local, remote }) => local + remote)],
      ["nexthops", sum(({ hosts }) => hosts)],
      ["drops", dropKeys],
      ["neighbours", vnets.reduce((total, each) => total + (each.neighbours?.known ?? 0), 0)],
      ["spis", counted("spis")],
      ["secure_members", counted("secure_members")],
    ];
    return [
      { map: "vnets", entries: this.parts.vnets.running().length, limit: maxVnets },
      { map: "peers", entries: peers.addressCount, limit: vnetdLimits.MAX_PEERS - 1 },
      ...entries.map(([map, count]) => ({ map, entries: count, limit: maps.maxEntries(map) })),
    ];
  }

  // ---- underlay and peers

  private underlays(): UnderlaySample[] {
    return this.parts.underlays.list().map((underlay) => ({
      device: underlay.device,
      family: underlay.family === 4 ? "ipv4" : "ipv6",
      isUp: isUsable(underlay),
      mtuBytes: underlay.state.mtuBytes,
      isMulticast: !this.parts.peers.usesUnicast(underlay),
      xdp: xdpNumbers[this.parts.underlays.xdp.modeOf(underlay.ifindex) ?? "none"],
    }));
  }

  /** An address may stand behind two names. */
  private peers(): PeerSample[] {
    const infos = this.parts.peers.list();
    if (infos.length === 0) return [];
    const heard = this.heardHellos();
    const byAddress = new Map(
      infos.flatMap(({ addresses }) =>
        addresses.map((each) => [each.address, peerSample(each, heard.get(each.address))] as const),
      ),
    );
    return [...byAddress.values()];
  }

  /** When each host's address said hello last, in seconds since 1970. */
  private heardHellos(): Map<string, number> {
    const heard = new Map<string, number>();
    const now = nowMs();
    for (const { paths } of this.parts.hellos.list()) {
      for (const { address, heardMs } of paths) {
        const atSeconds = secondsAgo((now - heardMs) / 1000);
        heard.set(address, Math.max(atSeconds, heard.get(address) ?? 0));
      }
    }
    return heard;
  }

  // ---- secure vnets

  private secure(): SecureSample[] {
    return this.parts.security.all().map((each) => secureSample(each, nowMs()));
  }
}

/** What the daemon counted of VARP, and what never came to it. */
function withoutDaemon({ received, sent }: Counts, stats: VnetdVarpStats): Snapshot["varp"] {
  const { answered, notHere, limited, taken } = stats;
  return {
    received: together(received.rows(), [
      { words: ["request", "answered"], count: Number(answered) },
      { words: ["request", "not_here"], count: Number(notHere) },
      { words: ["request", "varp_rate"], count: Number(limited) },
      { words: ["announce", "taken"], count: Number(taken) },
    ]),
    sent: together(sent.rows(), [{ words: ["announce"], count: Number(answered) }]),
  };
}

type Rows = Snapshot["varp"]["sent"];

function together(rows: Rows, more: Rows): Rows {
  const sums = new Map<string, Rows[number]>();
  for (const { words, count } of [...rows, ...more.filter(({ count }) => count > 0)]) {
    const key = words.join(" ");
    sums.set(key, { words, count: count + (sums.get(key)?.count ?? 0) });
  }
  return [...sums.values()];
}

/** Since 1970; whole seconds, so that it stays the same while nothing happens. */
function secondsAgo(ageSeconds: number): number {
  return Math.round(Date.now() / 1000 - ageSeconds);
}

/** As many as are to be read: slots are given from the first on. */
function slotsOf(running: readonly RunningVnet[]): number {
  return running.reduce((most, { slot }) => Math.max(most, slot + 1), 0);
}

function byDirection(values: readonly bigint[]): ByDirection {
  const { DIR_ENCAP, DIR_DECAP } = vnetdDirection;
  return { encap: Number(values[DIR_ENCAP] ?? 0n), decap: Number(values[DIR_DECAP] ?? 0n) };
}

function trafficOf(traffic: Traffic): Omit<VnetCounts, "local" | "remote" | "hosts"> {
  return {
    frames: byDirection(traffic.frames),
    bytes: byDirection(traffic.bytes),
    fragmented: byDirection(traffic.fragmented),
    floodedFrames: Number(traffic.floodedFrames),
    floodedBytes: Number(traffic.floodedBytes),
  };
}

function tableOf(table: Buffer, slot: number): Pick<VnetCounts, "local" | "remote" | "hosts"> {
  const { entries, local, hosts } = decodeVnetdVnetCounts(table, slot * VnetdVnetCounts.size);
  // the two are not changed at one instant
  return { local, remote: Math.max(0, entries - local), hosts };
}

function peerSample(
  each: PeerInfo["addresses"][number],
  helloSeconds: number | undefined,
): PeerSample {
  const { address, problem, heardSeconds, sentFrames, heardFrames, sentBytes, heardBytes } = each;
  const forwarded = heardSeconds === null ? [] : [secondsAgo(heardSeconds)];
  const times = [...forwarded, ...(helloSeconds === undefined ? [] : [helloSeconds])];
  return {
    address,
    isReachable: problem === "",
    heardSeconds: times.length === 0 ? undefined : Math.max(...times),
    frames: { encap: sentFrames, decap: heardFrames },
    bytes: { encap: sentBytes, decap: heardBytes },
  };
}

export function secureSample(secure: SecureVnet, now: number): SecureSample {
  const paths = secure.paths();
  const keyed = secure.keyed();
  const ages = keyed.flatMap((each) => secure.currentKeys(each, now)?.ageMs ?? []);
  const inward = paths.reduce((sum, { path }) => sum + path.spisIn.size, 0);
  return {
    vnet: secure.vnet.id,
    keyed: keyed.length,
    waiting: paths.length - keyed.length,
    isChanging: secure.keys.length > 1,
    associations: { encap: keyed.length, decap: inward },
    oldestSeconds: ages.length === 0 ? undefined : secondsAgo(Math.max(...ages) / 1000),
    ...secure.counts,
  };
}
