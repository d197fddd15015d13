// SPDX-License-Identifier: Apache-2.0
/**
 * The benchmark: bare veth, kernel VXLAN and vnetd, on the same two hosts, in the same minutes.
 *
 * A series is one kind of traffic, from host to host or guest to guest, in one state of the
 * underlay ("offload", "wire"). It begins with a warm-up of just that traffic, so that vnetd's
 * `merge: auto` has seen it and chosen; then come the rounds. A round measures every way once, one
 * directly after the other and each round beginning with another one, so that what else the
 * machine does hits all alike; ratios are made within a round.
 *
 * A slow result is a result: the exit code says only whether it could be measured.
 */
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { lanes, programs } from "./frames.mjs";
import { Lab, variants } from "./lab.mjs";
import { reachable } from "./measure.mjs";
import { peers, startPeers } from "./peers.mjs";
import * as reports from "./report.mjs";
import { seriesOf } from "./series.mjs";
import { targets } from "./targets.mjs";

const usage = `usage: bench/run [options]      (root, in a built checkout)
  --rounds N     rounds of each series (5)
  --seconds N    of each measurement of throughput (1)
  --echoes N     round trips in each measurement (20000)
  --warm-up N    seconds of the same traffic before the rounds of each series (3)
  --only LIST    of offload,wire (both)
  --variants LIST  of ipv4,ipv6,etherip,xdp (all)
  --kinds LIST   only these, e.g. udp64,forward (all; bench/series.mjs has them)
  --congestion LIST  of the kernel's TCP congestion controls (reno,cubic,bbr, as far as they are there);
                 the first serves for guests, IPv6 and EtherIP alone
  --shared       VXLAN and the bare path use the device vnetd is attached to, and pay for its programs
  --note TEXT    put beside the table
  --write        put the table into docs/performance.md too
  --help
`;

const underlayModes = ["offload", "wire"];
/** of each program by itself */
const programRuns = 20000;

/** Not paced first: it is the data plane that limits it, and it is in every kernel. */
const congestionControls = ["reno", "cubic", "bbr"];
const available = () =>
  readFileSync("/proc/sys/net/ipv4/tcp_available_congestion_control", "utf8").trim().split(" ");

function options() {
  const number = (text, name, least) => {
    const n = Number(text);
    if (!Number.isInteger(n) || n < least)
      throw new Error(`--${name} ${text}: a whole number from ${least} is wanted`);
    return n;
  };
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "1" },
      echoes: { type: "string", default: "20000" },
      "warm-up": { type: "string", default: "3" },
      only: { type: "string", default: underlayModes.join(",") },
      variants: { type: "string", default: Object.keys(variants).join(",") },
      congestion: { type: "string" },
      kinds: { type: "string" },
      shared: { type: "boolean", default: false },
      note: { type: "string" },
      write: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const list = (text, name, known) => {
    const chosen = text.split(",");
    for (const each of chosen) {
      if (!known.includes(each))
        throw new Error(`--${name} ${each}: it is one of ${known.join(", ")}`);
    }
    return chosen;
  };
  const there = available();
  return {
    help: values.help,
    rounds: number(values.rounds, "rounds", 1),
    seconds: number(values.seconds, "seconds", 1),
    echoes: number(values.echoes, "echoes", 100),
    warmUpSeconds: number(values["warm-up"], "warm-up", 0),
    modes: list(values.only, "only", underlayModes),
    variants: list(values.variants, "variants", Object.keys(variants)),
    congestion:
      values.congestion === undefined
        ? congestionControls.filter((name) => there.includes(name))
        : list(values.congestion, "congestion", there),
    kinds: values.kinds?.split(","),
    shared: values.shared,
    note: values.note,
    write: values.write,
  };
}

const say = (text) => process.stderr.write(text);

/** Another way first in each round. */
const turned = (list, by) => list.map((_, i) => list[(i + by) % list.length]);

/** vnetd alone needs it: the other ways choose nothing. */
async function warmUp(lab, series, o) {
  for (const end = Date.now() + o.warmUpSeconds * 1000; Date.now() < end;) {
    await series.measure(lab, "vnetd", o);
  }
  series.merge = lab.merging();
}

async function runSeries(lab, series, o, failures) {
  say(`bench: ${series.title} `);
  try {
    await warmUp(lab, series, o);
  } catch (error) {
    failures.push(`${series.title}: ${error.message}`);
  }
  const ways = series.ways(lab);
  for (let round = 0; round < o.rounds; round += 1) {
    for (const way of turned(ways, round)) {
      try {
        series.put(way, round, await series.measure(lab, way, o));
      } catch (error) {
        failures.push(`${series.title}, ${way}, round ${round + 1}: ${error.message}`);
      }
      say(".");
    }
  }
  if (lab.merging() !== series.merge)
    failures.push(`${series.title}: merging on receipt changed during the rounds`);
  say(` (merging on receipt: ${series.merge ? "on" : "off"})\n`);
}

async function measure(lab, o, failures) {
  const all = [];
  for (const place of ["host", "guest"]) {
    for (const target of Object.values(lab.targets[place]))
      await reachable(lab.ends(place)[0], target);
  }
  lab.lanes = lanes(lab);
  for (const mode of o.modes) {
    lab.setUnderlay(mode);
    const wanted = ({ kind }) => o.kinds === undefined || o.kinds.includes(kind);
    for (const series of seriesOf(lab.variant, mode, o).filter(wanted)) {
      await runSeries(lab, series, o, failures);
      all.push(series);
    }
  }
  return inOrder(all);
}

/** The states of the underlay below one another, as they are compared. */
function inOrder(all) {
  const rows = all.flatMap((series) => series.rows());
  const place = (row) => rows.findIndex(({ name }) => stem(name) === stem(row.name));
  return rows.toSorted((a, b) => place(a) - place(b));
}
const stem = (name) => name.slice(0, name.lastIndexOf(","));

function facts(o, load) {
  return [
    [
      "taken",
      `${new Date().toISOString().slice(0, 10)}${o.note === undefined ? "" : ` (${o.note})`}`,
    ],
    ["machine", `${reports.cpuModel()}, Linux ${reports.kernel()}`],
    ["load average when it began", load.toFixed(2)],
    ...(reports.takesProgramTimes()
      ? [["`kernel.bpf_stats_enabled`", "1: vnetd is slower than it is without (0)"]]
      : []),
    ["rounds", `${o.rounds} of ${o.seconds} s, ${o.echoes} round trips`],
    [
      "underlay of VXLAN and of the bare path",
      o.shared ? "vnetd's" : "a veth pair of their own, like vnetd's",
    ],
  ];
}

async function main() {
  let o;
  try {
    o = options();
  } catch (error) {
    process.stderr.write(`bench: ${error.message}\n${usage}`);
    return 2;
  }
  if (o.help) {
    process.stdout.write(usage);
    return 0;
  }
  if (process.getuid() !== 0)
    throw new Error("run it as root: it makes network namespaces and loads BPF programs");
  const [load] = loadavg();
  const found = { rows: [], failures: [], missing: {}, programs: [] };
  for (const name of o.variants) await measureVariant(variants[name], o, found);
  const text = textOf(facts(o, load), found);
  process.stdout.write(`${text}\n`);
  if (o.write) say(`bench: written to ${reports.write(text)}\n`);
  return found.failures.length === 0 ? 0 : 1;
}

async function measureVariant(variant, o, found) {
  const lab = new Lab({ sharedUnderlay: o.shared, variant });
  try {
    await lab.build();
    if (variant === variants.ipv4) {
      const others = await startPeers(lab);
      lab.otherTargets = others.targets;
      Object.assign(found.missing, lab.missing, others.missing);
      found.rows.push(...(await measure(lab, o, found.failures)));
      found.programs = programs(lab, programRuns);
    } else {
      found.rows.push(...(await measure(lab, o, found.failures)));
    }
  } catch (error) {
    if (variant === variants.ipv4) throw error;
    // a vnetd that cannot be attached so, for one
    found.failures.push(`${variant.name} is not measured: ${error.message.split("\n")[0]}`);
  } finally {
    lab.close();
  }
}

function textOf(head, { rows, failures, missing, programs: measured }) {
  const { port, ...others } = missing;
  const names = Object.fromEntries(Object.entries(peers).map(([way, { name }]) => [way, name]));
  const parts = [
    reports.targetsTable(rows, targets, missing),
    reports.table(rows),
    reports.othersTable(rows, names, others),
    reports.programsTable(measured),
  ];
  const remarks = [...(port === undefined ? [] : [`direct ports are not measured: ${port}`])];
  return reports.report(head, parts, [...remarks, ...failures]);
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exit(1);
}
