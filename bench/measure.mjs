// SPDX-License-Identifier: Apache-2.0
/**
 * One measurement each, from one place of the lab to another: TCP, UDP packets, round trip.
 *
 * Sender and receiver have a core each, the same for all ways: where the scheduler happens
 * to put them otherwise changes a result more than the data plane does.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { join, resolve } from "node:path";

export const packets = join(resolve(import.meta.dirname, ".."), "build", "bench", "packets");
const udpPort = 9000;
const tcpPort = 5201;
/** left out of a TCP transfer's result: slow start */
const tcpOmitSeconds = 1;
/** so long beyond what was asked may a tool take before it counts as hung */
const graceMs = 15_000 * Number(process.env.VNETD_TIME_FACTOR ?? "1");

const many = cpus().length > 1;
const pinned = many ? { sender: 0, receiver: 1 } : {};

/** Another way first in each round. */
export const turned = (ways, round) => ways.map((_, i) => ways[(i + round) % ways.length]);

/** What a process prints, as JSON. */
export function printed([program, ...args], input = "") {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  let out = "";
  child.stdin.end(input);
  child.stdout.setEncoding("utf8").on("data", (text) => (out += text));
  return new Promise((done, failed) => {
    child.on("error", failed);
    child.on("close", (code) =>
      code === 0
        ? done(JSON.parse(out))
        : failed(new Error(`${[program, ...args].join(" ").slice(0, 200)}: exit ${code}`)),
    );
  });
}

/** A process whose output is collected. */
export class Tool {
  constructor(argv, timeoutMs) {
    this.argv = argv;
    this.text = "";
    this.process = spawn(argv[0], argv.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        this.text += text;
        this.onText?.();
      });
    }
    const timer = setTimeout(() => this.process.kill("SIGKILL"), timeoutMs);
    this.ended = new Promise((done) => {
      this.process.on("error", (error) => done(error));
      this.process.on("close", (code) => done(code));
    }).finally(() => {
      clearTimeout(timer);
      this.onText?.();
    });
  }

  /** Until it has said so, or has ended. */
  async says(pattern) {
    await Promise.race([
      this.ended,
      new Promise((done) => {
        this.onText = () => pattern.test(this.text) && done();
        this.onText();
      }),
    ]);
  }

  /** Its output; throws when it failed. */
  async output() {
    const code = await this.ended;
    if (code !== 0)
      throw new Error(
        `${this.argv.slice(3).join(" ")}: ${this.text.trim() || `ended with ${code}`}`,
      );
    return this.text;
  }
}

/**
 * CPU time of the whole machine, in ns, or of one core: what the kernel has accounted to programs, itself and
 * interrupts, soft ones included. By the tick (10 ms), so for what takes a second.
 */
export function busyNs(core = "") {
  const line = readFileSync("/proc/stat", "utf8")
    .split("\n")
    .find((text) => text.startsWith(`cpu${core} `));
  const [user, nice, system, , , irq, softirq] = line.split(/\s+/).slice(1).map(Number);
  return (user + nice + system + irq + softirq) * 1e7;
}

/**
 * {gbits, nsPerKib} of what arrived, with the given congestion control at the senders; both: in both directions at once;
 * port, cores: where several are measured at the same time
 */
export async function tcp(
  from,
  to,
  target,
  { seconds, congestion, streams = 1, both = false, port = tcpPort, cores = pinned },
) {
  const duration = (seconds + tcpOmitSeconds) * 1000 + graceMs;
  const server = new Tool(
    to.argv(["iperf3", "-s", "-1", "-p", String(port), "--forceflush"], cores.receiver),
    duration,
  );
  await server.says(/listening/);
  const times = ["-t", String(seconds), "-O", String(tcpOmitSeconds)];
  const options = ["-p", String(port), "-J", "-C", congestion, "-P", String(streams), ...times];
  if (both) options.push("--bidir");
  const before = busyNs();
  const client = new Tool(from.argv(["iperf3", "-c", target, ...options], cores.sender), duration);
  try {
    const { end, intervals } = JSON.parse(await client.output());
    const busy = busyNs() - before;
    const sums = intervals.flatMap(({ sum, sum_bidir_reverse: back }) => [
      sum,
      back ?? { bytes: 0 },
    ]);
    const kib = sums.reduce((total, { bytes }) => total + bytes, 0) / 1024;
    const bits =
      end.sum_received.bits_per_second + (end.sum_received_bidir_reverse?.bits_per_second ?? 0);
    return { gbits: bits / 1e9, nsPerKib: busy / kib };
  } finally {
    server.process.kill("SIGKILL");
    await server.ended;
  }
}

/**
 * {thousands, nsPerPacket, received, sent}: datagrams a second, in thousands, that arrived, the machine's CPU time for each, and how many.
 * rate: so many are sent a second; without, as many as one core sends.
 */
export async function udp(from, to, target, { seconds, bytes = 64, rate }) {
  const duration = seconds * 1000 + graceMs;
  const receiver = new Tool(
    to.argv([packets, "receive", String(udpPort), String(seconds)], pinned.receiver),
    duration,
  );
  await receiver.says(/ready/);
  const argv = [packets, "send", target, String(udpPort), String(bytes), String(seconds)];
  if (rate !== undefined) argv.push(String(rate));
  const before = busyNs();
  const { sent } = JSON.parse(await new Tool(from.argv(argv, pinned.sender), duration).output());
  const busy = busyNs() - before;
  const lines = (await receiver.output()).trim().split("\n");
  const { perSecond, received } = JSON.parse(lines[lines.length - 1]);
  return { thousands: perSecond / 1000, nsPerPacket: busy / received, received, sent };
}

/** Median and 99.9th percentile of `count` ICMP round trips, in microseconds. */
export async function echo(from, to, target, count) {
  const tool = new Tool(
    from.argv([packets, "echo", target, String(count)], pinned.sender),
    4 * graceMs,
  );
  const { medianNs, p999Ns, lost } = JSON.parse(await tool.output());
  if (lost > 0) throw new Error(`${lost} of ${count} echoes to ${target} were lost`);
  return { median: medianNs / 1000, p999: p999Ns / 1000 };
}

/** Waits until a path carries packets: neighbours are found, bridges forward. */
export async function reachable(from, target) {
  const tool = new Tool(
    from.argv(["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-w", "10", target]),
    graceMs,
  );
  const text = await tool.output();
  if (/100% packet loss/.test(text)) throw new Error(`${target} does not answer:\n${text}`);
}
