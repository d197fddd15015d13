// SPDX-License-Identifier: Apache-2.0
/**
 * A built-in vnet that is in use is configured by vnet-create: what its interface has stays, and
 * a creation that fails, early or late, leaves it as it was. A ping runs through all of it.
 */
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VnetState } from "../../src/api/contract.js";
import { peerNameOf } from "../../src/host/names.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { addressVnet4, attachedHosts, longId } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;

interface LinkRow {
  ifname: string;
  ifindex: number;
  mtu: number;
  master?: string;
  addr_info: { local: string }[];
}

/** All devices with their addresses, and the vnets with their handles. */
async function everything(): Promise<unknown> {
  const links = (await a.ip<LinkRow[]>("address", "show")).map(
    ({ ifname, ifindex, mtu, master, addr_info: addresses }) => ({
      ifname,
      ifindex,
      mtu,
      master,
      addresses: addresses.map(({ local }) => local).sort(),
    }),
  );
  const vnets = (await a.vnetdJson<VnetState[]>(["vnets"])).map(
    ({ id, handle, bridge, vnetif, builtIn, problem }) => ({
      id,
      handle,
      bridge,
      vnetif,
      builtIn,
      problem,
    }),
  );
  return { links, vnets };
}

/** vnet-create fails, nothing is other than before, and no frame was lost. */
async function failsWithoutHarm(args: readonly string[], code: string): Promise<void> {
  const before = await everything();
  const pinging = a.startPing("10.4.0.2", { intervalMs: 20 });
  await eventually(() => pinging.answers > 2);
  const result = await a.tryVnetd(["vnet-create", ...args, "--json"]);
  expect(result.code).toBe(1);
  expect(JSON.parse(result.stderr)).toMatchObject({ code });
  const answers = pinging.answers;
  await eventually(() => pinging.answers > answers + 5);
  const { lost } = await pinging.stop();
  expect(lost).toBeLessThanOrEqual(1); // the one that was under way when ping was stopped
  expect(await everything()).toEqual(before);
}

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  await addressVnet4([a, b], { families: [4, 6] });
  await eventually(async () => (await a.ping("10.4.0.2", { count: 1 })).received === 1);
});
afterAll(() => lab.close());

describe("a vnet-create that fails leaves a built-in vnet as it was", () => {
  it("when the state cannot be written", async () => {
    const inTheWay = join(a.stateDir, "state.yaml.tmp");
    mkdirSync(inTheWay);
    try {
      await failsWithoutHarm(["4"], "STATE_UNWRITABLE");
      await failsWithoutHarm(["-b", "none", "-v", "four", "4"], "STATE_UNWRITABLE");
    } finally {
      rmdirSync(inTheWay);
    }
  });

  it("when the vnetif cannot be put on the bridge", async () => {
    // the kernel puts no device on a bridge that has a macvlan
    await a.exec("ip link add link vnif0004 mv4 type macvlan");
    await failsWithoutHarm(["4"], "KERNEL");
    await failsWithoutHarm(["-v", "four", "4"], "KERNEL");
    await a.exec("ip link del mv4");
  });

  it("when another vnet of the file fails", async () => {
    const peer = peerNameOf(longId("604"));
    await a.exec(`ip link add ${peer} type veth peer name other`);
    const both = lab.file("both.sxp", "(vnet (id 4) (vnetif four))\n(vnet (id 604))\n");
    await failsWithoutHarm([both], "NAME_IN_USE");
    await a.exec(`ip link del ${peer}`);
  });
});

describe("a vnet-create that is done", () => {
  it("renames the interface of a built-in vnet, which keeps its addresses and its handle", async () => {
    const handleOf = async (): Promise<number | undefined> =>
      (await a.vnetdJson<VnetState[]>(["vnets"])).find(({ id }) => id === longId("4"))?.handle;
    const handle = await handleOf();
    await a.vnetd(["vnet-create", "-b", "none", "-v", "four", "4"]);
    expect(await handleOf()).toBe(handle);
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
    const [link] = await a.ip<LinkRow[]>("address", "show", "dev", "four");
    expect(link?.addr_info.map(({ local }) => local)).toContain("10.4.0.1");
  });
});
