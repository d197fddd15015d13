// SPDX-License-Identifier: Apache-2.0
/**
 * The program on the XDP hook of an underlay device: a pinned link, native where the driver runs programs and
 * generic where it does not. A device has one such hook; a program of somebody else there is never replaced.
 */
import { existsSync, unlinkSync } from "node:fs";
import path from "node:path";
import { VnetdError } from "../base/errors.js";
import { errnoName } from "../host/errno.js";
import type { Native, XdpMode } from "../native/contract.js";

/** By who runs it. */
export type XdpPrograms = Record<XdpMode, number>;

/** what a driver without XDP says */
const noXdp = new Set(["EOPNOTSUPP", "ENOTSUP"]);

export class XdpHooks {
  constructor(
    private readonly native: Native,
    private readonly linkDir: string,
    private readonly changed: () => void,
  ) {}

  /** Makes the hook run the program: in place of ours that is there, or anew. Throws where it is another's. */
  ensure(ifindex: number, programs: XdpPrograms): XdpMode {
    this.changed();
    const pin = this.pinPath(ifindex);
    if (existsSync(pin)) {
      if (this.alive(ifindex)) {
        const mode = this.native.xdpQuery(ifindex).mode === "native" ? "native" : "generic";
        this.native.tcxUpdate(pin, programs[mode]);
        return mode;
      }
      unlinkSync(pin);
    }
    this.refuseOther(ifindex);
    try {
      this.native.xdpAttach(programs.native, ifindex, "native", pin);
      return "native";
    } catch (error) {
      if (!noXdp.has(errnoName(error))) throw driverRefused(error);
    }
    this.native.xdpAttach(programs.generic, ifindex, "generic", pin);
    return "generic";
  }

  /** Nothing is run when this returns, and another program may be hooked. Whether ours was there. */
  remove(ifindex: number): boolean {
    this.changed();
    const pin = this.pinPath(ifindex);
    if (!existsSync(pin)) return false;
    try {
      this.native.xdpDetach(pin);
    } finally {
      unlinkSync(pin);
    }
    return true;
  }

  /** Whether a pinned link still holds on to its device. */
  alive(ifindex: number): boolean {
    return this.native.tcxInfo(this.pinPath(ifindex)).ifindex === ifindex;
  }

  present(ifindex: number): boolean {
    return existsSync(this.pinPath(ifindex)) && this.alive(ifindex);
  }

  runs(ifindex: number, programId: number): boolean {
    return this.native.xdpQuery(ifindex).programId === programId;
  }

  pinPath(ifindex: number): string {
    return path.join(this.linkDir, `link-${String(ifindex)}-xdp`);
  }

  private refuseOther(ifindex: number): void {
    const { mode, programId } = this.native.xdpQuery(ifindex);
    if (mode === "none") return;
    throw new VnetdError(
      "DEVICE_UNSUITABLE",
      `XDP program ${String(programId)} of somebody else is on it`,
      {
        hint:
          `\`bpftool prog show id ${String(programId)}\` says which. Take it away (\`ip link set dev DEVICE xdp off\`, or end who ` +
          "holds it), or attach with --mode tc.",
      },
    );
  }
}

function driverRefused(error: unknown): VnetdError {
  return new VnetdError("KERNEL", `its driver does not take the XDP program: ${errnoName(error)}`, {
    hint:
      "Most often the MTU is larger than the driver can have with XDP, or it has too few queues: lower the MTU, " +
      "see `dmesg`, or attach with --mode tc.",
    cause: error,
  });
}
