// SPDX-License-Identifier: Apache-2.0
/** What is measured, in which state of the underlay, and how a row of it is called. */
import { variants } from "./lab.mjs";
import { echo, tcp, udp } from "./measure.mjs";
import { forwarded } from "./frames.mjs";
import { targetsOf } from "./targets.mjs";

/** the rate at which CPU time for each packet is taken: every way can do it, and has time to idle */
const pacedPerSecond = 50_000;

const gbit = "Gbit/s";
const labels = {
  tcp: { name: "TCP", unit: gbit },
  tcp8: { name: "TCP, 8 streams,", unit: gbit },
  both: { name: "TCP, both directions at once,", unit: gbit },
  tcpCpu: { name: "CPU for a KiB of TCP", unit: "ns" },
  udp64: { name: "UDP 64 bytes", unit: "1000 packets/s" },
  udp512: { name: "UDP 512 bytes", unit: "1000 packets/s" },
  udp1400: { name: "UDP 1400 bytes", unit: "1000 packets/s" },
  pacedCpu: {
    name: `CPU for a packet of 64 bytes, ${pacedPerSecond / 1000},000 a second`,
    unit: "ns",
  },
  echo: { name: "ping median", unit: "µs" },
  echoP999: { name: "ping 99.9th percentile", unit: "µs" },
  forward: { name: "forwarding only", unit: "Mpps on one core" },
  forwardCpu: { name: "forwarding only, CPU for a packet", unit: "ns" },
  arp: { name: "forwarding only, ARP", unit: "Mpps on one core" },
  arpCpu: { name: "forwarding only, CPU for a frame of ARP", unit: "ns" },
};

/** How each kind is measured: (lab, ends, target, series, options) -> {value name: number} */
const kinds = {
  async tcp({ from, to, target }, { congestion }, o) {
    const { gbits, nsPerKib } = await tcp(from, to, target, { seconds: o.seconds, congestion });
    return { tcp: gbits, tcpCpu: nsPerKib };
  },
  async tcp8({ from, to, target }, { congestion }, o) {
    const how = { seconds: o.seconds, congestion, streams: 8 };
    return { tcp8: (await tcp(from, to, target, how)).gbits };
  },
  async both({ from, to, target }, { congestion }, o) {
    const how = { seconds: o.seconds, congestion, both: true };
    return { both: (await tcp(from, to, target, how)).gbits };
  },
  udp64: async (ends, _, o) => ({ udp64: await datagrams(ends, o, 64) }),
  udp512: async (ends, _, o) => ({ udp512: await datagrams(ends, o, 512) }),
  // a packet that fills the guests' MTU
  udp1400: async (ends, _, o) => ({ udp1400: await datagrams(ends, o, 1400 - 28) }),
  async paced({ from, to, target }, _, o) {
    const how = { seconds: o.seconds, rate: pacedPerSecond };
    return { pacedCpu: (await udp(from, to, target, how)).nsPerPacket };
  },
  async echo({ from, to, target }, _, o) {
    const { median, p999 } = await echo(from, to, target, o.echoes);
    return { echo: median, echoP999: p999 };
  },
  forward({ lab, lane }, _, o) {
    const { millions, nsPerFrame } = forwarded(lab, lane, o.seconds);
    return { forward: millions, forwardCpu: nsPerFrame };
  },
  arp({ lab, lane }, _, o) {
    const { millions, nsPerFrame } = forwarded(lab, { ...lane, frame: lane.arp }, o.seconds);
    return { arp: millions, arpCpu: nsPerFrame };
  },
};

/** so many bytes of payload; in thousands a second */
const datagrams = async ({ from, to, target }, { seconds }, bytes) =>
  (await udp(from, to, target, { seconds, bytes })).thousands;

export const kindNames = Object.keys(kinds);

/** kinds that the others (bench/peers.mjs) take part in */
const shared = new Set(["tcp", "udp64", "udp1400", "echo"]);

/** One row or several of the table: values by way, a slot for each round; what failed is NaN there. */
export class Series {
  /** @param what {variant, mode, place, kind, congestion?} */
  constructor(what, rounds) {
    Object.assign(this, what, { rounds });
    this.values = new Map();
  }

  /** {value name: number} of one way, once */
  measure(lab, way, o) {
    const [from, to] = lab.ends(this.place);
    const target = lab.targets[this.place][way];
    const ends = { lab, from, to, target, lane: lab.lanes?.[this.place]?.[way] };
    return kinds[this.kind](ends, this, o);
  }

  /** The ways that can be measured here. */
  ways(lab) {
    const [known, others] = [lab.targets[this.place], lab.otherTargets ?? {}];
    const ways = Object.keys(known);
    if (this.kind === "forward" || this.kind === "arp")
      return ways.filter((way) => lab.lanes[this.place][way] !== undefined);
    return this.withOthers ? ways : ways.filter((way) => others[way] === undefined);
  }

  put(way, round, measured) {
    for (const [name, value] of Object.entries(measured)) {
      const series = this.values.get(name) ?? {};
      series[way] ??= new Array(this.rounds).fill(NaN);
      series[way][round] = value;
      this.values.set(name, series);
    }
  }

  rows() {
    const { variant, mode, place, congestion } = this;
    const where = [`${place} to ${place}`, variant.name].filter(Boolean).join(", ");
    const how = congestion === undefined ? "" : ` ${congestion}`;
    return [...this.values].map(([name, values]) => ({
      name: `${where}, ${labels[name].name}${how}, ${mode}`,
      unit: labels[name].unit,
      targets: variant === variants.ipv4 ? targetsOf({ name, mode, place, congestion }) : [],
      merge: this.merge ? "on" : "off",
      values,
    }));
  }

  get title() {
    const kind = [this.kind, this.congestion].filter(Boolean).join(" ");
    return [this.variant.name, this.mode, `${this.place} to ${this.place}`, kind]
      .filter(Boolean)
      .join(", ");
  }
}

/**
 * What differs by the state of the underlay is measured in both, the rest on the "wire".
 * First the kinds of host to host, then of guest to guest.
 */
const everything = {
  offload: {
    host: ["tcp", "tcp8", "udp64", "echo"],
    guest: ["tcp", "tcp8", "udp64", "echo"],
  },
  wire: {
    host: ["tcp", "tcp8", "both", "udp64", "udp512", "udp1400", "paced", "echo", "forward", "arp"],
    guest: ["tcp", "tcp8", "both", "udp64", "udp512", "udp1400", "paced", "echo", "forward", "arp"],
  },
};

/** What is measured of a variant, in one state of the underlay: all of the first, of others what differs; of it what was chosen. */
export function seriesOf(variant, mode, o) {
  const full = variant === variants.ipv4;
  const { kinds: host = ["tcp", "udp64"], guestKinds: guest = [] } = variant;
  const places = full ? everything[mode] : { host, guest };
  const [first] = o.congestion;
  return Object.entries(places).flatMap(([place, names]) =>
    names
      .filter((kind) => o.kinds.includes(kind))
      .flatMap((kind) => {
        const isTcp = kind.startsWith("tcp") || kind === "both";
        const forAll = kind === "tcp" && place === "host" && full;
        const controls = !isTcp ? [undefined] : forAll ? o.congestion : [first];
        return controls.map((congestion) => {
          const withOthers =
            full &&
            mode === "wire" &&
            place === "host" &&
            shared.has(kind) &&
            [first, undefined].includes(congestion);
          return new Series({ variant, mode, place, kind, congestion, withOthers }, o.rounds);
        });
      }),
  );
}
