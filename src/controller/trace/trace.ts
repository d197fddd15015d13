// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd trace`: what would happen to a frame now. The programs themselves say it, in a dry run
 * (src/dataplane/dry-run.ts); this tells it step by step.
 */
import type { TraceParams, TraceReport, TraceStep } from "../../api/contract.js";
import { addressToText, familyOfText, parseAddress } from "../../base/address.js";
import { VnetdError } from "../../base/errors.js";
import { isGroupMac, isZeroMac, macToBytes, parseMac, type Mac } from "../../base/mac.js";
import { parseVnetId, vnetIdToBytes } from "../../base/vnet-id.js";
import { DirectMaps } from "../../dataplane/direct-maps.js";
import { DryRun } from "../../dataplane/dry-run.js";
import { readMeta } from "../../dataplane/generation.js";
import { isLocal } from "../../dataplane/tables.js";
import { questionFrame, questionMac } from "../../wire/neighbour-frame.js";
import { arrival, ethernetBytes, frameTypes, traceFrame } from "../../wire/trace-frame.js";
import type { Context } from "../context.js";
import type { Hellos } from "../hellos.js";
import { isUsable, type Underlay, type Underlays } from "../underlays.js";
import type { RunningVnet, Vnets } from "../vnets.js";
import type { Asks } from "../asks.js";
import { probe } from "./probe.js";
import { Narrator } from "./narrator.js";
import { walk, type Pass, type Walked } from "./walk.js";

export interface TraceParts {
  vnets: Vnets;
  underlays: Underlays;
  hellos: Pick<Hellos, "list">;
  asks: Asks;
}

/** a test run takes no more than fits a page with the kernel's own records */
export const maxFrameBytes = 3000;
const defaultBytes = 98;
const outcomeOrder = ["answered", "delivered", "sent", "stack"] as const;

/** A frame to be looked at, read from what was asked. */
interface Asked {
  vnet: RunningVnet;
  destination: Mac;
  source: Mac;
  frame: Buffer;
  from: string | undefined;
  /** whose MAC it asks for; in the maps' form */
  target: Uint8Array | undefined;
  /** from another host: it came by the group */
  byGroup: boolean;
}

export class Trace {
  constructor(
    private readonly context: Context,
    private readonly parts: TraceParts,
  ) {}

  async run(params: TraceParams): Promise<TraceReport> {
    if (params.send === true && params.from !== undefined)
      throw new VnetdError(
        "BAD_VALUE",
        "`send` asks the host that a frame of this one would go to",
        {
          hint: "Leave out --from, or run it on that host.",
        },
      );
    const report = this.dry(params);
    if (params.send !== true) return report;
    const vnet = this.read(params).vnet;
    const { destination, bytes, steps } = report;
    const packetBytes = steps.find(({ outer }) => outer !== undefined)?.outer?.bytes ?? bytes;
    const found = await probe(this.context, this.parts, { vnet, destination, packetBytes });
    return { ...report, steps: [...steps, ...found] };
  }

  private dry(params: TraceParams): TraceReport {
    const asked = this.read(params);
    const { vnet, from } = asked;
    const steps: TraceStep[] = [];
    const start =
      from === undefined
        ? {
            program: "vnetd_encap" as const,
            packet: asked.frame,
            ifindex: vnet.peer.ifindex,
            mark: 0,
          }
        : this.arrivalOf(asked, from, steps);
    const { native, generation, maps } = this.context;
    const { slot, handle } = vnet;
    const owner = asked.target && maps.neighbour({ handle, addr: asked.target });
    const macs = [
      ...[asked.source, asked.destination].map(macToBytes),
      ...(owner === undefined ? [] : [owner.mac]),
    ];
    const program = start?.program ?? "vnetd_decap";
    const neighbour = asked.target;
    const dry = DryRun.open(native, generation, program, { slot, handle, macs, neighbour });
    try {
      return this.report(asked, { dry, start, early: steps });
    } finally {
      dry.close();
    }
  }

  /** The vnet's direct ports, and that of the destination. */
  private portsOf(
    { handle }: RunningVnet,
    destination: Mac,
  ): { ports: ReadonlySet<number>; portOf: number | undefined } {
    const { native, maps } = this.context;
    const all = new DirectMaps(native, maps).ports();
    const ports = new Set([...all].flatMap(([at, each]) => (each.handle === handle ? [at] : [])));
    const entry = maps.fdbEntry({ handle, mac: macToBytes(destination) });
    const isHere = entry !== undefined && isLocal(entry) && ports.has(entry.gen);
    return { ports, portOf: isHere ? entry.gen : undefined };
  }

  private read(params: TraceParams): Asked {
    const { vnets } = this.parts;
    const { running, problem } = vnets.find(parseVnetId(params.vnet));
    if (running === undefined)
      throw new VnetdError("VNET_NOT_FOUND", `vnet ${params.vnet} is not up: ${problem}`, {
        hint: "`vnetd status` says what is in its way.",
      });
    const target = params.asks === undefined ? undefined : parseAddress(params.asks);
    const given = parseMac(params.destination);
    const destination = target === undefined ? given : questionMac(given, target);
    const source = params.source === undefined ? running.vmac : parseMac(params.source);
    for (const mac of [destination, source])
      if (isZeroMac(mac)) throw new VnetdError("BAD_MAC", `${mac} is nobody's`);
    const frame =
      target === undefined
        ? plainFrame(params, { destination, source })
        : question(params, { destination, source, target });
    const from = params.from === undefined ? undefined : addressToText(parseAddress(params.from));
    const byGroup = isGroupMac(destination) || (params.byGroup ?? false);
    return { vnet: running, destination, source, frame, from, target, byGroup };
  }

  private report(
    asked: Asked,
    { dry, start, early }: { dry: DryRun; start: Pass | undefined; early: TraceStep[] },
  ): TraceReport {
    const { native, maps } = this.context;
    const { vnet, source, destination, frame, from } = asked;
    const macOf = macToBytes(source);
    const before = dry.entry(macOf);
    const narrator = new Narrator(this.context, this.parts, vnet);
    const steps: TraceStep[] = [narrator.vnetStep(), ...early];
    const meta = readMeta(native, maps);
    const run = ({ program, packet, ifindex, mark }: Pass): ReturnType<DryRun["run"]> =>
      dry.run(program, packet, { ifindex, mark });
    const walked: Walked =
      start === undefined
        ? { ways: [], programs: [], more: 0 }
        : walk(
            { run, meta, vnifPeer: vnet.peer.ifindex, ...this.portsOf(vnet, destination) },
            start,
          );
    const drops = dry.drops();
    const isEncap = from === undefined;
    const refused = drops.find(({ reason }) => reason.startsWith("refused_"));
    const isAdmitted =
      walked.ways.length > 0 || refused !== undefined || dry.entry(macOf) !== before;
    if (start !== undefined && (isEncap || isAdmitted))
      steps.push(
        narrator.sourceStep({ mac: source, from, before, after: dry.entry(macOf), refused }),
      );
    if (isEncap) steps.push(narrator.destinationStep(destination));
    if (isEncap && asked.target !== undefined) steps.push(narrator.neighbourStep(asked.target));
    steps.push(...narrator.waySteps(walked, { destination, isEncap }));
    const dropped = drops.filter((each) => each !== refused);
    steps.push(...dropped.map((drop) => narrator.dropStep(drop)));
    const traffic = dry.traffic();
    steps.push(narrator.countStep(traffic, drops, walked.ways));
    const outcome =
      outcomeOrder.find((kind) => walked.ways.some((way) => way.kind === kind)) ??
      (walked.ways.some(({ kind }) => kind === "resolved") ? "answered" : undefined) ??
      (walked.ways.some((way) => way.kind === "port" && !way.copy) ? "delivered" : undefined) ??
      (walked.ways.some(({ kind }) => kind === "sealed") ? "sent" : "dropped");
    const reason =
      outcome === "dropped" || outcome === "answered" ? (dropped[0]?.reason ?? null) : null;
    return {
      vnet: vnet.id,
      direction: isEncap ? "encap" : "decap",
      source,
      destination,
      bytes: frame.length,
      outcome,
      toAll: traffic.floodedFrames > 0n,
      reason,
      steps,
    };
  }

  /** undefined: it does not get as far as our programs, and a step says why. */
  private arrivalOf(asked: Asked, from: string, steps: TraceStep[]): Pass | undefined {
    const { vnet, frame, byGroup } = asked;
    const { maps, config } = this.context;
    const underlay = this.placeOf(vnet, from);
    const { address } = underlay.state;
    if (address === null) throw noPath(from);
    const ours = parseAddress(address);
    const theirs = parseAddress(from);
    const isSecure = maps.vnet(vnet.slot)?.security !== 0;
    const group = familyOfText(address) === 4 ? config.group : config.group6;
    const to = byGroup && !isSecure ? parseAddress(group) : ours;
    const outer = { from: theirs, to, port: config.port, vnet: vnetIdToBytes(vnet.id) };
    const packet = arrival(outer, frame);
    if (!isSecure) return { program: "vnetd_decap", packet, ifindex: underlay.ifindex, mark: 0 };
    const esp = maps.underlays().find(({ ifindex }) => ifindex === underlay.ifindex)?.esp ?? 0;
    // the last that was made, while keys are changed
    const spi = [...maps.spis()]
      .filter(([, sa]) => sa.handle === vnet.handle && addressToText(sa.source) === from)
      .at(-1)?.[0];
    if (spi !== undefined && esp !== 0)
      return { program: "vnetd_esp", packet, ifindex: esp, mark: spi };
    const text = `the vnet is secure, and there are no keys by which ${from} could send to this host: nothing of it gets in`;
    steps.push({ step: "keys", text });
    return undefined;
  }

  /** By which place a host's packets come: the one that it is known by, or that leads to it. */
  private placeOf(vnet: RunningVnet, from: string): Underlay {
    const { underlays } = this.parts;
    const { maps, native } = this.context;
    const family = familyOfText(from);
    const places = underlays.list().filter((each) => each.family === family && isUsable(each));
    const addr = parseAddress(from);
    const known = places.find(
      ({ ifindex }) => maps.nexthopOf({ handle: vnet.handle, ifindex, addr }) !== undefined,
    );
    if (known !== undefined) return known;
    const ifindex = native.routeGet(from);
    const found = places.find((each) => each.ifindex === ifindex) ?? places[0];
    if (found === undefined) throw noPath(from);
    return found;
  }
}

function noPath(from: string): VnetdError {
  return new VnetdError("NO_PATH", `no attached device is used with addresses such as ${from}`, {
    hint: "`vnetd status` shows the devices.",
  });
}

function plainFrame(
  { type = "ipv4", dontFragment = false, bytes = defaultBytes }: TraceParams,
  macs: { destination: Mac; source: Mac },
): Buffer {
  return traceFrame({ ...macs, etherType: etherTypeOf(type), bytes, dontFragment });
}

function question(
  { type, bytes, dontFragment }: TraceParams,
  spec: Parameters<typeof questionFrame>[0],
): Buffer {
  if (type === undefined && bytes === undefined && dontFragment !== true)
    return questionFrame(spec);
  throw new VnetdError("BAD_VALUE", "`asks` says what kind of frame it is, and how long", {
    hint: "Leave out --type, --length and --dont-fragment.",
  });
}

function etherTypeOf(text: string): number {
  const named = (frameTypes as Readonly<Record<string, number>>)[text];
  if (named !== undefined && Object.hasOwn(frameTypes, text)) return named;
  const value = /^0x[0-9a-f]{4}$/iu.test(text) ? Number.parseInt(text, 16) : 0;
  // less is a length, not a type
  if (value >= 0x600) return value;
  throw new VnetdError("BAD_VALUE", `"${text.slice(0, 80)}" is not an EtherType`, {
    hint: "ipv4, ipv6, arp, or four hex digits from 0x0600 on.",
  });
}

export const minFrameBytes = ethernetBytes;
