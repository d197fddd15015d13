// SPDX-License-Identifier: Apache-2.0
/**
 * What merging on receipt brings and costs: the same traffic with `merge: on` and with `merge: off`, on one lab, by
 * `vnetd reload` between two measurements. Rounds and ratios are as in bench/main.mjs. Run by `bench/run merge`.
 */
import { writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Lab, variants } from "./lab.mjs";
import { reachable, turned } from "./measure.mjs";
import { fromCommandLine, number, parsed } from "./options.mjs";
import { absolute, cpuModel, kernel, ratioText, ratios, takesProgramTimes } from "./report.mjs";
import { Series } from "./series.mjs";

const usage = `usage: bench/run merge [options]      (root, in a built checkout)
  --rounds N     of each series (7)
  --seconds N    of each measurement (1)
  --help
`;
const states = ["off", "on"];
const series = ["host", "guest"].flatMap((place) => [
  { place, kind: "tcp" },
  { place, kind: "udp64" },
  { place, kind: "udp1400" },
]);

const say = (text) => process.stderr.write(text);

/** Resolves when the device has it. */
async function setMerging(lab, state) {
  lab.hosts.forEach((host, i) => {
    writeFileSync(join(lab.directory, `vnetd${i + 1}.yaml`), `merge: ${state}\n`);
    host.vnetd("reload");
  });
  for (const end = Date.now() + 10_000; lab.merging() !== (state === "on"); await delay(50))
    if (Date.now() > end) throw new Error(`merging is not ${state} 10 s after the reload`);
}

/** Rows of the table. */
async function measure(lab, { place, kind }, o) {
  const what = { variant: variants.ipv4, mode: "wire", place, kind, congestion: "reno" };
  const measured = new Series(
    { ...what, congestion: kind === "tcp" ? "reno" : undefined },
    o.rounds,
  );
  say(`bench: ${measured.title} `);
  // the first is a warm-up
  for (let round = -1; round < o.rounds; round += 1) {
    for (const state of turned(states, Math.max(round, 0))) {
      await setMerging(lab, state);
      const values = await measured.measure(lab, "vnetd", o);
      if (round >= 0) measured.put(state, round, values);
      say(".");
    }
  }
  say("\n");
  return measured.rows().map(({ name, unit, values: { off, on } }) => {
    const cells = [absolute(off), absolute(on), ratioText(ratios(on, off))];
    return `| ${name}, ${unit} | ${cells.join(" | ")} |`;
  });
}

const o = fromCommandLine(usage, () => {
  const text = { type: "string" };
  const { values } = parsed({ rounds: text, seconds: text });
  return {
    help: values.help,
    rounds: number(values.rounds ?? "7", "rounds"),
    seconds: number(values.seconds ?? "1", "seconds"),
  };
});
const [load] = loadavg();
const lab = new Lab();
try {
  await lab.build();
  for (const place of ["host", "guest"])
    await reachable(lab.ends(place)[0], lab.targets[place].vnetd);
  lab.setUnderlay("wire");
  const rows = [];
  for (const each of series) rows.push(...(await measure(lab, each, o)));
  const date = new Date().toISOString().slice(0, 10);
  const timed = takesProgramTimes() ? ", `kernel.bpf_stats_enabled` 1" : "";
  const where = `${date}, ${cpuModel()}, Linux ${kernel()}, load average ${load.toFixed(1)} when it began${timed}`;
  const head = ["| | `off` | `on` | on / off, median (least–most) |", "|---|---:|---:|---:|"];
  console.log([`${where}; ${o.rounds} rounds of ${o.seconds} s:`, "", ...head, ...rows].join("\n"));
} finally {
  lab.close();
}
process.exit(0);
