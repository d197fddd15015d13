// SPDX-License-Identifier: Apache-2.0
/**
 * Programs of a generation that outlive the daemon, so that the next one need not have the kernel check them again,
 * which takes the most of a start.
 *
 *   <layout>/programs-<count>-<identity>/<program>   all of one object, whole: it is made under another name
 *   <layout>/programs-unfinished/                    ... this one; what is left of it is removed
 *
 * They are taken only by a daemon that would load the very same: the same bytes of the object and of its constants,
 * of which the identity is made; and only where they use the very maps that are pinned, no other and no fewer.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, unlinkSync } from "node:fs";
import path from "node:path";
import { kernel } from "../host/errno.js";
import type { LoadedObject, Native } from "../native/contract.js";

const prefix = "programs-";
const unfinished = `${prefix}unfinished`;
const pattern = /^programs-(\d+)-([0-9a-f]{64})$/u;
/** of a program's name the kernel keeps so many bytes */
const keptNameBytes = 15;

export type Taken = Pick<LoadedObject, "programs" | "maps">;

/** Whether a pin below a generation's directory is a directory of programs. */
export function isProgramsPin(name: string): boolean {
  return name.startsWith(prefix);
}

export function identityOf(object: Uint8Array, constants: Record<string, Uint8Array>): string {
  const hash = createHash("sha256");
  for (const name of Object.keys(constants).sort()) {
    hash.update(`${name}=`).update(constants[name] ?? "");
  }
  return hash.update("\0").update(object).digest("hex");
}

/** The pinned programs and maps, opened; undefined: those that are wanted are not there, or not whole. */
export function takePrograms(native: Native, dir: string, identity: string): Taken | undefined {
  const found = readdirSync(dir).find((name) => pattern.exec(name)?.[2] === identity);
  if (found === undefined) return undefined;
  const taken: Taken = { programs: {}, maps: {} };
  const open = (fds: Record<string, number>, from: string, names: readonly string[]): void => {
    for (const name of names) fds[name] = native.objectGet(path.join(from, name));
  };
  let isWhole = false;
  try {
    const isMap = (name: string): boolean => !name.startsWith("link-") && !isProgramsPin(name);
    open(taken.maps, dir, readdirSync(dir).filter(isMap));
    open(taken.programs, path.join(dir, found), readdirSync(path.join(dir, found)));
    isWhole =
      Object.keys(taken.programs).length === Number(pattern.exec(found)?.[1]) && fit(native, taken);
  } catch {
    // whatever it is, the programs can be loaded
  } finally {
    if (!isWhole) for (const fd of fdsOf(taken)) native.close(fd);
  }
  return isWhole ? taken : undefined;
}

/** Pins them for the next start, and removes those of another object. */
export function pinPrograms(
  native: Native,
  dir: string,
  identity: string,
  programs: Record<string, number>,
): void {
  kernel(`pinning programs in ${dir}`, () => {
    for (const name of readdirSync(dir))
      if (isProgramsPin(name)) removePrograms(path.join(dir, name));
    const making = path.join(dir, unfinished);
    mkdirSync(making, { mode: 0o700 });
    const entries = Object.entries(programs);
    for (const [name, fd] of entries) native.objectPin(fd, path.join(making, name));
    renameSync(making, path.join(dir, `${prefix}${String(entries.length)}-${identity}`));
  });
}

export function removePrograms(dir: string): void {
  if (!existsSync(dir)) return;
  for (const name of readdirSync(dir)) unlinkSync(path.join(dir, name));
  rmdirSync(dir);
}

/** Under their own names, checked for this CPU, and on these maps: all of them, and no others but one for constants. */
function fit(native: Native, { programs, maps }: Taken): boolean {
  const pinned = new Set(Object.values(maps).map((fd) => native.mapInfo(fd).id));
  const used = new Set<number>();
  const isPinned = (id: number): boolean => pinned.has(id);
  for (const [name, fd] of Object.entries(programs)) {
    const info = native.programInfo(fd);
    if (info.name !== name.slice(0, keptNameBytes) || !info.jited) return false;
    const maps = info.mapIds.filter(isPinned);
    if (info.mapIds.length - maps.length > 1) return false;
    for (const id of maps) used.add(id);
  }
  return used.size === pinned.size;
}

function fdsOf({ programs, maps }: Taken): number[] {
  return [...Object.values(programs), ...Object.values(maps)];
}
