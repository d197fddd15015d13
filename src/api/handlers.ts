// SPDX-License-Identifier: Apache-2.0
/**
 * What each method of the API does: reads the parameters, checks, and hands on to the controller.
 * Synchronous, so requests of several connections never interleave.
 */
import { deviceNameProblem, checkDeviceName } from "../base/ifname.js";
import { VnetdError } from "../base/errors.js";
import { isGroupMac, isZeroMac, macFromText, macToBytes, type Mac } from "../base/mac.js";
import { parseVnetId } from "../base/vnet-id.js";
import { version } from "../base/version.js";
import {
  parseVnetFile,
  vnetFromParameters,
  withoutPlaces,
  type PlacedVnet,
} from "../config/vnet-file.js";
import { isBuiltInId, type Controller } from "../controller.js";
import { isFresh, isLocal, nowNs } from "../dataplane/tables.js";
import { vnetdControlOp, vnetdFdbFlags } from "../generated/layouts.js";
import {
  apiVersion,
  type AttachedDevice,
  type VifInfo,
  type VnetInfo,
  type VnetParameters,
} from "./contract.js";
import { fieldsOf, flagField, optionalTextField, textField, textListField } from "./params.js";
import type { Handlers } from "./server.js";
import type { RunningVnet } from "../controller/vnets.js";

export function createHandlers(controller: Controller): Handlers {
  const { views } = controller;
  return {
    attach: (params) => attach(controller, textField(params, "device")),
    detach: (params) => detach(controller, textField(params, "device")),
    vnetCreate: (params) => vnetCreate(controller, placedVnets(params)),
    vnetDelete: (params) => vnetDelete(controller, textField(params, "id")),
    vnetList: (params) => vnetList(controller, textListField(params, "ids")),
    vnets: (params) => views.vnets(flagField(params, "all")),
    vnifs: () => views.vnifs(),
    vifs: () => views.vifs(),
    vifAdd: (params) => {
      const vmac = textField(params, "vmac");
      const mac = macOrDevice(controller, vmac, flagField(params, "byDevice"));
      return vifAdd(controller, textField(params, "vnet"), mac);
    },
    vifDelete: (params) =>
      vifDelete(controller, textField(params, "vnet"), textField(params, "vmac")),
    varp: () => views.varp(),
    varpFlush: (params) => varpFlush(controller, optionalTextField(params, "vnet")),
    peers: notBuilt,
    peerAdd: notBuilt,
    peerDelete: notBuilt,
    bridges: () => views.bridges(),
    hosts: () => views.hosts(),
    status: () => views.status(),
    version: () => ({ version, api: apiVersion, layout: controller.context.generation.layout }),
  };
}

function notBuilt(): never {
  throw new VnetdError("NOT_BUILT", "forwarding to peers is not built yet", {
    hint: "Until it is, hosts must reach one another by multicast.",
  });
}

// ---- devices

function attach(controller: Controller, device: string): AttachedDevice {
  checkDeviceName(device, "device");
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
  const underlay = controller.underlays.attach(device);
  controller.persist(
    (draft) => {
      if (!draft.attached.includes(device)) draft.attached.push(device);
    },
    () => controller.underlays.detach(device),
  );
  return controller.views.attached(underlay);
}

function detach(controller: Controller, device: string): { device: string } {
  const underlay = controller.underlays.list().find((each) => each.device === device);
  if (underlay !== undefined) {
    controller.persist((draft) => {
      draft.attached = draft.attached.filter((name) => name !== device);
    });
    controller.hellos.deviceLeaves(underlay);
  }
  controller.underlays.detach(device);
  controller.context.log.info(`${device}: detached`);
  if (controller.context.config.attach.includes(device)) {
    controller.context.log.warn(
      `${device} is in the configuration's attach list: it comes back at the next start`,
    );
  }
  return { device };
}

// ---- vnets

function placedVnets(params: unknown): PlacedVnet[] {
  const parameters = fieldsOf(params)["parameters"];
  if (parameters === undefined) {
    return parseVnetFile(
      textField(params, "text"),
      optionalTextField(params, "source") ?? "request",
    );
  }
  const fields: VnetParameters = { id: textField(parameters, "id") };
  for (const name of ["bridge", "vnetif", "security"] as const) {
    const value = optionalTextField(parameters, name);
    if (value !== undefined) fields[name] = value;
  }
  return [vnetFromParameters(fields)];
}

function vnetCreate(controller: Controller, placed: readonly PlacedVnet[]): VnetInfo[] {
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
    context.log.info(`vnet ${id}: made, ${vnetif}${bridge === null ? "" : ` on ${bridge}`}`);
  }
  return configs;
}

function vnetDelete(controller: Controller, text: string): VnetInfo & { note: string | null } {
  const { vnets, hellos, varp, context } = controller;
  const id = parseVnetId(text);
  const { config, running } = vnets.find(id);
  controller.persist((draft) => {
    draft.vnets = draft.vnets.filter((vnet) => vnet.id !== id);
    if (isBuiltInId(id) && !draft.deletedBuiltIns.includes(id)) draft.deletedBuiltIns.push(id);
  });
  if (running !== undefined) {
    hellos.vnetLeaves(running);
    varp.vnetGone(running.handle);
  }
  const note = vnets.delete(id);
  context.log.info(`vnet ${id}: deleted${note === undefined ? "" : `; ${note}`}`);
  return { ...config, note: note ?? null };
}

function vnetList(controller: Controller, ids: readonly string[]): VnetInfo[] {
  if (ids.length === 0) return controller.views.vnetList();
  return ids.map((text) => controller.vnets.find(parseVnetId(text)).config);
}

// ---- the MAC table

function runningVnet(controller: Controller, text: string): RunningVnet {
  const { running, problem, config } = controller.vnets.find(parseVnetId(text));
  if (running !== undefined) return running;
  throw new VnetdError("KERNEL", `vnet ${config.id} is not up: ${problem}`);
}

/** A MAC, or the name of a device whose MAC is meant; only the latter when `byDevice` says so. */
function macOrDevice(controller: Controller, text: string, byDevice = false): Mac {
  const mac = (byDevice ? undefined : macFromText(text)) ?? deviceMac(controller, text);
  if (mac === undefined) {
    throw new VnetdError(
      "BAD_MAC",
      `"${text.slice(0, 80)}" is neither a MAC address nor a device that has one`,
      {
        hint: "A MAC address is six pairs of hex digits, for example aa:00:00:01:02:03.",
      },
    );
  }
  if (isGroupMac(mac) || isZeroMac(mac)) {
    throw new VnetdError("BAD_MAC", `${mac} is no station's MAC address`, {
      hint: "The first byte of a station's address is even, and not all are zero.",
    });
  }
  return mac;
}

function deviceMac({ context }: Controller, name: string): Mac | undefined {
  if (deviceNameProblem(name) !== undefined) return undefined;
  const mac = context.native.linkGet(name)?.mac;
  return mac === "" ? undefined : mac;
}

function vifAdd(controller: Controller, vnetText: string, vmac: Mac): VifInfo {
  const vnet = runningVnet(controller, vnetText);
  const reason = controller.context.control.run({
    op: vnetdControlOp.CTL_LEARN_LOCAL,
    slot: vnet.slot,
    handle: vnet.handle,
    fdbFlags: vnetdFdbFlags.FDB_STATIC,
    mac: macToBytes(vmac),
  });
  if (reason !== "ok") {
    throw new VnetdError("KERNEL", `${vmac} was not entered: ${reason}`, {
      hint: "A limit of the table is reached: see limits in the configuration.",
    });
  }
  controller.varp.announce(vnet.handle, vmac);
  const shown = controller.views.vifs().find((vif) => vif.vnet === vnet.id && vif.vmac === vmac);
  return shown ?? { vnet: vnet.id, vmac, ageSeconds: null, device: null };
}

function vifDelete(
  controller: Controller,
  vnetText: string,
  vmacText: string,
): { vnet: string; vmac: string } {
  const { maps, control } = controller.context;
  const { slot, handle, id } = runningVnet(controller, vnetText);
  const vmac = macOrDevice(controller, vmacText);
  const mac = macToBytes(vmac);
  const entry = maps.fdbEntry({ handle, mac });
  const record = maps.vnet(slot);
  const isHere =
    entry !== undefined &&
    record !== undefined &&
    isLocal(entry) &&
    isFresh(entry, record, nowNs());
  if (!isHere) {
    throw new VnetdError("VIF_NOT_FOUND", `vnet ${id} has no vif ${vmac} on this host`, {
      hint: "`vnetd vifs` shows those it has.",
    });
  }
  control.run({ op: vnetdControlOp.CTL_FORGET, slot, handle, mac });
  return { vnet: id, vmac };
}

function varpFlush(controller: Controller, vnetText: string | undefined): { vnets: number } {
  const { vnets, context } = controller;
  const chosen = vnetText === undefined ? vnets.running() : [runningVnet(controller, vnetText)];
  for (const vnet of chosen) context.table.flush(vnet);
  return { vnets: chosen.length };
}
