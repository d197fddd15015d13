// SPDX-License-Identifier: Apache-2.0
/**
 * What the daemon may be refused: it runs with the capabilities of deploy/kubernetes alone, user 0 without the rest of root's, and
 * with none of them left out. The file system that it pins its maps in is mounted by a step of its own.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withOnly } from "../lib/capabilities.js";
import { Lab, eventually, repository, run, type Guest, type Host } from "../lib/lab.js";
import { kustomize, objectOf, rendered, toolsAreThere } from "../lib/kubernetes.js";

const vnetd = join(repository, "bin", "vnetd");
let lab: Lab;
let a: Host;
let b: Host;
beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  b = await lab.host("b", { underlay: "10.66.1.2/24" });
}, 60_000);
afterAll(() => lab.close());

interface Container {
  name: string;
  securityContext: { capabilities: { drop: string[]; add: string[] } };
}

function capabilities(): string[] {
  const daemonSet = objectOf(rendered(kustomize("deploy/kubernetes/base")), "DaemonSet", "vnetd");
  const { spec } = daemonSet as unknown as {
    spec: { template: { spec: { containers: Container[] } } };
  };
  const found = spec.template.spec.containers.find(({ name }) => name === "vnetd")!;
  expect(found.securityContext.capabilities.drop).toEqual(["ALL"]);
  return found.securityContext.capabilities.add;
}

const daemonOf = (host: Host): string[] => [
  ...[vnetd, "run", "--run-dir", host.runDir, "--state-dir", host.stateDir],
  ...["--bpffs", host.bpffs, "--config", lab.file("c.yaml", "defaultVnets: false\n")],
];

describe.skipIf(!toolsAreThere)("the capabilities of the DaemonSet", () => {
  let guest: Guest;
  it("are enough: a vnet is made, and its guests reach one another", async () => {
    for (const host of [a, b]) {
      const process = host.spawn(withOnly(capabilities(), daemonOf(host)));
      await process.output(/\bready\b/, { timeoutMs: 30_000, what: "the daemon" });
      await host.vnetd(["attach", "eth0"]);
      await host.vnetd(["vnet-create", "97"]);
    }
    guest = await a.guest("a1", { bridge: "vnet0097", address: "10.97.0.1/24" });
    await b.guest("b1", { bridge: "vnet0097", address: "10.97.0.2/24" });
    await eventually(async () => (await guest.ping("10.97.0.2", { count: 1 })).received === 1);
  });

  it("make no program slower: the kernel translates each into the instructions that it has for root", async () => {
    const translated = async (
      name: string,
      caps: readonly string[] | undefined,
    ): Promise<string> => {
      const at = join("/sys/fs/bpf", `vnetd-test-${String(process.pid)}-${name}`);
      mkdirSync(at);
      try {
        const load = [
          ...["bpftool", "prog", "loadall", join(repository, "build/bpf/vnetd.bpf.o")],
          ...[at, "pinmaps", at],
        ];
        await run(caps === undefined ? load : withOnly(caps, load));
        let sums = "";
        for (const program of ["vnetd_encap", "vnetd_encap_fast", "vnetd_decap", "vnetd_esp"]) {
          const shown = await run(["bpftool", "-j", "prog", "show", "pinned", join(at, program)]);
          const [found] = [JSON.parse(shown.stdout)].flat() as Record<string, number>[];
          const { bytes_xlated: instructions, bytes_jited: jited } = found!;
          expect(instructions).toBeGreaterThan(1000);
          sums += `${program} ${String(instructions)} ${String(jited)}\n`;
        }
        return sums;
      } finally {
        rmSync(at, { recursive: true });
      }
    };
    expect(await translated("caps", capabilities())).toBe(await translated("root", undefined));
  }, 120_000);

  it.each([
    ["NET_ADMIN", /EPERM|permission|not permitted/i],
    ["BPF", /EPERM|permission|not permitted/i],
    ["PERFMON", /pointer comparison prohibited|EACCES/],
  ])("are all needed: none without %s", async (name, why) => {
    const other = await lab.host(`no-${name.toLowerCase().slice(0, 4)}`, {});
    const rest = capabilities().filter((each) => each !== name);
    expect(rest).toHaveLength(capabilities().length - 1);
    const { code, stdout, stderr } = await other.tryExec(withOnly(rest, daemonOf(other)));
    expect(stdout).not.toMatch(/ready/);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(why);
  });
});

describe("mount-bpffs", () => {
  it("mounts one, once, and not without the right to", async () => {
    const dir = join(lab.directory, "bpf");
    mkdirSync(dir);
    const script = `
      set -e
      ${vnetd} mount-bpffs ${dir}
      mkdir ${dir}/pinned
      ${vnetd} mount-bpffs ${dir} 
      ls -d ${dir}/pinned
      stat -c %a ${dir}
      grep -c ' ${dir} ' /proc/self/mountinfo`;
    const { stdout } = await a.exec(["unshare", "--mount", "sh", "-c", script]);
    expect(stdout.trim().split("\n")).toEqual([
      `mounted a BPF file system on ${dir}`,
      `${dir} is one already`,
      `${dir}/pinned`,
      "1700",
      "1",
    ]);
    const refused = await a.tryExec(withOnly([], [vnetd, "mount-bpffs", dir]));
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("CAP_SYS_ADMIN");
  });
});
