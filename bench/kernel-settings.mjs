// SPDX-License-Identifier: Apache-2.0
/**
 * Settings of the kernel that a whole machine shares, and that many hosts on one machine need larger than each host by itself
 * would: raised while a bench runs, and put back when it ends, but for SIGKILL.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { droppedOf, ipv4Table, neighboursOf } from "../dist/src/doctor/kernel-limits.js";

const facts = { root: "/" };

/** By path: at least so much. What is more already stays. Gives what puts them back. */
export function raise(settings) {
  const before = Object.entries(settings).map(([path, least]) => {
    const was = readFileSync(path, "utf8").trim();
    if (Number(was) < least) writeFileSync(path, String(least));
    return [path, was];
  });
  let isBack = false;
  const putBack = () => {
    if (isBack) return;
    isBack = true;
    for (const [path, was] of before) writeFileSync(path, was);
  };
  process.on("exit", putBack);
  return putBack;
}

/**
 * For so many hosts in namespaces on one LAN that each speak to all others. Their neighbours are in one table of the kernel's, which
 * has room for 1,024 by default (`gc_thresh3`); a packet for a neighbour beyond that is dropped, and the kernel's log alone told.
 * One queue of received packets for each CPU (`netdev_max_backlog`, 1,000) stands for the queues of all the hosts' NICs,
 * and a packet to the group is in it once for each of them.
 */
export function raiseForHosts(hosts) {
  const thresholds = [1, 2, 3].map((n) => `/proc/sys/net/ipv4/neigh/default/gc_thresh${n}`);
  return raise({
    ...Object.fromEntries(thresholds.map((path) => [path, 2 * hosts * hosts])),
    "/proc/sys/net/core/netdev_max_backlog": Math.max(1000, 500 * hosts),
  });
}

/** What the kernel lost of received packets, or for want of room for neighbours, on the whole machine since its start. */
export function lostByKernel() {
  const neighbours = neighboursOf(facts, ipv4Table);
  return { backlog: droppedOf(facts), neighbours: neighbours.refused };
}
