// SPDX-License-Identifier: Apache-2.0
/** Labs that the end-to-end tests begin with: hosts with a daemon each, attached to one LAN. */
import { chmodSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Family } from "../../src/base/address.js";
import { eventually, type Guest, type Host } from "../lib/lab.js";
import type { DaemonOptions, Lab } from "../lib/lab.js";

/** canonical text of a short id */
export const longId = (short: string): string => `${"0000:".repeat(7)}${short.padStart(4, "0")}`;

/** hellos every second, so that tests of members need not wait */
export const quickHello = "helloSeconds: 1\n";

/** Hosts a, b, c … at 10.66.1.1, .2, .3 … on lan0, each with a daemon attached to eth0. */
export async function attachedHosts(
  lab: Lab,
  names: readonly string[],
  options: DaemonOptions = {},
): Promise<Host[]> {
  const hosts: Host[] = [];
  for (const [index, name] of names.entries()) {
    const host = await lab.host(name, { underlay: `10.66.1.${index + 1}/24` });
    await attachedDaemon(host, options);
    hosts.push(host);
  }
  return hosts;
}

/** A daemon that is attached to eth0. */
export async function attachedDaemon(host: Host, options: DaemonOptions = {}): Promise<void> {
  await startDaemon(host, options);
  await host.vnetd(["attach", "eth0"]);
}

/** Without metrics: daemons of one machine would want the same port, were they not in namespaces. */
export async function startDaemon(host: Host, options: DaemonOptions = {}): Promise<void> {
  await host.startDaemon({
    ...options,
    args: ["--metrics-listen", "off", ...(options.args ?? [])],
  });
}

/** Where a host is on a routed subnet. */
export const underlayAddress = (family: Family, subnet: number, number: number): string =>
  family === 4 ? `10.66.${subnet}.${number}` : `fd66:0:0:${subnet}::${number.toString(16)}`;

const withPrefix = (family: Family, subnet: number, number: number): string =>
  `${underlayAddress(family, subnet, number)}/${family === 4 ? 24 : 64}`;

/** Another address of a device; no duplicate address detection: a test need not wait for it. */
export async function addAddress(host: Host, address: string, device = "eth0"): Promise<void> {
  const nodad = address.includes(":") ? ["nodad"] : [];
  await host.exec(["ip", "address", "replace", address, "dev", device, ...nodad]);
}

/** The hosts themselves are on vnet 4: at 10.4.0.N or fd04::N, or both. `first`: the first one's N, 1 if left out. */
export async function addressVnet4(
  hosts: readonly Host[],
  { first = 1, families = [4] }: { first?: number; families?: readonly Family[] } = {},
): Promise<void> {
  for (const [at, host] of hosts.entries()) {
    const n = first + at;
    await host.exec(["ip", "link", "set", "vnif0004", "up"]);
    for (const family of families)
      await addAddress(host, family === 4 ? `10.4.0.${n}/24` : `fd04::${n}/64`, "vnif0004");
  }
}

const ROUTER = 254;

/**
 * Subnet n is LAN lan(n-1), 10.66.n.0/24 or fd66:0:0:n::/64 or both, with a router that forwards no
 * multicast at .254 or ::fe.
 */
export async function routedSubnets(
  lab: Lab,
  count: number,
  [first = 4, ...more]: readonly Family[] = [4],
): Promise<Host> {
  const subnets = Array.from({ length: count }, (_, index) => index + 1);
  const router = await lab.host("router", {
    underlay: Object.fromEntries(
      subnets.map((subnet) => [`lan${subnet - 1}`, withPrefix(first, subnet, ROUTER)]),
    ),
  });
  for (const family of more) {
    for (const subnet of subnets)
      await addAddress(router, withPrefix(family, subnet, ROUTER), `eth${subnet - 1}`);
  }
  await router.sysctl("net.ipv4.ip_forward", 1);
  await router.sysctl("net.ipv6.conf.all.forwarding", 1);
  return router;
}

/** A host of a routed subnet; it has no daemon yet. */
export async function routedHost(
  lab: Lab,
  name: string,
  {
    subnet,
    number,
    families = [4],
  }: { subnet: number; number: number; families?: readonly Family[] },
): Promise<Host> {
  const [first = 4, ...more] = families;
  const host = await lab.host(name, {
    underlay: { [`lan${subnet - 1}`]: withPrefix(first, subnet, number) },
  });
  for (const family of more) await addAddress(host, withPrefix(family, subnet, number));
  for (const family of families) {
    const via = underlayAddress(family, subnet, ROUTER);
    await host.exec(["ip", `-${family}`, "route", "add", "default", "via", via]);
  }
  return host;
}

/** How often each guest heard an ARP request for an address that nobody has, for each that one sent. */
export async function timesHeard(
  guests: readonly Guest[],
  from: number,
  target: string,
): Promise<number[]> {
  const wanted = target
    .split(".")
    .map((part) => Number(part).toString(16).padStart(2, "0"))
    .join("");
  const filter = `arp[6:2] = 1 and arp[24:4] = 0x${wanted}`;
  const captures = await Promise.all(guests.map((guest) => guest.capture("eth0", filter)));
  await guests[from]!.tryExec(["ping", "-c", "1", "-W", "1", target]);
  await eventually(() => captures.every(({ packets }) => packets.length > 0), {
    timeoutMs: 10_000,
    what: "every guest to hear the broadcast",
  });
  await Promise.all(captures.map((each) => each.stop()));
  const sent = captures[from]!.packets.length;
  return captures.map(({ packets }) => packets.length / sent);
}

/** The configuration that makes a daemon use all of these. */
export const configFor = (families: readonly Family[]): string =>
  families.length > 1 ? `${quickHello}underlay: both\n` : quickHello;

/** What names mean to one host's daemon: an /etc/hosts of its own, and no name server that answers. */
export class Names {
  /** to be started in place of bin/vnetd */
  readonly program: string;
  private readonly hostsFile: string;

  constructor(
    lab: Lab,
    private readonly host: Host,
  ) {
    this.hostsFile = lab.file(`${host.name}-hosts`, "127.0.0.1 localhost\n");
    const resolver = lab.file(
      `${host.name}-resolv.conf`,
      "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    );
    const vnetd = new URL("../../bin/vnetd", import.meta.url).pathname;
    this.program = lab.file(
      `${host.name}-vnetd`,
      `#!/bin/sh
exec unshare -m sh -c 'mount --bind ${this.hostsFile} /etc/hosts
mount --bind ${resolver} /etc/resolv.conf
exec ${vnetd} "$@"' sh "$@"
`,
    );
    chmodSync(this.program, 0o755);
  }

  async set(name: string, addresses: readonly string[]): Promise<void> {
    const lines = addresses.map((address) => `${address} ${name}`).join("\n");
    await this.host.exec([
      "sh",
      "-c",
      `printf '%s\n' '127.0.0.1 localhost' "$1" > ${this.hostsFile}`,
      "sh",
      lines,
    ]);
  }
}

/** packets that this machine's CPUs had no room for, between namespaces: not the data plane's */
export const backlogDrops = (): number =>
  readFileSync("/proc/net/softnet_stat", "utf8")
    .trimEnd()
    .split("\n")
    .reduce((sum, line) => sum + Number.parseInt(line.split(" ")[1] ?? "0", 16), 0);

const addon = resolve(import.meta.dirname, "../../build/addon/vnetd.node");

/** In the host's namespace, with the addon as `native`; what it returns. */
export async function withAddon<T>(host: Host, body: string): Promise<T> {
  const code = `const native = require(${JSON.stringify(addon)});
    process.stdout.write(JSON.stringify((() => { ${body} })() ?? null))`;
  return JSON.parse((await host.exec([process.execPath, "-e", code])).stdout) as T;
}

/** The API's socket, spoken to directly. */
export { callApi } from "./api-call.js";
