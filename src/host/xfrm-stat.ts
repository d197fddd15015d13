// SPDX-License-Identifier: Apache-2.0
/**
 * What the kernel's IPsec refused in this network namespace: /proc/net/xfrm_stat, a name and a number on each line
 * (Documentation/networking/xfrm_proc.rst). Nothing where the kernel does not count (CONFIG_XFRM_STATISTICS).
 */
import { readFileSync } from "node:fs";

export interface XfrmCount {
  name: string;
  count: number;
}

export function xfrmErrors(
  read = (): string => readFileSync("/proc/net/xfrm_stat", "utf8"),
): XfrmCount[] {
  let text: string;
  try {
    text = read();
  } catch {
    return [];
  }
  return text.split("\n").flatMap((line) => {
    const [, name = "", count = ""] = /^(Xfrm\w+)\s+(\d+)$/.exec(line.trim()) ?? [];
    return name === "" ? [] : [{ name, count: Number(count) }];
  });
}
