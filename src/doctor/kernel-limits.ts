// SPDX-License-Identifier: Apache-2.0
/**
 * Limits of the kernel that drop packets, and tell its log at best: its table of neighbours (ARP and neighbour discovery), which all network
 * namespaces share, and the queue of received packets that each CPU has. What the kernel counted is looked at twice,
 * since it counts from the machine's start.
 *
 * Linux: net/core/neighbour.c (neigh_alloc, neigh_stat_seq_show), net/core/net-procfs.c (softnet_seq_show);
 * Documentation/networking/ip-sysctl.rst, neigh/default/gc_thresh3.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Skipped, type Check, type Found } from "./check.js";
import { fileText, type KernelFacts } from "./kernel.js";

export interface LimitFacts extends KernelFacts {
  /** how long the kernel is watched, ms */
  watchMs?: number;
}

/** For some hundred packets that come and go at the same time. */
const watchedMs = 500;
/** of the table, by default, and the largest number that the kernel takes as a power of two */
const [usualRoom, mostRoom] = [1024, 2 ** 30];
/** of the table: more than this part is in use */
const nearlyFull = 0.75;

interface Neighbours {
  entries: number;
  /** how often there was no room for one */
  refused: number;
  most: number;
}

interface Table {
  family: string;
  /** in /proc/net/stat */
  file: string;
  /** in /proc/sys/net */
  settings: string;
}

export const ipv4Table: Table = { family: "IPv4", file: "arp_cache", settings: "ipv4" };
const tables = [ipv4Table, { family: "IPv6", file: "ndisc_cache", settings: "ipv6" }];

export function kernelLimitChecks(facts: LimitFacts): Check[] {
  return [
    { name: "neighbours", run: () => neighboursFound(facts) },
    { name: "backlog", run: () => backlogFound(facts) },
  ];
}

async function neighboursFound(facts: LimitFacts): Promise<Found[]> {
  const before = tables.map((each) => neighboursOf(facts, each));
  if (before.every((each) => each === undefined))
    throw new Skipped("only the machine's first network namespace shows its table of neighbours");
  await sleep(facts.watchMs ?? watchedMs);
  return tables.flatMap((each, at) => {
    const [was, is] = [before[at], neighboursOf(facts, each)];
    return was === undefined || is === undefined ? [] : tableFound(each, was, is);
  });
}

function tableFound(
  { family, settings }: Table,
  was: Neighbours,
  { entries, refused, most }: Neighbours,
): Found[] {
  const name = `net.${settings}.neigh.default.gc_thresh`;
  const room = Math.min(2 ** Math.ceil(Math.log2(4 * Math.max(entries, usualRoom))), mostRoom);
  const set = `sysctl -w ${name}2=${String(room / 2)} ${name}3=${String(room)}`;
  const fix = `${set}, and the same in /etc/sysctl.d, so that it is so after a start`;
  const seen = `${String(entries)} entries of all namespaces, ${name}3 is ${String(most)}`;
  const full = `the kernel's table of ${family} neighbours is full`;
  if (refused > was.refused) {
    const what = `${full}: packets to hosts and guests are dropped, and the kernel's log alone is told`;
    const times = String(refused - was.refused);
    return [{ level: "problem", what, seen: `${seen}; ${times} times no room just now`, fix }];
  }
  if (entries > nearlyFull * most)
    return [
      {
        level: "note",
        what: `the kernel's table of ${family} neighbours is nearly full`,
        seen: `${seen}; permanent ones are counted in this, and take no room`,
        fix,
      },
    ];
  // somebody has made room since
  if (refused === 0 || most >= room) return [];
  const what = `the kernel's table of ${family} neighbours was full at some time since the machine's start`;
  return [{ level: "note", what, seen: `${String(refused)} times no room; now ${seen}`, fix }];
}

/** undefined: this namespace does not show it. */
export function neighboursOf(
  facts: KernelFacts,
  { file, settings }: Table,
): Neighbours | undefined {
  const text = fileText(facts, `proc/net/stat/${file}`);
  const most = fileText(facts, `proc/sys/net/${settings}/neigh/default/gc_thresh3`);
  if (text === undefined || most === undefined) return undefined;
  const [head = [], ...cpus] = rowsOf(text);
  const refusedAt = head.indexOf("table_fulls");
  const first = cpus[0]?.[head.indexOf("entries")];
  if (refusedAt < 0 || first === undefined) return undefined;
  const refused = sumOf(cpus, refusedAt);
  return { entries: parseInt(first, 16), refused, most: Number(most) };
}

async function backlogFound(facts: LimitFacts): Promise<Found[]> {
  const before = droppedOf(facts);
  await sleep(facts.watchMs ?? watchedMs);
  const dropped = droppedOf(facts) - before;
  if (dropped <= 0) return [];
  const setting = "net.core.netdev_max_backlog";
  const most = Number(fileText(facts, `proc/sys/${setting.replaceAll(".", "/")}`) ?? 1000);
  return [
    {
      level: "warning",
      what: "packets are lost in the CPUs' queues before anything looks at them",
      seen: `${String(dropped)} just now by /proc/net/softnet_stat; ${setting} is ${String(most)}`,
      fix: `where bursts are the cause: sysctl -w ${setting}=${String(10 * most)}; where a CPU is busy all the time it needs others beside it`,
    },
  ];
}

/** Of all CPUs. */
export function droppedOf(facts: KernelFacts): number {
  const text = fileText(facts, "proc/net/softnet_stat");
  if (text === undefined) throw new Skipped("/proc/net/softnet_stat cannot be read");
  return sumOf(rowsOf(text), 1);
}

/** Columns that are parted by blanks, a CPU a line. */
function rowsOf(text: string): string[][] {
  return text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/u));
}

/** Of numbers in hexadecimal. */
function sumOf(rows: readonly string[][], column: number): number {
  return rows.reduce((sum, row) => sum + parseInt(row[column] ?? "0", 16), 0);
}
