// SPDX-License-Identifier: Apache-2.0
/**
 * Direct ports: guests' devices that belong to a vnet without a bridge (bpf/port.bpf.c).
 *
 * What is configured is a vnet and a device's name. sync() makes the maps and hooks be what that means just now: a
 * device that goes, because its guest stops or moves, takes its port along, and one of the same name that comes is
 * the port again. What was learned behind a port that is gone is forgotten at once.
 *
 * The order is what makes a crash at any instant harmless: a device is known before frames go to it, and is
 * hooked last; the other way round when it goes.
 */
import type { PortInfo } from "../api/contract.js";
import { VnetdError } from "../base/errors.js";
import { macToBytes } from "../base/mac.js";
import { shortVnetId, type VnetId } from "../base/vnet-id.js";
import { DirectMaps } from "../dataplane/direct-maps.js";
import type { Hook } from "../dataplane/hooks.js";
import { localEntries } from "../dataplane/tables.js";
import {
  vnetdControlOp,
  vnetdDirectFlags,
  vnetdLimits,
  type VnetdDirectPort,
} from "../generated/layouts.js";
import { kernel, kernelError } from "../host/errno.js";
import { isHelperAlias, vnetOfAlias } from "../host/names.js";
import type { LinkInfo } from "../native/contract.js";
import type { StoredPort } from "../store/stored-ports.js";
import { programOf, type Context } from "./context.js";
import type { RunningVnet, Vnets } from "./vnets.js";

const program = "vnetd_port";

export interface DirectPortsParts {
  vnets: Vnets;
  configured: () => readonly StoredPort[];
  isUnderlay: (device: string) => boolean;
}

/** A configured port whose device is there. */
interface Running {
  config: StoredPort;
  link: LinkInfo;
  record: VnetdDirectPort;
}

export class DirectPorts {
  private readonly maps: DirectMaps;
  /** by ifindex */
  private running = new Map<number, Running>();
  /** why a port that is configured is none, by device */
  private readonly failures = new Map<string, string>();

  constructor(
    private readonly context: Context,
    private readonly parts: DirectPortsParts,
  ) {
    this.maps = new DirectMaps(context.native, context.maps);
  }

  // ---- what others ask

  /** Those that must be there. */
  hooked(): (Hook & { device: string; program: string })[] {
    return [...this.running.values()].map(({ link: { ifindex, name: device } }) => {
      return { ifindex, device, direction: "ingress", program };
    });
  }

  /** The vnet that a device is a port of just now. */
  handleOf(ifindex: number): number | undefined {
    return this.running.get(ifindex)?.record.handle;
  }

  nameOf(ifindex: number): string | undefined {
    return this.running.get(ifindex)?.link.name;
  }

  /** How many ports a vnet has that are there. */
  countOf(handle: number): number {
    return [...this.running.values()].filter(({ record }) => record.handle === handle).length;
  }

  problems(): string[] {
    return [...this.failures].map(([device, why]) => `port ${device}: ${why}`);
  }

  list(id?: VnetId): PortInfo[] {
    const vnets = this.parts.vnets.byHandle();
    const macs = new Map<number, number>();
    for (const { port } of localEntries(this.context.maps, vnets))
      if (port !== 0) macs.set(port, (macs.get(port) ?? 0) + 1);
    const byDevice = new Map([...this.running.values()].map((each) => [each.config.device, each]));
    return this.parts
      .configured()
      .filter(({ vnet }) => id === undefined || vnet === id)
      .map((config) => {
        const there = byDevice.get(config.device);
        const problem = this.failures.get(config.device) ?? "";
        const { vnet, device } = config;
        if (there === undefined) {
          const state = problem === "" ? "absent" : "refused";
          return { vnet, device, state, direct: false, macs: 0, problem };
        }
        const { link, record } = there;
        const direct = (record.flags & vnetdDirectFlags.DIRECT_PEER) !== 0;
        const state = link.up && link.carrier ? "up" : "down";
        return { vnet, device, state, direct, macs: macs.get(link.ifindex) ?? 0, problem };
      });
  }

  // ---- changes

  /** Throws for what stands against it; changes nothing. */
  check({ vnet, device }: StoredPort): void {
    this.parts.vnets.find(vnet);
    const configured = this.parts.configured();
    const before = configured.find((each) => each.device === device);
    if (before !== undefined && before.vnet !== vnet) {
      throw new VnetdError("NAME_IN_USE", `${device} is a port of vnet ${before.vnet}`, {
        hint: `Take it from there first: vnetd port-delete ${shortVnetId(before.vnet)} ${device}`,
      });
    }
    const { MAX_VNET_PORTS: most } = vnetdLimits;
    const ofVnet = configured.filter((each) => each.vnet === vnet).length;
    if (before === undefined && ofVnet >= most) {
      throw new VnetdError("PORT_LIMIT", `vnet ${vnet} has ${String(most)} ports, which is all`, {
        hint: "Put further guests on its bridge.",
      });
    }
    if (before === undefined && configured.length >= vnetdLimits.MAX_DIRECT_PORTS)
      throw new VnetdError("PORT_LIMIT", "no more ports fit");
    const link = this.context.native.linkGet(device);
    if (link === undefined) {
      throw new VnetdError("DEVICE_NOT_FOUND", `there is no device ${device}`, {
        hint: "A port is the host's end of a guest's veth, or its tap: `ip link` lists them.",
      });
    }
    const why = this.unsuitable(link);
    if (why === undefined) return;
    throw new VnetdError("DEVICE_UNSUITABLE", `${device} cannot be a port: ${why}`, {
      hint: "A port is the host's end of a guest's veth, or its tap, that is on no bridge.",
    });
  }

  /** Why a device cannot be a port. */
  private unsuitable(link: LinkInfo): string | undefined {
    if (link.loopback) return "it is the loopback device";
    if (vnetOfAlias(link.alias) !== undefined || isHelperAlias(link.alias))
      return "it is one of vnetd's own";
    if (this.parts.isUnderlay(link.name)) return "it is attached: it carries vnets";
    if (link.master !== 0) return "it is a port of a bridge or bond";
    if (link.kind === "bridge") return "it is a bridge";
    return link.mac === "" ? "it carries no Ethernet frames" : undefined;
  }

  /** Makes maps and hooks be what is configured, with the devices that there are. */
  sync(links: readonly LinkInfo[]): void {
    const configured = this.parts.configured();
    const entered = this.maps.ports();
    this.failures.clear();
    if (configured.length === 0 && entered.size === 0) return;
    const wanted = this.wanted(configured, links);
    for (const ifindex of entered.keys()) if (!wanted.has(ifindex)) this.unhook(ifindex);
    for (const [ifindex, { record }] of wanted) {
      const before = entered.get(ifindex);
      if (before === undefined || !sameRecord(before, record)) this.maps.setPort(ifindex, record);
    }
    this.setLists(wanted, entered);
    for (const [ifindex, { handle }] of entered) {
      if (wanted.get(ifindex)?.record.handle === handle) continue;
      if (!wanted.has(ifindex)) this.maps.deletePort(ifindex);
      this.forget(ifindex, handle);
    }
    const before = this.running;
    this.running = new Map();
    for (const [ifindex, port] of wanted)
      if (this.bringUp(port, before.get(ifindex))) this.running.set(ifindex, port);
  }

  private wanted(
    configured: readonly StoredPort[],
    links: readonly LinkInfo[],
  ): Map<number, Running> {
    const byName = new Map(links.map((link) => [link.name, link]));
    const wanted = new Map<number, Running>();
    for (const config of configured) {
      const vnet = this.parts.vnets.get(config.vnet)?.running;
      const link = byName.get(config.device);
      if (vnet === undefined || link === undefined) continue;
      const why = this.unsuitable(link);
      if (why === undefined)
        wanted.set(link.ifindex, { config, link, record: recordOf(vnet, link) });
      else this.failures.set(config.device, why);
    }
    return wanted;
  }

  /** The vnets' lists, and the flag that makes programs look at them. */
  private setLists(
    wanted: ReadonlyMap<number, Running>,
    entered: ReadonlyMap<number, VnetdDirectPort>,
  ): void {
    const places = [...entered.values(), ...[...wanted.values()].map(({ record }) => record)];
    const vnets = new Map(places.map(({ slot, handle }) => [handle, { slot, handle }]));
    for (const [handle, place] of vnets) {
      const ports = [...wanted].filter(([, { record }]) => record.handle === handle);
      const ifindexes = ports.map(([ifindex]) => ifindex);
      if (ifindexes.length === 0) this.context.table.setPorts(place, false);
      this.maps.setList(handle, ifindexes);
      if (ifindexes.length > 0) this.context.table.setPorts(place, true);
    }
  }

  private bringUp({ config, link }: Running, before: Running | undefined): boolean {
    const { native, hooks, log } = this.context;
    const { vnet, device } = config;
    const { ifindex } = link;
    try {
      if (before === undefined) {
        kernel(`hooking ${device}`, () =>
          hooks.ensure({ ifindex, direction: "ingress" }, programOf(this.context, program)),
        );
        log.say("port_up", `vnet ${vnet}: ${device} is a port of it`, { vnet, device });
      }
      if (!link.up) {
        // no addresses of the host's own: what they say would go to the guest alone
        native.linkSet(ifindex, { noIpv6LinkLocal: true });
        native.linkSet(ifindex, { up: true });
      }
      return true;
    } catch (error) {
      this.failures.set(device, kernelError("setting it up", error).message);
      return false;
    }
  }

  private unhook(ifindex: number): void {
    const { hooks, log } = this.context;
    try {
      hooks.remove({ ifindex, direction: "ingress" });
    } catch (error) {
      log.say("cleanup_failed", kernelError("unhooking a port", error).message);
    }
  }

  /** What was learned behind it. */
  private forget(ifindex: number, handle: number): void {
    const { maps, control, log } = this.context;
    const known = this.running.get(ifindex)?.config;
    if (known !== undefined) {
      const { vnet, device } = known;
      log.say("port_gone", `vnet ${vnet}: ${device} is a port of it no more`, { vnet, device });
    }
    const vnet = this.parts.vnets.byHandle().get(handle);
    if (vnet === undefined) return;
    const op = vnetdControlOp.CTL_FORGET_LOCAL;
    for (const { vmac, port, state } of localEntries(maps, new Map([[handle, vnet]])))
      if (port === ifindex && state === "learned")
        control.run({ op, slot: vnet.slot, handle, mac: macToBytes(vmac) });
  }
}

function recordOf({ slot, handle }: RunningVnet, link: LinkInfo): VnetdDirectPort {
  const isElsewhere = link.kind === "veth" && link.linkNetnsId !== undefined;
  return { slot, handle, flags: isElsewhere ? vnetdDirectFlags.DIRECT_PEER : 0 };
}

function sameRecord(a: VnetdDirectPort, b: VnetdDirectPort): boolean {
  return a.slot === b.slot && a.handle === b.handle && a.flags === b.flags;
}
