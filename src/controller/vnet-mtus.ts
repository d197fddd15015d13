// SPDX-License-Identifier: Apache-2.0
/**
 * Sets the MTUs of vnets' devices, and holds which of them the kernel refused: those are problems in `vnetd status` until they
 * could be set, which is tried at each look at everything.
 */
import type { VnetId } from "../base/vnet-id.js";
import { errnoName, kernelError } from "../host/errno.js";
import { setMtu } from "../host/vnetif.js";
import type { LinkInfo } from "../native/contract.js";
import type { Context } from "./context.js";

/** vnets that are named, each in a line */
const maxNamed = 5;

type SetMtu = (link: LinkInfo, mtuBytes: number) => void;

export class VnetMtus {
  /** what was refused of each vnet, for people */
  private readonly failures = new Map<VnetId, string[]>();

  constructor(private readonly context: Pick<Context, "native" | "log">) {}

  get areAllSet(): boolean {
    return this.failures.size === 0;
  }

  hasFailed(id: VnetId): boolean {
    return this.failures.has(id);
  }

  /** All devices of a vnet: what was refused before is over, unless it is again. */
  setAll(id: VnetId, step: (set: SetMtu) => void): void {
    const before = this.failures.get(id) ?? [];
    this.failures.delete(id);
    try {
      step((link, mtuBytes) => this.set(id, link, mtuBytes, before));
    } catch (error) {
      this.refused(id, kernelError("MTU", error).message, before);
    }
  }

  /** One device, beside those that were set. */
  set(id: VnetId, link: LinkInfo, mtuBytes: number, before = this.failures.get(id) ?? []): void {
    try {
      setMtu(this.context.native, link, mtuBytes);
    } catch (error) {
      // it went away meanwhile, which is a matter of whoever looks for devices
      if (error instanceof Error && errnoName(error.cause) === "ENODEV") return;
      const { message } = kernelError(`MTU of ${link.name}`, error);
      const [is, wanted] = [String(link.mtuBytes), String(mtuBytes)];
      this.refused(id, `${message}, so it stays at ${is} instead of ${wanted}`, before);
    }
  }

  /** The vnet is gone. */
  forget(id: VnetId): void {
    this.failures.delete(id);
  }

  problems(): string[] {
    const texts = [...this.failures].map(([id, failures]) => `vnet ${id}: ${failures.join("; ")}`);
    const more = texts.length - maxNamed;
    return more > 0
      ? [...texts.slice(0, maxNamed), `MTUs of ${String(more)} more vnets could not be set`]
      : texts;
  }

  /** It is tried again and again, and said once. */
  private refused(id: VnetId, text: string, before: readonly string[]): void {
    const failures = this.failures.get(id) ?? [];
    if (!failures.includes(text)) this.failures.set(id, [...failures, text]);
    if (before.includes(text)) return;
    this.context.log.say("vnet_mtu_failed", `vnet ${id}: ${text}`, { vnet: id });
  }
}
