// SPDX-License-Identifier: Apache-2.0
/**
 * VARP messages about many: a hello that is said of several vnets, an announce of or a request for several MACs.
 *
 * The message in front is one like any other, and true by itself: an original, and whoever does not read lists, takes
 * that and nothing else. What else it is about stands in the extension (docs/wire-format.md#lists). Whether a
 * list may be sent is decided by src/controller/list-readers.ts; who reads one trusts it no more than
 * so many single messages. Decoding never throws; how long a list is, is bounded by the message.
 */
import {
  VnetdExtHdr,
  VnetdVarp,
  decodeVnetdExtHdr,
  vnetdExt,
  vnetdTlvType,
  writeVnetdExtHdr,
} from "../generated/layouts.js";
import { encodeOne, encodeTlv, extendedBy, tlvOf } from "./hello.js";

export interface VnetMac {
  /** 16 bytes */
  vnet: Uint8Array;
  /** 6 bytes */
  vmac: Uint8Array;
}

/** MACs of one vnet, as they stand in the message: an announce of many is read at each host, so they are not taken apart */
export interface VnetMacs {
  vnet: Uint8Array;
  /** 6 bytes each */
  macs: Uint8Array;
}

export type VarpList =
  /** of a hello: vnets and the vnetif's MAC there */
  | { of: "vnets"; entries: VnetMac[] }
  /** of others */
  | { of: "macs"; groups: VnetMacs[] }
  /** there is one, and it is not what its lengths say */
  | { of: "malformed" };

const idBytes = 16;
const macBytes = 6;
const vnetBytes = idBytes + macBytes;
const groupBytes = idBytes + 2;
const maxMacsBytes =
  vnetdExt.VARP_MAX_LEN - VnetdVarp.size - VnetdExtHdr.size - vnetdExt.TLV_HDR_LEN;

/** What a message of MACs has room for, taken by one MAC after the other. */
export class MacRoom {
  private leftBytes = maxMacsBytes;
  private readonly vnets = new Set<number>();
  private isEmpty = true;

  /** False: there is no room for one more of this vnet. */
  take(handle: number): boolean {
    if (this.isEmpty) {
      // it is in front
      this.isEmpty = false;
      return true;
    }
    const bytes = macBytes + (this.vnets.has(handle) ? 0 : groupBytes);
    if (bytes > this.leftBytes) return false;
    this.leftBytes -= bytes;
    this.vnets.add(handle);
    return true;
  }
}

/** The extension of a message that is about these MACs too. */
export function encodeMacs(entries: readonly VnetMac[]): Buffer {
  const groups = new Map<string, Uint8Array[]>();
  let last: { vnet: Uint8Array; macs: Uint8Array[] } | undefined;
  for (const { vnet, vmac } of entries) {
    if (last?.vnet !== vnet) {
      const id = Buffer.from(vnet).toString("hex");
      last = { vnet, macs: groups.get(id) ?? [] };
      groups.set(id, last.macs);
    }
    last.macs.push(vmac);
  }
  const value = [...groups].flatMap(([id, macs]) => {
    const head = Buffer.alloc(groupBytes);
    head.write(id, "hex");
    head.writeUInt16BE(macs.length, idBytes);
    return [head, ...macs];
  });
  return marked(encodeOne(vnetdTlvType.TLV_MACS, Buffer.concat(value)));
}

/** How many more vnets a hello's message has room for. */
export function vnetsThatFit(message: Buffer): number {
  const left = vnetdExt.VARP_MAX_LEN - message.length - vnetdExt.TLV_HDR_LEN;
  return Math.max(0, Math.floor(left / vnetBytes));
}

/** The hello's message, said of these vnets too. */
export function withVnets(message: Buffer, entries: readonly VnetMac[]): Buffer {
  if (entries.length === 0) return message;
  const value = Buffer.concat(entries.flatMap(({ vnet, vmac }) => [vnet, vmac]));
  const trailing = message.subarray(VnetdVarp.size);
  const longer = extendedBy(trailing, [encodeTlv(vnetdTlvType.TLV_VNETS, value)]);
  return Buffer.concat([message.subarray(0, VnetdVarp.size), marked(longer)]);
}

/** What else a message is about, by what follows its 43 bytes; undefined: nothing, or no extension of ours. */
export function listOf(trailing: Uint8Array): VarpList | undefined {
  if (trailing.length < VnetdExtHdr.size) return undefined;
  const bytes = Buffer.from(trailing);
  const vnets = tlvOf(bytes, vnetdTlvType.TLV_VNETS);
  const macs = vnets === undefined ? tlvOf(bytes, vnetdTlvType.TLV_MACS) : undefined;
  if (vnets !== undefined) {
    const entries = decodeVnets(vnets);
    return entries === undefined ? { of: "malformed" } : { of: "vnets", entries };
  }
  const groups = macs === undefined ? [] : decodeMacs(macs);
  if (groups === undefined) return { of: "malformed" };
  return macs === undefined ? undefined : { of: "macs", groups };
}

/** All that a list names, one by one. */
export function entriesOf(list: VarpList): VnetMac[] {
  if (list.of === "malformed") return [];
  if (list.of === "vnets") return list.entries;
  return list.groups.flatMap(({ vnet, macs }) =>
    Array.from({ length: macs.length / macBytes }, (_, n) => ({
      vnet,
      vmac: macs.subarray(n * macBytes, (n + 1) * macBytes),
    })),
  );
}

function decodeVnets(value: Buffer): VnetMac[] | undefined {
  if (value.length % vnetBytes !== 0) return undefined;
  return Array.from({ length: value.length / vnetBytes }, (_, index) => {
    const at = index * vnetBytes;
    const vnet = value.subarray(at, at + idBytes);
    return { vnet, vmac: value.subarray(at + idBytes, at + vnetBytes) };
  });
}

function decodeMacs(value: Buffer): VnetMacs[] | undefined {
  const groups: VnetMacs[] = [];
  let at = 0;
  while (at < value.length) {
    if (value.length - at < groupBytes) return undefined;
    const vnet = value.subarray(at, at + idBytes);
    const count = value.readUInt16BE(at + idBytes);
    at += groupBytes;
    const end = at + count * macBytes;
    if (end > value.length) return undefined;
    if (count > 0) groups.push({ vnet, macs: value.subarray(at, end) });
    at = end;
  }
  return groups;
}

/** Its header says that hosts which do not have the vnet in front read it too. */
function marked(extension: Buffer): Buffer {
  const header = decodeVnetdExtHdr(extension);
  writeVnetdExtHdr(extension, { ...header, flags: header.flags | vnetdExt.EXT_LIST });
  return extension;
}
