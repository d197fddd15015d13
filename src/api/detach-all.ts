// SPDX-License-Identifier: Apache-2.0
/** `vnetd detach --all` where a daemon runs: it says goodbye, takes its data plane away, and ends. */
import { VnetdError } from "../base/errors.js";
import type { Controller } from "../controller.js";
import { removeDataPlane, type Removal } from "../dataplane/removal.js";
import type { DetachAllInfo } from "./contract.js";
import { flagField, onlyFields } from "./params.js";
import { groupsOf } from "../base/vnet-group.js";

/** What the daemon does around it. */
export interface Ending {
  /** it will take a while, in which nothing else is done */
  begins: () => void;
  /** the controller is stopped, nothing may be asked of it any more, and the daemon has to end */
  done: (removal: Removal) => void;
}

export function detachAll(controller: Controller, params: unknown, ending: Ending): DetachAllInfo {
  onlyFields(params, ["all"]);
  if (!flagField(params, "all"))
    throw new VnetdError("BAD_REQUEST", 'detachAll takes {"all":true}, lest it comes by mistake');
  const { context, underlays, hellos, bpffs } = controller;
  const { native, config, hostId } = context;
  const forgotten = [...controller.state.state.attached];
  controller.persist((draft) => Object.assign(draft, { attached: [], xdp: [] }));
  for (const place of underlays.list()) hellos.deviceLeaves(place);
  ending.begins();
  controller.stop();
  const groups = [config.group, config.group6, ...groupsOf(controller.state.state.vnets)];
  const removal = removeDataPlane(native, { bpffs, hostId, groups });
  ending.done(removal);
  return { ...removal, daemon: process.pid, forgotten, stillConfigured: [...config.attach] };
}
