// SPDX-License-Identifier: Apache-2.0
/**
 * Hellos of several vnets in one message: what is to be said within a few milliseconds to the same hosts is said at
 * once. Only what may be said in lists gets here (src/controller/list-readers.ts).
 *
 *   add() -> waits gatherMs -> flush() -> to the group and the peers, or to the one host that is answered
 */
import { macToBytes } from "../base/mac.js";
import { groupsText, type VnetGroups } from "../base/vnet-group.js";
import { vnetIdToBytes } from "../base/vnet-id.js";
import { vnetsThatFit, withVnets } from "../wire/varp-list.js";
import type { HelloKind } from "./hellos.js";
import type { Peers } from "./peers.js";
import type { Underlay } from "./underlays.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export const gatherMs = 5;
/** hosts that are answered at the same time, at most; others are answered one by one */
const maxWaiting = 4096;

/** What is said to whom; the vnets are what differs. */
interface Saying {
  kind: HelloKind;
  underlay: Underlay;
  /** an address; undefined: to all */
  to?: string;
}

export interface HelloListsParts {
  vnets: Pick<Vnets, "byHandle">;
  peers: Pick<Peers, "toAll">;
  /** of its own; vnets with others are not said together */
  groupsOf: (vnet: RunningVnet) => VnetGroups;
  hello: (vnet: RunningVnet, kind: HelloKind, underlay: Underlay) => Buffer | undefined;
}

export class HelloLists {
  private readonly waiting = new Map<string, Saying & { handles: Set<number> }>();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly parts: HelloListsParts) {}

  /** Whether one that is said to whom this would be waits already. */
  has(saying: Saying, vnet: RunningVnet): boolean {
    return this.waiting.has(this.keyOf(saying, vnet));
  }

  get isFull(): boolean {
    return this.waiting.size >= maxWaiting;
  }

  add(saying: Saying, vnet: RunningVnet): void {
    const key = this.keyOf(saying, vnet);
    const waiting = this.waiting.get(key) ?? { ...saying, handles: new Set<number>() };
    waiting.handles.add(vnet.handle);
    this.waiting.set(key, waiting);
    this.timer ??= setTimeout(() => this.flush(), gatherMs);
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const all = [...this.waiting.values()];
    this.waiting.clear();
    for (const each of all) this.say(each, [...each.handles]);
  }

  close(): void {
    clearTimeout(this.timer);
    this.waiting.clear();
  }

  private say({ kind, underlay, to }: Saying, handles: readonly number[]): void {
    const byHandle = this.parts.vnets.byHandle();
    let vnets = handles.flatMap((handle) => byHandle.get(handle) ?? []);
    for (let head = vnets[0]; head !== undefined; head = vnets[0]) {
      const message = this.parts.hello(head, kind, underlay);
      if (message === undefined) return;
      const also = vnets.slice(1, 1 + vnetsThatFit(message));
      vnets = vnets.slice(1 + also.length);
      const entries = also.map(({ id, vmac }) => ({
        vnet: vnetIdToBytes(id),
        vmac: macToBytes(vmac),
      }));
      const list = withVnets(message, entries);
      if (to === undefined)
        this.parts.peers.toAll(underlay, list, { handle: head.handle, isHello: true });
      else underlay.socket?.send(list, to);
    }
  }

  private keyOf({ kind, underlay, to }: Saying, vnet: RunningVnet): string {
    const { ifindex, family } = underlay;
    const groups = groupsText(this.parts.groupsOf(vnet));
    return `${kind} ${String(ifindex)} ${String(family)} ${to ?? ""} ${groups}`;
  }
}
