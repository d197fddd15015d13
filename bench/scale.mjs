// SPDX-License-Identifier: Apache-2.0
/**
 * How the control plane does with many MACs, vnets and messages. Real daemons on hosts that are network
 * namespaces, joined by a bridge. Run by bench/run-scale; parts, by name:
 *
 *   commands   what vnet-list takes, beside the start of Node itself
 *   vnets      1,000 vnets are created by one file and listed; the daemon's CPU time while nothing happens
 *   start      a daemon with 100 vnets, from its start to the line that says it is ready
 *   varp       announces and requests of another host at a fixed rate: are all taken, and answered? And what becomes of
 *              more than can be (bench/scale-varp.mjs)
 *   hellos     1,000 hosts say hello in 4 vnets: until all are known, and what their regular hellos take
 *   memory     the daemon's memory when the table has 100,000 entries
 *   table      a million entries are loaded as the daemon carries a table over to maps of another layout; its memory
 *   burst      MACs appear at 8 hosts at once, each with a broadcast: until all 8 know all of them
 *
 * Every part counts in the maps or in the kernel what it claims. Times are medians of several rounds where a round
 * is short, and the machine is what it is: what else ran is in the load that is printed.
 */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { addressOf, crowd, macOf } from "./crowd.mjs";
import { HostMaps } from "./host-maps.mjs";
import { Lab } from "./lab.mjs";
import { printed } from "./measure.mjs";
import { fromCommandLine, list, parsed } from "./options.mjs";
import { varpAbove } from "./scale-varp.mjs";

const usage = `usage: bench/run-scale [PART...] [--out FILE]      (root, in a built checkout)
  PART           commands, vnets, start, varp, hellos, memory, table or burst (all); bench/scale.mjs says what they are
  --out FILE     write the table there as well
  --help
`;
const repository = resolve(import.meta.dirname, "..");
const sender = join(repository, "build/bench/scale-send");
const say = (text) => process.stderr.write(`${text}\n`);
const seconds = (value) => `${value.toFixed(2)} s`;
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const nowS = () => performance.now() / 1000;
const vnetId = "00000000000000000000000000000097";
const bigTable = `defaultVnets: false
helloSeconds: 600
ageingSeconds: 600
limits: {entries: 1048576, entriesPerVnet: 1048576, entriesPerHost: 1048576, floodPerSecond: 0}
`;

const rows = [];
/** A line of the table. wanted: what it is to be, in words; isMet: whether it is */
function row(what, wanted, found, isMet) {
  rows.push({ what, wanted, found, isMet });
  say(`  ${what}: ${found} (wanted: ${wanted}) ${isMet ? "met" : "NOT met"}`);
}

class ScaleLab extends Lab {
  /** Hosts on one LAN, at 198.51.100.N. */
  join(count) {
    const lan = this.place("lan");
    lan.ip("link add br0 type bridge mcast_snooping 0");
    lan.ip("link set br0 up");
    while (this.hosts.length < count) this.hosts.push(this.place(`host${this.hosts.length + 1}`));
    this.hosts.forEach((host, i) => {
      const port = `p${i + 1}`;
      host.ip(`link add eth0 type veth peer name ${port} netns ${lan.netns}`);
      lan.ip(`link set ${port} master br0 up`);
      host.ip(`address add 198.51.100.${i + 1}/24 dev eth0`);
      host.ip("link set eth0 up");
      host.address = `198.51.100.${i + 1}`;
    });
  }

  /** The daemon that runVnetd started, with the same files; done when it says that it is ready. */
  startAgain(host, n) {
    const [program, ...args] = host.argv([
      ...[join(repository, "bin/vnetd"), "run", "--run-dir", join(this.directory, `run${n}`)],
      ...["--state-dir", host.stateDir, "--bpffs", join("/sys/fs/bpf", host.netns)],
      ...["--config", join(this.directory, `vnetd${n}.yaml`), "--metrics-listen", "off"],
    ]);
    const daemon = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    return new Promise((done, failed) => {
      const hear = (text) => {
        said = (said + text).slice(-65536);
        if (/\bready\b/i.test(said)) done();
      };
      for (const stream of [daemon.stdout, daemon.stderr])
        stream.setEncoding("utf8").on("data", hear);
      daemon.on("exit", (code) => failed(new Error(`vnetd run ended (${code}):\n${said}`)));
    });
  }

  pidOf({ netns }) {
    const pids = spawnSync("ip", ["netns", "pids", netns], { encoding: "utf8" }).stdout;
    const isDaemon = (pid) => / run /.test(commandOf(pid)) && /node/.test(commandOf(pid));
    const [pid] = pids.split(/\s+/).filter((each) => each !== "" && isDaemon(each));
    if (pid === undefined) throw new Error(`no daemon in ${netns}`);
    return pid;
  }

  /** VARP messages that were not taken or answered, by reason */
  refusedOf(host) {
    const { drops } = JSON.parse(host.vnetd("status", "--json"));
    const counts = new Map();
    for (const { reason, frames } of drops) counts.set(reason, (counts.get(reason) ?? 0) + frames);
    return counts;
  }

  send(host, args, input = "") {
    return printed(host.argv([sender, ...args.map(String)]), input);
  }
}

const commandOf = (pid) => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
};

/** CPU time of all of a process's threads, in seconds; the scheduler counts nanoseconds, where /proc/PID/stat has ticks of 10 ms */
function cpuOf(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  const ns = threads.map((each) =>
    Number(readFileSync(`/proc/${pid}/task/${each}/schedstat`, "utf8").split(" ")[0]),
  );
  return ns.reduce((sum, each) => sum + each, 0) / 1e9;
}

/** Per cent of a CPU that a daemon takes with nothing to do, once it has been at it for a while: Node compiles what it runs often. */
async function idlePercent(pid) {
  await delay(30_000);
  const before = cpuOf(pid);
  const began = nowS();
  await delay(60_000);
  return ((cpuOf(pid) - before) / (nowS() - began)) * 100;
}

const residentMiB = (pid) =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

async function until(what, isSo, timeoutS, everyMs = 10) {
  const start = nowS();
  while (!isSo()) {
    if (nowS() - start > timeoutS) throw new Error(`${what}: not after ${timeoutS} s`);
    await delay(everyMs);
  }
  return nowS() - start;
}

function timed(argv) {
  const start = nowS();
  const { status, stderr } = spawnSync(argv[0], argv.slice(1), { encoding: "utf8" });
  if (status !== 0) throw new Error(`${argv.join(" ")}: ${stderr}`);
  return nowS() - start;
}

function vnetsFile(lab, count) {
  const ids = Array.from({ length: count }, (_, at) => (at + 256).toString(16));
  const text = ids.map((id) => `- {id: ${id}, bridge: none}`).join("\n");
  return lab.file("vnets.yaml", `vnets:\n${text}\n`);
}

const parts = {
  async commands(lab) {
    const [host] = lab.hosts;
    await lab.runVnetd(host, 1, "");
    const node = host.argv([process.execPath, "-e", "0"]);
    const list = host.argv([
      ...[join(repository, "bin/vnetd"), "vnet-list"],
      ...["--run-dir", join(lab.directory, "run1")],
    ]);
    const rounds = Array.from({ length: 15 }, () => ({ node: timed(node), list: timed(list) }));
    const ratio = median(rounds.map((each) => each.list / each.node));
    const ms = (key) => `${Math.round(1000 * median(rounds.map((each) => each[key])))} ms`;
    row(
      "`vnet-list`, beside the start of Node",
      "≤ 1.5 x",
      `${ratio.toFixed(2)} x (${ms("list")}, ${ms("node")})`,
      ratio <= 1.5,
    );
  },

  async vnets(lab) {
    const [host] = lab.hosts;
    await lab.runVnetd(host, 1, "defaultVnets: false\n");
    const file = vnetsFile(lab, 1000);
    const start = nowS();
    host.vnetd("vnet-create", file);
    const created = nowS() - start;
    const count = JSON.parse(host.vnetd("vnets", "--json")).length;
    if (count !== 1000) throw new Error(`${count} vnets`);
    row("1,000 vnets created", "10 s", seconds(created), created <= 10);
    const listed = median(
      Array.from({ length: 7 }, () => {
        const from = nowS();
        host.vnetd("vnets");
        return nowS() - from;
      }),
    );
    row("1,000 vnets listed", "0.3 s", seconds(listed), listed <= 0.3);
    const pid = lab.pidOf(host);
    // links in place of the filters that they are made with, and hellos of the new vnets
    const maps = new HostMaps(host.netns);
    await until("links", () => maps.linkCount() >= 1000, 600);
    maps.close();
    const percent = await idlePercent(pid);
    row("idle, 1,000 vnets, CPU", "stated", `${percent.toFixed(2)} %`, true);
  },

  async start(lab) {
    const [host] = lab.hosts;
    await lab.runVnetd(host, 1, "defaultVnets: false\n");
    host.vnetd("vnet-create", vnetsFile(lab, 100));
    const starts = [];
    for (let round = 0; round < 5; round += 1) {
      const pid = lab.pidOf(host);
      process.kill(Number(pid), "SIGTERM");
      await until("the daemon to end", () => commandOf(pid) === "", 30);
      const from = nowS();
      await lab.startAgain(host, 1);
      starts.push(nowS() - from);
    }
    const took = median(starts);
    row("daemon ready, 100 vnets", "0.5 s", seconds(took), took <= 0.5);
    const pid = lab.pidOf(host);
    const percent = await idlePercent(pid);
    row("idle, 100 vnets, CPU", "0.2 %", `${percent.toFixed(2)} %`, percent < 0.2);
  },

  async varp(lab) {
    const [host, other] = lab.hosts;
    await lab.runVnetd(host, 1, bigTable);
    host.vnetd("vnet-create", "97");
    const vmac = JSON.parse(host.vnetd("vnets", "--json"))[0].vmac;
    const own = BigInt(`0x${vmac.replaceAll(":", "")}`);
    const perSecond = 100_000;
    const maps = new HostMaps(host.netns);
    for (const [what, opcode, first, to, key] of [
      ["announces taken", 2, 0, "224.10.0.1", "taken"],
      ["requests answered", 1, own, host.address, "answered"],
    ]) {
      const before = maps.varpStats()[key];
      const count = perSecond * 5;
      const { seconds: took } = await lab.send(other, [
        ...["varp", other.address, to, 1798, vnetId, opcode, first, count, perSecond],
      ]);
      await delay(500);
      const done = Number(maps.varpStats()[key] - before);
      const rate = Math.round(count / took / 1000);
      row(
        `VARP ${what}, ${rate},000 a second for ${took.toFixed(1)} s`,
        "100,000 a second, none dropped",
        `${done.toLocaleString("en")} of ${count.toLocaleString("en")}`,
        done === count && rate >= 95,
      );
    }
    host.vnetd("vnet-create", "98");
    await varpAbove(lab, maps, row);
    maps.close();
  },

  async hellos(lab) {
    const [host, other] = lab.hosts;
    const hosts = 1000;
    const vnets = ["97", "98", "99", "9a"];
    await lab.runVnetd(host, 1, "defaultVnets: false\n");
    for (const vnet of vnets) host.vnetd("vnet-create", vnet);
    // answers go to hosts that there are not
    host.ip("route add 198.18.0.0/15 dev eth0");
    const neighbours = Array.from(
      { length: hosts },
      (_, n) => `neighbour add ${addressOf(n)} lladdr ${macOf(n)} dev eth0 nud permanent\n`,
    );
    host.run(["ip", "-batch", lab.file("neighbours", neighbours.join(""))]);
    await delay(6000);
    const pid = lab.pidOf(host);
    const maps = new HostMaps(host.netns);
    const known = () => [...maps.members().values()].reduce((sum, each) => sum + each, 0);
    const hear = async ({ count, bytes }, perSecond) => {
      const before = { cpu: cpuOf(pid), refused: lab.refusedOf(host) };
      const from = nowS();
      const { seconds: took } = await lab.send(other, ["replay", "eth0", perSecond], bytes);
      const isAll = until("all hosts", () => known() >= hosts * vnets.length, 8, 50);
      await isAll.catch(() => undefined);
      const all = nowS() - from;
      await delay(500);
      const after = lab.refusedOf(host);
      const lost = (reason) => (after.get(reason) ?? 0) - (before.refused.get(reason) ?? 0);
      const cpu = cpuOf(pid) - before.cpu;
      const each = cpu / (count - lost("varp_queue_full"));
      return { count, rate: count / took, all, each, lost };
    };
    const text = ({ count, rate, each, lost }) =>
      `${count.toLocaleString("en")} messages at ${Math.round(rate).toLocaleString("en")} a second, ` +
      `${lost("varp_queue_full")} lost, ${Math.round(each * 1e6)} µs of CPU each`;
    const came = await hear(crowd({ hosts, vnets, solicit: true }), 5000);
    row(
      `${hosts.toLocaleString("en")} hosts appear in ${vnets.length} vnets: all known`,
      "stated",
      `${seconds(came.all)} (${known().toLocaleString("en")} of ${(hosts * vnets.length).toLocaleString("en")}); ` +
        `${text(came)}, ${came.lost("varp_rate")} not answered`,
      known() === hosts * vnets.length,
    );
    const regular = await hear(crowd({ hosts, vnets, solicit: false, rounds: 20 }), 5000);
    row(
      "their regular hellos, in lists",
      "5,000 a second, none lost",
      text(regular),
      regular.lost("varp_queue_full") === 0 && regular.rate >= 4750,
    );
    maps.close();
  },

  async memory(lab) {
    const [host, other] = lab.hosts;
    await lab.runVnetd(host, 1, bigTable);
    host.vnetd("vnet-create", "97");
    const args = ["varp", other.address, "224.10.0.1", 1798, vnetId, 2, 0, 100_000, 50_000];
    await lab.send(other, args);
    await delay(500);
    const maps = new HostMaps(host.netns);
    const entries = maps.entries();
    maps.close();
    if (entries < 100_000) throw new Error(`${entries} entries`);
    const mib = residentMiB(lab.pidOf(host));
    row("resident, 100,000 entries", "100 MiB", `${mib.toFixed(0)} MiB`, mib < 100);
  },

  async table(lab) {
    // loadNative and the rest in a process of their own, whose memory is looked at
    const args = ["--expose-gc", join(import.meta.dirname, "scale-table.mjs"), "1000000"];
    const [program, ...rest] = lab.hosts[0].argv([process.execPath, ...args]);
    const { status, stdout, stderr } = spawnSync(program, rest, { encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
    const { entries, seconds: took, moreMiB } = JSON.parse(stdout);
    row(
      `${entries.toLocaleString("en")} table entries loaded`,
      "1,000,000 in 2 s, no copy in the daemon",
      `${seconds(took)}, ${moreMiB.toFixed(1)} MiB more in the process`,
      entries === 1_000_000 && took <= 2,
    );
  },

  async burst(lab) {
    const perHost = 16_500;
    const all = perHost * lab.hosts.length;
    for (const [i, host] of lab.hosts.entries()) {
      await lab.runVnetd(host, i + 1, bigTable);
      host.vnetd("vnet-create", "97");
      host.ip("link set vnif0097 up");
    }
    await delay(3000);
    const start = nowS();
    const sent = lab.hosts.map((host, i) =>
      lab.send(host, ["frames", "vnif0097", perHost, (i + 1) * 0x100000]),
    );
    const maps = lab.hosts.map((host) => new HostMaps(host.netns));
    const known = () => Math.min(...maps.map((each) => each.entries()));
    let took;
    try {
      // seldom: what asks takes CPU time from the hosts
      await until("the MACs to be known", () => known() >= all, 60, 50);
      took = nowS() - start;
    } catch {
      took = Infinity;
    }
    await Promise.all(sent);
    row(
      `a burst of ${all.toLocaleString("en")} MACs known at all 8 hosts`,
      "5 s",
      took === Infinity ? `${known().toLocaleString("en")} after a minute` : seconds(took),
      took <= 5,
    );
    for (const each of maps) each.close();
  },
};

const { out, names } = fromCommandLine(usage, () => {
  const { values, positionals } = parsed({ out: { type: "string" } }, true);
  const all = Object.keys(parts);
  const given = positionals.length === 0 ? all : list(positionals.join(","), "part", all);
  return { help: values.help, out: values.out, names: given };
});
const [load] = loadavg();
for (const name of names) {
  say(name);
  const lab = new ScaleLab();
  try {
    lab.join({ burst: 8, varp: 3 }[name] ?? 2);
    await parts[name](lab);
  } finally {
    lab.close();
  }
}
const model = /^model name\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "?";
const text = [
  `${new Date().toISOString().slice(0, 10)}, Linux ${release()}, ${cpus().length} CPUs (${model}), Node ${process.version}, load ${load.toFixed(1)} when it began`,
  "",
  "| what | wanted | found | |",
  "| ---- | ------ | ----- | - |",
  ...rows.map(
    ({ what, wanted: aim, found, isMet }) =>
      `| ${what} | ${aim} | ${found} | ${isMet ? "met" : "not met"} |`,
  ),
  "",
].join("\n");
console.log(text);
if (out !== undefined) writeFileSync(out, text);
process.exit(0);
