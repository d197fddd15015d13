// SPDX-License-Identifier: Apache-2.0
/**
 * /etc/vnetd/vnetd.yaml: what the daemon may be told once for all. Every key has a default, the
 * file may be missing, and whatever stands in it is checked: a mistake stops the daemon with the
 * file, line and column instead of being skipped.
 *
 * daemonKeys is the one description of the keys: the file is read by it, and schema/vnetd.schema.json is
 * made of it (`make schema`).
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
import { vnetdLimits } from "../generated/layouts.js";
import { checkDeviceName } from "../base/ifname.js";
import { parsePeer, type PeerConfig } from "../base/peer.js";
import { defaultPaths } from "../base/paths.js";
import {
  asMapping,
  boolean,
  choice,
  integer,
  mappingSchema,
  readMapping,
  refuse,
  section,
  text,
  textOf,
  type JsonSchema,
  type KeySpec,
  type KeyTable,
} from "./spec.js";
import { limitKeys, tableLimitDefaults, type TableLimits } from "./table-limits.js";
import { encapsulations } from "./vnet-file.js";
import { describeNode, isAbsentScalar, parseYamlTree, type YamlNode } from "./yaml-tree.js";

export type MergePolicy = "auto" | "on" | "off";
export type MulticastSetting = "auto" | "on" | "off";
export type LogLevel = "error" | "warn" | "info" | "debug";
export const logFormats = ["auto", "text", "json"] as const;
export type LogFormat = (typeof logFormats)[number];

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

export interface LogSettings {
  /** auto: lines where people read them, JSON elsewhere (src/log-form.ts) */
  format: LogFormat;
  /** what is less than this is not logged */
  level: LogLevel;
}

export interface ListenAddress {
  address: string;
  port: number;
}

export interface DaemonConfig {
  /** make vnets 2, 3 and 4 */
  defaultVnets: boolean;
  ageingSeconds: number;
  neighbourSeconds: number;
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
  /** files, by absolute paths: what who scrapes must show, and for TLS; null: none is asked for, there is no TLS */
  metricsTokenFile: string | null;
  metricsCertificateFile: string | null;
  metricsKeyFile: string | null;
  helloSeconds: number;
  /** how often each vnet is probed for loops; null: helloSeconds, and 10 at least */
  probeSeconds: number | null;
  /** off: everything goes by unicast, to peers and members; auto: where it is found not to work */
  multicast: MulticastSetting;
  /** how often the names of peers are resolved again */
  resolveSeconds: number;
  /** devices to attach at start, besides those that were attached before */
  attach: string[];
  /** devices that are attached with mode xdp, besides those for which a command said so */
  xdp: string[];
  /** null: the machine's */
  hostName: string | null;
  /** besides those that were added by command */
  peers: ConfiguredPeer[];
  log: LogSettings;
}

/** A peer as the file names it; `peer` is canonical, port null the daemon's own. */
export type ConfiguredPeer = Pick<PeerConfig, "peer" | "port">;

export function daemonConfigDefaults(): DaemonConfig {
  return {
    defaultVnets: true,
    ageingSeconds: 60,
    neighbourSeconds: 30,
    underlay: "auto",
    encapsulation: "udp",
    group: "224.10.0.1",
    // link scope, transient; group ids from 0x80000000 on are for anyone (RFC 3307), 1798 is our port
    group6: "ff12::8000:706",
    port: 1798,
    merge: "auto",
    limits: tableLimitDefaults(),
    // docs/vnet-file.md says why these
    keys: {
      rekeySeconds: 3600,
      rekeyMegabytes: 262_144,
      rekeyPackets: 2_147_483_648,
      hardLimitSeconds: 10_800,
      drainSeconds: 10,
    },
    metricsListen: { address: "127.0.0.1", port: 11798 },
    metricsTokenFile: null,
    metricsCertificateFile: null,
    metricsKeyFile: null,
    helloSeconds: 30,
    probeSeconds: null,
    multicast: "auto",
    resolveSeconds: 60,
    attach: [],
    xdp: [],
    hostName: null,
    peers: [],
    log: { format: "auto", level: "info" },
  };
}

export const maxDaemonConfigChars = 64 << 10;
/** VNETD_MAX_UNDERLAYS of include/vnetd/maps.h */
const maxAttachedDevices = 8;
/** VNETD_MAX_PEERS of include/vnetd/maps.h less the one that is none */
const maxConfiguredPeers = vnetdLimits.MAX_PEERS - 1;
/** what a hello's name may be long */
const maxHostNameBytes = 63;

const groupSpec = text(
  "IPv4 multicast group, the same on every host",
  { format: "ipv4", pattern: "^2(2[4-9]|3[0-9])\\." },
  (given, node) => {
    const bytes = addressBytesFromText(given);
    if (bytes !== undefined && isMappedIpv4(bytes) && isMulticastAddress(bytes))
      return addressToText(bytes);
    throw refuse(
      `"group" cannot be ${describeNode(node)}`,
      "It is an IPv4 multicast address, 224.0.0.0 to 239.255.255.255, and the same on every host.",
      node.place,
    );
  },
);

const group6Spec = text(
  "IPv6 multicast group, the same on every host",
  // a group of scope 0 or 1 never leaves the host (RFC 4291 section 2.7)
  { format: "ipv6", pattern: "^[Ff]{2}[0-9a-fA-F][2-9a-fA-F]:" },
  (given, node) => {
    const bytes = addressBytesFromText(given);
    const leaves = bytes !== undefined && ((bytes[1] ?? 0) & 0x0f) > 1;
    if (bytes !== undefined && !isMappedIpv4(bytes) && isMulticastAddress(bytes) && leaves)
      return addressToText(bytes);
    throw refuse(
      `"group6" cannot be ${describeNode(node)}`,
      "It is an IPv6 multicast address of link scope or wider, for example ff12::8000:706, and the same on every host.",
      node.place,
    );
  },
);

/** "ADDR:PORT" ([ADDR]:PORT for IPv6) or "off"; also for the command line's --metrics-listen. */
export function parseListenAddress(given: string, place?: Place): ListenAddress | null {
  if (given === "off") return null;
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(given);
  const bytes = addressBytesFromText(match?.[1] ?? match?.[2] ?? "");
  const port = Number(match?.[3] ?? Number.NaN);
  if (bytes === undefined || !(port >= 0 && port <= 65535)) {
    throw refuse(
      `"${given.slice(0, 80)}" is no address to serve metrics on`,
      "It is ADDRESS:PORT, for example 127.0.0.1:11798 or [::1]:11798, or off.",
      place,
    );
  }
  return { address: addressToText(bytes), port };
}

export function printListenAddress(listen: ListenAddress | null): string {
  if (listen === null) return "off";
  const { address, port } = listen;
  return `${address.includes(":") ? `[${address}]` : address}:${String(port)}`;
}

export function parseLogFormat(given: string, place: Place): LogFormat {
  const format = logFormats.find((each) => each === given);
  if (format !== undefined) return format;
  const said = `"${given.slice(0, 80)}" is no format of the log`;
  throw refuse(said, "It is auto, text or json.", place);
}

const metricsListenSpec: KeySpec<ListenAddress | null> = {
  describe: "where metrics are served: ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or off",
  schema: {
    anyOf: [
      { type: "string", pattern: "^(\\[[0-9a-fA-F:.]+\\]|[0-9.]+):[0-9]{1,5}$" },
      // a plain `off` is a boolean to YAML 1.1
      { enum: ["off", false] },
    ],
  },
  read: (node, name) => parseListenAddress(textOf(node, name), node.place),
  print: printListenAddress,
};

const devicesSpec = (name: string, describe: string): KeySpec<string[]> => ({
  describe,
  schema: {
    type: "array",
    items: { type: "string", minLength: 1, maxLength: 15, pattern: "^[^\\s/:%]+$" },
    maxItems: maxAttachedDevices,
    uniqueItems: true,
  },
  read: (node) => devicesOf(node, name),
});

function devicesOf(node: YamlNode, key: string): string[] {
  if (node.kind !== "sequence") {
    throw refuse(
      `"${key}" must be a list, not ${describeNode(node)}`,
      `Write for example ${key}: [eth0].`,
      node.place,
    );
  }
  if (node.items.length > maxAttachedDevices) {
    throw refuse(
      `"${key}" names more than ${maxAttachedDevices} devices`,
      "Remove some.",
      node.place,
    );
  }
  const names = node.items.map((item) => checkDeviceName(textOf(item, key), "device", item.place));
  const repeated = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (repeated >= 0) {
    throw refuse(
      `"${key}" names ${names[repeated]} twice`,
      "Remove one.",
      node.items[repeated]?.place,
    );
  }
  return names;
}

const hostNameSpec: KeySpec<string | null> = text(
  "the name that other hosts are told; left out, the machine's",
  { minLength: 1, maxLength: maxHostNameBytes, pattern: "^[^\\s\\u0000-\\u001f\\u007f]*$" },
  (given, node) => {
    if (
      new TextEncoder().encode(given).length <= maxHostNameBytes &&
      !/[\s\p{Cc}\p{Cf}\p{Cs}]/u.test(given)
    )
      return given;
    throw refuse(
      `"hostName" cannot be ${describeNode(node)}`,
      `It has at most ${maxHostNameBytes} bytes, all printable and no white space.`,
      node.place,
    );
  },
);

const file = (describe: string): KeySpec<string | null> =>
  text(describe, { pattern: "^/[^\\u0000]*$" }, (given, node) => {
    if (/^\/[^\0]*$/u.test(given)) return given;
    throw refuse(
      `${describeNode(node)} is no path of a file here`,
      "It is an absolute path.",
      node.place,
    );
  });

const portSpec = integer("a UDP port", { smallest: 1, largest: 65535 });

const peersSpec: KeySpec<ConfiguredPeer[]> = {
  describe:
    "other hosts to forward to, by address or name, besides those that were added by command",
  schema: {
    type: "array",
    maxItems: maxConfiguredPeers,
    items: {
      anyOf: [
        { type: "string", minLength: 1, maxLength: 253 },
        {
          type: "object",
          additionalProperties: false,
          required: ["peer"],
          properties: {
            peer: { type: "string", minLength: 1, maxLength: 253 },
            port: portSpec.schema,
          },
        },
      ],
    },
  },
  read: peersOf,
  print: (peers) => peers.map(({ peer, port }) => (port === null ? peer : { peer, port })),
};

function peersOf(node: YamlNode): ConfiguredPeer[] {
  if (node.kind !== "sequence") {
    throw refuse(
      `"peers" must be a list, not ${describeNode(node)}`,
      "Write for example peers: [192.0.2.1, {peer: vnet.example.org, port: 1799}].",
      node.place,
    );
  }
  if (node.items.length > maxConfiguredPeers) {
    throw refuse(
      `"peers" names more than ${maxConfiguredPeers}`,
      "A subnet needs one forwarder; a name counts as one peer.",
      node.place,
    );
  }
  const seen = new Set<string>();
  return node.items.map((item) => {
    const read = item.kind === "scalar" ? { peer: onePeer(item), port: null } : peerOf(item);
    if (seen.has(read.peer))
      throw refuse(`"peers" names ${read.peer} twice`, "Remove one.", item.place);
    seen.add(read.peer);
    return read;
  });
}

function onePeer(node: YamlNode): string {
  return parsePeer(textOf(node, "peers"), node.place);
}

function peerOf(node: YamlNode): ConfiguredPeer {
  const { peer, port } = readMapping<{ peer: string; port: number | null }>(
    asMapping(node, "a peer"),
    {
      peer: { describe: "its address or name", schema: { type: "string" }, read: onePeer },
      port: portSpec,
    },
    { peer: "", port: null },
  );
  if (peer === "") throw refuse("a peer has no address", 'Add "peer".', node.place);
  return { peer, port };
}

const maxRekeySeconds = 86_400;

const keyKeys: KeyTable<KeySettings> = {
  rekeySeconds: integer("traffic keys are changed so long after they came into use", {
    smallest: 1,
    largest: maxRekeySeconds,
  }),
  rekeyMegabytes: integer("or when so much went one way by them, in units of 2^20 bytes", {
    smallest: 1,
    largest: 1 << 20,
  }),
  rekeyPackets: integer("or so many packets", { smallest: 1000, largest: 2 ** 32 - 1 }),
  hardLimitSeconds: integer(
    "traffic keys are gone so long after they were made; at least twice rekeySeconds",
    { smallest: 2, largest: 7 * maxRekeySeconds },
  ),
  drainSeconds: integer(
    "the old keys are received with so long after a change; no more than rekeySeconds",
    { smallest: 1, largest: 300 },
  ),
};

function checkKeys(
  { rekeySeconds, hardLimitSeconds, drainSeconds }: KeySettings,
  place: Place,
): void {
  if (hardLimitSeconds < 2 * rekeySeconds) {
    throw refuse(
      `keys that change after ${rekeySeconds} s cannot be gone after ${hardLimitSeconds} s`,
      'Make "hardLimitSeconds" at least twice "rekeySeconds": a change that fails is tried again in between.',
      place,
    );
  }
  if (drainSeconds > rekeySeconds) {
    throw refuse(
      `old keys cannot stay for ${drainSeconds} s where new ones come every ${rekeySeconds} s`,
      'Make "drainSeconds" no more than "rekeySeconds".',
      place,
    );
  }
}

const logKeys: KeyTable<LogSettings> = {
  format: choice(
    "lines or JSON; auto: lines on a terminal, in the journal and in a detached daemon's file",
    logFormats,
  ),
  level: choice("what is less than this is not logged", ["error", "warn", "info", "debug"]),
};

/** Every key there is. What is added here, and to DaemonConfig, is read, published and reloaded. */
export const daemonKeys: KeyTable<DaemonConfig> = {
  defaultVnets: boolean("make vnets 2, 3 and 4"),
  ageingSeconds: integer("a MAC that is silent for so long is forgotten", {
    smallest: 1,
    largest: 86_400,
  }),
  neighbourSeconds: integer(
    "in vnets that suppress: an address is answered for so long after its owner was heard",
    { smallest: 1, largest: 3600 },
  ),
  underlay: choice("by which IP families attached devices carry vnets", [
    "auto",
    "ipv4",
    "ipv6",
    "both",
  ]),
  encapsulation: choice("how the frames of vnets are sent that name none", encapsulations),
  group: groupSpec,
  group6: group6Spec,
  port: integer("the UDP port, the same on every host of a LAN", { smallest: 1, largest: 65535 }),
  merge: choice("merging on receipt", ["auto", "on", "off"]),
  limits: section("sizes of the tables, and rates", {
    table: limitKeys,
    defaults: tableLimitDefaults,
  }),
  keys: section("when the traffic keys of secure vnets change", {
    table: keyKeys,
    defaults: () => daemonConfigDefaults().keys,
    check: checkKeys,
  }),
  metricsListen: metricsListenSpec,
  metricsTokenFile: file("a file with the token that who scrapes must show, mode 0600"),
  metricsCertificateFile: file("metrics are served by TLS: the certificate, in PEM"),
  metricsKeyFile: file("and its private key, mode 0600"),
  helloSeconds: integer("between two hellos", { smallest: 1, largest: 3600 }),
  probeSeconds: integer(
    "how often each vnet is probed for loops; left out, helloSeconds, and 10 at least",
    { smallest: 1, largest: 3600 },
  ),
  multicast: choice(
    "whether group traffic goes by multicast; auto: until it is found not to work",
    ["auto", "on", "off"],
  ),
  resolveSeconds: integer("how often the names of peers are resolved again", {
    smallest: 1,
    largest: 86_400,
  }),
  attach: devicesSpec("attach", "devices to attach, besides those attached by command"),
  xdp: devicesSpec(
    "xdp",
    "attached devices whose packets XDP receives, besides those attached so by command",
  ),
  hostName: hostNameSpec,
  peers: peersSpec,
  log: section("what is logged, and how", {
    table: logKeys,
    defaults: () => daemonConfigDefaults().log,
  }),
};

export function daemonConfigSchema(): JsonSchema {
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "vnetd.yaml",
    description: `The configuration of vnetd's daemon, ${defaultPaths.config}. Every key may be left out.`,
    ...mappingSchema(daemonKeys, daemonConfigDefaults()),
  };
}

export function parseDaemonConfig(given: string, source: string): DaemonConfig {
  if (given.length > maxDaemonConfigChars) {
    throw new VnetdError(
      "TOO_LARGE",
      `the configuration has more than ${maxDaemonConfigChars} characters`,
      {
        place: { source },
      },
    );
  }
  const documents = parseYamlTree(given, source).filter((node) => !isAbsentScalar(node));
  const [document, second] = documents;
  if (second !== undefined)
    throw refuse("there is a second document", "Put all keys into one.", second.place);
  if (document === undefined) return daemonConfigDefaults();
  const config = readMapping(
    asMapping(document, "the configuration"),
    daemonKeys,
    daemonConfigDefaults(),
  );
  if ((config.metricsCertificateFile === null) !== (config.metricsKeyFile === null)) {
    throw refuse(
      "metrics by TLS need a certificate and its key",
      'Give both "metricsCertificateFile" and "metricsKeyFile", or neither.',
      document.place,
    );
  }
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
