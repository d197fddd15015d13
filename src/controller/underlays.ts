// SPDX-License-Identifier: Apache-2.0
/**
 * The attached underlay devices: hook, record, group membership and socket of each. A device is used
 * with one IP family or with both (`underlay` in the configuration); each (device, family) is a
 * *place*, with a record, a group and a socket of its own, and is an Underlay here. The hook and what
 * decides merging are the device's.
 *
 * Level-triggered: sync() looks at what the kernel has now and makes everything fit, whatever
 * happened since the last time, so a device that goes, comes back under the same name, or changes
 * its address or MTU needs no case of its own. The data plane forwards by the records alone; the
 * socket is only for VARP and goes away with the daemon, the group membership (an address with
 * autojoin) does not.
 */
import { VnetdError } from "../base/errors.js";
import { addressToText, parseAddress, type Family } from "../base/address.js";
import { macToBytes } from "../base/mac.js";
import {
  vnetdFamily,
  vnetdLimits,
  vnetdUnderlayFlags,
  type VnetdPlace,
  type VnetdUnderlay,
} from "../generated/layouts.js";
import { errnoName, kernelError } from "../host/errno.js";
import { udpCrossesVrfs } from "../host/l3mdev.js";
import { samePlace, noPlace } from "../dataplane/maps.js";
import {
  familiesOf,
  underlayState,
  unsuitable,
  type UnderlayState,
} from "../host/underlay-state.js";
import type { DaemonConfig } from "../config/daemon-config.js";
import type { AddressInfo, LinkInfo } from "../native/contract.js";
import { mergeAtStart, MergePolicy } from "../varp/merge-policy.js";
import { nowMs, programOf, type Context } from "./context.js";
import { GroupMembership } from "./group-membership.js";
import { notSent } from "./refusals.js";
import type { LogEvent } from "../log.js";
import { VarpSocket } from "./varp-socket.js";
import { xdpRefused, XdpModes, type AttachMode } from "./xdp-modes.js";

/** A place of the underlay. */
export interface Underlay {
  device: string;
  family: Family;
  state: UnderlayState;
  /** of the hook, record and membership that are there; 0: none */
  ifindex: number;
  merge: MergePolicy;
  socket: VarpSocket | undefined;
  /** what stood in the way of setting it up, or "" */
  failure: string;
  /** the address with which it was said to be usable, or null */
  saidUsable: string | null;
  /** since when the kernel is to make the group's local route, which is to be removed before anything is said */
  joiningSinceMs: number | undefined;
}

/** How long that is waited for: it takes the kernel a moment. */
const joiningMs = 500;

interface Device {
  places: Map<Family, Underlay>;
  /** since it was attached */
  hadIpv4: boolean;
  merge: MergePolicy;
  /** whose merging was measured */
  mergeIfindex: number;
  mode: AttachMode;
}

export interface PlaceMtu {
  family: Family;
  mtuBytes: number;
}

export interface UnderlayEvents {
  /** it can carry traffic (again), or with another address */
  usable(underlay: Underlay): void;
  down(place: VnetdPlace): void;
  gone(place: VnetdPlace): void;
  mtus(mtus: readonly PlaceMtu[]): void;
  /** flags of its record that follow from how group traffic goes */
  groupFlags(underlay: Underlay): number;
  /** ifindex of the interface that secure vnets leave by; 0: there is none */
  espOf(underlay: Underlay): number;
  /** how a device is to be attached, where nothing else is said */
  modeOf(device: string): AttachMode;
  /** groups of vnets' own, of both families */
  vnetGroups(): readonly string[];
  /** a message came by the socket: it was in fragments */
  inFragments(underlay: Underlay, message: Buffer, source: string): void;
}

export class Underlays {
  private readonly devices = new Map<string, Device>();
  readonly membership: GroupMembership;
  readonly xdp: XdpModes;

  constructor(
    private readonly context: Context,
    private readonly events: UnderlayEvents,
  ) {
    this.membership = new GroupMembership(context, () => events.vnetGroups());
    this.xdp = new XdpModes(context);
  }

  list(): Underlay[] {
    return [...this.devices.values()].flatMap(({ places }) => [...places.values()]);
  }

  names(): string[] {
    return [...this.devices.keys()];
  }

  at(ifindex: number, family: Family): Underlay | undefined {
    for (const { places } of this.devices.values()) {
      const place = places.get(family);
      if (place?.ifindex === ifindex) return place;
    }
    return undefined;
  }

  /** Whether messages of this host leave from it. */
  isOwnAddress(address: string): boolean {
    return this.list().some(({ state }) => state.address === address);
  }

  ofDevice(device: string): Underlay[] {
    return this.list().filter((place) => place.device === device);
  }

  usable(): Underlay[] {
    return this.list().filter(isUsable);
  }

  /** Those of them by which what is said to the group leaves this host. */
  speaking(): Underlay[] {
    return this.usable().filter(({ joiningSinceMs }) => joiningSinceMs === undefined);
  }

  problems(): string[] {
    const places = this.list().flatMap((underlay) => {
      const problem = problemOf(underlay) || vrfProblem(underlay.state.vrf);
      return problem === "" ? [] : [`${underlay.device}: ${problem}`];
    });
    return [...places, ...this.xdp.problems(), ...this.membership.problems()];
  }

  /** Devices that are to be attached from now on, whether they are there or not. */
  reconcile(devices: readonly string[]): void {
    const { native, maps } = this.context;
    for (const device of devices) this.devices.set(device, this.newDevice(device));
    const known = native.linkList();
    const wanted = new Map(
      known.flatMap((link) => {
        const device = this.devices.get(link.name);
        return device === undefined ? [] : [[link.ifindex, device] as const];
      }),
    );
    for (const record of maps.underlays()) {
      const device = wanted.get(record.ifindex);
      if (device === undefined) this.takeOut(record);
      else if (record.family === vnetdFamily.FAMILY_IPV4) device.hadIpv4 = hasAddress(record);
    }
    this.sync();
    for (const record of maps.underlays()) {
      if (!this.list().some((place) => samePlace(place, record))) this.takeOut(record);
    }
  }

  /** Without a mode it is what modeOf() says. */
  attach(device: string, mode?: AttachMode): Underlay {
    const { native } = this.context;
    if (this.devices.has(device)) {
      throw new VnetdError("ALREADY_ATTACHED", `${device} is attached already`);
    }
    const link = native.linkGet(device);
    if (link === undefined) {
      throw new VnetdError("DEVICE_NOT_FOUND", `there is no network device ${device}`, {
        hint: "`ip -br link` lists the devices.",
      });
    }
    const why = unsuitable(link) ?? this.tooMany();
    if (why !== undefined) {
      throw new VnetdError("DEVICE_UNSUITABLE", `${device} cannot carry vnets: ${why}`);
    }
    this.devices.set(device, this.newDevice(device, mode));
    this.sync();
    const places = this.ofDevice(device);
    const failure = places.map((place) => place.failure).find((text) => text !== "");
    const [first] = places;
    if (mode === "xdp" && this.xdp.failureOf(device) !== undefined) {
      const why = this.xdp.failureOf(device);
      this.detach(device);
      throw xdpRefused(device, why);
    }
    if (failure !== undefined || first === undefined) {
      this.detach(device);
      throw new VnetdError("KERNEL", `${device} cannot be attached: ${failure ?? "no family"}`);
    }
    return first;
  }

  /** Of an attached device: what carries it changes, nothing else. Throws, and then it is as before. */
  changeMode(device: string, mode: AttachMode): void {
    const known = this.devices.get(device);
    if (known === undefined || known.mode === mode) return;
    const before = known.mode;
    known.mode = mode;
    this.sync();
    const why = this.xdp.failureOf(device);
    if (mode === "tc" || why === undefined) return;
    known.mode = before;
    this.sync();
    throw xdpRefused(device, why);
  }

  modeOf(device: string): AttachMode | undefined {
    return this.devices.get(device)?.mode;
  }

  /** Somebody removed the program from the XDP hook. */
  rehookXdp(ifindex: number): void {
    const link = this.context.native.linkAt(ifindex);
    if (link !== undefined) this.xdp.rehook(link, () => this.rewriteRecords());
  }

  detach(device: string): void {
    const places = this.ofDevice(device);
    if (!this.devices.delete(device)) {
      throw new VnetdError("NOT_ATTACHED", `${device} is not attached`, {
        hint: "`vnetd status` shows the attached devices.",
      });
    }
    for (const place of places) this.leave(place);
    this.announceMtu();
  }

  /** Makes everything fit what the kernel has now. */
  sync(links: readonly LinkInfo[] = this.context.native.linkList()): void {
    const { native } = this.context;
    const addresses = native.addressList();
    for (const [name, device] of this.devices) this.syncDevice(name, device, links, addresses);
    this.announceMtu();
  }

  /**
   * The configuration is another one: groups, port, families, or how devices merge. Everything is joined and
   * written by the new one, and the old groups are left last. Throws for a device that could not be set up.
   */
  configChanged(before: DaemonConfig): void {
    const { config } = this.context;
    const failed = new Set(this.list().filter(({ failure }) => failure !== ""));
    if (config.merge !== before.merge)
      for (const device of this.devices.values()) device.mergeIfindex = 0;
    for (const [name, device] of this.devices) device.mode = this.events.modeOf(name);
    this.sync();
    for (const place of this.list()) {
      if (place.ifindex === 0) continue;
      const group = place.family === 4 ? before.group : before.group6;
      if (group !== this.membership.groupOf(place.family)) this.membership.leave(place, group);
    }
    const broken = this.list().find((place) => place.failure !== "" && !failed.has(place));
    if (broken !== undefined) throw new VnetdError("KERNEL", `${broken.device}: ${broken.failure}`);
  }

  /** Devices of the configuration that are to be attached from now on, whether they are there or not. */
  want(devices: readonly string[]): void {
    for (const device of devices)
      if (!this.devices.has(device)) this.devices.set(device, this.newDevice(device));
  }

  private syncDevice(
    name: string,
    device: Device,
    links: readonly LinkInfo[],
    addresses: readonly AddressInfo[],
  ): void {
    const { underlay: policy } = this.context.config;
    const families = familiesOf(policy, name, device.hadIpv4, links, addresses);
    for (const [family, place] of device.places) {
      if (families.includes(family)) continue;
      this.leave(place);
      device.places.delete(family);
    }
    for (const family of families) {
      const place = device.places.get(family) ?? this.newPlace(name, family, device);
      device.places.set(family, place);
      const spec = { device: name, family, group: this.membership.groupOf(family) };
      const current = place.state.address ?? this.recordedAddress(name, family, links);
      this.follow(place, underlayState({ ...spec, current }, links, addresses));
      if (family === 4 && place.state.address !== null) device.hadIpv4 = true;
    }
  }

  /** The address that a daemon before this one used. */
  private recordedAddress(
    device: string,
    family: Family,
    links: readonly LinkInfo[],
  ): string | null {
    const ifindex = links.find(({ name }) => name === device)?.ifindex;
    const record = this.context.maps
      .underlays()
      .find((each) => each.ifindex === ifindex && each.family === family);
    return record === undefined || !hasAddress(record) ? null : addressToText(record.addr);
  }

  /** Once a second: whether to merge on receipt, from what was received. */
  sampleMerge(): void {
    const { maps, config, log } = this.context;
    if (config.merge !== "auto") return;
    for (const [name, { merge, places }] of this.devices) {
      const usable = [...places.values()].filter(isUsable);
      const stats = maps.deviceStats(usable[0]?.ifindex ?? 0);
      if (stats === undefined) continue;
      const sample = {
        frames: Number(stats.frames),
        largeFrames: Number(stats.largeFrames),
        superFrames: Number(stats.superFrames),
      };
      if (!merge.sample(sample)) continue;
      const now = merge.merge ? "on" : "off";
      log.say("device_merge", `${name}: merging on receipt ${now}`, { device: name });
      for (const place of usable) this.writeRecord(place);
    }
  }

  /** The daemon ends: sockets go, everything else stays and forwards. */
  close(): void {
    for (const place of this.list()) place.socket?.close();
  }

  private newDevice(device: string, mode = this.events.modeOf(device)): Device {
    return {
      places: new Map(),
      hadIpv4: false,
      merge: new MergePolicy(false),
      mergeIfindex: 0,
      mode,
    };
  }

  private newPlace(device: string, family: Family, { merge }: Device): Underlay {
    const spec = { device, family, group: this.membership.groupOf(family), current: null };
    return {
      device,
      family,
      state: underlayState(spec, [], []),
      ifindex: 0,
      merge,
      socket: undefined,
      failure: "",
      saidUsable: null,
      joiningSinceMs: undefined,
    };
  }

  private tooMany(): string | undefined {
    const most = vnetdLimits.MAX_UNDERLAYS;
    const each = this.context.config.underlay === "both" ? 2 : 1;
    return (this.devices.size + 1) * each <= most
      ? undefined
      : `${String(this.devices.size)} devices are attached, as many as can be`;
  }

  private follow(underlay: Underlay, state: UnderlayState): void {
    const wasUsable = isUsable(underlay);
    if (underlay.ifindex !== 0 && underlay.ifindex !== state.ifindex) this.leave(underlay);
    underlay.state = state;
    if (state.ifindex === 0) return;
    let reachesGroup = false;
    try {
      reachesGroup = this.enter(underlay);
      underlay.failure = "";
    } catch (error) {
      const failure = kernelError("setting it up", error).message;
      if (failure !== underlay.failure) this.say("device_failed", underlay, failure);
      underlay.failure = failure;
    }
    if (isUsable(underlay)) return this.sayUsable(underlay, reachesGroup);
    underlay.saidUsable = null;
    if (!wasUsable) return;
    this.say("device_down", underlay, problemOf(underlay));
    this.events.down(underlay);
  }

  /** Once for each address; and again where the kernel had made the group local meanwhile. */
  private sayUsable(underlay: Underlay, reachesGroup: boolean): void {
    const { address } = underlay.state;
    const isSaid = underlay.saidUsable === address;
    if (isSaid ? !reachesGroup : underlay.joiningSinceMs !== undefined) return;
    underlay.saidUsable = address;
    if (!isSaid) this.logUsable(underlay);
    this.events.usable(underlay);
  }

  private say(event: LogEvent, { device }: Underlay, reason: string): void {
    this.context.log.say(event, `${device}: ${reason}`, { device, reason });
  }

  private logUsable({ device, state }: Underlay): void {
    const { log, hooks } = this.context;
    const mtu = String(state.mtuBytes);
    const text = `${device}: attached with ${String(state.address)}, MTU ${mtu}, ${hooks.mode}`;
    log.say("device_attached", text, { device });
  }

  /** Returns whether what is sent to the group leaves the host from now on. */
  private enter(underlay: Underlay): boolean {
    const { state } = underlay;
    const { hooks, maps } = this.context;
    this.chooseMerge(underlay);
    if (underlay.ifindex === 0) {
      this.membership.leaveOld(maps.underlays().find((record) => samePlace(record, state)));
    }
    const hook = { ifindex: state.ifindex, direction: "ingress" } as const;
    if (underlay.ifindex === 0) this.xdp.prepare(state.ifindex);
    if (underlay.ifindex === 0 || !hooks.present(hook)) {
      hooks.ensure(hook, programOf(this.context, "vnetd_decap"));
    }
    this.xdp.follow(this.devices.get(underlay.device)?.mode === "xdp", {
      ...state,
      name: underlay.device,
    });
    underlay.ifindex = state.ifindex;
    this.writeRecord(underlay);
    maps.setUnderlayListed(this.indexOf(underlay), underlay);
    const reachesGroup = this.followGroup(underlay);
    this.openSocket(underlay);
    return reachesGroup;
  }

  private followGroup(underlay: Underlay): boolean {
    const { state, family, joiningSinceMs: sinceMs } = underlay;
    underlay.joiningSinceMs = undefined;
    if (this.context.config.multicast === "off") {
      this.membership.leave(underlay);
      this.membership.leaveVnets(underlay);
      return false;
    }
    if (state.address === null) return false;
    if (this.membership.join(state)) return true;
    const now = nowMs();
    if (this.membership.outlives(underlay)) return false;
    if (family === 6 && !state.groupJoined) underlay.joiningSinceMs = now;
    else if (sinceMs !== undefined && now - sinceMs < joiningMs) underlay.joiningSinceMs = sinceMs;
    return false;
  }

  /** The flags of how group traffic goes changed. */
  rewriteRecords(): void {
    for (const underlay of this.list()) if (underlay.ifindex !== 0) this.writeRecord(underlay);
  }

  /** Measured anew where the device is another one. */
  private chooseMerge(underlay: Underlay): void {
    const { maps, config } = this.context;
    const { ifindex, kind } = underlay.state;
    const device = this.devices.get(underlay.device);
    if (device === undefined) return;
    if (device.mergeIfindex !== ifindex) {
      const adopted = maps.underlays().find((record) => record.ifindex === ifindex);
      device.merge = new MergePolicy(mergeAtStart(config.merge, kind, adopted));
      device.mergeIfindex = ifindex;
    }
    underlay.merge = device.merge;
  }

  private writeRecord(underlay: Underlay): void {
    const { state, merge, family } = underlay;
    const { config, maps } = this.context;
    const up = state.problem === "" ? vnetdUnderlayFlags.UNDERLAY_UP : 0;
    maps.setUnderlay({
      ifindex: state.ifindex,
      flags:
        up |
        (merge.merge ? vnetdUnderlayFlags.UNDERLAY_MERGE : 0) |
        this.xdp.flags(state.ifindex) |
        this.events.groupFlags(underlay),
      addr: state.address === null ? new Uint8Array(16) : parseAddress(state.address),
      group: parseAddress(this.membership.groupOf(family)),
      family,
      mac: macToBytes(state.mac),
      mtu: Math.min(state.mtuBytes, 0xffff),
      port: config.port,
      prefixLen: state.prefixLength,
      index: this.indexOf(underlay),
      esp: this.events.espOf(underlay),
    });
  }

  /** Where a place is in the list that the programs walk: where it was, or a free entry. */
  private indexOf(place: VnetdPlace): number {
    const list = this.context.maps.underlayList();
    const has = (wanted: VnetdPlace): number => list.findIndex((each) => samePlace(each, wanted));
    const index = has(place) < 0 ? has(noPlace) : has(place);
    if (index < 0) throw new VnetdError("DEVICE_UNSUITABLE", "no more devices fit");
    return index;
  }

  private openSocket(underlay: Underlay): void {
    const { state, device, family } = underlay;
    const { native, config, log } = this.context;
    const { port } = config;
    const group = this.membership.groupOf(family);
    if (underlay.socket?.isFor({ ...state, group, port }) === true) return;
    underlay.socket?.close();
    underlay.socket = undefined;
    if (state.address === null) return;
    const options = { device, ifindex: state.ifindex, address: state.address };
    const { address } = options;
    try {
      underlay.socket = new VarpSocket(
        {
          native,
          log,
          // whose vnet's, the socket does not know
          received: (message, source) => this.events.inFragments(underlay, message, source),
          overflowed: (bytes) => notSent(this.context, { handle: 0 }, "varp_queue_full", bytes),
        },
        { ...options, group, port },
      );
    } catch (error) {
      if (errnoName(error) !== "EADDRINUSE") throw error;
      throw new VnetdError(
        "KERNEL",
        `another program has UDP ${address}:${String(port)} ` +
          `(\`ss -Hlunp sport = :${String(port)}\` names it): end it, or change \`port\` on all hosts`,
        { cause: error },
      );
    }
  }

  private leave(underlay: Underlay): void {
    const { ifindex, family } = underlay;
    underlay.socket?.close();
    underlay.socket = undefined;
    underlay.ifindex = 0;
    underlay.saidUsable = null;
    underlay.joiningSinceMs = undefined;
    if (ifindex === 0) return;
    this.takeOut({ ifindex, family });
    this.events.gone({ ifindex, family });
  }

  /** List, record, hook, membership: in the order in which nothing points to what is gone. */
  private takeOut(place: VnetdPlace): void {
    const { maps, hooks, log } = this.context;
    const { ifindex } = place;
    maps.underlayList().forEach((listed, at) => {
      if (samePlace(listed, place)) maps.setUnderlayListed(at, noPlace);
    });
    const record = maps.underlays().find((each) => samePlace(each, place));
    maps.deleteUnderlay(place);
    const isLast = maps.underlays().every((each) => each.ifindex !== ifindex);
    try {
      if (isLast) {
        maps.deleteDeviceStats(ifindex);
        this.xdp.leave(ifindex);
        hooks.remove({ ifindex, direction: "ingress" });
      }
      this.membership.leaveOld(record);
      this.membership.leave(place);
      this.membership.leaveVnets(place);
    } catch (error) {
      log.say("cleanup_failed", kernelError(`detaching device ${String(ifindex)}`, error).message);
    }
  }

  private announceMtu(): void {
    this.events.mtus(
      this.list().flatMap(({ state: { ifindex, family, mtuBytes } }) =>
        ifindex === 0 ? [] : [{ family, mtuBytes }],
      ),
    );
  }
}

function hasAddress({ addr }: VnetdUnderlay): boolean {
  return addr.some((byte) => byte !== 0);
}

export function isUsable({ ifindex, state, failure }: Underlay): boolean {
  return ifindex !== 0 && state.problem === "" && failure === "";
}

/** Carries traffic all the same, hence no problem of the device's state. */
function vrfProblem(vrf: string): string {
  if (vrf === "" || udpCrossesVrfs()) return "";
  return `it is in the VRF ${vrf}: packets that come in fragments are lost unless net.ipv4.udp_l3mdev_accept is 1`;
}

export function problemOf({ state, failure }: Underlay): string {
  return failure === "" ? state.problem : failure;
}
