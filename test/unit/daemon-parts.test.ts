// SPDX-License-Identifier: Apache-2.0
/** Small pure parts of the daemon: underlay state, names, the log's file, the object's constant. */
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { elfConstant } from "../../src/dataplane/elf.js";
import { identityOf } from "../../src/dataplane/pinned-programs.js";
import { macOf, peerNameOf, vnetOfAlias, aliasOf } from "../../src/host/names.js";
import { familiesOf, underlayState, unsuitable } from "../../src/host/underlay-state.js";
import { boundLogFile } from "../../src/log-file.js";
import { suiteOf, suites, type Suite } from "../../src/base/suite.js";
import { guestMtuBytes, overheadBytes } from "../../src/wire/overhead.js";
import { flagField, optionalTextField, textField, textListField } from "../../src/api/params.js";
import type { AddressInfo, LinkInfo } from "../../src/native/contract.js";

const group = "224.10.0.1";
const link: LinkInfo = {
  ifindex: 5,
  name: "eth0",
  kind: "",
  mtuBytes: 1500,
  mac: "02:00:00:00:00:01",
  up: true,
  carrier: true,
  loopback: false,
  master: 0,
  link: 0,
};
const address = (text: string, change: Partial<AddressInfo> = {}): AddressInfo => ({
  ifindex: 5,
  address: text,
  prefixLength: 24,
  family: 4,
  secondary: false,
  autojoin: false,
  tentative: false,
  deprecated: false,
  scope: 0,
  ...change,
});
const joined = address(group, { prefixLength: 32, autojoin: true });

describe("an underlay device", () => {
  const state = (links: LinkInfo[], addresses: AddressInfo[]): ReturnType<typeof underlayState> =>
    underlayState({ device: "eth0", family: 4, group, current: null }, links, addresses);

  it("names the VRF that it is a port of, and no other master", () => {
    const master = { ...link, ifindex: 9, name: "red" };
    const port = { ...link, master: 9 };
    const vrfOf = (kind: string): string => state([port, { ...master, kind }], []).vrf;
    expect(vrfOf("vrf")).toBe("red");
    expect(vrfOf("bridge")).toBe("");
    expect(state([link], []).vrf).toBe("");
  });

  it("is usable with an address, up, with carrier", () => {
    expect(state([link], [address("10.0.0.1"), joined])).toMatchObject({
      ifindex: 5,
      address: "10.0.0.1",
      mtuBytes: 1500,
      up: true,
      problem: "",
      groupJoined: true,
    });
  });

  it.each([
    ["is not there", [], [address("10.0.0.1")], /not there/],
    ["has no address", [link], [], /no IPv4 address/],
    ["has only the group's address", [link], [joined], /no IPv4 address/],
    ["has only IPv6", [link], [address("fe80::1", { family: 6 })], /no IPv4 address/],
    [
      "has another device's address",
      [link],
      [address("10.0.0.1", { ifindex: 6 })],
      /no IPv4 address/,
    ],
    ["is down", [{ ...link, up: false }], [address("10.0.0.1")], /down/],
    ["has no carrier", [{ ...link, carrier: false }], [address("10.0.0.1")], /carrier/],
    ["has a tiny MTU", [{ ...link, mtuBytes: 500 }], [address("10.0.0.1")], /MTU/],
  ])("has a problem when it %s", (_, links, addresses, problem) => {
    expect(state(links, addresses).problem).toMatch(problem);
  });

  it("prefers the kernel's first address, and no secondary one", () => {
    const addresses = [
      address("10.0.0.9", { secondary: true }),
      address("10.0.0.1"),
      address("10.0.1.1"),
    ];
    expect(state([link], addresses).address).toBe("10.0.0.1");
  });

  it("has joined when the group is there with autojoin, in whatever order", () => {
    expect(state([link], [joined, address("10.0.0.1")]).groupJoined).toBe(true);
    expect(state([link], [address("10.0.0.1"), joined]).groupJoined).toBe(true);
    const plain = { ...joined, autojoin: false };
    expect(state([link], [address("10.0.0.1"), plain]).groupJoined).toBe(false);
  });

  it("can be no loopback, no tunnel without Ethernet, none of our own", () => {
    expect(unsuitable(link)).toBeUndefined();
    expect(unsuitable({ ...link, loopback: true })).toMatch(/loopback/);
    expect(unsuitable({ ...link, mac: "" })).toMatch(/Ethernet/);
    expect(unsuitable({ ...link, alias: "vnetd 0000" })).toMatch(/belongs/);
  });
});

describe("names that follow from ids", () => {
  const id = "0000:0000:0000:0000:0000:0000:0000:0097";
  it("fit the kernel and tell vnets apart", () => {
    const names = Array.from({ length: 4096 }, (_, n) =>
      peerNameOf(`${id.slice(0, -4)}${n.toString(16).padStart(4, "0")}`),
    );
    expect(new Set(names).size).toBe(4096);
    expect(names.every((name) => name.length <= 15)).toBe(true);
  });

  it("give MACs that are local, unicast, stable, and differ by host and end", () => {
    const macs = ["h1", "h2"].flatMap((host) =>
      (["vnetif", "peer", "bridge"] as const).map((end) => macOf(host, id, end)),
    );
    expect(new Set(macs).size).toBe(6);
    expect(macs.every((mac) => (Number.parseInt(mac.slice(0, 2), 16) & 3) === 2)).toBe(true);
    expect(macOf("h1", id, "vnetif")).toBe(macs[0]);
  });

  it("are found again in an alias", () => {
    expect(vnetOfAlias(aliasOf(id))).toBe(id);
    expect(vnetOfAlias("eth0 of rack 5")).toBeUndefined();
    expect(vnetOfAlias(undefined)).toBeUndefined();
  });
});

describe("the log file of a detached daemon", () => {
  const withFile = (check: (path: string, fd: number) => void): void => {
    const directory = mkdtempSync(join(tmpdir(), "vnetd-log-"));
    const path = join(directory, "vnetd.log");
    const fd = openSync(path, "a+");
    try {
      check(path, fd);
    } finally {
      closeSync(fd);
      rmSync(directory, { recursive: true });
    }
  };

  it("is two files of about the limit at most, the last lines in them", () => {
    withFile((path, fd) => {
      for (let n = 0; n < 1000; n++) {
        writeSync(fd, `line ${String(n)}\n`);
        boundLogFile({ path, fd, maxBytes: 1000 });
        expect(fstatSync(fd).size).toBeLessThanOrEqual(1000);
      }
      const both = readFileSync(`${path}.1`, "utf8") + readFileSync(path, "utf8");
      expect(both.length).toBeGreaterThan(1000);
      expect(both.length).toBeLessThan(2020);
      expect(both).toMatch(/^(line \d+\n)+line 998\nline 999\n$/);
    });
  });

  it("is not what somebody put in its place, and need not be there", () => {
    withFile((path, fd) => {
      writeSync(fd, "x".repeat(50));
      renameSync(path, `${path}.old`);
      boundLogFile({ path, fd, maxBytes: 10 });
      writeFileSync(path, "another's");
      boundLogFile({ path, fd, maxBytes: 10 });
      expect(readFileSync(path, "utf8")).toBe("another's");
      expect(readFileSync(`${path}.old`, "utf8")).toHaveLength(50);
    });
  });
});

describe("the object's layout constant", () => {
  /** A minimal ELF64 object: a symbol table, its strings, and .rodata. */
  function object(symbol: string, value: number): Buffer {
    const strings = Buffer.from(`\0other\0${symbol}\0`);
    const rodata = Buffer.from([0, 0, 0, 0, value, 0, 0, 0]);
    const symbols = Buffer.alloc(48);
    symbols.writeUInt32LE(7, 24);
    symbols.writeUInt16LE(3, 24 + 6);
    symbols.writeBigUInt64LE(4n, 24 + 8);
    const header = Buffer.alloc(64);
    header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
    const at = { symbols: 64, strings: 64 + 48, rodata: 64 + 48 + strings.length };
    header.writeBigUInt64LE(BigInt(at.rodata + rodata.length), 40);
    header.writeUInt16LE(4, 60);
    const sections = Buffer.alloc(4 * 64);
    const section = (n: number, type: number, offset: number, size: number, link = 0): void => {
      sections.writeUInt32LE(type, n * 64 + 4);
      sections.writeBigUInt64LE(BigInt(offset), n * 64 + 24);
      sections.writeBigUInt64LE(BigInt(size), n * 64 + 32);
      sections.writeUInt32LE(link, n * 64 + 40);
    };
    section(1, 2, at.symbols, symbols.length, 2);
    section(2, 3, at.strings, strings.length);
    section(3, 1, at.rodata, rodata.length);
    return Buffer.concat([header, symbols, strings, rodata, sections]);
  }

  it("is read", () => {
    expect(elfConstant(object("vnetd_layout", 7), "vnetd_layout")).toBe(7);
  });

  it("is undefined where it is not, in other files, and in files that are cut or mangled", () => {
    const good = object("vnetd_layout", 7);
    expect(elfConstant(good, "vnetd_lay")).toBeUndefined();
    expect(elfConstant(Buffer.from("#!/bin/sh"), "vnetd_layout")).toBeUndefined();
    for (let length = 0; length < good.length; length++) {
      expect(() => elfConstant(good.subarray(0, length), "vnetd_layout")).not.toThrow();
    }
    for (let at = 6; at < good.length; at++) {
      const mangled = Buffer.from(good);
      mangled[at] = 0xff;
      expect(() => elfConstant(mangled, "vnetd_layout")).not.toThrow();
    }
  });
});

describe("parameters of a request", () => {
  it("are read by their form, own fields only", () => {
    const params = { text: "a", flag: true, list: ["x"], nothing: null };
    expect(textField(params, "text")).toBe("a");
    expect(optionalTextField(params, "nothing")).toBeUndefined();
    expect(flagField(params, "flag")).toBe(true);
    expect(flagField(params, "other")).toBe(false);
    expect(textListField(params, "list")).toEqual(["x"]);
    const refused = [
      () => textField(params, "constructor"),
      () => textField(params, "flag"),
      () => flagField(params, "text"),
      () => textListField(params, "text"),
      () => textField(5, "text"),
    ];
    for (const read of refused) expect(read).toThrow(/text|flag|list|constructor/);
  });
});

describe("a device's IPv6 place", () => {
  const group6 = "ff12::8000:706";
  const own = (text: string, change: Partial<AddressInfo> = {}): AddressInfo =>
    address(text, { family: 6, prefixLength: 64, ...change });
  const chosen = (addresses: AddressInfo[], current: string | null = null): string | null =>
    underlayState({ device: "eth0", family: 6, group: group6, current }, [link], addresses).address;

  it("has a wide address before a link-local one, and keeps the one in use", () => {
    expect(chosen([own("fe80::1")])).toBe("fe80::1");
    expect(chosen([own("fe80::1"), own("fd00::2"), own("2001:db8::3")])).toBe("fd00::2");
    expect(chosen([own("fd00::2"), own("2001:db8::3")], "2001:db8::3")).toBe("2001:db8::3");
    expect(chosen([own("fe80::1"), own("fd00::2")], "fe80::1")).toBe("fd00::2");
    expect(chosen([own("fd00::2")], "2001:db8::3")).toBe("fd00::2");
  });

  it.each([
    ["is not known to be its own", { tentative: true }],
    ["goes away", { deprecated: true }],
    ["is temporary", { secondary: true }],
  ])("does not use an address that %s", (_, change) => {
    expect(chosen([own("fd00::2", change)])).toBeNull();
    expect(chosen([own("fd00::2", change), own("fe80::1")])).toBe("fe80::1");
  });

  it("does not take the group's address, nor IPv4's, for its own", () => {
    expect(chosen([own(group6, { autojoin: true }), address("10.0.0.1")])).toBeNull();
  });

  const families = (addresses: AddressInfo[], hadIpv4 = false): readonly number[] =>
    familiesOf("auto", "eth0", hadIpv4, [link], addresses);

  it("is used by itself where there is no IPv4 address and was none", () => {
    expect(families([address("10.0.0.1"), own("fe80::1")])).toEqual([4]);
    expect(families([own("fe80::1")])).toEqual([6]);
    expect(families([own("fe80::1")], true)).toEqual([4]);
    expect(families([own("fe80::1", { tentative: true })])).toEqual([4]);
    expect(families([])).toEqual([4]);
  });

  it("is used as the configuration says", () => {
    const given = [address("10.0.0.1"), own("fe80::1")];
    expect(familiesOf("ipv6", "eth0", true, [link], given)).toEqual([6]);
    expect(familiesOf("ipv4", "eth0", false, [link], given)).toEqual([4]);
    expect(familiesOf("both", "eth0", false, [link], given)).toEqual([4, 6]);
  });
});

/** What the kernel lets through: xfrm_state_mtu() for mode BEET, its steps in its order. */
function xfrmStateMtu(suite: Suite, family: 4 | 6, mtu: number): number {
  const headerLength = 8 + suite.ivBytes + (family === 4 ? 8 : 0);
  const networkAdjust = family === 4 ? 20 : 40;
  const blockSize = Math.ceil((suite.name === "sha1" ? suite.cipherBytes || 1 : 1) / 4) * 4;
  const room = mtu - headerLength - suite.icvBytes - networkAdjust;
  return (room & ~(blockSize - 1)) + networkAdjust - 2;
}

describe("the overhead of an outer packet", () => {
  it("is IP, UDP or nothing, EtherIP's version and the vnet id, and the inner Ethernet header", () => {
    expect(overheadBytes(4, "udp")).toBe(20 + 8 + 4 + 18 + 14);
    expect(overheadBytes(6, "udp")).toBe(40 + 8 + 4 + 18 + 14);
    expect(overheadBytes(4, "etherip")).toBe(20 + 18 + 14);
    expect(overheadBytes(6, "etherip")).toBe(40 + 18 + 14);
    const places = [
      { family: 4, mtuBytes: 1500 },
      { family: 6, mtuBytes: 9000 },
    ] as const;
    expect(guestMtuBytes(places, "etherip")).toBe(1448);
    expect(guestMtuBytes([{ family: 6, mtuBytes: 1 << 17 }], "udp")).toBe(65_535 - 84);
  });

  // those of 1500 over IPv4 were measured
  it.each([
    ["auth", "sha1", 1406, 1394, 8906, 8894],
    ["conf", "sha1", 1378, 1378, 8882, 8866],
    ["auth", "gcm", 1394, 1382, 8894, 8882],
    ["conf", "gcm", 1394, 1382, 8894, 8882],
    ["auth", "gcm256", 1394, 1382, 8894, 8882],
    ["conf", "gcm256", 1394, 1382, 8894, 8882],
  ] as const)("with ESP, %s %s", (level, name, ...expected) => {
    const suite = suiteOf(level, name);
    const mtus = [1500, 9000].flatMap((mtuBytes) =>
      ([4, 6] as const).map((family) => guestMtuBytes([{ family, mtuBytes }], "udp", suite)),
    );
    expect(mtus).toEqual(expected);
  });

  it("with ESP, is the kernel's sum for every size of packet, and the smallest of all places", () => {
    for (const suite of suites) {
      for (let mtuBytes = 576; mtuBytes < 1600; mtuBytes += 1) {
        for (const family of [4, 6] as const) {
          const inner = guestMtuBytes([{ family, mtuBytes }], "etherip", suite);
          const packet = inner + overheadBytes(family, "udp");
          expect([mtuBytes, packet]).toEqual([mtuBytes, xfrmStateMtu(suite, family, mtuBytes)]);
        }
      }
    }
    const places = [
      { family: 4, mtuBytes: 1500 },
      { family: 6, mtuBytes: 1500 },
    ] as const;
    expect(guestMtuBytes(places, "udp", suiteOf("auth", "sha1"))).toBe(1394);
    const huge = [{ family: 4, mtuBytes: 1 << 17 }] as const;
    const inner = guestMtuBytes(huge, "udp", suiteOf("conf", "gcm"));
    expect(inner).toBe(
      guestMtuBytes([{ family: 4, mtuBytes: 65_535 }], "udp", suiteOf("conf", "gcm")),
    );
  });
});

describe("programs that are pinned", () => {
  const object = Buffer.from("an object");
  const constants = { fdb_capacity: Buffer.from([1, 0, 0, 0]), other: Buffer.from([2]) };

  it("are known by the object's bytes and those of its constants", () => {
    const identity = identityOf(object, constants);
    expect(identity).toMatch(/^[0-9a-f]{64}$/);
    const { fdb_capacity, other } = constants;
    expect(identityOf(Buffer.from(object), { other, fdb_capacity })).toBe(identity);
    const others = [
      identityOf(Buffer.from("an Object"), constants),
      identityOf(object, { ...constants, fdb_capacity: Buffer.from([1, 1, 0, 0]) }),
      identityOf(object, { fdb_capacity }),
      identityOf(object, { fdb_capacity, another: other }),
    ];
    expect(new Set([identity, ...others]).size).toBe(5);
  });
});
