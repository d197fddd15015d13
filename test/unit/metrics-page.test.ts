// SPDX-License-Identifier: Apache-2.0
/** What /metrics says: in Prometheus' format, of the moment of the scrape, every metric of the same one. */
import { describe, expect, it } from "vitest";
import { Counts } from "../../src/controller/counts.js";
import { xfrmErrors } from "../../src/host/xfrm-stat.js";
import { catalogue } from "../../src/metrics/catalogue.js";
import { family } from "../../src/metrics/exposition.js";
import { MetricsPage } from "../../src/metrics/page.js";
import { metricsSource, samples, vnetId } from "./lib/metrics.js";

describe("/metrics", () => {
  it("has every value at the first scrape, and frames and bytes in step at each", async () => {
    const page = new MetricsPage(metricsSource());
    let before = 0;
    for (let times = 0; times < 3; times++) {
      const values = samples(await page.text());
      const frames = values.get(`vnetd_frames_total{vnet="${vnetId}",direction="encap"}`) ?? NaN;
      expect(frames).toBeGreaterThan(before);
      before = frames;
      const of = (name: string, labels: string): number | undefined =>
        values.get(`vnetd_${name}{vnet="${vnetId}"${labels}}`);
      expect(of("bytes_total", ',direction="encap"')).toBe(100 * frames);
      expect(of("frames_total", ',direction="decap"')).toBe(2 * frames);
      expect(of("flooded_frames_total", "")).toBe(frames);
      expect(of("table_entries", ',place="remote"')).toBe(2);
    }
  });

  it("has every metric of the catalogue once, with its help, type and labels, and no other", async () => {
    const text = await new MetricsPage(metricsSource()).text();
    const lines = text.split("\n");
    const types = lines.flatMap(
      (line) => /^# TYPE (\S+) (\S+)$/.exec(line)?.slice(1, 3).join(" ") ?? [],
    );
    expect(types.sort()).toEqual(
      [...catalogue].map(([name, { type }]) => `${name} ${type}`).sort(),
    );
    for (const [name, { help, labels, type }] of catalogue) {
      expect(lines.filter((line) => line.startsWith(`# HELP ${name} `))).toEqual([
        `# HELP ${name} ${help}`,
      ]);
      const sample = lines.find((line) =>
        line.startsWith(type === "histogram" ? `${name}_sum` : name),
      );
      const found = [...(sample ?? "").matchAll(/(\w+)="/g)].map(([, label]) => label);
      expect(found, name).toEqual(labels);
    }
    // metric by metric: what belongs together stands together
    const order = lines.filter((line) => line !== "" && !line.startsWith("#"));
    const names = order.map((line) => /^\w+?(?=(_bucket|_sum|_count)?[{ ])/.exec(line)?.[0]);
    const runs = names.filter((name, at) => name !== names[at - 1]);
    expect(new Set(runs).size).toBe(runs.length);
  });

  it("sums what was not learned, and keeps vnets apart from what belongs to none", async () => {
    const values = samples(await new MetricsPage(metricsSource()).text());
    expect(values.get("vnetd_table_refused_total")).toBe(7);
    expect(values.get('vnetd_drops_total{vnet="",direction="decap",reason="unknown_vnet"}')).toBe(
      9,
    );
  });

  it("of a peer that was never heard, and of a vnet without keys, says no time", async () => {
    const values = samples(await new MetricsPage(metricsSource()).text());
    const times = [...values.keys()].filter((name) => name.includes("_timestamp_seconds{"));
    expect(times).toEqual([
      'vnetd_peer_last_heard_timestamp_seconds{peer="10.0.0.1"}',
      `vnetd_keys_oldest_timestamp_seconds{vnet="${vnetId}"}`,
    ]);
  });

  it("is made once for all who ask at the same time, and anew for who asks later", async () => {
    const source = metricsSource();
    const page = new MetricsPage(source);
    const [one, two] = await Promise.all([page.text(), page.text()]);
    expect(one).toBe(two);
    expect(source.taken).toBe(1);
    await page.text();
    expect(source.taken).toBe(2);
  });

  it("lets other things be done while it is made", async () => {
    const page = new MetricsPage(metricsSource());
    let others = 0;
    let done = false;
    const count = (): void => {
      others += 1;
      if (!done) setImmediate(count);
    };
    setImmediate(count);
    await page.text();
    done = true;
    expect(others).toBeGreaterThan(10);
  });

  it("is made again after it could not be made", async () => {
    const source = metricsSource();
    let broken = true;
    const page = new MetricsPage({
      layout: 1,
      snapshot: () => {
        if (broken) throw new Error("the map is gone");
        return source.snapshot();
      },
    });
    await expect(page.text()).rejects.toThrow("the map is gone");
    broken = false;
    expect(await page.text()).toContain("vnetd_build_info");
  });
});

describe("the text format", () => {
  it("escapes what a device's name may hold", () => {
    const info = { type: "gauge", labels: ["device"], help: "h" } as const;
    expect(family("m", info, (add) => add(1.5, 'a"b\\c\nd'))).toBe(
      '# HELP m h\n# TYPE m gauge\nm{device="a\\"b\\\\c\\nd"} 1.5\n',
    );
  });

  it("leaves out what has no lines", () => {
    expect(family("m", { type: "gauge", labels: [], help: "h" }, () => undefined)).toBe("");
  });
});

describe("what the daemon counts itself", () => {
  it("of a message the first verdict counts; one that nothing is said of was taken", () => {
    const counts = new Counts();
    counts.message("hello", () => {
      counts.judged("varp_rate");
      counts.judged("varp_local");
    });
    counts.message("hello", () => undefined);
    counts.message("hello", () => undefined);
    expect(() =>
      counts.message("request", () => {
        throw new Error("broken");
      }),
    ).toThrow("broken");
    expect(counts.received.rows()).toEqual([
      { words: ["hello", "varp_rate"], count: 1 },
      { words: ["hello", "taken"], count: 2 },
      { words: ["request", "error"], count: 1 },
    ]);
  });

  it("a configuration that was refused leaves the time of the one that is in use", () => {
    const counts = new Counts();
    const { takenSeconds } = counts.config;
    counts.reloaded(false);
    expect(counts.config).toEqual({ ok: false, takenSeconds });
    counts.reloaded(true);
    expect(counts.config.ok).toBe(true);
    expect(counts.reloads.rows().map(({ words: [word] }) => word)).toEqual(["refused", "ok"]);
  });
});

it("the kernel's IPsec errors are read as they stand, and none where it does not count", () => {
  const text = "XfrmInError             \t0\nXfrmInNoStates          \t12\nsomething else\n";
  expect(xfrmErrors(() => text)).toEqual([
    { name: "XfrmInError", count: 0 },
    { name: "XfrmInNoStates", count: 12 },
  ]);
  expect(
    xfrmErrors(() => {
      throw new Error("ENOENT");
    }),
  ).toEqual([]);
});
