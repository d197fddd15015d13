// SPDX-License-Identifier: Apache-2.0
/** Tells what a dry run has shown, in the words that the other commands use. */
import type { TraceStep } from "../../api/contract.js";
import { addressToText } from "../../base/address.js";
import { isGroupMac, macFromBytes, macToBytes, type Mac } from "../../base/mac.js";
import { shortVnetId } from "../../base/vnet-id.js";
import type { DropRow } from "../../dataplane/tables.js";
import { isFresh, isLocal, neighbourRows, nowNs } from "../../dataplane/tables.js";
import {
  vnetdDirection,
  vnetdFdbFlags,
  vnetdSecurity,
  vnetdVnetFlags,
  type VnetdFdbEntry,
  type VnetdNexthop,
  type VnetdTraffic,
} from "../../generated/layouts.js";
import { reasonTexts } from "../../generated/reason-texts.js";
import type { Context } from "../context.js";
import { isUsable } from "../underlays.js";
import type { RunningVnet } from "../vnets.js";
import type { TraceParts } from "./trace.js";
import type { Walked, Way } from "./walk.js";

export interface SourceFacts {
  mac: Mac;
  /** the host that sends it; undefined: it is of this host */
  from: string | undefined;
  before: VnetdFdbEntry | undefined;
  after: VnetdFdbEntry | undefined;
  refused: DropRow | undefined;
}

export class Narrator {
  private readonly devices: ReadonlyMap<number, string>;

  constructor(
    private readonly context: Context,
    private readonly parts: TraceParts,
    private readonly vnet: RunningVnet,
  ) {
    const links = context.native.linkList();
    this.devices = new Map(links.map(({ ifindex, name }) => [ifindex, name]));
  }

  vnetStep(): TraceStep {
    const { vnets, underlays } = this.parts;
    const config = vnets.inUse(vnets.find(this.vnet.id).config);
    const places = underlays.list().filter(isUsable);
    const where = config.bridge === null ? "on no bridge" : `on ${config.bridge}`;
    const by = config.security === "none" ? config.encapsulation : `esp (${config.security})`;
    const names = [...new Set(places.map(({ device }) => device))];
    const attached =
      names.length === 0 ? "no device carries it now" : `devices ${names.join(", ")}`;
    const text = `vnet ${shortVnetId(this.vnet.id)}: ${config.vnetif} ${where}, sent by ${by}; ${attached}`;
    return { step: "vnet", text };
  }

  sourceStep({ mac, from, before, after, refused }: SourceFacts): TraceStep {
    const here = from === undefined ? "this host" : this.hostText(from);
    const step = "source";
    if (refused !== undefined) {
      const { reason } = refused;
      const text = `${mac} would not be learned: ${reason}: ${reasonTexts[reason] ?? ""}`;
      return { step, text, reason };
    }
    if (after === undefined) return { step, text: `${mac} would not be learned` };
    const place = this.placeOf(after);
    if (before === undefined) {
      const told = from === undefined ? ", and told to the other hosts" : "";
      return { step, text: `${mac} would be learned: it is new, at ${here}${told}` };
    }
    const old = this.placeOf(before);
    if (old !== place) return { step, text: `${mac} would move from ${old} to ${place}` };
    const stays = place === here ? "" : `, and stays there although it is heard at ${here}`;
    return { step, text: `${mac} is known at ${place}${stays}${this.ageText(before)}` };
  }

  destinationStep(mac: Mac): TraceStep {
    const step = "destination";
    if (isGroupMac(mac)) return { step, text: `${mac} is for all` };
    const { maps } = this.context;
    const { handle, slot } = this.vnet;
    const entry = maps.fdbEntry({ handle, mac: macToBytes(mac) });
    const record = maps.vnet(slot);
    const asks = "to all, and the other hosts are asked for it by VARP";
    if (entry === undefined || record === undefined)
      return { step, text: `${mac} is not known: ${asks}` };
    if (!isFresh(entry, record, nowNs()))
      return { step, text: `${mac} was known at ${this.placeOf(entry)}, too long ago: ${asks}` };
    if (isLocal(entry) && entry.gen !== 0) {
      const device = this.devices.get(entry.gen) ?? "a port that is gone";
      return { step, text: `${mac} is known here, behind ${device}${this.ageText(entry)}` };
    }
    if (isLocal(entry)) {
      const text = `${mac} is known here, where its bridge would have delivered the frame: as it came to us all the same, to all`;
      return { step, text };
    }
    const hop = maps.nexthop(entry.nexthop);
    if (hop === undefined || hop.gen !== entry.gen)
      return { step, text: `${mac} was known at a host that is gone: ${asks}` };
    const state =
      (entry.flags & vnetdFdbFlags.FDB_STATIC) !== 0
        ? "configured"
        : (entry.flags & vnetdFdbFlags.FDB_ANNOUNCED) !== 0
          ? "announced"
          : "learned";
    const text = `${mac} is known at ${this.hopText(hop)}, ${state}${this.ageText(entry)}`;
    return { step, text };
  }

  /** Of a question: what is known of the address that it asks for. */
  neighbourStep(target: Uint8Array): TraceStep {
    const step = "neighbour";
    const address = addressToText(target);
    const { maps } = this.context;
    const flags = maps.vnet(this.vnet.slot)?.flags ?? 0;
    const asked = "the question goes to all";
    if ((flags & vnetdVnetFlags.VNET_SUPPRESS) === 0)
      return { step, text: `the vnet has suppress off: ${asked}` };
    const row = neighbourRows(maps, this.parts.vnets.byHandle()).find(
      ({ handle, addr }) => handle === this.vnet.handle && addressToText(addr) === address,
    );
    if (row === undefined) return { step, text: `${address} is not known: ${asked}` };
    const heard = `heard of ${(row.ageMs / 1000).toFixed(1)} s ago`;
    const known = `${address} is ${macFromBytes(row.mac)}, ${heard}`;
    const why = row.isAnswered ? "" : `; not answered for (docs/suppression.md): ${asked}`;
    return { step, text: `${known}${why}` };
  }

  waySteps({ ways, more }: Walked, frame: { destination: Mac; isEncap: boolean }): TraceStep[] {
    const steps = ways.map((way) => this.wayStep(way, frame));
    if (more > 0) steps.push({ step: "sends", text: `and ${String(more)} more copies` });
    return steps;
  }

  dropStep({ reason, direction, frames }: DropRow): TraceStep {
    const times = frames > 1 ? ` (${String(frames)} times)` : "";
    const text = `${reason}${times}, ${direction}: ${reasonTexts[reason] ?? ""}`;
    return { step: "dropped", text, reason };
  }

  countStep(
    { frames, bytes, floodedFrames, fragmented }: VnetdTraffic,
    drops: DropRow[],
    ways: readonly Way[],
  ): TraceStep {
    const counts = (["DIR_ENCAP", "DIR_DECAP"] as const).flatMap((name) => {
      const at = vnetdDirection[name];
      if ((frames[at] ?? 0n) === 0n) return [];
      const extras = [
        floodedFrames > 0n ? ", to all" : "",
        (fragmented[at] ?? 0n) > 0n ? ", in fragments" : "",
      ];
      const direction = name === "DIR_ENCAP" ? "encap" : "decap";
      return [
        `${direction} ${String(frames[at])} frame of ${String(bytes[at])} bytes${extras.join("")}`,
      ];
    });
    const dropped = drops.map(({ direction, reason, handle }) => {
      const of = handle === this.vnet.handle ? "" : ", without its vnet";
      return `drop ${reason} (${direction}${of})`;
    });
    const answers = ways.filter(({ kind }) => kind === "resolved").map(() => "an answer");
    const all = [...counts, ...answers, ...dropped];
    return { step: "counted", text: all.length === 0 ? "nothing" : all.join("; ") };
  }

  private wayStep(
    way: Way,
    { destination, isEncap }: { destination: Mac; isEncap: boolean },
  ): TraceStep {
    switch (way.kind) {
      case "sent": {
        const text = isEncap ? this.sentText(way) : `${this.sentText(way)}: forwarded`;
        return { step: "sends", text, outer: way.headers };
      }
      case "sealed":
        return { step: "sends", text: this.sealedText(way) };
      case "answered": {
        const text = `the guest is told by ICMP that no packet above ${String(way.mtuBytes)} bytes gets there`;
        return { step: "answers", text };
      }
      case "resolved": {
        const text = `the guest is told on this host that it is ${way.owner}, and the question goes to nobody`;
        return { step: "answers", text };
      }
      case "port": {
        const device = this.devices.get(way.ifindex) ?? String(way.ifindex);
        return { step: "delivers", text: `${way.copy ? "a copy " : ""}to port ${device}` };
      }
      case "delivered":
        return { step: "delivers", text: this.deliveredText(destination) };
      case "stack":
        return { step: "passes", text: "it is not vnetd's: the host's own stack has it" };
    }
  }

  private sentText({ headers, fragments, relayed }: Extract<Way, { kind: "sent" }>): string {
    const { family, source, destination, etherip, sourcePort, port, ttl, dontFragment } = headers;
    const { message, bytes } = headers;
    const device = this.deviceOf(source, destination);
    const to = relayed
      ? message === "vfwd"
        ? `peer ${this.hostText(destination)}, inside VFWD`
        : `${this.hostText(destination)}, which uses no multicast`
      : ttl === 1
        ? `the group ${destination}`
        : this.hostText(destination);
    const layer = etherip ? "EtherIP" : `UDP ${String(sourcePort)} > ${String(port)}`;
    const words = [
      `to ${to}`,
      device === undefined ? undefined : `by ${device}`,
      `IPv${String(family)} from ${source}`,
      layer,
      `TTL ${String(ttl)}`,
      family === 4 && dontFragment ? "DF" : undefined,
      fragments > 1
        ? `a packet of ${String(bytes)} bytes in ${String(fragments)} fragments`
        : `${String(bytes)} bytes`,
    ];
    return words.filter((word) => word !== undefined).join(", ");
  }

  private sealedText({ nexthop, bytes }: Extract<Way, { kind: "sealed" }>): string {
    const hop = this.context.maps.nexthop(nexthop);
    if (hop === undefined) return `to the SA of a host that is gone, ${String(bytes)} bytes`;
    const level = this.context.maps.vnet(this.vnet.slot)?.security;
    const isSecret = level === vnetdSecurity.SECURITY_CONF;
    const how = isSecret ? "encrypted" : "authenticated";
    const spi = `SPI 0x${hop.spi.toString(16).padStart(8, "0")}`;
    return `to ${this.hopText(hop)}, ${how} by ESP, ${spi}, ${String(bytes)} bytes before`;
  }

  private deliveredText(destination: Mac): string {
    const { vnets } = this.parts;
    const { config } = vnets.find(this.vnet.id);
    if (config.bridge === null) return `to ${config.vnetif}`;
    if (isGroupMac(destination)) return `to ${config.vnetif}, and all ports of ${config.bridge}`;
    const master = this.vnet.vnif?.master ?? 0;
    const known = vnets
      .bridgeFdb()
      .find((each) => each.mac === destination && each.master === master);
    const port = known === undefined ? undefined : this.devices.get(known.ifindex);
    return port === undefined
      ? `to ${config.vnetif}; ${config.bridge} does not know ${destination}: to all its ports`
      : `to ${config.vnetif}, and by ${config.bridge} to ${port}`;
  }

  private deviceOf(source: string, destination: string): string | undefined {
    const own = this.parts.underlays.list().filter(({ state }) => state.address === source);
    if (own.length <= 1) return own[0]?.device;
    const ifindex = this.context.native.routeGet(destination);
    return own.find((each) => each.ifindex === ifindex)?.device ?? own[0]?.device;
  }

  private placeOf(entry: VnetdFdbEntry): string {
    if (isLocal(entry)) return "this host";
    const hop = this.context.maps.nexthop(entry.nexthop);
    return hop === undefined || hop.gen !== entry.gen
      ? "a host that is new to the vnet"
      : this.hostText(addressToText(hop.key.addr));
  }

  private hopText({ key }: VnetdNexthop): string {
    const device = this.devices.get(key.ifindex) ?? String(key.ifindex);
    return `${this.hostText(addressToText(key.addr))} by ${device}`;
  }

  private hostText(address: string): string {
    const member = this.parts.hellos
      .list()
      .find(({ paths }) => paths.some((path) => path.address === address));
    return member === undefined || member.name === "" ? address : `${address} (${member.name})`;
  }

  private ageText({ flags, seenNs }: VnetdFdbEntry): string {
    if ((flags & vnetdFdbFlags.FDB_STATIC) !== 0) return "";
    const tenths = Math.max(0, Number((nowNs() - seenNs) / 100_000_000n));
    return `, heard ${(tenths / 10).toFixed(1)} s ago`;
  }
}
