// SPDX-License-Identifier: Apache-2.0
/** vnetd doctor's parts that need no host: the kernel's files, what is said to be done, what runs the checks. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DoctorReport } from "../../src/api/contract.js";
import { runChecks, Skipped, type Examination } from "../../src/doctor/check.js";
import { kernelChecks } from "../../src/doctor/kernel.js";
import { kernelLimitChecks } from "../../src/doctor/kernel-limits.js";
import { remedyOf } from "../../src/doctor/troubles.js";
import { isJoined } from "../../src/doctor/underlay.js";
import { cli } from "./lib/cli.js";
import { FakeDaemon } from "./lib/fake-daemon.js";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "vnetd-doctor-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(name: string, text: string | Buffer): void {
  const path = join(root, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

const allOptions = [
  ...["BPF_SYSCALL", "NET_SCHED", "NET_CLS_ACT", "NET_SCH_INGRESS", "NET_CLS_BPF", "VETH"],
  ...["BRIDGE", "IP_MULTICAST", "BPF_JIT", "VXLAN"],
];
const configuration = (options: readonly string[]): string =>
  options.map((name, at) => `CONFIG_${name}=${at % 2 === 0 ? "y" : "m"}\n`).join("");

describe("the kernel's checks", () => {
  const look = (): Promise<Examination> => runChecks(kernelChecks({ root }));

  it("find nothing wrong with a kernel that has everything", async () => {
    put("proc/sys/kernel/osrelease", "6.1.0-44-amd64\n");
    put("proc/sys/net/core/bpf_jit_enable", "1\n");
    put("boot/config-6.1.0-44-amd64", configuration(allOptions));
    const { findings, checks } = await look();
    expect(findings).toEqual([]);
    expect(checks.map(({ check, result }) => `${check} ${result}`)).toEqual([
      "kernel ok",
      "kernel-options ok",
      "memlock skipped",
    ]);
  });

  it("find an old kernel, and the memory that it may lock", async () => {
    put("proc/sys/kernel/osrelease", "5.10.0\n");
    put(
      "proc/self/limits",
      "Max locked memory         65536                65536                bytes\n",
    );
    const { findings, checks } = await look();
    expect(findings.map(({ check, level }) => `${check} ${level}`)).toEqual([
      "kernel problem",
      "memlock problem",
    ]);
    expect(findings[1]?.seen).toContain("65536");
    expect(checks.find(({ check }) => check === "kernel-options")?.result).toBe("skipped");
    put(
      "proc/self/limits",
      "Max locked memory         unlimited            unlimited            bytes\n",
    );
    expect((await look()).findings.map(({ check }) => check)).toEqual(["kernel"]);
  });

  it.each(allOptions)("find that CONFIG_%s is missing", async (missing) => {
    put("proc/sys/kernel/osrelease", "6.12.0\n");
    const rest = configuration(allOptions.filter((name) => name !== missing));
    put("proc/config.gz", gzipSync(`${rest}# CONFIG_${missing} is not set\n`));
    const { findings } = await look();
    expect(findings.map(({ what }) => what)).toEqual([
      expect.stringContaining(`CONFIG_${missing}:`),
    ]);
    expect(findings[0]?.level).toBe(["BPF_JIT", "VXLAN"].includes(missing) ? "warning" : "problem");
  });

  it("find that programs are interpreted", async () => {
    put("proc/sys/kernel/osrelease", "6.12.0\n");
    put("proc/sys/net/core/bpf_jit_enable", "0\n");
    expect((await look()).findings).toMatchObject([
      { level: "warning", fix: "sysctl -w net.core.bpf_jit_enable=1" },
    ]);
  });
});

describe("the checks of the kernel's limits", () => {
  const watchMs = 100;
  const look = (): Promise<Examination> => runChecks(kernelLimitChecks({ root, watchMs }));
  /** as the kernel writes it: a line for each CPU, the same number of entries in both */
  const table = (entries: number, refused: [number, number]): string => {
    const hex = (value: number): string => value.toString(16).padStart(8, "0");
    const line = (each: number): string => `${hex(entries)} 0000465e 000058a5 ${hex(each)}\n`;
    const head = "entries  allocs   destroys table_fulls\n";
    return head + refused.map((each) => line(each)).join("");
  };
  const queues = (dropped: number): string =>
    `212db5c1 ${dropped.toString(16).padStart(8, "0")} 00000a50 00000000\n06139a99 00000001 00000196 00000000\n`;
  const meanwhile = (name: string, text: string): void =>
    void setTimeout(() => put(name, text), watchMs / 4);

  beforeEach(() => {
    put("proc/net/stat/arp_cache", table(12, [0, 0]));
    put("proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n");
    put("proc/net/stat/ndisc_cache", table(768, [0, 0]));
    put("proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024\n");
    put("proc/net/softnet_stat", queues(0x1147c));
    put("proc/sys/net/core/netdev_max_backlog", "1000\n");
  });

  it("find nothing where there is room, whatever was lost before", async () => {
    const { findings, checks } = await look();
    expect(findings).toEqual([]);
    expect(checks.map(({ check, result }) => `${check} ${result}`)).toEqual([
      "neighbours ok",
      "backlog ok",
    ]);
  });

  it("find a table of neighbours that is full now", async () => {
    put("proc/net/stat/arp_cache", table(1024, [0xc60, 0xbc5]));
    meanwhile("proc/net/stat/arp_cache", table(1024, [0xc61, 0xbd5]));
    expect((await look()).findings).toEqual([
      {
        check: "neighbours",
        level: "problem",
        what: "the kernel's table of IPv4 neighbours is full: packets to hosts and guests are dropped, and the kernel's log alone is told",
        seen: "1024 entries of all namespaces, net.ipv4.neigh.default.gc_thresh3 is 1024; 17 times no room just now",
        fix:
          "sysctl -w net.ipv4.neigh.default.gc_thresh2=2048 net.ipv4.neigh.default.gc_thresh3=4096, " +
          "and the same in /etc/sysctl.d, so that it is so after a start",
      },
    ]);
  });

  it("find one that will be full soon, and one that was", async () => {
    put("proc/net/stat/arp_cache", table(3, [2, 3]));
    put("proc/net/stat/ndisc_cache", table(769, [9, 0]));
    const found = (await look()).findings;
    expect(found.map(({ level, what }) => `${level}: ${what}`)).toEqual([
      "note: the kernel's table of IPv4 neighbours was full at some time since the machine's start",
      "note: the kernel's table of IPv6 neighbours is nearly full",
    ]);
    expect(found[0]?.seen).toContain("5 times no room");
    expect(found[0]?.fix).toContain("gc_thresh3=4096,");
    put("proc/sys/net/ipv4/neigh/default/gc_thresh3", "4096\n");
    put("proc/sys/net/ipv6/neigh/default/gc_thresh3", "4096\n");
    expect((await look()).findings).toEqual([]);
  });

  it("find packets that the CPUs' queues lose", async () => {
    const checks = kernelLimitChecks({ root, watchMs }).filter(({ name }) => name === "backlog");
    meanwhile("proc/net/softnet_stat", queues(0x1147c + 300));
    const { findings } = await runChecks(checks);
    expect(findings.map(({ level }) => level)).toEqual(["warning"]);
    expect(findings[0]?.seen).toMatch(/^300 just now .* is 1000$/);
    expect(findings[0]?.fix).toContain("net.core.netdev_max_backlog=10000");
  });

  it("are skipped where a namespace does not show the table", async () => {
    rmSync(join(root, "proc/net/stat"), { recursive: true });
    rmSync(join(root, "proc/sys/net/ipv4"), { recursive: true });
    expect((await look()).checks.map(({ result }) => result)).toEqual(["skipped", "ok"]);
  });
});

describe("membership as the kernel lists it", () => {
  it("is read for both families", () => {
    put(
      "proc/net/igmp",
      "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
        "1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n" +
        "2\teth0      :     2      V3\n\t\t\t\t01000AE0     1 0:00000000\t\t0\n" +
        "\t\t\t\t010000E0     1 0:00000000\t\t0\n",
    );
    put(
      "proc/net/igmp6",
      "2    eth0            ff020000000000000000000000000706     1 00000004 0\n",
    );
    expect(isJoined({ root }, "eth0", "224.10.0.1", 4)).toBe(true);
    expect(isJoined({ root }, "lo", "224.10.0.1", 4)).toBe(false);
    expect(isJoined({ root }, "eth0", "224.10.0.2", 4)).toBe(false);
    expect(isJoined({ root }, "eth0", "ff02::706", 6)).toBe(true);
    expect(isJoined({ root }, "eth1", "ff02::706", 6)).toBe(false);
    rmSync(join(root, "proc/net/igmp6"));
    expect(isJoined({ root }, "eth0", "ff02::706", 6)).toBeUndefined();
  });
});

describe("runChecks", () => {
  const finding = (level: "problem" | "warning" | "note", what: string): never[] =>
    [{ level, what, seen: "", fix: "" }] as never[];

  it("goes on after a check that fails, hangs, or has nothing to do", async () => {
    const { findings, checks } = await runChecks(
      [
        { name: "note", run: () => finding("note", "n") },
        {
          name: "throws",
          run: () => {
            throw new Error("no such file");
          },
        },
        { name: "hangs", run: () => new Promise<never>(() => undefined) },
        {
          name: "nothing",
          run: () => {
            throw new Skipped("none");
          },
        },
        { name: "last", run: async () => finding("problem", "p") },
      ],
      50,
    );
    expect(checks.map(({ check, result }) => `${check} ${result}`)).toEqual([
      "note found",
      "throws failed",
      "hangs failed",
      "nothing skipped",
      "last found",
    ]);
    expect(checks[1]?.why).toBe("no such file");
    expect(checks[2]?.why).toMatch(/took more than/);
    expect(findings.map(({ what }) => what)).toEqual(["p", "n"]);
  });
});

describe("what is to be done", () => {
  it.each([
    ["vnet 98: b (10.66.1.2) uses key id aa, this host uses bb", /one key file/],
    ["vnet 98: b uses conf gcm, this host uses conf sha1", /vnet-create -s LEVEL/],
    ["vnet 98: b has this vnet without security, this host with conf", /vnet-create -s LEVEL/],
    [
      "vnet 98: keys are agreed on with b, and no ESP packet of it arrives: does a firewall in between drop protocol 50?",
      /esp accept/,
    ],
    [
      "vnet 98: no keys with b for 12 s: it said hello, and does not answer key messages (1798/udp)",
      /1798/,
    ],
    ["10.66.1.1 (this host) and 10.66.1.2 say hello with the same host id, as …", /host\.yaml/],
    ["loop in vnet 97: …", /nomaster/],
    ["storm in vnet 97: guests of this host send …", /floodPerSecond/],
    [
      "eth0: somebody removed our program from its ingress, and it was hooked again",
      /find out who/,
    ],
    ["duplicate address 02:00:00:00:00:01 in vnet 97: seen on …", /another MAC/],
    ["something new", /as the text says/],
  ])("%s", (text, fix) => {
    expect(remedyOf(text)).toMatch(fix);
  });
});

describe("the command", () => {
  const report = (change: Partial<DoctorReport>): DoctorReport => ({
    findings: [],
    checks: [{ check: "kernel", result: "ok", why: "", ms: 1 }],
    devices: [],
    ...change,
  });
  const finding = { check: "group", what: "w", seen: "s", fix: "f" };

  it.each([
    ["healthy", report({}), 0],
    ["a note", report({ findings: [{ ...finding, level: "note" }] }), 0],
    ["a warning", report({ findings: [{ ...finding, level: "warning" }] }), 1],
    ["a problem", report({ findings: [{ ...finding, level: "problem" }] }), 1],
    [
      "a check that failed",
      report({ checks: [{ check: "kernel", result: "failed", why: "x", ms: 1 }] }),
      2,
    ],
    [
      "a check that failed and a problem",
      report({
        findings: [{ ...finding, level: "problem" }],
        checks: [{ check: "kernel", result: "failed", why: "x", ms: 1 }],
      }),
      1,
    ],
  ])("exits for %s", async (_name, answer, code) => {
    const daemon = await FakeDaemon.start({ doctor: answer });
    try {
      const text = await cli(["doctor", "--run-dir", daemon.runDir]);
      expect(text.code).toBe(code);
      for (const { what, seen, fix } of answer.findings)
        expect(text.stdout).toContain(
          `group: ${what}\n         seen: ${seen}\n         do:   ${fix}\n`,
        );
      expect(text.stderr.includes("could not be checked: x")).toBe(
        answer.checks.some(({ result }) => result === "failed"),
      );
      const json = await cli(["doctor", "--json", "--run-dir", daemon.runDir]);
      expect(json.code).toBe(code);
      expect(JSON.parse(json.stdout)).toEqual({ daemon: true, healthy: code === 0, ...answer });
    } finally {
      await daemon.stop();
    }
  });
});
