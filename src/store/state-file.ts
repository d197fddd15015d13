// SPDX-License-Identifier: Apache-2.0
/**
 * The text of the daemon's state files: versioned YAML that a person can read. Pure.
 *
 * Reading is strict: a key that is not known or a value of the wrong form makes the whole file
 * unreadable, because skipping it would lose it with the next write. printState and parseState
 * are inverse to one another.
 */
import { VnetdError, type Place } from "../base/errors.js";
import { checkDeviceName } from "../base/ifname.js";
import type { PeerConfig } from "../base/peer.js";
import { parseVnetId, type VnetId } from "../base/vnet-id.js";
import { vnetsFromYaml, withoutPlaces, type VnetConfig } from "../config/vnet-file.js";
import {
  describeNode,
  isAbsentScalar,
  parseYamlTree,
  type YamlMapping,
  type YamlNode,
} from "../config/yaml-tree.js";
import { itemsOf, unreadable } from "./state-nodes.js";
import {
  printRemote,
  printVif,
  readRemotes,
  readVifs,
  type StoredRemote,
  type StoredVif,
} from "./stored-entries.js";
import { printApplied, readApplied, type AppliedDirectory } from "./stored-applied.js";
import { printPeer, readPeers } from "./stored-peers.js";
import { printPort, readPorts, type StoredPort } from "./stored-ports.js";

export const stateVersion = 1;

export interface DaemonState {
  /** as configured, in the order of their making */
  vnets: VnetConfig[];
  /** of the vnets that the daemon makes by itself: those that someone deleted */
  deletedBuiltIns: VnetId[];
  /** underlay devices, in the order of their attaching */
  attached: string[];
  /** those that were attached with mode xdp */
  xdp: string[];
  /** MACs of this host that are configured */
  vifs: StoredVif[];
  /** MACs of other hosts that are configured */
  remotes: StoredRemote[];
  /** in the order of their adding */
  peers: PeerConfig[];
  /** devices that belong to a vnet without a bridge */
  ports: StoredPort[];
  /** which vnets `apply` made, by the directory that they stand in */
  applied: AppliedDirectory[];
}

export function emptyState(): DaemonState {
  return {
    vnets: [],
    deletedBuiltIns: [],
    attached: [],
    xdp: [],
    vifs: [],
    remotes: [],
    peers: [],
    ports: [],
    applied: [],
  };
}

const header =
  "# Written by vnetd, whole at every change. Edit it only while the daemon is stopped.\n";

/** JSON's strings are YAML's double-quoted ones. */
const quote = (text: string): string => JSON.stringify(text);

function printList(name: string, items: readonly string[]): string {
  return items.length === 0
    ? `${name}: []\n`
    : `${name}:\n${items.map((item) => `  - ${item}\n`).join("")}`;
}

function printStoredVnet(vnet: VnetConfig): string {
  const { id, bridge, vnetif, security, key, previousKey, suite, encapsulation } = vnet;
  const { suppress, group, group6 } = vnet;
  const lines = [
    `id: ${quote(id)}`,
    `bridge: ${bridge === null ? "null" : quote(bridge)}`,
    `vnetif: ${quote(vnetif)}`,
    `security: ${security}`,
    ...(key === null ? [] : [`key: ${quote(key)}`]),
    ...(previousKey === undefined ? [] : [`previousKey: ${quote(previousKey)}`]),
    ...(suite === null ? [] : [`suite: ${suite}`]),
    ...(encapsulation === null ? [] : [`encapsulation: ${encapsulation}`]),
    ...(suppress === undefined ? [] : ["suppress: on"]),
    ...(group === undefined ? [] : [`group: ${quote(group)}`]),
    ...(group6 === undefined ? [] : [`group6: ${quote(group6)}`]),
  ];
  return lines.join("\n    ");
}

export function printState(state: DaemonState): string {
  return [
    header,
    `version: ${stateVersion}\n`,
    printList("vnets", state.vnets.map(printStoredVnet)),
    printList("deletedBuiltIns", state.deletedBuiltIns.map(quote)),
    printList("attached", state.attached.map(quote)),
    printList("xdp", state.xdp.map(quote)),
    printList("vifs", state.vifs.map(printVif)),
    printList("remotes", state.remotes.map(printRemote)),
    printList("peers", state.peers.map(printPeer)),
    printList("ports", state.ports.map(printPort)),
    printList("applied", state.applied.map(printApplied)),
  ].join("");
}

export function printHost(hostId: string): string {
  return `# Written by vnetd once: other hosts know this one by it.\nversion: ${stateVersion}\nhostId: ${quote(hostId)}\n`;
}

function rootMapping(text: string, source: string): YamlMapping {
  const documents = parseYamlTree(text, source).filter((node) => !isAbsentScalar(node));
  const [root] = documents;
  if (root === undefined) throw unreadable("the file is empty", { source });
  if (root.kind !== "mapping" || documents.length > 1) {
    throw unreadable("the file does not hold one mapping", root.place);
  }
  return root;
}

/** The values by key, after the version was found to be ours. */
function versionedValues(
  text: string,
  source: string,
  required: readonly string[],
  optional: readonly string[] = [],
): Map<string, YamlNode> {
  const root = rootMapping(text, source);
  const versionNode = root.entries.find(({ key }) => key.text === "version")?.value;
  const versionText = versionNode?.kind === "scalar" ? versionNode.text : "";
  if (!/^[1-9][0-9]{0,8}$/.test(versionText)) {
    throw unreadable("the file has no version", versionNode?.place ?? root.place);
  }
  if (Number(versionText) > stateVersion) {
    throw new VnetdError(
      "STATE_VERSION",
      `the file has version ${versionText}, this vnetd knows up to ${stateVersion}`,
      {
        place: versionNode?.place ?? root.place,
      },
    );
  }
  const values = new Map<string, YamlNode>();
  for (const { key, value } of root.entries) {
    if (![...required, ...optional, "version"].includes(key.text)) {
      throw unreadable(`"${key.text.slice(0, 80)}" is not known`, key.place);
    }
    if (values.has(key.text)) throw unreadable(`"${key.text}" is given twice`, key.place);
    values.set(key.text, value);
  }
  const missing = required.find((name) => !values.has(name));
  if (missing !== undefined) throw unreadable(`"${missing}" is missing`, root.place);
  return values;
}

function texts(
  node: YamlNode | undefined,
  check: (text: string, place: Place) => string,
): string[] {
  const items = itemsOf(node).map((item) => {
    if (item.kind !== "scalar")
      throw unreadable(`expected a word, found ${describeNode(item)}`, item.place);
    return { text: check(item.text, item.place), place: item.place };
  });
  const seen = new Set<string>();
  for (const { text, place } of items) {
    if (seen.has(text)) throw unreadable(`"${text}" stands here twice`, place);
    seen.add(text);
  }
  return [...seen];
}

/** Whatever is wrong with the text of a state file makes it unreadable, its place kept. */
function asStateErrors<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (
      !(error instanceof VnetdError) ||
      error.code === "STATE_UNREADABLE" ||
      error.code === "STATE_VERSION"
    )
      throw error;
    throw new VnetdError("STATE_UNREADABLE", error.message, {
      cause: error,
      ...(error.place === undefined ? {} : { place: error.place }),
    });
  }
}

export function parseState(text: string, source: string): DaemonState {
  return asStateErrors(() => {
    const values = versionedValues(
      text,
      source,
      ["vnets", "deletedBuiltIns", "attached"],
      ["xdp", "vifs", "remotes", "peers", "ports", "applied"],
    );
    const vnets = itemsOf(values.get("vnets")).flatMap(vnetsFromYaml);
    const ids = new Set<string>();
    for (const vnet of vnets) {
      if (ids.has(vnet.id)) throw unreadable(`vnet ${vnet.id} stands here twice`, vnet.places.id);
      ids.add(vnet.id);
    }
    return {
      vnets: vnets.map(withoutPlaces),
      deletedBuiltIns: texts(values.get("deletedBuiltIns"), parseVnetId),
      attached: texts(values.get("attached"), (name, place) =>
        checkDeviceName(name, "device", place),
      ),
      xdp: texts(values.get("xdp"), (name, place) => checkDeviceName(name, "device", place)),
      vifs: readVifs(values.get("vifs")),
      remotes: readRemotes(values.get("remotes")),
      peers: readPeers(values.get("peers")),
      ports: readPorts(values.get("ports")),
      applied: readApplied(values.get("applied")),
    };
  });
}

/** The host id: 32 lower-case hex digits. */
export function parseHost(text: string, source: string): string {
  return asStateErrors(() => {
    const node = versionedValues(text, source, ["hostId"]).get("hostId");
    if (node?.kind !== "scalar" || !/^[0-9a-f]{32}$/.test(node.text)) {
      throw unreadable("the host id is not 32 hex digits", node?.place ?? { source });
    }
    return node.text;
  });
}
