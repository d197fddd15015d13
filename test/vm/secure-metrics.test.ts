// SPDX-License-Identifier: Apache-2.0
/** What /metrics says of secure vnets: keys and their age, changes of keys, and what the kernel's ESP refused. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab, eventually, timeFactor, type Host } from "../lib/lab.js";
import { longId } from "../netns/world.js";
import { samples } from "../unit/lib/metrics.js";
import { ask, defaultKeyOf, quick, reaches, secureVnet, writeKey } from "./secure.js";

let lab: Lab;
let a: Host;
let b: Host;
const vnet = longId("98");
const patience = { timeoutMs: 60_000 };

beforeAll(async () => {
  lab = await Lab.create();
  const secret = Buffer.alloc(32, 7);
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  b = await lab.host("b", { underlay: "10.66.1.2/24" });
  for (const host of [a, b]) writeKey(defaultKeyOf(host), secret);
  const config = `${quick}attach: [eth0]\n`;
  await Promise.all([a, b].map((host) => host.startDaemon({ config, readyTimeoutMs: 60_000 })));
  await secureVnet([a, b]);
  await reaches(a, "10.98.0.2");
}, 240_000 * timeFactor);
afterAll(() => lab.close());

async function page(host: Host): Promise<Map<string, number>> {
  const script = `import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:11798/metrics", timeout=60).read().decode(), end="")`;
  return samples((await host.exec(["python3", "-c", script])).stdout);
}

const of = (metrics: Map<string, number>, name: string, labels = ""): number =>
  metrics.get(`vnetd_${name}{vnet="${vnet}"${labels}}`) ?? NaN;

it(
  "keys, their age, and changes of keys",
  async () => {
    const before = await page(a);
    expect(of(before, "secure_paths", ',state="keyed"')).toBe(1);
    expect(of(before, "secure_paths", ',state="waiting"')).toBe(0);
    expect(of(before, "security_associations", ',direction="encap"')).toBe(1);
    expect(of(before, "security_associations", ',direction="decap"')).toBeGreaterThan(0);
    expect(of(before, "secure_vnet_changing")).toBe(0);
    const since = of(before, "keys_oldest_timestamp_seconds");
    expect(Date.now() / 1000 - since).toBeGreaterThan(-2);
    expect(Date.now() / 1000 - since).toBeLessThan(600 * timeFactor);
    expect(of(before, "key_agreements_total")).toBeGreaterThan(0);
    const rekeys = of(before, "rekeys_total");
    await ask(a, "rekey", {});
    await eventually(
      async () => {
        const now = await page(a);
        expect(of(now, "rekeys_total")).toBeGreaterThan(rekeys);
        expect(of(now, "key_agreements_total")).toBeGreaterThan(of(before, "key_agreements_total"));
        expect(of(now, "keys_oldest_timestamp_seconds")).toBeGreaterThan(since);
        return true;
      },
      { ...patience, what: "the change of keys, in the metrics" },
    );
    expect(of(await page(a), "frames_total", ',direction="encap"')).toBeGreaterThan(0);
  },
  240_000 * timeFactor,
);

it(
  "what the kernel refused: by the SA, and of no SA at all",
  async () => {
    const { stdout } = await a.exec("ip xfrm state");
    const spi = /src 10\.66\.1\.2 dst 10\.66\.1\.1\s+proto esp spi (0x[0-9a-f]+)/.exec(stdout)?.[1];
    expect(spi).toBeDefined();
    const unknown = (metrics: Map<string, number>): number =>
      metrics.get('vnetd_xfrm_errors_total{reason="XfrmInNoStates"}') ?? NaN;
    const before = await page(a);
    const forge = `import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
for n in range(5):
  s.sendto(struct.pack("!II", ${String(spi)}, 100000 + n) + bytes(96), ("10.66.1.1", 0))
  s.sendto(struct.pack("!II", 0x7fffff01, n + 1) + bytes(96), ("10.66.1.1", 0))`;
    await b.exec(["python3", "-c", forge]);
    await eventually(
      async () => {
        const now = await page(a);
        expect(of(now, "drops_total", ',direction="decap",reason="esp_integrity"')).toBe(5);
        expect(unknown(now)).toBeGreaterThanOrEqual(unknown(before) + 5);
        return true;
      },
      { ...patience, what: "the forged packets, in the metrics" },
    );
  },
  240_000 * timeFactor,
);
