// SPDX-License-Identifier: Apache-2.0
/**
 * The vnets of this host: makes what is configured, adopts what is there, takes away what was
 * deleted.
 *
 * bringUp() is idempotent and undoes what it made when a step fails, so creation and the start of
 * the daemon are the same path. Devices are found by name and alias, table records by id; nothing
 * is torn down to be made anew while traffic runs.
 */
import type { VnetInfo } from "../api/contract.js";
import { VnetdError, atPlace as at } from "../base/errors.js";
import type { Mac } from "../base/mac.js";
import { shownGroups } from "../base/vnet-group.js";
import type { VnetId } from "../base/vnet-id.js";
import type { VnetKey } from "../base/vnet-key.js";
import {
  suiteOfVnet,
  withoutPlaces,
  type PlacedVnet,
  type VnetConfig,
} from "../config/vnet-file.js";
import { maxVnets, securityNumbers, type VnetSlot } from "../dataplane/vnet-table.js";
import type { DaemonConfig } from "../config/daemon-config.js";
import { ensureBridge, isOurs, removeBridge, setMaxLearned } from "../host/bridge.js";
import { kernel } from "../host/errno.js";
import { macOf, peerNameOf } from "../host/names.js";
import {
  ethernetMtuBytes,
  ensureVnetif,
  macOfLink,
  removeVnetif,
  renameVnetif,
  portMtu,
  type Vnetif,
} from "../host/vnetif.js";
import type { BridgeFdbEntry, LinkInfo } from "../native/contract.js";
import { guestMtuBytes } from "../wire/overhead.js";
import { nowMs, programOf, type Context } from "./context.js";
import type { PlaceMtu } from "./underlays.js";
import { checkVnet } from "./vnet-checks.js";
import { VnetMtus } from "./vnet-mtus.js";
import { recordOf } from "./vnet-record.js";
import { sayMadeAgain, sayNotUp, sayPutBack } from "./vnet-sayings.js";
import { isForeign, removeOrphans } from "./vnet-orphans.js";
import type { Suite } from "../keys/esp-keys.js";
import { secureConfigOf } from "./security/config.js";
import type { SecureConfig } from "./security/secure-vnet.js";

const noUnderlay: readonly PlaceMtu[] = [{ family: 4, mtuBytes: ethernetMtuBytes }];

export interface Vnet {
  config: VnetConfig;
  builtIn: boolean;
  /** undefined: it could not be brought up, see problem */
  running: RunningVnet | undefined;
  problem: string;
  /** it is being configured otherwise: what is not where it should be was put where it was by us */
  changing?: true;
}

/** A vnetif that is taken off its bridge again so soon is left to the next look at everything. */
const putBackMs = 2000;
/** as many at once have a filter first (hooks.ts): their creation is not to take seconds */
const bulkVnets = 16;

export interface RunningVnet extends VnetSlot {
  id: VnetId;
  /** undefined: moved into another network namespace */
  vnif: LinkInfo | undefined;
  peer: LinkInfo;
  vmac: Mac;
  /** the bridge is one that vnetd made */
  ownsBridge: boolean;
  /** undefined: security is none */
  secure: SecureConfig | undefined;
}

export interface VnetParts {
  /** whether a device is attached: its own frames would go round in a vnet that is on it */
  isUnderlay: (device: string) => boolean;
  /** why this kernel has no ESP, if it has none */
  espProblem: (suite: Suite) => string | undefined;
}

type LinksByName = ReadonlyMap<string, LinkInfo>;

export class Vnets {
  private readonly vnets = new Map<VnetId, Vnet>();
  private underlayMtus: readonly PlaceMtu[] = noUnderlay;
  /** the devices could not be listed when their MTUs were to be set */
  private isMtuDue = false;
  private readonly mtus: VnetMtus;
  private handles: Map<number, RunningVnet> | undefined;
  /** when a vnetif was last put back on its bridge */
  private readonly putBackAtMs = new Map<VnetId, number>();
  /** While many are made at once: the places in the table that are taken. */
  private bulkSlots: Set<number> | undefined;

  constructor(
    private readonly context: Context,
    private readonly parts: VnetParts,
  ) {
    this.mtus = new VnetMtus(context);
  }

  get size(): number {
    return this.vnets.size;
  }

  list(): Vnet[] {
    return [...this.vnets.values()].sort((a, b) => (a.config.id < b.config.id ? -1 : 1));
  }

  /**
   * Which MACs are behind the bridges' ports; without those behind vnetifs, which are on other hosts and
   * as many as these make up.
   */
  bridgeFdb(): BridgeFdbEntry[] {
    const vnifs = this.running().flatMap(({ vnif }) => (vnif === undefined ? [] : [vnif.ifindex]));
    return this.context.native.bridgeFdbList(vnifs);
  }

  running(): RunningVnet[] {
    return this.list().flatMap(({ running }) => (running === undefined ? [] : [running]));
  }

  byHandle(): ReadonlyMap<number, RunningVnet> {
    this.handles ??= new Map(this.running().map((vnet) => [vnet.handle, vnet]));
    return this.handles;
  }

  get(id: VnetId): Vnet | undefined {
    return this.vnets.get(id);
  }

  find(id: VnetId): Vnet {
    const vnet = this.vnets.get(id);
    if (vnet !== undefined) return vnet;
    throw new VnetdError("VNET_NOT_FOUND", `there is no vnet ${id}`, {
      hint: "`vnetd vnet-list` shows the vnets of this host.",
    });
  }

  areAllWell(): boolean {
    if (this.isMtuDue || !this.mtus.areAllSet) return false;
    return [...this.vnets.values()].every((v) => v.running !== undefined && v.problem === "");
  }

  problems(): string[] {
    const notUp = this.list().filter(({ problem }) => problem !== "");
    const texts = notUp.map(({ config, problem }) => `vnet ${config.id}: ${problem}`);
    return [...texts, ...this.mtus.problems()];
  }

  // ---- start

  /** Makes the kernel's state that of the configuration, and removes what is ours beyond it. */
  reconcile(wanted: readonly { config: VnetConfig; builtIn: boolean }[]): void {
    const entered = this.context.table.entered();
    removeOrphans(this.context, new Set(wanted.map(({ config }) => config.id)), entered);
    for (const { config, builtIn } of wanted) {
      const vnet: Vnet = { config, builtIn, running: undefined, problem: "" };
      this.vnets.set(config.id, vnet);
      this.tryToBringUp(vnet, entered.get(config.id));
    }
  }

  /** Looks again at vnets that lost a device or could not be brought up. */
  repair(links: readonly LinkInfo[], withAll: boolean): RunningVnet[] {
    // of a thousand vnets one by one it would take the kernel a tenth of a second
    const byName = new Map(links.map((link) => [link.name, link]));
    return this.list()
      .filter((vnet) => this.needsRepair(vnet, byName, withAll))
      .flatMap((vnet) => {
        this.tryToBringUp(vnet, vnet.running);
        return vnet.running === undefined ? [] : [vnet.running];
      });
  }

  // ---- changes

  /** A secure vnet's keys are others from now on: those that exchanges begin with and take. */
  setKeys(
    id: VnetId,
    { key, previousKey }: { key: string | null; previousKey: string | undefined },
    keys: readonly VnetKey[],
  ): void {
    const vnet = this.find(id);
    const { previousKey: _before, ...config } = vnet.config;
    vnet.config = { ...config, key, ...(previousKey === undefined ? {} : { previousKey }) };
    const { running } = vnet;
    if (running?.secure !== undefined) running.secure = { suite: running.secure.suite, keys };
  }

  /** Throws for the first thing that stands against a vnet; changes nothing. */
  check(placed: readonly PlacedVnet[]): void {
    const added = placed.filter(({ id }) => !this.vnets.has(id)).length;
    if (this.vnets.size + added > maxVnets) {
      throw new VnetdError("VNET_LIMIT", `a host has at most ${String(maxVnets)} vnets`, {
        hint: "Delete some that are not used.",
      });
    }
    for (const vnet of placed) checkVnet(this.context, this.parts, vnet, [...this.vnets.values()]);
  }

  /** Brings all of them up, or none. The caller persists, and calls undo() if that fails. */
  create(placed: readonly PlacedVnet[]): { made: RunningVnet[]; undo: () => void } {
    this.check(placed);
    if (placed.length >= bulkVnets) this.bulkSlots = this.usedSlots();
    const undos: (() => void)[] = [];
    const undo = (): void => {
      for (const step of undos.splice(0).reverse()) step();
    };
    try {
      const made = placed.map((vnet) => {
        const { running, undo: undoOne } = at(vnet.places.vnet, () => this.createOne(vnet));
        undos.push(undoOne);
        return running;
      });
      return { made, undo };
    } catch (error) {
      undo();
      throw error;
    } finally {
      this.bulkSlots = undefined;
    }
  }

  /** Says what stays behind, if anything does. */
  delete(id: VnetId): string | undefined {
    const vnet = this.find(id);
    const note = this.tearDown(vnet);
    this.vnets.delete(id);
    this.putBackAtMs.delete(id);
    this.handles = undefined;
    return note;
  }

  /** What the places of the underlay carry; none: as if there were an Ethernet with IPv4. */
  setUnderlayMtus(places: readonly PlaceMtu[]): void {
    const before = this.underlayMtus;
    this.underlayMtus = places.length === 0 ? noUnderlay : places;
    const isOther = JSON.stringify(before) !== JSON.stringify(this.underlayMtus);
    if (isOther || this.isMtuDue) this.applyMtus(this.list());
    else if (!this.mtus.areAllSet)
      this.applyMtus(this.list().filter(({ config }) => this.mtus.hasFailed(config.id)));
  }

  /** By the links as they are now: what is known of a vnetif may be from before its MTU was set last. */
  private applyMtus(vnets: readonly Vnet[]): void {
    const { native } = this.context;
    this.isMtuDue = true;
    const links = native.linkList();
    const byIndex = new Map(links.map((link) => [link.ifindex, link]));
    this.isMtuDue = false;
    for (const { config, running } of vnets) {
      this.mtus.setAll(config.id, (set) => {
        const vnif = byIndex.get(running?.vnif?.ifindex ?? 0);
        if (vnif !== undefined) set(vnif, this.vnifMtu(config, vnif, links));
        const bridge = config.bridge === null ? undefined : native.linkGet(config.bridge);
        if (bridge !== undefined && isOurs(bridge, config.id)) set(bridge, this.mtuOf(config));
      });
    }
    this.followLinks(native.linkList());
  }

  /**
   * The configuration has other limits, times, or another encapsulation: the vnets' records say so from the next
   * frame on, and the MTUs follow. Nothing else of a vnet is touched.
   */
  configChanged(before: DaemonConfig): void {
    const { native, config: now } = this.context;
    for (const { config, running } of this.list()) {
      if (running === undefined) continue;
      this.enter(config, running, running);
      const { entriesPerVnet } = now.limits;
      if (entriesPerVnet !== before.limits.entriesPerVnet && config.bridge !== null)
        setMaxLearned(native, config.bridge, config.id, entriesPerVnet);
    }
    this.applyMtus(this.list());
  }

  /** The daemon's own vnets that are wanted as well from now on. */
  addBuiltIns(wanted: readonly { config: VnetConfig; builtIn: boolean }[]): RunningVnet[] {
    return wanted.flatMap(({ config, builtIn }) => {
      if (!builtIn || this.vnets.has(config.id)) return [];
      const vnet: Vnet = { config, builtIn, running: undefined, problem: "" };
      this.vnets.set(config.id, vnet);
      this.tryToBringUp(vnet, undefined);
      return vnet.running === undefined ? [] : [vnet.running];
    });
  }

  /** What a vnet does not say itself is this host's default. ESP carries UDP alone, whatever others are sent by. */
  inUse(config: VnetConfig): VnetInfo {
    const suite = suiteOfVnet(config);
    const byDefault = suite === undefined ? this.context.config.encapsulation : "udp";
    const encapsulation = config.encapsulation ?? byDefault;
    const others = { suppress: config.suppress === true, ...shownGroups(config) };
    return { ...config, suite: suite?.name ?? null, encapsulation, ...others };
  }

  /** What fits into one outer packet, at every place. */
  mtuOf(config: VnetConfig): number {
    const { encapsulation } = this.inUse(config);
    return guestMtuBytes(this.underlayMtus, encapsulation, suiteOfVnet(config));
  }

  private vnifMtu(config: VnetConfig, vnif?: LinkInfo, links: readonly LinkInfo[] = []): number {
    if (config.bridge === null) return this.mtuOf(config);
    return portMtu(Math.min(...this.underlayMtus.map(({ mtuBytes }) => mtuBytes)), vnif, links);
  }

  /** A guest's port came, or was given a larger MTU. One that is smaller by hand stays. */
  private followPorts(config: VnetConfig, vnif: LinkInfo, links: readonly LinkInfo[]): void {
    const mtuBytes = this.vnifMtu(config, vnif, links);
    if (mtuBytes <= Math.max(vnif.mtuBytes, this.vnifMtu(config))) return;
    this.mtus.set(config.id, vnif, mtuBytes);
  }

  /** Takes over what became of the devices: moved, back again, another MAC, larger ports beside it. */
  followLinks(links: readonly LinkInfo[]): void {
    const byIndex = new Map(links.map((link) => [link.ifindex, link]));
    for (const vnet of this.list()) {
      const { running } = vnet;
      if (running === undefined) continue;
      const peer = byIndex.get(running.peer.ifindex);
      if (peer === undefined) continue;
      const vnif = peer.linkNetnsId === undefined ? byIndex.get(peer.link) : undefined;
      const moved = vnif?.ifindex !== running.vnif?.ifindex;
      const vmac = macOfLink(vnif, running.vmac);
      const renamed = vmac !== running.vmac;
      Object.assign(running, { peer, vnif, vmac });
      if (moved || renamed) this.tryToBringUp(vnet, running);
      if (vnif !== undefined) this.followPorts(vnet.config, vnif, links);
    }
  }

  private createOne(placed: PlacedVnet): { running: RunningVnet; undo: () => void } {
    const { id } = placed;
    const before = this.vnets.get(id);
    const config = withoutPlaces(placed);
    const vnet: Vnet = { config, builtIn: false, running: before?.running, problem: "" };
    if (before !== undefined) vnet.changing = true;
    const undo = before === undefined ? (): void => this.discard(vnet) : this.wayBack(vnet, before);
    try {
      vnet.running = this.bringUp(vnet, vnet.running);
      const { vnif } = vnet.running;
      // one that is configured anew keeps what its interface has: addresses, whoever listens on it
      if (vnif !== undefined)
        vnet.running.vnif = this.offBridge(
          renameVnetif(this.context.native, vnif, config.vnetif),
          before,
          config,
        );
      delete vnet.changing;
      this.vnets.set(id, vnet);
      this.handles = undefined;
      return { running: vnet.running, undo };
    } catch (error) {
      if (before !== undefined) undo();
      else if (vnet.running !== undefined) this.tearDown(vnet);
      throw error;
    }
  }

  /** One that is to be on no bridge, and is on that which it had. */
  private offBridge(vnif: LinkInfo, before: Vnet | undefined, { bridge }: VnetConfig): LinkInfo {
    const had = before?.config.bridge ?? null;
    if (bridge !== null || had === null || vnif.master === 0) return vnif;
    this.context.native.linkSet(vnif.ifindex, { master: 0 });
    return { ...vnif, master: 0 };
  }

  /**
   * One that is there is configured otherwise, with what its interface has. anew: nothing that was heard in it
   * counts any more, so it gets another handle; whoever calls has told the others that it is gone. Returns the way back; the
   * bridge that it had is the caller's to remove, once there is none.
   */
  change(placed: PlacedVnet, anew: boolean): () => void {
    const before = this.find(placed.id);
    if (!anew) return this.createOne(placed).undo;
    const { id } = placed;
    const stopped: Vnet = { ...before, running: undefined };
    const slot = before.running ?? this.context.table.entered().get(id);
    if (slot !== undefined) this.context.table.remove(id, slot);
    this.vnets.set(id, stopped);
    this.handles = undefined;
    const back = (): void => {
      this.vnets.set(id, before);
      before.running = undefined;
      this.tryToBringUp(before, undefined);
    };
    try {
      const { running, undo } = this.createOne(placed);
      return () => {
        undo();
        this.context.table.remove(id, running);
        back();
      };
    } catch (error) {
      back();
      throw error;
    }
  }

  private discard(vnet: Vnet): void {
    this.tearDown(vnet);
    this.vnets.delete(vnet.config.id);
    this.handles = undefined;
  }

  /** Undoes what a built-in vnet's configuration adds to it, and nothing else: it may be in use. */
  private wayBack(vnet: Vnet, before: Vnet): () => void {
    const { native } = this.context;
    const { id, bridge } = vnet.config;
    const index = before.running?.vnif?.ifindex;
    const was = index === undefined ? undefined : native.linkAt(index);
    const bridgeWasThere = bridge === null || native.linkGet(bridge) !== undefined;
    return () => {
      const now = vnet.running?.vnif ?? was;
      this.quietly(() => {
        if (now === undefined) return;
        renameVnetif(native, now, was?.name ?? before.config.vnetif);
        const master = was?.master ?? 0;
        if (native.linkAt(now.ifindex)?.master !== master) native.linkSet(now.ifindex, { master });
      });
      this.quietly(() => {
        if (bridge !== null && !bridgeWasThere) removeBridge(native, bridge, id);
      });
      this.vnets.set(id, before);
      this.handles = undefined;
      this.tryToBringUp(before, before.running ?? vnet.running);
    };
  }

  private tryToBringUp(vnet: Vnet, slot: VnetSlot | undefined): void {
    try {
      vnet.running = this.bringUp(vnet, slot);
      this.handles = undefined;
      vnet.problem = "";
    } catch (error) {
      vnet.problem = error instanceof Error ? error.message : String(error);
      sayNotUp(this.context.log, vnet.config.id, vnet.problem);
    }
  }

  private bringUp(
    { config, running: before, changing }: Vnet,
    known: VnetSlot | undefined,
  ): RunningVnet {
    const { native, hostId, table } = this.context;
    const { id, vnetif, bridge, security } = config;
    // What older maps know of it must not go on in clear, whatever comes: the programs drop what is not "none".
    if (known !== undefined && security !== "none")
      table.setSecurity(known, securityNumbers[security]);
    // keys that are in use stay, whatever became of their file: key-rotate changes them
    const secure =
      (security === "none" ? undefined : before?.secure) ??
      secureConfigOf(this.context, config, this.parts.espProblem);
    if (known === undefined && isForeign(this.context, id)) {
      throw new VnetdError(
        "NAME_IN_USE",
        `${peerNameOf(id)} was made by a vnetd with another state directory`,
        { hint: `Start that one again, or take it away: ip link del ${peerNameOf(id)}` },
      );
    }
    const undos: (() => void)[] = [];
    const maxLearned = this.context.config.limits.entriesPerVnet;
    const spec = { id, hostId, mtuBytes: this.mtuOf(config), maxLearned };
    try {
      let bridgeIndex: number | undefined;
      let ownsBridge = false;
      if (bridge !== null) {
        const made = ensureBridge(native, { ...spec, name: bridge });
        if (made.created) undos.push(() => native.linkDelete(made.link.ifindex));
        if (made.created && known !== undefined) sayMadeAgain(this.context.log, id, bridge);
        bridgeIndex = made.link.ifindex;
        ownsBridge = made.created || isOurs(made.link, id);
      }
      const pair = ensureVnetif(native, {
        ...spec,
        name: vnetif,
        mtuBytes: this.vnifMtu(config),
        isPort: bridge !== null,
      });
      if (pair.created) undos.push(() => removeVnetif(native, id));
      const slot = known ?? table.allocate(this.bulkSlots ?? this.usedSlots());
      this.bulkSlots?.add(slot.slot);
      if (known === undefined) undos.push(() => table.remove(id, slot));
      const running = { ...this.enter(config, slot, pair), ownsBridge, secure };
      // one that runs goes on as it was when a later step fails
      if (known === undefined) undos.push(() => this.unhook(running));
      this.hook(running);
      if (bridgeIndex !== undefined) {
        this.enslave(running, bridgeIndex, !pair.created && changing === undefined);
      }
      return running;
    } catch (error) {
      for (const step of undos.reverse()) this.quietly(step);
      throw error;
    }
  }

  private enter(
    vnet: VnetConfig,
    { slot, handle }: VnetSlot,
    { vnif, peer }: Pick<Vnetif, "vnif" | "peer">,
  ): Omit<RunningVnet, "ownsBridge" | "secure"> {
    const { id } = vnet;
    const { table, hostId } = this.context;
    const vmac = macOfLink(vnif, macOf(hostId, id, "vnetif"));
    const { encapsulation } = this.inUse(vnet);
    table.write(
      id,
      { slot, handle },
      recordOf(this.context, { ...vnet, encapsulation }, { vnif, peer, vmac }),
    );
    return { id, slot, handle, vnif, peer, vmac };
  }

  private hook({ vnif, peer, id }: RunningVnet): void {
    const { hooks } = this.context;
    const encap = programOf(this.context, "vnetd_encap");
    const fast = programOf(this.context, "vnetd_encap_fast");
    kernel(`hooking vnet ${id}`, () => {
      if (this.bulkSlots !== undefined) hooks.ensureSoon(peer.ifindex, encap);
      else hooks.ensure({ ifindex: peer.ifindex, direction: "ingress" }, encap);
      if (vnif !== undefined) hooks.ensure({ ifindex: vnif.ifindex, direction: "egress" }, fast);
    });
  }

  private unhook({ vnif, peer }: RunningVnet): void {
    const { hooks } = this.context;
    if (vnif !== undefined) hooks.remove({ ifindex: vnif.ifindex, direction: "egress" });
    hooks.remove({ ifindex: peer.ifindex, direction: "ingress" });
  }

  /** isBack: the vnetif was there before, and somebody took it off */
  private enslave({ id, vnif }: RunningVnet, bridge: number, isBack: boolean): void {
    if (vnif === undefined || vnif.master === bridge) return;
    const { native, log } = this.context;
    kernel(`putting ${vnif.name} on its bridge`, () =>
      native.linkSet(vnif.ifindex, { master: bridge, up: true }),
    );
    vnif.master = bridge;
    if (!isBack) return;
    this.putBackAtMs.set(id, nowMs());
    sayPutBack(log, id, vnif.name);
  }

  private tearDown({ config, running }: Vnet): string | undefined {
    const { native, table } = this.context;
    const { id, bridge } = config;
    this.mtus.forget(id);
    if (running !== undefined) this.quietly(() => this.unhook(running));
    // one that could not be brought up may be in the maps from an earlier start
    const slot = running ?? table.entered().get(id);
    if (slot !== undefined) table.remove(id, slot);
    else if (isForeign(this.context, id)) return undefined;
    removeVnetif(native, id);
    return bridge === null ? undefined : removeBridge(native, bridge, id);
  }

  private usedSlots(): Set<number> {
    const used = new Set(this.context.maps.vnetSlots().values());
    for (const { slot } of this.running()) used.add(slot);
    return used;
  }

  private needsRepair(vnet: Vnet, links: LinksByName, withAll: boolean): boolean {
    const { running, problem } = vnet;
    if (running === undefined || problem !== "") return true;
    const { ifindex, name } = running.peer;
    if (links.get(name)?.ifindex !== ifindex) return true;
    return this.isOffBridge(vnet, links, withAll);
  }

  /**
   * Whether the bridge is gone or the vnetif is not on it. With the look at everything, every ten
   * seconds, anything is put right. In between, who takes the vnetif off again and again is not
   * answered, and whoever made a bridge of his own has time to make it anew (ifdown, ifup).
   */
  private isOffBridge({ config, running }: Vnet, links: LinksByName, withAll: boolean): boolean {
    const { id, bridge } = config;
    if (bridge === null || running === undefined) return false;
    const { vnif, ownsBridge } = running;
    const link = links.get(bridge);
    if (link === undefined) return withAll || ownsBridge;
    if (vnif === undefined || vnif.master === link.ifindex) return false;
    const putBackAtMs = this.putBackAtMs.get(id);
    return withAll || putBackAtMs === undefined || nowMs() - putBackAtMs >= putBackMs;
  }

  private quietly(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.context.log.say("cleanup_failed", String(error));
    }
  }
}
