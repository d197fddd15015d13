// SPDX-License-Identifier: Apache-2.0
/**
 * The attached underlay devices: hook, record, group membership and socket of each.
 *
 * Level-triggered: sync() looks at what the kernel has now and makes everything fit, whatever
 * happened since the last time, so a device that goes, comes back under the same name, or changes
 * its address or MTU needs no case of its own. The data plane forwards by the records alone; the
 * socket is only for VARP and goes away with the daemon, the group membership (an address with
 * autojoin) does not.
 */
import { VnetdError } from "../base/errors.js";
import { addressToText, parseAddress } from "../base/address.js";
import { macToBytes } from "../base/mac.js";
import { vnetdLimits, vnetdUnderlayFlags, type VnetdUnderlay } from "../generated/layouts.js";
import { errnoName, kernel, kernelError } from "../host/errno.js";
import { underlayState, unsuitable, type UnderlayState } from "../host/underlay-state.js";
import { udpCrossesVrfs } from "../host/l3mdev.js";
import { overheadBytes } from "../host/vnetif.js";
import { MergePolicy } from "../varp/merge-policy.js";
import { programOf, type Context } from "./context.js";
import { VarpSocket } from "./varp-socket.js";

export interface Underlay {
  device: string;
  state: UnderlayState;
  /** of the hook, record and membership that are there; 0: none */
  ifindex: number;
  merge: MergePolicy;
  socket: VarpSocket | undefined;
  /** what stood in the way of setting it up, or "" */
  failure: string;
}

export interface UnderlayEvents {
  /** it can carry traffic (again), or with another address */
  usable(underlay: Underlay): void;
  down(ifindex: number): void;
  gone(ifindex: number): void;
  mtu(mtuBytes: number | undefined): void;
  /** flags of its record that follow from how group traffic goes */
  groupFlags(underlay: Underlay): number;
}

const largestMtuBytes = 65_535 - overheadBytes;

export class Underlays {
  private readonly underlays = new Map<string, Underlay>();

  constructor(
    private readonly context: Context,
    private readonly events: UnderlayEvents,
  ) {}

  list(): Underlay[] {
    return [...this.underlays.values()];
  }

  names(): string[] {
    return [...this.underlays.keys()];
  }

  byIfindex(ifindex: number): Underlay | undefined {
    return this.list().find((underlay) => underlay.ifindex === ifindex);
  }

  usable(): Underlay[] {
    return this.list().filter(isUsable);
  }

  problems(): string[] {
    return this.list().flatMap((underlay) => {
      const problem = problemOf(underlay) || vrfProblem(underlay.state.vrf);
      return problem === "" ? [] : [`${underlay.device}: ${problem}`];
    });
  }

  /** Devices that are to be attached from now on, whether they are there or not. */
  reconcile(devices: readonly string[]): void {
    for (const device of devices) this.underlays.set(device, this.newUnderlay(device));
    const known = this.context.native.linkList();
    const wanted = new Set(
      known.filter(({ name }) => this.underlays.has(name)).map((l) => l.ifindex),
    );
    for (const { ifindex } of this.context.maps.underlays()) {
      if (!wanted.has(ifindex)) this.takeOut(ifindex);
    }
    this.sync();
  }

  attach(device: string): Underlay {
    const { native } = this.context;
    if (this.underlays.has(device)) {
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
    const underlay = this.newUnderlay(device);
    this.underlays.set(device, underlay);
    this.sync();
    if (underlay.failure !== "") {
      this.detach(device);
      throw new VnetdError("KERNEL", `${device} cannot be attached: ${underlay.failure}`);
    }
    return underlay;
  }

  detach(device: string): void {
    const underlay = this.underlays.get(device);
    if (underlay === undefined) {
      throw new VnetdError("NOT_ATTACHED", `${device} is not attached`, {
        hint: "`vnetd status` shows the attached devices.",
      });
    }
    this.underlays.delete(device);
    this.leave(underlay);
    this.announceMtu();
  }

  /** Makes everything fit what the kernel has now. */
  sync(): void {
    const { native, config } = this.context;
    const links = native.linkList();
    const addresses = native.addressList();
    for (const underlay of this.underlays.values()) {
      const state = underlayState(underlay.device, config.group, links, addresses);
      this.follow(underlay, state);
    }
    this.announceMtu();
  }

  /** Once a second: whether to merge on receipt, from what was received. */
  sampleMerge(): void {
    const { maps, config, log } = this.context;
    if (config.merge !== "auto") return;
    for (const underlay of this.usable()) {
      const stats = maps.deviceStats(underlay.ifindex);
      if (stats === undefined) continue;
      const sample = {
        frames: Number(stats.frames),
        largeFrames: Number(stats.largeFrames),
        superFrames: Number(stats.superFrames),
      };
      if (!underlay.merge.sample(sample)) continue;
      log.info(`${underlay.device}: merging on receipt ${underlay.merge.merge ? "on" : "off"}`);
      this.writeRecord(underlay);
    }
  }

  /** The daemon ends: sockets go, everything else stays and forwards. */
  close(): void {
    for (const underlay of this.underlays.values()) underlay.socket?.close();
  }

  private newUnderlay(device: string): Underlay {
    const state = underlayState(device, this.context.config.group, [], []);
    return {
      device,
      state,
      ifindex: 0,
      merge: new MergePolicy(false),
      socket: undefined,
      failure: "",
    };
  }

  private tooMany(): string | undefined {
    const most = vnetdLimits.MAX_UNDERLAYS;
    return this.underlays.size < most
      ? undefined
      : `${String(most)} devices are attached, as many as can be`;
  }

  private follow(underlay: Underlay, state: UnderlayState): void {
    const before = underlay.state;
    const wasUsable = isUsable(underlay);
    if (underlay.ifindex !== 0 && underlay.ifindex !== state.ifindex) this.leave(underlay);
    underlay.state = state;
    if (state.ifindex === 0) return;
    try {
      this.enter(underlay);
      underlay.failure = "";
    } catch (error) {
      const failure = kernelError("setting it up", error).message;
      if (failure !== underlay.failure) this.context.log.error(`${underlay.device}: ${failure}`);
      underlay.failure = failure;
    }
    const usableNow = isUsable(underlay);
    const sameAddress = before.address === state.address;
    if (usableNow && !(wasUsable && sameAddress)) this.becameUsable(underlay);
    if (!usableNow && wasUsable) {
      this.context.log.warn(`${underlay.device}: ${problemOf(underlay)}`);
      this.events.down(state.ifindex);
    }
  }

  private becameUsable(underlay: Underlay): void {
    const { device, state } = underlay;
    const { log, hooks } = this.context;
    const mtu = String(state.mtuBytes);
    log.info(`${device}: attached with ${String(state.address)}, MTU ${mtu}, ${hooks.mode}`);
    this.events.usable(underlay);
  }

  private enter(underlay: Underlay): void {
    const { state } = underlay;
    const { hooks, maps, config } = this.context;
    if (underlay.ifindex === 0) {
      const adopted = maps.underlays().find((record) => record.ifindex === state.ifindex);
      underlay.merge = new MergePolicy(mergeAtStart(config.merge, state.kind, adopted));
      this.leaveOldGroup(adopted);
    }
    const hook = { ifindex: state.ifindex, direction: "ingress" } as const;
    if (underlay.ifindex === 0 || !hooks.present(hook)) {
      hooks.ensure(hook, programOf(this.context, "vnetd_decap"));
    }
    underlay.ifindex = state.ifindex;
    this.writeRecord(underlay);
    maps.setUnderlayListed(this.placeOf(state.ifindex), state.ifindex);
    if (this.context.config.multicast === "off") this.leaveGroup(state.ifindex);
    else if (state.address !== null) this.joinGroup(state);
    this.openSocket(underlay);
  }

  /** The flags of how group traffic goes changed. */
  rewriteRecords(): void {
    for (const underlay of this.list()) if (underlay.ifindex !== 0) this.writeRecord(underlay);
  }

  private writeRecord(underlay: Underlay): void {
    const { state, merge } = underlay;
    const { config, maps } = this.context;
    const up = state.problem === "" ? vnetdUnderlayFlags.UNDERLAY_UP : 0;
    maps.setUnderlay({
      ifindex: state.ifindex,
      flags:
        up |
        (merge.merge ? vnetdUnderlayFlags.UNDERLAY_MERGE : 0) |
        this.events.groupFlags(underlay),
      addr: state.address === null ? new Uint8Array(16) : parseAddress(state.address),
      group: parseAddress(config.group),
      mac: macToBytes(state.mac),
      mtu: Math.min(state.mtuBytes, 0xffff),
      port: config.port,
      prefixLen: state.prefixLength,
      index: this.placeOf(state.ifindex),
    });
  }

  /** The device's place in the list that the programs walk: the one it has, or a free one. */
  private placeOf(ifindex: number): number {
    const list = this.context.maps.underlayList();
    const place = list.includes(ifindex) ? list.indexOf(ifindex) : list.indexOf(0);
    if (place < 0) throw new VnetdError("DEVICE_UNSUITABLE", "no more devices fit");
    return place;
  }

  private joinGroup({ ifindex, groupJoined }: UnderlayState): void {
    const { native, config } = this.context;
    if (!groupJoined) {
      this.leaveGroup(ifindex);
      kernel("joining the group", () => native.addressAdd(ifindex, config.group, 32, true));
    }
    // With it the host would keep to itself what it sends to the group.
    native.routeDeleteLocal(ifindex, config.group);
  }

  /** The group that was joined when the record was written, if the configuration had another. */
  private leaveOldGroup(record: VnetdUnderlay | undefined): void {
    if (record === undefined) return;
    const group = addressToText(record.group);
    if (group !== this.context.config.group) this.leaveGroup(record.ifindex, group);
  }

  private leaveGroup(ifindex: number, group = this.context.config.group): void {
    const { native } = this.context;
    try {
      native.addressDelete(ifindex, group, 32);
    } catch (error) {
      if (!["EADDRNOTAVAIL", "ENODEV"].includes(errnoName(error))) throw error;
    }
  }

  private openSocket(underlay: Underlay): void {
    const { state, device } = underlay;
    const { native, config, log } = this.context;
    if (underlay.socket?.isFor(state) === true) return;
    underlay.socket?.close();
    underlay.socket = undefined;
    if (state.address === null) return;
    const options = { device, ifindex: state.ifindex, address: state.address };
    const { address } = options;
    const { group, port } = config;
    try {
      underlay.socket = new VarpSocket(native, { ...options, group, port }, log);
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
    const { ifindex } = underlay;
    underlay.socket?.close();
    underlay.socket = undefined;
    underlay.ifindex = 0;
    if (ifindex === 0) return;
    this.takeOut(ifindex);
    this.events.gone(ifindex);
  }

  /** List, record, hook, membership: in the order in which nothing points to what is gone. */
  private takeOut(ifindex: number): void {
    const { maps, hooks, log } = this.context;
    maps.underlayList().forEach((listed, at) => {
      if (listed === ifindex) maps.setUnderlayListed(at, 0);
    });
    const record = maps.underlays().find((each) => each.ifindex === ifindex);
    maps.deleteUnderlay(ifindex);
    maps.deleteDeviceStats(ifindex);
    try {
      hooks.remove({ ifindex, direction: "ingress" });
      this.leaveOldGroup(record);
      this.leaveGroup(ifindex);
    } catch (error) {
      log.warn(kernelError(`detaching device ${String(ifindex)}`, error).message);
    }
  }

  private announceMtu(): void {
    const mtus = this.list().flatMap(({ state }) => (state.ifindex === 0 ? [] : [state.mtuBytes]));
    this.events.mtu(
      mtus.length === 0 ? undefined : Math.min(largestMtuBytes, Math.min(...mtus) - overheadBytes),
    );
  }
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

/** NICs deliver packets at wire size, virtual devices often super-frames. */
function mergeAtStart(
  policy: "auto" | "on" | "off",
  kind: string,
  adopted: VnetdUnderlay | undefined,
): boolean {
  if (policy !== "auto") return policy === "on";
  if (adopted !== undefined) return (adopted.flags & vnetdUnderlayFlags.UNDERLAY_MERGE) !== 0;
  return kind === "";
}
