// SPDX-License-Identifier: Apache-2.0
/**
 * What the kernel must be able to do: its version, the options that it was built with (where it says them),
 * the memory that it may lock, and settings that are in the way.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { Skipped, type Check, type Found } from "./check.js";

/** Where the kernel's files are: "/", or what a test has put there. */
export interface KernelFacts {
  root: string;
}

const oldest: [number, number] = [6, 1];
/** until then maps are charged to RLIMIT_MEMLOCK */
const memlockUntil: [number, number] = [5, 11];

interface Option {
  level: "problem" | "warning";
  without: string;
}

const needed = (without: string): Option => ({ level: "problem", without });

/** what each is for; those of ESP are tried instead (esp.ts) */
const options: Readonly<Record<string, Option>> = {
  BPF_SYSCALL: needed("there are no BPF programs"),
  NET_SCHED: needed("BPF programs cannot be hooked to devices"),
  NET_CLS_ACT: needed("BPF programs cannot be hooked to devices"),
  NET_SCH_INGRESS: needed("BPF programs cannot be hooked to devices"),
  NET_CLS_BPF: needed("BPF programs cannot be hooked to vnet interfaces"),
  VETH: needed("there are no vnet interfaces"),
  BRIDGE: needed("vnets have no bridges"),
  IP_MULTICAST: needed("the group cannot be joined"),
  BPF_JIT: { level: "warning", without: "BPF programs are interpreted, which is slow" },
  VXLAN: { level: "warning", without: "packets that come in fragments are not received" },
};

export function kernelChecks(facts: KernelFacts): Check[] {
  return [
    { name: "kernel", run: () => [...versionFound(facts), ...settingsFound(facts)] },
    { name: "kernel-options", run: () => optionsFound(facts) },
    { name: "memlock", run: () => memlockFound(facts) },
  ];
}

export function fileText({ root }: KernelFacts, name: string): string | undefined {
  try {
    return readFileSync(path.join(root, name), "utf8");
  } catch {
    return undefined;
  }
}

function releaseOf(facts: KernelFacts): string {
  const release = fileText(facts, "proc/sys/kernel/osrelease")?.trim();
  if (release === undefined) throw new Error("/proc/sys/kernel/osrelease cannot be read");
  return release;
}

function isOlder(release: string, [major, minor]: [number, number]): boolean {
  const [, a, b] = /^(\d+)\.(\d+)/u.exec(release) ?? [];
  return Number(a) < major || (Number(a) === major && Number(b) < minor);
}

function versionFound(facts: KernelFacts): Found[] {
  const release = releaseOf(facts);
  if (!isOlder(release, oldest)) return [];
  return [
    {
      level: "problem",
      what: `the kernel is older than ${oldest.join(".")}, the oldest that loads the programs`,
      seen: `/proc/sys/kernel/osrelease says ${release}`,
      fix: "install a newer kernel and start it; on Debian: apt install linux-image-amd64; reboot",
    },
  ];
}

function settingsFound(facts: KernelFacts): Found[] {
  const jit = fileText(facts, "proc/sys/net/core/bpf_jit_enable")?.trim();
  if (jit !== "0") return [];
  return [
    {
      level: "warning",
      what: "BPF programs are interpreted, which makes each frame several times as dear",
      seen: "net.core.bpf_jit_enable is 0",
      fix: "sysctl -w net.core.bpf_jit_enable=1",
    },
  ];
}

/** The configuration that the running kernel was built with, from wherever it is. */
function configurationOf(facts: KernelFacts): { from: string; text: string } | undefined {
  const release = releaseOf(facts);
  try {
    const text = gunzipSync(readFileSync(path.join(facts.root, "proc/config.gz"))).toString();
    return { from: "/proc/config.gz", text };
  } catch {
    // most distributions have a file instead
  }
  for (const from of [`/boot/config-${release}`, `/usr/lib/modules/${release}/config`]) {
    const text = fileText(facts, from);
    if (text !== undefined) return { from, text };
  }
  return undefined;
}

function optionsFound(facts: KernelFacts): Found[] {
  const configuration = configurationOf(facts);
  if (configuration === undefined) throw new Skipped("this kernel's configuration is nowhere");
  const { from, text } = configuration;
  const set = new Set([...text.matchAll(/^CONFIG_(\w+)=[ym]$/gmu)].map(([, name]) => name));
  return Object.entries(options).flatMap(([name, { level, without }]) =>
    set.has(name)
      ? []
      : [
          {
            level,
            what: `the kernel lacks CONFIG_${name}: ${without}`,
            seen: `${from} does not set it`,
            fix: "start a kernel that has it; Debian's linux-image-amd64 does (the -cloud one may not)",
          },
        ],
  );
}

function memlockFound(facts: KernelFacts): Found[] {
  const release = releaseOf(facts);
  if (!isOlder(release, memlockUntil))
    throw new Skipped("the memory of maps is charged to the control group, not to RLIMIT_MEMLOCK");
  const limits = fileText(facts, "proc/self/limits") ?? "";
  const soft = /^Max locked memory\s+(\S+)/mu.exec(limits)?.[1];
  if (soft === undefined) throw new Error("/proc/self/limits does not say what may be locked");
  if (soft === "unlimited") return [];
  return [
    {
      level: "problem",
      what: "maps do not fit the memory that may be locked",
      seen: `/proc/self/limits says ${soft} bytes, and Linux ${release} charges maps to it`,
      fix: "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit of the service",
    },
  ];
}
