// SPDX-License-Identifier: Apache-2.0
/**
 * Suppression with real daemons and guests' kernels, which resolve one another by ARP and neighbour discovery: what is
 * known is asked for on no wire; who moves, dies, or looks for a duplicate of its address finds out as ever; and all
 * of it without the daemons. On host c the vnet has it off.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeFileSync } from "node:fs";
import type { NeighbourEntry, StatusInfo, TraceReport, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, type Guest, type Host } from "../lib/lab.js";
import { packet, BROADCAST_MAC } from "../lib/packet.js";
import { attachedHosts, longId } from "./world.js";

let lab: Lab;
let a: Host, b: Host, c: Host;
/** a1, a2 on a, one by the bridge and one at a direct port; b1, b2 on b; c1 on c */
let a1: Guest, a2: Guest, b1: Guest, b2: Guest, c1: Guest;

const config = "defaultVnets: false\nhelloSeconds: 1\nneighbourSeconds: 3600\nageingSeconds: 600\n";
const patient = { timeoutMs: 30_000 };
const v4 = (n: number): string => `10.97.0.${n}`;
const v6 = (n: number): string => `fd97::${n}`;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b, c] = (await attachedHosts(lab, ["a", "b", "c"], { config })) as [Host, Host, Host];
  for (const host of [a, b])
    await host.vnetd(["vnet-create", "-b", "vnet97", "--suppress", "on", "97"]);
  await c.vnetd(["vnet-create", lab.file("c.yaml", "{id: 97, bridge: vnet97, suppress: off}\n")]);
  const guest = (host: Host, name: string, n: number, bridge = true): Promise<Guest> =>
    host.guest(name, {
      ...(bridge ? { bridge: "vnet97" } : {}),
      ...{ address: [`${v4(n)}/24`, `${v6(n)}/64`], mtuBytes: 1400 },
    });
  a1 = await guest(a, "a1", 1);
  a2 = await guest(a, "a2", 2, false);
  await a.vnetd(["port-add", "97", a2.port]);
  b1 = await guest(b, "b1", 3);
  b2 = await guest(b, "b2", 4);
  c1 = await guest(c, "c1", 5);
});
afterAll(() => lab.close());

const reaches = (from: Guest, address: string): Promise<boolean> =>
  eventually(async () => (await from.ping(address, { count: 1, waitMs: 1000 })).lost === 0, {
    ...patient,
    what: `${from.name} to reach ${address}`,
  });
const forget = async (guest: Guest): Promise<void> => {
  for (const family of ["-4", "-6"]) await guest.exec(["ip", family, "neigh", "flush", "all"]);
};
const known = async (host: Host, address: string): Promise<NeighbourEntry | undefined> =>
  (await host.vnetdJson<NeighbourEntry[]>(["neighbours"])).find((each) => each.address === address);
/** of what is behind the outer headers: who is asked for */
const asksFor = (inner: string): string => `udp port 1798 and ${inner}`;
/** behind Ethernet, IPv4, UDP and VUDP, 14 + 20 + 8 + 22 bytes: the frame's type, and what ARP asks for */
const arpFor = (n: number): string =>
  asksFor(`ether[76:2] = 0x0806 and ether[84:2] = 1 and ether[102:4] = 0x0a6100${hex(n)}`);
const solicitFor = (n: number): string =>
  asksFor(
    `ether[76:2] = 0x86dd and ether[84:1] = 58 and ether[118:1] = 135 and ether[138:4] = 0x000000${hex(n)}`,
  );
const hex = (n: number): string => n.toString(16).padStart(2, "0");

/** It says to all that the address is its own, as who takes one over does. */
async function announce(guest: Guest, address: string): Promise<void> {
  const mac = await guest.mac();
  const frame = packet()
    .eth({ src: mac, dst: BROADCAST_MAC })
    .arp({ senderMac: mac, senderIp: address, targetIp: address });
  const send = `import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
s.send(bytes.fromhex("${frame.build().toString("hex")}"))`;
  await guest.exec(["python3", "-c", send]);
}

describe("suppression", () => {
  it("is shown", async () => {
    for (const [host, suppress] of [
      [a, true],
      [b, true],
      [c, false],
    ] as const) {
      const [vnet] = await host.vnetdJson<VnetState[]>(["vnets"]);
      expect(vnet).toMatchObject({ id: longId("97"), suppress });
    }
  });

  it("what is known is asked for on no wire: by ARP and neighbour discovery, at a bridge and at a port", async () => {
    // until then all of it is flooded
    await reaches(a1, v4(3));
    await reaches(a1, v6(3));
    await eventually(async () => (await known(a, v6(3)))?.answered === true, patient);
    expect(await known(a, v4(3))).toMatchObject({
      ...{ vnet: longId("97"), vmac: await b1.mac(), place: "elsewhere" },
      ...{ answered: true, router: false },
    });
    expect(await known(a, v4(1))).toMatchObject({ place: "here", answered: false });
    const wires = await Promise.all([
      c.capture("eth0", arpFor(3)),
      c.capture("eth0", solicitFor(3)),
    ]);
    const other = await c.capture("eth0", arpFor(99));
    for (const guest of [a1, a2]) {
      for (let round = 0; round < 3; round += 1) {
        await forget(guest);
        await reaches(guest, v4(3));
        await reaches(guest, v6(3));
      }
      expect((await guest.exec(["ip", "neigh", "show", v4(3)])).stdout).toContain(await b1.mac());
    }
    // nobody has this one: that the wire is heard, and what came before it
    await a1.ping(v4(99), { count: 1, waitMs: 100 });
    await eventually(() => other.packets.length > 0, { what: "a question for nobody" });
    await other.stop();
    for (const wire of wires) {
      await wire.stop();
      expect(wire.packets.length).toBe(0);
    }
  });

  it("`trace --asks` says what is answered here, and does nothing of it", async () => {
    const asks = async (host: Host, vnet: string, address: string): Promise<TraceReport> =>
      host.vnetdJson<TraceReport>(["trace", vnet, BROADCAST_MAC, "--asks", address]);
    const textOf = ({ steps }: TraceReport, wanted: string): string | undefined =>
      steps.find(({ step }) => step === wanted)?.text;
    const owner = await b1.mac();
    for (const address of [v4(3), v6(3)]) {
      const report = await asks(a, "97", address);
      expect(report).toMatchObject({ outcome: "answered", toAll: false, reason: null });
      expect(textOf(report, "neighbour")).toMatch(
        new RegExp(`^${address} is ${owner}, heard of [0-9.]+ s ago$`, "u"),
      );
      expect(textOf(report, "answers")).toContain(`told on this host that it is ${owner}`);
      expect(textOf(report, "sends")).toBeUndefined();
      expect(textOf(report, "counted")).toBe("an answer");
    }
    // of a guest here, of nobody, and to one MAC
    for (const [address, why] of [
      [v4(1), /not answered for/],
      [v6(98), /is not known/],
    ] as const) {
      const report = await asks(a, "97", address);
      expect(report).toMatchObject({ outcome: "sent", toAll: true });
      expect(textOf(report, "neighbour")).toMatch(why);
    }
    const toOne = await a.vnetdJson<TraceReport>(["trace", "97", owner, "--asks", v4(3)]);
    expect(toOne).toMatchObject({ outcome: "sent", toAll: false });
    const off = await asks(c, "97", v4(3));
    expect(off).toMatchObject({ outcome: "sent", toAll: true });
    expect(textOf(off, "neighbour")).toMatch(/suppress off/);
    // it asked nobody, and so nothing was learned of the address that asks in it
    expect(await known(a, "192.0.2.1")).toBeUndefined();
    const wrong = await a.tryVnetd(["trace", "97", owner, "--asks", v4(3), "--type", "ipv6"]);
    expect(wrong).toMatchObject({ code: 1 });
    expect(wrong.stderr).toContain("`asks` says what kind of frame it is");
  });

  it("a host that has it off floods, and hears all it did", async () => {
    await reaches(c1, v4(3));
    const wire = await b.capture("eth0", arpFor(3));
    await forget(c1);
    await reaches(c1, v4(3));
    await eventually(() => wire.packets.length > 0, { what: "a question of c1" });
    await wire.stop();
    expect(await c.vnetdJson<NeighbourEntry[]>(["neighbours"])).toEqual([]);
  });

  it("duplicate address detection reaches the far guest", async () => {
    // b1 has it, on another host: a1 must not take it
    await a1.exec(["ip", "address", "add", `${v6(3)}/64`, "dev", "eth0"]);
    await eventually(
      async () =>
        (await a1.exec(["ip", "-6", "address", "show", "dadfailed"])).stdout.includes(
          `${v6(3)}/64`,
        ),
      { ...patient, what: "a1 to see that the address is taken" },
    );
    await a1.exec(["ip", "address", "del", `${v6(3)}/64`, "dev", "eth0"]);
  });

  it("an address that goes to a guest of another host is followed at once", async () => {
    await b1.exec(["ip", "address", "del", `${v4(3)}/24`, "dev", "eth0"]);
    await c1.exec(["ip", "address", "add", `${v4(3)}/24`, "dev", "eth0"]);
    await announce(c1, v4(3));
    const mac = await c1.mac();
    await eventually(async () => (await known(a, v4(3)))?.vmac === mac, patient);
    await forget(a1);
    await reaches(a1, v4(3));
    expect((await a1.exec(["ip", "neigh", "show", v4(3)])).stdout).toContain(mac);
    await c1.exec(["ip", "address", "del", `${v4(3)}/24`, "dev", "eth0"]);
    await b1.exec(["ip", "address", "add", `${v4(3)}/24`, "dev", "eth0"]);
    await announce(b1, v4(3));
    const back = await b1.mac();
    await eventually(async () => (await known(a, v4(3)))?.vmac === back, patient);
  });

  it("a guest that moves to another host is reached there, and one that comes here is heard here", async () => {
    await forget(a1);
    await reaches(a1, v4(4));
    await eventually(async () => (await known(a, v4(4)))?.answered === true, patient);
    await b2.moveTo(c, "vnet97");
    // its host is known again as soon as it says something
    await reaches(b2, v4(5));
    await forget(a1);
    await reaches(a1, v4(4));
    expect(await known(a, v4(4))).toMatchObject({ answered: true, place: "elsewhere" });
    await b2.moveTo(a, "vnet97");
    await reaches(b2, v4(5));
    await forget(a1);
    await reaches(a1, v4(4));
    await eventually(async () => (await known(a, v4(4)))?.place === "here", patient);
    expect(await known(a, v4(4))).toMatchObject({ answered: false });
    await b2.moveTo(b, "vnet97");
    await reaches(b2, v4(5));
  });

  it("it goes on when the daemons are killed", async () => {
    await forget(a2);
    await reaches(a2, v4(3));
    await eventually(async () => (await known(a, v4(3)))?.answered === true, patient);
    for (const host of [a, b]) await host.killDaemon("SIGKILL");
    const wire = await c.capture("eth0", arpFor(3));
    const other = await c.capture("eth0", arpFor(98));
    for (const guest of [a1, a2]) {
      await forget(guest);
      await reaches(guest, v4(3));
    }
    await a1.ping(v4(98), { count: 1, waitMs: 100 });
    await eventually(() => other.packets.length > 0, { what: "a question for nobody" });
    await other.stop();
    await wire.stop();
    expect(wire.packets.length).toBe(0);
    for (const host of [a, b])
      await host.startDaemon({ config, args: ["--metrics-listen", "off"] });
    // the state says that the vnet suppresses, and the tables are what they were
    expect(await a.vnetdJson<VnetState[]>(["vnets"])).toMatchObject([{ suppress: true }]);
    expect(await known(a, v4(3))).toMatchObject({ vmac: await b1.mac() });
  });

  it("who has died is asked for again when its time is over", async () => {
    await reaches(a1, v4(3));
    const { file } = (await a.vnetdJson<StatusInfo>(["status"])).configuration;
    await b1.unplug();
    writeFileSync(file, config.replace("neighbourSeconds: 3600", "neighbourSeconds: 1"));
    await a.vnetd(["reload"]);
    await eventually(async () => (await known(a, v4(3)))?.answered === false, patient);
    const wire = await c.capture("eth0", arpFor(3));
    await forget(a1);
    await a1.ping(v4(3), { count: 1, waitMs: 100 });
    await eventually(() => wire.packets.length > 0, { what: "a question for the dead guest" });
    await wire.stop();
    writeFileSync(file, config);
    await a.vnetd(["reload"]);
  });

  it("one is forgotten by name, and all of a vnet", async () => {
    await forget(a1);
    await reaches(a1, v4(5));
    await eventually(async () => (await known(a, v4(5))) !== undefined, patient);
    expect((await a.vnetd(["neighbour-flush", "97", v4(5)])).stdout).toBe("forgot 1 neighbour\n");
    expect(await known(a, v4(5))).toBeUndefined();
    const refused = await a.tryVnetd(["neighbour-flush", "97", v4(250)]);
    expect(refused.stderr).toContain("has no neighbour");
    await a.vnetd(["neighbour-flush", "97"]);
    expect(await known(a, v4(3))).toBeUndefined();
  });

  it("a vnet is given it, and loses it, in use", async () => {
    const directory = lab.file("vnets-of-c", "").replace("vnets-of-c", "c.d");
    await c.exec(["mkdir", "-p", directory]);
    const apply = async (suppress: string): Promise<string> => {
      const file = `${directory}/97.yaml`;
      writeFileSync(file, `{id: 97, bridge: vnet97, suppress: ${suppress}}\n`);
      return (await c.vnetd(["apply", directory])).stdout;
    };
    expect(await apply("on")).toMatch(/suppress.*on/);
    await forget(c1);
    await reaches(c1, v4(1));
    await eventually(async () => (await known(c, v4(1)))?.answered === true, patient);
    expect(await apply("off")).toMatch(/suppress on/);
    expect(await known(c, v4(1))).toMatchObject({ answered: false });
  });
});
