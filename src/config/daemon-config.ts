// SPDX-License-Identifier: Apache-2.0
/**
 * /etc/vnetd/vnetd.yaml: what the daemon may be told once for all. Every key has a default, the
 * file may be missing, and whatever stands in it is checked: a mistake stops the daemon with the
 * file, line and column instead of being skipped.
 *
 * Pure: the text is handed in by the one who reads files. Throws nothing but VnetdError.
 * docs/vnet-file.md describes the keys.
 */
import type { EncapsulationName } from "../api/contract.js";
import {
  addressBytesFromText,
  addressToText,
  isMappedIpv4,
  isMulticastAddress,
  type UnderlayPolicy,
} from "../base/address.js";
import { VnetdError, type Place } from "../base/errors.js";
import { checkDeviceName } from "../base/ifname.js";
import { defaultPaths } from "../base/paths.js";
import { encapsulations } from "./vnet-file.js";
import {
  describeNode,
  isAbsentScalar,
  parseYamlTree,
  type YamlMapping,
  type YamlNode,
} from "./yaml-tree.js";

export type MergePolicy = "auto" | "on" | "off";
export type MulticastSetting = "auto" | "on" | "off";

/** Bounds of tables and rates in the kernel; include/vnetd/maps.h has the same defaults. */
export interface TableLimits {
  /** MACs, over all vnets */
  entries: number;
  entriesPerVnet: number;
  entriesPerHost: number;
  hostsPerVnet: number;
  /** next hops, over all vnets */
  hosts: number;
  /** frames that a vnet's guests here may send to the group, each second; 0: no limit */
  floodPerSecond: number;
  /** and at once */
  floodBurst: number;
}

/**
 * When the traffic keys of secure vnets are changed. Hosts need not agree: who comes first begins.
 */
export interface KeySettings {
  /** after so long they are changed, give or take a tenth */
  rekeySeconds: number;
  /** or when so much went one way by one of them, in units of 2^20 bytes */
  rekeyMegabytes: number;
  rekeyPackets: number;
  /** they are gone so long after they were made, daemon or not */
  hardLimitSeconds: number;
  /** the old ones are received with for so long after the change */
  drainSeconds: number;
}

export interface ListenAddress {
  address: string;
  port: number;
}

export interface DaemonConfig {
  /** make vnets 2, 3 and 4 */
  defaultVnets: boolean;
  ageingSeconds: number;
  underlay: UnderlayPolicy;
  /** how the frames of vnets are sent that do not say it themselves */
  encapsulation: EncapsulationName;
  /** IPv4 multicast group */
  group: string;
  /** IPv6 multicast group */
  group6: string;
  port: number;
  merge: MergePolicy;
  limits: TableLimits;
  keys: KeySettings;
  /** null: no metrics are served */
  metricsListen: ListenAddress | null;
  helloSeconds: number;
  /** how often each vnet is probed for loops; null: helloSeconds, and 10 at least */
  probeSeconds: number | null;
  /** off: everything goes by unicast, to peers and members; auto: where it is found not to work */
  multicast: MulticastSetting;
  /** how often the names of peers are resolved again */
  resolveSeconds: number;
  /** devices to attach at start, besides those that were attached before */
  attach: string[];
  /** null: the machine's */
  hostName: string | null;
}

export function daemonConfigDefaults(): DaemonConfig {
  return {
    defaultVnets: true,
    ageingSeconds: 60,
    underlay: "auto",
    encapsulation: "udp",
    group: "224.10.0.1",
    // link scope, transient; group ids from 0x80000000 on are for anyone (RFC 3307), 1798 is our port
    group6: "ff12::8000:706",
    port: 1798,
    merge: "auto",
    limits: {
      entries: 65536,
      entriesPerVnet: 16384,
      entriesPerHost: 4096,
      hostsPerVnet: 1024,
      hosts: 16384,
      floodPerSecond: 10_000,
      floodBurst: 10_000,
    },
    // docs/vnet-file.md says why these
    keys: {
      rekeySeconds: 3600,
      rekeyMegabytes: 262_144,
      rekeyPackets: 2_147_483_648,
      hardLimitSeconds: 10_800,
      drainSeconds: 10,
    },
    metricsListen: { address: "127.0.0.1", port: 11798 },
    helloSeconds: 30,
    probeSeconds: null,
    multicast: "auto",
    resolveSeconds: 60,
    attach: [],
    hostName: null,
  };
}

export const maxDaemonConfigChars = 64 << 10;
/** VNETD_MAX_UNDERLAYS of include/vnetd/maps.h */
const maxAttachedDevices = 8;
/** what a hello's name may be long */
const maxHostNameBytes = 63;

function refuse(message: string, hint: string, place: Place | undefined): VnetdError {
  return new VnetdError("CONFIG", message, { hint, ...(place === undefined ? {} : { place }) });
}

function textOf(node: YamlNode, name: string): string {
  if (node.kind === "scalar" && node.text !== "") return node.text;
  throw refuse(
    `"${name}" must be one value, not ${describeNode(node)}`,
    `Give "${name}" a value or leave it out.`,
    node.place,
  );
}

function integerOf(node: YamlNode, name: string, smallest: number, largest: number): number {
  const text = textOf(node, name);
  const value = /^[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= smallest && value <= largest)) {
    throw refuse(
      `"${name}" cannot be ${describeNode(node)}`,
      `It is a whole number from ${smallest} to ${largest}.`,
      node.place,
    );
  }
  return value;
}

function booleanOf(node: YamlNode, name: string): boolean {
  const text = textOf(node, name);
  if (text === "true" || text === "false") return text === "true";
  throw refuse(`"${name}" cannot be ${describeNode(node)}`, "It is true or false.", node.place);
}

function groupOf(node: YamlNode): string {
  const bytes = addressBytesFromText(textOf(node, "group"));
  if (bytes === undefined || !isMappedIpv4(bytes) || !isMulticastAddress(bytes)) {
    throw refuse(
      `"group" cannot be ${describeNode(node)}`,
      "It is an IPv4 multicast address, 224.0.0.0 to 239.255.255.255, and the same on every host.",
      node.place,
    );
  }
  return addressToText(bytes);
}

function group6Of(node: YamlNode): string {
  const bytes = addressBytesFromText(textOf(node, "group6"));
  // a group of scope 0 or 1 never leaves the host (RFC 4291 section 2.7)
  const leaves = bytes !== undefined && ((bytes[1] ?? 0) & 0x0f) > 1;
  if (bytes === undefined || isMappedIpv4(bytes) || !isMulticastAddress(bytes) || !leaves) {
    throw refuse(
      `"group6" cannot be ${describeNode(node)}`,
      "It is an IPv6 multicast address of link scope or wider, for example ff12::8000:706, and the same on every host.",
      node.place,
    );
  }
  return addressToText(bytes);
}

function underlayOf(node: YamlNode): UnderlayPolicy {
  const text = textOf(node, "underlay");
  if (text === "auto" || text === "ipv4" || text === "ipv6" || text === "both") return text;
  throw refuse(
    `"underlay" cannot be ${describeNode(node)}`,
    "It is auto, ipv4, ipv6 or both.",
    node.place,
  );
}

function encapsulationOf(node: YamlNode): EncapsulationName {
  const text = textOf(node, "encapsulation");
  const name = encapsulations.find((known) => known === text);
  if (name !== undefined) return name;
  throw refuse(
    `"encapsulation" cannot be ${describeNode(node)}`,
    `It is ${encapsulations.join(" or ")}: how the frames of vnets are sent that name none.`,
    node.place,
  );
}

function autoOnOff(node: YamlNode, name: string): "auto" | "on" | "off" {
  const text = textOf(node, name);
  if (text === "auto" || text === "on" || text === "off") return text;
  throw refuse(`"${name}" cannot be ${describeNode(node)}`, "It is auto, on or off.", node.place);
}

/** "ADDR:PORT" ([ADDR]:PORT for IPv6) or "off"; also for the command line's --metrics-listen. */
export function parseListenAddress(text: string, place?: Place): ListenAddress | null {
  if (text === "off") return null;
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(text);
  const bytes = addressBytesFromText(match?.[1] ?? match?.[2] ?? "");
  const port = Number(match?.[3] ?? Number.NaN);
  if (bytes === undefined || !(port >= 0 && port <= 65535)) {
    throw refuse(
      `"${text.slice(0, 80)}" is no address to serve metrics on`,
      "It is ADDRESS:PORT, for example 127.0.0.1:11798 or [::1]:11798, or off.",
      place,
    );
  }
  return { address: addressToText(bytes), port };
}

function attachOf(node: YamlNode): string[] {
  if (node.kind !== "sequence") {
    throw refuse(
      `"attach" must be a list, not ${describeNode(node)}`,
      "Write for example attach: [eth0].",
      node.place,
    );
  }
  if (node.items.length > maxAttachedDevices) {
    throw refuse(
      `"attach" names more than ${maxAttachedDevices} devices`,
      "Remove some.",
      node.place,
    );
  }
  const names = node.items.map((item) =>
    checkDeviceName(textOf(item, "attach"), "device", item.place),
  );
  const repeated = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (repeated >= 0) {
    throw refuse(
      `"attach" names ${names[repeated]} twice`,
      "Remove one.",
      node.items[repeated]?.place,
    );
  }
  return names;
}

function hostNameOf(node: YamlNode): string {
  const text = textOf(node, "hostName");
  if (
    new TextEncoder().encode(text).length > maxHostNameBytes ||
    /[\s\p{Cc}\p{Cf}\p{Cs}]/u.test(text)
  ) {
    throw refuse(
      `"hostName" cannot be ${describeNode(node)}`,
      `It has at most ${maxHostNameBytes} bytes, all printable and no white space.`,
      node.place,
    );
  }
  return text;
}

type Setter = (config: DaemonConfig, node: YamlNode) => void;

/** A Map, so that a key such as "constructor" is as unknown as any other. */
const limitSetters = new Map<string, (limits: TableLimits, node: YamlNode) => void>([
  ["entries", (limits, node) => (limits.entries = integerOf(node, "entries", 16, 1 << 20))],
  [
    "entriesPerVnet",
    (limits, node) => (limits.entriesPerVnet = integerOf(node, "entriesPerVnet", 1, 1 << 20)),
  ],
  [
    "entriesPerHost",
    (limits, node) => (limits.entriesPerHost = integerOf(node, "entriesPerHost", 1, 1 << 20)),
  ],
  [
    "hostsPerVnet",
    (limits, node) => (limits.hostsPerVnet = integerOf(node, "hostsPerVnet", 1, 1 << 17)),
  ],
  ["hosts", (limits, node) => (limits.hosts = integerOf(node, "hosts", 16, 1 << 17))],
  [
    "floodPerSecond",
    (limits, node) => (limits.floodPerSecond = integerOf(node, "floodPerSecond", 0, 10_000_000)),
  ],
  [
    "floodBurst",
    (limits, node) => (limits.floodBurst = integerOf(node, "floodBurst", 1, 1_000_000)),
  ],
]);

const maxRekeySeconds = 86_400;

const keySetters = new Map<string, (keys: KeySettings, node: YamlNode) => void>([
  [
    "rekeySeconds",
    (keys, node) => (keys.rekeySeconds = integerOf(node, "rekeySeconds", 1, maxRekeySeconds)),
  ],
  [
    "rekeyMegabytes",
    (keys, node) => (keys.rekeyMegabytes = integerOf(node, "rekeyMegabytes", 1, 1 << 20)),
  ],
  [
    "rekeyPackets",
    (keys, node) => (keys.rekeyPackets = integerOf(node, "rekeyPackets", 1000, 2 ** 32 - 1)),
  ],
  [
    "hardLimitSeconds",
    (keys, node) =>
      (keys.hardLimitSeconds = integerOf(node, "hardLimitSeconds", 2, 7 * maxRekeySeconds)),
  ],
  ["drainSeconds", (keys, node) => (keys.drainSeconds = integerOf(node, "drainSeconds", 1, 300))],
]);

function keysOf(keys: KeySettings, node: YamlNode): void {
  eachKey(asMapping(node, '"keys"'), keySetters, keys);
  const { rekeySeconds, hardLimitSeconds, drainSeconds } = keys;
  if (hardLimitSeconds < 2 * rekeySeconds) {
    throw refuse(
      `keys that change after ${rekeySeconds} s cannot be gone after ${hardLimitSeconds} s`,
      'Make "hardLimitSeconds" at least twice "rekeySeconds": a change that fails is tried again in between.',
      node.place,
    );
  }
  if (drainSeconds > rekeySeconds) {
    throw refuse(
      `old keys cannot stay for ${drainSeconds} s where new ones come every ${rekeySeconds} s`,
      'Make "drainSeconds" no more than "rekeySeconds".',
      node.place,
    );
  }
}

const setters = new Map<string, Setter>([
  ["defaultVnets", (config, node) => (config.defaultVnets = booleanOf(node, "defaultVnets"))],
  [
    "ageingSeconds",
    (config, node) => (config.ageingSeconds = integerOf(node, "ageingSeconds", 1, 86_400)),
  ],
  ["group", (config, node) => (config.group = groupOf(node))],
  ["group6", (config, node) => (config.group6 = group6Of(node))],
  ["underlay", (config, node) => (config.underlay = underlayOf(node))],
  ["encapsulation", (config, node) => (config.encapsulation = encapsulationOf(node))],
  ["port", (config, node) => (config.port = integerOf(node, "port", 1, 65535))],
  ["merge", (config, node) => (config.merge = autoOnOff(node, "merge"))],
  ["multicast", (config, node) => (config.multicast = autoOnOff(node, "multicast"))],
  [
    "resolveSeconds",
    (config, node) => (config.resolveSeconds = integerOf(node, "resolveSeconds", 1, 86_400)),
  ],
  ["limits", (config, node) => eachKey(asMapping(node, '"limits"'), limitSetters, config.limits)],
  ["keys", (config, node) => keysOf(config.keys, node)],
  [
    "metricsListen",
    (config, node) =>
      (config.metricsListen = parseListenAddress(textOf(node, "metricsListen"), node.place)),
  ],
  [
    "helloSeconds",
    (config, node) => (config.helloSeconds = integerOf(node, "helloSeconds", 1, 3600)),
  ],
  [
    "probeSeconds",
    (config, node) => (config.probeSeconds = integerOf(node, "probeSeconds", 1, 3600)),
  ],
  ["attach", (config, node) => (config.attach = attachOf(node))],
  ["hostName", (config, node) => (config.hostName = hostNameOf(node))],
]);

function asMapping(node: YamlNode, what: string): YamlMapping {
  if (node.kind === "mapping") return node;
  throw refuse(
    `${what} must be a mapping, not ${describeNode(node)}`,
    "Write KEY: VALUE, one on a line.",
    node.place,
  );
}

function eachKey<T>(
  mapping: YamlMapping,
  known: Map<string, (target: T, node: YamlNode) => void>,
  target: T,
): void {
  const seen = new Set<string>();
  for (const { key, value } of mapping.entries) {
    const set = known.get(key.text);
    if (set === undefined) {
      throw new VnetdError(
        "UNKNOWN_PARAMETER",
        `"${key.text.slice(0, 80)}" is not a key of the configuration`,
        {
          hint: `The keys here are ${[...known.keys()].join(", ")}.`,
          place: key.place,
        },
      );
    }
    if (seen.has(key.text)) {
      throw new VnetdError("DUPLICATE_PARAMETER", `"${key.text}" is given twice`, {
        hint: "Keep one of the two.",
        place: key.place,
      });
    }
    seen.add(key.text);
    set(target, value);
  }
}

export function parseDaemonConfig(text: string, source: string): DaemonConfig {
  if (text.length > maxDaemonConfigChars) {
    throw new VnetdError(
      "TOO_LARGE",
      `the configuration has more than ${maxDaemonConfigChars} characters`,
      {
        place: { source },
      },
    );
  }
  const config = daemonConfigDefaults();
  const documents = parseYamlTree(text, source).filter((node) => !isAbsentScalar(node));
  const [document, second] = documents;
  if (second !== undefined)
    throw refuse("there is a second document", "Put all keys into one.", second.place);
  if (document !== undefined) eachKey(asMapping(document, "the configuration"), setters, config);
  return config;
}

/**
 * The configuration of `path`, or of the default file, which need not be there (a file that was
 * named must be). `readText` reads a whole file or throws an Error with the errno's name as `code`.
 */
export function loadDaemonConfig(
  path: string | undefined,
  readText: (path: string) => string,
): DaemonConfig {
  const source = path ?? defaultPaths.config;
  let text: string;
  try {
    text = readText(source);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    if (path === undefined && code === "ENOENT") return daemonConfigDefaults();
    throw new VnetdError(
      "FILE_UNREADABLE",
      `the configuration ${source} cannot be read (${code})`,
      {
        hint:
          code === "ENOENT" ? "Make it, or leave --config out." : "Check the file's permissions.",
        place: { source },
        cause: error,
      },
    );
  }
  return parseDaemonConfig(text, source);
}
