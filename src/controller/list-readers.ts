// SPDX-License-Identifier: Apache-2.0
/**
 * Whether what is said of a vnet to the group may be said in a list (src/wire/varp-list.ts): all who must hear it read
 * lists, as far as can be known. In doubt it is said one by one, as originals and older hosts want it.
 *
 * A vnet's messages are lists when hosts of ours are in it, all of them say that they read lists, and no host of an unknown
 * kind was heard in any vnet here: an original does not say what it is. Not when a member is sent group traffic by
 * unicast, since that is a matter of each vnet; and not of a secure vnet, whose messages are each vouched for.
 * Who was never heard has said nothing that others could have an old place for.
 */
import { addressToText } from "../base/address.js";
import { vnetdCapability, vnetdNexthopFlags } from "../generated/layouts.js";
import { nowNs } from "../dataplane/tables.js";
import type { Member } from "../varp/members.js";
import { nowMs, type Context } from "./context.js";
import type { Peers } from "./peers.js";
import type { Underlays } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export interface ListReadersParts {
  vnets: Pick<Vnets, "byHandle">;
  underlays: Pick<Underlays, "usable">;
  peers: Pick<Peers, "usesUnicast" | "hasUnknown">;
  members: () => Member[];
  membersOf: (handle: number) => Member[];
}

/** An original that was not heard for so long has no guests that others speak to. */
const unknownKeptNs = 600_000_000_000n;
const knownForMs = 1000;
/** The table of hosts is read at most so often, and for no more than this part of the time. */
const lookEveryMs = 2000;
const lookShare = 200;

export class ListReaders {
  private readonly known = new Map<number, { reads: boolean; atMs: number }>();
  /** vnets in which a host of an unknown kind was heard, by handle */
  private look: { unknown: ReadonlySet<number>; nextMs: number } | undefined;

  constructor(
    private readonly context: Context,
    private readonly parts: ListReadersParts,
  ) {}

  reads(vnet: RunningVnet): boolean {
    const now = nowMs();
    const known = this.known.get(vnet.handle);
    if (known !== undefined && now - known.atMs < knownForMs) return known.reads;
    const reads = this.allRead(vnet) && this.unknownIn(now).size === 0;
    this.known.set(vnet.handle, { reads, atMs: now });
    return reads;
  }

  /** Members came, went, or say something else. */
  membersChanged(): void {
    this.known.clear();
  }

  private allRead(vnet: RunningVnet): boolean {
    if (vnet.secure !== undefined) return false;
    const { underlays, peers } = this.parts;
    if (underlays.usable().some((each) => peers.usesUnicast(each)) || peers.hasUnknown())
      return false;
    const { CAP_LISTS, CAP_UNICAST } = vnetdCapability;
    const paths = this.parts.membersOf(vnet.handle).flatMap((member) => member.paths);
    const reads = (capabilities: number): boolean =>
      (capabilities & (CAP_LISTS | CAP_UNICAST)) === CAP_LISTS;
    return paths.length > 0 && paths.every(({ capabilities }) => reads(capabilities));
  }

  /** Whether a host of an unknown kind was heard in a vnet. */
  hearsUnknown(handle: number): boolean {
    return this.unknownIn(nowMs()).has(handle);
  }

  private unknownIn(now: number): ReadonlySet<number> {
    if (this.look !== undefined && now < this.look.nextMs) return this.look.unknown;
    const unknown = this.lookForUnknown();
    const tookMs = nowMs() - now;
    this.look = { unknown, nextMs: now + Math.max(lookEveryMs, lookShare * tookMs) };
    return unknown;
  }

  /** A host whose frames or announces were taken, and that never said hello. */
  private lookForUnknown(): Set<number> {
    const found = new Set<number>();
    const { NEXTHOP_USED, NEXTHOP_MEMBER } = vnetdNexthopFlags;
    const said = new Set(
      this.parts.members().flatMap(({ paths }) => paths.map(({ address }) => address)),
    );
    const vnets = this.parts.vnets.byHandle();
    const now = nowNs();
    for (const { key, flags, host, heardNs } of this.context.maps.nexthops().values()) {
      if ((flags & (NEXTHOP_USED | NEXTHOP_MEMBER)) !== NEXTHOP_USED) continue;
      const vnet = vnets.get(key.handle);
      if (vnet === undefined || vnet.secure !== undefined) continue;
      const saidHelloOnce = host.some((byte) => byte !== 0);
      const isOld = heardNs !== 0n && now - heardNs > unknownKeptNs;
      if (!saidHelloOnce && !isOld && !said.has(addressToText(key.addr))) found.add(key.handle);
    }
    return found;
  }
}
