// SPDX-License-Identifier: Apache-2.0
/** What two configurations of the daemon differ in, key by key, as it is written in the file. Pure. */
import { daemonKeys, type DaemonConfig } from "./daemon-config.js";
import { printed } from "./spec.js";

export interface KeyChange {
  /** "limits.entries" */
  key: string;
  before: string;
  after: string;
}

export function configChanges(before: DaemonConfig, after: DaemonConfig): KeyChange[] {
  const old = leavesOf(printed(daemonKeys, before));
  return [...leavesOf(printed(daemonKeys, after))].flatMap(([key, text]) => {
    const was = old.get(key) ?? "";
    return was === text ? [] : [{ key, before: was, after: text }];
  });
}

function leavesOf(values: Record<string, unknown>, prefix = ""): Map<string, string> {
  const leaves = new Map<string, string>();
  for (const [name, value] of Object.entries(values)) {
    const key = `${prefix}${name}`;
    const isSection = typeof value === "object" && value !== null && !Array.isArray(value);
    if (isSection) {
      for (const leaf of leavesOf(value as Record<string, unknown>, `${key}.`)) leaves.set(...leaf);
    } else leaves.set(key, textOf(value));
  }
  return leaves;
}

function textOf(value: unknown): string {
  if (value === null) return "not set";
  return typeof value === "string" ? value : JSON.stringify(value);
}
