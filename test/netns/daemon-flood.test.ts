// SPDX-License-Identifier: Apache-2.0
/**
 * A guest that sends from ever new MACs: pairs that talk lose nothing, another vnet learns and is
 * announced as ever, what is refused is counted, and the daemon answers all the while.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { attachedHosts, callApi, longId } from "./world.js";
import { python } from "../lib/wire.js";

let lab: Lab;
let a: Host;
let b: Host;
let flooder: Guest;

/** Broadcast frames from random MACs, as fast as it can, until it is stopped. */
const flood = `
import socket, os, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
n = 0
print("flooding", flush=True)
while True:
    s.send(b"\\xff" * 6 + b"\\x02" + os.urandom(5) + b"\\x88\\xb5" + b"x" * 46)
    n += 1
    if n % 10000 == 0:
        print("sent", n, flush=True)
`;

async function api<T>(host: Host, method: string): Promise<T> {
  const answer = await callApi(host, `${JSON.stringify({ v: 1, id: 1, method, params: {} })}\n`);
  return answer?.["result"] as T;
}

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  for (const host of [a, b]) {
    for (const id of ["97", "98"]) await host.vnetd(["vnet-create", id]);
  }
  flooder = await a.guest("flooder", { bridge: "vnet0097" });
});
afterAll(() => lab.close());

describe("a million MACs", () => {
  it("harm nobody but their sender", async () => {
    const pairs: [Guest, string][] = [];
    for (const id of ["97", "98"]) {
      pairs.push([await a.guest(`a${id}`, { bridge: `vnet00${id}`, address: "10.0.0.1/24" }), id]);
      await b.guest(`b${id}`, { bridge: `vnet00${id}`, address: "10.0.0.2/24" });
    }
    for (const [guest] of pairs) await guest.ping("10.0.0.2", { count: 2, intervalMs: 20 });
    const pings = pairs.map(([guest]) => guest.startPing("10.0.0.2", { intervalMs: 20 }));
    const flooding = flooder.spawn([...python, "-c", flood]);
    await flooding.output(/sent 60000/, { timeoutMs: 20_000 });

    const late = await a.guest("late", { bridge: "vnet0098", address: "10.0.0.3/24" });
    await late.tryExec("ping -c 1 -W 0.1 10.0.0.200");
    const mac = await late.mac();
    const learned = async (): Promise<boolean> =>
      (await api<VarpEntry[]>(b, "varp")).some((e) => e.vmac === mac && e.vnet === longId("98"));
    await eventually(learned, { what: "b to learn a new MAC of the other vnet" });
    expect((await api<StatusInfo>(a, "status")).pid).toBe(a.daemon.pid);
    await flooding.stop("SIGKILL");

    for (const run of pings) {
      const { sent, lost } = await run.stop();
      // nothing of what the data plane decides; a veth's queue may be full for a moment
      expect(lost).toBeLessThanOrEqual(Math.ceil(sent * 0.02));
    }
    for (const host of [a, b]) {
      const { drops, table } = await api<StatusInfo>(host, "status");
      const refused = drops.filter(
        ({ vnet, reason }) => vnet === longId("97") && /limit/.test(reason),
      );
      expect(refused.reduce((sum, { frames }) => sum + frames, 0)).toBeGreaterThan(1000);
      expect(table.entries).toBeLessThan(10_000);
    }
  });
});
