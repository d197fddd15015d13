// SPDX-License-Identifier: Apache-2.0
/** What one scrape shows: everything as it was at one moment. */
import type { DropInfo } from "../api/contract.js";

type Direction = DropInfo["direction"];

/** Frames that were forwarded, and so on, by direction. */
export type ByDirection = Readonly<Record<Direction, number>>;

export interface VnetSample {
  id: string;
  isUp: boolean;
  mtuBytes: number;
  /** direct ports that are there */
  ports: number;
  /** undefined: it has no place in the maps */
  counts: VnetCounts | undefined;
  /** undefined: the vnet does not suppress */
  neighbours: NeighbourCounts | undefined;
}

export interface VnetCounts {
  frames: ByDirection;
  bytes: ByDirection;
  fragmented: ByDirection;
  floodedFrames: number;
  floodedBytes: number;
  local: number;
  remote: number;
  hosts: number;
}

export interface NeighbourCounts {
  known: number;
  answered: number;
  changed: number;
  refused: number;
}

export interface DropSample {
  /** "": before the vnet was known, or of one that is gone */
  vnet: string;
  direction: Direction;
  reason: string;
  frames: number;
}

export interface PeerSample {
  address: string;
  isReachable: boolean;
  /** since 1970; undefined: never */
  heardSeconds: number | undefined;
  frames: ByDirection;
  bytes: ByDirection;
}

export interface SecureSample {
  vnet: string;
  keyed: number;
  waiting: number;
  isChanging: boolean;
  associations: ByDirection;
  /** since 1970, when the oldest keys came into use */
  oldestSeconds: number | undefined;
  agreed: number;
  renewed: number;
  failed: number;
}

export interface UnderlaySample {
  device: string;
  family: "ipv4" | "ipv6";
  isUp: boolean;
  mtuBytes: number;
  isMulticast: boolean;
  /** 2: native, 1: generic, 0: none */
  xdp: 0 | 1 | 2;
}

export interface Tallied {
  words: readonly string[];
  count: number;
}

export interface Snapshot {
  vnets: readonly VnetSample[];
  drops: readonly DropSample[];
  table: { learned: number; moved: number; aged: number; static: number; countersFull: number };
  maps: readonly { map: string; entries: number; limit: number }[];
  underlays: readonly UnderlaySample[];
  peers: readonly PeerSample[];
  secure: readonly SecureSample[];
  xfrmErrors: readonly Tallied[];
  hosts: number;
  problems: number;
  troubles: { loops: number; duplicates: number; storms: number };
  varp: { received: readonly Tallied[]; sent: readonly Tallied[] };
  hooksRemoved: readonly Tallied[];
  config: { ok: boolean; takenSeconds: number; reloads: readonly Tallied[] };
}

export interface MetricsSource {
  layout: number;
  snapshot(): Snapshot;
}
