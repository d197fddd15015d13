// SPDX-License-Identifier: Apache-2.0
/**
 * Prometheus' own server (Debian's package) scrapes two daemons, one in clear on its own host, one by TLS and with
 * a token over the underlay: its queries return what the traffic was. promtool judges the page, the rules, and
 * runs their tests.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VnetState } from "../../src/api/contract.js";
import { catalogue } from "../../src/metrics/catalogue.js";
import { Lab, eventually, repository, run, timeFactor, type Guest, type Host } from "../lib/lab.js";
import { longId, quickHello } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
let guest: Guest;
const token = "correct-horse-battery-staple";
const patience = { timeoutMs: 60_000 };
/** of tests that wait several times */
const longMs = 240_000 * timeFactor;
const secretsOf = (): string => join(lab.directory, "secrets");

function makeSecrets(): void {
  mkdirSync(secretsOf(), { mode: 0o700 });
  const tls = join(secretsOf(), "tls");
  execFileSync(
    "openssl",
    [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
      ...["-subj", "/CN=b", "-addext", "subjectAltName=IP:10.66.1.2", "-days", "2"],
      ...["-keyout", `${tls}.key`, "-out", `${tls}.crt`],
    ],
    { stdio: "ignore" },
  );
  chmodSync(`${tls}.key`, 0o600);
  execFileSync("sh", ["-c", `umask 077; echo ${token} > "$1"`, "sh", join(secretsOf(), "token")]);
}

async function startHost(name: string, number: number, config: string): Promise<Host> {
  const host = await lab.host(name, { underlay: `10.66.1.${number}/24` });
  await host.startDaemon({ config: `${quickHello}${config}attach: [eth0]\n` });
  const file = lab.file(`${name}-vnet97.sxp`, "(vnet (id 97) (bridge vnet97) (suppress on))");
  await host.vnetd(["vnet-create", file]);
  return host;
}

/** On a, of both. */
async function startPrometheus(): Promise<void> {
  const secret = (name: string): string => JSON.stringify(join(secretsOf(), name));
  const config = lab.file(
    "prometheus.yml",
    `global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: ["${join(repository, "monitoring/vnetd.rules.yml")}"]
scrape_configs:
  - job_name: vnetd
    static_configs: [{ targets: ["127.0.0.1:11798"], labels: { instance: a } }]
  - job_name: vnetd-tls
    scheme: https
    authorization: { credentials_file: ${secret("token")} }
    tls_config: { ca_file: ${secret("tls.crt")} }
    static_configs: [{ targets: ["10.66.1.2:11798"], labels: { instance: b } }]
`,
  );
  const server = a.spawn([
    "prometheus",
    `--config.file=${config}`,
    `--storage.tsdb.path=${join(lab.directory, "tsdb")}`,
    "--web.listen-address=127.0.0.1:9090",
  ]);
  await server.output(/Server is ready to receive web requests/, {
    ...patience,
    what: "Prometheus",
  });
}

async function get(host: Host, url: string): Promise<string> {
  const script = `fetch(process.argv[1]).then((r) => r.text()).then((t) => process.stdout.write(t))`;
  return (await host.exec([process.execPath, "-e", script, url])).stdout;
}

async function api<T>(path: string): Promise<T> {
  const answer = JSON.parse(await get(a, `http://127.0.0.1:9090/api/v1/${path}`)) as {
    status: string;
    data: T;
  };
  expect(answer.status).toBe("success");
  return answer.data;
}

interface Sample {
  metric: Record<string, string>;
  value: [number, string];
}

async function query(expr: string): Promise<Sample[]> {
  const { result } = await api<{ result: Sample[] }>(`query?query=${encodeURIComponent(expr)}`);
  return result;
}

/** Of a query with one answer; NaN: it has none yet. */
async function value(expr: string): Promise<number> {
  const [sample, ...more] = await query(expr);
  expect(more, expr).toEqual([]);
  return Number(sample?.value[1] ?? NaN);
}

const becomes = (expr: string, wanted: number): Promise<unknown> =>
  eventually(
    async () => {
      expect(await value(expr)).toBe(wanted);
      return true;
    },
    { ...patience, what: expr },
  );

const vnet = longId("97");

async function trafficOf(host: Host): Promise<NonNullable<VnetState["traffic"]>> {
  const vnets = await host.vnetdJson<VnetState[]>(["vnets", "--all"]);
  return vnets.find(({ id }) => id === vnet)!.traffic!;
}

type Numbers = Record<"encapFrames" | "encapBytes" | "decapFrames" | "decapBytes", number>;

/** What Prometheus has of the vnet on one host, as `vnetd vnets` names it; all of one scrape. */
async function numbersOf(instance: string): Promise<Numbers> {
  const samples = await query(
    `{__name__=~"vnetd_(frames|bytes)_total",instance="${instance}",vnet="${vnet}"}`,
  );
  const of = (name: string, direction: string): number =>
    Number(
      samples.find(
        ({ metric }) =>
          metric["__name__"] === `vnetd_${name}_total` && metric["direction"] === direction,
      )?.value[1],
    );
  return {
    encapFrames: of("frames", "encap"),
    encapBytes: of("bytes", "encap"),
    decapFrames: of("frames", "decap"),
    decapBytes: of("bytes", "decap"),
  };
}

beforeAll(async () => {
  lab = await Lab.create();
  makeSecrets();
  a = await startHost("a", 1, "");
  b = await startHost(
    "b",
    2,
    `metricsListen: 10.66.1.2:11798
metricsTokenFile: ${join(secretsOf(), "token")}
metricsCertificateFile: ${join(secretsOf(), "tls.crt")}
metricsKeyFile: ${join(secretsOf(), "tls.key")}
`,
  );
  guest = await a.guest("g", { bridge: "vnet97", address: "10.0.0.1/24" });
  await b.guest("h", { bridge: "vnet97", address: "10.0.0.2/24" });
  await eventually(
    async () => (await guest.ping("10.0.0.2", { count: 1 })).received === 1,
    patience,
  );
  await startPrometheus();
  await becomes('sum(up{job=~"vnetd.*"})', 2);
});
afterAll(() => lab.close());

describe("Prometheus", () => {
  it(
    "has what the traffic was: frames and bytes, on both hosts",
    async () => {
      const of = (metric: string, instance: string, direction: string): string =>
        `vnetd_${metric}_total{instance="${instance}",vnet="${vnet}",direction="${direction}"}`;
      const before = {
        frames: await value(of("frames", "a", "encap")),
        bytes: await value(of("bytes", "a", "encap")),
        heard: await value(of("frames", "b", "decap")),
      };
      expect(before.frames).toBeGreaterThan(0);
      const count = 200;
      const ping = await guest.ping("10.0.0.2", { count, intervalMs: 10, sizeBytes: 1000 });
      expect(ping.received).toBe(count);
      // it may say more: neighbours are asked for in between
      await eventually(
        async () => {
          expect(await value(of("frames", "a", "encap"))).toBeGreaterThanOrEqual(
            before.frames + count,
          );
          expect(await value(of("frames", "b", "decap"))).toBeGreaterThanOrEqual(
            before.heard + count,
          );
          return true;
        },
        { ...patience, what: "the pings, in Prometheus" },
      );
      // Ethernet, IP, ICMP and 1,000 bytes each way
      const bytes = await value(of("bytes", "a", "encap"));
      expect(bytes).toBeGreaterThanOrEqual(before.bytes + count * (14 + 20 + 8 + 1000));
      expect(bytes).toBeLessThan(before.bytes + count * 1042 + 20_000);
      // and what `vnetd vnets` has: no less than it said before, no more than it says afterwards
      for (const [host, name] of [
        [a, "a"],
        [b, "b"],
      ] as const) {
        const least = await trafficOf(host);
        const numbers = await eventually(
          async () => {
            const now = await numbersOf(name);
            return Object.entries(now).every(([of, n]) => n >= least[of as keyof Numbers]) && now;
          },
          { ...patience, what: `the numbers of \`vnetd vnets\` on ${name}, in Prometheus` },
        );
        const most = await trafficOf(host);
        for (const [of, n] of Object.entries(numbers))
          expect(n, of).toBeLessThanOrEqual(most[of as keyof Numbers]);
      }
    },
    longMs,
  );

  it(
    "has drops by the reason that `vnetd status` says",
    async () => {
      const expr = 'vnetd_drops_total{instance="a",vnet="",direction="decap",reason="truncated"}';
      expect(await value(expr)).toBeNaN();
      const python = `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(7): s.sendto(b"x", ("10.66.1.1", 1798))`;
      await b.exec(["python3", "-c", python]);
      await becomes(expr, 7);
      const { drops } = await a.vnetdJson<StatusInfo>(["status"]);
      expect(drops.find(({ reason }) => reason === "truncated")?.frames).toBe(7);
    },
    longMs,
  );

  it(
    "has tables, hosts, and the messages by which they know each other",
    async () => {
      await becomes('vnetd_hosts{instance="a"}', 1);
      // the guest there, and what else has spoken: bridge and vnetif
      expect(
        await value(`vnetd_table_entries{instance="a",vnet="${vnet}",place="remote"}`),
      ).toBeGreaterThan(0);
      expect(await value('vnetd_map_limit_entries{instance="a",map="fdb"}')).toBe(65536);
      expect(await value('vnetd_table_learned_total{instance="a"}')).toBeGreaterThan(1);
      await a.vnetd(["vif-add", "97", "02:00:00:00:00:99"]);
      await becomes('vnetd_table_static_entries{instance="a"}', 1);
      await eventually(
        async () =>
          (await value(
            'vnetd_varp_received_messages_total{instance="a",kind="hello",verdict="taken"}',
          )) > 3,
        { ...patience, what: "hellos" },
      );
      const request = (kind: string, verdict: string): string =>
        `vnetd_varp_received_messages_total{instance="b",kind="${kind}",verdict="${verdict}"}`;
      const nobody = await value(request("request", "not_here"));
      await guest.tryExec(["ping", "-c", "1", "-W", "1", "10.0.0.77"]);
      // broadcasts ask nobody; a MAC that nobody has does
      await guest.exec("ip neigh replace 10.0.0.78 lladdr 02:00:00:00:00:78 dev eth0");
      await guest.tryExec(["ping", "-c", "1", "-W", "1", "10.0.0.78"]);
      await eventually(
        async () =>
          (await value(request("request", "not_here"))) > (Number.isNaN(nobody) ? 0 : nobody),
        { ...patience, what: "the request for a MAC that b does not have" },
      );
    },
    longMs,
  );

  it(
    "knows peers: which can be reached, and when they were heard",
    async () => {
      for (const peer of ["10.66.1.2", "192.0.2.9"]) await a.vnetd(["peer-add", peer]);
      await becomes('vnetd_peer_reachable{peer="10.66.1.2"}', 1);
      await becomes('vnetd_peer_reachable{peer="192.0.2.9"}', 0);
      await eventually(
        async () =>
          (await value('time() - vnetd_peer_last_heard_timestamp_seconds{peer="10.66.1.2"}')) < 60,
        { ...patience, what: "the peer to be heard" },
      );
      expect(await query('vnetd_peer_last_heard_timestamp_seconds{peer="192.0.2.9"}')).toEqual([]);
      await becomes('vnetd_peers{instance="a"}', 2);
      for (const peer of ["10.66.1.2", "192.0.2.9"]) await a.vnetd(["peer-delete", peer]);
      await becomes('vnetd_peers{instance="a"}', 0);
      await eventually(async () => (await query("vnetd_peer_reachable")).length === 0, patience);
    },
    longMs,
  );

  it(
    "knows the underlay's state, and an alert about it waits for its minute",
    async () => {
      await becomes('vnetd_underlay_up{instance="b",device="eth0",family="ipv4"}', 1);
      await becomes('vnetd_underlay_mtu_bytes{instance="a",device="eth0",family="ipv4"}', 1500);
      await a.exec("ip link set eth0 down");
      await becomes('vnetd_underlay_up{instance="a"}', 0);
      await becomes('ALERTS{alertname="VnetdUnderlayDown",instance="a",alertstate="pending"}', 1);
      expect(await get(a, "http://127.0.0.1:11798/readyz")).toMatch(/^eth0: /);
      expect(await get(a, "http://127.0.0.1:11798/healthz")).toBe("ok\n");
      await a.exec("ip link set eth0 up");
      await becomes('vnetd_underlay_up{instance="a"}', 1);
      await eventually(
        async () => (await get(a, "http://127.0.0.1:11798/readyz")) === "ok\n",
        patience,
      );
    },
    longMs,
  );

  it(
    "knows that a configuration was refused, and until when the one before is in use",
    async () => {
      const { configuration } = await a.vnetdJson<StatusInfo>(["status"]);
      const good = readFileSync(configuration.file, "utf8");
      await becomes('vnetd_config_last_reload_success{instance="a"}', 1);
      writeFileSync(configuration.file, `${good}colour: red\n`);
      expect((await a.tryVnetd(["reload"])).code).toBe(1);
      await becomes('vnetd_config_last_reload_success{instance="a"}', 0);
      await becomes('vnetd_config_reloads_total{instance="a",verdict="refused"}', 1);
      await becomes('ALERTS{alertname="VnetdConfigRefused",alertstate="pending"}', 1);
      writeFileSync(configuration.file, good);
      await a.vnetd(["reload"]);
      await becomes('vnetd_config_last_reload_success{instance="a"}', 1);
      await becomes('vnetd_config_reloads_total{instance="a",verdict="ok"}', 1);
    },
    longMs,
  );

  it(
    "knows type and help of each metric, and none that the catalogue has not",
    async () => {
      const metadata = await api<Record<string, { type: string; help: string }[]>>("metadata");
      const ours = Object.entries(metadata).filter(([name]) => /^(vnetd|process)_/.test(name));
      // of secure vnets and peers there is nothing here
      expect(ours.length).toBeGreaterThan(35);
      for (const [name, entries] of ours) {
        const info = catalogue.get(name);
        expect(info, name).toBeDefined();
        expect(entries, name).toContainEqual({ type: info!.type, help: info!.help, unit: "" });
      }
    },
    longMs,
  );

  it(
    "takes our rules, and none of them fails",
    async () => {
      const { groups } = await api<{
        groups: { rules: { name: string; health: string; lastError?: string }[] }[];
      }>("rules");
      const rules = groups.flatMap((group) => group.rules);
      expect(rules.length).toBeGreaterThan(20);
      await eventually(
        async () => {
          const now = await api<{ groups: { rules: { health: string }[] }[] }>("rules");
          const states = now.groups.flatMap((group) => group.rules).map(({ health }) => health);
          return states.every((health) => health === "ok");
        },
        { ...patience, what: "all rules to be healthy" },
      );
    },
    longMs,
  );

  it(
    "answers every question of the dashboard",
    async () => {
      const text = readFileSync(join(repository, "monitoring/grafana-dashboard.json"), "utf8");
      const { panels } = JSON.parse(text) as { panels: { targets?: { expr: string }[] }[] };
      const exprs = panels
        .flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
        .map((expr) =>
          expr.replaceAll("$__rate_interval", "1m").replace(/\$(instance|vnet)/g, ".*"),
        );
      expect(exprs.length).toBeGreaterThan(30);
      const script = `const exprs = JSON.parse(require("fs").readFileSync(0, "utf8"));
const ask = async (expr) => {
  const url = "http://127.0.0.1:9090/api/v1/query?query=" + encodeURIComponent(expr);
  const { status, error, data } = await (await fetch(url)).json();
  return { expr, status, error, rows: data?.result.length ?? 0 };
};
Promise.all(exprs.map(ask)).then((answers) => console.log(JSON.stringify(answers)));`;
      const input = JSON.stringify(exprs);
      const answersNow = async (): Promise<true> => {
        const { stdout } = await a.exec([process.execPath, "-e", script], { input });
        const answers = JSON.parse(stdout) as { expr: string; error?: string; rows: number }[];
        expect(answers.filter(({ error }) => error !== undefined)).toEqual([]);
        // peers and secure vnets are not here
        const empty = answers.filter(({ rows }) => rows === 0).map(({ expr }) => expr);
        for (const expr of empty) expect(expr).toMatch(/_peer_|_secur|key|esp_|_xfrm_/);
        return true;
      };
      await eventually(answersNow, { ...patience, what: "answers to all questions" });
    },
    longMs,
  );

  it(
    "without the token, or in clear, gets nothing of b",
    async () => {
      const probe = (scheme: string, header: string): Promise<{ stdout: string }> =>
        a.exec([
          process.execPath,
          "-e",
          `process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
         fetch("${scheme}://10.66.1.2:11798/metrics", { headers: { authorization: "${header}" } })
           .then(async (r) => console.log(r.status, (await r.text()).includes("vnetd_")), () => console.log("refused"))`,
        ]);
      expect((await probe("https", `Bearer ${token}`)).stdout).toBe("200 true\n");
      expect((await probe("https", "Bearer correct-horse-battery")).stdout).toBe("401 false\n");
      expect((await probe("http", `Bearer ${token}`)).stdout).toBe("refused\n");
    },
    longMs,
  );
});

describe("promtool", () => {
  it(
    "finds nothing to say about the page",
    async () => {
      const page = await get(a, "http://127.0.0.1:11798/metrics");
      expect(page).toContain("vnetd_frames_total{");
      const result = await run(["promtool", "check", "metrics"], { input: page });
      expect(result.stdout + result.stderr).toBe("");
      // it would: a name against the conventions
      const bad = page.replaceAll("vnetd_hosts", "vnetd_hosts_total");
      await expect(run(["promtool", "check", "metrics"], { input: bad })).rejects.toThrow(/_total/);
    },
    longMs,
  );

  it(
    "takes the rules and passes their tests",
    async () => {
      const cwd = join(repository, "monitoring");
      const check = await run(["promtool", "check", "rules", "vnetd.rules.yml"], { cwd });
      expect(check.stdout).toMatch(/SUCCESS: \d\d rules found/);
      const tests = await run(["promtool", "test", "rules", "vnetd.rules.test.yml"], {
        ...{ cwd, timeoutMs: 120_000 },
      });
      expect(tests.stdout).toContain("SUCCESS");
    },
    longMs,
  );
});
