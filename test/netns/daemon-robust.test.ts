// SPDX-License-Identifier: Apache-2.0
/**
 * What must not harm: hostile clients, a second daemon, a bpffs that is none, a vnetif that
 * somebody takes away into a container, a taken metrics port; and an upgrade to other map layouts.
 */
import { existsSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Method, StatusInfo, VarpEntry, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, run, type Host } from "../lib/lab.js";
import { addressVnet4, attachedHosts, callApi, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
const nextObject = resolve(import.meta.dirname, "../../build/bpf/next/vnetd.bpf.o");

/** the compiler says when one is missing */
const everyMethod: Record<Method, true> = {
  attach: true,
  detach: true,
  // it wants {"all":true}, which no random value here is
  detachAll: true,
  vnetCreate: true,
  vnetDelete: true,
  vnetList: true,
  vnets: true,
  vnifs: true,
  vifs: true,
  vifAdd: true,
  vifDelete: true,
  varp: true,
  varpAdd: true,
  varpDelete: true,
  varpFlush: true,
  neighbours: true,
  neighbourFlush: true,
  peers: true,
  ports: true,
  portAdd: true,
  portDelete: true,
  peerAdd: true,
  peerDelete: true,
  bridges: true,
  hosts: true,
  keys: true,
  rekey: true,
  keyRotate: true,
  status: true,
  apply: true,
  reload: true,
  version: true,
  doctor: true,
  trace: true,
};

const status = async (host: Host): Promise<StatusInfo> => {
  const answer = await callApi(host, '{"v":1,"id":1,"method":"status","params":{}}\n');
  return answer?.["result"] as StatusInfo;
};

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  await addressVnet4([a, b]);
  expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
});
afterAll(() => lab.close());

it("the hooks are of the kind that was asked for", async () => {
  const asked = process.env["VNETD_HOOK_MODE"];
  for (const { mode } of (await status(a)).attached) {
    if (asked === undefined) expect(["tcx", "clsact"]).toContain(mode);
    else expect(mode).toBe(asked);
  }
  const filters = (await a.exec("tc filter show dev eth0 ingress")).stdout;
  expect(filters.includes("vnetd_decap")).toBe((await status(a)).attached[0]?.mode === "clsact");
});

describe("clients of the socket", () => {
  it("may send anything: the daemon answers or closes, and goes on", async () => {
    const { pid } = await status(a);
    expect(pid).toBeGreaterThan(1);
    const value = fc.oneof(
      fc.string(),
      fc.integer(),
      fc.constant(null),
      fc.object({ maxDepth: 2 }),
      fc.array(fc.string()),
    );
    const params = fc.oneof(
      value,
      fc.dictionary(
        fc.constantFrom(
          "device",
          "id",
          "vnet",
          "vmac",
          "address",
          "static",
          "text",
          "source",
          "parameters",
          "ids",
          "all",
          "peer",
          "key",
        ),
        value,
      ),
    );
    const requests = Object.keys(everyMethod).flatMap((method) =>
      fc.sample(params, 12).map((chosen) => ({ method, chosen })),
    );
    for (const { method, chosen } of requests) {
      const answer = await callApi(
        a,
        `${JSON.stringify({ v: 1, id: 3, method, params: chosen })}\n`,
      );
      const error = answer?.["error"] as { code: string } | undefined;
      expect(error?.code).not.toBe("INTERNAL");
    }
    for (const noise of fc.sample(fc.uint8Array({ maxLength: 200 }), 30)) await callApi(a, noise);
    expect((await status(a)).pid).toBe(pid);
    expect(a.daemon.code).toBeUndefined();
    expect((await a.ping("10.4.0.2", { count: 1 })).lost).toBe(0);
  });
});

describe("a second daemon", () => {
  it("for the same state directory says who has it, and disturbs nothing", async () => {
    const result = await a.spawnDaemon().end();
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/another daemon.*pid \d+/);
    expect((await a.ping("10.4.0.2", { count: 1 })).lost).toBe(0);
  });
});

describe("a bpffs that is none", () => {
  it("is an error with the remedy", async () => {
    const argv = [
      resolve("bin/vnetd"),
      "run",
      "--run-dir",
      `${lab.directory}/x`,
      "--state-dir",
      `${lab.directory}/y`,
    ];
    const result = await a.tryExec([...argv, "--bpffs", `${lab.directory}/no/bpffs`]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/mount -t bpf/);
    expect(existsSync(`${lab.directory}/no`)).toBe(false);
  });
});

describe("metrics", () => {
  const get = (host: Host, path: string): Promise<string> =>
    host
      .exec([
        process.execPath,
        "-e",
        `fetch("http://127.0.0.1:11798${path}").then((r) => r.text()).then((t) => process.stdout.write(t))`,
      ])
      .then((r) => r.stdout);

  it("are served with build information and drops, from the maps", async () => {
    await b.killDaemon();
    await b.startDaemon();
    const text = await get(b, "/metrics");
    expect(text).toMatch(/vnetd_build_info\{version="\d+\.\d+\.\d+",layout="1",node="[\d.]+"\} 1/);
    expect(text).toMatch(
      /vnetd_drops_total\{vnet="0000:.*",direction="encap",reason="no_underlay"\} \d+/,
    );
    const frames = new RegExp(
      `vnetd_frames_total\\{vnet="${longId("4")}",direction="decap"\\} (\\d+)`,
    ).exec(text);
    expect(Number(frames?.[1])).toBeGreaterThan(1);
    expect(await get(b, "/healthz")).toBe("ok\n");
    expect(await get(b, "/x")).toMatch(/metrics/);
  });

  it("on a port that is taken are a problem in status, no reason to end", async () => {
    await b.killDaemon();
    const squatter = b.spawn([
      process.execPath,
      "-e",
      'require("http").createServer().listen(11798, "127.0.0.1", () => console.log("here"))',
    ]);
    await squatter.output(/here/);
    await b.startDaemon();
    expect((await status(b)).problems.join()).toMatch(/11798: EADDRINUSE/);
    await squatter.stop("SIGKILL");
  });
});

describe("a vnetif that is moved into a container", () => {
  it("works there, after a restart of the daemon too, and comes back when the container ends", async () => {
    await a.vnetd(["vnet-create", "-b", "none", "77"]);
    await b.vnetd(["vnet-create", "-b", "none", "77"]);
    await b.exec("ip addr add 10.7.0.2/24 dev vnif0077");
    const container = await lab.host("box");
    await a.exec(["ip", "link", "set", "vnif0077", "netns", container.netns]);
    await container.exec("ip addr add 10.7.0.1/24 dev vnif0077 && ip link set vnif0077 up");
    await eventually(
      async () => (await container.ping("10.7.0.2", { count: 1, waitMs: 200 })).received === 1,
    );
    const tcp = await container.iperf3(b, { address: "10.7.0.2", seconds: 1 });
    expect(tcp.bitsPerSecond).toBeGreaterThan(20e6);
    const pinging = container.startPing("10.7.0.2", { intervalMs: 10 });
    await eventually(() => pinging.answers > 10);
    await a.killDaemon("SIGKILL");
    await startDaemon(a);
    const before = pinging.answers;
    await eventually(() => pinging.answers > before + 20);
    expect((await pinging.stop()).lost).toBeLessThanOrEqual(1);
    const vnet = (await a.vnetdJson<VnetState[]>(["vnets"])).find(({ id }) => id === longId("77"));
    expect(vnet).toMatchObject({ up: true, problem: "" });
    await run(["ip", "netns", "delete", container.netns]);
    await eventually(async () => (await a.tryExec("ip link show vnif0077")).code === 0, {
      what: "vnif0077 to be made anew",
    });
  });
});

describe("a vnetif that is moved while no daemon runs", () => {
  it("works in the container: frames find it through its peer", async () => {
    await a.vnetd(["vnet-create", "-b", "none", "78"]);
    await b.vnetd(["vnet-create", "-b", "none", "78"]);
    await b.exec("ip addr add 10.8.0.2/24 dev vnif0078");
    await a.exec("ip addr add 10.8.0.1/24 dev vnif0078");
    await eventually(
      async () => (await a.ping("10.8.0.2", { count: 1, waitMs: 200 })).received === 1,
    );
    const container = await lab.host("box2");
    await a.killDaemon("SIGKILL");
    await a.exec(["ip", "link", "set", "vnif0078", "netns", container.netns]);
    await container.exec("ip addr add 10.8.0.1/24 dev vnif0078 && ip link set vnif0078 up");
    await eventually(
      async () => (await container.ping("10.8.0.2", { count: 1, waitMs: 200 })).received === 1,
    );
    const ping = await container.ping("10.8.0.2", { count: 50, intervalMs: 10 });
    expect(ping.lost).toBe(0);
    await startDaemon(a);
    await run(["ip", "netns", "delete", container.netns]);
    await eventually(async () => (await a.tryExec("ip link show vnif0078")).code === 0, {
      what: "vnif0078 to be made anew",
    });
  });
});

describe("an upgrade to another layout of the maps", () => {
  const layouts = (): string[] => readdirSync(a.bpffs).filter((name) => name.startsWith("layout-"));
  const drops = async (): Promise<number> =>
    (await status(a)).drops.reduce((sum, { frames }) => sum + frames, 0);

  it("carries over what was learned and counted, loses no frame, and removes the old maps", async () => {
    const macB = await b.mac("vnif0004");
    await a.ping("10.4.0.2", { count: 1 });
    const before = await a.vnetdJson<VnetState[]>(["vnets", "-a"]);
    const dropsBefore = await drops();
    expect(dropsBefore).toBeGreaterThan(0);
    const pinging = a.startPing("10.4.0.2", { intervalMs: 5 });
    await eventually(() => pinging.answers > 20);
    await a.killDaemon("SIGKILL");
    await startDaemon(a, { env: { VNETD_BPF_OBJECT: nextObject } });
    const after = pinging.answers;
    await eventually(() => pinging.answers > after + 50);
    expect((await pinging.stop()).lost).toBe(0);
    expect(layouts()).toEqual(["layout-2"]);
    // a map whose value has another size there is left out by name, and what it held begins anew
    expect(a.daemon.stderr).toMatch(/carried over \d+ vnets/);
    const leftOut = a.daemon.stderr.match(/the map \w+ has another form/g);
    expect(leftOut).toEqual(["the map device_stats has another form"]);
    expect(await status(a)).toMatchObject({ layout: 2, problems: [] });
    const now = await a.vnetdJson<VnetState[]>(["vnets", "-a"]);
    expect(now.map(({ id, handle }) => [id, handle])).toEqual(
      before.map(({ id, handle }) => [id, handle]),
    );
    const frames = (states: VnetState[]): number =>
      states.find(({ id }) => id === longId("4"))?.traffic?.decapFrames ?? 0;
    expect(frames(now)).toBeGreaterThanOrEqual(frames(before));
    expect(await drops()).toBeGreaterThanOrEqual(dropsBefore);
    const varp = await a.vnetdJson<VarpEntry[]>(["varp"]);
    expect(varp.some(({ vmac, vnet }) => vmac === macB && vnet === longId("4"))).toBe(true);
  });

  it("goes back the same way", async () => {
    await a.killDaemon();
    await startDaemon(a);
    expect(a.daemon.stderr).toContain("the map device_stats has another form");
    expect(layouts()).toEqual(["layout-1"]);
    expect((await a.ping("10.4.0.2", { count: 2, intervalMs: 50 })).lost).toBe(0);
    await a.vnetd(["vnet-create", "88"]);
    await a.vnetd(["vnet-delete", "88"]);
  });
});
