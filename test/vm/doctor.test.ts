// SPDX-License-Identifier: Apache-2.0
/**
 * vnetd doctor where only these kernels can be broken so: a firewall (nft) that drops ESP or UDP 1798, another
 * key. What the finding says to type mends it.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DoctorReport, Finding } from "../../src/api/contract.js";
import { eventually, Lab, type Host } from "../lib/lab.js";
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
