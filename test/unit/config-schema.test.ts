// SPDX-License-Identifier: Apache-2.0
/**
 * The published schemas, the code that reads the files, and the documentation say the same: schema/ is what the code
 * makes, both judge the same texts alike, and docs/vnet-file.md has the same keys, defaults and bounds.
 */
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import { load } from "js-yaml";
import { describe, expect, it } from "vitest";
import { VnetdError } from "../../src/base/errors.js";
import { similarWord } from "../../src/base/similar.js";
import { daemonConfigSchema, parseDaemonConfig } from "../../src/config/daemon-config.js";
import { parseVnetFile } from "../../src/config/vnet-file.js";
import { vnetFileSchema } from "../../src/config/vnet-schema.js";

interface Property {
  type?: string;
  minimum?: number;
  maximum?: number;
  enum?: unknown[];
  default?: unknown;
  properties?: Record<string, Property>;
}

const fileOf = (name: string): string =>
  readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
const daemonSchema = JSON.parse(fileOf("schema/vnetd.schema.json")) as Property;
const vnetSchema = JSON.parse(fileOf("schema/vnet.schema.json")) as object;

/** Every value that is not a mapping: its path, and its schema. */
function leaves(
  { properties = {} }: Property,
  path: string[] = [],
): { path: string[]; at: Property }[] {
  return Object.entries(properties).flatMap(([key, at]) =>
    at.properties === undefined ? [{ path: [...path, key], at }] : leaves(at, [...path, key]),
  );
}

function written([key = "", ...rest]: string[], value: unknown): string {
  const inside = rest.length === 0 ? JSON.stringify(value) : `{${written(rest, value)}}`;
  return `${key}: ${inside}`;
}

function isTaken(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch (error) {
    if (error instanceof VnetdError) return false;
    throw error;
  }
}

const byDaemonSchema = new Ajv().compile(daemonSchema);
const byVnetSchema = new Ajv().compile(vnetSchema);

function judge(text: string): { code: boolean; schema: boolean } {
  return {
    code: isTaken(() => parseDaemonConfig(text, "f")),
    schema: byDaemonSchema(load(text)) === true,
  };
}

describe("schema/", () => {
  it("is what the code makes (make schema)", () => {
    expect(daemonSchema).toEqual(JSON.parse(JSON.stringify(daemonConfigSchema())));
    expect(vnetSchema).toEqual(JSON.parse(JSON.stringify(vnetFileSchema())));
  });

  it("describes every key", () => {
    expect(leaves(daemonSchema).length).toBeGreaterThan(25);
    const silent = leaves(daemonSchema).filter(({ at }) => !("description" in at));
    expect(silent.map(({ path }) => path)).toEqual([]);
  });
});

describe("vnetd.schema.json and the daemon judge alike", () => {
  it.each(leaves(daemonSchema).filter(({ at }) => at.type === "integer"))(
    "the bounds of $path",
    ({ path, at: { minimum = 0, maximum = 0 } }) => {
      // what does not fit to other keys is not the schema's to say
      const fits = path[0] === "keys" ? [] : [minimum, maximum];
      for (const value of fits)
        expect(judge(written(path, value)), String(value)).toEqual({ code: true, schema: true });
      for (const value of [minimum - 1, maximum + 1, minimum + 0.5, "x", true, [minimum], null])
        expect(judge(written(path, value)), String(value)).toEqual({ code: false, schema: false });
    },
  );

  it("the bounds of keys that must fit together", () => {
    const all = { rekeySeconds: 1, hardLimitSeconds: 2, drainSeconds: 1 };
    for (const more of [{}, { rekeySeconds: 86400, hardLimitSeconds: 604800, drainSeconds: 300 }]) {
      const keys = JSON.stringify({ ...all, rekeyMegabytes: 1, rekeyPackets: 1000, ...more });
      expect(judge(`keys: ${keys}`)).toEqual({ code: true, schema: true });
    }
  });

  it.each(leaves(daemonSchema).filter(({ at }) => at.enum !== undefined))(
    "the words of $path",
    ({ path, at }) => {
      for (const word of at.enum?.filter((each) => typeof each === "string") ?? [])
        expect(judge(written(path, word)), word).toEqual({ code: true, schema: true });
      for (const word of ["", "x", 5, ["auto"]])
        expect(judge(written(path, word)), String(word)).toEqual({ code: false, schema: false });
    },
  );

  it.each([
    ["{}", true],
    ["defaultVnets: false", true],
    ["defaultVnets: maybe", false],
    ["group: 239.1.2.3", true],
    ["group: 10.0.0.1", false],
    ["group: ff12::1", false],
    ["group6: ff12::8000:706", true],
    ["group6: FF15::1:2", true],
    ["group6: fe80::1", false],
    ["group6: ff11::1", false],
    ["group6: 224.10.0.1", false],
    ["metricsListen: 127.0.0.1:11798", true],
    ["metricsListen: '[::1]:0'", true],
    ["metricsListen: off", true],
    ["metricsListen: localhost:1", false],
    ["metricsListen: 11798", false],
    ["attach: [eth0, eth1]", true],
    ["attach: []", true],
    ["attach: eth0", false],
    ["xdp: [eth0]", true],
    ["xdp: eth0", false],
    ["attach: [eth0, eth0]", false],
    ["attach: ['a b']", false],
    ["attach: [a-name-that-is-long]", false],
    ["attach: [a, b, c, d, e, f, g, h, i]", false],
    ["hostName: host-a", true],
    ["hostName: 'a b'", false],
    ["hostName: ''", false],
    ["peers: []", true],
    ["peers: [192.0.2.1, {peer: b.example.org, port: 1799}]", true],
    ["peers: 192.0.2.1", false],
    ["peers: [{port: 5}]", false],
    ["peers: [{peer: a, port: 0}]", false],
    ["peers: [{peer: a, prot: 1}]", false],
    ["colour: red", false],
    ["limits: {entires: 5}", false],
    ["limits: 5", false],
    ["keys: [5]", false],
    ["- port: 1", false],
  ])("%s: %s", (text, taken) => {
    expect(judge(text)).toEqual({ code: taken, schema: taken });
  });
});

describe("vnet.schema.json and vnet-create judge alike", () => {
  it.each([
    ["id: 97", true],
    ["id: 0097", true],
    ["id: 1e3", true],
    ["id: '97'", true],
    ["id: 1:2:3:4:5:6:7:8", true],
    ["id: 12345:1", false],
    ["id: xyz", false],
    ["bridge: a", false],
    ["{id: 97, bridge: null, vnetif: vnif97, security: none}", true],
    ["{id: 97, bridge: 'a b'}", false],
    ["{id: 97, vnetif: null}", false],
    ["{id: 97, security: secret}", false],
    ["{id: 97, security: conf, key: /etc/vnetd/blue.key, suite: gcm}", true],
    ["{id: 97, security: conf, suite: des}", false],
    ["{id: 97, encapsulation: etherip}", true],
    ["{id: 97, encapsulation: gre}", false],
    ["{id: 97, suppress: on}", true],
    ["{id: 97, suppress: false}", true],
    ["{id: 97, suppress: always}", false],
    ["{id: 97, group: 239.1.2.3, group6: 'ff15::1'}", true],
    ["{id: 97, group: none, group6: null}", true],
    ["{id: 97, group: 10.1.2.3}", false],
    ["{id: 97, group6: 'fd66::1'}", false],
    ["{id: 97, group6: 'ff11::1'}", false],
    ["{id: 97, colour: red}", false],
    ["[{id: 97}, {id: 98}]", true],
    ["vnets: [{id: 97}, {id: 98}]", true],
    ["vnet: {id: 97}", true],
    ["{vnet: {id: 97}, id: 98}", false],
    ["5", false],
  ])("%s: %s", (text, taken) => {
    expect(isTaken(() => parseVnetFile(text, "f"))).toBe(taken);
    expect(byVnetSchema(load(text))).toBe(taken);
  });
});

describe("docs/vnet-file.md", () => {
  const text = fileOf("docs/vnet-file.md");
  const section = text.slice(text.indexOf("## The daemon's configuration"));
  const rows = new Map(
    [...section.matchAll(/^\| `(\w+)` \| (.*) \|$/gm)].map(([, key = "", rest = ""]) => [
      key,
      rest,
    ]),
  );

  it.each(leaves(daemonSchema))("has the default and the bounds of $path", ({ path, at }) => {
    const row = rows.get(path.at(-1) ?? "") ?? "";
    const value = row.slice(row.lastIndexOf(" | ") + 3).replace(/`/g, "");
    const plain = typeof at.default === "string" ? at.default : JSON.stringify(at.default);
    if (at.default !== undefined) expect(value.split(" ")[0]).toBe(plain);
    // bounds that people may meet are told; those of limits are sizes of tables
    const bounds = /(\d[\d,]*) to (\d[\d,]*)/.exec(row);
    const number = (part: string | undefined): number => Number(part?.replace(/,/g, ""));
    if (bounds !== null && at.type === "integer")
      expect([number(bounds[1]), number(bounds[2])]).toEqual([at.minimum, at.maximum]);
  });
});

describe("what a mistyped word was meant to be", () => {
  function hintOf(parse: () => unknown): string {
    try {
      parse();
    } catch (error) {
      if (error instanceof VnetdError) return error.hint ?? "";
    }
    return "";
  }

  it.each([
    ["helloSecond: 5", /^Did you mean "helloSeconds"\?/],
    ["HELLOSECONDS: 5", /^Did you mean "helloSeconds"\?/],
    ["limits: {entires: 5}", /^Did you mean "entries"\?/],
    ["floodPerSecond: 5", /^Put it below "limits"\.$/],
    ["rekeySeconds: 5", /^Put it below "keys"\.$/],
    ["colour: red", /^The keys here are defaultVnets, /],
    ["underlay: ipv5", /^Did you mean "ipv4"\? It is auto, ipv4, ipv6 or both\.$/],
    ["encapsulation: ehterip", /^Did you mean "etherip"\?/],
    ["merge: sometimes", /^It is auto, on or off\.$/],
  ])("%s", (text, hint) => {
    expect(hintOf(() => parseDaemonConfig(text, "f"))).toMatch(hint);
  });

  it("also in a vnet's file", () => {
    expect(hintOf(() => parseVnetFile("{id: 97, brigde: a}", "f"))).toMatch(
      /^Did you mean "bridge"\?/,
    );
    expect(hintOf(() => parseVnetFile("(vnet (id 97) (security cnof))", "f"))).toMatch(
      /^Did you mean "conf"\?/,
    );
  });

  it("is near, or nothing", () => {
    expect(similarWord("prot", ["port", "group"])).toBe("port");
    expect(similarWord("", ["port"])).toBeUndefined();
    expect(similarWord("completely", ["port", "group"])).toBeUndefined();
    expect(similarWord("x".repeat(100_000), ["port"])).toBeUndefined();
  });
});
