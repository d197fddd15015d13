// SPDX-License-Identifier: Apache-2.0
/**
 * When a vnet has changed its secret: on this host, as far as it knows the others. Pure.
 *
 * The old secret is taken until every host that is known says that it has the new one, and has no traffic keys of the old
 * one any more; and not given up before all that are there can have said so. Each host decides for itself: who
 * gives it up first has agreed with all others by the new one.
 */
export interface RotationHost {
  /** by name and address, for people */
  name: string;
  /** of the secrets that it said it takes when it was heard last */
  keyIds: readonly string[];
  /** of the secret that the traffic keys with it came of; undefined: there are none */
  current: string | undefined;
}

/** Those who have not moved to the secret with this id, or with whom there are keys of another. */
export function notMoved<Host extends Omit<RotationHost, "name">>(
  keyId: string,
  hosts: readonly Host[],
): Host[] {
  return hosts.filter(
    ({ keyIds, current }) =>
      !keyIds.includes(keyId) || (current !== undefined && current !== keyId),
  );
}

/** For one vnet: since when it is waited for the others. */
export class RotationClock {
  private sinceMs: number | undefined;

  /** `patienceMs`: within that, every host that is there has said hello. */
  constructor(private readonly patienceMs: number) {}

  /** Whether the old secret can go. To be asked again and again while there is one. */
  isOver(keyId: string, hosts: readonly RotationHost[], nowMs: number): boolean {
    this.sinceMs ??= nowMs;
    return nowMs - this.sinceMs >= this.patienceMs && notMoved(keyId, hosts).length === 0;
  }
}
