// SPDX-License-Identifier: Apache-2.0
/**
 * Hooks of ours that somebody removes come back within a second, and are said; programs and filters of others
 * at the same hooks stay through all that vnetd does. With TCX, and with clsact filters in the project of that name.
 */
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DoctorReport, StatusInfo } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { compileBpf, temporaryDirectory } from "../native/support.js";
import { addressVnet4, attachedHosts, startDaemon, withAddon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let mode: string;
const work = temporaryDirectory();
const nextObject = resolve(import.meta.dirname, "../../build/bpf/next/vnetd.bpf.o");
/** much more than the second that it takes, and less than the ten after which all is looked at anyway */
const soonMs = 6000;

const status = (host: Host): Promise<StatusInfo> => host.vnetdJson<StatusInfo>(["status"]);

const ifindexOf = async (host: Host, device: string): Promise<number> => {
  const [link] = await host.ip<{ ifindex: number }[]>("link", "show", "dev", device);
  return link!.ifindex;
};

/** ids of the programs at a device's ingress, whosever */
const programsAt = async (host: Host, device: string): Promise<number[]> =>
  withAddon(host, `return native.tcxPrograms(${await ifindexOf(host, device)}, "ingress")`);

const layouts = (): string[] =>
  readdirSync(a.bpffs).flatMap((name) => /^layout-(\d+)$/u.exec(name)?.[1] ?? []);

/** Whether ours is hooked: by its filter, or by its pinned link. */
async function isHooked(device: string, direction: "ingress" | "egress"): Promise<boolean> {
  const index = await ifindexOf(a, device);
  if (mode === "clsact" || direction === "egress")
    return withAddon(a, `return native.clsactQuery(${index}, "${direction}", 1798, 0x764e) !== 0`);
  const pin = join(a.bpffs, `layout-${layouts()[0]}`, `link-${index}-ingress`);
  return withAddon(
    a,
    `const { ifindex, programId } = native.tcxInfo(${JSON.stringify(pin)});
     return ifindex === ${index} && native.tcxPrograms(${index}, "ingress").includes(programId)`,
  );
}

/** As somebody would who wants the device for himself. */
async function removeProgram(device: string): Promise<void> {
  if (mode === "clsact")
    return void (await a.exec(`tc filter del dev ${device} ingress prio 1798`));
  const pin = join(a.bpffs, "layout-1", `link-${await ifindexOf(a, device)}-ingress`);
  const shown = await a.exec(["bpftool", "-j", "link", "show", "pinned", pin]);
  const { id } = JSON.parse(shown.stdout) as { id: number };
  await a.exec(["bpftool", "link", "detach", "id", String(id)]);
}

/** It is hooked again, and that was said. */
async function comesBack(device: string, direction: "ingress" | "egress" = "ingress") {
  const said = `${device}: somebody removed our program from its ${direction}`;
  await eventually(
    async () =>
      (await isHooked(device, direction)) && (await status(a)).problems.join().includes(said),
    { what: `the ${direction} of ${device} to be hooked again`, timeoutMs: soonMs },
  );
  expect(a.daemon.stderr).toContain(said);
}

const removed = async (owner: string): Promise<number> => {
  const fetching = `fetch("http://127.0.0.1:11798/metrics").then((r) => r.text()).then((t) => process.stdout.write(t))`;
  const { stdout } = await a.exec([process.execPath, "-e", fetching]);
  const line = new RegExp(`^vnetd_hooks_removed_total\\{owner="${owner}"\\} (\\d+)$`, "mu");
  return Number(line.exec(stdout)?.[1]);
};

const answers = async (): Promise<boolean> =>
  (await a.ping("10.4.0.2", { count: 1, waitMs: 500 })).received === 1;

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.9/24" });
  [b] = (await attachedHosts(lab, ["b"])) as [Host];
  await a.startDaemon();
  await a.vnetd(["attach", "eth0"]);
  mode = (await status(a)).attached[0]!.mode;
  await addressVnet4([a, b]);
  await eventually(answers);
});
afterAll(async () => {
  await lab.close();
  rmSync(work, { recursive: true });
});

describe("a program of ours that somebody removes is hooked again", () => {
  it("from the underlay device, each time", async () => {
    expect(await removed("underlay")).toBe(0);
    for (let time = 1; time <= 2; time++) {
      await removeProgram("eth0");
      await eventually(async () => (await removed("underlay")) === time, { timeoutMs: soonMs });
      await comesBack("eth0");
      await eventually(answers);
    }
    expect((await status(a)).problems.join()).toContain("2 times by now");
  });

  it("with the qdisc of a vnet's interface, from which packets take the short way", async () => {
    const pinging = a.startPing("10.4.0.2", { intervalMs: 10 });
    await eventually(() => pinging.answers > 5);
    await a.exec("tc qdisc del dev vnif0004 clsact");
    await comesBack("vnif0004", "egress");
    expect(await removed("vnet")).toBe(1);
    // frames took the longer way meanwhile; the one that was under way at the end does not count
    expect((await pinging.stop()).lost).toBeLessThanOrEqual(1);
  });

  it("from the other end of a vnet's interface", async () => {
    const peer = (await a.ip<{ ifname: string; ifalias?: string }[]>("link", "show")).find(
      ({ ifname, ifalias }) => ifname.startsWith("vn-") && ifalias?.endsWith(":0004"),
    )!;
    await removeProgram(peer.ifname);
    await comesBack(peer.ifname);
  });

  it("from a device that frames pass between programs", async () => {
    await removeProgram("vn-relay1");
    await comesBack("vn-relay1");
    expect(await removed("helper")).toBe(1);
  });

  it("and doctor says what to do", async () => {
    const { stdout } = await a.tryVnetd(["doctor", "--json"]);
    const { findings } = JSON.parse(stdout) as DoctorReport;
    const found = findings.filter(({ what }) => what.includes("somebody removed our program"));
    expect(found.length).toBeGreaterThan(3);
    for (const { level, fix } of found) {
      expect(level).toBe("warning");
      expect(fix).toContain("find out who");
    }
  });

  it("when the qdisc goes from the underlay device, if it was in it", async () => {
    const before = await removed("underlay");
    if (mode === "tcx") await a.exec("tc qdisc add dev eth0 clsact");
    await a.exec("tc qdisc del dev eth0 clsact");
    if (mode === "clsact") await comesBack("eth0");
    expect(await isHooked("eth0", "ingress")).toBe(true);
    expect(await removed("underlay")).toBe(before + (mode === "clsact" ? 1 : 0));
    await eventually(answers);
  });

  it("while no daemon runs, by the next start", async () => {
    await a.killDaemon();
    await removeProgram("eth0");
    expect(await answers()).toBe(false);
    await startDaemon(a);
    await eventually(answers);
  });
});

describe("programs and filters of others", () => {
  let hookedOthers = 0;
  /**
   * A program of another at the ingress, which counts and lets pass; it is pinned beside our directory. With
   * clsact, a filter of that priority.
   */
  const addProgram = async (priority: number): Promise<number> => {
    const probe = compileBpf(work, "probe");
    const dir = `${a.bpffs}-other${(hookedOthers += 1)}`;
    const index = await ifindexOf(a, "eth0");
    const hook =
      mode === "clsact"
        ? `native.clsactAttach(fd, ${index}, "ingress", ${priority}, 1)`
        : `native.tcxAttach(fd, ${index}, "ingress", "${dir}/link")`;
    return withAddon(
      a,
      `require("fs").mkdirSync("${dir}");
       const rodata = { verdict: Uint8Array.of(255, 255, 255, 255) };
       const fd = native.objectLoad("${probe}", { pinDir: "${dir}", rodata }).programs.probe_count;
       ${hook};
       return native.programId(fd)`,
    );
  };
  /** ids of the programs of others, in their order */
  const othersThere = async (): Promise<number[]> => {
    if (mode === "tcx") return (await programsAt(a, "eth0")).filter((id) => others.includes(id));
    const index = await ifindexOf(a, "eth0");
    return withAddon(
      a,
      `return native.clsactFilters(${index}, "ingress").filter(({ priority }) => priority !== 1798)
         .map(({ priority }) => native.clsactQuery(${index}, "ingress", priority, 1))`,
    );
  };
  const others: number[] = [];
  const countedBy = async (other: number): Promise<number> =>
    withAddon(
      a,
      `const key = Buffer.alloc(4);
       const fd = native.objectGet("${a.bpffs}-other${other}/counters");
       return Number(native.mapLookup(fd, key).readBigUInt64LE(0))`,
    );

  it("before and after ours see packets and stay, whatever vnetd does", async () => {
    await a.vnetd(["detach", "eth0"]);
    others.push(await addProgram(7));
    await a.vnetd(["attach", "eth0"]);
    others.push(await addProgram(2000));

    const intact = async (what: string): Promise<void> => {
      await eventually(answers, { what: `an answer after ${what}` });
      expect(await othersThere(), what).toEqual(others);
      expect(await isHooked("eth0", "ingress"), what).toBe(true);
    };
    await intact("the start");
    // ours is between them
    if (mode === "tcx") expect((await programsAt(a, "eth0"))[1]).not.toBe(others[1]);
    await a.killDaemon();
    await intact("the stop");
    const before = await countedBy(1);
    await startDaemon(a);
    await intact("the start again");
    await a.killDaemon("SIGKILL");
    await startDaemon(a, { env: { VNETD_BPF_OBJECT: nextObject } });
    await intact("an upgrade");
    await a.killDaemon();
    await startDaemon(a);
    await intact("the way back");
    await removeProgram("eth0");
    await comesBack("eth0");
    await intact("the removal of ours");
    expect(await countedBy(1)).toBeGreaterThan(before);
    await a.vnetd(["detach", "eth0"]);
    expect(await othersThere()).toEqual(others);
  });
});

describe("vnets that are made many at once", () => {
  const ids = Array.from({ length: 32 }, (_, at) => `02${(at + 16).toString(16)}`);
  const last = ids.at(-1)!;
  /** pinned links at the ingress of whatever */
  const linkCount = (): number =>
    readdirSync(join(a.bpffs, "layout-1")).filter((name) => /^link-\d+-ingress$/u.test(name))
      .length;
  const reached = async (): Promise<boolean> =>
    (await a.ping("10.5.0.2", { count: 1, waitMs: 500 })).received === 1;

  it("carry frames at once, with filters that links take the place of", async () => {
    if ((await status(a)).attached.length === 0) await a.vnetd(["attach", "eth0"]);
    const text = ids.map((id) => `- {id: "${id}", bridge: none, vnetif: v${id}}`).join("\n");
    const file = join(work, "many.yaml");
    writeFileSync(file, `vnets:\n${text}\n`);
    await b.vnetd(["vnet-create", last, "--bridge", "none", "--vnetif", `v${last}`]);
    await b.exec(`ip addr add 10.5.0.2/24 dev v${last} && ip link set v${last} up`);
    const before = linkCount();
    await a.vnetd(["vnet-create", file]);
    // four of them get their links in a second, the last one after eight
    if (mode === "tcx") expect(linkCount()).toBeLessThan(before + ids.length);
    await a.exec(`ip addr add 10.5.0.1/24 dev v${last} && ip link set v${last} up`);
    await eventually(reached);
    const pinging = a.startPing("10.5.0.2", { intervalMs: 20 });
    await eventually(() => pinging.answers > 5);
    if (mode === "tcx") {
      const done = (): boolean => linkCount() === before + ids.length;
      await eventually(done, { what: "links in place of the filters", timeoutMs: 60_000 });
    }
    expect((await pinging.stop()).lost).toBeLessThanOrEqual(1);
    const links = await a.ip<{ ifname: string; ifalias?: string }[]>("link", "show");
    const peer = links.find(
      ({ ifname, ifalias }) => ifname.startsWith("vn-") && ifalias?.endsWith(`:${last}`),
    )!.ifname;
    expect(await isHooked(peer, "ingress")).toBe(true);
    const filter = `return native.clsactQuery(${await ifindexOf(a, peer)}, "ingress", 1798, 0x764e)`;
    expect((await withAddon<number>(a, filter)) !== 0).toBe(mode === "clsact");
    expect(a.daemon.stderr).not.toContain(`${peer}: somebody removed`);
  });
});
