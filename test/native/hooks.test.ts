// SPDX-License-Identifier: Apache-2.0
/** TCX links and clsact filters, with packets that pass them; the UDP socket that sends them. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import type { LoadedObject } from "../../src/native/contract.js";
import { loadNative } from "../../src/native/load.js";
import {
  compileBpf,
  eventually,
  Namespace,
  pinDirectory,
  pins,
  rejectionOf,
  removePins,
  sleep,
  temporaryDirectory,
} from "./support.js";

const native = loadNative();
const work = temporaryDirectory();
let probe: string;
let pinDir: string;
let ns: Namespace;
let peer: Namespace;
let object: LoadedObject;
let ifindex: number;

beforeAll(() => {
  probe = compileBpf(work, "probe");
});
afterAll(() => {
  rmSync(work, { recursive: true });
});

/** Two namespaces with a veth between them; the object is loaded by the first one's process. */
beforeEach(async () => {
  pinDir = pinDirectory("hooks");
  ns = new Namespace("hooks");
  peer = new Namespace("hooks2");
  await ns.run.linkAddVeth({
    name: "a-near",
    peerName: "a-peer",
    mac: "02:00:00:00:00:0a",
    peerMac: "02:00:00:00:00:0b",
    mtuBytes: 1500,
    peerMtuBytes: 1500,
  });
  ns.exec("ip", "link", "set", "a-peer", "netns", peer.name);
  ifindex = await configure(ns, "a-near", "10.9.0.1");
  await configure(peer, "a-peer", "10.9.0.2");
  // a failed ARP would hold back the next ping
  neighbour(ns, "a-near", "10.9.0.2", "02:00:00:00:00:0b");
  neighbour(peer, "a-peer", "10.9.0.1", "02:00:00:00:00:0a");
  object = await ns.run.objectLoad(probe, {
    pinDir,
    rodata: { verdict: Uint8Array.of(0xff, 0xff, 0xff, 0xff) },
  });
});
afterEach(async () => {
  await ns.close();
  await peer.close();
  removePins(pinDir);
});

async function configure(namespace: Namespace, name: string, address: string): Promise<number> {
  const link = await namespace.run.linkGet(name);
  if (link === undefined) throw new Error(`no ${name}`);
  await namespace.run.linkSet(link.ifindex, { up: true });
  await namespace.run.addressAdd(link.ifindex, address, 24, false);
  return link.ifindex;
}

function neighbour(namespace: Namespace, device: string, address: string, mac: string): void {
  const entry = [address, "lladdr", mac, "dev", device, "nud", "permanent"];
  namespace.exec("ip", "neigh", "replace", ...entry);
}

function program(name: string): number {
  const fd = object.programs[name];
  if (fd === undefined) throw new Error(`no program ${name}`);
  return fd;
}

/** packets that probe_count has seen */
function counted(): number {
  const fd = native.objectGet(join(pinDir, "counters"));
  const value = native.mapLookup(fd, new Uint8Array(4));
  native.close(fd);
  return Number(value?.readBigUInt64LE() ?? 0);
}

function ping(): boolean {
  try {
    peer.exec("ping", "-c", "1", "-W", "0.3", "10.9.0.1");
    return true;
  } catch {
    return false;
  }
}

describe("TCX", () => {
  const pin = () => join(pinDir, "link");

  test("a pinned link tells its program and device, and packets pass it", async () => {
    await ns.run.tcxAttach(program("probe_count"), ifindex, "ingress", pin());
    const info = await ns.run.tcxInfo(pin());
    expect(info.ifindex).toBe(ifindex);
    expect(info.linkId).toBeGreaterThan(0);
    expect(info.programId).toBe(await ns.run.programId(program("probe_count")));
    expect(await ns.run.tcxPrograms(ifindex, "ingress")).toEqual([info.programId]);
    expect(await ns.run.tcxPrograms(ifindex, "egress")).toEqual([]);
    expect(ping()).toBe(true);
    expect(counted()).toBeGreaterThan(0);
  });

  test("of many devices says which lack their program", async () => {
    await ns.run.tcxAttach(program("probe_count"), ifindex, "ingress", pin());
    const id = await ns.run.programId(program("probe_count"));
    const other = await ns.run.programId(program("probe_drop"));
    const devices = [ifindex, ifindex, 999_999];
    expect(await ns.run.tcxLacking(devices, [id, other, id])).toEqual([1, 2]);
    expect(await ns.run.tcxLacking([], [])).toEqual([]);
    await expect(ns.run.tcxLacking([ifindex], [])).rejects.toThrow("as many programs");
    await expect(ns.run.tcxLacking([0], [id])).rejects.toThrow("ifindex");
  });

  test("is watched: a program that goes is told again and again, one that stays never", async () => {
    await ns.run.tcxAttach(program("probe_count"), ifindex, "ingress", pin());
    const id = await ns.run.programId(program("probe_count"));
    const other = await ns.run.programId(program("probe_drop"));
    const there = await ns.run.watchTcx([ifindex], [id], 20);
    const lacking = await ns.run.watchTcx([ifindex, ifindex], [id, other], 20);
    const times = (handle: number): number => ns.eventsOf<string>(handle).length;
    await eventually(() => times(lacking) > 3, "what lacks to be told");
    expect(times(there)).toBe(0);
    ns.exec("bpftool", "link", "detach", "pinned", pin());
    await eventually(() => times(there) > 1, "what went to be told");
    await ns.run.stop(there);
    const before = [times(there), times(lacking)] as const;
    await eventually(() => times(lacking) > before[1] + 3, "time to pass");
    expect(times(there)).toBe(before[0]);
    await ns.run.stop(lacking);
    await expect(ns.run.watchTcx([ifindex], [], 20)).rejects.toThrow("as many programs");
    await expect(ns.run.watchTcx([ifindex], [id], 0)).rejects.toThrow("periodMs");
  });

  test("at egress as well, and both at a time", async () => {
    await ns.run.tcxAttach(program("probe_drop"), ifindex, "egress", pin());
    await ns.run.tcxAttach(program("probe_count"), ifindex, "ingress", `${pin()}-2`);
    expect(ping()).toBe(false);
    expect(counted()).toBeGreaterThan(0);
  });

  test("survives its process, and is updated by another", async () => {
    await ns.run.tcxAttach(program("probe_drop"), ifindex, "ingress", pin());
    await ns.run.objectPin(program("probe_count"), join(pinDir, "count"));
    const before = await ns.run.tcxInfo(pin());
    expect(ping()).toBe(false);
    await ns.kill();
    expect(ping()).toBe(false);
    const count = native.objectGet(join(pinDir, "count"));
    native.tcxUpdate(pin(), count);
    expect(native.tcxInfo(pin())).toEqual({ ...before, programId: native.programId(count) });
    native.close(count);
    expect(ping()).toBe(true);
    expect(counted()).toBeGreaterThan(0);
    rmSync(pin());
    // the kernel lets go of a link some time after its last pin
    await eventually(() => {
      const seen = counted();
      return ping() && counted() === seen;
    }, "packets that are not counted any more");
  });

  test("is defunct, with ifindex 0, once the device is gone", async () => {
    await ns.run.tcxAttach(program("probe_count"), ifindex, "ingress", pin());
    await ns.run.linkDelete(ifindex);
    await eventually(() => native.tcxInfo(pin()).ifindex === 0, "a defunct link");
    expect((await rejectionOf(ns.run.tcxUpdate(pin(), program("probe_drop")))).code).toBe(
      "ENOLINK",
    );
  });

  test("a pin that fails attaches nothing", async () => {
    await ns.run.objectPin(program("probe_drop"), pin());
    const error = await rejectionOf(
      ns.run.tcxAttach(program("probe_drop"), ifindex, "ingress", pin()),
    );
    expect(error).toMatchObject({ code: "EEXIST", operation: "tcxAttach" });
    expect(ping()).toBe(true);
    expect((await rejectionOf(ns.run.tcxInfo(pin()))).detail).toBe("the pin is not a link's");
    expect(pins(pinDir)).toContain("link");
    const gone = await rejectionOf(
      ns.run.tcxAttach(program("probe_drop"), 999, "ingress", `${pin()}-2`),
    );
    expect(gone.code).toBe("ENODEV");
    expect(existsSync(`${pin()}-2`)).toBe(false);
    expect((await rejectionOf(ns.run.tcxInfo(`${pin()}-2`))).code).toBe("ENOENT");
  });
});

describe("clsact", () => {
  test("is made where it is missing; a filter is added, replaced in place and removed", async () => {
    const drop = program("probe_drop");
    const count = program("probe_count");
    expect(await ns.run.clsactQuery(ifindex, "ingress", 49, 1798)).toBe(0);
    await ns.run.clsactAttach(drop, ifindex, "ingress", 49, 1798);
    expect(await ns.run.clsactQuery(ifindex, "ingress", 49, 1798)).toBe(
      await ns.run.programId(drop),
    );
    expect(ping()).toBe(false);
    await ns.run.clsactAttach(count, ifindex, "ingress", 49, 1798);
    expect(await ns.run.clsactQuery(ifindex, "ingress", 49, 1798)).toBe(
      await ns.run.programId(count),
    );
    expect(
      ns.exec("tc", "filter", "show", "dev", "a-near", "ingress").match(/ handle /g)?.length,
    ).toBe(1);
    expect(ping()).toBe(true);
    expect(counted()).toBeGreaterThan(0);
    await ns.run.clsactDetach(ifindex, "ingress", 49, 1798);
    expect(await ns.run.clsactQuery(ifindex, "ingress", 49, 1798)).toBe(0);
  });

  test("directions, priorities and handles are told apart, others' filters stay", async () => {
    const drop = program("probe_drop");
    const count = program("probe_count");
    ns.exec("tc", "qdisc", "add", "dev", "a-near", "clsact");
    await ns.run.clsactAttach(drop, ifindex, "ingress", 7, 5);
    await ns.run.clsactAttach(count, ifindex, "ingress", 49, 2);
    expect(await ns.run.clsactFilters(ifindex, "ingress")).toEqual([
      { priority: 7, handle: 5, kind: "bpf" },
      { priority: 49, handle: 2, kind: "bpf" },
    ]);
    expect(await ns.run.clsactFilters(ifindex, "egress")).toEqual([]);
    await ns.run.clsactAttach(drop, ifindex, "egress", 50, 2);
    const query = (direction: "ingress" | "egress", priority: number, handle: number) =>
      ns.run.clsactQuery(ifindex, direction, priority, handle);
    expect(await query("ingress", 49, 2)).toBe(await ns.run.programId(count));
    expect(await query("egress", 50, 2)).toBe(await ns.run.programId(drop));
    expect(await query("ingress", 50, 2)).toBe(0);
    expect(await query("ingress", 49, 3)).toBe(0);
    expect(await query("ingress", 7, 1)).toBe(0);
    expect(await query("ingress", 7, 5)).toBeGreaterThan(0);
    await ns.run.clsactDetach(ifindex, "ingress", 49, 2);
    expect(await query("ingress", 7, 5)).toBeGreaterThan(0);
  });

  test("what is not there: ENOENT; no device: ENODEV, and 0 when asked", async () => {
    const error = await rejectionOf(ns.run.clsactDetach(ifindex, "ingress", 49, 1));
    expect(error).toMatchObject({ code: "ENOENT", operation: "clsactDetach" });
    expect(
      (await rejectionOf(ns.run.clsactAttach(program("probe_drop"), 999, "ingress", 49, 1))).code,
    ).toBe("ENODEV");
    expect(await ns.run.clsactQuery(999, "ingress", 49, 1)).toBe(0);
  });

  test("survives its process", async () => {
    await ns.run.clsactAttach(program("probe_drop"), ifindex, "ingress", 49, 1);
    await ns.kill();
    expect(ping()).toBe(false);
  });
});

describe("udpSocket", () => {
  const group = "224.10.0.1";

  async function socket(namespace: Namespace, device: string, address: string, port = 1798) {
    const fd = await namespace.run.udpSocket({ device, address, port, multicastTtl: 3 });
    return namespace.run.listen(fd);
  }

  test("is bound, and speaks from its address", async () => {
    const here = await socket(ns, "a-near", "10.9.0.1");
    const there = await socket(peer, "a-peer", "10.9.0.2");
    expect(here.address).toMatchObject({ address: "10.9.0.1", port: 1798 });
    await ns.run.send(here.handle, "hello", 1798, "10.9.0.2");
    const heard = await eventually(() => peer.eventsOf<object>(there.handle)[0], "a datagram");
    expect(heard).toMatchObject({ text: "hello", from: { address: "10.9.0.1", port: 1798 } });
  });

  test("multicast goes out of the device with the TTL, without a route, and not to itself", async () => {
    const device = await peer.run.linkGet("a-peer");
    if (device === undefined) throw new Error("no a-peer");
    await peer.run.addressAdd(device.ifindex, group, 32, true);
    const loaded = await peer.run.objectLoad(probe, { pinDir });
    await peer.run.clsactAttach(
      loaded.programs["probe_record"] ?? -1,
      device.ifindex,
      "ingress",
      1,
      1,
    );
    const ring = await peer.run.ring(loaded.maps["events"] ?? -1);
    const near = await socket(ns, "a-near", "10.9.0.1");
    await ns.run.addressAdd(ifindex, group, 32, true);
    // with it what is sent to the group would be delivered here and never leave
    await ns.run.routeDeleteLocal(ifindex, group);
    const self = await socket(ns, "a-near", group, 1799);
    await ns.run.send(near.handle, "to all", 1799, group);
    const frame = await eventually(
      () =>
        peer
          .eventsOf<Uint8Array>(ring)
          .map((record) => Buffer.from(record).subarray(8))
          .find((data) => data.readUInt16BE(12) === 0x0800 && data[23] === 17),
      "the datagram on the wire",
    );
    expect(frame.subarray(0, 6).toString("hex")).toBe("01005e0a0001");
    expect(frame[22]).toBe(3);
    expect(frame.subarray(26, 34).toString("hex")).toBe("0a090001e00a0001");
    // IP_MTU_DISCOVER dont: no DF
    expect(frame.readUInt16BE(20) & 0x4000).toBe(0);
    await sleep(50);
    expect(ns.eventsOf(self.handle)).toEqual([]);
  });

  test("what must not be fragmented is refused or carries DF", async () => {
    const loaded = await peer.run.objectLoad(probe, { pinDir });
    const device = await peer.run.linkGet("a-peer");
    await peer.run.clsactAttach(
      loaded.programs["probe_record"] ?? -1,
      device?.ifindex ?? 0,
      "ingress",
      1,
      1,
    );
    const ring = await peer.run.ring(loaded.maps["events"] ?? -1);
    const options = { device: "a-near", address: "10.9.0.1", port: 20_000, multicastTtl: 1 };
    const fd = await ns.run.udpSocket({ ...options, dontFragment: true });
    const { handle } = await ns.run.listen(fd);
    await ns.run.send(handle, "whole", 1798, "10.9.0.2");
    const frame = await eventually(
      () =>
        peer
          .eventsOf<Uint8Array>(ring)
          .map((record) => Buffer.from(record).subarray(8))
          .find((data) => data.readUInt16BE(12) === 0x0800 && data[23] === 17),
      "the datagram on the wire",
    );
    expect(frame.readUInt16BE(20) & 0x4000).toBe(0x4000);
    const tooLarge = await rejectionOf(ns.run.send(handle, "x".repeat(9000), 1798, "10.9.0.2"));
    expect(tooLarge.code).toBe("EMSGSIZE");
  });

  test("two may share an address and port; a foreign address or device is refused", async () => {
    await socket(ns, "a-near", "10.9.0.1");
    await socket(ns, "a-near", "10.9.0.1");
    const open = (device: string, address: string) =>
      rejectionOf(ns.run.udpSocket({ device, address, port: 1798, multicastTtl: 1 }));
    const foreign = await open("a-near", "10.9.0.77");
    expect(foreign).toMatchObject({ code: "EADDRNOTAVAIL", operation: "udpSocket" });
    expect(foreign.message).toContain("10.9.0.77 port 1798 on a-near");
    expect((await open("a-none", "10.9.0.1")).code).toBe("ENODEV");
  });

  test("IPv6, a link-local address with the device's scope", async () => {
    await ns.run.addressAdd(ifindex, "fd00:9::1", 64, false);
    const bindTo = (address: string) =>
      ns.run.udpSocket({ device: "a-near", address, port: 1798, multicastTtl: 1 });
    // until duplicate address detection is over an address cannot be bound to
    const bindInTime = async (address: string): Promise<number> => {
      for (let attempt = 0; attempt < 60; attempt++) {
        const fd = await bindTo(address).catch(() => -1);
        if (fd >= 0) return fd;
        await sleep(100);
      }
      return bindTo(address);
    };
    expect(await bindInTime("fd00:9::1")).toBeGreaterThan(2);
    const linkLocal = (await ns.run.addressList()).find(
      (entry) => entry.ifindex === ifindex && entry.address.startsWith("fe80"),
    );
    expect(await bindInTime(linkLocal?.address ?? "none")).toBeGreaterThan(2);
    expect(ns.exec("ss", "-lunH", "sport", "=", ":1798")).toContain("[fd00:9::1]%a-near:1798");
  });
});
