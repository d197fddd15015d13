// SPDX-License-Identifier: Apache-2.0
/**
 * Two hosts with a vnet, and with what one would use without vnetd, that encrypt what they send to each other:
 *
 *   eth0  vnetd   the daemon's own vnets, AES-128-CBC with HMAC-SHA1-96 or AES-128-GCM, keys agreed on by the daemons
 *   eth1  ESP     the kernel's VXLAN over ESP in transport mode, with the same cipher, ESN and replay window
 *   eth2  wg      the kernel's VXLAN over WireGuard, whose cipher is ChaCha20-Poly1305 always
 *
 * Each way has a veth pair of its own as its underlay, and interfaces with the largest MTU that fits 1,500
 * bytes there.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { requestOnce } from "../dist/src/api/client.js";
import { Lab, run } from "./lab.mjs";
import { reachable } from "./measure.mjs";

export const emulated = process.env.VNETD_VM === "1";
export const nets = { vnetd: "198.51.100", esp: "192.0.2", wg: "203.0.113" };
export const devices = { vnetd: "eth0", esp: "eth1", wg: "eth2" };
const replay = ["flag", "esn", "replay-window", "256"];

/** By suite: vnet and VXLAN's id and port (which is how ESP's policies tell the two apart), what VXLAN can carry, and by what algorithms. */
export const ciphers = {
  sha1: {
    ...{ name: "AES-128-CBC, HMAC-SHA1-96", vnet: "98", port: 4789, vxlanMtu: 1408 },
    uses: ["cbc(aes)", "sha1"],
    algorithm: () => ["enc", "cbc(aes)", key(16), "auth-trunc", "hmac(sha1)", key(20), "96"],
  },
  gcm: {
    ...{ name: "AES-128-GCM", vnet: "99", port: 4790, vxlanMtu: 1416 },
    uses: ["rfc4106(gcm(aes))"],
    algorithm: () => ["aead", "rfc4106(gcm(aes))", key(20), "128"],
  },
};
export const wgMtu = 1420;
/** outer IPv4, UDP, VXLAN and Ethernet headers */
export const vxlanBytes = 50;

const key = (bytes) => `0x${randomBytes(bytes).toString("hex")}`;

export class SecureLab extends Lab {
  get underlays() {
    return Object.values(devices);
  }

  /** What a machine loads by itself for what its CPU can do; the emulated one has nothing that would. */
  loadCiphers() {
    for (const name of ["aesni_intel", "ghash_clmulni_intel", "sha1_ssse3"])
      spawnSync("modprobe", ["-q", name]);
  }

  /** queues: of each underlay device */
  makeUnderlays(queues = 1) {
    const [one, two] = this.hosts;
    const count = `numtxqueues ${queues} numrxqueues ${queues}`;
    for (const [way, device] of Object.entries(devices)) {
      const peer = `peer name ${device} ${count} netns ${two.netns}`;
      one.ip(`link add ${device} ${count} type veth ${peer}`);
      this.hosts.forEach((host, i) => {
        host.ip(`address add ${nets[way]}.${i + 1}/24 dev ${device}`);
        host.ip(`link set ${device} up`);
      });
    }
  }

  async build() {
    this.loadCiphers();
    this.makeUnderlays();
    this.makeVxlanOverEsp();
    this.makeVxlanOverWireguard();
    await this.startVnetds(2);
    for (const [suite, { vnet }] of Object.entries(ciphers)) await this.makeVnet(vnet, suite);
    for (const suite of Object.keys(ciphers))
      for (const way of Object.keys(devices)) await this.reachableSoon(this.target(suite, way));
  }

  /** Where host 2 is reached, by suite and way. */
  target(suite, way) {
    if (way === "wg") return "192.168.7.2";
    const { vnet } = ciphers[suite];
    return way === "vnetd" ? `192.168.${vnet}.2` : `192.168.${100 + Number(vnet)}.2`;
  }

  /** On both hosts, with one key. */
  async startVnetds(helloSeconds) {
    const config = `helloSeconds: ${helloSeconds}\n`;
    await Promise.all(this.hosts.map((host, i) => this.runVnetd(host, i + 1, config)));
    const [one, two] = this.hosts;
    one.vnetd("key-gen", "--state-dir", one.stateDir);
    const file = "keys/default.key";
    mkdirSync(join(two.stateDir, "keys"), { recursive: true, mode: 0o700 });
    copyFileSync(join(one.stateDir, file), join(two.stateDir, file));
  }

  /** Its vnetif on host N has the address 192.168.ID.N. By the socket: to start Node takes seconds on an emulated machine. */
  async makeVnet(id, suite) {
    for (const [i, host] of this.hosts.entries()) {
      const vnetif = `vnif${id}`;
      await requestOnce(
        { runDir: join(this.directory, `run${i + 1}`), answerTimeoutMs: 120_000 },
        "vnetCreate",
        { parameters: { id, bridge: "none", vnetif, security: "conf", suite } },
      );
      host.ip(`address add 192.168.${id}.${i + 1}/24 dev ${vnetif}`);
      host.ip(`link set ${vnetif} up`);
    }
  }

  /** The daemons agree on keys first. */
  async reachableSoon(target) {
    const deadline = Date.now() + (emulated ? 300_000 : 60_000);
    for (;;) {
      try {
        return await reachable(this.hosts[0], target);
      } catch (error) {
        if (Date.now() < deadline) continue;
        throw new Error(`${error.message}\n${this.hosts[0].vnetd("status")}`);
      }
    }
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

/** The driver that the kernel takes for an algorithm: of those that bear its name, the one of highest priority. */
function driverOf(algorithm) {
  const entries = readFileSync("/proc/crypto", "utf8").split("\n\n");
  const field = (entry, name) => new RegExp(`^${name} *: (.*)$`, "m").exec(entry)?.[1];
  const found = entries
    .filter((entry) => field(entry, "name") === algorithm)
    .sort((a, b) => Number(field(b, "priority")) - Number(field(a, "priority")));
  return found.length === 0 ? `${algorithm}: none` : field(found[0], "driver");
}

/** By what means ciphers are worked out: once they are in use. */
export function cipherFacts(suites = Object.keys(ciphers)) {
  const flags =
    /^flags\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1].split(" ") ?? [];
  const has = ["aes", "pclmulqdq", "ssse3", "avx", "avx2", "vaes", "avx512f"].filter((flag) =>
    flags.includes(flag),
  );
  const drivers = suites.flatMap((suite) => ciphers[suite].uses.map(driverOf));
  const loaded = ["chacha_x86_64", "poly1305_x86_64"].filter((name) =>
    existsSync(`/sys/module/${name}`),
  );
  const of = emulated ? "emulated instructions of the CPU" : "instructions of the CPU";
  return `${of} ${has.join(", ") || "(none for this)"}; drivers ${drivers.join(", ")}; WireGuard's ${loaded.join(", ") || "C code"}`;
}
