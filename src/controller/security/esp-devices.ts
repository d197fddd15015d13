// SPDX-License-Identifier: Apache-2.0
/** The xfrm interfaces of underlay devices, with their hooks: there while there is a secure vnet, and only then. */
import { espAlias, espNameOf } from "../../host/names.js";
import type { EspHost } from "../../host/esp.js";
import { programOf, type Context } from "../context.js";

export class EspDevices {
  /** ifindex of an underlay device -> that of its xfrm interface */
  private readonly devices = new Map<number, number>();

  constructor(
    private readonly context: Context,
    private readonly esp: EspHost,
  ) {}

  /** Makes and removes what is needed for it. Says whether anything changed. */
  become(wanted: ReadonlySet<number>): boolean {
    const before = JSON.stringify([...this.devices]);
    for (const [ifindex, device] of [...this.devices]) {
      if (wanted.has(ifindex)) continue;
      this.context.hooks.remove({ ifindex: device, direction: "ingress" });
      this.esp.removeDevice(ifindex);
      this.devices.delete(ifindex);
    }
    for (const ifindex of wanted) this.ensure(ifindex);
    return JSON.stringify([...this.devices]) !== before;
  }

  /** ifindex of the interface that secure vnets leave by at this place; 0: there is none */
  at(ifindex: number): number {
    const known = this.devices.get(ifindex);
    if (known !== undefined) return known;
    // at start that of the daemon before this one: frames go by it all the while
    const link = this.context.native.linkGet(espNameOf(ifindex));
    return link?.alias === espAlias ? link.ifindex : 0;
  }

  /** Whether this daemon or one before it has made any. */
  areThere(): boolean {
    return this.context.native.linkList().some(({ alias }) => alias === espAlias);
  }

  /** Whose hooks are to stay. */
  hooked(): { ifindex: number; device: string }[] {
    return [...this.devices].map(([underlay, ifindex]) => ({
      ifindex,
      device: espNameOf(underlay),
    }));
  }

  private ensure(ifindex: number): void {
    const link = this.context.native.linkAt(ifindex);
    if (link === undefined) return;
    const { ifindex: device } = this.esp.ensureDevice(link);
    this.context.hooks.ensure(
      { ifindex: device, direction: "ingress" },
      programOf(this.context, "vnetd_esp"),
    );
    this.devices.set(ifindex, device);
  }
}
