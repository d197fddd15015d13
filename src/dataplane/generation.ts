// SPDX-License-Identifier: Apache-2.0
/**
 * Opens the data plane: loads the BPF object and takes or makes the pinned maps of its layout.
 *
 *   <bpffs>/layout-<N>/<map>                  maps
 *   <bpffs>/layout-<N>/link-<ifindex>-<dir>   hooks (TCX)
 *   <bpffs>/layout-<N>/programs-…/            programs (pinned-programs.ts)
 *
 * The maps stay. The programs are those that are pinned where they are of this very object, else they are
 * loaded, so a new release takes effect. A directory whose maps were not finished (`meta` still empty: the daemon died while it made them,
 * before anything was hooked) is made anew. Directories of other layouts are reported; the daemon
 * carries over what they hold (carry-over.ts), moves the hooks, and then removes them.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from "node:fs";
import path from "node:path";
import { VnetdError } from "../base/errors.js";
import {
  decodeVnetdMeta,
  encodeVnetdMeta,
  VnetdNexthop,
  VnetdVnet,
  vnetdLimits,
  type VnetdMeta,
} from "../generated/layouts.js";
import { errnoName, kernel } from "../host/errno.js";
import type { LoadedObject, LoadOptions, Native } from "../native/contract.js";
import { elfConstant } from "./elf.js";
import { Maps, u32 } from "./maps.js";
import {
  identityOf,
  isProgramsPin,
  pinPrograms,
  removePrograms,
  takePrograms,
} from "./pinned-programs.js";

export interface GenerationOptions {
  bpffs: string;
  objectPath: string;
  /** sizes of maps that are made now; those that exist keep theirs */
  fdbEntries: number;
  nexthops: number;
  /** default: as the object says */
  neighbours?: number;
}

export interface Generation {
  layout: number;
  /** what was loaded */
  objectPath: string;
  dir: string;
  maps: Maps;
  programs: Record<string, number>;
  /** the maps are new and empty */
  fresh: boolean;
  /** directories of other layouts, the newest first */
  others: { layout: number; dir: string }[];
}

/** half of what the kernel has to look at in the object */
const checkedApart = {
  vnetd_decap: true,
  vnetd_relay: true,
  vnetd_encap_fast: true,
  vnetd_reassembled: true,
} as const;
const dirPattern = /^layout-(\d{1,9})$/u;
const bpffsMagic = 0xcafe4a11;

/** Throws NOT_BPFFS unless the directory is on a bpffs, or would be when it is made. */
export function checkBpffs(native: Native, dir: string): void {
  let existing = path.resolve(dir);
  while (!existsSync(existing)) existing = path.dirname(existing);
  if (native.filesystemType(existing) === bpffsMagic) return checkOwner(dir);
  throw new VnetdError("NOT_BPFFS", `${dir} is not on a BPF file system`, {
    hint:
      "Mount one with: mount -t bpf bpf /sys/fs/bpf. " +
      "(`ip netns exec` hides it behind a new /sys: enter a namespace with nsenter --net=… instead.)",
  });
}

/**
 * Mounts a BPF file system on the directory unless there is one, and says whether it did: a second one on top would hide the
 * maps that are pinned in the first.
 */
export function mountBpffs(native: Native, dir: string): boolean {
  try {
    if (native.filesystemType(dir) === bpffsMagic) return false;
    native.mountBpf(dir);
    return true;
  } catch (error) {
    const why = errnoName(error);
    throw new VnetdError("KERNEL", `a BPF file system on ${dir}: ${why}`, {
      hint:
        why === "EPERM"
          ? "It takes CAP_SYS_ADMIN: a privileged container, or root on the host."
          : "Is the directory there, and does the kernel have CONFIG_BPF_SYSCALL?",
      cause: error,
    });
  }
}

/** /sys/fs/bpf is open to all: who made the directory could change the maps under the programs. */
function checkOwner(dir: string): void {
  if (!existsSync(dir)) return;
  const { uid, mode } = statSync(dir);
  if (uid === process.geteuid?.() && (mode & 0o022) === 0) return;
  throw new VnetdError("PERMISSION", `${dir} is not the daemon's own: others may write to it`, {
    hint: "Give it a directory of its own, such as /sys/fs/bpf/vnetd; look at one that somebody else made before you take it away.",
  });
}

export function openGeneration(native: Native, options: GenerationOptions): Generation {
  const { objectPath, bpffs } = options;
  const file = readObject(objectPath);
  const layout = layoutIn(file);
  const dir = path.join(bpffs, `layout-${String(layout)}`);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const olds = others(bpffs, layout);
  const opened = { layout, objectPath, dir, others: olds };
  let sizes = sizesOf(native, dir, options);
  let identity = identityOf(file, sizes.rodata);
  const taken = takePrograms(native, dir, identity);
  if (taken !== undefined) {
    const maps = new Maps(native, taken.maps);
    if (readMeta(native, maps).nextHandle !== 0)
      return { ...opened, maps, programs: taken.programs, fresh: false };
    closeAll(native, taken);
  }
  let loaded = load(native, dir, objectPath, sizes);
  const meta = readMeta(native, new Maps(native, loaded.maps));
  if (meta.nextHandle === 0 && Object.values(loaded.reused).some(Boolean)) {
    closeAll(native, loaded);
    removeGeneration(dir);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    sizes = sizesOf(native, dir, options);
    identity = identityOf(file, sizes.rodata);
    loaded = load(native, dir, objectPath, sizes);
  }
  const maps = new Maps(native, loaded.maps);
  const fresh = meta.nextHandle === 0;
  if (fresh) fillNexthops(native, maps, numbersBefore(native, olds));
  // one that was replaced while it was loaded is loaded anew by the next start
  if (identityOf(readObject(objectPath), sizes.rodata) === identity)
    pinPrograms(native, dir, identity, loaded.programs);
  return { ...opened, maps, programs: loaded.programs, fresh };
}

/** The maps are complete from now on. */
export function finishGeneration(
  native: Native,
  { maps, layout }: Generation,
  nextHandle: number,
): void {
  writeMeta(native, maps, { ...readMeta(native, maps), layout, nextHandle });
}

export function readMeta(native: Native, maps: Maps): VnetdMeta {
  const value = native.mapLookup(maps.fd("meta"), u32(0));
  if (value === undefined) throw new VnetdError("INTERNAL", "the map `meta` has no element");
  return decodeVnetdMeta(value);
}

export function writeMeta(native: Native, maps: Maps, meta: VnetdMeta): void {
  native.mapUpdate(maps.fd("meta"), u32(0), encodeVnetdMeta(meta));
}

/**
 * Takes over the pinned hooks of other layouts. They still run the old programs, on the old maps,
 * until Hooks.ensure() changes each in place.
 */
export function adoptLinks({ dir, others: olds }: Generation): void {
  for (const { dir: old } of olds) {
    for (const name of readdirSync(old).filter((entry) => entry.startsWith("link-"))) {
      const target = path.join(dir, name);
      if (existsSync(target)) unlinkSync(path.join(old, name));
      else renameSync(path.join(old, name), target);
    }
  }
}

/** Unpins everything of a generation; what is still hooked goes away with its link. */
export function removeGeneration(dir: string): void {
  for (const name of readdirSync(dir)) {
    if (isProgramsPin(name)) removePrograms(path.join(dir, name));
    else unlinkSync(path.join(dir, name));
  }
  rmdirSync(dir);
}

/** Opens the pinned maps of another layout, as many as there are. */
export function openOther(native: Native, dir: string): { maps: Maps; close: () => void } {
  const fds: Record<string, number> = {};
  for (const name of readdirSync(dir)) {
    if (!name.startsWith("link-") && !isProgramsPin(name))
      fds[name] = native.objectGet(path.join(dir, name));
  }
  const close = (): void => {
    for (const fd of Object.values(fds)) native.close(fd);
  };
  return { maps: new Maps(native, fds), close };
}

type Sizes = Required<Pick<LoadOptions, "maxEntries" | "rodata">>;

/** Maps that are pinned keep theirs. */
function sizesOf(native: Native, dir: string, options: GenerationOptions): Sizes {
  const fdb = pinnedSize(native, path.join(dir, "fdb")) ?? options.fdbEntries;
  const nexthops = pinnedSize(native, path.join(dir, "nexthops")) ?? options.nexthops;
  const neighbours =
    pinnedSize(native, path.join(dir, "neighbours")) ??
    options.neighbours ??
    vnetdLimits.DEFAULT_NEIGHBOURS;
  const maxEntries = {
    fdb,
    fdb_queue: fdb,
    nexthops,
    nexthop_ids: nexthops,
    nexthop_free: nexthops,
    neighbours,
    neighbour_queue: neighbours,
  };
  const rodata = {
    fdb_capacity: u32(fdb),
    nexthop_capacity: u32(nexthops),
    neighbour_capacity: u32(neighbours),
  };
  return { maxEntries, rodata };
}

function load(native: Native, dir: string, objectPath: string, sizes: Sizes): LoadedObject {
  return kernel(`loading ${objectPath}`, () =>
    native.objectLoad(objectPath, { pinDir: dir, ...sizes, apart: checkedApart }),
  );
}

/** How large a map is that is pinned already. */
function pinnedSize(native: Native, pin: string): number | undefined {
  if (!existsSync(pin)) return undefined;
  const fd = native.objectGet(pin);
  try {
    return native.mapInfo(fd).maxEntries;
  } finally {
    native.close(fd);
  }
}

export function layoutOf(objectPath: string): number {
  return layoutIn(readObject(objectPath));
}

function layoutIn(file: Buffer): number {
  return elfConstant(file, "vnetd_layout") ?? vnetdLimits.LAYOUT;
}

function readObject(objectPath: string): Buffer {
  try {
    return readFileSync(objectPath);
  } catch (error) {
    throw new VnetdError("FILE_UNREADABLE", `the BPF object ${objectPath}: ${errnoName(error)}`, {
      hint: "Build it with `make`.",
      cause: error,
    });
  }
}

function closeAll(
  native: Native,
  { programs, maps }: Pick<LoadedObject, "programs" | "maps">,
): void {
  for (const fd of [...Object.values(programs), ...Object.values(maps)]) native.close(fd);
}

/** Id 0 means "this host", so it is never handed out. They are handed out in this order, `first` first. */
function fillNexthops(native: Native, maps: Maps, first: readonly number[]): void {
  const queue = maps.fd("nexthop_free");
  const count = maps.maxEntries("nexthops");
  const none = new Uint8Array(0);
  const early = first.filter((id) => id > 0 && id < count);
  const taken = new Set(early);
  for (const id of early) native.mapUpdate(queue, none, u32(id));
  for (let id = 1; id < count; id++) if (!taken.has(id)) native.mapUpdate(queue, none, u32(id));
}

/**
 * The numbers of the next hops that carry-over.ts makes, in its order: SAs are named by them, and outlive the
 * maps.
 */
function numbersBefore(native: Native, olds: Generation["others"]): number[] {
  const [newest] = olds;
  if (newest === undefined) return [];
  const { maps, close } = openOther(native, newest.dir);
  try {
    return nexthopsInUse(native, maps).map(([id]) => id);
  } finally {
    close();
  }
}

/** Next hops of vnets that are there, by ascending number; [] where this layout cannot read them. */
export function nexthopsInUse(native: Native, maps: Maps): [number, VnetdNexthop][] {
  const readable = (name: string, size: number): boolean =>
    maps.has(name) && native.mapInfo(maps.fd(name)).valueSize === size;
  if (!readable("nexthops", VnetdNexthop.size) || !readable("nexthop_ids", 4)) return [];
  if (!readable("vnets", VnetdVnet.size)) return [];
  return [...maps.nexthops()]
    .filter(([, { slot, key }]) => maps.vnet(slot)?.handle === key.handle)
    .sort(([a], [b]) => a - b);
}

function others(bpffs: string, own: number): { layout: number; dir: string }[] {
  return readdirSync(bpffs)
    .flatMap((name) => {
      const layout = Number(dirPattern.exec(name)?.[1] ?? own);
      return layout === own ? [] : [{ layout, dir: path.join(bpffs, name) }];
    })
    .sort((a, b) => b.layout - a.layout);
}
