// SPDX-License-Identifier: Apache-2.0
/**
 * The peers that stand in the daemon's configuration, among those that were added by command. One that is both belongs
 * to the configuration: it goes when it is taken out there.
 */
import { VnetdError } from "../base/errors.js";
import type { PeerConfig } from "../base/peer.js";
import type { ConfiguredPeer } from "../config/daemon-config.js";
import { vnetdLimits } from "../generated/layouts.js";
import type { PeerTable } from "../varp/peer-table.js";

/** At start: names have the answers that they had before. */
export function withFilePeers(
  stored: readonly PeerConfig[],
  wanted: readonly ConfiguredPeer[],
): PeerConfig[] {
  const answers = new Map(stored.map(({ peer, addresses }) => [peer, addresses]));
  const inFile = new Set(wanted.map(({ peer }) => peer));
  return [
    ...stored.filter(({ peer, fromFile }) => fromFile !== true && !inFile.has(peer)),
    ...wanted.map((each): PeerConfig => ({
      ...each,
      addresses: answers.get(each.peer) ?? [],
      fromFile: true,
    })),
  ];
}

export function followFilePeers(table: PeerTable, wanted: readonly ConfiguredPeer[]): void {
  const known = new Map(table.list().map((config) => [config.peer, config]));
  const inFile = new Set(wanted.map(({ peer }) => peer));
  for (const { peer, fromFile } of known.values())
    if (fromFile === true && !inFile.has(peer)) table.delete(peer);
  for (const { peer, port } of wanted) {
    const now = known.get(peer);
    if (now?.fromFile === true && now.port === port) continue;
    table.add({ peer, port, addresses: now?.addresses ?? [], fromFile: true });
  }
}

/** Throws for what could not be a peer of this host. */
export function checkFilePeers(
  known: readonly PeerConfig[],
  wanted: readonly ConfiguredPeer[],
  own: ReadonlySet<string>,
): void {
  const mine = wanted.find(({ peer }) => own.has(peer));
  if (mine !== undefined) {
    throw new VnetdError("BAD_PEER", `${mine.peer} is an address of this host`, {
      hint: "A peer is another host.",
    });
  }
  const all = new Set(withFilePeers(known, wanted).map(({ peer }) => peer));
  const most = vnetdLimits.MAX_PEERS - 1;
  if (all.size <= most) return;
  throw new VnetdError("PEER_LIMIT", `this host has at most ${String(most)} peers`, {
    hint: "Those that were added by command count too: `vnetd peers` lists all.",
  });
}
