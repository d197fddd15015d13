// SPDX-License-Identifier: Apache-2.0
/**
 * The ports of the vnets' bridges, as far as they tell where a MAC lives.
 *
 *   a port comes   its guest's MAC, where the kernel knows it, is claimed: asked for, and if nobody
 *                  has it entered and announced, so that a guest that says nothing is reached
 *   a port goes    what was learned behind it is forgotten at once: requests for it are answered no
 *                  more, and an announce from elsewhere is believed
 *
 * Which MACs were behind a port is what its bridge says when it deletes them from its own table; that
 * comes before or after the news of the port itself. Configured entries (vif-add) stay.
 */
import { macToBytes, type Mac } from "../base/mac.js";
import { isFresh, isLocal, localEntries, nowNs } from "../dataplane/tables.js";
import { vnetdControlOp, vnetdFdbFlags, type VnetdFdbEntry } from "../generated/layouts.js";
import { guestMacOf } from "../host/guest-mac.js";
import type { BridgeFdbEntry, LinkInfo } from "../native/contract.js";
import type { LocalMac } from "../varp/mac-queue.js";
import { Claims, type DueClaim } from "../varp/claims.js";
import { nowMs, type Context } from "./context.js";
import type { DirectPorts } from "./direct-ports.js";
import type { RunningVnet, Vnets } from "./vnets.js";

/** What a bridge deleted from its table counts as behind the port for so long. */
const latelyMs = 2000;
const maxLately = 16_384;
/** The other end of a veth in another namespace changes without a word. */
const lookAgainMs = 10_000;

export interface PortsParts {
  vnets: Vnets;
  /** ports of vnets without a bridge, whose guests are looked for here as well */
  directPorts: Pick<DirectPorts, "handleOf">;
  /** a VARP request to the group */
  ask: (vnet: RunningVnet, mac: Mac) => void;
  announce: (handle: number, mac: Mac) => void;
}

interface Port {
  link: LinkInfo;
  handle: number;
  /** of its guest, where the kernel knows it */
  mac: Mac | undefined;
  lookedMs: number;
}

interface Lately extends LocalMac {
  port: number;
  atMs: number;
}

export class Ports {
  /** ports that are up, by ifindex */
  private readonly ports = new Map<number, Port>();
  /** the ports' guests, by handle and MAC: the ports that have one */
  private readonly guests = new Map<string, Set<Port>>();
  /** ifindex of a vnet's bridge -> handle */
  private bridges = new Map<number, number>();
  private lately: Lately[] = [];
  private readonly claims = new Claims();
  /** when a MAC that was not heard was last entered, by handle and MAC */
  private readonly assumedNs = new Map<string, bigint>();
  private claimTimer: NodeJS.Timeout | undefined;

  constructor(
    private readonly context: Context,
    private readonly parts: PortsParts,
  ) {}

  close(): void {
    clearTimeout(this.claimTimer);
  }

  // ---- what the kernel says

  /** Takes over what there is: at start, and after each change of devices. */
  follow(links: readonly LinkInfo[]): void {
    this.bridges = new Map(
      this.parts.vnets
        .running()
        .flatMap(({ vnif, handle }) =>
          vnif === undefined || vnif.master === 0 ? [] : [[vnif.master, handle] as const],
        ),
    );
    const there = new Set(links.map(({ ifindex }) => ifindex));
    for (const ifindex of [...this.ports.keys()])
      if (!there.has(ifindex)) this.linkDeleted(ifindex);
    for (const link of links) this.link(link);
  }

  link(link: LinkInfo): void {
    const { ifindex } = link;
    const handle = this.parts.directPorts.handleOf(ifindex) ?? this.bridges.get(link.master);
    const before = this.ports.get(ifindex);
    const isPort =
      handle !== undefined && link.up && link.carrier && !this.isVnetif(handle, ifindex);
    if (before !== undefined && (!isPort || before.handle !== handle)) this.gone(before);
    if (!isPort) return;
    const known = this.ports.get(ifindex);
    if (known !== undefined && sameEnds(known.link, link)) {
      known.link = link;
      return;
    }
    const port = known ?? { link, handle, mac: undefined, lookedMs: 0 };
    port.link = link;
    this.ports.set(ifindex, port);
    this.look(port);
  }

  linkDeleted(ifindex: number): void {
    const port = this.ports.get(ifindex);
    if (port !== undefined) this.gone(port);
  }

  /** A bridge has forgotten a MAC: because its port went, or for another reason. */
  fdbDeleted({ mac, ifindex, master, permanent }: BridgeFdbEntry): void {
    const port = this.ports.get(ifindex);
    const handle = port?.handle ?? this.bridges.get(master);
    if (permanent || handle === undefined || this.isVnetif(handle, ifindex)) return;
    if (port === undefined) return this.forget({ handle, mac });
    const now = nowMs();
    while (this.lately[0] !== undefined && now - this.lately[0].atMs > latelyMs)
      this.lately.shift();
    if (this.lately.length < maxLately) this.lately.push({ port: ifindex, handle, mac, atMs: now });
  }

  /**
   * Forgets what lives behind no port: at start, and when news of the kernel were lost. A bridge
   * remembers longer than vnetd does by default; what it has forgotten is learned with the next frame.
   */
  forgetGone(): void {
    const { maps } = this.context;
    const vnets = this.parts.vnets.byHandle();
    const behind = new Set(
      this.parts.vnets
        .bridgeFdb()
        .filter(({ ifindex, master }) => {
          const handle = this.bridges.get(master);
          return handle !== undefined && !this.isVnetif(handle, ifindex);
        })
        .map(({ master, mac }) => `${String(master)} ${mac}`),
    );
    for (const { handle, vmac, state, port } of localEntries(maps, vnets)) {
      const vnif = vnets.get(handle)?.vnif;
      // what is behind a direct port goes with it
      if (port !== 0) continue;
      if (state !== "learned" || vnif === undefined || vnif.master === 0) continue;
      if (vmac === vnif.mac || behind.has(`${String(vnif.master)} ${vmac}`)) continue;
      if (this.guestPort(handle, vmac) === undefined) this.forget({ handle, mac: vmac });
    }
  }

  // ---- MACs that have said nothing

  /** Whether guests are known by what the kernel says of their ports. */
  get hasGuests(): boolean {
    return this.guests.size > 0;
  }

  /** Another host says that it has the MAC. */
  heardElsewhere(vnet: RunningVnet, mac: Mac): void {
    const of = { handle: vnet.handle, mac };
    if (this.guests.has(keyOf(of))) this.claims.contradicted(of, nowMs());
  }

  /** The device of the port that a guest is behind by what the kernel says. */
  deviceOf(handle: number, mac: Mac): string | undefined {
    return this.guestPort(handle, mac)?.link.name;
  }

  /** Whether a MAC of this host was entered without being heard, and not heard since. */
  isAssumed({ handle }: RunningVnet, mac: Mac, seenNs: bigint): boolean {
    const assumedNs = this.assumedNs.get(keyOf({ handle, mac }));
    return assumedNs !== undefined && seenNs <= assumedNs;
  }

  /** Each second: what is silent is kept alive while its port is there. */
  tick(): void {
    const now = nowMs();
    for (const port of this.ports.values()) {
      if (now - port.lookedMs >= lookAgainMs) this.look(port);
      else this.keep(port);
    }
  }

  private look(port: Port): void {
    port.lookedMs = nowMs();
    this.setGuest(port, this.macOf(port.link));
    this.keep(port);
  }

  /** Claims the port's MAC if it is not here, renews it if it grows old. */
  private keep({ handle, mac }: Port): void {
    const vnet = this.parts.vnets.byHandle().get(handle);
    if (vnet === undefined || mac === undefined || mac === vnet.vmac) return;
    const entry = this.entryOf(vnet, mac);
    if (entry === undefined) {
      if (!this.claims.wanted({ handle, mac }, nowMs())) return;
      this.parts.ask(vnet, mac);
      this.waitForClaims();
      return;
    }
    this.claims.settled({ handle, mac });
    const isConfigured = (entry.flags & vnetdFdbFlags.FDB_STATIC) !== 0;
    const renewNs = (BigInt(this.context.config.ageingSeconds) * 1_000_000_000n) / 3n;
    if (!isConfigured && nowNs() - entry.seenNs > renewNs) this.assume(vnet, mac);
  }

  private waitForClaims(): void {
    const waitMs = this.claims.waitMs(nowMs());
    if (this.claimTimer !== undefined || waitMs === undefined) return;
    this.claimTimer = setTimeout(() => {
      this.claimTimer = undefined;
      for (const claim of this.claims.due(nowMs())) this.claim(claim);
      this.waitForClaims();
    }, waitMs);
  }

  private claim({ handle, mac, askedMs }: DueClaim): void {
    const vnet = this.parts.vnets.byHandle().get(handle);
    if (vnet === undefined || this.guestPort(handle, mac) === undefined) return;
    // meanwhile a frame came, from here or from elsewhere: that is more than we know
    const entry = this.context.maps.fdbEntry({ handle, mac: macToBytes(mac) });
    if (entry !== undefined && entry.seenNs > BigInt(askedMs) * 1_000_000n) return;
    if (this.assume(vnet, mac)) this.parts.announce(handle, mac);
  }

  private assume({ id, slot, handle }: RunningVnet, mac: Mac): boolean {
    const op = vnetdControlOp.CTL_LEARN_LOCAL;
    const gen = this.directOf(handle, mac);
    const reason = this.context.control.run({ op, slot, handle, mac: macToBytes(mac), gen });
    if (reason === "ok") this.assumedNs.set(keyOf({ handle, mac }), nowNs());
    else
      this.context.log.say("silent_refused", `the silent ${mac} was not entered: ${reason}`, {
        ...{ vnet: id, mac, reason },
      });
    return reason === "ok";
  }

  private macOf(link: LinkInfo): Mac | undefined {
    const { native, log } = this.context;
    try {
      return guestMacOf(link, (ifindex, netnsId) => native.linkAt(ifindex, netnsId));
    } catch (error) {
      log.say("guest_unread", `${link.name}: its other end cannot be read: ${String(error)}`, {
        device: link.name,
      });
      return undefined;
    }
  }

  /** The direct port of a guest; 0: it is on the bridge. */
  private directOf(handle: number, mac: Mac): number {
    const ifindex = this.guestPort(handle, mac)?.link.ifindex ?? 0;
    return this.parts.directPorts.handleOf(ifindex) === handle ? ifindex : 0;
  }

  private guestPort(handle: number, mac: Mac): Port | undefined {
    const [port] = this.guests.get(keyOf({ handle, mac })) ?? [];
    return port;
  }

  private setGuest(port: Port, mac: Mac | undefined): void {
    const { handle, mac: before } = port;
    if (before === mac) return;
    port.mac = mac;
    if (mac !== undefined) {
      const key = keyOf({ handle, mac });
      this.guests.set(key, (this.guests.get(key) ?? new Set()).add(port));
    }
    if (before === undefined) return;
    const key = keyOf({ handle, mac: before });
    const others = this.guests.get(key);
    others?.delete(port);
    // another port may have the same guest
    if (others !== undefined && others.size > 0) return;
    this.guests.delete(key);
    this.assumedNs.delete(key);
    this.claims.settled({ handle, mac: before });
    this.forget({ handle, mac: before });
  }

  // ---- MACs whose port is gone

  private gone(port: Port): void {
    const { ifindex } = port.link;
    this.ports.delete(ifindex);
    const behind = this.lately.filter((each) => each.port === ifindex);
    this.lately = this.lately.filter((each) => each.port !== ifindex);
    this.setGuest(port, undefined);
    // unless the guest has another port here
    for (const { handle, mac } of behind)
      if (this.guestPort(handle, mac) === undefined) this.forget({ handle, mac });
  }

  private forget({ handle, mac }: LocalMac): void {
    const vnet = this.parts.vnets.byHandle().get(handle);
    const entry = vnet === undefined ? undefined : this.entryOf(vnet, mac);
    if (vnet === undefined || entry === undefined) return;
    if ((entry.flags & vnetdFdbFlags.FDB_STATIC) !== 0) return;
    const op = vnetdControlOp.CTL_FORGET_LOCAL;
    this.context.control.run({ op, slot: vnet.slot, handle, mac: macToBytes(mac) });
    const text = `vnet ${vnet.id}: ${mac} is here no more, its port is gone`;
    this.context.log.say("silent_gone", text, { vnet: vnet.id, mac });
  }

  // ---- the table

  /** The MAC's entry if it is alive and says that the MAC lives here. */
  private entryOf({ slot, handle }: RunningVnet, mac: Mac): VnetdFdbEntry | undefined {
    const { maps } = this.context;
    const entry = maps.fdbEntry({ handle, mac: macToBytes(mac) });
    const record = maps.vnet(slot);
    if (entry === undefined || record?.handle !== handle) return undefined;
    return isLocal(entry) && isFresh(entry, record, nowNs()) ? entry : undefined;
  }

  private isVnetif(handle: number, ifindex: number): boolean {
    return this.parts.vnets.byHandle().get(handle)?.vnif?.ifindex === ifindex;
  }
}

function sameEnds(a: LinkInfo, b: LinkInfo): boolean {
  return a.mac === b.mac && a.link === b.link && a.linkNetnsId === b.linkNetnsId;
}

function keyOf({ handle, mac }: LocalMac): string {
  return `${String(handle)} ${mac}`;
}
