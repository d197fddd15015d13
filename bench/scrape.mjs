// SPDX-License-Identifier: Apache-2.0
/**
 * How long /metrics takes on a host with many vnets, and whether the daemon misses VARP requests meanwhile.
 *
 * A host with a daemon and N vnets of 20 series each (13 of every vnet, and drops of 7 reasons, which are written
 * into the map, since it is the reading that is measured); a second host asks 500 times a second where the MACs of the
 * vnets' interfaces live. First nobody scrapes, then somebody does, without a pause between two scrapes. A
 * scrape is timed where Prometheus stands: from the request to the last byte. Run by bench/run-scrape.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join } from "node:path";
import {
  encodeVnetdDropCount,
  encodeVnetdDropKey,
  reasonNames,
} from "../dist/src/generated/layouts.js";
import { loadNative } from "../dist/src/native/load.js";
import { Lab } from "./lab.mjs";
import { fromCommandLine, number, parsed } from "./options.mjs";

const usage = `usage: bench/run-scrape [options]      (root, in a built checkout)
  --vnets N      of the host that is scraped (1000)
  --seconds N    with scrapes and without (10)
  --help
`;
const { vnetCount, seconds } = fromCommandLine(usage, () => {
  const { values } = parsed({
    vnets: { type: "string", default: "1000" },
    seconds: { type: "string", default: "10" },
  });
  return {
    help: values.help,
    vnetCount: number(values.vnets, "vnets"),
    seconds: number(values.seconds, "seconds"),
  };
});
const perSecond = 500;
const addresses = ["198.51.100.1", "198.51.100.2"];
const dropped = [
  "storm",
  "too_big",
  "no_memory",
  "short_frame",
  "refused_host_limit",
  "vnet_down",
  "loop",
];
const wantedMs = 100;

const say = (text) => process.stderr.write(`${text}\n`);

class ScrapeLab extends Lab {
  async build() {
    const [one, two] = this.hosts;
    one.ip(`link add eth0 type veth peer name eth0 netns ${two.netns}`);
    this.hosts.forEach((host, i) => {
      host.ip(`address add ${addresses[i]}/24 dev eth0`);
      host.ip("link set eth0 up");
    });
    await this.runVnetd(one, 1, "defaultVnets: false\n", { metrics: "127.0.0.1:11798" });
    this.makeVnets(one);
    this.vnets = JSON.parse(one.vnetd("vnets", "--json"));
    this.writeDrops(one);
  }

  /** 100 at once, as people make them by a file. */
  makeVnets(host) {
    for (let from = 0; from < vnetCount; from += 100) {
      const ids = Array.from(
        { length: Math.min(100, vnetCount - from) },
        (_, at) => from + at + 256,
      );
      const text = ids.map((id) => `- {id: ${id.toString(16)}, bridge: none}`).join("\n");
      host.vnetd("vnet-create", this.file("vnets.yaml", `vnets:\n${text}\n`));
      say(`  ${from + ids.length} vnets`);
    }
  }

  writeDrops(host) {
    const native = loadNative();
    const path = join("/sys/fs/bpf", host.netns, "layout-1/drops");
    if (!existsSync(path)) throw new Error(`there is no map ${path}`);
    const fd = native.objectGet(path);
    const count = encodeVnetdDropCount({ frames: 7n, bytes: 700n });
    for (const { handle } of this.vnets)
      for (const name of dropped) {
        const reason = reasonNames.indexOf(name);
        if (reason < 0) throw new Error(`there is no reason ${name}`);
        native.mapUpdate(fd, encodeVnetdDropKey({ handle, direction: 1, reason }), count);
      }
    native.close(fd);
  }
}

/** A process in a host's namespace: what it prints. */
function inside(host, script, input) {
  const [program, ...args] = host.argv([process.execPath, ...script]);
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(input);
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (out += text));
  return new Promise((done, failed) => {
    child.on("error", failed);
    child.on("close", (code) => (code === 0 ? done(out) : failed(new Error(`exit ${code}`))));
  });
}

const scraper = `
const { setTimeout: delay } = require("node:timers/promises");
const untilMs = performance.now() + ${seconds * 1000};
const agent = new (require("node:http").Agent)({ keepAlive: true });
const scrape = () => new Promise((done, failed) => {
  require("node:http").get({ host: "127.0.0.1", port: 11798, path: "/metrics", agent }, (response) => {
    const parts = [];
    response.on("data", (part) => parts.push(part)).on("end", () => done(Buffer.concat(parts)));
  }).on("error", failed);
});
(async () => {
  const times = [];
  let page;
  const cpuMs = (text) => 1000 * Number(/^process_cpu_seconds_total (.*)$/m.exec(text)[1]);
  const before = cpuMs((await scrape()).toString());
  while (performance.now() < untilMs) {
    const startMs = performance.now();
    page = await scrape();
    times.push(performance.now() - startMs);
  }
  times.sort((a, b) => a - b);
  const lines = page.toString().split("\\n");
  console.log(JSON.stringify({
    count: times.length,
    medianMs: times[Math.floor(times.length / 2)],
    p90Ms: times[Math.floor(times.length * 0.9)],
    worstMs: times.at(-1),
    cpuMs: (cpuMs(page.toString()) - before) / times.length,
    bytes: page.length,
    series: lines.filter((line) => line !== "" && line[0] !== "#").length,
    ofVnets: lines.filter((line) => line.includes('vnet="0')).length,
  }));
})();`;

const ask = (lab) =>
  inside(
    lab.hosts[1],
    [join(import.meta.dirname, "varp-asker.mjs")],
    JSON.stringify({
      ...{ own: addresses[1], to: addresses[0], port: 1798, perSecond, seconds },
      vnets: lab.vnets.map(({ id, vmac }) => ({ id, vmac })),
    }),
  ).then((text) => JSON.parse(text));

const ms = (value) => `${value.toFixed(1)} ms`;
const asked = (what, { sent, unanswered, medianMs, p99Ms, worstMs }) =>
  `${what}: ${sent} VARP requests, ${unanswered} without an answer; median ${ms(medianMs)}, ` +
  `99th percentile ${ms(p99Ms)}, worst ${ms(worstMs)}`;

const lab = new ScrapeLab();
try {
  say(`making a host with ${vnetCount} vnets`);
  await lab.build();
  const before = await ask(lab);
  const [scrapes, during] = await Promise.all([
    inside(lab.hosts[0], ["-e", scraper], "").then((text) => JSON.parse(text)),
    ask(lab),
  ]);
  const model = /^model name\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "?";
  const { count, medianMs, p90Ms, worstMs, cpuMs, series, ofVnets, bytes } = scrapes;
  console.log(`Linux ${release()}, ${cpus().length} CPUs, ${model}`);
  console.log(
    `${lab.vnets.length} vnets, ${series} series (${(ofVnets / lab.vnets.length).toFixed(1)} a vnet), ${bytes} bytes`,
  );
  console.log(
    `scrape: median ${ms(medianMs)}, 90th percentile ${ms(p90Ms)}, worst ${ms(worstMs)} of ${count}, one after the other`,
  );
  // all that it does meanwhile: on a machine that is busy with other things the number to go by
  console.log(`CPU of the daemon for each: ${ms(cpuMs)}`);
  console.log(asked("nobody scrapes", before));
  console.log(asked("scraped without a pause", during));
  const isFast = medianMs < wantedMs;
  const isWhole = during.unanswered <= before.unanswered;
  console.log(
    `${isFast ? "under" : "NOT under"} ${wantedMs} ms, ${isWhole ? "no" : "SOME"} request missed`,
  );
} finally {
  lab.close();
}
process.exit(0);
