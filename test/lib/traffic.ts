// SPDX-License-Identifier: Apache-2.0
/**
 * Traffic between the lab's namespaces and what is seen of it: ping, iperf3 and tcpdump, with
 * their output parsed. Each takes the thing that runs commands ("somewhere"): a Host or a Guest.
 */
import { setTimeout as delay } from "node:timers/promises";
import { decodePcap, type CapturedPacket } from "./pcap.js";
import {
  CommandFailed,
  timeFactor,
  type Background,
  type Command,
  type RunOptions,
  type RunResult,
} from "./processes.js";

/** A place where commands run: a host or a guest of the lab. */
export interface Place {
  tryExec(command: Command, options?: RunOptions): Promise<RunResult>;
  spawn(command: Command, options?: RunOptions): Background;
}

export interface PingOptions {
  /** default 3 */
  count?: number;
  /** default 200; below 2 ms ping wants -f, not offered */
  intervalMs?: number;
  /** how long to wait for the last answer, default 1000 */
  waitMs?: number;
  /** payload, without IP and ICMP headers */
  sizeBytes?: number;
  dontFragment?: boolean;
  /** -I: device or source address */
  from?: string;
  ttl?: number;
}

export interface PingResult {
  sent: number;
  received: number;
  duplicates: number;
  lost: number;
  /** addresses that answered, each once */
  responders: string[];
  /** sequence numbers that were answered, in order of arrival; the first is 1 */
  sequences: number[];
  rttMs?: { min: number; avg: number; max: number };
  text: string;
}

function pingArgv(target: string, o: PingOptions): string[] {
  const argv = ["ping", "-n", "-i", String((o.intervalMs ?? 200) / 1000)];
  argv.push("-W", String(((o.waitMs ?? 1000) * timeFactor) / 1000));
  if (o.count !== undefined) argv.push("-c", String(o.count));
  if (o.sizeBytes !== undefined) argv.push("-s", String(o.sizeBytes));
  if (o.dontFragment) argv.push("-M", "do");
  if (o.from !== undefined) argv.push("-I", o.from);
  if (o.ttl !== undefined) argv.push("-t", String(o.ttl));
  return [...argv, target];
}

export function parsePing(text: string): PingResult {
  const summary = /(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?/.exec(text);
  if (!summary) throw new Error(`not ping's output:\n${text}`);
  const [sent, received, duplicates] = [summary[1], summary[2], summary[3] ?? "0"].map(Number) as [
    number,
    number,
    number,
  ];
  const responders = new Set<string>();
  const sequences: number[] = [];
  for (const [, address, sequence] of text.matchAll(
    /bytes from ([0-9a-fA-F.:%\w]+): icmp_seq=(\d+)/g,
  )) {
    responders.add(address ?? "");
    sequences.push(Number(sequence));
  }
  const rtt = /= ([\d.]+)\/([\d.]+)\/([\d.]+)\/[\d.]+ ms/.exec(text);
  return {
    sent,
    received,
    duplicates,
    lost: sent - received,
    responders: [...responders].sort(),
    sequences,
    ...(rtt ? { rttMs: { min: Number(rtt[1]), avg: Number(rtt[2]), max: Number(rtt[3]) } } : {}),
    text,
  };
}

/** Pings and returns what was lost; only a ping that could not run at all throws. */
export async function ping(
  place: Place,
  target: string,
  options: PingOptions = {},
): Promise<PingResult> {
  const argv = pingArgv(target, { count: 3, ...options });
  const result = await place.tryExec(argv);
  // 1: no or not all answers. 2: e.g. "network is unreachable" before the first packet
  if (!/packets transmitted/.test(result.stdout)) throw new CommandFailed(argv, result);
  return parsePing(result.stdout);
}

/** A ping that runs beside the test. */
export class PingRun {
  constructor(private readonly process: Background) {}

  static start(place: Place, target: string, options: PingOptions = {}): PingRun {
    return new PingRun(place.spawn(pingArgv(target, options)));
  }

  /** answers so far */
  get answers(): number {
    return this.process.stdout.match(/bytes from/g)?.length ?? 0;
  }

  async stop(): Promise<PingResult> {
    return parsePing((await this.process.stop("SIGINT")).stdout);
  }
}

export interface IperfOptions {
  /** address of the server's side */
  address: string;
  /** whole seconds, default 2 */
  seconds?: number;
  udp?: boolean;
  /** iperf3's -b, e.g. "20M"; UDP's default there is 1M, here unlimited */
  bitrate?: string;
  /** iperf3's -l: of a write or a datagram */
  lengthBytes?: number;
  parallel?: number;
  port?: number;
  /** the server sends */
  reverse?: boolean;
}

export interface IperfResult {
  bitsPerSecond: number;
  /** received by the other side */
  bytes: number;
  retransmits: number;
  /** UDP only */
  packets: number;
  lostPackets: number;
}

interface IperfSum {
  bits_per_second?: number;
  bytes?: number;
  retransmits?: number;
  packets?: number;
  lost_packets?: number;
}

export async function iperf3(
  client: Place,
  server: Place,
  options: IperfOptions,
): Promise<IperfResult> {
  const port = String(options.port ?? 5201);
  const seconds = Math.max(1, Math.round(options.seconds ?? 2));
  const listener = server.spawn(["iperf3", "-s", "-1", "-p", port, "--forceflush"]);
  try {
    await listener.output(/Server listening/);
    const argv = ["iperf3", "-c", options.address, "-p", port, "-t", String(seconds), "-J"];
    argv.push("--connect-timeout", String(5000 * timeFactor));
    if (options.udp) argv.push("-u");
    if (options.udp || options.bitrate !== undefined) argv.push("-b", options.bitrate ?? "0");
    if (options.lengthBytes !== undefined) argv.push("-l", String(options.lengthBytes));
    if (options.parallel !== undefined) argv.push("-P", String(options.parallel));
    if (options.reverse) argv.push("-R");
    const result = await client.tryExec(argv, { timeoutMs: (seconds + 20) * 1000 });
    if (result.code !== 0) throw new CommandFailed(argv, result);
    const { end } = JSON.parse(result.stdout) as {
      end: { sum?: IperfSum; sum_sent?: IperfSum; sum_received?: IperfSum };
    };
    const received = options.udp ? end.sum : end.sum_received;
    return {
      bitsPerSecond: received?.bits_per_second ?? 0,
      bytes: received?.bytes ?? 0,
      retransmits: end.sum_sent?.retransmits ?? 0,
      packets: end.sum?.packets ?? 0,
      lostPackets: end.sum?.lost_packets ?? 0,
    };
  } finally {
    await listener.stop("SIGKILL");
  }
}

/** tcpdump beside the test; the capture is in pcap format and can be read while it runs. */
export class Capture {
  private constructor(private readonly process: Background) {}

  static async start(place: Place, device: string, filter = ""): Promise<Capture> {
    const argv = [
      "tcpdump",
      "-i",
      device,
      "-U",
      "--immediate-mode",
      "-s",
      "0",
      "-w",
      "-",
      "-Z",
      "root",
    ];
    if (filter !== "") argv.push(filter);
    const capture = new Capture(place.spawn(argv));
    await capture.process.output(/listening on/);
    return capture;
  }

  /** the pcap file so far, up to the last whole record */
  get bytes(): Buffer {
    return wholeRecords(this.process.stdoutBytes);
  }

  get packets(): CapturedPacket[] {
    return decodePcap(this.bytes).packets;
  }

  /** Stops once nothing new has come for a moment, and returns the pcap file. */
  async stop(quietMs = 60): Promise<Buffer> {
    for (let before = -1; before !== this.bytes.length; await delay(quietMs * timeFactor))
      before = this.bytes.length;
    await this.process.stop("SIGINT");
    return this.bytes;
  }
}

/** Cuts a record off that is still being written (little-endian, as tcpdump writes it here). */
function wholeRecords(file: Buffer): Buffer {
  let end = 24;
  while (end + 16 <= file.length) {
    const next = end + 16 + file.readUInt32LE(end + 8);
    if (next > file.length) break;
    end = next;
  }
  return file.subarray(0, end);
}
