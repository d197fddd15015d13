// SPDX-License-Identifier: Apache-2.0
/**
 * The benchmark: vnetd, kernel VXLAN, bare veth, and what carries Ethernet in user space, on the same two hosts, in the same
 * minutes.
 *
 * A series is one kind of traffic, from host to host or guest to guest, in one state of the
 * underlay ("offload", "wire"). It begins with a warm-up of just that traffic, so that vnetd's
 * `merge: auto` has seen it and chosen; then come the rounds. A round measures every way once, one
 * directly after the other and each round beginning with another one, so that what else the
 * machine does hits all alike; ratios are made within a round.
 *
 * A slow result is a result: the exit code says only whether all that was chosen could be measured.
 */
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { lanes } from "./frames.mjs";
import { Lab, variants } from "./lab.mjs";
import { reachable, turned } from "./measure.mjs";
import { fromCommandLine, list, number, parsed, WrongOption } from "./options.mjs";
import { peers, startPeers } from "./peers.mjs";
import { notRun, programs } from "./programs.mjs";
import * as reports from "./report.mjs";
import { kindNames, seriesOf } from "./series.mjs";
import { targets } from "./targets.mjs";

const usage = `usage: bench/run [options]      (root, in a built checkout)
  --rounds N     rounds of each series (5)
  --seconds N    of each measurement of throughput (1)
  --echoes N     round trips in each measurement (20000)
  --warm-up N    seconds of the same traffic before the rounds of each series (3)
  --only LIST    of offload,wire (both)
  --variants LIST  of ipv4,ipv6,etherip,xdp (all)
  --kinds LIST   of ${kindNames.join(",")} (all)
  --congestion LIST  of the kernel's TCP congestion controls (reno,cubic,bbr, as far as they are there);
                 the first serves for guests, IPv6 and EtherIP alone
  --shared       VXLAN and the bare path use the device vnetd is attached to, and pay for its programs
  --note TEXT    put beside the table
  --write        put the tables into docs/performance.md too; a run that leaves out something says so there
  --help
`;

const underlayModes = ["offload", "wire"];
/** what a whole run has */
const whole = { rounds: 5, seconds: 1, echoes: 20000, "warm-up": 3 };
/** of each program by itself */
const programRuns = 20000;

/** Not paced first: it is the data plane that limits it, and it is in every kernel. */
const congestionControls = ["reno", "cubic", "bbr"];
const available = () =>
  readFileSync("/proc/sys/net/ipv4/tcp_available_congestion_control", "utf8").trim().split(" ");

const texts = Object.fromEntries(
  [...Object.keys(whole), "only", "variants", "congestion", "kinds", "note"].map((name) => [
    name,
    { type: "string" },
  ]),
);

function options() {
  const { values } = parsed({
    ...texts,
    shared: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  });
  const numberOf = (name, least) =>
    values[name] === undefined ? whole[name] : number(values[name], name, least);
  const listOf = (name, known, all = known) =>
    values[name] === undefined ? all : list(values[name], `--${name}`, known);
  const there = available();
  const o = {
    help: values.help,
    rounds: numberOf("rounds", 1),
    seconds: numberOf("seconds", 1),
    echoes: numberOf("echoes", 100),
    warmUpSeconds: numberOf("warm-up", 0),
    modes: listOf("only", underlayModes),
    variants: listOf("variants", Object.keys(variants)),
    congestion: listOf(
      "congestion",
      there,
      congestionControls.filter((name) => there.includes(name)),
    ),
    kinds: listOf("kinds", kindNames),
    shared: values.shared,
    note: values.note,
    write: values.write,
  };
  const least = Object.entries(whole).filter(([name, n]) => Number(values[name] ?? n) < n);
  const chosen = ["only", "variants", "congestion", "kinds"].filter((name) => values[name]);
  /** what was asked for where it is less than a whole run */
  o.partial = [...least.map(([name]) => name), ...chosen].map(
    (name) => `\`--${name} ${values[name]}\``,
  );
  if (o.variants.every((name) => allSeries(variants[name], o).length === 0))
    throw new WrongOption(
      `nothing is measured of ${o.variants.join(", ")} with ${o.partial.join(" ")}`,
    );
  return o;
}

/** All that is measured of a variant. */
const allSeries = (variant, o) => o.modes.flatMap((mode) => seriesOf(variant, mode, o));

const say = (text) => process.stderr.write(text);

/** vnetd alone needs it: the other ways choose nothing. */
async function warmUp(lab, series, o) {
  for (const end = Date.now() + o.warmUpSeconds * 1000; Date.now() < end;) {
    await series.measure(lab, "vnetd", o);
  }
  series.merge = lab.merging();
}

async function runSeries(lab, series, o, { failures, remarks }) {
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
    remarks.push(`${series.title}: merging on receipt changed during the rounds`);
  say(` (merging on receipt: ${series.merge ? "on" : "off"})\n`);
}

async function measure(lab, series, o, found) {
  for (const place of ["host", "guest"]) {
    for (const target of Object.values(lab.targets[place]))
      await reachable(lab.ends(place)[0], target);
  }
  lab.lanes = lanes(lab);
  for (const mode of o.modes) {
    lab.setUnderlay(mode);
    for (const each of series.filter((one) => one.mode === mode))
      await runSeries(lab, each, o, found);
  }
  return inOrder(series);
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
    ...(o.partial.length === 0
      ? []
      : [["not a whole run", `${o.partial.join(" ")}; what is left out was not measured`]]),
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
  const o = fromCommandLine(usage, options);
  if (process.getuid() !== 0)
    throw new Error("run it as root: it makes network namespaces and loads BPF programs");
  const [load] = loadavg();
  const found = { rows: [], failures: [], remarks: [], missing: {}, programs: [] };
  for (const name of o.variants) await measureVariant(variants[name], o, found);
  if (found.rows.length === 0)
    throw new Error(`nothing could be measured: ${found.failures.join("; ")}`);
  const text = textOf(facts(o, load), found);
  process.stdout.write(`${text}\n`);
  if (o.write) say(`bench: written to ${reports.write(text)}\n`);
  return found.failures.length === 0 && Object.keys(found.missing).length === 0 ? 0 : 1;
}

async function measureVariant(variant, o, found) {
  const series = allSeries(variant, o);
  if (series.length === 0) return;
  const lab = new Lab({ sharedUnderlay: o.shared, variant });
  try {
    await lab.build();
    if (series.some(({ place }) => place === "guest")) Object.assign(found.missing, lab.missing);
    if (series.some(({ withOthers }) => withOthers)) {
      const others = await startPeers(lab);
      lab.otherTargets = others.targets;
      Object.assign(found.missing, others.missing);
    }
    found.rows.push(...(await measure(lab, series, o, found)));
    if (variant === variants.ipv4 || variant === variants.xdp) measurePrograms(lab, found);
  } catch (error) {
    if (variant === variants.ipv4) throw error;
    // a vnetd that cannot be attached so, for one
    found.failures.push(`${variant.name} is not measured: ${error.message.split("\n")[0]}`);
  } finally {
    lab.close();
  }
}

function measurePrograms(lab, found) {
  try {
    found.programs.push(...programs(lab, programRuns));
  } catch (error) {
    found.failures.push(`programs by themselves: ${error.message}`);
  }
}

function textOf(head, { rows, failures, remarks, missing, programs: measured }) {
  const { port, ...others } = missing;
  const names = Object.fromEntries(Object.entries(peers).map(([way, { name }]) => [way, name]));
  const parts = [
    reports.targetsTable(rows, targets, missing),
    reports.table(rows),
    reports.othersTable(rows, names, others),
    ...(measured.length === 0 ? [] : [reports.programsTable(measured, notRun)]),
  ];
  const ports = port === undefined ? [] : [`direct ports are not measured: ${port}`];
  return reports.report(head, parts, [...ports, ...failures, ...remarks]);
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exit(1);
}
