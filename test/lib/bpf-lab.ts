// SPDX-License-Identifier: Apache-2.0
/**
 * The BPF programs on a bench: loaded with maps of their own, run with BPF_PROG_TEST_RUN, and
 * everything that a run changed read back.
 *
 *   vn0 ==veth== vn0p        the vnetif and its peer; all vnets of a lab share them, one at a time
 *   ul0 ==veth== ul0w        the first underlay device, 10.66.1.1/24
 *   ul1 ==veth== ul1w        the second, 10.66.2.1/24, attached only when a test says so
 *                            (both have IPv6 addresses as well: test/lib/forms.ts)
 *   os0 ==veth== os1         the pair that fragments, and vx0, where reassembled packets come out;
 *                            not used before fragments() says so
 *   xf0 ==veth== xf0w        stands in for ul0's xfrm interface: what is given to it is seen on xf0w, and what was
 *                            decrypted comes by it (the kernel of the machine need not have ESP)
 *   dp0 ==veth== dp0g, dp1 ==veth== dp1g   direct ports of a vnet, when directPorts() says so, and their guests' ends
 *   rl0 ==veth== rl1         the pair that relays, and sg0, sg1, the pair that segments; not used
 *                            before forwarding() says so
 *
 * A test run happens in the network namespace of this process, so it must be a fresh one
 * (test/packet/README.md): open() refuses one that has other devices. Nothing is hooked, no timer
 * runs, so nothing happens but what a test does. Each vnet() has a new slot and handle: what
 * earlier tests learned and counted is out of sight.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  decodeVnetdDropCount,
  decodeVnetdDropKey,
  decodeVnetdEventLoop,
  decodeVnetdEventMac,
  decodeVnetdEventPeer,
  decodeVnetdFdbEntry,
  decodeVnetdControl,
  decodeVnetdNeighbour,
  decodeVnetdNeighbourStats,
  decodeVnetdNexthop,
  decodeVnetdPeer,
  decodeVnetdPeerStats,
  decodeVnetdTraffic,
  decodeVnetdVarpStats,
  decodeVnetdVnet,
  decodeVnetdVnetCounts,
  directionNames,
  encodeVnetdControl,
  encodeVnetdFdbKey,
  encodeVnetdMember,
  encodeVnetdMemberKey,
  encodeVnetdMeta,
  encodeVnetdNeighbour,
  encodeVnetdNeighbourKey,
  encodeVnetdPeer,
  encodeVnetdPlace,
  encodeVnetdPort,
  encodeVnetdSecureMember,
  encodeVnetdSpi,
  encodeVnetdUnderlay,
  encodeVnetdVnet,
  reasonNames,
  VnetdControl,
  VnetdDropCount,
  VnetdDropKey,
  VnetdPlace,
  vnetdControlOp,
  vnetdEncap,
  vnetdEventType,
  VnetdPeer,
  vnetdPeerFlags,
  VnetdPeerStats,
  VnetdSeen,
  VnetdSeenKey,
  VnetdEventVarp,
  vnetdLimits,
  vnetdVarpWay,
  vnetdFamily,
  vnetdForward,
  vnetdSecurity,
  vnetdUnderlayFlags,
  vnetdVnetFlags,
  type VnetdControl as Control,
  type VnetdMeta,
  type VnetdNeighbour,
  type VnetdPeerStats as VnetdPeerStatsRecord,
  type VnetdSecureMember,
  type VnetdSpi,
  type VnetdVnet,
} from "../../src/generated/layouts.js";
import type {
  Closable,
  LoadedObject,
  LoadOptions,
  Native,
  TestRunOptions,
} from "../../src/native/contract.js";
import { isMappedIpv4 } from "../../src/base/address.js";
import { DirectMaps } from "../../src/dataplane/direct-maps.js";
import { Maps } from "../../src/dataplane/maps.js";
import { varpEventOf } from "../../src/dataplane/varp-event.js";
import { loadNative } from "../../src/native/load.js";
import { macBytes, macText, vnetBytes } from "./bytes.js";
import {
  OVERHEAD,
  addressBytes,
  addressIn,
  addressText,
  isEtherip,
  isIpv6,
  packetIn,
  type Form,
} from "./forms.js";
import { packet, VNETD_GROUP, VNETD_PORT } from "./packet.js";
import { timeFactor } from "./processes.js";

export const BPF_OBJECT =
  process.env["VNETD_BPF_OBJECT"] ??
  fileURLToPath(new URL("../../build/bpf/vnetd.bpf.o", import.meta.url));
const BPFFS = "/sys/fs/bpf";
const DEVICES = [
  "vn0",
  "vn0p",
  "ul0",
  "ul0w",
  "ul1",
  "ul1w",
  "os0",
  "os1",
  "vx0",
  "rl0",
  "rl1",
  "sg0",
  "sg1",
  "xf0",
  "xf0w",
  "dp0",
  "dp0g",
  "dp1",
  "dp1g",
] as const;
type Device = (typeof DEVICES)[number];
const EVENT_TIMEOUT_MS = 10_000 * timeFactor;
export const REASSEMBLY_PORT = 4790;
export const REASSEMBLY_SECRET = Buffer.from("02c0ffee000102c0ffee", "hex");

/** the device whose hook a program is made for */
const PROGRAM_DEVICES = {
  vnetd_encap: "vn0p",
  vnetd_encap_fast: "vn0",
  vnetd_oversize: "os1",
  vnetd_decap: "ul0",
  vnetd_xdp: "ul0",
  vnetd_xdp_generic: "ul0",
  vnetd_reassembled: "vx0",
  vnetd_relay: "rl1",
  vnetd_esp: "xf0",
  vnetd_port: "dp0",
  vnetd_merged: "sg0",
  vnetd_control: "vn0",
} as const;
export type ProgramName = keyof typeof PROGRAM_DEVICES;
/** TC_ACT_*: what the kernel would do with the packet */
export type Verdict = "pass" | "drop" | "redirect";
const VERDICTS: Record<number, Verdict> = { 0: "pass", 2: "drop", 7: "redirect" };

export interface Drop {
  reason: string;
  direction: string;
  /** 0: before the vnet was known */
  handle: number;
  frames: number;
}

export interface Traffic {
  encapFrames: number;
  decapFrames: number;
  encapBytes: number;
  decapBytes: number;
  floodedFrames: number;
  fragmentedOut: number;
  fragmentedIn: number;
}

export interface Run {
  verdict: Verdict;
  output: Buffer;
  mark: number;
  /** what this run added to the drop counters */
  drops: Drop[];
}

export interface VnetOptions {
  id?: string;
  up?: boolean;
  /** its frames are captured */
  watched?: boolean;
  security?: number;
  maxEntries?: number;
  maxEntriesPerHost?: number;
  maxHosts?: number;
  ageMs?: number;
  /** default: no limit */
  floodPerSecond?: number;
  floodBurst?: number;
  probeNonce?: bigint;
  /** sent by EtherIP; default: as the lab's form says */
  etherip?: boolean;
  /** of a secure vnet; default: AES-128-CBC with HMAC-SHA1-96 */
  espFixed4?: number;
  espFixed6?: number;
  espBlock?: number;
  /** ARP and neighbour discovery are answered here */
  suppress?: boolean;
  maxNeighbours?: number;
  neighbourAgeMs?: number;
  /** of its own, an IPv4 group in every form */
  group?: string;
  /** what is for all goes to it; default: where there is one */
  sendsToGroup?: boolean;
}

export interface LabVnet {
  id: string;
  slot: number;
  handle: number;
}

export interface UnderlayOptions {
  device?: "ul0" | "ul1";
  /** of the place; default: as the lab's form says */
  family?: 4 | 6;
  address?: string;
  mtuBytes?: number;
  port?: number;
  up?: boolean;
  merge?: boolean;
  /** what is heard on the group is forwarded */
  relay?: boolean;
  /** nothing is sent to the group */
  noGroup?: boolean;
  groupWorks?: boolean;
  /** XDP takes the headers off */
  xdpStrips?: boolean;
  /** of the subnet; default 24 */
  prefixLength?: number;
  group?: string;
  /** the source of what is sent; default: the device's own */
  mac?: string;
  /** stands in for the xfrm interface; default: there is none */
  esp?: Device;
  /** instead: any number */
  espIfindex?: number;
}

export interface PeerOptions {
  address: string;
  device?: "ul0" | "ul1";
  port?: number;
  send?: boolean;
  unicast?: boolean;
}

/** where a MAC is said to live */
export interface Learned {
  mac: string;
  /** an address, or "local" */
  host: string;
  flags: number;
  seenNs: bigint;
  /** of a local one, the ifindex of the direct port that it is behind; 0: the vnetif */
  port: number;
}

export type LabEvent =
  | {
      kind: "varp";
      ifindex: number;
      source: string;
      destination: string;
      sourcePort: number;
      /** it came inside VFWD */
      forwarded: boolean;
      /** it came by an SA */
      secure: boolean;
      /** it is entered already */
      learned: boolean;
      message: Buffer;
    }
  | { kind: "not-peer"; address: string }
  | {
      kind: "local-new" | "unknown-unicast" | "moved" | "held" | "storm";
      handle: number;
      mac: string;
      from: number;
      to: number;
    }
  | { kind: "loop"; handle: number; direction: number; source: string; hops: number };

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
};
const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });

function requireFreshNamespace(): void {
  const devices = readFileSync("/proc/self/net/dev", "utf8")
    .split("\n")
    .slice(2)
    .map((line) => line.split(":")[0]!.trim())
    .filter((name) => name !== "" && name !== "lo");
  const strange = devices.filter((name) => !(DEVICES as readonly string[]).includes(name));
  if (strange.length > 0) {
    throw new Error(
      `packet tests want a network namespace of their own, here are ${strange.join(", ")}; ` +
        "run them as: unshare --net -- npx vitest run --project packet --project golden",
    );
  }
}

const MAX_LAB_PEERS = 16;

export const SPI_IN = 0xabcd1234;
export const SPI_OUT = 0x5a5a0001;
/** IP header, ESP header, IV, what BEET reserves, ICV */
export const ESP_CBC = { fixed4: 20 + 8 + 16 + 8 + 12, fixed6: 40 + 8 + 16 + 8 + 12, block: 16 };

export interface LabOptions {
  maxEntries?: Record<string, number>;
  /** free next hop ids put into the queue; default 1000 */
  nexthops?: number;
  /** in which the tables are read; default udp4 */
  form?: Form;
  /** no IPv6: the kernel looks for routers and reports groups on devices with an address, some time after they are up */
  quiet?: boolean;
}

let labs = 0;

export class BpfLab {
  readonly native: Native;
  readonly pinDir: string;
  readonly form: Form;
  private readonly object: LoadedObject;
  private readonly ifindexes: Record<Device, number>;
  private readonly macs: Record<Device, string>;
  private readonly events: LabEvent[] = [];
  private readonly rings: Closable[];
  private nextSlot = 1;
  private nextHandle = 1000;
  private sentinels = 0;
  private sentinelVnet: LabVnet | undefined;

  private constructor(native: Native, object: LoadedObject, pinDir: string, form: Form) {
    this.native = native;
    this.object = object;
    this.pinDir = pinDir;
    this.form = form;
    const link = (name: Device): { ifindex: number; mac: string } => {
      const found = native.linkGet(name);
      if (found === undefined) throw new Error(`no device ${name}`);
      return found;
    };
    const each = <T>(pick: (name: Device) => T): Record<Device, T> =>
      Object.fromEntries(DEVICES.map((name) => [name, pick(name)])) as Record<Device, T>;
    this.ifindexes = each((name) => link(name).ifindex);
    this.macs = each((name) => link(name).mac);
    this.rings = [
      native.ringConsume(this.map("control"), (record) => this.collect(record)),
      native.ringConsume(this.map("events"), (record) => this.collect(record)),
    ];
  }

  static open(options: LabOptions = {}): BpfLab {
    requireFreshNamespace();
    if (!existsSync(BPF_OBJECT)) throw new Error(`${BPF_OBJECT} is missing: run make`);
    // a lab before this one may have been quiet
    ipv6(true);
    makeDevices();
    if (options.quiet === true) ipv6(false);
    const native: Native = loadNative();
    const pinDir = `${BPFFS}/vnetd-test-${process.pid}-${labs++}`;
    mkdirSync(pinDir);
    try {
      const load: LoadOptions = { pinDir };
      if (options.maxEntries !== undefined) load.maxEntries = options.maxEntries;
      const lab = new BpfLab(
        native,
        native.objectLoad(BPF_OBJECT, load),
        pinDir,
        options.form ?? "udp4",
      );
      for (let id = 1; id <= (options.nexthops ?? 1000); id++) {
        native.mapUpdate(lab.map("nexthop_free"), Buffer.alloc(0), u32(id));
      }
      lab.meta({});
      lab.underlay();
      return lab;
    } catch (error) {
      rmSync(pinDir, { recursive: true, force: true });
      throw error;
    }
  }

  close(): void {
    for (const ring of this.rings) ring.close();
    for (const fd of [...Object.values(this.object.programs), ...Object.values(this.object.maps)]) {
      this.native.close(fd);
    }
    rmSync(this.pinDir, { recursive: true, force: true });
  }

  map(name: string): number {
    const fd = this.object.maps[name];
    if (fd === undefined) throw new Error(`no map ${name}`);
    return fd;
  }

  program(name: ProgramName): number {
    const fd = this.object.programs[name];
    if (fd === undefined) throw new Error(`no program ${name}`);
    return fd;
  }

  ifindex(device: Device): number {
    return this.ifindexes[device];
  }

  /** of the device's place, of the lab's family, in underlay_list */
  place(device: "ul0" | "ul1" = "ul0"): number {
    return placeIndex(device, isIpv6(this.form) ? 6 : 4);
  }

  mac(device: Device): string {
    return this.macs[device];
  }

  // ---- configuration, as the daemon writes it

  /** Attaches an underlay device, or changes it. */
  underlay(options: UnderlayOptions = {}): void {
    const device = options.device ?? "ul0";
    const {
      up = true,
      merge = false,
      relay = false,
      noGroup = false,
      family = isIpv6(this.form) ? 6 : 4,
    } = options;
    const { UNDERLAY_RELAY, UNDERLAY_NO_GROUP, UNDERLAY_GROUP_WORKS } = vnetdUnderlayFlags;
    const at = (ipv4: string): Buffer =>
      addressIn(family === 6 ? "udp6" : "udp4", addressBytes(ipv4));
    const longer = OVERHEAD[this.form] - OVERHEAD.udp4;
    const record = {
      ifindex: this.ifindex(device),
      flags:
        (up ? vnetdUnderlayFlags.UNDERLAY_UP : 0) |
        (merge ? vnetdUnderlayFlags.UNDERLAY_MERGE : 0) |
        (relay ? UNDERLAY_RELAY : 0) |
        (noGroup ? UNDERLAY_NO_GROUP : 0) |
        ((options.groupWorks ?? false) ? UNDERLAY_GROUP_WORKS : 0) |
        ((options.xdpStrips ?? false) ? vnetdUnderlayFlags.UNDERLAY_XDP_STRIPS : 0),
      addr: at(options.address ?? (device === "ul0" ? "10.66.1.1" : "10.66.2.1")),
      group: at(options.group ?? VNETD_GROUP),
      mac: macBytes(options.mac ?? this.mac(device)),
      mtu: (options.mtuBytes ?? 1500) + longer,
      family,
      port: options.port ?? VNETD_PORT,
      prefixLen: (options.prefixLength ?? 24) + (family === 6 ? 96 : 0),
      index: placeIndex(device, family),
      esp: options.espIfindex ?? (options.esp === undefined ? 0 : this.ifindex(options.esp)),
    };
    const place = encodeVnetdPlace(record);
    this.native.mapUpdate(this.map("underlays"), place, encodeVnetdUnderlay(record));
    this.native.mapUpdate(this.map("underlay_list"), u32(record.index), place);
  }

  detach(device: "ul0" | "ul1", family: 4 | 6 = isIpv6(this.form) ? 6 : 4): void {
    const none = Buffer.alloc(VnetdPlace.size);
    const place = encodeVnetdPlace({ ifindex: this.ifindex(device), family });
    this.native.mapDelete(this.map("underlays"), place);
    this.native.mapUpdate(this.map("underlay_list"), u32(placeIndex(device, family)), none);
  }

  /** A device that is attached in front of ul0 and does not exist. */
  ghostUnderlay(attached: boolean): void {
    const ghost = {
      ifindex: 9999,
      flags: vnetdUnderlayFlags.UNDERLAY_UP,
      addr: addressIn(this.form, addressBytes("10.66.9.1")),
      group: addressIn(this.form, addressBytes(VNETD_GROUP)),
      mac: macBytes(this.mac("ul0")),
      mtu: 1500,
      port: VNETD_PORT,
      prefixLen: 24,
      family: isIpv6(this.form) ? 6 : 4,
      index: 0,
      esp: 0,
    };
    const { family } = ghost;
    const real = encodeVnetdPlace({ ifindex: this.ifindex("ul0"), family });
    const key = encodeVnetdPlace(ghost);
    const list = this.map("underlay_list");
    const [first, second] = [placeIndex("ul0", family), placeIndex("ul1", family)];
    this.native.mapUpdate(list, u32(second), attached ? real : Buffer.alloc(VnetdPlace.size));
    this.native.mapUpdate(list, u32(first), attached ? key : real);
    if (attached) {
      const value = encodeVnetdUnderlay(ghost);
      this.native.mapUpdate(this.map("underlays"), key, value);
    } else {
      this.native.mapDelete(this.map("underlays"), key);
    }
  }

  private readonly metaNow: VnetdMeta = {
    layout: 1,
    nextHandle: 1,
    segmentOut: 0,
    segmentIn: 0,
    oversizeOut: 0,
    oversizeIn: 0,
    reassembly: 0,
    reassemblySecret: REASSEMBLY_SECRET,
    relayOut: 0,
    relayIn: 0,
    peers: 0,
    unicastMembers: 0,
    forward: 0,
  };
  /** 16 bytes each: whom group frames go to by unicast */
  private peerAddresses: Buffer[] = [];
  private memberAddresses: Buffer[] = [];

  private meta(change: Partial<VnetdMeta>): void {
    Object.assign(this.metaNow, change);
    this.native.mapUpdate(this.map("meta"), u32(0), encodeVnetdMeta(this.metaNow));
  }

  /** Whether frames that are too large are fragmented, and fragments received. */
  fragments(on: boolean): void {
    this.meta({
      oversizeOut: on ? this.ifindex("os0") : 0,
      oversizeIn: on ? this.ifindex("os1") : 0,
      reassembly: on ? this.ifindex("vx0") : 0,
    });
  }

  /** Whether group frames are forwarded, and what comes from peers is taken. */
  forwarding(on: boolean): void {
    this.meta({
      relayOut: on ? this.ifindex("rl0") : 0,
      relayIn: on ? this.ifindex("rl1") : 0,
      segmentOut: on ? this.ifindex("sg0") : 0,
      segmentIn: on ? this.ifindex("sg1") : 0,
    });
  }

  /** Exactly these are peers, numbered from 1 on. */
  peers(peers: readonly PeerOptions[]): void {
    for (let number = 1; number <= MAX_LAB_PEERS; number++) {
      const old = this.native.mapLookup(this.map("peers"), u32(number))!;
      this.native.mapDelete(this.map("peer_ids"), decodeVnetdPeer(old).addr);
      this.native.mapUpdate(this.map("peers"), u32(number), Buffer.alloc(VnetdPeer.size));
      this.native.mapUpdate(this.map("peer_stats"), u32(number), Buffer.alloc(VnetdPeerStats.size));
    }
    this.peerAddresses = peers.map(({ address }) => addressIn(this.form, addressBytes(address)));
    peers.forEach((peer, at) => {
      const { PEER_USED, PEER_SEND, PEER_UNICAST } = vnetdPeerFlags;
      const record = {
        addr: this.peerAddresses[at]!,
        ifindex: this.ifindex(peer.device ?? "ul0"),
        flags:
          PEER_USED |
          ((peer.send ?? true) ? PEER_SEND : 0) |
          ((peer.unicast ?? false) ? PEER_UNICAST : 0),
        port: peer.port ?? VNETD_PORT,
      };
      this.native.mapUpdate(this.map("peers"), u32(at + 1), encodeVnetdPeer(record));
      this.native.mapUpdate(this.map("peer_ids"), record.addr, u32(at + 1));
    });
    this.meta({ peers: peers.length === 0 ? 0 : peers.length + 1, forward: this.forward() });
  }

  private forward(): number {
    const { FORWARD_IPV4, FORWARD_IPV6 } = vnetdForward;
    return [...this.peerAddresses, ...this.memberAddresses].reduce(
      (families, address) => families | (isMappedIpv4(address) ? FORWARD_IPV4 : FORWARD_IPV6),
      0,
    );
  }

  /** What was seen was seen now: copies are apart for some milliseconds, runs on a slow machine longer. */
  seenNow(): void {
    const { count, keys, values } = this.native.mapDump(this.map("seen"));
    for (let at = 0; at < count; at++) {
      const value = Buffer.from(values.subarray(at * VnetdSeen.size, (at + 1) * VnetdSeen.size));
      // CLOCK_MONOTONIC, as bpf_ktime_get_ns()
      value.writeBigUInt64LE(process.hrtime.bigint(), VnetdSeen.fields.timeNs.offset);
      const key = keys.subarray(at * VnetdSeenKey.size, (at + 1) * VnetdSeenKey.size);
      this.native.mapUpdate(this.map("seen"), key, value);
    }
  }

  peerStats(number: number): VnetdPeerStatsRecord {
    return decodeVnetdPeerStats(this.native.mapLookup(this.map("peer_stats"), u32(number))!);
  }

  /** The members of a vnet that are sent group frames by unicast. */
  unicastMembers(vnet: LabVnet, addresses: readonly string[]): void {
    this.memberAddresses = addresses.map((text) => addressIn(this.form, addressBytes(text)));
    this.memberAddresses.forEach((addr, number) => {
      this.native.mapUpdate(
        this.map("unicast_members"),
        encodeVnetdMemberKey({ handle: vnet.handle, number }),
        encodeVnetdMember({ addr, ifindex: this.ifindex("ul0"), port: 0 }),
      );
    });
    this.meta({ unicastMembers: addresses.length, forward: this.forward() });
  }

  /** A new vnet behind vn0; the id, 4 if none is given, now means this one. */
  vnet(options: VnetOptions = {}): LabVnet {
    const vnet = { id: options.id ?? "4", slot: this.nextSlot++, handle: this.nextHandle++ };
    this.native.mapUpdate(
      this.map("vnets"),
      u32(vnet.slot),
      encodeVnetdVnet(this.record(vnet, options)),
    );
    this.forgetVnet(vnet.id);
    this.native.mapUpdate(this.map("vnet_ids"), vnetBytes(vnet.id), u32(vnet.slot));
    this.port(vnet);
    return vnet;
  }

  /** As src/dataplane/vnet-table.ts takes a vnet out: its record is not up any more. */
  private forgetVnet(id: string): void {
    const vnets = this.map("vnets");
    const slot = this.native.mapLookup(this.map("vnet_ids"), vnetBytes(id));
    if (slot !== undefined)
      this.native.mapUpdate(vnets, slot, Buffer.alloc(this.native.mapInfo(vnets).valueSize));
  }

  /** The vnetif and its peer are this vnet's from now on. */
  port(vnet: LabVnet): void {
    for (const device of ["vn0", "vn0p"] as const) {
      this.setPort(device, encodeVnetdPort(vnet));
    }
  }

  /**
   * Whose frames enter by a device; undefined: nobody's. All vnets here name the same devices, as a daemon's never do, so a
   * hint (bpf/lib/hint.h) cannot be held against that: it is taken back.
   */
  private setPort(device: "vn0" | "vn0p", port: Uint8Array | undefined): void {
    const ifindex = this.ifindex(device);
    if (port === undefined) this.native.mapDelete(this.map("ports"), u32(ifindex));
    else this.native.mapUpdate(this.map("ports"), u32(ifindex), port);
    this.native.mapUpdate(this.map("port_hints"), u32(ifindex & 4095), u32(0));
  }

  private record(vnet: LabVnet, options: VnetOptions): VnetdVnet {
    const { group, sendsToGroup = group !== undefined } = options;
    const groupIn = (form: Form): Buffer =>
      group === undefined ? Buffer.alloc(16) : addressIn(form, addressBytes(group));
    return {
      id: vnetBytes(vnet.id),
      handle: vnet.handle,
      flags:
        (options.up === false ? 0 : vnetdVnetFlags.VNET_UP) |
        ((options.watched ?? false) ? vnetdVnetFlags.VNET_WATCHED : 0) |
        ((options.suppress ?? false) ? vnetdVnetFlags.VNET_SUPPRESS : 0) |
        (sendsToGroup ? vnetdVnetFlags.VNET_GROUP | vnetdVnetFlags.VNET_GROUP6 : 0),
      group: groupIn("udp4"),
      group6: groupIn("udp6"),
      security: options.security ?? vnetdSecurity.SECURITY_NONE,
      vnif: this.ifindex("vn0"),
      vnifPeer: this.ifindex("vn0p"),
      maxEntries: options.maxEntries ?? 1000,
      maxEntriesPerHost: options.maxEntriesPerHost ?? 1000,
      maxHosts: options.maxHosts ?? 100,
      ageNs: BigInt(options.ageMs ?? 60_000) * 1_000_000n,
      flushedNs: 0n,
      vmac: macBytes(this.mac("vn0")),
      floodPerSecond: options.floodPerSecond ?? 0,
      floodBurst: options.floodBurst ?? 100,
      probeNonce: options.probeNonce ?? 0n,
      encap:
        (options.etherip ?? isEtherip(this.form)) ? vnetdEncap.ENCAP_ETHERIP : vnetdEncap.ENCAP_UDP,
      espFixed4: options.espFixed4 ?? ESP_CBC.fixed4,
      espFixed6: options.espFixed6 ?? ESP_CBC.fixed6,
      espBlock: options.espBlock ?? ESP_CBC.block,
      maxNeighbours: options.maxNeighbours ?? 1000,
      neighbourAgeNs: BigInt(options.neighbourAgeMs ?? 30_000) * 1_000_000n,
    };
  }

  /** Changes a vnet's record, as the daemon does: replaces it whole. */
  setVnet(vnet: LabVnet, options: VnetOptions & { flushedNs?: bigint }): void {
    const record = { ...this.record(vnet, options), flushedNs: options.flushedNs ?? 0n };
    this.native.mapUpdate(this.map("vnets"), u32(vnet.slot), encodeVnetdVnet(record));
  }

  /** The vnet has exactly these direct ports, and no other vnet has any of them. */
  directPorts(vnet: LabVnet, devices: readonly ("dp0" | "dp1")[]): void {
    const maps = new DirectMaps(this.native, new Maps(this.native, this.object.maps));
    for (const device of ["dp0", "dp1"] as const) maps.deletePort(this.ifindex(device));
    const ports = devices.map((device) => this.ifindex(device));
    for (const ifindex of ports) maps.setPort(ifindex, { ...vnet, flags: 0 });
    maps.setList(vnet.handle, ports);
    const key = u32(vnet.slot);
    const record = decodeVnetdVnet(this.native.mapLookup(this.map("vnets"), key)!);
    const flags = record.flags | vnetdVnetFlags.VNET_PORTS;
    this.native.mapUpdate(this.map("vnets"), key, encodeVnetdVnet({ ...record, flags }));
  }

  portDelete(device: "vn0" | "vn0p"): void {
    this.setPort(device, undefined);
  }

  /** Asks bpf/control.bpf.c; result is 0 or a reason's number. */
  control(op: number, vnet: LabVnet, request: Partial<Control> = {}): Control {
    const input = encodeVnetdControl({
      eth: Buffer.alloc(14),
      op,
      result: 0xffff,
      slot: vnet.slot,
      handle: vnet.handle,
      ifindex: this.ifindex("ul0"),
      fdbFlags: 0,
      nexthop: 0,
      nexthopFlags: 0,
      capabilities: 0,
      mtu: 0,
      mac: Buffer.alloc(6),
      otherIfindex: 0,
      otherAddr: Buffer.alloc(16),
      host: Buffer.alloc(16),
      path: 0,
      spi: 0,
      gen: 0,
      ...request,
      addr: addressIn(this.form, request.addr ?? Buffer.alloc(16)),
    });
    const { data, retval } = this.native.progTestRun(this.program("vnetd_control"), input);
    if (retval !== 0) throw new Error(`vnetd_control returned ${retval}`);
    return decodeVnetdControl(data.subarray(0, VnetdControl.size));
  }

  // ---- keys of secure vnets

  /** The host is sent to by an SA with this SPI (0: by none); its next hop. */
  keys(
    vnet: LabVnet,
    host: string,
    spi = SPI_OUT,
    device: "ul0" | "ul1" = "ul0",
  ): { nexthop: number; gen: number } {
    const addr = addressBytes(host);
    const ifindex = this.ifindex(device);
    const answer = this.control(vnetdControlOp.CTL_KEYS, vnet, { addr, ifindex, spi });
    if (answer.result !== 0) throw new Error(`CTL_KEYS: ${reasonNames[answer.result]}`);
    return { nexthop: answer.nexthop, gen: answer.gen };
  }

  /** An SA by which the host sends to us. */
  receiveBy(
    vnet: LabVnet,
    host: string,
    change: Partial<VnetdSpi> & { spi?: number } = {},
  ): VnetdSpi {
    const { spi = SPI_IN, ...rest } = change;
    const record = {
      source: addressIn(this.form, addressBytes(host)),
      ifindex: this.ifindex("ul0"),
      handle: vnet.handle,
      slot: vnet.slot,
      ...this.keys(vnet, host),
      security: vnetdSecurity.SECURITY_CONF,
      // the daemon's alone
      ...{ suite: 0, keyId: Buffer.alloc(8) },
      ...rest,
    };
    this.native.mapUpdate(this.map("spis"), u32(spi), encodeVnetdSpi(record));
    return record;
  }

  /** Exactly these, of a vnet that had fewer or as many. */
  secureMembers(vnet: LabVnet, members: readonly VnetdSecureMember[]): void {
    members.forEach((member, number) => {
      const key = encodeVnetdMemberKey({ handle: vnet.handle, number });
      this.native.mapUpdate(this.map("secure_members"), key, encodeVnetdSecureMember(member));
    });
  }

  // ---- runs

  run(name: ProgramName, input: Uint8Array, options: TestRunOptions = {}): Run {
    const before = this.dropCounters();
    const ifindex = this.ifindex(PROGRAM_DEVICES[name]);
    // a packet that is in the lab's form already, or has none, is left as it is
    const packet = packetIn(this.form, Buffer.from(input)) ?? input;
    const result = this.native.progTestRun(this.program(name), packet, { ifindex, ...options });
    const verdict = VERDICTS[result.retval];
    if (verdict === undefined) throw new Error(`${name} returned ${result.retval}`);
    const drops = [...this.dropCounters()].flatMap(([key, drop]) => {
      const frames = drop.frames - (before.get(key)?.frames ?? 0);
      return frames === 0 ? [] : [{ ...drop, frames }];
    });
    return { verdict, output: result.data, mark: result.mark, drops };
  }

  /** all drop counters, by their keys */
  dropCounters(): Map<string, Drop> {
    const { count, keys, values } = this.native.mapDump(this.map("drops"));
    const out = new Map<string, Drop>();
    for (let i = 0; i < count; i++) {
      const key = decodeVnetdDropKey(keys, i * VnetdDropKey.size);
      const { frames } = decodeVnetdDropCount(values, i * VnetdDropCount.size);
      out.set(`${key.handle} ${key.direction} ${key.reason}`, {
        reason: reasonNames[key.reason] ?? `number ${key.reason}`,
        direction: directionNames[key.direction] ?? `number ${key.direction}`,
        handle: key.handle,
        frames: Number(frames),
      });
    }
    return out;
  }

  traffic(vnet: LabVnet): Traffic {
    const value = this.native.mapLookup(this.map("traffic"), u32(vnet.slot))!;
    const { frames, bytes, floodedFrames, fragmented } = decodeVnetdTraffic(value);
    return {
      encapFrames: Number(frames[0]),
      decapFrames: Number(frames[1]),
      encapBytes: Number(bytes[0]),
      decapBytes: Number(bytes[1]),
      floodedFrames: Number(floodedFrames),
      fragmentedOut: Number(fragmented[0]),
      fragmentedIn: Number(fragmented[1]),
    };
  }

  /** packets that a device has received, by its own counter */
  received(device: Device): number {
    const line = readFileSync("/proc/self/net/dev", "utf8")
      .split("\n")
      .find((text) => text.trim().startsWith(`${device}:`));
    if (line === undefined) throw new Error(`no device ${device}`);
    return Number(line.split(":")[1]!.trim().split(/\s+/)[1]);
  }

  /** the entry of a MAC, alive or not */
  learned(vnet: LabVnet, mac: string): Learned | undefined {
    const key = encodeVnetdFdbKey({ handle: vnet.handle, mac: macBytes(mac) });
    const value = this.native.mapLookup(this.map("fdb"), key);
    if (value === undefined) return undefined;
    const entry = decodeVnetdFdbEntry(value);
    const { flags, seenNs } = entry;
    if (entry.nexthop === 0) return { mac, host: "local", flags, seenNs, port: entry.gen };
    const hop = decodeVnetdNexthop(
      this.native.mapLookup(this.map("nexthops"), u32(entry.nexthop))!,
    );
    const stale = hop.gen === entry.gen ? "" : " (stale)";
    return { mac, host: addressText(hop.key.addr) + stale, flags, seenNs, port: 0 };
  }

  counts(vnet: LabVnet): { entries: number; hosts: number; local: number; neighbours: number } {
    return decodeVnetdVnetCounts(this.native.mapLookup(this.map("vnet_counts"), u32(vnet.slot))!);
  }

  /** addr: 16 bytes, as the table has it */
  neighbour(vnet: LabVnet, addr: Uint8Array): VnetdNeighbour | undefined {
    const key = encodeVnetdNeighbourKey({ handle: vnet.handle, addr });
    const value = this.native.mapLookup(this.map("neighbours"), key);
    return value === undefined ? undefined : decodeVnetdNeighbour(value);
  }

  /** One that is there was heard so long ago. */
  neighbourHeard(vnet: LabVnet, addr: Uint8Array, agoMs: number): void {
    const entry = this.neighbour(vnet, addr);
    if (entry === undefined) throw new Error("no such neighbour");
    const heardNs = process.hrtime.bigint() - BigInt(agoMs) * 1_000_000n;
    const key = encodeVnetdNeighbourKey({ handle: vnet.handle, addr });
    const value = encodeVnetdNeighbour({ ...entry, heardNs });
    this.native.mapUpdate(this.map("neighbours"), key, value);
  }

  neighbourStats(vnet: LabVnet): Record<"answered" | "learned" | "changed" | "refused", number> {
    const value = this.native.mapLookup(this.map("neighbour_stats"), u32(vnet.slot))!;
    const { answered, learned, changed, refused } = decodeVnetdNeighbourStats(value);
    return {
      ...{ answered: Number(answered), learned: Number(learned) },
      ...{ changed: Number(changed), refused: Number(refused) },
    };
  }

  /** plain VARP that was dealt with in BPF, over all labs' lives */
  varpStats(): Record<"answered" | "notHere" | "limited" | "taken", number> {
    const stats = decodeVnetdVarpStats(this.native.mapLookup(this.map("varp_stats"), u32(0))!);
    const [answered, notHere, limited, taken] = [
      ...[stats.answered, stats.notHere, stats.limited, stats.taken],
    ].map(Number);
    return { answered: answered!, notHere: notHere!, limited: limited!, taken: taken! };
  }

  // ---- events

  private collect(record: Buffer): void {
    const type = record.readUInt32LE(0);
    if (type === vnetdEventType.EVENT_VARP) {
      const event = varpEventOf(record)!;
      const { size, fields } = VnetdEventVarp;
      const { VARP_SHORT_LEN } = vnetdLimits;
      const isShort = event.len <= VARP_SHORT_LEN;
      if (record.length !== (isShort ? fields.message.offset + VARP_SHORT_LEN : size))
        throw new Error(`${event.len} bytes of VARP in a record of ${record.length}`);
      this.events.push({
        kind: "varp",
        ifindex: event.ifindex,
        source: addressText(event.source),
        destination: addressText(event.destination),
        sourcePort: event.sourcePort,
        forwarded: event.way === vnetdVarpWay.WAY_FORWARDED,
        secure: event.way === vnetdVarpWay.WAY_SECURE,
        learned: event.way === vnetdVarpWay.WAY_LEARNED,
        message: Buffer.from(event.message.subarray(0, event.len)),
      });
      return;
    }
    if (type === vnetdEventType.EVENT_NOT_PEER) {
      const { addr } = decodeVnetdEventPeer(record);
      this.events.push({ kind: "not-peer", address: addressText(addr) });
      return;
    }
    if (type === vnetdEventType.EVENT_LOOP) {
      const { handle, direction, source, probe } = decodeVnetdEventLoop(record);
      const text = addressText(source);
      this.events.push({ kind: "loop", handle, direction, source: text, hops: probe.hops });
      return;
    }
    const kinds = {
      [vnetdEventType.EVENT_LOCAL_NEW]: "local-new",
      [vnetdEventType.EVENT_UNKNOWN_UNICAST]: "unknown-unicast",
      [vnetdEventType.EVENT_MOVED]: "moved",
      [vnetdEventType.EVENT_HELD]: "held",
      [vnetdEventType.EVENT_STORM]: "storm",
    } as const;
    const kind = (kinds as Record<number, (typeof kinds)[keyof typeof kinds]>)[type];
    if (kind === undefined) throw new Error(`event of type ${type}`);
    const { handle, mac, from, to } = decodeVnetdEventMac(record);
    this.events.push({ kind, handle, mac: macText(mac), from, to });
  }

  /**
   * All events of both rings since the last call. It causes an event of its own in each ring and
   * waits for both, so that "no event" is known, not guessed by waiting.
   */
  async takeEvents(): Promise<LabEvent[]> {
    const first = this.sentinels;
    const arrived = (kind: LabEvent["kind"]): boolean =>
      this.events.some((e) => e.kind === kind && sentinelNumber(e) >= first);
    const deadline = Date.now() + EVENT_TIMEOUT_MS;
    while (!arrived("local-new") || !arrived("unknown-unicast")) {
      if (Date.now() > deadline) throw new Error("the rings do not deliver");
      // again and again: events that strangers can cause are limited in rate
      this.emitSentinel();
      await sleep(1);
    }
    return this.events.splice(0).filter((event) => sentinelNumber(event) < 0);
  }

  /** a frame from a new MAC to an unknown one, in a vnet of its own: one event in each ring */
  private emitSentinel(): void {
    const key = u32(this.ifindex("vn0p"));
    const port = this.native.mapLookup(this.map("ports"), key);
    this.sentinelVnet ??= this.vnet({
      id: "ffff:0:0:0:0:0:0:1",
      maxEntries: 60_000,
      maxEntriesPerHost: 60_000,
    });
    this.setPort("vn0p", encodeVnetdPort(this.sentinelVnet));
    const number = (this.sentinels++)
      .toString(16)
      .padStart(4, "0")
      .replace(/(..)(..)/, "$1:$2");
    const frame = packet().eth({ src: `02:fe:fe:fe:${number}`, dst: `06:fe:fe:fe:${number}` });
    this.native.progTestRun(this.program("vnetd_encap"), frame.payload(46).build(), {
      ifindex: this.ifindex("vn0p"),
    });
    this.setPort("vn0p", port);
  }
}

/** -1: not a sentinel */
function sentinelNumber(event: LabEvent): number {
  if (event.kind === "varp" || event.kind === "loop" || event.kind === "not-peer") return -1;
  if (!/^0[26]:fe:fe:fe:/.test(event.mac)) return -1;
  return parseInt(event.mac.slice(12).replace(":", ""), 16);
}

const placeIndex = (device: "ul0" | "ul1", family: number): number =>
  (device === "ul0" ? 0 : 1) + (family === vnetdFamily.FAMILY_IPV6 ? 2 : 0);

function ipv6(on: boolean): void {
  writeFileSync("/proc/sys/net/ipv6/conf/all/disable_ipv6", on ? "0" : "1");
}

function makeDevices(): void {
  for (const name of ["vn0", "ul0", "ul1", "os0", "vx0", "rl0", "sg0", "xf0", "dp0", "dp1"]) {
    if (existsSync(`/proc/self/net/dev_snmp6/${name}`)) ip("link", "delete", name);
  }
  ip("link", "set", "lo", "up");
  ip("link", "add", "vn0", "type", "veth", "peer", "name", "vn0p");
  ip("link", "add", "ul0", "address", "02:00:0a:42:01:01", "type", "veth", "peer", "name", "ul0w");
  ip("link", "add", "ul1", "address", "02:00:0a:42:02:01", "type", "veth", "peer", "name", "ul1w");
  for (const port of ["dp0", "dp1"])
    ip("link", "add", port, "type", "veth", "peer", "name", `${port}g`);
  ip("link", "add", "os0", "mtu", "65535", "type", "veth", "peer", "name", "os1", "mtu", "65535");
  for (const [out, into] of [
    ["rl0", "rl1"],
    ["sg0", "sg1"],
    ["xf0", "xf0w"],
  ] as const)
    ip("link", "add", out, "mtu", "65535", "type", "veth", "peer", "name", into, "mtu", "65535");
  ip(
    "link",
    "add",
    "vx0",
    "mtu",
    "65485",
    "type",
    "vxlan",
    "external",
    "dstport",
    String(REASSEMBLY_PORT),
    "udp6zerocsumrx",
  );
  // no IPv6 link-local addresses: nothing is sent but what a test sends
  for (const name of DEVICES) ip("link", "set", name, "addrgenmode", "none", "up");
  ip("address", "add", "10.66.1.1/24", "dev", "ul0");
  ip("address", "add", "10.66.2.1/24", "dev", "ul1");
  ip("address", "add", "fd66::a42:101/120", "dev", "ul0", "nodad");
  ip("address", "add", "fd66::a42:201/120", "dev", "ul1", "nodad");
}
