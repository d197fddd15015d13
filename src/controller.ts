// SPDX-License-Identifier: Apache-2.0
/**
 * The controller: wires the parts together and is the only one that knows them all.
 *
 *   start   open the data plane, make the kernel's state that of the configuration, listen
 *   events  rings -> VarpService, netlink -> Underlays and Vnets, timers -> all
 *   API     handlers: check, change the kernel, persist; or undo
 *   stop    let go; the data plane goes on forwarding
 *
 * Order of a change: what is made is persisted after it stands (a crash before leaves an orphan,
 * which the next start removes); what is deleted is persisted first (a crash after leaves an
 * orphan as well). Nothing is ever half-configured.
 */
import type { VnetConfig } from "./config/vnet-file.js";
import type { Mac } from "./base/mac.js";
import type { PeerConfig } from "./base/peer.js";
import { defaultVnetifName, parseVnetId, type VnetId } from "./base/vnet-id.js";
import { Asks } from "./controller/asks.js";
import { Hellos } from "./controller/hellos.js";
import { VnetGroups } from "./controller/vnet-groups.js";
import { groupsOf } from "./base/vnet-group.js";
import { nowMs, type Context } from "./controller/context.js";
import { Helpers } from "./controller/helpers.js";
import { Looks } from "./controller/looks.js";
import { HookWatch } from "./controller/hook-watch.js";
import { DirectPorts } from "./controller/direct-ports.js";
import { Ports } from "./controller/ports.js";
import { StaticEntries } from "./controller/static-entries.js";
import { Peers } from "./controller/peers.js";
import { Underlays } from "./controller/underlays.js";
import { VarpService } from "./controller/varp-service.js";
import { Security } from "./controller/security.js";
import { KeyRotation } from "./controller/security/rotation.js";
import { Troubles } from "./controller/troubles.js";
import { MetricsView } from "./controller/metrics-view.js";
import { Views } from "./controller/views.js";
import { Watch } from "./controller/watch.js";
import { openContext, type ControllerOptions } from "./controller/open-context.js";
import { Vnets, type RunningVnet } from "./controller/vnets.js";
import { adoptLinks, removeGeneration } from "./dataplane/generation.js";
import { kernelError } from "./host/errno.js";
import type { Closable, NetlinkEvent } from "./native/contract.js";
import type { StateDirectory } from "./store/state-directory.js";

/** Vnets that the daemon makes by itself. */
const builtInIds: readonly VnetId[] = ["2", "3", "4"].map((id) => parseVnetId(id));
const tickMs = 1000;

export class Controller {
  readonly context: Context;
  readonly vnets: Vnets;
  readonly underlays: Underlays;
  readonly hellos: Hellos;
  readonly groups: VnetGroups;
  readonly peers: Peers;
  readonly security: Security;
  readonly rotation: KeyRotation;
  readonly varp: VarpService;
  readonly asks: Asks;
  readonly statics: StaticEntries;
  private readonly ports: Ports;
  readonly directPorts: DirectPorts;
  readonly troubles: Troubles;
  readonly views: Views;
  readonly metrics: MetricsView;
  readonly watch: Watch;
  private readonly closables: Closable[] = [];
  private readonly helpers: Helpers;
  readonly hookWatch: HookWatch;
  private tickTimer: NodeJS.Timeout | undefined;
  /** news of the kernel did not reach us */
  private lostNews = false;
  private readonly looks: Looks;
  private moreProblems: (() => string[])[] = [];

  constructor(private readonly options: ControllerOptions) {
    this.context = openContext(options);
    this.vnets = new Vnets(this.context, {
      isUnderlay: (device) => this.underlays.names().includes(device),
      espProblem: (suite) => this.security.unavailable(suite),
    });
    this.underlays = new Underlays(this.context, {
      usable: (underlay) => {
        this.peers.devicesChanged();
        this.security.placeUsable(underlay);
        this.hellos.deviceUsable(underlay);
        this.varp.announceAll();
        this.statics.apply();
      },
      down: (place) => this.hellos.carrierDown(place),
      gone: (place) => {
        this.hellos.carrierGone(place);
        this.security.placeGone(place);
      },
      mtus: (mtus) => this.vnets.setUnderlayMtus(mtus),
      groupFlags: (underlay) => this.peers.flagsOf(underlay),
      modeOf: (device) =>
        [...options.state.state.xdp, ...this.context.config.xdp].includes(device) ? "xdp" : "tc",
      espOf: (underlay) => this.security.espOf(underlay),
      vnetGroups: () => groupsOf(this.vnets.list().map(({ config }) => config)),
      inFragments: (underlay, message, source) => this.varp.onFragments(underlay, message, source),
    });
    const { vnets, underlays } = this;
    this.peers = new Peers(this.context, {
      underlays,
      heardHosts: () => this.hellos.heardHosts(),
      unicastMembers: () => this.hellos.unicastMembers(),
      ask: (underlay, peer) => this.hellos.ask(underlay, peer),
      appeared: (addresses) => this.hellos.peersAppeared(addresses),
      gone: (address) => this.security.peerGone(address),
      waysChanged: () => this.hellos.waysChanged(),
      persist: (peers) => this.keepPeers(peers),
    });
    const { peers } = this;
    this.security = new Security(this.context, {
      vnets,
      underlays,
      peers,
      hello: (vnet, kind, underlay) => this.hellos.helloOf(vnet, kind, underlay),
      membersOf: (handle) => this.hellos.membersOf(handle),
      ownId: (hello, underlay, source) => this.hellos.onOwnId(hello, underlay, source),
      rotated: (id) => this.rotation.finish(id),
    });
    const { security } = this;
    this.rotation = new KeyRotation({
      context: this.context,
      vnets,
      persist: (change) => this.persist(change),
      changed: (vnet) => {
        security.keysChanged(vnet);
        this.hellos.vnetAppeared(vnet);
      },
      evict: (vnet) => security.evict(vnet),
    });
    this.hellos = new Hellos(this.context, {
      ...{ vnets, underlays, peers, security },
      memberSaid: (vnet, groups) => this.groups.memberSaid(vnet, groups),
    });
    const { hellos } = this;
    this.groups = new VnetGroups(this.context, {
      vnets,
      membersOf: (handle) => hellos.membersOf(handle),
      isDirect: (member) => hellos.isDirect(member),
      hearsUnknown: (handle) => hellos.readers.hearsUnknown(handle),
      join: () => underlays.sync(),
      sayHello: (vnet) => hellos.sayVnet(vnet),
    });
    const announce = (handle: number, mac: Mac): void => this.varp.announce(handle, mac);
    this.directPorts = new DirectPorts(this.context, {
      vnets,
      configured: () => options.state.state.ports,
      isUnderlay: (device) => underlays.names().includes(device),
    });
    const { directPorts } = this;
    this.ports = new Ports(this.context, {
      vnets,
      directPorts,
      ask: (vnet, mac) => this.varp.ask(vnet, mac),
      announce,
    });
    this.troubles = new Troubles(this.context, {
      vnets,
      underlays,
      hellos,
      heardHere: (vnet, mac, sinceMs) => this.varp.heardHere(vnet, mac, sinceMs),
      announce,
    });
    const { troubles } = this;
    this.asks = new Asks(this.context);
    this.varp = new VarpService(this.context, {
      vnets,
      underlays,
      hellos,
      ports: this.ports,
      troubles,
      peers,
      security,
      asks: this.asks,
      localNew: (vnet, mac) => this.statics.cameBack(vnet, mac),
    });
    this.statics = new StaticEntries(this.context, {
      vnets,
      underlays,
      state: options.state,
      announce,
    });
    this.watch = new Watch(this.context, { vnets });
    this.helpers = new Helpers(this.context);
    const { helpers } = this;
    this.hookWatch = new HookWatch(this.context, {
      ...{ vnets, directPorts, underlays, security, helpers },
    });
    this.looks = new Looks({
      everything: (isRegular) => this.followDevices(isRegular),
      hooks: () => this.hookWatch.checkRegularly(),
      staticEntries: () => this.statics.apply(),
      isAmiss: () => this.isAmiss(),
      guarded: (what, step) => this.guarded(what, step),
    });
    const problems = (): string[] => this.moreProblems.flatMap((each) => each());
    const { bpffs } = options;
    this.views = new Views(this.context, {
      vnets,
      underlays,
      hellos,
      peers,
      bpffs,
      startedMs: nowMs(),
      directPorts,
      portOf: (handle, mac) => this.ports.deviceOf(handle, mac),
      secure: () => security.summary(),
      problems,
    });
    const { context, state, views } = this;
    const of = {
      context,
      state,
      vnets,
      directPorts,
      underlays,
      hellos,
      peers,
      security,
      troubles,
      views,
    };
    this.metrics = new MetricsView(of);
  }

  get state(): StateDirectory {
    return this.options.state;
  }

  get bpffs(): string {
    return this.options.bpffs;
  }

  addProblems(each: () => string[]): void {
    this.moreProblems.push(each);
  }

  /** Why vnets of this host reach no other host now, or nothing. */
  notReady(): string[] {
    if (this.underlays.usable().length > 0) return [];
    const why = this.underlays.problems();
    return why.length > 0 ? why : ["no device is attached"];
  }

  start(): void {
    const { native, maps, control, log, generation } = this.context;
    this.closables.push(native.netlinkMonitor((event) => this.onNetlink(event)));
    adoptLinks(generation);
    this.addProblems(() => this.troubles.problems());
    this.addProblems(() => this.groups.problems());
    this.addProblems(() => this.security.problems());
    this.addProblems(() => this.directPorts.problems());
    this.addProblems(() => this.helpers.problems());
    this.addProblems(() => this.hookWatch.problems());
    for (const text of this.keptLimits().values()) log.say("limit_kept", text);
    this.addProblems(() => [...this.keptLimits().values()]);
    this.helpers.ensure();
    this.vnets.reconcile(this.wantedVnets());
    this.peers.load(structuredClone(this.state.state.peers) as PeerConfig[]);
    this.underlays.reconcile(this.wantedDevices());
    this.security.start();
    this.peers.sync();
    this.portsChanged();
    this.ports.forgetGone();
    this.statics.removeOrphans();
    this.statics.apply();
    this.addProblems(() => this.statics.problems());
    this.hookWatch.sweep();
    for (const other of generation.others) {
      removeGeneration(other.dir);
      log.say("maps_removed", `removed the maps of layout ${String(other.layout)}`);
    }
    const started = control.startSweeper();
    if (started !== "ok")
      log.say("sweeper_down", `the sweeper does not run: ${started}`, { reason: started });
    this.closables.push(
      native.ringConsume(maps.fd("control"), (record) => {
        this.guarded("a message", () => {
          if (!this.troubles.onRecord(record)) this.varp.onControl(record);
        });
      }),
    );
    this.closables.push(
      native.ringConsume(maps.fd("events"), (record) => {
        this.guarded("an event", () => {
          this.watch.onEvent(record);
          if (!this.troubles.onRecord(record)) this.varp.onEvent(record);
        });
      }),
    );
    this.hellos.forgetMembers();
    this.groups.follow();
    for (const vnet of this.vnets.running()) this.hellos.vnetAppeared(vnet);
    this.hookWatch.start();
    this.tickTimer = setInterval(() => this.tick(), tickMs);
  }

  /** Lets go of everything that needs a process; the rest goes on. */
  stop(): void {
    clearInterval(this.tickTimer);
    this.looks.close();
    this.hookWatch.close();
    for (const closable of this.closables.splice(0)) closable.close();
    this.watch.close();
    this.ports.close();
    this.varp.close();
    this.security.stop();
    this.peers.close();
    this.underlays.close();
  }

  /** What names stood for, so that they stand for it after a restart: a convenience. */
  private keepPeers(peers: readonly PeerConfig[]): void {
    if (JSON.stringify(peers) === JSON.stringify(this.state.state.peers)) return;
    try {
      this.persist((draft) => (draft.peers = structuredClone(peers) as PeerConfig[]));
    } catch (error) {
      this.context.log.say("peers_not_stored", `peers: ${String(error)}`);
    }
  }

  /** A vnet came: it is persisted or taken away again. */
  persist(
    change: Parameters<StateDirectory["update"]>[0],
    undo: () => void = () => undefined,
  ): void {
    try {
      this.state.update(change);
    } catch (error) {
      undo();
      throw error;
    }
  }

  appeared(made: readonly RunningVnet[]): void {
    this.security.sync();
    this.groups.follow();
    for (const vnet of made) this.hellos.vnetAppeared(vnet);
    this.portsChanged();
    this.statics.apply();
  }

  /** Bridges' ports and direct ones, as the devices are. */
  portsChanged(links = this.context.native.linkList()): void {
    this.directPorts.sync(links);
    this.ports.follow(links);
  }

  /** A vnet goes: the others are told, and nothing of it is kept. */
  leaves(vnet: RunningVnet): void {
    this.hellos.vnetLeaves(vnet);
    this.varp.vnetGone(vnet.handle);
    this.security.vnetGone(vnet);
  }

  /** The configuration wants the daemon's own vnets, or no longer. */
  followBuiltIns(): void {
    const wanted = this.wantedVnets();
    for (const { config, builtIn, running } of this.vnets.list()) {
      if (!builtIn || wanted.some(({ config: { id } }) => id === config.id)) continue;
      if (running !== undefined) this.leaves(running);
      this.vnets.delete(config.id);
    }
    this.security.sync();
    this.appeared(this.vnets.addBuiltIns(wanted));
  }

  // ---- start

  /** Maps that are pinned keep the size that they were made with. By key of the configuration. */
  keptLimits(): Map<string, string> {
    const { maps, config, generation } = this.context;
    const sizes: [string, number, number][] = [
      ["entries", config.limits.entries, maps.maxEntries("fdb")],
      ["hosts", config.limits.hosts, maps.maxEntries("nexthops")],
      ["neighbours", config.limits.neighbours, maps.maxEntries("neighbours")],
    ];
    const texts = sizes.flatMap(([name, wanted, actual]): [string, string][] =>
      wanted === actual
        ? []
        : [
            [
              `limits.${name}`,
              `limits.${name} is ${String(wanted)}, and the maps were made with ${String(actual)}, which they keep; ` +
                "to have new maps (vnets stand still meanwhile, counters begin anew): " +
                `stop the daemon, rm -r ${generation.dir}, start it`,
            ],
          ],
    );
    return new Map(texts);
  }

  private wantedVnets(): { config: VnetConfig; builtIn: boolean }[] {
    const { vnets, deletedBuiltIns } = this.state.state;
    const configured = vnets.map((config) => ({ config: { ...config }, builtIn: false }));
    if (!this.context.config.defaultVnets) return configured;
    const taken = new Set([...vnets.map(({ id }) => id), ...deletedBuiltIns]);
    return [...configured, ...builtInIds.filter((id) => !taken.has(id)).map(builtInVnet)];
  }

  private wantedDevices(): string[] {
    return [...new Set([...this.state.state.attached, ...this.context.config.attach])];
  }

  // ---- events

  private onNetlink(event: NetlinkEvent): void {
    if (event.type === "tc") return this.hookWatch.changed(event.ifindex);
    this.guarded("a bridge's port", () => this.tellPorts(event));
    if (event.type !== "address" && event.type !== "link") this.varp.bridgesChanged();
    this.looks.told(event);
  }

  private tellPorts(event: NetlinkEvent): void {
    if (event.type === "link") this.ports.link(event.link);
    if (event.type === "link-deleted") this.ports.linkDeleted(event.ifindex);
    if (event.type === "bridge-fdb-deleted") this.ports.fdbDeleted(event.entry);
    if (event.type === "overrun") this.lostNews = true;
  }

  private followDevices(isRegular: boolean): void {
    if (isRegular) this.hookWatch.checkRegularly();
    else this.hookWatch.check();
    if (isRegular) this.helpers.ensure();
    const links = this.context.native.linkList();
    this.underlays.sync(links);
    this.security.sync();
    this.peers.devicesChanged();
    this.vnets.followLinks(links);
    const repaired = this.vnets.repair(links, isRegular);
    if (repaired.length > 0) this.appeared(repaired);
    this.portsChanged(repaired.length > 0 ? this.context.native.linkList() : links);
    this.hookWatch.sweep();
  }

  private tick(): void {
    this.guarded("hello", () => this.hellos.tick());
    this.guarded("VARP", () => this.varp.tick());
    this.guarded("groups of vnets", () => this.groups.tick());
    // at most once a second: a flood of new MACs overruns the kernel's news again and again
    if (this.lostNews) {
      this.guarded("lost news", () => this.ports.forgetGone());
      this.guarded("lost news", () => this.hookWatch.checkAll());
    }
    this.lostNews = false;
    this.guarded("silent guests", () => this.ports.tick());
    this.guarded("storms and loops", () => this.troubles.tick());
    this.guarded("peers", () => this.peers.tick());
    this.guarded("merging", () => this.underlays.sampleMerge());
    this.looks.tick();
  }

  /** What may be mended without the kernel telling of what was in the way: a file, a port that somebody had. */
  private isAmiss(): boolean {
    const parts = [this.underlays, this.helpers, this.directPorts];
    return !this.vnets.areAllWell() || parts.some((part) => part.problems().length > 0);
  }

  /** A fault in one part must not end the daemon, nor the other parts. */
  private guarded(what: string, step: () => void): void {
    try {
      step();
    } catch (error) {
      this.context.log.say("step_failed", kernelError(what, error).message);
    }
  }
}

function builtInVnet(id: VnetId): { config: VnetConfig; builtIn: boolean } {
  return {
    config: {
      id,
      bridge: null,
      vnetif: defaultVnetifName(id),
      security: "none",
      key: null,
      suite: null,
      encapsulation: null,
    },
    builtIn: true,
  };
}

export function isBuiltInId(id: VnetId): boolean {
  return builtInIds.includes(id);
}
