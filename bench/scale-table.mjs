// SPDX-License-Identifier: Apache-2.0
/**
 * Loads a table of so many MACs by batches of the control program, as src/dataplane/carry-over.ts does, and prints how
 * many entries the kernel counts then, how long it took, and how much larger this process became. For
 * bench/scale.mjs, in a network namespace; makes its maps in a directory of its own, and removes it.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseVnetId } from "../dist/src/base/vnet-id.js";
import { Control, MacBatch } from "../dist/src/dataplane/control.js";
import { openGeneration } from "../dist/src/dataplane/generation.js";
import { VnetTable } from "../dist/src/dataplane/vnet-table.js";
import { loadNative } from "../dist/src/native/load.js";

const count = Number(process.argv[2]);
const native = loadNative();
const bpffs = `/sys/fs/bpf/vnb-${process.pid}-table`;
const objectPath = fileURLToPath(new URL("../build/bpf/vnetd.bpf.o", import.meta.url));
const residentMiB = () =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024;

mkdirSync(bpffs, { mode: 0o700 });
try {
  const sizes = { fdbEntries: count + 1000, nexthops: 1024 };
  const { maps, programs } = openGeneration(native, { bpffs, objectPath, ...sizes });
  const control = new Control(native, programs.vnetd_control, programs.vnetd_send);
  const vnet = { slot: 1, handle: 1 };
  new VnetTable(native, maps).write(parseVnetId("97"), vnet, {
    ...{ security: 0, vnif: 0, vnifPeer: 0, vmac: Buffer.alloc(6) },
    ...{ maxEntries: count, maxEntriesPerHost: count, maxHosts: 1000, ageMs: 600_000 },
    ...{ floodPerSecond: 0, floodBurst: 0, probeNonce: 0n, encap: 0 },
  });
  const hosts = 64;
  const addressOf = (host) => Buffer.from([...Buffer.alloc(10), 0xff, 0xff, 10, 9, 0, host + 1]);
  const batches = Array.from({ length: hosts }, () => new MacBatch());
  const enter = (host) =>
    control.learnMany({ ...vnet, ifindex: 1, addr: addressOf(host), fdbFlags: 0 }, batches[host]);
  const mac = Buffer.from([2, 0, 0, 0, 0, 0]);
  // whatever is collected later is no copy
  globalThis.gc();
  const seenNs = process.hrtime.bigint();
  const before = residentMiB();
  const start = performance.now();
  for (let n = 0; n < count; n += 1) {
    mac.writeUInt32BE(n, 2);
    const host = n % hosts;
    batches[host].add(mac, seenNs);
    if (batches[host].isFull) enter(host);
  }
  for (let host = 0; host < hosts; host += 1) if (batches[host].count > 0) enter(host);
  const seconds = (performance.now() - start) / 1000;
  globalThis.gc();
  const { entries } = maps.vnetCounts(vnet.slot);
  console.log(JSON.stringify({ entries, seconds, moreMiB: residentMiB() - before }));
} finally {
  rmSync(bpffs, { recursive: true, force: true });
}
