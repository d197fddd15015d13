// SPDX-License-Identifier: Apache-2.0
/**
 * What the benchmark measures on: two hosts, joined by veth pairs, a guest behind each. One of them:
 *
 *        vnet0     port0     vxlan0          guest
 *          |         |         |
 *       g-vnet0   g-port0   g-vxlan0         host
 *          |         |         |
 *      [vnet97]      |       [brvx]          bridges
 *          |         |         |
 *      vnif0097   vnet 99     vx97     vnif0004    vx4    (bench/peers.mjs: tinc0, fastd0)   br-int    feed, of host 1
 *          `----+----'          |          |        |                   |                       |
 *               `---------------|----------+        `----------+--------'                     br-phy
 *                               |          |                   |                                |
 *                               |        eth0: vnetd         eth1: VXLAN, bare path           eth2: Open vSwitch
 *                               `------------------------------'
 *
 * eth0, eth1 and eth2 are veth pairs that lead to the other host. port0 is a direct port of vnet 99: no bridge. By feed come
 * frames that no socket has sent (bench/forward.c).
 *
 * eth0 and eth1 are alike but for the programs that `vnetd attach` puts on eth0: VXLAN and the
 * bare path do not pay for them. With `sharedUnderlay` there is only eth0, and they do.
 *
 * All names begin with a prefix made of this process' id. close() takes everything away, so does
 * the end of the process, and the next run clears what a killed one left.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const bpffsRoot = "/sys/fs/bpf";
const bpffsMagic = 0xcafe4a11;
const family = "vnb-";
const repository = resolve(import.meta.dirname, "..");
const timeFactor = Number(process.env.VNETD_TIME_FACTOR ?? "1");
const readyTimeoutMs = 30_000 * timeFactor;

/**
 * What the hosts' packets are. VXLAN is compared with over the same family; UDP checksums of 0 over
 * IPv6 for both (RFC 6935).
 */
const underlays = {
  ipv4: {
    address: { eth0: "198.51.100.%/24", other: "192.0.2.%/24" },
    vxlan: "group 239.1.1.1",
  },
  ipv6: {
    address: { eth0: "2001:db8:1::%/64 nodad", other: "2001:db8:2::%/64 nodad" },
    vxlan: "group ff05::1:1 udp6zerocsumtx udp6zerocsumrx",
  },
};

/** By the name of a variant: the family of the underlay, how vnet 4 is encapsulated, how vnetd is attached; kinds and guestKinds: what is measured (bench/series.mjs). */
export const variants = {
  ipv4: { name: "", family: "ipv4", encap: "udp" },
  ipv6: { name: "IPv6", family: "ipv6", encap: "udp" },
  etherip: { name: "EtherIP", family: "ipv4", encap: "etherip" },
  xdp: {
    name: "XDP",
    family: "ipv4",
    encap: "udp",
    attach: ["--mode", "xdp"],
    kinds: ["tcp", "udp64", "echo", "forward"],
    guestKinds: ["tcp", "udp64", "forward"],
  },
};

export function run(argv) {
  const { status, stdout, stderr, error } = spawnSync(argv[0], argv.slice(1), { encoding: "utf8" });
  if (error) throw new Error(`${argv.join(" ")}: ${error.message}`);
  if (status !== 0)
    throw new Error(`${argv.join(" ")}: ${(stderr || stdout).trim() || `exit code ${status}`}`);
  return stdout;
}

const names = (directory) => {
  try {
    return readdirSync(directory).filter((name) => name.startsWith(family));
  } catch {
    return [];
  }
};

/** Takes away all that belongs to a prefix; synchronous, since the process may be ending. */
function clear(prefix) {
  const mine = (name) => name.startsWith(prefix);
  const namespaces = names("/run/netns").filter(mine);
  for (const name of namespaces) {
    const { stdout } = spawnSync("ip", ["netns", "pids", name], { encoding: "utf8" });
    for (const pid of (stdout ?? "").split(/\s+/).filter(Boolean)) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // it ended by itself
      }
    }
  }
  for (const name of namespaces) spawnSync("ip", ["netns", "delete", name]);
  for (const directory of [bpffsRoot, tmpdir()]) {
    for (const name of names(directory).filter(mine))
      rmSync(join(directory, name), { recursive: true, force: true });
  }
}

/** Of runs whose process is gone, or is another one by now. */
function clearLeftovers() {
  const found = [...names("/run/netns"), ...names(bpffsRoot), ...names(tmpdir())];
  for (const prefix of new Set(found.map((name) => /^vnb-\d+-/.exec(name)?.[0]))) {
    if (prefix === undefined || prefix === `${family}${process.pid}-`) continue;
    let command = "";
    try {
      command = readFileSync(`/proc/${prefix.split("-")[1]}/cmdline`, "utf8");
    } catch {
      // gone
    }
    if (!/bench\/\w+\.mjs/.test(command)) clear(prefix);
  }
}

function ensureBpffs() {
  if (!existsSync(bpffsRoot) || statfsSync(bpffsRoot).type !== bpffsMagic) {
    run(["mount", "-t", "bpf", "bpf", bpffsRoot]);
  }
}

/** A network namespace in which commands run. */
export class Place {
  constructor(netns) {
    this.netns = netns;
  }

  argv(command, cpu) {
    const pinned = cpu === undefined ? [] : ["taskset", "-c", String(cpu)];
    return ["nsenter", `--net=/run/netns/${this.netns}`, "--", ...pinned, ...command];
  }

  run(command, cpu) {
    return run(this.argv(command, cpu));
  }

  /** With the namespace's own /sys, where nsenter leaves that of the machine. */
  runWithSys(command) {
    return run(["ip", "netns", "exec", this.netns, ...command]);
  }

  ip(line) {
    return run(["ip", "-n", this.netns, ...line.split(" ")]);
  }

  /** {ifindex, address, link_index, ...} */
  link(device) {
    return JSON.parse(this.ip(`-j link show dev ${device}`))[0];
  }
}

export class Lab {
  constructor({ sharedUnderlay = false, variant = variants.ipv4 } = {}) {
    clearLeftovers();
    ensureBpffs();
    this.prefix = `${family}${process.pid}-`;
    this.sharedUnderlay = sharedUnderlay;
    this.variant = variant;
    // of bench/peers.mjs, by way; and why what is not measured is not
    this.otherTargets = {};
    this.missing = {};
    this.underlay = underlays[variant.family];
    this.directory = join(tmpdir(), `${this.prefix}lab`);
    mkdirSync(this.directory, { mode: 0o700 });
    process.on("exit", () => clear(this.prefix));
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
      process.on(signal, () => process.exit(130));
    this.hosts = [1, 2].map((n) => this.place(`host${n}`));
    this.guests = [1, 2].map((n) => this.place(`guest${n}`));
  }

  place(name) {
    const netns = this.prefix + name;
    run(["ip", "netns", "add", netns]);
    const place = new Place(netns);
    place.ip("link set lo up");
    return place;
  }

  /** Addresses under which host or guest 2 is reached, by way. */
  get targets() {
    return {
      host: {
        // it is one and the same for all variants
        ...(this.variant === variants.ipv4 && { bare: "192.0.2.2" }),
        vxlan: "192.168.5.2",
        vnetd: "192.168.4.2",
        ...this.otherTargets,
      },
      guest: {
        vxlan: "192.168.98.2",
        vnetd: "192.168.97.2",
        ...(this.missing.port === undefined && { port: "192.168.99.2" }),
      },
    };
  }

  ends(place) {
    return place === "host" ? this.hosts : this.guests;
  }

  /** The device that the bare path and VXLAN use. */
  get otherUnderlay() {
    return this.sharedUnderlay ? "eth0" : "eth1";
  }

  get underlays() {
    return [...new Set(["eth0", this.otherUnderlay])];
  }

  async build() {
    const [one, two] = this.hosts;
    for (const device of this.underlays) {
      one.ip(`link add ${device} type veth peer name ${device} netns ${two.netns}`);
    }
    this.hosts.forEach((host, i) => {
      const { eth0, other } = this.underlay.address;
      const add = (address, device) => {
        const [net, ...flags] = address.replace("%", i + 1).split(" ");
        host.ip(["address add", net, "dev", device, ...flags].join(" "));
      };
      if (!this.sharedUnderlay) add(eth0, "eth0");
      add(other, this.otherUnderlay);
      for (const device of this.underlays) host.ip(`link set ${device} up`);
    });
    await Promise.all(this.hosts.map((host, i) => this.startVnetd(host, i + 1)));
    this.hosts.forEach((host, i) => {
      this.makeVxlan(host, i + 1);
      this.plugGuest(host, this.guests[i], i + 1);
    });
    this.plugPorts();
    // frames of bench/forward.c come in by it
    one.ip("link add feed type veth peer name feed-end");
    for (const device of ["feed", "feed-end"]) one.ip(`link set ${device} up`);
  }

  file(name, text) {
    const path = join(this.directory, name);
    writeFileSync(path, text);
    return path;
  }

  /**
   * The daemon, attached to eth0; host.vnetd(...) runs a command of it. config: the text of its file; metrics: where it
   * serves them
   */
  async runVnetd(host, n, config = "", { metrics = "off" } = {}) {
    const runDir = join(this.directory, `run${n}`);
    host.stateDir = join(this.directory, `state${n}`);
    const directories = ["--run-dir", runDir, "--state-dir", host.stateDir];
    host.bpffs = join(bpffsRoot, host.netns);
    directories.push("--bpffs", host.bpffs);
    directories.push("--config", this.file(`vnetd${n}.yaml`, config));
    const vnetd = join(repository, "bin", "vnetd");
    const argv = [vnetd, "run", ...directories, "--metrics-listen", metrics];
    host.daemon = await startDaemon(host.argv(argv));
    host.vnetd = (...args) => host.run([vnetd, ...args, "--run-dir", runDir]);
    host.vnetd("attach", ...(this.variant.attach ?? []), "eth0");
    // a NIC has it on, and XDP decapsulates for it
    if (this.variant.attach?.includes("xdp")) host.run(["ethtool", "-K", "eth0", "gro", "on"]);
  }

  async startVnetd(host, n) {
    await this.runVnetd(host, n);
    host.vnetd("vnet-create", "-b", "vnet97", "-v", "vnif0097", "0097");
    // vnet 4 is there by itself, and is VUDP unless it is said otherwise
    if (this.variant.encap !== "udp")
      host.vnetd("vnet-create", "--encapsulation", this.variant.encap, "4", "-b", "none");
    host.ip(`address add 192.168.4.${n}/24 dev vnif0004`);
    host.ip("link set vnif0004 up");
  }

  /** As near to vnetd as VXLAN comes: hosts found by multicast, MACs learned from frames. */
  makeVxlan(host, n) {
    const options = `${this.underlay.vxlan} dev ${this.otherUnderlay} dstport 4789 ttl 1`;
    host.ip(`link add vx4 type vxlan id 4 ${options}`);
    host.ip(`address add 192.168.5.${n}/24 dev vx4`);
    host.ip("link set vx4 up");
    host.ip("link add brvx type bridge forward_delay 0 stp_state 0");
    host.ip(`link add vx97 type vxlan id 97 ${options}`);
    host.ip("link set vx97 master brvx up");
    host.ip("link set brvx up");
  }

  plugGuest(host, guest, n) {
    for (const [device, bridge, net] of [
      ["vnet0", "vnet97", 97],
      ["vxlan0", "brvx", 98],
    ]) {
      this.makeGuestDevice(host, guest, device, `192.168.${net}.${n}`);
      host.ip(`link set g-${device} master ${bridge}`);
    }
  }

  makeGuestDevice(host, guest, device, address) {
    host.ip(
      `link add g-${device} mtu 1400 type veth peer name ${device} mtu 1400 netns ${guest.netns}`,
    );
    host.ip(`link set g-${device} up`);
    guest.ip(`address add ${address}/24 dev ${device}`);
    guest.ip(`link set ${device} up`);
  }

  /** A device of each guest that is a port of a vnet without a bridge. */
  plugPorts() {
    try {
      for (const [i, host] of this.hosts.entries()) {
        host.vnetd("vnet-create", "-b", "none", "-v", "vnif0099", "0099");
        this.makeGuestDevice(host, this.guests[i], "port0", `192.168.99.${i + 1}`);
        host.vnetd("port-add", "0099", "g-port0");
      }
    } catch (error) {
      this.missing.port = `\`port-add\` failed: ${error.message.split("\n")[0].split(": ").slice(1).join(": ")}`;
    }
  }

  /**
   * "offload": as veth is, super-frames of 64 KiB cross whole. "wire": packets cross at MTU size,
   * as on a physical network.
   */
  setUnderlay(mode) {
    const state = mode === "wire" ? "off" : "on";
    for (const host of this.hosts) {
      for (const device of this.underlays) {
        const features = [
          "tso",
          "gso",
          "tx-udp_tnl-segmentation",
          "tx-udp_tnl-csum-segmentation",
          "tx-udp-segmentation",
        ];
        host.run(["ethtool", "-K", device, ...features.flatMap((feature) => [feature, state])]);
      }
    }
  }

  /** What `merge: auto` has chosen on host 2, which the traffic goes to. */
  merging() {
    const status = JSON.parse(this.hosts[1].vnetd("status", "--json"));
    return status.attached.find((each) => each.device === "eth0")?.merge;
  }

  close() {
    clear(this.prefix);
  }
}

/** Resolves when the daemon says that it is ready. */
function startDaemon(argv) {
  return new Promise((done, failed) => {
    const daemon = spawn(argv[0], argv.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    const timer = setTimeout(
      () => failed(new Error(`vnetd run is not ready after ${readyTimeoutMs / 1000} s:\n${said}`)),
      readyTimeoutMs,
    );
    const hear = (text) => {
      // read on, or the daemon would wait for us
      if (said.length < 65536) said += text;
      if (!/\bready\b/i.test(said)) return;
      clearTimeout(timer);
      done(daemon);
    };
    for (const stream of [daemon.stdout, daemon.stderr])
      stream.setEncoding("utf8").on("data", hear);
    daemon.on("error", failed);
    daemon.on("exit", (code) => failed(new Error(`vnetd run ended (${code}):\n${said}`)));
    daemon.unref();
    for (const stream of [daemon.stdout, daemon.stderr]) stream.unref?.();
  });
}
