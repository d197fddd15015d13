// SPDX-License-Identifier: Apache-2.0
/**
 * The way in which the daemon changes learned state: it runs the BPF program vnetd_control.
 *
 * Limits and counts of the MAC table are kept in the BPF programs alone; a request that they
 * refuse comes back with the reason (an index into reasonNames), exactly as for a frame.
 */
import type { VnetdControl } from "../generated/layouts.js";
import {
  decodeVnetdControl,
  encodeVnetdControl,
  reasonNames,
  vnetdControlOp,
} from "../generated/layouts.js";
import type { Native } from "../native/contract.js";

/** A request without the fields that do not matter to it. */
export type ControlRequest = Partial<Omit<VnetdControl, "eth" | "result">> & { op: number };

export class Control {
  constructor(
    private readonly native: Native,
    private readonly programFd: number,
  ) {}

  /** "ok", or the name of the reason why not. */
  run(request: ControlRequest): string {
    const packet = encodeVnetdControl({ ...emptyRequest(), ...request });
    const { data } = this.native.progTestRun(this.programFd, packet, { outSize: packet.length });
    const { result } = decodeVnetdControl(data);
    return reasonNames[result] ?? `reason ${String(result)}`;
  }

  startSweeper(): string {
    return this.run({ op: vnetdControlOp.CTL_START });
  }
}

function emptyRequest(): VnetdControl {
  return {
    eth: new Uint8Array(14),
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
  };
}
