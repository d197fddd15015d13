// SPDX-License-Identifier: Apache-2.0
/**
 * Hosts of ours join a LAN of original vnet hosts (test/lib/original-model.mjs, which the golden
 * captures hold to what the real ones did). The originals record everything that they would have
 * refused; nothing of ours may be among it.
 *
 *   a, b: vnetd, 10.66.1.1 and .2      o1, o2: originals, 10.66.1.11 and .12, guests inside
 *   guest "g" behind a: 192.168.4.1, vnet 4
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { startOriginal, type OriginalHost } from "../lib/original.js";
import { packet } from "../lib/packet.js";
import { attachedHosts, startDaemon } from "./world.js";

const GUEST_MAC = "aa:00:00:00:04:01";
const GUEST_IP = "192.168.4.1";
const WIDE_IP = "192.168.4.3";
const O1 = { vnet: "4", mac: "aa:00:00:00:04:11", ip: "192.168.4.11" };
const O2 = { vnet: "4", mac: "aa:00:00:00:04:12", ip: "192.168.4.12" };
/** the same addresses on another vnet */
const O2_OTHER = { vnet: "97", mac: "aa:00:00:00:97:12", ip: "192.168.4.99" };

let lab: Lab;
let a: Host;
let b: Host;
let o1: OriginalHost;
let o2: OriginalHost;
let guest: Guest;
/** a guest of ours with an MTU of 1500, as originals' guests have; what they send fits no smaller port */
let wide: Guest;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  for (const host of [a, b]) await host.vnetd(["vnet-create", "-b", "br4", "4"]);
  guest = await a.guest("g", { bridge: "br4", address: `${GUEST_IP}/24`, mac: GUEST_MAC });
  // a bridge drops what is larger than the vnetif's MTU before anything of ours sees it
  await a.exec(["ip", "link", "set", "vnif0004", "mtu", "1500"]);
  wide = await a.guest("wide", { bridge: "br4", address: `${WIDE_IP}/24`, mtuBytes: 1500 });
  const first = await lab.host("o1", { underlay: "10.66.1.11/24" });
  const second = await lab.host("o2", { underlay: "10.66.1.12/24" });
  o1 = await startOriginal({ netns: first.netns, address: "10.66.1.11", guests: [O1] });
  o2 = await startOriginal({ netns: second.netns, address: "10.66.1.12", guests: [O2, O2_OTHER] });
});
afterAll(async () => {
  for (const host of [o1, o2] as (OriginalHost | undefined)[]) await host?.stop();
  await lab.close();
});

const placeOf = async (host: OriginalHost, mac: string): Promise<string | undefined> =>
  (await host.table()).find((entry) => entry.mac === mac)?.address;
const varpOf = async (host: Host, mac: string): Promise<string | undefined> =>
  (await host.vnetdJson<VarpEntry[]>(["varp"])).find((entry) => entry.vmac === mac)?.address;
const all = { received: 5, sent: 5, resolved: true };

describe("frames", () => {
  it("originals reach one another", async () => {
    expect(await o1.ping({ from: O1.ip, to: O2.ip, count: 5 })).toMatchObject(all);
  });

  it("an original's guest reaches ours, and learns where it is", async () => {
    expect(await o1.ping({ from: O1.ip, to: GUEST_IP, count: 5 })).toMatchObject(all);
    expect(await placeOf(o1, GUEST_MAC)).toBe("10.66.1.1");
    expect(await varpOf(a, O1.mac)).toBe("10.66.1.11");
  });

  it("our guest reaches an original's", async () => {
    expect(await guest.ping(O2.ip, { count: 5 })).toMatchObject({ lost: 0 });
    expect(await varpOf(a, O2.mac)).toBe("10.66.1.12");
    expect(await placeOf(o2, GUEST_MAC)).toBe("10.66.1.1");
  });

  it("frames as large as our guest's MTU", async () => {
    const sizeBytes = 1400 - 28;
    expect(await o1.ping({ from: O1.ip, to: GUEST_IP, count: 5, sizeBytes })).toMatchObject(all);
  });

  it("an original's frames of 1514 bytes, which cross in fragments", async () => {
    const sizeBytes = 1500 - 28;
    expect(await o1.ping({ from: O1.ip, to: WIDE_IP, count: 5, sizeBytes })).toMatchObject(all);
  });

  it("ours of 1514 bytes, in fragments both ways", async () => {
    const { stdout } = await wide.exec([
      "ping",
      "-M",
      "dont",
      "-c",
      "3",
      "-i",
      "0.1",
      "-s",
      "1472",
      O1.ip,
    ]);
    expect(stdout).toMatch(/ 0% packet loss/);
    // the original's stack has put fragments of ours together
    expect((await o1.stats()).kernel.IpReasmOKs).toBeGreaterThanOrEqual(3);
  });

  it("inner IP fragments, both ways", async () => {
    const { stdout } = await wide.exec(["ping", "-c", "3", "-i", "0.1", "-s", "2000", O1.ip]);
    expect(stdout).toMatch(/ 0% packet loss/);
    const large = { from: O1.ip, to: WIDE_IP, count: 5, sizeBytes: 2000 };
    expect(await o1.ping(large)).toMatchObject(all);
  });

  it("vnets are apart: the same addresses on another are not reached", async () => {
    expect(await o1.ping({ from: O1.ip, to: O2_OTHER.ip, count: 1 })).toMatchObject({
      resolved: false,
    });
    const tried = await guest.tryExec(["ping", "-c", "1", "-W", "1", O2_OTHER.ip]);
    expect(tried.code).not.toBe(0);
  });
});

describe("VARP", () => {
  it("a request is answered, and the original understands the announce", async () => {
    await o1.flush();
    const request = packet().varp({
      vnet: "4",
      vmac: GUEST_MAC,
      operation: 1,
      address: "10.66.1.11",
    });
    await o1.raw("224.10.0.1", request.build());
    await eventually(async () => (await placeOf(o1, GUEST_MAC)) === "10.66.1.1");
  });

  it("a new MAC is announced at once: originals know it before it has sent them a frame", async () => {
    const late = await a.guest("late", {
      bridge: "br4",
      address: "192.168.4.2/24",
      mac: "aa:00:00:00:04:02",
    });
    await late.tryExec(["ping", "-c", "1", "-W", "1", "192.168.4.200"]);
    await eventually(async () => (await placeOf(o2, "aa:00:00:00:04:02")) === "10.66.1.1");
  });

  it("a hello is a plain announce to an original: it enters the vnetif's MAC", async () => {
    const vnif = await a.mac("vnif0004");
    await o1.flush();
    await eventually(
      async () => {
        // asks again until the answer, or a hello, has come
        await o1.raw("10.66.1.1", packet().varp({ vnet: "4", vmac: vnif, operation: 1 }).build());
        return (await placeOf(o1, vnif)) === "10.66.1.1";
      },
      { what: "the vnetif's announce" },
    );
  });

  it("what an original announces by hand is believed", async () => {
    const message = packet().varp({ vnet: "4", vmac: "aa:00:00:00:04:77", address: "10.66.1.77" });
    await o2.raw("224.10.0.1", message.build());
    await eventually(async () => (await varpOf(a, "aa:00:00:00:04:77")) === "10.66.1.77");
  });
});

describe("what changes while an original's guest talks", () => {
  it("a guest that moves to another host of ours is followed", async () => {
    // it speaks, as guests do
    const talking = guest.startPing(O2.ip);
    const before = o1.ping({ from: O1.ip, to: GUEST_IP, count: 60, intervalMs: 50 });
    await guest.moveTo(b, "br4");
    await eventually(async () => (await placeOf(o1, GUEST_MAC)) === "10.66.1.2", {
      timeoutMs: 10_000,
    });
    await before;
    expect(await o1.ping({ from: O1.ip, to: GUEST_IP, count: 5 })).toMatchObject(all);
    await talking.stop();
    expect(await varpOf(a, GUEST_MAC)).toBe("10.66.1.2");
  });

  it("the daemon is killed: frames go on", async () => {
    const ping = o1.ping({ from: O1.ip, to: GUEST_IP, count: 60, intervalMs: 20 });
    await b.killDaemon("SIGKILL");
    expect(await ping).toMatchObject({ sent: 60, received: 60 });
    await startDaemon(b);
  });
});

it("nothing that we sent is anything that an original refuses", async () => {
  await o1.expectNothingRejected();
  await o2.expectNothingRejected();
  const { received, delivered } = await o1.stats();
  expect(received).toBeGreaterThan(100);
  expect(delivered).toBeGreaterThan(50);
});
