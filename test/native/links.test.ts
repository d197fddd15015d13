// SPDX-License-Identifier: Apache-2.0
/** Links, addresses, bridges, features and the monitor, in a network namespace of the test's own. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import type { LinkInfo, NetlinkEvent, VethOptions } from "../../src/native/contract.js";
import { eventually, Namespace, rejectionOf, sleep } from "./support.js";

let ns: Namespace;

beforeEach(() => {
  ns = new Namespace("links");
});
afterEach(async () => {
  await ns.close();
});

const veth: VethOptions = {
  name: "a-near",
  peerName: "a-peer",
  mac: "02:00:00:00:00:0a",
  peerMac: "02:00:00:00:00:0b",
  mtuBytes: 1436,
  peerMtuBytes: 9000,
};

async function link(name: string): Promise<LinkInfo> {
  const found = await ns.run.linkGet(name);
  if (found === undefined) throw new Error(`no link ${name}`);
  return found;
}

interface IpLink {
  ifname: string;
  gso_max_size: number;
  flags: string[];
  inet6_addr_gen_mode: string;
}

function ipLink(name: string): IpLink {
  const list = JSON.parse(ns.exec("ip", "-d", "-j", "link", "show", name)) as IpLink[];
  if (list[0] === undefined) throw new Error(`no link ${name}`);
  return list[0];
}

describe("veth pairs", () => {
  test("are made with everything at once", async () => {
    await ns.run.linkAddVeth({ ...veth, gsoMaxSizeBytes: 60000, alias: "vnetd: a test" });
    const near = await link("a-near");
    const peer = await link("a-peer");
    expect(near).toEqual({
      ifindex: near.ifindex,
      name: "a-near",
      kind: "veth",
      mtuBytes: 1436,
      mac: "02:00:00:00:00:0a",
      up: false,
      carrier: false,
      loopback: false,
      master: 0,
      link: peer.ifindex,
      alias: "vnetd: a test",
    });
    expect(peer).toMatchObject({ mac: "02:00:00:00:00:0b", mtuBytes: 9000, link: near.ifindex });
    expect(peer.alias).toBeUndefined();
    expect(ipLink("a-near").gso_max_size).toBe(60000);
    expect(ipLink("a-peer").gso_max_size).toBe(60000);
  });

  test("with as many queues as are wanted", async () => {
    await ns.run.linkAddVeth({ ...veth, queues: 3 });
    for (const end of ["a-near", "a-peer"]) {
      const [, now] = ns.exec("ethtool", "-l", end).split("Current hardware settings:");
      expect(now).toMatch(/RX:\s+3\nTX:\s+3\n/);
    }
    const error = await rejectionOf(
      ns.run.linkAddVeth({ ...veth, name: "b", peerName: "c", queues: 5000 }),
    );
    expect(error.message).toContain("queues");
  });

  test("with a name in use: EEXIST, and nothing is made", async () => {
    await ns.run.linkAddVeth(veth);
    const error = await rejectionOf(ns.run.linkAddVeth({ ...veth, peerName: "a-other" }));
    expect(error).toMatchObject({ code: "EEXIST", errno: 17, operation: "linkAddVeth" });
    expect(await ns.run.linkGet("a-other")).toBeUndefined();
    const names = (await ns.run.linkList())
      .map((entry) => entry.name)
      .filter((n) => n.startsWith("a-"));
    expect(names.sort()).toEqual(["a-near", "a-peer"]);
    expect(
      (await rejectionOf(ns.run.linkAddVeth({ ...veth, name: "a-x", peerName: "a-x" }))).name,
    ).toBe("RangeError");
  });

  test("the kernel's own words for what it refuses", async () => {
    const error = await rejectionOf(ns.run.linkAddVeth({ ...veth, mac: "03:00:00:00:00:01" }));
    expect(error.code).toBe("EADDRNOTAVAIL");
    expect((await rejectionOf(ns.run.linkAddVeth({ ...veth, mtuBytes: 70000 }))).code).toBe(
      "EINVAL",
    );
    expect(await ns.run.linkGet("a-near")).toBeUndefined();
    await ns.run.linkAddVeth(veth);
    const { ifindex } = await link("a-near");
    const mtu = await rejectionOf(ns.run.linkSet(ifindex, { mtuBytes: 70000 }));
    expect(mtu).toMatchObject({ code: "EINVAL", detail: "mtu greater than device maximum" });
    expect(mtu.message).toContain("mtu greater than device maximum");
  });

  test("can be given another name", async () => {
    await ns.run.linkAddVeth(veth);
    const { ifindex } = await link("a-near");
    await ns.run.linkSet(ifindex, { name: "a-other" });
    expect((await link("a-other")).ifindex).toBe(ifindex);
    const taken = await rejectionOf(ns.run.linkSet(ifindex, { name: "a-peer" }));
    expect(taken.code).toBe("EEXIST");
  });

  test("an end that has moved away is told by its namespace's id", async () => {
    const other = new Namespace("links2");
    try {
      await ns.run.linkAddVeth(veth);
      ns.exec("ip", "link", "set", "a-peer", "netns", other.name);
      expect((await link("a-near")).linkNetnsId).toBeTypeOf("number");
      expect(await ns.run.linkGet("a-peer")).toBeUndefined();
    } finally {
      await other.close();
    }
  });
});

describe("VXLAN devices", () => {
  test("take their tunnel's key from programs", async () => {
    await ns.run.linkAddVxlan({ name: "a-vx", port: 4790, mac: "02:00:00:00:00:02", alias: "x" });
    expect(await link("a-vx")).toMatchObject({
      kind: "vxlan",
      mac: "02:00:00:00:00:02",
      alias: "x",
    });
    expect(ns.exec("ip", "-d", "link", "show", "a-vx")).toMatch(
      /external.*dstport 4790.*nolearning/,
    );
    const again = ns.run.linkAddVxlan({ name: "a-vx", port: 4791 });
    expect((await rejectionOf(again)).code).toBe("EEXIST");
    const zero = ns.run.linkAddVxlan({ name: "a-vx2", port: 0 });
    expect((await rejectionOf(zero)).name).toBe("RangeError");
  });
});

describe("bridges", () => {
  test("are made with no forward delay and no STP", async () => {
    await ns.run.linkAddBridge({
      name: "a-br",
      mac: "02:00:00:00:00:01",
      mtuBytes: 1436,
      alias: "x",
    });
    expect(await link("a-br")).toMatchObject({
      kind: "bridge",
      mac: "02:00:00:00:00:01",
      mtuBytes: 1436,
      alias: "x",
      bridge: { stp: false, forwardDelayMs: 0 },
    });
    expect((await rejectionOf(ns.run.linkAddBridge({ name: "a-br" }))).code).toBe("EEXIST");
  });

  test("made by others are described as they are", async () => {
    ns.exec(
      "ip",
      "link",
      "add",
      "a-br",
      "type",
      "bridge",
      "forward_delay",
      "1500",
      "stp_state",
      "1",
    );
    expect((await link("a-br")).bridge).toEqual({ stp: true, forwardDelayMs: 15000 });
    expect((await link("lo")).bridge).toBeUndefined();
  });

  test("take ports and let them go; their tables are listed", async () => {
    await ns.run.linkAddVeth(veth);
    await ns.run.linkAddBridge({ name: "a-br" });
    const bridge = await link("a-br");
    const port = await link("a-near");
    await ns.run.linkSet(bridge.ifindex, { up: true });
    await ns.run.linkSet((await link("a-peer")).ifindex, { up: true });
    await ns.run.linkSet(port.ifindex, { up: true, master: bridge.ifindex });
    expect(await link("a-near")).toMatchObject({ master: bridge.ifindex, up: true });
    ns.exec("bridge", "fdb", "add", "02:00:00:00:00:99", "dev", "a-near", "master", "dynamic");
    const entries = await ns.run.bridgeFdbList();
    expect(entries).toContainEqual({
      mac: "02:00:00:00:00:99",
      ifindex: port.ifindex,
      master: bridge.ifindex,
      permanent: false,
    });
    expect(entries).toContainEqual({
      mac: veth.mac,
      ifindex: port.ifindex,
      master: bridge.ifindex,
      permanent: true,
    });
    expect(entries.every((entry) => entry.master === bridge.ifindex)).toBe(true);
    const others = await ns.run.bridgeFdbList([port.ifindex]);
    expect(others.map(({ mac }) => mac)).toContain(veth.mac);
    expect(others.map(({ mac }) => mac)).not.toContain("02:00:00:00:00:99");
    await ns.run.linkSet(port.ifindex, { master: 0 });
    expect((await link("a-near")).master).toBe(0);
  });

  test("refuse what is no port, in the kernel's words", async () => {
    await ns.run.linkAddBridge({ name: "a-br" });
    const bridge = await link("a-br");
    const error = await rejectionOf(ns.run.linkSet(1, { master: bridge.ifindex }));
    expect(error.code).toBe("EINVAL");
    expect(error.operation).toBe("linkSet");
    expect((await rejectionOf(ns.run.linkSet(bridge.ifindex, { master: 9999 }))).code).toBe(
      "EINVAL",
    );
  });

  test("a table larger than any buffer is listed whole", async () => {
    await ns.run.linkAddVeth(veth);
    await ns.run.linkAddBridge({ name: "a-br" });
    const port = await link("a-near");
    await ns.run.linkSet(port.ifindex, { master: (await link("a-br")).ifindex });
    const count = 3000;
    const hex = (n: number) => n.toString(16).padStart(2, "0");
    const lines = Array.from(
      { length: count },
      (_, i) => `fdb add 02:01:00:00:${hex(i >> 8)}:${hex(i & 255)} dev a-near master static`,
    );
    ns.execWith(lines.join("\n"), "bridge", "-batch", "-");
    const macs = (await ns.run.bridgeFdbList()).map((entry) => entry.mac);
    expect(new Set(macs.filter((mac) => mac.startsWith("02:01:"))).size).toBe(count);
  });
});

describe("links", () => {
  test("many of them are listed whole", async () => {
    const count = 150;
    for (let i = 0; i < count; i++) {
      await ns.run.linkAddVeth({ ...veth, name: `a-n${String(i)}`, peerName: `a-p${String(i)}` });
    }
    const names = (await ns.run.linkList()).map((entry) => entry.name);
    expect(names.filter((name) => name.startsWith("a-")).length).toBe(2 * count);
    expect(names).toContain("lo");
  });

  test("change and go", async () => {
    await ns.run.linkAddVeth(veth);
    const { ifindex } = await link("a-near");
    await ns.run.linkSet(ifindex, {
      mtuBytes: 1400,
      mac: "02:00:00:00:00:0c",
      alias: "renamed",
      gsoMaxSizeBytes: 50000,
      noArp: true,
    });
    expect(await link("a-near")).toMatchObject({
      mtuBytes: 1400,
      mac: "02:00:00:00:00:0c",
      alias: "renamed",
      up: false,
    });
    expect(ipLink("a-near").gso_max_size).toBe(50000);
    expect(ipLink("a-near").flags).toContain("NOARP");
    const forwards = () => ns.exec("sysctl", "-n", "net.ipv4.conf.a-near.forwarding").trim();
    for (const on of [true, false]) {
      await ns.run.linkSet(ifindex, { forwardsIpv4: on });
      expect(forwards()).toBe(on ? "1" : "0");
    }
    await ns.run.linkSet(ifindex, { noArp: false, alias: "", up: true });
    await ns.run.linkSet((await link("a-peer")).ifindex, { up: true });
    expect(ipLink("a-near").flags).not.toContain("NOARP");
    const now = await link("a-near");
    expect(now).toMatchObject({ up: true, carrier: true });
    expect(now.alias ?? "").toBe("");
    await ns.run.linkDelete(ifindex);
    expect(await ns.run.linkGet("a-near")).toBeUndefined();
    expect(await ns.run.linkGet("a-peer")).toBeUndefined();
    expect((await rejectionOf(ns.run.linkDelete(ifindex))).code).toBe("ENODEV");
    expect((await rejectionOf(ns.run.linkSet(ifindex, { up: true }))).code).toBe("ENODEV");
  });

  test("come up without an IPv6 link-local address when told so", async () => {
    await ns.run.linkAddVeth(veth);
    const near = await link("a-near");
    const peer = await link("a-peer");
    await ns.run.linkSet(near.ifindex, { up: true, noIpv6LinkLocal: true });
    await ns.run.linkSet(peer.ifindex, { up: true });
    expect(ipLink("a-near").inet6_addr_gen_mode).toBe("none");
    await sleep(200);
    const owners = (await ns.run.addressList()).map((address) => address.ifindex);
    expect(owners).toContain(peer.ifindex);
    expect(owners).not.toContain(near.ifindex);
  });
});

describe("addresses", () => {
  test("of both families, with their prefix route or, joining a group, without", async () => {
    await ns.run.linkAddVeth(veth);
    const { ifindex } = await link("a-near");
    const peer = await link("a-peer");
    await ns.run.linkSet(ifindex, { up: true });
    await ns.run.linkSet(peer.ifindex, { up: true });
    await ns.run.addressAdd(ifindex, "10.9.0.1", 24, false);
    await ns.run.addressAdd(ifindex, "10.9.0.2", 24, false);
    await ns.run.addressAdd(ifindex, "fd00:9::1", 64, false);
    await ns.run.addressAdd(ifindex, "224.10.0.1", 32, true);
    await ns.run.addressAdd(ifindex, "ff02::1798", 128, true);
    const list = (await ns.run.addressList()).filter((entry) => entry.ifindex === ifindex);
    const find = (address: string) => list.find((entry) => entry.address === address);
    expect(find("10.9.0.1")).toEqual({
      ifindex,
      address: "10.9.0.1",
      prefixLength: 24,
      family: 4,
      secondary: false,
      autojoin: false,
      tentative: false,
      deprecated: false,
      scope: 0,
    });
    expect(find("10.9.0.2")?.secondary).toBe(true);
    expect(find("fd00:9::1")).toMatchObject({ family: 6, prefixLength: 64 });
    expect(find("224.10.0.1")).toMatchObject({ autojoin: true, prefixLength: 32 });
    expect(find("ff02::1798")).toMatchObject({ autojoin: true, family: 6 });
    const routes = ns.exec("ip", "route", "show", "table", "main");
    expect(routes).toContain("10.9.0.0/24");
    expect(routes).not.toContain("224.10");
    const groups = ns.exec("ip", "maddr", "show", "dev", "a-near");
    expect(groups).toContain("224.10.0.1");
    expect(groups).toContain("ff02::1798");
  });

  test("twice: EEXIST; not there: EADDRNOTAVAIL; no device: ENODEV", async () => {
    await ns.run.addressAdd(1, "10.9.0.1", 24, false);
    expect((await rejectionOf(ns.run.addressAdd(1, "10.9.0.1", 24, false))).code).toBe("EEXIST");
    await ns.run.addressDelete(1, "10.9.0.1", 24);
    const error = await rejectionOf(ns.run.addressDelete(1, "10.9.0.1", 24));
    expect(error.code).toBe("EADDRNOTAVAIL");
    expect(error.message).toContain("10.9.0.1 on ifindex 1");
    expect((await rejectionOf(ns.run.addressAdd(999, "10.9.0.1", 24, false))).code).toBe("ENODEV");
  });

  test("a route of the local table is deleted, the address and its membership stay", async () => {
    await ns.run.linkSet(1, { up: true });
    await ns.run.addressAdd(1, "224.10.0.1", 32, true);
    await ns.run.addressAdd(1, "fd00:9::1", 128, false);
    const local = () =>
      ns.exec("ip", "route", "show", "table", "local") +
      ns.exec("ip", "-6", "route", "show", "table", "local");
    expect(local()).toContain("local 224.10.0.1 dev lo");
    expect(await ns.run.routeDeleteLocal(1, "224.10.0.1")).toBe(true);
    expect(local()).not.toContain("local 224.10.0.1");
    expect(await ns.run.routeDeleteLocal(1, "224.10.0.1")).toBe(false);
    expect(ns.exec("ip", "maddr", "show", "dev", "lo")).toContain("224.10.0.1");
    await eventually(() => local().includes("local fd00:9::1"), "the IPv6 address");
    expect(await ns.run.routeDeleteLocal(1, "fd00:9::1")).toBe(true);
    expect(await ns.run.routeDeleteLocal(1, "fd00:9::1")).toBe(false);
  });
});

describe("what the kernel knows of other places", () => {
  test("the device by which an address is reached", async () => {
    await ns.run.linkAddVeth(veth);
    ns.exec("ip", "link", "set", "lo", "up");
    for (const name of ["a-near", "a-peer"]) ns.exec("ip", "link", "set", name, "up");
    ns.exec("ip", "address", "add", "10.9.0.1/24", "dev", "a-near");
    ns.exec("ip", "route", "add", "10.8.0.0/16", "via", "10.9.0.2");
    ns.exec("ip", "route", "add", "unreachable", "10.7.0.0/16");
    const { ifindex } = await link("a-near");
    expect(await ns.run.routeGet("10.9.0.77")).toBe(ifindex);
    expect(await ns.run.routeGet("10.8.1.1")).toBe(ifindex);
    expect(await ns.run.routeGet("10.9.0.1")).toBe(1);
    for (const address of ["10.7.0.1", "192.0.2.1", "2001:db8::1"])
      expect(await ns.run.routeGet(address)).toBe(0);
    expect((await rejectionOf(ns.run.routeGet("10.9.0"))).message).toContain("address");
  });

  test("a route by a device, by either family, in place of the one before", async () => {
    await ns.run.linkAddVeth(veth);
    const { ifindex } = await link("a-near");
    await ns.run.linkSet(ifindex, { up: true });
    for (const [address, prefix, within] of [
      ["10.7.0.0", 16, "10.7.1.1"],
      ["100::5:0:0", 96, "100::5:0:7"],
    ] as const) {
      await ns.run.routeSet(ifindex, address, prefix);
      await ns.run.routeSet(ifindex, address, prefix);
      const family = address.includes(":") ? "-6" : "-4";
      expect(ns.exec("ip", family, "route", "show", address + "/" + String(prefix))).toMatch(
        /^[\w.:]+\/\d+ dev a-near [^\n]*\n$/,
      );
      expect(await ns.run.routeGet(within)).toBe(ifindex);
    }
    expect(await rejectionOf(ns.run.routeSet(9999, "10.6.0.0", 16))).toMatchObject({
      code: "ENODEV",
      operation: "routeSet",
    });
  });

  test("the other end of a veth, here and in another namespace", async () => {
    await ns.run.linkAddVeth(veth);
    const near = await link("a-near");
    expect(await ns.run.linkAt(near.link)).toMatchObject({ name: "a-peer", mac: veth.peerMac });
    const other = new Namespace("links2");
    try {
      ns.exec("ip", "link", "set", "a-peer", "netns", other.name);
      const { linkNetnsId, link: peer } = await link("a-near");
      expect(linkNetnsId).toBeTypeOf("number");
      expect(await ns.run.linkAt(peer, linkNetnsId)).toMatchObject({
        name: "a-peer",
        mac: veth.peerMac,
      });
      expect(await ns.run.linkAt(9999, linkNetnsId)).toBeUndefined();
    } finally {
      await other.close();
    }
    expect(await ns.run.linkAt(near.link, 4711)).toBeUndefined();
    expect(await ns.run.linkAt(9999)).toBeUndefined();
    expect((await rejectionOf(ns.run.linkAt(0))).message).toContain("ifindex");
  });
});

describe("features", () => {
  test("are read and set by ethtool's names", async () => {
    await ns.run.linkAddVeth(veth);
    const before = await ns.run.featuresGet("a-near");
    expect(before["tx-udp_tnl-segmentation"]).toBe(true);
    expect(before["rx-gro"]).toBeTypeOf("boolean");
    await ns.run.featuresSet("a-near", {
      "tx-udp_tnl-segmentation": false,
      "rx-gro": true,
      "tx-checksum-ip-generic": true,
    });
    const after = await ns.run.featuresGet("a-near");
    expect(after["tx-udp_tnl-segmentation"]).toBe(false);
    expect(after["rx-gro"]).toBe(true);
    const changed = Object.keys(after).filter((name) => after[name] !== before[name]);
    expect(changed.filter((name) => name !== "rx-gro")).toEqual(["tx-udp_tnl-segmentation"]);
  });

  test("that stay as they were are named", async () => {
    await ns.run.linkAddVeth(veth);
    const fixed = await rejectionOf(ns.run.featuresSet("a-near", { "rx-gro-hw": true }));
    expect(fixed).toMatchObject({ code: "EOPNOTSUPP", operation: "featuresSet" });
    expect(fixed.detail).toContain("rx-gro-hw");
    const unknown = await rejectionOf(ns.run.featuresSet("a-near", { "no-such-feature": true }));
    expect(unknown).toMatchObject({ code: "EOPNOTSUPP" });
    expect(unknown.detail).toContain("no-such-feature");
    // TSO cannot be on while checksums are off
    await ns.run.featuresSet("a-near", { "tx-checksum-ip-generic": false });
    const dependent = await rejectionOf(
      ns.run.featuresSet("a-near", { "tx-tcp-segmentation": true }),
    );
    expect(dependent.detail).toContain("tx-tcp-segmentation");
    await ns.run.featuresSet("a-near", { "rx-gro-hw": false });
    expect((await rejectionOf(ns.run.featuresGet("a-none"))).code).toBe("ENODEV");
  });
});

describe("the monitor", () => {
  async function expectEvent(handle: number, wanted: object): Promise<void> {
    await eventually(
      () =>
        ns.eventsOf(handle).some((event) => {
          try {
            expect(event).toMatchObject(wanted);
            return true;
          } catch {
            return false;
          }
        }),
      JSON.stringify(wanted),
    );
  }

  function isOverrun(event: NetlinkEvent | undefined): boolean {
    return event?.type === "overrun";
  }

  test("tells links, addresses and bridges' entries that come and go", async () => {
    const handle = await ns.run.monitor();
    await ns.run.linkAddVeth({ ...veth, alias: "watched" });
    await ns.run.linkAddBridge({ name: "a-br" });
    const near = await link("a-near");
    const bridge = await link("a-br");
    await expectEvent(handle, { type: "link", link: { name: "a-near", mac: veth.mac, up: false } });
    await ns.run.linkSet(bridge.ifindex, { up: true });
    await ns.run.linkSet((await link("a-peer")).ifindex, { up: true });
    await ns.run.linkSet(near.ifindex, { up: true, master: bridge.ifindex });
    await expectEvent(handle, {
      type: "link",
      link: { name: "a-near", alias: "watched", up: true, master: bridge.ifindex },
    });
    await ns.run.addressAdd(near.ifindex, "10.9.0.1", 24, false);
    await expectEvent(handle, {
      type: "address",
      address: { address: "10.9.0.1", ifindex: near.ifindex },
    });
    await ns.run.addressDelete(near.ifindex, "10.9.0.1", 24);
    await expectEvent(handle, { type: "address-deleted", address: { address: "10.9.0.1" } });
    ns.exec("bridge", "fdb", "add", "02:00:00:00:00:99", "dev", "a-near", "master", "dynamic");
    const entry = { mac: "02:00:00:00:00:99", ifindex: near.ifindex, master: bridge.ifindex };
    ns.exec("bridge", "fdb", "del", "02:00:00:00:00:99", "dev", "a-near", "master");
    await expectEvent(handle, { type: "bridge-fdb-deleted", entry });
    // of what a bridge learns nothing is told
    const told = ns.eventsOf(handle).filter((event) => JSON.stringify(event).includes(entry.mac));
    expect(told.map(({ type }) => type)).toEqual(["bridge-fdb-deleted"]);
    await ns.run.linkDelete(near.ifindex);
    await expectEvent(handle, { type: "link-deleted", ifindex: near.ifindex, name: "a-near" });
  });

  test("does not take a port's bridge messages or ARP entries for events", async () => {
    await ns.run.linkAddVeth(veth);
    await ns.run.linkAddBridge({ name: "a-br" });
    const near = await link("a-near");
    await ns.run.linkSet(near.ifindex, { up: true, master: (await link("a-br")).ifindex });
    const handle = await ns.run.monitor();
    ns.exec("bridge", "link", "set", "dev", "a-near", "learning", "off");
    ns.exec("ip", "neigh", "add", "10.1.1.1", "lladdr", "02:00:00:00:00:77", "dev", "a-near");
    await ns.run.linkDelete(near.ifindex);
    await expectEvent(handle, { type: "link-deleted", name: "a-near" });
    const deleted = ns
      .eventsOf(handle)
      .flatMap((event) => (event.type === "link-deleted" ? [event.name] : []));
    expect(deleted.sort()).toEqual(["a-near", "a-peer"]);
    expect(JSON.stringify(ns.eventsOf(handle))).not.toContain("02:00:00:00:00:77");
  });

  test("is silent once stopped", async () => {
    const handle = await ns.run.monitor();
    await ns.run.linkAddBridge({ name: "a-br" });
    await expectEvent(handle, { type: "link", link: { name: "a-br" } });
    await ns.run.stop(handle);
    const before = ns.eventsOf(handle).length;
    await ns.run.linkAddBridge({ name: "a-br2" });
    await sleep(50);
    expect(ns.eventsOf(handle).length).toBe(before);
  });

  test("tells that events were lost, and goes on", async () => {
    const handle = await ns.run.monitor();
    await ns.run.linkAddVeth(veth);
    const near = await link("a-near");
    await ns.run.linkSet(near.ifindex, { up: true });
    await ns.run.block(near.ifindex);
    await eventually(() => ns.eventsOf(handle).some(isOverrun), "an overrun");
    // what was left in the buffer is not told: the overrun is the last thing before the new
    expect(ns.eventsOf(handle).filter(isOverrun).length).toBe(1);
    expect(isOverrun(ns.eventsOf(handle).at(-1))).toBe(true);
    await ns.run.linkAddBridge({ name: "a-br" });
    await expectEvent(handle, { type: "link", link: { name: "a-br" } });
  });
});
