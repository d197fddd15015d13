// SPDX-License-Identifier: Apache-2.0
/**
 * A level of security that cannot be had is never replaced by none: not when it is written into
 * the state of a stopped daemon, and not by a request that is misunderstood.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { attachedHosts, callApi, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
const id = longId("97");

const stateOf = async (host: Host): Promise<VnetState | undefined> =>
  (await host.vnetdJson<VnetState[]>(["vnets"])).find((vnet) => vnet.id === id);

/** Stops the daemon, writes the level into its state, and starts it again. */
async function restartWith(host: Host, from: string, to: string): Promise<void> {
  await host.killDaemon();
  const file = join(host.stateDir, "state.yaml");
  const text = readFileSync(file, "utf8");
  expect(text).toContain(`security: ${from}`);
  writeFileSync(file, text.replace(`security: ${from}`, `security: ${to}`));
  await startDaemon(host);
}

const pingFromA = async (): Promise<number> =>
  (await a.ping("10.97.0.2", { count: 3, intervalMs: 50, waitMs: 300 })).received;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  for (const [host, n] of [
    [a, 1],
    [b, 2],
  ] as const) {
    await host.vnetd(["vnet-create", "-b", "none", "-v", "vnif97", "97"]);
    await host.exec(`ip addr add 10.97.0.${n}/24 dev vnif97`);
  }
  expect(await pingFromA()).toBe(3);
});
afterAll(() => lab.close());

describe("a level in the state file that is not built", () => {
  it("takes the vnet down, says why, and lets nothing through in clear", async () => {
    await restartWith(a, "none", "auth");
    expect(await stateOf(a)).toMatchObject({
      security: "auth",
      up: false,
      problem: expect.stringMatching(/security "auth" is not built yet/) as string,
    });
    const { problems } = await a.vnetdJson<StatusInfo>(["status"]);
    expect(problems.join("\n")).toMatch(/97: security "auth"/);
    expect(a.daemon.stderr).toMatch(/97 is not up: security "auth"/);
    expect(await pingFromA()).toBe(0);
    await b.ping("10.97.0.1", { count: 3, intervalMs: 50, waitMs: 300 });
    await eventually(async () => {
      const { drops } = await a.vnetdJson<StatusInfo>(["status"]);
      return drops.some(({ reason, direction }) => reason === "security" && direction === "decap");
    });
  });

  it("is down as well where nothing of the vnet is left in the kernel", async () => {
    await a.killDaemon();
    await a.exec("ip link del vnif97");
    await lab.execInSwitch(`rm -rf ${a.bpffs}`);
    await startDaemon(a);
    expect(await stateOf(a)).toMatchObject({ security: "auth", up: false });
    expect(await a.ip("link", "show", "type", "veth")).not.toContainEqual(
      expect.objectContaining({ ifname: "vnif97" }),
    );
  });

  it("runs again when it is none again", async () => {
    await restartWith(a, "auth", "none");
    expect(await stateOf(a)).toMatchObject({ security: "none", up: true, problem: "" });
    await a.exec("ip addr add 10.97.0.1/24 dev vnif97");
    await eventually(async () => (await pingFromA()) === 3);
  });

  it("can be deleted, and leaves nothing in the maps", async () => {
    await restartWith(a, "none", "conf");
    await a.vnetd(["vnet-delete", "97"]);
    await a.vnetd(["vnet-create", "-b", "none", "-v", "vnif97", "97"]);
    expect(await stateOf(a)).toMatchObject({ security: "none", up: true });
  });
});

describe("a request with something unknown", () => {
  const refused = async (params: object, says: string): Promise<void> => {
    const request = { v: 1, id: 1, method: "vnetCreate", params };
    expect(await callApi(a, `${JSON.stringify(request)}\n`)).toMatchObject({
      error: { code: "BAD_REQUEST", message: expect.stringContaining(says) as string },
    });
    expect((await a.vnetdJson<VnetState[]>(["vnets"])).map((vnet) => vnet.id)).not.toContain(
      longId("99"),
    );
  };

  it("makes no vnet", async () => {
    await refused({ parameters: { id: "99", frob: "x" } }, '"frob"');
    await refused({ parameters: { id: "99" }, security: "auth" }, '"security"');
    await refused({ text: "(vnet (id 99))", security: "auth" }, '"security"');
    await refused({ text: "(vnet (id 99))", parameters: { id: "99" } }, '"text"');
  });
});
