// SPDX-License-Identifier: Apache-2.0
/**
 * Groups of vnets' own: who is in a vnet and may not hear its group is found out, and as long as there is somebody, what is
 * for all goes to the group that all hosts have. So nothing is lost while hosts are configured one after the other, or
 * otherwise than each other; it is said in `vnetd status` and the log.
 *
 *   a vnet comes, goes, changes -> follow(): the devices join and leave; others are told by a hello
 *   a hello                     -> memberSaid(): does its sender have the same groups?
 *   every second                -> tick(): hosts that say no hello (originals), and those that are gone
 *
 * The record of a vnet says what was found last, and holds while no daemon runs. Own groups are used no earlier than some
 * seconds after a vnet or its group is new here: until then others may not have answered.
 */
import {
  groupsOf,
  groupsText,
  onlyGroups,
  sameGroups,
  type VnetGroups as Groups,
} from "../base/vnet-group.js";
import { shortVnetId } from "../base/vnet-id.js";
import { vnetdVnetFlags } from "../generated/layouts.js";
import type { Member } from "../varp/members.js";
import { nowMs, type Context } from "./context.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export interface VnetGroupsParts {
  vnets: Pick<Vnets, "get" | "running">;
  membersOf: (handle: number) => Member[];
  /** it is sent what is for all by unicast */
  isDirect: (member: Member) => boolean;
  /** a host that never said hello was heard in the vnet */
  hearsUnknown: (handle: number) => boolean;
  /** the devices are to have joined what vnets have, and nothing else */
  join: () => void;
  sayHello: (vnet: RunningVnet) => void;
}

/** hellos that ask are answered by then, and lost ones were sent again (src/varp/hello-schedule.ts) */
const settleMs = 5000;
/** hosts that are named, of each vnet */
const maxNamed = 3;

interface Known {
  groups: Groups;
  /** since when they are these */
  sinceMs: number;
  /** what was said of them last */
  told: string;
}

export class VnetGroups {
  /** by handle */
  private readonly known = new Map<number, Known>();
  private joined = "";

  constructor(
    private readonly context: Context,
    private readonly parts: VnetGroupsParts,
  ) {}

  /** Vnets came, went, or have other groups. */
  follow(): void {
    const running = this.parts.vnets.running();
    const handles = new Set(running.map(({ handle }) => handle));
    for (const handle of this.known.keys()) if (!handles.has(handle)) this.known.delete(handle);
    const changed = running.filter((vnet) => this.isChanged(vnet));
    this.join();
    for (const vnet of changed) this.parts.sayHello(vnet);
    this.tick();
  }

  tick(): void {
    // of the others nothing changes but by a hello
    for (const vnet of this.parts.vnets.running()) {
      const known = this.known.get(vnet.handle);
      if (known !== undefined && (known.told !== "" || !sameGroups(known.groups, {})))
        this.look(vnet);
    }
  }

  /** A host said hello in a vnet, with these groups. One that has ours changes nothing. */
  memberSaid(vnet: RunningVnet, groups: Groups): void {
    const known = this.known.get(vnet.handle);
    if (known === undefined) return;
    if (known.told !== "" || !sameGroups(groups, known.groups)) this.look(vnet);
  }

  private look(vnet: RunningVnet): void {
    const known = this.known.get(vnet.handle);
    if (known === undefined) return;
    this.say(vnet, known);
    const { group, group6 } = known.groups;
    if (group === undefined && group6 === undefined) return;
    const { VNET_GROUP, VNET_GROUP6 } = vnetdVnetFlags;
    const wanted =
      (group === undefined ? 0 : VNET_GROUP) | (group6 === undefined ? 0 : VNET_GROUP6);
    if (this.others(vnet, known).length > 0 || this.parts.hearsUnknown(vnet.handle))
      this.context.table.setGroupFlags(vnet, 0);
    else if (nowMs() - known.sinceMs >= settleMs) this.context.table.setGroupFlags(vnet, wanted);
  }

  problems(): string[] {
    return this.parts.vnets.running().flatMap((vnet) => {
      const known = this.known.get(vnet.handle);
      const text = known === undefined ? "" : this.textOf(vnet, known);
      return text === "" ? [] : [text];
    });
  }

  private join(): void {
    const wanted = groupsOf([...this.known.values()].map(({ groups }) => groups)).join(" ");
    if (wanted === this.joined) return;
    this.joined = wanted;
    this.parts.join();
  }

  /** Its groups are others than before. One that is new says hello by itself. */
  private isChanged(vnet: RunningVnet): boolean {
    const groups = onlyGroups(this.parts.vnets.get(vnet.id)?.config ?? {});
    const before = this.known.get(vnet.handle);
    if (before !== undefined && sameGroups(before.groups, groups)) return false;
    this.known.set(vnet.handle, { groups, sinceMs: nowMs(), told: "" });
    return before !== undefined;
  }

  /** Members that have another group, and hear what is for all by groups alone. */
  private others(vnet: RunningVnet, { groups }: Known): Member[] {
    if (vnet.secure !== undefined) return [];
    return this.parts
      .membersOf(vnet.handle)
      .filter((member) => !sameGroups(member.groups, groups) && !this.parts.isDirect(member));
  }

  private textOf(vnet: RunningVnet, known: Known): string {
    const others = this.others(vnet, known);
    if (others.length === 0) return "";
    const named = others
      .slice(0, maxNamed)
      .map(({ name, primary, groups }) => `${name} (${primary.address}) has ${groupsText(groups)}`);
    const rest = others.length > maxNamed ? `, and ${String(others.length - maxNamed)} more` : "";
    return (
      `vnet ${shortVnetId(vnet.id)}: its group here is ${groupsText(known.groups)}, and ${named.join(", ")}${rest}: ` +
      "until they are the same what is for all goes to the group that all vnets have"
    );
  }

  private say(vnet: RunningVnet, known: Known): void {
    const text = this.textOf(vnet, known);
    if (text === known.told) return;
    known.told = text;
    if (text !== "") this.context.log.say("group_differs", text, { vnet: vnet.id });
  }
}
