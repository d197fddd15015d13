// SPDX-License-Identifier: Apache-2.0
/**
 * What the API shows, put together at the moment it is asked for: configuration from the
 * controller, learned state and counters from the maps, the rest from the kernel's lists.
 */
import os from "node:os";
import type {
  AttachedDevice,
  BridgeInfo,
  DropInfo,
  HostInfo,
  StatusInfo,
  TrafficInfo,
  VarpEntry,
  VifInfo,
  VnetInfo,
  VnetState,
  VnifInfo,
} from "../api/contract.js";
import type { Mac } from "../base/mac.js";
import { familyOfText, parseAddress } from "../base/address.js";
import { version } from "../base/version.js";
import { shortVnetId } from "../base/vnet-id.js";
import { vnetdDirection } from "../generated/layouts.js";
import { dropRows, localEntries, pathMtuBytes, remoteEntries } from "../dataplane/tables.js";
import { isOurs, portsOf } from "../host/bridge.js";
import type { LinkInfo } from "../native/contract.js";
import type { MemberPath } from "../varp/members.js";
import { nowMs, type Context } from "./context.js";
import type { DirectPorts } from "./direct-ports.js";
import type { Hellos } from "./hellos.js";
import type { Peers } from "./peers.js";
import { isUsable, problemOf, type Underlay, type Underlays } from "./underlays.js";
import type { RunningVnet, Vnet, Vnets } from "./vnets.js";

/** vnets that one line of a problem names */
const maxNamed = 5;

export interface ViewParts {
  vnets: Vnets;
  directPorts: Pick<DirectPorts, "nameOf">;
  underlays: Underlays;
  hellos: Hellos;
  peers: Peers;
  bpffs: string;
  startedMs: number;
  /** the port of a guest that its bridge has not heard */
  portOf: (handle: number, mac: Mac) => string | undefined;
  secure: () => StatusInfo["secure"];
  /** of parts that are none of the above */
  problems: () => string[];
}

const seconds = (ms: number): number => Math.round(ms / 100) / 10;

export class Views {
  constructor(
    private readonly context: Context,
    private readonly parts: ViewParts,
  ) {}

  vnetList(): VnetInfo[] {
    return this.parts.vnets.list().map(({ config }) => this.parts.vnets.inUse(config));
  }

  vnets(withTraffic: boolean): VnetState[] {
    return this.parts.vnets.list().map((vnet) => this.vnetState(vnet, withTraffic));
  }

  vnifs(): VnifInfo[] {
    return this.parts.vnets.list().flatMap(({ config, running }) => {
      if (running === undefined) return [];
      const { vnif, vmac } = running;
      const up = vnif?.up ?? running.peer.carrier;
      const mtu = vnif?.mtuBytes ?? this.parts.vnets.mtuOf(config);
      return [{ vnet: config.id, vnetif: config.vnetif, vmac, bridge: config.bridge, up, mtu }];
    });
  }

  vifs(): VifInfo[] {
    const { native, maps } = this.context;
    const vnets = this.parts.vnets.byHandle();
    const entries = localEntries(maps, vnets);
    const fdb = entries.length === 0 ? [] : this.parts.vnets.bridgeFdb();
    const ports = new Map(
      fdb.map((entry) => [`${String(entry.master)} ${entry.mac}`, entry.ifindex]),
    );
    const names = nameByIndex(native.linkList());
    return entries.map((entry) => {
      const vnif = vnets.get(entry.handle)?.vnif;
      const port = ports.get(`${String(vnif?.master ?? 0)} ${entry.vmac}`);
      return {
        vnet: entry.vnet,
        vmac: entry.vmac,
        state: entry.state,
        ageSeconds: entry.state === "learned" ? seconds(entry.ageMs) : null,
        device:
          this.parts.directPorts.nameOf(entry.port) ??
          (port === undefined ? undefined : names.get(port)) ??
          this.parts.portOf(entry.handle, entry.vmac) ??
          null,
      };
    });
  }

  varp(): VarpEntry[] {
    const { native, maps } = this.context;
    const names = nameByIndex(native.linkList());
    return remoteEntries(maps, this.parts.vnets.byHandle()).map((entry) => ({
      vnet: entry.vnet,
      vmac: entry.vmac,
      address: entry.address,
      device: names.get(entry.ifindex) ?? String(entry.ifindex),
      state: entry.state,
      ageSeconds: seconds(entry.ageMs),
      mtu: entry.mtuBytes ?? null,
    }));
  }

  bridges(): BridgeInfo[] {
    const { native } = this.context;
    return this.parts.vnets.list().flatMap(({ config }) => {
      const link = config.bridge === null ? undefined : native.linkGet(config.bridge);
      if (link === undefined) return [];
      const ports = portsOf(native, link.ifindex).map((port) => port.name);
      return [{ bridge: link.name, vnet: config.id, ports, owned: isOurs(link, config.id) }];
    });
  }

  hosts(): HostInfo[] {
    const now = nowMs();
    const names = nameByIndex(this.context.native.linkList());
    const vnets = this.parts.vnets.byHandle();
    const hosts = new Map<string, HostInfo>();
    for (const member of this.parts.hellos.list()) {
      const { hostId, bootNonce, name, software } = member;
      // two machines with one id are two hosts
      const key = `${hostId} ${bootNonce}`;
      const host = hosts.get(key) ?? { hostId, name, software, vnets: [], paths: [] };
      hosts.set(key, host);
      const vnet = vnets.get(member.handle);
      if (vnet !== undefined) host.vnets.push(vnet.id);
      for (const path of member.paths) {
        const device = names.get(path.ifindex) ?? String(path.ifindex);
        const known = host.paths.some((p) => p.address === path.address && p.device === device);
        if (known) continue;
        const primary = path === member.primary;
        const heardSeconds = seconds(now - path.heardMs);
        host.paths.push({
          address: path.address,
          device,
          mtu: this.pathMtu(path),
          primary,
          heardSeconds,
        });
      }
    }
    return [...hosts.values()];
  }

  /** Of the path, or of the host's device as it says if ours is not attached. */
  private pathMtu({ address, ifindex, mtuBytes }: MemberPath): number {
    const underlay = this.parts.underlays.at(ifindex, familyOfText(address));
    if (underlay === undefined) return mtuBytes;
    const host = { ifindex, addr: parseAddress(address), mtuBytes };
    return pathMtuBytes(this.context.maps, underlay.state.mtuBytes, host);
  }

  attached(underlay: Underlay): AttachedDevice {
    const { config, hooks } = this.context;
    const { state, device, merge, family } = underlay;
    const group = this.parts.peers.describe(underlay);
    return {
      device,
      address: state.address,
      mode: hooks.mode,
      xdp: this.parts.underlays.xdp.modeOf(state.ifindex),
      mtu: state.mtuBytes,
      up: isUsable(underlay),
      problem: problemOf(underlay),
      group: family === 4 ? config.group : config.group6,
      port: config.port,
      merge: merge.merge,
      groupWay: group.way,
      groupWhy: group.why,
    };
  }

  status(): Omit<StatusInfo, "configuration"> {
    const { context, parts } = this;
    const { maps, generation } = context;
    const stats = maps.tableStats();
    const vnets = parts.vnets.byHandle();
    const entries = [...vnets.values()].reduce(
      (sum, { slot }) => sum + maps.vnetCounts(slot).entries,
      0,
    );
    return {
      version,
      pid: process.pid,
      hostId: context.hostId,
      uptimeSeconds: seconds(nowMs() - parts.startedMs),
      kernel: os.release(),
      bpffs: parts.bpffs,
      layout: generation.layout,
      attached: parts.underlays.list().map((underlay) => this.attached(underlay)),
      encapsulation: context.config.encapsulation,
      vnets: parts.vnets.size,
      hosts: this.hosts().length,
      secure: parts.secure(),
      table: {
        entries,
        limit: maps.maxEntries("fdb"),
        learned: Number(stats.learned),
        moved: Number(stats.moved),
        aged: Number(stats.aged),
      },
      drops: this.drops(),
      problems: this.problems(),
    };
  }

  problems(): string[] {
    const { underlays, vnets, hellos, problems } = this.parts;
    const none =
      underlays.list().length === 0
        ? ["no device is attached, so vnets reach no other host: vnetd attach DEVICE"]
        : [];
    return [
      ...none,
      ...underlays.problems(),
      ...vnets.problems(),
      ...hellos.problems(),
      ...this.parts.peers.problems(),
      ...this.etheripProblems(),
      ...problems(),
    ];
  }

  /** Peers, and members that use no multicast, know VUDP alone (bpf/lib/forward.h). */
  private etheripProblems(): string[] {
    const { underlays, vnets, peers } = this.parts;
    const some = peers.configs().length > 0;
    if (!some && !underlays.list().some((underlay) => peers.usesUnicast(underlay))) return [];
    const named = vnets
      .list()
      .filter(({ config }) => vnets.inUse(config).encapsulation === "etherip")
      .map(({ config }) => shortVnetId(config.id));
    if (named.length === 0) return [];
    const rest = named.length > maxNamed ? `, and ${String(named.length - maxNamed)} more` : "";
    return [
      `vnets sent by EtherIP (${named.slice(0, maxNamed).join(", ")}${rest}): what is for all goes to the group alone, ` +
        "not to peers and hosts without multicast; encapsulation udp does",
    ];
  }

  /** By vnet, direction and reason; vnets that are gone count where no vnet was known. */
  drops(): DropInfo[] {
    const vnets = this.parts.vnets.byHandle();
    const rows = new Map<string, DropInfo>();
    for (const { handle, direction, reason, frames, bytes } of dropRows(this.context.maps)) {
      const vnet = vnets.get(handle)?.id ?? null;
      const key = `${String(vnet)} ${direction} ${reason}`;
      const row = rows.get(key) ?? { vnet, direction, reason, frames: 0, bytes: 0 };
      rows.set(key, { ...row, frames: row.frames + frames, bytes: row.bytes + bytes });
    }
    return [...rows]
      .filter(([, { frames }]) => frames > 0)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, row]) => row);
  }

  traffic({ slot }: RunningVnet): TrafficInfo {
    const { frames, bytes, floodedFrames, floodedBytes } = this.context.maps.traffic(slot);
    const { DIR_ENCAP, DIR_DECAP } = vnetdDirection;
    return {
      encapFrames: Number(frames[DIR_ENCAP] ?? 0n),
      encapBytes: Number(bytes[DIR_ENCAP] ?? 0n),
      decapFrames: Number(frames[DIR_DECAP] ?? 0n),
      decapBytes: Number(bytes[DIR_DECAP] ?? 0n),
      floodedFrames: Number(floodedFrames),
      floodedBytes: Number(floodedBytes),
    };
  }

  private vnetState({ config, builtIn, running, problem }: Vnet, withTraffic: boolean): VnetState {
    const { maps } = this.context;
    const up = running !== undefined && problem === "";
    const base = { ...this.parts.vnets.inUse(config), builtIn, problem, up };
    if (running === undefined) {
      return { ...base, handle: 0, mtu: 0, vmac: "", entries: 0, hosts: 0 };
    }
    const { entries, hosts } = maps.vnetCounts(running.slot);
    return {
      ...base,
      handle: running.handle,
      mtu: this.parts.vnets.mtuOf(config),
      vmac: running.vmac,
      entries,
      hosts,
      ...(withTraffic ? { traffic: this.traffic(running) } : {}),
    };
  }
}

function nameByIndex(links: readonly LinkInfo[]): Map<number, string> {
  return new Map(links.map((link) => [link.ifindex, link.name]));
}
