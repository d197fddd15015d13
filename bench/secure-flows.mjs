// SPDX-License-Identifier: Apache-2.0
/**
 * What several SAs for one peer would bring, one for each flow: several vnets between two hosts have an SA each, as
 * one vnet would have them then. Flows that share a vnet, and so an SA, are measured beside flows with a vnet each.
 *
 *   out    datagrams as fast as one process for each flow sends them, by an underlay whose queue keeps them (`tc plug`):
 *          the sending host alone works, mostly on encryption
 *   in     the queue lets go of them: which cores decrypt
 *   TCP    both hosts work, with a stream for each flow; by WireGuard as well, which spreads packets over cores by itself
 *
 * An underlay is what a NIC with a queue for each core is: what one SA carries comes by one queue, which is all that a
 * NIC can tell its packets apart by, and is worked on by that queue's core. SAs are put on queues in turn, as
 * even as no hash is. Flow N's sender runs on core N. Run by bench/run-secure --flows.
 */
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { raise } from "./kernel-settings.mjs";
import { packets, tcp, Tool } from "./measure.mjs";
import { absolute, cpuModel, kernel, median, ratioText, ratios } from "./report.mjs";
import { cipherFacts, devices, emulated, nets, SecureLab } from "./secure-lab.mjs";
import { main, say } from "./secure-main.mjs";

const cores = cpus().length;
const vnets = ["61", "62", "63", "64"];
const burst = {
  ...{ packets: emulated ? 3000 : 30_000, bytes: 1200, port: 9100 },
  plugBytes: 128 << 20,
};
/** from the start of senders until all of them wait for the same moment */
const leadMs = emulated ? 1500 : 300;
const tcpPort = 5300;
const wgTarget = "192.168.7.2";

/** sas: 0 for WireGuard */
const cases = [
  { name: "vnetd, 1 flow", flows: 1, sas: 1 },
  { name: "vnetd, 2 flows by one SA", flows: 2, sas: 1 },
  { name: "vnetd, 2 flows by 2 SAs", flows: 2, sas: 2 },
  { name: "vnetd, 4 flows by one SA", flows: 4, sas: 1 },
  { name: "vnetd, 4 flows by 4 SAs", flows: 4, sas: 4 },
  ...[1, 2, 4].map((flows) => ({
    ...{ name: `VXLAN over WireGuard, ${flows} flow${flows > 1 ? "s" : ""}`, flows, sas: 0 },
  })),
];

const numbers = (count) => Array.from({ length: count }, (_, i) => i);
const sum = (list) => list.reduce((total, each) => total + each, 0);
const targetOf = (vnet) => `192.168.${vnet}.2`;

/** Core N's queue is any of these two: the kernel counts them from 0 here and from 1 there. */
const queuesOf = (core) => [2 * core, 2 * core + 1];

class FlowsLab extends SecureLab {
  async build() {
    this.loadCiphers();
    this.makeUnderlays(2 * cores);
    this.steerQueues();
    this.makeVxlanOverWireguard();
    await this.startVnetds(10);
    for (const vnet of vnets) await this.makeVnet(vnet, "gcm");
    for (const vnet of vnets) await this.reachableSoon(targetOf(vnet));
    await this.reachableSoon(wgTarget);
    await this.steerAll();
  }

  /** What comes by a queue is worked on by its core. */
  steerQueues() {
    for (const host of this.hosts)
      for (const device of [devices.vnetd, devices.wg])
        for (const core of numbers(cores)) {
          const files = queuesOf(core).map(
            (n) => `/sys/class/net/${device}/queues/rx-${n}/rps_cpus`,
          );
          const mask = (1 << core).toString(16);
          const script = files.map((file) => `echo ${mask} >${file}`).join(" && ");
          host.runWithSys(["sh", "-c", script]);
        }
  }

  /** SAs to host 2 in turn on cores 1, 2, ..., those back on 0, 1, ...: away from the sender of flow 1 */
  async steerAll() {
    for (const [i, host] of this.hosts.entries()) {
      for (const device of [devices.vnetd, devices.wg]) clsact(host, device);
      const first = 1 - i;
      for (const [n, vnet] of vnets.entries()) {
        const spi = await this.spiOf(host, vnet);
        const match = `u32 match ip protocol 50 0xff match u32 ${spi} 0xffffffff at 20`;
        steer(host, devices.vnetd, match, (n + first) % cores);
      }
      // one flow for a NIC, whatever is in it
      steer(host, devices.wg, "u32 match ip protocol 17 0xff", first % cores);
    }
  }

  /** Of the SA by which a host sends in a vnet: who carries what is sent now. Keys may just be changing. */
  async spiOf(host, vnet) {
    const own = `${nets.vnetd}.${this.hosts.indexOf(host) + 1}`;
    const count = 20;
    for (let attempt = 1; ; attempt += 1) {
      const before = sentBy(host, own);
      this.hosts[0].run(["ping", "-n", "-q", "-c", String(count), "-i", "0.05", targetOf(vnet)]);
      const grown = [...sentBy(host, own)].filter(
        ([spi, all]) => all - (before.get(spi) ?? 0) >= count,
      );
      if (grown.length === 1) return grown[0][0];
      if (attempt === 10)
        throw new Error(`vnet ${vnet} is carried by ${grown.length} SAs, not by one`);
      await delay(1000);
    }
  }
}

/** Packets by SPI of SAs from a host's own address. */
function sentBy(host, own) {
  const states = host.ip("-s xfrm state list").split(/^(?=src )/m);
  return new Map(
    states
      .filter((text) => text.startsWith(`src ${own} `))
      .map((text) => [
        /proto esp spi (0x[0-9a-f]+)/.exec(text)[1],
        Number(/lifetime current:\s*\d+\(bytes\), (\d+)\(packets\)/.exec(text)[1]),
      ]),
  );
}

function clsact(host, device) {
  try {
    host.run(["tc", "qdisc", "add", "dev", device, "clsact"]);
  } catch (error) {
    // vnetd has made it
    if (!/exclusivity|exists/i.test(error.message)) throw error;
  }
}

function steer(host, device, match, core) {
  const queue = `action skbedit queue_mapping ${queuesOf(core)[1]}`;
  host.run(`tc filter add dev ${device} egress protocol ip ${match} ${queue}`.split(" "));
}

/** By core: ns that it was not idle (in steps of 10 ms), and packets that it took from devices. */
function coresNow() {
  const busy = [...readFileSync("/proc/stat", "utf8").matchAll(/^cpu\d+ (.*)$/gm)].map(
    ([, text]) => {
      const [user, nice, system, , , irq, softirq] = text.split(" ").map(Number);
      return (user + nice + system + irq + softirq) * 1e7;
    },
  );
  const received = readFileSync("/proc/net/softnet_stat", "utf8")
    .trim()
    .split("\n")
    .map((line) => parseInt(line.split(" ")[0], 16));
  return { atNs: Number(process.hrtime.bigint()), busy, received };
}

const shares = (before, after) => {
  const counts = after.map((value, i) => (value - before[i] + 2 ** 32) % 2 ** 32);
  return counts.map((count) => count / sum(counts));
};

/** {encrypted: 1000 packets a second, encrypting, decrypting: each core's part} */
async function measureBurst(lab, { flows, sas }) {
  const [from, to] = lab.hosts;
  const tc = (line) => from.run(["tc", "qdisc", ...`${line}`.split(" ")]);
  tc(`add dev ${devices.vnetd} root plug limit ${burst.plugBytes}`);
  const receivers = numbers(flows).map((i) => {
    const argv = [packets, "receive", String(burst.port + i), "60"];
    return new Tool(to.argv(argv, (i + 1) % cores), 120_000);
  });
  try {
    for (const each of receivers) await each.says(/ready/);
    const out = await encrypt(from, flows, sas);
    await held(from);
    const before = coresNow();
    tc(`change dev ${devices.vnetd} root plug release_indefinite`);
    const results = await Promise.all(receivers.map(lastLine));
    const after = coresNow();
    const received = sum(results.map((each) => each.received));
    // the first batch of each is not counted
    if (received < 0.9 * burst.packets - 64 * flows)
      throw new Error(`${received} of ${burst.packets} datagrams arrived`);
    const decrypting = shares(before.received, after.received);
    return { ...out, decrypting };
  } finally {
    for (const each of receivers) each.process.kill("SIGKILL");
    tc(`delete dev ${devices.vnetd} root`);
  }
}

const lastLine = async (tool) => JSON.parse((await tool.output()).trim().split("\n").at(-1));

async function encrypt(from, flows, sas) {
  const at = process.hrtime.bigint() + BigInt(leadMs) * 1_000_000n;
  const each = burst.packets / flows;
  const senders = numbers(flows).map((i) => {
    const where = [targetOf(vnets[i % sas]), String(burst.port + i)];
    const argv = [packets, "burst", ...where, String(burst.bytes), String(each), String(at)];
    return new Tool(from.argv(argv, i % cores), 120_000);
  });
  await delay(Number((at - process.hrtime.bigint()) / 1_000_000n));
  const before = coresNow();
  const results = await Promise.all(senders.map(lastLine));
  const after = coresNow();
  const last = Math.max(...results.map(({ endNs }) => endNs));
  const late = Math.max(...results.map(({ startNs }) => startNs - Number(at)));
  if (late > (last - Number(at)) / 4) throw new Error(`a sender began ${late / 1e6} ms late`);
  const elapsed = after.atNs - before.atNs;
  return {
    encrypted: (burst.packets * 1e6) / (last - Number(at)),
    encrypting: after.busy.map((ns, i) => Math.min(1, (ns - before.busy[i]) / elapsed)),
  };
}

/** Until the queue has all of it: ciphers may be worked on behind the sender's back. */
async function held(host) {
  for (const end = Date.now() + 20_000; ; await delay(50)) {
    const text = host.run(["tc", "-s", "qdisc", "show", "dev", devices.vnetd]);
    const count = Number(/qdisc plug[\s\S]*?backlog \S+ (\d+)p/.exec(text)?.[1] ?? 0);
    if (count >= burst.packets) return;
    if (Date.now() > end) throw new Error(`the queue has ${count} of ${burst.packets} packets`);
  }
}

/** Mbit/s of all flows. */
async function measureTcp(lab, { flows, sas }, seconds) {
  const [from, to] = lab.hosts;
  const streams = numbers(flows).map((i) =>
    tcp(from, to, sas === 0 ? wgTarget : targetOf(vnets[i % sas]), {
      ...{ seconds, congestion: "reno", port: tcpPort + i },
      cores: { sender: i % cores, receiver: (i + 1) % cores },
    }),
  );
  return 1000 * sum((await Promise.all(streams)).map(({ gbits }) => gbits));
}

async function measureCase(lab, each, { seconds }) {
  const bursts = each.sas === 0 ? {} : await measureBurst(lab, each);
  return { ...bursts, tcp: await measureTcp(lab, each, seconds) };
}

const turned = (list, by) => list.map((_, i) => list[(i + by) % list.length]);

async function measure(o) {
  const lab = new FlowsLab();
  // what the queue lets go of comes at once
  const putBack = raise({ "/proc/sys/net/core/netdev_max_backlog": 10 * burst.packets });
  try {
    await lab.build();
    const results = new Map(cases.map((each) => [each, []]));
    const failures = [];
    say(`bench: flows on ${cores} cores `);
    // the first is a warm-up
    for (let round = -1; round < o.rounds; round += 1) {
      for (const each of round < 0 ? [cases[0]] : turned(cases, round)) {
        const result = await measureCase(lab, each, o).catch((error) => {
          failures.push(`${each.name}: ${error.message}`);
          return {};
        });
        if (round >= 0) results.get(each).push(result);
        say(".");
      }
    }
    say("\n");
    return text(results, failures, o);
  } finally {
    putBack();
    lab.close();
  }
}

const valuesOf = (results, name) => results.map((result) => result[name] ?? NaN);

/** What each core does of it, median over the rounds: "0: 98 %, 1: 2 %"; below 5 % a core is left out. */
function coresText(results, name) {
  const there = results.flatMap((result) => result[name] ?? []);
  if (there.length === 0) return "–";
  return numbers(cores)
    .map((core) => median(results.flatMap((result) => result[name]?.[core] ?? [])))
    .flatMap((part, core) => (part < 0.05 ? [] : [`${core}: ${Math.round(100 * part)} %`]))
    .join(", ");
}

function row(each, results, base) {
  const cells = ["encrypted", "tcp"].flatMap((name) => {
    const [own, one] = [results, base].map((list) => valuesOf(list, name));
    const growth = results === base ? "1" : ratioText(ratios(own, one));
    const parts = name === "encrypted" ? ["encrypting", "decrypting"] : [];
    const measured = own.some(Number.isFinite);
    return [
      absolute(own),
      measured ? growth : "–",
      ...parts.map((part) => coresText(results, part)),
    ];
  });
  return `| ${each.name} | ${cells.join(" | ")} |`;
}

function text(results, failures, o) {
  const baseOf = ({ sas }) =>
    results.get(cases.find((each) => each.flows === 1 && (each.sas === 0) === (sas === 0)));
  const machine = emulated
    ? "QEMU, which emulates every instruction, a thread for each core; "
    : "";
  return [
    `- taken: ${new Date().toISOString().slice(0, 10)}, Linux ${kernel()}`,
    `- machine: ${machine}${cpuModel()}`,
    `- ciphers: ${cipherFacts(["gcm"])}`,
    `- rounds: ${o.rounds}; ${burst.packets} datagrams of ${burst.bytes} bytes of all flows, TCP for ${o.seconds} s`,
    "",
    `| on ${cores} cores | out, 1000 packets/s | to 1 flow | busy cores | in, packets by core | TCP, Mbit/s | to 1 flow |`,
    "|---|---:|---:|---|---|---:|---:|",
    ...cases.map((each) => row(each, results.get(each), baseOf(each))),
    ...failures.map((each) => `\n- ${each}`),
    "",
  ].join("\n");
}

await main("flows", measure);
