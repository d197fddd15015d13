// SPDX-License-Identifier: Apache-2.0
/**
 * What `vnetd apply` has to do so that a host's vnets are what a directory says, and in which order. Pure.
 *
 * A directory owns the vnets that were applied from it. Of what it does not name, its own are deleted, others are
 * left alone unless they are to be pruned; the daemon's own (2, 3, 4) always are.
 */
import type { ApplyChange } from "../api/contract.js";
import { formatPlace, VnetdError } from "../base/errors.js";
import { defaultSuiteName } from "../base/suite.js";
import { defaultKeyName } from "../base/vnet-key.js";
import type { PlacedVnet, VnetConfig } from "./vnet-file.js";

export interface PresentVnet {
  config: VnetConfig;
  builtIn: boolean;
  /** the directory that it was applied from; undefined: none */
  owner: string | undefined;
}

type Parameter = ApplyChange["parameters"][number];

export interface VnetChange {
  wanted: PlacedVnet;
  before: VnetConfig;
  parameters: Parameter[];
}

export interface ApplyPlan {
  create: PlacedVnet[];
  change: VnetChange[];
  /** as they should be, and not the directory's yet */
  takeOver: PlacedVnet[];
  delete: VnetConfig[];
  same: PlacedVnet[];
  /** configured, and left alone */
  others: VnetConfig[];
}

const compared = [
  "bridge",
  "vnetif",
  "security",
  "key",
  "suite",
  "encapsulation",
  "suppress",
  "group",
  "group6",
] as const;

export function planOf(
  wanted: readonly PlacedVnet[],
  present: readonly PresentVnet[],
  { directory, prune }: { directory: string; prune: boolean },
): ApplyPlan {
  const plan: ApplyPlan = {
    ...{ create: [], change: [], takeOver: [], delete: [], same: [], others: [] },
  };
  const known = new Map(present.map((each) => [each.config.id, each]));
  for (const vnet of wanted) {
    const now = known.get(vnet.id);
    if (now === undefined || now.builtIn) {
      plan.create.push(vnet);
      continue;
    }
    const parameters = differences(now.config, vnet);
    if (parameters.length > 0) plan.change.push({ wanted: vnet, before: now.config, parameters });
    else if (now.owner === directory) plan.same.push(vnet);
    else plan.takeOver.push(vnet);
  }
  const ids = new Set(wanted.map(({ id }) => id));
  for (const { config, builtIn, owner } of present) {
    if (builtIn || ids.has(config.id)) continue;
    if (owner === directory || prune) plan.delete.push(config);
    else plan.others.push(config);
  }
  return plan;
}

/** What is another, as it has its effect: a key that is not named is the default one. */
export function differences(before: VnetConfig, after: VnetConfig): Parameter[] {
  const [old, wanted] = [effective(before), effective(after)];
  return compared.flatMap((name) =>
    old[name] === wanted[name] ? [] : [{ name, before: old[name], after: wanted[name] }],
  );
}

function effective(vnet: VnetConfig): Record<(typeof compared)[number], string | null> {
  const { bridge, vnetif, security, key, suite, encapsulation, suppress } = vnet;
  const { group, group6 } = vnet;
  const isSecure = security !== "none";
  return {
    bridge,
    vnetif,
    security,
    key: isSecure ? (key ?? defaultKeyName) : null,
    suite: isSecure ? (suite ?? defaultSuiteName) : null,
    encapsulation,
    suppress: suppress === true ? "on" : null,
    group: group ?? null,
    group6: group6 ?? null,
  };
}

/** Its frames are protected otherwise: nothing that was heard before may count. */
export function isOtherSecurity({ parameters }: VnetChange): boolean {
  return parameters.some(({ name }) => name === "security" || name === "suite");
}

/**
 * The changes, each after those that give up a name that it takes. Throws NAME_IN_USE where they wait for one
 * another.
 */
export function inOrder(changes: readonly VnetChange[]): VnetChange[] {
  const waiting = [...changes];
  const ordered: VnetChange[] = [];
  while (waiting.length > 0) {
    const ready = waiting.findIndex((each) =>
      waiting.every((other) => other === each || !takesFrom(each.wanted, other.before)),
    );
    const [next] = waiting.splice(ready, ready < 0 ? 0 : 1);
    if (next === undefined) {
      const [stuck] = waiting;
      throw new VnetdError("NAME_IN_USE", `vnets of this directory exchange their names`, {
        hint: "Do it in two steps: give one of them another name first.",
        ...(stuck === undefined ? {} : { place: stuck.wanted.places.vnet }),
      });
    }
    ordered.push(next);
  }
  return ordered;
}

/** Whether a vnet is to have a name that another one has now. */
export function takesFrom(
  { bridge, vnetif }: Pick<VnetConfig, "bridge" | "vnetif">,
  other: VnetConfig,
): boolean {
  return [bridge, vnetif].some(
    (name) => name !== null && (name === other.bridge || name === other.vnetif),
  );
}

/** As people and machines are shown it; deletions first, as they are the ones to look at. */
export function changesOf(plan: ApplyPlan): ApplyChange[] {
  const nothing: Pick<ApplyChange, "parameters" | "note"> = { parameters: [], note: null };
  const placeOf = ({ places }: PlacedVnet): string =>
    formatPlace({
      source: places.vnet.source,
      ...(places.vnet.line === undefined ? {} : { line: places.vnet.line }),
    });
  return [
    ...plan.delete.map(({ id }): ApplyChange => ({
      ...nothing,
      action: "delete",
      id,
      place: null,
    })),
    ...plan.change.map((change): ApplyChange => ({
      action: isOtherSecurity(change) ? "remake" : "change",
      id: change.wanted.id,
      place: placeOf(change.wanted),
      parameters: change.parameters,
      note: null,
    })),
    ...plan.create.map((vnet): ApplyChange => ({
      action: "create",
      id: vnet.id,
      place: placeOf(vnet),
      parameters: compared.flatMap((name) => {
        const after = effective(vnet)[name];
        return after === null ? [] : [{ name, before: null, after }];
      }),
      note: null,
    })),
    ...plan.takeOver.map((vnet): ApplyChange => ({
      ...nothing,
      action: "take-over",
      id: vnet.id,
      place: placeOf(vnet),
    })),
  ];
}
