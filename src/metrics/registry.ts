// SPDX-License-Identifier: Apache-2.0
/**
 * The metrics, by name: read from the maps when they are scraped, never kept.
 *
 * prom-client's counters cannot be set, so each collect() resets and adds the totals, which the
 * kernel counts. Label values are bounded: vnets of this host, and the reasons of
 * include/vnetd/reasons.h. docs/metrics.md lists them.
 */
import { Counter, Gauge, Registry } from "prom-client";
import { version } from "../base/version.js";
import type { DropInfo, StatusInfo, TrafficInfo, VnetState } from "../api/contract.js";

export interface MetricsSource {
  layout: number;
  drops(): DropInfo[];
  vnets(): VnetState[];
  tableLimit(): number;
  hosts(): number;
  secure(): StatusInfo["secure"];
  troubles(): { loops: number; duplicates: number };
  attached(): { device: string; up: boolean }[];
}

export function createRegistry(source: MetricsSource): Registry {
  const registry = new Registry();
  const registers = [registry];
  buildInfo(registers, source);
  drops(registers, source);
  traffic(registers, source);
  table(registers, source);
  return registry;
}

function buildInfo(registers: Registry[], { layout }: MetricsSource): void {
  const info = new Gauge({
    name: "vnetd_build_info",
    help: "Always 1; the labels say what runs.",
    labelNames: ["version", "layout", "node"],
    registers,
  });
  info.set({ version, layout: String(layout), node: process.versions.node }, 1);
}

function drops(registers: Registry[], source: MetricsSource): void {
  const frames = new Counter({
    name: "vnetd_drops_total",
    help: "Frames that were not forwarded, or whose source was not learned (refused_*), by reason.",
    labelNames: ["vnet", "direction", "reason"],
    registers,
    collect() {
      this.reset();
      for (const { vnet, direction, reason, frames: count } of source.drops()) {
        this.inc({ vnet: vnet ?? "", direction, reason }, count);
      }
    },
  });
  void frames;
}

function traffic(registers: Registry[], source: MetricsSource): void {
  const vnets = onceAScrape(() => source.vnets());
  type Add = (labels: { direction?: string }, value: number) => void;
  const counter = (
    name: string,
    { help, labelNames }: { help: string; labelNames: string[] },
    addAll: (totals: TrafficInfo, add: Add) => void,
  ): Counter =>
    new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const { id: vnet, traffic: totals } of vnets()) {
          if (totals !== undefined)
            addAll(totals, (labels, value) => this.inc({ vnet, ...labels }, value));
        }
      },
    });
  counter(
    "vnetd_frames_total",
    { help: "Inner frames that were forwarded.", labelNames: ["vnet", "direction"] },
    (totals, add) => {
      add({ direction: "encap" }, totals.encapFrames);
      add({ direction: "decap" }, totals.decapFrames);
    },
  );
  counter(
    "vnetd_bytes_total",
    { help: "Bytes of inner frames that were forwarded.", labelNames: ["vnet", "direction"] },
    (totals, add) => {
      add({ direction: "encap" }, totals.encapBytes);
      add({ direction: "decap" }, totals.decapBytes);
    },
  );
  counter(
    "vnetd_flooded_frames_total",
    {
      help: "Of the frames forwarded: those sent to, or received from, the group.",
      labelNames: ["vnet"],
    },
    (totals, add) => add({}, totals.floodedFrames),
  );
}

/**
 * One reading for all metrics of a scrape, so that frames and bytes are of the same moment: a
 * registry calls every collect() in one turn, and the reading is forgotten after it.
 */
function onceAScrape<Value>(read: () => Value): () => Value {
  let kept: { value: Value } | undefined;
  return () => {
    if (kept === undefined) {
      kept = { value: read() };
      queueMicrotask(() => (kept = undefined));
    }
    return kept.value;
  };
}

function table(registers: Registry[], source: MetricsSource): void {
  const simple = (name: string, help: string, value: () => number): Gauge =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  simple("vnetd_table_limit", "MACs that the table holds at most.", () => source.tableLimit());
  simple("vnetd_hosts", "Hosts that say hello.", () => source.hosts());
  const secure = onceAScrape(() => source.secure());
  simple("vnetd_secure_paths", "Paths to hosts of secure vnets.", () => secure().paths);
  simple(
    "vnetd_secure_paths_keyed",
    "Of these: those that there are keys for.",
    () => secure().keyed,
  );
  simple(
    "vnetd_secure_vnets_changing",
    "Secure vnets that change their secret.",
    () => secure().changing,
  );
  simple("vnetd_loops", "Vnets with a loop.", () => source.troubles().loops);
  simple(
    "vnetd_duplicate_addresses",
    "MACs that are at two places of a vnet.",
    () => source.troubles().duplicates,
  );
  const entries = new Gauge({
    name: "vnetd_table_entries",
    help: "MACs in the table, by vnet.",
    labelNames: ["vnet"],
    registers,
    collect() {
      this.reset();
      for (const { id: vnet, entries: count } of source.vnets()) this.set({ vnet }, count);
    },
  });
  const up = new Gauge({
    name: "vnetd_underlay_up",
    help: "1 when an attached device carries traffic.",
    labelNames: ["device"],
    registers,
    collect() {
      this.reset();
      for (const { device, up: isUp } of source.attached()) this.set({ device }, isUp ? 1 : 0);
    },
  });
  void [entries, up];
}
