// SPDX-License-Identifier: Apache-2.0
/**
 * Many hosts with real daemons on one LAN, which is a bridge in a namespace of its own, and each a namespace:
 *
 *   cold start      all daemons are started, a few at a time, then vnets are made; from the last one until each host knows all others
 *   at rest         bytes and frames that a host sends and hears when nothing happens
 *   guests appear   many MACs are heard on one host within some milliseconds: what it takes to tell all others (of more than
 *                   512 at once BPF does not tell its daemon: bpf/lib/event.h)
 *   a guest moves   a MAC that was on one host appears on another: until no host has it at the old one
 *   a rack reboots  40 of 64 hosts lose daemon, programs, maps and their ids at once, and come back as new ones
 *   loss            the last two once more while one packet in a hundred is lost at each port of the switch
 *
 * The machine runs all of the daemons, so what takes their CPU (64 Nodes that start on two cores) is not a property of the
 * protocol: times are given from the moment at which the last daemon has made its vnets. The model is beside each figure. What a
 * host knows is read from its maps. Two limits that real hosts have one by one are raised for all together (bench/kernel-settings.mjs).
 * Run by bench/run-fleet.
 */
import { execFileSync, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiClient } from "../dist/src/api/client.js";
import { HostMaps } from "./host-maps.mjs";
import { announced, appear, steady } from "./fleet-model.mjs";
import { capacity, kB, modelTables, s, shape } from "./fleet-predict.mjs";
import { lostByKernel, raiseForHosts } from "./kernel-settings.mjs";
import { Lab, run } from "./lab.mjs";
import { fromCommandLine, number, parsed } from "./options.mjs";
import { write } from "./report.mjs";

const usage = `usage: bench/run-fleet [options]      (root, in a built checkout)
  --hosts N      with a daemon each (64)
  --vnets N      on each host (4)
  --hello N      seconds between the hellos of a vnet (30)
  --guests N     that appear on a host (500)
  --seconds N    for which hosts are watched at rest (60)
  --model        what the model says alone, nothing is started
  --write        put the tables into docs/scaling.md too
  --help
`;
const numbers = { hosts: "64", vnets: "4", hello: "30", guests: "500", seconds: "60" };
const values = fromCommandLine(usage, () => {
  const texts = Object.entries(numbers).map(([name, text]) => [
    name,
    { type: "string", default: text },
  ]);
  const { values: given } = parsed({
    ...Object.fromEntries(texts),
    model: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  });
  const read = Object.keys(numbers).map((name) => [name, number(given[name], name)]);
  return { ...given, ...Object.fromEntries(read) };
});
const { hosts, vnets: vnetCount, hello: helloSeconds, guests, seconds } = values;
const protocol = { vnets: vnetCount, helloSeconds };
const repository = resolve(import.meta.dirname, "..");
const lossObject = join(repository, "build/bench/loss.bpf.o");
const rack = Math.round((hosts * 40) / 64);
const say = (text) => process.stderr.write(`${text}\n`);
const idOf = (n) => (0x100 + n).toString(16).padStart(4, "0");
const nameOf = (n) => `host-${String(n)}`;
/** as many at a time as there are CPUs to start them */
async function each(items, look) {
  const left = [...items];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await look(item);
  };
  await Promise.all(Array.from({ length: cpus().length }, worker));
}

// ---- real hosts

/** a frame of 60 bytes on the underlay: outer Ethernet, IPv4, UDP and VUDP in front of it */
const carriedBytes = 14 + 20 + 8 + 22 + 60;

class Fleet extends Lab {
  constructor() {
    super();
    this.switch = this.place("switch");
    this.switch.ip("link add lan type bridge forward_delay 0 stp_state 0 mcast_snooping 0");
    this.switch.ip("link set lan up");
    this.members = [];
  }

  add(n) {
    const host = this.place(`h${n}`);
    // no neighbour or router discovery of the kernel's on what is measured
    host.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"]);
    host.ip(`link add eth0 type veth peer name p${n} netns ${this.switch.netns}`);
    this.switch.ip(`link set p${n} master lan up`);
    host.ip(`address add 10.64.${n >> 8}.${(n & 255) + 1}/16 dev eth0`);
    host.ip("link set eth0 up");
    host.n = n;
    host.runDir = join(this.directory, `r${n}`);
    host.arguments = [
      ...["run", "--run-dir", host.runDir, "--state-dir", join(this.directory, `s${n}`)],
      ...["--bpffs", join("/sys/fs/bpf", host.netns), "--metrics-listen", "off", "--config"],
      this.file(
        `c${n}.yaml`,
        `attach: [eth0]\ndefaultVnets: false\nhelloSeconds: ${helloSeconds}\n`,
      ),
    ];
    this.members.push(host);
    return host;
  }

  async start(host) {
    const argv = host.argv([join(repository, "bin/vnetd"), ...host.arguments]);
    // the host's name is what hellos say
    host.daemon = spawn(
      "unshare",
      ["--uts", "sh", "-c", `hostname ${nameOf(host.n)}; exec "$@"`, "sh", ...argv],
      {
        stdio: ["ignore", "ignore", "pipe"],
      },
    );
    let said = "";
    host.daemon.stderr
      .setEncoding("utf8")
      .on("data", (text) => (said = (said + text).slice(-4096)));
    const deadline = Date.now() + 120_000;
    for (;;) {
      if (host.daemon.exitCode !== null) throw new Error(`a daemon ended:\n${said}`);
      try {
        await this.connect(host);
        // it answers when it stands
        await host.client.request("vnets", {});
        break;
      } catch (error) {
        if (Date.now() > deadline) throw new Error(`no daemon answers: ${said}`, { cause: error });
        await sleep(100);
      }
    }
    host.id = (await this.ask(host, "status", {})).hostId;
    host.maps = new HostMaps(host.netns);
  }

  async connect(host) {
    host.client = await ApiClient.connect({ runDir: host.runDir, answerTimeoutMs: 120_000 });
  }

  /** A daemon closes a connection by which nothing came for ten minutes: so long many others may take to start. */
  async ask(host, method, params) {
    try {
      return await host.client.request(method, params);
    } catch (error) {
      if (error.code !== "CONNECTION_LOST") throw error;
      await this.connect(host);
      return await host.client.request(method, params);
    }
  }

  async makeVnets(host) {
    const vnets = Array.from({ length: vnetCount }, (_, at) => `- {id: ${idOf(at)}, bridge: none}`);
    const text = `vnets:\n${vnets.join("\n")}\n`;
    await this.ask(host, "vnetCreate", { text, source: "fleet" });
  }

  /** As a machine that loses its power: nobody says goodbye, nothing in the kernel stays. */
  async crash(host) {
    const gone = new Promise((done) => host.daemon.once("exit", done));
    host.client.close();
    host.maps.close();
    host.daemon.kill("SIGKILL");
    await gone;
    const { argv } = host;
    const vnetd = (...words) => run(argv.call(host, [join(repository, "bin/vnetd"), ...words]));
    host.ip("link set eth0 down");
    vnetd("detach", "--all", ...host.arguments.slice(1, 7));
    host.ip("link set eth0 up");
    // with an id of its own it is told from what it was, which others believe in for three hellos
    rmSync(join(this.directory, `s${host.n}`), { recursive: true, force: true });
  }

  counters(host) {
    const [line] = host
      .run(["cat", "/proc/net/dev"])
      .split("\n")
      .filter((each) => each.includes("eth0:"));
    const n = line.split(":")[1].trim().split(/\s+/).map(Number);
    return { heardBytes: n[0], heardFrames: n[1], sentBytes: n[8], sentFrames: n[9] };
  }

  /** Seconds until each of `whom` knows each of `of`, in all vnets, as what it is now. Who has all is not looked at again. */
  async converged(whom, of, since) {
    const missing = ({ maps, id: own }) => {
      const members = maps.members();
      return of.some(({ id }) => id !== own && (members.get(id) ?? 0) < vnetCount);
    };
    let rest = whom;
    for (;;) {
      rest = rest.filter(missing);
      if (rest.length === 0) return (Date.now() - since) / 1000;
      if (Date.now() - since > 600_000)
        throw new Error(`${rest.length} hosts do not know all others`);
      await sleep(100);
    }
  }

  lose(on) {
    for (const { n } of this.members) {
      if (on) {
        this.switch.run(["tc", "qdisc", "add", "dev", `p${n}`, "clsact"]);
        // out of the port: each host by itself
        this.switch.run([
          "tc",
          "filter",
          "add",
          "dev",
          `p${n}`,
          "egress",
          "bpf",
          "da",
          "obj",
          lossObject,
          "sec",
          "tc",
        ]);
      } else this.switch.run(["tc", "qdisc", "del", "dev", `p${n}`, "clsact"]);
    }
  }

  async rest() {
    // the hellos of the first seconds and their answers are over, and each host has said its vnets together once: from then
    // on it does so each time (src/varp/hello-schedule.ts)
    await sleep(8000 + 1.3 * helloSeconds * 1000);
    const looked = this.members.filter((_, at) => at % Math.ceil(this.members.length / 8) === 0);
    const before = looked.map((host) => this.counters(host));
    const began = Date.now();
    await sleep(seconds * 1000);
    const took = (Date.now() - began) / 1000;
    const after = looked.map((host) => this.counters(host));
    const mean = (key) =>
      after.reduce((sum, each, at) => sum + each[key] - before[at][key], 0) / looked.length / took;
    return {
      sentBytes: mean("sentBytes"),
      heardBytes: mean("heardBytes"),
      heardMessages: mean("heardFrames"),
    };
  }

  async reboot() {
    const lost = this.members.slice(0, rack);
    const stay = this.members.slice(rack);
    await Promise.all(stay.map((host) => this.ask(host, "varpFlush", {})));
    await each(lost, (host) => this.crash(host));
    const began = Date.now();
    await each(lost, async (host) => {
      await this.start(host);
      await this.makeVnets(host);
    });
    const within = (Date.now() - began) / 1000;
    return { within, took: await this.converged(this.members, this.members, Date.now()) };
  }

  /**
   * Frames with so many source addresses leave a host for one MAC that lives on another, so that all others know them by
   * announces alone. Gives what the first host sent beside those frames, and how long until the third had them all.
   */
  async guestsAppear(count) {
    const [from, to, third] = this.members;
    const target = "02:00:00:00:65:01";
    await this.ask(to, "vifAdd", { vnet: idOf(0), vmac: target });
    while (from.maps.countOf(target) < 1) await sleep(20);
    from.ip(`link set vnif${idOf(0)} up`);
    const before = this.counters(from);
    const since = Date.now();
    const program = `
import socket
way = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
way.bind(("vnif${idOf(0)}", 0))
for n in range(${count}):
    way.send(bytes.fromhex("${target.replaceAll(":", "")}") + bytes([2, 0, 0, 0x66, n >> 8, n & 255]) + b"\\x88\\xb6" + bytes(46))
`;
    from.run(["python3", "-c", program]);
    let has = 0;
    while ((has = third.maps.countOf("02:00:00:66")) < count && Date.now() - since < 20_000)
      await sleep(20);
    const took = (Date.now() - since) / 1000;
    const after = this.counters(from);
    return {
      ...{ took, has },
      messages: after.sentFrames - before.sentFrames - count,
      bytes: after.sentBytes - before.sentBytes - count * carriedBytes,
    };
  }

  /** On all hosts but the two: where is it? */
  async moved(mac) {
    const [from, to, ...others] = this.members;
    const vnet = idOf(0);
    const handles = new Map(others.map(({ maps, n }) => [n, maps.handleOf(vnet)]));
    await this.ask(from, "vifAdd", { vnet, vmac: mac });
    const all = async (address) => {
      const since = performance.now();
      const isElsewhere = ({ maps, n }) => maps.placeOf(handles.get(n), mac) !== address;
      let rest = others;
      for (;;) {
        rest = rest.filter(isElsewhere);
        const took = (performance.now() - since) / 1000;
        if (rest.length === 0 || took > 20) return { took, without: rest.length };
        await sleep(2);
      }
    };
    const address = (host) => `10.64.${host.n >> 8}.${(host.n & 255) + 1}`;
    await all(address(from));
    await this.ask(from, "vifDelete", { vnet, vmac: mac });
    const added = this.ask(to, "vifAdd", { vnet, vmac: mac });
    const [found] = await Promise.all([all(address(to)), added]);
    return found;
  }
}

// ---- what is printed

const rows = [];
const row = (what, real, model) => {
  rows.push(`| ${what} | ${real} | ${model} |`);
  say(`  ${what}: ${real} (model: ${model})`);
};
const rate = ({ sentBytes, heardBytes, heardMessages }) =>
  `sends ${sentBytes.toFixed(0)} bytes/s, hears ${(heardBytes / 1000).toFixed(1)} kB/s in ${heardMessages.toFixed(1)} frames/s`;

async function measure() {
  const putBack = raiseForHosts(hosts);
  const before = lostByKernel();
  const fleet = new Fleet();
  try {
    say(`starting ${hosts} daemons`);
    for (let n = 0; n < hosts; n += 1) fleet.add(n);
    await each(fleet.members, (host) => fleet.start(host));
    const began = Date.now();
    await each(fleet.members, (host) => fleet.makeVnets(host));
    const madeIn = (Date.now() - began) / 1000;
    const cold = await fleet.converged(fleet.members, fleet.members, Date.now());
    const options = { hosts, ...protocol, ...capacity };
    const model = appear({ ...options, newcomers: hosts, withinSeconds: madeIn });
    row(`cold start, vnets made within ${s(madeIn)}: all know all`, s(cold), s(model.seconds[1]));
    const rest = await fleet.rest();
    row(
      "at rest, each host",
      rate(rest),
      rate(steady({ ...shape(protocol, hosts, nameOf(10)), lists: true })),
    );
    const memory = Number(
      execFileSync("ps", ["-o", "rss=", "-p", String(fleet.members[0].daemon.pid)], {
        encoding: "utf8",
      }),
    );
    say(`  a daemon: ${(memory / 1024).toFixed(0)} MiB resident`);
    const appeared = await fleet.guestsAppear(guests);
    const told = announced({ macs: guests, vnets: 1, lists: true });
    const single = announced({ macs: guests, vnets: 1, lists: false });
    row(
      `${guests.toLocaleString("en")} guests appear on a host: it sends, beside their frames`,
      `${appeared.messages} frames, ${kB(appeared.bytes)}; another has ${appeared.has} after ${s(appeared.took)}`,
      `${told.messages} frames, ${kB(told.bytes)}; one by one ${single.messages}, ${kB(single.bytes)}`,
    );
    const move = await fleet.moved("02:00:00:00:64:01");
    row("a guest moves: no host has it at the old place", s(move.took), "one message");
    fleet.lose(true);
    const lossy = await fleet.moved("02:00:00:00:64:02");
    row(
      "the same with 1 % loss: hosts that did not hear of it",
      `${lossy.without} of ${hosts - 2}`,
      `${((hosts - 2) / 100).toFixed(1)} of ${hosts - 2}`,
    );
    say(`crashing ${rack} hosts`);
    const back = await fleet.reboot();
    const again = appear({ ...options, newcomers: rack, withinSeconds: back.within, loss: 0.01 });
    row(
      `${rack} of ${hosts} hosts reboot within ${s(back.within)}, 1 % loss: all know all`,
      s(back.took),
      s(again.seconds[1]),
    );
    fleet.lose(false);
    const after = lostByKernel();
    const lost = (name) => (after[name] - before[name]).toLocaleString("en");
    row(
      "the machine itself lost",
      `${lost("backlog")} packets in its queues, ${lost("neighbours")} for want of room for neighbours`,
      "none",
    );
  } finally {
    fleet.close();
    putBack();
  }
}

const machine = `Linux ${release()}, ${cpus().length} × ${cpus()[0].model.trim()}`;
const date = new Date().toISOString().slice(0, 10);
const load = loadavg()[0].toFixed(1);
if (!values.model) await measure();
const text = [
  ...(values.model
    ? []
    : [
        `${date}, ${machine}, load average ${load} when it began; ${hosts} hosts, ${vnetCount} vnets on each, a hello every ${helloSeconds} s:`,
        "",
        `| ${hosts} real daemons | measured | the model says |`,
        "|---|---|---|",
        ...rows,
        "",
      ]),
  ...modelTables(protocol),
].join("\n");
console.log(text);
if (values.write) {
  say(`bench: written to ${write(text, "fleet", "scaling.md")}`);
}
process.exit(0);
