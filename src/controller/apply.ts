// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd apply`: makes this host's vnets be what a directory says (src/config/apply-plan.ts says what that takes).
 *
 * Everything is checked before anything is changed. What is changed is changed in place, and taken back when a later
 * step fails; then it is persisted, all at once; what is deleted goes last, except where its names are wanted by others.
 */
import type { ApplyInfo } from "../api/contract.js";
import { atPlace as at, VnetdError } from "../base/errors.js";
import { defaultKeyName } from "../base/vnet-key.js";
import type { VnetId } from "../base/vnet-id.js";
import {
  changesOf,
  inOrder,
  isOtherSecurity,
  planOf,
  takesFrom,
  type ApplyPlan,
  type VnetChange,
} from "../config/apply-plan.js";
import {
  checkTogether,
  withoutPlaces,
  type PlacedVnet,
  type VnetConfig,
} from "../config/vnet-file.js";
import { isBuiltInId, type Controller } from "../controller.js";
import { maxVnets } from "../dataplane/vnet-table.js";
import { removeBridge } from "../host/bridge.js";
import { disowned, ownerOf } from "../store/stored-applied.js";
import { checkSecureConfig } from "./security/config.js";
import { without } from "./static-entries.js";
import { checkDevices, checkNames } from "./vnet-checks.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export interface ApplyOptions {
  directory: string;
  dryRun: boolean;
  prune: boolean;
}

export function apply(
  controller: Controller,
  wanted: readonly PlacedVnet[],
  options: ApplyOptions,
): ApplyInfo {
  const { directory, dryRun } = options;
  checkTogether(wanted);
  const { applied } = controller.state.state;
  const present = controller.vnets
    .list()
    .map(({ config, builtIn }) => ({ config, builtIn, owner: ownerOf(applied, config.id) }));
  const plan = planOf(wanted, present, options);
  plan.change = inOrder(plan.change);
  check(controller, plan);
  const notes = dryRun ? new Map<VnetId, string>() : carryOut(controller, plan, directory);
  return {
    directory,
    dryRun,
    changes: changesOf(plan).map((change) => ({ ...change, note: notes.get(change.id) ?? null })),
    same: plan.same.length,
    others: plan.others.map(({ id }) => id),
  };
}

// ---- whether it can be had

function check(
  { context, vnets, security, rotation, underlays }: Controller,
  plan: ApplyPlan,
): void {
  const gone = new Set([...plan.delete, ...plan.change.map(({ before }) => before)]);
  const staying = vnets.list().filter(({ config }) => !gone.has(config));
  const added = plan.create.filter(({ id }) => vnets.get(id) === undefined).length;
  if (vnets.size + added - plan.delete.length > maxVnets) {
    throw new VnetdError("VNET_LIMIT", `a host has at most ${String(maxVnets)} vnets`, {
      hint: "Take some out of the directory.",
    });
  }
  const parts = {
    isUnderlay: (device: string) => underlays.names().includes(device),
    espProblem: security.unavailable.bind(security),
  };
  for (const vnet of [...plan.create, ...plan.change.map((change) => change.wanted)]) {
    at(vnet.places.security, () => checkSecureConfig(context, vnet, parts.espProblem));
    checkNames(vnet, staying);
    // a device that has a name which another vnet gives up is not in the way
    if (![...gone].some((config) => config.id !== vnet.id && takesFrom(vnet, config)))
      checkDevices(context, parts, vnet);
  }
  for (const change of plan.change) {
    if (howTo(vnets, change) !== "rotate") continue;
    at(change.wanted.places.key, () => rotation.check(change.wanted.id, keyOf(change.wanted)));
  }
}

/**
 * In place, as far as can be. Where the key alone is another the hosts move to it one after the other; where the
 * protection is, or the vnet had no keys that worked, all of it begins anew.
 */
function howTo(vnets: Vnets, change: VnetChange): "in place" | "rotate" | "anew" {
  if (isOtherSecurity(change)) return "anew";
  if (!change.parameters.some(({ name }) => name === "key")) return "in place";
  return vnets.get(change.wanted.id)?.running?.secure === undefined ? "anew" : "rotate";
}

function keyOf({ key }: VnetConfig): string {
  return key ?? defaultKeyName;
}

// ---- the change

/** By id: what stays behind. */
function carryOut(controller: Controller, plan: ApplyPlan, directory: string): Map<VnetId, string> {
  const { vnets, security, rotation, context } = controller;
  const notes = new Map<VnetId, string>();
  const undos: (() => void)[] = [];
  /** what the others must hear of, whether all goes well or not */
  const appeared: VnetId[] = plan.create.map(({ id }) => id);
  const rotate = plan.change.filter((change) => howTo(vnets, change) === "rotate");
  const newer = [...plan.create, ...plan.change.map(({ wanted }) => wanted)];
  const early = plan.delete.filter((config) => newer.some((vnet) => takesFrom(vnet, config)));
  try {
    for (const config of early) {
      note(notes, config.id, remove(controller, config.id));
      appeared.push(config.id);
      undos.push(() => bringBack(vnets, config));
    }
    for (const change of plan.change) {
      if (howTo(vnets, change) === "anew") appeared.push(change.wanted.id);
      undos.push(changeOne(controller, change));
    }
    undos.push(vnets.create(plan.create).undo);
    persist(controller, plan, directory);
  } catch (error) {
    for (const undo of undos.reverse()) undo();
    security.sync();
    appear(controller, appeared);
    throw error;
  }
  for (const { id } of plan.delete.filter((config) => !early.includes(config)))
    note(notes, id, remove(controller, id));
  for (const { before } of plan.change) note(notes, before.id, removeOldBridge(controller, before));
  appear(controller, appeared);
  for (const change of rotate) note(notes, change.wanted.id, rotated(rotation, change.wanted));
  for (const { action, id, place, parameters } of changesOf(plan)) {
    const what = parameters.map(({ name, before, after }) =>
      action === "create"
        ? `${name} ${String(after)}`
        : `${name} ${String(before)} -> ${String(after)}`,
    );
    const from = place === null ? directory : place;
    context.log.say(
      "vnet_applied",
      `vnet ${id}: ${action}${what.length === 0 ? "" : ` ${what.join(", ")}`} (${from})`,
      { vnet: id },
    );
  }
  return notes;
}

function appear(controller: Controller, ids: readonly VnetId[]): void {
  controller.appeared(
    ids.flatMap((id): RunningVnet[] => {
      const running = controller.vnets.get(id)?.running;
      return running === undefined ? [] : [running];
    }),
  );
}

function note(notes: Map<VnetId, string>, id: VnetId, text: string | undefined): void {
  if (text !== undefined) notes.set(id, text);
}

function remove(controller: Controller, id: VnetId): string | undefined {
  const { running } = controller.vnets.find(id);
  if (running !== undefined) controller.leaves(running);
  const left = controller.vnets.delete(id);
  controller.security.sync();
  return left;
}

/** Of a vnet that has another one now. Says what stays behind, if anything does. */
function removeOldBridge({ context, vnets }: Controller, before: VnetConfig): string | undefined {
  const { id, bridge } = before;
  const isOld = bridge !== null && bridge !== vnets.get(id)?.config.bridge;
  return isOld ? removeBridge(context.native, bridge, id) : undefined;
}

/** One that had to go first, because its names were wanted. */
function bringBack(vnets: Vnets, config: VnetConfig): void {
  const place = { source: "state" };
  const places = {
    ...{ vnet: place, id: place, bridge: place, vnetif: place, security: place },
    ...{ key: place, previousKey: place, suite: place, encapsulation: place },
    suppress: place,
    group: place,
    group6: place,
  };
  vnets.create([{ ...config, places }]);
}

/** The way back. A key that is another is left to the rotation, which begins when everything else stands. */
function changeOne(controller: Controller, change: VnetChange): () => void {
  const { vnets } = controller;
  const { wanted, before } = change;
  const { running } = vnets.find(wanted.id);
  if (howTo(vnets, change) === "anew") {
    if (running !== undefined) controller.leaves(running);
    return vnets.change(wanted, true);
  }
  const { previousKey: _asked, ...others } = wanted;
  const { key, previousKey } = before;
  return vnets.change(
    { ...others, key, ...(previousKey === undefined ? {} : { previousKey }) },
    false,
  );
}

function rotated(rotation: Controller["rotation"], wanted: PlacedVnet): string | undefined {
  try {
    rotation.rotate(wanted.id, keyOf(wanted));
    return undefined;
  } catch (error) {
    return `its key was not changed: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function persist(controller: Controller, plan: ApplyPlan, directory: string): void {
  const { vnets } = controller;
  const gone = new Set(plan.delete.map(({ id }) => id));
  const owned = [...plan.create, ...plan.change.map(({ wanted }) => wanted)]
    .concat(plan.takeOver)
    .map(({ id }) => id);
  controller.persist((draft) => {
    const kept = draft.vnets.filter(({ id }) => !gone.has(id) && !owned.includes(id));
    draft.vnets = [...kept, ...owned.map((id) => withoutPlaces(vnets.find(id).config))];
    draft.deletedBuiltIns = draft.deletedBuiltIns.filter((id) => !owned.includes(id));
    for (const id of gone) {
      Object.assign(draft, without(draft, id));
      if (isBuiltInId(id)) draft.deletedBuiltIns.push(id);
    }
    const others = disowned(draft.applied, new Set([...gone, ...owned]));
    const mine = others.find((each) => each.directory === directory);
    const all = [...(mine?.vnets ?? []), ...owned];
    draft.applied = others.filter((each) => each !== mine);
    if (all.length > 0) draft.applied.push({ directory, vnets: all });
  });
}
