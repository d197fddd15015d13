// SPDX-License-Identifier: Apache-2.0
/**
 * What secure vnets cost a host: kernel memory, and time per packet. Run by bench/esp-costs.
 *
 *   memory   1,000 vnets that share one other host, and 100 hosts of one vnet: the difference of /proc/meminfo
 *            around the SAs and policies that src/host/esp.ts makes for that, and what is left of it afterwards
 *   out      from the xfrm interface to a device that throws packets away, to 1, 100 and 1,000 next hops in
 *            turn: as vnetd does it, with addresses of each next hop's own, and as it would be with one pair
 *            of addresses and a mark for each, whose policies the kernel keeps in one chain
 *   through  the same by a wire to another host, which decrypts
 *
 * Ways are measured in turn, several rounds. The cheapest suite that authenticates is used: what is looked for is
 * what numbers of policies do, not what ciphers take.
 */
import { execFileSync, fork } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { suites } from "../dist/src/keys/esp-keys.js";
import { cpuModel, kernel, median, ratioText, ratios, write } from "./report.mjs";

const repository = resolve(import.meta.dirname, "..");
const packets = join(repository, "build", "bench", "packets");
const addon = join(repository, "build", "addon", "vnetd.node");
const agent = join(repository, "test", "native", "agent.mjs");

const rounds = 5;
const seconds = 1;
const hardSeconds = 86_400;
const lightSuite = suites.find(({ level, name }) => level === "auth" && name === "sha1");
const own = "10.9.0.1";
const other = "10.9.0.2";
const prefix = `vnb-${process.pid}-`;

const say = (text) => process.stderr.write(text);
const ip = (...words) => execFileSync("ip", words.join(" ").split(" "), { encoding: "utf8" });

/** A network namespace, with a process in it that runs the addon's operations. */
class Host {
  constructor(name) {
    this.netns = prefix + name;
    ip("netns add", this.netns);
    this.ip("link set lo up");
    this.child = fork(agent, [addon], {
      execPath: "nsenter",
      execArgv: [`--net=/run/netns/${this.netns}`, process.execPath],
      serialization: "advanced",
      stdio: "inherit",
    });
    this.waiting = new Map();
    this.child.on("message", ({ type, id, result, error }) => {
      const { done, failed } = this.waiting.get(id);
      this.waiting.delete(id);
      if (type === "error") failed(Object.assign(new Error(), error));
      else done(result);
    });
  }

  ip(line) {
    return ip("-n", this.netns, line);
  }

  call(method, ...parameters) {
    const id = (this.lastId = (this.lastId ?? 0) + 1);
    return new Promise((done, failed) => {
      this.waiting.set(id, { done, failed });
      this.child.send({ id, method, parameters });
    });
  }

  esp(method, ...parameters) {
    return this.call("esp", method, ...parameters);
  }

  /** packets a second */
  send(...argv) {
    const text = execFileSync("nsenter", [`--net=/run/netns/${this.netns}`, packets, ...argv]);
    return JSON.parse(text).perSecond;
  }

  async setUnderlay(device) {
    this.underlay = await this.call("linkGet", device);
    this.device = await this.esp("ensureDevice", this.underlay);
  }

  close() {
    this.child.kill("SIGKILL");
    ip("netns delete", this.netns);
  }
}

const keysOf = ({ cipherBytes, saltBytes, authBytes }) => ({
  cipher: Buffer.alloc(cipherBytes, 1),
  salt: Buffer.alloc(saltBytes, 2),
  auth: Buffer.alloc(authBytes, 3),
});

const spiOut = (nexthop) => 0x01000000 + nexthop;
const spiIn = (nexthop) => 0x02000000 + nexthop;
const spiMarked = (nexthop) => 0x03000000 + nexthop;
const pathOf = ({ underlay }, nexthop, ends = { own, peer: other }) => ({
  ...{ ...ends, device: underlay.ifindex, nexthop },
});
const numbers = (count) => Array.from({ length: count }, (_, i) => i + 1);

/** So many next hops, as the daemon makes them: an SA in, one out, a policy. peerOf: the other host's address */
async function addPaths(host, count, { suite = lightSuite, peerOf = () => other } = {}) {
  for (const n of numbers(count)) {
    const path = pathOf(host, n, { own, peer: peerOf(n) });
    await host.esp("addIn", path, spiIn(n), suite, keysOf(suite), hardSeconds);
    await host.esp("addOut", path, spiOut(n), suite, keysOf(suite), hardSeconds);
  }
}

/** What it would be with marks: SAs and policies between the hosts' own addresses. */
async function addMarked(host, count) {
  const ifId = 0x76000000 + host.underlay.ifindex;
  const ends = { source: own, destination: other };
  for (const n of numbers(count)) {
    const { auth } = keysOf(lightSuite);
    const spi = spiMarked(n);
    await host.call("xfrmStateAdd", {
      ...{ ...ends, spi, ifId, reqid: n, mode: "beet", esn: true, replayWindow: 32 },
      encryption: { name: "ecb(cipher_null)", key: Buffer.alloc(0) },
      authentication: { name: "hmac(sha1)", key: auth, icvBits: 96 },
    });
    await host.call("xfrmPolicySet", {
      ...{ ...ends, direction: "out", ifId, mark: { value: n, mask: 0xffffffff }, priority: 1 },
      template: { ...ends, spi, reqid: n, mode: "beet" },
    });
  }
}

function meminfo() {
  const text = readFileSync("/proc/meminfo", "utf8");
  const kib = (name) => Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)?.[1] ?? 0);
  return { slab: kib("Slab"), percpu: kib("Percpu") };
}

/** After what is freed later has been freed, and without files that were read */
async function settled() {
  for (let i = 0; i < 3; i++) {
    await delay(1500);
    writeFileSync("/proc/sys/vm/drop_caches", "3");
  }
  return meminfo();
}

const difference = (after, before) =>
  Object.fromEntries(Object.entries(after).map(([name, kib]) => [name, kib - before[name]]));

async function memoryOf(host, { what, count, ...options }) {
  say(`memory: ${what} `);
  // a few in vain: caches are made, modules loaded
  await addPaths(host, 50, options);
  await startAgain(host);
  const before = await settled();
  await addPaths(host, count, options);
  const used = difference(await settled(), before);
  const { length } = await host.esp("stats");
  if (length !== 2 * count) throw new Error(`${length} SAs of ${2 * count}`);
  await startAgain(host);
  const left = difference(await settled(), before);
  say("\n");
  return { what, count, used, left };
}

async function startAgain(host) {
  await host.esp("removeAll", new Set());
  await host.setUnderlay("lower0");
}

const memoryRow = ({ what, count, used, left }) =>
  `| ${what} | ${(used.slab / 1024).toFixed(1)} MiB | ${(used.slab / count).toFixed(1)} KiB | ` +
  `${(used.percpu / 1024).toFixed(1)} MiB | ${(left.slab / 1024).toFixed(1)} MiB |`;

/** µs a packet, by way and number; both ways are there at the same time, and are measured in turn */
async function timesOf(host, prepare) {
  const results = new Map();
  for (const count of [1, 100, 1000]) {
    await prepare(count);
    const ways = {
      addresses: ["nexthops", host.device.name, count, seconds],
      marks: ["marks", host.device.name, count, seconds, own, other],
    };
    for (const round of [0, ...numbers(rounds)]) {
      for (const [way, argv] of Object.entries(ways)) {
        const time = 1e6 / host.send(...argv.map(String));
        // the first is a warm-up
        if (round === 0) results.set(`${way} ${count}`, []);
        else results.get(`${way} ${count}`).push(time);
      }
      say(".");
    }
  }
  say("\n");
  return results;
}

const timeCell = (values) => `${median(values).toFixed(1)} µs`;

function timeRows(title, results) {
  return [1, 100, 1000].map((count) => {
    const [ours, marked] = ["addresses", "marks"].map((way) => results.get(`${way} ${count}`));
    const ratio = ratios(marked, ours);
    const text = ratioText(ratio);
    return `| ${title}, ${count} | ${timeCell(ours)} | ${timeCell(marked)} | ${text} |`;
  });
}

async function measure() {
  const host = new Host("costs");
  const far = new Host("far");
  try {
    return await measureOn(host, far);
  } finally {
    host.close();
    far.close();
  }
}

async function measureOn(host, far) {
  const problem = await host.esp("problem");
  if (problem !== undefined) throw new Error(problem);
  // throws away what it is given, and asks for no neighbour
  host.ip("link add lower0 type dummy");
  host.ip(`addr add ${own}/16 dev lower0`);
  host.ip("link set lower0 up");
  await host.setUnderlay("lower0");

  const suite = (level, name) => suites.find((each) => each.level === level && each.name === name);
  const memory = [];
  for (const [level, name] of [
    ["auth", "sha1"],
    ["conf", "sha1"],
    ["conf", "gcm"],
  ]) {
    const what = `1,000 vnets with one host, ${level} ${name}`;
    memory.push(await memoryOf(host, { what, count: 1000, suite: suite(level, name) }));
  }
  const peerOf = (n) => `10.9.1.${n}`;
  const what = "100 hosts in one vnet, conf gcm";
  memory.push(await memoryOf(host, { what, count: 100, suite: suite("conf", "gcm"), peerOf }));

  say("out ");
  const out = await timesOf(host, async (count) => {
    await startAgain(host);
    await addPaths(host, count);
    await addMarked(host, count);
  });

  say("through ");
  await host.esp("removeAll", new Set());
  host.ip("link del lower0");
  host.ip(`link add lower0 type veth peer name lower0 netns ${far.netns}`);
  for (const [each, address] of [
    [host, own],
    [far, other],
  ]) {
    each.ip(`addr add ${address}/16 dev lower0`);
    each.ip("link set lower0 up");
    await each.setUnderlay("lower0");
  }
  const through = await timesOf(host, async (count) => {
    await startAgain(host);
    await startAgain(far);
    await addPaths(host, count);
    await addMarked(host, count);
    for (const spiOf of [spiOut, spiMarked]) {
      for (const n of numbers(count)) {
        const path = pathOf(far, n, { own: other, peer: own });
        await far.esp("addIn", path, spiOf(n), lightSuite, keysOf(lightSuite), hardSeconds);
      }
    }
  });
  const received = (await far.esp("stats")).reduce((sum, sa) => sum + sa.packets, 0);
  if (received === 0) throw new Error("nothing was decrypted");
  return text(memory, out, through);
}

function text(memory, out, through) {
  return [
    `- taken: ${new Date().toISOString().slice(0, 10)}, Linux ${kernel()}`,
    `- machine: ${process.env.VNETD_VM === "1" ? "QEMU without KVM, which emulates every instruction, the ciphers' too, on " : ""}${cpuModel()}`,
    `- rounds: ${rounds} of ${seconds} s, medians`,
    "",
    "| SAs in and out, and policies | slab | of a path | per-CPU | slab left after removal |",
    "|---|---:|---:|---:|---:|",
    ...memory.map(memoryRow),
    "",
    "| packets of 92 bytes in turn to so many next hops, auth sha1 | addresses of their own | equal addresses, marks | marks / addresses, median (least–most) |",
    "|---|---:|---:|---:|",
    ...timeRows("out", out),
    ...timeRows("out, over the wire and in", through),
    "",
  ].join("\n");
}

const [, , first, second] = process.argv;
try {
  if (first === "--write")
    say(`bench: written to ${write(readFileSync(second, "utf8"), "costs")}\n`);
  else writeFileSync(first, await measure());
  process.exit(0);
} catch (error) {
  say(`bench: ${error.stack}\n`);
  process.exit(1);
}
