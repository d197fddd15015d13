// SPDX-License-Identifier: Apache-2.0
/**
 * One measurement each, from one place of the lab to another: TCP, small UDP packets, round trip.
 *
 * Sender and receiver have a core each, the same for all three ways: where the scheduler happens
 * to put them otherwise changes a result more than the data plane does.
 */
import { spawn } from "node:child_process";
import { cpus } from "node:os";
import { join, resolve } from "node:path";

const packets = join(resolve(import.meta.dirname, ".."), "build", "bench", "packets");
const udpPort = 9000;
const tcpPort = 5201;
const udpBytes = 64;
/** left out of a TCP transfer's result: slow start */
const tcpOmitSeconds = 1;
/** so long beyond what was asked may a tool take before it counts as hung */
const graceMs = 15_000 * Number(process.env.VNETD_TIME_FACTOR ?? "1");

const many = cpus().length > 1;
const senderCpu = many ? 0 : undefined;
const receiverCpu = many ? 1 : undefined;

/** A process whose output is collected. */
class Tool {
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

/** Gbit/s that arrived, with the given congestion control at the sender. */
export async function tcp(from, to, target, { seconds, congestion }) {
  const duration = (seconds + tcpOmitSeconds) * 1000 + graceMs;
  const server = new Tool(
    to.argv(["iperf3", "-s", "-1", "-p", String(tcpPort), "--forceflush"], receiverCpu),
    duration,
  );
  await server.says(/listening/);
  const options = [
    "-p",
    String(tcpPort),
    "-t",
    String(seconds),
    "-O",
    String(tcpOmitSeconds),
    "-J",
    "-C",
    congestion,
  ];
  const client = new Tool(from.argv(["iperf3", "-c", target, ...options], senderCpu), duration);
  try {
    const result = JSON.parse(await client.output());
    return result.end.sum_received.bits_per_second / 1e9;
  } finally {
    server.process.kill("SIGKILL");
    await server.ended;
  }
}

/** Datagrams a second, in thousands, that arrived. */
export async function udp(from, to, target, seconds) {
  const duration = seconds * 1000 + graceMs;
  const receiver = new Tool(
    to.argv([packets, "receive", String(udpPort), String(seconds)], receiverCpu),
    duration,
  );
  await receiver.says(/ready/);
  const argv = [packets, "send", target, String(udpPort), String(udpBytes), String(seconds)];
  await new Tool(from.argv(argv, senderCpu), duration).output();
  const lines = (await receiver.output()).trim().split("\n");
  return JSON.parse(lines[lines.length - 1]).perSecond / 1000;
}

/** Median and 99th percentile of `count` ICMP round trips, in microseconds. */
export async function echo(from, to, target, count) {
  const tool = new Tool(
    from.argv([packets, "echo", target, String(count)], senderCpu),
    4 * graceMs,
  );
  const { medianNs, p99Ns, lost } = JSON.parse(await tool.output());
  if (lost > 0) throw new Error(`${lost} of ${count} echoes to ${target} were lost`);
  return { median: medianNs / 1000, p99: p99Ns / 1000 };
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
