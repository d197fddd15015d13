// SPDX-License-Identifier: Apache-2.0
/**
 * A stranger on the LAN sends first fragments of packets that never become whole: of frames in a vnet,
 * of messages that nobody knows, and of other UDP. They wait for the rest where all of the host's
 * fragments wait, within the kernel's own limits, and harm nobody who needs none.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { StatusInfo, VarpEntry } from "../../src/api/contract.js";
import { fragmentIpv6 } from "../lib/forms.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { fragmentIpv4, packet, type PacketBuilder } from "../lib/packet.js";
import { python } from "../lib/wire.js";
import { backlogDrops, quickHello, startDaemon } from "./world.js";

const LIMIT_BYTES = 1 << 20;
/**
 * The kernel looks at the limit before it takes a fragment, on each CPU: what it holds may be above
 * by the last ones taken. Without a limit the flood is worth ten times LIMIT_BYTES and more.
 */
const ABOVE_BYTES = 64 << 10;
const MANY_FRAGMENTS = 20_000;
const LIFETIME_SECONDS = 10;
const FORGED_MAC = "02:66:66:66:66:66";

const families = [
  {
    family: 4,
    a: "10.66.1.1",
    b: "10.66.1.2",
    stranger: "10.66.1.66",
    prefix: 24,
    limits: { net: "net.ipv4.ipfrag_", file: "sockstat", line: "FRAG" },
    /** of the id in the frame, and its length */
    id: [18, 2],
  },
  {
    family: 6,
    a: "fd66::1",
    b: "fd66::2",
    stranger: "fd66::66",
    prefix: 64,
    limits: { net: "net.ipv6.ip6frag_", file: "sockstat6", line: "FRAG6" },
    id: [58, 4],
  },
] as const;

/**
 * Frames in turn, each with an id of its own, until it is stopped: (where the id is, its length, frames
 * in hex). A pause after each hundred: not the CPU is to be short, but the memory.
 */
const flood = `
import socket, struct, sys, time
at, size, frames = int(sys.argv[1]), int(sys.argv[2]), [bytearray.fromhex(x) for x in sys.argv[3:]]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
sent = 0
while True:
    for frame in frames:
        frame[at:at + size] = sent.to_bytes(4, "big")[-size:]
        if size == 2:
            frame[24:26] = bytes(2)
            total = sum(struct.unpack(">10H", frame[14:34]))
            total = (total & 0xffff) + (total >> 16)
            frame[24:26] = struct.pack(">H", ~((total & 0xffff) + (total >> 16)) & 0xffff)
        s.send(frame)
        sent += 1
        if sent % 100 == 0:
            time.sleep(0.002)
        if sent % 1000 == 0:
            print("sent", sent, flush=True)
`;

describe.each(families)("over IPv$family", (world) => {
  let lab: Lab;
  let a: Host;
  let stranger: Host;
  let g: Guest;

  beforeAll(async () => {
    lab = await Lab.create();
    await lab.lan("lan0", { wire: true });
    const host = async (name: string, address: string): Promise<Host> => {
      const made = await lab.host(name);
      await lab.connectHost(made, "eth0", "lan0", `${address}/${world.prefix}`);
      return made;
    };
    a = await host("a", world.a);
    const b = await host("b", world.b);
    stranger = await host("stranger", world.stranger);
    // the lower one has no meaning any more, but must be the lower one
    await a.sysctl(`${world.limits.net}low_thresh`, LIMIT_BYTES / 2);
    await a.sysctl(`${world.limits.net}high_thresh`, LIMIT_BYTES);
    await a.sysctl(`${world.limits.net}time`, LIFETIME_SECONDS);
    for (const [index, each] of [a, b].entries()) {
      await startDaemon(each, { config: `${quickHello}defaultVnets: false\n` });
      await each.vnetd(["attach", "eth0"]);
      await each.vnetd(["vnet-create", "-b", "vnet97", "97"]);
      const address = `10.97.0.${index + 1}/24`;
      const guest = await each.guest(`g${index}`, { bridge: "vnet97", address, mtuBytes: 1500 });
      if (each === a) g = guest;
    }
  });
  afterAll(() => lab.close());

  /** First fragments of packets to a, of 1480 bytes or so in all. */
  async function firstFragments(): Promise<Buffer[]> {
    const eth = packet().eth({ dst: await a.mac(), src: await stranger.mac() });
    const { stranger: src, a: dst } = world;
    const udp = (port: number): PacketBuilder =>
      (world.family === 4 ? eth.ipv4({ src, dst }) : eth.ipv6({ src, dst })).udp({
        src: 50_000,
        dst: port,
        checksum: 0,
      });
    const inner = packet()
      .eth({ src: FORGED_MAC, dst: await g.mac() })
      .ipv4()
      .payload(1400);
    const whole = [
      udp(1798).vudp({ vnet: "97" }).payload(inner.build()),
      udp(1798).vudp({ vnet: "6666" }).payload(inner.build()),
      udp(1798).payload(Buffer.alloc(1400, 0xee)),
      udp(9).payload(Buffer.alloc(1400, 0xee)),
    ];
    const cut = world.family === 4 ? fragmentIpv4 : fragmentIpv6;
    return whole.map((each) => cut(each.build(), 1280)[0]!);
  }

  /** what the kernel's fragments take in a's namespace */
  async function heldBytes(): Promise<number> {
    const { stdout } = await a.exec(["cat", `/proc/net/${world.limits.file}`]);
    const memory = new RegExp(`^${world.limits.line}: .*memory (\\d+)`, "m").exec(stdout)?.[1];
    if (memory === undefined) throw new Error(`no memory of fragments in:\n${stdout}`);
    return Number(memory);
  }

  const large = (): Promise<string> =>
    g.tryExec("ping -n -M dont -c 1 -W 1 -s 1472 10.97.0.2").then(({ stdout }) => stdout);

  it("frames in fragments pass before", async () => {
    expect((await g.ping("10.97.0.2", { count: 2, intervalMs: 50 })).received).toBeGreaterThan(0);
    await eventually(async () => / 1 received/.test(await large()), { what: "a large frame" });
  });

  it("the memory stays within the kernel's limit, and who talks loses nothing", async () => {
    const frames = (await firstFragments()).map((frame) => frame.toString("hex"));
    const [at, size] = world.id;
    const overflown = backlogDrops();
    const talk = g.startPing("10.97.0.2", { intervalMs: 20 });
    const run = stranger.spawn([...python, "-c", flood, String(at), String(size), ...frames]);
    const sent = (): number => Number(/sent (\d+)\s*$/.exec(run.stdout)?.[1] ?? 0);
    const held: number[] = [];
    await eventually(
      async () => {
        held.push(await heldBytes());
        expect(run.code).toBeUndefined();
        return sent() >= MANY_FRAGMENTS && talk.answers >= 50;
      },
      { what: "the flood", timeoutMs: 60_000 },
    );
    const { sequences } = await talk.stop();
    const { pid } = await a.vnetdJson<StatusInfo>(["status"]);
    await run.stop("SIGKILL");
    expect(Math.max(...held)).toBeLessThanOrEqual(LIMIT_BYTES + ABOVE_BYTES);
    // it was reached, or nothing is shown
    expect(Math.max(...held)).toBeGreaterThan(LIMIT_BYTES / 2);
    // the last request may be on its way
    const lost = Math.max(...sequences) - new Set(sequences).size;
    expect(lost).toBeLessThanOrEqual(backlogDrops() - overflown);
    expect(pid).toBe(a.daemon.pid);
  });

  it("nothing of it has come in", async () => {
    const entries = await a.vnetdJson<VarpEntry[]>(["varp"]);
    expect(entries.map(({ vmac }) => vmac)).not.toContain(FORGED_MAC);
    expect(entries.length).toBeGreaterThan(0);
  });

  it("frames in fragments pass again when the kernel has given it up", async () => {
    const again = async (): Promise<boolean> => / 1 received/.test(await large());
    await eventually(again, { what: "a large frame", timeoutMs: 6000 * LIFETIME_SECONDS });
    await eventually(async () => (await heldBytes()) < LIMIT_BYTES / 10, {
      what: "the memory to be given back",
      timeoutMs: 6000 * LIFETIME_SECONDS,
    });
  });
});
