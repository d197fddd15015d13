// SPDX-License-Identifier: Apache-2.0
/**
 * vnetd doctor where only these kernels can be broken so: a firewall (nft) that drops ESP or UDP 1798, another
 * key, a table of neighbours that is full. What the finding says to type mends it.
 */
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DoctorReport, Finding } from "../../src/api/contract.js";
import { eventually, Lab, repository, type Host } from "../lib/lab.js";
import { ask, defaultKeyOf, quickHosts, quickVnet, reaches, writeKey } from "./secure.js";

const patience = { timeoutMs: 60_000, everyMs: 500 };
let lab: Lab;
let a: Host;
let b: Host;

const examine = (host: Host): Promise<DoctorReport> => ask(host, "doctor", {});

/** Of a check, once it is there. */
async function found(host: Host, check: string, text: RegExp): Promise<Finding> {
  return eventually(async () => {
    const { findings } = await examine(host);
    const match = findings.find((each) => each.check === check && text.test(each.what));
    if (match === undefined) throw new Error(JSON.stringify(findings));
    return match;
  }, patience);
}

const gone = (host: Host, { what }: Finding): Promise<unknown> =>
  eventually(async () => !(await examine(host)).findings.some((each) => each.what === what), {
    ...patience,
    what: `no more: ${what}`,
  });

/** The command for nft, of the ways that a finding names. */
const nftOf = (fix: string): string =>
  /nft insert rule inet filter input [\w ]+ accept/.exec(fix)?.[0] ?? "no nft command";

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await quickHosts(lab, ["a", "b"], { secret: randomBytes(32) })) as [Host, Host];
});
afterAll(() => lab.close());

describe("a firewall", () => {
  /** nftables' usual table, which drops what is named. */
  const firewall = (host: Host, hook: "input" | "output", rule: string): Promise<unknown> =>
    host.exec([
      "nft",
      `table inet filter { chain ${hook} { type filter hook ${hook} priority 0; ${rule} drop; }; }`,
    ]);

  it("that drops protocol 50 is told from one that drops all, and what to type lets it pass", async () => {
    await firewall(b, "input", "meta l4proto esp");
    await quickVnet([a, b], "98");
    const finding = await found(b, "keys", /no ESP packet of it arrives.*protocol 50/);
    expect(finding.level).toBe("problem");
    await b.exec(nftOf(finding.fix));
    await reaches(a, "10.98.0.2");
    await gone(b, finding);
    await b.exec("nft delete table inet filter");
  });

  it("in between that drops 1798/udp is found from the other host", async () => {
    await ask(a, "vnetDelete", { id: "98" });
    await ask(b, "vnetDelete", { id: "98" });
    await quickVnet([a, b], "96", { security: "none" });
    // not hellos, which go to the group: b stays known
    const rule = "ip daddr 10.66.1.2 udp dport 1798 drop";
    await lab.execInSwitch(
      `nft 'table bridge between { chain forward { type filter hook forward priority 0; ${rule}; }; }'`,
    );
    const finding = await found(a, "reach", /\(10\.66\.1\.2\) is known, and does not answer/);
    expect(finding.fix).toMatch(/let UDP 1798 pass on both hosts and between them/);
    await lab.execInSwitch("nft delete table bridge between");
    await gone(a, finding);
  });

  it("that drops it on its way out is found on the host itself", async () => {
    await firewall(b, "output", "udp dport 1798");
    const finding = await found(b, "sending", /refuses to send/);
    expect(finding.seen).toMatch(/EPERM/);
    await b.exec("nft delete table inet filter");
  });
});

describe("keys", () => {
  it("that are not the same are named by their ids, on both hosts", async () => {
    const other = join(b.stateDir, "keys", "other.key");
    writeKey(other, randomBytes(32));
    const idOf = (file: string): string =>
      /key id ([0-9a-f]{16})/.exec(readFileSync(file, "utf8"))?.[1] ?? "no id";
    await quickVnet([a], "92");
    await quickVnet([b], "92", { key: other });
    const [ours, theirs] = [idOf(defaultKeyOf(a)), idOf(other)];
    const onA = await found(a, "keys", new RegExp(`uses key id ${theirs}, this host uses ${ours}`));
    expect(onA).toMatchObject({
      level: "problem",
      fix: expect.stringContaining("vnetd keys") as string,
    });
    await found(b, "keys", new RegExp(`uses key id ${ours}, this host uses ${theirs}`));
  });
});

describe("the kernel's table of neighbours", () => {
  it("that is full is found in the machine's first namespace, and what to type makes room", async () => {
    const first = (text: string): string =>
      execFileSync("nsenter", ["--target", "1", "--net", "sh", "-c", text], { encoding: "utf8" });
    const thresholds = [1, 2, 3].map(
      (n) => `/proc/sys/net/ipv4/neigh/default/gc_thresh${String(n)}`,
    );
    const before = first(`cat ${thresholds.join(" ")}`)
      .trim()
      .split("\n");
    const set = (values: readonly string[]): string =>
      first(thresholds.map((path, at) => `echo ${values[at] ?? ""} >${path}`).join("; "));
    // reachable ones that are younger than 5 s are not thrown out; what finds no room fails, and is tried again
    const fill = spawn("nsenter", [
      ...["--target", "1", "--net", "sh", "-c"],
      "ip link add full0 type veth peer name full1; ip link set full0 up; while :; do for n in $(seq 2 90); do " +
        "ip neigh replace 192.0.2.$n lladdr 02:00:00:00:00:02 dev full0 nud reachable 2>/dev/null; done; done",
    ]);
    // the check alone: the others of `vnetd doctor` take these machines half a minute
    const script =
      `const { kernelLimitChecks } = await import("${repository}/dist/src/doctor/kernel-limits.js");` +
      `const { runChecks } = await import("${repository}/dist/src/doctor/check.js");` +
      'console.log(JSON.stringify(await runChecks(kernelLimitChecks({ root: "/" }))));';
    const doctor = (): Finding | undefined => {
      const words = [
        "--target",
        "1",
        "--net",
        process.execPath,
        "--input-type=module",
        "-e",
        script,
      ];
      const { findings } = JSON.parse(execFileSync("nsenter", words, { encoding: "utf8" })) as Pick<
        DoctorReport,
        "findings"
      >;
      return findings.find(({ check }) => check === "neighbours");
    };
    try {
      set(["8", "16", "32"]);
      const full = await eventually(() => {
        const finding = doctor();
        if (finding?.level !== "problem") throw new Error(JSON.stringify(finding));
        return finding;
      }, patience);
      expect(full.what).toMatch(/table of IPv4 neighbours is full/);
      expect(full.seen).toMatch(/gc_thresh3 is 32; \d+ times no room just now/);
      const typed = /^(sysctl -w [\w.= ]+), and/.exec(full.fix)?.[1] ?? "false";
      first(typed);
      await eventually(() => {
        const finding = doctor();
        // that it was full stays known
        if (finding?.level !== "note") throw new Error(JSON.stringify(finding));
      }, patience);
    } finally {
      set(before);
      fill.kill();
      first("ip link del full0");
    }
  });
});
