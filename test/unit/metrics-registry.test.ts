// SPDX-License-Identifier: Apache-2.0
/** What /metrics says is of the moment of the scrape, every metric of the same one. */
import { describe, expect, it } from "vitest";
import type { VnetState } from "../../src/api/contract.js";
import { createRegistry } from "../../src/metrics/registry.js";

const id = "0000:0000:0000:0000:0000:0000:0000:0097";

/** A host whose counters grow with each reading, as under traffic: frames of 100 bytes. */
function busySource(): Parameters<typeof createRegistry>[0] {
  let frames = 0;
  const vnets = (): VnetState[] => {
    frames += 5;
    const traffic = {
      encapFrames: frames,
      encapBytes: frames * 100,
      decapFrames: 2 * frames,
      decapBytes: 200 * frames,
      floodedFrames: frames,
      floodedBytes: 100 * frames,
    };
    return [{ id, entries: 3, traffic } as unknown as VnetState];
  };
  return {
    layout: 1,
    drops: () => [],
    vnets,
    tableLimit: () => 10,
    hosts: () => 0,
    attached: () => [],
    secure: () => ({ vnets: 2, paths: 5, keyed: 4, changing: 1 }),
    troubles: () => ({ loops: 0, duplicates: 0 }),
  };
}

async function scrape(registry: ReturnType<typeof createRegistry>): Promise<Map<string, number>> {
  const lines = (await registry.metrics()).split("\n").filter((line) => !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(" ");
      return [line.slice(0, at).replace(`vnet="${id}"`, "V"), Number(line.slice(at + 1))];
    }),
  );
}

describe("/metrics", () => {
  it("says for how many paths of secure vnets there are keys", async () => {
    const values = await scrape(createRegistry(busySource()));
    expect(values.get("vnetd_secure_paths")).toBe(5);
    expect(values.get("vnetd_secure_paths_keyed")).toBe(4);
    expect(values.get("vnetd_secure_vnets_changing")).toBe(1);
  });

  it("has every value at the first scrape, and frames and bytes in step at each", async () => {
    const registry = createRegistry(busySource());
    let before = 0;
    for (let times = 0; times < 3; times++) {
      const values = await scrape(registry);
      const frames = values.get('vnetd_frames_total{V,direction="encap"}') ?? NaN;
      expect(frames).toBeGreaterThan(before);
      before = frames;
      expect(values.get('vnetd_bytes_total{V,direction="encap"}')).toBe(100 * frames);
      expect(values.get('vnetd_frames_total{V,direction="decap"}')).toBe(2 * frames);
      expect(values.get('vnetd_bytes_total{V,direction="decap"}')).toBe(200 * frames);
      expect(values.get("vnetd_flooded_frames_total{V}")).toBe(frames);
      expect(values.get("vnetd_table_entries{V}")).toBe(3);
    }
  });
});
