// SPDX-License-Identifier: Apache-2.0
/**
 * Takes another configuration while everything runs: looks first whether it can be had, then changes what is
 * different, and goes back to the one before when a step fails. What a key does not concern is not touched, so that
 * frames that go by it notice nothing.
 *
 * Each part reads context.config whenever it needs it; here they are told only what they keep beside it.
 */
import { closeSync } from "node:fs";
import os from "node:os";
import { VnetdError } from "../base/errors.js";
import type { DaemonConfig } from "../config/daemon-config.js";
import { vnetdLimits } from "../generated/layouts.js";
import { errnoName } from "../host/errno.js";
import { unsuitable } from "../host/underlay-state.js";
import type { Controller } from "../controller.js";

/** Throws with the reason, and then nothing is other than before. */
export function reconfigure(controller: Controller, wanted: DaemonConfig): void {
  const { context } = controller;
  const before = context.config;
  checkDevices(controller, wanted);
  checkPort(controller, wanted);
  controller.peers.checkFile(wanted.peers);
  try {
    switchTo(controller, wanted);
  } catch (error) {
    try {
      switchTo(controller, before);
    } catch (again) {
      context.log.say("config_mixed", `going back to the configuration before: ${String(again)}`);
    }
    throw error;
  }
}

// ---- whether it can be had

function checkDevices({ context, vnets, state }: Controller, wanted: DaemonConfig): void {
  const names = vnets
    .list()
    .map(({ config }) => ({ id: config.id, names: [config.bridge, config.vnetif] }));
  for (const device of wanted.attach) {
    const inside = names.find((each) => each.names.includes(device));
    if (inside !== undefined)
      throw unusable(`${device} belongs to vnet ${inside.id}: it cannot carry vnets`);
    const link = context.native.linkGet(device);
    const why = link === undefined ? undefined : unsuitable(link);
    if (why !== undefined) throw unusable(`${device} cannot carry vnets: ${why}`);
  }
  const all = new Set([...state.state.attached, ...wanted.attach]).size;
  const places = all * (wanted.underlay === "both" ? 2 : 1);
  if (places > vnetdLimits.MAX_UNDERLAYS) {
    throw unusable(
      `${String(all)} devices, with those that were attached by command, are more than can be attached`,
    );
  }
}

function unusable(message: string): VnetdError {
  return new VnetdError("DEVICE_UNSUITABLE", message, {
    hint: "Attach the device by which this host reaches the others.",
  });
}

/** Whether another program has the new port. */
function checkPort({ context, underlays }: Controller, { port }: DaemonConfig): void {
  if (port === context.config.port) return;
  for (const { device, state } of underlays.list()) {
    const { address } = state;
    if (address === null) continue;
    try {
      closeSync(context.native.udpSocket({ device, address, port, multicastTtl: 1 }));
    } catch (error) {
      if (errnoName(error) !== "EADDRINUSE") throw error;
      throw new VnetdError("CONFIG", `another program has UDP ${address}:${String(port)}`, {
        hint: `\`ss -Hlunp sport = :${String(port)}\` names it: end it, or choose another port on all hosts.`,
        cause: error,
      });
    }
  }
}

// ---- the change

function switchTo(controller: Controller, to: DaemonConfig): void {
  const { context, vnets, underlays, peers, security, hellos, troubles } = controller;
  const from = context.config;
  const differs = (...keys: (keyof DaemonConfig)[]): boolean =>
    keys.some((key) => JSON.stringify(from[key]) !== JSON.stringify(to[key]));
  const hostName = to.hostName ?? os.hostname();
  const isRenamed = hostName !== context.hostName;
  Object.assign(context, { config: to, hostName });
  if (differs("limits", "ageingSeconds", "neighbourSeconds", "encapsulation"))
    vnets.configChanged(from);
  if (differs("attach")) changeDevices(controller, from);
  if (differs("attach", "xdp", "underlay", "group", "group6", "port", "merge", "multicast"))
    underlays.configChanged(from);
  if (differs("keys", "helloSeconds")) security.configChanged(from);
  if (differs("helloSeconds")) hellos.intervalChanged();
  if (differs("helloSeconds", "probeSeconds")) troubles.intervalChanged();
  if (differs("peers", "helloSeconds", "resolveSeconds", "port", "multicast", "underlay", "attach"))
    peers.configChanged();
  if (differs("defaultVnets")) controller.followBuiltIns();
  if (isRenamed || differs("helloSeconds", "group", "group6", "port")) hellos.sayAll();
}

function changeDevices(
  { context, underlays, hellos, security, state }: Controller,
  from: DaemonConfig,
): void {
  const wanted = new Set([...state.state.attached, ...context.config.attach]);
  for (const device of from.attach) {
    if (wanted.has(device) || !underlays.names().includes(device)) continue;
    for (const place of underlays.ofDevice(device)) hellos.deviceLeaves(place);
    underlays.detach(device);
    context.log.say("device_detached", `${device}: detached`, { device });
  }
  underlays.want(context.config.attach);
  security.sync();
}
