// SPDX-License-Identifier: Apache-2.0
/** The vnets of this host that change their secret: who has not moved, and when they have (src/keys/rotation.ts). */
import { RotationClock, notMoved, type RotationHost } from "../../keys/rotation.js";
import type { SecureVnet } from "./secure-vnet.js";

/** hosts in one line for people */
const maxNamed = 5;

export class Rotations {
  /** by handle */
  private readonly clocks = new Map<number, RotationClock>();

  constructor(
    private readonly parts: {
      /** within that, every host that is there has said hello */
      patienceMs: () => number;
      isMember: (handle: number, hostId: string) => boolean;
    },
  ) {}

  /** Whether the vnet has an old key that nobody needs any more. To be asked again and again. */
  isOver(secure: SecureVnet, nowMs: number): boolean {
    const { handle } = secure.vnet;
    const [current, previous] = secure.keys;
    if (current === undefined || previous === undefined) {
      this.clocks.delete(handle);
      return false;
    }
    const clock = this.clocks.get(handle) ?? new RotationClock(this.parts.patienceMs());
    this.clocks.set(handle, clock);
    return clock.isOver(current.id, this.hosts(secure, nowMs), nowMs);
  }

  vnetGone(handle: number): void {
    this.clocks.delete(handle);
  }

  problems(secure: SecureVnet, nowMs: number): string[] {
    const [current, previous] = secure.keys;
    if (current === undefined || previous === undefined) return [];
    const waits = notMoved(current.id, this.hosts(secure, nowMs)).map(({ name }) => name);
    if (waits.length === 0) return [];
    const rest = waits.length > maxNamed ? `, and ${String(waits.length - maxNamed)} more` : "";
    return [
      `vnet ${secure.vnet.id}: changing from key id ${previous.id} to ${current.id}, which these have not: ` +
        `${waits.slice(0, maxNamed).join(", ")}${rest} (vnetd key-rotate there)`,
    ];
  }

  /** Those that there are keys with, and those that are members. */
  private hosts(secure: SecureVnet, nowMs: number): RotationHost[] {
    const { handle } = secure.vnet;
    const known = secure
      .paths()
      .filter(({ host, path }) => path.spiOut !== 0 || this.parts.isMember(handle, host));
    return known.map((each) => ({
      name: each.name === "" ? each.path.ends.peer : `${each.name} (${each.path.ends.peer})`,
      keyIds: each.keyIds,
      current: secure.currentKeys(each, nowMs)?.keyId,
    }));
  }
}
