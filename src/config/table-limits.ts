// SPDX-License-Identifier: Apache-2.0
/** `limits` of the daemon's configuration: how large the kernel's tables are, and rates. Pure. */
import { integer, type KeyTable } from "./spec.js";

/** Bounds of tables and rates in the kernel; include/vnetd/maps.h has the same defaults. */
export interface TableLimits {
  /** MACs, over all vnets */
  entries: number;
  entriesPerVnet: number;
  entriesPerHost: number;
  hostsPerVnet: number;
  /** next hops, over all vnets */
  hosts: number;
  /** frames that a vnet's guests here may send to the group, each second; 0: no limit */
  floodPerSecond: number;
  /** and at once */
  floodBurst: number;
  /** IP addresses of guests, over all vnets that suppress */
  neighbours: number;
  neighboursPerVnet: number;
}

export function tableLimitDefaults(): TableLimits {
  return {
    entries: 65536,
    entriesPerVnet: 16384,
    entriesPerHost: 4096,
    hostsPerVnet: 1024,
    hosts: 16384,
    floodPerSecond: 10_000,
    floodBurst: 10_000,
    neighbours: 16384,
    neighboursPerVnet: 4096,
  };
}

export const limitKeys: KeyTable<TableLimits> = {
  entries: integer("MACs, over all vnets", { smallest: 16, largest: 1 << 20 }),
  entriesPerVnet: integer("MACs of one vnet", { smallest: 1, largest: 1 << 20 }),
  entriesPerHost: integer("MACs of one vnet behind one host", { smallest: 1, largest: 1 << 20 }),
  hostsPerVnet: integer("hosts of one vnet", { smallest: 1, largest: 1 << 17 }),
  hosts: integer("pairs of vnet and host, over all vnets", { smallest: 16, largest: 1 << 17 }),
  floodPerSecond: integer(
    "frames of one vnet to the group from this host, each second; 0: no limit",
    { smallest: 0, largest: 10_000_000 },
  ),
  floodBurst: integer("the same at once", { smallest: 1, largest: 1_000_000 }),
  neighbours: integer("IP addresses of guests, over all vnets that suppress", {
    smallest: 16,
    largest: 1 << 20,
  }),
  neighboursPerVnet: integer("IP addresses of one vnet's guests", {
    smallest: 1,
    largest: 1 << 20,
  }),
};
