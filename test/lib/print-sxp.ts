// SPDX-License-Identifier: Apache-2.0
/** Writes what src/config reads: s-expressions, and vnets as such. */
import type { SxpNode } from "../../src/config/sxp.js";
import type { VnetConfig } from "../../src/config/vnet-file.js";

function printAtom(text: string): string {
  if (/^[^\s()#"'\\\p{Cc}]+$/u.test(text)) return text;
  const escaped = text.replace(/["\\\p{Cc}]/gu, (char) =>
    char === '"' || char === "\\"
      ? `\\${char}`
      : `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
  return `"${escaped}"`;
}

/** One line; parseSxp reads the same nodes from it. */
export function printSxp(node: SxpNode): string {
  return node.kind === "atom" ? printAtom(node.text) : `(${node.items.map(printSxp).join(" ")})`;
}

/** As an s-expression that parseVnetFile (and the original, but for a long id, a key, a suite, an encapsulation, suppression or a group) reads. */
export function printVnet(vnet: VnetConfig): string {
  const pairs = [
    ["id", vnet.id],
    ["bridge", vnet.bridge ?? "none"],
    ["vnetif", vnet.vnetif],
    ["security", vnet.security],
    ...(vnet.key === null ? [] : [["key", vnet.key]]),
    ...(vnet.previousKey === undefined ? [] : [["previousKey", vnet.previousKey]]),
    ...(vnet.suite === null ? [] : [["suite", vnet.suite]]),
    ...(vnet.encapsulation === null ? [] : [["encapsulation", vnet.encapsulation]]),
    ...(vnet.suppress === undefined ? [] : [["suppress", "on"]]),
    ...(vnet.group === undefined ? [] : [["group", vnet.group]]),
    ...(vnet.group6 === undefined ? [] : [["group6", vnet.group6]]),
  ];
  const inside = pairs.map((pair) => `(${pair.map(printAtom).join(" ")})`);
  return `(vnet ${inside.join(" ")})`;
}
