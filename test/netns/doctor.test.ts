// SPDX-License-Identifier: Apache-2.0
/**
 * vnetd doctor: a healthy lab has no finding; what is broken is found, and what the finding says to type
 * mends it.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CheckInfo, Finding } from "../../src/api/contract.js";
import { eventually, Lab, type Host } from "../lib/lab.js";
import { attachedDaemon, attachedHosts, quickHello } from "./world.js";

interface Report {
  daemon: boolean;
  healthy: boolean;
  findings: Finding[];
  checks: CheckInfo[];
}

/** Where the lab's host has its files. */
const places = ({ stateDir, bpffs }: Host): string[] => ["--state-dir", stateDir, "--bpffs", bpffs];

async function examine(host: Host): Promise<Report & { code: number }> {
  const { stdout, stderr, code } = await host.tryVnetd(["doctor", "--json", ...places(host)], {
    timeoutMs: 120_000,
  });
  if (stdout === "") throw new Error(stderr);
  return { ...(JSON.parse(stdout) as Report), code };
}

const wrong = ({ findings }: Report): Finding[] => findings.filter(({ level }) => level !== "note");

/** Of a check, once it is there. */
async function found(host: Host, check: string, text: RegExp): Promise<Finding> {
  let last: Report | undefined;
  let match: Finding | undefined;
  await eventually(
    async () => {
      last = await examine(host);
      match = last.findings.find((each) => each.check === check && text.test(each.what));
      return match !== undefined;
    },
    { timeoutMs: 60_000, what: `a finding of ${check} like ${String(text)}` },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify(last, null, 1)}`);
  });
  return match!;
}

/** Types what a finding says, and sees it go. */
async function mend(host: Host, finding: Finding, command = finding.fix): Promise<void> {
  await host.exec(command);
  await eventually(
    async () => {
      const r = await examine(host);
      return !r.findings.some(({ what }) => what === finding.what);
    },
    { timeoutMs: 60_000, what: `no more: ${finding.what}` },
  );
}

async function isWell(host: Host): Promise<void> {
  let last: Report | undefined;
  await eventually(
    async () => {
      last = await examine(host);
      return wrong(last).length === 0;
    },
    { timeoutMs: 60_000, what: "nothing to be wrong" },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${JSON.stringify(last, null, 1)}`);
  });
}

/** What is for a group gets to a host, or does not. */
const flood = (host: Host, on: boolean): Promise<unknown> =>
  host.lab.execInSwitch(
    `ip link set ${host.lab.switchPort(host)} type bridge_slave mcast_flood ${on ? "on" : "off"}`,
  );

let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"], {
    config: quickHello,
    readyTimeoutMs: 120_000,
  })) as [Host, Host];
  await eventually(async () => (await a.vnetdJson<unknown[]>(["hosts"])).length === 1, {
    what: "a to hear b",
  });
}, 300_000);
afterAll(() => lab.close());

describe("vnetd doctor", { timeout: 180_000 }, () => {
  it("finds nothing wrong where nothing is", async () => {
    for (const host of [a, b]) {
      const report = await examine(host);
      expect(wrong(report)).toEqual([]);
      expect(report.checks.filter(({ result }) => result === "failed")).toEqual([]);
      const offloads = report.checks.find(({ check }) => check === "offloads");
      expect(offloads).toMatchObject({ result: "ok" });
      expect({ ...report, findings: [], checks: [] }).toMatchObject({
        daemon: true,
        healthy: true,
        code: 0,
      });
    }
    const { stdout } = await a.vnetd(["doctor"]);
    expect(stdout).toMatch(/0 problems, 0 warnings/);
  });

  it("finds a device that is down", async () => {
    await a.exec("ip link set eth0 down");
    const finding = await found(a, "underlay", /^eth0: the device is down/);
    expect((await examine(a)).code).toBe(1);
    await mend(a, finding, finding.fix.split(";")[0]);
  });

  it("finds a device without an address", async () => {
    await a.exec("ip address flush dev eth0");
    const finding = await found(a, "underlay", /no IPv4 address/);
    await mend(a, finding, finding.fix.replace("ADDRESS/PREFIX", "10.66.1.1/24"));
  });

  it("notes programs of others on the device", async () => {
    expect((await examine(a)).findings.filter(({ check }) => check === "other-programs")).toEqual(
      [],
    );
    await a.exec("tc qdisc add dev eth0 clsact");
    await a.exec("tc filter add dev eth0 ingress prio 7 protocol ip u32 match u32 0 0 flowid 1:1");
    const finding = await found(a, "other-programs", /^eth0: .* arrive/);
    expect(finding).toMatchObject({
      level: "note",
      seen: expect.stringContaining("u32 filter with priority 7") as string,
    });
    await mend(a, finding, "tc filter del dev eth0 ingress prio 7");
    await a.exec("tc qdisc del dev eth0 clsact");
  });

  it("finds a route that leads astray", async () => {
    await eventually(async () => (await a.vnetdJson<unknown[]>(["hosts"])).length === 1, {
      what: "a to hear b",
    });
    await a.exec("ip route add 10.66.1.2/32 dev lo");
    const finding = await found(a, "routes", /10\.66\.1\.2 is heard by eth0/);
    expect(finding.seen).toMatch(/leads by lo/);
    await mend(a, finding, finding.fix.split("; ")[1]);
    await a.exec("ip route del 10.66.1.2/32 dev eth0");
  });

  it("finds a guest's port that takes more than the vnet carries", async () => {
    await a.vnetd(["vnet-create", "97"]);
    await a.guest("g1", { bridge: "vnet0097" });
    // made smaller by hand, which the daemon leaves
    await a.exec("ip link set vnif0097 mtu 1300");
    const finding = await found(a, "guest-mtu", /behind g-g1/);
    expect(finding.level).toBe("warning");
    await mend(a, finding, finding.fix.split(",")[0]);
    await a.vnetd(["vnet-delete", "97"]);
  });
});

describe("vnetd doctor, on the way to other hosts", { timeout: 180_000 }, () => {
  beforeAll(async () => {
    await isWell(a);
  }, 90_000);

  it("asked and answered", async () => {
    const { checks } = await examine(a);
    const results = new Map(checks.map(({ check, result }) => [check, result]));
    for (const check of ["reach", "multicast", "path-mtu", "fragments", "clocks", "sending"])
      expect(`${check} ${results.get(check) ?? "?"}`).toBe(`${check} ok`);
  });

  it("finds a host that does not answer, and there that the kernel refuses to", async () => {
    // what a firewall does to OUTPUT
    await b.exec("ip xfrm policy add src 10.66.1.2 dst 10.66.1.1 dir out action block");
    await found(a, "reach", /^\S+ \(10\.66\.1\.2\) is known, and does not answer/);
    const finding = await found(b, "sending", /refuses to send .* 10\.66\.1\.1/);
    expect(finding.seen).toMatch(/EPERM/);
    await b.exec("ip xfrm policy delete src 10.66.1.2 dst 10.66.1.1 dir out");
    await isWell(a);
  });

  it("finds that the group does not reach the other host", async () => {
    await flood(b, false);
    await found(a, "multicast", /this host sends to the group does not reach .*10\.66\.1\.2/);
    await flood(b, true);
    await isWell(a);
  });

  it("finds a path that drops what is large without a word, and what it carries", async () => {
    await lab.execInSwitch(`ip link set ${lab.switchPort(b)} mtu 1411`);
    const finding = await found(
      a,
      "path-mtu",
      /of more than 1411 bytes do not reach .*10\.66\.1\.2/,
    );
    await mend(a, finding, finding.fix.split(",")[0]);
    await a.exec("ip link set eth0 mtu 1500");
    await lab.execInSwitch(`ip link set ${lab.switchPort(b)} mtu 1500`);
  });

  it("finds that fragments are lost", async () => {
    await b.sysctl("net.ipv4.ipfrag_low_thresh", 0);
    await b.sysctl("net.ipv4.ipfrag_high_thresh", 1);
    const finding = await found(a, "fragments", /in fragments do not reach .*10\.66\.1\.2/);
    expect(finding.level).toBe("warning");
    await b.sysctl("net.ipv4.ipfrag_high_thresh", 4 << 20);
    await b.sysctl("net.ipv4.ipfrag_low_thresh", 3 << 20);
    await isWell(a);
  });

  it("finds a clock that is wrong", async () => {
    await b.killDaemon();
    const wrongClock = lab.file(
      "clock.mjs",
      "const now = Date.now; Date.now = () => now() - 90_000;\n",
    );
    await b.startDaemon({
      args: ["--metrics-listen", "off"],
      config: quickHello,
      env: { NODE_OPTIONS: `--import=${wrongClock}` },
    });
    const finding = await found(
      a,
      "clocks",
      /clock of .*10\.66\.1\.2\) is (89|90|91) s behind this host's/,
    );
    expect(finding.fix).toMatch(/timedatectl/);
    await b.killDaemon();
    await b.startDaemon({ args: ["--metrics-listen", "off"], config: quickHello });
    await isWell(a);
  });
});

describe("vnetd doctor of hosts with IPv6 only", { timeout: 300_000 }, () => {
  it("asks by IPv6, and finds what does not get through", async () => {
    const other = await Lab.create();
    try {
      await other.lan("lan0");
      const six: Host[] = [];
      for (const name of ["e", "f"]) {
        const host = await other.host(name);
        const address = `fd66::${String(six.length + 1)}/64`;
        await other.connectHost(host, "eth0", "lan0", address);
        await attachedDaemon(host, { config: quickHello, readyTimeoutMs: 120_000 });
        six.push(host);
      }
      const [e, f] = six as [Host, Host];
      await eventually(async () => (await e.vnetdJson<unknown[]>(["hosts"])).length === 1);
      await isWell(e);
      const asked = (await examine(e)).checks.filter(({ check }) =>
        ["reach", "multicast", "path-mtu", "fragments", "clocks"].includes(check),
      );
      expect(asked.map(({ result }) => result)).toEqual(["ok", "ok", "ok", "ok", "ok"]);
      const port = other.switchPort(f);
      await other.execInSwitch(`ip link set ${port} mtu 1411`);
      await found(e, "path-mtu", /of more than 1411 bytes do not reach .*fd66::2/);
      await other.execInSwitch(`ip link set ${port} mtu 1500`);
      await flood(f, false);
      await found(e, "multicast", /this host sends to the group does not reach .*fd66::2/);
      await flood(f, true);
      await isWell(e);
    } finally {
      await other.close();
    }
  });
});

describe("vnetd doctor of a host that the group does not reach", { timeout: 180_000 }, () => {
  it("finds whose messages do not come", async () => {
    // hosts are known for three intervals after they were heard
    const config = "helloSeconds: 60\n";
    const other = await Lab.create();
    try {
      const hosts = await attachedHosts(other, ["c", "d"], { config, readyTimeoutMs: 120_000 });
      const [, d] = hosts as [Host, Host];
      await eventually(async () => (await d.vnetdJson<unknown[]>(["hosts"])).length === 1, {
        timeoutMs: 30_000,
        what: "d to hear c",
      });
      await flood(d, false);
      await found(d, "multicast", /10\.66\.1\.1\) sends to the group does not reach this host/);
    } finally {
      await other.close();
    }
  });
});

describe("vnetd doctor without a daemon", { timeout: 180_000 }, () => {
  beforeAll(async () => {
    await a.killDaemon();
  });

  it("says so, and checks what can be seen", async () => {
    const report = await examine(a);
    expect(report).toMatchObject({ daemon: false, healthy: false, code: 1 });
    expect(wrong(report).map(({ check }) => check)).toEqual(["daemon"]);
    expect(report.checks.filter(({ result }) => result === "failed")).toEqual([]);
    expect(report.checks.find(({ check }) => check === "programs")?.result).toBe("ok");
  });

  it("finds that the group is left", async () => {
    await a.exec("ip address del 224.10.0.1/32 dev eth0");
    const finding = await found(a, "group", /224\.10\.0\.1 is not joined/);
    await mend(a, finding);
  });

  it("finds that the hook is gone, and a daemon mends it", async () => {
    const pinned = (await a.exec(`ls ${a.bpffs}/layout-1`)).stdout.split("\n");
    const link = pinned.find((name) => name.startsWith("link-") && name.endsWith("-ingress"));
    expect(link).toBeDefined();
    const ifindex = (await a.ip<{ ifindex: number }[]>("link", "show", "eth0"))[0]!.ifindex;
    await a.exec(`rm ${a.bpffs}/layout-1/link-${ifindex}-ingress`);
    const finding = await found(a, "hooks", /eth0: nothing is received/);
    expect(finding.fix).toBe("systemctl start vnetd");
    await a.startDaemon({ args: ["--metrics-listen", "off"], config: quickHello });
    await isWell(a);
  });

  it("finds a directory that is no bpffs", async () => {
    await b.killDaemon();
    const { stdout, code } = await b.tryVnetd(["doctor", "--json", "--bpffs", "/tmp/none"]);
    expect(code).toBe(1);
    const { findings } = JSON.parse(stdout) as Report;
    expect(findings.find(({ check }) => check === "bpffs")?.fix).toMatch(/mount -t bpf bpf/);
  });
});
