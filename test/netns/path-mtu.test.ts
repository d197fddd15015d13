// SPDX-License-Identifier: Apache-2.0
/**
 * A path whose MTU is smaller than both ends': two routers with a link of 1400 bytes between them.
 * Packets cross at MTU size. Guests believe in 1500.
 *
 *   g - a --- lan0 (1500) --- r1 --- mid (1400) --- r2 --- lan1 (1500) --- b - h
 *
 * Multicast does not cross the routers: where the guests live is configured (varp-add), and the
 * hosts get to know one another by a unicast hello that the test sends from b's address.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { HostInfo, VarpEntry } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host, type Capture } from "../lib/lab.js";
import { packet } from "../lib/packet.js";
import { parseFrame, type ParsedFrame } from "../lib/packet-parse.js";
import { startDaemon } from "./world.js";

const PATH_MTU = 1400;
const GUEST_MTU = PATH_MTU - 64;
let lab: Lab;
let a: Host;
let b: Host;
let g: Guest;
let h: Guest;

async function router(name: string, to: Record<string, string>, far: string): Promise<void> {
  const host = await lab.host(name, { underlay: to });
  await host.sysctl("net.ipv4.ip_forward", 1);
  await host.sysctl("net.ipv4.icmp_ratelimit", 0);
  await host.exec(`ip route add ${far}`);
}

beforeAll(async () => {
  lab = await Lab.create();
  await lab.lan("lan0", { wire: true });
  await lab.lan("mid", { wire: true, mtuBytes: PATH_MTU });
  await lab.lan("lan1", { wire: true });
  a = await lab.host("a", { underlay: { lan0: "10.66.1.1/24" } });
  b = await lab.host("b", { underlay: { lan1: "10.66.2.2/24" } });
  await router("r1", { lan0: "10.66.1.254/24", mid: "10.66.9.1/24" }, "10.66.2.0/24 via 10.66.9.2");
  await router("r2", { mid: "10.66.9.2/24", lan1: "10.66.2.254/24" }, "10.66.1.0/24 via 10.66.9.1");
  await a.exec("ip route add 10.66.2.0/24 via 10.66.1.254");
  await b.exec("ip route add 10.66.1.0/24 via 10.66.2.254");
  for (const host of [a, b]) {
    await startDaemon(host);
    await host.vnetd(["attach", "eth0"]);
    await host.vnetd(["vnet-create", "-b", "vnet97", "97"]);
  }
  g = await a.guest("g", { bridge: "vnet97", address: "10.97.0.1/24", mtuBytes: 1500 });
  h = await b.guest("h", { bridge: "vnet97", address: "10.97.0.2/24", mtuBytes: 1500 });
  const [gMac, hMac] = [await g.mac(), await h.mac()];
  await g.exec(`ip neigh replace 10.97.0.2 lladdr ${hMac} dev eth0`);
  await h.exec(`ip neigh replace 10.97.0.1 lladdr ${gMac} dev eth0`);
  await a.vnetd(["varp-add", "97", hMac, "10.66.2.2"]);
  await b.vnetd(["varp-add", "97", gMac, "10.66.1.1"]);
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
    .varp({ vnet: "97", vmac: "02:00:00:00:00:99", operation: 2, address: "10.66.2.2" })
    .extension({ tlvs: [tlv(1, "ee".repeat(16)), tlv(2, "ee".repeat(8)), tlv(3, "00000001")] })
    .build();
  const send =
    "import socket,sys; socket.socket(socket.AF_INET,socket.SOCK_DGRAM)" +
    ".sendto(bytes.fromhex(sys.argv[1]),('10.66.1.1',1798))";
  await b.exec(["python3", "-c", send, hello.toString("hex")]);
  for (const [host, other] of [
    [a, "10.66.2.2"],
    [b, "10.66.1.1"],
  ] as const) {
    await eventually(async () => (await pathMtu(host, other)) === 1500, { what: "the hello" });
  }
}

/** as `hosts` says; undefined: not known, or not by its real name yet */
const pathMtu = async (host: Host, address: string): Promise<number | undefined> =>
  (await host.vnetdJson<HostInfo[]>(["hosts"]))
    .filter(({ hostId }) => hostId !== "ee".repeat(16))
    .flatMap(({ paths }) => paths)
    .find((path) => path.address === address)?.mtu;

/** What b's device received of vnet 97, each at most the path's MTU. */
function received(capture: Capture): ParsedFrame[] {
  return capture.packets.map(({ data }) => {
    const frame = parseFrame(data, { messages: "skip", transportChecksums: "skip" });
    expect(data.length).toBeLessThanOrEqual(14 + PATH_MTU);
    return frame;
  });
}

it("what fits the path crosses it, with DF", async () => {
  const capture = await b.capture("eth0", "udp dst port 1798 and src host 10.66.1.1");
  const fits = { count: 3, intervalMs: 50, dontFragment: true };
  expect((await g.ping("10.97.0.2", { ...fits, sizeBytes: GUEST_MTU - 28 })).lost).toBe(0);
  await capture.stop();
  const frames = received(capture);
  expect(frames.length).toBeGreaterThanOrEqual(3);
  for (const { ipv4 } of frames) expect(ipv4!.dontFragment).toBe(true);
});

it("a guest that forbids fragments is told the path's MTU", async () => {
  const large = { count: 4, intervalMs: 100, waitMs: 300, dontFragment: true };
  const { text, received: answers } = await g.ping("10.97.0.2", { ...large, sizeBytes: 1372 });
  expect(answers).toBe(0);
  // the first packet is the one that a router tells the host about, the next is answered here
  expect(text).toMatch(new RegExp(`mtu ?= ?${GUEST_MTU}`));
});

it("hosts and varp show it", async () => {
  expect(await pathMtu(a, "10.66.2.2")).toBe(PATH_MTU);
  const entries = await a.vnetdJson<VarpEntry[]>(["varp"]);
  const mac = await h.mac();
  expect(entries.find(({ vmac }) => vmac === mac)?.mtu).toBe(PATH_MTU);
  // it is the way there; b has not sent anything that is too large
  expect(await pathMtu(b, "10.66.1.1")).toBe(1500);
});

it("a guest that allows fragments loses nothing, and TCP goes on", async () => {
  const capture = await b.capture("eth0", "src host 10.66.1.1");
  const allowed = ["ping", "-n", "-M", "dont", "-c", "5", "-i", "0.05", "-s", "1472", "10.97.0.2"];
  await g.exec("ip route flush cache");
  // the answers are as large; b's fragments of them are fragmented again on the way
  expect((await g.tryExec(allowed)).stdout).toMatch(/ 0% packet loss/);
  expect(received(capture).some(({ ipv4 }) => ipv4!.moreFragments)).toBe(true);
  const tcp = await g.iperf3(h, { address: "10.97.0.2", seconds: 1 });
  expect(tcp.bytes).toBeGreaterThan(1 << 20);
  received(capture);
});

it("no daemon is needed to learn it", async () => {
  for (const host of [a, b]) await host.killDaemon("SIGKILL");
  const large = { count: 4, intervalMs: 100, waitMs: 300, dontFragment: true };
  const { text } = await h.ping("10.97.0.1", { ...large, sizeBytes: 1372 });
  expect(text).toMatch(new RegExp(`mtu ?= ?${GUEST_MTU}`));
  const fits = { count: 5, intervalMs: 50, dontFragment: true, sizeBytes: GUEST_MTU - 28 };
  expect((await h.ping("10.97.0.1", fits)).lost).toBe(0);
});
