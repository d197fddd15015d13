// SPDX-License-Identifier: Apache-2.0
/**
 * Configurations of vnets: from the original's s-expressions, YAML, JSON, or typed parameters.
 *
 * In the path of `vnet-create`, between the socket's API and the controller. All formats become
 * the same list of placed parameters first, and one set of checks follows, so that a mistake is
 * met by the same error whichever way it came. The whole text is checked before anything is
 * returned: a file is taken whole or not at all. What depends on the machine (names in use, what
 * security can be had) is the controller's to check; the places are kept for its errors.
 *
 * Pure; throws nothing but VnetdError. docs/vnet-file.md describes the formats.
 */
import type { EncapsulationName, SecurityLevel, VnetParameters } from "../api/contract.js";
import { VnetdError, type Place } from "../base/errors.js";
import {
  defaultSuiteName,
  suiteNames,
  suiteOf,
  type Suite,
  type SuiteName,
} from "../base/suite.js";
import { checkDeviceName } from "../base/ifname.js";
import { didYouMean } from "../base/similar.js";
import { onlyGroups, vnetGroupOf } from "../base/vnet-group.js";
import { keyNameProblem } from "../base/vnet-key.js";
import { defaultBridgeName, defaultVnetifName, parseVnetId, type VnetId } from "../base/vnet-id.js";
import { parseSxp, type SxpNode } from "./sxp.js";
import {
  describeNode,
  isAbsentScalar,
  isNullScalar,
  parseYamlTree,
  type YamlMapping,
  type YamlNode,
} from "./yaml-tree.js";

export interface VnetConfig {
  id: VnetId;
  /** null: the vnetif is on no bridge */
  bridge: string | null;
  vnetif: string;
  security: SecurityLevel;
  /** an absolute path, or the name of a key of this host; null: the default key, if it is secure */
  key: string | null;
  /** while the vnet changes its secret (`key-rotate`): the key before `key`, which is accepted too; as `key` names one */
  previousKey?: string;
  /** null: the default, if it is secure (base/suite.ts) */
  suite: SuiteName | null;
  /** null: the host's default (src/config/daemon-config.ts) */
  encapsulation: EncapsulationName | null;
  /** what guests ask all for by ARP and neighbour discovery is answered on this host; absent: it is flooded */
  suppress?: true;
  /** multicast groups of its own, IPv4 and IPv6; absent: what is for all goes to those that all vnets have */
  group?: string;
  group6?: string;
}

/** Where each parameter was written; one that was not given has the vnet's own place. */
export interface VnetPlaces {
  vnet: Place;
  id: Place;
  bridge: Place;
  vnetif: Place;
  security: Place;
  key: Place;
  previousKey: Place;
  suite: Place;
  encapsulation: Place;
  suppress: Place;
  group: Place;
  group6: Place;
}

export interface PlacedVnet extends VnetConfig {
  places: VnetPlaces;
}

/** Larger texts are refused unread: 4096 vnets fit several times. */
export const maxVnetFileChars = 512 << 10;

const parameterNames = [
  "id",
  "bridge",
  "vnetif",
  "security",
  "key",
  "previousKey",
  "suite",
  "encapsulation",
  "suppress",
  "group",
  "group6",
] as const;
export type ParameterName = (typeof parameterNames)[number];
export const securityLevels: readonly SecurityLevel[] = ["none", "auth", "conf"];
export const encapsulations: readonly EncapsulationName[] = ["udp", "etherip"];
/** and as YAML's writers have them */
export const switchTexts: Readonly<Record<string, boolean>> = {
  on: true,
  off: false,
  true: true,
  false: false,
};
const outerNames = ["vnet", "vnets"];

interface RawParameter {
  /** undefined: written as null, which means "none" where that is possible */
  text: string | undefined;
  place: Place;
}

interface RawVnet {
  place: Place;
  parameters: Map<ParameterName, RawParameter>;
}

function isParameterName(name: string): name is ParameterName {
  return (parameterNames as readonly string[]).includes(name);
}

function addParameter(vnet: RawVnet, name: string, namePlace: Place, value: RawParameter): void {
  if (!isParameterName(name)) {
    throw new VnetdError(
      "UNKNOWN_PARAMETER",
      `"${name.slice(0, 80)}" is not a parameter of a vnet`,
      {
        hint: `${didYouMean(name, parameterNames)}A vnet has ${parameterNames.join(", ")}.`,
        place: namePlace,
      },
    );
  }
  if (vnet.parameters.has(name)) {
    throw new VnetdError("DUPLICATE_PARAMETER", `"${name}" is given twice`, {
      hint: "Keep one of the two.",
      place: namePlace,
    });
  }
  vnet.parameters.set(name, value);
}

// ---- s-expressions

const sxpHint = "A vnet is written (vnet (id 97) (bridge vnet97) (vnetif vnif97) (security none)).";

function rawVnetFromSxp(node: SxpNode): RawVnet {
  const head = node.kind === "list" ? node.items[0] : undefined;
  if (node.kind !== "list" || head?.kind !== "atom") {
    throw new VnetdError("SYNTAX", "expected (vnet …)", { hint: sxpHint, place: node.place });
  }
  if (head.text !== "vnet") {
    throw new VnetdError(
      "UNKNOWN_PARAMETER",
      `expected (vnet …), found (${head.text.slice(0, 80)} …)`,
      {
        hint: sxpHint,
        place: head.place,
      },
    );
  }
  const vnet: RawVnet = { place: node.place, parameters: new Map() };
  for (const item of node.items.slice(1)) {
    const [name, value, surplus] = item.kind === "list" ? item.items : [];
    if (name?.kind !== "atom") {
      throw new VnetdError("SYNTAX", "expected a parameter in parentheses", {
        hint: sxpHint,
        place: item.place,
      });
    }
    if (value?.kind === "atom" && surplus === undefined) {
      addParameter(vnet, name.text, name.place, { text: value.text, place: value.place });
      continue;
    }
    if (isParameterName(name.text)) {
      throw new VnetdError("BAD_VALUE", `"${name.text}" must have exactly one value`, {
        hint: `It is written (${name.text} VALUE).`,
        place: (surplus ?? value ?? name).place,
      });
    }
    addParameter(vnet, name.text, name.place, { text: undefined, place: name.place });
  }
  return vnet;
}

// ---- YAML and JSON

const yamlHint =
  "A vnet is a mapping, for example {id: 97, bridge: vnet97, vnetif: vnif97, security: none}.";

function rawVnetFromMapping(mapping: YamlMapping): RawVnet {
  const vnet: RawVnet = { place: mapping.place, parameters: new Map() };
  for (const { key, value } of mapping.entries) {
    if (value.kind !== "scalar" && isParameterName(key.text)) {
      throw new VnetdError(
        "BAD_VALUE",
        `"${key.text}" must be one value, not ${describeNode(value)}`,
        {
          hint: yamlHint,
          place: value.place,
        },
      );
    }
    const text = value.kind !== "scalar" || isNullScalar(value) ? undefined : value.text;
    addParameter(vnet, key.text, key.place, { text, place: value.place });
  }
  return vnet;
}

/** A mapping, a list of mappings, or either below the one key `vnet` or `vnets`. */
function rawVnetsFromNode(node: YamlNode, outerAllowed: boolean): RawVnet[] {
  if (node.kind === "sequence")
    return node.items.flatMap((item) => rawVnetsFromNode(item, outerAllowed));
  if (node.kind === "scalar") {
    throw new VnetdError("SYNTAX", `expected a vnet, found ${describeNode(node)}`, {
      hint: yamlHint,
      place: node.place,
    });
  }
  const outer = node.entries.find(({ key }) => outerNames.includes(key.text));
  if (outer === undefined || !outerAllowed) return [rawVnetFromMapping(node)];
  const other = node.entries.find((entry) => entry !== outer);
  if (other !== undefined) {
    throw new VnetdError(
      "UNKNOWN_PARAMETER",
      `"${other.key.text.slice(0, 80)}" stands beside "${outer.key.text}"`,
      {
        hint: `Put every vnet below one "${outer.key.text}", as a list.`,
        place: other.key.place,
      },
    );
  }
  return rawVnetsFromNode(outer.value, false);
}

// ---- the checks, the same for all

function boundedText(parameter: RawParameter, name: ParameterName): string {
  if (parameter.text === undefined || parameter.text === "") {
    throw new VnetdError("BAD_VALUE", `"${name}" has no value`, {
      hint: `Give it one, or leave "${name}" out.`,
      place: parameter.place,
    });
  }
  return parameter.text;
}

function bridgeOf(parameter: RawParameter | undefined, id: VnetId): string | null {
  if (parameter === undefined) return defaultBridgeName(id);
  if (parameter.text === undefined) return null;
  const text = boundedText(parameter, "bridge");
  return text === "none" ? null : checkDeviceName(text, "bridge", parameter.place);
}

function vnetifOf(parameter: RawParameter | undefined, id: VnetId): string {
  if (parameter === undefined) return defaultVnetifName(id);
  const text = boundedText(parameter, "vnetif");
  if (text === "none") {
    throw new VnetdError("BAD_VALUE", "a vnet cannot be without a vnetif", {
      hint: 'Give its name, or leave "vnetif" out for the default.',
      place: parameter.place,
    });
  }
  return checkDeviceName(text, "vnetif", parameter.place);
}

function securityOf(parameter: RawParameter | undefined): SecurityLevel {
  if (parameter === undefined) return "none";
  const text = boundedText(parameter, "security");
  const level = securityLevels.find((known) => known === text);
  if (level === undefined) {
    throw new VnetdError("BAD_VALUE", `"${text.slice(0, 80)}" is not a security level`, {
      hint: `${didYouMean(text, securityLevels)}The levels are ${securityLevels.join(", ")}.`,
      place: parameter.place,
    });
  }
  return level;
}

/** What is not of a secure vnet: whoever names a key or a suite means to have one. */
function forSecure(what: string, security: SecurityLevel, place: Place): void {
  if (security !== "none") return;
  throw new VnetdError("BAD_VALUE", `a vnet without security has no ${what}`, {
    hint: `Add security conf (or auth), or leave the ${what} out. Nothing was sent in clear.`,
    place,
  });
}

function keyOf(parameter: RawParameter | undefined, security: SecurityLevel): string | null {
  if (parameter?.text === undefined) return null;
  const { text, place } = parameter;
  const problem = keyNameProblem(text);
  if (problem !== undefined) {
    throw new VnetdError("BAD_VALUE", `the key cannot be "${text.slice(0, 80)}": ${problem}`, {
      hint: "Give the absolute path of a key file, or the name of one in the keys directory of the state directory.",
      place,
    });
  }
  forSecure("key", security, place);
  return text;
}

function suiteNameOf(
  parameter: RawParameter | undefined,
  security: SecurityLevel,
): SuiteName | null {
  if (parameter?.text === undefined) return null;
  const text = boundedText(parameter, "suite");
  const name = suiteNames.find((known) => known === text);
  if (name === undefined) {
    throw new VnetdError("BAD_VALUE", `"${text.slice(0, 80)}" is not a suite`, {
      hint: `${didYouMean(text, suiteNames)}The suites are ${suiteNames.join(", ")}; left out, it is ${defaultSuiteName}.`,
      place: parameter.place,
    });
  }
  forSecure("suite", security, parameter.place);
  return name;
}

function encapsulationOf(
  parameter: RawParameter | undefined,
  security: SecurityLevel,
): EncapsulationName | null {
  if (parameter?.text === undefined) return null;
  const text = boundedText(parameter, "encapsulation");
  const name = encapsulations.find((known) => known === text);
  if (name === undefined) {
    throw new VnetdError("BAD_VALUE", `"${text.slice(0, 80)}" is not an encapsulation`, {
      hint: `${didYouMean(text, encapsulations)}It is ${encapsulations.join(" or ")}; left out, it is the host's default.`,
      place: parameter.place,
    });
  }
  if (security !== "none" && name !== "udp") {
    throw new VnetdError("BAD_VALUE", `a vnet with security ${security} is not sent by ${name}`, {
      hint: "ESP carries its frames, in UDP inside: leave the encapsulation out.",
      place: parameter.place,
    });
  }
  return name;
}

function suppressOf(parameter: RawParameter | undefined): boolean {
  if (parameter?.text === undefined) return false;
  const text = boundedText(parameter, "suppress");
  const value = Object.hasOwn(switchTexts, text) ? switchTexts[text] : undefined;
  if (value === undefined) {
    throw new VnetdError("BAD_VALUE", `"suppress" cannot be "${text.slice(0, 80)}"`, {
      hint: "It is on or off; left out, it is off.",
      place: parameter.place,
    });
  }
  return value;
}

function groupOf(raw: RawVnet, name: "group" | "group6", security: SecurityLevel): string | null {
  const parameter = raw.parameters.get(name);
  if (parameter?.text === undefined) return null;
  const text = boundedText(parameter, name);
  if (text === "none") return null;
  const { place } = parameter;
  const found = vnetGroupOf(text, name);
  if ("problem" in found) {
    throw new VnetdError(
      "BAD_VALUE",
      `"${name}" cannot be "${text.slice(0, 80)}": ${found.problem}`,
      {
        hint: `It is for example ${name === "group" ? "239.1.0.97" : "ff15::1:97"}, the same on all hosts of the vnet; left out, it is the group that all vnets have.`,
        place,
      },
    );
  }
  if (security !== "none") {
    throw new VnetdError("BAD_VALUE", `a vnet with security ${security} has no group`, {
      hint: `Its frames go to each of its hosts encrypted, never to a group: leave "${name}" out.`,
      place,
    });
  }
  return found.group;
}

function checkVnet(raw: RawVnet): PlacedVnet {
  const idParameter = raw.parameters.get("id");
  if (idParameter === undefined) {
    throw new VnetdError("MISSING_PARAMETER", "the vnet has no id", {
      hint: "Add one, for example (id 97) in an s-expression or id: 97 in YAML.",
      place: raw.place,
    });
  }
  const id = parseVnetId(boundedText(idParameter, "id"), idParameter.place);
  const security = securityOf(raw.parameters.get("security"));
  const placeOf = (name: ParameterName): Place => raw.parameters.get(name)?.place ?? raw.place;
  const previousKey = keyOf(raw.parameters.get("previousKey"), security);
  const [group, group6] = [groupOf(raw, "group", security), groupOf(raw, "group6", security)];
  const vnet: PlacedVnet = {
    id,
    bridge: bridgeOf(raw.parameters.get("bridge"), id),
    vnetif: vnetifOf(raw.parameters.get("vnetif"), id),
    security,
    key: keyOf(raw.parameters.get("key"), security),
    ...(previousKey === null ? {} : { previousKey }),
    suite: suiteNameOf(raw.parameters.get("suite"), security),
    encapsulation: encapsulationOf(raw.parameters.get("encapsulation"), security),
    ...(suppressOf(raw.parameters.get("suppress")) ? { suppress: true } : {}),
    ...(group === null ? {} : { group }),
    ...(group6 === null ? {} : { group6 }),
    places: {
      vnet: raw.place,
      id: idParameter.place,
      bridge: placeOf("bridge"),
      vnetif: placeOf("vnetif"),
      security: placeOf("security"),
      key: placeOf("key"),
      previousKey: placeOf("previousKey"),
      suite: placeOf("suite"),
      encapsulation: placeOf("encapsulation"),
      suppress: placeOf("suppress"),
      group: placeOf("group"),
      group6: placeOf("group6"),
    },
  };
  return vnet;
}

/** Two vnets of one configuration may share neither id nor any name; nor may a vnet's own two names. */
export function checkTogether(vnets: readonly PlacedVnet[]): void {
  const ids = new Set<string>();
  const names = new Map<string, string>();
  const claim = (name: string, what: string, place: Place): void => {
    const earlier = names.get(name);
    if (earlier !== undefined) {
      throw new VnetdError(
        "DUPLICATE_VNET",
        `the name "${name}" of this ${what} is that of ${earlier} already`,
        {
          hint: "Give each bridge and vnetif a name of its own.",
          place,
        },
      );
    }
    names.set(name, what === "bridge" ? "a bridge" : "a vnetif");
  };
  for (const vnet of vnets) {
    if (ids.has(vnet.id)) {
      throw new VnetdError("DUPLICATE_VNET", `there are two vnets with id ${vnet.id}`, {
        hint: "Give each vnet an id of its own.",
        place: vnet.places.id,
      });
    }
    ids.add(vnet.id);
    if (vnet.bridge !== null) claim(vnet.bridge, "bridge", vnet.places.bridge);
    claim(vnet.vnetif, "vnetif", vnet.places.vnetif);
  }
}

/** Whether the first character that is neither blank nor in a comment is "(". */
function looksLikeSxp(text: string): boolean {
  let position = 0;
  for (;;) {
    while (/\s/.test(text[position] ?? "")) position++;
    if (text[position] !== "#") return text[position] === "(";
    const end = text.indexOf("\n", position);
    if (end < 0) return false;
    position = end;
  }
}

function rawVnetsFromYaml(text: string, source: string): RawVnet[] {
  try {
    return parseYamlTree(text, source)
      .filter((node) => !isAbsentScalar(node))
      .flatMap((node) => rawVnetsFromNode(node, true));
  } catch (error) {
    if (!(error instanceof VnetdError) || error.code !== "SYNTAX" || error.hint !== undefined)
      throw error;
    const hint = source.endsWith(".sxp") ? sxpHint : `${yamlHint} An s-expression begins with "(".`;
    throw new VnetdError("SYNTAX", error.message, {
      hint,
      ...(error.place === undefined ? {} : { place: error.place }),
      cause: error,
    });
  }
}

/** All vnets of a text. `source` names it in errors, usually a file's path. */
export function parseVnetFile(
  text: string,
  source: string,
  { mayBeEmpty = false } = {},
): PlacedVnet[] {
  if (text.length > maxVnetFileChars) {
    throw new VnetdError(
      "TOO_LARGE",
      `the configuration has more than ${maxVnetFileChars} characters`,
      {
        hint: "Split it.",
        place: { source },
      },
    );
  }
  const body = text.startsWith("\uFEFF") ? text.slice(1) : text;
  const raw = looksLikeSxp(body)
    ? parseSxp(body, source).map(rawVnetFromSxp)
    : rawVnetsFromYaml(body, source);
  if (raw.length === 0 && !mayBeEmpty) {
    throw new VnetdError("MISSING_PARAMETER", "there is no vnet in the configuration", {
      hint: sxpHint,
      place: { source },
    });
  }
  const vnets = raw.map(checkVnet);
  checkTogether(vnets);
  return vnets;
}

/** Vnets of a tree that stands in a larger file, such as the daemon's state. */
export function vnetsFromYaml(node: YamlNode): PlacedVnet[] {
  return rawVnetsFromNode(node, false).map(checkVnet);
}

/** A vnet of typed parameters. `source` names where they were typed. */
export function vnetFromParameters(
  parameters: VnetParameters,
  source = "command line",
): PlacedVnet {
  const place = { source };
  const raw: RawVnet = { place, parameters: new Map() };
  for (const name of parameterNames) {
    const text = parameters[name];
    if (text !== undefined) raw.parameters.set(name, { text, place });
  }
  const vnet = checkVnet(raw);
  checkTogether([vnet]);
  return vnet;
}

/** Without the places: what is stored and shown. */
export function withoutPlaces(vnet: VnetConfig): VnetConfig {
  const { id, bridge, vnetif, security, key, previousKey, suite, encapsulation } = vnet;
  const { suppress } = vnet;
  const previous = previousKey === undefined ? {} : { previousKey };
  const switches = {
    ...(suppress === undefined ? {} : { suppress }),
    ...onlyGroups(vnet),
  };
  return { id, bridge, vnetif, security, key, ...previous, suite, encapsulation, ...switches };
}

/** What protects the vnet; undefined: nothing does. */
export function suiteOfVnet({
  security,
  suite,
}: Pick<VnetConfig, "security" | "suite">): Suite | undefined {
  return security === "none" ? undefined : suiteOf(security, suite ?? defaultSuiteName);
}
