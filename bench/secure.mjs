// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets (conf) beside what one would use without vnetd, from host to host, in the same minutes; bench/secure-lab.mjs
 * says what that is. As in bench/main.mjs the ways of a series are measured one directly after the other, each
 * round beginning with another one, and ratios are made within a round. Run by bench/run-secure.
 */
import { echo, tcp, turned, udp } from "./measure.mjs";
import { absolute, cpuModel, kernel, ratioText, ratios, targetsTable } from "./report.mjs";
import {
  cipherFacts,
  ciphers,
  devices,
  emulated,
  SecureLab,
  vxlanBytes,
  wgMtu,
} from "./secure-lab.mjs";
import { main, say } from "./secure-main.mjs";
import { secureTargets, secureTargetsOf } from "./targets.mjs";

const echoes = emulated ? 500 : 20_000;
const ways = Object.keys(devices);

const kinds = {
  tcp: { name: "TCP reno", unit: "Mbit/s" },
  udp: { name: "UDP 64 bytes", unit: "1000 packets/s" },
  echo: { name: "ping median", unit: "µs" },
};

async function measureOnce(lab, kind, target, { seconds }) {
  const [from, to] = lab.hosts;
  if (kind === "tcp")
    return 1000 * (await tcp(from, to, target, { seconds, congestion: "reno" })).gbits;
  if (kind === "udp") return (await udp(from, to, target, { seconds })).thousands;
  return (await echo(from, to, target, echoes)).median;
}

async function runSeries(lab, suite, kind, o) {
  say(`bench: ${ciphers[suite].name}, ${kinds[kind].name} `);
  const values = Object.fromEntries(ways.map((way) => [way, []]));
  const failures = [];
  // the first is a warm-up
  for (let round = -1; round < o.rounds; round += 1) {
    for (const way of turned(ways, Math.max(round, 0))) {
      let value = NaN;
      try {
        value = await measureOnce(lab, kind, lab.target(suite, way), o);
      } catch (error) {
        failures.push(`${ciphers[suite].name}, ${kind}, ${way}: ${error.message}`);
      }
      if (round >= 0) values[way].push(value);
      say(".");
    }
  }
  say("\n");
  return { suite, kind, values, failures };
}

async function measure(o) {
  const lab = new SecureLab();
  try {
    await lab.build();
    const suites = Object.keys(ciphers);
    const series = [];
    for (const suite of suites)
      for (const kind of Object.keys(kinds)) series.push(await runSeries(lab, suite, kind, o));
    return text(lab, series, o);
  } finally {
    lab.close();
  }
}

function row({ suite, kind, values }) {
  const { name, unit } = kinds[kind];
  const cells = [
    ...[values.esp, values.wg, values.vnetd].map(absolute),
    ...[values.esp, values.wg].map((theirs) => ratioText(ratios(values.vnetd, theirs))),
  ];
  return `| ${ciphers[suite].name}: ${name}, ${unit} | ${cells.join(" | ")} |`;
}

/** As report.mjs has them. */
const targetRow = ({ suite, kind, values }) => ({
  name: `${ciphers[suite].name}: ${kinds[kind].name}`,
  unit: kinds[kind].unit,
  targets: secureTargetsOf({ suite, kind }),
  values,
});

function text(lab, series, o) {
  const suites = Object.entries(ciphers);
  const mtus = suites.map(
    ([suite, { name, vxlanMtu }]) => `${name} ${vxlanMtu} and ${lab.mtuOf(suite)}`,
  );
  const emulation = o.instructions
    ? "QEMU, in which each instruction takes 4 ns"
    : "QEMU, which emulates every instruction, the ciphers' too";
  const machine = emulated ? `${emulation}; ` : "";
  return [
    `- taken: ${new Date().toISOString().slice(0, 10)}, Linux ${kernel()}`,
    `- machine: ${machine}${cpuModel()}`,
    `- ciphers: ${cipherFacts()}`,
    `- rounds: ${o.rounds} of ${o.seconds} s, ${echoes} round trips`,
    `- MTU of VXLAN over ESP and of vnetd: ${mtus.join("; ")}; of VXLAN over WireGuard ${wgMtu - vxlanBytes}`,
    "",
    "| host to host | VXLAN over ESP | VXLAN over WireGuard | vnetd conf | vnetd / ESP, median (least–most) | vnetd / WireGuard |",
    "|---|---:|---:|---:|---:|---:|",
    ...series.map(row),
    "",
    targetsTable(series.map(targetRow), secureTargets, {}),
    ...series.flatMap(({ failures }) => failures.map((each) => `\n- ${each}`)),
    "",
  ].join("\n");
}

await main("secure", measure, ["instructions"]);
