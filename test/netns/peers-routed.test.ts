// SPDX-License-Identifier: Apache-2.0
/**
 * Two subnets with a router between them that forwards no multicast, and a peer on each; over IPv4,
 * and over IPv6 with hosts that have nothing else.
 *
 *   10.66.1.0/24   a (peer of b), c          10.66.2.0/24   b (peer of a), d
 *   fd66:0:0:1::/64                          fd66:0:0:2::/64
 *   a guest behind each: 10.4.0.1 (a), .2 (b), .3 (c), .4 (d), vnet 4
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo, PeerInfo, StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import {
  quickHello,
  routedHost,
  routedSubnets,
  startDaemon,
  timesHeard,
  underlayAddress,
} from "./world.js";

const DATAGRAMS = 20;
/** (first number, count): datagrams of 1300 bytes for all that begin with their numbers, as one (UDP_SEGMENT) */
const sendAtOnce = `
import socket, sys
first, count = int(sys.argv[1]), int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.setsockopt(17, 103, 1300)
s.sendto(b"".join((first + n).to_bytes(4, "big") + bytes(1296) for n in range(count)), ("10.4.0.255", 7778))
`;
/** says the numbers of datagrams of the right length */
const receive = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7778))
print("listening", flush=True)
while True:
    data = s.recv(65536)
    assert len(data) == 1300, len(data)
    print("got", int.from_bytes(data[:4], "big"), flush=True)
`;
const range = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, n) => first + n);

describe.each([4, 6] as const)("over IPv%d", (family) => {
  let lab: Lab;
  let a: Host;
  let b: Host;
  let c: Host;
  let d: Host;
  let hosts: Host[];
  const guests: Guest[] = [];

  const at = (subnet: number, number: number): string => underlayAddress(family, subnet, number);
  const pattern = (address: string): string => address.replaceAll(".", "\\.");

  /** VFWD around VUDP around an ICMP packet: 32 or 52 bytes, 22 and 14 from the UDP payload on */
  const FORWARDED_ECHO =
    family === 4
      ? "udp port 1798 and udp[8:2] = 3 and udp[74:2] = 0x0800 and udp[85] = 1"
      : "udp port 1798 and ip6[48:2] = 3 and ip6[134:2] = 0x0800 and ip6[145] = 1";
  const FORWARDED = `udp port 1798 and ${family === 4 ? "udp[8:2]" : "ip6[48:2]"} = 3`;
  const macOf = (number: number): string => `aa:00:00:00:04:0${number}`;
  const ipOf = (number: number): string => `10.4.0.${number}`;

  beforeAll(async () => {
    lab = await Lab.create();
    const families = [family];
    await routedSubnets(lab, 2, families);
    a = await routedHost(lab, "a", { subnet: 1, number: 1, families });
    c = await routedHost(lab, "c", { subnet: 1, number: 3, families });
    b = await routedHost(lab, "b", { subnet: 2, number: 1, families });
    d = await routedHost(lab, "d", { subnet: 2, number: 3, families });
    hosts = [a, b, c, d];
    for (const [at, host] of hosts.entries()) {
      await startDaemon(host, { config: quickHello });
      await host.vnetd(["attach", "eth0"]);
      await host.vnetd(["vnet-create", "-b", "br4", "4"]);
      const number = at + 1;
      guests.push(
        await host.guest(`g${number}`, {
          bridge: "br4",
          address: `${ipOf(number)}/24`,
          mac: macOf(number),
          mtuBytes: 1500,
        }),
      );
    }
    await a.vnetd(["peer-add", at(2, 1)]);
    await b.vnetd(["peer-add", at(1, 1)]);
  }, 120_000);
  afterAll(() => lab.close());

  const heardOnce = (from: number, target: string): Promise<number[]> =>
    timesHeard(guests, from - 1, target);

  const place = async (host: Host, mac: string): Promise<string | undefined> =>
    (await host.vnetdJson<VarpEntry[]>(["varp"])).find((entry) => entry.vmac === mac)?.address;

  describe("frames", () => {
    it("guests reach one another, whichever subnet they are on", async () => {
      for (const from of [1, 2, 3, 4]) {
        for (const to of [1, 2, 3, 4]) {
          if (from === to) continue;
          const ping = await guests[from - 1]!.ping(ipOf(to), { count: 2, intervalMs: 50 });
          expect(ping, `${from} to ${to}`).toMatchObject({ lost: 0, duplicates: 0 });
        }
      }
    });

    it("unicast goes straight to the host, not by the forwarders", async () => {
      expect(await place(c, macOf(4))).toBe(at(2, 3));
      expect(await place(d, macOf(3))).toBe(at(1, 3));
      const vfwd = await a.capture("eth0", FORWARDED_ECHO);
      expect(await guests[2]!.ping(ipOf(4), { count: 5, intervalMs: 20 })).toMatchObject({
        lost: 0,
      });
      await vfwd.stop();
      expect(vfwd.packets).toHaveLength(0);
    });

    it("every guest hears each broadcast once", async () => {
      for (const from of [1, 2, 3, 4]) {
        expect(await heardOnce(from, `10.4.0.20${from}`)).toEqual([1, 1, 1, 1]);
      }
    });

    it.each([
      ["with VFWD alone", family === 4 ? 1380 : 1372],
      ["to the group as well", 1472],
    ])("a broadcast too large for one packet %s is carried, in fragments", async (_what, bytes) => {
      const heard = await Promise.all(guests.map((each) => each.capture("eth0", "udp port 7777")));
      await guests[2]!.exec([
        "python3",
        "-c",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); " +
          "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); " +
          `s.sendto(bytes(${bytes}), ('10.4.0.255', 7777))`,
      ]);
      await eventually(() => heard.every(({ packets }) => packets.length > 0), {
        what: "the large broadcast",
      });
      for (const each of heard) await each.stop();
      expect(heard.map(({ packets }) => packets.length)).toEqual([1, 1, 1, 1]);
    });

    it("frames of 1500 bytes and TCP cross as well", async () => {
      const { stdout } = await guests[2]!.exec(`ping -M dont -c 3 -i 0.05 -W 2 -s 1472 ${ipOf(4)}`);
      expect(stdout).toMatch(/3 received/);
      const { bytes } = await guests[2]!.iperf3(guests[3]!, { address: ipOf(4), seconds: 1 });
      expect(bytes).toBeGreaterThan(1e6);
    });

    it("super-frames for all are segmented before VFWD, and every datagram arrives once", async () => {
      const forwarded = await b.capture("eth0", `${FORWARDED} and greater 1300`);
      const left = await guests[0]!.capture("eth0", "udp dst port 7778");
      const receivers = guests.map((guest) => guest.spawn(["python3", "-c", receive]));
      for (const receiver of receivers) await receiver.output(/listening/);
      const numbers = receivers.map(
        (receiver, at) => (): number[] =>
          [...receiver.stdout.matchAll(/^got (\d+)$/gm)]
            .map(([, number]) => Number(number))
            // a guest hears itself
            .filter((number) => Math.floor(number / 100) !== at)
            .sort((x, y) => x - y),
      );
      // from a, which forwards what it sends itself, and from c, which a hears on the group
      for (const at of [0, 2]) {
        await guests[at]!.exec(["python3", "-c", sendAtOnce, String(100 * at), String(DATAGRAMS)]);
        await eventually(
          () => numbers.every((of, to) => to === at || of().includes(100 * at + DATAGRAMS - 1)),
          { what: `the datagrams of guest ${at + 1}` },
        );
      }
      // behind whatever comes twice
      await guests[1]!.exec(["python3", "-c", sendAtOnce, "100", "1"]);
      await eventually(() => numbers.every((of, to) => to === 1 || of().includes(100)), {
        what: "the last datagram",
      });
      const sentBy = [range(0, DATAGRAMS), range(100, 1), range(200, DATAGRAMS), []];
      for (const [to, of] of numbers.entries())
        expect(of(), `guest ${to + 1}`).toEqual(sentBy.filter((_, at) => at !== to).flat());
      await eventually(() => forwarded.packets.length >= 2 * DATAGRAMS, { what: "VFWD" });
      for (const each of [forwarded, left]) await each.stop();
      // the guest's device took them as one, and none of VFWD is larger than the underlay's MTU
      expect(left.packets.some(({ wireLength }) => wireLength > 1300 * DATAGRAMS)).toBe(true);
      for (const { wireLength } of forwarded.packets) expect(wireLength).toBeLessThanOrEqual(1514);
      for (const receiver of receivers) await receiver.stop("SIGKILL");
    });

    it("a guest moves to the other subnet and is followed", async () => {
      const ping = guests[1]!.startPing(ipOf(3), { intervalMs: 20 });
      await guests[2]!.moveTo(d, "br4");
      const talking = guests[2]!.startPing(ipOf(2), { intervalMs: 100 });
      for (const host of [a, b])
        await eventually(async () => (await place(host, macOf(3))) === at(2, 3), {
          timeoutMs: 10_000,
        });
      await talking.stop();
      await ping.stop();
      expect(await guests[1]!.ping(ipOf(3), { count: 3, intervalMs: 50 })).toMatchObject({
        lost: 0,
      });
      await guests[2]!.moveTo(c, "br4");
      await guests[2]!.ping(ipOf(1), { count: 1 });
    });
  });

  describe("what is known", () => {
    it("hosts of both subnets know one another", async () => {
      await eventually(async () => {
        for (const host of hosts) {
          if ((await host.vnetdJson<HostInfo[]>(["hosts"])).length !== 3) return false;
        }
        return true;
      });
    });

    it("`peers` shows the way, and when it was heard", async () => {
      await eventually(async () => {
        const [peer] = await a.vnetdJson<PeerInfo[]>(["peers"]);
        return peer?.addresses[0]?.heardSeconds !== null;
      });
      const [peer] = await a.vnetdJson<PeerInfo[]>(["peers"]);
      expect(peer).toMatchObject({
        peer: at(2, 1),
        port: 1798,
        problem: "",
        addresses: [{ address: at(2, 1), device: "eth0", way: "vfwd", problem: "" }],
      });
      expect(peer!.addresses[0]!.sentFrames).toBeGreaterThan(0);
      expect(peer!.addresses[0]!.heardFrames).toBeGreaterThan(0);
      expect((await a.vnetd(["peers"])).stdout).toMatch(
        new RegExp(`${pattern(at(2, 1))} +1798 .*eth0 +vfwd`),
      );
      const { attached, problems } = await a.vnetdJson<StatusInfo>(["status"]);
      expect(attached[0]).toMatchObject({ groupWay: "multicast" });
      expect(problems).toEqual([]);
    });
  });

  describe("without daemons", () => {
    it("forwarding goes on, both ways", async () => {
      for (const host of [a, b]) await host.killDaemon("SIGKILL");
      for (const guest of guests) await guest.exec("ip neigh flush dev eth0");
      // nothing is known of these MACs any more either
      for (const host of [c, d]) await host.vnetd(["varp-flush"]);
      expect(await guests[2]!.ping(ipOf(4), { count: 3, intervalMs: 50 })).toMatchObject({
        lost: 0,
      });
      expect(await guests[3]!.ping(ipOf(1), { count: 3, intervalMs: 50 })).toMatchObject({
        lost: 0,
      });
      expect(await heardOnce(1, "10.4.0.211")).toEqual([1, 1, 1, 1]);
      expect(await heardOnce(4, "10.4.0.212")).toEqual([1, 1, 1, 1]);
    });

    it("peers come back with the daemon", async () => {
      for (const host of [a, b]) await startDaemon(host, { config: quickHello });
      expect((await a.vnetdJson<PeerInfo[]>(["peers"])).map(({ peer }) => peer)).toEqual([
        at(2, 1),
      ]);
      expect(await heardOnce(3, "10.4.0.213")).toEqual([1, 1, 1, 1]);
    });

    it("a peer that is deleted is not forwarded to, nor listened to", async () => {
      await a.vnetd(["peer-delete", at(2, 1)]);
      expect(await a.vnetdJson<PeerInfo[]>(["peers"])).toEqual([]);
      await eventually(async () => {
        const { problems, drops } = await a.vnetdJson<StatusInfo>(["status"]);
        const refused = drops.some(({ reason }) => reason === "vfwd_not_peer");
        return (
          refused && problems.some((each) => each.includes(`${at(2, 1)} forwards to this host`))
        );
      });
      await eventually(async () => {
        const { problems } = await b.vnetdJson<StatusInfo>(["status"]);
        const lacks = new RegExp(`^${pattern(at(1, 1))} .*does not have this host as a peer`);
        return problems.some((each) => lacks.test(each));
      });
    });
  });
});
