// SPDX-License-Identifier: Apache-2.0
/**
 * The lab's devices with the programs on their hooks, so that real frames take the whole way; test/lib/wire.ts
 * sends and captures them.
 */
import { execFileSync } from "node:child_process";
import { vnetdControlOp } from "../../src/generated/layouts.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import type { BpfLab, LabVnet } from "../lib/bpf-lab.js";
import { GUEST_B, PEER } from "./rows.js";

const PRIORITY = 1;
const HANDLE = 1;
export const PEER_MAC = "02:00:0a:42:01:09";

/** program and device, whose ingress it is on */
export type Hooks = readonly (readonly [
  Parameters<BpfLab["program"]>[0],
  Parameters<BpfLab["ifindex"]>[0],
])[];
export const FRAGMENT_HOOKS = [
  ["vnetd_encap", "vn0p"],
  ["vnetd_oversize", "os1"],
  ["vnetd_decap", "ul0"],
  ["vnetd_reassembled", "vx0"],
] as const;

export function attachHooks(lab: BpfLab, hooks: Hooks): void {
  for (const [program, device] of hooks)
    lab.native.clsactAttach(lab.program(program), lab.ifindex(device), "ingress", PRIORITY, HANDLE);
}

export function detachHooks(lab: BpfLab, hooks: Hooks): void {
  for (const [, device] of hooks)
    lab.native.clsactDetach(lab.ifindex(device), "ingress", PRIORITY, HANDLE);
}

export const ip = (...args: string[]): unknown => execFileSync("ip", args);

/** Large frames and fragments: the pairs and devices as the daemon sets them up. */
export function forFragments(lab: BpfLab, neighbours: readonly string[], group: string): void {
  lab.fragments(true);
  lab.native.featuresSet("os0", {
    "tx-checksum-ip-generic": false,
    "tx-tcp-segmentation": false,
    "tx-tcp6-segmentation": false,
    "tx-udp-segmentation": false,
  });
  for (const address of neighbours)
    ip("neighbour", "replace", address, "lladdr", PEER_MAC, "dev", "ul0");
  for (const name of ["vn0", "vn0p"]) ip("link", "set", name, "mtu", "9000");
  ip("address", "add", group, "dev", "ul0", "autojoin");
}

/** A vnet in which B lives at the peer. */
export function vnetWithB(lab: BpfLab): LabVnet {
  lab.underlay();
  const vnet = lab.vnet();
  const where = { mac: macBytes(GUEST_B), addr: mappedBytes(PEER) };
  lab.control(vnetdControlOp.CTL_LEARN, vnet, where);
  return vnet;
}
