// SPDX-License-Identifier: Apache-2.0
/** A host as people know it, and where it is. Pure. */
export function named(name: string, address: string): string {
  return name === "" ? address : `${name} (${address})`;
}
