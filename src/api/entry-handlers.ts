// SPDX-License-Identifier: Apache-2.0
/**
 * The methods that change the MAC table: vif-add and vif-delete for MACs of this host, varp-add and
 * varp-delete for MACs of others, varp-flush; and those of the table of neighbours.
 *
 * What is made is entered, then persisted, and taken back if that fails; what is deleted is
 * persisted first. A crash in between leaves a static entry that the next start removes.
 */
import { addressToText, isHostAddress, parseAddress } from "../base/address.js";
import { VnetdError } from "../base/errors.js";
import { checkDeviceName, deviceNameProblem } from "../base/ifname.js";
import { isGroupMac, isZeroMac, macFromText, macToBytes, type Mac } from "../base/mac.js";
import { parseVnetId } from "../base/vnet-id.js";
import type { Controller } from "../controller.js";
import { maxConfiguredEntries, without } from "../controller/static-entries.js";
import { forgetNeighbours, neighbourList } from "../controller/neighbours.js";
import type { Underlay } from "../controller/underlays.js";
import type { RunningVnet } from "../controller/vnets.js";
import { isFresh, isLocal, nowNs } from "../dataplane/tables.js";
import { vnetdControlOp } from "../generated/layouts.js";
import type { StoredRemote, StoredVif } from "../store/stored-entries.js";
import type { Method, VarpEntry, VifInfo } from "./contract.js";
import { flagField, optionalTextField, textField } from "./params.js";
import type { Handlers } from "./server.js";

type EntryMethod = Extract<
  Method,
  "vifAdd" | "vifDelete" | "varpAdd" | "varpDelete" | "varpFlush" | "neighbours" | "neighbourFlush"
>;

export function entryHandlers(controller: Controller): Pick<Handlers, EntryMethod> {
  return {
    vifAdd: (params) => {
      const vnet = runningVnet(controller, textField(params, "vnet"));
      const text = textField(params, "vmac");
      const vmac = macOrDevice(controller, text, flagField(params, "byDevice"));
      return vifAdd(controller, vnet, {
        vnet: vnet.id,
        vmac,
        static: flagField(params, "static"),
      });
    },
    vifDelete: (params) => {
      const vnet = runningVnet(controller, textField(params, "vnet"));
      return vifDelete(controller, vnet, macOrDevice(controller, textField(params, "vmac")));
    },
    varpAdd: (params) => {
      const vnet = runningVnet(controller, textField(params, "vnet"));
      const device = optionalTextField(params, "device");
      return varpAdd(controller, vnet, {
        vnet: vnet.id,
        vmac: stationMac(textField(params, "vmac")),
        address: hostAddress(controller, textField(params, "address")),
        device: device === undefined ? null : checkDeviceName(device, "device"),
      });
    },
    varpDelete: (params) => {
      const vnet = runningVnet(controller, textField(params, "vnet"));
      return varpDelete(controller, vnet, stationMac(textField(params, "vmac")));
    },
    varpFlush: (params) => varpFlush(controller, optionalTextField(params, "vnet")),
    neighbours: (params) => {
      const vnet = optionalTextField(params, "vnet");
      return neighbourList(controller, vnet === undefined ? vnet : runningVnet(controller, vnet));
    },
    neighbourFlush: (params) => {
      const vnet = runningVnet(controller, textField(params, "vnet"));
      const address = optionalTextField(params, "address");
      return { neighbours: forgetNeighbours(controller, vnet, address) };
    },
  };
}

// ---- what is named in a request

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
  return checkStation(mac);
}

function deviceMac({ context }: Controller, name: string): Mac | undefined {
  if (deviceNameProblem(name) !== undefined) return undefined;
  const mac = context.native.linkGet(name)?.mac;
  return mac === "" ? undefined : mac;
}

function stationMac(text: string): Mac {
  const mac = macFromText(text);
  if (mac !== undefined) return checkStation(mac);
  throw new VnetdError("BAD_MAC", `"${text.slice(0, 80)}" is not a MAC address`, {
    hint: "A MAC address is six pairs of hex digits, for example aa:00:00:01:02:03.",
  });
}

function checkStation(mac: Mac): Mac {
  if (!isGroupMac(mac) && !isZeroMac(mac)) return mac;
  throw new VnetdError("BAD_MAC", `${mac} is no station's MAC address`, {
    hint: "The first byte of a station's address is even, and not all are zero.",
  });
}

/** The canonical text of an address that another host may have. */
function hostAddress({ underlays }: Controller, text: string): string {
  const bytes = parseAddress(text);
  const address = addressToText(bytes);
  if (!isHostAddress(bytes)) {
    throw new VnetdError("BAD_ADDRESS", `${address} cannot be the address of another host`, {
      hint: "Give the underlay address of the host that the MAC lives on.",
    });
  }
  if (underlays.list().some(({ state }) => state.address === address)) {
    throw new VnetdError("BAD_ADDRESS", `${address} is this host's own address`, {
      hint: "For a MAC that lives on this host there is vif-add.",
    });
  }
  return address;
}

// ---- MACs of this host

function vifAdd(controller: Controller, vnet: RunningVnet, vif: StoredVif): VifInfo {
  const { statics } = controller;
  const { vmac } = vif;
  const remote = statics.remote(vnet.id, vmac);
  if (remote !== undefined) {
    throw new VnetdError("MAC_IN_USE", `${vmac} is configured to live on ${remote.address}`, {
      hint: `Delete that entry first: vnetd varp-delete ${vnet.id} ${vmac}`,
    });
  }
  const before = statics.vif(vnet.id, vmac);
  checkRoom(controller, before !== undefined);
  entered(vmac, statics.enterVif(vnet, vif));
  controller.persist(
    (draft) => {
      Object.assign(draft, without(draft, vnet.id, vmac));
      draft.vifs.push(vif);
    },
    () => {
      if (before === undefined) forgetLocal(controller, vnet, vmac);
      else statics.enterVif(vnet, before);
    },
  );
  controller.varp.announce(vnet.handle, vmac);
  const shown = controller.views.vifs().find((each) => each.vnet === vnet.id && each.vmac === vmac);
  const state = vif.static ? "static" : "added";
  return shown ?? { vnet: vnet.id, vmac, state, ageSeconds: null, device: null };
}

function vifDelete(
  controller: Controller,
  vnet: RunningVnet,
  vmac: Mac,
): { vnet: string; vmac: string } {
  const isConfigured = controller.statics.vif(vnet.id, vmac) !== undefined;
  if (!isConfigured && !livesHere(controller, vnet, vmac)) {
    throw new VnetdError("VIF_NOT_FOUND", `vnet ${vnet.id} has no vif ${vmac} on this host`, {
      hint: "`vnetd vifs` shows those it has.",
    });
  }
  if (isConfigured)
    controller.persist((draft) => Object.assign(draft, without(draft, vnet.id, vmac)));
  forgetLocal(controller, vnet, vmac);
  return { vnet: vnet.id, vmac };
}

function livesHere({ context }: Controller, { slot, handle }: RunningVnet, vmac: Mac): boolean {
  const entry = context.maps.fdbEntry({ handle, mac: macToBytes(vmac) });
  const record = context.maps.vnet(slot);
  if (entry === undefined || record === undefined) return false;
  return isLocal(entry) && isFresh(entry, record, nowNs());
}

function forgetLocal({ context }: Controller, { slot, handle }: RunningVnet, vmac: Mac): void {
  const op = vnetdControlOp.CTL_FORGET_LOCAL;
  context.control.run({ op, slot, handle, mac: macToBytes(vmac) });
}

// ---- MACs of other hosts

function varpAdd(controller: Controller, vnet: RunningVnet, remote: StoredRemote): VarpEntry {
  const { statics } = controller;
  const { vmac, address } = remote;
  checkNotHere(controller, vnet, vmac);
  const underlay = leadingDevice(controller, remote);
  const before = statics.remote(vnet.id, vmac);
  checkRoom(controller, before !== undefined);
  entered(vmac, statics.enterRemote(vnet, remote, underlay));
  controller.persist(
    (draft) => {
      Object.assign(draft, without(draft, vnet.id, vmac));
      draft.remotes.push(remote);
    },
    () => {
      statics.forget(vnet, vmac);
      if (before !== undefined) statics.apply();
    },
  );
  const device = underlay.device;
  return { vnet: vnet.id, vmac, address, device, state: "static", ageSeconds: 0, mtu: null };
}

function checkNotHere(controller: Controller, vnet: RunningVnet, vmac: Mac): void {
  const isConfigured = controller.statics.vif(vnet.id, vmac) !== undefined;
  if (vmac !== vnet.vmac && !isConfigured && !livesHere(controller, vnet, vmac)) return;
  const what = vmac === vnet.vmac ? "the vnet's interface on this host" : "on this host";
  throw new VnetdError("MAC_IN_USE", `${vmac} is ${what}`, {
    hint: isConfigured
      ? `Delete it here first: vnetd vif-delete ${vnet.id} ${vmac}`
      : "`vnetd vifs` shows the MACs of this host; one that was only heard is forgotten by vif-delete.",
  });
}

function leadingDevice(controller: Controller, remote: StoredRemote): Underlay {
  const device = controller.statics.deviceOf(remote);
  if (typeof device !== "string") return device;
  throw new VnetdError(remote.device === null ? "NO_PATH" : "NOT_ATTACHED", device, {
    hint:
      remote.device === null
        ? "Attach the device by which the host is reached, or name one: --device DEV."
        : "`vnetd status` shows the attached devices.",
  });
}

function varpDelete(
  controller: Controller,
  vnet: RunningVnet,
  vmac: Mac,
): { vnet: string; vmac: string } {
  if (controller.statics.remote(vnet.id, vmac) === undefined) {
    throw new VnetdError("ENTRY_NOT_FOUND", `vnet ${vnet.id} has no static entry for ${vmac}`, {
      hint: "`vnetd varp` shows those it has; varp-flush forgets what was learned.",
    });
  }
  controller.persist((draft) => Object.assign(draft, without(draft, vnet.id, vmac)));
  controller.statics.forget(vnet, vmac);
  return { vnet: vnet.id, vmac };
}

function varpFlush(controller: Controller, vnetText: string | undefined): { vnets: number } {
  const { vnets, context } = controller;
  const chosen = vnetText === undefined ? vnets.running() : [runningVnet(controller, vnetText)];
  for (const vnet of chosen) context.table.flush(vnet);
  return { vnets: chosen.length };
}

// ---- limits

function checkRoom({ statics }: Controller, isThere: boolean): void {
  if (isThere || statics.count < maxConfiguredEntries) return;
  throw new VnetdError(
    "TABLE_FULL",
    `${String(maxConfiguredEntries)} entries are configured, which is all that fit`,
    {
      hint: "Delete some that are not used.",
    },
  );
}

function entered(vmac: Mac, reason: string): void {
  if (reason === "ok") return;
  throw new VnetdError("TABLE_FULL", `${vmac} was not entered: ${reason}`, {
    hint: "A limit of the table is reached: see limits in the configuration.",
  });
}
