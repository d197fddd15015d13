// SPDX-License-Identifier: Apache-2.0
/**
 * What a daemon knows, read from its maps: asked for by the API it would take the daemon's CPU time, which is
 * what 64 of them on one machine have too little of, and the last one would be asked seconds after the first.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { addressToText } from "../dist/src/base/address.js";
import { macToBytes } from "../dist/src/base/mac.js";
import { Maps } from "../dist/src/dataplane/maps.js";
import { vnetdLimits, vnetdNexthopFlags } from "../dist/src/generated/layouts.js";
import { loadNative } from "../dist/src/native/load.js";

const native = loadNative();
const names = [
  ...["vnets", "vnet_ids", "vnet_counts", "fdb", "nexthops", "nexthop_ids"],
  "varp_stats",
];

export class HostMaps {
  /** of a daemon that runs; when it has made its maps anew they are to be opened again */
  constructor(netns) {
    this.dir = join("/sys/fs/bpf", netns, `layout-${vnetdLimits.LAYOUT}`);
    const at = (name) => native.objectGet(join(this.dir, name));
    this.fds = Object.fromEntries(names.map((name) => [name, at(name)]));
    this.maps = new Maps(native, this.fds);
  }

  close() {
    for (const fd of Object.values(this.fds)) native.close(fd);
  }

  /** in how many vnets each host is a member, by its id */
  members() {
    const found = new Map();
    for (const { flags, host } of this.maps.nexthops().values()) {
      if ((flags & vnetdNexthopFlags.NEXTHOP_MEMBER) === 0) continue;
      const id = Buffer.from(host).toString("hex");
      found.set(id, (found.get(id) ?? 0) + 1);
    }
    return found;
  }

  /** of the vnet whose id ends so */
  handleOf(idText) {
    for (const [id, slot] of this.maps.vnetSlots())
      if (id.endsWith(idText)) return this.maps.vnet(slot)?.handle;
    throw new Error(`no vnet ${idText}`);
  }

  /** the address of the host that a MAC is behind; undefined: of none, or of this one */
  placeOf(handle, mac) {
    const entry = this.maps.fdbEntry({ handle, mac: macToBytes(mac) });
    const hop = entry === undefined ? undefined : this.maps.nexthop(entry.nexthop);
    return hop === undefined || hop.gen !== entry.gen ? undefined : addressToText(hop.key.addr);
  }

  /** how many MACs its table has, of all vnets, by the counts that are kept of them */
  entries() {
    const slots = [...this.maps.vnetSlots().values()];
    return slots.reduce((sum, slot) => sum + this.maps.vnetCounts(slot).entries, 0);
  }

  /** of VARP that the data plane dealt with by itself */
  varpStats() {
    return this.maps.varpStats();
  }

  /** programs that are hooked on ingress by pinned links */
  linkCount() {
    return readdirSync(this.dir).filter((name) => /^link-\d+-ingress$/.test(name)).length;
  }

  /** how many MACs its table has that begin like this ("02:00:66"), wherever they live */
  countOf(prefix) {
    const bytes = Buffer.from(prefix.replaceAll(":", ""), "hex");
    return this.maps
      .fdb()
      .filter(({ key }) => bytes.equals(Buffer.from(key.mac).subarray(0, bytes.length))).length;
  }
}
