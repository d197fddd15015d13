// SPDX-License-Identifier: Apache-2.0
/** Reads the nodes of a state file strictly: whatever is not as it was written makes it unreadable. */
import { VnetdError, type Place } from "../base/errors.js";
import { describeNode, isNullScalar, type YamlNode } from "../config/yaml-tree.js";

export function unreadable(message: string, place: Place): VnetdError {
  return new VnetdError("STATE_UNREADABLE", message, { place });
}

export function itemsOf(node: YamlNode | undefined): YamlNode[] {
  if (node === undefined) return [];
  if (node.kind !== "sequence")
    throw unreadable(`expected a list, found ${describeNode(node)}`, node.place);
  return node.items;
}

/** The values of a mapping that has these keys, each once, perhaps the optional ones, and no others. */
export function recordOf<Key extends string, Optional extends string = never>(
  node: YamlNode,
  keys: readonly Key[],
  optional: readonly Optional[] = [],
): Record<Key, YamlNode> & Partial<Record<Optional, YamlNode>> {
  if (node.kind !== "mapping")
    throw unreadable(`expected a mapping, found ${describeNode(node)}`, node.place);
  const values = new Map<string, YamlNode>();
  for (const { key, value } of node.entries) {
    if (![...keys, ...optional].some((known) => known === key.text))
      throw unreadable(`"${key.text.slice(0, 80)}" is not known`, key.place);
    if (values.has(key.text)) throw unreadable(`"${key.text}" is given twice`, key.place);
    values.set(key.text, value);
  }
  const missing = keys.find((key) => !values.has(key));
  if (missing !== undefined) throw unreadable(`"${missing}" is missing`, node.place);
  return Object.fromEntries(values) as Record<Key, YamlNode> & Partial<Record<Optional, YamlNode>>;
}

export function wordOf<T>(node: YamlNode, read: (text: string, place: Place) => T): T {
  if (node.kind !== "scalar")
    throw unreadable(`expected a word, found ${describeNode(node)}`, node.place);
  return read(node.text, node.place);
}

export function flagOf(node: YamlNode): boolean {
  return wordOf(node, (text, place) => {
    if (text !== "true" && text !== "false")
      throw unreadable(`expected true or false, found ${describeNode(node)}`, place);
    return text === "true";
  });
}

export function orNull<T>(node: YamlNode, read: (node: YamlNode) => T): T | null {
  return isNullScalar(node) ? null : read(node);
}
