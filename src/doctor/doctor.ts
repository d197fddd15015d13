// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd doctor` in the daemon: the checks of the host (the same as without a daemon), and what the
 * daemon alone knows. One examination at a time; who asks meanwhile gets its report as well.
 */
import type { DoctorReport } from "../api/contract.js";
import { version } from "../base/version.js";
import type { Controller } from "../controller.js";
import { isUsable, problemOf } from "../controller/underlays.js";
import { runChecks, Skipped, type Check, type Found } from "./check.js";
import { bpffsCheck, espCheck } from "./host.js";
import { kernelChecks } from "./kernel.js";
import { kernelLimitChecks } from "./kernel-limits.js";
import { Reach } from "./reach.js";
import { troubleChecks } from "./troubles.js";
import { underlayChecks, type PlaceView } from "./underlay.js";

const root = "/";

export class Doctor {
  private running: Promise<DoctorReport> | undefined;

  constructor(private readonly controller: Controller) {}

  run(): Promise<DoctorReport> {
    this.running ??= this.examine().finally(() => (this.running = undefined));
    return this.running;
  }

  private async examine(): Promise<DoctorReport> {
    const report = await runChecks(this.checks());
    const usable = this.controller.underlays.usable().map(({ device }) => device);
    return { ...report, devices: [...new Set(usable)] };
  }

  private checks(): Check[] {
    const { controller } = this;
    const { native, maps, hooks } = controller.context;
    const { bpffs } = controller;
    const secure = controller.vnets.list().some(({ config }) => config.security !== "none");
    const host = { native, bpffs, secure };
    const places = (): PlaceView[] => this.places();
    return [
      ...kernelChecks({ root }),
      ...kernelLimitChecks({ root }),
      bpffsCheck(host),
      espCheck(host),
      ...underlayChecks({ root, native, maps, hooks, places, daemonRuns: true }),
      ...troubleChecks(controller),
      ...new Reach(controller).checks(),
      { name: "versions", run: () => this.versions() },
      { name: "hosts", run: () => this.hosts() },
    ];
  }

  private places(): PlaceView[] {
    const { underlays, context } = this.controller;
    return underlays.list().map((underlay) => {
      const { device, family, state } = underlay;
      const group = family === 4 ? context.config.group : context.config.group6;
      const joins = context.config.multicast !== "off" && isUsable(underlay);
      const problem = problemOf(underlay);
      const failure = problem === state.problem ? "" : problem;
      return { device, family, group, joins, state, failure };
    });
  }

  /** Releases of one major number understand one another; mixed for long is worth knowing. */
  private versions(): Found[] {
    const own = `vnetd ${version}`;
    const others = this.controller.views
      .hosts()
      .filter(({ software }) => software !== own)
      .map(({ name, software, paths }) => `${name || (paths[0]?.address ?? "")} (${software})`);
    if (others.length === 0) return [];
    return [
      {
        level: "note",
        what: `hosts run other releases than this one (${own})`,
        seen: `their hellos: ${others.slice(0, 16).join(", ")}`,
        fix: "upgrade them when it suits",
      },
    ];
  }

  /** Nobody there is normal for the first host; how much arrives tells a lone host from a deaf one. */
  private hosts(): Found[] {
    const { underlays, views, context } = this.controller;
    const usable = underlays.usable();
    if (usable.length === 0) throw new Skipped("no device is usable");
    if (views.hosts().length > 0) return [];
    const frames = [...new Set(usable.map(({ ifindex }) => ifindex))]
      .map((ifindex) => Number(context.maps.deviceStats(ifindex)?.frames ?? 0n))
      .reduce((sum, each) => sum + each, 0);
    return [
      {
        level: "note",
        what: "no other vnetd was heard",
        seen:
          `no hello of another host came; the attached devices have taken ${String(frames)} frames of vnets ` +
          "since they were attached",
        fix:
          "where there are others: the same vnets on both (vnetd vnets), the same LAN, group and port; " +
          "across a router: vnetd peer-add ADDRESS",
      },
    ];
  }
}
