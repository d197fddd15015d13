// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd monitor` and `vnetd capture`: tells those who look what goes on, as long as they look.
 *
 * The programs say nothing unless the map `watch` says so, which this service renews every second while there is
 * somebody: a daemon that dies leaves it to run out. What the programs could not say, by pace or because the ring
 * was full, is counted there and told here; what a slow reader does not take is told by the API's server.
 */
import type { CapturedFrame, MonitorEvent } from "../api/contract.js";
import { addressToText } from "../base/address.js";
import { macFromBytes, type Mac } from "../base/mac.js";
import type { VnetId } from "../base/vnet-id.js";
import { WatchMap } from "../dataplane/watch-map.js";
import {
  VnetdEventMac,
  decodeVnetdEventMac,
  directionNames,
  reasonNames,
  vnetdEventType,
  vnetdLimits,
  vnetdNexthopSpecial,
  vnetdWatchFlags,
} from "../generated/layouts.js";
import type { Closable } from "../native/contract.js";
import { Captures, type CaptureOptions } from "./captures.js";
import { nowMs, type Context } from "./context.js";
import type { NewsItem } from "./news.js";
import { droppedFrame, isRefused, watchedPacket, type WatchedPacket } from "./watch-packet.js";
import type { RunningVnet, Vnets } from "./vnets.js";

export interface MonitorFilter {
  vnet: VnetId | undefined;
  mac: Mac | undefined;
  reason: string | undefined;
}

/** Where what is seen goes. */
export interface Listener<Event> {
  event: (event: Event) => void;
  /** so many were not seen */
  lost: (count: number) => void;
}

interface Monitor extends MonitorFilter {
  listener: Listener<MonitorEvent>;
}

const renewMs = 1000;
const validNs = 5_000_000_000n;
/** matches no vnet: the one that is looked at is not there just now */
const noHandle = 0xffffffff;
const giveMs = 50;
/** beside what is wanted of a frame: the outer headers of what is dropped on its way in */
const outerBytes = 128;

export class Watch {
  private readonly map: WatchMap;
  private readonly monitors = new Set<Monitor>();
  private readonly captures = new Captures({ now: nowMs, epochNs: () => this.epochNs });
  private captured = new Set<VnetId>();
  private timer: NodeJS.Timeout | undefined;
  private running: Closable[] = [];
  private lostBefore = { events: 0, frames: 0 };
  private startedNs = 0n;
  /** the kernel's clock since boot -> since 1970 */
  private epochNs = 0n;
  private deviceNames: Map<number, string> | undefined;

  constructor(
    private readonly context: Context,
    private readonly parts: { vnets: Vnets },
  ) {
    this.map = new WatchMap(context.native, context.maps);
  }

  monitor(filter: MonitorFilter, listener: Listener<MonitorEvent>): Closable {
    const monitor = { ...filter, listener };
    this.monitors.add(monitor);
    this.changed();
    return {
      close: () => {
        this.monitors.delete(monitor);
        this.changed();
      },
    };
  }

  capture(options: CaptureOptions, listener: Listener<CapturedFrame>): Closable {
    const capture = this.captures.add(options, listener, () => this.changed());
    this.changed();
    return capture;
  }

  /** A record of the ring `events`, which the daemon reads for itself anyway. */
  onEvent(record: Buffer): void {
    if (this.monitors.size > 0) this.onMac(record);
  }

  close(): void {
    this.monitors.clear();
    this.captures.clear();
    this.changed();
  }

  // ---- while there is somebody

  private changed(): void {
    const wanted = this.monitors.size + this.captures.size > 0;
    this.markVnets();
    if (wanted && this.timer === undefined) this.start();
    else if (!wanted && this.timer !== undefined) this.stop();
    else if (wanted) this.renew();
  }

  private start(): void {
    const { native, maps, news } = this.context;
    this.startedNs = process.hrtime.bigint();
    this.epochNs = BigInt(Date.now()) * 1_000_000n - this.startedNs;
    this.lostBefore = this.map.lost();
    const ring = native.ringConsume(maps.fd("watched"), (record) => this.onRecord(record));
    const end = news.listen((item) => this.onNews(item));
    const giving = setInterval(() => this.captures.tick(), giveMs);
    this.running = [ring, { close: end }, { close: () => clearInterval(giving) }];
    this.timer = setInterval(() => {
      this.deviceNames = undefined;
      this.renew();
      this.tellLost();
    }, renewMs);
    this.renew();
  }

  private stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    for (const closable of this.running.splice(0)) closable.close();
    this.map.clear();
  }

  /** What all of them want; the programs look for what is common to them, the rest is sorted out here. */
  private renew(): void {
    const vnet = common([...this.monitors].map((each) => each.vnet));
    const reason = common([...this.monitors].map((each) => each.reason));
    const captured = common([...this.captured]);
    const { WATCH_EVENTS, WATCH_FRAMES } = vnetdWatchFlags;
    this.map.set({
      untilNs: process.hrtime.bigint() + validNs,
      flags:
        (this.monitors.size > 0 ? WATCH_EVENTS : 0) | (this.captures.size > 0 ? WATCH_FRAMES : 0),
      handle: this.handleFor(vnet),
      reason: reason === undefined ? 0 : Math.max(0, reasonNames.indexOf(reason)),
      framesHandle: this.handleFor(captured),
      snap: Math.min(this.captures.snapBytes() + outerBytes, vnetdLimits.WATCH_SNAP),
    });
  }

  /** Says in the vnets' records whose frames are captured. */
  private markVnets(): void {
    const { table } = this.context;
    const wanted = this.captures.ids();
    for (const id of new Set([...wanted, ...this.captured]))
      if (wanted.has(id) !== this.captured.has(id))
        table.setWatched(id, this.parts.vnets.get(id)?.running, wanted.has(id));
    this.captured = wanted;
  }

  private tellLost(): void {
    const lost = this.map.lost();
    const events = lost.events - this.lostBefore.events;
    const frames = lost.frames - this.lostBefore.frames;
    if (events > 0) for (const { listener } of this.monitors) listener.lost(events);
    if (frames > 0) this.captures.lost(frames);
    this.lostBefore = lost;
  }

  private handleFor(id: VnetId | undefined): number {
    return id === undefined ? 0 : (this.parts.vnets.get(id)?.running?.handle ?? noHandle);
  }

  private vnetOf(handle: number): RunningVnet | undefined {
    return this.parts.vnets.byHandle().get(handle);
  }

  // ---- what is seen

  private onRecord(record: Buffer): void {
    const type = record.length >= 4 ? record.readUInt32LE(0) : 0;
    if (type === vnetdEventType.EVENT_LEARNED || type === vnetdEventType.EVENT_AGED)
      return this.onMac(record);
    const packet = watchedPacket(record);
    // it may be of before: nobody has emptied the ring
    if (packet === undefined || packet.timeNs < this.startedNs) return;
    if (type === vnetdEventType.EVENT_DROP && this.monitors.size > 0) this.onDrop(packet);
    const vnet = this.captures.size > 0 ? this.vnetOf(packet.handle) : undefined;
    if (vnet !== undefined && this.captured.has(vnet.id)) this.captures.onPacket(vnet.id, packet);
  }

  private onMac(record: Buffer): void {
    const kind = macKinds.get(record.length >= 4 ? record.readUInt32LE(0) : 0);
    if (kind === undefined || record.length < VnetdEventMac.size) return;
    const event = decodeVnetdEventMac(record);
    const vnet = this.vnetOf(event.handle);
    if (vnet === undefined || event.timeNs < this.startedNs) return;
    const to = this.placeOf(event.to);
    const from = this.placeOf(event.from);
    const storm = kind === "storm";
    const moves = kind === "moved" || kind === "held";
    const mac = storm ? null : macFromBytes(event.mac);
    this.tell({
      ...this.common(kind, event.timeNs, vnet),
      mac,
      ...(moves ? { from, to } : {}),
      ...(kind === "learned" || kind === "aged" ? { to } : {}),
      ...(storm ? { direction: directionOf(event.to) } : {}),
      text: macText(kind, from, to),
    });
  }

  private onDrop(packet: WatchedPacket): void {
    const { reason, direction } = packet;
    const { source, frame } = droppedFrame(packet);
    const kind = isRefused(reason) ? "refused" : "dropped";
    this.tell({
      ...this.common(kind, packet.timeNs, this.vnetOf(packet.handle)),
      mac: frame === undefined ? null : macAt(frame, 6),
      destination: frame === undefined ? null : macAt(frame, 0),
      reason,
      direction,
      device: this.deviceName(packet.ifindex),
      ...(source === undefined ? {} : { from: source }),
      bytes: packet.length,
      head: packet.bytes.subarray(0, vnetdLimits.WATCH_HEAD).toString("hex"),
      text: "",
    });
  }

  private onNews({ kind, handle = 0, text, reason, direction, message, bytes }: NewsItem): void {
    this.tell({
      ...this.common(kind, process.hrtime.bigint(), this.vnetOf(handle)),
      mac: null,
      ...(reason === undefined ? {} : { reason }),
      ...(direction === undefined ? {} : { direction }),
      ...(bytes === undefined ? {} : { bytes }),
      ...(message === undefined
        ? {}
        : { head: Buffer.from(message.subarray(0, vnetdLimits.WATCH_HEAD)).toString("hex") }),
      text,
    });
  }

  private tell(event: MonitorEvent): void {
    for (const monitor of this.monitors)
      if (isWanted(monitor, event)) monitor.listener.event(event);
  }

  private common(
    kind: MonitorEvent["kind"],
    timeNs: bigint,
    vnet: RunningVnet | undefined,
  ): Pick<MonitorEvent, "kind" | "time" | "vnet"> {
    const ms = Number((this.epochNs + timeNs) / 1_000_000n);
    return { kind, time: new Date(ms).toISOString(), vnet: vnet?.id ?? null };
  }

  private placeOf(nexthop: number): string {
    if (nexthop === vnetdNexthopSpecial.NEXTHOP_LOCAL) return "this host";
    const record = this.context.maps.nexthop(nexthop);
    return record === undefined ? "?" : addressToText(record.key.addr);
  }

  /** Asked for at most once a second: there may be thousands of devices, and of drops. */
  private deviceName(ifindex: number): string {
    if (this.deviceNames === undefined) {
      const links = this.context.native.linkList();
      this.deviceNames = new Map(links.map((link) => [link.ifindex, link.name]));
    }
    return this.deviceNames.get(ifindex) ?? String(ifindex);
  }
}

const macKinds = new Map<number, MonitorEvent["kind"]>([
  [vnetdEventType.EVENT_LEARNED, "learned"],
  [vnetdEventType.EVENT_AGED, "aged"],
  [vnetdEventType.EVENT_MOVED, "moved"],
  [vnetdEventType.EVENT_HELD, "held"],
  [vnetdEventType.EVENT_STORM, "storm"],
]);

function macText(kind: MonitorEvent["kind"], from: string, to: string): string {
  switch (kind) {
    case "learned":
      return `at ${to}`;
    case "aged":
      return `was at ${to}`;
    case "moved":
      return `from ${from} to ${to}`;
    case "held":
      return `stays at ${from}, seen at ${to}`;
    default:
      return "more frames for all than the vnet's budget";
  }
}

function directionOf(direction: number): "encap" | "decap" {
  return directionNames[direction] === "decap" ? "decap" : "encap";
}

function macAt(frame: Buffer, at: number): Mac {
  return macFromBytes(frame.subarray(at, at + 6));
}

function isWanted({ vnet, mac, reason }: MonitorFilter, event: MonitorEvent): boolean {
  if (vnet !== undefined && event.vnet !== vnet) return false;
  if (reason !== undefined && event.reason !== reason) return false;
  return mac === undefined || event.mac === mac || event.destination === mac;
}

/** What all of them want; undefined: they differ, or some want all. */
function common<T>(wanted: readonly (T | undefined)[]): T | undefined {
  const [first] = wanted;
  return wanted.every((each) => each === first) ? first : undefined;
}
