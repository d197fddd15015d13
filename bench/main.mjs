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
import { Lab, variants, ways } from "./lab.mjs";
import { echo, reachable, tcp, udp } from "./measure.mjs";
import { cpuModel, kernel, report, write } from "./report.mjs";

const usage = `usage: bench/run [options]      (root, in a built checkout)
  --rounds N     rounds for each state of the underlay (5)
  --seconds N    of each TCP and UDP measurement (2)
  --echoes N     round trips in each measurement (20000)
  --warm-up N    seconds of the same traffic before the rounds of each series (4)
  --only LIST    of offload,wire (both)
  --variants LIST  of ipv4,ipv6,etherip (all)
  --congestion LIST  of the kernel's TCP congestion controls (reno,cubic,bbr, as far as they are there);
                 the first serves for guests, IPv6 and EtherIP alone
  --shared       VXLAN and the bare path use the device vnetd is attached to, and pay for its programs
  --note TEXT    put beside the table
  --write        put the table into docs/performance.md too
  --help
`;

const underlayModes = ["offload", "wire"];

/** What was set out to be reached, vnetd over VXLAN, by the rows it is said of. */
const atLeast = (ratio) => ({ atLeast: ratio });
const atMost = (ratio) => ({ atMost: ratio });
const wanted = {
  "offload host tcp": atLeast(1),
  "wire host tcp": atLeast(0.97),
  "offload host udp": atLeast(1.05),
  "wire host udp": atLeast(1.05),
  "offload host echo": atMost(1),
  "wire host echo": atMost(1),
};

const labels = {
  tcp: { name: "TCP", unit: "Gbit/s" },
  udp: { name: "UDP 64 bytes", unit: "1000 packets/s" },
  echo: { name: "ping median", unit: "µs" },
  echoP99: { name: "ping 99th percentile", unit: "µs" },
};

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
      seconds: { type: "string", default: "2" },
      echoes: { type: "string", default: "20000" },
      "warm-up": { type: "string", default: "4" },
      only: { type: "string", default: underlayModes.join(",") },
      variants: { type: "string", default: Object.keys(variants).join(",") },
      congestion: { type: "string" },
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
    shared: values.shared,
    note: values.note,
    write: values.write,
  };
}

/** One row or two of the table: values by way, a slot for each round; what failed is NaN there. */
class Series {
  /** @param what {variant, mode, place, kind, congestion?} */
  constructor(what, rounds) {
    Object.assign(this, what, { rounds });
    this.values = new Map();
  }

  /** @param measured {value name: number} */
  put(way, round, measured) {
    for (const [name, value] of Object.entries(measured)) {
      const series = this.values.get(name) ?? {};
      series[way] ??= new Array(this.rounds).fill(NaN);
      series[way][round] = value;
      this.values.set(name, series);
    }
  }

  rows() {
    const where = [`${this.place} to ${this.place}`, this.variant.name].filter(Boolean).join(", ");
    const how = this.congestion === undefined ? "" : ` ${this.congestion}`;
    return [...this.values].map(([name, values]) => ({
      name: `${where}, ${labels[name].name}${how}, ${this.mode}`,
      unit: labels[name].unit,
      target:
        this.variant === variants.ipv4 ? wanted[`${this.mode} ${this.place} ${name}`] : undefined,
      merge: this.merge ? "on" : "off",
      values,
    }));
  }

  get title() {
    const kind = [this.kind, this.congestion].filter(Boolean).join(" ");
    return [this.variant.name, this.mode, `${this.place} to ${this.place}`, kind]
      .filter(Boolean)
      .join(", ");
  }
}

const say = (text) => process.stderr.write(text);

/** Another way first in each round. */
const turned = (list, by) => list.map((_, i) => list[(i + by) % list.length]);

const ends = (lab, place) => (place === "host" ? lab.hosts : lab.guests);

/** {value name: number} */
async function measureOnce(lab, { place, kind, congestion }, way, o) {
  const [from, to] = ends(lab, place);
  const target = lab.targets[place][way];
  if (kind === "tcp")
    return { tcp: await tcp(from, to, target, { seconds: o.seconds, congestion }) };
  if (kind === "udp") return { udp: await udp(from, to, target, o.seconds) };
  const { median, p99 } = await echo(from, to, target, o.echoes);
  return { echo: median, echoP99: p99 };
}

/** vnetd alone needs it: the other ways choose nothing. */
async function warmUp(lab, series, o) {
  for (const end = Date.now() + o.warmUpSeconds * 1000; Date.now() < end;) {
    await measureOnce(lab, series, "vnetd", o);
  }
  series.merge = lab.merging();
}

async function runSeries(lab, series, o, failures) {
  say(`bench: ${series.title} `);
  await warmUp(lab, series, o);
  for (let round = 0; round < o.rounds; round += 1) {
    for (const way of turned(ways, round)) {
      if (lab.targets[series.place][way] === undefined) continue;
      try {
        series.put(way, round, await measureOnce(lab, series, way, o));
      } catch (error) {
        failures.push(`${series.title}, ${way}, round ${round + 1}: ${error.message}`);
      }
      say(".");
    }
  }
  if (lab.merging() !== series.merge) {
    failures.push(`${series.title}: merging on receipt changed during the rounds`);
  }
  say(` (merging on receipt: ${series.merge ? "on" : "off"})\n`);
}

/** What is measured of a variant, in one state of the underlay: all of the first, of others what differs. */
function seriesOf(variant, mode, o) {
  const all = [];
  const add = (place, kind, congestion) =>
    all.push(new Series({ variant, mode, place, kind, congestion }, o.rounds));
  const full = variant === variants.ipv4;
  for (const congestion of full ? o.congestion : o.congestion.slice(0, 1))
    add("host", "tcp", congestion);
  add("host", "udp");
  if (!full) return all;
  add("host", "echo");
  add("guest", "tcp", o.congestion[0]);
  add("guest", "udp");
  add("guest", "echo");
  return all;
}

async function measure(lab, o, failures) {
  const all = [];
  for (const place of ["host", "guest"]) {
    for (const target of Object.values(lab.targets[place]))
      await reachable(ends(lab, place)[0], target);
  }
  for (const mode of o.modes) {
    lab.setUnderlay(mode);
    for (const series of seriesOf(lab.variant, mode, o)) {
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
    ["machine", `${cpuModel()}, Linux ${kernel()}`],
    ["load average when it began", load.toFixed(2)],
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
  const rows = [];
  const failures = [];
  for (const name of o.variants) {
    const lab = new Lab({ sharedUnderlay: o.shared, variant: variants[name] });
    try {
      await lab.build();
      rows.push(...(await measure(lab, o, failures)));
    } finally {
      lab.close();
    }
  }
  const text = report(facts(o, load), rows, failures);
  process.stdout.write(`${text}\n`);
  if (o.write) say(`bench: written to ${write(text)}\n`);
  return failures.length === 0 ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exit(1);
}
