// SPDX-License-Identifier: Apache-2.0
/** The lab itself: what the other tests rely on, with plain bridges and no vnetd. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Capture, Lab, eventually, run, tryRun, type Guest, type Host } from "../lib/lab.js";

let lab: Lab;
let a: Host;
let b: Host;

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  b = await lab.host("b", { underlay: { lan0: "10.66.1.2/24", lan1: "10.66.2.2/24" } });
  for (const host of [a, b]) {
    await host.exec("ip link add br0 type bridge forward_delay 0 && ip link set br0 up");
  }
});
afterAll(() => lab.close());

describe("hosts", () => {
  it("reach one another over the LAN", async () => {
    const result = await a.ping("10.66.1.2", { count: 2, intervalMs: 10 });
    expect(result).toMatchObject({
      sent: 2,
      received: 2,
      lost: 0,
      duplicates: 0,
      responders: ["10.66.1.2"],
    });
    expect(result.sequences).toEqual([1, 2]);
  });

  it("have a device for each LAN", async () => {
    const links = await b.ip<{ ifname: string }[]>("link", "show");
    expect(links.map((link) => link.ifname)).toEqual(expect.arrayContaining(["eth0", "eth1"]));
  });

  it("report what is lost", async () => {
    const result = await a.ping("10.66.1.99", { count: 1, waitMs: 100 });
    expect(result).toMatchObject({ sent: 1, received: 0, lost: 1 });
  });
});

describe("guests", () => {
  let one: Guest;
  let two: Guest;

  beforeAll(async () => {
    one = await a.guest("one", {
      bridge: "br0",
      address: ["10.0.0.1/24", "fd00::1/64"],
      mac: "02:00:00:00:00:01",
    });
    two = await a.guest("two", { bridge: "br0", address: ["10.0.0.2/24", "fd00::2/64"] });
  });

  it("reach one another over a bridge, by IPv4 and IPv6", async () => {
    expect(await one.mac()).toBe("02:00:00:00:00:01");
    expect((await one.ping("10.0.0.2", { count: 1 })).lost).toBe(0);
    expect((await one.ping("fd00::2", { count: 1 })).responders).toEqual(["fd00::2"]);
  });

  it("are seen by a capture", async () => {
    const capture = await Capture.start(a, "br0", "icmp and src host 10.0.0.1");
    await one.ping("10.0.0.2", { count: 2, intervalMs: 10 });
    await eventually(() => capture.packets.length === 2, { what: "two packets" });
    expect((await capture.stop()).length).toBe(24 + 2 * (16 + 98));
  });

  it("carry TCP and UDP", async () => {
    const tcp = await one.iperf3(two, { address: "10.0.0.2", seconds: 1 });
    expect(tcp.bitsPerSecond).toBeGreaterThan(1e6);
    const udp = await one.iperf3(two, {
      address: "10.0.0.2",
      seconds: 1,
      udp: true,
      bitrate: "5M",
      lengthBytes: 500,
    });
    expect(udp.packets).toBeGreaterThan(10);
  });

  it("move to another host, address and MAC with them", async () => {
    const three = await b.guest("three", { bridge: "br0", address: "10.0.0.3/24" });
    expect((await two.ping("10.0.0.3", { count: 1, waitMs: 50 })).received).toBe(0);
    const pinging = three.startPing("10.0.0.2", { intervalMs: 20 });
    await two.moveTo(b, "br0");
    await eventually(() => pinging.answers > 2, { what: "answers after the move" });
    const result = await pinging.stop();
    expect(result.sent).toBeGreaterThanOrEqual(result.received);
    expect(two.host).toBe(b);
  });
});

describe("cleaning up", () => {
  it("takes everything away, running programs too", async () => {
    const other = await Lab.create();
    const host = await other.host("x", { underlay: "10.66.1.1/24" });
    const sleeper = host.spawn(["sleep", "1000"]);
    await run(["mkdir", host.bpffs]);
    await other.close();
    expect(sleeper.code).toBe(137);
    const left = await tryRun(
      `ls -d /run/netns/${other.prefix}* ${host.bpffs} ${other.directory} 2>/dev/null`,
    );
    expect(left.stdout).toBe("");
  });

  it("clears what a process that was killed left behind, and nothing of those that live", async () => {
    await run(["ip", "netns", "add", "vt-999999999-1-1-dead"]);
    const other = await Lab.create();
    const { stdout } = await run(["ip", "netns", "list"]);
    expect(stdout).not.toContain("vt-999999999");
    expect(stdout).toContain(`${lab.prefix}a`);
    await other.close();
  });
});
