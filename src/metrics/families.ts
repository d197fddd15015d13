// SPDX-License-Identifier: Apache-2.0
/** The metrics whose values are the kernel's, from a snapshot to text. */
import { kernelMetrics, type KernelMetric } from "./catalogue.js";
import { family, type Add } from "./exposition.js";
import type { ByDirection, NeighbourCounts, Snapshot, VnetCounts } from "./snapshot.js";

type Fill = (snapshot: Snapshot, add: Add) => void;

const flag = (is: boolean): number => (is ? 1 : 0);

function both(add: Add, of: ByDirection, label: string): void {
  add(of.encap, label, "encap");
  add(of.decap, label, "decap");
}

/** For each vnet that has counters. */
const counted =
  (fill: (counts: VnetCounts, add: Add, vnet: string) => void): Fill =>
  ({ vnets }, add) => {
    for (const { id, counts } of vnets) if (counts !== undefined) fill(counts, add, id);
  };

/** For each vnet that suppresses. */
const suppressed =
  (of: (counts: NeighbourCounts) => number): Fill =>
  ({ vnets }, add) => {
    for (const { id, neighbours } of vnets) if (neighbours !== undefined) add(of(neighbours), id);
  };

function refused({ drops }: Snapshot): number {
  return drops.reduce(
    (sum, { reason, frames }) => (reason.startsWith("refused_") ? sum + frames : sum),
    0,
  );
}

const fills: Record<KernelMetric, Fill> = {
  vnetd_vnet_up: ({ vnets }, add) => vnets.forEach(({ id, isUp }) => add(flag(isUp), id)),
  vnetd_vnet_mtu_bytes: ({ vnets }, add) => vnets.forEach(({ id, mtuBytes }) => add(mtuBytes, id)),
  vnetd_vnet_ports: ({ vnets }, add) => vnets.forEach(({ id, ports }) => add(ports, id)),
  vnetd_vnet_hosts: counted(({ hosts }, add, vnet) => add(hosts, vnet)),
  vnetd_frames_total: counted(({ frames }, add, vnet) => both(add, frames, vnet)),
  vnetd_bytes_total: counted(({ bytes }, add, vnet) => both(add, bytes, vnet)),
  vnetd_flooded_frames_total: counted(({ floodedFrames }, add, vnet) => add(floodedFrames, vnet)),
  vnetd_flooded_bytes_total: counted(({ floodedBytes }, add, vnet) => add(floodedBytes, vnet)),
  vnetd_fragmented_frames_total: counted(({ fragmented }, add, vnet) =>
    both(add, fragmented, vnet),
  ),
  vnetd_drops_total: ({ drops }, add) =>
    drops.forEach(({ vnet, direction, reason, frames }) => add(frames, vnet, direction, reason)),
  vnetd_drop_counters_full_total: ({ table }, add) => add(table.countersFull),
  vnetd_table_entries: counted(({ local, remote }, add, vnet) => {
    add(local, vnet, "local");
    add(remote, vnet, "remote");
  }),
  vnetd_table_static_entries: ({ table }, add) => add(table.static),
  vnetd_table_learned_total: ({ table }, add) => add(table.learned),
  vnetd_table_moved_total: ({ table }, add) => add(table.moved),
  vnetd_table_aged_total: ({ table }, add) => add(table.aged),
  vnetd_table_refused_total: (snapshot, add) => add(refused(snapshot)),
  vnetd_neighbours: suppressed(({ known }) => known),
  vnetd_neighbour_answers_total: suppressed(({ answered }) => answered),
  vnetd_neighbour_changes_total: suppressed(({ changed }) => changed),
  vnetd_neighbours_refused_total: suppressed((counts) => counts.refused),
  vnetd_map_entries: ({ maps }, add) => maps.forEach(({ map, entries }) => add(entries, map)),
  vnetd_map_limit_entries: ({ maps }, add) => maps.forEach(({ map, limit }) => add(limit, map)),
  vnetd_underlay_up: ({ underlays }, add) =>
    underlays.forEach(({ device, family: name, isUp }) => add(flag(isUp), device, name)),
  vnetd_underlay_mtu_bytes: ({ underlays }, add) =>
    underlays.forEach(({ device, family: name, mtuBytes }) => add(mtuBytes, device, name)),
  vnetd_underlay_xdp: ({ underlays }, add) =>
    underlays.forEach(({ device, family: name, xdp }) => add(xdp, device, name)),
  vnetd_underlay_multicast: ({ underlays }, add) =>
    underlays.forEach(({ device, family: name, isMulticast }) =>
      add(flag(isMulticast), device, name),
    ),
  vnetd_peer_reachable: ({ peers }, add) =>
    peers.forEach(({ address, isReachable }) => add(flag(isReachable), address)),
  vnetd_peer_last_heard_timestamp_seconds: ({ peers }, add) =>
    peers.forEach(({ address, heardSeconds }) => {
      if (heardSeconds !== undefined) add(heardSeconds, address);
    }),
  vnetd_peer_frames_total: ({ peers }, add) =>
    peers.forEach(({ address, frames }) => both(add, frames, address)),
  vnetd_peer_bytes_total: ({ peers }, add) =>
    peers.forEach(({ address, bytes }) => both(add, bytes, address)),
  vnetd_secure_paths: ({ secure }, add) =>
    secure.forEach(({ vnet, keyed, waiting }) => {
      add(keyed, vnet, "keyed");
      add(waiting, vnet, "waiting");
    }),
  vnetd_secure_vnet_changing: ({ secure }, add) =>
    secure.forEach(({ vnet, isChanging }) => add(flag(isChanging), vnet)),
  vnetd_security_associations: ({ secure }, add) =>
    secure.forEach(({ vnet, associations }) => both(add, associations, vnet)),
  vnetd_keys_oldest_timestamp_seconds: ({ secure }, add) =>
    secure.forEach(({ vnet, oldestSeconds }) => {
      if (oldestSeconds !== undefined) add(oldestSeconds, vnet);
    }),
  vnetd_key_agreements_total: ({ secure }, add) =>
    secure.forEach(({ vnet, agreed }) => add(agreed, vnet)),
  vnetd_rekeys_total: ({ secure }, add) =>
    secure.forEach(({ vnet, renewed }) => add(renewed, vnet)),
  vnetd_key_agreement_failures_total: ({ secure }, add) =>
    secure.forEach(({ vnet, failed }) => add(failed, vnet)),
  vnetd_xfrm_errors_total: ({ xfrmErrors }, add) =>
    xfrmErrors.forEach(({ words: [reason = ""], count }) => add(count, reason)),
};

/** Metric by metric, so that who makes a page may do other things in between. */
export function* kernelFamilies(snapshot: Snapshot): Generator<string> {
  for (const [name, fill] of Object.entries(fills))
    yield family(name, kernelMetrics[name as KernelMetric], (add) => fill(snapshot, add));
}
