// SPDX-License-Identifier: Apache-2.0
/** What the daemon does about what the kernel says of SAs: src/controller/security/sa-watch.ts. */
import { describe, expect, it } from "vitest";
import { News } from "../../src/controller/news.js";
import { SaWatch } from "../../src/controller/security/sa-watch.js";
import { daemonConfigDefaults } from "../../src/config/daemon-config.js";
import type { EspSa } from "../../src/host/esp.js";

const spiIn = 0x1111;
const spiOut = 0x2222;

function sa(direction: "in" | "out", change: Partial<EspSa> = {}): EspSa {
  return {
    ...{ direction, spi: direction === "in" ? spiIn : spiOut, device: 2, nexthop: 7 },
    ...{ own: "10.66.1.1", peer: "10.66.1.2", packets: 0, bytes: 0 },
    ...{ addedSeconds: 0, usedSeconds: 0, replayErrors: 0, replayWindowErrors: 0 },
    integrityErrors: 0,
    ...change,
  };
}

/** One path with keys; what is done about it, after each look at these SAs. */
function world(looks: readonly (readonly EspSa[])[]): { did: string[]; drops: string[] } {
  const did: string[] = [];
  const drops: string[] = [];
  const config = daemonConfigDefaults();
  let now = looks[0] ?? [];
  const context = {
    config,
    log: { say: (event: string, text: string) => void (event === "sas_unread" && did.push(text)) },
    maps: {
      spi: () => ({ handle: 5 }),
      spis: () => new Map([[spiIn, {}]]),
      deleteSpi: (spi: number) => did.push(`forget ${spi.toString(16)}`),
    },
    news: new News(),
    control: { countDrop: ({ reason }: { reason: string }) => drops.push(reason) },
  };
  const watch = new SaWatch(context as never, { stats: () => now } as never);
  const path = {
    name: "b",
    path: {
      spiOut,
      spisIn: new Set([spiIn]),
      ends: { peer: "10.66.1.2" },
      nexthop: { nexthop: 7, gen: 1 },
    },
  };
  const secure = {
    vnet: { id: "98" },
    paths: () => [path],
    pruneLeftovers: () => undefined,
    trafficSeen: (_: unknown, spi: number) => did.push(`traffic ${spi.toString(16)}`),
    currentKeys: () => ({ spiIn }),
    renew: () => did.push("renew"),
    restart: () => did.push("restart"),
  };
  for (const [at, sas] of looks.entries()) {
    now = sas;
    watch.tick([secure as never], (at + 1) * 5000);
  }
  return { did, drops };
}

describe("a look at the SAs", () => {
  const { rekeyPackets, rekeyMegabytes } = daemonConfigDefaults().keys;

  it("leaves alone what works", () => {
    expect(world([[sa("in"), sa("out", { packets: rekeyPackets - 1 })]])).toEqual({
      did: [],
      drops: [],
    });
  });

  it("renews keys by volume, of packets and of bytes", () => {
    expect(world([[sa("in"), sa("out", { packets: rekeyPackets })]]).did).toEqual(["renew"]);
    const bytes = rekeyMegabytes * 2 ** 20;
    expect(world([[sa("in"), sa("out", { bytes })]]).did).toEqual(["renew"]);
    expect(world([[sa("in"), sa("out", { bytes: bytes - 1 })]]).did).toEqual([]);
  });

  it("begins anew when what is sent by is gone, and renews when what is received by is", () => {
    expect(world([[sa("in")]]).did).toEqual(["restart"]);
    expect(world([[sa("out")]]).did).toEqual([`forget ${spiIn.toString(16)}`, "renew"]);
  });

  it("says that traffic came", () => {
    expect(world([[sa("in", { packets: 1 }), sa("out")]]).did).toEqual([
      `traffic ${spiIn.toString(16)}`,
    ]);
  });

  it("counts replays and changed packets once, however many looks it takes", () => {
    const errors = { replayErrors: 2, replayWindowErrors: 1, integrityErrors: 1500 };
    const all = [sa("in", errors), sa("out")];
    const { drops } = world([all, all, all]);
    const of = (reason: string): number => drops.filter((each) => each === reason).length;
    expect([of("esp_replay"), of("esp_integrity")]).toEqual([3, 1500]);
  });
});
