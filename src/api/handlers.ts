// SPDX-License-Identifier: Apache-2.0
/**
 * What each method of the API does: reads the parameters, checks, and hands on to the controller.
 * Synchronous, so requests of several connections never interleave.
 */
import { checkDeviceName } from "../base/ifname.js";
import { VnetdError } from "../base/errors.js";
import { parseVnetId } from "../base/vnet-id.js";
import { version } from "../base/version.js";
import {
  parseVnetFile,
  vnetFromParameters,
  withoutPlaces,
  type PlacedVnet,
} from "../config/vnet-file.js";
import { isBuiltInId, type Controller } from "../controller.js";
import type { AttachMode } from "../controller/xdp-modes.js";
import type { Reloads } from "../controller/reloads.js";
import { Doctor } from "../doctor/doctor.js";
import { Trace } from "../controller/trace/trace.js";
import { without } from "../controller/static-entries.js";
import { disowned } from "../store/stored-applied.js";
import type { DaemonState } from "../store/state-file.js";
import { applyHandler } from "./apply-handler.js";
import { apiVersion, type AttachedDevice, type VnetInfo, type VnetParameters } from "./contract.js";
import { detachAll, type Ending } from "./detach-all.js";
import { entryHandlers } from "./entry-handlers.js";
import { keyHandlers } from "./key-handlers.js";
import { portHandlers } from "./port-handlers.js";
import {
  fieldsOf,
  flagField,
  onlyFields,
  optionalIntegerField,
  optionalTextField,
  textField,
  textListField,
} from "./params.js";
import type { Handlers } from "./server.js";
import { traceHandler } from "./trace-handler.js";

export function createHandlers(controller: Controller, reloads: Reloads, ending: Ending): Handlers {
  const { views } = controller;
  const doctor = new Doctor(controller);
  const trace = new Trace(controller.context, controller);
  return {
    attach: (params) => attach(controller, textField(params, "device"), modeField(params)),
    detach: (params) => detach(controller, textField(params, "device")),
    detachAll: (params) => detachAll(controller, params, ending),
    vnetCreate: (params) => vnetCreate(controller, placedVnets(params)),
    vnetDelete: (params) => vnetDelete(controller, textField(params, "id")),
    vnetList: (params) => vnetList(controller, textListField(params, "ids")),
    vnets: (params) => views.vnets(flagField(params, "all")),
    vnifs: () => views.vnifs(),
    vifs: () => views.vifs(),
    varp: () => views.varp(),
    ...entryHandlers(controller),
    ...keyHandlers(controller),
    ...portHandlers(controller),
    peers: () => controller.peers.list(),
    peerAdd: (params) => {
      const port = optionalIntegerField(params, "port", { smallest: 1, largest: 65535 });
      return peerAdd(controller, textField(params, "peer"), port ?? null);
    },
    peerDelete: (params) => peerDelete(controller, textField(params, "peer")),
    bridges: () => views.bridges(),
    hosts: () => views.hosts(),
    status: () => ({ ...views.status(), configuration: reloads.info() }),
    reload: () => reloads.reload(),
    trace: (params) => traceHandler(trace, params),
    doctor: () => doctor.run(),
    apply: (params) => applyHandler(controller, params),
    version: () => ({ version, api: apiVersion, layout: controller.context.generation.layout }),
  };
}

// ---- peers

function peerAdd(
  controller: Controller,
  text: string,
  port: number | null,
): { peer: string; port: number | null } {
  const { peers, context } = controller;
  const { peer } = peers.add(text, port);
  controller.persist(
    (draft) => {
      draft.peers.push({ peer, port, addresses: [] });
    },
    () => peers.delete(peer),
  );
  context.log.say("peer_added", `peer ${peer}: added`, { host: peer });
  context.news.tell(() => ({ kind: "peer", text: `peer ${peer}: added` }));
  return { peer, port };
}

function peerDelete(controller: Controller, text: string): { peer: string } {
  const { peers, context } = controller;
  const peer = peers.find(text);
  if (context.config.peers.some((each) => each.peer === peer)) {
    throw new VnetdError("PEER_EXISTS", `${peer} stands in the daemon's configuration`, {
      hint: "Take it out of `peers` there, then `vnetd reload`.",
    });
  }
  controller.persist((draft) => {
    draft.peers = draft.peers.filter((each) => each.peer !== peer);
  });
  peers.delete(peer);
  context.log.say("peer_deleted", `peer ${peer}: deleted`, { host: peer });
  context.news.tell(() => ({ kind: "peer", text: `peer ${peer}: deleted` }));
  return { peer };
}

// ---- devices

function modeField(params: Record<string, unknown>): AttachMode | undefined {
  const mode = optionalTextField(params, "mode");
  if (mode === undefined || mode === "tc" || mode === "xdp") return mode;
  throw new VnetdError("BAD_VALUE", `"${mode.slice(0, 80)}" is no mode`, {
    hint: "It is tc or xdp.",
  });
}

function attach(controller: Controller, device: string, mode?: AttachMode): AttachedDevice {
  checkDeviceName(device, "device");
  if (mode === "tc" && controller.context.config.xdp.includes(device)) {
    throw new VnetdError("CONFIG", `the configuration gives ${device} the mode xdp`, {
      hint: `Take ${device} out of its list "xdp", then \`vnetd reload\`.`,
    });
  }
  const inside = controller.vnets
    .list()
    .find(({ config }) => [config.bridge, config.vnetif].includes(device));
  if (inside !== undefined) {
    throw new VnetdError(
      "DEVICE_UNSUITABLE",
      `${device} belongs to vnet ${inside.config.id}: it cannot carry vnets`,
      {
        hint: "Attach the device by which this host reaches the others.",
      },
    );
  }
  const port = controller.state.state.ports.find((each) => each.device === device);
  if (port !== undefined) {
    throw new VnetdError("DEVICE_UNSUITABLE", `${device} is a port of vnet ${port.vnet}`, {
      hint: "Attach the device by which this host reaches the others.",
    });
  }
  const { underlays } = controller;
  const before = underlays.modeOf(device);
  const remember = (draft: DaemonState): void => {
    if (!draft.attached.includes(device)) draft.attached.push(device);
    if (mode !== undefined) draft.xdp = draft.xdp.filter((name) => name !== device);
    if (mode === "xdp") draft.xdp.push(device);
  };
  const [place] = underlays.ofDevice(device);
  if (place !== undefined && before !== undefined && mode !== undefined && mode !== before) {
    underlays.changeMode(device, mode);
    controller.persist(remember, () => underlays.changeMode(device, before));
    return controller.views.attached(place);
  }
  const underlay = underlays.attach(device, mode);
  controller.persist(remember, () => underlays.detach(device));
  return controller.views.attached(underlay);
}

function detach(controller: Controller, device: string): { device: string } {
  const places = controller.underlays.ofDevice(device);
  if (places.length > 0) {
    controller.persist((draft) => {
      draft.attached = draft.attached.filter((name) => name !== device);
      draft.xdp = draft.xdp.filter((name) => name !== device);
    });
    for (const place of places) controller.hellos.deviceLeaves(place);
  }
  controller.underlays.detach(device);
  controller.security.sync();
  controller.context.log.say("device_detached", `${device}: detached`, { device });
  if (controller.context.config.attach.includes(device)) {
    controller.context.log.say(
      "device_listed",
      `${device} is in the configuration's attach list: it comes back with the next start or reload`,
      { device },
    );
  }
  return { device };
}

// ---- vnets

const optionalParameters = [
  "bridge",
  "vnetif",
  "security",
  "key",
  "previousKey",
  "suite",
  "encapsulation",
  "suppress",
  "group",
  "group6",
] as const;

function placedVnets(params: unknown): PlacedVnet[] {
  const parameters = fieldsOf(params)["parameters"];
  onlyFields(params, parameters === undefined ? ["text", "source"] : ["parameters"]);
  if (parameters === undefined) {
    return parseVnetFile(
      textField(params, "text"),
      optionalTextField(params, "source") ?? "request",
    );
  }
  onlyFields(parameters, ["id", ...optionalParameters]);
  const fields: VnetParameters = { id: textField(parameters, "id") };
  for (const name of optionalParameters) {
    const value = optionalTextField(parameters, name);
    if (value !== undefined) fields[name] = value;
  }
  return [vnetFromParameters(fields)];
}

function vnetCreate(
  controller: Controller,
  placed: readonly PlacedVnet[],
): (VnetInfo & { note?: string })[] {
  const { vnets, context } = controller;
  const { made, undo } = vnets.create(placed);
  const configs = placed.map(withoutPlaces);
  const ids = new Set(configs.map(({ id }) => id));
  controller.persist((draft) => {
    draft.vnets.push(...configs);
    draft.deletedBuiltIns = draft.deletedBuiltIns.filter((id) => !ids.has(id));
  }, undo);
  controller.appeared(made);
  for (const { id, vnetif, bridge } of configs) {
    const where = bridge === null ? vnetif : `${vnetif} on ${bridge}`;
    context.log.say("vnet_made", `vnet ${id}: made, ${where}`, { vnet: id, device: vnetif });
  }
  return configs.map((stored) => {
    const config = vnets.inUse(stored);
    const note = addressesOnPort(controller, config);
    if (note !== undefined)
      context.log.say("vnet_addresses", `vnet ${config.id}: ${note}`, { vnet: config.id });
    return note === undefined ? config : { ...config, note };
  });
}

/** Only a built-in vnet that was in use has them: what is made now has none. */
function addressesOnPort({ vnets, context }: Controller, config: VnetInfo): string | undefined {
  const ifindex = vnets.get(config.id)?.running?.vnif?.ifindex;
  if (config.bridge === null || ifindex === undefined) return undefined;
  const own = context.native
    .addressList()
    .filter((entry) => entry.ifindex === ifindex && !/^fe80:/u.test(entry.address))
    .map(({ address, prefixLength }) => `${address}/${String(prefixLength)}`);
  if (own.length === 0) return undefined;
  return (
    `${config.vnetif} is a port of ${config.bridge} now, where its own addresses do not answer: ` +
    `give ${own.join(", ")} to the bridge`
  );
}

function vnetDelete(controller: Controller, text: string): VnetInfo & { note: string | null } {
  const { vnets, security, context } = controller;
  const id = parseVnetId(text);
  const { config, running } = vnets.find(id);
  controller.persist((draft) => {
    draft.vnets = draft.vnets.filter((vnet) => vnet.id !== id);
    draft.applied = disowned(draft.applied, new Set([id]));
    Object.assign(draft, without(draft, id));
    draft.ports = draft.ports.filter(({ vnet }) => vnet !== id);
    if (isBuiltInId(id) && !draft.deletedBuiltIns.includes(id)) draft.deletedBuiltIns.push(id);
  });
  if (running !== undefined) controller.leaves(running);
  controller.directPorts.sync(context.native.linkList());
  const note = vnets.delete(id);
  security.sync();
  controller.groups.follow();
  const left = note === undefined ? "" : `; ${note}`;
  context.log.say("vnet_deleted", `vnet ${id}: deleted${left}`, { vnet: id });
  return { ...vnets.inUse(config), note: note ?? null };
}

function vnetList(controller: Controller, ids: readonly string[]): VnetInfo[] {
  if (ids.length === 0) return controller.views.vnetList();
  const wanted = new Set(ids.map((text) => parseVnetId(text)));
  return [...wanted].map((id) => controller.vnets.inUse(controller.vnets.find(id).config));
}
