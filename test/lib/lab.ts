// SPDX-License-Identifier: Apache-2.0
/**
 * The lab: several hosts on one machine, each a network namespace with a daemon of its own, so
 * that tests drive the real vnetd from outside, as its users do.
 *
 *        guest "g1"            guest "g2"                 guest "g3"
 *       ┌──────────┐          ┌──────────┐               ┌──────────┐
 *       │   eth0   │          │   eth0   │               │   eth0   │     veth, any MAC, IP
 *       └────┬─────┘          └────┬─────┘               └────┬─────┘
 *   ┌────────┼─────────────────────┼───────┐         ┌────────┼──────────────┐
 *   │  ┌─ bridge vnet97 ──┐  ┌─ bridge … ─┐│         │  ┌─ bridge vnet97 ──┐  │
 *   │  │ g-g1   vnif97    │  │            ││         │  │ g-g3   vnif97    │  │
 *   │  └──────────────────┘  └────────────┘│         │  └──────────────────┘  │
 *   │ host "a": vnetd, run, state, bpffs   │         │ host "b": vnetd …      │
 *   │       eth0          (eth1: 2nd LAN)  │         │       eth0     (eth1)  │
 *   └────────┼─────────────────┼───────────┘         └────────┼─────────┼─────┘
 *   ┌────────┼─────────────────┼──────────────────────────────┼─────────┼─────┐
 *   │ switch │  bridge lan0 ───┼──────────────────────────────┘         │     │
 *   │        └─────────────────┘  bridge lan1 ──────────────────────────┘     │
 *   └─────────────────────────────────────────────────────────────────────────┘
 *
 * Everything of a lab has one prefix, made of the process and the time it started. close() takes
 * it all away, so does the end of the process, and the next lab clears what a killed process left
 * (`pin`s and links would otherwise outlive it in the kernel). Commands enter a namespace by
 * `nsenter --net`, since `ip netns exec` mounts a fresh /sys, in which there is no bpffs.
 *
 *   const lab = await Lab.create();
 *   const a = await lab.host("a", { underlay: "10.66.1.1/24" });
 *   await a.startDaemon();
 *   await a.vnetd(["attach", "eth0"]);
 *   const g = await a.guest("g1", { bridge: "vnet97", address: "10.0.0.1/24" });
 *   expect((await g.ping("10.0.0.2")).lost).toBe(0);
 *   await lab.close();
 */
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { withOnly } from "./capabilities.js";
import {
  Background,
  argvOf,
  eventually,
  run,
  runSync,
  tryRun,
  type Command,
  type RunOptions,
  type RunResult,
} from "./processes.js";
import {
  Capture,
  PingRun,
  iperf3,
  ping,
  type IperfOptions,
  type IperfResult,
  type PingOptions,
  type PingResult,
  type Place,
} from "./traffic.js";

export { eventually, run, tryRun, timeFactor, Background, CommandFailed } from "./processes.js";
export { Capture, PingRun, iperf3, ping } from "./traffic.js";
export type { Command, RunOptions, RunResult } from "./processes.js";
export type { IperfOptions, IperfResult, PingOptions, PingResult } from "./traffic.js";

const bpffsRoot = "/sys/fs/bpf";
const bpffsMagic = 0xcafe4a11;
const family = "vt-";
export const repository = resolve(import.meta.dirname, "..", "..");

const netnsPath = (name: string): string => `/run/netns/${name}`;
const inside = (netns: string, command: Command): string[] => [
  "nsenter",
  `--net=${netnsPath(netns)}`,
  "--",
  ...argvOf(command),
];

/** field 22 of /proc/PID/stat, in base 36: with the pid it names a process for good */
function startTime(pid: number | "self"): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[19]).toString(36);
  } catch {
    return undefined;
  }
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.startsWith(family));
  } catch {
    return [];
  }
}

/** Takes away all that belongs to a prefix. Synchronous: exit handlers call it. */
function clear(prefix: string): void {
  const mine = (name: string): boolean => name.startsWith(prefix);
  const namespaces = names("/run/netns").filter(mine);
  for (const name of namespaces) {
    for (const pid of runSync(["ip", "netns", "pids", name]).split(/\s+/).filter(Boolean)) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // it ended by itself
      }
    }
  }
  for (const name of namespaces) runSync(["ip", "netns", "delete", name]);
  for (const directory of [bpffsRoot, tmpdir()]) {
    for (const name of names(directory).filter(mine))
      rmSync(join(directory, name), { recursive: true, force: true });
  }
}

/** What labs of processes that are gone left behind. */
function clearLeftovers(): void {
  const found = [...names("/run/netns"), ...names(bpffsRoot), ...names(tmpdir())];
  const owners = new Set(
    found.map((name) => /^vt-\d+-[0-9a-z]+-/.exec(name)?.[0]).filter((p) => p !== undefined),
  );
  for (const owner of owners) {
    const [, pid, started] = owner.split("-");
    if (startTime(Number(pid)) !== started) clear(owner);
  }
}

export interface LanOptions {
  /** MTU of the hosts' ends; default 1500 */
  mtuBytes?: number;
  /** packets cross at MTU size: segmentation offload is off at the hosts' ends */
  wire?: boolean;
  /** multicast snooping with a querier: a group that nobody is a member of gets nothing */
  snooping?: boolean;
}

export interface HostOptions {
  /** address with prefix length on eth0, which is on the LAN lan0; or, by LAN, one device each */
  underlay?: string | Record<string, string>;
}

export interface DaemonOptions {
  /** default: bin/vnetd of the checkout */
  program?: string;
  /** after `vnetd run` and the directories */
  args?: readonly string[];
  env?: Record<string, string>;
  /** text of a configuration file, given by --config */
  config?: string;
  readyTimeoutMs?: number;
  /** all that it may do, instead of everything that root may */
  capabilities?: readonly string[];
}

export interface GuestOptions {
  /** of the host; it must be there. Left out: the host's end is on no bridge */
  bridge?: string;
  /** with prefix lengths, IPv4 or IPv6 (no duplicate address detection) */
  address?: string | readonly string[];
  mac?: string;
  /** default: 1400, as the manual advises for a 1500 underlay */
  mtuBytes?: number;
  /** name inside the guest, default eth0 */
  device?: string;
}

/** What hosts and guests have in common: a network namespace in which commands run. */
class Namespace implements Place {
  constructor(
    readonly lab: Lab,
    readonly name: string,
    /** name of the network namespace */
    readonly netns: string,
  ) {}

  exec(command: Command, options?: RunOptions): Promise<RunResult> {
    return run(inside(this.netns, command), options);
  }

  tryExec(command: Command, options?: RunOptions): Promise<RunResult> {
    return tryRun(inside(this.netns, command), options);
  }

  /** Ends with the lab, at the latest. */
  spawn(command: Command, options?: RunOptions): Background {
    return this.lab.track(new Background(inside(this.netns, command), options));
  }

  /** `ip -j …`, parsed */
  async ip<T = Record<string, unknown>[]>(...args: string[]): Promise<T> {
    const { stdout } = await this.exec(["ip", "-j", ...args]);
    return JSON.parse(stdout === "" ? "[]" : stdout) as T;
  }

  async mac(device = "eth0"): Promise<string> {
    const [link] = await this.ip<{ address: string }[]>("link", "show", "dev", device);
    if (link === undefined) throw new Error(`${this.name} has no ${device}`);
    return link.address;
  }

  async sysctl(name: string, value: string | number): Promise<void> {
    await this.exec(["sysctl", "-qw", `${name}=${value}`]);
  }

  ping(target: string, options?: PingOptions): Promise<PingResult> {
    return ping(this, target, options);
  }

  startPing(target: string, options?: PingOptions): PingRun {
    return PingRun.start(this, target, options);
  }

  capture(device: string, filter?: string): Promise<Capture> {
    return Capture.start(this, device, filter);
  }

  iperf3(server: Namespace, options: IperfOptions): Promise<IperfResult> {
    return iperf3(this, server, options);
  }
}

export class Guest extends Namespace {
  constructor(
    lab: Lab,
    name: string,
    netns: string,
    /** where it is now */
    public host: Host,
    /** the host's end of its first veth */
    readonly port: string,
  ) {
    super(lab, name, netns);
  }

  /** Another interface, on another bridge of the host. */
  async plug(device: string, options: GuestOptions = {}): Promise<void> {
    await connect(this, device, `${this.port}-${device}`.slice(0, 15), options);
  }

  /**
   * Moves the guest's first port to a bridge of another host, as a migration does: the guest
   * itself notices nothing but its carrier going away and coming back.
   */
  async moveTo(host: Host, bridge: string): Promise<void> {
    await run(["ip", "-n", this.host.netns, "link", "set", this.port, "netns", host.netns]);
    await run(["ip", "-n", host.netns, "link", "set", this.port, "master", bridge, "up"]);
    this.host = host;
  }

  /** Takes the first port off its bridge and down. */
  async unplug(): Promise<void> {
    await run(["ip", "-n", this.host.netns, "link", "set", this.port, "nomaster", "down"]);
  }
}

/** A veth between a guest and its host. */
async function connect(
  guest: Guest,
  device: string,
  port: string,
  options: GuestOptions,
): Promise<void> {
  const { bridge, mac, mtuBytes = 1400 } = options;
  const addresses = options.address === undefined ? [] : [options.address].flat();
  const [inner, outer] = [guest.netns, guest.host.netns];
  const mtu = ["mtu", String(mtuBytes)];
  const peer = [
    "peer",
    "name",
    device,
    ...(mac === undefined ? [] : ["address", mac]),
    ...mtu,
    "netns",
    inner,
  ];
  await run(["ip", "-n", outer, "link", "add", port, ...mtu, "type", "veth", ...peer]);
  await run([
    "ip",
    "-n",
    outer,
    "link",
    "set",
    port,
    ...(bridge === undefined ? [] : ["master", bridge]),
    "up",
  ]);
  await run(["ip", "-n", inner, "link", "set", device, "up"]);
  for (const address of addresses) {
    const nodad = address.includes(":") ? ["nodad"] : [];
    await run(["ip", "-n", inner, "address", "add", address, "dev", device, ...nodad]);
  }
}

export class Host extends Namespace {
  readonly runDir: string;
  readonly stateDir: string;
  readonly bpffs: string;
  private daemonProcess: Background | undefined;

  constructor(lab: Lab, name: string, netns: string) {
    super(lab, name, netns);
    const base = join(lab.directory, name);
    this.runDir = join(base, "run");
    this.stateDir = join(base, "state");
    this.bpffs = join(bpffsRoot, netns);
    mkdirSync(base);
  }

  /** The real command, with this host's --run-dir behind its arguments; throws on failure. */
  vnetd(args: readonly string[], options?: RunOptions): Promise<RunResult> {
    return this.exec(this.vnetdArgv(args), options);
  }

  tryVnetd(args: readonly string[], options?: RunOptions): Promise<RunResult> {
    return this.tryExec(this.vnetdArgv(args), options);
  }

  async vnetdJson<T>(args: readonly string[]): Promise<T> {
    return JSON.parse((await this.vnetd([...args, "--json"])).stdout) as T;
  }

  /** Starts `vnetd run` and waits for the line that says it is ready. */
  async startDaemon(options: DaemonOptions = {}): Promise<Background> {
    if (this.daemonProcess?.code === undefined && this.daemonProcess !== undefined) {
      throw new Error(`host ${this.name} runs a daemon already`);
    }
    const process = this.spawnDaemon(options);
    this.daemonProcess = process;
    await process.output(/\bready\b/i, {
      timeoutMs: options.readyTimeoutMs ?? 30_000,
      what: `host ${this.name}'s daemon`,
    });
    return process;
  }

  /** The same without waiting, for daemons that are expected to refuse. */
  spawnDaemon(options: DaemonOptions = {}): Background {
    const argv = [
      options.program ?? join(repository, "bin", "vnetd"),
      "run",
      "--run-dir",
      this.runDir,
    ];
    argv.push("--state-dir", this.stateDir, "--bpffs", this.bpffs, ...(options.args ?? []));
    if (options.config !== undefined)
      argv.push("--config", this.lab.file(`${this.name}.yaml`, options.config));
    // what tests look for is written for people; test/netns/daemon-log.test.ts has it as JSON
    const allowed = options.capabilities;
    return this.spawn(allowed === undefined ? argv : withOnly(allowed, argv), {
      env: { VNETD_LOG_FORMAT: "text", ...options.env },
    });
  }

  get daemon(): Background {
    if (this.daemonProcess === undefined)
      throw new Error(`host ${this.name} has started no daemon`);
    return this.daemonProcess;
  }

  /** Ends the daemon and waits until it is gone. */
  async killDaemon(signal: NodeJS.Signals = "SIGTERM"): Promise<RunResult> {
    const result = await this.daemon.stop(signal, 10_000);
    this.daemonProcess = undefined;
    return result;
  }

  /** A new guest behind this host. */
  async guest(name: string, options: GuestOptions = {}): Promise<Guest> {
    const netns = await this.lab.namespace(`g-${name}`);
    const guest = new Guest(this.lab, name, netns, this, `g-${name}`.slice(0, 15));
    await connect(guest, options.device ?? "eth0", guest.port, options);
    return guest;
  }

  private vnetdArgv(args: readonly string[]): string[] {
    return [join(repository, "bin", "vnetd"), ...args, "--run-dir", this.runDir];
  }
}

export class Lab {
  private static count = 0;
  readonly hosts = new Map<string, Host>();
  /** for files of the test; removed with the lab */
  readonly directory: string;
  private readonly lans = new Map<string, LanOptions>();
  private readonly processes: Background[] = [];
  private readonly onExit = (): void => clear(this.prefix);
  private files = 0;

  private constructor(readonly prefix: string) {
    this.directory = mkdtempSync(join(tmpdir(), prefix));
    process.once("exit", this.onExit);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.once(signal, this.onSignal);
  }

  /** Needs root. */
  static async create(): Promise<Lab> {
    if (process.getuid?.() !== 0)
      throw new Error("the lab makes network namespaces: run it as root");
    clearLeftovers();
    await ensureBpffs();
    Lab.count += 1;
    const lab = new Lab(`${family}${process.pid}-${startTime("self")}-${Lab.count}-`);
    await lab.namespace("switch");
    return lab;
  }

  /** A LAN of the underlay. lan0 makes itself with the first host when nobody asked for it. */
  async lan(name: string, options: LanOptions = {}): Promise<void> {
    const snooping = options.snooping ? "1" : "0";
    const bridge = ["type", "bridge", "forward_delay", "0", "stp_state", "0"];
    bridge.push("mcast_snooping", snooping, "mcast_querier", snooping);
    if (options.snooping) {
      // the querier speaks at once and often, so that a test need not wait minutes for expiry
      bridge.push("mcast_query_interval", "200", "mcast_startup_query_interval", "100");
      bridge.push("mcast_membership_interval", "500", "mcast_query_response_interval", "50");
      bridge.push("mcast_query_use_ifaddr", "0");
    }
    const { mtuBytes = 1500 } = options;
    await run(["ip", "-n", this.switch, "link", "add", name, "mtu", String(mtuBytes), ...bridge]);
    await run(["ip", "-n", this.switch, "link", "set", name, "up"]);
    this.lans.set(name, options);
  }

  async host(name: string, options: HostOptions = {}): Promise<Host> {
    const host = new Host(this, name, await this.namespace(name));
    this.hosts.set(name, host);
    const underlay =
      typeof options.underlay === "string" ? { lan0: options.underlay } : (options.underlay ?? {});
    let index = 0;
    for (const [lan, address] of Object.entries(underlay)) {
      if (!this.lans.has(lan)) await this.lan(lan);
      await this.connectHost(host, `eth${index}`, lan, address);
      index += 1;
    }
    return host;
  }

  /** One more device of a host, on a LAN. */
  async connectHost(host: Host, device: string, lan: string, address?: string): Promise<void> {
    const { mtuBytes = 1500, wire = false } = this.lans.get(lan) ?? {};
    const mtu = ["mtu", String(mtuBytes)];
    const port = switchPort(host.name, device);
    const peer = ["peer", "name", device, ...mtu, "netns", host.netns];
    await run(["ip", "-n", this.switch, "link", "add", port, ...mtu, "type", "veth", ...peer]);
    if (wire)
      await host.exec([
        "ethtool",
        "-K",
        device,
        "tso",
        "off",
        "gso",
        "off",
        "tx-udp-segmentation",
        "off",
      ]);
    await run(["ip", "-n", this.switch, "link", "set", port, "master", lan, "up"]);
    if (address !== undefined) {
      const nodad = address.includes(":") ? ["nodad"] : [];
      await run(["ip", "-n", host.netns, "address", "add", address, "dev", device, ...nodad]);
    }
    await run(["ip", "-n", host.netns, "link", "set", device, "up"]);
  }

  /** the switch's end of a host's device: where a LAN can be tapped or cut */
  switchPort(host: Host, device = "eth0"): string {
    return switchPort(host.name, device);
  }

  /** the namespace that holds the LANs' bridges */
  get switch(): string {
    return `${this.prefix}switch`;
  }

  execInSwitch(command: Command): Promise<RunResult> {
    return run(inside(this.switch, command));
  }

  /** A file for a test, e.g. a vnet's configuration; returns its path. */
  file(name: string, text: string): string {
    const path = join(this.directory, `${(this.files += 1)}-${name}`);
    writeFileSync(path, text);
    return path;
  }

  /** A new namespace of this lab, loopback up. Tests use host() and guest(). */
  async namespace(name: string): Promise<string> {
    const netns = `${this.prefix}${name}`;
    await run(["ip", "netns", "add", netns]);
    await run(["ip", "-n", netns, "link", "set", "lo", "up"]);
    return netns;
  }

  track(process: Background): Background {
    this.processes.push(process);
    return process;
  }

  /** What the daemons said, for the message of a failed test. */
  logs(): string {
    return this.processes
      .filter((each) => each.argv.includes("run"))
      .map(
        (each) =>
          `--- ${each.argv.join(" ")} (exit ${String(each.code ?? "none yet")})\n${each.stdout}${each.stderr}`,
      )
      .join("\n");
  }

  async close(): Promise<void> {
    for (const each of this.processes) each.signal("SIGKILL");
    await Promise.all(this.processes.map((each) => each.end()));
    clear(this.prefix);
    process.removeListener("exit", this.onExit);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.removeListener(signal, this.onSignal);
  }

  private readonly onSignal = (signal: NodeJS.Signals): void => {
    clear(this.prefix);
    // with our listener gone the signal does what it always does
    process.kill(process.pid, signal);
  };
}

const switchPort = (host: string, device: string): string => `${host}-${device}`.slice(0, 15);

/** /sys/fs/bpf is mounted by systemd; in a container or an initramfs it may be missing. */
async function ensureBpffs(): Promise<void> {
  if (statfsSync(bpffsRoot).type !== bpffsMagic)
    await run(["mount", "-t", "bpf", "bpf", bpffsRoot]);
}

/** Waits until a host's device carries frames: carrier, and the bridge port forwards. */
export async function deviceUp(place: Namespace, device: string): Promise<void> {
  await eventually(
    async () => {
      const [link] = await place.ip<{ operstate: string }[]>("link", "show", "dev", device);
      return link?.operstate === "UP" || link?.operstate === "UNKNOWN";
    },
    { what: `${place.name}'s ${device} to come up` },
  );
}
