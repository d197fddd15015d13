// SPDX-License-Identifier: Apache-2.0
/** A host whose counters grow with each reading, as under traffic of frames of 100 bytes; every metric has a line. */
import type { MetricsSource, Snapshot } from "../../../src/metrics/snapshot.js";

export const vnetId = "0000:0000:0000:0000:0000:0000:0000:0097";

export function metricsSource(): MetricsSource & { taken: number } {
  const source = {
    layout: 1,
    taken: 0,
    snapshot(): Snapshot {
      source.taken += 1;
      return snapshotOf(5 * source.taken);
    },
  };
  return source;
}

function snapshotOf(frames: number): Snapshot {
  const both = { encap: frames, decap: 2 * frames };
  const bytes = { encap: 100 * frames, decap: 200 * frames };
  const counts = {
    ...{ frames: both, bytes, fragmented: { encap: 1, decap: 2 } },
    ...{ floodedFrames: frames, floodedBytes: 100 * frames, local: 1, remote: 2, hosts: 3 },
  };
  const drop = (vnet: string, reason: string, count: number): Snapshot["drops"][number] => ({
    ...{ vnet, direction: "decap", reason, frames: count },
  });
  const neighbours = { known: 5, answered: 6, changed: 7, refused: 8 };
  const peer = { isReachable: true, frames: both, bytes };
  const secure = {
    ...{ keyed: 4, waiting: 1, isChanging: true, associations: { encap: 4, decap: 5 } },
    ...{ agreed: 6, renewed: 2, failed: 1 },
  };
  return {
    vnets: [
      { id: vnetId, isUp: true, mtuBytes: 1400, ports: 2, counts, neighbours },
      {
        id: "broken",
        isUp: false,
        mtuBytes: 1400,
        ports: 0,
        counts: undefined,
        neighbours: undefined,
      },
    ],
    drops: [
      drop("", "unknown_vnet", 9),
      drop(vnetId, "refused_host_limit", 3),
      drop(vnetId, "refused_table_full", 4),
    ],
    table: { learned: 10, moved: 2, aged: 3, static: 1, countersFull: 0 },
    maps: [{ map: "fdb", entries: 3, limit: 65536 }],
    underlays: [
      { device: "eth0", family: "ipv4", isUp: true, mtuBytes: 1500, isMulticast: true, xdp: 2 },
    ],
    peers: [
      { ...peer, address: "10.0.0.1", heardSeconds: 1_700_000_000 },
      { ...peer, address: "10.0.0.2", heardSeconds: undefined },
    ],
    secure: [
      { ...secure, vnet: vnetId, oldestSeconds: 1_700_000_000 },
      { ...secure, vnet: "0:98", oldestSeconds: undefined },
    ],
    xfrmErrors: [{ words: ["XfrmInNoStates"], count: 0 }],
    hosts: 2,
    problems: 1,
    troubles: { loops: 0, duplicates: 0, storms: 0 },
    varp: {
      received: [{ words: ["request", "answered"], count: 3 }],
      sent: [{ words: ["announce"], count: 3 }],
    },
    hooksRemoved: [{ words: ["underlay"], count: 2 }],
    config: { ok: true, takenSeconds: 1_700_000_000, reloads: [{ words: ["ok"], count: 1 }] },
  };
}

/** The values of a page, by name and labels. */
export function samples(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(" ");
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}
