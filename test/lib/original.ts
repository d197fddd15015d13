// SPDX-License-Identifier: Apache-2.0
/**
 * Starts an original vnet host (original-host.mjs) in a network namespace and talks to it.
 *
 *     const old = await startOriginal({ netns: "lab-h3", address: "10.66.1.3",
 *       guests: [{ vnet: "4", mac: "aa:00:00:00:04:03", ip: "192.168.4.3" }] });
 *     expect(await old.ping({ from: "192.168.4.3", to: "192.168.4.1", count: 3 })).toMatchObject({ received: 3 });
 *     await old.expectNothingRejected();
 *     await old.stop();
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";

const HOST_PROGRAM = fileURLToPath(new URL("./original-host.mjs", import.meta.url));
const START_TIMEOUT_MS = 30_000;
const COMMAND_TIMEOUT_MS = 120_000;

export interface OriginalGuest {
  vnet: string;
  mac: string;
  ip: string;
  /** 1500 as the original's default; its manual advises 1400 */
  mtuBytes?: number;
}

export interface OriginalOptions {
  /** name below /run/netns; without it: the namespace of this process */
  netns?: string;
  /** underlay address, which must be on a device of that namespace */
  address: string;
  group?: string;
  /** vnets without a guest, besides 2, 3 and 4 */
  vnets?: string[];
  guests?: OriginalGuest[];
  /** 60 s as in the original */
  ageMs?: number;
  /** addresses that it forwards to, and takes VFWD from */
  peers?: string[];
}

export interface PingOptions {
  /** a guest's address on the vnet */
  from: string;
  to: string;
  count?: number;
  intervalMs?: number;
  timeoutMs?: number;
  /** ICMP payload; 1472 fills a 1500-byte packet */
  sizeBytes?: number;
}

export interface PingResult {
  /** false: nobody answered ARP */
  resolved: boolean;
  sent: number;
  received: number;
  rttsMs: number[];
}

export interface OriginalEntry {
  vnet: string;
  mac: string;
  address: string;
  ageMs: number;
}

export interface Arrivals {
  group: number;
  unicast: number;
  vfwd: number;
}

export interface OriginalStats {
  received: number;
  sent: number;
  delivered: number;
  /** frames (VUDP) that came, by the way that they came */
  arrivals: Arrivals;
  /** ARP requests among them, by the address that was asked for */
  arpArrivals: Record<string, Arrivals>;
  /** reason -> count; empty when everything that came was acceptable to an original */
  rejected: Record<string, number>;
  rejections: { reason: string; source: string; hex: string }[];
  ignored: Record<string, number>;
  sendErrors: string[];
  kernel: {
    UdpInCsumErrors: number;
    IpInHdrErrors: number;
    IpReasmFails: number;
    IpReasmOKs: number;
    UdpRcvbufErrors: number;
  };
}

interface Answer {
  ready?: boolean;
  seq?: number;
  ok?: boolean;
  result?: unknown;
  error?: string;
}

export class OriginalHost {
  readonly address: string;
  private readonly child: ChildProcessByStdio<Writable, Readable, null>;
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private nextSeq = 1;

  constructor(address: string, child: ChildProcessByStdio<Writable, Readable, null>) {
    this.address = address;
    this.child = child;
  }

  handle(answer: Answer): void {
    if (answer.seq === undefined) return;
    this.waiting.get(answer.seq)?.(answer);
    this.waiting.delete(answer.seq);
  }

  private async command<T>(cmd: string, parameters: object = {}): Promise<T> {
    const seq = this.nextSeq++;
    const answer = await new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(seq);
        reject(new Error(`original host ${this.address}: no answer to ${cmd}`));
      }, COMMAND_TIMEOUT_MS);
      this.waiting.set(seq, (a) => {
        clearTimeout(timer);
        resolve(a);
      });
      this.child.stdin.write(`${JSON.stringify({ seq, cmd, ...parameters })}\n`);
    });
    if (answer.ok !== true) throw new Error(`original host ${this.address}: ${answer.error}`);
    return answer.result as T;
  }

  ping(options: PingOptions): Promise<PingResult> {
    return this.command("ping", options);
  }

  async table(): Promise<OriginalEntry[]> {
    return (await this.command<{ entries: OriginalEntry[] }>("table")).entries;
  }

  stats(): Promise<OriginalStats> {
    return this.command("stats");
  }

  guestAdd(guest: OriginalGuest): Promise<void> {
    return this.command("guestAdd", { guest });
  }

  guestDelete(mac: string): Promise<void> {
    return this.command("guestDelete", { mac });
  }

  /** a guest asks for an address by ARP, again when it is known already */
  async arpProbe(from: string, to: string): Promise<boolean> {
    await this.command("arpForget", { from });
    return (await this.command<{ resolved: boolean }>("arpProbe", { from, to })).resolved;
  }

  /** one ARP request of a guest, whoever answers */
  arpOnce(from: string, to: string): Promise<void> {
    return this.command("arpOnce", { from, to });
  }

  /** forgets all (vnet, MAC) -> host entries */
  flush(): Promise<void> {
    return this.command("flush");
  }

  /** sends a payload as it is from port 1798 */
  raw(to: string, payload: Uint8Array): Promise<void> {
    return this.command("raw", { to, payloadHex: Buffer.from(payload).toString("hex") });
  }

  /** fails with the offending bytes when anything that arrived was not what an original takes */
  async expectNothingRejected(): Promise<void> {
    const { rejections, kernel } = await this.stats();
    const refused = rejections.map((r) => `${r.reason} from ${r.source}: ${r.hex}`);
    if (kernel.UdpInCsumErrors > 0) refused.push(`${kernel.UdpInCsumErrors} UDP checksum errors`);
    if (kernel.IpInHdrErrors > 0) refused.push(`${kernel.IpInHdrErrors} IP header errors`);
    if (refused.length > 0) {
      throw new Error(`an original host would have refused:\n${refused.join("\n")}`);
    }
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, "exit");
    this.child.stdin.end();
    await exited;
  }
}

export async function startOriginal(options: OriginalOptions): Promise<OriginalHost> {
  const { netns, ...config } = options;
  const node = [process.execPath, HOST_PROGRAM, JSON.stringify(config)];
  const [command = "", ...args] =
    netns === undefined ? node : ["nsenter", `--net=/run/netns/${netns}`, "--", ...node];
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const host = new OriginalHost(options.address, child);
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error("original host did not start")),
      START_TIMEOUT_MS,
    );
    child.once("exit", (code) => reject(new Error(`original host ended with ${code}`)));
    child.once("error", reject);
    createInterface({ input: child.stdout }).on("line", (line) => {
      const answer = JSON.parse(line) as Answer;
      if (answer.ready === true) {
        clearTimeout(timer);
        resolve();
      } else {
        host.handle(answer);
      }
    });
  });
  return host;
}
