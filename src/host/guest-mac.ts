// SPDX-License-Identifier: Apache-2.0
/**
 * The MAC of the guest behind a bridge's port, where the kernel knows it for certain.
 *
 * libvirt gives the tap the guest's MAC with fe for its first byte. That byte is known again only with
 * QEMU's own prefix: fe:16:3e may be Xen's 00:16:3e or OpenStack's fa:16:3e, and Xen's own ports are all
 * fe:ff:ff:ff:ff:ff.
 */
import { isGroupMac, isZeroMac, type Mac } from "../base/mac.js";
import type { LinkInfo } from "../native/contract.js";
import { isHelperAlias, vnetOfAlias } from "./names.js";

const libvirtTapPrefix = "fe:54:00:";
const qemuPrefix = "52:54:00:";

/** Reads the other end of a veth. */
export type ReadLink = (ifindex: number, netnsId?: number) => LinkInfo | undefined;

export function guestMacOf(port: LinkInfo, readLink: ReadLink): Mac | undefined {
  if (isOwn(port)) return undefined;
  if (port.kind === "tun") return macBehindTap(port.mac);
  if (port.kind !== "veth" || port.link === 0) return undefined;
  const peer = readLink(port.link, port.linkNetnsId);
  if (peer === undefined || isOwn(peer)) return undefined;
  // a cable between two bridges of this host: nobody has the MAC of its end
  if (port.linkNetnsId === undefined && peer.master !== 0) return undefined;
  const { mac } = peer;
  return mac === "" || isGroupMac(mac) || isZeroMac(mac) ? undefined : mac;
}

function macBehindTap(mac: Mac): Mac | undefined {
  if (!mac.startsWith(libvirtTapPrefix)) return undefined;
  return qemuPrefix + mac.slice(libvirtTapPrefix.length);
}

/** vnetd's own devices are no guests' */
function isOwn({ alias }: LinkInfo): boolean {
  return vnetOfAlias(alias) !== undefined || isHelperAlias(alias);
}
