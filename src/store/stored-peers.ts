// SPDX-License-Identifier: Apache-2.0
/** The configured peers, as the state file holds them. Pure. */
import { addressToText, parseAddress } from "../base/address.js";
import { parsePeer, type PeerConfig } from "../base/peer.js";
import type { YamlNode } from "../config/yaml-tree.js";
import { flagOf, itemsOf, orNull, recordOf, unreadable, wordOf } from "./state-nodes.js";

const quote = (text: string): string => JSON.stringify(text);

export function printPeer({ peer, port, addresses, fromFile }: PeerConfig): string {
  return [
    `peer: ${quote(peer)}`,
    `port: ${String(port)}`,
    `addresses: [${addresses.map(quote).join(", ")}]`,
    ...(fromFile === true ? ["fromFile: true"] : []),
  ].join("\n    ");
}

export function readPeers(node: YamlNode | undefined): PeerConfig[] {
  const seen = new Set<string>();
  return itemsOf(node).map((item) => {
    const fields = recordOf(item, ["peer", "port", "addresses"], ["fromFile"]);
    const peer = wordOf(fields.peer, parsePeer);
    if (seen.has(peer)) throw unreadable(`peer ${peer} stands here twice`, item.place);
    seen.add(peer);
    const fromFile = fields.fromFile !== undefined && flagOf(fields.fromFile);
    return {
      peer,
      port: orNull(fields.port, portOf),
      addresses: addressesOf(fields.addresses),
      ...(fromFile ? { fromFile } : {}),
    };
  });
}

function portOf(node: YamlNode): number {
  return wordOf(node, (text, place) => {
    const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
    if (port < 1 || port > 65535) throw unreadable(`"${text.slice(0, 80)}" is no port`, place);
    return port;
  });
}

function addressesOf(node: YamlNode): string[] {
  return itemsOf(node).map((item) =>
    wordOf(item, (text, place) => addressToText(parseAddress(text, place))),
  );
}
