// SPDX-License-Identifier: Apache-2.0
/**
 * A path whose MTU is smaller than both ends': two routers with a link of 1400 bytes between them.
 * Packets cross at MTU size, by UDP and by EtherIP, over either family. Guests believe in 1500.
 *
 *   g, ge - a --- lan0 (1500) --- r1 --- mid (1400) --- r2 --- lan1 (1500) --- b - h, he
 *
 * Multicast does not cross the routers: where the guests live is configured (varp-add), and the
 * hosts get to know one another by a unicast hello that the test sends from b's address.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo, StatusInfo, VarpEntry } from "../../src/api/contract.js";
import {
  encodeVnetdHostPath,
  encodeVnetdHostPathKey,
  vnetdLimits,
} from "../../src/generated/layouts.js";
import { loadNative } from "../../src/native/load.js";
import { addressBytes } from "../lib/forms.js";
import { Lab, eventually, type Guest, type Host, type Capture } from "../lib/lab.js";
import { packet } from "../lib/packet.js";
import { startDaemon } from "./world.js";

const PATH_MTU = 1400;
const TEN_MINUTES_NS = 600_000_000_000n;
const families = [
  {
    family: 4,
    a: "10.66.1.1",
    b: "10.66.2.2",
    r1: ["10.66.1.254", "10.66.9.1"],
    r2: ["10.66.9.2", "10.66.2.254"],
    nets: ["10.66.1.0/24", "10.66.2.0/24"],
    prefix: 24,
    forwarding: ["net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0"],
    etherip: "ip proto 97",
    overheads: { udp: 64, etherip: 52 },
    varpFamily: 2,
    socket: "AF_INET",
  },
  {
    family: 6,
    a: "fd66:1::1",
    b: "fd66:2::2",
    r1: ["fd66:1::254", "fd66:9::1"],
    r2: ["fd66:9::2", "fd66:2::254"],
    nets: ["fd66:1::/64", "fd66:2::/64"],
    prefix: 64,
    forwarding: ["net.ipv6.conf.all.forwarding=1", "net.ipv6.icmp.ratelimit=0"],
    etherip: "ip6 proto 97",
    overheads: { udp: 84, etherip: 72 },
    varpFamily: 10,
    socket: "AF_INET6",
  },
] as const;

describe.each(families)("over IPv$family", (world) => {
  const { a: addressA, b: addressB, overheads } = world;
  const ipv4 = world.family === 4;
  let lab: Lab;
  let a: Host;
  let b: Host;
  let r1: Host;
  /** of the vnet that is sent by UDP, and of that by EtherIP */
  let g: Guest;
  let h: Guest;
  let ge: Guest;
  let he: Guest;

  async function router(
    name: string,
    [near, far]: readonly string[],
    lans: readonly string[],
    routes: readonly string[],
  ): Promise<Host> {
    const at = (address: string | undefined): string => `${address ?? ""}/${world.prefix}`;
    const underlay = { [lans[0]!]: at(near), [lans[1]!]: at(far) };
    const host = await lab.host(name, { underlay });
    for (const setting of world.forwarding) await host.exec(["sysctl", "-qw", setting]);
    for (const route of routes) await host.exec(`ip route add ${route}`);
    return host;
  }

  /** guests on both hosts, in a vnet of its own */
  async function guests(vnet: string): Promise<[Guest, Guest]> {
    const at = (number: number): string => `10.${vnet}.0.${number}`;
    const guest = (host: Host, name: string, number: number): Promise<Guest> =>
      host.guest(`${name}${vnet}`, {
        bridge: `vnet00${vnet}`,
        address: `${at(number)}/24`,
        mtuBytes: 1500,
      });
    const one = await guest(a, "g", 1);
    const two = await guest(b, "h", 2);
    await one.exec(`ip neigh replace ${at(2)} lladdr ${await two.mac()} dev eth0`);
    await two.exec(`ip neigh replace ${at(1)} lladdr ${await one.mac()} dev eth0`);
    await a.vnetd(["varp-add", vnet, await two.mac(), addressB]);
    await b.vnetd(["varp-add", vnet, await one.mac(), addressA]);
    return [one, two];
  }

  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { wire: true });
    await lab.lan("mid", { wire: true, mtuBytes: PATH_MTU });
    await lab.lan("lan1", { wire: true });
    const { r1: near, r2: far, nets, prefix } = world;
    a = await lab.host("a", { underlay: { lan0: `${addressA}/${prefix}` } });
    b = await lab.host("b", { underlay: { lan1: `${addressB}/${prefix}` } });
    r1 = await router("r1", near, ["lan0", "mid"], [`${nets[1]} via ${far[0]}`]);
    await router("r2", far, ["mid", "lan1"], [`${nets[0]} via ${near[1]}`]);
    await a.exec(`ip route add ${nets[1]} via ${near[0]}`);
    await b.exec(`ip route add ${nets[0]} via ${far[1]}`);
    for (const host of [a, b]) {
      await startDaemon(host, { config: "defaultVnets: false\n" });
      await host.vnetd(["attach", "eth0"]);
      await host.vnetd(["vnet-create", "97"]);
      await host.vnetd(["vnet-create", "-e", "etherip", "98"]);
    }
    [g, h] = await guests("97");
    [ge, he] = await guests("98");
    await introduce();
  });
  afterAll(() => lab.close());

  /** From b's address, so that a answers with a hello of its own, which b answers. */
  async function introduce(): Promise<void> {
    const tlv = (type: number, value: string): { type: number; value: Buffer } => ({
      type,
      value: Buffer.from(value, "hex"),
    });
    const hello = packet()
      .varp({
        vnet: "97",
        vmac: "02:00:00:00:00:99",
        operation: 2,
        family: world.varpFamily,
        address: ipv4 ? addressB : addressBytes(addressB),
      })
      .extension({ tlvs: [tlv(1, "ee".repeat(16)), tlv(2, "ee".repeat(8)), tlv(3, "00000001")] })
      .build();
    const send =
      `import socket,sys; socket.socket(socket.${world.socket},socket.SOCK_DGRAM)` +
      `.sendto(bytes.fromhex(sys.argv[1]),('${addressA}',1798))`;
    await b.exec(["python3", "-c", send, hello.toString("hex")]);
    await knows(a, addressB, 1500);
    await knows(b, addressA, 1500);
  }

  /** as `hosts` says; undefined: not known, or not by its real name yet */
  const pathMtu = async (host: Host, address: string): Promise<number | undefined> =>
    (await host.vnetdJson<HostInfo[]>(["hosts"]))
      .filter(({ hostId }) => hostId !== "ee".repeat(16))
      .flatMap(({ paths }) => paths)
      .find((path) => path.address === address)?.mtu;
  const knows = (host: Host, address: string, mtu: number): Promise<unknown> =>
    eventually(async () => (await pathMtu(host, address)) === mtu, {
      what: `that the path to ${address} carries ${mtu}`,
    });

  const forged = async (host: Host): Promise<number> =>
    (await host.vnetdJson<StatusInfo>(["status"])).drops.find(
      ({ reason }) => reason === "icmp_forged",
    )?.frames ?? 0;

  /** What b's device received: packets of at most the path's MTU. */
  function expectFit(capture: Capture): void {
    for (const { wireLength } of capture.packets)
      expect(wireLength).toBeLessThanOrEqual(14 + PATH_MTU);
  }

  /** Guests that forbid fragments: the first packet is the one that a router tells the host about. */
  async function expectTold(guest: Guest, target: string, mtu: number): Promise<void> {
    // what it was told before
    await guest.exec("ip route flush cache");
    const large = { count: 4, intervalMs: 100, waitMs: 300, dontFragment: true, sizeBytes: 1372 };
    await eventually(
      async () => {
        const { text, received: answers } = await guest.ping(target, large);
        expect(answers).toBe(0);
        return new RegExp(`mtu ?= ?${mtu}`).test(text);
      },
      { what: `that the guest is told ${mtu}` },
    );
  }

  /** What is known of the way from a host, as if it had been said ten minutes ago. */
  async function letExpire(host: Host, address: string): Promise<void> {
    const { stdout } = await host.exec("ip -j link show eth0");
    const [{ ifindex }] = JSON.parse(stdout) as [{ ifindex: number }];
    const native = loadNative();
    const map = (name: string): number =>
      native.objectGet(join(host.bpffs, `layout-${vnetdLimits.LAYOUT}`, name));
    const [paths, news] = [map("host_paths"), map("path_news")];
    const key = encodeVnetdHostPathKey({ ifindex, addr: addressBytes(address) });
    const value = native.mapLookup(paths, key);
    if (value === undefined) throw new Error(`nothing is known of the path to ${address}`);
    const mtuUntilNs = value.readBigUInt64LE(8) - TEN_MINUTES_NS;
    native.mapUpdate(paths, key, encodeVnetdHostPath({ mtu: PATH_MTU, mtuUntilNs }));
    const zero = Buffer.alloc(4);
    const number = native.mapLookup(news, zero)!;
    number.writeUInt32LE((number.readUInt32LE(0) + 1) >>> 0);
    native.mapUpdate(news, zero, number);
    native.close(paths);
    native.close(news);
  }

  it("what fits the path crosses it, with DF", async () => {
    const capture = await b.capture("eth0", `udp dst port 1798 and src host ${addressA}`);
    const sizeBytes = PATH_MTU - overheads.udp - 28;
    const fits = { count: 3, intervalMs: 50, dontFragment: true, sizeBytes };
    expect((await g.ping("10.97.0.2", fits)).lost).toBe(0);
    await eventually(() => capture.packets.length >= 3, { what: "three packets" });
    await capture.stop();
    expectFit(capture);
    if (ipv4) for (const { data } of capture.packets) expect(data[20]! & 0x40).toBe(0x40);
  });

  it("a guest that forbids fragments is told the path's MTU", async () => {
    await expectTold(g, "10.97.0.2", PATH_MTU - overheads.udp);
  });

  it("hosts and varp show it", async () => {
    expect(await pathMtu(a, addressB)).toBe(PATH_MTU);
    const entries = await a.vnetdJson<VarpEntry[]>(["varp"]);
    const mac = await h.mac();
    expect(entries.find(({ vmac }) => vmac === mac)?.mtu).toBe(PATH_MTU);
    // it is the way there; b has not sent anything that is too large
    expect(await pathMtu(b, addressA)).toBe(1500);
  });

  it("a guest that allows fragments loses nothing, and TCP goes on", async () => {
    const allowed = "ping -n -M dont -c 5 -i 0.05 -W 5 -s 1472 10.97.0.2";
    await g.exec("ip route flush cache");
    if (!ipv4) {
      // the answers are as large, and no router cuts b's fragments of them: b is told of the first
      await g.tryExec("ping -n -M dont -c 1 -W 1 -s 1472 10.97.0.2");
      await knows(b, addressA, PATH_MTU);
    }
    const capture = await b.capture("eth0", `src host ${addressA}`);
    expect((await g.tryExec(allowed)).stdout).toMatch(/ 0% packet loss/);
    const isFragment = ({ data }: { data: Buffer }): boolean =>
      ipv4 ? (data[20]! & 0x20) !== 0 : data[20] === 44;
    await eventually(() => capture.packets.some(isFragment), { what: "a fragment" });
    const tcp = await g.iperf3(h, { address: "10.97.0.2", seconds: 1 });
    expect(tcp.bytes).toBeGreaterThan(1 << 20);
    await capture.stop();
    expectFit(capture);
  });

  it("what nobody asked for is refused and counted", async () => {
    const before = await forged(a);
    // of a packet that a sent, to a host that it does not know
    const stranger = ipv4 ? "10.66.2.77" : "fd66:2::77";
    const quoted = ipv4
      ? packet().ipv4({ src: addressA, dst: stranger, dontFragment: true })
      : packet().ipv6({ src: addressA, dst: stranger });
    const bytes = quoted
      .udp({ src: 50_000, dst: 1798, checksum: 0 })
      .vudp({ vnet: "97" })
      .payload(1430)
      .build();
    const head = Buffer.alloc(8);
    head[0] = ipv4 ? 3 : 2;
    head[1] = ipv4 ? 4 : 0;
    head.writeUInt32BE(1300, 4);
    const message = Buffer.concat([head, bytes.subarray(0, ipv4 ? 548 : 1232)]);
    const protocol = ipv4 ? "IPPROTO_ICMP" : "IPPROTO_ICMPV6";
    // the kernel fills ICMPv6's checksum in
    const send =
      "import socket,struct,sys; m=bytearray.fromhex(sys.argv[1]); s=sum(struct.unpack(f'>{len(m)//2}H',m))\n" +
      "while s>>16: s=(s&0xffff)+(s>>16)\n" +
      `m[2:4]=struct.pack('>H',s^0xffff) if ${ipv4 ? "True" : "False"} else b'\\0\\0'\n` +
      `socket.socket(socket.${world.socket},socket.SOCK_RAW,socket.${protocol}).sendto(m,('${addressA}',0))`;
    await r1.exec(["python3", "-c", send, message.toString("hex")]);
    await eventually(async () => (await forged(a)) === before + 1, { what: "icmp_forged" });
    expect(await pathMtu(a, addressB)).toBe(PATH_MTU);
  });

  it("it ends, and EtherIP learns it anew", async () => {
    await letExpire(a, addressB);
    await knows(a, addressB, 1500);
    const capture = await b.capture("eth0", world.etherip);
    await expectTold(ge, "10.98.0.2", PATH_MTU - overheads.etherip);
    await knows(a, addressB, PATH_MTU);
    const sizeBytes = PATH_MTU - overheads.etherip - 28;
    const fits = { count: 3, intervalMs: 50, dontFragment: true, sizeBytes };
    expect((await ge.ping("10.98.0.2", fits)).lost).toBe(0);
    const tcp = await ge.iperf3(he, { address: "10.98.0.2", seconds: 1 });
    expect(tcp.bytes).toBeGreaterThan(1 << 20);
    await eventually(() => capture.packets.length >= 3, { what: "EtherIP" });
    await capture.stop();
    expectFit(capture);
    const allowed = "ping -n -M dont -c 5 -i 0.05 -W 5 -s 1472 10.98.0.2";
    await ge.exec("ip route flush cache");
    expect((await ge.tryExec(allowed)).stdout).toMatch(/ 0% packet loss/);
  });

  it("no daemon is needed to learn it", async () => {
    for (const host of [a, b]) await host.killDaemon("SIGKILL");
    await letExpire(a, addressB);
    await expectTold(g, "10.97.0.2", PATH_MTU - overheads.udp);
    const sizeBytes = PATH_MTU - overheads.udp - 28;
    const fits = { count: 5, intervalMs: 50, dontFragment: true, sizeBytes };
    expect((await g.ping("10.97.0.2", fits)).lost).toBe(0);
  });
});
