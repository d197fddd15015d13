// SPDX-License-Identifier: Apache-2.0
/**
 * `make bench-quick`: whether vnetd has become slower, in less than two minutes.
 *
 * A few of the benchmark's series, by ratio against the kernel's VXLAN in the same rounds, so that neither the
 * machine's speed nor what else it does decides; and the number of instructions of the programs, which do not vary at
 * all. The limits are in bench/quick.json; they leave room for noise. Exit code 1: something is beyond its limit.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { lanes, programs } from "./frames.mjs";
import { Lab, variants } from "./lab.mjs";
import { reachable } from "./measure.mjs";
import { median } from "./report.mjs";
import { Series } from "./series.mjs";

const rounds = 5;
const warmUps = 2;
const programRuns = 2000;
const options = { seconds: 1, echoes: 5000 };
const limits = JSON.parse(readFileSync(join(import.meta.dirname, "quick.json"), "utf8"));

const say = (text) => process.stdout.write(`${text}\n`);

/** The ratio to VXLAN of each of a series' values, as the median of the rounds. */
async function ratiosOf(lab, { place, kind }) {
  const series = new Series(
    { variant: variants.ipv4, mode: "wire", place, kind, congestion: "reno" },
    rounds,
  );
  for (let i = 0; i < warmUps; i += 1) await series.measure(lab, "vnetd", options);
  for (let round = 0; round < rounds; round += 1) {
    for (const way of round % 2 === 0 ? ["vxlan", "vnetd"] : ["vnetd", "vxlan"])
      series.put(way, round, await series.measure(lab, way, options));
  }
  return new Map(
    [...series.values].map(([name, { vnetd, vxlan }]) => [
      name,
      median(vnetd.map((value, i) => value / vxlan[i])),
    ]),
  );
}

/** One line; false: beyond the limit. */
function judge(name, value, { atLeast, atMost }, digits) {
  const fine = atLeast === undefined ? value <= atMost : value >= atLeast;
  const limit = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
  say(`${fine ? "ok  " : "SLOW"} ${name}: ${value.toFixed(digits)} (${limit})`);
  return fine;
}

async function main() {
  if (process.getuid() !== 0) throw new Error("run it as root: it makes network namespaces");
  const lab = new Lab();
  const verdicts = [];
  try {
    await lab.build();
    for (const place of ["host", "guest"]) {
      for (const way of ["vxlan", "vnetd"])
        await reachable(lab.ends(place)[0], lab.targets[place][way]);
    }
    lab.setUnderlay("wire");
    lab.lanes = lanes(lab);
    for (const { name, instructions } of programs(lab, programRuns))
      verdicts.push(judge(`instructions of ${name}`, instructions, limits.instructions[name], 0));
    for (const series of limits.series) {
      const found = await ratiosOf(lab, series);
      for (const [name, limit] of Object.entries(series.limits)) {
        const text = `${series.place} to ${series.place}, ${name}, vnetd / VXLAN`;
        verdicts.push(judge(text, found.get(name), limit, 2));
      }
    }
  } finally {
    lab.close();
  }
  return verdicts.every(Boolean) ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`bench-quick: ${error.message}\n`);
  process.exit(2);
}
