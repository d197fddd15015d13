// SPDX-License-Identifier: Apache-2.0
/**
 * A host of secure vnets without a daemon: a namespace with the real programs on their hooks, xfrm interfaces and SAs
 * made by EspHost, and maps that the test fills.
 *
 *   vn0 ==veth== vn0p    the vnetif, with addresses of its own, as a host has it that is its own guest
 *   eth0                 on the test's LAN; vn-esp<N> beside it
 *   os0 ==veth== os1     the pair that answers for what is too large
 */
import { mkdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  decodeVnetdControl,
  decodeVnetdDropCount,
  decodeVnetdDropKey,
  decodeVnetdTraffic,
  encodeVnetdControl,
  encodeVnetdMemberKey,
  encodeVnetdMeta,
  encodeVnetdPlace,
  encodeVnetdPort,
  encodeVnetdSecureMember,
  encodeVnetdSpi,
  encodeVnetdUnderlay,
  encodeVnetdVnet,
  reasonNames,
  VnetdDropCount,
  VnetdDropKey,
  vnetdControlOp,
  vnetdNexthopFlags,
  vnetdSecurity,
  vnetdUnderlayFlags,
  vnetdVnetFlags,
  type VnetdControl,
  type VnetdSecureMember,
  type VnetdTraffic,
} from "../../src/generated/layouts.js";
import type { EspPath } from "../../src/host/esp.js";
import type { EspKeys, Suite } from "../../src/keys/esp-keys.js";
import type { LinkInfo, LoadedObject } from "../../src/native/contract.js";
import { espRoom, guestMtuBytes } from "../../src/wire/overhead.js";
import { ipv6Bytes, macBytes, mappedBytes, vnetBytes } from "../lib/bytes.js";
import { Background, tryRun, type Command } from "../lib/processes.js";
import type { Place } from "../lib/traffic.js";
import { Namespace } from "../native/support.js";

const objectPath = fileURLToPath(new URL("../../build/bpf/vnetd.bpf.o", import.meta.url));
const nexthops = 64;
const slot = 1;
const handle = 77;
const vnetId = vnetBytes("4");
const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
};
export type Family = 4 | 6;
const mtuBytes = 1500;

/** An SA by which one host sends to another. */
export interface OneWay {
  family: Family;
  suite: Suite;
  spi: number;
}

export class SecureEnd implements Place {
  readonly ns: Namespace;
  private object: LoadedObject | undefined;
  private readonly pinDir: string;
  private readonly links = new Map<string, LinkInfo>();
  private members: VnetdSecureMember[] = [];

  /** number: the last byte of its addresses */
  constructor(
    readonly name: string,
    readonly number: number,
  ) {
    this.ns = new Namespace(name);
    this.pinDir = `/sys/fs/bpf/vnetd-${this.ns.name}`;
  }

  own(family: Family): string {
    return family === 4 ? `10.9.0.${this.number}` : `fd09::${this.number}`;
  }

  guest(family: Family): string {
    return family === 4 ? `192.168.4.${this.number}` : `fd04::${this.number}`;
  }

  tryExec(command: Command): ReturnType<typeof tryRun> {
    return tryRun(this.inside(command));
  }

  spawn(command: Command): Background {
    return new Background(this.inside(command));
  }

  private inside(command: Command): string[] {
    const argv = typeof command === "string" ? ["/bin/sh", "-c", command] : command;
    return ["nsenter", `--net=/run/netns/${this.ns.name}`, ...argv];
  }

  /** With eth0 on a bridge of another namespace. */
  async start(lan: string): Promise<void> {
    const ip = (...args: string[]): string => this.ns.exec("ip", ...args);
    ip("link", "add", "eth0", "type", "veth", "peer", "name", this.name, "netns", lan);
    ip("link", "add", "vn0", "type", "veth", "peer", "name", "vn0p");
    const large = ["mtu", "65535"];
    ip("link", "add", "os0", ...large, "type", "veth", "peer", "name", "os1", ...large);
    // as the daemon makes them: the kernel says nothing of its own there
    for (const device of ["vn0p", "os0", "os1"]) ip("link", "set", device, "addrgenmode", "none");
    for (const device of ["lo", "eth0", "vn0p", "os0", "os1"]) ip("link", "set", device, "up");
    ip("link", "set", "vn0", "up");
    ip("addr", "add", `${this.own(4)}/24`, "dev", "eth0");
    ip("addr", "add", `${this.own(6)}/64`, "dev", "eth0", "nodad");
    ip("addr", "add", `${this.guest(4)}/24`, "dev", "vn0");
    ip("addr", "add", `${this.guest(6)}/64`, "dev", "vn0", "nodad");
    const { run } = this.ns;
    for (const name of ["eth0", "vn0", "vn0p", "os0", "os1"])
      this.links.set(name, (await run.linkGet(name))!);
    const segmentationOff = {
      "tx-tcp-segmentation": false,
      "tx-tcp6-segmentation": false,
      "tx-udp-segmentation": false,
    };
    await run.featuresSet("os0", { ...segmentationOff, "tx-checksum-ip-generic": false });
    this.links.set("esp", await run.esp("ensureDevice", this.link("eth0")));
    mkdirSync(this.pinDir);
    this.object = await run.objectLoad(objectPath, { pinDir: this.pinDir });
    for (let id = 1; id < nexthops; id += 1)
      await run.mapUpdate(this.map("nexthop_free"), Buffer.alloc(0), u32(id));
    for (const [program, device, direction] of [
      ["vnetd_encap", "vn0p", "ingress"],
      ["vnetd_encap_fast", "vn0", "egress"],
      ["vnetd_decap", "eth0", "ingress"],
      ["vnetd_esp", "esp", "ingress"],
      ["vnetd_oversize", "os1", "ingress"],
    ] as const) {
      const fd = this.object.programs[program]!;
      await run.clsactAttach(fd, this.link(device).ifindex, direction, 1, 1);
    }
    await this.writeUnderlays();
  }

  async close(): Promise<void> {
    await this.ns.close();
    rmSync(this.pinDir, { recursive: true, force: true });
  }

  private link(name: string): LinkInfo {
    return this.links.get(name)!;
  }

  private map(name: string): number {
    return this.object!.maps[name]!;
  }

  private async writeUnderlays(): Promise<void> {
    const { run } = this.ns;
    const eth0 = this.link("eth0");
    for (const family of [4, 6] as const) {
      const record = {
        ifindex: eth0.ifindex,
        flags: vnetdUnderlayFlags.UNDERLAY_UP,
        addr: addressBytes(this.own(family)),
        group: addressBytes(family === 4 ? "224.10.0.1" : "ff12::1"),
        mac: macBytes(eth0.mac),
        mtu: mtuBytes,
        port: 1798,
        prefixLen: family === 4 ? 24 : 64,
        family,
        index: family === 4 ? 0 : 1,
        esp: this.link("esp").ifindex,
      };
      const place = encodeVnetdPlace(record);
      await run.mapUpdate(this.map("underlays"), place, encodeVnetdUnderlay(record));
      await run.mapUpdate(this.map("underlay_list"), u32(record.index), place);
    }
    const meta = {
      ...{ layout: 1, nextHandle: 1000, segmentOut: 0, segmentIn: 0, reassembly: 0 },
      ...{ oversizeOut: this.link("os0").ifindex, oversizeIn: this.link("os1").ifindex },
      ...{ reassemblySecret: Buffer.alloc(10), relayOut: 0, relayIn: 0, peers: 0 },
      ...{ unicastMembers: 0, forward: 0 },
    };
    await run.mapUpdate(this.map("meta"), u32(0), encodeVnetdMeta(meta));
  }

  /** The vnet by a suite: its record, and the vnetif's MTU. */
  async setVnet(suite: Suite): Promise<number> {
    const { run } = this.ns;
    const { fixed4, fixed6, block } = espRoom(suite);
    const { SECURITY_AUTH, SECURITY_CONF } = vnetdSecurity;
    const record = {
      ...{ id: vnetId, handle, flags: vnetdVnetFlags.VNET_UP },
      security: suite.level === "auth" ? SECURITY_AUTH : SECURITY_CONF,
      ...{ vnif: this.link("vn0").ifindex, vnifPeer: this.link("vn0p").ifindex },
      ...{ maxEntries: 1000, maxEntriesPerHost: 1000, maxHosts: 100 },
      ...{ ageNs: 600_000_000_000n, flushedNs: 0n, vmac: macBytes(this.link("vn0").mac) },
      ...{ floodPerSecond: 0, floodBurst: 0, probeNonce: 0n, encap: 0 },
      ...{ maxNeighbours: 0, neighbourAgeNs: 0n },
      ...{ group: new Uint8Array(16), group6: new Uint8Array(16) },
      ...{ espFixed4: fixed4, espFixed6: fixed6, espBlock: block },
    };
    await run.mapUpdate(this.map("vnets"), u32(slot), encodeVnetdVnet(record));
    for (const name of ["vn0", "vn0p"])
      await run.mapUpdate(
        this.map("ports"),
        u32(this.link(name).ifindex),
        encodeVnetdPort({ slot, handle }),
      );
    await run.mapUpdate(this.map("vnet_ids"), vnetId, u32(slot));
    return this.vnetifMtu(mtuOf(suite, 4));
  }

  /** Of the vnetif alone: the guest's idea. */
  vnetifMtu(bytes: number): number {
    for (const name of ["vn0", "vn0p"])
      this.ns.exec("ip", "link", "set", name, "mtu", String(bytes));
    return bytes;
  }

  private async control(change: Partial<VnetdControl>): Promise<VnetdControl> {
    const input = encodeVnetdControl({
      ...{ eth: Buffer.alloc(14), op: 0, result: 0xffff, slot, handle, fdbFlags: 0, nexthop: 0 },
      ...{ ifindex: this.link("eth0").ifindex, nexthopFlags: 0, capabilities: 1, mtu: mtuBytes },
      ...{ mac: Buffer.alloc(6), addr: Buffer.alloc(16), otherIfindex: 0, host: Buffer.alloc(16) },
      ...{ otherAddr: Buffer.alloc(16), path: 0, spi: 0, gen: 0 },
      ...change,
    });
    const { data } = await this.ns.run.progTestRun(this.object!.programs["vnetd_control"]!, input);
    const answer = decodeVnetdControl(Buffer.from(data));
    if (answer.result !== 0) throw new Error(reasonNames[answer.result]);
    return answer;
  }

  /** The next hop of another host. */
  private async nexthop(peer: SecureEnd, family: Family): Promise<VnetdSecureMember> {
    const addr = addressBytes(peer.own(family));
    const nexthopFlags = vnetdNexthopFlags.NEXTHOP_MEMBER;
    const { CTL_NEXTHOP: op } = vnetdControlOp;
    const { nexthop, gen } = await this.control({ op, addr, nexthopFlags });
    return { nexthop, gen };
  }

  /** By which SPI it is sent to; 0: by none. */
  async sendBy(peer: SecureEnd, family: Family, spi: number): Promise<void> {
    const addr = addressBytes(peer.own(family));
    await this.control({ op: vnetdControlOp.CTL_KEYS, addr, spi });
  }

  async path(peer: SecureEnd, family: Family): Promise<EspPath> {
    const known = await this.nexthop(peer, family);
    const { ifindex: device } = this.link("eth0");
    return { own: this.own(family), peer: peer.own(family), device, nexthop: known.nexthop };
  }

  /** Receives from another host. */
  async addIn(peer: SecureEnd, { family, suite, spi }: OneWay): Promise<void> {
    const path = await this.path(peer, family);
    await this.ns.run.esp("addIn", path, spi, suite, keysOf(suite, spi), 3600);
    const { SECURITY_AUTH, SECURITY_CONF } = vnetdSecurity;
    const record = {
      source: addressBytes(peer.own(family)),
      ifindex: path.device,
      ...{ handle, slot, ...(await this.nexthop(peer, family)) },
      security: suite.level === "auth" ? SECURITY_AUTH : SECURITY_CONF,
      ...{ suite: suite.id, keyId: Buffer.alloc(8) },
    };
    await this.ns.run.mapUpdate(this.map("spis"), u32(spi), encodeVnetdSpi(record));
  }

  /** Sends to another host, and counts it among the members. */
  async addOut(peer: SecureEnd, { family, suite, spi }: OneWay): Promise<EspPath> {
    const path = await this.path(peer, family);
    await this.ns.run.esp("addOut", path, spi, suite, keysOf(suite, spi), 3600);
    await this.sendBy(peer, family, spi);
    this.members.push(await this.nexthop(peer, family));
    await this.writeMembers();
    return path;
  }

  private async writeMembers(): Promise<void> {
    for (const [number, member] of this.members.entries())
      await this.ns.run.mapUpdate(
        this.map("secure_members"),
        encodeVnetdMemberKey({ handle, number }),
        encodeVnetdSecureMember(member),
      );
  }

  /** As if nothing had ever been agreed; what was learned of guests and neighbours as well. */
  async forget(): Promise<void> {
    for (const number of this.members.keys())
      await this.ns.run.mapDelete(
        this.map("secure_members"),
        encodeVnetdMemberKey({ handle, number }),
      );
    this.members = [];
    await this.ns.run.esp("removeAll", new Set([this.link("eth0").ifindex]));
    for (const state of await this.ns.run.esp("stats"))
      await this.ns.run.esp(
        state.direction === "in" ? "removeIn" : "removeOut",
        state,
        state.spi,
        true,
      );
    for (const family of ["-4", "-6"]) this.ns.exec("ip", family, "neigh", "flush", "dev", "vn0");
  }

  /** the vnet's drops by reason */
  async drops(): Promise<Record<string, number>> {
    const { count, keys, values } = await this.ns.run.mapDump(this.map("drops"));
    const rows = Array.from({ length: count }, (_, at) => {
      const { reason } = decodeVnetdDropKey(Buffer.from(keys), at * VnetdDropKey.size);
      const { frames } = decodeVnetdDropCount(Buffer.from(values), at * VnetdDropCount.size);
      return [reasonNames[reason]!, Number(frames)] as const;
    });
    const sums: Record<string, number> = {};
    for (const [reason, frames] of rows) sums[reason] = (sums[reason] ?? 0) + frames;
    return sums;
  }

  async traffic(): Promise<VnetdTraffic> {
    const value = await this.ns.run.mapLookup(this.map("traffic"), u32(slot));
    return decodeVnetdTraffic(Buffer.from(value!));
  }
}

/** of a guest's packet that leaves whole */
export function mtuOf(suite: Suite, family: Family): number {
  return guestMtuBytes([{ family, mtuBytes }], "udp", suite);
}

/** by which both sides know the same */
function keysOf({ cipherBytes, saltBytes, authBytes }: Suite, spi: number): EspKeys {
  const fill = 1 + (spi % 250);
  return {
    cipher: Buffer.alloc(cipherBytes, fill),
    salt: Buffer.alloc(saltBytes, fill),
    auth: Buffer.alloc(authBytes, fill),
  };
}

function addressBytes(text: string): Buffer {
  return text.includes(":") ? ipv6Bytes(text) : mappedBytes(text);
}
