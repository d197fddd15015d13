// SPDX-License-Identifier: Apache-2.0
/**
 * The entries of the MAC table that are configured. The state directory says which; the table
 * holds them, and this makes it so again after a reboot, a device that came, or a vnet made anew.
 *
 *   vif-add            lives here, does not age; a frame from elsewhere takes it there (the guest moved)
 *   vif-add --static   lives here, whatever is heard
 *   varp-add           lives behind that address, whatever is heard
 */
import { addressToText, familyOfText, parseAddress } from "../base/address.js";
import { macFromBytes, macToBytes, type Mac } from "../base/mac.js";
import type { VnetId } from "../base/vnet-id.js";
import { isFresh, isLocal, nowNs } from "../dataplane/tables.js";
import { vnetdControlOp, vnetdFdbFlags, type VnetdFdbEntry } from "../generated/layouts.js";
import type { DaemonState, StateDirectory } from "../store/state-directory.js";
import type { StoredRemote, StoredVif } from "../store/stored-entries.js";
import type { Context } from "./context.js";
import { isUsable, type Underlay, type Underlays } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

const { FDB_STATIC, FDB_PINNED } = vnetdFdbFlags;

/** Of all vnets, so that the state file stays a small one. */
export const maxConfiguredEntries = 16_384;

/** Of entries that are well, so many have their route looked up again at once; the rest another time. */
const routesAtOnce = 256;

export interface StaticEntriesParts {
  vnets: Vnets;
  underlays: Underlays;
  state: StateDirectory;
  announce: (handle: number, mac: Mac) => void;
}

interface Index {
  of: StateDirectory["state"];
  vifs: ReadonlyMap<string, StoredVif>;
  remotes: ReadonlyMap<string, StoredRemote>;
}

type Lists = Pick<DaemonState, "vifs" | "remotes">;

const keyOf = ({ vnet, vmac }: { vnet: VnetId; vmac: Mac }): string => `${vnet} ${vmac}`;

export class StaticEntries {
  private failures: string[] = [];
  /** the next entry whose route is looked up again */
  private cursor = 0;
  private lastIndex: Index | undefined;

  constructor(
    private readonly context: Context,
    private readonly parts: StaticEntriesParts,
  ) {}

  get count(): number {
    const { vifs, remotes } = this.parts.state.state;
    return vifs.length + remotes.length;
  }

  vif(vnet: VnetId, vmac: Mac): StoredVif | undefined {
    return this.index().vifs.get(keyOf({ vnet, vmac }));
  }

  remote(vnet: VnetId, vmac: Mac): StoredRemote | undefined {
    return this.index().remotes.get(keyOf({ vnet, vmac }));
  }

  /** Entries that could not be made, for the status. */
  problems(): string[] {
    return this.failures;
  }

  /** At start: what a crash, or a person's hand in the state file, left in the table. */
  removeOrphans(): void {
    const vnets = this.parts.vnets.byHandle();
    for (const { key, entry } of this.context.maps.fdb()) {
      const vnet = vnets.get(key.handle);
      if (vnet === undefined || (entry.flags & FDB_STATIC) === 0) continue;
      const mac = macFromBytes(key.mac);
      const wanted = isLocal(entry) ? this.vif(vnet.id, mac) : this.remote(vnet.id, mac);
      if (wanted !== undefined) continue;
      this.forget(vnet, mac);
      this.context.log.say(
        "static_removed",
        `vnet ${vnet.id}: removed the static entry of ${mac}, configured no more`,
        { vnet: vnet.id, mac },
      );
    }
  }

  /** Enters everything that is configured and not in the table. */
  apply(): void {
    const { state, vnets } = this.parts;
    const devices = new Map<string, Underlay | string>();
    const failures: string[] = [];
    for (const vif of state.state.vifs) {
      const vnet = vnets.get(vif.vnet)?.running;
      const reason = vnet === undefined ? "ok" : this.applyVif(vnet, vif);
      if (reason !== "ok") failures.push(`vif ${vif.vmac} of vnet ${vif.vnet}: ${reason}`);
    }
    const { remotes } = state.state;
    const from = this.cursor < remotes.length ? this.cursor : 0;
    this.cursor = from + routesAtOnce;
    for (const [at, remote] of remotes.entries()) {
      const vnet = vnets.get(remote.vnet)?.running;
      const isTurn = at >= from && at < this.cursor;
      if (vnet !== undefined && !isTurn && this.isWell(vnet, remote)) continue;
      const reason = vnet === undefined ? "ok" : this.applyRemote(vnet, remote, devices);
      if (reason !== "ok")
        failures.push(`static entry ${remote.vmac} of vnet ${remote.vnet}: ${reason}`);
    }
    for (const failure of failures)
      if (!this.failures.includes(failure)) this.context.log.say("static_failed", failure);
    this.failures = failures;
  }

  /** A vif that was taken away by a frame is heard here again: it is configured again. */
  cameBack(vnet: RunningVnet, mac: Mac): void {
    const vif = this.vif(vnet.id, mac);
    if (vif !== undefined) this.enterVif(vnet, vif);
  }

  /** "ok", or why not. */
  enterVif({ slot, handle }: RunningVnet, vif: StoredVif): string {
    return this.context.control.run({
      op: vnetdControlOp.CTL_LEARN_LOCAL,
      slot,
      handle,
      fdbFlags: flagsOf(vif),
      mac: macToBytes(vif.vmac),
    });
  }

  /** "ok", or why not. */
  enterRemote({ slot, handle }: RunningVnet, remote: StoredRemote, underlay: Underlay): string {
    return this.context.control.run({
      op: vnetdControlOp.CTL_LEARN,
      slot,
      handle,
      ifindex: underlay.ifindex,
      fdbFlags: FDB_STATIC | FDB_PINNED,
      mac: macToBytes(remote.vmac),
      addr: parseAddress(remote.address),
    });
  }

  forget({ slot, handle }: RunningVnet, mac: Mac): void {
    this.context.control.run({
      op: vnetdControlOp.CTL_FORGET,
      slot,
      handle,
      mac: macToBytes(mac),
    });
  }

  /** The device by which the host is reached, or why there is none. */
  deviceOf({ address, device }: Pick<StoredRemote, "address" | "device">): Underlay | string {
    const { underlays } = this.parts;
    const family = familyOfText(address);
    if (device === null) {
      const ifindex = this.context.native.routeGet(address);
      const found = ifindex === 0 ? undefined : underlays.at(ifindex, family);
      return found ?? `no attached device leads to ${address}`;
    }
    const places = underlays.ofDevice(device);
    if (places.length === 0) return `${device} is not attached`;
    const underlay = places.find((place) => place.family === family);
    if (underlay === undefined) return `${device} does not carry IPv${String(family)}`;
    return underlay.ifindex === 0 ? `${device} is not there` : underlay;
  }

  private applyVif(vnet: RunningVnet, vif: StoredVif): string {
    const entry = this.entryOf(vnet, vif.vmac);
    if (entry !== undefined && isLocal(entry) && entry.flags === flagsOf(vif)) return "ok";
    // a frame took it elsewhere, and it is alive there
    if (entry !== undefined && !isLocal(entry) && !vif.static && this.isAlive(vnet, entry))
      return "ok";
    const reason = this.enterVif(vnet, vif);
    if (reason === "ok") this.parts.announce(vnet.handle, vif.vmac);
    return reason;
  }

  private applyRemote(
    vnet: RunningVnet,
    remote: StoredRemote,
    devices: Map<string, Underlay | string>,
  ): string {
    const place = `${remote.device ?? ""} ${remote.address}`;
    const device = devices.get(place) ?? this.deviceOf(remote);
    devices.set(place, device);
    if (typeof device === "string") return device;
    const entry = this.entryOf(vnet, remote.vmac);
    if (entry !== undefined && this.pointsTo(entry, remote.address, device)) return "ok";
    return this.enterRemote(vnet, remote, device);
  }

  /** It is in the table, by a device that carries traffic. */
  private isWell(vnet: RunningVnet, { vmac, address, device }: StoredRemote): boolean {
    const entry = this.entryOf(vnet, vmac);
    const nexthop = entry === undefined ? undefined : this.context.maps.nexthop(entry.nexthop);
    const underlay =
      nexthop === undefined
        ? undefined
        : this.parts.underlays.at(nexthop.key.ifindex, familyOfText(address));
    if (entry === undefined || underlay === undefined || !isUsable(underlay)) return false;
    return (
      this.pointsTo(entry, address, underlay) && (device ?? underlay.device) === underlay.device
    );
  }

  private pointsTo(entry: VnetdFdbEntry, address: string, { ifindex }: Underlay): boolean {
    if (isLocal(entry) || entry.flags !== (FDB_STATIC | FDB_PINNED)) return false;
    const nexthop = this.context.maps.nexthop(entry.nexthop);
    return (
      nexthop?.gen === entry.gen &&
      nexthop.key.ifindex === ifindex &&
      addressToText(nexthop.key.addr) === address
    );
  }

  private entryOf({ handle }: RunningVnet, mac: Mac): VnetdFdbEntry | undefined {
    return this.context.maps.fdbEntry({ handle, mac: macToBytes(mac) });
  }

  private isAlive({ slot }: RunningVnet, entry: VnetdFdbEntry): boolean {
    const { maps } = this.context;
    const record = maps.vnet(slot);
    if (record === undefined || !isFresh(entry, record, nowNs())) return false;
    return isLocal(entry) || maps.nexthop(entry.nexthop)?.gen === entry.gen;
  }

  /** The state is another object after each change. */
  private index(): Index {
    const { state } = this.parts.state;
    if (this.lastIndex?.of !== state) this.lastIndex = { of: state, ...indexOf(state) };
    return this.lastIndex;
  }
}

function indexOf(state: StateDirectory["state"]): Omit<Index, "of"> {
  return {
    vifs: new Map(state.vifs.map((vif) => [keyOf(vif), vif])),
    remotes: new Map(state.remotes.map((remote) => [keyOf(remote), remote])),
  };
}

function flagsOf({ static: isStatic }: StoredVif): number {
  return isStatic ? FDB_STATIC | FDB_PINNED : FDB_STATIC;
}

/** The lists without what stands in them for this vnet, or for one MAC of it. */
export function without(lists: Lists, vnet: VnetId, vmac?: Mac): Lists {
  const stays = (entry: { vnet: VnetId; vmac: Mac }): boolean =>
    entry.vnet !== vnet || (vmac !== undefined && entry.vmac !== vmac);
  return { vifs: lists.vifs.filter(stays), remotes: lists.remotes.filter(stays) };
}
