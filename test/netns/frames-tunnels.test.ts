// SPDX-License-Identifier: Apache-2.0
/**
 * Tunnels inside a vnet: guests with VXLAN devices between them, guests that run vnetd themselves on
 * their vnet, and a container that a vnetif was moved into. TCP and UDP with segmentation offload pass,
 * and on the LAN below every packet fits and every header of every layer is right.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DropInfo, StatusInfo } from "../../src/api/contract.js";
import { Host, Lab, eventually, type Guest } from "../lib/lab.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import { superDatagrams, transfer } from "../lib/transfer.js";
import { addressVnet4, attachedHosts, longId, startDaemon } from "./world.js";

type Place = Guest | Host;
/** a sender is told once for each path and family; what was on its way by then is dropped as well */
const mostTold = 50;
let lab: Lab;
let hosts: [Host, Host];
let guests: [Guest, Guest];

async function drops(): Promise<DropInfo[]> {
  const all = await Promise.all(hosts.map((host) => host.vnetdJson<StatusInfo>(["status"])));
  return all.flatMap((status) => status.drops).filter(({ vnet }) => vnet === longId("97"));
}

/** Without the few whose sender was told what passes. */
const otherDrops = async (): Promise<DropInfo[]> =>
  (await drops()).filter(
    ({ direction, reason, frames }) =>
      direction !== "encap" || reason !== "too_big" || frames > mostTold,
  );

/** TCP both ways, one by each family, and UDP super-frames. The functions give the places' addresses, 1 and 2. */
async function carries(
  [from, to]: readonly [Place, Place],
  ipv4: (n: number) => string,
  ipv6: (n: number) => string,
): Promise<void> {
  for (const address of [ipv4(2), ipv6(2)]) {
    await eventually(async () => (await from.ping(address, { count: 1, waitMs: 300 })).lost === 0, {
      what: `${from.name} to reach ${address}`,
    });
  }
  await transfer(from, to, ipv4(2));
  await transfer(to, from, ipv6(1));
  for (const address of [ipv4(2), ipv6(2)]) {
    const datagrams = { segmentBytes: 1200, superBytes: 24_000, times: 10 };
    expect(await superDatagrams(from, to, address, datagrams)).toEqual(Array(200).fill("1200"));
  }
}

/** Of both guests' devices; of the ports on the hosts as well, which take no longer frames than that. */
async function setMtu(device: string, mtuBytes: number): Promise<void> {
  for (const guest of guests) {
    if (device === "eth0") await guest.host.exec(`ip link set ${guest.port} mtu ${mtuBytes}`);
    await guest.exec(`ip link set ${device} mtu ${mtuBytes}`);
  }
}

/** What crosses the LAN during a short transfer, taken apart by `open` to the innermost frame. */
async function crossing(
  [from, to]: readonly [Place, Place],
  address: string,
  open: (bytes: Buffer) => Buffer | undefined,
): Promise<ParsedFrame[]> {
  const capture = await hosts[1].capture("eth0", "udp port 1798");
  await transfer(from, to, address, 2_000_000);
  await capture.stop();
  return capture.packets.flatMap(({ data }) => {
    expect(data.length).toBeLessThanOrEqual(14 + 1500);
    const outer = parseFrame(data);
    if (outer.message?.kind !== "vudp") return [];
    const innermost = open(outer.message.frame);
    return innermost === undefined ? [] : [parseFrame(innermost)];
  });
}

/** Of a VXLAN packet, whose every layer the parser verifies. */
const openVxlan = (bytes: Buffer): Buffer | undefined => {
  const frame = parseFrame(bytes);
  return frame.udp?.dst === 4789 ? frame.payload.subarray(8) : undefined;
};
const openVnet = (bytes: Buffer): Buffer | undefined => {
  const { message } = parseFrame(bytes);
  return message?.kind === "vudp" ? message.frame : undefined;
};

describe.each([
  { name: "on a LAN at wire size, merged", wire: true, merge: "on" },
  { name: "on a LAN with offloads", wire: false, merge: "off" },
] as const)("$name", ({ wire, merge }) => {
  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { wire });
    hosts = (await attachedHosts(lab, ["a", "b"], { config: `merge: ${merge}\n` })) as [Host, Host];
    for (const host of hosts) {
      // as on a NIC that offers nothing: what is captured is what would be on a wire
      if (wire) await host.exec("ethtool -K eth0 tx off");
      await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
    }
    const guest = (host: Host, n: number): Promise<Guest> =>
      host.guest(`g${n}`, { bridge: "vnet97", address: [`10.9.0.${n}/24`, `fd09::${n}/64`] });
    guests = [await guest(hosts[0], 1), await guest(hosts[1], 2)];
  });
  afterAll(() => lab.close());

  it.each([
    { over: "IPv4", remote: (n: number) => `10.9.0.${n}`, id: 4 },
    { over: "IPv6", remote: (n: number) => `fd09::${n}`, id: 6 },
  ])("VXLAN over $over inside a vnet", async ({ remote, id }) => {
    for (const [at, guest] of guests.entries()) {
      const [own, other] = [at + 1, 2 - at];
      await guest.exec(
        `ip link add vx${id} type vxlan id ${id} local ${remote(own)} remote ${remote(other)} dstport 4789 && ` +
          `ip link set vx${id} mtu 1300 up && ip addr add 10.5${id}.0.${own}/24 dev vx${id} && ` +
          `ip addr add fd5${id}::${own}/64 dev vx${id} nodad`,
      );
    }
    await carries(
      guests,
      (n) => `10.5${id}.0.${n}`,
      (n) => `fd5${id}::${n}`,
    );
    expect(await drops()).toEqual([]);
    if (!wire) return;
    const frames = await crossing(guests, `10.5${id}.0.2`, openVxlan);
    expect(frames.filter((f) => (f.tcp && f.payload.length) ?? 0).length).toBeGreaterThan(500);
  });

  describe("whose packets are too large for the vnet", () => {
    beforeAll(() => setMtu("eth0", 1500));
    afterAll(async () => {
      for (const device of ["vx4", "vx6"]) await setMtu(device, 1300);
      await setMtu("eth0", 1400);
    });

    it("VXLAN over IPv4 crosses in fragments", async () => {
      await setMtu("vx4", 1450);
      await transfer(...guests, "10.54.0.2", 2_000_000);
      await transfer(...guests, "fd54::2", 2_000_000);
      expect(await drops()).toEqual([]);
    });

    it("of VXLAN over IPv6 the guest is told, and makes fragments itself", async () => {
      await setMtu("vx6", 1430);
      await transfer(...guests, "10.56.0.2", 2_000_000);
      await transfer(...guests, "fd56::2", 2_000_000);
      expect((await drops()).map(({ reason }) => reason)).toEqual(["too_big"]);
    });
  });

  it("a vnet on top of a vnet", async () => {
    const addresses = [(n: number) => `10.4.0.${n}`, (n: number) => `fd04::${n}`] as const;
    const inner = guests.map((guest, at) => new Host(lab, `inner${at}`, guest.netns)) as [
      Host,
      Host,
    ];
    for (const host of inner) {
      await startDaemon(host, { config: `merge: ${merge}\n` });
      await host.vnetd(["attach", "eth0"]);
    }
    await addressVnet4(inner, { families: [4, 6] });
    await carries(inner, ...addresses);
    expect(await otherDrops()).toEqual([]);
    // What the inner daemons send is then too large for the outer vnet, and may be fragmented; but where a hello has said
    // meanwhile that the other takes so much it may not, and they are told what passes.
    await setMtu("eth0", 1500);
    await eventually(
      async () =>
        (await inner[0].ip<{ mtu: number }[]>("link", "show", "vnif0004"))[0]?.mtu === 1436,
    );
    await carries(inner, ...addresses);
    await setMtu("eth0", 1400);
    expect(await otherDrops()).toEqual([]);
    if (!wire) return;
    const frames = await crossing(inner, "10.4.0.2", openVnet);
    expect(frames.filter((f) => (f.tcp && f.payload.length) ?? 0).length).toBeGreaterThan(500);
  });

  it("a container that the vnetif was moved into", async () => {
    const containers: Host[] = [];
    for (const [at, host] of hosts.entries()) {
      await host.vnetd(["vnet-create", "-v", "vnif98", "98"]);
      const container = new Host(lab, `c${at}`, await lab.namespace(`c${at}`));
      await host.exec(["ip", "link", "set", "vnif98", "netns", container.netns]);
      await container.exec(
        `ip link set vnif98 up && ip addr add 10.98.0.${at + 1}/24 dev vnif98 && ` +
          `ip addr add fd98::${at + 1}/64 dev vnif98 nodad`,
      );
      containers.push(container);
    }
    await carries(
      containers as [Host, Host],
      (n) => `10.98.0.${n}`,
      (n) => `fd98::${n}`,
    );
  });
});
