// SPDX-License-Identifier: Apache-2.0
/**
 * Groups of vnets' own, with real daemons on a switch that snoops: who does not have the vnet hears nothing of it. Hosts that
 * have no group or another one lose nothing, and are named. IPv4 and IPv6.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VnetInfo } from "../../src/api/contract.js";
import type { Family } from "../../src/base/address.js";
import { Lab, eventually, type Capture, type Guest, type Host } from "../lib/lab.js";
import { attachedDaemon, longId, startDaemon } from "./world.js";

const DEFAULT = { 4: "224.10.0.1", 6: "ff12::8000:706" } as const;
const OWN = { 4: "239.66.0.97", 6: "ff15::66:97" } as const;
const OTHER = { 4: "239.66.1.97", 6: "ff15::67:97" } as const;
const key = (family: Family): "group" | "group6" => (family === 4 ? "group" : "group6");
const config = (family: Family): string => `helloSeconds: 1\nunderlay: ipv${String(family)}\n`;

/** groups whose packets the kernel asks the switch for */
const joined = async (host: Host): Promise<string[]> => {
  const links = await host.ip<{ maddr: { address?: string }[] }[]>("maddr", "show", "dev", "eth0");
  return links.flatMap(({ maddr }) => maddr.flatMap(({ address }) => address ?? []));
};
const statusOf = async (host: Host): Promise<StatusInfo> =>
  JSON.parse((await host.vnetd(["--json", "status"])).stdout) as StatusInfo;
const differs = async (host: Host): Promise<string[]> =>
  (await statusOf(host)).problems.filter((text) => text.includes("its group here is"));

/** Waits until a guest's broadcasts leave for a group. */
async function sendsTo(from: Guest, at: Host, group: string): Promise<void> {
  const toAll = async (): Promise<boolean> => {
    const capture = await at.capture("eth0", `dst host ${group} and (udp or proto 97)`);
    await from.tryExec("ping -c 1 -W 0.05 10.0.0.222");
    await capture.stop();
    return capture.packets.some(({ data }) => data.includes(broadcastArp));
  };
  await eventually(toAll, { what: `frames to ${group}`, timeoutMs: 20_000 });
}
/** EtherType and begin of an ARP request */
const broadcastArp = Buffer.from("08060001080006040001", "hex");

/** One frame in vnet 97, from a MAC that nobody has: (address) */
const originalFrame = `
import socket, sys
frame = bytes.fromhex("ffffffffffff" + "020000000097" + "88b5") + b"x" * 46
message = bytes.fromhex("000200000040" + "00" * 15 + "97") + frame
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(message, (sys.argv[1], 1798))
`;

describe.each([4, 6] as const)("IPv%d", (family) => {
  let lab: Lab;
  let a: Host;
  let b: Host;
  let c: Host;
  let guestA: Guest;
  let guestB: Guest;
  const address = (n: number): string => (family === 4 ? `10.66.1.${n}/24` : `fd66::${n}/64`);
  const create = (host: Host, id: string, group?: string): Promise<unknown> =>
    host.vnetd(["vnet-create", ...(group === undefined ? [] : [`--${key(family)}`, group]), id]);

  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { snooping: true });
    [a, b, c] = (await Promise.all(
      ["a", "b", "c"].map((name, at) => lab.host(name, { underlay: address(at + 1) })),
    )) as [Host, Host, Host];
    for (const host of [a, b, c]) await attachedDaemon(host, { config: config(family) });
    for (const host of [a, b]) await create(host, "97", OWN[family]);
    guestA = await a.guest("guest-a", { bridge: "vnet0097", address: "10.0.0.1/16" });
    guestB = await b.guest("guest-b", { bridge: "vnet0097", address: "10.0.0.2/16" });
  });
  afterAll(() => lab.close());

  it("is shown, and joined where the vnet is", async () => {
    const [info] = JSON.parse((await a.vnetd(["--json", "vnet-list", "97"])).stdout) as VnetInfo[];
    expect(info).toMatchObject({ id: longId("97"), [key(family)]: OWN[family] });
    expect((await a.vnetd(["vnet-list", "97"])).stdout).toContain(OWN[family]);
    expect(await joined(a)).toEqual(expect.arrayContaining([DEFAULT[family], OWN[family]]));
    expect(await joined(c)).not.toContain(OWN[family]);
  });

  let round = 0;
  /** how many broadcasts reach a host's device, of 20 that a guest of host a sends and host b gets */
  async function hears(host: Host, from = guestA): Promise<number> {
    const capture = await host.capture("eth0", "udp port 1798");
    const other = await b.capture("eth0", "udp port 1798");
    // others each time: for those that were just asked for the guest waits
    round += 1;
    await from.tryExec(`for n in $(seq 20); do ping -c 1 -W 0.02 10.0.${round}.$n; done`);
    await other.stop();
    await capture.stop();
    expect(arpsIn(other)).toBeGreaterThanOrEqual(20);
    return arpsIn(capture);
  }
  const arpsIn = ({ packets }: Capture): number =>
    packets.filter(({ data }) => data.includes(broadcastArp)).length;

  it("a host without the vnet hears no frame of it", async () => {
    await sendsTo(guestA, a, OWN[family]);
    expect(await hears(c)).toBe(0);
    const pings = await guestA.ping("10.0.0.2", { count: 3, intervalMs: 20 });
    expect(pings).toMatchObject({ lost: 0, duplicates: 0 });
  });

  it("and of a vnet without a group it hears all", async () => {
    for (const host of [a, b]) await create(host, "98");
    const guest = await a.guest("guest-98", { bridge: "vnet0098", address: "10.0.0.1/16" });
    await sendsTo(guest, a, DEFAULT[family]);
    expect(await hears(c, guest)).toBeGreaterThanOrEqual(20);
    for (const host of [a, b]) await host.vnetd(["vnet-delete", "98"]);
  });

  it("the daemon is killed: frames and membership go on, and a new one changes nothing", async () => {
    await a.killDaemon();
    expect(await joined(a)).toContain(OWN[family]);
    expect(await hears(c)).toBe(0);
    const back = await guestB.ping("10.0.0.1", { count: 3, intervalMs: 20 });
    expect(back).toMatchObject({ lost: 0 });
    await startDaemon(a, { config: config(family) });
    expect(await joined(a)).toContain(OWN[family]);
    await sendsTo(guestA, a, OWN[family]);
    expect(await hears(c)).toBe(0);
  });

  it("membership comes back with the device", async () => {
    await a.exec("ip link set eth0 down");
    await a.exec("ip link set eth0 up");
    // the kernel takes IPv6 addresses away with the link
    if (family === 6) await a.exec(`ip addr add ${address(1)} dev eth0 nodad`);
    await eventually(async () => (await joined(a)).includes(OWN[family]), { what: "to be joined" });
    await eventually(
      async () => (await guestB.ping("10.0.0.1", { count: 1, intervalMs: 20 })).lost === 0,
      { what: "to reach the guest again" },
    );
    expect((await statusOf(a)).problems).toEqual([]);
  });

  it("a host that has no group for the vnet loses nothing, is told, and so are the others", async () => {
    await create(c, "97");
    const guestC = await c.guest("guest-c", { bridge: "vnet0097", address: "10.0.0.3/24" });
    await eventually(
      async () => (await Promise.all([a, b, c].map(differs))).every((texts) => texts.length === 1),
      { what: "all to say it" },
    );
    expect((await differs(c))[0]).toContain("its group here is none, and ");
    expect((await differs(a))[0]).toContain(`its group here is ${OWN[family]}, and `);
    expect((await differs(a))[0]).toContain(`(${address(3).split("/")[0]!}) has none`);
    await sendsTo(guestA, a, DEFAULT[family]);
    for (const guest of [guestA, guestB])
      expect(await guest.ping("10.0.0.3", { count: 2, intervalMs: 20 })).toMatchObject({ lost: 0 });
    await guestC.exec("ip neigh flush all");
    expect(await guestC.ping("10.0.0.2", { count: 2, intervalMs: 20 })).toMatchObject({ lost: 0 });
    expect(
      (await a.vnetd(["doctor"]).catch((error: unknown) => ({ stdout: String(error) }))).stdout,
    ).toContain("its group here is");
  });

  it("it gets the same by apply, with its guest's traffic going on", async () => {
    const directory = c.lab.file("d", "").replace(/[^/]*$/u, "vnets-c");
    await c.exec(
      `mkdir -p ${directory} && echo "{id: 97, ${key(family)}: '${OWN[family]}'}" > ${directory}/97.yaml`,
    );
    const pings = guestA.startPing("10.0.0.3", { intervalMs: 20 });
    const { stdout } = await c.vnetd(["apply", directory]);
    expect(stdout).toContain(OWN[family]);
    await eventually(
      async () => (await Promise.all([a, b, c].map(differs))).every((texts) => texts.length === 0),
      { what: "nobody to differ" },
    );
    await sendsTo(guestA, a, OWN[family]);
    expect((await pings.stop()).lost).toBe(0);
  });

  it("another group on one host: told, and nothing is lost", async () => {
    const directory = c.lab.file("d", "").replace(/[^/]*$/u, "vnets-c");
    await c.exec(`echo "{id: 97, ${key(family)}: '${OTHER[family]}'}" > ${directory}/97.yaml`);
    await c.vnetd(["apply", directory]);
    await eventually(async () => (await differs(a)).length === 1, { what: "a to say it" });
    expect((await differs(a))[0]).toContain(`has ${OTHER[family]}`);
    const groups = await joined(c);
    expect(groups).toContain(OTHER[family]);
    expect(groups).not.toContain(OWN[family]);
    await guestA.exec("ip neigh flush all");
    expect(await guestA.ping("10.0.0.3", { count: 2, intervalMs: 20 })).toMatchObject({ lost: 0 });
  });

  it("deleted, the vnet's group is left", async () => {
    await c.vnetd(["vnet-delete", "97"]);
    expect(await joined(c)).not.toContain(OTHER[family]);
    expect(await joined(c)).toContain(DEFAULT[family]);
    await eventually(async () => (await differs(a)).length === 0, { what: "c to be gone" });
    await sendsTo(guestA, a, OWN[family]);
    // the switch asks whether there are other members behind that port, and waits
    await eventually(async () => (await hears(c)) === 0, { what: "nothing to be heard" });
  });

  it("two vnets share a group: it is left with the second", async () => {
    await create(a, "99", OWN[family]);
    await a.vnetd(["vnet-delete", "99"]);
    expect(await joined(a)).toContain(OWN[family]);
  });

  it("thirty vnets with a group each, more than the kernel's default lets a socket join", async () => {
    const groups = Array.from({ length: 30 }, (_, n) =>
      family === 4 ? `239.77.0.${n + 1}` : `ff15::77:${(n + 1).toString(16)}`,
    );
    const text = groups
      .map((group, n) => `{id: ${(0x100 + n).toString(16)}, ${key(family)}: '${group}'}`)
      .map((each) => `- ${each}\n`)
      .join("");
    await c.vnetd(["vnet-create", c.lab.file("many.yaml", text)]);
    expect(await joined(c)).toEqual(expect.arrayContaining(groups));
    expect((await statusOf(c)).problems).toEqual([]);
  });

  it("detached, the device is a member of none of them", async () => {
    await c.vnetd(["detach", "eth0"]);
    const left = (await joined(c)).filter((each) => /^(239|224\.10|ff1)/u.test(each));
    expect(left).toEqual([]);
  });

  it("a host that says no hello, as an original, is heard: all goes to the default group", async () => {
    await sendsTo(guestA, a, OWN[family]);
    await c.exec(["python3", "-c", originalFrame, address(1).split("/")[0]!]);
    await sendsTo(guestA, a, DEFAULT[family]);
    // and it is no mistake
    expect(await differs(a)).toEqual([]);
  });

  it("refuses what is no vnet's group, and says why", async () => {
    const bad = family === 4 ? "224.0.0.251" : "ff02::1";
    const result = await b.tryVnetd(["vnet-create", `--${key(family)}`, bad, "9a"]);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(family === 4 ? /for control/u : /assigned/u);
    const secure = ["-s", "conf", `--${key(family)}`, OWN[family], "9a"];
    expect((await b.tryVnetd(["vnet-create", ...secure])).stderr).toContain("has no group");
  });
});
