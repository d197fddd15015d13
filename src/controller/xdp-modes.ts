// SPDX-License-Identifier: Apache-2.0
/**
 * Underlay devices in mode `xdp`: their hook, who runs it, and what that means for their records. Where it cannot be
 * had TC carries everything, as in mode `tc`, and that is said.
 *
 * The program may take headers off (UNDERLAY_XDP_STRIPS) only where all that it sees are packets as they came. The
 * flag is set after the program was hooked and cleared after it was removed, and while it is hooked anew.
 */
import { errorParts, VnetdError } from "../base/errors.js";
import { vnetdUnderlayFlags } from "../generated/layouts.js";
import type { LinkInfo, XdpMode } from "../native/contract.js";
import { programOf, type Context } from "./context.js";

export type AttachMode = "tc" | "xdp";

const xdpPrograms = { native: "vnetd_xdp", generic: "vnetd_xdp_generic" } as const;

interface Hooked {
  device: string;
  mode: XdpMode;
  strips: boolean;
}

export class XdpModes {
  private readonly hooked = new Map<number, Hooked>();
  /** why a device's hook cannot be had */
  private readonly failures = new Map<number, { device: string; why: unknown }>();

  constructor(private readonly context: Context) {}

  /**
   * Before the program on TC is hooked: programs of two layouts do not understand one another, so XDP is away while TC
   * changes from one to the other.
   */
  prepare(ifindex: number): void {
    const { generation, hooks } = this.context;
    if (generation.others.length > 0 && !this.hooked.has(ifindex)) hooks.xdp.remove(ifindex);
  }

  /** Hooks the program, or removes it. */
  follow(
    wanted: boolean,
    { ifindex, name, kind }: Pick<LinkInfo, "ifindex" | "name" | "kind">,
  ): void {
    if (!wanted) {
      this.leave(ifindex);
      return;
    }
    if (this.hooked.has(ifindex)) return;
    try {
      this.hook(ifindex, name, kind);
    } catch (why) {
      if (!this.failures.has(ifindex)) this.say("device_xdp_failed", name, withoutXdp(why));
      this.failures.set(ifindex, { device: name, why });
    }
  }

  /** Somebody removed it. Throws when it cannot be hooked again. */
  rehook(link: Pick<LinkInfo, "ifindex" | "name" | "kind">, rewriteRecords: () => void): void {
    const before = this.hooked.get(link.ifindex);
    if (before === undefined) return;
    this.hooked.set(link.ifindex, { ...before, strips: false });
    rewriteRecords();
    this.hook(link.ifindex, link.name, link.kind);
    rewriteRecords();
  }

  /** The device is in mode `tc`, detached, or gone. */
  leave(ifindex: number): void {
    this.failures.delete(ifindex);
    this.hooked.delete(ifindex);
    this.context.hooks.xdp.remove(ifindex);
  }

  /** Of the device's records. */
  flags(ifindex: number): number {
    return this.hooked.get(ifindex)?.strips === true ? vnetdUnderlayFlags.UNDERLAY_XDP_STRIPS : 0;
  }

  modeOf(ifindex: number): XdpMode | null {
    return this.hooked.get(ifindex)?.mode ?? null;
  }

  /** What stood in the way of hooking it, for who asked for it. */
  failureOf(device: string): unknown {
    return [...this.failures.values()].find((failure) => failure.device === device)?.why;
  }

  problems(): string[] {
    return [...this.failures.values()].map(({ device, why }) => `${device}: ${withoutXdp(why)}`);
  }

  devices(): { ifindex: number; device: string; program: string }[] {
    return [...this.hooked].map(([ifindex, { device, mode }]) => ({
      ifindex,
      device,
      program: xdpPrograms[mode],
    }));
  }

  private hook(ifindex: number, device: string, kind: string): void {
    const mode = this.context.hooks.xdp.ensure(ifindex, {
      native: programOf(this.context, xdpPrograms.native),
      generic: programOf(this.context, xdpPrograms.generic),
    });
    // a tap's driver gives super-frames to generic XDP all the same
    this.hooked.set(ifindex, { device, mode, strips: mode === "native" && kind !== "tun" });
    this.failures.delete(ifindex);
    const peer = kind === "veth" ? "; its peer segments what it sends" : "";
    this.say("device_xdp", device, `XDP ${mode}${mode === "native" ? peer : ""}`);
  }

  private say(event: "device_xdp" | "device_xdp_failed", device: string, text: string): void {
    this.context.log.say(event, `${device}: ${text}`, { device });
  }
}

function withoutXdp(why: unknown): string {
  return `XDP cannot be had, TC carries everything: ${errorParts(why).message}`;
}

export function xdpRefused(device: string, why: unknown): VnetdError {
  const { code, message, hint } = errorParts(why);
  const known = code === "DEVICE_UNSUITABLE" ? code : "KERNEL";
  return new VnetdError(known, `${device} cannot be attached with mode xdp: ${message}`, {
    ...(hint === undefined ? {} : { hint: hint.replace("DEVICE", device) }),
    cause: why,
  });
}
