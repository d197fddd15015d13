// SPDX-License-Identifier: Apache-2.0
/** Hosts that forward to this one and are no peers of it: what they sent inside VFWD was dropped. Bounded. */

const maxStrangers = 64;

export class StrangerPeers {
  /** address -> when it was heard last */
  private readonly heardAtMs = new Map<string, number>();

  heard(address: string, nowMs: number): void {
    if (!this.heardAtMs.has(address) && this.heardAtMs.size >= maxStrangers) return;
    this.heardAtMs.set(address, nowMs);
  }

  /** Those that were heard within `keptMs`, and are not known by now. */
  problems(known: ReadonlySet<string>, keptMs: number, nowMs: number): string[] {
    for (const [address, atMs] of [...this.heardAtMs]) {
      if (nowMs - atMs > keptMs || known.has(address)) this.heardAtMs.delete(address);
    }
    return [...this.heardAtMs.keys()].map(
      (address) =>
        `${address} forwards to this host and is no peer of it: vnetd peer-add ${address}, or delete the peer there`,
    );
  }
}
