// SPDX-License-Identifier: Apache-2.0
/**
 * Secure vnets (conf) beside what one would use without vnetd, from host to host, in the same minutes:
 *
 *   vnetd   the daemon's own vnet, AES-128-CBC with HMAC-SHA1-96 or AES-128-GCM, keys agreed on by the daemons
 *   ESP     the kernel's VXLAN over ESP in transport mode, with the same cipher, ESN and replay window
 *   wg      the kernel's VXLAN over WireGuard, whose cipher is ChaCha20-Poly1305 always
 *
 * Each way has a veth pair of its own as its underlay, and interfaces with the largest MTU that fits 1,500
 * bytes there. As in bench/main.mjs the ways of a series are measured one directly after the other, each
 * round beginning with another one, and ratios are made within a round. Run by bench/run-secure.
 */
import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Lab, run } from "./lab.mjs";
import { echo, reachable, tcp, udp } from "./measure.mjs";
import { absolute, cpuModel, kernel, ratioText, ratios, verdict, write } from "./report.mjs";

const emulated = process.env.VNETD_VM === "1";
const echoes = emulated ? 500 : 20_000;
const nets = { vnetd: "198.51.100", esp: "192.0.2", wg: "203.0.113" };
const devices = { vnetd: "eth0", esp: "eth1", wg: "eth2" };
const ways = Object.keys(devices);
const replay = ["flag", "esn", "replay-window", "256"];

/** By suite: vnet and VXLAN's id and port (which is how ESP's policies tell the two apart), what VXLAN can carry. */
const ciphers = {
  sha1: {
    ...{ name: "AES-128-CBC, HMAC-SHA1-96", vnet: "98", port: 4789, vxlanMtu: 1408 },
    algorithm: () => ["enc", "cbc(aes)", key(16), "auth-trunc", "hmac(sha1)", key(20), "96"],
  },
  gcm: {
    ...{ name: "AES-128-GCM", vnet: "99", port: 4790, vxlanMtu: 1416 },
    algorithm: () => ["aead", "rfc4106(gcm(aes))", key(20), "128"],
  },
};
const wgMtu = 1420;
/** outer IPv4, UDP, VXLAN and Ethernet headers */
const vxlanBytes = 50;

const kinds = {
  tcp: { name: "TCP reno", unit: "Mbit/s", atLeast: 1 },
  udp: { name: "UDP 64 bytes", unit: "1000 packets/s", atLeast: 1 },
  echo: { name: "ping median", unit: "µs", atMost: 1 },
};

const key = (bytes) => `0x${randomBytes(bytes).toString("hex")}`;
const say = (text) => process.stderr.write(text);

class SecureLab extends Lab {
  get underlays() {
    return Object.values(devices);
  }

  async build() {
    const [one, two] = this.hosts;
    for (const device of this.underlays)
      one.ip(`link add ${device} type veth peer name ${device} netns ${two.netns}`);
    this.hosts.forEach((host, i) => {
      for (const way of ways) {
        host.ip(`address add ${nets[way]}.${i + 1}/24 dev ${devices[way]}`);
        host.ip(`link set ${devices[way]} up`);
      }
    });
    this.makeVxlanOverEsp();
    this.makeVxlanOverWireguard();
    await this.makeVnets();
  }

  /** Where host 2 is reached, by suite and way. */
  target(suite, way) {
    if (way === "wg") return "192.168.7.2";
    const { vnet } = ciphers[suite];
    return way === "vnetd" ? `192.168.${vnet}.2` : `192.168.${100 + Number(vnet)}.2`;
  }

  async makeVnets() {
    await Promise.all(this.hosts.map((host, i) => this.runVnetd(host, i + 1, "helloSeconds: 2\n")));
    const [one, two] = this.hosts;
    one.vnetd("key-gen", "--state-dir", one.stateDir);
    const file = "keys/default.key";
    mkdirSync(join(two.stateDir, "keys"), { recursive: true, mode: 0o700 });
    copyFileSync(join(one.stateDir, file), join(two.stateDir, file));
    this.hosts.forEach((host, i) => {
      for (const [suite, { vnet }] of Object.entries(ciphers)) {
        const secure = ["-s", "conf", "--suite", suite];
        host.vnetd("vnet-create", "-b", "none", "-v", `vnif${vnet}`, ...secure, vnet);
        host.ip(`address add 192.168.${vnet}.${i + 1}/24 dev vnif${vnet}`);
        host.ip(`link set vnif${vnet} up`);
      }
    });
  }

  makeVxlanOverEsp() {
    const address = (n) => `${nets.esp}.${n}`;
    Object.values(ciphers).forEach(({ vnet, port, vxlanMtu, algorithm }, index) => {
      const reqid = String(index + 1);
      for (const [from, to] of [
        [1, 2],
        [2, 1],
      ]) {
        const ends = ["src", address(from), "dst", address(to)];
        const names = ["proto", "esp", "spi", `0x${port}${from}`, "reqid", reqid];
        const state = [...ends, ...names, "mode", "transport", ...replay, ...algorithm()];
        const template = [...ends, "proto", "esp", "reqid", reqid, "mode", "transport"];
        const selector = [...ends, "proto", "udp", "dport", String(port)];
        this.hosts.forEach((host, i) => {
          host.run(["ip", "xfrm", "state", "add", ...state]);
          const dir = i + 1 === from ? "out" : "in";
          host.run(["ip", "xfrm", "policy", "add", ...selector, "dir", dir, "tmpl", ...template]);
        });
      }
      this.hosts.forEach((host, i) =>
        this.makeVxlanTo(host, {
          ...{ name: `vx${vnet}`, id: vnet, port, mtu: vxlanMtu, device: devices.esp },
          ...{ local: address(i + 1), remote: address(2 - i) },
          address: `192.168.${100 + Number(vnet)}.${i + 1}/24`,
        }),
      );
    });
  }

  makeVxlanOverWireguard() {
    const keys = this.hosts.map((_, i) => {
      const file = join(this.directory, `wg${i + 1}`);
      writeFileSync(file, run(["wg", "genkey"]), { mode: 0o600 });
      return { file, open: run(["sh", "-c", `wg pubkey <${file}`]).trim() };
    });
    this.hosts.forEach((host, i) => {
      const [n, peer] = [i + 1, 2 - i];
      host.ip(`link add wg0 mtu ${wgMtu} type wireguard`);
      const end = ["endpoint", `${nets.wg}.${peer}:51820`, "allowed-ips", `10.99.0.${peer}/32`];
      const mine = ["private-key", keys[i].file, "listen-port", "51820"];
      host.run(["wg", "set", "wg0", ...mine, "peer", keys[peer - 1].open, ...end]);
      host.ip(`address add 10.99.0.${n}/24 dev wg0`);
      host.ip("link set wg0 up");
      this.makeVxlanTo(host, {
        ...{ name: "vxwg", id: "7", port: 4789, mtu: wgMtu - vxlanBytes, device: "wg0" },
        ...{ local: `10.99.0.${n}`, remote: `10.99.0.${peer}` },
        address: `192.168.7.${n}/24`,
      });
    });
  }

  makeVxlanTo(host, { name, id, port, mtu, device, local, remote, address }) {
    const ends = `local ${local} remote ${remote} dev ${device}`;
    host.ip(`link add ${name} mtu ${mtu} type vxlan id ${id} ${ends} dstport ${port}`);
    host.ip(`address add ${address} dev ${name}`);
    host.ip(`link set ${name} up`);
  }

  mtuOf(suite) {
    const { vnet } = ciphers[suite];
    return Number(/mtu (\d+)/.exec(this.hosts[0].ip(`link show vnif${vnet}`))[1]);
  }
}

function options() {
  const { values } = parseArgs({
    options: {
      table: { type: "string" },
      write: { type: "string" },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "3" },
      instructions: { type: "boolean", default: false },
    },
  });
  return { ...values, rounds: Number(values.rounds), seconds: Number(values.seconds) };
}

async function measureOnce(lab, kind, target, { seconds }) {
  const [from, to] = lab.hosts;
  if (kind === "tcp")
    return 1000 * (await tcp(from, to, target, { seconds, congestion: "reno" })).gbits;
  if (kind === "udp") return (await udp(from, to, target, { seconds })).thousands;
  return (await echo(from, to, target, echoes)).median;
}

const turned = (list, by) => list.map((_, i) => list[(i + by) % list.length]);

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
    for (const suite of suites)
      for (const way of ways) await reachableSoon(lab, lab.target(suite, way));
    const series = [];
    for (const suite of suites)
      for (const kind of Object.keys(kinds)) series.push(await runSeries(lab, suite, kind, o));
    return text(lab, series, o);
  } finally {
    lab.close();
  }
}

/** The daemons agree on keys first. */
async function reachableSoon(lab, target) {
  const deadline = Date.now() + (emulated ? 300_000 : 60_000);
  for (;;) {
    try {
      return await reachable(lab.hosts[0], target);
    } catch (error) {
      if (Date.now() < deadline) continue;
      throw new Error(`${error.message}\n${lab.hosts[0].vnetd("status")}`);
    }
  }
}

function row({ suite, kind, values }) {
  const { name, unit, ...target } = kinds[kind];
  const [overEsp, overWg] = [values.esp, values.wg].map((theirs) => ratios(values.vnetd, theirs));
  const cells = [
    ...[values.esp, values.wg, values.vnetd].map(absolute),
    ...[ratioText(overEsp), ratioText(overWg), verdict(overEsp, target)],
  ];
  return `| ${ciphers[suite].name}: ${name}, ${unit} | ${cells.join(" | ")} |`;
}

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
    `- rounds: ${o.rounds} of ${o.seconds} s, ${echoes} round trips`,
    `- MTU of VXLAN over ESP and of vnetd: ${mtus.join("; ")}; of VXLAN over WireGuard ${wgMtu - vxlanBytes}`,
    "",
    "| host to host | VXLAN over ESP | VXLAN over WireGuard | vnetd conf | vnetd / ESP, median (least–most) | vnetd / WireGuard | target, to ESP |",
    "|---|---:|---:|---:|---:|---:|---|",
    ...series.map(row),
    ...series.flatMap(({ failures }) => failures.map((each) => `\n- ${each}`)),
    "",
  ].join("\n");
}

try {
  const o = options();
  if (o.write !== undefined)
    say(`bench: written to ${write(readFileSync(o.write, "utf8"), "secure")}\n`);
  else if (o.table !== undefined) writeFileSync(o.table, await measure(o));
  process.exit(0);
} catch (error) {
  say(`bench: ${error.stack}\n`);
  process.exit(1);
}
