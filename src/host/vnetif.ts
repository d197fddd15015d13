// SPDX-License-Identifier: Apache-2.0
/**
 * The vnetif: one end of a veth pair, a bridge's port or an interface of the host. The other end,
 * the peer, is ours alone and carries the encapsulation hook; it stays here when somebody moves
 * the vnetif into a container's network namespace.
 *
 * ensureVnetif() is idempotent: what is there is adopted and set right, so that a daemon that
 * comes back disturbs nothing.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { VnetdError } from "../base/errors.js";
import type { Mac } from "../base/mac.js";
import type { VnetId } from "../base/vnet-id.js";
import type { LinkChange, LinkInfo, Native, VethOptions } from "../native/contract.js";
import { errnoName, kernel } from "./errno.js";
import { aliasOf, macOf, peerNameOf } from "./names.js";

/** Encapsulated super-frames must stay below 64 KiB. */
const gsoMaxSizeBytes = 65_400;
export const peerMtuBytes = 65_535;
export const ethernetMtuBytes = 1500;

export interface Vnetif {
  /** undefined: it is in another network namespace */
  vnif: LinkInfo | undefined;
  peer: LinkInfo;
  created: boolean;
}

export interface VnetifSpec {
  id: VnetId;
  name: string;
  hostId: string;
  mtuBytes: number;
  /** a bridge's port: no addresses of its own, always up */
  isPort: boolean;
}

/** Makes the pair, or adopts and repairs the one that is there. */
export function ensureVnetif(native: Native, spec: VnetifSpec): Vnetif {
  const peerName = peerNameOf(spec.id);
  const existing = native.linkGet(peerName);
  if (existing !== undefined && existing.alias !== aliasOf(spec.id)) {
    throw new VnetdError("NAME_IN_USE", `${peerName} is a device that vnetd did not make`, {
      hint: `Remove or rename it: vnetd needs the name for vnet ${spec.id}.`,
    });
  }
  const created = existing === undefined;
  if (created) createPair(native, spec, peerName);
  const peer = existing ?? mustGet(native, peerName);
  setUp(native, spec, { vnif: vnifOf(native, peer, spec.name), peer, created });
  const now = mustGet(native, peerName);
  return { vnif: vnifOf(native, now, spec.name), peer: now, created };
}

/**
 * Its addresses stay. Before Linux 6.2 a device has to be down for a moment, which costs it the
 * routes that somebody added by it.
 */
export function renameVnetif(native: Native, link: LinkInfo, name: string): LinkInfo {
  if (link.name === name) return link;
  kernel(`renaming ${link.name} to ${name}`, () => {
    try {
      native.linkSet(link.ifindex, { name });
    } catch (error) {
      if (!link.up || errnoName(error) !== "EBUSY") throw error;
      const kept = keepIpv6Addresses(link.name, "1");
      native.linkSet(link.ifindex, { up: false });
      try {
        native.linkSet(link.ifindex, { name });
      } finally {
        native.linkSet(link.ifindex, { up: true });
      }
      if (kept !== undefined) keepIpv6Addresses(name, kept);
    }
  });
  return { ...link, name };
}

/** Whether they stay when the device is down; returns what was set before, where IPv6 is there. */
function keepIpv6Addresses(device: string, value: string): string | undefined {
  const file = `/proc/sys/net/ipv6/conf/${device}/keep_addr_on_down`;
  try {
    const before = readFileSync(file, "utf8").trim();
    writeFileSync(file, value);
    return before;
  } catch {
    return undefined;
  }
}

/** Both ends go together. */
export function removeVnetif(native: Native, id: VnetId): void {
  const peer = native.linkGet(peerNameOf(id));
  if (peer?.alias === aliasOf(id)) {
    kernel(`removing ${peer.name}`, () => native.linkDelete(peer.ifindex));
  }
}

/** The vnetif's own end, wherever it was renamed to; undefined when it is in another namespace. */
function vnifOf(native: Native, peer: LinkInfo, name: string): LinkInfo | undefined {
  if (peer.linkNetnsId !== undefined) return undefined;
  const named = native.linkGet(name);
  if (named?.ifindex === peer.link) return named;
  return native.linkList().find((link) => link.ifindex === peer.link);
}

/** Throws NAME_IN_USE when the name is taken by anything but this vnet's own vnetif. */
export function checkVnetifName(native: Native, id: VnetId, name: string): void {
  const link = native.linkGet(name);
  if (link === undefined || (link.kind === "veth" && link.alias === aliasOf(id))) return;
  throw new VnetdError("NAME_IN_USE", `${name} is ${describe(link)}, which is not this vnet's`, {
    hint: "Give the vnet another vnetif name, or remove that device.",
  });
}

function createPair(native: Native, spec: VnetifSpec, peerName: string): void {
  checkVnetifName(native, spec.id, spec.name);
  const options: VethOptions = {
    name: spec.name,
    peerName,
    mac: macOf(spec.hostId, spec.id, "vnetif"),
    peerMac: macOf(spec.hostId, spec.id, "peer"),
    mtuBytes: spec.mtuBytes,
    peerMtuBytes,
    gsoMaxSizeBytes,
    alias: aliasOf(spec.id),
  };
  kernel(`making ${spec.name}`, () => native.linkAddVeth(options));
}

function setUp(native: Native, spec: VnetifSpec, { vnif, peer, created }: Vnetif): void {
  try {
    quiet(native, peer, aliasOf(spec.id));
    if (vnif === undefined) return setFeatures(native, peer.name, tsoOff);
    const change: LinkChange = {};
    if (vnif.alias !== aliasOf(spec.id)) change.alias = aliasOf(spec.id);
    // one that was made larger for the ports beside it stays so
    const mtuBytes = spec.isPort ? Math.max(spec.mtuBytes, vnif.mtuBytes) : spec.mtuBytes;
    if (vnif.mtuBytes !== mtuBytes) change.mtuBytes = mtuBytes;
    if (spec.isPort && created) change.noIpv6LinkLocal = true;
    if (Object.keys(change).length > 0) native.linkSet(vnif.ifindex, change);
    setFeatures(native, peer.name, tsoOff);
    setFeatures(native, vnif.name, { ...tunnelSegmentationOff, "rx-gro": true });
    // An interface of the host that its owner set down stays down.
    if (created || (spec.isPort && !vnif.up)) native.linkSet(vnif.ifindex, { up: true });
  } catch (error) {
    if (created) native.linkDelete(peer.ifindex);
    return kernel(`setting up ${spec.name}`, () => {
      throw error;
    });
  }
}

/** Up, and without addresses or neighbours of its own. */
export function quiet(native: Native, link: LinkInfo, alias: string): void {
  const change: LinkChange = {};
  if (link.alias !== alias) change.alias = alias;
  if (link.mtuBytes !== peerMtuBytes) change.mtuBytes = peerMtuBytes;
  if (!link.up) Object.assign(change, { noIpv6LinkLocal: true, noArp: true });
  if (Object.keys(change).length > 0) native.linkSet(link.ifindex, change);
  // Apart: the kernel handles flags before the address mode, and would make an address.
  if (!link.up) native.linkSet(link.ifindex, { up: true });
}

export const tsoOff = {
  "tx-tcp-segmentation": false,
  "tx-tcp6-segmentation": false,
  "tx-tcp-ecn-segmentation": false,
  "tx-tcp-mangleid-segmentation": false,
};
export const tunnelSegmentationOff = {
  "tx-udp_tnl-segmentation": false,
  "tx-udp_tnl-csum-segmentation": false,
};

/** Sets what the kernel knows and what is not so already. */
export function setFeatures(native: Native, device: string, wanted: Record<string, boolean>): void {
  const now = native.featuresGet(device);
  const changes = Object.entries(wanted).filter(
    ([name, value]) => now[name] !== undefined && now[name] !== value,
  );
  if (changes.length > 0) native.featuresSet(device, Object.fromEntries(changes));
}

/**
 * A bridge drops a frame that is larger than a port's MTU without a word. So a vnetif that is a port
 * takes all that guests on an Ethernet send, and what the largest port beside it takes: what is too
 * large for the underlay is answered with ICMP, or sent in fragments, by bpf/oversize.bpf.c.
 */
export function portMtu(
  underlayBytes: number,
  vnif: LinkInfo | undefined,
  links: readonly LinkInfo[],
): number {
  const bridge = vnif?.master ?? 0;
  const beside = links.filter(
    ({ master, ifindex }) => bridge !== 0 && master === bridge && ifindex !== vnif?.ifindex,
  );
  const others = beside.map(({ mtuBytes }) => mtuBytes);
  return Math.min(Math.max(ethernetMtuBytes, underlayBytes, ...others), peerMtuBytes);
}

export function setMtu(native: Native, link: LinkInfo, mtuBytes: number): void {
  if (link.mtuBytes === mtuBytes) return;
  kernel(`MTU of ${link.name}`, () => native.linkSet(link.ifindex, { mtuBytes }));
}

export function macOfLink(link: LinkInfo | undefined, fallback: Mac): Mac {
  return link === undefined || link.mac === "" ? fallback : link.mac;
}

export function describe(link: LinkInfo): string {
  return link.kind === "" ? "a network device" : `a device of kind ${link.kind}`;
}

export function mustGet(native: Native, name: string): LinkInfo {
  const link = native.linkGet(name);
  if (link === undefined) throw new VnetdError("KERNEL", `${name} vanished while it was set up`);
  return link;
}
