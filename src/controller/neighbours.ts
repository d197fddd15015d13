// SPDX-License-Identifier: Apache-2.0
/**
 * Suppression, as the daemon sees it: what a vnet's record says of it, and the table of neighbours, which the BPF
 * programs keep (bpf/lib/neighbour.h) and this reads when it is asked for.
 */
import type { NeighbourEntry } from "../api/contract.js";
import { addressToText, parseAddress } from "../base/address.js";
import { VnetdError } from "../base/errors.js";
import { macFromBytes } from "../base/mac.js";
import type { DaemonConfig } from "../config/daemon-config.js";
import { neighbourRows, type NeighbourRow } from "../dataplane/tables.js";
import type { SuppressSettings } from "../dataplane/vnet-table.js";
import { vnetdControlOp } from "../generated/layouts.js";
import type { Context } from "./context.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export function suppressSettings({ limits, neighbourSeconds }: DaemonConfig): SuppressSettings {
  return {
    maxNeighbours: limits.neighboursPerVnet,
    neighbourAgeMs: neighbourSeconds * 1000,
  };
}

type Place = { context: Pick<Context, "maps" | "control">; vnets: Pick<Vnets, "byHandle"> };

/** Of one vnet, or of all. */
export function neighbourList({ context, vnets }: Place, of?: RunningVnet): NeighbourEntry[] {
  const wanted = vnets.byHandle();
  return neighbourRows(context.maps, wanted)
    .filter(({ handle }) => of === undefined || handle === of.handle)
    .map((row) => ({
      vnet: wanted.get(row.handle)?.id ?? "",
      address: addressToText(row.addr),
      vmac: macFromBytes(row.mac),
      place: row.isLocal ? "here" : "elsewhere",
      router: row.isRouter,
      answered: row.isAnswered,
      ageSeconds: Math.round(row.ageMs / 100) / 10,
    }));
}

/** All of a vnet's, or one. How many there were. */
export function forgetNeighbours(place: Place, vnet: RunningVnet, address?: string): number {
  const { slot, handle } = vnet;
  const addr = address === undefined ? undefined : Buffer.from(parseAddress(address));
  const gone = neighbourRows(place.context.maps, place.vnets.byHandle()).filter(
    (row: NeighbourRow) => row.handle === handle && addr?.equals(row.addr) !== false,
  );
  if (address !== undefined && gone.length === 0) {
    throw new VnetdError("ENTRY_NOT_FOUND", `vnet ${vnet.id} has no neighbour ${address}`, {
      hint: "`vnetd neighbours` shows those it has.",
    });
  }
  const op = vnetdControlOp.CTL_FORGET_NEIGHBOUR;
  for (const row of gone) place.context.control.run({ op, slot, handle, addr: row.addr });
  return gone.length;
}
