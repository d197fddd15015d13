// SPDX-License-Identifier: Apache-2.0
/**
 * The devices through which frames pass between two programs, with their hooks: made, adopted or repaired,
 * and named in `meta`, by which the programs know them.
 */
import { randomBytes } from "node:crypto";
import { readMeta, writeMeta } from "../dataplane/generation.js";
import { vnetdLimits } from "../generated/layouts.js";
import { ensureHelperPair, ensureReassembly } from "../host/helper-devices.js";
import { helperPairs, reassemblyDevice } from "../host/names.js";
import { programOf, type Context } from "./context.js";

export interface HelperHook {
  ifindex: number;
  device: string;
  program: string;
}

export class Helpers {
  /** why packets in fragments are not received, or "" */
  private reassemblyProblem = "";
  private hooks: readonly HelperHook[] = [];

  constructor(private readonly context: Context) {}

  problems(): string[] {
    return this.reassemblyProblem === "" ? [] : [this.reassemblyProblem];
  }

  /** What hangs at their ingress. */
  hooked(): readonly HelperHook[] {
    return this.hooks;
  }

  ensure(): void {
    const { native, maps, hooks } = this.context;
    const segment = ensureHelperPair(native, "segment");
    const oversize = ensureHelperPair(native, "oversize");
    const relay = ensureHelperPair(native, "relay");
    const reassembly = this.reassemblyDevice();
    const wanted: [number, string, string][] = [
      [segment.in.ifindex, helperPairs.segment.in, "vnetd_decap"],
      [segment.out.ifindex, helperPairs.segment.out, "vnetd_merged"],
      [oversize.in.ifindex, helperPairs.oversize.in, "vnetd_oversize"],
      [relay.in.ifindex, helperPairs.relay.in, "vnetd_relay"],
      [reassembly, reassemblyDevice.name, "vnetd_reassembled"],
    ];
    this.hooks = wanted
      .filter(([ifindex]) => ifindex !== 0)
      .map(([ifindex, device, program]) => ({ ifindex, device, program }));
    for (const { ifindex, program } of this.hooks)
      hooks.ensure({ ifindex, direction: "ingress" }, programOf(this.context, program));
    const meta = readMeta(native, maps);
    const known = meta.reassemblySecret.some((byte) => byte !== 0);
    writeMeta(native, maps, {
      ...meta,
      segmentOut: segment.out.ifindex,
      segmentIn: segment.in.ifindex,
      oversizeOut: oversize.out.ifindex,
      oversizeIn: oversize.in.ifindex,
      relayOut: relay.out.ifindex,
      relayIn: relay.in.ifindex,
      reassembly,
      reassemblySecret: known ? meta.reassemblySecret : randomBytes(vnetdLimits.SECRET_LEN),
    });
  }

  /** Without it (its port is taken, the kernel has no VXLAN) only packets in fragments are lost. */
  private reassemblyDevice(): number {
    const { native, log } = this.context;
    try {
      const { ifindex } = ensureReassembly(native);
      this.reassemblyProblem = "";
      return ifindex;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const problem = `packets that come in fragments are not received: ${reason}`;
      if (problem !== this.reassemblyProblem) log.say("reassembly_down", problem, { reason });
      this.reassemblyProblem = problem;
      return 0;
    }
  }
}
