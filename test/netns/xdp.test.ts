// SPDX-License-Identifier: Apache-2.0
/**
 * Devices that are attached with mode xdp: what guests notice (nothing), what is seen, how the mode is changed, and
 * what becomes of the program on the XDP hook. Every kind of frame goes by it in frames.test.ts.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AttachedDevice, DoctorReport, StatusInfo } from "../../src/api/contract.js";
import { decodeVnetdDeviceStats } from "../../src/generated/layouts.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { transfer } from "../lib/transfer.js";
import { withoutNativeXdp } from "./vm-pair.js";
import { startDaemon, withAddon } from "./world.js";

const build = resolve(import.meta.dirname, "../../build");
/** of the jumbo LAN, and of guests whose frames need all of it */
const JUMBO_BYTES = 9000;
const JUMBO_GUEST_BYTES = 8900;

let lab: Lab;
let a: Host;
let b: Host;
let g: Guest;
let h: Guest;

const config = "helloSeconds: 1\n";

beforeAll(async () => {
  lab = await Lab.create();
  await lab.lan("lan0", { wire: true, mtuBytes: JUMBO_BYTES });
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  b = await lab.host("b", { underlay: "10.66.1.2/24" });
  for (const host of [a, b]) {
    await startDaemon(host, { config });
    await host.exec("ethtool -K eth0 gro on");
    await host.vnetd(["attach", "eth0", "--mode", "xdp"]);
    await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
  }
  g = await a.guest("g", { bridge: "vnet97", address: "10.0.0.1/24", mtuBytes: JUMBO_GUEST_BYTES });
  h = await b.guest("h", { bridge: "vnet97", address: "10.0.0.2/24", mtuBytes: JUMBO_GUEST_BYTES });
  await eventually(async () => (await g.ping("10.0.0.2", { count: 1 })).received === 1);
});
afterAll(() => lab.close());

const device = async (host: Host): Promise<AttachedDevice> =>
  (await host.vnetdJson<StatusInfo>(["status"])).attached.find((each) => each.device === "eth0")!;

const ifindexOf = async (host: Host): Promise<number> => {
  const [link] = await host.ip<{ ifindex: number }[]>("link", "show", "dev", "eth0");
  return link!.ifindex;
};
const hook = async (host: Host): Promise<{ mode: string; programId: number }> =>
  withAddon(host, `return native.xdpQuery(${await ifindexOf(host)})`);

/** frames that XDP knew */
async function xdpFrames(host: Host): Promise<number> {
  const key = `Buffer.from(Uint32Array.of(${await ifindexOf(host)}).buffer)`;
  const pin = join(host.bpffs, "layout-1/device_stats");
  const text = await withAddon<string | null>(
    host,
    `return native.mapLookup(native.objectGet("${pin}"), ${key})?.toString("hex")`,
  );
  return text === null ? 0 : Number(decodeVnetdDeviceStats(Buffer.from(text, "hex")).xdpFrames);
}

const mode = async (host: Host, to: "tc" | "xdp"): Promise<AttachedDevice> =>
  JSON.parse(
    (await host.vnetd(["attach", "eth0", "--mode", to, "--json"])).stdout,
  ) as AttachedDevice;

/** what the doctor says of it */
async function notes(host: Host): Promise<string[]> {
  const places = ["--state-dir", host.stateDir, "--bpffs", host.bpffs];
  const { stdout } = await host.tryVnetd(["doctor", "--json", ...places], { timeoutMs: 120_000 });
  const { findings } = JSON.parse(stdout) as DoctorReport;
  return findings.filter(({ check }) => check === "xdp").map(({ what }) => what);
}

describe("what guests send", () => {
  it("goes by XDP, and arrives", async () => {
    const before = await xdpFrames(b);
    for (const sizeBytes of [0, 1, 56, 1372, 1500, 4000, 8000, JUMBO_GUEST_BYTES - 28, 20_000])
      expect(await g.ping("10.0.0.2", { count: 2, intervalMs: 10, sizeBytes })).toMatchObject({
        received: 2,
      });
    await transfer(g, h, "10.0.0.2");
    await transfer(h, g, "10.0.0.1");
    expect(await xdpFrames(b)).toBeGreaterThan(before + 300);
    expect(await device(b)).toMatchObject({ xdp: "native", up: true, problem: "" });
  });

  it("arrives at a direct port, too", async () => {
    const p = await b.guest("p", { address: "10.0.0.3/24", mtuBytes: JUMBO_GUEST_BYTES });
    await b.vnetd(["port-add", "97", p.port]);
    await eventually(async () => (await g.ping("10.0.0.3", { count: 1 })).received === 1);
    const before = await xdpFrames(b);
    for (const sizeBytes of [0, 1372, 8000, 20_000])
      expect(await g.ping("10.0.0.3", { count: 2, intervalMs: 10, sizeBytes })).toMatchObject({
        received: 2,
      });
    await transfer(g, p, "10.0.0.3");
    await transfer(p, g, "10.0.0.1");
    expect(await xdpFrames(b)).toBeGreaterThan(before + 100);
    await b.vnetd(["port-delete", "97", p.port]);
  });

  it("arrives while somebody looks at the device's packets", async () => {
    const capture = await b.capture("eth0");
    const got = await g.ping("10.0.0.2", { count: 20, intervalMs: 10 });
    await capture.stop();
    expect(got.lost).toBe(0);
  });

  it("is captured as ever", async () => {
    const file = join(lab.directory, "captured.pcapng");
    let done = false;
    const capturing = b
      .vnetd(["capture", "97", "--write", file, "--count", "8"])
      .finally(() => (done = true));
    await eventually(async () => {
      await g.ping("10.0.0.2", { count: 1 });
      return done;
    });
    await capturing;
    expect(statSync(file).size).toBeGreaterThan(8 * 98);
  });
});

describe("while pings go both ways", () => {
  /** What was lost while the step was taken; a ring that is emptied with its device's program may lose one. */
  async function losses(step: () => Promise<unknown>): Promise<number> {
    const pings = [
      g.startPing("10.0.0.2", { intervalMs: 10 }),
      h.startPing("10.0.0.1", { intervalMs: 10 }),
    ];
    const count = (): number => Math.min(...pings.map(({ answers }) => answers));
    await eventually(() => count() > 5);
    await step();
    const after = count();
    await eventually(() => count() > after + 5);
    let lost = 0;
    // the last one is under way
    for (const ping of pings) lost += Math.max(0, (await ping.stop()).lost - 1);
    return lost;
  }

  it("the mode is changed, there and back, and nothing is lost", async () => {
    const lost = await losses(async () => {
      expect(await mode(b, "tc")).toMatchObject({ xdp: null });
      expect(await hook(b)).toEqual({ mode: "none", programId: 0 });
      expect(await mode(b, "xdp")).toMatchObject({ xdp: "native" });
      expect(await hook(b)).toMatchObject({ mode: "native" });
    });
    expect(lost).toBeLessThanOrEqual(1);
    const before = await xdpFrames(b);
    await g.ping("10.0.0.2", { count: 3, intervalMs: 10 });
    expect(await xdpFrames(b)).toBeGreaterThan(before);
  });

  it("the daemon is restarted, knows the mode, and nothing is lost", async () => {
    const old = (await hook(b)).programId;
    const lost = await losses(async () => {
      await b.killDaemon("SIGKILL");
      expect(await hook(b)).toMatchObject({ mode: "native", programId: old });
      await startDaemon(b, { config });
    });
    expect(lost).toBe(0);
    expect(await device(b)).toMatchObject({ xdp: "native" });
    // the same object's program stays
    expect(await hook(b)).toMatchObject({ mode: "native", programId: old });
  });
});

describe("the hook", () => {
  const pin = async (host: Host): Promise<string> =>
    join(host.bpffs, "layout-1", `link-${await ifindexOf(host)}-xdp`);

  it("comes back when somebody removes the program", async () => {
    await withAddon(b, `native.xdpDetach("${await pin(b)}")`);
    await eventually(async () => (await hook(b)).mode === "native", { what: "the program" });
    await eventually(async () =>
      (await b.vnetdJson<StatusInfo>(["status"])).problems
        .join()
        .includes("eth0: somebody removed our program from its XDP hook, and it was hooked again"),
    );
    expect((await g.ping("10.0.0.2", { count: 3, intervalMs: 10 })).lost).toBe(0);
  });

  it("is not taken from a program of somebody else", async () => {
    await mode(b, "tc");
    const other = `${b.bpffs}-other`;
    mkdirSync(other, { recursive: true });
    const id = await withAddon<number>(
      b,
      `const fd = native.objectLoad("${build}/bpf/vnetd.bpf.o", { pinDir: "${other}", programs: { vnetd_xdp: true } }).programs.vnetd_xdp;
       native.xdpAttach(fd, ${await ifindexOf(b)}, "native", "${other}/link");
       return native.programId(fd)`,
    );
    const refused = await b.tryVnetd(["attach", "eth0", "--mode", "xdp"]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain(`XDP program ${id} of somebody else is on it`);
    expect(refused.stderr).toContain("ip link set dev eth0 xdp off");
    expect(await hook(b)).toMatchObject({ programId: id });
    expect(await notes(b)).toEqual([expect.stringMatching(/^eth0: an XDP program of others sees/)]);
    expect(await device(b)).toMatchObject({ xdp: null, up: true });
    await withAddon(b, `native.xdpDetach("${other}/link")`);
    for (const name of readdirSync(other)) rmSync(join(other, name));
    rmSync(other, { recursive: true });
    expect(await notes(b)).toEqual([]);
    expect(await mode(b, "xdp")).toMatchObject({ xdp: "native" });
  });

  it("is looked at by the doctor", async () => {
    const peer = expect.stringMatching(/^eth0: its peer segments/) as string;
    expect(await notes(b)).toEqual([peer]);
    await b.exec("ethtool -K eth0 gro off");
    expect(await notes(b)).toEqual([expect.stringMatching(/is not merged/), peer]);
    await b.exec("ethtool -K eth0 gro on");
  });

  it("is generic where the driver has none, and says so", async () => {
    const c = await lab.host("c", { underlay: "10.66.1.3/24" });
    await withoutNativeXdp(c);
    await startDaemon(c, { config: `${config}xdp: [eth0]\n` });
    const attached = await c.vnetd(["attach", "eth0"]);
    expect(attached.stdout).toContain("xdp generic");
    expect(attached.stderr).toContain("the driver of eth0 does not run XDP programs");
    expect(await hook(c)).toMatchObject({ mode: "generic" });
    expect(await notes(c)).toEqual([expect.stringMatching(/^eth0: XDP gains nothing here/)]);
    expect((await c.vnetd(["status"])).stdout).toContain("xdp generic");
    const kept = await c.tryVnetd(["attach", "eth0", "--mode", "tc"]);
    expect(kept.stderr).toContain("the configuration gives eth0 the mode xdp");
    await c.vnetd(["vnet-create", "-b", "vnet97", "97"]);
    const i = await c.guest("i", { bridge: "vnet97", address: "10.0.0.3/24" });
    await eventually(async () => (await i.ping("10.0.0.2", { count: 1 })).received === 1);
    await transfer(h, i, "10.0.0.3");
    expect(await xdpFrames(c)).toBeGreaterThan(10);
    await c.vnetd(["detach", "--all"]);
    expect(await hook(c)).toMatchObject({ mode: "none" });
  });

  it("is given back by detach", async () => {
    await b.vnetd(["detach", "eth0"]);
    expect(await hook(b)).toEqual({ mode: "none", programId: 0 });
    expect(await mode(b, "tc")).toMatchObject({ xdp: null });
  });

  it("has no mode but two", async () => {
    const { code, stderr } = await b.tryVnetd(["attach", "eth0", "--mode", "fast"]);
    expect(code).not.toBe(0);
    expect(stderr).toContain('"fast" is no mode');
  });
});
