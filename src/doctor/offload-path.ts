// SPDX-License-Identifier: Apache-2.0
/**
 * A way through the encapsulation and back that touches nothing of what runs, for the doctor's own test:
 *
 *   packet socket - vn-test0 ==veth== vn-test1 [vnetd_encap]   vn-test2 ==veth== vn-test3 [vnetd_decap]
 *                       ^                            +------------^                            |
 *                       +----------------------------------------------------------------------+
 *
 * The programs are loaded for it with maps of their own: two hosts with one vnet, which go by the group, since that needs
 * no address, route or neighbour. The devices, which have no addresses either, are there for a moment.
 */
import { readSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAddress } from "../base/address.js";
import { macToBytes } from "../base/mac.js";
import { parseVnetId } from "../base/vnet-id.js";
import { VnetTable } from "../dataplane/vnet-table.js";
import { Maps, u32 } from "../dataplane/maps.js";
import { vnetdFamily, vnetdUnderlayFlags, vnetdWire } from "../generated/layouts.js";
import { errnoName } from "../host/errno.js";
import { testPairs } from "../host/names.js";
import { mustGet, setFeatures } from "../host/vnetif.js";
import type { LinkInfo, LoadedObject, Native } from "../native/contract.js";
import { numberOf, readBytes, testFrame, testFrames, verdictOn } from "./offload-frames.js";

/** the devices are ours alone; a test puts its fault in front */
const filter = { priority: 10, handle: 1 } as const;
const mtuBytes = 1500;
const lookMs = 2;
const idOfTest = parseVnetId("fffe");
const ringBytes = 65_536;
const few = 16;
/** of one look; all frames of the test are some twenty */
const maxReads = 256;

export interface PathOptions {
  native: Native;
  objectPath: string;
  /** the devices are there, by number, and nothing is sent yet: where a test puts in its fault */
  ready?: (devices: { guest: number; sends: number; receives: number }) => void;
}

export interface PathFinding {
  /** of testFrames */
  what: string;
  wrong: string;
}

export class OffloadPath {
  private readonly loads: LoadedObject[] = [];
  private fd = -1;
  /** of the device that stands for the underlay's */
  private wire = "";

  constructor(private readonly options: PathOptions) {}

  open(): void {
    const { native, ready } = this.options;
    this.removeDevices();
    const [guest, guestPeer] = this.pair("guest");
    const [sends, receives] = this.pair("wire");
    this.wire = sends.name;
    this.host("vnetd_encap", { guest, guestPeer, device: sends, address: "192.0.2.11" });
    this.host("vnetd_decap", { guest, guestPeer, device: receives, address: "192.0.2.12" });
    this.fd = native.packetSocket(guest.ifindex);
    ready?.({ guest: guest.ifindex, sends: sends.ifindex, receives: receives.ifindex });
  }

  close(): void {
    const { native } = this.options;
    if (this.fd >= 0) native.close(this.fd);
    for (const { programs, maps } of this.loads)
      for (const fd of [...Object.values(programs), ...Object.values(maps)]) native.close(fd);
    this.removeDevices();
  }

  /** Every frame once, with these features of the device; what is wrong when all is there, or after so long. */
  async run(features: Readonly<Record<string, boolean>>, waitMs: number): Promise<PathFinding[]> {
    this.setFeatures(features);
    this.waiting();
    for (const [number, spec] of testFrames.entries()) writeSync(this.fd, testFrame(spec, number));
    const arrived = testFrames.map((): Buffer[] => []);
    const untilMs = performance.now() + waitMs;
    for (;;) {
      for (const read of this.waiting()) {
        const number = numberOf(read);
        if (number !== undefined) arrived[number]?.push(read);
      }
      const verdicts = testFrames.map((spec, at) => verdictOn(spec, at, arrived[at] ?? []));
      const isOver = performance.now() > untilMs;
      if (!isOver && verdicts.includes("")) {
        await sleep(lookMs);
        continue;
      }
      return verdicts.flatMap((verdict, at) => {
        if (verdict === undefined) return [];
        const what = testFrames[at]?.what ?? "";
        const some = (arrived[at]?.length ?? 0) > 0;
        return [{ what, wrong: verdict || (some ? "parts of it are lost" : "it is lost") }];
      });
    }
  }

  /** As far as a veth has them, and as they depend on one another. */
  private setFeatures(features: Readonly<Record<string, boolean>>): void {
    try {
      setFeatures(this.options.native, this.wire, features);
    } catch (error) {
      if (errnoName(error) !== "EOPNOTSUPP") throw error;
    }
  }

  /** What has come; no more than so much at once, whatever it is. */
  private waiting(): Buffer[] {
    const reads: Buffer[] = [];
    while (reads.length < maxReads) {
      const read = this.read();
      if (read === undefined) break;
      reads.push(read);
    }
    return reads;
  }

  /** undefined: there is none now */
  private read(): Buffer | undefined {
    const buffer = Buffer.alloc(readBytes);
    try {
      return buffer.subarray(0, readSync(this.fd, buffer));
    } catch (error) {
      if (errnoName(error) === "EAGAIN") return undefined;
      throw error;
    }
  }

  private pair(kind: keyof typeof testPairs): [LinkInfo, LinkInfo] {
    const { native } = this.options;
    const names = testPairs[kind];
    const last = kind === "guest" ? "4" : "5";
    native.linkAddVeth({
      name: names.out,
      peerName: names.in,
      mac: `02:76:6e:65:74:${last}0`,
      peerMac: `02:76:6e:65:74:${last}1`,
      mtuBytes,
      peerMtuBytes: mtuBytes,
      alias: names.alias,
    });
    for (const name of [names.out, names.in]) {
      const { ifindex } = mustGet(native, name);
      native.linkSet(ifindex, { alias: names.alias, noIpv6LinkLocal: true, noArp: true });
      native.linkSet(ifindex, { up: true });
    }
    return [mustGet(native, names.out), mustGet(native, names.in)];
  }

  /** Left by a run that was killed, too. Both ends go together. */
  private removeDevices(): void {
    const { native } = this.options;
    for (const { out, alias } of Object.values(testPairs)) {
      const link = native.linkGet(out);
      if (link?.alias === alias) native.linkDelete(link.ifindex);
    }
  }

  /** A host of one vnet, in maps of its own, with one program. */
  private host(
    program: "vnetd_encap" | "vnetd_decap",
    place: { guest: LinkInfo; guestPeer: LinkInfo; device: LinkInfo; address: string },
  ): void {
    const { native, objectPath } = this.options;
    const { guest, guestPeer, device, address } = place;
    const loaded = native.objectLoad(objectPath, {
      programs: { [program]: true },
      maxEntries: {
        ...{ fdb: few, fdb_queue: few, nexthops: few, nexthop_ids: few, nexthop_free: few },
        ...{ control: ringBytes, events: ringBytes, watched: ringBytes },
      },
    });
    this.loads.push(loaded);
    const maps = new Maps(native, loaded.maps);
    native.mapUpdate(maps.fd("nexthop_free"), new Uint8Array(0), u32(1));
    const family = vnetdFamily.FAMILY_IPV4;
    const { ifindex } = device;
    maps.setUnderlay({
      ...{ ifindex, family, index: 0, prefixLen: 24, esp: 0, mtu: mtuBytes },
      flags: vnetdUnderlayFlags.UNDERLAY_UP,
      addr: parseAddress(address),
      group: parseAddress("224.10.0.1"),
      mac: macToBytes(device.mac),
      port: vnetdWire.UDP_PORT,
    });
    maps.setUnderlayListed(0, { ifindex, family });
    new VnetTable(native, maps).write(
      idOfTest,
      { slot: 1, handle: 1 },
      {
        ...{ security: 0, vnif: guest.ifindex, vnifPeer: guestPeer.ifindex },
        ...{ vmac: macToBytes(guest.mac), maxEntries: few, maxEntriesPerHost: few, maxHosts: few },
        ...{ ageMs: 60_000, floodPerSecond: 0, floodBurst: 0, probeNonce: 0n, encap: 0 },
      },
    );
    const fd = loaded.programs[program];
    if (fd === undefined) throw new Error(`${program} was not loaded`);
    const at = program === "vnetd_encap" ? guestPeer.ifindex : ifindex;
    native.clsactAttach(fd, at, "ingress", filter.priority, filter.handle);
  }
}
