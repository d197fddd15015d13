// SPDX-License-Identifier: Apache-2.0
/**
 * The benchmark: bare veth, kernel VXLAN and vnetd, on the same two hosts, in the same minutes.
 *
 * For each state of the underlay ("offload", "wire") the paths are warmed up, so that vnetd's
 * `merge: auto` has seen the traffic and chosen; then come the rounds. A round measures every way
 * once for every kind of traffic, one directly after the other and each round beginning with
 * another one, so that what else the machine does hits all alike; ratios are made within a round.
 *
 * A slow result is a result: the exit code says only whether it could be measured.
 */
import { parseArgs } from "node:util";
import { Lab, targets, ways } from "./lab.mjs";
import { echo, reachable, tcp, udp } from "./measure.mjs";
import { cpuModel, kernel, report, write } from "./report.mjs";

const usage = `usage: bench/run [options]      (root, in a built checkout)
  --rounds N     rounds for each state of the underlay (5)
  --seconds N    of each TCP and UDP measurement (2)
  --echoes N     round trips in each measurement (20000)
  --warm-up N    seconds of TCP before the rounds (4)
  --only LIST    of offload,wire (both)
  --shared       VXLAN and the bare path use the device vnetd is attached to, and pay for its programs
  --note TEXT    put beside the table
  --write        put the table into docs/performance.md too
  --help
`;

const underlayModes = ["offload", "wire"];

/** What issue of a measurement counts as reached, by row; vnetd over VXLAN. */
const wanted = {
  "offload host tcp": { atLeast: 1 },
  "wire host tcp": { atLeast: 0.97 },
  "offload host udp": { atLeast: 1.05 },
  "offload host echo": { atMost: 1 },
};

const kinds = [
  { kind: "tcp", name: "TCP", unit: "Gbit/s" },
  { kind: "udp", name: "UDP, 64 bytes", unit: "1000 packets/s" },
  { kind: "echo", name: "ping, median", unit: "µs" },
  { kind: "echoP99", name: "ping, 99th percentile", unit: "µs" },
];

function options() {
  const number = (text, name, least) => {
    const n = Number(text);
    if (!Number.isInteger(n) || n < least) throw new Error(`--${name} ${text}: a whole number from ${least} is wanted`);
    return n;
  };
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "2" },
      echoes: { type: "string", default: "20000" },
      "warm-up": { type: "string", default: "4" },
      only: { type: "string", default: underlayModes.join(",") },
      shared: { type: "boolean", default: false },
      note: { type: "string" },
      write: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const modes = values.only.split(",");
  for (const mode of modes) {
    if (!underlayModes.includes(mode)) throw new Error(`--only ${mode}: it is one of ${underlayModes.join(", ")}`);
  }
  return {
    help: values.help,
    rounds: number(values.rounds, "rounds", 1),
    seconds: number(values.seconds, "seconds", 1),
    echoes: number(values.echoes, "echoes", 100),
    warmUpSeconds: number(values["warm-up"], "warm-up", 0),
    modes,
    shared: values.shared,
    note: values.note,
    write: values.write,
  };
}

/** Values by "mode place kind" and way, a slot for each round; what failed is NaN there. */
class Results {
  constructor(rounds) {
    this.rounds = rounds;
    this.values = new Map();
    this.failures = [];
  }

  series(key, way) {
    if (!this.values.has(key)) this.values.set(key, {});
    return (this.values.get(key)[way] ??= new Array(this.rounds).fill(NaN));
  }

  put(key, way, round, value) {
    this.series(key, way)[round] = value;
  }

  rows(modes) {
    const rows = [];
    for (const place of ["host", "guest"]) {
      for (const { kind, name, unit } of kinds) {
        for (const mode of modes) {
          const key = `${mode} ${place} ${kind}`;
          const values = this.values.get(key);
          const where = place === "host" ? "host to host" : "guest to guest";
          if (values) rows.push({ name: `${where}, ${name}, ${mode}`, unit, target: wanted[key], values });
        }
      }
    }
    return rows;
  }
}

const say = (text) => process.stderr.write(text);

/** Another way first in each round. */
const turned = (list, by) => list.map((_, i) => list[(i + by) % list.length]);

async function measureRound(lab, results, mode, round, o) {
  for (const place of ["host", "guest"]) {
    const [from, to] = place === "host" ? lab.hosts : lab.guests;
    const there = turned(ways, round).filter((way) => targets[place][way] !== undefined);
    for (const kind of ["tcp", "udp", "echo"]) {
      for (const way of there) {
        const key = `${mode} ${place} ${kind}`;
        try {
          const target = targets[place][way];
          if (kind === "echo") {
            const { median, p99 } = await echo(from, to, target, o.echoes);
            results.put(key, way, round, median);
            results.put(`${key}P99`, way, round, p99);
          } else {
            results.put(key, way, round, await (kind === "tcp" ? tcp : udp)(from, to, target, o.seconds));
          }
        } catch (error) {
          results.failures.push(`${key}, ${way}, round ${round + 1}: ${error.message}`);
        }
        say(".");
      }
    }
  }
}

async function warmUp(lab, o) {
  for (const place of ["host", "guest"]) {
    const [from, to] = place === "host" ? lab.hosts : lab.guests;
    for (const target of Object.values(targets[place])) {
      await reachable(from, target);
      // no round without it: the merging of a path that has carried nothing is undecided
      if (o.warmUpSeconds > 0) await tcp(from, to, target, o.warmUpSeconds);
    }
  }
}

async function measure(lab, o) {
  const results = new Results(o.rounds);
  const merges = {};
  for (const mode of o.modes) {
    lab.setUnderlay(mode);
    say(`bench: ${mode}: warming up ... `);
    await warmUp(lab, o);
    merges[mode] = lab.mergeStates();
    say(`merging on receipt: ${merges[mode].map((on) => (on ? "on" : "off")).join(", ")} (host 1, host 2)\n`);
    for (let round = 0; round < o.rounds; round += 1) {
      say(`bench: ${mode}: round ${round + 1} of ${o.rounds} `);
      await measureRound(lab, results, mode, round, o);
      say("\n");
    }
    const after = lab.mergeStates();
    if (after.join() !== merges[mode].join()) {
      results.failures.push(`${mode}: merging on receipt changed during the rounds, to ${after.join(", ")}`);
    }
  }
  return { results, merges };
}

function facts(o, merges) {
  const chosen = Object.entries(merges).map(([mode, states]) => `${mode}: ${states[1] ? "on" : "off"}`);
  return [
    ["taken", `${new Date().toISOString().slice(0, 10)}${o.note === undefined ? "" : ` (${o.note})`}`],
    ["machine", `${cpuModel()}, Linux ${kernel()}`],
    ["rounds", `${o.rounds} of ${o.seconds} s, ${o.echoes} round trips`],
    ["underlay of VXLAN and of the bare path", o.shared ? "vnetd's" : "a veth pair of their own, like vnetd's"],
    ["merging on receipt, as `merge: auto` chose it", chosen.join(", ")],
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
  if (process.getuid() !== 0) throw new Error("run it as root: it makes network namespaces and loads BPF programs");
  const lab = new Lab({ sharedUnderlay: o.shared });
  try {
    await lab.build();
    const { results, merges } = await measure(lab, o);
    const text = report(facts(o, merges), results.rows(o.modes), results.failures);
    process.stdout.write(`${text}\n`);
    if (o.write) say(`bench: written to ${write(text)}\n`);
    return results.failures.length === 0 ? 0 : 1;
  } finally {
    lab.close();
  }
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exit(1);
}
