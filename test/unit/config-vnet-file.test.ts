// SPDX-License-Identifier: Apache-2.0
/** Vnet configurations: every format, every mistake with its place, and hostile text. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { VnetdError } from "../../src/base/errors.js";
import { defaultBridgeName, vnetIdFromBytes } from "../../src/base/vnet-id.js";
import { keyNameProblem } from "../../src/base/vnet-key.js";
import { deviceNameProblem } from "../../src/base/ifname.js";
import { maxSxpDepth, parseSxp, type SxpNode } from "../../src/config/sxp.js";
import {
  maxVnetFileChars,
  parseVnetFile,
  vnetFromParameters,
  withoutPlaces,
  suiteOfVnet,
  type VnetConfig,
} from "../../src/config/vnet-file.js";
import { parseYamlTree } from "../../src/config/yaml-tree.js";
import { printSxp, printVnet } from "../lib/print-sxp.js";

const long = (last: string): string => `0000:0000:0000:0000:0000:0000:0000:${last}`;
const vnet97: VnetConfig = {
  id: long("0097"),
  bridge: "vnet97",
  vnetif: "vnif97",
  security: "none",
  key: null,
  suite: null,
  encapsulation: null,
};

function parse(text: string, source = "file"): VnetConfig[] {
  return parseVnetFile(text, source).map(withoutPlaces);
}

function errorOf(action: () => unknown): VnetdError {
  try {
    action();
  } catch (error) {
    if (error instanceof VnetdError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("what is taken", () => {
  it.each([
    [
      "the original's example",
      "(vnet (id 97) (bridge vnet97) (vnetif vnif97)\n      (security none))\n",
    ],
    [
      "comments",
      "# a vnet (not this)\n  # nor this\n(vnet # here\n(id 97)(bridge vnet97)\n\t(vnetif vnif97)(security none) # )\n) # end",
    ],
    ["quotes", `(vnet (id "97") (bridge 'vnet97') (vnetif "vnif\\x397") (security "\\156one"))`],
    [
      "CRLF and a byte order mark",
      "\uFEFF# x\r\n(vnet (id 97)\r\n(bridge vnet97) (vnetif vnif97))\r\n",
    ],
    ["YAML", "# a vnet\nid: 97\nbridge: vnet97\nvnetif: vnif97\nsecurity: none\n"],
    ["YAML, quoted", "id: '0097'\nbridge: \"vnet97\"\nvnetif: vnif97\n"],
    ["YAML, outer key", "vnet:\n  id: 97\n  bridge: vnet97\n  vnetif: vnif97\n"],
    ["YAML, outer list", "vnets:\n- id: 97\n  bridge: vnet97\n  vnetif: vnif97\n"],
    ["YAML, list", "- {id: 97, bridge: vnet97, vnetif: vnif97}\n"],
    ["YAML, list of outer keys", "- vnet: {id: 97, bridge: vnet97, vnetif: vnif97}\n"],
    ["YAML, documents", "---\n# nothing\n---\nid: 97\nbridge: vnet97\nvnetif: vnif97\n...\n"],
    ["JSON", '{"id": 97, "bridge": "vnet97", "vnetif": "vnif97", "security": "none"}'],
    [
      "JSON with tabs",
      '[\n\t{\n\t\t"id":\t"97",\n\t\t"bridge": "vnet97", "vnetif": "vnif\\u00397"\n\t}\n]',
    ],
    ["JSON, outer key", '{"vnets": [{"id": 97, "bridge": "vnet97", "vnetif": "vnif97"}]}'],
  ])("%s", (_name, text) => {
    expect(parse(text)).toEqual([vnet97]);
  });

  it.each([
    ["id: 97", "0097"],
    ["id: 0097", "0097"],
    ["id: 1e3", "01e3"],
    ["id: 010", "0010"],
    ['{"id": 1e3}', "01e3"],
    ["id: 12_3".replace("_", ""), "0123"],
    ["(vnet (id 1e3))", "01e3"],
  ])("%s is read as the text that was written", (text, last) => {
    expect(parse(text)).toEqual([
      {
        id: long(last),
        bridge: `vnet${last}`,
        vnetif: `vnif${last}`,
        security: "none",
        key: null,
        suite: null,
        encapsulation: null,
      },
    ]);
  });

  it("takes several vnets of one text, in order", () => {
    const expected = ["0097", "0098"].map((last) => ({
      id: long(last),
      bridge: `vnet${last}`,
      vnetif: `vnif${last}`,
      security: "none",
      key: null,
      suite: null,
      encapsulation: null,
    }));
    for (const text of [
      "(vnet (id 97))(vnet (id 98))",
      "- id: 97\n- id: 98\n",
      "id: 97\n---\nid: 98\n",
      '[{"id":97},{"id":98}]',
      '{"vnets":[{"id":97},{"id":98}]}',
    ]) {
      expect(parse(text)).toEqual(expected);
    }
  });

  it.each([
    "(vnet (id 97) (bridge none))",
    "id: 97\nbridge: none",
    '{"id":97,"bridge":null}',
    "id: 97\nbridge: ~",
  ])("%s has no bridge", (text) => {
    expect(parse(text)[0]?.bridge).toBeNull();
  });

  it("takes a quoted null for a name", () => {
    expect(parse('{"id":97,"bridge":"null"}')[0]?.bridge).toBe("null");
  });

  it.each(["udp", "etherip"])("takes encapsulation %s, and prints it", (name) => {
    const [vnet] = parse(`(vnet (id 97) (encapsulation ${name}))`);
    expect(vnet?.encapsulation).toBe(name);
    expect(printVnet(vnet!)).toContain(`(encapsulation ${name})`);
  });

  it.each(["(vnet (id 97) (suppress on))", "{id: 97, suppress: on}", '{"id":97,"suppress":true}'])(
    "takes suppression in %s, and prints it",
    (text) => {
      const [vnet] = parse(text);
      expect(vnet?.suppress).toBe(true);
      expect(printVnet(vnet!)).toContain("(suppress on)");
    },
  );

  it.each([
    "(vnet (id 97) (suppress off))",
    "{id: 97, suppress: false}",
    "{id: 97, suppress: null}",
  ])("has none in %s", (text) => {
    const [vnet] = parse(text);
    expect(vnet).not.toHaveProperty("suppress");
    expect(printVnet(vnet!)).not.toMatch(/suppress/);
  });

  it.each([
    "(vnet (id 97) (group 239.1.2.3) (group6 FF15:0::3))",
    "{id: 97, group: 239.1.2.3, group6: 'ff15::3'}",
    '{"id": 97, "group": "239.1.2.3", "group6": "ff15::3"}',
  ])("takes groups of its own in %s, and prints them", (text) => {
    const [vnet] = parse(text);
    expect(vnet).toMatchObject({ group: "239.1.2.3", group6: "ff15::3" });
    expect(printVnet(vnet!)).toContain("(group 239.1.2.3) (group6 ff15::3)");
  });

  it.each(["(vnet (id 97) (group none))", "{id: 97, group: null, group6: none}"])(
    "has no group in %s",
    (text) => {
      const [vnet] = parse(text);
      expect(vnet).not.toHaveProperty("group");
      expect(vnet).not.toHaveProperty("group6");
    },
  );

  it.each(["(vnet (id 97))", "{id: 97, encapsulation: null}"])(
    "leaves it to the host in %s, and says nothing of it",
    (text) => {
      const [vnet] = parse(text);
      expect(vnet?.encapsulation).toBe(null);
      expect(printVnet(vnet!)).not.toMatch(/encapsulation/);
    },
  );

  it.each(["auth", "conf"])("parses security %s, which the controller decides on", (level) => {
    expect(parse(`(vnet (id 97) (security ${level}))`)[0]?.security).toBe(level);
    expect(vnetFromParameters({ id: "97", security: level }).security).toBe(level);
  });

  it.each([
    "(vnet (id 97) (security conf) (key /etc/vnetd/blue.key))",
    "(vnet (key '/etc/vnetd/blue.key') (security auth) (id 97))",
    "id: 97\nsecurity: conf\nkey: /etc/vnetd/blue.key\n",
    '{"id":97,"security":"auth","key":"/etc/vnetd/blue.key"}',
  ])("takes the path of a key: %s", (text) => {
    const [vnet] = parse(text);
    expect(vnet?.key).toBe("/etc/vnetd/blue.key");
    expect(printVnet(vnet!)).toContain("(key /etc/vnetd/blue.key)");
  });

  it("takes a key's name, and none for the default key", () => {
    expect(parse("(vnet (id 97) (security conf) (key blue.key))")[0]?.key).toBe("blue.key");
    expect(parse("(vnet (id 97) (security conf))")[0]?.key).toBeNull();
    expect(parse('{"id":97,"security":"conf","key":null}')[0]?.key).toBeNull();
    expect(vnetFromParameters({ id: "97", security: "auth", key: "k" }).key).toBe("k");
  });

  it.each(["sha1", "gcm", "gcm256"] as const)("takes suite %s, and prints it", (suite) => {
    for (const text of [
      `(vnet (id 97) (security conf) (suite ${suite}))`,
      `(vnet (suite ${suite}) (id 97) (security auth))`,
      `{id: 97, security: conf, suite: ${suite}}`,
    ]) {
      const [vnet] = parse(text);
      expect(vnet?.suite).toBe(suite);
      expect(printVnet(vnet!)).toContain(`(suite ${suite})`);
      expect(suiteOfVnet(vnet!)).toMatchObject({ name: suite, level: vnet?.security });
    }
    expect(vnetFromParameters({ id: "97", security: "auth", suite }).suite).toBe(suite);
  });

  it("without one it is the default, and nothing where nothing is secure", () => {
    const [secure] = parse("(vnet (id 97) (security conf))");
    expect(secure?.suite).toBe(null);
    expect(suiteOfVnet(secure!)).toMatchObject({ name: "sha1", level: "conf" });
    expect(printVnet(secure!)).not.toMatch(/suite/);
    expect(suiteOfVnet(vnet97)).toBe(undefined);
    expect(parse("{id: 97, suite: null}")[0]?.suite).toBe(null);
  });

  it("takes the key that was before, while a vnet changes its secret", () => {
    const text = "(vnet (id 97) (security conf) (key /k/new) (previousKey default.key))";
    const [vnet] = parse(text);
    expect(vnet).toMatchObject({ key: "/k/new", previousKey: "default.key" });
    expect(printVnet(vnet!)).toContain("(previousKey default.key)");
    expect(parse("(vnet (id 97) (security conf))")[0]).not.toHaveProperty("previousKey");
    expect(parse("{id: 97, previousKey: null}")[0]).not.toHaveProperty("previousKey");
  });

  it("says what does not go together", () => {
    const said = (text: string): string => {
      const { message, hint } = errorOf(() => parse(text));
      return `${message}: ${hint ?? ""}`;
    };
    expect(said("(vnet (id 97) (suite gcm))")).toMatch(
      /without security has no suite.*security conf/,
    );
    expect(said("(vnet (id 97) (security conf) (suite aes))")).toMatch(/sha1, gcm, gcm256/);
    expect(said("(vnet (id 97) (security auth) (encapsulation etherip))")).toMatch(
      /security auth is not sent by etherip: ESP carries/,
    );
    const [vnet] = parse("(vnet (id 97) (security conf) (encapsulation udp))");
    expect(vnet?.encapsulation).toBe("udp");
  });

  it("takes typed parameters", () => {
    expect(
      withoutPlaces(vnetFromParameters({ id: "97", bridge: "vnet97", vnetif: "vnif97" })),
    ).toEqual(vnet97);
    expect(vnetFromParameters({ id: "97", bridge: "none" }).bridge).toBeNull();
    expect(vnetFromParameters({ id: "97" }).places.id).toEqual({ source: "command line" });
  });

  it("keeps each parameter's place for the controller", () => {
    const [vnet] = parseVnetFile("# x\n(vnet (id 97)\n  (bridge br0))\n", "v.sxp");
    expect(vnet?.places).toEqual({
      vnet: { source: "v.sxp", line: 2, column: 1 },
      id: { source: "v.sxp", line: 2, column: 11 },
      bridge: { source: "v.sxp", line: 3, column: 11 },
      vnetif: { source: "v.sxp", line: 2, column: 1 },
      security: { source: "v.sxp", line: 2, column: 1 },
      key: { source: "v.sxp", line: 2, column: 1 },
      previousKey: { source: "v.sxp", line: 2, column: 1 },
      suite: { source: "v.sxp", line: 2, column: 1 },
      encapsulation: { source: "v.sxp", line: 2, column: 1 },
      suppress: { source: "v.sxp", line: 2, column: 1 },
      group: { source: "v.sxp", line: 2, column: 1 },
      group6: { source: "v.sxp", line: 2, column: 1 },
    });
  });
});

describe("what is refused, and where", () => {
  it.each([
    ["", "MISSING_PARAMETER", undefined, undefined],
    ["# only a comment\n", "MISSING_PARAMETER", undefined, undefined],
    ["[]", "MISSING_PARAMETER", undefined, undefined],
    ["(vnet)", "MISSING_PARAMETER", 1, 1],
    ["(vnet (bridge b))", "MISSING_PARAMETER", 1, 1],
    ["bridge: b\n", "MISSING_PARAMETER", 1, 1],
    ["(vnet (id 97) (colour red))", "UNKNOWN_PARAMETER", 1, 16],
    ["(vnet (id 97) (colour (red)))", "UNKNOWN_PARAMETER", 1, 16],
    ["id: 97\ncolour: red\n", "UNKNOWN_PARAMETER", 2, 1],
    ["id: 97\nconstructor: red\n", "UNKNOWN_PARAMETER", 2, 1],
    ["id: 97\n__proto__: {id: 98}\n", "UNKNOWN_PARAMETER", 2, 1],
    ["vnet: {id: 97}\nid: 98\n", "UNKNOWN_PARAMETER", 2, 1],
    ["vnets: [{vnet: {id: 98}}]\n", "UNKNOWN_PARAMETER", 1, 10],
    ["(dev (vif (mac aa:00:00:01:02:03)))", "UNKNOWN_PARAMETER", 1, 2],
    ["(vnet (id 97)\n (id 98))", "DUPLICATE_PARAMETER", 2, 3],
    ["id: 97\nid: 97\n", "DUPLICATE_PARAMETER", 2, 1],
    ["(vnet (id 0x61))", "BAD_VNET_ID", 1, 11],
    ["id: 0x61\n", "BAD_VNET_ID", 1, 5],
    ["id: -97\n", "BAD_VNET_ID", 1, 5],
    ["id: 97.0\n", "BAD_VNET_ID", 1, 5],
    ["id: true\n", "BAD_VNET_ID", 1, 5],
    ["(vnet (id 0))", "BAD_VNET_ID", 1, 11],
    ["(vnet (id 0:0:0:0:0:0:0:1))", "BAD_VNET_ID", 1, 11],
    ["(vnet (id 97) (bridge averyverylongname))", "BAD_NAME", 1, 23],
    ['(vnet (id 97) (vnetif "a b"))', "BAD_NAME", 1, 23],
    ["id: 97\nvnetif: a/b\n", "BAD_NAME", 2, 9],
    ["(vnet (id 97) (vnetif none))", "BAD_VALUE", 1, 23],
    ["id: 97\nvnetif: ~\n", "BAD_VALUE", 2, 9],
    ["id: ~\n", "BAD_VALUE", 1, 5],
    ["(vnet (id))", "BAD_VALUE", 1, 8],
    ["(vnet (id 97 98))", "BAD_VALUE", 1, 14],
    ["(vnet (id (97)))", "BAD_VALUE", 1, 11],
    ["(vnet (id 97) (bridge ''))", "BAD_VALUE", 1, 23],
    ["id: [97]\n", "BAD_VALUE", 1, 5],
    ["(vnet (id 97) (security high))", "BAD_VALUE", 1, 25],
    ["(vnet (id 97) (key k))", "BAD_VALUE", 1, 20],
    ["(vnet (id 97) (security none) (key k))", "BAD_VALUE", 1, 36],
    ["(vnet (id 97) (security conf) (key ./k))", "BAD_VALUE", 1, 36],
    ["(vnet (id 97) (security conf) (key a/b))", "BAD_VALUE", 1, 36],
    ["(vnet (id 97) (security conf) (key /etc/))", "BAD_VALUE", 1, 36],
    ["(vnet (id 97) (security conf) (key ..))", "BAD_VALUE", 1, 36],
    ["(vnet (id 97) (security conf) (key '/a\\x01'))", "BAD_VALUE", 1, 36],
    ["(vnet (id 97) (security conf) (key a) (key b))", "DUPLICATE_PARAMETER", 1, 40],
    ["(vnet (id 97) (security NONE))", "BAD_VALUE", 1, 25],
    ["(vnet (id 97) (suite gcm))", "BAD_VALUE", 1, 22],
    ["(vnet (id 97) (security none) (suite sha1))", "BAD_VALUE", 1, 38],
    ["(vnet (id 97) (security conf) (suite GCM))", "BAD_VALUE", 1, 38],
    ["(vnet (id 97) (security conf) (suite))", "BAD_VALUE", 1, 32],
    ["(vnet (id 97) (previousKey k))", "BAD_VALUE", 1, 28],
    ["(vnet (id 97) (security conf) (previousKey a/b))", "BAD_VALUE", 1, 44],
    ["(vnet (id 97) (security conf) (encapsulation etherip))", "BAD_VALUE", 1, 46],
    ["(vnet (id 97) (encapsulation gre))", "BAD_VALUE", 1, 30],
    ["(vnet (id 97) (suppress yes))", "BAD_VALUE", 1, 25],
    ["(vnet (id 97) (suppress constructor))", "BAD_VALUE", 1, 25],
    ["(vnet (id 97) (group 10.1.2.3))", "BAD_VALUE", 1, 22],
    ["(vnet (id 97) (group 224.0.0.251))", "BAD_VALUE", 1, 22],
    ["(vnet (id 97) (group ff15::1))", "BAD_VALUE", 1, 22],
    ["(vnet (id 97) (group 239.1.2))", "BAD_VALUE", 1, 22],
    ["(vnet (id 97) (group6 239.1.2.3))", "BAD_VALUE", 1, 23],
    ["(vnet (id 97) (group6 fd66::1))", "BAD_VALUE", 1, 23],
    ["(vnet (id 97) (group6 ff11::1))", "BAD_VALUE", 1, 23],
    ["(vnet (id 97) (group6 ff02::1))", "BAD_VALUE", 1, 23],
    ["(vnet (id 97) (security conf) (group 239.1.2.3))", "BAD_VALUE", 1, 38],
    ["(vnet (id 97) (encapsulation))", "BAD_VALUE", 1, 16],
    ["(vnet (id 97)", "SYNTAX", 1, 1],
    ["(vnet (id 97)))", "SYNTAX", 1, 15],
    ["(vnet id 97)", "SYNTAX", 1, 7],
    ["(vnet (id 97)) x", "SYNTAX", 1, 16],
    ["((vnet (id 97)))", "SYNTAX", 1, 1],
    ["(vnet (id '97)", "SYNTAX", 1, 11],
    ['(vnet (id "\\q"))', "SYNTAX", 1, 12],
    ["(vnet (id 9\u00007))", "SYNTAX", 1, 12],
    ["vnet97", "SYNTAX", 1, 1],
    ["id: 97\n  bridge: x\n", "SYNTAX", 2, undefined],
    ['{"id": 97', "SYNTAX", 1, undefined],
    ["id: &a 97\n", "SYNTAX", 1, 8],
    ["id: !!str 97\n", "SYNTAX", 1, 11],
    ["? [a]\n: b\n", "SYNTAX", 1, 3],
    ["\u0000", "SYNTAX", 1, 1],
    ["(vnet (id 97))\n(vnet (id 0097))", "DUPLICATE_VNET", 2, 11],
    ["(vnet (id 97) (bridge b))\n(vnet (id 98) (bridge b))", "DUPLICATE_VNET", 2, 23],
    ["(vnet (id 97) (vnetif b))\n(vnet (id 98) (vnetif b))", "DUPLICATE_VNET", 2, 23],
    ["(vnet (id 97) (vnetif b))\n(vnet (id 98) (bridge b))", "DUPLICATE_VNET", 2, 23],
    ["(vnet (id 97) (bridge b) (vnetif b))", "DUPLICATE_VNET", 1, 34],
    ["(vnet (id 97))\n(vnet (id 1:0:0:0:0:0:0:97))", "DUPLICATE_VNET", 2, 1],
  ])("%j: %s", (text, code, line, column) => {
    const error = errorOf(() => parseVnetFile(text, "the-file"));
    expect(error.code).toBe(code);
    expect(error.place?.source).toBe("the-file");
    expect(error.place?.line).toBe(line);
    if (column !== undefined) expect(error.place?.column).toBe(column);
    expect(error.hint).toBeTruthy();
  });

  it("refuses what is too large or too deep before it costs anything", () => {
    expect(errorOf(() => parseVnetFile(" ".repeat(maxVnetFileChars + 1), "f")).code).toBe(
      "TOO_LARGE",
    );
    expect(errorOf(() => parseVnetFile("(".repeat(maxVnetFileChars), "f")).code).toBe("SYNTAX");
    expect(errorOf(() => parseVnetFile("[".repeat(maxVnetFileChars), "f")).code).toBe("SYNTAX");
    expect(errorOf(() => parseVnetFile("()".repeat(maxVnetFileChars / 2), "f")).code).toBe(
      "TOO_LARGE",
    );
    expect(errorOf(() => parseVnetFile(`[${"a,".repeat(140_000)}]`, "f")).code).toBe("TOO_LARGE");
    expect(errorOf(() => parseVnetFile("#".repeat(maxVnetFileChars), "f")).code).toBe(
      "MISSING_PARAMETER",
    );
    expect(errorOf(() => parseVnetFile("\n".repeat(maxVnetFileChars), "f")).code).toBe(
      "MISSING_PARAMETER",
    );
    const nested = "(".repeat(maxSxpDepth) + ")".repeat(maxSxpDepth);
    expect(parseSxp(nested, "f")).toHaveLength(1);
  });

  it("refuses bad typed parameters, naming the command line", () => {
    for (const [parameters, code] of [
      [{ id: "x" }, "BAD_VNET_ID"],
      [{ id: "97", bridge: "" }, "BAD_VALUE"],
      [{ id: "97", vnetif: "a b" }, "BAD_NAME"],
      [{ id: "97", security: "high" }, "BAD_VALUE"],
      [{ id: "97", bridge: "b", vnetif: "b" }, "DUPLICATE_VNET"],
    ] as const) {
      const error = errorOf(() => vnetFromParameters(parameters));
      expect(error.code).toBe(code);
      expect(error.place).toEqual({ source: "command line" });
    }
  });
});

// ---- properties

const place = { source: "s", line: 1, column: 1 };
const sxpText = fc.string({ unit: "binary", maxLength: 12 });
const { sxpNode } = fc.letrec<{ sxpNode: SxpNode }>((tie) => ({
  sxpNode: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    sxpText.map((text): SxpNode => ({ kind: "atom", text, place })),
    fc
      .array(tie("sxpNode"), { maxLength: 5 })
      .map((items): SxpNode => ({ kind: "list", items, place })),
  ),
}));

function shape(node: SxpNode): unknown {
  return node.kind === "atom" ? node.text : node.items.map(shape);
}

const deviceName = fc
  .string({ minLength: 1, maxLength: 15 })
  .filter((name) => deviceNameProblem(name) === undefined && name !== "none");
const vnetConfig = fc
  .record({
    id: fc
      .uint8Array({ minLength: 16, maxLength: 16 })
      .map(vnetIdFromBytes)
      .filter((id) => !/^[0:]*[01]$/.test(id)),
    bridge: fc.option(deviceName),
    vnetif: deviceName,
    security: fc.constantFrom("none", "auth", "conf"),
    key: fc.option(
      fc
        .string({ unit: "binary", minLength: 1, maxLength: 20 })
        .map((name) => `/k/${name}`)
        .filter((path) => keyNameProblem(path) === undefined),
    ),
    suite: fc.constantFrom(null, "sha1", "gcm", "gcm256"),
    encapsulation: fc.constantFrom(null, "udp", "etherip"),
  })
  .map((vnet) =>
    vnet.security === "none"
      ? { ...vnet, key: null, suite: null }
      : { ...vnet, encapsulation: vnet.encapsulation === null ? null : "udp" },
  )
  .chain((vnet) => fc.constantFrom(vnet, { ...vnet, suppress: true as const }))
  .chain((vnet) =>
    fc.constantFrom(
      vnet,
      vnet.security === "none" ? { ...vnet, group: "239.1.2.3", group6: "ff15::1" } : vnet,
    ),
  )
  .filter(({ bridge, vnetif }) => bridge !== vnetif) as fc.Arbitrary<VnetConfig>;

/** A valid text of some format with a few characters removed, doubled or replaced. */
const seeds = [
  "# a vnet\n(vnet (id 97) (bridge \"vnet97\") (vnetif 'v\\x39') (security none))\n",
  "vnets:\n- id: 97\n  bridge: \"v\\u0041\"\n- {id: 98, vnetif: 'x'}\n---\nid: 0x61\n",
  '{"vnets": [{"id": 97, "bridge": null}, {"id": "1:2:3:4:5:6:7:8"}]}\n',
];
const mutation = fc.record({
  at: fc.nat(200),
  remove: fc.nat(4),
  insert: fc.oneof(
    fc.constantFrom(
      "(",
      ")",
      '"',
      "'",
      "#",
      "\\",
      "{",
      "}",
      "[",
      "]",
      ":",
      "- ",
      "\n",
      "\t",
      "&a ",
      "*a",
      "!x ",
      "|",
      ">",
      "---\n",
      "%",
      "\u0000",
      "? ",
    ),
    fc.string({ unit: "binary", maxLength: 3 }),
  ),
});
const mutated = fc
  .tuple(fc.constantFrom(...seeds), fc.array(mutation, { maxLength: 6 }))
  .map(([seed, mutations]) =>
    mutations.reduce((text, { at, remove, insert }) => {
      const position = at % (text.length + 1);
      return text.slice(0, position) + insert + text.slice(position + remove);
    }, seed),
  );

describe("whatever the text", () => {
  const onlyVnetdErrors = (text: string): void => {
    try {
      for (const vnet of parseVnetFile(text, "fuzz"))
        expect(parse(printVnet(vnet))).toEqual([withoutPlaces(vnet)]);
    } catch (error) {
      if (!(error instanceof VnetdError)) throw error;
      expect(error.code).not.toBe("INTERNAL");
      expect(error.place?.source).toBe("fuzz");
    }
  };

  it("random text yields vnets or a VnetdError", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), onlyVnetdErrors), {
      numRuns: 2000,
    });
  });

  it("mutated files yield vnets or a VnetdError", () => {
    fc.assert(fc.property(mutated, onlyVnetdErrors), { numRuns: 5000 });
  });

  it("random JSON values yield vnets or a VnetdError", () => {
    fc.assert(fc.property(fc.json(), onlyVnetdErrors), { numRuns: 1000 });
  });

  it("YAML trees of mutated files keep every place inside the text", () => {
    fc.assert(
      fc.property(mutated, (text) => {
        try {
          const lines = text.split(/\r\n|\r|\n/).length;
          for (const node of parseYamlTree(text, "f"))
            expect(node.place.line).toBeLessThanOrEqual(lines);
        } catch (error) {
          if (!(error instanceof VnetdError)) throw error;
        }
      }),
    );
  });

  it("an s-expression reads back as it was printed", () => {
    fc.assert(
      fc.property(sxpNode, (node) => {
        expect(parseSxp(printSxp(node), "s").map(shape)).toEqual([shape(node)]);
      }),
    );
  });

  it("a vnet reads back as it was printed, as JSON and with white space changed", () => {
    fc.assert(
      fc.property(vnetConfig, (vnet) => {
        const printed = printVnet(vnet);
        expect(parse(printed)).toEqual([vnet]);
        expect(parse(JSON.stringify(vnet))).toEqual([vnet]);
        expect(parse(JSON.stringify([vnet], null, "\t"))).toEqual([vnet]);
        expect(parse(printed.replaceAll(" (", "\n\t# comment (\r\n( "))).toEqual([vnet]);
      }),
    );
  });

  it("defaults are the id's", () => {
    fc.assert(
      fc.property(
        vnetConfig,
        ({ id }) => parse(`(vnet (id ${id}))`)[0]?.bridge === defaultBridgeName(id),
      ),
    );
  });
});
