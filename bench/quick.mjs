// SPDX-License-Identifier: Apache-2.0
/**
 * `make bench-quick`: whether vnetd has become slower, in less than two minutes.
 *
 * A few of the benchmark's series, by ratio against the kernel's VXLAN in the same rounds, so that neither the
 * machine's speed nor what else it does decides; and how many instructions the programs have, which do not vary at
 * all. The limits are in bench/quick.json; they leave room for noise. Exit code 1: something is beyond its limit.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { lanes } from "./frames.mjs";
import { Lab, variants } from "./lab.mjs";
import { reachable, turned } from "./measure.mjs";
import { sizes } from "./programs.mjs";
import { median } from "./report.mjs";
import { Series } from "./series.mjs";

const rounds = 5;
const warmUps = 2;
const options = { seconds: 1, echoes: 5000 };
const limits = JSON.parse(readFileSync(join(import.meta.dirname, "quick.json"), "utf8"));

const say = (text) => process.stdout.write(`${text}\n`);

/** The ratio to VXLAN of each of a series' values, as the median of the rounds. way: "vnetd" or "port" */
async function ratiosOf(lab, { place, kind, way }) {
  const series = new Series(
    { variant: variants.ipv4, mode: "wire", place, kind, congestion: "reno" },
    rounds,
  );
  for (let i = 0; i < warmUps; i += 1) await series.measure(lab, way, options);
  for (let round = 0; round < rounds; round += 1) {
    for (const each of turned(["vxlan", way], round))
      series.put(each, round, await series.measure(lab, each, options));
  }
  return new Map(
    [...series.values].map(([name, { vxlan, [way]: ours }]) => [
      name,
      median(ours.map((value, i) => value / vxlan[i])),
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
      for (const target of Object.values(lab.targets[place]))
        await reachable(lab.ends(place)[0], target);
    }
    lab.setUnderlay("wire");
    lab.lanes = lanes(lab);
    if (lab.missing.port !== undefined) throw new Error(lab.missing.port);
    for (const { name, instructions } of sizes(lab)) {
      const limit = limits.instructions[name];
      if (limit === undefined) throw new Error(`bench/quick.json has no limit for ${name}`);
      verdicts.push(judge(`size of ${name}, instructions`, instructions, limit, 0));
    }
    for (const series of limits.series) {
      const found = await ratiosOf(lab, { way: "vnetd", ...series });
      for (const [name, limit] of Object.entries(series.limits)) {
        const ours = series.way === "port" ? "direct ports" : "vnetd";
        const text = `${series.place} to ${series.place}, ${name}, ${ours} / VXLAN`;
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
