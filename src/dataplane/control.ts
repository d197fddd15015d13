// SPDX-License-Identifier: Apache-2.0
/**
 * The way in which the daemon changes learned state: it runs the BPF program vnetd_control.
 *
 * Limits and counts of the MAC table are kept in the BPF programs alone; a request that they
 * refuse comes back with the reason (an index into reasonNames), exactly as for a frame.
 */
import type { VnetdNexthop } from "../generated/layouts.js";
import {
  decodeVnetdControl,
  encodeVnetdControl,
  reasonNames,
  VnetdControl,
  VnetdControlMac,
  vnetdControlMany,
  vnetdControlOp,
  vnetdNexthopFlags,
  vnetdProbeWire,
} from "../generated/layouts.js";
import { errnoName } from "../host/errno.js";
import type { Native } from "../native/contract.js";

const ethBytes = 14;

/** A request without the fields that do not matter to it. */
export type ControlRequest = Partial<Omit<VnetdControl, "eth" | "result">> & { op: number };

export interface DroppedMessage {
  /** 0: of no vnet that is known */
  handle: number;
  /** vnetdDirection */
  direction: number;
  /** a name of reasonNames */
  reason: string;
  bytes: number;
}

/** The SA by which a secure vnet's frames go to a host; it has a next hop from then on. */
export interface KeysRequest {
  slot: number;
  handle: number;
  /** of the underlay device */
  ifindex: number;
  addr: Uint8Array;
  /** 0: there is none any more */
  spi: number;
}

export interface KeysAnswer {
  /** "ok", or the name of the reason why there is no next hop */
  reason: string;
  nexthop: number;
  gen: number;
}

/** MACs that live behind one host, or on this one. */
export interface ManyRequest {
  slot: number;
  handle: number;
  /** of the underlay device, and the host's address; 0: they live here */
  ifindex: number;
  addr?: Uint8Array;
  /** of those that live here: as CTL_LEARN_LOCAL takes it */
  gen?: number;
  /** vnetdFdbFlags, of all */
  fdbFlags: number;
}

export interface ManyAnswer {
  entered: number;
  /** why the last that was refused; "ok": none was */
  reason: string;
  /** announced, and not entered, because they live here: their places in the batch */
  here: number[];
}

const fieldsOfMac = VnetdControlMac.fields;

/** At most maxAtOnce MACs, each with when it was heard, on the kernel's monotonic clock. */
export class MacBatch {
  static readonly maxAtOnce = vnetdControlMany.CONTROL_MACS;
  readonly bytes = Buffer.alloc(MacBatch.maxAtOnce * VnetdControlMac.size);
  count = 0;

  get isFull(): boolean {
    return this.count === MacBatch.maxAtOnce;
  }

  /** from: where in `macs` it begins */
  add(macs: Uint8Array, seenNs: bigint, from = 0): void {
    const at = this.count * VnetdControlMac.size;
    const { mac, seenNs: seen, here } = fieldsOfMac;
    for (let n = 0; n < mac.size; n += 1) this.bytes[at + mac.offset + n] = macs[from + n] ?? 0;
    this.bytes.writeBigUInt64LE(seenNs, at + seen.offset);
    this.bytes.writeUInt16LE(0, at + here.offset);
    this.count += 1;
  }

  /** Of those that were added, also when they were entered since; a copy. */
  macAt(index: number): Uint8Array {
    const at = index * VnetdControlMac.size + fieldsOfMac.mac.offset;
    return Uint8Array.from(this.bytes.subarray(at, at + fieldsOfMac.mac.size));
  }
}

export class Control {
  constructor(
    private readonly native: Native,
    private readonly programFd: number,
    /** the program vnetd_send */
    private readonly sendFd: number,
  ) {}

  /** "ok", or the name of the reason why not. */
  run(request: ControlRequest): string {
    const packet = encodeVnetdControl({ ...emptyRequest(), ...request });
    const { data } = this.native.progTestRun(this.programFd, packet, { outSize: packet.length });
    return resultOf(data);
  }

  /** Sends a probe to the vnet's group, and into the bridge of a port (0: none). */
  probe(slot: number, handle: number, ifindex: number): string {
    const eth = new Uint8Array(ethBytes);
    // the kernel takes a frame's type from here
    new DataView(eth.buffer).setUint16(ethBytes - 2, vnetdProbeWire.PROBE_ETHERTYPE);
    const op = vnetdControlOp.CTL_PROBE;
    const request = encodeVnetdControl({ ...emptyRequest(), op, eth, slot, handle, ifindex });
    const room = Buffer.alloc(Math.max(request.length, vnetdProbeWire.PROBE_FRAME_LEN));
    request.copy(room);
    const { data } = this.native.progTestRun(this.programFd, room, { outSize: room.length });
    return resultOf(data);
  }

  /** A message goes no further: it is counted like a frame that BPF drops. */
  countDrop({ handle, direction, reason, bytes }: DroppedMessage): void {
    const result = reasonNames.indexOf(reason);
    if (result < 0) throw new RangeError(`${reason} is no drop reason`);
    const { CTL_COUNT: op } = vnetdControlOp;
    const request = { ...emptyRequest(), op, handle, result, mtu: bytes, path: direction };
    this.native.progTestRun(this.programFd, encodeVnetdControl(request));
  }

  /** Finds or makes the next hop, and sets the SPI that it is sent by. */
  keys(request: KeysRequest): KeysAnswer {
    const op = vnetdControlOp.CTL_KEYS;
    const packet = encodeVnetdControl({ ...emptyRequest(), ...request, op });
    const { data } = this.native.progTestRun(this.programFd, packet, { outSize: packet.length });
    const { nexthop, gen } = decodeVnetdControl(data);
    return { reason: resultOf(data), nexthop, gen };
  }

  /**
   * Hands a packet to an xfrm interface: an Ethernet header, and an IP packet between the addresses that name
   * an SA (enum vnetd_esp). False: it was not taken; the interface is not there, or no memory.
   */
  sendSecure(espIfindex: number, packet: Buffer): boolean {
    try {
      return this.native.progTestRun(this.sendFd, packet, { ifindex: espIfindex }).retval === 0;
    } catch (error) {
      if (errnoName(error) === "ENODEV") return false;
      throw error;
    }
  }

  /** The batch is empty then. */
  learnMany(request: ManyRequest, batch: MacBatch): ManyAnswer {
    const { ifindex } = request;
    const op = vnetdControlOp.CTL_LEARN_MANY;
    const head = encodeVnetdControl({
      ...{ ...emptyRequest(), ...request, op },
      capabilities: batch.count,
      addr: ifindex === 0 ? new Uint8Array(16) : (request.addr ?? new Uint8Array(16)),
    });
    const packet = Buffer.concat([
      head,
      batch.bytes.subarray(0, batch.count * VnetdControlMac.size),
    ]);
    const { data } = this.native.progTestRun(this.programFd, packet, { outSize: packet.length });
    const count = batch.count;
    batch.count = 0;
    const here: number[] = [];
    const { offset } = VnetdControlMac.fields.here;
    for (let at = 0; at < count; at += 1)
      if (data.readUInt16LE(head.length + at * VnetdControlMac.size + offset) !== 0) here.push(at);
    const { gen: entered, result } = decodeVnetdControl(data);
    return { entered, reason: reasonOf(result), here };
  }

  startSweeper(): string {
    return this.run({ op: vnetdControlOp.CTL_START });
  }
}

/** The request that makes a next hop what it is: for another table, or with a change. */
export function nexthopRequest(
  nexthop: VnetdNexthop,
  nexthops: ReadonlyMap<number, VnetdNexthop>,
): ControlRequest {
  const { slot, flags, capabilities, mtu, key, host, path } = nexthop;
  const other = nexthops.get(nexthop.other)?.key;
  const sameVnet = other?.handle === key.handle;
  return {
    op: vnetdControlOp.CTL_NEXTHOP,
    slot,
    handle: key.handle,
    ifindex: key.ifindex,
    addr: key.addr,
    nexthopFlags: flags & ~vnetdNexthopFlags.NEXTHOP_USED,
    capabilities,
    mtu,
    host,
    path,
    ...(other !== undefined && sameVnet
      ? { otherIfindex: other.ifindex, otherAddr: other.addr }
      : {}),
  };
}

function resultOf(data: Buffer): string {
  return reasonOf(data.readUInt32LE(VnetdControl.fields.result.offset));
}

function reasonOf(result: number): string {
  return reasonNames[result] ?? `reason ${String(result)}`;
}

function emptyRequest(): VnetdControl {
  return {
    eth: new Uint8Array(ethBytes),
    op: 0,
    result: 0,
    slot: 0,
    handle: 0,
    ifindex: 0,
    fdbFlags: 0,
    nexthop: 0,
    nexthopFlags: 0,
    capabilities: 0,
    mtu: 0,
    mac: new Uint8Array(6),
    addr: new Uint8Array(16),
    otherIfindex: 0,
    otherAddr: new Uint8Array(16),
    host: new Uint8Array(16),
    path: 0,
    spi: 0,
    gen: 0,
  };
}
