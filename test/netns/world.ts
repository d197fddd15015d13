// SPDX-License-Identifier: Apache-2.0
/** Labs that the end-to-end tests begin with: hosts with a daemon each, attached to one LAN. */
import { type Host } from "../lib/lab.js";
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

/** Subnet n is LAN lan(n-1), 10.66.n.0/24, with the router at .254. */
export async function routedSubnets(lab: Lab, count: number): Promise<Host> {
  const underlay: Record<string, string> = {};
  for (let subnet = 1; subnet <= count; subnet++)
    underlay[`lan${subnet - 1}`] = `10.66.${subnet}.254/24`;
  const router = await lab.host("router", { underlay });
  await router.sysctl("net.ipv4.ip_forward", 1);
  return router;
}

/** A host of a routed subnet; it has no daemon yet. */
export async function routedHost(
  lab: Lab,
  name: string,
  { subnet, number }: { subnet: number; number: number },
): Promise<Host> {
  const host = await lab.host(name, {
    underlay: { [`lan${subnet - 1}`]: `10.66.${subnet}.${number}/24` },
  });
  await host.exec(["ip", "route", "add", "default", "via", `10.66.${subnet}.254`]);
  return host;
}

/** The API's socket, spoken to directly. */
export { callApi } from "./api-call.js";
