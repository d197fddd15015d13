// SPDX-License-Identifier: Apache-2.0
/**
 * Typed access to the maps of direct ports: which device is a port of which vnet (direct_ports), and which ports
 * a vnet has (direct_list), which a program walks from 0 on to the first that is missing.
 */
import {
  decodeVnetdDirectPort,
  encodeVnetdDirectPort,
  encodeVnetdMemberKey,
  VnetdDirectPort as DirectPortLayout,
  vnetdLimits,
  type VnetdDirectPort,
} from "../generated/layouts.js";
import type { Native } from "../native/contract.js";
import { range, u32, type Maps } from "./maps.js";

export class DirectMaps {
  constructor(
    private readonly native: Native,
    private readonly maps: Maps,
  ) {}

  /** By ifindex. */
  ports(): Map<number, VnetdDirectPort> {
    const { count, keys, values } = this.maps.dump("direct_ports");
    return new Map(
      range(count).map((at) => [
        keys.readUInt32LE(at * 4),
        decodeVnetdDirectPort(values, at * DirectPortLayout.size),
      ]),
    );
  }

  setPort(ifindex: number, port: VnetdDirectPort): void {
    const fd = this.maps.fd("direct_ports");
    this.native.mapUpdate(fd, u32(ifindex), encodeVnetdDirectPort(port));
  }

  deletePort(ifindex: number): void {
    this.native.mapDelete(this.maps.fd("direct_ports"), u32(ifindex));
  }

  /** A vnet's, in the order of their numbers. */
  list(handle: number): number[] {
    const fd = this.maps.fd("direct_list");
    const found: number[] = [];
    while (found.length < vnetdLimits.MAX_VNET_PORTS) {
      const key = encodeVnetdMemberKey({ handle, number: found.length });
      const value = this.native.mapLookup(fd, key);
      if (value === undefined) break;
      found.push(value.readUInt32LE(0));
    }
    return found;
  }

  /** Exactly these: what is new is written in their order, before what is left over is deleted from the end. */
  setList(handle: number, ports: readonly number[]): void {
    const fd = this.maps.fd("direct_list");
    const before = this.list(handle);
    ports.forEach((ifindex, number) => {
      if (before[number] === ifindex) return;
      this.native.mapUpdate(fd, encodeVnetdMemberKey({ handle, number }), u32(ifindex));
    });
    for (let number = before.length - 1; number >= ports.length; number -= 1)
      this.native.mapDelete(fd, encodeVnetdMemberKey({ handle, number }));
  }
}
