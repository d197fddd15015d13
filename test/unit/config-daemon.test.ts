// SPDX-License-Identifier: Apache-2.0
/** The daemon's own configuration: defaults, every key, every mistake with its place. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { VnetdError } from "../../src/base/errors.js";
import { isWornOut, keyTimesOf } from "../../src/controller/key-times.js";
import { defaultTimes } from "../../src/keys/session.js";
import {
  daemonConfigDefaults,
  loadDaemonConfig,
  parseDaemonConfig,
  parseListenAddress,
} from "../../src/config/daemon-config.js";

function errorOf(action: () => unknown): VnetdError {
  try {
    action();
  } catch (error) {
    if (error instanceof VnetdError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const every = `# all keys
defaultVnets: false
ageingSeconds: 5
neighbourSeconds: 6
group: 239.1.2.3
group6: FF15::1:2
underlay: both
encapsulation: etherip
port: 11798
merge: "off"
limits:
  entries: 100
  entriesPerVnet: 50
  entriesPerHost: 20
  hostsPerVnet: 10
  hosts: 30
  floodPerSecond: 0
  floodBurst: 77
  neighbours: 40
  neighboursPerVnet: 9
keys:
  rekeySeconds: 2
  rekeyMegabytes: 3
  rekeyPackets: 4000
  hardLimitSeconds: 5
  drainSeconds: 1
metricsListen: 0.0.0.0:9100
metricsTokenFile: /etc/vnetd/metrics.token
metricsCertificateFile: /etc/vnetd/metrics.crt
metricsKeyFile: /etc/vnetd/metrics.key
helloSeconds: 3
probeSeconds: 4
multicast: off
resolveSeconds: 7
attach: [eth0, eth1]
xdp: [eth1]
hostName: host-a
peers: [192.0.2.7, {peer: B.Example.org, port: 1799}]
log:
  level: debug
  format: json
`;

describe("daemon configuration", () => {
  it("has a default for everything", () => {
    for (const text of ["", "# nothing\n", "---\n", "{}"])
      expect(parseDaemonConfig(text, "f")).toEqual(daemonConfigDefaults());
  });

  it("has the defaults that the kernel's side has", () => {
    const header = readFileSync(new URL("../../include/vnetd/maps.h", import.meta.url), "utf8");
    const valueOf = (name: string): number =>
      Number(new RegExp(`${name} = (\\d+)`).exec(header)?.[1]);
    expect(daemonConfigDefaults().limits).toEqual({
      entries: valueOf("VNETD_DEFAULT_FDB_ENTRIES"),
      entriesPerVnet: valueOf("VNETD_DEFAULT_FDB_PER_VNET"),
      entriesPerHost: valueOf("VNETD_DEFAULT_FDB_PER_HOST"),
      hostsPerVnet: valueOf("VNETD_DEFAULT_HOSTS_PER_VNET"),
      hosts: valueOf("VNETD_DEFAULT_NEXTHOPS"),
      floodPerSecond: valueOf("VNETD_DEFAULT_FLOOD_PER_SECOND"),
      floodBurst: valueOf("VNETD_DEFAULT_FLOOD_BURST"),
      neighbours: valueOf("VNETD_DEFAULT_NEIGHBOURS"),
      neighboursPerVnet: valueOf("VNETD_DEFAULT_NEIGHBOURS_PER_VNET"),
    });
  });

  it("has key times that the exchanges have too, and that fit together", () => {
    const { keys } = daemonConfigDefaults();
    expect(keyTimesOf(keys)).toEqual(defaultTimes);
    const text = Object.entries(keys).map(([name, value]) => `  ${name}: ${value}\n`);
    expect(parseDaemonConfig(`keys:\n${text.join("")}`, "f").keys).toEqual(keys);
    const short = parseDaemonConfig("keys: {rekeySeconds: 10, hardLimitSeconds: 20}", "f").keys;
    expect(keyTimesOf(short)).toMatchObject({ rekeyMs: 10_000, hardMs: 20_000, drainMs: 10_000 });
  });

  it("keys are worn out by bytes, or by packets", () => {
    const keys = { ...daemonConfigDefaults().keys, rekeyMegabytes: 2, rekeyPackets: 5000 };
    const isWorn = (packets: number, bytes: number): boolean => isWornOut(keys, { packets, bytes });
    expect([isWorn(4999, 2 * 1048576 - 1), isWorn(5000, 0), isWorn(0, 2 * 1048576)]).toEqual([
      false,
      true,
      true,
    ]);
    expect(isWornOut(keys, { packets: 5000n, bytes: 0n })).toBe(true);
  });

  it("says what does not fit together, and what to do", () => {
    const { message, hint } = errorOf(() => parseDaemonConfig("keys: {rekeySeconds: 6000}", "f"));
    expect(message).toBe("keys that change after 6000 s cannot be gone after 10800 s");
    expect(hint).toMatch(/"hardLimitSeconds" at least twice "rekeySeconds"/);
  });

  it("takes every key", () => {
    expect(parseDaemonConfig(every, "f")).toEqual({
      defaultVnets: false,
      ageingSeconds: 5,
      neighbourSeconds: 6,
      group: "239.1.2.3",
      group6: "ff15::1:2",
      underlay: "both",
      encapsulation: "etherip",
      port: 11798,
      merge: "off",
      limits: {
        entries: 100,
        entriesPerVnet: 50,
        entriesPerHost: 20,
        hostsPerVnet: 10,
        hosts: 30,
        floodPerSecond: 0,
        floodBurst: 77,
        neighbours: 40,
        neighboursPerVnet: 9,
      },
      keys: {
        rekeySeconds: 2,
        rekeyMegabytes: 3,
        rekeyPackets: 4000,
        hardLimitSeconds: 5,
        drainSeconds: 1,
      },
      metricsListen: { address: "0.0.0.0", port: 9100 },
      metricsTokenFile: "/etc/vnetd/metrics.token",
      metricsCertificateFile: "/etc/vnetd/metrics.crt",
      metricsKeyFile: "/etc/vnetd/metrics.key",
      helloSeconds: 3,
      probeSeconds: 4,
      multicast: "off",
      resolveSeconds: 7,
      attach: ["eth0", "eth1"],
      xdp: ["eth1"],
      hostName: "host-a",
      peers: [
        { peer: "192.0.2.7", port: null },
        { peer: "b.example.org", port: 1799 },
      ],
      log: { level: "debug", format: "json" },
    });
    expect(parseDaemonConfig("metricsListen: off\n", "f").metricsListen).toBeNull();
  });

  it.each(["metricsKeyFile", "metricsCertificateFile"])("%s is not enough for TLS", (name) => {
    expect(errorOf(() => parseDaemonConfig(`${name}: /a\n`, "f"))).toMatchObject({
      ...{ code: "CONFIG", hint: expect.stringContaining("both") as string },
    });
  });

  it.each([
    ["colour: red", "UNKNOWN_PARAMETER", 1, 1],
    ["constructor: red", "UNKNOWN_PARAMETER", 1, 1],
    ["limits:\n  entires: 5\n", "UNKNOWN_PARAMETER", 2, 3],
    ["port: 1\nport: 2\n", "DUPLICATE_PARAMETER", 2, 1],
    ["port: 0", "CONFIG", 1, 7],
    ["port: 65536", "CONFIG", 1, 7],
    ["port: 0x10", "CONFIG", 1, 7],
    ["port:", "CONFIG", 1, undefined],
    ["ageingSeconds: 1.5", "CONFIG", 1, 16],
    ["ageingSeconds: 0", "CONFIG", 1, 16],
    ["defaultVnets: yes", "CONFIG", 1, 15],
    ["group: 10.0.0.1", "CONFIG", 1, 8],
    ["group: ff02::1", "CONFIG", 1, 8],
    ["group6: 224.10.0.1", "CONFIG", 1, 9],
    ["group6: fe80::1", "CONFIG", 1, 9],
    ["group6: ff11::1", "CONFIG", 1, 9],
    ["underlay: ipv5", "CONFIG", 1, 11],
    ["encapsulation: gre", "CONFIG", 1, 16],
    ["encapsulation: [udp]", "CONFIG", 1, 16],
    ["encapsulation:", "CONFIG", 1, 1],
    ["merge: maybe", "CONFIG", 1, 8],
    ["limits: 5", "CONFIG", 1, 9],
    ["limits: {entries: -1}", "CONFIG", 1, 19],
    ["keys: 5", "CONFIG", 1, 7],
    ["keys: {rekeyMinutes: 60}", "UNKNOWN_PARAMETER", 1, 8],
    ["keys: {rekeySeconds: 0}", "CONFIG", 1, 22],
    ["keys: {rekeySeconds: 1e3}", "CONFIG", 1, 22],
    ["keys: {rekeyMegabytes: 0}", "CONFIG", 1, 24],
    ["keys: {rekeyPackets: 4294967296}", "CONFIG", 1, 22],
    ["keys: {drainSeconds: 301}", "CONFIG", 1, 22],
    ["keys: {hardLimitSeconds: 7199}", "CONFIG", 1, 7],
    ["keys:\n  rekeySeconds: 5401\n", "CONFIG", 2, 3],
    ["keys: {rekeySeconds: 9}", "CONFIG", 1, 7],
    ["metricsListen: 11798", "CONFIG", 1, 16],
    ["metricsTokenFile: metrics.token", "CONFIG", 1, 19],
    ["metricsKeyFile: [/a]", "CONFIG", 1, 17],
    ['metricsCertificateFile: ""', "CONFIG", 1, 25],
    ["attach: eth0", "CONFIG", 1, 9],
    ["xdp: eth0", "CONFIG", 1, 6],
    ["attach: [eth0, eth0]", "CONFIG", 1, 16],
    ["attach: [a, b, c, d, e, f, g, h, i]", "CONFIG", 1, 9],
    ["attach: ['a b']", "BAD_NAME", 1, 10],
    ['hostName: "a\\e[31m"', "CONFIG", 1, 11],
    ["peers: 192.0.2.1", "CONFIG", 1, 8],
    ["peers: [192.0.2.1, 192.0.2.1]", "CONFIG", 1, 20],
    ["peers: [224.0.0.1]", "BAD_PEER", 1, 9],
    ["peers: [{port: 5}]", "CONFIG", 1, 9],
    ["peers: [{peer: a, port: 0}]", "CONFIG", 1, 25],
    ["peers: [{peer: a, prot: 1}]", "UNKNOWN_PARAMETER", 1, 19],
    ["log: {level: loud}", "CONFIG", 1, 14],
    ["log: {format: xml}", "CONFIG", 1, 15],
    ["- port: 1", "CONFIG", 1, 1],
    ["port: 1\n---\nport: 2\n", "CONFIG", 3, 1],
    ["port: [", "SYNTAX", 1, undefined],
  ])("%j: %s", (text, code, line, column) => {
    const error = errorOf(() => parseDaemonConfig(text, "the-file"));
    expect(error.code).toBe(code);
    expect(error.place?.source).toBe("the-file");
    expect(error.place?.line).toBe(line);
    if (column !== undefined) expect(error.place?.column).toBeGreaterThanOrEqual(column);
    if (code !== "SYNTAX") expect(error.hint).toBeTruthy();
  });

  it.each([
    ["127.0.0.1:11798", { address: "127.0.0.1", port: 11798 }],
    ["[::1]:0", { address: "::1", port: 0 }],
    ["off", null],
  ])("serves metrics on %s", (text, expected) => {
    expect(parseListenAddress(text)).toEqual(expected);
  });

  it.each([
    "",
    ":1",
    "localhost:1",
    "1.2.3.4",
    "1.2.3.4:",
    "1.2.3.4:65536",
    "::1:1",
    "[1.2.3:1",
    "1.2.3.4:1 ",
  ])("cannot serve metrics on %j", (text) => {
    expect(errorOf(() => parseListenAddress(text)).code).toBe("CONFIG");
  });

  it("may be missing at the default path only", () => {
    const missing = (): string => {
      throw Object.assign(new Error("x"), { code: "ENOENT" });
    };
    const forbidden = (): string => {
      throw Object.assign(new Error("x"), { code: "EACCES" });
    };
    expect(loadDaemonConfig(undefined, missing)).toEqual(daemonConfigDefaults());
    expect(errorOf(() => loadDaemonConfig("/x.yaml", missing))).toMatchObject({
      code: "FILE_UNREADABLE",
      place: { source: "/x.yaml" },
    });
    expect(errorOf(() => loadDaemonConfig(undefined, forbidden)).code).toBe("FILE_UNREADABLE");
    expect(loadDaemonConfig("/x.yaml", () => "port: 5").port).toBe(5);
  });

  it("random and mutated text yields a configuration or a VnetdError", () => {
    const cut = fc
      .tuple(fc.nat(every.length), fc.nat(20), fc.string({ maxLength: 5 }))
      .map(([at, remove, insert]) => every.slice(0, at) + insert + every.slice(at + remove));
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary", maxLength: 80 }), cut), (text) => {
        try {
          parseDaemonConfig(text, "f");
        } catch (error) {
          if (!(error instanceof VnetdError)) throw error;
        }
      }),
      { numRuns: 2000 },
    );
  });
});
