// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's own metrics, by prom-client. prom-client's counters cannot be set, so what is counted elsewhere is
 * written anew before each scrape.
 */
import { readdirSync } from "node:fs";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { version } from "../base/version.js";
import { daemonMetrics, type DaemonMetric } from "./catalogue.js";
import type { Snapshot, Tallied } from "./snapshot.js";

const lagBuckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const scrapeBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];

/** words that are there before anything was counted */
const kinds = ["request", "announce", "hello", "goodbye", "keys"];
const configVerdicts = ["ok", "refused"];
const hookOwners = ["underlay", "vnet", "helper"];

export class DaemonRegistry {
  readonly registry = new Registry();
  private readonly lag: Histogram;
  private readonly scrapes: Histogram;
  private readonly gauges = new Map<DaemonMetric, Gauge>();
  private readonly counters = new Map<DaemonMetric, Counter>();

  constructor(private readonly layout: number) {
    this.lag = this.histogram("vnetd_event_loop_lag_seconds", lagBuckets);
    this.scrapes = this.histogram("vnetd_scrape_duration_seconds", scrapeBuckets);
    for (const [name, { type, help, labels }] of Object.entries(daemonMetrics)) {
      const options = { name, help, labelNames: [...labels], registers: [this.registry] };
      if (type === "gauge") this.gauges.set(name as DaemonMetric, new Gauge(options));
      if (type === "counter") this.counters.set(name as DaemonMetric, new Counter(options));
    }
  }

  private histogram(name: DaemonMetric, buckets: number[]): Histogram {
    const { help } = daemonMetrics[name];
    return new Histogram({ name, help, buckets, registers: [this.registry] });
  }

  /** How late a timer was. */
  late(seconds: number): void {
    this.lag.observe(seconds);
  }

  scraped(seconds: number): void {
    this.scrapes.observe(seconds);
  }

  async text(snapshot: Snapshot): Promise<string> {
    this.fill(snapshot);
    return this.registry.metrics();
  }

  private fill(now: Snapshot): void {
    this.gauge("vnetd_build_info")?.set(
      { version, layout: String(this.layout), node: process.versions.node },
      1,
    );
    const { loops, storms, duplicates } = now.troubles;
    const values: [DaemonMetric, number][] = [
      ["vnetd_problems", now.problems],
      ["vnetd_vnets", now.vnets.length],
      ["vnetd_hosts", now.hosts],
      ["vnetd_peers", now.peers.length],
      ["vnetd_loops", loops],
      ["vnetd_storms", storms],
      ["vnetd_duplicate_addresses", duplicates],
      ["vnetd_config_last_reload_success", now.config.ok ? 1 : 0],
      ["vnetd_config_last_taken_timestamp_seconds", now.config.takenSeconds],
      ["process_resident_memory_bytes", process.memoryUsage.rss()],
      ["process_open_fds", openFiles()],
      ["process_start_time_seconds", performance.timeOrigin / 1000],
    ];
    for (const [name, value] of values) this.gauge(name)?.set(value);
    const { user, system } = process.cpuUsage();
    this.count("process_cpu_seconds_total", [{ words: [], count: (user + system) / 1e6 }]);
    this.count("vnetd_varp_received_messages_total", now.varp.received);
    this.count("vnetd_varp_sent_messages_total", now.varp.sent, kinds);
    this.count("vnetd_config_reloads_total", now.config.reloads, configVerdicts);
    this.count("vnetd_hooks_removed_total", now.hooksRemoved, hookOwners);
  }

  private gauge(name: DaemonMetric): Gauge | undefined {
    return this.gauges.get(name);
  }

  /** Totals; words are values of the labels. `zeros`: those of one label that are there before anything came. */
  private count(name: DaemonMetric, rows: readonly Tallied[], zeros: readonly string[] = []): void {
    const counter = this.counters.get(name);
    const { labels } = daemonMetrics[name];
    if (counter === undefined) return;
    counter.reset();
    const all = [...zeros.map((word) => ({ words: [word], count: 0 })), ...rows];
    for (const { words, count } of all)
      counter.inc(Object.fromEntries(labels.map((label, at) => [label, words[at] ?? ""])), count);
  }
}

function openFiles(): number {
  try {
    // the one by which the directory is read is there as well
    return readdirSync("/proc/self/fd").length - 1;
  } catch {
    return 0;
  }
}
