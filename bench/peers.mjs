// SPDX-License-Identifier: Apache-2.0
/**
 * What people use instead, where Debian has it: Open vSwitch with its data path in user space, tinc in switch mode,
 * fastd. Each is a device with an address on both hosts of the lab, as vnet 4 is; encryption is off where it can
 * be. They go by the device that VXLAN uses; Open vSwitch, which takes a device for itself, has one of its own.
 *
 * All they write is in the lab's directory, and their processes are in its namespaces, so its close() ends them.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { run } from "./lab.mjs";

const upMs = 15_000;
const mtu = 1400;

/** By way: its name, the package that it is in, and where host 2 is reached. */
export const peers = {
  ovs: {
    name: "Open vSwitch",
    package: "openvswitch-switch",
    command: "ovs-vswitchd",
    target: "192.168.6.2",
    start: ovs,
  },
  tinc: { name: "tinc", package: "tinc", command: "tincd", target: "192.168.7.2", start: tinc },
  fastd: { name: "fastd", package: "fastd", command: "fastd", target: "192.168.8.2", start: fastd },
};

/**
 * Starts each on both hosts. What cannot be had is left out.
 *
 * @returns {targets: {way: address}, missing: {way: why}}
 */
export async function startPeers(lab) {
  const targets = {};
  const missing = {};
  for (const [way, peer] of Object.entries(peers)) {
    try {
      find(peer.command);
      await peer.start(lab);
      await answers(lab.hosts[0], peer.target);
      targets[way] = peer.target;
    } catch (error) {
      missing[way] =
        error.code === "ENOENT" ? `the package ${peer.package} is missing` : error.message;
    }
  }
  return { targets, missing };
}

async function answers(host, target) {
  for (const end = Date.now() + upMs; ;) {
    try {
      host.run(["ping", "-n", "-q", "-c", "1", "-W", "1", target]);
      return;
    } catch (error) {
      if (Date.now() > end) throw new Error(`${target} does not answer`, { cause: error });
    }
  }
}

async function appears(host, device) {
  for (const end = Date.now() + upMs; ; await delay(100)) {
    try {
      host.link(device);
      return;
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

/** A daemon that goes to the background; it may keep what it was given to write to, so that is nothing. */
function background(host, command) {
  const [name, ...args] = host.argv(command);
  const { status, error } = spawnSync(name, args, { stdio: "ignore", timeout: upMs });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command[0]}: exit code ${status}`);
}

/** Throws ENOENT when it is not installed. */
function find(command) {
  const { status } = spawnSync("which", [command], { stdio: "ignore" });
  if (status !== 0) throw Object.assign(new Error(command), { code: "ENOENT" });
}

function directory(lab, name) {
  const path = join(lab.directory, name);
  mkdirSync(path);
  return path;
}

/** The device is there: its address, as vnet 4's is set. */
async function address(host, device, net, n) {
  await appears(host, device);
  host.ip(`address add 192.168.${net}.${n}/24 dev ${device}`);
  host.ip(`link set ${device} mtu ${mtu} up`);
}

/** Two bridges, as its manual has it: the tunnel's, and one that the underlay's device is a port of. */
async function ovs(lab) {
  const [one, two] = lab.hosts;
  one.ip(`link add eth2 type veth peer name eth2 netns ${two.netns}`);
  for (const [i, host] of lab.hosts.entries()) {
    const n = i + 1;
    host.ip("link set eth2 up");
    const dir = directory(lab, `ovs${n}`);
    const socket = `unix:${dir}/db.sock`;
    const file = (name) => join(dir, name);
    const daemon = (name, ...args) =>
      background(host, [
        ...["env", `OVS_RUNDIR=${dir}`, name, ...args, "--detach", "--no-chdir"],
        ...["pid", "log", "ctl"].map(
          (what, at) => `--${["pidfile", "log-file", "unixctl"][at]}=${file(`${name}.${what}`)}`,
        ),
      ]);
    run(["ovsdb-tool", "create", file("db"), "/usr/share/openvswitch/vswitch.ovsschema"]);
    daemon("ovsdb-server", file("db"), `--remote=p${socket}`);
    const vsctl = (line) => host.run(["ovs-vsctl", `--db=${socket}`, ...line.split(" ")]);
    vsctl("--no-wait init");
    daemon("ovs-vswitchd", socket);
    for (const [bridge, port] of [
      ["br-phy", "eth2"],
      ["br-int", "tunnel0"],
    ]) {
      vsctl(`add-br ${bridge} -- set bridge ${bridge} datapath_type=netdev`);
      const tunnel = ` -- set interface tunnel0 type=vxlan options:key=4 options:remote_ip=203.0.113.${3 - n}`;
      vsctl(`add-port ${bridge} ${port}${port === "tunnel0" ? tunnel : ""}`);
    }
    host.ip(`address add 203.0.113.${n}/24 dev br-phy`);
    host.ip("link set br-phy up");
    await address(host, "br-int", 6, n);
  }
}

async function tinc(lab) {
  const dirs = lab.hosts.map((_, i) => directory(lab, `tinc${i + 1}`));
  for (const [i, dir] of dirs.entries()) {
    const n = i + 1;
    mkdirSync(join(dir, "hosts"));
    const connect = n === 2 ? "ConnectTo = h1\n" : "";
    writeFileSync(
      join(dir, "tinc.conf"),
      `Name = h${n}\nMode = switch\nInterface = tinc0\nAddressFamily = ipv4\n${connect}`,
    );
    const host = `Address = 192.0.2.${n}\nCipher = none\nDigest = none\nCompression = 0\n`;
    writeFileSync(join(dir, "hosts", `h${n}`), host);
    run(["tincd", "-c", dir, "-K", "2048"]);
  }
  for (const [i, dir] of dirs.entries()) {
    const other = `h${2 - i}`;
    copyFileSync(join(dirs[1 - i], "hosts", other), join(dir, "hosts", other));
  }
  for (const [i, dir] of dirs.entries()) {
    const host = lab.hosts[i];
    background(host, ["tincd", "-c", dir, `--pidfile=${dir}/pid`, `--logfile=${dir}/log`]);
    await address(host, "tinc0", 7, i + 1);
  }
}

async function fastd(lab) {
  const keys = lab.hosts.map(() => {
    const text = run(["fastd", "--generate-key"]);
    const [secret, key] = ["Secret", "Public"].map(
      (name) => new RegExp(`${name}: ([0-9a-f]+)`).exec(text)[1],
    );
    return { secret, key };
  });
  for (const [i, host] of lab.hosts.entries()) {
    const n = i + 1;
    const dir = directory(lab, `fastd${n}`);
    const config = [
      'log level warn; mode tap; interface "fastd0"; method "null";',
      `mtu ${mtu}; bind 192.0.2.${n}:10000; secret "${keys[i].secret}";`,
      `peer "other" { key "${keys[1 - i].key}"; remote 192.0.2.${3 - n}:10000; }`,
    ];
    writeFileSync(join(dir, "config"), `${config.join("\n")}\n`, { mode: 0o600 });
    background(host, [
      "fastd",
      "-c",
      join(dir, "config"),
      "--daemon",
      "--pid-file",
      join(dir, "pid"),
    ]);
    await address(host, "fastd0", 8, n);
  }
}
